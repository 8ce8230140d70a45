//! execve(2) where the kernel itself starts translators (binfmt_misc): the guest's own call goes to it. It knows
//! scripts, the machines of programs, setuid bits, and files that may be executed and not read.

use std::ffi::CString;
use std::os::fd::RawFd;

use super::{
    AT_EMPTY_PATH, AT_EXECVE_CHECK, Format, check_strings, closes_on_exec, head, host_exec,
    open_guest, pointers, resolve_scripts, strings_for_kernel, translate,
};
use crate::abi::{AT_FDCWD, AT_SYMLINK_NOFOLLOW, errno};
use crate::host::{Errno, SysResult};
use crate::inherit::{self, Role};
use crate::proc_fs::EXE;
use crate::task::Task;
use crate::{fds, paths, seccomp};

/// Where a name below a descriptor that is closed on exec is found before it is: spelt as nobody else does.
const BELOW_DESCRIPTOR: &str = "/proc/./self/fd/";

/// The guest's call, on the kernel.
pub(super) fn execveat(task: &mut Task, call: [u64; 6]) -> SysResult {
    let [dirfd, path, argv, envp, flags, _] = call;
    let argv = strings_for_kernel(argv);
    if flags & AT_EXECVE_CHECK == 0 {
        check_program(task, call)?;
    }
    let dirfd = if fds::is_kept(dirfd as i32) { u64::MAX } else { dirfd };
    let follow = flags & AT_SYMLINK_NOFOLLOW == 0;
    let name = paths::translate(task, dirfd as i32, path, follow)?;
    match host_exec(task, [dirfd, name.addr(), argv, envp, flags, 0]) {
        Err(errno::ENOENT) if closes_on_exec(dirfd) => hidden(task, call),
        result => result,
    }
}

/// The errors of long strings, then those of load_elf_binary in fs/binfmt_elf.c. The kernel looks at no more than a
/// translated program's first bytes, and the translator finds what else is wrong when the caller is gone. What cannot
/// be read is left to it.
fn check_program(task: &mut Task, call: [u64; 6]) -> Result<(), Errno> {
    let [dirfd, path, argv, envp, flags, _] = call;
    let format = match open_guest(task, dirfd, path, flags) {
        Ok(mut program) => {
            check_strings([argv, envp])?;
            match resolve_scripts(task, &mut program, dirfd) {
                Ok(Format::Guest) => {
                    let options = &task.runtime().options;
                    return (options.loadable)(program.fd.0 as RawFd, options);
                }
                format => format,
            }
        }
        Err(error) => Err(error),
    };
    match format {
        // It may be one for the host, which nobody may read.
        Ok(Format::Host | Format::Arm64) | Err(errno::EACCES) if task.seccomp.is_on() => {
            Err(seccomp::refuse_native())
        }
        _ => Ok(()),
    }
}

/// A program whose name goes through a descriptor that is closed on exec. The kernel refuses to give it to any
/// interpreter, which could not open it by that name (BINPRM_FLAGS_PATH_INACCESSIBLE); a native kernel runs it, but
/// refuses scripts for the same reason. The translator needs no name.
fn hidden(task: &mut Task, [dirfd, path, argv, envp, flags, _]: [u64; 6]) -> SysResult {
    let text = paths::read(path)?;
    if text.as_bytes().starts_with(b"/") {
        return Err(errno::ENOENT);
    }
    let program = match open_guest(task, dirfd, path, flags) {
        Ok(program) if Format::of(&head(&program.fd)?) == Format::Guest => Some(program),
        // To be executed, not read.
        Err(errno::EACCES) => None,
        Ok(_) | Err(_) => return Err(errno::ENOENT),
    };
    let number = (dirfd as i32).to_string();
    let mut name = [BELOW_DESCRIPTOR.as_bytes(), number.as_bytes()].concat();
    let mut flags = flags & !AT_EMPTY_PATH;
    if text.is_empty() {
        // It is a link itself there.
        flags &= !AT_SYMLINK_NOFOLLOW;
    } else {
        name.push(b'/');
        name.extend_from_slice(text.as_bytes());
    }
    let name = CString::new(name).map_err(|_| errno::EINVAL)?;
    let strings = strings_for_kernel(argv);
    let args = [AT_FDCWD as u64, name.as_ptr() as u64, strings, envp, flags, 0];
    let result = host_exec(task, args);
    match (result, program) {
        (Err(errno::ENOENT), Some(program)) if inherit::get(Role::Translator).is_some() => {
            // /proc is not there.
            translate(task, &program, &pointers(argv)?, envp)
        }
        (result, _) => result,
    }
}

/// What the guest called the program that it executed (AT_EXECFN), by what the kernel was told.
pub fn name_for_guest(told: &[u8]) -> Vec<u8> {
    if told.starts_with(EXE.as_bytes()) {
        return b"/proc/self/exe".to_vec();
    }
    match told.strip_prefix(BELOW_DESCRIPTOR.as_bytes()) {
        Some(rest) => [b"/dev/fd/", rest].concat(),
        None => told.to_vec(),
    }
}

/// Whether the kernel was told a descriptor and no name. A process is then called as the file that is executed (Linux
/// 6.14), which is the translator's to the kernel.
pub fn is_descriptor(told: &[u8]) -> bool {
    let mut name = [0; 16];
    // SAFETY: the call writes a null-terminated string of at most 16 bytes.
    unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
    is_unnamed(told, name.split(|&byte| byte == 0).next().unwrap_or_default())
}

/// The same, when the process is called `name` so far.
fn is_unnamed(told: &[u8], name: &[u8]) -> bool {
    let number = |prefix: &str| {
        told.strip_prefix(prefix.as_bytes()).filter(|rest| rest.iter().all(u8::is_ascii_digit))
    };
    // A link in /dev/fd that is executed by its name gives the process that name.
    number(BELOW_DESCRIPTOR).is_some() || number("/dev/fd/").is_some_and(|number| number != name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_the_guest_did_not_use() {
        let name = |told: &str| String::from_utf8(name_for_guest(told.as_bytes())).unwrap();
        assert_eq!(name("/proc/./self/fd/5"), "/dev/fd/5");
        assert_eq!(name("/proc/./self/fd/5/bin/x"), "/dev/fd/5/bin/x");
        assert_eq!(name("/proc/self/./fd/1007"), "/proc/self/exe");
        for own in ["/proc/self/fd/5", "/dev/fd/5", "x", ""] {
            assert_eq!(name(own), own);
        }
    }

    #[test]
    fn processes_without_a_name() {
        assert!(is_unnamed(b"/proc/./self/fd/5", b"5"));
        assert!(is_unnamed(b"/dev/fd/5", b"demotic"));
        for named in ["/dev/fd/5", "/dev/fd/5/x", "/proc/self/fd/5", "/proc/./self/fd/5/x", "x"] {
            assert!(!is_unnamed(named.as_bytes(), b"5"), "{named}");
        }
    }
}
