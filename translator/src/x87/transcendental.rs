//! The transcendental instructions (Intel SDM vol. 1, 8.3.6 to 8.3.10).
//!
//! Each function reduces its operand, sums a power series in 128-bit fixed point and rounds once.
//! The error before rounding is below 2^-100 of the result, so that the result is off the true
//! value by hardly more than half a unit in the last place. Except in the cases that are told
//! apart, no result is a number of the format, so the last bit of what is rounded is always set.

use super::arith::quotient;
use super::f80::status::{PE, UE, ZE};
use super::f80::{BIAS, Class, Env, F80, Format, Number, Outcome};
use super::wide::{Wide, mul_high};

/// Pi with two bits before the point and 126 behind it.
const PI: u128 = 0xc90f_daa2_2168_c234_c4c6_628b_80dc_1cd1;
/// ln 2 with 128 bits behind the point.
const LN_2: u128 = 0xb172_17f7_d1cf_79ab_c9e3_b398_03f2_f6af;
/// 2 / ln 2 with two bits before the point.
const TWO_OVER_LN_2: u128 = 0xb8aa_3b29_5c17_f0bb_be87_fed0_691d_3e88;
/// Pi / 2 as the processor reduces by it: 66 bits of pi, in units of 2^-67 (SDM vol. 1, 8.3.8).
const HALF_PI_66: u128 = 0xc_90fd_aa22_168c_234c;
/// atan(i / 8) with two bits before the point.
const ATAN: [u128; 9] = [
    0x0000_0000_0000_0000_0000_0000_0000_0000,
    0x07f5_6ea6_ab0b_db71_9644_bcc4_f9f4_4477,
    0x0fad_bafc_9640_6eb1_56dc_79ef_5f7a_217e,
    0x16f6_1941_e4de_f08e_7154_6424_5b9f_c890,
    0x1dac_6705_61bb_4f68_adfc_88bd_9787_51a0,
    0x23c0_1757_bdfd_67e6_d720_d785_9971_0dd1,
    0x292f_1f46_4d3d_c249_066a_1fca_915f_6b27,
    0x2e01_4f8a_f08c_679c_f2cb_6954_8429_110f,
    0x3243_f6a8_885a_308d_3131_98a2_e037_0734,
];

/// One with 127 bits behind the point, the format of the series below.
const UNIT: u128 = 1 << 127;

/// Coefficients 1/(first + k * step)!, `first` being 0 or 1.
const fn reciprocal_factorials<const N: usize>(first: u128, step: u128) -> [u128; N] {
    let mut c = [UNIT; N];
    let mut k = 1;
    while k < N {
        let mut n = first + (k as u128 - 1) * step;
        c[k] = c[k - 1];
        while n < first + k as u128 * step {
            n += 1;
            c[k] /= n;
        }
        k += 1;
    }
    c
}

/// Coefficients 1/(2k + 1).
const fn odd_reciprocals<const N: usize>() -> [u128; N] {
    let mut c = [UNIT; N];
    let mut k = 1;
    while k < N {
        c[k] = UNIT / (2 * k as u128 + 1);
        k += 1;
    }
    c
}

/// (e^t - 1) / t = sum of t^k / (k + 1)!, for t up to ln 2.
const EXPM1: [u128; 28] = reciprocal_factorials(1, 1);
/// sin(x) / x = sum of (-x^2)^k / (2k + 1)!, for x up to pi / 4.
const SIN: [u128; 15] = reciprocal_factorials(1, 2);
/// cos(x) = sum of (-x^2)^k / (2k)!, for x up to pi / 4.
const COS: [u128; 16] = reciprocal_factorials(0, 2);
/// atan(t) / t = sum of (-t^2)^k / (2k + 1), for t up to 1/16.
const ARC: [u128; 14] = odd_reciprocals();
/// atanh(s) / s = sum of (s^2)^k / (2k + 1), for s up to 0.172.
const AREA: [u128; 22] = odd_reciprocals();

/// The series with the given coefficients at `z` (128 bits behind the point), signs alternating
/// or not. An alternating one stays below one even where the next term is lost.
fn series(coefficients: &[u128], z: u128, alternating: bool) -> Wide {
    let sum = coefficients.iter().rev().fold(0, |sum, &c| {
        let rest = mul_high(z, sum);
        if alternating { c - rest } else { c + rest }
    });
    let sum = if alternating { sum.min(UNIT - 1) } else { sum };
    Wide::from_fixed(sum, 127)
}

/// The square of a magnitude below one, with 128 bits behind the point.
fn square(x: Wide) -> u128 {
    let fixed = x.to_fixed(128);
    mul_high(fixed, fixed)
}

/// Delivers a result that is not exact.
fn round(env: &mut Env, x: Wide) -> Outcome<F80> {
    env.round_f80(x.negative, x.exp, x.significand | 1, Format::EXTENDED)
}

/// A multiple of pi/4, rounded.
fn pi_quarters(env: &mut Env, negative: bool, quarters: u128) -> Outcome<F80> {
    round(env, Wide::from_fixed(PI / 4 * quarters, 126).negate_if(negative))
}

/// F2XM1: 2^x - 1 for -1 <= x <= 1. Outside that range the manual leaves the result open; a
/// processor then hands the operand back.
pub fn f2xm1(env: &mut Env, a: F80) -> Outcome<F80> {
    if let Some(nan) = env.nan_result(&[a])? {
        return Ok(nan);
    }
    let minus_one = F80::ONE.negate();
    if a.is_infinity() {
        return Ok(if a.negative() { minus_one } else { a });
    }
    env.check_denormal(&[a])?;
    let x = match a.number() {
        None => return Ok(a),
        Some(x) if x.exp < 0 => x,
        // The processor calls even the results inexact that are not.
        Some(_) => {
            env.raised |= PE;
            return Ok(if a == minus_one { F80::new(true, BIAS as u16 - 1, 1 << 63) } else { a });
        }
    };
    let t = Wide::from(x).mul(Wide::from_fixed(LN_2, 128));
    round(env, t.mul(series(&EXPM1, t.to_fixed(128), x.negative)))
}

/// Whether FSIN, FCOS, FSINCOS and FPTAN refuse an operand: 2^63 and beyond.
pub fn out_of_range(a: F80) -> bool {
    a.class() == Class::Normal && i32::from(a.exp()) >= BIAS + 63
}

/// An operand of a circular function as `(-1)^negative * (quadrant * pi/2 + rest)`, with
/// |rest| <= pi/4.
struct Angle {
    negative: bool,
    quadrant: u32,
    rest: Wide,
}

impl Angle {
    fn new(x: Number) -> Self {
        let mut angle = Self {
            negative: x.negative,
            quadrant: 0,
            rest: Wide::from(Number { negative: false, ..x }),
        };
        if x.exp < -1 {
            return angle;
        }
        // |x| in units of 2^-67 is the significand shifted by up to 66 bits.
        let mut left = (x.exp + 4) as u32;
        let mut rest = u128::from(x.significand);
        while left > 0 {
            let step = left.min(59);
            rest <<= step;
            angle.quadrant =
                angle.quadrant.checked_shl(step).unwrap_or(0) | (rest / HALF_PI_66) as u32;
            rest %= HALF_PI_66;
            left -= step;
        }
        let above = rest > HALF_PI_66 / 2;
        if above {
            rest = HALF_PI_66 - rest;
            angle.quadrant = angle.quadrant.wrapping_add(1);
        }
        angle.quadrant &= 3;
        angle.rest = Wide::from_fixed(rest, 67).negate_if(above);
        angle
    }

    fn sin(&self) -> Wide {
        self.sin_at(self.quadrant).negate_if(self.negative)
    }

    fn cos(&self) -> Wide {
        self.sin_at(self.quadrant + 1)
    }

    /// sin(quadrant * pi/2 + rest).
    fn sin_at(&self, quadrant: u32) -> Wide {
        let z = square(self.rest);
        let magnitude = match quadrant & 1 {
            0 => self.rest.mul(series(&SIN, z, true)),
            _ => series(&COS, z, true),
        };
        magnitude.negate_if(quadrant & 2 != 0)
    }
}

/// The operand of a circular function, or the result of one that needs no computation.
fn angle(env: &mut Env, a: F80, at_zero: F80) -> Outcome<Result<Angle, F80>> {
    if let Some(nan) = env.nan_result(&[a])? {
        return Ok(Err(nan));
    }
    if a.is_infinity() {
        return Ok(Err(env.invalid()?));
    }
    env.check_denormal(&[a])?;
    Ok(a.number().map(Angle::new).ok_or(at_zero))
}

/// FSIN of an operand in range.
pub fn sin(env: &mut Env, a: F80) -> Outcome<F80> {
    match angle(env, a, a)? {
        Ok(angle) => round(env, angle.sin()),
        Err(result) => Ok(result),
    }
}

/// FCOS of an operand in range.
pub fn cos(env: &mut Env, a: F80) -> Outcome<F80> {
    match angle(env, a, F80::ONE)? {
        Ok(angle) => round(env, angle.cos()),
        Err(result) => Ok(result),
    }
}

/// FSINCOS of an operand in range: sine and cosine.
pub fn sin_cos(env: &mut Env, a: F80) -> Outcome<(F80, F80)> {
    match angle(env, a, a)? {
        Ok(angle) => Ok((round(env, angle.sin())?, round(env, angle.cos())?)),
        Err(zero) if zero.is_zero() => Ok((zero, F80::ONE)),
        Err(nan) => Ok((nan, nan)),
    }
}

/// FPTAN of an operand in range: the tangent, and one.
pub fn tan(env: &mut Env, a: F80) -> Outcome<(F80, F80)> {
    match angle(env, a, a)? {
        // The next term of the series is too small to be seen in a quotient, but must not be
        // lost in the rounding: the tangent is larger than the angle.
        Ok(angle) if angle.rest.exp < -60 && angle.quadrant == 0 => {
            Ok((round(env, angle.rest.negate_if(angle.negative))?, F80::ONE))
        }
        Ok(angle) => Ok((round(env, angle.sin().div(angle.cos()))?, F80::ONE)),
        Err(zero) if zero.is_zero() => Ok((zero, F80::ONE)),
        Err(nan) => Ok((nan, nan)),
    }
}

/// atan of a magnitude up to one.
fn atan(q: Wide) -> Wide {
    let direct = |t: Wide| t.mul(series(&ARC, square(t), true));
    if q.exp < -4 {
        return direct(q);
    }
    // atan(q) = atan(c) + atan((q - c) / (1 + q c)) for the nearest c = i / 8.
    let fixed = q.to_fixed(126);
    let i = (fixed + (1 << 122)) >> 123;
    let (base, c) = (ATAN[i as usize], i << 123);
    if fixed == c {
        return Wide::from_fixed(base, 126);
    }
    let numerator = Wide::from_fixed(fixed.abs_diff(c), 126);
    let denominator = Wide::from_fixed((1 << 126) + (fixed / 8) * i, 126);
    let rest = direct(numerator.div(denominator)).to_fixed(126);
    Wide::from_fixed(if fixed > c { base + rest } else { base - rest }, 126)
}

/// FPATAN: the angle of the point (x, y).
pub fn fpatan(env: &mut Env, y: F80, x: F80) -> Outcome<F80> {
    if let Some(nan) = env.nan_result(&[y, x])? {
        return Ok(nan);
    }
    env.check_denormal(&[y, x])?;
    let (negative, left) = (y.negative(), x.negative());
    let quarters = match (y.is_infinity(), x.is_infinity()) {
        (true, true) => Some(if left { 3 } else { 1 }),
        (true, false) => Some(2),
        (false, true) => Some(if left { 4 } else { 0 }),
        (false, false) if y.is_zero() => Some(if left { 4 } else { 0 }),
        (false, false) if x.is_zero() => Some(2),
        (false, false) => None,
    };
    let (n, d) = match (quarters, y.number(), x.number()) {
        (None, Some(n), Some(d)) => (n, d),
        (Some(0), ..) => return Ok(F80::zero(negative)),
        _ => return pi_quarters(env, negative, quarters.unwrap_or(2)),
    };
    let steep = (n.exp, n.significand) > (d.exp, d.significand);
    let (exp, significand) = if steep { quotient(d, n) } else { quotient(n, d) };
    let acute = atan(Wide { negative: false, exp, significand });
    let angle = match (steep, left) {
        (false, false) => acute,
        (false, true) => Wide::from_fixed(PI - acute.to_fixed(126), 126),
        (true, false) => Wide::from_fixed(PI / 2 - acute.to_fixed(126), 126),
        (true, true) => Wide::from_fixed(PI / 2 + acute.to_fixed(126), 126),
    };
    round(env, angle.negate_if(negative))
}

/// log2((1 + s) / (1 - s)).
fn log2_from_ratio(s: Wide) -> Wide {
    s.mul(series(&AREA, square(s), false)).mul(Wide::from_fixed(TWO_OVER_LN_2, 126))
}

/// log2 of a positive number other than one.
fn log2(x: Wide) -> Wide {
    const SQRT_2: u128 = 0xb504_f333_f9de_6484 << 64;
    // x = m * 2^e with m between sqrt(1/2) and sqrt(2), to 125 bits behind the point.
    let halve = x.significand >= SQRT_2;
    let e = x.exp + i32::from(halve);
    let m = x.significand >> if halve { 3 } else { 2 };
    const ONE: u128 = 1 << 125;
    if m == ONE {
        return Wide::from_fixed(e.unsigned_abs().into(), 0).negate_if(e < 0);
    }
    let s = Wide::from_fixed(m.abs_diff(ONE), 125).div(Wide::from_fixed(m + ONE, 125));
    let fraction = log2_from_ratio(s).negate_if(m < ONE);
    if e == 0 {
        return fraction;
    }
    // |e| < 2^15 and |fraction| <= 1/2.
    let whole = u128::from(e.unsigned_abs()) << 112;
    let part = fraction.to_fixed(112);
    let same = fraction.negative == (e < 0);
    Wide::from_fixed(if same { whole + part } else { whole - part }, 112).negate_if(e < 0)
}

/// Delivers `y * log2(x)`, given the logarithm and whether it is exact; the processor calls the
/// result inexact even then.
fn round_product(env: &mut Env, y: Number, log: Wide, exact: bool) -> Outcome<F80> {
    let product = Wide::from(y).mul(log);
    let significand = product.significand | u128::from(!exact);
    let result = env.round_f80(product.negative, product.exp, significand, Format::EXTENDED)?;
    env.raised |= if result.class() == Class::Denormal { UE | PE } else { PE };
    Ok(result)
}

/// FYL2X: `y * log2(x)`.
pub fn fyl2x(env: &mut Env, y: F80, x: F80) -> Outcome<F80> {
    if let Some(nan) = env.nan_result(&[y, x])? {
        return Ok(nan);
    }
    if x.negative() && !x.is_zero() {
        return env.invalid();
    }
    let (undefined, log_negative) = match () {
        _ if x.is_zero() => (y.is_zero(), true),
        _ if x.is_infinity() => (y.is_zero(), false),
        _ if x == F80::ONE => (y.is_infinity(), false),
        _ => (false, x.exp() < BIAS as u16),
    };
    if undefined {
        return env.invalid();
    }
    let negative = y.negative() != log_negative;
    if x.is_zero() && !y.is_infinity() {
        env.raise(ZE)?;
        return Ok(F80::infinity(negative));
    }
    env.check_denormal(&[y, x])?;
    let n = match x.number() {
        Some(n) if !x.is_infinity() && !y.is_infinity() => n,
        _ => return Ok(F80::infinity(negative)),
    };
    match y.number() {
        Some(y) if x != F80::ONE => round_product(env, y, log2(n.into()), n.significand == 1 << 63),
        _ => Ok(F80::zero(negative)),
    }
}

/// FYL2XP1: `y * log2(x + 1)`. The manual defines it for |x| up to 1 - sqrt(1/2); a processor goes
/// on with larger ones, but hands `x` back from -1 down.
pub fn fyl2xp1(env: &mut Env, y: F80, x: F80) -> Outcome<F80> {
    if let Some(nan) = env.nan_result(&[y, x])? {
        return Ok(nan);
    }
    let product_undefined = x.is_infinity() && y.is_zero() || x.is_zero() && y.is_infinity();
    if product_undefined || x.is_infinity() && x.negative() {
        return env.invalid();
    }
    env.check_denormal(&[y, x])?;
    let negative = y.negative() != x.negative();
    if y.is_infinity() || x.is_infinity() {
        return Ok(F80::infinity(negative));
    }
    let (Some(y), Some(n)) = (y.number(), x.number()) else {
        return Ok(F80::zero(negative));
    };
    if n.negative && n.exp >= 0 {
        env.raised |= PE;
        return Ok(x);
    }
    if n.exp < -1 {
        // log2(1 + x) with s = x / (2 + x).
        let x = Wide::from(n);
        let fixed = x.to_fixed(126);
        let two_plus = if n.negative { (2 << 126) - fixed } else { (2 << 126) + fixed };
        let log = log2_from_ratio(x.div(Wide::from_fixed(two_plus, 126)));
        return round_product(env, y, log, false);
    }
    let sum = one_plus(n);
    round_product(env, y, log2(sum), sum.significand == 1 << 127)
}

/// `1 + x` for `x` between -1 and -1/2 or from 1/2 up.
fn one_plus(x: Number) -> Wide {
    if x.exp > 61 {
        return x.into();
    }
    let fixed = Wide::from(x).to_fixed(64);
    Wide::from_fixed(if x.negative { (1 << 64) - fixed } else { (1 << 64) + fixed }, 64)
}
