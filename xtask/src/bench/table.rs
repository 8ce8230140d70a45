//! What was measured, as a table.

use std::fmt::Write;

use serde::Serialize;

use super::{
    latency,
    measure::{Instrument, Measured},
    translation,
    workloads::Workload,
};

/// What runs are compared by.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Measure {
    /// Executed instructions, where an emulator counts them.
    Instructions,
    /// The processor's cycles.
    Cycles,
    /// Wall time, where the processor's counters cannot be read.
    Seconds,
}

/// The runs of all workloads.
#[derive(Serialize)]
pub struct Table {
    /// When, as YYYY-MM-DD.
    pub date: String,
    /// What runs are compared by.
    pub measure: Measure,
    /// What [`Measured::cost`] is.
    pub cost: &'static str,
    /// One per workload.
    pub rows: Vec<Row>,
    /// One per single operation.
    pub latencies: Vec<latency::Row>,
    /// What translation costs, where that is counted.
    pub translation: Vec<translation::Row>,
}

/// The runs of one workload.
#[derive(Serialize)]
pub struct Row {
    /// Its name.
    pub workload: String,
    /// The ratio to native aimed at.
    pub goal: Option<f64>,
    /// The millions of instructions aimed at.
    pub goal_millions: Option<f64>,
    /// Does it count in the geometric mean?
    pub hot: bool,
    /// The native run, then the translators'.
    pub runs: Vec<Run>,
}

/// A translator's run of a workload.
#[derive(Clone, Serialize)]
pub struct Run {
    /// The translator.
    pub name: String,
    /// Is it another than Demotic?
    pub peer: bool,
    /// What it took.
    #[serde(flatten)]
    pub figures: Option<Figures>,
    /// Why there is no figure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// The figures of [`Measured`].
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Figures {
    instructions: Option<u64>,
    outside: Option<u64>,
    cost: Option<u64>,
    seconds: f64,
}

impl Measure {
    /// The best there is for these runs.
    pub fn of<'a>(instrument: &Instrument, mut runs: impl Iterator<Item = &'a Figures>) -> Self {
        let mut cycles = || runs.all(|run| run.cost.is_some());
        match instrument {
            Instrument::Counter(_) => Self::Instructions,
            Instrument::Hardware(_) if cycles() => Self::Cycles,
            Instrument::Hardware(_) => Self::Seconds,
        }
    }

    /// What a run took.
    pub fn amount(self, run: Figures) -> Option<f64> {
        match self {
            Self::Instructions => run.instructions.map(|count| count as f64),
            Self::Cycles => run.cost.map(|count| count as f64),
            Self::Seconds => Some(run.seconds),
        }
    }
}

impl Run {
    /// A run, or why there is none.
    pub fn new(name: String, peer: bool, measured: Result<Measured, String>) -> Self {
        let failure = measured.as_ref().err().cloned();
        let figures = measured.ok().map(|run| Figures::from(&run));
        Self { name, peer, figures, failure }
    }
}

impl From<&Measured> for Figures {
    fn from(run: &Measured) -> Self {
        let Measured { instructions, outside, cost, seconds, .. } = *run;
        Self { instructions, outside, cost, seconds }
    }
}

impl Row {
    /// The native run and the others.
    pub fn new(workload: &Workload, native: &Measured, others: Vec<Run>) -> Self {
        let native =
            Run { name: "native".into(), peer: false, figures: Some(native.into()), failure: None };
        Self {
            workload: workload.name.clone(),
            goal: workload.goal,
            goal_millions: workload.goal_millions,
            hot: workload.hot,
            runs: [vec![native], others].concat(),
        }
    }

    /// What the native run took.
    pub fn native(&self) -> Option<Figures> {
        self.runs.first()?.figures
    }

    /// The instructions outside of translated code of Demotic as it was asked for.
    pub fn outside(&self) -> Option<u64> {
        self.runs.get(1)?.figures?.outside
    }

    /// A run's figure as a multiple of the native one.
    pub fn ratio(&self, run: &Run, measure: Measure) -> Option<f64> {
        Some(measure.amount(run.figures?)? / measure.amount(self.native()?)?)
    }

    /// The same for the cost.
    fn cost_ratio(&self, run: &Run) -> Option<f64> {
        Some(run.figures?.cost? as f64 / self.native()?.cost? as f64)
    }

    /// A run's figure as a multiple of the best peer's.
    fn to_best_peer(&self, run: &Run, measure: Measure) -> Option<f64> {
        let peers = self.runs.iter().filter(|run| run.peer);
        let amounts = peers.filter_map(|run| measure.amount(run.figures?));
        Some(measure.amount(run.figures?)? / amounts.reduce(f64::min)?)
    }

    /// Is the goal reached? It is one in instructions.
    fn reached(&self, run: &Run) -> Option<bool> {
        let ratio = self.ratio(run, Measure::Instructions);
        match (self.goal, self.goal_millions) {
            (Some(goal), _) => Some(ratio? <= goal),
            (_, Some(goal)) => Some(run.figures?.instructions? as f64 / 1e6 <= goal),
            _ => None,
        }
    }

    /// The goal in words.
    fn goal(&self) -> String {
        let millions = self.goal_millions.map(|goal| format!("{goal} M"));
        self.goal.map(|goal| format!("{goal:.2}")).or(millions).unwrap_or_default()
    }
}

impl Table {
    /// The translators, in order.
    pub fn translators(&self) -> Vec<&str> {
        let runs = self.rows.first().map_or(&[][..], |row| &row.runs[1..]);
        runs.iter().map(|run| run.name.as_str()).collect()
    }

    /// Has every run its figures?
    pub fn complete(&self) -> bool {
        self.latencies.iter().all(latency::Row::complete)
            && self.rows.iter().flat_map(|row| &row.runs).all(|run| run.failure.is_none())
    }

    /// The geometric mean of a translator's ratios on the hot rows, if it ran all of them.
    pub fn mean(&self, translator: &str) -> Option<f64> {
        let ratio = |row: &Row| {
            let run = row.runs.iter().find(|run| run.name == translator)?;
            self.of(row, run)
        };
        let hot = self.rows.iter().filter(|row| row.hot);
        let ratios = hot.map(ratio).collect::<Option<Vec<f64>>>()?;
        let sum: f64 = ratios.iter().map(|ratio| ratio.ln()).sum();
        (!ratios.is_empty()).then(|| (sum / ratios.len() as f64).exp())
    }

    fn of(&self, row: &Row, run: &Run) -> Option<f64> {
        row.ratio(run, self.measure)
    }

    /// Every figure, a line per run; then the single operations, and the cost of translation.
    pub fn text(&self) -> String {
        let rows = if self.rows.is_empty() { String::new() } else { self.rows_text() };
        let others = [self.latencies(), self.translation()];
        let others = others.iter().flatten().map(|lines| format!("\n{}", aligned(lines)));
        rows + &others.collect::<String>()
    }

    /// The single operations, with a heading.
    fn latencies(&self) -> Option<Vec<Vec<String>>> {
        latency::lines(&self.latencies, self.measure)
    }

    /// The cost of translation, with a heading.
    fn translation(&self) -> Option<Vec<Vec<String>>> {
        translation::lines(&self.translation)
    }

    fn rows_text(&self) -> String {
        let mut lines = vec![self.heading()];
        for row in &self.rows {
            lines.extend(row.runs.iter().enumerate().map(|(at, run)| self.line(row, run, at == 0)));
        }
        for name in self.translators() {
            if let Some(mean) = self.mean(name) {
                let title = ["geometric mean, hot", name].map(String::from);
                lines.push([&title[..], &[String::new(), format!("{mean:.2}")]].concat());
            }
        }
        aligned(&lines)
    }

    fn heading(&self) -> Vec<String> {
        let cost = format!("M {}", self.cost);
        let names = [
            "workload",
            "translator",
            "M instructions",
            "× native",
            &cost,
            "× native",
            "not translated code",
            "seconds",
            "× best peer",
            "goal",
        ];
        names.map(String::from).into()
    }

    fn line(&self, row: &Row, run: &Run, first: bool) -> Vec<String> {
        let workload = if first { row.workload.clone() } else { String::new() };
        if let Some(failure) = &run.failure {
            return vec![workload, run.name.clone(), failure.clone()];
        }
        let millions = |count: Option<u64>| optional(count, |count| millions(count as f64));
        let ratio =
            |ratio: Option<f64>| optional(ratio.filter(|_| !first), |ratio| format!("{ratio:.2}"));
        let share =
            run.figures.and_then(|run| Some(run.outside? as f64 / run.instructions? as f64));
        let demotic = !first && !run.peer;
        let goal = match row.reached(run).filter(|_| demotic) {
            Some(true) => format!("{} reached", row.goal()),
            Some(false) => format!("{} missed", row.goal()),
            None => String::new(),
        };
        vec![
            workload,
            run.name.clone(),
            millions(run.figures.and_then(|run| run.instructions)),
            ratio(row.ratio(run, Measure::Instructions)),
            millions(run.figures.and_then(|run| run.cost)),
            ratio(row.cost_ratio(run)),
            optional(share.filter(|_| !first), |share| format!("{:.1} %", share * 100.0)),
            optional(run.figures, |run| format!("{:.2}", run.seconds)),
            ratio(row.to_best_peer(run, self.measure).filter(|_| demotic)),
            goal,
        ]
    }

    /// The ratios, a line per workload, in Markdown; `names` are the translators.
    pub fn ratios(&self, names: &[&str]) -> String {
        let native = match self.measure {
            Measure::Instructions => "native, M instructions",
            Measure::Cycles => "native, M cycles",
            Measure::Seconds => "native, seconds",
        };
        let mut text = format!("| workload | {native} | {} | goal |\n", names.join(" | "));
        text += &format!("|---|{}\n", "---:|".repeat(names.len() + 2));
        for row in &self.rows {
            let ratio = |name: &&str| {
                let run = row.runs.iter().find(|run| run.name == *name);
                optional(run.and_then(|run| self.of(row, run)), |ratio| self.cell(row, ratio))
            };
            let cells: Vec<_> = names.iter().map(ratio).collect();
            let amount = row.native().and_then(|run| self.measure.amount(run)).unwrap_or_default();
            let native = if self.measure == Measure::Seconds {
                format!("{amount:.2}")
            } else {
                millions(amount)
            };
            let (workload, goal) = (&row.workload, row.goal());
            let _ = writeln!(text, "| {workload} | {native} | {} | {goal} |", cells.join(" | "));
        }
        let means: Vec<_> = names
            .iter()
            .map(|name| optional(self.mean(name), |mean| format!("{mean:.2}")))
            .collect();
        text + &format!("| **geometric mean of the hot ones** | | {} | |\n", means.join(" | "))
    }

    /// A ratio; or where starting up is all there is, and counted, the millions of instructions.
    fn cell(&self, row: &Row, ratio: f64) -> String {
        match row.native().and_then(|run| self.measure.amount(run)) {
            Some(native) if row.starts_up() && self.measure == Measure::Instructions => {
                format!("{} M", millions(native * ratio))
            }
            _ => format!("{ratio:.2}"),
        }
    }

    /// In Markdown, the single operations and the cost of translation, each with a title.
    pub fn sections(&self) -> String {
        let sections = [
            ("One operation", self.latencies(), 1),
            ("What translation costs", self.translation(), 1),
        ];
        let section = |(title, lines, names): (&str, Option<Vec<Vec<String>>>, usize)| {
            Some(format!("\n## {title}\n\n{}", markdown(lines?, names)))
        };
        sections.into_iter().filter_map(section).collect()
    }

    /// Every figure of the workloads in Markdown.
    pub fn markdown(&self) -> String {
        let mut lines = vec![self.heading()];
        for row in &self.rows {
            lines.extend(row.runs.iter().enumerate().map(|(at, run)| self.line(row, run, at == 0)));
        }
        markdown(lines, 2)
    }
}

impl Row {
    /// Is starting up all that it does?
    pub fn starts_up(&self) -> bool {
        self.goal.is_none()
    }
}

/// Lines in Markdown, below a heading; the first `names` columns are names, the others figures.
fn markdown(mut lines: Vec<Vec<String>>, names: usize) -> String {
    let rule = (0..lines[0].len()).map(|at| if at < names { "---" } else { "---:" }.into());
    lines.insert(1, rule.collect());
    lines.iter().map(|line| format!("| {} |\n", line.join(" | "))).collect()
}

fn optional<T>(value: Option<T>, show: impl FnOnce(T) -> String) -> String {
    value.map_or_else(String::new, show)
}

/// A count in millions, with three digits at least.
pub fn millions(count: f64) -> String {
    match count / 1e6 {
        millions if millions < 0.1 => format!("{millions:.3}"),
        millions if millions < 10.0 => format!("{millions:.2}"),
        millions => format!("{millions:.1}"),
    }
}

/// Lines with their columns aligned: the first two to the left, figures to the right.
fn aligned(lines: &[Vec<String>]) -> String {
    let width = |at: usize| {
        // A failure is a sentence, not a column's figure.
        let lines = lines.iter().filter(|line| line.len() != 3);
        lines.filter_map(|line| line.get(at)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let mut text = String::new();
    for line in lines {
        let cells = line.iter().enumerate().map(|(at, cell)| match at {
            0 | 1 => format!("{cell:0$}", width(at)),
            _ => format!("{cell:>0$}", width(at)),
        });
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
    }
    text
}
