//! System V shared memory segments in the address space.

use std::sync::Arc;

use super::raw::{self, host_prot, last_errno};
use super::space::{EINVAL, Memory, fixed_range};
use crate::host::SysResult;
use crate::memmap::{EXEC, File, Mapping, PAGE, READ, Source, WRITE};

const SHM_RDONLY: u32 = 0o10000;
const SHM_REMAP: u32 = 0o40000;
const SHM_EXEC: u32 = 0o100000;

/// Takes address space without memory.
const RESERVE: u32 = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE) as u32;

impl Memory {
    /// shmat(2) of a segment of `size` bytes; `addr` is page-aligned, 0 for anywhere. `implied` is what protection is
    /// meant beside the flags'.
    pub fn attach(&self, id: i32, addr: u64, size: u64, flags: u32, implied: u32) -> SysResult {
        let len = size.next_multiple_of(PAGE);
        let span = self.ceil(len);
        let mut state = self.lock();
        let at = if addr == 0 {
            self.place(&state, span, self.host_page, self.window(&state), |at| {
                raw::mmap(at, span, 0, RESERVE | libc::MAP_FIXED_NOREPLACE as u32, -1, 0)
            })?
        } else {
            let range = fixed_range(addr, span).map_err(|_| EINVAL)?;
            if addr != self.floor(addr) {
                return Err(self.does_not_fit("a segment of shared memory", &range));
            }
            if flags & SHM_REMAP == 0 && !state.map.is_free(range.clone()) {
                return Err(EINVAL);
            }
            self.claim(&state, &range)?;
            addr
        };
        // Whether it may be executed is the host's to say.
        let host_flags = flags | SHM_REMAP;
        // SAFETY: the range is the guest's or reserved for it above.
        let result = unsafe { libc::shmat(id, at as *const _, host_flags as i32) };
        if result as i64 == -1 {
            let error = last_errno();
            raw::munmap(at, span)?;
            state.map.remove(at..at + len);
            return Err(error);
        }
        let write = if flags & SHM_RDONLY == 0 { WRITE } else { 0 };
        let exec = if flags & SHM_EXEC != 0 { EXEC } else { 0 };
        let prot = READ | write | exec | implied;
        if exec != 0 {
            raw::mprotect(at, span, host_prot(prot))?;
        }
        let file = File { dev: 0, inode: id as u64, path: b"/SYSV00000000 (deleted)".to_vec() };
        let source = Source::SharedMemory(Arc::new(file), at);
        let held_code = self.holds_code(&state, &(at..at + len));
        state.map.insert(at..at + len, Mapping { prot, shared: true, source });
        self.finish(state, at..at + len, held_code);
        Ok(at)
    }

    /// shmdt(2).
    pub fn detach(&self, addr: u64) -> SysResult {
        let mut state = self.lock();
        let is_start =
            |m: &Mapping| matches!(m.source, Source::SharedMemory(_, start) if start == addr);
        let parts: Vec<_> =
            state.map.iter().filter(|(_, m)| is_start(m)).map(|(range, _)| range).collect();
        let Some(end) = parts.last().map(|r| r.end) else {
            return Err(EINVAL);
        };
        // SAFETY: a segment of the guest.
        if unsafe { libc::shmdt(addr as *const _) } != 0 {
            return Err(last_errno());
        }
        let held_code = self.holds_code(&state, &(addr..end));
        parts.into_iter().for_each(|part| state.map.remove(part));
        self.finish(state, addr..end, held_code);
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::space::tests::memory;

    #[test]
    fn a_segment_is_attached_twice_and_detached() {
        // SAFETY: a private segment, removed below.
        let id = unsafe { libc::shmget(libc::IPC_PRIVATE, 5000, 0o600) };
        assert!(id >= 0);
        let memory = memory(super::super::host_page_size());
        let first = memory.attach(id, 0, 5000, 0, 0).unwrap();
        let second = memory.attach(id, 0, 5000, SHM_RDONLY, 0).unwrap();
        // SAFETY: the segment is attached at both places.
        unsafe { *((first + 4096) as *mut u8) = 5 };
        // SAFETY: as above.
        assert_eq!(unsafe { *((second + 4096) as *const u8) }, 5);
        assert!(memory.lock().map.is_mapped(first..first + 8192));
        assert_eq!(memory.attach(id, first, 5000, 0, 0), Err(EINVAL));
        assert_eq!(memory.detach(first + PAGE), Err(EINVAL));
        assert_eq!(memory.detach(first), Ok(0));
        assert!(memory.lock().map.is_free(first..first + 8192));
        assert_eq!(memory.detach(second), Ok(0));
        // SAFETY: removes the segment made above.
        unsafe { libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut()) };
    }
}
