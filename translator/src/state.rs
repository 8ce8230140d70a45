//! The guest processor's state as translated code and run-time helpers see it.
//!
//! One `CpuState` belongs to one guest thread. Inside translated code the integer and
//! vector registers, the flags and the FS base live in host registers (see `docs/registers.md`);
//! the fields here are their home whenever the thread is outside translated code.

use crate::segments::DataSegment;
use std::mem::offset_of;

/// Index of a guest integer register in [`CpuState::gpr`], in x86 encoding order.
#[allow(missing_docs)] // the names are the architecture's
pub mod reg {
    pub const RAX: usize = 0;
    pub const RCX: usize = 1;
    pub const RDX: usize = 2;
    pub const RBX: usize = 3;
    pub const RSP: usize = 4;
    pub const RBP: usize = 5;
    pub const RSI: usize = 6;
    pub const RDI: usize = 7;
}

/// Bits of the guest's RFLAGS (Intel SDM vol. 1, 3.4.3).
#[allow(missing_docs)]
pub mod rflags {
    pub const CF: u64 = 1 << 0;
    /// Bit 1 always reads as one.
    pub const FIXED: u64 = 1 << 1;
    pub const PF: u64 = 1 << 2;
    pub const AF: u64 = 1 << 4;
    pub const ZF: u64 = 1 << 6;
    pub const SF: u64 = 1 << 7;
    pub const TF: u64 = 1 << 8;
    pub const IF: u64 = 1 << 9;
    pub const DF: u64 = 1 << 10;
    pub const OF: u64 = 1 << 11;
    /// Nested task: all it does in user mode is to make IRET fault.
    pub const NT: u64 = 1 << 14;
    pub const AC: u64 = 1 << 18;
    pub const ID: u64 = 1 << 21;
    /// The six status flags.
    pub const STATUS: u64 = CF | PF | AF | ZF | SF | OF;
}

/// The x87 unit (Intel SDM vol. 1, chapter 8). MMX registers alias the significands of `st`.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct X87State {
    /// Physical registers R0..R7, each an 80-bit value in the low ten bytes (not ordered by TOP).
    pub st: [u128; 8],
    /// Control word.
    pub cw: u16,
    /// Status word without TOP, which is kept apart.
    pub sw: u16,
    /// TOP, 0..=7.
    pub top: u16,
    /// One bit for each physical register: 1 = valid (the abridged tag word of FXSAVE).
    pub tag: u16,
    /// Opcode of the last non-control instruction (11 bits).
    pub fop: u16,
    /// Address of the last non-control instruction.
    pub fip: u64,
    /// Address of its memory operand.
    pub fdp: u64,
}

impl X87State {
    /// The state after FNINIT.
    pub const INIT: Self =
        Self { st: [0; 8], cw: 0x37f, sw: 0, top: 0, tag: 0, fop: 0, fip: 0, fdp: 0 };
}

/// What an instruction may change that raises #XM.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)] // as in `CpuState`
pub struct FloatUndo {
    pub gpr: [u64; 16],
    pub xmm: [u128; 16],
    pub st: [u128; 8],
    /// `nzcv`, `pf` and `af`.
    pub flags: [u64; 3],
}

/// MXCSR at process start: all exceptions masked, round to nearest.
pub const MXCSR_DEFAULT: u32 = 0x1f80;

/// Entry of the indirect-branch table: guest address and host address of its translation.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug)]
pub struct BranchTableEntry {
    /// Guest address. That of an empty entry is none that could be looked up there.
    pub guest: u64,
    /// Host address to branch to.
    pub host: u64,
}

impl BranchTableEntry {
    /// None for a guest address.
    pub const fn empty(guest: u64) -> Self {
        BranchTableEntry { guest: !guest, host: 0 }
    }
}

/// log2 of the number of entries of the indirect-branch table, which are pairs: where jumps go, and where calls go. The
/// index is the low bits of the guest address, of which functions, aligned to 16 bytes, leave four unused. Pages of the
/// table are there once they are written.
pub const BRANCH_TABLE_BITS: u32 = 16;
/// log2 of the size of such a pair.
pub const BRANCH_TABLE_SHIFT: u32 = 5;
/// Bytes of the table.
pub const BRANCH_TABLE_SIZE: usize = 1 << (BRANCH_TABLE_BITS + BRANCH_TABLE_SHIFT);

/// Why translated code returned to Rust; written by the exit trampolines to [`CpuState::exit`].
#[repr(u64)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitCode {
    /// A direct branch whose target is not linked yet; `exit_arg` is the exit record's host address.
    Direct = 0,
    /// An indirect branch or a return that missed; `rip` is the guest target.
    Indirect = 1,
    /// `syscall`; `rip` is the address behind the instruction.
    Syscall = 2,
    /// An exception raised by an instruction; `exit_arg` is of [`exception`], `rip` the instruction
    /// (for #BP and #OF the address behind it).
    Exception = 3,
    /// A fault on a memory access; `exit_arg` is not used, the fault is in [`CpuState::fault`].
    MemoryFault = 4,
    /// The thread was asked to come out, [`CpuState::interrupt`] is set.
    Interrupt = 5,
    /// An entry of a region that is no more; `exit_arg` is the host address behind its first instruction.
    Dead = 6,
}

/// An exception's vector and error code as [`CpuState::exit_arg`] has them.
pub const fn exception(vector: u8, error_code: u16) -> u64 {
    vector as u64 | (error_code as u64) << 16
}

/// A memory fault that a host signal reported.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fault {
    /// Host signal number: SIGSEGV or SIGBUS (same numbers on both architectures).
    pub signo: u32,
    /// `si_code`.
    pub code: i32,
    /// Faulting address.
    pub addr: u64,
    /// Nonzero for a write.
    pub write: u32,
    /// Nonzero for an access in the stack segment.
    pub stack: u32,
}

/// Table of run-time helper addresses that translated code calls through the state register.
pub const MAX_HELPERS: usize = 256;

/// Everything translated code needs, at fixed offsets from the state register.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct CpuState {
    /// rax rcx rdx rbx rsp rbp rsi rdi r8..r15.
    pub gpr: [u64; 16],
    /// Guest instruction pointer.
    pub rip: u64,
    /// N Z C V in bits 31..28 as in PSTATE: SF ZF CF OF. C is CF itself ("direct" polarity).
    pub nzcv: u64,
    /// PF is the even parity of the low byte.
    pub pf: u64,
    /// AF is bit 4 of `pf ^ af`.
    pub af: u64,
    /// 0 or 1.
    pub df: u64,
    /// TF, AC, ID and the fixed and IF bits as the guest last set them.
    pub other_flags: u64,
    /// FS segment base.
    pub fs_base: u64,
    /// GS segment base.
    pub gs_base: u64,
    /// Low 128 bits of the vector registers.
    pub xmm: [u128; 16],
    /// High 128 bits of the vector registers.
    pub ymm_high: [u128; 16],
    /// The x87 unit.
    pub x87: X87State,
    /// SSE control and status; the sticky exception bits may also live in FPSR while in translated code.
    pub mxcsr: u32,
    /// Host FPCR while in translated code; follows `mxcsr`'s rounding and flush bits. 0 outside.
    pub fpcr: u32,
    /// Host FPSR of translated code: sticky exception flags not yet in `mxcsr`.
    pub fpsr: u32,
    /// Set (to nonzero) from a signal handler or another thread: come out to Rust soon.
    pub interrupt: u32,
    /// Host address of the translation being entered; 0 while the thread is outside translated code.
    pub entering: u64,
    /// Where a run-time helper returns to in translated code; 0 when none runs.
    pub helper_return: u64,
    /// Nonzero while guest code is interpreted, see [`crate::interpret`].
    pub interpreting: u64,
    /// Executable mappings, from first byte to behind the last, that the interpreter has met; and when, by
    /// [`crate::engine::GuestMemory::changes`].
    pub known_code: [[u64; 2]; 4],
    /// See `known_code`.
    pub known_code_at: u64,
    /// Regions whose branches were set to stop for an interrupt of this thread.
    pub armed: [u64; 4],
    /// [`ExitCode`] of the last exit.
    pub exit: u64,
    /// Argument of the last exit.
    pub exit_arg: u64,
    /// The fault of an [`ExitCode::MemoryFault`].
    pub fault: Fault,
    /// Stack pointer of the Rust side while the thread is in translated code.
    pub host_sp: u64,
    /// Return-address shadow stack: current pointer (grows down).
    pub shadow_sp: u64,
    /// Highest address of the shadow stack, where it starts over.
    pub shadow_top: u64,
    /// The shadow stack's block with its guards: address and length.
    pub shadow_block: [u64; 2],
    /// The thread's indirect-branch table, `1 << BRANCH_TABLE_BITS` entries, aligned to its size.
    pub branch_table: u64,
    /// Host addresses of the run-time helpers, by helper number.
    pub helpers: [u64; MAX_HELPERS],
    /// Scratch space for lowering (spills inside one instruction, helper arguments).
    pub scratch: [u64; 32],
    /// Where in translated code an [`ExitCode::MemoryFault`] or [`ExitCode::Exception`] came up.
    pub fault_pc: u64,
    /// See [`crate::lower::traps`].
    pub float_undo: FloatUndo,
    /// The selectors in DS, ES, FS and GS; CS and SS always hold the same.
    pub selectors: [u16; 4],
    /// Nonzero when RDTSC and RDTSCP raise #GP, as with CR4.TSD (Intel SDM vol. 2, RDTSC).
    pub no_tsc: u64,
    /// For the embedder: a pointer to its own thread record.
    pub user: u64,
}

impl CpuState {
    /// A processor after reset as Linux hands it to a new program: all registers zero.
    pub fn new() -> Box<Self> {
        // SAFETY: every field is an integer or an array of integers; all-zero is valid.
        let mut s: Box<Self> = unsafe { Box::new(std::mem::zeroed()) };
        s.x87 = X87State::INIT;
        s.mxcsr = MXCSR_DEFAULT;
        s.other_flags = rflags::FIXED | rflags::IF;
        s
    }

    /// Sets the FS base as a system call does, which loads a null selector before.
    pub fn set_fs_base(&mut self, base: u64) {
        self.selectors[DataSegment::Fs as usize] = 0;
        self.fs_base = base;
    }

    /// Sets the GS base as a system call does.
    pub fn set_gs_base(&mut self, base: u64) {
        self.selectors[DataSegment::Gs as usize] = 0;
        self.gs_base = base;
    }

    /// The error code of the exception that translated code was left for.
    pub fn error_code(&self) -> u16 {
        (self.exit_arg >> 16) as u16
    }

    /// RFLAGS as PUSHFQ would store it.
    pub fn rflags(&self) -> u64 {
        let bit = |cond: bool, flag: u64| if cond { flag } else { 0 };
        self.other_flags
            | rflags::FIXED
            | bit(self.nzcv >> 31 & 1 != 0, rflags::SF)
            | bit(self.nzcv >> 30 & 1 != 0, rflags::ZF)
            | bit(self.nzcv >> 29 & 1 != 0, rflags::CF)
            | bit(self.nzcv >> 28 & 1 != 0, rflags::OF)
            | bit((self.pf as u8).count_ones().is_multiple_of(2), rflags::PF)
            | bit((self.pf ^ self.af) >> 4 & 1 != 0, rflags::AF)
            | bit(self.df != 0, rflags::DF)
    }

    /// Sets the flags as POPFQ would in user mode (IF and IOPL stay).
    pub fn set_rflags(&mut self, v: u64) {
        use rflags::*;
        let bit = |flag: u64, to: u32| u64::from(v & flag != 0) << to;
        self.nzcv = bit(SF, 31) | bit(ZF, 30) | bit(CF, 29) | bit(OF, 28);
        self.pf = u64::from(v & PF == 0);
        self.af = self.pf ^ bit(AF, 4);
        self.df = u64::from(v & DF != 0);
        self.other_flags = (v & (TF | NT | AC | ID)) | FIXED | IF;
    }
}

/// Byte offset of a [`CpuState`] field, for addressing from translated code.
pub mod offset {
    use super::*;
    #[allow(missing_docs)]
    pub const GPR: u32 = offset_of!(CpuState, gpr) as u32;
    macro_rules! offsets { ($($name:ident = $field:ident),* $(,)?) => { $(
        #[doc = concat!("Offset of `", stringify!($field), "`.")]
        pub const $name: u32 = offset_of!(CpuState, $field) as u32;
    )* } }
    offsets! {
        RIP = rip, NZCV = nzcv, PF = pf, AF = af, DF = df, OTHER_FLAGS = other_flags,
        FS_BASE = fs_base, GS_BASE = gs_base, XMM = xmm, YMM_HIGH = ymm_high, X87 = x87,
        MXCSR = mxcsr, INTERRUPT = interrupt, EXIT = exit, EXIT_ARG = exit_arg,
        HELPER_RETURN = helper_return,
        FPCR = fpcr, FPSR = fpsr, HOST_SP = host_sp, SHADOW_SP = shadow_sp, SHADOW_TOP = shadow_top,
        FAULT_PC = fault_pc, BRANCH_TABLE = branch_table, HELPERS = helpers,
        SCRATCH = scratch, SELECTORS = selectors, NO_TSC = no_tsc,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rflags_round_trip(v: u64) {
            let user = rflags::STATUS | rflags::DF | rflags::TF | rflags::NT | rflags::AC | rflags::ID;
            let mut s = CpuState::new();
            s.set_rflags(v);
            prop_assert_eq!(s.rflags(), (v & user) | rflags::FIXED | rflags::IF);
        }
    }
}
