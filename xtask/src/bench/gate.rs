//! The gate: programs of `benches/gate`, whose executed instructions under Demotic may not grow unnoticed.
//!
//! Counts of translated code are the same on every machine. Those of the translator itself depend on the compiler
//! that built it, so the record says which that was.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::measure::{Counter, Launch};
use crate::{apt, root, say};

/// How much a count may grow over the record.
const TOLERANCE: f64 = 0.03;

/// The same for the translator itself, when another compiler built it than at the time of the record.
const TOLERANCE_OF_COMPILERS: f64 = 0.10;

/// `gate.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Gate {
    program: Vec<Program>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Program {
    name: String,
    file: String,
    #[serde(default)]
    arguments: Vec<String>,
}

/// `record.toml`: counts by the program's name, and what they depend on.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// The compiler that built Demotic.
    rustc: String,
    /// The programs' files: SHA-256.
    files: BTreeMap<String, String>,
    counts: BTreeMap<String, Count>,
}

/// The instructions executed for a program.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Count {
    /// In translated code.
    translated: u64,
    /// By the translator.
    translator: u64,
}

impl Count {
    fn all(self) -> u64 {
        self.translated + self.translator
    }
}

/// A file of the gate.
fn file(name: &str) -> PathBuf {
    root().join("benches/gate").join(name)
}

fn read<T: for<'a> Deserialize<'a>>(name: &str) -> Result<T> {
    let path = file(name);
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    toml::from_str(&text).with_context(|| path.display().to_string())
}

impl Counts {
    /// Counts every program.
    pub fn take(counter: &Counter, demotic: &Path) -> Result<Self> {
        let gate: Gate = read("gate.toml")?;
        let rustc = apt::output(Command::new("rustc").arg("--version"))?.trim().to_owned();
        let (mut files, mut counts) = (BTreeMap::new(), BTreeMap::new());
        for program in &gate.program {
            let bytes = fs::read(file(&program.file)).with_context(|| program.file.clone())?;
            files.insert(program.file.clone(), format!("{:x}", Sha256::digest(bytes)));
            let count = program.count(counter, demotic).with_context(|| program.name.clone())?;
            counts.insert(program.name.clone(), count);
        }
        Ok(Self { rustc, files, counts })
    }

    /// Writes the record.
    pub fn record(&self) -> Result<ExitCode> {
        let comment = "# Executed arm64 instructions, written by `cargo xtask bench --record`.\n";
        let path = file("record.toml");
        fs::write(&path, comment.to_owned() + &toml::to_string(self)?)?;
        say(&format!("written to {}", path.display()));
        Ok(ExitCode::SUCCESS)
    }

    /// Compares with the record; the last line is `N passed, N failed`.
    pub fn check(&self) -> Result<ExitCode> {
        let record: Self = read("record.toml")?;
        let (mut passed, mut failed) = (0, 0);
        for (name, count) in &self.counts {
            match self.verdict(&record, name, *count) {
                Ok(note) => {
                    println!("{name:12} {note}");
                    passed += 1;
                }
                Err(error) => {
                    println!("{name:12} {error:#}");
                    failed += 1;
                }
            }
        }
        let changed =
            self.files.iter().filter(|(file, hash)| record.files.get(*file) != Some(hash));
        for (file, _) in changed {
            println!(
                "benches/gate/{file} is not the program that was counted: cargo xtask bench --record"
            );
            failed += 1;
        }
        println!("{passed} passed, {failed} failed");
        Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// How a count stands to the record.
    fn verdict(&self, record: &Self, name: &str, count: Count) -> Result<String> {
        let recorded =
            record.counts.get(name).context("is not recorded: cargo xtask bench --record")?;
        let growth = |now: u64, then: u64| now as f64 / then as f64 - 1.0;
        let (translated, all) =
            (growth(count.translated, recorded.translated), growth(count.all(), recorded.all()));
        let figures = format!(
            "{:>12} instructions, {:>+6.2} % ({:>12} in translated code, {:>+6.2} %)",
            count.all(),
            all * 100.0,
            count.translated,
            translated * 100.0
        );
        let grown = if self.rustc == record.rustc {
            all > TOLERANCE
        } else {
            let translator = growth(count.translator, recorded.translator);
            translated > TOLERANCE || translator > TOLERANCE_OF_COMPILERS
        };
        if grown {
            bail!(
                "{figures}: more than the recorded ones by over 3 %; if that is meant, cargo xtask bench --record"
            );
        }
        Ok(if all < -TOLERANCE { format!("{figures}: fewer, to be recorded") } else { figures })
    }
}

impl Program {
    fn count(&self, counter: &Counter, demotic: &Path) -> Result<Count> {
        let path = file(&self.file);
        let native = Command::new(&path).args(&self.arguments).output()?;
        let mut arguments = vec!["--runner".into(), counter.runner().into(), path.into()];
        arguments.extend(self.arguments.iter().map(Into::into));
        let launch = Launch {
            program: demotic.into(),
            root: None,
            arguments,
            environment: Vec::new(),
            errors: None,
        };
        let run = counter.run(tempfile::tempdir()?.path(), &launch)?;
        if run.printed != native.stdout {
            bail!("does not print what it prints natively");
        }
        let (all, translator) = run.instructions.zip(run.outside).context("nothing was counted")?;
        Ok(Count { translated: all - translator, translator })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(rustc: &str, translated: u64, translator: u64) -> Counts {
        let counts = BTreeMap::from([("a".to_owned(), Count { translated, translator })]);
        Counts { rustc: rustc.into(), files: BTreeMap::new(), counts }
    }

    fn passes(now: &Counts, record: &Counts) -> bool {
        now.verdict(record, "a", now.counts["a"]).is_ok()
    }

    #[test]
    fn what_grows_by_more_than_three_percent_fails() {
        let record = counts("1", 9000, 1000);
        assert!(passes(&counts("1", 9290, 1000), &record));
        assert!(!passes(&counts("1", 9310, 1000), &record));
        assert!(!passes(&counts("1", 9000, 1310), &record));
        assert!(passes(&counts("1", 4000, 1000), &record));
    }

    #[test]
    fn another_compiler_may_make_the_translator_a_little_slower() {
        let record = counts("1", 1000, 9000);
        assert!(passes(&counts("2", 1000, 9800), &record));
        assert!(!passes(&counts("2", 1000, 10_000), &record));
        assert!(!passes(&counts("2", 1040, 9000), &record));
    }

    #[test]
    fn what_is_not_recorded_fails() {
        let now = counts("1", 1, 1);
        assert!(now.verdict(&now, "b", now.counts["a"]).is_err());
    }

    /// The record is of the programs as they are, all of them.
    #[test]
    fn the_record_is_complete() {
        let (gate, record): (Gate, Counts) =
            (read("gate.toml").unwrap(), read("record.toml").unwrap());
        for program in &gate.program {
            assert!(record.counts.contains_key(&program.name), "{} is not recorded", program.name);
            let hash = format!("{:x}", Sha256::digest(fs::read(file(&program.file)).unwrap()));
            assert_eq!(record.files[&program.file], hash, "{} was built anew", program.file);
        }
        assert_eq!(record.counts.len(), gate.program.len());
    }
}
