//! `--jit-dump`: /tmp/jit-PID.dump, from which `perf inject --jit` takes translated code with its names, so that
//! perf-annotate(1) shows it (Linux, tools/perf/Documentation/jitdump-specification.txt).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

static ENABLED: AtomicBool = AtomicBool::new(false);
/// How many stretches of code have been noted: each has a number.
static NOTED: AtomicU64 = AtomicU64::new(0);

/// "JiTD", in the byte order of the file.
const MAGIC: u32 = 0x4a69_5444;
const VERSION: u32 = 1;
const HEADER_SIZE: u32 = 40;
const EM_AARCH64: u32 = 183;
/// A record of code, and its length without name and code.
const JIT_CODE_LOAD: u32 = 0;
const CODE_LOAD_SIZE: usize = 56;

/// Whether a file is written. One from an earlier process of the same number is replaced.
pub fn enable(enabled: bool) {
    ENABLED.store(enabled, Ordering::Relaxed);
    if enabled {
        begin();
    }
}

/// In a forked process: perf knows that it has its parent's code. What it translates itself goes to a file of its own.
pub fn forked() {
    if ENABLED.load(Ordering::Relaxed) {
        begin();
    }
}

/// Adds a stretch of translated code. The file is open only meanwhile: the guest has no descriptor too many.
pub fn note(host: u64, len: u32, name: impl FnOnce() -> String) {
    if ENABLED.load(Ordering::Relaxed) {
        // SAFETY: the caller's code, which has been written and stays readable.
        let code = unsafe { std::slice::from_raw_parts(host as *const u8, len as usize) };
        let record = code_load(host, code, &name());
        // Without the file perf shows addresses: that it could not be written is nothing to stop for.
        let _ = open().and_then(|mut file| file.write_all(&record));
    }
}

fn path() -> PathBuf {
    format!("/tmp/jit-{}.dump", process::id()).into()
}

fn open() -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true).custom_flags(libc::O_NOFOLLOW).open(path())
}

/// Begins the file. That it is mapped, with the right to execute, tells perf-record(1) of it.
fn begin() {
    let _ = fs::remove_file(path());
    let begun = open().and_then(|mut file| {
        file.write_all(&header())?;
        Ok(file)
    });
    if let Ok(file) = begun {
        let (prot, fd) = (libc::PROT_READ | libc::PROT_EXEC, file.as_raw_fd());
        // SAFETY: a new mapping wherever the kernel has room, which stays as long as the process.
        unsafe { libc::mmap(std::ptr::null_mut(), 1, prot, libc::MAP_PRIVATE, fd, 0) };
    }
}

fn header() -> Vec<u8> {
    let mut header = Vec::with_capacity(HEADER_SIZE as usize);
    for word in [MAGIC, VERSION, HEADER_SIZE, EM_AARCH64, 0, process::id()] {
        header.extend(word.to_ne_bytes());
    }
    // No flags.
    for word in [now(), 0] {
        header.extend(word.to_ne_bytes());
    }
    header
}

fn code_load(host: u64, code: &[u8], name: &str) -> Vec<u8> {
    let size = CODE_LOAD_SIZE + name.len() + 1 + code.len();
    let mut record = Vec::with_capacity(size);
    for word in [JIT_CODE_LOAD, size as u32] {
        record.extend(word.to_ne_bytes());
    }
    record.extend(now().to_ne_bytes());
    // SAFETY: no arguments.
    let thread = unsafe { libc::gettid() } as u32;
    for word in [process::id(), thread] {
        record.extend(word.to_ne_bytes());
    }
    let number = NOTED.fetch_add(1, Ordering::Relaxed);
    for word in [host, host, code.len() as u64, number] {
        record.extend(word.to_ne_bytes());
    }
    record.extend(name.bytes().filter(|&byte| byte != 0));
    record.resize(size - code.len(), 0);
    record.extend(code);
    record
}

/// The time as `perf record -k mono` tells it, in nanoseconds.
fn now() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: room for the answer.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sizes and places as the specification has them.
    #[test]
    fn records_are_as_perf_reads_them() {
        assert_eq!(header().len(), HEADER_SIZE as usize);
        assert_eq!(header()[..4], *b"DTiJ"); // this processor's byte order is the other one
        let record = code_load(0x1234_5678, &[0xc0, 0x03, 0x5f, 0xd6], "main+0x4");
        let word = |at: usize| u64::from_ne_bytes(record[at..at + 8].try_into().unwrap());
        assert_eq!(word(0) >> 32, record.len() as u64);
        assert_eq!((word(24), word(32), word(40)), (0x1234_5678, 0x1234_5678, 4));
        assert_eq!(&record[CODE_LOAD_SIZE..], b"main+0x4\0\xc0\x03\x5f\xd6");
    }
}
