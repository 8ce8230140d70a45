//! AES, PCLMULQDQ and SHA-1.
//!
//! AES and PCLMULQDQ need the host's own; CPUID must not announce them without. SHA without the host's own goes to
//! helpers. Arm keeps the words of a hash in ascending lanes, x86 in descending ones.

use super::operands::vec_of;
use super::table::{Rows, plain};
use super::{Lower, Lowered, Unimplemented, VZERO};
use crate::asm::{R, V, Width};
use crate::helpers::Helper;
use dynasmrt::{DynasmApi, dynasm};
use iced_x86::{Instruction, Mnemonic as M};

pub(super) const ROWS: Rows = &[
    plain(M::Aesenc, aes_round),
    plain(M::Aesenclast, aes_round),
    plain(M::Aesdec, aes_round),
    plain(M::Aesdeclast, aes_round),
    plain(M::Aesimc, aesimc),
    plain(M::Aeskeygenassist, aeskeygenassist),
    plain(M::Pclmulqdq, pclmulqdq),
    plain(M::Sha1rnds4, sha1rnds4),
    plain(M::Sha1nexte, sha1nexte),
    plain(M::Sha1msg1, sha1msg1),
    plain(M::Sha1msg2, sha1msg2),
];

/// x86 adds the round key last, Arm first: Arm's round of the state with the key of the round before, which is zero if that
/// one is done with, then the key.
fn aes_round(l: &mut Lower, ins: &Instruction) -> Lowered {
    if !l.config.host.aes {
        return Err(Unimplemented);
    }
    let d = vec_of(ins.op0_register());
    let mut key = l.vread(ins, 1, 16);
    if key == d {
        key = l.vtmp();
        l.vmov(key, d);
    }
    let first = l.added_before(d);
    match ins.mnemonic() {
        M::Aesenc => dynasm!(l.a; .arch aarch64
            ; aese V(d.0).b16, V(first.0).b16
            ; aesmc V(d.0).b16, V(d.0).b16),
        M::Aesenclast => dynasm!(l.a; .arch aarch64; aese V(d.0).b16, V(first.0).b16),
        M::Aesdec => dynasm!(l.a; .arch aarch64
            ; aesd V(d.0).b16, V(first.0).b16
            ; aesimc V(d.0).b16, V(d.0).b16),
        _ => dynasm!(l.a; .arch aarch64; aesd V(d.0).b16, V(first.0).b16),
    }
    dynasm!(l.a; .arch aarch64; eor V(d.0).b16, V(d.0).b16, V(key.0).b16);
    Ok(())
}

fn aesimc(l: &mut Lower, ins: &Instruction) -> Lowered {
    if !l.config.host.aes {
        return Err(Unimplemented);
    }
    let n = l.vread(ins, 1, 16);
    let d = vec_of(ins.op0_register());
    dynasm!(l.a; .arch aarch64; aesimc V(d.0).b16, V(n.0).b16);
    Ok(())
}

/// The bytes of AESKEYGENASSIST's result in the substituted state behind AESE, which has also shifted
/// the rows: row r of column c has come from column c + r.
fn key_assist_indices() -> u128 {
    let substituted = |row: u32, column: u32| row + 4 * ((column + 4 - row) % 4);
    (0..16).rev().fold(0, |v, i| {
        let (word, byte) = (i / 4, i % 4);
        let column = if word < 2 { 1 } else { 3 };
        let row = (byte + word % 2) % 4; // RotWord in the odd words
        v << 8 | u128::from(substituted(row, column))
    })
}

fn aeskeygenassist(l: &mut Lower, ins: &Instruction) -> Lowered {
    if !l.config.host.aes {
        return Err(Unimplemented);
    }
    let n = l.vread(ins, 1, 16);
    let d = vec_of(ins.op0_register());
    let (t, indices) = (l.vtmp(), l.vtmp());
    let constant = u128::from(ins.immediate8());
    l.vzero(t);
    l.a.ldr_literal_q(indices, key_assist_indices());
    dynasm!(l.a; .arch aarch64
        ; aese V(t.0).b16, V(n.0).b16
        ; tbl V(d.0).b16, {V(t.0).b16 * 1}, V(indices.0).b16
    );
    if constant != 0 {
        l.a.ldr_literal_q(t, constant << 32 | constant << 96);
        dynasm!(l.a; .arch aarch64; eor V(d.0).b16, V(d.0).b16, V(t.0).b16);
    }
    Ok(())
}

/// Carry-less product of the halves that the immediate's bits 0 and 4 select.
fn pclmulqdq(l: &mut Lower, ins: &Instruction) -> Lowered {
    if !l.config.host.pmull {
        return Err(Unimplemented);
    }
    let d = vec_of(ins.op0_register());
    let m = l.vread(ins, 1, 16);
    let imm = ins.immediate8();
    match (imm & 1 != 0, imm & 16 != 0) {
        (false, false) => dynasm!(l.a; .arch aarch64; pmull V(d.0).q1, V(d.0).d1, V(m.0).d1),
        (true, true) => dynasm!(l.a; .arch aarch64; pmull2 V(d.0).q1, V(d.0).d2, V(m.0).d2),
        (first_high, _) => {
            // The high half of the one against the low half of the other.
            let (high, low) = if first_high { (d, m) } else { (m, d) };
            let t = l.vtmp();
            dynasm!(l.a; .arch aarch64
                ; dup V(t.0).d2, V(high.0).d[1]
                ; pmull V(d.0).q1, V(t.0).d1, V(low.0).d1);
        }
    }
    Ok(())
}

impl Lower<'_> {
    /// Takes an addition to the state back if it was emitted last: AESE and AESD do it first. Returns what is to be added.
    fn added_before(&mut self, d: V) -> V {
        const EOR: u32 = 0x6e20_1c00; // d, n, m (Arm ARM C7.2.41)
        let to_itself = EOR | d.n() << 5 | d.n();
        let last = self.a.last_word().copied();
        let key = last.filter(|last| last & !(31 << 16) == to_itself).map(|last| last >> 16 & 31);
        match key {
            Some(key) if key != d.n() && self.take_back(to_itself | key << 16) => V(key as u8),
            _ => VZERO,
        }
    }

    /// The four words in reverse order.
    fn reverse_words(&mut self, d: V, n: V) {
        dynasm!(self.a; .arch aarch64
            ; rev64 V(d.0).s4, V(n.0).s4
            ; ext V(d.0).b16, V(d.0).b16, V(d.0).b16, 8);
    }

    /// Calls a helper with a vector operand by value and further arguments in a constant.
    pub(super) fn call_with_vector(&mut self, h: Helper, m: V, third: u64) {
        dynasm!(self.a; .arch aarch64; fmov x20, D(m.0); umov x21, V(m.0).d[1]);
        self.a.mov_imm(Width::X, R(22), third);
        self.call_helper(h);
    }
}

/// What a host without SHA instructions does.
pub(super) fn call_sha(l: &mut Lower, ins: &Instruction, helper: Helper) -> Lowered {
    let m = l.vread(ins, 1, 16);
    let d = vec_of(ins.op0_register());
    let imm = if ins.mnemonic() == M::Sha1rnds4 { u64::from(ins.immediate8()) } else { 0 };
    l.call_with_vector(helper, m, u64::from(d.n()) | imm << 8);
    Ok(())
}

/// Four rounds. The second operand holds the message words, to the first of which E has been added.
fn sha1rnds4(l: &mut Lower, ins: &Instruction) -> Lowered {
    const CONSTANTS: [u32; 4] = [0x5a82_7999, 0x6ed9_eba1, 0x8f1b_bcdc, 0xca62_c1d6];
    if !l.config.host.sha1 {
        return call_sha(l, ins, Helper::Sha1Rnds4);
    }
    let m = l.vread(ins, 1, 16);
    let d = vec_of(ins.op0_register());
    let (abcd, words, e) = (l.vtmp(), l.vtmp(), l.vtmp());
    let function = ins.immediate8() & 3;
    let constant = u128::from(CONSTANTS[usize::from(function)]);
    l.a.ldr_literal_q(e, constant | constant << 32 | constant << 64 | constant << 96);
    dynasm!(l.a; .arch aarch64; add V(words.0).s4, V(m.0).s4, V(e.0).s4);
    l.reverse_words(words, words);
    l.reverse_words(abcd, d);
    l.vzero(e);
    match function {
        0 => dynasm!(l.a; .arch aarch64; sha1c Q(abcd.0), S(e.0), V(words.0).s4),
        2 => dynasm!(l.a; .arch aarch64; sha1m Q(abcd.0), S(e.0), V(words.0).s4),
        _ => dynasm!(l.a; .arch aarch64; sha1p Q(abcd.0), S(e.0), V(words.0).s4),
    }
    l.reverse_words(d, abcd);
    Ok(())
}

/// A of four rounds ago, rotated, is E: it is added to the highest word.
fn sha1nexte(l: &mut Lower, ins: &Instruction) -> Lowered {
    if !l.config.host.sha1 {
        return call_sha(l, ins, Helper::Sha1Nexte);
    }
    let m = l.vread(ins, 1, 16);
    let d = vec_of(ins.op0_register());
    let e = l.vtmp();
    dynasm!(l.a; .arch aarch64
        ; dup S(e.0), V(d.0).s[3]
        ; sha1h S(e.0), S(e.0)
        ; ext V(e.0).b16, V(VZERO.0).b16, V(e.0).b16, 4
        ; add V(d.0).s4, V(m.0).s4, V(e.0).s4);
    Ok(())
}

fn sha1msg1(l: &mut Lower, ins: &Instruction) -> Lowered {
    let m = l.vread(ins, 1, 16);
    let d = vec_of(ins.op0_register());
    let t = l.vtmp();
    dynasm!(l.a; .arch aarch64
        ; ext V(t.0).b16, V(m.0).b16, V(d.0).b16, 8
        ; eor V(d.0).b16, V(d.0).b16, V(t.0).b16);
    Ok(())
}

/// w\[16..20\] in descending lanes; the last of them needs the first.
fn sha1msg2(l: &mut Lower, ins: &Instruction) -> Lowered {
    let m = l.vread(ins, 1, 16);
    let d = vec_of(ins.op0_register());
    let (t, first) = (l.vtmp(), l.vtmp());
    dynasm!(l.a; .arch aarch64
        ; ext V(t.0).b16, V(VZERO.0).b16, V(m.0).b16, 12
        ; eor V(t.0).b16, V(t.0).b16, V(d.0).b16
        ; shl V(d.0).s4, V(t.0).s4, 1
        ; sri V(d.0).s4, V(t.0).s4, 31
        ; ext V(t.0).b16, V(d.0).b16, V(VZERO.0).b16, 12
        ; shl V(first.0).s4, V(t.0).s4, 1
        ; sri V(first.0).s4, V(t.0).s4, 31
        ; eor V(d.0).b16, V(d.0).b16, V(first.0).b16);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_assist_undoes_the_shift_of_rows() {
        // Row 0 is not shifted: words 0 and 2 begin with the bytes 4 and 12.
        let bytes = key_assist_indices().to_le_bytes();
        assert_eq!((bytes[0], bytes[8]), (4, 12));
        assert_eq!(bytes[7], bytes[0]); // rotated
        assert!(bytes.iter().all(|b| *b < 16));
    }
}
