//! The double extended-precision format, its classes and its rounding.

/// Bits of the status word (Intel SDM vol. 1, 8.1.3). The low six are also the mask bits of the
/// control word.
#[allow(missing_docs)] // the names are the architecture's
pub mod status {
    pub const IE: u16 = 1 << 0;
    pub const DE: u16 = 1 << 1;
    pub const ZE: u16 = 1 << 2;
    pub const OE: u16 = 1 << 3;
    pub const UE: u16 = 1 << 4;
    pub const PE: u16 = 1 << 5;
    pub const SF: u16 = 1 << 6;
    pub const ES: u16 = 1 << 7;
    pub const C0: u16 = 1 << 8;
    pub const C1: u16 = 1 << 9;
    pub const C2: u16 = 1 << 10;
    pub const TOP: u16 = 7 << 11;
    pub const C3: u16 = 1 << 14;
    pub const B: u16 = 1 << 15;
    /// The six exceptions.
    pub const EXCEPTIONS: u16 = IE | DE | ZE | OE | UE | PE;
    /// The four condition codes.
    pub const CONDITION: u16 = C0 | C1 | C2 | C3;
}
use status::*;

/// Exponent bias of the format.
pub const BIAS: i32 = 16383;
/// The exponent field of infinities and NaNs.
pub const MAX_EXP: u16 = 0x7fff;
/// The explicit integer bit of the significand.
pub const INTEGER_BIT: u64 = 1 << 63;
/// The bit that makes a NaN quiet.
pub const QUIET_BIT: u64 = 1 << 62;
/// What an unmasked overflow or underflow takes from or adds to the exponent (SDM vol. 1, 8.5.4).
const EXPONENT_WRAP: i32 = 24576;

/// A value in the double extended-precision format, in any of its encodings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct F80 {
    /// Sign in bit 15, biased exponent below it.
    pub sign_exp: u16,
    /// Significand with its explicit integer bit.
    pub significand: u64,
}

/// What an encoding stands for (SDM vol. 1, table 8-3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Positive or negative zero.
    Zero,
    /// A denormal or pseudo-denormal.
    Denormal,
    /// A normal finite number.
    Normal,
    /// An infinity.
    Infinity,
    /// A quiet NaN.
    Quiet,
    /// A signalling NaN.
    Signalling,
    /// An encoding the processor does not support: unnormal, pseudo-infinity, pseudo-NaN.
    Unsupported,
}

/// A finite number other than zero: `(-1)^negative * significand * 2^(exp - 63)`, with the top
/// bit of the significand set.
#[derive(Clone, Copy, Debug)]
pub struct Number {
    pub negative: bool,
    /// Unbiased exponent.
    pub exp: i32,
    pub significand: u64,
}

impl F80 {
    /// Positive zero.
    pub const ZERO: Self = Self::new(false, 0, 0);
    /// One.
    pub const ONE: Self = Self::new(false, BIAS as u16, INTEGER_BIT);
    /// The default NaN, "real indefinite".
    pub const INDEFINITE: Self = Self::new(true, MAX_EXP, INTEGER_BIT | QUIET_BIT);

    /// Puts a value together from its fields.
    pub const fn new(negative: bool, exp: u16, significand: u64) -> Self {
        Self { sign_exp: (negative as u16) << 15 | exp, significand }
    }

    /// Zero of either sign.
    pub const fn zero(negative: bool) -> Self {
        Self::new(negative, 0, 0)
    }

    /// Infinity of either sign.
    pub const fn infinity(negative: bool) -> Self {
        Self::new(negative, MAX_EXP, INTEGER_BIT)
    }

    /// The value in the low ten bytes of a register image.
    pub const fn from_bits(bits: u128) -> Self {
        Self { sign_exp: (bits >> 64) as u16, significand: bits as u64 }
    }

    /// The ten bytes of the value.
    pub const fn to_bits(self) -> u128 {
        (self.sign_exp as u128) << 64 | self.significand as u128
    }

    /// The biased exponent.
    pub const fn exp(self) -> u16 {
        self.sign_exp & MAX_EXP
    }

    /// The sign.
    pub const fn negative(self) -> bool {
        self.sign_exp >> 15 != 0
    }

    /// The value with its sign changed, whatever it is.
    pub const fn negate(self) -> Self {
        Self { sign_exp: self.sign_exp ^ 0x8000, ..self }
    }

    /// The value with a positive sign, whatever it is.
    pub const fn abs(self) -> Self {
        Self { sign_exp: self.sign_exp & MAX_EXP, ..self }
    }

    /// What the encoding stands for.
    pub const fn class(self) -> Class {
        let integer = self.significand & INTEGER_BIT != 0;
        match (self.exp(), integer) {
            (0, _) if self.significand == 0 => Class::Zero,
            (0, _) => Class::Denormal,
            (_, false) => Class::Unsupported,
            (MAX_EXP, true) if self.significand == INTEGER_BIT => Class::Infinity,
            (MAX_EXP, true) if self.significand & QUIET_BIT != 0 => Class::Quiet,
            (MAX_EXP, true) => Class::Signalling,
            (_, true) => Class::Normal,
        }
    }

    /// Whether this is a NaN, quiet or signalling.
    pub const fn is_nan(self) -> bool {
        matches!(self.class(), Class::Quiet | Class::Signalling)
    }

    /// Whether this is an infinity.
    pub const fn is_infinity(self) -> bool {
        matches!(self.class(), Class::Infinity)
    }

    /// Whether this is a zero.
    pub const fn is_zero(self) -> bool {
        matches!(self.class(), Class::Zero)
    }

    /// A NaN made quiet.
    pub const fn quieted(self) -> Self {
        Self { significand: self.significand | QUIET_BIT, ..self }
    }

    /// Sign, exponent and normalised significand; `None` for zero.
    /// Meaningful for finite numbers only.
    pub fn number(self) -> Option<Number> {
        if self.significand == 0 {
            return None;
        }
        let shift = self.significand.leading_zeros();
        Some(Number {
            negative: self.negative(),
            exp: i32::from(self.exp().max(1)) - BIAS - shift as i32,
            significand: self.significand << shift,
        })
    }
}

/// Rounding control (SDM vol. 1, 8.1.5.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    Nearest,
    Down,
    Up,
    Zero,
}

/// An exception that is not masked keeps the instruction from delivering its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unmasked;

/// The outcome of an operation: `Err` when its destination must stay as it is.
pub type Outcome<T> = Result<T, Unmasked>;

/// The format a result is rounded to.
#[derive(Clone, Copy)]
pub struct Format {
    /// Bits of the significand, the integer bit included.
    precision: u32,
    bias: i32,
    /// Exponent field of infinities.
    max_exp: i32,
    /// Whether the result goes to a register, where an unmasked overflow or underflow delivers a
    /// result with a wrapped exponent; to memory it delivers nothing.
    register: bool,
}

impl Format {
    pub const SINGLE: Self = Self { precision: 24, bias: 127, max_exp: 0xff, register: false };
    pub const DOUBLE: Self = Self { precision: 53, bias: 1023, max_exp: 0x7ff, register: false };
    pub const EXTENDED: Self = Self::extended(64);

    /// The register format with fewer significant bits.
    const fn extended(precision: u32) -> Self {
        Self { precision, bias: BIAS, max_exp: MAX_EXP as i32, register: true }
    }
}

/// A rounded result: biased exponent, and the significand left-justified in 64 bits.
/// An infinity has the format's `max_exp` and the significand `1 << 63`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rounded {
    pub exp: u16,
    pub significand: u64,
}

/// The control word an instruction runs under, and what it has raised so far.
#[derive(Clone, Copy, Debug)]
pub struct Env {
    control: u16,
    /// Bits of the status word: exceptions, SF, and C1 if the result was rounded up.
    pub raised: u16,
    /// The memory operand is a denormal of its own format, though it is none in the register
    /// format.
    pub memory_denormal: bool,
}

impl Env {
    /// Nothing raised yet.
    pub fn new(control: u16) -> Self {
        Self { control, raised: 0, memory_denormal: false }
    }

    /// The rounding mode in force.
    pub fn rounding(&self) -> Rounding {
        match self.control >> 10 & 3 {
            0 => Rounding::Nearest,
            1 => Rounding::Down,
            2 => Rounding::Up,
            _ => Rounding::Zero,
        }
    }

    /// The format that precision control selects for the basic arithmetic instructions.
    pub fn precision(&self) -> Format {
        Format::extended(match self.control >> 8 & 3 {
            0 => 24,
            2 => 53,
            _ => 64,
        })
    }

    /// Whether all of `exceptions` are masked.
    pub fn masked(&self, exceptions: u16) -> bool {
        exceptions & EXCEPTIONS & !self.control == 0
    }

    /// Raises an exception that is found before the result is computed: unmasked, it ends the
    /// instruction (SDM vol. 1, 8.7).
    pub fn raise(&mut self, exceptions: u16) -> Outcome<()> {
        self.raised |= exceptions;
        if self.masked(exceptions) { Ok(()) } else { Err(Unmasked) }
    }

    /// An invalid operation; the masked response is the real indefinite.
    pub fn invalid(&mut self) -> Outcome<F80> {
        self.raise(IE)?;
        Ok(F80::INDEFINITE)
    }

    /// An operand register is empty; the masked response is the real indefinite.
    pub fn stack_underflow(&mut self) -> Outcome<F80> {
        self.raise(IE | SF)?;
        Ok(F80::INDEFINITE)
    }

    /// A push onto a register that is not empty; the masked response is the real indefinite.
    pub fn stack_overflow(&mut self) -> Outcome<F80> {
        self.raise(IE | SF | C1)?;
        Ok(F80::INDEFINITE)
    }

    /// The result when an operand is unsupported or a NaN, with the exceptions that belong to it
    /// (SDM vol. 1, table 4-7); `None` when all operands are numbers.
    pub fn nan_result(&mut self, operands: &[F80]) -> Outcome<Option<F80>> {
        if operands.iter().any(|x| x.class() == Class::Unsupported) {
            return self.invalid().map(Some);
        }
        let Some(nan) = operands.iter().copied().filter(|x| x.is_nan()).reduce(prevailing_nan)
        else {
            return Ok(None);
        };
        if operands.iter().any(|x| x.class() == Class::Signalling) {
            self.raise(IE)?;
        }
        Ok(Some(nan.quieted()))
    }

    /// Raises DE if an operand is denormal.
    pub fn check_denormal(&mut self, operands: &[F80]) -> Outcome<()> {
        let denormal = |x: &F80| x.class() == Class::Denormal;
        if self.memory_denormal || operands.iter().any(denormal) { self.raise(DE) } else { Ok(()) }
    }

    /// Rounds `(-1)^negative * sig * 2^(exp - 127)`, `sig` having its top bit set and in its
    /// lowest bit whether anything was lost below it, and raises what that raises.
    pub fn round(
        &mut self,
        negative: bool,
        exp: i32,
        sig: u128,
        format: Format,
    ) -> Outcome<Rounded> {
        let drop = 128 - format.precision;
        let plain = self.round_significand(negative, sig, drop);
        let biased = exp + format.bias + i32::from(plain.carry);
        if biased >= format.max_exp {
            return self.overflow(negative, biased, plain, format);
        }
        if biased >= 1 {
            self.note(plain);
            return Ok(Rounded { exp: biased as u16, significand: plain.significand });
        }
        if !self.masked(UE) {
            self.raised |= UE;
            return self.wrapped(biased + EXPONENT_WRAP, plain, format);
        }
        let shift = (1 - (exp + format.bias)) as u32;
        let rounded = self.round_significand(negative, shift_right_sticky(sig, shift), drop);
        if rounded.inexact {
            self.raised |= UE;
        }
        self.note(rounded);
        // Rounding up may have made the smallest normal number of it.
        let exp = (rounded.significand >> 63) as u16;
        Ok(Rounded { exp, significand: rounded.significand })
    }

    /// [`round`](Self::round) to a register format.
    pub fn round_f80(
        &mut self,
        negative: bool,
        exp: i32,
        sig: u128,
        format: Format,
    ) -> Outcome<F80> {
        let r = self.round(negative, exp, sig, format)?;
        Ok(F80::new(negative, r.exp, r.significand))
    }

    /// The response to an overflow (SDM vol. 1, table 4-10).
    fn overflow(
        &mut self,
        negative: bool,
        biased: i32,
        plain: RoundedSignificand,
        format: Format,
    ) -> Outcome<Rounded> {
        self.raised |= OE;
        if !self.masked(OE) {
            return self.wrapped(biased - EXPONENT_WRAP, plain, format);
        }
        let to_infinity = self.away_from_zero(negative);
        self.note(RoundedSignificand { inexact: true, up: to_infinity, ..plain });
        Ok(if to_infinity {
            Rounded { exp: format.max_exp as u16, significand: INTEGER_BIT }
        } else {
            let significand = !0 << (64 - format.precision);
            Rounded { exp: format.max_exp as u16 - 1, significand }
        })
    }

    /// Whether what is too large becomes an infinity, and not the largest number.
    fn away_from_zero(&self, negative: bool) -> bool {
        match self.rounding() {
            Rounding::Nearest => true,
            Rounding::Up => !negative,
            Rounding::Down => negative,
            Rounding::Zero => false,
        }
    }

    /// The response to an unmasked overflow or underflow (SDM vol. 1, 8.5.4 and 8.5.5).
    fn wrapped(
        &mut self,
        biased: i32,
        plain: RoundedSignificand,
        format: Format,
    ) -> Outcome<Rounded> {
        if !format.register {
            return Err(Unmasked);
        }
        if biased >= format.max_exp || biased < 1 {
            return Ok(self.massive(biased, format));
        }
        self.note(plain);
        Ok(Rounded { exp: biased as u16, significand: plain.significand })
    }

    /// Even the wrapped exponent is out of range, as only FSCALE brings about.
    fn massive(&mut self, biased: i32, format: Format) -> Rounded {
        self.note(RoundedSignificand {
            significand: 0,
            carry: false,
            inexact: true,
            up: biased > 0,
        });
        if biased > 0 {
            Rounded { exp: format.max_exp as u16, significand: INTEGER_BIT }
        } else {
            Rounded { exp: 0, significand: 0 }
        }
    }

    /// Raises PE and sets C1 as the rounding asks.
    fn note(&mut self, r: RoundedSignificand) {
        if r.inexact {
            self.raised |= PE;
        }
        if r.up {
            self.raised |= C1;
        }
    }

    /// Rounds away the lowest `drop` bits of `sig`.
    fn round_significand(&self, negative: bool, sig: u128, drop: u32) -> RoundedSignificand {
        let rest = sig & ((1 << drop) - 1);
        let kept = sig >> drop;
        let up = self.rounds_up(negative, kept as u64 & 1 != 0, rest << (128 - drop));
        let sum = (kept as u64 as u128 + u128::from(up)) << (drop - 64);
        let carry = sum >> 64 != 0;
        RoundedSignificand {
            significand: if carry { INTEGER_BIT } else { sum as u64 },
            carry,
            inexact: rest != 0,
            up,
        }
    }

    /// Whether a magnitude rounds up, given its lowest bit and the fraction behind it.
    pub fn rounds_up(&self, negative: bool, odd: bool, fraction: u128) -> bool {
        const HALF: u128 = 1 << 127;
        match self.rounding() {
            Rounding::Nearest => fraction > HALF || fraction == HALF && odd,
            Rounding::Down => negative && fraction != 0,
            Rounding::Up => !negative && fraction != 0,
            Rounding::Zero => false,
        }
    }
}

/// A significand rounded to fewer bits.
#[derive(Clone, Copy)]
struct RoundedSignificand {
    /// Left-justified.
    significand: u64,
    /// Rounding made it overflow: the exponent is one higher.
    carry: bool,
    inexact: bool,
    /// The magnitude was increased.
    up: bool,
}

/// `x >> shift` with the lowest bit set if any bit was lost.
pub fn shift_right_sticky(x: u128, shift: u32) -> u128 {
    match shift {
        0 => x,
        1..=127 => x >> shift | u128::from(x << (128 - shift) != 0),
        _ => u128::from(x != 0),
    }
}

/// Which of two NaNs is the result: the one with the larger significand, and of equal ones the
/// positive one; but a quiet one before a signalling one.
fn prevailing_nan(a: F80, b: F80) -> F80 {
    let signalling = |x: F80| x.class() == Class::Signalling;
    match (signalling(a), signalling(b)) {
        (true, false) => b,
        (false, true) => a,
        _ if a.significand != b.significand => {
            if a.significand > b.significand {
                a
            } else {
                b
            }
        }
        _ => {
            if b.negative() {
                a
            } else {
                b
            }
        }
    }
}
