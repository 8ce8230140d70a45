//! What forked processes would have liked to find translated.
//!
//! Each child of a shell runs the same short way to its end or to the next program. It interprets that, for to
//! translate it would take longer; and nothing of it is left for the next child, so each does it again. So children
//! count where they come to in a page that they share with the process they were forked from, and that one translates
//! before it forks again what several of them have come to.
//!
//! A child may write anything here. All it can achieve is that guest code is translated that nobody will execute.

use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Addresses that are counted; a power of two.
const PLACES: usize = 2048;
/// Places an address may have.
const TRIES: usize = 4;
/// Wishes that are kept; a power of two.
const KEPT: usize = 1024;
/// The bits of a place that are an address; those above it are a count.
const ADDRESS: u64 = (1 << 48) - 1;
const ONE: u64 = ADDRESS + 1;

/// The shared page.
#[repr(C)]
pub struct Wishes {
    /// Addresses that control has come to, with the number of times.
    places: [AtomicU64; PLACES],
    /// Those that it has come to so often that they are wished for, …
    wished: [AtomicU64; KEPT],
    /// … and how many there were in all.
    count: AtomicU32,
}

impl Wishes {
    /// Memory that is shared with the processes forked from now on.
    pub fn new() -> io::Result<&'static Self> {
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping wherever the kernel has room.
        let p = unsafe { libc::mmap(std::ptr::null_mut(), size_of::<Self>(), prot, flags, -1, 0) };
        if p == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: zeros are a valid value, the mapping is aligned and never removed.
        Ok(unsafe { &*p.cast() })
    }

    /// Control has come to `addr`; with the `limit`th time that is a wish.
    #[cold]
    pub fn arrived(&self, addr: u64, limit: u8) {
        let Some(place) = self.place(addr) else { return };
        // A count that is lost to another process at the same moment does no harm.
        let count = place.load(Ordering::Relaxed) + ONE;
        place.store(count, Ordering::Relaxed);
        if count >> ADDRESS.count_ones() == u64::from(limit) {
            let at = self.count.fetch_add(1, Ordering::Relaxed) as usize;
            self.wished[at % KEPT].store(addr, Ordering::Relaxed);
        }
    }

    /// The code at `addr` has been executed without being jumped to.
    #[cold]
    pub fn note(&self, addr: u64) {
        self.place(addr);
    }

    /// The place of an address, which is given one unless all are taken.
    fn place(&self, addr: u64) -> Option<&AtomicU64> {
        let addr = addr & ADDRESS;
        let first = (addr.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as usize;
        (0..TRIES).map(|i| &self.places[(first + i) % PLACES]).find(|place| {
            let there = place.load(Ordering::Relaxed);
            there & ADDRESS == addr
                || there == 0
                    && place.compare_exchange(0, addr, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        })
    }

    /// The wishes that came after the first `done`, which is brought up to date. If there are any, all that has been
    /// executed is told to `executed`, and forgotten.
    pub fn take(&self, done: &mut u32, mut executed: impl FnMut(u64)) -> Vec<u64> {
        let count = self.count.load(Ordering::Relaxed);
        let new = count.wrapping_sub(*done).min(KEPT as u32);
        *done = count;
        if new == 0 {
            return Vec::new();
        }
        for place in &self.places {
            match place.swap(0, Ordering::Relaxed) & ADDRESS {
                0 => {}
                addr => executed(addr),
            }
        }
        let wished =
            |i| self.wished[count.wrapping_sub(new - i) as usize % KEPT].load(Ordering::Relaxed);
        (0..new).map(wished).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_come_to_so_often_is_wished_for_once() {
        let wishes = Wishes::new().unwrap();
        let mut done = 0;
        let mut executed = Vec::new();
        wishes.note(0x5000);
        wishes.arrived(0x1000, 2);
        assert!(wishes.take(&mut done, |_| panic!("nothing is wished for")).is_empty());
        for addr in [0x1000, 0x2000, 0x1000, 0x3000, 0x3000] {
            wishes.arrived(addr, 2);
        }
        assert_eq!(wishes.take(&mut done, |addr| executed.push(addr)), [0x1000, 0x3000]);
        executed.sort();
        assert_eq!(executed, [0x1000, 0x2000, 0x3000, 0x5000]);
        assert!(wishes.take(&mut done, |_| panic!("all is done")).is_empty());
    }

    #[test]
    fn too_many_addresses_and_wishes_do_no_harm() {
        let wishes = Wishes::new().unwrap();
        let mut done = 0;
        for addr in 1..10_000 {
            wishes.arrived(addr * 16, 1);
        }
        let wished = wishes.take(&mut done, |_| ());
        assert!(wished.len() <= KEPT && wished.iter().all(|addr| addr % 16 == 0));
    }

    #[test]
    fn a_child_process_wishes_for_its_parent() {
        let wishes = Wishes::new().unwrap();
        // SAFETY: the child only writes to the page and ends.
        match unsafe { libc::fork() } {
            0 => {
                wishes.arrived(0x1000, 1);
                // SAFETY: ends the child.
                unsafe { libc::_exit(0) }
            }
            // SAFETY: waits for the child forked just now.
            child => assert_eq!(unsafe { libc::waitpid(child, &mut 0, 0) }, child),
        }
        assert_eq!(wishes.take(&mut 0, |_| ()), [0x1000]);
    }
}
