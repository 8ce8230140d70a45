//! The most frequent instructions, straight from their bytes to their effect: without prefixes but for REX, with operands
//! of 32 and 64 bits. All others take the way by [`super::decode`], which knows these too, with other operands.

use super::decode::{Bytes, address};
use super::opcodes::Arithmetic;
use super::operands::mask;
use super::{Flow, Interpreter};

/// Bits of REX.
const W: u8 = 8;
const R: u8 = 4;
const B: u8 = 1;

/// A ModRM byte with the bits of REX that extend it.
#[derive(Clone, Copy)]
struct ModRm {
    byte: u8,
    rex: u8,
}

impl ModRm {
    #[inline(always)]
    fn reg(self) -> usize {
        usize::from(self.byte >> 3 & 7 | (self.rex & R) << 1)
    }

    #[inline(always)]
    fn rm(self) -> usize {
        usize::from(self.byte & 7 | (self.rex & B) << 3)
    }

    #[inline(always)]
    fn is_memory(self) -> bool {
        self.byte < 0xc0
    }
}

impl Interpreter<'_> {
    /// Executes the instruction at `rip`, of which [`super::decode::WINDOW`] bytes can be read, if it is one of these.
    /// Gives how control goes on, and the address of the next instruction.
    #[inline(always)]
    pub(super) fn quick(&mut self, rip: u64) -> Option<(Flow, u64)> {
        let mut bytes = Bytes::at(rip);
        let mut opcode = bytes.byte();
        let mut rex = 0;
        if opcode & 0xf0 == 0x40 {
            rex = opcode;
            opcode = bytes.byte();
        }
        let size = if rex & W != 0 { 8 } else { 4 };
        let flow = match opcode {
            0x50..=0x57 => {
                self.push_value(self.cpu.gpr[usize::from(opcode & 7 | (rex & B) << 3)]);
                Flow::Next
            }
            0x58..=0x5f => {
                // RSP itself takes the value.
                let value = self.pop_value(8);
                self.cpu.gpr[usize::from(opcode & 7 | (rex & B) << 3)] = value;
                Flow::Next
            }
            0x70..=0x7f => {
                let by = bytes.read::<i8>() as u64;
                self.jump_if(opcode & 15, by.wrapping_add(bytes.address()))
            }
            0x0f if bytes.peek() & 0xf0 == 0x80 => {
                let condition = bytes.byte() & 15;
                let by = bytes.read::<i32>() as u64;
                self.jump_if(condition, by.wrapping_add(bytes.address()))
            }
            0xe8 => {
                let by = bytes.read::<i32>() as u64;
                let next = bytes.address();
                self.push_value(next);
                self.target = by.wrapping_add(next);
                Flow::Call
            }
            0xc3 => {
                self.target = self.pop_value(8);
                Flow::Jump
            }
            0x89 | 0x8b | 0x8d => {
                let modrm = ModRm { byte: bytes.byte(), rex };
                self.quick_move(opcode, modrm, size, &mut bytes)?;
                Flow::Next
            }
            0x01 | 0x09 | 0x21 | 0x29 | 0x31 | 0x39 | 0x03 | 0x0b | 0x23 | 0x2b | 0x33 | 0x3b
            | 0x83 | 0x85 => {
                let modrm = ModRm { byte: bytes.byte(), rex };
                self.quick_arithmetic(opcode, modrm, size, &mut bytes)?;
                Flow::Next
            }
            _ => return None,
        };
        Some((flow, bytes.address()))
    }

    #[inline(always)]
    fn jump_if(&mut self, condition: u8, target: u64) -> Flow {
        if self.holds(condition) { self.jump(target) } else { Flow::NotTaken }
    }

    /// MOV between registers and memory, and LEA.
    #[inline(always)]
    fn quick_move(&mut self, opcode: u8, modrm: ModRm, size: u8, bytes: &mut Bytes) -> Option<()> {
        let value = |value: u64| if size == 8 { value } else { value & mask(4) };
        let (reg, rm) = (modrm.reg(), modrm.rm());
        if !modrm.is_memory() {
            match opcode {
                0x89 => self.cpu.gpr[rm] = value(self.cpu.gpr[reg]),
                0x8b => self.cpu.gpr[reg] = value(self.cpu.gpr[rm]),
                _ => return None,
            }
            return Some(());
        }
        let address = address(self.cpu, bytes, modrm.byte, modrm.rex, 0);
        match opcode {
            0x89 => self.store(address, size, self.cpu.gpr[reg]),
            0x8b => self.cpu.gpr[reg] = self.load(address, size),
            _ => self.cpu.gpr[reg] = value(address),
        }
        Some(())
    }

    /// Operations whose result goes to a register or, of CMP and TEST, nowhere. Of ADC and SBB none.
    #[inline(always)]
    fn quick_arithmetic(
        &mut self,
        opcode: u8,
        modrm: ModRm,
        size: u8,
        bytes: &mut Bytes,
    ) -> Option<()> {
        let operation = match opcode {
            0x83 => Arithmetic::ALL[usize::from(modrm.byte >> 3 & 7)],
            0x85 => Arithmetic::Test,
            _ => Arithmetic::ALL[usize::from(opcode >> 3)],
        };
        let keeps = matches!(operation, Arithmetic::Cmp | Arithmetic::Test);
        let into_reg = opcode & 0x82 == 2;
        if modrm.is_memory() && !keeps && !into_reg
            || matches!(operation, Arithmetic::Adc | Arithmetic::Sbb)
        {
            return None;
        }
        let (reg, rm) = (modrm.reg(), modrm.rm());
        let of_rm = if modrm.is_memory() {
            let address = address(self.cpu, bytes, modrm.byte, modrm.rex, u8::from(opcode == 0x83));
            self.load(address, size)
        } else {
            self.cpu.gpr[rm] & mask(size)
        };
        let (a, b) = match opcode {
            0x83 => (of_rm, bytes.read::<i8>() as u64 & mask(size)),
            _ if into_reg => (self.cpu.gpr[reg] & mask(size), of_rm),
            _ => (of_rm, self.cpu.gpr[reg] & mask(size)),
        };
        let (result, flags) = self.operate(operation, a, b, size);
        if !keeps {
            self.cpu.gpr[if into_reg { reg } else { rm }] = result;
        }
        self.set_flags(flags);
        Some(())
    }
}
