//! docs/selftests.md: the results of both processors, and what is known of them (`xtask/selftests.toml`).

use std::{collections::BTreeMap, fmt::Write};

use serde::Deserialize;

use super::results::{End, Program};

/// What is known of the tests.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Known {
    /// Cases that fail for x86_64 only.
    case: Vec<Reason>,
    /// Programs that are not run.
    left_out: Vec<LeftOut>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reason {
    /// `collection/program` and the case, or the beginning of that.
    name: String,
    why: String,
    /// Whether it is known without trying, and trying takes long; the name then ends with a fixture of the kernel's test
    /// harness.
    #[serde(default)]
    not_tried: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LeftOut {
    /// `collection/program`, or the beginning of that.
    programs: Vec<String>,
    why: String,
}

impl Known {
    /// Whether a program is not to be run.
    pub fn leaves_out(&self, program: &str) -> bool {
        let mut all = self.left_out.iter().flat_map(|these| &these.programs);
        all.any(|name| program.starts_with(name))
    }

    /// The fixtures of a program that fail for x86_64 without being tried.
    pub fn not_tried(&self, program: &str) -> Vec<&str> {
        let all = self.case.iter().filter(|reason| reason.not_tried);
        all.filter_map(|reason| reason.name.strip_prefix(program)?.strip_prefix(' ')).collect()
    }

    fn reason(&self, case: &str) -> Option<&Reason> {
        self.case.iter().find(|reason| case.starts_with(&reason.name))
    }
}

/// What both processors say of a program.
#[derive(Default)]
pub struct Row {
    pub x86_64: Option<Program>,
    pub arm64: Option<Program>,
}

impl Row {
    /// The cases that fail, or are not come to, for x86_64 only.
    fn only_x86_64(&self) -> Vec<String> {
        let nothing = Program::default();
        let Some(x86_64) = &self.x86_64 else { return Vec::new() };
        x86_64.fails_beside(self.arm64.as_ref().unwrap_or(&nothing))
    }
}

/// The results, by the names of programs.
pub type Results = BTreeMap<String, Row>;

/// Counts as failed what is not tried for x86_64, as far as the control has it.
pub fn fail_not_tried(results: &mut Results, known: &Known) {
    for (name, row) in results {
        if let (Some(x86_64), Some(arm64)) = (&mut row.x86_64, &row.arm64) {
            x86_64.fail(&known.not_tried(name), arm64);
        }
    }
}

/// The names of cases that fail for x86_64 only, with the reason if it is known.
fn only_x86_64<'a>(
    results: &'a Results,
    known: &'a Known,
) -> impl Iterator<Item = (String, Option<&'a Reason>)> {
    let cases = results.iter().flat_map(|(program, row)| {
        row.only_x86_64().into_iter().map(move |case| format!("{program} {case}").trim().to_owned())
    });
    cases.map(|case| {
        let reason = known.reason(&case);
        (case, reason)
    })
}

/// Those that nobody knows the reason of.
pub fn unexplained(results: &Results, known: &Known) -> Vec<String> {
    let cases = only_x86_64(results, known).filter(|(_, reason)| reason.is_none());
    cases.map(|(case, _)| case).collect()
}

/// Reasons for what does not fail.
pub fn idle(results: &Results, known: &Known) -> Vec<String> {
    let names: Vec<_> = only_x86_64(results, known).map(|(case, _)| case).collect();
    let idle =
        known.case.iter().filter(|reason| !names.iter().any(|case| case.starts_with(&reason.name)));
    idle.map(|reason| reason.name.clone()).collect()
}

/// The table, the list of what fails for x86_64 only, and that of what is not run.
pub fn text(results: &Results, known: &Known) -> String {
    let mut text = String::from("| test | x86_64, by Demotic | arm64 |\n|---|---:|---:|\n");
    let counts = |program: &Option<Program>| {
        program.as_ref().map_or_else(|| "not run".into(), Program::counts)
    };
    // Writing to a String cannot fail.
    for (name, row) in results {
        let _ = writeln!(text, "| {name} | {} | {} |", counts(&row.x86_64), counts(&row.arm64));
    }
    let x86_64 = total(results.values().map(|row| &row.x86_64));
    let arm64 = total(results.values().map(|row| &row.arm64));
    let _ = writeln!(text, "| **all** | {x86_64} | {arm64} |");
    text += "\n## What fails for x86_64 only\n\n| case | why |\n|---|---|\n";
    for (case, reason) in only_x86_64(results, known) {
        let why = reason.map_or("", |reason| reason.why.as_str());
        let _ = writeln!(text, "| {} | {why} |", case.replace('|', "\\|"));
    }
    text += "\n## What is not run\n\n| programs | why |\n|---|---|\n";
    for LeftOut { programs, why } in &known.left_out {
        let _ = writeln!(text, "| {} | {why} |", programs.join(", "));
    }
    text
}

/// The sums of a column.
fn total<'a>(column: impl Iterator<Item = &'a Option<Program>>) -> String {
    let programs: Vec<_> = column.flatten().collect();
    let sum = |count: &dyn Fn(&Program) -> usize| {
        programs.iter().map(|program| count(program)).sum::<usize>()
    };
    let [passed, failed, skipped] =
        [End::Passed, End::Failed, End::Skipped].map(|end| sum(&|program| program.count(end)));
    let missed = sum(&Program::missed);
    let missed = if missed > 0 { format!(", {missed} not reached") } else { String::new() };
    format!("{passed} / {failed} / {skipped}{missed}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Known {
        let text = r#"
            case = [
                { name = "a/b one", why = "because" },
                { name = "a/c", why = "once" },
                { name = "a/f hangs", why = "it waits", not_tried = true },
            ]
            left_out = [{ programs = ["a/long", "b/"], why = "takes long" }]
        "#;
        toml::from_str(text).unwrap()
    }

    #[test]
    fn the_page() {
        let row = Row {
            x86_64: Some(Program::read("not ok 1 one\nok 2 two\n", Some(1))),
            arm64: Some(Program::read("ok 1 one\nok 2 two\nok 3 three\n", Some(0))),
        };
        let other = Row { x86_64: Some(Program::read("1..2\nnot ok 1 x|y", Some(1))), arm64: None };
        let results = BTreeMap::from([("a/b".into(), row), ("a/d".into(), other)]);
        let text = text(&results, &known());
        assert!(text.contains("| a/b | 1 / 1 / 0 | 3 / 0 / 0 |\n"), "{text}");
        assert!(text.contains("| a/d | 0 / 1 / 0, 1 not reached | not run |\n"), "{text}");
        assert!(text.contains("| **all** | 1 / 2 / 0, 1 not reached | 3 / 0 / 0 |\n"), "{text}");
        assert!(
            text.contains("| a/b one | because |\n| a/b three |  |\n| a/d x\\|y |  |\n"),
            "{text}"
        );
        assert!(text.contains("| a/long, b/ | takes long |\n"), "{text}");
        assert_eq!(unexplained(&results, &known()), ["a/b three", "a/d x|y"]);
        assert_eq!(idle(&results, &known()), ["a/c", "a/f hangs"]);
        assert_eq!(known().not_tried("a/f"), ["hangs"]);
        assert!(known().not_tried("a/b").is_empty());
    }

    #[test]
    fn what_is_left_out() {
        let known = known();
        let out = |name| known.leaves_out(name);
        assert!(out("a/long") && out("a/long_2") && out("b/x") && !out("a/b"));
    }
}
