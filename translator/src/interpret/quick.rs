//! The most frequent instructions, straight from their bytes to their effect: without prefixes but for REX, most with operands
//! of 32 and 64 bits. All others take the way by [`super::decode`], which knows these too, with other operands.

use super::decode::{Bytes, address};
use super::opcodes::Arithmetic;
use super::operands::{mask, sign_extend};
use super::{Flow, Interpreter};

/// Bits of REX.
const W: u8 = 8;
const R: u8 = 4;
const B: u8 = 1;

/// What a one-byte opcode is here.
#[derive(Clone, Copy)]
enum Kind {
    /// Taken by the other way.
    Other,
    Push,
    Pop,
    /// Jcc with a displacement of 8 bits.
    JumpIf,
    /// The first byte of two.
    TwoByte,
    Call,
    Return,
    /// JMP with a displacement of 8 bits.
    Jump8,
    /// JMP with a displacement of 32 bits.
    Jump32,
    /// The group with JMP to an operand.
    JumpTo,
    /// MOV to ModRM.rm.
    Store,
    /// MOV to ModRM.reg.
    Load,
    Lea,
    /// MOV of an immediate to the register in the opcode.
    Constant,
    /// MOV of an immediate to ModRM.rm.
    StoreConstant,
    /// An operation on ModRM.rm with ModRM.reg.
    WithReg,
    /// An operation on ModRM.reg with ModRM.rm.
    WithRm,
    /// An operation on ModRM.rm with eight bits, sign-extended.
    With8,
    /// An operation on ModRM.rm with 32 bits, sign-extended.
    With32,
    Test,
    /// TEST of eight bits.
    TestByte,
    /// The group with TEST of eight bits with an immediate.
    TestByte8,
}

/// What each opcode is.
static KINDS: [Kind; 256] = {
    const RANGES: &[(u8, u8, Kind)] = &[
        (0x50, 0x57, Kind::Push),
        (0x58, 0x5f, Kind::Pop),
        (0x70, 0x7f, Kind::JumpIf),
        (0xb8, 0xbf, Kind::Constant),
        (0x0f, 0x0f, Kind::TwoByte),
        (0x81, 0x81, Kind::With32),
        (0x83, 0x83, Kind::With8),
        (0x84, 0x84, Kind::TestByte),
        (0x85, 0x85, Kind::Test),
        (0x89, 0x89, Kind::Store),
        (0x8b, 0x8b, Kind::Load),
        (0x8d, 0x8d, Kind::Lea),
        (0xc3, 0xc3, Kind::Return),
        (0xc7, 0xc7, Kind::StoreConstant),
        (0xe8, 0xe8, Kind::Call),
        (0xe9, 0xe9, Kind::Jump32),
        (0xeb, 0xeb, Kind::Jump8),
        (0xf6, 0xf6, Kind::TestByte8),
        (0xff, 0xff, Kind::JumpTo),
    ];
    let mut kinds = [Kind::Other; 256];
    let mut row = 0;
    while row < RANGES.len() {
        let (first, last, kind) = RANGES[row];
        let mut opcode = first as usize;
        while opcode <= last as usize {
            kinds[opcode] = kind;
            opcode += 1;
        }
        row += 1;
    }
    // Of the operations on 32 and 64 bits ADC and SBB are left out.
    let mut operation = 0;
    while operation < 8 {
        if operation != 2 && operation != 3 {
            kinds[8 * operation + 1] = Kind::WithReg;
            kinds[8 * operation + 3] = Kind::WithRm;
        }
        operation += 1;
    }
    kinds
};

/// A ModRM byte with the bits of REX that extend it.
#[derive(Clone, Copy)]
struct ModRm {
    byte: u8,
    rex: u8,
}

impl ModRm {
    #[inline(always)]
    fn read(bytes: &mut Bytes, rex: u8) -> Self {
        ModRm { byte: bytes.byte(), rex }
    }

    #[inline(always)]
    fn reg(self) -> usize {
        usize::from(self.byte >> 3 & 7 | (self.rex & R) << 1)
    }

    #[inline(always)]
    fn rm(self) -> usize {
        usize::from(self.byte & 7 | (self.rex & B) << 3)
    }

    /// The number that says which one of a group it is.
    #[inline(always)]
    fn operation(self) -> usize {
        usize::from(self.byte >> 3 & 7)
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
        let in_opcode = usize::from(opcode & 7 | (rex & B) << 3);
        let operation = || Arithmetic::ALL[usize::from(opcode >> 3 & 7)];
        let flow = match KINDS[usize::from(opcode)] {
            Kind::Other => return None,
            Kind::Push => {
                self.push_value(self.cpu.gpr[in_opcode]);
                Flow::Next
            }
            Kind::Pop => {
                // RSP itself takes the value.
                let value = self.pop_value(8);
                self.cpu.gpr[in_opcode] = value;
                Flow::Next
            }
            Kind::JumpIf => {
                let by = bytes.read::<i8>() as u64;
                self.jump_if(opcode & 15, by.wrapping_add(bytes.address()))
            }
            Kind::TwoByte => self.quick_two_byte(rex, size, &mut bytes)?,
            Kind::Call => {
                let by = bytes.read::<i32>() as u64;
                let next = bytes.address();
                self.push_value(next);
                self.target = by.wrapping_add(next);
                Flow::Call
            }
            Kind::Return => {
                self.target = self.pop_value(8);
                Flow::Jump
            }
            Kind::Jump8 => {
                let by = bytes.read::<i8>() as u64;
                self.jump(by.wrapping_add(bytes.address()))
            }
            Kind::Jump32 => {
                let by = bytes.read::<i32>() as u64;
                self.jump(by.wrapping_add(bytes.address()))
            }
            Kind::JumpTo => {
                let modrm = ModRm::read(&mut bytes, rex);
                if modrm.operation() != 4 {
                    return None;
                }
                let target = self.value_of_rm(modrm, 8, 0, &mut bytes);
                self.jump(target)
            }
            Kind::Store => {
                let modrm = ModRm::read(&mut bytes, rex);
                let value = self.cpu.gpr[modrm.reg()];
                self.move_to_rm(modrm, size, 0, &mut bytes, |_| value)
            }
            Kind::Load => {
                let modrm = ModRm::read(&mut bytes, rex);
                self.cpu.gpr[modrm.reg()] = self.value_of_rm(modrm, size, 0, &mut bytes);
                Flow::Next
            }
            Kind::Lea => {
                let modrm = ModRm::read(&mut bytes, rex);
                if !modrm.is_memory() {
                    return None;
                }
                let address = address(self.cpu, &mut bytes, modrm.byte, rex, 0);
                self.cpu.gpr[modrm.reg()] = address & mask(size);
                Flow::Next
            }
            Kind::Constant => {
                self.cpu.gpr[in_opcode] =
                    if size == 8 { bytes.read::<u64>() } else { u64::from(bytes.read::<u32>()) };
                Flow::Next
            }
            Kind::StoreConstant => {
                let modrm = ModRm::read(&mut bytes, rex);
                if modrm.operation() != 0 {
                    return None;
                }
                self.move_to_rm(modrm, size, 4, &mut bytes, |bytes| bytes.read::<i32>() as u64)
            }
            Kind::WithReg => {
                let modrm = ModRm::read(&mut bytes, rex);
                let reg = self.cpu.gpr[modrm.reg()];
                self.operate_on_rm(operation(), modrm, size, 0, &mut bytes, |_| reg)?
            }
            Kind::WithRm => {
                let modrm = ModRm::read(&mut bytes, rex);
                let b = self.value_of_rm(modrm, size, 0, &mut bytes);
                let a = self.cpu.gpr[modrm.reg()] & mask(size);
                self.operate_on(operation(), modrm.reg(), a, b, size)
            }
            Kind::With8 => self.operate_with::<1>(rex, size, &mut bytes)?,
            Kind::With32 => self.operate_with::<4>(rex, size, &mut bytes)?,
            Kind::Test => {
                let modrm = ModRm::read(&mut bytes, rex);
                let a = self.value_of_rm(modrm, size, 0, &mut bytes);
                let b = self.cpu.gpr[modrm.reg()] & mask(size);
                self.operate_on(Arithmetic::Test, 0, a, b, size)
            }
            Kind::TestByte => {
                let modrm = ModRm::read(&mut bytes, rex);
                let a = self.byte_of_rm(modrm, 0, &mut bytes);
                let b = self.byte_register(modrm.reg(), rex);
                self.operate_on(Arithmetic::Test, 0, a, b, 1)
            }
            Kind::TestByte8 => {
                let modrm = ModRm::read(&mut bytes, rex);
                if modrm.operation() != 0 {
                    return None;
                }
                let a = self.byte_of_rm(modrm, 1, &mut bytes);
                let b = u64::from(bytes.byte());
                self.operate_on(Arithmetic::Test, 0, a, b, 1)
            }
        };
        Some((flow, bytes.address()))
    }

    #[inline(always)]
    fn jump_if(&mut self, condition: u8, target: u64) -> Flow {
        if self.holds(condition) { self.jump(target) } else { Flow::NotTaken }
    }

    /// Jcc with a displacement of 32 bits, MOVZX and MOVSX.
    #[inline(always)]
    fn quick_two_byte(&mut self, rex: u8, size: u8, bytes: &mut Bytes) -> Option<Flow> {
        let opcode = bytes.byte();
        if opcode & 0xf0 == 0x80 {
            let by = bytes.read::<i32>() as u64;
            return Some(self.jump_if(opcode & 15, by.wrapping_add(bytes.address())));
        }
        if opcode & 0xf6 != 0xb6 {
            return None;
        }
        let modrm = ModRm::read(bytes, rex);
        let value = if opcode & 1 == 0 {
            self.byte_of_rm(modrm, 0, bytes)
        } else {
            self.value_of_rm(modrm, 2, 0, bytes)
        };
        let is_signed = opcode & 8 != 0;
        let value =
            if is_signed { sign_extend(value, 1 + (opcode & 1)) & mask(size) } else { value };
        self.cpu.gpr[modrm.reg()] = value;
        Some(Flow::Next)
    }

    /// The operand of ModRM.rm, zero-extended. So many bytes of immediate follow it.
    #[inline(always)]
    fn value_of_rm(&mut self, modrm: ModRm, size: u8, immediate: u8, bytes: &mut Bytes) -> u64 {
        if modrm.is_memory() {
            let address = address(self.cpu, bytes, modrm.byte, modrm.rex, immediate);
            self.load(address, size)
        } else {
            self.cpu.gpr[modrm.rm()] & mask(size)
        }
    }

    /// The same of eight bits.
    #[inline(always)]
    fn byte_of_rm(&mut self, modrm: ModRm, immediate: u8, bytes: &mut Bytes) -> u64 {
        if modrm.is_memory() {
            let address = address(self.cpu, bytes, modrm.byte, modrm.rex, immediate);
            self.load(address, 1)
        } else {
            self.byte_register(modrm.rm(), modrm.rex)
        }
    }

    /// A register of eight bits: without REX 4 to 7 are AH, CH, DH and BH.
    #[inline(always)]
    fn byte_register(&self, number: usize, rex: u8) -> u64 {
        let value = match number {
            4..8 if rex == 0 => self.cpu.gpr[number - 4] >> 8,
            _ => self.cpu.gpr[number],
        };
        value & 0xff
    }

    /// MOV to ModRM.rm, behind which the other operand may be.
    #[inline(always)]
    fn move_to_rm(
        &mut self,
        modrm: ModRm,
        size: u8,
        immediate: u8,
        bytes: &mut Bytes,
        value: impl FnOnce(&mut Bytes) -> u64,
    ) -> Flow {
        if modrm.is_memory() {
            let address = address(self.cpu, bytes, modrm.byte, modrm.rex, immediate);
            self.store(address, size, value(bytes));
        } else {
            self.cpu.gpr[modrm.rm()] = value(bytes) & mask(size);
        }
        Flow::Next
    }

    /// An operation on ModRM.rm with an immediate of so many bytes, sign-extended.
    #[inline(always)]
    fn operate_with<const BYTES: u8>(
        &mut self,
        rex: u8,
        size: u8,
        bytes: &mut Bytes,
    ) -> Option<Flow> {
        let modrm = ModRm::read(bytes, rex);
        let operation = Arithmetic::ALL[modrm.operation()];
        self.operate_on_rm(operation, modrm, size, BYTES, bytes, |bytes| match BYTES {
            1 => bytes.read::<i8>() as u64,
            _ => bytes.read::<i32>() as u64,
        })
    }

    /// An operation on ModRM.rm, behind which the other operand may be. None if its result goes to memory, and for ADC and SBB.
    #[inline(always)]
    fn operate_on_rm(
        &mut self,
        operation: Arithmetic,
        modrm: ModRm,
        size: u8,
        immediate: u8,
        bytes: &mut Bytes,
        other: impl FnOnce(&mut Bytes) -> u64,
    ) -> Option<Flow> {
        let into_memory = modrm.is_memory() && operation != Arithmetic::Cmp;
        if into_memory || matches!(operation, Arithmetic::Adc | Arithmetic::Sbb) {
            return None;
        }
        let a = self.value_of_rm(modrm, size, immediate, bytes);
        let b = other(bytes) & mask(size);
        Some(self.operate_on(operation, modrm.rm(), a, b, size))
    }

    /// Puts the result of an operation, unless it is CMP or TEST, into a register.
    #[inline(always)]
    fn operate_on(&mut self, operation: Arithmetic, to: usize, a: u64, b: u64, size: u8) -> Flow {
        let (result, flags) = self.operate(operation, a, b, size);
        if !matches!(operation, Arithmetic::Cmp | Arithmetic::Test) {
            self.cpu.gpr[to] = result;
        }
        self.set_flags(flags);
        Flow::Next
    }
}
