//! A running program's translations are moved to another place in memory, and it runs on.

use super::*;
use crate::cache::moving::Moved;
use iced_x86::code_asm::*;

impl Engine {
    /// Moves all translations, and everything that refers to them; what was there before can no longer be touched.
    /// No thread may be in translated code.
    fn move_cache(&mut self) -> Moved {
        const GAP: u64 = 0x12340;
        let (cache, moved) = self.cache.moved(GAP).expect("address space");
        self.cache = cache;
        let inner = self.inner.get_mut().expect("no panic");
        for host in inner.entries.values_mut() {
            *host = moved.of(*host);
        }
        let region = |meta: &RegionMeta| self.cache.region_at(moved.of(meta.host)).expect("moved");
        for page in inner.pages.values_mut() {
            for meta in
                page.regions.iter_mut().chain(&mut page.leading_back).chain(&mut page.lookers)
            {
                *meta = region(meta);
            }
        }
        for &cpu in &inner.attached {
            // SAFETY: attached states live until `detach`, and nobody else uses them now; so do the tables
            // that `attach` made, of pairs of a guest and a host address.
            unsafe {
                assert_eq!((*cpu).entering, 0);
                move_pairs((*cpu).branch_table, BRANCH_TABLE_SIZE, &moved);
                move_pairs((*cpu).shadow_block[0] + SHADOW_GUARD as u64, SHADOW_SIZE, &moved);
            }
        }
        // SAFETY: the old cache's own mapping, to which nothing may refer any more.
        let ok = unsafe { libc::mprotect(moved.from as *mut _, moved.size, libc::PROT_NONE) };
        assert_eq!(ok, 0);
        moved
    }
}

/// # Safety
/// There must be pairs of addresses.
unsafe fn move_pairs(start: u64, bytes: usize, moved: &Moved) {
    // SAFETY: the caller's.
    let pairs = unsafe { std::slice::from_raw_parts_mut(start as *mut [u64; 2], bytes / 16) };
    for [_, host] in pairs.iter_mut().filter(|[_, host]| *host != 0) {
        *host = moved.of(*host);
    }
}

/// Everything is executable.
struct Open;

impl GuestMemory for Open {
    fn executable_from(&self, _addr: u64) -> u64 {
        PAGE
    }
    fn watch(&self, _start: u64, _end: u64) {}
}

/// Recursion, fib(11), in which each call makes a system call and one through a table, and jumps into the middle of what
/// may have been translated. The sums of it are in rbx and xmm0. The last system call is number -1.
fn program(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let [mut fib, mut leaf, mut table, mut done] = std::array::from_fn(|_| a.create_label());
    let [mut odd, mut even, mut far, mut middle] = std::array::from_fn(|_| a.create_label());
    a.lea(rdx, ptr(table))?;
    for (i, function) in [even, odd].into_iter().enumerate() {
        a.lea(rax, ptr(function))?;
        a.mov(qword_ptr(rdx + 8 * i), rax)?;
    }
    a.xor(ebx, ebx)?;
    a.xorps(xmm0, xmm0)?;
    a.mov(edi, 11u32)?;
    a.call(fib)?;
    a.jmp(done)?;

    a.set_label(&mut fib)?;
    a.mov(eax, edi)?;
    a.syscall()?;
    a.mov(eax, edi)?;
    a.and(eax, 1)?;
    a.lea(rdx, ptr(table))?;
    a.call(qword_ptr(rdx + rax * 8))?;
    a.cmp(edi, 2)?;
    a.jb(leaf)?;
    a.push(rdi)?;
    a.dec(edi)?;
    a.call(fib)?;
    a.mov(rdi, qword_ptr(rsp))?;
    a.sub(edi, 2)?;
    a.call(fib)?;
    a.pop(rdi)?;
    a.set_label(&mut leaf)?;
    a.ret()?;

    a.set_label(&mut odd)?;
    a.mov(rax, 0x1234_5678_9abc_def1u64)?;
    a.add(rbx, rax)?;
    a.set_label(&mut middle)?;
    a.rol(rbx, 3)?;
    a.cvtsi2sd(xmm1, rdi)?;
    a.addsd(xmm0, xmm1)?;
    a.ret()?;

    a.set_label(&mut even)?;
    a.lea(rax, ptr(far))?;
    a.jmp(rax)?;
    a.set_label(&mut far)?;
    a.add(rbx, rdi)?;
    a.lea(rax, ptr(middle))?;
    a.jmp(rax)?;

    a.set_label(&mut table)?;
    a.dq(&[0, 0])?;
    a.set_label(&mut done)?;
    a.mov(eax, u32::MAX)?;
    a.syscall()
}

/// What the guest can see.
#[derive(Debug, PartialEq)]
struct Seen {
    rip: u64,
    gpr: [u64; 16],
    xmm: [u128; 16],
    rflags: u64,
}

/// The program, and its stack, at one place for all runs.
struct Guest {
    start: u64,
    stack: u64,
}

impl Guest {
    fn new() -> Self {
        const SIZE: usize = 16 << 10;
        let start = anonymous(2 * SIZE, libc::PROT_READ | libc::PROT_WRITE).expect("memory");
        let mut a = CodeAssembler::new(64).expect("64-bit");
        program(&mut a).expect("encodable");
        let code = a.assemble(start).expect("encodable");
        assert!(code.len() < SIZE);
        // SAFETY: the memory mapped just now.
        unsafe { std::ptr::copy_nonoverlapping(code.as_ptr(), start as *mut u8, code.len()) };
        Guest { start, stack: start + 2 * SIZE as u64 }
    }

    /// Runs the program, and does something at each system call. Returns what there was to see at each.
    fn run(&self, mut at: impl FnMut(usize, &mut Engine, &CpuState)) -> Vec<Seen> {
        // The flags behind the last return are looked at.
        let config =
            Config { cache_size: 4 << 20, flags_live_at_return: true, ..Config::default() };
        let mut engine = Engine::new(config, Box::new(Open)).expect("address space");
        let mut cpu = CpuState::new();
        engine.attach(&mut cpu).expect("memory");
        (cpu.rip, cpu.gpr[4]) = (self.start, self.stack);
        let mut seen = Vec::new();
        loop {
            assert_eq!(engine.run(&mut cpu), Exit::Syscall);
            let (rip, gpr, xmm, rflags) = (cpu.rip, cpu.gpr, cpu.xmm, cpu.rflags());
            seen.push(Seen { rip, gpr, xmm, rflags });
            if cpu.gpr[0] == u64::from(u32::MAX) {
                break;
            }
            at(seen.len(), &mut engine, &cpu);
        }
        engine.detach(&mut cpu);
        seen
    }
}

/// Late enough for everything to be translated and linked.
const WARM: usize = 150;

#[test]
fn a_program_runs_on_when_its_translations_are_moved() {
    let guest = Guest::new();
    let expected = guest.run(|_, _, _| {});
    assert_eq!(expected.len(), 288); // the calls of fib(11), and the last one
    let mut before = Stats::default();
    let mut after = Stats::default();
    let seen = guest.run(|stop, engine, cpu| {
        if stop == WARM {
            assert!(cpu.shadow_sp < cpu.shadow_top, "no return is on its way");
            assert!(engine.stats().links > 0 && engine.stats().indirect_misses > 0);
            let moved = engine.move_cache();
            assert!(moved.branches > 8, "{} branches", moved.branches);
            assert!(moved.later_entries > 0, "nothing was entered in the middle");
            before = engine.stats();
        }
        after = engine.stats();
    });
    assert_eq!(seen, expected);
    // What was moved is what has run.
    let figures = |stats: Stats| (stats.regions, stats.links, stats.indirect_misses);
    assert_eq!(figures(before), figures(after));
}

/// Half translated, half linked, moved again and again; and what has been moved can be thrown away as ever.
#[test]
fn translations_are_moved_at_any_time() {
    let guest = Guest::new();
    let expected = guest.run(|_, _, _| {});
    let seen = guest.run(|stop, engine, _| {
        if stop < 10 || stop % 16 == 0 {
            engine.move_cache();
        }
        if stop % 48 == 0 {
            engine.invalidate(guest.start, guest.start + 1);
        }
        if stop == WARM {
            engine.keep_flags_at_faults(); // throws all translations away
        }
    });
    assert_eq!(seen, expected);
}
