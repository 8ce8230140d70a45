//! One run of a program: in a folder of its own, with an environment that does not vary, under a time limit.

use std::{
    ffi::{CString, OsString},
    fs::{self, File},
    io,
    os::unix::{
        ffi::OsStrExt,
        process::{CommandExt, ExitStatusExt},
    },
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

/// What came of a run.
pub struct Outcome {
    /// How it ended: `exit status: 0`, `signal: 11 (SIGSEGV)`, or the time limit.
    pub end: End,
    /// How long it took.
    pub took: Duration,
    /// Where its standard output, standard error and written files are kept.
    pub kept: Kept,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum End {
    /// By itself.
    Exit(i32),
    /// By a signal.
    Signal(i32),
    /// It was stopped at its time limit.
    TimeLimit,
}

/// Where the results of a run are kept.
#[derive(Clone)]
pub struct Kept {
    /// What it printed.
    pub stdout: PathBuf,
    /// What it complained of.
    pub stderr: PathBuf,
    /// The folder it ran in.
    pub files: PathBuf,
}

impl Kept {
    /// Where the results of the run called `name` are kept, in the folder of its test.
    pub fn of(folder: &Path, name: &str) -> Self {
        let file = |kind| folder.join(format!("{name}{kind}"));
        Self { stdout: file(".stdout"), stderr: file(".stderr"), files: file("") }
    }
}

/// The folder of one test. Each run happens in the same place, so that paths a program prints do not differ.
pub struct Sandbox {
    folder: PathBuf,
    /// The root directory of the programs.
    root: PathBuf,
}

/// What every run finds in its environment.
const ENVIRONMENT: [(&str, &str); 6] = [
    ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
    ("LC_ALL", "C.UTF-8"),
    ("TZ", "UTC"),
    ("SHELL", "/bin/sh"),
    ("USER", "tester"),
    ("TERM", "dumb"),
];

impl Sandbox {
    /// Empties `folder` and takes it; programs have `root` as their root directory, in which it is.
    pub fn new(folder: PathBuf, root: &Path) -> Result<Self> {
        remove(&folder)?;
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        Ok(Self { folder: folder.canonicalize()?, root: root.canonicalize()? })
    }

    /// What programs call a file of this root.
    pub fn inside(&self, path: &Path) -> Result<PathBuf> {
        let below = path.strip_prefix(&self.root).context("programs run outside their root")?;
        Ok(Path::new("/").join(below))
    }

    /// A file beside the runs.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Runs `command` with a copy of `files` in its folder, and keeps what came of it under `name`.
    pub fn run(
        &self,
        name: &str,
        mut command: Command,
        files: &Path,
        sizes: &[(&str, String)],
        limit: Duration,
    ) -> Result<Outcome> {
        let (work, temporary) = (self.file("work"), self.file("tmp"));
        let kept = Kept::of(&self.folder, name);
        fs::create_dir(&work)?;
        fs::create_dir(&temporary)?;
        if files.is_dir() {
            copy(files, &work)?;
        }
        let set = command.get_envs().filter_map(|(name, value)| Some((name.into(), value?.into())));
        let set: Vec<(OsString, OsString)> = set.collect();
        command
            .current_dir(&work)
            .env_clear()
            .envs(ENVIRONMENT)
            .envs(set)
            .envs(sizes.iter().map(|(name, value)| (name, value)))
            .env("HOME", self.inside(&work)?)
            .env("TMPDIR", self.inside(&temporary)?)
            .stdin(Stdio::null())
            .stdout(File::create(&kept.stdout)?)
            .stderr(File::create(&kept.stderr)?)
            .process_group(0);
        close_on_exec(&mut command);
        if self.root != Path::new("/") {
            chroot(&mut command, &self.root)?;
        }
        let start = Instant::now();
        let end = within(command, limit)?;
        let took = start.elapsed();
        fs::rename(&work, &kept.files)?;
        remove(&temporary)?;
        Ok(Outcome { end, took, kept })
    }
}

/// Keeps from a command what this program itself was left open, which differs from one caller to the next.
fn close_on_exec(command: &mut Command) {
    // SAFETY: one system call, which changes flags of descriptors.
    unsafe {
        command.pre_exec(|| {
            // Kernels before 5.11 do not know it; there it is as it was.
            libc::close_range(3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC as libc::c_int);
            Ok(())
        });
    }
}

/// Has a command run with `root` as its root directory, where the folder it begins in must be.
fn chroot(command: &mut Command, root: &Path) -> Result<()> {
    let root = CString::new(root.as_os_str().as_bytes())?;
    // SAFETY: between fork and exec only a system call is made, with memory that is there already.
    unsafe { command.pre_exec(move || Ok(rustix::process::chroot(&root)?)) };
    Ok(())
}

/// Runs a command to its end or to the limit, and ends what it left behind in its process group.
fn within(mut command: Command, limit: Duration) -> Result<End> {
    let program = command.get_program().display().to_string();
    let mut child = command.spawn().with_context(|| format!("{program} could not be started"))?;
    let group = Pid::from_raw(child.id() as i32).context("a process id")?;
    let deadline = Instant::now() + limit;
    // The child is not reaped before its group is killed: until then its number cannot be anyone else's.
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    let in_time = loop {
        match waitid(WaitId::Pid(group), options) {
            Ok(Some(_)) => break true,
            Ok(None) if Instant::now() < deadline => thread::sleep(Duration::from_millis(5)),
            Ok(None) => break false,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    };
    match kill_process_group(group, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH | rustix::io::Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    let status = child.wait()?;
    Ok(if in_time { End::from(status) } else { End::TimeLimit })
}

impl From<ExitStatus> for End {
    fn from(status: ExitStatus) -> Self {
        match status.signal() {
            Some(signal) => Self::Signal(signal),
            None => Self::Exit(status.code().unwrap_or_default()),
        }
    }
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exit(status) => write!(f, "exit status {status}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::TimeLimit => f.write_str("the time limit"),
        }
    }
}

/// Copies a folder's content.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            fs::create_dir(&target)?;
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(script: &str, limit: Duration) -> Outcome {
        let folder = tempfile::tempdir().unwrap();
        let sandbox = Sandbox::new(folder.path().join("case"), Path::new("/")).unwrap();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        sandbox.run("native", command, Path::new("/nonexistent"), &[], limit).unwrap()
    }

    #[test]
    fn a_run_ends_at_its_limit_with_all_its_children() {
        let start = Instant::now();
        let outcome = run("sleep 600 & sleep 600", Duration::from_millis(300));
        assert_eq!(outcome.end, End::TimeLimit);
        assert!(start.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn a_run_inherits_no_descriptors() {
        let file = File::open("/").unwrap();
        rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty()).unwrap();
        let look = format!("test -e /proc/$$/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
        assert_eq!(run(&look, Duration::from_secs(60)).end, End::Exit(1));
    }

    #[test]
    fn how_a_run_ended_is_told() {
        let limit = Duration::from_secs(60);
        assert_eq!(run("exit 3", limit).end, End::Exit(3));
        assert_eq!(run("kill -USR1 $$", limit).end, End::Signal(10));
    }
}
