//! Runs the whole programs of `programs.toml`, natively and translated. The last line is `N passed, N failed`.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    thread,
};

use anyhow::Result;
use clap::Parser;
use demotic_tests::{
    case::{Setting, Verdict},
    list::{self, Program, Size},
};

/// Runs whole programs natively and translated, and compares.
#[derive(Parser)]
struct Options {
    /// The translator.
    #[arg(long)]
    demotic: PathBuf,
    /// What runs the translator, where the processor cannot.
    #[arg(long)]
    runner: Option<PathBuf>,
    /// The x86_64 root of the programs.
    #[arg(long, default_value = "/")]
    sysroot: PathBuf,
    /// Where programs run.
    #[arg(long)]
    work: PathBuf,
    /// The list of programs; beside it, the folder `programs` with their files.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/programs.toml"))]
    list: PathBuf,
    /// How many programs run at a time.
    #[arg(long, default_value_t = thread::available_parallelism().map_or(2, usize::from))]
    jobs: usize,
    /// Leave out the slow ones.
    #[arg(long)]
    quick: bool,
    /// Give them their full size.
    #[arg(long, conflicts_with = "quick")]
    full: bool,
    /// Only programs with this in their name.
    filter: Option<String>,
}

fn main() -> Result<ExitCode> {
    let options = Options::parse();
    let size = match (options.quick, options.full) {
        (true, _) => Size::Quick,
        (_, true) => Size::Full,
        _ => Size::Normal,
    };
    let chosen = |program: &Program| {
        options.filter.as_ref().is_none_or(|part| program.name.contains(part))
            && !(program.slow && options.quick)
    };
    let programs: Vec<_> = list::read(&options.list)?.into_iter().filter(chosen).collect();
    let setting = Setting {
        demotic: options.demotic,
        runner: options.runner,
        sysroot: options.sysroot,
        native: cfg!(target_arch = "x86_64"),
        size,
        files: options.list.parent().unwrap_or(Path::new(".")).join("programs"),
        work: options.work,
    };
    if !setting.native {
        eprintln!(
            "no x86_64 processor here: outputs are not compared, exit statuses and children are"
        );
    }
    let (next, failed) = (AtomicUsize::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..options.jobs {
            scope.spawn(|| {
                while let Some(program) = programs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let good = report(program, setting.judge(program));
                    failed.fetch_add((!good).into(), Ordering::Relaxed);
                }
            });
        }
    });
    let failed = failed.into_inner();
    println!("{} passed, {failed} failed", programs.len() as u64 - failed);
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Says how a test went; returns whether it passed.
fn report(program: &Program, judged: Result<Verdict>) -> bool {
    let problems = match judged {
        Ok(verdict) if verdict.problems.is_empty() => {
            let (native, translated) =
                (verdict.native.as_secs_f64(), verdict.translated.as_secs_f64());
            println!(
                "ok      {:24} native {native:6.2} s, translated {translated:6.2} s",
                program.name
            );
            return true;
        }
        Ok(verdict) => verdict.problems,
        Err(error) => vec![format!("{error:#}")],
    };
    println!("FAILED  {}\n  {}", program.name, problems.join("\n  "));
    false
}
