//! What one operation takes: the difference between doing it a few times and more times, by the number.

use serde::Serialize;

use super::table::{Figures, Measure, Run};

/// One operation.
#[derive(Serialize)]
pub struct Row {
    /// Its name.
    pub operation: String,
    /// How much more often it is done in each second run.
    times: u32,
    /// The native runs, then the translators': a few times, and more times.
    runs: Vec<[Run; 2]>,
}

impl Row {
    /// The runs of an operation, of which the second ones do it so much more often.
    pub fn new(operation: String, times: u32, runs: Vec<[Run; 2]>) -> Self {
        Self { operation, times, runs }
    }

    /// What the native runs took.
    pub fn native(&self) -> impl Iterator<Item = &Figures> {
        self.runs.first().into_iter().flatten().filter_map(|run| run.figures.as_ref())
    }

    /// Has every run its figures?
    pub fn complete(&self) -> bool {
        self.runs.iter().flatten().all(|run| run.failure.is_none())
    }

    fn one(&self, [few, more]: &[Run; 2], measure: Measure) -> Option<f64> {
        let [few, more] = [few, more].map(|run| measure.amount(run.figures?));
        Some((more? - few?) / f64::from(self.times))
    }
}

/// A line for each operation, below a heading.
pub fn lines(rows: &[Row], measure: Measure) -> Option<Vec<Vec<String>>> {
    let unit = match measure {
        Measure::Instructions => "one operation: instructions",
        Measure::Cycles => "one operation: cycles",
        Measure::Seconds => "one operation: microseconds",
    };
    let names = rows.first()?.runs.iter().map(|[run, _]| run.name.clone());
    let heading = [unit.to_owned()].into_iter().chain(names).collect();
    let line = |row: &Row| {
        let cell = |pair| row.one(pair, measure).map_or_else(String::new, |one| show(one, measure));
        [row.operation.clone()].into_iter().chain(row.runs.iter().map(cell)).collect()
    };
    Some([heading].into_iter().chain(rows.iter().map(line)).collect())
}

fn show(one: f64, measure: Measure) -> String {
    match measure {
        Measure::Instructions | Measure::Cycles => format!("{one:.0}"),
        Measure::Seconds => format!("{:.2}", one * 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::measure::Measured, *};

    fn run(name: &str, instructions: u64) -> Run {
        let measured = Measured {
            instructions: Some(instructions),
            outside: None,
            cost: None,
            seconds: instructions as f64 / 1e9,
            printed: Vec::new(),
            images: Vec::new(),
        };
        Run::new(name.into(), false, Ok(measured))
    }

    #[test]
    fn what_is_there_without_the_operation_does_not_count() {
        let native = [run("native", 5_000), run("native", 7_000)];
        let failed = || Run::new("other".into(), true, Err("ended".into()));
        let row = Row::new("call".into(), 200, vec![native, [failed(), failed()]]);
        assert!(!row.complete());
        let lines = |measure| lines(std::slice::from_ref(&row), measure).unwrap();
        let heading = ["one operation: instructions", "native", "other"];
        assert_eq!(lines(Measure::Instructions), [heading, ["call", "10", ""]]);
        assert_eq!(lines(Measure::Seconds)[1], ["call", "0.01", ""]);
    }
}
