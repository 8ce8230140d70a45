//! Addresses that ordered accesses do not reach, kept from one instruction to the next.
//!
//! LDAPUR and STLUR take offsets of nine bits. What lies farther in a stack frame or a structure needs an addition, and
//! its neighbours are in reach of the sum.

use super::Lower;
use super::operands::Addr;
use crate::asm::{R, Width};
use crate::fault_flags::{changes, stack_change};
use crate::region::Next;
use iced_x86::{FlowControl, Mnemonic as M, Register};

/// Holds the sum; else scratch, see [`Lower::scratch`].
const FAR: R = R(29);

/// What [`FAR`] holds.
#[derive(Clone, Copy, Debug)]
pub struct Far {
    /// The guest register that is part of the sum.
    base: R,
    /// The constant that was added to it.
    offset: i64,
    /// The instruction of the region that did so.
    since: usize,
}

impl Lower<'_> {
    /// x29, if it is not needed for anything else meanwhile.
    pub fn scratch(&mut self) -> R {
        self.far = None;
        FAR
    }

    /// Whether the current instruction accesses its operand once and does nothing before.
    fn is_plain_access(&self) -> bool {
        use M::*;
        matches!(
            self.current().mnemonic(),
            Mov | Movzx | Movsx | Movsxd | Cmp | Movdqa | Movdqu | Movaps | Movups | Movq | Movd
        )
    }

    /// A guest register and an offset that an ordered access does not take, as an address that it takes. None if that is not
    /// for the current instruction.
    pub fn far_address(&mut self, base: R, offset: i64) -> Option<Addr> {
        if base.0 >= 16 || !self.is_plain_access() {
            return None;
        }
        if let Some(far) = self.far.filter(|far| far.base == base)
            && (-256..256).contains(&(offset - far.offset))
        {
            self.needs_what_ran_before(far.since);
            return Some(Addr::Imm(FAR, (offset - far.offset) as i32));
        }
        self.add_constant(Width::X, FAR, base, offset);
        self.far = Some(Far { base, offset, since: self.index });
        Some(Addr::Imm(FAR, 0))
    }

    /// Behind an instruction, while there is something in [`FAR`]: whether it still holds.
    pub fn keep_far(&mut self, index: usize) {
        let insn = &self.region.insns[index];
        let straight = insn.next == Next::Inside
            && matches!(insn.flow, FlowControl::Next | FlowControl::ConditionalBranch);
        self.far = self.far.filter(|far| {
            let register = Register::RAX + u32::from(far.base.0);
            straight && !changes(&insn.ins, register) && stack_change(&insn.ins) == 0
        });
    }
}
