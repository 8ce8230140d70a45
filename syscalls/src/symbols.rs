//! What guest code is called: the symbols of the files that it was mapped from. For `--profile`, `--perf-map` and
//! `--dump-asm`, which a program does not see.

use crate::memmap::File;
use goblin::elf::Elf;
use goblin::elf::program_header::PT_LOAD;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Mutex;

/// The functions of a file.
#[derive(Debug, Default)]
struct Symbols {
    /// Address, size and name, ascending.
    functions: Vec<(u64, u64, String)>,
    /// The file's segments: offset, length, address.
    segments: Vec<(u64, u64, u64)>,
}

impl Symbols {
    /// Those of a file; none if it is no ELF file, or gone.
    fn of(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap_or_default();
        Elf::parse(&bytes).map_or_else(|_| Self::default(), |elf| Self::of_elf(&elf))
    }

    fn of_elf(elf: &Elf) -> Self {
        let tables = [(&elf.syms, &elf.strtab), (&elf.dynsyms, &elf.dynstrtab)];
        let mut functions: Vec<_> = tables
            .iter()
            .flat_map(|(symbols, names)| symbols.iter().map(move |symbol| (symbol, names)))
            .filter(|(symbol, _)| symbol.is_function() && symbol.st_value != 0)
            .filter_map(|(symbol, names)| {
                let name = names.get_at(symbol.st_name)?;
                Some((symbol.st_value, symbol.st_size, name.to_owned()))
            })
            .collect();
        functions.sort_unstable();
        functions.dedup_by_key(|(address, ..)| *address);
        let loaded = elf.program_headers.iter().filter(|header| header.p_type == PT_LOAD);
        let segments = loaded.map(|h| (h.p_offset, h.p_filesz, h.p_vaddr)).collect();
        Self { functions, segments }
    }

    /// The function at an offset of the file, and how far behind its start that is.
    fn at(&self, offset: u64) -> Option<(&str, u64)> {
        let within = |(start, length, _): &&(u64, u64, u64)| offset.wrapping_sub(*start) < *length;
        let (start, _, address) = self.segments.iter().find(within)?;
        let address = offset - start + address;
        let behind = self.functions.partition_point(|(start, ..)| *start <= address);
        let (start, size, name) = self.functions.get(behind.checked_sub(1)?)?;
        // Functions of assembly code have no size.
        (*size == 0 || address - start < *size).then_some((name, address - start))
    }
}

/// What has been read so far, by path. Held only under the translator's lock, which a fork takes first.
static KNOWN: Mutex<Option<HashMap<Vec<u8>, Symbols>>> = Mutex::new(None);

/// A name for the code at an offset of a file: `function+0x10 in library`, or `library+0x1234`.
pub fn name(file: &File, offset: u64) -> String {
    let path = Path::new(OsStr::from_bytes(&file.path));
    let library = path.file_name().unwrap_or_default().to_string_lossy();
    let mut known = KNOWN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let symbols =
        known.get_or_insert_default().entry(file.path.clone()).or_insert_with(|| Symbols::of(path));
    match symbols.at(offset) {
        Some((function, 0)) => format!("{function} in {library}"),
        Some((function, distance)) => format!("{function}+{distance:#x} in {library}"),
        None => format!("{library}+{offset:#x}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_found_by_their_place_in_the_file() {
        let symbols = Symbols {
            functions: vec![(0x40_1000, 0x20, "main".into()), (0x40_1040, 0, "start".into())],
            segments: vec![(0, 0x800, 0x40_0000), (0x800, 0x1000, 0x40_1000)],
        };
        assert_eq!(symbols.at(0x800), Some(("main", 0)));
        assert_eq!(symbols.at(0x81f), Some(("main", 0x1f)));
        assert_eq!(symbols.at(0x820), None); // between the two
        assert_eq!(symbols.at(0x850), Some(("start", 0x10)));
        assert_eq!(symbols.at(0x100), None); // before the first
        assert_eq!(symbols.at(0x1800), None); // behind the file
    }
}
