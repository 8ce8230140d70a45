//! `--dump-asm`: a region's guest instructions and what was emitted for them, side by side.

use crate::asm::{Asm, Reloc};
use crate::cache::RegionMeta;
use crate::engine::{Config, GuestMemory};
use crate::facts;
use crate::lower::{Emitted, Lower, MapEntry};
use crate::region::{CodeReader, MAX_INSTRUCTIONS, Region};
use disarm64::{InsnDisplay, decoder};
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
        let _ = match decoder::decode(word) {
            Some(op) => writeln!(out, "    {:5x}  {}", 4 * i, op.display_at(4 * i as u64)),
            None => writeln!(out, "    {:5x}  .word {word:#010x}", 4 * i),
        };
    }
    out
}

/// A translation that is not run.
#[derive(Debug)]
pub struct Translation {
    /// What was translated.
    pub region: Region,
    /// The code, and which of its words move.
    pub asm: Asm,
    /// Guest instruction of each piece of host code.
    pub map: Vec<MapEntry>,
}

/// Translates the region at `entry` without running it, or None if there is no code.
pub fn translate(memory: &dyn GuestMemory, entry: u64, config: &Config) -> Option<Translation> {
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
    let map = lower.into_emitted().map;
    Some(Translation { region, asm, map })
}

/// The listing of such a translation.
pub fn translation(memory: &dyn GuestMemory, entry: u64, config: &Config) -> Option<String> {
    let Translation { region, asm, map } = translate(memory, entry, config)?;
    Some(text(&region, &asm, &map))
}
