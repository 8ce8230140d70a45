//! The translator as the rest of the program uses it: run guest code, forget translations,
//! say what guest state a host program counter stands for.

use crate::asm::Asm;
use crate::cache::{CodeCache, RegionMeta, anonymous, anonymous_aligned};
use crate::cpuid;
use crate::facts;
use crate::helpers;
use crate::interpret::{self, Session, Stop, Visits};
use crate::lower::exits::{UNIMPLEMENTED, table_entry};
use crate::lower::{Emitted, Lower};
use crate::mxcsr;
use crate::profile::{Profile, Report};
use crate::region::{CodeReader, MAX_INSTRUCTIONS, NoneTranslated, Region, Windows};
use crate::state::{BRANCH_TABLE_SIZE, BranchTableEntry, CpuState, ExitCode, Fault};
use crate::tramp::{self, Trampoline};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

mod changes;
mod config;
mod faults;
#[cfg(all(test, target_arch = "aarch64"))]
mod moving;
mod pages;

pub use config::{Config, HostFeatures, INTERPRET, MemoryOrder};
pub use faults::HostContext;
use pages::{Around, Page, Pages};

/// What the translator must know about the guest's memory. Implemented by the owner of the memory map.
pub trait GuestMemory: Send + Sync {
    /// How many bytes from `addr` on may be fetched as instructions (mapped, readable for the
    /// translator and executable for the guest); 0 if none. Need not look further than 4096 bytes.
    fn executable_from(&self, addr: u64) -> u64;

    /// The code in the page `start..end` is going to be read: from now on a guest write there must end in
    /// [`Engine::invalidate`] of the whole page before the write takes effect.
    fn watch(&self, start: u64, end: u64);

    /// The executable mapping around `addr`, from its first byte to behind its last; empty if there is none. To read in it
    /// may still fault.
    fn executable_around(&self, addr: u64) -> (u64, u64) {
        (addr, addr + self.executable_from(addr))
    }

    /// A number that changes whenever something ceases to be executable.
    fn changes(&self) -> u64 {
        0
    }

    /// What the code at an address is called in the file that it is of.
    fn symbol(&self, _addr: u64) -> Option<String> {
        None
    }

    /// Guest code has been translated: that at `addr`, to `len` bytes at `host`.
    fn translated(&self, _addr: u64, _host: u64, _len: u32) {}
}

/// Why [`Engine::run`] came back. The guest state in [`CpuState`] is exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// `syscall`: `rip` is behind the instruction, rcx and r11 are already set as SYSCALL sets them.
    Syscall,
    /// A processor exception raised by an instruction, by vector (0 #DE, 1 #DB, 3 #BP, 4 #OF,
    /// 6 #UD, 13 #GP, 16 #MF, 19 #XM). `rip` is the instruction, for #BP and #OF the one behind it.
    Exception(u8),
    /// An instruction that the translator does not implement; `rip` is the instruction. The guest
    /// gets SIGILL, and the log a line.
    Unimplemented,
    /// A guest load, store or instruction fetch faulted; `cpu.fault` says how, `rip` is the instruction.
    MemoryFault,
    /// `cpu.interrupt` was set; `rip` is the next instruction. The caller clears `interrupt`.
    Interrupted,
}

/// Counters for `--stats`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    /// Regions translated.
    pub regions: u64,
    /// Guest instructions translated.
    pub guest_instructions: u64,
    /// Different ones among those whose translations are there: an instruction may stand in several regions.
    pub distinct_instructions: u64,
    /// Bytes of arm64 code emitted.
    pub host_bytes: u64,
    /// Direct branches linked.
    pub links: u64,
    /// Times translated code looked up an indirect target in Rust.
    pub indirect_misses: u64,
    /// Translations thrown away because guest code changed.
    pub invalidations: u64,
}

/// One translator, shared by all threads of a process.
pub struct Engine {
    config: Config,
    memory: Box<dyn GuestMemory>,
    cache: CodeCache,
    inner: Mutex<Inner>,
    /// Counts flushes: addresses in the cache from before one mean nothing after it. Changes under the lock, while
    /// no thread is in translated code.
    generation: AtomicU64,
    /// Whether all translations are being thrown away, see [`Engine::translation_in_table`].
    flushing: AtomicBool,
    visits: Visits,
    /// Copies of what the lock protects, for the interpreter.
    ordered: AtomicBool,
    flags_live_at_return: AtomicBool,
}

/// What a translation is made for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// To be found, linked and invalidated.
    Kept,
    /// The same, but it begins where interpreting stopped, in the middle of the block that begins at this address.
    RestOfBlock(u64),
    /// To execute one instruction, once.
    Once,
}

/// What only the holder of the lock touches.
struct Inner {
    order: MemoryOrder,
    /// See [`Engine::tolerate_misaligned`].
    misaligned: BTreeSet<u64>,
    flags_live_at_return: bool,
    /// See [`Engine::keep_flags_at_faults`].
    flags_live_at_fault: bool,
    /// See [`crate::lower::traps`].
    trap_floats: bool,
    /// Host address of the translation of a guest address.
    entries: HashMap<u64, u64, AddressHash>,
    /// What has been translated of each guest page (4096 bytes).
    pages: Pages,
    found_flags: facts::FoundFlags,
    windows: Windows,
    region: Region,
    asm: Asm,
    emitted: Emitted,
    attached: Vec<*mut CpuState>,
    stats: Stats,
    profile: Option<Profile>,
}

// SAFETY: the pointers in `attached` are only followed under the lock, while their threads are
// outside translated code and waiting for it (see `stop_the_world`).
unsafe impl Send for Inner {}

/// The guest's page size.
pub const PAGE: u64 = 4096;
/// Usable bytes of a thread's shadow stack.
const SHADOW_SIZE: usize = 256 << 10;
/// Bytes of it above the start: a return too many finds zeros there, compares with 0 and misses.
const SHADOW_ABOVE: usize = 1024;
/// Guards on both sides of it; at least a host page of any size.
const SHADOW_GUARD: usize = 64 << 10;

impl Engine {
    /// Reserves the code cache. Fails only when the address space cannot be had.
    pub fn new(config: Config, memory: Box<dyn GuestMemory>) -> io::Result<Self> {
        let cache = CodeCache::new(config.cache_size)?;
        let profile = if config.profile { Some(Profile::new()?) } else { None };
        cpuid::on_host(config.host);
        Ok(Engine {
            config,
            memory,
            cache,
            inner: Mutex::new(Inner {
                order: config.order,
                misaligned: BTreeSet::new(),
                flags_live_at_return: config.flags_live_at_return,
                flags_live_at_fault: false,
                trap_floats: false,
                entries: HashMap::default(),
                pages: HashMap::default(),
                found_flags: facts::FoundFlags::default(),
                windows: Windows::default(),
                region: Region::default(),
                asm: Asm::default(),
                emitted: Emitted::default(),
                attached: Vec::new(),
                stats: Stats::default(),
                profile,
            }),
            generation: AtomicU64::new(0),
            flushing: AtomicBool::new(false),
            visits: Visits::new(config.interpret),
            ordered: AtomicBool::new(config.order == MemoryOrder::Ordered),
            flags_live_at_return: AtomicBool::new(config.flags_live_at_return),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // The translator does not unwind with the lock held; a poisoned lock is as good as any.
        self.inner.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Gives a new thread's state its tables (shadow stack, branch table, helpers).
    /// The state must stay where it is until [`detach`](Self::detach).
    pub fn attach(&self, cpu: &mut CpuState) -> io::Result<()> {
        let table = anonymous_aligned(BRANCH_TABLE_SIZE, libc::PROT_READ | libc::PROT_WRITE)?;
        let block = anonymous(SHADOW_SIZE + 2 * SHADOW_GUARD, libc::PROT_NONE)?;
        let shadow = block + SHADOW_GUARD as u64;
        // SAFETY: the range is inside the block mapped just now.
        let ok = unsafe {
            libc::mprotect(shadow as *mut _, SHADOW_SIZE, libc::PROT_READ | libc::PROT_WRITE)
        };
        if ok != 0 {
            return Err(io::Error::last_os_error());
        }
        cpu.branch_table = table;
        cpu.shadow_block = [block, (SHADOW_SIZE + 2 * SHADOW_GUARD) as u64];
        cpu.shadow_top = shadow + (SHADOW_SIZE - SHADOW_ABOVE) as u64;
        cpu.shadow_sp = cpu.shadow_top;
        helpers::install(cpu);
        miss_at_zero(table);
        self.lock().attached.push(cpu);
        Ok(())
    }

    /// Releases what [`attach`](Self::attach) gave.
    pub fn detach(&self, cpu: &mut CpuState) {
        let this: *mut CpuState = cpu;
        self.lock().attached.retain(|&c| c != this);
        // SAFETY: both ranges were mapped by `attach`, and the thread no longer runs translated code.
        unsafe {
            libc::munmap(cpu.branch_table as *mut _, BRANCH_TABLE_SIZE);
            libc::munmap(cpu.shadow_block[0] as *mut _, cpu.shadow_block[1] as usize);
        }
        cpu.branch_table = 0;
        cpu.shadow_block = [0; 2];
    }

    fn trampoline(&self, t: Trampoline) -> u64 {
        self.cache.trampoline(t)
    }

    /// Runs guest code from `cpu.rip` until something needs the caller.
    pub fn run(&self, cpu: &mut CpuState) -> Exit {
        // The translation to enter next, if it is known; then the thread is marked as about to enter it.
        let mut next = None;
        if self.cache.detours().have_settled() {
            self.take_in_detours();
        }
        loop {
            if self.interrupted(cpu) {
                return Exit::Interrupted;
            }
            if mxcsr::unmasks(cpu.mxcsr) {
                leave(cpu);
                next = None;
                self.trap_floats();
            }
            let mut purpose = Purpose::Kept;
            let after_call = next.is_none() && cpu.exit == ExitCode::Syscall as u64;
            if after_call {
                next = self.translation_in_table(cpu);
            }
            if next.is_none() && self.visits.is_cold(cpu.rip) {
                match self.interpret(cpu) {
                    ControlFlow::Break(exit) => return exit,
                    ControlFlow::Continue(what) => purpose = what,
                }
            }
            let Some(host) = next.or_else(|| self.enter_at(cpu, purpose)) else {
                return no_code(cpu);
            };
            if after_call && next.is_none() {
                self.set_table_entry(cpu, cpu.rip, host);
            }
            match self.enter(cpu, host) {
                Left::For(exit) => return exit,
                Left::ToGoOn(host) => next = host,
            }
        }
    }

    /// Interprets from `cpu.rip` on, up to code that is to be translated.
    fn interpret(&self, cpu: &mut CpuState) -> ControlFlow<Exit, Purpose> {
        let changes = self.memory.changes();
        if cpu.known_code_at != changes {
            (cpu.known_code_at, cpu.known_code) = (changes, Default::default());
        }
        let mut session = Session {
            memory: &*self.memory,
            visits: &self.visits,
            ordered: self.ordered.load(Ordering::Relaxed),
            flags_live_at_return: self.flags_live_at_return.load(Ordering::Relaxed),
            stop: Stop::MemoryFault,
            block: cpu.rip,
        };
        // SAFETY: both are exclusive, and outlive the call.
        unsafe {
            tramp::call(self.trampoline(Trampoline::Call), cpu, &mut session, interpret::enter)
        };
        let exit = match session.stop {
            Stop::Translate => return ControlFlow::Continue(Purpose::RestOfBlock(session.block)),
            Stop::FlagsBehindCall => {
                self.keep_flags_over_returns();
                return ControlFlow::Continue(Purpose::Kept);
            }
            Stop::Interrupted => Exit::Interrupted,
            Stop::NoCode => no_code(cpu),
            Stop::Syscall => self.finish_exit(cpu, ExitCode::Syscall),
            Stop::MemoryFault => {
                self.describe_access(cpu);
                Exit::MemoryFault
            }
        };
        ControlFlow::Break(exit)
    }

    /// Code has been seen that reads flags behind a call, before that call was made.
    fn keep_flags_over_returns(&self) {
        let mut inner = self.lock();
        if !inner.flags_live_at_return {
            self.set_flags_live_at_return(&mut inner);
            self.flush(&mut inner);
        }
    }

    fn set_flags_live_at_return(&self, inner: &mut Inner) {
        inner.flags_live_at_return = true;
        self.flags_live_at_return.store(true, Ordering::Relaxed);
    }

    /// Runs exactly one guest instruction (used for a store into a page that holds translated code).
    pub fn step(&self, cpu: &mut CpuState) -> Exit {
        let rip = cpu.rip;
        let host = {
            let mut inner = self.lock();
            let host = self.translate(&mut inner, rip, Purpose::Once);
            cpu.entering = host.unwrap_or(0);
            host
        };
        let Some(host) = host else {
            return no_code(cpu);
        };
        match self.enter_unlinked(cpu, host) {
            Some(exit) => exit,
            None => Exit::Interrupted,
        }
    }

    /// Whether the thread shall come out; then what was patched to get it out is undone.
    fn interrupted(&self, cpu: &mut CpuState) -> bool {
        // SAFETY: a plain field that signal handlers write.
        let interrupt = unsafe { std::ptr::read_volatile(&cpu.interrupt) };
        if interrupt == 0 {
            return false;
        }
        // Whoever has the lock may wait for that.
        leave(cpu);
        let _lock = self.lock();
        for slot in &mut cpu.armed {
            if *slot != 0 {
                // SAFETY: region records live as long as the cache (until a flush, which clears `armed`).
                let meta = unsafe { &*(*slot as *const RegionMeta) };
                self.cache.disarm(meta);
                *slot = 0;
            }
        }
        true
    }

    /// Finds or makes the translation at `cpu.rip` and marks the thread as about to enter it.
    fn enter_at(&self, cpu: &mut CpuState, purpose: Purpose) -> Option<u64> {
        let mut inner = self.lock();
        let host = self.find_or_translate_for(&mut inner, cpu.rip, purpose)?;
        cpu.entering = host;
        Some(host)
    }

    /// The translation at `cpu.rip`, if the thread's indirect branches would find it; then the thread is marked as about to
    /// enter it. So what follows a system call is found without the lock.
    #[inline]
    fn translation_in_table(&self, cpu: &mut CpuState) -> Option<u64> {
        // From here on a flush waits for this thread, unless it has begun before.
        // SAFETY: an aligned word of the state, which a flush reads meanwhile.
        unsafe { AtomicU64::from_ptr(&raw mut cpu.entering) }.store(LOOKING, Ordering::SeqCst);
        if !self.flushing.load(Ordering::SeqCst) {
            let pair = table_entry(cpu.branch_table, cpu.rip);
            // SAFETY: inside the table that `attach` mapped; others write it when the thread is out only.
            let entry = unsafe { *(pair as *const BranchTableEntry) };
            if entry.guest == cpu.rip {
                cpu.entering = entry.host;
                return Some(entry.host);
            }
        }
        leave(cpu);
        None
    }

    /// Host address of the translation of a guest address, which is made if there is none. None if there is no code.
    pub fn translation(&self, guest: u64) -> Option<u64> {
        self.find_or_translate(&mut self.lock(), guest)
    }

    fn find_or_translate(&self, inner: &mut Inner, rip: u64) -> Option<u64> {
        self.find_or_translate_for(inner, rip, Purpose::Kept)
    }

    fn find_or_translate_for(&self, inner: &mut Inner, rip: u64, purpose: Purpose) -> Option<u64> {
        if self.visits.may_be_translated(rip)
            && let Some(&host) = inner.entries.get(&rip)
        {
            return Some(host);
        }
        if let Some(host) = self.enter_inside(inner, rip) {
            return Some(host);
        }
        self.translate(inner, rip, purpose)
    }

    /// Makes an entry in the middle of a region that has the instruction already.
    fn enter_inside(&self, inner: &mut Inner, rip: u64) -> Option<u64> {
        let page = inner.pages.get(&(rip / PAGE)).filter(|page| page.is_enterable(rip))?;
        let mut live = page.regions.iter().copied().filter(|meta| !meta.is_dead());
        let (meta, offset) = live.find_map(|meta| Some((meta, meta.enterable(rip)?)))?;
        let host = self.cache.add_entry(meta, offset, rip)?;
        inner.entries.insert(rip, host);
        self.visits.translated(rip);
        Some(host)
    }

    /// Enters translated code; handles the exits that only concern the translator.
    fn enter(&self, cpu: &mut CpuState, host: u64) -> Left {
        let Some((exit, generation)) = self.enter_raw(cpu, host) else { return Left::ToGoOn(None) };
        match exit {
            // Cold code has no translation to go to.
            ExitCode::Direct | ExitCode::Indirect if self.visits.would_be_cold(cpu.rip) => {
                Left::ToGoOn(None)
            }
            ExitCode::Direct => Left::ToGoOn(self.link(cpu, generation)),
            ExitCode::Indirect => Left::ToGoOn(self.fill_branch_table(cpu)),
            ExitCode::Dead => Left::ToGoOn(self.redirect(cpu, generation)),
            other => Left::For(self.finish_exit(cpu, other)),
        }
    }

    /// The guest address of the entry, now dead, that control came to. Its region's record is there while the thread
    /// counts as inside.
    fn entered_dead(&self, host: u64) -> u64 {
        let entered = self.cache.region_at(host).and_then(|meta| meta.entered_at(host));
        entered.expect("control comes in at entries")
    }

    /// The same for a translation that is used once: nothing is linked to or from it.
    fn enter_unlinked(&self, cpu: &mut CpuState, host: u64) -> Option<Exit> {
        match self.enter_raw(cpu, host)?.0 {
            ExitCode::Direct | ExitCode::Indirect | ExitCode::Dead => None,
            other => Some(self.finish_exit(cpu, other)),
        }
    }

    /// Why the code was left, and the generation of the cache it was in. None if the thread was interrupted before it
    /// could enter.
    #[inline(always)]
    fn enter_raw(&self, cpu: &mut CpuState, host: u64) -> Option<(ExitCode, u64)> {
        std::sync::atomic::compiler_fence(Ordering::SeqCst);
        // SAFETY: as in `interrupted`.
        if unsafe { std::ptr::read_volatile(&cpu.interrupt) } != 0 {
            leave(cpu);
            return None;
        }
        mxcsr::apply(cpu, self.config.host.afp);
        // SAFETY: `host` is the entry of a translation in the live cache: a flush waits for
        // `entering` to become 0. The state was prepared by `attach`.
        unsafe { tramp::enter(self.trampoline(Trampoline::Enter), cpu, host) };
        if matches!(cpu.exit, FAULTED | RAISED) {
            self.complete_flags(cpu);
        }
        if cpu.exit == FAULTED {
            self.describe_access(cpu);
        }
        if cpu.exit == ExitCode::Direct as u64 {
            // SAFETY: the exit trampoline stored the address of the stub's record, which is there while no flush can be.
            cpu.rip = unsafe { (cpu.exit_arg as *const u64).read_unaligned() };
        }
        if cpu.exit == ExitCode::Dead as u64 {
            cpu.rip = self.entered_dead(cpu.exit_arg - 4);
        }
        let generation = self.generation.load(Ordering::Relaxed);
        leave(cpu);
        mxcsr::collect(cpu);
        let code = match cpu.exit {
            0 => ExitCode::Direct,
            1 => ExitCode::Indirect,
            2 => ExitCode::Syscall,
            3 => ExitCode::Exception,
            6 => ExitCode::Dead,
            _ => ExitCode::MemoryFault,
        };
        Some((code, generation))
    }

    fn finish_exit(&self, cpu: &mut CpuState, exit: ExitCode) -> Exit {
        match exit {
            ExitCode::Syscall => {
                cpu.gpr[1] = cpu.rip;
                cpu.gpr[11] = cpu.rflags();
                Exit::Syscall
            }
            ExitCode::Exception if cpu.exit_arg == u64::from(UNIMPLEMENTED) => Exit::Unimplemented,
            ExitCode::Exception => Exit::Exception(cpu.exit_arg as u8),
            _ => Exit::MemoryFault,
        }
    }

    /// Links the exit that was taken to the translation of its target, unless the cache has been thrown away since, and
    /// marks the thread as about to enter that.
    fn link(&self, cpu: &mut CpuState, generation: u64) -> Option<u64> {
        let (record, target) = (cpu.exit_arg, cpu.rip);
        let mut inner = self.lock();
        let host = self.find_or_translate(&mut inner, target)?;
        if self.generation.load(Ordering::Relaxed) == generation
            && let Some(meta) = self.cache.region_at(record)
            && !meta.is_dead()
        {
            inner.stats.links += 1;
            self.cache.link(meta, record, host);
        }
        cpu.entering = host;
        Some(host)
    }

    /// Makes the dead entry that control came to lead to the new translation: links and branch tables still go there.
    fn redirect(&self, cpu: &mut CpuState, generation: u64) -> Option<u64> {
        let entry = cpu.exit_arg - 4;
        let mut inner = self.lock();
        let host = self.find_or_translate(&mut inner, cpu.rip)?;
        if self.generation.load(Ordering::Relaxed) == generation
            && let Some(meta) = self.cache.region_at(entry)
        {
            self.cache.redirect(meta, entry, host);
        }
        cpu.entering = host;
        Some(host)
    }

    /// The same for an indirect branch.
    fn fill_branch_table(&self, cpu: &mut CpuState) -> Option<u64> {
        let mut inner = self.lock();
        inner.stats.indirect_misses += 1;
        let host = self.find_or_translate(&mut inner, cpu.rip)?;
        self.set_table_entry(cpu, cpu.rip, host);
        cpu.entering = host;
        Some(host)
    }

    /// Lets the thread's indirect branches find a translation; it is not in translated code.
    fn set_table_entry(&self, cpu: &mut CpuState, guest: u64, host: u64) {
        let at = |host| BranchTableEntry { guest, host };
        let call = self.cache.call_entry(host).map_or(BranchTableEntry::empty(guest), at);
        let pair = table_entry(cpu.branch_table, guest);
        // SAFETY: inside the table that `attach` mapped; only this thread uses it.
        unsafe { *(pair as *mut [BranchTableEntry; 2]) = [at(host), call] };
    }

    /// Translates the region at `rip`.
    fn translate(&self, inner: &mut Inner, rip: u64, purpose: Purpose) -> Option<u64> {
        let publish = purpose != Purpose::Once;
        let Inner {
            region,
            asm,
            emitted,
            pages,
            order,
            misaligned,
            stats,
            flags_live_at_return,
            profile,
            found_flags,
            windows,
            ..
        } = inner;
        let (flags_live_at_fault, trap_floats) = (inner.flags_live_at_fault, inner.trap_floats);
        let is_watched = |page| pages.get(&page).is_some_and(|page| page.is_watched());
        let code = if publish {
            CodeReader::watching(&*self.memory, &is_watched, *windows)
        } else {
            // A store into its own page is executed once: to watch that would make it fault again.
            CodeReader::new(&*self.memory)
        };
        region.flags_live_at_fault = flags_live_at_fault;
        let visited = |addr| self.visits.saw(addr);
        let built = if publish {
            region.build(&code, rip, MAX_INSTRUCTIONS, &Around::new(pages, rip), visited)
        } else {
            region.build(&code, rip, 1, &NoneTranslated, visited)
        };
        if !built {
            return None;
        }
        region.lacks_head = match purpose {
            Purpose::RestOfBlock(block) => region.leads_to(block..rip),
            _ => false,
        };
        let outside = facts::Outside {
            code: &code,
            flags_live_at_return: *flags_live_at_return,
            flags_live_at_fault,
            found: publish.then(|| found_flags.places()),
        };
        if !region.calls.is_empty()
            && !*flags_live_at_return
            && let Some(call) = facts::reads_flags_behind_call(region, outside)
        {
            if call == 0 {
                // Before the call is made: what has been translated so far may be the callee.
                self.set_flags_live_at_return(inner);
                self.flush(inner);
                return self.translate(inner, rip, purpose);
            }
            // Perhaps it is never made: behind one that does not return stands code of something else.
            region.end_before(call);
        }
        facts::flag_liveness(region, outside);
        let watched = code.watched_windows();
        let config = Config { order: *order, ..self.config };
        asm.clear();
        let mut lower = Lower::new(asm, region, &config, emitted);
        let end = region.insns.last().map_or(rip, |insn| insn.ins.next_ip());
        let known = misaligned.range(rip..end).next();
        lower.misaligned = known.is_some().then_some(misaligned);
        lower.trap_floats = trap_floats;
        lower.profile = profile.as_ref();
        lower.run();
        stats.regions += 1;
        stats.guest_instructions += region.insns.len() as u64;
        stats.host_bytes += size_of_val(asm.code()) as u64;
        let Some(meta) = self.cache.append(region, asm, emitted) else {
            self.flush(inner);
            return self.translate(inner, rip, purpose);
        };
        if let Some(profile) = profile {
            profile.note(region, asm.code(), emitted);
        }
        if self.config.dump_asm {
            crate::dump::region(region, asm, emitted, meta, self.memory.symbol(rip));
        }
        self.memory.translated(rip, meta.host, meta.len);
        if publish {
            self.publish(inner, meta);
            inner.windows = watched;
        }
        Some(meta.entry())
    }

    /// Makes a new translation known and links it with what is already there.
    #[inline(never)]
    fn publish(&self, inner: &mut Inner, meta: &'static RegionMeta) {
        inner.entries.insert(meta.guest, meta.entry());
        self.visits.translated(meta.guest);
        let leads_back = self.link_exits(inner, meta);
        for page in meta.guest / PAGE..=(meta.guest_end - 1) / PAGE {
            inner.pages.entry(page).or_insert_with(Page::new).add(page, meta, leads_back);
        }
        let (mut first, mut last) = (meta.guest / PAGE, (meta.guest_end - 1) / PAGE);
        for looked in meta.looked_at {
            let (from, to) = (looked.start / PAGE, (looked.end - 1) / PAGE);
            if first <= from && to <= last {
                continue;
            }
            for page in from..=to {
                inner.pages.entry(page).or_insert_with(Page::new).lookers.push(meta);
            }
            (first, last) = (from, to);
        }
    }

    /// Links a region with what is there of its targets. Returns whether one of them is not far before it.
    fn link_exits(&self, inner: &mut Inner, meta: &'static RegionMeta) -> bool {
        let near = pages::near(meta);
        let mut leads_back = false;
        for (at, target) in meta.exits() {
            leads_back |= near.contains(&target);
            if target != meta.guest
                && self.visits.may_be_translated(target)
                && let Some(&host) = inner.entries.get(&target)
            {
                self.cache.link(meta, at, host);
                inner.stats.links += 1;
            }
        }
        leads_back
    }

    /// Changes the memory order; translations made for the other order are thrown away.
    pub fn set_order(&self, order: MemoryOrder) {
        let mut inner = self.lock();
        if inner.order != order {
            inner.order = order;
            self.ordered.store(order == MemoryOrder::Ordered, Ordering::Relaxed);
            self.flush(&mut inner);
        }
    }

    /// From now on the flags are exact at a fault of a load or store, also those that the guest's
    /// code does not read; translations made before are thrown away. To be called before the guest
    /// can see them: before it has a handler for SIGSEGV, SIGBUS or SIGFPE, or a tracer.
    pub fn keep_flags_at_faults(&self) {
        let mut inner = self.lock();
        if !inner.flags_live_at_fault {
            inner.flags_live_at_fault = true;
            // The code behind a call may fault before it writes flags.
            self.set_flags_live_at_return(&mut inner);
            self.flush(&mut inner);
        }
    }

    /// A thread has unmasked an exception of SSE: from now on instructions that may raise one look.
    fn trap_floats(&self) {
        let mut inner = self.lock();
        if !inner.trap_floats {
            inner.trap_floats = true;
            self.flush(&mut inner);
        }
    }

    /// Whether the host address is inside emitted code (translations and trampolines).
    /// Async-signal-safe.
    pub fn contains(&self, host_pc: u64) -> bool {
        self.cache.contains(host_pc)
    }

    /// Takes every lock of the translator so that the process can be forked;
    /// dropping the guard, in the parent and in the child, releases them.
    /// What earlier children would have liked to inherit from this thread is translated.
    pub fn lock_for_fork(&self, cpu: &mut CpuState) -> ForkGuard<'_> {
        let mut inner = self.lock();
        let before = self.cache.regions().len();
        for addr in self.visits.wished() {
            if let Some(host) = self.find_or_translate(&mut inner, addr) {
                self.set_table_entry(cpu, addr, host);
            }
        }
        // Some lead to what was translated after them: else each child would link them for itself.
        for meta in self.cache.regions_from(before) {
            self.link_exits(&mut inner, meta);
        }
        ForkGuard { engine: self, inner, _split: crate::split::lock() }
    }

    /// With [`Config::profile`]: where time has gone so far.
    pub fn profile(&self) -> Option<Report> {
        let inner = self.lock();
        let report = inner.profile.as_ref()?.report();
        Some(report.named(|addr| self.memory.symbol(addr)))
    }

    /// Counters so far.
    pub fn stats(&self) -> Stats {
        let inner = self.lock();
        let regions = inner.pages.values().flat_map(|page| &page.regions);
        let distinct: HashSet<u64> = regions.flat_map(|meta| meta.instructions()).collect();
        Stats { distinct_instructions: distinct.len() as u64, ..inner.stats }
    }
}

/// How translated code was left.
enum Left {
    /// Because something needs the caller.
    For(Exit),
    /// For the translator alone. The thread is marked as about to enter the translation that is known, if it is.
    ToGoOn(Option<u64>),
}

const RAISED: u64 = ExitCode::Exception as u64;
const FAULTED: u64 = ExitCode::MemoryFault as u64;

/// [`CpuState::entering`] of a thread that looks for a translation to enter: no host address.
const LOOKING: u64 = 1;

/// Entries that were never written are 0, which is an address that is looked up in the first ones.
fn miss_at_zero(table: u64) {
    // SAFETY: the first pair of a table that `attach` mapped.
    unsafe { *(table as *mut [BranchTableEntry; 2]) = [BranchTableEntry::empty(0); 2] };
}

/// Says that the thread is out of translated code, and has read and written what it had to there.
fn leave(cpu: &mut CpuState) {
    // SAFETY: an aligned word of the state, which a flush reads meanwhile.
    unsafe { AtomicU64::from_ptr(&raw mut cpu.entering) }.store(0, Ordering::Release);
}

/// No executable memory at rip: an instruction fetch fault.
fn no_code(cpu: &mut CpuState) -> Exit {
    const SEGV_MAPERR: i32 = 1;
    cpu.entering = 0;
    cpu.fault =
        Fault { signo: libc::SIGSEGV as u32, code: SEGV_MAPERR, addr: cpu.rip, write: 0, stack: 0 };
    Exit::MemoryFault
}

/// See [`Engine::lock_for_fork`].
pub struct ForkGuard<'a> {
    engine: &'a Engine,
    inner: MutexGuard<'a, Inner>,
    _split: crate::split::Guard,
}

impl ForkGuard<'_> {
    /// To be called in the child: the other threads' states are gone with their threads.
    pub fn in_child(&mut self, cpu: &mut CpuState) {
        let this: *mut CpuState = cpu;
        // SAFETY: the states are as the threads left them, and there is nobody else.
        let stopped = |&c: &*mut CpuState| c != this && unsafe { (*c).armed != [0; 4] };
        let was_stopping = self.inner.attached.iter().any(stopped);
        self.inner.attached.retain(|&c| c == this);
        self.engine.visits.forked();
        if let Some(profile) = &self.inner.profile {
            profile.reset();
        }
        if was_stopping {
            // Nobody will set the branches to run again that were set, or half set, to stop for it.
            self.engine.flush(&mut self.inner);
        }
    }
}

/// A hash for addresses: multiplication by an odd constant, high half (Knuth, TAOCP 6.4).
#[derive(Clone, Copy, Default)]
pub struct AddressHasher(u64);

impl std::hash::Hasher for AddressHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for &b in bytes {
            self.write_u64(u64::from(b));
        }
    }
    fn write_u64(&mut self, v: u64) {
        self.0 = (self.0 ^ v).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 ^= self.0 >> 32;
    }
}

type AddressHash = std::hash::BuildHasherDefault<AddressHasher>;
