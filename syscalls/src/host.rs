//! The arm64 kernel underneath: raw system calls by arm64 number.

/// An error number. Values are the same on both architectures (asm-generic/errno.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub i32);

impl Errno {
    /// The call has to be made again once the pending signal is delivered: the kernel's own
    /// ERESTARTSYS, which never leaves the kernel.
    pub const RESTART: Self = Self(512);
}

/// What a system call gives back: a value, or an error number.
pub type SysResult = Result<u64, Errno>;

/// Splits a kernel return value: -4095..=-1 are errors.
#[inline]
pub fn result(ret: i64) -> SysResult {
    if (-4095..0).contains(&ret) { Err(Errno(-ret as i32)) } else { Ok(ret as u64) }
}

/// Makes a host system call, by its arm64 number.
///
/// # Safety
/// The caller vouches for what the call does to this process: memory it writes must be
/// the guest's or the caller's own.
#[cfg(target_arch = "aarch64")]
pub unsafe fn syscall(nr: u64, args: [u64; 6]) -> i64 {
    let ret: i64;
    // SAFETY: the arm64 system call convention (syscall(2)); the kernel preserves all registers but x0.
    unsafe {
        core::arch::asm!(
            "svc #0",
            // Another number when the kernel has restarted the call by restart_syscall(2).
            inlateout("x8") nr => _,
            inlateout("x0") args[0] => ret,
            in("x1") args[1], in("x2") args[2], in("x3") args[3],
            in("x4") args[4], in("x5") args[5],
            options(nostack)
        );
    }
    ret
}

/// On other machines there is no arm64 kernel to ask: ENOSYS. (This crate is built there for its unit tests.)
///
/// # Safety
/// Always sound.
#[cfg(not(target_arch = "aarch64"))]
pub unsafe fn syscall(_nr: u64, _args: [u64; 6]) -> i64 {
    -38
}
