//! `--perf-map`: /tmp/perf-PID.map, from which perf(1) takes the names of code that is in no file
//! (Linux, tools/perf/Documentation/jit-interface.txt).

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};

static ENABLED: AtomicBool = AtomicBool::new(false);

/// Whether a map is written. One from an earlier process of the same number is removed.
pub fn enable(enabled: bool) {
    ENABLED.store(enabled, Ordering::Relaxed);
    if enabled {
        let _ = fs::remove_file(path(process::id()));
    }
}

fn path(pid: u32) -> PathBuf {
    format!("/tmp/perf-{pid}.map").into()
}

/// Adds a stretch of translated code. The file is open only meanwhile: the guest has no descriptor too many, and a
/// forked process writes its own.
pub fn note(host: u64, len: u32, name: impl FnOnce() -> String) {
    if ENABLED.load(Ordering::Relaxed) {
        append(&format!("{host:x} {len:x} {}\n", name()));
    }
}

/// In a forked process, which goes on with its parent's code: that is in its map, too.
pub fn forked(parent: u32) {
    if ENABLED.load(Ordering::Relaxed) {
        let _ = fs::remove_file(path(process::id()));
        append(&fs::read_to_string(path(parent)).unwrap_or_default());
    }
}

/// Without a map perf shows addresses: that it could not be written is nothing to stop for.
fn append(text: &str) {
    let mut options = OpenOptions::new();
    options.append(true).create(true).custom_flags(libc::O_NOFOLLOW);
    if let Ok(mut file) = options.open(path(process::id())) {
        let _ = file.write_all(text.as_bytes());
    }
}
