//! Small pieces of guest code, run on the host. (arm64 only: translated code must execute.)
#![cfg(target_arch = "aarch64")]

use iced_x86::code_asm::*;
use translator::engine::{Config, Engine, Exit, GuestMemory, HostContext, HostFeatures};
use translator::state::{CpuState, rflags};

/// Everything is executable, but at address 0.
struct Open;

impl GuestMemory for Open {
    fn executable_from(&self, addr: u64) -> u64 {
        if addr == 0 { 0 } else { 4096 }
    }
    fn watch(&self, _start: u64, _end: u64) {}
}

fn engine(host: HostFeatures) -> Engine {
    let config = Config {
        host,
        cache_size: 16 << 20,
        dump_asm: std::env::var_os("DUMP").is_some(),
        ..Config::default()
    };
    Engine::new(config, Box::new(Open)).expect("address space")
}

/// Runs code up to its `syscall` and returns the state.
fn run(build: impl FnOnce(&mut CodeAssembler)) -> Box<CpuState> {
    run_by(&engine(HostFeatures::default()), build)
}

fn run_by(engine: &Engine, build: impl FnOnce(&mut CodeAssembler)) -> Box<CpuState> {
    let (mut cpu, end) = prepare(engine, build);
    assert_eq!(engine.run(&mut cpu), Exit::Syscall);
    assert_eq!(cpu.rip, end);
    engine.detach(&mut cpu);
    cpu
}

/// The state before such code, and where that ends.
fn prepare(engine: &Engine, build: impl FnOnce(&mut CodeAssembler)) -> (Box<CpuState>, u64) {
    let mut a = CodeAssembler::new(64).expect("64-bit");
    build(&mut a);
    a.syscall().expect("encodable");
    let code: &'static mut [u8] = Box::leak(vec![0u8; 65536].into_boxed_slice());
    let base = code.as_ptr() as u64;
    let bytes = a.assemble(base).expect("assembles");
    code[..bytes.len()].copy_from_slice(&bytes);
    let mut cpu = CpuState::new();
    engine.attach(&mut cpu).expect("memory");
    cpu.rip = base;
    cpu.gpr[4] = (base + 60000) & !15;
    (cpu, base + bytes.len() as u64)
}

/// Forks children that run from `cpu.rip` on to a system call, one after the other; what the parent has translated, and
/// what it has linked, as each is forked.
fn fork_children<const N: usize>(engine: &Engine, cpu: &mut CpuState) -> [(u64, u64); N] {
    [(); N].map(|()| {
        let mut guard = engine.lock_for_fork(cpu);
        // SAFETY: the child runs guest code, which touches nothing of the other threads', and ends.
        let child = unsafe { libc::fork() };
        if child == 0 {
            guard.in_child(cpu);
            drop(guard);
            let done = engine.run(cpu) == Exit::Syscall && cpu.gpr[0] == 7;
            // SAFETY: ends the child.
            unsafe { libc::_exit((!done).into()) }
        }
        drop(guard);
        let mut status = 0;
        // SAFETY: waits for the child forked just now.
        assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
        assert_eq!(status, 0);
        let stats = engine.stats();
        (stats.regions, stats.links)
    })
}

#[test]
fn what_children_have_come_to_is_translated_for_the_next() {
    let config = Config { cache_size: 16 << 20, interpret: 2, ..Config::default() };
    let engine = Engine::new(config, Box::new(Open)).expect("address space");
    let (mut cpu, _) = prepare(&engine, |a| a.mov(eax, 7).unwrap());
    assert_eq!(fork_children(&engine, &mut cpu), [(0, 0), (0, 0), (1, 0), (1, 0)]);
    engine.detach(&mut cpu);
}

/// The caller is translated before what it calls.
#[test]
fn what_is_translated_for_children_is_linked() {
    let config = Config { cache_size: 16 << 20, interpret: 2, ..Config::default() };
    let engine = Engine::new(config, Box::new(Open)).expect("address space");
    let (mut cpu, _) = prepare(&engine, |a| {
        let (mut function, mut over) = (a.create_label(), a.create_label());
        a.call(function).unwrap();
        a.jmp(over).unwrap();
        (0..1000).for_each(|_| a.nop().unwrap());
        a.set_label(&mut function).unwrap();
        a.mov(eax, 7).unwrap();
        a.ret().unwrap();
        a.set_label(&mut over).unwrap();
    });
    let [.., (regions, links)] = fork_children::<3>(&engine, &mut cpu);
    assert!(regions >= 2 && links >= 1, "{regions} regions, {links} links");
    engine.detach(&mut cpu);
}

#[test]
fn a_profile_counts_every_instruction() {
    let config = Config { cache_size: 16 << 20, profile: true, ..Config::default() };
    let engine = Engine::new(config, Box::new(Open)).expect("address space");
    run_by(&engine, |a| {
        let (mut again, mut odd) = (a.create_label(), a.create_label());
        a.mov(edx, 1000).unwrap();
        a.set_label(&mut again).unwrap();
        a.test(edx, 1).unwrap();
        a.jne(odd).unwrap();
        a.add(rax, rdx).unwrap(); // every other time
        a.set_label(&mut odd).unwrap();
        a.dec(edx).unwrap();
        a.jne(again).unwrap();
    });
    let report = engine.profile().expect("it was asked for");
    assert_eq!(report.guest_instructions(), 1 + 1000 * 4 + 500 + 1);
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

/// An inner loop is translated before the outer one is known; what the outer one begins with takes in the whole of it.
#[test]
fn an_outer_loop_is_one_region() {
    let config = Config { cache_size: 16 << 20, interpret: 2, ..Config::default() };
    let engine = Engine::new(config, Box::new(Open)).expect("address space");
    let cpu = run_by(&engine, |a| {
        let (mut outer, mut inner) = (a.create_label(), a.create_label());
        a.mov(edx, 20).unwrap();
        a.xor(eax, eax).unwrap();
        a.set_label(&mut outer).unwrap();
        a.mov(ecx, 8).unwrap();
        a.set_label(&mut inner).unwrap();
        a.add(eax, ecx).unwrap();
        a.sub(ecx, 1).unwrap();
        a.jne(inner).unwrap();
        a.sub(edx, 1).unwrap();
        a.jne(outer).unwrap();
    });
    assert_eq!(cpu.gpr[0], 20 * 36);
    let stats = engine.stats();
    // Three regions: the inner loop, what is behind it, and all six instructions of the outer one.
    let again = stats.guest_instructions - stats.distinct_instructions;
    assert!(again >= 5, "{stats:?}");
}

#[test]
fn a_loop_whose_first_instructions_were_interpreted_is_one_region() {
    // PSHUFB is not interpreted.
    let config = Config { cache_size: 16 << 20, interpret: 2, ..Config::default() };
    let engine = Engine::new(config, Box::new(Open)).expect("address space");
    let cpu = run_by(&engine, |a| {
        let mut again = a.create_label();
        a.mov(ecx, 20).unwrap();
        a.xor(eax, eax).unwrap();
        a.set_label(&mut again).unwrap();
        a.add(eax, ecx).unwrap();
        a.pshufb(xmm0, xmm1).unwrap();
        // More than would be read again in search of the end of any other loop.
        for _ in 0..20 {
            a.inc(rdx).unwrap();
        }
        a.dec(ecx).unwrap();
        a.jne(again).unwrap();
    });
    assert_eq!(cpu.gpr[0], 210);
    let stats = engine.stats();
    let again = stats.guest_instructions - stats.distinct_instructions;
    assert!(again >= 23, "{stats:?}");
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

/// CF comes from a callee. The code behind the call is executed before the call is, or only by it.
#[test]
fn a_callee_returns_a_flag() {
    for first_behind in [false, true] {
        let engine = engine(HostFeatures::default());
        let (mut cpu, end) = prepare(&engine, |a| {
            let [mut callee, mut behind, mut done] = [(); 3].map(|()| a.create_label());
            a.test(esi, esi).unwrap();
            a.jne(behind).unwrap();
            a.mov(ecx, 5u32).unwrap();
            a.call(callee).unwrap();
            a.set_label(&mut behind).unwrap();
            a.setb(dl).unwrap();
            a.jmp(done).unwrap();
            a.set_label(&mut callee).unwrap();
            a.add(ecx, -1).unwrap(); // CF = 1
            a.mov(ecx, ecx).unwrap();
            a.ret().unwrap();
            a.set_label(&mut done).unwrap();
        });
        let start = cpu.rip;
        for skips in [first_behind, false] {
            (cpu.rip, cpu.gpr[6], cpu.gpr[2]) = (start, u64::from(skips), 7);
            assert_eq!((engine.run(&mut cpu), cpu.rip), (Exit::Syscall, end));
            assert_eq!(cpu.gpr[2], u64::from(!skips), "behind first: {first_behind}");
        }
        engine.detach(&mut cpu);
    }
}

/// Behind a call that is never made stands code that reads flags: that is no reason to throw anything away.
#[test]
fn a_call_that_is_not_made_returns_no_flags() {
    let engine = engine(HostFeatures::default());
    let (mut cpu, end) = prepare(&engine, |a| {
        let [mut callee, mut behind, mut start] = [(); 3].map(|()| a.create_label());
        a.jmp(start).unwrap();
        a.set_label(&mut callee).unwrap();
        a.ud2().unwrap();
        a.set_label(&mut start).unwrap();
        a.cmp(esi, 1).unwrap(); // CF = 1
        a.jne(behind).unwrap();
        a.call(callee).unwrap();
        a.set_label(&mut behind).unwrap();
        a.setb(dl).unwrap();
    });
    (cpu.gpr[6], cpu.gpr[2]) = (0, 7);
    assert_eq!((engine.run(&mut cpu), cpu.rip, cpu.gpr[2]), (Exit::Syscall, end, 1));
    // JMP, CMP, JNE, SETB, SYSCALL: none is gone.
    assert_eq!(engine.stats().distinct_instructions, 5);
    engine.detach(&mut cpu);
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

#[test]
fn a_long_repeated_move_ends_with_the_registers_of_a_loop() {
    let source: Vec<u8> = (0..40_000u32).map(|i| (i * 7 + i / 256) as u8).collect();
    let mut to = vec![0u8; 40_000];
    let (from, target) = (source.as_ptr() as u64, to.as_mut_ptr() as u64);
    let cpu = run(|a| {
        a.mov(rsi, from).unwrap();
        a.mov(rdi, target).unwrap();
        a.mov(ecx, 4999u32).unwrap();
        a.rep().movsq().unwrap();
        a.mov(ecx, 7u32).unwrap(); // too short for the helper
        a.rep().movsb().unwrap();
        a.mov(rbx, rcx).unwrap();
    });
    assert_eq!(to[..39_999], source[..39_999]);
    assert_eq!(to[39_999], 0);
    assert_eq!([cpu.gpr[6], cpu.gpr[7], cpu.gpr[3]], [from + 39_999, target + 39_999, 0]);
}

#[test]
fn a_scan_of_nothing_keeps_the_flags() {
    let cpu = run(|a| {
        a.xor(ecx, ecx).unwrap();
        a.cmp(ecx, 1).unwrap(); // CF = 1, ZF = 0
        a.repne().scasb().unwrap();
        a.setb(al).unwrap();
        a.sete(ah).unwrap();
    });
    assert_eq!(cpu.gpr[0] & 0xffff, 1);
}

/// Locked operations at every offset of a 16-byte block and across its end.
#[test]
fn misaligned_locked_operations_work() {
    #[repr(align(64))]
    struct Line([u8; 64]);
    for at in [0, 1, 4, 9, 13] {
        let mut line = Line([0; 64]);
        let p = line.0.as_mut_ptr() as u64 + at;
        let cpu = run(|a| {
            a.mov(rdi, p).unwrap();
            a.mov(eax, 5u32).unwrap();
            a.lock().xadd(dword_ptr(rdi), eax).unwrap();
            a.lock().inc(dword_ptr(rdi)).unwrap();
            a.mov(ecx, 9u32).unwrap();
            a.mov(eax, 6u32).unwrap();
            a.lock().cmpxchg(dword_ptr(rdi), ecx).unwrap();
            a.sete(dl).unwrap();
            a.mov(eax, 1u32).unwrap();
            a.lock().cmpxchg(dword_ptr(rdi), ecx).unwrap();
            a.sete(dh).unwrap();
        });
        assert_eq!(cpu.gpr[2] & 0xffff, 1, "at {at}");
        assert_eq!(cpu.gpr[0], 9, "at {at}");
        assert_eq!(line.0[at as usize..][..4], [9, 0, 0, 0], "at {at}");
    }
}

#[test]
fn flags_go_through_the_stack_and_ah() {
    let cpu = run(|a| {
        a.mov(eax, 0x8d5u32).unwrap(); // OF SF ZF AF PF CF
        a.push(rax).unwrap();
        a.popfq().unwrap();
        a.cmc().unwrap(); // CF = 0
        a.lahf().unwrap();
        a.pushfq().unwrap();
        a.pop(rdx).unwrap();
    });
    assert_eq!(cpu.gpr[0] >> 8 & 0xff, 0xd6);
    assert_eq!(cpu.gpr[2], 0xad6);
}

/// Where an aligned access made a later one's check unnecessary, control that comes in between is checked.
#[test]
fn alignment_is_checked_on_every_way_in() {
    let mut a = CodeAssembler::new(64).expect("64-bit");
    let mut second = a.create_label();
    a.movaps(xmm0, xmmword_ptr(rdi)).unwrap();
    a.nop().unwrap();
    a.set_label(&mut second).unwrap();
    a.nop().unwrap();
    a.movaps(xmm1, xmmword_ptr(rdi + 16)).unwrap();
    a.syscall().unwrap();
    let code: &'static mut [u8] = Box::leak(vec![0u8; 4096].into_boxed_slice());
    let base = code.as_ptr() as u64;
    let bytes = a.assemble(base).expect("assembles");
    code[..bytes.len()].copy_from_slice(&bytes);
    let mut cpu = CpuState::new();
    let engine = engine(HostFeatures::default());
    engine.attach(&mut cpu).expect("memory");
    let data = (base + 2048) & !15;
    for (start, address, exit) in [
        (0, data, Exit::Syscall),
        (0, data + 8, Exit::Exception(13)),
        (4, data + 8, Exit::Exception(13)),
        (3, data, Exit::Syscall),
        (3, data + 1, Exit::Exception(13)),
    ] {
        (cpu.rip, cpu.gpr[7]) = (base + start, address);
        assert_eq!(engine.run(&mut cpu), exit, "from {start} with {address:#x}");
    }
    engine.detach(&mut cpu);
}

/// Flags that are computed where a branch leads are those that the comparison itself would have left.
#[test]
fn flags_behind_a_branch_are_those_of_the_comparison() {
    type Emit = fn(&mut CodeAssembler);
    let compares: [Emit; 20] = [
        |a| a.cmp(al, 0x10).unwrap(),
        |a| a.cmp(al, cl).unwrap(),
        |a| a.cmp(ax, 0x7123).unwrap(),
        |a| a.cmp(cx, ax).unwrap(),
        |a| a.cmp(ah, 0).unwrap(),
        |a| a.cmp(al, ch).unwrap(),
        |a| a.cmp(cl, byte_ptr(rsi)).unwrap(),
        |a| a.cmp(byte_ptr(rsi), cl).unwrap(),
        |a| a.cmp(word_ptr(rsi), 0x12).unwrap(),
        |a| a.cmp(eax, ecx).unwrap(),
        |a| a.cmp(rax, qword_ptr(rsi)).unwrap(),
        |a| a.cmp(dword_ptr(rsi), 0x1234_5678).unwrap(),
        |a| a.cmp(rax, 0).unwrap(),
        |a| a.test(eax, eax).unwrap(),
        |a| a.test(rax, rcx).unwrap(),
        |a| a.test(al, al).unwrap(),
        |a| a.test(al, cl).unwrap(),
        |a| a.test(cx, 0x8011).unwrap(),
        |a| a.test(byte_ptr(rsi), 0x11).unwrap(),
        |a| a.test(word_ptr(rsi), ax).unwrap(),
    ];
    let word = 0x8000_0011u64;
    let flags = |compare: Emit, branch: bool, values: [u64; 2]| {
        let cpu = run(|a| {
            let mut out = a.create_label();
            a.mov(rax, values[0]).unwrap();
            a.mov(rcx, values[1]).unwrap();
            a.mov(rsi, &raw const word as u64).unwrap();
            compare(a);
            if branch {
                // Each kills the flags where it is not taken; too far to be of the region.
                a.jne(out).unwrap();
                compare(a);
                a.jl(out).unwrap();
                compare(a);
                a.jae(out).unwrap();
                compare(a);
                a.jb(out).unwrap();
            }
            a.jmp(out).unwrap();
            a.db(&[0xcc; 3000]).unwrap();
            a.set_label(&mut out).unwrap();
            a.pushfq().unwrap();
            a.pop(rdx).unwrap();
        });
        cpu.gpr[2]
    };
    for (i, compare) in compares.into_iter().enumerate() {
        // TEST leaves AF undefined.
        let defined = if i < 13 { 0x8d5 } else { 0x8c5 };
        for values in [
            [5, 7],
            [7, 5],
            [0x8000_0000, 1],
            [0x10, 0x10],
            [u64::MAX, 3],
            [0, 0],
            [0x80, 0x7f],
            [0x8011, 0xff00],
        ] {
            let [left, direct] =
                [true, false].map(|branch| flags(compare, branch, values) & defined);
            assert_eq!(left, direct, "comparison {i} of {values:x?}");
        }
    }
}

/// A copy has zeros above its low bits only if what was copied has.
#[test]
fn a_copy_is_shifted_as_what_was_copied() {
    let value = 0xdead_beef_1234_8765u64;
    let cpu = run(|a| {
        a.mov(rax, value).unwrap();
        a.movzx(edx, ax).unwrap();
        a.mov(r10d, edx).unwrap();
        a.shr(r10w, 8).unwrap();
        a.mov(rsi, rax).unwrap();
        a.shr(si, 8).unwrap();
        a.mov(edi, eax).unwrap();
        a.shr(di, 8).unwrap();
        a.movzx(r8d, al).unwrap();
        a.mov(r9, r8).unwrap();
        a.mov(r8d, eax).unwrap();
        a.shr(r9w, 1).unwrap();
        a.shr(r8w, 1).unwrap();
        a.cmp(eax, eax).unwrap();
    });
    let upper = value & !0xffff;
    assert_eq!([cpu.gpr[10], cpu.gpr[6], cpu.gpr[9]], [0x87, upper | 0x87, 0x32]);
    assert_eq!(
        [cpu.gpr[7], cpu.gpr[8]],
        [upper as u32 as u64 | 0x87, upper as u32 as u64 | 0x43b2]
    );
}

/// Flags that a comparison leaves to a branch are not those of who comes to that branch in another way.
#[test]
fn a_branch_that_is_jumped_to_has_the_flags_of_the_jump() {
    let engine = engine(HostFeatures::default());
    let (mut cpu, end) = prepare(&engine, |a| {
        let (mut out, mut over) = (a.create_label(), a.create_label());
        a.cmp(ecx, edx).unwrap();
        a.jne(out).unwrap();
        a.xor(eax, eax).unwrap();
        a.jmp(over).unwrap();
        a.db(&[0xcc; 3000]).unwrap();
        a.set_label(&mut out).unwrap();
        a.setp(al).unwrap();
        a.add(esi, esi).unwrap();
        a.set_label(&mut over).unwrap();
    });
    let branch = cpu.rip + 2;
    assert_eq!(engine.run(&mut cpu), Exit::Syscall);
    // What the comparison would say: even parity.
    (cpu.rip, cpu.gpr[1]) = (branch, 3);
    cpu.set_rflags(rflags::FIXED);
    assert_eq!(engine.run(&mut cpu), Exit::Syscall);
    assert_eq!((cpu.rip, cpu.gpr[0] as u8), (end, 0));
    engine.detach(&mut cpu);
}

/// A copy that the next instruction makes superfluous leaves nothing different.
#[test]
fn a_copy_and_what_is_done_to_it() {
    type Emit = fn(&mut CodeAssembler);
    let operations: [Emit; 14] = [
        |a| a.add(ecx, edx).unwrap(),
        |a| a.sub(rcx, 0x1234_5678).unwrap(),
        |a| a.and(ecx, 0xff0).unwrap(),
        |a| a.or(rcx, -1).unwrap(),
        |a| a.xor(ecx, edx).unwrap(),
        |a| a.inc(ecx).unwrap(),
        |a| a.dec(rcx).unwrap(),
        |a| a.neg(ecx).unwrap(),
        |a| a.not(rcx).unwrap(),
        |a| a.shl(ecx, 1).unwrap(),
        |a| a.shr(rcx, 5).unwrap(),
        |a| a.sar(ecx, 31).unwrap(),
        |a| a.shl(rcx, 0).unwrap(),
        |a| a.sub(rcx, rax).unwrap(),
    ];
    for (i, operation) in operations.into_iter().enumerate() {
        for flags in [true, false] {
            let state = |apart: bool| {
                let cpu = run(|a| {
                    a.mov(rax, 0x8123_4567_89ab_cdefu64).unwrap();
                    a.mov(rcx, u64::MAX).unwrap();
                    a.mov(rdx, 0x7fff_ffff_8000_0003u64).unwrap();
                    a.stc().unwrap();
                    a.mov(rcx, rax).unwrap();
                    if apart {
                        a.nop().unwrap();
                    }
                    operation(a);
                    if flags {
                        a.pushfq().unwrap();
                        a.pop(rsi).unwrap();
                    }
                    a.mov(rbx, rcx).unwrap(); // SYSCALL writes rcx
                });
                [cpu.gpr[0], cpu.gpr[2], cpu.gpr[3], cpu.gpr[6]]
            };
            assert_eq!(state(false), state(true), "operation {i}, flags read: {flags}");
        }
    }
}

/// Sums up what a leaf gives that is called directly and through a register. The leaf is 16 bytes behind the start.
fn calls_of_a_leaf(a: &mut CodeAssembler) {
    let [mut leaf, mut begin, mut again] = std::array::from_fn(|_| a.create_label());
    a.jmp(begin).unwrap();
    a.nops_with_size(14).unwrap();
    a.set_label(&mut leaf).unwrap();
    a.lea(rax, ptr(rdi + 1)).unwrap();
    a.ret().unwrap();
    a.set_label(&mut begin).unwrap();
    a.xor(ebx, ebx).unwrap();
    a.lea(rsi, ptr(leaf)).unwrap();
    a.mov(r12, rsp).unwrap();
    a.mov(edi, 100u32).unwrap();
    a.set_label(&mut again).unwrap();
    a.call(leaf).unwrap();
    a.add(rbx, rax).unwrap();
    a.call(rsi).unwrap();
    a.add(rbx, rax).unwrap();
    a.dec(edi).unwrap();
    a.jne(again).unwrap();
    a.sub(r12, rsp).unwrap();
}

/// A signal comes while a leaf runs that was called: its return stops, and all is as it was.
#[test]
fn a_leaf_stops_and_returns() {
    let engine = engine(HostFeatures::default());
    let (mut cpu, _) = prepare(&engine, calls_of_a_leaf);
    let start = cpu.rip;
    let run = |cpu: &mut CpuState| {
        cpu.rip = start;
        assert_eq!(engine.run(cpu), Exit::Syscall);
        assert_eq!((cpu.gpr[3], cpu.gpr[12]), (2 * 5150, 0));
        engine.stats().indirect_misses
    };
    run(&mut cpu);
    let before = run(&mut cpu);
    let pc = engine.translation(start + 16).expect("code");
    // SAFETY: the word in front of an entry, which for a leaf is a distance.
    assert!(unsafe { *((pc - 4) as *const u32) } < 1 << 16, "there is no copy for calls");
    let mut context =
        HostContext { x: [0; 31], sp: 0, pc, pstate: 0, v: [0; 32], fpsr: 0, fpcr: 0 };
    cpu.entering = pc;
    engine.request_exit(&mut cpu, &mut context);
    (cpu.entering, cpu.interrupt) = (0, 0);
    let stopped = run(&mut cpu);
    assert_eq!(stopped - before, 200, "each return is a stop");
    cpu.interrupt = 1;
    assert_eq!(engine.run(&mut cpu), Exit::Interrupted);
    cpu.interrupt = 0;
    assert_eq!(run(&mut cpu), stopped);
    engine.detach(&mut cpu);
}

#[test]
fn nothing_is_called_at_address_0() {
    let engine = engine(HostFeatures::default());
    for link in [false, true] {
        let (mut cpu, _) = prepare(&engine, |a| {
            a.mov(ecx, 7u32).unwrap();
            a.xor(eax, eax).unwrap();
            if link { a.call(rax).unwrap() } else { a.jmp(rax).unwrap() }
        });
        assert_eq!(engine.run(&mut cpu), Exit::MemoryFault);
        assert_eq!((cpu.rip, cpu.fault.addr, cpu.gpr[1]), (0, 0, 7));
        engine.detach(&mut cpu);
    }
}
