//! `cargo xtask vm selftests`: the kernel's own tests of its system calls, built for both processors and run in the
//! machine: for x86_64 by Demotic, for arm64 by the kernel alone. What comes of it is written to docs/selftests.md.

mod build;
mod page;
mod results;

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use self::{
    build::{PROCESSORS, Processor},
    page::{Known, Results},
    results::Program,
};
use super::{Workshop, machine::Machine, recipe::Recipe, request, translator};
use crate::{root, say};

/// The time for copying the programs of a processor within the machine.
const COPY_LIMIT: Duration = Duration::from_secs(600);

/// Runs the tests in a machine that has been booted for them, and writes the page.
pub fn run(
    machine: &Machine,
    workshop: &Workshop,
    recipe: &Recipe,
    demotic: &Path,
    filter: Option<&str>,
) -> Result<ExitCode> {
    let built = build::build(workshop, &recipe.selftests)?;
    let known = fs::read_to_string(root().join("xtask/selftests.toml"))?;
    let known: Known = toml::from_str(&known).context("xtask/selftests.toml")?;
    translator::install(machine, demotic)?;
    fs::write(machine.share().join("selftests"), include_bytes!("guest/selftests"))?;
    let limit = Duration::from_secs(recipe.selftests.seconds);
    for processor in &PROCESSORS {
        let chosen = |name: &&String| {
            filter.is_none_or(|words| words.split(',').any(|word| name.contains(word)))
        };
        let programs = programs(&built, processor, &known)?;
        let programs: Vec<_> = programs.iter().filter(chosen).collect();
        let name = processor.name;
        say(&format!("running the kernel's tests for {name}: {} programs", programs.len()));
        put(machine, &built, processor)?;
        for program in programs {
            let not_tried =
                if processor.is_control() { Vec::new() } else { known.not_tried(program) };
            execute(machine, processor, program, &not_tried, limit)?;
            if let Some(kept) = kept(machine, processor, program)? {
                println!("{name} {program}: {}", kept.counts());
            }
        }
    }
    let (mut results, mut complete) = (Results::new(), true);
    for processor in &PROCESSORS {
        for name in programs(&built, processor, &known)? {
            let program = kept(machine, processor, &name)?;
            complete &= program.is_some();
            let row = results.entry(name).or_default();
            *if processor.is_control() { &mut row.arm64 } else { &mut row.x86_64 } = program;
        }
    }
    page::fail_not_tried(&mut results, &known);
    let text = page::text(&results, &known);
    if filter.is_none() {
        print!("{text}");
    }
    let source = format!("{} of {}", recipe.selftests.package, recipe.selftests.suite);
    let kernel = machine.description();
    let head = include_str!("selftests.md")
        .replace("{source}", &source)
        .replace("{kernel}", kernel.split([' ', ',']).nth(1).unwrap_or_default())
        .replace("{seconds}", &limit.as_secs().to_string());
    if complete {
        fs::write(root().join("docs/selftests.md"), head + &text)?;
    } else {
        say("docs/selftests.md is written when all programs have been run");
    }
    for name in page::idle(&results, &known) {
        say(&format!("{name} does not fail: its reason in xtask/selftests.toml can go"));
    }
    let unexplained = page::unexplained(&results, &known);
    println!("{} fail for x86_64 only, and nobody knows why", unexplained.len());
    Ok(if unexplained.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Puts the programs of a processor to a place in the machine, where nothing is left of another run: in one file, for
/// many small ones take minutes. Process numbers come round soon there, for which a test of pidfd waits.
fn put(machine: &Machine, built: &Path, processor: &Processor) -> Result<()> {
    let archive = machine.share().join("kernel-tests.tar");
    let from = built.join(processor.name);
    let status =
        Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(&from).arg(".").status()?;
    ensure!(status.success(), "{} could not be copied", from.display());
    let script = r#"
        echo 2048 >/proc/sys/kernel/pid_max
        cd "$1"
        mkdir -p mnt
        rm -rf tmp/kernel-tests
        mkdir tmp/kernel-tests
        tar -xf /host/kernel-tests.tar -C tmp/kernel-tests
    "#;
    let words = ["sh", "-euc", script, "put", processor.root].map(Into::into);
    request::output(machine, &request::script(request::Place::Own, &words), COPY_LIMIT)?;
    Ok(())
}

/// The programs of a processor that are to be run.
fn programs(built: &Path, processor: &Processor, known: &Known) -> Result<Vec<String>> {
    let mut programs = build::programs(built, processor)?;
    programs.retain(|name| !known.leaves_out(name));
    Ok(programs)
}

/// Where is kept what a program printed, and how it ended.
fn places(machine: &Machine, processor: &Processor, name: &str) -> [PathBuf; 2] {
    let folder = machine.file("results").join(processor.name);
    ["log", "status"].map(|kind| folder.join(format!("{name}.{kind}")))
}

/// Runs a program as long as it may, but for some fixtures; what comes of it is kept.
fn execute(
    machine: &Machine,
    processor: &Processor,
    name: &str,
    not_tried: &[&str],
    limit: Duration,
) -> Result<()> {
    let options = not_tried.iter().flat_map(|fixture| ["-F", fixture]);
    let words = ["sh", "/host/selftests", processor.root, name].into_iter().chain(options);
    let words: Vec<_> = words.map(Into::into).collect();
    let script = request::script(request::Place::Own, &words);
    let mut printed = Vec::new();
    let status = request::run(machine, &script, limit, &mut printed, &mut io::stderr())?;
    let [log, end] = places(machine, processor, name);
    fs::create_dir_all(log.parent().context("a folder")?)?;
    fs::write(&log, &printed).with_context(|| log.display().to_string())?;
    Ok(fs::write(end, status.map_or(String::new(), |status| status.to_string()))?)
}

/// What is kept of a program, if it has been run.
fn kept(machine: &Machine, processor: &Processor, name: &str) -> Result<Option<Program>> {
    let [log, end] = places(machine, processor, name);
    let Ok(end) = fs::read_to_string(end) else { return Ok(None) };
    let printed = fs::read(log)?;
    Ok(Some(Program::read(&String::from_utf8_lossy(&printed), end.parse().ok())))
}
