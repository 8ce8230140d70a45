//! Atomic operations on misaligned guest memory, which arm64's own do not take.
//!
//! Inside of 16 aligned bytes a 128-bit compare-and-swap does it. Across them (a "split lock") the
//! operation is atomic against other such operations only, which a global lock orders.

use crate::helpers::Pair;
use crate::lower::atomics::Rmw;
use crate::state::CpuState;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering, fence};

static LOCK: AtomicBool = AtomicBool::new(false);

/// Holds the lock of split operations.
pub struct Guard(());

/// Takes the lock of split operations. It is held for a few instructions that cannot fault.
pub fn lock() -> Guard {
    while LOCK.swap(true, Ordering::Acquire) {
        std::hint::spin_loop();
    }
    Guard(())
}

impl Drop for Guard {
    fn drop(&mut self) {
        LOCK.store(false, Ordering::Release);
    }
}

const OPERATIONS: [Rmw; 7] =
    [Rmw::Add, Rmw::Clear, Rmw::Xor, Rmw::Or, Rmw::Swap, Rmw::CompareSwap, Rmw::Neg];

/// The helper's third argument: operation and size in bytes.
pub fn operation(op: Rmw, size: u32) -> u64 {
    op as u64 | u64::from(size) << 8
}

/// Helper: address, operand, [`operation`]. The expected value of a comparison is in `scratch[0]`.
/// Gives the old value.
pub extern "C" fn atomic(cpu: &mut CpuState, address: u64, operand: u64, code: u64) -> Pair {
    let op = OPERATIONS[(code & 7) as usize];
    let size = (code >> 8) as usize;
    // Both ends may fault: now, while nothing is held and nothing has changed.
    make_sure_of(address);
    make_sure_of(address + size as u64 - 1);
    let mask = u64::MAX >> (64 - 8 * size);
    let apply = |old: u64| {
        let new = match op {
            Rmw::Add => old.wrapping_add(operand),
            Rmw::Clear => old & !operand,
            Rmw::Xor => old ^ operand,
            Rmw::Or => old | operand,
            Rmw::CompareSwap if (old ^ cpu.scratch[0]) & mask != 0 => old,
            Rmw::Swap | Rmw::CompareSwap => operand,
            Rmw::Neg => old.wrapping_neg(),
        };
        new & mask
    };
    let old = if address % 16 + size as u64 <= 16 {
        inside(address, mask, apply)
    } else {
        across(address, size, apply)
    };
    Pair(old, 0)
}

/// Faults if the byte cannot be written.
fn make_sure_of(address: u64) {
    // SAFETY: guest memory at the guest's own request; a fault abandons this frame.
    let byte = unsafe { &*(address as *const AtomicU8) };
    let mut value = byte.load(Ordering::Relaxed);
    while let Err(other) =
        byte.compare_exchange_weak(value, value, Ordering::Relaxed, Ordering::Relaxed)
    {
        value = other;
    }
}

/// An operation inside of 16 aligned bytes.
fn inside(address: u64, mask: u64, apply: impl Fn(u64) -> u64) -> u64 {
    let block = (address & !15) as *mut u128;
    let shift = (address & 15) * 8;
    let mut seen = 0;
    loop {
        let old = (seen >> shift) as u64 & mask;
        let new = seen & !(u128::from(mask) << shift) | u128::from(apply(old)) << shift;
        // SAFETY: aligned, and the guest's: `make_sure_of` has written there.
        let found = unsafe { compare_exchange(block, seen, new) };
        if found == seen {
            return old;
        }
        seen = found;
    }
}

/// # Safety
/// `block` must be aligned to 16 bytes and writable.
#[cfg(target_arch = "aarch64")]
unsafe fn compare_exchange(block: *mut u128, expected: u128, new: u128) -> u128 {
    let (mut low, mut high): (u64, u64);
    // SAFETY: touches the block and the named registers only.
    unsafe {
        std::arch::asm!(
            "2: ldaxp {low}, {high}, [{block}]",
            "cmp {low}, {expected_low}",
            "ccmp {high}, {expected_high}, #0, eq",
            "b.ne 3f",
            "stlxp {failed:w}, {new_low}, {new_high}, [{block}]",
            "cbnz {failed:w}, 2b",
            "3: dmb ish",
            low = out(reg) low,
            high = out(reg) high,
            failed = out(reg) _,
            block = in(reg) block,
            expected_low = in(reg) expected as u64,
            expected_high = in(reg) (expected >> 64) as u64,
            new_low = in(reg) new as u64,
            new_high = in(reg) (new >> 64) as u64,
            options(nostack),
        );
    }
    u128::from(high) << 64 | u128::from(low)
}

/// # Safety
/// As on arm64. Here guest code does not run: the lock is enough for the unit tests.
#[cfg(not(target_arch = "aarch64"))]
unsafe fn compare_exchange(block: *mut u128, expected: u128, new: u128) -> u128 {
    let _guard = lock();
    // SAFETY: the caller's.
    unsafe {
        let found = block.read();
        if found == expected {
            block.write(new);
        }
        found
    }
}

/// An operation across a border of 16 bytes.
fn across(address: u64, size: usize, apply: impl Fn(u64) -> u64) -> u64 {
    let _guard = lock();
    fence(Ordering::SeqCst);
    let mut bytes = [0; 8];
    // SAFETY: at most 8 bytes of guest memory that `make_sure_of` has written to.
    let old = unsafe {
        std::ptr::copy_nonoverlapping(address as *const u8, bytes.as_mut_ptr(), size);
        let old = u64::from_le_bytes(bytes);
        let new = apply(old).to_le_bytes();
        std::ptr::copy_nonoverlapping(new.as_ptr(), address as *mut u8, size);
        old
    };
    fence(Ordering::SeqCst);
    old
}

#[cfg(test)]
mod tests {
    use super::*;

    #[repr(align(16))]
    struct Block([u8; 32]);

    #[test]
    fn misaligned_operations_change_their_bytes_only() {
        let mut cpu = CpuState::new();
        for at in 0..16usize {
            for size in [2usize, 4, 8] {
                let mut block = Block([0xff; 32]);
                let address = block.0.as_mut_ptr() as u64 + at as u64;
                let code = operation(Rmw::Add, size as u32);
                let Pair(old, _) = atomic(&mut cpu, address, 3, code);
                assert_eq!(old, u64::MAX >> (64 - 8 * size));
                let mut expected = [0xff; 32];
                expected[at..at + size].fill(0);
                expected[at] = 2;
                assert_eq!(block.0, expected, "{size} bytes at {at}");
            }
        }
    }

    #[test]
    fn a_comparison_looks_at_its_size_only() {
        let mut cpu = CpuState::new();
        let mut block = Block([1; 32]);
        let address = block.0.as_mut_ptr() as u64 + 3;
        let code = operation(Rmw::CompareSwap, 4);
        cpu.scratch[0] = 0xffff_ffff_0101_0102;
        assert_eq!(atomic(&mut cpu, address, 9, code), Pair(0x0101_0101, 0));
        assert_eq!(block.0, [1; 32]);
        cpu.scratch[0] = 0xffff_ffff_0101_0101;
        assert_eq!(atomic(&mut cpu, address, 9, code), Pair(0x0101_0101, 0));
        assert_eq!(block.0[3..7], [9, 0, 0, 0]);
    }
}
