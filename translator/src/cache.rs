//! The code cache: memory for translations, what is known about each region, and patching.
//!
//! Emitted code never moves and is never reused until the whole cache is thrown away, so a thread
//! may be anywhere in it while another one invalidates: the entries of a dead region become
//! calls of a trampoline, and its sites stop (see [`crate::lower::exits`]).
//!
//! What signal handlers read (the index of regions, a region's map and sites) is only
//! appended, never changed in place, and needs no lock.

use crate::arena::Arena;
use crate::asm::Asm;
use crate::detours::Detours;
use crate::lower::exits::{PUSH_RETURN, RECORD_SITE, RECORD_STUB, Site, Stop};
use crate::lower::late::Recovery;
use crate::lower::operands::relaxed;
use crate::lower::{Emitted, MapEntry};
use crate::region::{Looked, Region};
use crate::relocation::Relocation;
use crate::tramp::{self, Trampoline};
use std::io;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};

#[cfg(all(test, target_arch = "aarch64"))]
pub mod moving;

/// Distance between regions in the cache: literals and records need 8.
const ALIGN: u64 = 16;
/// Bytes of code per region that the index is sized for.
const MIN_REGION: usize = 128;
/// Bytes of the cache that a look-up looks at.
const BLOCK: usize = 4096;
/// How often a region is armed for nothing but that it is dead.
const ARMED_BY_DEATH: u32 = 1;
/// Direct branches reach this far (Arm ARM, B).
const MAX_SIZE: usize = 128 << 20;

/// A patchable branch of a region in the cache.
#[derive(Debug)]
pub struct SiteMeta {
    at: u32,
    /// The word that runs: linked or not. 0 if it is the one that leads to the dispatcher.
    run: AtomicU32,
    /// What leads to the dispatcher.
    stop: Stop,
}

/// What is known about a translated region.
#[derive(Debug)]
pub struct RegionMeta {
    /// Host address of the code.
    pub host: u64,
    /// Length of the code in bytes.
    pub len: u32,
    /// Guest address of the entry.
    pub guest: u64,
    /// Behind the last guest instruction.
    pub guest_end: u64,
    /// Guest instruction by host offset, ascending.
    pub map: &'static [MapEntry],
    /// So many entries of it are of the region's own code, in guest order; those of cold code follow.
    body: u32,
    /// Where a fault leads before it is the guest's, see [`crate::lower::late`].
    recoveries: &'static [Recovery],
    /// The words of the code that depend on where something is.
    pub relocations: &'static [Relocation],
    /// Guest code behind the exits that it rests on, see [`crate::facts`].
    pub looked_at: &'static [Looked],
    sites: &'static [SiteMeta],
    entries: &'static [Entry],
    /// Entries made later.
    more_entries: AtomicPtr<LaterEntry>,
    dead: AtomicBool,
    armed: AtomicU32,
}

/// Where control comes in from outside: its offset in the code, and that of the guest instruction from the region's entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// In the code.
    pub at: u32,
    /// In the guest.
    pub guest: u32,
}

#[derive(Debug)]
struct LaterEntry {
    entry: Entry,
    next: *mut LaterEntry,
}

impl RegionMeta {
    /// Where control comes in, as at each of the other entries.
    pub fn entry(&self) -> u64 {
        self.host + u64::from(self.entries[0].at)
    }

    /// Whether the region has been invalidated.
    pub fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Acquire)
    }

    /// The exits of the region: where the records of their stubs are, and where they go in the guest.
    pub fn exits(&self) -> impl Iterator<Item = (u64, u64)> {
        self.relocations.iter().filter_map(|relocation| relocation.exit()).map(|exit| {
            let at = self.host + u64::from(exit) + RECORD_STUB;
            // SAFETY: a region's records are in its code, which is there as long as this is.
            (at, unsafe { (at as *const u64).read_unaligned() })
        })
    }

    /// Whether guest code in `start..end` is among what the translation was made from.
    pub fn depends_on(&self, start: u64, end: u64) -> bool {
        self.guest < end && self.guest_end > start
            || self.looked_at.iter().any(|looked| looked.start < end && looked.end > start)
    }

    /// Offset of the code of a guest instruction inside of the region at which control may come in: the
    /// host flags mean there what they mean at the start of a region, or nothing.
    pub fn enterable(&self, guest: u64) -> Option<u32> {
        if guest >= self.guest_end {
            return None;
        }
        let offset = u32::try_from(guest.checked_sub(self.guest)?).ok()?;
        // Behind the region's own code, cold code belongs to earlier instructions again.
        let body = &self.map[..self.body as usize];
        let first = body.partition_point(|e| e.guest < offset);
        let of_this = body[first..].iter().take_while(|e| e.guest == offset);
        of_this.into_iter().find(|e| e.enterable).map(|e| e.host)
    }

    /// Where control goes after a fault at a host address in the region. Async-signal-safe.
    pub fn recovery(&self, pc: u64) -> Option<u64> {
        let at = (pc - self.host) as u32;
        let recovery = self.recoveries.iter().find(|r| (r.start..r.end).contains(&at))?;
        Some(self.host + u64::from(recovery.to))
    }

    fn later_entries(&self) -> impl Iterator<Item = &LaterEntry> {
        // SAFETY: entries live in the arena as long as their region.
        let get = |p: *mut LaterEntry| unsafe { p.as_ref() };
        let first = get(self.more_entries.load(Ordering::Acquire));
        std::iter::successors(first, move |later| get(later.next))
    }

    /// Guest addresses of the region's entries: its own, and those made later.
    pub fn entry_addresses(&self) -> impl Iterator<Item = u64> {
        let later = self.later_entries().map(|later| self.guest + u64::from(later.entry.guest));
        std::iter::once(self.guest).chain(later)
    }

    /// All places where control comes in.
    fn all_entries(&self) -> impl Iterator<Item = Entry> {
        self.entries.iter().copied().chain(self.later_entries().map(|later| later.entry))
    }

    /// The guest instruction of the entry at a host address.
    pub fn entered_at(&self, host: u64) -> Option<u64> {
        let entry = self.all_entries().find(|entry| self.host + u64::from(entry.at) == host)?;
        Some(self.guest + u64::from(entry.guest))
    }

    /// The region's guest instructions, some of them twice.
    pub fn instructions(&self) -> impl Iterator<Item = u64> {
        self.map.iter().map(|e| self.guest + u64::from(e.guest))
    }

    /// The guest instructions at which control may come in.
    pub fn enterables(&self) -> impl Iterator<Item = u64> {
        let body = &self.map[..self.body as usize];
        body.iter().filter(|e| e.enterable).map(|e| self.guest + u64::from(e.guest))
    }

    /// The map's entry for a host address in the region. Async-signal-safe.
    pub fn entry_at(&self, pc: u64) -> MapEntry {
        let at = (pc - self.host) as u32;
        self.map[self.map.partition_point(|e| e.host <= at).saturating_sub(1)]
    }
}

/// The region in a slot that holds one.
fn region(slot: &AtomicPtr<RegionMeta>) -> &'static RegionMeta {
    // SAFETY: published slots point to records in the arena.
    unsafe { &*slot.load(Ordering::Acquire) }
}

/// The memory that translations live in.
#[derive(Debug)]
pub struct CodeCache {
    base: u64,
    size: usize,
    /// So much of it is for regions; detours lie behind them.
    for_regions: u64,
    detours: Detours,
    /// Where the next region goes.
    next: AtomicU64,
    /// Where regions start, behind the trampolines.
    first: AtomicU64,
    /// The regions in ascending host order; the first `count` slots are valid.
    index: u64,
    capacity: usize,
    count: AtomicUsize,
    /// For each [`BLOCK`] of the cache, as far as there are regions: how many of them begin in front of it.
    begun: u64,
    /// What is known of the regions.
    arena: Arena,
    trampolines: [u64; tramp::COUNT],
}

/// Maps anonymous memory of the translator's own.
pub fn anonymous(len: usize, prot: i32) -> io::Result<u64> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping wherever the kernel has room.
    let p = unsafe { libc::mmap(ptr::null_mut(), len, prot, flags, -1, 0) };
    if p == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(p as u64) }
}

/// The same, at a multiple of its length, which is a power of two.
pub fn anonymous_aligned(len: usize, prot: i32) -> io::Result<u64> {
    let block = anonymous(2 * len, prot)?;
    let start = block.next_multiple_of(len as u64);
    // SAFETY: what lies before and behind the aligned part of the block mapped just now.
    unsafe {
        libc::munmap(block as *mut _, (start - block) as usize);
        libc::munmap((start + len as u64) as *mut _, (block + len as u64 - start) as usize);
    }
    Ok(start)
}

impl CodeCache {
    /// Reserves the cache.
    pub fn new(size: usize) -> io::Result<Self> {
        let size = size.min(MAX_SIZE);
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let base = anonymous(size, prot | libc::PROT_EXEC)?;
        let capacity = size / MIN_REGION;
        let index = anonymous(capacity * 8, prot)?;
        let begun = anonymous((size / BLOCK + 1) * 4, prot)?;
        let (detours, room) = Detours::new(base + size as u64, size as u64)?;
        let mut cache = CodeCache {
            base,
            size,
            for_regions: size as u64 - room,
            detours,
            next: AtomicU64::new(base),
            first: AtomicU64::new(base),
            index,
            capacity,
            count: AtomicUsize::new(0),
            begun,
            arena: Arena::new(size)?,
            trampolines: [0; tramp::COUNT],
        };
        cache.append_trampolines()?;
        Ok(cache)
    }

    /// Whether the address is in the cache. Async-signal-safe.
    pub fn contains(&self, pc: u64) -> bool {
        pc.wrapping_sub(self.base) < self.size as u64
    }

    /// Puts the trampolines at the start.
    fn append_trampolines(&mut self) -> io::Result<()> {
        let mut asm = Asm::default();
        let offsets = tramp::emit(&mut asm);
        if size_of_val(asm.code()) > self.size {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        self.trampolines = offsets.map(|o| self.base + u64::from(o));
        self.write(self.base, &asm);
        let next = (self.base + size_of_val(asm.code()) as u64).next_multiple_of(ALIGN);
        self.next.store(next, Ordering::Relaxed);
        self.first.store(next, Ordering::Relaxed);
        Ok(())
    }

    /// The address of a trampoline.
    pub fn trampoline(&self, t: Trampoline) -> u64 {
        self.trampolines[t as usize]
    }

    /// Copies code to its place and makes its branches to trampolines.
    fn write(&self, at: u64, asm: &Asm) {
        let code = asm.code();
        // SAFETY: the caller checked that the range is in the cache and not yet used; nothing
        // refers to this memory but through raw addresses. Relocations name words of the code.
        unsafe { ptr::copy_nonoverlapping(code.as_ptr(), at as *mut u32, code.len()) };
        for relocation in &asm.relocations {
            if let Some(t) = relocation.reloc().trampoline() {
                let from = at + u64::from(relocation.offset());
                let word = code[relocation.offset() as usize / 4];
                let word = retarget(word, self.trampoline(t).wrapping_sub(from) as i64);
                // SAFETY: as above.
                unsafe { *(from as *mut u32) = word.expect("the cache is in reach of itself") };
            }
        }
        flush_icache(at, size_of_val(code));
    }

    fn slots(&self) -> &[AtomicPtr<RegionMeta>] {
        // SAFETY: `capacity` pointer-sized zeroed words were mapped and stay mapped.
        unsafe { std::slice::from_raw_parts(self.index as *const _, self.capacity) }
    }

    fn begun(&self) -> &[AtomicU32] {
        // SAFETY: so many zeroed words were mapped and stay mapped.
        unsafe { std::slice::from_raw_parts(self.begun as *const _, self.size / BLOCK + 1) }
    }

    /// Number of the [`BLOCK`] that an address in the cache is in.
    fn block(&self, addr: u64) -> usize {
        (addr - self.base) as usize / BLOCK
    }

    /// Copies a region's code into the cache. None if there is no room.
    pub fn append(
        &self,
        region: &Region,
        asm: &Asm,
        emitted: &Emitted,
    ) -> Option<&'static RegionMeta> {
        let host = self.next.load(Ordering::Relaxed);
        let len = size_of_val(asm.code());
        let end = host + len as u64;
        let count = self.count.load(Ordering::Relaxed);
        if end > self.base + self.for_regions || count == self.capacity {
            return None;
        }
        self.write(host, asm);
        let meta = self.arena.value(RegionMeta {
            host,
            len: len as u32,
            guest: region.entry,
            guest_end: region.insns.last()?.ins.next_ip(),
            map: self.arena.copy(&emitted.map)?,
            body: emitted.body,
            recoveries: self.arena.slice(emitted.recoveries.iter().map(|r| r.recovery))?,
            relocations: self.arena.copy(&asm.relocations)?,
            looked_at: self.arena.copy(&region.looked_at)?,
            sites: self.arena.slice(emitted.sites.iter().map(SiteMeta::from))?,
            entries: self.arena.copy(&emitted.entries)?,
            more_entries: AtomicPtr::default(),
            dead: AtomicBool::new(false),
            armed: AtomicU32::new(0),
        })?;
        self.slots()[count].store(ptr::from_ref(meta).cast_mut(), Ordering::Release);
        let (first, last) = (self.block(host), self.block(end.next_multiple_of(ALIGN)));
        for begun in &self.begun()[first + 1..=last] {
            begun.store(count as u32 + 1, Ordering::Relaxed);
        }
        self.count.store(count + 1, Ordering::Release);
        self.next.store(end.next_multiple_of(ALIGN), Ordering::Relaxed);
        Some(meta)
    }

    /// Lets control come in at an instruction inside of a region (see [`RegionMeta::enterable`]). Returns its
    /// address; None if there is no room.
    pub fn add_entry(&self, meta: &RegionMeta, offset: u32, guest: u64) -> Option<u64> {
        let host = meta.host + u64::from(offset);
        if meta.later_entries().all(|later| later.entry.at != offset) {
            let entry = Entry { at: offset, guest: (guest - meta.guest) as u32 };
            let next = meta.more_entries.load(Ordering::Acquire);
            let later = self.arena.value(LaterEntry { entry, next })?;
            meta.more_entries.store(ptr::from_ref(later).cast_mut(), Ordering::Release);
        }
        Some(host)
    }

    /// The slots that hold a region.
    fn published(&self) -> &[AtomicPtr<RegionMeta>] {
        &self.slots()[..self.count.load(Ordering::Acquire)]
    }

    /// All regions, dead ones too, in the order in which they were made.
    pub fn regions(&self) -> impl ExactSizeIterator<Item = &'static RegionMeta> {
        self.published().iter().map(region)
    }

    /// The same from the one with this number on.
    pub fn regions_from(&self, number: usize) -> impl Iterator<Item = &'static RegionMeta> {
        // There may be fewer by now.
        self.published().get(number..).unwrap_or_default().iter().map(region)
    }

    /// The region that contains a host address. Async-signal-safe.
    pub fn region_at(&self, pc: u64) -> Option<&'static RegionMeta> {
        let slots = self.published();
        if !self.contains(pc) {
            return None;
        }
        let begun = |block: usize| self.begun()[block].load(Ordering::Relaxed) as usize;
        let block = self.block(pc);
        // What lies behind the last region has not been filled in, and may be just now.
        let last = match begun(block + 1) {
            0 => slots.len(),
            n => n.min(slots.len()),
        };
        let first = begun(block).min(last);
        let i = first + slots[first..last].partition_point(|slot| region(slot).host <= pc);
        let meta = region(slots.get(i.checked_sub(1)?)?);
        pc.checked_sub(meta.host).filter(|&at| at < u64::from(meta.len)).map(|_| meta)
    }

    /// Where misaligned accesses go.
    pub fn detours(&self) -> &Detours {
        &self.detours
    }

    /// The region that a host address in the cache is executed for, and where in it: a detour stands for its access.
    /// Async-signal-safe.
    pub fn locate(&self, pc: u64) -> Option<(&'static RegionMeta, u64)> {
        self.region_at(pc).map(|meta| (meta, pc)).or_else(|| self.detours.home(pc))
    }

    /// Where calls come in of the translation that begins at `host`, if they do: the word in front of it pushes the return
    /// address, or says how many words behind the entry that place is. Other entries are in the middle of a region.
    pub fn call_entry(&self, host: u64) -> Option<u64> {
        // SAFETY: an entry is in the cache, and something is in front of it.
        match unsafe { ((host - 4) as *const u32).read() } {
            PUSH_RETURN => Some(host - 4),
            words if words < FAR_BEHIND => Some(host + 4 * u64::from(words)),
            _ => None,
        }
    }

    /// An instruction.
    fn word(&self, at: u64) -> &AtomicU32 {
        debug_assert!(at.is_multiple_of(4));
        // SAFETY: an aligned word of emitted code, which is mapped as long as the cache.
        unsafe { &*(at as *const AtomicU32) }
    }

    /// Replaces a branch by a branch; the architecture allows that while other threads execute them (Arm ARM B2.2.5).
    fn patch(&self, at: u64, word: u32) {
        self.word(at).store(word, Ordering::Release);
        flush_icache(at, 4);
    }

    /// Makes the ordered access at `at`, which a misaligned address made fault, a plain one with a barrier: by a
    /// [detour](crate::detours). Returns where to go on; None if there is no ordered access, or no room. Async-signal-safe.
    pub fn relax(&self, meta: &'static RegionMeta, at: u64) -> Option<u64> {
        let old = self.word(at).load(Ordering::Relaxed);
        let Some(instead) = relaxed(old) else {
            // Perhaps another thread was here first.
            return is_branch(old).then_some(at);
        };
        let (detour, words) = self.detours.add(meta, at, instead)?;
        // SAFETY: a slot of the cache that is nobody else's, and that nothing leads to yet.
        unsafe { ptr::copy_nonoverlapping(words.as_ptr(), detour as *mut u32, words.len()) };
        flush_icache(detour, size_of_val(&words));
        self.patch(at, branch(detour.wrapping_sub(at) as i64)?);
        Some(detour)
    }

    /// Makes an exit go straight to a translation.
    pub fn link(&self, meta: &RegionMeta, record: u64, host: u64) {
        // SAFETY: a record in the cache, see `exits::RECORD_SITE`.
        let delta = |o: u64| unsafe { u64::from(((record + o) as *const u32).read()) };
        let site = delta(RECORD_SITE);
        if site != 0 {
            let at = record - site;
            let word = self.word(at).load(Ordering::Relaxed);
            let to = if is_call(word) { self.call_entry(host) } else { Some(host) };
            if let Some(word) = to.and_then(|to| retarget(word, to.wrapping_sub(at) as i64)) {
                return self.run_word(meta, at, word);
            }
        }
        let at = record - RECORD_STUB;
        if let Some(word) = retarget(0x1400_0000, host.wrapping_sub(at) as i64) {
            self.run_word(meta, at, word);
        }
    }

    fn run_word(&self, meta: &RegionMeta, at: u64, word: u32) {
        let offset = (at - meta.host) as u32;
        if let Some(site) = meta.sites.iter().find(|s| s.at == offset) {
            site.run.store(word, Ordering::Release);
            self.run_unless_armed(meta, site);
        }
    }

    /// Sets a site to run, if the region is not armed. The handler of a signal may arm it meanwhile.
    fn run_unless_armed(&self, meta: &RegionMeta, site: &SiteMeta) {
        let at = meta.host + u64::from(site.at);
        if meta.armed.load(Ordering::Acquire) == 0 {
            let word = match site.run.load(Ordering::Acquire) {
                0 => self.stop_word(at, site),
                run => run,
            };
            self.patch(at, word);
            if meta.armed.load(Ordering::Acquire) != 0 {
                self.patch(at, self.stop_word(at, site));
            }
        }
    }

    /// The word that leads the site at `at` to the dispatcher.
    fn stop_word(&self, at: u64, site: &SiteMeta) -> u32 {
        let distance = |to: u32| i64::from(to) - i64::from(site.at);
        let word = match site.stop {
            Stop::Same(to) => retarget(site.run.load(Ordering::Acquire), distance(to)),
            Stop::Direct(to) => branch(distance(to)),
            Stop::Dispatcher => {
                retarget(CALL, self.trampoline(Trampoline::Direct).wrapping_sub(at) as i64)
            }
        };
        word.expect("a region is small")
    }

    /// Sets all branches of a region to stop. Async-signal-safe.
    pub fn arm(&self, meta: &RegionMeta) {
        meta.armed.fetch_add(1, Ordering::AcqRel);
        for site in meta.sites {
            let at = meta.host + u64::from(site.at);
            self.patch(at, self.stop_word(at, site));
        }
        if meta.is_dead() {
            self.close(meta);
        }
    }

    /// Undoes [`arm`](Self::arm).
    pub fn disarm(&self, meta: &RegionMeta) {
        if meta.armed.fetch_sub(1, Ordering::AcqRel) != 1 || meta.is_dead() {
            return;
        }
        for s in meta.sites {
            self.run_unless_armed(meta, s);
        }
    }

    /// Stops every region, before the cache is thrown away.
    pub fn arm_all(&self) {
        self.regions().for_each(|meta| self.arm(meta));
    }

    /// Invalidates a region: whoever comes in, or goes round in it, goes to the dispatcher.
    pub fn kill(&self, meta: &RegionMeta) {
        meta.dead.store(true, Ordering::Release);
        self.arm(meta);
    }

    /// Writes once more what [`kill`](Self::kill) has written, if nobody had the chance to write anything else since.
    pub fn kill_again(&self, meta: &RegionMeta) {
        let sites = meta.sites.iter().map(|site| meta.host + u64::from(site.at));
        let entries = meta.all_entries().map(|entry| meta.host + u64::from(entry.at));
        for at in sites.chain(entries) {
            let word = self.word(at);
            word.store(word.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    /// Makes the entries of a dead region lead to the dispatcher. Async-signal-safe.
    fn close(&self, meta: &RegionMeta) {
        for entry in meta.all_entries() {
            self.close_entry(meta.host + u64::from(entry.at));
        }
    }

    fn close_entry(&self, at: u64) {
        let dead = self.trampoline(Trampoline::Dead).wrapping_sub(at);
        self.patch(at, retarget(CALL, dead as i64).expect("the cache is in reach of itself"));
    }

    /// Makes an entry of a dead region lead to another translation of its instruction, unless somebody is to be stopped
    /// there. The handler of a signal may arm the region meanwhile.
    pub fn redirect(&self, meta: &RegionMeta, entry: u64, host: u64) {
        let to_be_stopped = || meta.armed.load(Ordering::Acquire) != ARMED_BY_DEATH;
        if to_be_stopped() {
            return;
        }
        // A leaf has an entry for calls of its own.
        let for_calls = self.call_entry(meta.entry()) == Some(entry);
        let to = if for_calls { self.call_entry(host) } else { Some(host) };
        if let Some(word) = to.and_then(|to| branch(to.wrapping_sub(entry) as i64)) {
            self.patch(entry, word);
            if to_be_stopped() {
                self.close_entry(entry);
            }
        }
    }

    /// Starts over behind the trampolines. No thread may be in translated code.
    pub fn reset(&self) {
        self.count.store(0, Ordering::Release);
        let filled = self.block(self.next.load(Ordering::Relaxed));
        self.begun()[..=filled].iter().for_each(|begun| begun.store(0, Ordering::Relaxed));
        // SAFETY: no thread is in a region, and the engine forgets what it knows of them.
        unsafe { self.arena.reset() };
        self.next.store(self.first.load(Ordering::Relaxed), Ordering::Relaxed);
        self.detours.reset();
    }
}

impl From<&Site> for SiteMeta {
    fn from(&Site { at, run, stop }: &Site) -> Self {
        SiteMeta { at, run: AtomicU32::new(run), stop }
    }
}

/// No call entry is so many words behind the region's entry; no instruction that goes on to the next one is less (Arm
/// ARM C4.1: reserved).
const FAR_BEHIND: u32 = 1 << 16;

/// Whether the instruction is a BL.
fn is_call(word: u32) -> bool {
    word & 0xfc00_0000 == CALL
}

/// BL.
pub const CALL: u32 = 0x9400_0000;

/// Whether the instruction is a B.
fn is_branch(word: u32) -> bool {
    word & 0xfc00_0000 == 0x1400_0000
}

/// B over a distance.
pub(crate) fn branch(delta: i64) -> Option<u32> {
    retarget(0x1400_0000, delta)
}

/// A direct branch instruction with another displacement, if it reaches (Arm ARM C4.1.92).
pub fn retarget(word: u32, delta: i64) -> Option<u32> {
    let fits = |bits: u32| {
        let limit = 1i64 << (bits + 1);
        (-limit..limit).contains(&delta)
    };
    let imm = (delta >> 2) as u32;
    if word & 0x7c00_0000 == 0x1400_0000 {
        return fits(26).then_some(word & 0xfc00_0000 | imm & 0x03ff_ffff); // B, BL
    }
    if word & 0xff00_0010 == 0x5400_0000 || word & 0x7e00_0000 == 0x3400_0000 {
        return fits(19).then_some(word & 0xff00_001f | (imm & 0x7_ffff) << 5); // B.cond, CBZ, CBNZ
    }
    if word & 0x7e00_0000 == 0x3600_0000 {
        return fits(14).then_some(word & 0xfff8_001f | (imm & 0x3fff) << 5); // TBZ, TBNZ
    }
    None
}

/// Makes new instructions visible to all processors (Arm ARM B2.4.4).
#[cfg(target_arch = "aarch64")]
fn flush_icache(start: u64, len: usize) {
    let ctr: u64;
    // SAFETY: reading CTR_EL0 and cache maintenance by address on our own mapping are allowed at EL0.
    unsafe {
        core::arch::asm!("mrs {}, ctr_el0", out(reg) ctr, options(nomem, nostack));
        let dline = 4u64 << (ctr >> 16 & 15);
        let iline = 4u64 << (ctr & 15);
        let end = start + len as u64;
        let mut p = start & !(dline - 1);
        while p < end {
            core::arch::asm!("dc cvau, {}", in(reg) p, options(nostack));
            p += dline;
        }
        core::arch::asm!("dsb ish", options(nostack));
        let mut p = start & !(iline - 1);
        while p < end {
            core::arch::asm!("ic ivau, {}", in(reg) p, options(nostack));
            p += iline;
        }
        core::arch::asm!("dsb ish", "isb", options(nostack));
    }
}

#[cfg(not(target_arch = "aarch64"))]
fn flush_icache(_start: u64, _len: usize) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_keep_their_kind() {
        assert_eq!(retarget(0x1400_0000, -4), Some(0x17ff_ffff)); // b .-4
        assert_eq!(retarget(0x9400_0000, 8), Some(0x9400_0002)); // bl .+8
        assert_eq!(retarget(0x5400_0021, 8), Some(0x5400_0041)); // b.ne .+8
        assert_eq!(retarget(0xb400_0005, 8), Some(0xb400_0045)); // cbz x5, .+8
        assert_eq!(retarget(0x3700_0005, 1 << 15), None); // tbnz out of reach
        assert_eq!(retarget(0xd65f_03c0, 8), None); // ret is not a direct branch
    }
}
