//! Runs loops over memory, under one memory order or another.

use iced_x86::code_asm::*;
use std::sync::{Mutex, PoisonError};
use translator::dump;
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

/// Where the data is, behind the code.
pub const DATA: usize = 4096;
const SIZE: usize = 16384;

const RAX: usize = 0;
const RCX: usize = 1;
const RSI: usize = 6;
const RDI: usize = 7;

/// Where a constant reaches it.
pub const BASE: usize = 0x2000_0000;

/// Held by who uses that memory.
static ALONE: Mutex<()> = Mutex::new(());

/// New memory there.
fn memory() -> &'static mut [u8] {
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    // SAFETY: nothing else of this program is there, and whoever holds the lock is done with what was there before.
    unsafe {
        let start = libc::mmap(BASE as *mut _, SIZE, prot, flags, -1, 0);
        assert_eq!(start as usize, BASE);
        std::slice::from_raw_parts_mut(start.cast(), SIZE)
    }
}

fn noise(i: usize) -> u128 {
    (i as u128 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).rotate_left(i as u32)
}

fn config(order: MemoryOrder) -> Config {
    let host = HostFeatures { aes: true, sha2: true, ..HostFeatures::default() };
    Config { host, order, cache_size: 16 << 20, ..Config::default() }
}

/// Puts code at [`BASE`].
fn place(build: impl Fn(&mut CodeAssembler)) -> &'static mut [u8] {
    let mut a = CodeAssembler::new(64).expect("64-bit");
    build(&mut a);
    a.syscall().expect("encodable");
    let code = memory();
    let bytes = a.assemble(BASE as u64).expect("assembles");
    code[..bytes.len()].copy_from_slice(&bytes);
    code
}

/// How the code is translated.
#[allow(dead_code)] // not by all that run loops
pub fn listing(order: MemoryOrder, build: impl Fn(&mut CodeAssembler)) -> String {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    place(build);
    let made = dump::translate(&Open, BASE as u64, &config(order)).expect("there is code");
    dump::text(&made.region, &made.asm, &made.emitted)
}

/// Runs code with a counter and pointers into noise.
pub fn run(order: MemoryOrder, counter: u64, build: impl Fn(&mut CodeAssembler)) -> Box<CpuState> {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let code = place(build);
    let base = BASE as u64;
    for (i, piece) in code[DATA..].chunks_exact_mut(16).enumerate() {
        piece.copy_from_slice(&noise(i).to_le_bytes());
    }
    let engine = Engine::new(config(order), Box::new(Open)).expect("address space");
    let mut cpu = CpuState::new();
    engine.attach(&mut cpu).expect("memory");
    cpu.rip = base;
    cpu.gpr[RAX] = counter;
    for (register, at) in [(RCX, DATA), (RSI, DATA + 4096), (RDI, DATA + 4096 + 800)] {
        cpu.gpr[register] = base + at as u64;
    }
    for (i, xmm) in cpu.xmm.iter_mut().enumerate() {
        *xmm = noise(1000 + i);
    }
    assert_eq!(engine.run(&mut cpu), Exit::Syscall);
    engine.detach(&mut cpu);
    for register in [RCX, RSI, RDI] {
        cpu.gpr[register] = cpu.gpr[register].wrapping_sub(base);
    }
    cpu
}
