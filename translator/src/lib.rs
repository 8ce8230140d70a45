//! x86_64 code in, arm64 code out: decoding, regions, analysis, lowering and the translation cache.
//!
//! This crate knows nothing of Linux, ELF or system calls.

// The expansion of dynasm! converts register numbers, whatever their type.
#![allow(clippy::useless_conversion)]

pub mod arena;
pub mod asm;
pub mod cache;
pub mod cpuid;
pub mod decode;
pub mod detours;
pub mod dump;
mod effects;
pub mod engine;
pub mod facts;
pub mod fault_access;
pub mod fault_flags;
pub mod flags;
pub mod guest_memory;
pub mod helpers;
pub mod interpret;
pub mod lower;
pub mod mxcsr;
pub mod profile;
pub mod region;
pub mod relocation;
pub mod repeat;
pub mod segments;
pub mod split;
pub mod state;
pub mod tramp;
pub mod vector;
pub mod x87;
