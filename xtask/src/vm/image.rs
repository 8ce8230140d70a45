//! The machine's disks, one of each root.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};

use super::{Workshop, cache::Key, roots::Roots, twin};
use crate::apt::output;

const LIMIT: Duration = Duration::from_secs(300);

/// What a machine may write before its disk is full, in bytes; the file takes no room for what is not used.
const SPARE: u64 = 1 << 30;

/// Makes both disks, with the names the initial file system knows them by.
pub fn build(workshop: &Workshop, roots: &Roots) -> Result<[(&'static str, PathBuf); 2]> {
    let key = || {
        let key = Key::of(include_str!("image.rs"));
        key.and(roots.x86_64.to_string_lossy().as_bytes())
    };
    let x86_64 = workshop.cache.entry("disk-x86_64", key(), |folder| {
        disk(workshop, "x86_64", &roots.x86_64, &folder.join("disk"))
    })?;
    let key = key().and(include_str!("twin.rs")).and(roots.arm64.to_string_lossy().as_bytes());
    let arm64 = workshop.cache.entry("disk-arm64", key, |folder| {
        let root = folder.join("root");
        twin::configure(workshop, &roots.arm64, &roots.x86_64, &root)?;
        fs::create_dir(root.join("x86"))?;
        disk(workshop, "arm64", &root, &folder.join("disk"))?;
        Ok(fs::remove_dir_all(root)?)
    })?;
    Ok([("arm64", arm64.join("disk")), ("x86_64", x86_64.join("disk"))])
}

/// Makes an ext4 disk of the files of `root`.
fn disk(workshop: &Workshop, name: &str, root: &Path, disk: &Path) -> Result<()> {
    let used = output(Command::new("du").args(["--summarize", "--block-size=1"]).arg(root))?;
    let used: u64 = used.split_whitespace().next().and_then(|n| n.parse().ok()).context("du")?;
    File::create(disk)?.set_len(used + used / 4 + SPARE)?;
    let mut mke2fs = Command::new("mke2fs");
    // Each machine begins with the disk as it is made here: nothing is left to a journal.
    mke2fs.args(["-q", "-F", "-t", "ext4", "-O", "^has_journal,^metadata_csum", "-m", "0"]);
    mke2fs.args(["-E", "lazy_itable_init=1,nodiscard", "-d"]).arg(root).arg(disk);
    workshop.steps.run(&format!("making the {name} disk"), LIMIT, &mut mke2fs)
}
