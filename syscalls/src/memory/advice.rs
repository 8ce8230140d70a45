//! Advice about memory: what it does to pages is done to the guest's, and to no others.

use std::ops::Range;

use super::raw;
use super::remap::{FIXED, RESERVE};
use super::space::{ADDRESS_LIMIT, EINVAL, ENOMEM, Memory, State};
use crate::host::{Errno, SysResult};
use crate::memmap::{Mapping, PAGE, READ, Source, WRITE};

const MADV_DONTNEED_LOCKED: i32 = 24;
const MADV_GUARD_INSTALL: i32 = 102;

/// Advice by which contents are lost.
const DISCARDING: [i32; 4] =
    [libc::MADV_DONTNEED, libc::MADV_FREE, libc::MADV_REMOVE, MADV_DONTNEED_LOCKED];
/// Advice by which a child gets something else.
const FORKING: [i32; 2] = [libc::MADV_DONTFORK, libc::MADV_WIPEONFORK];

/// Whether advice about a page must not be taken for its neighbours too.
pub fn is_for_pages_alone(advice: i32) -> bool {
    DISCARDING.contains(&advice) || FORKING.contains(&advice) || advice == MADV_GUARD_INSTALL
}

impl Memory {
    /// madvise(2).
    pub fn advise(&self, addr: u64, len: u64, advice: i32) -> SysResult {
        let range = advised_range(addr, len)?;
        let state = self.lock();
        let (discards, forks) = (DISCARDING.contains(&advice), FORKING.contains(&advice));
        let whole = !range.is_empty() && state.map.is_mapped(range.clone());
        if !whole {
            // No advice that there is not, even for nothing (is_madvise_valid).
            raw::madvise(0, 0, advice)?;
        }
        let parts: Vec<_> =
            state.map.clipped(range.clone()).filter(|(_, m)| !m.is_reserved()).collect();
        if discards || forks {
            parts.iter().try_for_each(|(part, m)| state.seals.check_discard(part, m))?;
        }
        for (part, mapping) in parts {
            if discards && advice != libc::MADV_REMOVE && self.is_pieced_together(&mapping) {
                self.clear(&state, &part, mapping.prot)?;
                continue;
            }
            let all = self.widen(&part);
            let range =
                if is_for_pages_alone(advice) { self.inner(&state, &part) } else { all.clone() };
            if forks && range != all {
                return Err(self.does_not_fit("memory that a child is to get otherwise", &part));
            }
            if range.start < range.end && !(discards && self.is_copy(&part, &mapping)) {
                raw::madvise(range.start, range.end - range.start, advice)?;
            }
        }
        let held_code = discards && self.holds_code(&state, &range);
        self.finish(state, range, held_code);
        if whole || len == 0 { Ok(0) } else { Err(ENOMEM) }
    }

    /// The host pages that belong to a range alone.
    fn inner(&self, state: &State, range: &Range<u64>) -> Range<u64> {
        let head = state.map.is_free(self.floor(range.start)..range.start);
        let tail = state.map.is_free(range.end..self.ceil(range.end));
        let start = if head { self.floor(range.start) } else { self.ceil(range.start) };
        start..if tail { self.ceil(range.end) } else { self.floor(range.end) }
    }

    /// Whether the host has no file behind a mapping of one, but a copy: to discard that would not bring the file's
    /// contents back.
    fn is_copy(&self, range: &Range<u64>, mapping: &Mapping) -> bool {
        match mapping.source {
            Source::File(_, offset) => {
                !mapping.shared && offset % self.host_page != range.start % self.host_page
            }
            _ => false,
        }
    }

    /// Makes anonymous memory zero again.
    fn clear(&self, state: &State, range: &Range<u64>, prot: u32) -> Result<(), Errno> {
        let Range { start, end } = self.inner(state, range);
        if start < end {
            raw::mmap(start, end - start, raw::host_prot(prot), RESERVE | FIXED, -1, 0)?;
            self.forget_watch(&(start..end));
        }
        self.zero(state, &(range.start..start.min(range.end)))?;
        self.zero(state, &(end.max(start).max(range.start)..range.end))
    }

    /// Clears memory of the guest that lies in host pages with something else.
    fn zero(&self, state: &State, range: &Range<u64>) -> Result<(), Errno> {
        if range.start >= range.end {
            return Ok(());
        }
        let wide = self.widen(range);
        raw::mprotect(wide.start, wide.end - wide.start, READ | WRITE)?;
        raw::fill(range.start, range.end - range.start, None)?;
        self.settle(state, range)
    }
}

/// The pages that madvise(2) names, as far as a guest can have them (is_madvise_valid).
fn advised_range(addr: u64, len: u64) -> Result<Range<u64>, Errno> {
    let end = len.checked_next_multiple_of(PAGE).and_then(|len| addr.checked_add(len));
    match end {
        Some(end) if addr.is_multiple_of(PAGE) => {
            Ok(addr.min(ADDRESS_LIMIT)..end.min(ADDRESS_LIMIT))
        }
        _ => Err(EINVAL),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::space::tests::{anonymous, memory, peek, poke};

    #[test]
    fn dontneed_clears_exactly_its_pages() {
        for host_page in [4096, 16384] {
            let memory = memory(host_page);
            let at = memory.map(&anonymous(0, 16, READ | WRITE, 0)).unwrap();
            for (start, end) in [(0, 16), (1, 15), (1, 2), (5, 11), (4, 8), (3, 4)] {
                (0..16).for_each(|i| poke(at + i * PAGE, 9));
                assert_eq!(
                    memory.advise(at + start * PAGE, (end - start) * PAGE, libc::MADV_DONTNEED),
                    Ok(0)
                );
                for i in 0..16 {
                    let kept = i < start || i >= end;
                    assert_eq!(
                        peek(at + i * PAGE),
                        if kept { 9 } else { 0 },
                        "{start}..{end} page {i}"
                    );
                }
            }
            memory.unmap(at + 4 * PAGE, 4 * PAGE).unwrap();
            assert_eq!(memory.advise(at, 16 * PAGE, libc::MADV_DONTNEED), Err(ENOMEM));
            assert_eq!(memory.advise(at + 1, PAGE, libc::MADV_DONTNEED), Err(EINVAL));
            assert_eq!(memory.advise(at + 4 * PAGE, 0, libc::MADV_DONTNEED), Ok(0));
            // In user mode QEMU takes any advice, so on arm64 this is left to `every-call`.
            if cfg!(target_arch = "x86_64") {
                assert_eq!(memory.advise(at, 0, 77), Err(EINVAL));
                assert_eq!(memory.advise(at + 4 * PAGE, PAGE, 77), Err(EINVAL));
            }
            assert_eq!(memory.advise(1 << 47, PAGE, libc::MADV_NORMAL), Err(ENOMEM));
            assert_eq!(memory.advise(at, u64::MAX, libc::MADV_NORMAL), Err(EINVAL));
            memory.unmap(at, 16 * PAGE).unwrap();
        }
    }

    #[test]
    fn neighbours_in_a_host_page_keep_to_themselves() {
        let memory = memory(16384);
        let at = memory.map(&anonymous(0, 8, READ | WRITE, 0)).unwrap();
        for advice in FORKING {
            assert_eq!(memory.advise(at + PAGE, PAGE, advice), Err(EINVAL));
            assert_eq!(memory.advise(at, 8 * PAGE, advice), Ok(0));
        }
        // Where the kernel knows it, and where it does not: there is no whole host page to be guarded.
        assert_eq!(memory.advise(at, PAGE, MADV_GUARD_INSTALL), Ok(0));
        poke(at + PAGE, 1);
        assert_eq!(peek(at), 0);
        memory.unmap(at, 8 * PAGE).unwrap();
    }
}
