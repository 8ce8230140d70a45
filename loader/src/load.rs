//! Puts a program, its interpreter, the vDSO and the initial stack into the guest's memory.

use crate::elf::{self, FileSource, LoadPlan, PAGE, Step, page_down, page_up};
use crate::error::LoadError;
use crate::stack::{self, InitialStack, at};
use crate::vdso;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use syscalls::host::Errno;
use syscalls::memory::{Map, Memory};

const NO_ACCESS: u32 = libc::PROT_NONE as u32;
const READ_WRITE: u32 = (libc::PROT_READ | libc::PROT_WRITE) as u32;
const READ_EXECUTE: u32 = (libc::PROT_READ | libc::PROT_EXEC) as u32;
const EXECUTE: u32 = libc::PROT_EXEC as u32;

/// MAP_* have the same values on both architectures.
const PRIVATE: u32 = libc::MAP_PRIVATE as u32;
const ANONYMOUS: u32 = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u32;
const FIXED: u32 = libc::MAP_FIXED as u32;
const FIXED_NOREPLACE: u32 = libc::MAP_FIXED_NOREPLACE as u32;
const NORESERVE: u32 = libc::MAP_NORESERVE as u32;

/// Where x86_64 Linux loads position-independent programs (ELF_ET_DYN_BASE, two thirds of the
/// address space), and how far its randomisation goes (mmap_rnd_bits is 28 there).
const PIE_BASE: u64 = 0x5555_5555_4000;
const PIE_RANDOM_PAGES: u64 = 1 << 28;

/// The stack of a process without a limit: it is mapped whole and mappings begin below it.
const STACK_MAX: u64 = 128 << 20;
const STACK_DEFAULT: u64 = 8 << 20;
/// What the kernel allows for arguments and environment whatever the limit (ARG_MAX).
const ARGUMENTS_MIN: u64 = 128 << 10;

/// A program in memory.
pub struct Loaded {
    /// Where execution starts: in the interpreter, if there is one.
    pub rip: u64,
    /// What the auxiliary vector says about the program.
    pub auxv: Vec<(u64, u64)>,
    /// Whether the program wants an executable stack.
    pub executable_stack: bool,
}

/// What the caller decides about loading.
pub struct Request<'a> {
    /// The guest's memory.
    pub memory: &'a Memory,
    /// The open program.
    pub program: &'a File,
    /// Where x86_64 files are looked for first.
    pub sysroot: Option<&'a Path>,
    /// Levels of the instruction set that are there.
    pub isa: elf::IsaMask,
    /// Random bits for the base address; 0 for the fixed one.
    pub random: u64,
}

/// Loads the program and its interpreter.
pub fn program(request: &Request) -> Result<Loaded, LoadError> {
    let memory = request.memory;
    let plan = read_plan(request.program)?;
    check_isa(plan.isa_needed, request.isa)?;
    // Everything that can be wrong with the interpreter is found before memory changes.
    let interpreter = read_interpreter(&plan, request.sysroot)?;

    let offset = request.random % PIE_RANDOM_PAGES * PAGE;
    let bias = place(memory, &plan, request.program, PIE_BASE + offset, "the program")?;
    memory.set_brk(plan.brk.wrapping_add(bias));
    let entry = plan.entry.wrapping_add(bias);
    let (base, rip) = match &interpreter {
        Some((file, interpreter)) => {
            let bias = place(memory, interpreter, file, 0, "its interpreter")?;
            (interpreter.span.start.wrapping_add(bias), interpreter.entry.wrapping_add(bias))
        }
        None => (0, entry),
    };
    let auxv = vec![
        (at::PHDR, plan.phdr.map_or(0, |address| address.wrapping_add(bias))),
        (at::PHENT, 56),
        (at::PHNUM, plan.phnum.into()),
        (at::BASE, base),
        (at::ENTRY, entry),
    ];
    Ok(Loaded { rip, auxv, executable_stack: plan.executable_stack })
}

/// Whether a program and its interpreter are such as can be loaded: what execve(2) looks at while it can still fail.
pub fn check(program: &File, sysroot: Option<&Path>) -> Result<(), LoadError> {
    let Some(path) = read_plan(program)?.interpreter else { return Ok(()) };
    let file = open_interpreter(&path, sysroot)?;
    let checked = interpreter_like_the_kernel(&file).and_then(|()| read_plan(&file));
    checked.map_err(|error| LoadError::Interpreter(path, Box::new(error))).map(|_| ())
}

/// An interpreter is a regular file, for somebody to execute (open_exec), with room for a header (load_elf_binary).
fn interpreter_like_the_kernel(file: &File) -> Result<(), LoadError> {
    let metadata = file.metadata().map_err(LoadError::Read)?;
    if !metadata.is_file() || metadata.permissions().mode() & 0o111 == 0 {
        return Err(LoadError::Open(io::Error::from_raw_os_error(libc::EACCES)));
    }
    if metadata.len() < elf::EHDR_SIZE as u64 {
        return Err(LoadError::Read(io::Error::from_raw_os_error(libc::EIO)));
    }
    Ok(())
}

/// The interpreter that a plan names.
fn read_interpreter(
    plan: &LoadPlan,
    sysroot: Option<&Path>,
) -> Result<Option<(File, LoadPlan)>, LoadError> {
    let Some(path) = &plan.interpreter else { return Ok(None) };
    let file = open_interpreter(path, sysroot)?;
    match read_plan(&file) {
        Ok(plan) => Ok(Some((file, plan))),
        Err(error) => Err(LoadError::Interpreter(path.clone(), Box::new(error))),
    }
}

fn read_plan(file: &File) -> Result<LoadPlan, LoadError> {
    let metadata = file.metadata().map_err(LoadError::Read)?;
    if metadata.is_dir() {
        return Err(LoadError::Directory);
    }
    elf::plan(&FileSource { file, len: metadata.len() })
}

/// Refuses a program that needs a higher microarchitecture level than there is.
fn check_isa(needed: elf::IsaMask, available: elf::IsaMask) -> Result<(), LoadError> {
    if needed & !available == 0 {
        return Ok(());
    }
    let level = |mask: elf::IsaMask| u32::BITS - mask.leading_zeros();
    Err(LoadError::Isa { needs: level(needed), has: level(available) })
}

/// Opens the interpreter: below the sysroot, else at its own path.
fn open_interpreter(path: &Path, sysroot: Option<&Path>) -> Result<File, LoadError> {
    let below = sysroot.and_then(|root| open_in_root(root, path).ok());
    below.map_or_else(|| File::open(path), Ok).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => LoadError::NoInterpreter(path.to_owned()),
        _ => LoadError::Interpreter(path.to_owned(), Box::new(LoadError::Open(error))),
    })
}

/// Opens `path` as if `root` were the root directory, so that absolute symbolic links stay inside
/// (openat2(2), RESOLVE_IN_ROOT; Linux 5.6), or plainly below it on older kernels.
fn open_in_root(root: &Path, path: &Path) -> io::Result<File> {
    let directory = File::open(root)?;
    let mut c_path = path.as_os_str().as_bytes().to_vec();
    c_path.push(0);
    // SAFETY: all-zero is a valid open_how.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = (libc::O_RDONLY | libc::O_CLOEXEC) as u64;
    how.resolve = libc::RESOLVE_IN_ROOT;
    // SAFETY: the path is null-terminated and the structure has the size given.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_openat2,
            directory.as_raw_fd(),
            c_path.as_ptr(),
            &how,
            size_of_val(&how),
        )
    };
    if fd >= 0 {
        // SAFETY: the descriptor is new and nobody else's.
        return Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) }.into());
    }
    match io::Error::last_os_error() {
        error if error.raw_os_error() == Some(libc::ENOSYS) => {
            File::open(root.join(path.strip_prefix("/").unwrap_or(path)))
        }
        error => Err(error),
    }
}

/// Executes a plan; gives the difference between addresses in memory and in the file.
fn place(
    memory: &Memory,
    plan: &LoadPlan,
    file: &File,
    hint: u64,
    what: &'static str,
) -> Result<u64, LoadError> {
    let failed = |error: Errno| LoadError::Map { what, error: io_error(error) };
    let start = reserve(memory, plan, hint).map_err(failed)?;
    let bias = start.wrapping_sub(plan.span.start);
    plan.steps.iter().try_for_each(|step| execute(memory, step, file, bias)).map_err(failed)?;
    Ok(bias)
}

/// Finds room for all segments, at `hint` if possible, and leaves it free.
fn reserve(memory: &Memory, plan: &LoadPlan, hint: u64) -> Result<u64, Errno> {
    let size = plan.span.end - plan.span.start;
    let map = |addr, len, flags| {
        let flags = ANONYMOUS | NORESERVE | flags;
        let addr = memory.map(&Map {
            addr,
            len,
            prot: NO_ACCESS,
            flags,
            fd: -1,
            offset: 0,
            name: None,
        })?;
        memory.unmap(addr, len)?;
        Ok(addr)
    };
    if !plan.relocatable {
        return map(plan.span.start, size, FIXED_NOREPLACE);
    }
    let hint = hint & !(plan.align - 1);
    if hint != 0
        && let Ok(address) = map(hint, size, FIXED_NOREPLACE)
    {
        return Ok(address);
    }
    let spare = plan.align - PAGE;
    let address = map(0, size + spare, 0)?;
    Ok((address + spare) & !(plan.align - 1))
}

/// Does one step of a plan.
fn execute(memory: &Memory, step: &Step, file: &File, bias: u64) -> Result<(), Errno> {
    match *step {
        Step::File { addr, len, offset, prot } => {
            let addr = addr.wrapping_add(bias);
            let fd = file.as_raw_fd();
            memory.map(&Map { addr, len, prot, flags: PRIVATE | FIXED, fd, offset, name: None })?;
        }
        Step::Anonymous { addr, len, prot } => {
            let addr = addr.wrapping_add(bias);
            let flags = ANONYMOUS | FIXED;
            memory.map(&Map { addr, len, prot, flags, fd: -1, offset: 0, name: None })?;
        }
        Step::Zero { addr, len, prot } => {
            let addr = addr.wrapping_add(bias);
            let writable = prot & READ_WRITE == READ_WRITE;
            let page = page_down(addr);
            if !writable {
                memory.protect(page, PAGE, READ_WRITE)?;
            }
            // SAFETY: an earlier step mapped this page for the guest, and it is writable now.
            unsafe { std::ptr::write_bytes(addr as *mut u8, 0, len as usize) };
            if !writable {
                memory.protect(page, PAGE, prot)?;
            }
        }
    }
    Ok(())
}

/// Maps the vDSO; gives its address.
pub fn vdso(memory: &Memory) -> Result<u64, LoadError> {
    let failed = |error: Errno| LoadError::Map { what: "the vDSO", error: io_error(error) };
    let map = Map {
        addr: 0,
        len: vdso::IMAGE.len() as u64,
        prot: READ_WRITE,
        flags: ANONYMOUS,
        fd: -1,
        offset: 0,
        name: Some("[vdso]"),
    };
    let address = memory.map(&map).map_err(failed)?;
    // SAFETY: the mapping is new, writable, and as long as the image.
    unsafe { copy_in(vdso::IMAGE, address) };
    memory.protect(address, map.len, READ_EXECUTE).map_err(failed)?;
    Ok(address)
}

/// Maps the stack and fills its top.
pub fn stack(
    memory: &Memory,
    contents: &stack::Contents,
    executable: bool,
) -> Result<InitialStack, LoadError> {
    let top = memory.stack_top();
    let stack = stack::build(top, contents);
    let (has, size) = (stack.bytes.len() as u64, stack_size());
    let limit = (size / 4).max(ARGUMENTS_MIN);
    if has > limit {
        return Err(LoadError::ArgumentsTooLong { has, limit });
    }
    let prot = READ_WRITE | if executable { EXECUTE } else { 0 };
    let map = |len| {
        let flags = ANONYMOUS | NORESERVE | FIXED_NOREPLACE;
        memory.map(&Map {
            addr: top - len,
            len,
            prot,
            flags,
            fd: -1,
            offset: 0,
            name: Some("[stack]"),
        })
    };
    map(size)
        .or_else(|_| map(page_up(has + STACK_DEFAULT)))
        .map_err(|error| LoadError::Map { what: "the stack", error: io_error(error) })?;
    // SAFETY: the mapping just made ends at `top` and is longer than the bytes.
    unsafe { copy_in(&stack.bytes, stack.sp) };
    Ok(stack)
}

/// The size of the stack: the soft limit, within reason.
fn stack_size() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the call fills the structure.
    let known = unsafe { libc::getrlimit(libc::RLIMIT_STACK, &mut limit) } == 0;
    let size = if known { limit.rlim_cur } else { STACK_DEFAULT };
    page_up(size.clamp(2 * ARGUMENTS_MIN, STACK_MAX))
}

/// Copies bytes to the guest.
///
/// # Safety
/// The destination is mapped writable for the guest and holds nothing of the translator's.
unsafe fn copy_in(bytes: &[u8], address: u64) {
    // SAFETY: as the caller promises.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), address as *mut u8, bytes.len()) };
}

fn io_error(error: Errno) -> io::Error {
    io::Error::from_raw_os_error(error.0)
}

/// The path /proc/self/exe shall name: that of the open file, if /proc is there.
pub fn resolved_path(file: &File, given: &Path) -> PathBuf {
    std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))
        .or_else(|_| std::fs::canonicalize(given))
        .unwrap_or_else(|_| given.to_owned())
}
