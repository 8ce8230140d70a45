//! Flag transfers (PUSHF POPF LAHF SAHF CLC STC CMC CLD STD), processor information and time,
//! segment bases, hints, and what is privileged.

use super::operands::Addr;
use super::table::{Rows, plain, row};
use super::{AF, Carry, FS, Lower, Lowered, PF, STATE};
use crate::asm::{Cond, R, Width};
use crate::flags::Flags;
use crate::helpers::Helper;
use crate::state::offset;
use iced_x86::{Code, Instruction, Mnemonic as M, OpKind};

const RAX: R = R(0);
const RCX: R = R(1);
const RDX: R = R(2);
const RSP: R = R(4);
/// General protection.
const GP: u8 = 13;
/// Invalid opcode.
const UD: u8 = 6;

const ALL_BUT_O: Flags = Flags::ALL.without(Flags::O);

/// A row of an instruction that ends with an exception.
const fn privileged(m: M) -> (M, super::table::Entry) {
    row(m, protection_fault, Flags::ALL, Flags::NONE)
}

pub(super) const ROWS: Rows = &[
    row(M::Pushf, pushf, Flags::ALL, Flags::NONE),
    row(M::Pushfq, pushf, Flags::ALL, Flags::NONE),
    row(M::Popf, popf, Flags::NONE, Flags::ALL),
    row(M::Popfq, popf, Flags::NONE, Flags::ALL),
    row(M::Lahf, lahf, ALL_BUT_O, Flags::NONE),
    row(M::Sahf, sahf, Flags::NONE, ALL_BUT_O),
    row(M::Clc, clc, Flags::NONE, Flags::C),
    row(M::Stc, stc, Flags::NONE, Flags::C),
    row(M::Cmc, cmc, Flags::C, Flags::C),
    plain(M::Cld, cld),
    plain(M::Std, std),
    plain(M::Cpuid, cpuid),
    plain(M::Rdtsc, rdtsc),
    plain(M::Rdtscp, rdtsc),
    plain(M::Xgetbv, xgetbv),
    plain(M::Rdfsbase, rdfsbase),
    plain(M::Rdgsbase, rdgsbase),
    plain(M::Wrfsbase, wrfsbase),
    plain(M::Wrgsbase, wrgsbase),
    plain(M::Pause, pause),
    plain(M::Prefetch, hint),
    plain(M::Prefetchw, hint),
    plain(M::Prefetchwt1, hint),
    plain(M::Prefetchnta, hint),
    plain(M::Prefetcht0, hint),
    plain(M::Prefetcht1, hint),
    plain(M::Prefetcht2, hint),
    plain(M::Prefetchit0, hint),
    plain(M::Prefetchit1, hint),
    plain(M::Cldemote, hint),
    plain(M::Reservednop, hint),
    // Without shadow stacks these are NOPs too (Intel SDM vol. 1, 17.3).
    plain(M::Rdsspd, hint),
    plain(M::Rdsspq, hint),
    plain(M::Clflush, clflush),
    plain(M::Clflushopt, clflush),
    privileged(M::Cli),
    privileged(M::Sti),
    privileged(M::In),
    privileged(M::Out),
    privileged(M::Insb),
    privileged(M::Insw),
    privileged(M::Insd),
    privileged(M::Outsb),
    privileged(M::Outsw),
    privileged(M::Outsd),
    privileged(M::Lgdt),
    privileged(M::Lidt),
    privileged(M::Lldt),
    privileged(M::Ltr),
    privileged(M::Lmsw),
    privileged(M::Clts),
    privileged(M::Invd),
    privileged(M::Wbinvd),
    privileged(M::Invlpg),
    privileged(M::Rdmsr),
    privileged(M::Wrmsr),
    privileged(M::Rdpmc),
    privileged(M::Swapgs),
    privileged(M::Sysret),
    privileged(M::Sysretq),
    privileged(M::Sysexit),
    privileged(M::Sysexitq),
    privileged(M::Xsetbv),
];

fn protection_fault(l: &mut Lower, ins: &Instruction) -> Lowered {
    l.raise(GP, ins.ip());
    Ok(())
}

fn pushf(l: &mut Lower, ins: &Instruction) -> Lowered {
    l.call_helper(Helper::GetFlags);
    l.push_value(R(20), stack_size(ins));
    Ok(())
}

fn popf(l: &mut Lower, ins: &Instruction) -> Lowered {
    let size = stack_size(ins);
    l.load(size, R(20), Addr::Imm(RSP, 0));
    let mask = if size == 2 { 0xffff } else { u64::MAX };
    l.a.mov_imm(Width::X, R(21), mask);
    l.call_helper(Helper::SetFlags);
    l.a.add_imm(Width::X, RSP, RSP, u64::from(size));
    Ok(())
}

fn stack_size(ins: &Instruction) -> u32 {
    ins.stack_pointer_increment().unsigned_abs()
}

/// AH = SF ZF 0 AF 0 PF 1 CF.
fn lahf(l: &mut Lower, _: &Instruction) -> Lowered {
    l.canonical(Flags::ALL);
    let (ah, t) = (l.tmp(), l.tmp());
    l.a.mrs_nzcv(t);
    l.a.lsr(Width::W, ah, t, 30);
    l.a.lsl(Width::W, ah, ah, 6);
    l.a.orr_imm(Width::W, ah, ah, 2);
    l.a.ubfx(Width::W, t, t, 29, 1);
    l.a.orr(Width::W, ah, ah, t);
    let odd = l.odd_parity();
    l.a.eor_imm(Width::W, odd, odd, 1);
    l.a.bfi(Width::W, ah, odd, 2, 1);
    l.a.eor(Width::X, t, PF, AF);
    l.a.and_imm(Width::W, t, t, 16);
    l.a.orr(Width::W, ah, ah, t);
    l.a.bfi(Width::X, RAX, ah, 8, 8);
    Ok(())
}

fn sahf(l: &mut Lower, _: &Instruction) -> Lowered {
    l.canonical(l.live_out);
    let (ah, t, v) = (l.tmp(), l.tmp(), l.tmp());
    l.a.ubfx(Width::W, ah, RAX, 8, 8);
    if l.need.any(Flags::NZCV) {
        l.a.cset(v, Cond::Vs);
        l.a.lsr(Width::W, t, ah, 6);
        l.a.lsl(Width::W, t, t, 30);
        l.a.bfi(Width::W, t, ah, 29, 1);
        l.a.bfi(Width::W, t, v, 28, 1);
        l.a.msr_nzcv(t);
    }
    if l.need.any(Flags::P.or(Flags::A)) {
        // The parity of one bit: even if it is 0.
        l.a.ubfx(Width::W, PF, ah, 2, 1);
        l.a.eor_imm(Width::W, PF, PF, 1);
        l.a.and_imm(Width::W, AF, ah, 16);
        l.a.orr(Width::W, AF, AF, PF);
    }
    Ok(())
}

fn clc(l: &mut Lower, _: &Instruction) -> Lowered {
    l.canonical(l.live_out);
    if l.need.any(Flags::C) {
        l.set_carry_from_bit(R::ZR, 0);
    }
    Ok(())
}

fn stc(l: &mut Lower, _: &Instruction) -> Lowered {
    l.canonical(l.live_out);
    if l.need.any(Flags::C) {
        let one = l.constant(Width::W, 1);
        l.set_carry_from_bit(one, 0);
    }
    Ok(())
}

/// CMC changes what PSTATE.C means.
fn cmc(l: &mut Lower, _: &Instruction) -> Lowered {
    if l.flags.float {
        l.canonical(Flags::ALL);
    }
    l.flags.carry = match l.flags.carry {
        Carry::Direct | Carry::Zero => Carry::Inverted,
        Carry::Inverted => Carry::Direct,
    };
    Ok(())
}

fn cld(l: &mut Lower, _: &Instruction) -> Lowered {
    l.a.str(R::ZR, STATE, offset::DF);
    Ok(())
}

fn std(l: &mut Lower, _: &Instruction) -> Lowered {
    let one = l.constant(Width::W, 1);
    l.a.str(one, STATE, offset::DF);
    Ok(())
}

fn cpuid(l: &mut Lower, _: &Instruction) -> Lowered {
    l.call_helper(Helper::Cpuid);
    Ok(())
}

/// The time-stamp counter is the host's virtual counter, shifted so that it runs at 2^31 to 2^32 Hz.
fn rdtsc(l: &mut Lower, ins: &Instruction) -> Lowered {
    let fault = l.cold_raise(GP);
    let forbidden = l.tmp();
    l.a.ldr(forbidden, STATE, offset::NO_TSC);
    l.a.cbnz(Width::X, forbidden, fault);
    if ins.mnemonic() == M::Rdtscp {
        l.call_helper(Helper::CurrentCpu);
        l.a.mov(Width::W, RCX, R(20));
    }
    let (count, shift) = (l.tmp(), l.tmp());
    l.a.word(0xd53b_e040 | count.n()); // MRS count, CNTVCT_EL0
    l.a.word(0xd53b_e000 | shift.n()); // MRS shift, CNTFRQ_EL0
    l.a.clz(Width::W, shift, shift);
    l.a.lslv(Width::X, count, count, shift);
    l.a.mov(Width::W, RAX, count);
    l.a.lsr(Width::X, RDX, count, 32);
    Ok(())
}

/// XCR0: x87 and SSE state.
fn xgetbv(l: &mut Lower, _: &Instruction) -> Lowered {
    let fault = l.cold_raise(GP);
    l.a.cbnz(Width::W, RCX, fault);
    l.a.mov_imm(Width::W, RAX, crate::cpuid::XCR0);
    l.a.mov_imm(Width::W, RDX, 0);
    Ok(())
}

fn rdfsbase(l: &mut Lower, ins: &Instruction) -> Lowered {
    l.write_register(ins.op0_register(), FS);
    Ok(())
}

fn rdgsbase(l: &mut Lower, ins: &Instruction) -> Lowered {
    let t = l.tmp();
    l.a.ldr(t, STATE, offset::GS_BASE);
    l.write_register(ins.op0_register(), t);
    Ok(())
}

fn wrfsbase(l: &mut Lower, ins: &Instruction) -> Lowered {
    let base = l.read_zx(ins, 0);
    l.a.mov(Width::X, FS, base);
    Ok(())
}

fn wrgsbase(l: &mut Lower, ins: &Instruction) -> Lowered {
    let base = l.read_zx(ins, 0);
    l.a.str(base, STATE, offset::GS_BASE);
    Ok(())
}

fn pause(l: &mut Lower, _: &Instruction) -> Lowered {
    l.a.word(0xd503_203f); // YIELD
    Ok(())
}

/// Instructions that may do nothing.
fn hint(l: &mut Lower, ins: &Instruction) -> Lowered {
    // 0F 0D is for prefetches from memory only.
    let prefetch = matches!(
        ins.code(),
        Code::Reservednop_rm16_r16_0F0D
            | Code::Reservednop_rm32_r32_0F0D
            | Code::Reservednop_rm64_r64_0F0D
    );
    if prefetch && ins.op_kind(0) == OpKind::Register {
        l.raise(UD, ins.ip());
    }
    Ok(())
}

/// Caches are coherent: only the access remains.
fn clflush(l: &mut Lower, ins: &Instruction) -> Lowered {
    let m = l.address(ins, 1);
    let t = l.tmp();
    l.load(1, t, m);
    Ok(())
}
