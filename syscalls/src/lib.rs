//! The x86_64 Linux system-call interface on an arm64 kernel.

pub mod alloc;
pub mod host;
pub mod memmap;
