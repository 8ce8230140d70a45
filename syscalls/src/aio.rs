//! Asynchronous I/O (io_setup(2) and its kin): the arm64 kernel's. The number of a context is the address of a ring of
//! events, which programs read (libaio does): it has to be one that the guest can have.

use crate::abi::errno;
use crate::guest;
use crate::host::SysResult;
use crate::signal::with_mask;
use crate::table::host as nr;
use crate::task::Task;

/// What the ring is called in /proc/PID/maps.
const NAME: &str = "/[aio] (deleted)";

/// io_setup(2)
pub fn io_setup(task: &mut Task, [count, to, ..]: [u64; 6]) -> SysResult {
    /// `struct aio_ring` before its events, and an event.
    const HEAD_SIZE: u64 = 32;
    const EVENT_SIZE: u64 = 32;
    if guest::read::<u64>(to)? != 0 {
        return Err(errno::EINVAL);
    }
    let mut made = 0u64;
    task.host_call(nr::io_setup, [count, &raw mut made as u64, 0, 0, 0, 0])?;
    // The kernel writes the ring at any time, and the guest reads it.
    task.runtime().require_order();
    let length = {
        // SAFETY: the ring that the kernel has just mapped: `nr` is its second word.
        let events = unsafe { *((made + 4) as *const u32) };
        HEAD_SIZE + u64::from(events) * EVENT_SIZE
    };
    let context = task.runtime().memory.take_over(made, length, NAME);
    let result = context.and_then(|context| guest::write(to, &context));
    if result.is_err() {
        io_destroy(task, [context.unwrap_or(made), 0, 0, 0, 0, 0])?;
    }
    result.map(|()| 0)
}

/// io_destroy(2)
pub fn io_destroy(task: &mut Task, [context, ..]: [u64; 6]) -> SysResult {
    let result = task.host_call(nr::io_destroy, [context, 0, 0, 0, 0, 0])?;
    task.runtime().memory.forget(context, NAME);
    Ok(result)
}

/// io_pgetevents(2): the last argument points to the mask's address and size.
pub fn io_pgetevents(task: &mut Task, args: [u64; 6]) -> SysResult {
    let [context, least, most, events, timeout, mask] = args;
    let [mask, size] = guest::read_opt::<[u64; 2]>(mask)?.unwrap_or_default();
    with_mask(task, mask, size, |task, mask| {
        let mask = [mask, crate::abi::SIGSET_SIZE];
        let args = [context, least, most, events, timeout, mask.as_ptr() as u64];
        task.host_call(nr::io_pgetevents, args)
    })
}
