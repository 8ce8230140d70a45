//! io_uring(7): the arm64 kernel's own. The queues lie in the guest's memory, shared with the kernel; what differs
//! between the architectures is in some submission entries ([`entry`]), and those are converted where they lie for as
//! long as the kernel reads them, which it does in io_uring_enter(2) only ([`ring`]).

mod entry;
mod register;
mod ring;

use std::sync::Arc;

use crate::abi::{errno, layout};
use crate::guest;
use crate::host::{Errno, SysResult};
use crate::signal::with_mask;
use crate::table::host as nr;
use crate::task::Task;
use crate::{log, proc_fs};
pub use register::register;
use ring::{Identity, Ring, any_polled};
pub(crate) use ring::{Registered, Rings};

/// Flags of io_uring_setup(2) (linux/io_uring.h).
mod setup_flag {
    pub const IOPOLL: u32 = 1 << 0;
    pub const SQPOLL: u32 = 1 << 1;
    pub const SQ_AFF: u32 = 1 << 2;
    pub const SUBMIT_ALL: u32 = 1 << 7;
    pub const COOP_TASKRUN: u32 = 1 << 8;
    pub const TASKRUN_FLAG: u32 = 1 << 9;
    pub const SQE128: u32 = 1 << 10;
    pub const CQE32: u32 = 1 << 11;
    pub const SINGLE_ISSUER: u32 = 1 << 12;
    pub const DEFER_TASKRUN: u32 = 1 << 13;
    pub const NO_MMAP: u32 = 1 << 14;
    pub const REGISTERED_FD_ONLY: u32 = 1 << 15;
    pub const NO_SQARRAY: u32 = 1 << 16;
    pub const HYBRID_IOPOLL: u32 = 1 << 17;
    /// Those, and the ones that do not matter here, up to IORING_SETUP_CQE_MIXED. A later one may say that entries
    /// are laid out otherwise, as IORING_SETUP_SQE_MIXED does.
    pub const KNOWN: u32 = (1 << 19) - 1;
}

/// Flags of io_uring_enter(2).
mod enter_flag {
    pub const GETEVENTS: u64 = 1 << 0;
    pub const EXT_ARG: u64 = 1 << 3;
    pub const REGISTERED_RING: u64 = 1 << 4;
    pub const EXT_ARG_REG: u64 = 1 << 6;
}

/// Offsets that the queues are mapped at.
const OFF_SQ_RING: u64 = 0;
const OFF_CQ_RING: u64 = 0x800_0000;
const OFF_SQES: u64 = 0x1000_0000;

/// `struct io_sqring_offsets`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueOffsets {
    head: u32,
    tail: u32,
    ring_mask: u32,
    ring_entries: u32,
    flags: u32,
    dropped: u32,
    array: u32,
    resv: u32,
    user_addr: u64,
}
layout!(QueueOffsets, 40, flags @ 16, array @ 24, user_addr @ 32);

impl QueueOffsets {
    /// In `struct io_cqring_offsets`, where completions begin: `cqes`, in the place of `dropped`.
    fn completions(&self) -> u32 {
        self.dropped
    }
}

/// `struct io_uring_params`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Params {
    sq_entries: u32,
    cq_entries: u32,
    flags: u32,
    sq_thread: [u32; 2],
    features: u32,
    wq_fd: u32,
    resv: [u32; 3],
    sq_off: QueueOffsets,
    /// Of `struct io_cqring_offsets`, which is as large, only the address matters here.
    cq_off: QueueOffsets,
}
layout!(Params, 120, flags @ 8, sq_off @ 40, cq_off @ 80);

impl Params {
    /// With the places that the guest gives for the queues, if it does, as the kernel gets them.
    fn place_for_kernel(&mut self, given: bool) {
        for addr in [&mut self.sq_off.user_addr, &mut self.cq_off.user_addr] {
            *addr = if given { guest::for_kernel(*addr) } else { *addr };
        }
    }
}

/// io_uring_setup(2)
pub fn setup(task: &mut Task, [entries, addr, ..]: [u64; 6]) -> SysResult {
    let wanted = guest::read::<Params>(addr)?;
    let mut params = Params { flags: host_flags(wanted.flags)?, ..wanted };
    check_processor(task, &wanted)?;
    params.place_for_kernel(params.flags & setup_flag::NO_MMAP != 0);
    let fd = task.host_call(nr::io_uring_setup, [entries, &raw mut params as u64, 0, 0, 0, 0])?;
    // The kernel writes what the guest reads, and the other way round, without a call in between.
    task.runtime().require_order();
    let is_index = params.flags & setup_flag::REGISTERED_FD_ONLY != 0;
    let polled = wanted.flags & setup_flag::SQPOLL != 0;
    let ring = Ring::new(&params, polled, (!is_index).then_some(fd as i32));
    let written = guest::write(addr, &Params { flags: wanted.flags, ..params });
    match written.and(ring) {
        Ok(ring) if is_index => task.rings.set(task.pid, fd, Some(ring.into())),
        Ok(ring) => {
            let memory = task.runtime().memory;
            memory.rings(|rings, map| rings.add(fd as i32, ring.into(), map));
        }
        Err(error) => {
            if !is_index {
                task.host_call(nr::close, [fd, 0, 0, 0, 0, 0])?;
            }
            return Err(error);
        }
    }
    Ok(fd)
}

/// The flags that the host's ring gets. With IORING_SETUP_SQPOLL a thread of the kernel would read the entries at any
/// time; instead the thread is told to be asleep always, so that the guest wakes it by a call. With IORING_SETUP_IOPOLL
/// the same thread would look for completions: then they come by interrupts.
fn host_flags(flags: u32) -> Result<u32, Errno> {
    use setup_flag::*;
    let unknown = flags & !KNOWN;
    if unknown != 0 {
        log::warn(format_args!("io_uring_setup with flags {unknown:#x} is not supported: EINVAL"));
        return Err(errno::EINVAL);
    }
    if flags & SQPOLL == 0 {
        return Ok(flags);
    }
    // As io_uring_create has it; and nobody would look for completions.
    if flags & (COOP_TASKRUN | TASKRUN_FLAG | DEFER_TASKRUN) != 0 {
        return Err(errno::EINVAL);
    }
    if flags & (IOPOLL | HYBRID_IOPOLL) == HYBRID_IOPOLL {
        return Err(errno::EINVAL);
    }
    Ok(flags & !(SQPOLL | SQ_AFF | SINGLE_ISSUER | IOPOLL | HYBRID_IOPOLL) | SUBMIT_ALL)
}

/// The error of a thread that would be bound to a processor (IORING_SETUP_SQ_AFF), by a ring that has one for a moment.
fn check_processor(task: &mut Task, wanted: &Params) -> Result<(), Errno> {
    use setup_flag::{SQ_AFF, SQPOLL};
    if wanted.flags & (SQ_AFF | SQPOLL) != SQ_AFF | SQPOLL {
        return Ok(());
    }
    let sq_thread = wanted.sq_thread;
    let mut params = Params { flags: SQ_AFF | SQPOLL, sq_thread, ..Params::default() };
    let fd = task.host_call(nr::io_uring_setup, [1, &raw mut params as u64, 0, 0, 0, 0])?;
    task.host_call(nr::close, [fd, 0, 0, 0, 0, 0]).map(|_| ())
}

/// `struct io_uring_getevents_arg`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct WaitArgument {
    sigmask: u64,
    sigmask_size: u32,
    min_wait: u32,
    timeout: u64,
}
layout!(WaitArgument, 24, sigmask_size @ 8, timeout @ 16);

/// io_uring_enter(2)
pub fn enter(task: &mut Task, args: [u64; 6]) -> SysResult {
    let [fd, to_submit, .., flags, _, _] = args;
    let is_index = flags & enter_flag::REGISTERED_RING != 0;
    let ring = match find(task, fd, is_index, to_submit != 0) {
        Ok(Some(ring)) => ring,
        Ok(None) => return wait(task, args),
        Err(error) => {
            // There may be other things wrong.
            task.host_call(nr::io_uring_enter, [fd, 0, 0, flags, 0, 0])?;
            return Err(error);
        }
    };
    let polled = ring.is_polled();
    let turn = ring.take_turn();
    let pending = if polled { u32::MAX } else { to_submit as u32 };
    let changes = ring.convert(task, pending)?;
    // Nobody else can take away what was looked at here, and nothing has to be put back before the wait.
    if changes.is_empty() && !polled && !has_mask(flags, &args) && ring.is_exclusive() {
        drop(turn);
        return task.host_call(nr::io_uring_enter, args);
    }
    let submit = if polled { ring.pending(task)? } else { to_submit };
    let submitted = match submit {
        0 => Ok(0),
        _ => {
            let flags = flags & !(enter_flag::GETEVENTS);
            task.host_call(nr::io_uring_enter, [fd, submit, 0, flags, 0, 0])
        }
    };
    drop(changes);
    drop(turn);
    let submitted = match submitted {
        Err(errno @ (Errno::RESTART | errno::EBADFD)) => return Err(errno),
        // The thread of the kernel would have told of other errors in completions.
        _ if polled => to_submit,
        Ok(count) if count == to_submit => count,
        other => return other,
    };
    if flags & enter_flag::GETEVENTS == 0 {
        return Ok(submitted);
    }
    let [.., min_complete, _, argument, size] = args;
    let waited = wait(task, [fd, 0, min_complete, flags, argument, size]);
    if submitted != 0 { Ok(submitted) } else { waited }
}

/// Whether the wait is made with another signal mask.
fn has_mask(flags: u64, args: &[u64; 6]) -> bool {
    flags & enter_flag::GETEVENTS != 0 && args[4] != 0 && flags & enter_flag::EXT_ARG_REG == 0
}

/// The part of io_uring_enter(2) that waits; nothing is submitted.
fn wait(task: &mut Task, args: [u64; 6]) -> SysResult {
    let [fd, submit, min_complete, flags, addr, size] = args;
    if !has_mask(flags, &args) {
        return task.host_call(nr::io_uring_enter, args);
    }
    let call = |task: &mut Task, addr: u64, size: u64| {
        task.host_call(nr::io_uring_enter, [fd, submit, min_complete, flags, addr, size])
    };
    if flags & enter_flag::EXT_ARG == 0 {
        return with_mask(task, addr, size, |task, mask| call(task, mask, 8));
    }
    const SIZE: u64 = size_of::<WaitArgument>() as u64;
    if size != SIZE {
        return Err(errno::EINVAL);
    }
    let argument = guest::read::<WaitArgument>(addr)?;
    with_mask(task, argument.sigmask, argument.sigmask_size.into(), |task, sigmask| {
        let timeout = guest::for_kernel(argument.timeout);
        let argument = WaitArgument { sigmask, sigmask_size: 8, timeout, ..argument };
        call(task, &raw const argument as u64, SIZE)
    })
}

/// The ring that a call is about; none if the call reads no entries, or is not about a ring, which the kernel says.
fn find(
    task: &mut Task,
    fd: u64,
    is_index: bool,
    submits: bool,
) -> Result<Option<Arc<Ring>>, Errno> {
    if !submits && !any_polled() {
        return Ok(None);
    }
    if is_index {
        let ring = task.rings.get(task.pid, fd);
        if ring.is_none() && submits {
            return Err(errno::EBADF);
        }
        return Ok(ring.filter(|ring| submits || ring.is_polled()));
    }
    let Some(identity) = Identity::of(fd as i32) else { return Ok(None) };
    let ring = task.runtime().memory.rings(|rings, _| rings.get(identity));
    if ring.is_none() && submits && proc_fs::is_link(fd, "anon_inode:[io_uring]") {
        log::warn(format_args!(
            "entries for an io_uring that another program has set up: EOPNOTSUPP"
        ));
        return Err(errno::EOPNOTSUPP);
    }
    Ok(ring.filter(|ring| submits || ring.is_polled()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_polled_ring_is_one_that_is_woken() {
        use setup_flag::*;
        assert_eq!(host_flags(DEFER_TASKRUN | SINGLE_ISSUER), Ok(DEFER_TASKRUN | SINGLE_ISSUER));
        assert_eq!(host_flags(SQPOLL | SQ_AFF | SINGLE_ISSUER), Ok(SUBMIT_ALL));
        assert_eq!(host_flags(SQPOLL | COOP_TASKRUN), Err(errno::EINVAL));
        assert_eq!(host_flags(SQPOLL | IOPOLL | HYBRID_IOPOLL), Ok(SUBMIT_ALL));
        assert_eq!(host_flags(SQPOLL | HYBRID_IOPOLL), Err(errno::EINVAL));
        assert_eq!(host_flags(IOPOLL), Ok(IOPOLL));
        assert_eq!(host_flags(1 << 19), Err(errno::EINVAL));
    }
    #[test]
    fn queues_are_in_the_guests_memory() {
        let mut params = Params::default();
        (params.sq_off.user_addr, params.cq_off.user_addr) = (1 << 47, 0x1000);
        let before = params;
        params.place_for_kernel(false);
        assert_eq!(params, before);
        params.place_for_kernel(true);
        assert_eq!(params.cq_off.user_addr, 0x1000);
        assert_eq!(params.sq_off.user_addr, guest::for_kernel(1 << 47));
    }
}
