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

/// Forms of which other manufacturers' processors give other answers, in some cases, than AMD's, which have recorded.
#[cfg(target_arch = "x86_64")]
const DIFFERENT: [(&str, &str); 9] = [
    ("Dppd_xmm_xmmm128_imm8", SUMS_OF_NANS),
    ("Dpps_xmm_xmmm128_imm8", SUMS_OF_NANS),
    ("Movd_rm32_mm", TOP_AT_FAULTS),
    ("Movq_mmm64_mm", TOP_AT_FAULTS),
    ("Movq_rm64_mm", TOP_AT_FAULTS),
    ("VEX_Vdpps_xmm_xmm_xmmm128_imm8", SUMS_OF_NANS),
    ("VEX_Vdpps_ymm_ymm_ymmm256_imm8", SUMS_OF_NANS),
    ("Vmgexit", AMD_ALONE),
    ("Vmgexit_F2", AMD_ALONE),
];
#[cfg(target_arch = "x86_64")]
const SUMS_OF_NANS: &str = "which of several NaNs the sum is";
#[cfg(target_arch = "x86_64")]
const TOP_AT_FAULTS: &str = "some set TOP to 0 before the store faults";
#[cfg(target_arch = "x86_64")]
const AMD_ALONE: &str = "only AMD's have it";

/// Why this processor may give other answers for a form than the recorded ones.
#[cfg(target_arch = "x86_64")]
fn differs(name: &str) -> Option<&'static str> {
    let vendor = std::arch::x86_64::__cpuid(0);
    let is_amd = [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes).as_flattened()
        == b"AuthenticAMD";
    let known = DIFFERENT.iter().find(|(form, _)| !is_amd && *form == name);
    known.map(|(_, why)| *why)
}

/// The translator answers as the processors that recorded.
#[cfg(not(target_arch = "x86_64"))]
fn differs(_name: &str) -> Option<&'static str> {
    None
}

/// Whether the local executor can answer for a form of the record. Sequences are no form, and use nothing rare.
fn can_run(name: &str) -> bool {
    let runs = forms::by_name(name).is_none_or(|form| form.feature().split('+').all(has));
    if !runs {
        println!("{name}: not on this processor");
    }
    let differs = differs(name);
    if let Some(why) = differs {
        println!("{name}: not compared on this processor: {why}");
    }
    runs && differs.is_none()
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
