//! The workloads that are counted, `benches/workloads/workloads.toml`, and their two builds.

use std::{
    ffi::OsString,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::{packages::Packages, root};

/// `workloads.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workloads {
    /// What is counted.
    pub workload: Vec<Workload>,
    /// Where the tools come from.
    pub packages: Sources,
}

/// The packages that are unpacked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sources {
    /// The emulator that counts.
    pub counter: Packages,
    /// Native arm64 builds of the programs.
    pub native: Packages,
    /// Other translators.
    pub others: Packages,
}

/// Something to count.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// What it is called.
    pub name: String,
    source: Option<String>,
    #[serde(default)]
    musl: bool,
    program: Option<PathBuf>,
    #[serde(default)]
    arguments: Vec<String>,
}

/// A workload's two builds, and the arguments both get.
pub struct Ready {
    /// The x86_64 build.
    pub x86_64: PathBuf,
    /// The arm64 build.
    pub native: PathBuf,
    /// The arguments.
    pub arguments: Vec<OsString>,
}

impl Workloads {
    /// Reads the list.
    pub fn read() -> Result<Self> {
        let path = root().join("benches/workloads/workloads.toml");
        toml::from_str(&fs::read_to_string(&path)?).with_context(|| path.display().to_string())
    }
}

impl Workload {
    /// Builds or finds both programs; `native` is the root of the native arm64 packages.
    pub fn prepare(&self, folder: &Path, native: &Path) -> Result<Ready> {
        let data = data(folder)?;
        let arguments = self
            .arguments
            .iter()
            .map(|argument| argument.replace("{data}", &data).into())
            .collect();
        let (x86_64, native) = match (&self.source, &self.program) {
            (Some(source), None) => self.build(source, folder, native)?,
            (None, Some(program)) => {
                let program =
                    program.canonicalize().with_context(|| program.display().to_string())?;
                let native = packaged(native, &program)?;
                (program, native)
            }
            _ => bail!("a workload has either a source or a program"),
        };
        Ok(Ready { x86_64, native, arguments })
    }

    /// Builds a source for both processors.
    fn build(&self, source: &str, folder: &Path, native: &Path) -> Result<(PathBuf, PathBuf)> {
        let path = root().join("benches/workloads").join(source);
        let library = if self.musl { "musl" } else { "glibc" };
        let output = |processor: &str| folder.join(format!("{source}-{library}-{processor}"));
        let (x86_64, arm64) = (output("x86_64"), output("arm64"));
        let mut compile = Command::new(if self.musl { "musl-gcc" } else { "gcc" });
        run(compile.args(["-O2", "-static", "-o"]).arg(&x86_64).arg(&path))?;
        let mut compile = Command::new("aarch64-linux-gnu-gcc");
        compile.args(["-O2", "-static", "-o"]).arg(&arm64);
        if self.musl {
            let library = |file: &str| native.join("usr/lib/aarch64-linux-musl").join(file);
            compile
                .args(["-nostdinc", "-nostdlib", "-isystem"])
                .arg(native.join("usr/include/aarch64-linux-musl"));
            compile.args([library("crt1.o"), library("crti.o"), path, library("libc.a")]);
            compile.arg("-lgcc").arg(library("crtn.o"));
        } else {
            compile.arg(path);
        }
        run(&mut compile)?;
        Ok((x86_64, arm64))
    }
}

/// A program of the unpacked packages: some still ship in /bin what is installed in /usr/bin.
fn packaged(root: &Path, program: &Path) -> Result<PathBuf> {
    let name = program.file_name().context("a file")?;
    let places = ["usr/bin", "bin"].map(|folder| root.join(folder).join(name));
    places
        .into_iter()
        .find(|path| path.exists())
        .with_context(|| format!("no arm64 build of {}", program.display()))
}

fn run(command: &mut Command) -> Result<()> {
    if !command.status().with_context(|| command.get_program().display().to_string())?.success() {
        bail!("{} failed", command.get_program().display());
    }
    Ok(())
}

/// Writes 2 MB of text that looks like a log, and the same compressed; the same every time.
fn data(folder: &Path) -> Result<String> {
    let path = folder.join("data");
    let (mut text, mut state) = (String::new(), 1_u32);
    for line in 0.. {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let level = ["info", "warning", "error"][(state >> 30) as usize % 3];
        writeln!(
            text,
            "{line:08} {level} request {:x} took {} ms",
            state >> 8,
            (state >> 12) % 997
        )?;
        if text.len() > 2_000_000 {
            break;
        }
    }
    fs::write(&path, text)?;
    run(Command::new("gzip").args(["-nkf"]).arg(&path))?;
    Ok(path.display().to_string())
}
