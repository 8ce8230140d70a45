//! SSE floating-point arithmetic, comparison and rounding, and MXCSR.
//!
//! With FEAT_AFP an operation is one instruction: FPCR.AH gives x86's NaNs and minima, FPCR.NEP keeps
//! the upper lanes of scalars. Without it the result is computed in a temporary and checked for NaNs
//! (see [`super::sse_nan`]). RCP and RSQRT are computed exactly, where a real processor
//! approximates.

use super::operands::vec_of;
use super::sse_nan::*;
use super::table::{Rows, plain, row};
use super::{Lower, Lowered};
use crate::asm::{R, V, Width};
use crate::flags::Flags;
use crate::helpers::Helper;
use crate::mxcsr;
use dynasmrt::{DynasmApi, dynasm};
use iced_x86::{Instruction, Mnemonic as M};

/// Rows of a function for all four shapes.
macro_rules! shapes {
    ($($f:expr => $ps:ident $pd:ident $ss:ident $sd:ident;)*) => {
        &[$(
            plain(M::$ps, |l, ins| $f(l, ins, Shape::S4)),
            plain(M::$pd, |l, ins| $f(l, ins, Shape::D2)),
            plain(M::$ss, |l, ins| $f(l, ins, Shape::S)),
            plain(M::$sd, |l, ins| $f(l, ins, Shape::D)),
        )*]
    };
}

pub(super) const ROWS: Rows = shapes! {
    |l: &mut Lower, i: &Instruction, s| arithmetic(l, i, s, FADD) => Addps Addpd Addss Addsd;
    |l: &mut Lower, i: &Instruction, s| arithmetic(l, i, s, FSUB) => Subps Subpd Subss Subsd;
    |l: &mut Lower, i: &Instruction, s| arithmetic(l, i, s, FMUL) => Mulps Mulpd Mulss Mulsd;
    |l: &mut Lower, i: &Instruction, s| arithmetic(l, i, s, FDIV) => Divps Divpd Divss Divsd;
    |l: &mut Lower, i: &Instruction, s| extremum(l, i, s, FMIN) => Minps Minpd Minss Minsd;
    |l: &mut Lower, i: &Instruction, s| extremum(l, i, s, FMAX) => Maxps Maxpd Maxss Maxsd;
    square_root => Sqrtps Sqrtpd Sqrtss Sqrtsd;
    compare => Cmpps Cmppd Cmpss Cmpsd;
    round => Roundps Roundpd Roundss Roundsd;
};

pub(super) const OTHER_ROWS: Rows = &[
    plain(M::Haddps, |l, i| horizontal(l, i, Shape::S4, FADD)),
    plain(M::Haddpd, |l, i| horizontal(l, i, Shape::D2, FADD)),
    plain(M::Hsubps, |l, i| horizontal(l, i, Shape::S4, FSUB)),
    plain(M::Hsubpd, |l, i| horizontal(l, i, Shape::D2, FSUB)),
    plain(M::Addsubps, addsubps),
    plain(M::Addsubpd, addsubpd),
    plain(M::Dpps, dot_product),
    plain(M::Dppd, dot_product),
    plain(M::Rcpps, |l, i| reciprocal(l, i, Shape::S4, false)),
    plain(M::Rcpss, |l, i| reciprocal(l, i, Shape::S, false)),
    plain(M::Rsqrtps, |l, i| reciprocal(l, i, Shape::S4, true)),
    plain(M::Rsqrtss, |l, i| reciprocal(l, i, Shape::S, true)),
    row(M::Ucomiss, comis, Flags::NONE, Flags::ALL),
    row(M::Ucomisd, comis, Flags::NONE, Flags::ALL),
    row(M::Comiss, comis, Flags::NONE, Flags::ALL),
    row(M::Comisd, comis, Flags::NONE, Flags::ALL),
    plain(M::Ldmxcsr, ldmxcsr),
    plain(M::Stmxcsr, stmxcsr),
];

impl Lower<'_> {
    /// d = n op m with x86's NaNs, upper lanes of d kept by a scalar.
    fn float_arithmetic(&mut self, op: FloatOp, shape: Shape, d: V, n: V, m: V) {
        if self.config.host.afp && (!shape.scalar() || d == n) {
            return self.float(op, shape, d, n, m);
        }
        let used = self.vtemps_used;
        let t = self.vtmp();
        self.float(op, shape, t, n, m);
        if !self.config.host.afp {
            self.fix_nan(shape, t, n, Some(m));
        }
        self.float_result(shape, d, t);
        self.vtemps_used = used;
    }
}

fn arithmetic(l: &mut Lower, ins: &Instruction, shape: Shape, op: FloatOp) -> Lowered {
    let d = vec_of(ins.op0_register());
    let m = l.vread(ins, 1, shape.size());
    l.float_arithmetic(op, shape, d, d, m);
    Ok(())
}

fn square_root(l: &mut Lower, ins: &Instruction, shape: Shape) -> Lowered {
    let d = vec_of(ins.op0_register());
    let m = l.vread(ins, 1, shape.size());
    if l.config.host.afp {
        l.float1(FSQRT, shape, d, m);
        return Ok(());
    }
    let t = l.vtmp();
    l.float1(FSQRT, shape, t, m);
    l.fix_nan(shape, t, m, None);
    l.float_result(shape, d, t);
    Ok(())
}

/// MIN and MAX: the second operand unless the first is strictly less (or greater).
fn extremum(l: &mut Lower, ins: &Instruction, shape: Shape, op: FloatOp) -> Lowered {
    let d = vec_of(ins.op0_register());
    let m = l.vread(ins, 1, shape.size());
    if l.config.host.afp {
        l.float(op, shape, d, d, m);
        return Ok(());
    }
    let t = l.vtmp();
    let minimum = matches!(ins.mnemonic(), M::Minps | M::Minpd | M::Minss | M::Minsd);
    let (greater, less) = if minimum { (m, d) } else { (d, m) };
    l.float(FCMGT, shape, t, greater, less);
    if shape.scalar() {
        dynasm!(l.a; .arch aarch64; bsl V(t.0).b8, V(d.0).b8, V(m.0).b8);
        l.float_result(shape, d, t);
    } else {
        dynasm!(l.a; .arch aarch64; bif V(d.0).b16, V(m.0).b16, V(t.0).b16);
    }
    Ok(())
}

/// CMPPS and its relatives: EQ LT LE UNORD, and their opposites from 4 on. LT and LE signal for quiet
/// NaNs, as FCMGT and FCMGE do.
fn compare(l: &mut Lower, ins: &Instruction, shape: Shape) -> Lowered {
    let d = vec_of(ins.op0_register());
    let m = l.vread(ins, 1, shape.size());
    let predicate = ins.immediate8() & 7;
    let t = if shape.scalar() { l.vtmp() } else { d };
    match predicate & 3 {
        0 => l.float(FCMEQ, shape, t, d, m),
        1 => l.float(FCMGT, shape, t, m, d),
        2 => l.float(FCMGE, shape, t, m, d),
        _ => l.ordered_lanes(shape, t, d, m),
    }
    // UNORD is the opposite of what was computed, the others from NEQ on are.
    if (predicate >= 4) != (predicate & 3 == 3) {
        dynasm!(l.a; .arch aarch64; mvn V(t.0).b16, V(t.0).b16);
    }
    if shape.scalar() {
        l.float_result(shape, d, t);
    }
    Ok(())
}

impl Lower<'_> {
    /// t = mask of the lanes where neither operand is a NaN.
    fn ordered_lanes(&mut self, shape: Shape, t: V, n: V, m: V) {
        let (first, second) = (self.vtmp(), self.vtmp());
        if !self.config.host.afp {
            self.float(FCMEQ, shape, first, n, n);
            self.float(FCMEQ, shape, second, m, m);
            dynasm!(self.a; .arch aarch64; and V(t.0).b16, V(first.0).b16, V(second.0).b16);
            return;
        }
        // A NaN beside a denormal must not raise DE, so a comparison of both raises the exceptions, and
        // the NaNs are found as integers: above infinity, without the sign.
        let infinity = self.vtmp();
        self.float(FCMEQ, shape, infinity, n, m);
        if shape.double() {
            self.a.mov_imm(Width::X, R(30), 0xffe0 << 48);
            dynasm!(self.a; .arch aarch64
                ; dup V(infinity.0).d2, x30
                ; shl V(first.0).d2, V(n.0).d2, 1
                ; shl V(second.0).d2, V(m.0).d2, 1
                ; cmhs V(first.0).d2, V(infinity.0).d2, V(first.0).d2
                ; cmhs V(second.0).d2, V(infinity.0).d2, V(second.0).d2
            );
        } else {
            dynasm!(self.a; .arch aarch64
                ; movi V(infinity.0).s4, 0xff, lsl 24
                ; shl V(first.0).s4, V(n.0).s4, 1
                ; shl V(second.0).s4, V(m.0).s4, 1
                ; cmhs V(first.0).s4, V(infinity.0).s4, V(first.0).s4
                ; cmhs V(second.0).s4, V(infinity.0).s4, V(second.0).s4
            );
        }
        dynasm!(self.a; .arch aarch64; and V(t.0).b16, V(first.0).b16, V(second.0).b16);
    }
}

fn comis(l: &mut Lower, ins: &Instruction) -> Lowered {
    let double = matches!(ins.mnemonic(), M::Ucomisd | M::Comisd);
    let shape = if double { Shape::D } else { Shape::S };
    let n = vec_of(ins.op0_register());
    let m = l.vread(ins, 1, shape.size());
    let signalling = matches!(ins.mnemonic(), M::Comiss | M::Comisd);
    l.fcmp(shape, n, m, signalling);
    l.flags_are_float();
    Ok(())
}

/// ROUNDPS and its relatives: bit 2 of the immediate takes the mode of MXCSR, bit 3 suppresses PE.
fn round(l: &mut Lower, ins: &Instruction, shape: Shape) -> Lowered {
    let d = vec_of(ins.op0_register());
    let m = l.vread(ins, 1, shape.size());
    let imm = ins.immediate8();
    let quiet = imm & 8 != 0;
    let op = match imm & 7 {
        0 => FRINTN,
        1 => FRINTM,
        2 => FRINTP,
        3 => FRINTZ,
        _ if quiet => FRINTI,
        _ => FRINTX,
    };
    let t = l.vtmp();
    if !quiet && imm & 4 == 0 {
        l.float1(FRINTX, shape, t, m); // raises Inexact, whatever the mode
    }
    if !shape.scalar() || l.config.host.afp {
        l.float1(op, shape, d, m);
    } else {
        l.float1(op, shape, t, m);
        l.float_result(shape, d, t);
    }
    Ok(())
}

/// Sums or differences of neighbours.
fn horizontal(l: &mut Lower, ins: &Instruction, shape: Shape, op: FloatOp) -> Lowered {
    let d = vec_of(ins.op0_register());
    let m = l.vread(ins, 1, 16);
    let (even, odd) = l.deinterleave(shape, d, m);
    l.float_arithmetic(op, shape, d, even, odd);
    Ok(())
}

impl Lower<'_> {
    /// The even and the odd lanes of two registers.
    fn deinterleave(&mut self, shape: Shape, n: V, m: V) -> (V, V) {
        let (even, odd) = (self.vtmp(), self.vtmp());
        if shape.double() {
            dynasm!(self.a; .arch aarch64
                ; zip1 V(even.0).d2, V(n.0).d2, V(m.0).d2
                ; zip2 V(odd.0).d2, V(n.0).d2, V(m.0).d2);
        } else {
            dynasm!(self.a; .arch aarch64
                ; uzp1 V(even.0).s4, V(n.0).s4, V(m.0).s4
                ; uzp2 V(odd.0).s4, V(n.0).s4, V(m.0).s4);
        }
        (even, odd)
    }
}

/// Differences in the even lanes, sums in the odd ones; computed apart, so that no lane raises
/// exceptions of the operation it does not do.
fn addsubps(l: &mut Lower, ins: &Instruction) -> Lowered {
    let d = vec_of(ins.op0_register());
    let m = l.vread(ins, 1, 16);
    let (n_even, n_odd) = l.deinterleave(Shape::S4, d, d);
    let (m_even, m_odd) = l.deinterleave(Shape::S4, m, m);
    dynasm!(l.a; .arch aarch64
        ; fsub V(n_even.0).s2, V(n_even.0).s2, V(m_even.0).s2
        ; fadd V(n_odd.0).s2, V(n_odd.0).s2, V(m_odd.0).s2
        ; zip1 V(n_even.0).s4, V(n_even.0).s4, V(n_odd.0).s4
    );
    l.finish_addsub(Shape::S4, d, m, n_even);
    Ok(())
}

fn addsubpd(l: &mut Lower, ins: &Instruction) -> Lowered {
    let d = vec_of(ins.op0_register());
    let m = l.vread(ins, 1, 16);
    let (low, high, m_high) = (l.vtmp(), l.vtmp(), l.vtmp());
    dynasm!(l.a; .arch aarch64
        ; fsub D(low.0), D(d.0), D(m.0)
        ; dup V(high.0).d2, V(d.0).d[1]
        ; dup V(m_high.0).d2, V(m.0).d[1]
        ; fadd D(high.0), D(high.0), D(m_high.0)
        ; ins V(low.0).d[1], V(high.0).d[0]
    );
    l.finish_addsub(Shape::D2, d, m, low);
    Ok(())
}

impl Lower<'_> {
    fn finish_addsub(&mut self, shape: Shape, d: V, m: V, result: V) {
        if !self.config.host.afp {
            self.fix_nan(shape, result, d, Some(m));
        }
        self.vmov(d, result);
    }

    /// Clears the lanes whose bit is not in the mask.
    fn keep_lanes(&mut self, shape: Shape, d: V, n: V, mask: u32) {
        let (lanes, bits) = if shape.double() { (2, 64) } else { (4, 32) };
        let used = self.vtemps_used;
        let t = self.vtmp();
        let ones = (1u128 << bits) - 1;
        let constant =
            (0..lanes).filter(|i| mask >> i & 1 != 0).fold(0, |v, i| v | ones << (bits * i));
        self.a.ldr_literal_q(t, constant);
        dynasm!(self.a; .arch aarch64; and V(d.0).b16, V(n.0).b16, V(t.0).b16);
        self.vtemps_used = used;
    }
}

/// DPPS and DPPD: products of the lanes in imm[7:4] (others count as 0), their sum in the lanes in
/// imm[3:0].
fn dot_product(l: &mut Lower, ins: &Instruction) -> Lowered {
    let shape = if ins.mnemonic() == M::Dppd { Shape::D2 } else { Shape::S4 };
    let d = vec_of(ins.op0_register());
    let m = l.vread(ins, 1, 16);
    let imm = u32::from(ins.immediate8());
    let (a, b) = (l.vtmp(), l.vtmp());
    l.keep_lanes(shape, a, d, imm >> 4);
    l.keep_lanes(shape, b, m, imm >> 4);
    let sum = l.vtmp();
    l.float_arithmetic(FMUL, shape, sum, a, b);
    let steps = if shape.double() { 1 } else { 2 };
    let used = l.vtemps_used;
    for _ in 0..steps {
        let (even, odd) = l.deinterleave(shape, sum, sum);
        l.float_arithmetic(FADD, shape, sum, even, odd);
        l.vtemps_used = used;
    }
    l.keep_lanes(shape, d, sum, imm);
    Ok(())
}

/// 1 / x or 1 / sqrt(x). Denormals count as zero, whatever MXCSR says, and no exception is raised: FPCR
/// is set to flush to zero meanwhile and FPSR restored.
fn reciprocal(l: &mut Lower, ins: &Instruction, shape: Shape, root: bool) -> Lowered {
    let d = vec_of(ins.op0_register());
    let m = l.vread(ins, 1, shape.size());
    let (fpcr, fpsr, flush) = (l.tmp(), l.tmp(), l.tmp());
    let (one, t) = (l.vtmp(), l.vtmp());
    dynasm!(l.a; .arch aarch64; fmov V(one.0).s4, 1.0);
    l.a.word(0xd53b_4400 | fpcr.n()); // MRS fpcr, FPCR
    l.a.word(0xd53b_4420 | fpsr.n()); // MRS fpsr, FPSR
    l.a.mov_imm(Width::W, flush, u64::from(mxcsr::FZ));
    l.a.word(0xd51b_4400 | flush.n()); // MSR FPCR, flush
    if root {
        l.float1(FSQRT, shape, t, m);
        l.float(FDIV, shape, t, one, t);
        // The root of a negative number is the default NaN, with its sign set.
        let (number, same) = (l.vtmp(), l.vtmp());
        l.float(FCMEQ, shape, number, m, m);
        l.float(FCMEQ, shape, same, t, t);
        dynasm!(l.a; .arch aarch64
            ; bic V(number.0).b16, V(number.0).b16, V(same.0).b16
            ; shl V(number.0).s4, V(number.0).s4, 31
            ; orr V(t.0).b16, V(t.0).b16, V(number.0).b16
        );
    } else {
        l.float(FDIV, shape, t, one, m);
    }
    l.a.word(0xd51b_4400 | fpcr.n()); // MSR FPCR, fpcr
    l.a.word(0xd51b_4420 | fpsr.n()); // MSR FPSR, fpsr
    l.float_result(shape, d, t);
    Ok(())
}

/// LDMXCSR: a reserved bit raises #GP.
fn ldmxcsr(l: &mut Lower, ins: &Instruction) -> Lowered {
    let m = l.address(ins, 4);
    let (value, reserved) = (R(20), R(16));
    l.load(4, value, m);
    l.a.lsr(Width::W, reserved, value, mxcsr::MASK.count_ones());
    let raise = l.cold_raise(13);
    l.a.cbnz(Width::W, reserved, raise);
    l.call_helper(Helper::LoadMxcsr);
    l.leave_if_unmasked(R(20));
    Ok(())
}

fn stmxcsr(l: &mut Lower, ins: &Instruction) -> Lowered {
    l.call_helper(Helper::StoreMxcsr);
    let m = l.address(ins, 4);
    l.store(4, R(20), m);
    Ok(())
}
