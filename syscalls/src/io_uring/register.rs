//! io_uring_register(2): the structures are the same on both architectures. The kernel gets copies of those that hold
//! addresses, in which the ones that no guest can have are nowhere.

use super::Params;
use super::entry;
use super::find;
use crate::abi::errno;
use crate::guest;
use crate::host::{Errno, SysResult};
use crate::pointers::Array;
use crate::table::host as nr;
use crate::task::Task;
use crate::vectors::Vectors;

/// Operations.
mod op {
    pub const BUFFERS: u32 = 0;
    pub const FILES_UPDATE: u32 = 6;
    pub const PROBE: u32 = 8;
    pub const FILES2: u32 = 13;
    pub const FILES_UPDATE2: u32 = 14;
    pub const BUFFERS2: u32 = 15;
    pub const BUFFERS_UPDATE: u32 = 16;
    pub const RING_FDS: u32 = 20;
    pub const UNREGISTER_RING_FDS: u32 = 21;
    pub const PBUF_RING: u32 = 22;
    pub const RESIZE_RINGS: u32 = 33;
    pub const MEM_REGION: u32 = 34;
    /// A bit: the descriptor is the index of a registered ring.
    pub const USE_REGISTERED_RING: u32 = 1 << 31;
}

/// io_uring_register(2)
pub fn register(task: &mut Task, args: [u64; 6]) -> SysResult {
    let [_, op, addr, count, ..] = args;
    match op as u32 & !op::USE_REGISTERED_RING {
        op::BUFFERS => {
            let vectors = Vectors::registered(addr, count);
            with(task, args, vectors.addr())
        }
        // `struct io_uring_rsrc_register` and `io_uring_rsrc_update2`: `data` and `tags`.
        op::BUFFERS2 => with_buffers(task, args, count, [16, 24], 0),
        op::BUFFERS_UPDATE => with_buffers(task, args, count, [8, 16], 24),
        op::FILES2 => one(count, &[16, 24]).pass(task, nr::io_uring_register, args, 2),
        op::FILES_UPDATE2 => one(count, &[8, 16]).pass(task, nr::io_uring_register, args, 2),
        // `struct io_uring_files_update`.
        op::FILES_UPDATE => one(16, &[8]).pass(task, nr::io_uring_register, args, 2),
        // `struct io_uring_buf_reg`, which says where the kernel has put it.
        op::PBUF_RING => one(40, &[0]).pass_both_ways(task, nr::io_uring_register, args, 2),
        op::MEM_REGION => with_region(task, args),
        op::PROBE => {
            let result = task.host_call(nr::io_uring_register, args)?;
            hide_refused(addr)?;
            Ok(result)
        }
        op::RING_FDS | op::UNREGISTER_RING_FDS => register_rings(task, args),
        op::RESIZE_RINGS => resize(task, args),
        _ => task.host_call(nr::io_uring_register, args),
    }
}

/// A structure of `size` bytes.
fn one(size: u64, addresses: &'static [usize]) -> Array {
    Array::of_one(size as usize, addresses)
}

/// Makes the call with another argument.
fn with(task: &mut Task, mut args: [u64; 6], argument: u64) -> SysResult {
    args[2] = argument;
    task.host_call(nr::io_uring_register, args)
}

/// Buffers by a structure of `size` bytes: where it has the addresses of vectors and tags, and how many there are.
fn with_buffers(
    task: &mut Task,
    args: [u64; 6],
    size: u64,
    [data, tags]: [usize; 2],
    count: usize,
) -> SysResult {
    const SIZE: u64 = 32;
    let Ok(mut words) = guest::read::<[u64; 4]>(args[2]) else { return with(task, args, args[2]) };
    if size != SIZE {
        return Err(errno::EINVAL);
    }
    let vectors = Vectors::registered(words[data / 8], words[count / 8] & 0xffff_ffff);
    words[data / 8] = vectors.addr();
    words[tags / 8] = guest::for_kernel(words[tags / 8]);
    with(task, args, words.as_ptr() as u64)
}

/// Memory of the guest's for a ring's arguments: `struct io_uring_mem_region_reg` names a `struct
/// io_uring_region_desc`, in which the kernel says where it is mapped.
fn with_region(task: &mut Task, args: [u64; 6]) -> SysResult {
    let Ok(mut words) = guest::read::<[u64; 4]>(args[2]) else { return with(task, args, args[2]) };
    let place = words[0];
    let Ok(mut region) = guest::read::<[u64; 8]>(place) else {
        words[0] = guest::for_kernel(place);
        return with(task, args, words.as_ptr() as u64);
    };
    let before = region;
    region[0] = guest::range_for_kernel(region[0], region[1]);
    let given = region[0];
    words[0] = region.as_mut_ptr() as u64;
    let result = with(task, args, words.as_ptr() as u64)?;
    if region[0] == given {
        region[0] = before[0];
    }
    guest::write(place, &region)?;
    Ok(result)
}

/// In the answer to IORING_REGISTER_PROBE, operations that are refused are not supported.
fn hide_refused(addr: u64) -> Result<(), Errno> {
    /// `struct io_uring_probe_op`: the operation, a byte, flags.
    const OP_SIZE: u64 = 8;
    const HEAD_SIZE: u64 = 16;
    let [_, count] = guest::read::<[u8; 2]>(addr)?;
    for at in (0..u64::from(count)).map(|i| addr + HEAD_SIZE + i * OP_SIZE) {
        if entry::is_refused(guest::read::<u8>(at)?) {
            guest::write(at + 2, &0u16)?;
        }
    }
    Ok(())
}

/// IORING_REGISTER_RING_FDS and its opposite: rings get numbers that are this thread's own.
fn register_rings(task: &mut Task, args: [u64; 6]) -> SysResult {
    /// `struct io_uring_rsrc_update`.
    const SIZE: u64 = 16;
    let [_, op, addr, ..] = args;
    let count = task.host_call(nr::io_uring_register, args)?;
    let is_new = op as u32 & !op::USE_REGISTERED_RING == op::RING_FDS;
    for at in (0..count).map(|i| addr + i * SIZE) {
        let index = u64::from(guest::read::<u32>(at)?);
        let fd = guest::read::<u64>(at + 8)?;
        let ring = if is_new { find(task, fd, false, true).ok().flatten() } else { None };
        task.rings.set(task.pid, index, ring);
    }
    Ok(count)
}

/// IORING_REGISTER_RESIZE_RINGS: the queues are elsewhere then, and laid out otherwise.
fn resize(task: &mut Task, args: [u64; 6]) -> SysResult {
    let [fd, op, addr, ..] = args;
    let is_index = op as u32 & op::USE_REGISTERED_RING != 0;
    let Some(ring) = find(task, fd, is_index, true)? else { return with(task, args, addr) };
    let Ok(mut params) = guest::read::<Params>(addr) else { return with(task, args, addr) };
    params.place_for_kernel(ring.has_own_memory());
    let _turn = ring.take_turn();
    let result = with(task, args, &raw mut params as u64)?;
    ring.resized(task, &params);
    guest::write(addr, &params)?;
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_operations_are_not_in_the_probe() {
        let mut probe = [0u8; 16 + 8 * 4];
        (probe[0], probe[1]) = (62, 4);
        for (i, op) in [0, entry::op::EPOLL_WAIT, entry::op::OPENAT, 62].into_iter().enumerate() {
            (probe[16 + 8 * i], probe[18 + 8 * i]) = (op, 1);
        }
        hide_refused(probe.as_mut_ptr() as u64).unwrap();
        assert_eq!([0, 1, 2, 3].map(|i| probe[18 + 8 * i]), [1, 0, 1, 1]);
    }
}
