//! Translations that are thrown away, and what must not be left of them. (arm64 only: translated code must execute.)
#![cfg(target_arch = "aarch64")]

use iced_x86::code_asm::*;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use translator::engine::{Config, Engine, Exit, GuestMemory, MemoryOrder, PAGE};
use translator::state::CpuState;

/// An address and what is written there.
type Write = (u64, Vec<u8>);

/// Everything is executable. Remembers which pages are watched, and makes one write, if it is asked to, at the last
/// moment before a watch begins.
#[derive(Clone, Default)]
struct Memory {
    watched: Arc<Mutex<Vec<u64>>>,
    last_write: Arc<Mutex<Option<Write>>>,
}

impl GuestMemory for Memory {
    fn executable_from(&self, _addr: u64) -> u64 {
        PAGE
    }
    fn watch(&self, start: u64, end: u64) {
        let mut last_write = self.last_write.lock().unwrap();
        if let Some((at, bytes)) = last_write.take_if(|(at, _)| (start..end).contains(at)) {
            write(at, &bytes);
        }
        self.watched.lock().unwrap().push(start / PAGE);
    }
}

/// Guest code and a processor to run it.
struct Guest {
    memory: Memory,
    engine: Engine,
    cpu: Box<CpuState>,
    base: u64,
}

const SIZE: u64 = 1 << 18;

impl Guest {
    fn new() -> Self {
        let memory = Memory::default();
        let config = Config { cache_size: 16 << 20, ..Config::default() };
        let engine = Engine::new(config, Box::new(memory.clone())).expect("address space");
        let code: &'static mut [u8] = Box::leak(vec![0u8; SIZE as usize].into_boxed_slice());
        let base = (code.as_mut_ptr() as u64).next_multiple_of(PAGE);
        let mut cpu = CpuState::new();
        engine.attach(&mut cpu).expect("memory");
        cpu.gpr[4] = base + SIZE - 2 * PAGE;
        Guest { memory, engine, cpu, base }
    }

    /// Puts code at an offset.
    fn put(&self, offset: u64, build: impl FnOnce(&mut CodeAssembler)) {
        write(self.base + offset, &self.assemble(offset, build));
    }

    fn assemble(&self, offset: u64, build: impl FnOnce(&mut CodeAssembler)) -> Vec<u8> {
        let mut a = CodeAssembler::new(64).expect("64-bit");
        build(&mut a);
        a.assemble(self.base + offset).expect("encodable")
    }

    /// Runs from an offset to the next SYSCALL.
    fn run(&mut self, offset: u64) {
        self.cpu.rip = self.base + offset;
        self.go_on();
    }

    fn go_on(&mut self) {
        assert_eq!(self.engine.run(&mut self.cpu), Exit::Syscall);
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.engine.detach(&mut self.cpu);
    }
}

fn write(at: u64, bytes: &[u8]) {
    // SAFETY: the callers write into the guest's code, which is leaked memory.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), at as *mut u8, bytes.len()) };
}

/// A region is translated for what the code that it jumps to makes of the flags: when that code changes, so must the
/// region, although nobody has run that code.
#[test]
fn code_behind_a_jump_begins_to_read_flags() {
    const TARGET: u64 = 5 * PAGE;
    let mut guest = Guest::new();
    let target = guest.base + TARGET;
    guest.put(0, |a| {
        a.mov(eax, 1u32).unwrap();
        a.cmp(eax, 2).unwrap(); // CF = 1
        a.mov(esi, 0x7fff_ffffu32).unwrap();
        a.jmp(target).unwrap();
    });
    guest.put(TARGET, |a| {
        a.xor(ebx, ebx).unwrap();
        a.syscall().unwrap();
    });
    guest.run(0);
    let watched = guest.memory.watched.lock().unwrap().clone();
    assert!(watched.contains(&(target / PAGE)), "{watched:x?} lacks {:x}", target / PAGE);
    guest.put(TARGET, |a| {
        a.setb(bl).unwrap();
        a.syscall().unwrap();
    });
    guest.engine.invalidate(target, target + 1);
    guest.run(0);
    assert_eq!(guest.cpu.gpr[3], 1);
}

/// The same for the code behind a call: the callee's flags are read there from now on.
#[test]
fn code_behind_a_call_begins_to_read_flags() {
    const CALLEE: u64 = 3 * PAGE;
    const OTHER: u64 = 5 * PAGE;
    // MOV and CALL have five bytes each.
    const CALL: u64 = PAGE - 10;
    let mut guest = Guest::new();
    let [callee, other] = [CALLEE, OTHER].map(|offset| guest.base + offset);
    guest.put(CALL, |a| {
        a.mov(ecx, 5u32).unwrap();
        a.call(callee).unwrap();
    });
    guest.put(PAGE, |a| {
        a.mov(ebx, 7u32).unwrap();
        a.call(other).unwrap();
    });
    guest.put(CALLEE, |a| {
        a.add(ecx, -1).unwrap(); // CF = 1
        a.mov(ecx, ecx).unwrap();
        a.ret().unwrap();
    });
    guest.put(OTHER, |a| a.syscall().unwrap());
    // First what is behind the call: then its region ends there.
    guest.run(PAGE);
    guest.run(CALL);
    guest.put(PAGE, |a| {
        a.setb(bl).unwrap();
        a.syscall().unwrap();
    });
    guest.engine.invalidate(guest.base + PAGE, guest.base + PAGE + 1);
    guest.run(CALL);
    assert_eq!(guest.cpu.gpr[3] & 0xff, 1);
}

/// The same for a region that did not look there itself, because one before it had.
#[test]
fn code_that_another_region_has_looked_at_begins_to_read_flags() {
    const TARGET: u64 = 5 * PAGE;
    const REGIONS: [u64; 2] = [0, PAGE];
    let mut guest = Guest::new();
    let target = guest.base + TARGET;
    for offset in REGIONS {
        guest.put(offset, |a| {
            a.stc().unwrap();
            a.jmp(target).unwrap();
        });
    }
    guest.put(TARGET, |a| {
        a.xor(ebx, ebx).unwrap();
        a.syscall().unwrap();
    });
    for offset in REGIONS {
        guest.run(offset);
    }
    guest.put(TARGET, |a| {
        a.setb(bl).unwrap();
        a.syscall().unwrap();
    });
    guest.engine.invalidate(target, target + 1);
    for offset in REGIONS {
        guest.cpu.gpr[3] = 0;
        guest.run(offset);
        assert_eq!(guest.cpu.gpr[3], 1, "from {offset:x}");
    }
}

/// The same where the jump's target is reached by way of another page.
#[test]
fn code_behind_two_jumps_begins_to_read_flags() {
    const STATIONS: [u64; 2] = [3 * PAGE, 5 * PAGE];
    let mut guest = Guest::new();
    let [first, second] = STATIONS.map(|offset| guest.base + offset);
    guest.put(0, |a| {
        a.mov(eax, 1u32).unwrap();
        a.cmp(eax, 2).unwrap();
        a.jmp(first).unwrap();
    });
    guest.put(STATIONS[0], |a| a.jmp(second).unwrap());
    guest.put(STATIONS[1], |a| {
        a.xor(ebx, ebx).unwrap();
        a.syscall().unwrap();
    });
    guest.run(0);
    guest.put(STATIONS[0], |a| {
        a.setb(bl).unwrap();
        a.jmp(second + 2).unwrap();
    });
    guest.engine.invalidate(first, first + PAGE);
    guest.run(0);
    assert_eq!(guest.cpu.gpr[3], 1);
}

/// A write before a page is watched is seen, however late it comes.
#[test]
fn a_page_is_watched_before_it_is_read() {
    let mut guest = Guest::new();
    let build = |constant: u32| {
        move |a: &mut CodeAssembler| {
            a.mov(eax, constant).unwrap();
            a.syscall().unwrap();
        }
    };
    guest.put(0, build(1));
    *guest.memory.last_write.lock().unwrap() = Some((guest.base, guest.assemble(0, build(2))));
    guest.run(0);
    assert!(guest.memory.last_write.lock().unwrap().is_none());
    assert_eq!(guest.cpu.gpr[0], 2);
}

/// A call after a return too many leaves its return point above the start of the shadow stack.
#[test]
fn return_points_are_forgotten_with_their_code() {
    const OTHER: u64 = 4 * PAGE;
    let mut guest = Guest::new();
    guest.put(0, |a| {
        let (mut begin, mut callee, mut out) =
            (a.create_label(), a.create_label(), a.create_label());
        a.lea(rax, ptr(begin)).unwrap();
        a.push(rax).unwrap();
        a.ret().unwrap();
        a.set_label(&mut begin).unwrap();
        a.mov(ebx, 1u32).unwrap();
        a.call(callee).unwrap();
        a.add(ebx, 100).unwrap();
        a.jmp(out).unwrap();
        a.set_label(&mut callee).unwrap();
        a.syscall().unwrap();
        a.ret().unwrap();
        a.set_label(&mut out).unwrap();
        a.syscall().unwrap();
    });
    // What then lies where the return point was.
    guest.put(OTHER, |a| {
        (0..100).for_each(|i| a.mov(ebx, i as u32).unwrap());
        a.syscall().unwrap();
    });
    guest.run(0);
    let inside = guest.cpu.rip;
    guest.engine.set_order(MemoryOrder::Ordered);
    guest.run(OTHER);
    (guest.cpu.rip, guest.cpu.gpr[3]) = (inside, 1);
    guest.go_on();
    assert_eq!(guest.cpu.gpr[3], 101);
}

/// What was linked to code that is no more leads to what is there now, and not by way of the dispatcher each time.
#[test]
fn links_lead_to_the_new_translation() {
    const TARGET: u64 = 4 * PAGE;
    let mut guest = Guest::new();
    let target = guest.base + TARGET;
    guest.put(0, |a| a.jmp(target).unwrap());
    for value in 1..5u32 {
        guest.put(TARGET, |a| {
            a.mov(eax, value).unwrap();
            a.syscall().unwrap();
        });
        guest.engine.invalidate(target, target + 1);
        // Only the dispatcher is told where it is called from.
        for told in [true, false] {
            guest.cpu.exit_arg = 0;
            guest.run(0);
            assert_eq!(guest.cpu.gpr[0], u64::from(value));
            assert_eq!(guest.cpu.exit_arg != 0, told, "{value}");
        }
    }
}

/// Calls that are linked to the copy of a leaf that is for calls come to what there is in its place.
#[test]
fn a_leaf_changes_that_is_called() {
    const LEAF: u64 = 4 * PAGE;
    let mut guest = Guest::new();
    let leaf = guest.base + LEAF;
    guest.put(0, |a| {
        let mut again = a.create_label();
        a.xor(ebx, ebx).unwrap();
        a.mov(esi, 10u32).unwrap();
        a.mov(rdi, leaf).unwrap();
        a.set_label(&mut again).unwrap();
        a.call(leaf).unwrap();
        a.add(ebx, eax).unwrap();
        a.call(rdi).unwrap();
        a.add(ebx, eax).unwrap();
        a.dec(esi).unwrap();
        a.jne(again).unwrap();
        a.syscall().unwrap();
    });
    for value in 1..5u32 {
        guest.put(LEAF, |a| {
            a.mov(eax, value).unwrap();
            a.ret().unwrap();
        });
        guest.engine.invalidate(leaf, leaf + 1);
        guest.run(0);
        assert_eq!(guest.cpu.gpr[3], 20 * u64::from(value));
    }
}

/// What follows a system call is found in the thread's own table: not what was there before it changed, nor before all
/// translations were thrown away.
#[test]
fn what_follows_a_system_call_changes() {
    const CALL: u64 = 64;
    let mut guest = Guest::new();
    let follow = |guest: &Guest, value: u32| {
        guest.put(CALL, |a| {
            a.syscall().unwrap();
            a.mov(ebx, value).unwrap();
            a.syscall().unwrap();
        });
    };
    let after = |guest: &mut Guest| {
        guest.run(CALL);
        guest.go_on();
        guest.cpu.gpr[3]
    };
    follow(&guest, 1);
    assert_eq!([(); 5].map(|()| after(&mut guest)), [1; 5]);
    follow(&guest, 2);
    guest.engine.invalidate(guest.base, guest.base + PAGE);
    assert_eq!([(); 5].map(|()| after(&mut guest)), [2; 5]);
    follow(&guest, 3);
    guest.engine.set_order(MemoryOrder::Ordered);
    assert_eq!([(); 5].map(|()| after(&mut guest)), [3; 5]);
}

/// Threads come back from system calls while another one throws all translations away: each to its own code, though what
/// that is translated to has another length each time, and another place.
#[test]
fn system_calls_return_while_all_is_thrown_away() {
    const FLUSHES: usize = 10_000;
    const THREADS: u64 = 3;
    let guest = Guest::new();
    for thread in 0..THREADS {
        guest.put(thread * 256, |a| {
            for _ in 0..2 {
                (0..thread).for_each(|i| a.mov(qword_ptr(rsi + 8 * i), rax).unwrap());
                a.add(rbx, thread as i32 + 1).unwrap();
                a.syscall().unwrap();
            }
        });
    }
    let (engine, base) = (&guest.engine, guest.base);
    let done = AtomicBool::new(false);
    let calls = |thread: u64| {
        let mut cpu = CpuState::new();
        engine.attach(&mut cpu).expect("memory");
        cpu.gpr[6] = base + 4096 * (4 + thread);
        let mut calls = 0;
        while !done.load(Ordering::Relaxed) || calls < 100 {
            cpu.rip = base + thread * 256;
            for _ in 0..2 {
                assert_eq!(engine.run(&mut cpu), Exit::Syscall);
                calls += 1;
                assert_eq!(cpu.gpr[3], calls * (thread + 1));
            }
        }
        engine.detach(&mut cpu);
    };
    std::thread::scope(|scope| {
        (0..THREADS).for_each(|thread| {
            drop(scope.spawn({
                let calls = &calls;
                move || calls(thread)
            }))
        });
        for i in 0..FLUSHES {
            let order = if i % 2 == 0 { MemoryOrder::Ordered } else { MemoryOrder::Plain };
            engine.set_order(order);
        }
        done.store(true, Ordering::Relaxed);
    });
}
