//! From the command line, or from binfmt_misc, to the first instruction of the program.

use crate::cli::{self, Action, Cli, MemoryModel, OPTIONS_VARIABLE, ProgramOptions, SharedOptions};
use crate::error::LoadError;
use crate::load::{self, Loaded, Request};
use crate::stack::{Contents, at};
use crate::{calls, doctor, elf, host_features, register, status};
use std::ffi::{CStr, OsStr, OsString, c_char};
use std::fs::File;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use syscalls::host::Errno;
use syscalls::memory::Memory;
use syscalls::runtime::{self, Image, Options, Strace};
use syscalls::sigframe::MIN_SIGSTKSZ;
use syscalls::{exec, fds, inherit};
use translator::engine::{Config, MemoryOrder};

/// AT_FLAGS bit of binfmt_misc's P flag (uapi/linux/binfmts.h).
const AT_FLAGS_PRESERVE_ARGV0: u64 = 1;

/// Address space for translations.
const CACHE_SIZE: usize = 512 << 20;

/// RDFSBASE and its kin are there.
const HWCAP2: u64 = 1 << 1;
/// Kernel clock ticks in times(2), the same on both architectures.
const CLKTCK: u64 = 100;
/// Levels of x86-64 that the translator carries out.
const ISA: elf::IsaMask = 0b1;

/// What the kernel says about how this process began (from the auxiliary vector).
#[derive(Clone, Copy, Debug, Default)]
struct Origin {
    /// binfmt_misc's P flag: argv is the translator, the program's path, the program's argv.
    preserve_argv0: bool,
    /// binfmt_misc's O flag: the open program.
    exec_fd: Option<RawFd>,
    /// The program has more privileges than its caller.
    secure: bool,
}

impl Origin {
    fn of_this_process() -> Self {
        let flag = |kind, bit| host_auxv(kind).is_some_and(|value| value & bit != 0);
        Self {
            preserve_argv0: flag(at::FLAGS, AT_FLAGS_PRESERVE_ARGV0),
            exec_fd: host_auxv(at::EXECFD).map(|fd| fd as RawFd),
            secure: flag(at::SECURE, !0),
        }
    }
}

/// What to run and how, whoever asked.
#[derive(Debug)]
struct Invocation {
    program: ProgramOptions,
    shared: SharedOptions,
    /// The path of the program and its arguments.
    command: Vec<OsString>,
    /// The path that binfmt_misc started this process by, if it did.
    binfmt: Option<PathBuf>,
    secure: bool,
}

/// What this process is to do.
#[derive(Debug)]
enum Task {
    Program(Box<Invocation>),
    Action(Action),
}

/// Starts the program; comes back, with an exit status, only if that is not possible.
pub fn main() -> i32 {
    let origin = Origin::of_this_process();
    let variable = std::env::var_os(OPTIONS_VARIABLE);
    let arguments = std::env::args_os().collect();
    let invocation = match Task::new(arguments, variable, origin) {
        Task::Program(invocation) => *invocation,
        Task::Action(action) => return act(action),
    };
    let name = invocation.command[0].clone();
    let Err(error) = run(invocation);
    eprintln!("demotic: {}: {error}", name.display());
    error.status()
}

/// Does what is not running a program; gives the exit status.
fn act(action: Action) -> i32 {
    match action {
        Action::Register(options) => register::run_register(&options),
        Action::Unregister => register::run_unregister(),
        Action::Status(options) => status::run(options),
        Action::Doctor(options) => doctor::run(options),
        Action::Syscalls(options) => calls::run(options),
    }
}

impl Task {
    /// Reads the command line. binfmt_misc's is not one: it holds nothing but the program's.
    fn new(mut arguments: Vec<OsString>, variable: Option<OsString>, origin: Origin) -> Self {
        let Origin { preserve_argv0, exec_fd, secure } = origin;
        let variable = variable.filter(|_| !secure);
        let binfmt = (preserve_argv0 || exec_fd.is_some()) && arguments.len() > 1;
        if !binfmt {
            let Cli { program, shared, command, action } = Cli::from_arguments(arguments, variable);
            return match action {
                Some(action) => Self::Action(action),
                None => {
                    let binfmt = None;
                    Self::Program(Box::new(Invocation { program, shared, command, binfmt, secure }))
                }
            };
        }
        // Before Linux 5.18 a program could be executed with no argument at all.
        let argv0 = match arguments.get(2) {
            Some(_) if preserve_argv0 => Some(arguments.remove(2)),
            None if preserve_argv0 => Some(OsString::new()),
            _ => None,
        };
        let shared = match variable {
            None => SharedOptions::default(),
            // Any word will do for the program: the options are what is wanted.
            Some(options) => {
                Cli::from_arguments(vec!["demotic".into(), "-".into()], Some(options)).shared
            }
        };
        let program = ProgramOptions { argv0, exec_fd, ..ProgramOptions::default() };
        let command = arguments.split_off(1);
        let binfmt = arguments.pop().map(PathBuf::from);
        Self::Program(Box::new(Invocation { program, shared, command, binfmt, secure }))
    }
}

impl Invocation {
    /// The program's environment: the one given, with `-U` and `-E` applied.
    fn environment<'a>(&'a self, mut entries: Vec<&'a [u8]>) -> Vec<&'a [u8]> {
        let name = |entry: &[u8]| entry.split(|&b| b == b'=').next().unwrap_or_default().to_vec();
        let ProgramOptions { set_env, unset_env, .. } = &self.program;
        if !set_env.is_empty() || !unset_env.is_empty() {
            let changed: Vec<Vec<u8>> =
                set_env.iter().chain(unset_env).map(|e| name(e.as_bytes())).collect();
            entries.retain(|entry| !changed.contains(&name(entry)));
            entries.extend(set_env.iter().map(|entry| entry.as_bytes()));
        }
        entries
    }

    /// What the kernel was told to execute, a script perhaps, when it was the one to choose the translator.
    fn told(&self) -> Option<&[u8]> {
        let address = host_auxv(at::EXECFN).filter(|_| self.binfmt.is_some())?;
        // SAFETY: the kernel left a null-terminated string there, which nothing has changed.
        Some(unsafe { CStr::from_ptr(address as *const c_char) }.to_bytes())
    }

    /// AT_EXECFN: what execve(2) was called with.
    fn file_name(&self) -> Vec<u8> {
        self.told().map_or_else(|| self.command[0].as_bytes().to_vec(), exec::name_for_guest)
    }

    /// What the kernel would call the process, if it does not do so already.
    fn process_name(&self, path: &Path) -> Option<OsString> {
        let given = Path::new(&self.command[0]);
        let named = match self.told() {
            Some(told) if exec::name_for_guest(told) == b"/proc/self/exe" => Path::new("exe"),
            Some(told) if !exec::is_descriptor(told) => return None,
            None if !given.starts_with("/dev/fd") => given,
            _ => path,
        };
        let name = named.file_name()?.as_bytes();
        Some(OsStr::from_bytes(name.strip_suffix(b" (deleted)").unwrap_or(name)).to_owned())
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
    if let Some(list) = &invocation.program.inherit {
        inherit::adopt(list);
    }
    let memory = Memory::new().map_err(|error| LoadError::Map { what: "the translator", error })?;
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
    let file = fds::keep(program.as_raw_fd());
    drop(program);

    let auxv = auxiliary_vector(load::vdso(memory)?, &loaded);
    let mut argv: Vec<&[u8]> = invocation.command.iter().map(|a| a.as_bytes()).collect();
    let execfn = invocation.file_name();
    if let Some(name) = &invocation.program.argv0 {
        argv[0] = name.as_bytes();
    }
    let environment = match invocation.secure {
        true => environment_of_exec(),
        false => host_environment().collect(),
    };
    let environment = invocation.environment(environment);
    let contents =
        Contents { argv: &argv, envp: &environment, execfn: &execfn, random, auxv: &auxv };
    let stack = load::stack(memory, &contents, loaded.executable_stack)?;

    let image = Image {
        rip: loaded.rip,
        rsp: stack.sp,
        name: invocation.process_name(&path),
        path,
        file,
        argv: stack.argv,
        envp: stack.envp,
        auxv: stack.auxv,
    };
    let config = config(&invocation.shared);
    runtime::start(options(invocation)?, config, memory, image)
}

/// The auxiliary vector but for what points into the stack. AT_RSEQ_* are left out: rseq(2) is
/// not there.
fn auxiliary_vector(vdso: u64, loaded: &Loaded) -> Vec<(u64, u64)> {
    let mut auxv = vec![
        (at::SYSINFO_EHDR, vdso),
        (at::MINSIGSTKSZ, MIN_SIGSTKSZ),
        (at::HWCAP, translator::cpuid::hwcap()),
        (at::HWCAP2, HWCAP2),
        (at::PAGESZ, elf::PAGE),
        (at::CLKTCK, CLKTCK),
        (at::FLAGS, 0),
    ];
    auxv.extend(&loaded.auxv);
    let same = [at::UID, at::EUID, at::GID, at::EGID, at::SECURE];
    auxv.extend(same.map(|kind| (kind, host_auxv(kind).unwrap_or(0))));
    auxv
}

/// How the translator is set up.
fn config(shared: &SharedOptions) -> Config {
    let hwcaps = host_capabilities();
    let mut host = host_features::detect(hwcaps[0], hwcaps[1]);
    host_features::switch_off(&mut host, &shared.host_features);
    Config {
        flags_live_at_return: false,
        order: match shared.memory_model {
            MemoryModel::Ordered => MemoryOrder::Ordered,
            MemoryModel::Tso => MemoryOrder::Host,
            MemoryModel::Auto | MemoryModel::Plain => MemoryOrder::Plain,
        },
        host,
        cache_size: shared.cache_size.unwrap_or(CACHE_SIZE),
        dump_asm: shared.dump_asm,
        interpret: shared.interpret,
        profile: shared.profile,
    }
}

/// The host's AT_HWCAP and AT_HWCAP2, on arm64.
pub fn host_capabilities() -> [u64; 2] {
    [at::HWCAP, at::HWCAP2]
        .map(|kind| host_auxv(kind).filter(|_| cfg!(target_arch = "aarch64")).unwrap_or_default())
}

/// Runs the test program in a child, without the kernel's help; gives what it printed.
#[cfg(target_arch = "aarch64")]
pub fn trial() -> io::Result<Vec<u8>> {
    use std::os::fd::IntoRawFd;
    const LIMIT: std::time::Duration = std::time::Duration::from_secs(60);
    let file = status::probe_file()?;
    let (mut reader, writer) = io::pipe()?;
    // SAFETY: the process has one thread; the child runs the program or ends.
    let child = unsafe { libc::fork() };
    if child < 0 {
        return Err(io::Error::last_os_error());
    }
    if child == 0 {
        let null = File::open("/dev/null");
        // SAFETY: standard input and output become the program's; the child ends by _exit.
        unsafe {
            libc::dup2(writer.as_raw_fd(), 1);
            if let Ok(null) = null {
                libc::dup2(null.as_raw_fd(), 0);
            }
            let Err(error) = run(Invocation {
                program: ProgramOptions {
                    exec_fd: Some(file.into_raw_fd()),
                    ..ProgramOptions::default()
                },
                shared: SharedOptions::default(),
                command: vec!["test".into()],
                binfmt: None,
                secure: false,
            });
            let text = error.to_string();
            libc::write(1, text.as_ptr().cast(), text.len());
            libc::_exit(error.status());
        }
    }
    drop(writer);
    let output = status::read_until(&mut reader, 4096, std::time::Instant::now() + LIMIT)
        .inspect_err(|_| {
            // SAFETY: the child made above, which nobody has waited for yet.
            unsafe { libc::kill(child, libc::SIGKILL) };
        });
    let mut status = 0;
    // SAFETY: waits for the child made above.
    unsafe { libc::waitpid(child, &mut status, 0) };
    match output? {
        output if status == 0 => Ok(output),
        output => Err(io::Error::other(format!(
            "it ended with wait status {status:#x}: {}",
            String::from_utf8_lossy(&output)
        ))),
    }
}

/// There is no arm64 kernel to run it on.
#[cfg(not(target_arch = "aarch64"))]
pub fn trial() -> io::Result<Vec<u8>> {
    Err(io::ErrorKind::Unsupported.into())
}

/// The run time's options.
fn options(invocation: Invocation) -> Result<Options, LoadError> {
    let Invocation { shared, binfmt, secure, .. } = invocation;
    if shared.memory_model == MemoryModel::Tso {
        processor_tso()?;
    }
    let current_dir = std::env::current_dir().unwrap_or_default();
    Ok(Options {
        child_args: shared.to_arguments(&current_dir),
        sysroot: shared.sysroot,
        strace: shared.strace.map(|file| file.map_or(Strace::Stderr, Strace::File)),
        runner: shared.runner.as_deref().map(cli::words).unwrap_or_default(),
        trace_exec: shared.trace_exec,
        memory_model: match shared.memory_model {
            MemoryModel::Auto => runtime::MemoryModel::Auto,
            MemoryModel::Plain | MemoryModel::Tso => runtime::MemoryModel::Plain,
            MemoryModel::Ordered => runtime::MemoryModel::Ordered,
        },
        log: shared.log == cli::LogLevel::Warn,
        stats: shared.stats,
        perf_map: shared.perf_map,
        jit_dump: shared.jit_dump,
        binfmt,
        secure,
        loadable,
    })
}

/// What execve(2) says of a file that is no program (load_elf_binary in fs/binfmt_elf.c).
fn loadable(fd: RawFd, options: &Options) -> Result<(), Errno> {
    // SAFETY: the descriptor stays open for the time of the call, and is not closed here.
    let program = ManuallyDrop::new(unsafe { File::from_raw_fd(fd) });
    load::check(&program, options.sysroot.as_deref()).map_err(|error| Errno(error.errno()))
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

unsafe extern "C" {
    static environ: *const *const c_char;
}

/// The entries of the environment as execve(2) got them. In a privileged process the C library has taken some out
/// (unsecvars.h of glibc); the program's own C library is to decide that. Their strings still stand where the kernel
/// put them: behind those of the arguments, and before the file's name.
fn environment_of_exec() -> Vec<&'static [u8]> {
    let Some(end) = host_auxv(at::EXECFN) else { return host_environment().collect() };
    // SAFETY: nobody has set a variable, so `environ` still points into the array on the initial stack. Before it
    // are the null that ends the arguments, and the last of them: a program has one at least. Between that
    // string and the file's name the kernel has put the environment's strings and nothing else.
    let strings = unsafe {
        let last = CStr::from_ptr(*environ.sub(2));
        let start = last.as_ptr() as u64 + last.count_bytes() as u64 + 1;
        std::slice::from_raw_parts(start as *const u8, end.saturating_sub(start) as usize)
    };
    strings.split_inclusive(|&byte| byte == 0).map(|entry| &entry[..entry.len() - 1]).collect()
}

/// The entries of this process's environment as they are, well-formed or not.
fn host_environment() -> impl Iterator<Item = &'static [u8]> {
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
    unsafe { libc::getrandom(words.as_mut_ptr().cast(), size_of_val(&words), libc::GRND_NONBLOCK) };
    // SAFETY: personality(2) with this argument only asks.
    let personality = unsafe { libc::personality(0xffff_ffff) };
    let fixed = personality != -1 && personality & libc::ADDR_NO_RANDOMIZE != 0;
    let random = (u128::from(words[1]) << 64 | u128::from(words[0])).to_le_bytes();
    (random, if fixed { 0 } else { words[2] })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Origin = Origin { preserve_argv0: false, exec_fd: None, secure: false };

    fn invocation(arguments: &str, variable: Option<&str>, origin: Origin) -> Invocation {
        match Task::new(cli::words(arguments), variable.map(OsString::from), origin) {
            Task::Program(invocation) => *invocation,
            Task::Action(action) => panic!("{action:?}"),
        }
    }

    #[test]
    fn started_by_hand() {
        let by_hand = invocation("demotic --argv0 x ./a b", Some("--stats"), PLAIN);
        assert!(by_hand.binfmt.is_none() && by_hand.shared.stats);
        assert_eq!(by_hand.program.argv0, Some("x".into()));
        assert_eq!(by_hand.command, cli::words("./a b"));
    }

    /// What looks like an option is the program's name or its argument.
    #[test]
    fn started_by_binfmt_misc() {
        let origin = Origin { preserve_argv0: true, exec_fd: Some(3), secure: false };
        let started = invocation("demotic /bin/a -bash --help", Some("--log warn"), origin);
        assert!(
            started.binfmt == Some("demotic".into()) && started.shared.log == cli::LogLevel::Warn
        );
        assert_eq!(started.program.argv0, Some("-bash".into()));
        assert_eq!(started.program.exec_fd, Some(3));
        assert_eq!(started.command, cli::words("/bin/a --help"));

        // Executed with no argument, which old kernels allow.
        let bare = invocation("demotic /bin/a", None, origin);
        assert!(bare.binfmt.is_some() && bare.program.argv0 == Some("".into()));
        assert_eq!(bare.command, cli::words("/bin/a"));

        let origin = Origin { preserve_argv0: false, ..origin };
        let started = invocation("demotic --help -x", None, origin);
        assert_eq!(started.program.argv0, None);
        assert_eq!(started.command, cli::words("--help -x"));
    }

    #[test]
    fn privileged_programs_ignore_the_environment() {
        for preserve_argv0 in [false, true] {
            let origin = Origin { preserve_argv0, exec_fd: None, secure: true };
            let started = invocation("demotic /bin/su su", Some("--strace=/etc/x --stats"), origin);
            assert!(started.secure && !started.shared.stats && started.shared.strace.is_none());
        }
    }

    #[test]
    fn environment_options() {
        let given: [&[u8]; 4] = [b"A=1", b"B=2", b"C=3", b"odd"];
        let environment = |arguments: &str| {
            let invocation = invocation(arguments, None, PLAIN);
            let entries = invocation.environment(given.to_vec());
            entries.join(&b' ')
        };
        assert_eq!(environment("demotic ./a"), b"A=1 B=2 C=3 odd");
        assert_eq!(environment("demotic -E B=x=y -U C -E D= ./a"), b"A=1 odd B=x=y D=");
    }

    /// This process is not privileged, and its environment is all there.
    #[test]
    fn the_environment_stands_behind_the_arguments() {
        assert_eq!(environment_of_exec(), host_environment().collect::<Vec<_>>());
    }

    #[test]
    fn random_bits_differ() {
        assert_ne!(random().0, random().0);
    }
}
