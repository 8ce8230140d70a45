//! `cargo xtask vm selftests`: the kernel's own tests of its system calls, built for both processors and run in the
//! machine: for x86_64 by Demotic, for arm64 by the kernel alone. What comes of it is written to docs/selftests.md.

use std::{
    collections::BTreeMap,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::{Context, Result};
use serde::Deserialize;

use super::{
    Workshop,
    cache::Key,
    machine::Machine,
    recipe::{Recipe, Selftests},
    request, translator,
};
use crate::{packages::Suite, root, say};

const BUILD_LIMIT: Duration = Duration::from_secs(1800);
const RUN_LIMIT: Duration = Duration::from_secs(7200);

/// Seconds that one program has.
const PATIENCE: &str = "300";

/// Both processors: the name of the folder, the kernel's name, Debian's name, the compiler's prefix.
const PROCESSORS: [[&str; 4]; 2] =
    [["x86_64", "x86", "amd64", ""], ["arm64", "arm64", "arm64", "aarch64-linux-gnu-"]];

/// What is known of cases that fail for x86_64 only.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Known {
    case: Vec<Reason>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reason {
    /// `collection/program`, and the case if it is not the whole program.
    name: String,
    why: String,
}

/// The tests of both processors, built; below it is a folder for each.
fn build(workshop: &Workshop, recipe: &Selftests) -> Result<PathBuf> {
    let script = include_str!("guest/build-selftests");
    let key = Key::of(include_str!("selftests.rs")).and(script).and(&recipe.suite);
    let key = recipe.libraries.iter().chain(&recipe.collections).fold(key, Key::and);
    let key = key.and(&recipe.package);
    workshop.cache.entry("selftests", key, |folder| {
        let lists = folder.join("apt");
        let suite = Suite::read(&lists, &recipe.suite)?;
        suite.unpack(std::slice::from_ref(&recipe.package), &folder.join("source"))?;
        for [name, _, debian, _] in PROCESSORS {
            let libraries: Vec<_> =
                recipe.libraries.iter().map(|library| format!("{library}:{debian}")).collect();
            suite.unpack(&libraries, &folder.join("libraries").join(name))?;
        }
        fs::remove_dir_all(lists)?;
        for [name, kernel, _, prefix] in PROCESSORS {
            let mut build = Command::new("sh");
            build.args(["-euc", script, "build", name, kernel, prefix]).arg(folder);
            build.args(&recipe.collections).env_remove("MAKEFLAGS");
            let what = format!("building the kernel's tests for {name}");
            workshop.steps.run(&what, BUILD_LIMIT, &mut build)?;
        }
        for rest in ["source", "libraries", "tree"] {
            fs::remove_dir_all(folder.join(rest))?;
        }
        Ok(())
    })
}

/// Runs the tests in a machine that has been booted for them, and writes the table.
pub fn run(
    machine: &Machine,
    workshop: &Workshop,
    recipe: &Recipe,
    demotic: &Path,
    filter: Option<&str>,
) -> Result<ExitCode> {
    let built = build(workshop, &recipe.selftests)?;
    translator::install(machine, demotic)?;
    fs::write(machine.share().join("selftests"), include_bytes!("guest/selftests"))?;
    let mut results = BTreeMap::new();
    for [name, ..] in PROCESSORS {
        let folder = machine.share().join("kernel-tests").join(name);
        copy(&built.join(name), &folder)?;
        let place = match name {
            "x86_64" => request::Place::X86_64,
            _ => request::Place::Own,
        };
        say(&format!("running the kernel's tests for {name}"));
        let words = ["sh", "/host/selftests", name, PATIENCE].into_iter().chain(filter);
        let words: Vec<_> = words.map(Into::into).collect();
        let printed = request::output(machine, &request::script(place, &words), RUN_LIMIT)?;
        fs::write(machine.share().join(format!("{name}.log")), &printed)?;
        for program in programs(&printed) {
            results.entry(program.name.clone()).or_insert_with(Row::default).add(name, program);
        }
    }
    let known = fs::read_to_string(root().join("xtask/selftests.toml"))?;
    let known: Known = toml::from_str(&known).context("xtask/selftests.toml")?;
    let text = table(&results, &known.case);
    print!("{text}");
    if filter.is_none() {
        let head = include_str!("selftests.md");
        let kernel = format!("{} of {}", recipe.selftests.package, recipe.selftests.suite);
        let page = head.replace("{source}", &kernel) + &text;
        fs::write(root().join("docs/selftests.md"), page)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Copies a folder to a place that may be left of another run.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let _ = fs::remove_dir_all(to);
    fs::create_dir_all(to.parent().context("a folder")?)?;
    let status = Command::new("cp").arg("--archive").arg(from).arg(to).status()?;
    anyhow::ensure!(status.success(), "{} could not be copied", from.display());
    Ok(())
}

/// How a case ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Passed,
    Failed,
    Skipped,
}

/// A program of the tests, run.
#[derive(Debug, Default, PartialEq, Eq)]
struct Program {
    /// `collection/program`.
    name: String,
    cases: Vec<(String, End)>,
}

/// What both processors say of a program.
#[derive(Default)]
struct Row {
    x86_64: Option<Program>,
    arm64: Option<Program>,
}

impl Row {
    fn add(&mut self, processor: &str, program: Program) {
        let place = if processor == "arm64" { &mut self.arm64 } else { &mut self.x86_64 };
        *place = Some(program);
    }

    /// The cases that fail, or are not come to, for x86_64 only; "" stands for the program's own end.
    fn only_x86_64(&self) -> Vec<&str> {
        let (Some(x86_64), Some(arm64)) = (&self.x86_64, &self.arm64) else { return Vec::new() };
        let end = |program: &Program, name: &str| {
            program.cases.iter().find(|case| case.0 == name).map(|case| case.1)
        };
        let bad = |end: Option<End>| end != Some(End::Passed) && end != Some(End::Skipped);
        let of_arm64 = arm64.cases.iter().filter(|case| case.1 != End::Failed);
        let mut names: Vec<_> =
            of_arm64.map(|case| case.0.as_str()).filter(|name| bad(end(x86_64, name))).collect();
        let others = x86_64.cases.iter().filter(|case| case.1 == End::Failed);
        let others = others.map(|case| case.0.as_str());
        names.extend(others.filter(|name| end(arm64, name).is_none()));
        names
    }
}

/// The programs in what the machine printed: a line `== NAME` before each, `== STATUS` after it.
fn programs(printed: &str) -> Vec<Program> {
    let mut programs: Vec<Program> = Vec::new();
    for line in printed.lines() {
        match (line.strip_prefix("== "), programs.last_mut()) {
            (Some(word), last) => match (word.parse::<i32>(), last) {
                (Ok(status), Some(program)) => program.end(status),
                _ => programs.push(Program { name: word.into(), cases: Vec::new() }),
            },
            (None, Some(program)) => program.cases.extend(case(line)),
            (None, None) => {}
        }
    }
    programs
}

/// A result as the Test Anything Protocol has it: `ok 1 name`, `not ok 2 name`, `ok 3 name # SKIP reason`.
fn case(line: &str) -> Option<(String, End)> {
    let (good, rest) = match line.strip_prefix("not ok ") {
        Some(rest) => (false, rest),
        None => (true, line.strip_prefix("ok ")?),
    };
    let (number, name) = rest.split_once(' ').unwrap_or((rest, ""));
    number.parse::<u32>().ok()?;
    let (name, directive) = name.split_once('#').unwrap_or((name, ""));
    let directive = directive.trim_start();
    let end = match (good, directive.starts_with("SKIP"), directive.starts_with("XFAIL")) {
        (_, true, _) => End::Skipped,
        (true, ..) | (_, _, true) => End::Passed,
        _ => End::Failed,
    };
    let name = name.trim().trim_start_matches("- ");
    // A skipped case may have no name but the reason.
    let name = if name.is_empty() { directive.trim_start_matches("SKIP").trim() } else { name };
    Some((name.into(), end))
}

impl Program {
    /// Its exit status: what counts if it has no cases, or if it came to no good end.
    fn end(&mut self, status: i32) {
        const SKIP: i32 = 4;
        let any = |end| self.cases.iter().any(|case| case.1 == end);
        match status {
            0 if self.cases.is_empty() => self.cases.push((String::new(), End::Passed)),
            SKIP if !any(End::Failed) && !any(End::Passed) => {
                self.cases.push((String::new(), End::Skipped));
            }
            0 | SKIP => {}
            _ if any(End::Failed) => {}
            _ => self.cases.push((String::new(), End::Failed)),
        }
    }

    fn counts(&self) -> String {
        let count = |end| self.cases.iter().filter(|case| case.1 == end).count();
        let [passed, failed, skipped] = [End::Passed, End::Failed, End::Skipped].map(count);
        format!("{passed} / {failed} / {skipped}")
    }
}

/// The table, and the list of what fails for x86_64 only.
fn table(results: &BTreeMap<String, Row>, known: &[Reason]) -> String {
    let mut text = String::from("| test | x86_64, by Demotic | arm64 |\n|---|---:|---:|\n");
    let counts = |program: &Option<Program>| {
        program.as_ref().map_or_else(|| "not built".into(), Program::counts)
    };
    for (name, row) in results {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "| {name} | {} | {} |", counts(&row.x86_64), counts(&row.arm64));
    }
    text += "\n## What fails for x86_64 only\n\n| case | why |\n|---|---|\n";
    for (name, row) in results {
        for case in row.only_x86_64() {
            let full = format!("{name} {case}").trim().to_owned();
            let reason = known.iter().find(|reason| full.starts_with(&reason.name));
            let why = reason.map_or("", |reason| reason.why.as_str());
            let _ = writeln!(text, "| {full} | {why} |");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tests_print() {
        let printed = "== core/close_range_test\nTAP version 13\n1..3\n#  RUN           close\n\
                       ok 1 close\nnot ok 2 core.unshare\nok 3 cap # SKIP not root\n== 1\n\
                       == futex/plain\nall well\n== 0\n== exec/crash\nok 1 first\n== 139\n== a/b\n== 4\n";
        let programs = programs(printed);
        let names: Vec<_> = programs.iter().map(|program| program.name.as_str()).collect();
        assert_eq!(names, ["core/close_range_test", "futex/plain", "exec/crash", "a/b"]);
        let counts: Vec<_> = programs.iter().map(Program::counts).collect();
        assert_eq!(counts, ["1 / 1 / 1", "1 / 0 / 0", "1 / 1 / 0", "0 / 0 / 1"]);
        assert_eq!(case("ok then"), None);
        assert_eq!(case("not ok 7 - x # XFAIL known"), Some(("x".into(), End::Passed)));
    }

    #[test]
    fn what_fails_for_x86_64_only() {
        let program = |cases: &[(&str, End)]| {
            let cases = cases.iter().map(|(name, end)| ((*name).to_owned(), *end)).collect();
            Some(Program { name: "a/b".into(), cases })
        };
        let row = Row {
            x86_64: program(&[("one", End::Failed), ("two", End::Failed), ("x", End::Failed)]),
            arm64: program(&[("one", End::Passed), ("two", End::Failed), ("three", End::Skipped)]),
        };
        assert_eq!(row.only_x86_64(), ["one", "three", "x"]);
        let known = [Reason { name: "a/b one".into(), why: "because".into() }];
        let text = table(&BTreeMap::from([("a/b".into(), row)]), &known);
        assert!(text.contains("| a/b | 0 / 3 / 0 | 1 / 1 / 1 |\n"), "{text}");
        assert!(text.contains("| a/b one | because |\n| a/b three |  |\n"), "{text}");
    }
}
