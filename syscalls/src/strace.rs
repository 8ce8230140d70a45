//! `--strace`: one line for each system call, in the manner of strace(1), from the table's types.
//!
//! A line is one write(2) to a descriptor of its own, without locks, so that threads, forks
//! and signal handlers need no care.

mod format;
pub mod names;
pub mod structs;

use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use translator::state::reg;

use crate::abi::errno;
use crate::host::{Errno, SysResult};
use crate::inherit::{self, Role};
use crate::interrupt::SigInfo;
use crate::log;
use crate::table::{Call, Type, guest as nr, lookup};
use crate::task::Task;

/// Where lines go; -1 while the printing is off.
static FD: AtomicI32 = AtomicI32::new(-1);

/// Whether there is, or was, more than one thread or process: lines then begin with `[pid N]`.
static SEVERAL: AtomicBool = AtomicBool::new(false);

/// Turns the printing on: to where the parent's went, to standard error, or to the end of a file.
pub fn init(file: Option<&Path>) -> io::Result<()> {
    let kept = match (inherit::get(Role::Strace), file) {
        (Some(parents), _) => Some(parents),
        (None, None) => inherit::hold(Role::Strace, 2),
        (None, Some(path)) => {
            let file = OpenOptions::new().append(true).create(true).open(path)?;
            inherit::hold(Role::Strace, file.as_raw_fd())
        }
    };
    FD.store(kept.ok_or_else(io::Error::last_os_error)?, Ordering::Relaxed);
    Ok(())
}

/// Whether calls are printed.
pub fn enabled() -> bool {
    FD.load(Ordering::Relaxed) >= 0
}

/// Whether lines begin with `[pid N]`.
pub fn is_several() -> bool {
    SEVERAL.load(Ordering::Relaxed)
}

/// Lines begin with `[pid N]` from now on.
pub fn set_several() {
    SEVERAL.store(true, Ordering::Relaxed);
}

/// Makes a call and prints it.
pub(crate) fn traced(task: &mut Task, call: &Call, args: [u64; 6]) -> SysResult {
    let tid = task.tid;
    let number = u64::from(call.number);
    let mut texts: Vec<Option<String>> =
        (0..format::count(call, &args)).map(|i| format::entering(call, &args, i)).collect();
    let forks = matches!(number, nr::clone | nr::clone3 | nr::fork | nr::vfork);
    if forks {
        set_several();
    }
    match number {
        nr::rt_sigreturn => texts.push(format::sigreturn(task.cpu.gpr[reg::RSP])),
        nr::exit | nr::exit_group => print(tid, call.name, &texts, "?"),
        // `executes` prints it, if nobody comes back.
        nr::execve | nr::execveat => task.traced_exec = Some(call_line(call.name, &texts, "0")),
        _ => {}
    }
    let result = call.make(task, args);
    // The child comes back from the same call; its parent prints it.
    if forks && result == Ok(0) {
        return result;
    }
    for (i, text) in texts.iter_mut().enumerate() {
        text.get_or_insert_with(|| format::leaving(call, &args, i, result));
    }
    if number == nr::clone {
        texts = format::clone(&args, result);
    }
    match (number, task.traced_exec.take()) {
        // The kernel had an objection that was not foreseen.
        (nr::execve | nr::execveat, None) => {
            line(tid, &format!("<... {} resumed> = {}", call.name, outcome(call, &args, result)));
        }
        _ => print(tid, call.name, &texts, &outcome(call, &args, result)),
    }
    result
}

/// Prints the execve(2) that is about to succeed: what comes back is another program.
pub(crate) fn executes(task: &mut Task) {
    if let Some(text) = task.traced_exec.take() {
        line(task.tid, &text);
    }
}

/// Prints the end of a thread or a process.
pub(crate) fn exited(tid: i32, status: u64) {
    if enabled() {
        line(tid, &format!("+++ exited with {} +++", status & 0xff));
    }
}

/// Prints the end of a process by a signal. Async-signal-safe but for its memory.
pub(crate) fn killed(tid: i32, signo: i32) {
    if enabled() {
        line(tid, &format!("+++ killed by {} +++", format::signal(signo as u64)));
    }
}

/// Prints a call that is newer than the table.
pub(crate) fn print_unknown(task: &Task, number: u32, args: [u64; 6], result: SysResult) {
    let texts = args.map(|arg| Some(format!("{arg:#x}")));
    let outcome = result.map_or_else(failure, |value| format!("{value:#x}"));
    print(task.tid, &format!("syscall_{number}"), &texts, &outcome);
}

/// Prints a call that was answered before it was carried out.
pub(crate) fn answered(task: &Task, number: u32, raw: [u64; 6], result: SysResult) {
    let Some(call) = lookup(number) else { return print_unknown(task, number, raw, result) };
    let args = call.extend(raw);
    let text = |i| {
        let entering = format::entering(call, &args, i);
        Some(entering.unwrap_or_else(|| format::leaving(call, &args, i, result)))
    };
    let texts: Vec<_> = (0..format::count(call, &args)).map(text).collect();
    print(task.tid, call.name, &texts, &outcome(call, &args, result));
}

/// Prints a signal that is about to be delivered, and where.
pub(crate) fn signal(task: &Task, info: &SigInfo) {
    let name = format::signal(info.signo() as u64);
    line(task.tid, &format!("--- {name} {} ---", format::siginfo::text(info)));
}

/// Says whose line it is, once there are several.
fn prefix(tid: i32) -> String {
    if is_several() { format!("[pid {tid:5}] ") } else { String::new() }
}

/// A line of its own.
fn line(tid: i32, text: &str) {
    let line = format!("{}{text}\n", prefix(tid));
    log::write_all(FD.load(Ordering::Relaxed), line.as_bytes());
}

fn print(tid: i32, name: &str, args: &[Option<String>], outcome: &str) {
    line(tid, &call_line(name, args, outcome));
}

/// A call and its result, which stands in a column, as strace(1) has it.
fn call_line(name: &str, args: &[Option<String>], outcome: &str) -> String {
    let args: Vec<&str> = args.iter().map(|arg| arg.as_deref().unwrap_or("")).collect();
    let call = format!("{name}({})", args.join(", "));
    format!("{call:39} = {outcome}")
}

/// The part behind the equals sign.
fn outcome(call: &Call, args: &[u64; 6], result: SysResult) -> String {
    const F_GETFD: u64 = 1;
    const F_GETFL: u64 = 3;
    let value = match result {
        Ok(value) => value,
        Err(error) => return failure(error),
    };
    let remark = format::remark(call, args, value);
    match call.ret {
        _ if !remark.is_empty() => format!("{} ({remark})", value as i64),
        Type::Ptr => format!("{value:#x}"),
        Type::Mode => format::plain(call.ret, value),
        _ if u64::from(call.number) == nr::fcntl && args[1] == F_GETFD && value == 1 => {
            "0x1 (flags FD_CLOEXEC)".into()
        }
        _ if u64::from(call.number) == nr::fcntl && args[1] == F_GETFL => {
            format!("{value:#x} (flags {})", format::plain(names::OPEN, value))
        }
        _ => (value as i64).to_string(),
    }
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
