//! The arm64 root finished without running its maintainer scripts: what they would have made is taken over from
//! the x86_64 root, which has the same packages.

use std::{fs, os::unix::fs::symlink, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result};

use super::Workshop;

const LIMIT: Duration = Duration::from_secs(120);

/// What maintainer scripts fill, and is the same on both architectures.
const CONFIGURED: [&str; 5] = ["etc", "var/lib/systemd", "var/lib/dbus", "var/lib/pam", "var/log"];

/// Copies the root that was `unpacked` to `root`, and takes over from `twin` what it lacks.
pub fn configure(workshop: &Workshop, unpacked: &Path, twin: &Path, root: &Path) -> Result<()> {
    let mut copy = Command::new("cp");
    copy.args(["--archive", "--reflink=auto"]).arg(unpacked).arg(root);
    workshop.steps.run("copying the arm64 root", LIMIT, &mut copy)?;
    let mut copy = Command::new("cp");
    copy.current_dir(twin).args(["--archive", "--parents"]);
    copy.args(CONFIGURED.iter().filter(|folder| twin.join(folder).is_dir())).arg(root);
    workshop.steps.run("configuring the arm64 root", LIMIT, &mut copy)?;
    let _ = fs::remove_file(root.join("etc/ld.so.cache"));
    let libraries = root.join("etc/ld.so.conf.d");
    for entry in fs::read_dir(&libraries).with_context(|| libraries.display().to_string())? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("x86_64") {
            fs::remove_file(entry.path())?;
        }
    }
    links(&root.join("usr"), &twin.join("usr"))
}

/// Makes the links that maintainer scripts made below `twin` (alternatives, /usr/bin/sh) and `root` lacks.
fn links(root: &Path, twin: &Path) -> Result<()> {
    for entry in fs::read_dir(twin).with_context(|| twin.display().to_string())? {
        let entry = entry?;
        let name = entry.file_name();
        // What belongs to the other architecture.
        if name.to_string_lossy().contains("x86_64") || name.to_string_lossy().contains("x86-64") {
            continue;
        }
        let place = root.join(&name);
        if entry.file_type()?.is_dir() {
            if place.is_dir() {
                links(&place, &entry.path())?;
            }
        } else if entry.file_type()?.is_symlink() && place.symlink_metadata().is_err() {
            let target = fs::read_link(entry.path())?;
            if !target.to_string_lossy().contains("x86") {
                symlink(target, &place)?;
            }
        }
    }
    Ok(())
}
