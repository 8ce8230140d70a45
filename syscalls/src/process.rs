//! What a process is to others: its name and its settings.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Names the thread after the program, as execve(2) does.
pub(crate) fn set_name(path: &Path) {
    let name = path.file_name().unwrap_or_default();
    let Ok(name) = CString::new(name.as_bytes()) else {
        return;
    };
    // SAFETY: the kernel copies up to 16 bytes of a string.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
}
