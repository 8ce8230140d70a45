//! `cargo xtask vm test`: the tests that only the virtual machine can make.
//!
//! The handler is switched off and on again, which shows that x86_64 programs are run by Demotic or not at all. Then
//! come the demo; the programs of `tests/vm`, beside their arm64 builds; and the whole programs of
//! `tests/programs.toml` in the x86_64 root, beside what they did natively on this machine in the same root.

use std::{
    ffi::{OsStr, OsString},
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::{Context, Result, bail};

use super::{
    machine::Machine,
    request::{self, Place},
    step::Steps,
    translator,
};
use crate::{
    checks::counted,
    root, target, timed,
    toolchain::{TARGET, Toolchain, cargo},
};

/// What the time limits of programs are multiplied with: they are those of a process emulated by itself, and here a
/// machine is emulated, while other machines may be at work.
const PATIENCE: &str = "4";

const SCRIPT_LIMIT: Duration = Duration::from_secs(120);
/// For a runner that hangs: its programs have time limits of their own, and at this one what they did is not counted.
const PROGRAMS_LIMIT: Duration = Duration::from_secs(2 * 60 * 60);
const NATIVE_LIMIT: Duration = Duration::from_secs(900);
const BUILD_LIMIT: Duration = Duration::from_secs(120);

/// The programs of `tests/vm` are built with these, by the names of folders in [`demotic_tests`]' list.
const COMPILERS: [(&str, &str); 2] = [("arm64", "aarch64-linux-gnu-gcc"), ("x86_64", "gcc")];

/// What is built for the tests before the machine is booted.
pub struct Builds {
    demotic: PathBuf,
    runner: PathBuf,
}

impl Builds {
    /// Builds the translator, and the runner of lists of programs.
    pub fn new(toolchain: &Toolchain) -> Result<Self> {
        let demotic = toolchain.build()?;
        let mut build = toolchain.release("demotic-tests", "programs");
        if !timed("building the runner of programs for arm64", || build.status())?.success() {
            bail!("the runner of programs could not be built for arm64");
        }
        Ok(Self { demotic, runner: target().join(TARGET).join("release/programs") })
    }
}

/// Runs the tests in a machine that has been booted for them, with the x86_64 root also here; the last line is
/// `N passed, N failed`.
pub fn test(
    machine: &Machine,
    steps: &Steps,
    builds: &Builds,
    x86_64: &Path,
    filter: Option<&str>,
) -> Result<ExitCode> {
    translator::install(machine, &builds.demotic)?;
    let tests = machine.share().join("tests");
    fs::create_dir_all(tests.join("vm"))?;
    fs::copy(&builds.runner, tests.join("runner")).context("the runner of programs")?;
    let mut suite = Suite { machine, filter, counts: Counts::default() };

    suite.script("handler", include_str!("guest/handler"));
    suite.script("register", include_str!("guest/register"));
    fs::copy(root().join("tests/demo/demo"), tests.join("demo")).context("the demo")?;
    suite.script("demo", "exec chroot /x86 /host/tests/demo");

    build_programs(steps, &tests.join("vm"))?;
    answer_natively(steps, &tests.join("vm"), filter)?;
    suite.list("tests/vm/programs.toml", &["--control", "/host/tests/vm", "--work", "/tmp/vm"])?;

    let recorded =
        ["--recorded", "/host/tests/native", "--root", "/x86", "--work", "/x86/tmp/programs"];
    run_natively(steps, x86_64, &tests.join("native"), filter)?;
    copy(&root().join("tests/programs"), &tests)?;
    suite.list("tests/programs.toml", &recorded)?;

    let Counts { passed, failed, .. } = suite.counts;
    if passed + failed == 0 {
        bail!("no test of the machine has {:?} in its name", filter.unwrap_or_default());
    }
    if failed > 0 {
        // What ended a program may stand there: that memory ran out, above all.
        println!("the machine's console ends with:\n{}", machine.tail("console.log"));
    }
    println!("{passed} passed, {failed} failed");
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The tests, as far as they have been run.
struct Suite<'a> {
    machine: &'a Machine,
    filter: Option<&'a str>,
    counts: Counts,
}

impl Suite<'_> {
    /// A test that is a script: its exit status says whether all is well.
    fn script(&mut self, name: &str, script: &str) {
        if self.filter.is_some_and(|filter| !name.contains(filter)) {
            return;
        }
        let script = format!("#!/bin/sh\n{script}\n");
        match request::output(self.machine, script.as_bytes(), SCRIPT_LIMIT) {
            Ok(_) => {
                println!("ok      {name}");
                self.counts.passed += 1;
            }
            Err(error) => {
                println!("FAILED  {name}\n  {error:#}");
                self.counts.failed += 1;
            }
        }
    }

    /// The programs of a list, run by their runner in the machine.
    fn list(&mut self, list: &str, options: &[&str]) -> Result<()> {
        let to = self.machine.share().join(list);
        fs::copy(root().join(list), &to).with_context(|| list.to_owned())?;
        let list = format!("/host/{list}");
        let mut command = vec!["/host/tests/runner", "--list", &list, "--patience", PATIENCE];
        command.extend(options.iter().chain(&self.filter));
        let command: Vec<_> = command.iter().map(OsString::from).collect();
        let script = request::script(Place::Own, &command);
        let before = self.counts.failed;
        let ended = request::run(
            self.machine,
            &script,
            PROGRAMS_LIMIT,
            &mut self.counts,
            &mut io::stderr(),
        )?;
        // A runner that did not come to its end has said nothing of what it did not come to.
        if ended != Some(0) && self.counts.failed == before {
            let end =
                ended.map_or("at its time limit".into(), |status| format!("with status {status}"));
            println!("FAILED  {list}: its runner ended {end}");
            self.counts.failed += 1;
        }
        Ok(())
    }
}

/// Shows the output of runners, and adds up the counts they end with.
#[derive(Default)]
struct Counts {
    passed: u64,
    failed: u64,
    /// The beginning of a line.
    line: Vec<u8>,
}

impl Write for Counts {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for &byte in bytes {
            if byte != b'\n' {
                self.line.push(byte);
                continue;
            }
            let line = String::from_utf8_lossy(&self.line);
            match counted(&line) {
                Some((passed, failed)) => {
                    self.passed += passed;
                    self.failed += failed;
                }
                None => println!("{line}"),
            }
            self.line.clear();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().flush()
    }
}

/// Builds the programs of `tests/vm` for both processors, without need of any other file.
fn build_programs(steps: &Steps, place: &Path) -> Result<()> {
    let sources = root().join("tests/vm");
    for entry in fs::read_dir(&sources)? {
        let source = entry?.path();
        if source.extension() != Some(OsStr::new("c")) {
            continue;
        }
        let name = source.file_stem().context("a name")?;
        for (processor, compiler) in COMPILERS {
            let folder = place.join(processor);
            fs::create_dir_all(&folder)?;
            let mut compile = Command::new(compiler);
            compile.args([
                "-std=gnu11",
                "-O1",
                "-Wall",
                "-Wextra",
                "-Werror",
                // Some distributions define it: it warns of calls whose results do not matter, and makes others.
                "-U_FORTIFY_SOURCE",
                "-pthread",
                "-static",
                "-s",
            ]);
            compile.arg("-o").arg(folder.join(name)).arg(&source);
            let what = format!("building {} for {processor}", name.display());
            steps.quietly(&what, BUILD_LIMIT, &mut compile)?;
        }
    }
    Ok(())
}

/// The programs of `tests/vm` that compare what the kernel says with what it says natively.
const ANSWERING: [&str; 2] = ["bad-pointers", "every-call"];

/// Has the x86_64 builds of programs say on this machine what the kernel answers them.
fn answer_natively(steps: &Steps, place: &Path, filter: Option<&str>) -> Result<()> {
    fs::create_dir_all(place.join("native"))?;
    for name in ANSWERING.iter().filter(|name| filter.is_none_or(|filter| name.contains(filter))) {
        // What they leave running ends with them.
        let script = r#"exec unshare --pid --fork --kill-child "$1" answers >"$2""#;
        let mut command = Command::new("sh");
        command.args(["-euc", script, "native"]);
        command.arg(place.join("x86_64").join(name)).arg(place.join("native").join(name));
        steps.quietly(&format!("running {name} natively"), NATIVE_LIMIT, &mut command)?;
    }
    Ok(())
}

/// Runs the whole programs natively, with the x86_64 root of the machine as their root, and keeps what comes of it
/// in `place`. All that is mounted for that is seen by nobody else; the root cannot be written to.
fn run_natively(steps: &Steps, x86_64: &Path, place: &Path, filter: Option<&str>) -> Result<()> {
    let script = r#"
        root=$1 place=$2; shift 2
        renice -n 0 -p $$ >/dev/null # as in the machine
        mount --bind "$root" "$root"
        mount -t proc proc "$root/proc"
        mount --rbind /dev "$root/dev"
        mount -o remount,bind,ro "$root"
        mount -t tmpfs tmpfs "$root/tmp"
        mkdir "$root/tmp/programs"
        "$@" --root "$root" --work "$root/tmp/programs" || echo "what failed is not recorded"
        cp -a "$root/tmp/programs" "$place"
    "#;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-euc", script, "native"]);
    command.arg(x86_64).arg(place);
    let runner = ["run", "--quiet", "--package", "demotic-tests", "--bin", "programs", "--"];
    command.arg(cargo().get_program()).args(runner).arg("--record").args(filter);
    command.current_dir(root()).env_remove("LD_LIBRARY_PATH");
    steps.run("running the whole programs natively", NATIVE_LIMIT, &mut command)
}

/// Copies a folder into another.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let status = Command::new("cp").arg("--archive").arg(from).arg(to).status()?;
    if !status.success() {
        bail!("{} could not be copied", from.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_runners_are_added_up_however_they_arrive() {
        let mut counts = Counts::default();
        for part in ["ok one\n1 pas", "sed, 0 failed\nFAILED two\n", "0 passed, 2 failed\n"] {
            counts.write_all(part.as_bytes()).unwrap();
        }
        assert_eq!((counts.passed, counts.failed), (1, 2));
    }

    #[test]
    fn every_program_of_the_machine_is_in_its_list() {
        let folder = root().join("tests/vm");
        let list = fs::read_to_string(folder.join("programs.toml")).unwrap();
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension() == Some(OsStr::new("c")) {
                let name = path.file_stem().unwrap().to_string_lossy();
                assert!(list.contains(&format!("{{own}}/{name}\"")), "{name} is not in the list");
            }
        }
    }
}
