//! Running test programs: here, in a process of their own, or behind a command.

use crate::state::{Outcome, Program};
use anyhow::{Context, Result, bail, ensure};
use std::{
    fs::File,
    io::{self, BufReader, BufWriter, ErrorKind, Read, Write},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    process::{Child, Command, Stdio},
    ptr,
};

/// Something that runs a test program.
pub trait Executor {
    /// Runs it and says what it left. An error means that the executor itself failed.
    fn run(&mut self, program: &Program) -> Result<Outcome>;
}

/// How the translator translates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// For ARMv8.0 and nothing more, not for all that the processor has.
    pub baseline: bool,
    /// What can be interpreted is not translated.
    pub interpreted: bool,
    /// As for several threads: accesses to memory in the order of x86.
    pub ordered: bool,
}

impl Host {
    /// Whether the translator does without FEAT_AFP: when told to, or because the processor has none. One behind a
    /// command is taken to have it.
    pub fn without_afp(self) -> bool {
        #[cfg(target_arch = "aarch64")]
        let lacking = !crate::translated::features(self).afp;
        #[cfg(not(target_arch = "aarch64"))]
        let lacking = self.baseline;
        lacking
    }
}

/// The executor of this machine: the processor on x86_64 (`host` has no meaning there), the
/// translator on arm64.
pub fn local(host: Host) -> Result<Box<dyn Executor>> {
    #[cfg(target_arch = "x86_64")]
    let executor = {
        let _ = host;
        crate::native::Native::new()?
    };
    #[cfg(target_arch = "aarch64")]
    let executor = crate::translated::Translated::new(host)?;
    Ok(Box::new(executor))
}

/// A signal handler with SA_SIGINFO.
pub type Handler = extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void);

/// Installs a handler for signals, on an alternate stack.
pub fn on_signals(signals: &[i32], handler: Handler) -> Result<()> {
    const STACK_SIZE: usize = 256 << 10;
    let memory = Box::leak(vec![0u8; STACK_SIZE].into_boxed_slice());
    let stack =
        libc::stack_t { ss_sp: memory.as_mut_ptr().cast(), ss_flags: 0, ss_size: STACK_SIZE };
    // SAFETY: the stack lives as long as the process; the handler has the signature SA_SIGINFO asks for.
    unsafe {
        ensure!(libc::sigaltstack(&stack, ptr::null_mut()) == 0, io::Error::last_os_error());
        for &signal in signals {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
            ensure!(
                libc::sigaction(signal, &action, ptr::null_mut()) == 0,
                io::Error::last_os_error()
            );
        }
    }
    Ok(())
}

/// Answers programs on `input` with outcomes on `output` until the input ends.
pub fn serve(executor: &mut dyn Executor, input: impl Read, output: impl Write) -> Result<()> {
    let (mut input, mut output) = (BufReader::new(input), BufWriter::new(output));
    while let Some(request) = read_message(&mut input)? {
        let outcome = executor.run(&postcard::from_bytes(&request)?)?;
        write_message(&mut output, &postcard::to_stdvec(&outcome)?)?;
    }
    Ok(())
}

fn write_message(output: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    output.write_all(&(bytes.len() as u32).to_le_bytes())?;
    output.write_all(bytes)?;
    output.flush()
}

fn read_message(input: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match input.read_exact(&mut length) {
        Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let mut bytes = vec![0; u32::from_le_bytes(length) as usize];
    input.read_exact(&mut bytes)?;
    Ok(Some(bytes))
}

/// How long a test program may take before its process is taken for stuck.
const PATIENCE_MS: i32 = 60_000;

/// What a worker process is.
#[derive(Clone, Debug)]
enum Origin {
    /// A fork of this process with the local executor.
    Fork(Host),
    /// A shell command that runs `demotic-isa serve` on the other architecture.
    Shell(String),
}

enum Process {
    Forked(libc::pid_t),
    Spawned(Child),
}

impl Process {
    fn end(self) {
        match self {
            // SAFETY: the process is our child and has not been waited for.
            Self::Forked(pid) => unsafe {
                libc::kill(pid, libc::SIGKILL);
                libc::waitpid(pid, ptr::null_mut(), 0);
            },
            Self::Spawned(mut child) => {
                // Both fail only when the child is gone already.
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}

struct Running {
    process: Process,
    input: File,
    output: File,
}

/// An executor in a process of its own, which is replaced when it dies or hangs.
pub struct Worker {
    origin: Origin,
    running: Option<Running>,
}

impl Worker {
    /// The local executor in a forked process. Call it while the process has one thread.
    pub fn fork(host: Host) -> Self {
        Self { origin: Origin::Fork(host), running: None }
    }

    /// The executor behind a shell command.
    pub fn shell(command: &str) -> Self {
        Self { origin: Origin::Shell(command.into()), running: None }
    }

    fn start(&mut self) -> Result<&mut Running> {
        if self.running.is_none() {
            self.running = Some(match &self.origin {
                Origin::Fork(host) => fork(*host)?,
                Origin::Shell(command) => spawn(command)?,
            });
        }
        Ok(self.running.as_mut().expect("just started"))
    }

    fn exchange(&mut self, request: &[u8]) -> Result<Vec<u8>> {
        let running = self.start()?;
        write_message(&mut running.input, request)?;
        let mut poll =
            libc::pollfd { fd: running.output.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid pollfd.
        if unsafe { libc::poll(&mut poll, 1, PATIENCE_MS) } == 0 {
            bail!("no answer in {} s", PATIENCE_MS / 1000);
        }
        read_message(&mut running.output)?.context("the process died")
    }
}

impl Executor for Worker {
    fn run(&mut self, program: &Program) -> Result<Outcome> {
        let answer = self.exchange(&postcard::to_stdvec(program)?);
        if answer.is_err()
            && let Some(running) = self.running.take()
        {
            running.process.end();
        }
        Ok(postcard::from_bytes(&answer?)?)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.process.end();
        }
    }
}

fn pipe() -> Result<(File, File)> {
    let mut fds = [0; 2];
    // SAFETY: room for two descriptors, which become ours.
    unsafe {
        ensure!(libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) == 0, io::Error::last_os_error());
        Ok((OwnedFd::from_raw_fd(fds[0]).into(), OwnedFd::from_raw_fd(fds[1]).into()))
    }
}

fn fork(host: Host) -> Result<Running> {
    let (child_input, input) = pipe()?;
    let (output, child_output) = pipe()?;
    // SAFETY: the process has one thread, so the child may do as it likes.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error().into()),
        0 => {
            drop((input, output));
            let result = local(host)
                .and_then(|mut executor| serve(executor.as_mut(), child_input, child_output));
            if let Err(error) = &result {
                eprintln!("executor: {error:#}");
            }
            // SAFETY: ends the child without the parent's destructors.
            unsafe { libc::_exit(i32::from(result.is_err())) }
        }
        pid => Ok(Running { process: Process::Forked(pid), input, output }),
    }
}

fn spawn(command: &str) -> Result<Running> {
    let mut child = Command::new("sh")
        .args(["-c", &format!("exec {command}")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {command}"))?;
    let input = OwnedFd::from(child.stdin.take().context("no stdin")?).into();
    let output = OwnedFd::from(child.stdout.take().context("no stdout")?).into();
    Ok(Running { process: Process::Spawned(child), input, output })
}
