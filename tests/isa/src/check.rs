//! Checking an executor against the record.

use crate::{
    case::{Case, SEQUENCE, SPECIAL, name},
    compare::{Difference, compare},
    executor::{Executor, Host},
    record::{self, Answers, Sample},
    state::{Outcome, vector},
};
use anyhow::Result;
use regex::Regex;
use std::{collections::BTreeMap, fmt};

/// What became of one case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No difference that counts.
    Same,
    /// The translator does not have the instruction at this address.
    Missing(u64),
    /// Differences.
    Different(Vec<Difference>),
    /// The executor died or got stuck.
    Broken(String),
}

/// Runs a case and compares with what is expected.
pub fn judge(executor: &mut dyn Executor, case: &Case, expected: &Outcome) -> Verdict {
    match executor.run(&case.program) {
        Err(error) => Verdict::Broken(format!("{error:#}")),
        Ok(actual) if actual.stop.vector == vector::UNIMPLEMENTED => {
            Verdict::Missing(actual.state.rip)
        }
        Ok(actual) => match compare(case, expected, &actual) {
            differences if differences.is_empty() => Verdict::Same,
            differences => Verdict::Different(differences),
        },
    }
}

/// How an instruction form (or the sequences as a whole) fared.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// Cases without a difference.
    pub same: u32,
    /// Cases with an instruction that is not implemented.
    pub missing: u32,
    /// Cases that differ or broke the executor, by name.
    pub failures: Vec<(String, Verdict)>,
}

impl Standing {
    fn add(&mut self, name: &str, verdict: Verdict) {
        match verdict {
            Verdict::Same => self.same += 1,
            Verdict::Missing(_) => self.missing += 1,
            other => self.failures.push((name.into(), other)),
        }
    }

    /// Whether every case agreed.
    pub fn verified(&self) -> bool {
        self.missing == 0 && self.failures.is_empty() && self.same > 0
    }

    /// Whether the instruction is not there at all: no case ran.
    pub fn absent(&self) -> bool {
        self.missing > 0 && self.same == 0 && self.failures.is_empty()
    }
}

/// Standings by form name, sequences among them.
#[derive(Clone, Debug, Default)]
pub struct Report(pub BTreeMap<String, Standing>);

/// Checks the recorded cases whose form matches, `depth` of each form and as many sequences as their
/// share of the record is.
pub fn check(
    executor: &mut dyn Executor,
    answers: &Answers,
    forms: &Regex,
    depth: u32,
    host: Host,
) -> Result<Report> {
    let mut report = Report::default();
    let without_afp = host.without_afp();
    for (kind, samples) in answers.iter().filter(|(kind, _)| forms.is_match(kind)) {
        let standing = report.0.entry(kind.clone()).or_default();
        for (index, sample) in chosen(kind, samples, depth) {
            let mut case = Case::by_name(&name(kind, index as u32, 0))?;
            case.tolerance.without_afp = without_afp;
            let expected = sample.outcome(&case)?;
            standing.add(&case.name, judge(executor, &case, &expected));
        }
    }
    Ok(report)
}

fn chosen<'a>(
    kind: &str,
    samples: &'a [Sample],
    depth: u32,
) -> impl Iterator<Item = (usize, &'a Sample)> {
    let share = record::special_depth(kind).map_or(1, |all| all / record::FORM_DEPTH);
    samples.iter().enumerate().take((depth * share) as usize)
}

impl Report {
    /// Number of cases that agree and that do not; what is missing counts as neither.
    pub fn totals(&self) -> (u32, u32) {
        let sum = |f: fn(&Standing) -> u32| self.0.values().map(f).sum();
        (sum(|s| s.same), sum(|s| s.failures.len() as u32))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kind, standing) in &self.0 {
            if let Some((name, verdict)) = standing.failures.first() {
                let count = standing.failures.len();
                let of = count as u32 + standing.same + standing.missing;
                writeln!(f, "{kind}: {count} of {of} differ: {} (case {name})", verdict.summary())?;
                // Each of these is a case of its own: name them all.
                let special = SPECIAL.contains(&kind.as_str());
                for (name, verdict) in standing.failures[1..].iter().filter(|_| special) {
                    writeln!(f, "  {} (case {name})", verdict.summary())?;
                }
            } else if standing.missing > 0 && standing.same > 0 && kind != SEQUENCE {
                writeln!(
                    f,
                    "{kind}: {} not implemented, {} agree",
                    standing.missing, standing.same
                )?;
            }
        }
        let forms =
            || self.0.iter().filter(|(kind, _)| !SPECIAL.contains(&kind.as_str())).map(|(_, s)| s);
        let verified = forms().filter(|s| s.verified()).count();
        let absent = forms().filter(|s| s.absent()).count();
        let sequences = self.0.get(SEQUENCE).cloned().unwrap_or_default();
        writeln!(f, "forms: {verified} verified, {absent} missing, of {}", forms().count())?;
        writeln!(
            f,
            "sequences: {} agree, {} use missing instructions, {} differ",
            sequences.same,
            sequences.missing,
            sequences.failures.len()
        )?;
        let (passed, failed) = self.totals();
        write!(f, "{passed} passed, {failed} failed")
    }
}

impl Verdict {
    /// One line.
    pub fn summary(&self) -> String {
        match self {
            Self::Same => "same".into(),
            Self::Missing(at) => format!("the instruction at {at:#x} is missing"),
            Self::Broken(why) => why.clone(),
            Self::Different(differences) => {
                let first =
                    |d: &Difference| format!("{} {} instead of {}", d.what, d.actual, d.expected);
                let shown: Vec<String> = differences.iter().take(2).map(first).collect();
                let more = differences.len().saturating_sub(2);
                shown.join(", ")
                    + &if more > 0 { format!(" and {more} more") } else { String::new() }
            }
        }
    }
}
