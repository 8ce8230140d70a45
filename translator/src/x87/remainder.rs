//! Partial remainders: FPREM and FPREM1.

use super::f80::status::{C0, C1, C2, C3};
use super::f80::{Env, F80, Format, Number, Outcome};

/// FPREM (the quotient is truncated) or FPREM1 (`nearest`: rounded to nearest). Gives the
/// remainder and, unless an operand was invalid or a NaN, C0, C1, C2, C3: the low bits of the
/// quotient, or C2 if the reduction is partial.
pub fn remainder(env: &mut Env, a: F80, b: F80, nearest: bool) -> Outcome<(F80, Option<u16>)> {
    if let Some(nan) = env.nan_result(&[a, b])? {
        return Ok((nan, None));
    }
    if a.is_infinity() || b.is_zero() {
        return Ok((env.invalid()?, None));
    }
    env.check_denormal(&[a, b])?;
    let Some(x) = a.number() else {
        return Ok((a, Some(0)));
    };
    // Infinity is farther from any number than 63 binary digits.
    let y = match b.number() {
        Some(y) if !b.is_infinity() => y,
        _ => Number { negative: b.negative(), exp: i32::MAX / 2, significand: 1 << 63 },
    };
    let distance = x.exp - y.exp;
    if distance < 64 {
        let (r, quotient) = reduce(x, y, distance, nearest);
        Ok((deliver(env, r)?, Some(quotient_bits(quotient))))
    } else {
        // The distance shrinks by at least 32 and at most 63 (SDM vol. 2, FPREM).
        let step = (distance & 31) | 32;
        let (r, _) = reduce(Number { exp: y.exp + step, ..x }, y, step, false);
        let r = Remainder { exp: r.exp + distance - step, ..r };
        Ok((deliver(env, r)?, Some(C2)))
    }
}

/// A remainder before normalisation: `rest * 2^(exp - 63)`.
#[derive(Clone, Copy)]
struct Remainder {
    negative: bool,
    exp: i32,
    rest: u128,
}

/// `x` reduced by `y`, and the quotient's low bits. `distance`, the difference of exponents, is
/// less than 64.
fn reduce(x: Number, y: Number, distance: i32, nearest: bool) -> (Remainder, u64) {
    let mut negative = x.negative;
    if distance < -1 || distance < 0 && !nearest {
        return (Remainder { negative, exp: x.exp, rest: u128::from(x.significand) }, 0);
    }
    // Both in units of the lower of the two exponents.
    let exp = x.exp.min(y.exp);
    let divisor = u128::from(y.significand) << (y.exp - exp);
    let dividend = u128::from(x.significand) << (x.exp - exp);
    let (mut quotient, mut rest) = ((dividend / divisor) as u64, dividend % divisor);
    let odd = quotient & 1 != 0;
    if nearest && (rest > divisor - rest || rest == divisor - rest && odd) {
        quotient = quotient.wrapping_add(1);
        rest = divisor - rest;
        negative = !negative;
    }
    if rest == 0 {
        negative = x.negative;
    }
    (Remainder { negative, exp, rest }, quotient)
}

/// The remainder in the register format: always exact, but it may be denormal.
fn deliver(env: &mut Env, r: Remainder) -> Outcome<F80> {
    if r.rest == 0 {
        return Ok(F80::zero(r.negative));
    }
    let shift = r.rest.leading_zeros();
    env.round_f80(r.negative, r.exp + 64 - shift as i32, r.rest << shift, Format::EXTENDED)
}

/// The three low quotient bits Q2, Q1, Q0 in C0, C3, C1.
fn quotient_bits(quotient: u64) -> u16 {
    let bit = |n: u32, flag: u16| if quotient >> n & 1 != 0 { flag } else { 0 };
    bit(2, C0) | bit(1, C3) | bit(0, C1)
}
