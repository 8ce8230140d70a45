//! ustat(2) and sysfs(2), which arm64 never had, from what /proc says.

use crate::abi::{errno, layout};
use crate::guest;
use crate::host::{Errno, SysResult};
use crate::paths;
use crate::table::host as nr;
use crate::task::Task;
use std::ffi::CString;

/// `struct ustat` (linux/types.h).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Ustat {
    tfree: i32,
    pad: u32,
    tinode: u64,
    fname: [u8; 6],
    fpack: [u8; 6],
    pad2: u32,
}
layout!(Ustat, 32, tinode @ 8, fname @ 16, fpack @ 22);

/// The head of `struct statfs`, up to the free inodes.
const STATFS_WORDS: usize = 15;
const STATFS_BFREE: usize = 3;
const STATFS_FFREE: usize = 6;

/// ustat(2)
pub fn ustat(task: &mut Task, [dev, buf, ..]: [u64; 6]) -> SysResult {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").map_err(|_| errno::ENOSYS)?;
    let mount_point = mount_point(&mounts, dev as u32).ok_or(errno::EINVAL)?;
    let mut statfs = [0u64; STATFS_WORDS];
    let args = [mount_point.as_ptr() as u64, statfs.as_mut_ptr() as u64, 0, 0, 0, 0];
    task.host_call(nr::statfs, args)?;
    let ustat = Ustat {
        tfree: statfs[STATFS_BFREE] as i32,
        tinode: statfs[STATFS_FFREE],
        ..Ustat::default()
    };
    guest::write(buf, &ustat)?;
    Ok(0)
}

/// Where a device is mounted (proc_pid_mountinfo(5): the third field is the device, the fifth the place).
fn mount_point(mounts: &str, dev: u32) -> Option<CString> {
    // new_decode_dev of linux/kdev_t.h
    let device = format!("{}:{}", dev >> 8 & 0xfff, dev & 0xff | dev >> 12 & 0xfff00);
    let line = mounts.lines().find(|line| line.split(' ').nth(2) == Some(&device))?;
    CString::new(unescape(line.split(' ').nth(4)?)).ok()
}

/// Undoes the octal escapes of spaces and the like.
fn unescape(field: &str) -> Vec<u8> {
    let bytes = field.as_bytes();
    let (mut out, mut i) = (Vec::new(), 0);
    while i < bytes.len() {
        let code = field.get(i + 1..i + 4).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match (bytes[i], code) {
            (b'\\', Some(byte)) => {
                out.push(byte);
                i += 4;
            }
            (byte, _) => {
                out.push(byte);
                i += 1;
            }
        }
    }
    out
}

/// sysfs(2): the file system types by name and by number.
pub fn sysfs(_: &mut Task, [option, arg1, arg2, ..]: [u64; 6]) -> SysResult {
    let list = std::fs::read_to_string("/proc/filesystems").map_err(|_| errno::ENOSYS)?;
    // "nodev" or nothing, a tab, the name.
    let mut types = list.lines().filter_map(|line| line.rsplit('\t').next());
    match option {
        1 => {
            let wanted = paths::read(arg1)?;
            if wanted.is_empty() {
                return Err(errno::ENOENT);
            }
            let index = types.position(|name| name.as_bytes() == wanted.as_bytes());
            index.map(|index| index as u64).ok_or(errno::EINVAL)
        }
        2 => {
            // The kernel takes it as an int.
            let name = types.nth(arg1 as u32 as usize);
            write_name(arg2, name.ok_or(errno::EINVAL)?)
        }
        3 => Ok(types.count() as u64),
        _ => Err(errno::EINVAL),
    }
}

fn write_name(addr: u64, name: &str) -> Result<u64, Errno> {
    guest::write_bytes(addr, &[name.as_bytes(), b"\0"].concat())?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_by_device() {
        let mounts = "22 1 259:2 / / rw - ext4 /dev/root rw\n\
                      23 22 0:44 / /mnt/a\\040b rw shared:1 - tmpfs none rw\n";
        assert_eq!(mount_point(mounts, 259 << 8 | 2).unwrap().as_bytes(), b"/");
        assert_eq!(mount_point(mounts, 44).unwrap().as_bytes(), b"/mnt/a b");
        assert_eq!(mount_point(mounts, 45), None);
    }
}
