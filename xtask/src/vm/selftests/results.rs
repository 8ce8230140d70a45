//! What a test of the kernel's says: the Test Anything Protocol, as tools/testing/selftests/kselftest.h prints it.

/// How a case ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Passed,
    Failed,
    Skipped,
}

#[derive(Debug, PartialEq, Eq)]
struct Case {
    number: usize,
    /// No two of a program have the same.
    name: String,
    end: End,
}

/// A program of the tests, run.
#[derive(Debug, Default)]
pub struct Program {
    cases: Vec<Case>,
    /// Cases it meant to have.
    planned: usize,
    /// Whether it was stopped.
    at_limit: bool,
}

impl Program {
    /// By what it printed, and its exit status: none if it was stopped at its time limit.
    pub fn read(printed: &str, status: Option<i32>) -> Self {
        let mut program = Self { at_limit: status.is_none(), ..Self::default() };
        for line in printed.lines() {
            if let Some(plan) = plan(line) {
                program.planned = plan;
            } else if let Some(case) = case(line) {
                program.add(case);
            }
        }
        if let Some(status) = status {
            program.end(status);
        }
        program
    }

    fn add(&mut self, mut case: Case) {
        let alike = |name: &str| self.cases.iter().any(|other| other.name == name);
        let plain = case.name.clone();
        for count in 2.. {
            if !alike(&case.name) {
                break;
            }
            case.name = format!("{plain} ({count})");
        }
        self.cases.push(case);
    }

    /// Its exit status: what counts if it has no cases, or if it came to no good end.
    fn end(&mut self, status: i32) {
        const SKIP: i32 = 4;
        let end = match status {
            0 if self.cases.is_empty() => End::Passed,
            SKIP if self.cases.is_empty() => End::Skipped,
            0 | SKIP => return,
            _ if self.count(End::Failed) > 0 => return,
            _ => End::Failed,
        };
        self.cases.push(Case { number: 0, name: String::new(), end });
    }

    /// Counts those cases of another program's as failed that are of some fixtures.
    pub fn fail(&mut self, fixtures: &[&str], of: &Self) {
        let among = |case: &&Case| {
            fixtures
                .iter()
                .any(|name| case.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))
        };
        for Case { name, .. } in of.cases.iter().filter(among) {
            self.add(Case { number: 0, name: name.clone(), end: End::Failed });
        }
    }

    /// How many cases ended so.
    pub fn count(&self, end: End) -> usize {
        self.cases.iter().filter(|case| case.end == end).count()
    }

    /// How many cases it has not come to.
    pub fn missed(&self) -> usize {
        self.planned.saturating_sub(self.cases.iter().filter(|case| case.number > 0).count())
    }

    /// Numbers of cases passed, failed and skipped, and what there is to say beside them.
    pub fn counts(&self) -> String {
        let [passed, failed, skipped] =
            [End::Passed, End::Failed, End::Skipped].map(|end| self.count(end));
        let mut text = format!("{passed} / {failed} / {skipped}");
        if self.missed() > 0 {
            text += &format!(", {} not reached", self.missed());
        }
        if self.at_limit {
            text += ", stopped";
        }
        text
    }

    /// The case that is another program's `case`, which is one of `others`: of the same name; names may tell of process
    /// numbers or of what went wrong, so else of the same number.
    fn same(&self, case: &Case, others: &Self) -> Option<&Case> {
        let named = |program: &Self, name: &str| program.cases.iter().any(|case| case.name == name);
        self.cases.iter().find(|own| own.name == case.name).or_else(|| {
            let numbered = |own: &&Case| own.number == case.number && !named(others, &own.name);
            self.cases.iter().find(numbered)
        })
    }

    /// The cases that fail, or are not come to, here and not in `control`; "" stands for the program's own end.
    pub fn fails_beside(&self, control: &Self) -> Vec<String> {
        let good = control.cases.iter().filter(|case| case.end != End::Failed);
        let lost =
            good.filter(|case| self.same(case, control).is_none_or(|own| own.end == End::Failed));
        let failed = self.cases.iter().filter(|case| case.end == End::Failed);
        let own = failed.filter(|case| control.same(case, self).is_none());
        let mut names: Vec<_> = lost.chain(own).map(|case| case.name.clone()).collect();
        if self.at_limit && !control.at_limit {
            names.push("(stopped at the time limit)".into());
        }
        names
    }
}

/// The number of cases to come: `1..N`.
fn plan(line: &str) -> Option<usize> {
    line.strip_prefix("1..")?.split(' ').next()?.parse().ok()
}

/// A result: `ok 1 name`, `not ok 2 name`, `ok 3 name # SKIP reason`. What else was printed before it may have no line of
/// its own.
fn case(line: &str) -> Option<Case> {
    let begin = if line.starts_with('#') { 0 } else { line.find("not ok ").unwrap_or(0) };
    let line = &line[begin..];
    let (good, rest) = match line.strip_prefix("not ok ") {
        Some(rest) => (false, rest),
        None => (true, line.strip_prefix("ok ")?),
    };
    let (number, name) = rest.split_once(' ').unwrap_or((rest, ""));
    let number = number.parse().ok()?;
    let (name, directive) = name.split_once('#').unwrap_or((name, ""));
    let directive = directive.trim();
    let (word, reason) = directive.split_once(' ').unwrap_or((directive, ""));
    let end = match word {
        "SKIP" => End::Skipped,
        "XFAIL" => End::Passed,
        _ if good => End::Passed,
        _ => End::Failed,
    };
    let name = name.trim().trim_start_matches("- ");
    // One that is skipped may have no name but the reason.
    let name = if name.is_empty() { reason.trim() } else { name };
    Some(Case { number, name: name.into(), end })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tests_print() {
        let counts = |printed, status| Program::read(printed, status).counts();
        let printed = "TAP version 13\n1..3\n#  RUN           close\nok 1 close\n\
                       not ok 2 core.unshare\nok 3 cap # SKIP not root\n";
        assert_eq!(counts(printed, Some(1)), "1 / 1 / 1");
        assert_eq!(counts("all well\n", Some(0)), "1 / 0 / 0");
        assert_eq!(counts("ok 1 first\n", Some(139)), "1 / 1 / 0");
        assert_eq!(counts("1..0 # SKIP no such thing\n", Some(4)), "0 / 0 / 1");
        assert_eq!(counts("1..5\nok 1 first\n", Some(139)), "1 / 1 / 0, 4 not reached");
        assert_eq!(counts("1..5\nok 1 first\n", None), "1 / 0 / 0, 4 not reached, stopped");
        assert_eq!(counts("nothing", None), "0 / 0 / 0, stopped");
        assert_eq!(case("ok then"), None);
        let known = case("not ok 7 - x # XFAIL known").unwrap();
        assert_eq!(known, Case { number: 7, name: "x".into(), end: End::Passed });
        assert_eq!(case("too high: 3..not ok 2 x").unwrap().end, End::Failed);
        let skipped = case("ok 8 # SKIP no such file").unwrap();
        assert_eq!(skipped, Case { number: 8, name: "no such file".into(), end: End::Skipped });
    }

    #[test]
    fn what_fails_beside_a_control() {
        let fails = |own, control| {
            Program::read(own, Some(1)).fails_beside(&Program::read(control, Some(0)))
        };
        let own = "not ok 1 one\nnot ok 2 two\nnot ok 4 x\n";
        let control = "ok 1 one\nnot ok 2 two\nok 3 three # SKIP so\n";
        assert_eq!(fails(own, control), ["one", "three", "x"]);
        // Names that tell of what differs.
        assert_eq!(
            fails("ok 1 process 17\nnot ok 2 process 18: 5", "ok 1 process 8\nok 2 process 9"),
            ["process 9"]
        );
        // The same name twice.
        assert_eq!(fails("ok 1 a\nnot ok 2 a\n", "ok 1 a\nok 2 a\n"), ["a (2)"]);
        // Tests that only one has.
        assert_eq!(fails("ok 1 a\nok 2 b\nok 3 c\n", "ok 1 b\nok 2 c\n"), [""]);
        // One that was not tried.
        let mut own = Program::read("1..1\nok 1 a\n", Some(0));
        let control = Program::read("1..3\nok 1 a\nok 2 b.c\nok 3 bd.c\n", Some(0));
        own.fail(&["b"], &control);
        assert_eq!(own.counts(), "1 / 1 / 0");
        assert_eq!(own.fails_beside(&control), ["b.c", "bd.c"]);
        let stopped = Program::read("ok 1 a\n", None);
        assert_eq!(
            stopped.fails_beside(&Program::read("ok 1 a\n", Some(0))),
            ["(stopped at the time limit)"]
        );
        assert!(stopped.fails_beside(&stopped).is_empty());
    }
}
