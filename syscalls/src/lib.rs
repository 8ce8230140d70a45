//! The x86_64 Linux system-call interface on an arm64 kernel.

pub mod abi;
pub mod alloc;
pub mod clone;
pub mod fds;
pub mod guest;
pub mod host;
pub mod interrupt;
pub mod log;
pub mod memmap;
pub mod memory;
pub mod misc;
pub mod process;
pub mod runtime;
pub mod sigframe;
pub mod signal;
pub mod table;
pub mod task;
pub mod thread;
