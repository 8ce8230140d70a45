//! execve(2) and execveat(2). What the guest executes is translated too: the host's call is made on the
//! translator, which gets the program as an open descriptor. `#!` is resolved here.
//! Every error is found before anything of the old program is lost.

mod by_kernel;

pub use by_kernel::{is_descriptor, name_for_guest};

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::abi::{AT_FDCWD, AT_SYMLINK_NOFOLLOW, errno};
use crate::host::{self, Errno, SysResult};
use crate::inherit::{self, Handover, Role};
use crate::inode::Inode;
use crate::memmap::PAGE;
use crate::memory::host_page_size;
use crate::runtime::Options;
use crate::table::host as nr;
use crate::task::Task;
use crate::{fds, guest, log, paths, proc_fs, seccomp, signal, strace};

const AT_EMPTY_PATH: u64 = 0x1000;
const AT_EACCESS: u64 = 0x200;
const AT_EXECVE_CHECK: u64 = 0x10000;

/// Bytes of a file that decide how it is executed (BINPRM_BUF_SIZE).
const HEAD: usize = 256;
/// How many interpreters may be interpreted themselves (exec_binprm).
const MAX_INTERPRETERS: usize = 5;

/// The file name of the translator's program, for a runner.
static OWN_NAME: OnceLock<CString> = OnceLock::new();

/// Opens what will be executed for the guest's programs while it can be found: the guest may change its root. What
/// this process's parent opened stays.
pub(crate) fn start(options: &Options) {
    let open = |role, path: &Path| {
        let held = || inherit::hold(role, File::open(path).ok()?.as_raw_fd());
        // Where the kernel starts translators, none is needed but in rare cases.
        if inherit::get(role).or_else(held).is_none() && options.binfmt.is_none() {
            log::warn(format_args!(
                "{} cannot be opened: no program can be executed",
                path.display()
            ));
        }
    };
    let own = Path::new("/proc/self/exe");
    let Some(runner) = options.runner.first() else {
        return open(Role::Translator, own);
    };
    open(Role::Runner, &find(Path::new(runner)));
    let own = match inherit::get(Role::Folder) {
        // As `translate` calls it.
        Some(_) => std::env::args_os().next().unwrap_or_default().into(),
        None => std::fs::read_link(own).unwrap_or_default(),
    };
    let name = own.file_name().and_then(|name| CString::new(name.as_bytes()).ok());
    // Set once: there is one start.
    let _ = OWN_NAME.set(name.unwrap_or_default());
    open(Role::Folder, own.parent().unwrap_or(Path::new("/")));
}

/// Device and inode of what /proc/self/exe leads to, the translator's program or its runner's; and of what the
/// runner opens in place of itself, the translator's program.
pub(crate) fn own_files() -> [Option<(u64, u64)>; 2] {
    static FILES: OnceLock<[Option<(u64, u64)>; 2]> = OnceLock::new();
    let held = |role| Inode::of(inherit::get(role)? as u64).map(|inode| inode.file);
    *FILES.get_or_init(|| {
        let Some(runner) = held(Role::Runner) else { return [held(Role::Translator), None] };
        let mut stat = std::mem::MaybeUninit::<libc::stat>::zeroed();
        let (folder, name) = (inherit::get(Role::Folder).unwrap_or(-1), OWN_NAME.get());
        // SAFETY: the name is null-terminated and the structure is ours; all zero is a valid one.
        let stat = unsafe {
            let name = name.map_or(c"".as_ptr(), |name| name.as_ptr());
            (libc::fstatat(folder, name, stat.as_mut_ptr(), 0) == 0).then(|| stat.assume_init())
        };
        [Some(runner), stat.map(|stat| (stat.st_dev, stat.st_ino))]
    })
}

/// Where a program is, looked up as execvp(3) does.
fn find(program: &Path) -> PathBuf {
    let list = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    let bare = !program.as_os_str().as_bytes().contains(&b'/');
    let found =
        std::env::split_paths(&list).map(|dir| dir.join(program)).find(|file| file.is_file());
    found.filter(|_| bare).unwrap_or_else(|| program.to_owned())
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
    /// An arm64 ELF program.
    Arm64,
    /// Something that the host's kernel may know.
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
            (Some(class), Some(EM_AARCH64)) if *class == CLASS64_LITTLE => Self::Arm64,
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
    /// What the guest executes, as the program may see it (AT_EXECFN).
    filename: CString,
    /// The file of `fd`: that, or an interpreter.
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
pub fn execveat(task: &mut Task, call: [u64; 6]) -> SysResult {
    let [dirfd, path, argv, envp, flags, _] = call;
    // Apart from the task, which is needed meanwhile.
    let thread = task.seccomp.same();
    let _filters = seccomp::handover::ready(&thread)?;
    if flags & !(AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW | AT_EXECVE_CHECK) != 0 {
        return Err(errno::EINVAL);
    }
    let options = &task.runtime().options;
    // What is watched stays so, whatever becomes of the environment that the kernel would hand over.
    let by_kernel =
        options.binfmt.is_some() && options.runner.is_empty() && options.strace.is_none();
    if by_kernel && options.sysroot.is_none() {
        return by_kernel::execveat(task, call);
    }
    let mut program = open_guest(task, dirfd, path, flags)?;
    check_strings([argv, envp])?;
    if flags & AT_EXECVE_CHECK != 0 {
        return Ok(0);
    }
    let arguments = pointers(argv)?;
    let format = resolve_scripts(task, &mut program, dirfd)?;
    match format {
        Format::Guest if by_kernel && !program.is_hidden(dirfd) => {
            direct(task, &program, &arguments, call)
        }
        Format::Guest => {
            (options.loadable)(program.fd.0 as RawFd, options)?;
            translate(task, &program, &arguments, envp)
        }
        Format::Host | Format::Arm64 if task.seccomp.is_on() => Err(seccomp::refuse_native()),
        Format::Host if options.runner.is_empty() => direct(task, &program, &arguments, call),
        Format::Arm64 if options.runner.is_empty() => direct(task, &program, &arguments, call),
        Format::Arm64 => run_native(task, &program, &arguments, envp),
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
            pointer => list.push(guest::for_kernel(pointer)),
        }
    }
}

/// Arguments and environment that a kernel with pages of 4 KiB refuses. One with larger pages takes longer strings.
fn check_strings(arrays: [u64; 2]) -> Result<(), Errno> {
    if host_page_size() > PAGE && arrays.into_iter().any(holds_long_string) {
        return Err(errno::E2BIG);
    }
    Ok(())
}

/// Whether a string of an array is longer than MAX_ARG_STRLEN. What cannot be read is the kernel's to refuse.
fn holds_long_string(array: u64) -> bool {
    const MAX: u64 = 32 * PAGE;
    pointers(array).is_ok_and(|all| {
        all.iter().any(|&at| guest::read_cstr(at, MAX as usize) == Err(errno::E2BIG))
    })
}

/// The guest's array of strings as the kernel gets it: nowhere, if one of them cannot be a guest's. (A copy of the
/// array would stay in the memory of a parent that waits in vfork(2).)
fn strings_for_kernel(array: u64) -> u64 {
    let strings = (array..).step_by(8).map_while(|at| guest::read::<u64>(at).ok());
    let bad = |&string: &u64| string != guest::for_kernel(string);
    if strings.take_while(|&string| string != 0).any(|string| bad(&string)) {
        return guest::NOWHERE;
    }
    array
}

/// Opens the file that the guest names.
fn open_guest(task: &mut Task, dirfd: u64, path: u64, flags: u64) -> Result<Program, Errno> {
    let text = paths::read(path)?;
    if text.is_empty() {
        if flags & AT_EMPTY_PATH == 0 {
            return Err(errno::ENOENT);
        }
        let name = CString::new(format!("/dev/fd/{}", dirfd as i32)).expect("no null inside");
        return Ok(Program::new(open_descriptor(task, dirfd)?, name));
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
    Ok(Program::new(fd, name))
}

/// Opens a file by its path, for execution.
fn open(task: &mut Task, dirfd: u64, path: u64, extra: i32) -> Result<Fd, Errno> {
    let flags = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY | extra;
    let opened = task.host_call(nr::openat, [dirfd, path, flags as u64, 0, 0, 0])?;
    let fd = Fd(proc_fs::opened(task, opened, dirfd, path, flags as u64)?);
    check_executable(task, &fd)?;
    Ok(fd)
}

/// Opens the file of a descriptor of the guest's, for execution. One that can be read is duplicated, because /proc
/// may not be there to open it anew; its file offset is not used.
fn open_descriptor(task: &mut Task, fd: u64) -> Result<Fd, Errno> {
    if fds::is_kept(fd as i32) {
        return Err(errno::EBADF);
    }
    let fcntl =
        |task: &mut Task, command: i32| task.host_call(nr::fcntl, [fd, command as u64, 0, 0, 0, 0]);
    let flags = fcntl(task, libc::F_GETFL)? as i32;
    if flags & libc::O_PATH != 0 || flags & libc::O_ACCMODE == libc::O_WRONLY {
        let link = CString::new(format!("/proc/self/fd/{}", fd as i32)).expect("no null inside");
        return open(task, AT_FDCWD as u64, link.as_ptr() as u64, 0);
    }
    let fd = Fd(fcntl(task, libc::F_DUPFD_CLOEXEC)?);
    check_executable(task, &fd)?;
    Ok(fd)
}

/// Only regular files are executed, and only by those who may.
fn check_executable(task: &mut Task, fd: &Fd) -> Result<(), Errno> {
    if !Inode::of(fd.0).is_some_and(|inode| inode.is(libc::S_IFREG)) {
        return Err(errno::EACCES);
    }
    let empty = c"".as_ptr() as u64;
    let argv = [empty, 0];
    // The kernel's own word on it: permissions, `noexec`, open for writing, too many processes.
    let flags = AT_EMPTY_PATH | AT_EXECVE_CHECK;
    match task.host_call(nr::execveat, [fd.0, empty, argv.as_ptr() as u64, 0, flags, 0]) {
        // Kernels before 6.14.
        Err(errno::EINVAL | errno::ENOSYS) => may_execute(task, fd),
        other => other.map(|_| ()),
    }
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
        if depth == 0 && program.is_hidden(dirfd) {
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
    fn new(fd: Fd, filename: CString) -> Self {
        let name = filename.clone();
        Self { fd, filename, name, prefix: Vec::new(), scripted: false }
    }

    /// Whether an interpreter could not open what the guest executes: its name goes through `dirfd`, which is closed
    /// on exec (BINPRM_FLAGS_PATH_INACCESSIBLE).
    fn is_hidden(&self, dirfd: u64) -> bool {
        self.filename.to_bytes().starts_with(b"/dev/fd/") && closes_on_exec(dirfd)
    }

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

/// Leaves it to the host's kernel: the guest's own call, unless an interpreter was found for it.
fn direct(task: &mut Task, program: &Program, guest: &[u64], guest_call: [u64; 6]) -> SysResult {
    let [dirfd, path, _, envp, flags, _] = guest_call;
    let arguments = program.arguments(guest);
    if program.scripted {
        let name = paths::of_translator(task, &program.name);
        return call(task, AT_FDCWD as u64, name.as_ptr() as u64, &arguments, envp, 0);
    }
    let host = paths::translate(task, dirfd as i32, path, flags & AT_SYMLINK_NOFOLLOW == 0)?;
    call(task, dirfd, host.addr(), &arguments, envp, flags)
}

/// Executes an arm64 program under the emulator that runs us.
fn run_native(task: &mut Task, program: &Program, guest: &[u64], envp: u64) -> SysResult {
    let name = paths::of_translator(task, &program.name);
    let arguments = program.arguments(guest);
    let mut words = runner_words(task)?;
    words.push(name);
    let command = words.iter().map(|word| word.as_ptr() as u64);
    let all: Vec<u64> = command.chain(arguments.iter().skip(1).copied()).collect();
    call_held(task, Role::Runner, &all, envp)
}

/// Executes the translator on an x86_64 program.
fn translate(task: &mut Task, program: &Program, guest: &[u64], envp: u64) -> SysResult {
    let arguments = program.arguments(guest);
    let options = &task.runtime().options;
    let runner = !options.runner.is_empty();
    let from = if runner { Some(enter_own_folder()?) } else { None };
    let directory = from.as_ref().map(|from| from.fd.0 as RawFd);
    let handover = Handover::new(directory, task.seccomp.handed_over());
    let mut words = if runner { runner_words(task)? } else { Vec::new() };
    words.push(match OWN_NAME.get() {
        Some(name) => owned(&[b"./", name.to_bytes()].concat())?,
        None => c"demotic".to_owned(),
    });
    for option in &options.child_args {
        words.push(owned(option.as_bytes())?);
    }
    words.push(owned(format!("--inherit={}", handover.list()).as_bytes())?);
    words.push(owned(format!("--exec-fd={}", program.fd.0).as_bytes())?);
    words.push(c"--argv0".to_owned());
    let tail = [c"--".as_ptr() as u64, program.filename.as_ptr() as u64];
    let command = words.iter().map(|word| word.as_ptr() as u64);
    let all: Vec<u64> =
        command.chain([arguments[0]]).chain(tail).chain(arguments[1..].iter().copied()).collect();
    keep_over_exec(&program.fd);
    call_held(task, if runner { Role::Runner } else { Role::Translator }, &all, envp)
}

fn owned(bytes: &[u8]) -> Result<CString, Errno> {
    CString::new(bytes).map_err(|_| errno::EINVAL)
}

/// Lets a descriptor survive the exec; if that fails it is closed with its owner.
fn keep_over_exec(fd: &Fd) {
    // SAFETY: changes flags of our own descriptor.
    unsafe { libc::fcntl(fd.0 as i32, libc::F_SETFD, 0) };
}

/// The words of the runner's command.
fn runner_words(task: &Task) -> Result<Vec<CString>, Errno> {
    task.runtime().options.runner.iter().map(|word| owned(word.as_bytes())).collect()
}

/// The current directory, to be gone back to when this is dropped.
struct Directory {
    fd: Fd,
}

/// Makes the translator's own folder the current one. A runner wants a path of the translator, and there may be
/// none below the guest's root, but a relative path goes from any folder.
fn enter_own_folder() -> Result<Directory, Errno> {
    let folder = inherit::get(Role::Folder).ok_or(errno::ENOENT)?;
    // SAFETY: opens a folder by a literal name, and changes into an open one.
    let (here, entered) =
        unsafe { (libc::open(c".".as_ptr(), libc::O_PATH), libc::fchdir(folder)) };
    match (u64::try_from(here).map(Fd), entered) {
        (Ok(fd), 0) => Ok(Directory { fd }),
        _ => Err(Errno(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))),
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // SAFETY: changes into a folder that was open before.
        unsafe { libc::fchdir(self.fd.0 as i32) };
    }
}

/// Executes a program that is held open.
fn call_held(task: &mut Task, role: Role, arguments: &[u64], envp: u64) -> SysResult {
    let fd = inherit::get(role).ok_or(errno::ENOENT)?;
    call(task, fd as u64, c"".as_ptr() as u64, arguments, envp, AT_EMPTY_PATH)
}

/// The host's call, with the guest's signal mask and dispositions as they are inherited.
fn call(
    task: &mut Task,
    dirfd: u64,
    path: u64,
    arguments: &[u64],
    envp: u64,
    flags: u64,
) -> SysResult {
    let mut argv = arguments.to_vec();
    argv.push(0);
    host_exec(task, [dirfd, path, argv.as_ptr() as u64, envp, flags, 0])
}

/// The same, with all its arguments as they go to the kernel.
fn host_exec(task: &mut Task, mut args: [u64; 6]) -> SysResult {
    args[3] = strings_for_kernel(args[3]);
    signal::before_exec(task)?;
    strace::executes(task);
    let result = task.host_call(nr::execveat, args);
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
        assert_eq!(Format::of(&elf(2, 183)), Format::Arm64);
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
    fn strings_as_long_as_a_kernel_with_small_pages_takes_them() {
        let long = |len: usize| CString::new(vec![b'x'; len]).unwrap();
        let strings = [long(3), long(32 * 4096 - 1), long(32 * 4096)];
        let mut array = strings.each_ref().map(|string| string.as_ptr() as u64);
        let at = |array: &[u64]| array.as_ptr() as u64;
        assert!(!holds_long_string(0));
        array[2] = 0;
        assert!(!holds_long_string(at(&array)));
        array = [array[0], strings[2].as_ptr() as u64, 0];
        assert!(holds_long_string(at(&array)));
    }

    #[test]
    fn scripts_change_the_arguments() {
        let text =
            |words: &[&str]| words.iter().map(|w| CString::new(*w).unwrap()).collect::<Vec<_>>();
        let plain = Program::new(Fd(u64::MAX), CString::default());
        assert_eq!(plain.arguments(&[1, 2]), [1, 2]);
        assert_eq!(plain.arguments(&[]).len(), 1);
        let mut script = Program::new(Fd(u64::MAX), CString::default());
        script.prefix = text(&["/bin/sh", "s"]);
        script.scripted = true;
        assert_eq!(script.arguments(&[1, 2])[2..], [2]);
        assert_eq!(script.arguments(&[]).len(), 2);
    }
}
