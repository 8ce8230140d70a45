//! Where the x86_64 and the arm64 Linux interfaces differ in layouts and values.

pub mod errno;
