//! The project's own chores: `cargo xtask run`, `test`, `bench`, `count` and `vm`.
//!
//! Each first installs what it needs and finds missing ([`setup`]), and finds a compiler for arm64 ([`toolchain`]).

mod apt;
mod bench;
mod checks;
mod count;
mod packages;
mod run;
mod setup;
mod toolchain;
mod vm;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use clap::{Parser, Subcommand};

/// The project's own chores.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build Demotic for arm64 and run an x86_64 program under it; without a program, the demo.
    Run(run::Options),
    /// Run every test. The last line is `N passed, N failed`.
    Test(checks::Options),
    /// Run workloads natively, under Demotic and under other translators, and write a table.
    Bench(bench::Options),
    /// Count the arm64 instructions executed for a program, beside those of its native arm64 build.
    Count(count::Options),
    /// Boot an arm64 virtual machine whose kernel hands x86_64 programs to Demotic, and get a shell in it.
    Vm(vm::Options),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Run(options) => run::run(&options),
        Command::Test(options) => checks::test(&options),
        Command::Bench(options) => bench::bench(&options),
        Command::Count(options) => count::count(&options),
        Command::Vm(options) => vm::vm(&options),
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

/// The top of the repository.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is a folder of the repository")
}

/// Where cargo puts what it builds, and the chores what they fetch.
fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Says what is being done.
fn say(what: &str) {
    eprintln!("── {what}");
}

/// Says what is being done, does it, and says how long it took.
fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    say(what);
    let start = Instant::now();
    let done = work();
    say(&done_since(start, what));
    done
}

/// That something is done, and how long it took.
fn done_since(start: Instant, what: &str) -> String {
    let took = start.elapsed();
    match took.as_secs() {
        seconds @ 60.. => format!("{what}: done in {} min {} s", seconds / 60, seconds % 60),
        _ => format!("{what}: done in {:.1} s", took.as_secs_f64()),
    }
}
