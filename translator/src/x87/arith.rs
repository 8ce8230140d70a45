//! Addition, subtraction, multiplication, division and square root.

use super::f80::status::ZE;
use super::f80::{Env, F80, Number, Outcome, Rounding, shift_right_sticky};

/// The operations of the arithmetic instructions. The discriminants are those of the reg field
/// of opcode D8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Arith {
    Add = 0,
    Mul = 1,
    Sub = 4,
    SubR = 5,
    Div = 6,
    DivR = 7,
}

impl Arith {
    /// The operation by its number.
    pub fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            0 => Self::Add,
            1 => Self::Mul,
            4 => Self::Sub,
            5 => Self::SubR,
            6 => Self::Div,
            7 => Self::DivR,
            _ => return None,
        })
    }

    /// `destination op source`.
    pub fn apply(self, env: &mut Env, destination: F80, source: F80) -> Outcome<F80> {
        if let Some(nan) = env.nan_result(&[destination, source])? {
            return Ok(nan);
        }
        match self {
            Self::Add => add(env, destination, source),
            Self::Mul => mul(env, destination, source),
            Self::Sub => add(env, destination, source.negate()),
            Self::SubR => add(env, source, destination.negate()),
            Self::Div => div(env, destination, source),
            Self::DivR => div(env, source, destination),
        }
    }
}

/// The sum of two operands that are not NaNs.
fn add(env: &mut Env, a: F80, b: F80) -> Outcome<F80> {
    if a.is_infinity() && b.is_infinity() && a.negative() != b.negative() {
        return env.invalid();
    }
    env.check_denormal(&[a, b])?;
    if a.is_infinity() {
        return Ok(a);
    }
    if b.is_infinity() {
        return Ok(b);
    }
    match (a.number(), b.number()) {
        (None, None) if a.negative() == b.negative() => Ok(a),
        (None, None) => Ok(exact_zero(env)),
        (Some(x), None) | (None, Some(x)) => {
            env.round_f80(x.negative, x.exp, u128::from(x.significand) << 64, env.precision())
        }
        (Some(x), Some(y)) => add_numbers(env, x, y),
    }
}

/// The sum of two numbers: both are shifted to the larger exponent with 63 spare bits and a
/// sticky bit below.
fn add_numbers(env: &mut Env, x: Number, y: Number) -> Outcome<F80> {
    let (large, small) =
        if (x.exp, x.significand) >= (y.exp, y.significand) { (x, y) } else { (y, x) };
    let a = u128::from(large.significand) << 63;
    let b = shift_right_sticky(u128::from(small.significand) << 63, large.exp.abs_diff(small.exp));
    let sum = if large.negative == small.negative { a + b } else { a - b };
    if sum == 0 {
        return Ok(exact_zero(env));
    }
    let shift = sum.leading_zeros();
    env.round_f80(large.negative, large.exp + 1 - shift as i32, sum << shift, env.precision())
}

/// The sign of a difference that is exactly zero (SDM vol. 1, 4.8.3.1).
fn exact_zero(env: &Env) -> F80 {
    F80::zero(env.rounding() == Rounding::Down)
}

/// The product of two operands that are not NaNs.
fn mul(env: &mut Env, a: F80, b: F80) -> Outcome<F80> {
    let negative = a.negative() != b.negative();
    if a.is_infinity() && b.is_zero() || a.is_zero() && b.is_infinity() {
        return env.invalid();
    }
    env.check_denormal(&[a, b])?;
    if a.is_infinity() || b.is_infinity() {
        return Ok(F80::infinity(negative));
    }
    let (Some(x), Some(y)) = (a.number(), b.number()) else {
        return Ok(F80::zero(negative));
    };
    let product = u128::from(x.significand) * u128::from(y.significand);
    let shift = product.leading_zeros();
    env.round_f80(negative, x.exp + y.exp + 1 - shift as i32, product << shift, env.precision())
}

/// The quotient of two operands that are not NaNs.
fn div(env: &mut Env, a: F80, b: F80) -> Outcome<F80> {
    let negative = a.negative() != b.negative();
    if a.is_infinity() && b.is_infinity() || a.is_zero() && b.is_zero() {
        return env.invalid();
    }
    if b.is_zero() && !a.is_infinity() {
        env.raise(ZE)?;
        return Ok(F80::infinity(negative));
    }
    env.check_denormal(&[a, b])?;
    if a.is_infinity() {
        return Ok(F80::infinity(negative));
    }
    if b.is_infinity() {
        return Ok(F80::zero(negative));
    }
    let (Some(x), Some(y)) = (a.number(), b.number()) else {
        return Ok(F80::zero(negative));
    };
    let (exp, quotient) = quotient(x, y);
    env.round_f80(negative, exp, quotient, env.precision())
}

/// Exponent and 128 significant bits, the last one sticky, of `|x / y|`.
pub fn quotient(x: Number, y: Number) -> (i32, u128) {
    let divisor = u128::from(y.significand);
    let less = x.significand < y.significand;
    let dividend = u128::from(x.significand) << if less { 64 } else { 63 };
    let (high, rest) = (dividend / divisor, dividend % divisor);
    let (low, rest) = ((rest << 64) / divisor, (rest << 64) % divisor);
    (x.exp - y.exp - i32::from(less), high << 64 | low | u128::from(rest != 0))
}

/// FSQRT.
pub fn sqrt(env: &mut Env, a: F80) -> Outcome<F80> {
    if let Some(nan) = env.nan_result(&[a])? {
        return Ok(nan);
    }
    if a.is_zero() {
        return Ok(a);
    }
    if a.negative() {
        return env.invalid();
    }
    env.check_denormal(&[a])?;
    if a.is_infinity() {
        return Ok(a);
    }
    let Some(x) = a.number() else {
        return Ok(a);
    };
    // An even exponent, and a radicand of 127 or 128 bits with a root of 64.
    let radicand = u128::from(x.significand) << if x.exp & 1 == 0 { 63 } else { 64 };
    let root = radicand.isqrt();
    let rest = radicand - root * root;
    // (root + 1/2)^2 = root^2 + root + 1/4
    let half = u128::from(rest > root) << 63;
    env.round_f80(false, x.exp >> 1, root << 64 | half | u128::from(rest != 0), env.precision())
}
