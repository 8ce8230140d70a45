//! Runs a test program through the translator (arm64 only).

use crate::{
    executor::{Executor, Host, on_signals},
    state::{
        CODE, CODE_SIZE, COMPARED_FLAGS, DATA, DATA_SIZE, Outcome, Program, State, Stop, X87,
        changed_memory, vector,
    },
};
use anyhow::{Result, bail, ensure};
use loader::host_features::detect;
use std::{
    ptr,
    sync::atomic::{AtomicPtr, Ordering},
};
use translator::{
    engine::{Config, Engine, Exit, GuestMemory, HostContext, HostFeatures, MemoryOrder},
    state::{CpuState, Fault},
};

/// Bytes of address space for translations.
const CACHE_SIZE: usize = 64 << 20;

/// The memory of a test program: only the code area can be executed.
struct TestMemory;

impl GuestMemory for TestMemory {
    fn executable_from(&self, address: u64) -> u64 {
        let end = CODE + CODE_SIZE as u64;
        if (CODE..end).contains(&address) { end - address } else { 0 }
    }

    // The executor itself invalidates after it has written code.
    fn watch(&self, _start: u64, _end: u64) {}
}

/// The features of the processor that are used.
pub fn features(host: Host) -> HostFeatures {
    if host.baseline {
        return HostFeatures::default();
    }
    // SAFETY: reads the auxiliary vector.
    unsafe { detect(libc::getauxval(libc::AT_HWCAP), libc::getauxval(libc::AT_HWCAP2)) }
}

/// The translator as an executor of test programs.
pub struct Translated {
    engine: &'static Engine,
    cpu: &'static mut CpuState,
}

/// What the signal handler works on.
static ENGINE: AtomicPtr<Engine> = AtomicPtr::new(ptr::null_mut());
static CPU: AtomicPtr<CpuState> = AtomicPtr::new(ptr::null_mut());

impl Translated {
    /// Maps the test areas, makes an engine and takes SIGSEGV and SIGBUS. To be called once in a process.
    pub fn new(host: Host) -> Result<Self> {
        map(DATA, DATA_SIZE)?;
        map(CODE, CODE_SIZE)?;
        // SAFETY: the area was just mapped.
        unsafe { ptr::write_bytes(CODE as *mut u8, 0xcc, CODE_SIZE) };
        let config = Config {
            host: features(host),
            order: if host.ordered { MemoryOrder::Ordered } else { MemoryOrder::Plain },
            cache_size: CACHE_SIZE,
            interpret: if host.interpreted { u8::MAX } else { 0 },
            flags_live_at_return: true,
            ..Config::default()
        };
        let engine: &'static Engine =
            Box::leak(Box::new(Engine::new(config, Box::new(TestMemory))?));
        let cpu: &'static mut CpuState = Box::leak(CpuState::new());
        engine.keep_flags_at_faults();
        engine.attach(cpu)?;
        ENGINE.store(ptr::from_ref(engine).cast_mut(), Ordering::Relaxed);
        CPU.store(ptr::from_mut(cpu), Ordering::Relaxed);
        on_signals(&[libc::SIGSEGV, libc::SIGBUS], on_fault)?;
        Ok(Self { engine, cpu })
    }

    fn stop(&mut self) -> Result<Stop> {
        Ok(match self.engine.run(self.cpu) {
            Exit::Exception(vector) => Stop { vector, address: self.cpu.error_code().into() },
            Exit::MemoryFault => {
                let fault = self.cpu.fault;
                match (fault.addr as i64 >> 47, fault.stack) {
                    (0 | -1, _) => Stop { vector: vector::PF, address: fault.addr },
                    // What is not canonical is no page fault (Intel SDM vol. 1, 3.3.7.1).
                    (_, 0) => Stop { vector: vector::GP, address: 0 },
                    _ => Stop { vector: vector::SS, address: 0 },
                }
            }
            Exit::Unimplemented => Stop { vector: vector::UNIMPLEMENTED, address: 0 },
            exit @ (Exit::Syscall | Exit::Interrupted) => bail!("the program ended with {exit:?}"),
        })
    }
}

impl Executor for Translated {
    fn run(&mut self, program: &Program) -> Result<Outcome> {
        let before = program.memory();
        let (at, length) = (program.state.rip, program.code.len());
        ensure!((CODE..CODE + (CODE_SIZE - length) as u64).contains(&at), "code outside its area");
        // SAFETY: `new` mapped both areas; the code lies in its area.
        unsafe {
            ptr::copy_nonoverlapping(before.as_ptr(), DATA as *mut u8, DATA_SIZE);
            ptr::copy_nonoverlapping(program.code.as_ptr(), at as *mut u8, length);
        }
        self.engine.invalidate(CODE, CODE + CODE_SIZE as u64);
        load(&program.state, self.cpu);
        let stop = self.stop()?;
        // SAFETY: the data area is mapped.
        let after = unsafe { std::slice::from_raw_parts(DATA as *const u8, DATA_SIZE) };
        let outcome =
            Outcome { state: save(self.cpu), memory: changed_memory(&before, after), stop };
        // SAFETY: the code area again.
        unsafe { ptr::write_bytes(at as *mut u8, 0xcc, length) };
        Ok(outcome)
    }
}

fn map(address: u64, size: usize) -> Result<()> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
    // SAFETY: MAP_FIXED_NOREPLACE does not touch existing mappings.
    let p = unsafe {
        libc::mmap(
            address as *mut libc::c_void,
            size,
            libc::PROT_READ | libc::PROT_WRITE,
            flags,
            -1,
            0,
        )
    };
    ensure!(p as u64 == address, "cannot map {address:#x}: {}", std::io::Error::last_os_error());
    Ok(())
}

fn load(state: &State, cpu: &mut CpuState) {
    cpu.gpr = state.gpr;
    cpu.rip = state.rip;
    cpu.set_rflags(state.rflags.into());
    cpu.fs_base = state.fs_base;
    cpu.gs_base = state.gs_base;
    cpu.selectors = state.selectors;
    cpu.xmm = state.xmm;
    cpu.ymm_high = state.ymm_high;
    cpu.mxcsr = state.mxcsr;
    cpu.x87.st = state.x87.st;
    cpu.x87.cw = state.x87.cw;
    cpu.x87.sw = state.x87.sw & !TOP;
    cpu.x87.top = state.x87.top() as u16;
    cpu.x87.tag = state.x87.tag.into();
    cpu.interrupt = 0;
}

/// The field of the status word that the translator keeps apart.
const TOP: u16 = 7 << 11;

fn save(cpu: &CpuState) -> State {
    State {
        gpr: cpu.gpr,
        rip: cpu.rip,
        rflags: cpu.rflags() as u32 & COMPARED_FLAGS,
        fs_base: cpu.fs_base,
        gs_base: cpu.gs_base,
        selectors: cpu.selectors,
        xmm: cpu.xmm,
        ymm_high: cpu.ymm_high,
        mxcsr: cpu.mxcsr,
        x87: X87 {
            st: cpu.x87.st.map(|v| v & (u128::MAX >> 48)),
            cw: cpu.x87.cw,
            sw: (cpu.x87.sw & !TOP) | cpu.x87.top << 11,
            tag: cpu.x87.tag as u8,
        },
    }
}

extern "C" fn on_fault(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: `new` stored pointers that live as long as the process; the kernel passes a siginfo and a
    // ucontext. `run` of the engine, which holds the state, is suspended.
    unsafe {
        let (engine, cpu) = (&*ENGINE.load(Ordering::Relaxed), &mut *CPU.load(Ordering::Relaxed));
        let (info, context) = (&*info, &mut *context.cast::<libc::ucontext_t>());
        let Some(vectors) = vector_record(context) else {
            return;
        };
        let mut host = host_context(context, &*vectors);
        let fault = Fault {
            signo: signal as u32,
            code: info.si_code,
            addr: info.si_addr() as u64,
            write: 0,
            stack: 0,
        };
        if engine.handle_fault(cpu, &mut host, fault) {
            write_back(&host, context, &mut *vectors);
        } else {
            libc::signal(signal, libc::SIG_DFL);
        }
    }
}

/// The FP and SIMD record of a signal frame (asm/sigcontext.h).
#[repr(C)]
struct FpsimdContext {
    magic: u32,
    size: u32,
    fpsr: u32,
    fpcr: u32,
    v: [u128; 32],
}

/// Magic number of that record.
const FPSIMD_MAGIC: u32 = 0x4650_8001;

/// Finds the FP and SIMD record in the list of records, which one with magic 0 ends.
fn vector_record(context: &mut libc::ucontext_t) -> Option<*mut FpsimdContext> {
    // The records follow the registers, aligned to 16 bytes.
    const RECORDS: usize = 288;
    let start = ptr::from_mut(&mut context.uc_mcontext).cast::<u8>();
    let mut at = RECORDS;
    while at + 8 <= RECORDS + 4096 {
        // SAFETY: inside the 4096 bytes that the kernel reserves for records.
        let (record, magic, size) = unsafe {
            let header = start.add(at).cast::<u32>();
            (start.add(at), header.read(), header.add(1).read())
        };
        match magic {
            FPSIMD_MAGIC => return Some(record.cast()),
            0 => return None,
            _ => at += size.max(8) as usize,
        }
    }
    None
}

fn host_context(context: &libc::ucontext_t, vectors: &FpsimdContext) -> HostContext {
    let registers = &context.uc_mcontext;
    HostContext {
        x: registers.regs,
        sp: registers.sp,
        pc: registers.pc,
        pstate: registers.pstate,
        v: vectors.v,
        fpsr: vectors.fpsr,
        fpcr: vectors.fpcr,
    }
}

fn write_back(host: &HostContext, context: &mut libc::ucontext_t, vectors: &mut FpsimdContext) {
    let registers = &mut context.uc_mcontext;
    registers.regs = host.x;
    registers.sp = host.sp;
    registers.pc = host.pc;
    registers.pstate = host.pstate;
    vectors.v = host.v;
    vectors.fpsr = host.fpsr;
    vectors.fpcr = host.fpcr;
}
