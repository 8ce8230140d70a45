//! seccomp(2): strict mode, and filters of the guest's system calls. They see x86_64's numbers, the guest's registers
//! and its instruction pointer, so they are run here, on every call the guest makes; what only a kernel can do is
//! the host's ([`mirror`]).

pub mod bpf;
mod filter;
pub(crate) mod handover;
mod mirror;
pub mod notify;
pub(crate) mod threads;

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::abi::errno;
use crate::guest;
use crate::host::{self, Errno, SysResult};
use crate::interrupt::SigInfo;
use crate::table::{guest as number, host as nr, lookup};
use crate::task::Task;
use crate::{log, signal, strace, thread};
use bpf::{Data, Program};
use filter::{Filter, Verdict};
use mirror::Deed;
use threads::{DISABLED, STRICT};

/// AUDIT_ARCH_X86_64.
pub(crate) const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;

/// Flags of SECCOMP_SET_MODE_FILTER.
mod flag {
    pub const TSYNC: u64 = 1 << 0;
    pub const LOG: u64 = 1 << 1;
    pub const NEW_LISTENER: u64 = 1 << 3;
    pub const TSYNC_ESRCH: u64 = 1 << 4;
    pub const WAIT_KILLABLE_RECV: u64 = 1 << 5;
    /// Those, and SECCOMP_FILTER_FLAG_SPEC_ALLOW.
    pub const ALL: u64 = (1 << 6) - 1;
}

/// seccomp(2)
pub fn seccomp(task: &mut Task, [operation, flags, args, ..]: [u64; 6]) -> SysResult {
    const SET_MODE_STRICT: u64 = 0;
    const SET_MODE_FILTER: u64 = 1;
    const GET_ACTION_AVAIL: u64 = 2;
    const GET_NOTIF_SIZES: u64 = 3;
    match operation {
        SET_MODE_STRICT if flags != 0 || args != 0 => Err(errno::EINVAL),
        SET_MODE_STRICT => set_strict(task),
        SET_MODE_FILTER => set_filter(task, flags, args),
        GET_ACTION_AVAIL | GET_NOTIF_SIZES if flags != 0 => Err(errno::EINVAL),
        GET_ACTION_AVAIL => match guest::read::<u32>(args)? {
            action if Verdict::ACTIONS.contains(&action) => Ok(0),
            _ => Err(errno::EOPNOTSUPP),
        },
        GET_NOTIF_SIZES => guest::write(args, &notify::SIZES).map(|()| 0),
        _ => Err(errno::EINVAL),
    }
}

/// prctl(PR_SET_SECCOMP)
pub fn set_by_prctl(task: &mut Task, mode: u64, args: u64) -> SysResult {
    match mode {
        1 => set_strict(task),
        2 => match set_filter(task, 0, args) {
            // A kernel without filters.
            Err(errno::ENOSYS) => Err(errno::EINVAL),
            result => result,
        },
        _ => Err(errno::EINVAL),
    }
}

/// prctl(PR_GET_SECCOMP). Filters of the host that the guest did not install count as well.
pub fn get_by_prctl(task: &Task) -> SysResult {
    match task.seccomp.mode() {
        DISABLED => Ok(host_mode()),
        mode => Ok(mode.into()),
    }
}

fn host_mode() -> u64 {
    const PR_GET_SECCOMP: u64 = 21;
    // SAFETY: prctl(2) with integers.
    host::result(unsafe { host::syscall(nr::prctl, [PR_GET_SECCOMP, 0, 0, 0, 0, 0]) }).unwrap_or(0)
}

fn set_strict(task: &Task) -> SysResult {
    if get_by_prctl(task)? == u64::from(threads::FILTER) {
        return Err(errno::EINVAL);
    }
    task.seccomp.set_strict();
    Ok(0)
}

/// seccomp_set_mode_filter in kernel/seccomp.c.
fn set_filter(task: &mut Task, flags: u64, args: u64) -> SysResult {
    let has = |bit| flags & bit != 0;
    if flags & !flag::ALL != 0
        || has(flag::TSYNC) && has(flag::NEW_LISTENER) && !has(flag::TSYNC_ESRCH)
        || has(flag::WAIT_KILLABLE_RECV) && !has(flag::NEW_LISTENER)
    {
        return Err(errno::EINVAL);
    }
    let (length, first) = filter::read_listing(args)?;
    may_filter()?;
    if first == 0 {
        // bpf_check_basics_ok
        return Err(errno::EINVAL);
    }
    let program = Program::new(filter::read_program(length, first)?)?;
    let without_kernel = !task.runtime().options.runner.is_empty();
    if without_kernel && has(flag::NEW_LISTENER) {
        // The emulator that runs us has no listeners.
        return Err(errno::EINVAL);
    }
    let all = threads::hold();
    if task.seccomp.mode() == STRICT {
        return Err(errno::EINVAL);
    }
    let filter = Filter::new(
        program,
        Filter::flags(has(flag::NEW_LISTENER), has(flag::LOG)),
        task.seccomp.filter(),
    )?;
    if let Some(tid) = all.unlike(&task.seccomp).filter(|_| has(flag::TSYNC)) {
        return if has(flag::TSYNC_ESRCH) { Err(errno::ESRCH) } else { Ok(tid as u64) };
    }
    let result = if without_kernel {
        0
    } else {
        mirror::install(&mirror::digest(&filter.to_bytes()), filter.has_listener(), flags)?
    };
    // A thread that the kernel could not synchronise; none was.
    if has(flag::TSYNC) && !has(flag::NEW_LISTENER) && result != 0 {
        return Ok(result);
    }
    all.set(&task.seccomp, &Arc::new(filter), has(flag::TSYNC));
    Ok(result)
}

/// EACCES without no_new_privs or CAP_SYS_ADMIN.
fn may_filter() -> Result<(), Errno> {
    const PR_GET_NO_NEW_PRIVS: u64 = 39;
    const VERSION_3: u64 = 0x2008_0522;
    const CAP_SYS_ADMIN: u32 = 21;
    let (head, mut sets) = ([VERSION_3, 0], [[0u32; 3]; 2]);
    // SAFETY: prctl(2) with integers; capget(2) reads one structure and writes two of three words.
    let (no_new_privs, known) = unsafe {
        (
            host::syscall(nr::prctl, [PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0, 0]) == 1,
            host::syscall(nr::capget, [head.as_ptr() as u64, sets.as_mut_ptr() as u64, 0, 0, 0, 0])
                == 0,
        )
    };
    let [effective, ..] = sets[0];
    if no_new_privs || known && effective >> CAP_SYS_ADMIN & 1 != 0 {
        return Ok(());
    }
    Err(errno::EACCES)
}

/// Whether a system call that the guest makes is to be carried out. If not, its result is in RAX, or the thread has
/// a signal, or is no more. `args` are the registers as they are.
pub(crate) fn admits(task: &mut Task, call: u64, args: [u64; 6]) -> bool {
    let nr = call as i32;
    if made_by_vdso(task, nr, &args) {
        return true;
    }
    if task.seccomp.mode() == STRICT {
        let allowed = [number::read, number::write, number::exit, number::rt_sigreturn];
        return allowed.contains(&(nr as u64)) || kill_thread(task, libc::SIGKILL);
    }
    let Some(filter) = task.seccomp.filter() else { return true };
    let data = Data { nr, arch: AUDIT_ARCH_X86_64, instruction_pointer: task.cpu.rip, args };
    let (verdict, by) = filter.judge(&data);
    if by.logs(verdict) {
        log_once(nr);
    }
    match verdict.kind() {
        Verdict::ALLOW | Verdict::LOG => true,
        Verdict::ERRNO => {
            const MAX_ERRNO: i32 = 4095;
            give(task, &data, Err(Errno(i32::from(verdict.data()).min(MAX_ERRNO))))
        }
        // As without a tracer.
        Verdict::TRACE => give(task, &data, Err(errno::ENOSYS)),
        Verdict::USER_NOTIF if !by.has_listener() => give(task, &data, Err(errno::ENOSYS)),
        Verdict::USER_NOTIF => match notify::ask_listener(task, &data) {
            Some(result) => give(task, &data, result),
            None => true,
        },
        Verdict::TRAP => trap(task, &data, verdict.data()),
        Verdict::KILL_THREAD => kill_thread(task, libc::SIGSYS),
        _ => kill_process(task),
    }
}

/// The result of a call that is not carried out.
fn give(task: &mut Task, data: &Data, result: SysResult) -> bool {
    if strace::enabled() {
        strace::answered(task, data.nr as u32, data.args, result);
    }
    // Without a signal the number that asks for a restart is an answer as any other.
    let result = match result {
        Err(Errno::RESTART) if !task.inbox.attention() => Ok(-i64::from(Errno::RESTART.0) as u64),
        result => result,
    };
    task.end_call(result);
    false
}

/// SECCOMP_RET_TRAP: SIGSYS, with what the handler needs to carry the call out itself (force_sig_seccomp).
fn trap(task: &mut Task, data: &Data, reason: u16) -> bool {
    const SYS_SECCOMP: i32 = 1;
    let mut info = SigInfo::new(libc::SIGSYS, SYS_SECCOMP).with_addr(data.instruction_pointer);
    info.0[4..8].copy_from_slice(&i32::from(reason).to_ne_bytes());
    info.0[24..28].copy_from_slice(&data.nr.to_ne_bytes());
    info.0[28..32].copy_from_slice(&data.arch.to_ne_bytes());
    signal::force(task, &info);
    false
}

/// Ends the thread; the last of a process ends that.
fn kill_thread(task: &mut Task, signo: i32) -> bool {
    if threads::hold().is_alone(&task.seccomp) {
        if signo == libc::SIGSYS {
            kill_process(task);
        }
        signal::die(signo);
    }
    let status = signo as u64;
    if signo == libc::SIGSYS && task.runtime().options.runner.is_empty() {
        thread::abandon(task);
        mirror::have_done(Deed::KillThread);
    }
    let _ = thread::exit(task, [status, 0, 0, 0, 0, 0]);
    false
}

/// SECCOMP_RET_KILL_PROCESS.
fn kill_process(task: &Task) -> ! {
    if task.runtime().options.runner.is_empty() {
        task.runtime().report();
        mirror::have_done(Deed::KillProcess);
    }
    signal::die(libc::SIGSYS)
}

/// Whether a call is one of the vDSO's that a real one answers without the kernel, which no filter sees.
pub(crate) fn made_by_vdso(task: &Task, nr: i32, args: &[u64; 6]) -> bool {
    const AT_SYSINFO_EHDR: u64 = 33;
    const PAGE: u64 = 4096;
    /// Clocks of lib/vdso/gettimeofday.c: VDSO_HRES, VDSO_COARSE and VDSO_RAW.
    const CLOCKS: u64 = 0b1000_1111_0011;
    static PLACE: OnceLock<u64> = OnceLock::new();
    let place = *PLACE.get_or_init(|| {
        let (entries, _) = task.runtime().image.auxv.as_chunks::<16>();
        let entry = |bytes: &[u8; 16]| {
            let value = u128::from_le_bytes(*bytes);
            (value as u64, (value >> 64) as u64)
        };
        entries.iter().map(entry).find(|e| e.0 == AT_SYSINFO_EHDR).map_or(u64::MAX, |e| e.1)
    });
    if task.cpu.rip.wrapping_sub(place) >= PAGE {
        return false;
    }
    match nr as u64 {
        number::gettimeofday | number::time | number::getcpu => true,
        number::clock_gettime | number::clock_getres => args[0] < 16 && CLOCKS >> args[0] & 1 != 0,
        _ => false,
    }
}

/// A line for each number that a filter wants logged. The kernel's log would tell of the host's call.
fn log_once(nr: i32) {
    static SAID: [AtomicU64; 16] = [const { AtomicU64::new(0) }; 16];
    let bit = 1 << (nr % 64);
    let word = SAID.get(nr as usize / 64);
    if word.is_none_or(|word| word.fetch_or(bit, Ordering::Relaxed) & bit == 0) {
        let name = lookup(nr as u32).map_or("unknown", |call| call.name);
        log::warn(format_args!("a filter wants system call {nr} ({name}) logged (seccomp)"));
    }
}

/// The filters that the first thread of this process begins with. If they cannot be had, the process ends.
pub(crate) fn start(task: &Task, named: Option<i32>) {
    match handover::adopt(named) {
        Ok(None) => {}
        Ok(Some(filter)) => task.seccomp.set(filter),
        Err(what) => {
            log::line(format_args!("{what}: it is not run"));
            std::process::exit(126);
        }
    }
}

/// The error of executing a program that is not translated, when there are filters: it would not have them.
pub(crate) fn refuse_native() -> Errno {
    log::warn(format_args!(
        "a program that is not translated would escape the filters of system calls (seccomp): EACCES"
    ));
    errno::EACCES
}
