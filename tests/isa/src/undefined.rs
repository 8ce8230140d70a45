//! The one table of what processors may do differently: flags that an instruction leaves undefined,
//! results that are approximations, and saved state whose contents are the processor's own affair.
//!
//! The base is iced-x86's table of undefined flags (from the SDM); the rows here refine it where the
//! condition is a shift count. Results of real processors that the manuals call undefined but that all
//! of them share (BSF of zero leaves its destination) are compared like any other.

use iced_x86::{Code, Instruction, Mnemonic, OpKind, RflagsBits as F};

/// The status flags in iced-x86's numbering.
pub const STATUS: u32 = F::OF | F::SF | F::ZF | F::AF | F::CF | F::PF;

/// When a row of [`SHIFTS`] applies, by the count after masking to 5 or 6 bits.
enum When {
    /// Any count but 0.
    NotZero,
    /// A count above 1.
    AboveOne,
    /// The operand size in bits, or more.
    SizeOrMore,
    /// More than the operand size in bits.
    MoreThanSize,
}

use Mnemonic::*;

/// Undefined flags of shifts and rotates (SDM vol. 2, SAL/SAR/SHL/SHR, RCL/RCR/ROL/ROR, SHLD, SHRD).
/// A count of 0 leaves all flags as they are.
const SHIFTS: &[(&[Mnemonic], When, u32)] = &[
    (&[Shl, Sal, Shr, Sar, Shld, Shrd], When::NotZero, F::AF),
    (&[Shl, Sal, Shr, Sar, Shld, Shrd, Rol, Ror, Rcl, Rcr], When::AboveOne, F::OF),
    (&[Shl, Sal, Shr], When::SizeOrMore, F::CF),
    (&[Shld, Shrd], When::MoreThanSize, STATUS),
];

/// Rotates leave SF ZF AF PF alone.
const ROTATES: &[Mnemonic] = &[Rol, Ror, Rcl, Rcr];

/// What an instruction does to the flags, in iced-x86's numbering.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlagEffect {
    /// May hold anything afterwards.
    pub undefined: u32,
    /// Always hold a defined result afterwards.
    pub defined: u32,
}

fn is_shift(mnemonic: Mnemonic) -> bool {
    SHIFTS.iter().any(|(names, _, _)| names.contains(&mnemonic))
}

/// The masked count of a shift by an immediate or by 1; with `cl` given also of a shift by CL.
fn shift_count(instruction: &Instruction, cl: Option<u64>) -> Option<u32> {
    let last = instruction.op_count() - 1;
    let count = match instruction.op_kind(last) {
        OpKind::Immediate8 => instruction.immediate8().into(),
        _ => cl?,
    };
    let mask = if operand_bits(instruction) == 64 { 63 } else { 31 };
    Some(count as u32 & mask)
}

/// Size of the first operand.
fn operand_bits(instruction: &Instruction) -> u32 {
    8 * match instruction.op0_kind() {
        OpKind::Register => instruction.op0_register().size() as u32,
        _ => instruction.memory_size().size() as u32,
    }
}

/// The effect on the flags; `cl` is CL before the instruction, if known.
pub fn flag_effect(instruction: &Instruction, cl: Option<u64>) -> FlagEffect {
    let mnemonic = instruction.mnemonic();
    if !is_shift(mnemonic) {
        let undefined = instruction.rflags_undefined();
        let repeated = instruction.is_string_instruction()
            && (instruction.has_rep_prefix() || instruction.has_repne_prefix());
        let defined = if repeated { 0 } else { instruction.rflags_modified() & !undefined };
        return FlagEffect { undefined, defined };
    }
    let bits = operand_bits(instruction);
    let count = shift_count(instruction, cl);
    let mut undefined = 0;
    for (_, when, flags) in SHIFTS.iter().filter(|(names, _, _)| names.contains(&mnemonic)) {
        let applies = count.is_none_or(|count| match when {
            When::NotZero => count > 0,
            When::AboveOne => count > 1,
            When::SizeOrMore => count >= bits,
            When::MoreThanSize => count > bits,
        });
        undefined |= if applies { *flags } else { 0 };
    }
    let written = if ROTATES.contains(&mnemonic) { F::CF | F::OF } else { STATUS };
    let defined = if count.is_some_and(|c| c > 0) { written & !undefined } else { 0 };
    FlagEffect { undefined, defined }
}

/// A double shift of 16 bits by more than 16 has an undefined result (SDM vol. 2, SHLD).
pub fn result_is_undefined(instruction: &Instruction) -> bool {
    matches!(instruction.mnemonic(), Shld | Shrd)
        && operand_bits(instruction) == 16
        && shift_count(instruction, None).is_none_or(|c| c > 16)
}

/// How far a result may be off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Approximation {
    /// Not at all.
    #[default]
    Exact,
    /// Single-precision lanes may be off by this fraction of 2^-14.
    Relative(u32),
    /// x87 results may be off by this many units in the last place.
    Ulps(u64),
}

/// Instructions that the manuals let approximate: reciprocals within 1.5 * 2^-12 (so that two
/// processors may be apart by twice that), and the x87 transcendental functions.
const APPROXIMATIONS: &[(&[Mnemonic], Approximation)] = &[
    (
        &[Rcpps, Rcpss, Rsqrtps, Rsqrtss, Vrcpps, Vrcpss, Vrsqrtps, Vrsqrtss],
        Approximation::Relative(12),
    ),
    (&[Fsin, Fcos, Fsincos, Fptan, Fpatan, F2xm1, Fyl2x, Fyl2xp1], Approximation::Ulps(4)),
];

/// How exact an instruction's result is.
pub fn approximation(mnemonic: Mnemonic) -> Approximation {
    let row = APPROXIMATIONS.iter().find(|(names, _)| names.contains(&mnemonic));
    row.map_or(Approximation::Exact, |(_, approximation)| *approximation)
}

/// Parts of saved state that are not compared, as offset and length: instruction and data pointers
/// and opcode of the x87 unit (processors differ in when they update them), reserved fields.
pub fn ignored_memory(code: Code) -> &'static [(u64, u64)] {
    match code {
        Code::Fnstenv_m14byte
        | Code::Fstenv_m14byte
        | Code::Fnsave_m94byte
        | Code::Fsave_m94byte => &[(6, 8)],
        Code::Fnstenv_m28byte
        | Code::Fstenv_m28byte
        | Code::Fnsave_m108byte
        | Code::Fsave_m108byte => &[(2, 2), (6, 2), (10, 18)],
        Code::Fxsave_m512byte | Code::Fxsave64_m512byte => &[
            (5, 19),
            (28, 4),
            (42, 6),
            (58, 6),
            (74, 6),
            (90, 6),
            (106, 6),
            (122, 6),
            (138, 6),
            (154, 6),
            (416, 96),
        ],
        _ => &[],
    }
}

/// Bits of RFLAGS for flags in iced-x86's numbering.
pub fn rflags(flags: u32) -> u32 {
    const PAIRS: [(u32, u32); 7] = [
        (F::CF, 1),
        (F::PF, 4),
        (F::AF, 0x10),
        (F::ZF, 0x40),
        (F::SF, 0x80),
        (F::DF, 0x400),
        (F::OF, 0x800),
    ];
    PAIRS.iter().filter(|(iced, _)| flags & iced != 0).fold(0, |m, (_, bit)| m | bit)
}

/// Bits of the x87 status word for flags in iced-x86's numbering.
pub fn status_word(flags: u32) -> u16 {
    const PAIRS: [(u32, u16); 4] =
        [(F::C0, 0x100), (F::C1, 0x200), (F::C2, 0x400), (F::C3, 0x4000)];
    PAIRS.iter().filter(|(iced, _)| flags & iced != 0).fold(0, |m, (_, bit)| m | bit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::Register;

    fn shift(code: Code, count: u32) -> Instruction {
        Instruction::with2(code, Register::AX, count).expect("a valid instruction")
    }

    #[test]
    fn shifts_depend_on_the_count() {
        let undefined = |count| flag_effect(&shift(Code::Shl_rm16_imm8, count), None).undefined;
        assert_eq!(undefined(0), 0);
        assert_eq!(undefined(1), F::AF);
        assert_eq!(undefined(2), F::AF | F::OF);
        assert_eq!(undefined(16), F::AF | F::OF | F::CF);
        assert_eq!(undefined(32), 0);
    }

    #[test]
    fn an_unknown_count_may_leave_everything() {
        let shl =
            Instruction::with2(Code::Shl_rm32_CL, Register::EAX, Register::CL).expect("valid");
        let effect = flag_effect(&shl, None);
        assert_eq!(effect, FlagEffect { undefined: F::AF | F::OF | F::CF, defined: 0 });
        assert_eq!(flag_effect(&shl, Some(3)).defined, STATUS & !(F::AF | F::OF));
    }

    #[test]
    fn rotates_keep_most_flags() {
        let effect = flag_effect(&shift(Code::Rcl_rm16_imm8, 1), None);
        assert_eq!(effect, FlagEffect { undefined: 0, defined: F::CF | F::OF });
    }
}
