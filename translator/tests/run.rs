//! Small pieces of guest code, run on the host. (arm64 only: translated code must execute.)
#![cfg(target_arch = "aarch64")]

use iced_x86::code_asm::*;
use translator::engine::{Config, Engine, Exit, GuestMemory, HostFeatures, MemoryOrder};
use translator::state::CpuState;

/// Everything is executable.
struct Open;

impl GuestMemory for Open {
    fn executable_from(&self, _addr: u64) -> u64 {
        4096
    }
    fn watch(&self, _start: u64, _end: u64) {}
}

fn engine(host: HostFeatures) -> Engine {
    let config = Config {
        order: MemoryOrder::Plain,
        host,
        cache_size: 16 << 20,
        flags_live_at_return: false,
        dump_asm: std::env::var_os("DUMP").is_some(),
    };
    Engine::new(config, Box::new(Open)).expect("address space")
}

/// Runs code up to its `syscall` and returns the state.
fn run(build: impl FnOnce(&mut CodeAssembler)) -> Box<CpuState> {
    let mut a = CodeAssembler::new(64).expect("64-bit");
    build(&mut a);
    a.syscall().expect("encodable");
    let code: &'static mut [u8] = Box::leak(vec![0u8; 65536].into_boxed_slice());
    let base = code.as_ptr() as u64;
    let bytes = a.assemble(base).expect("assembles");
    code[..bytes.len()].copy_from_slice(&bytes);
    let mut cpu = CpuState::new();
    let engine = engine(HostFeatures::default());
    engine.attach(&mut cpu).expect("memory");
    cpu.rip = base;
    cpu.gpr[4] = base + 60000 & !15;
    assert_eq!(engine.run(&mut cpu), Exit::Syscall);
    assert_eq!(cpu.rip, base + bytes.len() as u64);
    engine.detach(&mut cpu);
    cpu
}

#[test]
fn a_loop_adds_up() {
    let cpu = run(|a| {
        let mut again = a.create_label();
        a.xor(eax, eax).unwrap();
        a.mov(edx, 1000).unwrap();
        a.set_label(&mut again).unwrap();
        a.add(rax, rdx).unwrap();
        a.dec(edx).unwrap();
        a.jne(again).unwrap();
    });
    assert_eq!(cpu.gpr[0], 500_500);
}

#[test]
fn calls_return() {
    let cpu = run(|a| {
        let mut fib = a.create_label();
        let mut leaf = a.create_label();
        let mut done = a.create_label();
        a.mov(edi, 15).unwrap();
        a.call(fib).unwrap();
        a.jmp(done).unwrap();
        a.set_label(&mut fib).unwrap();
        a.cmp(edi, 2).unwrap();
        a.jb(leaf).unwrap();
        a.push(rdi).unwrap();
        a.dec(edi).unwrap();
        a.call(fib).unwrap();
        a.pop(rdi).unwrap();
        a.push(rax).unwrap();
        a.sub(edi, 2).unwrap();
        a.call(fib).unwrap();
        a.pop(rcx).unwrap();
        a.add(rax, rcx).unwrap();
        a.ret().unwrap();
        a.set_label(&mut leaf).unwrap();
        a.mov(eax, edi).unwrap();
        a.ret().unwrap();
        a.set_label(&mut done).unwrap();
    });
    assert_eq!(cpu.gpr[0], 610);
}

#[test]
fn flags_survive_to_a_late_reader() {
    let cpu = run(|a| {
        a.mov(eax, 1u32).unwrap();
        a.cmp(eax, 2).unwrap(); // CF = 1
        a.mov(esi, 5u32).unwrap();
        a.inc(esi).unwrap(); // leaves CF
        a.adc(esi, 0).unwrap();
        a.mov(bl, 0x80u32).unwrap();
        a.add(bl, bl).unwrap(); // CF = OF = ZF = 1
        a.setb(dl).unwrap();
        a.seto(dh).unwrap();
    });
    assert_eq!(cpu.gpr[6], 7);
    assert_eq!(cpu.gpr[2] & 0xffff, 0x101);
    assert_eq!(cpu.gpr[3] & 0xff, 0);
}

#[test]
fn an_indirect_jump_finds_its_way() {
    let cpu = run(|a| {
        let mut table = a.create_label();
        let mut out = a.create_label();
        a.mov(ecx, 100u32).unwrap();
        let mut again = a.create_label();
        a.set_label(&mut again).unwrap();
        a.lea(rax, ptr(table)).unwrap();
        a.call(rax).unwrap();
        a.dec(ecx).unwrap();
        a.jne(again).unwrap();
        a.jmp(out).unwrap();
        a.set_label(&mut table).unwrap();
        a.add(rbx, 3).unwrap();
        a.ret().unwrap();
        a.set_label(&mut out).unwrap();
    });
    assert_eq!(cpu.gpr[3], 300);
}
