//! The host's memory calls on the guest's memory. Each of them is sound because the ranges
//! are the guest's by the interval map, or are not mapped at all.

use std::io;

use crate::host::Errno;
use crate::memmap::{EXEC, READ, WRITE};

const MAP_FIXED_NOREPLACE: u32 = libc::MAP_FIXED_NOREPLACE as u32;

pub fn mmap(
    addr: u64,
    len: u64,
    prot: u32,
    flags: u32,
    fd: i32,
    offset: u64,
) -> Result<u64, Errno> {
    // SAFETY: see the module.
    let at = unsafe {
        libc::mmap(addr as *mut _, len as usize, prot as i32, flags as i32, fd, offset as i64)
    };
    if at == libc::MAP_FAILED {
        return Err(last_errno());
    }
    if flags & MAP_FIXED_NOREPLACE != 0 && at as u64 != addr {
        // A kernel before 4.17 takes the address as a hint.
        munmap(at as u64, len)?;
        return Err(Errno(libc::EEXIST));
    }
    Ok(at as u64)
}

pub fn munmap(addr: u64, len: u64) -> Result<(), Errno> {
    // SAFETY: see the module.
    check(unsafe { libc::munmap(addr as *mut _, len as usize) })
}

pub fn mprotect(addr: u64, len: u64, prot: u32) -> Result<(), Errno> {
    // SAFETY: see the module.
    check(unsafe { libc::mprotect(addr as *mut _, len as usize, prot as i32) })
}

pub fn mremap(addr: u64, len: u64, new_len: u64, flags: u32, to: u64) -> Result<u64, Errno> {
    // SAFETY: see the module.
    let at = unsafe {
        libc::mremap(
            addr as *mut _,
            len as usize,
            new_len as usize,
            flags as i32,
            to as *mut libc::c_void,
        )
    };
    if at == libc::MAP_FAILED { Err(last_errno()) } else { Ok(at as u64) }
}

/// `offset` is in pages of the host.
pub fn remap_file_pages(addr: u64, len: u64, offset: u64, flags: u64) -> Result<(), Errno> {
    // SAFETY: see the module.
    check(unsafe { libc::syscall(libc::SYS_remap_file_pages, addr, len, 0, offset, flags) } as i32)
}

pub fn madvise(addr: u64, len: u64, advice: i32) -> Result<(), Errno> {
    // SAFETY: see the module.
    check(unsafe { libc::madvise(addr as *mut _, len as usize, advice) })
}

/// How many bytes of readable memory have something behind them: reading the next would raise SIGBUS. The kernel
/// is asked to write them to a file.
pub fn backed(addr: u64, len: u64) -> Result<u64, Errno> {
    // SAFETY: makes a descriptor, reads memory that may be read, and gives the descriptor back.
    unsafe {
        let fd = libc::memfd_create(c"probe".as_ptr(), libc::MFD_CLOEXEC);
        if fd < 0 {
            return Err(last_errno());
        }
        let written = libc::write(fd, addr as *const _, len as usize);
        libc::close(fd);
        Ok(written.max(0) as u64)
    }
}

/// Writes zeros, and a file's bytes over them as far as it reaches.
pub fn fill(addr: u64, len: u64, fd: Option<(i32, u64)>) -> Result<(), Errno> {
    // SAFETY: see the module; the caller made the range writable.
    unsafe { std::ptr::write_bytes(addr as *mut u8, 0, len as usize) };
    let Some((fd, offset)) = fd else {
        return Ok(());
    };
    let mut done = 0;
    while done < len {
        // SAFETY: as above.
        let n = unsafe {
            libc::pread(fd, (addr + done) as *mut _, (len - done) as usize, (offset + done) as i64)
        };
        match n {
            0 => break,
            n if n > 0 => done += n as u64,
            _ if last_errno() == Errno(libc::EINTR) => {}
            _ => return Err(last_errno()),
        }
    }
    Ok(())
}

/// Copies memory of the guest that the caller made accessible.
pub fn copy(from: u64, to: u64, len: u64) {
    // SAFETY: see the module.
    unsafe { std::ptr::copy(from as *const u8, to as *mut u8, len as usize) };
}

fn check(result: i32) -> Result<(), Errno> {
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}

/// The protection the host's page gets for the guest's: the guest's code is only ever read, and
/// on x86 what may be written or executed may be read.
pub fn host_prot(prot: u32) -> u32 {
    if prot & (READ | WRITE | EXEC) == 0 { 0 } else { prot & WRITE | READ }
}

/// errno, after a call of the C library failed.
pub fn last_errno() -> Errno {
    Errno(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EINVAL))
}
