//! `demotic-isa`: checks the translator's instructions against a real x86_64 processor.

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, Subcommand};
use demotic_isa::{
    case::Case,
    check::{self, Verdict},
    deep::{self, Plan, Sides},
    docs,
    executor::{self, Executor, Host, Worker},
    record, show,
};
use regex::Regex;
use std::{fs, io, process::ExitCode};

/// Checks the translator's instructions against a real x86_64 processor.
///
/// On x86_64 the local executor is the processor, on arm64 it is the translator. What needs both takes
/// the other one as a command that runs `demotic-isa serve`, under an emulator or on another machine.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Translate for a host with nothing beyond ARMv8.0 (in this process; a partner has its own option).
    #[arg(long, global = true)]
    baseline: bool,
    /// Interpret what can be interpreted, and translate the rest.
    #[arg(long, global = true, conflicts_with = "baseline")]
    interpret: bool,
    /// Translate as for several threads: accesses to memory in the order of x86.
    #[arg(long, global = true)]
    ordered: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Records the processor's answers in tests/isa/record (x86_64 only).
    Record {
        /// Only "sequence", "misaligned" or "unmasked"; the rest of the record stays.
        #[arg(long)]
        only: Option<String>,
    },
    /// Compares the local executor with the record.
    Check {
        /// Only forms whose name matches; sequences are called "sequence".
        #[arg(long, default_value = "")]
        forms: Regex,
        /// Recorded cases of each form to run.
        #[arg(long, default_value_t = record::FORM_DEPTH)]
        depth: u32,
        /// Run in this process, to debug a crash.
        #[arg(long)]
        in_process: bool,
        /// Check the executor behind this command instead.
        #[arg(long)]
        partner: Option<String>,
    },
    /// Runs fresh cases on both sides and shrinks what fails.
    Deep {
        /// Seed of the cases.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Cases of each form; a hundred times as many sequences.
        #[arg(long, default_value_t = 10)]
        count: u32,
        /// Only forms whose name matches; sequences are called "sequence".
        #[arg(long, default_value = "")]
        forms: Regex,
        /// Command that runs `demotic-isa serve` on the other architecture.
        #[arg(long)]
        partner: String,
    },
    /// Writes docs/isa.md from a full check of the translator.
    Docs {
        /// On x86_64: command that runs `demotic-isa serve` with the translator.
        #[arg(long)]
        partner: Option<String>,
    },
    /// Shows one case with the outcomes that can be had.
    Case {
        /// FORM#INDEX@SEED or sequence#INDEX@SEED.
        name: String,
        /// Command that runs `demotic-isa serve` on the other architecture.
        #[arg(long)]
        partner: Option<String>,
    },
    /// Runs test programs from standard input for another demotic-isa.
    Serve,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let Arguments { baseline, interpret: interpreted, ordered, .. } = arguments;
    let host = Host { baseline, interpreted, ordered };
    match arguments.command {
        Command::Record { only } => {
            let mut processor = processor(host)?;
            let answers = match only {
                Some(kind) => record::record_special(processor.as_mut(), &kind)?,
                None => record::record(processor.as_mut())?,
            };
            let cases: usize = answers.values().map(Vec::len).sum();
            println!("{cases} cases recorded");
        }
        Command::Check { forms, depth, in_process, partner } => {
            let mut executor: Box<dyn Executor> = match partner {
                Some(command) => Box::new(Worker::shell(&command)),
                None if in_process => executor::local(host)?,
                None => Box::new(Worker::fork(host)),
            };
            let report = check::check(executor.as_mut(), &record::load()?, &forms, depth, host)?;
            ensure!(!report.0.is_empty(), "no form is called {forms}: names are like Adc_rm32_r32");
            println!("{report}");
            return Ok(code(report.totals().1));
        }
        Command::Deep { seed, count, forms, partner } => {
            return deep(host, seed, count, &forms, &partner);
        }
        Command::Docs { partner } => {
            let every = Regex::new("").expect("a valid expression");
            let mut translator = translator(host, partner.as_deref())?;
            let report =
                check::check(&mut translator, &record::load()?, &every, record::FORM_DEPTH, host)?;
            fs::write(docs::path(), docs::render(&report))?;
            println!("{report}");
        }
        Command::Case { name, partner } => show_case(host, &name, partner.as_deref())?,
        Command::Serve => {
            executor::serve(executor::local(host)?.as_mut(), io::stdin(), io::stdout())?
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn code(failed: u32) -> ExitCode {
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Whether the local executor is the real processor.
const IS_PROCESSOR: bool = cfg!(target_arch = "x86_64");

fn processor(host: Host) -> Result<Box<dyn Executor>> {
    if !IS_PROCESSOR {
        bail!("recording needs an x86_64 processor");
    }
    executor::local(host)
}

fn translator(host: Host, partner: Option<&str>) -> Result<Worker> {
    if !IS_PROCESSOR {
        return Ok(Worker::fork(host));
    }
    Ok(Worker::shell(partner.context("on x86_64 the translator is a partner; see --partner")?))
}

/// Runs `f` with the processor and the translator.
fn with_sides<T>(host: Host, partner: &str, f: impl FnOnce(&mut Sides) -> Result<T>) -> Result<T> {
    let (mut here, mut there) = (Worker::fork(host), Worker::shell(partner));
    let (reference, candidate) =
        if IS_PROCESSOR { (&mut here, &mut there) } else { (&mut there, &mut here) };
    f(&mut Sides { reference, candidate })
}

fn deep(host: Host, seed: u64, count: u32, forms: &Regex, partner: &str) -> Result<ExitCode> {
    println!("seed {seed}");
    let mut report = |case: &Case, verdict: &Verdict| {
        println!("{}: {}\n{}", case.name, verdict.summary(), show::disassembly(case));
    };
    let plan = Plan { seed, count, forms };
    let (passed, failed) = with_sides(host, partner, |sides| deep::run(sides, &plan, &mut report))?;
    println!("{passed} passed, {failed} failed");
    Ok(code(failed))
}

fn show_case(host: Host, name: &str, partner: Option<&str>) -> Result<()> {
    let case = Case::by_name(name)?;
    let mut outcomes = Vec::new();
    let (kind, rest) = name.split_once('#').context("a name has a number")?;
    let recorded = rest.split_once('@').is_none_or(|(_, seed)| seed == "0");
    if recorded && (!IS_PROCESSOR || partner.is_none()) {
        let index: usize = rest.split('@').next().unwrap_or(rest).parse()?;
        if let Some(sample) = record::load()?.get(kind).and_then(|samples| samples.get(index)) {
            outcomes.push(("recorded", sample.outcome(&case)?));
        }
    }
    outcomes.push((
        if IS_PROCESSOR { "processor" } else { "translated" },
        Worker::fork(host).run(&case.program)?,
    ));
    if let Some(command) = partner {
        let outcome = Worker::shell(command).run(&case.program)?;
        outcomes.push(("partner", outcome));
    }
    println!("{}", show::case(&case, &outcomes));
    Ok(())
}
