//! A test case: everything about it follows from its name.

use crate::{
    forms,
    operands::{self, Built, Place},
    rng::{Lane, Rng, hash},
    sequence,
    state::{CODE, Outcome, Program, State, in_data, vector},
    undefined::{self, Approximation, flag_effect},
};
use anyhow::{Context, Result, bail};
use iced_x86::{
    Code, Decoder, DecoderOptions, Encoder, FlowControl, Instruction, Mnemonic, OpKind, Register,
};
use std::sync::OnceLock;

/// What a comparison leaves out.
#[derive(Clone, Debug, Default)]
pub struct Tolerance {
    /// Flags (iced-x86's numbering) that are undefined when the program stops at or behind an
    /// address and before the next entry's; ascending.
    pub flags: Vec<(u64, u32)>,
    /// Memory that is not compared: address and length.
    pub memory: Vec<(u64, u64)>,
    /// How exact vector and x87 results are.
    pub approximation: Approximation,
    /// Whether the translator runs on a processor without FEAT_AFP, where SSE's treatment of denormals is inexact
    /// (see the translator's `mxcsr` module).
    pub without_afp: bool,
}

impl Tolerance {
    /// The flags of an outcome that are not compared.
    pub fn flags_of(&self, outcome: &Outcome) -> u32 {
        // #BP reports the address behind the INT3.
        let rip = outcome.state.rip - u64::from(outcome.stop.vector == vector::BP);
        self.flags.iter().rev().find(|(from, _)| *from <= rip).map_or(0, |(_, flags)| *flags)
    }
}

/// A program with what its comparison leaves out.
#[derive(Clone, Debug)]
pub struct Case {
    /// `FORM#INDEX@SEED` or `sequence#INDEX@SEED`.
    pub name: String,
    /// What runs.
    pub program: Program,
    /// What is not compared.
    pub tolerance: Tolerance,
}

/// Name of the sequences where a form's name would stand.
pub const SEQUENCE: &str = "sequence";

/// Where a form's name would stand: memory operands without the alignment that their form demands.
pub const MISALIGNED: &str = "misaligned";
/// Where a form's name would stand: SSE arithmetic with some exceptions unmasked.
pub const UNMASKED: &str = "unmasked";
/// Names that are not those of forms.
pub const SPECIAL: [&str; 3] = [MISALIGNED, SEQUENCE, UNMASKED];

/// The name of a case.
pub fn name(kind: &str, index: u32, seed: u64) -> String {
    format!("{kind}#{index}@{seed}")
}

impl Case {
    /// The case of a name.
    pub fn by_name(name: &str) -> Result<Self> {
        let (kind, number) =
            name.split_once('#').context("a case is FORM#INDEX@SEED or sequence#INDEX@SEED")?;
        let (index, seed) = number.split_once('@').unwrap_or((number, "0"));
        let (index, seed): (u32, u64) = (index.parse()?, seed.parse()?);
        if kind == SEQUENCE {
            return Ok(sequence::case(index, seed));
        }
        if SPECIAL.contains(&kind) {
            return Ok(special_case(kind, index, seed));
        }
        let form = forms::by_name(kind).with_context(|| format!("no form {kind}"))?;
        match form_case(form.code, index, seed) {
            Some(case) => Ok(case),
            None => bail!(
                "no test is generated for {kind}: {}",
                form.untested.unwrap_or("no operands fit")
            ),
        }
    }
}

/// The `index`th case of an instruction form.
pub fn form_case(code: Code, index: u32, seed: u64) -> Option<Case> {
    variation(name(&format!("{code:?}"), index, seed), code, "")
}

/// The `index`th case of one of the [`SPECIAL`] kinds.
fn special_case(kind: &str, index: u32, seed: u64) -> Case {
    let name = name(kind, index, seed);
    let mut rng = Rng::new(hash(name.as_bytes()).rotate_left(32));
    static POOLS: [OnceLock<Vec<Code>>; 2] = [OnceLock::new(), OnceLock::new()];
    let pool = POOLS[usize::from(kind == MISALIGNED)].get_or_init(|| special_forms(kind));
    loop {
        if let Some(case) = variation(name.clone(), rng.pick(pool), kind) {
            return case;
        }
    }
}

/// The forms that a special kind draws from: those that the processors of the last ten years have.
fn special_forms(kind: &str) -> Vec<Code> {
    let features = ["SSE", "SSE2", "SSE3", "SSSE3", "SSE4_1", "SSE4_2", "AES", "PCLMULQDQ"];
    let fits = |code: Code| match kind {
        MISALIGNED => code.op_code().memory_size().size() == 16,
        // In how many steps the sums of products raise, processors decide themselves.
        _ if matches!(code.mnemonic(), Mnemonic::Dpps | Mnemonic::Dppd) => false,
        _ => {
            matches!(operands::lane(code), Lane::F32 | Lane::F64)
                || format!("{:?}", code.mnemonic()).starts_with("Cvt")
        }
    };
    let known = |form: &&forms::Form| {
        form.untested.is_none() && features.contains(&form.feature().as_str()) && fits(form.code)
    };
    forms::all().iter().filter(known).map(|form| form.code).collect()
}

fn variation(name: String, code: Code, kind: &str) -> Option<Case> {
    let mut rng = Rng::new(hash(name.as_bytes()));
    let mut state = State::random(&mut rng, operands::lane(code));
    if kind == UNMASKED {
        state.mxcsr &= !(rng.bits() as u32 & 0x1f80);
    }
    let place = Place {
        fs_base: state.fs_base,
        gs_base: state.gs_base,
        pinned: Vec::new(),
        alone: true,
        misaligned: kind == MISALIGNED,
    };
    state.rip = operands::code_address(&mut rng);
    // 200 draws without a fit mean that nothing fits.
    for _ in 0..200 {
        let ahead = state.rip + 20 + rng.below(80);
        let stop = if rng.chance(30) && state.rip > CODE + 256 {
            state.rip - 10 - rng.below(80)
        } else {
            ahead
        };
        let Some(built) = operands::build(code, &mut rng, &place, stop) else {
            continue;
        };
        if undefined::result_is_undefined(&built.instruction) {
            continue;
        }
        let Some(bytes) = encode(&built.instruction, state.rip, &mut rng) else {
            continue;
        };
        return Some(finish(name, state, &built, bytes, &mut rng));
    }
    None
}

fn finish(name: String, mut state: State, built: &Built, code: Vec<u8>, rng: &mut Rng) -> Case {
    for &(register, value) in &built.registers {
        state.gpr[register.number()] = value;
    }
    let instruction = &built.instruction;
    let effect = flag_effect(instruction, Some(state.gpr[Register::RCX.number()]));
    let mut patches = built.patches.clone();
    patches.retain(|(address, bytes)| in_data(*address, bytes.len()));
    let memory = match patches.last() {
        Some((address, _)) => undefined::ignored_memory(instruction.code())
            .iter()
            .map(|(at, length)| (address + at, *length))
            .collect(),
        None => Vec::new(),
    };
    let tolerance = Tolerance {
        // A faulting instruction leaves the flags alone; its result's flags hold behind it, and
        // for a branch anywhere else.
        flags: vec![(0, effect.undefined), (state.rip, 0), (state.rip + 1, effect.undefined)],
        memory,
        approximation: undefined::approximation(instruction.mnemonic()),
        without_afp: false,
    };
    Case { name, program: Program { code, state, memory_seed: rng.bits(), patches }, tolerance }
}

/// Encodes an instruction, now and then with a redundant prefix. `None` if the operands cannot be encoded.
fn encode(instruction: &Instruction, rip: u64, rng: &mut Rng) -> Option<Vec<u8>> {
    let mut encoder = Encoder::new(64);
    encoder.encode(instruction, rip).ok()?;
    let bytes = encoder.take_buffer();
    let relative =
        instruction.is_ip_rel_memory_operand() || instruction.flow_control() != FlowControl::Next;
    if relative || !rng.chance(15) {
        return Some(bytes);
    }
    Some(with_redundant_prefix(&bytes, rip, rng).unwrap_or(bytes))
}

/// Adds a prefix that changes nothing: a REX without bits, an operand size or a segment that does
/// not matter. The decoder is asked whether it really means the same.
fn with_redundant_prefix(bytes: &[u8], rip: u64, rng: &mut Rng) -> Option<Vec<u8>> {
    let decode = |bytes: &[u8]| Decoder::with_ip(64, bytes, rip, DecoderOptions::NONE).decode();
    let is_legacy_prefix =
        |b: &u8| [0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf0, 0xf2, 0xf3].contains(b);
    let opcode = bytes.iter().position(|b| !is_legacy_prefix(b))?;
    let prefix = rng.pick(&[0x40, 0x40, 0x66, 0x2e, 0x3e]);
    let at = if prefix == 0x40 { opcode } else { 0 };
    let is_rex_or_vex = matches!(bytes[opcode], 0x40..=0x4f | 0xc4 | 0xc5 | 0x62);
    if bytes.len() >= 15 || is_rex_or_vex || bytes[..opcode].contains(&prefix) {
        return None;
    }
    let mut longer = bytes.to_vec();
    longer.insert(at, prefix);
    let (before, after) = (decode(bytes), decode(&longer));
    let same_operands = (0..before.op_count()).all(|i| match before.op_kind(i) {
        OpKind::Register => {
            after.op_kind(i) == OpKind::Register && before.op_register(i) == after.op_register(i)
        }
        kind => kind == after.op_kind(i),
    });
    (before.code() == after.code() && same_operands && after.len() == longer.len())
        .then_some(longer)
}
