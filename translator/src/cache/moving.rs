//! A code cache at another place: proof that what depends on where it is stands in its records.

use super::*;

/// Where what was in one cache is in another.
pub struct Moved {
    /// Where the old cache began.
    pub from: u64,
    /// How long it was.
    pub size: usize,
    regions: u64,
    trampolines_by: u64,
    regions_by: u64,
    /// How many branches to trampolines were made anew.
    pub branches: usize,
    /// How many entries inside of regions there were.
    pub later_entries: usize,
}

impl Moved {
    /// An address in the old cache, in the new one; any other is as it was.
    pub fn of(&self, at: u64) -> u64 {
        if at.wrapping_sub(self.from) >= self.size as u64 {
            return at;
        }
        at.wrapping_add(if at < self.regions { self.trampolines_by } else { self.regions_by })
    }
}

impl CodeCache {
    /// Copies the cache to another place, and puts `gap` bytes between the trampolines and the regions: there each branch
    /// to a trampoline needs its record. No thread may be in translated code.
    pub fn moved(&self, gap: u64) -> io::Result<(CodeCache, Moved)> {
        assert!(self.detours.is_unused(), "detours are not moved");
        let new = CodeCache::new(self.size + gap as usize)?;
        let first = self.first.load(Ordering::Relaxed);
        let len = self.next.load(Ordering::Relaxed) - first;
        let to = new.first.load(Ordering::Relaxed) + gap;
        // SAFETY: what is in use of one mapping, to where it fits in another.
        unsafe { ptr::copy_nonoverlapping(first as *const u8, to as *mut u8, len as usize) };
        new.first.store(to, Ordering::Relaxed);
        new.next.store(to + len, Ordering::Relaxed);
        let mut moved = Moved {
            from: self.base,
            size: self.size,
            regions: first,
            trampolines_by: new.base.wrapping_sub(self.base),
            regions_by: to.wrapping_sub(first),
            branches: 0,
            later_entries: 0,
        };
        let count = self.count.load(Ordering::Relaxed);
        for (old, slot) in self.slots()[..count].iter().zip(new.slots()) {
            // SAFETY: as in `region_at`.
            let old = unsafe { &*old.load(Ordering::Relaxed) };
            let meta = self.move_region(old, &new, &mut moved);
            slot.store(ptr::from_ref(meta).cast_mut(), Ordering::Relaxed);
        }
        new.count.store(count, Ordering::Relaxed);
        flush_icache(to, len as usize);
        Ok((new, moved))
    }

    fn move_region(
        &self,
        old: &RegionMeta,
        new: &CodeCache,
        moved: &mut Moved,
    ) -> &'static RegionMeta {
        let host = moved.of(old.host);
        let trampoline_at = |offset| {
            let record = old.relocations.iter().find(|r| r.offset() == offset)?;
            record.reloc().trampoline()
        };
        for record in old.relocations {
            if let Some(t) = record.reloc().trampoline() {
                self.relocate(old.host + u64::from(record.offset()), t, new, moved);
            }
        }
        let sites = old.sites.iter().map(|site| {
            let word = |word| match trampoline_at(site.at) {
                Some(t) if word != 0 => {
                    self.to_trampoline(old.host + u64::from(site.at), word, t, new, moved)
                }
                _ => word,
            };
            let run = AtomicU32::new(word(site.run.load(Ordering::Relaxed)));
            SiteMeta { at: site.at, run, stop: site.stop }
        });
        let meta = RegionMeta {
            host,
            len: old.len,
            guest: old.guest,
            guest_end: old.guest_end,
            map: old.map,
            body: old.body,
            recoveries: old.recoveries,
            relocations: old.relocations,
            looked_at: old.looked_at,
            sites: new.arena.slice(sites).expect("room"),
            entries: old.entries,
            more_entries: AtomicPtr::default(),
            dead: AtomicBool::new(old.is_dead()),
            armed: AtomicU32::new(old.armed.load(Ordering::Relaxed)),
        };
        let meta = new.arena.value(meta).expect("room");
        if old.is_dead() {
            for entry in old.all_entries() {
                self.relocate(old.host + u64::from(entry.at), Trampoline::Dead, new, moved);
            }
        }
        for later in old.later_entries() {
            let next = meta.more_entries.load(Ordering::Relaxed);
            let later = LaterEntry { entry: later.entry, next };
            let later = new.arena.value(later).expect("room");
            meta.more_entries.store(ptr::from_ref(later).cast_mut(), Ordering::Relaxed);
            moved.later_entries += 1;
        }
        meta
    }

    /// Relocates the copy of the branch that is at `at` in the old cache.
    fn relocate(&self, at: u64, t: Trampoline, new: &CodeCache, moved: &mut Moved) {
        let copy = moved.of(at) as *mut u32;
        // SAFETY: a word of code that was copied just now.
        let word = unsafe { &mut *copy };
        let relocated = self.to_trampoline(at, *word, t, new, moved);
        moved.branches += usize::from(relocated != *word);
        *word = relocated;
    }

    /// The branch at `at` to a trampoline, as it is in the new cache. One that was linked to a region stays as it is.
    fn to_trampoline(
        &self,
        at: u64,
        word: u32,
        t: Trampoline,
        new: &CodeCache,
        moved: &Moved,
    ) -> u32 {
        if at.wrapping_add(distance(word)) != self.trampoline(t) {
            return word;
        }
        let delta = new.trampoline(t).wrapping_sub(moved.of(at)) as i64;
        retarget(word, delta).expect("the cache is in reach of itself")
    }
}

/// How far a B or BL goes (Arm ARM C6.2.25).
fn distance(word: u32) -> u64 {
    i64::from((word << 6).cast_signed() >> 4) as u64
}
