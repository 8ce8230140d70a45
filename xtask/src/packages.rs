//! Debian packages unpacked beside the build: of any suite and for arm64, without being installed and without root.
//! apt is given a state of its own for that.

use std::{
    collections::BTreeSet,
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
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Packages {
    /// The suite they come from.
    suite: String,
    /// Also what they depend on.
    #[serde(default)]
    with_dependencies: bool,
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
        let suite = &packages.suite;
        let root = self.folder.join(name);
        let list = root.with_extension("list");
        let content = format!("{suite}\n{}", packages.names.join("\n"));
        if fs::read_to_string(&list).is_ok_and(|list| list == content) {
            return Ok(root);
        }
        say(&format!("fetching {} from {suite}", packages.names.join(", ")));
        let suite = Suite::read(&self.folder.join("apt"), suite)?;
        let _ = fs::remove_dir_all(&root);
        let mut names = BTreeSet::from_iter(packages.names.clone());
        if packages.with_dependencies {
            for name in &packages.names {
                // Those with a processor behind their names are the same for another one.
                let needed = suite.dependencies(name)?;
                names.extend(needed.into_iter().filter(|name| !name.contains(':')));
            }
        }
        suite.unpack(&Vec::from_iter(names), &root)?;
        merge_usr(&root)?;
        fs::write(&list, content)?;
        Ok(root)
    }
}

/// An apt that knows one suite, for both processors, and no installed package. A name without a processor means the
/// package for x86_64, on any machine.
pub struct Suite {
    name: String,
    folder: PathBuf,
}

impl Suite {
    /// Fetches the lists of a suite's packages; apt's state is kept in a folder of `states`.
    pub fn read(states: &Path, name: &str) -> Result<Self> {
        let suite = Self { name: name.into(), folder: states.join(name) };
        for folder in ["state/lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(suite.folder.join(folder))?;
        }
        let source = apt::source(name, &["amd64", "arm64"])?;
        fs::write(suite.folder.join("sources.list"), source + "\n")?;
        let configuration = format!(
            "Dir::State \"{0}/state\";\nDir::State::status \"/dev/null\";\nDir::Cache \"{0}/cache\";\n\
             Dir::Etc::SourceList \"{0}/sources.list\";\nDir::Etc::SourceParts \"/dev/null\";\n\
             APT::Architecture \"amd64\";\nAPT::Architectures {{ \"amd64\"; \"arm64\"; }};\nAPT::Sandbox::User \"root\";\n\
             Acquire::Languages \"none\";\n",
            suite.folder.display()
        );
        fs::write(suite.folder.join("apt.conf"), configuration)?;
        succeed(suite.command("apt-get").arg("update"))?;
        Ok(suite)
    }

    /// A program of apt's with this suite as all it knows.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", self.folder.join("apt.conf")).arg("--quiet");
        // Images of containers often switch these caches off, and every call then parses all lists anew.
        for cache in ["pkgcache", "srcpkgcache"] {
            command.arg("--option").arg(format!("Dir::Cache::{cache}={cache}.bin"));
        }
        command
    }

    /// The packages that `package` needs, and those need, with itself.
    pub fn dependencies(&self, package: &str) -> Result<Vec<String>> {
        let mut depends = self.command("apt-cache");
        depends.args(["depends", "--recurse", "--important", package]);
        let listing = apt::output(&mut depends)
            .with_context(|| format!("{} has no package {package}", self.name))?;
        // A package stands at the start of a line, what it needs is indented, a virtual one is in <>.
        let names = listing.lines().filter(|line| line.starts_with(|c: char| c.is_alphanumeric()));
        Ok(names.map(String::from).collect())
    }

    /// Unpacks packages into `root`.
    pub fn unpack(&self, packages: &[String], root: &Path) -> Result<()> {
        fs::create_dir_all(root)?;
        let downloads = tempfile::tempdir_in(&self.folder)?;
        let wanted = packages.iter().map(|package| format!("{package}/{}", self.name));
        succeed(
            self.command("apt-get").current_dir(downloads.path()).arg("download").args(wanted),
        )?;
        for package in fs::read_dir(downloads.path())? {
            succeed(Command::new("dpkg-deb").arg("-x").arg(package?.path()).arg(root))?;
        }
        Ok(())
    }
}

/// Newer packages rely on /bin and /lib being links into /usr, which no package holds.
pub fn merge_usr(root: &Path) -> Result<()> {
    for folder in ["bin", "lib"] {
        if !root.join(folder).exists() {
            symlink(Path::new("usr").join(folder), root.join(folder))?;
        }
    }
    Ok(())
}

/// Runs a command, with what it prints on standard error.
fn succeed(command: &mut Command) -> Result<()> {
    let status = command.stdin(Stdio::null()).stdout(std::io::stderr()).status()?;
    if !status.success() {
        bail!("{} failed", command.get_program().display());
    }
    Ok(())
}
