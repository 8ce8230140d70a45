//! x86_64 code in, arm64 code out: decoding, regions, analysis, lowering and the translation cache.
//!
//! This crate knows nothing of Linux, ELF or system calls.

pub mod engine;
pub mod state;
pub mod x87;
