//! Debian packages unpacked beside the build: of any suite and for arm64, without being installed and without root.
//! apt is given a state of its own for that.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::{apt, say};

/// Packages to unpack into one folder.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Packages {
    /// The suite they come from, when it is not the machine's own release.
    suite: Option<String>,
    /// What apt is to call them.
    names: Vec<String>,
}

/// Where packages are unpacked, and apt's own state.
pub struct Store {
    folder: PathBuf,
}

impl Store {
    /// Uses `folder`.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Unpacks `packages` into a folder called `name`, unless they are there already.
    pub fn unpack(&self, name: &str, packages: &Packages) -> Result<PathBuf> {
        let (address, codename) = apt::mirror().context("apt knows no source for this release")?;
        let suite = packages.suite.as_ref().unwrap_or(&codename);
        let python = python()?;
        let wanted: Vec<_> = packages
            .names
            .iter()
            .map(|name| format!("{}/{suite}", name.replace("{python}", &python)))
            .collect();
        let root = self.folder.join(name);
        let list = self.folder.join(name).with_extension("list");
        if fs::read_to_string(&list).is_ok_and(|list| list == wanted.join("\n")) {
            return Ok(root);
        }
        say(&format!("fetching {}", wanted.join(", ")));
        let configuration = self.configure(&address, suite)?;
        let downloads = self.folder.join("downloads");
        for folder in [&root, &downloads] {
            let _ = fs::remove_dir_all(folder);
            fs::create_dir_all(folder)?;
        }
        let apt_get = || {
            let mut command = Command::new("apt-get");
            command.env("APT_CONFIG", &configuration).arg("--quiet").current_dir(&downloads);
            command
        };
        succeed(apt_get().arg("update"))?;
        succeed(apt_get().arg("download").args(&wanted))?;
        for package in fs::read_dir(&downloads)? {
            succeed(Command::new("dpkg-deb").arg("-x").arg(package?.path()).arg(&root))?;
        }
        merge_usr(&root)?;
        fs::write(&list, wanted.join("\n"))?;
        Ok(root)
    }

    /// Writes the configuration of an apt that knows one suite, for both processors.
    fn configure(&self, address: &str, suite: &str) -> Result<PathBuf> {
        let apt = self.folder.join("apt").join(suite);
        for folder in ["state/lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(apt.join(folder))?;
        }
        let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
        let signed = if Path::new(keyring).exists() {
            format!(" signed-by={keyring}")
        } else {
            String::new()
        };
        fs::write(
            apt.join("sources.list"),
            format!("deb [arch=amd64,arm64{signed}] {address} {suite} main\n"),
        )?;
        let configuration = format!(
            "Dir::State \"{0}/state\";\nDir::State::status \"/dev/null\";\nDir::Cache \"{0}/cache\";\n\
             Dir::Etc::SourceList \"{0}/sources.list\";\nDir::Etc::SourceParts \"/dev/null\";\n\
             APT::Architectures {{ \"amd64\"; \"arm64\"; }};\nAPT::Sandbox::User \"root\";\n\
             Acquire::Languages \"none\";\n",
            apt.display()
        );
        let file = apt.join("apt.conf");
        fs::write(&file, configuration)?;
        Ok(file)
    }
}

/// Newer packages rely on /bin and /lib being links into /usr, which no package holds.
fn merge_usr(root: &Path) -> Result<()> {
    for folder in ["bin", "lib"] {
        if !root.join(folder).exists() {
            symlink(Path::new("usr").join(folder), root.join(folder))?;
        }
    }
    Ok(())
}

/// The name of this machine's Python with its version, which is its package's: `python3.11`.
fn python() -> Result<String> {
    let path = fs::canonicalize("/usr/bin/python3").context("python3 is not installed")?;
    Ok(path.file_name().context("a file")?.to_string_lossy().into_owned())
}

fn succeed(command: &mut Command) -> Result<()> {
    let status = command.stdin(Stdio::null()).stdout(std::io::stderr()).status()?;
    if !status.success() {
        bail!("{} failed", command.get_program().display());
    }
    Ok(())
}
