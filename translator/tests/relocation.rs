//! A translation is that of the same code at another address once its guest addresses are relocated: word for word, so
//! that each place that depends on the address has its record.

use std::ops::Range;
use translator::dump::{Translation, translate};
use translator::engine::{Config, GuestMemory, HostFeatures, MemoryOrder};
use translator::relocation::rebase;

/// A program of the C compiler's.
const PROGRAM: &[u8] = include_bytes!("../../benches/gate/parts");

/// Guest code at an address.
struct Image {
    code: Range<u64>,
}

impl Image {
    /// The bytes, where the kernel has room for them.
    fn of(bytes: &[u8]) -> Self {
        let place = Box::leak(vec![0u8; bytes.len() + PAGE].into_boxed_slice());
        let skip = place.as_ptr().align_offset(PAGE);
        place[skip..skip + bytes.len()].copy_from_slice(bytes);
        let start = place[skip..].as_ptr() as u64;
        Image { code: start..start + bytes.len() as u64 }
    }
}

const PAGE: usize = 4096;

impl GuestMemory for Image {
    fn executable_from(&self, addr: u64) -> u64 {
        if self.code.contains(&addr) { (self.code.end - addr).min(PAGE as u64) } else { 0 }
    }
    fn watch(&self, _start: u64, _end: u64) {}
}

/// Where an ELF file's first executable segment is in it.
fn executable_segment(elf: &[u8]) -> Range<usize> {
    let word = |at: usize| u64::from_le_bytes(elf[at..at + 8].try_into().expect("eight bytes"));
    let headers = word(32) as usize;
    let mut headers = (0..usize::from(elf[56])).map(|i| headers + 56 * i);
    let header = headers.find(|&at| elf[at] == 1 && elf[at + 4] & 1 != 0).expect("there is one");
    let [offset, length] = [8, 32].map(|field| word(header + field) as usize);
    offset..offset + length
}

/// How many words there were, and how many that had to be relocated.
fn compare(config: &Config) -> (usize, usize) {
    let bytes = &PROGRAM[executable_segment(PROGRAM)];
    let [here, there] = [bytes, bytes].map(Image::of);
    let by = there.code.start.wrapping_sub(here.code.start);
    assert_ne!(by, 0);
    let (mut words, mut moved) = (0, 0);
    let mut at = here.code.start;
    // Region by region, whether anything leads there or not.
    while let Some(Translation { region, asm, .. }) = translate(&here, at, config) {
        let expected = translate(&there, at.wrapping_add(by), config).expect("the same code").asm;
        let mut code = asm.code().to_vec();
        rebase(&mut code, asm.relocations.iter().copied(), by);
        assert!(code == expected.code(), "the region at {:#x}", at - here.code.start);
        assert_eq!(asm.relocations, expected.relocations);
        words += code.len();
        moved += code.iter().zip(asm.code()).filter(|(after, before)| after != before).count();
        at = region.insns.last().expect("one at least").ins.next_ip();
    }
    (words, moved)
}

#[test]
fn a_relocated_translation_is_that_of_the_relocated_code() {
    let host = HostFeatures {
        lse: true,
        lrcpc: true,
        lrcpc2: true,
        flagm: true,
        flagm2: true,
        ..Default::default()
    };
    let plain = Config { host, ..Config::default() };
    let (words, moved) = compare(&plain);
    assert!(words > 10_000 && moved > 500, "{moved} of {words}");
    compare(&Config { order: MemoryOrder::Ordered, ..Config::default() });
}
