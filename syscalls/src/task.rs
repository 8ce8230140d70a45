//! A guest thread.

use std::ops::Range;
use std::sync::Arc;

use translator::state::{CpuState, reg};

use crate::host::{self, Errno, SysResult};
use crate::interrupt::{self, Inbox};
use crate::io_uring;
use crate::memory::EVERYWHERE;
use crate::runtime::{self, Runtime};
use crate::seccomp::threads::Membership;
use crate::sigframe::Trap;
use crate::signal::{Actions, AltStack, SignalSet};
use crate::table::host as nr;
use crate::thread::Block;
use crate::user_dispatch::Dispatch;

/// A guest thread: its processor and what the kernel would keep for it.
pub struct Task {
    /// The processor.
    pub cpu: Box<CpuState>,
    /// gettid(2).
    pub tid: i32,
    /// getpid(2).
    pub pid: i32,
    /// Signals that have arrived and are not delivered yet; the host's handlers write here.
    pub(crate) inbox: Box<Inbox>,
    /// Dispositions, shared with the tasks made with CLONE_SIGHAND.
    pub(crate) actions: Arc<Actions>,
    /// The guest's signal mask.
    pub(crate) mask: SignalSet,
    /// The mask to come back to after the signal that ends an rt_sigsuspend(2), ppoll(2) ...
    pub(crate) saved_mask: Option<SignalSet>,
    /// The guest's alternate signal stack.
    pub(crate) alt_stack: AltStack,
    /// Rings of io_uring(7) that have numbers of this thread.
    pub(crate) rings: io_uring::Registered,
    /// The head of the list of robust futexes.
    pub(crate) robust_list: u64,
    /// The word of personality(2), as the host's kernel has it.
    pub(crate) personality: u32,
    /// The last trap.
    pub(crate) trap: Trap,
    /// System calls that the guest answers itself.
    pub(crate) dispatch: Option<Dispatch>,
    /// Filters of the guest's system calls.
    pub(crate) seccomp: Membership,
    /// Whether `block` and the task itself belong to a parent that waits in vfork(2).
    pub(crate) borrowed: bool,
    /// The line of an execve(2) under way, for `--strace`.
    pub(crate) traced_exec: Option<String>,
    /// Memory of the host thread; none for the first thread of a process.
    pub(crate) block: Option<Block>,
}

impl Task {
    /// A task on the calling host thread.
    pub(crate) fn new(cpu: Box<CpuState>, actions: Arc<Actions>) -> Box<Self> {
        let mut task = Box::new(Self {
            cpu,
            tid: 0,
            pid: 0,
            inbox: Box::default(),
            actions,
            mask: SignalSet::default(),
            saved_mask: None,
            alt_stack: AltStack::NONE,
            rings: io_uring::Registered::default(),
            robust_list: 0,
            personality: 0,
            trap: Trap::default(),
            dispatch: None,
            seccomp: Membership::default(),
            borrowed: false,
            traced_exec: None,
            block: None,
        });
        task.cpu.user = std::ptr::from_mut(&mut *task) as u64;
        task
    }

    /// What all tasks share.
    pub fn runtime(&self) -> &'static Runtime {
        runtime::runtime()
    }

    /// Makes a host system call for the guest. [`Errno::RESTART`] means that a signal came first, or
    /// that the kernel would restart the call after the signal: the caller passes it on.
    /// EFAULT is final only if no page was write-protected because it holds translated code.
    #[inline]
    pub fn host_call(&mut self, nr: u64, args: [u64; 6]) -> SysResult {
        let result = interrupt::call(&self.inbox, nr, &args);
        if result == Err(Errno(libc::EFAULT)) {
            return self.host_call_again(nr, args);
        }
        result
    }

    /// The same once more for a call that has failed with EFAULT, as long as that was for such a page.
    #[cold]
    #[inline(never)]
    fn host_call_again(&mut self, nr: u64, args: [u64; 6]) -> SysResult {
        let mut result = Err(Errno(libc::EFAULT));
        while result == Err(Errno(libc::EFAULT)) && self.may_write_again(EVERYWHERE) {
            result = interrupt::call(&self.inbox, nr, &args);
        }
        result
    }

    /// Whether a write of this thread's, or of the kernel's for it, was refused because of code that was translated.
    pub(crate) fn may_write_again(&self, range: Range<u64>) -> bool {
        self.runtime().memory.may_write_again(range, &self.inbox.watches_seen)
    }

    /// Learns the thread's and the process's ids from the kernel.
    pub(crate) fn identify(&mut self) {
        // SAFETY: getpid(2) and gettid(2) cannot fail and touch no memory.
        let id = |nr: u64| unsafe { host::syscall(nr, [0; 6]) as i32 };
        self.pid = id(nr::getpid);
        self.tid = id(nr::gettid);
        self.seccomp.identify(self.pid, self.tid);
    }

    /// Gives the guest a system call's result.
    pub(crate) fn end_call(&mut self, result: SysResult) {
        self.cpu.gpr[reg::RAX] = match result {
            Ok(value) => value,
            Err(Errno::RESTART) => {
                // Again, from the `syscall` instruction (two bytes) on, after the signal.
                self.cpu.rip -= 2;
                return;
            }
            Err(Errno(errno)) => -i64::from(errno) as u64,
        };
    }
}

#[cfg(test)]
impl Task {
    /// A task that is not part of a running program, to call handlers with.
    pub(crate) fn for_test() -> Box<Self> {
        let mut task = Self::new(CpuState::new(), Actions::inherited().into());
        task.inbox.adopt(&mut task.cpu);
        task
    }
}
