//! The x87 unit: operands are loaded and results stored here, arithmetic is in run-time helpers
//! ([`crate::x87`]).
//!
//! The instruction pointer of FNSTENV and FXSAVE is kept; the operand pointer and the opcode are
//! not, and read as zero.

use super::operands::Addr;
use super::table::{Rows, plain, row};
use super::{Lower, Lowered, Unimplemented};
use crate::asm::{R, Width};
use crate::flags::Flags;
use crate::helpers::Helper;
use crate::state::{X87State, offset};
use crate::x87::helpers::{STORE_STATUS, STORE_SUPPRESSED, arith_code, arith_m_code};
use dynasmrt::{DynasmApi, dynasm};
use iced_x86::{ConditionCode, Instruction, MemorySize, Mnemonic as M, OpKind, Register};
use std::mem::offset_of;

const CZ: Flags = Flags::C.or(Flags::Z);

/// Rows of one lowering for several mnemonics.
macro_rules! rows {
    ($($f:ident: $($m:ident)*;)*) => { &[$($(plain(M::$m, $f)),*),*] };
}

pub(super) const ROWS: Rows = rows! {
    arith: Fadd Faddp Fiadd Fmul Fmulp Fimul Fsub Fsubp Fisub Fsubr Fsubrp Fisubr
        Fdiv Fdivp Fidiv Fdivr Fdivrp Fidivr;
    load: Fld Fild Fbld;
    constant: Fld1 Fldl2t Fldl2e Fldpi Fldlg2 Fldln2 Fldz;
    store: Fst Fstp Fstpnce Fist Fistp Fisttp Fbstp;
    compare: Fcom Fcomp Fcompp Fucom Fucomp Fucompp Ficom Ficomp;
    operation: Ftst Fxam Fchs Fabs Fsqrt Frndint F2xm1 Fsin Fcos Fyl2x Fyl2xp1 Fpatan Fscale Fprem
        Fprem1 Fxtract Fptan Fsincos Fincstp Fdecstp;
    exchange: Fxch;
    free: Ffree Ffreep;
    wait: Wait Fnop;
    nothing: Fneni Fndisi Fnsetpm;
    store_status: Fnstsw;
    store_control: Fnstcw;
    load_control: Fldcw;
    clear_exceptions: Fnclex;
    init: Fninit;
    environment: Fnstenv Fldenv Fnsave Frstor;
    fxsave: Fxsave Fxsave64 Fxrstor Fxrstor64;
};

pub(super) const CONDITIONAL_ROWS: Rows = &[
    row(M::Fcmovb, conditional_move, Flags::C, Flags::NONE),
    row(M::Fcmovnb, conditional_move, Flags::C, Flags::NONE),
    row(M::Fcmove, conditional_move, Flags::Z, Flags::NONE),
    row(M::Fcmovne, conditional_move, Flags::Z, Flags::NONE),
    row(M::Fcmovbe, conditional_move, CZ, Flags::NONE),
    row(M::Fcmovnbe, conditional_move, CZ, Flags::NONE),
    row(M::Fcmovu, conditional_move, Flags::P, Flags::NONE),
    row(M::Fcmovnu, conditional_move, Flags::P, Flags::NONE),
    row(M::Fcomi, compare_flags, Flags::NONE, Flags::ALL),
    row(M::Fcomip, compare_flags, Flags::NONE, Flags::ALL),
    row(M::Fucomi, compare_flags, Flags::NONE, Flags::ALL),
    row(M::Fucomip, compare_flags, Flags::NONE, Flags::ALL),
];

/// First and second argument and result of a helper.
const ARG0: R = R(20);
const ARG1: R = R(21);
const ARG2: R = R(22);

const SW: u32 = offset::X87 + offset_of!(X87State, sw) as u32;
const CW: u32 = offset::X87 + offset_of!(X87State, cw) as u32;
const TOP: u32 = offset::X87 + offset_of!(X87State, top) as u32;
const TAG: u32 = offset::X87 + offset_of!(X87State, tag) as u32;
/// Bit number of the exception summary in the status word.
const ES: u32 = 7;

impl Lower<'_> {
    /// Raises #MF if an unmasked exception of an earlier instruction is pending: what every
    /// waiting x87 instruction and every MMX instruction begins with. Gives back all temporaries.
    pub fn raise_pending_x87(&mut self) {
        let raise = self.cold_raise(16);
        let t = self.tmp();
        dynasm!(self.a; .arch aarch64; ldrh W(t.0), [x28, SW]);
        self.a.tbnz(t, ES, raise);
        self.free_temps();
    }

    /// Calls a helper with constant arguments.
    fn call_with(&mut self, h: Helper, args: [u64; 3]) {
        for (r, value) in [ARG0, ARG1, ARG2].into_iter().zip(args) {
            self.a.mov_imm(Width::X, r, value);
        }
        self.call(h);
    }

    /// Calls a helper; what follows sees the flags in canonical form.
    fn call(&mut self, h: Helper) {
        self.call_helper(h);
        self.free_temps();
        self.mark();
    }

    /// The address of the memory operand in the first argument.
    fn address_argument(&mut self, ins: &Instruction) {
        let m = self.address(ins, 1);
        let address = self.materialize(m);
        self.a.mov(Width::X, ARG0, address);
    }
}

/// Number of a stack register operand.
fn st(reg: Register) -> u8 {
    (reg as u32 - Register::ST0 as u32) as u8
}

/// The last operand's stack register; ST(1) where it is implied.
fn last_st(ins: &Instruction) -> u8 {
    match ins.op_count() {
        0 => 1,
        n => st(ins.op_register(n - 1)),
    }
}

/// The number of a memory operand's format, [`crate::x87::convert::Source`], and its size.
fn source(ins: &Instruction) -> Result<(u8, u32), Unimplemented> {
    Ok(match ins.memory_size() {
        MemorySize::Float32 => (0, 4),
        MemorySize::Float64 => (1, 8),
        MemorySize::Int16 => (2, 2),
        MemorySize::Int32 => (3, 4),
        MemorySize::Int64 => (4, 8),
        _ => return Err(Unimplemented),
    })
}

/// Loads a memory operand into the first argument; gives the number of its format.
fn load_operand(l: &mut Lower, ins: &Instruction) -> Result<u8, Unimplemented> {
    let (source, size) = source(ins)?;
    let m = l.address(ins, size);
    l.load(size, ARG0, m);
    Ok(source)
}

fn arith(l: &mut Lower, ins: &Instruction) -> Lowered {
    let (op, pop) = match ins.mnemonic() {
        M::Fadd | M::Fiadd => (0, false),
        M::Faddp => (0, true),
        M::Fmul | M::Fimul => (1, false),
        M::Fmulp => (1, true),
        M::Fsub | M::Fisub => (4, false),
        M::Fsubp => (4, true),
        M::Fsubr | M::Fisubr => (5, false),
        M::Fsubrp => (5, true),
        M::Fdiv | M::Fidiv => (6, false),
        M::Fdivp => (6, true),
        M::Fdivr | M::Fidivr => (7, false),
        _ => (7, true),
    };
    l.raise_pending_x87();
    if ins.op0_kind() == OpKind::Memory {
        let source = load_operand(l, ins)?;
        l.a.mov_imm(Width::W, ARG1, arith_m_code(op, source));
        l.call(Helper::X87ArithM);
    } else {
        let code = arith_code(op, st(ins.op0_register()), st(ins.op1_register()), pop);
        l.call_with(Helper::X87ArithSt, [code, 0, 0]);
    }
    Ok(())
}

fn load(l: &mut Lower, ins: &Instruction) -> Lowered {
    l.raise_pending_x87();
    if ins.op0_kind() == OpKind::Register {
        l.call_with(Helper::X87LoadSt, [st(ins.op0_register()).into(), 0, 0]);
        return Ok(());
    }
    if !matches!(ins.memory_size(), MemorySize::Float80 | MemorySize::Bcd) {
        let source = load_operand(l, ins)?;
        l.a.mov_imm(Width::W, ARG1, source.into());
        l.call(Helper::X87Load);
        return Ok(());
    }
    let m = l.address(ins, 8);
    l.load(8, ARG0, m);
    let m = l.displaced(m, 8, 2);
    l.load(2, ARG1, m);
    let bcd = ins.mnemonic() == M::Fbld;
    l.call(if bcd { Helper::X87LoadBcd } else { Helper::X87LoadF80 });
    Ok(())
}

fn constant(l: &mut Lower, ins: &Instruction) -> Lowered {
    let index = match ins.mnemonic() {
        M::Fld1 => 0,
        M::Fldl2t => 1,
        M::Fldl2e => 2,
        M::Fldpi => 3,
        M::Fldlg2 => 4,
        M::Fldln2 => 5,
        _ => 6,
    };
    l.raise_pending_x87();
    l.call_with(Helper::X87LoadConstant, [index, 0, 0]);
    Ok(())
}

/// The number of what a store makes of ST(0), [`crate::x87::ops::Target`], and its size.
fn target(ins: &Instruction) -> Result<(u64, u32), Unimplemented> {
    let truncate = ins.mnemonic() == M::Fisttp;
    Ok(match ins.memory_size() {
        MemorySize::Float32 => (0, 4),
        MemorySize::Float64 => (1, 8),
        MemorySize::Int16 => (if truncate { 7 } else { 2 }, 2),
        MemorySize::Int32 => (if truncate { 8 } else { 3 }, 4),
        MemorySize::Int64 => (if truncate { 9 } else { 4 }, 8),
        MemorySize::Float80 => (5, 10),
        MemorySize::Bcd => (6, 10),
        _ => return Err(Unimplemented),
    })
}

/// Stores: the helper evaluates, the store may fault, then the unit's state changes.
fn store(l: &mut Lower, ins: &Instruction) -> Lowered {
    let pop = !matches!(ins.mnemonic(), M::Fst | M::Fist);
    l.raise_pending_x87();
    if ins.op0_kind() == OpKind::Register {
        let helper = match ins.mnemonic() {
            M::Fstpnce => Helper::X87StoreUnchecked,
            _ => Helper::X87StoreSt,
        };
        l.call_with(helper, [st(ins.op0_register()).into(), pop.into(), 0]);
        return Ok(());
    }
    let (target, size) = target(ins)?;
    l.call_with(Helper::X87Store, [target, 0, 0]);
    let suppressed = l.a.label();
    l.a.tbnz(ARG1, STORE_SUPPRESSED, suppressed);
    if size == 10 {
        store_ten_bytes(l, ins);
    } else {
        let m = l.address(ins, size);
        l.store(size, ARG0, m);
    }
    if pop {
        l.pop_x87();
    }
    l.a.bind(suppressed);
    l.free_temps();
    let t = l.tmp();
    l.a.lsr(Width::X, t, ARG1, STORE_STATUS);
    dynasm!(l.a; .arch aarch64; strh W(t.0), [x28, SW]);
    Ok(())
}

/// Stores the value of ten bytes. Nothing is written if either part faults on a missing page: the
/// lower part is read first and written last.
fn store_ten_bytes(l: &mut Lower, ins: &Instruction) {
    let m = l.address(ins, 8);
    l.load(8, R(30), m);
    let high = l.displaced(m, 8, 2);
    l.store(2, ARG1, high);
    l.store(8, ARG0, m);
}

impl Lower<'_> {
    /// Marks ST(0) empty and increments TOP.
    fn pop_x87(&mut self) {
        self.free_temps();
        let (top, tag, bit) = (self.tmp(), self.tmp(), self.tmp());
        dynasm!(self.a; .arch aarch64; ldrh W(top.0), [x28, TOP]; ldrh W(tag.0), [x28, TAG]);
        self.a.mov_imm(Width::W, bit, 1);
        self.a.lslv(Width::W, bit, bit, top);
        self.a.bic(Width::W, tag, tag, bit);
        self.a.add_imm(Width::W, top, top, 1);
        self.a.and_imm(Width::W, top, top, 7);
        dynasm!(self.a; .arch aarch64; strh W(top.0), [x28, TOP]; strh W(tag.0), [x28, TAG]);
    }
}

fn compare(l: &mut Lower, ins: &Instruction) -> Lowered {
    let (quiet, pops) = match ins.mnemonic() {
        M::Fcom | M::Ficom => (0, 0),
        M::Fcomp | M::Ficomp => (0, 1),
        M::Fcompp => (0, 2),
        M::Fucom => (1, 0),
        M::Fucomp => (1, 1),
        _ => (1, 2),
    };
    l.raise_pending_x87();
    if ins.op_count() > 0 && ins.op0_kind() == OpKind::Memory {
        let source = load_operand(l, ins)?;
        l.a.mov_imm(Width::W, ARG1, source.into());
        l.a.mov_imm(Width::W, ARG2, pops);
        l.call(Helper::X87CompareM);
    } else {
        l.call_with(Helper::X87CompareSt, [last_st(ins).into(), quiet, pops]);
    }
    Ok(())
}

fn compare_flags(l: &mut Lower, ins: &Instruction) -> Lowered {
    let (quiet, pop) = match ins.mnemonic() {
        M::Fcomi => (0, 0),
        M::Fcomip => (0, 1),
        M::Fucomi => (1, 0),
        _ => (1, 1),
    };
    l.raise_pending_x87();
    l.call_with(Helper::X87CompareFlags, [last_st(ins).into(), quiet, pop]);
    Ok(())
}

/// The instructions without operands, each a helper with a number.
fn operation(l: &mut Lower, ins: &Instruction) -> Lowered {
    let (helper, number) = match ins.mnemonic() {
        M::Ftst => (Helper::X87Test, 0),
        M::Fxam => (Helper::X87Examine, 0),
        M::Fchs => (Helper::X87Unary, 0),
        M::Fabs => (Helper::X87Unary, 1),
        M::Fsqrt => (Helper::X87Unary, 2),
        M::Frndint => (Helper::X87Unary, 3),
        M::F2xm1 => (Helper::X87Unary, 4),
        M::Fsin => (Helper::X87Unary, 5),
        M::Fcos => (Helper::X87Unary, 6),
        M::Fyl2x => (Helper::X87Binary, 0),
        M::Fyl2xp1 => (Helper::X87Binary, 1),
        M::Fpatan => (Helper::X87Binary, 2),
        M::Fscale => (Helper::X87Binary, 3),
        M::Fprem => (Helper::X87Binary, 4),
        M::Fprem1 => (Helper::X87Binary, 5),
        M::Fxtract => (Helper::X87Pair, 0),
        M::Fptan => (Helper::X87Pair, 1),
        M::Fsincos => (Helper::X87Pair, 2),
        M::Fdecstp => (Helper::X87MoveTop, 0),
        M::Fincstp => (Helper::X87MoveTop, 1),
        _ => return Err(Unimplemented),
    };
    l.raise_pending_x87();
    l.call_with(helper, [number, 0, 0]);
    Ok(())
}

fn exchange(l: &mut Lower, ins: &Instruction) -> Lowered {
    l.raise_pending_x87();
    l.call_with(Helper::X87Exchange, [last_st(ins).into(), 0, 0]);
    Ok(())
}

fn free(l: &mut Lower, ins: &Instruction) -> Lowered {
    l.raise_pending_x87();
    let pop = ins.mnemonic() == M::Ffreep;
    l.call_with(Helper::X87Free, [last_st(ins).into(), pop.into(), 0]);
    Ok(())
}

fn conditional_move(l: &mut Lower, ins: &Instruction) -> Lowered {
    let condition = match ins.mnemonic() {
        M::Fcmovb => ConditionCode::b,
        M::Fcmovnb => ConditionCode::ae,
        M::Fcmove => ConditionCode::e,
        M::Fcmovne => ConditionCode::ne,
        M::Fcmovbe => ConditionCode::be,
        M::Fcmovnbe => ConditionCode::a,
        M::Fcmovu => ConditionCode::p,
        _ => ConditionCode::np,
    };
    l.raise_pending_x87();
    let test = l.test(condition);
    l.set_if(ARG1, test);
    l.a.mov_imm(Width::W, ARG0, last_st(ins).into());
    l.call(Helper::X87ConditionalMove);
    Ok(())
}

fn wait(l: &mut Lower, _ins: &Instruction) -> Lowered {
    l.raise_pending_x87();
    Ok(())
}

/// Instructions of the 8087 and 80287 that later processors ignore (SDM vol. 3, 24.18.8).
fn nothing(_: &mut Lower, _: &Instruction) -> Lowered {
    Ok(())
}

fn store_status(l: &mut Lower, ins: &Instruction) -> Lowered {
    let (sw, top) = (l.tmp(), l.tmp());
    dynasm!(l.a; .arch aarch64; ldrh W(sw.0), [x28, SW]; ldrh W(top.0), [x28, TOP]);
    l.a.orr_lsl(Width::W, sw, sw, top, 11);
    store_word(l, ins, sw);
    Ok(())
}

fn store_control(l: &mut Lower, ins: &Instruction) -> Lowered {
    let cw = l.tmp();
    dynasm!(l.a; .arch aarch64; ldrh W(cw.0), [x28, CW]);
    store_word(l, ins, cw);
    Ok(())
}

/// Stores a word in AX or memory.
fn store_word(l: &mut Lower, ins: &Instruction, value: R) {
    if ins.op0_kind() == OpKind::Register {
        l.write_register(Register::AX, value);
    } else {
        let m = l.address(ins, 2);
        l.store(2, value, m);
    }
}

fn load_control(l: &mut Lower, ins: &Instruction) -> Lowered {
    l.raise_pending_x87();
    let m: Addr = l.address(ins, 2);
    l.load(2, ARG0, m);
    l.call(Helper::X87LoadControl);
    Ok(())
}

/// Clears the exceptions, SF, ES and B: condition codes stay.
fn clear_exceptions(l: &mut Lower, _ins: &Instruction) -> Lowered {
    let t = l.tmp();
    dynasm!(l.a; .arch aarch64; ldrh W(t.0), [x28, SW]);
    l.a.and_imm(Width::W, t, t, 0x7f00);
    dynasm!(l.a; .arch aarch64; strh W(t.0), [x28, SW]);
    Ok(())
}

fn init(l: &mut Lower, _ins: &Instruction) -> Lowered {
    l.call(Helper::X87Init);
    Ok(())
}

fn environment(l: &mut Lower, ins: &Instruction) -> Lowered {
    let helper = match ins.mnemonic() {
        M::Fnstenv => Helper::X87StoreEnv,
        M::Fldenv => Helper::X87LoadEnv,
        M::Fnsave => Helper::X87Save,
        _ => Helper::X87Restore,
    };
    if matches!(ins.mnemonic(), M::Fldenv | M::Frstor) {
        l.raise_pending_x87();
    }
    let short = matches!(ins.memory_size(), MemorySize::FpuEnv14 | MemorySize::FpuState94);
    l.address_argument(ins);
    l.a.mov_imm(Width::W, ARG1, short.into());
    l.call(helper);
    Ok(())
}

fn fxsave(l: &mut Lower, ins: &Instruction) -> Lowered {
    let (helper, wide) = match ins.mnemonic() {
        M::Fxsave => (Helper::FxSave, 0),
        M::Fxsave64 => (Helper::FxSave, 1),
        M::Fxrstor => (Helper::FxRstor, 0),
        _ => (Helper::FxRstor, 1),
    };
    l.address_argument(ins);
    l.a.mov_imm(Width::W, ARG1, wide);
    l.call(helper);
    let fault = l.cold_raise(13);
    l.a.cbnz(Width::X, ARG0, fault);
    if matches!(ins.mnemonic(), M::Fxrstor | M::Fxrstor64) {
        l.leave_if_unmasked(ARG1);
    }
    Ok(())
}
