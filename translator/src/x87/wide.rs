//! Numbers of 128 significant bits, in which the transcendental functions are computed before
//! their one rounding. Operations truncate: each is off by a few units of the last bit at most.

use super::f80::Number;

/// `(-1)^negative * significand * 2^(exp - 127)`, the top bit of the significand set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wide {
    pub negative: bool,
    pub exp: i32,
    pub significand: u128,
}

impl From<Number> for Wide {
    fn from(n: Number) -> Self {
        Self { negative: n.negative, exp: n.exp, significand: u128::from(n.significand) << 64 }
    }
}

impl Wide {
    /// `fixed * 2^-fraction_bits`; `fixed` is not zero.
    pub fn from_fixed(fixed: u128, fraction_bits: i32) -> Self {
        let shift = fixed.leading_zeros();
        Self {
            negative: false,
            exp: 127 - fraction_bits - shift as i32,
            significand: fixed << shift,
        }
    }

    /// The magnitude times `2^fraction_bits`, truncated; it must fit.
    pub fn to_fixed(self, fraction_bits: i32) -> u128 {
        let shift = 127 - fraction_bits - self.exp;
        match u32::try_from(shift) {
            Ok(shift) => self.significand.checked_shr(shift).unwrap_or(0),
            Err(_) => self.significand << shift.unsigned_abs(),
        }
    }

    /// The number with its sign changed if `negative`.
    pub fn negate_if(self, negative: bool) -> Self {
        Self { negative: self.negative != negative, ..self }
    }

    /// The product.
    pub fn mul(self, other: Self) -> Self {
        let product = mul_high(self.significand, other.significand);
        let shift = product.leading_zeros();
        Self {
            negative: self.negative != other.negative,
            exp: self.exp + other.exp + 1 - shift as i32,
            significand: product << shift,
        }
    }

    /// The quotient.
    pub fn div(self, other: Self) -> Self {
        let less = self.significand < other.significand;
        // A divisor below 2^127, so that doubling the remainder cannot overflow.
        let divisor = other.significand >> 1;
        let mut rest = if less { self.significand } else { self.significand >> 1 };
        let mut quotient = 0u128;
        for _ in 0..128 {
            quotient <<= 1;
            if rest >= divisor {
                rest -= divisor;
                quotient |= 1;
            }
            rest <<= 1;
        }
        Self {
            negative: self.negative != other.negative,
            exp: self.exp - other.exp - i32::from(less),
            significand: quotient,
        }
    }
}

/// The upper half of a product of 128-bit integers.
pub fn mul_high(a: u128, b: u128) -> u128 {
    const LOW: u128 = u64::MAX as u128;
    let (a1, a0, b1, b0) = (a >> 64, a & LOW, b >> 64, b & LOW);
    let middle = a1 * b0 + ((a0 * b0) >> 64);
    let middle2 = a0 * b1 + (middle & LOW);
    a1 * b1 + (middle >> 64) + (middle2 >> 64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn division_undoes_multiplication(a: u128, b: u128, exp in -9000..9000) {
            let a = Wide { negative: false, exp, significand: a | 1 << 127 };
            let b = Wide { negative: true, exp: 3, significand: b | 1 << 127 };
            let back = a.mul(b).div(b);
            let (x, y) = (a.significand, back.significand);
            prop_assert!(back.exp == a.exp && x.abs_diff(y) < 8
                || (back.exp - a.exp).abs() == 1 && x.abs_diff(y) > u128::MAX / 2 - 8);
        }

        #[test]
        fn high_product_of_word_multiples(a: u64, b: u64) {
            let product = mul_high(u128::from(a) << 64, u128::from(b) << 64);
            prop_assert_eq!(product, u128::from(a) * u128::from(b));
            prop_assert_eq!(mul_high(u128::from(a), u128::from(b) << 64), (u128::from(a) * u128::from(b)) >> 64);
        }
    }
}
