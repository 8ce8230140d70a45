//! `--dump-asm`: a region's guest instructions and what was emitted for them, side by side.

use crate::asm::{Asm, Reloc};
use crate::cache::RegionMeta;
use crate::engine::{Config, GuestMemory};
use crate::facts;
use crate::lower::{Emitted, Lower};
use crate::profile;
use crate::region::{CodeReader, MAX_INSTRUCTIONS, NoneTranslated, Region};
use iced_x86::{Formatter, NasmFormatter};
use std::collections::BTreeSet;
use std::fmt::Write;
use yaxpeax_arch::{Decoder, U8Reader};
use yaxpeax_arm::armv8::a64::InstDecoder;

/// Prints a region that has been put into the cache to standard error.
pub fn region(
    region: &Region,
    asm: &Asm,
    emitted: &Emitted,
    meta: &RegionMeta,
    name: Option<String>,
) {
    let name = name.unwrap_or_default();
    eprint!("at {:#x}: {name}\n{}", meta.host, text(region, asm, emitted));
}

/// The listing of a region: each guest instruction, behind it what was emitted for it, and at the end what that is
/// for. Host addresses are offsets from the start of the region's code.
pub fn text(region: &Region, asm: &Asm, emitted: &Emitted) -> String {
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
    let mut marks = emitted.map.iter().peekable();
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
        let relocation = relocations.next_if(|r| r.offset() as usize <= 4 * i);
        let reloc = relocation.map_or(Reloc::None, |r| r.reloc());
        let address = match (reloc, reloc.trampoline()) {
            (_, Some(t)) => {
                let name = if word >> 31 == 0 { "b" } else { "bl" };
                let _ = writeln!(out, "    {:5x}  {name} {t:?}", 4 * i);
                (reloc == Reloc::Exit).then(|| words.next()).flatten()
            }
            (Reloc::Guest, None) => Some((i, &word)),
            _ => {
                let _ = writeln!(out, "    {:5x}  {}", 4 * i, instruction(word, 4 * i as i64));
                None
            }
        };
        if let Some((i, &low)) = address
            && let Some((_, &high)) = words.next()
        {
            let address = u64::from(high) << 32 | u64::from(low);
            let _ = writeln!(out, "    {:5x}  .quad {address:#x}", 4 * i);
        }
    }
    let _ = writeln!(out, "{}", profile::causes(region, code, emitted));
    out
}

/// What the disassembler does not call by name: PSTATE's operations and system registers (Arm ARM C4.1.92, D24).
const NAMES: &[(&str, &str)] = &[
    ("msr pstate.0x0, #0x0", "cfinv"),
    ("msr pstate.0x1, #0x0", "xaflag"),
    ("msr pstate.0x2, #0x0", "axflag"),
    ("s3_3_c4_c2_0", "nzcv"),
    ("s3_3_c4_c4_0", "fpcr"),
    ("s3_3_c4_c4_1", "fpsr"),
];

/// An arm64 instruction at an offset of the code, with offsets of the code as branch targets.
fn instruction(word: u32, at: i64) -> String {
    let bytes = word.to_le_bytes();
    let Ok(decoded) = InstDecoder::default().decode(&mut U8Reader::new(&bytes)) else {
        return format!(".word {word:#010x}");
    };
    let mut text = decoded.to_string();
    for (from, to) in NAMES {
        text = text.replace(from, to);
    }
    if let Some((head, distance)) = text.split_once('$')
        && let Ok(distance) = i64::from_str_radix(&distance.replace("0x", ""), 16)
    {
        text = format!("{head}{:#x}", at + distance);
    }
    text
}

/// A translation that is not run.
#[derive(Debug)]
pub struct Translation {
    /// What was translated.
    pub region: Region,
    /// The code, and which of its words move.
    pub asm: Asm,
    /// What else is known of the code.
    pub emitted: Emitted,
}

/// Translates the region at `entry` without running it, or None if there is no code.
pub fn translate(memory: &dyn GuestMemory, entry: u64, config: &Config) -> Option<Translation> {
    translate_knowing(memory, entry, config, &BTreeSet::new())
}

/// The same where instructions are known to access misaligned memory.
pub fn translate_knowing(
    memory: &dyn GuestMemory,
    entry: u64,
    config: &Config,
    misaligned: &BTreeSet<u64>,
) -> Option<Translation> {
    let mut region = Region::default();
    let code = CodeReader::new(memory);
    if !region.build(&code, entry, MAX_INSTRUCTIONS, &NoneTranslated, |_| true) {
        return None;
    }
    let outside = facts::Outside {
        code: &code,
        flags_live_at_return: config.flags_live_at_return,
        flags_live_at_fault: false,
        found: None,
    };
    facts::flag_liveness(&mut region, outside);
    let mut asm = Asm::default();
    let mut emitted = Emitted::default();
    let mut lower = Lower::new(&mut asm, &region, config, &mut emitted);
    lower.misaligned = Some(misaligned);
    lower.run();
    Some(Translation { region, asm, emitted })
}

/// The listing of such a translation.
pub fn translation(memory: &dyn GuestMemory, entry: u64, config: &Config) -> Option<String> {
    let Translation { region, asm, emitted } = translate(memory, entry, config)?;
    Some(text(&region, &asm, &emitted))
}
