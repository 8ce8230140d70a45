//! What a run costs: executed instructions, counted by an emulator on an x86_64 machine, by the processor on arm64.

mod counter;
mod hardware;

use std::{
    ffi::OsString,
    fs::File,
    io::Read,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use serde::Serialize;
use serde_json::Value;

use crate::vm::step::end_with_parent;

pub use self::{counter::Counter, hardware::Hardware};

/// What every run finds in its environment; Python's hashes are not to differ from run to run.
const ENVIRONMENT: [(&str, &str); 3] =
    [("PATH", "/usr/bin:/bin"), ("LC_ALL", "C.UTF-8"), ("PYTHONHASHSEED", "0")];

/// An arm64 program to run.
pub struct Launch {
    /// Its path.
    pub program: PathBuf,
    /// The root its loader and shared libraries are in; a static program needs none.
    pub root: Option<PathBuf>,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// What its environment has besides [`ENVIRONMENT`].
    pub environment: Vec<(&'static str, OsString)>,
    /// The file that its standard error goes to, if it is not that of this process.
    pub errors: Option<PathBuf>,
}

/// A measured run.
#[derive(Serialize)]
pub struct Measured {
    /// The executed arm64 instructions of all processes; unknown where the processor's counters are.
    pub instructions: Option<u64>,
    /// Of them, those outside of code made at run time: all of a native program, what is not translated code of a
    /// translator. Only an emulator tells.
    pub outside: Option<u64>,
    /// The emulator's weighted sum of instructions by class, or the processor's cycles.
    pub cost: Option<u64>,
    /// Wall time; of an emulated run, the emulator's too.
    pub seconds: f64,
    /// What the program printed.
    #[serde(skip)]
    pub printed: Vec<u8>,
    /// The emulator's line for each process image.
    #[serde(skip)]
    pub images: Vec<Value>,
}

/// What measures.
pub enum Instrument {
    /// An emulator that counts.
    Counter(Counter),
    /// The processor itself.
    Hardware(Hardware),
}

impl Instrument {
    /// Runs a program and its children; `home` is where a cache may be kept.
    pub fn run(&self, home: &Path, launch: &Launch) -> Result<Measured> {
        match self {
            Self::Counter(counter) => counter.run(home, launch),
            Self::Hardware(hardware) => hardware.run(home, launch),
        }
    }

    /// What stands in front of an arm64 program's path, for a translator whose children are to be counted.
    pub fn runner(&self) -> Option<&Path> {
        match self {
            Self::Counter(counter) => Some(counter.runner()),
            Self::Hardware(_) => None,
        }
    }

    /// What [`Measured::cost`] is.
    pub fn cost(&self) -> &'static str {
        match self {
            Self::Counter(_) => "weighted",
            Self::Hardware(_) => "cycles",
        }
    }
}

/// Where a root's shared libraries are: Debian moves them from /lib to /usr/lib.
pub fn library_path(root: &Path, triple: &str) -> OsString {
    let folders =
        ["usr/lib", "lib"].map(|folder| root.join(folder).join(triple).display().to_string());
    folders.join(":").into()
}

/// The longest any run may take: an emulator in which processes wait for each other waits for ever.
const LIMIT: Duration = Duration::from_secs(30 * 60);

/// Ends a process group that is still there after a time; dropped, it no longer waits.
struct Watchdog {
    _alive: Sender<()>,
}

impl Watchdog {
    fn new(group: u32, limit: Duration) -> Self {
        let (alive, gone) = mpsc::channel::<()>();
        thread::spawn(move || {
            if gone.recv_timeout(limit) == Err(RecvTimeoutError::Timeout)
                && let Some(group) = Pid::from_raw(group as i32)
            {
                let _ = kill_process_group(group, Signal::KILL);
            }
        });
        Self { _alive: alive }
    }
}

/// Runs a command in the environment of all runs; gives what it printed and how long it took.
fn finish(command: &mut Command, home: &Path, launch: &Launch) -> Result<(Vec<u8>, f64)> {
    command.env_clear().envs(ENVIRONMENT).env("HOME", home);
    command.envs(launch.environment.iter().map(|(name, value)| (name, value)));
    if let Some(file) = &launch.errors {
        command.stderr(File::create(file)?);
    }
    let started = Instant::now();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
    end_with_parent(command);
    let mut child = command.spawn();
    let child = child.as_mut().map_err(|error| anyhow::anyhow!("{error}"));
    let child = child.with_context(|| command.get_program().display().to_string())?;
    let _watchdog = Watchdog::new(child.id(), LIMIT);
    let mut printed = Vec::new();
    child.stdout.take().context("standard output")?.read_to_end(&mut printed)?;
    let status = child.wait()?;
    if !status.success() {
        bail!("ended with {status}");
    }
    Ok((printed, started.elapsed().as_secs_f64()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_takes_too_long_is_ended_with_its_children() {
        let mut waiting = Command::new("sh");
        waiting.args(["-c", "sleep 600 & wait"]).process_group(0).stdout(Stdio::piped());
        let mut child = waiting.spawn().unwrap();
        let _watchdog = Watchdog::new(child.id(), Duration::from_millis(100));
        // At the end of the last that holds it open.
        child.stdout.take().unwrap().read_to_end(&mut Vec::new()).unwrap();
        assert!(!child.wait().unwrap().success());
    }
}
