//! Opening files: the flags differ ([`open_flags`]).

use crate::abi::{AT_FDCWD, open_flags};
use crate::guest;
use crate::host::SysResult;
use crate::table::host as nr;
use crate::task::Task;
use crate::{abi::errno, paths, proc_fs};

const O_WRONLY: u64 = 0o1;
const O_CREAT: u64 = 0o100;
const O_TRUNC: u64 = 0o1000;
const O_NOFOLLOW: u64 = 0o400000;

/// `struct open_how` of openat2(2).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct OpenHow {
    pub flags: u64,
    pub mode: u64,
    pub resolve: u64,
}
crate::abi::layout!(OpenHow, 24, resolve @ 16);

/// open(2)
pub fn open(task: &mut Task, [path, flags, mode, ..]: [u64; 6]) -> SysResult {
    openat(task, [AT_FDCWD as u64, path, flags, mode, 0, 0])
}

/// creat(2)
pub fn creat(task: &mut Task, [path, mode, ..]: [u64; 6]) -> SysResult {
    open(task, [path, O_CREAT | O_WRONLY | O_TRUNC, mode, 0, 0, 0])
}

/// openat(2)
pub fn openat(task: &mut Task, [dirfd, path, flags, mode, ..]: [u64; 6]) -> SysResult {
    if guest::starts_with(path, b"/proc/")
        && let Some(result) = proc_fs::open(task, &paths::read(path)?, flags)
    {
        return result;
    }
    let path = paths::translate(task, dirfd as i32, path, flags & O_NOFOLLOW == 0)?;
    let host_flags = open_flags::to_host(flags);
    let fd = task.host_call(nr::openat, [dirfd, path.addr(), host_flags, mode, 0, 0])?;
    proc_fs::opened(task, fd, dirfd, path.addr(), host_flags)
}

/// openat2(2)
pub fn openat2(task: &mut Task, [dirfd, path, how, size, ..]: [u64; 6]) -> SysResult {
    let mut how = read_how(how, size)?;
    let guest_flags = how.flags;
    let host = paths::translate(task, dirfd as i32, path, guest_flags & O_NOFOLLOW == 0)?;
    how.flags = open_flags::to_host(guest_flags);
    let size = size_of::<OpenHow>() as u64;
    let args = [dirfd, host.addr(), &raw const how as u64, size, 0, 0];
    let fd = task.host_call(nr::openat2, args)?;
    // Only now: whether the name may be followed is for the kernel to say (RESOLVE_*).
    if guest::starts_with(path, b"/proc/")
        && let Some(result) = proc_fs::open(task, &paths::read(path)?, guest_flags)
    {
        task.host_call(nr::close, [fd, 0, 0, 0, 0, 0])?;
        return result;
    }
    proc_fs::opened(task, fd, dirfd, host.addr(), how.flags)
}

/// The structure in the size known here; what the guest has beyond must be zero (copy_struct_from_user).
pub(crate) fn read_how(addr: u64, size: u64) -> Result<OpenHow, crate::host::Errno> {
    const KNOWN: u64 = size_of::<OpenHow>() as u64;
    const MAX: u64 = 4096;
    match size {
        ..KNOWN => return Err(errno::EINVAL),
        KNOWN..=MAX => {}
        _ => return Err(errno::E2BIG),
    }
    let mut rest = vec![0; (size - KNOWN) as usize];
    guest::read_bytes(addr.wrapping_add(KNOWN), &mut rest)?;
    if rest.iter().any(|&byte| byte != 0) {
        return Err(errno::E2BIG);
    }
    guest::read(addr)
}

/// open_by_handle_at(2)
pub fn open_by_handle_at(task: &mut Task, [mount_fd, handle, flags, ..]: [u64; 6]) -> SysResult {
    task.host_call(nr::open_by_handle_at, [mount_fd, handle, open_flags::to_host(flags), 0, 0, 0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn structures_are_read_as_they_are(words: [u64; 3], more in 0u64..5) {
            let mut all = [0; 8];
            all[..3].copy_from_slice(&words);
            let how = read_how(all.as_ptr() as u64, 24 + more * 8).unwrap();
            prop_assert_eq!([how.flags, how.mode, how.resolve], words);
        }
    }

    #[test]
    fn larger_structures_must_end_in_zeros() {
        let mut bytes = [0u64; 5];
        bytes[0] = O_CREAT;
        let addr = bytes.as_ptr() as u64;
        assert_eq!(read_how(addr, 24).unwrap().flags, O_CREAT);
        assert_eq!(read_how(addr, 40).unwrap().flags, O_CREAT);
        assert_eq!(read_how(addr, 16), Err(errno::EINVAL));
        assert_eq!(read_how(addr, 5000), Err(errno::E2BIG));
        bytes[4] = 1;
        assert_eq!(read_how(bytes.as_ptr() as u64, 40), Err(errno::E2BIG));
    }
}
