//! `cargo xtask test`: every test of the project, one after the other, and one count of them all.

use std::{
    env::consts::ARCH,
    ffi::OsString,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    thread,
    time::Instant,
};

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::{
    done_since, root, say,
    setup::{self, For},
    target, timed,
    toolchain::{self, Toolchain, cargo},
};

/// The options of `cargo xtask test`.
#[derive(clap::Args)]
pub struct Options {
    /// Try fewer cases of each instruction, and leave out the whole programs that take long, the counting and the
    /// virtual machine.
    #[arg(long, conflicts_with = "full")]
    quick: bool,
    /// Give the whole programs their full size.
    #[arg(long)]
    full: bool,
    /// The x86_64 root that whole programs come from; on an x86_64 machine its own, else one that is
    /// unpacked from packages.
    #[arg(long)]
    sysroot: Option<PathBuf>,
    /// Only this part.
    part: Option<Part>,
    /// Of that part, only the tests with this in their name.
    filter: Option<String>,
}

/// A part of the tests.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Part {
    /// Formatting.
    Format,
    /// Clippy, for this machine's processor and for arm64.
    Clippy,
    /// Unit tests, on this machine's processor and on arm64.
    Unit,
    /// Every instruction, translated beside what a real x86_64 processor answered.
    Isa,
    /// The demo of the pidfd calls, translated.
    Demo,
    /// Whole programs, native beside translated.
    Programs,
    /// Executed instructions, beside the recorded ones.
    Speed,
    /// What only an arm64 kernel can show: the tests of the virtual machine.
    Vm,
}

/// One command that checks something; or why there can be none.
struct Check {
    name: String,
    command: Result<Command>,
}

/// Runs every test, or the part asked for.
pub fn test(options: &Options) -> Result<ExitCode> {
    let start = Instant::now();
    setup::ensure(For::Test);
    toolchain::ensure_components();
    let toolchain = Toolchain::find(true);
    let chosen =
        Part::value_variants().iter().filter(|part| options.part.is_none_or(|only| only == **part));
    let mut tally = Tally::default();
    let mut machine = prepare_machine(options);
    build_ahead(&toolchain, options);
    for part in chosen {
        if let Some(mut preparing) = machine.take_if(|_| *part == Part::Vm) {
            preparing.wait()?;
        }
        let checks = part.checks(&toolchain, options);
        if *part == Part::Isa {
            // Each keeps one processor busy.
            thread::scope(|scope| {
                let started = |check: Check| scope.spawn(|| check.run());
                let all: Vec<_> = checks.into_iter().map(started).collect();
                all.into_iter().for_each(|one| tally.add(one.join().expect("no panic")));
            });
        } else {
            checks.into_iter().for_each(|check| tally.add(check.run()));
        }
    }
    say(&done_since(start, "all"));
    Ok(tally.report())
}

/// Begins to make the virtual machine, when it will be needed at the end: that waits for the network and the disk most
/// of the time, and what comes before it for the processors. If it fails, the part itself fails again, and says why.
fn prepare_machine(options: &Options) -> Option<Child> {
    if options.quick || options.part.is_some() || ARCH != "x86_64" {
        return None;
    }
    let mut xtask = Command::new(std::env::current_exe().ok()?);
    xtask.args(["vm", "prepare"]);
    xtask.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()
}

/// Begins to build what is run after the unit tests: those, and what is built before them, leave one of two processors
/// without work half of the time. If it fails, the part that needs it fails again, and says why.
fn build_ahead(toolchain: &Result<Toolchain>, options: &Options) {
    let (Ok(toolchain), None) = (toolchain, options.part) else { return };
    let mut builds = vec![("demotic-isa", "demotic-isa"), ("demotic", "demotic")];
    if !options.quick && ARCH == "x86_64" {
        builds.push(("demotic-tests", "programs"));
    }
    let builds: Vec<_> =
        builds.into_iter().map(|(package, program)| toolchain.release(package, program)).collect();
    thread::spawn(move || {
        for mut build in builds {
            let _ = build.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        }
    });
}

impl Check {
    /// Says what is checked, and returns that with the numbers of tests that passed and failed.
    fn run(self) -> (String, (u64, u64)) {
        let counts = timed(&self.name, || {
            self.command.and_then(run).unwrap_or_else(|error| {
                eprintln!("{error:#}");
                (0, 1)
            })
        });
        (self.name, counts)
    }
}

impl Part {
    fn checks(self, toolchain: &Result<Toolchain>, options: &Options) -> Vec<Check> {
        let check = |name: &str, command| Check { name: name.into(), command };
        let arm64 = || toolchain.as_ref().map_err(|error| anyhow::anyhow!("{error:#}"));
        let filter = options.filter.as_slice();
        match self {
            Self::Format => {
                let mut fmt = cargo();
                fmt.args(["fmt", "--all", "--check", "--", "-l"]);
                vec![check("format", Ok(fmt))]
            }
            Self::Clippy => {
                let lint = |mut clippy: Command, target: &[&str]| {
                    clippy.args(["--quiet", "--workspace", "--all-targets"]);
                    clippy.args(target).args(["--", "--deny", "warnings"]);
                    clippy
                };
                let mut host = cargo();
                host.arg("clippy");
                let target = ["--target", toolchain::TARGET];
                once_on_arm64(vec![
                    check("clippy for this processor", Ok(lint(host, &[]))),
                    check("clippy for arm64", arm64().map(|arm64| lint(arm64.clippy(), &target))),
                ])
            }
            Self::Unit => {
                let mut host = cargo();
                host.args(["test", "--quiet", "--workspace", "--no-fail-fast"]).args(filter);
                let on_arm64 = arm64().map(|arm64| {
                    let mut test = arm64.cargo("test");
                    test.args(["--quiet", "--no-fail-fast", "--lib", "--tests"]);
                    test.args(["--package=translator", "--package=syscalls", "--package=demotic"])
                        .args(filter);
                    if toolchain::runner_is_old() {
                        // It dies when several threads map and unmap memory.
                        test.env("RUST_TEST_THREADS", "1");
                    }
                    test
                });
                once_on_arm64(vec![
                    check("unit tests on this processor", Ok(host)),
                    check("unit tests on arm64", on_arm64),
                ])
            }
            Self::Isa => {
                let isa = |arguments: &[&str], depth: Option<&str>| {
                    arm64().map(|arm64| {
                        let mut isa = arm64.cargo("run");
                        isa.args(["--quiet", "--release", "--package=demotic-isa", "--"]);
                        isa.args(arguments).arg("check").args(depth);
                        isa.args(options.filter.as_ref().map(|filter| format!("--forms={filter}")));
                        isa
                    })
                };
                let full = isa(&[], options.quick.then_some("--depth=2"));
                let least = if options.quick { "--depth=1" } else { "--depth=5" };
                let baseline = isa(&["--baseline"], Some(least));
                let ordered = isa(&["--ordered"], Some(least));
                let ordered_baseline = isa(&["--ordered", "--baseline"], Some(least));
                let interpreted = isa(&["--interpret"], options.quick.then_some("--depth=2"));
                vec![
                    check("instructions, translated beside a real processor's answers", full),
                    check("the same for ARMv8.0, a sample", baseline),
                    check("the same with ordered memory, a sample", ordered),
                    check("the same with ordered memory for ARMv8.0, a sample", ordered_baseline),
                    check("the same, interpreted where that is possible", interpreted),
                ]
            }
            Self::Demo => {
                let demo = arm64().and_then(Toolchain::build).map(|demotic| {
                    let mut demo = toolchain::translated(&demotic, ["--sysroot", "/"]);
                    demo.arg(root().join("tests/demo/demo"));
                    demo
                });
                vec![check("the demo, translated", demo)]
            }
            Self::Programs => {
                let programs = arm64()
                    .and_then(Toolchain::build)
                    .and_then(|demotic| programs(&demotic, options));
                vec![check("whole programs, native beside translated", programs)]
            }
            // Counted by an emulator, on an x86_64 machine.
            Self::Speed if options.quick && options.part != Some(Self::Speed) => Vec::new(),
            Self::Speed if ARCH != "x86_64" => {
                say("counting instructions is left out: it takes an emulator on an x86_64 machine");
                Vec::new()
            }
            Self::Speed => {
                let bench = std::env::current_exe().map_err(Into::into).map(|xtask| {
                    let mut bench = Command::new(xtask);
                    bench.args(["bench", "--check"]);
                    bench
                });
                vec![check("executed instructions, beside the recorded ones", bench)]
            }
            // It takes long.
            Self::Vm if options.quick && options.part != Some(Self::Vm) => Vec::new(),
            Self::Vm if cfg!(not(target_arch = "x86_64")) => {
                say("the virtual machine is left out: only an x86_64 machine can make it");
                Vec::new()
            }
            Self::Vm => {
                let vm = std::env::current_exe().map_err(Into::into).map(|xtask| {
                    let mut vm = Command::new(xtask);
                    vm.args(["vm", "test"]).args(filter);
                    vm
                });
                vec![check("the virtual machine", vm)]
            }
        }
    }
}

/// Of the same check for this processor and for arm64, the first alone where both are one.
fn once_on_arm64(mut checks: Vec<Check>) -> Vec<Check> {
    if toolchain::runner().is_none() {
        checks.truncate(1);
    }
    checks
}

/// The runner of whole programs, in the package `demotic-tests`.
fn programs(demotic: &Path, options: &Options) -> Result<Command> {
    let native = cfg!(target_arch = "x86_64");
    let sysroot = match &options.sysroot {
        Some(sysroot) => sysroot.canonicalize().with_context(|| sysroot.display().to_string())?,
        None if native => "/".into(),
        None => setup::x86_64_root()?,
    };
    let mut programs = cargo();
    programs.args(["run", "--quiet", "--package", "demotic-tests", "--bin", "programs", "--"]);
    programs.arg("--demotic").arg(demotic).arg("--sysroot").arg(sysroot);
    programs.arg("--work").arg(target().join("programs"));
    programs.args(toolchain::runner().map(|runner| format!("--runner={runner}")));
    let given = [("--quick", options.quick), ("--full", options.full)];
    programs.args(given.iter().filter(|(_, asked)| *asked).map(|(option, _)| option));
    if toolchain::runner_is_old() {
        // Three times as slow, on an old processor, as what the list's time limits are for.
        programs.args(["--old-runner", "--patience", "4"]);
    }
    programs.args(options.filter.as_ref().map(OsString::from));
    Ok(programs)
}

/// Runs a command, shows what it prints, and returns how many tests it says passed and failed;
/// a command that does not say is one test.
fn run(mut command: Command) -> Result<(u64, u64)> {
    let program = command.get_program().to_owned();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("{} could not be started", program.display()))?;
    let mut counts = None;
    for line in BufReader::new(child.stdout.take().context("standard output")?).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        if let Some((passed, failed)) = counted(&line) {
            let (all_passed, all_failed) = counts.unwrap_or((0, 0));
            counts = Some((all_passed + passed, all_failed + failed));
        }
    }
    let success = child.wait()?.success();
    Ok(match counts {
        None => (success.into(), (!success).into()),
        Some((passed, 0)) if !success => (passed, 1),
        Some(counts) => counts,
    })
}

/// The counts in a last line: `test result: ok. 5 passed; 0 failed; …` of libtest, or `5 passed, 0 failed`.
pub fn counted(line: &str) -> Option<(u64, u64)> {
    let (line, separator) = match line.strip_prefix("test result: ") {
        Some(result) => (result.split_once(". ")?.1, " passed; "),
        None => (line, " passed, "),
    };
    let (passed, rest) = line.split_once(separator)?;
    let (failed, _) = rest.split_once(" failed")?;
    Some((passed.parse().ok()?, failed.parse().ok()?))
}

/// What passed and failed so far.
#[derive(Default)]
struct Tally {
    passed: u64,
    failed: u64,
    with_failures: Vec<String>,
}

impl Tally {
    fn add(&mut self, (check, (passed, failed)): (String, (u64, u64))) {
        self.passed += passed;
        self.failed += failed;
        if failed > 0 {
            self.with_failures.push(check);
        }
    }

    /// Prints the count, as the last line.
    fn report(&self) -> ExitCode {
        for check in &self.with_failures {
            eprintln!("failed: {check}");
        }
        println!("{} passed, {} failed", self.passed, self.failed);
        if self.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> (u64, u64) {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        run(command).unwrap()
    }

    #[test]
    fn a_command_that_says_no_count_is_one_test() {
        assert_eq!(shell("echo 3 passed the salt"), (1, 0));
        assert_eq!(shell("exit 1"), (0, 1));
    }

    #[test]
    fn counts_are_added_up() {
        let two = "echo 'test result: ok. 5 passed; 0 failed; 1 ignored'; echo '2 passed, 1 failed'; exit 1";
        assert_eq!(shell(two), (7, 1));
    }

    #[test]
    fn a_command_that_dies_after_passing_tests_has_failed() {
        assert_eq!(shell("echo 5 passed, 0 failed; kill -9 $$"), (5, 1));
    }
}
