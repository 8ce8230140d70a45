//! Messages of the translator, one line each, on a descriptor of its own.

use std::fmt::{Arguments, Write};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use crate::fds;

/// Where lines go: standard error until [`init`].
static FD: AtomicI32 = AtomicI32::new(2);

/// Whether [`warn`] says anything.
static WARNINGS: AtomicBool = AtomicBool::new(true);

/// Keeps standard error for the translator, whatever the guest does with descriptor 2, and
/// turns warnings on or off.
pub fn init(warnings: bool) {
    WARNINGS.store(warnings, Ordering::Relaxed);
    if let Some(fd) = fds::keep(2) {
        FD.store(fd, Ordering::Relaxed);
    }
}

/// Writes `demotic: message` as one line.
pub fn line(message: Arguments<'_>) {
    let mut text = String::from("demotic: ");
    // Writing to a String cannot fail.
    let _ = write!(text, "{message}");
    text.push('\n');
    write_all(FD.load(Ordering::Relaxed), text.as_bytes());
}

/// The same for what the user may not want to hear of: that the guest asked for something that is not there.
pub fn warn(message: Arguments<'_>) {
    if WARNINGS.load(Ordering::Relaxed) {
        line(message);
    }
}

/// Writes bytes with one write(2) where possible: no lock is held, so a fork cannot leave one behind.
pub(crate) fn write_all(fd: i32, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        // SAFETY: the buffer is a live slice.
        let n = unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) };
        match n {
            n if n > 0 => bytes = &bytes[n as usize..],
            _ if std::io::Error::last_os_error().kind() == std::io::ErrorKind::Interrupted => {}
            // Nobody is left to tell.
            _ => return,
        }
    }
}
