//! This very program as a file, and the kernel it runs on.

use goblin::container::{Container, Ctx, Endian};
use goblin::elf::header::ET_DYN;
use goblin::elf::program_header::PT_INTERP;
use goblin::elf::{Elf, ProgramHeader};
use std::ffi::CStr;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

const SELF: &str = "/proc/self/exe";

/// Its path: absolute, without symbolic links.
pub fn path() -> io::Result<PathBuf> {
    fs::read_link(SELF)
}

/// Its path, to be shown.
pub fn path_text() -> String {
    path().map_or_else(|_| "demotic".into(), |path| path.display().to_string())
}

/// Which file it is, whatever the path to it.
pub fn identity(path: impl AsRef<Path>) -> io::Result<(u64, u64)> {
    let metadata = fs::metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Whether two paths lead to the same file as this program's.
pub fn is_at(path: impl AsRef<Path>) -> bool {
    matches!((identity(path), identity(SELF)), (Ok(a), Ok(b)) if a == b)
}

/// What makes the file fit for binfmt_misc, or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Linkage {
    /// It needs no other file to run.
    pub is_static: bool,
    /// It can be loaded anywhere, out of the way of the programs it runs.
    pub is_position_independent: bool,
}

/// How this program is linked.
pub fn linkage() -> io::Result<Linkage> {
    const EHDR_SIZE: usize = 64;
    let file = File::open(SELF)?;
    let mut header = [0; EHDR_SIZE];
    file.read_exact_at(&mut header, 0)?;
    let odd = |_| io::Error::from(io::ErrorKind::InvalidData);
    let header = Elf::parse_header(&header).map_err(odd)?;
    let mut table = vec![0; usize::from(header.e_phnum) * usize::from(header.e_phentsize)];
    file.read_exact_at(&mut table, header.e_phoff)?;
    let ctx = Ctx::new(Container::Big, Endian::Little);
    let segments = ProgramHeader::parse(&table, 0, header.e_phnum.into(), ctx).map_err(odd)?;
    Ok(Linkage {
        is_static: segments.iter().all(|segment| segment.p_type != PT_INTERP),
        is_position_independent: header.e_type == ET_DYN,
    })
}

/// The file's metadata.
pub fn metadata() -> io::Result<Metadata> {
    fs::metadata(SELF)
}

/// The kernel's release, as uname(2) gives it.
pub fn kernel_release() -> String {
    // SAFETY: all zero is a valid utsname, and the call fills it with null-terminated strings.
    unsafe {
        let mut name: libc::utsname = std::mem::zeroed();
        libc::uname(&mut name);
        CStr::from_ptr(name.release.as_ptr()).to_string_lossy().into_owned()
    }
}

/// The first two numbers of the kernel's version.
pub fn kernel_version() -> (u32, u32) {
    version(&kernel_release())
}

fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        assert_eq!(version("6.12.95+deb12-arm64"), (6, 12));
        assert_eq!(version("7.2-rc1"), (7, 2));
        assert_eq!(version(""), (0, 0));
        assert!(kernel_version() > (3, 0));
    }

    /// (An emulator of the processor has a file of its own there.)
    #[test]
    #[cfg(target_arch = "x86_64")]
    fn this_program_is_itself() {
        assert!(is_at(SELF) && is_at(path().unwrap()));
        assert!(!is_at("/") && !is_at("/nonexistent"));
    }

    #[test]
    fn this_program_is_position_independent() {
        let linkage = linkage().unwrap();
        assert!(linkage.is_position_independent || cfg!(target_arch = "aarch64"));
        assert_eq!(linkage.is_static, cfg!(target_feature = "crt-static"));
    }
}
