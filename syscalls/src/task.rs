//! A guest thread.

use translator::state::CpuState;

use crate::host::{self, SysResult};

/// One guest thread: its processor state and what the kernel knows it by.
pub struct Task {
    /// The processor state.
    pub cpu: Box<CpuState>,
    /// Thread number, the host thread's.
    pub tid: i32,
}

impl Task {
    /// A thread with the given number and a fresh processor.
    pub fn new(tid: i32) -> Self {
        Self {
            cpu: CpuState::new(),
            tid,
        }
    }

    /// Makes an arm64 system call for the guest.
    pub fn host_call(&mut self, number: u64, args: [u64; 6]) -> SysResult {
        // SAFETY: what the call does, the guest asked for, or a handler of this crate with memory of its own.
        host::result(unsafe { host::syscall(number, args) })
    }
}
