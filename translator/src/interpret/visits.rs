//! How often code has been executed.

use super::wishes::Wishes;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};

/// Places; different addresses share them. Those of neighbours are neighbours, so that few pages are used.
const PLACES: usize = 1 << 18;

/// Counts how often control has come to an address, for code that is not translated.
pub struct Visits {
    counts: Box<[AtomicU8]>,
    limit: AtomicU8,
    /// What it is but for a program's start, and its long run.
    first: u8,
    /// Translations so far.
    made: AtomicU32,
    /// What forked processes wish for, if there have been any; and how many of their wishes have been read.
    wishes: OnceLock<&'static Wishes>,
    wishes_read: AtomicU32,
    /// Whether this is a forked process.
    forked: AtomicBool,
}

/// Count of a place with a translation.
const TRANSLATED: u8 = u8::MAX;
/// So far the limit goes up.
const MAX_LIMIT: u8 = 16;
/// So many translations are made of a program's start: of code that is executed a few times, by the dynamic loader above
/// all, and then never again. It is interpreted once more.
const EARLY: u32 = 300;
/// A program with so many translations is one that computes: what it comes to twice is executed often. It is interpreted
/// once less, but at least once.
const LATE: u32 = 2000;

impl Visits {
    /// Code is interpreted `limit` times, always if that is 255, before it is translated; once more at a program's start,
    /// once less in the long run.
    pub fn new(limit: u8) -> Self {
        // Zeros from the allocator: pages are there once they are used.
        let bytes = Box::into_raw(vec![0u8; PLACES].into_boxed_slice());
        // SAFETY: an AtomicU8 is laid out as a u8, and this is the only owner.
        let counts = unsafe { Box::from_raw(bytes as *mut [AtomicU8]) };
        let mut visits = Visits {
            counts,
            limit: AtomicU8::new(limit),
            first: limit,
            made: AtomicU32::new(0),
            wishes: OnceLock::new(),
            wishes_read: AtomicU32::new(0),
            forked: AtomicBool::new(false),
        };
        if visits.counts() {
            visits.limit = AtomicU8::new(limit.saturating_add(1).min(MAX_LIMIT.max(limit)));
        }
        visits
    }

    /// Whether only what is executed often is translated.
    fn counts(&self) -> bool {
        !matches!(self.first, 0 | u8::MAX)
    }

    /// Before a fork: the addresses that earlier children wish to find translated.
    pub fn wished(&self) -> Vec<u64> {
        if !self.counts() {
            return Vec::new();
        }
        let Some(wishes) = self.wishes.get() else {
            // Without such memory children go without.
            let _ = Wishes::new().map(|wishes| self.wishes.set(wishes));
            return Vec::new();
        };
        let mut read = self.wishes_read.load(Ordering::Relaxed);
        let wished = wishes.take(&mut read, |addr| self.count_once(addr));
        self.wishes_read.store(read, Ordering::Relaxed);
        wished
    }

    /// What this process can wish for, if it is a child.
    #[inline]
    fn wishes(&self) -> Option<&'static Wishes> {
        if self.forked.load(Ordering::Relaxed) { self.wishes.get().copied() } else { None }
    }

    /// In a forked process, which has inherited the counts: code that is not translated is interpreted as often again.
    /// What it shares with its siblings each would translate for itself otherwise.
    pub fn forked(&self) {
        self.forked.store(true, Ordering::Relaxed);
        if self.counts() {
            let limit = self.limit().saturating_add(self.first).min(MAX_LIMIT.max(self.first));
            self.limit.store(limit, Ordering::Relaxed);
        }
    }

    #[inline]
    fn limit(&self) -> u8 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Whether to interpret the code at `addr` once more. Counts that.
    #[inline]
    pub fn is_cold(&self, addr: u64) -> bool {
        let count = self.place(addr);
        let visits = count.load(Ordering::Relaxed);
        let limit = self.limit();
        if visits >= limit && limit != u8::MAX {
            return false;
        }
        count.store(visits.saturating_add(1), Ordering::Relaxed);
        if let Some(wishes) = self.wishes() {
            wishes.arrived(addr, self.first);
        }
        true
    }

    /// Whether the code at `addr` is to be interpreted when control comes there.
    #[inline]
    pub fn would_be_cold(&self, addr: u64) -> bool {
        let limit = self.limit();
        limit == u8::MAX || self.place(addr).load(Ordering::Relaxed) < limit
    }

    /// The code at `addr` has been executed without being jumped to.
    #[inline]
    pub fn note(&self, addr: u64) {
        self.count_once(addr);
        if let Some(wishes) = self.wishes() {
            wishes.note(addr);
        }
    }

    fn count_once(&self, addr: u64) {
        let count = self.place(addr);
        if count.load(Ordering::Relaxed) == 0 {
            count.store(1, Ordering::Relaxed);
        }
    }

    /// Whether the code at `addr`, where a block begins, has been executed, as far as that is known.
    #[inline]
    pub fn saw(&self, addr: u64) -> bool {
        !self.counts() || self.place(addr).load(Ordering::Relaxed) > 0
    }

    /// There is a translation at `addr`. The caller holds the engine's lock.
    pub fn translated(&self, addr: u64) {
        self.place(addr).store(TRANSLATED, Ordering::Relaxed);
        let made = self.made.load(Ordering::Relaxed).saturating_add(1);
        self.made.store(made, Ordering::Relaxed);
        if self.counts() && (made == EARLY || made == LATE && self.first > 1) {
            self.limit.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// False if there is no translation at `addr`.
    #[inline]
    pub fn may_be_translated(&self, addr: u64) -> bool {
        self.place(addr).load(Ordering::Relaxed) == TRANSLATED
    }

    fn place(&self, addr: u64) -> &AtomicU8 {
        &self.counts[(addr ^ addr >> 18) as usize % PLACES]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after_start(limit: u8) -> Visits {
        let visits = Visits::new(limit);
        (0..EARLY).for_each(|_| visits.translated(0));
        visits
    }

    #[test]
    fn code_is_cold_so_many_times() {
        let visits = after_start(2);
        assert_eq!([(); 4].map(|()| visits.is_cold(0x1000)), [true, true, false, false]);
        assert!(visits.would_be_cold(0x1001) && !visits.would_be_cold(0x1000));
        visits.translated(0x1001);
        assert!(!visits.is_cold(0x1001));
    }

    #[test]
    fn code_of_the_start_is_cold_once_more() {
        let visits = Visits::new(2);
        assert_eq!([(); 4].map(|()| visits.is_cold(0x1000)), [true, true, true, false]);
        assert!(visits.is_cold(0x2000) && visits.is_cold(0x2000));
        (0..EARLY).for_each(|_| visits.translated(0));
        assert!(!visits.is_cold(0x2000));
    }

    #[test]
    fn code_of_the_long_run_is_cold_once_less_but_once() {
        for (limit, colds) in [(1, 1), (2, 1), (3, 2)] {
            let visits = after_start(limit);
            (EARLY..LATE).for_each(|_| visits.translated(0));
            assert_eq!((0..9).filter(|_| visits.is_cold(0x2000)).count(), colds, "{limit}");
        }
    }

    #[test]
    fn a_forked_process_begins_again_but_for_what_is_translated() {
        let visits = after_start(2);
        assert_eq!([(); 3].map(|()| visits.is_cold(0x1000)), [true, true, false]);
        visits.translated(0x1001);
        visits.forked();
        assert_eq!([(); 3].map(|()| visits.is_cold(0x1000)), [true, true, false]);
        assert!(!visits.is_cold(0x1001));
        (0..100).for_each(|_| visits.forked());
        assert_eq!((0..100).filter(|_| visits.is_cold(0x2000)).count(), MAX_LIMIT.into());
    }

    #[test]
    fn never_and_always() {
        assert!(!Visits::new(0).is_cold(0x1000));
        let always = Visits::new(u8::MAX);
        always.forked();
        assert!((0..1000).all(|_| always.is_cold(0x1000)));
    }
}
