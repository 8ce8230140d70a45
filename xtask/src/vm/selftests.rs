//! `cargo xtask vm selftests`: the kernel's own tests of its system calls, built for both processors and run in the
//! machine: for x86_64 by Demotic, for arm64 by the kernel alone. What comes of it is written to docs/selftests.md.

mod build;
mod page;
mod results;

use std::{
    fs,
    io::{self, Write},
    path::Path,
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
const COPY_LIMIT: Duration = Duration::from_secs(120);

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
    let mut results = Results::new();
    for processor in &PROCESSORS {
        let chosen = |name: &String| filter.is_none_or(|filter| name.contains(filter));
        let programs = build::programs(&built, processor)?;
        let programs: Vec<_> =
            programs.into_iter().filter(chosen).filter(|name| !known.leaves_out(name)).collect();
        say(&format!(
            "running the kernel's tests for {}: {} programs",
            processor.name,
            programs.len()
        ));
        put(machine, &built, processor)?;
        for name in programs {
            let is_control = processor.root == "/";
            let not_tried = if is_control { Vec::new() } else { known.not_tried(&name) };
            let options = not_tried.iter().flat_map(|fixture| ["-F", fixture]);
            let mut program = execute(machine, processor, &name, options, limit)?;
            let row = results.entry(name.clone()).or_default();
            if let Some(control) = &row.arm64 {
                program.fail(&not_tried, control);
            }
            println!("{} {name}: {}", processor.name, program.counts());
            *if is_control { &mut row.arm64 } else { &mut row.x86_64 } = Some(program);
        }
    }
    let text = page::text(&results, &known);
    print!("{text}");
    if filter.is_none() {
        let source = format!("{} of {}", recipe.selftests.package, recipe.selftests.suite);
        let kernel = machine.description();
        let head = include_str!("selftests.md")
            .replace("{source}", &source)
            .replace("{kernel}", kernel.split([' ', ',']).nth(1).unwrap_or_default())
            .replace("{seconds}", &limit.as_secs().to_string());
        fs::write(root().join("docs/selftests.md"), head + &text)?;
        for name in page::idle(&results, &known) {
            say(&format!("{name} does not fail: its reason in xtask/selftests.toml can go"));
        }
    }
    let unexplained = page::unexplained(&results, &known);
    println!("{} fail for x86_64 only, and nobody knows why", unexplained.len());
    Ok(if unexplained.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Puts the programs of a processor to a place in the machine, where nothing is left of another run. Process numbers come
/// round soon there, for which a test of pidfd waits.
fn put(machine: &Machine, built: &Path, processor: &Processor) -> Result<()> {
    let folder = machine.share().join("kernel-tests");
    let _ = fs::remove_dir_all(&folder);
    let from = built.join(processor.name);
    let status = Command::new("cp").arg("--archive").arg(&from).arg(&folder).status()?;
    ensure!(status.success(), "{} could not be copied", from.display());
    let to = Path::new(processor.root).join("tmp/kernel-tests");
    let script = format!(
        "#!/bin/sh -e\necho 2048 >/proc/sys/kernel/pid_max\nrm -rf {0}\ncp -r /host/kernel-tests {0}\n",
        to.display()
    );
    request::output(machine, script.as_bytes(), COPY_LIMIT)?;
    Ok(())
}

/// Runs a program with options, as long as it may; what it prints is kept in the share as well.
fn execute<'a>(
    machine: &Machine,
    processor: &Processor,
    name: &'a str,
    options: impl Iterator<Item = &'a str>,
    limit: Duration,
) -> Result<Program> {
    let words = ["sh", "/host/selftests", processor.root, name].into_iter().chain(options);
    let words: Vec<_> = words.map(Into::into).collect();
    let script = request::script(request::Place::Own, &words);
    let (mut printed, mut log) = (Vec::new(), Vec::new());
    let status = request::run(machine, &script, limit, &mut printed, &mut log)?;
    let file = machine.share().join("logs").join(processor.name).join(format!("{name}.log"));
    fs::create_dir_all(file.parent().context("a folder")?)?;
    fs::write(&file, &printed).with_context(|| file.display().to_string())?;
    io::stderr().write_all(&log)?;
    Ok(Program::read(&String::from_utf8_lossy(&printed), status))
}
