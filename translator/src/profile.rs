//! `--profile`: how often each block of translated code is executed, and what its instructions are spent on.
//!
//! A block begins where control comes in or goes two ways, so one counter tells of all its instructions. What an arm64
//! instruction is for is read off from it and from the guest instruction that it stands for, see [`Cause::of`].

use crate::arena::Arena;
use crate::lower::{Emitted, MapEntry};
use crate::region::Region;
use iced_x86::{Instruction, Mnemonic, OpKind};
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// What an emitted instruction is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// What the guest instruction does.
    Work,
    /// Flags that Arm's instructions do not leave as x86's do.
    Flags,
    /// Address arithmetic that the access does not take.
    Address,
    /// Parts of registers.
    Partial,
    /// Copies for operations with two operands.
    Move,
    /// A branch at the end of a region, to where the guest just goes on.
    BlockEnd,
    /// Looking up the target of an indirect jump.
    Indirect,
    /// Calls and returns, but for the branch itself.
    CallReturn,
    /// Barriers, and room for them.
    Ordering,
    /// Calls of the translator's own functions.
    Helper,
    /// Leaving for a system call.
    Syscall,
}

/// The causes as the report has them.
const CAUSES: [(Cause, &str); 11] = [
    (Cause::Work, "work"),
    (Cause::Flags, "flags"),
    (Cause::Address, "address"),
    (Cause::Partial, "partial"),
    (Cause::Move, "moves"),
    (Cause::BlockEnd, "ends"),
    (Cause::Indirect, "indirect"),
    (Cause::CallReturn, "calls"),
    (Cause::Ordering, "ordering"),
    (Cause::Helper, "helpers"),
    (Cause::Syscall, "syscalls"),
];

type Counts = [u64; CAUSES.len()];

/// What an arm64 instruction is by its encoding (Arm ARM C4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Barrier,
    /// Reads or writes NZCV, and nothing else of interest.
    FlagsOnly,
    /// ADDS, SUBS or ANDS into the zero register.
    Comparison,
    Bitfield,
    Copy,
    AddressMaker,
    /// B.
    Branch,
    /// BL.
    Call,
    /// BR, BLR, RET.
    IndirectBranch,
    Load,
}

/// Which bits an instruction of a class has. The first row that fits counts.
const CLASSES: &[(u32, u32, Class)] = &[
    (0xffff_f0ff, 0xd503_30bf, Class::Barrier),      // DMB
    (0xffff_f01f, 0xd500_401f, Class::FlagsOnly),    // CFINV, XAFLAG, AXFLAG
    (0xffff_ffe0, 0xd53b_4200, Class::FlagsOnly),    // MRS NZCV
    (0xffff_ffe0, 0xd51b_4200, Class::FlagsOnly),    // MSR NZCV
    (0xffe0_7c10, 0xba00_0400, Class::FlagsOnly),    // RMIF
    (0xffff_bc1f, 0x3a00_080d, Class::FlagsOnly),    // SETF8, SETF16
    (0x3f00_001f, 0x3100_001f, Class::Comparison),   // ADDS, SUBS (immediate)
    (0x3f00_001f, 0x2b00_001f, Class::Comparison),   // ADDS, SUBS (shifted register)
    (0x7f80_001f, 0x7200_001f, Class::Comparison),   // ANDS (immediate)
    (0x7f00_001f, 0x6a00_001f, Class::Comparison),   // ANDS (shifted register)
    (0x1f80_0000, 0x1300_0000, Class::Bitfield),     // SBFM, BFM, UBFM
    (0x7fe0_ffe0, 0x2a00_03e0, Class::Copy),         // MOV (register)
    (0xffe0_fc00, 0x4ea0_1c00, Class::Copy),         // MOV (vector), if both operands are one
    (0xff00_0000, 0x5800_0000, Class::AddressMaker), // LDR (literal)
    (0x3f00_0000, 0x1100_0000, Class::AddressMaker), // ADD, SUB (immediate)
    (0x3f20_0000, 0x0b00_0000, Class::AddressMaker), // ADD, SUB (shifted register)
    (0xfc00_0000, 0x1400_0000, Class::Branch),
    (0xfc00_0000, 0x9400_0000, Class::Call),
    (0xff9f_fc1f, 0xd61f_0000, Class::IndirectBranch),
    (0x3fc0_0000, 0x3940_0000, Class::Load), // LDR (unsigned offset)
    (0x3fe0_0c00, 0x3860_0800, Class::Load), // LDR (register)
    (0x3fe0_0c00, 0x3840_0000, Class::Load), // LDUR
];

fn class(word: u32) -> Option<Class> {
    CLASSES.iter().find(|(mask, value, _)| word & mask == *value).map(|row| row.2)
}

/// PF's and AF's operands, see [`crate::lower`].
const FLAG_REGISTERS: [u32; 2] = [25, 26];
/// The first temporary.
const TEMPORARY: u32 = 16;

impl Cause {
    /// What an emitted instruction is for that stands for a guest instruction.
    pub fn of(word: u32, guest: &Instruction) -> Cause {
        use Mnemonic as M;
        let class = class(word);
        let destination = word & 31;
        let sets_register = word >> 25 & 5 == 4 || word >> 25 & 7 == 5;
        match (guest.mnemonic(), class) {
            (_, Some(Class::Barrier)) => Cause::Ordering,
            (_, Some(Class::FlagsOnly)) => Cause::Flags,
            _ if sets_register && FLAG_REGISTERS.contains(&destination) => Cause::Flags,
            (M::Syscall, _) => Cause::Syscall,
            (M::Call | M::Ret, Some(Class::Call | Class::IndirectBranch)) => Cause::Work,
            (M::Call | M::Ret, _) => Cause::CallReturn,
            (M::Jmp, Some(Class::Branch | Class::IndirectBranch | Class::Load)) => Cause::Work,
            (M::Jmp, _) => Cause::Indirect,
            (_, Some(Class::Branch)) => Cause::BlockEnd,
            (_, Some(Class::Call)) => Cause::Helper,
            (M::Cmp | M::Test, Some(Class::Comparison)) => Cause::Work,
            (_, Some(Class::Comparison)) => Cause::Flags,
            (_, Some(Class::Bitfield)) if is_narrow(guest) => Cause::Partial,
            (m, Some(Class::Copy)) if !is_move(m) => Cause::Move,
            (m, Some(Class::AddressMaker))
                if destination >= TEMPORARY && m != M::Lea && has_memory_operand(guest) =>
            {
                Cause::Address
            }
            _ => Cause::Work,
        }
    }
}

fn has_memory_operand(guest: &Instruction) -> bool {
    guest.op_kinds().any(|kind| kind == OpKind::Memory)
}

/// Whether it works on 8 or 16 bits, and not in order to extend or shift them.
fn is_narrow(guest: &Instruction) -> bool {
    let register = |i| guest.op_kind(i) == OpKind::Register && guest.op_register(i).size() < 4;
    !matches!(guest.mnemonic(), Mnemonic::Movzx | Mnemonic::Movsx)
        && (0..guest.op_count()).any(register)
}

fn is_move(mnemonic: Mnemonic) -> bool {
    use Mnemonic::*;
    matches!(
        mnemonic,
        Mov | Movzx | Movaps | Movups | Movapd | Movupd | Movdqa | Movdqu | Xchg | Lea
    )
}

/// A block under construction: its first guest instruction, where its code lies, and its counter.
#[derive(Clone, Debug)]
pub struct Block {
    pub(crate) index: usize,
    pub(crate) code: Range<u32>,
    pub(crate) counter: &'static AtomicU64,
}

/// A block that has been translated.
#[derive(Debug)]
struct Counted {
    region: u64,
    guest_instructions: u64,
    words: Counts,
    counter: &'static AtomicU64,
}

/// The counters of a process, and what they count.
#[derive(Debug)]
pub struct Profile {
    counters: Arena,
    blocks: Vec<Counted>,
}

/// Bytes of address space for counters.
const ROOM: usize = 64 << 20;

impl Profile {
    /// Reserves room for counters.
    pub fn new() -> io::Result<Self> {
        Ok(Profile { counters: Arena::new(ROOM)?, blocks: Vec::new() })
    }

    /// A new counter; None when there is no more room.
    pub(crate) fn counter(&self) -> Option<&'static AtomicU64> {
        self.counters.value(AtomicU64::new(0))
    }

    /// Notes the blocks of a region that has just been emitted.
    pub(crate) fn note(&mut self, region: &Region, code: &[u32], emitted: &Emitted) {
        // A leaf is there twice.
        let behind = |start| if start == 0 { region.insns.len() } else { start };
        let ends = emitted.blocks.iter().skip(1).map(|block| behind(block.index));
        for (block, end) in emitted.blocks.iter().zip(ends.chain([region.insns.len()])) {
            self.blocks.push(Counted {
                region: region.entry,
                guest_instructions: (end - block.index) as u64,
                words: words_by_cause(region, code, &emitted.map, block.code.clone()),
                counter: block.counter,
            });
        }
    }

    /// Begins to count anew.
    pub(crate) fn reset(&self) {
        for block in &self.blocks {
            block.counter.store(0, Ordering::Relaxed);
        }
    }

    /// What has been executed so far, the region with most instructions first.
    pub fn report(&self) -> Report {
        let mut regions: HashMap<u64, HotRegion> = HashMap::new();
        for block in &self.blocks {
            let times = block.counter.load(Ordering::Relaxed);
            let region = regions.entry(block.region).or_default();
            region.guest = block.region;
            region.guest_instructions += times * block.guest_instructions;
            for (sum, words) in region.words.iter_mut().zip(block.words) {
                *sum += times * words;
            }
        }
        let mut regions: Vec<HotRegion> = regions.into_values().collect();
        regions.sort_by_key(|region| std::cmp::Reverse((region.host_instructions(), region.guest)));
        Report { regions, names: Vec::new() }
    }
}

/// What a region's code is for, in a few words: how many arm64 instructions there are, and of each cause.
pub fn causes(region: &Region, code: &[u32], emitted: &Emitted) -> String {
    let start = emitted.entries[0].at;
    let words = words_by_cause(region, code, &emitted.map, start..emitted.hot_end);
    let there = CAUSES.iter().zip(words).filter(|(_, words)| *words > 0);
    let each: Vec<_> = there.map(|((_, name), words)| format!("{words} {name}")).collect();
    let ratio = words.iter().sum::<u64>() as f64 / region.insns.len() as f64;
    format!("{ratio:.2} arm64 for each guest instruction: {}", each.join(", "))
}

/// The words of a stretch of code by what they are for.
fn words_by_cause(region: &Region, code: &[u32], map: &[MapEntry], stretch: Range<u32>) -> Counts {
    let mut counts = Counts::default();
    for at in stretch.step_by(4) {
        let entry = map[map.partition_point(|entry| entry.host <= at).saturating_sub(1)];
        let guest = region.index_of(region.entry + u64::from(entry.guest));
        if let Some(guest) = guest {
            counts[Cause::of(code[at as usize / 4], &region.insns[guest].ins) as usize] += 1;
        }
    }
    counts
}

/// A region and what was executed of it.
#[derive(Clone, Debug, Default)]
struct HotRegion {
    guest: u64,
    guest_instructions: u64,
    words: Counts,
}

impl HotRegion {
    fn host_instructions(&self) -> u64 {
        self.words.iter().sum()
    }
}

/// What `--profile` prints.
#[derive(Debug)]
pub struct Report {
    regions: Vec<HotRegion>,
    names: Vec<Option<String>>,
}

/// So many regions are shown.
const SHOWN: usize = 25;

impl Report {
    /// How many guest instructions were executed.
    pub fn guest_instructions(&self) -> u64 {
        self.regions.iter().map(|region| region.guest_instructions).sum()
    }

    /// Finds names for the regions that are shown.
    pub fn named(mut self, name: impl Fn(u64) -> Option<String>) -> Self {
        self.names = self.regions.iter().take(SHOWN).map(|region| name(region.guest)).collect();
        self
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let mut all = HotRegion::default();
        for region in &self.regions {
            all.guest_instructions += region.guest_instructions;
            for (sum, words) in all.words.iter_mut().zip(region.words) {
                *sum += words;
            }
        }
        let total = all.host_instructions().max(1);
        writeln!(
            f,
            "profile: arm64 instructions of translated code for each guest instruction, by what they are for"
        )?;
        write!(f, "{:>6} {:>10} {:>6}", "share", "guest", "arm64")?;
        for (_, name) in CAUSES {
            write!(f, " {name:>8}")?;
        }
        writeln!(f, "  region")?;
        let row = |f: &mut fmt::Formatter, region: &HotRegion, name: &str| {
            let guest = region.guest_instructions.max(1) as f64;
            let share = 100.0 * region.host_instructions() as f64 / total as f64;
            let each = region.host_instructions() as f64 / guest;
            write!(f, "{share:5.1}% {:>10} {each:6.2}", region.guest_instructions)?;
            for words in region.words {
                write!(f, " {:8.2}", words as f64 / guest)?;
            }
            writeln!(f, "  {name}")
        };
        row(f, &all, "all of them")?;
        for (i, region) in self.regions.iter().take(SHOWN).enumerate() {
            let name = self.names.get(i).and_then(Option::as_deref).unwrap_or_default();
            row(f, region, &format!("{:#x} {name}", region.guest))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::code_asm::*;

    /// The cause of an arm64 instruction that stands for a guest instruction.
    fn cause(word: u32, guest: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> Cause {
        let mut a = CodeAssembler::new(64).expect("64-bit");
        guest(&mut a).expect("encodable");
        Cause::of(word, &a.instructions()[0])
    }

    #[test]
    fn causes_are_read_off() {
        let add = |a: &mut CodeAssembler| a.add(rax, rbx);
        assert_eq!(cause(0x8b03_0000, add), Cause::Work); // add x0, x0, x3
        assert_eq!(cause(0xca03_001a, add), Cause::Flags); // eor x26, x0, x3
        assert_eq!(cause(0xd500_401f, add), Cause::Flags); // cfinv
        assert_eq!(cause(0x1400_0010, add), Cause::BlockEnd); // b
        let compare = |a: &mut CodeAssembler| a.cmp(rax, rbx);
        assert_eq!(cause(0xeb03_001f, compare), Cause::Work); // cmp x0, x3
        assert_eq!(cause(0xeb03_001f, add), Cause::Flags);
        let load = |a: &mut CodeAssembler| a.mov(eax, ptr(rbx + rcx * 4 + 8));
        assert_eq!(cause(0x8b01_0870, load), Cause::Address); // add x16, x3, x1, lsl #2
        assert_eq!(cause(0xb940_0a00, load), Cause::Work); // ldr w0, [x16, #8]
        assert_eq!(cause(0xd503_39bf, load), Cause::Ordering); // dmb ishld
        let narrow = |a: &mut CodeAssembler| a.add(al, bl);
        assert_eq!(cause(0x3300_1e00, narrow), Cause::Partial); // bfxil w0, w16, #0, #8
        let extend = |a: &mut CodeAssembler| a.movzx(eax, bl);
        assert_eq!(cause(0x5300_1c60, extend), Cause::Work); // uxtb w0, w3
        let product = |a: &mut CodeAssembler| a.mulps(xmm0, xmm1);
        assert_eq!(cause(0x4ea1_1c20, product), Cause::Move); // mov v0.16b, v1.16b
        assert_eq!(cause(0x9400_0010, product), Cause::Helper); // bl
        let ret = |a: &mut CodeAssembler| a.ret();
        assert_eq!(cause(0xa8c1_7b71, ret), Cause::CallReturn); // ldp x17, x30, [x27], #16
        assert_eq!(cause(0xd65f_03c0, ret), Cause::Work); // ret
        let jump = |a: &mut CodeAssembler| a.jmp(rax);
        assert_eq!(cause(0xa940_4712, jump), Cause::Indirect); // ldp x18, x17, [x24]
        assert_eq!(cause(0xd61f_0220, jump), Cause::Work); // br x17
    }
}
