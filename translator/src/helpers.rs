//! Run-time helpers: operations too long or too rare for translated code.
//!
//! A helper is `extern "C" fn(&mut CpuState, u64, u64, u64) -> Pair`. While it runs all guest state
//! is in the `CpuState`, and `rip` is the guest instruction's address; what it changes there the
//! translated code sees. A helper that accesses guest memory does so before it changes anything
//! that executing the instruction again would not repeat, and holds no resources at that
//! moment: a fault abandons its frame.

use crate::mxcsr;
use crate::segments;
use crate::state::{CpuState, MAX_HELPERS};
use crate::vector;
use crate::x87::helpers as x87;

/// Two result registers (x20 and x21 in translated code).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair(pub u64, pub u64);

/// The type of every helper.
pub type HelperFn = extern "C" fn(&mut CpuState, u64, u64, u64) -> Pair;

/// Declares the helpers: an enum for lowering and the table of functions in the same order.
macro_rules! helpers {
    ($($(#[$doc:meta])* $name:ident = $f:path;)*) => {
        /// Names of the helpers; the number is the index in [`CpuState::helpers`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        #[allow(missing_docs)] // a group of helpers is described at its first
        pub enum Helper { $($(#[$doc])* $name),* }

        /// The helpers' functions, by number.
        pub const HELPERS: &[HelperFn] = &[$($f),*];
    };
}

helpers! {
    /// 128 / 64-bit unsigned division: divisor; quotient and remainder go to rax and rdx; 1 = #DE.
    Div128 = div128;
    /// The same, signed.
    Idiv128 = idiv128;
    /// PDEP: source, mask.
    Pdep = pdep;
    /// PEXT: source, mask.
    Pext = pext;
    /// CRC32C: checksum, data, its size in bytes.
    Crc32c = crc32c;
    /// A misaligned atomic operation: address, operand, [`crate::split::operation`]; gives the old value.
    SplitAtomic = crate::split::atomic;
    /// REP MOVS with the direction flag clear: the element's size.
    RepMovs = crate::repeat::movs;
    /// REP STOS with the direction flag clear: the element's size.
    RepStos = crate::repeat::stos;
    /// CPUID.
    Cpuid = crate::cpuid::cpuid;
    /// The number of the processor that runs the thread.
    CurrentCpu = crate::cpuid::current;
    /// PUSHF's value: RFLAGS.
    GetFlags = get_flags;
    /// POPF: new RFLAGS, mask of the bits to change.
    SetFlags = set_flags;
    /// SHA, see [`crate::vector`].
    Sha1Rnds4 = vector::sha1rnds4;
    Sha1Nexte = vector::sha1nexte;
    Sha256Rnds2 = vector::sha256rnds2;
    Sha256Msg1 = vector::sha256msg1;
    Sha256Msg2 = vector::sha256msg2;
    /// PCMPESTRI and its relatives.
    CompareStrings = vector::compare_strings;
    /// LDMXCSR.
    LoadMxcsr = mxcsr::load;
    /// STMXCSR.
    StoreMxcsr = mxcsr::store;
    /// Before and behind an instruction that may raise #XM.
    TrapBegin = mxcsr::trap_begin;
    TrapEnd = mxcsr::trap_end;
    /// The x87 instructions, see [`crate::x87::helpers`].
    X87ArithSt = x87::arith_st;
    X87ArithM = x87::arith_m;
    X87Load = x87::load;
    X87LoadF80 = x87::load_f80;
    X87LoadBcd = x87::load_bcd;
    X87LoadSt = x87::load_st;
    X87LoadConstant = x87::load_constant;
    X87StoreSt = x87::store_st;
    X87StoreUnchecked = x87::store_unchecked;
    X87Store = x87::store;
    X87CompareSt = x87::compare_st;
    X87CompareM = x87::compare_m;
    X87CompareFlags = x87::compare_flags;
    X87Test = x87::test;
    X87Examine = x87::examine;
    X87Unary = x87::unary;
    X87Binary = x87::binary;
    X87Pair = x87::pair;
    X87Exchange = x87::exchange;
    X87ConditionalMove = x87::conditional_move;
    X87Free = x87::free;
    X87MoveTop = x87::move_top;
    X87Init = x87::init;
    X87LoadControl = x87::load_control;
    X87StoreEnv = x87::store_env;
    X87LoadEnv = x87::load_env;
    X87Save = x87::save;
    X87Restore = x87::restore;
    FxSave = x87::fxsave;
    FxRstor = x87::fxrstor;
    /// MASKMOVQ.
    MaskedStore = x87::masked_store;
    /// Segments and far transfers, see [`crate::segments`].
    LoadSegment = segments::load;
    LoadStackSegment = segments::load_stack;
    AccessRights = segments::access_rights;
    SegmentLimit = segments::limit;
    VerifySegment = segments::verify;
    FarJump = segments::far_jump;
    FarCall = segments::far_call;
    FarReturn = segments::far_return;
    InterruptReturn = segments::interrupt_return;
}

/// Writes the helpers' addresses into a state.
pub fn install(cpu: &mut CpuState) {
    const { assert!(HELPERS.len() <= MAX_HELPERS) };
    for (slot, f) in cpu.helpers.iter_mut().zip(HELPERS) {
        *slot = *f as usize as u64;
    }
}

extern "C" fn div128(cpu: &mut CpuState, divisor: u64, _: u64, _: u64) -> Pair {
    let dividend = u128::from(cpu.gpr[2]) << 64 | u128::from(cpu.gpr[0]);
    let Some(quotient) = dividend.checked_div(u128::from(divisor)) else {
        return Pair(1, 0);
    };
    let Ok(q) = u64::try_from(quotient) else {
        return Pair(1, 0);
    };
    cpu.gpr[0] = q;
    cpu.gpr[2] = (dividend % u128::from(divisor)) as u64;
    Pair(0, 0)
}

extern "C" fn idiv128(cpu: &mut CpuState, divisor: u64, _: u64, _: u64) -> Pair {
    let dividend = (u128::from(cpu.gpr[2]) << 64 | u128::from(cpu.gpr[0])) as i128;
    let divisor = i128::from(divisor as i64);
    let Some(quotient) = dividend.checked_div(divisor) else {
        return Pair(1, 0);
    };
    let Ok(q) = i64::try_from(quotient) else {
        return Pair(1, 0);
    };
    cpu.gpr[0] = q as u64;
    cpu.gpr[2] = (dividend % divisor) as i64 as u64;
    Pair(0, 0)
}

extern "C" fn pdep(_: &mut CpuState, source: u64, mask: u64, _: u64) -> Pair {
    let (mut left, mut result) = (mask, 0);
    let mut from = source;
    while left != 0 {
        let lowest = left & left.wrapping_neg();
        if from & 1 != 0 {
            result |= lowest;
        }
        from >>= 1;
        left ^= lowest;
    }
    Pair(result, 0)
}

extern "C" fn pext(_: &mut CpuState, source: u64, mask: u64, _: u64) -> Pair {
    let (mut left, mut result, mut to) = (mask, 0, 0);
    while left != 0 {
        let lowest = left & left.wrapping_neg();
        result |= u64::from(source & lowest != 0) << to;
        to += 1;
        left ^= lowest;
    }
    Pair(result, 0)
}

extern "C" fn crc32c(_: &mut CpuState, checksum: u64, data: u64, size: u64) -> Pair {
    let mut c = checksum as u32;
    for byte in data.to_le_bytes().into_iter().take(size as usize) {
        c ^= u32::from(byte);
        for _ in 0..8 {
            // 0x11EDC6F41 with its bits reversed (Intel SDM vol. 2, CRC32).
            c = c >> 1 ^ if c & 1 != 0 { 0x82f6_3b78 } else { 0 };
        }
    }
    Pair(u64::from(c), 0)
}

extern "C" fn get_flags(cpu: &mut CpuState, _: u64, _: u64, _: u64) -> Pair {
    Pair(cpu.rflags(), 0)
}

extern "C" fn set_flags(cpu: &mut CpuState, value: u64, mask: u64, _: u64) -> Pair {
    let old = cpu.rflags();
    cpu.set_rflags(value & mask | old & !mask);
    Pair(0, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deposit_and_extract() {
        let mut cpu = CpuState::new();
        assert_eq!(pdep(&mut cpu, 0b1011, 0xf0f0, 0), Pair(0x00b0, 0));
        assert_eq!(pdep(&mut cpu, 0x1f, 0xf0f0, 0), Pair(0x10f0, 0));
        assert_eq!(pext(&mut cpu, 0xa5b6, 0xf0f0, 0), Pair(0xab, 0));
        assert_eq!(pext(&mut cpu, 1 << 63, u64::MAX, 0), Pair(1 << 63, 0));
    }

    #[test]
    fn crc32c_check_value() {
        // The check value of CRC-32C: the checksum of "123456789".
        let mut cpu = CpuState::new();
        let data = u64::from_le_bytes(*b"12345678");
        let Pair(c, _) = crc32c(&mut cpu, 0xffff_ffff, data, 8);
        let Pair(c, _) = crc32c(&mut cpu, c, u64::from(b'9'), 1);
        assert_eq!(c ^ 0xffff_ffff, 0xe306_9283);
    }

    #[test]
    fn division_overflow_is_an_error() {
        let mut cpu = CpuState::new();
        cpu.gpr[2] = 5;
        assert_eq!(div128(&mut cpu, 5, 0, 0), Pair(1, 0));
        assert_eq!(div128(&mut cpu, 0, 0, 0), Pair(1, 0));
        assert_eq!(div128(&mut cpu, 6, 0, 0), Pair(0, 0));
        cpu.gpr[0] = 0;
        cpu.gpr[2] = 1 << 63;
        assert_eq!(idiv128(&mut cpu, u64::MAX, 0, 0), Pair(1, 0));
    }
}
