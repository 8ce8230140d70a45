//! Translated code that runs: elements are indirect branches, calls and so on.

use crate::program::config;
use criterion::{Criterion, Throughput};
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use translator::cache::anonymous;
use translator::engine::{Engine, Exit, GuestMemory, HostContext, PAGE};
use translator::state::CpuState;

/// Everything is executable.
struct Open;

impl GuestMemory for Open {
    fn executable_from(&self, _addr: u64) -> u64 {
        PAGE
    }
    fn watch(&self, _start: u64, _end: u64) {}
}

/// Guest code and a processor.
pub struct Guest {
    /// The translator.
    pub engine: Engine,
    /// The processor.
    pub cpu: Box<CpuState>,
    start: u64,
}

/// How often a loop does what is measured.
const TURNS: u32 = 1000;

impl Guest {
    /// Puts code, which ends in a system call, into memory.
    pub fn new(build: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> Self {
        const SIZE: usize = 64 << 10;
        let mut a = CodeAssembler::new(64).expect("64-bit");
        build(&mut a).expect("encodable");
        a.syscall().expect("encodable");
        let start = anonymous(SIZE, libc::PROT_READ | libc::PROT_WRITE).expect("memory");
        let code = a.assemble(start).expect("encodable");
        assert!(code.len() < SIZE / 2);
        // SAFETY: the memory mapped just now.
        unsafe { std::ptr::copy_nonoverlapping(code.as_ptr(), start as *mut u8, code.len()) };
        let host = Default::default();
        let config = translator::engine::Config { host, ..config() };
        let engine = Engine::new(config, Box::new(Open)).expect("address space");
        let mut cpu = CpuState::new();
        engine.attach(&mut cpu).expect("memory");
        cpu.gpr[4] = start + SIZE as u64;
        Guest { engine, cpu, start }
    }

    /// Runs from the start to the system call.
    pub fn run(&mut self) {
        self.cpu.rip = self.start;
        assert_eq!(self.engine.run(&mut self.cpu), Exit::Syscall);
    }
}

fn time(criterion: &mut Criterion, name: &str, each: u32, mut guest: Guest) {
    guest.run(); // translates it
    let mut group = criterion.benchmark_group("run");
    group.throughput(Throughput::Elements(u64::from(each)));
    group.bench_function(name, |bencher| bencher.iter(|| guest.run()));
}

/// A jump through a register, to two places by turns.
pub fn indirect_branch(criterion: &mut Criterion) {
    let guest = Guest::new(|a| {
        let [mut again, mut one, mut two] = std::array::from_fn(|_| a.create_label());
        a.lea(rsi, ptr(one))?;
        a.lea(rdi, ptr(two))?;
        a.mov(edx, TURNS)?;
        a.set_label(&mut again)?;
        a.xchg(rsi, rdi)?;
        a.jmp(rsi)?;
        a.set_label(&mut one)?;
        a.nop()?;
        a.set_label(&mut two)?;
        a.dec(edx)?;
        a.jne(again)
    });
    time(criterion, "indirect branch", TURNS, guest);
}

/// A call of a function that returns at once.
pub fn call_and_return(criterion: &mut Criterion) {
    let guest = Guest::new(|a| {
        let [mut again, mut function, mut out] = std::array::from_fn(|_| a.create_label());
        a.mov(edx, TURNS)?;
        a.set_label(&mut again)?;
        a.call(function)?;
        a.dec(edx)?;
        a.jne(again)?;
        a.jmp(out)?;
        a.set_label(&mut function)?;
        a.ret()?;
        a.set_label(&mut out)?;
        a.nop()
    });
    time(criterion, "call and return", TURNS, guest);
}

/// The way out of translated code and in again, without what answers the call.
pub fn system_call(criterion: &mut Criterion) {
    time(criterion, "system call", 1, Guest::new(|a| a.mov(eax, 39u32)));
}

/// A signal comes while a region runs: its branches are set to stop, the guest comes out, and they are set back.
pub fn signal(criterion: &mut Criterion) {
    let mut guest = Guest::new(|a| {
        let mut again = a.create_label();
        a.mov(edx, TURNS)?;
        a.set_label(&mut again)?;
        a.dec(edx)?;
        a.jne(again)
    });
    guest.run();
    let pc = guest.engine.translation(guest.start).expect("code");
    let mut context =
        HostContext { x: [0; 31], sp: 0, pc, pstate: 0, v: [0; 32], fpsr: 0, fpcr: 0 };
    criterion.benchmark_group("run").bench_function("signal", |bencher| {
        bencher.iter(|| {
            // As the handler finds a thread that is in the region.
            guest.cpu.entering = pc;
            guest.engine.request_exit(&mut guest.cpu, &mut context);
            guest.cpu.entering = 0;
            assert_eq!(guest.engine.run(&mut guest.cpu), Exit::Interrupted);
            guest.cpu.interrupt = 0;
        });
    });
}
