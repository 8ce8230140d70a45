//! The `demotic` command.
//!
//! `main` is C's, so that the standard library's start-up does not run: it would ignore SIGPIPE, open
//! closed standard descriptors and install a SIGSEGV handler, all of which the program would see.
#![no_main]

use std::ffi::{c_char, c_int};

#[global_allocator]
static ALLOCATOR: syscalls::alloc::Allocator = syscalls::alloc::Allocator::new();

/// Called by the C library.
// SAFETY: no other symbol has this name, and the signature is the one the C library expects.
#[unsafe(no_mangle)]
extern "C" fn main(_argc: c_int, _argv: *const *const c_char) -> c_int {
    loader::start::main()
}
