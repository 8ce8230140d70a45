//! `cargo xtask count`: the arm64 instructions executed for one program, beside those of its native arm64 build.
//! The counts are the same on every machine and in every run.

mod functions;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, bail};

use crate::{
    bench::{
        self,
        measure::{Counter, Launch, Measured},
    },
    run,
    setup::{self, For},
    toolchain::Toolchain,
};

/// The options of `cargo xtask count`.
#[derive(clap::Args)]
pub struct Options {
    /// The native arm64 build of the program.
    #[arg(long)]
    native: Option<PathBuf>,
    /// The root that the native build's shared libraries are in.
    #[arg(long, requires = "native")]
    native_root: Option<PathBuf>,
    /// Print the counts of each process by class of instruction, as JSON.
    #[arg(long)]
    classes: bool,
    /// Print the N blocks of each process in which most instructions were executed, as JSON.
    #[arg(long, value_name = "N")]
    hot: Option<u8>,
    /// Print the stages of the translator's own work in the first run, and the N functions in which most of it was done.
    #[arg(long, value_name = "N")]
    functions: Option<usize>,
    /// Count programs with several threads exactly; slower.
    #[arg(long)]
    threads: bool,
    /// The x86_64 program and its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    program: Vec<OsString>,
}

impl Options {
    /// The options for the plugin.
    fn plugin(&self, blocks: &Path) -> String {
        let mut options = String::new();
        if self.functions.is_some() {
            options += &format!(",blocks={}", blocks.display());
        }
        if self.classes || self.functions.is_some() {
            options += ",model=on";
        }
        if let Some(hot) = self.hot {
            options += &format!(",hot={hot}");
        }
        if self.threads {
            options += ",threads=on";
        }
        options
    }
}

/// Counts one program: natively if there is a native build, then twice translated. The first run finds no translation
/// kept from before.
pub fn count(options: &Options) -> Result<ExitCode> {
    if std::env::consts::ARCH != "x86_64" {
        bail!("instructions are counted by an emulator, on an x86_64 machine");
    }
    setup::ensure(For::Count);
    let demotic = Toolchain::find(false)?.build()?;
    let (program, arguments) = options.program.split_first().context("a program")?;
    let home = tempfile::tempdir()?;
    let blocks = home.path().join("blocks");
    let counter = bench::counter_with(&options.plugin(&blocks))?;
    let run = |name: &'static str, launch| -> Result<_> {
        Ok((name, counter.run(home.path(), &launch).context(name)?))
    };
    let mut runs: Vec<(&str, Measured)> = Vec::new();
    if let Some(native) = &options.native {
        let root = options.native_root.clone();
        let (program, arguments) = (native.clone(), arguments.to_vec());
        runs.push(run(
            "native",
            Launch { program, root, arguments, environment: Vec::new(), errors: None },
        )?);
    }
    for name in ["first run", "second run"] {
        let mut words = translated(&counter);
        words.push(run::find(program).into());
        words.extend(arguments.iter().cloned());
        let launch = Launch {
            program: demotic.clone(),
            root: None,
            arguments: words,
            environment: Vec::new(),
            errors: None,
        };
        let first = name == "first run";
        if first {
            // What a native build has left there.
            let _ = std::fs::remove_file(&blocks);
        }
        runs.push(run(name, launch)?);
        if let Some(most) = options.functions.filter(|_| first) {
            functions::print(&blocks, &demotic, most)?;
        }
    }
    print(&runs, options.classes || options.hot.is_some());
    Ok(ExitCode::SUCCESS)
}

/// Demotic's options.
fn translated(counter: &Counter) -> Vec<OsString> {
    vec!["--runner".into(), counter.runner().into(), "--sysroot".into(), "/".into()]
}

/// Prints the counts, and each as a multiple of the native one; and before them the plugin's lines, if wanted.
fn print(runs: &[(&str, Measured)], images: bool) {
    for (name, run) in runs.iter().filter(|_| images) {
        for image in &run.images {
            println!("{name}: {image}");
        }
    }
    let native =
        runs.iter().find(|(name, _)| *name == "native").and_then(|(_, run)| run.instructions);
    println!("{:12} {:>14} {:>8}", "", "instructions", "× native");
    for (name, run) in runs {
        let count = run.instructions.unwrap_or_default();
        let ratio = native
            .map_or_else(String::new, |native| format!("{:.2}", count as f64 / native as f64));
        println!("{name:12} {count:>14} {ratio:>8}");
    }
}
