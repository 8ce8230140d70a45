//! The arm64 assembler that lowering writes to: dynasm for the encodings, and on top of it what
//! dynamic register widths, labels and the literal pool need.
//!
//! Lowering calls the methods here where the operand width is a parameter, and `dynasm!(asm; .arch
//! aarch64; …)` directly where it is not (vector code).

use crate::cache::retarget;
use crate::relocation::Relocation;
use crate::tramp::Trampoline;
use dynasmrt::{AssemblyOffset, DynasmApi, dynasm};

/// A host integer register, 0..=30; 31 is the zero register (or SP as a base).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct R(pub u8);

/// A host vector register, 0..=31.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct V(pub u8);

impl R {
    /// The zero register.
    pub const ZR: R = R(31);

    /// The register's number as dynasm takes it.
    pub const fn n(self) -> u32 {
        self.0 as u32
    }
}

impl V {
    /// The register's number as dynasm takes it.
    pub fn n(self) -> u32 {
        u32::from(self.0)
    }
}

/// Width of an integer operation: a W or an X register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// 32 bits; the result is zero-extended.
    W,
    /// 64 bits.
    X,
}

impl Width {
    /// Number of bits.
    pub fn bits(self) -> u32 {
        match self {
            Width::W => 32,
            Width::X => 64,
        }
    }
}

/// Condition codes in their encoding (Arm ARM C1.2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Cond {
    Eq = 0,
    Ne = 1,
    Cs = 2,
    Cc = 3,
    Mi = 4,
    Pl = 5,
    Vs = 6,
    Vc = 7,
    Hi = 8,
    Ls = 9,
    Ge = 10,
    Lt = 11,
    Gt = 12,
    Le = 13,
}

impl Cond {
    const ALL: [Cond; 14] = [
        Cond::Eq,
        Cond::Ne,
        Cond::Cs,
        Cond::Cc,
        Cond::Mi,
        Cond::Pl,
        Cond::Vs,
        Cond::Vc,
        Cond::Hi,
        Cond::Ls,
        Cond::Ge,
        Cond::Lt,
        Cond::Gt,
        Cond::Le,
    ];

    /// The opposite condition: the encoding's lowest bit inverts.
    pub fn invert(self) -> Cond {
        Cond::ALL[self as usize ^ 1]
    }
}

/// A place in the code that branches refer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label(u32);

impl Label {
    /// A place that is not known yet: whoever makes it fills in the branch, see [`Asm::lead`].
    pub const LATER: Label = Label(u32::MAX);
}

const UNBOUND: u32 = u32::MAX;

/// The immediate field that a reference to a label sits in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    /// B, BL.
    Imm26,
    /// B.cond, CBZ, CBNZ, LDR (literal).
    Imm19,
    /// TBZ, TBNZ.
    Imm14,
    /// ADR.
    Adr,
}

#[derive(Clone, Copy, Debug)]
struct Fixup {
    at: u32,
    label: Label,
    field: Field,
}

/// What a literal means, so that a translation can be moved or loaded into another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reloc {
    /// A plain number: nothing to relocate.
    None,
    /// A guest address: moves with the guest's image.
    Guest,
    /// A direct branch (B or BL) to a trampoline, which the cache resolves.
    Trampoline(Trampoline),
    /// An exit: a BL to the dispatcher's trampoline, and behind it the guest address that it is for.
    Exit,
}

impl Reloc {
    /// The trampoline that the word branches to.
    pub fn trampoline(self) -> Option<Trampoline> {
        match self {
            Reloc::Trampoline(t) => Some(t),
            Reloc::Exit => Some(Trampoline::Direct),
            Reloc::None | Reloc::Guest => None,
        }
    }
}

/// A 64-bit word in the literal pool.
#[derive(Clone, Copy, Debug)]
pub struct Literal {
    value: u64,
    reloc: Reloc,
    label: Label,
}

/// A buffer of arm64 code under construction.
#[derive(Debug, Default)]
pub struct Asm {
    code: Vec<u32>,
    labels: Vec<u32>,
    fixups: Vec<Fixup>,
    literals: Vec<Literal>,
    /// Where a label was bound last.
    bound_at: u32,
    /// The words that need relocation, filled until [`Asm::finish`].
    pub relocations: Vec<Relocation>,
}

const WHOLE_WORDS: &str = "arm64 code is whole words";

impl Extend<u8> for Asm {
    fn extend<T: IntoIterator<Item = u8>>(&mut self, bytes: T) {
        let mut bytes = bytes.into_iter();
        while let Some(first) = bytes.next() {
            let mut next = || bytes.next().expect(WHOLE_WORDS);
            self.code.push(u32::from_le_bytes([first, next(), next(), next()]));
        }
    }
}

impl<'a> Extend<&'a u8> for Asm {
    fn extend<T: IntoIterator<Item = &'a u8>>(&mut self, bytes: T) {
        self.extend(bytes.into_iter().copied());
    }
}

impl DynasmApi for Asm {
    fn offset(&self) -> AssemblyOffset {
        AssemblyOffset(4 * self.code.len())
    }
    fn push(&mut self, _: u8) {
        unreachable!("{WHOLE_WORDS}");
    }
    fn align(&mut self, _: usize, _: u8) {
        unreachable!("{WHOLE_WORDS}");
    }
    fn push_u32(&mut self, value: u32) {
        self.code.push(value);
    }
}

/// Three-register operations `name d, n, m`.
macro_rules! rrr {
    ($($(#[$doc:meta])* $name:ident $op:tt;)*) => { $(
        $(#[$doc])*
        pub fn $name(&mut self, w: Width, d: R, n: R, m: R) {
            match w {
                Width::W => dynasm!(self; .arch aarch64; $op W(d.0), W(n.0), W(m.0)),
                Width::X => dynasm!(self; .arch aarch64; $op X(d.0), X(n.0), X(m.0)),
            }
        }
    )* }
}

/// Three-register operations whose last operand is shifted left.
macro_rules! rrr_lsl {
    ($($(#[$doc:meta])* $name:ident $op:tt;)*) => { $(
        $(#[$doc])*
        pub fn $name(&mut self, w: Width, d: R, n: R, m: R, lsl: u32) {
            match w {
                Width::W => dynasm!(self; .arch aarch64; $op W(d.0), W(n.0), W(m.0), lsl lsl),
                Width::X => dynasm!(self; .arch aarch64; $op X(d.0), X(n.0), X(m.0), lsl lsl),
            }
        }
    )* }
}

/// Two-register operations `name d, n`.
macro_rules! rr {
    ($($(#[$doc:meta])* $name:ident $op:tt;)*) => { $(
        $(#[$doc])*
        pub fn $name(&mut self, w: Width, d: R, n: R) {
            match w {
                Width::W => dynasm!(self; .arch aarch64; $op W(d.0), W(n.0)),
                Width::X => dynasm!(self; .arch aarch64; $op X(d.0), X(n.0)),
            }
        }
    )* }
}

/// Operations with an immediate shift amount `name d, n, #amount`.
macro_rules! shift {
    ($($(#[$doc:meta])* $name:ident $op:tt;)*) => { $(
        $(#[$doc])*
        pub fn $name(&mut self, w: Width, d: R, n: R, amount: u32) {
            match w {
                Width::W => dynasm!(self; .arch aarch64; $op W(d.0), W(n.0), amount),
                Width::X => dynasm!(self; .arch aarch64; $op X(d.0), X(n.0), amount),
            }
        }
    )* }
}

/// Bit-field operations `name d, n, #lsb, #width`.
macro_rules! bitfield {
    ($($(#[$doc:meta])* $name:ident $op:tt;)*) => { $(
        $(#[$doc])*
        pub fn $name(&mut self, w: Width, d: R, n: R, lsb: u32, width: u32) {
            match w {
                Width::W => dynasm!(self; .arch aarch64; $op W(d.0), W(n.0), lsb, width),
                Width::X => dynasm!(self; .arch aarch64; $op X(d.0), X(n.0), lsb, width),
            }
        }
    )* }
}

/// Additions and subtractions with an immediate. The operand is any value that fits 12 bits,
/// plain or shifted left by 12: see [`fits_add_imm`]. Register 31 is SP in the forms without flags
/// and as the source, the zero register as destination of the flag-setting ones.
macro_rules! add_imm {
    ($($(#[$doc:meta])* $name:ident $op:tt $D:tt $DW:tt;)*) => { $(
        $(#[$doc])*
        pub fn $name(&mut self, w: Width, d: R, n: R, imm: u64) {
            let (value, high) = if imm < 0x1000 { (imm as u32, false) } else { ((imm >> 12) as u32, true) };
            match (w, high) {
                (Width::W, false) => dynasm!(self; .arch aarch64; $op $DW(d.0), WSP(n.0), value),
                (Width::W, true) => dynasm!(self; .arch aarch64; $op $DW(d.0), WSP(n.0), value, lsl 12),
                (Width::X, false) => dynasm!(self; .arch aarch64; $op $D(d.0), XSP(n.0), value),
                (Width::X, true) => dynasm!(self; .arch aarch64; $op $D(d.0), XSP(n.0), value, lsl 12),
            }
        }
    )* }
}

/// Logical operations with a bitmask immediate; see [`fits_logical_imm`].
macro_rules! logical_imm {
    ($($(#[$doc:meta])* $name:ident $base:literal;)*) => { $(
        $(#[$doc])*
        pub fn $name(&mut self, w: Width, d: R, n: R, imm: u64) {
            let fields = logical_imm_fields(w, imm).expect("caller checked fits_logical_imm");
            let sf = if w == Width::X { 1 << 31 } else { 0 };
            self.word($base | sf | fields << 10 | n.n() << 5 | d.n());
        }
    )* }
}

/// Whether ADD/SUB can take the value as immediate.
pub fn fits_add_imm(v: u64) -> bool {
    v < 0x1000 || (v & 0xfff == 0 && v < 0x100_0000)
}

/// N:immr:imms of a logical immediate, or None if the value is not a rotated run of ones in a
/// repeated element (Arm ARM, DecodeBitMasks).
pub fn logical_imm_fields(w: Width, value: u64) -> Option<u32> {
    let value = match w {
        Width::W => (value & 0xffff_ffff) | value << 32,
        Width::X => value,
    };
    if value == 0 || value == u64::MAX {
        return None;
    }
    // The smallest element size whose repetition gives the value.
    let mut size = 64;
    while size > 2 {
        let half = size / 2;
        let mask = (1u64 << half) - 1;
        if (value >> half) & mask != value & mask {
            break;
        }
        size = half;
    }
    let mask = if size == 64 { u64::MAX } else { (1u64 << size) - 1 };
    let element = value & mask;
    let ones = element.count_ones();
    // Rotate so that the run of ones starts at bit 0.
    let rotation = if element & 1 != 0 {
        let leading = (!(element << (64 - size))).leading_zeros();
        size - leading
    } else {
        element.trailing_zeros()
    } % size;
    let rotated = ((element >> rotation) | (element << ((size - rotation) % 64))) & mask;
    if rotation != 0 && rotated != (1u64 << ones) - 1
        || rotation == 0 && element != mask >> (size - ones)
    {
        return None;
    }
    let immr = (size - rotation) % size;
    let imms = ((!(size * 2 - 1)) & 0x3f) | (ones - 1);
    let n = u32::from(size == 64);
    Some(n << 12 | immr << 6 | imms)
}

/// The 16-bit parts of a constant: how many there are, are 0, and are ffff.
struct Halves {
    count: u32,
    zeros: usize,
    ones: usize,
}

fn halves(w: Width, value: u64) -> Halves {
    let count = if w == Width::W && value >> 32 == 0 { 2 } else { 4 };
    let number = |h: u64| (0..count).filter(|&i| value >> (16 * i) & 0xffff == h).count();
    Halves { count, zeros: number(0), ones: number(0xffff) }
}

/// Whether [`Asm::mov_imm`] takes more than one instruction.
pub fn needs_movk(w: Width, value: u64) -> bool {
    let Halves { count, zeros, ones } = halves(w, value);
    count as usize - zeros.max(ones) > 1 && logical_imm_fields(w, value).is_none()
}

/// Whether AND/ORR/EOR can take the value as immediate.
pub fn fits_logical_imm(w: Width, v: u64) -> bool {
    logical_imm_fields(w, v).is_some()
}

#[allow(missing_docs)] // one method is one instruction; names are the Arm ARM's
impl Asm {
    rrr! {
        add add; adds adds; sub sub; subs subs; and and; ands ands; orr orr; eor eor; bic bic;
        bics bics; orn orn; eon eon; adc adc; adcs adcs; sbc sbc; sbcs sbcs; mul mul;
        udiv udiv; sdiv sdiv; lslv lsl; lsrv lsr; asrv asr; rorv ror;
    }
    rrr_lsl! {
        add_lsl add; adds_lsl adds; sub_lsl sub; subs_lsl subs; orr_lsl orr; eor_lsl eor; and_lsl and;
    }
    rr! { mov mov; mvn mvn; neg neg; negs negs; clz clz; rbit rbit; rev rev; ngcs ngcs; }
    shift! { lsl lsl; lsr lsr; asr asr; ror ror; }
    bitfield! { bfi bfi; bfxil bfxil; ubfx ubfx; sbfx sbfx; ubfiz ubfiz; sbfiz sbfiz; }
    add_imm! {
        add_imm add XSP WSP; sub_imm sub XSP WSP; adds_imm adds X W; subs_imm subs X W;
    }
    logical_imm! {
        and_imm 0x1200_0000; orr_imm 0x3200_0000; eor_imm 0x5200_0000; ands_imm 0x7200_0000;
    }

    /// EOR d, n, m, ASR #amount in X registers.
    pub fn eor_asr(&mut self, d: R, n: R, m: R, amount: u32) {
        dynasm!(self; .arch aarch64; eor X(d.0), X(n.0), X(m.0), asr amount);
    }
    pub fn sxtb(&mut self, w: Width, d: R, n: R) {
        self.sbfx(w, d, n, 0, 8);
    }
    pub fn sxth(&mut self, w: Width, d: R, n: R) {
        self.sbfx(w, d, n, 0, 16);
    }
    pub fn sxtw(&mut self, d: R, n: R) {
        self.sbfx(Width::X, d, n, 0, 32);
    }
    pub fn uxtb(&mut self, d: R, n: R) {
        self.ubfx(Width::W, d, n, 0, 8);
    }
    pub fn uxth(&mut self, d: R, n: R) {
        self.ubfx(Width::W, d, n, 0, 16);
    }
    pub fn tst(&mut self, w: Width, n: R, m: R) {
        self.ands(w, R::ZR, n, m);
    }
    /// CMP n, m, UXTB or UXTH, by the size of m in bytes.
    pub fn cmp_extending(&mut self, size: u32, n: R, m: R) {
        self.word(0x6b20_001f | m.n() << 16 | (size - 1) << 13 | n.n() << 5);
    }
    pub fn smulh(&mut self, d: R, n: R, m: R) {
        dynasm!(self; .arch aarch64; smulh X(d.0), X(n.0), X(m.0));
    }
    pub fn umulh(&mut self, d: R, n: R, m: R) {
        dynasm!(self; .arch aarch64; umulh X(d.0), X(n.0), X(m.0));
    }
    pub fn smull(&mut self, d: R, n: R, m: R) {
        dynasm!(self; .arch aarch64; smull X(d.0), W(n.0), W(m.0));
    }
    pub fn umull(&mut self, d: R, n: R, m: R) {
        dynasm!(self; .arch aarch64; umull X(d.0), W(n.0), W(m.0));
    }
    pub fn msub(&mut self, w: Width, d: R, n: R, m: R, a: R) {
        match w {
            Width::W => {
                dynasm!(self; .arch aarch64; msub W(d.0), W(n.0), W(m.0), W(a.0))
            }
            Width::X => {
                dynasm!(self; .arch aarch64; msub X(d.0), X(n.0), X(m.0), X(a.0))
            }
        }
    }
    pub fn extr(&mut self, w: Width, d: R, n: R, m: R, lsb: u32) {
        match w {
            Width::W => dynasm!(self; .arch aarch64; extr W(d.0), W(n.0), W(m.0), lsb),
            Width::X => dynasm!(self; .arch aarch64; extr X(d.0), X(n.0), X(m.0), lsb),
        }
    }
    /// CSEL d = cond ? n : m.
    pub fn csel(&mut self, w: Width, d: R, n: R, m: R, c: Cond) {
        let sf = if w == Width::X { 1 << 31 } else { 0 };
        self.word(0x1a80_0000 | sf | m.n() << 16 | (c as u32) << 12 | n.n() << 5 | d.n());
    }
    /// CSINC d = cond ? n : m + 1.
    pub fn csinc(&mut self, w: Width, d: R, n: R, m: R, c: Cond) {
        let sf = if w == Width::X { 1 << 31 } else { 0 };
        self.word(0x1a80_0400 | sf | m.n() << 16 | (c as u32) << 12 | n.n() << 5 | d.n());
    }
    /// CSNEG d = cond ? n : -m.
    pub fn csneg(&mut self, w: Width, d: R, n: R, m: R, c: Cond) {
        let sf = if w == Width::X { 1 << 31 } else { 0 };
        self.word(0x5a80_0400 | sf | m.n() << 16 | (c as u32) << 12 | n.n() << 5 | d.n());
    }
    /// CSETM d = cond ? -1 : 0.
    pub fn csetm(&mut self, w: Width, d: R, c: Cond) {
        let sf = if w == Width::X { 1 << 31 } else { 0 };
        self.word(0x5a9f_03e0 | sf | (c.invert() as u32) << 12 | d.n());
    }
    /// CSET d = cond ? 1 : 0.
    pub fn cset(&mut self, d: R, c: Cond) {
        self.csinc(Width::W, d, R::ZR, R::ZR, c.invert());
    }
    /// CCMP n, m, #nzcv, cond.
    pub fn ccmp(&mut self, w: Width, n: R, m: R, nzcv: u32, c: Cond) {
        let sf = if w == Width::X { 1 << 31 } else { 0 };
        self.word(0x7a40_0000 | sf | m.n() << 16 | (c as u32) << 12 | n.n() << 5 | nzcv);
    }
    /// MRS d, NZCV.
    pub fn mrs_nzcv(&mut self, d: R) {
        self.word(0xd53b_4200 | d.n());
    }
    /// MSR NZCV, n.
    pub fn msr_nzcv(&mut self, n: R) {
        self.word(0xd51b_4200 | n.n());
    }
    /// CFINV (FEAT_FlagM): C = !C.
    pub fn cfinv(&mut self) {
        self.word(0xd500_401f);
    }
    /// RMIF n, #ror, #mask (FEAT_FlagM): NZCV bits in mask = (n ror `ror`)[3:0].
    pub fn rmif(&mut self, n: R, ror: u32, mask: u32) {
        self.word(0xba00_0400 | (ror & 63) << 15 | n.n() << 5 | mask);
    }
    /// SETF8 n (FEAT_FlagM).
    pub fn setf8(&mut self, n: R) {
        self.word(0x3a00_080d | n.n() << 5);
    }
    /// SETF16 n (FEAT_FlagM).
    pub fn setf16(&mut self, n: R) {
        self.word(0x3a00_480d | n.n() << 5);
    }
    /// AXFLAG (FEAT_FlagM2): flags of FCMP to "external" form.
    pub fn axflag(&mut self) {
        self.word(0xd500_405f);
    }
    /// Full barrier, inner shareable domain.
    pub fn dmb_ish(&mut self) {
        dynasm!(self; .arch aarch64; dmb ish);
    }
    pub fn br(&mut self, n: R) {
        dynasm!(self; .arch aarch64; br X(n.0));
    }
    pub fn blr(&mut self, n: R) {
        dynasm!(self; .arch aarch64; blr X(n.0));
    }
    pub fn ret(&mut self, n: R) {
        dynasm!(self; .arch aarch64; ret X(n.0));
    }
    /// LDP of two X registers, [n, #off].
    pub fn ldp(&mut self, a: R, b: R, n: R, off: i32) {
        dynasm!(self; .arch aarch64; ldp X(a.0), X(b.0), [XSP(n.0), off]);
    }
    /// STP of two X registers, [n, #off].
    pub fn stp(&mut self, a: R, b: R, n: R, off: i32) {
        dynasm!(self; .arch aarch64; stp X(a.0), X(b.0), [XSP(n.0), off]);
    }
    /// LDR of an X register at an unsigned offset.
    pub fn ldr(&mut self, t: R, n: R, off: u32) {
        dynasm!(self; .arch aarch64; ldr X(t.0), [XSP(n.0), off]);
    }
    /// STR of an X register at an unsigned offset.
    pub fn str(&mut self, t: R, n: R, off: u32) {
        dynasm!(self; .arch aarch64; str X(t.0), [XSP(n.0), off]);
    }
    /// LDR of a W register at an unsigned offset.
    pub fn ldr_w(&mut self, t: R, n: R, off: u32) {
        dynasm!(self; .arch aarch64; ldr W(t.0), [XSP(n.0), off]);
    }
    /// STR of a W register at an unsigned offset.
    pub fn str_w(&mut self, t: R, n: R, off: u32) {
        dynasm!(self; .arch aarch64; str W(t.0), [XSP(n.0), off]);
    }

    /// Loads a constant in as few instructions as MOVZ/MOVN/MOVK and logical immediates allow.
    pub fn mov_imm(&mut self, w: Width, d: R, value: u64) {
        let (sf, mask) = if w == Width::X { (1 << 31, u64::MAX) } else { (0, 0xffff_ffff) };
        let value = value & mask;
        // Most take one MOVZ or MOVN.
        if value <= 0xffff {
            return self.word(0x5280_0000 | sf | (value as u32) << 5 | d.n());
        }
        if !value & mask < 0xffff {
            return self.word(0x1280_0000 | sf | (!value as u32 & 0xffff) << 5 | d.n());
        }
        let half = |i: u32| (value >> (16 * i)) as u32 & 0xffff;
        let Halves { count: halves, zeros, ones } = halves(w, value);
        let best = halves as usize - zeros.max(ones);
        if best > 1 && logical_imm_fields(w, value).is_some() {
            return self.orr_imm(w, d, R::ZR, value);
        }
        let inverted = ones > zeros;
        let filler = if inverted { 0xffff } else { 0 };
        let mut first = true;
        for i in 0..halves {
            let h = half(i);
            if h == filler && !(first && i == halves - 1) {
                continue;
            }
            let op = match (first, inverted) {
                (true, false) => 0x5280_0000 | h << 5,
                (true, true) => 0x1280_0000 | (!h & 0xffff) << 5,
                (false, _) => 0x7280_0000 | h << 5,
            };
            self.word(op | sf | i << 21 | d.n());
            first = false;
        }
    }

    /// Appends one instruction word.
    pub fn word(&mut self, w: u32) {
        self.code.push(w);
    }

    /// Appends several words.
    pub fn words(&mut self, words: &[u32]) {
        self.code.extend_from_slice(words);
    }

    /// The last instruction word, if no branch goes behind it: what is changed of it holds for all that comes here.
    pub fn last_word(&mut self) -> Option<&mut u32> {
        if self.bound_at == self.pos() { None } else { self.code.last_mut() }
    }

    /// Removes the last instruction, if it is this one and no branch goes behind it.
    pub fn take_back(&mut self, word: u32) -> bool {
        let last = self.last_word().is_some_and(|last| *last == word);
        if last {
            self.code.pop();
        }
        last
    }

    /// Replaces a word.
    pub fn set_word(&mut self, index: usize, word: u32) {
        self.code[index] = word;
    }

    /// Bytes emitted so far.
    pub fn pos(&self) -> u32 {
        4 * self.code.len() as u32
    }

    /// Makes a label that is bound later.
    pub fn label(&mut self) -> Label {
        self.labels.push(UNBOUND);
        Label(self.labels.len() as u32 - 1)
    }

    /// Binds a label to the current position.
    pub fn bind(&mut self, l: Label) {
        debug_assert_eq!(self.labels[l.0 as usize], UNBOUND, "a label is bound once");
        self.labels[l.0 as usize] = self.pos();
        self.bound_at = self.pos();
    }

    /// Makes a label here.
    pub fn here(&mut self) -> Label {
        let l = self.label();
        self.bind(l);
        l
    }

    /// Offset of a bound label.
    pub fn position_of(&self, l: Label) -> Option<u32> {
        Some(self.labels[l.0 as usize]).filter(|&p| p != UNBOUND)
    }

    fn refer(&mut self, label: Label, field: Field, word: u32) {
        if label != Label::LATER {
            self.fixups.push(Fixup { at: self.pos(), label, field });
        }
        self.word(word);
    }

    /// Makes a branch to [`Label::LATER`], at an offset, lead here. Returns the branch.
    #[inline(always)]
    pub fn lead(&mut self, branch: u32) -> u32 {
        let to = self.pos();
        self.bound_at = to;
        let word = &mut self.code[branch as usize / 4];
        *word = retarget(*word, i64::from(to) - i64::from(branch)).expect("a region is small");
        *word
    }

    pub fn b(&mut self, l: Label) {
        self.refer(l, Field::Imm26, 0x1400_0000);
    }
    pub fn bl(&mut self, l: Label) {
        self.refer(l, Field::Imm26, 0x9400_0000);
    }
    /// B (or with `link` BL) to a trampoline; where that is, the cache knows.
    pub fn b_trampoline(&mut self, t: Trampoline, link: bool) {
        self.relocations.push(Relocation::new(self.pos(), Reloc::Trampoline(t)));
        self.word(if link { 0x9400_0000 } else { 0x1400_0000 });
    }
    pub fn b_cond(&mut self, c: Cond, l: Label) {
        self.refer(l, Field::Imm19, 0x5400_0000 | c as u32);
    }
    pub fn cbz(&mut self, w: Width, t: R, l: Label) {
        let sf = if w == Width::X { 1 << 31 } else { 0 };
        self.refer(l, Field::Imm19, 0x3400_0000 | sf | t.n());
    }
    pub fn cbnz(&mut self, w: Width, t: R, l: Label) {
        let sf = if w == Width::X { 1 << 31 } else { 0 };
        self.refer(l, Field::Imm19, 0x3500_0000 | sf | t.n());
    }
    pub fn tbz(&mut self, t: R, bit: u32, l: Label) {
        self.refer(l, Field::Imm14, 0x3600_0000 | (bit >> 5) << 31 | (bit & 31) << 19 | t.n());
    }
    pub fn tbnz(&mut self, t: R, bit: u32, l: Label) {
        self.refer(l, Field::Imm14, 0x3700_0000 | (bit >> 5) << 31 | (bit & 31) << 19 | t.n());
    }
    pub fn adr(&mut self, d: R, l: Label) {
        self.refer(l, Field::Adr, 0x1000_0000 | d.n());
    }

    /// LDR d, =value through the region's literal pool.
    pub fn ldr_literal(&mut self, d: R, value: u64, reloc: Reloc) {
        let known = self.literals.iter().find(|l| l.value == value && l.reloc == reloc);
        let label = match known.map(|l| l.label) {
            Some(label) => label,
            None => {
                let label = self.label();
                self.literals.push(Literal { value, reloc, label });
                label
            }
        };
        self.refer(label, Field::Imm19, 0x5800_0000 | d.n());
    }

    /// LDR (vector, 128-bit) of a constant through the literal pool: two adjacent words.
    pub fn ldr_literal_q(&mut self, d: V, value: u128) {
        let label = self.label();
        self.literals.push(Literal { value: value as u64, reloc: Reloc::None, label });
        let second = self.label();
        self.literals.push(Literal {
            value: (value >> 64) as u64,
            reloc: Reloc::None,
            label: second,
        });
        self.refer(label, Field::Imm19, 0x9c00_0000 | d.n());
    }

    /// A 64-bit word in the code itself (for exit records).
    pub fn quad(&mut self, value: u64, reloc: Reloc) {
        if reloc != Reloc::None {
            self.relocations.push(Relocation::new(self.pos(), reloc));
        }
        self.code.extend([value as u32, (value >> 32) as u32]);
    }

    /// Emits the literal pool and resolves all references.
    pub fn finish(&mut self) {
        for i in 0..self.literals.len() {
            let l = self.literals[i];
            self.bind(l.label);
            self.quad(l.value, l.reloc);
        }
        for f in self.fixups.drain(..) {
            let target = self.labels[f.label.0 as usize];
            assert_ne!(target, UNBOUND, "a label is referred to but not bound");
            let word = &mut self.code[f.at as usize / 4];
            *word = encode_reference(*word, f.field, i64::from(target) - i64::from(f.at));
        }
    }

    /// The words emitted so far.
    pub fn code(&self) -> &[u32] {
        &self.code
    }

    /// Empties the buffer, keeping its memory.
    pub fn clear(&mut self) {
        self.code.clear();
        self.labels.clear();
        self.fixups.clear();
        self.literals.clear();
        self.relocations.clear();
        self.bound_at = 0;
    }
}

fn encode_reference(word: u32, field: Field, delta: i64) -> u32 {
    let imm = (delta >> 2) as u32;
    match field {
        Field::Imm26 => word | imm & 0x03ff_ffff,
        Field::Imm19 => word | (imm & 0x7_ffff) << 5,
        Field::Imm14 => word | (imm & 0x3fff) << 5,
        Field::Adr => word | (delta as u32 & 3) << 29 | (imm & 0x7_ffff) << 5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// DecodeBitMasks of the Arm ARM, the inverse of `logical_imm_fields`.
    fn decode(fields: u32) -> u64 {
        let (n, immr, imms) = (fields >> 12 & 1, fields >> 6 & 63, fields & 63);
        let len = 31 - (n << 6 | (!imms & 63)).leading_zeros();
        let size = 1u32 << len;
        let (s, r) = (imms & (size - 1), immr & (size - 1));
        let ones = u64::MAX >> (63 - s);
        let mask = if size == 64 { u64::MAX } else { (1u64 << size) - 1 };
        let element = if r == 0 { ones } else { (ones >> r | ones << (size - r)) & mask };
        (0..64 / size).fold(0, |v, i| v | element << (i * size))
    }

    #[test]
    fn logical_immediates_decode_to_themselves() {
        let mut count = 0;
        for size in [2u32, 4, 8, 16, 32, 64] {
            for ones in 1..size {
                for rotation in 0..size {
                    let run = (1u128 << ones) - 1;
                    let mask = (1u128 << size) - 1;
                    let element = ((run >> rotation | run << (size - rotation)) & mask) as u64;
                    let value = (0..64 / size).fold(0, |v, i| v | element << (i * size));
                    let fields = logical_imm_fields(Width::X, value);
                    assert_eq!(fields.map(decode), Some(value), "{value:#x}");
                    count += 1;
                }
            }
        }
        assert_eq!(count, 5334);
    }

    proptest! {
        #[test]
        fn a_logical_immediate_is_never_wrong(value: u64) {
            if let Some(f) = logical_imm_fields(Width::X, value) {
                prop_assert_eq!(decode(f), value);
            }
        }

        #[test]
        fn mov_imm_takes_at_most_four(value: u64) {
            let mut a = Asm::default();
            a.mov_imm(Width::X, R(0), value);
            prop_assert!(a.pos() >= 4 && a.pos() <= 16);
        }
    }
}
