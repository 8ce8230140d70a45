//! File descriptors the translator keeps open in the guest's process. The guest does not see
//! them: they are high, closed on exec, and for close(2) and its kin they do not exist.

use std::sync::atomic::{AtomicI32, Ordering};

/// The kept descriptors; -1 marks a free place.
static KEPT: [AtomicI32; 8] = [const { AtomicI32::new(-1) }; 8];

/// Duplicates a descriptor to a high number and keeps it. None when there is no room.
pub fn keep(fd: i32) -> Option<i32> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure is ours.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) };
    // High enough to be out of a shell's way, and not so high that the kernel's table grows much.
    let lowest = limit.rlim_cur.min(1024).saturating_sub(KEPT.len() as u64 * 2);
    // SAFETY: makes a new descriptor, touches no memory.
    let new = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, lowest as i32) };
    if new < 0 {
        return None;
    }
    let place = KEPT.iter().find(|place| {
        place.compare_exchange(-1, new, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    });
    if place.is_none() {
        // SAFETY: the descriptor is the one just made.
        unsafe { libc::close(new) };
        return None;
    }
    Some(new)
}

/// Whether a descriptor is the translator's.
pub fn is_kept(fd: i32) -> bool {
    fd >= 0 && KEPT.iter().any(|place| place.load(Ordering::Relaxed) == fd)
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
        assert!(kept_between(3, u32::MAX).contains(&(fd as u32)));
        assert!(!kept_between(3, 50).contains(&(fd as u32)));
    }
}
