//! Whether emitted code keeps x86's memory order on arm64: for small programs of several threads (litmus tests) every
//! outcome that the Arm memory model allows the emitted code must be one that x86-TSO allows the guest's.
//!
//! See docs/memory-model.md for what is checked and what is left out. Runs on every processor.

#[path = "memory_model/axioms.rs"]
mod axioms;

use axioms::{Access, Step, arm, outcomes, tso};
use iced_x86::code_asm::*;
use iced_x86::{Decoder, DecoderOptions};
use std::collections::BTreeSet;
use translator::dump;
use translator::engine::{Config, GuestMemory, HostFeatures, MemoryOrder};

/// What a guest thread does. Locations are 0 to 2; values 1 to 4.
#[derive(Clone, Copy, Debug)]
enum Op {
    Store(usize, u64),
    Load(usize),
    VectorStore(usize, u64),
    VectorLoad(usize),
    Mfence,
    /// XCHG with memory, which is always locked.
    Swap(usize, u64),
}
use Op::*;

const X: usize = 0;
const Y: usize = 1;

/// The litmus tests by their usual names; stores and loads stand for vector ones, too.
const TESTS: &[(&str, &[&[Op]])] = &[
    ("MP", &[&[Store(X, 1), Store(Y, 1)], &[Load(Y), Load(X)]]),
    ("MP+mfence+po", &[&[Store(X, 1), Mfence, Store(Y, 1)], &[Load(Y), Load(X)]]),
    ("MP+xchg+po", &[&[Store(X, 1), Swap(Y, 1)], &[Load(Y), Load(X)]]),
    ("MP+po+xchg", &[&[Store(X, 1), Store(Y, 1)], &[Swap(Y, 2), Load(X)]]),
    ("SB", &[&[Store(X, 1), Load(Y)], &[Store(Y, 1), Load(X)]]),
    ("SB+mfences", &[&[Store(X, 1), Mfence, Load(Y)], &[Store(Y, 1), Mfence, Load(X)]]),
    ("SB+xchgs", &[&[Swap(X, 1), Load(Y)], &[Swap(Y, 1), Load(X)]]),
    ("SB+po-xchg", &[&[Store(X, 1), Swap(Y, 2)], &[Store(Y, 1), Mfence, Load(X)]]),
    ("SB+other-xchg", &[&[Store(X, 1), Swap(2, 1), Load(Y)], &[Store(Y, 1), Mfence, Load(X)]]),
    ("SB+xchg-xchg", &[&[Store(X, 1), Swap(Y, 2)], &[Store(Y, 1), Swap(X, 2)]]),
    ("LB", &[&[Load(X), Store(Y, 1)], &[Load(Y), Store(X, 1)]]),
    ("S", &[&[Store(X, 2), Store(Y, 1)], &[Load(Y), Store(X, 1)]]),
    ("R", &[&[Store(X, 1), Store(Y, 1)], &[Store(Y, 2), Load(X)]]),
    ("R+po+mfence", &[&[Store(X, 1), Store(Y, 1)], &[Store(Y, 2), Mfence, Load(X)]]),
    ("2+2W", &[&[Store(X, 1), Store(Y, 2)], &[Store(Y, 1), Store(X, 2)]]),
    ("WRC", &[&[Store(X, 1)], &[Load(X), Store(Y, 1)], &[Load(Y), Load(X)]]),
    ("WWC", &[&[Store(X, 2)], &[Load(X), Store(Y, 1)], &[Load(Y), Store(X, 1)]]),
    ("ISA2", &[&[Store(X, 1), Store(Y, 1)], &[Load(Y), Store(2, 1)], &[Load(2), Load(X)]]),
    ("RWC+mfence", &[&[Store(X, 1)], &[Load(X), Load(Y)], &[Store(Y, 1), Mfence, Load(X)]]),
    ("IRIW", &[&[Store(X, 1)], &[Store(Y, 1)], &[Load(X), Load(Y)], &[Load(Y), Load(X)]]),
    ("CoRR", &[&[Store(X, 1)], &[Load(X), Load(X)]]),
    ("CoWR", &[&[Store(X, 1), Load(X)], &[Store(X, 2)]]),
    ("n6", &[&[Store(X, 1), Load(X), Load(Y)], &[Store(Y, 2), Store(X, 2)]]),
    ("swaps", &[&[Swap(X, 1)], &[Swap(X, 2)], &[Load(X), Load(X)]]),
];

const BASE: u64 = 0x2000_0000;

struct Code(u64);

impl GuestMemory for Code {
    fn executable_from(&self, addr: u64) -> u64 {
        (BASE + self.0).saturating_sub(addr.max(BASE)).min(4096)
    }
    fn watch(&self, _start: u64, _end: u64) {}
}

/// The address of each location is in a register, and each value in an integer and in a vector register.
fn assemble(ops: &[Op]) -> Vec<u8> {
    let at = |location: usize| [rdi, rsi, rbp][location];
    let value = |value: u64| [r8, r9, r10, r11][value as usize - 1];
    let vector = |value: u64| [xmm1, xmm2, xmm3, xmm4][value as usize - 1];
    let mut a = CodeAssembler::new(64).expect("64-bit");
    for op in ops {
        match *op {
            Store(l, v) => a.mov(qword_ptr(at(l)), value(v)),
            Load(l) => a.mov(rax, qword_ptr(at(l))),
            VectorStore(l, v) => a.movups(xmmword_ptr(at(l)), vector(v)),
            VectorLoad(l) => a.movups(xmm0, xmmword_ptr(at(l))),
            Mfence => a.mfence(),
            Swap(l, v) => a.xchg(qword_ptr(at(l)), value(v)),
        }
        .expect("encodable");
    }
    a.hlt().expect("encodable");
    a.assemble(BASE).expect("assembles")
}

/// What the guest's thread does by x86's model.
fn guest_steps(ops: &[Op]) -> Vec<Step> {
    let access = |write, location, value, rmw| {
        let plain =
            Access { write, location, value, strong: false, acquire_pc: false, rmw, single: false };
        Step::Access(plain)
    };
    ops.iter()
        .flat_map(|op| match *op {
            Store(l, v) | VectorStore(l, v) => vec![access(true, l, v, false)],
            Load(l) | VectorLoad(l) => vec![access(false, l, 0, false)],
            Mfence => vec![Step::Full],
            Swap(l, v) => vec![access(false, l, 0, true), access(true, l, v, true)],
        })
        .collect()
}

/// What vector accesses stand for: themselves, or scalar ones that are known to be misaligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Vectors {
    Themselves,
    Misaligned,
}

impl Vectors {
    /// What is executed for a vector access in their place.
    fn scalar(self, op: Op) -> Option<Op> {
        match op {
            VectorStore(l, v) if self == Vectors::Misaligned => Some(Store(l, v)),
            VectorLoad(l) if self == Vectors::Misaligned => Some(Load(l)),
            _ => None,
        }
    }
}

/// What the emitted code does.
fn emitted_steps(
    ops: &[Op],
    order: MemoryOrder,
    host: HostFeatures,
    vectors: Vectors,
) -> Vec<Step> {
    let executed: Vec<_> = ops.iter().map(|&op| vectors.scalar(op).unwrap_or(op)).collect();
    let bytes = assemble(&executed);
    let decoder = Decoder::with_ip(64, &bytes, BASE, DecoderOptions::NONE);
    let misaligned = ops.iter().zip(decoder).filter(|(op, _)| vectors.scalar(**op).is_some());
    let misaligned = misaligned.map(|(_, instruction)| instruction.ip()).collect();
    // SAFETY: a new private mapping at an address that is free in a test process; the copy stays inside.
    unsafe {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        let p = libc::mmap(BASE as *mut _, 65536, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
        assert_eq!(p as u64, BASE);
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), BASE as *mut u8, bytes.len());
    }
    let config = Config { order, host, ..Config::default() };
    let translation =
        dump::translate_knowing(&Code(bytes.len() as u64), BASE, &config, &misaligned)
            .expect("there is code");
    let steps: Vec<_> = translation.asm.code().iter().flat_map(|word| classify(*word)).collect();
    let accesses = |steps: &[Step]| steps.iter().filter(|s| matches!(s, Step::Access(_))).count();
    assert_eq!(accesses(&steps), accesses(&guest_steps(ops)), "{ops:?}: {steps:?}");
    steps
}

/// The encodings that access memory (Arm ARM C4.1.94), of 64 and 128 bits: mask, value, and what they are.
const ENCODINGS: &[(u32, u32, Kind)] = &[
    (0xffe0_0c00, 0xd940_0000, Kind::Read { strong: false, acquire_pc: true }), // LDAPUR
    (0xffff_fc00, 0xf8bf_c000, Kind::Read { strong: false, acquire_pc: true }), // LDAPR
    (0xffff_fc00, 0xc8df_fc00, Kind::Read { strong: true, acquire_pc: false }), // LDAR
    (0xffc0_0000, 0xf940_0000, Kind::Read { strong: false, acquire_pc: false }), // LDR
    (0xffe0_0c00, 0xf840_0000, Kind::Read { strong: false, acquire_pc: false }), // LDUR
    (0xffc0_0000, 0x3dc0_0000, Kind::Read { strong: false, acquire_pc: false }), // LDR (SIMD&FP)
    (0xffe0_0c00, 0xd900_0000, Kind::Write { strong: true }),                   // STLUR
    (0xffff_fc00, 0xc89f_fc00, Kind::Write { strong: true }),                   // STLR
    (0xffc0_0000, 0xf900_0000, Kind::Write { strong: false }),                  // STR
    (0xffe0_0c00, 0xf800_0000, Kind::Write { strong: false }),                  // STUR
    (0xffc0_0000, 0x3d80_0000, Kind::Write { strong: false }),                  // STR (SIMD&FP)
    (0xffe0_fc00, 0xf8e0_8000, Kind::Swap),                                     // SWPAL
    (0xffff_fc00, 0xc85f_fc00, Kind::LoadExclusive),                            // LDAXR
    (0xffe0_fc00, 0xc800_fc00, Kind::StoreExclusive),                           // STLXR
];

#[derive(Clone, Copy)]
enum Kind {
    Read { strong: bool, acquire_pc: bool },
    Write { strong: bool },
    Swap,
    LoadExclusive,
    StoreExclusive,
}

/// What one instruction does with memory, if its address is in a register that holds a location's.
fn classify(word: u32) -> Vec<Step> {
    match word {
        0xd503_3bbf => return vec![Step::Full],
        0xd503_39bf => return vec![Step::Loads],
        0xd503_3abf => return vec![Step::Stores],
        _ => {}
    }
    let Some((.., kind)) = ENCODINGS.iter().find(|(mask, value, _)| word & mask == *value) else {
        return Vec::new();
    };
    let Some(location) = [7, 6, 5].iter().position(|base| *base == word >> 5 & 31) else {
        return Vec::new();
    };
    // r8 to r11 are x8 to x11; xmm1 to xmm4 are v1 to v4.
    let value = |register: u32| u64::from(if register >= 8 { register - 7 } else { register });
    let (t, s) = (word & 31, word >> 16 & 31);
    let read = |strong, acquire_pc, rmw, single| {
        Step::Access(Access { write: false, location, value: 0, strong, acquire_pc, rmw, single })
    };
    let write = |strong, register, rmw, single| {
        let value = value(register);
        Step::Access(Access {
            write: true,
            location,
            value,
            strong,
            acquire_pc: false,
            rmw,
            single,
        })
    };
    match *kind {
        Kind::Read { strong, acquire_pc } => vec![read(strong, acquire_pc, false, false)],
        Kind::Write { strong } => vec![write(strong, t, false, false)],
        Kind::Swap => vec![read(true, false, true, true), write(true, s, true, true)],
        Kind::LoadExclusive => vec![read(true, false, true, false)],
        Kind::StoreExclusive => vec![write(true, t, true, false)],
    }
}

/// A test with every mixture of scalar and vector accesses.
fn mixtures(threads: &[&[Op]]) -> Vec<Vec<Vec<Op>>> {
    let plain = |op: &&Op| matches!(op, Store(..) | Load(_));
    let count = threads.iter().flat_map(|ops| ops.iter()).filter(plain).count();
    let mixture = |choice: u32| {
        let mut bits = choice;
        let mut vary = |op: &Op| {
            let vector = bits & 1 != 0;
            if plain(&op) {
                bits >>= 1;
            }
            match *op {
                Store(l, v) if vector => VectorStore(l, v),
                Load(l) if vector => VectorLoad(l),
                other => other,
            }
        };
        threads.iter().map(|ops| ops.iter().map(&mut vary).collect()).collect()
    };
    (0..1 << count).map(mixture).collect()
}

fn hosts() -> [HostFeatures; 4] {
    let none = HostFeatures::default();
    let lse = HostFeatures { lse: true, lse2: true, ..none };
    let lrcpc = HostFeatures { lrcpc: true, ..lse };
    [none, lse, lrcpc, HostFeatures { lrcpc2: true, ..lrcpc }]
}

/// Outcomes of a mixture that x86 does not allow.
fn violations(
    threads: &[Vec<Op>],
    order: MemoryOrder,
    host: HostFeatures,
    vectors: Vectors,
) -> usize {
    let allowed = outcomes(&threads.iter().map(|ops| guest_steps(ops)).collect::<Vec<_>>(), tso);
    let steps: Vec<_> =
        threads.iter().map(|ops| emitted_steps(ops, order, host, vectors)).collect();
    let got: BTreeSet<_> = outcomes(&steps, arm);
    assert!(!got.is_empty() && !allowed.is_empty());
    got.difference(&allowed).count()
}

/// One test function: all use the mapping at [`BASE`].
#[test]
fn emitted_code_keeps_the_order_of_x86() {
    let mut wrong = Vec::new();
    for (name, threads) in TESTS {
        for mixture in mixtures(threads) {
            for host in hosts() {
                for vectors in [Vectors::Themselves, Vectors::Misaligned] {
                    if violations(&mixture, MemoryOrder::Ordered, host, vectors) > 0 {
                        wrong.push(format!("{name}: {mixture:?} with {host:?}, {vectors:?}"));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    the_check_can_fail();
}

/// Plain accesses, which a process with one thread gets, break the order of most tests.
fn the_check_can_fail() {
    let broken = |name: &str| {
        let (_, threads) = TESTS.iter().find(|test| test.0 == name).expect("a test");
        let threads: Vec<_> = threads.iter().map(|ops| ops.to_vec()).collect();
        violations(&threads, MemoryOrder::Plain, hosts()[3], Vectors::Themselves) > 0
    };
    for name in ["MP", "LB", "S", "2+2W", "WRC", "IRIW"] {
        assert!(broken(name), "{name}");
    }
    // What x86 does not order either.
    assert!(!broken("SB"));
}

/// The reference itself, by the outcomes that the Intel SDM (vol. 3, 9.2.3) gives as examples.
#[test]
fn the_model_of_x86_is_the_manuals() {
    let allows = |name: &str, outcome: &[u64]| {
        let (_, threads) = TESTS.iter().find(|test| test.0 == name).expect("a test");
        let steps: Vec<_> = threads.iter().map(|ops| guest_steps(ops)).collect();
        outcomes(&steps, tso).contains(outcome)
    };
    assert!(!allows("MP", &[1, 0, 1, 1]));
    assert!(!allows("LB", &[1, 1, 1, 1]));
    assert!(allows("SB", &[0, 0, 1, 1]));
    assert!(!allows("SB+mfences", &[0, 0, 1, 1]));
    assert!(!allows("SB+xchgs", &[0, 0, 0, 0, 1, 1]));
    assert!(!allows("IRIW", &[1, 0, 1, 0, 1, 1]));
    assert!(allows("n6", &[1, 0, 1, 2]));
}
