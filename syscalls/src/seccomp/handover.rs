//! The filters on their way over execve(2). A program that is executed has the filters of the one that did it, but
//! its translator is another process image: it finds them in a sealed file that comes along as a descriptor.
//!
//! The file is believed only if its digest is what the host's kernel says ([`super::mirror`]), so that nobody can
//! give a program, one with more privileges least of all, other filters than it has. If the kernel says that there
//! are filters and they have not come along, the program does not run.

use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::filter::Filter;
use super::mirror;
use super::threads::{FILTER, Thread};
use crate::abi::errno;
use crate::fds;
use crate::host::Errno;

/// Filters readied for execve(2). Dropped when that has failed.
pub(crate) struct Handover<'a> {
    thread: &'a Thread,
    fd: RawFd,
}

/// Readies a thread's filters, if it has any.
pub(crate) fn ready(thread: &Thread) -> Result<Option<Handover<'_>>, Errno> {
    let filter = thread.filter().filter(|_| thread.mode() == FILTER);
    let Some(filter) = filter else { return Ok(None) };
    let made = sealed(&filter.to_bytes())
        .map_err(|error| error.raw_os_error().map_or(errno::EMFILE, Errno))?;
    let kept = fds::keep(made);
    // SAFETY: the descriptor made above; the one that is kept is closed by its owner or left to the next program.
    unsafe {
        libc::close(made);
        libc::fcntl(kept.ok_or(errno::EMFILE)?, libc::F_SETFD, 0);
    }
    let fd = kept.ok_or(errno::EMFILE)?;
    thread.handed_over.store(fd, Ordering::Relaxed);
    Ok(Some(Handover { thread, fd }))
}

impl Drop for Handover<'_> {
    fn drop(&mut self) {
        self.thread.handed_over.store(0, Ordering::Relaxed);
        fds::release(self.fd);
    }
}

impl Thread {
    /// The descriptor of the filters that go over the execve(2) which is being made.
    pub(crate) fn handed_over(&self) -> Option<RawFd> {
        Some(self.handed_over.load(Ordering::Relaxed)).filter(|&fd| fd > 0)
    }
}

/// A file without a name whose contents stay as they are.
fn sealed(bytes: &[u8]) -> io::Result<RawFd> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: system calls on a literal name, a live slice, and the descriptor made here.
    unsafe {
        let fd = libc::memfd_create(c"seccomp".as_ptr(), flags);
        let written = libc::write(fd, bytes.as_ptr().cast(), bytes.len());
        if written == bytes.len() as isize && libc::fcntl(fd, libc::F_ADD_SEALS, SEALS) == 0 {
            return Ok(fd);
        }
        let error = io::Error::last_os_error();
        libc::close(fd);
        Err(error)
    }
}

const SEALS: i32 = libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;

/// The contents of such a file; none of another.
fn contents(fd: RawFd) -> Option<Vec<u8>> {
    /// More than the longest chain has.
    const LIMIT: i64 = 1 << 20;
    // SAFETY: asks about a descriptor, if it is one.
    let (seals, size) =
        unsafe { (libc::fcntl(fd, libc::F_GET_SEALS), libc::lseek(fd, 0, libc::SEEK_END)) };
    if seals & SEALS != SEALS || seals < 0 || !(1..=LIMIT).contains(&size) {
        return None;
    }
    let mut bytes = vec![0; size as usize];
    // SAFETY: the buffer has that length.
    let read = unsafe { libc::pread(fd, bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    (read == size as isize).then_some(bytes)
}

/// The filters that this process was executed with. `named` is the descriptor that the translator before named, for
/// hosts whose kernel has no filters itself. An error if there are some and they have not come along.
pub(crate) fn adopt(named: Option<RawFd>) -> Result<Option<Arc<Filter>>, &'static str> {
    /// Above all that [`fds::keep`] gives.
    const END: RawFd = 1 << 10;
    let wanted = mirror::read();
    let candidates = match (wanted, named) {
        (Some(_), _) => 0..END,
        (None, Some(fd)) => fd..fd + 1,
        (None, None) => return Ok(None),
    };
    let mut found = None;
    for fd in candidates.rev() {
        let Some(bytes) = contents(fd) else { continue };
        if wanted.is_none_or(|wanted| wanted == mirror::digest(&bytes)) {
            found = found.or_else(|| Filter::from_bytes(&bytes));
            // SAFETY: it was opened for us alone.
            unsafe { libc::close(fd) };
        }
    }
    found.map(Some).ok_or("the filters of its system calls (seccomp) have not come along")
}

#[cfg(test)]
mod tests {
    use super::super::bpf::code::RET_K;
    use super::super::bpf::{Instruction, Program};
    use super::*;

    #[test]
    fn filters_come_along() {
        let program = Program::new(vec![Instruction::new(RET_K, 0x7fff_0000)]).unwrap();
        let filter = Arc::new(Filter::new(program, Filter::flags(true, false), None).unwrap());
        let bytes = filter.to_bytes();
        let thread = Thread::default();
        assert!(ready(&thread).unwrap().is_none());
        thread.set(filter);
        {
            let handover = ready(&thread).unwrap().unwrap();
            assert_eq!(thread.handed_over(), Some(handover.fd));
            assert!(fds::is_kept(handover.fd));
            // SAFETY: asks for flags.
            assert_eq!(unsafe { libc::fcntl(handover.fd, libc::F_GETFD) }, 0);
            assert_eq!(contents(handover.fd).as_deref(), Some(&bytes[..]));
            // As the next translator takes it over, from another descriptor.
            // SAFETY: makes a descriptor, which is closed by `adopt`.
            let other = unsafe { libc::fcntl(handover.fd, libc::F_DUPFD_CLOEXEC, 3) };
            assert_eq!(adopt(Some(other)).unwrap().unwrap().to_bytes(), bytes);
            // It is closed; another test's may have its number by now.
            assert_ne!(contents(other).as_deref(), Some(&bytes[..]));
        }
        assert_eq!(thread.handed_over(), None);
        assert!(adopt(Some(2)).is_err());
        assert!(adopt(None).unwrap().is_none());
    }

    #[test]
    fn only_sealed_files_are_believed() {
        let fd = sealed(b"12345678").unwrap();
        // SAFETY: writes to our own descriptor.
        assert_eq!(unsafe { libc::pwrite(fd, b"x".as_ptr().cast(), 1, 0) }, -1);
        // SAFETY: a file that can still be changed, and both descriptors are ours.
        unsafe {
            let open = libc::memfd_create(c"x".as_ptr(), libc::MFD_ALLOW_SEALING);
            libc::write(open, b"12345678".as_ptr().cast(), 8);
            assert_eq!(contents(open), None);
            libc::close(open);
            libc::close(fd);
        }
    }
}
