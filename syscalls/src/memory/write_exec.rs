//! PR_SET_MDWE: memory that was writable does not become executable. The translator's own memory is the host's, so
//! this is not for the host to know, which could not hand it on to programs executed. It is there for programs that do
//! not want that; others are told that the kernel does not know it (systemd then filters system calls instead).

use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use crate::abi::errno;
use crate::host::Errno;
use crate::log;
use crate::memmap::{EXEC, WRITE};

/// PR_MDWE_REFUSE_EXEC_GAIN.
const REFUSE_EXEC_GAIN: u32 = 1;
/// PR_MDWE_NO_INHERIT.
const NO_INHERIT: u32 = 2;

/// What is set.
static FLAGS: AtomicU32 = AtomicU32::new(0);
/// The process that has set it.
static OWNER: AtomicI32 = AtomicI32::new(0);

/// prctl(PR_GET_MDWE)
pub fn get() -> u32 {
    let flags = FLAGS.load(Ordering::Relaxed);
    if flags & NO_INHERIT != 0 && OWNER.load(Ordering::Relaxed) != std::process::id() as i32 {
        return 0;
    }
    flags
}

/// prctl(PR_SET_MDWE): it cannot be taken back.
pub fn set(wanted: u64) -> Result<(), Errno> {
    FLAGS.store(checked(get(), wanted)?, Ordering::Relaxed);
    OWNER.store(std::process::id() as i32, Ordering::Relaxed);
    Ok(())
}

fn checked(current: u32, wanted: u64) -> Result<u32, Errno> {
    const SUPPORTED: u64 = (REFUSE_EXEC_GAIN | NO_INHERIT) as u64;
    if wanted == REFUSE_EXEC_GAIN.into() {
        log::warn(format_args!("PR_SET_MDWE for executed programs is not supported: EINVAL"));
    }
    if wanted != 0 && wanted != SUPPORTED {
        return Err(errno::EINVAL);
    }
    if current != 0 && u64::from(current) != wanted {
        return Err(errno::EPERM);
    }
    Ok(wanted as u32)
}

/// Fails if a mapping must not get a protection: `before` is the one it has, none if it is new.
pub fn check(before: Option<u32>, prot: u32) -> Result<(), Errno> {
    if prot & EXEC != 0 && gains(before, prot) && get() != 0 {
        return Err(errno::EACCES);
    }
    Ok(())
}

/// Whether what may be executed could be, or could have been, written (map_deny_write_exec).
fn gains(before: Option<u32>, prot: u32) -> bool {
    prot & WRITE != 0 || before.is_some_and(|before| before & EXEC == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memmap::READ;

    #[test]
    fn what_may_be_set() {
        assert_eq!(checked(0, 0), Ok(0));
        assert_eq!(checked(0, 3), Ok(3));
        assert_eq!(checked(3, 3), Ok(3));
        assert_eq!(checked(3, 0), Err(errno::EPERM));
        assert_eq!(checked(0, 1), Err(errno::EINVAL));
        assert_eq!(checked(0, 2), Err(errno::EINVAL));
        assert_eq!(checked(0, 4), Err(errno::EINVAL));
    }

    #[test]
    fn what_gains() {
        assert!(gains(None, READ | WRITE | EXEC));
        assert!(!gains(None, READ | EXEC));
        assert!(gains(Some(READ), READ | EXEC));
        assert!(!gains(Some(READ | EXEC), EXEC));
        assert!(gains(Some(READ | EXEC), WRITE | EXEC));
    }
}
