//! What a process is to others: its name, its command line and its environment.

use std::ffi::{CString, OsStr};
use std::ops::Range;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::guest;

/// Names the thread after the program, as execve(2) does.
pub(crate) fn set_name(name: &OsStr) {
    let Ok(name) = CString::new(name.as_bytes()) else { return };
    // SAFETY: the kernel copies up to 16 bytes of a string.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
}

/// `struct prctl_mm_map` of linux/prctl.h.
#[derive(Clone, Copy)]
#[repr(C)]
struct MemoryMap {
    start_code: u64,
    end_code: u64,
    start_data: u64,
    end_data: u64,
    start_brk: u64,
    brk: u64,
    start_stack: u64,
    arg_start: u64,
    arg_end: u64,
    env_start: u64,
    env_end: u64,
    auxv: u64,
    auxv_size: u32,
    exe_fd: i32,
}

/// Where the kernel has the translator's program break begin and end.
pub(crate) fn host_break() -> Option<(u64, u64)> {
    let map = std::fs::read_to_string("/proc/self/stat").ok().and_then(|stat| parse(&stat))?;
    // SAFETY: brk(2) with 0 only asks; the C library's own sbrk state is not touched.
    Some((map.start_brk, unsafe { libc::syscall(libc::SYS_brk, 0) } as u64))
}

/// Makes `/proc/PID/cmdline` and `environ` show the guest's strings to everyone (PR_SET_MM_MAP, which needs no
/// privilege), and `exe` the `program`, if [`exe_file::make_way`](crate::exe_file) made way for it. Whether it worked,
/// but for `exe`: some kernels are built without, and filters of system calls may forbid it. `cmdline` then shows a copy
/// of the guest's.
///
/// # Safety
/// Nobody looks at the translator's own arguments any more.
pub(crate) unsafe fn show(argv: &Range<u64>, envp: &Range<u64>, program: Option<RawFd>) -> bool {
    let Some(mut map) = std::fs::read_to_string("/proc/self/stat").ok().and_then(|s| parse(&s))
    else {
        return false;
    };
    // SAFETY: brk(2) with 0 only asks; the C library's own sbrk state is not touched.
    map.brk = unsafe { libc::syscall(libc::SYS_brk, 0) } as u64;
    let own = map.arg_start..map.arg_end;
    (map.arg_start, map.arg_end) = (argv.start, argv.end);
    (map.env_start, map.env_end) = (envp.start, envp.end);
    let set = |exe_fd| {
        let (map, size) = (MemoryMap { exe_fd, ..map }, size_of::<MemoryMap>());
        // SAFETY: the kernel reads one struct.
        unsafe { libc::prctl(libc::PR_SET_MM, libc::PR_SET_MM_MAP, &raw const map, size, 0) == 0 }
    };
    let shown = program.is_some_and(set) || set(-1);
    if !shown {
        // SAFETY: they are the caller's promise, and where the kernel put them.
        unsafe { overwrite(&own, argv) };
    }
    shown
}

/// Puts the guest's arguments in the place of the translator's, which hold as much and more: they are the program, and
/// its arguments. Behind them are nulls.
///
/// # Safety
/// Nobody looks at what is at `own`, which is empty or memory that can be written to.
unsafe fn overwrite(own: &Range<u64>, argv: &Range<u64>) {
    let len = |range: &Range<u64>| range.end.saturating_sub(range.start) as usize;
    let mut text = vec![0; len(argv).min(len(own))];
    // An emulator's process does not tell where they are.
    if own.start == 0 || guest::read_bytes(argv.start, &mut text).is_err() {
        return;
    }
    text.resize(len(own), 0);
    // SAFETY: as the caller promises.
    unsafe { std::ptr::copy_nonoverlapping(text.as_ptr(), own.start as *mut u8, text.len()) };
}

/// The kernel's present values, from proc_pid_stat(5).
fn parse(stat: &str) -> Option<MemoryMap> {
    // The second field is a name in parentheses, and may hold anything; the third comes behind it.
    let rest = &stat[stat.rfind(')')? + 1..];
    let fields: Vec<u64> =
        rest.split_whitespace().skip(1).map(|f| f.parse().unwrap_or_default()).collect();
    let field = |number: usize| fields.get(number - 4).copied();
    Some(MemoryMap {
        start_code: field(26)?,
        end_code: field(27)?,
        start_stack: field(28)?,
        start_data: field(45)?,
        end_data: field(46)?,
        start_brk: field(47)?,
        brk: 0,
        arg_start: field(48)?,
        arg_end: field(49)?,
        env_start: field(50)?,
        env_end: field(51)?,
        auxv: 0,
        auxv_size: 0,
        exe_fd: -1,
    })
}

/// A file that a process executes code from.
#[derive(Clone, Debug)]
pub struct CodeFile {
    /// Device and inode, as the kernel prints them there.
    identity: String,
    /// What the kernel calls it.
    pub path: PathBuf,
}

/// Files with executable mappings in a process, by its name in /proc: of a translated one the translator's alone, for
/// the program's code is only read. None where that must not be known.
pub fn code_files(process: &str) -> Vec<CodeFile> {
    let maps = std::fs::read_to_string(format!("/proc/{process}/maps")).unwrap_or_default();
    maps.lines().filter_map(code_file).collect()
}

/// One line of proc_pid_maps(5): addresses, protection, offset, device, inode, path.
fn code_file(line: &str) -> Option<CodeFile> {
    let [_, protection, _, device, inode, path] =
        line.splitn(6, ' ').collect::<Vec<_>>().try_into().ok()?;
    let is_file = inode != "0" && protection.contains('x');
    let path = path.trim_start().into();
    is_file.then(|| CodeFile { identity: format!("{device} {inode}"), path })
}

/// Whether a process, by its name in /proc, is run by the same translator as this one.
pub fn is_run_by_same(process: &str) -> bool {
    let own = code_files("self");
    code_files(process).iter().any(|file| own.iter().any(|own| own.identity == file.identity))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_has_a_file() {
        let file = code_file("400000-401000 r-xp 00000000 fe:00 77                 /a b (deleted)");
        let file = file.unwrap();
        assert_eq!((&*file.identity, file.path.to_str()), ("fe:00 77", Some("/a b (deleted)")));
        for other in [
            "400000-401000 r--p 00000000 fe:00 77                     /a",
            "400000-401000 r-xp 00000000 00:00 0                      [vdso]",
            "400000-401000 r-xp 00000000 00:00 0 ",
            "",
        ] {
            assert!(code_file(other).is_none(), "{other}");
        }
    }

    /// (An emulator's process shows the program's mappings as it likes.)
    #[test]
    #[cfg(target_arch = "x86_64")]
    fn this_process_runs_its_own_program() {
        let own = std::env::current_exe().unwrap();
        assert!(code_files("self").iter().any(|file| file.path == own));
        assert!(is_run_by_same(&std::process::id().to_string()) && !is_run_by_same("x"));
    }

    #[test]
    fn others_see_the_command_line() {
        assert_eq!(size_of::<MemoryMap>(), 104);
        let strings = *b"prog\0-x y\0A=1\0";
        let start = strings.as_ptr() as u64;
        // SAFETY: the arguments of tests have been read.
        if unsafe { show(&(start..start + 10), &(start + 10..start + 14), None) } {
            let pid = std::process::id();
            assert_eq!(std::fs::read(format!("/proc/{pid}/cmdline")).unwrap(), b"prog\0-x y\0");
            assert_eq!(std::fs::read(format!("/proc/{pid}/environ")).unwrap(), b"A=1\0");
        } else {
            // A kernel without CONFIG_CHECKPOINT_RESTORE. (An emulator does not tell where the arguments are.)
            let line = std::fs::read("/proc/self/cmdline").unwrap();
            assert!(cfg!(target_arch = "aarch64") || line.starts_with(b"prog\0-x y\0"));
        }
    }

    #[test]
    fn arguments_in_the_place_of_longer_ones() {
        let mut own = *b"demotic\0prog\0-x y\0.";
        let argv = *b"prog\0-x y\0.";
        let range = |bytes: &[u8], len| bytes.as_ptr() as u64..bytes.as_ptr() as u64 + len;
        let place = own.as_mut_ptr() as u64;
        // SAFETY: the place is ours.
        unsafe { overwrite(&(place..place + 18), &range(&argv, 10)) };
        assert_eq!(&own, b"prog\0-x y\0\0\0\0\0\0\0\0\0.");
        // SAFETY: there is no place.
        unsafe { overwrite(&(0..0), &range(&argv, 10)) };
    }

    #[test]
    fn fields_behind_an_odd_name() {
        let numbers: Vec<String> = (4..=52).map(|n| n.to_string()).collect();
        let map = parse(&format!("7 (a) b) S {}", numbers.join(" "))).unwrap();
        assert_eq!(
            (map.start_code, map.start_stack, map.start_data, map.env_end),
            (26, 28, 45, 51)
        );
        assert!(parse("7 (a) S 1 2").is_none());
    }
}
