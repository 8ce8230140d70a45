//! What can be said of emitted code without running it, for every instruction form: that it is the same wherever
//! the guest's code lies, but for the words it names, and that with several threads each access to guest memory is
//! made in the order of x86. Runs on every processor.

use demotic_isa::{case, forms, state::CODE};
use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind};
use std::sync::{Mutex, PoisonError};
use translator::asm::Reloc;
use translator::dump::{self, Translation};
use translator::engine::{Config, GuestMemory, HostFeatures, MemoryOrder};
use translator::lower::table;
use translator::relocation::Relocation;
use translator::tramp::Trampoline;

/// Draws of operands for each form.
const DRAWS: u32 = 12;
const SEED: u64 = 1;

/// How far the guest's code is moved, in bytes.
const MOVED: u64 = 0x50_0000;

/// The test area's addresses are the process's: one test at a time has its code there.
static AREA: Mutex<()> = Mutex::new(());

/// Guest code of a few bytes, in a mapping of its own at its own address.
struct Code {
    start: u64,
    end: u64,
}

impl GuestMemory for Code {
    fn executable_from(&self, address: u64) -> u64 {
        if (self.start..self.end).contains(&address) { self.end - address } else { 0 }
    }
    fn watch(&self, _start: u64, _end: u64) {}
}

impl Code {
    fn new(start: u64, bytes: &[u8]) -> Self {
        let page = start & !0xffff;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: maps two windows around the addresses of the test area, where a test process has nothing else;
        // the copy stays inside.
        unsafe {
            let p = libc::mmap(page as *mut _, 0x20000, prot, flags, -1, 0);
            assert_eq!(p as u64, page);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), start as *mut u8, bytes.len());
        }
        Self { start, end: start + bytes.len() as u64 }
    }

    fn translate(&self, order: MemoryOrder, host: HostFeatures) -> Translation {
        let config = Config { order, host, ..Config::default() };
        dump::translate(self, self.start, &config).expect("there is code")
    }
}

/// Every implemented form with some operands, and UD2 behind it; the instruction's address.
fn samples() -> impl Iterator<Item = (Instruction, u64, Vec<u8>)> {
    let draws = forms::all()
        .into_iter()
        .filter(|form| form.untested.is_none())
        .flat_map(|form| (0..DRAWS).filter_map(move |draw| case::form_case(form.code, draw, SEED)));
    draws.filter_map(|case| {
        let (rip, code) = (case.program.state.rip, &case.program.code);
        let ins = Decoder::with_ip(64, code, rip, DecoderOptions::NONE).decode();
        table::entry(&ins).lower?;
        let bytes = [&code[..ins.len()], &[0x0f, 0x0b]].concat();
        Some((ins, rip, bytes))
    })
}

fn hosts() -> [HostFeatures; 4] {
    let none = HostFeatures::default();
    let lse = HostFeatures { lse: true, lse2: true, ..none };
    let lrcpc = HostFeatures { lrcpc: true, flagm: true, flagm2: true, ..lse };
    [none, lse, lrcpc, HostFeatures { lrcpc2: true, ..lrcpc }]
}

#[test]
fn code_moves_with_the_guest_by_its_relocations() {
    let _area = AREA.lock().unwrap_or_else(PoisonError::into_inner);
    let mut wrong = Vec::new();
    let mut moved_words = 0;
    for (ins, rip, bytes) in samples() {
        let host = hosts()[3];
        let here = Code::new(rip, &bytes).translate(MemoryOrder::Plain, host);
        let there = Code::new(rip + MOVED, &bytes).translate(MemoryOrder::Plain, host);
        let mut code = here.asm.code().to_vec();
        for relocation in &here.asm.relocations {
            if let Some(at) = relocation.guest() {
                let at = at as usize / 4;
                let value = (u64::from(code[at]) | u64::from(code[at + 1]) << 32) + MOVED;
                (code[at], code[at + 1]) = (value as u32, (value >> 32) as u32);
                moved_words += 1;
            }
        }
        if code != there.asm.code() {
            wrong.push(format!("{:?}: {ins}", ins.code()));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
    assert!(moved_words > 1000, "{moved_words}");
    assert_eq!(CODE & 0xffff, 0);
}

/// What an arm64 instruction does with guest memory (Arm ARM C4.1.94, Loads and Stores).
#[derive(Clone, Copy, Debug, PartialEq)]
enum Access {
    /// Nothing.
    None,
    /// Ordered by itself as x86's loads and stores are: LDAPR, LDAPUR, LDAR, STLR, STLUR.
    Ordered,
    /// Both acquire and release: LSE's atomics with A and L, CASAL.
    Atomic,
    /// One of a pair of load-acquire exclusive and store-release exclusive.
    Exclusive,
    PlainLoad,
    PlainStore,
    /// A helper is called.
    Call,
    /// DMB ISH.
    Full,
    /// DMB ISHLD.
    LoadBarrier,
}

impl Access {
    fn of(word: u32) -> Self {
        let field = |low: u32, bits: u32| word >> low & ((1 << bits) - 1);
        match word {
            0xd503_3bbf => return Self::Full,
            0xd503_39bf => return Self::LoadBarrier,
            // No load or store; or one of a literal.
            _ if field(27, 1) == 0 || field(25, 1) == 1 || word & 0x3b00_0000 == 0x1800_0000 => {
                return Self::None;
            }
            _ => {}
        }
        // The translator's own: branch table, shadow stack, state, host stack.
        if [24, 27, 28, 31].contains(&field(5, 5)) {
            return Self::None;
        }
        let both = |acquire: u32, release: u32| {
            if field(acquire, 1) + field(release, 1) == 2 { Self::Atomic } else { Self::PlainStore }
        };
        let load = |load: bool| if load { Self::PlainLoad } else { Self::PlainStore };
        if word & 0x3f20_0c00 == 0x1900_0000 || word & 0x3fff_fc00 == 0x38bf_c000 {
            return Self::Ordered;
        }
        if word & 0x3f00_0000 == 0x0800_0000 {
            return match (field(23, 1), field(21, 1), field(15, 1)) {
                (1, 1, _) => both(22, 15),                      // CAS
                (0, 1, _) if field(31, 1) == 0 => both(22, 15), // CASP
                (1, 0, 1) => Self::Ordered,                     // LDAR, STLR
                (0, _, 1) => Self::Exclusive,                   // LDAXR, STLXR, and pairs
                _ => load(field(22, 1) == 1),
            };
        }
        if word & 0x3b20_0c00 == 0x3820_0000 {
            return both(23, 22);
        }
        let vector = field(26, 1) == 1;
        match field(28, 2) {
            0 | 2 => load(field(22, 1) == 1), // structures, pairs
            _ if !vector && field(30, 2) == 3 && field(22, 2) == 2 => Self::None, // PRFM
            _ if vector => load(field(22, 1) == 1),
            _ => load(field(22, 2) != 0),
        }
    }

    fn touches_memory(self) -> bool {
        !matches!(self, Self::None | Self::Full | Self::LoadBarrier)
    }
}

/// The accesses of the first instruction, up to the UD2 behind it or to the first exit's record. What is behind that
/// is slow paths of flags and literals.
fn accesses(translation: &Translation) -> Vec<Access> {
    let relocations = &translation.asm.relocations;
    let next =
        translation.emitted.map.iter().find(|entry| entry.guest != 0).map(|entry| entry.host);
    let record = relocations.iter().find_map(|relocation| relocation.guest());
    let code = translation.asm.code();
    let end = next.or(record).map_or(code.len(), |at| at as usize / 4);
    let helper = Reloc::Trampoline(Trampoline::CallHelper);
    // The register that a look-up in the indirect-branch table goes through: ADD from x24.
    let mut table = None;
    let of = |(i, &word): (usize, &u32)| {
        if word & 0x7f20_03e0 == 0x0b00_0300 {
            table = Some(word & 31);
        }
        match Access::of(word) {
            _ if relocations.contains(&Relocation::new(4 * i as u32, helper)) => Access::Call,
            Access::PlainLoad if table == Some(word >> 5 & 31) => Access::None,
            access => access,
        }
    };
    let all = code[..end].iter().enumerate().map(of);
    all.filter(|access| *access != Access::None).collect()
}

/// What is wrong with the order of an instruction's accesses.
fn disorder(ins: &Instruction, accesses: &[Access]) -> Option<String> {
    let locked = ins.has_lock_prefix()
        || ins.mnemonic() == Mnemonic::Xchg && ins.op_kinds().any(|kind| kind == OpKind::Memory);
    // These are lowered as if they were locked.
    let atomic = locked
        || matches!(
            ins.mnemonic(),
            Mnemonic::Xadd | Mnemonic::Cmpxchg | Mnemonic::Cmpxchg8b | Mnemonic::Cmpxchg16b
        );
    // Their helpers begin and end with a barrier.
    let string = matches!(
        ins.mnemonic(),
        Mnemonic::Movsb
            | Mnemonic::Movsw
            | Mnemonic::Movsd
            | Mnemonic::Movsq
            | Mnemonic::Stosb
            | Mnemonic::Stosw
            | Mnemonic::Stosd
            | Mnemonic::Stosq
    );
    let masked = matches!(ins.mnemonic(), Mnemonic::Maskmovq | Mnemonic::Maskmovdqu);
    let in_memory = masked || ins.op_kinds().any(|kind| kind == OpKind::Memory);
    // The nearest barrier that is not beyond another access.
    let before = |i: usize| {
        accesses[..i].iter().rev().take_while(|a| !a.touches_memory()).any(|a| *a == Access::Full)
    };
    let behind = |i: usize, enough: &[Access]| {
        accesses[i + 1..].iter().take_while(|a| !a.touches_memory()).any(|a| enough.contains(a))
    };
    for (i, access) in accesses.iter().enumerate() {
        let fine = match access {
            Access::PlainLoad => behind(i, &[Access::Full, Access::LoadBarrier]),
            Access::PlainStore => before(i),
            Access::Call => {
                !in_memory || string || atomic || before(i) && behind(i, &[Access::Full])
            }
            Access::Exclusive => atomic,
            _ => true,
        };
        if !fine {
            return Some(format!("access {i} of {accesses:?}"));
        }
    }
    let full = accesses.contains(&Access::Atomic)
        || accesses.contains(&Access::Exclusive) && accesses.contains(&Access::Full)
        || accesses.contains(&Access::Call);
    (locked && !full).then(|| format!("LOCK without a full barrier: {accesses:?}"))
}

#[test]
fn accesses_are_ordered() {
    let _area = AREA.lock().unwrap_or_else(PoisonError::into_inner);
    let mut wrong = Vec::new();
    let mut checked = 0;
    for (ins, rip, bytes) in samples() {
        let code = Code::new(rip, &bytes);
        for host in hosts() {
            let translation = code.translate(MemoryOrder::Ordered, host);
            let accesses = accesses(&translation);
            checked += accesses.len();
            if let Some(what) = disorder(&ins, &accesses) {
                wrong.push(format!("{:?}: {ins}: {what}", ins.code()));
            }
        }
    }
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(checked > 10_000, "{checked}");
}

#[test]
fn classes_of_loads_and_stores() {
    for (word, access) in [
        (0x3940_0020, Access::PlainLoad),  // ldrb w0, [x1]
        (0xb900_0020, Access::PlainStore), // str w0, [x1]
        (0xf940_0380, Access::None),       // ldr x0, [x28]
        (0xa940_0440, Access::PlainLoad),  // ldp x0, x1, [x2]
        (0x3dc0_0020, Access::PlainLoad),  // ldr q0, [x1]
        (0x3d80_0020, Access::PlainStore), // str q0, [x1]
        (0x4c00_7020, Access::PlainStore), // st1 {v0.16b}, [x1]
        (0xd95f_8041, Access::Ordered),    // ldapur x1, [x2, #-8]
        (0xf8bf_c041, Access::Ordered),    // ldapr x1, [x2]
        (0xc89f_fc41, Access::Ordered),    // stlr x1, [x2]
        (0xf8e1_0041, Access::Atomic),     // ldaddal x1, x1, [x2]
        (0xf821_0041, Access::PlainStore), // ldadd x1, x1, [x2]
        (0xc8e1_fc41, Access::Atomic),     // casal x1, x1, [x2]
        (0xc8a1_7c41, Access::PlainStore), // cas x1, x1, [x2]
        (0x4860_fc82, Access::Atomic),     // caspal x0, x1, x2, x3, [x4]
        (0xc85f_fc41, Access::Exclusive),  // ldaxr x1, [x2]
        (0xc85f_7c41, Access::PlainLoad),  // ldxr x1, [x2]
        (0xf980_0020, Access::None),       // prfm pldl1keep, [x1]
        (0x1000_0000, Access::None),       // adr x0, .
        (0x8b01_0000, Access::None),       // add x0, x0, x1
    ] {
        assert_eq!(Access::of(word), access, "{word:#x}");
    }
}
