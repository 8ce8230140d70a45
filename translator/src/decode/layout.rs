//! The decoder's tables as the build script writes them and the decoder reads them.
//!
//! All opcodes stand in one array of [`Node`]s, 256 for each [map](map). What an opcode means may
//! depend on prefixes and on the ModRM byte: these are gathered into a *key*, and a node selects
//! by a few neighbouring bits of it among further nodes, until a leaf says what instruction it is
//! and which [`Form`] its operands have.

use iced_x86::OpKind;

/// Where each opcode map begins among the nodes.
pub mod map {
    /// One-byte opcodes.
    pub const ONE_BYTE: u32 = 0;
    /// Behind the bytes 0F.
    pub const MAP_0F: u32 = 0x100;
    /// Behind the bytes 0F 38.
    pub const MAP_0F38: u32 = 0x200;
    /// Behind the bytes 0F 3A.
    pub const MAP_0F3A: u32 = 0x300;
    /// Behind a VEX prefix that names map 1 (0F); maps 2 and 3 follow.
    pub const VEX: u32 = 0x400;
    /// How many nodes the maps take.
    pub const END: u32 = 0x700;
}

/// The bits of a key. With VEX, L stands in the place of the prefix 66, and pp in that of F2 and F3.
pub mod key {
    /// REX.B, also extends a register number; REX.X and REX.R follow.
    pub const B: u32 = 0;
    /// REX.W.
    pub const W: u32 = 3;
    /// Prefix 66: 16-bit operands.
    pub const OPERAND16: u32 = 4;
    /// Two bits: 2 after the prefix F3, 3 after F2.
    pub const REPEAT: u32 = 5;
    /// Prefix 67: 32-bit addresses.
    pub const ADDRESS32: u32 = 7;
    /// The ModRM byte: three bits of rm, three of reg, two of mod.
    pub const MODRM: u32 = 8;
    /// How many bits a key has.
    pub const BITS: u32 = 16;
}

/// The value of [`key::REPEAT`] after the prefix F3.
pub const REPEAT_F3: u32 = 2;
/// The value of [`key::REPEAT`] after the prefix F2.
pub const REPEAT_F2: u32 = 3;

/// The word of legacy prefixes: those in a key in their places there, and the others.
pub mod prefix {
    use super::key;

    /// Prefix 66.
    pub const OPERAND16: u32 = 1 << key::OPERAND16;
    /// Prefixes F2 and F3, of which the last counts.
    pub const REPEAT: u32 = 3 << key::REPEAT;
    /// Prefix 67.
    pub const ADDRESS32: u32 = 1 << key::ADDRESS32;
    /// Those in a key.
    pub const KEY: u32 = OPERAND16 | REPEAT | ADDRESS32;
    /// Prefix F0.
    pub const LOCK: u32 = 1 << 8;
    /// Three bits from here on: the last of ES to DS as 1 to 4.
    pub const SEGMENT: u32 = 9;
    /// Two bits from here on: the last of FS and GS as 1 and 2. They count more than the others.
    pub const FS_GS: u32 = 12;
    /// All prefixes.
    pub const ALL: u32 = 0x3ff0;
}

/// A word of the opcode table: a leaf, a selection, or an escape.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Node(pub u32);

/// Bytes that are not an opcode of their map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Escape {
    /// The next byte is an opcode of another map, which begins there among the nodes.
    Map(u32),
    /// A legacy prefix: see [`Node::prefix`].
    Prefix,
    /// A REX prefix that follows another.
    Rex,
    /// C5: a VEX prefix of two bytes.
    Vex2,
    /// C4: a VEX prefix of three bytes.
    Vex3,
    /// Not an instruction, or one that these tables leave out.
    Unknown,
}

/// What a leaf says.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct Leaf {
    /// The number of the `Code`.
    pub code: u32,
    /// Index of the form.
    pub form: u32,
    /// Its memory form may have a LOCK prefix.
    pub lock: bool,
    /// F2 or F3 belongs to the opcode: it does not repeat.
    pub mandatory: bool,
}

const LEAF: u32 = 1 << 31;
const ESCAPE: u32 = 1 << 30;
const FORM: u32 = 13;
const LOCK: u32 = 1 << 22;
const MANDATORY: u32 = 1 << 23;
const SHIFT: u32 = 16;
const MASK: u32 = 20;

const PREFIX_CLEARS: u32 = 10;

/// So many forms can be told apart; the last ones are not used.
pub const FORMS: usize = 1 << 9;
/// The same of nodes.
pub const NODES: usize = 1 << 14;

impl Node {
    /// A leaf.
    pub const fn leaf(leaf: Leaf) -> Node {
        assert!(leaf.code < 1 << FORM && leaf.form < FORMS as u32);
        let lock = if leaf.lock { LOCK } else { 0 };
        let mandatory = if leaf.mandatory { MANDATORY } else { 0 };
        Node(LEAF | leaf.code | (leaf.form << FORM) | lock | mandatory)
    }

    /// Selects by `bits` bits of the key from `shift` on, among the nodes from `base` on.
    pub const fn select(base: u32, shift: u32, bits: u32) -> Node {
        assert!(base < 1 << SHIFT && shift < 16 && bits <= 8);
        Node(base | shift << SHIFT | ((1 << bits) - 1) << MASK)
    }

    /// Not an opcode, and not a legacy prefix.
    pub const fn escape(escape: Escape) -> Node {
        let (kind, base) = match escape {
            Escape::Map(base) => (0, base),
            Escape::Prefix => panic!("a prefix has bits"),
            Escape::Rex => (2, 0),
            Escape::Vex2 => (3, 0),
            Escape::Vex3 => (4, 0),
            Escape::Unknown => (5, 0),
        };
        Node(ESCAPE | base << 4 | kind)
    }

    /// A legacy prefix: of the word [`prefix`], it clears some bits and then sets some.
    pub const fn prefix(clears: u32, sets: u32) -> Node {
        assert!((clears | sets) & !prefix::ALL == 0);
        Node(ESCAPE | clears << PREFIX_CLEARS | sets | 1)
    }

    /// The word of prefixes after this one.
    #[inline]
    pub const fn with_prefixes(self, prefixes: u32) -> u32 {
        (prefixes & !(self.0 >> PREFIX_CLEARS) | self.0) & prefix::ALL
    }

    /// Whether [`Node::as_escape`] applies.
    #[inline]
    pub const fn is_escape(self) -> bool {
        self.0 & ESCAPE != 0
    }

    /// Which escape it is.
    #[inline]
    pub const fn as_escape(self) -> Escape {
        match self.0 & 15 {
            0 => Escape::Map(self.0 >> 4 & 0xfff),
            1 => Escape::Prefix,
            2 => Escape::Rex,
            3 => Escape::Vex2,
            4 => Escape::Vex3,
            _ => Escape::Unknown,
        }
    }

    /// Index of the node that a key selects, or None if this is no selection.
    #[inline]
    pub const fn selected(self, key: u32) -> Option<usize> {
        if self.0 & (LEAF | ESCAPE) != 0 {
            return None;
        }
        let bits = key >> (self.0 >> SHIFT & 15) & self.0 >> MASK;
        Some(((self.0 & 0xffff) + bits) as usize)
    }

    /// Reads a leaf.
    #[inline]
    pub const fn as_leaf(self) -> Leaf {
        Leaf {
            code: self.0 & ((1 << FORM) - 1),
            form: self.0 >> FORM & (FORMS as u32 - 1),
            lock: self.0 & LOCK != 0,
            mandatory: self.0 & MANDATORY != 0,
        }
    }
}

/// How the operands follow from the bytes. An operand is a byte in a word of four: the first is
/// the lowest.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Form {
    /// For each operand that is a register, the lowest one of its kind, or the one it always is.
    pub registers: u32,
    /// The operands, where the ModRM byte does not name memory.
    pub kinds: [OpKind; 4],
    /// Shift of the operand in ModRM.reg, or [`Form::ABSENT`].
    pub reg: u8,
    /// Shift of the operand in ModRM.rm or in the low bits of the opcode.
    pub rm: u8,
    /// Shift of the operand in VEX.vvvv.
    pub vvvv: u8,
    /// Which of REX.B and REX.R extend register numbers, as bits of a key.
    pub extends: u8,
    /// Bytes of immediate, moffs or branch displacement.
    pub immediate: u8,
    /// What does not follow the rule.
    pub special: Special,
    /// Of `Form::HAS_MODRM` and the others.
    pub flags: u8,
}

impl Form {
    /// No such operand: a shift out of the word.
    pub const ABSENT: u8 = 32;
    /// A ModRM byte follows the opcode.
    pub const HAS_MODRM: u8 = 1;
    /// The immediate is a displacement from the next instruction.
    pub const BRANCH: u8 = 2;
    /// A register in ModRM or the opcode is a byte: 4 to 7 are AH to BH without REX, SPL to DIL
    /// with it.
    pub const BYTES: u8 = 0x40;
}

/// Operands that need a rule of their own.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Special {
    /// Nothing of the kind.
    No,
    /// The immediate 1 of a shift.
    One,
    /// The immediate has 64 bits.
    Immediate64,
    /// A second immediate of one byte.
    SecondImmediate,
    /// An absolute address of 64 bits, with the prefix 67 of 32.
    MemoryOffset,
    /// Implicit memory operands of a string instruction.
    Strings,
    /// XLATB's \[rbx + al\].
    Xlat,
    /// The third operand is a register in the upper half of the immediate byte.
    Is4Third,
    /// The fourth operand is.
    Is4Fourth,
    /// The index register is an xmm register.
    VsibXmm,
    /// The index register is a ymm register.
    VsibYmm,
}
