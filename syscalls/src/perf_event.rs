//! perf_event_open(2): the kernel's own events are the same for both architectures. What the processor counts, and the
//! registers that samples hold, are the host's.

use crate::abi::errno;
use crate::guest;
use crate::host::{Errno, SysResult};
use crate::log;
use crate::table::host as nr;
use crate::task::Task;

/// The first version of `struct perf_event_attr` (PERF_ATTR_SIZE_VER0); one larger than a page is refused.
const SIZES: std::ops::RangeInclusive<usize> = 64..=4096;

/// Kinds of events (`enum perf_type_id`); larger numbers are told in /sys.
mod kind {
    pub const RAW: u32 = 4;
    pub const BREAKPOINT: u32 = 5;
}

/// What matters here of `struct perf_event_attr`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Attributes {
    kind: u32,
    sample_type: u64,
    /// HW_BREAKPOINT_R, _W, _X.
    breakpoint: u32,
    /// An address, a name's address or a number, by `kind`.
    config1: u64,
    user_registers: u64,
    registers: u64,
}

/// Where that is, in words; and as many as are looked at.
const CONFIG1: usize = 7;
const WORDS: usize = 13;

impl Attributes {
    fn of(words: &[u64; WORDS]) -> Self {
        Self {
            kind: words[0] as u32,
            sample_type: words[3],
            breakpoint: (words[6] >> 32) as u32,
            config1: words[CONFIG1],
            user_registers: words[10],
            registers: words[12],
        }
    }

    /// `config1` as the kernel gets it. `is_probe` says of a kind whether it is that of a function or a file, by name.
    fn check(&self, is_probe: impl Fn(u32) -> bool) -> Result<u64, Errno> {
        const SAMPLE_REGS_USER: u64 = 1 << 12;
        const SAMPLE_REGS_INTR: u64 = 1 << 18;
        const EXECUTE: u32 = 4;
        let sampled = |bit: u64, registers: u64| self.sample_type & bit != 0 && registers != 0;
        if self.kind == kind::RAW {
            log::warn(format_args!("an event of an x86 processor (perf_event_open): ENOENT"));
            return Err(errno::ENOENT);
        }
        if self.kind == kind::BREAKPOINT && self.breakpoint & EXECUTE != 0 {
            log::warn(format_args!("a breakpoint in code (perf_event_open): EOPNOTSUPP"));
            return Err(errno::EOPNOTSUPP);
        }
        if sampled(SAMPLE_REGS_USER, self.user_registers)
            || sampled(SAMPLE_REGS_INTR, self.registers)
        {
            log::warn(format_args!("samples of registers (perf_event_open): EOPNOTSUPP"));
            return Err(errno::EOPNOTSUPP);
        }
        let in_reach = guest::for_kernel(self.config1);
        let is_address = || self.kind == kind::BREAKPOINT || is_probe(self.kind);
        Ok(if in_reach != self.config1 && is_address() { in_reach } else { self.config1 })
    }
}

/// perf_event_open(2)
pub fn perf_event_open(task: &mut Task, mut args: [u64; 6]) -> SysResult {
    let Some(mut bytes) = read(args[0]) else {
        return task.host_call(nr::perf_event_open, args);
    };
    let mut words = [0; WORDS];
    let known = WORDS.min(bytes.len());
    words[..known].copy_from_slice(&bytes[..known]);
    bytes[CONFIG1] = Attributes::of(&words).check(is_probe)?;
    if bytes[CONFIG1] != words[CONFIG1] {
        args[0] = bytes.as_ptr() as u64;
    }
    task.host_call(nr::perf_event_open, args)
}

/// The whole structure; none where the kernel will refuse it.
fn read(addr: u64) -> Option<Vec<u64>> {
    let [_, size] = guest::read::<[u32; 2]>(addr).ok()?;
    let size = if size == 0 { *SIZES.start() } else { size as usize };
    if !SIZES.contains(&size) {
        return None;
    }
    let mut bytes = vec![0; size];
    guest::read_bytes(addr, &mut bytes).ok()?;
    bytes.resize(size.next_multiple_of(8), 0);
    let words = bytes.chunks_exact(8);
    Some(words.map(|word| u64::from_ne_bytes(word.try_into().expect("eight bytes"))).collect())
}

/// Whether a kind is that of kprobes or uprobes.
fn is_probe(kind: u32) -> bool {
    ["kprobe", "uprobe"].iter().any(|source| {
        let path = format!("/sys/bus/event_source/devices/{source}/type");
        std::fs::read_to_string(path).is_ok_and(|text| text.trim().parse() == Ok(kind))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Attributes = Attributes {
        kind: 1,
        sample_type: 0,
        breakpoint: 0,
        config1: 0,
        user_registers: 0,
        registers: 0,
    };

    #[test]
    fn what_is_the_processors_is_refused() {
        let check = |attributes: Attributes| attributes.check(|_| false);
        assert_eq!(check(PLAIN), Ok(0));
        assert_eq!(check(Attributes { kind: 4, ..PLAIN }), Err(errno::ENOENT));
        let registers = Attributes { sample_type: 1 << 12, user_registers: 1, ..PLAIN };
        assert_eq!(check(registers), Err(errno::EOPNOTSUPP));
        assert_eq!(check(Attributes { sample_type: 1, ..registers }), Ok(0));
        let at_interrupt = Attributes { sample_type: 1 << 18, registers: 1, ..PLAIN };
        assert_eq!(check(at_interrupt), Err(errno::EOPNOTSUPP));
        let breakpoint = Attributes { kind: 5, breakpoint: 4, ..PLAIN };
        assert_eq!(check(breakpoint), Err(errno::EOPNOTSUPP));
        assert_eq!(check(Attributes { breakpoint: 2, config1: 0x1000, ..breakpoint }), Ok(0x1000));
    }

    #[test]
    fn addresses_are_the_guests() {
        let high = Attributes { config1: 1 << 47, ..PLAIN };
        // A number, or the address of a name.
        assert_eq!(high.check(|_| false), Ok(1 << 47));
        assert_eq!(high.check(|_| true), Ok(guest::for_kernel(1 << 47)));
        assert_eq!(Attributes { kind: 5, ..high }.check(|_| false), Ok(guest::for_kernel(1 << 47)));
    }

    #[test]
    fn attributes_of_any_size_are_read() {
        let len = |size: u64| {
            let words: Vec<u64> = std::iter::once(size << 32 | 1).chain(1..600).collect();
            let read = read(words.as_ptr() as u64)?;
            assert_eq!(read[..8], words[..8]);
            Some(read.len())
        };
        assert_eq!(
            [0, 63, 64, 68, 128, 4096, 4097].map(len),
            [Some(8), None, Some(8), Some(9), Some(16), Some(512), None]
        );
        assert!(read(1 << 47).is_none());
        let words = std::array::from_fn(|i| i as u64 + ((i as u64 + 100) << 32));
        let seen = Attributes::of(&words);
        assert_eq!((seen.kind, seen.breakpoint, seen.config1 as u32), (0, 106, 7));
        assert_eq!(
            [seen.sample_type, seen.user_registers, seen.registers].map(|w| w as u32),
            [3, 10, 12]
        );
    }
}
