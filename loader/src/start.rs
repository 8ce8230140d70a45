//! From the command line, or from binfmt_misc, to the first instruction of the program.

use crate::cli::{self, Cli, MemoryModel, OPTIONS_VARIABLE, ProgramOptions, SharedOptions};
use crate::error::LoadError;
use crate::load::{self, Request};
use crate::stack::{Contents, at};
use crate::{elf, host_features};
use std::ffi::{CStr, OsString, c_char};
use std::fs::File;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use syscalls::memory::Memory;
use syscalls::runtime::{self, Image, Options, Strace};
use syscalls::sigframe::MIN_SIGSTKSZ;
use translator::engine::{Config, MemoryOrder};

/// AT_FLAGS bit of binfmt_misc's P flag: argv is the translator, the program's path, its argv.
const AT_FLAGS_PRESERVE_ARGV0: u64 = 1;

/// Address space for translations.
const CACHE_SIZE: usize = 512 << 20;

/// CPUID.1:EDX as AT_HWCAP shows it: what every x86-64 processor has (FPU to SSE2).
const HWCAP: u64 = 0x078b_fbff;
/// RDFSBASE and its kin are there.
const HWCAP2: u64 = 1 << 1;
/// Kernel clock ticks in times(2), the same on both architectures.
const CLKTCK: u64 = 100;
/// Levels of x86-64 that the translator carries out.
const ISA: elf::IsaMask = 0b1;

/// What to run and how, whoever asked.
struct Invocation {
    program: ProgramOptions,
    shared: SharedOptions,
    /// The path of the program and its arguments.
    command: Vec<OsString>,
    /// Whether binfmt_misc started this process.
    binfmt: bool,
    secure: bool,
}

/// Starts the program; comes back, with an exit status, only if that is not possible.
pub fn main() -> i32 {
    let invocation = Invocation::of_this_process();
    let name = invocation.command[0].clone();
    let Err(error) = run(invocation);
    eprintln!("demotic: {}: {error}", name.display());
    error.status()
}

impl Invocation {
    /// Reads the command line. binfmt_misc's is not one: it holds nothing but the program's.
    fn of_this_process() -> Self {
        let secure = host_auxv(at::SECURE).is_some_and(|secure| secure != 0);
        let variable = if secure {
            None
        } else {
            std::env::var_os(OPTIONS_VARIABLE)
        };
        let mut arguments: Vec<OsString> = std::env::args_os().collect();
        let preserved =
            host_auxv(at::FLAGS).is_some_and(|flags| flags & AT_FLAGS_PRESERVE_ARGV0 != 0);
        let exec_fd = host_auxv(at::EXECFD).map(|fd| fd as RawFd);
        if !(preserved || exec_fd.is_some()) || arguments.len() < 2 + usize::from(preserved) {
            let Cli {
                program,
                shared,
                command,
            } = Cli::from_arguments(arguments, variable);
            return Self {
                program,
                shared,
                command,
                binfmt: false,
                secure,
            };
        }
        let argv0 = preserved.then(|| arguments.remove(2));
        let shared = match variable {
            None => SharedOptions::default(),
            // Any word will do for the program: the options are what is wanted.
            Some(options) => {
                Cli::from_arguments(vec!["demotic".into(), "-".into()], Some(options)).shared
            }
        };
        let program = ProgramOptions {
            argv0,
            exec_fd,
            ..ProgramOptions::default()
        };
        Self {
            program,
            shared,
            command: arguments.split_off(1),
            binfmt: true,
            secure,
        }
    }

    /// The program's environment: this process's, with `-U` and `-E` applied.
    fn environment(&self) -> Vec<&[u8]> {
        let name = |entry: &[u8]| {
            entry
                .split(|&b| b == b'=')
                .next()
                .unwrap_or_default()
                .to_vec()
        };
        let ProgramOptions {
            set_env, unset_env, ..
        } = &self.program;
        let mut entries: Vec<&[u8]> = host_environment().collect();
        if !set_env.is_empty() || !unset_env.is_empty() {
            let changed: Vec<Vec<u8>> = set_env
                .iter()
                .chain(unset_env)
                .map(|e| name(e.as_bytes()))
                .collect();
            entries.retain(|entry| !changed.contains(&name(entry)));
            entries.extend(set_env.iter().map(|entry| entry.as_bytes()));
        }
        entries
    }

    /// Opens the program, or takes the descriptor it came with.
    fn open_program(&self) -> Result<File, LoadError> {
        let Some(fd) = self.program.exec_fd else {
            return File::open(&self.command[0]).map_err(LoadError::Open);
        };
        // SAFETY: the descriptor was handed over with the command line; if it is not open, the
        // first use of it says so.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) }.into())
    }
}

/// Loads the program and runs it.
fn run(invocation: Invocation) -> Result<std::convert::Infallible, LoadError> {
    let memory = Memory::new().map_err(|error| LoadError::Map {
        what: "the translator",
        error,
    })?;
    let program = invocation.open_program()?;
    let path = load::resolved_path(&program, Path::new(&invocation.command[0]));
    let (random, base_random) = random();
    let loaded = load::program(&Request {
        memory,
        program: &program,
        sysroot: invocation.shared.sysroot.as_deref(),
        isa: ISA,
        random: base_random,
    })?;
    drop(program);

    let mut auxv = vec![
        (at::SYSINFO_EHDR, load::vdso(memory)?),
        (at::MINSIGSTKSZ, MIN_SIGSTKSZ),
        (at::HWCAP, HWCAP),
        (at::HWCAP2, HWCAP2),
        (at::PAGESZ, elf::PAGE),
        (at::CLKTCK, CLKTCK),
        (at::FLAGS, 0),
    ];
    auxv.extend(&loaded.auxv);
    auxv.extend(
        [at::UID, at::EUID, at::GID, at::EGID, at::SECURE]
            .map(|kind| (kind, host_auxv(kind).unwrap_or(0))),
    );
    let mut argv: Vec<&[u8]> = invocation.command.iter().map(|a| a.as_bytes()).collect();
    let execfn = argv[0];
    if let Some(name) = &invocation.program.argv0 {
        argv[0] = name.as_bytes();
    }
    let environment = invocation.environment();
    let contents = Contents {
        argv: &argv,
        envp: &environment,
        execfn,
        random,
        auxv: &auxv,
    };
    let stack = load::stack(memory, &contents, loaded.executable_stack)?;

    let image = Image {
        rip: loaded.rip,
        rsp: stack.sp,
        path,
        argv: stack.argv,
        envp: stack.envp,
        auxv: stack.auxv,
    };
    let config = Config {
        order: match invocation.shared.memory_model {
            MemoryModel::Ordered => MemoryOrder::Ordered,
            _ => MemoryOrder::Plain,
        },
        host: host_features::from_hwcaps(
            host_auxv(at::HWCAP).unwrap_or(0),
            host_auxv(at::HWCAP2).unwrap_or(0),
        ),
        cache_size: CACHE_SIZE,
        dump_asm: invocation.shared.dump_asm,
    };
    runtime::start(options(invocation)?, config, memory, image)
}

/// The run time's options.
fn options(invocation: Invocation) -> Result<Options, LoadError> {
    let Invocation {
        shared,
        binfmt,
        secure,
        ..
    } = invocation;
    if shared.memory_model == MemoryModel::Tso {
        processor_tso()?;
    }
    let current_dir = std::env::current_dir().unwrap_or_default();
    Ok(Options {
        child_args: shared.to_arguments(&current_dir),
        sysroot: shared.sysroot,
        strace: shared
            .strace
            .map(|file| file.map_or(Strace::Stderr, Strace::File)),
        runner: shared.runner.as_deref().map(cli::words).unwrap_or_default(),
        trace_exec: shared.trace_exec,
        memory_model: match shared.memory_model {
            MemoryModel::Auto => runtime::MemoryModel::Auto,
            MemoryModel::Plain | MemoryModel::Tso => runtime::MemoryModel::Plain,
            MemoryModel::Ordered => runtime::MemoryModel::Ordered,
        },
        log: shared.log == cli::LogLevel::Warn,
        stats: shared.stats,
        binfmt,
        secure,
    })
}

/// Puts the processor into the x86 memory model, where the kernel knows how (Apple's cores).
fn processor_tso() -> Result<(), LoadError> {
    const PR_SET_MEM_MODEL: i32 = 0x4d4d_444c;
    const PR_SET_MEM_MODEL_TSO: u64 = 1;
    // SAFETY: prctl(2) with this operation touches no memory.
    if unsafe { libc::prctl(PR_SET_MEM_MODEL, PR_SET_MEM_MODEL_TSO, 0u64, 0u64, 0u64) } == 0 {
        return Ok(());
    }
    Err(LoadError::NoTso(io::Error::last_os_error()))
}

/// An entry of this process's own auxiliary vector.
fn host_auxv(kind: u64) -> Option<u64> {
    // SAFETY: errno is this thread's, and getauxval(3) only reads.
    unsafe {
        *libc::__errno_location() = 0;
        let value = libc::getauxval(kind as libc::c_ulong);
        (value != 0 || *libc::__errno_location() == 0).then_some(value)
    }
}

/// The entries of this process's environment as they are, well-formed or not.
fn host_environment() -> impl Iterator<Item = &'static [u8]> {
    unsafe extern "C" {
        static environ: *const *const c_char;
    }
    // SAFETY: the process has one thread so far and nobody has changed the environment: it is a
    // null-terminated array of null-terminated strings.
    unsafe {
        (0..)
            .map(|i| *environ.add(i))
            .take_while(|entry| !entry.is_null())
            .map(|entry| CStr::from_ptr(entry).to_bytes())
    }
}

/// Random bytes for AT_RANDOM and random bits for the program's address; those are zero if
/// personality(2) forbids randomisation.
fn random() -> ([u8; 16], u64) {
    let mut words = [0u64; 3];
    // SAFETY: the buffer has the length given. The call can only fail before the kernel's generator
    // is seeded, during boot; the zeros that stay are then as good as anything.
    unsafe {
        libc::getrandom(
            words.as_mut_ptr().cast(),
            size_of_val(&words),
            libc::GRND_NONBLOCK,
        )
    };
    // SAFETY: personality(2) with this argument only asks.
    let personality = unsafe { libc::personality(0xffff_ffff) };
    let fixed = personality != -1 && personality & libc::ADDR_NO_RANDOMIZE != 0;
    let random = (u128::from(words[1]) << 64 | u128::from(words[0])).to_le_bytes();
    (random, if fixed { 0 } else { words[2] })
}
