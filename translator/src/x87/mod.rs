//! The x87 floating-point unit in software (Intel SDM vol. 1, chapter 8).
//!
//! arm64 has no 80-bit arithmetic, so every result here comes from integer arithmetic:
//! the value and the exception flags are those of a real processor, bit for bit, except for
//! the transcendental functions, which are correct to well within one unit in the last place.

mod arith;
mod compare;
mod convert;
mod f80;
pub mod helpers;
pub mod image;
pub mod ops;
mod remainder;
mod scale;
mod transcendental;
mod wide;

pub use f80::F80;

#[cfg(all(test, target_arch = "x86_64"))]
mod native_tests;
