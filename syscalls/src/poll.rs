//! Waiting for descriptors: poll, select, epoll.

use crate::abi::epoll::{GuestEpollEvent, HostEpollEvent};
use crate::abi::time::{Timespec, Timeval};
use crate::abi::{SIGSET_SIZE, errno};
use crate::guest;
use crate::host::{Errno, SysResult};
use crate::signal::with_mask;
use crate::table::host as nr;
use crate::task::Task;

/// poll(2): the timeout is in milliseconds, a negative one is endless.
pub fn poll(task: &mut Task, [fds, count, timeout, ..]: [u64; 6]) -> SysResult {
    let mut time = from_milliseconds(timeout as i32);
    let time = time.as_mut().map_or(0, |time| &raw mut *time as u64);
    task.host_call(nr::ppoll, [fds, count, time, 0, 0, 0])
}

fn from_milliseconds(timeout: i32) -> Option<Timespec> {
    let timeout = i64::from(timeout);
    (timeout >= 0).then(|| Timespec { sec: timeout / 1000, nsec: timeout % 1000 * 1_000_000 })
}

/// select(2): what is left of the timeout is written back.
pub fn select(task: &mut Task, [count, read, write, except, timeout, _]: [u64; 6]) -> SysResult {
    let Some(limit) = guest::read_opt::<Timeval>(timeout)? else {
        return task.host_call(nr::pselect6, [count, read, write, except, 0, 0]);
    };
    let mut left = from_timeval(limit)?;
    let args = [count, read, write, except, &raw mut left as u64, 0];
    let result = task.host_call(nr::pselect6, args);
    // As in the kernel, a timeout that cannot be written does not change the result (poll_select_finish).
    let _ = guest::write(timeout, &Timeval { sec: left.sec, usec: left.nsec / 1000 });
    result
}

/// As kern_select does: more than a second of microseconds is carried over.
fn from_timeval(time: Timeval) -> Result<Timespec, Errno> {
    let sec = time.sec.checked_add(time.usec / 1_000_000).ok_or(errno::EINVAL)?;
    let nsec = time.usec % 1_000_000 * 1000;
    if sec < 0 || nsec < 0 {
        return Err(errno::EINVAL);
    }
    Ok(Timespec { sec, nsec })
}

/// ppoll(2)
pub fn ppoll(task: &mut Task, [fds, count, timeout, mask, size, _]: [u64; 6]) -> SysResult {
    with_mask(task, mask, size, |task, mask| {
        task.host_call(nr::ppoll, [fds, count, timeout, mask, SIGSET_SIZE, 0])
    })
}

/// pselect6(2): the last argument points to the mask's address and size.
pub fn pselect6(
    task: &mut Task,
    [count, read, write, except, timeout, mask]: [u64; 6],
) -> SysResult {
    let [mask, size] = guest::read_opt::<[u64; 2]>(mask)?.unwrap_or_default();
    with_mask(task, mask, size, |task, mask| {
        let mask = [mask, SIGSET_SIZE];
        task.host_call(nr::pselect6, [count, read, write, except, timeout, mask.as_ptr() as u64])
    })
}

/// epoll_create(2)
pub fn epoll_create(task: &mut Task, [size, ..]: [u64; 6]) -> SysResult {
    if size as i32 <= 0 {
        return Err(errno::EINVAL);
    }
    task.host_call(nr::epoll_create1, [0; 6])
}

const EPOLL_CTL_DEL: u64 = 2;

/// epoll_ctl(2)
pub fn epoll_ctl(task: &mut Task, [epfd, op, fd, event, ..]: [u64; 6]) -> SysResult {
    if op == EPOLL_CTL_DEL {
        return task.host_call(nr::epoll_ctl, [epfd, op, fd, 0, 0, 0]);
    }
    let event = HostEpollEvent::from(guest::read::<GuestEpollEvent>(event)?);
    task.host_call(nr::epoll_ctl, [epfd, op, fd, &raw const event as u64, 0, 0])
}

/// epoll_wait(2)
pub fn epoll_wait(task: &mut Task, [epfd, events, max, timeout, ..]: [u64; 6]) -> SysResult {
    wait(task, nr::epoll_pwait, [epfd, events, max, timeout, 0, SIGSET_SIZE])
}

/// epoll_pwait(2)
pub fn epoll_pwait(
    task: &mut Task,
    [epfd, events, max, timeout, mask, size]: [u64; 6],
) -> SysResult {
    with_mask(task, mask, size, |task, mask| {
        wait(task, nr::epoll_pwait, [epfd, events, max, timeout, mask, SIGSET_SIZE])
    })
}

/// epoll_pwait2(2)
pub fn epoll_pwait2(
    task: &mut Task,
    [epfd, events, max, timeout, mask, size]: [u64; 6],
) -> SysResult {
    with_mask(task, mask, size, |task, mask| {
        wait(task, nr::epoll_pwait2, [epfd, events, max, timeout, mask, SIGSET_SIZE])
    })
}

/// Waits with an event array of the host's form, then hands the events to the guest.
fn wait(task: &mut Task, number: u64, mut args: [u64; 6]) -> SysResult {
    /// EP_MAX_EVENTS of fs/eventpoll.c, on x86_64.
    const MAX_EVENTS: i32 = i32::MAX / size_of::<GuestEpollEvent>() as i32;
    /// As many as one call brings; the others are there for the next.
    const AT_ONCE: usize = 512;
    let [_, events, max, ..] = args;
    if !(1..=MAX_EVENTS).contains(&(max as i32)) {
        return Err(errno::EINVAL);
    }
    let mut host = vec![HostEpollEvent::default(); (max as usize).min(AT_ONCE)];
    let room = max * size_of::<GuestEpollEvent>() as u64;
    // Where no guest can have memory the kernel does not begin (ep_check_params).
    let reachable = guest::range_for_kernel(events, room) == events;
    args[1] = if reachable { host.as_mut_ptr() as u64 } else { guest::NOWHERE };
    args[2] = host.len() as u64;
    let count = task.host_call(number, args)?;
    for (i, event) in host[..count as usize].iter().enumerate() {
        let addr = events + (i * size_of::<GuestEpollEvent>()) as u64;
        match guest::write(addr, &GuestEpollEvent::from(*event)) {
            Err(error) if i == 0 => return Err(error),
            // What was there so far counts (ep_send_events).
            Err(_) => return Ok(i as u64),
            Ok(()) => {}
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn negative_milliseconds_are_endless() {
        assert_eq!(from_milliseconds(-1), None);
        assert_eq!(from_milliseconds(0), Some(Timespec { sec: 0, nsec: 0 }));
        assert_eq!(from_milliseconds(1500), Some(Timespec { sec: 1, nsec: 500_000_000 }));
    }

    #[test]
    fn microseconds_beyond_a_second_are_carried() {
        let time = |sec, usec| from_timeval(Timeval { sec, usec });
        assert_eq!(time(1, 2_500_000), Ok(Timespec { sec: 3, nsec: 500_000_000 }));
        assert_eq!(time(-1, 0), Err(errno::EINVAL));
        assert_eq!(time(1, -1), Err(errno::EINVAL));
        assert_eq!(time(i64::MAX, 1_000_000), Err(errno::EINVAL));
    }

    proptest! {
        #[test]
        fn valid_timeouts_are_normalised(sec in 0..i64::MAX / 2, usec in 0i64..1 << 40) {
            let time = from_timeval(Timeval { sec, usec }).unwrap();
            prop_assert!((0..1_000_000_000).contains(&time.nsec));
            prop_assert_eq!((time.sec - sec) * 1_000_000 + time.nsec / 1000, usec);
        }
    }
}
