//! Watched pages: those the guest may write, but that are write-protected on the host since they hold
//! translated code. A write to one ends its watch and throws the translations away.
//!
//! A page of a file may be mapped twice, writable in one place and executable in another (.NET does so): the
//! other places of a watched page, its twins, are watched with it.
//!
//! What is write-protected is a page of the host, and that may hold other things too: the end of a program's code and
//! the beginning of its data, for one. Only code that the guest itself may write to is watched.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use translator::engine::GuestMemory;

use super::raw;
use super::space::{Memory, State};
use crate::guest;
use crate::memmap::{self, EXEC, Mapping, PAGE, READ, Source, WRITE};
use crate::{jit_dump, perf_map, symbols};

/// All that a guest can have.
pub const EVERYWHERE: Range<u64> = 0..1 << 47;

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
                self.end_watch(page);
            }
        });
    }

    /// The host pages of a range are no longer watched: they were replaced, or have got another protection.
    pub(super) fn forget_watch(&self, range: &Range<u64>) {
        self.watched.for_each(range.clone(), |page| self.end_watch(page));
    }

    /// Takes the host page of an address out of the watch, which can be written again already: who was refused before
    /// that, and finds no watch now, finds that one has ended.
    fn end_watch(&self, addr: u64) {
        self.watches_ended.fetch_add(1, Ordering::SeqCst);
        let page = self.floor(addr);
        for page in (page..page + self.host_page).step_by(PAGE as usize) {
            self.watched.remove(page);
        }
    }

    /// Whether a write that the host refused is to be made again: a watch stood in its way, which is ended now or was
    /// by another thread. `seen` is where the caller keeps in mind what it has been told.
    pub fn may_write_again(&self, range: Range<u64>, seen: &AtomicU64) -> bool {
        let opened = self.any_watched.load(Ordering::Relaxed) && self.unwatch(range);
        self.has_watch_ended(seen) || opened
    }

    /// Whether a watch has ended since the caller asked last. Async-signal-safe.
    pub fn has_watch_ended(&self, seen: &AtomicU64) -> bool {
        let ended = self.watches_ended.load(Ordering::SeqCst);
        seen.swap(ended, Ordering::Relaxed) != ended
    }

    /// Forgets the code translated from the host pages in a range and ends their watch; whether there was any.
    pub fn unwatch(&self, range: Range<u64>) -> bool {
        let state = self.lock();
        let mut pages = Vec::new();
        self.watched.for_each(self.widen(&range), |page| pages.push(page));
        let stale: Vec<Range<u64>> = pages
            .iter()
            .flat_map(|&page| std::iter::once(page).chain(twins(&state, page)))
            .map(|page| page..page + PAGE)
            .collect();
        drop(state);
        let open = || {
            let _state = self.lock();
            for &page in &pages {
                if self.open_watched(page) {
                    self.end_watch(page);
                }
            }
        };
        match self.engine.get() {
            Some(engine) if !pages.is_empty() => engine.invalidate_before(stale, open),
            _ => open(),
        }
        !pages.is_empty()
    }

    /// Write-protects the host page of the guest's `page` if the guest may write to that.
    fn protect_watched(&self, state: &State, page: u64) {
        let may_change = state.map.any(page..page + PAGE, |m| m.prot & WRITE != 0);
        let page = self.floor(page);
        if may_change
            && !self.watched.contains(page)
            && (page..page + self.host_page)
                .step_by(PAGE as usize)
                .all(|page| self.watched.insert(page))
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
        let name = || self.symbol(addr).unwrap_or_else(|| format!("{addr:#x}"));
        perf_map::note(host, len, name);
        jit_dump::note(host, len, name);
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

#[cfg(test)]
mod tests {
    use super::super::raw::last_errno;
    use super::super::space::tests::{anonymous, memory, numbered_file};
    use super::super::{Map, host_page_size};
    use super::*;
    use crate::host::Errno;
    use std::io::Write;
    use std::os::fd::AsRawFd;

    #[test]
    fn a_watch_write_protects_until_it_ends() {
        let memory: &'static Memory = Box::leak(Box::new(memory(host_page_size())));
        let at = memory.map(&anonymous(0, 4, READ | WRITE | EXEC, 0)).unwrap();
        assert_eq!(memory.executable_from(at + 5), 4 * PAGE - 5);
        assert_eq!(memory.executable_from(at - 5), 0);
        memory.watch(at + PAGE, at + PAGE + 3);
        assert!(memory.is_watched(at + PAGE) && !memory.is_watched(at + 2 * PAGE));
        // A kernel write shows the host's protection without a fault of our own.
        let (reader, writer) = std::io::pipe().unwrap();
        let mut writer = writer;
        writer.write_all(b"xy").unwrap();
        // SAFETY: reads into the guest's page.
        let read = || unsafe { libc::read(reader.as_raw_fd(), (at + PAGE) as *mut _, 1) };
        assert_eq!((read(), last_errno()), (-1, Errno(libc::EFAULT)));
        assert!(memory.unwatch(EVERYWHERE));
        assert!(!memory.unwatch(EVERYWHERE));
        assert_eq!(read(), 1);
        // Pages the guest cannot write need no watch.
        memory.protect(at, 4 * PAGE, READ | EXEC).unwrap();
        memory.watch(at, at + PAGE);
        assert!(!memory.is_watched(at));
        memory.unmap(at, 4 * PAGE).unwrap();
    }

    #[test]
    fn a_page_that_is_mapped_twice_is_watched_twice() {
        let memory: &'static Memory = Box::leak(Box::new(memory(host_page_size())));
        let file = numbered_file();
        let request = |prot| Map {
            addr: 0,
            len: 4 * PAGE,
            prot,
            flags: libc::MAP_SHARED as u32,
            fd: file.as_raw_fd(),
            offset: 0,
            name: None,
        };
        let code = memory.map(&request(READ | EXEC)).unwrap();
        let data = memory.map(&request(READ | WRITE)).unwrap();
        memory.watch(code + PAGE, code + PAGE + 1);
        assert!(memory.is_watched(data + PAGE));
        assert!(!memory.is_watched(data + 2 * PAGE) && !memory.is_watched(code + PAGE));
        let range = data..data + 4 * PAGE;
        let twins: Vec<u64> = (0..4).map(|i| code + i * PAGE).collect();
        assert_eq!(memory.executable_twins(&memory.lock(), &range), twins);
        assert!(memory.unwatch(data + PAGE..data + PAGE + 1));
        memory.unmap(code, 4 * PAGE).unwrap();
        memory.unmap(data, 4 * PAGE).unwrap();
    }

    /// One of the threads that a watch stops ends it; the others come when it is gone.
    #[test]
    fn writes_go_on_when_another_thread_has_ended_the_watch() {
        let memory: &'static Memory = Box::leak(Box::new(memory(host_page_size())));
        let at = memory.map(&anonymous(0, 1, READ | WRITE | EXEC, 0)).unwrap();
        let [first, second] = [const { AtomicU64::new(0) }; 2];
        for _ in 0..2 {
            memory.watch(at, at + 1);
            assert!(memory.may_write_again(at..at + 1, &first));
            assert!(memory.may_write_again(at..at + 1, &second));
            for seen in [&first, &second] {
                assert!(!memory.may_write_again(at..at + 1, seen));
            }
        }
        memory.watch(at, at + 1);
        memory.unmap(at, PAGE).unwrap();
        assert!(memory.has_watch_ended(&first));
    }

    /// A program's code is followed by its data, in the same page of the host.
    #[test]
    fn code_beside_data_is_not_watched_and_code_to_be_written_is() {
        let memory: &'static Memory = Box::leak(Box::new(memory(16384)));
        let at = memory.map(&anonymous(0, 4, READ | WRITE, 0)).unwrap();
        memory.protect(at, PAGE, READ | EXEC).unwrap();
        memory.watch(at, at + 1);
        assert!(!memory.is_watched(at) && !memory.is_watched(at + PAGE));
        memory.protect(at + PAGE, PAGE, READ | WRITE | EXEC).unwrap();
        memory.watch(at + PAGE, at + PAGE + 1);
        assert!((0..4).all(|page| memory.is_watched(at + page * PAGE)));
        assert!(memory.unwatch(at + 3 * PAGE..at + 3 * PAGE + 1));
        assert!(!(0..4).any(|page| memory.is_watched(at + page * PAGE)));
        memory.unmap(at, 4 * PAGE).unwrap();
    }
}
