//! SSE2 and later integer arithmetic and logic, and the bitwise operations of both floating-point types.
//!
//! Most are one NEON instruction on the registers that hold the guest's.

use super::operands::vec_of;
use super::table::{Rows, plain, row};
use super::{AF, Carry, Lower, Lowered, PF, Unimplemented, VZERO};
use crate::asm::{Asm, Cond, R, V, Width};
use crate::flags::Flags;
use dynasmrt::{DynasmApi, dynasm};
use iced_x86::{Instruction, Mnemonic as M, OpKind};

/// Emits d = n op m on whole registers. v29, v30 and v31 are scratch; d is written last, so that it may
/// be any of the operands.
pub(super) type Emit = fn(&mut Asm, u8, u8, u8);

/// Declares the operations of two registers: those that are one instruction with the same shape for
/// all operands, and those of several instructions.
macro_rules! operations {
    (
        ($a:ident, $d:ident, $n:ident, $m:ident)
        same { $($one:ident $op:tt $shape:ident;)* }
        several { $($name:ident { $($code:tt)* })* }
    ) => {
        pub(super) const ROWS: Rows = &[
            $(plain(M::$one, binary),)*
            $(plain(M::$name, binary),)*
        ];

        /// The operation of a legacy SSE mnemonic.
        pub(super) fn operation(mnemonic: M) -> Option<Emit> {
            Some(match mnemonic {
                $(M::$one => |$a, $d, $n, $m| {
                    dynasm!($a; .arch aarch64; $op V($d).$shape, V($n).$shape, V($m).$shape)
                },)*
                $(M::$name => |$a, $d, $n, $m| dynasm!($a; .arch aarch64; $($code)*),)*
                _ => return None,
            })
        }
    };
}

operations! {
    (a, d, n, m)
    same {
        Paddb add b16; Paddw add h8; Paddd add s4; Paddq add d2;
        Psubb sub b16; Psubw sub h8; Psubd sub s4; Psubq sub d2;
        Paddsb sqadd b16; Paddsw sqadd h8; Paddusb uqadd b16; Paddusw uqadd h8;
        Psubsb sqsub b16; Psubsw sqsub h8; Psubusb uqsub b16; Psubusw uqsub h8;
        Pand and b16; Por orr b16; Pxor eor b16;
        Andps and b16; Orps orr b16; Xorps eor b16; Andpd and b16; Orpd orr b16; Xorpd eor b16;
        Pcmpeqb cmeq b16; Pcmpeqw cmeq h8; Pcmpeqd cmeq s4; Pcmpeqq cmeq d2;
        Pcmpgtb cmgt b16; Pcmpgtw cmgt h8; Pcmpgtd cmgt s4; Pcmpgtq cmgt d2;
        Pminub umin b16; Pminuw umin h8; Pminud umin s4;
        Pminsb smin b16; Pminsw smin h8; Pminsd smin s4;
        Pmaxub umax b16; Pmaxuw umax h8; Pmaxud umax s4;
        Pmaxsb smax b16; Pmaxsw smax h8; Pmaxsd smax s4;
        Pavgb urhadd b16; Pavgw urhadd h8;
        Pmullw mul h8; Pmulld mul s4;
        Phaddw addp h8; Phaddd addp s4;
    }
    several {
        Pandn { bic V(d).b16, V(m).b16, V(n).b16 }
        Andnps { bic V(d).b16, V(m).b16, V(n).b16 }
        Andnpd { bic V(d).b16, V(m).b16, V(n).b16 }
        Pmulhw {
            smull v30.s4, V(n).h4, V(m).h4; smull2 v31.s4, V(n).h8, V(m).h8;
            uzp2 V(d).h8, v30.h8, v31.h8
        }
        Pmulhuw {
            umull v30.s4, V(n).h4, V(m).h4; umull2 v31.s4, V(n).h8, V(m).h8;
            uzp2 V(d).h8, v30.h8, v31.h8
        }
        // Not SQRDMULH, which saturates -1 * -1.
        Pmulhrsw {
            smull v30.s4, V(n).h4, V(m).h4; smull2 v31.s4, V(n).h8, V(m).h8;
            rshrn V(d).h4, v30.s4, 15; rshrn2 V(d).h8, v31.s4, 15
        }
        Pmaddwd {
            smull v30.s4, V(n).h4, V(m).h4; smull2 v31.s4, V(n).h8, V(m).h8;
            addp V(d).s4, v30.s4, v31.s4
        }
        // Unsigned bytes of n by signed bytes of m; each product fits 16 bits.
        Pmaddubsw {
            uxtl v29.h8, V(n).b8; sxtl v30.h8, V(m).b8; mul v29.h8, v29.h8, v30.h8;
            uxtl2 v30.h8, V(n).b16; sxtl2 v31.h8, V(m).b16; mul v30.h8, v30.h8, v31.h8;
            uzp1 v31.h8, v29.h8, v30.h8; uzp2 v30.h8, v29.h8, v30.h8;
            sqadd V(d).h8, v31.h8, v30.h8
        }
        Pmuludq {
            uzp1 v30.s4, V(n).s4, V(n).s4; uzp1 v31.s4, V(m).s4, V(m).s4;
            umull V(d).d2, v30.s2, v31.s2
        }
        Pmuldq {
            uzp1 v30.s4, V(n).s4, V(n).s4; uzp1 v31.s4, V(m).s4, V(m).s4;
            smull V(d).d2, v30.s2, v31.s2
        }
        Psadbw {
            uabd v30.b16, V(n).b16, V(m).b16; uaddlp v30.h8, v30.b16; uaddlp v30.s4, v30.h8;
            uaddlp V(d).d2, v30.s4
        }
        Phaddsw {
            uzp1 v30.h8, V(n).h8, V(m).h8; uzp2 v31.h8, V(n).h8, V(m).h8;
            sqadd V(d).h8, v30.h8, v31.h8
        }
        Phsubw {
            uzp1 v30.h8, V(n).h8, V(m).h8; uzp2 v31.h8, V(n).h8, V(m).h8;
            sub V(d).h8, v30.h8, v31.h8
        }
        Phsubsw {
            uzp1 v30.h8, V(n).h8, V(m).h8; uzp2 v31.h8, V(n).h8, V(m).h8;
            sqsub V(d).h8, v30.h8, v31.h8
        }
        Phsubd {
            uzp1 v30.s4, V(n).s4, V(m).s4; uzp2 v31.s4, V(n).s4, V(m).s4;
            sub V(d).s4, v30.s4, v31.s4
        }
        // (n ^ sign) - sign negates where m is negative; where m is zero the result is.
        Psignb {
            sshr v30.b16, V(m).b16, 7; cmtst v31.b16, V(m).b16, V(m).b16;
            eor v29.b16, V(n).b16, v30.b16; sub v29.b16, v29.b16, v30.b16;
            and V(d).b16, v29.b16, v31.b16
        }
        Psignw {
            sshr v30.h8, V(m).h8, 15; cmtst v31.h8, V(m).h8, V(m).h8;
            eor v29.b16, V(n).b16, v30.b16; sub v29.h8, v29.h8, v30.h8;
            and V(d).b16, v29.b16, v31.b16
        }
        Psignd {
            sshr v30.s4, V(m).s4, 31; cmtst v31.s4, V(m).s4, V(m).s4;
            eor v29.b16, V(n).b16, v30.b16; sub v29.s4, v29.s4, v30.s4;
            and V(d).b16, v29.b16, v31.b16
        }
    }
}

pub(super) const SHIFT_ROWS: Rows = &[
    plain(M::Psllw, shift),
    plain(M::Pslld, shift),
    plain(M::Psllq, shift),
    plain(M::Psrlw, shift),
    plain(M::Psrld, shift),
    plain(M::Psrlq, shift),
    plain(M::Psraw, shift),
    plain(M::Psrad, shift),
    plain(M::Pslldq, shift_bytes),
    plain(M::Psrldq, shift_bytes),
    plain(M::Pabsb, absolute),
    plain(M::Pabsw, absolute),
    plain(M::Pabsd, absolute),
    plain(M::Mpsadbw, mpsadbw),
    plain(M::Phminposuw, phminposuw),
    row(M::Ptest, ptest, Flags::NONE, Flags::ALL),
];

fn binary(l: &mut Lower, ins: &Instruction) -> Lowered {
    let emit = operation(ins.mnemonic()).ok_or(Unimplemented)?;
    if l.message_schedule(ins) {
        return Ok(());
    }
    let d = vec_of(ins.op0_register());
    if ins.op_kind(1) == OpKind::Register && ins.op1_register() == ins.op0_register() {
        match constant_result(ins.mnemonic()) {
            Some(Constant::Zero) => {
                l.vzero(d);
                return Ok(());
            }
            Some(Constant::Ones) => {
                dynasm!(l.a; .arch aarch64; movi V(d.0).b16, 255);
                return Ok(());
            }
            None => {}
        }
    }
    let n = l.first_vector(ins);
    let m = l.vread(ins, 1, 16);
    emit(l.a, d.0, n.0, m.0);
    Ok(())
}

/// What an operation of a register with itself gives whatever the register holds.
enum Constant {
    Zero,
    Ones,
}

fn constant_result(m: M) -> Option<Constant> {
    match m {
        M::Pxor | M::Xorps | M::Xorpd | M::Psubb | M::Psubw | M::Psubd | M::Psubq => {
            Some(Constant::Zero)
        }
        M::Pcmpeqb | M::Pcmpeqw | M::Pcmpeqd | M::Pcmpeqq => Some(Constant::Ones),
        _ => None,
    }
}

impl Lower<'_> {
    /// Sets all 128 bits to zero.
    pub fn vzero(&mut self, d: V) {
        dynasm!(self.a; .arch aarch64; movi V(d.0).d2, 0);
    }
}

/// Kind of a lane shift.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shift {
    Left,
    Logical,
    Arithmetic,
}

/// Whether it shifts lanes.
pub(super) fn is_lane_shift(m: M) -> bool {
    use M::*;
    matches!(m, Psllw | Pslld | Psllq | Psrlw | Psrld | Psrlq | Psraw | Psrad)
}

/// Kind and log2 of the lane's bytes.
fn shift_of(m: M) -> (Shift, u32) {
    match m {
        M::Psllw => (Shift::Left, 1),
        M::Pslld => (Shift::Left, 2),
        M::Psllq => (Shift::Left, 3),
        M::Psrlw => (Shift::Logical, 1),
        M::Psrld => (Shift::Logical, 2),
        M::Psrlq => (Shift::Logical, 3),
        M::Psraw => (Shift::Arithmetic, 1),
        _ => (Shift::Arithmetic, 2),
    }
}

fn shift(l: &mut Lower, ins: &Instruction) -> Lowered {
    let (kind, log2) = shift_of(ins.mnemonic());
    let d = vec_of(ins.op0_register());
    if ins.op_kind(1) == OpKind::Immediate8 {
        let n = l.first_vector(ins);
        l.vshift_immediate(kind, log2, d, n, u32::from(ins.immediate8()));
    } else {
        let count = l.vread(ins, 1, 16);
        l.vshift_register(kind, log2, d, d, count);
    }
    Ok(())
}

impl Lower<'_> {
    /// Lane shift by a constant. A count of the lane's width or more gives zero, or the sign.
    fn vshift_immediate(&mut self, kind: Shift, log2: u32, d: V, n: V, count: u32) {
        let bits = 8 << log2;
        let registers = n.n() << 5 | d.n();
        match kind {
            _ if count == 0 => {
                if d != n {
                    self.vmov(d, n);
                }
            }
            // SHL, USHR, SSHR (Arm ARM C4.1.95, shift by immediate): immh:immb is the lane's width
            // plus the count, or twice the width minus the count.
            Shift::Left if count < bits => {
                self.a.word(0x4f00_5400 | (bits + count) << 16 | registers);
            }
            Shift::Logical if count < bits => {
                self.a.word(0x6f00_0400 | (2 * bits - count) << 16 | registers);
            }
            Shift::Arithmetic => {
                let count = count.min(bits);
                self.a.word(0x4f00_0400 | (2 * bits - count) << 16 | registers);
            }
            _ => self.vzero(d),
        }
    }

    /// Lane shift by the low 64 bits of a register. USHL and SSHL take a signed count from each lane's
    /// low byte, so the count is limited to 127, which like any beyond the width shifts all out.
    fn vshift_register(&mut self, kind: Shift, log2: u32, d: V, n: V, count: V) {
        let (t, limit) = (self.vtmp(), self.vtmp());
        dynasm!(self.a; .arch aarch64
            ; uqxtn V(t.0).s2, V(count.0).d2
            ; movi V(limit.0).s2, 127
            ; umin V(t.0).s2, V(t.0).s2, V(limit.0).s2
            ; dup V(t.0).b16, V(t.0).b[0]
        );
        if kind != Shift::Left {
            dynasm!(self.a; .arch aarch64; neg V(t.0).b16, V(t.0).b16);
        }
        let base = if kind == Shift::Arithmetic {
            0x4e20_4400 // SSHL
        } else {
            0x6e20_4400 // USHL
        };
        self.a.word(base | log2 << 22 | t.n() << 16 | n.n() << 5 | d.n());
    }
}

fn shift_bytes(l: &mut Lower, ins: &Instruction) -> Lowered {
    let d = vec_of(ins.op0_register());
    let count = u32::from(ins.immediate8());
    match count {
        0 => {}
        16.. => l.vzero(d),
        _ => {
            if ins.mnemonic() == M::Pslldq {
                dynasm!(l.a; .arch aarch64; ext V(d.0).b16, V(VZERO.0).b16, V(d.0).b16, 16 - count);
            } else {
                dynasm!(l.a; .arch aarch64; ext V(d.0).b16, V(d.0).b16, V(VZERO.0).b16, count);
            }
        }
    }
    Ok(())
}

/// ZF = (op0 & op1) is zero, CF = (!op0 & op1) is zero, the others 0.
fn ptest(l: &mut Lower, ins: &Instruction) -> Lowered {
    let n = vec_of(ins.op0_register());
    let m = l.vread(ins, 1, 16);
    if l.need.is_empty() {
        return Ok(());
    }
    let t = l.vtmp();
    let (zero, carry) = (l.tmp(), l.tmp());
    let need_carry = l.need.any(Flags::C);
    dynasm!(l.a; .arch aarch64
        ; and V(t.0).b16, V(n.0).b16, V(m.0).b16
        ; umaxv S(t.0), V(t.0).s4
        ; fmov W(zero.0), S(t.0)
    );
    if need_carry {
        dynasm!(l.a; .arch aarch64
            ; bic V(t.0).b16, V(m.0).b16, V(n.0).b16
            ; umaxv S(t.0), V(t.0).s4
            ; fmov W(carry.0), S(t.0)
        );
        l.a.subs(Width::X, R::ZR, carry, R::ZR);
        l.a.cset(carry, Cond::Eq);
    }
    // In 64 bits, so that N is 0.
    l.a.ands(Width::X, R::ZR, zero, zero);
    l.flags_are(Carry::Zero);
    if need_carry {
        l.set_carry_from_bit(carry, 0);
    }
    if l.need.any(Flags::P.or(Flags::A)) {
        l.a.mov_imm(Width::W, PF, 1); // odd parity: PF = 0
        l.a.mov(Width::W, AF, PF);
    }
    Ok(())
}

fn absolute(l: &mut Lower, ins: &Instruction) -> Lowered {
    let m = l.vread(ins, 1, 16);
    let d = vec_of(ins.op0_register());
    match ins.mnemonic() {
        M::Pabsb => dynasm!(l.a; .arch aarch64; abs V(d.0).b16, V(m.0).b16),
        M::Pabsw => dynasm!(l.a; .arch aarch64; abs V(d.0).h8, V(m.0).h8),
        _ => dynasm!(l.a; .arch aarch64; abs V(d.0).s4, V(m.0).s4),
    }
    Ok(())
}

/// Eight sums of four absolute differences: a block of the second operand against each position in the
/// first from an offset on.
fn mpsadbw(l: &mut Lower, ins: &Instruction) -> Lowered {
    let m = l.vread(ins, 1, 16);
    let d = vec_of(ins.op0_register());
    let imm = u32::from(ins.immediate8());
    let (offset, block) = (imm & 4, 4 * (imm & 3));
    let (sum, bytes, one) = (l.vtmp(), l.vtmp(), l.vtmp());
    l.vzero(sum);
    for i in 0..4 {
        dynasm!(l.a; .arch aarch64
            ; ext V(bytes.0).b16, V(d.0).b16, V(d.0).b16, offset + i
            ; dup V(one.0).b8, V(m.0).b[block + i]
            ; uabal V(sum.0).h8, V(bytes.0).b8, V(one.0).b8
        );
    }
    l.vmov(d, sum);
    Ok(())
}

/// The smallest of eight 16-bit values, with its index above it.
fn phminposuw(l: &mut Lower, ins: &Instruction) -> Lowered {
    let m = l.vread(ins, 1, 16);
    let d = vec_of(ins.op0_register());
    let (low, high) = (l.vtmp(), l.vtmp());
    // The value with its index below it: of equal values the one of the smallest index wins.
    l.a.ldr_literal_q(low, 0x0007_0006_0005_0004_0003_0002_0001_0000);
    dynasm!(l.a; .arch aarch64
        ; zip2 V(high.0).h8, V(low.0).h8, V(m.0).h8
        ; zip1 V(low.0).h8, V(low.0).h8, V(m.0).h8
        ; umin V(low.0).s4, V(low.0).s4, V(high.0).s4
        ; uminv S(low.0), V(low.0).s4
        ; rev32 V(d.0).h4, V(low.0).h4
    );
    Ok(())
}
