//! /proc as the guest expects it: what the kernel says there of this process and of the processor is the
//! translator's truth, not the guest's.

use std::ffi::{CStr, CString, OsStr};
use std::fmt::Write;
use std::io::Read;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::ops::Range;
use std::os::fd::FromRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use translator::cpuid::leaf;

use crate::abi::{AT_FDCWD, errno, open_flags};
use crate::files::OpenHow;
use crate::host::{Errno, SysResult};
use crate::inode::Inode;
use crate::table::host as nr;
use crate::task::Task;
use crate::{exec, fds, guest, paths, personality};

/// The files that are not the kernel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum File {
    Exe,
    Maps,
    MapsInDetail,
    CommandLine,
    Environment,
    AuxiliaryVector,
    Personality,
    CpuInfo,
    /// What the kernel says of a descriptor, of any process.
    DescriptorInfo,
}

impl File {
    /// What an absolute path names, for a process that is `pid` and a thread that is `tid`.
    fn of(path: &[u8], pid: i32, tid: i32) -> Option<Self> {
        let rest = path.strip_prefix(b"/proc/")?;
        let mut words =
            rest.split(|&b| b == b'/').filter(|w| !w.is_empty() && *w != b".").peekable();
        let number = |word: &[u8]| std::str::from_utf8(word).ok()?.parse::<i32>().ok();
        match words.next()? {
            b"cpuinfo" if words.peek().is_none() => return Some(Self::CpuInfo),
            b"self" | b"thread-self" => {}
            word if matches!(number(word), Some(n) if n == pid || n == tid) => {}
            _ => return None,
        }
        if words.next_if_eq(&b"task".as_slice()).is_some() {
            number(words.next()?)?;
        }
        let file = Self::named(words.next()?)?;
        words.next().is_none().then_some(file)
    }

    /// A file of a process by its name.
    fn named(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"exe" => Self::Exe,
            b"maps" => Self::Maps,
            b"smaps" => Self::MapsInDetail,
            b"cmdline" => Self::CommandLine,
            b"environ" => Self::Environment,
            b"auxv" => Self::AuxiliaryVector,
            b"personality" => Self::Personality,
            _ => return None,
        })
    }

    /// What the kernel's own name for a file of procfs stands for, wherever that is mounted: `…/PID/task/TID/maps`.
    /// `ours` says whether a number is that of a thread of this process.
    fn of_link(link: &[u8], ours: impl Fn(i32) -> bool) -> Option<Self> {
        let mut words = link.rsplit(|&b| b == b'/');
        let (name, folder) = (words.next()?, words.next()?);
        match std::str::from_utf8(folder).ok().and_then(|word| word.parse().ok()) {
            Some(number) if ours(number) => Self::named(name),
            None if name == b"cpuinfo" => Some(Self::CpuInfo),
            None if folder == b"fdinfo" && name.iter().all(u8::is_ascii_digit) => {
                Some(Self::DescriptorInfo)
            }
            _ => None,
        }
    }

    /// Its contents, with a descriptor of the kernel's own file if there is one; none for what is not made up.
    fn text(self, task: &Task, fd: Option<u64>) -> Option<Vec<u8>> {
        let image = &task.runtime().image;
        match self {
            Self::Exe => None,
            Self::Maps => Some(task.runtime().memory.proc_maps().into_bytes()),
            Self::MapsInDetail => {
                let host = std::fs::read_to_string("/proc/self/smaps").ok()?;
                Some(detailed_maps(&task.runtime().memory.proc_maps(), &host).into_bytes())
            }
            Self::CommandLine => Some(strings(&image.argv)),
            Self::Environment => Some(strings(&image.envp)),
            Self::AuxiliaryVector => Some(image.auxv.clone()),
            Self::Personality => Some(personality::text(task).into_bytes()),
            Self::CpuInfo => Some(cpu_info().into_bytes()),
            Self::DescriptorInfo => Some(with_guest_flags(&contents(fd?)?).into_bytes()),
        }
    }
}

/// The strings of the initial stack as they are now: programs change them to change their title.
fn strings(area: &Range<u64>) -> Vec<u8> {
    let mut bytes = vec![0; (area.end - area.start) as usize];
    match guest::read_bytes(area.start, &mut bytes) {
        Ok(()) => bytes,
        Err(_) => Vec::new(),
    }
}

/// A host path to open the guest's program by, if the absolute `path` names it.
pub fn exe(task: &Task, path: &CStr) -> Option<CString> {
    let is_exe = File::of(path.to_bytes(), task.pid, task.tid)? == File::Exe;
    is_exe.then(|| program(task))
}

/// What the kernel says of a descriptor, spelt as nobody else does: [`program`] is there, and when that is what was
/// executed the program started knows that its name is `/proc/self/exe`.
pub const EXE: &str = "/proc/self/./fd/";

/// A host path of the guest's program: through the kept descriptor, for a program may be deleted, replaced, behind
/// another root, or without a name.
pub fn program(task: &Task) -> CString {
    let image = &task.runtime().image;
    let name = match image.file {
        Some(fd) => format!("{EXE}{fd}").into_bytes(),
        None => image.path.as_os_str().as_bytes().to_vec(),
    };
    CString::new(name).unwrap_or_default()
}

/// What readlink(2) says of a link that leads to the guest's program; none for other links.
pub fn link_to_exe(task: &mut Task, dirfd: u64, path: &CStr) -> Option<Vec<u8>> {
    let text = path.to_bytes();
    if !text.is_empty() && text.rsplit(|&b| b == b'/').next() != Some(b"exe") {
        return None;
    }
    if File::of(text, task.pid, task.tid) != Some(File::Exe) {
        let flags = (libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC) as u64;
        let args = [dirfd, path.as_ptr() as u64, flags, 0, 0, 0];
        let opened = if text.is_empty() { None } else { task.host_call(nr::openat, args).ok() };
        let file = opened.or(text.is_empty().then_some(dirfd)).and_then(of_descriptor);
        if let Some(fd) = opened {
            close(fd);
        }
        if file != Some(File::Exe) {
            return None;
        }
    }
    let text = std::fs::read_link(OsStr::from_bytes(program(task).to_bytes()));
    let text = text.unwrap_or_else(|_| task.runtime().image.path.clone());
    Some(text.into_os_string().into_vec())
}

/// A descriptor of contents that are made up, if the absolute `path` names such a file. `flags` are the guest's of
/// open(2).
pub fn open(task: &mut Task, path: &CStr, flags: u64) -> Option<SysResult> {
    let text = File::of(path.to_bytes(), task.pid, task.tid)?.text(task, None)?;
    Some(if flags & libc::O_ACCMODE as u64 == libc::O_RDONLY as u64 {
        open_text(task, &text, flags & libc::O_CLOEXEC as u64 != 0)
    } else {
        Err(errno::EACCES)
    })
}

/// What the guest gets for a descriptor that open(2) gave for a name: the same number, and another file when the
/// name led, on whatever way, to one that is not the kernel's.
pub fn opened(task: &mut Task, fd: u64, dirfd: u64, path: u64, flags: u64) -> SysResult {
    let cloexec = flags & libc::O_CLOEXEC as u64;
    let Some(inode) = Inode::of(fd) else { return Ok(fd) };
    if is_translator(task, inode.file, dirfd, path) {
        let keep = (libc::O_ACCMODE | libc::O_CLOEXEC | libc::O_PATH | libc::O_NONBLOCK) as u64;
        let program = program(task);
        let args = [AT_FDCWD as u64, program.as_ptr() as u64, flags & keep, 0, 0, 0];
        let other = task.host_call(nr::openat, args);
        return exchange(fd, other, cloexec);
    }
    let plain = flags & (libc::O_PATH | libc::O_ACCMODE) as u64 == libc::O_RDONLY as u64;
    let file = if inode.links == 0 { of_emulator(fd, path) } else { of_descriptor(fd) };
    match file.filter(|_| plain).and_then(|file| file.text(task, Some(fd))) {
        Some(text) => {
            let other = open_text(task, &text, cloexec != 0);
            exchange(fd, other, cloexec)
        }
        None => Ok(fd),
    }
}

/// Puts the file of one descriptor in the place of another's.
fn exchange(fd: u64, other: SysResult, cloexec: u64) -> SysResult {
    if let Ok(other) = other {
        // SAFETY: both descriptors were just made, and are known to nobody.
        unsafe { libc::dup3(other as i32, fd as i32, cloexec as i32) };
        close(other);
        return Ok(fd);
    }
    close(fd);
    other
}

fn close(fd: u64) {
    // SAFETY: a descriptor of our own.
    unsafe { libc::close(fd as i32) };
}

/// Whether a file that a name led to is the translator's program where the guest's is meant: it has the device and
/// inode of the one, and one of the links of /proc is on the way.
pub fn is_translator(task: &mut Task, file: (u64, u64), dirfd: u64, path: u64) -> bool {
    match exec::own_files() {
        [own, _] if own == Some(file) => {}
        // qemu-user opens the program it runs for /proc/self/exe; no guest has to do with that otherwise.
        [_, shown] => return shown == Some(file),
    }
    let how = OpenHow {
        flags: (libc::O_PATH | libc::O_CLOEXEC) as u64,
        mode: 0,
        resolve: libc::RESOLVE_NO_MAGICLINKS,
    };
    let size = size_of::<OpenHow>() as u64;
    match task.host_call(nr::openat2, [dirfd, path, &raw const how as u64, size, 0, 0]) {
        Ok(fd) => {
            close(fd);
            false
        }
        Err(error) => error == errno::ELOOP,
    }
}

/// What a descriptor is open on, of the files of procfs that are not the kernel's.
fn of_descriptor(fd: u64) -> Option<File> {
    let inode = Inode::of(fd)?;
    if !(inode.is(libc::S_IFREG) || inode.is(libc::S_IFLNK)) || !is_proc(fd, &inode) {
        return None;
    }
    File::of_link(link(fd)?.as_os_str().as_bytes(), is_ours)
}

/// Whether the kernel calls a descriptor's file so.
pub(crate) fn is_link(fd: u64, name: &str) -> bool {
    link(fd).is_some_and(|link| link.as_os_str() == name)
}

/// The name in /proc of no descriptor.
pub const NO_DESCRIPTOR: &CStr = c"/proc/self/fd/-";

/// Whether an absolute path names one of the translator's own descriptors.
pub fn is_kept(task: &Task, path: &CStr) -> bool {
    descriptor(path.to_bytes(), task.pid, task.tid).is_some_and(fds::is_kept)
}

/// The descriptor that an absolute path names, of a process that is `pid` and a thread that is `tid`.
fn descriptor(path: &[u8], pid: i32, tid: i32) -> Option<i32> {
    let number = |word: &[u8]| std::str::from_utf8(word).ok()?.parse::<i32>().ok();
    if let Some(word) = path.strip_prefix(b"/dev/fd/") {
        return number(word);
    }
    let rest = path.strip_prefix(b"/proc/")?;
    let mut words = rest.split(|&b| b == b'/').filter(|w| !w.is_empty() && *w != b".").peekable();
    match words.next()? {
        b"self" | b"thread-self" => {}
        word if matches!(number(word), Some(n) if n == pid || n == tid) => {}
        _ => return None,
    }
    if words.next_if_eq(&b"task".as_slice()).is_some() {
        number(words.next()?)?;
    }
    matches!(words.next()?, b"fd" | b"fdinfo").then(|| number(words.next()?)).flatten()
}

/// Whether a directory is one in which the kernel lists the descriptors of this process.
pub fn lists_descriptors(fd: u64) -> bool {
    let Some(inode) = Inode::of(fd) else { return false };
    if !inode.is(libc::S_IFDIR) || !is_proc(fd, &inode) {
        return false;
    }
    let Some(link) = link(fd) else { return false };
    let mut words = link.as_os_str().as_bytes().rsplit(|&b| b == b'/');
    let lists = matches!(words.next(), Some(b"fd" | b"fdinfo"));
    let folder = words.next().and_then(|word| std::str::from_utf8(word).ok()?.parse().ok());
    lists && folder.is_some_and(is_ours)
}

/// The kernel's name of what a descriptor is open on.
fn link(fd: u64) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{}", fd as i32)).ok()
}

/// Whether a number in /proc is a thread of this process.
fn is_ours(number: i32) -> bool {
    std::fs::symlink_metadata(format!("/proc/self/task/{number}")).is_ok()
}

/// The same for a file of procfs that qemu-user gives a text of its own for: it opens a memfd of this name, when a
/// name leads there from the current directory.
fn of_emulator(fd: u64, path: u64) -> Option<File> {
    if link(fd)?.as_os_str() != "/memfd:qemu-open (deleted)" {
        return None;
    }
    let path = paths::read(path).ok()?;
    let real = std::fs::canonicalize(OsStr::from_bytes(path.as_bytes())).ok()?;
    File::of_link(real.as_os_str().as_bytes(), is_ours)
}

/// Whether a descriptor's file is in procfs. What is asked the kernel is remembered; it may have to ask who serves the
/// file, so that it is asked of few.
fn is_proc(fd: u64, inode: &Inode) -> bool {
    /// Of procfs (proc_fill_super), and of hardly any other file system.
    const BLOCK: u32 = 1024;
    /// The last device of procfs, and the last that is none.
    static KNOWN: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];
    let (device, _) = inode.file;
    if inode.block != BLOCK {
        return false;
    }
    if let Some(known) = KNOWN.iter().position(|known| known.load(Ordering::Relaxed) == device) {
        return known == 0;
    }
    let mut statfs = MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: the structure is ours; all zero is a valid one.
    let (failed, statfs) =
        unsafe { (libc::fstatfs(fd as i32, statfs.as_mut_ptr()), statfs.assume_init()) };
    let proc = failed == 0 && statfs.f_type == libc::PROC_SUPER_MAGIC;
    KNOWN[usize::from(!proc)].store(device, Ordering::Relaxed);
    proc
}

/// `/proc/PID/smaps`: the guest's mappings, with the sums of what the kernel says of those it keeps for them. One
/// that the kernel has joined from several of the guest's is counted for the first of them.
fn detailed_maps(maps: &str, host: &str) -> String {
    let range = |line: &str| {
        let (start, end) = line.split_once(' ')?.0.split_once('-')?;
        Some((u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?))
    };
    // The kernel's mappings: where, and the lines about them.
    type Lines<'a> = Vec<(&'a str, &'a str)>;
    let mut kernel: Vec<((u64, u64), Lines)> = Vec::new();
    for line in host.lines() {
        match (range(line), line.split_once(':'), kernel.last_mut()) {
            (Some(range), ..) => kernel.push((range, Vec::new())),
            (None, Some((key, value)), Some((_, lines))) => lines.push((key, value.trim())),
            _ => {}
        }
    }
    let keys: Vec<&str> = kernel
        .first()
        .map_or_else(Vec::new, |(_, lines)| lines.iter().map(|line| line.0).collect());
    let mut kernel = kernel.iter().peekable();
    let mut text = String::new();
    for line in maps.lines() {
        let Some((start, end)) = range(line) else { continue };
        while kernel.next_if(|((_, to), _)| *to <= start).is_some() {}
        let mut parts = Vec::new();
        while let Some((_, lines)) = kernel.next_if(|((from, _), _)| *from < end) {
            parts.push(lines);
        }
        let values = |key: &str| {
            let all = parts.iter().flat_map(|lines| lines.iter());
            all.filter(|(k, _)| *k == key).map(|(_, value)| *value).collect::<Vec<_>>()
        };
        let number = |value: &&str| value.trim_end_matches(" kB").parse::<u64>().unwrap_or(0);
        text.push_str(line);
        text.push('\n');
        for key in &keys {
            // Writing to a String cannot fail.
            let _ = match *key {
                "Size" => writeln!(text, "{:<16}{:8} kB", "Size:", (end - start) / 1024),
                "KernelPageSize" | "MMUPageSize" => {
                    writeln!(text, "{:<16}{:8} kB", format!("{key}:"), 4)
                }
                "THPeligible" => writeln!(text, "{:<16}{:8}", "THPeligible:", 0),
                "VmFlags" => writeln!(text, "VmFlags: {} ", values(key).first().unwrap_or(&"")),
                _ => {
                    let sum: u64 = values(key).iter().map(number).sum();
                    writeln!(text, "{:<16}{sum:8} kB", format!("{key}:"))
                }
            };
        }
    }
    text
}

/// The text of a file just opened.
fn contents(fd: u64) -> Option<String> {
    let mut text = String::new();
    // SAFETY: the descriptor is open, and is not closed here.
    let mut file = ManuallyDrop::new(unsafe { std::fs::File::from_raw_fd(fd as i32) });
    file.read_to_string(&mut text).ok()?;
    Some(text)
}

/// `/proc/PID/fdinfo/FD` with the open flags as x86_64 has them.
fn with_guest_flags(text: &str) -> String {
    const FLAGS: &str = "flags:\t0";
    let line = |line: &str| match line.strip_prefix(FLAGS).map(|n| u64::from_str_radix(n, 8)) {
        Some(Ok(flags)) => format!("{FLAGS}{:o}\n", open_flags::to_guest(flags)),
        _ => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

/// A descriptor to read a text from, at its beginning.
fn open_text(task: &mut Task, text: &[u8], cloexec: bool) -> SysResult {
    let flags = if cloexec { libc::MFD_CLOEXEC } else { 0 };
    let fd =
        task.host_call(nr::memfd_create, [c"proc".as_ptr() as u64, u64::from(flags), 0, 0, 0, 0])?;
    let mut done = 0;
    while done < text.len() {
        let rest = &text[done..];
        // SAFETY: writes a live slice to our own descriptor.
        let n = unsafe { libc::pwrite(fd as i32, rest.as_ptr().cast(), rest.len(), done as i64) };
        if n <= 0 {
            // SAFETY: the descriptor was made above.
            unsafe { libc::close(fd as i32) };
            return Err(Errno(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)));
        }
        done += n as usize;
    }
    Ok(fd)
}

/// Registers of CPUID's answers, by their index in [`leaf`]'s.
const EAX: usize = 0;
const EBX: usize = 1;
const ECX: usize = 2;
const EDX: usize = 3;

/// Names of feature bits (arch/x86/include/asm/cpufeatures.h): leaf, register, and what its bits
/// are called, from bit 0 on; "" where there is no name.
#[rustfmt::skip]
const FEATURES: &[(u32, usize, [&str; 32])] = &[
    (1, EDX, ["fpu", "vme", "de", "pse", "tsc", "msr", "pae", "mce", "cx8", "apic", "", "sep", "mtrr", "pge", "mca",
              "cmov", "pat", "pse36", "pn", "clflush", "", "dts", "acpi", "mmx", "fxsr", "sse", "sse2", "ss", "ht",
              "tm", "ia64", "pbe"]),
    (0x8000_0001, EDX, ["", "", "", "", "", "", "", "", "", "", "", "syscall", "", "", "", "", "", "", "", "mp", "nx",
                        "", "mmxext", "", "", "fxsr_opt", "pdpe1gb", "rdtscp", "", "lm", "3dnowext", "3dnow"]),
    (1, ECX, ["pni", "pclmulqdq", "dtes64", "monitor", "ds_cpl", "vmx", "smx", "est", "tm2", "ssse3", "cid", "sdbg",
              "fma", "cx16", "xtpr", "pdcm", "", "pcid", "dca", "sse4_1", "sse4_2", "x2apic", "movbe", "popcnt",
              "tsc_deadline_timer", "aes", "xsave", "", "avx", "f16c", "rdrand", "hypervisor"]),
    (0x8000_0001, ECX, ["lahf_lm", "cmp_legacy", "svm", "extapic", "cr8_legacy", "abm", "sse4a", "misalignsse",
                        "3dnowprefetch", "osvw", "ibs", "xop", "skinit", "wdt", "", "lwp", "fma4", "tce", "",
                        "nodeid_msr", "", "tbm", "topoext", "", "", "", "", "", "", "", "", ""]),
    (7, EBX, ["fsgsbase", "tsc_adjust", "sgx", "bmi1", "hle", "avx2", "", "smep", "bmi2", "erms", "invpcid", "rtm",
              "cqm", "", "mpx", "rdt_a", "avx512f", "avx512dq", "rdseed", "adx", "smap", "avx512ifma", "", "clflushopt",
              "clwb", "intel_pt", "avx512pf", "avx512er", "avx512cd", "sha_ni", "avx512bw", "avx512vl"]),
];

/// The processor's features as the kernel would list them.
fn flags() -> String {
    let of = |(number, register, names): &(u32, usize, [&'static str; 32])| {
        let bits = leaf(*number, 0)[*register];
        let names = *names;
        (0..32).filter(move |bit| bits >> bit & 1 != 0).map(move |bit| names[bit as usize])
    };
    let names: Vec<&str> = FEATURES.iter().flat_map(of).filter(|name| !name.is_empty()).collect();
    names.join(" ")
}

/// Family, model and stepping (Intel SDM vol. 2, CPUID, figure 3-6).
fn signature() -> [u32; 3] {
    let eax = leaf(1, 0)[EAX];
    let family = (eax >> 8 & 0xf) + (eax >> 20 & 0xff);
    [family, eax >> 4 & 0xf | eax >> 12 & 0xf0, eax & 0xf]
}

/// The vendor and the brand string.
fn names() -> [String; 2] {
    let text = |words: &[u32]| {
        let bytes: Vec<u8> =
            words.iter().flat_map(|w| w.to_le_bytes()).take_while(|&b| b != 0).collect();
        String::from_utf8_lossy(&bytes).trim().to_owned()
    };
    let first = leaf(0, 0);
    let brand: Vec<u32> = (0x8000_0002..=0x8000_0004).flat_map(|number| leaf(number, 0)).collect();
    [text(&[first[EBX], first[EDX], first[ECX]]), text(&brand)]
}

/// `/proc/cpuinfo`: one block for each processor this process may run on.
fn cpu_info() -> String {
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    let ([vendor, brand], [family, model, stepping], flags) = (names(), signature(), flags());
    let level = leaf(0, 0)[EAX];
    let mut text = String::new();
    for processor in 0..count {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "processor\t: {processor}\nvendor_id\t: {vendor}\ncpu family\t: {family}\nmodel\t\t: {model}\n\
             model name\t: {brand}\nstepping\t: {stepping}\nmicrocode\t: 0x1\ncpu MHz\t\t: 1000.000\n\
             cache size\t: 4096 KB\nphysical id\t: 0\nsiblings\t: {count}\ncore id\t\t: {processor}\n\
             cpu cores\t: {count}\napicid\t\t: {processor}\ninitial apicid\t: {processor}\nfpu\t\t: yes\n\
             fpu_exception\t: yes\ncpuid level\t: {level}\nwp\t\t: yes\nflags\t\t: {flags}\nbugs\t\t:\n\
             bogomips\t: 2000.00\nclflush size\t: 64\ncache_alignment\t: 64\n\
             address sizes\t: 39 bits physical, 48 bits virtual\npower management:\n\n"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_this_process_only() {
        let file = |path: &str| File::of(path.as_bytes(), 7, 9);
        assert_eq!(file("/proc/self/exe"), Some(File::Exe));
        assert_eq!(file("/proc/thread-self/maps"), Some(File::Maps));
        assert_eq!(file("/proc/7/cmdline"), Some(File::CommandLine));
        assert_eq!(file("/proc/9//./environ"), Some(File::Environment));
        assert_eq!(file("/proc/self/task/9/auxv"), Some(File::AuxiliaryVector));
        assert_eq!(file("/proc/self/smaps"), Some(File::MapsInDetail));
        assert_eq!(file("/proc/cpuinfo"), Some(File::CpuInfo));
        for other in [
            "/proc/8/exe",
            "/proc/self/exe/x",
            "/proc/self",
            "/proc/self/fd/3",
            "/proc/cpuinfo/x",
            "/self/exe",
            "proc/self/exe",
        ] {
            assert_eq!(file(other), None, "{other}");
        }
    }

    #[test]
    fn descriptors_by_name() {
        let number = |path: &str| descriptor(path.as_bytes(), 7, 9);
        for own in [
            "/dev/fd/12",
            "/proc/self/fd/12",
            "/proc/7//fdinfo/./12",
            "/proc/thread-self/fd/12",
            "/proc/self/task/9/fd/12",
        ] {
            assert_eq!(number(own), Some(12), "{own}");
        }
        for other in [
            "/proc/8/fd/12",
            "/proc/self/fd",
            "/proc/self/fd/x",
            "/dev/fd",
            "/proc/self/ns/12",
            "12",
        ] {
            assert_eq!(number(other), None, "{other}");
        }
    }

    #[test]
    fn names_that_the_kernel_gives() {
        let file = |link: &str| File::of_link(link.as_bytes(), |number| number == 7 || number == 9);
        assert_eq!(file("/proc/7/exe"), Some(File::Exe));
        assert_eq!(file("/proc/7/task/9/maps"), Some(File::Maps));
        assert_eq!(file("/srv/root/proc/9/smaps"), Some(File::MapsInDetail));
        assert_eq!(file("/proc/cpuinfo"), Some(File::CpuInfo));
        assert_eq!(file("/cpuinfo"), Some(File::CpuInfo));
        assert_eq!(file("/proc/8/fdinfo/9"), Some(File::DescriptorInfo));
        assert_eq!(file("/proc/8/task/9/fdinfo/10"), Some(File::DescriptorInfo));
        for other in [
            "/proc/8/exe",
            "/proc/7/fd/9",
            "/proc/7/comm",
            "/proc/8/cpuinfo",
            "cpuinfo",
            "",
            "pipe:[7]",
        ] {
            assert_eq!(file(other), None, "{other}");
        }
    }

    #[test]
    fn flags_of_descriptors() {
        let host = "pos:\t0\nflags:\t02440000\nmnt_id:\t9\nino:\t1\nflags:\n";
        let guest = "pos:\t0\nflags:\t02300000\nmnt_id:\t9\nino:\t1\nflags:\n";
        assert_eq!(with_guest_flags(host), guest);
    }

    #[test]
    fn sums_of_the_kernels_mappings() {
        let maps = "1000-3000 rw-p 00000000 00:00 0 \n3000-4000 r--p 00000000 00:00 0          [x]\n\
                    8000-9000 r--p 00000000 00:00 0 \n";
        let mapping = |range, rss| {
            format!(
                "{range} rw-p 00000000 00:00 0 \nSize:  99 kB\nKernelPageSize: 16 kB\nRss:   {rss} kB\nTHPeligible:    1\nVmFlags: rd wr \n"
            )
        };
        let host = [
            mapping("0-800", 7),
            mapping("1000-2000", 4),
            mapping("2000-4000", 5),
            mapping("5000-6000", 6),
        ];
        let detail = |size, rss, flags| {
            format!(
                "Size:           {size:8} kB\nKernelPageSize:        4 kB\nRss:            {rss:8} kB\n\
                     THPeligible:           0\nVmFlags: {flags} \n"
            )
        };
        let lines: Vec<&str> = maps.lines().collect();
        let expected = [
            lines[0],
            "\n",
            &detail(8, 9, "rd wr"),
            lines[1],
            "\n",
            &detail(4, 0, ""),
            lines[2],
            "\n",
            &detail(4, 0, ""),
        ];
        assert_eq!(detailed_maps(maps, &host.concat()), expected.concat());
    }

    #[test]
    fn a_block_for_each_processor() {
        let text = cpu_info();
        let count = std::thread::available_parallelism().unwrap().get();
        assert_eq!(text.matches("processor\t: ").count(), count);
        assert!(text.contains("vendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 158\n"));
        assert!(text.contains("\nflags\t\t: "));
        assert!(flags().split(' ').any(|flag| flag == "lm") && !flags().contains("avx512"));
        assert!(text.ends_with("power management:\n\n"));
    }

    #[test]
    fn made_up_files_read_from_the_start() {
        let area = *b"demo\0-x\0";
        let start = area.as_ptr() as u64;
        assert_eq!(strings(&(start..start + 8)), area);
    }
}
