//! Multiplication and division: MUL IMUL MULX DIV IDIV, and the carry chains ADCX ADOX.
//!
//! MUL and IMUL define CF and OF only (set if the high half matters), divisions no flag at all.

use super::operands::{host_of, width_of};
use super::table::{Rows, plain, row};
use super::{Carry, Lower, Lowered};
use crate::asm::{Cond, R, Width};
use crate::flags::Flags;
use crate::helpers::Helper;
use dynasmrt::{DynasmApi, dynasm};
use iced_x86::{Instruction, Mnemonic as M, Register};

const RAX: R = R(0);
const RDX: R = R(2);
/// The exception of a division by zero or with a quotient that is too large.
const DE: u8 = 0;

pub(super) const ROWS: Rows = &[
    row(M::Mul, mul, Flags::NONE, Flags::ALL),
    row(M::Imul, imul, Flags::NONE, Flags::ALL),
    row(M::Div, div, Flags::ALL, Flags::ALL),
    row(M::Idiv, div, Flags::ALL, Flags::ALL),
    plain(M::Mulx, mulx),
    row(M::Adcx, adcx, Flags::C, Flags::C),
    row(M::Adox, adox, Flags::O, Flags::O),
];

impl Lower<'_> {
    /// CF = OF = (NZCV says "not equal").
    fn overflow_if_ne(&mut self) {
        // CCMP zr, zr, #0b0001, eq: C = 1, V = 0 if equal; else C = 0, V = 1.
        self.a.ccmp(Width::W, R::ZR, R::ZR, 0b0001, Cond::Eq);
        self.flags_are(Carry::Inverted);
    }

    fn wants_overflow(&self) -> bool {
        self.need.any(Flags::C.or(Flags::O))
    }

    /// Writes a product to AX or DX:AX (narrow forms).
    fn write_narrow_product(&mut self, size: u32, product: R) {
        self.write_register(Register::AX, product);
        if size == 2 {
            let t = self.tmp();
            self.a.lsr(Width::W, t, product, 16);
            self.write_register(Register::DX, t);
        }
    }
}

fn mul(l: &mut Lower, ins: &Instruction) -> Lowered {
    let size = l.size_of(ins, 0);
    match size {
        8 => {
            let b = l.read(ins, 0);
            let low = l.tmp();
            l.a.mul(Width::X, low, RAX, b);
            l.a.umulh(RDX, RAX, b);
            l.a.mov(Width::X, RAX, low);
        }
        4 => {
            let b = l.read(ins, 0);
            l.a.umull(RAX, RAX, b);
            l.a.lsr(Width::X, RDX, RAX, 32);
            l.a.mov(Width::W, RAX, RAX);
        }
        _ => {
            let b = l.read_zx(ins, 0);
            let t = l.tmp();
            l.a.ubfx(Width::W, t, RAX, 0, size * 8);
            l.a.mul(Width::W, t, t, b);
            l.write_narrow_product(size, t);
            if l.wants_overflow() {
                l.a.lsr(Width::W, t, t, size * 8);
                l.a.subs_imm(Width::W, R::ZR, t, 0);
                l.overflow_if_ne();
            }
            return Ok(());
        }
    }
    if l.wants_overflow() {
        l.a.subs_imm(Width::X, R::ZR, RDX, 0);
        l.overflow_if_ne();
    }
    Ok(())
}

fn imul(l: &mut Lower, ins: &Instruction) -> Lowered {
    if ins.op_count() == 1 {
        return imul_wide(l, ins);
    }
    let size = l.size_of(ins, 0);
    let d = ins.op0_register();
    let (a, b) = if ins.op_count() == 2 {
        (l.copied.take().unwrap_or_else(|| host_of(d)), l.read(ins, 1))
    } else {
        let a = l.read(ins, 1);
        (a, l.constant(Width::X, ins.immediate(2)))
    };
    if !l.wants_overflow() {
        let t = if size == 2 { l.tmp() } else { host_of(d) };
        l.a.mul(width_of(size), t, a, b);
        if size == 2 {
            l.write_register(d, t);
        }
        return Ok(());
    }
    let t = l.tmp();
    match size {
        8 => {
            l.a.smulh(t, a, b);
            l.a.mul(Width::X, host_of(d), a, b);
            l.compare_with_sign(t, host_of(d));
        }
        4 => {
            l.a.smull(t, a, b);
            l.a.mov(Width::W, host_of(d), t);
            l.compare_extended(t, 4);
        }
        _ => {
            let x = l.tmp();
            l.a.sxth(Width::W, t, a);
            l.a.sxth(Width::W, x, b);
            l.a.mul(Width::W, t, t, x);
            l.write_register(d, t);
            l.a.sxtw(t, t);
            l.compare_extended(t, 2);
        }
    }
    l.overflow_if_ne();
    Ok(())
}

/// IMUL with one operand: the whole product.
fn imul_wide(l: &mut Lower, ins: &Instruction) -> Lowered {
    let size = l.size_of(ins, 0);
    let t = l.tmp();
    match size {
        8 => {
            let b = l.read(ins, 0);
            l.a.mul(Width::X, t, RAX, b);
            l.a.smulh(RDX, RAX, b);
            l.a.mov(Width::X, RAX, t);
            if l.wants_overflow() {
                l.compare_with_sign(RDX, RAX);
            }
        }
        4 => {
            let b = l.read(ins, 0);
            l.a.smull(t, RAX, b);
            l.a.mov(Width::W, RAX, t);
            l.a.lsr(Width::X, RDX, t, 32);
            if l.wants_overflow() {
                l.compare_extended(t, 4);
            }
        }
        _ => {
            let b = l.read_sx(ins, 0);
            l.a.sbfx(Width::X, t, RAX, 0, size * 8);
            l.a.mul(Width::X, t, t, b);
            l.write_narrow_product(size, t);
            if l.wants_overflow() {
                l.compare_extended(t, size);
            }
        }
    }
    if l.wants_overflow() {
        l.overflow_if_ne();
    }
    Ok(())
}

impl Lower<'_> {
    /// Compares the high half of a product with the sign of its low half.
    fn compare_with_sign(&mut self, high: R, low: R) {
        dynasm!(self.a; .arch aarch64; cmp X(high.0), X(low.0), asr 63);
    }

    /// Compares a 64-bit value with its own low `size` bytes, sign-extended.
    fn compare_extended(&mut self, t: R, size: u32) {
        match size {
            1 => dynasm!(self.a; .arch aarch64; cmp XSP(t.0), W(t.0), sxtb),
            2 => dynasm!(self.a; .arch aarch64; cmp XSP(t.0), W(t.0), sxth),
            _ => dynasm!(self.a; .arch aarch64; cmp XSP(t.0), W(t.0), sxtw),
        }
    }
}

/// MULX high, low, src: rdx * src without flags. If both destinations are the same it gets the high half.
fn mulx(l: &mut Lower, ins: &Instruction) -> Lowered {
    let src = l.read(ins, 2);
    let (high, low) = (host_of(ins.op0_register()), host_of(ins.op1_register()));
    let t = l.tmp();
    if l.size_of(ins, 0) == 8 {
        l.a.umulh(t, RDX, src);
        l.a.mul(Width::X, low, RDX, src);
        l.a.mov(Width::X, high, t);
    } else {
        l.a.umull(t, RDX, src);
        l.a.mov(Width::W, low, t);
        l.a.lsr(Width::X, high, t, 32);
    }
    Ok(())
}

fn adcx(l: &mut Lower, ins: &Instruction) -> Lowered {
    one_flag_sum(l, ins, Cond::Cs)
}

fn adox(l: &mut Lower, ins: &Instruction) -> Lowered {
    one_flag_sum(l, ins, Cond::Vs)
}

/// ADCX and ADOX: a sum with carry through one flag, the others stay.
fn one_flag_sum(l: &mut Lower, ins: &Instruction, flag: Cond) -> Lowered {
    let w = width_of(l.size_of(ins, 0));
    let d = host_of(ins.op0_register());
    let b = l.read(ins, 1);
    l.canonical(Flags::ALL);
    let (c, sum, out) = (l.tmp(), l.tmp(), l.tmp());
    l.a.cset(c, flag);
    // The carry out of a + b + c is the top bit of (a & b) | ((a | b) & ~sum).
    l.a.add(w, sum, d, b);
    l.a.add(w, sum, sum, c);
    l.a.orr(w, out, d, b);
    l.a.bic(w, out, out, sum);
    l.a.and(w, c, d, b);
    l.a.orr(w, out, out, c);
    l.a.mov(w, d, sum);
    if l.need.is_empty() {
        return Ok(());
    }
    if flag == Cond::Cs {
        l.set_carry_from_bit(out, w.bits() - 1);
    } else {
        l.set_overflow_from_bit(out, w.bits() - 1);
    }
    Ok(())
}

fn div(l: &mut Lower, ins: &Instruction) -> Lowered {
    let signed = ins.mnemonic() == M::Idiv;
    match l.size_of(ins, 0) {
        8 => div_64(l, ins, signed),
        4 => div_32(l, ins, signed),
        size => div_narrow(l, ins, signed, size),
    }
    Ok(())
}

impl Lower<'_> {
    fn emit_div(&mut self, signed: bool, w: Width, q: R, n: R, d: R) {
        if signed { self.a.sdiv(w, q, n, d) } else { self.a.udiv(w, q, n, d) }
    }

    /// Goes to `fail` unless the quotient fits `bits`.
    fn check_quotient(&mut self, signed: bool, q: R, bits: u32, fail: crate::asm::Label) {
        let t = self.tmp();
        if signed {
            self.a.sbfx(Width::X, t, q, 0, bits);
            self.a.sub(Width::X, t, t, q);
        } else {
            self.a.lsr(Width::X, t, q, bits);
        }
        self.a.cbnz(Width::X, t, fail);
    }
}

/// 8 and 16 bits: AX / src to AL, AH; DX:AX / src to AX, DX.
fn div_narrow(l: &mut Lower, ins: &Instruction, signed: bool, size: u32) {
    let bits = size * 8;
    let b = if signed { l.read_sx(ins, 0) } else { l.read_zx(ins, 0) };
    let fail = l.cold_raise(DE);
    l.a.cbz(Width::W, b, fail);
    let (n, q) = (l.tmp(), l.tmp());
    if size == 2 {
        l.a.ubfx(Width::W, n, RAX, 0, 16);
        l.a.bfi(Width::W, n, RDX, 16, 16);
        if signed {
            l.a.sxtw(n, n);
        }
    } else if signed {
        l.a.sxth(Width::X, n, RAX);
    } else {
        l.a.ubfx(Width::X, n, RAX, 0, 16);
    }
    l.emit_div(signed, Width::X, q, n, b);
    l.check_quotient(signed, q, bits, fail);
    l.a.msub(Width::X, n, q, b, n);
    if size == 2 {
        l.write_register(Register::AX, q);
        l.write_register(Register::DX, n);
    } else {
        l.write_register(Register::AL, q);
        l.write_register(Register::AH, n);
    }
}

/// EDX:EAX / src: a 64-bit division.
fn div_32(l: &mut Lower, ins: &Instruction, signed: bool) {
    let b = if signed { l.read_sx(ins, 0) } else { l.read_zx(ins, 0) };
    let fail = l.cold_raise(DE);
    l.a.cbz(Width::W, b, fail);
    let (n, q) = (l.tmp(), l.tmp());
    l.a.mov(Width::W, n, RAX);
    l.a.bfi(Width::X, n, RDX, 32, 32);
    l.emit_div(signed, Width::X, q, n, b);
    l.check_quotient(signed, q, 32, fail);
    l.a.msub(Width::W, RDX, q, b, n);
    l.a.mov(Width::W, RAX, q);
}

/// RDX:RAX / src: nearly always rdx only extends rax; what is left goes to a helper.
fn div_64(l: &mut Lower, ins: &Instruction, signed: bool) {
    let b = l.read(ins, 0);
    // The helper needs the flags in canonical form on its way only; divisions leave them undefined.
    l.canonical(Flags::ALL);
    let fail = l.cold_raise(DE);
    let (slow, done) = (l.a.label(), l.a.label());
    l.a.cbz(Width::X, b, fail);
    let t = l.tmp();
    let helper = if signed {
        l.a.eor_asr(t, RDX, RAX, 63);
        l.a.cbnz(Width::X, t, slow);
        // The smallest number divided by -1 overflows.
        l.a.add_imm(Width::X, t, b, 1);
        l.a.cbz(Width::X, t, slow);
        Helper::Idiv128
    } else {
        l.a.cbnz(Width::X, RDX, slow);
        Helper::Div128
    };
    l.emit_div(signed, Width::X, t, RAX, b);
    l.a.msub(Width::X, RDX, t, b, RAX);
    l.a.mov(Width::X, RAX, t);
    l.a.b(done);
    l.a.bind(slow);
    l.a.mov(Width::X, R(20), b);
    l.call_helper(helper);
    l.a.cbnz(Width::X, R(20), fail);
    l.a.bind(done);
}
