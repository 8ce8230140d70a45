//! What a process is told about itself and the machine, and prctl(2).

use crate::abi::errno;
use crate::guest;
use crate::host::SysResult;
use crate::seccomp;
use crate::table::host as nr;
use crate::task::Task;

/// getpgrp(2)
pub fn getpgrp(task: &mut Task, _: [u64; 6]) -> SysResult {
    task.host_call(nr::getpgid, [0; 6])
}

/// gettid(2), without the arguments that only the translator gives it (see [`seccomp`]).
pub fn gettid(task: &mut Task, _: [u64; 6]) -> SysResult {
    task.host_call(nr::gettid, [0; 6])
}

/// `struct new_utsname`: six strings.
const UTS_FIELD: usize = 65;
const UTS_MACHINE: usize = 4;

/// uname(2)
pub fn uname(task: &mut Task, [buf, ..]: [u64; 6]) -> SysResult {
    let mut uts = [[0u8; UTS_FIELD]; 6];
    task.host_call(nr::uname, [uts.as_mut_ptr() as u64, 0, 0, 0, 0, 0])?;
    uts[UTS_MACHINE] = machine(&uts[UTS_MACHINE]);
    guest::write(buf, &uts)?;
    Ok(0)
}

/// What x86_64 calls the machine. Under PER_LINUX32 (setarch(8)) either kernel names its 32-bit sibling.
fn machine(host: &[u8; UTS_FIELD]) -> [u8; UTS_FIELD] {
    let name: &[u8] = if host.starts_with(b"armv8") { b"i686" } else { b"x86_64" };
    let mut field = [0; UTS_FIELD];
    field[..name.len()].copy_from_slice(name);
    field
}

/// prctl(2) options that need care, by the names of linux/prctl.h.
mod option {
    pub const GET_SECCOMP: u64 = 21;
    pub const SET_SECCOMP: u64 = 22;
    pub const GET_TSC: u64 = 25;
    pub const SET_TSC: u64 = 26;
    /// Those an x86_64 kernel does not know, or knows not of: of other architectures, or about
    /// what a translator cannot offer (system call dispatch by address, MDWE, shadow stacks).
    pub const REFUSED: &[u64] = &[
        5,           // PR_GET_UNALIGN
        6,           // PR_SET_UNALIGN
        9,           // PR_GET_FPEMU
        10,          // PR_SET_FPEMU
        11,          // PR_GET_FPEXC
        12,          // PR_SET_FPEXC
        19,          // PR_GET_ENDIAN
        20,          // PR_SET_ENDIAN
        43,          // PR_MPX_ENABLE_MANAGEMENT
        44,          // PR_MPX_DISABLE_MANAGEMENT
        45,          // PR_SET_FP_MODE
        46,          // PR_GET_FP_MODE
        50,          // PR_SVE_SET_VL
        51,          // PR_SVE_GET_VL
        54,          // PR_PAC_RESET_KEYS
        55,          // PR_SET_TAGGED_ADDR_CTRL
        56,          // PR_GET_TAGGED_ADDR_CTRL
        59,          // PR_SET_SYSCALL_USER_DISPATCH
        60,          // PR_PAC_SET_ENABLED_KEYS
        61,          // PR_PAC_GET_ENABLED_KEYS
        63,          // PR_SME_SET_VL
        64,          // PR_SME_GET_VL
        65,          // PR_SET_MDWE
        66,          // PR_GET_MDWE
        69,          // PR_RISCV_V_SET_CONTROL
        70,          // PR_RISCV_V_GET_CONTROL
        71,          // PR_RISCV_SET_ICACHE_FLUSH_CTX
        72,          // PR_PPC_GET_DEXCR
        73,          // PR_PPC_SET_DEXCR
        74,          // PR_GET_SHADOW_STACK_STATUS
        75,          // PR_SET_SHADOW_STACK_STATUS
        76,          // PR_LOCK_SHADOW_STACK_STATUS
        79,          // PR_RSEQ_SLICE_EXTENSION
        0x4155_5856, // PR_GET_AUXV
        0x4d4d_444c, // PR_SET_MEM_MODEL
        0x6d4d_444c, // PR_GET_MEM_MODEL
    ];
}

/// The time stamp counter may be read (linux/prctl.h, PR_TSC_ENABLE).
const TSC_ENABLE: u32 = 1;

/// prctl(2)
pub fn prctl(task: &mut Task, args: [u64; 6]) -> SysResult {
    match args[0] {
        option::GET_SECCOMP => seccomp::get_by_prctl(task),
        option::SET_SECCOMP => seccomp::set_by_prctl(task, args[1], args[2]),
        option::GET_TSC => guest::write(args[1], &TSC_ENABLE).map(|()| 0),
        option::SET_TSC if args[1] == u64::from(TSC_ENABLE) => Ok(0),
        option::SET_TSC => Err(errno::EINVAL),
        refused if option::REFUSED.contains(&refused) => Err(errno::EINVAL),
        _ => task.host_call(nr::prctl, args),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_x86() {
        let field = |name: &[u8]| {
            let mut field = [0; UTS_FIELD];
            field[..name.len()].copy_from_slice(name);
            field
        };
        assert_eq!(machine(&field(b"aarch64")), field(b"x86_64"));
        assert_eq!(machine(&field(b"armv8l")), field(b"i686"));
    }

    #[test]
    fn options_of_other_architectures_are_refused() {
        let mut task = Task::for_test();
        assert_eq!(prctl(&mut task, [50, 0, 0, 0, 0, 0]), Err(errno::EINVAL));
        let mut mode = 0u32;
        let addr = &raw mut mode as u64;
        assert_eq!(prctl(&mut task, [option::GET_TSC, addr, 0, 0, 0, 0]), Ok(0));
        assert_eq!(mode, TSC_ENABLE);
    }
}
