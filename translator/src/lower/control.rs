//! Control flow: JMP, Jcc, JRCXZ, LOOP, CALL, RET, SYSCALL, and the instructions that trap.

use super::compare::or_equal;
use super::exits::BACK;
use super::operands::{Addr, host_of};
use super::segments;
use super::table::{Rows, plain, row};
use super::{BitTest, Lower, Lowered, Test, Unimplemented};
use crate::asm::{R, Width};
use crate::flags::Flags;
use iced_x86::{Code, Instruction, Mnemonic as M, OpKind};

const RCX: R = R(1);
const RSP: R = R(4);
/// Where indirect branches and returns keep their target.
pub(super) const TARGET: R = R(16);

const CZ: Flags = Flags::C.or(Flags::Z);
const SO: Flags = Flags::S.or(Flags::O);
const ZSO: Flags = Flags::Z.or(SO);

pub(super) const ROWS: Rows = &[
    row(M::Jo, jcc, Flags::O, Flags::NONE),
    row(M::Jno, jcc, Flags::O, Flags::NONE),
    row(M::Jb, jcc, Flags::C, Flags::NONE),
    row(M::Jae, jcc, Flags::C, Flags::NONE),
    row(M::Je, jcc, Flags::Z, Flags::NONE),
    row(M::Jne, jcc, Flags::Z, Flags::NONE),
    row(M::Jbe, jcc, CZ, Flags::NONE),
    row(M::Ja, jcc, CZ, Flags::NONE),
    row(M::Js, jcc, Flags::S, Flags::NONE),
    row(M::Jns, jcc, Flags::S, Flags::NONE),
    row(M::Jp, jcc, Flags::P, Flags::NONE),
    row(M::Jnp, jcc, Flags::P, Flags::NONE),
    row(M::Jl, jcc, SO, Flags::NONE),
    row(M::Jge, jcc, SO, Flags::NONE),
    row(M::Jle, jcc, ZSO, Flags::NONE),
    row(M::Jg, jcc, ZSO, Flags::NONE),
    plain(M::Jrcxz, jrcxz),
    plain(M::Jecxz, jrcxz),
    plain(M::Loop, loop_),
    row(M::Loope, loop_, Flags::Z, Flags::NONE),
    row(M::Loopne, loop_, Flags::Z, Flags::NONE),
    plain(M::Jmp, jmp),
    plain(M::Call, call),
    plain(M::Ret, ret),
    // SYSCALL puts the flags in r11.
    row(M::Syscall, syscall, Flags::ALL, Flags::NONE),
    row(M::Int3, trap, Flags::ALL, Flags::NONE),
    row(M::Int1, trap, Flags::ALL, Flags::NONE),
    row(M::Int, trap, Flags::ALL, Flags::NONE),
    row(M::Ud2, trap, Flags::ALL, Flags::NONE),
    row(M::Ud1, trap, Flags::ALL, Flags::NONE),
    row(M::Ud0, trap, Flags::ALL, Flags::NONE),
    row(M::Hlt, trap, Flags::ALL, Flags::NONE),
    row(M::INVALID, trap, Flags::ALL, Flags::NONE),
];

impl Lower<'_> {
    /// Target, internal index and live flags of the current direct jump.
    fn edge_of(&self, ins: &Instruction) -> (u64, Option<u16>, Flags) {
        let insn = &self.region.insns[self.index];
        let live = match insn.target {
            Some(t) => self.region.insns[t as usize].live_in,
            None => insn.live_taken,
        };
        (ins.near_branch_target(), insn.target, live)
    }
}

fn jcc(l: &mut Lower, ins: &Instruction) -> Lowered {
    let (target, internal, live) = l.edge_of(ins);
    l.end_passes();
    if !l.carries {
        let test = l.test(ins.condition_code());
        l.branch(test, target, internal, live);
        return Ok(());
    }
    if let Some(bit_test) = l.bit_test.take() {
        // The branch is taken on ZF = 1 or SF = 1 for JE and JS, on 0 for JNE and JNS.
        match bit_test {
            BitTest::Zero(w, r) => l.branch_zero(ins.mnemonic() == M::Je, w, r, target, internal),
            BitTest::Bit(r, bit) => {
                let set = matches!(ins.mnemonic(), M::Jne | M::Js);
                l.branch_bit(set, r, bit, target, internal);
            }
        }
    } else {
        let mut condition = ins.condition_code();
        if std::mem::take(&mut l.with_next) {
            condition = or_equal(condition).unwrap_or(condition);
        }
        let test = l.test(condition);
        l.branch(test, target, internal, live);
    }
    l.edge_flags = None;
    Ok(())
}

fn jrcxz(l: &mut Lower, ins: &Instruction) -> Lowered {
    let (target, internal, _) = l.edge_of(ins);
    l.canonical(l.live_out);
    let w = if ins.mnemonic() == M::Jrcxz { Width::X } else { Width::W };
    l.branch_zero(true, w, RCX, target, internal);
    Ok(())
}

fn loop_(l: &mut Lower, ins: &Instruction) -> Lowered {
    let (target, internal, _) = l.edge_of(ins);
    let short = matches!(
        ins.code(),
        Code::Loop_rel8_64_ECX | Code::Loope_rel8_64_ECX | Code::Loopne_rel8_64_ECX
    );
    let w = if short { Width::W } else { Width::X };
    l.canonical(l.live_out.or(Flags::Z));
    l.a.sub_imm(w, RCX, RCX, 1);
    let done = l.a.label();
    match ins.mnemonic() {
        M::Loope => l.a.b_cond(crate::asm::Cond::Ne, done),
        M::Loopne => l.a.b_cond(crate::asm::Cond::Eq, done),
        _ => {}
    }
    l.branch_zero(false, w, RCX, target, internal);
    l.a.bind(done);
    Ok(())
}

fn jmp(l: &mut Lower, ins: &Instruction) -> Lowered {
    if ins.op_kind(0) == OpKind::NearBranch64 {
        let (target, internal, live) = l.edge_of(ins);
        match internal {
            Some(_) => {
                l.canonical(live);
                l.branch(Test::Known(true), target, internal, live);
            }
            None => l.jump_out(target, live),
        }
        return Ok(());
    }
    if is_far(ins) {
        return segments::far_jump(l, ins);
    }
    let target = indirect_target(l, ins)?;
    l.canonical(Flags::ALL);
    l.branch_indirect(target);
    Ok(())
}

/// The target of an indirect near branch: in its own register, or in x16. RSP's own changes with a push.
fn indirect_target(l: &mut Lower, ins: &Instruction) -> Result<R, Unimplemented> {
    match ins.op_kind(0) {
        OpKind::Register if ins.op0_register().size() == 8 => match host_of(ins.op0_register()) {
            RSP => l.a.mov(Width::X, TARGET, RSP),
            register => return Ok(register),
        },
        OpKind::Memory if ins.memory_size().size() == 8 => {
            // The address may use x16 as its first temporary; loading over it is fine.
            let m = l.address(ins, 8);
            l.load(8, TARGET, m);
        }
        _ => return Err(Unimplemented), // branches of 16 bits, which the decoder does not make
    }
    Ok(TARGET)
}

/// A far JMP or CALL, which in 64-bit mode is one through memory.
fn is_far(ins: &Instruction) -> bool {
    use Code::*;
    matches!(ins.code(), Jmp_m1616 | Jmp_m1632 | Jmp_m1664 | Call_m1616 | Call_m1632 | Call_m1664)
}

fn call(l: &mut Lower, ins: &Instruction) -> Lowered {
    if is_far(ins) {
        return segments::far_call(l, ins);
    }
    let next = ins.next_ip();
    let direct = ins.op_kind(0) == OpKind::NearBranch64;
    let target = if direct { TARGET } else { indirect_target(l, ins)? };
    let live = if direct { l.region.insns[l.index].live_taken } else { Flags::ALL };
    l.guest_address(BACK, next);
    l.push_value(BACK, 8);
    l.canonical(live);
    let back = l.a.label();
    if direct {
        l.call_out(ins.near_branch_target());
    } else {
        l.call_indirect(target, back);
    }
    l.return_point(back, next);
    l.mark_next();
    Ok(())
}

fn ret(l: &mut Lower, ins: &Instruction) -> Lowered {
    if !matches!(ins.code(), Code::Retnq | Code::Retnq_imm16) {
        return Err(Unimplemented);
    }
    if let Some(stop) = l.leaf_stop {
        l.canonical(Flags::ALL);
        l.leaf_return(stop);
        return Ok(());
    }
    let extra = if ins.op_count() == 1 { u64::from(ins.immediate16()) } else { 0 };
    let moved = l.take_stack();
    if extra == 0 && moved == 0 {
        l.pop_value(TARGET, 8);
    } else {
        let m = l.displaced(Addr::Imm(RSP, 0), moved as i32, 8);
        l.load(8, TARGET, m);
        l.add_constant(Width::X, RSP, RSP, moved + 8 + extra as i64);
    }
    l.canonical(l.live_out);
    l.branch_return();
    Ok(())
}

fn syscall(l: &mut Lower, ins: &Instruction) -> Lowered {
    l.leave_for_syscall(ins.next_ip());
    Ok(())
}

/// Exceptions by instruction: #BP and #OF have the address behind the instruction in rip.
fn trap(l: &mut Lower, ins: &Instruction) -> Lowered {
    let (vector, rip) = match ins.mnemonic() {
        M::Int3 => (3, ins.next_ip()),
        M::Int1 => (1, ins.next_ip()),
        M::Int if ins.immediate8() == 3 => (3, ins.next_ip()),
        M::Int => (13, ins.ip()),
        M::Hlt => (13, ins.ip()),
        _ => (6, ins.ip()),
    };
    l.raise(vector, rip);
    Ok(())
}
