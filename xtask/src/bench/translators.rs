//! Who runs a workload, and how it is called.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{
    measure::{Launch, library_path},
    workloads::{Ready, Workshop},
};

/// Who runs a workload.
#[derive(Clone, Debug, PartialEq)]
pub enum Translator {
    /// The native arm64 build.
    Native,
    /// Demotic, with options.
    Demotic(Demotic),
    /// qemu-user.
    Qemu,
    /// box64.
    Box64,
    /// Rosetta for Linux, where the kernel was told of it: its path.
    Rosetta(PathBuf),
}

/// Demotic, as it is called.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Demotic {
    /// `--memory-model`.
    pub memory_model: Option<String>,
    /// `--host-features`.
    pub host_features: Option<String>,
    /// `--stats`.
    pub stats: bool,
}

impl Demotic {
    /// The options.
    fn options(&self) -> Vec<OsString> {
        let options =
            [("--memory-model", &self.memory_model), ("--host-features", &self.host_features)];
        let given = options.iter().filter_map(|(name, value)| Some((*name, value.as_ref()?)));
        let given = given.map(|(name, value)| format!("{name}={value}").into());
        given.chain(self.stats.then(|| "--stats".into())).collect()
    }
}

/// Where everything is.
pub struct Places<'a> {
    /// The Demotic that was built.
    pub demotic: &'a Path,
    /// What runs arm64 programs here.
    pub runner: Option<&'a Path>,
    /// The roots of the programs.
    pub workshop: &'a Workshop,
    /// The root of the other translators.
    pub peers: Option<&'a Path>,
}

impl Translator {
    /// The other translators that there are here: the packaged ones, and Rosetta.
    pub fn peers() -> Vec<Self> {
        let mut peers = vec![Self::Qemu, Self::Box64];
        if let Some(rosetta) = rosetta() {
            peers.push(Self::Rosetta(rosetta));
        }
        peers
    }

    /// What it is called in tables.
    pub fn name(&self) -> String {
        match self {
            Self::Native => "native".into(),
            Self::Demotic(Demotic { memory_model: None, host_features: None, .. }) => {
                "Demotic".into()
            }
            Self::Demotic(Demotic { memory_model, host_features, .. }) => {
                let mut name = String::from("Demotic");
                for option in [memory_model, host_features].into_iter().flatten() {
                    name += &format!(" {option}");
                }
                name
            }
            Self::Qemu => "qemu-user".into(),
            Self::Box64 => "box64".into(),
            Self::Rosetta(_) => "Rosetta".into(),
        }
    }

    /// Is it another translator than Demotic?
    pub fn is_peer(&self) -> bool {
        !matches!(self, Self::Native | Self::Demotic(_))
    }

    /// How it runs a workload.
    pub fn launch(&self, ready: &Ready, places: &Places) -> Launch {
        let x86_64 = &places.workshop.x86_64;
        let peer = |program: &str| {
            places.peers.map(|root| root.join("usr/bin").join(program)).unwrap_or_default()
        };
        let (program, root, mut arguments, environment): (_, _, Vec<OsString>, _) = match self {
            Self::Native => {
                let root = (!ready.fixed).then(|| places.workshop.arm64.clone());
                (ready.arm64.clone(), root, vec![], vec![])
            }
            Self::Demotic(demotic) => {
                let mut arguments = demotic.options();
                if let Some(runner) = places.runner {
                    arguments.extend(["--runner".into(), runner.into()]);
                }
                arguments.extend(["--sysroot".into(), x86_64.into()]);
                (places.demotic.into(), None, arguments, vec![])
            }
            Self::Qemu => {
                let root = places.peers.map(Into::into);
                (peer("qemu-x86_64"), root, vec!["-L".into(), x86_64.into()], vec![])
            }
            Self::Box64 => {
                let libraries = library_path(x86_64, "x86_64-linux-gnu");
                // What the machine happens to have as arm64 libraries is not to stand in for the workload's own.
                let own = "liblzma.so.5:libzstd.so.1:libz.so.1:libcrypto.so.3:libssl.so.3:libsqlite3.so.0";
                let environment = vec![
                    ("BOX64_EMULATED_LIBS", own.into()),
                    ("BOX64_LD_LIBRARY_PATH", libraries),
                    ("BOX64_NOBANNER", "1".into()),
                    ("BOX64_LOG", "0".into()),
                ];
                (peer("box64"), places.peers.map(Into::into), vec![], environment)
            }
            // It has no option for a root: the x86_64 loader of that root is the program.
            Self::Rosetta(rosetta) if !ready.fixed => {
                let loader = x86_64.join("lib64/ld-linux-x86-64.so.2");
                let arguments = vec![
                    loader.into(),
                    "--library-path".into(),
                    library_path(x86_64, "x86_64-linux-gnu"),
                ];
                (rosetta.clone(), None, arguments, vec![])
            }
            Self::Rosetta(rosetta) => (rosetta.clone(), None, vec![], vec![]),
        };
        if *self != Self::Native {
            arguments.push(ready.x86_64.clone().into());
        }
        arguments.extend(ready.arguments.iter().cloned());
        Launch { program, root, arguments, environment, errors: None }
    }
}

/// Rosetta for Linux, where binfmt_misc has it: the path in its entry.
fn rosetta() -> Option<PathBuf> {
    let entry = fs::read_to_string("/proc/sys/fs/binfmt_misc/rosetta").ok()?;
    let path = entry.lines().find_map(|line| line.strip_prefix("interpreter "))?;
    (cfg!(target_arch = "aarch64") && entry.starts_with("enabled")).then(|| path.into())
}
