//! The local executor against the record: on x86_64 the processor, which shows that the record is
//! right and that programs are generated as they were; on arm64 the translator, and then
//! `docs/isa.md` must say what the check says.
//!
//! Without the test harness, because executors are forked off and that wants a single thread.

use demotic_isa::{
    check::{Report, check},
    docs,
    executor::{Host, Worker},
    record,
};
use regex::Regex;
use std::{fs, process::ExitCode};

fn run(host: Host, depth: u32) -> Report {
    let answers = record::load().expect("the record can be read");
    let every = Regex::new("").expect("a valid expression");
    check(&mut Worker::fork(host), &answers, &every, depth, host).expect("the record is current")
}

/// What is wrong on arm64: a form that fails on ARMv8.0 alone, or a page that does not tell how
/// things stand. A form that differs is listed there, so a regression makes the page stale.
fn translated(full: &Report) -> Vec<String> {
    let baseline = run(Host::Baseline, 4);
    println!("on ARMv8.0:\n{baseline}");
    let mut wrong: Vec<String> = baseline
        .0
        .iter()
        .filter(|(name, standing)| !standing.failures.is_empty() && full.0[*name].verified())
        .map(|(name, _)| format!("{name} differs on ARMv8.0 only"))
        .collect();
    let text = fs::read_to_string(docs::path()).unwrap_or_default();
    if text != docs::render(full) {
        wrong.push("docs/isa.md is stale; run `cargo run -p demotic-isa -- docs`".into());
    }
    wrong
}

fn main() -> ExitCode {
    let full = run(Host::Full, record::FORM_DEPTH);
    println!("{full}");
    let wrong = if cfg!(target_arch = "aarch64") {
        translated(&full)
    } else {
        let failed = full.totals().1;
        if failed == 0 { Vec::new() } else { vec![format!("{failed} cases differ")] }
    };
    for line in &wrong {
        println!("{line}");
    }
    if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
