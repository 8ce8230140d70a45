//! What the host's NZCV means at a point of translated code, and conditions on it.

use super::{AF, Lower, PF};
use crate::asm::{Cond, R, Width};
use crate::flags::Flags;
use iced_x86::ConditionCode;

/// How CF lives in PSTATE.C.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carry {
    /// C is CF (after additions).
    Direct,
    /// C is the opposite of CF (after subtractions: Arm's carry is "no borrow").
    Inverted,
    /// C is CF, and known to be 0 (after logical operations).
    Zero,
}

/// What the host's flags mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlagState {
    /// Polarity of the carry. Meaningless if `float`.
    pub carry: Carry,
    /// NZCV is as FCMP left it and stands for what (U)COMIS sets: ZF PF CF by the comparison, the others 0.
    pub float: bool,
}

impl FlagState {
    /// The form at joins and at the borders of a region: C is CF.
    pub const CANONICAL: FlagState = FlagState { carry: Carry::Direct, float: false };

    /// The guest's flags in canonical NZCV from PSTATE's. (PF and AF of `float` see [`Self::float_pf`].)
    pub fn canonical_nzcv(self, nzcv: u64) -> u64 {
        let bit = |n: u32| nzcv >> n & 1;
        if self.float {
            let (n, z, v) = (bit(31), bit(30), bit(28));
            return (z | v) << 30 | u64::from(n != v) << 29;
        }
        match self.carry {
            Carry::Inverted => nzcv ^ 1 << 29,
            Carry::Direct | Carry::Zero => nzcv,
        }
    }

    /// PF after a comparison of floats: unordered.
    pub fn float_pf(nzcv: u64) -> bool {
        nzcv >> 28 & 1 != 0
    }
}

/// A guest condition on the host flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Test {
    /// True if the host condition holds.
    One(Cond),
    /// True if either holds.
    Or(Cond, Cond),
    /// True if both hold.
    And(Cond, Cond),
    /// Always true, or never.
    Known(bool),
    /// True if PF (kept in its operand register) has this value.
    Parity(bool),
}

impl Test {
    /// The opposite test.
    pub fn invert(self) -> Test {
        match self {
            Test::One(c) => Test::One(c.invert()),
            Test::Or(a, b) => Test::And(a.invert(), b.invert()),
            Test::And(a, b) => Test::Or(a.invert(), b.invert()),
            Test::Known(k) => Test::Known(!k),
            Test::Parity(p) => Test::Parity(!p),
        }
    }
}

impl Lower<'_> {
    /// The test for a guest condition under the present flag state.
    pub fn test(&self, cc: ConditionCode) -> Test {
        use ConditionCode as CC;
        // Odd codes are the opposites of the even ones in x86's encoding.
        let (positive, negate) = match cc {
            CC::o => (CC::o, false),
            CC::no => (CC::o, true),
            CC::b => (CC::b, false),
            CC::ae => (CC::b, true),
            CC::e => (CC::e, false),
            CC::ne => (CC::e, true),
            CC::be => (CC::be, false),
            CC::a => (CC::be, true),
            CC::s => (CC::s, false),
            CC::ns => (CC::s, true),
            CC::p => (CC::p, false),
            CC::np => (CC::p, true),
            CC::l => (CC::l, false),
            CC::ge => (CC::l, true),
            CC::le => (CC::le, false),
            CC::g => (CC::le, true),
            CC::None => return Test::Known(true),
        };
        let t = if self.flags.float { float_test(positive) } else { self.integer_test(positive) };
        if negate { t.invert() } else { t }
    }

    fn integer_test(&self, cc: ConditionCode) -> Test {
        use ConditionCode as CC;
        match (cc, self.flags.carry) {
            (CC::o, _) => Test::One(Cond::Vs),
            (CC::e, _) => Test::One(Cond::Eq),
            (CC::s, _) => Test::One(Cond::Mi),
            (CC::l, _) => Test::One(Cond::Lt),
            (CC::le, _) => Test::One(Cond::Le),
            (CC::b, Carry::Direct) => Test::One(Cond::Cs),
            (CC::b, Carry::Inverted) => Test::One(Cond::Cc),
            (CC::b, Carry::Zero) => Test::Known(false),
            (CC::be, Carry::Direct) => Test::Or(Cond::Cs, Cond::Eq),
            (CC::be, Carry::Inverted) => Test::One(Cond::Ls),
            (CC::be, Carry::Zero) => Test::One(Cond::Eq),
            _ => Test::Parity(true),
        }
    }

    /// A temporary whose bit 0 is the complement of PF. Does not touch NZCV.
    pub fn odd_parity(&mut self) -> R {
        let t = self.tmp();
        self.a.word(0x4a40_0000 | PF.n() << 16 | 4 << 10 | PF.n() << 5 | t.n()); // EOR t, pf, pf, LSR #4
        self.a.word(0x4a40_0000 | t.n() << 16 | 2 << 10 | t.n() << 5 | t.n());
        self.a.word(0x4a40_0000 | t.n() << 16 | 1 << 10 | t.n() << 5 | t.n());
        t
    }

    /// Sets a register to 1 if the test holds, else to 0.
    pub fn set_if(&mut self, d: R, t: Test) {
        match t {
            Test::One(c) => self.a.cset(d, c),
            Test::Or(a, b) => {
                self.a.cset(d, a);
                self.a.csinc(Width::W, d, d, R::ZR, b.invert());
            }
            Test::And(a, b) => {
                self.a.cset(d, a);
                self.a.csel(Width::W, d, d, R::ZR, b);
            }
            Test::Known(k) => self.a.mov_imm(Width::W, d, u64::from(k)),
            Test::Parity(p) => {
                let odd = self.odd_parity();
                self.a.ubfx(Width::W, d, odd, 0, 1);
                if p {
                    self.a.eor_imm(Width::W, d, d, 1);
                }
            }
        }
    }

    /// d = test ? n : d. In 32-bit width the result is zero-extended either way.
    pub fn move_if(&mut self, w: Width, d: R, n: R, t: Test) {
        match t {
            Test::One(c) => self.a.csel(w, d, n, d, c),
            Test::Or(a, b) => {
                self.a.csel(w, d, n, d, a);
                self.a.csel(w, d, n, d, b);
            }
            Test::And(a, b) => {
                let t = self.tmp();
                self.a.csel(w, t, n, d, a);
                self.a.csel(w, d, t, d, b);
            }
            Test::Known(true) => self.a.mov(w, d, n),
            Test::Known(false) => {
                if w == Width::W {
                    self.a.mov(w, d, d);
                }
            }
            Test::Parity(p) => {
                if w == Width::W {
                    self.a.mov(w, d, d);
                }
                let odd = self.odd_parity();
                let no = self.a.label();
                if p {
                    self.a.tbnz(odd, 0, no)
                } else {
                    self.a.tbz(odd, 0, no)
                }
                self.a.mov(w, d, n);
                self.a.bind(no);
            }
        }
    }

    /// Brings the flags among `live` to canonical form.
    #[inline(always)]
    pub fn canonical(&mut self, live: Flags) {
        if !live.is_empty() && self.flags != FlagState::CANONICAL {
            self.make_canonical(live);
        }
        self.flags = FlagState::CANONICAL;
    }

    #[inline(never)]
    fn make_canonical(&mut self, live: Flags) {
        if self.flags.float {
            self.canonical_from_float(live);
        } else if self.flags.carry == Carry::Inverted && live.any(Flags::C) {
            self.invert_carry();
        }
    }

    fn canonical_from_float(&mut self, live: Flags) {
        if live.any(Flags::P.or(Flags::A)) {
            self.a.cset(PF, Cond::Vc); // parity of 0 is even: PF = V
            self.a.mov(Width::W, AF, PF);
        }
        if !live.any(Flags::NZCV) {
            return;
        }
        if self.config.host.flagm2 && self.config.host.flagm {
            self.a.axflag();
            self.a.cfinv();
            return;
        }
        let (zero, carry) = (self.scratch(), R(30));
        self.a.cset(zero, Cond::Eq);
        self.a.csinc(Width::W, zero, zero, R::ZR, Cond::Vc);
        self.a.cset(carry, Cond::Lt);
        self.a.lsl(Width::X, zero, zero, 30);
        self.a.orr_lsl(Width::X, zero, zero, carry, 29);
        self.a.msr_nzcv(zero);
    }

    /// Inverts PSTATE.C.
    pub fn invert_carry(&mut self) {
        if self.config.host.flagm {
            self.a.cfinv();
        } else {
            let t = R(30);
            self.a.mrs_nzcv(t);
            self.a.eor_imm(Width::X, t, t, 1 << 29);
            self.a.msr_nzcv(t);
        }
    }

    /// Makes PSTATE.C equal to CF.
    pub fn carry_direct(&mut self) {
        self.canonical(Flags::ALL);
    }

    /// Makes PSTATE.C the opposite of CF, as SBC wants it.
    pub fn carry_inverted(&mut self) {
        if self.flags.float || self.flags.carry != Carry::Inverted {
            self.canonical(Flags::ALL);
            self.invert_carry();
            self.flags.carry = Carry::Inverted;
        }
    }

    /// Sets PSTATE.C from a bit of a register, leaving N, Z and V.
    pub fn set_carry_from_bit(&mut self, r: R, bit: u32) {
        self.set_nzcv_from_bit(1, r, bit);
        self.flags = FlagState::CANONICAL;
    }

    /// Sets PSTATE.V from a bit of a register, leaving N, Z and C.
    pub fn set_overflow_from_bit(&mut self, r: R, bit: u32) {
        self.set_nzcv_from_bit(0, r, bit);
    }

    /// Sets PSTATE.Z from a bit of a register, leaving N, C and V.
    pub fn set_zero_from_bit(&mut self, r: R, bit: u32) {
        self.set_nzcv_from_bit(2, r, bit);
    }

    /// Sets PSTATE.N from a bit of a register, leaving Z, C and V.
    pub fn set_sign_from_bit(&mut self, r: R, bit: u32) {
        self.set_nzcv_from_bit(3, r, bit);
    }

    /// Sets one of V, C, Z, N (0 to 3, as they lie in PSTATE) from a bit of a register.
    fn set_nzcv_from_bit(&mut self, which: u32, r: R, bit: u32) {
        if self.config.host.flagm {
            self.a.rmif(r, bit.wrapping_sub(which) & 63, 1 << which);
        } else {
            let (t, b) = (R(30), self.scratch());
            self.a.ubfx(Width::X, b, r, bit, 1);
            self.a.mrs_nzcv(t);
            self.a.bfi(Width::X, t, b, 28 + which, 1);
            self.a.msr_nzcv(t);
        }
    }

    /// Declares that NZCV now holds flags just computed.
    pub fn flags_are(&mut self, carry: Carry) {
        self.flags = FlagState { carry, float: false };
    }

    /// Declares that NZCV now holds the result of FCMP for (U)COMIS.
    pub fn flags_are_float(&mut self) {
        self.flags = FlagState { carry: Carry::Direct, float: true };
    }
}

/// Conditions after (U)COMIS by the flags of FCMP: unordered is V, less is N (or V), equal Z.
fn float_test(cc: ConditionCode) -> Test {
    use ConditionCode as CC;
    match cc {
        CC::b => Test::One(Cond::Lt),
        CC::be => Test::One(Cond::Le),
        CC::e | CC::le => Test::Or(Cond::Eq, Cond::Vs),
        CC::p => Test::One(Cond::Vs),
        _ => Test::Known(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn float_flags_become_those_of_comis() {
        let float = FlagState { carry: Carry::Direct, float: true };
        // NZCV of FCMP (Arm ARM, FPCompare) and the ZF, CF of COMISD (Intel SDM).
        for (nzcv, zf, cf) in [(0b0011, 1, 1), (0b0010, 0, 0), (0b1000, 0, 1), (0b0110, 1, 0)] {
            assert_eq!(float.canonical_nzcv(nzcv << 28), zf << 30 | cf << 29, "{nzcv:04b}");
        }
    }
}
