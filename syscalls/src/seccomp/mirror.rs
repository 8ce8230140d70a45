//! What the host's kernel knows of the guest's filters. For each of them there is one on the host: it lets every
//! system call through, and answers questions that are asked by gettid(2) with arguments, which that call has none
//! of.
//!
//! With it the kernel does what only it can: it says who may have filters, keeps them over fork(2), clone(2) and
//! execve(2), gives them to other threads, shows them in /proc, ends a thread with SIGSYS, and tells a listener. The
//! answers cannot be changed by anybody, so they say which filters a program executed by the guest has, even one
//! that has more privileges ([`super::handover`]).

use super::bpf::{Instruction, code};
use super::filter::Verdict;
use crate::host::{self, SysResult};
use crate::table::host as nr;

/// Upper halves of the first argument: a question, whose number is the lower half; and something to tell the
/// listener.
const QUESTION: u32 = 0x5ec0_a54d;
pub(super) const TELL: u32 = 0x5ec0_7e11;

/// The first answers, by which a filter of ours is known.
const SIGN: [u16; 2] = [0xd3a, 0x2c5];

/// Pieces of a digest, and bits in each: an answer is an error number.
const PIECES: usize = 16;
const BITS: usize = 12;

/// What a chain of filters is known by.
pub type Digest = [u16; PIECES];

/// What is done instead of answering a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// The thread ends, with SIGSYS.
    KillThread = 100,
    /// The process ends, with SIGSYS.
    KillProcess = 101,
}

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const LOWER: u32 = 16;
const UPPER: u32 = 20;

/// The host's filter for a chain whose newest filter is to be there now.
fn program(digest: &Digest, listener: bool) -> Vec<Instruction> {
    use Verdict as V;
    const JEQ: u16 = code::JMP | code::JEQ;
    let ret = |value| Instruction::new(code::RET_K, value);
    let told = if listener { V::USER_NOTIF } else { V::ALLOW };
    let mut list = vec![
        Instruction::new(code::LD_ABS, NUMBER),
        Instruction::jump(JEQ, nr::gettid as u32, 1, 0),
        ret(V::ALLOW),
        Instruction::new(code::LD_ABS, UPPER),
        Instruction::jump(JEQ, TELL, 0, 1),
        ret(told),
        Instruction::jump(JEQ, QUESTION, 1, 0),
        ret(V::ALLOW),
        Instruction::new(code::LD_ABS, LOWER),
    ];
    let answers = SIGN.iter().chain(digest).map(|&piece| V::ERRNO | u32::from(piece));
    let deeds =
        [(Deed::KillThread as u32, V::KILL_THREAD), (Deed::KillProcess as u32, V::KILL_PROCESS)];
    for (question, value) in (0..).zip(answers).chain(deeds) {
        list.extend([Instruction::jump(JEQ, question, 0, 1), ret(value)]);
    }
    list.push(ret(V::ALLOW));
    list
}

/// Installs the host's filter for one of the guest's. `flags` are the guest's of seccomp(2).
pub fn install(digest: &Digest, listener: bool, flags: u64) -> SysResult {
    const SET_MODE_FILTER: u64 = 1;
    /// SECCOMP_FILTER_FLAG_LOG: the answers are not worth it.
    const LOG: u64 = 1 << 1;
    let list = program(digest, listener);
    let listing = [list.len() as u64, list.as_ptr() as u64];
    let args = [SET_MODE_FILTER, flags & !LOG, listing.as_ptr() as u64, 0, 0, 0];
    // SAFETY: the kernel reads the structure and the list. Every call of ours passes the filter.
    host::result(unsafe { host::syscall(nr::seccomp, args) })
}

/// Asks the newest of the host's filters.
fn ask(question: u32) -> i64 {
    let argument = u64::from(QUESTION) << 32 | u64::from(question);
    // SAFETY: gettid(2) touches no memory.
    unsafe { host::syscall(nr::gettid, [argument, 0, 0, 0, 0, 0]) }
}

/// The answer to a question; none without a filter of ours.
fn answer(question: usize) -> Option<u16> {
    let result = ask(question as u32);
    (result <= 0).then_some(-result as u16)
}

/// The chain of this thread, which may be one of a program that executed this one.
pub fn read() -> Option<Digest> {
    let signed = SIGN.iter().enumerate().all(|(i, &piece)| answer(i) == Some(piece));
    if !signed {
        return None;
    }
    let mut digest = [0; PIECES];
    for (i, piece) in digest.iter_mut().enumerate() {
        *piece = answer(SIGN.len() + i)?;
    }
    Some(digest)
}

/// Has the kernel do something. It comes back if there is no filter of ours.
pub fn have_done(deed: Deed) {
    ask(deed as u32);
}

/// The digest of bytes: the beginning of their SHA-256.
pub fn digest(bytes: &[u8]) -> Digest {
    use sha2::{Digest as _, Sha256};
    let hash = Sha256::digest(bytes);
    let bit = |at: usize| u16::from(hash[at / 8] >> (at % 8) & 1);
    std::array::from_fn(|i| (0..BITS).fold(0, |piece, b| piece | bit(i * BITS + b) << b))
}

#[cfg(test)]
mod tests {
    use super::super::bpf::{Data, Program};
    use super::*;
    use proptest::prelude::*;

    /// The host kernel's answer to an argument of gettid(2).
    fn filtered(program: &Program, nr: u64, argument: u64) -> Verdict {
        let args = [argument, 0, 0, 0, 0, 0];
        Verdict(program.run(&Data { nr: nr as i32, args, ..Data::default() }))
    }

    #[test]
    fn digests_differ() {
        assert_ne!(digest(b"a"), digest(b"b"));
        assert!(digest(b"a").iter().all(|&piece| piece < 1 << BITS));
    }

    proptest! {
        #[test]
        fn every_piece_is_answered(digest: [u16; PIECES], listener: bool, nr in 0u64..500, argument: u64) {
            let digest = digest.map(|piece| piece & 0xfff);
            let program = Program::new(program(&digest, listener)).unwrap();
            let question = |i: usize| filtered(&program, nr::gettid, u64::from(QUESTION) << 32 | i as u64);
            for (i, &piece) in SIGN.iter().chain(&digest).enumerate() {
                prop_assert_eq!(question(i), Verdict(Verdict::ERRNO | u32::from(piece)));
            }
            prop_assert_eq!(question(Deed::KillThread as usize), Verdict(Verdict::KILL_THREAD));
            prop_assert_eq!(question(Deed::KillProcess as usize), Verdict(Verdict::KILL_PROCESS));
            let told = if listener { Verdict::USER_NOTIF } else { Verdict::ALLOW };
            let tell = u64::from(TELL) << 32 | argument >> 32;
            prop_assert_eq!(filtered(&program, nr::gettid, tell), Verdict(told));
            // All else is let through.
            prop_assert_eq!(question(SIGN.len() + PIECES), Verdict(Verdict::ALLOW));
            prop_assert_eq!(filtered(&program, nr::gettid, argument & 0xff), Verdict(Verdict::ALLOW));
            if nr != nr::gettid {
                prop_assert_eq!(filtered(&program, nr, argument), Verdict(Verdict::ALLOW));
            }
        }
    }
}
