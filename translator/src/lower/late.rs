//! Results that are put into the guest's registers late: not before something looks at them, which often is never,
//! because they are overwritten first.
//!
//! Meanwhile an instruction may still fault. Then control goes to code behind the region's own that puts what is late into
//! its place and leaves for that instruction, at which nothing is late: it is executed once more, and faults there.
//! Control does not come in from outside while something is late, and nothing is when flags are looked at at faults: of
//! those that were left out nothing would be known there.

use super::{FlagState, Lower};
use crate::flags::Flags;
use iced_x86::{Instruction, Mnemonic, OpKind, Register};

/// What the guest's registers do not have yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Late {
    /// The registers that C D G H and A B E F go to, see [`super::sha256`].
    pub words: Option<(Register, Register)>,
    /// An instruction that was left out.
    pub left_out: Option<LeftOut>,
    /// A step that was made early.
    pub schedule: Option<Schedule>,
    /// A PALIGNR that was taken back.
    pub aligned: Option<Aligned>,
}

/// An instruction that is not executed as its result is overwritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Its index in the region.
    pub index: usize,
    /// That of the instruction that overwrites the result, with something that does not depend on it.
    pub overwritten: usize,
}

/// SHA256MSG2, which was executed beforehand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Its index in the region.
    pub index: usize,
    /// Its first operand.
    pub words: Register,
    /// Its second operand, with the newest words of the schedule.
    pub newest: Register,
    /// The words before those.
    pub before: Register,
}

/// PALIGNR by one word, whose result is overwritten when the message schedule has gone on with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aligned {
    /// Its destination.
    pub added: Register,
    /// The lower words.
    pub before: Register,
    /// The upper ones.
    pub newest: Register,
    /// Index of the instruction that overwrites it.
    pub overwritten: usize,
}

/// Code behind the region's own for a fault while something is late.
#[derive(Clone, Copy, Debug)]
pub struct Recovery {
    /// Offset of the code that may fault.
    pub start: u32,
    /// Offset of its end.
    pub end: u32,
    /// Offset of where control goes then; until that is emitted, 0.
    pub to: u32,
}

/// What a recovery has to do.
#[derive(Clone, Copy, Debug)]
pub struct Recovering {
    /// Where.
    pub recovery: Recovery,
    /// The instruction that may fault.
    pub index: usize,
    /// What is to be put into its place.
    pub late: Late,
    /// What the host flags mean.
    pub flags: FlagState,
}

/// Whether the instruction may fault for its memory operand.
pub fn accesses_memory(ins: &Instruction) -> bool {
    let operand = ins.op_kinds().any(|kind| kind == OpKind::Memory);
    operand && !matches!(ins.mnemonic(), Mnemonic::Lea | Mnemonic::Nop)
}

impl Late {
    /// Whether all registers have what they should.
    #[inline]
    pub fn is_nothing(&self) -> bool {
        let Late { words, left_out, schedule, aligned } = self;
        words.is_none() && left_out.is_none() && schedule.is_none() && aligned.is_none()
    }
}

impl Lower<'_> {
    /// Whether results may be late in this region.
    pub fn may_be_late(&self) -> bool {
        !self.region.flags_live_at_fault
    }

    /// Whether nothing is to be emitted for an instruction, while something is late: its result is not looked at, or
    /// there already.
    pub fn is_left_out(&mut self, index: usize) -> bool {
        if self.late.schedule.is_some_and(|early| early.index == index) {
            self.late.schedule = None;
            return true;
        }
        self.late.left_out.is_some_and(|left_out| left_out.index == index)
    }

    /// Before an instruction while something is late: what a fault in its code, which begins here, needs.
    pub fn begin_recovery(&mut self, index: usize) {
        if accesses_memory(&self.region.insns[index].ins) {
            let start = self.a.pos();
            let recovery = Recovery { start, end: start, to: 0 };
            let (late, flags) = (self.late, self.flags);
            self.out.recoveries.push(Recovering { recovery, index, late, flags });
        }
    }

    /// Behind the instruction.
    pub fn end_recovery(&mut self, index: usize) {
        if self.late.left_out.is_some_and(|left_out| left_out.overwritten == index) {
            self.late.left_out = None;
        }
        if self.late.aligned.is_some_and(|aligned| aligned.overwritten == index) {
            self.late.aligned = None;
        }
        let end = self.a.pos();
        if let Some(last) = self.out.recoveries.last_mut().filter(|last| last.index == index) {
            last.recovery.end = end;
        }
    }

    /// Emits the recoveries.
    pub fn emit_recoveries(&mut self) {
        for i in 0..self.out.recoveries.len() {
            let recovery = &mut self.out.recoveries[i].recovery;
            if recovery.to != 0 {
                continue; // in the region's own code
            }
            recovery.to = self.a.pos();
            let Recovering { index, late, flags, .. } = self.out.recoveries[i];
            (self.index, self.flags) = (index, flags);
            self.mark();
            self.put_late(late);
            let insn = &self.region.insns[index];
            self.jump_out(insn.ins.ip(), insn.live_in);
        }
    }

    /// Puts what is late into its place.
    pub fn put_late(&mut self, late: Late) {
        self.late = Late::default();
        if let Some((cdgh, abef)) = late.words {
            self.free_temps();
            self.put_words(cdgh, abef);
        }
        if let Some(early) = late.schedule {
            self.free_temps();
            self.undo_schedule(early);
        }
        if let Some(aligned) = late.aligned {
            self.put_aligned(aligned);
        }
        if let Some(left_out) = late.left_out {
            self.free_temps();
            let insn = &self.region.insns[left_out.index];
            (self.need, self.live_out) = (Flags::NONE, insn.live_out);
            let lowered = insn.entry.lower.map(|lower| lower(self, &insn.ins));
            debug_assert!(matches!(lowered, Some(Ok(()))), "what is left out is implemented");
        }
        self.free_temps();
    }
}
