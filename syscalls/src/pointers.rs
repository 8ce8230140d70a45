//! Calls that take addresses within structures. The kernel gets a copy of the structure in which those that no guest can
//! have are nowhere.
//!
//! What the kernel follows on its own stays as the guest has it: the list of robust futexes, and what programs of bpf(2)
//! read.

mod bpf;
mod ioctl;
mod socket_options;

pub use bpf::bpf;
pub use ioctl::ioctl;
pub use socket_options::{getsockopt, setsockopt};

use crate::abi::errno;
use crate::guest;
use crate::host::{Errno, SysResult};
use crate::table::host as nr;
use crate::task::Task;
use crate::vectors::Vectors;

/// Larger structures the kernel refuses (PAGE_SIZE).
const MAX: usize = 4096;

/// The error for a structure that a kernel with larger pages would take.
fn check_size(size: u64) -> Result<(), Errno> {
    if size > MAX as u64 { Err(errno::E2BIG) } else { Ok(()) }
}

/// Words of a structure that are addresses, by their offsets.
type Offsets = &'static [usize];

/// Structures one after the other.
pub(crate) struct Array {
    count: u64,
    size: usize,
    addresses: Offsets,
}

impl Array {
    /// A single structure.
    pub(crate) fn of_one(size: usize, addresses: Offsets) -> Self {
        Self { count: 1, size, addresses }
    }

    /// A copy of what is at `addr`: none if the kernel need not read it, or cannot.
    fn copy(&self, addr: u64) -> Result<Vec<u64>, u64> {
        let len =
            match usize::try_from(self.count).ok().and_then(|count| count.checked_mul(self.size)) {
                _ if addr == 0 => return Err(addr),
                Some(0) | None => return Err(addr),
                Some(len) if len > MAX => return Err(addr),
                Some(len) => len,
            };
        let mut bytes = vec![0u8; len];
        if guest::read_bytes(addr, &mut bytes).is_err() {
            return Err(guest::NOWHERE);
        }
        for element in bytes.chunks_exact_mut(self.size) {
            for &at in self.addresses {
                let Some(word) = element.get_mut(at..at + 8) else { continue };
                let addr = u64::from_ne_bytes((&*word).try_into().expect("eight bytes"));
                word.copy_from_slice(&guest::for_kernel(addr).to_ne_bytes());
            }
        }
        // Aligned as the kernel's structures are.
        let word = |chunk: &[u8]| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            u64::from_ne_bytes(word)
        };
        Ok(bytes.chunks(8).map(word).collect())
    }

    /// Whether one of the addresses, as far as they can be read, is one that no guest can have.
    fn is_bad(&self, addr: u64) -> bool {
        (addr..).step_by(self.size).take(self.count as usize).any(|element| {
            let mut words = self.addresses.iter().map(|&at| element.wrapping_add(at as u64));
            words.any(|at| guest::read::<u64>(at).is_ok_and(|word| guest::for_kernel(word) != word))
        })
    }

    /// Makes a call with the copy in place of argument `i`.
    pub(crate) fn pass(&self, task: &mut Task, nr: u64, mut args: [u64; 6], i: usize) -> SysResult {
        let copy = self.copy(args[i]);
        args[i] = match &copy {
            Ok(copy) => copy.as_ptr() as u64,
            Err(addr) => *addr,
        };
        task.host_call(nr, args)
    }

    /// The same for one structure that the kernel also writes to; not into its addresses.
    pub(crate) fn pass_both_ways(
        &self,
        task: &mut Task,
        nr: u64,
        args: [u64; 6],
        i: usize,
    ) -> SysResult {
        let Ok(copy) = self.copy(args[i]) else { return self.pass(task, nr, args, i) };
        let mut after = copy.clone();
        let mut host = args;
        host[i] = after.as_mut_ptr() as u64;
        let result = task.host_call(nr, host);
        let bytes =
            |words: &[u64]| words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<u8>>();
        let (before, after) = (bytes(&copy), bytes(&after));
        for at in (0..self.size.min(before.len())).filter(|&at| before[at] != after[at]) {
            guest::write(args[i] + at as u64, &after[at])?;
        }
        result
    }
}

/// `struct futex_waitv`.
const fn waiters(count: u64) -> Array {
    Array { count, size: 24, addresses: &[8] }
}

/// futex_waitv(2)
pub fn futex_waitv(task: &mut Task, args: [u64; 6]) -> SysResult {
    waiters(args[1]).pass(task, nr::futex_waitv, args, 0)
}

/// futex_requeue(2): from the one to the other.
pub fn futex_requeue(task: &mut Task, args: [u64; 6]) -> SysResult {
    waiters(2).pass(task, nr::futex_requeue, args, 0)
}

/// `struct xattr_args` of `size` bytes.
fn attribute(size: u64) -> Array {
    Array { count: 1, size: size as usize, addresses: &[0] }
}

/// setxattrat(2)
pub fn setxattrat(task: &mut Task, args: [u64; 6]) -> SysResult {
    on_attribute(task, nr::setxattrat, args)
}

/// getxattrat(2)
pub fn getxattrat(task: &mut Task, args: [u64; 6]) -> SysResult {
    on_attribute(task, nr::getxattrat, args)
}

fn on_attribute(task: &mut Task, nr: u64, mut args: [u64; 6]) -> SysResult {
    check_size(args[5])?;
    let path = crate::paths::translate(
        task,
        args[0] as i32,
        args[1],
        args[2] & crate::abi::AT_SYMLINK_NOFOLLOW == 0,
    )?;
    args[1] = path.addr();
    attribute(args[5]).pass(task, nr, args, 4)
}

/// kexec_load(2)
pub fn kexec_load(task: &mut Task, args: [u64; 6]) -> SysResult {
    Array { count: args[1], size: 32, addresses: &[0] }.pass(task, nr::kexec_load, args, 2)
}

/// mq_notify(2): a thread is told by a cookie, which the kernel reads; a signal by any value.
pub fn mq_notify(task: &mut Task, args: [u64; 6]) -> SysResult {
    const SIGEV_THREAD: i32 = 2;
    const NOTIFY: u64 = 12;
    let told = guest::read::<i32>(args[1].wrapping_add(NOTIFY));
    let addresses: Offsets = if told == Ok(SIGEV_THREAD) { &[0] } else { &[] };
    Array { count: u64::from(args[1] != 0), size: 64, addresses }.pass(task, nr::mq_notify, args, 1)
}

/// keyctl(2)
pub fn keyctl(task: &mut Task, mut args: [u64; 6]) -> SysResult {
    const INSTANTIATE_IOV: u64 = 20;
    if args[0] != INSTANTIATE_IOV {
        return task.host_call(nr::keyctl, args);
    }
    let vectors = Vectors::read(args[2], args[3]);
    args[2] = vectors.addr();
    task.host_call(nr::keyctl, args)
}

/// io_submit(2): the kernel knows a request by its place in the guest's memory, so that it cannot be a copy.
pub fn io_submit(task: &mut Task, [context, count, list, ..]: [u64; 6]) -> SysResult {
    /// Many at a time are as good as all.
    const AT_ONCE: u64 = 4096;
    if count as i64 <= 0 {
        return task.host_call(nr::io_submit, [context, count, list, 0, 0, 0]);
    }
    let mut requests = Vec::new();
    for at in (list..).step_by(8).take(count.min(AT_ONCE) as usize) {
        let request = guest::read::<u64>(at).unwrap_or(guest::NOWHERE);
        let good = is_in_reach(request);
        requests.push(if good { request } else { guest::NOWHERE });
        if !good {
            break;
        }
    }
    let args = [context, requests.len() as u64, requests.as_ptr() as u64, 0, 0, 0];
    task.host_call(nr::io_submit, args)
}

/// Whether all of a `struct iocb` that the kernel would look at is where a guest's memory can be.
fn is_in_reach(request: u64) -> bool {
    const OPCODE: u64 = 16;
    const BUFFER: u64 = 24;
    let Ok(opcode) = guest::read::<u16>(request.wrapping_add(OPCODE)) else { return false };
    let Ok([buffer, len]) = guest::read::<[u64; 2]>(request.wrapping_add(BUFFER)) else {
        return false;
    };
    let fits = |[base, len]: [u64; 2]| guest::range_for_kernel(base, len) == base;
    match opcode {
        // IOCB_CMD_PREAD, IOCB_CMD_PWRITE
        0 | 1 => fits([buffer, len]),
        // IOCB_CMD_PREADV, IOCB_CMD_PWRITEV
        7 | 8 => {
            let vectors = (buffer..).step_by(16).take(len.min(1024) as usize);
            vectors.map_while(|at| guest::read(at).ok()).all(fits)
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn copies_differ_in_bad_addresses_alone(words in prop::collection::vec(any::<u64>(), 3..60)) {
            let count = words.len() / 3;
            let copy = waiters(count as u64).copy(words.as_ptr() as u64).unwrap();
            for (i, (word, seen)) in words.iter().zip(&copy).enumerate() {
                let wanted = if i % 3 == 1 { guest::for_kernel(*word) } else { *word };
                prop_assert_eq!(*seen, wanted);
            }
            prop_assert_eq!(copy.len(), count * 3);
        }
    }

    #[test]
    fn bad_addresses_are_known() {
        let waiter = |futex: u64| [1 << 47, futex, 1 << 47];
        let is_bad = |pair: [[u64; 3]; 2]| waiters(2).is_bad(pair.as_ptr() as u64);
        assert!(!is_bad([waiter(5), waiter(6)]));
        assert!(is_bad([waiter(5), waiter(1 << 47)]));
        assert!(!waiters(1).is_bad(1 << 47));
    }

    #[test]
    fn structures_that_the_kernel_refuses_are_not_copied() {
        assert_eq!(waiters(1).copy(0), Err(0));
        assert_eq!(attribute(0).copy(5), Err(5));
        assert_eq!(attribute(5000).copy(5), Err(5));
        assert_eq!([4096, 4097].map(check_size), [Ok(()), Err(errno::E2BIG)]);
        assert_eq!(waiters(u64::MAX).copy(5), Err(5));
        assert_eq!(waiters(1).copy(1 << 47), Err(guest::NOWHERE));
    }

    #[test]
    fn requests_are_looked_into() {
        let pieces = [[0x1000u64, 8], [1 << 47, 8]];
        let request = |opcode: u64, buffer: u64, len: u64| [0, 0, opcode, buffer, len, 0, 0, 0u64];
        let good = |request: [u64; 8]| is_in_reach(request.as_ptr() as u64);
        assert!(good(request(0, 0x1000, 8)) && good(request(5, 1 << 47, 8)));
        assert!(!good(request(1, 1 << 47, 8)) && !good(request(0, 0x1000, 1 << 47)));
        assert!(good(request(7, pieces.as_ptr() as u64, 1)));
        assert!(!good(request(8, pieces.as_ptr() as u64, 2)));
        assert!(!is_in_reach(1 << 47));
    }
}
