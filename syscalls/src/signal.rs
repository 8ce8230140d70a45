//! Signals: the guest's dispositions and masks, delivery, and the system calls about them.
//! How signals arrive is `interrupt`'s subject, the frame on the guest's stack `sigframe`'s.

use std::sync::{Mutex, MutexGuard, PoisonError};

use translator::state::{Fault, reg};

use crate::guest;
use crate::host::{self, Errno, SysResult};
use crate::interrupt::{self, SigInfo};
use crate::memmap::EXEC;
use crate::sigframe::{Frame, Setup, Stack, Trap, XState};
use crate::strace;
use crate::table::host as nr;
use crate::task::Task;

/// Signal numbers are the same on both architectures.
pub const SIGILL: i32 = libc::SIGILL;
#[allow(missing_docs)]
pub const SIGTRAP: i32 = libc::SIGTRAP;
#[allow(missing_docs)]
pub const SIGBUS: i32 = libc::SIGBUS;
#[allow(missing_docs)]
pub const SIGFPE: i32 = libc::SIGFPE;
#[allow(missing_docs)]
pub const SIGSEGV: i32 = libc::SIGSEGV;

/// Number of signals.
const NSIG: i32 = 64;
const SIG_DFL: u64 = 0;
const SIG_IGN: u64 = 1;

const SA_SIGINFO: u64 = libc::SA_SIGINFO as u64;
const SA_ONSTACK: u64 = libc::SA_ONSTACK as u64;
const SA_NODEFER: u64 = libc::SA_NODEFER as u64;
const SA_RESETHAND: u64 = 0x8000_0000;
const SA_RESTORER: u64 = 0x0400_0000;
const SA_EXPOSE_TAGBITS: u64 = 0x800;
/// Flags that have their effect in the host's kernel.
const HOST_FLAGS: u64 = (libc::SA_RESTART | libc::SA_NOCLDSTOP | libc::SA_NOCLDWAIT) as u64;
/// Flags that rt_sigaction(2) keeps.
const KNOWN_FLAGS: u64 = HOST_FLAGS
    | SA_SIGINFO
    | SA_ONSTACK
    | SA_NODEFER
    | SA_RESETHAND
    | SA_RESTORER
    | SA_EXPOSE_TAGBITS;

const SS_ONSTACK: i32 = 1;
const SS_DISABLE: i32 = 2;
const SS_AUTODISARM: i32 = 1 << 31;
/// MINSIGSTKSZ of x86_64.
const MINSIGSTKSZ: u64 = 2048;

const EINVAL: Errno = Errno(libc::EINVAL);

/// A set of signals, as `sigset_t`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SignalSet(pub u64);

impl SignalSet {
    /// Every signal.
    pub const ALL: Self = Self(!0);

    const fn bit(signo: i32) -> u64 {
        1 << (signo - 1)
    }

    /// Whether a signal is in the set.
    pub fn contains(self, signo: i32) -> bool {
        self.0 & Self::bit(signo) != 0
    }

    /// Adds a signal.
    pub fn add(&mut self, signo: i32) {
        self.0 |= Self::bit(signo);
    }

    /// Takes a signal out.
    pub fn remove(&mut self, signo: i32) {
        self.0 &= !Self::bit(signo);
    }

    /// A mask as a guest may set it: SIGKILL and SIGSTOP are never blocked.
    fn of_guest(bits: u64) -> Self {
        Self(bits & !(Self::bit(libc::SIGKILL) | Self::bit(libc::SIGSTOP)))
    }

    /// What the host thread's mask is for this mask of the guest: the signals of memory faults
    /// stay open, since the translator needs them.
    pub fn for_host(self) -> Self {
        Self(self.0 & !(Self::bit(SIGSEGV) | Self::bit(SIGBUS)))
    }
}

/// `struct sigaction` as the kernel has it, the same on both architectures.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Action {
    handler: u64,
    flags: u64,
    restorer: u64,
    mask: u64,
}

// SAFETY: four integers.
unsafe impl guest::Pod for Action {}

/// The dispositions of a process.
pub struct Actions(Mutex<[Action; NSIG as usize]>);

impl Actions {
    /// The dispositions the host process has now: what was ignored stays ignored over execve(2).
    pub fn inherited() -> Self {
        let mut table = [Action::default(); NSIG as usize];
        for signo in 1..=NSIG {
            let mut old = Action::default();
            let args = [signo as u64, 0, &raw mut old as u64, 8, 0, 0];
            // SAFETY: the kernel writes one struct.
            let result = unsafe { host::syscall(nr::rt_sigaction, args) };
            if result == 0 && old.handler == SIG_IGN {
                table[signo as usize - 1] = Action { handler: SIG_IGN, ..Action::default() };
            }
        }
        Self(Mutex::new(table))
    }

    /// A copy, for a process that does not share them.
    pub fn copy(&self) -> Self {
        Self(Mutex::new(*self.lock()))
    }

    /// CLONE_CLEAR_SIGHAND: what was handled has the default again. The kernel has done so on the host,
    /// and with it to the translator's own handlers.
    pub(crate) fn clear(&self) {
        let mut table = self.lock();
        for action in table.iter_mut().filter(|action| action.handler > SIG_IGN) {
            *action = Action::default();
        }
        install_own(&table);
    }

    /// The lock; also for fork to hold.
    pub fn lock(&self) -> MutexGuard<'_, [Action; NSIG as usize]> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, signo: i32) -> Action {
        self.lock()[signo as usize - 1]
    }
}

/// The guest's sigaltstack(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AltStack {
    sp: u64,
    size: u64,
    flags: i32,
}

impl AltStack {
    /// That of a program: none, which has not been asked for either.
    pub const NONE: Self = Self { sp: 0, size: 0, flags: 0 };
    /// That of a thread: none.
    pub const DISABLED: Self = Self { sp: 0, size: 0, flags: SS_DISABLE };

    /// Whether a stack pointer is on it (on_sig_stack in include/linux/sched/signal.h).
    fn is_on(&self, sp: u64) -> bool {
        self.flags & SS_AUTODISARM == 0 && self.within(sp)
    }

    fn within(&self, sp: u64) -> bool {
        sp > self.sp && sp - self.sp <= self.size
    }

    /// As sigaltstack(2) reports it.
    fn report(&self, sp: u64) -> Stack {
        let state = match self.size {
            0 => SS_DISABLE,
            _ if self.is_on(sp) => SS_ONSTACK,
            _ => 0,
        };
        Stack { sp: self.sp, flags: state | self.flags & SS_AUTODISARM, pad: 0, size: self.size }
    }

    fn set(&mut self, stack: &Stack, sp: u64) -> Result<(), Errno> {
        if self.is_on(sp) {
            return Err(Errno(libc::EPERM));
        }
        let wanted = Self { sp: stack.sp, size: stack.size, flags: stack.flags };
        match stack.flags & !SS_AUTODISARM {
            SS_DISABLE => *self = Self { flags: stack.flags, ..Self::DISABLED },
            // Nothing changes, whatever its size is (do_sigaltstack).
            0 | SS_ONSTACK if *self == wanted => {}
            0 | SS_ONSTACK if stack.size < MINSIGSTKSZ => return Err(Errno(libc::ENOMEM)),
            0 | SS_ONSTACK => *self = wanted,
            _ => return Err(EINVAL),
        }
        Ok(())
    }
}

/// Sets the host's disposition of a signal.
fn set_host_action(signo: i32, action: Action) {
    let args = [signo as u64, &raw const action as u64, 0, 8, 0, 0];
    // SAFETY: the kernel reads one struct; the handler is the one made for it.
    unsafe { host::syscall(nr::rt_sigaction, args) };
}

/// Makes the host's disposition what the guest's asks for.
fn install(signo: i32, action: &Action) {
    let told = strace::enabled() && action.handler == SIG_DFL && ends_process(signo);
    let ours = action.handler > SIG_IGN || matches!(signo, SIGSEGV | SIGBUS) || told;
    let handler = if ours { interrupt::handler as *const () as u64 } else { action.handler };
    let flags = if ours { SA_SIGINFO | SA_ONSTACK } else { 0 };
    let mask = if ours { SignalSet::ALL.for_host().0 } else { 0 };
    set_host_action(
        signo,
        Action { handler, flags: flags | action.flags & HOST_FLAGS, restorer: 0, mask },
    );
}

/// Gives the host's disposition of a signal back to the kernel's default. Async-signal-safe.
pub(crate) fn reset_host(signo: i32) {
    set_host_action(signo, Action::default());
}

/// Sets the host thread's mask; the old one. Async-signal-safe.
pub(crate) fn set_host_mask(mask: SignalSet) -> SignalSet {
    let mut old = SignalSet::default();
    let args = [libc::SIG_SETMASK as u64, &raw const mask as u64, &raw mut old as u64, 8, 0, 0];
    // SAFETY: the kernel reads and writes one word each.
    unsafe { host::syscall(nr::rt_sigprocmask, args) };
    old
}

/// Sets up the first task of a process: the mask it inherited and the handlers the translator always has.
pub(crate) fn start(task: &mut Task) {
    task.mask = set_host_mask(SignalSet::ALL);
    install_own(&task.actions.lock());
    set_host_mask(task.mask.for_host());
}

/// Whether a signal's default action is the end of the process, which a handler can see coming (signal(7)).
fn ends_process(signo: i32) -> bool {
    !matches!(
        signo,
        libc::SIGKILL
            | libc::SIGSTOP
            | libc::SIGTSTP
            | libc::SIGTTIN
            | libc::SIGTTOU
            | libc::SIGCHLD
            | libc::SIGCONT
            | libc::SIGURG
            | libc::SIGWINCH
    )
}

/// Installs the handlers that the translator has whatever the guest's dispositions are.
fn install_own(table: &[Action; NSIG as usize]) {
    let watched = |signo: &i32| matches!(*signo, SIGSEGV | SIGBUS) || strace::enabled();
    for signo in (1..=NSIG).filter(watched) {
        let action = &table[signo as usize - 1];
        if matches!(signo, SIGSEGV | SIGBUS) || action.handler == SIG_DFL && ends_process(signo) {
            install(signo, action);
        }
    }
}

/// Delivers what has arrived.
pub(crate) fn deliver(task: &mut Task) {
    loop {
        while let Some(page) = task.inbox.take_stale() {
            task.runtime().memory.unwatch(page..page + 1);
        }
        while let Some(info) = task.inbox.take(task.mask) {
            handle(task, &info);
        }
        if let Some(mask) = task.saved_mask.take() {
            task.mask = mask;
        }
        // Others have waited on the host until these had their place.
        if open_host_mask(task).is_ok() {
            return;
        }
    }
}

/// Gives the host's thread the guest's mask, unless a signal has arrived: then `deliver` will.
fn open_host_mask(task: &Task) -> SysResult {
    let host = task.mask.for_host();
    let args = [libc::SIG_SETMASK as u64, &raw const host as u64, 0, 8, 0, 0];
    interrupt::call(&task.inbox, nr::rt_sigprocmask, &args)
}

/// Makes the host's mask and dispositions those that the next program inherits, unless a signal came before.
pub(crate) fn before_exec(task: &mut Task) -> Result<(), Errno> {
    let args = [libc::SIG_SETMASK as u64, &raw const task.mask as u64, 0, 8, 0, 0];
    interrupt::call(&task.inbox, nr::rt_sigprocmask, &args)?;
    for signo in [SIGSEGV, SIGBUS] {
        if task.actions.get(signo).handler == SIG_IGN {
            set_host_action(signo, Action { handler: SIG_IGN, ..Action::default() });
        }
    }
    Ok(())
}

/// Takes back what [`before_exec`] did.
pub(crate) fn after_failed_exec(task: &mut Task) {
    install_own(&task.actions.lock());
    let _ = open_host_mask(task);
}

/// Does what the guest's disposition says.
fn handle(task: &mut Task, info: &SigInfo) {
    let signo = info.signo();
    if strace::enabled() {
        strace::signal(task, info);
    }
    let action = {
        let mut table = task.actions.lock();
        let entry = &mut table[signo as usize - 1];
        let action = *entry;
        if action.handler > SIG_IGN && action.flags & SA_RESETHAND != 0 {
            entry.handler = SIG_DFL;
            install(signo, entry);
        }
        action
    };
    match action.handler {
        SIG_IGN => {}
        SIG_DFL => default_action(task, info),
        _ => {
            if enter_handler(task, info, &action).is_err() {
                // The frame does not fit (force_sigsegv).
                if signo == SIGSEGV {
                    die(SIGSEGV);
                }
                force(task, &SigInfo::new(SIGSEGV, SI_KERNEL));
            }
        }
    }
}

/// Pushes the frame and changes the mask.
fn enter_handler(task: &mut Task, info: &SigInfo, action: &Action) -> Result<(), Errno> {
    let sp = task.cpu.gpr[reg::RSP];
    let stack = task.alt_stack;
    let switch_stack = action.flags & SA_ONSTACK != 0 && stack.size != 0 && !stack.within(sp);
    let setup = Setup {
        info: *info,
        handler: action.handler,
        restorer: action.restorer,
        mask: task.saved_mask.unwrap_or(task.mask).0,
        stack: stack.report(sp),
        switch_stack,
        trap: task.trap,
    };
    let (at, frame, xstate_at) = Frame::build(&task.cpu, &setup);
    if !switch_stack && stack.is_on(sp) && !stack.within(at) {
        // An overflow of the alternate stack is not to go on below it (get_sigframe).
        return Err(Errno(libc::EFAULT));
    }
    guest::write(xstate_at, &XState::capture(&task.cpu))?;
    guest::write(at, &frame)?;
    Frame::enter(&mut task.cpu, &setup, at);
    if stack.flags & SS_AUTODISARM != 0 {
        task.alt_stack = AltStack::DISABLED;
    }
    task.saved_mask = None;
    let mut mask = SignalSet::of_guest(task.mask.0 | action.mask);
    if action.flags & SA_NODEFER == 0 {
        mask.add(info.signo());
    }
    task.mask = mask;
    Ok(())
}

/// The default action, taken by the kernel itself so that its effects are true.
fn default_action(task: &mut Task, info: &SigInfo) {
    let signo = info.signo();
    if matches!(signo, SIGSEGV | SIGBUS) {
        die(signo);
    }
    // With the host's disposition the default, which it is already unless `--strace` made it ours. Sent again, it
    // is what the guest would have got.
    if strace::enabled() && ends_process(signo) {
        strace::killed(task.tid, signo);
        reset_host(signo);
    }
    let args = [task.pid as u64, task.tid as u64, signo as u64, info.0.as_ptr() as u64, 0, 0];
    // SAFETY: the kernel reads one siginfo.
    unsafe { host::syscall(nr::rt_tgsigqueueinfo, args) };
}

/// Ends the process by a signal, so that its parent sees which.
pub(crate) fn die(signo: i32) -> ! {
    // SAFETY: gettid(2) touches no memory.
    strace::killed(unsafe { host::syscall(nr::gettid, [0; 6]) as i32 }, signo);
    crate::runtime::runtime().report();
    reset_host(signo);
    set_host_mask(SignalSet::default());
    // SAFETY: getpid, gettid, tgkill and exit_group touch no memory.
    unsafe {
        let pid = host::syscall(nr::getpid, [0; 6]) as u64;
        let tid = host::syscall(nr::gettid, [0; 6]) as u64;
        host::syscall(nr::tgkill, [pid, tid, signo as u64, 0, 0, 0]);
        loop {
            host::syscall(nr::exit_group, [128 + signo as u64, 0, 0, 0, 0, 0]);
        }
    }
}

/// `si_code` of a signal raised by the kernel without more to say.
const SI_KERNEL: i32 = 0x80;

/// A signal that an instruction of this thread caused: it cannot be put off (force_sig_info).
pub(crate) fn force(task: &mut Task, info: &SigInfo) {
    let signo = info.signo();
    if task.mask.contains(signo) || task.actions.get(signo).handler <= SIG_IGN {
        if strace::enabled() {
            strace::signal(task, info);
        }
        die(signo);
    }
    handle(task, info);
    let _ = open_host_mask(task);
}

/// A memory fault of translated code.
pub(crate) fn memory_fault(task: &mut Task, fault: Fault) {
    const PAGE_FAULT: u64 = 14;
    const GENERAL_PROTECTION: u64 = 13;
    const STACK_SEGMENT: u64 = 12;
    let mut signo = fault.signo as i32;
    // A non-canonical address is #GP, or #SS in the stack segment, without the address (Intel SDM vol. 1,
    // 3.3.7.1).
    if signo == SIGSEGV && !matches!((fault.addr as i64) >> 47, 0 | -1) {
        let (number, signo) =
            if fault.stack != 0 { (STACK_SEGMENT, SIGBUS) } else { (GENERAL_PROTECTION, SIGSEGV) };
        task.trap = Trap { number, error: 0, cr2: task.trap.cr2 };
        return force(task, &SigInfo::new(signo, SI_KERNEL));
    }
    let fetch = fault.write == 0 && fault.addr == task.cpu.rip;
    let mut code = fault.code;
    if fetch && let Some(prot) = task.runtime().memory.protection(fault.addr) {
        // What stopped the fetch only the guest's map knows.
        (signo, code) =
            if prot & EXEC == 0 { (SIGSEGV, SEGV_ACCERR) } else { (SIGBUS, BUS_ADRERR) };
    }
    // A page that nothing may touch counts as not present (arch/x86: pte_protnone).
    let untouchable = task.runtime().memory.protection(fault.addr).is_some_and(|p| p == 0);
    // What lies above counts as the kernel's (arch/x86/mm/fault.c: sanitize_error_code).
    let protection =
        signo == SIGSEGV && code == SEGV_ACCERR && !untouchable || fault.addr >= TASK_SIZE;
    // Error code of #PF (Intel SDM vol. 3, 4.7): P, W/R, U/S, I/D.
    let error =
        u64::from(protection) | u64::from(fault.write != 0) << 1 | 4 | u64::from(fetch) << 4;
    task.trap = Trap { number: PAGE_FAULT, error, cr2: fault.addr };
    force(task, &SigInfo::new(signo, code).with_addr(fault.addr));
}

/// End of a program's addresses with four-level page tables.
const TASK_SIZE: u64 = 0x7fff_ffff_f000;
const SEGV_ACCERR: i32 = 2;
const BUS_ADRERR: i32 = 2;

/// A processor exception: the signal the kernel makes of it (arch/x86/kernel/traps.c).
pub(crate) fn exception(task: &mut Task, vector: u8) {
    const FPE_INTDIV: i32 = 1;
    const ILL_ILLOPN: i32 = 2;
    const TRAP_TRACE: i32 = 2;
    let rip = task.cpu.rip;
    let info = match vector {
        0 => SigInfo::new(SIGFPE, FPE_INTDIV).with_addr(rip),
        1 => SigInfo::new(SIGTRAP, TRAP_TRACE).with_addr(rip),
        3 => SigInfo::new(SIGTRAP, SI_KERNEL),
        6 => SigInfo::new(SIGILL, ILL_ILLOPN).with_addr(rip),
        16 => {
            let x87 = &task.cpu.x87;
            SigInfo::new(SIGFPE, float_code(u32::from(x87.sw & !x87.cw))).with_addr(rip)
        }
        19 => {
            let mxcsr = task.cpu.mxcsr;
            SigInfo::new(SIGFPE, float_code(mxcsr & !(mxcsr >> 7))).with_addr(rip)
        }
        // #OF, #GP and what else there may be.
        _ => SigInfo::new(SIGSEGV, SI_KERNEL),
    };
    let error = task.cpu.error_code().into();
    task.trap = Trap { number: u64::from(vector), error, cr2: task.trap.cr2 };
    force(task, &info);
}

/// `si_code` for the unmasked floating-point exceptions (fpu__exception_code).
fn float_code(exceptions: u32) -> i32 {
    const FPE_FLTDIV: i32 = 3;
    const FPE_FLTOVF: i32 = 4;
    const FPE_FLTUND: i32 = 5;
    const FPE_FLTRES: i32 = 6;
    const FPE_FLTINV: i32 = 7;
    match exceptions {
        e if e & 0x01 != 0 => FPE_FLTINV,
        e if e & 0x04 != 0 => FPE_FLTDIV,
        e if e & 0x08 != 0 => FPE_FLTOVF,
        e if e & 0x12 != 0 => FPE_FLTUND,
        e if e & 0x20 != 0 => FPE_FLTRES,
        _ => 0,
    }
}

/// rt_sigaction(2).
pub fn rt_sigaction(task: &mut Task, [signo, new, old, size, ..]: [u64; 6]) -> SysResult {
    let signo = signo as i32;
    let fixed = matches!(signo, libc::SIGKILL | libc::SIGSTOP);
    if size != 8 || !(1..=NSIG).contains(&signo) || (new != 0 && fixed) {
        return Err(EINVAL);
    }
    let action = guest::read_opt::<Action>(new)?;
    let fault = matches!(signo, SIGSEGV | SIGBUS | libc::SIGFPE);
    // Without SA_SIGINFO a handler is given no context that the flags could be seen in.
    let sees = |a: Action| a.handler > SIG_IGN && a.flags & libc::SA_SIGINFO as u64 != 0;
    if fault && action.is_some_and(sees) {
        task.runtime().engine.keep_flags_at_faults();
    }
    let before = {
        let mut table = task.actions.lock();
        let entry = &mut table[signo as usize - 1];
        let before = *entry;
        if let Some(mut action) = action {
            action.flags &= KNOWN_FLAGS;
            action.mask = SignalSet::of_guest(action.mask).0;
            *entry = action;
            install(signo, entry);
        }
        before
    };
    if old != 0 {
        guest::write(old, &before)?;
    }
    Ok(0)
}

/// Changes the guest's mask and the host's with it, unless a signal came before.
fn set_mask(task: &mut Task, mask: SignalSet) -> Result<(), Errno> {
    let before = std::mem::replace(&mut task.mask, mask);
    if let Err(error) = open_host_mask(task) {
        task.mask = before;
        return Err(error);
    }
    task.inbox.recheck();
    Ok(())
}

/// rt_sigprocmask(2).
pub fn rt_sigprocmask(task: &mut Task, [how, set, old, size, ..]: [u64; 6]) -> SysResult {
    if size != 8 {
        return Err(EINVAL);
    }
    let before = task.mask;
    if let Some(set) = guest::read_opt::<u64>(set)? {
        let mask = match how as i32 {
            libc::SIG_BLOCK => before.0 | set,
            libc::SIG_UNBLOCK => before.0 & !set,
            libc::SIG_SETMASK => set,
            _ => return Err(EINVAL),
        };
        set_mask(task, SignalSet::of_guest(mask))?;
    }
    if old != 0 {
        guest::write(old, &before.0)?;
    }
    Ok(0)
}

/// rt_sigpending(2).
pub fn rt_sigpending(task: &mut Task, [set, size, ..]: [u64; 6]) -> SysResult {
    if size > 8 {
        return Err(EINVAL);
    }
    let mut host = SignalSet::default();
    task.host_call(nr::rt_sigpending, [&raw mut host as u64, 8, 0, 0, 0, 0])?;
    let pending = host.0 | task.inbox.pending().0 & task.mask.0;
    guest::write_bytes(set, &pending.to_ne_bytes()[..size as usize])?;
    Ok(0)
}

/// Runs a call that waits with another signal mask. The host's call gets the address of that mask, which is zero if
/// the guest gave none. A signal that ends the wait is delivered with the temporary mask, and
/// its frame goes back to the old one.
pub fn with_mask(
    task: &mut Task,
    mask: u64,
    size: u64,
    call: impl FnOnce(&mut Task, u64) -> SysResult,
) -> SysResult {
    if mask == 0 {
        return call(task, 0);
    }
    if size != 8 {
        return Err(EINVAL);
    }
    let wanted = SignalSet::of_guest(guest::read::<u64>(mask)?);
    let host = wanted.for_host();
    let before = std::mem::replace(&mut task.mask, wanted);
    task.inbox.recheck();
    let result = call(task, &raw const host as u64);
    if result == Err(Errno(libc::EINTR)) && task.inbox.attention() {
        task.saved_mask = Some(before);
    } else {
        task.mask = before;
    }
    result
}

/// rt_sigsuspend(2).
pub fn rt_sigsuspend(task: &mut Task, [mask, size, ..]: [u64; 6]) -> SysResult {
    if mask == 0 {
        return Err(Errno(libc::EFAULT));
    }
    with_mask(task, mask, size, |task, host| {
        task.host_call(nr::rt_sigsuspend, [host, 8, 0, 0, 0, 0])
    })
}

/// pause(2): rt_sigsuspend(2) with the mask as it is.
pub fn pause(task: &mut Task, _: [u64; 6]) -> SysResult {
    let host = task.mask.for_host();
    task.host_call(nr::rt_sigsuspend, [&raw const host as u64, 8, 0, 0, 0, 0])
}

/// rt_sigtimedwait(2).
pub fn rt_sigtimedwait(task: &mut Task, [set, info, timeout, size, ..]: [u64; 6]) -> SysResult {
    if size != 8 {
        return Err(EINVAL);
    }
    let wanted = SignalSet(guest::read::<u64>(set)?);
    // SIGSEGV and SIGBUS are not blocked on the host and wait here.
    if let Some(found) = task.inbox.take(SignalSet(!(wanted.0 & task.mask.0))) {
        if info != 0 {
            guest::write(info, &found)?;
        }
        return Ok(found.signo() as u64);
    }
    task.host_call(nr::rt_sigtimedwait, [set, info, timeout, size, 0, 0])
}

/// sigaltstack(2).
pub fn sigaltstack(task: &mut Task, [new, old, ..]: [u64; 6]) -> SysResult {
    let sp = task.cpu.gpr[reg::RSP];
    let before = task.alt_stack.report(sp);
    if let Some(stack) = guest::read_opt::<Stack>(new)? {
        task.alt_stack.set(&stack, sp)?;
    }
    if old != 0 {
        guest::write(old, &before)?;
    }
    Ok(0)
}

/// rt_sigreturn(2).
pub fn rt_sigreturn(task: &mut Task, _: [u64; 6]) -> SysResult {
    // The handler's `ret` has taken the return address.
    let at = task.cpu.gpr[reg::RSP].wrapping_sub(8);
    let Ok((frame, xstate)) = guest::read::<Frame>(at).and_then(|f| Ok((f, f.xstate()?))) else {
        force(task, &SigInfo::new(SIGSEGV, SI_KERNEL));
        return Ok(task.cpu.gpr[reg::RAX]);
    };
    set_mask(task, SignalSet::of_guest(frame.mask()))?;
    frame.restore(&mut task.cpu);
    xstate.restore(&mut task.cpu);
    // As the kernel's restore_altstack, which ignores what sigaltstack(2) would refuse.
    let _ = task.alt_stack.set(&frame.stack(), task.cpu.gpr[reg::RSP]);
    // The result must not change what was restored.
    Ok(task.cpu.gpr[reg::RAX])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_and_masks() {
        let mut set = SignalSet::default();
        set.add(64);
        set.add(1);
        assert_eq!(set.0, 1 << 63 | 1);
        assert!(set.contains(64) && !set.contains(2));
        set.remove(64);
        assert!(!set.contains(64));
        let mask = SignalSet::of_guest(!0);
        assert!(!mask.contains(libc::SIGKILL) && !mask.contains(libc::SIGSTOP));
        assert!(mask.contains(SIGSEGV) && !mask.for_host().contains(SIGSEGV));
    }

    #[test]
    fn alternate_stack() {
        let mut alt = AltStack::DISABLED;
        let stack = |flags, size| Stack { sp: 0x1000, flags, pad: 0, size };
        assert_eq!(alt.report(0x1800).flags, SS_DISABLE);
        let nothing = Stack { sp: 0, flags: 0, pad: 0, size: 0 };
        assert_eq!(alt.set(&nothing, 0), Err(Errno(libc::ENOMEM)));
        let mut first = AltStack::NONE;
        assert_eq!(first.set(&nothing, 0), Ok(()));
        assert_eq!(first.report(0), alt.report(0));
        assert_eq!(alt.set(&stack(0, 2047), 0), Err(Errno(libc::ENOMEM)));
        assert_eq!(alt.set(&stack(8, 4096), 0), Err(EINVAL));
        assert_eq!(alt.set(&stack(0, 4096), 0), Ok(()));
        assert_eq!(alt.report(0x1001).flags, SS_ONSTACK);
        assert_eq!(alt.report(0x1000).flags, 0);
        assert_eq!(alt.set(&stack(SS_DISABLE, 0), 0x1800), Err(Errno(libc::EPERM)));
        assert_eq!(alt.set(&stack(SS_DISABLE, 0), 0x3000), Ok(()));
        assert_eq!(alt.report(0), Stack { sp: 0, flags: SS_DISABLE, pad: 0, size: 0 });
    }

    #[test]
    fn float_codes_in_the_order_of_the_kernel() {
        assert_eq!([0x3f, 0x3e, 0x3a, 0x12, 0x20, 0].map(float_code), [7, 3, 4, 5, 6, 0]);
    }
}
