//! execve(2) and execveat(2). What the guest executes is translated too: the host's call is made on the
//! translator, which gets the program as an open descriptor. `#!` is resolved here.
//! Every error is found before anything of the old program is lost.

use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};

use crate::abi::{AT_FDCWD, AT_SYMLINK_NOFOLLOW, errno};
use crate::host::{self, Errno, SysResult};
use crate::runtime::Options;
use crate::table::host as nr;
use crate::task::Task;
use crate::{fds, guest, paths, signal};

const AT_EMPTY_PATH: u64 = 0x1000;
const AT_EACCESS: u64 = 0x200;
const AT_EXECVE_CHECK: u64 = 0x10000;

/// Bytes of a file that decide how it is executed (BINPRM_BUF_SIZE).
const HEAD: usize = 256;
/// How many interpreters may be interpreted themselves (exec_binprm).
const MAX_INTERPRETERS: usize = 5;

/// The translator's own program, open; -1 before [`start`].
static SELF: AtomicI32 = AtomicI32::new(-1);
/// Its path, for a runner that wants one.
static SELF_PATH: OnceLock<PathBuf> = OnceLock::new();

/// Opens the translator's own program while it can be found: the guest may change its root.
pub(crate) fn start(options: &Options) {
    if !options.runner.is_empty() {
        let path = std::fs::read_link("/proc/self/exe").unwrap_or_default();
        // Set once: there is one start.
        let _ = SELF_PATH.set(path);
        return;
    }
    // SAFETY: opens a file by a literal name.
    let fd = unsafe { libc::open(c"/proc/self/exe".as_ptr(), libc::O_PATH | libc::O_CLOEXEC) };
    if let Some(kept) = fds::keep(fd) {
        SELF.store(kept, Ordering::Relaxed);
    }
    // SAFETY: closes what was opened above.
    unsafe { libc::close(fd) };
}

/// A file descriptor of ours that is closed when the call fails.
struct Fd(u64);

impl Drop for Fd {
    fn drop(&mut self) {
        // SAFETY: the descriptor was made here and is known to nobody.
        unsafe { host::syscall(nr::close, [self.0, 0, 0, 0, 0, 0]) };
    }
}

/// What a file's first bytes say about who executes it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Format {
    /// An x86_64 ELF program: translated.
    Guest,
    /// Something that the host's kernel knows.
    Host,
    /// A program for another processor: nobody's.
    Foreign,
    /// `#!`: the interpreter and its argument.
    Script(CString, Option<CString>),
    /// A `#!` line that says nothing.
    Broken,
}

impl Format {
    fn of(head: &[u8]) -> Self {
        const EM_X86_64: u16 = 62;
        const EM_AARCH64: u16 = 183;
        const CLASS64_LITTLE: [u8; 2] = [2, 1];
        if let Some(line) = head.strip_prefix(b"#!") {
            return Self::script(line, head.len() == HEAD);
        }
        if !head.starts_with(b"\x7fELF") {
            return Self::Host;
        }
        match (head.get(4..6), head.get(18..20).map(|m| u16::from_le_bytes([m[0], m[1]]))) {
            (Some(class), Some(EM_X86_64)) if *class == CLASS64_LITTLE => Self::Guest,
            (Some(class), Some(EM_AARCH64)) if *class == CLASS64_LITTLE => Self::Host,
            _ => Self::Foreign,
        }
    }

    /// As load_script in fs/binfmt_script.c: the interpreter is the first word, its argument all the rest.
    fn script(line: &[u8], cut: bool) -> Self {
        let blank = |b: &u8| matches!(b, b' ' | b'\t');
        let end = line.iter().position(|b| matches!(b, b'\n' | b'\0'));
        let text = &line[..end.unwrap_or(line.len())];
        let Some(start) = text.iter().position(|b| !blank(b)) else { return Self::Broken };
        let text = &text[start..];
        let word = text.iter().position(blank).unwrap_or(text.len());
        if cut && end.is_none() && word == text.len() {
            // The path may be cut off: it is not known whose it is.
            return Self::Broken;
        }
        let is_word = |b: &u8| !blank(b);
        let rest = &text[word..];
        let argument = match (rest.iter().position(is_word), rest.iter().rposition(is_word)) {
            (Some(first), Some(last)) => &rest[first..=last],
            _ => &[],
        };
        let owned = |bytes: &[u8]| CString::new(bytes).ok();
        match owned(&text[..word]) {
            Some(interpreter) if argument.is_empty() => Self::Script(interpreter, None),
            Some(interpreter) => Self::Script(interpreter, owned(argument)),
            None => Self::Broken,
        }
    }
}

/// A program on its way to be executed.
struct Program {
    fd: Fd,
    /// Its name, as the program may see it.
    name: CString,
    /// Arguments that stand before the guest's: interpreters and theirs, in order.
    prefix: Vec<CString>,
    /// Whether the guest's own first argument is replaced by `prefix`.
    scripted: bool,
}

/// execve(2).
pub fn execve(task: &mut Task, [path, argv, envp, ..]: [u64; 6]) -> SysResult {
    execveat(task, [AT_FDCWD as u64, path, argv, envp, 0, 0])
}

/// execveat(2).
pub fn execveat(task: &mut Task, [dirfd, path, argv, envp, flags, _]: [u64; 6]) -> SysResult {
    if flags & !(AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW | AT_EXECVE_CHECK) != 0 {
        return Err(errno::EINVAL);
    }
    let arguments = pointers(argv)?;
    let mut program = open_guest(task, dirfd, path, flags)?;
    let format = resolve_scripts(task, &mut program, dirfd)?;
    if flags & AT_EXECVE_CHECK != 0 {
        return Ok(0);
    }
    let runner = !task.runtime().options.runner.is_empty();
    match format {
        Format::Guest if !task.runtime().options.binfmt || runner => {
            translate(task, &program, &arguments, envp)
        }
        Format::Guest => direct(task, &program, &arguments, envp),
        Format::Host if runner => run_native(task, &program, &arguments, envp),
        Format::Host => direct(task, &program, &arguments, envp),
        _ => Err(errno::ENOEXEC),
    }
}

/// The pointers of an argument vector, without the null.
fn pointers(addr: u64) -> Result<Vec<u64>, Errno> {
    let mut list = Vec::new();
    if addr == 0 {
        return Ok(list);
    }
    loop {
        match guest::read::<u64>(addr + 8 * list.len() as u64)? {
            0 => return Ok(list),
            pointer => list.push(pointer),
        }
    }
}

/// Opens the file that the guest names.
fn open_guest(task: &mut Task, dirfd: u64, path: u64, flags: u64) -> Result<Program, Errno> {
    let text = paths::read(path)?;
    if text.is_empty() {
        if flags & AT_EMPTY_PATH == 0 {
            return Err(errno::ENOENT);
        }
        let name = CString::new(format!("/dev/fd/{}", dirfd as i32)).expect("no null inside");
        let link = CString::new(format!("/proc/self/fd/{}", dirfd as i32)).expect("no null inside");
        let fd = open(task, AT_FDCWD as u64, link.as_ptr() as u64, 0)
            .map_err(|error| if error == errno::ENOENT { errno::EBADF } else { error })?;
        return Ok(Program { fd, name, prefix: Vec::new(), scripted: false });
    }
    let follow = flags & AT_SYMLINK_NOFOLLOW == 0;
    let host = paths::translate(task, dirfd as i32, path, follow)?;
    let fd = open(task, dirfd, host.addr(), if follow { 0 } else { libc::O_NOFOLLOW })?;
    let name = match dirfd as i32 {
        dirfd if dirfd != AT_FDCWD && !text.as_bytes().starts_with(b"/") => {
            // As the kernel names it (alloc_bprm).
            let name = [format!("/dev/fd/{dirfd}/").as_bytes(), text.as_bytes()].concat();
            CString::new(name).expect("no null inside")
        }
        _ => text,
    };
    Ok(Program { fd, name, prefix: Vec::new(), scripted: false })
}

/// Opens a file for execution: it must be a regular one with permission to be executed.
fn open(task: &mut Task, dirfd: u64, path: u64, extra: i32) -> Result<Fd, Errno> {
    let flags = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY | extra;
    let fd = Fd(task.host_call(nr::openat, [dirfd, path, flags as u64, 0, 0, 0])?);
    let mut stat = std::mem::MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: the structure is ours, and all zero is valid.
    let stat = unsafe {
        libc::fstat(fd.0 as i32, stat.as_mut_ptr());
        stat.assume_init()
    };
    if stat.st_mode & libc::S_IFMT != libc::S_IFREG {
        return Err(errno::EACCES);
    }
    may_execute(task, &fd)?;
    Ok(fd)
}

/// Permission to execute, with the effective ids and the mount's `noexec`.
fn may_execute(task: &mut Task, fd: &Fd) -> Result<(), Errno> {
    let flags = AT_EMPTY_PATH | AT_EACCESS;
    let args = [fd.0, c"".as_ptr() as u64, libc::X_OK as u64, flags, 0, 0];
    match task.host_call(nr::faccessat2, args) {
        // Kernels before 5.8, and emulators.
        Err(errno::ENOSYS | errno::EINVAL) => {
            let link = CString::new(format!("/proc/self/fd/{}", fd.0)).expect("no null inside");
            task.host_call(
                nr::faccessat,
                [AT_FDCWD as u64, link.as_ptr() as u64, libc::X_OK as u64, 0, 0, 0],
            )?;
            Ok(())
        }
        other => other.map(|_| ()),
    }
}

/// The first bytes of a file.
fn head(fd: &Fd) -> Result<Vec<u8>, Errno> {
    let mut bytes = vec![0; HEAD];
    // SAFETY: the buffer has that length.
    let n = unsafe { libc::pread(fd.0 as i32, bytes.as_mut_ptr().cast(), HEAD, 0) };
    if n < 0 {
        return Err(Errno(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)));
    }
    bytes.truncate(n as usize);
    Ok(bytes)
}

/// Follows `#!` to a program; the format of that.
fn resolve_scripts(task: &mut Task, program: &mut Program, dirfd: u64) -> Result<Format, Errno> {
    for depth in 0..=MAX_INTERPRETERS {
        let format = Format::of(&head(&program.fd)?);
        let Format::Script(interpreter, argument) = format else { return Ok(format) };
        if depth == MAX_INTERPRETERS {
            break;
        }
        if depth == 0 && program.name.to_bytes().starts_with(b"/dev/fd/") && closes_on_exec(dirfd) {
            // The interpreter could not open the script (BINPRM_FLAGS_PATH_INACCESSIBLE).
            return Err(errno::ENOENT);
        }
        let host = paths::of_translator(task, &interpreter);
        program.fd = open(task, AT_FDCWD as u64, host.as_ptr() as u64, 0)?;
        let script = std::mem::replace(&mut program.name, interpreter.clone());
        if program.scripted {
            // The script's name takes the place of the interpreter's own first argument.
            program.prefix.remove(0);
        }
        program.scripted = true;
        let words = [Some(interpreter), argument, Some(script)];
        program.prefix.splice(0..0, words.into_iter().flatten());
    }
    Err(errno::ELOOP)
}

/// Whether a descriptor is closed by a successful execve(2).
fn closes_on_exec(fd: u64) -> bool {
    // SAFETY: asks for flags.
    let flags = unsafe { libc::fcntl(fd as i32, libc::F_GETFD) };
    flags >= 0 && flags & libc::FD_CLOEXEC != 0
}

impl Program {
    /// The program's arguments: those of the scripts, then the guest's.
    fn arguments(&self, guest: &[u64]) -> Vec<u64> {
        let prefix = self.prefix.iter().map(|word| word.as_ptr() as u64);
        let rest = if self.scripted { guest.get(1..).unwrap_or_default() } else { guest };
        let mut all: Vec<u64> = prefix.chain(rest.iter().copied()).collect();
        if all.is_empty() {
            // As Linux since 5.18: there is always an argv[0].
            all.push(c"".as_ptr() as u64);
        }
        all
    }
}

/// Executes a file of the host's kernel.
fn direct(task: &mut Task, program: &Program, guest: &[u64], envp: u64) -> SysResult {
    if program.name.to_bytes().starts_with(b"/dev/fd/") {
        return call(task, program.fd.0, c"", &program.arguments(guest), envp);
    }
    let name = paths::of_translator(task, &program.name);
    call(task, AT_FDCWD as u64, &name, &program.arguments(guest), envp)
}

/// Executes an arm64 program under the emulator that runs us.
fn run_native(task: &mut Task, program: &Program, guest: &[u64], envp: u64) -> SysResult {
    let Some((runner, words)) = runner(task) else { return Err(errno::ENOENT) };
    let name = paths::of_translator(task, &program.name);
    let arguments = program.arguments(guest);
    let command = words.iter().map(|word| word.as_ptr() as u64);
    let all: Vec<u64> =
        command.chain([name.as_ptr() as u64]).chain(arguments.iter().skip(1).copied()).collect();
    call(task, AT_FDCWD as u64, &runner, &all, envp)
}

/// Executes the translator on an x86_64 program.
fn translate(task: &mut Task, program: &Program, guest: &[u64], envp: u64) -> SysResult {
    let arguments = program.arguments(guest);
    let options = &task.runtime().options;
    let owned = |bytes: &[u8]| CString::new(bytes).map_err(|_| errno::EINVAL);
    let mut words = Vec::new();
    let runner = runner(task);
    match (&runner, SELF_PATH.get()) {
        (Some((_, command)), Some(path)) => {
            words.extend(command.iter().cloned());
            words.push(owned(path.as_os_str().as_bytes())?);
        }
        _ => words.push(owned(b"demotic")?),
    }
    for option in &options.child_args {
        words.push(owned(option.as_bytes())?);
    }
    words.push(owned(b"--exec-fd")?);
    words.push(owned(program.fd.0.to_string().as_bytes())?);
    words.push(owned(b"--argv0")?);
    let tail = [c"--".as_ptr() as u64, program.name.as_ptr() as u64];
    let command = words.iter().map(|word| word.as_ptr() as u64);
    let all: Vec<u64> =
        command.chain([arguments[0]]).chain(tail).chain(arguments[1..].iter().copied()).collect();
    keep_over_exec(&program.fd);
    match &runner {
        Some((path, _)) => call(task, AT_FDCWD as u64, path, &all, envp),
        None => call(task, SELF.load(Ordering::Relaxed) as u64, c"", &all, envp),
    }
}

/// Lets a descriptor survive the exec; if that fails it is closed with its owner.
fn keep_over_exec(fd: &Fd) {
    // SAFETY: changes flags of our own descriptor.
    unsafe { libc::fcntl(fd.0 as i32, libc::F_SETFD, 0) };
}

/// The runner's path, looked up as execvp(3) does, and its words.
fn runner(task: &Task) -> Option<(CString, Vec<CString>)> {
    let words: Vec<CString> = task
        .runtime()
        .options
        .runner
        .iter()
        .map(|w| CString::new(w.as_bytes()).ok())
        .collect::<Option<_>>()?;
    let first = words.first()?.clone();
    if first.to_bytes().contains(&b'/') {
        return Some((first, words));
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    let found = std::env::split_paths(&path)
        .map(|dir| dir.join(words[0].to_str().unwrap_or_default()))
        .find(|f| f.is_file())?;
    Some((CString::new(found.as_os_str().as_bytes()).ok()?, words))
}

/// The host's call, with the guest's signal mask and dispositions as they are inherited.
fn call(task: &mut Task, dirfd: u64, path: &CStr, arguments: &[u64], envp: u64) -> SysResult {
    let mut argv = arguments.to_vec();
    argv.push(0);
    let flags = if path.is_empty() { AT_EMPTY_PATH } else { 0 };
    signal::before_exec(task)?;
    let result = task.host_call(
        nr::execveat,
        [dirfd, path.as_ptr() as u64, argv.as_ptr() as u64, envp, flags, 0],
    );
    signal::after_failed_exec(task);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elf(class: u8, machine: u16) -> Vec<u8> {
        let mut head = vec![0; 64];
        head[..4].copy_from_slice(b"\x7fELF");
        head[4..6].copy_from_slice(&[class, 1]);
        head[18..20].copy_from_slice(&machine.to_le_bytes());
        head
    }

    fn script(interpreter: &str, argument: Option<&str>) -> Format {
        Format::Script(
            CString::new(interpreter).unwrap(),
            argument.map(|a| CString::new(a).unwrap()),
        )
    }

    #[test]
    fn programs_by_their_first_bytes() {
        assert_eq!(Format::of(&elf(2, 62)), Format::Guest);
        assert_eq!(Format::of(&elf(2, 183)), Format::Host);
        // i386 and x32 are not translated and must not reach the machine we may be emulated on.
        assert_eq!(Format::of(&elf(1, 3)), Format::Foreign);
        assert_eq!(Format::of(&elf(1, 62)), Format::Foreign);
        assert_eq!(Format::of(b"\x7fELF"), Format::Foreign);
        assert_eq!(Format::of(b"MZ"), Format::Host);
        assert_eq!(Format::of(b""), Format::Host);
    }

    #[test]
    fn interpreter_lines_as_the_kernel_reads_them() {
        assert_eq!(Format::of(b"#!/bin/sh\necho"), script("/bin/sh", None));
        assert_eq!(Format::of(b"#! /bin/sh -e -x \necho"), script("/bin/sh", Some("-e -x")));
        assert_eq!(
            Format::of(b"#!\t/usr/bin/env\tpython3\n"),
            script("/usr/bin/env", Some("python3"))
        );
        assert_eq!(Format::of(b"#!/bin/sh"), script("/bin/sh", None));
        assert_eq!(Format::of(b"#!/bin/sh -e\r\n"), script("/bin/sh", Some("-e\r")));
        assert_eq!(Format::of(b"#!   \n"), Format::Broken);
        assert_eq!(Format::of(b"#!"), Format::Broken);
        let mut long = b"#!/".to_vec();
        long.resize(HEAD, b'x');
        assert_eq!(Format::of(&long), Format::Broken);
        long[100] = b' ';
        assert!(matches!(Format::of(&long), Format::Script(..)));
    }

    #[test]
    fn scripts_change_the_arguments() {
        let text =
            |words: &[&str]| words.iter().map(|w| CString::new(*w).unwrap()).collect::<Vec<_>>();
        let plain =
            Program { fd: Fd(u64::MAX), name: CString::default(), prefix: vec![], scripted: false };
        assert_eq!(plain.arguments(&[1, 2]), [1, 2]);
        assert_eq!(plain.arguments(&[]).len(), 1);
        let script = Program {
            fd: Fd(u64::MAX),
            name: CString::default(),
            prefix: text(&["/bin/sh", "s"]),
            scripted: true,
        };
        assert_eq!(script.arguments(&[1, 2])[2..], [2]);
        assert_eq!(script.arguments(&[]).len(), 2);
    }
}
