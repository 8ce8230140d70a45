//! SSE data movement: whole registers, scalars, halves, lanes to and from integer registers, masks.

use super::operands::{host_of, vec_of};
use super::table::{Rows, plain};
use super::{Lower, Lowered, sse_int, sse_shuffle};
use crate::asm::{R, V, Width};
use crate::helpers::Helper;
use dynasmrt::{DynasmApi, dynasm};
use iced_x86::{Instruction, Mnemonic as M, OpKind};

pub(super) const ROWS: Rows = &[
    plain(M::Movaps, whole),
    plain(M::Movapd, whole),
    plain(M::Movups, whole),
    plain(M::Movupd, whole),
    plain(M::Movdqa, whole),
    plain(M::Movdqu, whole),
    plain(M::Lddqu, whole),
    plain(M::Movntps, whole),
    plain(M::Movntpd, whole),
    plain(M::Movntdq, whole),
    plain(M::Movntdqa, whole),
    plain(M::Movnti, movnti),
    plain(M::Movd, movd),
    plain(M::Movq, movd),
    plain(M::Movss, movss),
    plain(M::Movsd, movsd),
    plain(M::Movlps, low_half),
    plain(M::Movlpd, low_half),
    plain(M::Movhps, high_half),
    plain(M::Movhpd, high_half),
    plain(M::Movhlps, movhlps),
    plain(M::Movlhps, movlhps),
    plain(M::Movmskps, movmskps),
    plain(M::Movmskpd, movmskpd),
    plain(M::Pmovmskb, pmovmskb),
    plain(M::Pextrb, extract),
    plain(M::Pextrw, extract),
    plain(M::Pextrd, extract),
    plain(M::Pextrq, extract),
    plain(M::Extractps, extract),
    plain(M::Pinsrb, insert),
    plain(M::Pinsrw, insert),
    plain(M::Pinsrd, insert),
    plain(M::Pinsrq, insert),
    plain(M::Maskmovdqu, maskmovdqu),
];

/// Operations that read their destination by [`Lower::first_vector`], with nothing that may fault.
fn takes_copy(op: &Instruction) -> bool {
    let mnemonic = op.mnemonic();
    match op.op1_kind() {
        OpKind::Register => {
            mnemonic == M::Palignr
                || sse_int::operation(mnemonic).is_some()
                || sse_shuffle::pair_operation(mnemonic).is_some()
        }
        OpKind::Immediate8 => sse_int::is_lane_shift(mnemonic),
        _ => false,
    }
}

impl Lower<'_> {
    /// Leaves a move between vector registers out if the next instruction can read its source and write its
    /// destination, as [`Self::leave_copy`] does.
    fn leave_vector_copy(&mut self, ins: &Instruction) -> bool {
        let (to, from) = (ins.op0_register(), ins.op1_register());
        if !to.is_xmm() || !from.is_xmm() || to == from || !self.region.falls_into_next(self.index)
        {
            return false;
        }
        let next = &self.region.insns[self.index + 1];
        let op = &next.ins;
        let fits =
            !next.join && takes_copy(op) && op.op0_register() == to && op.op1_register() != to;
        if fits {
            self.carries = true;
            self.vector_copied = Some(vec_of(from));
        }
        fits
    }

    /// What an instruction reads as its first operand, which is also its destination.
    pub fn first_vector(&mut self, ins: &Instruction) -> V {
        self.vector_copied.take().unwrap_or_else(|| vec_of(ins.op0_register()))
    }

    /// Loads the low bytes of a vector register from the memory operand.
    fn vload_operand(&mut self, ins: &Instruction, size: u32) -> V {
        let m = self.address(ins, size);
        let t = self.vtmp();
        self.vload(size, t, m);
        t
    }
}

fn whole(l: &mut Lower, ins: &Instruction) -> Lowered {
    if !l.leave_vector_copy(ins) {
        move_vector(l, ins, 16);
    }
    Ok(())
}

/// A move whose memory form zeroes the rest of the register.
fn move_vector(l: &mut Lower, ins: &Instruction, size: u32) {
    match (ins.op_kind(0), ins.op_kind(1)) {
        (OpKind::Register, OpKind::Memory) => {
            let m = l.address(ins, size);
            l.vload(size, vec_of(ins.op0_register()), m);
        }
        (OpKind::Memory, _) => {
            let m = l.address(ins, size);
            l.vstore(size, vec_of(ins.op1_register()), m);
        }
        _ => {
            let (d, n) = (vec_of(ins.op0_register()), vec_of(ins.op1_register()));
            if d != n {
                l.vmov(d, n);
            }
        }
    }
}

fn movnti(l: &mut Lower, ins: &Instruction) -> Lowered {
    let src = l.read(ins, 1);
    l.write(ins, 0, src);
    Ok(())
}

/// MOVD and MOVQ: to a vector register with zeros above.
fn movd(l: &mut Lower, ins: &Instruction) -> Lowered {
    let (to, from) = (ins.op0_register(), ins.op1_register());
    let size = match (ins.op_kind(0), ins.op_kind(1)) {
        (OpKind::Memory, _) | (_, OpKind::Memory) => {
            move_vector(l, ins, ins.memory_size().size() as u32);
            return Ok(());
        }
        _ if to.is_xmm() && from.is_xmm() => {
            dynasm!(l.a; .arch aarch64; mov V(vec_of(to).0).b8, V(vec_of(from).0).b8);
            return Ok(());
        }
        _ if to.is_xmm() => from.size(),
        _ => to.size(),
    };
    match (to.is_xmm(), size) {
        (true, 8) => dynasm!(l.a; .arch aarch64; fmov D(vec_of(to).0), X(host_of(from).0)),
        (true, _) => dynasm!(l.a; .arch aarch64; fmov S(vec_of(to).0), W(host_of(from).0)),
        (false, 8) => dynasm!(l.a; .arch aarch64; fmov X(host_of(to).0), D(vec_of(from).0)),
        (false, _) => dynasm!(l.a; .arch aarch64; fmov W(host_of(to).0), S(vec_of(from).0)),
    }
    Ok(())
}

fn movss(l: &mut Lower, ins: &Instruction) -> Lowered {
    if ins.op_kind(0) == OpKind::Register && ins.op_kind(1) == OpKind::Register {
        let (d, n) = (vec_of(ins.op0_register()), vec_of(ins.op1_register()));
        dynasm!(l.a; .arch aarch64; ins V(d.0).s[0], V(n.0).s[0]);
    } else {
        move_vector(l, ins, 4);
    }
    Ok(())
}

fn movsd(l: &mut Lower, ins: &Instruction) -> Lowered {
    if ins.op_kind(0) == OpKind::Register && ins.op_kind(1) == OpKind::Register {
        let (d, n) = (vec_of(ins.op0_register()), vec_of(ins.op1_register()));
        dynasm!(l.a; .arch aarch64; ins V(d.0).d[0], V(n.0).d[0]);
    } else {
        move_vector(l, ins, 8);
    }
    Ok(())
}

fn low_half(l: &mut Lower, ins: &Instruction) -> Lowered {
    if ins.op_kind(0) == OpKind::Memory {
        move_vector(l, ins, 8);
        return Ok(());
    }
    let t = l.vload_operand(ins, 8);
    let d = vec_of(ins.op0_register());
    dynasm!(l.a; .arch aarch64; ins V(d.0).d[0], V(t.0).d[0]);
    Ok(())
}

fn high_half(l: &mut Lower, ins: &Instruction) -> Lowered {
    if ins.op_kind(0) == OpKind::Memory {
        let t = l.vtmp();
        let n = vec_of(ins.op1_register());
        dynasm!(l.a; .arch aarch64; mov D(t.0), V(n.0).d[1]);
        let m = l.address(ins, 8);
        l.vstore(8, t, m);
        return Ok(());
    }
    let t = l.vload_operand(ins, 8);
    let d = vec_of(ins.op0_register());
    dynasm!(l.a; .arch aarch64; ins V(d.0).d[1], V(t.0).d[0]);
    Ok(())
}

fn movhlps(l: &mut Lower, ins: &Instruction) -> Lowered {
    let (d, n) = (vec_of(ins.op0_register()), vec_of(ins.op1_register()));
    dynasm!(l.a; .arch aarch64; ins V(d.0).d[0], V(n.0).d[1]);
    Ok(())
}

fn movlhps(l: &mut Lower, ins: &Instruction) -> Lowered {
    let (d, n) = (vec_of(ins.op0_register()), vec_of(ins.op1_register()));
    dynasm!(l.a; .arch aarch64; ins V(d.0).d[1], V(n.0).d[0]);
    Ok(())
}

/// Gathers the signs of lanes: each step adds the upper half of a lane next to the lower half's bits.
fn movmskps(l: &mut Lower, ins: &Instruction) -> Lowered {
    let n = vec_of(ins.op1_register());
    let (d, t, high) = (host_of(ins.op0_register()), l.vtmp(), l.tmp());
    dynasm!(l.a; .arch aarch64
        ; ushr V(t.0).s4, V(n.0).s4, 31
        ; usra V(t.0).d2, V(t.0).d2, 31
        ; umov W(high.0), V(t.0).b[8]
        ; umov W(d.0), V(t.0).b[0]
    );
    l.a.orr_lsl(Width::W, d, d, high, 2);
    Ok(())
}

fn movmskpd(l: &mut Lower, ins: &Instruction) -> Lowered {
    let n = vec_of(ins.op1_register());
    let (d, t) = (host_of(ins.op0_register()), l.vtmp());
    dynasm!(l.a; .arch aarch64
        ; uzp2 V(t.0).s4, V(n.0).s4, V(n.0).s4
        ; ushr V(t.0).s2, V(t.0).s2, 31
        ; usra D(t.0), D(t.0), 31
        ; fmov W(d.0), S(t.0)
    );
    Ok(())
}

fn pmovmskb(l: &mut Lower, ins: &Instruction) -> Lowered {
    let n = vec_of(ins.op1_register());
    let (d, t) = (host_of(ins.op0_register()), l.vtmp());
    dynasm!(l.a; .arch aarch64
        ; ushr V(t.0).b16, V(n.0).b16, 7
        ; usra V(t.0).h8, V(t.0).h8, 7
        ; usra V(t.0).s4, V(t.0).s4, 14
        ; usra V(t.0).d2, V(t.0).d2, 28
        ; ins V(t.0).b[1], V(t.0).b[8]
        ; umov W(d.0), V(t.0).h[0]
    );
    Ok(())
}

/// Bytes of the lane that PEXTR*, PINSR* and EXTRACTPS name.
fn lane_size(m: M) -> u32 {
    match m {
        M::Pextrb | M::Pinsrb => 1,
        M::Pextrw | M::Pinsrw => 2,
        M::Pextrq | M::Pinsrq => 8,
        _ => 4,
    }
}

fn extract(l: &mut Lower, ins: &Instruction) -> Lowered {
    let n = vec_of(ins.op1_register());
    let size = lane_size(ins.mnemonic());
    let lane = u32::from(ins.immediate8()) & (16 / size - 1);
    let memory = ins.op_kind(0) == OpKind::Memory;
    if memory && lane == 0 && size >= 4 {
        let m = l.address(ins, size);
        l.vstore(size, n, m);
        return Ok(());
    }
    let d = if memory { l.tmp() } else { host_of(ins.op0_register()) };
    match size {
        1 => dynasm!(l.a; .arch aarch64; umov W(d.0), V(n.0).b[lane]),
        2 => dynasm!(l.a; .arch aarch64; umov W(d.0), V(n.0).h[lane]),
        4 => dynasm!(l.a; .arch aarch64; umov W(d.0), V(n.0).s[lane]),
        _ => dynasm!(l.a; .arch aarch64; umov X(d.0), V(n.0).d[lane]),
    }
    if memory {
        let m = l.address(ins, size);
        l.store(size, d, m);
    }
    Ok(())
}

fn insert(l: &mut Lower, ins: &Instruction) -> Lowered {
    let d = vec_of(ins.op0_register());
    let size = lane_size(ins.mnemonic());
    let lane = u32::from(ins.immediate8()) & (16 / size - 1);
    let n = l.read(ins, 1);
    match size {
        1 => dynasm!(l.a; .arch aarch64; ins V(d.0).b[lane], W(n.0)),
        2 => dynasm!(l.a; .arch aarch64; ins V(d.0).h[lane], W(n.0)),
        4 => dynasm!(l.a; .arch aarch64; ins V(d.0).s[lane], W(n.0)),
        _ => dynasm!(l.a; .arch aarch64; ins V(d.0).d[lane], X(n.0)),
    }
    Ok(())
}

/// Stores the bytes whose mask bit is set to [rdi], in two halves; rare, so a helper does it.
fn maskmovdqu(l: &mut Lower, ins: &Instruction) -> Lowered {
    let (src, mask) = (vec_of(ins.op1_register()), vec_of(ins.op2_register()));
    for half in 0..2u32 {
        let address = l.string_destination(ins);
        l.a.add_imm(Width::X, R(20), address, u64::from(8 * half));
        dynasm!(l.a; .arch aarch64; umov x21, V(src.0).d[half]; umov x22, V(mask.0).d[half]);
        l.call_helper(Helper::MaskedStore);
        l.free_temps();
    }
    Ok(())
}
