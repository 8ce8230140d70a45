//! The instructions of Demotic against a real x86_64 processor: the same test programs run natively,
//! which is recorded, and translated, and registers, flags, memory and faults must agree.

pub mod address;
pub mod case;
pub mod check;
pub mod compare;
pub mod deep;
pub mod docs;
pub mod executor;
pub mod forms;
#[cfg(target_arch = "x86_64")]
pub mod native;
pub mod operands;
pub mod record;
pub mod rng;
pub mod segments;
pub mod sequence;
pub mod show;
pub mod state;
#[cfg(target_arch = "aarch64")]
pub mod translated;
pub mod undefined;
