//! SHA256RNDS2 and its kin on a host that has SHA256H.
//!
//! x86 does two rounds at a time on the words A B E F and C D G H, Arm four on A B C D and E F G H. Programs come in
//! pairs of SHA256RNDS2, the second with the other half of the same message words: then the first does all four rounds,
//! in temporaries, and the second puts the words where x86 wants them. What it leaves in Arm's order is taken up by the
//! next pair; if nothing looks at the words before, they are [late](super::late) and not put into their places at all. Nor
//! is the other half of the message words. And Arm has one instruction for the last two steps of the message
//! schedule, PADDD and SHA256MSG2.

use super::crypto::call_sha;
use super::late::{Aligned, LeftOut, Schedule, accesses_memory};
use super::operands::vec_of;
use super::table::{Rows, plain};
use super::{Lower, Lowered, VZERO};
use crate::asm::V;
use crate::helpers::Helper;
use crate::region::{Insn, Next};
use dynasmrt::{DynasmApi, dynasm};
use iced_x86::{Instruction, Mnemonic as M, OpKind, Register};

pub(super) const ROWS: Rows = &[
    plain(M::Sha256rnds2, sha256rnds2),
    plain(M::Sha256msg1, sha256msg1),
    plain(M::Sha256msg2, sha256msg2),
];

/// The words in Arm's order. No lowering of an instruction that [`is_harmless`] uses these registers.
const ABCD: V = V(26);
const EFGH: V = V(27);

/// What [`ABCD`] and [`EFGH`] hold, on the way to an instruction of the region. Control does not come in before that
/// from elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// The words after four rounds, for the second SHA256RNDS2 of a pair.
    Rounds(usize),
    /// The words as its operands have them, for the first one of a pair.
    Words(usize),
}

/// The registers of a SHA256RNDS2: C D G H, and A B E F.
fn registers(ins: &Instruction) -> Option<(Register, Register)> {
    let applies = ins.mnemonic() == M::Sha256rnds2 && ins.op1_kind() == OpKind::Register;
    applies.then(|| (ins.op0_register(), ins.op1_register()))
}

/// Instructions between that leave [`ABCD`], [`EFGH`], [`super::sse_shuffle::INDICES`] and control alone, and call no helper.
pub(super) fn is_harmless(insn: &Insn) -> bool {
    use M::*;
    let ins = &insn.ins;
    let integer = match ins.mnemonic() {
        Mov => (0..2).all(|i| ins.op_kind(i) != OpKind::Register || ins.op_register(i).is_gpr()),
        Add | Sub | Dec | Inc | Cmp | Lea | Nop => true,
        _ => false,
    };
    insn.next == Next::Inside
        && (integer && !accesses_memory(ins)
            || matches!(
                ins.mnemonic(),
                Movdqa
                    | Movdqu
                    | Movaps
                    | Movups
                    | Paddd
                    | Palignr
                    | Pshufb
                    | Pshufd
                    | Pxor
                    | Sha256msg1
                    | Sha256msg2
            ))
}

fn writes(ins: &Instruction, register: Register) -> bool {
    ins.op0_register() == register
}

fn mentions(ins: &Instruction, register: Register) -> bool {
    (0..ins.op_count()).any(|i| ins.op_register(i) == register)
}

/// PSHUFD XMM0, XMM0, 0Eh: the upper two words become the lower ones.
fn takes_other_half(ins: &Instruction) -> bool {
    ins.mnemonic() == M::Pshufd
        && ins.op0_register() == Register::XMM0
        && ins.op1_kind() == OpKind::Register
        && ins.op1_register() == Register::XMM0
        && ins.immediate8() & 0xf == 0xe
}

/// EXT of the last three words before the newest ones and the first one of those (Arm ARM C7.2.66).
fn aligned_word(to: Register, before: Register, newest: Register) -> u32 {
    let [d, n, m] = [to, before, newest].map(|register| vec_of(register).n());
    0x6e00_2000 | m << 16 | n << 5 | d
}

impl Lower<'_> {
    /// The first instruction behind `index` that satisfies the condition, straight on, with harmless ones between.
    fn straight_on(
        &self,
        index: usize,
        condition: impl Fn(&Instruction) -> bool,
    ) -> Option<(usize, &[Insn])> {
        for (i, insn) in self.region.insns.iter().enumerate().skip(index + 1) {
            if insn.join {
                return None;
            }
            if condition(&insn.ins) {
                return Some((i, &self.region.insns[index + 1..i]));
            }
            if !is_harmless(insn) && registers(&insn.ins).is_none() {
                return None;
            }
        }
        None
    }

    /// The next SHA256RNDS2 of two registers behind `index`; all between satisfy the condition.
    fn next_rounds(
        &self,
        index: usize,
        of: (Register, Register),
        between: impl Fn(&Instruction) -> bool,
    ) -> Option<usize> {
        let (next, others) = self.straight_on(index, |ins| registers(ins).is_some())?;
        let same = registers(&self.region.insns[next].ins) == Some(of);
        (same && others.iter().all(|insn| between(&insn.ins))).then_some(next)
    }

    /// The second of the pair whose first is at `first`, and the instruction between that takes the other half of the
    /// message words: nothing between can fault or look at C D G H.
    fn second_of_pair(
        &self,
        first: usize,
        cdgh: Register,
        abef: Register,
    ) -> Option<(usize, usize)> {
        let quiet = |ins: &Instruction| {
            !accesses_memory(ins)
                && !mentions(ins, cdgh)
                && !writes(ins, abef)
                && (!writes(ins, Register::XMM0) || takes_other_half(ins))
        };
        let second = self.next_rounds(first, (abef, cdgh), quiet)?;
        let mut halves =
            (first + 1..second).filter(|&i| takes_other_half(&self.region.insns[i].ins));
        let (half, one) = (halves.next()?, halves.next().is_none());
        (one && cdgh != Register::XMM0 && abef != Register::XMM0).then_some((second, half))
    }

    /// The first SHA256RNDS2 of a next pair, that has the words of the current one as it leaves them.
    fn next_pair(&self, cdgh: Register, abef: Register) -> Option<usize> {
        let unchanged = |ins: &Instruction| !writes(ins, cdgh) && !writes(ins, abef);
        self.next_rounds(self.index, (cdgh, abef), unchanged)
    }

    /// Whether the words need not be in their registers until that one, which takes them from [`ABCD`] and [`EFGH`].
    fn are_words_unseen(&self, next: usize, cdgh: Register, abef: Register) -> bool {
        let unseen = |insn: &Insn| !mentions(&insn.ins, cdgh) && !mentions(&insn.ins, abef);
        self.may_be_late()
            && self.region.insns[self.index + 1..next].iter().all(unseen)
            && self.second_of_pair(next, cdgh, abef).is_some()
    }

    /// The move behind `index` that overwrites a register, at which nothing looks before.
    fn overwritten(&self, index: usize, register: Register) -> Option<usize> {
        let implied = |ins: &Instruction| register == Register::XMM0 && registers(ins).is_some();
        let (index, _) = self.straight_on(index, |ins| mentions(ins, register) || implied(ins))?;
        let ins = &self.region.insns[index].ins;
        let moves = matches!(ins.mnemonic(), M::Movdqa | M::Movdqu | M::Movaps | M::Movups);
        let from_itself = ins.op1_kind() == OpKind::Register && ins.op1_register() == register;
        (moves && writes(ins, register) && !from_itself).then_some(index)
    }

    /// The instruction before `index` that was the last one to look at `register`, or to write it: a mnemonic with that
    /// register and another one.
    fn earlier(&self, index: usize, mnemonic: M, register: Register) -> Option<(usize, Register)> {
        let insns = &self.region.insns;
        let i = insns[..index].iter().rposition(|insn| mentions(&insn.ins, register))?;
        let passed = |insn: &Insn| is_harmless(insn) || registers(&insn.ins).is_some();
        let straight = insns[i].next == Next::Inside
            && insns[i + 1..index].iter().all(passed)
            && insns[i + 1..=index].iter().all(|insn| !insn.join);
        let ins = &insns[i].ins;
        let fits = ins.mnemonic() == mnemonic
            && ins.op1_kind() == OpKind::Register
            && writes(ins, register);
        (straight && fits).then(|| (i, ins.op1_register()))
    }

    /// The SHA256MSG2 whose work can be done, with the current PADDD's, by one instruction of Arm's: the PADDD adds
    /// w\[t-7\], which PALIGNR has put together from the second operand and the words before those.
    fn early_schedule(&self, words: Register, added: Register) -> Option<Schedule> {
        let insns = &self.region.insns;
        let (aligned, before) = self.earlier(self.index, M::Palignr, added)?;
        let (moved, newest) = self.earlier(aligned, M::Movdqa, added)?;
        let is_last_step = |ins: &Instruction| {
            ins.mnemonic() == M::Sha256msg2
                && ins.op1_kind() == OpKind::Register
                && (ins.op0_register(), ins.op1_register()) == (words, newest)
        };
        let (index, between) = self.straight_on(self.index, is_last_step)?;
        let same = |insn: &Insn| !writes(&insn.ins, before) && !writes(&insn.ins, newest);
        let unseen = |insn: &Insn| !mentions(&insn.ins, words) && !writes(&insn.ins, newest);
        let mut others = [words, newest, added, before, Register::XMM0];
        others.sort();
        let different = others.windows(2).all(|pair| pair[0] != pair[1]);
        (insns[aligned].ins.immediate8() == 4
            && different
            && self.may_be_late()
            && self.late.schedule.is_none()
            && insns[moved + 1..self.index].iter().all(same)
            && between.iter().all(unseen))
        .then_some(Schedule { index, words, newest, before })
    }

    /// A PADDD that stands in the message schedule, together with what follows.
    pub fn message_schedule(&mut self, ins: &Instruction) -> bool {
        let registers = ins.mnemonic() == M::Paddd && ins.op1_kind() == OpKind::Register;
        if !registers || !self.config.host.sha2 || self.vector_copied.is_some() {
            return false;
        }
        let (words, added) = (ins.op0_register(), ins.op1_register());
        let Some(early) = self.early_schedule(words, added) else { return false };
        self.leave_aligned(added, &early);
        let (d, n, m) = (vec_of(words), vec_of(early.before), vec_of(early.newest));
        dynasm!(self.a; .arch aarch64; sha256su1 V(d.0).s4, V(n.0).s4, V(m.0).s4);
        self.carries = true;
        self.late.schedule = Some(early);
        true
    }

    /// Takes PALIGNR back, if it is what was emitted last: only the current PADDD looks at its result.
    fn leave_aligned(&mut self, added: Register, early: &Schedule) {
        let Some(overwritten) = self.overwritten(self.index, added) else { return };
        let Schedule { before, newest, .. } = *early;
        let same = |insn: &Insn| !writes(&insn.ins, before) && !writes(&insn.ins, newest);
        let possible = self.late.aligned.is_none()
            && self.region.insns[self.index + 1..overwritten].iter().all(same)
            && self.take_back(aligned_word(added, before, newest));
        if possible {
            self.late.aligned = Some(Aligned { added, before, newest, overwritten });
        }
    }

    /// Does what was taken back.
    pub(super) fn put_aligned(&mut self, aligned: Aligned) {
        let Aligned { added, before, newest, .. } = aligned;
        self.a.word(aligned_word(added, before, newest));
    }

    /// What [`Self::message_schedule`] leaves, as it was before SHA256MSG2: without σ1(w\[t-2\]). Of the last two words that is
    /// of the first two.
    pub(super) fn undo_schedule(&mut self, early: Schedule) {
        let (d, m) = (vec_of(early.words), vec_of(early.newest));
        let (words, first, last) = (self.vtmp(), self.vtmp(), self.vtmp());
        dynasm!(self.a; .arch aarch64
            ; zip2 V(words.0).d2, V(VZERO.0).d2, V(m.0).d2
            ; movi V(first.0).d2, 0
            ; sha256su1 V(first.0).s4, V(VZERO.0).s4, V(words.0).s4
            ; zip1 V(words.0).d2, V(VZERO.0).d2, V(d.0).d2
            ; movi V(last.0).d2, 0
            ; sha256su1 V(last.0).s4, V(VZERO.0).s4, V(words.0).s4
            ; zip1 V(first.0).d2, V(first.0).d2, V(last.0).d2
            ; sub V(d.0).s4, V(d.0).s4, V(first.0).s4);
    }

    /// Puts words into Arm's order.
    pub(super) fn words_to_arm(&mut self, abcd: V, efgh: V, abef: V, cdgh: V) {
        dynasm!(self.a; .arch aarch64
            ; zip2 V(abcd.0).d2, V(abef.0).d2, V(cdgh.0).d2
            ; rev64 V(abcd.0).s4, V(abcd.0).s4
            ; zip1 V(efgh.0).d2, V(abef.0).d2, V(cdgh.0).d2
            ; rev64 V(efgh.0).s4, V(efgh.0).s4);
    }

    /// Four rounds with the message words in v0.
    fn four_rounds(&mut self, abcd: V, efgh: V) {
        let before = self.vtmp();
        self.vmov(before, abcd);
        dynasm!(self.a; .arch aarch64
            ; sha256h Q(abcd.0), Q(efgh.0), v0.s4
            ; sha256h2 Q(efgh.0), Q(before.0), v0.s4);
    }

    /// Puts the words into the guest's registers.
    pub(super) fn put_words(&mut self, cdgh: Register, abef: Register) {
        self.words_to_x86(vec_of(abef), ABCD, EFGH, false);
        self.words_to_x86(vec_of(cdgh), ABCD, EFGH, true);
    }

    /// The words A B E F after the rounds of a pair, or (of the upper halves) after the first two of them.
    pub(super) fn words_to_x86(&mut self, d: V, abcd: V, efgh: V, upper: bool) {
        if upper {
            dynasm!(self.a; .arch aarch64; zip2 V(d.0).d2, V(efgh.0).d2, V(abcd.0).d2);
        } else {
            dynasm!(self.a; .arch aarch64; zip1 V(d.0).d2, V(efgh.0).d2, V(abcd.0).d2);
        }
        dynasm!(self.a; .arch aarch64; rev64 V(d.0).s4, V(d.0).s4);
    }
}

fn sha256rnds2(l: &mut Lower, ins: &Instruction) -> Lowered {
    if !l.config.host.sha2 {
        return call_sha(l, ins, Helper::Sha256Rnds2);
    }
    l.carries = true;
    let kept = l.sha256.take();
    let abef = l.vread(ins, 1, 16);
    let cdgh = vec_of(ins.op0_register());
    if let Some((c, a)) = registers(ins) {
        if kept == Some(Kept::Rounds(l.index)) {
            end_pair(l, a, c); // the other way round than in the first
            return Ok(());
        }
        if let Some((second, half)) = l.second_of_pair(l.index, c, a) {
            if kept != Some(Kept::Words(l.index)) {
                l.words_to_arm(ABCD, EFGH, abef, cdgh);
            }
            l.late.words = None;
            l.four_rounds(ABCD, EFGH);
            l.sha256 = Some(Kept::Rounds(second));
            if l.may_be_late()
                && let Some(overwritten) = l.overwritten(second, Register::XMM0)
            {
                l.late.left_out = Some(LeftOut { index: half, overwritten });
            }
            return Ok(());
        }
    }
    // Two rounds of the four that Arm's instructions do: their results are the upper halves, whatever the other two
    // message words were.
    let (abcd, efgh) = (l.vtmp(), l.vtmp());
    l.words_to_arm(abcd, efgh, abef, cdgh);
    l.four_rounds(abcd, efgh);
    l.words_to_x86(cdgh, abcd, efgh, true);
    Ok(())
}

/// The second of a pair, whose first one has these operands.
fn end_pair(l: &mut Lower, cdgh: Register, abef: Register) {
    let next = l.next_pair(cdgh, abef);
    l.sha256 = next.map(Kept::Words);
    if next.is_some_and(|next| l.are_words_unseen(next, cdgh, abef)) {
        l.late.words = Some((cdgh, abef));
    } else {
        l.put_words(cdgh, abef);
    }
}

fn sha256msg1(l: &mut Lower, ins: &Instruction) -> Lowered {
    if !l.config.host.sha2 {
        return call_sha(l, ins, Helper::Sha256Msg1);
    }
    let m = l.vread(ins, 1, 16);
    let d = vec_of(ins.op0_register());
    dynasm!(l.a; .arch aarch64; sha256su0 V(d.0).s4, V(m.0).s4);
    Ok(())
}

/// Arm's instruction also adds w\[t-7\], which x86 leaves to others: zeros here.
fn sha256msg2(l: &mut Lower, ins: &Instruction) -> Lowered {
    if !l.config.host.sha2 {
        return call_sha(l, ins, Helper::Sha256Msg2);
    }
    let m = l.vread(ins, 1, 16);
    let d = vec_of(ins.op0_register());
    let t = l.vtmp();
    dynasm!(l.a; .arch aarch64
        ; zip2 V(t.0).d2, V(VZERO.0).d2, V(m.0).d2
        ; sha256su1 V(d.0).s4, V(VZERO.0).s4, V(t.0).s4);
    Ok(())
}
