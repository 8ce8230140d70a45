//! Comparing two outcomes of a case.

use crate::{
    case::{Case, Tolerance},
    state::{CODE, DATA, DATA_SIZE, Outcome, State, vector},
    undefined::{Approximation, rflags, status_word},
};
use iced_x86::{Decoder, DecoderOptions, Mnemonic};

const GPR_NAMES: [&str; 16] = [
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13",
    "r14", "r15",
];

/// A place where two outcomes differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Register, flag, memory address or "stop".
    pub what: String,
    /// There on the reference processor.
    pub expected: String,
    /// There on the other.
    pub actual: String,
}

struct Differences(Vec<Difference>);

impl Differences {
    fn hex(&mut self, what: impl Into<String>, expected: impl Into<u128>, actual: impl Into<u128>) {
        let (expected, actual) = (expected.into(), actual.into());
        if expected != actual {
            let (expected, actual) = (format!("{expected:#x}"), format!("{actual:#x}"));
            self.0.push(Difference { what: what.into(), expected, actual });
        }
    }
}

/// MXCSR's masks of exceptions, and that of denormal operands.
const MASKS: u32 = 0x1f80;
const DENORMAL_MASK: u32 = 1 << 8;

/// MXCSR's bits for denormals as zeroes: results and operands.
const FTZ_DAZ: u32 = 0x8040;

/// All differences that count.
pub fn compare(case: &Case, expected: &Outcome, actual: &Outcome) -> Vec<Difference> {
    let start = &case.program.state;
    // Without FEAT_AFP the host does not tell denormal operands: no exception of theirs. And where one of FTZ and DAZ
    // is set, both are, so that other exceptions are raised than should be.
    let other_zeroes = start.mxcsr & FTZ_DAZ != 0 && start.mxcsr & MASKS != MASKS;
    let unseen = case.tolerance.without_afp && (start.mxcsr & DENORMAL_MASK == 0 || other_zeroes);
    if unseen || jumped_nowhere(expected, actual) {
        return Vec::new();
    }
    let mut found = Differences(Vec::new());
    stop(expected, actual, &mut found);
    let (e, a) = (&expected.state, &actual.state);
    for (i, name) in GPR_NAMES.iter().enumerate() {
        found.hex(*name, e.gpr[i], a.gpr[i]);
    }
    found.hex("rip", e.rip, a.rip);
    found.hex("fs_base", e.fs_base, a.fs_base);
    found.hex("gs_base", e.gs_base, a.gs_base);
    for (i, name) in ["ds", "es", "fs", "gs"].iter().enumerate() {
        // A null selector's lowest bits last until the next interrupt: IRET clears them (SDM vol. 2).
        let seen = |selector: u16| if selector < 4 { 0 } else { selector };
        found.hex(*name, seen(e.selectors[i]), seen(a.selectors[i]));
    }
    let undefined = case.tolerance.flags_of(expected);
    flags(e.rflags & !rflags(undefined), a.rflags & !rflags(undefined), &mut found);
    vectors(&case.tolerance, start, e, a, &mut found);
    x87(case.tolerance.approximation, undefined, e, a, &mut found);
    // Nor can MXCSR be compared where it was stored.
    if !(case.tolerance.without_afp && stores_mxcsr(case)) {
        memory(case, expected, actual, &mut found);
    }
    found.0
}

fn stores_mxcsr(case: &Case) -> bool {
    let decoder = Decoder::with_ip(64, &case.program.code, CODE, DecoderOptions::NONE);
    decoder.into_iter().any(|ins| ins.mnemonic() == Mnemonic::Stmxcsr)
}

/// A jump or return to an address that is not canonical: #GP at the jump on x86, a fault at the
/// target on arm64. The guest gets SIGSEGV either way and nothing can go on.
fn jumped_nowhere(expected: &Outcome, actual: &Outcome) -> bool {
    expected.stop.vector == vector::GP
        && actual.stop.vector == vector::GP
        && actual.state.rip >= 1 << 47
}

fn stop(expected: &Outcome, actual: &Outcome, found: &mut Differences) {
    let (e, a) = (expected.stop, actual.stop);
    if e.vector != a.vector {
        found.hex("stop: vector", e.vector, a.vector);
    } else if e.vector == vector::PF {
        // Which byte of an access across a page end is reported, processors decide themselves.
        found.hex("stop: page of the fault address", e.address >> 12, a.address >> 12);
    } else {
        found.hex("stop: error code", e.address, a.address);
    }
}

fn flags(expected: u32, actual: u32, found: &mut Differences) {
    for (name, bit) in
        [("CF", 0), ("PF", 2), ("AF", 4), ("ZF", 6), ("SF", 7), ("DF", 10), ("OF", 11)]
    {
        found.hex(name, expected >> bit & 1, actual >> bit & 1);
    }
}

fn vectors(tolerance: &Tolerance, start: &State, e: &State, a: &State, found: &mut Differences) {
    let mut ignored = rounded_away(e.mxcsr);
    if tolerance.without_afp {
        const DE: u32 = 1 << 1;
        if (start.mxcsr | e.mxcsr) & FTZ_DAZ != 0 {
            return;
        }
        ignored |= DE;
    }
    let approximation = tolerance.approximation;
    found.hex("mxcsr", e.mxcsr & !ignored, a.mxcsr & !ignored);
    for (name, e, a) in [("xmm", &e.xmm, &a.xmm), ("ymm_high", &e.ymm_high, &a.ymm_high)] {
        for i in 0..16 {
            if !close_lanes(approximation, e[i], a[i]) {
                found.hex(format!("{name}{i}"), e[i], a[i]);
            }
        }
    }
}

/// With overflow or underflow unmasked and raised, PE says whether the result would be inexact if exponents had no
/// limit (Intel SDM vol. 1, 4.9.1.5), which the translator does not find out.
fn rounded_away(mxcsr: u32) -> u32 {
    const OE_UE: u32 = 3 << 3;
    const PE: u32 = 1 << 5;
    if mxcsr & OE_UE & !(mxcsr >> 7) != 0 { PE } else { 0 }
}

/// Whether single-precision lanes agree as far as the approximation demands.
fn close_lanes(approximation: Approximation, expected: u128, actual: u128) -> bool {
    let Approximation::Relative(parts) = approximation else {
        return expected == actual;
    };
    (0..4).all(|lane| {
        let bits = |v: u128| (v >> (32 * lane)) as u32;
        let value = |v: u128| f64::from(f32::from_bits(bits(v)));
        let (e, a) = (value(expected), value(actual));
        bits(expected) == bits(actual) || (e - a).abs() <= e.abs() * f64::from(parts) / 16384.0
    })
}

fn x87(
    approximation: Approximation,
    undefined: u32,
    e: &State,
    a: &State,
    found: &mut Differences,
) {
    let (e, a) = (&e.x87, &a.x87);
    found.hex("x87 control word", e.cw, a.cw);
    found.hex("x87 tags", e.tag, a.tag);
    let mut ignored = status_word(undefined);
    if matches!(approximation, Approximation::Ulps(_)) {
        // C1 and PE say how the last bit was rounded.
        ignored |= 0x220;
    }
    found.hex("x87 status word", e.sw & !ignored, a.sw & !ignored);
    for i in 0..8 {
        if !close_x87(approximation, e.st[i], a.st[i]) {
            found.hex(format!("x87 R{i}"), e.st[i], a.st[i]);
        }
    }
}

fn close_x87(approximation: Approximation, expected: u128, actual: u128) -> bool {
    match approximation {
        // Neighbouring values of one sign are neighbouring integers, but for the explicit integer bit.
        Approximation::Ulps(n) => {
            let order = |v: u128| (v >> 64) << 63 | (v & (u128::MAX >> 65));
            expected >> 79 == actual >> 79
                && order(expected).abs_diff(order(actual)) <= u128::from(n)
        }
        _ => expected == actual,
    }
}

/// A store that faults on its second page may have written to the first one or not: arm64 leaves
/// that open (Arm ARM, B2.2.1), and saved state of the x87 unit goes out in several stores on x86 too.
fn partial_store(outcome: &Outcome) -> Option<(u64, u64)> {
    const LARGEST: u64 = 512;
    let page = outcome.stop.address & !0xfff;
    let faulted = outcome.stop.vector == vector::PF && page == DATA + DATA_SIZE as u64;
    faulted.then(|| (page - LARGEST, LARGEST))
}

fn memory(case: &Case, expected: &Outcome, actual: &Outcome, found: &mut Differences) {
    if expected.memory == actual.memory {
        return;
    }
    let image = |outcome: &Outcome| {
        let mut image = case.program.memory();
        for (address, bytes) in &outcome.memory {
            let at = (address - DATA) as usize;
            image[at..at + bytes.len()].copy_from_slice(bytes);
        }
        let partial = partial_store(expected);
        for (address, length) in case.tolerance.memory.iter().chain(&partial) {
            let at = (address - DATA) as usize;
            let end = (at + *length as usize).min(image.len());
            image[at.min(end)..end].fill(0);
        }
        image
    };
    let (e, a) = (image(expected), image(actual));
    // Eight bytes a line are enough to see what happened.
    for at in (0..e.len()).step_by(8).filter(|&at| e[at..at + 8] != a[at..at + 8]) {
        let value =
            |image: &[u8]| u64::from_le_bytes(image[at..at + 8].try_into().expect("eight bytes"));
        found.hex(format!("memory {:#x}", DATA + at as u64), value(&e), value(&a));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Stop;

    fn outcome(case: &Case) -> Outcome {
        let mut state = case.program.state.clone();
        state.rip += case.program.code.len() as u64 + 1;
        Outcome { state, memory: Vec::new(), stop: Stop { vector: vector::BP, address: 0 } }
    }

    #[test]
    fn every_wrong_result_is_seen() {
        let case = Case::by_name("Add_rm32_r32#0@0").expect("exists");
        let good = outcome(&case);
        assert_eq!(compare(&case, &good, &good), []);
        let changes: [fn(&mut Outcome); 10] = [
            |o| o.state.gpr[9] ^= 1,
            |o| o.state.rip += 1,
            |o| o.state.rflags ^= 1,
            |o| o.state.xmm[3] ^= 1 << 100,
            |o| o.state.ymm_high[3] ^= 1,
            |o| o.state.mxcsr ^= 1,
            |o| o.state.x87.st[2] ^= 1,
            |o| o.state.x87.sw ^= 0x800,
            |o| o.memory.push((DATA + 100, vec![1, 2, 3, 4, 5, 6, 7, 8, 9])),
            |o| o.stop.vector = vector::UD,
        ];
        for (i, change) in changes.iter().enumerate() {
            let mut bad = good.clone();
            change(&mut bad);
            assert_ne!(compare(&case, &good, &bad), [], "change {i} is not seen");
        }
    }

    #[test]
    fn undefined_flags_are_not_compared() {
        let case = Case::by_name("And_rm32_r32#1@0").expect("exists");
        let good = outcome(&case);
        let mut other = good.clone();
        other.state.rflags ^= 0x10;
        assert_eq!(compare(&case, &good, &other), []);
    }
}
