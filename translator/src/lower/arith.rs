//! Integer arithmetic and logic: ADD SUB CMP ADC SBB AND OR XOR TEST INC DEC NEG NOT.

use super::atomics::Rmw;
use super::narrow::{
    narrow_carry_flags, narrow_carry_result, narrow_carry_sum, narrow_flags, narrow_sum,
};
use super::operands::{Addr, host_of, is_high_byte, width_of};
use super::table::{Rows, row};
use super::{AF, Carry, Lower, Lowered, PF, Test};
use crate::asm::{R, Width, fits_add_imm, fits_logical_imm};
use crate::flags::Flags;
use iced_x86::{ConditionCode, Instruction, Mnemonic as M, OpKind};

/// Scratch for constants that one instruction takes.
const SCRATCH: R = R(30);

pub(super) const ROWS: Rows = &[
    row(M::Add, add, Flags::NONE, Flags::ALL),
    row(M::Sub, sub, Flags::NONE, Flags::ALL),
    row(M::Cmp, cmp, Flags::NONE, Flags::ALL),
    row(M::Adc, adc, Flags::C, Flags::ALL),
    row(M::Sbb, sbb, Flags::C, Flags::ALL),
    row(M::And, and, Flags::NONE, Flags::ALL),
    row(M::Or, or, Flags::NONE, Flags::ALL),
    row(M::Xor, xor, Flags::NONE, Flags::ALL),
    row(M::Test, test, Flags::NONE, Flags::ALL),
    row(M::Inc, inc, Flags::NONE, Flags::ALL_BUT_C),
    row(M::Dec, dec, Flags::NONE, Flags::ALL_BUT_C),
    row(M::Neg, neg, Flags::NONE, Flags::ALL),
    row(M::Not, not, Flags::NONE, Flags::NONE),
];

/// Addition or subtraction.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Sum {
    Add,
    Sub,
}

/// A bitwise operation.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Logic {
    And,
    Or,
    Xor,
}

/// A second operand.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rhs {
    Reg(R),
    Imm(u64),
}

/// Where the first operand came from and the result goes.
pub(super) struct Destination {
    pub memory: Option<Addr>,
    pub size: u32,
}

fn add(l: &mut Lower, ins: &Instruction) -> Lowered {
    sum(l, ins, Sum::Add, false)
}

fn sub(l: &mut Lower, ins: &Instruction) -> Lowered {
    sum(l, ins, Sum::Sub, false)
}

fn cmp(l: &mut Lower, ins: &Instruction) -> Lowered {
    sum(l, ins, Sum::Sub, true)
}

impl Lower<'_> {
    /// Reads the first operand and remembers where the result goes.
    #[inline(always)]
    pub(super) fn read_destination(&mut self, ins: &Instruction) -> (R, Destination) {
        let size = self.size_of(ins, 0);
        if size >= 4 && ins.op0_kind() == OpKind::Register && self.copied.is_none() {
            return (host_of(ins.op0_register()), Destination { memory: None, size });
        }
        self.read_any_destination(ins, size)
    }

    #[inline(never)]
    fn read_any_destination(&mut self, ins: &Instruction, size: u32) -> (R, Destination) {
        if ins.op_kind(0) == OpKind::Register {
            let a = self.copied.take().unwrap_or_else(|| self.read(ins, 0));
            return (a, Destination { memory: None, size });
        }
        // Both accesses use the address: it shall not hold two temporaries.
        let m = match self.address(ins, size) {
            m @ Addr::Index(..) => Addr::Imm(self.single_address(m), 0),
            m => m,
        };
        let t = self.tmp();
        self.load(size, t, m);
        (t, Destination { memory: Some(m), size })
    }

    pub(super) fn write_destination(&mut self, ins: &Instruction, d: &Destination, value: R) {
        match d.memory {
            Some(m) => self.store(d.size, value, m),
            None => self.write_register(ins.op_register(0), value),
        }
    }

    /// The register to compute a 32- or 64-bit result in.
    pub(super) fn result_register(&mut self, ins: &Instruction, d: &Destination) -> R {
        if d.memory.is_none() && d.size >= 4 { host_of(ins.op_register(0)) } else { self.tmp() }
    }

    /// The second operand; immediates are sign-extended to the operand size.
    #[inline(always)]
    pub(super) fn rhs(&mut self, ins: &Instruction, size: u32) -> Rhs {
        if size >= 4 && ins.op1_kind() == OpKind::Register {
            return Rhs::Reg(host_of(ins.op1_register()));
        }
        self.any_rhs(ins, size)
    }

    #[inline(never)]
    fn any_rhs(&mut self, ins: &Instruction, size: u32) -> Rhs {
        match ins.op_kind(1) {
            OpKind::Register | OpKind::Memory => Rhs::Reg(self.read(ins, 1)),
            _ => {
                let mask = if size == 8 { u64::MAX } else { (1 << (8 * size)) - 1 };
                Rhs::Imm(ins.immediate(1) & mask)
            }
        }
    }

    pub(super) fn rhs_register(&mut self, w: Width, rhs: Rhs) -> R {
        match rhs {
            Rhs::Reg(r) => r,
            Rhs::Imm(0) => R::ZR,
            Rhs::Imm(v) => self.constant(w, v),
        }
    }

    /// The second operand for the one instruction that is emitted next.
    fn rhs_scratch(&mut self, w: Width, rhs: Rhs) -> R {
        match rhs {
            Rhs::Reg(r) => r,
            Rhs::Imm(0) => R::ZR,
            Rhs::Imm(v) => {
                self.load_constant(w, SCRATCH, v);
                SCRATCH
            }
        }
    }

    /// x26 = a ^ b, from which AF derives.
    pub(super) fn keep_for_af(&mut self, a: R, rhs: Rhs) {
        if !self.need.any(Flags::A) {
            return;
        }
        match rhs {
            Rhs::Reg(b) => self.a.eor(Width::X, AF, a, b),
            // Only bit 4 counts.
            Rhs::Imm(v) if v & 16 != 0 => self.a.eor_imm(Width::X, AF, a, 16),
            Rhs::Imm(_) => self.a.mov(Width::X, AF, a),
        }
    }

    pub(super) fn wants_pf(&self) -> bool {
        self.need.any(Flags::P.or(Flags::A))
    }

    /// Emits d = a op b in 32 or 64 bits, setting NZCV on request.
    pub(super) fn emit_sum(&mut self, op: Sum, w: Width, d: R, a: R, rhs: Rhs, flags: bool) {
        if let Rhs::Imm(v) = rhs {
            // The same sum with the operation turned round takes a negative immediate; its carry
            // differs, so that is only for sums whose flags do not matter.
            let negated =
                if w == Width::W { (v as u32).wrapping_neg() as u64 } else { v.wrapping_neg() };
            if !flags && d == a && w == Width::X {
                let by = if op == Sum::Add { v as i64 } else { (v as i64).wrapping_neg() };
                if self.post_index(d, by) {
                    return;
                }
            }
            if fits_add_imm(v) && a != R::ZR {
                return match (op, flags) {
                    (Sum::Add, false) => self.a.add_imm(w, d, a, v),
                    (Sum::Add, true) => self.a.adds_imm(w, d, a, v),
                    (Sum::Sub, false) => self.a.sub_imm(w, d, a, v),
                    (Sum::Sub, true) => self.a.subs_imm(w, d, a, v),
                };
            }
            if !flags && fits_add_imm(negated) {
                return match op {
                    Sum::Add => self.a.sub_imm(w, d, a, negated),
                    Sum::Sub => self.a.add_imm(w, d, a, negated),
                };
            }
            // a - v and a + (-v) have the same NZCV for v neither 0 nor the smallest number.
            if flags && fits_add_imm(negated) && negated != 0 {
                match op {
                    Sum::Add => self.a.subs_imm(w, d, a, negated),
                    Sum::Sub => self.a.adds_imm(w, d, a, negated),
                }
                return;
            }
        }
        let b = self.rhs_scratch(w, rhs);
        match (op, flags) {
            (Sum::Add, false) => self.a.add(w, d, a, b),
            (Sum::Add, true) => self.a.adds(w, d, a, b),
            (Sum::Sub, false) => self.a.sub(w, d, a, b),
            (Sum::Sub, true) => self.a.subs(w, d, a, b),
        }
    }
}

fn sum(l: &mut Lower, ins: &Instruction, op: Sum, compare: bool) -> Lowered {
    let size = l.size_of(ins, 0);
    if ins.has_lock_prefix() {
        return locked_sum(l, ins, op);
    }
    if size < 4 {
        return narrow_sum(l, ins, op, compare);
    }
    if l.move_in_row(ins) {
        return Ok(());
    }
    let w = width_of(size);
    let (a, destination) = l.read_destination(ins);
    let rhs = l.rhs(ins, size);
    if compare {
        l.leave_to_edge(true, size, a, rhs);
        if !(matches!(rhs, Rhs::Imm(0)) && l.leave_to_branch(a, size, None)) {
            let rhs = l.compare_with_next(size, rhs);
            l.sum_flags(op, size, a, rhs);
        }
        return Ok(());
    }
    if let Rhs::Reg(b) = rhs
        && destination.memory.is_none()
        && op == Sum::Sub
        && a == b
        && l.need.is_empty()
    {
        l.a.mov_imm(Width::W, host_of(ins.op_register(0)), 0);
        return Ok(());
    }
    let flags = l.need.any(Flags::NZCV);
    if destination.memory.is_some() {
        // The store may fault: flags come after it.
        let d = l.tmp();
        l.emit_sum(op, w, d, a, rhs, false);
        l.write_destination(ins, &destination, d);
        l.sum_flags(op, size, a, rhs);
        return Ok(());
    }
    l.keep_for_af(a, rhs);
    let d = l.result_register(ins, &destination);
    l.emit_sum(op, w, d, a, rhs, flags);
    if l.wants_pf() {
        l.a.mov(w, PF, d);
    }
    if flags {
        sum_carry(l, op);
    }
    Ok(())
}

impl Lower<'_> {
    /// The needed flags of a op b.
    pub(super) fn sum_flags(&mut self, op: Sum, size: u32, a: R, rhs: Rhs) {
        if self.need.is_empty() {
            return;
        }
        if size < 4 {
            return narrow_flags(self, op, size, a, rhs);
        }
        self.keep_for_af(a, rhs);
        let d = if self.wants_pf() { PF } else { R::ZR };
        self.emit_sum(op, width_of(size), d, a, rhs, true);
        sum_carry(self, op);
    }

    /// The address of a locked instruction's operand, in one register.
    fn locked_address(&mut self, ins: &Instruction) -> R {
        let m = self.address(ins, self.size_of(ins, 0));
        self.single_address(m)
    }
}

fn locked_sum(l: &mut Lower, ins: &Instruction, op: Sum) -> Lowered {
    let size = l.size_of(ins, 0);
    let p = l.locked_address(ins);
    let rhs = l.rhs(ins, size);
    let b = match (op, rhs) {
        (Sum::Add, _) => l.rhs_register(Width::X, rhs),
        (Sum::Sub, Rhs::Imm(v)) => l.constant(Width::X, v.wrapping_neg()),
        (Sum::Sub, Rhs::Reg(b)) => {
            let t = l.tmp();
            l.a.neg(Width::X, t, b);
            t
        }
    };
    let old = l.atomic(Rmw::Add, size, p, b);
    let rhs = l.rhs(ins, size);
    l.sum_flags(op, size, old, rhs);
    Ok(())
}

pub(super) fn sum_carry(l: &mut Lower, op: Sum) {
    l.flags_are(if op == Sum::Add { Carry::Direct } else { Carry::Inverted });
}

fn adc(l: &mut Lower, ins: &Instruction) -> Lowered {
    carry_sum(l, ins, Sum::Add)
}

fn sbb(l: &mut Lower, ins: &Instruction) -> Lowered {
    carry_sum(l, ins, Sum::Sub)
}

/// Makes PSTATE.C what the host's ADC or SBC wants.
pub(super) fn carry_in(l: &mut Lower, op: Sum) {
    if op == Sum::Add { l.carry_direct() } else { l.carry_inverted() }
}

fn carry_sum(l: &mut Lower, ins: &Instruction, op: Sum) -> Lowered {
    let size = l.size_of(ins, 0);
    if ins.has_lock_prefix() {
        return locked_carry_sum(l, ins, op);
    }
    if op == Sum::Sub
        && l.need.is_empty()
        && same_register(ins)
        && let Test::One(carry) = l.test(ConditionCode::b)
    {
        // All bits become CF.
        let d = l.destination(ins, 0);
        l.a.csetm(width_of(size), d, carry);
        if size < 4 {
            l.write_register(ins.op0_register(), d);
        }
        return Ok(());
    }
    if size < 4 {
        return narrow_carry_sum(l, ins, op);
    }
    let w = width_of(size);
    let (a, destination) = l.read_destination(ins);
    let rhs = l.rhs(ins, size);
    let b = l.rhs_register(w, rhs);
    carry_in(l, op);
    l.mark();
    if destination.memory.is_some() {
        let d = l.tmp();
        match op {
            Sum::Add => l.a.adc(w, d, a, b),
            Sum::Sub => l.a.sbc(w, d, a, b),
        }
        l.write_destination(ins, &destination, d);
        if !l.need.is_empty() {
            let d = if l.wants_pf() { PF } else { R::ZR };
            emit_carry_sum(l, op, w, d, a, b);
        }
    } else {
        let d = l.result_register(ins, &destination);
        emit_carry_sum(l, op, w, d, a, b);
    }
    Ok(())
}

/// d = a + b + CF or a - b - CF with the needed flags; CF is in PSTATE.C as the operation takes it.
fn emit_carry_sum(l: &mut Lower, op: Sum, w: Width, d: R, a: R, b: R) {
    // The operands may be the destination: AF's part comes first (NZCV stays).
    l.keep_for_af(a, Rhs::Reg(b));
    match (op, l.need.any(Flags::NZCV)) {
        (Sum::Add, true) => l.a.adcs(w, d, a, b),
        (Sum::Add, false) => l.a.adc(w, d, a, b),
        (Sum::Sub, true) => l.a.sbcs(w, d, a, b),
        (Sum::Sub, false) => l.a.sbc(w, d, a, b),
    }
    if l.wants_pf() && d != PF {
        l.a.mov(w, PF, d);
    }
    if l.need.any(Flags::NZCV) {
        sum_carry(l, op);
    }
}

/// LOCK ADC and SBB: an atomic addition of b + CF.
fn locked_carry_sum(l: &mut Lower, ins: &Instruction, op: Sum) -> Lowered {
    let size = l.size_of(ins, 0);
    let p = l.locked_address(ins);
    let rhs = l.rhs(ins, size);
    let b = l.rhs_register(Width::X, rhs);
    l.canonical(Flags::ALL);
    let t = l.tmp();
    l.a.cset(t, crate::asm::Cond::Cs);
    l.a.add(Width::X, t, t, b);
    if op == Sum::Sub {
        l.a.neg(Width::X, t, t);
    }
    let old = l.atomic(Rmw::Add, size, p, t);
    if l.need.is_empty() {
        return Ok(());
    }
    carry_in(l, op);
    let rhs = l.rhs(ins, size);
    let b = l.rhs_register(Width::X, rhs);
    if size < 4 {
        let r = narrow_carry_result(l, op, size, old, b);
        narrow_carry_flags(l, op, size, r);
    } else {
        let d = if l.wants_pf() { PF } else { R::ZR };
        emit_carry_sum(l, op, width_of(size), d, old, b);
    }
    Ok(())
}

fn same_register(ins: &Instruction) -> bool {
    ins.op1_kind() == OpKind::Register && ins.op0_register() == ins.op1_register()
}

fn and(l: &mut Lower, ins: &Instruction) -> Lowered {
    logic(l, ins, Logic::And)
}

fn or(l: &mut Lower, ins: &Instruction) -> Lowered {
    logic(l, ins, Logic::Or)
}

fn xor(l: &mut Lower, ins: &Instruction) -> Lowered {
    logic(l, ins, Logic::Xor)
}

impl Lower<'_> {
    fn emit_logic(&mut self, op: Logic, w: Width, d: R, a: R, rhs: Rhs) {
        if let Rhs::Imm(v) = rhs
            && fits_logical_imm(w, v)
        {
            return match op {
                Logic::And => self.a.and_imm(w, d, a, v),
                Logic::Or => self.a.orr_imm(w, d, a, v),
                Logic::Xor => self.a.eor_imm(w, d, a, v),
            };
        }
        let all = if w == Width::W { 0xffff_ffff } else { u64::MAX };
        match (op, rhs) {
            (Logic::Xor, Rhs::Imm(v)) if v == all => return self.a.mvn(w, d, a),
            (Logic::Or, Rhs::Imm(v)) if v == all => return self.a.mov_imm(w, d, all),
            (Logic::And, Rhs::Imm(v)) if v == all => return self.a.mov(w, d, a),
            _ => {}
        }
        let b = self.rhs_scratch(w, rhs);
        match op {
            Logic::And => self.a.and(w, d, a, b),
            Logic::Or => self.a.orr(w, d, a, b),
            Logic::Xor => self.a.eor(w, d, a, b),
        }
    }

    /// For an 8- or 16-bit operation of a register, `a`, with an immediate: the immediate that makes the operation on the
    /// whole register leave its other bits as they are, if that is no longer.
    fn narrow_immediate(&self, ins: &Instruction, op: Logic, a: R, rhs: Rhs) -> Option<Rhs> {
        let Rhs::Imm(v) = rhs else { return None };
        let register = ins.op0_register();
        let in_register = ins.op0_kind() == OpKind::Register;
        if !in_register || register.size() >= 4 || is_high_byte(register) || a != host_of(register)
        {
            return None;
        }
        match op {
            Logic::And => {
                let whole = v | u64::MAX << (8 * register.size());
                fits_logical_imm(Width::X, whole).then_some(Rhs::Imm(whole))
            }
            Logic::Or | Logic::Xor => Some(rhs),
        }
    }

    /// Sets the needed flags of a logical operation from its result in the low `bits` of `r`.
    pub fn flags_of_result(&mut self, r: R, size: u32) {
        if self.wants_pf() {
            self.a.mov(Width::W, PF, r);
        }
        if !self.need.any(Flags::NZCV) {
            return;
        }
        if size < 4 && !self.need.any(Flags::S) {
            self.a.ands_imm(Width::W, R::ZR, r, (1 << (8 * size)) - 1);
        } else if size < 4 {
            let t = self.tmp();
            self.a.lsl(Width::W, t, r, 32 - 8 * size);
            self.a.tst(Width::W, t, t);
        } else {
            self.a.tst(width_of(size), r, r);
        }
        self.flags_are(Carry::Zero);
    }
}

fn logic(l: &mut Lower, ins: &Instruction, op: Logic) -> Lowered {
    let size = l.size_of(ins, 0);
    let w = width_of(size);
    if op == Logic::Xor && crate::facts::is_zero_idiom(ins) && size >= 4 {
        let d = host_of(ins.op_register(0));
        l.a.mov_imm(Width::W, d, 0);
        l.flags_of_result(R::ZR, size);
        return Ok(());
    }
    if ins.has_lock_prefix() {
        return locked_logic(l, ins, op);
    }
    if op == Logic::Xor && l.is_counted_already() {
        return Ok(());
    }
    let (a, destination) = l.read_destination(ins);
    let rhs = l.rhs(ins, size);
    // OR r, r is an idiom for TEST r, r.
    if let Rhs::Reg(b) = rhs
        && a == b
        && op != Logic::Xor
        && destination.memory.is_none()
        && size != 4
    {
        l.flags_of_result(a, size);
        return Ok(());
    }
    if destination.memory.is_none() && op == Logic::And && size >= 4 && l.need.any(Flags::NZCV) {
        let d = host_of(ins.op_register(0));
        l.emit_ands(w, d, a, rhs);
        if l.wants_pf() {
            l.a.mov(Width::W, PF, d);
        }
        return Ok(());
    }
    if size < 4
        && op != Logic::And
        && destination.memory.is_none()
        && !is_high_byte(ins.op_register(0))
        && (ins.op1_kind() == OpKind::Memory || l.is_zero_extended(ins, 1))
    {
        // A loaded operand is zero-extended: what lies above in the register stays.
        l.emit_logic(op, Width::X, a, a, rhs);
        l.flags_of_result(a, size);
        return Ok(());
    }
    if let Some(whole) = l.narrow_immediate(ins, op, a, rhs) {
        l.emit_logic(op, Width::X, a, a, whole);
        l.flags_of_result(a, size);
        return Ok(());
    }
    let d = l.result_register(ins, &destination);
    l.emit_logic(op, w, d, a, rhs);
    if destination.memory.is_some() || size < 4 {
        l.write_destination(ins, &destination, d);
    }
    l.flags_of_result(d, size);
    Ok(())
}

fn locked_logic(l: &mut Lower, ins: &Instruction, op: Logic) -> Lowered {
    let size = l.size_of(ins, 0);
    let p = l.locked_address(ins);
    let rhs = l.rhs(ins, size);
    let (rmw, b) = match (op, rhs) {
        (Logic::And, Rhs::Imm(v)) => (Rmw::Clear, l.constant(Width::X, !v)),
        (Logic::And, Rhs::Reg(b)) => {
            let t = l.tmp();
            l.a.mvn(Width::X, t, b);
            (Rmw::Clear, t)
        }
        (Logic::Or, _) => (Rmw::Or, l.rhs_register(Width::X, rhs)),
        (Logic::Xor, _) => (Rmw::Xor, l.rhs_register(Width::X, rhs)),
    };
    let old = l.atomic(rmw, size, p, b);
    if !l.need.is_empty() {
        let rhs = l.rhs(ins, size);
        let d = l.tmp();
        l.emit_logic(op, width_of(size), d, old, rhs);
        l.flags_of_result(d, size);
    }
    Ok(())
}

impl Lower<'_> {
    /// The needed flags of a & b.
    pub(super) fn test_flags(&mut self, size: u32, a: R, rhs: Rhs) {
        if size < 4 {
            return self.narrow_test_flags(size, a, rhs);
        }
        let d = if self.wants_pf() { PF } else { R::ZR };
        self.emit_ands(width_of(size), d, a, rhs);
    }

    fn narrow_test_flags(&mut self, size: u32, a: R, rhs: Rhs) {
        // S is only right at the top of the register; without it any place will do.
        let narrow = match rhs {
            Rhs::Imm(v) if !self.need.any(Flags::S.or(Flags::O)) || v >> (8 * size - 1) == 0 => {
                let d = if self.wants_pf() { PF } else { R::ZR };
                return self.emit_ands(Width::W, d, a, rhs);
            }
            Rhs::Reg(b) if a == b => a,
            _ => {
                let t = self.tmp();
                self.emit_logic(Logic::And, Width::W, t, a, rhs);
                t
            }
        };
        self.flags_of_result(narrow, size);
    }

    pub(super) fn emit_ands(&mut self, w: Width, d: R, a: R, rhs: Rhs) {
        match rhs {
            Rhs::Imm(v) if fits_logical_imm(w, v) => self.a.ands_imm(w, d, a, v),
            _ => {
                let b = self.rhs_scratch(w, rhs);
                self.a.ands(w, d, a, b);
            }
        }
        self.flags_are(Carry::Zero);
    }
}

fn test(l: &mut Lower, ins: &Instruction) -> Lowered {
    let size = l.size_of(ins, 0);
    let (a, _) = l.read_destination(ins);
    let rhs = l.rhs(ins, size);
    if l.need.is_empty() {
        return Ok(());
    }
    let same = matches!(rhs, Rhs::Reg(b) if b == a);
    let mask = match rhs {
        Rhs::Imm(v) => Some(v),
        Rhs::Reg(_) => None,
    };
    l.leave_to_edge(false, size, a, rhs);
    if (same || mask.is_some()) && l.leave_to_branch(a, size, mask) {
        return Ok(());
    }
    if size < 4 && same && !l.need.any(Flags::S) && l.is_zero_extended(ins, 0) {
        if !l.leave_to_branch(a, 4, None) {
            l.test_flags(4, a, rhs);
        }
        return Ok(());
    }
    l.test_flags(size, a, rhs);
    Ok(())
}

fn inc(l: &mut Lower, ins: &Instruction) -> Lowered {
    step(l, ins, Sum::Add)
}

fn dec(l: &mut Lower, ins: &Instruction) -> Lowered {
    step(l, ins, Sum::Sub)
}

/// INC and DEC: a sum with 1 that leaves CF alone.
fn step(l: &mut Lower, ins: &Instruction, op: Sum) -> Lowered {
    let size = l.size_of(ins, 0);
    let one = Rhs::Imm(1);
    let keep_carry = l.live_out.any(Flags::C) && l.need.any(Flags::NZCV);
    if ins.has_lock_prefix() {
        let p = l.locked_address(ins);
        let by = if op == Sum::Add { 1 } else { u64::MAX };
        let b = l.constant(Width::X, by);
        let old = l.atomic(Rmw::Add, size, p, b);
        step_flags(l, op, size, old);
        return Ok(());
    }
    let (a, destination) = l.read_destination(ins);
    let d = l.result_register(ins, &destination);
    let w = width_of(size);
    if destination.memory.is_none() && size >= 4 && !keep_carry {
        l.keep_for_af(a, one);
        l.emit_sum(op, w, d, a, one, l.need.any(Flags::NZCV));
        if l.wants_pf() {
            l.a.mov(w, PF, d);
        }
        if l.need.any(Flags::NZCV) {
            sum_carry(l, op);
        }
        return Ok(());
    }
    // A copy, if the result may be written over the operand.
    let old = if destination.memory.is_some() { a } else { l.tmp() };
    if old != a {
        l.a.mov(Width::X, old, a);
    }
    l.emit_sum(op, w, d, old, one, false);
    if destination.memory.is_some() || size < 4 {
        l.write_destination(ins, &destination, d);
    }
    step_flags(l, op, size, old);
    Ok(())
}

fn step_flags(l: &mut Lower, op: Sum, size: u32, old: R) {
    // Also PF alone is computed by an instruction that sets NZCV.
    if l.need.is_empty() || !l.live_out.any(Flags::C) {
        return l.sum_flags(op, size, old, Rhs::Imm(1));
    }
    l.carry_direct();
    let c = l.tmp();
    l.a.cset(c, crate::asm::Cond::Cs);
    l.sum_flags(op, size, old, Rhs::Imm(1));
    l.set_carry_from_bit(c, 0);
}

fn neg(l: &mut Lower, ins: &Instruction) -> Lowered {
    let size = l.size_of(ins, 0);
    let w = width_of(size);
    if ins.has_lock_prefix() {
        let p = l.locked_address(ins);
        let old = l.atomic(Rmw::Neg, size, p, R::ZR);
        l.sum_flags(Sum::Sub, size, R::ZR, Rhs::Reg(old));
        return Ok(());
    }
    let (a, destination) = l.read_destination(ins);
    if destination.memory.is_none() && size >= 4 {
        let d = l.result_register(ins, &destination);
        if l.need.any(Flags::A) {
            l.a.mov(Width::X, AF, a);
        }
        l.a.subs(w, d, R::ZR, a);
        if l.wants_pf() {
            l.a.mov(w, PF, d);
        }
        l.flags_are(Carry::Inverted);
        return Ok(());
    }
    let d = l.tmp();
    l.a.neg(w, d, a);
    if destination.memory.is_some() {
        l.write_destination(ins, &destination, d);
        l.sum_flags(Sum::Sub, size, R::ZR, Rhs::Reg(a));
    } else {
        l.sum_flags(Sum::Sub, size, R::ZR, Rhs::Reg(a));
        l.write_destination(ins, &destination, d);
    }
    Ok(())
}

fn not(l: &mut Lower, ins: &Instruction) -> Lowered {
    if ins.has_lock_prefix() {
        let p = l.locked_address(ins);
        let ones = l.constant(Width::X, u64::MAX);
        l.atomic(Rmw::Xor, l.size_of(ins, 0), p, ones);
        return Ok(());
    }
    let (a, destination) = l.read_destination(ins);
    let d = l.result_register(ins, &destination);
    l.a.mvn(width_of(destination.size), d, a);
    if destination.memory.is_some() || destination.size < 4 {
        l.write_destination(ins, &destination, d);
    }
    Ok(())
}
