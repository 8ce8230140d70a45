//! The guest's pages of 4 KiB on host pages that may be larger. What does not fill whole host pages is put into
//! them by copying, and a host page has the protection of all that lies in it. What others are to see cannot be copied:
//! that is refused (docs/pages.md).

use std::ops::Range;

use super::raw::{self, host_prot};
use super::space::{EINVAL, Map, Memory, State};
use crate::host::Errno;
use crate::log;
use crate::memmap::{Mapping, READ, WRITE};

const MAP_FIXED: u32 = libc::MAP_FIXED as u32;
const MAP_PRIVATE: u32 = libc::MAP_PRIVATE as u32;
const MAP_ANONYMOUS: u32 = libc::MAP_ANONYMOUS as u32;

impl Memory {
    /// Maps a claimed range on the host. Host pages that the range shares with other mappings are
    /// filled by copying, and so is everything if the file's offset does not fit the address.
    pub(super) fn install(
        &self,
        state: &State,
        request: &Map,
        range: &Range<u64>,
        mapping: &Mapping,
    ) -> Result<(), Errno> {
        let neighbours = |page: u64| {
            let mut parts = state.map.overlapping(page..page + self.host_page);
            parts.any(|(r, _)| r.start < range.start || r.end > range.end)
        };
        let fits = request.is_anonymous()
            || request.offset % self.host_page == range.start % self.host_page;
        let wide = self.widen(range);
        let head = range.start != wide.start && (neighbours(wide.start) || !fits);
        let last = wide.end - self.host_page;
        let tail = range.end != wide.end && neighbours(last);
        let inner_start = if head { wide.start + self.host_page } else { wide.start };
        let inner_end = if tail { last } else { wide.end };
        if (head || tail || !fits) && mapping.shared {
            return Err(self.does_not_fit("a shared mapping", range));
        }
        if inner_start < inner_end {
            let len = inner_end - inner_start;
            if fits {
                let offset = if request.is_anonymous() {
                    0
                } else {
                    request.offset + inner_start - range.start
                };
                let flags = request.host_flags() | MAP_FIXED;
                raw::mmap(inner_start, len, host_prot(mapping.prot), flags, request.fd, offset)?;
            } else {
                self.copy_in(request, range, inner_start..inner_end, mapping.prot)?;
            }
        }
        if head {
            self.copy_into_shared_page(state, request, range, wide.start)?;
        }
        if tail && (last != wide.start || !head) {
            self.copy_into_shared_page(state, request, range, last)?;
        }
        Ok(())
    }

    /// Stands in for a private file mapping whose offset does not fit the host's pages.
    fn copy_in(
        &self,
        request: &Map,
        range: &Range<u64>,
        inner: Range<u64>,
        prot: u32,
    ) -> Result<(), Errno> {
        let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
        raw::mmap(inner.start, inner.end - inner.start, READ | WRITE, flags, -1, 0)?;
        let (start, end) = (inner.start.max(range.start), inner.end.min(range.end));
        raw::fill(start, end - start, Some((request.fd, request.offset + start - range.start)))?;
        raw::mprotect(inner.start, inner.end - inner.start, host_prot(prot))
    }

    /// Puts a part of a new mapping into a host page that holds other mappings too.
    fn copy_into_shared_page(
        &self,
        state: &State,
        request: &Map,
        range: &Range<u64>,
        page: u64,
    ) -> Result<(), Errno> {
        let whole = page..page + self.host_page;
        if state.map.any(whole.clone(), |m| m.shared) {
            return Err(self.does_not_fit("a mapping beside a shared one", range));
        }
        raw::mprotect(page, self.host_page, READ | WRITE)?;
        self.make_writable_beyond_files(page)?;
        let (start, end) = (whole.start.max(range.start), whole.end.min(range.end));
        let file =
            (!request.is_anonymous()).then(|| (request.fd, request.offset + start - range.start));
        raw::fill(start, end - start, file)
    }

    /// Where a file ends before its mapping does, memory raises SIGBUS. The dynamic linker maps a library as long as
    /// it is in memory, and puts other mappings over what is behind the file's end: a host page of such a mapping
    /// becomes an anonymous one with the same contents.
    fn make_writable_beyond_files(&self, page: u64) -> Result<(), Errno> {
        let backed = raw::backed(page, self.host_page)?;
        if backed == self.host_page {
            return Ok(());
        }
        let mut contents = vec![0u8; backed as usize];
        let buffer = contents.as_mut_ptr() as u64;
        raw::copy(page, buffer, backed);
        let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
        raw::mmap(page, self.host_page, READ | WRITE, flags, -1, 0)?;
        raw::copy(buffer, page, backed);
        Ok(())
    }

    /// The error for what would have to have pages of its own.
    pub(super) fn does_not_fit(&self, what: &str, Range { start, end }: &Range<u64>) -> Errno {
        let size = self.host_page >> 10;
        log::warn(format_args!(
            "{what} at {start:#x}-{end:#x} does not fit the kernel's pages of {size} KiB: EINVAL"
        ));
        EINVAL
    }

    /// Gives the host pages of a range the protection that the map says, and ends their watch.
    pub(super) fn settle(&self, state: &State, range: &Range<u64>) -> Result<(), Errno> {
        let wide = self.widen(range);
        let mut at = wide.start;
        while at < wide.end {
            let (prot, end) = self.uniform(state, at, wide.end);
            if let Some(prot) = prot {
                raw::mprotect(at, end - at, host_prot(prot))?;
            }
            at = end;
        }
        self.forget_watch(&wide);
        Ok(())
    }

    /// After the host has mapped or unmapped a range: the host pages that only partly belong to it.
    pub(super) fn settle_edges(&self, state: &State, range: &Range<u64>) -> Result<(), Errno> {
        self.forget_watch(&self.widen(range));
        for edge in [range.start, range.end] {
            if edge != self.floor(edge) {
                self.settle(state, &(edge..edge + 1))?;
            }
        }
        Ok(())
    }

    /// The protection of the host page at `at` (None: not mapped), and how far it goes on unchanged.
    pub(super) fn uniform(&self, state: &State, at: u64, limit: u64) -> (Option<u32>, u64) {
        if let Some((r, m)) = state.map.get(at) {
            let end = self.floor(r.end).min(limit);
            if end > at {
                return (Some(m.prot), end);
            }
        }
        let page = at..at + self.host_page;
        let prot = state.map.overlapping(page.clone()).map(|(_, m)| m.prot).reduce(|a, b| a | b);
        (prot, page.end)
    }
}

#[cfg(test)]
mod tests {
    use super::super::host_page_size;
    use super::super::space::tests::{FILE_PAGES, ROOM, anonymous, memory, numbered_file};
    use super::*;
    use crate::memmap::{EXEC, PAGE};
    use proptest::prelude::*;
    use std::fs::File;
    use std::io::Write;
    use std::os::fd::AsRawFd;

    /// As the dynamic linker loads a library whose data segment ends behind the file's end.
    #[test]
    fn mappings_over_what_lies_behind_the_end_of_a_file() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 5 * PAGE as usize + 100]).unwrap();
        let memory = memory(16384);
        let request = Map {
            addr: 0,
            len: 16 * PAGE,
            prot: READ,
            flags: MAP_PRIVATE,
            fd: file.as_raw_fd(),
            offset: 0,
            name: None,
        };
        let base = memory.map(&request).unwrap();
        let byte = |page: u64| {
            // SAFETY: only pages that are mapped and readable are asked for.
            unsafe { *((base + page * PAGE) as *const u8) }
        };
        // In a host page that the file reaches into, and in one that it does not.
        for page in [6, 9] {
            memory.map(&anonymous(base + page * PAGE, 1, READ | WRITE, MAP_FIXED)).unwrap();
            assert_eq!(byte(page), 0);
            // SAFETY: just mapped, writable.
            unsafe { *((base + page * PAGE) as *mut u8) = 9 };
        }
        assert_eq!([0, 4, 5, 6, 9].map(byte), [7, 7, 7, 9, 9]);
    }

    #[derive(Clone, Debug)]
    enum Action {
        Map(u64, u64, u32),
        MapFile(u64, u64, u64, u32),
        Unmap(u64, u64),
        Protect(u64, u64, u32),
        Write(u64, u8),
        Discard(u64, u64),
        /// To another length, where it is.
        Resize(u64, u64, u64),
        /// To another place.
        Move(u64, u64, u64),
    }

    const PAGES: u64 = 24;

    fn action() -> impl Strategy<Value = Action> {
        let range = || (0..PAGES, 1u64..10).prop_map(|(a, l)| (a, l.min(PAGES - a)));
        let prot = || prop_oneof![Just(READ), Just(READ | WRITE), Just(READ | EXEC), Just(0)];
        prop_oneof![
            (range(), prot()).prop_map(|((a, l), p)| Action::Map(a, l, p)),
            (range(), 0..FILE_PAGES, prot()).prop_map(|((a, l), o, p)| Action::MapFile(a, l, o, p)),
            range().prop_map(|(a, l)| Action::Unmap(a, l)),
            (range(), prot()).prop_map(|((a, l), p)| Action::Protect(a, l, p)),
            (0..PAGES, 1u8..100).prop_map(|(a, v)| Action::Write(a, v)),
            (0..PAGES, 1u8..100).prop_map(|(a, v)| Action::Write(a, v)),
            range().prop_map(|(a, l)| Action::Discard(a, l)),
            (range(), 1u64..10).prop_map(|((a, l), n)| Action::Resize(a, l, n.min(PAGES - a))),
            (range(), 0..PAGES).prop_map(|((a, l), to)| Action::Move(a, l.min(PAGES - to), to)),
        ]
    }

    /// A page as the guest must see it.
    #[derive(Clone, Copy, Debug, PartialEq)]
    struct Page {
        prot: u32,
        byte: u8,
        of_file: bool,
    }

    /// The guest's memory, and what is in it.
    struct Model {
        memory: Memory,
        base: u64,
        file: File,
        pages: Vec<Option<Page>>,
    }

    impl Model {
        fn new(host_page: u64, skew: u64) -> Self {
            let memory = memory(host_page);
            let base = memory.map(&anonymous(0, PAGES + 4, 0, 0)).unwrap();
            assert_eq!(base % host_page, 0);
            memory.unmap(base, (PAGES + 4) * PAGE).unwrap();
            let pages = vec![None; PAGES as usize];
            Self { memory, base: base + skew * PAGE, file: numbered_file(), pages }
        }

        fn at(&self, page: u64) -> u64 {
            self.base + page * PAGE
        }

        fn part(&mut self, start: u64, len: u64) -> &mut [Option<Page>] {
            &mut self.pages[start as usize..(start + len) as usize]
        }

        fn act(&mut self, action: &Action) {
            const MAYMOVE_FIXED: u32 = (libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED) as u32;
            match *action {
                Action::Map(a, l, prot) => {
                    self.memory.map(&anonymous(self.at(a), l, prot, MAP_FIXED)).unwrap();
                    self.part(a, l).fill(Some(Page { prot, byte: 0, of_file: false }));
                }
                Action::MapFile(a, l, o, prot) => {
                    let l = l.min(FILE_PAGES - o);
                    let request = Map {
                        flags: MAP_PRIVATE | MAP_FIXED,
                        fd: self.file.as_raw_fd(),
                        offset: o * PAGE,
                        ..anonymous(self.at(a), l, prot, 0)
                    };
                    self.memory.map(&request).unwrap();
                    for (page, number) in self.part(a, l).iter_mut().zip(o..) {
                        *page = Some(Page { prot, byte: 100 + number as u8, of_file: true });
                    }
                }
                Action::Unmap(a, l) => {
                    self.memory.unmap(self.at(a), l * PAGE).unwrap();
                    self.part(a, l).fill(None);
                }
                Action::Protect(a, l, prot) => {
                    let whole = self.part(a, l).iter().all(Option::is_some);
                    let done = self.memory.protect(self.at(a), l * PAGE, prot);
                    assert_eq!(done.is_ok(), whole);
                    // Up to the first hole.
                    let mapped = self.part(a, l).iter_mut().map_while(Option::as_mut);
                    mapped.for_each(|page| page.prot = prot);
                }
                Action::Write(a, value) => {
                    let at = self.at(a);
                    if let Some(page) = &mut self.pages[a as usize]
                        && page.prot & WRITE != 0
                    {
                        page.byte = value;
                        // SAFETY: mapped and writable.
                        unsafe { std::ptr::write_bytes(at as *mut u8, value, PAGE as usize) };
                    }
                }
                Action::Discard(a, l) => {
                    if self.part(a, l).iter().all(|page| page.is_some_and(|page| !page.of_file)) {
                        self.memory.advise(self.at(a), l * PAGE, libc::MADV_DONTNEED).unwrap();
                        self.part(a, l).iter_mut().flatten().for_each(|page| page.byte = 0);
                    }
                }
                Action::Resize(a, l, n) => {
                    let first = self.pages[a as usize];
                    let grows = n > l;
                    if grows && first.is_none_or(|page| page.of_file)
                        || self.memory.remap(self.at(a), l * PAGE, n * PAGE, 0, 0).is_err()
                    {
                        return;
                    }
                    let page = first.map(|page| Page { byte: 0, ..page });
                    let (start, len) = if grows { (a + l, n - l) } else { (a + n, l - n) };
                    let changed = self.part(start, len);
                    assert!(!grows || changed.iter().all(Option::is_none));
                    changed.fill(if grows { page } else { None });
                }
                Action::Move(a, l, to) => {
                    let (from, len, at) = (self.at(a), l * PAGE, self.at(to));
                    // One with its neighbours, or not one at all, as the kernel may see it too.
                    if self.memory.remap(from, len, len, MAYMOVE_FIXED, at).is_ok() {
                        let moved = self.part(a, l).to_vec();
                        self.part(a, l).fill(None);
                        self.part(to, l).copy_from_slice(&moved);
                    }
                }
            }
        }

        /// Contents; and the kernel's protection, which must be no less than what the guest's pages have.
        fn check(&self) {
            let read = protections();
            for (number, page) in (0..).zip(&self.pages) {
                let at = self.at(number);
                assert_eq!(self.memory.lock().map.is_mapped(at..at + PAGE), page.is_some());
                let Some(Page { prot, byte, .. }) = *page else { continue };
                if prot != 0 {
                    // SAFETY: mapped and readable.
                    let seen = unsafe { [*(at as *const u8), *((at + PAGE - 1) as *const u8)] };
                    assert_eq!(seen, [byte; 2], "page {number}");
                }
                let host = at..at + PAGE;
                let host = self.memory.widen(&host);
                let beside = |i: &u64| host.contains(&self.at(*i));
                let all = (0..PAGES).filter(beside).filter_map(|i| self.pages[i as usize]);
                let wanted = host_prot(all.map(|page| page.prot).fold(0, |all, prot| all | prot));
                let of = |all: &[(Range<u64>, u32)]| {
                    let found = all.iter().find(|(range, _)| range.contains(&at));
                    found.map(|(_, prot)| *prot)
                };
                // Read in pieces, while other tests change what is there: what is wrong stays wrong.
                let right = of(&read) == Some(wanted)
                    || (0..20).any(|_| of(&protections()) == Some(wanted));
                assert!(right, "page {number}: {:?}, not {wanted}", of(&read));
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]
        /// The guest's pages of 4 KiB keep their contents whatever the host's page size.
        #[test]
        fn pages_keep_their_contents(actions in prop::collection::vec(action(), 1..40),
                                     host_page in prop_oneof![Just(4096u64), Just(16384u64)],
                                     skew in 0u64..4) {
            if host_page < host_page_size() {
                return Ok(());
            }
            let _beside_others = ROOM.read();
            let mut model = Model::new(host_page, skew);
            for action in &actions {
                model.act(action);
                model.check();
            }
            model.memory.unmap(model.base, PAGES * PAGE).unwrap();
        }
    }

    #[test]
    fn parts_of_host_pages_keep_to_themselves() {
        let file = |start, len, offset| Action::MapFile(start, len, offset, READ);
        let map = |start, len| Action::Map(start, len, READ | WRITE);
        for actions in [
            // To beside others in the same host page.
            vec![file(20, 4, 0), Action::Move(23, 1, 19)],
            // What is anonymous memory to the guest, in a host page of a file.
            vec![file(14, 4, 3), Action::Unmap(9, 8), map(8, 8), Action::Discard(10, 6)],
            vec![file(3, 4, 3), map(3, 2), map(5, 2), Action::Discard(3, 4)],
            // Where something was before.
            vec![map(3, 4), Action::Write(6, 9), Action::Unmap(6, 1), Action::Resize(3, 3, 8)],
            vec![file(3, 4, 3), map(3, 2), Action::Unmap(5, 2), Action::Resize(3, 2, 6)],
        ] {
            let _beside_others = ROOM.read();
            let mut model = Model::new(host_page_size().max(16384), 1);
            for action in &actions {
                model.act(action);
                model.check();
            }
        }
    }

    /// What the kernel says of this process's memory.
    fn protections() -> Vec<(Range<u64>, u32)> {
        let text = std::fs::read_to_string("/proc/self/maps").unwrap();
        let line = |line: &str| {
            let mut words = line.split(' ');
            let (start, end) = words.next()?.split_once('-')?;
            let address = |text| u64::from_str_radix(text, 16).ok();
            let letters = words.next()?;
            let bit = |letter, bit| if letters.contains(letter) { bit } else { 0 };
            Some((address(start)?..address(end)?, bit('r', READ) | bit('w', WRITE)))
        };
        text.lines().filter_map(line).collect()
    }

    #[test]
    fn what_others_see_is_not_copied() {
        let memory = memory(16384);
        let file = numbered_file();
        let shared = |addr, pages, offset, flags: u32| Map {
            flags: flags | libc::MAP_SHARED as u32,
            fd: file.as_raw_fd(),
            offset: offset * PAGE,
            ..anonymous(addr, pages, READ | WRITE, 0)
        };
        // Anywhere it fits, from any offset on.
        let at = memory.map(&shared(0, 2, 5, 0)).unwrap();
        assert_eq!(at % 16384, 5 * PAGE % 16384);
        let refused = |request: &Map| assert_eq!(memory.map(request), Err(EINVAL));
        refused(&shared(at + 17 * PAGE, 1, 5, MAP_FIXED));
        refused(&anonymous(at + 2 * PAGE, 1, READ, MAP_FIXED));
        let page = memory.map(&anonymous(0, 1, READ, 0)).unwrap();
        refused(&shared(page + PAGE, 4, 5, MAP_FIXED));
        assert!(memory.lock().map.is_free(page + PAGE..page + 5 * PAGE));
        memory.unmap(page, PAGE).unwrap();
        memory.unmap(at, 2 * PAGE).unwrap();
    }
}
