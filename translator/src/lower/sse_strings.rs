//! The string comparisons of SSE4.2: PCMPESTRI, PCMPESTRM, PCMPISTRI, PCMPISTRM (Intel SDM vol. 2, 4.1).
//!
//! Those that strcmp, strcspn and their kin are made of are translated; the others go to a helper.

use super::operands::vec_of;
use super::table::{Rows, row};
use super::{AF, Carry, Lower, Lowered, PF, VZERO};
use crate::asm::{R, V, Width};
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
    if form == 0 && mode & 0b100_0100 == 0 {
        least_index(l, n, m, mode);
        return Ok(());
    }
    let third = u64::from(n.n()) | u64::from(mode) << 8 | form;
    l.call_with_vector(Helper::CompareStrings, m, third);
    Ok(())
}

/// PCMPISTRI "equal any" and "equal each" with the least significant index: element by element, until a string ends.
///
/// A vector of lanes that are all ones or all zeros becomes 64 bits, 4 for a byte and 8 for a word.
fn least_index(l: &mut Lower, n: V, m: V, mode: u8) {
    let words = mode & 1 != 0;
    let any = mode & 0b1000 == 0;
    let ended_n = ended(l, n, words);
    let ended_m = ended(l, m, words);
    let (result, t) = (l.tmp(), l.tmp());
    if any {
        equal_any(l, result, n, m, words);
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

/// Lanes of `m` that are among the elements of `n` before its first zero: one after the other.
fn equal_any(l: &mut Lower, result: R, n: V, m: V, words: bool) {
    let (found, rest, sought) = (l.vtmp(), l.vtmp(), l.vtmp());
    let element = R(30);
    let (next, done) = (l.a.label(), l.a.label());
    dynasm!(l.a; .arch aarch64; movi V(found.0).d2, 0; mov V(rest.0).b16, V(n.0).b16);
    lowest(l, element, rest, words);
    l.a.cbz(Width::W, element, done);
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
    l.a.cbnz(Width::W, element, next);
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
