//! The stat family: the structure differs.

use crate::abi::stat::{GuestStat, HostStat};
use crate::abi::{AT_FDCWD, AT_SYMLINK_NOFOLLOW};
use crate::host::SysResult;
use crate::table::host as nr;
use crate::task::Task;
use crate::{guest, paths, proc_fs};

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
    let buffer = &raw mut stat as u64;
    task.host_call(nr::newfstatat, [dirfd, path.addr(), buffer, flags, 0, 0])?;
    if flags & AT_SYMLINK_NOFOLLOW == 0
        && proc_fs::is_translator(task, (stat.dev, stat.ino), dirfd, path.addr())
    {
        let program = proc_fs::program(task);
        task.host_call(nr::newfstatat, [dirfd, program.as_ptr() as u64, buffer, flags, 0, 0])?;
    }
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

/// statx(2): the structure is the same.
pub fn statx(task: &mut Task, [dirfd, path, flags, mask, buffer, _]: [u64; 6]) -> SysResult {
    /// Where the inode, and the device's two numbers are in `struct statx`.
    const INODE: u64 = 32;
    const DEVICE: u64 = 136;
    let path = paths::translate(task, dirfd as i32, path, flags & AT_SYMLINK_NOFOLLOW == 0)?;
    task.host_call(nr::statx, [dirfd, path.addr(), flags, mask, buffer, 0])?;
    let [major, minor]: [u32; 2] = guest::read(buffer + DEVICE)?;
    let file = (libc::makedev(major, minor), guest::read(buffer + INODE)?);
    if flags & AT_SYMLINK_NOFOLLOW == 0 && proc_fs::is_translator(task, file, dirfd, path.addr()) {
        let program = proc_fs::program(task);
        task.host_call(nr::statx, [dirfd, program.as_ptr() as u64, flags, mask, buffer, 0])?;
    }
    Ok(0)
}
