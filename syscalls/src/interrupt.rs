//! The host's signal handlers and the system calls they may interrupt. The handlers run at any point
//! of the translator: they take no lock and allocate nothing. What arrives is put into the
//! thread's [`Inbox`]; the main loop delivers it to the guest (`signal`).

use std::cell::{Cell, UnsafeCell};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use translator::engine::HostContext;
use translator::state::{CpuState, Fault};

use crate::host::{self, SysResult};
use crate::runtime;
use crate::signal::{SIGBUS, SIGSEGV, SignalSet};

/// siginfo_t, the same on both architectures.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SigInfo(pub [u8; 128]);

impl SigInfo {
    /// Nothing but a signal number and a code.
    pub fn new(signo: i32, code: i32) -> Self {
        let mut info = Self([0; 128]);
        info.0[..4].copy_from_slice(&signo.to_ne_bytes());
        info.0[8..12].copy_from_slice(&code.to_ne_bytes());
        info
    }

    /// The same with `si_addr`.
    pub fn with_addr(mut self, addr: u64) -> Self {
        self.0[16..24].copy_from_slice(&addr.to_ne_bytes());
        self
    }

    /// `si_signo`.
    pub fn signo(&self) -> i32 {
        i32::from_ne_bytes(self.0[..4].try_into().expect("four bytes"))
    }

    /// `si_code`.
    pub fn code(&self) -> i32 {
        i32::from_ne_bytes(self.0[8..12].try_into().expect("four bytes"))
    }

    /// `si_addr`.
    pub fn addr(&self) -> u64 {
        u64::from_ne_bytes(self.0[16..24].try_into().expect("eight bytes"))
    }
}

/// Where signals wait. SIGSEGV and SIGBUS, which the host never blocks, have a slot each. All others
/// are blocked on the host from the arrival of one until its delivery, so that one slot would do but
/// for a handler of SIGSEGV that blocks what has arrived.
const SLOTS: usize = 6;

fn slots_of(signo: i32) -> std::ops::Range<usize> {
    match signo {
        SIGSEGV => 0..1,
        SIGBUS => 1..2,
        _ => 2..SLOTS,
    }
}

/// The signals of one thread that have arrived. Written by its handlers, emptied by its main loop.
#[repr(C)]
pub struct Inbox {
    /// Nonzero while a slot that the guest's mask lets through may be full.
    attention: AtomicU32,
    full: [AtomicU32; SLOTS],
    slots: [UnsafeCell<SigInfo>; SLOTS],
    /// The thread's processor, for the translator.
    cpu: Cell<*mut CpuState>,
    /// Pages made writable by the fault handler whose translations are still to be thrown away.
    stale: [AtomicU64; STALE],
    /// How many watches of pages the thread knows to have ended.
    pub(crate) watches_seen: AtomicU64,
}

const STALE: usize = 8;

impl Default for Inbox {
    fn default() -> Self {
        Self {
            attention: AtomicU32::new(0),
            full: Default::default(),
            slots: std::array::from_fn(|_| UnsafeCell::new(SigInfo([0; 128]))),
            cpu: Cell::new(std::ptr::null_mut()),
            stale: Default::default(),
            watches_seen: AtomicU64::new(0),
        }
    }
}

impl Inbox {
    /// Whether something may have arrived.
    pub fn attention(&self) -> bool {
        self.attention.load(Ordering::Relaxed) != 0
    }

    /// Takes a signal that `mask` does not block.
    pub fn take(&self, mask: SignalSet) -> Option<SigInfo> {
        self.attention.store(0, Ordering::SeqCst);
        for slot in 0..SLOTS {
            if self.full[slot].load(Ordering::Acquire) == 0 {
                continue;
            }
            // SAFETY: a full slot is not written before it is marked empty.
            let info = unsafe { *self.slots[slot].get() };
            if !mask.contains(info.signo()) {
                self.full[slot].store(0, Ordering::Release);
                self.attention.store(1, Ordering::SeqCst);
                return Some(info);
            }
        }
        None
    }

    /// The signals that have arrived and wait.
    pub fn pending(&self) -> SignalSet {
        let mut set = SignalSet::default();
        for slot in 0..SLOTS {
            if self.full[slot].load(Ordering::Acquire) != 0 {
                // SAFETY: as in take.
                set.add(unsafe { *self.slots[slot].get() }.signo());
            }
        }
        set
    }

    /// After a change of the mask: what was blocked may go now.
    pub fn recheck(&self) {
        if self.pending() != SignalSet::default() {
            self.attention.store(1, Ordering::SeqCst);
        }
    }

    /// Called by the handler; a signal that is pending already is not queued again.
    pub(crate) fn put(&self, info: &SigInfo) {
        let free =
            slots_of(info.signo()).find(|&slot| self.full[slot].load(Ordering::Acquire) == 0);
        if let Some(slot) = free {
            // SAFETY: an empty slot belongs to the handler, and the handler does not interrupt itself.
            unsafe { *self.slots[slot].get() = *info };
            self.full[slot].store(1, Ordering::Release);
        }
        self.attention.store(1, Ordering::SeqCst);
    }

    /// Notes a page for [`take_stale`](Self::take_stale); false if too many wait.
    fn put_stale(&self, page: u64) -> bool {
        let free = self.stale.iter().find(|s| s.load(Ordering::Relaxed) == 0);
        free.map(|s| s.store(page, Ordering::Relaxed)).is_some_and(|()| {
            // Before translated code runs again, the main loop has to look.
            self.attention.store(1, Ordering::SeqCst);
            true
        })
    }

    /// A page that the translator wrote for the guest while it held translated code.
    pub fn take_stale(&self) -> Option<u64> {
        self.stale.iter().map(|s| s.swap(0, Ordering::Relaxed)).find(|&page| page != 0)
    }

    /// Makes this the inbox of the calling host thread, and `cpu` its processor.
    pub fn adopt(&self, cpu: &mut CpuState) {
        self.cpu.set(cpu);
        CURRENT.set(self);
    }
}

thread_local! {
    static CURRENT: Cell<*const Inbox> = const { Cell::new(std::ptr::null()) };
}

#[cfg(target_arch = "aarch64")]
mod safe_syscall {
    //! A system call that a signal can call off up to the very instruction that makes it.

    core::arch::global_asm!(
        // x0: address of the attention word, x1: number, x2: address of the six arguments
        ".globl demotic_safe_syscall",
        ".hidden demotic_safe_syscall",
        "demotic_safe_syscall:",
        "mov x9, x0",
        "mov x8, x1",
        "mov x10, x2",
        "ldp x0, x1, [x10]",
        "ldp x2, x3, [x10, #16]",
        "ldp x4, x5, [x10, #32]",
        ".globl demotic_safe_syscall_start",
        ".hidden demotic_safe_syscall_start",
        "demotic_safe_syscall_start:",
        "ldr w9, [x9]",
        "cbnz w9, demotic_safe_syscall_interrupted",
        ".globl demotic_safe_syscall_svc",
        ".hidden demotic_safe_syscall_svc",
        "demotic_safe_syscall_svc:",
        "svc #0",
        "ret",
        ".globl demotic_safe_syscall_interrupted",
        ".hidden demotic_safe_syscall_interrupted",
        "demotic_safe_syscall_interrupted:",
        "mov x0, #-512", // Errno::RESTART
        "ret",
    );

    unsafe extern "C" {
        fn demotic_safe_syscall(attention: *const u32, nr: u64, args: *const [u64; 6]) -> i64;
        static demotic_safe_syscall_start: u8;
        static demotic_safe_syscall_svc: u8;
        static demotic_safe_syscall_interrupted: u8;
    }

    #[inline]
    pub fn call(attention: *const u32, nr: u64, args: &[u64; 6]) -> i64 {
        // SAFETY: the arguments name the guest's memory or the caller's own; so does host::syscall demand.
        unsafe { demotic_safe_syscall(attention, nr, args) }
    }

    /// Where to continue if a signal interrupted at `pc`: a call not yet made, or one that the kernel
    /// is about to make again after the handler, is called off.
    pub fn rewind(pc: u64) -> u64 {
        let address = |symbol: *const u8| symbol as u64;
        let range = address(&raw const demotic_safe_syscall_start)
            ..=address(&raw const demotic_safe_syscall_svc);
        if range.contains(&pc) { address(&raw const demotic_safe_syscall_interrupted) } else { pc }
    }
}

#[cfg(not(target_arch = "aarch64"))]
mod safe_syscall {
    //! There is no arm64 kernel to interrupt.

    pub fn call(_attention: *const u32, _nr: u64, _args: &[u64; 6]) -> i64 {
        -i64::from(libc::ENOSYS)
    }

    pub fn rewind(pc: u64) -> u64 {
        pc
    }
}

/// Makes a host system call unless a signal has arrived; see [`crate::task::Task::host_call`].
///
/// The host's handlers are installed with the guest's SA_RESTART, so the kernel itself says which calls are
/// restarted: it goes back to the `svc` instruction, and the handler finds it there.
#[inline]
pub fn call(inbox: &Inbox, nr: u64, args: &[u64; 6]) -> SysResult {
    host::result(safe_syscall::call(inbox.attention.as_ptr(), nr, args))
}

/// The head of an arm64 `ucontext_t` (arch/arm64/include/uapi/asm/{ucontext,sigcontext}.h).
#[repr(C)]
pub struct UContext {
    flags: u64,
    link: u64,
    stack: [u64; 3],
    sigmask: u64,
    unused: [u8; 120],
    /// struct sigcontext is aligned to 16 because of its records.
    pad: u64,
    fault_address: u64,
    x: [u64; 31],
    sp: u64,
    pc: u64,
    pstate: u64,
    pad2: u64,
    records: [u8; 4096],
}

const _: () = {
    assert!(std::mem::offset_of!(UContext, sigmask) == 40);
    assert!(std::mem::offset_of!(UContext, fault_address) == 176);
    assert!(std::mem::offset_of!(UContext, records) == 464);
    assert!(size_of::<UContext>() == 4560);
};

const FPSIMD_MAGIC: u32 = 0x4650_8001;
const ESR_MAGIC: u32 = 0x4553_5201;

/// Record of the floating-point registers.
#[repr(C)]
struct FpSimd {
    magic: u32,
    size: u32,
    fpsr: u32,
    fpcr: u32,
    v: [u128; 32],
}

impl UContext {
    /// The address of a record, found by its magic number.
    fn record(&mut self, magic: u32) -> Option<*mut u8> {
        let word = |bytes: &[u8]| u32::from_ne_bytes(bytes[..4].try_into().expect("four bytes"));
        let mut at = 0;
        while at + 8 <= self.records.len() {
            let (found, size) = (word(&self.records[at..]), word(&self.records[at + 4..]) as usize);
            if found == magic {
                return Some(&raw mut self.records[at]);
            }
            if found == 0 || size < 8 {
                return None;
            }
            at += size;
        }
        None
    }

    fn fpsimd(&mut self) -> Option<&mut FpSimd> {
        // SAFETY: the kernel aligns records to 16 bytes and gives this one its full size.
        self.record(FPSIMD_MAGIC).map(|r| unsafe { &mut *r.cast::<FpSimd>() })
    }

    /// Whether a data abort was a write (ESR_ELx.WnR, bit 6; classes 0x24 and 0x25).
    fn is_write(&mut self) -> bool {
        let Some(record) = self.record(ESR_MAGIC) else {
            return false;
        };
        // SAFETY: struct esr_context: the value follows the eight bytes of the head.
        let esr = unsafe { record.add(8).cast::<u64>().read() };
        matches!(esr >> 26 & 0x3f, 0x24 | 0x25) && esr >> 6 & 1 != 0
    }

    fn load(&mut self) -> HostContext {
        let (fpsr, fpcr, v) = self.fpsimd().map_or((0, 0, [0; 32]), |f| (f.fpsr, f.fpcr, f.v));
        HostContext { x: self.x, sp: self.sp, pc: self.pc, pstate: self.pstate, v, fpsr, fpcr }
    }

    fn store(&mut self, context: &HostContext) {
        self.x = context.x;
        self.sp = context.sp;
        self.pc = context.pc;
        self.pstate = context.pstate;
        if let Some(f) = self.fpsimd() {
            f.fpsr = context.fpsr;
            f.fpcr = context.fpcr;
            f.v = context.v;
        }
    }
}

/// The one handler of the host. It is installed for SIGSEGV and SIGBUS, and for what the guest handles.
///
/// # Safety
/// For the kernel to call, with SA_SIGINFO.
pub unsafe extern "C" fn handler(signo: i32, info: *const SigInfo, context: *mut UContext) {
    // SAFETY: the kernel passes valid pointers, and nobody else knows them.
    let (info, context) = unsafe { (&*info, &mut *context) };
    // SAFETY: the inbox lives as long as its thread.
    let inbox = unsafe { CURRENT.get().as_ref() };
    // What the kernel itself raises for an instruction has a positive code.
    if matches!(signo, SIGSEGV | SIGBUS) && info.code() > 0 {
        if !inbox.is_some_and(|inbox| fault(inbox, info, context)) {
            die_of_own_fault(signo, info, context);
        }
        return;
    }
    let Some(inbox) = inbox else { return };
    inbox.put(info);
    // Nothing else may arrive until this one is delivered; the main loop sets the mask again.
    context.sigmask = SignalSet::ALL.for_host().0;
    let pc = safe_syscall::rewind(context.pc);
    if pc != context.pc {
        context.pc = pc;
        return;
    }
    let mut host = context.load();
    // SAFETY: the processor of this thread, which is stopped in this handler.
    let cpu = unsafe { &mut *inbox.cpu.get() };
    runtime::runtime().engine.request_exit(cpu, &mut host);
    context.store(&host);
}

/// A memory fault: of the translator on behalf of the guest, or of translated code.
fn fault(inbox: &Inbox, info: &SigInfo, context: &mut UContext) -> bool {
    let runtime = runtime::runtime();
    if let Some(pc) = crate::guest::fixup(context.pc) {
        let page = info.addr() & !4095;
        let watched = runtime.memory.is_watched(page);
        if watched && inbox.put_stale(page) && runtime.memory.open_watched(page)
            || runtime.memory.has_watch_ended(&inbox.watches_seen)
        {
            return true;
        }
        context.pc = pc;
        return true;
    }
    let fault = Fault {
        signo: info.signo() as u32,
        code: info.code(),
        addr: info.addr(),
        write: u32::from(context.is_write()),
        stack: 0, // the translator finds that out
    };
    let mut host = context.load();
    // SAFETY: as in handler.
    let cpu = unsafe { &mut *inbox.cpu.get() };
    let taken = runtime.engine.handle_fault(cpu, &mut host, fault);
    if taken {
        context.store(&host);
    }
    taken
}

/// The translator itself is at fault: says where, and lets the kernel end the process when
/// the instruction faults again.
fn die_of_own_fault(signo: i32, info: &SigInfo, context: &UContext) {
    let mut text = [0u8; 160];
    let mut rest = &mut text[..];
    let room = rest.len();
    use std::io::Write;
    let _ = writeln!(
        rest,
        "demotic: internal error: signal {signo} at {:#x}, address {:#x}, return address {:#x}",
        context.pc,
        info.addr(),
        context.x[30]
    );
    let len = room - rest.len();
    // SAFETY: writes the bytes formatted above; the disposition is reset without a handler.
    unsafe {
        libc::write(2, text.as_ptr().cast(), len);
    }
    crate::signal::reset_host(signo);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inbox_keeps_what_is_blocked() {
        let inbox = Inbox::default();
        inbox.put(&SigInfo::new(SIGSEGV, 0));
        inbox.put(&SigInfo::new(10, -6));
        assert!(inbox.attention());
        let mut mask = SignalSet::default();
        mask.add(SIGSEGV);
        assert_eq!(inbox.take(mask).map(|i| i.signo()), Some(10));
        assert_eq!(inbox.take(mask), None);
        assert!(!inbox.attention());
        assert!(inbox.pending().contains(SIGSEGV));
        assert_eq!(inbox.take(SignalSet::default()).map(|i| i.signo()), Some(SIGSEGV));
    }

    #[test]
    fn a_second_signal_of_a_kind_is_not_queued() {
        let inbox = Inbox::default();
        inbox.put(&SigInfo::new(SIGSEGV, -6));
        inbox.put(&SigInfo::new(SIGSEGV, -1));
        assert_eq!(inbox.take(SignalSet::default()).map(|i| i.code()), Some(-6));
        assert_eq!(inbox.take(SignalSet::default()), None);
    }

    #[test]
    fn stale_pages_demand_attention() {
        let inbox = Inbox::default();
        (1..=STALE as u64).for_each(|page| assert!(inbox.put_stale(page << 12)));
        assert!(!inbox.put_stale(0x100_0000));
        assert!(inbox.attention());
        let mut taken: Vec<u64> = std::iter::from_fn(|| inbox.take_stale()).collect();
        taken.sort_unstable();
        assert_eq!(taken, (1..=STALE as u64).map(|page| page << 12).collect::<Vec<_>>());
    }

    #[test]
    fn records_of_a_context() {
        // SAFETY: integers only.
        let mut context: Box<UContext> = unsafe { Box::new(std::mem::zeroed()) };
        let mut put = |at: usize, words: &[u32]| {
            for (i, w) in words.iter().enumerate() {
                context.records[at + 4 * i..at + 4 * i + 4].copy_from_slice(&w.to_ne_bytes());
            }
        };
        put(0, &[FPSIMD_MAGIC, 528, 0x10, 0x20, 7]);
        put(528, &[ESR_MAGIC, 16, 0x24 << 26 | 1 << 6, 0]);
        assert!(context.is_write());
        let host = context.load();
        assert_eq!((host.fpsr, host.fpcr, host.v[0]), (0x10, 0x20, 7));
    }
}
