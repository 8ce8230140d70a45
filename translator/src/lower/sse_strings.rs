//! The string comparisons of SSE4.2: PCMPESTRI, PCMPESTRM, PCMPISTRI, PCMPISTRM (Intel SDM vol. 2, 4.1).
//!
//! Those that strcmp, strcspn and their kin are made of are translated; the others go to a helper.

use super::operands::vec_of;
use super::table::{Rows, row};
use super::{AF, Carry, Lower, Lowered, PF, VZERO};
use crate::asm::{Cond, R, V, Width};
use crate::flags::Flags;
use crate::helpers::Helper;
use crate::vector::string_form;
use dynasmrt::{DynasmApi, dynasm};
use iced_x86::{Instruction, Mnemonic as M};

pub(super) const ROWS: Rows = &[
    row(M::Pcmpestri, compare_strings, Flags::NONE, Flags::ALL),
    row(M::Pcmpestri64, compare_strings, Flags::NONE, Flags::ALL),
    row(M::Pcmpestrm, compare_strings, Flags::NONE, Flags::ALL),
    row(M::Pcmpestrm64, compare_strings, Flags::NONE, Flags::ALL),
    row(M::Pcmpistri, compare_strings, Flags::NONE, Flags::ALL),
    row(M::Pcmpistrm, compare_strings, Flags::NONE, Flags::ALL),
];

/// Where the index goes.
const RCX: R = R(1);
/// Where the lengths are of the first and the second string, if they are given.
const LENGTHS: [R; 2] = [R(0), R(2)];

fn compare_strings(l: &mut Lower, ins: &Instruction) -> Lowered {
    use string_form::*;
    let m = l.vread(ins, 1, 16);
    let n = vec_of(ins.op0_register());
    let form = match ins.mnemonic() {
        M::Pcmpestri => EXPLICIT,
        M::Pcmpestri64 => EXPLICIT | WIDE,
        M::Pcmpestrm => EXPLICIT | MASK,
        M::Pcmpestrm64 => EXPLICIT | WIDE | MASK,
        M::Pcmpistrm => MASK,
        _ => 0,
    };
    let mode = ins.immediate8();
    if form & MASK == 0 && mode & 0b100_0100 == 0 {
        let lengths = match form {
            EXPLICIT => Some(Width::W),
            0 => None,
            _ => Some(Width::X),
        };
        least_index(l, n, m, mode, lengths);
        return Ok(());
    }
    let third = u64::from(n.n()) | u64::from(mode) << 8 | form;
    l.call_with_vector(Helper::CompareStrings, m, third);
    Ok(())
}

/// PCMPISTRI and PCMPESTRI "equal any" and "equal each" with the least significant index: element by element, until a string
/// ends. `lengths` is the width of their lengths, if they are given.
///
/// A vector of lanes that are all ones or all zeros becomes 64 bits, 4 for a byte and 8 for a word.
fn least_index(l: &mut Lower, n: V, m: V, mode: u8, lengths: Option<Width>) {
    let words = mode & 1 != 0;
    let any = mode & 0b1000 == 0;
    // The second string is there: its address is not needed any more.
    l.temps_used = 0;
    let lengths = lengths.map(|w| LENGTHS.map(|given| length(l, w, given, words)));
    let [ended_n, ended_m] = match lengths {
        Some(lengths) => lengths.map(|length| behind(l, length, words)),
        None => [n, m].map(|string| ended(l, string, words)),
    };
    let (result, t) = (l.tmp(), l.tmp());
    if any {
        equal_any(l, result, n, m, words, lengths.map(|[n, _]| n));
        l.a.bic(Width::X, result, result, ended_m);
    } else {
        let v = l.vtmp();
        equal_lanes(l, v, n, m, words);
        narrow(l, result, v);
        // Elements are equal that are so where both strings go on, and where both have ended.
        l.a.orr(Width::X, t, ended_n, ended_m);
        l.a.bic(Width::X, result, result, t);
        l.a.and(Width::X, t, ended_n, ended_m);
        l.a.orr(Width::X, result, result, t);
    }
    match mode >> 4 & 3 {
        1 => l.a.mvn(Width::X, result, result),
        3 => {
            // Where the second string goes on.
            l.a.mvn(Width::X, t, ended_m);
            l.a.eor(Width::X, result, result, t);
        }
        _ => {}
    }
    l.string_flags(result, ended_n, ended_m);
    l.a.rbit(Width::X, result, result);
    l.a.clz(Width::X, result, result);
    l.a.lsr(Width::X, RCX, result, if words { 3 } else { 2 });
}

/// How many elements a string has whose length is given, with any sign (Intel SDM vol. 2, 4.1.3).
fn length(l: &mut Lower, w: Width, given: R, words: bool) -> R {
    let (length, all) = (l.tmp(), R(30));
    l.a.subs_imm(w, R::ZR, given, 0);
    l.a.csneg(w, length, given, given, Cond::Pl);
    l.a.mov_imm(Width::W, all, if words { 8 } else { 16 });
    l.a.subs(w, R::ZR, length, all);
    l.a.csel(w, length, length, all, Cond::Cc);
    length
}

/// The elements behind so many.
fn behind(l: &mut Lower, length: R, words: bool) -> R {
    let (bits, behind) = (R(30), l.tmp());
    // In two steps: all of them are 64 bits.
    l.a.lsl(Width::X, bits, length, if words { 2 } else { 1 });
    l.a.mov_imm(Width::X, behind, u64::MAX);
    l.a.lslv(Width::X, behind, behind, bits);
    l.a.lslv(Width::X, behind, behind, bits);
    behind
}

/// Lanes of `m` that are among the elements of `n`, one after the other: so many as are in a register, which then holds
/// nothing else; or those before its first zero.
fn equal_any(l: &mut Lower, result: R, n: V, m: V, words: bool, count: Option<R>) {
    let (found, rest, sought) = (l.vtmp(), l.vtmp(), l.vtmp());
    let element = R(30);
    let (next, done) = (l.a.label(), l.a.label());
    dynasm!(l.a; .arch aarch64; movi V(found.0).d2, 0; mov V(rest.0).b16, V(n.0).b16);
    lowest(l, element, rest, words);
    l.a.cbz(Width::W, count.unwrap_or(element), done);
    l.a.bind(next);
    if words {
        dynasm!(l.a; .arch aarch64
            ; dup V(sought.0).h8, W(element.0)
            ; ext V(rest.0).b16, V(rest.0).b16, V(VZERO.0).b16, 2);
    } else {
        dynasm!(l.a; .arch aarch64
            ; dup V(sought.0).b16, W(element.0)
            ; ext V(rest.0).b16, V(rest.0).b16, V(VZERO.0).b16, 1);
    }
    equal_lanes(l, sought, sought, m, words);
    dynasm!(l.a; .arch aarch64; orr V(found.0).b16, V(found.0).b16, V(sought.0).b16);
    lowest(l, element, rest, words);
    if let Some(count) = count {
        l.a.sub_imm(Width::W, count, count, 1);
    }
    l.a.cbnz(Width::W, count.unwrap_or(element), next);
    l.a.bind(done);
    narrow(l, result, found);
}

/// The lowest element.
fn lowest(l: &mut Lower, d: R, v: V, words: bool) {
    if words {
        dynasm!(l.a; .arch aarch64; umov W(d.0), V(v.0).h[0]);
    } else {
        dynasm!(l.a; .arch aarch64; umov W(d.0), V(v.0).b[0]);
    }
}

/// The lanes that are equal.
fn equal_lanes(l: &mut Lower, d: V, n: V, m: V, words: bool) {
    if words {
        dynasm!(l.a; .arch aarch64; cmeq V(d.0).h8, V(n.0).h8, V(m.0).h8);
    } else {
        dynasm!(l.a; .arch aarch64; cmeq V(d.0).b16, V(n.0).b16, V(m.0).b16);
    }
}

/// The elements of a string from its lowest zero on.
fn ended(l: &mut Lower, string: V, words: bool) -> R {
    let (zero, ended) = (R(30), l.tmp());
    let v = l.vtmp();
    if words {
        dynasm!(l.a; .arch aarch64; cmeq V(v.0).h8, V(string.0).h8, 0);
    } else {
        dynasm!(l.a; .arch aarch64; cmeq V(v.0).b16, V(string.0).b16, 0);
    }
    narrow(l, zero, v);
    l.a.neg(Width::X, ended, zero);
    l.a.orr(Width::X, ended, ended, zero);
    ended
}

/// Half of the bits of each byte of a vector of lanes that are all ones or all zeros.
fn narrow(l: &mut Lower, d: R, v: V) {
    dynasm!(l.a; .arch aarch64; shrn V(v.0).b8, V(v.0).h8, 4; fmov X(d.0), D(v.0));
}

impl Lower<'_> {
    /// CF: the result is not zero. ZF and SF: the second and the first string end here. OF: the result's bit 0.
    fn string_flags(&mut self, result: R, ended_n: R, ended_m: R) {
        if self.need.any(Flags::P.or(Flags::A)) {
            // One bit is odd parity.
            self.a.mov_imm(Width::W, PF, 1);
            self.a.mov(Width::W, AF, PF);
        }
        if !self.need.any(Flags::NZCV) {
            return;
        }
        self.a.subs_imm(Width::X, R::ZR, result, 1);
        self.flags_are(Carry::Direct);
        // The highest element of a string that has ended.
        if self.need.any(Flags::Z) {
            self.set_zero_from_bit(ended_m, 63);
        }
        if self.need.any(Flags::S) {
            self.set_sign_from_bit(ended_n, 63);
        }
        if self.need.any(Flags::O) {
            self.set_overflow_from_bit(result, 0);
        }
    }
}
