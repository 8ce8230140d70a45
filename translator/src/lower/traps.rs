//! Unmasked exceptions of SSE (Intel SDM vol. 1, 11.5): #XM instead of a result.
//!
//! A host processor need not have traps, and few have. Once a thread of the guest has unmasked an
//! exception in MXCSR, all its code is translated anew, and every instruction that may raise one
//! stands between two helpers: the first notes what the instruction may change, the second looks at
//! the exception flags, and puts that back before the exception is raised.
//!
//! Two flags may differ from a processor's then: PE beside an unmasked overflow or underflow, which tells
//! whether the result would be inexact if exponents had no limit, and the masked ones of DPPS and DPPD, which
//! raise in two steps.

use super::table::LowerFn;
use super::{Lower, Lowered};
use crate::asm::{R, Width};
use crate::helpers::Helper;
use crate::mxcsr::Lanes;
use iced_x86::{Instruction, Mnemonic as M};

/// Vector of #XM.
const XM: u8 = 19;

/// Whether an instruction may set exception flags in MXCSR.
pub fn raises_float(ins: &Instruction) -> bool {
    use M::*;
    matches!(
        ins.mnemonic(),
        Addps
            | Addpd
            | Addss
            | Addsd
            | Subps
            | Subpd
            | Subss
            | Subsd
            | Mulps
            | Mulpd
            | Mulss
            | Mulsd
            | Divps
            | Divpd
            | Divss
            | Divsd
            | Minps
            | Minpd
            | Minss
            | Minsd
            | Maxps
            | Maxpd
            | Maxss
            | Maxsd
            | Sqrtps
            | Sqrtpd
            | Sqrtss
            | Sqrtsd
            | Cmpps
            | Cmppd
            | Cmpss
            | Roundps
            | Roundpd
            | Roundss
            | Roundsd
            | Haddps
            | Haddpd
            | Hsubps
            | Hsubpd
            | Addsubps
            | Addsubpd
            | Dpps
            | Dppd
            | Ucomiss
            | Ucomisd
            | Comiss
            | Comisd
            | Cvtsi2ss
            | Cvtsi2sd
            | Cvtss2si
            | Cvtsd2si
            | Cvttss2si
            | Cvttsd2si
            | Cvtss2sd
            | Cvtsd2ss
            | Cvtps2pd
            | Cvtpd2ps
            | Cvtdq2ps
            | Cvtps2dq
            | Cvttps2dq
            | Cvtpd2dq
            | Cvttpd2dq
            | Cvtps2pi
            | Cvttps2pi
            | Cvtpd2pi
            | Cvttpd2pi
            | Cvtpi2ps
    ) || ins.mnemonic() == Cmpsd && ins.op_register(0).is_vector_register()
}

/// The result's lanes in the destination, for results that may be too small for a normal number.
fn lanes(ins: &Instruction) -> Lanes {
    use M::*;
    match ins.mnemonic() {
        Addps | Subps | Mulps | Divps | Haddps | Hsubps | Addsubps => Lanes::Singles,
        Addpd | Subpd | Mulpd | Divpd | Haddpd | Hsubpd | Addsubpd => Lanes::Doubles,
        Addss | Subss | Mulss | Divss | Cvtsd2ss => Lanes::Single,
        Addsd | Subsd | Mulsd | Divsd => Lanes::Double,
        Cvtpd2ps => Lanes::TwoSingles,
        _ => Lanes::None,
    }
}

impl Lower<'_> {
    /// Lowers an instruction so that it raises #XM, if the guest wants that.
    pub fn trapping(&mut self, ins: &Instruction, lower: LowerFn) -> Lowered {
        if !self.trap_floats || !raises_float(ins) {
            return lower(self, ins);
        }
        self.call_helper(Helper::TrapBegin);
        self.free_temps();
        self.mark();
        lower(self, ins)?;
        self.a.mov_imm(Width::X, R(20), lanes(ins) as u64);
        let register = ins.op_register(0);
        let number = if register.is_vector_register() { register.number() } else { 0 };
        self.a.mov_imm(Width::X, R(21), number as u64);
        self.call_helper(Helper::TrapEnd);
        let raise = self.cold_raise(XM);
        self.a.cbnz(Width::W, R(20), raise);
        Ok(())
    }

    /// Leaves translated code behind the current instruction if it unmasked an exception, which
    /// `unmasked` tells.
    pub fn leave_if_unmasked(&mut self, unmasked: R) {
        if !self.trap_floats {
            let next = self.current().next_ip();
            let leave = self.edge_to(next, self.live_out);
            self.a.cbnz(Width::W, unmasked, leave);
        }
    }
}
