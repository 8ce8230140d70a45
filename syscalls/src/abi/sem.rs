//! `struct semid64_ds`: x86_64 has a reserved word behind each time (asm/sembuf.h), arm64 has
//! the generic form (asm-generic/sembuf.h). `ipc64_perm`, `msqid64_ds` and `shmid64_ds` are the same.

use super::layout;

/// The x86_64 form.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct GuestSemidDs {
    pub perm: [u64; 6],
    pub otime: i64,
    pub unused1: u64,
    pub ctime: i64,
    pub unused2: u64,
    pub nsems: u64,
    pub unused3: u64,
    pub unused4: u64,
}
layout!(GuestSemidDs, 104, otime @ 48, ctime @ 64, nsems @ 80);

/// The arm64 form.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct HostSemidDs {
    pub perm: [u64; 6],
    pub otime: i64,
    pub ctime: i64,
    pub nsems: u64,
    pub unused3: u64,
    pub unused4: u64,
}
layout!(HostSemidDs, 88, otime @ 48, ctime @ 56, nsems @ 64);

impl From<GuestSemidDs> for HostSemidDs {
    fn from(ds: GuestSemidDs) -> Self {
        Self { perm: ds.perm, otime: ds.otime, ctime: ds.ctime, nsems: ds.nsems, ..Self::default() }
    }
}

impl From<HostSemidDs> for GuestSemidDs {
    fn from(ds: HostSemidDs) -> Self {
        Self { perm: ds.perm, otime: ds.otime, ctime: ds.ctime, nsems: ds.nsems, ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trip_of_the_guests(perm: [u64; 6], otime: i64, ctime: i64, nsems: u64) {
            let guest = GuestSemidDs { perm, otime, ctime, nsems, ..GuestSemidDs::default() };
            prop_assert_eq!(GuestSemidDs::from(HostSemidDs::from(guest)), guest);
        }

        #[test]
        fn round_trip(perm: [u64; 6], otime: i64, ctime: i64, nsems: u64) {
            let host = HostSemidDs { perm, otime, ctime, nsems, ..HostSemidDs::default() };
            prop_assert_eq!(HostSemidDs::from(GuestSemidDs::from(host)), host);
        }
    }
}
