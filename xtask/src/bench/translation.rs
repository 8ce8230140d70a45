//! What translation costs: the translator's own instructions by the distinct guest instructions that were translated.

use anyhow::{Context, Result};
use serde::Serialize;

use super::table::millions;

/// What a workload took of the translator.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    workload: String,
    /// The instructions outside of translated code.
    outside: u64,
    /// The guest instructions that were translated …
    translated: u64,
    /// … and how many of them are different ones.
    distinct: u64,
}

impl Row {
    /// From what was counted, and what `--stats` wrote.
    pub fn new(workload: &str, outside: u64, stats: &str) -> Result<Self> {
        let field = |name: &str| {
            let missing = || format!("no {name} in what --stats wrote: {stats}");
            stat(stats, name).with_context(missing)
        };
        let (translated, distinct) =
            (field("guest_instructions")?, field("distinct_instructions")?);
        Ok(Self { workload: workload.into(), outside, translated, distinct })
    }

    /// What it took more than another.
    pub fn over(&self, smallest: &Self) -> Self {
        Self {
            workload: self.workload.clone(),
            outside: self.outside.saturating_sub(smallest.outside),
            translated: self.translated.saturating_sub(smallest.translated),
            distinct: self.distinct.saturating_sub(smallest.distinct),
        }
    }
}

/// A number in the translator's own notation: `name: 123`, of all processes.
fn stat(stats: &str, name: &str) -> Option<u64> {
    let fields = stats.split([' ', '{', '}', ',', '\n']).filter(|word| !word.is_empty());
    let values = fields
        .clone()
        .skip(1)
        .zip(fields)
        .filter(|(_, word)| word.strip_suffix(':').is_some_and(|field| field == name));
    values.map(|(value, _)| value.parse::<u64>().ok()).sum::<Option<u64>>().filter(|&sum| sum > 0)
}

/// A line for each workload, below a heading.
pub fn lines(rows: &[Row]) -> Option<Vec<Vec<String>>> {
    let heading = [
        "translation, over the smallest program's",
        "M instructions of the translator",
        "guest instructions translated",
        "distinct ones",
        "arm64 instructions per distinct guest instruction",
    ];
    let line = |row: &Row| {
        let each = row.outside as f64 / row.distinct as f64;
        let (outside, each) = (millions(row.outside as f64), format!("{each:.0}"));
        let (translated, distinct) = (row.translated.to_string(), row.distinct.to_string());
        vec![row.workload.clone(), outside, translated, distinct, each]
    };
    let rows: Vec<_> = rows.iter().map(line).collect();
    (!rows.is_empty()).then(|| [vec![heading.map(String::from).into()], rows].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATS: &str = "demotic: Stats { regions: 2, guest_instructions: 1500, distinct_instructions: 1200, links: 1 }\n";

    #[test]
    fn the_cost_is_by_distinct_instructions_over_the_smallest_program() {
        let row = Row::new("a", 5_000_000, &STATS.repeat(2)).unwrap();
        let smallest = Row::new("b", 1_000_000, STATS).unwrap();
        let over = row.over(&smallest);
        assert_eq!((over.translated, over.distinct), (1500, 1200));
        assert_eq!(lines(&[over]).unwrap()[1], ["a", "4.00", "1500", "1200", "3333"]);
        assert_eq!(lines(&[]), None);
    }

    #[test]
    fn what_is_not_written_is_an_error() {
        assert!(Row::new("a", 1, "Stats { guest_instructions: 1 }").is_err());
    }
}
