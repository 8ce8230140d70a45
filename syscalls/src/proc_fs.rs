//! /proc as the guest expects it: what the kernel says there of this process and of the processor is the
//! translator's truth, not the guest's.

use std::ffi::{CStr, CString, OsStr};
use std::fmt::Write;
use std::ops::Range;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use translator::cpuid::leaf;

use crate::abi::errno;
use crate::guest;
use crate::host::{Errno, SysResult};
use crate::table::host as nr;
use crate::task::Task;

/// The files that are not the kernel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum File {
    Exe,
    Maps,
    CommandLine,
    Environment,
    AuxiliaryVector,
    CpuInfo,
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
        let file = match words.next()? {
            b"exe" => Self::Exe,
            b"maps" => Self::Maps,
            b"cmdline" => Self::CommandLine,
            b"environ" => Self::Environment,
            b"auxv" => Self::AuxiliaryVector,
            _ => return None,
        };
        words.next().is_none().then_some(file)
    }

    /// Its contents; none for what is not made up.
    fn text(self, task: &Task) -> Option<Vec<u8>> {
        let image = &task.runtime().image;
        match self {
            Self::Exe => None,
            Self::Maps => Some(task.runtime().memory.proc_maps().into_bytes()),
            Self::CommandLine => Some(strings(&image.argv)),
            Self::Environment => Some(strings(&image.envp)),
            Self::AuxiliaryVector => Some(image.auxv.clone()),
            Self::CpuInfo => Some(cpu_info().into_bytes()),
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

/// Whether `path` names the link to the guest's program.
fn is_exe(task: &Task, path: &CStr) -> bool {
    File::of(path.to_bytes(), task.pid, task.tid) == Some(File::Exe)
}

/// The way to the guest's program, if that is what `path` names: through the kept descriptor, for a program may be
/// deleted, replaced, behind another root, or without a name.
pub fn exe(task: &Task, path: &CStr) -> Option<CString> {
    is_exe(task, path).then_some(())?;
    let image = &task.runtime().image;
    match image.file {
        Some(fd) => CString::new(format!("{EXE}{fd}")).ok(),
        None => CString::new(image.path.as_os_str().as_bytes()).ok(),
    }
}

/// What the kernel says of a descriptor, spelt as nobody else does: [`exe`] leads there, and when that is what was
/// executed the program started knows that its name is `/proc/self/exe`.
pub const EXE: &str = "/proc/self/./fd/";

/// The text of the link to the guest's program, as it is now, if that is what `path` names.
pub fn exe_text(task: &Task, path: &CStr) -> Option<Vec<u8>> {
    let link = exe(task, path)?;
    let text = std::fs::read_link(OsStr::from_bytes(link.to_bytes()));
    let text = text.unwrap_or_else(|_| task.runtime().image.path.clone());
    Some(text.into_os_string().into_vec())
}

/// A descriptor of contents that are made up, if `path` names such a file. `flags` are the guest's of open(2).
pub fn open(task: &mut Task, path: &CStr, flags: u64) -> Option<SysResult> {
    let text = File::of(path.to_bytes(), task.pid, task.tid)?.text(task)?;
    Some(if flags & libc::O_ACCMODE as u64 == libc::O_RDONLY as u64 {
        open_text(task, &text, flags & libc::O_CLOEXEC as u64 != 0)
    } else {
        Err(errno::EACCES)
    })
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
