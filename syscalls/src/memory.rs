//! The guest's memory: the address space itself, and the system calls that change it.

mod page_set;
mod space;

pub use space::{ADDRESS_LIMIT, MAP_32BIT, MAP_ABOVE4G, Map, Memory, host_page_size};

use crate::host::{Errno, SysResult};
use crate::memmap::PAGE;
use crate::task::Task;

/// mmap(2).
pub fn mmap(task: &mut Task, [addr, len, prot, flags, fd, offset]: [u64; 6]) -> SysResult {
    let request = Map {
        addr,
        len,
        prot: prot as u32,
        flags: flags as u32,
        fd: fd as i32,
        offset,
        name: None,
    };
    task.runtime().map(&request)
}

/// munmap(2).
pub fn munmap(task: &mut Task, [addr, len, ..]: [u64; 6]) -> SysResult {
    task.runtime().memory.unmap(addr, len).map(|()| 0)
}

/// mprotect(2).
pub fn mprotect(task: &mut Task, [addr, len, prot, ..]: [u64; 6]) -> SysResult {
    task.runtime()
        .memory
        .protect(addr, len, prot as u32)
        .map(|()| 0)
}

/// pkey_mprotect(2): there are no protection keys, so only the key -1 is valid.
pub fn pkey_mprotect(task: &mut Task, [addr, len, prot, key, ..]: [u64; 6]) -> SysResult {
    if key as i32 != -1 {
        return Err(Errno(libc::EINVAL));
    }
    task.runtime()
        .memory
        .protect(addr, len, prot as u32)
        .map(|()| 0)
}

/// brk(2).
pub fn brk(task: &mut Task, [addr, ..]: [u64; 6]) -> SysResult {
    Ok(task.runtime().memory.brk(addr))
}
