//! Where the x86_64 and the arm64 Linux interfaces differ in layouts and values, and the constants both share.

pub mod epoll;
pub mod errno;
pub mod open_flags;
pub mod sem;
pub mod stat;
pub mod time;

/// `dirfd` that means the current directory.
pub const AT_FDCWD: i32 = -100;
/// Do not follow a symbolic link at the end of the path.
pub const AT_SYMLINK_NOFOLLOW: u64 = 0x100;
/// unlinkat(2): remove a directory.
pub const AT_REMOVEDIR: u64 = 0x200;
/// linkat(2), name_to_handle_at(2): follow a symbolic link at the end of the path.
pub const AT_SYMLINK_FOLLOW: u64 = 0x400;
/// Longest path, with its null.
pub const PATH_MAX: usize = 4096;
/// Size of the kernel's signal set.
pub const SIGSET_SIZE: u64 = 8;

/// Checks at compile time that a structure lies as the kernel's headers have it.
macro_rules! layout {
    ($ty:ty, $size:literal $(, $field:ident @ $offset:literal)*) => {
        const _: () = {
            assert!(size_of::<$ty>() == $size);
            $(assert!(std::mem::offset_of!($ty, $field) == $offset);)*
        };
        // SAFETY: made of integers that fill it: padding is declared as fields.
        unsafe impl crate::guest::Pod for $ty {}
    };
}
pub(crate) use layout;
