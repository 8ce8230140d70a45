//! The x86_64 Linux system-call interface on an arm64 kernel.

pub mod abi;
pub mod aio;
pub mod alloc;
pub mod clone;
pub mod exe_file;
pub mod exec;
pub mod fds;
pub mod files;
pub mod guest;
pub mod host;
pub mod inherit;
pub mod interrupt;
pub mod io_uring;
pub mod ipc;
pub mod limits;
pub mod log;
pub mod membarrier;
pub mod memmap;
pub mod memory;
pub mod misc;
pub mod paths;
pub mod perf_map;
pub mod pointers;
pub mod poll;
pub mod prctl;
pub mod proc_fs;
pub mod process;
pub mod process_info;
pub mod ptrace;
pub mod runtime;
pub mod seccomp;
pub mod sigframe;
pub mod signal;
pub mod sockets;
pub mod stat;
pub mod strace;
pub mod symbols;
pub mod table;
pub mod task;
pub mod thread;
pub mod time;
pub mod user_dispatch;
pub mod vectors;
pub mod vsyscall;

#[cfg(all(test, target_arch = "aarch64"))]
mod kernel_tests;
