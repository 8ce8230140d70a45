//! `cargo xtask count`: the arm64 instructions executed for a program, beside those of its native arm64 build.
//! Counts, unlike times, are the same on every machine and in every run.

mod counter;
mod workloads;

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use self::{
    counter::{Counted, Counter},
    workloads::Workloads,
};
use crate::{
    packages::Store,
    run, say,
    setup::{self, For},
    target,
    toolchain::Toolchain,
};

/// The options of `cargo xtask count`.
#[derive(clap::Args)]
pub struct Options {
    /// Count every workload of benches/workloads, and write target/count/count.json.
    #[arg(long, conflicts_with_all = ["native", "program"])]
    all: bool,
    /// With --all: also under qemu-x86_64 and box64.
    #[arg(long, requires = "all")]
    others: bool,
    /// The native arm64 build of the program.
    #[arg(long)]
    native: Option<PathBuf>,
    /// Print the counts of each process by class of instruction, as JSON.
    #[arg(long)]
    classes: bool,
    /// Print the N blocks of each process in which most instructions were executed, as JSON.
    #[arg(long, value_name = "N")]
    hot: Option<u8>,
    /// Count programs with several threads exactly; slower.
    #[arg(long)]
    threads: bool,
    /// The x86_64 program and its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required_unless_present = "all")]
    program: Vec<OsString>,
}

/// The counts of one workload.
#[derive(Serialize)]
struct Row {
    workload: String,
    /// By translator; the native build is `native`.
    counts: Vec<(String, u64)>,
}

/// Counts one program, or every workload.
pub fn count(options: &Options) -> Result<ExitCode> {
    if std::env::consts::ARCH != "x86_64" {
        bail!("instructions are counted by an emulator, on an x86_64 machine");
    }
    setup::ensure(For::Count);
    let demotic = Toolchain::find(false)?.build()?;
    let folder = target().join("count");
    fs::create_dir_all(&folder)?;
    let folder = folder.canonicalize()?;
    let workloads = Workloads::read()?;
    let store = Store::new(folder.clone());
    let mut counter =
        Counter::new(folder.clone(), store.unpack("counter", &workloads.packages.counter)?)?;
    if options.classes {
        counter.options += ",model=on";
    }
    if let Some(hot) = options.hot {
        counter.options += &format!(",hot={hot}");
    }
    if options.threads {
        counter.options += ",threads=on";
    }
    let session = Session { counter, folder, demotic };
    let (rows, complete) = if options.all {
        session.all(&workloads, &store, options.others)?
    } else {
        (vec![session.one(options)?], true)
    };
    print(&rows);
    if options.all {
        let file = session.folder.join("count.json");
        fs::write(&file, serde_json::to_string_pretty(&rows)?)?;
        say(&format!("written to {}", file.display()));
    }
    Ok(if complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The other translators, as their programs are called.
const OTHERS: [&str; 2] = ["qemu-x86_64", "box64"];

/// What counting needs.
struct Session {
    counter: Counter,
    folder: PathBuf,
    demotic: PathBuf,
}

impl Session {
    /// The program on the command line.
    fn one(&self, options: &Options) -> Result<Row> {
        let (program, arguments) = options.program.split_first().context("a program")?;
        let program = run::find(program);
        let mut runs = Vec::new();
        if let Some(native) = &options.native {
            runs.push(("native", self.native(native, arguments)?));
        }
        for (name, counted) in self.translated(&program, arguments)? {
            runs.push((name, counted?));
        }
        for (name, counted) in &runs {
            for image in counted.images.iter().filter(|_| options.classes || options.hot.is_some())
            {
                println!("{name}: {image}");
            }
        }
        let mut row = Row { workload: program.display().to_string(), counts: Vec::new() };
        row.counts.extend(
            runs.into_iter().map(|(name, counted)| (name.to_owned(), counted.instructions)),
        );
        Ok(row)
    }

    /// Every workload; and whether all could be counted: one that cannot is said and left out.
    fn all(&self, workloads: &Workloads, store: &Store, others: bool) -> Result<(Vec<Row>, bool)> {
        let native = store.unpack("native", &workloads.packages.native)?;
        let others =
            others.then(|| store.unpack("others", &workloads.packages.others)).transpose()?;
        let (mut rows, mut complete) = (Vec::new(), true);
        for workload in &workloads.workload {
            say(&workload.name);
            let ready = workload.prepare(&self.folder, &native)?;
            let expected = self.native(&ready.native, &ready.arguments)?;
            let mut runs = self.translated(&ready.x86_64, &ready.arguments)?;
            if let Some(root) = &others {
                runs.extend(
                    OTHERS.map(|name| {
                        (name, self.other(root, name, &ready.x86_64, &ready.arguments))
                    }),
                );
            }
            let mut counts = vec![("native".into(), expected.instructions)];
            for (name, counted) in runs {
                match counted {
                    Ok(counted) if counted.printed == expected.printed => {
                        counts.push((name.into(), counted.instructions));
                        continue;
                    }
                    Ok(_) => say(&format!("{name}: does not print what the native build prints")),
                    Err(error) => say(&format!("{name}: {error:#}")),
                }
                complete = false;
            }
            rows.push(Row { workload: workload.name.clone(), counts });
        }
        Ok((rows, complete))
    }

    fn native(&self, program: &Path, arguments: &[OsString]) -> Result<Counted> {
        let counted = self.counter.count(&self.folder, |runner| {
            let mut command = Command::new(runner);
            command.arg(program).args(arguments);
            command
        });
        counted.context("the native build")
    }

    /// A first run, with no translation kept from before, and a second one.
    fn translated(
        &self,
        program: &Path,
        arguments: &[OsString],
    ) -> Result<Vec<(&'static str, Result<Counted>)>> {
        let home = tempfile::tempdir()?;
        let run = |name| {
            let counted = self.counter.count(home.path(), |runner| {
                let mut command = Command::new(runner);
                command.arg(&self.demotic).arg("--runner").arg(runner).args(["--sysroot", "/"]);
                command.arg(program).args(arguments);
                command
            });
            (name, counted)
        };
        Ok(vec![run("first run"), run("second run")])
    }

    /// Another translator.
    fn other(
        &self,
        root: &Path,
        name: &str,
        program: &Path,
        arguments: &[OsString],
    ) -> Result<Counted> {
        self.counter.count(&self.folder, |runner| {
            let libraries = root.join("usr/lib/aarch64-linux-gnu");
            let mut command = Command::new(runner);
            command
                .arg("-L")
                .arg(root)
                .arg("-E")
                .arg(format!("LD_LIBRARY_PATH={}", libraries.display()));
            command.args(["-E", "BOX64_NOBANNER=1", "-E", "BOX64_LOG=0"]);
            command.arg(root.join("usr/bin").join(name)).arg(program).args(arguments);
            command
        })
    }
}

/// Prints a table: the counts, and each as a multiple of the native one.
fn print(rows: &[Row]) {
    println!("{:24} {:>14} {:>14} {:>8}", "executed instructions", "", "arm64", "× native");
    for row in rows {
        let native = row.counts.iter().find(|(name, _)| name == "native").map(|(_, count)| *count);
        let mut workload = row.workload.as_str();
        for (name, count) in &row.counts {
            let ratio = native
                .map_or_else(String::new, |native| format!("{:.2}", *count as f64 / native as f64));
            println!("{workload:24} {name:>14} {count:>14} {ratio:>8}");
            workload = "";
        }
    }
}
