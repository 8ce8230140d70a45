//! ptrace(2). The registers and the code that a tracer would see are the host's, so that nobody traces through it: a
//! program that asks is told that it may not, and the log says why.

use std::sync::Once;

use crate::abi::errno;
use crate::host::SysResult;
use crate::log;
use crate::table::host as nr;
use crate::task::Task;

const TRACEME: u64 = 0;
const ATTACH: u64 = 16;
const SEIZE: u64 = 0x4206;
/// Flags of PTRACE_SEIZE: PTRACE_O_EXITKILL, PTRACE_O_SUSPEND_SECCOMP, and those below.
const OPTIONS: u64 = 0xff | 1 << 20 | 1 << 21;

/// ptrace(2)
pub fn ptrace(task: &mut Task, [request, pid, addr, data, ..]: [u64; 6]) -> SysResult {
    if request != TRACEME {
        // Any thread is named.
        let exists = task.host_call(nr::tkill, [pid as i32 as u64, 0, 0, 0, 0, 0]);
        match (request, exists) {
            (_, Err(errno::ESRCH | errno::EINVAL)) => return Err(errno::ESRCH),
            (SEIZE, _) if addr != 0 || data & !OPTIONS != 0 => return Err(errno::EIO),
            (ATTACH | SEIZE, _) => {}
            // Nobody is traced by this process.
            _ => return Err(errno::ESRCH),
        }
    }
    static SAID: Once = Once::new();
    SAID.call_once(|| {
        log::warn(format_args!("translated programs cannot be traced (ptrace): EPERM"))
    });
    Err(errno::EPERM)
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "aarch64")]
    #[test]
    fn nobody_is_traced() {
        use super::*;
        let mut task = Task::for_test();
        let mut ptrace = |request, pid, addr| ptrace(&mut task, [request, pid, addr, 0, 0, 0]);
        let own = u64::from(std::process::id());
        assert_eq!(ptrace(TRACEME, 0, 0), Err(errno::EPERM));
        assert_eq!(ptrace(ATTACH, own, 0), Err(errno::EPERM));
        assert_eq!(ptrace(SEIZE, own, 1), Err(errno::EIO));
        assert_eq!(ptrace(12, own, 0), Err(errno::ESRCH));
        assert_eq!(ptrace(ATTACH, 0x3fff_ffff, 0), Err(errno::ESRCH));
    }
}
