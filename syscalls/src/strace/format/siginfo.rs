//! `siginfo_t`, by what the signal and its code say is in it (sigaction(2)); the same on both architectures.

use super::*;
use crate::interrupt::SigInfo;

const SI_USER: i32 = 0;
const SI_TIMER: i32 = -2;
const SI_TKILL: i32 = -6;

/// The members that are there.
pub fn text(info: &SigInfo) -> String {
    let (signo, code) = (info.signo(), info.code());
    let int = |at: usize| i32::from_ne_bytes([0, 1, 2, 3].map(|i| info.0[at + i]));
    let long = |at: usize| u64::from_ne_bytes([0, 1, 2, 3, 4, 5, 6, 7].map(|i| info.0[at + i]));
    let mut text = format!(
        "{{si_signo={}, si_code={}",
        signal(signo as u64),
        plain(names::signals::codes(signo), code as u64)
    );
    let sender = || format!(", si_pid={}, si_uid={}", int(16), int(20) as u32);
    let value = || match long(24) {
        0 => String::new(),
        value => format!(", si_int={}, si_ptr={value:#x}", int(24)),
    };
    text += &match (signo, code) {
        (_, SI_USER | SI_TKILL) => sender(),
        (_, SI_TIMER) => {
            format!(", si_timerid={:#x}, si_overrun={}{}", int(16), int(20), value())
        }
        (_, ..SI_USER) => format!("{}{}", sender(), value()),
        (libc::SIGCHLD, _) => format!(
            "{}, si_status={}, si_utime={}, si_stime={}",
            sender(),
            status(code, int(24)),
            long(32),
            long(40)
        ),
        (libc::SIGILL | libc::SIGFPE | libc::SIGSEGV | libc::SIGBUS | libc::SIGTRAP, _) => {
            format!(", si_addr={}", pointer(info.addr()))
        }
        (libc::SIGIO, _) => format!(", si_band={}, si_fd={}", long(16), int(24)),
        (libc::SIGSYS, _) => {
            let number = int(24) as u32;
            let name = crate::table::lookup(number)
                .map_or_else(|| format!("{number:#x}"), |call| format!("__NR_{}", call.name));
            format!(
                ", si_call_addr={}, si_syscall={name}, si_arch={:#x}",
                pointer(long(16)),
                int(28)
            )
        }
        _ => String::new(),
    };
    text + "}"
}

/// `si_status`: an exit status, or the signal that changed the child.
fn status(code: i32, status: i32) -> String {
    const CLD_EXITED: i32 = 1;
    if code == CLD_EXITED { status.to_string() } else { signal(status as u64) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(signo: i32, code: i32, words: &[(usize, i32)]) -> String {
        let mut info = SigInfo::new(signo, code);
        for &(at, word) in words {
            info.0[at..at + 4].copy_from_slice(&word.to_ne_bytes());
        }
        text(&info)
    }

    #[test]
    fn members_depend_on_signal_and_code() {
        assert_eq!(info(11, 1, &[]), "{si_signo=SIGSEGV, si_code=SEGV_MAPERR, si_addr=NULL}");
        assert_eq!(
            info(10, 0, &[(16, 7), (20, 8)]),
            "{si_signo=SIGUSR1, si_code=SI_USER, si_pid=7, si_uid=8}"
        );
        assert_eq!(
            info(17, 1, &[(16, 7), (24, 3)]),
            "{si_signo=SIGCHLD, si_code=CLD_EXITED, si_pid=7, si_uid=0, si_status=3, si_utime=0, si_stime=0}"
        );
        assert_eq!(
            info(17, 2, &[(16, 7), (24, 9)]),
            "{si_signo=SIGCHLD, si_code=CLD_KILLED, si_pid=7, si_uid=0, si_status=SIGKILL, si_utime=0, si_stime=0}"
        );
        assert_eq!(
            info(34, -1, &[(16, 7), (24, 5)]),
            "{si_signo=SIGRT_2, si_code=SI_QUEUE, si_pid=7, si_uid=0, si_int=5, si_ptr=0x5}"
        );
        assert_eq!(
            info(31, 1, &[(16, 0x1000), (24, 39), (28, 0x3e)]),
            "{si_signo=SIGSYS, si_code=SYS_SECCOMP, si_call_addr=0x1000, si_syscall=__NR_getpid, si_arch=0x3e}"
        );
    }
}
