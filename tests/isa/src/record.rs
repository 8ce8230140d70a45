//! The record: what the reference processor answered, so that the check means the same on a machine
//! that cannot run x86_64 code.
//!
//! One file for each CPUID feature and one for sequences. Cases are not kept, they follow from their
//! names; a hash of code and start state tells when a change of the generator made a record stale.

use crate::{
    case::{Case, MISALIGNED, SEQUENCE, SPECIAL, UNMASKED, form_case, name},
    executor::Executor,
    forms::{self, Form},
    rng::hash,
    state::{Delta, Outcome, vector},
};
use anyhow::{Context, Result, ensure};
use flate2::{Compression, read::DeflateDecoder, write::DeflateEncoder};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
};

/// Recorded cases of each form.
pub const FORM_DEPTH: u32 = 40;
/// Recorded sequences.
pub const SEQUENCE_DEPTH: u32 = 8000;

/// Recorded cases of a kind that is not a form.
pub fn special_depth(kind: &str) -> Option<u32> {
    match kind {
        SEQUENCE => Some(SEQUENCE_DEPTH),
        MISALIGNED => Some(2000),
        UNMASKED => Some(4000),
        _ => None,
    }
}

/// One recorded answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    fingerprint: u32,
    delta: Delta,
}

impl Sample {
    fn new(case: &Case, outcome: &Outcome) -> Self {
        Self { fingerprint: fingerprint(case), delta: Delta::new(&case.program.state, outcome) }
    }

    /// The recorded outcome. Fails when the case is no longer the one that was recorded.
    pub fn outcome(&self, case: &Case) -> Result<Outcome> {
        ensure!(
            self.fingerprint == fingerprint(case),
            "{}: the generator makes another program than the recorded one; record again",
            case.name
        );
        Ok(self.delta.outcome(&case.program.state))
    }
}

fn fingerprint(case: &Case) -> u32 {
    let bytes = postcard::to_stdvec(&case.program).expect("a program can be serialised");
    hash(&bytes) as u32
}

/// Answers by name of the form (or "sequence"), in order of the index.
pub type Answers = BTreeMap<String, Vec<Sample>>;

/// The directory of the record.
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("record")
}

fn path(group: &str) -> PathBuf {
    directory().join(format!("{group}.bin"))
}

/// The whole record.
pub fn load() -> Result<Answers> {
    let mut all = Answers::new();
    for entry in fs::read_dir(directory())? {
        let path = entry?.path();
        let mut bytes = Vec::new();
        DeflateDecoder::new(fs::File::open(&path)?).read_to_end(&mut bytes)?;
        let answers: Answers =
            postcard::from_bytes(&bytes).with_context(|| format!("{}", path.display()))?;
        all.extend(answers);
    }
    Ok(all)
}

fn store(group: &str, answers: &Answers) -> Result<()> {
    let mut encoder = DeflateEncoder::new(fs::File::create(path(group))?, Compression::best());
    encoder.write_all(&postcard::to_stdvec(answers)?)?;
    encoder.finish()?;
    Ok(())
}

/// Records everything anew with an executor that is a real processor.
pub fn record(processor: &mut dyn Executor) -> Result<Answers> {
    fs::create_dir_all(directory())?;
    for entry in fs::read_dir(directory())? {
        fs::remove_file(entry?.path())?;
    }
    let mut groups: BTreeMap<String, Answers> = BTreeMap::new();
    for form in forms::all().iter().filter(|form| form.untested.is_none()) {
        if let Some(samples) = record_form(processor, form)? {
            groups.entry(form.feature()).or_default().insert(form.name(), samples);
        }
    }
    for (group, answers) in &groups {
        store(group, answers)?;
    }
    for kind in SPECIAL {
        groups.insert(kind.into(), record_special(processor, kind)?);
    }
    Ok(groups.into_values().flatten().collect())
}

/// Records one of the [`SPECIAL`] kinds anew.
pub fn record_special(processor: &mut dyn Executor, kind: &str) -> Result<Answers> {
    let depth = special_depth(kind).with_context(|| format!("no kind {kind}"))?;
    let mut samples = Vec::new();
    for index in 0..depth {
        let case = Case::by_name(&name(kind, index, 0))?;
        samples.push(Sample::new(&case, &processor.run(&case.program)?));
    }
    let answers = Answers::from([(kind.into(), samples)]);
    store(kind, &answers)?;
    Ok(answers)
}

/// The answers for a form; `None` if the processor does not have the instruction.
fn record_form(processor: &mut dyn Executor, form: &Form) -> Result<Option<Vec<Sample>>> {
    let mut samples = Vec::new();
    let mut exists = false;
    for index in 0..FORM_DEPTH {
        let Some(case) = form_case(form.code, index, 0) else {
            return Ok(None);
        };
        let outcome = processor.run(&case.program).with_context(|| case.name.clone())?;
        exists |= outcome.stop.vector != vector::UD;
        samples.push(Sample::new(&case, &outcome));
    }
    Ok(exists.then_some(samples))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a handler sees at a fault is only tested if enough sequences fault.
    #[test]
    fn many_sequences_end_with_a_fault() {
        let samples = &load().expect("the record can be read")[SEQUENCE];
        let faults = samples.iter().filter(|s| s.delta.vector() == vector::PF).count();
        assert!(faults * 20 > samples.len(), "{faults} of {}", samples.len());
    }
}
