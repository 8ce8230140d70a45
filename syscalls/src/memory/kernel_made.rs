//! Mappings that the kernel makes or places itself: it would put them where only the translator has its memory.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::raw;
use super::space::{ADDRESS_LIMIT, ENOMEM, Memory, State};
use crate::host::{Errno, SysResult};
use crate::memmap::{File, IntervalMap, Mapping, READ, Source, WRITE};

/// Address space that is taken without being used.
const RESERVE: u32 = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE) as u32;

/// Everything from an address on that the kernel would give a mapping of some size, taken for the time being. The
/// kernel looks for room from the top down, so the next such mapping comes to lie below.
struct Plugs(Vec<Range<u64>>);

impl Plugs {
    fn new(from: u64, span: u64) -> Self {
        let mut plugs = Vec::new();
        let sizes = (0..u64::BITS).rev().map(|bit| 1 << bit).take_while(|&size| size > span);
        for size in sizes.skip_while(|&size| size > 1 << 47).chain([span]) {
            // An error: there is no such room at all.
            while let Ok(at) = raw::mmap(0, size, 0, RESERVE, -1, 0) {
                // What is below is given back; that it was there cannot be wrong.
                if at < from {
                    let _ = raw::munmap(at, size.min(from - at));
                }
                if at + size <= from {
                    break;
                }
                plugs.push(at.max(from)..at + size);
            }
        }
        Self(plugs)
    }
}

impl Drop for Plugs {
    fn drop(&mut self) {
        for plug in &self.0 {
            // Mapped by `new`.
            let _ = raw::munmap(plug.start, plug.end - plug.start);
        }
    }
}

/// Shows the first bytes of a file's mapping, which the guest does not see.
pub fn glance(fd: i32, len: u64, offset: u64, look: impl FnOnce(u64)) -> Result<(), Errno> {
    let at = raw::mmap(0, len, READ | WRITE, libc::MAP_SHARED as u32, fd, offset)?;
    look(at);
    raw::munmap(at, len)
}

impl Memory {
    /// A place of the kernel's choice, among those that are the guest's. Some files take no other
    /// (io_uring_get_unmapped_area in io_uring/memmap.c).
    pub(super) fn place_by_kernel(
        &self,
        state: &State,
        span: u64,
        map: impl FnOnce() -> SysResult,
    ) -> SysResult {
        let end = self.window(state).end;
        let plugs = Plugs::new(end, span);
        let at = map()?;
        drop(plugs);
        if at + span > end || !state.map.is_free(at..at + span) {
            raw::munmap(at, span)?;
            return Err(ENOMEM);
        }
        Ok(at)
    }

    /// Makes what the kernel has mapped by itself the guest's; where it is then. The kernel is told of the move by
    /// mremap(2) itself.
    pub fn take_over(&self, at: u64, len: u64, name: &str) -> SysResult {
        let file = File { dev: 0, inode: 0, path: name.into() };
        let mapping =
            Mapping { prot: READ | WRITE, shared: true, source: Source::File(Arc::new(file), 0) };
        let mut state = self.lock();
        let span = self.ceil(len);
        let window = self.window(&state);
        let to = if at + span <= window.end && state.map.is_free(at..at + span) {
            at
        } else {
            let to = self.place(&state, span, self.host_page, window, |to| {
                raw::mmap(to, span, 0, RESERVE | libc::MAP_FIXED_NOREPLACE as u32, -1, 0)
            })?;
            let flags = (libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED) as u32;
            if let Err(error) = raw::mremap(at, span, span, flags, to) {
                raw::munmap(to, span)?;
                return Err(error);
            }
            to
        };
        state.map.insert(to..to + len, mapping);
        Ok(to)
    }

    /// The kernel has unmapped by itself what [`take_over`](Self::take_over) was told of.
    pub fn forget(&self, at: u64, name: &str) {
        let mut state = self.lock();
        let found = state.map.get(at).filter(|(range, mapping)| {
            let is_it = |file: &File| file.path == name.as_bytes();
            range.start == at && matches!(&mapping.source, Source::File(file, _) if is_it(file))
        });
        if let Some((range, _)) = found {
            state.map.remove(range);
        }
    }

    /// Where a shared mapping shows a place in a file, given by device and inode number; first `last` is looked at.
    pub fn find_file(&self, file: (u64, u64), offset: u64, last: u64) -> Option<u64> {
        let state = self.lock();
        let place = |(range, mapping): (Range<u64>, &Mapping)| match &mapping.source {
            Source::File(other, start) if mapping.shared && (other.dev, other.inode) == file => {
                let at = range.start.checked_add(offset.checked_sub(*start)?)?;
                range.contains(&at).then_some(at)
            }
            _ => None,
        };
        let is_still_there = state.map.get(last).and_then(place) == Some(last);
        if is_still_there { Some(last) } else { state.map.iter().find_map(place) }
    }

    /// What is mapped of a file shows its old contents: [`find_file`](Self::find_file) does not find that any more.
    pub fn part_from(&self, file: (u64, u64)) {
        let part = |mapping: &mut Mapping| {
            if let Source::File(of, start) = &mapping.source
                && (of.dev, of.inode) == file
            {
                let old = File { dev: of.dev, inode: 0, path: of.path.clone() };
                mapping.source = Source::File(Arc::new(old), *start);
            }
        };
        self.lock().map.update(0..ADDRESS_LIMIT, part);
    }

    /// What the system calls of io_uring(7) know of, and the map of the memory.
    pub(crate) fn rings<T>(
        &self,
        look: impl FnOnce(&mut crate::io_uring::Rings, &IntervalMap) -> T,
    ) -> T {
        let State { rings, map, .. } = &mut *self.lock();
        look(rings, map)
    }

    /// Readies memory that the kernel is going to write when no system call waits for it.
    pub fn open_buffer(&self, addr: u64, len: u64) {
        let end = addr.saturating_add(len).min(ADDRESS_LIMIT);
        if self.any_watched.load(Ordering::Relaxed) && addr < end {
            self.unwatch(addr..end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::space::Map;
    use super::super::space::tests::{ROOM, memory};
    use super::*;

    #[test]
    fn the_kernel_is_left_no_other_room() {
        let _alone = ROOM.write();
        let memory = memory(4096);
        let state = memory.lock();
        let end = memory.window(&state).end;
        let anywhere = || raw::mmap(0, 0x5000, READ, RESERVE, -1, 0);
        let at = memory.place_by_kernel(&state, 0x5000, anywhere).unwrap();
        assert!(at + 0x5000 <= end, "{at:x} is beyond {end:x}");
        raw::munmap(at, 0x5000).unwrap();
        let other = anywhere().unwrap();
        assert!(other > end, "room beyond {end:x} is not given back");
        raw::munmap(other, 0x5000).unwrap();
    }

    /// Where the kernel has no io_uring, or an emulator does not know it, there is nothing to see.
    #[test]
    fn a_ring_is_mapped_in_a_place_of_the_guests() {
        let _alone = ROOM.write();
        let mut params = [0u8; 120];
        // SAFETY: the structure is as large as the kernel's; a new descriptor.
        let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 4, params.as_mut_ptr()) } as i32;
        if fd < 0 {
            return;
        }
        let memory = memory(4096);
        let end = memory.window(&memory.lock()).end;
        let map = |addr, offset| {
            let (prot, flags) = (READ | WRITE, libc::MAP_SHARED as u32);
            memory.map(&Map { addr, len: 4096, prot, flags, fd, offset, name: None })
        };
        let (queue, entries) = (map(0, 0).unwrap(), map(0, 0x1000_0000).unwrap());
        assert!(queue + 4096 <= end && entries + 4096 <= end, "{queue:x} {entries:x} {end:x}");
        let file = crate::inode::Inode::of(fd as u64).unwrap().file;
        assert_eq!(memory.find_file(file, 0, 0), Some(queue));
        assert_eq!(memory.find_file(file, 0x1000_0000, queue), Some(entries));
        assert!(memory.lock().map.proc_maps().contains("anon_inode:[io_uring]"));
        assert!(map(0, 0x1800_0000).is_err());
        for at in [queue, entries] {
            memory.unmap(at, 4096).unwrap();
        }
        // SAFETY: made above.
        unsafe { libc::close(fd) };
    }

    #[test]
    fn what_the_kernel_mapped_is_moved_and_found() {
        let memory = memory(4096);
        let file = tempfile::tempfile().unwrap();
        file.set_len(0x2000).unwrap();
        let shared = libc::MAP_SHARED as u32;
        let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
        let at = raw::mmap(0, 0x2000, READ | WRITE, shared, fd, 0).unwrap();
        let to = memory.take_over(at, 0x2000, "/[x]").unwrap();
        assert!(to < memory.window(&memory.lock()).end);
        assert_eq!(memory.find_file((0, 0), 0x1000, 0), Some(to + 0x1000));
        assert_eq!(memory.find_file((0, 0), 0x1000, to + 0x1000), Some(to + 0x1000));
        assert_eq!(memory.find_file((0, 0), 0x2000, 0), None);
        assert_eq!(memory.find_file((0, 1), 0, 0), None);
        raw::munmap(to, 0x2000).unwrap();
        memory.forget(to, "/[y]");
        assert!(memory.is_mapped(to));
        memory.forget(to, "/[x]");
        assert!(!memory.is_mapped(to));
    }
}
