//! The compiler that builds for arm64, and what runs the result on this machine.
//!
//! On an arm64 machine both are trivial. On x86_64 the compiler is the one cargo uses anyway when it has the
//! target's standard library (rustup can add it), else the distribution's; the result runs under qemu-aarch64.

use std::{
    env::consts::ARCH,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use anyhow::{Context, Result, bail};

use crate::{
    apt::{self, output},
    root, say,
    setup::{self, RustPart},
    target, timed,
};

/// The target the translator is built for.
pub const TARGET: &str = "aarch64-unknown-linux-gnu";

/// What runs arm64 programs on another processor.
const EMULATOR: &str = "qemu-aarch64";

/// The oldest version of it whose newest instructions can be relied on. QEMU 8.1 to 9.0 takes the offsets of
/// FEAT_LRCPC2's instructions for unsigned, and ends when one of FEAT_MOPS faults.
const RELIABLE: u32 = 10;

/// An older one, as a processor that has only what ARMv8.0 has.
const OLD_EMULATOR: &str = "qemu-aarch64 -cpu cortex-a72";

/// The distribution's compiler, which stands beside rustup's and does not shadow it.
const DISTRIBUTION_RUSTC: &str = "/usr/bin/rustc";

/// How to build for arm64 here.
pub struct Toolchain {
    /// The compiler, when it is not the one cargo uses anyway.
    rustc: Option<PathBuf>,
}

/// The oldest Rust the project is built with: `rust-version` in Cargo.toml.
pub fn oldest() -> Vec<u32> {
    env!("CARGO_PKG_RUST_VERSION")
        .split('.')
        .map(|number| number.parse().expect("a number"))
        .collect()
}

/// What stands in front of an arm64 program's name on this machine: a program, and options.
pub fn runner() -> Option<&'static str> {
    match ARCH {
        "aarch64" => None,
        _ if runner_is_old() => Some(OLD_EMULATOR),
        _ => Some(EMULATOR),
    }
}

/// Whether this machine's emulator is older than what is relied on.
pub fn runner_is_old() -> bool {
    static OLD: OnceLock<bool> = OnceLock::new();
    let version = || output(Command::new(EMULATOR).arg("--version")).unwrap_or_default();
    ARCH != "aarch64" && *OLD.get_or_init(|| is_old(&version()))
}

/// The same, by what it says when it is asked for its version.
fn is_old(version: &str) -> bool {
    let version = version.split_whitespace().nth(2).map(apt::upstream).unwrap_or_default();
    version.first().is_some_and(|&major| major < RELIABLE)
}

impl Toolchain {
    /// Finds a compiler for arm64, or installs one; with `clippy`, one whose clippy is there too.
    pub fn find(clippy: bool) -> Result<Self> {
        let own = Self { rustc: None };
        let distribution = Self { rustc: Some(DISTRIBUTION_RUSTC.into()) };
        if own.usable(clippy) {
            return Ok(own);
        }
        if distribution.usable(clippy) {
            return Ok(distribution);
        }
        if succeeds(Command::new("timeout").args(["120", "rustup", "target", "add", TARGET])) {
            if clippy {
                succeeds(Command::new("timeout").args([
                    "120",
                    "rustup",
                    "component",
                    "add",
                    "clippy",
                    "rustfmt",
                ]));
            }
            if own.usable(clippy) {
                return Ok(own);
            }
        }
        let parts: &[_] =
            if clippy { &[RustPart::Arm64, RustPart::Clippy] } else { &[RustPart::Arm64] };
        setup::install_rust(parts).context("no Rust compiler for arm64")?;
        if !distribution.usable(clippy) {
            bail!("{DISTRIBUTION_RUSTC} still cannot build for {TARGET}");
        }
        Ok(distribution)
    }

    /// Is the compiler new enough, with the standard library for arm64 (and, if asked for, its clippy)?
    fn usable(&self, clippy: bool) -> bool {
        let rustc = self
            .rustc
            .clone()
            .or_else(|| std::env::var_os("RUSTC").map(Into::into))
            .unwrap_or("rustc".into());
        new_enough(&rustc)
            && has_standard_library(&rustc)
            && (!clippy || succeeds(self.clippy().arg("--version")))
    }

    /// `cargo` for arm64; the caller adds a subcommand and `--target`.
    fn prepare(&self, mut cargo: Command) -> Command {
        if let Some(rustc) = &self.rustc {
            cargo.env("RUSTC", rustc);
        }
        if let Some(runner) = runner() {
            cargo.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", "aarch64-linux-gnu-gcc");
            cargo.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER", runner);
        }
        cargo
    }

    /// `cargo SUBCOMMAND --target TARGET` for arm64.
    pub fn cargo(&self, subcommand: &str) -> Command {
        let mut cargo = self.prepare(cargo());
        cargo.args([subcommand, "--target", TARGET]);
        cargo
    }

    /// `cargo clippy` of the same build as the compiler: another one cannot read its standard library.
    pub fn clippy(&self) -> Command {
        let program = match &self.rustc {
            Some(rustc) => self.prepare(Command::new(rustc.with_file_name("cargo-clippy"))),
            None => self.prepare(cargo()),
        };
        let mut clippy = in_root(program);
        clippy.arg("clippy");
        clippy
    }

    /// The command that builds a program of one of the packages for arm64, to be used.
    pub fn release(&self, package: &str, program: &str) -> Command {
        let mut build = self.cargo("build");
        build.args(["--quiet", "--release", "--package", package, "--bin", program]);
        build
    }

    /// Builds Demotic for arm64 and returns its path.
    pub fn build(&self) -> Result<PathBuf> {
        let mut build = self.release("demotic", "demotic");
        if !timed("building Demotic for arm64", || build.status())?.success() {
            bail!("Demotic could not be built for arm64");
        }
        let built = target().join(TARGET).join("release/demotic");
        built.canonicalize().with_context(|| format!("{} is not there", built.display()))
    }
}

/// The command that runs an x86_64 program under `demotic` on this machine.
pub fn translated(demotic: &Path, options: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
    let mut command = match runner() {
        Some(runner) => {
            let mut words = runner.split(' ');
            let mut command = Command::new(words.next().expect("a word"));
            command.args(words).arg(demotic).args(["--runner", runner]);
            command
        }
        None => Command::new(demotic),
    };
    command.args(options);
    command
}

/// `cargo` at the top of the repository, without what the cargo that runs us has set for us alone.
pub fn cargo() -> Command {
    let mut cargo = in_root(Command::new("cargo"));
    cargo.env_remove("LD_LIBRARY_PATH");
    cargo
}

fn in_root(mut command: Command) -> Command {
    command.current_dir(root());
    command
}

/// Installs `cargo fmt` and `cargo clippy` for this machine's own processor, where they are missing.
pub fn ensure_components() {
    let parts = [("fmt", "rustfmt", RustPart::Fmt), ("clippy", "clippy", RustPart::Clippy)];
    for (subcommand, component, part) in parts {
        if succeeds(cargo().args([subcommand, "--version"]))
            || succeeds(Command::new("timeout").args([
                "120",
                "rustup",
                "component",
                "add",
                component,
            ]))
        {
            continue;
        }
        if let Err(error) = setup::install_rust(&[part]) {
            say(&format!("no cargo {subcommand}: {error:#}"));
        }
    }
}

fn new_enough(rustc: &Path) -> bool {
    let version = output(Command::new(rustc).arg("--version")).unwrap_or_default();
    let number = version.split(' ').nth(1).unwrap_or_default();
    let numbers: Vec<u32> = number.split('.').map_while(|part| part.parse().ok()).collect();
    numbers >= oldest()
}

fn has_standard_library(rustc: &Path) -> bool {
    let Ok(folder) =
        output(Command::new(rustc).args(["--print", "target-libdir", "--target", TARGET]))
    else {
        return false;
    };
    let Ok(mut files) = std::fs::read_dir(folder.trim()) else {
        return false;
    };
    files.any(|file| {
        file.is_ok_and(|file| file.file_name().to_string_lossy().starts_with("libstd-"))
    })
}

fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|s| s.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emulators_are_old_by_their_version() {
        assert!(is_old("qemu-aarch64 version 8.2.2 (Debian 1:8.2.2+ds-0ubuntu1.18)\nCopyright\n"));
        assert!(!is_old("qemu-aarch64 version 10.0.2 (Debian 1:10.0.2+ds-2)\n") && !is_old(""));
    }
}
