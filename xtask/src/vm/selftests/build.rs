//! The kernel's own tests, built for both processors.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Result;

use crate::{
    packages::Suite,
    vm::{Workshop, cache::Key, recipe::Selftests},
};

const LIMIT: Duration = Duration::from_secs(1800);

/// A processor that tests are built for.
pub struct Processor {
    /// The name of its folder.
    pub name: &'static str,
    /// The kernel's name for it.
    kernel: &'static str,
    /// Debian's.
    debian: &'static str,
    /// What the names of its compilers begin with.
    prefix: &'static str,
    /// Where its programs run in the machine.
    pub root: &'static str,
}

/// Both, in the order in which they run.
pub const PROCESSORS: [Processor; 2] = [
    Processor { name: "x86_64", kernel: "x86", debian: "amd64", prefix: "", root: "/x86" },
    Processor {
        name: "arm64",
        kernel: "arm64",
        debian: "arm64",
        prefix: "aarch64-linux-gnu-",
        root: "/",
    },
];

impl Processor {
    /// Whether its programs run without a translator.
    pub fn is_control(&self) -> bool {
        self.root == "/"
    }
}

/// Where the tests of both are; a folder for each.
pub fn build(workshop: &Workshop, recipe: &Selftests) -> Result<PathBuf> {
    let script = include_str!("../guest/build-selftests");
    let key = Key::of(include_str!("build.rs")).and(script).and(&recipe.suite).and(&recipe.package);
    let key = recipe.libraries.iter().chain(&recipe.collections).fold(key, Key::and);
    workshop.cache.entry("selftests", key, |folder| {
        let lists = folder.join("apt");
        let suite = Suite::read(&lists, &recipe.suite)?;
        suite.unpack(std::slice::from_ref(&recipe.package), &folder.join("source"))?;
        for processor in &PROCESSORS {
            let named = |library| format!("{library}:{}", processor.debian);
            let libraries: Vec<_> = recipe.libraries.iter().map(named).collect();
            suite.unpack(&libraries, &folder.join("libraries").join(processor.name))?;
        }
        fs::remove_dir_all(lists)?;
        for Processor { name, kernel, prefix, .. } in &PROCESSORS {
            let mut build = Command::new("sh");
            build.args(["-euc", script, "build", name, kernel, prefix]).arg(folder);
            build.args(&recipe.collections).env_remove("MAKEFLAGS");
            workshop.steps.run(
                &format!("building the kernel's tests for {name}"),
                LIMIT,
                &mut build,
            )?;
        }
        for rest in ["source", "libraries", "tree"] {
            fs::remove_dir_all(folder.join(rest))?;
        }
        Ok(())
    })
}

/// The programs that were built for a processor: `collection/program`.
pub fn programs(built: &Path, processor: &Processor) -> Result<Vec<String>> {
    let list = fs::read_to_string(built.join(processor.name).join("list"))?;
    Ok(list.lines().map(Into::into).collect())
}
