//! The form of an instruction, out of the kinds of operand that iced-x86 gives it.

use iced_x86::{Code, OpCodeOperandKind, OpKind, Register};

use crate::layout::{FORMS, Form, Special, key};

/// The forms, each once.
#[derive(Default)]
pub struct Forms {
    /// By index.
    pub forms: Vec<Form>,
}

impl Forms {
    /// The index of an instruction's form, or None if the decoder does not know a kind of operand
    /// that it has. `rest`: how many bytes of it follow the opcode.
    pub fn index(&mut self, code: Code, rest: usize) -> Option<u32> {
        let form = form(code, rest)?;
        let index = self.forms.iter().position(|f| *f == form).unwrap_or_else(|| {
            self.forms.push(form);
            self.forms.len() - 1
        });
        assert!(index < FORMS);
        Some(index as u32)
    }

    /// A form without operands.
    pub fn nothing() -> Form {
        Form {
            registers: 0,
            kinds: [OpKind::Register; 4],
            reg: Form::ABSENT,
            rm: Form::ABSENT,
            vvvv: Form::ABSENT,
            extends: 0,
            immediate: 0,
            special: Special::No,
            flags: 0,
        }
    }
}

fn form(code: Code, rest: usize) -> Option<Form> {
    let info = code.op_code();
    let mut form = Forms::nothing();
    for operand in 0..info.op_count() {
        form.add(operand as u8, info.op_kind(operand))?;
    }
    let immediates = match form.special {
        Special::MemoryOffset => rest,
        Special::SecondImmediate => usize::from(form.immediate) + 1,
        _ => usize::from(form.immediate),
    };
    if rest > immediates {
        form.flags |= Form::HAS_MODRM;
    }
    Some(form)
}

/// REX.B and REX.R as they stand in a key.
const B: u8 = 1 << key::B;
const R: u8 = 1 << (key::B + 2);

impl Form {
    /// Adds an operand; None if its kind is not known.
    fn add(&mut self, operand: u8, kind: OpCodeOperandKind) -> Option<()> {
        use OpCodeOperandKind as K;
        let at = operand * 8;
        match kind {
            K::r8_or_mem | K::r8_opcode => {
                self.rm(at, Register::AL, B);
                self.flags |= Form::BYTES;
            }
            K::r16_or_mem | K::r16_rm | K::r16_opcode => self.rm(at, Register::AX, B),
            K::r32_or_mem | K::r32_rm | K::r32_opcode => self.rm(at, Register::EAX, B),
            K::r64_or_mem | K::r64_rm | K::r64_opcode => self.rm(at, Register::RAX, B),
            K::mm_or_mem | K::mm_rm => self.rm(at, Register::MM0, 0),
            K::xmm_or_mem | K::xmm_rm => self.rm(at, Register::XMM0, B),
            K::ymm_or_mem | K::ymm_rm => self.rm(at, Register::YMM0, B),
            K::sti_opcode => self.rm(at, Register::ST0, 0),
            K::mem => self.rm(at, Register::None, 0),
            K::mem_vsib32x | K::mem_vsib64x => {
                self.rm(at, Register::None, 0);
                self.special(Special::VsibXmm);
            }
            K::mem_vsib32y | K::mem_vsib64y => {
                self.rm(at, Register::None, 0);
                self.special(Special::VsibYmm);
            }
            K::r8_reg => {
                self.reg(at, Register::AL, R);
                self.flags |= Form::BYTES;
            }
            K::r16_reg | K::r16_reg_mem => self.reg(at, Register::AX, R),
            K::r32_reg | K::r32_reg_mem => self.reg(at, Register::EAX, R),
            K::r64_reg | K::r64_reg_mem => self.reg(at, Register::RAX, R),
            K::mm_reg => self.reg(at, Register::MM0, 0),
            K::xmm_reg => self.reg(at, Register::XMM0, R),
            K::ymm_reg => self.reg(at, Register::YMM0, R),
            K::seg_reg => self.reg(at, Register::ES, 0),
            K::r32_vvvv => self.vvvv(at, Register::EAX),
            K::r64_vvvv => self.vvvv(at, Register::RAX),
            K::xmm_vvvv => self.vvvv(at, Register::XMM0),
            K::ymm_vvvv => self.vvvv(at, Register::YMM0),
            K::xmm_is4 => self.is4(at, Register::XMM0),
            K::ymm_is4 => self.is4(at, Register::YMM0),
            K::es => self.register(at, Register::ES),
            K::cs => self.register(at, Register::CS),
            K::ss => self.register(at, Register::SS),
            K::ds => self.register(at, Register::DS),
            K::fs => self.register(at, Register::FS),
            K::gs => self.register(at, Register::GS),
            K::al => self.register(at, Register::AL),
            K::cl => self.register(at, Register::CL),
            K::ax => self.register(at, Register::AX),
            K::dx => self.register(at, Register::DX),
            K::eax => self.register(at, Register::EAX),
            K::rax => self.register(at, Register::RAX),
            K::st0 => self.register(at, Register::ST0),
            K::imm8 if self.immediate != 0 => {
                self.kind(at, OpKind::Immediate8_2nd);
                self.special(Special::SecondImmediate);
            }
            K::imm8 => self.immediate(at, OpKind::Immediate8, 1),
            K::imm8_const_1 => {
                self.kind(at, OpKind::Immediate8);
                self.special(Special::One);
            }
            K::imm8sex16 => self.immediate(at, OpKind::Immediate8to16, 1),
            K::imm8sex32 => self.immediate(at, OpKind::Immediate8to32, 1),
            K::imm8sex64 => self.immediate(at, OpKind::Immediate8to64, 1),
            K::imm16 => self.immediate(at, OpKind::Immediate16, 2),
            K::imm32 => self.immediate(at, OpKind::Immediate32, 4),
            K::imm32sex64 => self.immediate(at, OpKind::Immediate32to64, 4),
            K::imm64 => {
                self.immediate(at, OpKind::Immediate64, 8);
                self.special(Special::Immediate64);
            }
            K::br64_1 => self.branch(at, 1),
            K::xbegin_2 => self.branch(at, 2),
            K::br64_4 | K::xbegin_4 => self.branch(at, 4),
            K::mem_offs => {
                self.kind(at, OpKind::Memory);
                self.special(Special::MemoryOffset);
            }
            K::seg_rSI => self.string(at, OpKind::MemorySegRSI),
            K::es_rDI => self.string(at, OpKind::MemoryESRDI),
            K::seg_rDI => self.string(at, OpKind::MemorySegRDI),
            K::seg_rBX_al => {
                self.kind(at, OpKind::Memory);
                self.special(Special::Xlat);
            }
            // Control and debug registers, AVX-512's masks, AMX's tiles, AMD's Vpermil2ps.
            _ => return None,
        }
        Some(())
    }

    fn register(&mut self, at: u8, register: Register) {
        self.registers |= (register as u32) << at;
    }

    fn kind(&mut self, at: u8, kind: OpKind) {
        self.kinds[usize::from(at / 8)] = kind;
    }

    fn reg(&mut self, at: u8, lowest: Register, extends: u8) {
        assert_eq!(self.reg, Form::ABSENT);
        self.reg = at;
        self.extends |= extends;
        self.register(at, lowest);
    }

    fn rm(&mut self, at: u8, lowest: Register, extends: u8) {
        assert_eq!(self.rm, Form::ABSENT);
        self.rm = at;
        self.extends |= extends;
        self.register(at, lowest);
    }

    fn vvvv(&mut self, at: u8, lowest: Register) {
        assert_eq!(self.vvvv, Form::ABSENT);
        self.vvvv = at;
        self.register(at, lowest);
    }

    fn is4(&mut self, at: u8, lowest: Register) {
        self.register(at, lowest);
        self.immediate = 1;
        self.special(match at {
            16 => Special::Is4Third,
            24 => Special::Is4Fourth,
            _ => panic!("is4 in another place"),
        });
    }

    fn immediate(&mut self, at: u8, kind: OpKind, bytes: u8) {
        assert_eq!(self.immediate, 0);
        self.kind(at, kind);
        self.immediate = bytes;
    }

    fn branch(&mut self, at: u8, bytes: u8) {
        self.immediate(at, OpKind::NearBranch64, bytes);
        self.flags |= Form::BRANCH;
    }

    fn string(&mut self, at: u8, kind: OpKind) {
        self.kind(at, kind);
        self.special = Special::Strings;
    }

    fn special(&mut self, special: Special) {
        assert_eq!(self.special, Special::No);
        self.special = special;
    }
}
