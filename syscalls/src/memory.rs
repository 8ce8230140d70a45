//! The guest's memory: the address space itself, and the system calls that change it.

mod advice;
mod host_pages;
mod kernel_made;
mod page_set;
mod protect;
mod raw;
mod remap;
mod seal;
mod shm;
mod space;
mod watch;
pub mod write_exec;

use advice::is_for_pages_alone;
pub use kernel_made::glance;
pub use space::{ADDRESS_LIMIT, MAP_32BIT, MAP_ABOVE4G, Map, Memory, host_page_size};
pub use watch::EVERYWHERE;

use crate::abi::errno;
use crate::guest;
use crate::host::SysResult;
use crate::memmap::{EXEC, PAGE, READ, WRITE};
use crate::table::host as nr;
use crate::task::Task;
use crate::vectors::Vectors;
use crate::{log, personality};

/// mmap(2).
pub fn mmap(task: &mut Task, [addr, len, prot, flags, fd, offset]: [u64; 6]) -> SysResult {
    const MAP_ANONYMOUS: u64 = libc::MAP_ANONYMOUS as u64;
    let file = (flags & MAP_ANONYMOUS == 0).then_some(fd as i32);
    personality::check_executable(prot as u32, file)?;
    let request = Map {
        addr,
        len,
        prot: personality::protection(task, prot as u32, file),
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
    let (prot, implied) = (prot as u32, personality::protection(task, prot as u32, None));
    let memory = task.runtime().memory;
    match memory.protect(addr, len, implied) {
        // What is not to be executed is not meant to be (VM_MAYEXEC).
        Err(errno::EACCES) if implied != prot => memory.protect(addr, len, prot),
        result => result,
    }
    .map(|()| 0)
}

/// pkey_mprotect(2): there are no protection keys, so only the key -1 is valid.
pub fn pkey_mprotect(task: &mut Task, [addr, len, prot, key, ..]: [u64; 6]) -> SysResult {
    if key as i32 != -1 {
        return Err(errno::EINVAL);
    }
    mprotect(task, [addr, len, prot, 0, 0, 0])
}

/// mremap(2).
pub fn mremap(task: &mut Task, [addr, len, new_len, flags, to, _]: [u64; 6]) -> SysResult {
    task.runtime().memory.remap(addr, len, new_len, flags as u32, to)
}

/// madvise(2).
pub fn madvise(task: &mut Task, [addr, len, advice, ..]: [u64; 6]) -> SysResult {
    task.runtime().memory.advise(addr, len, advice as i32)
}

/// process_madvise(2). On larger pages of the host, what would be discarded beside is kept, by refusing it as kernels
/// before 6.13 do.
pub fn process_madvise(
    task: &mut Task,
    [pidfd, vectors, count, advice, flags, _]: [u64; 6],
) -> SysResult {
    let mut vectors = Vectors::read(vectors, count);
    let page = host_page_size();
    let mut most = u64::MAX;
    if page > PAGE {
        if is_for_pages_alone(advice as i32) {
            log::warn(format_args!(
                "process_madvise with {advice} means larger pages here: EINVAL"
            ));
            return Err(errno::EINVAL);
        }
        most = vectors.begin_at_multiples_of(page);
    }
    let args = [pidfd, vectors.addr(), count, advice, flags, 0];
    task.host_call(nr::process_madvise, args).map(|bytes| bytes.min(most))
}

/// mseal(2).
pub fn mseal(task: &mut Task, [start, len, flags, ..]: [u64; 6]) -> SysResult {
    task.runtime().memory.seal(start, len, flags).map(|()| 0)
}

/// remap_file_pages(2).
pub fn remap_file_pages(task: &mut Task, args: [u64; 6]) -> SysResult {
    task.runtime().memory.remap_file_pages(args).map(|()| 0)
}

/// brk(2).
pub fn brk(task: &mut Task, [addr, ..]: [u64; 6]) -> SysResult {
    let prot = personality::protection(task, READ | WRITE, None);
    Ok(task.runtime().memory.brk(addr, prot))
}

/// A call about a range of pages whose third argument the host takes as it is: the range is
/// rounded outwards to the host's pages.
fn on_host_pages(task: &mut Task, nr: u64, [addr, len, extra, ..]: [u64; 6]) -> SysResult {
    let page = host_page_size();
    if !addr.is_multiple_of(page) || !len.is_multiple_of(page) {
        let start = addr / page * page;
        let end = addr.checked_add(len).and_then(|end| end.checked_next_multiple_of(page));
        let end = end.ok_or(errno::EINVAL)?;
        return task.host_call(nr, [start, end - start, extra, 0, 0, 0]);
    }
    task.host_call(nr, [addr, len, extra, 0, 0, 0])
}

/// msync(2).
pub fn msync(task: &mut Task, args: [u64; 6]) -> SysResult {
    if !args[0].is_multiple_of(PAGE) {
        return Err(errno::EINVAL);
    }
    on_host_pages(task, nr::msync, args)
}

/// mlock(2).
pub fn mlock(task: &mut Task, args: [u64; 6]) -> SysResult {
    on_host_pages(task, nr::mlock, args)
}

/// mlock2(2).
pub fn mlock2(task: &mut Task, args: [u64; 6]) -> SysResult {
    on_host_pages(task, nr::mlock2, args)
}

/// munlock(2).
pub fn munlock(task: &mut Task, args: [u64; 6]) -> SysResult {
    on_host_pages(task, nr::munlock, args)
}

/// mincore(2): one byte for each page of the guest.
pub fn mincore(task: &mut Task, [addr, len, vector, ..]: [u64; 6]) -> SysResult {
    let page = host_page_size();
    if page == PAGE {
        return task.host_call(nr::mincore, [addr, len, vector, 0, 0, 0]);
    }
    if !addr.is_multiple_of(PAGE) {
        return Err(errno::EINVAL);
    }
    let end = addr.checked_add(len).ok_or(errno::ENOMEM)?;
    for (i, at) in (addr..end).step_by(PAGE as usize).enumerate() {
        if !task.runtime().memory.is_mapped(at) {
            return Err(errno::ENOMEM);
        }
        let mut resident = 0u8;
        task.host_call(nr::mincore, [at / page * page, 1, &raw mut resident as u64, 0, 0, 0])?;
        guest::write(vector.wrapping_add(i as u64), &resident)?;
    }
    Ok(0)
}

/// shmat(2).
pub fn shmat(task: &mut Task, [id, addr, flags, ..]: [u64; 6]) -> SysResult {
    const SHM_RND: u64 = 0o20000;
    /// `struct shmid64_ds`, of which the size counts here.
    #[repr(C)]
    struct Segment {
        perm: [u64; 6],
        size: u64,
        rest: [u64; 7],
    }
    if !addr.is_multiple_of(PAGE) && flags & SHM_RND == 0 {
        return Err(errno::EINVAL);
    }
    let mut segment = Segment { perm: [0; 6], size: 0, rest: [0; 7] };
    task.host_call(nr::shmctl, [id, libc::IPC_STAT as u64, &raw mut segment as u64, 0, 0, 0])?;
    task.runtime().require_order();
    let _ = (segment.perm, segment.rest);
    let implied = personality::protection(task, READ, None) & EXEC;
    let memory = task.runtime().memory;
    memory.attach(id as i32, addr / PAGE * PAGE, segment.size, flags as u32, implied)
}

/// shmdt(2).
pub fn shmdt(task: &mut Task, [addr, ..]: [u64; 6]) -> SysResult {
    task.runtime().memory.detach(addr)
}
