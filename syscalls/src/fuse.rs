//! What a program reads that serves a file system (/dev/fuse) or a device (/dev/cuse): the kernel's requests, some of
//! which say with which flags of open(2) a file was opened (linux/fuse.h).
//!
//! Such a descriptor comes from anywhere: fusermount3 sends it, a parent leaves it. So it is known by its file, which
//! is asked for when what was read can be a request: one begins with its own length.

use std::ops::Range;

use crate::abi::{errno, open_flags};
use crate::guest;
use crate::host::{self, Errno, SysResult};
use crate::inode::Inode;
use crate::table::host as nr;
use crate::task::Task;
use crate::vectors::Vectors;

/// Bytes of `struct fuse_in_header`, which begins with the length and the operation; at 8, the request's number.
const HEADER: usize = 40;
const UNIQUE: usize = 8;

/// Operations whose requests have open flags, and where those are behind the header.
#[rustfmt::skip]
const WITH_FLAGS: &[(u32, usize)] = &[
    (14, 0),  // FUSE_OPEN
    (15, 32), // FUSE_READ
    (16, 32), // FUSE_WRITE
    (18, 8),  // FUSE_RELEASE
    (27, 0),  // FUSE_OPENDIR
    (28, 32), // FUSE_READDIR
    (29, 8),  // FUSE_RELEASEDIR
    (35, 0),  // FUSE_CREATE
    (44, 32), // FUSE_READDIRPLUS
    (51, 0),  // FUSE_TMPFILE
];

/// The first request, in which the kernel says what it can do.
const INIT: u32 = 26;
/// `flags2` of its `struct fuse_init_in`, and FUSE_OVER_IO_URING there: requests that the kernel would write into the
/// guest's memory when no call is under way that could convert them.
const FLAGS2: usize = 16;
const OVER_IO_URING: u32 = 1 << 9;

/// As much of a request as matters.
const MOST: usize = HEADER + 36;

/// The word at `at`.
fn word(request: &[u8], at: usize) -> Option<u32> {
    request.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_ne_bytes)
}

/// The beginning of a request of `len` bytes: where the guest's word differs from the host's, and what it is.
fn conversion(request: &[u8], len: u64) -> Option<(usize, u32)> {
    if u64::from(word(request, 0)?) != len {
        return None;
    }
    let operation = word(request, 4)?;
    let (at, guest) = if operation == INIT {
        let at = HEADER + FLAGS2;
        (at, word(request, at)? & !OVER_IO_URING)
    } else {
        let (_, at) = WITH_FLAGS.iter().find(|(known, _)| *known == operation)?;
        let at = HEADER + at;
        (at, open_flags::to_guest(word(request, at)?.into()) as u32)
    };
    (word(request, at) != Some(guest)).then_some((at, guest))
}

/// Whether requests are read from a descriptor.
fn has_requests(fd: u64) -> bool {
    const FUSE: u64 = libc::makedev(10, 229);
    const CUSE: u64 = libc::makedev(10, 203);
    Inode::of(fd)
        .is_some_and(|inode| inode.is(libc::S_IFCHR) && matches!(inode.device, FUSE | CUSE))
}

/// Where `range` of what was read has come to lie, in the pieces of memory that were given for it.
fn places(
    pieces: impl Iterator<Item = Range<u64>>,
    range: Range<u64>,
) -> impl Iterator<Item = Range<u64>> {
    let mut before = 0;
    pieces.filter_map(move |piece| {
        let len = piece.end - piece.start;
        let [from, to] = [range.start, range.end].map(|at| at.saturating_sub(before).min(len));
        // What the kernel did not fill may be any number.
        before = before.saturating_add(len);
        (from < to).then(|| piece.start + from..piece.start + to)
    })
}

/// Whether what was read, the first byte of which is there, may be a request, which begins with its length: nearly all that is
/// none is not from its first byte on.
#[inline]
fn looks_like_request(first: u64, read: u64) -> bool {
    read > HEADER as u64 && guest::read::<u8>(first) == Ok(read as u8)
}

/// What was read, made what the guest has to see.
#[inline(never)]
fn convert(fd: u64, read: u64, pieces: impl Iterator<Item = Range<u64>> + Clone) -> Option<()> {
    let first = places(pieces.clone(), 0..1).next()?.start;
    if !looks_like_request(first, read) {
        return None;
    }
    let mut request = [0; MOST];
    let request = &mut request[..MOST.min(read as usize)];
    let mut rest = &mut *request;
    for place in places(pieces.clone(), 0..rest.len() as u64) {
        let (part, behind) = rest.split_at_mut((place.end - place.start) as usize);
        guest::read_bytes(place.start, part).ok()?;
        rest = behind;
    }
    let (at, word) = conversion(request, read)?;
    if !has_requests(fd) {
        return None;
    }
    let mut bytes = &word.to_ne_bytes()[..];
    for place in places(pieces, at as u64..at as u64 + 4) {
        let (part, behind) = bytes.split_at((place.end - place.start) as usize);
        guest::write_bytes(place.start, part).ok()?;
        bytes = behind;
    }
    Some(())
}

/// A call that reads into one buffer.
fn read_with(task: &mut Task, nr: u64, args: [u64; 6]) -> SysResult {
    let [fd, buffer, len, ..] = args;
    let read = task.host_call(nr, args)?;
    if looks_like_request(buffer, read) {
        convert(fd, read, std::iter::once(buffer..buffer.saturating_add(len)));
    }
    Ok(read)
}

/// A call that reads into several.
fn read_vectors_with(task: &mut Task, nr: u64, mut args: [u64; 6]) -> SysResult {
    let vectors = Vectors::read(args[1], args[2]);
    args[1] = vectors.addr();
    let read = task.host_call(nr, args)?;
    convert(args[0], read, vectors.ranges());
    Ok(read)
}

/// read(2)
pub fn read(task: &mut Task, args: [u64; 6]) -> SysResult {
    read_with(task, nr::read, args)
}

/// pread64(2)
pub fn pread64(task: &mut Task, args: [u64; 6]) -> SysResult {
    read_with(task, nr::pread64, args)
}

/// readv(2)
pub fn readv(task: &mut Task, args: [u64; 6]) -> SysResult {
    read_vectors_with(task, nr::readv, args)
}

/// preadv(2)
pub fn preadv(task: &mut Task, args: [u64; 6]) -> SysResult {
    read_vectors_with(task, nr::preadv, args)
}

/// preadv2(2)
pub fn preadv2(task: &mut Task, args: [u64; 6]) -> SysResult {
    read_vectors_with(task, nr::preadv2, args)
}

/// splice(2): a request goes through memory of the translator's on its way into a pipe.
pub fn splice(task: &mut Task, args: [u64; 6]) -> SysResult {
    let [fd, offset, pipe, pipe_offset, len, flags] = args;
    if offset != 0 || pipe_offset != 0 || !has_requests(fd) {
        return task.host_call(nr::splice, args);
    }
    let Some(room) = room(task, pipe, flags)? else { return task.host_call(nr::splice, args) };
    let mut request = Vec::<u8>::with_capacity(len.min(room) as usize);
    let at = request.as_mut_ptr() as u64;
    let read = task.host_call(nr::read, [fd, at, request.capacity() as u64, 0, 0, 0])?;
    // SAFETY: the kernel has filled so many bytes.
    unsafe { request.set_len(read as usize) };
    if let Some((at, word)) = conversion(&request, read) {
        request[at..at + 4].copy_from_slice(&word.to_ne_bytes());
    }
    // Not a call that a signal ends: what was read cannot be read again.
    // SAFETY: the bytes are read only.
    let written = host::result(unsafe { host::syscall(nr::write, [pipe, at, read, 0, 0, 0]) });
    if written == Ok(read) {
        return Ok(read);
    }
    // As fuse_dev_splice_read, of a pipe with room in fewer places than the request takes.
    refuse(fd, &request);
    written.and(Err(errno::EIO))
}

/// How many bytes there are to be filled in a pipe, when there are any (wait_for_space in fs/splice.c). None if it is
/// not one, or nobody reads from it.
fn room(task: &mut Task, pipe: u64, flags: u64) -> Result<Option<u64>, Errno> {
    const F_GETFL: u64 = libc::F_GETFL as u64;
    const F_GETPIPE_SZ: u64 = libc::F_GETPIPE_SZ as u64;
    let Ok(size) = task.host_call(nr::fcntl, [pipe, F_GETPIPE_SZ, 0, 0, 0, 0]) else {
        return Ok(None);
    };
    let of_file = task.host_call(nr::fcntl, [pipe, F_GETFL, 0, 0, 0, 0])?;
    let now =
        flags & u64::from(libc::SPLICE_F_NONBLOCK) != 0 || of_file & libc::O_NONBLOCK as u64 != 0;
    let none = [0u64; 2];
    let limit = if now { none.as_ptr() as u64 } else { 0 };
    let mut poll = libc::pollfd { fd: pipe as i32, events: libc::POLLOUT, revents: 0 };
    task.host_call(nr::ppoll, [&raw mut poll as u64, 1, limit, 0, 0, 0])?;
    match poll.revents {
        0 => Err(errno::EAGAIN),
        libc::POLLOUT => {
            let mut filled = 0u32;
            let at = &raw mut filled as u64;
            task.host_call(nr::ioctl, [pipe, libc::FIONREAD, at, 0, 0, 0])?;
            Ok(Some(size.saturating_sub(filled.into())))
        }
        _ => Ok(None),
    }
}

/// Answers a request that is lost, as the kernel does for one that it cannot hand over.
fn refuse(fd: u64, request: &[u8]) {
    let Some(unique) = request.get(UNIQUE..UNIQUE + 8) else { return };
    // `struct fuse_out_header`: the length, the error, the request's number.
    let mut answer = [0; 16];
    answer[..4].copy_from_slice(&16u32.to_ne_bytes());
    answer[4..8].copy_from_slice(&(-libc::EIO).to_ne_bytes());
    answer[8..].copy_from_slice(unique);
    // To one that wants no answer the kernel says so.
    // SAFETY: the bytes are read only.
    unsafe { host::syscall(nr::write, [fd, answer.as_ptr() as u64, 16, 0, 0, 0]) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const O_DIRECTORY: u32 = 0o200000;
    const HOST_O_DIRECTORY: u32 = 0o40000;

    /// A request of an operation, with a word somewhere behind its header.
    fn request(operation: u32, at: usize, value: u32, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        bytes[..4].copy_from_slice(&(len as u32).to_ne_bytes());
        bytes[4..8].copy_from_slice(&operation.to_ne_bytes());
        bytes[HEADER + at..HEADER + at + 4].copy_from_slice(&value.to_ne_bytes());
        bytes
    }

    #[test]
    fn open_flags_of_requests_are_found() {
        for &(operation, at) in WITH_FLAGS {
            let request = request(operation, at, HOST_O_DIRECTORY | 0o2, 200);
            let wanted = Some((HEADER + at, O_DIRECTORY | 0o2));
            assert_eq!(conversion(&request, 200), wanted, "{operation}");
            assert_eq!(conversion(&request, 201), None, "{operation}");
            assert_eq!(conversion(&request[..HEADER + at + 3], 200), None, "{operation}");
            assert!(HEADER + at + 4 <= MOST);
        }
        // FUSE_GETATTR
        assert_eq!(conversion(&request(3, 0, HOST_O_DIRECTORY, 200), 200), None);
        // Nothing to change.
        assert_eq!(conversion(&request(14, 0, 0o2, 48), 48), None);
    }

    #[test]
    fn rings_are_not_offered() {
        let offer = request(INIT, FLAGS2, OVER_IO_URING | 5, 104);
        assert_eq!(conversion(&offer, 104), Some((HEADER + FLAGS2, 5)));
        // As of kernels before Linux 5.17, which have no second word of flags.
        assert_eq!(conversion(&request(INIT, 0, 5, 56), 56), None);
    }

    #[test]
    fn requests_are_known_by_their_device() {
        use std::os::fd::AsRawFd;
        let null = std::fs::File::open("/dev/null").unwrap();
        let bytes = request(14, 0, HOST_O_DIRECTORY, 48);
        let range = bytes.as_ptr() as u64..bytes.as_ptr() as u64 + 48;
        assert_eq!(convert(null.as_raw_fd() as u64, 48, std::iter::once(range)), None);
        assert_eq!(word(&bytes, HEADER), Some(HOST_O_DIRECTORY));
    }

    proptest! {
        #[test]
        fn pieces_hold_what_was_read(lens in prop::collection::vec(0u64..20, 1..9), range in (0u64..100, 0u64..20)) {
            // The pieces are apart from each other; byte n of them together is at all[n].
            let pieces: Vec<_> = lens.iter().zip((1000..).step_by(100)).map(|(len, at)| at..at + len).collect();
            let all: Vec<u64> = pieces.iter().cloned().flatten().collect();
            let range = range.0..range.0 + range.1;
            let found: Vec<u64> = places(pieces.into_iter(), range.clone()).flatten().collect();
            let wanted = all.iter().skip(range.start as usize).take((range.end - range.start) as usize);
            prop_assert_eq!(found, wanted.copied().collect::<Vec<_>>());
        }
    }
}
