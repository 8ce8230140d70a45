//! NaN results as x86 defines them (Intel SDM vol. 1, 4.8.3.5), on hosts without FEAT_AFP.
//!
//! x86 gives the first operand if it is a NaN, else the second, quieted; and the default NaN with its sign
//! set if neither is one. Arm prefers a signalling NaN to a quiet one, and its default NaN is positive. So
//! the two only differ where the result is a NaN: the code tests for that, and corrects it behind
//! the region's own code.

use super::{FlagState, Lower};
use crate::asm::{Cond, Label, R, V, Width};
use crate::flags::Flags;
use dynasmrt::{DynasmApi, dynasm};

/// Lanes of a floating-point operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One single.
    S,
    /// One double.
    D,
    /// Four singles.
    S4,
    /// Two doubles.
    D2,
}

impl Shape {
    /// Whether it is a scalar.
    pub fn scalar(self) -> bool {
        matches!(self, Shape::S | Shape::D)
    }
    /// Whether its elements are doubles.
    pub fn double(self) -> bool {
        matches!(self, Shape::D | Shape::D2)
    }
    /// Bytes of an operand.
    pub fn size(self) -> u32 {
        match self {
            Shape::S => 4,
            Shape::D => 8,
            _ => 16,
        }
    }
}

/// An operation's encodings for vectors of 128 bits and for scalars, of single precision.
#[derive(Clone, Copy)]
pub struct FloatOp {
    vector: u32,
    scalar: u32,
}

const fn op(vector: u32, scalar: u32) -> FloatOp {
    FloatOp { vector, scalar }
}

/// Operations by their names in the Arm ARM (C4.1.95).
#[allow(missing_docs)]
mod ops {
    use super::{FloatOp, op};
    pub const FADD: FloatOp = op(0x4e20_d400, 0x1e20_2800);
    pub const FSUB: FloatOp = op(0x4ea0_d400, 0x1e20_3800);
    pub const FMUL: FloatOp = op(0x6e20_dc00, 0x1e20_0800);
    pub const FDIV: FloatOp = op(0x6e20_fc00, 0x1e20_1800);
    pub const FSQRT: FloatOp = op(0x6ea1_f800, 0x1e21_c000);
    pub const FMAX: FloatOp = op(0x4e20_f400, 0x1e20_4800);
    pub const FMIN: FloatOp = op(0x4ea0_f400, 0x1e20_5800);
    pub const FCMEQ: FloatOp = op(0x4e20_e400, 0x5e20_e400);
    pub const FCMGE: FloatOp = op(0x6e20_e400, 0x7e20_e400);
    pub const FCMGT: FloatOp = op(0x6ea0_e400, 0x7ea0_e400);
    pub const FRINTN: FloatOp = op(0x4e21_8800, 0x1e24_4000);
    pub const FRINTM: FloatOp = op(0x4e21_9800, 0x1e25_4000);
    pub const FRINTP: FloatOp = op(0x4ea1_8800, 0x1e24_c000);
    pub const FRINTZ: FloatOp = op(0x4ea1_9800, 0x1e25_c000);
    pub const FRINTX: FloatOp = op(0x6e21_9800, 0x1e27_4000);
    pub const FRINTI: FloatOp = op(0x6ea1_9800, 0x1e27_c000);
    pub const FRINT32Z: FloatOp = op(0x4e21_e800, 0x1e28_4000);
    pub const FRINT32X: FloatOp = op(0x6e21_e800, 0x1e28_c000);
    pub const FRINT64Z: FloatOp = op(0x4e21_f800, 0x1e29_4000);
    pub const FRINT64X: FloatOp = op(0x6e21_f800, 0x1e29_c000);
}
pub use ops::*;

/// What corrections are made with.
const SCRATCH: [V; 3] = [V(29), V(30), V(31)];

/// A result to be corrected.
#[derive(Clone, Copy, Debug)]
pub struct NanFix {
    label: Label,
    back: Label,
    index: usize,
    flags: FlagState,
    shape: Shape,
    result: V,
    first: V,
    second: Option<V>,
}

impl Lower<'_> {
    /// d = n op m.
    pub fn float(&mut self, op: FloatOp, shape: Shape, d: V, n: V, m: V) {
        let base = if shape.scalar() { op.scalar } else { op.vector };
        self.a.word(base | u32::from(shape.double()) << 22 | m.n() << 16 | n.n() << 5 | d.n());
    }

    /// d = op n.
    pub fn float1(&mut self, op: FloatOp, shape: Shape, d: V, n: V) {
        self.float(op, shape, d, n, V(0));
    }

    /// Writes a result that was computed in a temporary: a scalar leaves the upper lanes as they are.
    pub fn float_result(&mut self, shape: Shape, d: V, t: V) {
        match shape {
            Shape::S => dynasm!(self.a; .arch aarch64; ins V(d.0).s[0], V(t.0).s[0]),
            Shape::D => dynasm!(self.a; .arch aarch64; ins V(d.0).d[0], V(t.0).d[0]),
            _ => self.vmov(d, t),
        }
    }

    /// Whether NZCV may be overwritten.
    fn nzcv_is_free(&self) -> bool {
        // In the float form PF derives from NZCV, too.
        let held = if self.flags.float { Flags::ALL } else { Flags::NZCV };
        !self.live_out.any(held)
    }

    /// Branches to a label if a scalar `v` is not below `limit`, or a NaN.
    pub fn branch_unless_below(&mut self, shape: Shape, v: V, limit: V, label: Label) {
        if self.nzcv_is_free() {
            self.fcmp(shape, v, limit, false);
            self.a.b_cond(Cond::Pl, label);
        } else {
            let t = self.vtmp();
            self.float(FCMGT, shape, t, limit, v);
            self.branch_if_clear(shape, t, label);
        }
    }

    /// FCMP, or FCMPE, which signals for quiet NaNs, too.
    pub fn fcmp(&mut self, shape: Shape, n: V, m: V, signalling: bool) {
        let kind = u32::from(shape.double()) << 22 | u32::from(signalling) << 4;
        self.a.word(0x1e20_2000 | kind | m.n() << 16 | n.n() << 5);
    }

    fn branch_if_clear(&mut self, shape: Shape, mask: V, label: Label) {
        let scratch = R(30);
        if shape == Shape::D {
            dynasm!(self.a; .arch aarch64; fmov X(scratch.0), D(mask.0));
            self.a.cbz(Width::X, scratch, label);
        } else {
            dynasm!(self.a; .arch aarch64; fmov W(scratch.0), S(mask.0));
            self.a.cbz(Width::W, scratch, label);
        }
    }

    /// Corrects a result if it is (or has a lane that is) a NaN. The operands must still be there.
    pub fn fix_nan(&mut self, shape: Shape, result: V, first: V, second: Option<V>) {
        debug_assert!(
            [Some(result), Some(first), second].iter().flatten().all(|v| !SCRATCH.contains(v)),
            "a correction would overwrite what it works on"
        );
        let (label, back) = (self.a.label(), self.a.label());
        let t = self.vtmp();
        if self.nzcv_is_free() {
            let low = match shape {
                Shape::S | Shape::D => result,
                // The largest of all lanes is a NaN if any is.
                Shape::S4 => {
                    dynasm!(self.a; .arch aarch64; fmaxv S(t.0), V(result.0).s4);
                    t
                }
                Shape::D2 => {
                    dynasm!(self.a; .arch aarch64; fmaxp D(t.0), V(result.0).d2);
                    t
                }
            };
            self.fcmp(shape, low, low, false);
            self.a.b_cond(Cond::Vs, label);
        } else {
            self.float(FCMEQ, shape, t, result, result);
            if !shape.scalar() {
                dynasm!(self.a; .arch aarch64; uminv S(t.0), V(t.0).s4);
            }
            let lane = if shape == Shape::D { shape } else { Shape::S };
            self.branch_if_clear(lane, t, label);
        }
        self.a.bind(back);
        self.out.nan_fixes.push(NanFix {
            label,
            back,
            index: self.index,
            flags: self.flags,
            shape,
            result,
            first,
            second,
        });
    }

    /// Emits the corrections, behind the region's own code.
    pub fn emit_nan_fixes(&mut self) {
        for fix in std::mem::take(&mut self.out.nan_fixes) {
            self.index = fix.index;
            self.flags = fix.flags;
            self.a.bind(fix.label);
            self.mark();
            self.correct_nan(&fix);
            self.a.b(fix.back);
        }
    }

    /// Lane by lane. One NaN operand is what Arm gives already; of two it must be the first; and of
    /// none the sign is missing. NZCV is left alone, and no exception flags are raised that the
    /// operation itself has not.
    fn correct_nan(&mut self, fix: &NanFix) {
        let (r, n, shape) = (fix.result, fix.first, fix.shape);
        let [quieted, first, number] = SCRATCH;
        self.float(FCMEQ, shape, first, n, n);
        let mut numbers = first;
        if let Some(m) = fix.second {
            self.float(FMAX, shape, quieted, n, n);
            dynasm!(self.a; .arch aarch64; bif V(r.0).b16, V(quieted.0).b16, V(first.0).b16);
            self.float(FCMEQ, shape, number, m, m);
            dynasm!(self.a; .arch aarch64; and V(first.0).b16, V(first.0).b16, V(number.0).b16);
            numbers = first;
        }
        self.float(FCMEQ, shape, number, r, r);
        dynasm!(self.a; .arch aarch64; bic V(number.0).b16, V(numbers.0).b16, V(number.0).b16);
        if shape.double() {
            dynasm!(self.a; .arch aarch64; shl V(number.0).d2, V(number.0).d2, 63);
        } else {
            dynasm!(self.a; .arch aarch64; shl V(number.0).s4, V(number.0).s4, 31);
        }
        dynasm!(self.a; .arch aarch64; orr V(r.0).b16, V(r.0).b16, V(number.0).b16);
    }
}
