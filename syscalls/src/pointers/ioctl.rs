//! ioctl(2): the structures of common requests. A structure that is all right goes to the kernel as it is, since other
//! drivers may know other, larger ones by the same number.

use super::{Array, Offsets};
use crate::abi::open_flags;
use crate::guest;
use crate::host::SysResult;
use crate::seccomp::notify;
use crate::table::host as nr;
use crate::task::Task;

/// Requests whose structure holds addresses, in order: its size, and where they are.
const REQUESTS: &[(u32, usize, Offsets)] = &[
    (0x0720, 16, &[8]),            // I2C_SMBUS
    (0x1269, 24, &[16]),           // BLKPG
    (0x4b66, 16, &[8]),            // GIO_UNIMAP
    (0x4b67, 16, &[8]),            // PIO_UNIMAP
    (0x4b6b, 16, &[8]),            // GIO_FONTX
    (0x4b6c, 16, &[8]),            // PIO_FONTX
    (0x4b72, 32, &[24]),           // KDFONTOP
    (0x530e, 24, &[16]),           // CDROMREADAUDIO
    (0x5393, 64, &[16, 32]),       // CDROM_SEND_PACKET
    (0x890b, 120, &[88]),          // SIOCADDRT
    (0x890c, 120, &[88]),          // SIOCDELRT
    (0x8912, 16, &[8]),            // SIOCGIFCONF
    (0x8940, 24, &[8]),            // SIOCGIFBR
    (0x8941, 24, &[8]),            // SIOCSIFBR
    (0x8946, 40, &[16]),           // SIOCETHTOOL
    (0x8993, 40, &[16]),           // SIOCBONDSLAVEINFOQUERY
    (0x8994, 40, &[16]),           // SIOCBONDINFOQUERY
    (0x89b0, 40, &[16]),           // SIOCSHWTSTAMP
    (0x89b1, 40, &[16]),           // SIOCGHWTSTAMP
    (0x4010_54d5, 16, &[8]),       // TUNATTACHFILTER
    (0x4010_54d6, 16, &[8]),       // TUNDETACHFILTER
    (0x4010_7446, 16, &[8]),       // PPPIOCSACTIVE
    (0x4010_7447, 16, &[8]),       // PPPIOCSPASS
    (0x4018_4150, 24, &[8]),       // SNDRV_PCM_IOCTL_WRITEI_FRAMES
    (0x4030_4e42, 48, &[8, 16]),   // NVME_IOCTL_SUBMIT_IO
    (0x4048_9426, 72, &[16]),      // BTRFS_IOC_SEND
    (0x4080_6685, 128, &[16, 32]), // FS_IOC_ENABLE_VERITY
    (0x8010_54db, 16, &[8]),       // TUNGETFILTER
    (0x8010_aa01, 16, &[0]),       // UFFDIO_UNREGISTER
    (0x8010_aa02, 16, &[0]),       // UFFDIO_WAKE
    (0x8018_4151, 24, &[8]),       // SNDRV_PCM_IOCTL_READI_FRAMES
    (0xc010_4d03, 16, &[8]),       // MEMWRITEOOB
    (0xc010_4d04, 16, &[8]),       // MEMREADOOB
    (0xc010_5512, 16, &[8]),       // USBDEVFS_IOCTL
    (0xc018_5500, 24, &[16]),      // USBDEVFS_CONTROL
    (0xc018_5502, 24, &[16]),      // USBDEVFS_BULK
    (0xc018_aa06, 24, &[0]),       // UFFDIO_WRITEPROTECT
    (0xc020_aa00, 32, &[0]),       // UFFDIO_REGISTER
    (0xc020_aa04, 32, &[0]),       // UFFDIO_ZEROPAGE
    (0xc020_aa07, 32, &[0]),       // UFFDIO_CONTINUE
    (0xc020_aa08, 32, &[0]),       // UFFDIO_POISON
    (0xc028_6687, 40, &[24]),      // FS_IOC_READ_VERITY_METADATA
    (0xc028_aa03, 40, &[0, 8]),    // UFFDIO_COPY
    (0xc028_aa05, 40, &[0, 8]),    // UFFDIO_MOVE
    (0xc038_9423, 56, &[48]),      // BTRFS_IOC_INO_PATHS
    (0xc038_9424, 56, &[48]),      // BTRFS_IOC_LOGICAL_INO
    (0xc038_943b, 56, &[48]),      // BTRFS_IOC_LOGICAL_INO_V2
    (0xc048_4e41, 72, &[16, 24]),  // NVME_IOCTL_ADMIN_CMD
    (0xc048_4e43, 72, &[16, 24]),  // NVME_IOCTL_IO_CMD
    (0xc050_4e47, 80, &[16, 24]),  // NVME_IOCTL_ADMIN64_CMD
    (0xc050_4e48, 80, &[16, 24]),  // NVME_IOCTL_IO64_CMD
    (0xc050_5510, 80, &[16]),      // SNDRV_CTL_IOCTL_ELEM_LIST
    (0xc060_6610, 96, &[16, 40]),  // PAGEMAP_SCAN
];

/// SG_IO, of whose structures the first word tells which it is.
const SG_IO: u32 = 0x2285;
/// `struct sg_io_hdr`
const SG_OF_SCSI: (u32, usize, Offsets) = (b'S' as u32, 88, &[16, 24, 32]);
/// `struct sg_io_v4`
const SG_OF_BLOCK: (u32, usize, Offsets) = (b'Q' as u32, 160, &[16, 48, 72, 80]);

/// TIOCGPTPEER opens the other side of a terminal, with flags of open(2).
const TIOCGPTPEER: u32 = 0x5441;

/// ioctl(2)
pub fn ioctl(task: &mut Task, mut args: [u64; 6]) -> SysResult {
    let [_, request, arg, ..] = args;
    if request as u32 == TIOCGPTPEER {
        args[2] = open_flags::to_host(arg);
        return task.host_call(nr::ioctl, args);
    }
    match structure(request as u32, arg) {
        Some(structure) if structure.is_bad(arg) => {
            structure.pass_both_ways(task, nr::ioctl, args, 2)
        }
        Some(_) => task.host_call(nr::ioctl, args),
        None => notify::ioctl(task, args),
    }
}

/// The structure of a request, if it holds addresses.
fn structure(request: u32, arg: u64) -> Option<Array> {
    if request == SG_IO {
        let guard = guest::read::<u32>(arg).ok()?;
        let (_, size, addresses) =
            [SG_OF_SCSI, SG_OF_BLOCK].into_iter().find(|(known, ..)| *known == guard)?;
        return Some(Array::of_one(size, addresses));
    }
    let found = REQUESTS.binary_search_by_key(&request, |(request, ..)| *request).ok()?;
    let (_, size, addresses) = REQUESTS[found];
    Some(Array::of_one(size, addresses))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_within_their_structures() {
        assert!(REQUESTS.is_sorted_by_key(|(request, ..)| *request));
        for (request, size, offsets) in REQUESTS.iter().chain(&[SG_OF_SCSI, SG_OF_BLOCK]) {
            assert!(offsets.iter().all(|at| at + 8 <= *size && at % 8 == 0), "{request:#x}");
            // A number with a direction has the structure's size in it.
            assert!(
                request >> 30 == 0 || *size == (request >> 16 & 0x3fff) as usize,
                "{request:#x}"
            );
        }
    }

    #[test]
    fn structures_of_one_number() {
        let is_bad = |request, words: &[u64]| {
            let at = words.as_ptr() as u64;
            structure(request, at).is_some_and(|structure| structure.is_bad(at))
        };
        let mut words = [0u64; 20];
        words[3] = 1 << 47;
        words[0] = b'S'.into();
        assert!(is_bad(SG_IO, &words));
        // A tag, which may be any number.
        words[0] = b'Q'.into();
        assert!(!is_bad(SG_IO, &words));
        words[9] = 1 << 47;
        assert!(is_bad(SG_IO, &words));
        words[0] = 0;
        assert!(!is_bad(SG_IO, &words));
    }
}
