//! The filters of a thread: a chain, each member of which stands before those that were there already, and which
//! threads share as far as they have it in common.

use std::sync::Arc;

use super::bpf::{Data, Instruction, MAX_LENGTH, Program};
use crate::abi::errno;
use crate::guest;
use crate::host::Errno;

/// MAX_INSNS_PER_PATH of kernel/seccomp.c: instructions in a chain.
const MAX_CHAIN: usize = (1 << 18) / size_of::<Instruction>();
/// What each filter counts there beyond its instructions.
const PENALTY: usize = 4;

/// A filter and those that were there before it.
#[derive(Debug)]
pub struct Filter {
    program: Program,
    flags: u32,
    before: Option<Arc<Filter>>,
}

/// Somebody listens to its SECCOMP_RET_USER_NOTIF (SECCOMP_FILTER_FLAG_NEW_LISTENER).
const LISTENER: u32 = 1;
/// What it answers is logged (SECCOMP_FILTER_FLAG_LOG).
const LOG: u32 = 2;

impl Filter {
    /// Puts a program before a chain. ENOMEM if the chain gets too long.
    pub fn new(program: Program, flags: u32, before: Option<Arc<Self>>) -> Result<Self, Errno> {
        let filter = Self { program, flags, before };
        let length = |filter: &Self| filter.program.instructions().len();
        let all =
            length(&filter) + filter.chain().skip(1).map(|f| length(f) + PENALTY).sum::<usize>();
        if all > MAX_CHAIN {
            return Err(errno::ENOMEM);
        }
        Ok(filter)
    }

    /// What [`new`](Self::new) takes.
    pub fn flags(listener: bool, log: bool) -> u32 {
        let bit = |is_set, bit| if is_set { bit } else { 0 };
        bit(listener, LISTENER) | bit(log, LOG)
    }

    /// Whether somebody listens to its SECCOMP_RET_USER_NOTIF.
    pub fn has_listener(&self) -> bool {
        self.flags & LISTENER != 0
    }

    /// Whether an answer of its is logged (seccomp_log).
    pub fn logs(&self, verdict: Verdict) -> bool {
        match verdict.kind() {
            Verdict::ALLOW => false,
            Verdict::ERRNO | Verdict::TRAP | Verdict::TRACE | Verdict::USER_NOTIF => {
                self.flags & LOG != 0
            }
            _ => true,
        }
    }

    /// From the newest to the oldest.
    fn chain(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |filter| filter.before.as_deref())
    }

    /// Whether this is `other` or stood there before it.
    pub fn is_ancestor_of(self: &Arc<Self>, other: &Arc<Self>) -> bool {
        other.chain().any(|filter| std::ptr::eq(filter, &raw const **self))
    }

    /// The verdict: all filters are asked, and the strictest answer counts, of equals the newest's
    /// (seccomp_run_filters). Also whose it is.
    pub fn judge(&self, data: &Data) -> (Verdict, &Self) {
        let mut all = self.chain().map(|filter| (Verdict(filter.program.run(data)), filter));
        let first = all.next().expect("a chain has a member");
        all.fold(first, |best, next| if next.0.action() < best.0.action() { next } else { best })
    }

    /// The chain as bytes, from the oldest to the newest.
    pub fn to_bytes(&self) -> Vec<u8> {
        let all: Vec<&Self> = self.chain().collect();
        let mut bytes = Vec::new();
        for filter in all.iter().rev() {
            let list = filter.program.instructions();
            bytes.extend_from_slice(&filter.flags.to_le_bytes());
            bytes.extend_from_slice(&(list.len() as u32).to_le_bytes());
            for ins in list {
                bytes.extend_from_slice(&ins.code.to_le_bytes());
                bytes.extend_from_slice(&[ins.jt, ins.jf]);
                bytes.extend_from_slice(&ins.k.to_le_bytes());
            }
        }
        bytes
    }

    /// The chain that has these bytes; none if there is no such chain.
    pub fn from_bytes(bytes: &[u8]) -> Option<Arc<Self>> {
        let (words, []) = bytes.as_chunks::<8>() else { return None };
        let mut words = words.iter().map(|&word| u64::from_le_bytes(word));
        let mut chain = None;
        while let Some(head) = words.next() {
            let length = usize::try_from(head >> 32).ok().filter(|&length| length <= MAX_LENGTH)?;
            let list: Vec<Instruction> = words
                .by_ref()
                .take(length)
                .map(|word| Instruction {
                    code: word as u16,
                    jt: (word >> 16) as u8,
                    jf: (word >> 24) as u8,
                    k: (word >> 32) as u32,
                })
                .collect();
            if list.len() != length || head as u32 & !(LISTENER | LOG) != 0 {
                return None;
            }
            let program = Program::new(list).ok()?;
            chain = Some(Arc::new(Self::new(program, head as u32, chain).ok()?));
        }
        chain
    }
}

impl Drop for Filter {
    /// One after the other: a long chain would take much stack.
    fn drop(&mut self) {
        let mut before = self.before.take();
        while let Some(mut filter) = before.and_then(Arc::into_inner) {
            before = filter.before.take();
        }
    }
}

/// Reads `struct sock_fprog` from the guest: how many instructions there are, and where.
pub fn read_listing(addr: u64) -> Result<(usize, u64), Errno> {
    let [length, first] = guest::read::<[u64; 2]>(addr)?;
    let length = usize::from(length as u16);
    if !(1..=MAX_LENGTH).contains(&length) {
        return Err(errno::EINVAL);
    }
    Ok((length, first))
}

/// Reads a program from the guest.
pub fn read_program(length: usize, first: u64) -> Result<Vec<Instruction>, Errno> {
    (0..length as u64).map(|i| guest::read(first.wrapping_add(8 * i))).collect()
}

/// What a program returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict(pub u32);

/// SECCOMP_RET_ACTION_FULL.
const ACTION: u32 = 0xffff_0000;

#[allow(missing_docs)]
impl Verdict {
    pub const KILL_PROCESS: u32 = 0x8000_0000;
    pub const KILL_THREAD: u32 = 0;
    pub const TRAP: u32 = 0x0003_0000;
    pub const ERRNO: u32 = 0x0005_0000;
    pub const USER_NOTIF: u32 = 0x7fc0_0000;
    pub const TRACE: u32 = 0x7ff0_0000;
    pub const LOG: u32 = 0x7ffc_0000;
    pub const ALLOW: u32 = 0x7fff_0000;

    /// The actions there are.
    pub const ACTIONS: [u32; 8] = [
        Self::KILL_PROCESS,
        Self::KILL_THREAD,
        Self::TRAP,
        Self::ERRNO,
        Self::USER_NOTIF,
        Self::TRACE,
        Self::LOG,
        Self::ALLOW,
    ];

    /// The action, in an order of which the least is the strictest.
    fn action(self) -> i32 {
        (self.0 & ACTION) as i32
    }

    /// One of [`ACTIONS`](Self::ACTIONS), or what no kernel knows.
    pub fn kind(self) -> u32 {
        self.0 & ACTION
    }

    /// SECCOMP_RET_DATA.
    pub fn data(self) -> u16 {
        self.0 as u16
    }
}

#[cfg(test)]
mod tests {
    use super::super::bpf::code::{RET_A, RET_K};
    use super::super::bpf::tests::program;
    use super::*;
    use proptest::prelude::*;

    fn returning(value: u32, before: Option<Arc<Filter>>) -> Arc<Filter> {
        let program = Program::new(vec![Instruction::new(RET_K, value)]).unwrap();
        Arc::new(Filter::new(program, 0, before).unwrap())
    }

    fn judge(values: &[u32]) -> (u32, usize) {
        let chain: Vec<_> = values
            .iter()
            .scan(None, |before: &mut Option<Arc<Filter>>, &value| {
                let filter = returning(value, before.take());
                *before = Some(filter.clone());
                Some(filter)
            })
            .collect();
        let (verdict, by) = chain.last().unwrap().judge(&Data::default());
        (verdict.0, chain.iter().position(|f| std::ptr::eq(&raw const **f, by)).unwrap())
    }

    #[test]
    fn the_strictest_counts() {
        assert!(Verdict::ACTIONS.is_sorted_by_key(|&action| action as i32));
        for (i, &strict) in Verdict::ACTIONS.iter().enumerate() {
            for &mild in &Verdict::ACTIONS[i + 1..] {
                assert_eq!(judge(&[strict, mild]), (strict, 0));
                assert_eq!(judge(&[mild, strict]), (strict, 1));
            }
        }
    }

    #[test]
    fn of_equals_the_newest_counts() {
        assert_eq!(judge(&[Verdict::ERRNO | 1, Verdict::ERRNO | 2, Verdict::ALLOW]), (0x5_0002, 1));
    }

    #[test]
    fn ancestors() {
        let first = returning(1, None);
        let (second, other) =
            (returning(2, Some(first.clone())), returning(2, Some(first.clone())));
        assert!(first.is_ancestor_of(&second) && first.is_ancestor_of(&first));
        assert!(!second.is_ancestor_of(&first) && !second.is_ancestor_of(&other));
    }

    #[test]
    fn chains_have_an_end() {
        let mut chain = None;
        let length = (0..).find(|_| {
            let program = Program::new(vec![Instruction::new(RET_A, 0)]).unwrap();
            match Filter::new(program, 0, chain.clone()) {
                Ok(filter) => chain = Some(Arc::new(filter)),
                Err(error) => {
                    assert_eq!(error, errno::ENOMEM);
                    return true;
                }
            }
            false
        });
        assert_eq!(length, Some(MAX_CHAIN.div_ceil(1 + PENALTY)));
    }

    proptest! {
        #[test]
        fn chains_are_the_same_on_the_other_side(
            lists in prop::collection::vec((program(), 0u32..4), 1..8), cut in 1usize..8,
        ) {
            let mut chain: Option<Arc<Filter>> = None;
            for (list, flags) in lists {
                if let Ok(program) = Program::new(list) {
                    chain = Some(Arc::new(Filter::new(program, flags, chain).unwrap()));
                }
            }
            prop_assume!(chain.is_some());
            let bytes = chain.unwrap().to_bytes();
            prop_assert_eq!(Filter::from_bytes(&bytes).unwrap().to_bytes(), bytes.clone());
            prop_assert!(Filter::from_bytes(&bytes[..bytes.len() - cut]).is_none());
        }
    }
}
