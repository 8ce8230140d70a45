//! `--dump-asm`: a region's guest instructions and what was emitted for them, side by side.

use crate::lower::MapEntry;
use crate::region::Region;

/// Prints a region to standard error.
pub fn region(region: &Region, code: &[u8], map: &[MapEntry]) {
    eprint!("{}", text(region, code, map));
}

/// The listing of a region.
pub fn text(region: &Region, code: &[u8], map: &[MapEntry]) -> String {
    use std::fmt::Write;
    let mut out = String::new();
    let _ = writeln!(out, "region {:#x}: {} guest instructions", region.entry, region.insns.len());
    let mut marks = map.iter().peekable();
    for (i, word) in code.chunks_exact(4).enumerate() {
        while let Some(m) = marks.next_if(|m| m.host as usize <= 4 * i) {
            let guest = region.entry + u64::from(m.guest);
            if let Some(k) = region.index_of(guest) {
                let _ = writeln!(out, "{guest:#x}: {:?}", region.insns[k].ins.code());
            }
        }
        let word = u32::from_le_bytes(word.try_into().expect("four bytes"));
        let _ = writeln!(out, "    {:5x}: {word:08x}", 4 * i);
    }
    out
}
