//! Calls on file names that arm64 has only in the form with a directory descriptor.

use crate::abi::{AT_FDCWD, AT_REMOVEDIR, AT_SYMLINK_NOFOLLOW};
use crate::host::SysResult;
use crate::table::host as nr;
use crate::task::Task;
use crate::{guest, paths, proc_fs};

/// The current directory, as an argument.
const HERE: u64 = AT_FDCWD as u64;

/// Makes `number(AT_FDCWD, path, rest...)`.
fn follow(task: &mut Task, number: u64, path: u64, rest: [u64; 3]) -> SysResult {
    let path = paths::translate(task, AT_FDCWD, path, true)?;
    task.host_call(number, [HERE, path.addr(), rest[0], rest[1], rest[2], 0])
}

/// Makes `number(AT_FDCWD, path, rest...)` where a symbolic link is meant itself.
fn no_follow(task: &mut Task, number: u64, path: u64, rest: [u64; 3]) -> SysResult {
    let path = paths::translate(task, AT_FDCWD, path, false)?;
    task.host_call(number, [HERE, path.addr(), rest[0], rest[1], rest[2], 0])
}

/// access(2)
pub fn access(task: &mut Task, [path, mode, ..]: [u64; 6]) -> SysResult {
    follow(task, nr::faccessat, path, [mode, 0, 0])
}

/// chmod(2)
pub fn chmod(task: &mut Task, [path, mode, ..]: [u64; 6]) -> SysResult {
    follow(task, nr::fchmodat, path, [mode, 0, 0])
}

/// chown(2)
pub fn chown(task: &mut Task, [path, owner, group, ..]: [u64; 6]) -> SysResult {
    follow(task, nr::fchownat, path, [owner, group, 0])
}

/// lchown(2)
pub fn lchown(task: &mut Task, [path, owner, group, ..]: [u64; 6]) -> SysResult {
    no_follow(task, nr::fchownat, path, [owner, group, AT_SYMLINK_NOFOLLOW])
}

/// mkdir(2)
pub fn mkdir(task: &mut Task, [path, mode, ..]: [u64; 6]) -> SysResult {
    no_follow(task, nr::mkdirat, path, [mode, 0, 0])
}

/// mknod(2)
pub fn mknod(task: &mut Task, [path, mode, dev, ..]: [u64; 6]) -> SysResult {
    no_follow(task, nr::mknodat, path, [mode, dev, 0])
}

/// rmdir(2)
pub fn rmdir(task: &mut Task, [path, ..]: [u64; 6]) -> SysResult {
    no_follow(task, nr::unlinkat, path, [AT_REMOVEDIR, 0, 0])
}

/// unlink(2)
pub fn unlink(task: &mut Task, [path, ..]: [u64; 6]) -> SysResult {
    no_follow(task, nr::unlinkat, path, [0, 0, 0])
}

/// link(2)
pub fn link(task: &mut Task, [old, new, ..]: [u64; 6]) -> SysResult {
    let old = paths::translate(task, AT_FDCWD, old, false)?;
    let new = paths::translate(task, AT_FDCWD, new, false)?;
    task.host_call(nr::linkat, [HERE, old.addr(), HERE, new.addr(), 0, 0])
}

/// rename(2)
pub fn rename(task: &mut Task, [old, new, ..]: [u64; 6]) -> SysResult {
    let old = paths::translate(task, AT_FDCWD, old, false)?;
    let new = paths::translate(task, AT_FDCWD, new, false)?;
    task.host_call(nr::renameat2, [HERE, old.addr(), HERE, new.addr(), 0, 0])
}

/// symlink(2)
pub fn symlink(task: &mut Task, [target, path, ..]: [u64; 6]) -> SysResult {
    let path = paths::translate(task, AT_FDCWD, path, false)?;
    task.host_call(nr::symlinkat, [target, HERE, path.addr(), 0, 0, 0])
}

/// readlink(2)
pub fn readlink(task: &mut Task, [path, buf, size, ..]: [u64; 6]) -> SysResult {
    readlinkat(task, [HERE, path, buf, size, 0, 0])
}

/// readlinkat(2)
pub fn readlinkat(task: &mut Task, [dirfd, path, buf, size, ..]: [u64; 6]) -> SysResult {
    if size as i32 > 0
        && let Some(exe) = proc_fs::link_to_exe(task, dirfd, &paths::read(path)?)
    {
        // Cut off without a word, as readlink(2) does.
        let len = exe.len().min(size as i32 as usize);
        guest::write_bytes(buf, &exe[..len])?;
        return Ok(len as u64);
    }
    let path = paths::translate(task, dirfd as i32, path, false)?;
    task.host_call(nr::readlinkat, [dirfd, path.addr(), buf, size, 0, 0])
}
