//! The guest's pages of 4 KiB on host pages that may be larger. What does not fill whole host pages is put into
//! them by copying, and a host page has the protection of all that lies in it.

use std::ops::Range;

use super::raw::{self, host_prot};
use super::space::{EINVAL, Map, Memory, State};
use crate::host::Errno;
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
            return Err(EINVAL);
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
            return Err(EINVAL);
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

    /// Gives the host pages of a range the protection that the map says, and ends their watch.
    pub(super) fn settle(&self, state: &State, range: &Range<u64>) -> Result<(), Errno> {
        let wide = self.widen(range);
        self.forget_watch(&wide);
        let mut at = wide.start;
        while at < wide.end {
            let (prot, end) = self.uniform(state, at, wide.end);
            if let Some(prot) = prot {
                raw::mprotect(at, end - at, host_prot(prot))?;
            }
            at = end;
        }
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
    fn uniform(&self, state: &State, at: u64, limit: u64) -> (Option<u32>, u64) {
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
