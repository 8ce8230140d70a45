//! How long the translator's parts take: `cargo bench --package demotic-benches`.
//!
//! What executes no arm64 code is timed on every processor (`translating`), the rest on arm64 (`running`, `processes`).

#[cfg(target_arch = "aarch64")]
mod processes;
mod program;
#[cfg(target_arch = "aarch64")]
mod running;
mod translating;

use criterion::Criterion;

const TRANSLATING: &[fn(&mut Criterion)] = &[
    translating::decode,
    translating::region,
    translating::facts,
    translating::lower,
    translating::append,
    translating::link,
    translating::lookup,
];

#[cfg(target_arch = "aarch64")]
const RUNNING: &[fn(&mut Criterion)] = &[
    running::indirect_branch,
    running::call_and_return,
    running::system_call,
    running::signal,
    processes::fork,
    processes::exec,
];

#[cfg(not(target_arch = "aarch64"))]
const RUNNING: &[fn(&mut Criterion)] = &[];

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for bench in TRANSLATING.iter().chain(RUNNING) {
        bench(&mut criterion);
    }
    criterion.final_summary();
}
