//! The x87 instructions as run-time helpers of translated code.
//!
//! Arguments are operand bits and small numbers as `lower::x87` passes them; an unknown number
//! cannot come, and would do nothing.

use super::arith::Arith;
use super::compare::Relation;
use super::convert::Source;
use super::f80::F80;
use super::image;
use super::ops::{self, Binary, Pair as Two, Target, Unary};
use crate::guest_memory;
use crate::helpers::Pair;
use crate::mxcsr;
use crate::state::CpuState;

/// What a helper without a result returns.
const DONE: Pair = Pair(0, 0);

/// Set in the second result of [`store`]: an unmasked exception keeps the store back.
pub const STORE_SUPPRESSED: u32 = 32;
/// Position of the new status word in the second result of [`store`].
pub const STORE_STATUS: u32 = 16;

/// Operation, destination, source and pop of [`arith_st`] in one argument.
pub const fn arith_code(op: u8, dst: u8, src: u8, pop: bool) -> u64 {
    op as u64 | (dst as u64) << 8 | (src as u64) << 16 | (pop as u64) << 24
}

/// Operation and operand format of [`arith_m`] in one argument.
pub const fn arith_m_code(op: u8, source: u8) -> u64 {
    op as u64 | (source as u64) << 8
}

/// Notes the instruction's address: every non-control instruction does.
fn note(cpu: &mut CpuState) {
    cpu.x87.fip = cpu.rip;
}

/// FADD, FMUL, FSUB, FSUBR, FDIV, FDIVR of registers: [`arith_code`].
pub extern "C" fn arith_st(cpu: &mut CpuState, code: u64, _: u64, _: u64) -> Pair {
    note(cpu);
    if let Some(op) = Arith::from_code(code as u8) {
        ops::arith_st(&mut cpu.x87, op, (code >> 8) as u8, (code >> 16) as u8, code >> 24 != 0);
    }
    DONE
}

/// The same with a memory operand: its bits, [`arith_m_code`].
pub extern "C" fn arith_m(cpu: &mut CpuState, bits: u64, code: u64, _: u64) -> Pair {
    note(cpu);
    if let (Some(op), Some(source)) =
        (Arith::from_code(code as u8), Source::from_code((code >> 8) as u8))
    {
        ops::arith_m(&mut cpu.x87, op, source, bits);
    }
    DONE
}

/// FLD and FILD: bits, format.
pub extern "C" fn load(cpu: &mut CpuState, bits: u64, source: u64, _: u64) -> Pair {
    note(cpu);
    if let Some(source) = Source::from_code(source as u8) {
        ops::load(&mut cpu.x87, source, bits);
    }
    DONE
}

/// FLD m80: significand, sign and exponent.
pub extern "C" fn load_f80(cpu: &mut CpuState, low: u64, high: u64, _: u64) -> Pair {
    note(cpu);
    ops::load_f80(&mut cpu.x87, F80 { sign_exp: high as u16, significand: low });
    DONE
}

/// FBLD: low and high part.
pub extern "C" fn load_bcd(cpu: &mut CpuState, low: u64, high: u64, _: u64) -> Pair {
    note(cpu);
    ops::load_bcd(&mut cpu.x87, u128::from(high) << 64 | u128::from(low));
    DONE
}

/// FLD ST(i).
pub extern "C" fn load_st(cpu: &mut CpuState, i: u64, _: u64, _: u64) -> Pair {
    note(cpu);
    ops::load_st(&mut cpu.x87, i as u8);
    DONE
}

/// FLD1 and the other constants, by number.
pub extern "C" fn load_constant(cpu: &mut CpuState, index: u64, _: u64, _: u64) -> Pair {
    note(cpu);
    ops::load_constant(&mut cpu.x87, index as u8);
    DONE
}

/// FST and FSTP ST(i): i, pop.
pub extern "C" fn store_st(cpu: &mut CpuState, i: u64, pop: u64, _: u64) -> Pair {
    note(cpu);
    ops::store_st(&mut cpu.x87, i as u8, pop != 0);
    DONE
}

/// FSTPNCE ST(i): i.
pub extern "C" fn store_unchecked(cpu: &mut CpuState, i: u64, _: u64, _: u64) -> Pair {
    note(cpu);
    ops::store_unchecked(&mut cpu.x87, i as u8);
    DONE
}

/// Evaluates a store to memory by its [`Target`]. Results: the low 64 bits of the value; then
/// its high 16 bits, the new status word at [`STORE_STATUS`], and the bit [`STORE_SUPPRESSED`].
/// Translated code completes the instruction after the store.
pub extern "C" fn store(cpu: &mut CpuState, target: u64, _: u64, _: u64) -> Pair {
    note(cpu);
    let Some(target) = Target::from_code(target as u8) else { return DONE };
    let stored = ops::store(&cpu.x87, target);
    let value = stored.value.unwrap_or(0);
    let suppressed = u64::from(stored.value.is_none()) << STORE_SUPPRESSED;
    let high = (value >> 64) as u64 & 0xffff;
    Pair(value as u64, high | u64::from(stored.sw) << STORE_STATUS | suppressed)
}

/// FCOM, FUCOM and their popping forms: i, whether quiet, number of pops.
pub extern "C" fn compare_st(cpu: &mut CpuState, i: u64, quiet: u64, pops: u64) -> Pair {
    note(cpu);
    ops::compare_st(&mut cpu.x87, i as u8, quiet != 0, pops as u8);
    DONE
}

/// FCOM and FICOM with memory: bits, format, pop.
pub extern "C" fn compare_m(cpu: &mut CpuState, bits: u64, source: u64, pop: u64) -> Pair {
    note(cpu);
    if let Some(source) = Source::from_code(source as u8) {
        ops::compare_m(&mut cpu.x87, source, bits, pop != 0);
    }
    DONE
}

/// FCOMI, FUCOMI and their popping forms: i, whether quiet, pop. Sets the status flags.
pub extern "C" fn compare_flags(cpu: &mut CpuState, i: u64, quiet: u64, pop: u64) -> Pair {
    note(cpu);
    let relation = ops::compare_flags(&mut cpu.x87, i as u8, quiet != 0, pop != 0);
    let (z, c) = (1 << 30, 1 << 29);
    // The parity of 1 is odd, that of 0 even.
    (cpu.nzcv, cpu.pf) = match relation {
        Relation::Greater => (0, 1),
        Relation::Less => (c, 1),
        Relation::Equal => (z, 1),
        Relation::Unordered => (z | c, 0),
    };
    cpu.af = cpu.pf;
    DONE
}

/// FTST.
pub extern "C" fn test(cpu: &mut CpuState, _: u64, _: u64, _: u64) -> Pair {
    note(cpu);
    ops::test(&mut cpu.x87);
    DONE
}

/// FXAM.
pub extern "C" fn examine(cpu: &mut CpuState, _: u64, _: u64, _: u64) -> Pair {
    note(cpu);
    ops::examine(&mut cpu.x87);
    DONE
}

/// An operation of ST(0), by its number.
pub extern "C" fn unary(cpu: &mut CpuState, op: u64, _: u64, _: u64) -> Pair {
    note(cpu);
    if let Some(op) = Unary::from_code(op as u8) {
        ops::unary(&mut cpu.x87, op);
    }
    DONE
}

/// An operation of ST(0) and ST(1), by its number.
pub extern "C" fn binary(cpu: &mut CpuState, op: u64, _: u64, _: u64) -> Pair {
    note(cpu);
    if let Some(op) = Binary::from_code(op as u8) {
        ops::binary(&mut cpu.x87, op);
    }
    DONE
}

/// An operation with two results, by its number.
pub extern "C" fn pair(cpu: &mut CpuState, op: u64, _: u64, _: u64) -> Pair {
    note(cpu);
    if let Some(op) = Two::from_code(op as u8) {
        ops::pair(&mut cpu.x87, op);
    }
    DONE
}

/// FXCH.
pub extern "C" fn exchange(cpu: &mut CpuState, i: u64, _: u64, _: u64) -> Pair {
    note(cpu);
    ops::exchange(&mut cpu.x87, i as u8);
    DONE
}

/// FCMOVcc: i, whether the condition holds.
pub extern "C" fn conditional_move(cpu: &mut CpuState, i: u64, condition: u64, _: u64) -> Pair {
    note(cpu);
    ops::conditional_move(&mut cpu.x87, i as u8, condition != 0);
    DONE
}

/// FFREE and FFREEP: i, pop.
pub extern "C" fn free(cpu: &mut CpuState, i: u64, pop: u64, _: u64) -> Pair {
    note(cpu);
    ops::free(&mut cpu.x87, i as u8);
    if pop != 0 {
        cpu.x87.pop();
    }
    DONE
}

/// FINCSTP (1) and FDECSTP (0).
pub extern "C" fn move_top(cpu: &mut CpuState, up: u64, _: u64, _: u64) -> Pair {
    note(cpu);
    ops::move_top(&mut cpu.x87, up != 0);
    DONE
}

/// FNINIT.
pub extern "C" fn init(cpu: &mut CpuState, _: u64, _: u64, _: u64) -> Pair {
    ops::init(&mut cpu.x87);
    DONE
}

/// FLDCW.
pub extern "C" fn load_control(cpu: &mut CpuState, control: u64, _: u64, _: u64) -> Pair {
    ops::load_control(&mut cpu.x87, control as u16);
    DONE
}

/// FNSTENV: address, whether in 16-bit format.
pub extern "C" fn store_env(cpu: &mut CpuState, address: u64, short: u64, _: u64) -> Pair {
    match short {
        0 => guest_memory::write(address, &image::store_env(&cpu.x87)),
        _ => guest_memory::write(address, &image::store_short_env(&cpu.x87)),
    }
    image::mask_all(&mut cpu.x87);
    DONE
}

/// FLDENV: address, whether in 16-bit format.
pub extern "C" fn load_env(cpu: &mut CpuState, address: u64, short: u64, _: u64) -> Pair {
    match short {
        0 => image::load_env(&mut cpu.x87, &guest_memory::read(address)),
        _ => image::load_short_env(&mut cpu.x87, &guest_memory::read(address)),
    }
    DONE
}

/// FNSAVE: address, whether in 16-bit format.
pub extern "C" fn save(cpu: &mut CpuState, address: u64, short: u64, _: u64) -> Pair {
    match short {
        0 => guest_memory::write(address, &image::save(&cpu.x87)),
        _ => guest_memory::write(address, &image::short_save(&cpu.x87)),
    }
    ops::init(&mut cpu.x87);
    DONE
}

/// FRSTOR: address, whether in 16-bit format.
pub extern "C" fn restore(cpu: &mut CpuState, address: u64, short: u64, _: u64) -> Pair {
    match short {
        0 => image::restore(&mut cpu.x87, &guest_memory::read(address)),
        _ => image::short_restore(&mut cpu.x87, &guest_memory::read(address)),
    }
    DONE
}

/// FXSAVE: address, whether with REX.W. Result 1: #GP.
pub extern "C" fn fxsave(cpu: &mut CpuState, address: u64, wide: u64, _: u64) -> Pair {
    if !address.is_multiple_of(16) {
        return Pair(1, 0);
    }
    let mut image = guest_memory::read(address);
    mxcsr::collect(cpu);
    image::fxsave(cpu, &mut image, wide != 0);
    guest_memory::write(address, &image);
    DONE
}

/// FXRSTOR: address, whether with REX.W. First result 1: #GP; second 1: it unmasks an exception of SSE.
pub extern "C" fn fxrstor(cpu: &mut CpuState, address: u64, wide: u64, _: u64) -> Pair {
    if !address.is_multiple_of(16) {
        return Pair(1, 0);
    }
    let image = guest_memory::read(address);
    let valid = image::fxrstor(cpu, &image, wide != 0);
    Pair(u64::from(!valid), u64::from(mxcsr::unmasks(cpu.mxcsr)))
}

/// MASKMOVQ: address, bytes, mask.
pub extern "C" fn masked_store(_: &mut CpuState, address: u64, bytes: u64, mask: u64) -> Pair {
    for (i, byte) in bytes.to_le_bytes().into_iter().enumerate() {
        if mask >> (8 * i + 7) & 1 != 0 {
            guest_memory::write(address.wrapping_add(i as u64), &[byte]);
        }
    }
    DONE
}
