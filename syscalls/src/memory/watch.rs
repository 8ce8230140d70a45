//! Watched pages: those the guest may write, but that are write-protected on the host since they hold
//! translated code. A write to one ends its watch and throws the translations away.
//!
//! A page of a file may be mapped twice, writable in one place and executable in another (.NET does so): the
//! other places of a watched page, its twins, are watched with it.

use std::ops::Range;
use std::sync::atomic::Ordering;

use translator::engine::GuestMemory;

use super::raw;
use super::space::{Memory, State};
use crate::guest;
use crate::memmap::{self, EXEC, Mapping, PAGE, READ, Source, WRITE};
use crate::{perf_map, symbols};

impl Memory {
    /// Whether a write fault at an address is one that [`unwatch`](Self::unwatch) resolves. Async-signal-safe.
    pub fn is_watched(&self, addr: u64) -> bool {
        self.watched.contains(addr)
    }

    /// Makes the host page of an address writable for the guest again. The translations of the page are
    /// still there. Async-signal-safe; returns false if the page is not watched.
    pub fn open_watched(&self, addr: u64) -> bool {
        self.is_watched(addr)
            && raw::mprotect(self.floor(addr), self.host_page, READ | WRITE).is_ok()
    }

    /// Makes the watched pages of a range writable again, before they are moved.
    pub(super) fn open_all(&self, range: &Range<u64>) {
        self.watched.for_each(self.widen(range), |page| {
            if self.open_watched(page) {
                self.watched.remove(page);
            }
        });
    }

    /// The pages of a range are no longer watched: they were replaced, or get another protection.
    pub(super) fn forget_watch(&self, range: &Range<u64>) {
        self.watched.for_each(range.clone(), |page| {
            self.watched.remove(page);
        });
    }

    /// Ends every watch; whether there was any.
    pub fn unwatch_all(&self) -> bool {
        self.any_watched.load(Ordering::Relaxed) && self.unwatch(0..1 << 47)
    }

    /// Ends the watch of the host pages in a range and forgets the code translated from them;
    /// whether there was any.
    pub fn unwatch(&self, range: Range<u64>) -> bool {
        let state = self.lock();
        let mut pages = Vec::new();
        self.watched.for_each(self.widen(&range), |page| pages.push(page));
        let stale: Vec<u64> = pages
            .iter()
            .filter(|&&page| self.open_watched(page) && self.watched.remove(page))
            .flat_map(|&page| std::iter::once(page).chain(twins(&state, page)))
            .collect();
        drop(state);
        for page in stale {
            self.invalidate(page..page + PAGE, true);
        }
        !pages.is_empty()
    }

    /// Write-protects the host page at `page` if the guest may write there.
    fn protect_watched(&self, state: &State, page: u64) {
        let page = self.floor(page);
        let range = page..page + self.host_page;
        if !self.watched.contains(page)
            && state.map.any(range.clone(), |m| m.prot & WRITE != 0)
            && range.step_by(PAGE as usize).all(|p| self.watched.insert(p))
        {
            self.any_watched.store(true, Ordering::Relaxed);
            // A failure leaves the page writable: self-modifying code there goes unnoticed.
            let _ = raw::mprotect(page, self.host_page, READ);
        }
    }

    /// After a range became writable: the executable twins of its pages, whose translations were made while
    /// nobody could write.
    pub(super) fn executable_twins(&self, state: &State, range: &Range<u64>) -> Vec<u64> {
        let is_shared = |m: &Mapping| m.shared && m.prot & WRITE != 0;
        if !state.map.any(range.clone(), is_shared) {
            return Vec::new();
        }
        let executable = |page: &u64| state.map.get(*page).is_some_and(|(_, m)| m.prot & EXEC != 0);
        let pages = range.clone().step_by(PAGE as usize);
        pages.flat_map(|page| twins(state, page)).filter(executable).collect()
    }
}

/// The other pages that show the same page of a shared file.
fn twins(state: &State, page: u64) -> Vec<u64> {
    let Some((range, mapping)) = state.map.get(page) else { return Vec::new() };
    let Source::File(file, start) = &mapping.source else { return Vec::new() };
    if !mapping.shared {
        return Vec::new();
    }
    let wanted = start + (page - range.start);
    let place = |(r, m): (Range<u64>, &Mapping)| match &m.source {
        Source::File(other, offset) if m.shared && other.is_same(file) && *offset <= wanted => {
            Some(r.start + (wanted - offset)).filter(|at| *at < r.end && *at != page)
        }
        _ => None,
    };
    state.map.iter().filter_map(place).collect()
}

impl GuestMemory for &'static Memory {
    fn executable_from(&self, addr: u64) -> u64 {
        let state = self.lock();
        let mut end = addr;
        while end - addr < 2 * PAGE {
            let Some((range, mapping)) = state.map.get(end) else { break };
            if mapping.prot & EXEC == 0 {
                break;
            }
            if !matches!(mapping.source, Source::File(..)) {
                end = range.end;
                continue;
            }
            // A mapping may reach beyond the end of its file, where there is nothing to read.
            if guest::read::<u8>(end).is_err() {
                break;
            }
            end = range.end.min(end / PAGE * PAGE + PAGE);
        }
        end - addr
    }

    fn executable_around(&self, addr: u64) -> (u64, u64) {
        let state = self.lock();
        let found = state.map.get(addr).filter(|(_, mapping)| mapping.prot & EXEC != 0);
        found.map_or((addr, addr), |(range, _)| (range.start, range.end))
    }

    fn changes(&self) -> u64 {
        memmap::changes()
    }

    fn symbol(&self, addr: u64) -> Option<String> {
        let (file, offset) = {
            let state = self.lock();
            let (range, mapping) = state.map.get(addr)?;
            let Source::File(file, offset) = &mapping.source else { return None };
            (file.clone(), offset + (addr - range.start))
        };
        Some(symbols::name(&file, offset))
    }

    fn translated(&self, addr: u64, host: u64, len: u32) {
        perf_map::note(host, len, || self.symbol(addr).unwrap_or_else(|| format!("{addr:#x}")));
    }

    fn watch(&self, start: u64, end: u64) {
        let state = self.lock();
        for page in (start / PAGE * PAGE..end).step_by(PAGE as usize) {
            self.protect_watched(&state, page);
            for twin in twins(&state, page) {
                self.protect_watched(&state, twin);
            }
        }
    }
}
