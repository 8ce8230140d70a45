//! clone(2), clone3(2), fork(2) and vfork(2). Each becomes the host's call with the same flags; what
//! differs is the memory the child's Rust side lives on. With a shared address space it is a
//! new [`Block`], without one it is the copy of the parent's.

use std::mem::offset_of;
use std::sync::Arc;

use translator::state::{CpuState, reg};

use crate::abi::errno;
use crate::alloc;
use crate::guest;
use crate::host::{self, Errno, SysResult};
use crate::jit_dump;
use crate::perf_map;
use crate::runtime::Runtime;
use crate::seccomp::threads;
use crate::signal::{self, AltStack, SignalSet};
use crate::table::host as nr;
use crate::task::Task;
use crate::thread::Block;

const CLONE_VM: u64 = libc::CLONE_VM as u64;
const CLONE_SIGHAND: u64 = libc::CLONE_SIGHAND as u64;
const CLONE_PIDFD: u64 = libc::CLONE_PIDFD as u64;
const CLONE_VFORK: u64 = libc::CLONE_VFORK as u64;
const CLONE_SETTLS: u64 = libc::CLONE_SETTLS as u64;
const CLONE_PARENT_SETTID: u64 = libc::CLONE_PARENT_SETTID as u64;
const CLONE_CLEAR_SIGHAND: u64 = 1 << 32;
const CLONE_INTO_CGROUP: u64 = 1 << 33;
/// A flag of clone3(2) where clone(2) has the exit signal.
const CLONE_NEWTIME: u64 = 0x80;
/// The part of clone(2)'s flags that is the exit signal.
const CSIGNAL: u64 = 0xff;

/// `struct clone_args`, the same on both architectures.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

// SAFETY: eleven integers.
unsafe impl guest::Pod for CloneArgs {}

/// CLONE_ARGS_SIZE_VER0, the first published size.
const CLONE_ARGS_MIN: usize = offset_of!(CloneArgs, set_tid);
const _: () = assert!(size_of::<CloneArgs>() == 88 && CLONE_ARGS_MIN == 64);

impl CloneArgs {
    /// The arguments of clone(2), which gives the stack by its top.
    fn of_clone([flags, stack, parent_tid, child_tid, tls]: [u64; 5]) -> Self {
        let flags_only = flags & 0xffff_ffff & !CSIGNAL;
        let (pidfd, parent_tid) = match flags_only & CLONE_PIDFD {
            0 => (0, parent_tid),
            // clone(2) has one argument for both.
            _ => (parent_tid, parent_tid),
        };
        Self {
            flags: flags_only,
            pidfd,
            child_tid,
            parent_tid,
            exit_signal: flags & CSIGNAL,
            stack,
            tls,
            ..Self::default()
        }
        .for_kernel()
    }

    /// clone3(2)'s structure of `size` bytes at `addr`.
    fn read(addr: u64, size: u64) -> Result<Self, Errno> {
        if size > 4096 {
            return Err(errno::E2BIG);
        }
        if (size as usize) < CLONE_ARGS_MIN {
            return Err(errno::EINVAL);
        }
        let mut bytes = [0; size_of::<Self>()];
        let known = (size as usize).min(bytes.len());
        guest::read_bytes(addr, &mut bytes[..known])?;
        // What a newer structure has beyond must be zero (copy_struct_from_user).
        for at in addr + known as u64..addr + size {
            if guest::read::<u8>(at)? != 0 {
                return Err(errno::E2BIG);
            }
        }
        // SAFETY: integers; any bytes are valid.
        let args: Self = unsafe { std::ptr::read_unaligned(bytes.as_ptr().cast()) };
        Ok(args.for_kernel())
    }

    /// With the addresses that the kernel writes to, or reads from, as it gets them.
    fn for_kernel(self) -> Self {
        let [pidfd, child_tid, parent_tid, set_tid] =
            [self.pidfd, self.child_tid, self.parent_tid, self.set_tid].map(guest::for_kernel);
        Self { pidfd, child_tid, parent_tid, set_tid, ..self }
    }

    /// What the kernel refuses of clone3(2)'s structure of `size` bytes for the sake of what is not given to it as it
    /// is (clone3_args_valid and copy_clone_args_from_user in kernel/fork.c).
    fn check(&self, size: u64) -> Result<(), Errno> {
        let stack = match (self.stack, self.stack_size) {
            (0, 0) => true,
            (0, _) | (_, 0) => false,
            (stack, size) => guest::range_for_kernel(stack, size) == stack,
        };
        let signal = self.flags & CSIGNAL & !CLONE_NEWTIME == 0 && self.exit_signal <= CSIGNAL;
        // A structure without the member cannot ask for it.
        let cgroup = self.flags & CLONE_INTO_CGROUP == 0 || size >= size_of::<Self>() as u64;
        if stack && signal && cgroup { Ok(()) } else { Err(errno::EINVAL) }
    }

    fn is(&self, flag: u64) -> bool {
        self.flags & flag != 0
    }

    /// The guest's stack pointer in the child, if it gets one of its own.
    fn child_sp(&self) -> Option<u64> {
        (self.stack != 0).then(|| self.stack.wrapping_add(self.stack_size))
    }

    /// Whether clone(2) can say the same.
    fn fits_clone(&self) -> bool {
        let one_word =
            !self.is(CLONE_PIDFD) || !self.is(CLONE_PARENT_SETTID) || self.pidfd == self.parent_tid;
        let few = self.flags >> 32 == 0 && self.flags & CSIGNAL == 0;
        few && self.set_tid_size == 0 && self.exit_signal <= CSIGNAL && one_word
    }

    /// arm64's clone(2): flags, stack, parent_tid, tls, child_tid.
    fn for_clone(&self, stack: u64, tls: u64) -> [u64; 5] {
        let parent_tid = if self.is(CLONE_PIDFD) { self.pidfd } else { self.parent_tid };
        [self.flags | self.exit_signal, stack, parent_tid, tls, self.child_tid]
    }
}

/// clone(2), with x86_64's order of arguments.
pub fn clone(
    task: &mut Task,
    [flags, stack, parent_tid, child_tid, tls, _]: [u64; 6],
) -> SysResult {
    create(task, CloneArgs::of_clone([flags, stack, parent_tid, child_tid, tls]), false)
}

/// fork(2).
pub fn fork(task: &mut Task, _: [u64; 6]) -> SysResult {
    create(task, CloneArgs { exit_signal: libc::SIGCHLD as u64, ..CloneArgs::default() }, false)
}

/// vfork(2).
pub fn vfork(task: &mut Task, _: [u64; 6]) -> SysResult {
    let flags = CLONE_VFORK | CLONE_VM;
    create(
        task,
        CloneArgs { flags, exit_signal: libc::SIGCHLD as u64, ..CloneArgs::default() },
        false,
    )
}

/// clone3(2).
pub fn clone3(task: &mut Task, [addr, size, ..]: [u64; 6]) -> SysResult {
    let args = CloneArgs::read(addr, size)?;
    args.check(size)?;
    create(task, args, true)
}

/// Makes the child, with all signals blocked meanwhile so that it meets none before it is ready.
fn create(task: &mut Task, mut args: CloneArgs, modern: bool) -> SysResult {
    let runtime = task.runtime();
    if !runtime.options.runner.is_empty() && args.is(CLONE_VFORK) {
        // The emulator that runs us makes a fork of it: so must we, with our locks in order.
        args.flags &= !(CLONE_VFORK | CLONE_VM);
    }
    signal::set_host_mask(SignalSet::ALL);
    let result = if task.inbox.attention() {
        Err(Errno::RESTART)
    } else if args.is(CLONE_VM) {
        share(task, runtime, &args, modern)
    } else {
        copy(task, runtime, &args, modern)
    };
    if result != Err(Errno::RESTART) {
        signal::set_host_mask(task.mask.for_host());
    }
    result
}

/// The guest's registers as the child starts with them.
fn set_up_child(cpu: &mut CpuState, args: &CloneArgs) {
    cpu.gpr[reg::RAX] = 0;
    if let Some(sp) = args.child_sp() {
        cpu.gpr[reg::RSP] = sp;
    }
    if args.is(CLONE_SETTLS) {
        cpu.set_fs_base(args.tls);
    }
}

/// A child with an address space of its own: it goes on from here, on its copy of this stack.
fn copy(task: &mut Task, runtime: &'static Runtime, args: &CloneArgs, modern: bool) -> SysResult {
    // The processor's TLS register stays; the guest's is in its state.
    let host =
        CloneArgs { flags: args.flags & !CLONE_SETTLS, stack: 0, stack_size: 0, tls: 0, ..*args };
    // Nobody may be in the middle of a change to what the child inherits.
    let actions = task.actions.clone();
    let table = actions.lock();
    let mut engine = runtime.engine.lock_for_fork(&mut task.cpu);
    let mut memory = runtime.memory.lock();
    let threads = threads::hold();
    let heap = alloc::lock();
    let result = call_host(&host, modern, |nr, args| {
        // SAFETY: without CLONE_VM the child has its own copy of everything.
        host::result(unsafe { host::syscall(nr, [args[0], args[1], args[2], args[3], args[4], 0]) })
    });
    drop(heap);
    match result {
        Ok(0) => {
            threads.in_child(&task.seccomp);
            memory.rings.in_child();
        }
        _ => drop(threads),
    }
    drop(memory);
    if result == Ok(0) {
        engine.in_child(&mut task.cpu);
    }
    drop(engine);
    drop(table);
    if result == Ok(0) {
        runtime.memory.in_child();
        enter_child(task, args);
    }
    result
}

/// What is different in a forked child.
fn enter_child(task: &mut Task, args: &CloneArgs) {
    task.identify();
    perf_map::forked(std::os::unix::process::parent_id());
    jit_dump::forked();
    // Its memory is its own now, whoever lent it to the parent.
    task.borrowed = false;
    task.robust_list = 0;
    set_up_child(&mut task.cpu, args);
    if args.is(CLONE_CLEAR_SIGHAND) {
        task.actions.clear();
    }
}

/// A child in the same address space: a thread, a vfork(2) child, or something between.
fn share(task: &mut Task, runtime: &'static Runtime, args: &CloneArgs, modern: bool) -> SysResult {
    if !args.is(CLONE_VFORK) {
        runtime.require_order();
    }
    let block = Block::new().map_err(|_| errno::ENOMEM)?;
    let actions =
        if args.is(CLONE_SIGHAND) { task.actions.clone() } else { Arc::new(task.actions.copy()) };
    let mut child = Task::new(copy_processor(&task.cpu), actions);
    runtime.engine.attach(&mut child.cpu).map_err(|_| errno::ENOMEM)?;
    set_up_child(&mut child.cpu, args);
    child.mask = task.mask;
    child.personality = task.personality;
    child.seccomp = task.seccomp.child();
    child.borrowed = args.is(CLONE_VFORK);
    child.alt_stack = if args.is(CLONE_VFORK) { task.alt_stack } else { AltStack::DISABLED };
    if args.is(CLONE_CLEAR_SIGHAND) {
        child.actions.clear();
    }
    let (base, top, tls) = (block.stack_base(), block.stack(), block.thread_pointer());
    let host = CloneArgs {
        flags: args.flags | CLONE_SETTLS,
        stack: base,
        stack_size: top - base,
        tls,
        ..*args
    };
    child.block = Some(block);
    let child = Box::into_raw(child);
    let result = call_host(&host, modern, |nr, args| {
        // SAFETY: the child is alive until the thread ends, or until the parent comes back from vfork(2).
        let block = unsafe { (*child).block.as_ref() }.expect("set above");
        // SAFETY: CLONE_VM and CLONE_SETTLS are among the flags.
        unsafe { block.spawn(nr, args, child) }
    });
    if result.is_err() || args.is(CLONE_VFORK) {
        // SAFETY: there is no child, or it has left this address space.
        let mut child = unsafe { Box::from_raw(child) };
        runtime.engine.detach(&mut child.cpu);
    }
    result
}

/// Makes the call in its modern form, or in the old one where the kernel lacks that.
fn call_host(
    args: &CloneArgs,
    modern: bool,
    call: impl Fn(u64, [u64; 5]) -> SysResult,
) -> SysResult {
    if modern {
        let size = size_of::<CloneArgs>() as u64;
        let result = call(nr::clone3, [std::ptr::from_ref(args) as u64, size, 0, 0, 0]);
        if result != Err(errno::ENOSYS) || !args.fits_clone() {
            return result;
        }
    }
    call(nr::clone, args.for_clone(args.child_sp().unwrap_or(0), args.tls))
}

/// A processor in the same state, not attached to the translator yet.
fn copy_processor(from: &CpuState) -> Box<CpuState> {
    let mut cpu = CpuState::new();
    cpu.gpr = from.gpr;
    cpu.rip = from.rip;
    cpu.nzcv = from.nzcv;
    cpu.pf = from.pf;
    cpu.af = from.af;
    cpu.df = from.df;
    cpu.other_flags = from.other_flags;
    cpu.fs_base = from.fs_base;
    cpu.gs_base = from.gs_base;
    cpu.selectors = from.selectors;
    cpu.xmm = from.xmm;
    cpu.ymm_high = from.ymm_high;
    cpu.x87 = from.x87;
    cpu.mxcsr = from.mxcsr;
    cpu.no_tsc = from.no_tsc;
    cpu
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn address() -> impl Strategy<Value = u64> {
        0..1u64 << 47
    }

    proptest! {
        #[test]
        fn both_orders_of_arguments_say_the_same(
            flags: u32, stack in address(), parent_tid in address(), child_tid in address(), tls: u64,
        ) {
            let args = CloneArgs::of_clone([flags.into(), stack, parent_tid, child_tid, tls]);
            prop_assert!(args.fits_clone());
            let host = args.for_clone(args.child_sp().unwrap_or(0), args.tls);
            prop_assert_eq!(host, [flags.into(), stack, parent_tid, tls, child_tid]);
        }

        #[test]
        fn structures_of_any_size_are_read(words: [u64; 11], size in 64u64..200) {
            let mut all = [0u64; 25];
            all[..11].copy_from_slice(&words);
            let args = CloneArgs::read(all.as_ptr() as u64, size).unwrap();
            let known = size.min(88) as usize;
            let bytes = |words: &[u64]| words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<_>>();
            let mut wanted = bytes(&words)[..known].to_vec();
            wanted.resize(88, 0);
            // SAFETY: eleven integers.
            let seen: [u64; 11] = unsafe { std::mem::transmute(args) };
            for (i, chunk) in wanted.chunks_exact(8).enumerate() {
                let word = u64::from_ne_bytes(chunk.try_into().unwrap());
                // pidfd, child_tid, parent_tid, set_tid
                let is_address = matches!(i, 1 | 2 | 3 | 8);
                prop_assert_eq!(seen[i], if is_address { guest::for_kernel(word) } else { word });
            }
        }
    }

    #[test]
    fn clone_in_the_order_of_each_architecture() {
        let flags = CLONE_VM | CLONE_SETTLS | CLONE_PARENT_SETTID;
        let args = CloneArgs::of_clone([flags | 17, 0x1000, 2, 3, 4]);
        assert_eq!(args.child_sp(), Some(0x1000));
        assert!(args.fits_clone());
        assert_eq!(args.for_clone(0x9000, 8), [flags | 17, 0x9000, 2, 8, 3]);
        let pidfd = CloneArgs::of_clone([CLONE_PIDFD | 17, 0, 5, 0, 0]);
        assert_eq!(pidfd.pidfd, 5);
        assert_eq!(pidfd.for_clone(0, 0)[2], 5);
    }

    #[test]
    fn clone3_structures_of_all_sizes() {
        let mut words = [0u64; 13];
        words[0] = CLONE_VM;
        words[4] = 17;
        words[10] = 9;
        let at = words.as_ptr() as u64;
        assert_eq!(CloneArgs::read(at, 63), Err(errno::EINVAL));
        assert_eq!(CloneArgs::read(at, 64).unwrap().cgroup, 0);
        assert_eq!(CloneArgs::read(at, 88).unwrap().cgroup, 9);
        assert_eq!(CloneArgs::read(at, 104).unwrap().exit_signal, 17);
        let mut longer = words;
        longer[12] = 1;
        assert_eq!(CloneArgs::read(longer.as_ptr() as u64, 104), Err(errno::E2BIG));
        assert_eq!(CloneArgs::read(at, 5000), Err(errno::E2BIG));
    }

    #[test]
    fn clone3_structures_that_are_refused() {
        let good =
            CloneArgs { flags: CLONE_VM | CLONE_NEWTIME, exit_signal: 17, ..CloneArgs::default() };
        let check = |args: CloneArgs| args.check(size_of::<CloneArgs>() as u64);
        assert_eq!(check(good), Ok(()));
        assert_eq!(check(CloneArgs { stack: 0x10000, stack_size: 0x1000, ..good }), Ok(()));
        for bad in [
            CloneArgs { stack: 0x10000, ..good },
            CloneArgs { stack_size: 0x1000, ..good },
            CloneArgs { stack: 1 << 47, stack_size: 0x1000, ..good },
            CloneArgs { stack: (1 << 47) - 16, stack_size: 0x1000, ..good },
            CloneArgs { exit_signal: 0x100, ..good },
            CloneArgs { flags: 17, ..good },
        ] {
            assert_eq!(check(bad), Err(errno::EINVAL), "{bad:?}");
        }
        let cgroup = CloneArgs { flags: CLONE_INTO_CGROUP, ..good };
        assert_eq!((cgroup.check(80), cgroup.check(88)), (Err(errno::EINVAL), Ok(())));
    }

    #[test]
    fn the_translators_memory_is_not_written_to() {
        let args = CloneArgs::of_clone([CLONE_PIDFD | 17, 0, 1 << 47, 0xaaaa_0000_0000, 0]);
        for addr in [args.pidfd, args.parent_tid, args.child_tid] {
            assert!(addr >= 0xffff << 48);
        }
    }

    #[test]
    fn what_only_clone3_can_say() {
        let plain = CloneArgs { exit_signal: 17, ..CloneArgs::default() };
        assert!(plain.fits_clone());
        assert!(!CloneArgs { flags: CLONE_CLEAR_SIGHAND, ..plain }.fits_clone());
        assert!(!CloneArgs { set_tid_size: 1, ..plain }.fits_clone());
        assert!(!CloneArgs { flags: CLONE_NEWTIME, ..plain }.fits_clone());
        let both = CloneArgs {
            flags: CLONE_PIDFD | CLONE_PARENT_SETTID,
            pidfd: 8,
            parent_tid: 16,
            ..plain
        };
        assert!(!both.fits_clone());
    }
}
