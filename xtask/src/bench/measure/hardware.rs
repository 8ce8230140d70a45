//! The instrument on an arm64 machine: the processor's own counters through perf-stat(1), where the kernel lets them
//! be read, and the clock.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::Result;

use super::{Launch, Measured, finish, library_path};
use crate::say;

/// How often a program is run: the shortest run is the one least disturbed.
const RUNS: usize = 3;

/// What is counted, in user mode, with all children.
const EVENTS: [&str; 2] = ["instructions", "cycles"];

/// Runs programs directly.
pub struct Hardware {
    /// Where perf writes its counts; none when it cannot count.
    counts: Option<PathBuf>,
}

impl Hardware {
    /// Works in `folder`.
    pub fn new(folder: &Path) -> Self {
        let counts = folder.join("perf.csv");
        let trial = perf(&counts).arg("true").stderr(Stdio::null()).status();
        let counted = trial.is_ok_and(|status| status.success())
            && fs::read_to_string(&counts).is_ok_and(|text| count(&text, EVENTS[0]).is_some());
        if !counted {
            say(
                "perf stat counts no instructions here (perf_event_paranoid?): only time is measured",
            );
        }
        Self { counts: counted.then_some(counts) }
    }

    /// Runs a program several times and keeps the shortest run.
    pub fn run(&self, home: &Path, launch: &Launch) -> Result<Measured> {
        let mut best = self.once(home, launch)?;
        for _ in 1..RUNS {
            let next = self.once(home, launch)?;
            if next.seconds < best.seconds {
                best = next;
            }
        }
        Ok(best)
    }

    fn once(&self, home: &Path, launch: &Launch) -> Result<Measured> {
        let words = words(launch);
        let mut command = match &self.counts {
            Some(counts) => perf(counts),
            None => Command::new("env"),
        };
        command.args(words);
        let (printed, seconds) = finish(&mut command, home, launch)?;
        let text = self.counts.as_ref().map(fs::read_to_string).transpose()?.unwrap_or_default();
        let [instructions, cost] = EVENTS.map(|event| count(&text, event));
        Ok(Measured { instructions, outside: None, cost, seconds, printed, images: Vec::new() })
    }
}

/// `perf stat` that writes its counts into a file.
fn perf(counts: &Path) -> Command {
    let mut perf = Command::new("perf");
    perf.args(["stat", "--field-separator", ",", "--event"]);
    perf.arg(EVENTS.map(|event| format!("{event}:u")).join(",")).arg("--output");
    perf.arg(counts).arg("--");
    perf
}

/// The command line: a program of another root's is started by that root's dynamic loader (ld.so(8)), since this
/// machine's may be of another version than its libraries.
fn words(launch: &Launch) -> Vec<OsString> {
    let mut words = Vec::new();
    if let Some(root) = &launch.root {
        words.push(root.join("lib/ld-linux-aarch64.so.1").into());
        words.push("--library-path".into());
        words.push(library_path(root, "aarch64-linux-gnu"));
    }
    words.push(launch.program.clone().into());
    words.extend(launch.arguments.iter().cloned());
    words
}

/// The count of an event in perf's lines, `value,unit,event,…`; a value that was not counted is in <>. Where cores
/// differ there is a line for each kind of core, with its name around the event's.
fn count(text: &str, event: &str) -> Option<u64> {
    let lines = text.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let lines = lines.filter(|fields| fields.get(2).is_some_and(|name| name.contains(event)));
    lines.filter_map(|fields| fields[0].parse::<u64>().ok()).reduce(|sum, count| sum + count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_from_what_perf_writes() {
        let text = "# started on Tue Nov 24 13:00:00 2026\n\n\
                    153286,,instructions:u,1083250,100.00,0.47,insn per cycle\n<not supported>,,cycles:u,0,100.00,,\n";
        assert_eq!(count(text, "instructions"), Some(153_286));
        assert_eq!(count(text, "cycles"), None);
        let text = "10,,armv8_cortex_a53/cycles/u,1,50.00,,\n<not counted>,,armv8_cortex_a72/cycles/u,1,0.00,,\n\
                    7,,armv8_cortex_a76/cycles/u,1,50.00,,\n";
        assert_eq!(count(text, "cycles"), Some(17));
    }

    #[test]
    fn a_run_is_timed_and_its_output_kept() {
        let launch = Launch {
            program: "/bin/sh".into(),
            root: None,
            arguments: ["-c", "echo $WORD"].map(Into::into).into(),
            environment: vec![("WORD", "printed".into())],
            errors: None,
        };
        let folder = tempfile::tempdir().unwrap();
        for hardware in [Hardware { counts: None }, Hardware::new(folder.path())] {
            let run = hardware.run(folder.path(), &launch).unwrap();
            assert_eq!(run.printed, b"printed\n");
            assert!(run.seconds > 0.0);
            assert_eq!(run.instructions.is_some(), hardware.counts.is_some());
        }
    }

    #[test]
    fn another_roots_program_is_started_by_its_loader() {
        let launch = Launch {
            program: "/r/usr/bin/gzip".into(),
            root: Some("/r".into()),
            arguments: vec!["-c".into()],
            environment: Vec::new(),
            errors: None,
        };
        let expected = [
            "/r/lib/ld-linux-aarch64.so.1",
            "--library-path",
            "/r/usr/lib/aarch64-linux-gnu:/r/lib/aarch64-linux-gnu",
            "/r/usr/bin/gzip",
            "-c",
        ];
        assert_eq!(words(&launch), expected);
    }
}
