//! mseal(2): mappings that nothing changes any more (mm/mseal.c).

use std::ops::Range;

use super::space::{EINVAL, ENOMEM, Memory, State, user_range};
use crate::abi::errno;
use crate::host::Errno;
use crate::memmap::{Mapping, PAGE, Source, WRITE};

/// The sealed ranges. They stay for the life of the address space.
#[derive(Debug, Default)]
pub(super) struct Seals(Vec<Range<u64>>);

impl Seals {
    fn touch(&self, range: &Range<u64>) -> bool {
        self.0.iter().any(|sealed| sealed.start < range.end && range.start < sealed.end)
    }

    /// EPERM if a part of a range is sealed: for calls that unmap, move, replace or protect it.
    pub(super) fn check(&self, range: &Range<u64>) -> Result<(), Errno> {
        if self.touch(range) { Err(errno::EPERM) } else { Ok(()) }
    }

    /// EPERM if a part of a range is sealed that madvise(2) would empty though it cannot be written
    /// (can_madv_modify).
    pub(super) fn check_discard(&self, range: &Range<u64>, mapping: &Mapping) -> Result<(), Errno> {
        let private =
            matches!(mapping.source, Source::Anonymous | Source::Named(_)) || !mapping.shared;
        if private && mapping.prot & WRITE == 0 { self.check(range) } else { Ok(()) }
    }
}

impl Memory {
    /// mseal(2).
    pub fn seal(&self, start: u64, len: u64, flags: u64) -> Result<(), Errno> {
        if flags != 0 || !start.is_multiple_of(PAGE) {
            return Err(EINVAL);
        }
        if len.checked_next_multiple_of(PAGE).and_then(|len| start.checked_add(len)).is_none() {
            return Err(EINVAL);
        }
        let range = user_range(start, len).ok_or(ENOMEM)?;
        if range.is_empty() {
            return Ok(());
        }
        let mut state = self.lock();
        let State { map, seals, .. } = &mut *state;
        if !map.is_mapped(range.clone()) || map.has_reserved(range.clone()) {
            return Err(ENOMEM);
        }
        seals.0.push(range);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memmap::READ;
    use crate::memory::space::tests::{anonymous, memory};

    const EPERM: Errno = errno::EPERM;

    #[test]
    fn what_is_sealed_stays() {
        for host_page in [4096, 16384] {
            let memory = memory(host_page);
            let at = memory.map(&anonymous(0, 8, READ | WRITE, 0)).unwrap();
            assert_eq!(memory.seal(at + 1, PAGE, 0), Err(EINVAL));
            assert_eq!(memory.seal(at, PAGE, 1), Err(EINVAL));
            assert_eq!(memory.seal(at, u64::MAX - PAGE, 0), Err(EINVAL));
            assert_eq!(memory.seal(at, 0, 0), Ok(()));
            assert_eq!(memory.seal(at + (64 << 20), PAGE, 0), Err(ENOMEM));
            memory.protect(at, 2 * PAGE, READ).unwrap();
            assert_eq!(memory.seal(at + PAGE, 2 * PAGE, 0), Ok(()));
            assert_eq!(memory.unmap(at, 2 * PAGE), Err(EPERM));
            assert_eq!(memory.protect(at + 2 * PAGE, 2 * PAGE, READ), Err(EPERM));
            let fixed = libc::MAP_FIXED as u32;
            assert_eq!(memory.map(&anonymous(at + 2 * PAGE, 1, READ, fixed)), Err(EPERM));
            assert_eq!(memory.remap(at + 2 * PAGE, PAGE, 2 * PAGE, 1, 0), Err(EPERM));
            // What can be written can be emptied by writing.
            assert_eq!(memory.advise(at + PAGE, PAGE, libc::MADV_DONTNEED), Err(EPERM));
            assert_eq!(memory.advise(at + 2 * PAGE, PAGE, libc::MADV_DONTNEED), Ok(0));
            assert_eq!(memory.advise(at + PAGE, PAGE, libc::MADV_NORMAL), Ok(0));
            // Its neighbours are as they were.
            assert_eq!(memory.protect(at, PAGE, READ), Ok(()));
            assert_eq!(memory.unmap(at + 4 * PAGE, 4 * PAGE), Ok(()));
        }
    }
}
