//! Guest memory as run-time helpers access it.

use std::sync::atomic::{AtomicU8, Ordering};

/// Writes to guest memory. A fault abandons the caller, which has changed nothing yet.
pub fn write<const N: usize>(address: u64, image: &[u8; N]) {
    let p = address as *mut u8;
    // SAFETY: a guest address is the same host address; the guest's fault handling answers for
    // what is not mapped, and nothing of ours lies where the guest has memory.
    unsafe {
        // Both pages fault before either changes.
        for end in [p, p.wrapping_add(N - 1)] {
            AtomicU8::from_ptr(end).fetch_or(0, Ordering::Relaxed);
        }
        p.cast::<[u8; N]>().write_unaligned(*image);
    }
}

/// Reads guest memory, see [`write`].
pub fn read<const N: usize>(address: u64) -> [u8; N] {
    // SAFETY: as in `write`.
    unsafe { (address as *const [u8; N]).read_unaligned() }
}
