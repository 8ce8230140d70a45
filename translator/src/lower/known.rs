//! What the straight-line code before an instruction shows of a register: that its bits above the low 8 or 16 are zero.
//!
//! Then narrow operations can be done on the whole register: MOVZX and a TEST of the byte are LDRB and CBZ.

use super::Lower;
use super::operands::is_high_byte;
use crate::facts::is_zero_idiom;
use crate::fault_flags::{changes, goes_straight_on};
use iced_x86::{ConditionCode, Instruction, Mnemonic as M, OpKind, Register};

/// So many instructions are looked at.
const LOOK_BACK: usize = 8;

fn is_set(ins: &Instruction) -> bool {
    ins.op_count() == 1
        && ins.op0_kind() == OpKind::Register
        && ins.condition_code() != ConditionCode::None
}

/// Whether an instruction that changes the register leaves the bits above its low `size` bytes as they were.
fn keeps_upper(ins: &Instruction, register: Register, size: usize) -> bool {
    use M::*;
    let to = ins.op0_register();
    let only_first = matches!(
        ins.mnemonic(),
        Mov | Add | Sub | And | Or | Xor | Inc | Dec | Not | Neg | Shl | Shr | Sar
    ) || is_set(ins);
    only_first && to.full_register() == register && to.size() <= size && !is_high_byte(to)
}

/// Whether an instruction that changes the register leaves zeros above its low `size` bytes.
fn extends(ins: &Instruction, register: Register, size: usize) -> bool {
    let to = ins.op0_register();
    let small = |op| {
        let immediate = !matches!(ins.op_kind(op), OpKind::Register | OpKind::Memory);
        immediate && ins.immediate(op) >> (8 * size) == 0
    };
    let from = match ins.op1_kind() {
        OpKind::Memory => ins.memory_size().size(),
        _ => ins.op1_register().size(),
    };
    to.full_register() == register
        && to.size() >= 4
        && match ins.mnemonic() {
            M::Movzx => from <= size,
            M::Mov | M::And => small(1),
            _ => is_zero_idiom(ins),
        }
}

/// The register that an instruction copies to this one, with zeros above it if it is one of 32 bits.
fn copied(ins: &Instruction, register: Register) -> Option<Register> {
    let (to, from) = (ins.op0_register(), ins.op1_register());
    let copies = ins.mnemonic() == M::Mov
        && ins.op1_kind() == OpKind::Register
        && to.full_register() == register
        && to.size() >= 4
        && from.is_gpr();
    copies.then(|| from.full_register())
}

impl Lower<'_> {
    /// Whether an 8- or 16-bit operand is in a register that holds zeros above it.
    pub fn is_zero_extended(&mut self, ins: &Instruction, op: u32) -> bool {
        let register = ins.op_register(op);
        if ins.op_kind(op) != OpKind::Register || is_high_byte(register) {
            return false;
        }
        let (mut full, size) = (register.full_register(), register.size());
        let insns = &self.region.insns;
        for i in (self.index.saturating_sub(LOOK_BACK)..self.index).rev() {
            if insns[i + 1].join || !goes_straight_on(self.region, i) {
                return false;
            }
            let before = &insns[i].ins;
            if !changes(before, full) || keeps_upper(before, full, size) {
                continue;
            }
            if let Some(copied) = copied(before, full) {
                full = copied;
                continue;
            }
            let zeros = extends(before, full, size);
            if zeros {
                self.needs_what_ran_before(i);
            }
            return zeros;
        }
        false
    }

    /// Whether the next instruction is MOVZX of what the current one, SETcc, sets.
    pub fn is_extended_next(&self, ins: &Instruction) -> bool {
        let next = &self.region.insns.get(self.index + 1);
        self.region.falls_into_next(self.index)
            && next.is_some_and(|next| !next.join && extends_set(ins, &next.ins))
    }

    /// Whether the instruction before the current one, MOVZX, is a SETcc that has seen to it.
    pub fn is_extended_already(&mut self, ins: &Instruction) -> bool {
        let Some(i) = self.index.checked_sub(1) else { return false };
        let extended = self.region.falls_into_next(i)
            && !self.region.insns[self.index].join
            && extends_set(&self.region.insns[i].ins, ins);
        if extended {
            self.needs_what_ran_before(i);
        }
        extended
    }
}

/// Whether the second instruction extends the register that the first, SETcc, sets, in its place.
fn extends_set(set: &Instruction, ins: &Instruction) -> bool {
    let register = set.op0_register();
    is_set(set)
        && !is_high_byte(register)
        && ins.mnemonic() == M::Movzx
        && ins.op1_kind() == OpKind::Register
        && ins.op1_register() == register
        && ins.op0_register().size() >= 4
        && ins.op0_register().full_register() == register.full_register()
}
