//! `--dump-asm`: a region's guest instructions and what was emitted for them, side by side.

use crate::asm::{Asm, Reloc};
use crate::cache::RegionMeta;
use crate::engine::{Config, GuestMemory};
use crate::facts;
use crate::lower::{Emitted, Lower, MapEntry};
use crate::region::{CodeReader, MAX_INSTRUCTIONS, Region};
use iced_x86::{Formatter, NasmFormatter};
use std::fmt::Write;

/// Prints a region that has been put into the cache to standard error.
pub fn region(region: &Region, asm: &Asm, meta: &RegionMeta) {
    eprint!("at {:#x}: {}", meta.host, text(region, asm, meta.map));
}

/// The listing of a region: each guest instruction, behind it what was emitted for it. Host
/// addresses are offsets from the start of the region's code.
pub fn text(region: &Region, asm: &Asm, map: &[MapEntry]) -> String {
    let code = asm.code();
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "region {:#x}: {} guest instructions, {} arm64 words",
        region.entry,
        region.insns.len(),
        code.len()
    );
    let mut formatter = NasmFormatter::new();
    let mut marks = map.iter().peekable();
    let mut shown = None;
    let mut relocations = asm.relocations.iter().peekable();
    let mut words = code.iter().enumerate();
    while let Some((i, &word)) = words.next() {
        while let Some(m) = marks.next_if(|m| m.host as usize <= 4 * i) {
            let guest = region.entry + u64::from(m.guest);
            if shown == Some(guest) {
                continue;
            }
            shown = Some(guest);
            let mut guest_text = String::new();
            if let Some(k) = region.index_of(guest) {
                formatter.format(&region.insns[k].ins, &mut guest_text);
            }
            let _ = writeln!(out, "{guest:#x}  {guest_text}");
        }
        let reloc = relocations.next_if(|(at, _)| *at as usize <= 4 * i).map(|(_, reloc)| reloc);
        if let Some(Reloc::Guest) = reloc
            && let Some((_, &high)) = words.next()
        {
            let address = u64::from(high) << 32 | u64::from(word);
            let _ = writeln!(out, "    {:5x}  .quad {address:#x}", 4 * i);
            continue;
        }
        if let Some(Reloc::Trampoline(t)) = reloc {
            let name = if word >> 31 == 0 { "b" } else { "bl" };
            let _ = writeln!(out, "    {:5x}  {name}\t\t{t:?}", 4 * i);
            continue;
        }
        let _ = match disassembled(word, 4 * i as u64) {
            Some(text) => writeln!(out, "    {:5x}  {text}", 4 * i),
            None => writeln!(out, "    {:5x}  .word {word:#010x}", 4 * i),
        };
    }
    out
}

/// An arm64 instruction at an address, if it is one that the disassembler knows.
#[cfg(feature = "disassembler")]
fn disassembled(word: u32, at: u64) -> Option<impl std::fmt::Display> {
    use disarm64::{InsnDisplay, decoder};
    decoder::decode(word).map(|instruction| instruction.display_at(at).to_string())
}

/// Without the disassembler there are only words.
#[cfg(not(feature = "disassembler"))]
fn disassembled(_word: u32, _at: u64) -> Option<&'static str> {
    None
}

/// Translates the region at `entry` without running it and returns the listing, or None if there
/// is no code.
pub fn translation(memory: &dyn GuestMemory, entry: u64, config: &Config) -> Option<String> {
    let mut region = Region::default();
    let code = CodeReader::new(memory);
    if !region.build(&code, entry, MAX_INSTRUCTIONS, |_| false) {
        return None;
    }
    let outside = facts::Outside {
        code: &code,
        flags_live_at_return: config.flags_live_at_return,
        flags_live_at_fault: false,
    };
    facts::flag_liveness(&mut region, outside);
    let mut asm = Asm::default();
    let mut lower = Lower::new(&mut asm, &region, config, Emitted::default());
    lower.run();
    let emitted = lower.into_emitted();
    Some(text(&region, &asm, &emitted.map))
}
