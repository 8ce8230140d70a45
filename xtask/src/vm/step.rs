//! One external command of a build: shown while it runs, under a time limit, its output in a log.

use std::{
    fs::{self, File},
    io::IsTerminal,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::LazyLock,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use rustix::process::{Pid, Signal, kill_process_group, set_parent_process_death_signal};

use crate::{done_since, say};

/// How often a step says that it still runs, where there is no terminal to draw on.
const REMINDER: Duration = Duration::from_secs(60);

/// How many lines of a log an error shows.
const SHOWN: usize = 20;

/// Runs steps, with their logs in a folder.
pub struct Steps {
    logs: PathBuf,
}

impl Steps {
    /// Keeps logs in `folder`.
    pub fn new(folder: PathBuf) -> Result<Self> {
        fs::create_dir_all(&folder)?;
        Ok(Self { logs: folder })
    }

    /// Runs a command to its end; an error shows the end of its log.
    pub fn run(&self, what: &str, limit: Duration, command: &mut Command) -> Result<()> {
        let progress = Progress::new(what);
        self.execute(what, limit, command, &progress)?;
        progress.done();
        Ok(())
    }

    /// The same, for what takes no time to speak of: nothing is shown.
    pub fn quietly(&self, what: &str, limit: Duration, command: &mut Command) -> Result<()> {
        self.execute(what, limit, command, &Progress::hidden(what))
    }

    fn execute(
        &self,
        what: &str,
        limit: Duration,
        command: &mut Command,
        progress: &Progress,
    ) -> Result<()> {
        let log = self.logs.join(what.replace([' ', '/'], "-")).with_extension("log");
        let file = File::create(&log).with_context(|| log.display().to_string())?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).process_group(0);
        end_with_parent(command);
        let mut child = command
            .spawn()
            .with_context(|| format!("{} could not be started", command.get_program().display()))?;
        match within(&mut child, limit, progress)? {
            Some(status) if status.success() => Ok(()),
            Some(status) => bail!("{what}: {status}\n{}", tail(&log)),
            None => bail!("{what}: not done after {} s\n{}", limit.as_secs(), tail(&log)),
        }
    }
}

/// A command does not outlive this program, which may be killed.
pub fn end_with_parent(command: &mut Command) {
    // SAFETY: between fork and exec the child makes one system call.
    unsafe { command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?)) };
}

/// Waits for a child; at the time limit, ends its process group.
fn within(child: &mut Child, limit: Duration, progress: &Progress) -> Result<Option<ExitStatus>> {
    let start = Instant::now();
    while start.elapsed() < limit {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        progress.tick();
        thread::sleep(Duration::from_millis(50));
    }
    let group = Pid::from_raw(child.id() as i32).context("a process id")?;
    // The child has not been waited for: its number is still its own.
    kill_process_group(group, Signal::KILL)?;
    child.wait()?;
    Ok(None)
}

/// The last lines of a log, and where it is.
pub fn tail(log: &Path) -> String {
    let bytes = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(SHOWN)..];
    format!("    {}\n({})", last.join("\n    "), log.display())
}

/// Shows that something is being done: a line that turns on a terminal, else a line now and then.
pub struct Progress {
    what: String,
    start: Instant,
    bar: Option<ProgressBar>,
    said: std::cell::Cell<Instant>,
}

impl Progress {
    /// Says what is being done.
    pub fn new(what: &str) -> Self {
        static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{spinner} {msg} ({elapsed})");
            BARS.add(ProgressBar::new_spinner().with_message(what.to_owned()))
                .with_style(style.expect("a template"))
        });
        if bar.is_none() {
            say(what);
        }
        let start = Instant::now();
        Self { what: what.into(), start, bar, said: start.into() }
    }

    /// Says nothing until it has taken long.
    fn hidden(what: &str) -> Self {
        let start = Instant::now();
        Self { what: what.into(), start, bar: None, said: start.into() }
    }

    /// It goes on.
    pub fn tick(&self) {
        match &self.bar {
            Some(bar) => bar.tick(),
            None if self.said.get().elapsed() > REMINDER => {
                self.said.set(Instant::now());
                say(&format!("{}: {} s", self.what, self.start.elapsed().as_secs()));
            }
            None => {}
        }
    }

    /// It is done.
    pub fn done(&self) {
        let message = done_since(self.start, &self.what);
        match &self.bar {
            Some(bar) => bar.finish_with_message(message),
            None => say(&message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(script: &str, limit: Duration) -> Result<()> {
        let folder = tempfile::tempdir().unwrap();
        let steps = Steps::new(folder.path().into()).unwrap();
        steps.run("a step", limit, Command::new("sh").args(["-c", script]))
    }

    #[test]
    fn a_failed_step_shows_its_last_lines() {
        step("true", Duration::from_secs(60)).unwrap();
        let script = "seq 1000; echo the reason >&2; exit 3";
        let error = step(script, Duration::from_secs(60)).unwrap_err().to_string();
        assert!(error.contains("the reason") && error.contains("exit status: 3"), "{error}");
        assert!(!error.contains("\n    900\n"), "{error}");
    }

    /// Here what makes a step is a thread that ends; a program that is killed is the same to the kernel.
    #[test]
    fn a_step_ends_with_what_made_it() {
        let mut command = Command::new("sleep");
        command.arg("600");
        end_with_parent(&mut command);
        let child = thread::spawn(move || command.spawn().unwrap()).join().unwrap();
        let (start, mut child) = (Instant::now(), child);
        assert!(!child.wait().unwrap().success());
        assert!(start.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn a_step_is_ended_at_its_limit_with_its_children() {
        let start = Instant::now();
        let limit = Duration::from_millis(200);
        let error = step("sleep 600 & sleep 600", limit).unwrap_err().to_string();
        assert!(error.contains("not done"), "{error}");
        assert!(start.elapsed() < Duration::from_secs(60));
    }
}
