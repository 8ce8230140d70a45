//! The instruction table: for every mnemonic how it is lowered and which status flags it reads and writes.
//!
//! Each family file contributes its rows; here they are put together at compile time.

use super::{Lower, Lowered};
use super::{
    arith, atomics, bits, control, mmx, moves, muldiv, segments, shifts, strings, system, x87,
};
use super::{crypto, sha256, sse_convert, sse_float, sse_int, sse_moves, sse_shuffle, sse_strings};
use crate::flags::Flags;
use iced_x86::{Code, Instruction, Mnemonic};

/// Lowers one instruction.
pub type LowerFn = fn(&mut Lower, &Instruction) -> Lowered;

/// What the translator knows about a mnemonic.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// None: not implemented.
    pub lower: Option<LowerFn>,
    /// Status flags it may read.
    pub reads: Flags,
    /// Status flags it writes, or leaves undefined.
    pub writes: Flags,
    /// Tells forms that may leave these flags as they were: a shift whose count may be zero, a repeated
    /// comparison.
    pub may_keep: Option<fn(&Instruction) -> bool>,
    /// Whether it is an instruction of SSE, MMX or the cryptographic extensions.
    pub vector: bool,
}

impl Entry {
    /// Status flags whose old values are certainly gone behind the instruction.
    pub fn kills(&self, ins: &Instruction) -> Flags {
        if self.may_keep.is_some_and(|keeps| keeps(ins)) { Flags::NONE } else { self.writes }
    }
}

/// A family's rows.
pub type Rows = &'static [(Mnemonic, Entry)];

/// Shorthand for a row.
pub const fn row(m: Mnemonic, f: LowerFn, reads: Flags, writes: Flags) -> (Mnemonic, Entry) {
    (m, Entry { lower: Some(f), reads, writes, may_keep: None, vector: false })
}

/// Shorthand for a row of an instruction with forms that may keep the flags they else write.
pub const fn row_unless(
    m: Mnemonic,
    f: LowerFn,
    reads: Flags,
    writes: Flags,
    may_keep: fn(&Instruction) -> bool,
) -> (Mnemonic, Entry) {
    let (m, e) = row(m, f, reads, writes);
    (m, Entry { may_keep: Some(may_keep), ..e })
}

/// Shorthand for a row of an instruction that does not touch the status flags.
pub const fn plain(m: Mnemonic, f: LowerFn) -> (Mnemonic, Entry) {
    row(m, f, Flags::NONE, Flags::NONE)
}

const FAMILIES: &[Rows] = &[
    arith::ROWS,
    atomics::ROWS,
    bits::ROWS,
    control::ROWS,
    moves::CONDITIONAL_ROWS,
    moves::ROWS,
    muldiv::ROWS,
    segments::ROWS,
    shifts::ROWS,
    strings::ROWS,
    system::ROWS,
    x87::CONDITIONAL_ROWS,
    x87::ROWS,
];

/// Families of vector instructions.
const VECTOR_FAMILIES: &[Rows] = &[
    crypto::ROWS,
    mmx::ROWS,
    sha256::ROWS,
    sse_convert::ROWS,
    sse_float::ROWS,
    sse_float::OTHER_ROWS,
    sse_int::ROWS,
    sse_int::SHIFT_ROWS,
    sse_moves::ROWS,
    sse_shuffle::PAIR_ROWS,
    sse_shuffle::ROWS,
    sse_strings::ROWS,
];

/// More than the number of mnemonics iced knows.
const COUNT: usize = 2048;

const fn build() -> [Entry; COUNT] {
    // What is not in the table reads all flags: nothing is lost before the guest gets its SIGILL.
    let mut t = [Entry {
        lower: None,
        reads: Flags::ALL,
        writes: Flags::NONE,
        may_keep: None,
        vector: false,
    }; COUNT];
    t = put(t, FAMILIES, false);
    t = put(t, VECTOR_FAMILIES, true);
    t[SEGMENT_LOAD] = segments::LOADS;
    t[SYSTEM_MOVE] = segments::SYSTEM_MOVES;
    t[MMX] = Entry { vector: true, ..plain(Mnemonic::Paddb, mmx::lower).1 };
    t
}

const fn put(mut t: [Entry; COUNT], families: &[Rows], vector: bool) -> [Entry; COUNT] {
    let mut f = 0;
    while f < families.len() {
        let mut i = 0;
        while i < families[f].len() {
            let (m, e) = families[f][i];
            assert!(t[m as usize].lower.is_none(), "a mnemonic stands in two families");
            t[m as usize] = Entry { vector, ..e };
            i += 1;
        }
        f += 1;
    }
    t
}

static TABLE: [Entry; COUNT] = build();

/// The place of instructions that load a segment register.
const SEGMENT_LOAD: usize = COUNT - 1;
/// The place of the MMX forms of mnemonics that SSE has too.
const MMX: usize = COUNT - 2;
/// The place of MOV from segment registers, and of those that are privileged.
const SYSTEM_MOVE: usize = COUNT - 3;

include!(concat!(env!("OUT_DIR"), "/entries.rs"));

/// The entry of undefined encodings.
pub fn invalid() -> &'static Entry {
    &TABLE[Mnemonic::INVALID as usize]
}

/// The table's entry for an instruction.
#[inline]
pub fn entry(ins: &Instruction) -> &'static Entry {
    entry_of(ins.code())
}

/// The table's entry for an instruction form.
#[inline]
pub fn entry_of(code: Code) -> &'static Entry {
    &TABLE[usize::from(ENTRIES[code as usize]) % COUNT]
}

/// Whether the translator implements an instruction form.
pub fn supports(code: Code) -> bool {
    entry_of(code).lower.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mnemonic_has_a_place() {
        assert!(Mnemonic::values().len() <= SYSTEM_MOVE);
        assert_eq!(ENTRIES.len(), Code::values().len());
    }

    /// The flags in the table against iced's own, for each form that the table implements.
    #[test]
    fn flags_agree_with_iced() {
        let bits = |iced: u32| {
            let mut f = Flags::NONE;
            for (bit, flag) in [
                (iced_x86::RflagsBits::CF, Flags::C),
                (iced_x86::RflagsBits::PF, Flags::P),
                (iced_x86::RflagsBits::AF, Flags::A),
                (iced_x86::RflagsBits::ZF, Flags::Z),
                (iced_x86::RflagsBits::SF, Flags::S),
                (iced_x86::RflagsBits::OF, Flags::O),
            ] {
                if iced & bit != 0 {
                    f = f.or(flag);
                }
            }
            f
        };
        for code in Code::values() {
            let e = entry_of(code);
            if e.lower.is_none() {
                continue;
            }
            let mut ins = Instruction::new();
            ins.set_code(code);
            // A shift count of 1, where the form has an immediate.
            if ins.op_count() == 2 && code.op_code().op1_kind() == iced_x86::OpCodeOperandKind::imm8
            {
                ins.set_op1_kind(iced_x86::OpKind::Immediate8);
                ins.set_immediate8(1);
            }
            let modified = bits(ins.rflags_modified());
            let read = bits(ins.rflags_read());
            assert!(read.within(e.reads), "{code:?} reads {read:?}, the table says {:?}", e.reads);
            assert!(
                e.kills(&ins).within(modified),
                "{code:?} modifies {modified:?}, the table says {:?}",
                e.writes
            );
        }
    }
}
