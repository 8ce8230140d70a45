//! The list of whole programs, `programs.toml`.

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// How large the programs' work is made.
#[derive(Clone, Copy, PartialEq)]
pub enum Size {
    /// As `Normal`, without the slow programs.
    Quick,
    /// What an emulated translator does in a few minutes each.
    Normal,
    /// What the list is meant to hold.
    Full,
}

/// A program to run natively and translated.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Program {
    /// What the test is called.
    pub name: String,
    /// The command line, for a program run by itself.
    #[serde(default)]
    pub command: Vec<String>,
    /// What a shell runs, in place of a command line.
    pub script: Option<String>,
    /// What it runs before that: how programs are built. The virtual machine finds them built natively.
    pub build: Option<String>,
    /// The folder of files it finds in its own, when that is not called like the test.
    pub files: Option<String>,
    /// The limit of one run in seconds, at the normal size.
    pub timeout: u64,
    /// Programs that must be seen translated, by their file names.
    #[serde(default)]
    pub children: Vec<String>,
    /// System calls that it must be seen to make, and not fail for want of: docs/syscalls.md names it as their test.
    #[serde(default)]
    pub calls: Vec<String>,
    /// Whether it makes every call that there is, and sees to the answers itself.
    #[serde(default)]
    pub every_call: bool,
    /// What `--strace` must say, from the first access(2) of something in `/mark/` on: a file among the program's, which strace(1)
    /// said the same in.
    pub trace: Option<String>,
    /// Written files that rightly differ from run to run.
    #[serde(default)]
    pub ignore: Vec<String>,
    /// The exit status it has.
    #[serde(default)]
    pub status: i32,
    /// Left out of the quick tests.
    #[serde(default)]
    pub slow: bool,
    /// Whether old emulators cannot do what it does, when they run the translator.
    #[serde(default)]
    pub recent_runner: bool,
    /// Environment variables that say how much work to do: normally, and in full.
    #[serde(default)]
    pub size: BTreeMap<String, (u64, u64)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    program: Vec<Program>,
}

/// Reads a list of programs.
pub fn read(path: &Path) -> Result<Vec<Program>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let list: List = toml::from_str(&text).with_context(|| path.display().to_string())?;
    for program in &list.program {
        if program.command.is_empty() == program.script.is_none() {
            bail!("{}: a program has either a command or a script", program.name);
        }
        if program.build.is_some() && program.script.is_none() {
            bail!("{}: what is built is for a script", program.name);
        }
    }
    Ok(list.program)
}

impl Program {
    /// The command line; with `built`, where what is to be built is there.
    pub fn command_line(&self, built: bool) -> Vec<String> {
        let Some(script) = &self.script else { return self.command.clone() };
        let build = self.build.as_ref().filter(|_| !built);
        shell(build.into_iter().chain([script]).cloned().collect::<Vec<_>>().join("\n"))
    }

    /// The command line that builds.
    pub fn build_line(&self) -> Option<Vec<String>> {
        self.build.clone().map(shell)
    }

    /// Whether its system calls are looked at.
    pub fn is_traced(&self) -> bool {
        !self.calls.is_empty() || self.trace.is_some()
    }

    /// The limit of one run. The work of full size is twenty times the normal one, with the same start.
    pub fn limit(&self, size: Size) -> Duration {
        Duration::from_secs(self.timeout) * if size == Size::Full { 6 } else { 1 }
    }

    /// The environment variables that say how much work to do.
    pub fn sizes(&self, size: Size) -> Vec<(&str, String)> {
        let pick = |&(normal, full): &(u64, u64)| if size == Size::Full { full } else { normal };
        self.size.iter().map(|(name, values)| (name.as_str(), pick(values).to_string())).collect()
    }
}

fn shell(script: String) -> Vec<String> {
    vec!["/bin/sh".into(), "-euc".into(), script]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn the_list_is_well_formed_and_names_are_unique() {
        let programs =
            read(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/programs.toml"))).unwrap();
        let names: HashSet<_> = programs.iter().map(|program| &program.name).collect();
        assert_eq!(names.len(), programs.len());
    }
}
