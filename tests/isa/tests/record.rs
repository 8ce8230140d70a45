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
    check(&mut Worker::fork(host), &answers, &every, depth).expect("the record is current")
}

fn main() -> ExitCode {
    let full = run(Host::Full, record::FORM_DEPTH);
    println!("{full}");
    let mut failed = full.totals().1;
    if cfg!(target_arch = "aarch64") {
        let baseline = run(Host::Baseline, 4);
        println!("on ARMv8.0:\n{baseline}");
        failed += baseline.totals().1;
        let text = fs::read_to_string(docs::path()).unwrap_or_default();
        if text != docs::render(&full) {
            println!("docs/isa.md is stale; run `cargo run -p demotic-isa -- docs`");
            failed += 1;
        }
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
