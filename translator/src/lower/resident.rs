//! A loop that computes in vector registers, of which there are more here than a guest has: what is the same in each turn is
//! loaded once, and what is carried from turn to turn stays as Arm needs it. Today that is SHA-256's over the blocks of a
//! message.
//!
//! It stands in front of the loop's own code and does all turns but the last. The guest's vector registers are in the
//! state meanwhile, and those that the turns change are put together behind the last one done. A turn begins with all its
//! loads, into registers that nothing else is in. So when one faults, or the thread is to be stopped, all is there that the
//! turn before has left: control goes on in the loop itself, which comes to that fault at its instruction, or is stopped.

use super::counting::Counting;
use super::dataflow::{Dataflow, Op, Place, Value};
use super::late::{Late, Recovering, Recovery};
use super::operands::{host_of, width_of};
use super::{Lower, STATE, Test, VZERO};
use crate::asm::{Cond, Label, R, V, Width};
use crate::state::offset;
use dynasmrt::{DynasmApi, dynasm};
use std::ops::Range;

/// With so many turns left or fewer the loop itself does them.
const FEW: usize = 3;

/// What is done in which registers.
#[derive(Debug)]
struct Plan {
    flow: Dataflow,
    /// What is done once, in front of the first turn.
    once: Vec<Step>,
    /// What each turn loads first.
    loads: Vec<(V, Place)>,
    /// What it then does.
    turn: Vec<Step>,
    /// Where values are when it ends.
    places: Vec<V>,
    /// Where A B C D and E F G H are when it begins, and when it ends.
    begin: (V, V),
    /// Two registers that hold nothing then, but for what the next turn has loaded.
    free: (V, V),
}

/// An instruction of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Move(V, V),
    Make(V, Op<V>),
}

/// Gives each value a register as long as it is needed.
struct Registers {
    /// A bit for each that is free.
    free: u32,
    /// Where values are.
    places: Vec<V>,
    /// The last value that is made from each; [`AT_END`] if it is looked at when the turn ends.
    last_use: Vec<Value>,
    /// Whether a value is there in each turn, and must not be overwritten.
    stays: Vec<bool>,
    steps: Vec<Step>,
}

const AT_END: Value = Value::MAX;

impl Registers {
    fn new(flow: &Dataflow, needed: &[bool], same: &[bool]) -> Self {
        let last_use = last_uses(flow, needed);
        Registers {
            free: u32::MAX,
            places: vec![VZERO; flow.ops.len()],
            stays: stay(flow, needed, same, &last_use),
            last_use,
            steps: Vec::new(),
        }
    }

    fn take(&mut self) -> Option<V> {
        let lowest = self.free.trailing_zeros();
        self.free &= self.free.wrapping_sub(1);
        (lowest < 32).then_some(V(lowest as u8))
    }

    /// Whether a value is not needed any more when another has been made from it.
    fn ends_with(&self, operand: Value, value: Value) -> bool {
        self.last_use[operand] == value && !self.stays[operand]
    }

    /// Gives a value that each turn loads a register that nothing else is ever in: there is the next turn's when this one's
    /// may still be looked at.
    fn keep(&mut self, value: Value) -> Option<V> {
        self.stays[value] = true;
        self.places[value] = self.take()?;
        (self.last_use[value] != AT_END).then_some(self.places[value])
    }

    /// Makes a value.
    fn make(&mut self, value: Value, op: Op<Value>) -> Option<()> {
        let ending = op.operands().find(|&operand| self.ends_with(operand, value));
        let d = match (op, ending) {
            (Op::Indices(_), _) | (_, None) if !op.overwrites() => self.take()?,
            (_, Some(operand)) if !op.overwrites() => self.places[operand],
            _ => self.overwritten(op.operands().next()?, value)?,
        };
        self.steps.push(Step::Make(d, op.map(|operand| self.places[operand])));
        for operand in op.operands() {
            if self.ends_with(operand, value) && self.places[operand] != d {
                self.free |= 1 << self.places[operand].n();
            }
        }
        self.places[value] = d;
        Some(())
    }

    /// Where an instruction makes a value that overwrites its first operand, which is moved if it is needed later.
    fn overwritten(&mut self, first: Value, value: Value) -> Option<V> {
        let there = self.places[first];
        if self.ends_with(first, value) {
            return Some(there);
        }
        let other = self.take()?;
        self.steps.push(Step::Move(other, there));
        if self.stays[first] {
            return Some(other);
        }
        self.places[first] = other;
        Some(there)
    }
}

impl Plan {
    fn of(counting: &Counting) -> Option<Self> {
        let flow = Dataflow::of(counting)?;
        let (needed, words) = (flow.needed()?, flow.words?);
        if !flow.loads().all(|place| suits(counting, place))
            || flow.aligned.iter().any(|place| place.step % 16 != 0)
        {
            return None;
        }
        let same = flow.same_in_each_turn();
        let mut registers = Registers::new(&flow, &needed, &same);
        let begin = (registers.take()?, registers.take()?);
        (registers.places[words.begin.0], registers.places[words.begin.1]) = begin;
        let all = flow.ops.iter().copied().enumerate().filter(|&(value, _)| needed[value]);
        let (once, each): (Vec<_>, Vec<_>) = all.partition(|&(value, _)| same[value]);
        for (value, op) in once {
            registers.make(value, op)?;
        }
        let once = std::mem::take(&mut registers.steps);
        let mut loads = Vec::new();
        for &(value, op) in &each {
            if let Op::Load(place) = op {
                loads.push((registers.keep(value)?, place));
            }
        }
        for (value, op) in each {
            if !matches!(op, Op::Load(_) | Op::Abcd | Op::Efgh) {
                registers.make(value, op)?;
            }
        }
        let Registers { mut free, places, steps: turn, .. } = registers;
        loads.iter().for_each(|(v, _)| free |= 1 << v.n());
        let mut free = (0..32).map(V).filter(|v| free >> v.n() & 1 != 0);
        let free = (free.next()?, free.next()?);
        let carried = (places[words.end.0], places[words.end.1]) == begin;
        carried.then_some(Plan { flow, once, loads, turn, places, begin, free })
    }
}

/// Whether a turn can load from a place: the counter is off while the turns are done.
fn suits(counting: &Counting, place: Place) -> bool {
    place.base != host_of(counting.counter.0)
}

/// The last value that is made from each value that is needed.
fn last_uses(flow: &Dataflow, needed: &[bool]) -> Vec<Value> {
    let mut last = vec![0; flow.ops.len()];
    for (value, op) in flow.ops.iter().enumerate().filter(|&(value, _)| needed[value]) {
        op.operands().for_each(|operand| last[operand] = value);
    }
    let ends = flow.words.map(|words| [words.end.0, words.end.1]).into_iter().flatten();
    let parts = (0..16).filter_map(|register| flow.parts(register));
    for part in parts.flat_map(|(_, parts)| parts).chain(ends) {
        last[part] = AT_END;
    }
    last
}

/// Whether each value is the same in each turn, and looked at in a turn or behind the last one: only others like it
/// are made from the rest of those.
fn stay(flow: &Dataflow, needed: &[bool], same: &[bool], last_use: &[Value]) -> Vec<bool> {
    let mut stay: Vec<_> =
        same.iter().zip(last_use).map(|(&same, &last)| same && last == AT_END).collect();
    for (value, op) in flow.ops.iter().enumerate() {
        if needed[value] && !same[value] {
            op.operands().for_each(|operand| stay[operand] = same[operand]);
        }
    }
    stay
}

impl Lower<'_> {
    /// At the first instruction of a loop: does its turns but the last one in front of it. Returns false if it is no such
    /// loop.
    pub fn resident(&mut self, counting: &Counting, index: usize) -> bool {
        let plan = if self.config.host.sha2 { Plan::of(counting) } else { None };
        let Some(plan) = plan else { return false };
        let insn = &self.region.insns[index];
        let enterable = self.is_enterable(index, insn);
        self.map_from(self.a.pos(), insn.ins.ip(), insn.live_in, enterable);
        let need = self.need;
        let [alone, leave, done, turn] = std::array::from_fn(|_| self.a.label());
        self.turn_away(&plan, counting, alone);
        let (register, by) = counting.counter;
        let (w, counter) = (width_of(register.size() as u32), host_of(register));
        self.vectors_in_state(false);
        let first = self.begin_turns(&plan);
        self.add_constant(w, counter, counter, by); // it counts what comes before the last turn
        self.a.b(turn);
        let again = self.a.here();
        let next = self.load_turn(&plan);
        self.a.bind(turn);
        self.turn(&plan);
        for &(_, register, by) in counting.steps.iter().filter(|step| step.1 != register) {
            let (w, r) = (width_of(register.size() as u32), host_of(register));
            self.add_constant(w, r, r, by);
        }
        let more = self.count(w, counter, by);
        self.repeat_or_leave(Test::One(more), again, done);
        self.a.bind(done);
        let to = self.a.pos();
        self.recover(index, next, to);
        self.end_turns(&plan);
        self.add_constant(w, counter, counter, -by);
        self.a.bind(leave);
        let to = self.a.pos();
        self.recover(index, first, to);
        self.vectors_in_state(true);
        dynasm!(self.a; .arch aarch64; movi V(VZERO.0).d2, 0);
        self.a.bind(alone);
        self.out.labels[index] = Some(alone);
        self.need = need;
        true
    }

    /// Goes to the loop itself where that is better, or where a turn would do something else than what is planned.
    fn turn_away(&mut self, plan: &Plan, counting: &Counting, alone: Label) {
        let enough = self.are_left(counting, FEW);
        self.a.b_cond(enough.invert(), alone);
        let mut tested = Vec::new();
        for place in &plan.flow.aligned {
            let low = place.offset.rem_euclid(16) as u64;
            if tested.contains(&(place.base, low)) {
                continue;
            }
            tested.push((place.base, low));
            self.free_temps();
            let t = self.tmp();
            self.add_constant(Width::X, t, place.base, low as i64);
            self.a.and_imm(Width::X, t, t, 15);
            self.a.cbnz(Width::X, t, alone);
        }
        for (register, &other) in plan.flow.same.iter().enumerate() {
            if register == usize::from(other) {
                continue;
            }
            self.free_temps();
            let (t, v) = (self.tmp(), self.vtmp());
            dynasm!(self.a; .arch aarch64
                ; cmeq V(v.0).b16, V(register as u8).b16, V(other).b16
                ; uminv B(v.0), V(v.0).b16
                ; umov W(t.0), V(v.0).b[0]);
            self.a.cbz(Width::W, t, alone);
        }
        self.free_temps();
    }

    /// Stores all of the guest's vector registers, or loads them.
    fn vectors_in_state(&mut self, load: bool) {
        let t = self.tmp();
        self.a.add_imm(Width::X, t, STATE, u64::from(offset::XMM));
        for i in (0..16u8).step_by(2) {
            let at = 16 * i32::from(i);
            if load {
                dynasm!(self.a; .arch aarch64; ldp Q(i), Q(i + 1), [X(t.0), at]);
            } else {
                dynasm!(self.a; .arch aarch64; stp Q(i), Q(i + 1), [X(t.0), at]);
            }
        }
        self.free_temps();
    }

    /// What is done once, and the first turn's loads. Returns where a fault may be.
    fn begin_turns(&mut self, plan: &Plan) -> Range<u32> {
        let (abef, cdgh) = plan.free;
        if let Some(words) = plan.flow.words {
            self.make(abef, Op::Begin(words.abef));
            self.make(cdgh, Op::Begin(words.cdgh));
            self.words_to_arm(plan.begin.0, plan.begin.1, abef, cdgh);
        }
        let start = self.a.pos();
        for &step in &plan.once {
            self.step(step);
        }
        start..self.load_turn(plan).end
    }

    /// What a turn loads, from the last to the first, in pairs. Returns where a fault may be.
    fn load_turn(&mut self, plan: &Plan) -> Range<u32> {
        let start = self.a.pos();
        for (left, &(v, place)) in plan.loads.iter().enumerate().rev() {
            self.make(v, Op::Load(place));
            if left % 2 == 0 {
                self.pair_loads();
            }
        }
        start..self.a.pos()
    }

    fn turn(&mut self, plan: &Plan) {
        for &step in &plan.turn {
            self.step(step);
        }
    }

    /// Advances the counter. Returns the condition that not only the last turn is left.
    fn count(&mut self, w: Width, counter: R, by: i64) -> Cond {
        if by < 0 {
            self.a.subs_imm(w, counter, counter, by.unsigned_abs());
            Cond::Hi
        } else {
            self.a.adds_imm(w, counter, counter, by.unsigned_abs());
            Cond::Cc
        }
    }

    /// Puts what the turns have left into the state.
    fn end_turns(&mut self, plan: &Plan) {
        let (d, t) = plan.free;
        for register in 0..16 {
            let Some((op, _)) = plan.flow.parts(register) else { continue };
            let v = match op {
                Op::Abef(..) | Op::Cdgh(..) | Op::Begin(_) => {
                    self.make(d, op.map(|value| plan.places[value]));
                    d
                }
                Op::ShuffleDwords(value, selectors) => {
                    self.a.ldr_literal_q(t, word_indices(selectors));
                    self.make(d, Op::Table(plan.places[value], t));
                    d
                }
                _ => plan.places[plan.flow.ends[register]],
            };
            let at = offset::XMM + 16 * register as u32;
            dynasm!(self.a; .arch aarch64; str Q(v.0), [X(STATE.0), at]);
        }
    }

    fn recover(&mut self, index: usize, faults: Range<u32>, to: u32) {
        let recovery = Recovery { start: faults.start, end: faults.end, to };
        let (late, flags) = (Late::default(), self.flags);
        self.out.recoveries.push(Recovering { recovery, index, late, flags });
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Move(d, n) => self.vmov(d, n),
            Step::Make(d, op) => self.make(d, op),
        }
    }

    /// Makes a value in a register. What an instruction overwrites is there.
    fn make(&mut self, d: V, op: Op<V>) {
        match op {
            Op::Begin(register) => {
                let at = offset::XMM + 16 * u32::from(register);
                dynasm!(self.a; .arch aarch64; ldr Q(d.0), [X(STATE.0), at]);
            }
            Op::Load(place) => {
                self.free_temps();
                let address = self.base_offset(place.base, place.offset, 16);
                self.vload(16, d, address);
                self.free_temps();
            }
            Op::Abef(abcd, efgh) => self.words_to_x86(d, abcd, efgh, false),
            Op::Cdgh(abcd, efgh) => self.words_to_x86(d, abcd, efgh, true),
            Op::Add(n, m) => {
                dynasm!(self.a; .arch aarch64; add V(d.0).s4, V(n.0).s4, V(m.0).s4);
            }
            Op::Indices(n) => dynasm!(self.a; .arch aarch64
                ; movi V(d.0).b16, 0x8f
                ; and V(d.0).b16, V(d.0).b16, V(n.0).b16),
            Op::Table(n, m) => {
                dynasm!(self.a; .arch aarch64; tbl V(d.0).b16, {V(n.0).b16 * 1}, V(m.0).b16);
            }
            Op::Align(n, m, from) => dynasm!(self.a; .arch aarch64
                ; ext V(d.0).b16, V(n.0).b16, V(m.0).b16, u32::from(from)),
            Op::Rounds(_, efgh, words) => {
                dynasm!(self.a; .arch aarch64; sha256h Q(d.0), Q(efgh.0), V(words.0).s4);
            }
            Op::RoundsEfgh(_, abcd, words) => {
                dynasm!(self.a; .arch aarch64; sha256h2 Q(d.0), Q(abcd.0), V(words.0).s4);
            }
            Op::Schedule0(_, m) => {
                dynasm!(self.a; .arch aarch64; sha256su0 V(d.0).s4, V(m.0).s4);
            }
            Op::Schedule1(_, n, m) => {
                dynasm!(self.a; .arch aarch64; sha256su1 V(d.0).s4, V(n.0).s4, V(m.0).s4);
            }
            Op::Abcd | Op::Efgh | Op::ShuffleDwords(..) | Op::FirstRounds(..) => {
                unreachable!("no turn is planned with these")
            }
        }
    }
}

/// PSHUFD's selectors as indices of bytes.
fn word_indices(selectors: u8) -> u128 {
    let word = |i: u32| 0x0302_0100 + 0x0404_0404 * u128::from(selectors >> (2 * i) & 3);
    (0..4).fold(0, |indices, i| indices | word(i) << (32 * i))
}
