//! Fresh cases beyond the record: one executor is the reference processor, the other the translator,
//! and one of the two sits in another process. Failing sequences are shrunk.

use crate::{
    case::{Case, MISALIGNED, SEQUENCE, UNMASKED, form_case, name},
    check::{Verdict, judge},
    executor::Executor,
    forms,
    sequence::Sequence,
    state::{Outcome, vector},
};
use anyhow::Result;
use regex::Regex;

/// What to run.
pub struct Plan<'a> {
    /// Seed of all cases.
    pub seed: u64,
    /// Cases of each form and, times 100, of sequences.
    pub count: u32,
    /// Which forms; "sequence" for sequences.
    pub forms: &'a Regex,
}

/// The two sides.
pub struct Sides<'a> {
    /// The real processor.
    pub reference: &'a mut dyn Executor,
    /// The translator.
    pub candidate: &'a mut dyn Executor,
}

impl Sides<'_> {
    /// Runs a case on both.
    pub fn judge(&mut self, case: &Case) -> Result<(Outcome, Verdict)> {
        let expected = self.reference.run(&case.program)?;
        let verdict = judge(self.candidate, case, &expected);
        Ok((expected, verdict))
    }

    /// Whether the two differ. A program that the processor does not finish, as a loop without its
    /// counter, tells nothing.
    fn fails(&mut self, case: &Case) -> bool {
        matches!(self.judge(case), Ok((_, Verdict::Different(_) | Verdict::Broken(_))))
    }
}

/// Runs the plan, reporting failures as they come. Gives the numbers of passed and failed cases.
pub fn run(
    sides: &mut Sides,
    plan: &Plan,
    report: &mut dyn FnMut(&Case, &Verdict),
) -> Result<(u32, u32)> {
    let (mut passed, mut failed) = (0, 0);
    let mut count = |case: &Case, verdict: Verdict| match verdict {
        Verdict::Same => passed += 1,
        Verdict::Missing(_) => {}
        verdict => {
            failed += 1;
            report(case, &verdict);
        }
    };
    for form in
        forms::all().iter().filter(|f| f.untested.is_none() && plan.forms.is_match(&f.name()))
    {
        for index in 0..plan.count {
            let Some(case) = form_case(form.code, index, plan.seed) else {
                break;
            };
            let (expected, verdict) = sides.judge(&case)?;
            if expected.stop.vector == vector::UD || matches!(verdict, Verdict::Missing(_)) {
                break;
            }
            count(&case, verdict);
        }
    }
    for kind in [MISALIGNED, UNMASKED].into_iter().filter(|kind| plan.forms.is_match(kind)) {
        for index in 0..plan.count * 20 {
            let case = Case::by_name(&name(kind, index, plan.seed))?;
            let (_, verdict) = sides.judge(&case)?;
            count(&case, verdict);
        }
    }
    if plan.forms.is_match(SEQUENCE) {
        for index in 0..plan.count * 100 {
            let mut sequence = Sequence::generate(index, plan.seed);
            sequence.define_flags();
            let verdict = judge_implemented(sides, &mut sequence)?;
            match verdict {
                Verdict::Different(_) | Verdict::Broken(_) => {
                    let (case, verdict) = shrink(sides, sequence)?;
                    count(&case, verdict);
                }
                verdict => count(&sequence.assemble(), verdict),
            }
        }
    }
    Ok((passed, failed))
}

/// Runs a sequence without the items that the translator does not have, which are dropped from it.
fn judge_implemented(sides: &mut Sides, sequence: &mut Sequence) -> Result<Verdict> {
    loop {
        let (_, verdict) = sides.judge(&sequence.assemble())?;
        let Verdict::Missing(at) = verdict else { return Ok(verdict) };
        let position = sequence.item_at(at);
        match position.and_then(|i| sequence.without(i..i + 1)) {
            Some(shorter) => *sequence = shorter,
            None => return Ok(verdict),
        }
    }
}

/// Drops items from a failing sequence, larger pieces first, while it still fails.
pub fn shrink(sides: &mut Sides, mut sequence: Sequence) -> Result<(Case, Verdict)> {
    let mut size = sequence.len().div_ceil(2);
    loop {
        let mut at = 0;
        while at < sequence.len() {
            let end = (at + size).min(sequence.len());
            match sequence.without(at..end) {
                Some(shorter) if sides.fails(&shorter.assemble()) => sequence = shorter,
                _ => at = end,
            }
        }
        if size == 1 {
            break;
        }
        size = size.div_ceil(2);
    }
    let case = sequence.assemble();
    let (_, verdict) = sides.judge(&case)?;
    Ok((case, verdict))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{Program, Stop};

    /// Stops at once; with a wrong flag when the code contains an ADC of any kind.
    struct Fake(bool);

    impl Executor for Fake {
        fn run(&mut self, program: &Program) -> Result<Outcome> {
            let mut state = program.state.clone();
            let code = iced_x86::Decoder::with_ip(64, &program.code, state.rip, 0);
            if self.0 && code.into_iter().any(|i| i.mnemonic() == iced_x86::Mnemonic::Adc) {
                state.gpr[0] ^= 1;
            }
            Ok(Outcome { state, memory: Vec::new(), stop: Stop { vector: vector::BP, address: 0 } })
        }
    }

    #[test]
    fn shrinking_leaves_the_culprit() {
        let (mut good, mut bad) = (Fake(false), Fake(true));
        let mut sides = Sides { reference: &mut good, candidate: &mut bad };
        let mut shrunk = 0;
        for index in 0..200 {
            let mut sequence = Sequence::generate(index, 3);
            sequence.define_flags();
            if sides.fails(&sequence.assemble()) {
                let (case, _) = shrink(&mut sides, sequence).expect("runs");
                let left =
                    iced_x86::Decoder::with_ip(64, &case.program.code, case.program.state.rip, 0)
                        .into_iter()
                        .count();
                // The ADC, its setup and the INT3, and a comparison if the flags needed one.
                assert!(left <= 6, "{}", crate::show::disassembly(&case));
                shrunk += 1;
            }
        }
        assert!(shrunk > 10);
    }
}
