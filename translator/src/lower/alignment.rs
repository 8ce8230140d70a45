//! Alignment that an instruction demands: a legacy SSE instruction raises #GP if its 16 bytes in memory
//! are not aligned (Intel SDM vol. 1, 4.1.1), but for the moves that exist for unaligned data.
//!
//! arm64 does not check that, so a test of the address's low bits stands before the access, unless
//! the instructions before show that they are zero: an access through the same register that was
//! tested, with nothing but constants added since.

use super::operands::host_of;
use super::{Lower, STATE};
use crate::asm::{R, Width};
use crate::fault_flags::{changes, goes_straight_on, stack_change};
use crate::state::offset;
use iced_x86::{EncodingKind, Instruction, Mnemonic as M, OpKind, Register};

/// Holds the address's low bits.
const SCRATCH: R = R(30);
/// General protection.
const GP: u8 = 13;

/// The alignment that the memory operand must have; 1 if any will do.
pub fn demanded(ins: &Instruction) -> u64 {
    let vector = |i| {
        let register = ins.op_register(i);
        register.is_vector_register() || register.is_mm()
    };
    if ins.op_count() < 2
        || !(vector(0) || vector(1))
        || !ins.op_kinds().any(|kind| kind == OpKind::Memory)
    {
        return 1;
    }
    let size = ins.memory_size().size() as u64;
    match ins.mnemonic() {
        _ if size < 16 => 1,
        M::Movups | M::Movupd | M::Movdqu | M::Lddqu => 1,
        M::Pcmpestri
        | M::Pcmpestri64
        | M::Pcmpestrm
        | M::Pcmpestrm64
        | M::Pcmpistri
        | M::Pcmpistrm => 1,
        M::Vmovaps
        | M::Vmovapd
        | M::Vmovdqa
        | M::Vmovntps
        | M::Vmovntpd
        | M::Vmovntdq
        | M::Vmovntdqa => size,
        _ if ins.code().encoding() == EncodingKind::Legacy => 16,
        _ => 1,
    }
}

/// The base register of an operand whose address is that register and a constant.
fn only_base(ins: &Instruction) -> Option<Register> {
    let plain = !matches!(ins.memory_segment(), Register::FS | Register::GS);
    let base = ins.memory_base();
    (plain && base.is_gpr64() && ins.memory_index() == Register::None).then_some(base)
}

impl Lower<'_> {
    /// Raises #GP if the memory operand lacks the alignment the instruction demands.
    pub fn check_alignment(&mut self, ins: &Instruction) {
        let alignment = demanded(ins);
        if alignment == 1 {
            return;
        }
        let mask = alignment - 1;
        let displacement = ins.memory_displacement64();
        if let Some(base) = only_base(ins) {
            if let Some((known, since)) = self.known_low_bits(base, alignment) {
                self.needs_what_ran_before(since);
                if known.wrapping_add(displacement) & mask != 0 {
                    self.put_late(self.late);
                    self.raise(GP, ins.ip());
                }
                return;
            }
            let misaligned = self.cold_raise(GP);
            let mut low = host_of(base);
            if displacement & mask != 0 {
                self.a.add_imm(Width::X, SCRATCH, low, displacement & mask);
                low = SCRATCH;
            }
            self.a.and_imm(Width::X, SCRATCH, low, mask);
            return self.a.cbnz(Width::X, SCRATCH, misaligned);
        }
        let misaligned = self.cold_raise(GP);
        let address = self.effective_address(ins);
        let base = match ins.memory_segment() {
            Register::FS => Some(super::FS),
            Register::GS => {
                self.a.ldr(SCRATCH, STATE, offset::GS_BASE);
                Some(SCRATCH)
            }
            _ => None,
        };
        match base {
            Some(base) => {
                self.a.add(Width::X, SCRATCH, base, address);
                self.a.and_imm(Width::X, SCRATCH, SCRATCH, mask);
            }
            None => self.a.and_imm(Width::X, SCRATCH, address, mask),
        }
        self.a.cbnz(Width::X, SCRATCH, misaligned);
        self.free_temps();
    }

    /// Control must not come in between an instruction, by its index, and the current one: they rely
    /// on it.
    pub fn needs_what_ran_before(&mut self, since: usize) {
        let start = (self.region.insns[since].ins.ip() - self.region.entry) as u32;
        for entry in self.out.map.iter_mut().rev().take_while(|entry| entry.guest > start) {
            entry.enterable = false;
        }
    }

    /// The low bits of a register before the current instruction, as far as the straight-line code
    /// before it shows them, and the index of the instruction that does.
    fn known_low_bits(&self, register: Register, alignment: u64) -> Option<(u64, usize)> {
        let mask = alignment - 1;
        let (mut register, mut added) = (register, 0u64);
        for i in (0..self.index).rev() {
            if self.region.insns[i + 1].join || !goes_straight_on(self.region, i) {
                return None;
            }
            let ins = &self.region.insns[i].ins;
            if register == Register::RSP && stack_change(ins) != 0 && !changes(ins, register) {
                added = added.wrapping_add(stack_change(ins) as u64);
                continue;
            }
            if changes(ins, register) {
                let constant =
                    |op| ins.op_kind(op) != OpKind::Register && ins.op_kind(op) != OpKind::Memory;
                let whole = ins.op0_kind() == OpKind::Register && ins.op0_register() == register;
                match ins.mnemonic() {
                    M::Add if whole && constant(1) => added = added.wrapping_add(ins.immediate(1)),
                    M::Sub if whole && constant(1) => added = added.wrapping_sub(ins.immediate(1)),
                    M::And if whole && constant(1) && ins.immediate(1) & mask == 0 => {
                        return Some((added & mask, i));
                    }
                    M::Mov if whole && ins.op1_kind() == OpKind::Register => {
                        register = ins.op1_register();
                    }
                    M::Lea if whole && only_base(ins).is_some() => {
                        added = added.wrapping_add(ins.memory_displacement64());
                        register = ins.memory_base();
                    }
                    _ => return None,
                }
            } else if demanded(ins) >= alignment && only_base(ins) == Some(register) {
                return Some((added.wrapping_sub(ins.memory_displacement64()) & mask, i));
            }
        }
        None
    }
}
