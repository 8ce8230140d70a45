//! Conversions between the register format and the formats of memory operands.

use super::f80::status::DE;
use super::f80::status::{C1, IE, PE};
use super::f80::{BIAS, Class, Env, F80, Format, INTEGER_BIT, MAX_EXP, Outcome};

/// A memory operand, as loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Source {
    F32 = 0,
    F64 = 1,
    I16 = 2,
    I32 = 3,
    I64 = 4,
}

impl Source {
    /// The format by its number.
    pub fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            0 => Self::F32,
            1 => Self::F64,
            2 => Self::I16,
            3 => Self::I32,
            4 => Self::I64,
            _ => return None,
        })
    }

    /// The operand in the register format, exactly. Nothing is raised yet: a signalling NaN stays
    /// one, and a denormal is told by [`is_denormal`](Self::is_denormal).
    pub fn widen(self, bits: u64) -> F80 {
        match self {
            Self::F32 => widen_float(bits << 32, 8, 127),
            Self::F64 => widen_float(bits, 11, 1023),
            Self::I16 => from_integer(i64::from(bits as i16)),
            Self::I32 => from_integer(i64::from(bits as i32)),
            Self::I64 => from_integer(bits as i64),
        }
    }

    /// Whether the operand is a denormal of its own format.
    pub fn is_denormal(self, bits: u64) -> bool {
        match self {
            Self::F32 => bits as u32 & 0x7f80_0000 == 0 && bits as u32 & 0x7f_ffff != 0,
            Self::F64 => bits & (0x7ff << 52) == 0 && bits & ((1 << 52) - 1) != 0,
            Self::I16 | Self::I32 | Self::I64 => false,
        }
    }

    /// FLD and FILD: the operand with a NaN made quiet and its exceptions raised.
    pub fn load(self, env: &mut Env, bits: u64) -> Outcome<F80> {
        let value = self.widen(bits);
        if value.class() == Class::Signalling {
            env.raise(IE)?;
            return Ok(value.quieted());
        }
        if self.is_denormal(bits) {
            env.raised |= DE;
        }
        Ok(value)
    }
}

/// A float of an exponent of `width` bits, left-justified in `bits`.
fn widen_float(bits: u64, width: u32, bias: i32) -> F80 {
    let negative = bits >> 63 != 0;
    let exp = (bits << 1 >> (64 - width)) as i32;
    let fraction = bits << (1 + width) >> 1;
    if exp == (1 << width) - 1 {
        return F80::new(negative, MAX_EXP, INTEGER_BIT | fraction);
    }
    if exp != 0 {
        return F80::new(negative, (exp - bias + BIAS) as u16, INTEGER_BIT | fraction);
    }
    if fraction == 0 {
        return F80::zero(negative);
    }
    let shift = fraction.leading_zeros();
    F80::new(negative, (1 - bias + BIAS - shift as i32) as u16, fraction << shift)
}

/// The value of an integer, exactly.
pub fn from_integer(x: i64) -> F80 {
    from_magnitude(x < 0, x.unsigned_abs())
}

/// The value of a signed magnitude, exactly.
pub fn from_magnitude(negative: bool, magnitude: u64) -> F80 {
    if magnitude == 0 {
        return F80::zero(negative);
    }
    let shift = magnitude.leading_zeros();
    F80::new(negative, (BIAS + 63 - shift as i32) as u16, magnitude << shift)
}

/// FST m32fp.
pub fn to_f32(env: &mut Env, x: F80) -> Outcome<u32> {
    narrow(env, x, Format::SINGLE, 8).map(|bits| (bits >> 32) as u32)
}

/// FST m64fp.
pub fn to_f64(env: &mut Env, x: F80) -> Outcome<u64> {
    narrow(env, x, Format::DOUBLE, 11)
}

/// The float of an exponent of `width` bits, left-justified.
fn narrow(env: &mut Env, x: F80, format: Format, width: u32) -> Outcome<u64> {
    let exp_max = (1 << width) - 1;
    let pack = |negative: bool, exp: u16, significand: u64| {
        u64::from(negative) << 63 | u64::from(exp) << (63 - width) | significand << 1 >> (1 + width)
    };
    if let Some(nan) = env.nan_result(&[x])? {
        let cut = nan.significand >> (11 + 11 - width) << (11 + 11 - width);
        return Ok(pack(nan.negative(), exp_max, cut));
    }
    if x.is_infinity() {
        return Ok(pack(x.negative(), exp_max, INTEGER_BIT));
    }
    let Some(n) = x.number() else {
        return Ok(pack(x.negative(), 0, 0));
    };
    let r = env.round(n.negative, n.exp, u128::from(n.significand) << 64, format)?;
    Ok(pack(n.negative, r.exp, r.significand))
}

/// The nearest integer under the rounding mode, as sign and magnitude, with C1 and PE raised;
/// `None` when it is 2^64 or more or not a number. Raises nothing when it returns `None`.
fn to_magnitude(env: &mut Env, x: F80, truncate: bool) -> Option<(bool, u64)> {
    if !matches!(x.class(), Class::Zero | Class::Denormal | Class::Normal) {
        return None;
    }
    let Some(n) = x.number() else {
        return Some((x.negative(), 0));
    };
    if n.exp > 63 {
        return None;
    }
    let fixed =
        super::f80::shift_right_sticky(u128::from(n.significand) << 64, (63 - n.exp) as u32);
    let (whole, fraction) = ((fixed >> 64) as u64, fixed << 64);
    let up = !truncate && env.rounds_up(n.negative, whole & 1 != 0, fraction);
    let magnitude = whole.checked_add(u64::from(up))?;
    if fraction != 0 {
        env.raised |= PE;
    }
    if up {
        env.raised |= C1;
    }
    Some((n.negative, magnitude))
}

/// FIST, FISTP and FISTTP of an integer of `bits` bits; the masked response to what does not fit
/// is the integer indefinite.
pub fn to_integer(env: &mut Env, x: F80, bits: u32, truncate: bool) -> Outcome<i64> {
    let limit = 1u64 << (bits - 1);
    let before = env.raised;
    match to_magnitude(env, x, truncate) {
        Some((false, m)) if m < limit => Ok(m as i64),
        Some((true, m)) if m <= limit => Ok((m as i64).wrapping_neg()),
        _ => {
            env.raised = before;
            env.raise(IE)?;
            Ok((limit as i64).wrapping_neg())
        }
    }
}

/// FBLD: 18 packed decimal digits and a sign.
pub fn from_bcd(bits: u128) -> F80 {
    let magnitude = (0..18).rev().fold(0, |m, digit| m * 10 + (bits >> (4 * digit) & 15) as u64);
    from_magnitude(bits >> 79 & 1 != 0, magnitude)
}

/// The packed BCD integer indefinite.
pub const BCD_INDEFINITE: u128 = 0xffff_c000 << 48;

/// FBSTP.
pub fn to_bcd(env: &mut Env, x: F80) -> Outcome<u128> {
    let before = env.raised;
    match to_magnitude(env, x, false) {
        Some((negative, m)) if m < 10u64.pow(18) => {
            let digits = (0..18).fold((0, m), |(bcd, rest), digit| {
                (bcd | u128::from(rest % 10) << (4 * digit), rest / 10)
            });
            Ok(digits.0 | u128::from(negative) << 79)
        }
        _ => {
            env.raised = before;
            env.raise(IE)?;
            Ok(BCD_INDEFINITE)
        }
    }
}
