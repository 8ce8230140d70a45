//! What the two x86_64 files that this build writes have in common (System V gABI, chapters 4 and 5).

use std::ops::Range;

pub const EHDR_SIZE: usize = 64;
pub const PHDR_SIZE: usize = 56;

/// File types.
pub const ET_EXEC: u16 = 2;
pub const ET_DYN: u16 = 3;

/// The bytes written so far; an address in the image is an offset in the file.
pub struct Image(pub Vec<u8>);

impl Image {
    /// Pads and gives the offset at which the next part begins.
    pub fn begin(&mut self, align: usize) -> usize {
        self.0.resize(self.0.len().next_multiple_of(align), 0);
        self.0.len()
    }

    /// Writes bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Writes little-endian halves.
    pub fn u16s(&mut self, values: &[u16]) {
        values.iter().for_each(|v| self.bytes(&v.to_le_bytes()));
    }

    /// Writes little-endian words.
    pub fn u32s(&mut self, values: &[u32]) {
        values.iter().for_each(|v| self.bytes(&v.to_le_bytes()));
    }

    /// Writes little-endian double words.
    pub fn u64s(&mut self, values: &[u64]) {
        values.iter().for_each(|v| self.bytes(&v.to_le_bytes()));
    }
}

/// Elf64_Ehdr of an x86_64 file with `segments` program headers and no sections.
pub fn file_header(out: &mut Image, kind: u16, entry: u64, segments: usize) {
    out.bytes(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    out.u16s(&[kind, 62]); // EM_X86_64
    out.u32s(&[1]);
    out.u64s(&[entry, EHDR_SIZE as u64, 0]); // e_entry, e_phoff, e_shoff
    out.u32s(&[0]);
    out.u16s(&[EHDR_SIZE as u16, PHDR_SIZE as u16, segments as u16, 64, 0, 0]);
}

/// Elf64_Phdr, of a type and with flags, for a range of the image that is loaded at `base`.
pub fn program_header(
    out: &mut Image,
    [kind, flags]: [u32; 2],
    base: u64,
    range: Range<usize>,
    align: usize,
) {
    let (start, size) = (range.start as u64, range.len() as u64);
    out.u32s(&[kind, flags]);
    out.u64s(&[start, base + start, base + start, size, size, align as u64]);
}
