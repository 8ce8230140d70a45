//! Time structures; the same on both architectures.

use super::layout;

/// `struct timespec`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Timespec {
    pub sec: i64,
    pub nsec: i64,
}
layout!(Timespec, 16, nsec @ 8);

/// `struct timeval`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Timeval {
    pub sec: i64,
    pub usec: i64,
}
layout!(Timeval, 16, usec @ 8);

/// `struct itimerval`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Itimerval {
    pub interval: Timeval,
    pub value: Timeval,
}
layout!(Itimerval, 32, value @ 16);

/// `struct itimerspec`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Itimerspec {
    pub interval: Timespec,
    pub value: Timespec,
}
layout!(Itimerspec, 32, value @ 16);

/// `struct utimbuf` of utime(2).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Utimbuf {
    pub actime: i64,
    pub modtime: i64,
}
layout!(Utimbuf, 16, modtime @ 8);
