//! Installs what a command needs and the machine lacks: `packages.toml` says what, and why.

use std::{
    collections::{BTreeMap, HashSet},
    env::consts::ARCH,
    io::Write,
    os::unix::fs::symlink,
    path::PathBuf,
};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::{
    apt::{self, Installed},
    packages::{Packages, Store},
    say, target,
};

/// The commands that need packages.
#[derive(Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum For {
    /// `cargo xtask run`
    Run,
    /// `cargo xtask test`
    Test,
    /// `cargo xtask bench`
    Bench,
    /// `cargo xtask count`
    Count,
    /// `cargo xtask vm`
    Vm,
}

/// `packages.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Table {
    group: Vec<Group>,
    rust: Vec<Rust>,
    sysroot: Packages,
    /// Links in that root, by their own names.
    sysroot_links: BTreeMap<PathBuf, PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Group {
    /// The only processor it is needed on.
    on: Option<String>,
    /// Only machines that are not Debian's need it.
    #[serde(default)]
    beside_debian: bool,
    commands: Vec<For>,
    packages: Vec<Package>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Package {
    name: String,
    why: String,
    at_least: Option<String>,
}

/// A Rust compiler of the distribution's that can build for arm64.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rust {
    compiler: String,
    arm64: String,
    clippy: String,
    fmt: String,
}

fn table() -> Table {
    toml::from_str(include_str!("../packages.toml")).expect("packages.toml is well formed")
}

impl Package {
    /// The oldest version that is installed. A distribution without backports has no newer one than it has.
    fn oldest(&self) -> Vec<u32> {
        if apt::is_debian() { self.tested() } else { Vec::new() }
    }

    fn tested(&self) -> Vec<u32> {
        self.at_least.as_deref().map(apt::upstream).unwrap_or_default()
    }

    fn missing(&self, installed: &Installed) -> bool {
        !installed.has(&self.name, &self.oldest())
    }

    /// How apt is to be asked for it; backports are added when only they have it new enough.
    fn wanted(&self) -> Result<String> {
        let oldest = self.oldest();
        let find = || apt::available(&self.name, &oldest);
        if let Some(found) = find() {
            return Ok(if oldest.is_empty() {
                self.name.clone()
            } else {
                format!("{}={found}", self.name)
            });
        }
        if oldest.is_empty() {
            bail!("apt knows no such package");
        }
        apt::add_backports()?;
        let found = find().context("neither the release nor its backports have it new enough")?;
        Ok(format!("{}={found}", self.name))
    }
}

/// What `command` needs on a machine with this processor, which is Debian's or not.
fn needed(command: For, processor: &str, debian: bool) -> Vec<Package> {
    let wanted = |group: &Group| {
        group.commands.contains(&command)
            && group.on.as_ref().is_none_or(|only| only == processor)
            && !(group.beside_debian && debian)
    };
    let mut packages: Vec<Package> =
        table().group.into_iter().filter(wanted).flat_map(|group| group.packages).collect();
    let mut seen = HashSet::new();
    packages.retain(|package| seen.insert(package.name.clone()));
    packages
}

/// Installs what `command` needs and the machine lacks, asking first when there is someone to ask.
/// What cannot be had is said, and is no error: what needs it will fail, and say so.
pub fn ensure(command: For) {
    let packages = needed(command, ARCH, apt::is_debian());
    let Some(installed) = Installed::query() else {
        say("no dpkg here: install what xtask/packages.toml names by other means");
        return;
    };
    let missing: Vec<_> =
        packages.iter().filter(|package| package.missing(&installed)).cloned().collect();
    if missing.is_empty() {
        return say_what_is_old(&packages, &installed);
    }
    say("these packages are missing");
    for package in &missing {
        eprintln!("   {:24} {}", package.name, package.why);
    }
    if let Err(error) = install(&missing) {
        say(&format!("could not install everything: {error:#}"));
    }
    let Some(installed) = Installed::query() else {
        return;
    };
    for package in missing.iter().filter(|package| package.missing(&installed)) {
        say(&format!("still missing: {} ({})", package.name, package.why));
    }
    say_what_is_old(&packages, &installed);
}

/// Names what is there, and older than what is tested.
fn say_what_is_old(packages: &[Package], installed: &Installed) {
    let old = |package: &&Package| {
        installed.has(&package.name, &[]) && !installed.has(&package.name, &package.tested())
    };
    for Package { name, at_least, why } in packages.iter().filter(old) {
        let tested = at_least.as_deref().unwrap_or_default();
        say(&format!("{name} is older here than {tested}, the oldest that is tested ({why})"));
    }
}

fn install(missing: &[Package]) -> Result<()> {
    if !agreed()? {
        bail!("not wanted");
    }
    apt::update();
    let mut wanted = Vec::new();
    for package in missing {
        match package.wanted() {
            Ok(name) => wanted.push(name),
            Err(error) => say(&format!("{}: {error:#}", package.name)),
        }
    }
    apt::install(&wanted)
}

/// The x86_64 root of an arm64 machine, for whole programs: unpacked below `target`.
pub fn x86_64_root() -> Result<PathBuf> {
    let Table { sysroot, sysroot_links, .. } = table();
    let store = Store::new(target().join("sysroot"));
    let root = store.unpack("x86_64", &sysroot).context(
        "whole programs need an x86_64 root: if none can be made, give one with --sysroot DIRECTORY",
    )?;
    for (name, target) in sysroot_links {
        let name = root.join(name);
        if name.symlink_metadata().is_err() {
            symlink(target, &name).with_context(|| name.display().to_string())?;
        }
    }
    Ok(root)
}

/// A part of a Rust toolchain.
#[derive(Clone, Copy, PartialEq)]
pub enum RustPart {
    /// A compiler with the standard library for arm64.
    Arm64,
    /// `cargo clippy`.
    Clippy,
    /// `cargo fmt`.
    Fmt,
}

/// Installs parts of a Rust toolchain from the distribution.
pub fn install_rust(parts: &[RustPart]) -> Result<()> {
    if Installed::query().is_none() {
        bail!("no dpkg here: install Rust with rustup");
    }
    say("Rust for arm64 is missing, or a part of it: the distribution may have it");
    if !agreed()? {
        bail!("not wanted");
    }
    apt::update();
    if parts.contains(&RustPart::Arm64) {
        apt::add_arm64()?;
    }
    let oldest = crate::toolchain::oldest();
    let packages = table().rust.into_iter().map(|rust| {
        let names = parts.iter().map(|part| match part {
            RustPart::Arm64 => vec![rust.compiler.clone(), rust.arm64.clone()],
            RustPart::Clippy => vec![rust.clippy.clone()],
            RustPart::Fmt => vec![rust.fmt.clone()],
        });
        names.flatten().collect::<Vec<_>>()
    });
    let packages = packages
        .into_iter()
        .find(|packages| packages.iter().all(|name| apt::available(name, &oldest).is_some()))
        .context("the distribution has no Rust for arm64 that is new enough: use rustup")?;
    apt::install(&packages)
}

/// Asks whether to install, when there is someone to ask.
fn agreed() -> Result<bool> {
    if !apt::person_present() {
        return Ok(true);
    }
    eprint!("   Install with apt-get? [Y/n] ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "" | "y" | "Y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_names_each_package_once_in_a_group_and_says_why() {
        let table = table();
        assert!(!table.rust.is_empty());
        for group in table.group {
            let mut seen = HashSet::new();
            for package in group.packages {
                assert!(!package.why.is_empty(), "{} has no reason", package.name);
                assert!(seen.insert(package.name.clone()), "{} stands twice", package.name);
            }
        }
    }

    #[test]
    fn a_machine_of_another_distribution_can_find_debians_packages_and_check_them() {
        let names = |command, processor, debian| -> Vec<_> {
            needed(command, processor, debian).into_iter().map(|package| package.name).collect()
        };
        for processor in ["x86_64", "aarch64"] {
            for command in [For::Test, For::Bench, For::Count, For::Vm] {
                let found = names(command, processor, false);
                for name in ["debian-archive-keyring", "mmdebstrap"] {
                    assert_eq!(found.iter().filter(|found| *found == name).count(), 1, "{name}");
                }
            }
            assert!(!names(For::Test, processor, true).contains(&"debian-archive-keyring".into()));
        }
        assert!(names(For::Run, "aarch64", false).is_empty());
    }
}
