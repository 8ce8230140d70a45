//! A short loop over memory that counts: several of its turns in one pass, as long as enough of them are left.
//!
//! The pass stands in front of the loop's own code. It loads what all its turns load first, into temporaries, then does
//! the operations of one turn after the other, and advances pointers and counter once. So when a load faults nothing has
//! changed since the pass began, and control goes on in the loop itself, which comes to that fault at its instruction.
//! The last turn is the loop's own: it leaves the flags, and the branch out. But a loop over the keys of AES has passes of
//! just as many turns as there are for each length of a key, which do all of them and go to that branch.
//!
//! What a loop has to be like is looked at only where one of at most [`LONGEST`] instructions ends. Ordered loads
//! stay where they are.

use super::counting::Counting;
use super::late::{Late, Recovering, Recovery};
use super::operands::{host_of, vec_of, width_of};
use super::{FlagState, Lower, Test, sse_int, table};
use crate::asm::{Cond, V};
use crate::flags::Flags;
use crate::region::Insn;
use std::ops::Range;

use iced_x86::{Code, Instruction, Mnemonic as M, OpKind, Register};

/// So many instructions a turn has at most, the branch included.
const LONGEST: usize = 8;

/// Hold what is loaded. Lowerings of [`is_operation`] use none of the first six, those of AES none at all.
const LOADED: [V; 13] =
    [V(26), V(27), V(24), V(23), V(22), V(21), V(20), V(19), V(18), V(17), V(16), V(31), V(30)];
/// So many of them, for operations that need registers of their own.
const FEW: usize = 6;
/// All but the last round, for keys of 256, 128 and 192 bits (FIPS 197, 5).
const ROUNDS: [usize; 3] = [13, 9, 11];

/// A number of turns that are done at once.
#[derive(Clone, Copy)]
enum Pass {
    /// As long as there are more.
    Of(usize),
    /// If that is just how many are left.
    All(usize),
}

impl Pass {
    fn turns(self) -> usize {
        let (Pass::Of(turns) | Pass::All(turns)) = self;
        turns
    }
}

/// The register that an instruction, which does nothing else, loads from a register's address and a constant. (With an
/// index it would take two instructions ahead of its turn, and nothing would be won.)
fn load(ins: &Instruction) -> Option<Register> {
    let fits = matches!(ins.mnemonic(), M::Movups | M::Movdqu)
        && ins.op0_register().is_xmm()
        && ins.op1_kind() == OpKind::Memory
        && ins.memory_base().is_gpr64()
        && ins.memory_index() == Register::None
        && !matches!(ins.memory_segment(), Register::FS | Register::GS);
    fits.then(|| ins.op0_register())
}

fn is_aes(ins: &Instruction) -> bool {
    matches!(ins.mnemonic(), M::Aesenc | M::Aesenclast | M::Aesdec | M::Aesdeclast | M::Aesimc)
}

/// Operations of vector registers alone that change their first operand, and look at no neighbour that is not one.
fn is_operation(ins: &Instruction) -> bool {
    let mnemonic = ins.mnemonic();
    let known = is_aes(ins) || sse_int::operation(mnemonic).is_some();
    known && ins.op_count() == 2 && (0..2).all(|op| ins.op_register(op).is_xmm())
}

/// A loop that a pass can be made of.
struct Turn<'a> {
    counting: &'a Counting<'a>,
    insns: &'a [Insn],
}

impl<'a> Turn<'a> {
    fn of(counting: &'a Counting) -> Option<Self> {
        let turn = Turn { counting, insns: counting.insns };
        (counting.insns.len() < LONGEST && turn.is_regular()).then_some(turn)
    }

    /// The registers that are loaded, by the places of their loads.
    fn loads(&self) -> impl DoubleEndedIterator<Item = (usize, Register)> {
        let all = self.insns.iter().enumerate();
        all.filter_map(|(i, insn)| load(&insn.ins).map(|register| (i, register)))
    }

    fn operations(&self) -> impl Iterator<Item = (usize, &Insn)> {
        self.insns.iter().enumerate().filter(|(_, insn)| is_operation(&insn.ins))
    }

    fn has_aes(&self) -> bool {
        self.operations().any(|(_, insn)| is_aes(&insn.ins))
    }

    /// Whether nothing else is done, each register is only changed by one instruction if that is a load or an addition,
    /// and addresses are sums of whole registers.
    fn is_regular(&self) -> bool {
        let loads = self.loads().count();
        let known = loads + self.counting.steps.len() + self.operations().count();
        let whole = self
            .loads()
            .all(|(i, _)| self.counting.advanced(self.insns[i].ins.memory_base(), i).is_some());
        let loaded_once = self.loads().all(|(i, register)| {
            self.loads().all(|(j, other)| i == j || other != register)
                && self.operations().all(|(_, insn)| insn.ins.op0_register() != register)
        });
        let some = (1..=FEW / 3).contains(&loads) && self.operations().next().is_some();
        known == self.insns.len() && some && whole && loaded_once
    }

    /// How far the address of a load, in a turn of the pass, is from where the registers point when the pass begins.
    fn ahead(&self, load: usize, turn: usize) -> i64 {
        let base = self.insns[load].ins.memory_base();
        let before = self.counting.advanced(base, load).unwrap_or(0);
        self.counting.step_of(base) * turn as i64 + before
    }

    /// What is tried, one after the other.
    fn passes(&self) -> Vec<Pass> {
        let loads = self.loads().count();
        let is_aes = loads == 1 && self.operations().all(|(_, insn)| is_aes(&insn.ins));
        // All flags that are read of the last turn are the counter's.
        let writers = self.insns.iter().filter(|insn| insn.entry.writes.any(insn.live_out));
        let all = if is_aes && writers.count() == 1 { &ROUNDS[..] } else { &[] };
        all.iter().map(|&turns| Pass::All(turns)).chain([Pass::Of(FEW / loads)]).collect()
    }

    /// Where a pass keeps what a turn loads, of the loads of a turn the one with this number.
    fn loaded(&self, turn: usize, number: usize) -> V {
        LOADED[turn * self.loads().count() + number]
    }

    /// The instruction at a place, in a turn of the pass: it has its operand from where it was loaded to.
    fn renamed(&self, at: usize, turn: usize) -> Instruction {
        let mut ins = self.insns[at].ins;
        for (number, (load, register)) in self.loads().enumerate() {
            let turn = if load < at { Some(turn) } else { turn.checked_sub(1) };
            if let Some(turn) = turn.filter(|_| ins.op1_register() == register) {
                ins.set_op1_register(Register::XMM0 + self.loaded(turn, number).n());
                break;
            }
        }
        ins
    }
}

impl Lower<'_> {
    /// At the first instruction of a loop: does several turns in one pass in front of it. Returns false if it is no such
    /// loop.
    pub fn passes(&mut self, counting: &Counting, index: usize) -> bool {
        let insn = &self.region.insns[index];
        let turn = Turn::of(counting).filter(|turn| self.config.host.aes || !turn.has_aes());
        let Some(turn) = turn else { return false };
        let enterable = self.is_enterable(index, insn);
        self.map_from(self.a.pos(), insn.ins.ip(), insn.live_in, enterable);
        // The first instruction's, which is lowered next.
        let need = self.need;
        let (alone, done) = (self.a.label(), self.a.label());
        let mut loads = Vec::new();
        for pass in turn.passes() {
            let other = self.a.label();
            let again = match pass {
                Pass::Of(turns) => {
                    let enough = self.are_left(counting, turns);
                    self.a.b_cond(enough.invert(), other);
                    Some(self.a.here())
                }
                Pass::All(turns) => {
                    self.are_left(counting, turns);
                    self.a.b_cond(Cond::Ne, other);
                    None
                }
            };
            loads.push(self.pass(&turn, pass, index));
            if let Some(again) = again {
                let enough = self.are_left(counting, pass.turns());
                self.repeat_if(Test::One(enough), again);
            } else {
                self.a.b(done);
                self.pass_end = Some((index + turn.insns.len(), done));
            }
            self.a.bind(other);
        }
        self.a.bind(alone);
        for Range { start, end } in loads {
            let recovery = Recovery { start, end, to: self.a.pos() };
            let (late, flags) = (Late::default(), self.flags);
            self.out.recoveries.push(Recovering { recovery, index, late, flags });
        }
        self.out.labels[index] = Some(alone);
        self.need = need;
        true
    }

    /// At a conditional branch: where a pass comes that has done all turns of the loop that it ends.
    #[inline(always)]
    pub fn end_passes(&mut self) {
        if let Some((_, done)) = self.pass_end.filter(|&(index, _)| index == self.index) {
            self.a.bind(done);
            self.pass_end = None;
        }
    }

    /// A pass. Returns where its loads are.
    fn pass(&mut self, turn: &Turn, pass: Pass, index: usize) -> Range<u32> {
        let start = self.a.pos();
        self.load_ahead(turn, pass.turns());
        let end = self.a.pos();
        self.operate(turn, pass, index);
        start..end
    }

    /// All loads of a pass, from the last to the first: that one may advance its register as well.
    fn load_ahead(&mut self, turn: &Turn, count: usize) {
        let mut left = count * turn.loads().count();
        for t in (0..count).rev() {
            let numbers = (0..turn.loads().count()).rev();
            for (number, (at, _)) in numbers.zip(turn.loads().rev()) {
                let mut ins = turn.insns[at].ins;
                let ahead = turn.ahead(at, t) as u64;
                ins.set_memory_displacement64(ins.memory_displacement64().wrapping_add(ahead));
                self.free_temps();
                let address = self.address(&ins, 16);
                self.vload(16, turn.loaded(t, number), address);
                // If their number is odd it is the first one that stays alone: the last pair may advance its register.
                if left % 2 == 1 {
                    self.pair_loads();
                }
                left -= 1;
            }
        }
        self.free_temps();
    }

    /// What a pass does when all is loaded.
    fn operate(&mut self, turn: &Turn, pass: Pass, index: usize) {
        let count = pass.turns();
        let total = |by: i64| by * count as i64;
        // The counter that ends at zero leaves flags.
        let leaves_flags =
            |register| matches!(pass, Pass::All(_)) && register == turn.counting.counter.0;
        let mut steps = turn.counting.steps.clone();
        steps.retain(|&(_, register, by)| {
            !register.is_gpr64()
                || leaves_flags(register)
                || !self.advance_pair(host_of(register), total(by))
        });
        (self.need, self.live_out) = (Flags::NONE, Flags::NONE);
        for t in 0..count {
            for (at, insn) in turn.operations() {
                self.index = index + at;
                self.free_temps();
                let ins = turn.renamed(at, t);
                let lowered = insn.entry.lower.map(|lower| lower(self, &ins));
                debug_assert!(matches!(lowered, Some(Ok(()))), "operations are implemented");
            }
        }
        self.index = index;
        self.free_temps();
        for (number, (_, register)) in turn.loads().enumerate() {
            self.vmov(vec_of(register), turn.loaded(count - 1, number));
        }
        for (at, register, by) in steps {
            if leaves_flags(register) {
                self.count_to_zero(turn, index + at, total(by));
                continue;
            }
            let (w, r) = (width_of(register.size() as u32), host_of(register));
            self.add_constant(w, r, r, total(by));
        }
    }

    /// The last turn's addition to the counter, or subtraction, with those of the turns before: where it ends at zero the flags
    /// are the same for any number of turns. (AF too: an odd number of times what has its lowest four bits not zero has not.)
    fn count_to_zero(&mut self, turn: &Turn, index: usize, total: i64) {
        let (register, _) = turn.counting.counter;
        let insn = &self.region.insns[index];
        let adds = matches!(insn.ins.mnemonic(), M::Add | M::Inc);
        let code = match (register.is_gpr64(), adds) {
            (true, true) => Code::Add_rm64_imm32,
            (true, false) => Code::Sub_rm64_imm32,
            (false, true) => Code::Add_rm32_imm32,
            (false, false) => Code::Sub_rm32_imm32,
        };
        let value = if adds { total } else { -total };
        // Not made by iced-x86: it would fill its tables first.
        let mut sum = insn.ins;
        sum.set_code(code);
        if register.is_gpr64() {
            sum.set_op1_kind(OpKind::Immediate32to64);
            sum.set_immediate32to64(value);
        } else {
            sum.set_op1_kind(OpKind::Immediate32);
            sum.set_immediate32(value as u32);
        }
        self.index = index;
        self.free_temps();
        (self.need, self.live_out) = (insn.live_out.and(insn.entry.writes), insn.live_out);
        let lowered = table::entry(&sum).lower.map(|lower| lower(self, &sum));
        debug_assert!(matches!(lowered, Some(Ok(()))), "additions are implemented");
        self.flags = FlagState::CANONICAL;
    }
}
