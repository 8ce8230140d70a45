//! Run-time helpers of vector instructions. See [`crate::helpers`] for their contract.

use crate::helpers::Pair;
use crate::state::CpuState;

/// MASKMOVDQU: stores the bytes of a register whose mask byte has its highest bit set.
pub extern "C" fn store_masked(cpu: &mut CpuState, address: u64, registers: u64, _: u64) -> Pair {
    let value = cpu.xmm[registers as usize & 15].to_le_bytes();
    let mask = cpu.xmm[(registers >> 8) as usize & 15].to_le_bytes();
    for (i, byte) in value.into_iter().enumerate().filter(|(i, _)| mask[*i] & 0x80 != 0) {
        let at = address.wrapping_add(i as u64) as *mut u8;
        // SAFETY: the guest's own store; a fault is reported to it.
        unsafe { at.write_volatile(byte) };
    }
    Pair(0, 0)
}
