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

/// LDR q1, \[x1, #16\]: its register, and base and offset in units of 16 (Arm ARM C7.2.204).
fn vector_load(word: u32) -> Option<(u32, u32, i32)> {
    let fits = word & 0xffc0_0000 == 0x3dc0_0000;
    fits.then_some((word & 31, word >> 5 & 31, (word >> 10 & 0xfff) as i32))
}

/// LDP of two loads of neighbours, the lower one last (Arm ARM C7.2.201).
fn pair(upper: u32, lower: u32) -> Option<u32> {
    let ((second, base, above), (first, n, offset)) = (vector_load(upper)?, vector_load(lower)?);
    let fits = base == n && above == offset + 1 && offset < 64 && first != second;
    fits.then_some(0xad40_0000 | (offset as u32) << 15 | second << 10 | n << 5 | first)
}

/// LDP q1, q2, \[x1\] as LDP q1, q2, \[x1\], #by.
fn post_indexed_pair(word: u32, base: R, by: i64) -> Option<u32> {
    let fits = word & 0xffff_8000 == 0xad40_0000
        && word >> 5 & 31 == base.n()
        && by % 16 == 0
        && (-1024..1024).contains(&by);
    fits.then_some(word & !0x0100_0000 | 0x0080_0000 | ((by / 16) as u32 & 0x7f) << 15)
}

impl Lower<'_> {
    /// Makes one instruction of the last two, if they load vector registers from neighbouring places, the upper one first.
    pub fn pair_loads(&mut self) {
        let [.., upper, lower] = *self.a.code() else { return };
        if self.a.last_word().is_some()
            && let Some(word) = pair(upper, lower)
            && self.a.take_back(lower)
        {
            match self.a.last_word() {
                Some(last) => *last = word,
                None => self.a.word(lower),
            }
        }
    }

    /// Takes back the last instruction, if it is this one, of a guest instruction before the current one, which has emitted
    /// nothing: that does the work as well.
    pub fn take_back(&mut self, word: u32) -> bool {
        let here = self.a.pos();
        if !self.a.take_back(word) {
            return false;
        }
        for entry in self.out.map.iter_mut().rev().take_while(|entry| entry.host == here) {
            entry.host = self.a.pos();
            entry.enterable = false;
        }
        true
    }

    /// Makes the last instruction, if it loads a pair from the address in a register, advance that.
    pub fn advance_pair(&mut self, base: R, by: i64) -> bool {
        let Some(last) = self.a.last_word() else { return false };
        let Some(word) = post_indexed_pair(*last, base, by) else { return false };
        *last = word;
        true
    }

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

    #[test]
    fn pairs() {
        let (q2, q3) = (0x3dc0_0422, 0x3dc0_0823); // ldr q2, [x1, #16]; ldr q3, [x1, #32]
        assert_eq!(pair(q3, q2), Some(0xad40_8c22)); // ldp q2, q3, [x1, #16]
        assert_eq!(pair(q2, q3), None); // the lower one first
        assert_eq!(pair(0x3dc0_0843, q2), None); // ldr q3, [x2, #32]
        assert_eq!(pair(0x3dc0_0822, q2), None); // ldr q2, [x1, #32]
        assert_eq!(pair(0x3dc1_0423, 0x3dc1_0022), None); // #1040 and #1024
        assert_eq!(pair(0xf940_0423, q2), None); // ldr x3, [x1, #8]
        let pair = 0xad40_0c22; // ldp q2, q3, [x1]
        assert_eq!(post_indexed_pair(pair, R(1), 96), Some(0xacc3_0c22));
        assert_eq!(post_indexed_pair(pair, R(1), -16), Some(0xacff_8c22));
        assert_eq!(post_indexed_pair(pair, R(2), 96), None);
        assert_eq!(post_indexed_pair(pair, R(1), 1024), None);
        assert_eq!(post_indexed_pair(pair, R(1), 8), None);
        assert_eq!(post_indexed_pair(0xad40_8c22, R(1), 96), None); // [x1, #16]
    }
}
