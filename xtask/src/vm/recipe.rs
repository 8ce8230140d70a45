//! `vm.toml`: what the machine is made of.

use anyhow::{Context, Result};
use serde::Deserialize;

/// `vm.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// The suite of both roots.
    pub suite: String,
    /// The kernels; the first is used when none is asked for.
    pub kernel: Vec<Kernel>,
    /// What is loaded at boot.
    modules: Modules,
    /// The x86_64 root.
    pub x86_64: Root,
    /// The arm64 root.
    pub arm64: Root,
    /// The other translator, for `cargo xtask vm startup`.
    pub beside: Beside,
    /// The kernel's own tests, for `cargo xtask vm selftests`.
    pub selftests: Selftests,
}

/// A kernel.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kernel {
    /// What `--kernel` takes.
    pub name: String,
    /// The suite it comes from.
    pub suite: String,
    /// The package that depends on the newest of its kind.
    pub package: String,
}

/// Another translator.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Beside {
    /// The suite it comes from.
    pub suite: String,
    /// Its package.
    pub package: String,
    /// Its program, in the package.
    pub program: String,
}

/// The kernel's own tests.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Selftests {
    /// The suite they come from.
    pub suite: String,
    /// The package of the kernel's source.
    pub package: String,
    /// What they are linked with.
    pub libraries: Vec<String>,
    /// Folders of `tools/testing/selftests`.
    pub collections: Vec<String>,
    /// How long each program may run.
    pub seconds: u64,
}

/// Modules, by what needs them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Modules {
    disk: Vec<String>,
    share: Vec<String>,
    tests: Vec<String>,
}

/// A root.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Root {
    /// The packages it must have.
    pub packages: Vec<String>,
}

impl Recipe {
    /// The recipe this program was built with.
    pub fn read() -> Self {
        toml::from_str(include_str!("../../vm.toml")).expect("vm.toml is well formed")
    }

    /// A kernel by its name, or the first.
    pub fn kernel(&self, name: Option<&str>) -> Result<&Kernel> {
        let names = || self.kernel.iter().map(|kernel| kernel.name.as_str()).collect::<Vec<_>>();
        match name {
            None => self.kernel.first().context("vm.toml has no kernel"),
            Some(name) => {
                self.kernel.iter().find(|kernel| kernel.name == name).with_context(|| {
                    format!("there is no kernel {name}: there are {}", names().join(", "))
                })
            }
        }
    }

    /// The modules that are loaded at boot.
    pub fn modules(&self) -> impl Iterator<Item = &String> {
        let Modules { disk, share, tests } = &self.modules;
        disk.iter().chain(share).chain(tests)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_found_by_name() {
        let recipe = Recipe::read();
        assert_eq!(recipe.kernel(None).unwrap().name, recipe.kernel[0].name);
        assert_eq!(recipe.kernel(Some("16k")).unwrap().package, "linux-image-arm64-16k:arm64");
        let error = recipe.kernel(Some("2.4")).err().unwrap().to_string();
        assert!(error.contains("newest"), "{error}");
    }
}
