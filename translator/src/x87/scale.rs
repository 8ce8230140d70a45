//! FSCALE, FXTRACT and FRNDINT.

use super::convert::{from_integer, from_magnitude};
use super::f80::status::{C1, PE, ZE};
use super::f80::{BIAS, Env, F80, Format, Outcome};

/// FSCALE: `a * 2^trunc(b)`.
pub fn scale(env: &mut Env, a: F80, b: F80) -> Outcome<F80> {
    if let Some(nan) = env.nan_result(&[a, b])? {
        return Ok(nan);
    }
    if b.is_infinity() && if b.negative() { a.is_infinity() } else { a.is_zero() } {
        return env.invalid();
    }
    env.check_denormal(&[a, b])?;
    if b.is_infinity() {
        let negative = a.negative();
        return Ok(if b.negative() { F80::zero(negative) } else { F80::infinity(negative) });
    }
    if a.is_infinity() {
        return Ok(a);
    }
    let Some(x) = a.number() else {
        return Ok(a);
    };
    env.round_f80(
        x.negative,
        x.exp + truncated(b),
        u128::from(x.significand) << 64,
        Format::EXTENDED,
    )
}

/// The integer part of a finite value, limited to what takes any number out of range.
fn truncated(b: F80) -> i32 {
    let magnitude = match b.number() {
        Some(n) if n.exp > 16 => 1 << 17,
        Some(n) if n.exp >= 0 => (n.significand >> (63 - n.exp)) as i32,
        _ => 0,
    };
    if b.negative() { -magnitude } else { magnitude }
}

/// FXTRACT: exponent and significand as two values.
pub fn extract(env: &mut Env, a: F80) -> Outcome<(F80, F80)> {
    if let Some(nan) = env.nan_result(&[a])? {
        return Ok((nan, nan));
    }
    if a.is_infinity() {
        return Ok((a.abs(), a));
    }
    let Some(x) = a.number() else {
        env.raise(ZE)?;
        return Ok((F80::infinity(true), a));
    };
    env.check_denormal(&[a])?;
    let significand = F80::new(x.negative, BIAS as u16, x.significand);
    Ok((from_integer(i64::from(x.exp)), significand))
}

/// FRNDINT.
pub fn round_to_integer(env: &mut Env, a: F80) -> Outcome<F80> {
    if let Some(nan) = env.nan_result(&[a])? {
        return Ok(nan);
    }
    env.check_denormal(&[a])?;
    let x = match a.number() {
        Some(x) if x.exp < 63 => x,
        _ => return Ok(a),
    };
    let fixed =
        super::f80::shift_right_sticky(u128::from(x.significand) << 64, (63 - x.exp) as u32);
    let (whole, fraction) = ((fixed >> 64) as u64, fixed << 64);
    let up = env.rounds_up(x.negative, whole & 1 != 0, fraction);
    if fraction != 0 {
        env.raised |= PE;
    }
    if up {
        env.raised |= C1;
    }
    Ok(from_magnitude(x.negative, whole + u64::from(up)))
}
