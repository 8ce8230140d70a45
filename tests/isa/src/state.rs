//! What a test program starts from and what it leaves: registers, memory and the reason it stopped.

use crate::rng::{Lane, Rng};
use serde::{Deserialize, Serialize};

/// Address of the memory that operands point into, the same natively and translated.
pub const DATA: u64 = 0x1000_0000;
/// Its size; the areas before and behind are not mapped, with 4 KiB and with 16 KiB pages.
pub const DATA_SIZE: usize = 0x4000;
/// Operands point below, the stack lies above.
pub const OPERANDS_SIZE: u64 = 0x2000;
/// Where the stack pointer stands at the start: the middle of the stack.
pub const STACK: u64 = DATA + 0x3000;
/// Address of the memory that code is put into; whatever is not test code there is INT3.
pub const CODE: u64 = 0x2000_0000;
/// Its size.
pub const CODE_SIZE: usize = 0x4000;

/// CF PF AF ZF SF DF OF.
pub const COMPARED_FLAGS: u32 = 0xcd5;
/// Index of RSP in [`State::gpr`].
pub const RSP: usize = 4;

/// The x87 unit; MMX registers are the significands of `st`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct X87 {
    /// Physical registers.
    pub st: [u128; 8],
    /// Control word.
    pub cw: u16,
    /// Status word, TOP included.
    pub sw: u16,
    /// One bit for each physical register: 1 = not empty.
    pub tag: u8,
}

impl X87 {
    /// TOP of the status word.
    pub fn top(&self) -> usize {
        usize::from(self.sw >> 11 & 7)
    }
}

/// The registers of a user-mode program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// rax rcx rdx rbx rsp rbp rsi rdi r8..r15.
    pub gpr: [u64; 16],
    /// Instruction pointer.
    pub rip: u64,
    /// The flags of [`COMPARED_FLAGS`].
    pub rflags: u32,
    /// FS base.
    pub fs_base: u64,
    /// GS base.
    pub gs_base: u64,
    /// The selectors in DS, ES, FS and GS.
    pub selectors: [u16; 4],
    /// Low halves of the vector registers.
    pub xmm: [u128; 16],
    /// High halves of the vector registers.
    pub ymm_high: [u128; 16],
    /// SSE control and status.
    pub mxcsr: u32,
    /// The x87 unit.
    pub x87: X87,
}

impl State {
    /// A random state whose vector registers hold lanes of a kind. Exceptions are masked.
    pub fn random(rng: &mut Rng, lane: Lane) -> Self {
        let mut gpr = [0; 16];
        gpr.fill_with(|| rng.int());
        gpr[RSP] = STACK + 8 * rng.below(16);
        let mut xmm = [0; 16];
        xmm.fill_with(|| rng.lanes(lane));
        let mut ymm_high = [0; 16];
        ymm_high.fill_with(|| rng.lanes(lane));
        let selectors = segment_selectors(&mut Rng::new(gpr[0] ^ gpr[15]));
        Self {
            gpr,
            rip: CODE,
            rflags: rng.bits() as u32 & COMPARED_FLAGS,
            fs_base: segment_base(rng),
            gs_base: segment_base(rng),
            selectors,
            xmm,
            ymm_high,
            mxcsr: random_mxcsr(rng),
            x87: random_x87(rng, lane),
        }
    }
}

/// Selectors that can be loaded, more often than not the usual null.
fn segment_selectors(rng: &mut Rng) -> [u16; 4] {
    let mut selectors = [0; 4];
    if rng.chance(30) {
        selectors.fill_with(|| rng.pick(&[0, 0x23, 0x28, 0x2b, 0x33]));
    }
    selectors
}

/// A segment base: near the data, or far from it so that the sum wraps around.
fn segment_base(rng: &mut Rng) -> u64 {
    match rng.below(3) {
        0 => 0,
        1 => DATA + 8 * rng.below(512),
        _ => 0x7fff_0000_0000 + 8 * rng.below(1 << 20),
    }
}

/// An MXCSR value with all exceptions masked.
pub fn random_mxcsr(rng: &mut Rng) -> u32 {
    if rng.chance(60) {
        return 0x1f80;
    }
    let rounding = (rng.below(4) as u32) << 13;
    let flags = rng.bits() as u32 & rng.pick(&[0, 0x3f]);
    let zeros = rng.pick(&[0, 0, 0x8000, 0x0040, 0x8040]);
    0x1f80 | rounding | flags | zeros
}

/// A control word with all exceptions masked: extended precision, round to nearest more often than not.
pub fn random_x87_control(rng: &mut Rng) -> u16 {
    if rng.chance(60) {
        return 0x37f;
    }
    let precision = rng.pick(&[0x000, 0x200, 0x300, 0x300]);
    0x7f | precision | (rng.below(4) as u16) << 10
}

fn random_x87(rng: &mut Rng, lane: Lane) -> X87 {
    let mut st = [0; 8];
    let values = if rng.chance(50) { Lane::F80 } else { lane };
    // Integers stand for MMX registers, whose write sets the exponent field to all ones.
    st.fill_with(|| match values {
        Lane::F80 => rng.f80(),
        _ => 0xffff << 64 | u128::from(rng.lanes(lane) as u64),
    });
    let tag = match rng.below(8) {
        0 => rng.bits() as u8,
        1 => 0,
        _ => 0xff,
    };
    let sw =
        (rng.below(8) as u16) << 11 | rng.bits() as u16 & rng.pick(&[0, 0, 0x4700, 0x473f, 0x477f]);
    X87 { st, cw: random_x87_control(rng), sw, tag }
}

/// What a test is executed from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// The code; [`State::rip`] is where it lies.
    pub code: Vec<u8>,
    /// Registers at the start.
    pub state: State,
    /// What the memory is filled from.
    pub memory_seed: u64,
    /// Bytes put over that: address and value.
    pub patches: Vec<(u64, Vec<u8>)>,
}

impl Program {
    /// The memory at the start.
    pub fn memory(&self) -> Vec<u8> {
        let mut rng = Rng::new(self.memory_seed);
        let mut image = Vec::with_capacity(DATA_SIZE);
        while image.len() < DATA_SIZE {
            image.extend_from_slice(&rng.bits().to_le_bytes());
        }
        for (address, bytes) in &self.patches {
            let at = (address - DATA) as usize;
            image[at..at + bytes.len()].copy_from_slice(bytes);
        }
        image
    }
}

/// Whether a range lies in the data memory.
pub fn in_data(address: u64, size: usize) -> bool {
    (DATA..=DATA + (DATA_SIZE - size) as u64).contains(&address)
}

/// Why a program stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// The exception's vector (Intel SDM vol. 3, 6.3.1). 3, of an INT3, is the ordinary end.
    pub vector: u8,
    /// The address a page fault was about; for #GP the error code; 0 for other vectors.
    pub address: u64,
}

/// Vectors of [`Stop`].
#[allow(missing_docs)] // the names are the architecture's
pub mod vector {
    pub const DE: u8 = 0;
    pub const BP: u8 = 3;
    pub const UD: u8 = 6;
    pub const SS: u8 = 12;
    pub const GP: u8 = 13;
    pub const PF: u8 = 14;
    pub const MF: u8 = 16;
    pub const AC: u8 = 17;
    pub const XM: u8 = 19;
    /// Not a vector: the translator says that it does not have the instruction.
    pub const UNIMPLEMENTED: u8 = 255;
}

/// What a program left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Registers; for a fault those of the faulting instruction.
    pub state: State,
    /// Changed memory: address and bytes, ascending.
    pub memory: Vec<(u64, Vec<u8>)>,
    /// Why it stopped.
    pub stop: Stop,
}

/// The runs of bytes in which two memory images differ. Gaps under four bytes are bridged.
pub fn changed_memory(before: &[u8], after: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    if before == after {
        return Vec::new();
    }
    for i in (0..before.len()).filter(|&i| before[i] != after[i]) {
        match runs.last_mut() {
            Some((_, end)) if i < *end + 4 => *end = i + 1,
            _ => runs.push((i, i + 1)),
        }
    }
    runs.into_iter().map(|(start, end)| (DATA + start as u64, after[start..end].to_vec())).collect()
}

/// An [`Outcome`] as a difference from the start, which is what records keep.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta {
    gpr: Vec<(u8, u64)>,
    rip: i64,
    rflags: Option<u32>,
    fs_base: Option<u64>,
    gs_base: Option<u64>,
    selectors: Option<[u16; 4]>,
    xmm: Vec<(u8, u128)>,
    ymm_high: Vec<(u8, u128)>,
    mxcsr: Option<u32>,
    st: Vec<(u8, u128)>,
    x87: Option<(u16, u16, u8)>,
    memory: Vec<(u64, Vec<u8>)>,
    stop: Stop,
}

fn changed<T: Copy + PartialEq>(before: &[T], after: &[T]) -> Vec<(u8, T)> {
    (0..before.len()).filter(|&i| before[i] != after[i]).map(|i| (i as u8, after[i])).collect()
}

fn apply<T: Copy>(values: &mut [T], changes: &[(u8, T)]) {
    for &(i, v) in changes {
        values[usize::from(i)] = v;
    }
}

impl Delta {
    /// What changed.
    pub fn new(start: &State, outcome: &Outcome) -> Self {
        let end = &outcome.state;
        let control = |x: &X87| (x.cw, x.sw, x.tag);
        Self {
            gpr: changed(&start.gpr, &end.gpr),
            rip: end.rip.wrapping_sub(start.rip) as i64,
            rflags: (start.rflags != end.rflags).then_some(end.rflags),
            fs_base: (start.fs_base != end.fs_base).then_some(end.fs_base),
            gs_base: (start.gs_base != end.gs_base).then_some(end.gs_base),
            selectors: (start.selectors != end.selectors).then_some(end.selectors),
            xmm: changed(&start.xmm, &end.xmm),
            ymm_high: changed(&start.ymm_high, &end.ymm_high),
            mxcsr: (start.mxcsr != end.mxcsr).then_some(end.mxcsr),
            st: changed(&start.x87.st, &end.x87.st),
            x87: (control(&start.x87) != control(&end.x87)).then_some(control(&end.x87)),
            memory: outcome.memory.iter().map(|(a, b)| (a - DATA, b.clone())).collect(),
            stop: outcome.stop,
        }
    }

    /// The vector of the exception that ended the program.
    pub fn vector(&self) -> u8 {
        self.stop.vector
    }

    /// The outcome this is the difference of.
    pub fn outcome(&self, start: &State) -> Outcome {
        let mut state = start.clone();
        apply(&mut state.gpr, &self.gpr);
        state.rip = start.rip.wrapping_add(self.rip as u64);
        state.rflags = self.rflags.unwrap_or(start.rflags);
        state.fs_base = self.fs_base.unwrap_or(start.fs_base);
        state.gs_base = self.gs_base.unwrap_or(start.gs_base);
        state.selectors = self.selectors.unwrap_or(start.selectors);
        apply(&mut state.xmm, &self.xmm);
        apply(&mut state.ymm_high, &self.ymm_high);
        state.mxcsr = self.mxcsr.unwrap_or(start.mxcsr);
        apply(&mut state.x87.st, &self.st);
        if let Some((cw, sw, tag)) = self.x87 {
            state.x87 = X87 { cw, sw, tag, ..state.x87 };
        }
        let memory = self.memory.iter().map(|(a, b)| (a + DATA, b.clone())).collect();
        Outcome { state, memory, stop: self.stop }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delta_gives_the_outcome_back() {
        let start = State::random(&mut Rng::new(1), Lane::F32);
        let end = State::random(&mut Rng::new(2), Lane::F64);
        let outcome = Outcome {
            state: end,
            memory: vec![(DATA + 5, vec![1, 2, 3])],
            stop: Stop { vector: vector::PF, address: 77 },
        };
        assert_eq!(Delta::new(&start, &outcome).outcome(&start), outcome);
    }

    #[test]
    fn changed_memory_bridges_small_gaps() {
        let mut after = vec![0u8; 64];
        for i in [3, 5, 20] {
            after[i] = 1;
        }
        assert_eq!(
            changed_memory(&[0; 64], &after),
            vec![(DATA + 3, vec![1, 0, 1]), (DATA + 20, vec![1])]
        );
    }
}
