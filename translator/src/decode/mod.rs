//! Decoding an instruction: bytes in, iced-x86's `Instruction` out, the same that iced-x86's own
//! decoder gives.
//!
//! That one builds its tables at the first use, which takes longer than a small program runs. The
//! tables here are constants, made from its answers when the translator is built
//! ([layout.rs](layout.rs) says how they are read). They hold the legacy and the VEX opcode maps;
//! what is not in them, undefined opcodes first of all, is left to iced-x86.

#[allow(dead_code)] // the half that writes the tables, in the build script
mod layout;
mod skim;
mod special;
#[cfg(test)]
mod tests;

use iced_x86::{Code, CodeSize, Decoder, DecoderOptions, Instruction, OpKind, Register};
use layout::{Escape, Form, Leaf, Node, Special, key, map, prefix};
pub use skim::{Skimmed, address_length, skim};
use special::Unusual;

/// The tables.
mod tables {
    use super::layout::{Form, Node, Special};
    use iced_x86::OpKind;

    include!(concat!(env!("OUT_DIR"), "/decode_tables.rs"));
}

/// The longest instruction.
pub const LONGEST: usize = 15;

/// How many bytes the decoder wants to see, of which it may read all.
pub const WINDOW: usize = 32;

type Window = [u8; WINDOW];

/// Decodes the instruction at the start of `bytes`, whose address is `ip`. An undefined encoding
/// and one that is cut off are `Code::INVALID`.
pub fn decode(bytes: &[u8], ip: u64) -> Instruction {
    let mut ins = Instruction::default();
    decode_out(&mut ins, bytes, ip);
    ins
}

/// The same into an `ins` that is `Instruction::default()`.
#[inline]
pub fn decode_out(ins: &mut Instruction, bytes: &[u8], ip: u64) {
    let known = match bytes.first_chunk() {
        Some(window) => from_tables(ins, window, ip) && ins.len() <= LONGEST,
        None => {
            let mut window = [0; WINDOW];
            window[..bytes.len()].copy_from_slice(bytes);
            from_tables(ins, &window, ip) && ins.len() <= bytes.len().min(LONGEST)
        }
    };
    if !known {
        *ins = from_iced(bytes, ip);
    }
}

/// Decodes what the tables leave out.
#[cold]
#[inline(never)]
fn from_iced(bytes: &[u8], ip: u64) -> Instruction {
    Decoder::with_ip(64, bytes, ip, DecoderOptions::NONE).decode()
}

/// Eight bytes from an offset on; one past the longest instruction gives any bytes.
#[inline]
fn load(window: &Window, at: usize) -> u64 {
    let at = at & 15;
    u64::from_le_bytes(window[at..at + 8].try_into().expect("eight bytes"))
}

#[inline]
fn node(index: usize) -> Node {
    tables::NODES[index & (layout::NODES - 1)]
}

/// A register by its number, of which the low byte counts.
#[inline]
fn register(number: u64) -> Register {
    match Register::try_from(usize::from(number as u8)) {
        Ok(register) => register,
        Err(_) => Register::None, // there are 256
    }
}

/// Decodes into `ins`, which is `Instruction::default()`. Returns false if the instruction is not in the tables.
/// One that is longer than the longest instruction is still to be refused.
#[inline(never)]
fn from_tables(ins: &mut Instruction, window: &Window, ip: u64) -> bool {
    match opcode(window) {
        Found::Opcode(opcode, modrm) => opcode.operands(ins, window, ip, modrm, None),
        Found::Vex { at, prefixes, length } => vex(ins, window, ip, at, prefixes, length),
        Found::Unknown => false,
    }
}

/// What stands behind the legacy prefixes.
enum Found {
    /// An opcode, and the byte behind it.
    Opcode(Opcode, u8),
    /// A VEX prefix of `length` bytes, of which the first is before `at`.
    Vex { at: usize, prefixes: u32, length: usize },
    /// Something that is not in the tables.
    Unknown,
}

/// Reads the prefixes and the opcode.
#[inline(always)]
fn opcode(window: &Window) -> Found {
    let mut at = 0;
    let mut prefixes = 0;
    loop {
        // A REX prefix counts if the opcode follows.
        let mut bytes = load(window, at);
        let mut rex = 0;
        if bytes & 0xf0 == 0x40 {
            rex = bytes as u32 & 0xff;
            bytes >>= 8;
            at += 1;
        }
        let mut found = node((bytes & 0xff) as usize);
        at += 1;
        while found.is_escape() {
            match found.as_escape() {
                Escape::Map(base) => {
                    bytes >>= 8;
                    at += 1;
                    found = node(base as usize + (bytes & 0xff) as usize);
                    continue;
                }
                Escape::Prefix => prefixes = found.with_prefixes(prefixes),
                Escape::Rex => at -= 1,
                Escape::Vex2 if rex == 0 => return Found::Vex { at, prefixes, length: 2 },
                Escape::Vex3 if rex == 0 => return Found::Vex { at, prefixes, length: 3 },
                Escape::Vex2 | Escape::Vex3 | Escape::Unknown => return Found::Unknown,
            }
            break;
        }
        if !found.is_escape() {
            let [byte, modrm, ..] = bytes.to_le_bytes();
            return Found::Opcode(Opcode { node: found, byte, at, prefixes, rex }, modrm);
        }
        if at >= LONGEST {
            return Found::Unknown;
        }
    }
}

/// Decodes from behind the first byte of a VEX prefix of `length` bytes.
#[inline(never)]
fn vex(
    ins: &mut Instruction,
    window: &Window,
    ip: u64,
    at: usize,
    mut prefixes: u32,
    length: usize,
) -> bool {
    if prefixes & (prefix::LOCK | prefix::REPEAT | prefix::OPERAND16) != 0 {
        return false;
    }
    // As in the longer prefix: R X B and the map, then W vvvv L pp. R, X, B and vvvv are inverted.
    let bytes = load(window, at).to_le_bytes();
    let (first, second, byte, modrm) = match length {
        2 => (bytes[0] & 0x80 | 0x61, bytes[0] & 0x7f, bytes[1], bytes[2]),
        _ => (bytes[0], bytes[1], bytes[2], bytes[3]),
    };
    let number = u32::from(first & 0x1f);
    if !(1..=3).contains(&number) {
        return false;
    }
    prefixes |= u32::from(second >> 2 & 1) << key::OPERAND16;
    prefixes |= u32::from(second & 3) << key::REPEAT;
    let opcode = Opcode {
        node: node((map::VEX + ((number - 1) << 8)) as usize + usize::from(byte)),
        byte,
        at: at + length,
        prefixes,
        rex: u32::from(!first >> 5) | u32::from(second >> 7) << key::W,
    };
    opcode.operands(ins, window, ip, modrm, Some(u32::from(!second >> 3 & 15)))
}

/// What stands before the operands.
struct Opcode {
    /// Its node in its map.
    node: Node,
    /// Its last byte.
    byte: u8,
    /// Offset of the next one.
    at: usize,
    /// Of the word [`prefix`]; with VEX, L and pp in their place in the key.
    prefixes: u32,
    /// The REX prefix, or 0 if there is none; with VEX the same bits.
    rex: u32,
}

impl Opcode {
    /// What instruction it is with its prefixes and the byte behind it, and the form of its operands.
    #[inline(always)]
    fn select(&self, modrm: u8) -> Option<(Leaf, Code, &'static Form)> {
        let key = self.rex & 15 | self.prefixes & prefix::KEY | u32::from(modrm) << key::MODRM;
        let mut found = self.node;
        while let Some(index) = found.selected(key) {
            found = node(index);
        }
        if found.is_escape() {
            return None;
        }
        let leaf = found.as_leaf();
        let code = Code::try_from(leaf.code as usize).ok()?;
        Some((leaf, code, &tables::FORMS[leaf.form as usize]))
    }

    /// Decodes the operands, into `ins`. `modrm` is the byte behind the opcode,
    /// `vvvv` that of the VEX prefix, if there is one. Returns false if the instruction is not in
    /// the tables.
    #[inline(always)]
    fn operands(
        self,
        ins: &mut Instruction,
        window: &Window,
        ip: u64,
        modrm: u8,
        vvvv: Option<u32>,
    ) -> bool {
        let Some((leaf, code, form)) = self.select(modrm) else { return false };
        let Opcode { byte, mut at, prefixes, rex, .. } = self;
        ins.set_code(code);
        ins.set_code_size(CodeSize::Code64);
        ins.set_op0_kind(form.kinds[0]);
        ins.set_op1_kind(form.kinds[1]);
        ins.set_op2_kind(form.kinds[2]);
        ins.set_op3_kind(form.kinds[3]);

        // A register in the low bits of the opcode is as one in ModRM.rm.
        let has_modrm = form.flags & Form::HAS_MODRM != 0;
        let modrm = u64::from(if has_modrm { modrm } else { byte | 0xc0 });
        at += usize::from(has_modrm);
        let rex = u64::from(rex);
        let extends = rex & u64::from(form.extends);
        let reg = modrm >> 3 & 7 | (extends & 4) << 1;
        let rm = modrm & 7 | (extends & 1) << 3;
        let mut registers = u64::from(form.registers) + (reg << (form.reg & 63));
        if let Some(vvvv) = vvvv {
            if form.vvvv == Form::ABSENT && vvvv != 0 {
                return false;
            }
            registers += u64::from(vvvv) << (form.vvvv & 63);
        }
        let mut displacement = Displacement { value: 0, relative: false };
        if modrm < 0xc0 {
            ins.set_op_kind(u32::from(form.rm / 8), OpKind::Memory);
            registers &= !(0xff << (form.rm & 63));
            (at, displacement) = memory(ins, window, at, modrm, rex);
        } else {
            registers += rm << (form.rm & 63);
        }
        ins.set_op0_register(register(registers));
        ins.set_op1_register(register(registers >> 8));
        ins.set_op2_register(register(registers >> 16));
        ins.set_op3_register(register(registers >> 24));

        if form.immediate != 0 {
            let unused = (64 - 8 * u32::from(form.immediate)) & 63;
            let high = load(window, at) << unused;
            at += usize::from(form.immediate);
            if form.flags & Form::BRANCH != 0 {
                let value = (high as i64 >> unused) as u64;
                displacement = Displacement { value, relative: true };
            } else {
                ins.set_immediate32((high >> unused) as u32);
            }
        }
        let next = ip.wrapping_add(at as u64);
        ins.set_len(at);
        ins.set_next_ip(next);
        let base = if displacement.relative { next } else { 0 };
        ins.set_memory_displacement64(displacement.value.wrapping_add(base));

        // The bits of one REX prefix are those of this flag.
        let rex_bytes = rex & u64::from(form.flags & Form::BYTES) != 0;
        if prefixes == 0 && form.special == Special::No && !rex_bytes {
            return true;
        }
        let of_opcode = if leaf.mandatory || vvvv.is_some() { prefix::REPEAT } else { 0 };
        let prefixes = prefixes & !of_opcode & !prefix::OPERAND16;
        let unusual = Unusual { form, modrm: modrm as u32, prefixes, rex_bytes, lock: leaf.lock };
        unusual.is_nothing() || unusual.finish(ins, window)
    }
}

/// What goes into an instruction's memory displacement, which is also where a branch target is.
#[derive(Clone, Copy)]
struct Displacement {
    value: u64,
    /// From the next instruction on.
    relative: bool,
}

/// The memory operand of a ModRM byte, whose next byte is at `at`, with 64-bit addresses. Returns
/// where it ends, and its displacement.
#[inline(always)]
fn memory(
    ins: &mut Instruction,
    window: &Window,
    mut at: usize,
    modrm: u64,
    rex: u64,
) -> (usize, Displacement) {
    let mut bytes = load(window, at);
    let mut base = modrm & 7;
    if base == 4 {
        let sib = bytes & 0xff;
        bytes >>= 8;
        at += 1;
        base = sib & 7;
        let index = sib >> 3 & 7 | (rex & 2) << 2;
        if index != 4 {
            ins.set_memory_index(register(Register::RAX as u64 + index));
        }
        match sib >> 6 {
            0 => ins.set_memory_index_scale(1),
            1 => ins.set_memory_index_scale(2),
            2 => ins.set_memory_index_scale(4),
            _ => ins.set_memory_index_scale(8),
        }
    }
    let mode = modrm >> 6;
    let mut relative = false;
    if mode != 0 || base != 5 {
        ins.set_memory_base(register(Register::RAX as u64 + (base | (rex & 1) << 3)));
    } else if modrm & 7 == 5 {
        ins.set_memory_base(Register::RIP);
        relative = true;
    }
    let value = match mode {
        0 if base != 5 => 0,
        1 => {
            ins.set_memory_displ_size(1);
            at += 1;
            bytes as i8 as u64
        }
        _ => {
            ins.set_memory_displ_size(8);
            at += 4;
            bytes as i32 as u64
        }
    };
    (at, Displacement { value, relative })
}
