//! Moves and bitwise operations of SSE and SSE2, interpreted: what programs execute before their first loop.

use super::Interpreter;
use super::decode::Decoded;
use super::opcodes::Vector;
use super::operands::{Operand, mask};

impl Interpreter<'_> {
    /// The value of a vector register or of 16 bytes of memory. Memory that has to be `aligned` and is not is left to
    /// the translator, which raises #GP.
    fn vector_value(&mut self, operand: Operand, aligned: bool) -> Option<u128> {
        match operand {
            Operand::Vector(number) => Some(self.cpu.xmm[usize::from(number & 15)]),
            Operand::Memory(address, _) if !aligned || address % 16 == 0 => {
                Some(self.load_vector(address))
            }
            _ => None,
        }
    }

    fn set_vector(&mut self, operand: Operand, value: u128) -> Option<()> {
        let Operand::Vector(number) = operand else { return None };
        self.cpu.xmm[usize::from(number & 15)] = value;
        Some(())
    }

    pub(super) fn vector_move(&mut self, ins: &Decoded, aligned: bool) -> Option<()> {
        if let Operand::Memory(address, _) = ins.to {
            if aligned && address % 16 != 0 {
                return None;
            }
            let value = self.vector_value(ins.from, aligned)?;
            self.store_vector(address, value);
            return Some(());
        }
        let value = self.vector_value(ins.from, aligned)?;
        self.set_vector(ins.to, value)
    }

    pub(super) fn vector_move_low(&mut self, ins: &Decoded) -> Option<()> {
        let value = self.read(ins.from) & mask(ins.size);
        if let Operand::Vector(_) = ins.to {
            return self.set_vector(ins.to, u128::from(value));
        }
        self.write(ins.to, value);
        Some(())
    }

    pub(super) fn vector_load_high(&mut self, ins: &Decoded) -> Option<()> {
        let Operand::Memory(address, _) = ins.from else { return None };
        let high = self.load(address, 8);
        let low = self.read(ins.to);
        self.set_vector(ins.to, u128::from(low) | u128::from(high) << 64)
    }

    pub(super) fn vector_store_high(&mut self, ins: &Decoded) -> Option<()> {
        let (Operand::Memory(address, _), Operand::Vector(_)) = (ins.to, ins.from) else {
            return None;
        };
        let value = self.vector_value(ins.from, false)?;
        self.store(address, 8, (value >> 64) as u64);
        Some(())
    }

    pub(super) fn vector_operation(&mut self, ins: &Decoded, operation: Vector) -> Option<()> {
        let b = self.vector_value(ins.from, true)?;
        let a = self.vector_value(ins.to, false)?;
        self.set_vector(ins.to, combine(operation, a, b))
    }

    pub(super) fn shuffle_dwords(&mut self, ins: &Decoded) -> Option<()> {
        let from = dwords(self.vector_value(ins.from, true)?);
        let shuffled = std::array::from_fn(|i| from[(ins.third >> (2 * i)) as usize & 3]);
        self.set_vector(ins.to, from_dwords(shuffled))
    }

    pub(super) fn shift_bytes(&mut self, ins: &Decoded, left: bool) -> Option<()> {
        let bits = 8 * ins.third as u32;
        let value = self.vector_value(ins.to, false)?;
        let shifted = if left { value.checked_shl(bits) } else { value.checked_shr(bits) };
        self.set_vector(ins.to, shifted.unwrap_or(0))
    }

    pub(super) fn move_mask(&mut self, ins: &Decoded) -> Option<()> {
        let value = self.vector_value(ins.from, false)?;
        let signs = value >> 7 & u128::from_ne_bytes([1; 16]);
        // Each byte's bit to the top byte of its half (Warren, Hacker's Delight, 7-3).
        let gather = |half: u64| half.wrapping_mul(0x0102_0408_1020_4080) >> 56;
        self.write(ins.to, gather(signs as u64) | gather((signs >> 64) as u64) << 8);
        Some(())
    }
}

fn bytes(a: u128, b: u128, f: impl Fn(u8, u8) -> u8) -> u128 {
    let (a, b) = (a.to_le_bytes(), b.to_le_bytes());
    u128::from_le_bytes(std::array::from_fn(|i| f(a[i], b[i])))
}

fn dwords(v: u128) -> [u32; 4] {
    std::array::from_fn(|i| (v >> (32 * i)) as u32)
}

fn from_dwords(v: [u32; 4]) -> u128 {
    v.iter().rev().fold(0, |all, &dword| all << 32 | u128::from(dword))
}

fn combine(operation: Vector, a: u128, b: u128) -> u128 {
    const LOW: u128 = u64::MAX as u128;
    let (x, y) = (dwords(a), dwords(b));
    match operation {
        Vector::And => a & b,
        Vector::AndNot => !a & b,
        Vector::Or => a | b,
        Vector::Xor => a ^ b,
        Vector::EqualBytes => bytes(a, b, |a, b| if a == b { 0xff } else { 0 }),
        Vector::EqualDwords => {
            from_dwords(std::array::from_fn(|i| if x[i] == y[i] { u32::MAX } else { 0 }))
        }
        Vector::MinBytes => bytes(a, b, u8::min),
        Vector::SubBytes => bytes(a, b, u8::wrapping_sub),
        Vector::AddQwords => {
            let high = ((a >> 64) as u64).wrapping_add((b >> 64) as u64);
            u128::from((a as u64).wrapping_add(b as u64)) | u128::from(high) << 64
        }
        Vector::UnpackLowDwords => from_dwords([x[0], y[0], x[1], y[1]]),
        Vector::UnpackLowQwords => a & LOW | b << 64,
        Vector::UnpackHighQwords => a >> 64 | b & !LOW,
    }
}
