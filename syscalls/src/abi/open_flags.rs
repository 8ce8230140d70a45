//! Flags of open(2), F_GETFL and their kin: arm64 has four of them at other bits than x86_64
//! (asm/fcntl.h of each architecture).

/// `(name, x86_64, arm64)`; a flag that holds another's bits comes before it.
pub const TABLE: &[(&str, u64, u64)] = &[
    ("O_WRONLY", 0o1, 0o1),
    ("O_RDWR", 0o2, 0o2),
    ("O_CREAT", 0o100, 0o100),
    ("O_EXCL", 0o200, 0o200),
    ("O_NOCTTY", 0o400, 0o400),
    ("O_TRUNC", 0o1000, 0o1000),
    ("O_APPEND", 0o2000, 0o2000),
    ("O_NONBLOCK", 0o4000, 0o4000),
    ("O_SYNC", 0o4010000, 0o4010000),
    ("O_DSYNC", 0o10000, 0o10000),
    ("O_ASYNC", 0o20000, 0o20000),
    ("O_DIRECT", 0o40000, 0o200000),
    ("O_LARGEFILE", 0o100000, 0o400000),
    ("O_TMPFILE", 0o20200000, 0o20040000),
    ("O_DIRECTORY", 0o200000, 0o40000),
    ("O_NOFOLLOW", 0o400000, 0o100000),
    ("O_NOATIME", 0o1000000, 0o1000000),
    ("O_CLOEXEC", 0o2000000, 0o2000000),
    ("O_PATH", 0o10000000, 0o10000000),
];

/// x86_64 flags as the arm64 kernel has them. Bits without a name stay.
pub const fn to_host(flags: u64) -> u64 {
    const MOVED: u64 = moved();
    let mut host = flags & !MOVED;
    let mut i = 0;
    while i < TABLE.len() {
        let (_, from, to) = TABLE[i];
        if from.count_ones() == 1 && flags & from & MOVED != 0 {
            host |= to;
        }
        i += 1;
    }
    host
}

/// The bits that mean another flag on arm64.
const fn moved() -> u64 {
    let (mut bits, mut i) = (0, 0);
    while i < TABLE.len() {
        let (_, guest, host) = TABLE[i];
        bits |= guest ^ host;
        i += 1;
    }
    bits
}

/// arm64 flags as x86_64 has them. The moved bits change places in pairs, so that this is the
/// same conversion.
pub const fn to_guest(flags: u64) -> u64 {
    to_host(flags)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_flag_is_converted_both_ways() {
        for &(name, guest, host) in TABLE {
            assert_eq!(to_host(guest), host, "{name}");
            assert_eq!(to_guest(host), guest, "{name}");
        }
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn the_table_has_this_machines_values() {
        let here = [
            ("O_DIRECT", libc::O_DIRECT),
            ("O_DIRECTORY", libc::O_DIRECTORY),
            ("O_NOFOLLOW", libc::O_NOFOLLOW),
            ("O_TMPFILE", libc::O_TMPFILE),
            ("O_SYNC", libc::O_SYNC),
            ("O_CLOEXEC", libc::O_CLOEXEC),
            ("O_ASYNC", libc::O_ASYNC),
            ("O_NOATIME", libc::O_NOATIME),
            ("O_PATH", libc::O_PATH),
        ];
        for (name, value) in here {
            let row = TABLE.iter().find(|row| row.0 == name).unwrap();
            assert_eq!(row.1, value as u64, "{name}");
        }
    }

    proptest! {
        #[test]
        fn round_trip(flags: u64) {
            prop_assert_eq!(to_guest(to_host(flags)), flags);
        }
    }
}
