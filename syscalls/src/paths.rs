//! File names given by the guest: the one place that every one of them goes through.
//!
//! With `--sysroot DIR`, an absolute name that exists below DIR means the file there.

use std::ffi::{CStr, CString};
use std::sync::OnceLock;

use crate::abi::{AT_FDCWD, AT_SYMLINK_NOFOLLOW, PATH_MAX, errno};
use crate::guest;
use crate::host::Errno;
use crate::proc_fs;
use crate::table::host as nr;
use crate::task::Task;

static SYSROOT: OnceLock<Vec<u8>> = OnceLock::new();

/// Sets the sysroot, once, before the guest runs. "/" and "" mean that there is none.
pub fn set_sysroot(dir: &[u8]) {
    let end = dir.iter().rposition(|&byte| byte != b'/').map_or(0, |last| last + 1);
    if end > 0 {
        // A second call would come from the command line's parser, which makes one.
        let _ = SYSROOT.set(dir[..end].to_vec());
    }
}

/// A file name as it goes to the kernel.
#[derive(Debug)]
pub enum Path {
    /// The guest's own string.
    Guest(u64),
    /// Another name in its place.
    Replaced(CString),
}

impl Path {
    /// The string's address; valid as long as `self` is.
    pub fn addr(&self) -> u64 {
        match self {
            Path::Guest(addr) => *addr,
            Path::Replaced(name) => name.as_ptr() as u64,
        }
    }
}

/// The name to give to the kernel for the guest's name at `addr`, relative to `dirfd`.
/// `follow` says whether a symbolic link at its end will be followed.
pub fn translate(task: &mut Task, _dirfd: i32, addr: u64, follow: bool) -> Result<Path, Errno> {
    if !guest::starts_with(addr, b"/") {
        return Ok(Path::Guest(addr));
    }
    if [&b"/proc/"[..], b"/dev/fd/"].iter().any(|start| guest::starts_with(addr, start)) {
        let name = read(addr)?;
        if proc_fs::is_kept(task, &name) {
            return Ok(Path::Replaced(proc_fs::NO_DESCRIPTOR.to_owned()));
        }
        if follow && name.to_bytes().starts_with(b"/proc/") {
            let exe = proc_fs::exe(task, &name);
            return Ok(exe.map_or(Path::Guest(addr), Path::Replaced));
        }
    }
    let Some(root) = SYSROOT.get() else {
        return Ok(Path::Guest(addr));
    };
    let name = read(addr)?;
    Ok(below(task, root, &name).map_or(Path::Guest(addr), Path::Replaced))
}

/// The name to give to the kernel for a name of the guest's world that the translator came to know.
pub fn of_translator(task: &mut Task, name: &CStr) -> CString {
    let root = SYSROOT.get().filter(|_| name.to_bytes().starts_with(b"/"));
    root.and_then(|root| below(task, root, name)).unwrap_or_else(|| name.to_owned())
}

/// Reads a file name with the kernel's limit on its length.
pub fn read(addr: u64) -> Result<CString, Errno> {
    guest::read_cstr(addr, PATH_MAX).map_err(|error| match error {
        errno::E2BIG => errno::ENAMETOOLONG,
        other => other,
    })
}

/// The name below the sysroot, if such a file exists.
fn below(task: &mut Task, root: &[u8], name: &CStr) -> Option<CString> {
    let candidate = CString::new([root, name.to_bytes()].concat()).ok()?;
    let at = AT_FDCWD as u64;
    let exists = [at, candidate.as_ptr() as u64, 0, AT_SYMLINK_NOFOLLOW, 0, 0];
    task.host_call(nr::faccessat2, exists).is_ok().then_some(candidate)
}
