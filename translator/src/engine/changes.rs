//! Translations that are thrown away: those of guest code that changes, and all.

use super::{BRANCH_TABLE_SIZE, Engine, Inner, MemoryOrder, PAGE, SHADOW_ABOVE, miss_at_zero};
use crate::cache::RegionMeta;
use crate::region::Windows;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

impl Engine {
    /// Forgets every translation of guest code in `start..end`, in every thread.
    pub fn invalidate(&self, start: u64, end: u64) {
        self.invalidate_before(std::iter::once(start..end), || {});
    }

    /// The same for several ranges. Only then, and before anything is translated again, their code may be written: a
    /// thread that can write it may at once execute what it has written.
    pub fn invalidate_before(
        &self,
        ranges: impl IntoIterator<Item = Range<u64>>,
        allow_writes: impl FnOnce(),
    ) {
        let mut inner = self.lock();
        let mut killed = Vec::new();
        for Range { start, end } in ranges {
            killed.extend(self.forget(&mut inner, start, end));
        }
        allow_writes();
        // For QEMU's machines, as in `wait_until_out`: what another processor made of the old words while they were being
        // replaced is forgotten now. The system call that allows writes has waited until it was done with that.
        killed.into_iter().for_each(|meta| self.cache.kill_again(meta));
    }

    /// The instruction at `rip` has raised an alignment fault (SIGBUS, BUS_ADRALN), which x86 does
    /// not know: an ordered access must not cross 16 aligned bytes (Arm ARM, B2.5.2 with FEAT_LSE2). From
    /// now on it is translated to plain accesses with barriers. False if that is so already:
    /// then the fault is the guest's.
    pub fn tolerate_misaligned(&self, rip: u64) -> bool {
        self.tolerate(&mut self.lock(), rip)
    }

    fn tolerate(&self, inner: &mut Inner, rip: u64) -> bool {
        let new = inner.order == MemoryOrder::Ordered && inner.misaligned.insert(rip);
        if new {
            self.forget(inner, rip, rip + 1);
        }
        new
    }

    /// What the detours stand for is translated anew, with their accesses in the code.
    pub(super) fn take_in_detours(&self) {
        let mut inner = self.lock();
        for (meta, access) in self.cache.detours().take_new() {
            self.tolerate(&mut inner, meta.guest + u64::from(meta.entry_at(access).guest));
        }
    }

    /// Returns the translations that there were.
    fn forget(&self, inner: &mut Inner, start: u64, end: u64) -> Vec<&'static RegionMeta> {
        let mut killed = Vec::new();
        let Inner { pages, entries, stats, found_flags, windows, .. } = inner;
        *windows = Windows::default();
        let mut changed = BTreeSet::new();
        for number in start / PAGE..=(end.max(start + 1) - 1) / PAGE {
            let Some(page) = pages.get(&number) else {
                continue;
            };
            let stale = |meta: &&&RegionMeta| meta.depends_on(start, end) && !meta.is_dead();
            for meta in page.regions.iter().chain(&page.lookers).filter(stale) {
                for guest in meta.entry_addresses() {
                    entries.remove(&guest);
                }
                self.cache.kill(meta);
                killed.push(*meta);
                found_flags.forget();
                stats.invalidations += 1;
                // Their places are no entries any more, and no region need end there.
                changed.extend(meta.guest / PAGE..=(meta.guest_end - 1) / PAGE);
            }
            changed.insert(number);
        }
        for number in changed {
            if let Some(page) = pages.get_mut(&number) {
                page.sweep(number);
            }
        }
        killed
    }

    /// Throws all translations away. Every thread comes out of translated code first.
    pub(super) fn flush(&self, inner: &mut Inner) {
        // A thread that looks for a translation without the lock sees this, or is waited for.
        self.flushing.store(true, Ordering::SeqCst);
        self.cache.arm_all();
        for &cpu in &inner.attached {
            // SAFETY: attached states live until `detach`, which needs the lock. A thread that is
            // out waits for the lock before it goes in again.
            unsafe {
                self.wait_until_out(AtomicU64::from_ptr(&raw mut (*cpu).entering));
                (*cpu).shadow_sp = (*cpu).shadow_top;
                // Calls after returns too many have left addresses there.
                std::ptr::write_bytes((*cpu).shadow_top as *mut u8, 0, SHADOW_ABOVE);
                (*cpu).armed = [0; 4];
                // Private anonymous pages are zero again.
                libc::madvise(
                    (*cpu).branch_table as *mut _,
                    BRANCH_TABLE_SIZE,
                    libc::MADV_DONTNEED,
                );
                miss_at_zero((*cpu).branch_table);
            }
        }
        self.generation.fetch_add(1, Ordering::Relaxed);
        inner.entries.clear();
        inner.pages.clear();
        inner.found_flags.forget();
        inner.windows = Windows::default();
        self.cache.reset();
        self.flushing.store(false, Ordering::SeqCst);
    }

    /// Waits for a thread to come out of translated code, all of which is set to stop.
    fn wait_until_out(&self, entering: &AtomicU64) {
        /// So many turns are more than a thread that runs ever needs.
        const PATIENCE: u64 = 1 << 10;
        let mut turns = 0u64;
        // With `leave`: all that the thread did inside is done.
        while entering.load(Ordering::SeqCst) != 0 {
            // SAFETY: no arguments.
            unsafe { libc::sched_yield() };
            turns += 1;
            // A machine that QEMU emulates may go on with the old code for ever: it forgets what it has made of an
            // instruction before that is written, and another processor may meanwhile have read it anew (and
            // IC IVAU does nothing there). Written again, it is forgotten again.
            if turns >= PATIENCE && turns.is_power_of_two() {
                self.cache.arm_all();
            }
        }
    }
}
