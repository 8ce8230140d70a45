//! From a system call instruction to the handler, by way of the table.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{Call, Handling, Shape, Type, lookup};
use crate::abi::{AT_FDCWD, AT_SYMLINK_FOLLOW, AT_SYMLINK_NOFOLLOW, errno};
use crate::host::SysResult;
use crate::task::Task;
use crate::vectors::Vectors;
use crate::{fds, guest, log, paths, strace};

/// The first number the table does not know.
pub const UNKNOWN: u32 = 472;

/// Numbers x86_64 keeps for the x32 ABI, which only kernels with CONFIG_X86_X32_ABI have.
const X32: std::ops::Range<u32> = 512..548;

/// Makes the system call with the number and the arguments in the guest's registers.
pub fn dispatch(task: &mut Task, number: u64, raw: [u64; 6]) -> SysResult {
    // The kernel takes the number as an int (do_syscall_64).
    let Some(call) = lookup(number as u32) else {
        return unknown(task, number as u32, raw);
    };
    let args = call.extend(raw);
    if strace::enabled() {
        return strace::traced(task, call, args);
    }
    call.make(task, args)
}

impl Call {
    /// The arguments as their types say, from the registers: filters outside compare whole registers (seccomp(2)), so what
    /// the guest left in the upper half of one that counts with 32 bits must not pass.
    #[inline(always)]
    pub fn extend(&self, raw: [u64; 6]) -> [u64; 6] {
        let mut args = raw;
        let [signed, unsigned] = self.narrow;
        each(signed, |i| args[i] = raw[i] as i32 as u64);
        each(unsigned, |i| args[i] = u64::from(raw[i] as u32));
        args
    }

    /// Makes the call; the arguments are extended already.
    #[inline(always)]
    pub fn make(&self, task: &mut Task, mut args: [u64; 6]) -> SysResult {
        each(self.addresses, |i| args[i] = guest::for_kernel(args[i]));
        each(self.descriptors, |i| args[i] = fds::for_kernel(args[i]));
        match self.handling {
            Handling::Pass => self.pass(task, args),
            Handling::Convert(handler) | Handling::Emulate(handler) => handler(task, args),
            Handling::Refuse(errno) => Err(errno),
            Handling::Missing => {
                log_once(self.number, self.name);
                Err(errno::ENOSYS)
            }
        }
    }

    #[inline(always)]
    fn pass(&self, task: &mut Task, args: [u64; 6]) -> SysResult {
        match self.host {
            None => Err(errno::ENOSYS),
            Some(host) if self.has_inner => self.pass_translated(task, host, args),
            Some(host) => task.host_call(u64::from(host), args),
        }
    }

    /// Passes a call on whose paths and vectors of addresses are others for the kernel.
    #[inline(never)]
    fn pass_translated(&self, task: &mut Task, host: u32, mut args: [u64; 6]) -> SysResult {
        let mut translated: [Option<paths::Path>; 6] = Default::default();
        let mut vectors: [Option<Vectors>; 6] = Default::default();
        for (i, arg) in self.args.iter().enumerate() {
            let follow = match arg.ty {
                Type::Path => !self.has_at_flag(&args, AT_SYMLINK_NOFOLLOW),
                Type::LinkPath => self.has_at_flag(&args, AT_SYMLINK_FOLLOW),
                Type::In(Shape::Iovec) | Type::Out(Shape::Iovec) => {
                    args[i] = vectors[i].insert(Vectors::read(args[i], args[i + 1])).addr();
                    continue;
                }
                _ => continue,
            };
            let dirfd = match i.checked_sub(1).map(|before| (self.args[before].ty, args[before])) {
                Some((Type::DirFd, fd)) => fd as i32,
                _ => AT_FDCWD,
            };
            let path = paths::translate(task, dirfd, args[i], follow)?;
            args[i] = path.addr();
            translated[i] = Some(path);
        }
        task.host_call(u64::from(host), args)
    }

    fn has_at_flag(&self, args: &[u64; 6], flag: u64) -> bool {
        let at_flags = self.args.iter().zip(args).find(|(arg, _)| matches!(arg.ty, Type::AtFlags));
        at_flags.is_some_and(|(_, value)| value & flag != 0)
    }
}

/// Does something for each bit that is set, of one for each argument.
#[inline(always)]
fn each(bits: u8, mut what: impl FnMut(usize)) {
    let mut bits = u32::from(bits);
    while bits != 0 {
        what(bits.trailing_zeros() as usize);
        bits &= bits - 1;
    }
}

/// Numbers without a row: those newer than the table are the same on both architectures and go
/// to the kernel as they are, so that a new kernel's calls are there for the guest.
fn unknown(task: &mut Task, number: u32, args: [u64; 6]) -> SysResult {
    if number < UNKNOWN || number > i32::MAX as u32 || X32.contains(&number) {
        return Err(errno::ENOSYS);
    }
    // Which arguments are addresses is not known. A bad one may be the translator's memory, but a number, flags or a
    // hash may be as large.
    let result = task.host_call(u64::from(number), args);
    if strace::enabled() {
        strace::print_unknown(task, number, args, result);
    }
    result
}

/// Says, once for each number, that the guest asked for a call that is not there.
fn log_once(number: u32, name: &str) {
    static SAID: [AtomicU64; UNKNOWN.div_ceil(64) as usize] =
        [const { AtomicU64::new(0) }; UNKNOWN.div_ceil(64) as usize];
    let bit = 1 << (number % 64);
    if SAID[number as usize / 64].fetch_or(bit, Ordering::Relaxed) & bit == 0 {
        log::line(format_args!("system call {number} ({name}) is not supported yet: ENOSYS"));
    }
}
