//! One process: what its threads share, how it starts, and the loop each thread is in.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use translator::engine::{Config, Engine, Exit, MemoryOrder};
use translator::state::{CpuState, reg};

use crate::host::{self, Errno, SysResult};
use crate::inherit::{self, Role};
use crate::memory::{Map, Memory};
use crate::signal::{self, Actions};
use crate::table::host as nr;
use crate::task::Task;
use crate::{
    exe_file, exec, guest, jit_dump, log, paths, perf_map, personality, process, seccomp, strace,
    table, thread, user_dispatch, vsyscall,
};

/// Where `--strace` goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Strace {
    /// Standard error.
    Stderr,
    /// Appended to a file.
    File(PathBuf),
}

/// `--memory-model`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryModel {
    /// Ordered from the first thread or shared writable mapping on.
    Auto,
    /// Never ordered: for programs that are known not to need it.
    Plain,
    /// Ordered from the start.
    Ordered,
}

/// What the command line says.
#[derive(Clone, Debug)]
pub struct Options {
    /// Root that x86_64 files are looked up in first.
    pub sysroot: Option<PathBuf>,
    /// Print system calls.
    pub strace: Option<Strace>,
    /// Words of the command that runs arm64 programs, the translator among them; empty without.
    pub runner: Vec<OsString>,
    /// File that gets a line for each program translated.
    pub trace_exec: Option<PathBuf>,
    /// Memory ordering.
    pub memory_model: MemoryModel,
    /// Say what is not supported.
    pub log: bool,
    /// Print the translator's counters at the end of the process.
    pub stats: bool,
    /// Write a map for perf(1).
    pub perf_map: bool,
    /// Whether translated code is written to /tmp/jit-PID.dump.
    pub jit_dump: bool,
    /// The kernel starts the translator for x86_64 programs by itself (binfmt_misc): by this path.
    pub binfmt: Option<PathBuf>,
    /// The translator's own options, for the programs that the guest executes.
    pub child_args: Vec<OsString>,
    /// The program has more privileges than its caller (AT_SECURE).
    pub secure: bool,
    /// Whether an open file can be loaded as a program: the error of execve(2) if not.
    pub loadable: fn(RawFd, &Options) -> Result<(), Errno>,
}

/// A program in memory, as the loader left it.
#[derive(Clone, Debug)]
pub struct Image {
    /// First instruction.
    pub rip: u64,
    /// Initial stack pointer.
    pub rsp: u64,
    /// Host path of the program: absolute, without symbolic links.
    pub path: PathBuf,
    /// The program's file, as a descriptor that the guest does not see; none if there was no room for it.
    pub file: Option<RawFd>,
    /// What the program is called in lists of processes; none to leave that as it is.
    pub name: Option<OsString>,
    /// The strings of the arguments on the guest's stack.
    pub argv: Range<u64>,
    /// The strings of the environment on the guest's stack.
    pub envp: Range<u64>,
    /// The auxiliary vector's bytes.
    pub auxv: Vec<u8>,
}

/// What the threads of a process share.
pub struct Runtime {
    /// What the command line said.
    pub options: Options,
    /// The translator.
    pub engine: Engine,
    /// The address space.
    pub memory: &'static Memory,
    /// The program.
    pub image: Image,
    ordered: AtomicBool,
}

static RUNTIME: OnceLock<Runtime> = OnceLock::new();

/// What the threads of this process share. To be called only after [`start`].
pub fn runtime() -> &'static Runtime {
    RUNTIME.get().expect("the runtime is set before the first guest instruction")
}

impl Runtime {
    /// Changes to ordered loads and stores, unless the user or the processor makes that needless.
    pub fn require_order(&self) {
        if !self.ordered.swap(true, Ordering::SeqCst) {
            self.engine.set_order(MemoryOrder::Ordered);
        }
    }

    /// mmap(2) of the guest: a shared writable mapping is where another process may look on.
    pub(crate) fn map(&self, request: &Map) -> SysResult {
        if request.is_shared_writable() {
            self.require_order();
        }
        self.memory.map(request)
    }

    /// `--stats` and `--profile`, at the end of the process.
    pub(crate) fn report(&self) {
        if let Some(profile) = self.engine.profile() {
            log::line(format_args!("{profile}"));
        }
        if self.options.stats {
            log::line(format_args!("{:?}", self.engine.stats()));
        }
    }

    /// `--trace-exec`: one line for each program image.
    fn trace_exec(&self) {
        let Some(path) = &self.options.trace_exec else {
            return;
        };
        let mut line = format!("{} ", std::process::id()).into_bytes();
        line.extend_from_slice(self.image.path.as_os_str().as_bytes());
        line.push(b'\n');
        let fd = inherit::get(Role::TraceExec).map_or_else(
            || {
                let file = OpenOptions::new().append(true).create(true).open(path)?;
                inherit::hold(Role::TraceExec, file.as_raw_fd())
                    .ok_or_else(io::Error::last_os_error)
            },
            Ok,
        );
        match fd {
            Ok(fd) => log::write_all(fd, &line),
            Err(error) => log::line(format_args!("{}: {error}", path.display())),
        }
    }
}

/// Whether the processor itself orders memory as x86 does, for as long as this thread and its descendants
/// run (Apple silicon, with a kernel that offers the switch).
fn set_hardware_tso() -> bool {
    const PR_SET_MEM_MODEL: u64 = 0x4d4d_444c;
    const PR_SET_MEM_MODEL_TSO: u64 = 1;
    // SAFETY: prctl with integers; kernels that do not know the option refuse it.
    unsafe { host::syscall(nr::prctl, [PR_SET_MEM_MODEL, PR_SET_MEM_MODEL_TSO, 0, 0, 0, 0]) == 0 }
}

/// Sets up what the command line asks of system calls.
fn apply(options: &Options) {
    log::init(options.log);
    perf_map::enable(options.perf_map);
    jit_dump::enable(options.jit_dump);
    if let Some(dir) = &options.sysroot {
        paths::set_sysroot(dir.as_os_str().as_bytes());
    }
    let strace = match &options.strace {
        None => return,
        Some(Strace::Stderr) => strace::init(None),
        Some(Strace::File(path)) => strace::init(Some(path)),
    };
    if let Err(error) = strace {
        log::line(format_args!("--strace: {error}"));
    }
}

/// Runs a program that the loader has put into memory, on the calling thread.
pub fn start(options: Options, mut config: Config, memory: &'static Memory, image: Image) -> ! {
    apply(&options);
    let mut ordered = options.memory_model != MemoryModel::Auto;
    if !ordered && set_hardware_tso() {
        config.order = MemoryOrder::Host;
        ordered = true;
    }
    let engine = match Engine::new(config, Box::new(memory)) {
        Ok(engine) => engine,
        Err(error) => {
            log::line(format_args!("no room for translations: {error}"));
            std::process::exit(126);
        }
    };
    let mut cpu = CpuState::new();
    cpu.rip = image.rip;
    cpu.gpr[reg::RSP] = image.rsp;
    let runtime = RUNTIME.get_or_init(|| Runtime {
        options,
        engine,
        memory,
        image,
        ordered: AtomicBool::new(ordered),
    });
    memory.set_engine(&runtime.engine);
    runtime.trace_exec();
    exec::start(&runtime.options);
    // SAFETY: neither threads nor signal handlers have been made yet.
    let make_way = |own: &PathBuf| unsafe { exe_file::make_way(own) };
    let is_free = runtime.options.binfmt.as_ref().is_some_and(make_way);
    let mut task = Task::new(cpu, Actions::inherited().into());
    if let Err(error) = runtime.engine.attach(&mut task.cpu).and_then(|()| thread::start()) {
        log::line(format_args!("no memory for the first thread: {error}"));
        std::process::exit(126);
    }
    task.inbox.adopt(&mut task.cpu);
    personality::start(&mut task);
    seccomp::start(&task, inherit::filters());
    signal::start(&mut task);
    if let Some(name) = &runtime.image.name {
        process::set_name(name);
    }
    // Without it others see the translator's; the guest itself sees its own (proc_fs).
    let Image { argv, envp, file, .. } = &runtime.image;
    // SAFETY: what the command line said has been taken from it.
    unsafe { process::show(argv, envp, file.filter(|_| is_free)) };
    run(&mut task)
}

/// What a thread does until it ends.
pub(crate) fn run(task: &mut Task) -> ! {
    let engine = &task.runtime().engine;
    task.identify();
    loop {
        // First this, then the look into the inbox: a signal in between makes another round.
        // SAFETY: an aligned word that only this thread and its signal handlers touch.
        unsafe { AtomicU32::from_ptr(&raw mut task.cpu.interrupt) }.store(0, Ordering::SeqCst);
        if task.inbox.attention() {
            signal::deliver(task);
        }
        let mut exit = engine.run(&mut task.cpu);
        while exit == Exit::MemoryFault && opens_watched_page(task) {
            exit = engine.step(&mut task.cpu);
        }
        match exit {
            Exit::Syscall => system_call(task),
            Exit::Exception(vector) => signal::exception(task, vector),
            Exit::MemoryFault
                if is_alignment_fault(task) && engine.tolerate_misaligned(task.cpu.rip) => {}
            Exit::MemoryFault if vsyscall::call(task) => {}
            Exit::MemoryFault => {
                let fault = task.cpu.fault;
                signal::memory_fault(task, fault);
            }
            Exit::Unimplemented => unimplemented_instruction(task),
            Exit::Interrupted => {}
        }
    }
}

/// The guest gets the SIGILL of a processor without the instruction, and the log says which it was.
fn unimplemented_instruction(task: &mut Task) {
    const UNDEFINED_OPCODE: u8 = 6;
    let rip = task.cpu.rip;
    let bytes: Vec<String> = (0..15)
        .map_while(|i| guest::read::<u8>(rip + i).ok())
        .map(|b| format!("{b:02x}"))
        .collect();
    log::warn(format_args!(
        "instruction not implemented at {rip:#x}, bytes {}: SIGILL",
        bytes.join(" ")
    ));
    signal::exception(task, UNDEFINED_OPCODE);
}

/// Whether a fault comes of our write protection of a page that holds translated code. Then
/// the translations are gone, and the store may be made.
fn opens_watched_page(task: &Task) -> bool {
    let addr = task.cpu.fault.addr;
    task.may_write_again(addr..addr + 1)
}

/// Whether the host found an address misaligned.
fn is_alignment_fault(task: &Task) -> bool {
    const BUS_ADRALN: i32 = 1;
    let fault = task.cpu.fault;
    fault.signo == signal::SIGBUS as u32 && fault.code == BUS_ADRALN
}

fn system_call(task: &mut Task) {
    let g = &task.cpu.gpr;
    let number = g[reg::RAX];
    let args = [g[reg::RDI], g[reg::RSI], g[reg::RDX], g[10], g[8], g[9]];
    if let Some(dispatch) = task.dispatch
        && !user_dispatch::admits(task, dispatch, number, &args)
    {
        return;
    }
    if task.seccomp.is_on() && !seccomp::admits(task, number, args) {
        return;
    }
    let result = table::dispatch(task, number, args);
    task.end_call(result);
}
