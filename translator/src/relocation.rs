//! What of a translation depends on where something is. The records are kept with each region, so that translations can
//! be moved, and used for a guest image at another base.

use crate::asm::Reloc;
use crate::tramp::Trampoline;

/// A place in a region's code that depends on an address, in 32 bits: the index of its word, and above it the kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relocation(u32);

/// Kinds are [`NONE`], [`GUEST`], [`EXIT`] and the trampolines.
const KIND_AT: u32 = 28;
const NONE: u32 = 0;
const GUEST: u32 = 1;
const EXIT: u32 = 2;
const TRAMPOLINES: u32 = 3;

impl Relocation {
    /// What is at an offset, which is less than 2^30.
    pub fn new(offset: u32, reloc: Reloc) -> Self {
        let kind = match reloc {
            Reloc::None => NONE,
            Reloc::Guest => GUEST,
            Reloc::Exit => EXIT,
            Reloc::Trampoline(t) => TRAMPOLINES + t as u32,
        };
        Relocation(kind << KIND_AT | (offset / 4))
    }

    /// The offset from the region's start.
    pub fn offset(self) -> u32 {
        (self.0 & ((1 << KIND_AT) - 1)) * 4
    }

    /// The offset of an exit.
    #[inline]
    pub fn exit(self) -> Option<u32> {
        (self.0 >> KIND_AT == EXIT).then_some(self.offset())
    }

    /// The offset of a guest address.
    pub fn guest(self) -> Option<u32> {
        match self.reloc() {
            Reloc::Guest => Some(self.offset()),
            Reloc::Exit => Some(self.offset() + 4),
            Reloc::None | Reloc::Trampoline(_) => None,
        }
    }

    /// What is there.
    #[inline]
    pub fn reloc(self) -> Reloc {
        match self.0 >> KIND_AT {
            NONE => Reloc::None,
            GUEST => Reloc::Guest,
            EXIT => Reloc::Exit,
            t => Reloc::Trampoline(Trampoline::ALL[(t - TRAMPOLINES) as usize]),
        }
    }
}

/// Makes a region's code that of the same guest code `by` bytes further up.
pub fn rebase(code: &mut [u32], relocations: impl IntoIterator<Item = Relocation>, by: u64) {
    for offset in relocations.into_iter().filter_map(Relocation::guest) {
        let at = offset as usize / 4;
        let address = (u64::from(code[at + 1]) << 32 | u64::from(code[at])).wrapping_add(by);
        (code[at], code[at + 1]) = (address as u32, (address >> 32) as u32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_what_it_was_made_of() {
        let trampolines = Trampoline::ALL.map(Reloc::Trampoline);
        for reloc in [&[Reloc::None, Reloc::Guest, Reloc::Exit][..], &trampolines].concat() {
            for offset in [0, 4, 0x1234, (1 << 30) - 4] {
                let relocation = Relocation::new(offset, reloc);
                assert_eq!((relocation.offset(), relocation.reloc()), (offset, reloc));
            }
        }
    }

    #[test]
    fn trampolines_are_in_order() {
        for (at, t) in Trampoline::ALL.into_iter().enumerate() {
            assert_eq!(t as usize, at);
        }
    }

    #[test]
    fn only_guest_addresses_move() {
        let mut code = [0xffff_fff0, 7, 0x9400_0000, 0xffff_fff0, 7, 0x9400_0000, 0xffff_fff0, 7];
        let relocations =
            [(0, Reloc::Guest), (8, Reloc::Trampoline(Trampoline::Direct)), (20, Reloc::Exit)];
        rebase(&mut code, relocations.map(|(at, reloc)| Relocation::new(at, reloc)), 0x20);
        assert_eq!(code, [0x10, 8, 0x9400_0000, 0xffff_fff0, 7, 0x9400_0000, 0x10, 8]);
    }
}
