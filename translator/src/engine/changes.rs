//! Guest code that changes: its translations are thrown away.

use super::{Engine, Inner, PAGE};
use crate::cache::RegionMeta;
use std::collections::BTreeSet;
use std::ops::Range;

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
        for Range { start, end } in ranges {
            self.forget(&mut inner, start, end);
        }
        allow_writes();
    }

    fn forget(&self, inner: &mut Inner, start: u64, end: u64) {
        let Inner { pages, entries, stats, found_flags, .. } = inner;
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
    }
}
