//! One whole program: run natively twice, then translated, and judged.

use std::{
    collections::HashSet,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};

use crate::{
    compare,
    list::{Program, Size},
    sandbox::{End, Outcome, Sandbox},
};

/// Where programs come from and how they are translated.
pub struct Setting {
    /// The translator.
    pub demotic: PathBuf,
    /// What runs the translator, where the processor cannot.
    pub runner: Option<PathBuf>,
    /// The x86_64 root of the programs.
    pub sysroot: PathBuf,
    /// Can x86_64 programs be run here without the translator?
    pub native: bool,
    /// How large the programs' work is made.
    pub size: Size,
    /// Holds the folders of files that programs find in theirs.
    pub files: PathBuf,
    /// Where programs run.
    pub work: PathBuf,
}

/// How a test went: what is wrong, if anything, and how long both ways took.
pub struct Verdict {
    /// What is wrong.
    pub problems: Vec<String>,
    /// The native run.
    pub native: Duration,
    /// The translated run.
    pub translated: Duration,
}

impl Setting {
    /// Runs one program both ways and judges it.
    pub fn judge(&self, program: &Program) -> Result<Verdict> {
        let sandbox = Sandbox::new(self.work.join(&program.name))?;
        let mut verdict =
            Verdict { problems: Vec::new(), native: Duration::ZERO, translated: Duration::ZERO };
        let native =
            if self.native { self.natively(program, &sandbox, &mut verdict)? } else { None };
        if !verdict.problems.is_empty() {
            return Ok(verdict);
        }
        let record = sandbox.file("exec.trace");
        let translated =
            self.run(&sandbox, "translated", program, self.translated(program, &record))?;
        verdict.translated = translated.took;
        match &native {
            Some(native) => {
                verdict.problems.extend(compare::outcomes(native, &translated, &program.ignore)?)
            }
            None if translated.end != End::Exit(program.status) => {
                verdict.problems.push(format!(
                    "ended with {}, not with status {}",
                    translated.end, program.status
                ));
            }
            None => {}
        }
        verdict.problems.extend(not_translated(program, &record, &self.sysroot));
        if !verdict.problems.is_empty() {
            verdict.problems.push(complaints(&translated)?);
        }
        Ok(verdict)
    }

    /// The native run, done twice: a program that does not do the same twice is no test.
    fn natively(
        &self,
        program: &Program,
        sandbox: &Sandbox,
        verdict: &mut Verdict,
    ) -> Result<Option<Outcome>> {
        let line = program.command_line();
        let command = || {
            let mut command = Command::new(&line[0]);
            command.args(&line[1..]);
            command
        };
        let once = self.run(sandbox, "native", program, command())?;
        verdict.native = once.took;
        if once.end != End::Exit(program.status) {
            verdict.problems.push(format!(
                "natively it ended with {}, not with status {}",
                once.end, program.status
            ));
            verdict.problems.push(complaints(&once)?);
            return Ok(None);
        }
        let again = self.run(sandbox, "again", program, command())?;
        let differences = compare::outcomes(&once, &again, &program.ignore)?;
        if !differences.is_empty() {
            verdict
                .problems
                .push("it does not do the same twice natively, so it is no test".into());
            verdict.problems.extend(differences);
        }
        Ok(Some(once))
    }

    fn run(
        &self,
        sandbox: &Sandbox,
        name: &str,
        program: &Program,
        command: Command,
    ) -> Result<Outcome> {
        let files = self.files.join(program.files.as_ref().unwrap_or(&program.name));
        let limit = program.limit(self.size);
        sandbox.run(name, command, &files, &program.sizes(self.size), limit)
    }

    fn translated(&self, program: &Program, record: &Path) -> Command {
        let mut command = match &self.runner {
            Some(runner) => {
                let mut command = Command::new(runner);
                command.arg(&self.demotic).arg("--runner").arg(runner);
                command
            }
            None => Command::new(&self.demotic),
        };
        command
            .arg("--sysroot")
            .arg(&self.sysroot)
            .arg("--trace-exec")
            .arg(record)
            .args(program.command_line());
        command
    }
}

/// The programs that should have been translated and are not in the translator's record of what it loaded.
fn not_translated(program: &Program, record: &Path, sysroot: &Path) -> Option<String> {
    let record = fs::read_to_string(record).unwrap_or_default();
    let paths =
        record.lines().filter_map(|line| line.split_once(' ')).map(|(_pid, path)| Path::new(path));
    let seen: HashSet<_> = paths.filter_map(Path::file_name).collect();
    let line = program.command_line();
    let expected = std::iter::once(&line[0]).chain(&program.children);
    let missing: Vec<_> = expected
        .filter(|expected| {
            !names(expected, sysroot).iter().any(|name| seen.contains(name.as_os_str()))
        })
        .map(String::as_str)
        .collect();
    (!missing.is_empty()).then(|| format!("never seen translated: {}", missing.join(", ")))
}

/// What the file of a program may be called: as the program, or as what links of that name lead to (`sh`, `dash`).
fn names(program: &str, sysroot: &Path) -> Vec<OsString> {
    let own = Path::new(program).file_name().unwrap_or_default().to_owned();
    let links = ["usr/bin", "bin", "usr/sbin"]
        .map(|folder| sysroot.join(folder).join(&own).canonicalize().ok());
    let targets = links.into_iter().flatten().filter_map(|path| Some(path.file_name()?.to_owned()));
    targets.chain([own.clone()]).collect()
}

/// The last lines of standard error.
fn complaints(outcome: &Outcome) -> Result<String> {
    let bytes = fs::read(&outcome.kept.stderr).context("standard error")?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().collect();
    let last =
        lines[lines.len().saturating_sub(15)..].iter().map(|line| format!("    {line:.200}\n"));
    Ok(format!("standard error ends with:\n{}", last.collect::<String>()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_program_may_be_recorded_as_what_its_link_leads_to() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("usr/bin")).unwrap();
        fs::write(root.path().join("usr/bin/dash"), "").unwrap();
        symlink("dash", root.path().join("usr/bin/sh")).unwrap();
        assert_eq!(names("/bin/sh", root.path()), ["dash", "sh"]);
        assert_eq!(names("cc1", root.path()), ["cc1"]);
    }
}
