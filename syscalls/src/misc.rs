//! System calls of the x86 machine, and small ones that the kernel must not make for the guest.

use translator::cpuid::XCR0;

use crate::abi::errno;
use crate::guest;
use crate::host::SysResult;
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
    const ARCH_GET_XCOMP_SUPP: u64 = 0x1021;
    const ARCH_GET_XCOMP_PERM: u64 = 0x1022;
    const ARCH_REQ_XCOMP_PERM: u64 = 0x1023;
    const ARCH_GET_XCOMP_GUEST_PERM: u64 = 0x1024;
    const ARCH_REQ_XCOMP_GUEST_PERM: u64 = 0x1025;
    const ARCH_MAP_VDSO_64: u64 = 0x2003;
    /// State components with a number below this may be asked for (xstate_prctl_req).
    const XCOMP_REQUESTS: u64 = 20;
    match code {
        ARCH_SET_GS | ARCH_SET_FS if addr >= ADDRESS_LIMIT => Err(errno::EPERM),
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
        ARCH_SET_CPUID => Err(errno::ENODEV),
        // The state that XCR0 enables, all of it from the start.
        ARCH_GET_XCOMP_SUPP | ARCH_GET_XCOMP_PERM | ARCH_GET_XCOMP_GUEST_PERM => {
            guest::write(addr, &XCR0).map(|()| 0)
        }
        ARCH_REQ_XCOMP_PERM | ARCH_REQ_XCOMP_GUEST_PERM if addr < XCOMP_REQUESTS => {
            Err(errno::EOPNOTSUPP)
        }
        // It is there already.
        ARCH_MAP_VDSO_64 => Err(errno::EEXIST),
        // Shadow stacks and masked addresses: as without CONFIG_X86_USER_SHADOW_STACK and CONFIG_ADDRESS_MASKING.
        _ => Err(errno::EINVAL),
    }
}
