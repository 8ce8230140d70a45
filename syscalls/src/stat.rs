//! The stat family: the structure differs.

use crate::abi::stat::{GuestStat, HostStat};
use crate::abi::{AT_FDCWD, AT_SYMLINK_NOFOLLOW};
use crate::guest;
use crate::host::SysResult;
use crate::paths;
use crate::table::host as nr;
use crate::task::Task;

/// stat(2)
pub fn stat(task: &mut Task, [path, statbuf, ..]: [u64; 6]) -> SysResult {
    newfstatat(task, [AT_FDCWD as u64, path, statbuf, 0, 0, 0])
}

/// lstat(2)
pub fn lstat(task: &mut Task, [path, statbuf, ..]: [u64; 6]) -> SysResult {
    newfstatat(task, [AT_FDCWD as u64, path, statbuf, AT_SYMLINK_NOFOLLOW, 0, 0])
}

/// newfstatat(2)
pub fn newfstatat(task: &mut Task, [dirfd, path, statbuf, flags, ..]: [u64; 6]) -> SysResult {
    let path = paths::translate(task, dirfd as i32, path, flags & AT_SYMLINK_NOFOLLOW == 0)?;
    let mut stat = HostStat::default();
    task.host_call(nr::newfstatat, [dirfd, path.addr(), &raw mut stat as u64, flags, 0, 0])?;
    guest::write(statbuf, &GuestStat::from(stat))?;
    Ok(0)
}

/// fstat(2)
pub fn fstat(task: &mut Task, [fd, statbuf, ..]: [u64; 6]) -> SysResult {
    let mut stat = HostStat::default();
    task.host_call(nr::fstat, [fd, &raw mut stat as u64, 0, 0, 0, 0])?;
    guest::write(statbuf, &GuestStat::from(stat))?;
    Ok(0)
}
