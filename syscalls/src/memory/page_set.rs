//! A set of pages that signal handlers may ask: a bitmap for the whole guest address space,
//! whose parts come into being when they are first needed and stay.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

/// log2 of the bytes of address space under one leaf.
const LEAF_BITS: u32 = 30;
/// log2 of the end of the guest's address space.
const SPACE_BITS: u32 = 47;
const LEAVES: usize = 1 << (SPACE_BITS - LEAF_BITS);
/// Pages are counted in the smallest size any host has.
const PAGE_BITS: u32 = 12;
const WORDS: usize = 1 << (LEAF_BITS - PAGE_BITS - 6);

type Leaf = [AtomicU64; WORDS];

/// A set of pages of 4 KiB below 2^47. All methods are lock-free and, except
/// [`insert`](Self::insert), async-signal-safe.
pub struct PageSet {
    leaves: &'static [AtomicPtr<Leaf>; LEAVES],
}

/// Zeroed memory that is never given back; an untouched page of it costs nothing.
fn zeroed<T>() -> io::Result<&'static T> {
    // SAFETY: a fresh private mapping.
    let address = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            size_of::<T>(),
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: used only for arrays of atomics, for which zero is valid; page-aligned, never unmapped.
    Ok(unsafe { &*address.cast::<T>() })
}

/// Leaf, word and bit of a page.
fn position(addr: u64) -> Option<(usize, usize, u64)> {
    let page = (addr >> PAGE_BITS) as usize;
    let leaf = (addr >> LEAF_BITS) as usize;
    (leaf < LEAVES).then_some((leaf, page >> 6 & (WORDS - 1), 1 << (page & 63)))
}

impl PageSet {
    /// An empty set.
    pub fn new() -> io::Result<Self> {
        Ok(Self { leaves: zeroed()? })
    }

    fn leaf(&self, index: usize) -> Option<&'static Leaf> {
        // SAFETY: a leaf once published is never unmapped.
        unsafe { self.leaves[index].load(Ordering::Acquire).as_ref() }
    }

    /// Whether the page of an address is in the set.
    pub fn contains(&self, addr: u64) -> bool {
        position(addr).is_some_and(|(leaf, word, bit)| {
            self.leaf(leaf).is_some_and(|l| l[word].load(Ordering::SeqCst) & bit != 0)
        })
    }

    /// Puts the page of an address into the set. False if there is no memory for it.
    /// The caller sees to it that no two threads do this at once.
    pub fn insert(&self, addr: u64) -> bool {
        let Some((leaf, word, bit)) = position(addr) else {
            return false;
        };
        if self.leaf(leaf).is_none() {
            let Ok(fresh) = zeroed::<Leaf>() else {
                return false;
            };
            self.leaves[leaf].store(std::ptr::from_ref(fresh).cast_mut(), Ordering::Release);
        }
        self.leaf(leaf).is_some_and(|l| {
            l[word].fetch_or(bit, Ordering::SeqCst);
            true
        })
    }

    /// Takes the page of an address out of the set; whether it was there.
    pub fn remove(&self, addr: u64) -> bool {
        position(addr).is_some_and(|(leaf, word, bit)| {
            self.leaf(leaf).is_some_and(|l| l[word].fetch_and(!bit, Ordering::SeqCst) & bit != 0)
        })
    }

    /// Calls `visit` with the address of each page in a range.
    pub fn for_each(&self, range: Range<u64>, mut visit: impl FnMut(u64)) {
        let mut at = range.start;
        while at < range.end {
            let Some((leaf, word, _)) = position(at) else {
                return;
            };
            let Some(bits) = self.leaf(leaf) else {
                at = ((leaf + 1) as u64) << LEAF_BITS;
                continue;
            };
            let base = at >> (PAGE_BITS + 6) << (PAGE_BITS + 6);
            let mut rest = bits[word].load(Ordering::SeqCst);
            while rest != 0 {
                let page = base + (u64::from(rest.trailing_zeros()) << PAGE_BITS);
                if page + (1 << PAGE_BITS) > range.start && page < range.end {
                    visit(page);
                }
                rest &= rest - 1;
            }
            at = base + (64 << PAGE_BITS);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn is_a_set(inserts in prop::collection::vec(0u64..400, 0..50),
                    removes in prop::collection::vec(0u64..400, 0..50),
                    base in prop_oneof![Just(0u64), Just((1 << 30) - 200 * 4096), Just((1 << 47) - 400 * 4096)],
                    query in 0u64..400, len in 0u64..200) {
            let set = PageSet::new().unwrap();
            let mut model = BTreeSet::new();
            for p in inserts {
                prop_assert!(set.insert(base + p * 4096 + 17));
                model.insert(base + p * 4096);
            }
            for p in removes {
                prop_assert_eq!(set.remove(base + p * 4096), model.remove(&(base + p * 4096)));
            }
            for p in 0..400 {
                let page = base + p * 4096;
                prop_assert_eq!(set.contains(page + 4095), model.contains(&page));
            }
            let range = base + query * 4096..(base + (query + len) * 4096).min(1 << 47);
            let mut found = Vec::new();
            set.for_each(range.clone(), |p| found.push(p));
            prop_assert_eq!(found, model.range(range).copied().collect::<Vec<_>>());
        }
    }

    #[test]
    fn nothing_beyond_the_guest() {
        let set = PageSet::new().unwrap();
        assert!(!set.insert(1 << 47));
        assert!(!set.contains(u64::MAX));
    }
}
