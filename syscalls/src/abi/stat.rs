//! `struct stat`: 144 bytes on x86_64 (asm/stat.h), 128 in the generic form of arm64 (asm-generic/stat.h).

use super::layout;

/// The x86_64 form.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct GuestStat {
    pub dev: u64,
    pub ino: u64,
    pub nlink: u64,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub pad0: u32,
    pub rdev: u64,
    pub size: i64,
    pub blksize: i64,
    pub blocks: i64,
    /// Access, modification and status change: seconds and nanoseconds.
    pub times: [[i64; 2]; 3],
    pub unused: [u64; 3],
}
layout!(GuestStat, 144, nlink @ 16, mode @ 24, uid @ 28, gid @ 32, rdev @ 40, size @ 48, blksize @ 56, times @ 72);

/// The arm64 form.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct HostStat {
    pub dev: u64,
    pub ino: u64,
    pub mode: u32,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u64,
    pub pad1: u64,
    pub size: i64,
    pub blksize: i32,
    pub pad2: i32,
    pub blocks: i64,
    /// Access, modification and status change: seconds and nanoseconds.
    pub times: [[i64; 2]; 3],
    pub unused: [u32; 2],
}
layout!(HostStat, 128, mode @ 16, nlink @ 20, uid @ 24, gid @ 28, rdev @ 32, size @ 48, blksize @ 56, times @ 72);

impl From<HostStat> for GuestStat {
    fn from(stat: HostStat) -> Self {
        Self {
            dev: stat.dev,
            ino: stat.ino,
            nlink: stat.nlink.into(),
            mode: stat.mode,
            uid: stat.uid,
            gid: stat.gid,
            rdev: stat.rdev,
            size: stat.size,
            blksize: stat.blksize.into(),
            blocks: stat.blocks,
            times: stat.times,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_field_arrives(
            ids: (u64, u64, u64), mode: u32, nlink: u32, owner: (u32, u32),
            sizes: (i64, i32, i64), times: [[i64; 2]; 3],
        ) {
            let guest = GuestStat::from(HostStat {
                dev: ids.0, ino: ids.1, rdev: ids.2, mode, nlink, uid: owner.0, gid: owner.1,
                size: sizes.0, blksize: sizes.1, blocks: sizes.2, times, ..HostStat::default()
            });
            prop_assert_eq!((guest.dev, guest.ino, guest.rdev), ids);
            prop_assert_eq!((guest.mode, guest.nlink), (mode, nlink.into()));
            prop_assert_eq!((guest.uid, guest.gid), owner);
            prop_assert_eq!((guest.size, guest.blksize, guest.blocks), (sizes.0, sizes.1.into(), sizes.2));
            prop_assert_eq!(guest.times, times);
        }
    }
}
