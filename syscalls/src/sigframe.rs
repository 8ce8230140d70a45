//! The x86_64 signal frame: `struct rt_sigframe` and the XSAVE area below which it lies
//! (arch/x86/include/asm/sigframe.h, arch/x86/include/uapi/asm/sigcontext.h).

use translator::state::{CpuState, reg, rflags};

use crate::host::Errno;
use crate::interrupt::SigInfo;

/// `uc_flags`: the frame holds an XSAVE area; it holds SS; SS is restored from it.
const UC_FP_XSTATE: u64 = 1;
const UC_SIGCONTEXT_SS: u64 = 2;
const UC_STRICT_RESTORE_SS: u64 = 4;

/// Marks of the XSAVE area in `sw_reserved` and behind the area.
const FP_XSTATE_MAGIC1: u32 = 0x4650_5853;
const FP_XSTATE_MAGIC2: u32 = 0x4650_5845;
/// XCR0 bits: x87, SSE, AVX.
const XFEATURES: u64 = 7;
/// Bits of MXCSR that exist.
const MXCSR_MASK: u32 = 0xffff;

/// Bytes below rsp that belong to the interrupted function (System V ABI, 3.2.2).
const RED_ZONE: u64 = 128;
/// Selectors of a 64-bit process.
const USER_CS: u16 = 0x33;
const USER_SS: u16 = 0x2b;

/// `stack_t`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Stack {
    pub sp: u64,
    pub flags: i32,
    pub pad: u32,
    pub size: u64,
}

/// `struct sigcontext_64`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SigContext {
    r8_to_r15: [u64; 8],
    di: u64,
    si: u64,
    bp: u64,
    bx: u64,
    dx: u64,
    ax: u64,
    cx: u64,
    sp: u64,
    ip: u64,
    flags: u64,
    cs: u16,
    gs: u16,
    fs: u16,
    ss: u16,
    err: u64,
    trapno: u64,
    oldmask: u64,
    cr2: u64,
    fpstate: u64,
    reserved: [u64; 8],
}

/// `struct rt_sigframe`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    pretcode: u64,
    uc_flags: u64,
    uc_link: u64,
    uc_stack: Stack,
    uc_mcontext: SigContext,
    uc_sigmask: u64,
    info: SigInfo,
}

/// The XSAVE area in its standard form with the mark behind it: legacy region, header, YMM_Hi128
/// (Intel SDM vol. 1, 13.4).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XState {
    cw: u16,
    sw: u16,
    tag: u16,
    fop: u16,
    fip: u64,
    fdp: u64,
    mxcsr: u32,
    mxcsr_mask: u32,
    /// ST(0) to ST(7), each in 16 bytes.
    st: [[u64; 2]; 8],
    xmm: [[u64; 2]; 16],
    unused: [u64; 6],
    magic1: u32,
    extended_size: u32,
    xfeatures: u64,
    xstate_size: u32,
    pad: [u32; 7],
    xstate_bv: u64,
    header: [u64; 7],
    ymm_high: [[u64; 2]; 16],
    magic2: u32,
    /// The area ends at `magic2`; the rest makes the struct free of padding.
    end: u32,
}

/// Bytes of the area up to the closing mark, and with it.
const XSTATE_SIZE: u32 = 832;
const EXTENDED_SIZE: u32 = XSTATE_SIZE + 4;
/// Bytes of the legacy region (FXSAVE).
const LEGACY_SIZE: usize = 512;

const _: () = {
    use std::mem::offset_of;
    assert!(size_of::<SigContext>() == 256);
    assert!(size_of::<Frame>() == 440);
    assert!(offset_of!(Frame, uc_mcontext) == 8 + 40);
    assert!(offset_of!(Frame, uc_sigmask) == 8 + 296);
    assert!(offset_of!(XState, xmm) == 160);
    assert!(offset_of!(XState, magic1) == 464);
    assert!(offset_of!(XState, xstate_bv) == LEGACY_SIZE);
    assert!(offset_of!(XState, ymm_high) == 576);
    assert!(offset_of!(XState, magic2) == XSTATE_SIZE as usize);
};

/// What AT_MINSIGSTKSZ says: the most a signal frame takes, with its alignment.
pub const MIN_SIGSTKSZ: u64 =
    (size_of::<Frame>() + size_of::<XState>() + 64 + 16).next_multiple_of(8) as u64;

// SAFETY: integers without padding, as the sizes asserted above show.
unsafe impl crate::guest::Pod for Frame {}
// SAFETY: as above.
unsafe impl crate::guest::Pod for XState {}
// SAFETY: as above.
unsafe impl crate::guest::Pod for Stack {}
// SAFETY: bytes.
unsafe impl crate::guest::Pod for SigInfo {}

/// The last trap of a thread, as its signal frames show it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trap {
    /// Vector.
    pub number: u64,
    /// Error code.
    pub error: u64,
    /// Address of the last page fault.
    pub cr2: u64,
}

/// What a frame says beside the processor's state.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Signal.
    pub info: SigInfo,
    /// Handler.
    pub handler: u64,
    /// Where the handler returns to (`sa_restorer`).
    pub restorer: u64,
    /// Mask to go back to.
    pub mask: u64,
    /// The alternate stack's state.
    pub stack: Stack,
    /// Whether the frame goes on the alternate stack from its top on.
    pub switch_stack: bool,
    /// The last trap.
    pub trap: Trap,
}

fn halves(v: u128) -> [u64; 2] {
    [v as u64, (v >> 64) as u64]
}

fn whole([low, high]: [u64; 2]) -> u128 {
    u128::from(low) | u128::from(high) << 64
}

impl XState {
    /// The floating-point and vector state of a processor.
    pub fn capture(cpu: &CpuState) -> Self {
        let x87 = &cpu.x87;
        Self {
            cw: x87.cw,
            sw: x87.sw & !0x3800 | (x87.top & 7) << 11,
            tag: x87.tag & 0xff,
            fop: x87.fop,
            fip: x87.fip,
            fdp: x87.fdp,
            mxcsr: cpu.mxcsr,
            mxcsr_mask: MXCSR_MASK,
            st: std::array::from_fn(|i| halves(x87.st[(usize::from(x87.top) + i) & 7])),
            xmm: cpu.xmm.map(halves),
            unused: [0; 6],
            magic1: FP_XSTATE_MAGIC1,
            extended_size: EXTENDED_SIZE,
            xfeatures: XFEATURES,
            xstate_size: XSTATE_SIZE,
            pad: [0; 7],
            xstate_bv: XFEATURES,
            header: [0; 7],
            ymm_high: cpu.ymm_high.map(halves),
            magic2: FP_XSTATE_MAGIC2,
            end: 0,
        }
    }

    /// Whether the part behind the legacy region is valid (check_xstate_in_sigframe).
    pub fn is_extended(&self) -> bool {
        self.magic1 == FP_XSTATE_MAGIC1
            && self.extended_size == EXTENDED_SIZE
            && self.xstate_size == XSTATE_SIZE
            && self.magic2 == FP_XSTATE_MAGIC2
    }

    /// Puts the state back. Without the extended part, what only it holds is as after a reset.
    pub fn restore(&self, cpu: &mut CpuState) {
        let extended = self.is_extended();
        let present = if extended { self.xstate_bv & self.xfeatures } else { 3 };
        let x87 = &mut cpu.x87;
        if present & 1 != 0 {
            x87.cw = self.cw;
            x87.top = self.sw >> 11 & 7;
            x87.sw = self.sw & !0x3800;
            x87.tag = self.tag & 0xff;
            x87.fop = self.fop & 0x7ff;
            x87.fip = self.fip;
            x87.fdp = self.fdp;
            for (i, &st) in self.st.iter().enumerate() {
                x87.st[(usize::from(x87.top) + i) & 7] = whole(st) & ((1 << 80) - 1);
            }
        } else {
            *x87 = translator::state::X87State::INIT;
        }
        if present & 6 != 0 {
            cpu.mxcsr = self.mxcsr & MXCSR_MASK;
        }
        cpu.xmm = if present & 2 != 0 { self.xmm.map(whole) } else { [0; 16] };
        cpu.ymm_high = if present & 4 != 0 { self.ymm_high.map(whole) } else { [0; 16] };
    }

    /// The area without a processor: what a program gets that names no floating-point state.
    pub fn reset() -> Self {
        Self::capture(&CpuState::new())
    }
}

/// The flags that a frame gives back (FIX_EFLAGS in the kernel's arch/x86/kernel/signal.c); RF has no meaning here.
const RESTORED_FLAGS: u64 = rflags::STATUS | rflags::DF | rflags::TF | rflags::AC;

impl Frame {
    /// Lays out the frame for a handler; where it and the XSAVE area go.
    pub fn build(cpu: &CpuState, setup: &Setup) -> (u64, Self, u64) {
        let top = if setup.switch_stack {
            setup.stack.sp + setup.stack.size
        } else {
            cpu.gpr[reg::RSP].wrapping_sub(RED_ZONE)
        };
        let xstate = top.wrapping_sub(u64::from(EXTENDED_SIZE)) & !63;
        // As if the handler had been called: rsp is 8 below a multiple of 16.
        let frame = (xstate.wrapping_sub(size_of::<Self>() as u64) & !15).wrapping_sub(8);
        let g = &cpu.gpr;
        let context = SigContext {
            r8_to_r15: g[8..].try_into().expect("eight registers"),
            di: g[reg::RDI],
            si: g[reg::RSI],
            bp: g[reg::RBP],
            bx: g[reg::RBX],
            dx: g[reg::RDX],
            ax: g[reg::RAX],
            cx: g[reg::RCX],
            sp: g[reg::RSP],
            ip: cpu.rip,
            flags: cpu.rflags(),
            cs: USER_CS,
            gs: 0,
            fs: 0,
            ss: USER_SS,
            err: setup.trap.error,
            trapno: setup.trap.number,
            oldmask: setup.mask,
            cr2: setup.trap.cr2,
            fpstate: xstate,
            reserved: [0; 8],
        };
        let built = Self {
            pretcode: setup.restorer,
            uc_flags: UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS,
            uc_link: 0,
            uc_stack: setup.stack,
            uc_mcontext: context,
            uc_sigmask: setup.mask,
            info: setup.info,
        };
        (frame, built, xstate)
    }

    /// Puts the integer registers back.
    pub fn restore(&self, cpu: &mut CpuState) {
        let c = &self.uc_mcontext;
        cpu.gpr[8..].copy_from_slice(&c.r8_to_r15);
        for (index, value) in [
            (reg::RDI, c.di),
            (reg::RSI, c.si),
            (reg::RBP, c.bp),
            (reg::RBX, c.bx),
            (reg::RDX, c.dx),
            (reg::RAX, c.ax),
            (reg::RCX, c.cx),
            (reg::RSP, c.sp),
        ] {
            cpu.gpr[index] = value;
        }
        cpu.rip = c.ip;
        cpu.set_rflags(cpu.rflags() & !RESTORED_FLAGS | c.flags & RESTORED_FLAGS);
    }

    /// The mask to go back to.
    pub fn mask(&self) -> u64 {
        self.uc_sigmask
    }

    /// The alternate stack to go back to.
    pub fn stack(&self) -> Stack {
        self.uc_stack
    }

    /// Reads the floating-point state that a frame names.
    pub fn xstate(&self) -> Result<XState, Errno> {
        let at = self.uc_mcontext.fpstate;
        if at == 0 {
            return Ok(XState::reset());
        }
        // SAFETY: integers only.
        let mut state: XState = unsafe { std::mem::zeroed() };
        // SAFETY: a struct of integers seen as its bytes.
        let bytes = unsafe {
            std::slice::from_raw_parts_mut((&raw mut state).cast::<u8>(), EXTENDED_SIZE as usize)
        };
        crate::guest::read_bytes(at, &mut bytes[..LEGACY_SIZE])?;
        if state.magic1 == FP_XSTATE_MAGIC1 {
            // SAFETY: as above.
            let bytes = unsafe {
                std::slice::from_raw_parts_mut(
                    (&raw mut state).cast::<u8>(),
                    EXTENDED_SIZE as usize,
                )
            };
            crate::guest::read_bytes(at + LEGACY_SIZE as u64, &mut bytes[LEGACY_SIZE..])?;
        }
        Ok(state)
    }

    /// Enters the handler: the registers as the kernel leaves them.
    pub fn enter(cpu: &mut CpuState, setup: &Setup, frame: u64) {
        let context = frame + std::mem::offset_of!(Self, uc_flags) as u64;
        let info = frame + std::mem::offset_of!(Self, info) as u64;
        cpu.gpr[reg::RDI] = setup.info.signo() as u64;
        cpu.gpr[reg::RSI] = info;
        cpu.gpr[reg::RDX] = context;
        cpu.gpr[reg::RAX] = 0;
        cpu.gpr[reg::RSP] = frame;
        cpu.rip = setup.handler;
        cpu.set_rflags(cpu.rflags() & !(rflags::DF | rflags::TF));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn some_cpu(seed: u64) -> Box<CpuState> {
        let mut cpu = CpuState::new();
        let mut next = seed | 1;
        let mut random = || {
            next = next.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            next ^ next >> 29
        };
        cpu.gpr = std::array::from_fn(|_| random());
        cpu.rip = random() >> 17;
        cpu.set_rflags(random());
        cpu.xmm = std::array::from_fn(|_| u128::from(random()) << 64 | u128::from(random()));
        cpu.ymm_high = std::array::from_fn(|_| u128::from(random()) << 64 | u128::from(random()));
        cpu.x87.st =
            std::array::from_fn(|_| u128::from(random() as u16) << 64 | u128::from(random()));
        cpu.x87.top = random() as u16 & 7;
        cpu.x87.sw = random() as u16 & !0x3800;
        cpu.x87.cw = random() as u16;
        cpu.x87.tag = random() as u16 & 0xff;
        cpu.x87.fop = random() as u16 & 0x7ff;
        cpu.x87.fip = random();
        cpu.x87.fdp = random();
        cpu.mxcsr = random() as u32 & 0xffff;
        cpu
    }

    fn setup(switch_stack: bool) -> Setup {
        Setup {
            info: SigInfo::new(10, -6),
            handler: 0x401000,
            restorer: 0x402000,
            mask: 0x55,
            stack: Stack { sp: 0x10000, flags: 0, pad: 0, size: 0x4000 },
            switch_stack,
            trap: Trap { number: 14, error: 6, cr2: 0x1234 },
        }
    }

    proptest! {
        #[test]
        fn the_processor_comes_back(seed: u64, other: u64) {
            let (cpu, mut to) = (some_cpu(seed), some_cpu(other));
            let (_, frame, _) = Frame::build(&cpu, &setup(false));
            let kept = to.rflags() & !RESTORED_FLAGS;
            frame.restore(&mut to);
            XState::capture(&cpu).restore(&mut to);
            prop_assert_eq!(to.gpr, cpu.gpr);
            prop_assert_eq!(to.rip, cpu.rip);
            prop_assert_eq!(to.rflags(), cpu.rflags() & RESTORED_FLAGS | kept);
            prop_assert_eq!(to.xmm, cpu.xmm);
            prop_assert_eq!(to.ymm_high, cpu.ymm_high);
            prop_assert_eq!(to.x87, cpu.x87);
            prop_assert_eq!(to.mxcsr, cpu.mxcsr);
        }

        #[test]
        fn frames_are_placed_as_the_kernel_does(sp in 0x10_0000u64..0x7fff_ffff_f000, switch: bool) {
            let mut cpu = some_cpu(3);
            cpu.gpr[reg::RSP] = sp;
            let (frame, _, xstate) = Frame::build(&cpu, &setup(switch));
            let top = if switch { 0x14000 } else { sp - 128 };
            prop_assert_eq!(xstate % 64, 0);
            prop_assert_eq!(frame % 16, 8);
            prop_assert!(xstate + 836 <= top && frame + 440 <= xstate);
            prop_assert!(top - frame <= MIN_SIGSTKSZ);
        }
    }

    #[test]
    fn a_frame_without_extended_state_resets_the_upper_halves() {
        let cpu = some_cpu(5);
        let mut state = XState::capture(&cpu);
        state.magic1 = 0;
        let mut to = some_cpu(6);
        state.restore(&mut to);
        assert_eq!(to.xmm, cpu.xmm);
        assert_eq!(to.ymm_high, [0; 16]);
    }

    #[test]
    fn enters_the_handler_as_the_kernel_does() {
        let mut cpu = some_cpu(9);
        cpu.df = 1;
        Frame::enter(&mut cpu, &setup(false), 0x7000_0008);
        assert_eq!(cpu.gpr[reg::RDI], 10);
        assert_eq!(cpu.gpr[reg::RSI], 0x7000_0008 + 312);
        assert_eq!(cpu.gpr[reg::RDX], 0x7000_0010);
        assert_eq!((cpu.gpr[reg::RAX], cpu.gpr[reg::RSP], cpu.rip), (0, 0x7000_0008, 0x401000));
        assert_eq!(cpu.df, 0);
    }

    /// The C library's idea of the same structures.
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn agrees_with_the_c_library() {
        use std::mem::offset_of;
        let at = |register: libc::c_int| {
            offset_of!(libc::ucontext_t, uc_mcontext) + 8 * register as usize
        };
        let ours = |field: usize| offset_of!(Frame, uc_mcontext) - 8 + field;
        assert_eq!(at(libc::REG_RIP), ours(offset_of!(SigContext, ip)));
        assert_eq!(at(libc::REG_RSP), ours(offset_of!(SigContext, sp)));
        assert_eq!(at(libc::REG_RDI), ours(offset_of!(SigContext, di)));
        assert_eq!(at(libc::REG_RCX), ours(offset_of!(SigContext, cx)));
        assert_eq!(at(libc::REG_CR2), ours(offset_of!(SigContext, cr2)));
        assert_eq!(at(libc::REG_TRAPNO), ours(offset_of!(SigContext, trapno)));
        assert_eq!(offset_of!(libc::ucontext_t, uc_sigmask), offset_of!(Frame, uc_sigmask) - 8);
    }
}
