//! Submission entries: which members of which operations are not the same for both architectures.

use std::ops::{Range, RangeInclusive};

use crate::abi::epoll::{GuestEpollEvent, HostEpollEvent};
use crate::abi::{AT_FDCWD, AT_SYMLINK_FOLLOW, AT_SYMLINK_NOFOLLOW, layout, open_flags};
use crate::files::{self, OpenHow};
use crate::memory::host_page_size;
use crate::sockets::Pointed;
use crate::task::Task;
use crate::vectors::Vectors;
use crate::{guest, paths};

/// The first 64 bytes of `struct io_uring_sqe`; those behind (IORING_SETUP_SQE128) are a driver's.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    pub opcode: u8,
    pub flags: u8,
    pub ioprio: u16,
    pub fd: i32,
    /// `off` of other operations.
    pub addr2: u64,
    pub addr: u64,
    pub len: u32,
    /// `open_flags`, `rw_flags` and so on.
    pub op_flags: u32,
    pub user_data: u64,
    pub buffer: [u16; 2],
    pub file_index: u32,
    pub addr3: u64,
    pub pad: u64,
}
layout!(Entry, 64, fd @ 4, addr @ 16, op_flags @ 28, user_data @ 32, addr3 @ 48);

/// Operations (enum io_uring_op).
#[allow(missing_docs)]
pub mod op {
    pub const READV: u8 = 1;
    pub const WRITEV: u8 = 2;
    pub const READ_FIXED: u8 = 4;
    pub const WRITE_FIXED: u8 = 5;
    pub const SENDMSG: u8 = 9;
    pub const RECVMSG: u8 = 10;
    pub const TIMEOUT: u8 = 11;
    pub const TIMEOUT_REMOVE: u8 = 12;
    pub const ACCEPT: u8 = 13;
    pub const LINK_TIMEOUT: u8 = 15;
    pub const CONNECT: u8 = 16;
    pub const OPENAT: u8 = 18;
    pub const FILES_UPDATE: u8 = 20;
    pub const STATX: u8 = 21;
    pub const READ: u8 = 22;
    pub const WRITE: u8 = 23;
    pub const MADVISE: u8 = 25;
    pub const SEND: u8 = 26;
    pub const RECV: u8 = 27;
    pub const OPENAT2: u8 = 28;
    pub const EPOLL_CTL: u8 = 29;
    pub const PROVIDE_BUFFERS: u8 = 31;
    pub const RENAMEAT: u8 = 35;
    pub const UNLINKAT: u8 = 36;
    pub const MKDIRAT: u8 = 37;
    pub const SYMLINKAT: u8 = 38;
    pub const LINKAT: u8 = 39;
    pub const FSETXATTR: u8 = 41;
    pub const SETXATTR: u8 = 42;
    pub const FGETXATTR: u8 = 43;
    pub const GETXATTR: u8 = 44;
    pub const URING_CMD: u8 = 46;
    pub const SEND_ZC: u8 = 47;
    pub const SENDMSG_ZC: u8 = 48;
    pub const WAITID: u8 = 50;
    pub const FUTEX_WAIT: u8 = 51;
    pub const FUTEX_WAKE: u8 = 52;
    pub const FUTEX_WAITV: u8 = 53;
    pub const BIND: u8 = 56;
    pub const EPOLL_WAIT: u8 = 59;
    pub const READV_FIXED: u8 = 60;
    pub const WRITEV_FIXED: u8 = 61;
    pub const PIPE: u8 = 62;
    /// None: the kernel completes it with EINVAL, as one that it does not know.
    pub const NONE: u8 = 0xff;
}

/// What a member of an entry is. Whatever is not said of one is a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Is {
    /// Open flags.
    OpenFlags,
    /// Address of something that is the same for both.
    Address,
    /// Address of so many bytes as the entry says.
    Bytes,
    /// The same, and the kernel writes them.
    Buffer,
    /// The same for as many buffers as the entry says.
    Buffers,
    /// Address of so many `struct iovec` as the entry says.
    Pieces,
    /// The same, and the kernel writes what they point to.
    BufferPieces,
    /// Address of bytes or, if a flag says so, of `struct iovec`.
    Sent,
    /// Address of a `struct msghdr`.
    Message,
    /// The same, and the kernel writes what it points to.
    BufferMessage,
    /// Address of so many `struct futex_waitv` as the entry says.
    Waiters,
    /// Address of a socket option's value, if the command is about one.
    OptionValue,
    /// Address of a file name, with the descriptor it starts from.
    Path(Member, Follow),
    /// Address of a `struct open_how`.
    How,
    /// Address of a `struct epoll_event`.
    Event,
}

/// Whether a symbolic link at the end of a file name is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Follow {
    Never,
    Always,
    /// By AT_SYMLINK_NOFOLLOW.
    Unless,
    /// By AT_SYMLINK_FOLLOW.
    If,
    /// By O_NOFOLLOW.
    ByOpenFlags,
    /// By O_NOFOLLOW in the `struct open_how`.
    ByHow,
}

/// A member of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Member {
    Fd,
    /// The current directory, where another member would be a descriptor.
    Directory,
    Addr,
    Addr2,
    Addr3,
    Len,
    OpFlags,
}

use Follow::*;
use Is::*;
use Member::*;

/// What there is to look at.
#[rustfmt::skip]
const MEMBERS: &[(u8, &[(Member, Is)])] = &[
    (op::READV, &[(Addr, BufferPieces)]),
    (op::WRITEV, &[(Addr, Pieces)]),
    (op::READ_FIXED, &[(Addr, Buffer)]),
    (op::WRITE_FIXED, &[(Addr, Bytes)]),
    (op::SENDMSG, &[(Addr, Message)]),
    (op::RECVMSG, &[(Addr, BufferMessage)]),
    (op::TIMEOUT, &[(Addr, Address)]),
    (op::TIMEOUT_REMOVE, &[(Addr2, Address)]),
    (op::ACCEPT, &[(Addr, Address), (Addr2, Address)]),
    (op::LINK_TIMEOUT, &[(Addr, Address)]),
    (op::CONNECT, &[(Addr, Address)]),
    (op::OPENAT, &[(Addr, Path(Fd, ByOpenFlags)), (OpFlags, OpenFlags)]),
    (op::FILES_UPDATE, &[(Addr, Address)]),
    (op::STATX, &[(Addr, Path(Fd, Unless)), (Addr2, Address)]),
    (op::READ, &[(Addr, Buffer)]),
    (op::WRITE, &[(Addr, Bytes)]),
    (op::MADVISE, &[(Addr, Buffer)]),
    (op::SEND, &[(Addr, Sent), (Addr2, Address)]),
    (op::RECV, &[(Addr, Buffer)]),
    (op::OPENAT2, &[(Addr, Path(Fd, ByHow)), (Addr2, How)]),
    (op::EPOLL_CTL, &[(Addr, Event)]),
    (op::PROVIDE_BUFFERS, &[(Addr, Buffers)]),
    (op::RENAMEAT, &[(Addr, Path(Fd, Never)), (Addr2, Path(Len, Never))]),
    (op::UNLINKAT, &[(Addr, Path(Fd, Never))]),
    (op::MKDIRAT, &[(Addr, Path(Fd, Never))]),
    (op::SYMLINKAT, &[(Addr, Address), (Addr2, Path(Fd, Never))]),
    (op::LINKAT, &[(Addr, Path(Fd, If)), (Addr2, Path(Len, Never))]),
    (op::FSETXATTR, &[(Addr, Address), (Addr2, Address)]),
    (op::SETXATTR, &[(Addr, Address), (Addr2, Address), (Addr3, Path(Directory, Always))]),
    (op::FGETXATTR, &[(Addr, Address), (Addr2, Address)]),
    (op::GETXATTR, &[(Addr, Address), (Addr2, Address), (Addr3, Path(Directory, Always))]),
    (op::URING_CMD, &[(Addr3, OptionValue)]),
    (op::SEND_ZC, &[(Addr, Sent), (Addr2, Address)]),
    (op::SENDMSG_ZC, &[(Addr, Message)]),
    (op::WAITID, &[(Addr2, Address)]),
    (op::FUTEX_WAIT, &[(Addr, Address)]),
    (op::FUTEX_WAKE, &[(Addr, Address)]),
    (op::FUTEX_WAITV, &[(Addr, Waiters)]),
    (op::BIND, &[(Addr, Address)]),
    (op::READV_FIXED, &[(Addr, BufferPieces)]),
    (op::WRITEV_FIXED, &[(Addr, Pieces)]),
    (op::PIPE, &[(Addr, Address), (OpFlags, OpenFlags)]),
];

/// The rows of [`MEMBERS`] by operation.
static BY_OPERATION: [&[(Member, Is)]; 256] = {
    let mut rows: [&[(Member, Is)]; 256] = [&[]; 256];
    let mut i = 0;
    while i < MEMBERS.len() {
        rows[MEMBERS[i].0 as usize] = MEMBERS[i].1;
        i += 1;
    }
    rows
};

/// Whether an operation is refused whatever its members: EPOLL_WAIT writes events of the host's form into the guest's
/// memory when no call is under way that could convert them.
pub fn is_refused(opcode: u8) -> bool {
    opcode == op::EPOLL_WAIT
}

/// What an entry that was converted points to. It is read while the entry is submitted.
#[derive(Debug, Default)]
pub struct Attached {
    how: Option<Box<OpenHow>>,
    event: Option<Box<HostEpollEvent>>,
    vectors: Option<Box<Vectors>>,
    paths: Vec<paths::Path>,
}

/// The entry as the host has to see it, if that is another one. What cannot be read is left to the kernel to find.
pub fn convert(task: &mut Task, guest: &Entry) -> Option<(Entry, Attached)> {
    let (mut host, mut attached) = (*guest, Attached::default());
    if is_refused(guest.opcode) || discards_too_much(guest, host_page_size()) {
        host.opcode = op::NONE;
    }
    for (member, is) in BY_OPERATION[usize::from(guest.opcode)] {
        convert_member(task, guest, *member, *is, &mut host, &mut attached);
    }
    (host != *guest).then_some((host, attached))
}

fn convert_member(
    task: &mut Task,
    guest: &Entry,
    member: Member,
    is: Is,
    host: &mut Entry,
    attached: &mut Attached,
) {
    let value = guest.get(member);
    if is == OpenFlags {
        host.op_flags = open_flags::to_host(value) as u32;
        return;
    }
    let Some(is) = guest.exactly(is) else { return };
    let len = guest.bytes(is);
    let in_reach = guest::range_for_kernel(value, len);
    if value != in_reach {
        // What the guest cannot have is not the translator's either.
        host.set(member, in_reach);
        return;
    }
    match is {
        Buffer | Buffers => open_buffers(task, std::iter::once(value..value + len)),
        Pieces | BufferPieces => {
            let vectors = Vectors::of_guest(value, guest.len.into());
            if is == BufferPieces {
                open_buffers(task, vectors.ranges());
            }
            if !vectors.is_in_reach() {
                let vectors = Vectors::read(value, guest.len.into());
                host.set(member, attached.vectors.insert(Box::new(vectors)).addr());
            }
        }
        Message | BufferMessage => {
            let Some(pointed) = Pointed::by(value) else { return };
            if !pointed.is_in_reach() {
                host.set(member, guest::NOWHERE);
            } else if is == BufferMessage {
                open_buffers(task, pointed.ranges());
            }
        }
        Waiters => {
            if !waits_in_reach(value, guest.len) {
                host.set(member, guest::NOWHERE);
            }
        }
        Path(dirfd, follow) => {
            let dirfd = guest.get(dirfd) as i32;
            if let Ok(path) = paths::translate(task, dirfd, value, guest.follows(follow)) {
                host.set(member, path.addr());
                attached.paths.push(path);
            }
        }
        How => {
            if let Ok(mut how) = files::read_how(value, guest.len.into()) {
                how.flags = open_flags::to_host(how.flags);
                let how = attached.how.insert(Box::new(how));
                host.set(member, &raw const **how as u64);
                host.len = size_of::<OpenHow>() as u32;
            }
        }
        Event => {
            if let Ok(event) = guest::read::<GuestEpollEvent>(value) {
                let event = attached.event.insert(Box::new(event.into()));
                host.set(member, &raw const **event as u64);
            }
        }
        Address | Bytes | Sent | OptionValue | OpenFlags => {}
    }
}

/// Readies memory for the kernel to write to at any time.
fn open_buffers(task: &mut Task, ranges: impl IntoIterator<Item = Range<u64>>) {
    for range in ranges {
        task.runtime().memory.open_buffer(range.start, range.end - range.start);
    }
}

/// Whether futexes are where a guest can have memory, as far as they can be read.
fn waits_in_reach(addr: u64, count: u32) -> bool {
    /// FUTEX_WAITV_MAX.
    const MAX: u32 = 128;
    // `struct futex_waitv`: a value, the address, flags.
    let waiters = (addr..).step_by(24).take(count.min(MAX) as usize);
    let mut futexes = waiters.map_while(|waiter| guest::read::<u64>(waiter + 8).ok());
    futexes.all(|futex| guest::for_kernel(futex) == futex)
}

/// Whether an IORING_OP_MADVISE would take away memory beside what it names, because the host's pages are larger.
fn discards_too_much(entry: &Entry, page: u64) -> bool {
    entry.opcode == op::MADVISE
        && matches!(
            entry.op_flags as i32,
            libc::MADV_DONTNEED | libc::MADV_FREE | libc::MADV_REMOVE
        )
        && !(entry.addr.is_multiple_of(page) && u64::from(entry.len).is_multiple_of(page))
}

impl Entry {
    fn get(&self, member: Member) -> u64 {
        match member {
            Fd => self.fd as u64,
            Directory => AT_FDCWD as u64,
            Addr => self.addr,
            Addr2 => self.addr2,
            Addr3 => self.addr3,
            Len => self.len.into(),
            OpFlags => self.op_flags.into(),
        }
    }

    /// What a member is, where that depends on others; none if it is a number.
    fn exactly(&self, is: Is) -> Option<Is> {
        /// IORING_SEND_VECTORIZED.
        const VECTORIZED: u16 = 1 << 5;
        /// SOCKET_URING_OP_GETSOCKOPT and SOCKET_URING_OP_SETSOCKOPT; other files' commands are large numbers.
        const OPTION_COMMANDS: RangeInclusive<u32> = 2..=3;
        Some(match is {
            Sent if self.ioprio & VECTORIZED != 0 => Pieces,
            Sent => Bytes,
            OptionValue if OPTION_COMMANDS.contains(&(self.addr2 as u32)) => Address,
            OptionValue => return None,
            other => other,
        })
    }

    /// How many bytes there are at an address.
    fn bytes(&self, is: Is) -> u64 {
        match is {
            Bytes | Buffer => self.len.into(),
            Buffers => u64::from(self.len) * u64::from(self.fd as u32),
            _ => 0,
        }
    }

    /// Puts an address into a member.
    fn set(&mut self, member: Member, addr: u64) {
        match member {
            Addr => self.addr = addr,
            Addr2 => self.addr2 = addr,
            Addr3 => self.addr3 = addr,
            Fd | Directory | Len | OpFlags => unreachable!("not an address"),
        }
    }

    fn follows(&self, follow: Follow) -> bool {
        const O_NOFOLLOW: u64 = 0o400000;
        match follow {
            Never => false,
            Always => true,
            Unless => self.op_flags & AT_SYMLINK_NOFOLLOW as u32 == 0,
            If => self.op_flags & AT_SYMLINK_FOLLOW as u32 != 0,
            ByOpenFlags => u64::from(self.op_flags) & O_NOFOLLOW == 0,
            ByHow => guest::read::<u64>(self.addr2).is_ok_and(|flags| flags & O_NOFOLLOW == 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn converted(entry: &Entry) -> Option<(Entry, Attached)> {
        convert(&mut Task::for_test(), entry)
    }

    proptest! {
        #[test]
        fn what_differs_is_converted_and_nothing_else(op_flags: u32, user_data: u64, fd: i32, event: (u32, u64)) {
            let guest = Entry { fd, op_flags, user_data, ..Entry::default() };
            let flags = open_flags::to_host(op_flags.into()) as u32;
            let pipe = Entry { opcode: op::PIPE, ..guest };
            let host = converted(&pipe).map_or(pipe, |(host, _)| host);
            prop_assert_eq!(host, Entry { op_flags: flags, ..pipe });
            prop_assert_eq!(open_flags::to_guest(flags.into()), u64::from(op_flags));

            let given = GuestEpollEvent { events: event.0, data: event.1 };
            let control = Entry { opcode: op::EPOLL_CTL, addr: &raw const given as u64, ..guest };
            let (host, attached) = converted(&control).unwrap();
            prop_assert_eq!(Entry { addr: control.addr, ..host }, control);
            prop_assert_eq!(GuestEpollEvent::from(*attached.event.unwrap()), given);
        }
    }

    #[test]
    fn flags_of_open_change_places() {
        let name = c"file";
        let guest = Entry {
            opcode: op::OPENAT,
            fd: AT_FDCWD,
            addr: name.as_ptr() as u64,
            op_flags: 0o200000 | 0o2000000,
            user_data: 7,
            ..Entry::default()
        };
        let (host, _) = converted(&guest).unwrap();
        assert_eq!(host, Entry { op_flags: 0o40000 | 0o2000000, ..guest });
        assert!(converted(&Entry { op_flags: 0o2000000, ..guest }).is_none());
        assert!(converted(&Entry { opcode: op::READV, ..guest }).is_none());
        let (host, _) = converted(&Entry { opcode: op::PIPE, ..guest }).unwrap();
        assert_eq!(host.op_flags, 0o40000 | 0o2000000);
    }

    #[test]
    fn structures_are_attached() {
        let event = GuestEpollEvent { events: 5, data: 6 };
        let guest =
            Entry { opcode: op::EPOLL_CTL, addr: &raw const event as u64, ..Entry::default() };
        let (host, attached) = converted(&guest).unwrap();
        let attached = attached.event.unwrap();
        assert_eq!(host.addr, &raw const *attached as u64);
        assert_eq!(*attached, HostEpollEvent { events: 5, pad: 0, data: 6 });

        // Larger than known here, with zeros behind.
        let how = [0o200000u64, 0, 8, 0];
        let guest = Entry {
            opcode: op::OPENAT2,
            addr: c"x".as_ptr() as u64,
            addr2: how.as_ptr() as u64,
            len: 32,
            ..Entry::default()
        };
        let (host, attached) = converted(&guest).unwrap();
        assert_eq!(*attached.how.unwrap(), OpenHow { flags: 0o40000, mode: 0, resolve: 8 });
        assert_eq!(host.len, 24);
    }

    #[test]
    fn addresses_beyond_the_guests_are_bad() {
        let entry = |opcode| Entry { opcode, addr: 1 << 47, ..Entry::default() };
        assert_eq!(converted(&entry(op::WRITE)).unwrap().0.addr, 1 << 47 | guest::NOWHERE);
        // A number, not an address: IORING_OP_POLL_REMOVE.
        assert!(converted(&entry(7)).is_none());
    }

    #[test]
    fn buffers_end_where_the_guests_memory_does() {
        let entry = |opcode, len, fd| {
            let addr = (1 << 47) - 8;
            converted(&Entry { opcode, addr, len, fd, ..Entry::default() }).is_some()
        };
        assert!(!entry(op::WRITE, 8, 0) && entry(op::WRITE, 9, 0));
        assert!(!entry(op::SEND_ZC, 8, 0) && entry(op::SEND_ZC, 9, 0));
        assert!(entry(op::PROVIDE_BUFFERS, 8, 2));
    }

    #[test]
    fn structures_are_looked_into() {
        let pieces = [[0x1000u64, 8], [1 << 47, 8]];
        let at = pieces.as_ptr() as u64;
        let writev = |len| Entry { opcode: op::WRITEV, addr: at, len, ..Entry::default() };
        assert!(converted(&writev(1)).is_none());
        let (host, attached) = converted(&writev(2)).unwrap();
        let vectors = attached.vectors.unwrap();
        assert_eq!(host.addr, vectors.addr());
        assert_eq!(
            guest::read::<[u64; 4]>(host.addr),
            Ok([0x1000, 8, 1 << 47 | guest::NOWHERE, 8])
        );
        let send = Entry { opcode: op::SEND, ..writev(2) };
        assert!(converted(&send).is_none());
        assert!(converted(&Entry { ioprio: 1 << 5, ..send }).is_some());

        let message = |count| [0u64, 0, at, count, 0, 0, 0];
        let sendmsg = |message: &[u64; 7]| {
            let addr = message.as_ptr() as u64;
            converted(&Entry { opcode: op::SENDMSG, addr, ..Entry::default() })
                .map(|(host, _)| host.addr)
        };
        assert_eq!(sendmsg(&message(1)), None);
        assert_eq!(sendmsg(&message(2)), Some(guest::NOWHERE));

        let waiters = [[0u64, 0x1000, 2], [0, 1 << 47, 2]];
        let addr = waiters.as_ptr() as u64;
        let wait =
            |len| converted(&Entry { opcode: op::FUTEX_WAITV, addr, len, ..Entry::default() });
        assert!(wait(1).is_none());
        assert_eq!(wait(2).unwrap().0.addr, guest::NOWHERE);

        let command =
            |addr2| Entry { opcode: op::URING_CMD, addr2, addr3: 1 << 47, ..Entry::default() };
        assert!(converted(&command(2)).is_some());
        assert!(converted(&command(0xc048_4e80)).is_none());
    }

    #[test]
    fn what_cannot_be_converted_is_refused() {
        let entry = Entry { opcode: op::EPOLL_WAIT, ..Entry::default() };
        assert_eq!(converted(&entry).unwrap().0.opcode, op::NONE);
        let advice = |addr, len, advice: i32| {
            let op_flags = advice as u32;
            let entry = Entry { opcode: op::MADVISE, addr, len, op_flags, ..Entry::default() };
            discards_too_much(&entry, 16384)
        };
        assert!(advice(4096, 16384, libc::MADV_DONTNEED));
        assert!(advice(16384, 4096, libc::MADV_DONTNEED));
        assert!(!advice(16384, 32768, libc::MADV_DONTNEED));
        assert!(!advice(4096, 4096, libc::MADV_WILLNEED));
    }
}
