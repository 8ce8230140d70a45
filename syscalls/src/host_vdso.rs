//! The host kernel's vDSO, by which time is told without a system call (vdso(7)).

use crate::abi::time::Timespec;
use goblin::elf::Elf;
use std::sync::OnceLock;

type ClockGetTime = unsafe extern "C" fn(clock: i32, now: *mut Timespec) -> i32;

/// What a clock says, or why it does not (a negated errno); None without a vDSO, where the kernel must be asked.
pub fn clock_gettime(clock: i32) -> Option<Result<Timespec, i32>> {
    static FUNCTION: OnceLock<Option<ClockGetTime>> = OnceLock::new();
    let function = (*FUNCTION.get_or_init(find))?;
    let mut now = Timespec::default();
    // SAFETY: the kernel's function, called as vdso(7) says, with a place for the answer.
    match unsafe { function(clock, &mut now) } {
        0 => Some(Ok(now)),
        error => Some(Err(error)),
    }
}

fn find() -> Option<ClockGetTime> {
    // SAFETY: reads the auxiliary vector.
    let base = unsafe { libc::getauxval(libc::AT_SYSINFO_EHDR) };
    if base == 0 || !cfg!(target_arch = "aarch64") {
        return None;
    }
    // The image ends with its section headers: e_shoff, e_shentsize and e_shnum of Elf64_Ehdr.
    // SAFETY: the vDSO is a whole ELF image, which the kernel has mapped for the process's lifetime.
    let image = unsafe {
        let header = std::slice::from_raw_parts(base as *const u8, 64);
        let half = |at: usize| usize::from(u16::from_le_bytes([header[at], header[at + 1]]));
        let sections = u64::from_le_bytes(header[40..48].try_into().ok()?) as usize;
        std::slice::from_raw_parts(base as *const u8, sections + half(58) * half(60))
    };
    let elf = Elf::parse(image).ok()?;
    let loaded =
        elf.program_headers.iter().find(|h| h.p_type == goblin::elf::program_header::PT_LOAD)?;
    let name = "__kernel_clock_gettime";
    let symbol = elf.dynsyms.iter().find(|s| elf.dynstrtab.get_at(s.st_name) == Some(name))?;
    let address = base.wrapping_add(symbol.st_value).wrapping_sub(loaded.p_vaddr);
    // SAFETY: the kernel gives this function that signature.
    Some(unsafe { std::mem::transmute::<u64, ClockGetTime>(address) })
}

#[cfg(all(test, target_arch = "aarch64"))]
mod tests {
    use super::*;

    #[test]
    fn it_tells_the_kernels_time() {
        let asked = || {
            let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            // SAFETY: a valid place. The system call, not the C library's function.
            unsafe { libc::syscall(libc::SYS_clock_gettime, libc::CLOCK_MONOTONIC, &raw mut now) };
            Timespec { sec: now.tv_sec, nsec: now.tv_nsec }
        };
        let (before, told, after) =
            (asked(), clock_gettime(libc::CLOCK_MONOTONIC).expect("a vDSO"), asked());
        let order = |time: Timespec| (time.sec, time.nsec);
        assert!((order(before)..=order(after)).contains(&order(told.unwrap())));
        assert_eq!(clock_gettime(1000), Some(Err(-libc::EINVAL)));
    }
}
