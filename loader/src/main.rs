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

/// Called by the C library to learn the folder that the program is in, for the shared objects of a static program,
/// which has none: the folder is not known. The library's own reads /proc/self/exe, and aborts on a relative path,
/// which qemu-user shows when the program lies outside of the root directory.
// SAFETY: replaces the function of that name of the C library, which has this signature, and -1 is its way to say so.
#[cfg(target_env = "gnu")]
#[unsafe(no_mangle)]
extern "C" fn _dl_get_origin() -> *const c_char {
    std::ptr::without_provenance(usize::MAX)
}
