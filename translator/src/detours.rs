//! Where ordered accesses go whose address is misaligned.
//!
//! An ordered access faults when it crosses 16 aligned bytes (Arm ARM B2.5.2 with FEAT_LSE2), which most never do. One
//! that did becomes a branch to a detour: the plain access with the barrier that stands for its order, and a branch
//! back. Detours are made by the handler of the fault: slots of one size, handed out by one counter, with no lock.
//!
//! A detour is two branches too long for what is executed often. When no new ones have been made between two of the
//! program's system calls, those that there are have served: their regions are translated anew, with the plain accesses
//! and barriers in their places.

use crate::cache::{RegionMeta, anonymous, branch};
use crate::lower::operands::Relaxed;
use std::io;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};

/// Bytes of a detour.
const SIZE: u64 = 16;
/// Most bytes of detours, and which part of the cache they get at most.
const ROOM: u64 = 1 << 20;
const PART: u64 = 8;

/// Where a detour belongs.
#[derive(Debug)]
struct Home {
    region: AtomicPtr<RegionMeta>,
    /// The access that it stands for.
    access: AtomicU64,
}

/// The detours of a code cache.
#[derive(Debug)]
pub struct Detours {
    start: u64,
    capacity: usize,
    count: AtomicUsize,
    /// How many there were at the last look.
    seen: AtomicUsize,
    /// How many of them, the first ones, have been given to be translated anew.
    taken: AtomicUsize,
    homes: u64,
}

impl Detours {
    /// Takes the detours' room from the end of the cache's; gives them and how much that was.
    pub fn new(end: u64, cache_size: u64) -> io::Result<(Self, u64)> {
        let room = ROOM.min(cache_size / PART) / SIZE * SIZE;
        let capacity = (room / SIZE) as usize;
        let size = (capacity * size_of::<Home>()).max(1);
        let homes = anonymous(size, libc::PROT_READ | libc::PROT_WRITE)?;
        let none = || AtomicUsize::new(0);
        let (count, seen, taken) = (none(), none(), none());
        Ok((Detours { start: end - room, capacity, count, seen, taken, homes }, room))
    }

    fn homes(&self) -> &[Home] {
        // SAFETY: so many homes were mapped, zeroed, and stay mapped; all are atomics.
        unsafe { std::slice::from_raw_parts(self.homes as *const Home, self.capacity) }
    }

    /// The words of a detour for the access at `access` in a region, and where they are to be put; None when there is no
    /// more room. Async-signal-safe.
    pub fn add(
        &self,
        region: &'static RegionMeta,
        access: u64,
        relaxed: Relaxed,
    ) -> Option<(u64, [u32; 3])> {
        let slot = self.count.fetch_add(1, Ordering::Relaxed);
        let home = self.homes().get(slot)?;
        let at = self.start + slot as u64 * SIZE;
        home.access.store(access, Ordering::Relaxed);
        home.region.store(ptr::from_ref(region).cast_mut(), Ordering::Release);
        let back = branch((access + 4).wrapping_sub(at + 8) as i64)?;
        let Relaxed { word, barrier, store } = relaxed;
        Some((at, if store { [barrier, word, back] } else { [word, barrier, back] }))
    }

    /// The region and the access that a detour stands for, by an address in it. Async-signal-safe.
    pub fn home(&self, pc: u64) -> Option<(&'static RegionMeta, u64)> {
        self.home_of((pc.checked_sub(self.start)? / SIZE) as usize)
    }

    /// The same of a slot. None while its detour is being made.
    fn home_of(&self, slot: usize) -> Option<(&'static RegionMeta, u64)> {
        let home = self.homes().get(slot)?;
        // SAFETY: a region that was put there lives until the cache is reset, when nobody is in a detour.
        let region = unsafe { home.region.load(Ordering::Acquire).as_ref() }?;
        Some((region, home.access.load(Ordering::Relaxed)))
    }

    /// Whether there are detours that have not been taken, and none since the last call.
    #[inline]
    pub fn have_settled(&self) -> bool {
        let count = self.count.load(Ordering::Relaxed).min(self.capacity);
        count != self.taken.load(Ordering::Relaxed)
            && self.seen.swap(count, Ordering::Relaxed) == count
    }

    /// The regions and the accesses of the detours that have not been taken. Only for who keeps the cache from being reset.
    pub fn take_new(&self) -> impl Iterator<Item = (&'static RegionMeta, u64)> {
        let from = self.taken.load(Ordering::Relaxed);
        let new = (from..).map_while(|slot| self.home_of(slot));
        new.inspect(|_| {
            self.taken.fetch_add(1, Ordering::Relaxed);
        })
    }

    /// Whether there is none.
    #[cfg(test)]
    pub fn is_unused(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    /// Forgets all of them. No thread may be in translated code.
    pub fn reset(&self) {
        let used = self.count.swap(0, Ordering::Relaxed).min(self.capacity);
        for home in &self.homes()[..used] {
            home.region.store(ptr::null_mut(), Ordering::Release);
        }
        self.taken.store(0, Ordering::Relaxed);
    }
}
