//! Long REP MOVS and REP STOS, with the direction flag clear.
//!
//! The work is done in chunks that do not cross a guest page on either side: a chunk faults at its
//! first byte or not at all. rsi, rdi and rcx advance behind each chunk, so that a fault
//! finds the registers of a real processor.

use crate::helpers::Pair;
use crate::state::CpuState;
use crate::state::reg::{RAX, RCX, RDI, RSI};
use std::sync::atomic::{Ordering, fence};

/// Bytes after which translated code gets a chance to be stopped.
const BUDGET: u64 = 1 << 20;
/// The guest's page size.
const PAGE: u64 = 4096;

fn to_page_end(address: u64) -> u64 {
    PAGE - address % PAGE
}

/// Helper: REP MOVS of elements of `size` bytes.
pub extern "C" fn movs(cpu: &mut CpuState, size: u64, _: u64, _: u64) -> Pair {
    fence(Ordering::SeqCst);
    let mut budget = BUDGET;
    while cpu.gpr[RCX] != 0 && budget != 0 {
        let (from, to) = (cpu.gpr[RSI], cpu.gpr[RDI]);
        let mut bytes = to_page_end(from).min(to_page_end(to)).min(budget);
        // Forward, element by element: what is copied may be copied again.
        let ahead = to.wrapping_sub(from);
        if ahead != 0 {
            bytes = bytes.min(ahead);
        }
        let count = (bytes / size).min(cpu.gpr[RCX]).max(1);
        let length = count * size;
        // SAFETY: guest memory at the guest's own request; a fault abandons this frame.
        unsafe {
            if count == 1 {
                // It may cross a page or overlap itself: a single load and a single store.
                copy_element(from, to, size);
            } else {
                std::ptr::copy(from as *const u8, to as *mut u8, length as usize);
            }
        }
        cpu.gpr[RSI] = from.wrapping_add(length);
        cpu.gpr[RDI] = to.wrapping_add(length);
        cpu.gpr[RCX] -= count;
        budget = budget.saturating_sub(length);
    }
    fence(Ordering::SeqCst);
    Pair(0, 0)
}

/// # Safety
/// `from` and `to` are guest addresses, `size` is 1, 2, 4 or 8.
unsafe fn copy_element(from: u64, to: u64, size: u64) {
    // SAFETY: the caller's.
    unsafe {
        match size {
            1 => (to as *mut u8).write((from as *const u8).read()),
            2 => (to as *mut u16).write_unaligned((from as *const u16).read_unaligned()),
            4 => (to as *mut u32).write_unaligned((from as *const u32).read_unaligned()),
            _ => (to as *mut u64).write_unaligned((from as *const u64).read_unaligned()),
        }
    }
}

/// Helper: REP STOS of elements of `size` bytes.
pub extern "C" fn stos(cpu: &mut CpuState, size: u64, _: u64, _: u64) -> Pair {
    fence(Ordering::SeqCst);
    let value = cpu.gpr[RAX];
    let mut budget = BUDGET;
    while cpu.gpr[RCX] != 0 && budget != 0 {
        let to = cpu.gpr[RDI];
        let bytes = to_page_end(to).min(budget);
        let count = (bytes / size).min(cpu.gpr[RCX]).max(1);
        let length = count * size;
        // SAFETY: guest memory at the guest's own request; a fault abandons this frame.
        unsafe { fill(to, value, size, count) };
        cpu.gpr[RDI] = to.wrapping_add(length);
        cpu.gpr[RCX] -= count;
        budget = budget.saturating_sub(length);
    }
    fence(Ordering::SeqCst);
    Pair(0, 0)
}

/// # Safety
/// As [`copy_element`].
unsafe fn fill(to: u64, value: u64, size: u64, count: u64) {
    let n = count as usize;
    let low = value as u8;
    // SAFETY: the caller's.
    unsafe {
        if count > 1 && value & (u64::MAX >> (64 - 8 * size)) == repeated(low, size) {
            return std::ptr::write_bytes(to as *mut u8, low, n * size as usize);
        }
        for i in 0..n {
            match size {
                1 => (to as *mut u8).add(i).write(low),
                2 => (to as *mut u16).add(i).write_unaligned(value as u16),
                4 => (to as *mut u32).add(i).write_unaligned(value as u32),
                _ => (to as *mut u64).add(i).write_unaligned(value),
            }
        }
    }
}

/// `size` times the same byte.
fn repeated(byte: u8, size: u64) -> u64 {
    u64::from_le_bytes([byte; 8]) >> (64 - 8 * size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against the definition: one element after the other.
        #[test]
        fn moves_overlap_as_defined(
            from in 0usize..600, to in 0usize..600, count in 0usize..70, log2 in 0u32..4,
        ) {
            let size = 1usize << log2;
            let fresh: Vec<u8> = (0..1200u32).map(|i| (i * 7 + i / 256) as u8).collect();
            let mut expected = fresh.clone();
            for i in 0..count {
                let element = expected[from + i * size..][..size].to_vec();
                expected[to + i * size..][..size].copy_from_slice(&element);
            }
            let mut memory = fresh;
            let base = memory.as_mut_ptr() as u64;
            let mut cpu = CpuState::new();
            cpu.gpr[RSI] = base + from as u64;
            cpu.gpr[RDI] = base + to as u64;
            cpu.gpr[RCX] = count as u64;
            movs(&mut cpu, size as u64, 0, 0);
            prop_assert_eq!(&memory, &expected);
            prop_assert_eq!(cpu.gpr[RCX], 0);
            prop_assert_eq!(cpu.gpr[RSI], base + (from + count * size) as u64);
            prop_assert_eq!(cpu.gpr[RDI], base + (to + count * size) as u64);
        }

        #[test]
        fn stores_fill(to in 0usize..100, count in 0usize..1200, log2 in 0u32..4, value: u64) {
            let size = 1usize << log2;
            for value in [value, 0] {
                let mut memory = vec![0xaau8; 10_000];
                let mut expected = memory.clone();
                for i in 0..count {
                    expected[to + i * size..][..size].copy_from_slice(&value.to_le_bytes()[..size]);
                }
                let mut cpu = CpuState::new();
                cpu.gpr[RDI] = memory.as_mut_ptr() as u64 + to as u64;
                cpu.gpr[RCX] = count as u64;
                cpu.gpr[RAX] = value;
                stos(&mut cpu, size as u64, 0, 0);
                prop_assert_eq!(&memory, &expected);
                prop_assert_eq!(cpu.gpr[RCX], 0);
            }
        }
    }
}
