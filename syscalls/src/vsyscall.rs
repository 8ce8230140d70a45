//! The vsyscall page, as with `vsyscall=xonly`: nothing can be read there, and a call of one of its three functions
//! is a system call (arch/x86/entry/vsyscall/vsyscall_64.c).

use translator::state::reg;

use crate::abi::errno;
use crate::host::Errno;
use crate::interrupt::SigInfo;
use crate::table::{self, guest as nr};
use crate::task::Task;
use crate::{guest, seccomp, signal};

/// VSYSCALL_ADDR.
const START: u64 = 0xffff_ffff_ff60_0000;

/// The line of `/proc/self/maps`.
pub const MAPS_LINE: &str =
    "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]\n";

/// The system call whose function is at an address.
fn function(addr: u64) -> Option<u64> {
    match addr.checked_sub(START)? {
        0 => Some(nr::gettimeofday),
        0x400 => Some(nr::time),
        0x800 => Some(nr::getcpu),
        _ => None,
    }
}

/// Carries out a call that led to the page, if the fault is one.
pub(crate) fn call(task: &mut Task) -> bool {
    const SI_KERNEL: i32 = 0x80;
    let fault = task.cpu.fault;
    let Some(number) = function(task.cpu.rip).filter(|_| fault.addr == task.cpu.rip) else {
        return false;
    };
    let g = &task.cpu.gpr;
    let sp = g[reg::RSP];
    let mut args = [g[reg::RDI], g[reg::RSI], g[reg::RDX], g[10], g[8], g[9]];
    let Ok(caller) = guest::read::<u64>(sp) else {
        signal::force(task, &SigInfo::new(signal::SIGSEGV, SI_KERNEL));
        return true;
    };
    if !task.seccomp.is_on() || seccomp::admits(task, number, args) {
        if number == nr::getcpu {
            args[2] = 0;
        }
        match table::dispatch(task, number, args) {
            // The call is made again, after the signal.
            Err(Errno::RESTART) => return true,
            Err(errno::EFAULT) => {
                signal::force(task, &SigInfo::new(signal::SIGSEGV, SI_KERNEL));
                return true;
            }
            result => task.end_call(result),
        }
    }
    // A handler of SIGSYS returns to the caller as well: what it was entered with is that.
    if task.cpu.rip == fault.addr {
        task.cpu.rip = caller;
        task.cpu.gpr[reg::RSP] = sp.wrapping_add(8);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_functions() {
        assert_eq!(function(START), Some(96));
        assert_eq!(function(START + 0x400), Some(201));
        assert_eq!(function(START + 0x800), Some(309));
        for other in [START + 0xc00, START + 1, START - 0x400, START + 0x1000, 0] {
            assert_eq!(function(other), None, "{other:#x}");
        }
    }
}
