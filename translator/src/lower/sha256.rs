//! SHA256RNDS2 and its kin on a host that has SHA256H.
//!
//! x86 does two rounds at a time on the words A B E F and C D G H, Arm four on A B C D and E F G H. Programs come in
//! pairs of SHA256RNDS2, the second with the other half of the same message words: then the first does all four rounds,
//! in temporaries, and the second puts the words where x86 wants them. What it leaves in Arm's order is taken up by the
//! next pair.

use super::crypto::call_sha;
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

/// Instructions between that leave [`ABCD`], [`EFGH`] and control alone.
fn is_harmless(insn: &Insn) -> bool {
    use M::*;
    insn.next == Next::Inside
        && matches!(
            insn.ins.mnemonic(),
            Mov | Lea
                | Add
                | Sub
                | Dec
                | Inc
                | Cmp
                | Nop
                | Movdqa
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
        )
}

fn has_memory_operand(ins: &Instruction) -> bool {
    ins.op_kinds().any(|kind| kind == OpKind::Memory)
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

impl Lower<'_> {
    /// The next SHA256RNDS2 behind the current instruction, straight on; all between satisfy the condition.
    fn next_rounds(&self, between: impl Fn(&Instruction) -> bool) -> Option<usize> {
        for (i, insn) in self.region.insns.iter().enumerate().skip(self.index + 1) {
            if insn.join {
                return None;
            }
            if registers(&insn.ins).is_some() {
                return Some(i);
            }
            if !is_harmless(insn) || !between(&insn.ins) {
                return None;
            }
        }
        None
    }

    /// The second of the pair that the current SHA256RNDS2 is the first of: nothing between can fault or look at C D G H.
    fn second_of_pair(&self, cdgh: Register, abef: Register) -> Option<usize> {
        let quiet = |ins: &Instruction| {
            !has_memory_operand(ins)
                && !mentions(ins, cdgh)
                && !writes(ins, abef)
                && (!writes(ins, Register::XMM0) || takes_other_half(ins))
        };
        let second = self.next_rounds(quiet)?;
        let between = &self.region.insns[self.index + 1..second];
        let halves = between.iter().filter(|insn| takes_other_half(&insn.ins)).count();
        let swapped = registers(&self.region.insns[second].ins) == Some((abef, cdgh));
        (halves == 1 && swapped && cdgh != Register::XMM0 && abef != Register::XMM0)
            .then_some(second)
    }

    /// The first of a next pair, that has the words of the current one as it leaves them.
    fn next_pair(&self, cdgh: Register, abef: Register) -> Option<usize> {
        let next = self.next_rounds(|ins| !writes(ins, cdgh) && !writes(ins, abef))?;
        (registers(&self.region.insns[next].ins) == Some((cdgh, abef))).then_some(next)
    }

    /// Puts words into Arm's order.
    fn words_to_arm(&mut self, abcd: V, efgh: V, abef: V, cdgh: V) {
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

    /// The words A B E F after the rounds of a pair, or (of the upper halves) after the first two of them.
    fn words_to_x86(&mut self, d: V, abcd: V, efgh: V, upper: bool) {
        let t = self.vtmp();
        if upper {
            dynasm!(self.a; .arch aarch64; zip2 V(t.0).d2, V(efgh.0).d2, V(abcd.0).d2);
        } else {
            dynasm!(self.a; .arch aarch64; zip1 V(t.0).d2, V(efgh.0).d2, V(abcd.0).d2);
        }
        dynasm!(self.a; .arch aarch64; rev64 V(d.0).s4, V(t.0).s4);
    }
}

fn sha256rnds2(l: &mut Lower, ins: &Instruction) -> Lowered {
    if !l.config.host.sha2 {
        return call_sha(l, ins, Helper::Sha256Rnds2);
    }
    let kept = l.sha256.take();
    let abef = l.vread(ins, 1, 16);
    let cdgh = vec_of(ins.op0_register());
    if let Some((c, a)) = registers(ins) {
        if kept == Some(Kept::Rounds(l.index)) {
            l.words_to_x86(cdgh, ABCD, EFGH, false);
            l.words_to_x86(abef, ABCD, EFGH, true);
            l.sha256 = l.next_pair(a, c).map(Kept::Words);
            return Ok(());
        }
        if let Some(second) = l.second_of_pair(c, a) {
            if kept != Some(Kept::Words(l.index)) {
                l.words_to_arm(ABCD, EFGH, abef, cdgh);
            }
            l.four_rounds(ABCD, EFGH);
            l.sha256 = Some(Kept::Rounds(second));
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
