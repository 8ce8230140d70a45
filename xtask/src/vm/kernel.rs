//! Kernels: fetched by package name and unpacked.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail};

use super::{Workshop, cache::Key, recipe::Kernel, step::Progress};
use crate::packages::{Suite, merge_usr};

/// A kernel unpacked, and the program its initial file system needs.
pub struct Unpacked {
    /// The root of its packages.
    pub root: PathBuf,
}

/// The program of the initial file system, statically linked.
const BUSYBOX: &str = "busybox-static:arm64";

/// depmod reads all modules.
const DEPMOD_LIMIT: Duration = Duration::from_secs(120);

/// Fetches a kernel and its modules.
pub fn fetch(workshop: &Workshop, kernel: &Kernel) -> Result<Unpacked> {
    let Kernel { name, suite, package } = kernel;
    let key = Key::of(include_str!("kernel.rs")).and(suite).and(package);
    let entry = workshop.cache.entry(&format!("kernel-{name}"), key, |folder| {
        let progress = Progress::new(&format!("fetching the kernel {package} of {suite}"));
        let unpacked = Unpacked { root: folder.join("root") };
        let lists = folder.join("apt");
        let suite = Suite::read(&lists, suite)?;
        // The package depends on the newest version, which since Linux 7 is split into several.
        let mut wanted = suite.dependencies(package)?;
        wanted.retain(|name| name.starts_with("linux-") && name.ends_with(":arm64"));
        wanted.push(BUSYBOX.into());
        suite.unpack(&wanted, &unpacked.root)?;
        merge_usr(&unpacked.root)?;
        fs::remove_dir_all(lists)?;
        progress.done();
        let version = unpacked.version()?;
        let mut depmod = Command::new("depmod");
        depmod.arg("--basedir").arg(&unpacked.root).arg(&version);
        let what = format!("dependencies of the modules of {version}");
        workshop.steps.run(&what, DEPMOD_LIMIT, &mut depmod)
    })?;
    Ok(Unpacked { root: entry.join("root") })
}

impl Unpacked {
    /// The version as uname(1) says it.
    pub fn version(&self) -> Result<String> {
        only(&self.root.join("usr/lib/modules"), |_| true).and_then(|path| {
            Ok(path.file_name().context("a folder")?.to_string_lossy().into_owned())
        })
    }

    /// The image to boot.
    pub fn image(&self) -> Result<PathBuf> {
        // Where it is since Linux 7, and where it was.
        let image = self.root.join("usr/lib/modules").join(self.version()?).join("vmlinuz");
        if image.is_file() {
            return Ok(image);
        }
        only(&self.root.join("boot"), |name| name.starts_with("vmlinuz-"))
    }
}

/// The one file of a folder whose name will do.
fn only(folder: &Path, wanted: impl Fn(&str) -> bool) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let found: Vec<_> = paths
        .filter(|path| path.file_name().is_some_and(|name| wanted(&name.to_string_lossy())))
        .collect();
    match <[PathBuf; 1]>::try_from(found) {
        Ok([path]) => Ok(path),
        Err(found) => {
            bail!("{} has {} files that would do, not one", folder.display(), found.len())
        }
    }
}
