//! Comparison, test and examination.

use super::f80::status::{C0, C2, C3, IE};
use super::f80::{Class, Env, F80};
use std::cmp::Ordering;

/// How two operands relate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Relation {
    Greater,
    Less,
    Equal,
    Unordered,
}

impl Relation {
    /// The relation as condition codes C3, C2, C0 (SDM vol. 1, table 8-6).
    pub fn condition_codes(self) -> u16 {
        match self {
            Self::Greater => 0,
            Self::Less => C0,
            Self::Equal => C3,
            Self::Unordered => C0 | C2 | C3,
        }
    }
}

/// Compares `a` with `b`; a quiet NaN is an invalid operand unless `quiet`. There is a relation
/// even when an unmasked exception is raised.
pub fn compare(env: &mut Env, a: F80, b: F80, quiet: bool) -> Relation {
    let invalid = |x: F80| match x.class() {
        Class::Unsupported | Class::Signalling => true,
        Class::Quiet => !quiet,
        _ => false,
    };
    if invalid(a) || invalid(b) {
        env.raised |= IE;
        return Relation::Unordered;
    }
    if a.is_nan() || b.is_nan() {
        return Relation::Unordered;
    }
    let _ = env.check_denormal(&[a, b]);
    match order_key(a).cmp(&order_key(b)) {
        Ordering::Less => Relation::Less,
        Ordering::Equal => Relation::Equal,
        Ordering::Greater => Relation::Greater,
    }
}

/// An integer that orders as the values do. A pseudo-denormal has the exponent of its value.
fn order_key(x: F80) -> i128 {
    let exp = if x.exp() == 0 && x.significand >> 63 != 0 { 1 } else { x.exp() };
    let magnitude = i128::from(exp) << 64 | i128::from(x.significand);
    if x.negative() { -magnitude } else { magnitude }
}

/// FXAM's class of a register's content as C3, C2, C0 (SDM vol. 2, FXAM); `None` is empty.
pub fn examine(x: Option<F80>) -> u16 {
    match x.map(F80::class) {
        Some(Class::Unsupported) => 0,
        Some(Class::Quiet | Class::Signalling) => C0,
        Some(Class::Normal) => C2,
        Some(Class::Infinity) => C2 | C0,
        Some(Class::Zero) => C3,
        None => C3 | C0,
        Some(Class::Denormal) => C3 | C2,
    }
}
