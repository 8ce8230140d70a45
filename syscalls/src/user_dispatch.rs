//! System calls that a program answers itself (Documentation/admin-guide/syscall-user-dispatch.rst in Linux): outside of
//! a range of code they raise SIGSYS, while a byte of the program's says so. Wine runs other systems' programs with it.

use crate::abi::errno;
use crate::guest;
use crate::host::{Errno, SysResult};
use crate::interrupt::SigInfo;
use crate::seccomp::{self, AUDIT_ARCH_X86_64};
use crate::signal;
use crate::task::Task;

/// What prctl(PR_SET_SYSCALL_USER_DISPATCH) has set up for a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dispatch {
    /// The thread: a forked child begins without, as do threads and executed programs.
    tid: i32,
    /// Code whose system calls are the kernel's; the range may wrap around.
    start: u64,
    len: u64,
    /// Where the byte is; without one every call is the program's.
    selector: u64,
}

impl Dispatch {
    /// By the arguments of prctl(2); none to switch it off (task_set_syscall_user_dispatch).
    fn new(tid: i32, [mode, start, len, selector]: [u64; 4]) -> Result<Option<Self>, Errno> {
        const OFF: u64 = 0;
        const EXCLUSIVE_ON: u64 = 1;
        const INCLUSIVE_ON: u64 = 2;
        let is_empty = start.wrapping_add(len) <= start;
        let (start, len) = match mode {
            OFF if start | len | selector != 0 => return Err(errno::EINVAL),
            OFF => return Ok(None),
            EXCLUSIVE_ON if start != 0 && is_empty => return Err(errno::EINVAL),
            EXCLUSIVE_ON => (start, len),
            INCLUSIVE_ON if len == 0 || is_empty => return Err(errno::EINVAL),
            INCLUSIVE_ON => (start.wrapping_add(len), len.wrapping_neg()),
            _ => return Err(errno::EINVAL),
        };
        if selector != guest::for_kernel(selector) {
            return Err(errno::EFAULT);
        }
        Ok(Some(Self { tid, start, len, selector }))
    }

    fn is_excepted(&self, rip: u64) -> bool {
        rip.wrapping_sub(self.start) < self.len
    }
}

/// prctl(PR_SET_SYSCALL_USER_DISPATCH)
pub fn set(task: &mut Task, args: [u64; 4]) -> SysResult {
    task.dispatch = Dispatch::new(task.tid, args)?;
    Ok(0)
}

/// Whether a system call is to be carried out; else the thread has a signal. (syscall_user_dispatch in
/// kernel/entry/syscall_user_dispatch.c.)
pub(crate) fn admits(task: &mut Task, dispatch: Dispatch, number: u64, args: &[u64; 6]) -> bool {
    const ALLOW: u8 = 0;
    const BLOCK: u8 = 1;
    let rip = task.cpu.rip;
    if dispatch.tid != task.tid {
        task.dispatch = None;
        return true;
    }
    if dispatch.is_excepted(rip) || seccomp::made_by_vdso(task, number as i32, args) {
        return true;
    }
    if dispatch.selector != 0 {
        match guest::read::<u8>(dispatch.selector) {
            Ok(ALLOW) => return true,
            Ok(BLOCK) => {}
            Ok(_) => signal::die(libc::SIGSYS),
            Err(_) => signal::die(libc::SIGSEGV),
        }
    }
    signal::force(task, &signal_of(rip, number as i32));
    false
}

/// The SIGSYS of a call, for its handler.
fn signal_of(rip: u64, number: i32) -> SigInfo {
    const SYS_USER_DISPATCH: i32 = 2;
    let mut info = SigInfo::new(libc::SIGSYS, SYS_USER_DISPATCH).with_addr(rip);
    info.0[24..28].copy_from_slice(&number.to_ne_bytes());
    info.0[28..32].copy_from_slice(&AUDIT_ARCH_X86_64.to_ne_bytes());
    info
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_checked_as_the_kernel_does() {
        let new = |args| Dispatch::new(7, args);
        assert_eq!(new([0, 0, 0, 0]), Ok(None));
        assert_eq!(new([0, 0, 0, 1]), Err(errno::EINVAL));
        assert_eq!(new([1, 5, 0, 0]), Err(errno::EINVAL));
        assert_eq!(new([1, 5, u64::MAX, 0]), Err(errno::EINVAL));
        assert_eq!(new([2, 0, 0, 0]), Err(errno::EINVAL));
        assert_eq!(new([3, 0, 0, 0]), Err(errno::EINVAL));
        assert_eq!(new([1, 0, 0, 1 << 47]), Err(errno::EFAULT));
        let nothing = new([1, 0, 0, 0]).unwrap().unwrap();
        assert!(!nothing.is_excepted(0) && !nothing.is_excepted(0x1000));
        let range = new([1, 0x1000, 0x10, 0]).unwrap().unwrap();
        assert_eq!(
            [0xfff, 0x1000, 0x100f, 0x1010].map(|rip| range.is_excepted(rip)),
            [false, true, true, false]
        );
        let others = new([2, 0x1000, 0x10, 0]).unwrap().unwrap();
        assert_eq!(
            [0xfff, 0x1000, 0x100f, 0x1010].map(|rip| others.is_excepted(rip)),
            [true, false, false, true]
        );
    }

    #[test]
    fn a_call_is_the_programs_while_its_byte_says_so() {
        let mut task = Task::for_test();
        let selector = 0u8;
        set(&mut task, [1, 0x1000, 0x10, &raw const selector as u64]).unwrap();
        task.cpu.rip = 0x2000;
        let dispatch = task.dispatch.unwrap();
        task.tid += 1;
        assert!(admits(&mut task, dispatch, 39, &[0; 6]));
        assert_eq!(task.dispatch, None);
        let info = signal_of(0x2000, 39);
        assert_eq!((info.signo(), info.code(), info.addr()), (31, 2, 0x2000));
        assert_eq!(info.0[24..32], [39, 0, 0, 0, 0x3e, 0, 0, 0xc0]);
    }
}
