//! Moving and resizing mappings.

use std::ops::Range;

use super::raw;
use super::space::{EINVAL, ENOMEM, Map, Memory, State, fixed_range, user_range};
use crate::host::{Errno, SysResult};
use crate::memmap::{Mapping, PAGE, READ, Source, WRITE};

const MREMAP_MAYMOVE: u32 = libc::MREMAP_MAYMOVE as u32;
const MREMAP_FIXED: u32 = libc::MREMAP_FIXED as u32;
const MREMAP_DONTUNMAP: u32 = 4;

const EFAULT: Errno = Errno(libc::EFAULT);

pub const FIXED: u32 = libc::MAP_FIXED as u32;

/// Reserves address space.
pub const RESERVE: u32 = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE) as u32;

/// New anonymous memory, as the guest would ask for it.
fn anonymous(range: &Range<u64>, prot: u32) -> Map {
    let Range { start: addr, end } = *range;
    Map { addr, len: end - addr, prot, flags: RESERVE | FIXED, fd: -1, offset: 0, name: None }
}

/// The arguments of mremap(2), checked and rounded.
struct Remap {
    old: Range<u64>,
    new_len: u64,
    flags: u32,
    to: u64,
}

impl Remap {
    fn is(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }
}

impl Memory {
    /// mremap(2).
    pub fn remap(&self, addr: u64, len: u64, new_len: u64, flags: u32, to: u64) -> SysResult {
        let known = MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP;
        let moves = flags & (MREMAP_FIXED | MREMAP_DONTUNMAP) != 0;
        if flags & !known != 0 || (moves && flags & MREMAP_MAYMOVE == 0) || new_len == 0 {
            return Err(EINVAL);
        }
        if !addr.is_multiple_of(PAGE) {
            return Err(EINVAL);
        }
        let new_len = new_len.checked_next_multiple_of(PAGE).ok_or(EINVAL)?;
        if flags & MREMAP_DONTUNMAP != 0 && Some(new_len) != len.checked_next_multiple_of(PAGE) {
            return Err(EINVAL);
        }
        // Nothing is mapped there.
        let old = user_range(addr, len).ok_or(EFAULT)?;
        let call = Remap { old, new_len, flags, to };
        let mut state = self.lock();
        state.seals.check(&call.old)?;
        if !moves && call.new_len <= call.old.end - call.old.start && !call.old.is_empty() {
            let tail = addr + call.new_len..call.old.end;
            if !state.map.is_mapped(call.old.clone()) {
                return Err(EFAULT);
            }
            let held_code = self.holds_code(&state, &tail);
            self.remove(&mut state, &tail)?;
            self.finish(state, tail, held_code);
            return Ok(addr);
        }
        let mapping = single(&state, &call.old)?;
        let held_code = self.holds_code(&state, &call.old);
        self.open_all(&call.old);
        let new = self.grow(&mut state, &call, &mapping)?;
        // The target of MREMAP_FIXED may have held code as well.
        self.finish(state, call.old, held_code);
        self.invalidate(new.clone(), true);
        Ok(new.start)
    }

    /// Grows a mapping where it is, or moves it.
    fn grow(
        &self,
        state: &mut State,
        call: &Remap,
        mapping: &Mapping,
    ) -> Result<Range<u64>, Errno> {
        let Remap { old, new_len, .. } = call;
        let in_place = old.start..old.start.checked_add(*new_len).ok_or(ENOMEM)?;
        if !call.is(MREMAP_FIXED | MREMAP_DONTUNMAP)
            && !old.is_empty()
            && fixed_range(old.start, *new_len).is_ok()
            && self.grow_in_place(state, old, in_place.end, mapping)
        {
            return Ok(in_place);
        }
        if !call.is(MREMAP_MAYMOVE) {
            return Err(ENOMEM);
        }
        let new = self.target(state, call)?;
        let (len, host_new) = (old.end - old.start, self.ceil(*new_len));
        let pieced = self.is_pieced_together(mapping);
        if self.fits_host_pages(state, old) && self.fits_host_pages(state, &new) {
            let flags = MREMAP_MAYMOVE | MREMAP_FIXED | call.flags & MREMAP_DONTUNMAP;
            let host_len = self.ceil(len);
            let host_moved = if pieced { host_len.min(host_new) } else { host_new };
            if let Err(error) = raw::mremap(old.start, host_len, host_moved, flags, new.start) {
                if !call.is(MREMAP_FIXED) {
                    raw::munmap(new.start, host_new)?;
                }
                return Err(error);
            }
            if !call.is(MREMAP_DONTUNMAP) {
                state.map.remove(old.clone());
            }
            state.map.insert(new.clone(), mapping.clone());
            if pieced && len < *new_len {
                let more = new.start + len..new.end;
                self.install(state, &anonymous(&more, mapping.prot), &more, mapping)?;
            }
        } else {
            self.move_by_copy(state, call, mapping, &new)?;
            state.map.insert(new.clone(), mapping.clone());
        }
        self.settle_edges(state, &new)?;
        Ok(new)
    }

    /// Whether the host may have a mapping of the guest's as several, of which not all need be anonymous memory: parts of
    /// larger pages were copied to where they are.
    pub(super) fn is_pieced_together(&self, mapping: &Mapping) -> bool {
        self.host_page > PAGE && mapping.is_private_memory()
    }

    /// Whether a mapping could be made to reach to `end`.
    fn grow_in_place(
        &self,
        state: &mut State,
        old: &Range<u64>,
        end: u64,
        mapping: &Mapping,
    ) -> bool {
        let more = old.end..end;
        if self.is_pieced_together(mapping) {
            let request = anonymous(&more, mapping.prot);
            return state.map.is_free(more.clone())
                && self.map_fixed(state, &request, more, mapping.clone()).is_ok();
        }
        let (host_len, host_new) = (self.ceil(old.end - old.start), self.ceil(end - old.start));
        let grown = self.fits_host_pages(state, old)
            && state.map.is_free(old.end..self.ceil(end))
            && raw::mremap(old.start, host_len, host_new, 0, 0).is_ok();
        if grown {
            state.map.insert(old.start..end, mapping.clone());
        }
        grown
    }

    /// Where a moved mapping goes; the host's address space there is reserved.
    fn target(&self, state: &mut State, call: &Remap) -> Result<Range<u64>, Errno> {
        if !call.is(MREMAP_FIXED) {
            let span = self.ceil(call.new_len);
            let flags = RESERVE | libc::MAP_FIXED_NOREPLACE as u32;
            let at = self.place(state, span, self.host_page, self.window(state), |at| {
                raw::mmap(at, span, 0, flags, -1, 0)
            })?;
            return Ok(at..at + call.new_len);
        }
        let new = fixed_range(call.to, call.new_len).map_err(|_| EINVAL)?;
        if new.start < call.old.end && call.old.start < new.end {
            return Err(EINVAL);
        }
        state.seals.check(&new)?;
        self.remove(state, &new)?;
        self.claim(state, &new)?;
        Ok(new)
    }

    /// Moves private memory that does not lie on host page boundaries.
    fn move_by_copy(
        &self,
        state: &mut State,
        call: &Remap,
        mapping: &Mapping,
        new: &Range<u64>,
    ) -> Result<(), Errno> {
        let old = &call.old;
        if mapping.shared {
            return Err(self.does_not_fit("a shared mapping to be moved", old));
        }
        let copy = Mapping { prot: READ | WRITE, shared: false, source: Source::Anonymous };
        self.install(state, &anonymous(new, copy.prot), new, &copy)?;
        let wide = self.widen(old);
        raw::mprotect(wide.start, wide.end - wide.start, READ | WRITE)?;
        raw::copy(old.start, new.start, (old.end - old.start).min(call.new_len));
        raw::fill(old.start, old.end - old.start, None)?;
        state.map.insert(new.clone(), mapping.clone());
        self.settle(state, new)?;
        if call.is(MREMAP_DONTUNMAP) { self.settle(state, old) } else { self.remove(state, old) }
    }

    /// Whether a range is made of whole host pages, as far as others are concerned.
    fn fits_host_pages(&self, state: &State, range: &Range<u64>) -> bool {
        range.start == self.floor(range.start) && state.map.is_free(range.end..self.ceil(range.end))
    }

    /// remap_file_pages(2): the pages of a shared mapping of a file show another part of it. Like the kernel's own
    /// emulation, a mapping of its own.
    pub fn remap_file_pages(
        &self,
        [start, size, prot, page, flags, _]: [u64; 6],
    ) -> Result<(), Errno> {
        let (start, size) = (start / PAGE * PAGE, size / PAGE * PAGE);
        let offset = page.checked_mul(PAGE).filter(|offset| offset.checked_add(size).is_some());
        let (Some(offset), Some(range)) = (offset, user_range(start, size)) else {
            return Err(EINVAL);
        };
        if prot != 0 || range.is_empty() {
            return Err(EINVAL);
        }
        // The kernel counts in pages of its own.
        let aligned = |value: u64| value.is_multiple_of(self.host_page);
        if ![start, size, offset].into_iter().all(aligned) {
            return Err(self.does_not_fit("a part of a shared mapping to be changed", &range));
        }
        let mut state = self.lock();
        let mut parts = state.map.clipped(range.clone());
        let mut mapping = match (parts.next(), parts.next()) {
            (Some((part, mapping)), None) if part == range && mapping.shared => mapping,
            _ => return Err(EINVAL),
        };
        drop(parts);
        state.seals.check(&range)?;
        let Source::File(_, at) = &mut mapping.source else { return Err(EINVAL) };
        *at = offset;
        let held_code = self.holds_code(&state, &range);
        self.open_all(&range);
        raw::remap_file_pages(start, size, offset / self.host_page, flags)?;
        state.map.insert(range.clone(), mapping);
        self.settle(&state, &range)?;
        self.finish(state, range, held_code);
        Ok(())
    }
}

/// The one mapping that covers a range, as it is seen from the range's start.
fn single(state: &State, range: &Range<u64>) -> Result<Mapping, Errno> {
    let probe = range.start..range.end.max(range.start + PAGE);
    let mut parts = state.map.clipped(probe);
    match (parts.next(), parts.next()) {
        (Some((part, mapping)), None)
            if part.start == range.start && part.end >= range.end && !mapping.is_reserved() =>
        {
            // Only a shared mapping can be mapped a second time by a length of zero.
            if range.is_empty() && !mapping.shared { Err(EINVAL) } else { Ok(mapping) }
        }
        _ => Err(EFAULT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::space::tests::{anonymous, memory, peek, poke};

    #[test]
    fn grows_in_place_moves_and_shrinks() {
        for host_page in [4096, 16384] {
            let memory = memory(host_page);
            let at = memory.map(&anonymous(0, 16, READ | WRITE, 0)).unwrap();
            memory.unmap(at + 4 * PAGE, 12 * PAGE).unwrap();
            poke(at + 3 * PAGE, 3);
            assert_eq!(memory.remap(at, 4 * PAGE, 8 * PAGE, 0, 0), Ok(at));
            poke(at + 7 * PAGE, 7);
            memory.map(&anonymous(at + 8 * PAGE, 1, READ, libc::MAP_FIXED as u32)).unwrap();
            assert_eq!(memory.remap(at, 8 * PAGE, 9 * PAGE, 0, 0), Err(ENOMEM));
            let moved = memory.remap(at, 8 * PAGE, 9 * PAGE, MREMAP_MAYMOVE, 0).unwrap();
            assert_ne!(moved, at);
            assert_eq!(
                (peek(moved + 3 * PAGE), peek(moved + 7 * PAGE), peek(moved + 8 * PAGE)),
                (3, 7, 0)
            );
            assert!(!memory.lock().map.is_mapped(at..at + PAGE));
            assert_eq!(memory.remap(moved, 9 * PAGE, 4 * PAGE, 0, 0), Ok(moved));
            assert!(!memory.lock().map.is_mapped(moved + 4 * PAGE..moved + 5 * PAGE));
            let fixed = MREMAP_MAYMOVE | MREMAP_FIXED;
            assert_eq!(memory.remap(moved, 4 * PAGE, 4 * PAGE, fixed, moved + PAGE), Err(EINVAL));
            assert_eq!(memory.remap(moved, 4 * PAGE, 4 * PAGE, fixed, at), Ok(at));
            assert_eq!(peek(at + 3 * PAGE), 3);
            assert_eq!(
                memory.remap(at + 20 * PAGE, PAGE, 2 * PAGE, MREMAP_MAYMOVE, 0),
                Err(EFAULT)
            );
            memory.unmap(at, 9 * PAGE).unwrap();
        }
    }

    #[test]
    fn moves_parts_of_host_pages() {
        let memory = memory(16384);
        let at = memory.map(&anonymous(0, 8, READ | WRITE, 0)).unwrap();
        (0..8).for_each(|i| poke(at + i * PAGE, i as u8 + 1));
        let moved = memory.remap(at + PAGE, 2 * PAGE, 3 * PAGE, MREMAP_MAYMOVE, 0).unwrap();
        assert_eq!((peek(moved), peek(moved + PAGE), peek(moved + 2 * PAGE)), (2, 3, 0));
        assert_eq!((peek(at), peek(at + 3 * PAGE)), (1, 4));
        assert!(!memory.lock().map.is_mapped(at + PAGE..at + 2 * PAGE));
        memory.unmap(at, 8 * PAGE).unwrap();
        memory.unmap(moved, 3 * PAGE).unwrap();
    }

    /// The kernels that emulators stand for may lack the call.
    #[test]
    #[cfg(target_arch = "x86_64")]
    fn pages_of_a_file_in_another_order() {
        use std::io::Write;
        use std::os::fd::AsRawFd;
        let mut file = tempfile::tempfile().unwrap();
        (1..=3).for_each(|n| file.write_all(&[n; PAGE as usize]).unwrap());
        let memory = memory(4096);
        let shared = Map { fd: file.as_raw_fd(), ..anonymous(0, 3, READ | WRITE, 0) };
        let shared = Map { flags: libc::MAP_SHARED as u32, ..shared };
        let at = memory.map(&shared).unwrap();
        assert_eq!(memory.remap_file_pages([at, PAGE, 1, 2, 0, 0]), Err(EINVAL));
        assert_eq!(memory.remap_file_pages([at, PAGE, 0, 2, 0, 0]), Ok(()));
        assert_eq!((peek(at), peek(at + PAGE)), (3, 2));
        let place = memory.lock().map.get(at).unwrap().1.source.clone();
        assert!(matches!(place, Source::File(_, offset) if offset == 2 * PAGE));
        let private = memory.map(&anonymous(0, 1, READ, 0)).unwrap();
        assert_eq!(memory.remap_file_pages([private, PAGE, 0, 0, 0, 0]), Err(EINVAL));
        memory.unmap(at, 3 * PAGE).unwrap();
    }
}
