//! SECCOMP_RET_USER_NOTIF: another process answers for the kernel. The listener's descriptor is the host's own; what
//! it tells of is the call by which [`super::mirror`]'s filter is told to, and is made the guest's on its way out of
//! the ioctl(2).
//!
//! All of the guest's call has room in the registers of the host's, but for the sixth argument and the address of
//! the instruction: a listener reads zero there.

use super::AUDIT_ARCH_X86_64;
use super::bpf::Data;
use super::mirror::TELL;
use crate::abi::layout;
use crate::guest;
use crate::host::SysResult;
use crate::table::host as nr;
use crate::task::Task;

/// AUDIT_ARCH_AARCH64.
const AUDIT_ARCH_HOST: u32 = 0xc000_00b7;

/// SECCOMP_IOCTL_NOTIF_RECV.
const RECEIVE: u64 = 0xc050_2100;

/// `struct seccomp_notif`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Notification {
    id: u64,
    pid: u32,
    flags: u32,
    data: Data,
}
layout!(Notification, 80, pid @ 8, data @ 16);

/// The sizes of `struct seccomp_notif`, `seccomp_notif_resp` and `seccomp_data`.
pub const SIZES: [u16; 3] = [size_of::<Notification>() as u16, 24, size_of::<Data>() as u16];

/// The arguments of the host's call that tells the listener of the guest's.
fn tell(data: &Data) -> [u64; 6] {
    let [a, b, c, d, e, _] = data.args;
    [u64::from(TELL) << 32 | u64::from(data.nr as u32), a, b, c, d, e]
}

/// The guest's call that the host's tells of; what it was, if it tells of none.
fn told(data: Data) -> Data {
    let [head, a, b, c, d, e] = data.args;
    let ours = data.arch == AUDIT_ARCH_HOST && data.nr as u64 == nr::gettid;
    if !ours || head >> 32 != u64::from(TELL) {
        return data;
    }
    Data {
        nr: head as i32,
        arch: AUDIT_ARCH_X86_64,
        instruction_pointer: 0,
        args: [a, b, c, d, e, 0],
    }
}

/// Has the listener answer; none if the call is to be made after all (SECCOMP_USER_NOTIF_FLAG_CONTINUE).
pub fn ask_listener(task: &mut Task, data: &Data) -> Option<SysResult> {
    let result = task.host_call(nr::gettid, tell(data));
    // What gettid(2) itself gives says that it was made.
    (result != Ok(task.tid as u64)).then_some(result)
}

/// ioctl(2)
pub fn ioctl(task: &mut Task, [fd, request, arg, ..]: [u64; 6]) -> SysResult {
    let result = task.host_call(nr::ioctl, [fd, request, arg, 0, 0, 0])?;
    if request as u32 as u64 == RECEIVE {
        let mut notification = guest::read::<Notification>(arg)?;
        notification.data = told(notification.data);
        guest::write(arg, &notification)?;
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_listener_is_told_of_the_guests_call(nr: i32, instruction_pointer: u64, args: [u64; 6]) {
            let data = Data { nr, arch: AUDIT_ARCH_X86_64, instruction_pointer, args };
            let host = Data {
                nr: nr::gettid as i32, arch: AUDIT_ARCH_HOST, instruction_pointer: 1, args: tell(&data),
            };
            let [a, b, c, d, e, _] = args;
            let seen = Data { instruction_pointer: 0, args: [a, b, c, d, e, 0], ..data };
            prop_assert_eq!(told(host), seen);
            // Calls of programs that are not translated stay as they are.
            let other = Data { nr, arch: AUDIT_ARCH_HOST, instruction_pointer, args };
            prop_assert_eq!(told(other), other);
        }
    }
}
