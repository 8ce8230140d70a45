//! The few pieces of code that every translation uses: the way from Rust into translated code, the
//! ways out, and the call of a run-time helper. They are emitted once, at the start of the code
//! cache, and reached through the state register.

use crate::asm::{Asm, R, Width};
use crate::lower::{AF, FS, LR, PF, SHADOW, STATE, TABLE, VZERO};
use crate::state::{CpuState, ExitCode, offset};
use dynasmrt::{DynasmApi, dynasm};

/// A trampoline, as [`emit`] orders them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Trampoline {
    /// `extern "C" fn(&mut CpuState, host_pc)`: run translated code until it exits.
    Enter,
    /// A direct exit; x30 is its record.
    Direct,
    /// An indirect branch that missed; x16 is the guest target.
    Indirect,
    /// A system call; x16 is the address behind it.
    Syscall,
    /// An exception; x16 is rip, x17 the vector, x30 the host address that stands for the instruction.
    Exception,
    /// Calls the helper in x16 with x20..x22; x19 is the guest instruction's address.
    CallHelper,
    /// Back to Rust with the state already saved (from a signal handler); SP is `host_sp`.
    Leave,
    /// `extern "C" fn(&mut CpuState, argument, function)`: calls a Rust function of the state and the argument such that
    /// `Leave` returns from it.
    Call,
    /// An entry of a region that has been invalidated; x30 is behind its first instruction.
    Dead,
}

/// Number of trampolines.
pub const COUNT: usize = 9;

impl Trampoline {
    /// All of them, in order.
    pub const ALL: [Trampoline; COUNT] = [
        Trampoline::Enter,
        Trampoline::Direct,
        Trampoline::Indirect,
        Trampoline::Syscall,
        Trampoline::Exception,
        Trampoline::CallHelper,
        Trampoline::Leave,
        Trampoline::Call,
        Trampoline::Dead,
    ];
}

const SP: R = R(31);

/// Emits all trampolines; returns the offset of each.
pub fn emit(a: &mut Asm) -> [u32; COUNT] {
    let enter = a.pos();
    emit_enter(a);
    let mut exits = [0; 4];
    let codes = [ExitCode::Direct, ExitCode::Indirect, ExitCode::Syscall, ExitCode::Exception];
    for (at, code) in exits.iter_mut().zip(codes) {
        *at = a.pos();
        emit_exit(a, code);
    }
    let call = a.pos();
    emit_call_helper(a);
    let leave = a.pos();
    emit_leave(a);
    let function = a.pos();
    emit_call(a);
    let dead = a.pos();
    emit_exit(a, ExitCode::Dead);
    a.finish();
    [enter, exits[0], exits[1], exits[2], exits[3], call, leave, function, dead]
}

/// Size of the frame that `Enter` makes: x19..x30 and d8..d15.
const FRAME: u64 = 160;

fn emit_enter(a: &mut Asm) {
    // The callee-saved registers of AAPCS64.
    a.sub_imm(Width::X, SP, SP, FRAME);
    callee_saved(a, false);
    a.mov(Width::X, STATE, R(0));
    a.mov(Width::X, R(17), R(1));
    a.add_imm(Width::X, R(16), SP, 0);
    a.str(R(16), STATE, offset::HOST_SP);
    a.ldr(SHADOW, STATE, offset::SHADOW_SP);
    a.ldr(TABLE, STATE, offset::BRANCH_TABLE);
    load_guest(a);
    a.br(R(17));
}

fn emit_call(a: &mut Asm) {
    a.sub_imm(Width::X, SP, SP, FRAME);
    callee_saved(a, false);
    a.add_imm(Width::X, R(16), SP, 0);
    a.str(R(16), R(0), offset::HOST_SP);
    a.blr(R(2));
    emit_leave(a);
}

/// Leaves translated code: saves the guest's registers, notes why, and returns to Rust.
fn emit_exit(a: &mut Asm, code: ExitCode) {
    match code {
        ExitCode::Direct | ExitCode::Dead => a.str(LR, STATE, offset::EXIT_ARG),
        ExitCode::Exception => {
            a.str(R(16), STATE, offset::RIP);
            a.str(R(17), STATE, offset::EXIT_ARG);
            a.str(LR, STATE, offset::FAULT_PC);
        }
        _ => a.str(R(16), STATE, offset::RIP),
    }
    save_guest(a);
    a.str(SHADOW, STATE, offset::SHADOW_SP);
    a.mov_imm(Width::W, R(16), code as u64);
    a.str(R(16), STATE, offset::EXIT);
    emit_leave(a);
}

/// Returns from the call of `Enter`. SP is as `Enter` left it.
fn emit_leave(a: &mut Asm) {
    callee_saved(a, true);
    a.add_imm(Width::X, SP, SP, FRAME);
    a.ret(LR);
}

/// See [`crate::lower::Lower::call_helper`].
fn emit_call_helper(a: &mut Asm) {
    a.str(LR, STATE, offset::HELPER_RETURN);
    a.str(R(19), STATE, offset::RIP);
    a.mov(Width::X, R(19), R(16));
    save_guest(a);
    a.str(SHADOW, STATE, offset::SHADOW_SP);
    a.mov(Width::X, R(0), STATE);
    a.mov(Width::X, R(1), R(20));
    a.mov(Width::X, R(2), R(21));
    a.mov(Width::X, R(3), R(22));
    a.blr(R(19));
    a.mov(Width::X, R(20), R(0));
    a.mov(Width::X, R(21), R(1));
    load_guest(a);
    a.ldr(LR, STATE, offset::HELPER_RETURN);
    a.str(R::ZR, STATE, offset::HELPER_RETURN);
    a.ret(LR);
}

/// Saves (or loads) x19..x30 and d8..d15 in the frame at SP.
fn callee_saved(a: &mut Asm, load: bool) {
    for i in 0..6u8 {
        let (x, y, at) = (R(19 + 2 * i), R(20 + 2 * i), 16 * i32::from(i));
        if load { a.ldp(x, y, SP, at) } else { a.stp(x, y, SP, at) }
    }
    for i in 0..4u8 {
        let (x, y, at) = (8 + 2 * i, 9 + 2 * i, 96 + 16 * i32::from(i));
        if load {
            dynasm!(a; .arch aarch64; ldp D(x), D(y), [sp, at]);
        } else {
            dynasm!(a; .arch aarch64; stp D(x), D(y), [sp, at]);
        }
    }
}

/// Loads all guest registers from the state. x17, x19..x22 and LR survive.
fn load_guest(a: &mut Asm) {
    a.add_imm(Width::X, R(16), STATE, u64::from(offset::XMM));
    for i in (0..16u8).step_by(2) {
        dynasm!(a; .arch aarch64; ldp Q(i), Q(i + 1), [x16, 16 * i32::from(i)]);
    }
    dynasm!(a; .arch aarch64; movi V(VZERO.0).d2, 0);
    // FPCR is 0 on the Rust side.
    let default = a.label();
    a.ldr_w(R(16), STATE, offset::FPCR);
    a.cbz(Width::W, R(16), default);
    a.word(MSR_FPCR | 16);
    a.bind(default);
    a.ldr_w(R(16), STATE, offset::FPSR);
    a.word(MSR_FPSR | 16);
    a.ldr(R(16), STATE, offset::NZCV);
    a.msr_nzcv(R(16));
    a.ldr(FS, STATE, offset::FS_BASE);
    a.ldr(PF, STATE, offset::PF);
    a.ldr(AF, STATE, offset::AF);
    for i in (0..16u8).step_by(2) {
        a.ldp(R(i), R(i + 1), STATE, offset::GPR as i32 + 8 * i32::from(i));
    }
}

/// Saves all guest registers to the state. Only x16 is clobbered.
fn save_guest(a: &mut Asm) {
    for i in (0..16u8).step_by(2) {
        a.stp(R(i), R(i + 1), STATE, offset::GPR as i32 + 8 * i32::from(i));
    }
    a.mrs_nzcv(R(16));
    a.str(R(16), STATE, offset::NZCV);
    a.str(FS, STATE, offset::FS_BASE);
    a.str(PF, STATE, offset::PF);
    a.str(AF, STATE, offset::AF);
    a.word(MRS_FPSR | 16);
    a.str_w(R(16), STATE, offset::FPSR);
    let default = a.label();
    a.ldr_w(R(16), STATE, offset::FPCR);
    a.cbz(Width::W, R(16), default);
    a.word(MSR_FPCR | 31);
    a.bind(default);
    a.add_imm(Width::X, R(16), STATE, u64::from(offset::XMM));
    for i in (0..16u8).step_by(2) {
        dynasm!(a; .arch aarch64; stp Q(i), Q(i + 1), [x16, 16 * i32::from(i)]);
    }
}

const MSR_FPCR: u32 = 0xd51b_4400;
const MSR_FPSR: u32 = 0xd51b_4420;
const MRS_FPSR: u32 = 0xd53b_4420;

/// Runs translated code at `host` until it exits.
///
/// # Safety
/// `enter` must be the `Enter` trampoline, `host` the entry of a translation in a live code cache,
/// and `cpu` a state that [`crate::engine::Engine::attach`] prepared.
#[cfg(target_arch = "aarch64")]
pub unsafe fn enter(enter: u64, cpu: &mut CpuState, host: u64) {
    // SAFETY: the caller vouches that `enter` is code of this type.
    unsafe {
        let f: extern "C" fn(*mut CpuState, u64) = std::mem::transmute(enter as *const ());
        f(cpu, host);
    }
}

/// Calls `function` with the state and a pointer, such that the `Leave` trampoline returns from here, abandoning it.
///
/// # Safety
/// `call` must be the `Call` trampoline, and what `function` asks of its arguments must hold.
#[cfg(target_arch = "aarch64")]
pub unsafe fn call<T>(
    call: u64,
    cpu: &mut CpuState,
    argument: &mut T,
    function: unsafe extern "C" fn(*mut CpuState, *mut T),
) {
    // SAFETY: the caller vouches that `call` is code of this type.
    unsafe {
        let f: extern "C" fn(*mut CpuState, *mut T, u64) = std::mem::transmute(call as *const ());
        f(cpu, argument, function as *const () as u64);
    }
}

/// The same where no trampoline runs: a fault is one.
///
/// # Safety
/// What `function` asks of its arguments must hold.
#[cfg(not(target_arch = "aarch64"))]
pub unsafe fn call<T>(
    _call: u64,
    cpu: &mut CpuState,
    argument: &mut T,
    function: unsafe extern "C" fn(*mut CpuState, *mut T),
) {
    // SAFETY: the caller's.
    unsafe { function(cpu, argument) }
}

/// Translated code only runs on arm64; elsewhere this crate is built for its unit tests.
///
/// # Safety
/// Always sound: it panics.
#[cfg(not(target_arch = "aarch64"))]
pub unsafe fn enter(_enter: u64, _cpu: &mut CpuState, _host: u64) {
    panic!("translated code runs on arm64 only");
}
