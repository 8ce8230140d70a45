//! The workloads, `benches/workloads/workloads.toml`, and their two builds.

use std::{
    env::consts::ARCH,
    ffi::OsString,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::{
    packages::{Packages, Store},
    root,
};

/// `workloads.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workloads {
    /// What is run.
    pub workload: Vec<Workload>,
    /// Single operations that are run.
    pub latency: Vec<Latency>,
    /// What shows the cost of translation.
    pub translation: Translation,
    /// Where the tools come from.
    pub packages: Sources,
}

/// The packages that are unpacked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Sources {
    /// The emulator that counts.
    pub counter: Packages,
    /// The programs, for x86_64 …
    pub x86_64: Packages,
    /// … and for arm64.
    pub arm64: Packages,
    /// Other translators.
    pub peers: Packages,
}

/// Something to run.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Workload {
    /// What it is called.
    pub name: String,
    source: Option<String>,
    #[serde(default)]
    musl: bool,
    program: Option<String>,
    native: Option<String>,
    #[serde(default)]
    arguments: Vec<String>,
    /// The ratio to native that is aimed at.
    pub goal: Option<f64>,
    /// The millions of instructions in all that are aimed at.
    pub goal_millions: Option<f64>,
    /// Does it count in the geometric mean?
    #[serde(default)]
    pub hot: bool,
}

/// An operation of `latency.c`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Latency {
    /// What it is called.
    pub name: String,
    operation: String,
    /// How often it is done; and then three times as often.
    pub times: u32,
}

/// Workloads that show the cost of translation.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Translation {
    /// The one that has least of it.
    pub smallest: String,
    /// Those that are compared with it.
    pub workloads: Vec<String>,
}

/// A workload's two builds, and the arguments both get.
pub struct Ready {
    /// The x86_64 build.
    pub x86_64: PathBuf,
    /// The arm64 build.
    pub arm64: PathBuf,
    /// Are they static?
    pub fixed: bool,
    /// The arguments.
    pub arguments: Vec<OsString>,
}

impl Workloads {
    /// Reads the list.
    pub fn read() -> Result<Self> {
        let path = here().join("workloads.toml");
        toml::from_str(&fs::read_to_string(&path)?).with_context(|| path.display().to_string())
    }

    /// The workload of that name.
    pub fn find(&self, name: &str) -> Result<&Workload> {
        let found = self.workload.iter().find(|workload| workload.name == name);
        found.with_context(|| {
            let names: Vec<_> =
                self.workload.iter().map(|workload| workload.name.as_str()).collect();
            format!("no workload is called {name}: there are {}", names.join("; "))
        })
    }
}

/// The folder of the workloads.
fn here() -> PathBuf {
    root().join("benches/workloads")
}

/// Prepares workloads in a folder.
pub struct Workshop {
    folder: PathBuf,
    /// The root of the x86_64 packages.
    pub x86_64: PathBuf,
    /// The root of the arm64 packages.
    pub arm64: PathBuf,
}

impl Workshop {
    /// Unpacks the programs.
    pub fn new(folder: &Path, store: &Store, sources: &Sources) -> Result<Self> {
        let x86_64 = store.unpack("x86_64", &sources.x86_64)?;
        let arm64 = store.unpack("arm64", &sources.arm64)?;
        Ok(Self { folder: folder.into(), x86_64, arm64 })
    }

    /// Builds or finds both programs; `output` gives the file with what another workload printed.
    pub fn prepare(
        &self,
        workload: &Workload,
        output: impl FnMut(&str) -> Result<PathBuf>,
    ) -> Result<Ready> {
        let arguments = self.arguments(&workload.arguments, output)?;
        let fixed = workload.source.is_some();
        let (x86_64, arm64) = match (&workload.source, &workload.program) {
            (Some(source), None) => (
                self.build(source, workload.musl, "x86_64")?,
                self.build(source, workload.musl, "aarch64")?,
            ),
            (None, Some(program)) => {
                let native = workload.native.as_ref().unwrap_or(program);
                (packaged(&self.x86_64, program)?, packaged(&self.arm64, native)?)
            }
            _ => bail!("a workload has either a source or a program"),
        };
        Ok(Ready { x86_64, arm64, fixed, arguments })
    }

    /// Builds what does an operation, for one that is done so often.
    pub fn prepare_latency(&self, latency: &Latency, times: u32) -> Result<Ready> {
        // box64 runs no static program of glibc's.
        let [x86_64, arm64] =
            ["x86_64", "aarch64"].map(|processor| self.build("latency.c", true, processor));
        let arguments = vec![latency.operation.clone().into(), times.to_string().into()];
        Ok(Ready { x86_64: x86_64?, arm64: arm64?, fixed: true, arguments })
    }

    /// The arguments with what stands in {} replaced.
    fn arguments(
        &self,
        arguments: &[String],
        mut output: impl FnMut(&str) -> Result<PathBuf>,
    ) -> Result<Vec<OsString>> {
        let replace = |argument: &String| -> Result<OsString> {
            let mut replaced = argument
                .replace("{root}", &self.x86_64.to_string_lossy())
                .replace("{here}", &here().to_string_lossy());
            if let Some(length) = field(&replaced, "text") {
                replaced = text(&self.folder, length.parse()?)?.display().to_string();
            } else if let Some(name) = field(&replaced, "output") {
                replaced = output(name)?.display().to_string();
            }
            Ok(replaced.into())
        };
        arguments.iter().map(replace).collect()
    }

    /// Builds a source, static, for a processor.
    fn build(&self, source: &str, musl: bool, processor: &str) -> Result<PathBuf> {
        let path = here().join(source);
        let library = if musl { "musl" } else { "gnu" };
        let output = self.folder.join(format!("{source}-{processor}-{library}"));
        let own = ARCH == processor;
        let compiler = if own {
            "gcc".into()
        } else {
            format!("{}-linux-gnu-gcc", processor.replace('_', "-"))
        };
        let mut compile = Command::new(&compiler);
        // Each processor rounds a product before it is added to.
        compile.args(["-O2", "-ffp-contract=off", "-static", "-o"]).arg(&output);
        if musl {
            let packages = if processor == "x86_64" { &self.x86_64 } else { &self.arm64 };
            let triple = format!("{processor}-linux-musl");
            let file = |name: &str| packages.join("usr/lib").join(&triple).join(name);
            let headers = packages.join("usr/include").join(&triple);
            compile.args(["-no-pie", "-nostdinc", "-nostdlib", "-isystem"]).arg(headers);
            compile.args([file("crt1.o"), file("crti.o"), path, file("libc.a")]);
            compile.arg("-lgcc").arg(file("crtn.o"));
        } else {
            compile.arg(path).arg("-lm");
        }
        let built = compile.status().with_context(|| format!("{compiler} is missing"))?;
        if !built.success() {
            bail!("{compiler} failed");
        }
        Ok(output)
    }
}

/// A program of unpacked packages: a name in /usr/bin or /bin, or a path.
fn packaged(root: &Path, program: &str) -> Result<PathBuf> {
    let places = ["usr/bin", "bin", ""].map(|folder| root.join(folder).join(program));
    let found = places.into_iter().find(|path| path.is_file());
    found.with_context(|| format!("no {program} in {}", root.display()))
}

/// What stands behind `{NAME:` and before `}`, when that is the whole argument.
fn field<'a>(argument: &'a str, name: &str) -> Option<&'a str> {
    argument.strip_prefix('{')?.strip_suffix('}')?.strip_prefix(name)?.strip_prefix(':')
}

/// What the text speaks of.
const WORDS: &str = "the of request user session error table index thread memory file block queue worker signal \
                     packet cache page lock timer socket region window buffer";

/// Writes a file of text that looks like a log; the same every time.
fn text(folder: &Path, length: usize) -> Result<PathBuf> {
    let path = folder.join(format!("text-{length}"));
    let words: Vec<_> = WORDS.split(' ').collect();
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state as usize
    };
    let mut text = String::with_capacity(length + 200);
    for line in 0.. {
        let number = next();
        write!(text, "{line:08} {}", ["info", "warning", "error"][(number >> 30) % 3])?;
        for _ in 0..3 + (number >> 28) % 6 {
            write!(text, " {}", words[(next() >> 24) % words.len()])?;
        }
        let number = next();
        writeln!(text, " {:x} took {} ms", number >> 8, (number >> 12) % 997)?;
        if text.len() >= length {
            break;
        }
    }
    text.truncate(length);
    fs::write(&path, text)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every workload can be told from the others, and what it needs of another is one that stands before it.
    #[test]
    fn the_list_is_well_formed() {
        let list = Workloads::read().unwrap();
        let mut names = Vec::new();
        for workload in &list.workload {
            assert!(!names.contains(&&workload.name), "{} stands twice", workload.name);
            assert!(workload.source.is_some() != workload.program.is_some(), "{}", workload.name);
            for needed in workload.arguments.iter().filter_map(|argument| field(argument, "output"))
            {
                assert!(names.iter().any(|name| *name == needed), "{needed} is not before");
            }
            names.push(&workload.name);
        }
        let translation = &list.translation;
        for name in translation.workloads.iter().chain([&translation.smallest]) {
            list.find(name).unwrap();
        }
        for latency in &list.latency {
            assert!(!names.contains(&&latency.name), "{} stands twice", latency.name);
            names.push(&latency.name);
        }
    }

    #[test]
    fn the_text_is_the_same_every_time() {
        let folder = tempfile::tempdir().unwrap();
        let written = fs::read(text(folder.path(), 1000).unwrap()).unwrap();
        assert_eq!(written.len(), 1000);
        assert!(written.starts_with(b"00000000 info window memory queue"));
        assert_eq!(fs::read(text(folder.path(), 1000).unwrap()).unwrap(), written);
    }
}
