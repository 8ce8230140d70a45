//! docs/selftests.md: the results of both processors, and what is known of them (`xtask/selftests.toml`).

use std::{collections::BTreeMap, fmt::Write};

use serde::Deserialize;

use super::results::Program;

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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// Of x86_64 and of arm64, as [`Program::counts`] has it.
    counts: [String; 2],
    /// The cases that fail, or are not come to, for x86_64 only.
    only_x86_64: Vec<String>,
}

impl Row {
    pub fn new(x86_64: &Program, arm64: &Program) -> Self {
        Self { counts: [x86_64.counts(), arm64.counts()], only_x86_64: x86_64.fails_beside(arm64) }
    }
}

/// The results, by the names of programs.
pub type Results = BTreeMap<String, Row>;

/// The cells of a table's line.
fn cells<const N: usize>(line: &str) -> Option<[String; N]> {
    let line = line.strip_prefix("| ")?.strip_suffix(" |")?.replace("\\|", "\0");
    let cells: Vec<_> = line.split(" | ").map(|cell| cell.replace('\0', "|")).collect();
    cells.try_into().ok()
}

/// The results that a page holds.
pub fn read(page: &str) -> Results {
    let mut parts = page.split("\n## ");
    let mut results = Results::new();
    for [name, x86_64, arm64] in parts.next().unwrap_or_default().lines().filter_map(cells) {
        if name.contains('/') {
            results.insert(name, Row { counts: [x86_64, arm64], only_x86_64: Vec::new() });
        }
    }
    for [name, _] in parts.next().unwrap_or_default().lines().filter_map(cells::<2>) {
        let (program, case) = name.split_once(' ').unwrap_or((&name, ""));
        if let Some(row) = results.get_mut(program) {
            row.only_x86_64.push(case.to_owned());
        }
    }
    results
}

/// The names of cases that fail for x86_64 only, with the reason if it is known.
fn only_x86_64<'a>(
    results: &'a Results,
    known: &'a Known,
) -> impl Iterator<Item = (String, Option<&'a Reason>)> {
    let cases = results.iter().flat_map(|(program, row)| {
        row.only_x86_64.iter().map(move |case| format!("{program} {case}").trim().to_owned())
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
    let idle = |reason: &&Reason| !names.iter().any(|case| case.starts_with(&reason.name));
    known.case.iter().filter(idle).map(|reason| reason.name.clone()).collect()
}

/// The table, the list of what fails for x86_64 only, and that of what is not run.
pub fn text(results: &Results, known: &Known) -> String {
    let mut text = String::from("| test | x86_64, by Demotic | arm64 |\n|---|---:|---:|\n");
    // Writing to a String cannot fail.
    for (name, Row { counts: [x86_64, arm64], .. }) in results {
        let _ = writeln!(text, "| {name} | {x86_64} | {arm64} |");
    }
    let [x86_64, arm64] = [0, 1].map(|i| total(results.values().map(|row| row.counts[i].as_str())));
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
fn total<'a>(column: impl Iterator<Item = &'a str>) -> String {
    let mut sums = [0u32; 4];
    for counts in column {
        let numbers = counts.split([' ', '/', ',']).filter_map(|word| word.parse::<u32>().ok());
        sums.iter_mut().zip(numbers).for_each(|(sum, number)| *sum += number);
    }
    let [passed, failed, skipped, missed] = sums;
    format!("{passed} / {failed} / {skipped}, {missed} not reached")
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
        let program = |printed, status| Program::read(printed, Some(status));
        let row = Row::new(
            &program("not ok 1 one\nok 2 two\n", 1),
            &program("ok 1 one\nok 2 two\nok 3 three\n", 0),
        );
        let other = Row::new(&program("1..2\nnot ok 1 x|y", 1), &program("", 0));
        let results = Results::from([("a/b".into(), row), ("a/d".into(), other)]);
        let text = text(&results, &known());
        assert!(text.contains("| a/b | 1 / 1 / 0 | 3 / 0 / 0 |\n"), "{text}");
        assert!(text.contains("| a/d | 0 / 1 / 0, 1 not reached | 1 / 0 / 0 |\n"), "{text}");
        assert!(
            text.contains("| **all** | 1 / 2 / 0, 1 not reached | 4 / 0 / 0, 0 not reached |\n")
        );
        assert!(text.contains("| a/b one | because |\n| a/b three |  |\n"), "{text}");
        assert!(text.contains("| a/d x\\|y |  |\n"), "{text}");
        assert!(text.contains("| a/long, b/ | takes long |\n"), "{text}");
        assert_eq!(unexplained(&results, &known()), ["a/b three", "a/d", "a/d x|y"]);
        assert_eq!(idle(&results, &known()), ["a/c", "a/f hangs"]);
        assert_eq!(known().not_tried("a/f"), ["hangs"]);
        assert!(known().not_tried("a/b").is_empty());
        // What it says can be read again.
        assert_eq!(read(&format!("# Title\n\nText.\n\n{text}")), results);
    }

    #[test]
    fn reasons_on_the_page_are_those_that_are_known() {
        let place = crate::root().join("docs/selftests.md");
        let known = std::fs::read_to_string(crate::root().join("xtask/selftests.toml")).unwrap();
        let known: Known = toml::from_str(&known).unwrap();
        let page = std::fs::read_to_string(&place).unwrap();
        let results = read(&page);
        assert!(!results.is_empty());
        let head = &page[..page.find("| test |").unwrap()];
        let wanted = format!("{head}{}", text(&results, &known));
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(place, &wanted).unwrap();
        }
        assert!(page == wanted, "docs/selftests.md is stale: UPDATE_DOCS=1 cargo test -p xtask");
    }

    #[test]
    fn what_is_left_out() {
        let known = known();
        let out = |name| known.leaves_out(name);
        assert!(out("a/long") && out("a/long_2") && out("b/x") && !out("a/b"));
    }
}
