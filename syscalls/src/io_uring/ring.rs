//! The rings of a process: where their queues lie in the guest's memory, and the conversion of what is about to be
//! submitted there.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::entry::{self, Attached, Entry};
use super::{OFF_CQ_RING, OFF_SQ_RING, OFF_SQES, Params, setup_flag};
use crate::abi::errno;
use crate::guest;
use crate::host::Errno;
use crate::inode::Inode;
use crate::memmap::{IntervalMap, Source};
use crate::memory::{self, host_page_size};
use crate::seccomp::threads;
use crate::task::Task;

/// Device and inode number: every ring has an inode of its own, by which it is known through each of its descriptors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity(u64, u64);

/// Whether there ever was a ring that [`Ring::is_polled`].
static ANY_POLLED: AtomicBool = AtomicBool::new(false);

/// Whether a call that submits nothing may have to.
pub fn any_polled() -> bool {
    ANY_POLLED.load(Ordering::Relaxed)
}

impl Identity {
    /// That of a descriptor's file.
    pub fn of(fd: i32) -> Option<Self> {
        Inode::of(fd as u64).map(|Inode { file: (dev, inode), .. }| Self(dev, inode))
    }
}

/// A ring of this process.
#[derive(Debug)]
pub struct Ring {
    /// None if it has no descriptor.
    identity: Option<Identity>,
    /// What the kernel said of it.
    params: Params,
    /// How many entries there are, and where the array is in the queue: a ring can be resized.
    count: AtomicU32,
    array: AtomicU32,
    /// Whether the guest believes that a thread of the kernel reads its entries.
    polled: bool,
    /// Where the queues were found last.
    queue: AtomicU64,
    entries: AtomicU64,
    /// Held while entries are submitted: two threads must not look at the same.
    turn: Mutex<()>,
}

impl Ring {
    /// A ring just set up, with its descriptor.
    pub fn new(params: &Params, polled: bool, fd: Option<i32>) -> Result<Self, Errno> {
        let ring = Self {
            identity: fd.map(|fd| Identity::of(fd).ok_or(errno::EBADF)).transpose()?,
            params: *params,
            count: params.sq_entries.into(),
            array: params.sq_off.array.into(),
            polled,
            // The addresses that the guest gave, or zero.
            queue: params.cq_off.user_addr.into(),
            entries: params.sq_off.user_addr.into(),
            turn: Mutex::default(),
        };
        if polled {
            ring.ask_for_wakeup(fd)?;
            ANY_POLLED.store(true, Ordering::Relaxed);
        }
        Ok(ring)
    }

    /// The same in a forked child.
    fn copy(&self) -> Self {
        Self {
            identity: self.identity,
            params: self.params,
            count: self.count.load(Ordering::Relaxed).into(),
            array: self.array.load(Ordering::Relaxed).into(),
            polled: self.polled,
            queue: self.queue.load(Ordering::Relaxed).into(),
            entries: self.entries.load(Ordering::Relaxed).into(),
            turn: Mutex::default(),
        }
    }

    /// Says in the queue that a thread of the kernel sleeps.
    fn ask_for_wakeup(&self, fd: Option<i32>) -> Result<(), Errno> {
        /// IORING_SQ_NEED_WAKEUP. The kernel changes other bits of the word only.
        const NEED_WAKEUP: u32 = 1;
        let flags = u64::from(self.params.sq_off.flags);
        if self.has_own_memory() {
            let at = self.queue.load(Ordering::Relaxed) + flags;
            return guest::write(at, &(guest::read::<u32>(at)? | NEED_WAKEUP));
        }
        memory::glance(fd.ok_or(errno::EINVAL)?, host_page_size(), OFF_SQ_RING, |queue| {
            // SAFETY: an aligned word of the ring, mapped for now.
            let word = unsafe { AtomicU32::from_ptr((queue + flags) as *mut u32) };
            word.fetch_or(NEED_WAKEUP, Ordering::Relaxed);
        })
    }

    /// The kernel has made other queues, of which it says this. Those that are mapped are the old ones. The caller has
    /// the turn.
    pub fn resized(&self, task: &Task, params: &Params) {
        self.count.store(params.sq_entries, Ordering::Relaxed);
        self.array.store(self.array_in(params), Ordering::Relaxed);
        self.queue.store(params.cq_off.user_addr, Ordering::Relaxed);
        self.entries.store(params.sq_off.user_addr, Ordering::Relaxed);
        if let Some(Identity(dev, inode)) = self.identity {
            task.runtime().memory.part_from((dev, inode));
        }
    }

    /// Where the array is. It is behind the completions, aligned (rings_size in io_uring/io_uring.c); of a ring that is
    /// resized, Linux 6.18 does not say it.
    fn array_in(&self, params: &Params) -> u32 {
        let size = if self.params.flags & setup_flag::CQE32 != 0 { 32 } else { 16 };
        let end = params.cq_off.completions() + params.cq_entries * size;
        match params.sq_off.array {
            0 => end.next_multiple_of(64),
            told => told,
        }
    }

    /// Whether the queues are in memory that the guest gave.
    pub fn has_own_memory(&self) -> bool {
        self.params.flags & setup_flag::NO_MMAP != 0
    }

    /// Whether the guest believes that a thread of the kernel reads its entries.
    pub fn is_polled(&self) -> bool {
        self.polled
    }

    /// Waits until no other thread submits.
    pub fn take_turn(&self) -> MutexGuard<'_, ()> {
        lock(&self.turn)
    }

    /// Whether no other thread can submit.
    pub fn is_exclusive(&self) -> bool {
        self.params.flags & setup_flag::SINGLE_ISSUER != 0 || threads::hold().is_only()
    }

    /// Where the queue is and where the entries are, in this process.
    fn places(&self, task: &Task) -> Result<(u64, u64), Errno> {
        let (queue, entries) =
            (self.queue.load(Ordering::Relaxed), self.entries.load(Ordering::Relaxed));
        if self.has_own_memory() {
            return Ok((queue, entries));
        }
        let Some(Identity(dev, inode)) = self.identity else { return Err(errno::EFAULT) };
        let memory = task.runtime().memory;
        let find = |offset, last| memory.find_file((dev, inode), offset, last);
        // A single mapping may show both queues, by either offset.
        let queue = find(OFF_SQ_RING, queue).or_else(|| find(OFF_CQ_RING, queue));
        let entries = find(OFF_SQES, entries);
        let (Some(queue), Some(entries)) = (queue, entries) else { return Err(errno::EFAULT) };
        self.queue.store(queue, Ordering::Relaxed);
        self.entries.store(entries, Ordering::Relaxed);
        Ok((queue, entries))
    }

    /// How many entries wait to be submitted.
    pub fn pending(&self, task: &Task) -> Result<u64, Errno> {
        let (queue, _) = self.places(task)?;
        self.waiting(queue).map(|(_, count)| count.into())
    }

    /// The number of the first entry that waits, and how many there are.
    fn waiting(&self, queue: u64) -> Result<(u32, u32), Errno> {
        let offsets = &self.params.sq_off;
        let head = guest::read::<u32>(queue + u64::from(offsets.head))?;
        let tail = guest::read::<u32>(queue + u64::from(offsets.tail))?;
        // What other threads wrote before the tail.
        fence(Ordering::Acquire);
        Ok((head, tail.wrapping_sub(head).min(self.count.load(Ordering::Relaxed))))
    }

    /// Converts the next entries, as many as are about to be submitted.
    pub fn convert(&self, task: &mut Task, to_submit: u32) -> Result<Changes, Errno> {
        let (queue, entries) = self.places(task)?;
        let size = if self.params.flags & setup_flag::SQE128 != 0 { 128 } else { 64 };
        let mask = self.count.load(Ordering::Relaxed) - 1;
        let (head, count) = self.waiting(queue)?;
        let mut changes = Changes::default();
        for i in 0..count.min(to_submit) {
            let mut index = head.wrapping_add(i) & mask;
            if self.params.flags & setup_flag::NO_SQARRAY == 0 {
                let array = queue + u64::from(self.array.load(Ordering::Relaxed));
                index = guest::read::<u32>(array + u64::from(index) * 4)?;
            }
            // The kernel drops an entry that is none.
            if index > mask {
                continue;
            }
            changes.convert(task, entries + u64::from(index) * size)?;
        }
        Ok(changes)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Entries that are the host's for the time being; the guest's again when this is dropped.
#[derive(Debug, Default)]
pub struct Changes {
    list: Vec<Change>,
    /// Where they are: an entry may be in the queue twice.
    places: HashSet<u64>,
}

#[derive(Debug)]
struct Change {
    at: u64,
    guest: Entry,
    host: Entry,
    _attached: Attached,
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    fn convert(&mut self, task: &mut Task, at: u64) -> Result<(), Errno> {
        if self.places.contains(&at) {
            return Ok(());
        }
        let guest = guest::read::<Entry>(at)?;
        if let Some((host, attached)) = entry::convert(task, &guest) {
            guest::write(at, &host)?;
            self.places.insert(at);
            self.list.push(Change { at, guest, host, _attached: attached });
        }
        Ok(())
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        for change in &self.list {
            // What another thread has put there meanwhile stays.
            if guest::read(change.at) == Ok(change.host) {
                // It was written a moment ago.
                let _ = guest::write(change.at, &change.guest);
            }
        }
    }
}

/// The rings that have descriptors. They are kept with the map of the memory that their queues are in, whose lock a
/// fork(2) holds.
#[derive(Debug, Default)]
pub(crate) struct Rings {
    /// With the first descriptor of each.
    rings: Vec<(i32, Arc<Ring>)>,
    /// With so many, those that are no more are looked for.
    enough: usize,
}

impl Rings {
    /// Adds a ring. The kernel gives a number again when its ring is no more.
    pub fn add(&mut self, fd: i32, ring: Arc<Ring>, map: &IntervalMap) {
        const FEW: usize = 16;
        self.rings.retain(|(_, other)| other.identity != ring.identity);
        if self.rings.len() >= self.enough {
            self.forget_ended(map);
            // So that each is looked at once, on the average, however many are left.
            self.enough = (self.rings.len() * 2).max(FEW);
        }
        self.rings.push((fd, ring));
    }

    /// Forgets rings that have no descriptor and are not mapped.
    fn forget_ended(&mut self, map: &IntervalMap) {
        let mapped: HashSet<(u64, u64)> = map
            .iter()
            .filter_map(|(_, mapping)| match &mapping.source {
                Source::File(file, _) => Some((file.dev, file.inode)),
                _ => None,
            })
            .collect();
        self.rings.retain(|(fd, ring)| {
            let is_mapped =
                ring.identity.is_some_and(|Identity(dev, inode)| mapped.contains(&(dev, inode)));
            is_mapped || Identity::of(*fd) == ring.identity
        });
    }

    /// The ring of this identity.
    pub fn get(&self, identity: Identity) -> Option<Arc<Ring>> {
        let found = self.rings.iter().find(|(_, ring)| ring.identity == Some(identity));
        found.map(|(_, ring)| ring.clone())
    }

    /// In a forked child: no other thread will give back the turn that it has. (A child in the same memory takes turns
    /// with its parent.)
    pub fn in_child(&mut self) {
        for (_, ring) in &mut self.rings {
            *ring = Arc::new(ring.copy());
        }
    }
}

/// The rings that a thread has given numbers (IORING_REGISTER_RING_FDS).
#[derive(Debug, Default)]
pub(crate) struct Registered {
    /// The process: a forked child begins without any.
    pid: i32,
    rings: Vec<Option<Arc<Ring>>>,
}

impl Registered {
    /// The ring of a number.
    pub fn get(&self, pid: i32, index: u64) -> Option<Arc<Ring>> {
        self.rings.get(index as usize).filter(|_| self.pid == pid).cloned().flatten()
    }

    /// Gives a number to a ring, or takes it away.
    pub fn set(&mut self, pid: i32, index: u64, ring: Option<Arc<Ring>>) {
        /// IO_RINGFD_REG_MAX.
        const MOST: usize = 16;
        if self.pid != pid {
            *self = Self { pid, rings: Vec::new() };
        }
        self.rings.resize(MOST, None);
        if let Some(place) = self.rings.get_mut(index as usize) {
            *place = ring;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::QueueOffsets;
    use super::super::entry::op;
    use super::*;
    use crate::abi::AT_FDCWD;
    use crate::memmap::{File, Mapping};

    const O_DIRECTORY: u32 = 0o200000;
    const COUNT: usize = 4;

    /// A ring in memory of the test's, with every entry an OPENAT of the root as a folder.
    struct Queue {
        /// Head, tail, and the array.
        words: Box<[u32; 2 + COUNT]>,
        entries: Box<[[Entry; 2]; COUNT]>,
    }

    impl Queue {
        fn new(head: u32, tail: u32) -> Self {
            let entry = Entry {
                opcode: op::OPENAT,
                fd: AT_FDCWD,
                addr: c"/".as_ptr() as u64,
                op_flags: O_DIRECTORY,
                ..Entry::default()
            };
            Self {
                words: Box::new([head, tail, 0, 1, 2, 3]),
                entries: Box::new([[entry; 2]; COUNT]),
            }
        }

        fn ring(&self, flags: u32) -> Ring {
            let address = |at: *const u8| at as u64;
            let mut params = Params { sq_entries: COUNT as u32, ..Params::default() };
            params.flags = setup_flag::NO_MMAP | flags;
            let user_addr = address(self.entries.as_ptr().cast());
            params.sq_off = QueueOffsets { tail: 4, array: 8, user_addr, ..params.sq_off };
            params.cq_off.user_addr = address(self.words.as_ptr().cast());
            Ring::new(&params, false, None).unwrap()
        }

        /// Which entries of 64 bytes are the host's.
        fn converted(&self) -> Vec<usize> {
            let all = self.entries.as_flattened();
            let is_host = |&i: &usize| all[i].op_flags != O_DIRECTORY;
            (0..all.len()).filter(is_host).collect()
        }
    }

    fn convert(queue: &Queue, flags: u32, count: u32) -> (Vec<usize>, Changes) {
        let changes = queue.ring(flags).convert(&mut Task::for_test(), count).unwrap();
        (queue.converted(), changes)
    }

    #[test]
    fn entries_about_to_be_submitted_are_converted_and_no_others() {
        // Around the end of the queue.
        let (converted, changes) = convert(&Queue::new(3, 6), 0, 2);
        assert_eq!(converted, [0, 3]);
        assert!(!changes.is_empty());
        assert_eq!(convert(&Queue::new(u32::MAX, 2), 0, 100).0, [0, 1, 3]);
        assert_eq!(convert(&Queue::new(1, 2), setup_flag::SQE128, 1).0, [2]);
        assert!(convert(&Queue::new(5, 5), 0, 1).1.is_empty());
        // By the array, in which an index may be wrong.
        let mut queue = Queue::new(0, 3);
        *queue.words = [0, 3, 2, 9, 2, 2];
        assert_eq!(convert(&queue, 0, 3).0, [2]);
        assert_eq!(convert(&queue, setup_flag::NO_SQARRAY, 3).0, [0, 1, 2]);
    }

    #[test]
    fn they_are_the_guests_again_unless_it_wrote_others() {
        let mut queue = Queue::new(0, 4);
        // One of them twice.
        queue.words[3] = 0;
        let (_, changes) = convert(&queue, 0, 4);
        let new = Entry { user_data: 7, ..queue.entries.as_flattened()[2] };
        queue.entries.as_flattened_mut()[2] = new;
        drop(changes);
        assert_eq!(queue.converted(), [2]);
        assert_eq!(queue.entries.as_flattened()[2], new);
    }

    #[test]
    fn rings_that_are_no_more_are_forgotten() {
        let queue = Queue::new(0, 0);
        let ring = |inode| Arc::new(Ring { identity: Some(Identity(1, inode)), ..queue.ring(0) });
        let file = File { dev: 1, inode: 7, path: Vec::new() };
        let source = Source::File(Arc::new(file), 0);
        let mut map = IntervalMap::default();
        map.insert(0x1000..0x2000, Mapping { prot: 0, shared: true, source });
        let mut rings = Rings::default();
        // None has a descriptor, and one is mapped.
        for inode in 0..1000 {
            rings.add(-1, ring(inode), &map);
            assert!(rings.get(Identity(1, inode)).is_some());
        }
        assert!(rings.rings.len() < 40, "{}", rings.rings.len());
        assert!(rings.get(Identity(1, 7)).is_some() && rings.get(Identity(1, 8)).is_none());
    }

    #[test]
    fn a_forked_child_has_the_rings_and_no_numbers() {
        let queue = Queue::new(0, 0);
        let ring = || Arc::new(Ring { identity: Some(Identity(1, 2)), ..queue.ring(0) });
        let mut rings = Rings::default();
        rings.rings.push((-1, ring()));
        let of_parent = rings.get(Identity(1, 2)).unwrap();
        let _turn = of_parent.take_turn();
        rings.in_child();
        let of_child = rings.get(Identity(1, 2)).unwrap();
        drop(of_child.take_turn());
        assert!(rings.get(Identity(1, 3)).is_none());
        // One of the same number takes its place.
        rings.add(-1, ring(), &IntervalMap::default());
        assert_eq!(rings.rings.len(), 1);

        let mut numbers = Registered::default();
        numbers.set(1, 3, Some(of_parent.clone()));
        numbers.set(1, 16, Some(of_parent.clone()));
        assert!(numbers.get(1, 3).is_some() && numbers.get(1, 2).is_none());
        assert!(numbers.get(2, 3).is_none());
        numbers.set(2, 4, Some(of_parent.clone()));
        assert!(numbers.get(2, 3).is_none() && numbers.get(2, 4).is_some());
        numbers.set(2, 4, None);
        assert!(numbers.get(2, 4).is_none());
    }
}
