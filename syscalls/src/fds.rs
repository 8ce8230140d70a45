//! File descriptors the translator keeps open in the guest's process. The guest does not see
//! them: they are high, closed on exec, and for close(2) and its kin they do not exist.

use std::sync::atomic::{AtomicI32, Ordering};

/// No kept descriptor is less.
static LOWEST: AtomicI32 = AtomicI32::new(i32::MAX);

/// The kept descriptors; -1 marks a free place.
static KEPT: [AtomicI32; 16] = [const { AtomicI32::new(-1) }; 16];

/// High enough to be out of a shell's way, and not so high that the kernel's table grows much.
const HIGHEST: u64 = 1024;

/// Duplicates a descriptor to a high number and keeps it. None when there is no room.
pub fn keep(fd: i32) -> Option<i32> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure is ours.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) };
    let top = limit.rlim_max.min(HIGHEST);
    let lowest = top.saturating_sub(KEPT.len() as u64 * 2);
    let raised = libc::rlimit { rlim_cur: top, ..limit };
    // What is open stays open when the limit is lowered again.
    // SAFETY: the structures are ours; the call makes a new descriptor and touches no memory.
    let new = unsafe {
        if limit.rlim_cur < top {
            libc::setrlimit(libc::RLIMIT_NOFILE, &raised);
        }
        let new = libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, lowest as i32);
        if limit.rlim_cur < top {
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
        }
        new
    };
    if new < 0 {
        return None;
    }
    if !enter(new) {
        // SAFETY: the descriptor is the one just made.
        unsafe { libc::close(new) };
        return None;
    }
    Some(new)
}

/// Keeps a descriptor that is open already, as it is. Whether there was room, and it is open.
pub fn adopt(fd: i32) -> bool {
    // SAFETY: changes a flag of a descriptor, if it is one.
    let open = unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } == 0;
    open && (is_kept(fd) || enter(fd))
}

/// Writes a descriptor into a free place, if there is one.
fn enter(fd: i32) -> bool {
    LOWEST.fetch_min(fd, Ordering::Relaxed);
    KEPT.iter()
        .any(|place| place.compare_exchange(-1, fd, Ordering::Relaxed, Ordering::Relaxed).is_ok())
}

/// Closes a kept descriptor.
pub fn release(fd: i32) {
    // SAFETY: the descriptor is the translator's.
    unsafe { libc::close(fd) };
    for place in &KEPT {
        let _ = place.compare_exchange(fd, -1, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// Whether a descriptor is the translator's.
pub fn is_kept(fd: i32) -> bool {
    fd >= 0 && KEPT.iter().any(|place| place.load(Ordering::Relaxed) == fd)
}

/// A descriptor of the guest's as the kernel gets it: one of the translator's is none.
#[inline]
pub fn for_kernel(fd: u64) -> u64 {
    let low = (fd as i32) < LOWEST.load(Ordering::Relaxed);
    if low { fd } else { high_for_kernel(fd) }
}

/// The same of one that may be the translator's.
#[cold]
#[inline(never)]
fn high_for_kernel(fd: u64) -> u64 {
    if is_kept(fd as i32) { u64::MAX } else { fd }
}

/// The kept descriptors in `first..=last`, in ascending order.
pub fn kept_between(first: u32, last: u32) -> Vec<u32> {
    let fds = KEPT.iter().map(|place| place.load(Ordering::Relaxed) as u32);
    let mut fds: Vec<u32> =
        fds.filter(|fd| (first..=last).contains(fd) && *fd as i32 >= 0).collect();
    fds.sort_unstable();
    fds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_descriptors_are_high_and_known() {
        let fd = keep(2).unwrap();
        assert!(fd > 100);
        assert!(is_kept(fd));
        assert!(!is_kept(-1));
        assert_eq!(for_kernel(fd as u64), u64::MAX);
        for other in [0, 2, fd as u64 + 500, u64::MAX, -100i64 as u64] {
            assert_eq!(for_kernel(other), other);
        }
        assert!(kept_between(3, u32::MAX).contains(&(fd as u32)));
        assert!(!kept_between(3, 50).contains(&(fd as u32)));
    }
}
