//! Host threads for guest threads. A guest's clone(2) becomes one of the host with the same flags, on
//! memory made here: a stack, an alternate signal stack, and the thread-local storage that compiled Rust
//! code and the C library's system call wrappers need.

use std::io;
use std::sync::OnceLock;

use crate::host::{self, SysResult};
use crate::memory::host_page_size;
use crate::runtime;
use crate::signal::{self, SignalSet};
use crate::strace;
use crate::table::host as nr;
use crate::task::Task;

/// Stack for Rust code; a translation of a large region is the most that happens there.
const STACK_SIZE: usize = 512 << 10;
/// Alternate stack for the host's signal handlers: frames have SVE registers.
const ALT_STACK_SIZE: usize = 64 << 10;
/// What the C library keeps below the thread pointer (struct pthread), zero.
const PRE_TCB_SIZE: usize = 4096;
/// The thread control block at the thread pointer: two words (ELF for the Arm 64-bit Architecture, TLS variant 1).
const TCB_SIZE: usize = 16;

/// Initial contents of the thread-local storage: the program's PT_TLS segment.
#[derive(Clone, Copy, Debug, Default)]
struct Template {
    start: usize,
    file_size: usize,
    memory_size: usize,
    align: usize,
}

static TEMPLATE: OnceLock<Template> = OnceLock::new();

/// Finds the template of the running program, which is the first object.
fn template() -> &'static Template {
    unsafe extern "C" fn visit(
        info: *mut libc::dl_phdr_info,
        _size: usize,
        data: *mut libc::c_void,
    ) -> i32 {
        // SAFETY: the C library passes a valid record; `data` is the template below.
        let (info, template) = unsafe { (&*info, &mut *data.cast::<Template>()) };
        // SAFETY: the program headers are mapped for as long as the program.
        let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
        if let Some(tls) = headers.iter().find(|h| h.p_type == libc::PT_TLS) {
            *template = Template {
                start: (info.dlpi_addr + tls.p_vaddr) as usize,
                file_size: tls.p_filesz as usize,
                memory_size: tls.p_memsz as usize,
                align: tls.p_align as usize,
            };
        }
        1
    }
    TEMPLATE.get_or_init(|| {
        let mut found = Template::default();
        // SAFETY: the callback fits the data it gets.
        unsafe { libc::dl_iterate_phdr(Some(visit), (&raw mut found).cast()) };
        found
    })
}

/// The memory of a host thread: from below, a guard, the stack, the alternate stack, the thread-local storage.
#[derive(Debug)]
pub struct Block {
    base: usize,
    size: usize,
    stack_top: usize,
    thread_pointer: usize,
}

impl Block {
    /// Memory for one more thread.
    pub fn new() -> io::Result<Self> {
        let template = template();
        let page = host_page_size() as usize;
        let align = template.align.max(TCB_SIZE);
        let tls_offset = TCB_SIZE.next_multiple_of(align);
        let stack_top = page + STACK_SIZE;
        let alt_top = stack_top + ALT_STACK_SIZE;
        let pointer = (alt_top + PRE_TCB_SIZE).next_multiple_of(align);
        let size = (pointer + tls_offset + template.memory_size).next_multiple_of(page);
        let base = map_stack(size, page)?;
        let block =
            Self { base, size, stack_top: base + stack_top, thread_pointer: base + pointer };
        let tls = (block.thread_pointer + tls_offset) as *mut u8;
        // SAFETY: the template is mapped; the block has room for it and is zero behind it.
        unsafe {
            std::ptr::copy_nonoverlapping(template.start as *const u8, tls, template.file_size)
        };
        Ok(block)
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: the block's thread has ended or never was.
        unsafe { libc::munmap(self.base as *mut _, self.size) };
    }
}

/// Maps memory whose lowest page is a guard.
fn map_stack(size: usize, page: usize) -> io::Result<usize> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a fresh mapping.
    let base = unsafe {
        libc::mmap(std::ptr::null_mut(), size, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0)
    };
    if base == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: inside the mapping made above.
    unsafe { libc::mprotect(base, page, libc::PROT_NONE) };
    Ok(base as usize)
}

/// Sets up the first thread: an alternate stack for the host's handlers.
pub(crate) fn start() -> io::Result<()> {
    let page = host_page_size() as usize;
    set_host_alt_stack(map_stack(page + ALT_STACK_SIZE, page)? + page + ALT_STACK_SIZE);
    template();
    Ok(())
}

/// Sets the calling thread's alternate stack for the host's handlers, by its top.
fn set_host_alt_stack(top: usize) {
    let stack = libc::stack_t {
        ss_sp: (top - ALT_STACK_SIZE) as *mut _,
        ss_flags: 0,
        ss_size: ALT_STACK_SIZE,
    };
    // SAFETY: the kernel reads the struct; the stack is the thread's for its lifetime.
    unsafe { host::syscall(nr::sigaltstack, [&raw const stack as u64, 0, 0, 0, 0, 0]) };
}

/// How a new host thread begins. The kernel has set its stack pointer; on the stack are a function and its argument.
#[cfg(target_arch = "aarch64")]
mod entry {
    core::arch::global_asm!(
        // x0..x4: arguments of the call, x5: its number; the child is on its own stack.
        ".globl demotic_clone",
        ".hidden demotic_clone",
        "demotic_clone:",
        "mov x8, x5",
        "svc #0",
        "cbz x0, 1f",
        "ret",
        "1: mov x29, #0",
        "mov x30, #0",
        "ldp x1, x0, [sp]",
        "br x1",
        // x0: address, x1: length of the memory to give back, which is the stack's; x2: exit status.
        ".globl demotic_leave",
        ".hidden demotic_leave",
        "demotic_leave:",
        "mov x19, x2",
        "mov x8, #215", // munmap
        "svc #0",
        "mov x0, x19",
        "mov x8, #93", // exit
        "svc #0",
        "brk #0",
    );

    unsafe extern "C" {
        pub fn demotic_clone(a: u64, b: u64, c: u64, d: u64, e: u64, nr: u64) -> i64;
        pub fn demotic_leave(base: usize, size: usize, status: u64) -> !;
    }
}

#[cfg(not(target_arch = "aarch64"))]
mod entry {
    pub unsafe fn demotic_clone(_: u64, _: u64, _: u64, _: u64, _: u64, _: u64) -> i64 {
        -i64::from(libc::ENOSYS)
    }

    pub unsafe fn demotic_leave(_base: usize, _size: usize, _status: u64) -> ! {
        unreachable!("there are no guest threads without an arm64 kernel")
    }
}

impl Block {
    /// Starts a host thread on this memory by the given call, whose arguments name [`Self::stack`] and
    /// [`Self::thread_pointer`]. The thread calls `run` with `task`.
    ///
    /// # Safety
    /// The call is clone(2) or clone3(2) with CLONE_VM and CLONE_SETTLS; `task` is left to the new thread.
    pub(crate) unsafe fn spawn(&self, nr: u64, args: [u64; 5], task: *mut Task) -> SysResult {
        let start = self.stack() as *mut u64;
        // SAFETY: the top of this block's stack, which nobody uses yet.
        unsafe {
            *start = first_steps as *const () as u64;
            *start.add(1) = task as u64;
        }
        let [a, b, c, d, e] = args;
        // SAFETY: the caller's promise; the child never returns into this frame.
        host::result(unsafe { entry::demotic_clone(a, b, c, d, e, nr) })
    }

    /// Initial stack pointer.
    pub(crate) fn stack(&self) -> u64 {
        self.stack_top as u64 - 16
    }

    /// Bottom of the stack, for clone3(2).
    pub(crate) fn stack_base(&self) -> u64 {
        self.base as u64
    }

    /// The thread pointer.
    pub(crate) fn thread_pointer(&self) -> u64 {
        self.thread_pointer as u64
    }
}

/// The first function of a new host thread. All signals are blocked.
extern "C" fn first_steps(task: *mut Task) -> ! {
    // SAFETY: `spawn` passes the task that is this thread's from now on.
    let task = unsafe { &mut *task };
    if let Some(block) = &task.block {
        set_host_alt_stack(block.stack_top + ALT_STACK_SIZE);
    }
    task.inbox.adopt(&mut task.cpu);
    signal::set_host_mask(task.mask.for_host());
    runtime::run(task)
}

/// exit(2): ends the calling thread.
pub fn exit(task: &mut Task, [status, ..]: [u64; 6]) -> SysResult {
    let runtime = task.runtime();
    strace::exited(task.tid, status);
    signal::set_host_mask(SignalSet::ALL);
    // The first thread's stack is the process's; a vfork(2) child's is its parent's to give back.
    let own = if task.borrowed { None } else { task.block.take() };
    let Some(block) = own else {
        if task.pid == task.tid {
            runtime.report();
        }
        task.seccomp.leave();
        loop {
            // SAFETY: the thread ends here.
            unsafe { host::syscall(nr::exit, [status, 0, 0, 0, 0, 0]) };
        }
    };
    runtime.engine.detach(&mut task.cpu);
    let (base, size) = (block.base, block.size);
    // The stack this runs on is given back by the last instructions of the thread.
    std::mem::forget(block);
    // SAFETY: made by Box::into_raw in `clone`; nothing refers to it any more.
    drop(unsafe { Box::from_raw(std::ptr::from_mut(task)) });
    // SAFETY: the block is this thread's own.
    unsafe { entry::demotic_leave(base, size, status) }
}

/// Readies a thread for an end by the host's kernel. Its memory stays: it is in use until then.
pub(crate) fn abandon(task: &mut Task) {
    signal::set_host_mask(SignalSet::ALL);
    task.seccomp.leave();
    if task.block.is_some() && !task.borrowed {
        task.runtime().engine.detach(&mut task.cpu);
    }
}

/// exit_group(2).
pub fn exit_group(task: &mut Task, [status, ..]: [u64; 6]) -> SysResult {
    strace::exited(task.tid, status);
    task.runtime().report();
    loop {
        // SAFETY: the process ends here.
        unsafe { host::syscall(nr::exit_group, [status, 0, 0, 0, 0, 0]) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_laid_out_for_its_thread() {
        let block = Block::new().unwrap();
        assert_eq!(block.stack() % 16, 0);
        let template = template();
        assert_eq!(block.thread_pointer % template.align.max(16), 0);
        assert!(block.thread_pointer - PRE_TCB_SIZE >= block.stack_top + ALT_STACK_SIZE);
        assert!(block.thread_pointer + TCB_SIZE + template.memory_size <= block.base + block.size);
        let tls =
            (block.thread_pointer + TCB_SIZE.next_multiple_of(template.align.max(16))) as *const u8;
        // SAFETY: both are as long as the template's file part.
        let (copy, original) = unsafe {
            (
                std::slice::from_raw_parts(tls, template.file_size),
                std::slice::from_raw_parts(template.start as *const u8, template.file_size),
            )
        };
        assert_eq!(copy, original);
    }
}
