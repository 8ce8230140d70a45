//! Runs a test program on the processor itself (x86_64 only).
//!
//! Entry and exit go through the kernel: an INT3 raises SIGTRAP, whose handler puts the program's
//! registers into the signal frame, and sigreturn loads them all at once; whatever ends the program
//! raises a signal too, whose frame holds all registers. Only DS, ES, FS and GS are not part of a
//! frame; their selectors are exchanged with MOV, the bases with the FSGSBASE instructions, and the handler touches
//! no thread-local variable while the program's FS base is loaded.

use crate::state::{
    CODE, CODE_SIZE, COMPARED_FLAGS, DATA, DATA_SIZE, Outcome, Program, State, Stop, X87,
    changed_memory, vector,
};
use anyhow::{Result, ensure};
use std::{arch::asm, cell::UnsafeCell, ptr};

/// Room for the kernel's XSAVE image of all components of today's processors but AMX tiles.
const XSAVE_SIZE: usize = 4096;
/// Offset of XSTATE_BV in an XSAVE image, and of the high halves of the vector registers (SDM vol. 1, 13.4).
const XSTATE_BV: usize = 512;
const YMM_HIGH: usize = 576;

#[derive(Clone, Copy, PartialEq)]
enum Phase {
    Idle,
    Entering,
    Running,
}

/// What `run` and the signal handler exchange.
struct Exchange {
    phase: Phase,
    state: State,
    stop: Stop,
    host_gregs: [i64; 23],
    host_xsave: [u8; XSAVE_SIZE],
    host_fs: u64,
    host_gs: u64,
}

struct Global(UnsafeCell<Option<Box<Exchange>>>);
// SAFETY: `Native` is made once and used by one thread; the handler runs on that thread only.
unsafe impl Sync for Global {}
static EXCHANGE: Global = Global(UnsafeCell::new(None));
/// A copy of the host's FS base where the handler finds it without any call.
static mut HOST_FS: u64 = 0;

/// The processor as an executor of test programs.
pub struct Native(());

impl crate::executor::Executor for Native {
    fn run(&mut self, program: &Program) -> Result<Outcome> {
        let before = program.memory();
        let at = program.state.rip;
        ensure!(
            (CODE..CODE + (CODE_SIZE - program.code.len()) as u64).contains(&at),
            "code outside its area"
        );
        // SAFETY: `new` mapped both areas; the code lies in its area.
        unsafe {
            ptr::copy_nonoverlapping(before.as_ptr(), DATA as *mut u8, DATA_SIZE);
            ptr::copy_nonoverlapping(program.code.as_ptr(), at as *mut u8, program.code.len());
        }
        // SAFETY: no signal of ours is under way, so nobody else looks at the exchange.
        let exchange = unsafe { (*EXCHANGE.0.get()).as_mut() }.expect("made by new");
        exchange.state = program.state.clone();
        exchange.phase = Phase::Entering;
        // SAFETY: the handler restores every register before it returns behind the INT3.
        unsafe { asm!("int3") };
        // SAFETY: as above; the areas are still mapped.
        let exchange = unsafe { (*EXCHANGE.0.get()).as_mut() }.expect("made by new");
        // SAFETY: the data area is mapped and nobody writes it now.
        let after = unsafe { std::slice::from_raw_parts(DATA as *const u8, DATA_SIZE) };
        let outcome = Outcome {
            state: exchange.state.clone(),
            memory: changed_memory(&before, after),
            stop: exchange.stop,
        };
        // SAFETY: the code area again.
        unsafe { ptr::write_bytes(at as *mut u8, 0xcc, program.code.len()) };
        Ok(outcome)
    }
}

impl Native {
    /// Maps the test areas and takes the signals. To be called once in a process.
    pub fn new() -> Result<Self> {
        // SAFETY: reads the auxiliary vector.
        let hwcap2 = unsafe { libc::getauxval(libc::AT_HWCAP2) };
        ensure!(hwcap2 & 2 != 0, "the kernel does not offer the FSGSBASE instructions");
        map(DATA, DATA_SIZE, libc::PROT_READ | libc::PROT_WRITE)?;
        map(CODE, CODE_SIZE, libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC)?;
        // SAFETY: the area was just mapped.
        unsafe { ptr::write_bytes(CODE as *mut u8, 0xcc, CODE_SIZE) };
        let exchange = Exchange {
            phase: Phase::Idle,
            state: State::random(&mut crate::rng::Rng::new(0), crate::rng::Lane::Int),
            stop: Stop { vector: 0, address: 0 },
            host_gregs: [0; 23],
            host_xsave: [0; XSAVE_SIZE],
            host_fs: 0,
            host_gs: 0,
        };
        // SAFETY: no handler is installed yet.
        unsafe { *EXCHANGE.0.get() = Some(Box::new(exchange)) };
        crate::executor::on_signals(
            &[libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP],
            on_signal,
        )?;
        Ok(Self(()))
    }
}

fn map(address: u64, size: usize, protection: i32) -> Result<()> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
    // SAFETY: MAP_FIXED_NOREPLACE does not touch existing mappings.
    let p = unsafe { libc::mmap(address as *mut libc::c_void, size, protection, flags, -1, 0) };
    ensure!(p as u64 == address, "cannot map {address:#x}: {}", std::io::Error::last_os_error());
    Ok(())
}

extern "C" fn on_signal(signal: i32, _info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let (fs, gs): (u64, u64);
    let selectors;
    // SAFETY: FSGSBASE was checked for. With HOST_FS zero (idle or entering) all stays.
    unsafe {
        asm!("rdfsbase {}", "rdgsbase {}", out(reg) fs, out(reg) gs);
        selectors = read_selectors();
        if HOST_FS != 0 {
            write_selectors([0; 4]);
            asm!("wrfsbase {}", in(reg) HOST_FS);
        }
    }
    // SAFETY: the kernel passes a ucontext_t; `run` holds no reference while the INT3 executes.
    let context = unsafe { &mut *context.cast::<libc::ucontext_t>() };
    // SAFETY: as above.
    let Some(exchange) = (unsafe { (*EXCHANGE.0.get()).as_mut() }) else {
        return;
    };
    // SAFETY: the kernel put an XSAVE image of at least XSAVE_SIZE's used part behind fpregs.
    let xsave = unsafe { xsave_image(context) };
    match exchange.phase {
        Phase::Entering => {
            exchange.host_gregs = context.uc_mcontext.gregs;
            exchange.host_xsave[..xsave.len()].copy_from_slice(xsave);
            (exchange.host_fs, exchange.host_gs) = (fs, gs);
            exchange.phase = Phase::Running;
            load(&exchange.state, &mut context.uc_mcontext.gregs, xsave);
            let (fs, gs) = (exchange.state.fs_base, exchange.state.gs_base);
            // SAFETY: from here to sigreturn nothing uses thread-local variables.
            unsafe {
                HOST_FS = exchange.host_fs;
                write_selectors(exchange.state.selectors);
                asm!("wrfsbase {}", "wrgsbase {}", in(reg) fs, in(reg) gs);
            }
        }
        Phase::Running => {
            save(&mut exchange.state, &context.uc_mcontext.gregs, xsave);
            (exchange.state.fs_base, exchange.state.gs_base) = (fs, gs);
            exchange.state.selectors = selectors;
            exchange.stop = stop(&context.uc_mcontext.gregs);
            exchange.phase = Phase::Idle;
            context.uc_mcontext.gregs = exchange.host_gregs;
            xsave.copy_from_slice(&exchange.host_xsave[..xsave.len()]);
            // SAFETY: gives the host its GS base back; FS was restored above.
            unsafe {
                HOST_FS = 0;
                asm!("wrgsbase {}", in(reg) exchange.host_gs);
            }
        }
        // A fault of this program itself: let it happen again and end the process.
        // SAFETY: signal(2) is async-signal-safe.
        Phase::Idle => unsafe {
            libc::signal(signal, libc::SIG_DFL);
        },
    }
}

/// The selectors in DS, ES, FS and GS.
#[inline(always)]
fn read_selectors() -> [u16; 4] {
    let (ds, es, fs, gs): (u16, u16, u16, u16);
    // SAFETY: reads registers.
    unsafe {
        asm!("mov {:x}, ds", "mov {:x}, es", "mov {:x}, fs", "mov {:x}, gs",
            out(reg) ds, out(reg) es, out(reg) fs, out(reg) gs);
    }
    [ds, es, fs, gs]
}

/// Loads DS, ES, FS and GS, which clears the bases of the latter two.
///
/// # Safety
/// The selectors can be loaded, and nothing uses thread-local variables before FS has its base again.
#[inline(always)]
unsafe fn write_selectors([ds, es, fs, gs]: [u16; 4]) {
    // SAFETY: the caller's.
    unsafe {
        asm!("mov ds, {:x}", "mov es, {:x}", "mov fs, {:x}", "mov gs, {:x}",
            in(reg) ds, in(reg) es, in(reg) fs, in(reg) gs);
    }
}

/// The XSAVE image of a signal frame; its size is in `sw_reserved` (offset 464 + 16).
unsafe fn xsave_image(context: &mut libc::ucontext_t) -> &'static mut [u8] {
    let base = context.uc_mcontext.fpregs.cast::<u8>();
    // SAFETY: fpregs points at the image, whose legacy part is 512 bytes.
    unsafe {
        let size = base.add(464 + 16).cast::<u32>().read_unaligned() as usize;
        std::slice::from_raw_parts_mut(base, size.clamp(512, XSAVE_SIZE))
    }
}

/// Positions of rax rcx rdx rbx rsp rbp rsi rdi r8..r15 in `gregs`.
const GREGS: [i32; 16] = [
    libc::REG_RAX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RBX,
    libc::REG_RSP,
    libc::REG_RBP,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];

fn put<const N: usize>(image: &mut [u8], at: usize, bytes: [u8; N]) {
    image[at..at + N].copy_from_slice(&bytes);
}

fn get<const N: usize>(image: &[u8], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&image[at..at + N]);
    bytes
}

fn load(state: &State, gregs: &mut [i64; 23], xsave: &mut [u8]) {
    for (value, position) in state.gpr.iter().zip(GREGS) {
        gregs[position as usize] = *value as i64;
    }
    gregs[libc::REG_RIP as usize] = state.rip as i64;
    gregs[libc::REG_EFL as usize] = i64::from(state.rflags | 0x202);
    put(xsave, 0, state.x87.cw.to_le_bytes());
    put(xsave, 2, state.x87.sw.to_le_bytes());
    put(xsave, 4, [state.x87.tag, 0]);
    put(xsave, 24, state.mxcsr.to_le_bytes());
    for i in 0..8 {
        let physical = (state.x87.top() + i) & 7;
        put(xsave, 32 + 16 * i, (state.x87.st[physical] & (u128::MAX >> 48)).to_le_bytes());
    }
    for (i, value) in state.xmm.iter().enumerate() {
        put(xsave, 160 + 16 * i, value.to_le_bytes());
    }
    if xsave.len() >= YMM_HIGH + 256 {
        let components = u64::from_le_bytes(get(xsave, XSTATE_BV)) | 7;
        put(xsave, XSTATE_BV, components.to_le_bytes());
        for (i, value) in state.ymm_high.iter().enumerate() {
            put(xsave, YMM_HIGH + 16 * i, value.to_le_bytes());
        }
    }
}

fn save(state: &mut State, gregs: &[i64; 23], xsave: &[u8]) {
    for (value, position) in state.gpr.iter_mut().zip(GREGS) {
        *value = gregs[position as usize] as u64;
    }
    state.rip = gregs[libc::REG_RIP as usize] as u64;
    state.rflags = gregs[libc::REG_EFL as usize] as u32 & COMPARED_FLAGS;
    let (cw, sw) = (u16::from_le_bytes(get(xsave, 0)), u16::from_le_bytes(get(xsave, 2)));
    let mut x87 = X87 { st: [0; 8], cw, sw, tag: xsave[4] };
    for i in 0..8 {
        let physical = (x87.top() + i) & 7;
        x87.st[physical] = u128::from_le_bytes(get(xsave, 32 + 16 * i)) & (u128::MAX >> 48);
    }
    state.x87 = x87;
    state.mxcsr = u32::from_le_bytes(get(xsave, 24));
    for (i, value) in state.xmm.iter_mut().enumerate() {
        *value = u128::from_le_bytes(get(xsave, 160 + 16 * i));
    }
    if xsave.len() >= YMM_HIGH + 256 {
        for (i, value) in state.ymm_high.iter_mut().enumerate() {
            *value = u128::from_le_bytes(get(xsave, YMM_HIGH + 16 * i));
        }
    }
}

fn stop(gregs: &[i64; 23]) -> Stop {
    let vector = gregs[libc::REG_TRAPNO as usize] as u8;
    let address = match vector {
        vector::PF => gregs[libc::REG_CR2 as usize] as u64,
        vector::GP => gregs[libc::REG_ERR as usize] as u64,
        _ => 0,
    };
    Stop { vector, address }
}
