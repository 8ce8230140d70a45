//! getsockopt(2) and setsockopt(2): options whose structure holds addresses.

use super::{Array, Offsets};
use crate::guest;
use crate::host::SysResult;
use crate::table::host as nr;
use crate::task::Task;

/// linux/if_packet.h
const PACKET_FANOUT_DATA: i32 = 22;

/// Options that are set, by level and name: where the addresses are.
const SET: &[([i32; 2], Offsets)] = &[
    // `struct sock_fprog`
    ([libc::SOL_SOCKET, libc::SO_ATTACH_FILTER], &[8]),
    ([libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF], &[8]),
    ([libc::SOL_PACKET, PACKET_FANOUT_DATA], &[8]),
    // `struct xdp_umem_reg`
    ([libc::SOL_XDP, libc::XDP_UMEM_REG], &[0]),
];

/// TCP_ZEROCOPY_RECEIVE: the addresses in `struct tcp_zerocopy_receive`.
const ZEROCOPY: ([i32; 2], Offsets) = ([libc::SOL_TCP, 35], &[0, 24, 40]);

/// setsockopt(2)
pub fn setsockopt(task: &mut Task, args: [u64; 6]) -> SysResult {
    let [_, level, name, _, size, _] = args;
    match SET.iter().find(|(option, _)| *option == [level as i32, name as i32]) {
        Some((_, at)) => Array::of_one(size as usize, at).pass(task, nr::setsockopt, args, 3),
        None => task.host_call(nr::setsockopt, args),
    }
}

/// getsockopt(2)
pub fn getsockopt(task: &mut Task, args: [u64; 6]) -> SysResult {
    let [_, level, name, _, size, _] = args;
    let (option, addresses) = ZEROCOPY;
    if option != [level as i32, name as i32] {
        return task.host_call(nr::getsockopt, args);
    }
    let size = guest::read::<u32>(size).unwrap_or_default();
    Array::of_one(size as usize, addresses).pass_both_ways(task, nr::getsockopt, args, 3)
}
