//! `cargo xtask vm startup`: what it takes to start a program, natively and by each translator, in one run.

use std::{fs, path::Path, process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail};

use super::{
    Workshop,
    cache::Key,
    machine::Machine,
    recipe::{Beside, Recipe},
    request, translator,
};
use crate::packages::Suite;

/// What is started.
const PROGRAMS: [&str; 2] = ["/usr/bin/true", "/usr/bin/python3 -c pass"];

/// How often, by each.
const ROUNDS: usize = 7;

const LIMIT: Duration = Duration::from_secs(1800);

/// One start of a program.
struct Start {
    by: String,
    program: String,
    seconds: f64,
}

/// The translator that Demotic is measured beside, unpacked.
fn beside(workshop: &Workshop, beside: &Beside) -> Result<std::path::PathBuf> {
    let Beside { suite, package, program } = beside;
    let key = Key::of(include_str!("startup.rs")).and(suite).and(package);
    let entry = workshop.cache.entry("beside", key, |folder| {
        let lists = folder.join("apt");
        Suite::read(&lists, suite)?.unpack(std::slice::from_ref(package), &folder.join("root"))?;
        Ok(fs::remove_dir_all(lists)?)
    })?;
    Ok(entry.join("root").join(program))
}

/// Measures in a machine that has been booted for it, and prints a table.
pub fn measure(
    machine: &Machine,
    workshop: &Workshop,
    recipe: &Recipe,
    demotic: &Path,
) -> Result<ExitCode> {
    let other = beside(workshop, &recipe.beside)?;
    fs::copy(&other, machine.share().join("qemu-x86_64"))
        .with_context(|| other.display().to_string())?;
    fs::write(machine.share().join("startup"), include_bytes!("guest/startup"))?;
    translator::install(machine, demotic)?;
    request::output(machine, include_bytes!("guest/beside"), LIMIT)?;
    let words: Vec<_> = ["python3", "/host/startup", &ROUNDS.to_string()]
        .into_iter()
        .chain(PROGRAMS)
        .map(Into::into)
        .collect();
    let printed = request::output(machine, &request::script(request::Place::Own, &words), LIMIT)?;
    let starts = printed.lines().map(parse).collect::<Result<Vec<_>>>()?;
    print(&starts);
    Ok(ExitCode::SUCCESS)
}

fn parse(line: &str) -> Result<Start> {
    let [by, seconds, program] = line.split('\t').collect::<Vec<_>>()[..] else {
        bail!("the machine printed «{line}»");
    };
    Ok(Start { by: by.into(), program: program.into(), seconds: seconds.parse()? })
}

/// The table: of each program and who ran it, the first start, the median, and the least.
fn print(starts: &[Start]) {
    println!("processor time of a start in the machine, in seconds");
    println!("{:26} {:12} {:>7} {:>7} {:>7}", "", "", "first", "median", "least");
    let mut seen = Vec::new();
    for Start { by, program, .. } in starts {
        if seen.contains(&(by, program)) {
            continue;
        }
        seen.push((by, program));
    }
    seen.sort_by_key(|(_, program)| *program);
    for (by, program) in seen {
        let same = |start: &&Start| start.by == *by && start.program == *program;
        let seconds: Vec<f64> = starts.iter().filter(same).map(|start| start.seconds).collect();
        let (median, least) = middle(&seconds);
        println!("{program:26} {by:12} {:7.2} {median:7.2} {least:7.2}", seconds[0]);
    }
}

/// The median and the least.
fn middle(seconds: &[f64]) -> (f64, f64) {
    let mut sorted = seconds.to_vec();
    sorted.sort_by(f64::total_cmp);
    (sorted[sorted.len() / 2], sorted[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_machine() {
        let start = parse("native\t0.512\t/usr/bin/python3 -c pass").unwrap();
        assert_eq!((start.by.as_str(), start.seconds), ("native", 0.512));
        assert_eq!(start.program, PROGRAMS[1]);
        assert!(parse("native 0.5").is_err());
        assert_eq!(middle(&[3.0, 1.0, 2.0]), (2.0, 1.0));
    }
}
