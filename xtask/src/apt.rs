//! Debian's package tools, as far as the chores need them: what is installed, what could be, and installing it.

use std::{
    collections::HashMap,
    io::IsTerminal,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::say;

/// The processor that this project also has to do with, as Debian calls it.
const FOREIGN: &str = if cfg!(target_arch = "x86_64") { "arm64" } else { "amd64" };

/// The installed packages: `(name, architecture)` to version.
pub struct Installed(HashMap<(String, String), String>);

impl Installed {
    /// Asks dpkg; `None` on a machine without it.
    pub fn query() -> Option<Self> {
        let format = "${Package} ${Architecture} ${db:Status-Status} ${Version}\n";
        let listing = output(Command::new("dpkg-query").args(["-W", "-f", format])).ok()?;
        let packages = listing.lines().filter_map(|line| {
            let fields: Vec<_> = line.split(' ').collect();
            match fields[..] {
                [name, architecture, "installed", version] => {
                    Some(((name.into(), architecture.into()), version.into()))
                }
                _ => None,
            }
        });
        Some(Self(packages.collect()))
    }

    /// The version of a package named as apt names it: `name`, of this machine's processor or of any, or
    /// `name:architecture`.
    fn version(&self, package: &str) -> Option<&str> {
        let version = match package.split_once(':') {
            Some((name, architecture)) => self.0.get(&(name.into(), architecture.into())),
            None => self
                .0
                .iter()
                .find(|((name, architecture), _)| name == package && architecture != FOREIGN)
                .map(|(_, version)| version),
        };
        version.map(String::as_str)
    }

    /// Is the package here, with at least this upstream version?
    pub fn has(&self, package: &str, at_least: &[u32]) -> bool {
        self.version(package).is_some_and(|version| upstream(version).as_slice() >= at_least)
    }
}

/// The leading numbers of a Debian version, without its epoch: `1:10.0.2+ds-2` is 10, 0, 2.
pub fn upstream(version: &str) -> Vec<u32> {
    let version = version.split_once(':').map_or(version, |(_, rest)| rest);
    let end = version.find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(version.len());
    version[..end].split('.').map_while(|number| number.parse().ok()).collect()
}

/// Could this package be installed from the sources as they are, with at least this version?
/// Returns the version to ask apt for.
pub fn available(package: &str, at_least: &[u32]) -> Option<String> {
    let listing = output(Command::new("apt-cache").args(["madison", package])).ok()?;
    listing
        .lines()
        .filter_map(|line| line.split('|').nth(1))
        .map(str::trim)
        .find(|version| upstream(version).as_slice() >= at_least)
        .map(String::from)
}

/// A command run as root: as it is, or through sudo.
fn as_root(program: &str) -> Result<Command> {
    let me = output(Command::new("id").arg("-u"))?;
    if me.trim() == "0" {
        return Ok(Command::new(program));
    }
    let mut sudo = Command::new("sudo");
    if !person_present() {
        sudo.arg("--non-interactive");
    }
    sudo.arg(program);
    Ok(sudo)
}

/// Is there someone at the terminal to ask?
pub fn person_present() -> bool {
    std::env::var_os("CI").is_none()
        && std::io::stdin().is_terminal()
        && std::io::stderr().is_terminal()
}

/// Runs apt-get as root, its output on standard error.
fn apt_get(arguments: &[&str]) -> Result<()> {
    let mut command = as_root("apt-get")?;
    command.arg("--quiet").args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
    let status =
        command.stdin(Stdio::null()).stdout(std::io::stderr()).status().context("apt-get")?;
    if !status.success() {
        bail!("apt-get {} failed", arguments.join(" "));
    }
    Ok(())
}

/// Fetches the lists of packages. A source that fails is no reason not to install from the others.
pub fn update() {
    if let Err(error) = apt_get(&["update"]) {
        say(&format!("{error:#}: going on with the lists that are there"));
    }
}

/// Installs packages, each `name`, `name:architecture` or `name=version`.
pub fn install(packages: &[String]) -> Result<()> {
    let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
    arguments.extend(packages.iter().map(String::as_str));
    apt_get(&arguments)
}

/// Lets arm64 packages be installed on this machine.
pub fn add_arm64() -> Result<()> {
    let foreign = output(Command::new("dpkg").arg("--print-foreign-architectures"))?;
    if cfg!(target_arch = "aarch64") || foreign.lines().any(|line| line == "arm64") {
        return Ok(());
    }
    let status = as_root("dpkg")?.args(["--add-architecture", "arm64"]).status()?;
    if !status.success() {
        bail!("dpkg --add-architecture arm64 failed");
    }
    update();
    Ok(())
}

/// The `KEY=` value in os-release(5).
fn os_release(key: &str) -> Option<String> {
    let text = std::fs::read_to_string("/etc/os-release").ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
    Some(value.trim_matches('"').into())
}

/// Where this machine takes its release from, and the release's name: the address apt knows for that name. Debian's
/// unstable does not call itself so; there it is the first address.
pub fn mirror() -> Option<(String, String)> {
    let codename = os_release("VERSION_CODENAME")?;
    let format = "$(RELEASE) $(REPO_URI)";
    let sources = output(Command::new("apt-get").args([
        "indextargets",
        "--format",
        format,
        "Created-By: Packages",
    ]));
    Some((address(&sources.ok()?, &codename)?.into(), codename))
}

/// The address of a release in lines of `RELEASE ADDRESS`, or else the first one.
fn address<'a>(sources: &'a str, codename: &str) -> Option<&'a str> {
    let mut sources = sources.lines().filter_map(|line| line.split_once(' '));
    let first = sources.clone().next();
    sources.find(|(release, _)| *release == codename).or(first).map(|(_, address)| address)
}

/// What Debian's archive is signed with, where the package of its keys is installed.
fn keyring() -> Option<&'static str> {
    let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
    Path::new(keyring).exists().then_some(keyring)
}

/// Whether this machine is Debian's: has its backports, and its other suites at the same address.
pub fn is_debian() -> bool {
    os_release("ID").as_deref() == Some("debian")
}

/// Names an address of Debian's packages, for machines of other distributions.
const DEBIAN: &str = "DEMOTIC_DEBIAN";

/// Where any suite of Debian comes from.
fn debian() -> Result<String> {
    if let Ok(address) = std::env::var(DEBIAN) {
        return Ok(address);
    }
    if is_debian() {
        let (address, _) = mirror().context("apt knows no source for this release")?;
        return Ok(address);
    }
    mmdebstraps().with_context(|| {
        format!(
            "this machine's packages are not Debian's, and mmdebstrap does not say where those are: \
             set {DEBIAN} to the address of a mirror of Debian"
        )
    })
}

/// Where mmdebstrap takes Debian's packages from when it is not told: it writes that into a root that it then leaves
/// empty.
fn mmdebstraps() -> Option<String> {
    let folder = tempfile::tempdir().ok()?;
    let list = folder.path().join("sources.list");
    let mut ask = Command::new("mmdebstrap");
    ask.args(["--quiet", "--variant=custom", "--skip=update"]);
    ask.arg(format!("--setup-hook=download /etc/apt/sources.list {}", list.display()));
    output(ask.args(["sid", "/dev/null"]).stdin(Stdio::null())).ok()?;
    first_source(&std::fs::read_to_string(list).ok()?).map(String::from)
}

/// The address in the first line of sources.list(5).
fn first_source(list: &str) -> Option<&str> {
    let source = list.lines().find_map(|line| line.strip_prefix("deb "))?;
    let after_options = source.split_once("] ").map_or(source, |(_, rest)| rest);
    after_options.split_whitespace().next()
}

/// The line of sources.list(5) for any suite of Debian.
pub fn source(suite: &str, architectures: &[&str]) -> Result<String> {
    let address = debian()?;
    let signed = keyring().map_or(String::new(), |keyring| format!(" signed-by={keyring}"));
    Ok(format!("deb [arch={}{signed}] {address} {suite} main", architectures.join(",")))
}

/// How this machine's apt is configured, where another apt should do alike: `Option "value"` as in apt.conf(5).
/// A mirror that stands still is taken for an expired one unless the machine says otherwise.
pub fn configuration() -> Vec<String> {
    let options = ["Acquire::Check-Valid-Until", "Acquire::http::Proxy", "Acquire::https::Proxy"];
    let dump = output(Command::new("apt-config").arg("dump").args(options)).unwrap_or_default();
    dump.lines().map(|line| line.trim_end_matches(';').to_owned()).collect()
}

/// Adds Debian's backports for this release, from where the release itself comes.
pub fn add_backports() -> Result<()> {
    let (address, codename) = mirror().context("apt has no source for this release")?;
    let signed = keyring().map_or(String::new(), |keyring| format!("Signed-By: {keyring}\n"));
    let source = format!(
        "Types: deb\nURIs: {address}\nSuites: {codename}-backports\nComponents: main\n{signed}"
    );
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), source)?;
    let place = "/etc/apt/sources.list.d/demotic-backports.sources";
    let status = as_root("install")?.args(["-m", "644"]).arg(file.path()).arg(place).status()?;
    if !status.success() {
        bail!("{place} could not be written");
    }
    update();
    Ok(())
}

/// What a command prints, when it succeeds.
pub fn output(command: &mut Command) -> Result<String> {
    let result = command.stderr(Stdio::null()).output()?;
    if !result.status.success() {
        bail!("{} failed", command.get_program().display());
    }
    Ok(String::from_utf8_lossy(&result.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstream_versions_are_compared_by_number() {
        assert_eq!(upstream("1:10.0.2+ds-2+deb13u1~bpo12+1"), [10, 0, 2]);
        assert_eq!(upstream("1.96.0+dfsg1-1"), [1, 96, 0]);
        assert!(upstream("1:7.2+dfsg-7+deb12u18").as_slice() < &[10][..]);
        assert!(upstream("10") >= vec![10]);
    }

    #[test]
    fn a_release_without_its_own_name_among_the_sources_has_the_first_address() {
        let sources = "bookworm http://a/debian\nbookworm-backports http://b/debian\n";
        assert_eq!(address(sources, "bookworm-backports"), Some("http://b/debian"));
        assert_eq!(address(sources, "forky"), Some("http://a/debian"));
        assert_eq!(address("", "forky"), None);
    }

    #[test]
    fn the_first_source_is_found_behind_its_options() {
        let list =
            "# a comment\ndeb [arch=amd64 signed-by=\"/a b.gpg\"] http://a/debian sid main\n";
        assert_eq!(first_source(list), Some("http://a/debian"));
        assert_eq!(
            first_source("deb http://b/debian sid main\ndeb http://c d e"),
            Some("http://b/debian")
        );
        assert_eq!(first_source("\n"), None);
    }

    #[test]
    fn mmdebstrap_knows_an_address_of_debians() {
        if output(Command::new("mmdebstrap").arg("--version")).is_err() {
            eprintln!("no mmdebstrap here: it is not asked");
            return;
        }
        assert!(mmdebstraps().is_some_and(|address| address.starts_with("http")));
    }

    #[test]
    fn a_package_of_another_architecture_is_not_the_one_wanted() {
        let foreign = ("libc6".to_owned(), FOREIGN.to_owned());
        let installed = Installed(HashMap::from([(foreign, "2.36-9".to_owned())]));
        let named = format!("libc6:{FOREIGN}");
        assert!(!installed.has("libc6", &[]));
        assert!(installed.has(&named, &[2, 36]));
        assert!(!installed.has(&named, &[2, 37]));
    }
}
