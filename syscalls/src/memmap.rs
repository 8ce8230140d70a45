//! The interval map of the address space: what lies where, as the guest sees it.
//! Pure bookkeeping; `memory` keeps the host's mappings in step with it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The guest's page size.
pub const PAGE: u64 = 4096;

/// `PROT_READ`, `PROT_WRITE` and `PROT_EXEC`, the same on both architectures.
pub const READ: u32 = 1;
#[allow(missing_docs)]
pub const WRITE: u32 = 2;
#[allow(missing_docs)]
pub const EXEC: u32 = 4;

/// A mapped file, as `/proc/PID/maps` shows it.
#[derive(Debug, PartialEq, Eq)]
pub struct File {
    /// `st_dev`, in the kernel's encoding of major and minor.
    pub dev: u64,
    /// `st_ino`.
    pub inode: u64,
    /// Name; bytes, since it need not be UTF-8.
    pub path: Vec<u8>,
}

impl File {
    /// Whether two mappings show the same file, whatever they call it.
    pub fn is_same(&self, other: &Self) -> bool {
        (self.dev, self.inode) == (other.dev, other.inode)
    }
}

/// What a mapping shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Anonymous memory.
    Anonymous,
    /// Anonymous memory with a name in brackets.
    Named(&'static str),
    /// A file from an offset on.
    File(Arc<File>, u64),
    /// A System V segment attached by shmat(2) (and where its first byte is mapped).
    SharedMemory(Arc<File>, u64),
    /// The translator's own: the guest neither sees nor touches it.
    Reserved,
}

/// The attributes of a range of pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// `READ | WRITE | EXEC` as the guest asked.
    pub prot: u32,
    /// MAP_SHARED.
    pub shared: bool,
    /// What it shows.
    pub source: Source,
}

impl Mapping {
    /// The translator's own memory.
    pub const RESERVED: Self = Self { prot: 0, shared: false, source: Source::Reserved };

    /// Whether this is the translator's own memory.
    pub fn is_reserved(&self) -> bool {
        self.source == Source::Reserved
    }

    /// Whether it is anonymous memory of this process alone.
    pub fn is_private_memory(&self) -> bool {
        !self.shared && matches!(self.source, Source::Anonymous | Source::Named(_))
    }

    /// The same mapping seen from `by` bytes further on.
    fn advanced(&self, by: u64) -> Self {
        let mut mapping = self.clone();
        if let Source::File(_, offset) = &mut mapping.source {
            *offset += by;
        }
        mapping
    }

    /// Whether `next`, which starts `len` bytes behind the start of `self`, continues it.
    fn continues(&self, len: u64, next: &Self) -> bool {
        !matches!(self.source, Source::SharedMemory(..)) && self.advanced(len) == *next
    }
}

#[derive(Clone, Debug)]
struct Entry {
    end: u64,
    mapping: Mapping,
}

/// Disjoint ranges of addresses with their mappings. Neighbours that continue each other are one.
#[derive(Debug, Default)]
pub struct IntervalMap {
    entries: BTreeMap<u64, Entry>,
}

/// See [`changes`].
static CHANGES: AtomicU64 = AtomicU64::new(0);

/// A number that changes whenever something executable is removed or replaced, in any map.
pub fn changes() -> u64 {
    CHANGES.load(Ordering::Relaxed)
}

impl IntervalMap {
    /// The mapping at an address.
    pub fn get(&self, addr: u64) -> Option<(Range<u64>, &Mapping)> {
        let (&start, entry) = self.entries.range(..=addr).next_back()?;
        (addr < entry.end).then_some((start..entry.end, &entry.mapping))
    }

    /// The mappings that overlap a range, whole (not clipped to it), in order.
    pub fn overlapping(&self, range: Range<u64>) -> impl Iterator<Item = (Range<u64>, &Mapping)> {
        let last = self.last_before(range.end).filter(|(r, _)| r.end > range.start);
        // Most ranges touch one mapping, or none.
        let more = last.as_ref().is_some_and(|(r, _)| r.start > range.start);
        let (one, many) = if more {
            let first = self.get(range.start).map_or(range.start, |(r, _)| r.start);
            (None, Some(self.entries.range(first..range.end)))
        } else {
            (last, None)
        };
        let many = many.into_iter().flatten();
        one.into_iter().chain(many.map(|(&start, entry)| (start..entry.end, &entry.mapping)))
    }

    /// The last mapping that begins before an address.
    fn last_before(&self, end: u64) -> Option<(Range<u64>, &Mapping)> {
        let (&start, entry) = self.entries.range(..end).next_back()?;
        Some((start..entry.end, &entry.mapping))
    }

    /// Like [`overlapping`](Self::overlapping), with each range cut to the part inside.
    pub fn clipped(&self, range: Range<u64>) -> impl Iterator<Item = (Range<u64>, Mapping)> {
        self.overlapping(range.clone()).map(move |(r, m)| {
            let start = r.start.max(range.start);
            (start..r.end.min(range.end), m.advanced(start - r.start))
        })
    }

    /// The parts of a range where nothing is mapped.
    pub fn gaps(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let mut gaps = Vec::new();
        let mut at = range.start;
        for (r, _) in self.overlapping(range.clone()) {
            if r.start > at {
                gaps.push(at..r.start);
            }
            at = r.end;
        }
        if at < range.end {
            gaps.push(at..range.end);
        }
        gaps
    }

    /// Whether nothing at all is mapped in a range.
    pub fn is_free(&self, range: Range<u64>) -> bool {
        self.last_before(range.end).is_none_or(|(r, _)| r.end <= range.start)
    }

    /// Whether a range is the guest's without a hole.
    pub fn is_mapped(&self, range: Range<u64>) -> bool {
        self.mapped_until(range.clone()) == range.end
    }

    /// How far a range is the guest's without a hole, from its start on.
    pub fn mapped_until(&self, range: Range<u64>) -> u64 {
        let mut at = range.start;
        for (r, m) in self.overlapping(range.clone()) {
            if r.start > at || m.is_reserved() {
                break;
            }
            at = r.end.min(range.end);
        }
        at
    }

    /// Whether the translator has something in a range.
    pub fn has_reserved(&self, range: Range<u64>) -> bool {
        self.overlapping(range).any(|(_, m)| m.is_reserved())
    }

    /// Whether something in a range satisfies a condition.
    pub fn any(&self, range: Range<u64>, condition: impl Fn(&Mapping) -> bool) -> bool {
        self.overlapping(range).any(|(_, m)| condition(m))
    }

    /// Makes `addr` a boundary between two entries if it is inside one.
    fn split(&mut self, addr: u64) {
        let Some((&start, entry)) = self.entries.range_mut(..addr).next_back() else {
            return;
        };
        if entry.end > addr {
            let tail = Entry { end: entry.end, mapping: entry.mapping.advanced(addr - start) };
            entry.end = addr;
            self.entries.insert(addr, tail);
        }
    }

    /// Forgets whatever is mapped in a range.
    pub fn remove(&mut self, range: Range<u64>) {
        let Some((last, mapping)) = self.last_before(range.end) else { return };
        if last.end <= range.start {
            return;
        }
        let is_all = last == range;
        let executable = |mapping: &Mapping| mapping.prot & EXEC != 0;
        if executable(mapping) || !is_all && self.any(range.clone(), executable) {
            CHANGES.fetch_add(1, Ordering::Relaxed);
        }
        if is_all {
            self.entries.remove(&range.start);
            return;
        }
        self.split(range.start);
        self.split(range.end);
        let inside: Vec<u64> = self.entries.range(range).map(|(&start, _)| start).collect();
        for start in inside {
            self.entries.remove(&start);
        }
    }

    /// Maps a range, in place of whatever was there.
    pub fn insert(&mut self, range: Range<u64>, mapping: Mapping) {
        if range.is_empty() {
            return;
        }
        self.remove(range.clone());
        let Range { start, mut end } = range;
        // Neighbours that continue each other become one.
        if let Some(next) = self.entries.get(&end)
            && mapping.continues(end - start, &next.mapping)
        {
            let next_end = next.end;
            self.entries.remove(&end);
            end = next_end;
        }
        if let Some((&before, previous)) = self.entries.range_mut(..start).next_back()
            && previous.end == start
            && previous.mapping.continues(start - before, &mapping)
        {
            previous.end = end;
        } else {
            self.entries.insert(start, Entry { end, mapping });
        }
    }

    /// Changes the attributes of all that is mapped in a range.
    pub fn update(&mut self, range: Range<u64>, change: impl Fn(&mut Mapping)) {
        let parts: Vec<_> = self.clipped(range).collect();
        for (range, mut mapping) in parts {
            change(&mut mapping);
            self.insert(range, mapping);
        }
    }

    /// The highest multiple of `align` in `within` where `len` bytes are free.
    pub fn find_gap(&self, len: u64, align: u64, within: Range<u64>) -> Option<u64> {
        let mut top = within.end;
        loop {
            let candidate = top.checked_sub(len)? / align * align;
            if candidate < within.start {
                return None;
            }
            match self.last_before(candidate + len) {
                // The highest obstacle may reach into the candidate; continue below the lowest one
                // only when they are adjacent, so go step by step.
                Some((obstacle, _)) if obstacle.end > candidate => top = obstacle.start,
                _ => return Some(candidate),
            }
        }
    }

    /// Everything, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Range<u64>, &Mapping)> {
        self.entries.iter().map(|(&start, entry)| (start..entry.end, &entry.mapping))
    }

    /// The guest's mappings as `/proc/PID/maps` prints them (proc_pid_maps(5)).
    pub fn proc_maps(&self) -> String {
        let mut text = String::new();
        for (range, mapping) in self.iter().filter(|(_, m)| !m.is_reserved()) {
            let (dev, inode, offset, name): (u64, u64, u64, &[u8]) = match &mapping.source {
                Source::Anonymous | Source::Reserved => (0, 0, 0, b""),
                Source::Named(name) => (0, 0, 0, name.as_bytes()),
                Source::File(file, offset) => (file.dev, file.inode, *offset, &file.path),
                Source::SharedMemory(file, _) => (file.dev, file.inode, 0, &file.path),
            };
            let flag = |bit, letter| if mapping.prot & bit != 0 { letter } else { '-' };
            let line = format!(
                "{:08x}-{:08x} {}{}{}{} {offset:08x} {:02x}:{:02x} {inode} ",
                range.start,
                range.end,
                flag(READ, 'r'),
                flag(WRITE, 'w'),
                flag(EXEC, 'x'),
                if mapping.shared { 's' } else { 'p' },
                libc::major(dev),
                libc::minor(dev),
            );
            let name = String::from_utf8_lossy(name).replace('\n', "\\012");
            // The name starts in column 73 (seq_pad in fs/proc/task_mmu.c).
            let _ = if name.is_empty() {
                writeln!(text, "{line}")
            } else {
                writeln!(text, "{line:<73}{name}")
            };
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(path: &str) -> Arc<File> {
        Arc::new(File { dev: 0x801, inode: 7, path: path.as_bytes().to_vec() })
    }

    fn anonymous(prot: u32) -> Mapping {
        Mapping { prot, shared: false, source: Source::Anonymous }
    }

    #[derive(Clone, Debug)]
    enum Action {
        Insert(u64, u64, u32),
        InsertFile(u64, u64, u64),
        Remove(u64, u64),
        Protect(u64, u64, u32),
    }

    fn action() -> impl Strategy<Value = Action> {
        let range = (0u64..40, 1u64..20);
        prop_oneof![
            (range.clone(), 0u32..8).prop_map(|((a, l), p)| Action::Insert(a, l, p)),
            (range.clone(), 0u64..4).prop_map(|((a, l), o)| Action::InsertFile(a, l, o)),
            range.clone().prop_map(|(a, l)| Action::Remove(a, l)),
            (range, 0u32..8).prop_map(|((a, l), p)| Action::Protect(a, l, p)),
        ]
    }

    /// One entry for each page: the naive model.
    type Model = Vec<Option<Mapping>>;

    fn apply(map: &mut IntervalMap, model: &mut Model, action: Action, name: &Arc<File>) {
        let pages = |a: u64, l: u64| a * PAGE..(a + l) * PAGE;
        match action {
            Action::Insert(a, l, prot) => {
                map.insert(pages(a, l), anonymous(prot));
                (a..a + l).for_each(|p| model[p as usize] = Some(anonymous(prot)));
            }
            Action::InsertFile(a, l, o) => {
                let at = |p| Mapping {
                    prot: READ,
                    shared: true,
                    source: Source::File(name.clone(), (o + p) * PAGE),
                };
                map.insert(pages(a, l), at(0));
                (0..l).for_each(|p| model[(a + p) as usize] = Some(at(p)));
            }
            Action::Remove(a, l) => {
                map.remove(pages(a, l));
                (a..a + l).for_each(|p| model[p as usize] = None);
            }
            Action::Protect(a, l, prot) => {
                map.update(pages(a, l), |m| m.prot = prot);
                for m in model[a as usize..(a + l) as usize].iter_mut().flatten() {
                    m.prot = prot;
                }
            }
        }
    }

    proptest! {
        #[test]
        fn behaves_like_one_entry_for_each_page(actions in prop::collection::vec(action(), 1..60),
                                                query in (0u64..50, 1u64..20)) {
            let name = file("/bin/x");
            let (mut map, mut model) = (IntervalMap::default(), vec![None; 64]);
            for a in actions {
                apply(&mut map, &mut model, a, &name);
            }
            for (page, expected) in model.iter().enumerate() {
                let addr = page as u64 * PAGE;
                let found = map.get(addr + 123).map(|(r, m)| m.advanced(addr - r.start));
                prop_assert_eq!(&found, expected);
            }
            let entries: Vec<_> = map.iter().collect();
            for pair in entries.windows(2) {
                let ((a, m), (b, n)) = (&pair[0], &pair[1]);
                prop_assert!(a.end <= b.start);
                prop_assert!(a.end < b.start || !m.continues(a.end - a.start, n), "not joined");
            }
            let (a, l) = query;
            let range = a * PAGE..(a + l) * PAGE;
            let slice: Vec<_> = (a..a + l).map(|p| model.get(p as usize).is_some_and(|m| m.is_some())).collect();
            prop_assert_eq!(map.is_free(range.clone()), slice.iter().all(|m| !m));
            prop_assert_eq!(map.is_mapped(range.clone()), slice.iter().all(|m| *m));
            let holes: u64 = map.gaps(range.clone()).iter().map(|g| (g.end - g.start) / PAGE).sum();
            prop_assert_eq!(holes as usize, slice.iter().filter(|m| !**m).count());
            let naive = (0..=64 - l).rev().find(|&p| model[p as usize..(p + l) as usize].iter().all(|m| m.is_none()));
            prop_assert_eq!(map.find_gap(l * PAGE, PAGE, 0..64 * PAGE), naive.map(|p| p * PAGE));
        }
    }

    #[test]
    fn prints_like_the_kernel() {
        let mut map = IntervalMap::default();
        map.insert(
            0x400000..0x401000,
            Mapping {
                prot: READ | EXEC,
                shared: false,
                source: Source::File(file("/bin/true"), 0x1000),
            },
        );
        map.insert(0x7fff00000000..0x7fff00001000, anonymous(READ | WRITE));
        map.insert(0x10000..0x20000, Mapping::RESERVED);
        assert_eq!(
            map.proc_maps(),
            "00400000-00401000 r-xp 00001000 08:01 7                                  /bin/true\n\
             7fff00000000-7fff00001000 rw-p 00000000 00:00 0 \n"
        );
    }

    #[test]
    fn aligned_gaps() {
        let mut map = IntervalMap::default();
        map.insert(0x8000..0x9000, anonymous(READ));
        assert_eq!(map.find_gap(0x1000, 0x4000, 0x1000..0xc000), Some(0x4000));
        assert_eq!(map.find_gap(0x4000, 0x4000, 0x5000..0xc000), None);
    }
}
