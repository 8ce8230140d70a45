//! What an x86_64 ELF file asks for (System V gABI chapters 4 and 5, x86-64 psABI chapter 4),
//! parsed and checked, without touching memory: the decisions are those of Linux' fs/binfmt_elf.c.

use crate::error::LoadError;
use goblin::container::{Container, Ctx};
use goblin::elf::header::{ELFMAG, EM_386, EM_X86_64, ET_DYN, ET_EXEC};
use goblin::elf::program_header::{
    PF_R, PF_W, PF_X, PT_GNU_PROPERTY, PT_GNU_STACK, PT_INTERP, PT_LOAD,
};
use goblin::elf::{Elf, Header, ProgramHeader};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// Size of a guest page.
pub const PAGE: u64 = 4096;
/// End of the guest's address space (TASK_SIZE of x86_64 with four-level paging).
pub const ADDRESS_END: u64 = (1 << 47) - PAGE;

/// Sizes the gABI fixes for 64-bit files.
pub const EHDR_SIZE: usize = 64;
const PHDR_SIZE: u64 = 56;
/// The kernel refuses a program header table above a page (load_elf_phdrs).
const PHDRS_MAX: u64 = PAGE;
const PATH_MAX: u64 = 4096;
/// Enough for the properties that exist; a longer note is cut, not refused.
const PROPERTY_MAX: u64 = 1024;

/// Rounds down to a guest page.
pub const fn page_down(addr: u64) -> u64 {
    addr & !(PAGE - 1)
}

/// Rounds up to a guest page. Only for values checked to be below [`ADDRESS_END`].
pub const fn page_up(addr: u64) -> u64 {
    page_down(addr + PAGE - 1)
}

/// Where the bytes of the file come from.
pub trait Source {
    /// Length of the file.
    fn size(&self) -> u64;
    /// Fills `buf` from `offset` on, or fails.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
}

impl Source for [u8] {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let bytes = usize::try_from(offset)
            .ok()
            .and_then(|start| self.get(start..)?.get(..buf.len()))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(bytes);
        Ok(())
    }
}

/// An open file and its length.
pub struct FileSource<'a> {
    /// The file.
    pub file: &'a File,
    /// Its length.
    pub len: u64,
}

impl Source for FileSource<'_> {
    fn size(&self) -> u64 {
        self.len
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }
}

/// One thing to do to guest memory; addresses are those of the file, before relocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Map whole pages of the file, privately.
    File {
        /// First address.
        addr: u64,
        /// Length in bytes; the rest of the last page is mapped too.
        len: u64,
        /// Offset in the file.
        offset: u64,
        /// PROT_* bits.
        prot: u32,
    },
    /// Map zeroed pages.
    Anonymous {
        /// First address.
        addr: u64,
        /// Length in bytes, whole pages.
        len: u64,
        /// PROT_* bits.
        prot: u32,
    },
    /// Zero part of one page that an earlier step mapped: the start of a bss.
    Zero {
        /// First address.
        addr: u64,
        /// Length in bytes.
        len: u64,
        /// PROT_* bits the page has.
        prot: u32,
    },
}

/// x86-64 microarchitecture levels as GNU_PROPERTY_X86_ISA_1_NEEDED counts them (psABI 4.1.1):
/// bit 0 is the baseline, bit 1 x86-64-v2, bit 2 v3, bit 3 v4.
pub type IsaMask = u32;

/// How to load a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadPlan {
    /// Whether the addresses are an offset from a base of our choice (ET_DYN).
    pub relocatable: bool,
    /// What to do, in order.
    pub steps: Vec<Step>,
    /// Pages from the lowest to the highest address of any segment.
    pub span: Range<u64>,
    /// Largest segment alignment, a power of two and at least a page.
    pub align: u64,
    /// Where execution starts.
    pub entry: u64,
    /// Where the program header table appears in memory, if a segment covers it.
    pub phdr: Option<u64>,
    /// Number of program headers.
    pub phnum: u16,
    /// End of the highest segment, where the heap begins.
    pub brk: u64,
    /// Path of the program interpreter.
    pub interpreter: Option<PathBuf>,
    /// Whether the stack must be executable.
    pub executable_stack: bool,
    /// Microarchitecture levels the file says it needs.
    pub isa_needed: IsaMask,
}

/// Decides how to load the file, or says why it cannot be.
pub fn plan<S: Source + ?Sized>(source: &S) -> Result<LoadPlan, LoadError> {
    let header = read_header(source)?;
    let headers = read_program_headers(source, &header)?;
    let of_type = |p_type| headers.iter().find(move |p: &&ProgramHeader| p.p_type == p_type);
    // What execve(2) can still fail for comes first, as in the kernel.
    let interpreter = of_type(PT_INTERP).map(|p| interpreter(source, p)).transpose()?;

    let loads: Vec<Segment> = headers
        .iter()
        .filter(|p| p.p_type == PT_LOAD && p.p_memsz > 0)
        .map(|p| Segment::new(p, source.size()))
        .collect::<Result<_, _>>()?;
    let span = span(&loads)?;
    let align = loads.iter().map(|s| s.align).max().unwrap_or(PAGE);
    if align > ADDRESS_END / 2 {
        return Err(LoadError::Malformed("a segment's alignment exceeds the address space"));
    }
    Ok(LoadPlan {
        relocatable: header.e_type == ET_DYN,
        steps: steps(&loads),
        align,
        entry: header.e_entry,
        // Of several the last, as in Linux.
        phdr: loads.iter().rev().find_map(|s| s.address_of(header.e_phoff)),
        phnum: header.e_phnum,
        brk: loads.iter().map(|s| s.memory.end).max().unwrap_or(span.end),
        span,
        interpreter,
        executable_stack: of_type(PT_GNU_STACK).is_some_and(|p| p.p_flags & PF_X != 0),
        isa_needed: of_type(PT_GNU_PROPERTY).map_or(0, |p| isa_needed(source, p)),
    })
}

/// Reads the file header and checks that it is an x86_64 program's.
fn read_header<S: Source + ?Sized>(source: &S) -> Result<Header, LoadError> {
    let mut bytes = [0; EHDR_SIZE];
    let available = source.size().min(EHDR_SIZE as u64) as usize;
    source.read_at(&mut bytes[..available], 0).map_err(LoadError::Read)?;
    if bytes.starts_with(b"#!") {
        return Err(LoadError::Script);
    }
    if !bytes.starts_with(ELFMAG) {
        return Err(LoadError::NotElf);
    }
    if available < EHDR_SIZE {
        return Err(LoadError::Truncated { needs: EHDR_SIZE as u64, has: source.size() });
    }
    let header = Elf::parse_header(&bytes)
        .map_err(|_| LoadError::Malformed("the class or byte order in its header is unknown"))?;
    match (header.e_machine, header.container(), header.endianness()) {
        (EM_X86_64, Ok(Container::Big), Ok(goblin::container::Endian::Little)) => {}
        (EM_X86_64, Ok(Container::Little), _) => return Err(LoadError::X32),
        (EM_386, ..) => return Err(LoadError::I386),
        (machine, ..) => return Err(LoadError::Machine(machine)),
    }
    if header.e_type != ET_EXEC && header.e_type != ET_DYN {
        return Err(LoadError::NotProgram(header.e_type));
    }
    Ok(header)
}

/// Reads the program header table.
fn read_program_headers<S: Source + ?Sized>(
    source: &S,
    header: &Header,
) -> Result<Vec<ProgramHeader>, LoadError> {
    if u64::from(header.e_phentsize) != PHDR_SIZE {
        return Err(LoadError::Malformed("its program headers have an unknown size"));
    }
    let size = u64::from(header.e_phnum) * PHDR_SIZE;
    if size == 0 || size > PHDRS_MAX {
        return Err(LoadError::Malformed("it has no program headers, or too many"));
    }
    let mut bytes = vec![0; size as usize];
    read_range(source, header.e_phoff, &mut bytes)?;
    let ctx = Ctx::new(Container::Big, goblin::container::Endian::Little);
    ProgramHeader::parse(&bytes, 0, header.e_phnum.into(), ctx)
        .map_err(|_| LoadError::Malformed("its program headers cannot be read"))
}

/// Reads a range that the headers name, saying so if the file ends before it.
fn read_range<S: Source + ?Sized>(
    source: &S,
    offset: u64,
    buf: &mut [u8],
) -> Result<(), LoadError> {
    let needs = offset
        .checked_add(buf.len() as u64)
        .ok_or(LoadError::Malformed("a file offset wraps around"))?;
    if needs > source.size() {
        return Err(LoadError::Truncated { needs, has: source.size() });
    }
    source.read_at(buf, offset).map_err(LoadError::Read)
}

/// A PT_LOAD segment after its checks.
struct Segment {
    /// From p_vaddr, p_memsz bytes.
    memory: Range<u64>,
    /// End of the part that comes from the file.
    file_end: u64,
    /// Offset in the file of `memory.start`.
    offset: u64,
    align: u64,
    prot: u32,
}

impl Segment {
    fn new(header: &ProgramHeader, file_len: u64) -> Result<Self, LoadError> {
        let &ProgramHeader { p_vaddr, p_memsz, p_filesz, p_offset, p_align, p_flags, .. } = header;
        if p_filesz > p_memsz {
            return Err(LoadError::Malformed("a segment is larger in the file than in memory"));
        }
        let end = p_vaddr
            .checked_add(p_memsz)
            .filter(|&end| end <= ADDRESS_END)
            .ok_or(LoadError::Malformed("a segment lies outside the address space"))?;
        if p_filesz > 0 {
            let needs = p_offset
                .checked_add(p_filesz)
                .ok_or(LoadError::Malformed("a segment's file offset wraps around"))?;
            if needs > file_len {
                return Err(LoadError::Truncated { needs, has: file_len });
            }
            if p_offset % PAGE != p_vaddr % PAGE {
                return Err(LoadError::Malformed("a segment's offset and address disagree"));
            }
        }
        let bit = |flag, prot: i32| if p_flags & flag != 0 { prot as u32 } else { 0 };
        Ok(Self {
            memory: p_vaddr..end,
            file_end: p_vaddr + p_filesz,
            offset: p_offset,
            // Linux ignores alignments that are not powers of two.
            align: if p_align.is_power_of_two() { p_align.max(PAGE) } else { PAGE },
            prot: bit(PF_R, libc::PROT_READ)
                | bit(PF_W, libc::PROT_WRITE)
                | bit(PF_X, libc::PROT_EXEC),
        })
    }

    /// The memory address of a byte of the file, if this segment maps it.
    fn address_of(&self, offset: u64) -> Option<u64> {
        let addr = offset.checked_sub(self.offset)?.checked_add(self.memory.start)?;
        (addr < self.file_end).then_some(addr)
    }
}

/// The pages all segments lie in; refuses segments that overlap.
fn span(loads: &[Segment]) -> Result<Range<u64>, LoadError> {
    let mut sorted: Vec<&Range<u64>> = loads.iter().map(|s| &s.memory).collect();
    sorted.sort_by_key(|r| r.start);
    if sorted.windows(2).any(|w| w[0].end > w[1].start) {
        return Err(LoadError::Malformed("its segments overlap"));
    }
    match (sorted.first(), sorted.last()) {
        (Some(first), Some(last)) => Ok(page_down(first.start)..page_up(last.end)),
        _ => Err(LoadError::Malformed("it has nothing to load")),
    }
}

/// What the segments ask for. A page that two segments share belongs to the later one, as in
/// Linux, except that a segment without bytes in the file leaves the earlier one's bytes there.
fn steps(loads: &[Segment]) -> Vec<Step> {
    let mut steps = Vec::with_capacity(loads.len() * 3);
    for (i, segment) in loads.iter().enumerate() {
        let Segment { ref memory, file_end, prot, .. } = *segment;
        let start = page_down(memory.start);
        let shared = loads[..i]
            .iter()
            .any(|s| page_down(s.memory.start) <= start && start < page_up(s.memory.end));
        let has_file = file_end > memory.start;
        if has_file {
            let offset = page_down(segment.offset);
            steps.push(Step::File { addr: start, len: file_end - start, offset, prot });
        }
        if memory.end == file_end {
            continue;
        }
        // Behind a file's bytes all the rest of the page is zero (padzero in fs/binfmt_elf.c): the
        // dynamic linker allocates there.
        let page_end = page_up(file_end);
        let zero = file_end..if has_file { page_end } else { page_end.min(memory.end) };
        if (has_file || shared) && !zero.is_empty() {
            steps.push(Step::Zero { addr: zero.start, len: zero.end - zero.start, prot });
        }
        let first = if has_file || shared { page_up(file_end) } else { start };
        let end = page_up(memory.end);
        if end > first {
            steps.push(Step::Anonymous { addr: first, len: end - first, prot });
        }
    }
    steps
}

/// The path in a PT_INTERP segment.
fn interpreter<S: Source + ?Sized>(
    source: &S,
    header: &ProgramHeader,
) -> Result<PathBuf, LoadError> {
    if !(2..=PATH_MAX).contains(&header.p_filesz) {
        return Err(LoadError::Malformed("the path of its interpreter has an impossible length"));
    }
    let mut path = vec![0; header.p_filesz as usize];
    let (start, size) = (header.p_offset, source.size());
    let behind_end = |errno| LoadError::NoInterpreterPath(io::Error::from_raw_os_error(errno));
    match start.checked_add(header.p_filesz) {
        // As the kernel's own reading (elf_read, rw_verify_area).
        Some(end) if end <= size => source.read_at(&mut path, start).map_err(LoadError::Read)?,
        Some(end) if i64::try_from(end).is_ok() => return Err(behind_end(libc::EIO)),
        _ => return Err(behind_end(libc::EINVAL)),
    }
    if path.last() != Some(&0) {
        return Err(LoadError::Malformed("the path of its interpreter does not end"));
    }
    path.truncate(path.iter().position(|&b| b == 0).unwrap_or(0));
    Ok(OsString::from_vec(path).into())
}

/// GNU_PROPERTY_X86_ISA_1_NEEDED from a PT_GNU_PROPERTY segment (psABI 5.1.1; Linux extensions to
/// the gABI, section "Program Property"). What cannot be understood asks for nothing.
fn isa_needed<S: Source + ?Sized>(source: &S, header: &ProgramHeader) -> IsaMask {
    const NT_GNU_PROPERTY_TYPE_0: u32 = 5;
    const GNU_PROPERTY_X86_ISA_1_NEEDED: u32 = 0xc000_8002;
    let mut note = vec![0; header.p_filesz.min(PROPERTY_MAX) as usize];
    if source.read_at(&mut note, header.p_offset).is_err() {
        return 0;
    }
    let word =
        |bytes: &[u8]| bytes.first_chunk().map_or(0, |&b: &[u8; 4]| u32::from_le_bytes(b)) as usize;
    if word(&note) != 4 || word(note.get(8..).unwrap_or_default()) as u32 != NT_GNU_PROPERTY_TYPE_0
    {
        return 0;
    }
    let size = word(note.get(4..).unwrap_or_default());
    let mut rest = note.get(16..).unwrap_or_default();
    rest = &rest[..size.min(rest.len())];
    while let Some((property, tail)) = rest.split_at_checked(8) {
        let (kind, size) = (word(property) as u32, word(&property[4..]));
        if kind == GNU_PROPERTY_X86_ISA_1_NEEDED && size == 4 {
            return word(tail) as IsaMask;
        }
        rest = tail.get(size.next_multiple_of(8)..).unwrap_or_default();
    }
    0
}

#[cfg(test)]
mod tests;
