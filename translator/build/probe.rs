//! What an opcode means, asked of iced-x86's decoder for every key that can make a difference.

use std::collections::HashMap;

use iced_x86::{
    Code, Decoder, DecoderOptions, EncodingKind, OpCodeInfo, OpCodeOperandKind, OpCodeTableKind,
};

use crate::form::Forms;
use crate::layout::{Leaf, REPEAT_F2, REPEAT_F3, key, map};

/// The upper bit of mod. All memory operands are alike, so of the two bits, a meaning depends on
/// whether both are set.
pub const MOD_IS_3: u32 = key::MODRM + 7;

/// A byte in an opcode map.
pub struct Opcode<'a> {
    /// Where the map begins among the nodes.
    pub map: u32,
    /// The byte.
    pub byte: u8,
    /// The instructions iced-x86 knows there.
    pub instructions: &'a [&'static OpCodeInfo],
}

/// All instructions of the maps, by the index of their opcode's node.
pub fn instructions() -> HashMap<u32, Vec<&'static OpCodeInfo>> {
    let mut all = HashMap::<u32, Vec<_>>::new();
    for info in Code::values().map(|code| code.op_code()).filter(|info| info.mode64()) {
        let table = match info.table() {
            OpCodeTableKind::Normal => map::ONE_BYTE,
            OpCodeTableKind::T0F => map::MAP_0F,
            OpCodeTableKind::T0F38 => map::MAP_0F38,
            OpCodeTableKind::T0F3A => map::MAP_0F3A,
            _ => continue,
        };
        let base = match info.encoding() {
            EncodingKind::Legacy => table,
            EncodingKind::VEX => map::VEX + table - map::MAP_0F,
            _ => continue,
        };
        let byte = info.op_code() >> (8 * (info.op_code_len() - 1)) & 0xff;
        let register = |kind| {
            use OpCodeOperandKind as K;
            matches!(kind, K::r8_opcode | K::r16_opcode | K::r32_opcode | K::r64_opcode)
        };
        let opcodes = if operands(info).any(register) { 8 } else { 1 };
        for node in base + byte..base + byte + opcodes {
            all.entry(node).or_default().push(info);
        }
    }
    all
}

fn operands(info: &OpCodeInfo) -> impl Iterator<Item = OpCodeOperandKind> + '_ {
    (0..info.op_count()).map(|operand| info.op_kind(operand))
}

/// The meanings of an opcode.
pub struct Meanings {
    /// The bits of a key that they may depend on, from the lowest to the highest.
    pub key_bits: Vec<u32>,
    /// By an index that has just these bits; None: undefined, or left out of the tables.
    pub leaves: Vec<Option<Leaf>>,
}

impl Meanings {
    /// Where a bit of a key is in an index.
    pub fn index_bit(&self, key_bit: u32) -> Option<u32> {
        self.key_bits.iter().position(|&bit| bit == key_bit).map(|bit| bit as u32)
    }
}

impl Opcode<'_> {
    fn is_vex(&self) -> bool {
        self.map >= map::VEX
    }

    /// The bits of a key that the opcode's meaning may depend on.
    fn key_bits(&self) -> Vec<u32> {
        let any = |p: fn(&OpCodeInfo) -> bool| self.instructions.iter().any(|info| p(info));
        let mut bits = Vec::new();
        if self.map == map::ONE_BYTE && self.byte == 0x90 {
            bits.push(key::B); // NOP or XCHG r8
        }
        bits.extend([key::W, key::OPERAND16, key::REPEAT, key::REPEAT + 1]);
        if any(|info| info.address_size() != 0) {
            bits.push(key::ADDRESS32);
        }
        if any(|info| info.op_code_len() == 2 || info.rm_group_index() >= 0) {
            bits.extend(key::MODRM..key::MODRM + 3);
        }
        let segment =
            |info: &OpCodeInfo| operands(info).any(|kind| kind == OpCodeOperandKind::seg_reg);
        if any(|info| info.op_code_len() == 2 || info.group_index() >= 0) || any(segment) {
            bits.extend(key::MODRM + 3..key::MODRM + 6);
        }
        bits.push(MOD_IS_3);
        bits
    }

    /// Asks for all meanings.
    pub fn meanings(&self, forms: &mut Forms) -> Meanings {
        if self.instructions.is_empty() {
            return Meanings { key_bits: Vec::new(), leaves: vec![None] };
        }
        let key_bits = self.key_bits();
        let leaves = (0..1_u32 << key_bits.len()).map(|index| {
            let bit = |(i, key_bit): (usize, &u32)| (index >> i & 1) << key_bit;
            self.meaning(key_bits.iter().enumerate().map(bit).sum(), forms)
        });
        Meanings { leaves: leaves.collect(), key_bits }
    }

    fn meaning(&self, key: u32, forms: &mut Forms) -> Option<Leaf> {
        // An instruction that does not use vvvv must leave it 0; one with a vector of addresses
        // must have another register in each place.
        let (ins, before) = [0, 9].into_iter().find_map(|vvvv| {
            let (bytes, before) = self.bytes(key, vvvv);
            let ins = Decoder::with_ip(64, &bytes, 0, DecoderOptions::NONE).decode();
            (!ins.is_invalid()).then_some((ins, before))
        })?;
        Some(Leaf {
            code: ins.code() as u32,
            form: forms.index(ins.code(), ins.len() - before)?,
            lock: ins.op_code().can_use_lock_prefix(),
            mandatory: !self.is_vex()
                && repeat(key) >= REPEAT_F3
                && !ins.has_rep_prefix()
                && !ins.has_repne_prefix(),
        })
    }

    /// The bytes for a key, and how many of them are the opcode and what stands before it.
    fn bytes(&self, key: u32, vvvv: u8) -> ([u8; 15], usize) {
        let bit = |key_bit| (key >> key_bit & 1) as u8;
        let mut start = Vec::new();
        if bit(key::ADDRESS32) != 0 {
            start.push(0x67);
        }
        if self.is_vex() {
            // R and X are 0 and 1, inverted.
            let number = ((self.map - map::VEX) >> 8) as u8 + 1;
            start.extend([
                0xc4,
                0x80 | (bit(key::B) ^ 1) << 5 | number,
                bit(key::W) << 7 | (!vvvv & 15) << 3 | bit(key::OPERAND16) << 2 | repeat(key) as u8,
            ]);
        } else {
            if bit(key::OPERAND16) != 0 {
                start.push(0x66);
            }
            match repeat(key) {
                REPEAT_F3 => start.push(0xf3),
                REPEAT_F2 => start.push(0xf2),
                _ => {}
            }
            if bit(key::W) | bit(key::B) != 0 {
                start.push(0x40 | bit(key::W) << 3 | bit(key::B));
            }
            match self.map {
                map::MAP_0F => start.push(0x0f),
                map::MAP_0F38 => start.extend([0x0f, 0x38]),
                map::MAP_0F3A => start.extend([0x0f, 0x3a]),
                _ => {}
            }
        }
        start.push(self.byte);
        let before = start.len();
        let [rm, reg] = [0, 3].map(|field| (key >> (key::MODRM + field) & 7) as u8);
        // Memory is [base + index].
        let memory = bit(MOD_IS_3) == 0;
        start.push(if memory { reg << 3 | 4 } else { 0xc0 | reg << 3 | rm });
        start.push(0x11);
        let mut bytes = [0; 15];
        bytes[..start.len()].copy_from_slice(&start);
        (bytes, before)
    }
}

fn repeat(key: u32) -> u32 {
    key >> key::REPEAT & 3
}
