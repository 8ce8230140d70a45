//! Data movement: MOV and its extensions, LEA, XCHG, PUSH, POP, LEAVE, ENTER, conditional moves and
//! sets, sign extensions of the accumulator, BSWAP, XLAT.

use super::operands::{Addr, host_of, is_high_byte, width_of};
use super::table::{Rows, plain, row};
use super::{Lower, Lowered};
use crate::asm::{R, Reloc, Width};
use crate::flags::Flags;
use iced_x86::{Code, Instruction, Mnemonic as M, OpKind, Register};

const RAX: R = R(0);
const RDX: R = R(2);
const RBX: R = R(3);
const RSP: R = R(4);
const RBP: R = R(5);

/// Rows of the instructions that only read flags.
macro_rules! reading {
    ($f:ident, $($m:ident: $flags:expr),*) => { [$(row(M::$m, $f, $flags, Flags::NONE)),*] };
}

const CZ: Flags = Flags::C.or(Flags::Z);
const SO: Flags = Flags::S.or(Flags::O);
const ZSO: Flags = Flags::Z.or(SO);

const CONDITIONAL: [(M, super::table::Entry); 32] = reading!(conditional,
    Cmovo: Flags::O, Cmovno: Flags::O, Cmovb: Flags::C, Cmovae: Flags::C, Cmove: Flags::Z,
    Cmovne: Flags::Z, Cmovbe: CZ, Cmova: CZ, Cmovs: Flags::S, Cmovns: Flags::S, Cmovp: Flags::P,
    Cmovnp: Flags::P, Cmovl: SO, Cmovge: SO, Cmovle: ZSO, Cmovg: ZSO,
    Seto: Flags::O, Setno: Flags::O, Setb: Flags::C, Setae: Flags::C, Sete: Flags::Z,
    Setne: Flags::Z, Setbe: CZ, Seta: CZ, Sets: Flags::S, Setns: Flags::S, Setp: Flags::P,
    Setnp: Flags::P, Setl: SO, Setge: SO, Setle: ZSO, Setg: ZSO);

pub(super) const CONDITIONAL_ROWS: Rows = &CONDITIONAL;

pub(super) const ROWS: Rows = &[
    plain(M::Mov, mov),
    plain(M::Movzx, movzx),
    plain(M::Movsx, movsx),
    plain(M::Movsxd, movsx),
    plain(M::Lea, lea),
    plain(M::Push, push),
    plain(M::Pop, pop),
    plain(M::Leave, leave),
    plain(M::Enter, enter),
    plain(M::Cbw, extend_accumulator),
    plain(M::Cwde, extend_accumulator),
    plain(M::Cdqe, extend_accumulator),
    plain(M::Cwd, extend_accumulator),
    plain(M::Cdq, extend_accumulator),
    plain(M::Cqo, extend_accumulator),
    plain(M::Bswap, bswap),
    plain(M::Movbe, movbe),
    plain(M::Xlatb, xlat),
    plain(M::Nop, nop),
    plain(M::Endbr64, nop),
    plain(M::Endbr32, nop),
];

fn nop(_l: &mut Lower, _ins: &Instruction) -> Lowered {
    Ok(())
}

fn mov(l: &mut Lower, ins: &Instruction) -> Lowered {
    let (load, size) = match ins.code() {
        Code::Mov_r64_rm64 => (true, 8),
        Code::Mov_r32_rm32 => (true, 4),
        Code::Mov_rm64_r64 => (false, 8),
        Code::Mov_rm32_r32 => (false, 4),
        _ => return any_mov(l, ins),
    };
    let (memory, t) = if load {
        (ins.op1_kind(), ins.op0_register())
    } else {
        (ins.op0_kind(), ins.op1_register())
    };
    if memory != OpKind::Memory {
        if !l.leave_copy(ins) {
            l.write_register(ins.op0_register(), host_of(ins.op1_register()));
        }
        return Ok(());
    }
    if l.quick_access(ins, load, size, t) { Ok(()) } else { any_mov(l, ins) }
}

#[inline(never)]
fn any_mov(l: &mut Lower, ins: &Instruction) -> Lowered {
    let size = l.size_of(ins, 0);
    match (ins.op_kind(0), ins.op_kind(1)) {
        (OpKind::Register, OpKind::Register) => {
            let src = l.read_register(ins.op1_register());
            l.write_register(ins.op0_register(), src);
        }
        (OpKind::Register, OpKind::Memory) => {
            let m = l.address(ins, size);
            if size >= 4 {
                l.load(size, host_of(ins.op0_register()), m);
            } else {
                let t = l.tmp();
                l.load(size, t, m);
                l.write_register(ins.op0_register(), t);
            }
        }
        (OpKind::Register, _) => {
            let value = ins.immediate(1);
            let d = host_of(ins.op0_register());
            match size {
                8 => l.load_constant(Width::X, d, value),
                4 => l.load_constant(Width::W, d, value),
                _ => {
                    let mask = if size == 1 { 0xff } else { 0xffff };
                    let t =
                        if value & mask == 0 { R::ZR } else { l.constant(Width::W, value & mask) };
                    l.write_register(ins.op0_register(), t);
                }
            }
        }
        _ => {
            let src = l.read(ins, 1);
            let m = l.address(ins, size);
            l.store(size, src, m);
        }
    }
    Ok(())
}

fn movzx(l: &mut Lower, ins: &Instruction) -> Lowered {
    let from = l.size_of(ins, 1);
    let to = ins.op0_register();
    let d = if to.size() >= 4 { host_of(to) } else { l.tmp() };
    if ins.op_kind(1) == OpKind::Memory {
        let m = l.address(ins, from);
        l.load(from, d, m);
    } else if is_high_byte(ins.op1_register()) {
        l.a.ubfx(Width::W, d, host_of(ins.op1_register()), 8, 8);
    } else if d == host_of(ins.op1_register()) && l.is_extended_already(ins) {
        // SETcc has done it.
    } else {
        l.a.ubfx(Width::W, d, host_of(ins.op1_register()), 0, from * 8);
    }
    if to.size() < 4 {
        l.write_register(to, d);
    }
    Ok(())
}

fn movsx(l: &mut Lower, ins: &Instruction) -> Lowered {
    let from = l.size_of(ins, 1);
    let to = ins.op0_register();
    let w = width_of(to.size() as u32);
    let d = if to.size() >= 4 { host_of(to) } else { l.tmp() };
    if from == to.size() as u32 {
        // MOVSXD without REX.W is a plain move.
        let src = l.read(ins, 1);
        l.write_register(to, src);
        return Ok(());
    }
    if ins.op_kind(1) == OpKind::Memory {
        let m = l.address(ins, from);
        l.load_sx(from, w, d, m);
    } else if is_high_byte(ins.op1_register()) {
        l.a.sbfx(w, d, host_of(ins.op1_register()), 8, 8);
    } else {
        l.a.sbfx(w, d, host_of(ins.op1_register()), 0, from * 8);
    }
    if to.size() < 4 {
        l.write_register(to, d);
    }
    Ok(())
}

fn lea(l: &mut Lower, ins: &Instruction) -> Lowered {
    let to = ins.op0_register();
    let d = host_of(to);
    let plain64 = to.size() == 8 && ins.memory_base().size() != 4 && ins.memory_index().size() != 4;
    if ins.is_ip_rel_memory_operand() && to.size() == 8 && ins.memory_base() == Register::RIP {
        l.a.ldr_literal(d, ins.memory_displacement64(), Reloc::Guest);
        return Ok(());
    }
    let has = |r: Register| r != Register::None;
    let (base, index) = (ins.memory_base(), ins.memory_index());
    let shift = ins.memory_index_scale().trailing_zeros();
    let displacement = ins.memory_displacement64() as i64;
    if plain64 || to.size() == 4 && !ins.is_ip_rel_memory_operand() {
        let w = width_of(to.size() as u32);
        match (has(base), has(index)) {
            (true, false) => {
                l.add_constant(w, d, host_of(base), displacement);
                return Ok(());
            }
            (true, true) if displacement == 0 => {
                l.a.add_lsl(w, d, host_of(base), host_of(index), shift);
                return Ok(());
            }
            (true, true) => {
                let t = l.tmp();
                l.a.add_lsl(w, t, host_of(base), host_of(index), shift);
                l.add_constant(w, d, t, displacement);
                return Ok(());
            }
            (false, true) => {
                let t = if displacement == 0 { d } else { l.tmp() };
                l.a.lsl(w, t, host_of(index), shift);
                if displacement != 0 {
                    l.add_constant(w, d, t, displacement);
                }
                return Ok(());
            }
            (false, false) => {}
        }
    }
    let t = l.effective_address(ins);
    l.write_register(to, t);
    Ok(())
}

fn push(l: &mut Lower, ins: &Instruction) -> Lowered {
    let size = if ins.stack_pointer_increment() == -2 { 2 } else { 8 };
    let src = match ins.op_kind(0) {
        OpKind::Register if ins.op0_register().is_segment_register() => {
            l.selector(ins.op0_register())
        }
        OpKind::Register => host_of(ins.op0_register()),
        OpKind::Memory => {
            let m = l.address(ins, size);
            let t = l.tmp();
            l.load(size, t, m);
            t
        }
        _ => {
            let v = ins.immediate(0);
            if v == 0 { R::ZR } else { l.constant(Width::X, v) }
        }
    };
    if !l.push_in_row(ins, src) {
        l.push_value(src, size);
    }
    Ok(())
}

/// Operations of two operands, or one, that [`Lower::leave_copy`] makes to ones of three.
fn takes_copy(mnemonic: M) -> bool {
    use M::*;
    matches!(
        mnemonic,
        Add | Sub | And | Or | Xor | Inc | Dec | Neg | Not | Shl | Sal | Shr | Sar | Imul
    )
}

impl Lower<'_> {
    /// Leaves a MOV between registers out if the next instruction can read its source and write its destination.
    /// Nothing between them may fault or be entered.
    fn leave_copy(&mut self, ins: &Instruction) -> bool {
        let (to, from) = (ins.op0_register(), ins.op1_register());
        if to == from || !self.region.falls_into_next(self.index) {
            return false;
        }
        let next = &self.region.insns[self.index + 1];
        let op = &next.ins;
        let fits = !next.join
            && takes_copy(op.mnemonic())
            && (op.mnemonic() != M::Imul || op.op_count() == 2)
            && op.op0_kind() == OpKind::Register
            && op.op0_register().full_register() == to.full_register()
            && (4..=to.size()).contains(&op.op0_register().size())
            && op.op1_kind() != OpKind::Memory
            && (op.op_count() == 1 || {
                let second = op.op1_register().full_register();
                // OR r, r and the like are idioms of their own.
                second != to.full_register() && second != from.full_register()
            });
        if fits {
            self.carries = true;
            self.copied = Some(host_of(from));
        }
        fits
    }

    /// Pushes the low `size` bytes (2 or 8) of a register on the guest's stack.
    pub fn push_value(&mut self, src: R, size: u32) {
        // PUSH RSP stores the old value; a pre-indexed store of its own base is not allowed.
        if size == 8 && src != RSP && !self.ordered() {
            self.a.word(0xf81f_8c00 | RSP.n() << 5 | src.n()); // STR src, [x4, #-8]!
            return;
        }
        self.store(size, src, Addr::Imm(RSP, -(size as i32)));
        self.a.sub_imm(Width::X, RSP, RSP, u64::from(size));
    }

    /// Pops `size` bytes (2 or 8) into a register other than RSP.
    pub fn pop_value(&mut self, d: R, size: u32) {
        if size == 8 && !self.ordered() {
            self.a.word(0xf840_8400 | RSP.n() << 5 | d.n()); // LDR d, [x4], #8
            return;
        }
        self.load(size, d, Addr::Imm(RSP, 0));
        self.a.add_imm(Width::X, RSP, RSP, u64::from(size));
    }
}

fn pop(l: &mut Lower, ins: &Instruction) -> Lowered {
    let size = if ins.stack_pointer_increment() == 2 { 2 } else { 8 };
    if ins.op_kind(0) == OpKind::Memory {
        // The address is computed with RSP already incremented, but a fault leaves RSP alone.
        let t = l.tmp();
        l.load(size, t, Addr::Imm(RSP, 0));
        let m = if ins.memory_base() == Register::RSP || ins.memory_base() == Register::ESP {
            let mut moved = *ins;
            moved.set_memory_displacement64(
                ins.memory_displacement64().wrapping_add(u64::from(size)),
            );
            l.address(&moved, size)
        } else {
            l.address(ins, size)
        };
        l.store(size, t, m);
        l.a.add_imm(Width::X, RSP, RSP, u64::from(size));
        return Ok(());
    }
    let reg = ins.op0_register();
    if l.pop_in_row(ins, host_of(reg)) {
        return Ok(());
    }
    if size == 8 && reg != Register::RSP {
        l.pop_value(host_of(reg), 8);
        return Ok(());
    }
    let t = l.tmp();
    l.pop_value(t, size);
    l.write_register(reg, t);
    Ok(())
}

fn leave(l: &mut Lower, ins: &Instruction) -> Lowered {
    let size = if ins.code() == Code::Leavew { 2 } else { 8 };
    let t = l.tmp();
    l.load(size, t, Addr::Imm(RBP, 0));
    l.a.add_imm(Width::X, RSP, RBP, u64::from(size));
    l.write_register(if size == 8 { Register::RBP } else { Register::BP }, t);
    Ok(())
}

/// ENTER alloc, level (Intel SDM vol. 2): push rbp, copy `level - 1` frame pointers, push the new one.
/// With words of 16 bits, too, RSP moves as a whole.
fn enter(l: &mut Lower, ins: &Instruction) -> Lowered {
    let size = if ins.code() == Code::Enterq_imm16_imm8 { 8 } else { 2 };
    let word = size as i32;
    let level = ins.immediate8_2nd() as i32 & 31;
    let allocate = u64::from(ins.immediate16());
    l.store(size, RBP, Addr::Imm(RSP, -word));
    let t = l.tmp();
    for i in 1..level {
        l.load(size, t, Addr::Imm(RBP, -word * i));
        l.store(size, t, Addr::Imm(RSP, -word - word * i));
    }
    l.a.sub_imm(Width::X, t, RSP, size.into());
    if level > 0 {
        l.store(size, t, Addr::Imm(RSP, -word - word * level));
    }
    l.write_register(if size == 8 { Register::RBP } else { Register::BP }, t);
    let total = u64::from(size) * (1 + level as u64) + allocate;
    l.add_constant(Width::X, RSP, RSP, -(total as i64));
    Ok(())
}

fn conditional(l: &mut Lower, ins: &Instruction) -> Lowered {
    let test = l.test(ins.condition_code());
    if ins.op_count() == 1 {
        if l.is_zero_extended(ins, 0) || l.is_extended_next(ins) {
            l.set_if(host_of(ins.op0_register()), test);
            return Ok(());
        }
        let t = l.tmp();
        l.set_if(t, test);
        l.write(ins, 0, t);
        return Ok(());
    }
    let size = l.size_of(ins, 0);
    let src = l.read(ins, 1); // read even if the condition is false: it may fault
    let d = host_of(ins.op0_register());
    if size == 2 {
        let t = l.tmp();
        l.a.mov(Width::W, t, d);
        l.move_if(Width::W, t, src, test);
        l.write_register(ins.op0_register(), t);
    } else {
        l.move_if(width_of(size), d, src, test);
    }
    Ok(())
}

fn extend_accumulator(l: &mut Lower, ins: &Instruction) -> Lowered {
    match ins.mnemonic() {
        M::Cbw => {
            let t = l.tmp();
            l.a.sxtb(Width::W, t, RAX);
            l.write_register(Register::AX, t);
        }
        M::Cwde => l.a.sxth(Width::W, RAX, RAX),
        M::Cdqe => l.a.sxtw(RAX, RAX),
        M::Cwd => {
            let t = l.tmp();
            l.a.sbfx(Width::W, t, RAX, 15, 1);
            l.write_register(Register::DX, t);
        }
        M::Cdq => l.a.asr(Width::W, RDX, RAX, 31),
        _ => l.a.asr(Width::X, RDX, RAX, 63),
    }
    Ok(())
}

fn bswap(l: &mut Lower, ins: &Instruction) -> Lowered {
    let reg = ins.op0_register();
    let d = host_of(reg);
    match reg.size() {
        8 => l.a.rev(Width::X, d, d),
        4 => l.a.rev(Width::W, d, d),
        // BSWAP of a 16-bit register is undefined; processors write zero.
        _ => l.write_register(reg, R::ZR),
    }
    Ok(())
}

fn movbe(l: &mut Lower, ins: &Instruction) -> Lowered {
    let size = l.size_of(ins, 0);
    let src = l.read(ins, 1);
    let t = l.tmp();
    l.a.rev(width_of(size), t, src);
    if size == 2 {
        l.a.lsr(Width::W, t, t, 16);
    }
    l.write(ins, 0, t);
    Ok(())
}

fn xlat(l: &mut Lower, ins: &Instruction) -> Lowered {
    let t = l.tmp();
    l.a.uxtb(t, RAX);
    l.a.add(Width::X, t, t, RBX);
    if ins.memory_base() == Register::EBX {
        l.a.mov(Width::W, t, t);
    }
    if matches!(ins.memory_segment(), Register::FS | Register::GS) {
        return Err(super::Unimplemented);
    }
    let v = l.tmp();
    l.load(1, v, Addr::Imm(t, 0));
    l.write_register(Register::AL, v);
    Ok(())
}
