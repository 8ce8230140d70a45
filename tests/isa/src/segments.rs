//! Operands of the instructions that take selectors, and of far control transfers.

use crate::{
    operands::Built,
    rng::Rng,
    state::{COMPARED_FLAGS, STACK},
};
use iced_x86::{Code, Mnemonic, OpKind};

/// Selectors of Linux's descriptor table for a 64-bit process (asm/segment.h), and of nothing.
const SELECTORS: [u16; 14] =
    [0, 1, 2, 3, 0x20, 0x23, 0x28, 0x2b, 0x2b, 0x30, 0x33, 0x33, 0x10, 0x3b];
/// What far transfers may name: not 32-bit code, in which the test program would go on.
const CODE_SELECTORS: [u16; 8] = [0x33, 0x33, 0x33, 0x30, 0, 0x2b, 0x10, 0x53];
const USER_CS: u16 = 0x33;
const USER_SS: u16 = 0x2b;
/// The segment whose limit is the number of the processor that runs the test.
const CPU_NUMBER: u16 = 0x78;

fn selector(mnemonic: Mnemonic, rng: &mut Rng) -> u16 {
    let any = rng.bits() as u16;
    match rng.below(8) {
        0 if any & !3 != CPU_NUMBER => any,
        1 if mnemonic != Mnemonic::Lsl => CPU_NUMBER | any & 3,
        _ => rng.pick(&SELECTORS),
    }
}

/// Gives an operand that is a selector a value.
pub fn selector_operand(operand: u32, rng: &mut Rng, built: &mut Built) -> Option<()> {
    let instruction = built.instruction;
    let value = selector(instruction.mnemonic(), rng);
    if instruction.op_kind(operand) == OpKind::Register {
        let garbage = rng.bits() << 16;
        return built.need(instruction.op_register(operand), garbage | u64::from(value));
    }
    let (_, bytes) = built.patches.last_mut()?;
    bytes[..2].copy_from_slice(&value.to_le_bytes());
    Some(())
}

/// Whether it is a MOV or POP into a segment register.
pub fn is_load(code: Code) -> bool {
    use Code::*;
    matches!(code, Mov_Sreg_rm16 | Mov_Sreg_r32m16 | Mov_Sreg_r64m16)
        || matches!(code, Popw_FS | Popw_GS | Popq_FS | Popq_GS)
}

/// Whether Linux executes it in the processor's place: a store that faults is partly done then.
pub fn by_kernel(code: Code) -> bool {
    use Mnemonic::*;
    matches!(code.mnemonic(), Sgdt | Sidt | Sldt | Smsw | Str)
}

/// Whether it is a far control transfer.
pub fn is_far(code: Code) -> bool {
    use Mnemonic::*;
    matches!(code.mnemonic(), Retf | Iret | Iretd | Iretq) || is_far_pointer(code)
}

fn is_far_pointer(code: Code) -> bool {
    use Code::*;
    matches!(code, Jmp_m1616 | Jmp_m1632 | Jmp_m1664 | Call_m1616 | Call_m1632 | Call_m1664)
}

/// What the stack or the memory operand must hold for a form with a far pointer or a return address.
/// `stop` is the address of code that ends the program.
pub fn image(code: Code, rng: &mut Rng, stop: u64) -> Option<Vec<u8>> {
    use Code::*;
    let target = stop + rng.below(3);
    let cs = u64::from(rng.pick(&CODE_SELECTORS));
    let size = match code {
        Retfw | Retfw_imm16 | Iretw | Jmp_m1616 | Call_m1616 => 2,
        Lss_r16_m1616 | Lfs_r16_m1616 | Lgs_r16_m1616 => 2,
        Retfd | Retfd_imm16 | Iretd | Jmp_m1632 | Call_m1632 => 4,
        Lss_r32_m1632 | Lfs_r32_m1632 | Lgs_r32_m1632 => 4,
        Retfq | Retfq_imm16 | Iretq | Jmp_m1664 | Call_m1664 => 8,
        Lss_r64_m1664 | Lfs_r64_m1664 | Lgs_r64_m1664 => 8,
        Popw_FS | Popw_GS | Popq_FS | Popq_GS => {
            return Some(selector(code.mnemonic(), rng).to_le_bytes().to_vec());
        }
        _ => return None,
    };
    let word = |value: u64| value.to_le_bytes()[..size].to_vec();
    if is_far_pointer(code) {
        return Some([word(target), (cs as u16).to_le_bytes().to_vec()].concat());
    }
    Some(match code.mnemonic() {
        Mnemonic::Retf => [word(target), word(cs)].concat(),
        Mnemonic::Iret | Mnemonic::Iretd | Mnemonic::Iretq => {
            let good = rng.chance(70);
            let cs = if good { USER_CS.into() } else { cs };
            let ss = if good { USER_SS } else { rng.pick(&[USER_SS, 0, 0x28, 0x23, 0x18]) };
            let flags = u64::from(rng.bits() as u32 & COMPARED_FLAGS) | 0x202;
            let rsp = STACK + 8 * rng.below(32);
            [target, cs, flags, rsp, ss.into()].map(word).concat()
        }
        _ => [word(rng.int()), selector(code.mnemonic(), rng).to_le_bytes().to_vec()].concat(),
    })
}
