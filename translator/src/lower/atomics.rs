//! Atomic read-modify-write operations: XCHG XADD CMPXCHG CMPXCHG8B CMPXCHG16B, the primitive
//! behind every LOCK prefix, and the fences.
//!
//! With FEAT_LSE one instruction does it, else a load-exclusive/store-exclusive loop. A memory
//! operand is always treated as locked. Misaligned operands, which arm64 does not take, go to a helper.

use super::arith::{Rhs, Sum};
use super::operands::{DMB_ISH, DMB_ISHLD, host_of, width_of};
use super::table::{Rows, plain, row};
use super::{Carry, Lower, Lowered, STATE};
use crate::asm::{Cond, R, Width};
use crate::flags::Flags;
use crate::helpers::Helper;
use crate::state::offset;
use iced_x86::{Instruction, Mnemonic as M, OpKind, Register};

const RAX: R = R(0);
const RCX: R = R(1);
const RDX: R = R(2);
const RBX: R = R(3);
/// Where an atomic operation leaves the old value.
const OLD: R = R(20);

pub(super) const ROWS: Rows = &[
    plain(M::Xchg, xchg),
    row(M::Xadd, xadd, Flags::NONE, Flags::ALL),
    row(M::Cmpxchg, cmpxchg, Flags::NONE, Flags::ALL),
    row(M::Cmpxchg8b, cmpxchg8b, Flags::NONE, Flags::Z),
    row(M::Cmpxchg16b, cmpxchg16b, Flags::NONE, Flags::Z),
    plain(M::Mfence, fence),
    plain(M::Lfence, fence),
    plain(M::Sfence, fence),
];

/// An atomic operation; the first four are numbered as LSE's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Rmw {
    /// old + operand.
    Add = 0,
    /// old & !operand.
    Clear = 1,
    /// old ^ operand.
    Xor = 2,
    /// old | operand.
    Or = 3,
    /// operand.
    Swap = 4,
    /// operand if old is what is expected.
    CompareSwap = 5,
    /// -old.
    Neg = 6,
}

const DMB_ISHST: u32 = 0xd503_3abf;

impl Lower<'_> {
    /// An atomic operation on the memory at `p`; gives the old value, zero-extended, in a
    /// temporary that stays when all others are given back, which happens here. The flags are made
    /// canonical and survive. For `CompareSwap` the expected value is in [`OLD`] before.
    pub fn atomic(&mut self, op: Rmw, size: u32, p: R, operand: R) -> R {
        self.canonical(Flags::ALL);
        self.mark();
        let done = self.a.label();
        if size > 1 {
            let (aligned, t) = (self.a.label(), R(30));
            self.a.and_imm(Width::X, t, p, u64::from(size - 1));
            self.a.cbz(Width::X, t, aligned);
            self.split_atomic(op, size, p, operand);
            self.a.b(done);
            self.a.bind(aligned);
        }
        if self.config.host.lse && op != Rmw::Neg {
            self.lse(op, size, p, operand);
        } else {
            self.exclusive_loop(op, size, p, operand);
        }
        self.a.bind(done);
        self.free_temps();
        OLD
    }

    fn split_atomic(&mut self, op: Rmw, size: u32, p: R, operand: R) {
        if op == Rmw::CompareSwap {
            self.a.str(OLD, STATE, offset::SCRATCH);
        }
        self.a.mov(Width::X, R(21), operand);
        self.a.mov(Width::X, R(20), p);
        self.a.mov_imm(Width::W, R(22), crate::split::operation(op, size));
        self.call_helper(Helper::SplitAtomic);
    }

    /// LDADDAL, LDCLRAL, LDEORAL, LDSETAL, SWPAL, CASAL.
    fn lse(&mut self, op: Rmw, size: u32, p: R, operand: R) {
        let log2 = size.trailing_zeros() << 30;
        let word = match op {
            Rmw::CompareSwap => 0x08e0_fc00 | log2 | OLD.n() << 16 | p.n() << 5 | operand.n(),
            Rmw::Swap => 0x38e0_8000 | log2 | operand.n() << 16 | p.n() << 5 | OLD.n(),
            _ => 0x38e0_0000 | log2 | operand.n() << 16 | (op as u32) << 12 | p.n() << 5 | OLD.n(),
        };
        self.a.word(word);
    }

    fn exclusive_loop(&mut self, op: Rmw, size: u32, p: R, operand: R) {
        let log2 = size.trailing_zeros() << 30;
        let w = width_of(size);
        let (new, failed) = (self.scratch(), R(30));
        let expected = if op == Rmw::CompareSwap {
            let t = self.tmp();
            self.a.mov(Width::X, t, OLD);
            Some(t)
        } else {
            None
        };
        let other = self.a.label();
        let again = self.a.here();
        self.a.word(0x085f_fc00 | log2 | p.n() << 5 | OLD.n()); // LDAXR
        let value = match op {
            Rmw::Swap => operand,
            Rmw::CompareSwap => {
                let expected = expected.unwrap_or(R::ZR);
                self.a.eor(w, new, OLD, expected);
                if size < 4 {
                    self.a.ubfx(w, new, new, 0, size * 8);
                }
                self.a.cbnz(w, new, other);
                operand
            }
            _ => {
                match op {
                    Rmw::Add => self.a.add(w, new, OLD, operand),
                    Rmw::Clear => self.a.bic(w, new, OLD, operand),
                    Rmw::Xor => self.a.eor(w, new, OLD, operand),
                    Rmw::Or => self.a.orr(w, new, OLD, operand),
                    _ => self.a.neg(w, new, OLD),
                }
                new
            }
        };
        self.a.word(0x0800_fc00 | log2 | failed.n() << 16 | p.n() << 5 | value.n()); // STLXR
        self.a.cbnz(Width::W, failed, again);
        self.a.bind(other);
        self.full_barrier();
    }

    /// What an exclusive loop or a failed comparison lacks for the full barrier that LOCK is.
    fn full_barrier(&mut self) {
        if self.ordered() {
            self.a.word(DMB_ISH);
        }
    }
}

fn xchg(l: &mut Lower, ins: &Instruction) -> Lowered {
    let size = l.size_of(ins, 0);
    let register = ins.op1_register();
    if ins.op_kind(0) == OpKind::Memory {
        let m = l.address(ins, size);
        let p = l.single_address(m);
        let src = l.read_register(register);
        let old = l.atomic(Rmw::Swap, size, p, src);
        l.write_register(register, old);
        return Ok(());
    }
    let first = l.read(ins, 0);
    let second = l.read(ins, 1);
    let t = l.tmp();
    l.a.mov(Width::X, t, first);
    l.write_register(ins.op0_register(), second);
    l.write_register(register, t);
    Ok(())
}

fn xadd(l: &mut Lower, ins: &Instruction) -> Lowered {
    let size = l.size_of(ins, 0);
    let register = ins.op1_register();
    if ins.op_kind(0) == OpKind::Memory {
        let m = l.address(ins, size);
        let p = l.single_address(m);
        let src = l.read_register(register);
        let old = l.atomic(Rmw::Add, size, p, src);
        let src = l.read_register(register);
        l.sum_flags(Sum::Add, size, old, Rhs::Reg(src));
        l.write_register(register, old);
        return Ok(());
    }
    let (first, src) = (l.read(ins, 0), l.read(ins, 1));
    let (old, sum) = (l.tmp(), l.tmp());
    l.a.mov(Width::X, old, first);
    l.a.add(Width::X, sum, old, src);
    l.sum_flags(Sum::Add, size, old, Rhs::Reg(src));
    l.write_register(register, old);
    l.write_register(ins.op0_register(), sum);
    Ok(())
}

fn cmpxchg(l: &mut Lower, ins: &Instruction) -> Lowered {
    let size = l.size_of(ins, 0);
    let accumulator = match size {
        1 => Register::AL,
        2 => Register::AX,
        4 => Register::EAX,
        _ => Register::RAX,
    };
    let in_memory = ins.op_kind(0) == OpKind::Memory;
    let old = if in_memory {
        let m = l.address(ins, size);
        let p = l.single_address(m);
        let src = l.read_register(ins.op1_register());
        l.a.mov(Width::X, OLD, RAX);
        l.atomic(Rmw::CompareSwap, size, p, src)
    } else {
        let first = l.read(ins, 0);
        let old = l.tmp();
        l.a.mov(width_of(size), old, first);
        old
    };
    compare_equal(l, size, old);
    if in_memory && l.config.host.lse && l.ordered() {
        let equal = l.a.label();
        l.a.b_cond(Cond::Eq, equal);
        l.full_barrier();
        l.a.bind(equal);
    }
    let new = if in_memory {
        None
    } else {
        let src = l.read_register(ins.op1_register());
        let d = l.tmp();
        if size >= 4 {
            // If not equal, the whole destination stays.
            l.a.mov(width_of(size), d, src);
            l.a.csel(Width::X, d, d, host_of(ins.op0_register()), Cond::Eq);
        } else {
            l.a.csel(Width::W, d, src, old, Cond::Eq);
        }
        Some(d)
    };
    // If equal, a 32-bit accumulator keeps its upper half.
    let accumulated = l.tmp();
    l.a.csel(Width::X, accumulated, RAX, old, Cond::Eq);
    l.sum_flags(Sum::Sub, size, RAX, Rhs::Reg(old));
    if size >= 4 {
        l.a.mov(Width::X, RAX, accumulated);
    } else {
        l.write_register(accumulator, accumulated);
    }
    if let Some(d) = new {
        if size >= 4 {
            l.a.mov(Width::X, host_of(ins.op0_register()), d);
        } else {
            l.write_register(ins.op0_register(), d);
        }
    }
    Ok(())
}

/// Host condition "equal" = the accumulator is `old`. All flags are written by the instruction.
fn compare_equal(l: &mut Lower, size: u32, old: R) {
    if size < 4 {
        let t = R(30);
        l.a.lsl(Width::W, t, RAX, 32 - 8 * size);
        l.a.subs_lsl(Width::W, R::ZR, t, old, 32 - 8 * size);
    } else {
        l.a.subs(width_of(size), R::ZR, RAX, old);
    }
    l.flags_are(Carry::Inverted);
}

impl Lower<'_> {
    /// ZF = (the register is zero), the other flags stay. Clobbers the register.
    fn zero_flag_of(&mut self, r: R) {
        if self.need.any(Flags::Z) {
            self.a.clz(Width::X, r, r); // 64, bit 6, for zero only
            self.set_zero_from_bit(r, 6);
        }
    }
}

fn cmpxchg8b(l: &mut Lower, ins: &Instruction) -> Lowered {
    let m = l.address(ins, 8);
    let p = l.single_address(m);
    let new = l.tmp();
    l.a.mov(Width::W, new, RBX);
    l.a.bfi(Width::X, new, RCX, 32, 32);
    l.a.mov(Width::W, OLD, RAX);
    l.a.bfi(Width::X, OLD, RDX, 32, 32);
    let old = l.atomic(Rmw::CompareSwap, 8, p, new);
    let difference = l.tmp();
    l.a.mov(Width::W, difference, RAX);
    l.a.bfi(Width::X, difference, RDX, 32, 32);
    l.a.eor(Width::X, difference, difference, old);
    let equal = l.a.label();
    l.a.cbz(Width::X, difference, equal);
    if l.config.host.lse {
        l.full_barrier();
    }
    l.a.mov(Width::W, RAX, old);
    l.a.lsr(Width::X, RDX, old, 32);
    l.a.bind(equal);
    l.zero_flag_of(difference);
    Ok(())
}

fn cmpxchg16b(l: &mut Lower, ins: &Instruction) -> Lowered {
    let m = l.address(ins, 8);
    let address = l.single_address(m);
    l.canonical(Flags::ALL);
    l.mark();
    // CASPAL takes pairs of registers that begin with an even one.
    let (p, low, high) = (R(22), R(16), R(17));
    l.a.mov(Width::X, p, address);
    let misaligned = l.cold_raise(13);
    l.a.and_imm(Width::X, R(30), p, 15);
    l.a.cbnz(Width::X, R(30), misaligned);
    if l.config.host.lse {
        l.a.mov(Width::X, low, RAX);
        l.a.mov(Width::X, high, RDX);
        l.a.mov(Width::X, R(18), RBX);
        l.a.mov(Width::X, R(19), RCX);
        l.a.word(0x4860_fc00 | low.n() << 16 | p.n() << 5 | 18); // CASPAL
    } else {
        exclusive_pair_loop(l, p, low, high);
    }
    let (a, b) = (R(18), R(19));
    l.a.eor(Width::X, a, low, RAX);
    l.a.eor(Width::X, b, high, RDX);
    l.a.orr(Width::X, a, a, b);
    l.a.mov(Width::X, RAX, low);
    l.a.mov(Width::X, RDX, high);
    l.full_barrier();
    l.zero_flag_of(a);
    Ok(())
}

fn exclusive_pair_loop(l: &mut Lower, p: R, low: R, high: R) {
    let (t, u, failed) = (R(18), R(19), R(30));
    let other = l.a.label();
    let again = l.a.here();
    l.a.word(0xc87f_8000 | high.n() << 10 | p.n() << 5 | low.n()); // LDAXP
    l.a.eor(Width::X, t, low, RAX);
    l.a.eor(Width::X, u, high, RDX);
    l.a.orr(Width::X, t, t, u);
    l.a.cbnz(Width::X, t, other);
    // STLXP
    l.a.word(0xc820_8000 | failed.n() << 16 | RCX.n() << 10 | p.n() << 5 | RBX.n());
    l.a.cbnz(Width::W, failed, again);
    l.a.bind(other);
}

fn fence(l: &mut Lower, ins: &Instruction) -> Lowered {
    l.a.word(match ins.mnemonic() {
        M::Lfence => DMB_ISHLD,
        M::Sfence => DMB_ISHST,
        _ => DMB_ISH,
    });
    Ok(())
}
