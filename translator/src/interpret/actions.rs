//! Which instructions are interpreted, and as what: a table by mnemonic.

use iced_x86::Mnemonic as M;

/// What an instruction does. Its operands and their size are in the instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is left to the translator.
    Translate,
    /// Nothing.
    Nop,
    Move,
    Lea,
    /// MOVZX; and MOVSX and MOVSXD.
    Extend {
        signed: bool,
    },
    /// CBW, CWDE, CDQE: the accumulator to twice this size in bytes.
    Widen(u8),
    /// CWD, CDQ, CQO: the accumulator's sign, of this size in bytes, fills rdx.
    SignToRdx(u8),
    Arithmetic(Arithmetic),
    Increment,
    Decrement,
    Negate,
    Not,
    Exchange,
    Shift(Shift),
    /// IMUL with two or three operands, or one.
    Imul,
    Mul,
    Div {
        signed: bool,
    },
    BitTest,
    Push,
    Pop,
    Leave,
    Call,
    Return,
    Jump,
    /// Jcc, SETcc and CMOVcc with their condition code.
    JumpIf(u8),
    SetIf(u8),
    MoveIf(u8),
    Syscall,
    /// REP MOVS and REP STOS with this size of the element in bytes.
    RepeatMove(u8),
    RepeatStore(u8),
    /// MOVUPS and its like: 16 bytes; `aligned` in memory or #GP.
    VectorMove {
        aligned: bool,
    },
    /// MOVQ and MOVD.
    VectorMoveLow(u8),
    /// MOVHPS and MOVHPD between memory and the upper half.
    VectorMoveHigh,
    Vector(Vector),
}

/// Operations with two operands that set all status flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names are the architecture's
pub enum Arithmetic {
    Add,
    Adc,
    Sub,
    Sbb,
    Cmp,
    And,
    Or,
    Xor,
    Test,
}

/// Shifts and rotations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names are the architecture's
pub enum Shift {
    Shl,
    Shr,
    Sar,
    Rol,
    Ror,
}

/// Operations on two vectors, of which the first becomes the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names are the architecture's
pub enum Vector {
    And,
    AndNot,
    Or,
    Xor,
    EqualBytes,
    EqualDwords,
    MinBytes,
    SubBytes,
    AddQwords,
    UnpackLowDwords,
    UnpackLowQwords,
    UnpackHighQwords,
    ShuffleDwords,
    ShiftLeftBytes,
    ShiftRightBytes,
    MoveMask,
}

/// The action for a mnemonic.
#[inline]
pub fn action(mnemonic: M) -> Action {
    ACTIONS[mnemonic as usize & (COUNT - 1)]
}

/// At least the number of mnemonics iced knows.
const COUNT: usize = 2048;

static ACTIONS: [Action; COUNT] = {
    let mut table = [Action::Translate; COUNT];
    let mut i = 0;
    while i < ROWS.len() {
        assert!(matches!(table[ROWS[i].0 as usize], Action::Translate), "it stands there twice");
        table[ROWS[i].0 as usize] = ROWS[i].1;
        i += 1;
    }
    table
};

const ROWS: &[(M, Action)] = &[
    (M::Nop, Action::Nop),
    (M::Endbr64, Action::Nop),
    (M::Mov, Action::Move),
    (M::Lea, Action::Lea),
    (M::Movzx, Action::Extend { signed: false }),
    (M::Movsx, Action::Extend { signed: true }),
    (M::Movsxd, Action::Extend { signed: true }),
    (M::Cbw, Action::Widen(1)),
    (M::Cwde, Action::Widen(2)),
    (M::Cdqe, Action::Widen(4)),
    (M::Cwd, Action::SignToRdx(2)),
    (M::Cdq, Action::SignToRdx(4)),
    (M::Cqo, Action::SignToRdx(8)),
    (M::Add, Action::Arithmetic(Arithmetic::Add)),
    (M::Adc, Action::Arithmetic(Arithmetic::Adc)),
    (M::Sub, Action::Arithmetic(Arithmetic::Sub)),
    (M::Sbb, Action::Arithmetic(Arithmetic::Sbb)),
    (M::Cmp, Action::Arithmetic(Arithmetic::Cmp)),
    (M::And, Action::Arithmetic(Arithmetic::And)),
    (M::Or, Action::Arithmetic(Arithmetic::Or)),
    (M::Xor, Action::Arithmetic(Arithmetic::Xor)),
    (M::Test, Action::Arithmetic(Arithmetic::Test)),
    (M::Inc, Action::Increment),
    (M::Dec, Action::Decrement),
    (M::Neg, Action::Negate),
    (M::Not, Action::Not),
    (M::Xchg, Action::Exchange),
    (M::Shl, Action::Shift(Shift::Shl)),
    (M::Shr, Action::Shift(Shift::Shr)),
    (M::Sar, Action::Shift(Shift::Sar)),
    (M::Rol, Action::Shift(Shift::Rol)),
    (M::Ror, Action::Shift(Shift::Ror)),
    (M::Imul, Action::Imul),
    (M::Mul, Action::Mul),
    (M::Div, Action::Div { signed: false }),
    (M::Idiv, Action::Div { signed: true }),
    (M::Bt, Action::BitTest),
    (M::Push, Action::Push),
    (M::Pop, Action::Pop),
    (M::Leave, Action::Leave),
    (M::Call, Action::Call),
    (M::Ret, Action::Return),
    (M::Jmp, Action::Jump),
    (M::Jo, Action::JumpIf(0)),
    (M::Jno, Action::JumpIf(1)),
    (M::Jb, Action::JumpIf(2)),
    (M::Jae, Action::JumpIf(3)),
    (M::Je, Action::JumpIf(4)),
    (M::Jne, Action::JumpIf(5)),
    (M::Jbe, Action::JumpIf(6)),
    (M::Ja, Action::JumpIf(7)),
    (M::Js, Action::JumpIf(8)),
    (M::Jns, Action::JumpIf(9)),
    (M::Jp, Action::JumpIf(10)),
    (M::Jnp, Action::JumpIf(11)),
    (M::Jl, Action::JumpIf(12)),
    (M::Jge, Action::JumpIf(13)),
    (M::Jle, Action::JumpIf(14)),
    (M::Jg, Action::JumpIf(15)),
    (M::Seto, Action::SetIf(0)),
    (M::Setno, Action::SetIf(1)),
    (M::Setb, Action::SetIf(2)),
    (M::Setae, Action::SetIf(3)),
    (M::Sete, Action::SetIf(4)),
    (M::Setne, Action::SetIf(5)),
    (M::Setbe, Action::SetIf(6)),
    (M::Seta, Action::SetIf(7)),
    (M::Sets, Action::SetIf(8)),
    (M::Setns, Action::SetIf(9)),
    (M::Setp, Action::SetIf(10)),
    (M::Setnp, Action::SetIf(11)),
    (M::Setl, Action::SetIf(12)),
    (M::Setge, Action::SetIf(13)),
    (M::Setle, Action::SetIf(14)),
    (M::Setg, Action::SetIf(15)),
    (M::Cmovo, Action::MoveIf(0)),
    (M::Cmovno, Action::MoveIf(1)),
    (M::Cmovb, Action::MoveIf(2)),
    (M::Cmovae, Action::MoveIf(3)),
    (M::Cmove, Action::MoveIf(4)),
    (M::Cmovne, Action::MoveIf(5)),
    (M::Cmovbe, Action::MoveIf(6)),
    (M::Cmova, Action::MoveIf(7)),
    (M::Cmovs, Action::MoveIf(8)),
    (M::Cmovns, Action::MoveIf(9)),
    (M::Cmovp, Action::MoveIf(10)),
    (M::Cmovnp, Action::MoveIf(11)),
    (M::Cmovl, Action::MoveIf(12)),
    (M::Cmovge, Action::MoveIf(13)),
    (M::Cmovle, Action::MoveIf(14)),
    (M::Cmovg, Action::MoveIf(15)),
    (M::Syscall, Action::Syscall),
    (M::Movsb, Action::RepeatMove(1)),
    (M::Movsq, Action::RepeatMove(8)),
    (M::Stosb, Action::RepeatStore(1)),
    (M::Stosd, Action::RepeatStore(4)),
    (M::Stosq, Action::RepeatStore(8)),
    (M::Movaps, Action::VectorMove { aligned: true }),
    (M::Movapd, Action::VectorMove { aligned: true }),
    (M::Movdqa, Action::VectorMove { aligned: true }),
    (M::Movups, Action::VectorMove { aligned: false }),
    (M::Movupd, Action::VectorMove { aligned: false }),
    (M::Movdqu, Action::VectorMove { aligned: false }),
    (M::Movd, Action::VectorMoveLow(4)),
    (M::Movq, Action::VectorMoveLow(8)),
    (M::Movhps, Action::VectorMoveHigh),
    (M::Movhpd, Action::VectorMoveHigh),
    (M::Pand, Action::Vector(Vector::And)),
    (M::Andps, Action::Vector(Vector::And)),
    (M::Pandn, Action::Vector(Vector::AndNot)),
    (M::Por, Action::Vector(Vector::Or)),
    (M::Orps, Action::Vector(Vector::Or)),
    (M::Pxor, Action::Vector(Vector::Xor)),
    (M::Xorps, Action::Vector(Vector::Xor)),
    (M::Pcmpeqb, Action::Vector(Vector::EqualBytes)),
    (M::Pcmpeqd, Action::Vector(Vector::EqualDwords)),
    (M::Pminub, Action::Vector(Vector::MinBytes)),
    (M::Psubb, Action::Vector(Vector::SubBytes)),
    (M::Paddq, Action::Vector(Vector::AddQwords)),
    (M::Punpckldq, Action::Vector(Vector::UnpackLowDwords)),
    (M::Punpcklqdq, Action::Vector(Vector::UnpackLowQwords)),
    (M::Movlhps, Action::Vector(Vector::UnpackLowQwords)),
    (M::Punpckhqdq, Action::Vector(Vector::UnpackHighQwords)),
    (M::Pshufd, Action::Vector(Vector::ShuffleDwords)),
    (M::Pslldq, Action::Vector(Vector::ShiftLeftBytes)),
    (M::Psrldq, Action::Vector(Vector::ShiftRightBytes)),
    (M::Pmovmskb, Action::Vector(Vector::MoveMask)),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mnemonic_has_a_place() {
        assert!(M::values().len() <= COUNT);
    }
}
