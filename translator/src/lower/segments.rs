//! Segment registers, what tells of descriptors (LAR LSL VERR VERW), far transfers (JMP CALL RET IRET),
//! and the tables' registers (SGDT SIDT SLDT STR SMSW), whose values Linux makes up for processes.

use super::operands::{Addr, host_of};
use super::table::{Entry, Rows, plain, row};
use super::{Lower, Lowered, STATE};
use crate::asm::{R, Width};
use crate::flags::Flags;
use crate::helpers::Helper;
use crate::segments::{DataSegment, USER_CS, USER_SS};
use crate::state::offset;
use crate::tramp::Trampoline;
use iced_x86::{Instruction, Mnemonic as M, OpKind, Register};

const RSP: R = R(4);
/// Arguments and results of helpers.
const FIRST: R = R(20);
const SECOND: R = R(21);
const THIRD: R = R(22);

/// MOV and POP into segment registers, which differ from their namesakes: they may raise #GP.
pub(super) const LOADS: Entry = row(M::Mov, load_segment, Flags::ALL, Flags::NONE).1;

/// The other MOVs that differ from theirs.
pub(super) const SYSTEM_MOVES: Entry = plain(M::Mov, system_move).1;

pub(super) const ROWS: Rows = &[
    row(M::Lss, load_pointer, Flags::ALL, Flags::NONE),
    row(M::Lfs, load_pointer, Flags::ALL, Flags::NONE),
    row(M::Lgs, load_pointer, Flags::ALL, Flags::NONE),
    row(M::Lar, descriptor_value, Flags::NONE, Flags::Z),
    row(M::Lsl, descriptor_value, Flags::NONE, Flags::Z),
    row(M::Verr, verify, Flags::NONE, Flags::Z),
    row(M::Verw, verify, Flags::NONE, Flags::Z),
    row(M::Retf, far_return, Flags::ALL, Flags::NONE),
    row(M::Iret, interrupt_return, Flags::ALL, Flags::NONE),
    row(M::Iretd, interrupt_return, Flags::ALL, Flags::NONE),
    row(M::Iretq, interrupt_return, Flags::ALL, Flags::NONE),
    row(M::Sgdt, store_table, Flags::NONE, Flags::NONE),
    row(M::Sidt, store_table, Flags::NONE, Flags::NONE),
    row(M::Sldt, store_word, Flags::NONE, Flags::NONE),
    row(M::Str, store_word, Flags::NONE, Flags::NONE),
    row(M::Smsw, store_word, Flags::NONE, Flags::NONE),
];

/// Which of the registers whose selectors are kept it is.
fn data_segment(register: Register) -> Option<DataSegment> {
    Some(match register {
        Register::DS => DataSegment::Ds,
        Register::ES => DataSegment::Es,
        Register::FS => DataSegment::Fs,
        Register::GS => DataSegment::Gs,
        _ => return None,
    })
}

impl Lower<'_> {
    /// The selector in a segment register.
    pub fn selector(&mut self, register: Register) -> R {
        match data_segment(register) {
            Some(segment) => {
                let t = self.tmp();
                const { assert!(offset::SELECTORS < 8184) };
                let at = offset::SELECTORS / 2 + segment as u32;
                self.a.word(0x7940_0000 | at << 10 | STATE.n() << 5 | t.n()); // LDRH
                t
            }
            None if register == Register::CS => self.constant(Width::W, USER_CS.into()),
            None => self.constant(Width::W, USER_SS.into()),
        }
    }

    /// Loads a segment register with the selector in x20. All temporaries are lost.
    fn load_selector(&mut self, register: Register) {
        match data_segment(register) {
            Some(segment) => {
                self.a.mov_imm(Width::W, SECOND, segment as u64);
                self.call_helper(Helper::LoadSegment);
            }
            None => self.call_helper(Helper::LoadStackSegment),
        }
        self.raise_reported();
    }

    /// Raises the exception that a helper gave in x20, if that is not 0.
    fn raise_reported(&mut self) {
        let (fine, here) = (self.a.label(), self.a.label());
        self.a.cbz(Width::W, FIRST, fine);
        self.mark();
        self.a.bind(here);
        self.a.adr(R(30), here);
        let ip = self.current().ip();
        self.guest_address(R(16), ip);
        self.a.mov(Width::W, R(17), FIRST);
        self.a.b_trampoline(Trampoline::Exception, false);
        self.a.bind(fine);
        self.mark();
    }

    /// Calls a helper for a far transfer, and goes where it says.
    fn far_transfer(&mut self, helper: Helper) {
        self.call_helper(helper);
        self.raise_reported();
        self.branch_indirect(SECOND);
    }

    /// Puts address and operand size of a far pointer where helpers take them.
    fn far_pointer(&mut self, ins: &Instruction) {
        let m = self.address(ins, 1);
        let at = self.single_address(m);
        self.a.mov(Width::X, FIRST, at);
        self.a.mov_imm(Width::W, SECOND, ins.memory_size().size() as u64 - 2);
    }
}

/// MOV from a segment register, and from and to control and debug registers, which are privileged.
fn system_move(l: &mut Lower, ins: &Instruction) -> Lowered {
    if !ins.op1_register().is_segment_register() {
        l.raise(13, ins.ip()); // #GP
        return Ok(());
    }
    let selector = l.selector(ins.op1_register());
    if ins.op_kind(0) == OpKind::Memory {
        let m = l.address(ins, 2);
        l.store(2, selector, m);
    } else {
        l.write_register(ins.op0_register(), selector);
    }
    Ok(())
}

/// MOV to a segment register, POP FS, POP GS.
fn load_segment(l: &mut Lower, ins: &Instruction) -> Lowered {
    if ins.mnemonic() == M::Mov {
        let selector = l.read(ins, 1);
        l.a.mov(Width::W, FIRST, selector);
    } else {
        l.load(2, FIRST, Addr::Imm(RSP, 0));
    }
    l.load_selector(ins.op0_register());
    if ins.mnemonic() == M::Pop {
        l.a.add_imm(Width::X, RSP, RSP, ins.stack_pointer_increment() as u64);
    }
    Ok(())
}

/// LSS LFS LGS: a far pointer, into a segment register and another.
fn load_pointer(l: &mut Lower, ins: &Instruction) -> Lowered {
    let segment = match ins.mnemonic() {
        M::Lss => Register::SS,
        M::Lfs => Register::FS,
        _ => Register::GS,
    };
    let size = ins.memory_size().size() as u32 - 2;
    let m = l.address(ins, 1);
    let at = l.single_address(m);
    let value = l.tmp();
    l.load(2, FIRST, Addr::Imm(at, size as i32));
    l.load(size, value, Addr::Imm(at, 0));
    l.a.str(value, STATE, offset::SCRATCH);
    l.load_selector(segment);
    l.free_temps();
    let value = l.tmp();
    l.a.ldr(value, STATE, offset::SCRATCH);
    l.write_register(ins.op0_register(), value);
    Ok(())
}

fn descriptor_value(l: &mut Lower, ins: &Instruction) -> Lowered {
    let selector = l.read(ins, 1);
    l.a.mov(Width::W, FIRST, selector);
    let lar = ins.mnemonic() == M::Lar;
    l.call_helper(if lar { Helper::AccessRights } else { Helper::SegmentLimit });
    let bad = l.a.label();
    l.a.cbz(Width::W, FIRST, bad);
    l.write_register(ins.op0_register(), SECOND);
    l.a.bind(bad);
    Ok(())
}

fn verify(l: &mut Lower, ins: &Instruction) -> Lowered {
    let selector = l.read(ins, 0);
    l.a.mov(Width::W, FIRST, selector);
    l.a.mov_imm(Width::W, SECOND, u64::from(ins.mnemonic() == M::Verw));
    l.call_helper(Helper::VerifySegment);
    Ok(())
}

/// Far JMP through memory.
pub(super) fn far_jump(l: &mut Lower, ins: &Instruction) -> Lowered {
    l.far_pointer(ins);
    l.far_transfer(Helper::FarJump);
    Ok(())
}

/// Far CALL through memory. Its return is no near one: the shadow stack has no part in it.
pub(super) fn far_call(l: &mut Lower, ins: &Instruction) -> Lowered {
    l.far_pointer(ins);
    l.guest_address(THIRD, ins.next_ip());
    l.far_transfer(Helper::FarCall);
    Ok(())
}

fn far_return(l: &mut Lower, ins: &Instruction) -> Lowered {
    let release = if ins.op_count() == 1 { ins.immediate16() } else { 0 };
    // What it pops, but for the bytes released, is two words.
    let popped = ins.stack_pointer_increment() as u64 - u64::from(release);
    l.a.mov_imm(Width::W, FIRST, popped / 2);
    l.a.mov_imm(Width::W, SECOND, release.into());
    l.far_transfer(Helper::FarReturn);
    Ok(())
}

/// IRET to the same privilege level: pops rip, CS, RFLAGS, rsp, SS.
fn interrupt_return(l: &mut Lower, ins: &Instruction) -> Lowered {
    let size = match ins.mnemonic() {
        M::Iret => 2,
        M::Iretd => 4,
        _ => 8,
    };
    l.a.mov_imm(Width::W, FIRST, size);
    l.far_transfer(Helper::InterruptReturn);
    Ok(())
}

/// What Linux lets processes see in place of the tables' registers (arch/x86/kernel/umip.c): the
/// limit is 0.
fn store_table(l: &mut Lower, ins: &Instruction) -> Lowered {
    let base =
        if ins.mnemonic() == M::Sgdt { 0xffff_ffff_fffe_0000 } else { 0xffff_ffff_ffff_0000 };
    let m = l.address(ins, 1);
    let at = l.single_address(m);
    let value = l.constant(Width::X, base);
    l.store(8, value, Addr::Imm(at, 2));
    l.store(2, R::ZR, Addr::Imm(at, 0));
    Ok(())
}

/// SLDT, STR and SMSW: Linux writes as many bytes of a register as the operand has, and leaves the others; of
/// memory two.
fn store_word(l: &mut Lower, ins: &Instruction) -> Lowered {
    let value = match ins.mnemonic() {
        M::Sldt => 0,
        M::Str => 0x40,
        _ => 0x8005_0033,
    };
    let value = l.constant(Width::X, value);
    if ins.op_kind(0) == OpKind::Memory {
        let m = l.address(ins, 2);
        l.store(2, value, m);
        return Ok(());
    }
    let register = ins.op0_register();
    match register.size() {
        8 => l.write_register(register, value),
        size => l.a.bfi(Width::X, host_of(register), value, 0, 8 * size as u32),
    }
    Ok(())
}
