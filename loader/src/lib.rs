//! The `demotic` command: loads an x86_64 ELF program, builds what Linux gives a new program
//! (stack, auxiliary vector, vDSO) and hands over to the run time.

pub mod cli;
pub mod elf;
pub mod error;
pub mod host_features;
pub mod load;
pub mod stack;
pub mod start;
pub mod vdso;
