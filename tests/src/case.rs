//! One whole program: its reference run, its translated run, and the judgement.

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
    runner::Runner,
    sandbox::{End, Kept, Outcome, Sandbox},
    trace::Trace,
};

/// Where programs come from, and how they are run.
pub struct Setting {
    /// What a translated run must be like.
    pub reference: Reference,
    /// How programs come to be translated.
    pub translation: Translation,
    /// The root directory of the programs.
    pub root: PathBuf,
    /// How large the programs' work is made.
    pub size: Size,
    /// Holds the folders of files that programs find in theirs.
    pub files: PathBuf,
    /// Where programs run: a folder below their root.
    pub work: PathBuf,
    /// What the programs' time limits are multiplied with.
    pub patience: u32,
    /// Whether what strace(1) says natively is recorded anew.
    pub record_traces: bool,
}

/// What a translated run is compared with.
pub enum Reference {
    /// Native runs, here and now.
    Native,
    /// What an earlier [`Translation::None`] kept in its folder of this path.
    Recorded(PathBuf),
    /// The same program built for this processor, which must have the same exit status: where the builds are.
    Control(PathBuf),
    /// Nothing but the exit status it should have.
    Status,
}

/// How programs are translated.
pub enum Translation {
    /// Not at all.
    None,
    /// By calling the translator.
    Call {
        /// The translator.
        demotic: PathBuf,
        /// What runs the translator, where the processor cannot.
        runner: Option<Runner>,
        /// The x86_64 root of the programs.
        sysroot: PathBuf,
    },
    /// The kernel does it, and has no other way to run them.
    Kernel,
}

/// Where the programs of [`Reference::Control`] are, by processor.
pub const BUILDS: [&str; 2] = ["arm64", "x86_64"];

/// How a test went: what is wrong, if anything, and how long both ways took.
pub struct Verdict {
    /// What is wrong.
    pub problems: Vec<String>,
    /// The reference run.
    pub reference: Duration,
    /// The translated run.
    pub translated: Duration,
}

impl Setting {
    /// Runs one program both ways and judges it.
    pub fn judge(&self, program: &Program) -> Result<Verdict> {
        let sandbox = Sandbox::new(self.work.join(&program.name), &self.root)?;
        let mut verdict =
            Verdict { problems: Vec::new(), reference: Duration::ZERO, translated: Duration::ZERO };
        let reference = self.refer(program, &sandbox, &mut verdict)?;
        if verdict.problems.is_empty() && !matches!(self.translation, Translation::None) {
            self.translate(program, &sandbox, reference.as_ref(), &mut verdict)?;
        }
        Ok(verdict)
    }

    /// What the translated run is to be compared with, if with more than the exit status.
    fn refer(
        &self,
        program: &Program,
        sandbox: &Sandbox,
        verdict: &mut Verdict,
    ) -> Result<Option<Kept>> {
        match &self.reference {
            Reference::Native => self.natively(program, sandbox, verdict),
            Reference::Recorded(folder) => {
                let kept = Kept::of(&folder.join(&program.name), NATIVE);
                if !kept.stdout.exists() {
                    verdict.problems.push("no native run of it was recorded".into());
                }
                Ok(Some(kept))
            }
            Reference::Control(_) => {
                let line = self.command_line(program, BUILDS[0], BUILDS[1]);
                let control = self.run(sandbox, "control", program, command(&line))?;
                verdict.reference = control.took;
                expect("the control", &control, program, verdict)?;
                Ok(None)
            }
            Reference::Status => Ok(None),
        }
    }

    /// The native run, done twice: a program that does not do the same twice is no test.
    fn natively(
        &self,
        program: &Program,
        sandbox: &Sandbox,
        verdict: &mut Verdict,
    ) -> Result<Option<Kept>> {
        if let Some(name) = program.trace.as_ref().filter(|_| self.record_traces) {
            self.record_trace(program, name, sandbox)?;
        }
        if self.builds_apart() {
            self.build(program, sandbox, verdict)?;
            if !verdict.problems.is_empty() {
                return Ok(None);
            }
        }
        let line = program.command_line(self.builds_apart());
        let once = self.run(sandbox, NATIVE, program, command(&line))?;
        verdict.reference = once.took;
        expect("natively it", &once, program, verdict)?;
        if verdict.problems.is_empty() {
            let again = self.run(sandbox, "again", program, command(&line))?;
            let mut differences = compare::files(&once.kept, &again.kept, &program.ignore)?;
            differences.extend(unlike(&again, program.status));
            if !differences.is_empty() {
                let problem = "it does not do the same twice natively, so it is no test";
                verdict.problems.push(problem.into());
                verdict.problems.extend(differences);
            }
        }
        if !verdict.problems.is_empty() {
            // Nothing is to be compared with it.
            fs::remove_file(&once.kept.stdout)?;
        }
        Ok(Some(once.kept))
    }

    /// Builds what a program's script finds built.
    fn build(&self, program: &Program, sandbox: &Sandbox, verdict: &mut Verdict) -> Result<()> {
        let Some(line) = program.build_line() else { return Ok(()) };
        let limit = program.limit(self.size) * self.patience;
        let built = sandbox.run(BUILT, command(&line), &self.folder(program), &[], limit)?;
        if let Some(problem) = unlike(&built, 0) {
            verdict.problems.push(format!("its build {problem}"));
            verdict.problems.push(complaints(&built.kept)?);
        }
        Ok(())
    }

    /// The translated run, judged.
    fn translate(
        &self,
        program: &Program,
        sandbox: &Sandbox,
        reference: Option<&Kept>,
        verdict: &mut Verdict,
    ) -> Result<()> {
        let record = sandbox.file("exec.trace");
        let trace = sandbox.file("calls.trace");
        let line = self.command_line(program, BUILDS[1], BUILDS[0]);
        let mut translated = command(&line);
        if let Translation::Call { demotic, runner, sysroot } = &self.translation {
            translated = match runner {
                Some(runner) => runner.command(demotic),
                None => Command::new(demotic),
            };
            translated.arg("--sysroot").arg(sysroot).arg("--trace-exec").arg(&record);
            if program.is_traced() {
                translated.arg(trace_option(&trace));
            }
            translated.arg(below(sysroot, &line[0])).args(&line[1..]);
        } else if program.is_traced() {
            // The kernel starts the translator, which looks here for options, in the program's root directory.
            translated.env("DEMOTIC_OPTIONS", trace_option(&sandbox.inside(&trace)?));
        }
        let translated = self.run(sandbox, "translated", program, translated)?;
        verdict.translated = translated.took;
        let problems = &mut verdict.problems;
        problems.extend(unlike(&translated, program.status));
        if let Some(reference) = reference {
            problems.extend(compare::files(reference, &translated.kept, &program.ignore)?);
        }
        if let Translation::Call { sysroot, .. } = &self.translation {
            problems.extend(not_translated(program, &record, sysroot));
        }
        if program.is_traced() {
            let trace = fs::read_to_string(&trace).context("the record of system calls")?;
            problems.extend(self.untrue(program, &Trace::read(&trace))?);
        }
        if !problems.is_empty() {
            problems.push(complaints(&translated.kept)?);
        }
        Ok(())
    }

    /// What is wrong with the record of a program's system calls.
    fn untrue(&self, program: &Program, trace: &Trace) -> Result<Vec<String>> {
        let seen = trace.calls();
        let missing: Vec<_> =
            program.calls.iter().map(String::as_str).filter(|call| !seen.contains(call)).collect();
        let mut problems = Vec::new();
        if !missing.is_empty() {
            problems
                .push(format!("system calls never seen to be answered: {}", missing.join(", ")));
        }
        if let Some(name) = &program.trace {
            let expected = self.folder(program).join(name);
            let expected =
                fs::read_to_string(&expected).with_context(|| expected.display().to_string())?;
            let found: String =
                trace.comparable(MARK).into_iter().map(|line| line + "\n").collect();
            if found != expected {
                problems.push(format!("--strace differs from {name}:"));
                problems.push(compare::lines(&expected, &found));
            }
        }
        Ok(problems)
    }

    /// Writes what strace(1) says of the program, natively, into the file that [`Self::untrue`] reads.
    fn record_trace(&self, program: &Program, name: &str, sandbox: &Sandbox) -> Result<()> {
        let file = sandbox.file("strace.trace");
        let mut strace = Command::new("strace");
        strace.arg("-f").arg("-o").arg(&file).args(program.command_line(false));
        self.run(sandbox, "strace", program, strace)?;
        let text = fs::read_to_string(&file).context("what strace wrote")?;
        let lines: String =
            Trace::read(&text).comparable(MARK).into_iter().map(|line| line + "\n").collect();
        Ok(fs::write(self.folder(program).join(name), lines)?)
    }

    /// Where the files are of which a program is built, or which it finds in its own folder.
    fn folder(&self, program: &Program) -> PathBuf {
        self.files.join(program.files.as_ref().unwrap_or(&program.name))
    }

    /// Whether programs are built before they are run, and natively: in the virtual machine that takes longer than they do,
    /// and shows what is shown without it.
    fn builds_apart(&self) -> bool {
        !matches!(self.translation, Translation::Call { .. })
    }

    /// Where the files are that a run finds in its folder.
    fn files(&self, program: &Program, sandbox: &Sandbox) -> PathBuf {
        match (&program.build, &self.reference) {
            (Some(_), Reference::Recorded(folder)) => {
                Kept::of(&folder.join(&program.name), BUILT).files
            }
            (Some(_), _) if self.builds_apart() => sandbox.file(BUILT),
            _ => self.folder(program),
        }
    }

    fn run(
        &self,
        sandbox: &Sandbox,
        name: &str,
        program: &Program,
        command: Command,
    ) -> Result<Outcome> {
        let limit = program.limit(self.size) * self.patience;
        let files = self.files(program, sandbox);
        sandbox.run(name, command, &files, &program.sizes(self.size), limit)
    }

    /// The command line, with `{own}` and `{other}` the folders of a control's builds, and `{native}` the folder of what
    /// x86_64 builds said on a real processor.
    fn command_line(&self, program: &Program, own: &str, other: &str) -> Vec<String> {
        let mut line = program.command_line(self.builds_apart());
        if let Reference::Control(builds) = &self.reference {
            let folder = |name| builds.join(name).display().to_string();
            for word in &mut line {
                *word = word
                    .replace("{own}", &folder(own))
                    .replace("{other}", &folder(other))
                    .replace("{native}", &folder(NATIVE));
            }
        }
        line
    }
}

/// Where the lines of `--strace` begin that are compared.
const MARK: &str = "access(\"/mark/";

/// The option that has system calls written to a file.
fn trace_option(file: &Path) -> OsString {
    let mut option = OsString::from("--strace=");
    option.push(file);
    option
}

/// What a native run is kept under.
const NATIVE: &str = "native";

/// What programs are kept under that are built before they are run.
const BUILT: &str = "built";

fn command(line: &[String]) -> Command {
    let mut command = Command::new(&line[0]);
    command.args(&line[1..]);
    command
}

/// How a run ended, if not with the exit status it should have.
fn unlike(outcome: &Outcome, status: i32) -> Option<String> {
    (outcome.end != End::Exit(status))
        .then(|| format!("ended with {}, not with status {status}", outcome.end))
}

/// Notes how a reference run ended, if not as it should.
fn expect(what: &str, outcome: &Outcome, program: &Program, verdict: &mut Verdict) -> Result<()> {
    if let Some(problem) = unlike(outcome, program.status) {
        verdict.problems.push(format!("{what} {problem}"));
        verdict.problems.push(complaints(&outcome.kept)?);
    }
    Ok(())
}

/// The programs that should have been translated and are not in the translator's record of what it loaded.
fn not_translated(program: &Program, record: &Path, sysroot: &Path) -> Option<String> {
    let record = fs::read_to_string(record).unwrap_or_default();
    let paths =
        record.lines().filter_map(|line| line.split_once(' ')).map(|(_pid, path)| Path::new(path));
    let seen: HashSet<_> = paths.filter_map(Path::file_name).collect();
    let line = program.command_line(false);
    let expected = std::iter::once(&line[0]).chain(&program.children);
    let missing: Vec<_> = expected
        .filter(|expected| {
            !names(expected, sysroot).iter().any(|name| seen.contains(name.as_os_str()))
        })
        .map(String::as_str)
        .collect();
    (!missing.is_empty()).then(|| format!("never seen translated: {}", missing.join(", ")))
}

/// A program by its name outside of the root that it comes from: the translator takes the first one by that.
fn below(sysroot: &Path, program: &str) -> PathBuf {
    sysroot.join(program.trim_start_matches('/'))
}

/// What the file of a program may be called: as the program, or as what links of that name lead to (`sh`, `dash`).
fn names(program: &str, sysroot: &Path) -> Vec<OsString> {
    let own = Path::new(program).file_name().unwrap_or_default().to_owned();
    let links = ["usr/bin", "bin", "usr/sbin"]
        .map(|folder| sysroot.join(folder).join(&own).canonicalize().ok());
    let targets = links.into_iter().flatten().filter_map(|path| Some(path.file_name()?.to_owned()));
    targets.chain([own.clone()]).collect()
}

/// The last lines of both outputs.
fn complaints(kept: &Kept) -> Result<String> {
    let mut text = String::new();
    for (name, file) in [("standard output", &kept.stdout), ("standard error", &kept.stderr)] {
        let bytes = fs::read(file).context(name)?;
        let lines = String::from_utf8_lossy(&bytes);
        let lines: Vec<_> = lines.lines().collect();
        let last = &lines[lines.len().saturating_sub(15)..];
        text += &format!("{name} ends with:\n");
        text.extend(last.iter().map(|line| format!("    {line:.200}\n")));
    }
    Ok(text)
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

    #[test]
    fn a_program_comes_from_its_root_and_not_from_the_machine() {
        assert_eq!(below(Path::new("/srv/x86_64"), "/bin/true"), Path::new("/srv/x86_64/bin/true"));
        assert_eq!(below(Path::new("/"), "/bin/true"), Path::new("/bin/true"));
    }
}
