//! Counting loops: straight code that ends with a branch back as long as a counter is not zero.
//!
//! Where one begins, code for several of its turns may stand in front of it, see [`super::passes`] and
//! [`super::resident`].

use super::Lower;
use super::operands::{host_of, width_of};
use crate::asm::{Cond, R};
use crate::engine::MemoryOrder;
use crate::flags::Flags;
use crate::region::{Insn, Next};

use iced_x86::{FlowControl, Instruction, Mnemonic as M, OpKind, Register};

/// A counting loop.
pub struct Counting<'a> {
    /// What is done in a turn, but for the branch.
    pub insns: &'a [Insn],
    /// The register that is zero at the end, and by how much each turn changes it.
    pub counter: (Register, i64),
    /// The registers that advance: by which instruction, and by how much.
    pub steps: Vec<(usize, Register, i64)>,
}

/// By how much an instruction, which does nothing else, changes a register.
pub fn step(ins: &Instruction) -> Option<(Register, i64)> {
    let register = ins.op0_register();
    let immediate = || {
        let constant = !matches!(ins.op1_kind(), OpKind::Register | OpKind::Memory);
        constant.then(|| i64::from(ins.immediate(1) as i32))
    };
    let by = match ins.mnemonic() {
        M::Inc => 1,
        M::Dec => -1,
        M::Add => immediate()?,
        M::Sub => -immediate()?,
        M::Lea => {
            let advances = register.is_gpr64()
                && ins.memory_base() == register
                && ins.memory_index() == Register::None;
            advances.then_some(ins.memory_displacement64() as i64)?
        }
        _ => return None,
    };
    let whole = ins.op0_kind() == OpKind::Register && (register.is_gpr32() || register.is_gpr64());
    (whole && by != 0 && by.abs() <= 256).then_some((register, by))
}

impl<'a> Counting<'a> {
    /// The one that begins at an instruction of a region.
    fn at(insns: &'a [Insn], start: usize) -> Option<Self> {
        let near = &insns[start..];
        let (branch, others) = {
            let at = near.iter().position(|insn| insn.flow != FlowControl::Next)?;
            (&near[at], &near[..at])
        };
        let closed = branch.target == Some(start as u16)
            && branch.ins.mnemonic() == M::Jne
            && near[1..=others.len()].iter().all(|insn| !insn.join)
            && others.iter().all(|insn| insn.next == Next::Inside);
        if !closed {
            return None;
        }
        let counts = others.iter().rfind(|insn| insn.entry.writes.any(Flags::Z))?;
        let counter = step(&counts.ins)?;
        let all = others.iter().enumerate();
        let steps =
            all.filter_map(|(i, insn)| step(&insn.ins).map(|(register, by)| (i, register, by)));
        let counting = Counting { insns: others, counter, steps: steps.collect() };
        counting.steps_are_regular().then_some(counting)
    }

    /// Whether each register is advanced by one instruction.
    fn steps_are_regular(&self) -> bool {
        let mut registers: Vec<_> = self.steps.iter().map(|step| step.1.full_register()).collect();
        registers.sort();
        registers.windows(2).all(|pair| pair[0] != pair[1])
    }

    /// How far a register, which the address of an instruction's operand is made from, has advanced in a turn before
    /// the instruction; None if it is not advanced as a whole.
    pub fn advanced(&self, base: Register, index: usize) -> Option<i64> {
        let same = |other: Register| other.full_register() == base;
        match self.steps.iter().find(|step| same(step.1)) {
            Some(&(i, register, by)) => register.is_gpr64().then_some(by * i64::from(i < index)),
            None => Some(0),
        }
    }

    /// By how much a turn advances a register.
    pub fn step_of(&self, base: Register) -> i64 {
        self.steps.iter().find(|step| step.1 == base).map_or(0, |step| step.2)
    }
}

impl Lower<'_> {
    /// At the first instruction of a loop: emits code for several of its turns in front of it. Returns false if there is none.
    pub fn turns_ahead(&mut self, index: usize) -> bool {
        let region = self.region;
        let allowed = self.config.order == MemoryOrder::Plain
            && region.insns[index].live_in.is_empty()
            && self.may_be_late()
            && self.profile.is_none();
        let counting = if allowed { Counting::at(&region.insns, index) } else { None };
        counting.is_some_and(|counting| {
            self.passes(&counting, index) || self.resident(&counting, index)
        })
    }

    /// Compares the counter with what so many turns need: Z, or the condition that there are more.
    pub fn are_left(&mut self, counting: &Counting, turns: usize) -> Cond {
        let (register, by) = counting.counter;
        let (w, r) = (width_of(register.size() as u32), host_of(register));
        let needed = by.unsigned_abs() * turns as u64;
        if by < 0 {
            self.a.subs_imm(w, R::ZR, r, needed);
            Cond::Hi
        } else {
            self.a.adds_imm(w, R::ZR, r, needed);
            Cond::Cc
        }
    }
}
