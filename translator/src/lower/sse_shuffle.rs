//! SSE shuffles: lanes moved, interleaved, packed, widened and blended.

use super::operands::vec_of;
use super::sha256::is_harmless;
use super::sse_int::Emit;
use super::table::{Rows, plain};
use super::{Lower, Lowered, Unimplemented, VZERO};
use crate::asm::{R, V};
use dynasmrt::{DynasmApi, dynasm};
use iced_x86::{Instruction, Mnemonic as M, OpKind};

/// The indices of PSHUFB as TBL wants them: for the next one with the same mask.
pub const INDICES: V = V(25);

/// Rows of two-operand shuffles that are one instruction `op d, d, m`, and of packs.
macro_rules! pairs {
    (
        ($a:ident, $d:ident, $m:ident)
        same { $($one:ident $op:tt $shape:ident;)* }
        pack { $($name:ident $low:tt $high:tt $half:ident $full:ident $from:ident;)* }
    ) => {
        pub(super) const PAIR_ROWS: Rows = &[
            $(plain(M::$one, interleave),)*
            $(plain(M::$name, interleave),)*
        ];

        /// The operation of such a mnemonic.
        pub(super) fn pair_operation(mnemonic: M) -> Option<Emit> {
            Some(match mnemonic {
                $(M::$one => |$a, $d, n, $m| {
                    dynasm!($a; .arch aarch64; $op V($d).$shape, V(n).$shape, V($m).$shape)
                },)*
                $(M::$name => |$a, $d, n, $m| if $d == $m {
                    dynasm!($a; .arch aarch64
                        ; $low v31.$half, V(n).$from
                        ; $high v31.$full, V($m).$from
                        ; mov V($d).b16, v31.b16);
                } else {
                    dynasm!($a; .arch aarch64
                        ; $low V($d).$half, V(n).$from
                        ; $high V($d).$full, V($m).$from);
                },)*
                _ => return None,
            })
        }
    };
}

pairs! {
    (a, d, m)
    same {
        Punpcklbw zip1 b16; Punpcklwd zip1 h8; Punpckldq zip1 s4; Punpcklqdq zip1 d2;
        Punpckhbw zip2 b16; Punpckhwd zip2 h8; Punpckhdq zip2 s4; Punpckhqdq zip2 d2;
        Unpcklps zip1 s4; Unpckhps zip2 s4; Unpcklpd zip1 d2; Unpckhpd zip2 d2;
    }
    pack {
        Packsswb sqxtn sqxtn2 b8 b16 h8;
        Packuswb sqxtun sqxtun2 b8 b16 h8;
        Packssdw sqxtn sqxtn2 h4 h8 s4;
        Packusdw sqxtun sqxtun2 h4 h8 s4;
    }
}

pub(super) const ROWS: Rows = &[
    plain(M::Pshufd, pshufd),
    plain(M::Pshuflw, pshufw),
    plain(M::Pshufhw, pshufw),
    plain(M::Shufps, shufps),
    plain(M::Shufpd, shufpd),
    plain(M::Pshufb, pshufb),
    plain(M::Palignr, palignr),
    plain(M::Movddup, movddup),
    plain(M::Movsldup, movsldup),
    plain(M::Movshdup, movsldup),
    plain(M::Pmovsxbw, widen),
    plain(M::Pmovsxbd, widen),
    plain(M::Pmovsxbq, widen),
    plain(M::Pmovsxwd, widen),
    plain(M::Pmovsxwq, widen),
    plain(M::Pmovsxdq, widen),
    plain(M::Pmovzxbw, widen),
    plain(M::Pmovzxbd, widen),
    plain(M::Pmovzxbq, widen),
    plain(M::Pmovzxwd, widen),
    plain(M::Pmovzxwq, widen),
    plain(M::Pmovzxdq, widen),
    plain(M::Pblendw, blend_immediate),
    plain(M::Blendps, blend_immediate),
    plain(M::Blendpd, blend_immediate),
    plain(M::Pblendvb, blend_variable),
    plain(M::Blendvps, blend_variable),
    plain(M::Blendvpd, blend_variable),
    plain(M::Insertps, insertps),
];

fn interleave(l: &mut Lower, ins: &Instruction) -> Lowered {
    let emit = pair_operation(ins.mnemonic()).ok_or(Unimplemented)?;
    let m = l.vread(ins, 1, 16);
    let (d, n) = (vec_of(ins.op0_register()), l.first_vector(ins));
    emit(l.a, d.0, n.0, m.0);
    Ok(())
}

/// The byte indices (for TBL) that select 32-bit lanes.
fn lane_indices(lanes: [u32; 4]) -> u128 {
    lanes.iter().rev().fold(0, |v, &lane| v << 32 | u128::from(0x0302_0100 + 0x0404_0404 * lane))
}

/// The four two-bit selectors of a shuffle's immediate.
fn selectors(imm: u8) -> [u32; 4] {
    [0, 2, 4, 6].map(|shift| u32::from(imm >> shift) & 3)
}

impl Lower<'_> {
    /// d = the lanes of n that the immediate selects.
    fn vpermute(&mut self, d: V, n: V, imm: u8) {
        let (d, n) = (d.0, n.0);
        match imm {
            0xe4 if d == n => {}
            0xe4 => dynasm!(self.a; .arch aarch64; mov V(d).b16, V(n).b16),
            0x00 => dynasm!(self.a; .arch aarch64; dup V(d).s4, V(n).s[0]),
            0x55 => dynasm!(self.a; .arch aarch64; dup V(d).s4, V(n).s[1]),
            0xaa => dynasm!(self.a; .arch aarch64; dup V(d).s4, V(n).s[2]),
            0xff => dynasm!(self.a; .arch aarch64; dup V(d).s4, V(n).s[3]),
            0x44 => dynasm!(self.a; .arch aarch64; dup V(d).d2, V(n).d[0]),
            0xee => dynasm!(self.a; .arch aarch64; dup V(d).d2, V(n).d[1]),
            0x39 => dynasm!(self.a; .arch aarch64; ext V(d).b16, V(n).b16, V(n).b16, 4),
            0x4e => dynasm!(self.a; .arch aarch64; ext V(d).b16, V(n).b16, V(n).b16, 8),
            0x93 => dynasm!(self.a; .arch aarch64; ext V(d).b16, V(n).b16, V(n).b16, 12),
            0xb1 => dynasm!(self.a; .arch aarch64; rev64 V(d).s4, V(n).s4),
            0xa0 => dynasm!(self.a; .arch aarch64; trn1 V(d).s4, V(n).s4, V(n).s4),
            0xf5 => dynasm!(self.a; .arch aarch64; trn2 V(d).s4, V(n).s4, V(n).s4),
            0x50 => dynasm!(self.a; .arch aarch64; zip1 V(d).s4, V(n).s4, V(n).s4),
            0xfa => dynasm!(self.a; .arch aarch64; zip2 V(d).s4, V(n).s4, V(n).s4),
            0x88 => dynasm!(self.a; .arch aarch64; uzp1 V(d).s4, V(n).s4, V(n).s4),
            0xdd => dynasm!(self.a; .arch aarch64; uzp2 V(d).s4, V(n).s4, V(n).s4),
            _ => self.vtable(V(d), V(n), lane_indices(selectors(imm))),
        }
    }

    /// d = the bytes of n at constant indices.
    fn vtable(&mut self, d: V, n: V, indices: u128) {
        let t = self.vtmp();
        self.a.ldr_literal_q(t, indices);
        dynasm!(self.a; .arch aarch64; tbl V(d.0).b16, {V(n.0).b16 * 1}, V(t.0).b16);
    }
}

fn pshufd(l: &mut Lower, ins: &Instruction) -> Lowered {
    let n = l.vread(ins, 1, 16);
    l.vpermute(vec_of(ins.op0_register()), n, ins.immediate8());
    Ok(())
}

/// PSHUFLW and PSHUFHW: the words of one half are permuted.
fn pshufw(l: &mut Lower, ins: &Instruction) -> Lowered {
    let n = l.vread(ins, 1, 16);
    let half = if ins.mnemonic() == M::Pshufhw { 4 } else { 0 };
    let mut words = [0, 1, 2, 3, 4, 5, 6, 7];
    for (i, s) in selectors(ins.immediate8()).into_iter().enumerate() {
        words[half + i] = half as u32 + s;
    }
    let indices = words.iter().rev().fold(0, |v, &w| v << 16 | u128::from(0x0100 + 0x0202 * w));
    l.vtable(vec_of(ins.op0_register()), n, indices);
    Ok(())
}

/// Two lanes of the first operand, then two of the second.
fn shufps(l: &mut Lower, ins: &Instruction) -> Lowered {
    let vd = vec_of(ins.op0_register());
    let imm = ins.immediate8();
    let m = l.vread(ins, 1, 16);
    if m == vd {
        l.vpermute(vd, vd, imm);
        return Ok(());
    }
    let (d, m) = (vd.0, m.0);
    match imm {
        0x44 => dynasm!(l.a; .arch aarch64; zip1 V(d).d2, V(d).d2, V(m).d2),
        0xee => dynasm!(l.a; .arch aarch64; zip2 V(d).d2, V(d).d2, V(m).d2),
        0x88 => dynasm!(l.a; .arch aarch64; uzp1 V(d).s4, V(d).s4, V(m).s4),
        0xdd => dynasm!(l.a; .arch aarch64; uzp2 V(d).s4, V(d).s4, V(m).s4),
        0x4e => dynasm!(l.a; .arch aarch64; ext V(d).b16, V(d).b16, V(m).b16, 8),
        0xe4 => dynasm!(l.a; .arch aarch64; ins V(d).d[1], V(m).d[1]),
        _ => {
            // A table of two consecutive registers.
            let (first, second, indices) = (l.vtmp(), l.vtmp(), l.vtmp());
            debug_assert_eq!(first.0 + 1, second.0);
            let s = selectors(imm);
            l.a.ldr_literal_q(indices, lane_indices([s[0], s[1], s[2] + 4, s[3] + 4]));
            l.vmov(first, vd);
            l.vmov(second, V(m));
            dynasm!(l.a; .arch aarch64; tbl V(d).b16, {V(first.0).b16 * 2}, V(indices.0).b16);
        }
    }
    Ok(())
}

fn shufpd(l: &mut Lower, ins: &Instruction) -> Lowered {
    let d = vec_of(ins.op0_register()).0;
    let m = l.vread(ins, 1, 16).0;
    match ins.immediate8() & 3 {
        0 => dynasm!(l.a; .arch aarch64; zip1 V(d).d2, V(d).d2, V(m).d2),
        1 => dynasm!(l.a; .arch aarch64; ext V(d).b16, V(d).b16, V(m).b16, 8),
        2 if d == m => {}
        2 => dynasm!(l.a; .arch aarch64; ins V(d).d[1], V(m).d[1]),
        _ => dynasm!(l.a; .arch aarch64; zip2 V(d).d2, V(d).d2, V(m).d2),
    }
    Ok(())
}

/// An index with bit 7 set gives zero, any other counts modulo 16.
fn pshufb(l: &mut Lower, ins: &Instruction) -> Lowered {
    let d = vec_of(ins.op0_register());
    let t = INDICES;
    match l.same_shuffle_before(ins) {
        Some(since) => l.needs_what_ran_before(since),
        None => {
            let m = l.vread(ins, 1, 16);
            dynasm!(l.a; .arch aarch64
                ; movi V(t.0).b16, 0x8f
                ; and V(t.0).b16, V(t.0).b16, V(m.0).b16);
        }
    }
    dynasm!(l.a; .arch aarch64; tbl V(d.0).b16, {V(d.0).b16 * 1}, V(t.0).b16);
    Ok(())
}

impl Lower<'_> {
    /// The PSHUFB, by its index, that has left in [`INDICES`] what this one needs there.
    fn same_shuffle_before(&self, ins: &Instruction) -> Option<usize> {
        let mask = ins.op1_register();
        let insns = &self.region.insns;
        let mut i = self.index;
        while !insns[i].join && i > 0 {
            i -= 1;
            let before = &insns[i].ins;
            let sha = matches!(before.mnemonic(), M::Sha256rnds2 | M::Sha256msg1 | M::Sha256msg2);
            let leaves = if sha { self.config.host.sha2 } else { is_harmless(&insns[i]) };
            if !leaves || before.op0_register() == mask {
                return None;
            }
            if before.mnemonic() == M::Pshufb {
                let same = before.op1_kind() == OpKind::Register && before.op1_register() == mask;
                return same.then_some(i);
            }
        }
        None
    }
}

/// Bytes from the concatenation of the first operand (above) and the second.
fn palignr(l: &mut Lower, ins: &Instruction) -> Lowered {
    let (d, n) = (vec_of(ins.op0_register()), l.first_vector(ins));
    let m = l.vread(ins, 1, 16);
    let count = u32::from(ins.immediate8());
    match count {
        0 if d == m => {}
        0 => l.vmov(d, m),
        1..16 => dynasm!(l.a; .arch aarch64; ext V(d.0).b16, V(m.0).b16, V(n.0).b16, count),
        16 if d == n => {}
        16 => l.vmov(d, n),
        17..32 => {
            dynasm!(l.a; .arch aarch64; ext V(d.0).b16, V(n.0).b16, V(VZERO.0).b16, count - 16);
        }
        _ => l.vzero(d),
    }
    Ok(())
}

fn movddup(l: &mut Lower, ins: &Instruction) -> Lowered {
    let n = l.vread(ins, 1, 8);
    let d = vec_of(ins.op0_register());
    dynasm!(l.a; .arch aarch64; dup V(d.0).d2, V(n.0).d[0]);
    Ok(())
}

fn movsldup(l: &mut Lower, ins: &Instruction) -> Lowered {
    let n = l.vread(ins, 1, 16);
    let imm = if ins.mnemonic() == M::Movsldup { 0xa0 } else { 0xf5 };
    l.vpermute(vec_of(ins.op0_register()), n, imm);
    Ok(())
}

/// PMOVSX*, PMOVZX*: signedness, log2 of the bytes of a source and of a destination lane.
fn widening(m: M) -> (bool, u32, u32) {
    match m {
        M::Pmovsxbw => (true, 0, 1),
        M::Pmovsxbd => (true, 0, 2),
        M::Pmovsxbq => (true, 0, 3),
        M::Pmovsxwd => (true, 1, 2),
        M::Pmovsxwq => (true, 1, 3),
        M::Pmovsxdq => (true, 2, 3),
        M::Pmovzxbw => (false, 0, 1),
        M::Pmovzxbd => (false, 0, 2),
        M::Pmovzxbq => (false, 0, 3),
        M::Pmovzxwd => (false, 1, 2),
        M::Pmovzxwq => (false, 1, 3),
        _ => (false, 2, 3),
    }
}

fn widen(l: &mut Lower, ins: &Instruction) -> Lowered {
    let (signed, from, to) = widening(ins.mnemonic());
    let d = vec_of(ins.op0_register());
    let mut n = l.vread_small(ins, 1, 16 >> (to - from));
    for log2 in from..to {
        // SSHLL, USHLL d, n, #0
        let base = if signed { 0x0f00_a400 } else { 0x2f00_a400 };
        l.a.word(base | 8 << log2 << 16 | n.n() << 5 | d.n());
        n = d;
    }
    Ok(())
}

impl Lower<'_> {
    /// [`Self::vread`] that can read two bytes from memory, too.
    fn vread_small(&mut self, ins: &Instruction, op: u32, size: u32) -> V {
        if size >= 4 || ins.op_kind(op) == OpKind::Register {
            return self.vread(ins, op, size);
        }
        let (r, v) = (self.read(ins, op), self.vtmp());
        dynasm!(self.a; .arch aarch64; fmov S(v.0), W(r.0));
        v
    }
}

/// Takes the lanes whose bit in the immediate is set from the second operand.
fn blend_immediate(l: &mut Lower, ins: &Instruction) -> Lowered {
    let (d, m) = (vec_of(ins.op0_register()), l.vread(ins, 1, 16));
    let lanes = match ins.mnemonic() {
        M::Pblendw => 8,
        M::Blendps => 4,
        _ => 2,
    };
    let size = 16 / lanes;
    let imm = u32::from(ins.immediate8()) & ((1 << lanes) - 1);
    if d == m || imm == 0 {
        return Ok(());
    }
    if imm == (1 << lanes) - 1 {
        l.vmov(d, m);
    } else if imm.count_ones() <= 2 {
        for lane in (0..lanes).filter(|i| imm >> i & 1 != 0) {
            match size {
                2 => dynasm!(l.a; .arch aarch64; ins V(d.0).h[lane], V(m.0).h[lane]),
                4 => dynasm!(l.a; .arch aarch64; ins V(d.0).s[lane], V(m.0).s[lane]),
                _ => dynasm!(l.a; .arch aarch64; ins V(d.0).d[lane], V(m.0).d[lane]),
            }
        }
    } else {
        let ones = (1u128 << (8 * size)) - 1;
        let mask =
            (0..lanes).filter(|i| imm >> i & 1 != 0).fold(0, |v, i| v | ones << (8 * size * i));
        let t = l.vtmp();
        l.a.ldr_literal_q(t, mask);
        dynasm!(l.a; .arch aarch64; bit V(d.0).b16, V(m.0).b16, V(t.0).b16);
    }
    Ok(())
}

/// Takes the lanes whose sign in xmm0 is set from the second operand.
fn blend_variable(l: &mut Lower, ins: &Instruction) -> Lowered {
    let (d, m) = (vec_of(ins.op0_register()), l.vread(ins, 1, 16));
    let t = l.vtmp();
    match ins.mnemonic() {
        M::Pblendvb => dynasm!(l.a; .arch aarch64; sshr V(t.0).b16, v0.b16, 7),
        M::Blendvps => dynasm!(l.a; .arch aarch64; sshr V(t.0).s4, v0.s4, 31),
        _ => dynasm!(l.a; .arch aarch64; sshr V(t.0).d2, v0.d2, 63),
    }
    dynasm!(l.a; .arch aarch64; bit V(d.0).b16, V(m.0).b16, V(t.0).b16);
    Ok(())
}

fn insertps(l: &mut Lower, ins: &Instruction) -> Lowered {
    let d = vec_of(ins.op0_register());
    let imm = u32::from(ins.immediate8());
    let (from, m) = if ins.op_kind(1) == OpKind::Register {
        (imm >> 6, vec_of(ins.op1_register()))
    } else {
        (0, l.vread(ins, 1, 4))
    };
    let to = imm >> 4 & 3;
    if imm & 15 == 15 {
        l.vzero(d);
        return Ok(());
    }
    dynasm!(l.a; .arch aarch64; ins V(d.0).s[to], V(m.0).s[from]);
    for lane in (0..4u32).filter(|i| imm >> i & 1 != 0) {
        dynasm!(l.a; .arch aarch64; ins V(d.0).s[lane], W(R::ZR.0));
    }
    Ok(())
}
