//! The `demotic` command: loads an x86_64 ELF program, builds what Linux gives a new program
//! (stack, auxiliary vector, vDSO) and hands over to the run time; registers Demotic with the kernel, and
//! says what the machine has.

pub mod binfmt;
mod calls;
pub mod cli;
pub mod doctor;
pub mod elf;
pub mod error;
pub mod executable;
pub mod host_features;
pub mod load;
pub mod register;
pub mod stack;
pub mod start;
pub mod status;
pub mod vdso;
