//! Host threads for guest threads. A guest's clone(2) becomes one of the host with the same flags, on
//! memory made here: a stack, an alternate signal stack, and the thread-local storage that compiled Rust
//! code and the C library's system call wrappers need.

use std::io;
use std::sync::OnceLock;

use crate::host::{self, Errno, SysResult};
use crate::memory::host_page_size;
use crate::runtime::{self, Runtime};
use crate::signal::{self, SignalSet};
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

/// exit(2): ends the calling thread.
pub fn exit(task: &mut Task, [status, ..]: [u64; 6]) -> SysResult {
    let _ = task;
    runtime::runtime().report();
    loop {
        // SAFETY: the thread ends here.
        unsafe { host::syscall(nr::exit, [status, 0, 0, 0, 0, 0]) };
    }
}

/// exit_group(2).
pub fn exit_group(task: &mut Task, [status, ..]: [u64; 6]) -> SysResult {
    task.runtime().report();
    loop {
        // SAFETY: the process ends here.
        unsafe { host::syscall(nr::exit_group, [status, 0, 0, 0, 0, 0]) };
    }
}
