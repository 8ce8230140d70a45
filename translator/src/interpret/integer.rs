//! Integer instructions, interpreted (Intel SDM vol. 2).

use super::decode::Decoded;
use super::opcodes::{Arithmetic, Shift};
use super::operands::{Operand, Place, mask, sign_extend};
use super::{Flow, Interpreter};
use crate::state::reg::{RAX, RBP, RDX, RSP};

/// Bits of `nzcv`.
mod bit {
    pub const N: u64 = 1 << 31;
    pub const Z: u64 = 1 << 30;
    pub const C: u64 = 1 << 29;
    pub const V: u64 = 1 << 28;
}

/// The status flags as the state has them: `af` is the xor of the operands, see `CpuState`.
#[derive(Clone, Copy)]
pub(super) struct StatusFlags {
    nzcv: u64,
    pf: u64,
    af: u64,
}

impl Interpreter<'_> {
    pub(super) fn mov(&mut self, ins: &Decoded) -> Option<()> {
        let value = self.read(ins.from);
        self.write(ins.to, value);
        Some(())
    }

    pub(super) fn lea(&mut self, ins: &Decoded) -> Option<()> {
        let Operand::Memory(address, _) = ins.from else { return None };
        self.write(ins.to, address);
        Some(())
    }

    pub(super) fn extend(&mut self, ins: &Decoded, signed: bool) -> Option<()> {
        let value = self.read(ins.from);
        let value = match ins.from {
            Operand::Register(Place { size, .. }) | Operand::Memory(_, size) if signed => {
                sign_extend(value, size)
            }
            _ => value,
        };
        self.write(ins.to, value);
        Some(())
    }

    /// The accumulator's lower half, sign-extended to `size`.
    pub(super) fn widen(&mut self, size: u8) -> Option<()> {
        let value = sign_extend(self.cpu.gpr[RAX], size / 2);
        self.set_register(Place::low(RAX as u8, size), value);
        Some(())
    }

    pub(super) fn sign_to_rdx(&mut self, size: u8) -> Option<()> {
        let sign = (sign_extend(self.cpu.gpr[RAX], size) as i64 >> 63) as u64;
        self.set_register(Place::low(RDX as u8, size), sign);
        Some(())
    }

    pub(super) fn arithmetic(&mut self, ins: &Decoded, operation: Arithmetic) -> Option<()> {
        use Arithmetic::{Cmp, Test};
        let to = ins.to;
        let size = integer_size(to)?;
        let b = self.read(ins.from) & mask(size);
        let a = self.read(to);
        let (result, flags) = self.operate(operation, a, b, size);
        if !matches!(operation, Cmp | Test) {
            self.write(to, result);
        }
        self.set_flags(flags);
        Some(())
    }

    /// The result of an operation, and its flags. Both operands are zero-extended.
    #[inline(always)]
    pub(super) fn operate(
        &self,
        operation: Arithmetic,
        a: u64,
        b: u64,
        size: u8,
    ) -> (u64, StatusFlags) {
        use Arithmetic::*;
        let carry = matches!(operation, Adc | Sbb) && self.cpu.nzcv & bit::C != 0;
        let (result, nzcv) = match operation {
            Add | Adc => add(a, b, carry, size),
            Sub | Sbb | Cmp => subtract(a, b, carry, size),
            And | Test => logic(a & b, size),
            Or => logic(a | b, size),
            Xor => logic(a ^ b, size),
        };
        let af = match operation {
            And | Test | Or | Xor => result,
            _ => a ^ b,
        };
        (result, StatusFlags { nzcv, pf: result, af })
    }

    #[inline(always)]
    pub(super) fn set_flags(&mut self, StatusFlags { nzcv, pf, af }: StatusFlags) {
        self.cpu.nzcv = nzcv;
        self.cpu.pf = pf;
        self.cpu.af = af;
    }

    /// INC (`by` 1) and DEC (`by` -1): CF stays.
    pub(super) fn step_by(&mut self, ins: &Decoded, by: i8) -> Option<()> {
        let to = ins.to;
        let size = integer_size(to)?;
        let a = self.read(to);
        let (result, nzcv) =
            if by > 0 { add(a, 1, false, size) } else { subtract(a, 1, false, size) };
        self.write(to, result);
        let nzcv = nzcv & !bit::C | self.cpu.nzcv & bit::C;
        self.set_flags(StatusFlags { nzcv, pf: result, af: a ^ 1 });
        Some(())
    }

    pub(super) fn negate(&mut self, ins: &Decoded) -> Option<()> {
        let to = ins.to;
        let a = self.read(to);
        let (result, nzcv) = subtract(0, a, false, integer_size(to)?);
        self.write(to, result);
        self.set_flags(StatusFlags { nzcv, pf: result, af: a });
        Some(())
    }

    pub(super) fn not(&mut self, ins: &Decoded) -> Option<()> {
        let a = self.read(ins.to);
        self.write(ins.to, !a);
        Some(())
    }

    /// XCHG of registers; with memory it is atomic and the translator's.
    pub(super) fn exchange(&mut self, ins: &Decoded) -> Option<()> {
        let (Operand::Register(x), Operand::Register(y)) = (ins.to, ins.from) else { return None };
        let (a, b) = (self.register(x), self.register(y));
        self.set_register(x, b);
        self.set_register(y, a);
        Some(())
    }

    pub(super) fn shift(&mut self, ins: &Decoded, shift: Shift) -> Option<()> {
        let to = ins.to;
        let size = integer_size(to)?;
        let count = self.read(ins.from) as u32 & if size == 8 { 63 } else { 31 };
        let a = self.read(to);
        if count == 0 {
            // A 32-bit register is written nevertheless, and memory may fault.
            self.write(to, a);
            return Some(());
        }
        match shift {
            Shift::Rol | Shift::Ror => self.rotate(to, size, a, count, shift == Shift::Rol),
            _ => self.shift_by(to, size, a, count, shift),
        }
        Some(())
    }

    fn shift_by(&mut self, to: Operand, size: u8, a: u64, count: u32, shift: Shift) {
        let bits = 8 * u32::from(size);
        // One bit more than the operand has: the last one shifted out is CF.
        let wide = match shift {
            Shift::Shl => (u128::from(a) << count) as u64,
            Shift::Sar => (sign_extend(a, size) as i64 >> count.min(63)) as u64,
            _ => a >> count,
        };
        let carry = match shift {
            Shift::Shl => u128::from(a) << count >> bits & 1 != 0,
            Shift::Sar => sign_extend(a, size) as i64 >> (count - 1).min(63) & 1 != 0,
            _ => a >> (count - 1) & 1 != 0,
        };
        let result = wide & mask(size);
        let sign = |v: u64| v >> (bits - 1) & 1 != 0;
        let overflow = match shift {
            Shift::Shl => sign(result) != carry,
            Shift::Sar => false,
            _ => sign(a),
        };
        let (_, nz) = logic(result, size);
        self.write(to, result);
        let nzcv = nz | u64::from(carry) << 29 | u64::from(overflow) << 28;
        self.set_flags(StatusFlags { nzcv, pf: result, af: result });
    }

    /// Only CF and OF change.
    fn rotate(&mut self, to: Operand, size: u8, a: u64, count: u32, left: bool) {
        let bits = 8 * u32::from(size);
        let by = if left { count % bits } else { (bits - count % bits) % bits };
        let doubled = u128::from(a) << bits | u128::from(a);
        let result = (doubled << by >> bits) as u64 & mask(size);
        let top = result >> (bits - 1) & 1;
        let (carry, overflow) = if left {
            (result & 1, top ^ result & 1)
        } else {
            (top, top ^ result >> (bits - 2) & 1)
        };
        self.write(to, result);
        self.cpu.nzcv = self.cpu.nzcv & !(bit::C | bit::V) | carry << 29 | overflow << 28;
    }

    /// IMUL with two operands or three: the low half of the product goes to the first.
    pub(super) fn imul(&mut self, ins: &Decoded, three: bool) -> Option<()> {
        let size = integer_size(ins.to)?;
        let first = if three { ins.third } else { self.read(ins.to) };
        let (a, b) = (first, self.read(ins.from));
        let product =
            i128::from(sign_extend(a, size) as i64) * i128::from(sign_extend(b, size) as i64);
        let result = product as u64 & mask(size);
        self.write(ins.to, result);
        let lost = i128::from(sign_extend(result, size) as i64) != product;
        let nzcv = overflowed(lost, result, size);
        self.set_flags(StatusFlags { nzcv, pf: result, af: result });
        Some(())
    }

    /// MUL and IMUL with one operand: the accumulator's product goes to it and rdx, or ax.
    pub(super) fn multiply(&mut self, ins: &Decoded, signed: bool) -> Option<()> {
        let size = integer_size(ins.to)?;
        let (a, b) = (self.cpu.gpr[RAX] & mask(size), self.read(ins.to));
        let bits = 8 * u32::from(size);
        let (product, lost) = if signed {
            let wide =
                i128::from(sign_extend(a, size) as i64) * i128::from(sign_extend(b, size) as i64);
            (wide as u128, i128::from(sign_extend(wide as u64, size) as i64) != wide)
        } else {
            let wide = u128::from(a) * u128::from(b);
            (wide, wide >> bits != 0)
        };
        let low = product as u64 & mask(size);
        self.set_double(size, low, (product >> bits) as u64);
        let nzcv = overflowed(lost, low, size);
        self.set_flags(StatusFlags { nzcv, pf: low, af: low });
        Some(())
    }

    /// Writes rdx:rax in this size; for bytes ah:al.
    fn set_double(&mut self, size: u8, low: u64, high: u64) {
        if size == 1 {
            let rax = &mut self.cpu.gpr[RAX];
            *rax = *rax & !0xffff | (high & 0xff) << 8 | low & 0xff;
            return;
        }
        for (register, value) in [(RAX, low), (RDX, high)] {
            let old = if size == 2 { self.cpu.gpr[register] & !0xffff } else { 0 };
            self.cpu.gpr[register] = old | value & mask(size);
        }
    }

    /// DIV and IDIV. A division that raises #DE is the translator's.
    pub(super) fn divide(&mut self, ins: &Decoded, signed: bool) -> Option<()> {
        let size = integer_size(ins.to)?;
        let bits = 8 * u32::from(size);
        let divisor = self.read(ins.to);
        let high = if size == 1 { self.cpu.gpr[RAX] >> 8 } else { self.cpu.gpr[RDX] } & mask(size);
        let dividend = u128::from(high) << bits | u128::from(self.cpu.gpr[RAX] & mask(size));
        let (quotient, remainder) = if signed {
            let unused = 128 - 2 * bits;
            let dividend = (dividend << unused) as i128 >> unused;
            let divisor = i128::from(sign_extend(divisor, size) as i64);
            let quotient = dividend.checked_div(divisor)?;
            if i128::from(sign_extend(quotient as u64, size) as i64) != quotient {
                return None;
            }
            (quotient as u64, (dividend % divisor) as u64)
        } else {
            let quotient = dividend.checked_div(u128::from(divisor))?;
            if quotient >> bits != 0 {
                return None;
            }
            (quotient as u64, (dividend % u128::from(divisor)) as u64)
        };
        self.set_double(size, quotient & mask(size), remainder & mask(size));
        Some(())
    }

    /// BT of a register, or of memory with an immediate: the other forms reach beyond their operand.
    pub(super) fn bit_test(&mut self, ins: &Decoded) -> Option<()> {
        if matches!((ins.to, ins.from), (Operand::Memory(..), Operand::Register(_))) {
            return None;
        }
        let bit = self.read(ins.from) as u32 % (8 * u32::from(integer_size(ins.to)?));
        let carry = self.read(ins.to) >> bit & 1;
        self.cpu.nzcv = self.cpu.nzcv & !bit::C | carry << 29;
        Some(())
    }

    pub(super) fn push(&mut self, ins: &Decoded) -> Option<()> {
        let value = self.read(ins.to);
        self.push_value(value);
        Some(())
    }

    #[inline]
    pub(super) fn push_value(&mut self, value: u64) {
        let at = self.cpu.gpr[RSP].wrapping_sub(8);
        self.store(at, 8, value);
        self.cpu.gpr[RSP] = at;
    }

    /// POP into a register: rsp itself takes the value.
    pub(super) fn pop(&mut self, ins: &Decoded) -> Option<()> {
        let value = self.pop_value(8);
        self.write(ins.to, value);
        Some(())
    }

    #[inline]
    pub(super) fn pop_value(&mut self, bytes: u64) -> u64 {
        let at = self.cpu.gpr[RSP];
        let value = self.load(at, 8);
        self.cpu.gpr[RSP] = at.wrapping_add(bytes);
        value
    }

    pub(super) fn leave(&mut self) -> Option<()> {
        let at = self.cpu.gpr[RBP];
        let value = self.load(at, 8);
        self.cpu.gpr[RSP] = at.wrapping_add(8);
        self.cpu.gpr[RBP] = value;
        Some(())
    }

    pub(super) fn call(&mut self, ins: &Decoded, target: u64) -> Flow {
        self.push_value(ins.next);
        self.target = target;
        Flow::Call
    }

    pub(super) fn ret(&mut self, ins: &Decoded) -> Flow {
        self.target = self.pop_value(8 + ins.third);
        Flow::Jump
    }

    pub(super) fn set_if(&mut self, ins: &Decoded, condition: u8) -> Option<()> {
        let holds = self.holds(condition);
        self.write(ins.to, u64::from(holds));
        Some(())
    }

    /// CMOVcc: the load is made in any case, and a 32-bit register's upper half cleared.
    pub(super) fn move_if(&mut self, ins: &Decoded, condition: u8) -> Option<()> {
        let value = self.read(ins.from);
        let value = if self.holds(condition) { value } else { self.read(ins.to) };
        self.write(ins.to, value);
        Some(())
    }

    /// A condition by its code in the opcode (Intel SDM vol. 1, appendix B).
    #[inline]
    pub(super) fn holds(&self, condition: u8) -> bool {
        if condition & 0xe == PARITY {
            let even = (self.cpu.pf as u8).count_ones().is_multiple_of(2);
            return even != (condition & 1 != 0);
        }
        HOLDS[usize::from(condition)] >> (self.cpu.nzcv >> 28 & 15) & 1 != 0
    }
}

/// P and, with the lowest bit, NP.
const PARITY: u8 = 0xa;

/// For each condition but those the values of NZCV, a bit each, in which it holds.
static HOLDS: [u16; 16] = {
    let mut table = [0; 16];
    let mut case = 0;
    while case < 256 {
        let (condition, nzcv) = (case >> 4, (case as u64 & 15) << 28);
        let less = (nzcv & bit::N != 0) != (nzcv & bit::V != 0);
        let positive = match condition >> 1 {
            0 => nzcv & bit::V != 0,
            1 => nzcv & bit::C != 0,
            2 => nzcv & bit::Z != 0,
            3 => nzcv & (bit::C | bit::Z) != 0,
            4 => nzcv & bit::N != 0,
            6 => less,
            _ => less || nzcv & bit::Z != 0,
        };
        if positive != (condition & 1 != 0) {
            table[condition] |= 1 << (case & 15);
        }
        case += 1;
    }
    table
};

/// Size in bytes of an integer operand.
#[inline]
fn integer_size(operand: Operand) -> Option<u8> {
    match operand {
        Operand::Register(Place { size, .. }) | Operand::Memory(_, size) => Some(size),
        Operand::Vector(_) | Operand::Immediate(_) => None,
    }
}

/// The operands at the top of a 64-bit word, where the host's flags are those of any size.
#[inline]
fn at_top(size: u8) -> u32 {
    (64 - 8 * u32::from(size)) % 64
}

/// Sum and NZCV.
#[inline]
fn add(a: u64, b: u64, carry: bool, size: u8) -> (u64, u64) {
    let shift = at_top(size);
    let (x, y) = (a << shift, b << shift);
    let (sum, nzcv) = if carry { add_with(x, y, 1 << shift) } else { adds(x, y) };
    (sum >> shift, nzcv)
}

/// Difference and NZCV, with C as x86 has it: the borrow.
#[inline]
fn subtract(a: u64, b: u64, borrow: bool, size: u8) -> (u64, u64) {
    let shift = at_top(size);
    let (x, y) = (a << shift, b << shift);
    let (difference, nzcv) = if borrow { subtract_with(x, y, 1 << shift) } else { subs(x, y) };
    (difference >> shift, nzcv)
}

/// Sum of 64 bits and NZCV.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
fn adds(x: u64, y: u64) -> (u64, u64) {
    let (sum, nzcv);
    // SAFETY: registers only.
    unsafe {
        std::arch::asm!("adds {sum}, {x}, {y}", "mrs {nzcv}, nzcv", x = in(reg) x, y = in(reg) y,
            sum = out(reg) sum, nzcv = lateout(reg) nzcv, options(pure, nomem, nostack));
    }
    (sum, nzcv)
}

/// Difference of 64 bits and NZCV, with the borrow in C.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
fn subs(x: u64, y: u64) -> (u64, u64) {
    let (difference, nzcv): (u64, u64);
    // SAFETY: registers only.
    unsafe {
        std::arch::asm!("subs {difference}, {x}, {y}", "mrs {nzcv}, nzcv", x = in(reg) x, y = in(reg) y,
            difference = out(reg) difference, nzcv = lateout(reg) nzcv, options(pure, nomem, nostack));
    }
    (difference, nzcv ^ bit::C)
}

#[cfg(not(target_arch = "aarch64"))]
fn adds(x: u64, y: u64) -> (u64, u64) {
    add_with(x, y, 0)
}

#[cfg(not(target_arch = "aarch64"))]
fn subs(x: u64, y: u64) -> (u64, u64) {
    subtract_with(x, y, 0)
}

#[inline]
fn add_with(x: u64, y: u64, carry: u64) -> (u64, u64) {
    let sum = x.wrapping_add(y).wrapping_add(carry);
    let out = x & y | (x | y) & !sum;
    let overflow = (x ^ sum) & (y ^ sum);
    (sum, sign_and_zero(sum) | out >> 63 << 29 | overflow >> 63 << 28)
}

#[inline]
fn subtract_with(x: u64, y: u64, borrow: u64) -> (u64, u64) {
    let difference = x.wrapping_sub(y).wrapping_sub(borrow);
    let out = !x & y | (!x | y) & difference;
    let overflow = (x ^ y) & (x ^ difference);
    (difference, sign_and_zero(difference) | out >> 63 << 29 | overflow >> 63 << 28)
}

/// A logical operation's result and NZCV.
#[inline]
fn logic(result: u64, size: u8) -> (u64, u64) {
    (result, sign_and_zero(result << at_top(size)))
}

#[inline]
fn sign_and_zero(at_top: u64) -> u64 {
    at_top >> 63 << 31 | u64::from(at_top == 0) << 30
}

/// The flags of a multiplication: CF and OF say that the upper half is needed.
fn overflowed(lost: bool, result: u64, size: u8) -> u64 {
    let (_, nz) = logic(result, size);
    nz | if lost { bit::C | bit::V } else { 0 }
}
