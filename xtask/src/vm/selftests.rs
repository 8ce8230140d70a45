//! `cargo xtask vm selftests`: the kernel's own tests of its system calls, built for both processors and run in the
//! machine: for x86_64 by Demotic, for arm64 by the kernel alone. What comes of it is written to docs/selftests.md.

mod build;
mod page;
mod results;

use std::{
    collections::BTreeMap,
    fs, io,
    path::Path,
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use self::{
    build::{PROCESSORS, Processor},
    page::{Known, Results, Row},
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
    let chosen = |name: &String| {
        !known.leaves_out(name)
            && filter.is_none_or(|words| words.split(',').any(|word| name.contains(word)))
    };
    let mut new: BTreeMap<String, [Option<Program>; 2]> = BTreeMap::new();
    for (i, processor) in PROCESSORS.iter().enumerate() {
        let programs: Vec<_> =
            build::programs(&built, processor)?.into_iter().filter(chosen).collect();
        let called = processor.name;
        say(&format!("running the kernel's tests for {called}: {} programs", programs.len()));
        put(machine, &built, processor)?;
        for name in programs {
            let not_tried =
                if processor.is_control() { Vec::new() } else { known.not_tried(&name) };
            let program = execute(machine, processor, &name, &not_tried, limit)?;
            println!("{called} {name}: {}", program.counts());
            new.entry(name).or_default()[i] = Some(program);
        }
    }
    let page = root().join("docs/selftests.md");
    let mut results = match filter {
        Some(_) => page::read(&fs::read_to_string(&page).unwrap_or_default()),
        None => Results::new(),
    };
    for (name, [x86_64, arm64]) in new {
        let (mut x86_64, arm64) = (x86_64.unwrap_or_default(), arm64.unwrap_or_default());
        x86_64.fail(&known.not_tried(&name), &arm64);
        results.insert(name, Row::new(&x86_64, &arm64));
    }
    results.retain(|name, _| !known.leaves_out(name));
    let text = page::text(&results, &known);
    print!("{text}");
    let source = format!("{} of {}", recipe.selftests.package, recipe.selftests.suite);
    let kernel = machine.description();
    let head = include_str!("selftests.md")
        .replace("{source}", &source)
        .replace("{kernel}", kernel.split([' ', ',']).nth(1).unwrap_or_default())
        .replace("{seconds}", &limit.as_secs().to_string());
    fs::write(page, head + &text)?;
    for name in page::idle(&results, &known) {
        say(&format!("{name} does not fail: its reason in xtask/selftests.toml can go"));
    }
    let unexplained = page::unexplained(&results, &known);
    println!("{} fail for x86_64 only, and nobody knows why", unexplained.len());
    Ok(if unexplained.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Puts the programs of a processor to a place in the machine, where nothing is left of another run: in one file, read in
/// large pieces, for each access to the share takes long. Process numbers come round soon there, for which a test of pidfd waits.
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
        cp /host/kernel-tests.tar tmp
        tar -xf tmp/kernel-tests.tar -C tmp/kernel-tests
    "#;
    let words = ["sh", "-euc", script, "put", processor.root].map(Into::into);
    request::output(machine, &request::script(request::Place::Own, &words), COPY_LIMIT)?;
    Ok(())
}

/// Runs a program as long as it may, but for some fixtures. What it prints is kept beside the machine's share.
fn execute(
    machine: &Machine,
    processor: &Processor,
    name: &str,
    not_tried: &[&str],
    limit: Duration,
) -> Result<Program> {
    let options = not_tried.iter().flat_map(|fixture| ["-F", fixture]);
    let words = ["sh", "/host/selftests", processor.root, name].into_iter().chain(options);
    let words: Vec<_> = words.map(Into::into).collect();
    let script = request::script(request::Place::Own, &words);
    let mut printed = Vec::new();
    let status = request::run(machine, &script, limit, &mut printed, &mut io::stderr())?;
    let log = machine.file("results").join(processor.name).join(format!("{name}.log"));
    fs::create_dir_all(log.parent().context("a folder")?)?;
    fs::write(&log, &printed).with_context(|| log.display().to_string())?;
    Ok(Program::read(&String::from_utf8_lossy(&printed), status))
}
