//! MMX: packed integers in the 64-bit registers mm0..mm7, which are the significands of the x87
//! registers R0..R7 (Intel SDM vol. 1, chapter 9).
//!
//! An operation loads its operands into the temporaries v16 and v17, works there and stores the
//! result. Every MMX instruction makes TOP zero and, but for EMMS, all tags valid, and a write sets the
//! exponent of the aliased register to all ones (9.5.1); this comes last, behind any fault.
//!
//! Most mnemonics are shared with SSE2: the table sends an instruction here if one of its first
//! two operands is an mm register.

use super::operands::{host_of, vec_of};
use super::table::{Rows, plain};
use super::{Lower, Lowered, STATE, Unimplemented};
use crate::asm::{Asm, R, V, Width};
use crate::helpers::Helper;
use crate::state::{X87State, offset};
use dynasmrt::{DynasmApi, dynasm};
use iced_x86::{Instruction, Mnemonic as M, OpKind, Register};
use std::mem::offset_of;

/// Destination operand and result.
const D: V = V(16);
/// Source operand.
const S: V = V(17);

/// Rows of the instructions without an operand in an mm register; the [table](super::table) knows the others by their forms.
pub(super) const ROWS: Rows =
    &[plain(M::Emms, lower), plain(M::Cvtpi2ps, lower), plain(M::Cvtpi2pd, lower)];

/// Emits an operation of v16 and v17 (v18 and v19 are free) with its result in v16.
type Emit = fn(&mut Asm);

/// Operations that are one arm64 instruction `op v16, v16, v17`.
macro_rules! same {
    ($($m:ident $op:tt $shape:tt;)*) => {
        &[$((M::$m, |a| dynasm!(a; .arch aarch64; $op v16.$shape, v16.$shape, v17.$shape))),*]
    };
}

/// Operations of several instructions.
macro_rules! several {
    ($($m:ident { $($code:tt)* })*) => {
        &[$((M::$m, |a| dynasm!(a; .arch aarch64; $($code)*))),*]
    };
}

const SAME: &[(M, Emit)] = same! {
    Paddb add b8; Paddw add h4; Paddd add s2; Paddsb sqadd b8; Paddsw sqadd h4;
    Paddusb uqadd b8; Paddusw uqadd h4; Psubb sub b8; Psubw sub h4; Psubd sub s2;
    Psubsb sqsub b8; Psubsw sqsub h4; Psubusb uqsub b8; Psubusw uqsub h4;
    Pmullw mul h4; Pcmpeqb cmeq b8; Pcmpeqw cmeq h4; Pcmpeqd cmeq s2;
    Pcmpgtb cmgt b8; Pcmpgtw cmgt h4; Pcmpgtd cmgt s2;
    Pand and b8; Por orr b8; Pxor eor b8; Pavgb urhadd b8; Pavgw urhadd h4;
    Pmaxub umax b8; Pminub umin b8; Pmaxsw smax h4; Pminsw smin h4;
    Punpcklbw zip1 b8; Punpcklwd zip1 h4; Punpckldq zip1 s2;
    Punpckhbw zip2 b8; Punpckhwd zip2 h4; Punpckhdq zip2 s2;
    Phaddw addp h4; Phaddd addp s2;
};

const SEVERAL: &[(M, Emit)] = several! {
    Paddq { add d16, d16, d17 }
    Psubq { sub d16, d16, d17 }
    Pandn { bic v16.b8, v17.b8, v16.b8 }
    Pmulhw { smull v18.s4, v16.h4, v17.h4; shrn v16.h4, v18.s4, 16 }
    Pmulhuw { umull v18.s4, v16.h4, v17.h4; shrn v16.h4, v18.s4, 16 }
    Pmulhrsw { smull v18.s4, v16.h4, v17.h4; rshrn v16.h4, v18.s4, 15 }
    Pmuludq { umull v16.d2, v16.s2, v17.s2 }
    Pmaddwd { smull v18.s4, v16.h4, v17.h4; addp v16.s4, v18.s4, v18.s4 }
    Pmaddubsw {
        ushll v16.h8, v16.b8, 0; sshll v17.h8, v17.b8, 0; mul v18.h8, v16.h8, v17.h8;
        saddlp v18.s4, v18.h8; sqxtn v16.h4, v18.s4
    }
    Psadbw { uabd v16.b8, v16.b8, v17.b8; uaddlv h16, v16.b8 }
    Packsswb { mov v16.d[1], v17.d[0]; sqxtn v16.b8, v16.h8 }
    Packuswb { mov v16.d[1], v17.d[0]; sqxtun v16.b8, v16.h8 }
    Packssdw { mov v16.d[1], v17.d[0]; sqxtn v16.h4, v16.s4 }
    Phaddsw { uzp1 v18.h4, v16.h4, v17.h4; uzp2 v16.h4, v16.h4, v17.h4; sqadd v16.h4, v18.h4, v16.h4 }
    Phsubw { uzp1 v18.h4, v16.h4, v17.h4; uzp2 v16.h4, v16.h4, v17.h4; sub v16.h4, v18.h4, v16.h4 }
    Phsubsw { uzp1 v18.h4, v16.h4, v17.h4; uzp2 v16.h4, v16.h4, v17.h4; sqsub v16.h4, v18.h4, v16.h4 }
    Phsubd { uzp1 v18.s2, v16.s2, v17.s2; uzp2 v16.s2, v16.s2, v17.s2; sub v16.s2, v18.s2, v16.s2 }
    Psignb {
        sshr v18.b8, v17.b8, 7; cmtst v17.b8, v17.b8, v17.b8; eor v16.b8, v16.b8, v18.b8;
        sub v16.b8, v16.b8, v18.b8; and v16.b8, v16.b8, v17.b8
    }
    Psignw {
        sshr v18.h4, v17.h4, 15; cmtst v17.h4, v17.h4, v17.h4; eor v16.b8, v16.b8, v18.b8;
        sub v16.h4, v16.h4, v18.h4; and v16.b8, v16.b8, v17.b8
    }
    Psignd {
        sshr v18.s2, v17.s2, 31; cmtst v17.s2, v17.s2, v17.s2; eor v16.b8, v16.b8, v18.b8;
        sub v16.s2, v16.s2, v18.s2; and v16.b8, v16.b8, v17.b8
    }
    Pabsb { abs v16.b8, v17.b8 }
    Pabsw { abs v16.h4, v17.h4 }
    Pabsd { abs v16.s2, v17.s2 }
    // An index with bit 7 set selects nothing, as does one beyond the table's eight bytes and zeros.
    Pshufb { movi v18.b8, 0x87; and v17.b8, v17.b8, v18.b8; tbl v16.b8, {v16.b16}, v17.b8 }
};

/// Lowers an MMX instruction.
pub(super) fn lower(l: &mut Lower, ins: &Instruction) -> Lowered {
    match ins.mnemonic() {
        M::Emms => return emms(l, ins),
        M::Movd | M::Movq => return move_mm(l, ins),
        M::Movq2dq => return movq2dq(l, ins),
        M::Movdq2q => return movdq2q(l, ins),
        M::Movntq => return movntq(l, ins),
        M::Maskmovq => return maskmovq(l, ins),
        M::Cvtpi2ps | M::Cvtpi2pd => return cvtpi2p(l, ins),
        M::Cvtps2pi | M::Cvttps2pi => return cvtps2pi(l, ins),
        M::Cvtpd2pi | M::Cvttpd2pi => return cvtpd2pi(l, ins),
        M::Pextrw => return pextrw(l, ins),
        M::Pmovmskb => return pmovmskb(l, ins),
        M::Pinsrw => return pinsrw(l, ins),
        M::Pshufw => return pshufw(l, ins),
        M::Palignr => return palignr(l, ins),
        M::Psllw | M::Pslld | M::Psllq | M::Psrlw | M::Psrld | M::Psrlq | M::Psraw | M::Psrad => {
            return shift(l, ins);
        }
        _ => {}
    }
    let m = ins.mnemonic();
    let (_, emit) = SAME.iter().chain(SEVERAL).find(|(name, _)| *name == m).ok_or(Unimplemented)?;
    begin(l, ins);
    emit(l.a);
    l.write_mm(ins.op0_register());
    Ok(())
}

/// Offset of an mm register in the state.
fn mm_offset(reg: Register) -> u32 {
    let i = reg as u32 - Register::MM0 as u32;
    offset::X87 + offset_of!(X87State, st) as u32 + 16 * i
}

/// Loads destination and source, as far as they are mm registers or memory.
fn begin(l: &mut Lower, ins: &Instruction) {
    l.raise_pending_x87();
    source(l, ins, 1);
    l.load_mm(D, ins.op0_register());
}

/// Loads an operand, an mm register or memory, into v17; what is above it is zero.
fn source(l: &mut Lower, ins: &Instruction, op: u32) {
    if ins.op_kind(op) == OpKind::Register {
        l.load_mm(S, ins.op_register(op));
    } else {
        let size = ins.memory_size().size() as u32;
        let m = l.address(ins, size);
        l.vload(size, S, m);
    }
    l.free_temps();
}

impl Lower<'_> {
    /// Loads an mm register, zero-extended.
    fn load_mm(&mut self, v: V, reg: Register) {
        dynasm!(self.a; .arch aarch64; ldr D(v.0), [x28, mm_offset(reg)]);
    }

    /// Writes v16 to an mm register and completes the instruction.
    fn write_mm(&mut self, reg: Register) {
        dynasm!(self.a; .arch aarch64; str d16, [x28, mm_offset(reg)]);
        self.complete_mm(reg);
    }

    /// Writes an integer register to an mm register and completes the instruction.
    fn write_mm_integer(&mut self, reg: Register, value: R) {
        self.a.str(value, STATE, mm_offset(reg));
        self.complete_mm(reg);
    }

    /// The exponent of a written register becomes all ones.
    fn complete_mm(&mut self, reg: Register) {
        self.free_temps();
        let t = self.constant(Width::W, 0xffff);
        dynasm!(self.a; .arch aarch64; strh W(t.0), [x28, mm_offset(reg) + 8]);
        self.enter_mmx();
    }

    /// TOP becomes zero and all registers valid.
    fn enter_mmx(&mut self) {
        const { assert!(offset_of!(X87State, tag) == offset_of!(X87State, top) + 2) };
        let t = self.constant(Width::W, 0xff << 16);
        self.a.str_w(t, STATE, offset::X87 + offset_of!(X87State, top) as u32);
    }
}

/// All registers become empty, and TOP zero.
fn emms(l: &mut Lower, _ins: &Instruction) -> Lowered {
    l.raise_pending_x87();
    l.a.str_w(R::ZR, STATE, offset::X87 + offset_of!(X87State, top) as u32);
    Ok(())
}

/// MOVD and MOVQ between mm registers, integer registers and memory.
fn move_mm(l: &mut Lower, ins: &Instruction) -> Lowered {
    l.raise_pending_x87();
    let (to, from) = (ins.op0_register(), ins.op1_register());
    let size = if ins.mnemonic() == M::Movd { 4 } else { 8 };
    if to.is_mm() {
        let value = if from.is_mm() {
            let t = l.tmp();
            l.a.ldr(t, STATE, mm_offset(from));
            t
        } else if size == 4 && from != Register::None {
            let t = l.tmp();
            l.a.mov(Width::W, t, host_of(from));
            t
        } else {
            l.read(ins, 1)
        };
        l.write_mm_integer(to, value);
        return Ok(());
    }
    if to != Register::None {
        let d = host_of(to);
        if size == 8 {
            l.a.ldr(d, STATE, mm_offset(from));
        } else {
            l.a.ldr_w(d, STATE, mm_offset(from));
        }
    } else {
        let t = l.tmp();
        l.a.ldr(t, STATE, mm_offset(from));
        let m = l.address(ins, size);
        l.store(size, t, m);
    }
    l.enter_mmx();
    Ok(())
}

fn movq2dq(l: &mut Lower, ins: &Instruction) -> Lowered {
    l.raise_pending_x87();
    l.load_mm(vec_of(ins.op0_register()), ins.op1_register());
    l.enter_mmx();
    Ok(())
}

fn movdq2q(l: &mut Lower, ins: &Instruction) -> Lowered {
    l.raise_pending_x87();
    l.vmov(D, vec_of(ins.op1_register()));
    l.write_mm(ins.op0_register());
    Ok(())
}

fn movntq(l: &mut Lower, ins: &Instruction) -> Lowered {
    l.raise_pending_x87();
    let t = l.tmp();
    l.a.ldr(t, STATE, mm_offset(ins.op1_register()));
    let m = l.address(ins, 8);
    l.store(8, t, m);
    l.enter_mmx();
    Ok(())
}

/// MASKMOVQ stores byte by byte, since only the selected ones may fault.
fn maskmovq(l: &mut Lower, ins: &Instruction) -> Lowered {
    l.raise_pending_x87();
    let address = l.string_destination(ins);
    l.a.mov(Width::X, R(20), address);
    l.a.ldr(R(21), STATE, mm_offset(ins.op1_register()));
    l.a.ldr(R(22), STATE, mm_offset(ins.op2_register()));
    l.call_helper(Helper::MaskedStore);
    l.free_temps();
    l.enter_mmx();
    Ok(())
}

impl Lower<'_> {
    /// The address in RDI (or EDI), with a segment override's base.
    pub(super) fn string_destination(&mut self, ins: &Instruction) -> R {
        let rdi = R(7);
        let base = match ins.memory_segment() {
            Register::FS => super::FS,
            Register::GS => {
                let t = self.tmp();
                self.a.ldr(t, STATE, offset::GS_BASE);
                t
            }
            _ => R::ZR,
        };
        let t = self.tmp();
        match ins.op0_kind() {
            OpKind::MemorySegEDI => self.a.mov(Width::W, t, rdi),
            _ => self.a.mov(Width::X, t, rdi),
        }
        self.a.add(Width::X, t, t, base);
        t
    }
}

fn pextrw(l: &mut Lower, ins: &Instruction) -> Lowered {
    l.raise_pending_x87();
    let at = mm_offset(ins.op1_register()) + 2 * (ins.immediate8() as u32 & 3);
    let d = host_of(ins.op0_register());
    dynasm!(l.a; .arch aarch64; ldrh W(d.0), [x28, at]);
    l.enter_mmx();
    Ok(())
}

fn pinsrw(l: &mut Lower, ins: &Instruction) -> Lowered {
    l.raise_pending_x87();
    let value = if ins.op1_kind() == OpKind::Memory {
        let m = l.address(ins, 2);
        let t = l.tmp();
        l.load(2, t, m);
        t
    } else {
        host_of(ins.op1_register())
    };
    let at = mm_offset(ins.op0_register()) + 2 * (ins.immediate8() as u32 & 3);
    dynasm!(l.a; .arch aarch64; strh W(value.0), [x28, at]);
    l.complete_mm(ins.op0_register());
    Ok(())
}

/// The sign bits of the bytes, gathered by a multiplication that moves bit 8i to bit 56 + i.
fn pmovmskb(l: &mut Lower, ins: &Instruction) -> Lowered {
    l.raise_pending_x87();
    let t = l.tmp();
    l.a.ldr(t, STATE, mm_offset(ins.op1_register()));
    l.a.lsr(Width::X, t, t, 7);
    l.a.and_imm(Width::X, t, t, 0x0101_0101_0101_0101);
    let gather = l.constant(Width::X, 0x0102_0408_1020_4080);
    l.a.mul(Width::X, t, t, gather);
    l.a.lsr(Width::X, host_of(ins.op0_register()), t, 56);
    l.enter_mmx();
    Ok(())
}

fn pshufw(l: &mut Lower, ins: &Instruction) -> Lowered {
    l.raise_pending_x87();
    source(l, ins, 1);
    let order = u32::from(ins.immediate8());
    for i in 0..4u32 {
        let from = order >> (2 * i) & 3;
        dynasm!(l.a; .arch aarch64; mov v16.h[i], v17.h[from]);
    }
    l.write_mm(ins.op0_register());
    Ok(())
}

fn palignr(l: &mut Lower, ins: &Instruction) -> Lowered {
    begin(l, ins);
    match u32::from(ins.immediate8()) {
        by @ 0..8 => dynasm!(l.a; .arch aarch64; ext v16.b8, v17.b8, v16.b8, by),
        by @ 8..16 => {
            dynasm!(l.a; .arch aarch64; movi v17.b8, 0; ext v16.b8, v16.b8, v17.b8, by - 8)
        }
        _ => dynasm!(l.a; .arch aarch64; movi v16.b8, 0),
    }
    l.write_mm(ins.op0_register());
    Ok(())
}

/// PSLLx, PSRLx, PSRAx: a count beyond the element shifts everything out.
fn shift(l: &mut Lower, ins: &Instruction) -> Lowered {
    l.raise_pending_x87();
    let m = ins.mnemonic();
    if ins.op1_kind() == OpKind::Immediate8 {
        l.load_mm(D, ins.op0_register());
        shift_by(l.a, m, u32::from(ins.immediate8()));
    } else {
        source(l, ins, 1);
        l.load_mm(D, ins.op0_register());
        // USHL and SSHL take a signed byte: the count saturates to 127.
        dynasm!(l.a; .arch aarch64
            ; uqxtn s17, d17
            ; uqxtn h17, s17
            ; uqxtn b17, h17
            ; movi v18.b8, 127
            ; umin v17.b8, v17.b8, v18.b8
            ; dup v17.b8, v17.b[0]
        );
        shift_by_register(l.a, m);
    }
    l.write_mm(ins.op0_register());
    Ok(())
}

fn shift_by(a: &mut Asm, m: M, count: u32) {
    let width = match m {
        M::Psllw | M::Psrlw | M::Psraw => 16,
        M::Pslld | M::Psrld | M::Psrad => 32,
        _ => 64,
    };
    let right = count.min(width);
    match m {
        _ if count == 0 => {}
        M::Psllw | M::Pslld | M::Psllq if count >= width => {
            dynasm!(a; .arch aarch64; movi v16.b8, 0);
        }
        M::Psllw => dynasm!(a; .arch aarch64; shl v16.h4, v16.h4, count),
        M::Pslld => dynasm!(a; .arch aarch64; shl v16.s2, v16.s2, count),
        M::Psllq => dynasm!(a; .arch aarch64; shl d16, d16, count),
        M::Psrlw => dynasm!(a; .arch aarch64; ushr v16.h4, v16.h4, right),
        M::Psrld => dynasm!(a; .arch aarch64; ushr v16.s2, v16.s2, right),
        M::Psrlq => dynasm!(a; .arch aarch64; ushr d16, d16, right),
        M::Psraw => dynasm!(a; .arch aarch64; sshr v16.h4, v16.h4, right),
        _ => dynasm!(a; .arch aarch64; sshr v16.s2, v16.s2, right),
    }
}

fn shift_by_register(a: &mut Asm, m: M) {
    if !matches!(m, M::Psllw | M::Pslld | M::Psllq) {
        dynasm!(a; .arch aarch64; neg v17.b8, v17.b8);
    }
    match m {
        M::Psllw | M::Psrlw => dynasm!(a; .arch aarch64; ushl v16.h4, v16.h4, v17.h4),
        M::Pslld | M::Psrld => dynasm!(a; .arch aarch64; ushl v16.s2, v16.s2, v17.s2),
        M::Psllq | M::Psrlq => dynasm!(a; .arch aarch64; ushl d16, d16, d17),
        M::Psraw => dynasm!(a; .arch aarch64; sshl v16.h4, v16.h4, v17.h4),
        _ => dynasm!(a; .arch aarch64; sshl v16.s2, v16.s2, v17.s2),
    }
}

/// CVTPI2PS and CVTPI2PD. With a memory operand they have nothing to do with MMX.
fn cvtpi2p(l: &mut Lower, ins: &Instruction) -> Lowered {
    let memory = ins.op1_kind() == OpKind::Memory;
    if !memory {
        l.raise_pending_x87();
    }
    source(l, ins, 1);
    let d = vec_of(ins.op0_register());
    if ins.mnemonic() == M::Cvtpi2ps {
        dynasm!(l.a; .arch aarch64; scvtf v17.s2, v17.s2; mov V(d.0).d[0], v17.d[0]);
    } else {
        dynasm!(l.a; .arch aarch64; sshll v17.d2, v17.s2, 0; scvtf V(d.0).d2, v17.d2);
    }
    if !memory {
        l.enter_mmx();
    }
    Ok(())
}

/// CVTPS2PI and CVTTPS2PI. arm64 saturates what does not fit and makes zero of a NaN, where x86
/// gives the integer indefinite.
fn cvtps2pi(l: &mut Lower, ins: &Instruction) -> Lowered {
    l.raise_pending_x87();
    let source = l.vread(ins, 1, 8);
    l.vmov(S, source);
    l.free_temps();
    if ins.mnemonic() == M::Cvtps2pi {
        dynasm!(l.a; .arch aarch64; frintx v17.s2, v17.s2);
    } else if l.config.host.frint {
        // FCVTZS of a denormal would set IDC with FPCR.AH, but an inexact conversion sets PE alone.
        l.a.word(0x0e21_ea31); // FRINT32Z v17.2s, v17.2s
    }
    let limit = l.constant(Width::W, 0x4f00_0000); // 2^31
    dynasm!(l.a; .arch aarch64
        ; fcvtzs v18.s2, v17.s2
        ; dup v19.s2, W(limit.0)
        ; fcmgt v16.s2, v19.s2, v17.s2
        ; movi v19.s2, 0x80, lsl 24
        ; bsl v16.b8, v18.b8, v19.b8
    );
    l.write_mm(ins.op0_register());
    Ok(())
}

/// FRINTX of v17 for the lanes that then fit 32 bits, and FRINTI, which is never inexact, for the others.
fn round_doubles(l: &mut Lower) {
    let limit = l.constant(Width::X, 0x41e0_0000_0000_0000); // 2^31
    dynasm!(l.a; .arch aarch64
        ; frinti v18.d2, v17.d2
        ; dup v19.d2, X(limit.0)
        ; fcmgt v16.d2, v19.d2, v18.d2
        ; fneg v19.d2, v19.d2
        ; fcmge v19.d2, v18.d2, v19.d2
        ; and v16.b16, v16.b16, v19.b16
        ; bsl v16.b16, v17.b16, v18.b16
        ; frintx v17.d2, v16.d2
    );
    l.free_temps();
}

/// CVTPD2PI and CVTTPD2PI; the conversions to 32 bits are the scalar ones, which raise the invalid
/// exception for what does not fit 32 bits.
fn cvtpd2pi(l: &mut Lower, ins: &Instruction) -> Lowered {
    l.raise_pending_x87();
    let source = l.vread(ins, 1, 16);
    l.vmov(S, source);
    l.free_temps();
    // What does not fit is invalid, and not also inexact.
    match (ins.mnemonic(), l.config.host.frint) {
        (M::Cvtpd2pi, true) => l.a.word(0x6e61_ea31), // FRINT32X v17.2d, v17.2d
        (_, true) => l.a.word(0x4e61_ea31),           // FRINT32Z v17.2d, v17.2d
        (M::Cvtpd2pi, false) => round_doubles(l),
        (_, false) => {}
    }
    let (low, high) = (l.tmp(), l.tmp());
    let limit = l.constant(Width::X, 0x41e0_0000_0000_0000); // 2^31
    dynasm!(l.a; .arch aarch64
        ; mov d18, v17.d[1]
        ; fcvtzs W(low.0), d17
        ; fcvtzs W(high.0), d18
        ; fmov s18, W(low.0)
        ; mov v18.s[1], W(high.0)
        ; dup v19.d2, X(limit.0)
        ; fcmgt v16.d2, v19.d2, v17.d2
        ; xtn v16.s2, v16.d2
        ; movi v19.s2, 0x80, lsl 24
        ; bsl v16.b8, v18.b8, v19.b8
    );
    l.write_mm(ins.op0_register());
    Ok(())
}
