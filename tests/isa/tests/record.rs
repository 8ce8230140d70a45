//! The local executor against the record: on x86_64 the processor, which shows that the record is
//! right and that programs are generated as they were; on arm64 the translator, and then
//! `docs/isa.md` must say what the check says.
//!
//! Without the test harness, because executors are forked off and that wants a single thread.

use demotic_isa::{
    check::{Report, check},
    docs,
    executor::{Host, Worker},
    forms, record,
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
    let baseline = run(Host { baseline: true, ..Host::default() }, 4);
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

/// Whether this processor has a CPUID feature of the processors that recorded; what all have is not asked.
#[cfg(target_arch = "x86_64")]
fn has(feature: &str) -> bool {
    match feature {
        "ADX" => is_x86_feature_detected!("adx"),
        "AVX" => is_x86_feature_detected!("avx"),
        "AVX2" => is_x86_feature_detected!("avx2"),
        "BMI1" => is_x86_feature_detected!("bmi1"),
        "BMI2" => is_x86_feature_detected!("bmi2"),
        "F16C" => is_x86_feature_detected!("f16c"),
        "FMA" => is_x86_feature_detected!("fma"),
        "GFNI" => is_x86_feature_detected!("gfni"),
        "SHA" => is_x86_feature_detected!("sha"),
        "SSE4A" => is_x86_feature_detected!("sse4a"),
        // Off in every kernel's CR4. The recording processor says #GP then, another one #UD.
        "UINTR" => false,
        "VAES" => is_x86_feature_detected!("vaes"),
        "VPCLMULQDQ" => is_x86_feature_detected!("vpclmulqdq"),
        _ => true,
    }
}

/// The translator runs everything that is recorded.
#[cfg(not(target_arch = "x86_64"))]
fn has(_feature: &str) -> bool {
    true
}

/// Whether the local executor can answer for a form of the record. Sequences are no form, and use nothing rare.
fn can_run(name: &str) -> bool {
    let runs = forms::by_name(name).is_none_or(|form| form.feature().split('+').all(has));
    if !runs {
        println!("{name}: not on this processor");
    }
    runs
}

fn main() -> ExitCode {
    let mut full = run(Host::default(), record::FORM_DEPTH);
    full.0.retain(|name, _| can_run(name));
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
