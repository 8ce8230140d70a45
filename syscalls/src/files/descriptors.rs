//! File descriptors: duplicating, closing, flags, and the kinds that have no name.

use crate::abi::{SIGSET_SIZE, errno, open_flags};
use crate::fds;
use crate::host::SysResult;
use crate::table::host as nr;
use crate::task::Task;

const F_GETFD: u64 = 1;
const F_GETFL: u64 = 3;
const F_SETFL: u64 = 4;

/// close(2)
pub fn close(task: &mut Task, args: [u64; 6]) -> SysResult {
    if fds::is_kept(args[0] as i32) {
        return Err(errno::EBADF);
    }
    task.host_call(nr::close, args)
}

/// close_range(2): the range, but for the translator's own descriptors.
pub fn close_range(task: &mut Task, [first, last, flags, ..]: [u64; 6]) -> SysResult {
    let kept = fds::kept_between(first as u32, last as u32);
    for (from, to) in around(first as u32, last as u32, &kept) {
        task.host_call(nr::close_range, [from.into(), to.into(), flags, 0, 0, 0])?;
    }
    Ok(0)
}

/// The parts of `first..=last` before, between and behind the given numbers, which are ascending
/// members of it. The range itself, even a wrong one, if there are none.
fn around(first: u32, last: u32, members: &[u32]) -> Vec<(u32, u32)> {
    let mut parts = Vec::new();
    let mut from = first;
    for &member in members {
        if from < member {
            parts.push((from, member - 1));
        }
        from = member + 1;
    }
    if members.is_empty() || from <= last {
        parts.push((from, last));
    }
    parts
}

/// dup2(2)
pub fn dup2(task: &mut Task, [old, new, ..]: [u64; 6]) -> SysResult {
    if old == new {
        return task.host_call(nr::fcntl, [old, F_GETFD, 0, 0, 0, 0]).map(|_| new);
    }
    dup3(task, [old, new, 0, 0, 0, 0])
}

/// dup3(2)
pub fn dup3(task: &mut Task, [old, new, flags, ..]: [u64; 6]) -> SysResult {
    if fds::is_kept(new as i32) {
        return Err(errno::EBADF);
    }
    task.host_call(nr::dup3, [old, new, flags, 0, 0, 0])
}

/// fcntl(2)
pub fn fcntl(task: &mut Task, [fd, cmd, arg, ..]: [u64; 6]) -> SysResult {
    if fds::is_kept(fd as i32) {
        return Err(errno::EBADF);
    }
    match cmd {
        F_GETFL => task.host_call(nr::fcntl, [fd, cmd, arg, 0, 0, 0]).map(open_flags::to_guest),
        F_SETFL => task.host_call(nr::fcntl, [fd, cmd, open_flags::to_host(arg), 0, 0, 0]),
        _ => task.host_call(nr::fcntl, [fd, cmd, arg, 0, 0, 0]),
    }
}

/// pipe(2)
pub fn pipe(task: &mut Task, [fds, ..]: [u64; 6]) -> SysResult {
    pipe2(task, [fds, 0, 0, 0, 0, 0])
}

/// pipe2(2)
pub fn pipe2(task: &mut Task, [fds, flags, ..]: [u64; 6]) -> SysResult {
    task.host_call(nr::pipe2, [fds, open_flags::to_host(flags), 0, 0, 0, 0])
}

/// eventfd(2)
pub fn eventfd(task: &mut Task, [count, ..]: [u64; 6]) -> SysResult {
    task.host_call(nr::eventfd2, [count, 0, 0, 0, 0, 0])
}

/// signalfd(2), the form without flags
pub fn signalfd(task: &mut Task, [fd, mask, size, ..]: [u64; 6]) -> SysResult {
    if size != SIGSET_SIZE {
        return Err(errno::EINVAL);
    }
    task.host_call(nr::signalfd4, [fd, mask, size, 0, 0, 0])
}

/// inotify_init(2)
pub fn inotify_init(task: &mut Task, _: [u64; 6]) -> SysResult {
    task.host_call(nr::inotify_init1, [0; 6])
}

/// fanotify_init(2): the second argument is for the descriptors that events bring.
pub fn fanotify_init(task: &mut Task, [flags, event_flags, ..]: [u64; 6]) -> SysResult {
    task.host_call(nr::fanotify_init, [flags, open_flags::to_host(event_flags), 0, 0, 0, 0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn without_members_the_range_stays_as_it_is() {
        assert_eq!(around(3, u32::MAX, &[]), [(3, u32::MAX)]);
        assert_eq!(around(5, 4, &[]), [(5, 4)]);
        assert_eq!(around(7, 7, &[7]), []);
    }

    proptest! {
        #[test]
        fn parts_cover_the_range_but_for_the_members(
            first in 0u32..50, len in 0u32..50, members in prop::collection::btree_set(0u32..100, 0..8),
        ) {
            let last = first + len;
            let members: Vec<u32> = members.into_iter().filter(|m| (first..=last).contains(m)).collect();
            let covered: Vec<u32> = around(first, last, &members).into_iter().flat_map(|(a, b)| a..=b).collect();
            let expected: Vec<u32> = (first..=last).filter(|m| !members.contains(m)).collect();
            prop_assert_eq!(covered, expected);
        }
    }
}
