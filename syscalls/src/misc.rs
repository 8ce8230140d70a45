//! System calls of the x86 machine, and small ones that the kernel must not make for the guest.

use crate::guest;
use crate::host::{Errno, SysResult};
use crate::memory::ADDRESS_LIMIT;
use crate::task::Task;

/// arch_prctl(2): FS and GS bases live in the processor's state.
pub fn arch_prctl(task: &mut Task, [code, addr, ..]: [u64; 6]) -> SysResult {
    const ARCH_SET_GS: u64 = 0x1001;
    const ARCH_SET_FS: u64 = 0x1002;
    const ARCH_GET_FS: u64 = 0x1003;
    const ARCH_GET_GS: u64 = 0x1004;
    const ARCH_GET_CPUID: u64 = 0x1011;
    const ARCH_SET_CPUID: u64 = 0x1012;
    match code {
        ARCH_SET_GS | ARCH_SET_FS if addr >= ADDRESS_LIMIT => Err(Errno(libc::EPERM)),
        ARCH_SET_GS => {
            task.cpu.set_gs_base(addr);
            Ok(0)
        }
        ARCH_SET_FS => {
            task.cpu.set_fs_base(addr);
            Ok(0)
        }
        ARCH_GET_FS => guest::write(addr, &task.cpu.fs_base).map(|()| 0),
        ARCH_GET_GS => guest::write(addr, &task.cpu.gs_base).map(|()| 0),
        // CPUID is enabled and cannot be made to fault.
        ARCH_GET_CPUID => Ok(1),
        ARCH_SET_CPUID => Err(Errno(libc::ENODEV)),
        _ => Err(Errno(libc::EINVAL)),
    }
}
