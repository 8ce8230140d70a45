//! What a descriptor, of ours or the guest's, is open on.

use std::mem::MaybeUninit;

/// What the kernel knows of a file by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Inode {
    /// Device and number, which no other file has.
    pub file: (u64, u64),
    /// Kind and permissions.
    pub mode: u32,
    /// How many names it has.
    pub links: u32,
    /// Bytes of a block.
    pub block: u32,
    /// The device that a device's file stands for.
    pub device: u64,
}

impl Inode {
    /// That of a descriptor; none if it is not open. Nobody is asked who serves the file from elsewhere
    /// (AT_STATX_DONT_SYNC): a native program's calls do not ask either.
    pub fn of(fd: u64) -> Option<Self> {
        const WANTED: u32 =
            libc::STATX_TYPE | libc::STATX_MODE | libc::STATX_NLINK | libc::STATX_INO;
        const FLAGS: i32 = libc::AT_EMPTY_PATH | libc::AT_STATX_DONT_SYNC;
        let mut stat = MaybeUninit::<libc::statx>::zeroed();
        // SAFETY: the structure is ours; all zero is a valid one.
        let (failed, stat) = unsafe {
            let failed = libc::statx(fd as i32, c"".as_ptr(), FLAGS, WANTED, stat.as_mut_ptr());
            (failed, stat.assume_init())
        };
        (failed == 0).then(|| Self {
            file: (libc::makedev(stat.stx_dev_major, stat.stx_dev_minor), stat.stx_ino),
            mode: stat.stx_mode.into(),
            links: stat.stx_nlink,
            block: stat.stx_blksize,
            device: libc::makedev(stat.stx_rdev_major, stat.stx_rdev_minor),
        })
    }

    /// Whether it is of a kind (S_IFREG and so on).
    pub fn is(&self, kind: u32) -> bool {
        self.mode & libc::S_IFMT == kind
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn it_is_what_fstat_says() {
        for name in ["/", "/dev/null", "/proc/self/status", "/proc/self/exe"] {
            let file = File::open(name).unwrap();
            let inode = Inode::of(file.as_raw_fd() as u64).unwrap();
            let stat = file.metadata().unwrap();
            assert_eq!(inode.file, (stat.dev(), stat.ino()), "{name}");
            assert_eq!((inode.mode, inode.device), (stat.mode(), stat.rdev()), "{name}");
            let words = [inode.links, inode.block].map(u64::from);
            assert_eq!(words, [stat.nlink(), stat.blksize()], "{name}");
        }
        assert_eq!(Inode::of(u64::MAX), None);
    }
}
