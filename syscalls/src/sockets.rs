//! Messages of sockets: `struct msghdr`, the same on both architectures. The kernel gets a copy of the guest's, so that
//! no address in it is the translator's, and what it writes there is handed on.

use std::ops::Range;

use crate::abi::{errno, layout};
use crate::guest;
use crate::host::{Errno, SysResult};
use crate::table::host as nr;
use crate::task::Task;
use crate::vectors::Vectors;

/// A message.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Message {
    name: u64,
    name_len: u32,
    pad: u32,
    vectors: u64,
    count: u64,
    control: u64,
    control_len: u64,
    flags: u32,
    pad2: u32,
}
layout!(Message, 56, name_len @ 8, vectors @ 16, count @ 24, control @ 32, control_len @ 40, flags @ 48);

const NAME_LEN: u64 = 8;
const CONTROL_LEN: u64 = 40;
const FLAGS: u64 = 48;

/// `struct mmsghdr`: one of several messages.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Item {
    message: Message,
    len: u32,
    pad: u32,
}
layout!(Item, 64, len @ 56);

const LEN: u64 = 56;

/// As many messages as the kernel takes at a time (UIO_MAXIOV).
const MAX: u64 = 1024;

impl Message {
    /// As the kernel gets it, but for the vectors, which it gets apart.
    fn for_kernel(self) -> (Self, Vectors) {
        let vectors = Vectors::read(self.vectors, self.count);
        let [name, control] = [self.name, self.control].map(guest::for_kernel);
        (Self { name, control, ..self }, vectors)
    }

    /// Gives the guest's structure at `addr` what the kernel wrote into this one (____sys_recvmsg in net/socket.c).
    fn give_back(&self, addr: u64) -> Result<(), Errno> {
        if self.name != 0 {
            guest::write(addr + NAME_LEN, &self.name_len)?;
        }
        guest::write(addr + FLAGS, &self.flags)?;
        guest::write(addr + CONTROL_LEN, &self.control_len)
    }
}

/// What a message points to: all the memory that the kernel may write, if it is received.
pub(crate) struct Pointed {
    name: Range<u64>,
    control: Range<u64>,
    vectors: Vectors,
}

impl Pointed {
    /// By the message at `addr`; none if it cannot be read.
    pub(crate) fn by(addr: u64) -> Option<Self> {
        let message = guest::read::<Message>(addr).ok()?;
        let range = |at: u64, len: u64| at..at.saturating_add(len);
        Some(Self {
            name: range(message.name, message.name_len.into()),
            control: range(message.control, message.control_len),
            vectors: Vectors::of_guest(message.vectors, message.count),
        })
    }

    pub(crate) fn ranges(&self) -> impl Iterator<Item = Range<u64>> {
        [self.name.clone(), self.control.clone()].into_iter().chain(self.vectors.ranges())
    }

    /// Whether all of it is where a guest can have memory.
    pub(crate) fn is_in_reach(&self) -> bool {
        let begins = |range: &Range<u64>| guest::for_kernel(range.start) == range.start;
        begins(&self.name) && begins(&self.control) && self.vectors.is_in_reach()
    }
}

/// Makes a call on one message; it, as the kernel left it.
fn on_message(
    task: &mut Task,
    nr: u64,
    [fd, addr, flags, ..]: [u64; 6],
) -> Result<(u64, Message), Errno> {
    let Ok(message) = guest::read::<Message>(addr) else {
        // There may be other things wrong.
        task.host_call(nr, [fd, guest::NOWHERE, flags, 0, 0, 0])?;
        return Err(errno::EFAULT);
    };
    let (mut message, vectors) = message.for_kernel();
    message.vectors = vectors.addr();
    let result = task.host_call(nr, [fd, &raw mut message as u64, flags, 0, 0, 0])?;
    Ok((result, message))
}

/// sendmsg(2)
pub fn sendmsg(task: &mut Task, args: [u64; 6]) -> SysResult {
    on_message(task, nr::sendmsg, args).map(|(sent, _)| sent)
}

/// recvmsg(2)
pub fn recvmsg(task: &mut Task, args: [u64; 6]) -> SysResult {
    let (received, message) = on_message(task, nr::recvmsg, args)?;
    message.give_back(args[1])?;
    Ok(received)
}

/// Several messages as the kernel gets them.
struct Items {
    items: Vec<Item>,
    /// What the items point to.
    _vectors: Vec<Vectors>,
}

impl Items {
    /// Reads as many of `count` as can be read.
    fn read(addr: u64, count: u64) -> Self {
        let addresses = (addr..).step_by(size_of::<Item>()).take(count.min(MAX) as usize);
        let guests = addresses.map_while(|at| guest::read::<Item>(at).ok());
        let (mut items, vectors): (Vec<_>, Vec<_>) = guests
            .map(|item| {
                let (message, vectors) = item.message.for_kernel();
                (Item { message, ..item }, vectors)
            })
            .unzip();
        // They do not move any more.
        for (item, vectors) in items.iter_mut().zip(&vectors) {
            item.message.vectors = vectors.addr();
        }
        Self { items, _vectors: vectors }
    }

    /// Makes a call on them: how many were done, and what the guest is told of them by `give_back`.
    fn call(
        &mut self,
        task: &mut Task,
        nr: u64,
        [fd, addr, count, flags, timeout, _]: [u64; 6],
        give_back: fn(&Item, u64) -> Result<(), Errno>,
    ) -> SysResult {
        let (own, count) = match self.items.len() as u64 {
            // The kernel finds what else is wrong.
            0 => (guest::for_kernel(addr) | guest::NOWHERE, count),
            readable => (self.items.as_mut_ptr() as u64, readable),
        };
        let done = task.host_call(nr, [fd, own, count, flags, timeout, 0])?;
        let items = self.items.iter().take(done as usize);
        for (i, (item, at)) in items.zip((addr..).step_by(size_of::<Item>())).enumerate() {
            match give_back(item, at) {
                Err(error) if i == 0 => return Err(error),
                Err(_) => return Ok(i as u64),
                Ok(()) => {}
            }
        }
        Ok(done)
    }
}

/// sendmmsg(2)
pub fn sendmmsg(task: &mut Task, args: [u64; 6]) -> SysResult {
    let len = |item: &Item, at| guest::write(at + LEN, &item.len);
    Items::read(args[1], args[2]).call(
        task,
        nr::sendmmsg,
        [args[0], args[1], args[2], args[3], 0, 0],
        len,
    )
}

/// recvmmsg(2)
pub fn recvmmsg(task: &mut Task, args: [u64; 6]) -> SysResult {
    let all = |item: &Item, at| {
        item.message.give_back(at)?;
        guest::write(at + LEN, &item.len)
    };
    Items::read(args[1], args[2]).call(task, nr::recvmmsg, args, all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_the_kernel_writes_arrives_and_nothing_else(
            name: u64, name_len: u32, control: u64, lens: (u64, u32), before: [u64; 7],
        ) {
            let kernel = Message {
                name, name_len, control, control_len: lens.0, flags: lens.1, ..Message::default()
            };
            let mut guest = before;
            kernel.give_back(guest.as_mut_ptr() as u64).unwrap();
            let mut wanted = before;
            if name != 0 {
                wanted[1] = before[1] >> 32 << 32 | u64::from(name_len);
            }
            wanted[5] = lens.0;
            wanted[6] = before[6] >> 32 << 32 | u64::from(lens.1);
            prop_assert_eq!(guest, wanted);
        }

        #[test]
        fn no_address_is_the_translators(name: u64, control: u64, count in 0u64..4) {
            let pieces = [[1u64 << 47, 8], [name, 8], [0x1000, 8], [0, 0]];
            let message = Message { name, control, vectors: pieces.as_ptr() as u64, count, ..Message::default() };
            let (kernel, _) = message.for_kernel();
            for addr in [kernel.name, kernel.control] {
                prop_assert!(!(1 << 47..0xffff << 48).contains(&addr));
            }
            prop_assert_eq!((kernel.count, kernel.vectors), (count, message.vectors));
        }
    }

    #[test]
    fn what_a_message_points_to_is_known() {
        let pieces = [[0x1000u64, 8], [0x2000, 8]];
        let good = Message {
            name: 0x3000,
            name_len: 16,
            vectors: pieces.as_ptr() as u64,
            count: 2,
            ..Message::default()
        };
        let by = |message: &Message| Pointed::by(&raw const *message as u64).unwrap();
        assert!(by(&good).is_in_reach());
        assert_eq!(
            by(&good).ranges().take(4).collect::<Vec<_>>(),
            [0x3000..0x3010, 0..0, 0x1000..0x1008, 0x2000..0x2008]
        );
        assert!(!by(&Message { name: 1 << 47, ..good }).is_in_reach());
        assert!(!by(&Message { control: 1 << 47, ..good }).is_in_reach());
        let pieces = [[1u64 << 47, 8]];
        assert!(!by(&Message { vectors: pieces.as_ptr() as u64, count: 1, ..good }).is_in_reach());
        assert!(Pointed::by(1 << 47).is_none());
    }

    #[test]
    fn several_messages_each_have_their_vectors() {
        let pieces = [[0x1000u64, 8], [0x2000, 8]];
        let message = |i: usize| Message {
            vectors: pieces[i].as_ptr() as u64,
            count: 1,
            ..Message::default()
        };
        let guests = [0, 1].map(|i| Item { message: message(i), ..Item::default() });
        let items = Items::read(guests.as_ptr() as u64, 2);
        for (item, piece) in items.items.iter().zip(pieces) {
            assert_eq!(guest::read::<[u64; 2]>(item.message.vectors), Ok(piece));
        }
        assert_eq!(Items::read(1 << 47, 2).items.len(), 0);
    }
}
