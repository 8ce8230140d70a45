//! Runs the programs of a list, natively and translated, and compares. The last line is `N passed, N failed`.
//!
//! Where both can be done, both are done here (`--demotic`). For a machine whose kernel knows the translator, a native
//! run elsewhere is recorded (`--record`), and translated runs are compared with that (`--recorded`) or with builds
//! for the machine's own processor (`--control`).

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    thread,
};

use anyhow::{Result, bail};
use clap::Parser;
use demotic_tests::{
    case::{Reference, Setting, Translation, Verdict},
    list::{self, Program, Size},
    runner::Runner,
};

/// Runs programs natively and translated, and compares.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    way: Way,
    /// What runs the translator, where the processor cannot: a program and its options.
    #[arg(long)]
    runner: Option<String>,
    /// It is an old one: leave out what it cannot do.
    #[arg(long, requires = "runner")]
    old_runner: bool,
    /// The x86_64 root of the programs.
    #[arg(long, default_value = "/")]
    sysroot: PathBuf,
    /// The root directory that programs are given.
    #[arg(long, default_value = "/")]
    root: PathBuf,
    /// Where programs run, below their root.
    #[arg(long)]
    work: PathBuf,
    /// What time limits are multiplied with.
    #[arg(long, default_value_t = 1)]
    patience: u32,
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
    /// Write anew what strace(1) says of the programs that `--strace` is compared for.
    #[arg(long, requires = "demotic")]
    record_traces: bool,
    /// Only programs with this in their name.
    filter: Option<String>,
}

/// What is run, and what it is compared with.
#[derive(clap::Args)]
#[group(required = true)]
struct Way {
    /// Run programs natively if the processor can, and with this translator.
    #[arg(long)]
    demotic: Option<PathBuf>,
    /// Run them natively and keep what comes of it where they run.
    #[arg(long)]
    record: bool,
    /// Have the kernel run them translated, and compare with what `--record` kept in this folder.
    #[arg(long)]
    recorded: Option<PathBuf>,
    /// Have the kernel run the programs of this folder's arm64 and x86_64; both must end with the same status.
    #[arg(long)]
    control: Option<PathBuf>,
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
    let mut programs: Vec<_> = list::read(&options.list)?.into_iter().filter(chosen).collect();
    // In the virtual machine a name may be one of another list's.
    if programs.is_empty() && options.way.demotic.is_some() {
        bail!("no program of the list has {:?} in its name", options.filter.unwrap_or_default());
    }
    let runner = options.runner.map(Runner::from);
    if options.old_runner {
        for Program { name, .. } in programs.extract_if(.., |program| program.recent_runner) {
            eprintln!("{name} is left out: the emulator here is too old for it");
        }
    }
    let (reference, translation) = match options.way {
        Way { recorded: Some(folder), .. } => (Reference::Recorded(folder), Translation::Kernel),
        Way { control: Some(folder), .. } => (Reference::Control(folder), Translation::Kernel),
        Way { demotic: Some(demotic), .. } => {
            let reference =
                if cfg!(target_arch = "x86_64") { Reference::Native } else { Reference::Status };
            (reference, Translation::Call { demotic, runner, sysroot: options.sysroot })
        }
        _ => (Reference::Native, Translation::None),
    };
    if matches!(reference, Reference::Status) {
        eprintln!(
            "no x86_64 processor here: outputs are not compared, exit statuses and children are"
        );
    }
    let setting = Setting {
        reference,
        translation,
        root: options.root,
        size,
        files: options.list.parent().unwrap_or(Path::new(".")).join("programs"),
        work: options.work,
        patience: options.patience,
        record_traces: options.record_traces,
    };
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
            println!(
                "ok      {:24} reference {:6.2} s, translated {:6.2} s",
                program.name,
                verdict.reference.as_secs_f64(),
                verdict.translated.as_secs_f64()
            );
            return true;
        }
        Ok(verdict) => verdict.problems,
        Err(error) => vec![format!("{error:#}")],
    };
    println!("FAILED  {}\n  {}", program.name, problems.join("\n  "));
    false
}
