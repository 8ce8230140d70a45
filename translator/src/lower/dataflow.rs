//! What a turn of a loop computes in vector registers, as values: each is made once, by one operation on values before it.
//! Moves are gone, and what is Arm's way of doing something is an operation of its own.
//!
//! SHA-256's words are carried from turn to turn in Arm's order (see [`super::sha256`]): a pair of SHA256RNDS2 is four
//! rounds, and the words in x86's order are values that nothing in the loop needs.

use super::alignment::demanded;
use super::counting::{Counting, step};
use super::operands::{host_of, vec_of};
use crate::asm::R;

use iced_x86::{Instruction, Mnemonic as M, OpKind, Register};

/// Index of a value among [`Dataflow::ops`].
pub type Value = usize;

/// An operation on values, or, once they have their places, on registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op<T> {
    /// What a guest register holds when a turn begins.
    Begin(u8),
    /// What is in memory.
    Load(Place),
    /// A B C D when a turn begins.
    Abcd,
    /// E F G H when a turn begins.
    Efgh,
    /// A B E F of the words A B C D and E F G H, as x86 has them.
    Abef(T, T),
    /// C D G H of the same.
    Cdgh(T, T),
    /// Sums of 32 bits.
    Add(T, T),
    /// PSHUFB's indices as TBL takes them.
    Indices(T),
    /// Bytes of the first by indices.
    Table(T, T),
    /// PSHUFD's.
    ShuffleDwords(T, u8),
    /// Bytes from this one on, of the first, then of the second (EXT).
    Align(T, T, u8),
    /// The first SHA256RNDS2 of a pair: C D G H, A B E F, message words.
    FirstRounds(T, T, T),
    /// A B C D after four rounds (SHA256H): A B C D, E F G H, message words.
    Rounds(T, T, T),
    /// E F G H after them (SHA256H2): E F G H, A B C D, message words.
    RoundsEfgh(T, T, T),
    /// SHA256SU0.
    Schedule0(T, T),
    /// SHA256SU1.
    Schedule1(T, T, T),
}

/// Sixteen bytes in memory: how far from where a register points when the turn begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The register.
    pub base: R,
    /// The distance.
    pub offset: i64,
    /// By how much each turn advances the register.
    pub step: i64,
}

/// SHA-256's words, which are carried from turn to turn.
#[derive(Clone, Copy, Debug)]
pub struct Words {
    /// The register of A B E F.
    pub abef: u8,
    /// The register of C D G H.
    pub cdgh: u8,
    /// A B C D and E F G H when a turn begins.
    pub begin: (Value, Value),
    /// The same when it ends.
    pub end: (Value, Value),
}

/// What a turn does.
#[derive(Debug)]
pub struct Dataflow {
    /// The values. The first sixteen are what the guest's registers hold when it begins.
    pub ops: Vec<Op<Value>>,
    /// What they hold when it ends.
    pub ends: [Value; 16],
    /// SHA-256's words.
    pub words: Option<Words>,
    /// Registers that hold the same in each turn but perhaps the first: what another one does.
    pub same: [u8; 16],
    /// Places that are aligned to 16 bytes, or an instruction faults.
    pub aligned: Vec<Place>,
}

impl<T: Copy> Op<T> {
    /// The operands.
    pub fn operands(self) -> impl Iterator<Item = T> {
        let all = match self {
            Op::Begin(_) | Op::Load(_) | Op::Abcd | Op::Efgh => [None; 3],
            Op::Indices(a) | Op::ShuffleDwords(a, _) => [Some(a), None, None],
            Op::Abef(a, b)
            | Op::Cdgh(a, b)
            | Op::Add(a, b)
            | Op::Table(a, b)
            | Op::Align(a, b, _)
            | Op::Schedule0(a, b) => [Some(a), Some(b), None],
            Op::FirstRounds(a, b, c)
            | Op::Rounds(a, b, c)
            | Op::RoundsEfgh(a, b, c)
            | Op::Schedule1(a, b, c) => [Some(a), Some(b), Some(c)],
        };
        all.into_iter().flatten()
    }

    /// The same on other operands.
    pub fn map<U>(self, mut f: impl FnMut(T) -> U) -> Op<U> {
        match self {
            Op::Begin(register) => Op::Begin(register),
            Op::Load(place) => Op::Load(place),
            Op::Abcd => Op::Abcd,
            Op::Efgh => Op::Efgh,
            Op::Abef(a, b) => Op::Abef(f(a), f(b)),
            Op::Cdgh(a, b) => Op::Cdgh(f(a), f(b)),
            Op::Add(a, b) => Op::Add(f(a), f(b)),
            Op::Indices(a) => Op::Indices(f(a)),
            Op::Table(a, b) => Op::Table(f(a), f(b)),
            Op::ShuffleDwords(a, selectors) => Op::ShuffleDwords(f(a), selectors),
            Op::Align(a, b, from) => Op::Align(f(a), f(b), from),
            Op::FirstRounds(a, b, c) => Op::FirstRounds(f(a), f(b), f(c)),
            Op::Rounds(a, b, c) => Op::Rounds(f(a), f(b), f(c)),
            Op::RoundsEfgh(a, b, c) => Op::RoundsEfgh(f(a), f(b), f(c)),
            Op::Schedule0(a, b) => Op::Schedule0(f(a), f(b)),
            Op::Schedule1(a, b, c) => Op::Schedule1(f(a), f(b), f(c)),
        }
    }

    /// Whether Arm's instruction overwrites its first operand.
    pub fn overwrites(self) -> bool {
        use Op::{Rounds, RoundsEfgh, Schedule0, Schedule1};
        matches!(self, Rounds(..) | RoundsEfgh(..) | Schedule0(..) | Schedule1(..))
    }
}

/// The words in Arm's order that these two are in x86's.
fn order(abef: Op<Value>, cdgh: Op<Value>) -> Option<(Value, Value)> {
    match (abef, cdgh) {
        (Op::Abef(a, e), Op::Cdgh(b, f)) => ((a, e) == (b, f)).then_some((a, e)),
        _ => None,
    }
}

impl Dataflow {
    /// What a turn of a loop does; None if that is something else than SHA-256's rounds and what goes with them.
    pub fn of(counting: &Counting) -> Option<Self> {
        counting.insns.iter().find(|insn| insn.ins.mnemonic() == M::Sha256rnds2)?;
        let first = Self::with(counting, std::array::from_fn(|i| i as u8))?;
        let same = std::array::from_fn(|register| match first.ops[first.ends[register]] {
            Op::Begin(other) if first.is_kept(other) => other,
            _ => register as u8,
        });
        Self::with(counting, same)
    }

    fn with(counting: &Counting, same: [u8; 16]) -> Option<Self> {
        let mut flow = Dataflow {
            ops: (0..16).map(Op::Begin).collect(),
            ends: same.map(Value::from),
            words: None,
            same,
            aligned: Vec::new(),
        };
        for (i, insn) in counting.insns.iter().enumerate() {
            let ins = &insn.ins;
            if step(ins).is_none() && ins.mnemonic() != M::Nop {
                flow.instruction(counting, i, ins)?;
            }
        }
        let Dataflow { ops, ends, words, .. } = &mut flow;
        let words = words.as_mut()?;
        let [abef, cdgh] =
            [words.abef, words.cdgh].map(|register| ops[ends[usize::from(register)]]);
        words.end = order(abef, cdgh)?;
        Some(flow)
    }

    fn make(&mut self, op: Op<Value>) -> Value {
        self.ops.push(op);
        self.ops.len() - 1
    }

    /// The value of an operand.
    fn operand(&mut self, counting: &Counting, i: usize, operand: u32) -> Option<Value> {
        let ins = &counting.insns[i].ins;
        if ins.op_kind(operand) == OpKind::Register {
            let register = ins.op_register(operand);
            return register.is_xmm().then(|| self.ends[usize::from(vec_of(register).0)]);
        }
        let base = ins.memory_base();
        let plain = ins.op_kind(operand) == OpKind::Memory
            && base.is_gpr64()
            && ins.memory_index() == Register::None
            && !matches!(ins.memory_segment(), Register::FS | Register::GS);
        if !plain {
            return None;
        }
        let offset = (ins.memory_displacement64() as i64) + counting.advanced(base, i)?;
        let place = Place { base: host_of(base), offset, step: counting.step_of(base) };
        if demanded(ins) == 16 {
            self.aligned.push(place);
        }
        Some(self.make(Op::Load(place)))
    }

    /// Takes in an instruction whose first operand is a register.
    fn instruction(&mut self, counting: &Counting, i: usize, ins: &Instruction) -> Option<()> {
        let first = ins.op0_register();
        if ins.op0_kind() != OpKind::Register || !first.is_xmm() {
            return None;
        }
        let register = usize::from(vec_of(first).0);
        let second = self.operand(counting, i, 1)?;
        let first = self.ends[register];
        self.ends[register] = match ins.mnemonic() {
            M::Movdqa | M::Movdqu | M::Movaps | M::Movups => second,
            M::Paddd => self.sum(first, second),
            M::Pshufb => {
                let indices = self.make_once(Op::Indices(second));
                self.make(Op::Table(first, indices))
            }
            M::Pshufd => self.make(Op::ShuffleDwords(second, ins.immediate8())),
            M::Palignr if ins.immediate8() < 16 => {
                self.make(Op::Align(second, first, ins.immediate8()))
            }
            M::Sha256msg1 => self.make(Op::Schedule0(first, second)),
            M::Sha256msg2 => self.last_step(first, second)?,
            M::Sha256rnds2 => self.rounds(first, second)?,
            _ => return None,
        };
        Some(())
    }

    /// PADDD: sums of words are the same in any order.
    fn sum(&mut self, n: Value, m: Value) -> Value {
        match (self.ops[n], self.ops[m]) {
            (Op::Abef(a, e), Op::Abef(b, f)) => {
                let (abcd, efgh) = (self.make_once(Op::Add(a, b)), self.make_once(Op::Add(e, f)));
                self.make(Op::Abef(abcd, efgh))
            }
            (Op::Cdgh(a, e), Op::Cdgh(b, f)) => {
                let (abcd, efgh) = (self.make_once(Op::Add(a, b)), self.make_once(Op::Add(e, f)));
                self.make(Op::Cdgh(abcd, efgh))
            }
            _ => self.make(Op::Add(n, m)),
        }
    }

    /// A value that may be there already.
    fn make_once(&mut self, op: Op<Value>) -> Value {
        let there = self.ops.iter().rposition(|&other| other == op);
        there.unwrap_or_else(|| self.make(op))
    }

    /// SHA256MSG2, with the addition before it of what PALIGNR has put together.
    fn last_step(&mut self, sum: Value, newest: Value) -> Option<Value> {
        let Op::Add(n, m) = self.ops[sum] else { return None };
        let added = |words: Value, aligned: Value| match self.ops[aligned] {
            Op::Align(before, high, 4) if high == newest => {
                Some(Op::Schedule1(words, before, newest))
            }
            _ => None,
        };
        let op = added(n, m).or_else(|| added(m, n))?;
        Some(self.make(op))
    }

    /// SHA256RNDS2: the second of a pair makes four rounds of both.
    fn rounds(&mut self, cdgh: Value, abef: Value) -> Option<Value> {
        let words = self.ends[0];
        let Op::FirstRounds(before, same, first) = self.ops[abef] else {
            return Some(self.make(Op::FirstRounds(cdgh, abef, words)));
        };
        let other_half = matches!(self.ops[words], Op::ShuffleDwords(of, half) if of == first && half & 15 == 0xe);
        if cdgh != same || !other_half {
            return None;
        }
        let (abcd, efgh) = self.in_arms_order(same, before)?;
        let after = self.make(Op::Rounds(abcd, efgh, first));
        let after = (after, self.make(Op::RoundsEfgh(efgh, abcd, first)));
        self.ops[abef] = Op::Cdgh(after.0, after.1);
        Some(self.make(Op::Abef(after.0, after.1)))
    }

    /// The words A B C D and E F G H. What a turn begins with is there in this order.
    fn in_arms_order(&mut self, abef: Value, cdgh: Value) -> Option<(Value, Value)> {
        match (self.ops[abef], self.ops[cdgh]) {
            (Op::Begin(first), Op::Begin(second)) if self.words.is_none() && first != second => {
                let begin = (self.make(Op::Abcd), self.make(Op::Efgh));
                self.words = Some(Words { abef: first, cdgh: second, begin, end: begin });
                self.ops[abef] = Op::Abef(begin.0, begin.1);
                self.ops[cdgh] = Op::Cdgh(begin.0, begin.1);
                Some(begin)
            }
            (abef, cdgh) => order(abef, cdgh),
        }
    }

    /// The places that are loaded from.
    pub fn loads(&self) -> impl Iterator<Item = Place> {
        self.ops.iter().filter_map(|op| match *op {
            Op::Load(place) => Some(place),
            _ => None,
        })
    }

    /// Whether a turn leaves a guest register as it is.
    pub fn is_kept(&self, register: u8) -> bool {
        let register = usize::from(register);
        self.ends[register] == register && matches!(self.ops[register], Op::Begin(_))
    }

    /// Whether each value is the same in each turn.
    pub fn same_in_each_turn(&self) -> Vec<bool> {
        let mut same = Vec::with_capacity(self.ops.len());
        for &op in &self.ops {
            same.push(match op {
                Op::Begin(register) => self.is_kept(register),
                Op::Load(place) => place.step == 0,
                Op::Abcd | Op::Efgh => false,
                _ => op.operands().all(|operand| same.get(operand) == Some(&true)),
            });
        }
        same
    }

    /// The values that a guest register is put together from where a turn ends, if it has changed.
    pub fn parts(&self, register: usize) -> Option<(Op<Value>, Vec<Value>)> {
        let value = self.ends[register];
        let op = self.ops[value];
        match op {
            Op::Begin(other) if usize::from(other) == register => None,
            Op::Begin(_) => Some((op, Vec::new())),
            Op::Abef(..) | Op::Cdgh(..) | Op::ShuffleDwords(..) => {
                Some((op, op.operands().collect()))
            }
            _ => Some((op, vec![value])),
        }
    }

    /// The values that a turn has to compute, or that it needs as they are. None if what it leaves in a register can't be
    /// told from them.
    pub fn needed(&self) -> Option<Vec<bool>> {
        let mut needed = vec![false; self.ops.len()];
        let (abcd, efgh) = self.words?.end;
        (needed[abcd], needed[efgh]) = (true, true);
        for (op, parts) in (0..16).filter_map(|register| self.parts(register)) {
            if matches!(op, Op::Begin(other) if !self.is_kept(other)) {
                return None;
            }
            parts.into_iter().for_each(|part| needed[part] = true);
        }
        for (value, &op) in self.ops.iter().enumerate().rev() {
            if !needed[value] {
                continue;
            }
            let possible = match op {
                Op::Begin(register) => self.is_kept(register),
                Op::Abef(..) | Op::Cdgh(..) | Op::ShuffleDwords(..) | Op::FirstRounds(..) => false,
                _ => true,
            };
            if !possible {
                return None;
            }
            op.operands().for_each(|operand| needed[operand] = true);
        }
        Some(needed)
    }
}
