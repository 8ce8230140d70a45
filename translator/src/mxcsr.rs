//! MXCSR (Intel SDM vol. 1, 10.2.3) on the host's FPCR and FPSR.
//!
//! While translated code runs, FPCR holds MXCSR's rounding and flush modes and FPSR collects the
//! exception flags that [`CpuState::mxcsr`] does not have yet.
//!
//! With FEAT_AFP the host's FPCR.AH makes NaNs, tininess and denormal operands those of x86, NEP keeps
//! the upper lanes of scalar results, and FIZ is DAZ. Without it two things are inexact: DE is never set,
//! and FTZ and DAZ come only together, as FPCR.FZ, if either is set; MIN and MAX then still pass on a
//! denormal that DAZ takes for zero.
//!
//! On the host exceptions are always masked; see [`crate::lower::traps`] for a guest that unmasks one.

use crate::helpers::Pair;
use crate::state::{CpuState, FloatUndo};

/// Bits that may be set in MXCSR.
pub const MASK: u32 = 0xffff;

#[allow(missing_docs)] // names are the Intel SDM's
pub mod bits {
    pub const IE: u32 = 1 << 0;
    pub const DE: u32 = 1 << 1;
    pub const ZE: u32 = 1 << 2;
    pub const OE: u32 = 1 << 3;
    pub const UE: u32 = 1 << 4;
    pub const PE: u32 = 1 << 5;
    pub const DAZ: u32 = 1 << 6;
    pub const FTZ: u32 = 1 << 15;
}
use bits::*;

/// Bits of FPCR (Arm ARM C5.2.8).
const FIZ: u32 = 1 << 0;
const AH: u32 = 1 << 1;
const NEP: u32 = 1 << 2;
const RMODE: u32 = 22;
/// FPCR.FZ, flush to zero.
pub const FZ: u32 = 1 << 24;

/// Each cumulative flag of FPSR (IOC DZC OFC UFC IXC) with its flag of MXCSR.
const FLAGS: [(u32, u32); 5] = [(0, IE), (1, ZE), (2, OE), (3, UE), (4, PE)];
/// FPSR.IDC.
const IDC: u32 = 1 << 7;

/// FPCR for an MXCSR; `afp` says whether the host has FEAT_AFP.
pub fn fpcr(mxcsr: u32, afp: bool) -> u32 {
    // Both count nearest as 0 and truncation as 3; up and down are exchanged.
    let rounding = match mxcsr >> 13 & 3 {
        1 => 2,
        2 => 1,
        same => same,
    };
    let modes = if afp {
        let daz = if mxcsr & DAZ != 0 { FIZ } else { 0 };
        let ftz = if mxcsr & FTZ != 0 { FZ } else { 0 };
        AH | NEP | daz | ftz
    } else if mxcsr & (FTZ | DAZ) != 0 {
        FZ
    } else {
        0
    };
    modes | rounding << RMODE
}

/// All exception flags, and those of exceptions that are found before the operation (Intel SDM vol. 1,
/// 11.5.2).
const EXCEPTIONS: u32 = 0x3f;
const BEFORE_OPERATION: u32 = IE | DE | ZE;

/// Whether an MXCSR unmasks any exception.
pub fn unmasks(mxcsr: u32) -> bool {
    !mxcsr >> 7 & EXCEPTIONS != 0
}

/// Which parts of a vector register hold results.
#[allow(missing_docs)] // the names say it
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Lanes {
    None,
    Single,
    TwoSingles,
    Singles,
    Double,
    Doubles,
}

/// Whether a result is too small for a normal number. Without a trap that is an exception only
/// if the result is also inexact.
fn is_tiny(value: u128, lanes: u64) -> bool {
    let (bits, count) = match lanes {
        n if n == Lanes::Single as u64 => (32, 1),
        n if n == Lanes::TwoSingles as u64 => (32, 2),
        n if n == Lanes::Singles as u64 => (32, 4),
        n if n == Lanes::Double as u64 => (64, 1),
        n if n == Lanes::Doubles as u64 => (64, 2),
        _ => return false,
    };
    (0..count).any(|i| {
        let lane = (value >> (i * bits)) as u64 & (u64::MAX >> (64 - bits));
        if bits == 32 {
            f32::from_bits(lane as u32).is_subnormal()
        } else {
            f64::from_bits(lane).is_subnormal()
        }
    })
}

/// Before an instruction that may raise an exception: notes what it may change.
pub extern "C" fn trap_begin(cpu: &mut CpuState, _: u64, _: u64, _: u64) -> Pair {
    collect(cpu);
    cpu.float_undo =
        FloatUndo { gpr: cpu.gpr, xmm: cpu.xmm, st: cpu.x87.st, flags: [cpu.nzcv, cpu.pf, cpu.af] };
    Pair(0, 0)
}

/// Behind it: the [`Lanes`] of the result and its register. Result 1: #XM, and nothing has changed but
/// the exception flags.
pub extern "C" fn trap_end(cpu: &mut CpuState, lanes: u64, register: u64, _: u64) -> Pair {
    let before = cpu.mxcsr;
    cpu.mxcsr &= !EXCEPTIONS;
    collect(cpu);
    let mut raised = cpu.mxcsr & EXCEPTIONS;
    let enabled = !(before >> 7) & EXCEPTIONS;
    if enabled & UE != 0 && is_tiny(cpu.xmm[register as usize & 15], lanes) {
        raised |= UE;
    }
    if raised & enabled & BEFORE_OPERATION != 0 {
        raised &= BEFORE_OPERATION;
    }
    cpu.mxcsr = before | raised;
    if raised & enabled == 0 {
        return Pair(0, 0);
    }
    let undo = &cpu.float_undo;
    // The change to MMX stays.
    (cpu.gpr, cpu.xmm, cpu.x87.st) = (undo.gpr, undo.xmm, undo.st);
    [cpu.nzcv, cpu.pf, cpu.af] = undo.flags;
    Pair(1, 0)
}

/// Takes the flags that FPSR has collected over to `mxcsr`.
#[inline]
pub fn collect(cpu: &mut CpuState) {
    if cpu.fpsr != 0 {
        collect_some(cpu);
    }
}

#[inline(never)]
fn collect_some(cpu: &mut CpuState) {
    let mut flags =
        FLAGS.iter().filter(|(bit, _)| cpu.fpsr >> bit & 1 != 0).fold(0, |m, (_, flag)| m | flag);
    if cpu.fpcr & AH != 0 && cpu.fpsr & IDC != 0 {
        flags |= DE;
    }
    if flags & UE != 0 && cpu.mxcsr & FTZ != 0 {
        flags |= PE; // a flushed result is inexact
    }
    cpu.mxcsr |= flags;
    cpu.fpsr = 0;
}

/// Makes FPCR follow `mxcsr`, which holds all flags.
pub fn apply(cpu: &mut CpuState, afp: bool) {
    cpu.fpcr = fpcr(cpu.mxcsr, afp);
    cpu.fpsr = 0;
}

/// Changes MXCSR in a run-time helper.
pub fn write(cpu: &mut CpuState, value: u32) {
    cpu.mxcsr = value;
    let afp = cpu.fpcr & AH != 0;
    apply(cpu, afp);
}

/// LDMXCSR, with a valid value. Result 1: it unmasks an exception.
pub extern "C" fn load(cpu: &mut CpuState, value: u64, _: u64, _: u64) -> Pair {
    write(cpu, value as u32);
    Pair(u64::from(unmasks(cpu.mxcsr)), 0)
}

/// STMXCSR.
pub extern "C" fn store(cpu: &mut CpuState, _: u64, _: u64, _: u64) -> Pair {
    collect(cpu);
    Pair(u64::from(cpu.mxcsr), 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_modes_have_their_arm_numbers() {
        let modes = [0, 1, 2, 3].map(|rc| fpcr(0x1f80 | rc << 13, false) >> RMODE);
        assert_eq!(modes, [0b00, 0b10, 0b01, 0b11]);
    }

    #[test]
    fn flags_stick_until_they_are_cleared() {
        let mut cpu = CpuState::new();
        cpu.fpsr = 0b11;
        assert_eq!(store(&mut cpu, 0, 0, 0).0, 0x1f80 | 0b101);
        assert_eq!((cpu.fpsr, store(&mut cpu, 0, 0, 0).0), (0, 0x1f80 | 0b101));
        cpu.fpsr = 1 << 4;
        load(&mut cpu, 0x1f80, 0, 0);
        assert_eq!(store(&mut cpu, 0, 0, 0).0, 0x1f80);
    }

    #[test]
    fn unmasked_exceptions_undo_the_instruction() {
        let mut cpu = CpuState::new();
        cpu.mxcsr &= !(ZE << 7);
        trap_begin(&mut cpu, 0, 0, 0);
        cpu.xmm[1] = 77;
        cpu.fpsr = 1 << 1 | 1 << 4; // division by zero; another lane was inexact
        assert_eq!(trap_end(&mut cpu, 0, 1, 0).0, 1);
        assert_eq!((cpu.xmm[1], cpu.mxcsr & EXCEPTIONS), (0, ZE));
        trap_begin(&mut cpu, 0, 0, 0);
        cpu.xmm[1] = 77;
        cpu.fpsr = 1 << 4;
        assert_eq!(trap_end(&mut cpu, 0, 1, 0).0, 0);
        assert_eq!((cpu.xmm[1], cpu.mxcsr & EXCEPTIONS), (77, ZE | PE));
    }

    #[test]
    fn tiny_results_are_underflow_only_if_that_traps() {
        for (mask, trapped) in [(UE << 7, 0), (0, 1)] {
            let mut cpu = CpuState::new();
            cpu.mxcsr = cpu.mxcsr & !(UE << 7) | mask;
            trap_begin(&mut cpu, 0, 0, 0);
            cpu.xmm[2] = 1 << 64;
            assert_eq!(trap_end(&mut cpu, Lanes::Doubles as u64, 2, 0).0, trapped);
            trap_begin(&mut cpu, 0, 0, 0);
            cpu.xmm[2] = 1 << 64;
            assert_eq!(trap_end(&mut cpu, Lanes::Double as u64, 2, 0).0, 0);
        }
    }

    #[test]
    fn flushing_follows_both_bits() {
        assert_eq!(fpcr(0x9f80, false), FZ);
        assert_eq!(fpcr(0x9f80, true), FZ | AH | NEP);
        assert_eq!(fpcr(0x1fc0, true), FIZ | AH | NEP);
    }
}
