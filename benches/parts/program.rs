//! The guest program whose code is translated: one of the gate's, by its regions.

use goblin::elf::{Elf, program_header::PF_X};
use translator::decode::WINDOW;
use translator::engine::{Config, GuestMemory, HostFeatures, PAGE};
use translator::facts::{self, Outside};
use translator::region::{CodeReader, MAX_INSTRUCTIONS, NoneTranslated, Region};

const FILE: &[u8] = include_bytes!("../gate/parts");

/// The program's code. It is not where the program would have it: that makes no difference to translation.
#[derive(Clone, Copy)]
pub struct Program {
    /// The bytes.
    pub code: &'static [u8],
}

impl GuestMemory for Program {
    fn executable_from(&self, addr: u64) -> u64 {
        let range = self.code.as_ptr_range();
        let inside = (range.start as u64..range.end as u64).contains(&addr);
        if inside { (range.end as u64 - addr).min(PAGE) } else { 0 }
    }
    fn watch(&self, _start: u64, _end: u64) {}
}

impl Program {
    /// Finds the code in the file.
    pub fn new() -> Self {
        let elf = Elf::parse(FILE).expect("an ELF file");
        let code = elf.program_headers.iter().find(|header| header.p_flags & PF_X != 0);
        let header = code.expect("executable");
        Program { code: &FILE[header.file_range()] }
    }

    /// The entries of the regions that it falls into, each behind the one before.
    pub fn entries(&self) -> Vec<u64> {
        let start = self.code.as_ptr() as u64;
        let next = |&entry: &u64| {
            let end = self.region(entry).insns.last()?.ins.next_ip();
            (self.executable_from(end) >= WINDOW as u64).then_some(end)
        };
        std::iter::successors(Some(start), next).collect()
    }

    /// The region at an entry.
    pub fn region(&self, entry: u64) -> Region {
        let mut region = Region::default();
        region.build(&CodeReader::new(self), entry, MAX_INSTRUCTIONS, &NoneTranslated, |_| true);
        region
    }

    /// What later code needs of a region's flags.
    pub fn facts(&self, region: &mut Region) {
        let code = &CodeReader::new(self);
        let outside =
            Outside { code, flags_live_at_return: false, flags_live_at_fault: false, found: None };
        facts::flag_liveness(region, outside);
    }

    /// All regions, with their facts.
    pub fn regions(&self) -> Vec<Region> {
        let mut regions: Vec<_> = self.entries().iter().map(|&entry| self.region(entry)).collect();
        regions.iter_mut().for_each(|region| self.facts(region));
        regions
    }
}

/// How many instructions there are in regions.
pub fn instructions(regions: &[Region]) -> u64 {
    regions.iter().map(|region| region.insns.len() as u64).sum()
}

/// A host of today, the same on every machine: this one's own need not have what is translated to.
pub fn config() -> Config {
    let host = HostFeatures {
        lse: true,
        lse2: true,
        lrcpc: true,
        lrcpc2: true,
        flagm: true,
        flagm2: true,
        ..HostFeatures::default()
    };
    Config { host, cache_size: 64 << 20, ..Config::default() }
}
