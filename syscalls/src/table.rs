//! The system calls that the run-time half makes and answers.

use crate::abi::errno;
use crate::host::SysResult;
use crate::task::Task;
use crate::{clone, memory, misc, signal, thread};

/// arm64 system call numbers.
#[allow(non_upper_case_globals, missing_docs)]
pub mod host {
    pub const exit: u64 = 93;
    pub const exit_group: u64 = 94;
    pub const tgkill: u64 = 131;
    pub const sigaltstack: u64 = 132;
    pub const rt_sigsuspend: u64 = 133;
    pub const rt_sigaction: u64 = 134;
    pub const rt_sigprocmask: u64 = 135;
    pub const rt_sigpending: u64 = 136;
    pub const rt_sigtimedwait: u64 = 137;
    pub const prctl: u64 = 167;
    pub const getpid: u64 = 172;
    pub const gettid: u64 = 178;
    pub const shmctl: u64 = 195;
    pub const msync: u64 = 227;
    pub const mlock: u64 = 228;
    pub const munlock: u64 = 229;
    pub const mincore: u64 = 232;
    pub const mlock2: u64 = 284;
    pub const clone: u64 = 220;
    pub const clone3: u64 = 435;
    pub const rt_tgsigqueueinfo: u64 = 240;
}

/// Makes the system call with the number and the arguments in the guest's registers.
pub fn dispatch(task: &mut Task, number: u64, args: [u64; 6]) -> SysResult {
    let host = match number {
        0 => 63,
        1 => 64,
        3 => 57,
        8 => 62,
        9 => return memory::mmap(task, args),
        10 => return memory::mprotect(task, args),
        11 => return memory::munmap(task, args),
        12 => return memory::brk(task, args),
        13 => return signal::rt_sigaction(task, args),
        14 => return signal::rt_sigprocmask(task, args),
        15 => return signal::rt_sigreturn(task, args),
        16 => 29,
        17 => 67,
        19 => 65,
        20 => 66,
        35 => 101,
        39 => 172,
        25 => return memory::mremap(task, args),
        28 => return memory::madvise(task, args),
        56 => return clone::clone(task, args),
        57 => return clone::fork(task, args),
        58 => return clone::vfork(task, args),
        61 => 260,
        435 => return clone::clone3(task, args),
        60 => return thread::exit(task, args),
        63 => 160,
        89 => return Err(errno::ENOENT),
        96 => 169,
        131 => return signal::sigaltstack(task, args),
        130 => return signal::rt_sigsuspend(task, args),
        157 => 167,
        158 => return misc::arch_prctl(task, args),
        186 => 178,
        200 => 130,
        202 => 98,
        218 => 96,
        228 => 113,
        231 => return thread::exit_group(task, args),
        234 => 131,
        273 => 99,
        302 => 261,
        318 => 278,
        _ => return Err(errno::ENOSYS),
    };
    task.host_call(host, args)
}
