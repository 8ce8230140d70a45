//! Single bits, bit scans and counts, bit fields: BT BTS BTR BTC, BSF BSR LZCNT TZCNT POPCNT, BMI1,
//! BMI2's BZHI PDEP PEXT, and CRC32.

use super::atomics::Rmw;
use super::operands::{Addr, host_of, width_of};
use super::table::{Rows, plain, row};
use super::{AF, Carry, Lower, Lowered, PF};
use crate::asm::{Cond, R, Width};
use crate::flags::Flags;
use crate::helpers::Helper;
use dynasmrt::{DynasmApi, dynasm};
use iced_x86::{Instruction, Mnemonic as M, OpKind};

const ALL_BUT_Z: Flags = Flags::ALL.without(Flags::Z);

pub(super) const ROWS: Rows = &[
    row(M::Bt, bit_test, Flags::NONE, ALL_BUT_Z),
    row(M::Bts, bit_test, Flags::NONE, ALL_BUT_Z),
    row(M::Btr, bit_test, Flags::NONE, ALL_BUT_Z),
    row(M::Btc, bit_test, Flags::NONE, ALL_BUT_Z),
    row(M::Bsf, scan, Flags::NONE, Flags::ALL),
    row(M::Bsr, scan, Flags::NONE, Flags::ALL),
    row(M::Lzcnt, count_zeros, Flags::NONE, Flags::ALL),
    row(M::Tzcnt, count_zeros, Flags::NONE, Flags::ALL),
    row(M::Popcnt, popcnt, Flags::NONE, Flags::ALL),
    row(M::Andn, andn, Flags::NONE, Flags::ALL),
    row(M::Bextr, bextr, Flags::NONE, Flags::ALL),
    row(M::Blsi, lowest_set, Flags::NONE, Flags::ALL),
    row(M::Blsmsk, lowest_set, Flags::NONE, Flags::ALL),
    row(M::Blsr, lowest_set, Flags::NONE, Flags::ALL),
    row(M::Bzhi, bzhi, Flags::NONE, Flags::ALL),
    plain(M::Pdep, scatter_gather),
    plain(M::Pext, scatter_gather),
    plain(M::Crc32, crc32),
];

/// A bit's number inside its operand.
#[derive(Clone, Copy)]
enum Bit {
    Fixed(u32),
    /// Bits above log2 of the operand's width do not count.
    Register(R),
}

fn bit_test(l: &mut Lower, ins: &Instruction) -> Lowered {
    let size = l.size_of(ins, 0);
    let bit = match ins.op_kind(1) {
        OpKind::Register => Bit::Register(host_of(ins.op1_register())),
        _ => Bit::Fixed(ins.immediate8() as u32 & (size * 8 - 1)),
    };
    if ins.op_kind(0) == OpKind::Register {
        let d = host_of(ins.op0_register());
        let old = bit_result(l, ins.mnemonic(), size, d, bit);
        return finish_bit_test(l, ins, size, old, None);
    }
    let m = match bit {
        Bit::Register(offset) => bit_string(l, ins, size, offset),
        Bit::Fixed(_) => l.address(ins, size),
    };
    if ins.has_lock_prefix() {
        return locked_bit_test(l, ins, size, m, bit);
    }
    let t = l.tmp();
    l.load(size, t, m);
    let old = bit_result(l, ins.mnemonic(), size, t, bit);
    finish_bit_test(l, ins, size, old, Some(m))
}

/// The address of the operand that holds a bit of a bit string: the bit number is signed and may
/// lie outside of the addressed operand.
fn bit_string(l: &mut Lower, ins: &Instruction, size: u32, offset: R) -> Addr {
    let m = l.address(ins, size);
    let base = l.single_address(m);
    let (t, log2) = (l.tmp(), size.trailing_zeros());
    l.a.sbfx(Width::X, t, offset, log2 + 3, size * 8 - log2 - 3);
    l.a.add_lsl(Width::X, t, base, t, log2);
    Addr::Imm(t, 0)
}

/// What a bit test found and made.
struct BitResult {
    /// The tested bit's place.
    old: R,
    bit: u32,
    /// The operand with the bit changed; none for BT.
    new: Option<R>,
}

fn bit_result(l: &mut Lower, m: M, size: u32, a: R, bit: Bit) -> BitResult {
    let w = width_of(size);
    match bit {
        Bit::Fixed(n) => {
            let mask = 1u64 << n;
            let new = (m != M::Bt).then(|| l.tmp());
            if let Some(d) = new {
                match m {
                    M::Bts => l.a.orr_imm(w, d, a, mask),
                    M::Btc => l.a.eor_imm(w, d, a, mask),
                    _ if w == Width::W => l.a.and_imm(w, d, a, !mask & 0xffff_ffff),
                    _ => l.a.and_imm(w, d, a, !mask),
                }
            }
            BitResult { old: a, bit: n, new }
        }
        Bit::Register(n) => {
            let old = l.tmp();
            let n = bit_number(l, size, n);
            let new = (m != M::Bt).then(|| {
                let d = l.tmp();
                bit_mask(l, w, d, n);
                match m {
                    M::Bts => l.a.orr(w, d, a, d),
                    M::Btc => l.a.eor(w, d, a, d),
                    _ => l.a.bic(w, d, a, d),
                }
                d
            });
            l.a.lsrv(w, old, a, n);
            BitResult { old, bit: 0, new }
        }
    }
}

/// The bit number as a shift takes it: arm64 masks it itself, but for 16 bits.
fn bit_number(l: &mut Lower, size: u32, n: R) -> R {
    if size != 2 {
        return n;
    }
    let t = R(30);
    l.a.ubfx(Width::W, t, n, 0, 4);
    t
}

fn bit_mask(l: &mut Lower, w: Width, d: R, n: R) {
    l.a.mov_imm(Width::W, d, 1);
    l.a.lslv(w, d, d, n);
}

fn finish_bit_test(
    l: &mut Lower,
    ins: &Instruction,
    size: u32,
    r: BitResult,
    memory: Option<Addr>,
) -> Lowered {
    if let (Some(m), Some(new)) = (memory, r.new) {
        l.store(size, new, m);
    }
    if l.need.any(Flags::C) {
        carry_from_bit(l, r.old, r.bit);
    }
    if let (None, Some(new)) = (memory, r.new) {
        l.write_register(ins.op0_register(), new);
    }
    Ok(())
}

/// CF from a bit; ZF must stay, the other flags are undefined.
fn carry_from_bit(l: &mut Lower, r: R, bit: u32) {
    if l.config.host.flagm || l.live_out.any(Flags::Z) {
        l.canonical(l.live_out);
        return l.set_carry_from_bit(r, bit);
    }
    let t = R(30);
    l.a.ubfx(Width::X, t, r, bit, 1);
    l.a.subs_imm(Width::W, R::ZR, t, 1);
    l.flags_are(Carry::Direct);
}

fn locked_bit_test(l: &mut Lower, ins: &Instruction, size: u32, m: Addr, bit: Bit) -> Lowered {
    let p = l.single_address(m);
    let mask = l.tmp();
    match bit {
        Bit::Fixed(n) => l.a.mov_imm(Width::X, mask, 1 << n),
        Bit::Register(n) => {
            let n = bit_number(l, size, n);
            bit_mask(l, width_of(size), mask, n);
        }
    }
    let op = match ins.mnemonic() {
        M::Bts => Rmw::Or,
        M::Btr => Rmw::Clear,
        _ => Rmw::Xor,
    };
    let old = l.atomic(op, size, p, mask);
    if !l.need.any(Flags::C) {
        return Ok(());
    }
    match bit {
        Bit::Fixed(n) => carry_from_bit(l, old, n),
        Bit::Register(n) => {
            let n = bit_number(l, size, n);
            l.a.lsrv(width_of(size), old, old, n);
            carry_from_bit(l, old, 0);
        }
    }
    Ok(())
}

/// BSF and BSR: ZF tells a zero source, which leaves the destination alone.
impl Lower<'_> {
    /// Whether the instruction is BSR in one register, and the next one turns its result round by XOR with 31 or 63: that
    /// is what compilers make of a count of leading zeros. Nobody needs the flags.
    fn counts_leading_zeros(&self, index: usize) -> bool {
        let [scan, xor] = &self.region.insns[index..(index + 2).min(self.region.insns.len())]
        else {
            return false;
        };
        let register = scan.ins.op0_register();
        let size = register.size() as u64;
        scan.ins.mnemonic() == M::Bsr
            && xor.ins.mnemonic() == M::Xor
            && size >= 4
            && scan.ins.op1_kind() == OpKind::Register
            && scan.ins.op1_register() == register
            && self.region.falls_into_next(index)
            && !xor.join
            && xor.ins.op0_kind() == OpKind::Register
            && xor.ins.op0_register() == register
            && !matches!(xor.ins.op1_kind(), OpKind::Register | OpKind::Memory)
            && xor.ins.immediate(1) == 8 * size - 1
            && !scan.live_out.or(xor.live_out).any(Flags::ALL)
    }

    /// Whether the instruction before the current one, XOR, has counted leading zeros.
    pub(super) fn is_counted_already(&mut self) -> bool {
        let Some(i) = self.index.checked_sub(1).filter(|&i| self.counts_leading_zeros(i)) else {
            return false;
        };
        self.needs_what_ran_before(i);
        true
    }
}

fn scan(l: &mut Lower, ins: &Instruction) -> Lowered {
    let size = l.size_of(ins, 0);
    let w = width_of(size);
    let d = host_of(ins.op0_register());
    if l.counts_leading_zeros(l.index) {
        // The scan leaves a zero as it is, as the same of 1 would.
        l.a.orr_imm(w, d, d, 1);
        l.a.clz(w, d, d);
        return Ok(());
    }
    let src = if size == 2 { l.read_zx(ins, 1) } else { l.read(ins, 1) };
    let t = l.tmp();
    l.a.tst(w, src, src);
    l.flags_are(Carry::Zero);
    if ins.mnemonic() == M::Bsf {
        l.a.rbit(w, t, src);
        l.a.clz(w, t, t);
    } else {
        l.a.clz(w, t, src);
        l.a.eor_imm(w, t, t, u64::from(w.bits() - 1));
    }
    if size == 2 {
        let kept = l.tmp();
        l.a.csel(Width::W, kept, d, t, Cond::Eq);
        l.write_register(ins.op0_register(), kept);
    } else {
        l.a.csel(Width::X, d, d, t, Cond::Eq);
    }
    Ok(())
}

/// LZCNT and TZCNT: CF for a zero source, ZF for a zero result.
fn count_zeros(l: &mut Lower, ins: &Instruction) -> Lowered {
    let size = l.size_of(ins, 0);
    let w = width_of(size);
    let src = if size == 2 { l.read_zx(ins, 1) } else { l.read(ins, 1) };
    let d = l.destination(ins, 0);
    if ins.mnemonic() == M::Lzcnt {
        l.a.clz(w, d, src);
        if size == 2 {
            l.a.sub_imm(w, d, d, 16);
        }
    } else {
        let counted = if size == 2 {
            l.a.orr_imm(w, d, src, 1 << 16);
            d
        } else {
            src
        };
        l.a.rbit(w, d, counted);
        l.a.clz(w, d, d);
    }
    if size == 2 {
        l.write_register(ins.op0_register(), d);
    }
    if l.need.any(Flags::NZCV) {
        let bits = size * 8;
        if l.need.any(Flags::NZCV.without(Flags::C)) {
            l.a.tst(w, d, d);
            l.flags_are(Carry::Zero);
            if l.need.any(Flags::C) {
                l.set_carry_from_bit(d, bits.trailing_zeros());
            }
        } else {
            l.a.subs_imm(w, R::ZR, d, u64::from(bits));
            l.flags_are(Carry::Direct);
        }
    }
    Ok(())
}

fn popcnt(l: &mut Lower, ins: &Instruction) -> Lowered {
    let size = l.size_of(ins, 0);
    let src = if size == 8 { l.read(ins, 1) } else { l.read_zx(ins, 1) };
    let d = l.destination(ins, 0);
    let v = l.vtmp();
    dynasm!(l.a; .arch aarch64
        ; fmov D(v.0), X(src.0)
        ; cnt V(v.0).b8, V(v.0).b8
        ; addv B(v.0), V(v.0).b8
        ; fmov W(d.0), S(v.0));
    if size == 2 {
        l.write_register(ins.op0_register(), d);
    }
    if l.need.any(Flags::P.or(Flags::A)) {
        l.a.mov_imm(Width::W, PF, 1);
        l.a.mov_imm(Width::W, AF, 1);
    }
    if l.need.any(Flags::NZCV) {
        l.a.tst(Width::W, d, d);
        l.flags_are(Carry::Zero);
    }
    Ok(())
}

fn andn(l: &mut Lower, ins: &Instruction) -> Lowered {
    let size = l.size_of(ins, 0);
    let w = width_of(size);
    let b = l.read(ins, 2);
    let (d, a) = (host_of(ins.op0_register()), host_of(ins.op1_register()));
    if l.need.any(Flags::NZCV) {
        l.a.bics(w, d, b, a);
        l.flags_are(Carry::Zero);
    } else {
        l.a.bic(w, d, b, a);
    }
    Ok(())
}

/// BLSI, BLSMSK, BLSR: by the lowest set bit. CF tells a zero source (BLSI: one that is not zero).
fn lowest_set(l: &mut Lower, ins: &Instruction) -> Lowered {
    let size = l.size_of(ins, 0);
    let w = width_of(size);
    let src = l.read(ins, 1);
    let d = host_of(ins.op0_register());
    let (t, c) = (l.tmp(), l.tmp());
    let blsi = ins.mnemonic() == M::Blsi;
    // The borrow of 0 - src or src - 1, in Arm's sense, tells whether the source is zero.
    if blsi {
        l.a.subs(w, t, R::ZR, src);
        l.a.cset(c, Cond::Cc);
    } else {
        l.a.subs_imm(w, t, src, 1);
        l.a.cset(c, Cond::Cc);
    }
    l.flags_are(Carry::Direct);
    if ins.mnemonic() == M::Blsmsk {
        l.a.eor(w, d, src, t);
    } else {
        l.a.and(w, d, src, t);
    }
    l.flags_of_result(d, size);
    if l.need.any(Flags::C) {
        l.set_carry_from_bit(c, 0);
    }
    Ok(())
}

/// BEXTR dest, src, start | length << 8.
fn bextr(l: &mut Lower, ins: &Instruction) -> Lowered {
    let size = l.size_of(ins, 0);
    let w = width_of(size);
    let src = l.read_zx(ins, 1);
    let control = host_of(ins.op2_register());
    let d = host_of(ins.op0_register());
    let (t, n) = (l.tmp(), l.tmp());
    l.a.ubfx(Width::W, n, control, 0, 8);
    l.a.lsrv(Width::X, t, src, n);
    l.a.subs_imm(Width::W, R::ZR, n, 64);
    l.a.csel(Width::X, t, t, R::ZR, Cond::Cc);
    l.a.ubfx(Width::W, n, control, 8, 8);
    l.low_bits(w, d, t, n);
    l.flags_are(Carry::Direct);
    l.flags_of_result(d, size);
    Ok(())
}

impl Lower<'_> {
    /// d = the low `n` bits of `a`, where `n` is a register's low byte; all if there are not so many. Clobbers NZCV.
    fn low_bits(&mut self, w: Width, d: R, a: R, n: R) {
        let low = R(30);
        self.a.mov_imm(w, low, u64::MAX);
        self.a.lslv(w, low, low, n); // by n modulo the width
        self.a.bic(w, low, a, low);
        self.a.ands_imm(Width::W, R::ZR, n, u64::from(0x100 - w.bits()));
        self.a.csel(w, d, low, a, Cond::Eq);
    }
}

/// BZHI dest, src, index: CF tells an index that is too large.
fn bzhi(l: &mut Lower, ins: &Instruction) -> Lowered {
    let size = l.size_of(ins, 0);
    let src = l.read(ins, 1);
    let mut n = host_of(ins.op2_register());
    if l.need.any(Flags::C) {
        let low = l.tmp();
        l.a.ubfx(Width::W, low, n, 0, 8);
        n = low;
    }
    let d = host_of(ins.op0_register());
    l.low_bits(width_of(size), d, src, n);
    l.flags_are(Carry::Direct);
    l.flags_of_result(d, size);
    if l.need.any(Flags::C) {
        // n is below 256: n >= bits is the borrow of bits - 1 - n.
        let t = l.tmp();
        l.a.mov_imm(Width::W, t, u64::from(size * 8 - 1));
        l.a.sub(Width::W, t, t, n);
        l.set_carry_from_bit(t, 31);
    }
    Ok(())
}

fn scatter_gather(l: &mut Lower, ins: &Instruction) -> Lowered {
    let mask = l.read_zx(ins, 2);
    l.a.mov(Width::X, R(21), mask);
    l.a.mov(Width::X, R(20), host_of(ins.op1_register()));
    l.call_helper(if ins.mnemonic() == M::Pdep { Helper::Pdep } else { Helper::Pext });
    l.write_register(ins.op0_register(), R(20));
    Ok(())
}

/// CRC32 (the Castagnoli polynomial, as CRC32C* of arm64).
fn crc32(l: &mut Lower, ins: &Instruction) -> Lowered {
    let size = l.size_of(ins, 1);
    let d = host_of(ins.op0_register());
    let src = l.read(ins, 1);
    if l.config.host.crc32 {
        let log2 = size.trailing_zeros();
        let sf = u32::from(size == 8) << 31;
        l.a.word(0x1ac0_5000 | sf | src.n() << 16 | log2 << 10 | d.n() << 5 | d.n());
        return Ok(());
    }
    l.a.mov(Width::X, R(21), src);
    l.a.mov(Width::X, R(20), d);
    l.a.mov_imm(Width::W, R(22), u64::from(size));
    l.call_helper(Helper::Crc32c);
    l.a.mov(Width::W, d, R(20));
    Ok(())
}
