//! Questions to the kernel that change nothing.

use crate::binfmt::Table;
use std::io;
use std::path::Path;

/// An answer, and what was seen.
#[derive(Debug)]
pub enum Probed {
    There(String),
    Missing(String),
}

impl Probed {
    /// The answer of a call that was made so that it fails where it exists.
    fn of(call: &str, errno: Option<i32>) -> Self {
        match errno {
            Some(libc::ENOSYS) => Self::Missing(format!("the kernel has no {call}")),
            Some(errno @ (libc::EPERM | libc::EACCES)) => {
                let error = io::Error::from_raw_os_error(errno);
                Self::Missing(format!("the kernel refuses {call}: {error}"))
            }
            _ => Self::There("yes".into()),
        }
    }
}

/// Makes a system call; gives the result, or the error number.
///
/// # Safety
/// The arguments are right for the call, and what it makes is given back.
unsafe fn call(number: libc::c_long, [a, b, c, d]: [usize; 4]) -> Result<i64, i32> {
    // SAFETY: as the caller promises.
    let result = unsafe { libc::syscall(number, a, b, c, d) };
    if result >= 0 { Ok(result) } else { Err(errno()) }
}

fn errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

fn close(fd: i64) {
    // SAFETY: the descriptor was made for a question, and nobody else knows it.
    unsafe { libc::close(fd as i32) };
}

/// A descriptor of this very process.
pub fn pidfd_open() -> Probed {
    // SAFETY: integers, and the descriptor is closed.
    let result = unsafe { call(libc::SYS_pidfd_open, [std::process::id() as usize, 0, 0, 0]) };
    if let Ok(fd) = result {
        close(fd);
    }
    Probed::of("pidfd_open", result.err())
}

/// With arguments of no size: EINVAL.
pub fn clone3() -> Probed {
    // SAFETY: nothing is read, and nothing made.
    Probed::of("clone3", unsafe { call(libc::SYS_clone3, [0; 4]) }.err())
}

/// With a structure of no size: EINVAL.
pub fn openat2() -> Probed {
    let root = c"/".as_ptr() as usize;
    // SAFETY: reads a string, and opens nothing.
    Probed::of("openat2", unsafe { call(libc::SYS_openat2, [0, root, 0, 0]) }.err())
}

/// Without parameters: EFAULT, or EPERM where it is turned off.
pub fn io_uring() -> Probed {
    // SAFETY: nothing is read, and nothing made.
    Probed::of("io_uring", unsafe { call(libc::SYS_io_uring_setup, [0; 4]) }.err())
}

/// The version of its interface (LANDLOCK_CREATE_RULESET_VERSION).
pub fn landlock() -> Probed {
    // SAFETY: nothing is read, and nothing made.
    match unsafe { call(libc::SYS_landlock_create_ruleset, [0, 0, 1, 0]) } {
        Ok(version) => Probed::There(format!("version {version}")),
        Err(libc::EOPNOTSUPP) => Probed::Missing("not among the active security modules".into()),
        Err(errno) => Probed::of("landlock", Some(errno)),
    }
}

/// Whether a filter may end a process (SECCOMP_GET_ACTION_AVAIL).
pub fn seccomp() -> Probed {
    let action = libc::SECCOMP_RET_KILL_PROCESS;
    let arguments = [libc::SECCOMP_GET_ACTION_AVAIL as usize, 0, &raw const action as usize, 0];
    // SAFETY: reads one integer.
    match unsafe { call(libc::SYS_seccomp, arguments) } {
        Ok(_) => Probed::There("yes".into()),
        Err(_) => Probed::Missing("no filters".into()),
    }
}

/// Makes one, in a child that ends with it.
pub fn user_namespace() -> Probed {
    // SAFETY: the child makes two system calls and ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: as above.
        unsafe {
            let errno = if libc::unshare(libc::CLONE_NEWUSER) == 0 { 0 } else { errno() };
            libc::_exit(errno);
        }
    }
    let mut status = 0;
    // SAFETY: waits for the child just made.
    let waited = child > 0 && unsafe { libc::waitpid(child, &mut status, 0) } == child;
    match waited && libc::WIFEXITED(status) {
        true if libc::WEXITSTATUS(status) == 0 => Probed::There("yes".into()),
        true => {
            let error = io::Error::from_raw_os_error(libc::WEXITSTATUS(status));
            Probed::Missing(error.to_string())
        }
        false => Probed::Missing("a child could not be made to try it".into()),
    }
}

/// Whether /sys/fs/cgroup is one.
pub fn cgroup2() -> Probed {
    const CGROUP2_SUPER_MAGIC: i64 = 0x6367_7270;
    // SAFETY: all zero is valid, and the call fills it.
    let (result, filesystem) = unsafe {
        let mut filesystem: libc::statfs = std::mem::zeroed();
        (libc::statfs(c"/sys/fs/cgroup".as_ptr(), &mut filesystem), filesystem)
    };
    match result == 0 && filesystem.f_type == CGROUP2_SUPER_MAGIC {
        true => Probed::There("mounted at /sys/fs/cgroup".into()),
        false => Probed::Missing("not mounted at /sys/fs/cgroup".into()),
    }
}

/// Whether the table is mounted, or could be.
pub fn binfmt_misc() -> Probed {
    let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if Table::kernel().is_mounted() {
        Probed::There("mounted".into())
    } else if known.lines().any(|line| line.ends_with("\tbinfmt_misc")) {
        Probed::Missing("not mounted".into())
    } else {
        Probed::Missing("not in the kernel, unless as a module".into())
    }
}

/// Whether the kernel knows of memory models of the processor (PR_GET_MEM_MODEL of Apple silicon's patch).
pub fn has_tso_switch() -> bool {
    const PR_GET_MEM_MODEL: i32 = 0x6d4d_444c;
    // SAFETY: prctl(2) with integers; kernels that do not know the option refuse it.
    unsafe { libc::prctl(PR_GET_MEM_MODEL, 0usize, 0usize, 0usize, 0usize) >= 0 }
}

/// How many bits an address has, by that of the stack, which the kernel puts at the top.
pub fn address_bits() -> u32 {
    let on_stack = 0u8;
    u64::BITS - (&raw const on_stack as u64).leading_zeros()
}

/// Limits that matter to the translator.
#[derive(Clone, Copy, Debug)]
pub enum Limit {
    AddressSpace,
    OpenFiles,
}

/// The soft limit, if there is one.
pub fn limit(limit: Limit) -> Option<u64> {
    let resource = match limit {
        Limit::AddressSpace => libc::RLIMIT_AS,
        Limit::OpenFiles => libc::RLIMIT_NOFILE,
    };
    let mut found = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: 0 };
    // SAFETY: the call fills the structure.
    unsafe { libc::getrlimit(resource, &mut found) };
    (found.rlim_cur != libc::RLIM_INFINITY).then_some(found.rlim_cur)
}

/// A number below /proc/sys.
pub fn sysctl(name: &str) -> Option<u64> {
    std::fs::read_to_string(Path::new("/proc/sys").join(name)).ok()?.trim().parse().ok()
}
