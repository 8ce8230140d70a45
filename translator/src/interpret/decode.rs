//! Decoding for the interpreter: straight from the bytes to operands with their addresses, much shorter than what the
//! translator needs. Whatever is unusual is left to the translator.

use super::opcodes::{Action, Operands, TWO_BYTE, ignores_repeat};
use super::opcodes::{Group, ONE_BYTE};
use super::operands::{Operand, Place};
use crate::state::CpuState;
use crate::state::reg::{RAX, RCX};

/// So many bytes are read at most.
pub const WINDOW: usize = 24;
/// No opcode that is interpreted begins later.
const MAX_PREFIXES: usize = 5;

/// An instruction.
#[derive(Clone, Copy, Debug)]
pub struct Decoded {
    /// What it does.
    pub action: Action,
    /// Its first operand, the one that is written.
    pub to: Operand,
    /// Its second operand.
    pub from: Operand,
    /// Its third operand, an immediate.
    pub third: u64,
    /// Where a relative branch goes.
    pub target: u64,
    /// Size of an integer operation, in bytes.
    pub size: u8,
    /// Address of the next instruction.
    pub next: u64,
}

/// The bytes of an instruction from here on.
#[derive(Clone, Copy)]
pub(super) struct Bytes(*const u8);

impl Bytes {
    /// Those at an address.
    #[inline(always)]
    pub(super) fn at(address: u64) -> Self {
        Bytes(address as *const u8)
    }

    /// Where the next one is.
    #[inline(always)]
    pub(super) fn address(self) -> u64 {
        self.0 as u64
    }

    #[inline(always)]
    pub(super) fn read<T>(&mut self) -> T {
        // SAFETY: all that is read for an instruction are WINDOW bytes, which the caller of `decode` vouches for. The
        // guest may change them meanwhile, which is its own race: any bytes decode to something.
        unsafe {
            let value = self.0.cast::<T>().read_unaligned();
            self.0 = self.0.add(size_of::<T>());
            value
        }
    }

    #[inline(always)]
    pub(super) fn byte(&mut self) -> u8 {
        self.read()
    }

    /// The next one, which stays the next one.
    #[inline(always)]
    pub(super) fn peek(mut self) -> u8 {
        self.byte()
    }
}

/// The prefixes: REX in the low byte, F3 or F2 in the one above, then single bits.
#[derive(Clone, Copy)]
struct Prefixes(u32);

/// Bits of REX.
const W: u32 = 8;
const R: u32 = 4;
const X: u32 = 2;
const B: u32 = 1;
const REX: u32 = 0xff;
const REPEAT: u32 = 0xff00;
/// 66.
const OPERAND16: u32 = 1 << 16;
/// A segment; and those whose base is not 0.
const SEGMENT: u32 = 1 << 17;
const FS: u32 = 1 << 18;
const GS: u32 = 1 << 19;

impl Prefixes {
    #[inline(always)]
    fn any(self, of: u32) -> bool {
        self.0 & of != 0
    }

    /// Size of an operand "v": 2, 4 or 8 bytes.
    #[inline(always)]
    fn size(self) -> u8 {
        if self.any(W) {
            8
        } else if self.any(OPERAND16) {
            2
        } else {
            4
        }
    }

    /// F3, F2 or 0.
    #[inline(always)]
    fn repeat(self) -> u8 {
        (self.0 >> 8) as u8
    }

    /// Number of the table for a mandatory prefix.
    #[inline(always)]
    fn mandatory(self) -> usize {
        match self.repeat() {
            0xf3 => 2,
            0xf2 => 3,
            _ => (self.0 >> 16 & 1) as usize,
        }
    }
}

/// Decodes the instruction at `rip`, of which [`WINDOW`] bytes can be read, into `decoded`: what the action does not
/// need stays from the instruction before. None if it is the translator's.
#[inline(always)]
pub fn decode(cpu: &CpuState, rip: u64, decoded: &mut Decoded) -> Option<()> {
    let mut bytes = Bytes(rip as *const u8);
    let mut prefixes = Prefixes(0);
    let mut opcode = bytes.byte();
    if opcode & 0xf0 == 0x40 {
        prefixes = Prefixes(u32::from(opcode));
        opcode = bytes.byte();
    } else if IS_PREFIX[usize::from(opcode)] {
        (bytes, prefixes) = read_prefixes(bytes, opcode)?;
        opcode = bytes.byte();
    }
    let (action, operands) = if opcode == 0x0f {
        opcode = bytes.byte();
        TWO_BYTE[prefixes.mandatory()][usize::from(opcode)]
    } else {
        let row = ONE_BYTE[usize::from(opcode)];
        if prefixes.any(REPEAT) && !takes_repeat(row.0, prefixes) {
            return None;
        }
        row
    };
    decoded.action = action;
    let mut operation = Operation { cpu, bytes, prefixes, opcode, decoded, immediate_length: 0 };
    operation.operands(operands)?;
    let next = operation.bytes.0 as u64;
    decoded.next = next;
    (next - rip <= crate::decode::LONGEST as u64).then_some(())
}

/// The prefixes that are not the translator's, but for REX.
static IS_PREFIX: [bool; 256] = {
    let mut table = [false; 256];
    let all = [0x66, 0xf2, 0xf3, 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65];
    let mut i = 0;
    while i < all.len() {
        table[all[i]] = true;
        i += 1;
    }
    table
};

/// Whether F3 or F2 belongs to this one-byte opcode.
fn takes_repeat(action: Action, prefixes: Prefixes) -> bool {
    match action {
        Action::RepeatMove | Action::RepeatStore => prefixes.repeat() == 0xf3,
        Action::Group(Group::IncDecBranch) => prefixes.repeat() == 0xf2,
        action => ignores_repeat(action),
    }
}

/// Reads prefixes, of which `first` is the first. The opcode is next.
#[inline(never)]
fn read_prefixes(mut bytes: Bytes, first: u8) -> Option<(Bytes, Prefixes)> {
    let mut found = 0;
    let mut byte = first;
    for _ in 0..MAX_PREFIXES {
        found |= match byte {
            0x66 => OPERAND16,
            0xf2 | 0xf3 if found & REPEAT == 0 => u32::from(byte) << 8,
            // Of the others the base is 0 in 64-bit mode (Intel SDM vol. 1, 3.4.2.1).
            0x26 | 0x2e | 0x36 | 0x3e if found & SEGMENT == 0 => SEGMENT,
            0x64 if found & SEGMENT == 0 => SEGMENT | FS,
            0x65 if found & SEGMENT == 0 => SEGMENT | GS,
            0x40..0x50 => return Some((bytes, Prefixes(found | u32::from(byte)))),
            _ => return Some((Bytes(bytes.0.wrapping_sub(1)), Prefixes(found))),
        };
        byte = bytes.byte();
    }
    None
}

impl Decoded {
    /// None yet.
    pub fn new() -> Self {
        let none = Operand::Immediate(0);
        Decoded {
            action: Action::Translate,
            to: none,
            from: none,
            third: 0,
            target: 0,
            size: 0,
            next: 0,
        }
    }
}

/// An opcode whose operands are still to be read.
struct Operation<'a> {
    cpu: &'a CpuState,
    bytes: Bytes,
    prefixes: Prefixes,
    opcode: u8,
    decoded: &'a mut Decoded,
    /// Of the immediate behind ModRM: an address may be relative to the next instruction.
    immediate_length: u8,
}

impl Operation<'_> {
    #[inline(always)]
    fn operands(&mut self, operands: Operands) -> Option<()> {
        use Operands as O;
        let size = self.prefixes.size();
        self.decoded.size = size;
        match operands {
            O::None => return self.implicit(),
            O::EbGb => {
                let reg = self.rm(1)?;
                self.decoded.from = self.register(reg, 1);
            }
            O::EvGv => {
                let reg = self.rm(size)?;
                self.decoded.from = self.register(reg, size);
            }
            O::GbEb => self.reg_rm(1, 1)?,
            O::GvEv => self.reg_rm(size, size)?,
            O::GvEb => self.reg_rm(size, 1)?,
            O::GvEw => self.reg_rm(size, 2)?,
            O::GvEd => self.reg_rm(size, size.min(4))?,
            O::GvM => {
                // The address itself, without the segment's base.
                self.prefixes.0 &= !(FS | GS);
                self.reg_rm(size, size)?;
                matches!(self.decoded.from, Operand::Memory(..)).then_some(())?;
            }
            O::GvEvIb => {
                self.immediate_length = 1;
                self.reg_rm(size, size)?;
                self.decoded.third = self.bytes.read::<i8>() as u64;
            }
            O::GvEvIz => {
                self.immediate_length = size.min(4);
                self.reg_rm(size, size)?;
                self.decoded.third = self.immediate(size);
            }
            O::AlIb => {
                self.decoded.to = self.register(RAX as u8, 1);
                self.decoded.from = Operand::Immediate(u64::from(self.bytes.byte()));
            }
            O::RaxIz => {
                self.decoded.to = self.register(RAX as u8, size);
                self.decoded.from = Operand::Immediate(self.immediate(size));
            }
            O::EbIb => {
                self.immediate_length = 1;
                self.group(1)?;
                self.decoded.from = Operand::Immediate(u64::from(self.bytes.byte()));
            }
            O::EvIb => {
                self.immediate_length = 1;
                self.group(size)?;
                self.decoded.from = Operand::Immediate(self.bytes.read::<i8>() as u64);
            }
            O::EvIz => {
                self.immediate_length = size.min(4);
                self.group(size)?;
                self.decoded.from = Operand::Immediate(self.immediate(size));
            }
            O::Eb1 | O::Ev1 => {
                self.group(if operands == O::Eb1 { 1 } else { size })?;
                self.decoded.from = Operand::Immediate(1);
            }
            O::EbCl | O::EvCl => {
                self.group(if operands == O::EbCl { 1 } else { size })?;
                self.decoded.from = Operand::Register(Place::low(RCX as u8, 1));
            }
            O::Eb => self.unary(1)?,
            O::Ev => self.unary(size)?,
            O::ZbIb => {
                let reg = self.in_opcode();
                self.decoded.to = self.register(reg, 1);
                self.decoded.from = Operand::Immediate(u64::from(self.bytes.byte()));
            }
            O::ZvIv => {
                let reg = self.in_opcode();
                self.decoded.to = self.register(reg, size);
                let value = if size == 8 { self.bytes.read::<u64>() } else { self.immediate(size) };
                self.decoded.from = Operand::Immediate(value);
            }
            _ => self.other_operands(operands)?,
        }
        Some(())
    }

    /// Operands of stack and control instructions and of vectors.
    #[inline(always)]
    fn other_operands(&mut self, operands: Operands) -> Option<()> {
        use Operands as O;
        match operands {
            O::Zq => {
                self.wide()?;
                let reg = self.in_opcode();
                self.decoded.to = self.register(reg, 8);
            }
            O::Ib => {
                self.wide()?;
                self.decoded.to = Operand::Immediate(self.bytes.read::<i8>() as u64);
            }
            O::Iz => {
                self.wide()?;
                self.decoded.to = Operand::Immediate(self.bytes.read::<i32>() as u64);
            }
            O::Iw => {
                self.wide()?;
                self.decoded.third = u64::from(self.bytes.read::<u16>());
            }
            O::Jb => {
                self.wide()?;
                let by = self.bytes.read::<i8>() as u64;
                self.decoded.target = by.wrapping_add(self.bytes.0 as u64);
            }
            O::Jz => {
                self.wide()?;
                let by = self.bytes.read::<i32>() as u64;
                self.decoded.target = by.wrapping_add(self.bytes.0 as u64);
            }
            _ => self.vector_operands(operands)?,
        }
        Some(())
    }

    #[inline(always)]
    fn vector_operands(&mut self, operands: Operands) -> Option<()> {
        use Operands as O;
        let y = if self.prefixes.any(W) { 8 } else { 4 };
        match operands {
            O::VxWx | O::VxM | O::VxWxIb => {
                self.immediate_length = u8::from(operands == O::VxWxIb);
                let reg = self.rm(16)?;
                self.decoded.from = self.decoded.to;
                self.decoded.to = Operand::Vector(reg);
                if operands == O::VxWxIb {
                    self.decoded.third = u64::from(self.bytes.byte());
                }
            }
            O::WxVx | O::MVx => {
                let reg = self.rm(16)?;
                self.decoded.from = Operand::Vector(reg);
            }
            O::VyEy => {
                let reg = self.rm(y)?;
                self.decoded.from = self.decoded.to;
                self.decoded.to = Operand::Vector(reg);
            }
            O::EyVy => {
                let reg = self.rm(y)?;
                self.decoded.from = Operand::Vector(reg);
            }
            O::VqWq | O::WqVq => {
                let reg = self.rm(8)?;
                // In a register it is a vector, too.
                if let Operand::Register(place) = self.decoded.to {
                    self.decoded.to = Operand::Vector(place.number);
                }
                self.decoded.from = Operand::Vector(reg);
                if operands == O::VqWq {
                    std::mem::swap(&mut self.decoded.to, &mut self.decoded.from);
                }
                self.decoded.size = 8;
                return Some(());
            }
            O::UxIb => {
                self.group(16)?;
                self.decoded.third = u64::from(self.bytes.byte());
            }
            O::GdUx => {
                let reg = self.rm(16)?;
                self.decoded.from = self.decoded.to;
                self.decoded.to = self.register(reg, 4);
            }
            _ => return None,
        }
        let memory = |operand| matches!(operand, Operand::Memory(..));
        let needs_memory = matches!(operands, O::VxM | O::MVx);
        let needs_register = matches!(operands, O::UxIb | O::GdUx);
        let has_memory = memory(self.decoded.to) || memory(self.decoded.from);
        if has_memory && needs_register || !has_memory && needs_memory {
            return None;
        }
        self.decoded.size = y;
        Some(())
    }

    /// What has no operands in its bytes.
    #[inline(always)]
    fn implicit(&mut self) -> Option<()> {
        match self.decoded.action {
            Action::Translate => None,
            Action::RepeatMove | Action::RepeatStore => {
                if self.opcode & 1 == 0 {
                    self.decoded.size = 1;
                }
                (self.prefixes.repeat() == 0xf3 && !self.prefixes.any(SEGMENT)).then_some(())
            }
            // XCHG r8, rax.
            Action::Nop => (!self.prefixes.any(B)).then_some(()),
            Action::Return | Action::Leave => {
                self.decoded.third = 0;
                self.wide()
            }
            _ => Some(()),
        }
    }

    /// Operand sizes that are 8 bytes without REX.W; with the prefix 66 they are the translator's.
    #[inline(always)]
    fn wide(&self) -> Option<()> {
        (!self.prefixes.any(OPERAND16)).then_some(())
    }

    /// An opcode whose action is in ModRM.reg, or the other operand is.
    #[inline(always)]
    fn group(&mut self, size: u8) -> Option<()> {
        // The low bits of the extended number are those of the field.
        let reg = self.rm(size)?;
        if let Action::Group(group) = self.decoded.action {
            self.decoded.action = group.member(reg);
        }
        (self.decoded.action != Action::Translate).then_some(())
    }

    /// One operand in ModRM.rm. TEST has an immediate, CALL, JMP and PUSH have 8 bytes, ENDBR64 is one encoding.
    #[inline(always)]
    fn unary(&mut self, size: u8) -> Option<()> {
        let modrm = self.bytes.peek();
        if let Action::Group(group) = self.decoded.action {
            match group.member(modrm >> 3 & 7) {
                Action::CallTo | Action::JumpTo | Action::Push => {
                    self.wide()?;
                    return self.group(8);
                }
                Action::Arithmetic(_) => self.immediate_length = size.min(4),
                // Only a branch may stand behind BND.
                _ if self.prefixes.any(REPEAT) => return None,
                _ => {}
            }
        } else if self.prefixes.repeat() == 0xf3 && modrm != ENDBR64 {
            return None;
        }
        self.decoded.size = size;
        self.group(size)?;
        if self.decoded.action == Action::Arithmetic(super::opcodes::Arithmetic::Test) {
            let value = if size == 1 { u64::from(self.bytes.byte()) } else { self.immediate(size) };
            self.decoded.from = Operand::Immediate(value);
        }
        Some(())
    }

    /// An immediate of at most four bytes, sign-extended.
    #[inline(always)]
    fn immediate(&mut self, size: u8) -> u64 {
        if size == 2 { self.bytes.read::<i16>() as u64 } else { self.bytes.read::<i32>() as u64 }
    }

    /// A bit of REX in its place.
    #[inline(always)]
    fn extension(&self, bit: u32) -> u8 {
        (self.prefixes.0 & bit) as u8
    }

    #[inline(always)]
    fn in_opcode(&self) -> u8 {
        self.opcode & 7 | self.extension(B) << 3
    }

    /// An integer register.
    #[inline(always)]
    fn register(&self, number: u8, size: u8) -> Operand {
        Operand::Register(if size == 1 && !self.prefixes.any(REX) && number >= 4 {
            Place::high_byte(number - 4)
        } else {
            Place::low(number, size)
        })
    }

    /// ModRM.reg as the first operand, rm as the second.
    #[inline(always)]
    fn reg_rm(&mut self, size: u8, of_rm: u8) -> Option<()> {
        let reg = self.rm(of_rm)?;
        self.decoded.from = self.decoded.to;
        self.decoded.to = self.register(reg, size);
        Some(())
    }

    /// Reads a ModRM byte and puts the operand of its rm, of this size, in `to`. Gives the number in its reg.
    #[inline(always)]
    fn rm(&mut self, size: u8) -> Option<u8> {
        let modrm = self.bytes.byte();
        let reg = modrm >> 3 & 7 | self.extension(R) << 1;
        let number = modrm & 7 | self.extension(B) << 3;
        self.decoded.to = if modrm >= 0xc0 {
            if size == 16 { Operand::Vector(number) } else { self.register(number, size) }
        } else {
            Operand::Memory(self.address(modrm), size)
        };
        Some(reg)
    }

    #[inline(always)]
    fn address(&mut self, modrm: u8) -> u64 {
        let rex = self.prefixes.0 as u8;
        let address = address(self.cpu, &mut self.bytes, modrm, rex, self.immediate_length);
        if !self.prefixes.any(FS | GS) {
            return address;
        }
        address.wrapping_add(if self.prefixes.any(FS) {
            self.cpu.fs_base
        } else {
            self.cpu.gs_base
        })
    }
}

/// The address in the memory operand of a ModRM byte, of which SIB and displacement are next. So many bytes of immediate
/// follow them.
#[inline(always)]
pub(super) fn address(
    cpu: &CpuState,
    bytes: &mut Bytes,
    modrm: u8,
    rex: u8,
    immediate_length: u8,
) -> u64 {
    let gpr = |number: u8| cpu.gpr[usize::from(number & 15)];
    let mode = modrm >> 6;
    let (mut base, mut index) = (modrm & 7 | (rex & B as u8) << 3, 0);
    if modrm & 7 == 4 {
        let sib = bytes.byte();
        base = sib & 7 | (rex & B as u8) << 3;
        let indexed = sib >> 3 & 7 | (rex & X as u8) << 2;
        if indexed != 4 {
            index = gpr(indexed) << (sib >> 6);
        }
    }
    let address = if mode == 0 && base & 7 == 5 {
        let by = bytes.read::<i32>() as u64;
        if modrm & 7 == 5 {
            // Relative to the next instruction: an immediate may follow.
            by.wrapping_add(bytes.address() + u64::from(immediate_length))
        } else {
            by
        }
    } else {
        let by = match mode {
            0 => 0,
            1 => bytes.read::<i8>() as u64,
            _ => bytes.read::<i32>() as u64,
        };
        gpr(base).wrapping_add(by)
    };
    address.wrapping_add(index)
}

/// ModRM of ENDBR64.
const ENDBR64: u8 = 0xfa;
