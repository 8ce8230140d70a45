//! An access and the addition to its base register that follows, as one instruction: LDR q1, \[x1\], #16.
//!
//! A loop over an array advances its pointer behind the access. If the access faults, the register is not changed
//! (Arm ARM D1.3.5: a synchronous data abort restores the base), which is the guest's state before its access.

use super::Lower;
use crate::asm::R;

/// LDR and STR of one register, `[base, #0]`, as `[base], #by` (Arm ARM C4.1.94: load/store register, unsigned immediate and
/// immediate post-indexed). None if the word is something else, or the form does not exist.
fn post_indexed(word: u32, base: R, by: i64) -> Option<u32> {
    let is_access = word & 0x3b00_0000 == 0x3900_0000;
    let is_vector = word >> 26 & 1 != 0;
    let is_prefetch = word & 0xffc0_0000 == 0xf980_0000;
    let (offset, n, t) = (word >> 10 & 0xfff, word >> 5 & 31, word & 31);
    // The transferred register must not be the base.
    let fits = is_access
        && !is_prefetch
        && offset == 0
        && n == base.n()
        && (is_vector || t != n)
        && (-256..256).contains(&by);
    fits.then_some(word & !0x0100_0000 | (by as u32 & 0x1ff) << 12 | 0x400)
}

impl Lower<'_> {
    /// Makes the current instruction, an addition of a constant to a register and nothing else, part of the access before it.
    /// Returns false if there is none.
    pub fn post_index(&mut self, base: R, by: i64) -> bool {
        let here = self.a.pos();
        let alone = self.out.map.last().is_some_and(|entry| entry.host == here);
        if !alone || self.index == 0 || self.region.insns[self.index].join || base.0 >= 16 {
            return false;
        }
        let Some(access) = self.a.last_word() else { return false };
        let Some(word) = post_indexed(*access, base, by) else { return false };
        *access = word;
        self.needs_what_ran_before(self.index - 1);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings() {
        let x1 = R(1);
        assert_eq!(post_indexed(0x3dc0_0021, x1, 16), Some(0x3cc1_0421)); // ldr q1, [x1], #16
        assert_eq!(post_indexed(0x3900_0022, x1, -1), Some(0x381f_f422)); // strb w2, [x1], #-1
        assert_eq!(post_indexed(0xf940_0023, x1, 255), Some(0xf84f_f423)); // ldr x3, [x1], #255
        assert_eq!(post_indexed(0xf940_0023, x1, 256), None);
        assert_eq!(post_indexed(0xf940_0423, x1, 8), None); // [x1, #8]
        assert_eq!(post_indexed(0xf940_0021, x1, 8), None); // ldr x1, [x1]
        assert_eq!(post_indexed(0xf940_0043, x1, 8), None); // [x2]
        assert_eq!(post_indexed(0xf980_0020, x1, 8), None); // prfm
        assert_eq!(post_indexed(0x9100_2021, x1, 8), None); // add x1, x1, #8
    }
}
