//! Descriptors that a translator hands to the translators of its children. What they name may be out of the reach
//! of a child: it may have another root directory, and no /proc.

use std::fmt::Write;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicI32, Ordering};

use crate::{fds, strace};

/// What a descriptor is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The translator's program.
    Translator,
    /// The program that runs the translator, where the processor cannot.
    Runner,
    /// The folder that the translator's program is in, for a runner, which wants a path.
    Folder,
    /// The file of `--trace-exec`.
    TraceExec,
    /// Where `--strace` goes.
    Strace,
}

/// All of them, and their names on the command line.
const ROLES: [(Role, &str); 5] = [
    (Role::Translator, "translator"),
    (Role::Runner, "runner"),
    (Role::Folder, "folder"),
    (Role::TraceExec, "trace-exec"),
    (Role::Strace, "strace"),
];

/// The name of the one that is not kept: the current directory, to be gone back to.
const DIRECTORY: &str = "directory";

/// What stands for a word instead of a descriptor: `--strace` says whose lines are whose.
const SEVERAL: &str = "several=1";

/// The name of the filters of the guest's system calls, which are the executed program's alone.
const FILTERS: &str = "seccomp";

/// The descriptor of the filters that this process was executed with; -1 if none was named.
static ADOPTED_FILTERS: AtomicI32 = AtomicI32::new(-1);

/// The descriptors, by role; -1 where there is none.
static HELD: [AtomicI32; ROLES.len()] = [const { AtomicI32::new(-1) }; ROLES.len()];

/// The descriptor for a role.
pub fn get(role: Role) -> Option<RawFd> {
    let fd = HELD[role as usize].load(Ordering::Relaxed);
    (fd >= 0).then_some(fd)
}

/// The descriptor of the filters that this process was executed with, if one was named.
pub(crate) fn filters() -> Option<RawFd> {
    Some(ADOPTED_FILTERS.load(Ordering::Relaxed)).filter(|&fd| fd >= 0)
}

/// Holds a duplicate of `fd` for a role: none if there is no room for it.
pub(crate) fn hold(role: Role, fd: RawFd) -> Option<RawFd> {
    let kept = fds::keep(fd)?;
    HELD[role as usize].store(kept, Ordering::Relaxed);
    Some(kept)
}

/// Takes over what the parent handed down: `name=descriptor,…`. Unknown names are let be.
pub fn adopt(list: &str) {
    if list.split(',').any(|item| item == SEVERAL) {
        strace::set_several();
    }
    for (name, fd) in list.split(',').filter_map(|item| item.split_once('=')) {
        let Ok(fd) = fd.parse::<RawFd>() else { continue };
        if name == DIRECTORY {
            // SAFETY: system calls with integers; the descriptor was opened for us alone.
            unsafe {
                libc::fchdir(fd);
                libc::close(fd);
            }
        }
        if name == FILTERS {
            ADOPTED_FILTERS.store(fd, Ordering::Relaxed);
        }
        if let Some((role, _)) = ROLES.iter().find(|(_, known)| *known == name)
            && fds::adopt(fd)
        {
            HELD[*role as usize].store(fd, Ordering::Relaxed);
        }
    }
}

/// The descriptors, open over the next execve(2); closed on it again when this is dropped, should it fail.
pub(crate) struct Handover {
    list: String,
}

impl Handover {
    /// Readies the descriptors; `directory` is the one to go back to, `filters` that of the guest's.
    pub(crate) fn new(directory: Option<RawFd>, filters: Option<RawFd>) -> Self {
        let mut list = String::new();
        let held = ROLES.iter().filter_map(|&(role, name)| Some((name, get(role)?)));
        let others = [(DIRECTORY, directory), (FILTERS, filters)];
        let others = others.into_iter().filter_map(|(name, fd)| Some((name, fd?)));
        for (name, fd) in held.chain(others) {
            set_close_on_exec(fd, false);
            // Writing to a String cannot fail.
            let _ = write!(list, "{}{name}={fd}", if list.is_empty() { "" } else { "," });
        }
        if strace::is_several() {
            list = list + "," + SEVERAL;
        }
        Self { list }
    }

    /// As [`adopt`] reads it.
    pub(crate) fn list(&self) -> &str {
        &self.list
    }
}

impl Drop for Handover {
    fn drop(&mut self) {
        for fd in ROLES.iter().filter_map(|&(role, _)| get(role)) {
            set_close_on_exec(fd, true);
        }
    }
}

fn set_close_on_exec(fd: RawFd, on: bool) {
    // SAFETY: changes a flag of a descriptor of ours.
    unsafe { libc::fcntl(fd, libc::F_SETFD, if on { libc::FD_CLOEXEC } else { 0 }) };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closes_on_exec(fd: RawFd) -> bool {
        // SAFETY: asks for flags.
        unsafe { libc::fcntl(fd, libc::F_GETFD) == libc::FD_CLOEXEC }
    }

    /// One test, because the descriptors are the process's.
    #[test]
    fn what_one_hands_over_the_other_adopts() {
        let fd = hold(Role::TraceExec, 2).unwrap();
        assert!(closes_on_exec(fd) && fds::is_kept(fd));
        {
            let handover = Handover::new(None, None);
            assert_eq!(handover.list(), format!("trace-exec={fd}"));
            assert!(!closes_on_exec(fd));
        }
        assert!(closes_on_exec(fd));
        assert_eq!(get(Role::Strace), None);
        adopt(&format!("what=1,strace={fd},runner=x,folder=99999"));
        assert!(!strace::is_several());
        adopt(SEVERAL);
        assert!(Handover::new(None, None).list().ends_with(",several=1"));
        assert_eq!(get(Role::Strace), Some(fd));
        assert_eq!(get(Role::Folder), None);
        for (i, (role, _)) in ROLES.iter().enumerate() {
            assert_eq!(*role as usize, i);
        }
    }
}
