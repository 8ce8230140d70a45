//! prctl(2): most options are the host's. The others are those that concern what the translator emulates, and those
//! of the host's architecture, which an x86_64 kernel does not know.

use crate::abi::{errno, layout};
use crate::guest;
use crate::host::SysResult;
use crate::memory::write_exec;
use crate::seccomp;
use crate::table::host as nr;
use crate::task::Task;
use crate::user_dispatch;
use crate::{personality, process};

/// Options by the names of linux/prctl.h.
mod option {
    pub const GET_SECCOMP: u64 = 21;
    pub const SET_SECCOMP: u64 = 22;
    pub const GET_TSC: u64 = 25;
    pub const SET_TSC: u64 = 26;
    pub const SET_MM: u64 = 35;
    pub const SET_SYSCALL_USER_DISPATCH: u64 = 59;
    pub const SET_MDWE: u64 = 65;
    pub const GET_MDWE: u64 = 66;
    pub const GET_AUXV: u64 = 0x4155_5856;
    /// Those an x86_64 kernel does not know, or knows not of: of other architectures, or about
    /// what a translator cannot offer (shadow stacks).
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
        60,          // PR_PAC_SET_ENABLED_KEYS
        61,          // PR_PAC_GET_ENABLED_KEYS
        63,          // PR_SME_SET_VL
        64,          // PR_SME_GET_VL
        69,          // PR_RISCV_V_SET_CONTROL
        70,          // PR_RISCV_V_GET_CONTROL
        71,          // PR_RISCV_SET_ICACHE_FLUSH_CTX
        72,          // PR_PPC_GET_DEXCR
        73,          // PR_PPC_SET_DEXCR
        74,          // PR_GET_SHADOW_STACK_STATUS
        75,          // PR_SET_SHADOW_STACK_STATUS
        76,          // PR_LOCK_SHADOW_STACK_STATUS
        79,          // PR_RSEQ_SLICE_EXTENSION
        0x4d4d_444c, // PR_SET_MEM_MODEL
        0x6d4d_444c, // PR_GET_MEM_MODEL
    ];
}

/// PR_TSC_ENABLE and PR_TSC_SIGSEGV: whether the time stamp counter may be read (linux/prctl.h).
const TSC: [u32; 2] = [1, 2];

/// prctl(2)
pub fn prctl(task: &mut Task, args: [u64; 6]) -> SysResult {
    let [which, arg, ..] = args;
    match which {
        option::GET_SECCOMP => seccomp::get_by_prctl(task),
        option::SET_SECCOMP => seccomp::set_by_prctl(task, arg, args[2]),
        option::GET_TSC => guest::write(arg, &TSC[task.cpu.no_tsc as usize]).map(|()| 0),
        option::SET_TSC => set_tsc(task, arg),
        option::SET_SYSCALL_USER_DISPATCH => {
            user_dispatch::set(task, [arg, args[2], args[3], args[4]])
        }
        option::SET_MDWE if args[2..5] != [0; 3] => Err(errno::EINVAL),
        option::SET_MDWE => write_exec::set(arg).map(|()| 0),
        option::GET_MDWE if args[1..5] != [0; 4] => Err(errno::EINVAL),
        option::GET_MDWE => Ok(write_exec::get().into()),
        option::SET_MM => set_mm(task, args),
        option::GET_AUXV => get_auxv(task, args),
        refused if option::REFUSED.contains(&refused) => Err(errno::EINVAL),
        _ => task.host_call(nr::prctl, args),
    }
}

/// PR_SET_TSC
fn set_tsc(task: &mut Task, mode: u64) -> SysResult {
    let mode = TSC.iter().position(|&known| known == mode as u32).ok_or(errno::EINVAL)?;
    personality::set_tsc(task, mode != 0);
    Ok(0)
}

/// PR_GET_AUXV: as much of the vector as there is room for; all of its length.
fn get_auxv(task: &Task, [_, to, size, unused @ ..]: [u64; 6]) -> SysResult {
    let auxv = &task.runtime().image.auxv;
    if unused[0] | unused[1] != 0 {
        return Err(errno::EINVAL);
    }
    guest::write_bytes(to, &auxv[..auxv.len().min(size as usize)])?;
    Ok(auxv.len() as u64)
}

/// `struct prctl_mm_map`, of which two words are the translator's own.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct MemoryMap {
    code_and_data: [u64; 4],
    start_brk: u64,
    brk: u64,
    others: [u64; 5],
    auxv: u64,
    auxv_size_and_exe: u64,
}
layout!(MemoryMap, 104, start_brk @ 32, brk @ 40, auxv @ 88);

/// PR_SET_MM: what /proc says of the process. The addresses are the guest's and the host's alike, but for the program
/// break, which is the translator's for the kernel.
fn set_mm(task: &mut Task, args: [u64; 6]) -> SysResult {
    const START_BRK: u64 = 6;
    const BRK: u64 = 7;
    const EXE_FILE: u64 = 13;
    const MAP: u64 = 14;
    let [_, which, arg, size, ..] = args;
    match which {
        START_BRK | BRK => {
            // Who may not is told by the kernel, without effect: the address is none.
            match task.host_call(nr::prctl, [args[0], which, 0, 0, 0, 0]) {
                Err(errno::EPERM) => Err(errno::EPERM),
                _ => Err(errno::EINVAL),
            }
        }
        MAP if size == size_of::<MemoryMap>() as u64 => {
            let mut map = guest::read::<MemoryMap>(arg)?;
            map.auxv = guest::for_kernel(map.auxv);
            (map.start_brk, map.brk) = process::host_break().ok_or(errno::EINVAL)?;
            task.host_call(nr::prctl, [args[0], which, &raw const map as u64, size, 0, args[5]])
        }
        // The file it is to the kernel is of the translator's choice.
        EXE_FILE => Err(errno::EBUSY),
        _ => task.host_call(nr::prctl, args),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_other_architectures_are_refused() {
        let mut task = Task::for_test();
        assert_eq!(prctl(&mut task, [50, 0, 0, 0, 0, 0]), Err(errno::EINVAL));
    }

    #[test]
    fn the_time_stamp_counter_may_be_read_or_not() {
        let mut task = Task::for_test();
        let mut mode = 0u32;
        let addr = &raw mut mode as u64;
        for (set, answer, wanted) in
            [(1, Ok(0), 1), (2, Ok(0), 2), (3, Err(errno::EINVAL), 2), (0, Err(errno::EINVAL), 2)]
        {
            assert_eq!(prctl(&mut task, [option::SET_TSC, set, 0, 0, 0, 0]), answer);
            assert_eq!(prctl(&mut task, [option::GET_TSC, addr, 0, 0, 0, 0]), Ok(0));
            assert_eq!(mode, wanted);
        }
        assert_eq!(task.cpu.no_tsc, 1);
    }
}
