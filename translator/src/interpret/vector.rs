//! Moves and bitwise operations of SSE and SSE2, interpreted: what programs execute before their first loop.

use super::actions::Vector;
use super::operands::place;
use super::{Flow, Interpreter};
use iced_x86::{Code, Instruction, OpKind, Register};

impl Interpreter<'_> {
    /// Index of a vector register. None for others: MMX is the translator's.
    fn vector(&self, register: Register) -> Option<usize> {
        let place = place(register);
        (place.size == 16).then_some(usize::from(place.number & 15))
    }

    /// The value of a vector register or of 16 bytes of memory. Memory that has to be `aligned` and is not is left to
    /// the translator, which raises #GP.
    fn vector_value(&mut self, ins: &Instruction, n: u32, aligned: bool) -> Option<u128> {
        if ins.op_kind(n) == OpKind::Register {
            return Some(self.cpu.xmm[self.vector(ins.op_register(n))?]);
        }
        let address = self.address(ins)?;
        if aligned && address % 16 != 0 {
            return None;
        }
        Some(self.load_vector(address))
    }

    pub(super) fn vector_move(&mut self, ins: &Instruction, aligned: bool) -> Option<Flow> {
        let value = self.vector_value(ins, 1, aligned)?;
        if ins.op0_kind() == OpKind::Register {
            let to = self.vector(ins.op0_register())?;
            self.cpu.xmm[to] = value;
        } else {
            let address = self.address(ins)?;
            if aligned && address % 16 != 0 {
                return None;
            }
            self.store_vector(address, value);
        }
        Some(Flow::Next)
    }

    /// MOVQ and MOVD: a vector register as target is cleared above.
    pub(super) fn vector_move_low(&mut self, ins: &Instruction, size: u8) -> Option<Flow> {
        let low = |v: u128| v as u64 & super::operands::mask(size);
        let from_vector =
            ins.op1_kind() == OpKind::Register && place(ins.op1_register()).size == 16;
        if ins.op0_kind() == OpKind::Register && place(ins.op0_register()).size == 16 {
            let to = self.vector(ins.op0_register())?;
            let value = match from_vector {
                true => low(self.cpu.xmm[self.vector(ins.op1_register())?]),
                false => self.value(ins, 1)?,
            };
            self.cpu.xmm[to] = u128::from(value);
        } else if from_vector {
            let value = low(self.cpu.xmm[self.vector(ins.op1_register())?]);
            let to = self.operand(ins, 0)?;
            self.write(to, value);
        } else {
            return None;
        }
        Some(Flow::Next)
    }

    pub(super) fn vector_move_high(&mut self, ins: &Instruction) -> Option<Flow> {
        if ins.op0_kind() == OpKind::Register {
            let to = self.vector(ins.op0_register())?;
            let address = self.address(ins)?;
            let high = self.load(address, 8);
            self.cpu.xmm[to] = u128::from(self.cpu.xmm[to] as u64) | u128::from(high) << 64;
        } else {
            let from = self.vector(ins.op1_register())?;
            let address = self.address(ins)?;
            self.store(address, 8, (self.cpu.xmm[from] >> 64) as u64);
        }
        Some(Flow::Next)
    }

    pub(super) fn vector_operation(
        &mut self,
        ins: &Instruction,
        operation: Vector,
    ) -> Option<Flow> {
        if operation == Vector::MoveMask {
            return self.move_mask(ins);
        }
        let to = self.vector(ins.op0_register())?;
        if matches!(operation, Vector::ShiftLeftBytes | Vector::ShiftRightBytes) {
            let bits = 8 * u32::from(ins.immediate8());
            let a = self.cpu.xmm[to];
            let shifted = if operation == Vector::ShiftLeftBytes {
                a.checked_shl(bits)
            } else {
                a.checked_shr(bits)
            };
            self.cpu.xmm[to] = shifted.unwrap_or(0);
            return Some(Flow::Next);
        }
        let b = self.vector_value(ins, 1, true)?;
        let a = self.cpu.xmm[to];
        self.cpu.xmm[to] = combine(operation, a, b, ins)?;
        Some(Flow::Next)
    }

    fn move_mask(&mut self, ins: &Instruction) -> Option<Flow> {
        if ins.code() != Code::Pmovmskb_r32_xmm && ins.code() != Code::Pmovmskb_r64_xmm {
            return None;
        }
        let value = self.cpu.xmm[self.vector(ins.op1_register())?];
        let signs = value >> 7 & u128::from_ne_bytes([1; 16]);
        // Each byte's bit to the top byte of its half (Warren, Hacker's Delight, 7-3).
        let gather = |half: u64| half.wrapping_mul(0x0102_0408_1020_4080) >> 56;
        let bits = gather(signs as u64) | gather((signs >> 64) as u64) << 8;
        self.set_register(place(ins.op0_register()), bits);
        Some(Flow::Next)
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

fn combine(operation: Vector, a: u128, b: u128, ins: &Instruction) -> Option<u128> {
    const LOW: u128 = u64::MAX as u128;
    let (x, y) = (dwords(a), dwords(b));
    Some(match operation {
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
        Vector::ShuffleDwords => {
            let order = ins.immediate8();
            from_dwords(std::array::from_fn(|i| y[usize::from(order >> (2 * i) & 3)]))
        }
        Vector::ShiftLeftBytes | Vector::ShiftRightBytes | Vector::MoveMask => return None,
    })
}
