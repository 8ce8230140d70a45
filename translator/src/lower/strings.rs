//! String instructions: MOVS STOS LODS CMPS SCAS with REP, REPE, REPNE.
//!
//! rsi, rdi and rcx advance with every element, so that the state is exact at a fault and where a
//! signal stops the loop. Long REP MOVS and REP STOS go to a helper that works page by page.

use super::arith::{Rhs, Sum};
use super::operands::Addr;
use super::table::{Rows, plain, row_unless};
use super::{FS, Lower, Lowered, STATE};
use crate::asm::{R, Width};
use crate::flags::Flags;
use crate::helpers::Helper;
use crate::state::offset;
use iced_x86::{Instruction, Mnemonic as M, OpKind, Register};

const RAX: R = R(0);
const RCX: R = R(1);
const RSI: R = R(6);
const RDI: R = R(7);

/// log2 of the number of elements from which on a helper is worth its call.
const LONG: u32 = 5;

// MOVSD and CMPSD have the rows of MOVSQ and CMPSQ: see `table::entry`.
pub(super) const ROWS: Rows = &[
    plain(M::Movsb, string),
    plain(M::Movsw, string),
    plain(M::Movsq, string),
    plain(M::Stosb, string),
    plain(M::Stosw, string),
    plain(M::Stosd, string),
    plain(M::Stosq, string),
    plain(M::Lodsb, string),
    plain(M::Lodsw, string),
    plain(M::Lodsd, string),
    plain(M::Lodsq, string),
    row_unless(M::Cmpsb, string, Flags::NONE, Flags::ALL, repeated),
    row_unless(M::Cmpsw, string, Flags::NONE, Flags::ALL, repeated),
    row_unless(M::Cmpsq, string, Flags::NONE, Flags::ALL, repeated),
    row_unless(M::Scasb, string, Flags::NONE, Flags::ALL, repeated),
    row_unless(M::Scasw, string, Flags::NONE, Flags::ALL, repeated),
    row_unless(M::Scasd, string, Flags::NONE, Flags::ALL, repeated),
    row_unless(M::Scasq, string, Flags::NONE, Flags::ALL, repeated),
];

/// With any repeat prefix; a count of zero does nothing at all.
fn repeated(ins: &Instruction) -> bool {
    ins.has_rep_prefix() || ins.has_repne_prefix()
}

/// What a string instruction does with an element.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Action {
    Move,
    Store,
    Load,
    Compare,
    Scan,
}

/// A string instruction and what its loop keeps in registers.
struct Element {
    action: Action,
    size: u32,
    /// Width of the addresses and of the counter.
    w: Width,
    /// Base of the source's segment.
    segment: Option<R>,
    /// What is added to rsi and rdi.
    step: R,
}

fn action_of(ins: &Instruction) -> Action {
    match ins.mnemonic() {
        M::Movsb | M::Movsw | M::Movsd | M::Movsq => Action::Move,
        M::Stosb | M::Stosw | M::Stosd | M::Stosq => Action::Store,
        M::Lodsb | M::Lodsw | M::Lodsd | M::Lodsq => Action::Load,
        M::Cmpsb | M::Cmpsw | M::Cmpsd | M::Cmpsq => Action::Compare,
        _ => Action::Scan,
    }
}

fn string(l: &mut Lower, ins: &Instruction) -> Lowered {
    let e = element(l, ins);
    if !repeated(ins) {
        let values = one(l, &e);
        if let Some((a, b)) = values {
            l.sum_flags(Sum::Sub, e.size, a, Rhs::Reg(b));
        }
        return Ok(());
    }
    l.canonical(Flags::ALL);
    l.mark();
    let done = l.a.label();
    if matches!(e.action, Action::Move | Action::Store) && e.w == Width::X && e.segment.is_none() {
        long(l, &e, done);
    }
    l.a.cbz(e.w, RCX, done);
    let again = l.a.here();
    let values = one(l, &e);
    l.a.sub_imm(e.w, RCX, RCX, 1);
    let Some((a, b)) = values else {
        l.repeat(e.w, RCX, again);
        l.a.bind(done);
        return Ok(());
    };
    let out = l.a.label();
    let difference = R(30);
    l.a.eor(Width::X, difference, a, b);
    if e.size < 8 {
        l.a.ubfx(Width::X, difference, difference, 0, e.size * 8);
    }
    if ins.has_repne_prefix() {
        l.a.cbz(Width::X, difference, out);
    } else {
        l.a.cbnz(Width::X, difference, out);
    }
    l.repeat(e.w, RCX, again);
    l.a.bind(out);
    l.sum_flags(Sum::Sub, e.size, a, Rhs::Reg(b));
    l.canonical(Flags::ALL);
    l.a.bind(done);
    Ok(())
}

fn element(l: &mut Lower, ins: &Instruction) -> Element {
    let action = action_of(ins);
    let size = ins.memory_size().size() as u32;
    let short = (0..ins.op_count())
        .any(|op| matches!(ins.op_kind(op), OpKind::MemorySegESI | OpKind::MemoryESEDI));
    let segment = match ins.memory_segment() {
        Register::FS if action != Action::Store && action != Action::Scan => Some(FS),
        Register::GS if action != Action::Store && action != Action::Scan => {
            let t = l.tmp();
            l.a.ldr(t, STATE, offset::GS_BASE);
            Some(t)
        }
        _ => None,
    };
    // size, or -size if DF is set
    let (step, df) = (l.tmp(), R(30));
    l.a.ldr(df, STATE, offset::DF);
    l.a.mov_imm(Width::X, step, u64::from(size));
    l.a.sub_lsl(Width::X, step, step, df, size.trailing_zeros() + 1);
    Element { action, size, w: if short { Width::W } else { Width::X }, segment, step }
}

/// The address in rsi or rdi.
fn pointer(l: &mut Lower, e: &Element, r: R, segment: Option<R>) -> Addr {
    if e.w == Width::X && segment.is_none() {
        return Addr::Imm(r, 0);
    }
    let t = l.tmp();
    l.a.mov(e.w, t, r);
    if let Some(s) = segment {
        l.a.add(Width::X, t, t, s);
    }
    Addr::Imm(t, 0)
}

/// One element; gives the two values of a comparison.
fn one(l: &mut Lower, e: &Element) -> Option<(R, R)> {
    let mut values = None;
    let from_source = matches!(e.action, Action::Move | Action::Load | Action::Compare);
    let a = if from_source {
        let m = pointer(l, e, RSI, e.segment);
        let t = l.tmp();
        l.load(e.size, t, m);
        t
    } else {
        RAX
    };
    match e.action {
        Action::Move | Action::Store => {
            let m = pointer(l, e, RDI, None);
            l.store(e.size, a, m);
        }
        Action::Load => {
            let register = match e.size {
                1 => Register::AL,
                2 => Register::AX,
                4 => Register::EAX,
                _ => Register::RAX,
            };
            l.write_register(register, a);
        }
        Action::Compare | Action::Scan => {
            let m = pointer(l, e, RDI, None);
            let b = l.tmp();
            l.load(e.size, b, m);
            values = Some((a, b));
        }
    }
    if from_source {
        l.a.add(e.w, RSI, RSI, e.step);
    }
    if e.action != Action::Load {
        l.a.add(e.w, RDI, RDI, e.step);
    }
    values
}

/// The way to the helper for long forward moves and stores.
fn long(l: &mut Lower, e: &Element, done: crate::asm::Label) {
    let (short, t) = (l.a.label(), R(30));
    l.a.lsr(Width::X, t, RCX, LONG);
    l.a.cbz(Width::X, t, short);
    l.a.ldr(t, STATE, offset::DF);
    l.a.cbnz(Width::X, t, short);
    let again = l.a.here();
    l.a.mov_imm(Width::W, R(20), u64::from(e.size));
    l.call_helper(if e.action == Action::Move { Helper::RepMovs } else { Helper::RepStos });
    l.repeat(Width::X, RCX, again);
    l.a.b(done);
    l.a.bind(short);
}
