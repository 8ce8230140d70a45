//! What few instructions have: operands that follow no rule, and prefixes that are not part of the
//! opcode.

use iced_x86::{Instruction, OpKind, Register};

use super::layout::{Form, REPEAT_F2, REPEAT_F3, Special, key, prefix};
use super::{Window, load, register};

/// What is unusual in an instruction that is decoded but for that.
pub struct Unusual<'a> {
    /// Its form.
    pub form: &'a Form,
    /// Its ModRM byte, if it has one.
    pub modrm: u32,
    /// Those of its prefixes that are not part of its opcode.
    pub prefixes: u32,
    /// There is a REX prefix and a byte register.
    pub rex_bytes: bool,
    /// It may have a LOCK prefix if it writes memory.
    pub lock: bool,
}

impl Unusual<'_> {
    /// There is nothing to complete.
    #[inline]
    pub fn is_nothing(&self) -> bool {
        self.prefixes == 0 && self.form.special == Special::No && !self.rex_bytes
    }

    /// Completes the instruction. Returns false if it is not in the tables.
    #[inline(never)]
    pub fn finish(self, ins: &mut Instruction, window: &Window) -> bool {
        if self.rex_bytes {
            ins.set_op0_register(byte_with_rex(ins.op0_register()));
            ins.set_op1_register(byte_with_rex(ins.op1_register()));
        }
        self.operands(ins, window) && self.prefixes(ins)
    }

    fn operands(&self, ins: &mut Instruction, window: &Window) -> bool {
        let address32 = self.prefixes & prefix::ADDRESS32 != 0;
        let end = ins.len();
        match self.form.special {
            Special::No => {}
            Special::One => ins.set_immediate8(1),
            Special::Immediate64 => ins.set_immediate64(load(window, end - 8)),
            Special::SecondImmediate => {
                ins.set_immediate8_2nd(load(window, end) as u8);
                lengthen(ins, 1);
            }
            Special::MemoryOffset => {
                ins.set_memory_displacement64(load(window, end));
                ins.set_memory_displ_size(8);
                lengthen(ins, if address32 { 4 } else { 8 });
            }
            Special::Strings => {
                if address32 {
                    ins.set_op0_kind(string_operand32(ins.op0_kind()));
                    ins.set_op1_kind(string_operand32(ins.op1_kind()));
                }
            }
            Special::Xlat => {
                ins.set_memory_base(Register::RBX);
                ins.set_memory_index(Register::AL);
            }
            Special::Is4Third => {
                ins.set_op2_register(register(ins.op2_register() as u64 + is4(ins)));
                ins.set_immediate32(0);
            }
            Special::Is4Fourth => {
                ins.set_op3_register(register(ins.op3_register() as u64 + is4(ins)));
                ins.set_immediate32(0);
            }
            Special::VsibXmm => return self.vector_index(ins, Register::XMM0),
            Special::VsibYmm => return self.vector_index(ins, Register::YMM0),
        }
        true
    }

    /// Makes the index of a memory operand a vector register. Returns false if the instruction is
    /// undefined.
    fn vector_index(&self, ins: &mut Instruction, lowest: Register) -> bool {
        if self.modrm & 7 != 4 {
            return false; // no SIB byte
        }
        // Number 4, else no index, is one here.
        let index = match ins.memory_index() {
            Register::None => 4,
            index => index.number(),
        };
        ins.set_memory_index(register(lowest as u64 + index as u64));
        let (result, mask) = (ins.op0_register().number(), ins.op2_register().number());
        result != mask && result != index && mask != index
    }

    /// Takes in the prefixes. Returns false if LOCK may not be there.
    fn prefixes(&self, ins: &mut Instruction) -> bool {
        match self.prefixes >> key::REPEAT & 3 {
            REPEAT_F3 => ins.set_has_repe_prefix(true),
            REPEAT_F2 => ins.set_has_repne_prefix(true),
            _ => {}
        }
        let segment = self.prefixes >> prefix::SEGMENT & 7;
        let fs_gs = self.prefixes >> prefix::FS_GS & 3;
        if fs_gs != 0 {
            ins.set_segment_prefix(register(u64::from(Register::FS as u32 + fs_gs - 1)));
        } else if segment != 0 {
            ins.set_segment_prefix(register(u64::from(Register::ES as u32 + segment - 1)));
        }
        if self.prefixes & prefix::ADDRESS32 != 0 {
            narrow_address(ins);
        }
        if self.prefixes & prefix::LOCK != 0 {
            ins.set_has_lock_prefix(true);
            return self.lock && ins.op0_kind() == OpKind::Memory;
        }
        true
    }
}

/// The register that REX makes of one that was taken for AH or a later one.
fn byte_with_rex(taken: Register) -> Register {
    if (Register::AH..=Register::R11L).contains(&taken) {
        register(taken as u64 + Register::SPL as u64 - Register::AH as u64)
    } else {
        taken
    }
}

/// The number of the register in the upper half of the immediate byte.
fn is4(ins: &Instruction) -> u64 {
    u64::from(ins.immediate32() >> 4)
}

/// Adds bytes to an instruction's end.
fn lengthen(ins: &mut Instruction, bytes: usize) {
    ins.set_next_ip(ins.next_ip().wrapping_add(bytes as u64));
    ins.set_len(ins.len() + bytes);
}

/// The implicit operand of a string instruction with 32-bit addresses.
fn string_operand32(kind: OpKind) -> OpKind {
    match kind {
        OpKind::MemorySegRSI => OpKind::MemorySegESI,
        OpKind::MemorySegRDI => OpKind::MemorySegEDI,
        OpKind::MemoryESRDI => OpKind::MemoryESEDI,
        other => other,
    }
}

/// Makes the address of a memory operand one of 32 bits.
fn narrow_address(ins: &mut Instruction) {
    if (0..ins.op_count()).all(|operand| ins.op_kind(operand) != OpKind::Memory) {
        return;
    }
    ins.set_memory_base(narrow(ins.memory_base()));
    ins.set_memory_index(narrow(ins.memory_index()));
    if ins.memory_displ_size() == 8 {
        ins.set_memory_displ_size(4);
    }
    ins.set_memory_displacement64(ins.memory_displacement64() & 0xffff_ffff);
}

/// The 32-bit half of a register that is part of an address.
fn narrow(register: Register) -> Register {
    if register == Register::RIP {
        Register::EIP
    } else if register.is_gpr64() {
        register.full_register32()
    } else {
        register // AL of XLATB, a vector, or none
    }
}
