//! The guest's address space: where its mappings go, and the host's mappings that stand for them.

use std::io;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use translator::engine::Engine;

use super::page_set::PageSet;
use super::raw::{self, host_prot};
use super::seal::Seals;
use super::write_exec;
use crate::guest;
use crate::host::Errno;
use crate::inode::Inode;
use crate::memmap::{EXEC, File, IntervalMap, Mapping, PAGE, READ, Source, WRITE};
use crate::vsyscall;

/// End of what a guest may map: Linux leaves the last page below 2^47 free.
pub const ADDRESS_LIMIT: u64 = (1 << 47) - PAGE;
/// The lowest address chosen when the guest does not name one (`vm.mmap_min_addr`).
const MIN_ADDRESS: u64 = 0x10000;
/// Room for the initial stack between its top and the first mapping.
const STACK_GAP: u64 = 1 << 28;
/// Where MAP_32BIT mappings go (find_start_end in arch/x86/kernel/sys_x86_64.c).
const LOW_WINDOW: Range<u64> = 0x4000_0000..0x8000_0000;
/// Attempts to find a place among mappings that this map does not know of.
const ATTEMPTS: u32 = 40;

/// Flags of mmap(2) that only x86_64 has.
pub const MAP_32BIT: u32 = 0x40;
#[allow(missing_docs)]
pub const MAP_ABOVE4G: u32 = 0x80;
const MAP_SHARED: u32 = libc::MAP_SHARED as u32;
const MAP_PRIVATE: u32 = libc::MAP_PRIVATE as u32;
const MAP_SHARED_VALIDATE: u32 = libc::MAP_SHARED_VALIDATE as u32;
const MAP_TYPE: u32 = libc::MAP_TYPE as u32;
const MAP_FIXED: u32 = libc::MAP_FIXED as u32;
const MAP_FIXED_NOREPLACE: u32 = libc::MAP_FIXED_NOREPLACE as u32;
const MAP_ANONYMOUS: u32 = libc::MAP_ANONYMOUS as u32;
const MAP_HUGETLB: u32 = libc::MAP_HUGETLB as u32;

/// The arguments of mmap(2), in x86_64 values.
#[derive(Clone, Copy, Debug)]
pub struct Map {
    /// Wanted address, 0 for none.
    pub addr: u64,
    /// Bytes.
    pub len: u64,
    /// `PROT_*`.
    pub prot: u32,
    /// `MAP_*`.
    pub flags: u32,
    /// File descriptor, -1 for none.
    pub fd: i32,
    /// Offset in the file.
    pub offset: u64,
    /// Name in `/proc/self/maps` of anonymous memory.
    pub name: Option<&'static str>,
}

impl Map {
    pub(super) fn is_anonymous(&self) -> bool {
        self.flags & MAP_ANONYMOUS != 0
    }

    fn is_shared(&self) -> bool {
        matches!(self.flags & MAP_TYPE, MAP_SHARED | MAP_SHARED_VALIDATE)
    }

    /// Whether other processes may see what is written.
    pub fn is_shared_writable(&self) -> bool {
        self.is_shared() && self.prot & WRITE != 0
    }

    /// The flags as the host knows them, without those that say where.
    pub(super) fn host_flags(&self) -> u32 {
        self.flags & !(MAP_32BIT | MAP_ABOVE4G | MAP_FIXED | MAP_FIXED_NOREPLACE)
    }
}

pub(crate) struct State {
    pub(super) map: IntervalMap,
    pub(crate) rings: crate::io_uring::Rings,
    pub(super) seals: Seals,
    /// From the start of the heap to the program break.
    brk: Range<u64>,
    /// Mappings are placed below this.
    base: u64,
    /// Ranges that have been changed, and whose translations are about to be thrown away.
    stale: Vec<Range<u64>>,
}

/// The address space of the process.
pub struct Memory {
    state: Mutex<State>,
    /// Host pages that the guest may write, but that are write-protected since they hold translated code.
    pub(super) watched: PageSet,
    /// Whether a page was ever watched.
    pub(super) any_watched: AtomicBool,
    /// How many watches have ended.
    pub(super) watches_ended: AtomicU64,
    pub(super) engine: OnceLock<&'static Engine>,
    pub(super) host_page: u64,
    stack_top: u64,
}

/// The page size of the host.
pub fn host_page_size() -> u64 {
    // SAFETY: always sound.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as u64 }
}

pub(super) const EINVAL: Errno = Errno(libc::EINVAL);
pub(super) const ENOMEM: Errno = Errno(libc::ENOMEM);
const EEXIST: Errno = Errno(libc::EEXIST);

/// The address ranges in the text of a `/proc/PID/maps`.
fn parse_maps(text: &str) -> impl Iterator<Item = Range<u64>> {
    text.lines().filter_map(|line| {
        let (start, end) = line.split_whitespace().next()?.split_once('-')?;
        Some(u64::from_str_radix(start, 16).ok()?..u64::from_str_radix(end, 16).ok()?)
    })
}

/// Where the kernel puts a position-independent program (ELF_ET_DYN_BASE) lies below this, and what it maps above.
const MAPPINGS: u64 = 3 << 45;

/// Where the guest's addresses end when the translator's are below 2^47 too, its mappings from `lowest` on so far. More
/// of them will come below that.
fn below(lowest: u64) -> u64 {
    const ROOM: u64 = 1 << 40;
    (lowest / ROOM * ROOM).saturating_sub(ROOM).clamp(1 << 46, (1 << 47) - 2 * ROOM)
}

/// The translator's own mappings as far as it knows them itself, where /proc is not mounted: its program, the
/// stack it stands on, the vDSO. What else there is the kernel has put beside them, and keeps: places for the guest
/// are taken with MAP_FIXED_NOREPLACE.
fn own_ranges() -> Vec<Range<u64>> {
    let page = host_page_size();
    let mut ranges: Vec<Range<u64>> = Vec::new();
    // SAFETY: the function below gets the vector, and structures as dl_iterate_phdr(3) makes them.
    unsafe { libc::dl_iterate_phdr(Some(add_segments), (&raw mut ranges).cast()) };
    let on_stack = &raw const page as u64;
    // SAFETY: only reads.
    let vdso = unsafe { libc::getauxval(libc::AT_SYSINFO_EHDR) };
    let known = [on_stack, vdso].into_iter().filter(|&addr| addr != 0);
    ranges.extend(known.map(|addr| addr / page * page..(addr / page + 1) * page));
    ranges
}

/// Adds the segments of a loaded object to a vector of ranges.
unsafe extern "C" fn add_segments(
    info: *mut libc::dl_phdr_info,
    _: usize,
    ranges: *mut libc::c_void,
) -> i32 {
    // SAFETY: as dl_iterate_phdr(3) promises, and `own_ranges` of its vector.
    let (info, headers, ranges) = unsafe {
        let info = &*info;
        let headers = std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into());
        (info, headers, &mut *ranges.cast::<Vec<Range<u64>>>())
    };
    let page = host_page_size();
    for header in headers.iter().filter(|header| header.p_type == libc::PT_LOAD) {
        let start = info.dlpi_addr + header.p_vaddr;
        ranges.push(start / page * page..(start + header.p_memsz).next_multiple_of(page));
    }
    0
}

impl Memory {
    /// The address space as it is before the guest is loaded: the translator's own mappings are
    /// in it and nothing else.
    pub fn new() -> io::Result<&'static Self> {
        let own: Vec<_> = match std::fs::read_to_string("/proc/self/maps") {
            Ok(text) => parse_maps(&text).collect(),
            Err(_) => own_ranges(),
        };
        let memory = Self::with_host(own.into_iter(), host_page_size())?;
        if memory.stack_top < ADDRESS_LIMIT / memory.host_page * memory.host_page {
            guest::ends_at(memory.stack_top);
        }
        Ok(Box::leak(Box::new(memory)))
    }

    fn with_host(own: impl Iterator<Item = Range<u64>>, host_page: u64) -> io::Result<Self> {
        let mut map = IntervalMap::default();
        let (mut lowest, mut highest) = (ADDRESS_LIMIT, 0);
        for range in own {
            highest = highest.max(range.end);
            if range.start >= MAPPINGS {
                lowest = lowest.min(range.start);
            }
            if range.start < ADDRESS_LIMIT {
                map.insert(range.start..range.end.min(ADDRESS_LIMIT), Mapping::RESERVED);
            }
        }
        // With 48 bits the kernel keeps the translator above the guest by itself. With 47 the
        // translator is at the top, and the guest stays a good way below.
        let stack_top = if highest > 1 << 47 {
            ADDRESS_LIMIT / host_page * host_page
        } else {
            let stack_top = below(lowest);
            map.insert(stack_top..ADDRESS_LIMIT, Mapping::RESERVED);
            stack_top
        };
        Ok(Self {
            state: Mutex::new(State {
                map,
                rings: crate::io_uring::Rings::default(),
                seals: Seals::default(),
                brk: 0..0,
                base: stack_top - STACK_GAP,
                stale: Vec::new(),
            }),
            watched: PageSet::new()?,
            any_watched: AtomicBool::new(false),
            watches_ended: AtomicU64::new(0),
            engine: OnceLock::new(),
            host_page,
            stack_top,
        })
    }

    /// Where the initial stack should end.
    pub fn stack_top(&self) -> u64 {
        self.stack_top
    }

    /// Says whose translations become stale when mappings change.
    pub fn set_engine(&self, engine: &'static Engine) {
        // A second engine is not possible: there is one for each process.
        let _ = self.engine.set(engine);
    }

    /// The lock of the map; also for fork to hold.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn floor(&self, addr: u64) -> u64 {
        addr / self.host_page * self.host_page
    }

    pub(super) fn ceil(&self, addr: u64) -> u64 {
        addr.next_multiple_of(self.host_page)
    }

    /// Rounds a range outwards to host pages.
    pub(super) fn widen(&self, range: &Range<u64>) -> Range<u64> {
        self.floor(range.start)..self.ceil(range.end)
    }

    /// After a change to `range`: the lock is given back, and if the range held code,
    /// its translations are thrown away. (The translator holds its own lock when it asks for ours:
    /// never the other way round.) Who maps something there meanwhile, or forks, must do so too: the range is noted.
    pub(super) fn finish(
        &self,
        mut state: MutexGuard<'_, State>,
        range: Range<u64>,
        held_code: bool,
    ) {
        if !held_code {
            return;
        }
        state.stale.push(range.clone());
        drop(state);
        self.invalidate(range.clone(), true);
        let stale = &mut self.lock().stale;
        if let Some(at) = stale.iter().position(|one| *one == range) {
            stale.swap_remove(at);
        }
    }

    /// In a forked child: nobody else is there to throw away what the parent's other threads were about to.
    pub fn in_child(&self) {
        let stale = std::mem::take(&mut self.lock().stale);
        stale.into_iter().for_each(|range| self.invalidate(range, true));
    }

    pub(super) fn invalidate(&self, range: Range<u64>, held_code: bool) {
        if let (true, Some(engine)) = (held_code, self.engine.get()) {
            engine.invalidate(self.floor(range.start), self.ceil(range.end));
        }
    }

    /// Throws the translations of some pages away.
    pub(super) fn forget_code(&self, pages: Vec<u64>) {
        for page in pages {
            self.invalidate(page..page + PAGE, true);
        }
    }

    /// Whether code may have been translated from a range.
    pub(super) fn holds_code(&self, state: &State, range: &Range<u64>) -> bool {
        state.map.any(self.widen(range), |m| m.prot & EXEC != 0)
            || is_stale(state, &self.widen(range))
    }

    /// mmap(2).
    pub fn map(&self, request: &Map) -> Result<u64, Errno> {
        check_request(request)?;
        write_exec::check(None, request.prot)?;
        let len = request.len.checked_next_multiple_of(PAGE).ok_or(ENOMEM)?;
        if len > ADDRESS_LIMIT {
            return Err(ENOMEM);
        }
        let mapping = Mapping {
            prot: request.prot & (READ | WRITE | EXEC),
            shared: request.is_shared(),
            source: source(request)?,
        };
        let mut state = self.lock();
        if request.flags & (MAP_FIXED | MAP_FIXED_NOREPLACE) == 0 {
            let addr = self.map_anywhere(&mut state, request, len, &mapping)?;
            state.map.insert(addr..addr + len, mapping);
            let twins = if request.is_shared_writable() {
                self.executable_twins(&state, &(addr..addr + len))
            } else {
                Vec::new()
            };
            let held_code = is_stale(&state, &(addr..addr + len));
            self.finish(state, addr..addr + len, held_code);
            self.forget_code(twins);
            return Ok(addr);
        }
        let range = fixed_range(request.addr, len)?;
        state.seals.check(&range)?;
        let held_code = self.holds_code(&state, &range);
        self.map_fixed(&mut state, request, range.clone(), mapping)?;
        let twins = self.executable_twins(&state, &range);
        self.finish(state, range, held_code);
        self.forget_code(twins);
        Ok(request.addr)
    }

    /// Chooses an address; the host maps there, the map is not changed.
    fn map_anywhere(
        &self,
        state: &mut State,
        request: &Map,
        len: u64,
        mapping: &Mapping,
    ) -> Result<u64, Errno> {
        // The address is congruent to the file offset modulo the host's page size.
        let skew = if request.is_anonymous() { 0 } else { request.offset % self.host_page };
        let span = self.ceil(len + skew);
        let host = |at: u64| {
            let (prot, flags) =
                (host_prot(mapping.prot), request.host_flags() | MAP_FIXED_NOREPLACE);
            raw::mmap(at, span, prot, flags, request.fd, request.offset - skew)
        };
        // One that cannot be kept is none.
        let hint = request.addr.checked_next_multiple_of(self.host_page).unwrap_or(0);
        let low = request.flags & MAP_32BIT != 0;
        let wanted = hint >= MIN_ADDRESS && !low;
        let end = hint.checked_add(span).filter(|&end| wanted && end <= ADDRESS_LIMIT);
        if end.is_some_and(|end| state.map.is_free(hint..end)) && host(hint).is_ok() {
            return Ok(hint + skew);
        }
        let align = if request.flags & MAP_HUGETLB != 0 { 2 << 20 } else { self.host_page };
        let within = if low { LOW_WINDOW } else { MIN_ADDRESS..state.base };
        let placed = self.place(state, span, align.max(self.host_page), within, host);
        if placed == Err(EINVAL) && !request.is_anonymous() && skew == 0 && hint == 0 && !low {
            let (prot, flags) = (host_prot(mapping.prot), request.host_flags());
            let map = || raw::mmap(0, span, prot, flags, request.fd, request.offset);
            return self.place_by_kernel(state, span, map);
        }
        placed.map(|at| at + skew)
    }

    /// Looks for a place of `span` bytes from the top down until `host` accepts it.
    pub(super) fn place(
        &self,
        state: &State,
        span: u64,
        align: u64,
        within: Range<u64>,
        host: impl Fn(u64) -> Result<u64, Errno>,
    ) -> Result<u64, Errno> {
        let (mut within, mut step) = (within, align);
        for _ in 0..ATTEMPTS {
            let at = state.map.find_gap(span, align, within.clone()).ok_or(ENOMEM)?;
            match host(at) {
                // Something of the host that this map does not know of.
                Err(EEXIST) => {
                    within.end = (at + span).saturating_sub(step).max(within.start);
                    step *= 2;
                }
                other => return other,
            }
        }
        Err(ENOMEM)
    }

    /// The window for mappings without a wish.
    pub(super) fn window(&self, state: &State) -> Range<u64> {
        MIN_ADDRESS..state.base
    }

    pub(super) fn map_fixed(
        &self,
        state: &mut State,
        request: &Map,
        range: Range<u64>,
        mapping: Mapping,
    ) -> Result<(), Errno> {
        if request.flags & MAP_FIXED_NOREPLACE != 0 && !state.map.is_free(range.clone()) {
            return Err(EEXIST);
        }
        let taken = self.claim(state, &range)?;
        let result = self.install(state, request, &range, &mapping);
        if let Err(error) = result {
            for gap in taken {
                raw::munmap(gap.start, gap.end - gap.start)?;
            }
            return Err(error);
        }
        state.map.insert(range.clone(), mapping);
        self.settle_edges(state, &range)
    }

    /// Makes sure that nothing of the translator is in a range that is going to be mapped over:
    /// what the map says is free is taken from the host without replacing anything.
    pub(super) fn claim(
        &self,
        state: &State,
        range: &Range<u64>,
    ) -> Result<Vec<Range<u64>>, Errno> {
        let wide = self.widen(range);
        if state.map.has_reserved(wide.clone()) {
            return Err(ENOMEM);
        }
        let mut taken: Vec<Range<u64>> = Vec::new();
        for gap in state.map.gaps(wide) {
            let (start, end) = (self.ceil(gap.start), self.floor(gap.end));
            if start >= end {
                continue;
            }
            let flags =
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | libc::MAP_NORESERVE as u32;
            if let Err(error) = raw::mmap(start, end - start, 0, flags, -1, 0) {
                for gap in taken {
                    raw::munmap(gap.start, gap.end - gap.start)?;
                }
                return Err(if error == EEXIST { ENOMEM } else { error });
            }
            taken.push(start..end);
        }
        Ok(taken)
    }

    /// munmap(2).
    pub fn unmap(&self, addr: u64, len: u64) -> Result<(), Errno> {
        let range = user_range(addr, len).ok_or(EINVAL)?;
        if range.is_empty() {
            return Err(EINVAL);
        }
        let mut state = self.lock();
        state.seals.check(&range)?;
        let held_code = self.holds_code(&state, &range);
        self.remove(&mut state, &range)?;
        self.finish(state, range, held_code);
        Ok(())
    }

    /// Unmaps what the guest has in a range; the translator's own mappings stay.
    pub(super) fn remove(&self, state: &mut State, range: &Range<u64>) -> Result<(), Errno> {
        let parts: Vec<_> = state
            .map
            .clipped(range.clone())
            .filter(|(_, m)| !m.is_reserved())
            .map(|(r, _)| r)
            .collect();
        for part in parts {
            state.map.remove(part.clone());
            let wide = self.widen(&part);
            // A host page that other mappings still use stays.
            let free = |edge: u64, page: u64| {
                edge == self.floor(edge) || state.map.is_free(page..page + self.host_page)
            };
            let last = wide.end - self.host_page;
            let start = wide.start + if free(part.start, wide.start) { 0 } else { self.host_page };
            let end = if free(part.end, last) { wide.end } else { last };
            if start < end {
                raw::munmap(start, end - start)?;
            }
            self.settle_edges(state, &part)?;
        }
        Ok(())
    }

    /// Whether a page is the guest's.
    pub fn is_mapped(&self, addr: u64) -> bool {
        self.lock().map.is_mapped(addr..addr + 1)
    }

    /// The guest's protection of a page that is mapped.
    pub fn protection(&self, addr: u64) -> Option<u32> {
        self.lock().map.get(addr).filter(|(_, m)| !m.is_reserved()).map(|(_, m)| m.prot)
    }

    /// Names the anonymous mapping at an address.
    pub fn set_name(&self, addr: u64, name: &'static str) {
        let mut state = self.lock();
        let Some((range, _)) = state.map.get(addr) else {
            return;
        };
        state.map.update(range, |m| {
            if m.source == Source::Anonymous {
                m.source = Source::Named(name);
            }
        });
    }

    /// Says where the heap begins: on the first page behind the program's bss, as load_elf_binary has it.
    pub fn set_brk(&self, start: u64) {
        let start = start.next_multiple_of(PAGE);
        self.lock().brk = start..start;
    }

    /// brk(2): the new break, or the old one if it cannot be. What is new gets a protection.
    pub fn brk(&self, wanted: u64, prot: u32) -> u64 {
        let mut state = self.lock();
        let brk = state.brk.clone();
        if wanted < brk.start || wanted > ADDRESS_LIMIT - PAGE {
            return brk.end;
        }
        let (old, new) = (brk.end.next_multiple_of(PAGE), wanted.next_multiple_of(PAGE));
        let done = if new > old {
            let request = Map {
                addr: old,
                len: new - old,
                prot,
                flags: MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE,
                fd: -1,
                offset: 0,
                name: Some("[heap]"),
            };
            let mapping = Mapping { prot, shared: false, source: Source::Named("[heap]") };
            self.map_fixed(&mut state, &request, old..new, mapping).is_ok()
        } else {
            let sealed = new < old && state.seals.check(&(new..old)).is_err();
            new == old || !sealed && self.remove(&mut state, &(new..old)).is_ok()
        };
        if done {
            state.brk.end = wanted;
        }
        state.brk.end
    }

    /// The guest's `/proc/self/maps`.
    pub fn proc_maps(&self) -> String {
        self.lock().map.proc_maps() + vsyscall::MAPS_LINE
    }
}

fn check_request(request: &Map) -> Result<(), Errno> {
    if request.len == 0 || !request.offset.is_multiple_of(PAGE) {
        return Err(EINVAL);
    }
    if !matches!(request.flags & MAP_TYPE, MAP_PRIVATE | MAP_SHARED | MAP_SHARED_VALIDATE) {
        return Err(EINVAL);
    }
    Ok(())
}

/// Whether translations of code that was in a range may still be there.
fn is_stale(state: &State, range: &Range<u64>) -> bool {
    state.stale.iter().any(|stale| stale.start < range.end && range.start < stale.end)
}

pub(super) fn fixed_range(addr: u64, len: u64) -> Result<Range<u64>, Errno> {
    if !addr.is_multiple_of(PAGE) {
        return Err(EINVAL);
    }
    match addr.checked_add(len) {
        Some(end) if end <= ADDRESS_LIMIT => Ok(addr..end),
        _ => Err(ENOMEM),
    }
}

/// The pages of a range that a system call names; None if it is not in the guest's address space.
pub(super) fn user_range(addr: u64, len: u64) -> Option<Range<u64>> {
    let end = addr.checked_add(len.checked_next_multiple_of(PAGE)?)?;
    (addr.is_multiple_of(PAGE) && end <= ADDRESS_LIMIT).then_some(addr..end)
}

/// What a request maps.
fn source(request: &Map) -> Result<Source, Errno> {
    if request.is_anonymous() {
        return Ok(request.name.map_or(Source::Anonymous, Source::Named));
    }
    let link = format!("/proc/self/fd/{}", request.fd);
    // A descriptor that is not open is the host's to refuse.
    let Some(Inode { file: (dev, inode), .. }) = Inode::of(request.fd as u64) else {
        return Ok(Source::Anonymous);
    };
    // Without /proc the mapping is shown without its name.
    let path =
        std::fs::read_link(&link).map(|p| p.as_os_str().as_bytes().to_vec()).unwrap_or_default();
    let file = File { dev, inode, path };
    Ok(Source::File(Arc::new(file), request.offset))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::RwLock;
    use std::sync::atomic::Ordering;

    /// What is known without /proc is true, and says where the translator is.
    #[test]
    fn own_mappings_without_proc() {
        let text = std::fs::read_to_string("/proc/self/maps").unwrap();
        let mapped = |addr: u64| parse_maps(&text).any(|range| range.contains(&addr));
        let ranges = own_ranges();
        let on_heap = ranges.as_ptr() as u64;
        assert!(mapped(on_heap));
        let page = host_page_size();
        for range in &ranges {
            assert!(range.clone().step_by(page as usize).all(mapped), "{range:x?} in\n{text}");
        }
        let known = |addr: u64| ranges.iter().any(|r| r.contains(&addr));
        let code = own_mappings_without_proc as *const () as u64;
        assert!(known(code), "{code:x} in {ranges:x?}");
        // What is known of the stack is a page further down, where that of the function was, or the same.
        let stack = &raw const page as u64;
        assert!(known(stack) || known(stack - page), "{stack:x} in {ranges:x?}");
        let highest = |ranges: &mut dyn Iterator<Item = Range<u64>>| {
            ranges.filter(|r| r.end < 1 << 48).map(|r| r.end).max().unwrap() > 1 << 47
        };
        assert_eq!(highest(&mut ranges.into_iter()), highest(&mut parse_maps(&text)));
    }

    /// Whoever takes all room there is for a moment has it alone; whoever must find some at any time has it with others.
    pub static ROOM: RwLock<()> = RwLock::new(());

    /// Writes a byte where the test has mapped memory.
    pub fn poke(addr: u64, value: u8) {
        // SAFETY: the tests map what they touch.
        unsafe { *(addr as *mut u8) = value };
    }

    /// Reads one.
    pub fn peek(addr: u64) -> u8 {
        // SAFETY: as in poke.
        unsafe { *(addr as *const u8) }
    }

    /// A memory of its own for each test: they all run in one process.
    pub fn memory(host_page: u64) -> Memory {
        static NEXT: AtomicU64 = AtomicU64::new(0x1000_0000_0000);
        let text = std::fs::read_to_string("/proc/self/maps").unwrap();
        let memory = Memory::with_host(parse_maps(&text), host_page).unwrap();
        memory.lock().base = NEXT.fetch_add(1 << 32, Ordering::Relaxed);
        memory
    }

    pub fn anonymous(addr: u64, pages: u64, prot: u32, flags: u32) -> Map {
        Map {
            addr,
            len: pages * PAGE,
            prot,
            flags: flags | MAP_PRIVATE | MAP_ANONYMOUS,
            fd: -1,
            offset: 0,
            name: None,
        }
    }

    pub const FILE_PAGES: u64 = 12;

    /// A file whose page `n` is full of bytes 100 + n.
    pub fn numbered_file() -> std::fs::File {
        let mut file = tempfile::tempfile().unwrap();
        for n in 0..FILE_PAGES {
            file.write_all(&vec![100 + n as u8; PAGE as usize]).unwrap();
        }
        file
    }

    #[test]
    fn the_guest_ends_below_the_translator() {
        assert_eq!(
            [0x7fff_f000_0000, 0x7e80_0000_0000].map(below),
            [0x7e00_0000_0000, 0x7d00_0000_0000]
        );
        let program = 0x5555_5555_0000..0x5555_5600_0000;
        let own = [program, 0x7f12_3456_0000..0x7f12_3457_0000];
        let memory = Memory::with_host(own.into_iter(), 16384).unwrap();
        assert_eq!(memory.stack_top(), 0x7e00_0000_0000);
        let top = memory.stack_top();
        assert_eq!(memory.map(&anonymous(top, 4, READ, MAP_FIXED)), Err(ENOMEM));
        assert!(memory.map(&anonymous(0, 4, READ, 0)).is_ok_and(|at| at < top - STACK_GAP));
    }

    #[test]
    fn fixed_mappings_spare_the_translator() {
        let memory = memory(host_page_size());
        let own = Box::new(7u8);
        let page = std::ptr::from_ref(&*own) as u64 / PAGE * PAGE;
        assert_eq!(memory.map(&anonymous(page, 1, READ, MAP_FIXED)), Err(ENOMEM));
        memory.unmap(page, PAGE).unwrap();
        assert_eq!(*own, 7);
        // What came after the map was made is not known to it, and still spared.
        // SAFETY: a fresh mapping.
        let late = raw::mmap(0, PAGE, READ | WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0).unwrap();
        assert_eq!(memory.map(&anonymous(late, 1, READ, MAP_FIXED)), Err(ENOMEM));
        // The kernel may be the one that refuses.
        let refused = memory.map(&anonymous(late, 1, READ, MAP_FIXED_NOREPLACE));
        assert!(matches!(refused, Err(ENOMEM | EEXIST)), "{refused:?}");
        raw::munmap(late, PAGE).unwrap();
    }

    #[test]
    fn the_break_moves_and_its_memory_is_zero() {
        let memory = memory(4096);
        let room = memory.map(&anonymous(0, 8, 0, 0)).unwrap();
        memory.unmap(room, 8 * PAGE).unwrap();
        memory.set_brk(room - 100);
        assert_eq!(memory.brk(0, READ | WRITE), room);
        assert_eq!(memory.brk(room + 3 * PAGE, READ | WRITE), room + 3 * PAGE);
        // SAFETY: inside the heap.
        unsafe { *((room + 2 * PAGE) as *mut u8) = 9 };
        assert_eq!(memory.brk(room + PAGE + 5, READ | WRITE), room + PAGE + 5);
        assert_eq!(memory.brk(room + 3 * PAGE, READ | WRITE), room + 3 * PAGE);
        // SAFETY: inside the heap.
        assert_eq!(unsafe { *((room + 2 * PAGE) as *const u8) }, 0);
        assert_eq!(memory.brk(room - 1, READ | WRITE), room + 3 * PAGE);
        assert_eq!(memory.brk(u64::MAX, READ | WRITE), room + 3 * PAGE);
        assert!(memory.proc_maps().contains("[heap]"));
        assert_eq!(memory.brk(room, READ | WRITE), room);
    }

    #[test]
    fn places_where_the_guest_asks() {
        let memory = memory(host_page_size());
        let low = memory.map(&anonymous(0, 1, READ, MAP_32BIT)).unwrap();
        assert!(LOW_WINDOW.contains(&low));
        let hint = memory.map(&anonymous(low - 16 * PAGE, 1, READ, 0)).unwrap();
        assert_eq!(hint, low - 16 * PAGE);
        let taken = memory.map(&anonymous(low, 1, READ, 0)).unwrap();
        assert_ne!(taken, low);
        assert_eq!(memory.map(&anonymous(low, 1, READ, MAP_FIXED_NOREPLACE)), Err(EEXIST));
        assert_eq!(memory.map(&anonymous(low + 1, 1, READ, MAP_FIXED)), Err(EINVAL));
        assert_eq!(memory.map(&anonymous(ADDRESS_LIMIT, 1, READ, MAP_FIXED)), Err(ENOMEM));
        assert_eq!(memory.map(&anonymous(0, 0, READ, 0)), Err(EINVAL));
        assert_eq!(memory.unmap(low + 1, PAGE), Err(EINVAL));
        assert_eq!(memory.protect(low + PAGE, PAGE, READ), Err(ENOMEM));
        for at in [low, hint, taken] {
            memory.unmap(at, PAGE).unwrap();
        }
    }
}
