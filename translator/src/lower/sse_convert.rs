//! SSE conversions between integers and floating point, and between its two precisions.
//!
//! x86 gives 0x8000… ("integer indefinite") for a NaN and for whatever does not fit; Arm's FCVTZS gives
//! zero and the nearest integer. FEAT_FRINTTS has exactly x86's rule; elsewhere values at or above the
//! limit are corrected (below the other one Arm's result is x86's).

use super::operands::{host_of, vec_of, width_of};
use super::sse_nan::*;
use super::table::{Rows, plain};
use super::{FlagState, Lower, Lowered};
use crate::asm::{Label, R, V, Width};
use dynasmrt::{DynasmApi, dynasm};
use iced_x86::{Instruction, Mnemonic as M};

pub(super) const ROWS: Rows = &[
    plain(M::Cvtsi2ss, |l, i| from_integer(l, i, Shape::S)),
    plain(M::Cvtsi2sd, |l, i| from_integer(l, i, Shape::D)),
    plain(M::Cvtss2si, |l, i| to_integer(l, i, Shape::S, Rounding::Current)),
    plain(M::Cvtsd2si, |l, i| to_integer(l, i, Shape::D, Rounding::Current)),
    plain(M::Cvttss2si, |l, i| to_integer(l, i, Shape::S, Rounding::Truncate)),
    plain(M::Cvttsd2si, |l, i| to_integer(l, i, Shape::D, Rounding::Truncate)),
    plain(M::Cvtss2sd, cvtss2sd),
    plain(M::Cvtsd2ss, cvtsd2ss),
    plain(M::Cvtps2pd, cvtps2pd),
    plain(M::Cvtpd2ps, cvtpd2ps),
    plain(M::Cvtdq2ps, cvtdq2ps),
    plain(M::Cvtdq2pd, cvtdq2pd),
    plain(M::Cvtps2dq, |l, i| singles_to_integers(l, i, Rounding::Current)),
    plain(M::Cvttps2dq, |l, i| singles_to_integers(l, i, Rounding::Truncate)),
    plain(M::Cvtpd2dq, |l, i| doubles_to_integers(l, i, Rounding::Current)),
    plain(M::Cvttpd2dq, |l, i| doubles_to_integers(l, i, Rounding::Truncate)),
];

/// How a conversion to integers rounds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rounding {
    /// As MXCSR says.
    Current,
    /// Towards zero.
    Truncate,
}

/// A scalar that did not fit: the destination becomes the integer indefinite.
#[derive(Clone, Copy, Debug)]
pub struct Indefinite {
    label: Label,
    back: Label,
    index: usize,
    flags: FlagState,
    width: Width,
    d: R,
}

fn from_integer(l: &mut Lower, ins: &Instruction, shape: Shape) -> Lowered {
    let size = l.size_of(ins, 1);
    let n = l.read(ins, 1);
    let d = vec_of(ins.op0_register());
    let afp = l.config.host.afp;
    let t = if afp { d } else { l.vtmp() };
    // SCVTF (scalar, integer)
    let wide = u32::from(size == 8) << 31;
    let double = u32::from(shape.double()) << 22;
    l.a.word(0x1e22_0000 | wide | double | n.n() << 5 | t.n());
    if !afp {
        l.float_result(shape, d, t);
    }
    Ok(())
}

impl Lower<'_> {
    /// FCVTZS of a scalar to an integer register.
    fn fcvtzs(&mut self, shape: Shape, w: Width, d: R, n: V) {
        let wide = u32::from(w == Width::X) << 31;
        let double = u32::from(shape.double()) << 22;
        self.a.word(0x1e38_0000 | wide | double | n.n() << 5 | d.n());
    }

    /// The least value too large for an integer of the width, as a scalar (or in all lanes).
    fn integer_limit(&mut self, shape: Shape, w: Width) -> V {
        let t = self.vtmp();
        match (shape.double(), w) {
            (false, Width::W) => dynasm!(self.a; .arch aarch64; movi V(t.0).s4, 0x4f, lsl 24),
            (false, Width::X) => dynasm!(self.a; .arch aarch64; movi V(t.0).s4, 0x5f, lsl 24),
            (true, _) => {
                let exponent = if w == Width::W { 0x41e0 } else { 0x43e0 };
                self.a.mov_imm(Width::X, R(30), exponent << 48);
                dynasm!(self.a; .arch aarch64; dup V(t.0).d2, x30);
            }
        }
        t
    }

    /// Emits what makes scalars indefinite, behind the region's own code.
    pub fn emit_indefinites(&mut self) {
        for fix in std::mem::take(&mut self.out.indefinites) {
            self.index = fix.index;
            self.flags = fix.flags;
            self.a.bind(fix.label);
            self.mark();
            self.a.mov_imm(fix.width, fix.d, 1 << (fix.width.bits() - 1));
            self.a.b(fix.back);
        }
    }
}

fn to_integer(l: &mut Lower, ins: &Instruction, shape: Shape, rounding: Rounding) -> Lowered {
    let d = host_of(ins.op0_register());
    let w = width_of(ins.op0_register().size() as u32);
    let n = l.vread(ins, 1, shape.size());
    if l.config.host.frint {
        let t = l.vtmp();
        let op = match (w, rounding) {
            (Width::W, Rounding::Truncate) => FRINT32Z,
            (Width::W, Rounding::Current) => FRINT32X,
            (Width::X, Rounding::Truncate) => FRINT64Z,
            (Width::X, Rounding::Current) => FRINT64X,
        };
        l.float1(op, shape, t, n);
        l.fcvtzs(shape, w, d, t);
        return Ok(());
    }
    let limit = l.integer_limit(shape, w);
    let rounded = match rounding {
        Rounding::Truncate => n,
        Rounding::Current => {
            let t = l.vtmp();
            l.float1(FRINTI, shape, t, n);
            t
        }
    };
    l.fcvtzs(shape, w, d, rounded);
    let (label, back) = (l.a.label(), l.a.label());
    l.branch_unless_below(shape, rounded, limit, label);
    if rounding == Rounding::Current {
        // Raises Inexact; behind the branch, because what does not fit is only Invalid.
        l.float1(FRINTX, shape, limit, n);
    }
    l.a.bind(back);
    let (index, flags) = (l.index, l.flags);
    l.out.indefinites.push(Indefinite { label, back, index, flags, width: w, d });
    Ok(())
}

fn cvtss2sd(l: &mut Lower, ins: &Instruction) -> Lowered {
    let n = l.vread(ins, 1, 4);
    let d = vec_of(ins.op0_register());
    if l.config.host.afp {
        dynasm!(l.a; .arch aarch64; fcvt D(d.0), S(n.0));
        return Ok(());
    }
    let t = l.vtmp();
    dynasm!(l.a; .arch aarch64; fcvt D(t.0), S(n.0));
    l.float_result(Shape::D, d, t);
    Ok(())
}

fn cvtsd2ss(l: &mut Lower, ins: &Instruction) -> Lowered {
    let n = l.vread(ins, 1, 8);
    let d = vec_of(ins.op0_register());
    if l.config.host.afp {
        dynasm!(l.a; .arch aarch64; fcvt S(d.0), D(n.0));
        return Ok(());
    }
    let t = l.vtmp();
    dynasm!(l.a; .arch aarch64; fcvt S(t.0), D(n.0));
    l.float_result(Shape::S, d, t);
    Ok(())
}

fn cvtps2pd(l: &mut Lower, ins: &Instruction) -> Lowered {
    let n = l.vread(ins, 1, 8);
    let d = vec_of(ins.op0_register());
    dynasm!(l.a; .arch aarch64; fcvtl V(d.0).d2, V(n.0).s2);
    Ok(())
}

fn cvtpd2ps(l: &mut Lower, ins: &Instruction) -> Lowered {
    let n = l.vread(ins, 1, 16);
    let d = vec_of(ins.op0_register());
    dynasm!(l.a; .arch aarch64; fcvtn V(d.0).s2, V(n.0).d2);
    Ok(())
}

fn cvtdq2ps(l: &mut Lower, ins: &Instruction) -> Lowered {
    let n = l.vread(ins, 1, 16);
    let d = vec_of(ins.op0_register());
    dynasm!(l.a; .arch aarch64; scvtf V(d.0).s4, V(n.0).s4);
    Ok(())
}

fn cvtdq2pd(l: &mut Lower, ins: &Instruction) -> Lowered {
    let n = l.vread(ins, 1, 8);
    let d = vec_of(ins.op0_register());
    dynasm!(l.a; .arch aarch64; sxtl V(d.0).d2, V(n.0).s2; scvtf V(d.0).d2, V(d.0).d2);
    Ok(())
}

fn singles_to_integers(l: &mut Lower, ins: &Instruction, rounding: Rounding) -> Lowered {
    let n = l.vread(ins, 1, 16);
    let d = vec_of(ins.op0_register());
    let t = l.vtmp();
    if l.config.host.frint {
        let op = match rounding {
            Rounding::Current => FRINT32X,
            Rounding::Truncate => FRINT32Z,
        };
        l.float1(op, Shape::S4, t, n);
        dynasm!(l.a; .arch aarch64; fcvtzs V(d.0).s4, V(t.0).s4);
        return Ok(());
    }
    let rounded = match rounding {
        Rounding::Truncate => n,
        Rounding::Current => {
            // What does not fit is an integer already: Inexact is right for all lanes.
            l.float1(FRINTX, Shape::S4, t, n);
            t
        }
    };
    let limit = l.integer_limit(Shape::S4, Width::W);
    let indefinite = l.vtmp();
    l.float(FCMGT, Shape::S4, limit, limit, rounded);
    dynasm!(l.a; .arch aarch64
        ; movi V(indefinite.0).s4, 0x80, lsl 24
        ; fcvtzs V(d.0).s4, V(rounded.0).s4
        ; bif V(d.0).b16, V(indefinite.0).b16, V(limit.0).b16
    );
    Ok(())
}

fn doubles_to_integers(l: &mut Lower, ins: &Instruction, rounding: Rounding) -> Lowered {
    let n = l.vread(ins, 1, 16);
    let d = vec_of(ins.op0_register());
    let t = l.vtmp();
    if l.config.host.frint {
        let op = match rounding {
            Rounding::Current => FRINT32X,
            Rounding::Truncate => FRINT32Z,
        };
        l.float1(op, Shape::D2, t, n);
        dynasm!(l.a; .arch aarch64
            ; fcvtzs V(t.0).d2, V(t.0).d2
            ; xtn V(d.0).s2, V(t.0).d2);
        return Ok(());
    }
    let rounded = match rounding {
        Rounding::Truncate => n,
        Rounding::Current => {
            l.float1(FRINTX, Shape::D2, t, n);
            t
        }
    };
    // Lane by lane: only a conversion to 32 bits raises Invalid for what does not fit these.
    let limit = l.integer_limit(Shape::D2, Width::W);
    let (high, indefinite) = (l.vtmp(), l.vtmp());
    let (low_word, high_word) = (l.tmp(), l.tmp());
    l.fcvtzs(Shape::D, Width::W, low_word, rounded);
    dynasm!(l.a; .arch aarch64; dup V(high.0).d2, V(rounded.0).d[1]);
    l.fcvtzs(Shape::D, Width::W, high_word, high);
    l.float(FCMGT, Shape::D2, limit, limit, rounded);
    dynasm!(l.a; .arch aarch64
        ; xtn V(limit.0).s2, V(limit.0).d2
        ; movi V(indefinite.0).s2, 0x80, lsl 24
        ; fmov S(high.0), W(low_word.0)
        ; ins V(high.0).s[1], W(high_word.0)
        ; bif V(high.0).b8, V(indefinite.0).b8, V(limit.0).b8
        ; mov V(d.0).b8, V(high.0).b8
    );
    Ok(())
}
