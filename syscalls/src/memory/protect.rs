//! mprotect(2).

use std::ops::Range;

use super::raw::{self, host_prot};
use super::space::{ADDRESS_LIMIT, EINVAL, ENOMEM, Memory, State};
use super::write_exec;
use crate::host::Errno;
use crate::memmap::{EXEC, Mapping, PAGE, READ, Source, WRITE};

impl Memory {
    /// mprotect(2).
    pub fn protect(&self, addr: u64, len: u64, prot: u32) -> Result<(), Errno> {
        let Some(range) = protected_range(addr, len, prot)? else { return Ok(()) };
        let mut state = self.lock();
        // What lies before a hole is changed all the same.
        let until = state.map.mapped_until(range.clone());
        let whole = if until == range.end { Ok(()) } else { Err(ENOMEM) };
        let range = range.start..until;
        if range.is_empty() {
            return whole;
        }
        state.seals.check(&range)?;
        let before: Vec<_> = state.map.clipped(range.clone()).collect();
        before.iter().try_for_each(|(_, m)| write_exec::check(Some(m.prot), prot))?;
        if let Err(error) = before.iter().try_for_each(|part| self.check_exec(&state, part, prot)) {
            self.settle(&state, &range)?;
            return Err(error);
        }
        let held_code = self.holds_code(&state, &range);
        state.map.update(range.clone(), |m| m.prot = prot & (READ | WRITE | EXEC));
        let result = self.settle(&state, &range);
        if result.is_err() {
            for (part, mapping) in before {
                state.map.insert(part, mapping);
            }
            self.settle(&state, &range)?;
        }
        let held_code = held_code || self.holds_code(&state, &range);
        let twins = self.executable_twins(&state, &range);
        self.finish(state, range, held_code);
        self.forget_code(twins);
        result.and(whole)
    }

    /// Whether a part that is to become executable may be: nothing of a mount with `noexec` may, which the host keeps
    /// with its mapping (VM_MAYEXEC). What this leaves behind has to be settled.
    fn check_exec(
        &self,
        state: &State,
        (part, mapping): &(Range<u64>, Mapping),
        prot: u32,
    ) -> Result<(), Errno> {
        let gains = prot & !mapping.prot & EXEC != 0;
        if !gains || !matches!(mapping.source, Source::File(..)) {
            return Ok(());
        }
        let page = self.floor(part.start);
        let (before, _) = self.uniform(state, page, page + self.host_page);
        raw::mprotect(page, self.host_page, host_prot(before.unwrap_or(0)) | EXEC)
    }
}

/// What mprotect(2) is to change, in the order in which do_mprotect_pkey refuses; nothing for no bytes.
fn protected_range(addr: u64, len: u64, prot: u32) -> Result<Option<Range<u64>>, Errno> {
    const SEM: u32 = 8;
    const GROWS: u32 = (libc::PROT_GROWSDOWN | libc::PROT_GROWSUP) as u32;
    if prot & GROWS == GROWS || !addr.is_multiple_of(PAGE) {
        return Err(EINVAL);
    }
    if len == 0 {
        return Ok(None);
    }
    let len = len.checked_next_multiple_of(PAGE).ok_or(ENOMEM)?;
    let end = addr.checked_add(len).ok_or(ENOMEM)?;
    if prot & !(READ | WRITE | EXEC | SEM | GROWS) != 0 {
        return Err(EINVAL);
    }
    // What reaches further has a hole behind the guest's last page.
    if addr >= ADDRESS_LIMIT { Err(ENOMEM) } else { Ok(Some(addr..end)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::space::tests::{anonymous, memory};

    /// As do_mprotect_pkey.
    #[test]
    fn what_cannot_be_protected() {
        let memory = memory(4096);
        let at = memory.map(&anonymous(0, 4, READ, 0)).unwrap();
        memory.unmap(at + 2 * PAGE, PAGE).unwrap();
        assert_eq!(memory.protect(at + 1, PAGE, READ), Err(EINVAL));
        assert_eq!(memory.protect(at + 1, 0, READ), Err(EINVAL));
        assert_eq!(memory.protect(at, PAGE, 0x10), Err(EINVAL));
        assert_eq!(memory.protect(1 << 47, 0, 0x10), Ok(()));
        assert_eq!(memory.protect(at, u64::MAX, READ), Err(ENOMEM));
        assert_eq!(memory.protect(1 << 47, PAGE, READ), Err(ENOMEM));
        assert_eq!(memory.protect(at + 2 * PAGE, PAGE, READ), Err(ENOMEM));
        assert_eq!(memory.protect(at, 4 * PAGE, READ | WRITE), Err(ENOMEM));
        let prot = [0, 1, 3].map(|page| memory.protection(at + page * PAGE));
        assert_eq!(prot, [Some(READ | WRITE), Some(READ | WRITE), Some(READ)]);
    }
}
