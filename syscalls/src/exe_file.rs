//! The file that a process executes, to the kernel: nobody may write to it (ETXTBSY), and `/proc/PID/exe` leads to
//! it. Of a translated program the kernel takes the translator's file for that, until it is told of the program's
//! ([`process::show`](crate::process)). It refuses that for as long as the old file is mapped by the
//! path it was executed by (replace_mm_exe_file in kernel/fork.c), and the translator's code is. So its file has a
//! second name, a hard link beside the first: mapped by that name it is the same memory, shared by all processes.
//! Where another root directory hides that name, a mount of the file for this process alone stands for it.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Error};
use std::ops::Range;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::memory::host_page_size;

/// The second name of the translator's file, by its first.
pub fn second_name(program: &Path) -> PathBuf {
    let mut name = OsString::from(program);
    name.push(".alias");
    name.into()
}

/// Whether this process may change its file: CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE, in its user namespace.
fn is_permitted() -> bool {
    const VERSION_3: u32 = 0x2008_0522;
    const CAP_SYS_ADMIN: u64 = 21;
    const CAP_CHECKPOINT_RESTORE: u64 = 40;
    let header = [VERSION_3, 0];
    // Effective, permitted and inheritable; the lower 32 bits, then the upper.
    let mut data = [[0u32; 3]; 2];
    // SAFETY: the kernel reads the one and fills the other.
    let result = unsafe { libc::syscall(libc::SYS_capget, header.as_ptr(), data.as_mut_ptr()) };
    let effective = u64::from(data[1][0]) << 32 | u64::from(data[0][0]);
    result == 0 && effective & (1 << CAP_SYS_ADMIN | 1 << CAP_CHECKPOINT_RESTORE) != 0
}

/// A file of the translator's by its second name: in another root directory the name may lead nowhere, or to another
/// file.
fn by_second_name(path: &Path) -> Option<File> {
    let open = || File::options().read(true).custom_flags(libc::O_CLOEXEC).open(second_name(path));
    let identity = |file: io::Result<std::fs::Metadata>| file.map(|m| (m.dev(), m.ino())).ok();
    let own = identity(std::fs::metadata("/proc/self/exe"))?;
    open().ok().filter(|file| identity(file.metadata()) == Some(own))
}

/// The translator's file by a mount of its own, which nobody else sees and which goes with its last use. That takes
/// CAP_SYS_ADMIN where the file is mounted, and /proc. A filter of system calls may end the process for it.
fn by_own_mount() -> Option<File> {
    const OPEN_TREE_CLONE: libc::c_int = 1;
    // SAFETY: asks for a number.
    if unsafe { libc::prctl(libc::PR_GET_SECCOMP) } != 0 {
        return None;
    }
    let (own, flags) = (c"/proc/self/exe".as_ptr(), OPEN_TREE_CLONE | libc::O_CLOEXEC);
    // SAFETY: the name is null-terminated; the descriptor is new and nobody else's.
    let tree = unsafe {
        let tree = libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, own, flags);
        (tree >= 0).then(|| OwnedFd::from_raw_fd(tree as i32))?
    };
    File::open(format!("/proc/self/fd/{}", tree.as_raw_fd())).ok()
}

/// Has the translator's own code mapped by another name than the one that was executed, if the process may then change
/// its file. `path` is the first name. Whether it is done.
///
/// # Safety
/// The process has one thread, and no signal handler runs.
pub(crate) unsafe fn make_way(path: &Path) -> bool {
    if !is_permitted() {
        return false;
    }
    let Some(file) = by_second_name(path).or_else(by_own_mount) else { return false };
    // SAFETY: as the caller promises; it is the same file.
    Segments::own().all(|segment| unsafe { segment.remap(&file) }.is_ok())
}

/// A loaded part of this program.
#[derive(Clone, Debug)]
struct Segment {
    /// Whole pages.
    memory: Range<u64>,
    /// Where in the file the first page comes from.
    offset: u64,
    writable: bool,
    /// Whole pages that were made read-only when relocations had been applied (PT_GNU_RELRO).
    read_only: Range<u64>,
}

/// The parts of this program.
struct Segments;

impl Segments {
    fn own() -> impl Iterator<Item = Segment> {
        let mut found = Vec::new();
        // SAFETY: the callback fits the data it gets.
        unsafe { libc::dl_iterate_phdr(Some(Self::visit), (&raw mut found).cast()) };
        found.into_iter()
    }

    /// Takes the first object, which is the program.
    unsafe extern "C" fn visit(
        info: *mut libc::dl_phdr_info,
        _size: usize,
        found: *mut libc::c_void,
    ) -> i32 {
        // SAFETY: the C library passes a valid record, and `own` its list.
        let (info, found) = unsafe { (&*info, &mut *found.cast::<Vec<Segment>>()) };
        // SAFETY: the program headers are mapped for as long as the program.
        let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
        *found = Segment::of(headers, info.dlpi_addr, host_page_size());
        1
    }
}

impl Segment {
    /// What the kernel and the C library made of program headers.
    fn of(headers: &[libc::Elf64_Phdr], bias: u64, page: u64) -> Vec<Self> {
        let down = |address: u64| address & !(page - 1);
        let of_type = |kind| headers.iter().filter(move |header| header.p_type == kind);
        let relro = of_type(libc::PT_GNU_RELRO).next().map_or(0..0, |header| {
            let start = bias + header.p_vaddr;
            down(start)..down(start + header.p_memsz)
        });
        let segment = |header: &libc::Elf64_Phdr| {
            let start = down(bias + header.p_vaddr);
            let end = down(bias + header.p_vaddr + header.p_memsz + page - 1);
            let within = start..end;
            Self {
                offset: header.p_offset & !(page - 1),
                writable: header.p_flags & libc::PF_W != 0,
                read_only: if within.contains(&relro.start) { relro.clone() } else { 0..0 },
                memory: within,
            }
        };
        of_type(libc::PT_LOAD).map(segment).collect()
    }

    /// Puts other pages with the same bytes in the place of the segment's: of the same file by another name, or, if
    /// it can be written to, of no file.
    ///
    /// # Safety
    /// `file` is the program's. Nothing else runs in this process, so that nothing changes the bytes meanwhile.
    unsafe fn remap(&self, file: &File) -> io::Result<()> {
        let (start, len) = (self.memory.start, (self.memory.end - self.memory.start) as usize);
        let page = start as *mut libc::c_void;
        let done = |at| if at == libc::MAP_FAILED { Err(Error::last_os_error()) } else { Ok(at) };
        if !self.writable {
            let prot = libc::PROT_READ | libc::PROT_EXEC;
            let flags = libc::MAP_PRIVATE | libc::MAP_FIXED;
            let (fd, offset) = (file.as_raw_fd(), self.offset as i64);
            // SAFETY: what is there is replaced by the same in one step, the code that runs among it.
            return done(unsafe { libc::mmap(page, len, prot, flags, fd, offset) }).map(drop);
        }
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let null = std::ptr::null_mut();
        // SAFETY: new memory; then a copy of the segment, made and put in its place while nothing writes to it.
        unsafe {
            let copy = done(libc::mmap(null, len, prot, flags, -1, 0))?;
            std::ptr::copy_nonoverlapping(page.cast::<u8>(), copy.cast::<u8>(), len);
            let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
            done(libc::mremap(copy, len, len, flags, page))?;
            let Range { start, end } = self.read_only;
            if start < end {
                libc::mprotect(start as *mut _, (end - start) as usize, libc::PROT_READ);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a translated program's: its file cannot be written to. (An emulator's process is not its program's.)
    #[test]
    #[cfg(target_arch = "x86_64")]
    fn a_file_in_the_place_of_the_programs_own() {
        let own = std::env::current_exe().unwrap();
        let first = own.with_extension(format!("{}", std::process::id()));
        is_in_its_place(&first, is_permitted() && by_own_mount().is_some());
        let alias = second_name(&first);
        std::fs::hard_link(&own, &alias).unwrap();
        is_in_its_place(&first, is_permitted());
        std::fs::remove_file(alias).unwrap();
    }

    #[cfg(target_arch = "x86_64")]
    fn is_in_its_place(first: &Path, permitted: bool) {
        let other = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        std::fs::copy("/bin/true", &other).unwrap();
        let program = File::open(&other).unwrap();
        let write = || File::options().write(true).open(&other);
        let strings = b"x\0".as_ptr_range();
        let strings = strings.start as u64..strings.end as u64;
        // SAFETY: the child has one thread, makes system calls, and ends.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: there is one thread, and no handler of signals.
            let mut good = unsafe { make_way(first) } == permitted;
            if permitted {
                let program = Some(program.as_raw_fd());
                // SAFETY: this process does not look at its arguments any more.
                good &= unsafe { crate::process::show(&strings, &strings, program) };
                good &= std::fs::read_link("/proc/self/exe").is_ok_and(|exe| *exe == *other);
                good &= write().is_err_and(|e| e.raw_os_error() == Some(libc::ETXTBSY));
            }
            // SAFETY: ends the child.
            unsafe { libc::_exit(i32::from(!good)) };
        }
        let mut status = 0;
        // SAFETY: waits for the child made above.
        unsafe { libc::waitpid(child, &mut status, 0) };
        assert_eq!(status, 0);
        write().unwrap();
    }

    #[test]
    fn another_file_of_that_name_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let first = folder.path().join("x");
        assert!(by_second_name(&first).is_none());
        std::fs::write(second_name(&first), "x").unwrap();
        assert!(by_second_name(&first).is_none());
    }

    #[test]
    fn the_second_name_is_beside_the_first() {
        assert_eq!(second_name(Path::new("/usr/bin/demotic")), Path::new("/usr/bin/demotic.alias"));
    }

    #[test]
    fn segments_are_whole_pages() {
        let header = |p_type, p_flags, p_vaddr, p_memsz| libc::Elf64_Phdr {
            p_type,
            p_flags,
            p_offset: p_vaddr - p_vaddr / 0x10000 * 0x10000,
            p_vaddr,
            p_paddr: p_vaddr,
            p_filesz: p_memsz,
            p_memsz,
            p_align: 0x10000,
        };
        let headers = [
            header(libc::PT_LOAD, libc::PF_R | libc::PF_X, 0, 0x30544),
            header(libc::PT_LOAD, libc::PF_R | libc::PF_W, 0x4aa20, 0xa0138),
            header(libc::PT_GNU_RELRO, libc::PF_R, 0x4aa20, 0x955e0),
        ];
        for page in [0x1000, 0x4000] {
            let [text, data] = &Segment::of(&headers, 0x7000_0000, page)[..] else { panic!() };
            assert_eq!(text.memory.start..text.memory.end - page, 0x7000_0000..0x7003_0000);
            assert!(!text.writable && data.writable && text.read_only.is_empty());
            assert_eq!(data.read_only, data.memory.start..0x700e_0000);
            assert_eq!(data.memory.start, 0x7004_aa20 / page * page);
            assert_eq!(data.offset, 0xaa20 / page * page);
        }
    }
}
