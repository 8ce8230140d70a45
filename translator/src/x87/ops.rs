//! The x87 instructions as operations on the unit's registers.
//!
//! Memory operands come in as values and go out as values: the caller does the access, so that a
//! fault is exact. An instruction that stores is evaluated first ([`Stored`]) and completed by
//! [`complete_store`] once the store has succeeded.

use super::arith::{self, Arith};
use super::compare::{self, Relation};
use super::convert::{self, Source};
use super::f80::status::*;
use super::f80::{Env, F80, Outcome, Rounding};
use super::{remainder, scale, transcendental};
use crate::state::X87State;
use std::cmp::Ordering;

impl X87State {
    /// The physical register of ST(i).
    fn physical(&self, i: u8) -> usize {
        usize::from((self.top + u16::from(i)) & 7)
    }

    /// ST(i), or `None` if the register is empty.
    pub fn get(&self, i: u8) -> Option<F80> {
        let r = self.physical(i);
        (self.tag >> r & 1 != 0).then(|| F80::from_bits(self.st[r]))
    }

    /// Puts a value in ST(i).
    pub fn set(&mut self, i: u8, value: F80) {
        let r = self.physical(i);
        self.st[r] = value.to_bits();
        self.tag |= 1 << r;
    }

    /// Marks ST(i) empty.
    pub fn free(&mut self, i: u8) {
        self.tag &= !(1 << self.physical(i));
    }

    /// Moves TOP by `by` registers; 7 is one down.
    fn rotate(&mut self, by: u16) {
        self.top = (self.top + by) & 7;
    }

    /// Pops the register stack.
    pub fn pop(&mut self) {
        self.free(0);
        self.rotate(1);
    }

    /// The status word as programs see it, with TOP.
    pub fn status_word(&self) -> u16 {
        self.sw & !TOP | self.top << 11
    }

    /// Sets the exception summary from the flags and their masks.
    pub fn summarize(&mut self) {
        self.sw &= !(ES | B);
        if self.sw & !self.cw & EXCEPTIONS != 0 {
            self.sw |= ES | B;
        }
    }

    /// Ends an instruction: what it raised becomes sticky, C1 is as it left it.
    fn finish(&mut self, env: Env) {
        self.sw = self.sw & !C1 | env.raised;
        self.summarize();
    }

    /// Ends an instruction with one result for ST(i). Says whether it was delivered.
    fn deliver(&mut self, i: u8, env: Env, outcome: Outcome<F80>) -> bool {
        self.finish(env);
        if let Ok(value) = outcome {
            self.set(i, value);
        }
        outcome.is_ok()
    }

    /// Ends an instruction that pushes its result.
    fn deliver_push(&mut self, mut env: Env, outcome: Outcome<F80>) {
        let value = if self.get(7).is_some() { env.stack_overflow() } else { outcome };
        self.finish(env);
        if let Ok(value) = value {
            self.rotate(7);
            self.set(0, value);
        }
    }

    /// Evaluates an operation of ST(0).
    fn unary(&self, env: &mut Env, op: fn(&mut Env, F80) -> Outcome<F80>) -> Outcome<F80> {
        match self.get(0) {
            Some(a) => op(env, a),
            None => env.stack_underflow(),
        }
    }
}

/// Whether the next waiting instruction must raise #MF.
pub fn pending_exception(x: &X87State) -> bool {
    x.sw & ES != 0
}

/// FLD and FILD of a memory operand other than m80.
pub fn load(x: &mut X87State, source: Source, bits: u64) {
    let mut env = Env::new(x.cw);
    let value = source.load(&mut env, bits);
    if x.get(7).is_some() {
        env.raised = 0;
    }
    x.deliver_push(env, value);
}

/// FLD m80: no encoding is refused.
pub fn load_f80(x: &mut X87State, value: F80) {
    x.deliver_push(Env::new(x.cw), Ok(value));
}

/// FBLD.
pub fn load_bcd(x: &mut X87State, bits: u128) {
    load_f80(x, convert::from_bcd(bits));
}

/// FLD ST(i).
pub fn load_st(x: &mut X87State, i: u8) {
    let mut env = Env::new(x.cw);
    let value = match x.get(i) {
        Some(_) if x.get(7).is_some() => env.stack_overflow(),
        Some(value) => Ok(value),
        None => env.stack_underflow(),
    };
    x.finish(env);
    if let Ok(value) = value {
        x.rotate(7);
        x.set(0, value);
    }
}

/// The constants of D9 E8 to D9 EE rounded to nearest, and on which side of that the longer
/// constant lies that the processor rounds (SDM vol. 1, 8.3.8).
const CONSTANTS: [(F80, Ordering); 7] = [
    (F80::ONE, Ordering::Equal),
    (F80::new(false, 0x4000, 0xd49a_784b_cd1b_8afe), Ordering::Greater),
    (F80::new(false, 0x3fff, 0xb8aa_3b29_5c17_f0bc), Ordering::Less),
    (F80::new(false, 0x4000, 0xc90f_daa2_2168_c235), Ordering::Less),
    (F80::new(false, 0x3ffd, 0x9a20_9a84_fbcf_f799), Ordering::Less),
    (F80::new(false, 0x3ffe, 0xb172_17f7_d1cf_79ac), Ordering::Less),
    (F80::ZERO, Ordering::Equal),
];

/// FLD1, FLDL2T, FLDL2E, FLDPI, FLDLG2, FLDLN2, FLDZ, by the low three bits of the opcode.
pub fn load_constant(x: &mut X87State, index: u8) {
    let env = Env::new(x.cw);
    let (mut value, side) = CONSTANTS[usize::from(index) % CONSTANTS.len()];
    match (side, env.rounding()) {
        (Ordering::Greater, Rounding::Up) => value.significand += 1,
        (Ordering::Less, Rounding::Down | Rounding::Zero) => value.significand -= 1,
        _ => {}
    }
    x.deliver_push(env, Ok(value));
}

/// FST and FSTP to a register.
pub fn store_st(x: &mut X87State, i: u8, pop: bool) {
    let mut env = Env::new(x.cw);
    let value = x.unary(&mut env, |_, a| Ok(a));
    if x.deliver(i, env, value) && pop {
        x.pop();
    }
}

/// FSTPNCE, an undocumented FSTP that only pops when ST(0) is empty.
pub fn store_unchecked(x: &mut X87State, i: u8) {
    if let Some(value) = x.get(0) {
        x.set(i, value);
    }
    x.sw &= !C1;
    x.pop();
}

/// What a store instruction does to its memory operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Target {
    F32 = 0,
    F64 = 1,
    I16 = 2,
    I32 = 3,
    I64 = 4,
    F80 = 5,
    Bcd = 6,
    /// FISTTP rounds toward zero whatever rounding control says.
    TruncatedI16 = 7,
    TruncatedI32 = 8,
    TruncatedI64 = 9,
}

impl Target {
    /// The target by its number.
    pub fn from_code(code: u8) -> Option<Self> {
        use Target::*;
        const ALL: [Target; 10] =
            [F32, F64, I16, I32, I64, F80, Bcd, TruncatedI16, TruncatedI32, TruncatedI64];
        ALL.get(usize::from(code)).copied()
    }

    /// The value to store, in the low bytes.
    fn convert(self, env: &mut Env, a: F80) -> Outcome<u128> {
        let integer = |value: i64| value as u64 as u128;
        Ok(match self {
            Self::F32 => convert::to_f32(env, a)?.into(),
            Self::F64 => convert::to_f64(env, a)?.into(),
            Self::I16 => integer(convert::to_integer(env, a, 16, false)?),
            Self::I32 => integer(convert::to_integer(env, a, 32, false)?),
            Self::I64 => integer(convert::to_integer(env, a, 64, false)?),
            Self::F80 => a.to_bits(),
            Self::Bcd => convert::to_bcd(env, a)?,
            Self::TruncatedI16 => integer(convert::to_integer(env, a, 16, true)?),
            Self::TruncatedI32 => integer(convert::to_integer(env, a, 32, true)?),
            Self::TruncatedI64 => integer(convert::to_integer(env, a, 64, true)?),
        })
    }
}

/// An evaluated store instruction: nothing has changed yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The value to store; `None` if an unmasked exception keeps it back (and the pop with it).
    pub value: Option<u128>,
    /// The status word after the instruction, without TOP.
    pub sw: u16,
}

/// Evaluates FST, FSTP, FIST, FISTP, FISTTP or FBSTP.
pub fn store(x: &X87State, target: Target) -> Stored {
    let mut env = Env::new(x.cw);
    let value = match x.get(0) {
        Some(a) => target.convert(&mut env, a),
        None => env.stack_underflow().and_then(|nan| target.convert(&mut Env::new(x.cw), nan)),
    };
    let mut after = *x;
    after.finish(env);
    Stored { value: value.ok(), sw: after.sw }
}

/// Completes a store instruction after the memory access.
pub fn complete_store(x: &mut X87State, stored: Stored, pop: bool) {
    x.sw = stored.sw;
    if pop && stored.value.is_some() {
        x.pop();
    }
}

/// FADD, FMUL, FSUB, FSUBR, FDIV, FDIVR of two registers: `ST(dst) = ST(dst) op ST(src)`.
pub fn arith_st(x: &mut X87State, op: Arith, dst: u8, src: u8, pop: bool) {
    let mut env = Env::new(x.cw);
    let result = match (x.get(dst), x.get(src)) {
        (Some(a), Some(b)) => op.apply(&mut env, a, b),
        _ => env.stack_underflow(),
    };
    if x.deliver(dst, env, result) && pop {
        x.pop();
    }
}

/// The same of ST(0) and a memory operand.
pub fn arith_m(x: &mut X87State, op: Arith, source: Source, bits: u64) {
    let mut env = Env::new(x.cw);
    let result = match x.get(0) {
        Some(a) => {
            env.memory_denormal = source.is_denormal(bits);
            op.apply(&mut env, a, source.widen(bits))
        }
        None => env.stack_underflow(),
    };
    x.deliver(0, env, result);
}

/// FCOM, FCOMP, FCOMPP, FUCOM, FUCOMP, FUCOMPP: compares ST(0) with ST(i), pops `pops` times.
pub fn compare_st(x: &mut X87State, i: u8, quiet: bool, pops: u8) {
    let mut env = Env::new(x.cw);
    let relation = relation_st(x, &mut env, i, quiet);
    set_relation(x, env, relation, pops);
}

/// FCOM, FCOMP, FICOM, FICOMP with a memory operand.
pub fn compare_m(x: &mut X87State, source: Source, bits: u64, pop: bool) {
    let mut env = Env::new(x.cw);
    let relation = match x.get(0) {
        Some(a) => {
            env.memory_denormal = source.is_denormal(bits);
            compare::compare(&mut env, a, source.widen(bits), false)
        }
        None => unordered_underflow(&mut env),
    };
    set_relation(x, env, relation, pop.into());
}

/// FTST.
pub fn test(x: &mut X87State) {
    compare_m(x, Source::I16, 0, false);
}

/// FCOMI, FCOMIP, FUCOMI, FUCOMIP: the relation is for the flags. C1 stays as it is unless a
/// register is empty.
pub fn compare_flags(x: &mut X87State, i: u8, quiet: bool, pop: bool) -> Relation {
    let mut env = Env::new(x.cw);
    let relation = relation_st(x, &mut env, i, quiet);
    let c1 = x.sw & C1;
    x.finish(env);
    if env.raised & SF == 0 {
        x.sw |= c1;
    }
    if env.masked(env.raised) && pop {
        x.pop();
    }
    relation
}

/// The relation of ST(0) to ST(i).
fn relation_st(x: &X87State, env: &mut Env, i: u8, quiet: bool) -> Relation {
    match (x.get(0), x.get(i)) {
        (Some(a), Some(b)) => compare::compare(env, a, b, quiet),
        _ => unordered_underflow(env),
    }
}

/// What a comparison with an empty register gives.
fn unordered_underflow(env: &mut Env) -> Relation {
    env.raised |= IE | SF;
    Relation::Unordered
}

/// Ends a comparison: an unmasked exception only keeps it from popping.
fn set_relation(x: &mut X87State, env: Env, relation: Relation, pops: u8) {
    x.finish(env);
    x.sw = x.sw & !(C0 | C2 | C3) | relation.condition_codes();
    if env.masked(env.raised) {
        for _ in 0..pops {
            x.pop();
        }
    }
}

/// FXAM.
pub fn examine(x: &mut X87State) {
    let sign = if x.st[x.physical(0)] >> 79 & 1 != 0 { C1 } else { 0 };
    x.sw = x.sw & !CONDITION | compare::examine(x.get(0)) | sign;
}

/// The instructions that replace ST(0) by a function of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Unary {
    Chs = 0,
    Abs = 1,
    Sqrt = 2,
    RndInt = 3,
    F2xm1 = 4,
    Sin = 5,
    Cos = 6,
}

impl Unary {
    /// The operation by its number.
    pub fn from_code(code: u8) -> Option<Self> {
        use Unary::*;
        [Chs, Abs, Sqrt, RndInt, F2xm1, Sin, Cos].get(usize::from(code)).copied()
    }
}

/// FCHS, FABS, FSQRT, FRNDINT, F2XM1, FSIN, FCOS.
pub fn unary(x: &mut X87State, op: Unary) {
    let mut env = Env::new(x.cw);
    let result = match op {
        Unary::Chs => x.unary(&mut env, |_, a| Ok(a.negate())),
        Unary::Abs => x.unary(&mut env, |_, a| Ok(a.abs())),
        Unary::Sqrt => x.unary(&mut env, arith::sqrt),
        Unary::RndInt => x.unary(&mut env, scale::round_to_integer),
        Unary::F2xm1 => x.unary(&mut env, transcendental::f2xm1),
        Unary::Sin | Unary::Cos => return sine_or_cosine(x, op),
    };
    x.deliver(0, env, result);
}

/// FSIN and FCOS: C2 says that the operand is out of range.
fn sine_or_cosine(x: &mut X87State, op: Unary) {
    let mut env = Env::new(x.cw);
    x.sw &= !C2;
    let Some(a) = x.get(0) else {
        let nan = env.stack_underflow();
        x.deliver(0, env, nan);
        return;
    };
    if transcendental::out_of_range(a) {
        x.finish(env);
        x.sw |= C2;
        return;
    }
    let result = match op {
        Unary::Sin => transcendental::sin(&mut env, a),
        _ => transcendental::cos(&mut env, a),
    };
    x.deliver(0, env, result);
}

/// The instructions that combine ST(0) and ST(1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Binary {
    Yl2x = 0,
    Yl2xp1 = 1,
    Patan = 2,
    Scale = 3,
    Prem = 4,
    Prem1 = 5,
}

impl Binary {
    /// The operation by its number.
    pub fn from_code(code: u8) -> Option<Self> {
        use Binary::*;
        [Yl2x, Yl2xp1, Patan, Scale, Prem, Prem1].get(usize::from(code)).copied()
    }
}

/// FYL2X, FYL2XP1, FPATAN (to ST(1), popping ST(0)), FSCALE, FPREM, FPREM1 (to ST(0)).
pub fn binary(x: &mut X87State, op: Binary) {
    let mut env = Env::new(x.cw);
    if matches!(op, Binary::Prem | Binary::Prem1) {
        x.sw &= !C2;
    }
    let (Some(a), Some(b)) = (x.get(0), x.get(1)) else {
        let nan = env.stack_underflow();
        return deliver_binary(x, op, env, nan);
    };
    let result = match op {
        Binary::Yl2x => transcendental::fyl2x(&mut env, b, a),
        Binary::Yl2xp1 => transcendental::fyl2xp1(&mut env, b, a),
        Binary::Patan => transcendental::fpatan(&mut env, b, a),
        Binary::Scale => scale::scale(&mut env, a, b),
        Binary::Prem | Binary::Prem1 => {
            let outcome = remainder::remainder(&mut env, a, b, op == Binary::Prem1);
            if let Ok((_, Some(codes))) = outcome {
                env.raised |= codes;
                x.sw &= !CONDITION;
            }
            outcome.map(|(rest, _)| rest)
        }
    };
    deliver_binary(x, op, env, result);
}

/// Ends an operation of two registers.
fn deliver_binary(x: &mut X87State, op: Binary, env: Env, result: Outcome<F80>) {
    match op {
        Binary::Yl2x | Binary::Yl2xp1 | Binary::Patan => {
            if x.deliver(1, env, result) {
                x.pop();
            }
        }
        Binary::Scale | Binary::Prem | Binary::Prem1 => {
            x.deliver(0, env, result);
        }
    }
}

/// The instructions that replace ST(0) and push a second result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Pair {
    Xtract = 0,
    Ptan = 1,
    SinCos = 2,
}

impl Pair {
    /// The operation by its number.
    pub fn from_code(code: u8) -> Option<Self> {
        use Pair::*;
        [Xtract, Ptan, SinCos].get(usize::from(code)).copied()
    }
}

/// FXTRACT, FPTAN, FSINCOS.
pub fn pair(x: &mut X87State, op: Pair) {
    let mut env = Env::new(x.cw);
    let operand = x.get(0);
    if op != Pair::Xtract {
        x.sw &= !C2;
    }
    let outcome = match operand {
        None => env.stack_underflow().map(|nan| (nan, nan)),
        Some(_) if x.get(7).is_some() => env.stack_overflow().map(|nan| (nan, nan)),
        Some(a) if op != Pair::Xtract && transcendental::out_of_range(a) => {
            x.finish(env);
            x.sw |= C2;
            return;
        }
        Some(a) => match op {
            Pair::Xtract => scale::extract(&mut env, a),
            Pair::Ptan => transcendental::tan(&mut env, a),
            Pair::SinCos => transcendental::sin_cos(&mut env, a),
        },
    };
    x.finish(env);
    if let Ok((lower, upper)) = outcome {
        x.set(0, lower);
        x.rotate(7);
        x.set(0, upper);
    }
}

/// FXCH.
pub fn exchange(x: &mut X87State, i: u8) {
    let mut env = Env::new(x.cw);
    let values = match (x.get(0), x.get(i)) {
        (Some(a), Some(b)) => Ok((a, b)),
        (a, b) => env.stack_underflow().map(|nan| (a.unwrap_or(nan), b.unwrap_or(nan))),
    };
    x.finish(env);
    if let Ok((a, b)) = values {
        x.set(0, b);
        x.set(i, a);
    }
}

/// FCMOVcc, given whether its condition holds.
pub fn conditional_move(x: &mut X87State, i: u8, condition: bool) {
    let mut env = Env::new(x.cw);
    match (x.get(0), x.get(i)) {
        (Some(_), Some(_)) if !condition => {}
        (Some(_), Some(b)) => x.set(0, b),
        _ => {
            let nan = env.stack_underflow();
            x.deliver(0, env, nan);
        }
    }
}

/// FFREE.
pub fn free(x: &mut X87State, i: u8) {
    x.free(i);
    x.sw &= !C1;
}

/// FINCSTP and FDECSTP.
pub fn move_top(x: &mut X87State, up: bool) {
    x.rotate(if up { 1 } else { 7 });
    x.sw &= !C1;
}

/// FNINIT.
pub fn init(x: &mut X87State) {
    let st = x.st;
    *x = X87State { st, ..X87State::INIT };
}

/// FNCLEX.
pub fn clear_exceptions(x: &mut X87State) {
    x.sw &= !(EXCEPTIONS | SF | ES | B);
}

/// FLDCW.
pub fn load_control(x: &mut X87State, control: u16) {
    x.cw = super::image::control_word(control);
    x.summarize();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn push_and_pop_move_top() {
        let mut x = X87State::INIT;
        load_constant(&mut x, 0);
        assert_eq!((x.top, x.tag), (7, 0x80));
        assert_eq!(x.get(0), Some(F80::ONE));
        store_st(&mut x, 0, true);
        assert_eq!((x.top, x.tag), (0, 0));
    }
}
