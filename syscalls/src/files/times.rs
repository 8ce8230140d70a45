//! Setting a file's times, in the forms before utimensat(2).

use crate::abi::time::{Timespec, Timeval, Utimbuf};
use crate::abi::{AT_FDCWD, errno};
use crate::guest;
use crate::host::{Errno, SysResult};
use crate::paths;
use crate::table::host as nr;
use crate::task::Task;

/// utime(2)
pub fn utime(task: &mut Task, [path, times, ..]: [u64; 6]) -> SysResult {
    let times = guest::read_opt::<Utimbuf>(times)?
        .map(|times| [times.actime, times.modtime].map(|sec| Timespec { sec, nsec: 0 }));
    set(task, AT_FDCWD, path, times)
}

/// utimes(2)
pub fn utimes(task: &mut Task, [path, times, ..]: [u64; 6]) -> SysResult {
    futimesat(task, [AT_FDCWD as u64, path, times, 0, 0, 0])
}

/// futimesat(2)
pub fn futimesat(task: &mut Task, [dirfd, path, times, ..]: [u64; 6]) -> SysResult {
    let times = match guest::read_opt::<[[i64; 2]; 2]>(times)? {
        Some(times) => Some(from_timevals(times.map(|[sec, usec]| Timeval { sec, usec }))?),
        None => None,
    };
    set(task, dirfd as i32, path, times)
}

fn from_timevals(times: [Timeval; 2]) -> Result<[Timespec; 2], Errno> {
    if times.iter().any(|time| !(0..1_000_000).contains(&time.usec)) {
        return Err(errno::EINVAL);
    }
    Ok(times.map(|time| Timespec { sec: time.sec, nsec: time.usec * 1000 }))
}

fn set(task: &mut Task, dirfd: i32, path: u64, times: Option<[Timespec; 2]>) -> SysResult {
    let path = paths::translate(task, dirfd, path, true)?;
    let times = times.as_ref().map_or(0, |times| times.as_ptr() as u64);
    task.host_call(nr::utimensat, [dirfd as u64, path.addr(), times, 0, 0, 0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn times_are_the_same(secs: [i64; 2], usecs in prop::array::uniform2(0i64..1_000_000)) {
            let time = |i: usize| Timeval { sec: secs[i], usec: usecs[i] };
            let times = from_timevals([time(0), time(1)]).unwrap();
            for (i, time) in times.iter().enumerate() {
                prop_assert_eq!((time.sec, time.nsec / 1000, time.nsec % 1000), (secs[i], usecs[i], 0));
            }
        }
    }

    #[test]
    fn microseconds_are_checked_as_the_kernel_does() {
        let time = |usec| [Timeval { sec: 5, usec }, Timeval { sec: -1, usec: 0 }];
        assert_eq!(
            from_timevals(time(999_999)).unwrap()[0],
            Timespec { sec: 5, nsec: 999_999_000 }
        );
        assert_eq!(from_timevals(time(1_000_000)), Err(errno::EINVAL));
        assert_eq!(from_timevals(time(-1)), Err(errno::EINVAL));
    }
}
