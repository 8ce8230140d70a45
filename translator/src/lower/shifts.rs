//! Shifts and rotates: SHL SHR SAR, ROL ROR, RCL RCR, SHLD SHRD, and BMI2's SHLX SHRX SARX RORX.
//!
//! A count is taken modulo 32 (64 for 64-bit operands), as arm64 does; a count of zero leaves all
//! flags alone, and rotates only touch CF and OF. OF is defined for a count of one only; it is
//! computed by the same rule for every count.

use super::operands::{host_of, width_of};
use super::table::{Rows, plain, row_unless};
use super::{Carry, Lower, Lowered, PF};
use crate::asm::{Cond, R, Width};
use crate::flags::Flags;
use iced_x86::{Instruction, Mnemonic as M, OpKind};

const CO: Flags = Flags::C.or(Flags::O);
const RCX: R = R(1);

pub(super) const ROWS: Rows = &[
    row_unless(M::Shl, shift, Flags::NONE, Flags::ALL, may_be_zero),
    row_unless(M::Sal, shift, Flags::NONE, Flags::ALL, may_be_zero),
    row_unless(M::Shr, shift, Flags::NONE, Flags::ALL, may_be_zero),
    row_unless(M::Sar, shift, Flags::NONE, Flags::ALL, may_be_zero),
    row_unless(M::Rol, rotate, Flags::NONE, CO, may_be_zero),
    row_unless(M::Ror, rotate, Flags::NONE, CO, may_be_zero),
    row_unless(M::Rcl, rotate_carry, Flags::C, CO, may_be_zero),
    row_unless(M::Rcr, rotate_carry, Flags::C, CO, may_be_zero),
    row_unless(M::Shld, double_shift, Flags::NONE, Flags::ALL, may_be_zero),
    row_unless(M::Shrd, double_shift, Flags::NONE, Flags::ALL, may_be_zero),
    plain(M::Shlx, shift_x),
    plain(M::Shrx, shift_x),
    plain(M::Sarx, shift_x),
    plain(M::Rorx, rorx),
];

/// A shift's count.
#[derive(Clone, Copy)]
enum Count {
    /// An immediate, not zero.
    Fixed(u32),
    /// A register with the masked count.
    Register(R),
}

/// The count is the last operand; None if it is CL.
fn fixed_count(ins: &Instruction) -> Option<u32> {
    let last = ins.op_count() - 1;
    if ins.op_kind(last) == OpKind::Register {
        return None;
    }
    let wide = matches!(ins.memory_size().size(), 8)
        || ins.op_kind(0) == OpKind::Register && ins.op0_register().size() == 8;
    Some(ins.immediate(last) as u32 & if wide { 63 } else { 31 })
}

fn may_be_zero(ins: &Instruction) -> bool {
    fixed_count(ins).is_none_or(|n| n == 0)
}

impl Lower<'_> {
    /// CL modulo the operand's width, in a temporary.
    fn masked_cl(&mut self, size: u32) -> R {
        let t = self.tmp();
        self.a.and_imm(Width::W, t, RCX, if size == 8 { 63 } else { 31 });
        t
    }

    /// A count of zero: nothing happens but the access, and the zero-extension of a 32-bit register.
    fn count_zero(&mut self, ins: &Instruction) {
        let (a, destination) = self.read_destination(ins);
        if destination.memory.is_some() || destination.size < 4 {
            return;
        }
        let own = host_of(ins.op0_register());
        if destination.size == 4 || a != own {
            self.a.mov(width_of(destination.size), own, a);
        }
    }
}

fn shift(l: &mut Lower, ins: &Instruction) -> Lowered {
    let count = fixed_count(ins);
    if count == Some(0) {
        l.count_zero(ins);
        return Ok(());
    }
    let (a, destination) = l.read_destination(ins);
    let size = destination.size;
    let in_register = destination.memory.is_none();
    let left = !matches!(ins.mnemonic(), M::Shr | M::Sar);
    if left && count == Some(1) && in_register && size >= 4 && l.need.any(Flags::NZCV) {
        // a + a has all the flags of a shift by one.
        let d = host_of(ins.op0_register());
        l.a.adds(width_of(size), d, a, a);
        if l.wants_pf() {
            l.a.mov(Width::W, PF, d);
        }
        l.flags_are(Carry::Direct);
        return Ok(());
    }
    if let Some(n) = count
        && size < 4
        && !left
        && n < 8 * size
        && l.need.is_empty()
    {
        // What is shifted in is what the extension would have put there.
        if ins.mnemonic() == M::Shr && in_register && l.is_zero_extended(ins, 0) {
            let d = host_of(ins.op0_register());
            l.a.lsr(Width::W, d, d, n);
            return Ok(());
        }
        let d = l.tmp();
        match ins.mnemonic() {
            M::Shr => l.a.ubfx(Width::X, d, a, n, 8 * size - n),
            _ => l.a.sbfx(Width::X, d, a, n, 8 * size - n),
        }
        l.write_destination(ins, &destination, d);
        return Ok(());
    }
    let x = l.extended(ins, a, size, in_register);
    // Narrow operands are shifted in X registers, so that SHL's carry is still there.
    let w = if size == 4 { Width::W } else { Width::X };
    let count = match count {
        Some(n) => Count::Fixed(n),
        None if l.need.is_empty() && size >= 4 => Count::Register(RCX),
        None => Count::Register(l.masked_cl(size)),
    };
    // The old value is needed for CF and OF.
    let own = if in_register && size >= 4 { host_of(ins.op0_register()) } else { R::ZR };
    let d = if own != R::ZR && !l.need.any(CO) { own } else { l.tmp() };
    emit_shift(l, ins.mnemonic(), w, d, x, count);
    if destination.memory.is_some() {
        l.write_destination(ins, &destination, d);
    }
    if !l.need.is_empty() {
        match count {
            Count::Fixed(_) => shift_flags(l, ins.mnemonic(), size, x, d, count),
            Count::Register(n) => l.unless_zero(n, |l| {
                shift_flags(l, ins.mnemonic(), size, x, d, count);
            }),
        }
    }
    if in_register && d != own {
        l.write_destination(ins, &destination, d);
    }
    Ok(())
}

impl Lower<'_> {
    /// An operand of a right shift must be extended to the whole register if it is narrow.
    fn extended(&mut self, ins: &Instruction, a: R, size: u32, in_register: bool) -> R {
        if size >= 4 {
            return a;
        }
        let x = if in_register { self.tmp() } else { a };
        if ins.mnemonic() == M::Sar {
            self.a.sbfx(Width::X, x, a, 0, size * 8);
        } else {
            self.a.ubfx(Width::X, x, a, 0, size * 8);
        }
        x
    }

    /// Emits what only happens if the count is not zero; flags are canonical before and behind.
    fn unless_zero(&mut self, count: R, emit: impl FnOnce(&mut Self)) {
        self.canonical(self.live_out);
        let skip = self.a.label();
        self.a.cbz(Width::W, count, skip);
        emit(self);
        self.canonical(self.live_out);
        self.a.bind(skip);
    }
}

fn emit_shift(l: &mut Lower, m: M, w: Width, d: R, x: R, count: Count) {
    match (m, count) {
        (M::Shr, Count::Fixed(n)) => l.a.lsr(w, d, x, n),
        (M::Sar, Count::Fixed(n)) => l.a.asr(w, d, x, n),
        (_, Count::Fixed(n)) => l.a.lsl(w, d, x, n),
        (M::Shr, Count::Register(n)) => l.a.lsrv(w, d, x, n),
        (M::Sar, Count::Register(n)) => l.a.asrv(w, d, x, n),
        (_, Count::Register(n)) => l.a.lslv(w, d, x, n),
    }
}

/// The needed flags of a shift of `x` with result `d` by a count that is not zero.
fn shift_flags(l: &mut Lower, m: M, size: u32, x: R, d: R, count: Count) {
    let bits = size * 8;
    if l.need.without(Flags::C).is_empty() {
        l.canonical(Flags::NONE);
    } else {
        l.flags_of_result(d, size);
    }
    let (carry, bit) =
        if l.need.any(CO) { shifted_out(l, m, bits, x, d, count) } else { (R::ZR, 0) };
    if l.need.any(Flags::C) {
        l.set_carry_from_bit(carry, bit);
    }
    // SAR by one clears OF: that is how flags_of_result leaves it.
    if l.need.any(Flags::O) && m == M::Shr {
        l.set_overflow_from_bit(x, bits - 1);
    } else if l.need.any(Flags::O) && m != M::Sar {
        let v = R(30);
        l.a.lsr(Width::X, v, carry, bit);
        l.a.lsl(Width::X, v, v, bits - 1);
        l.a.eor(Width::X, v, v, d);
        l.set_overflow_from_bit(v, bits - 1);
    }
}

/// Register and bit that hold the last bit shifted out.
fn shifted_out(l: &mut Lower, m: M, bits: u32, x: R, d: R, count: Count) -> (R, u32) {
    let left = !matches!(m, M::Shr | M::Sar);
    match count {
        _ if left && bits < 32 => (d, bits),
        Count::Fixed(n) if left => (x, bits - n),
        Count::Fixed(n) => (x, n - 1),
        Count::Register(n) => {
            let (c, w) = (l.tmp(), if bits == 32 { Width::W } else { Width::X });
            if left {
                l.a.neg(Width::W, c, n);
            } else {
                l.a.sub_imm(Width::W, c, n, 1);
            }
            // A masked count above a narrow operand's width: its sign goes on in X.
            match m {
                M::Sar => l.a.asrv(w, c, x, c),
                _ => l.a.lsrv(w, c, x, c),
            }
            (c, 0)
        }
    }
}

fn rotate(l: &mut Lower, ins: &Instruction) -> Lowered {
    let count = fixed_count(ins);
    if count == Some(0) {
        l.count_zero(ins);
        return Ok(());
    }
    let left = ins.mnemonic() == M::Rol;
    let (a, destination) = l.read_destination(ins);
    let size = destination.size;
    let bits = size * 8;
    let in_register = destination.memory.is_none();
    let w = width_of(size);
    let x = replicated(l, a, size);
    let d = if in_register && size >= 4 { a } else { l.tmp() };
    let masked = match count {
        Some(n) => {
            let n = n % w.bits();
            let right = if left { (w.bits() - n) % w.bits() } else { n };
            l.a.ror(w, d, x, right);
            None
        }
        None => {
            // The masked count comes first: RCX may be the destination.
            let masked = (!l.need.is_empty()).then(|| l.masked_cl(size));
            let n = if left {
                let t = l.tmp();
                l.a.neg(Width::W, t, RCX);
                t
            } else {
                RCX
            };
            l.a.rorv(w, d, x, n);
            masked
        }
    };
    if !in_register || size < 4 {
        l.write_destination(ins, &destination, d);
    }
    if l.need.is_empty() {
        return Ok(());
    }
    l.canonical(l.live_out);
    let flags = |l: &mut Lower| {
        let (carry, beside) = if left { (0, bits - 1) } else { (bits - 1, bits - 2) };
        rotate_flags(l, d, carry, beside);
    };
    match masked {
        Some(n) => l.unless_zero(n, flags),
        None => flags(l),
    }
    Ok(())
}

/// CF is a bit of the result, OF it exclusive-or the bit beside it on the other side of the seam.
fn rotate_flags(l: &mut Lower, d: R, carry: u32, beside: u32) {
    if l.need.any(Flags::C) {
        l.set_carry_from_bit(d, carry);
    }
    if l.need.any(Flags::O) {
        let v = R(30);
        l.a.ror(Width::X, v, d, carry.abs_diff(beside));
        l.a.eor(Width::X, v, v, d);
        l.set_overflow_from_bit(v, carry.min(beside));
    }
}

/// A narrow value repeated over 32 bits: rotating that rotates each copy.
fn replicated(l: &mut Lower, a: R, size: u32) -> R {
    if size >= 4 {
        return a;
    }
    let x = l.tmp();
    l.a.ubfx(Width::W, x, a, 0, size * 8);
    if size == 1 {
        l.a.orr_lsl(Width::W, x, x, x, 8);
    }
    l.a.orr_lsl(Width::W, x, x, x, 16);
    x
}

/// RCL and RCR: one bit after the other.
fn rotate_carry(l: &mut Lower, ins: &Instruction) -> Lowered {
    let count = fixed_count(ins);
    if count == Some(0) {
        l.count_zero(ins);
        return Ok(());
    }
    let left = ins.mnemonic() == M::Rcl;
    let (a, destination) = l.read_destination(ins);
    let size = destination.size;
    let bits = size * 8;
    l.canonical(l.live_out.or(Flags::C));
    l.mark();
    let (c, d) = (l.tmp(), l.tmp());
    l.a.cset(c, Cond::Cs);
    l.a.mov(Width::X, d, a);
    // RCX may be the destination.
    let masked = count.is_none().then(|| l.masked_cl(size));
    let step = |l: &mut Lower| {
        let out = R(30);
        if left {
            l.a.ubfx(Width::X, out, d, bits - 1, 1);
            l.a.orr_lsl(Width::X, d, c, d, 1);
        } else {
            l.a.ubfx(Width::X, out, d, 0, 1);
            l.a.ubfx(Width::X, d, d, 1, bits - 1);
            l.a.orr_lsl(Width::X, d, d, c, bits - 1);
        }
        l.a.mov(Width::W, c, out);
    };
    if count == Some(1) {
        step(l);
    } else {
        let n = l.tmp();
        match (count, masked) {
            (Some(n0), _) => l.a.mov_imm(Width::W, n, u64::from(n0)),
            (_, Some(n0)) => l.a.mov(Width::W, n, n0),
            (None, None) => {}
        }
        let done = l.a.label();
        let again = l.a.here();
        l.a.cbz(Width::W, n, done);
        step(l);
        l.a.sub_imm(Width::W, n, n, 1);
        l.a.b(again);
        l.a.bind(done);
    }
    l.write_destination(ins, &destination, d);
    if l.need.any(Flags::O) {
        // RCL: the new top bit and CF; RCR: the two top bits. A count of zero must keep OF.
        let keep = masked.map(|n| {
            let skip = l.a.label();
            l.a.cbz(Width::W, n, skip);
            skip
        });
        let v = R(30);
        if left {
            l.a.lsl(Width::X, v, c, bits - 1);
        } else {
            l.a.lsl(Width::X, v, d, 1);
        }
        l.a.eor(Width::X, v, v, d);
        l.set_overflow_from_bit(v, bits - 1);
        if let Some(skip) = keep {
            l.a.bind(skip);
        }
    }
    if l.need.any(Flags::C) {
        l.set_carry_from_bit(c, 0);
    }
    Ok(())
}

/// SHLD and SHRD: a shift that takes its new bits from a second register.
fn double_shift(l: &mut Lower, ins: &Instruction) -> Lowered {
    let count = fixed_count(ins);
    if count == Some(0) {
        l.count_zero(ins);
        return Ok(());
    }
    let left = ins.mnemonic() == M::Shld;
    let (a, destination) = l.read_destination(ins);
    let b = host_of(ins.op1_register());
    let size = destination.size;
    let n = match count {
        Some(n) => Count::Fixed(n),
        None => Count::Register(l.masked_cl(size)),
    };
    let d = l.tmp();
    if size == 2 {
        double_shift_16(l, left, d, a, b, n);
    } else {
        double_shift_wide(l, left, width_of(size), d, a, b, n);
    }
    if destination.memory.is_some() {
        l.write_destination(ins, &destination, d);
    }
    if !l.need.is_empty() {
        match n {
            Count::Fixed(_) => double_flags(l, left, size, a, d, n),
            Count::Register(r) => l.unless_zero(r, |l| double_flags(l, left, size, a, d, n)),
        }
    }
    if destination.memory.is_none() {
        l.write_destination(ins, &destination, d);
    }
    Ok(())
}

fn double_shift_wide(l: &mut Lower, left: bool, w: Width, d: R, a: R, b: R, count: Count) {
    match count {
        Count::Fixed(n) if left => l.a.extr(w, d, a, b, w.bits() - n),
        Count::Fixed(n) => l.a.extr(w, d, b, a, n),
        Count::Register(n) => {
            // Two steps for the other register, as a shift by all bits is one by none.
            let (t, inverse) = (R(30), l.scratch());
            l.a.mvn(Width::W, inverse, n);
            if left {
                l.a.lslv(w, d, a, n);
                l.a.lsr(w, t, b, 1);
                l.a.lsrv(w, t, t, inverse);
            } else {
                l.a.lsrv(w, d, a, n);
                l.a.lsl(w, t, b, 1);
                l.a.lslv(w, t, t, inverse);
            }
            l.a.orr(w, d, d, t);
        }
    }
}

/// 16 bits: both operands stand in one register, and the first one once more behind them, for
/// counts above 16 (where the result is undefined and processors rotate).
fn double_shift_16(l: &mut Lower, left: bool, d: R, a: R, b: R, count: Count) {
    l.a.ubfx(Width::X, d, a, 0, 16);
    if left {
        // a : b : a, shifted left, taken from bit 32 on.
        l.a.bfi(Width::X, d, d, 32, 16);
        l.a.bfi(Width::X, d, b, 16, 16);
    } else {
        // a : b : a, shifted right, taken from bit 0 on.
        l.a.bfi(Width::X, d, b, 16, 16);
        l.a.bfi(Width::X, d, a, 32, 16);
    }
    match (count, left) {
        (Count::Fixed(n), true) => l.a.lsl(Width::X, d, d, n),
        (Count::Fixed(n), false) => l.a.lsr(Width::X, d, d, n),
        (Count::Register(n), true) => l.a.lslv(Width::X, d, d, n),
        (Count::Register(n), false) => l.a.lsrv(Width::X, d, d, n),
    }
    if left {
        l.a.lsr(Width::X, d, d, 32);
    }
}

fn double_flags(l: &mut Lower, left: bool, size: u32, a: R, d: R, count: Count) {
    let bits = size * 8;
    l.flags_of_result(d, size);
    if l.need.any(Flags::C) {
        let m = if left { M::Shl } else { M::Shr };
        // In 16 bits the carry of SHLD is still there, above the result.
        let (carry, bit) = match count {
            _ if left && size == 2 => (d, 16),
            _ => shifted_out(l, m, bits, a, d, count),
        };
        l.set_carry_from_bit(carry, bit);
    }
    if l.need.any(Flags::O) {
        let v = R(30);
        l.a.eor(Width::X, v, a, d);
        l.set_overflow_from_bit(v, bits - 1);
    }
}

fn shift_x(l: &mut Lower, ins: &Instruction) -> Lowered {
    let w = width_of(l.size_of(ins, 0));
    let d = host_of(ins.op0_register());
    let src = l.read(ins, 1);
    let count = host_of(ins.op2_register());
    match ins.mnemonic() {
        M::Shlx => l.a.lslv(w, d, src, count),
        M::Shrx => l.a.lsrv(w, d, src, count),
        _ => l.a.asrv(w, d, src, count),
    }
    Ok(())
}

fn rorx(l: &mut Lower, ins: &Instruction) -> Lowered {
    let w = width_of(l.size_of(ins, 0));
    let src = l.read(ins, 1);
    let count = ins.immediate8() as u32 % w.bits();
    l.a.ror(w, host_of(ins.op0_register()), src, count);
    Ok(())
}
