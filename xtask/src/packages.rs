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
        suite.unpack(&suite.complete(packages)?, &root)?;
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
        Self::read_from(&apt::source(name, &["amd64", "arm64"])?, states, name)
    }

    /// The same from a source, a line of sources.list(5).
    fn read_from(source: &str, states: &Path, name: &str) -> Result<Self> {
        let suite = Self { name: name.into(), folder: states.join(name) };
        for folder in ["state/lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(suite.folder.join(folder))?;
        }
        fs::write(suite.folder.join("sources.list"), format!("{source}\n"))?;
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
        self.dependencies_of(&[package.into()])
    }

    fn dependencies_of(&self, packages: &[String]) -> Result<Vec<String>> {
        let mut depends = self.command("apt-cache");
        depends.args(["depends", "--recurse", "--important"]).args(packages);
        let listing = apt::output(&mut depends)
            .with_context(|| format!("{} lacks one of {}", self.name, packages.join(", ")))?;
        // A package stands at the start of a line, what it needs is indented, a virtual one is in <>.
        let names = listing.lines().filter(|line| line.starts_with(|c: char| c.is_alphanumeric()));
        Ok(names.map(String::from).collect())
    }

    /// The names of packages, and where that is asked for, of what they depend on.
    fn complete(&self, packages: &Packages) -> Result<Vec<String>> {
        let mut names = BTreeSet::from_iter(packages.names.clone());
        if packages.with_dependencies {
            // Those with a processor behind their names are the same for another one.
            let needed = self.dependencies_of(&packages.names)?;
            names.extend(needed.into_iter().filter(|name| !name.contains(':')));
        }
        Ok(Vec::from_iter(names))
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

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest, Sha256};
    use std::fmt::Write;

    /// The packages of a suite, each for some processors, with what they depend on.
    const PACKAGES: [(&str, &[&str], &str); 4] = [
        ("tool", &["amd64", "arm64"], "library, compiler:any, data"),
        ("library", &["amd64", "arm64"], ""),
        // Either will do for a package of the other processor.
        ("compiler", &["amd64", "arm64"], "library"),
        ("data", &["all"], ""),
    ];

    fn multi_arch(name: &str) -> &'static str {
        match name {
            "library" => "same",
            "compiler" => "allowed",
            _ => "foreign",
        }
    }

    /// Builds a package with one file, whose name says which package it is; returns its paragraph for a list.
    fn build(repository: &Path, name: &str, processor: &str, depends: &str) -> String {
        let content = repository.join(format!("{name}-{processor}"));
        fs::create_dir_all(content.join("DEBIAN")).unwrap();
        fs::create_dir_all(content.join("files")).unwrap();
        fs::write(content.join(format!("files/{name}_{processor}")), "").unwrap();
        let mut control = format!(
            "Package: {name}\nVersion: 1\nArchitecture: {processor}\nMulti-Arch: {}\n\
             Maintainer: Nobody <nobody@example.com>\nDescription: a test\n",
            multi_arch(name)
        );
        if !depends.is_empty() {
            writeln!(control, "Depends: {depends}").unwrap();
        }
        fs::write(content.join("DEBIAN/control"), &control).unwrap();
        let file = format!("{name}_1_{processor}.deb");
        let mut pack = Command::new("dpkg-deb");
        pack.args(["--root-owner-group", "--build"]).arg(&content).arg(repository.join(&file));
        succeed(&mut pack).unwrap();
        let package = fs::read(repository.join(&file)).unwrap();
        let (size, hash) = (package.len(), Sha256::digest(&package));
        format!("{control}Filename: {file}\nSize: {size}\nSHA256: {hash:x}\n\n")
    }

    /// Makes a repository of the packages; returns its line of sources.list(5).
    fn repository(place: &Path) -> String {
        let mut lists = [("amd64", String::new()), ("arm64", String::new())];
        for (name, processors, depends) in PACKAGES {
            for processor in processors {
                let paragraph = build(place, name, processor, depends);
                let of = |list: &str| [list, "all"].contains(processor);
                lists
                    .iter_mut()
                    .filter(|(list, _)| of(list))
                    .for_each(|(_, all)| *all += &paragraph);
            }
        }
        let mut release = String::from("Suite: test\nCodename: test\nSHA256:\n");
        for (list, paragraphs) in lists {
            let file = format!("main/binary-{list}/Packages");
            let path = place.join("dists/test").join(&file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, &paragraphs).unwrap();
            let (hash, size) = (Sha256::digest(&paragraphs), paragraphs.len());
            writeln!(release, " {hash:x} {size} {file}").unwrap();
        }
        fs::write(place.join("dists/test/Release"), release).unwrap();
        format!("deb [trusted=yes arch=amd64,arm64] file:{} test main", place.display())
    }

    /// On an arm64 machine no less.
    #[test]
    fn packages_and_what_they_depend_on_are_for_x86_64() {
        if apt::output(Command::new("apt-get").arg("--version")).is_err() {
            eprintln!("no apt here: nothing is tried");
            return;
        }
        let place = tempfile::tempdir().unwrap();
        let source = repository(&place.path().join("repository"));
        let suite = Suite::read_from(&source, &place.path().join("apt"), "test").unwrap();
        let root = place.path().join("root");
        let wanted =
            Packages { suite: "test".into(), with_dependencies: true, names: vec!["tool".into()] };
        suite.unpack(&suite.complete(&wanted).unwrap(), &root).unwrap();
        let files = fs::read_dir(root.join("files")).unwrap();
        let files = BTreeSet::from_iter(files.map(|file| file.unwrap().file_name()));
        let all = ["compiler_amd64", "data_all", "library_amd64", "tool_amd64"].map(Into::into);
        assert_eq!(files, BTreeSet::from(all));
    }
}
