//! Random operands for an instruction form: the instruction, and what registers and memory must hold
//! for its memory operands, counts and targets to make sense.

use crate::{
    address::{Addressing, Target},
    rng::{Lane, Rng},
    segments,
    state::{CODE, COMPARED_FLAGS, OPERANDS_SIZE, STACK, random_mxcsr, random_x87_control},
};
use iced_x86::{
    Code, EncodingKind, Instruction, MemorySize, Mnemonic, OpCodeOperandKind as Kind, OpKind,
    Register,
};

/// Where and under which restrictions an instruction is made.
#[derive(Clone, Debug)]
pub struct Place {
    /// Bases of FS and GS.
    pub fs_base: u64,
    /// See `fs_base`.
    pub gs_base: u64,
    /// Registers with a known value that nothing may write (sequences): usable as memory bases.
    pub pinned: Vec<(Register, u64)>,
    /// Whether the instruction stands alone; else what it needs of the memory cannot be promised.
    pub alone: bool,
    /// Whether memory operands may lack the alignment that the form demands.
    pub misaligned: bool,
}

/// An instruction with what it needs.
#[derive(Clone, Debug)]
pub struct Built {
    /// The instruction.
    pub instruction: Instruction,
    /// 64-bit registers and the values they must have.
    pub registers: Vec<(Register, u64)>,
    /// Memory contents.
    pub patches: Vec<(u64, Vec<u8>)>,
}

impl Built {
    /// Asks for a register value; `None` if another value was asked for already.
    pub fn need(&mut self, register: Register, value: u64) -> Option<()> {
        let register = register.full_register();
        match self.registers.iter().find(|(r, _)| *r == register) {
            Some((_, v)) => (*v == value).then_some(()),
            None => {
                self.registers.push((register, value));
                Some(())
            }
        }
    }
}

/// The kind of numbers an instruction form works on.
pub fn lane(code: Code) -> Lane {
    use MemorySize as M;
    match code.op_code().memory_size().element_type() {
        M::Float32 => Lane::F32,
        M::Float64 => Lane::F64,
        M::Float80 | M::FpuEnv14 | M::FpuEnv28 | M::FpuState94 | M::FpuState108 => Lane::F80,
        _ if format!("{:?}", code.mnemonic()).starts_with('F') => Lane::F80,
        _ => Lane::Int,
    }
}

const GPR8: [Register; 20] = {
    use Register::*;
    [
        AL, CL, DL, BL, AH, CH, DH, BH, SPL, BPL, SIL, DIL, R8L, R9L, R10L, R11L, R12L, R13L, R14L,
        R15L,
    ]
};

fn gpr(rng: &mut Rng, bytes: usize) -> Register {
    let first = match bytes {
        1 => return rng.pick(&GPR8),
        2 => Register::AX,
        4 => Register::EAX,
        _ => Register::RAX,
    };
    first + rng.below(16) as u32
}

/// What an operand is made of.
enum Choice {
    Register(Register),
    Memory,
    Immediate(OpKind),
    Branch(OpKind),
    Implicit(OpKind),
    Unsupported,
}

fn choose(kind: Kind, rng: &mut Rng, wide: bool, memory: bool, immediates: u32) -> Choice {
    use Choice::*;
    let vector = |rng: &mut Rng, first: iced_x86::Register| first + rng.below(16) as u32;
    match kind {
        Kind::r8_or_mem
        | Kind::r16_or_mem
        | Kind::r32_or_mem
        | Kind::r64_or_mem
        | Kind::mm_or_mem
        | Kind::xmm_or_mem
        | Kind::ymm_or_mem
        | Kind::mem
        | Kind::mem_offs
            if memory =>
        {
            Memory
        }
        Kind::r8_or_mem | Kind::r8_reg | Kind::r8_opcode => Register(gpr(rng, 1)),
        Kind::r16_or_mem | Kind::r16_reg | Kind::r16_rm | Kind::r16_opcode => Register(gpr(rng, 2)),
        Kind::r32_or_mem | Kind::r32_reg | Kind::r32_rm | Kind::r32_opcode | Kind::r32_vvvv => {
            Register(gpr(rng, 4))
        }
        Kind::r64_or_mem | Kind::r64_reg | Kind::r64_rm | Kind::r64_opcode | Kind::r64_vvvv => {
            Register(gpr(rng, 8))
        }
        Kind::mm_or_mem | Kind::mm_reg | Kind::mm_rm => {
            Register(iced_x86::Register::MM0 + rng.below(8) as u32)
        }
        Kind::xmm_or_mem | Kind::xmm_reg | Kind::xmm_rm | Kind::xmm_vvvv | Kind::xmm_is4 => {
            Register(vector(rng, iced_x86::Register::XMM0))
        }
        Kind::ymm_or_mem | Kind::ymm_reg | Kind::ymm_rm | Kind::ymm_vvvv | Kind::ymm_is4 => {
            Register(vector(rng, iced_x86::Register::YMM0))
        }
        Kind::seg_reg => Register(iced_x86::Register::ES + rng.below(6) as u32),
        Kind::fs => Register(iced_x86::Register::FS),
        Kind::gs => Register(iced_x86::Register::GS),
        Kind::al => Register(iced_x86::Register::AL),
        Kind::cl => Register(iced_x86::Register::CL),
        Kind::ax => Register(iced_x86::Register::AX),
        Kind::dx => Register(iced_x86::Register::DX),
        Kind::eax => Register(iced_x86::Register::EAX),
        Kind::rax => Register(iced_x86::Register::RAX),
        Kind::st0 => Register(iced_x86::Register::ST0),
        Kind::sti_opcode => Register(iced_x86::Register::ST0 + rng.below(8) as u32),
        Kind::imm8 | Kind::imm8_const_1 if immediates > 0 => Immediate(OpKind::Immediate8_2nd),
        Kind::imm8 | Kind::imm8_const_1 => Immediate(OpKind::Immediate8),
        Kind::imm8sex16 => Immediate(OpKind::Immediate8to16),
        Kind::imm8sex32 => Immediate(OpKind::Immediate8to32),
        Kind::imm8sex64 => Immediate(OpKind::Immediate8to64),
        Kind::imm16 => Immediate(OpKind::Immediate16),
        Kind::imm32 => Immediate(OpKind::Immediate32),
        Kind::imm32sex64 => Immediate(OpKind::Immediate32to64),
        Kind::imm64 => Immediate(OpKind::Immediate64),
        Kind::br64_1 | Kind::br64_4 => Branch(OpKind::NearBranch64),
        Kind::seg_rSI => Implicit(if wide { OpKind::MemorySegRSI } else { OpKind::MemorySegESI }),
        Kind::es_rDI => Implicit(if wide { OpKind::MemoryESRDI } else { OpKind::MemoryESEDI }),
        Kind::seg_rDI => Implicit(if wide { OpKind::MemorySegRDI } else { OpKind::MemorySegEDI }),
        Kind::seg_rBX_al => Memory,
        _ => Unsupported,
    }
}

/// Makes an instruction of a form. `None` when the draw does not fit together; draw again.
/// `stop` is the address of code that ends the program, for branches.
pub fn build(code: Code, rng: &mut Rng, place: &Place, stop: u64) -> Option<Built> {
    let op_code = code.op_code();
    let mut instruction = Instruction::default();
    instruction.set_code(code);
    let mut built = Built { instruction, registers: Vec::new(), patches: Vec::new() };
    let wide = op_code.op_kinds().contains(&Kind::mem_offs) || !rng.chance(10);
    let memory = rng.chance(50);
    let mut immediates = 0;
    for i in 0..op_code.op_count() {
        let kind = op_code.op_kind(i);
        match choose(kind, rng, wide, memory, immediates) {
            Choice::Register(register) => {
                built.instruction.set_op_kind(i, OpKind::Register);
                built.instruction.set_op_register(i, register);
            }
            Choice::Immediate(kind) => {
                let value = if op_code.op_kind(i) == Kind::imm8_const_1 {
                    1
                } else {
                    immediate(code, rng, kind)
                };
                built.instruction.set_op_kind(i, kind);
                built.instruction.set_immediate_u64(i, value);
                immediates += 1;
            }
            Choice::Branch(kind) => {
                built.instruction.set_op_kind(i, kind);
                built.instruction.set_near_branch64(stop + rng.below(3));
            }
            Choice::Implicit(kind) => built.instruction.set_op_kind(i, kind),
            Choice::Memory => memory_operand(code, i, kind, rng, place, wide, &mut built)?,
            Choice::Unsupported => return None,
        }
    }
    prefixes(code, rng, &mut built.instruction);
    implicit_operands(code, rng, place, wide, stop, &mut built)?;
    Some(built)
}

/// An immediate that the operand kind can hold, sign extended.
fn immediate(code: Code, rng: &mut Rng, kind: OpKind) -> u64 {
    let value = rng.int();
    match (code.mnemonic(), kind) {
        // The stack pointer must stay near the stack.
        (Mnemonic::Enter | Mnemonic::Ret | Mnemonic::Retf, OpKind::Immediate16) => value & 0x1ff,
        (_, OpKind::Immediate8to16 | OpKind::Immediate8to32 | OpKind::Immediate8to64) => {
            value as i8 as u64
        }
        (_, OpKind::Immediate32to64) => value as i32 as u64,
        (_, OpKind::Immediate8 | OpKind::Immediate8_2nd) => value & 0xff,
        (_, OpKind::Immediate16) => value & 0xffff,
        (_, OpKind::Immediate32) => value & 0xffff_ffff,
        _ => value,
    }
}

/// The alignment that a form demands of its memory operand.
pub fn alignment(code: Code, size: usize) -> u64 {
    use Mnemonic::*;
    let unaligned = [Movups, Movupd, Movdqu, Lddqu];
    let vex = [Vmovaps, Vmovapd, Vmovdqa, Vmovntps, Vmovntpd, Vmovntdq, Vmovntdqa];
    match code.encoding() {
        EncodingKind::Legacy if size >= 16 && !unaligned.contains(&code.mnemonic()) => {
            if lane(code) == Lane::F80 { 1 } else { 16 }
        }
        EncodingKind::VEX if vex.contains(&code.mnemonic()) => size as u64,
        _ => 1,
    }
}

/// Bytes that stand for an operand of a form in memory.
fn memory_value(code: Code, rng: &mut Rng, size: usize) -> Vec<u8> {
    let lane = lane(code);
    let mut bytes = Vec::with_capacity(size + 16);
    while bytes.len() < size {
        match (size, lane) {
            (4, Lane::F32) => bytes.extend(rng.f32().to_le_bytes()),
            (8, Lane::F64) => bytes.extend(rng.f64().to_le_bytes()),
            (..=8, _) => bytes.extend(rng.int().to_le_bytes()),
            _ => bytes.extend(rng.lanes(lane).to_le_bytes()),
        }
    }
    bytes.truncate(size);
    bytes
}

fn memory_operand(
    code: Code,
    operand: u32,
    kind: Kind,
    rng: &mut Rng,
    place: &Place,
    wide: bool,
    built: &mut Built,
) -> Option<()> {
    let size = code.op_code().memory_size().size();
    built.instruction.set_op_kind(operand, OpKind::Memory);
    let alignment = if place.misaligned { 1 } else { alignment(code, size) };
    let target = Target::random(rng, size, alignment);
    let addressing = match kind {
        Kind::seg_rBX_al => {
            // rbx + al: a base in reach of the data for every al.
            let base = if wide { Register::RBX } else { Register::EBX };
            built.need(Register::RBX, target.address)?;
            Addressing { base, index: Register::AL, ..Addressing::default() }
        }
        Kind::mem_offs => Addressing::absolute64(target.address),
        _ => Addressing::random(rng, place, target.address, wide)?,
    };
    if addressing.address % alignment != 0 {
        return None;
    }
    let address = addressing.apply(built)?;
    // AMD's processors read 32 bits where MOVSXD has a destination of 16, Intel's the 16 that they use.
    let reach = if code == Code::Movsxd_r16_rm16 { 4 } else { size };
    let must_be_there = segments::by_kernel(code) || reach > size;
    if must_be_there && !crate::state::in_data(address, reach) {
        return None;
    }
    if place.alone && crate::state::in_data(address, size.max(1)) && size > 0 {
        built.patches.push((address, memory_value(code, rng, size)));
    }
    Some(())
}

fn prefixes(code: Code, rng: &mut Rng, instruction: &mut Instruction) {
    let op_code = code.op_code();
    let memory_destination = op_code.op_count() > 0 && instruction.op_kind(0) == OpKind::Memory;
    if op_code.can_use_lock_prefix() && memory_destination && rng.chance(30) {
        instruction.set_has_lock_prefix(true);
    }
    if op_code.can_use_rep_prefix() && rng.chance(50) {
        instruction.set_has_rep_prefix(true);
    } else if op_code.can_use_repne_prefix()
        && instruction.is_string_instruction()
        && rng.chance(60)
    {
        instruction.set_has_repne_prefix(true);
    }
}

/// Registers and memory that the instruction uses without naming them, or in its own way.
fn implicit_operands(
    code: Code,
    rng: &mut Rng,
    place: &Place,
    wide: bool,
    stop: u64,
    built: &mut Built,
) -> Option<()> {
    let instruction = built.instruction;
    if instruction.is_string_instruction()
        || instruction.op_kinds().any(|k| k == OpKind::MemorySegRDI || k == OpKind::MemorySegEDI)
    {
        string_operands(rng, place, wide, built)?;
    }
    if (instruction.is_stack_instruction() || segments::is_far(code)) && place.alone {
        built.need(Register::RSP, STACK + 8 * rng.below(16))?;
    }
    match code.mnemonic() {
        Mnemonic::Leave | Mnemonic::Enter => {
            built.need(Register::RBP, STACK + 8 * rng.below(32))?
        }
        Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc
            if instruction.op0_kind() == OpKind::Memory
                && instruction.op1_kind() == OpKind::Register =>
        {
            // The bit offset selects memory around the operand (SDM vol. 2, BT).
            let offset = rng.below(4096) as i64 - 2048;
            let garbage = match instruction.op1_register().size() {
                2 => rng.bits() << 16 | (offset as u64 & 0xffff),
                4 => rng.bits() << 32 | (offset as u64 & 0xffff_ffff),
                _ => offset as u64,
            };
            built.need(instruction.op1_register(), garbage)?;
        }
        Mnemonic::Cmpxchg if rng.chance(50) && place.alone => {
            let accumulator = rng.int();
            built
                .registers
                .retain(|(r, _)| *r != Register::RAX || instruction.op0_kind() == OpKind::Memory);
            if instruction.op0_kind() == OpKind::Register {
                built.need(instruction.op0_register(), accumulator)?;
            } else if let Some((_, bytes)) = built.patches.last_mut() {
                let size = bytes.len();
                bytes.copy_from_slice(&accumulator.to_le_bytes()[..size]);
            }
            built.need(Register::RAX, accumulator)?;
        }
        Mnemonic::Cmpxchg8b | Mnemonic::Cmpxchg16b if rng.chance(50) && place.alone => {
            let (low, high) = (rng.int(), rng.int());
            let half = instruction.memory_size().size() / 2;
            if let Some((_, bytes)) = built.patches.last_mut() {
                bytes[..half].copy_from_slice(&low.to_le_bytes()[..half]);
                bytes[half..].copy_from_slice(&high.to_le_bytes()[..half]);
            }
            built.need(Register::RAX, low)?;
            built.need(Register::RDX, high)?;
        }
        Mnemonic::Call | Mnemonic::Jmp if instruction.op0_kind() == OpKind::Register => {
            built.need(instruction.op0_register(), stop + rng.below(3))?;
        }
        Mnemonic::Wrfsbase | Mnemonic::Wrgsbase => {
            built.need(instruction.op0_register(), rng.bits() >> 17)?;
        }
        Mnemonic::Verr | Mnemonic::Verw => segments::selector_operand(0, rng, built)?,
        Mnemonic::Lar | Mnemonic::Lsl => segments::selector_operand(1, rng, built)?,
        Mnemonic::Mov if segments::is_load(code) => segments::selector_operand(1, rng, built)?,
        _ => {}
    }
    if let Some(value) = required_memory(code, rng, stop) {
        if !place.alone {
            return None;
        }
        let explicit = instruction.op_kinds().any(|k| k == OpKind::Memory);
        let address = match (explicit, built.registers.iter().find(|(r, _)| *r == Register::RSP)) {
            (true, _) => built.patches.last().map(|(address, _)| *address)?,
            (false, Some((_, rsp))) => *rsp,
            (false, None) => return Some(()),
        };
        built.patches.push((address, value));
    }
    Some(())
}

/// What a form must find in its memory operand (or on the stack) so that its result is defined.
fn required_memory(code: Code, rng: &mut Rng, stop: u64) -> Option<Vec<u8>> {
    let environment = |rng: &mut Rng, wide: bool| {
        let words = [random_x87_control(rng), rng.bits() as u16 & 0x7f7f, rng.bits() as u16];
        let gap = if wide { 2 } else { 0 };
        words
            .iter()
            .flat_map(|w| w.to_le_bytes().into_iter().chain(std::iter::repeat_n(0, gap)))
            .collect::<Vec<u8>>()
    };
    if let Some(image) = segments::image(code, rng, stop) {
        return Some(image);
    }
    Some(match code {
        Code::Ldmxcsr_m32 | Code::VEX_Vldmxcsr_m32 => random_mxcsr(rng).to_le_bytes().to_vec(),
        Code::Fldcw_m2byte => random_x87_control(rng).to_le_bytes().to_vec(),
        Code::Fldenv_m14byte | Code::Frstor_m94byte => environment(rng, false),
        Code::Fldenv_m28byte | Code::Frstor_m108byte => environment(rng, true),
        Code::Fbld_m80bcd => {
            let mut bytes: Vec<u8> =
                (0..9).map(|_| (rng.below(10) << 4 | rng.below(10)) as u8).collect();
            bytes.push(rng.pick(&[0, 0x80]));
            bytes
        }
        Code::Fxrstor_m512byte | Code::Fxrstor64_m512byte => {
            let mut image = vec![0; 512];
            image[0..2].copy_from_slice(&random_x87_control(rng).to_le_bytes());
            image[2..4].copy_from_slice(&(rng.bits() as u16 & 0x7f7f).to_le_bytes());
            image[4] = rng.bits() as u8;
            image[24..28].copy_from_slice(&random_mxcsr(rng).to_le_bytes());
            for i in 0..8 {
                image[32 + 16 * i..42 + 16 * i].copy_from_slice(&rng.f80().to_le_bytes()[..10]);
            }
            for at in (160..416).step_by(16) {
                image[at..at + 16].copy_from_slice(&rng.lanes(Lane::F32).to_le_bytes());
            }
            image
        }
        _ => match code.mnemonic() {
            Mnemonic::Popf | Mnemonic::Popfq => {
                (u64::from(rng.bits() as u32 & COMPARED_FLAGS) | 0x202).to_le_bytes().to_vec()
            }
            Mnemonic::Ret => (stop + rng.below(3)).to_le_bytes().to_vec(),
            Mnemonic::Call | Mnemonic::Jmp if code.op_code().op_kind(0) == Kind::r64_or_mem => {
                (stop + rng.below(3)).to_le_bytes().to_vec()
            }
            _ => return None,
        },
    })
}

fn string_operands(rng: &mut Rng, place: &Place, wide: bool, built: &mut Built) -> Option<()> {
    let instruction = built.instruction;
    let repeated = instruction.has_rep_prefix() || instruction.has_repne_prefix();
    let kinds: Vec<OpKind> = instruction.op_kinds().collect();
    let has = |wanted: &[OpKind]| kinds.iter().any(|k| wanted.contains(k));
    let mut addresses = Vec::new();
    for (register, wanted) in [
        (Register::RSI, &[OpKind::MemorySegRSI, OpKind::MemorySegESI][..]),
        (
            Register::RDI,
            &[OpKind::MemoryESRDI, OpKind::MemoryESEDI, OpKind::MemorySegRDI, OpKind::MemorySegEDI]
                [..],
        ),
    ] {
        if has(wanted) {
            let near = if rng.chance(30) { rng.below(32) } else { rng.below(OPERANDS_SIZE - 2048) };
            let address = crate::state::DATA + 1024 + near;
            let garbage = if wide || repeated { 0 } else { rng.bits() << 32 };
            built.need(register, address | garbage)?;
            addresses.push(address);
        }
    }
    if repeated {
        built.need(Register::RCX, if rng.chance(10) { 0 } else { rng.below(24) })?;
        // Comparisons that go on for a while need equal bytes.
        if place.alone && rng.chance(60) {
            let value = rng.pick(&[0, 0xff, 0x5a]);
            for address in addresses {
                let length = 8 * rng.below(24);
                built.patches.push((address - length.min(512), vec![value; 2 * length as usize]));
            }
            if has(&[OpKind::Register]) && rng.chance(50) {
                built.need(Register::RAX, u64::from_le_bytes([value; 8]))?;
            }
        }
    }
    Some(())
}

/// Random code addresses for a program of up to 64 bytes: some across a page end.
pub fn code_address(rng: &mut Rng) -> u64 {
    match rng.below(4) {
        0 => CODE + 0x1000 - rng.below(15),
        _ => CODE + rng.below(0x3000),
    }
}
