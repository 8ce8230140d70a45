//! The two roots of the machine, of the same suite, as folders on this machine.
//!
//! The x86_64 root is configured by this machine's own x86_64 processor. The arm64 root can only be unpacked here;
//! [`super::twin`] does the rest.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Result, bail};

use super::{Workshop, cache::Key, recipe::Recipe};
use crate::apt;

/// Where both roots are.
pub struct Roots {
    /// Whole, and able to run its programs here.
    pub x86_64: PathBuf,
    /// Only unpacked.
    pub arm64: PathBuf,
}

const LIMIT: Duration = Duration::from_secs(900);

/// Units no machine of an hour needs.
const NEEDLESS: [&str; 4] =
    ["apt-daily.timer", "apt-daily-upgrade.timer", "fstrim.timer", "dpkg-db-backup.timer"];

/// Makes both roots, at the same time: one waits for the network while the other unpacks.
pub fn build(workshop: &Workshop, recipe: &Recipe) -> Result<Roots> {
    let root = |architecture: &str, packages: &[String]| {
        let key = Key::of(include_str!("roots.rs")).and(architecture).and(&recipe.suite);
        let key = packages.iter().fold(key, Key::and);
        let entry = workshop.cache.entry(&format!("root-{architecture}"), key, |folder| {
            let root = folder.join("root");
            bootstrap(workshop, &recipe.suite, architecture, packages, &root)?;
            settle(&root)
        });
        entry.map(|entry| entry.join("root"))
    };
    std::thread::scope(|scope| {
        let arm64 = scope.spawn(|| root("arm64", &recipe.arm64.packages));
        let x86_64 = root("amd64", &recipe.x86_64.packages);
        Ok(Roots { arm64: arm64.join().expect("no panic")?, x86_64: x86_64? })
    })
}

/// Installs packages into a new root; those of another architecture are unpacked and no more.
fn bootstrap(
    workshop: &Workshop,
    suite: &str,
    architecture: &str,
    packages: &[String],
    root: &Path,
) -> Result<()> {
    if apt::output(Command::new("id").arg("-u"))?.trim() != "0" {
        bail!("the roots of the machine can only be made by root: run this as root");
    }
    let variant = if architecture == "amd64" { "minbase" } else { "extract" };
    // With namespaces of its own, so that of an interrupted run neither processes nor mounts are left.
    let mut mmdebstrap = Command::new("unshare");
    mmdebstrap.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "mmdebstrap"]);
    mmdebstrap.args(["--mode=root", "--format=directory", "--skip=output/dev"]);
    mmdebstrap.arg(format!("--variant={variant}")).arg(format!("--architectures={architecture}"));
    mmdebstrap.arg(format!("--include={}", packages.join(",")));
    let options = ["Acquire::Languages \"none\"", "APT::Sandbox::User \"root\""];
    for option in options.map(String::from).into_iter().chain(apt::configuration()) {
        mmdebstrap.arg(format!("--aptopt={option}"));
    }
    mmdebstrap.arg("--dpkgopt=force-unsafe-io");
    for folder in ["doc", "man", "info", "locale"] {
        mmdebstrap.arg(format!("--dpkgopt=path-exclude=/usr/share/{folder}/*"));
    }
    mmdebstrap.arg(suite).arg(root).arg(apt::source(suite, &[architecture])?);
    let what = format!("installing the {architecture} root");
    workshop.steps.run(&what, LIMIT, &mut mmdebstrap)
}

/// Rids a root of what is another machine's and of what would only make booting slower; gives it a place for the share.
fn settle(root: &Path) -> Result<()> {
    fs::create_dir_all(root.join("etc"))?;
    for file in ["etc/machine-id", "etc/resolv.conf", "etc/fstab"] {
        let _ = fs::remove_file(root.join(file));
        fs::write(root.join(file), "")?;
    }
    fs::write(root.join("etc/hostname"), "vm\n")?;
    fs::create_dir(root.join("host"))?;
    for unit in NEEDLESS {
        let _ = fs::remove_file(root.join("etc/systemd/system/timers.target.wants").join(unit));
    }
    for folder in ["var/cache/apt", "var/lib/apt/lists"] {
        let _ = fs::remove_dir_all(root.join(folder));
        fs::create_dir_all(root.join(folder))?;
    }
    Ok(())
}
