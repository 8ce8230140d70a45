//! RSP moved once for several pushes and pops.
//!
//! STLUR and LDAPUR do not move their base: with ordered accesses each PUSH and POP would be two instructions. In a row of
//! them, RSP is left as it is, and they are accesses at growing distances from it; it is moved behind the last one. A fault
//! between finds in the region's map where RSP should be. Nothing that looks at RSP, and no way in or out, lies between.

use super::Lower;
use super::operands::Addr;
use crate::asm::{R, Width};
use iced_x86::{Code, Instruction, Mnemonic as M, OpKind, Register};

const RSP: R = R(4);

/// Whether an offset is one that STLUR and LDAPUR take.
fn in_reach(offset: i64) -> bool {
    (-256..256).contains(&offset)
}

/// PUSH of a register or constant and POP to a register, of 64 bits, but for RSP.
fn is_plain_push_or_pop(ins: &Instruction) -> bool {
    let register = ins.op0_register();
    match ins.mnemonic() {
        M::Push if ins.op0_kind() != OpKind::Register => {
            ins.op0_kind() != OpKind::Memory && ins.stack_pointer_increment() == -8
        }
        M::Push | M::Pop => {
            ins.op0_kind() == OpKind::Register && register.is_gpr64() && register != Register::RSP
        }
        _ => false,
    }
}

/// An addition to RSP or a subtraction from it, of a constant.
fn is_plain_move(ins: &Instruction) -> bool {
    matches!(ins.mnemonic(), M::Add | M::Sub)
        && ins.op0_kind() == OpKind::Register
        && ins.op0_register() == Register::RSP
        && !matches!(ins.op1_kind(), OpKind::Register | OpKind::Memory)
}

/// Whether an instruction has nothing to do with RSP, goes on to the next one, and calls nothing.
fn leaves_stack_alone(ins: &Instruction) -> bool {
    use M::*;
    let simple = matches!(
        ins.mnemonic(),
        Mov | Lea
            | Movzx
            | Movsx
            | Movsxd
            | Add
            | Sub
            | And
            | Or
            | Xor
            | Cmp
            | Test
            | Nop
            | Endbr64
    );
    let other = |register: Register| {
        register == Register::None
            || register.is_gpr() && register.full_register() != Register::RSP
            || register == Register::RIP
    };
    let operands = (0..ins.op_count())
        .all(|op| ins.op_kind(op) != OpKind::Register || other(ins.op_register(op)));
    simple
        && operands
        && other(ins.memory_base())
        && other(ins.memory_index())
        && !ins.has_lock_prefix()
}

impl Lower<'_> {
    /// Whether RSP may be left where it is.
    fn may_put_off(&self) -> bool {
        self.ordered() && self.late.is_nothing() && self.leaf_stop.is_none()
    }

    /// Before an instruction: moves RSP if that must not wait.
    #[inline]
    pub fn begin_with_stack(&mut self, ins: &Instruction) {
        if self.stack != 0 && !self.waits(ins) {
            self.move_stack();
        }
    }

    #[inline(never)]
    fn waits(&self, ins: &Instruction) -> bool {
        is_plain_push_or_pop(ins)
            || is_plain_move(ins) && self.need.is_empty()
            || matches!(ins.code(), Code::Retnq | Code::Retnq_imm16)
            || leaves_stack_alone(ins)
    }

    /// Puts RSP where it should be.
    #[inline]
    pub fn move_stack(&mut self) {
        if self.stack != 0 {
            self.move_stack_now();
        }
    }

    #[cold]
    #[inline(never)]
    fn move_stack_now(&mut self) {
        let by = self.take_stack();
        match by {
            0.. => self.a.add_imm(Width::X, RSP, RSP, by.unsigned_abs()),
            _ => self.a.sub_imm(Width::X, RSP, RSP, by.unsigned_abs()),
        }
    }

    /// How far RSP is from where it should be; whoever asks moves it.
    pub fn take_stack(&mut self) -> i64 {
        i64::from(std::mem::take(&mut self.stack))
    }

    /// PUSH, without moving RSP. False if that is not to be.
    #[inline]
    pub fn push_in_row(&mut self, ins: &Instruction, src: R) -> bool {
        if !self.may_put_off() || !is_plain_push_or_pop(ins) {
            return false;
        }
        if !in_reach(i64::from(self.stack) - 8) {
            self.move_stack();
            self.mark();
        }
        let at = self.stack - 8;
        self.store(8, src, Addr::Imm(RSP, at.into()));
        self.carries = true;
        self.stack = at;
        true
    }

    /// POP, without moving RSP. False if that is not to be.
    #[inline]
    pub fn pop_in_row(&mut self, ins: &Instruction, to: R) -> bool {
        if !self.may_put_off() || !is_plain_push_or_pop(ins) {
            return false;
        }
        if !in_reach(i64::from(self.stack)) {
            self.move_stack();
            self.mark();
        }
        self.load(8, to, Addr::Imm(RSP, self.stack.into()));
        self.carries = true;
        self.stack += 8;
        true
    }

    /// An addition to RSP or subtraction from it whose flags nobody needs, without moving it. False if that is not to be.
    #[inline]
    pub fn move_in_row(&mut self, ins: &Instruction) -> bool {
        if !self.may_put_off() || !is_plain_move(ins) || !self.need.is_empty() {
            return false;
        }
        let by = ins.immediate(1) as i64;
        let by = if ins.mnemonic() == M::Add { by } else { by.wrapping_neg() };
        let to = i64::from(self.stack).wrapping_add(by);
        let fits = i64::from(by as i16) == by && (-4096..4096).contains(&to);
        if fits {
            self.carries = true;
            self.stack = to as i16;
        } else {
            self.move_stack();
        }
        fits
    }
}
