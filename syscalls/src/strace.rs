//! `--strace`: one line for each system call, in the manner of strace(1), from the table's types.
//!
//! A line is one write(2) to a descriptor of its own, without locks, so that threads, forks
//! and signal handlers need no care.

mod format;
pub mod names;

use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use crate::abi::errno;
use crate::host::{Errno, SysResult};
use crate::inherit::{self, Role};
use crate::interrupt::SigInfo;
use crate::table::{Call, Type, guest as nr};
use crate::task::Task;
use crate::{fds, log};

/// Where lines go; -1 while the printing is off.
static FD: AtomicI32 = AtomicI32::new(-1);

/// Whether there is, or was, more than one thread or process: lines then begin with `[pid N]`.
static SEVERAL: AtomicBool = AtomicBool::new(false);

/// Turns the printing on, to standard error or to the end of a file.
pub fn init(file: Option<&Path>) -> io::Result<()> {
    let kept = match (file, inherit::get(Role::Strace)) {
        (None, _) => fds::keep(2),
        (_, Some(parents)) => Some(parents),
        (Some(path), None) => {
            let file = OpenOptions::new().append(true).create(true).open(path)?;
            inherit::hold(Role::Strace, file.as_raw_fd())
        }
    };
    FD.store(kept.ok_or_else(io::Error::last_os_error)?, Ordering::Relaxed);
    SEVERAL.store(parent_is_translated(), Ordering::Relaxed);
    Ok(())
}

/// Whether the parent runs the same translator: its lines go where this process's go.
fn parent_is_translated() -> bool {
    let program = |process: &str| std::fs::read_link(format!("/proc/{process}/exe")).ok();
    let own = program("self");
    own.is_some() && own == program(&std::os::unix::process::parent_id().to_string())
}

/// Whether calls are printed.
pub fn enabled() -> bool {
    FD.load(Ordering::Relaxed) >= 0
}

/// Lines begin with `[pid N]` from now on.
pub fn set_several() {
    SEVERAL.store(true, Ordering::Relaxed);
}

/// Makes a call and prints it.
pub(crate) fn traced(task: &mut Task, call: &Call, args: [u64; 6]) -> SysResult {
    let tid = task.tid;
    let shown = format::count(call, &args);
    let mut texts: Vec<Option<String>> =
        (0..shown).map(|i| format::entering(call, &args, i)).collect();
    let forks = matches!(u64::from(call.number), nr::clone | nr::clone3 | nr::fork | nr::vfork);
    if forks {
        set_several();
    }
    if never_returns(call) {
        print(tid, call.name, &texts, "?");
    }
    let result = call.make(task, args);
    // The child comes back from the same call; its parent prints it.
    if forks && result == Ok(0) {
        return result;
    }
    for (i, text) in texts.iter_mut().enumerate() {
        text.get_or_insert_with(|| format::leaving(call, &args, i, result));
    }
    print(tid, call.name, &texts, &outcome(call, &args, result));
    result
}

/// Prints a call that is newer than the table.
pub(crate) fn print_unknown(task: &Task, number: u32, args: [u64; 6], result: SysResult) {
    let texts = args.map(|arg| Some(format!("{arg:#x}")));
    let outcome = result.map_or_else(failure, |value| format!("{value:#x}"));
    print(task.tid, &format!("syscall_{number}"), &texts, &outcome);
}

/// Calls that have nobody to return to when they succeed.
fn never_returns(call: &Call) -> bool {
    matches!(u64::from(call.number), nr::exit | nr::exit_group | nr::execve | nr::execveat)
}

/// Prints a signal that is about to be delivered, and where.
pub(crate) fn signal(task: &Task, info: &SigInfo) {
    let name = format::signal(info.signo() as u64);
    let rip = task.cpu.rip;
    let (code, addr) = (info.code(), info.addr());
    let prefix = prefix(task.tid);
    let line =
        format!("{prefix}--- {name} {{si_code={code}, si_addr={addr:#x}}} at {rip:#x} ---\n");
    log::write_all(FD.load(Ordering::Relaxed), line.as_bytes());
}

/// Says whose line it is, once there are several.
fn prefix(tid: i32) -> String {
    if SEVERAL.load(Ordering::Relaxed) { format!("[pid {tid:5}] ") } else { String::new() }
}

fn print(tid: i32, name: &str, args: &[Option<String>], outcome: &str) {
    let mut line = prefix(tid);
    line += name;
    line.push('(');
    for (i, arg) in args.iter().enumerate() {
        if i > 0 {
            line += ", ";
        }
        line += arg.as_deref().unwrap_or("");
    }
    line.push(')');
    // As strace(1) does, the results stand in a column.
    line.extend(std::iter::repeat_n(' ', 39usize.saturating_sub(line.len())));
    line += &format!(" = {outcome}\n");
    log::write_all(FD.load(Ordering::Relaxed), line.as_bytes());
}

/// The part behind the equals sign.
fn outcome(call: &Call, args: &[u64; 6], result: SysResult) -> String {
    const F_GETFL: u64 = 3;
    let value = match result {
        Ok(value) => value,
        Err(error) => return failure(error),
    };
    match call.ret {
        Type::Ptr => format!("{value:#x}"),
        Type::Mode => format::plain(call.ret, value),
        _ if u64::from(call.number) == nr::fcntl && args[1] == F_GETFL => {
            format!("{value:#x} (flags {})", format::plain(names::OPEN, value))
        }
        _ if value == 0 && waits_for_descriptors(call) => "0 (Timeout)".into(),
        _ => (value as i64).to_string(),
    }
}

/// Calls whose result counts descriptors, and is zero when the time is over.
fn waits_for_descriptors(call: &Call) -> bool {
    matches!(u64::from(call.number), nr::poll | nr::ppoll | nr::select | nr::pselect6)
}

fn failure(error: Errno) -> String {
    match errno::describe(error) {
        Some((name, message)) => format!("-1 {name} ({message})"),
        // The kernel's own codes for an interrupted call (linux/errno.h).
        None => match error.0 {
            512 => "? ERESTARTSYS (To be restarted if SA_RESTART is set)".into(),
            513 => "? ERESTARTNOINTR (To be restarted)".into(),
            514 => "? ERESTARTNOHAND (To be restarted if no handler)".into(),
            516 => "? ERESTART_RESTARTBLOCK (Interrupted by signal)".into(),
            other => format!("-1 (errno {other})"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::lookup;

    fn results(number: u64, args: [u64; 6], result: SysResult) -> String {
        outcome(lookup(number as u32).unwrap(), &args, result)
    }

    #[test]
    fn results_are_shown_as_strace_does() {
        let none = [0; 6];
        assert_eq!(results(nr::read, none, Ok(5)), "5");
        assert_eq!(results(nr::brk, none, Ok(0x55_5000)), "0x555000");
        assert_eq!(results(nr::umask, none, Ok(0o22)), "022");
        assert_eq!(
            results(nr::open, none, Err(errno::ENOENT)),
            "-1 ENOENT (No such file or directory)"
        );
        assert_eq!(results(nr::poll, none, Ok(0)), "0 (Timeout)");
        let args = [3, 3, 0, 0, 0, 0];
        assert_eq!(results(nr::fcntl, args, Ok(0x8002)), "0x8002 (flags O_RDWR|O_LARGEFILE)");
    }
}
