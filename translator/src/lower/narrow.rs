//! Sums of 8 and 16 bits, which the host does not have: ADD SUB CMP ADC SBB.

use super::arith::{Rhs, Sum, carry_in, sum_carry};
use super::operands::is_high_byte;
use super::{Carry, Lower, Lowered, PF};
use crate::asm::{R, Width};
use crate::flags::Flags;
use iced_x86::{Instruction, OpKind};

/// 8- and 16-bit sums: in the top of a W register for all flags, or extended when less is wanted.
pub(super) fn narrow_sum(l: &mut Lower, ins: &Instruction, op: Sum, compare: bool) -> Lowered {
    let size = l.size_of(ins, 0);
    let (a, destination) = l.read_destination(ins);
    let rhs = l.rhs(ins, size);
    let extended = destination.memory.is_some() || is_high_byte(ins.op_register(0));
    if compare {
        l.leave_to_edge(true, size, a, rhs);
    }
    if compare
        && op == Sum::Sub
        && l.need.within(Flags::Z.or(Flags::C))
        && (extended || l.is_zero_extended(ins, 0))
        && (matches!(rhs, Rhs::Imm(_))
            || ins.op1_kind() == OpKind::Register && l.is_zero_extended(ins, 1))
    {
        // Zero-extended, both.
        let zero = matches!(rhs, Rhs::Imm(0));
        if !(l.need.is_empty() || zero && l.leave_to_branch(a, 4, None)) {
            l.emit_sum(op, Width::W, R::ZR, a, rhs, true);
            sum_carry(l, op);
        }
        return Ok(());
    }
    if compare && l.compare_extending(ins, size, a, rhs) {
        return Ok(());
    }
    if compare {
        narrow_flags(l, op, size, a, rhs);
        return Ok(());
    }
    let d = l.tmp();
    l.emit_sum(op, Width::W, d, a, rhs, false);
    if destination.memory.is_some() || l.need.is_empty() || is_high_byte(ins.op_register(0)) {
        // For memory the store comes first, as it may fault; AH and the like were copied.
        l.write_destination(ins, &destination, d);
        narrow_flags(l, op, size, a, rhs);
    } else {
        // The flags come first, as the destination may be an operand.
        narrow_flags(l, op, size, a, rhs);
        l.write_destination(ins, &destination, d);
    }
    Ok(())
}

impl Lower<'_> {
    /// An 8- or 16-bit CMP of memory and a register: what was loaded is extended already, and the host's comparison
    /// extends its second operand.
    fn compare_extending(&mut self, ins: &Instruction, size: u32, a: R, rhs: Rhs) -> bool {
        let Rhs::Reg(b) = rhs else { return false };
        let (first, second) = match (ins.op0_kind(), ins.op1_kind()) {
            (OpKind::Memory, _) if self.need.within(Flags::Z.or(Flags::C)) => (a, b),
            // Turned round, only equality stays.
            (_, OpKind::Memory) if self.need.within(Flags::Z) => (b, a),
            _ => return false,
        };
        if !self.need.is_empty() {
            self.a.cmp_extending(size, first, second);
            self.flags_are(Carry::Inverted);
        }
        true
    }
}

/// The needed flags of an 8- or 16-bit a op b.
pub(super) fn narrow_flags(l: &mut Lower, op: Sum, size: u32, a: R, rhs: Rhs) {
    if l.need.is_empty() {
        return;
    }
    let bits = size * 8;
    l.keep_for_af(a, rhs);
    if op == Sum::Sub
        && l.need.within(Flags::Z.or(Flags::C))
        && let Rhs::Imm(_) = rhs
    {
        // Unsigned comparison of the zero-extended operand: its constant fits better than one at the top.
        if matches!(rhs, Rhs::Imm(0)) {
            return l.emit_ands(Width::W, R::ZR, a, Rhs::Imm((1 << bits) - 1));
        }
        let x = l.tmp();
        l.a.ubfx(Width::W, x, a, 0, bits);
        l.emit_sum(op, Width::W, R::ZR, x, rhs, true);
        l.flags_are(Carry::Inverted);
        return;
    }
    let x = if a == R::ZR { a } else { l.tmp() };
    if a != R::ZR {
        l.a.lsl(Width::W, x, a, 32 - bits);
    }
    let t = if l.wants_pf() { l.tmp() } else { R::ZR };
    match rhs {
        Rhs::Imm(v) => {
            l.emit_sum(op, Width::W, t, x, Rhs::Imm((v << (32 - bits)) & 0xffff_ffff), true);
        }
        Rhs::Reg(b) if op == Sum::Add => l.a.adds_lsl(Width::W, t, x, b, 32 - bits),
        Rhs::Reg(b) => l.a.subs_lsl(Width::W, t, x, b, 32 - bits),
    }
    if l.wants_pf() {
        l.a.lsr(Width::W, PF, t, 32 - bits);
    }
    sum_carry(l, op);
}

/// 8- and 16-bit ADC and SBB.
pub(super) fn narrow_carry_sum(l: &mut Lower, ins: &Instruction, op: Sum) -> Lowered {
    let size = l.size_of(ins, 0);
    let (a, destination) = l.read_destination(ins);
    let rhs = l.rhs(ins, size);
    let b = l.rhs_register(Width::W, rhs);
    carry_in(l, op);
    l.mark();
    let r = narrow_carry_result(l, op, size, a, b);
    if destination.memory.is_some() {
        l.write_destination(ins, &destination, r.d);
        narrow_carry_flags(l, op, size, r);
    } else {
        narrow_carry_flags(l, op, size, r);
        l.write_destination(ins, &destination, r.d);
    }
    Ok(())
}

/// Zero-extended operands and their sum.
#[derive(Clone, Copy)]
pub(super) struct NarrowSum {
    x: R,
    y: R,
    d: R,
}

pub(super) fn narrow_carry_result(l: &mut Lower, op: Sum, size: u32, a: R, b: R) -> NarrowSum {
    let (x, y, d) = (l.tmp(), l.tmp(), l.tmp());
    l.a.ubfx(Width::W, x, a, 0, size * 8);
    l.a.ubfx(Width::W, y, b, 0, size * 8);
    match op {
        Sum::Add => l.a.adc(Width::W, d, x, y),
        Sum::Sub => l.a.sbc(Width::W, d, x, y),
    }
    NarrowSum { x, y, d }
}

pub(super) fn narrow_carry_flags(l: &mut Lower, op: Sum, size: u32, r: NarrowSum) {
    let bits = size * 8;
    let NarrowSum { x, y, d } = r;
    if l.need.is_empty() {
        return;
    }
    l.keep_for_af(x, Rhs::Reg(y));
    if l.wants_pf() {
        l.a.mov(Width::W, PF, d);
    }
    if !l.need.any(Flags::NZCV) {
        return;
    }
    // V = operands agree in sign (differ, for SBB) and the result does not.
    let v = l.scratch();
    match op {
        Sum::Add => l.a.eor(Width::W, v, y, d),
        Sum::Sub => l.a.eor(Width::W, v, x, y),
    }
    l.a.eor(Width::W, x, x, d);
    l.a.and(Width::W, x, x, v);
    l.a.lsl(Width::W, y, d, 32 - bits);
    l.a.tst(Width::W, y, y);
    l.set_carry_from_bit(d, bits);
    l.set_overflow_from_bit(x, bits - 1);
    l.flags_are(Carry::Direct);
}
