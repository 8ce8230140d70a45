//! personality(2). The kernel keeps the word for each thread, over fork(2) and execve(2) alike, and bits that it does
//! not know as well. The translator keeps in two of those what the guest is to find again after an execve(2) and the
//! host's kernel does not know of, or has no room for.

use crate::abi::errno;
use crate::host::{self, Errno, SysResult};
use crate::log;
use crate::memmap::{EXEC, READ};
use crate::table::host as nr;
use crate::task::Task;

/// The part of the word that names a system.
const PER_MASK: u32 = 0xff;
const PER_LINUX32: u32 = 0x0008;
const READ_IMPLIES_EXEC: u32 = 0x0040_0000;

/// PR_TSC_SIGSEGV (prctl(2)): the arm64 kernel's own would hide the counter from the translator too.
const NO_TSC: u32 = 0x0100;
/// PER_LINUX32, on processors without 32-bit programs, where the arm64 kernel refuses it.
const LINUX32: u32 = 0x0200;
/// Both, which are no program's.
const OURS: u32 = NO_TSC | LINUX32;

/// With this personality(2) only asks.
const ASK: u64 = 0xffff_ffff;

/// The word as the guest sees it.
fn to_guest(host: u32) -> u32 {
    let system = if host & LINUX32 != 0 { PER_LINUX32 } else { host & PER_MASK };
    host & !(OURS | PER_MASK) | system
}

/// What a thread begins with.
pub(crate) fn start(task: &mut Task) {
    // SAFETY: only asks.
    task.personality = unsafe { host::syscall(nr::personality, [ASK, 0, 0, 0, 0, 0]) } as u32;
    task.cpu.no_tsc = u64::from(task.personality & NO_TSC != 0);
}

/// personality(2)
pub fn personality(task: &mut Task, [wanted, ..]: [u64; 6]) -> SysResult {
    let before = to_guest(task.personality);
    if wanted != ASK {
        let wanted = wanted as u32 & !OURS | task.personality & NO_TSC;
        match set(task, wanted) {
            Err(errno::EINVAL) if wanted & PER_MASK == PER_LINUX32 => {
                set(task, wanted & !PER_MASK | LINUX32)
            }
            result => result,
        }?;
    }
    Ok(before.into())
}

fn set(task: &mut Task, word: u32) -> SysResult {
    let result = task.host_call(nr::personality, [word.into(), 0, 0, 0, 0, 0])?;
    task.personality = word;
    Ok(result)
}

/// Whether the thread and what it executes may read the time stamp counter.
pub(crate) fn set_tsc(task: &mut Task, no_tsc: bool) {
    task.cpu.no_tsc = no_tsc.into();
    let word = task.personality & !NO_TSC | if no_tsc { NO_TSC } else { 0 };
    if word != task.personality && set(task, word).is_err() {
        log::warn(format_args!("PR_SET_TSC is not kept for executed programs"));
    }
}

/// Whether the system is called by its 32-bit name.
pub(crate) fn is_linux32(task: &Task) -> bool {
    task.personality & LINUX32 != 0
}

/// What /proc/PID/personality says.
pub(crate) fn text(task: &Task) -> String {
    format!("{:08x}\n", to_guest(task.personality))
}

/// The protection that is meant when a program asks for one, of memory or of an open file (READ_IMPLIES_EXEC).
pub(crate) fn protection(task: &Task, prot: u32, fd: Option<i32>) -> u32 {
    let implied = task.personality & READ_IMPLIES_EXEC != 0 && prot & READ != 0;
    if implied && !fd.is_some_and(is_on_noexec) { prot | EXEC } else { prot }
}

/// Fails if memory of an open file is not to be executed (do_mmap).
pub(crate) fn check_executable(prot: u32, fd: Option<i32>) -> Result<(), Errno> {
    if prot & EXEC != 0 && fd.is_some_and(is_on_noexec) { Err(errno::EPERM) } else { Ok(()) }
}

/// Whether a file's programs are not to be executed (path_noexec).
fn is_on_noexec(fd: i32) -> bool {
    let mut stat = std::mem::MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: the structure is ours; all zero is a valid one.
    let (failed, stat) = unsafe { (libc::fstatvfs(fd, stat.as_mut_ptr()), stat.assume_init()) };
    failed == 0 && stat.f_flag & libc::ST_NOEXEC != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_translators_bits_are_not_the_guests(word: u32) {
            prop_assert_eq!(to_guest(word & !OURS | NO_TSC), word & !OURS);
            let other = word & !(OURS | PER_MASK);
            prop_assert_eq!(to_guest(other | LINUX32), other | PER_LINUX32);
        }
    }

    #[test]
    fn what_may_be_read_may_be_executed() {
        let mut task = Task::for_test();
        assert_eq!(protection(&task, READ, None), READ);
        task.personality = READ_IMPLIES_EXEC;
        assert_eq!(protection(&task, READ, None), READ | EXEC);
        assert_eq!(protection(&task, 0, None), 0);
        let file = std::fs::File::open("/proc/self/maps").unwrap();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
        assert_eq!(
            protection(&task, READ, Some(fd)),
            if is_on_noexec(fd) { READ } else { READ | EXEC }
        );
    }
}
