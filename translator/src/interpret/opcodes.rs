//! Which instructions are interpreted: the opcode maps (Intel SDM vol. 2, appendix A), with what is
//! left to the translator left out.

/// What an instruction does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is left to the translator.
    Translate,
    /// The field ModRM.reg says it.
    Group(Group),
    /// Nothing.
    Nop,
    Move,
    Lea,
    /// MOVZX; and MOVSX and MOVSXD.
    Extend {
        signed: bool,
    },
    /// CBW, CWDE, CDQE: the accumulator is extended to its size.
    Widen,
    /// CWD, CDQ, CQO: the accumulator's sign fills rdx.
    SignToRdx,
    Arithmetic(Arithmetic),
    Increment,
    Decrement,
    Negate,
    Not,
    Exchange,
    Shift(Shift),
    /// IMUL with two and with three operands.
    Imul,
    Imul3,
    /// MUL and IMUL with one operand.
    Multiply {
        signed: bool,
    },
    Divide {
        signed: bool,
    },
    BitTest,
    Push,
    Pop,
    Leave,
    /// To a relative target, or to an operand.
    Call,
    CallTo,
    Return,
    Jump,
    JumpTo,
    /// Jcc, SETcc and CMOVcc with their condition code.
    JumpIf(u8),
    SetIf(u8),
    MoveIf(u8),
    Syscall,
    /// With REP: MOVS and STOS.
    RepeatMove,
    RepeatStore,
    /// 16 bytes; `aligned` in memory or #GP.
    VectorMove {
        aligned: bool,
    },
    /// MOVQ and MOVD: the rest of a vector register is cleared.
    VectorMoveLow,
    /// MOVHPS and MOVHPD; into a register, from memory.
    VectorLoadHigh,
    VectorStoreHigh,
    /// On two vectors, of which the first becomes the result.
    Vector(Vector),
    ShuffleDwords,
    /// PSLLDQ and PSRLDQ.
    ShiftBytes {
        left: bool,
    },
    MoveMask,
}

/// Operations with two operands that set all status flags, in the order of their opcodes; and TEST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names are the architecture's
pub enum Arithmetic {
    Add,
    Or,
    Adc,
    Sbb,
    And,
    Sub,
    Xor,
    Cmp,
    Test,
}

impl Arithmetic {
    /// Those with a number in their opcodes (Intel SDM vol. 2, table A-6, group 1).
    pub const ALL: [Arithmetic; 8] = {
        use Arithmetic::*;
        [Add, Or, Adc, Sbb, And, Sub, Xor, Cmp]
    };
}

/// Shifts and rotations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names are the architecture's
pub enum Shift {
    Rol,
    Ror,
    Shl,
    Shr,
    Sar,
}

/// Operations on vectors.
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
}

/// Opcodes that ModRM.reg extends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// 80, 81, 83.
    Arithmetic,
    /// C0, C1, D0 to D3.
    Shift,
    /// C6, C7.
    Move,
    /// F6, F7: the operand that only TEST has is read in its place.
    Unary,
    /// FE.
    IncDec,
    /// FF.
    IncDecBranch,
    /// 0F BA.
    BitTest,
    /// 66 0F 73.
    ShiftBytes,
}

impl Group {
    /// The action for ModRM.reg.
    #[inline]
    pub fn member(self, reg: u8) -> Action {
        GROUPS[self as usize][usize::from(reg & 7)]
    }
}

/// Where operands are and how large; the names are those of the manual's appendix A.2.1. The first is the one that
/// is written. V and W are vectors; y is 4 bytes, or 8 with REX.W.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Operands {
    None,
    EbGb,
    EvGv,
    GbEb,
    GvEv,
    GvEb,
    GvEw,
    /// MOVSXD.
    GvEd,
    AlIb,
    RaxIz,
    EbIb,
    EvIb,
    EvIz,
    Eb1,
    Ev1,
    EbCl,
    EvCl,
    Eb,
    Ev,
    GvM,
    GvEvIb,
    GvEvIz,
    ZbIb,
    ZvIv,
    /// A register in the opcode, 8 bytes.
    Zq,
    /// A sign-extended immediate.
    Ib,
    Iz,
    Iw,
    /// A branch target.
    Jb,
    Jz,
    VxWx,
    WxVx,
    VxWxIb,
    VxM,
    MVx,
    VyEy,
    EyVy,
    VqWq,
    WqVq,
    UxIb,
    GdUx,
}

/// An opcode's row.
pub type Row = (Action, Operands);

const NO: Row = (Action::Translate, Operands::None);

/// Whether F2 and F3 mean nothing to a one-byte opcode that takes them: BND, and REP RET.
pub fn ignores_repeat(action: Action) -> bool {
    matches!(action, Action::Call | Action::Return | Action::Jump | Action::JumpIf(_))
}

const ALL_ARITHMETIC: [Arithmetic; 8] = {
    use Arithmetic::*;
    [Add, Or, Adc, Sbb, And, Sub, Xor, Cmp]
};

static GROUPS: [[Action; 8]; 8] = {
    use Action::*;
    const T: Action = Translate;
    let mut arithmetic = [T; 8];
    let mut i = 0;
    while i < 8 {
        arithmetic[i] = Arithmetic(ALL_ARITHMETIC[i]);
        i += 1;
    }
    let test = Arithmetic(self::Arithmetic::Test);
    let (shl, shr, sar) =
        (Shift(self::Shift::Shl), Shift(self::Shift::Shr), Shift(self::Shift::Sar));
    [
        arithmetic,
        [Shift(self::Shift::Rol), Shift(self::Shift::Ror), T, T, shl, shr, T, sar],
        [Move, T, T, T, T, T, T, T],
        [
            test,
            T,
            Not,
            Negate,
            Multiply { signed: false },
            Multiply { signed: true },
            Divide { signed: false },
            Divide { signed: true },
        ],
        [Increment, Decrement, T, T, T, T, T, T],
        [Increment, Decrement, CallTo, T, JumpTo, T, Push, T],
        [T, T, T, T, BitTest, T, T, T],
        [T, T, T, ShiftBytes { left: false }, T, T, T, ShiftBytes { left: true }],
    ]
};

/// The map of one-byte opcodes.
pub static ONE_BYTE: [Row; 256] = {
    use Action::*;
    use Operands as O;
    let mut map = [NO; 256];
    let mut i = 0;
    while i < 8 {
        let action = Arithmetic(ALL_ARITHMETIC[i]);
        let forms = [O::EbGb, O::EvGv, O::GbEb, O::GvEv, O::AlIb, O::RaxIz];
        let mut f = 0;
        while f < forms.len() {
            map[8 * i + f] = (action, forms[f]);
            f += 1;
        }
        map[0x50 + i] = (Push, O::Zq);
        map[0x58 + i] = (Pop, O::Zq);
        map[0xb0 + i] = (Move, O::ZbIb);
        map[0xb8 + i] = (Move, O::ZvIv);
        i += 1;
    }
    let mut condition = 0;
    while condition < 16 {
        map[0x70 + condition] = (JumpIf(condition as u8), O::Jb);
        condition += 1;
    }
    const TEST: Action = Arithmetic(self::Arithmetic::Test);
    let rows = [
        (0x63, Extend { signed: true }, O::GvEd),
        (0x68, Push, O::Iz),
        (0x69, Imul3, O::GvEvIz),
        (0x6a, Push, O::Ib),
        (0x6b, Imul3, O::GvEvIb),
        (0x80, Group(self::Group::Arithmetic), O::EbIb),
        (0x81, Group(self::Group::Arithmetic), O::EvIz),
        (0x83, Group(self::Group::Arithmetic), O::EvIb),
        (0x84, TEST, O::EbGb),
        (0x85, TEST, O::EvGv),
        (0x86, Exchange, O::EbGb),
        (0x87, Exchange, O::EvGv),
        (0x88, Move, O::EbGb),
        (0x89, Move, O::EvGv),
        (0x8a, Move, O::GbEb),
        (0x8b, Move, O::GvEv),
        (0x8d, Lea, O::GvM),
        (0x90, Nop, O::None),
        (0x98, Widen, O::None),
        (0x99, SignToRdx, O::None),
        (0xa4, RepeatMove, O::None),
        (0xa5, RepeatMove, O::None),
        (0xa8, TEST, O::AlIb),
        (0xa9, TEST, O::RaxIz),
        (0xaa, RepeatStore, O::None),
        (0xab, RepeatStore, O::None),
        (0xc0, Group(self::Group::Shift), O::EbIb),
        (0xc1, Group(self::Group::Shift), O::EvIb),
        (0xc2, Return, O::Iw),
        (0xc3, Return, O::None),
        (0xc6, Group(self::Group::Move), O::EbIb),
        (0xc7, Group(self::Group::Move), O::EvIz),
        (0xc9, Leave, O::None),
        (0xd0, Group(self::Group::Shift), O::Eb1),
        (0xd1, Group(self::Group::Shift), O::Ev1),
        (0xd2, Group(self::Group::Shift), O::EbCl),
        (0xd3, Group(self::Group::Shift), O::EvCl),
        (0xe8, Call, O::Jz),
        (0xe9, Jump, O::Jz),
        (0xeb, Jump, O::Jb),
        (0xf6, Group(self::Group::Unary), O::Eb),
        (0xf7, Group(self::Group::Unary), O::Ev),
        (0xfe, Group(self::Group::IncDec), O::Eb),
        (0xff, Group(self::Group::IncDecBranch), O::Ev),
    ];
    put(map, &rows)
};

/// The map of opcodes behind 0F; by mandatory prefix: none, 66, F3, F2.
pub static TWO_BYTE: [[Row; 256]; 4] = {
    use Action::*;
    use Operands as O;
    const ALIGNED: Action = VectorMove { aligned: true };
    const UNALIGNED: Action = VectorMove { aligned: false };
    let mut integer = [NO; 256];
    let mut bounded = [NO; 256];
    let mut condition = 0;
    while condition < 16 {
        integer[0x40 + condition] = (MoveIf(condition as u8), O::GvEv);
        integer[0x80 + condition] = (JumpIf(condition as u8), O::Jz);
        bounded[0x80 + condition] = integer[0x80 + condition];
        integer[0x90 + condition] = (SetIf(condition as u8), O::Eb);
        condition += 1;
    }
    let rows = [
        (0x1f, Nop, O::Ev),
        (0xa3, BitTest, O::EvGv),
        (0xaf, Imul, O::GvEv),
        (0xb6, Extend { signed: false }, O::GvEb),
        (0xb7, Extend { signed: false }, O::GvEw),
        (0xba, Group(self::Group::BitTest), O::EvIb),
        (0xbe, Extend { signed: true }, O::GvEb),
        (0xbf, Extend { signed: true }, O::GvEw),
    ];
    let integer = put(integer, &rows);
    let plain = [
        (0x05, Syscall, O::None),
        (0x10, UNALIGNED, O::VxWx),
        (0x11, UNALIGNED, O::WxVx),
        (0x17, VectorStoreHigh, O::MVx),
        (0x28, ALIGNED, O::VxWx),
        (0x29, ALIGNED, O::WxVx),
        (0x54, Vector(self::Vector::And), O::VxWx),
        (0x56, Vector(self::Vector::Or), O::VxWx),
        (0x57, Vector(self::Vector::Xor), O::VxWx),
        (0x16, VectorLoadHigh, O::VxM),
    ];
    let packed = [
        (0x10, UNALIGNED, O::VxWx),
        (0x11, UNALIGNED, O::WxVx),
        (0x16, VectorLoadHigh, O::VxM),
        (0x17, VectorStoreHigh, O::MVx),
        (0x28, ALIGNED, O::VxWx),
        (0x29, ALIGNED, O::WxVx),
        (0x54, Vector(self::Vector::And), O::VxWx),
        (0x56, Vector(self::Vector::Or), O::VxWx),
        (0x57, Vector(self::Vector::Xor), O::VxWx),
        (0x62, Vector(self::Vector::UnpackLowDwords), O::VxWx),
        (0x6c, Vector(self::Vector::UnpackLowQwords), O::VxWx),
        (0x6d, Vector(self::Vector::UnpackHighQwords), O::VxWx),
        (0x6e, VectorMoveLow, O::VyEy),
        (0x6f, ALIGNED, O::VxWx),
        (0x70, ShuffleDwords, O::VxWxIb),
        (0x73, Group(self::Group::ShiftBytes), O::UxIb),
        (0x74, Vector(self::Vector::EqualBytes), O::VxWx),
        (0x76, Vector(self::Vector::EqualDwords), O::VxWx),
        (0x7e, VectorMoveLow, O::EyVy),
        (0x7f, ALIGNED, O::WxVx),
        (0xd4, Vector(self::Vector::AddQwords), O::VxWx),
        (0xd6, VectorMoveLow, O::WqVq),
        (0xd7, MoveMask, O::GdUx),
        (0xda, Vector(self::Vector::MinBytes), O::VxWx),
        (0xdb, Vector(self::Vector::And), O::VxWx),
        (0xdf, Vector(self::Vector::AndNot), O::VxWx),
        (0xeb, Vector(self::Vector::Or), O::VxWx),
        (0xef, Vector(self::Vector::Xor), O::VxWx),
        (0xf8, Vector(self::Vector::SubBytes), O::VxWx),
    ];
    let scalar = [
        // Only ENDBR64.
        (0x1e, Nop, O::Ev),
        (0x6f, UNALIGNED, O::VxWx),
        (0x7e, VectorMoveLow, O::VqWq),
        (0x7f, UNALIGNED, O::WxVx),
    ];
    [put(integer, &plain), put(integer, &packed), put([NO; 256], &scalar), bounded]
};

const fn put(mut map: [Row; 256], rows: &[(u8, Action, Operands)]) -> [Row; 256] {
    let mut i = 0;
    while i < rows.len() {
        let (opcode, action, operands) = rows[i];
        assert!(matches!(map[opcode as usize].0, Action::Translate), "it stands there twice");
        map[opcode as usize] = (action, operands);
        i += 1;
    }
    map
}
