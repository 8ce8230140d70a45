//! The guest's memory as system calls see it: every access is checked, a bad address is EFAULT.
//!
//! A guest address is the same host address, so an access is a copy, made by one routine of
//! known extent. When it faults, the host's SIGSEGV and SIGBUS handlers ask [`fixup`] where to go on.

use std::ffi::CString;
use std::mem::{MaybeUninit, size_of};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::abi::errno;
use crate::host::Errno;

/// First address that no guest can have: that of x86_64 with four-level paging, or less where the translator itself is
/// below that.
static END: AtomicU64 = AtomicU64::new(1 << 47);

/// Says where the translator begins, before the guest runs.
pub(crate) fn ends_at(end: u64) {
    END.store(end, Ordering::Relaxed);
}

fn end_of_guest() -> u64 {
    END.load(Ordering::Relaxed)
}

/// Size of a guest page; a host page is as large or larger.
const PAGE: u64 = 4096;

/// An address that the kernel refuses to every program: on arm64 it is the kernel's own.
pub const NOWHERE: u64 = 0xffff_8000_0000_0000;

/// An address of the guest's as the host's kernel gets it. What no guest can have becomes an address that no program
/// can have, for between the two lies the translator's memory, and arm64 ignores the top byte of some: the kernel then
/// says EFAULT where, and only where, it would have looked there.
pub fn for_kernel(addr: u64) -> u64 {
    if addr < end_of_guest() { addr } else { addr | !0 << 48 }
}

/// The same for memory of `len` bytes, of which the last may be the translator's.
pub fn range_for_kernel(addr: u64, len: u64) -> u64 {
    let limit = end_of_guest();
    match addr.checked_add(len) {
        Some(end) if addr < limit && end <= limit => addr,
        _ => addr | NOWHERE,
    }
}

/// Types that are any bytes: no padding, no invalid values.
///
/// # Safety
/// Every bit pattern must be a value, and the type must have no padding.
pub unsafe trait Pod: Copy + 'static {}

macro_rules! pod { ($($ty:ty),*) => { $(
    // SAFETY: an integer.
    unsafe impl Pod for $ty {}
)* } }
pod!(u8, i8, u16, i16, u32, i32, u64, i64);

// SAFETY: an array has no padding of its own.
unsafe impl<T: Pod, const N: usize> Pod for [T; N] {}

/// Reads a value.
pub fn read<T: Pod>(addr: u64) -> Result<T, Errno> {
    let mut value = MaybeUninit::<T>::uninit();
    check(addr, size_of::<T>())?;
    // SAFETY: the destination is `value`; the source is checked and its faults are caught.
    unsafe { copy(value.as_mut_ptr().cast(), addr as *const u8, size_of::<T>())? };
    // SAFETY: the copy filled it, and any bytes are a value.
    Ok(unsafe { value.assume_init() })
}

/// Writes a value.
pub fn write<T: Pod>(addr: u64, value: &T) -> Result<(), Errno> {
    check(addr, size_of::<T>())?;
    // SAFETY: the source is `value`, without padding; the destination is checked and its faults are caught.
    unsafe { copy(addr as *mut u8, (&raw const *value).cast(), size_of::<T>()) }
}

/// Reads a value behind a pointer that may be null.
pub fn read_opt<T: Pod>(addr: u64) -> Result<Option<T>, Errno> {
    if addr == 0 { Ok(None) } else { read(addr).map(Some) }
}

/// Fills `bytes` from the guest's memory.
pub fn read_bytes(addr: u64, bytes: &mut [u8]) -> Result<(), Errno> {
    check(addr, bytes.len())?;
    // SAFETY: the destination is a slice; the source is checked and its faults are caught.
    unsafe { copy(bytes.as_mut_ptr(), addr as *const u8, bytes.len()) }
}

/// Fills a slice of values from the guest's memory.
pub fn read_all<T: Pod>(addr: u64, values: &mut [T]) -> Result<(), Errno> {
    let len = size_of_val(values);
    check(addr, len)?;
    // SAFETY: the destination is a slice of values that may be any bytes; the source is checked, its faults are caught.
    unsafe { copy(values.as_mut_ptr().cast(), addr as *const u8, len) }
}

/// Writes bytes to the guest's memory.
pub fn write_bytes(addr: u64, bytes: &[u8]) -> Result<(), Errno> {
    check(addr, bytes.len())?;
    // SAFETY: the source is a slice; the destination is checked and its faults are caught.
    unsafe { copy(addr as *mut u8, bytes.as_ptr(), bytes.len()) }
}

/// Reads a null-terminated string of less than `max` bytes; E2BIG if it is longer.
pub fn read_cstr(addr: u64, max: usize) -> Result<CString, Errno> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 256];
    while bytes.len() < max {
        let at = addr.checked_add(bytes.len() as u64).ok_or(errno::EFAULT)?;
        // Not across a page's end, where the string may end as well.
        let room = chunk.len().min((PAGE - at % PAGE) as usize).min(max - bytes.len());
        read_bytes(at, &mut chunk[..room])?;
        if let Some(end) = chunk[..room].iter().position(|&byte| byte == 0) {
            bytes.extend_from_slice(&chunk[..end]);
            return CString::new(bytes).map_err(|_| errno::EINVAL);
        }
        bytes.extend_from_slice(&chunk[..room]);
    }
    Err(errno::E2BIG)
}

/// Whether the string at `addr` begins with `prefix`. Unreadable memory does not.
pub fn starts_with(addr: u64, prefix: &[u8]) -> bool {
    prefix.iter().zip(addr..).all(|(&byte, at)| read::<u8>(at) == Ok(byte))
}

fn check(addr: u64, len: usize) -> Result<(), Errno> {
    match addr.checked_add(len as u64) {
        Some(end) if end <= end_of_guest() => Ok(()),
        _ => Err(errno::EFAULT),
    }
}

/// # Safety
/// One side must be the translator's memory of that length, the other is the guest's.
unsafe fn copy(to: *mut u8, from: *const u8, len: usize) -> Result<(), Errno> {
    // SAFETY: the caller's contract.
    match unsafe { routine::demotic_guest_copy(to, from, len) } {
        0 => Ok(()),
        _ => Err(errno::EFAULT),
    }
}

/// If a fault at host address `pc` was the copy routine's, the address to go on at: the copy then
/// fails with EFAULT. For signal handlers.
pub fn fixup(pc: u64) -> Option<u64> {
    routine::fixup(pc)
}

#[cfg(target_arch = "aarch64")]
mod routine {
    // Copies 64, 16, 8, 4, 2 and 1 bytes at a time, so that an aligned scalar is one access.
    // It has no frame: at a fault the return address is still in x30.
    core::arch::global_asm!(
        ".pushsection .text.demotic_guest_copy, \"ax\", @progbits",
        ".p2align 4",
        ".global demotic_guest_copy, demotic_guest_copy_end, demotic_guest_copy_fault",
        "demotic_guest_copy:",
        "  subs x2, x2, #64",
        "  b.lo 7f",
        "0: ldp q0, q1, [x1], #32",
        "  ldp q2, q3, [x1], #32",
        "  stp q0, q1, [x0], #32",
        "  stp q2, q3, [x0], #32",
        "  subs x2, x2, #64",
        "  b.hs 0b",
        // What is left, less 16.
        "7: adds x2, x2, #48",
        "  b.lo 2f",
        "1: ldp x3, x4, [x1], #16",
        "  stp x3, x4, [x0], #16",
        "  subs x2, x2, #16",
        "  b.hs 1b",
        // The low four bits of x2 are what is left.
        "2: tbz x2, #3, 3f",
        "  ldr x3, [x1], #8",
        "  str x3, [x0], #8",
        "3: tbz x2, #2, 4f",
        "  ldr w3, [x1], #4",
        "  str w3, [x0], #4",
        "4: tbz x2, #1, 5f",
        "  ldrh w3, [x1], #2",
        "  strh w3, [x0], #2",
        "5: tbz x2, #0, 6f",
        "  ldrb w3, [x1]",
        "  strb w3, [x0]",
        "6: mov w0, #0",
        "  ret",
        "demotic_guest_copy_end:",
        "demotic_guest_copy_fault:",
        "  mov w0, #1",
        "  ret",
        ".popsection",
    );

    unsafe extern "C" {
        pub fn demotic_guest_copy(to: *mut u8, from: *const u8, len: usize) -> u32;
        static demotic_guest_copy_end: u8;
        static demotic_guest_copy_fault: u8;
    }

    pub fn fixup(pc: u64) -> Option<u64> {
        let start = demotic_guest_copy as *const () as u64;
        let end = &raw const demotic_guest_copy_end as u64;
        let fault = &raw const demotic_guest_copy_fault as u64;
        (start..end).contains(&pc).then_some(fault)
    }
}

/// Elsewhere there is no guest; the unit tests use their own memory.
#[cfg(not(target_arch = "aarch64"))]
mod routine {
    pub unsafe fn demotic_guest_copy(to: *mut u8, from: *const u8, len: usize) -> u32 {
        // SAFETY: the caller's contract, and no test passes a wild pointer.
        unsafe { std::ptr::copy(from, to, len) };
        0
    }

    pub fn fixup(_pc: u64) -> Option<u64> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const END: u64 = 1 << 47;

    #[test]
    fn strings_end_at_their_null() {
        let text = b"/usr/bin\0rest";
        let addr = text.as_ptr() as u64;
        assert_eq!(read_cstr(addr, 4096).unwrap().as_bytes(), b"/usr/bin");
        assert_eq!(read_cstr(addr, 8), Err(errno::E2BIG));
        assert!(starts_with(addr, b"/usr"));
        assert!(!starts_with(addr, b"/proc"));
    }

    #[test]
    fn long_strings_come_in_pieces() {
        let mut text = vec![b'x'; 10_000];
        text.push(0);
        assert_eq!(read_cstr(text.as_ptr() as u64, 20_000).unwrap().as_bytes().len(), 10_000);
    }

    #[test]
    fn every_length_is_copied_exactly() {
        let from: Vec<u8> = (1..=200).collect();
        for len in 0..=from.len() {
            let mut to = vec![0; 210];
            write_bytes(to.as_mut_ptr() as u64, &from[..len]).unwrap();
            assert_eq!(to[..len], from[..len]);
            assert!(to[len..].iter().all(|&byte| byte == 0));
        }
    }

    #[test]
    fn the_kernel_gets_no_address_of_the_translators() {
        for addr in [0, 1, 0x7fff_ffff_f000, END - 1, NOWHERE, u64::MAX] {
            assert_eq!(for_kernel(addr), addr);
        }
        for addr in [END, 0xaaaa_0000_1000, END << 1, 0x00ff << 48 | 5, 1 << 63 | 5] {
            assert!(for_kernel(addr) >= 0xffff << 48, "{addr:#x}");
        }
        assert_eq!(range_for_kernel(END - 8, 8), END - 8);
        for (addr, len) in [(END - 8, 9), (5, u64::MAX), (END, 0), (5, END)] {
            assert!(range_for_kernel(addr, len) >= 0xffff << 48, "{addr:#x} {len:#x}");
        }
    }

    #[test]
    fn addresses_no_guest_has_are_bad() {
        assert_eq!(read::<u64>(END - 4), Err(errno::EFAULT));
        assert_eq!(read::<u8>(u64::MAX), Err(errno::EFAULT));
        assert_eq!(write(END, &0u8), Err(errno::EFAULT));
    }
}
