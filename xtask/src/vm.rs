//! `cargo xtask vm`: an arm64 virtual machine whose kernel hands x86_64 programs to the translator (docs/vm.md).

mod cache;
mod image;
mod initrd;
mod kernel;
mod machine;
mod recipe;
mod request;
mod roots;
mod selftests;
mod shell;
mod startup;
pub mod step;
mod suite;
mod translator;
mod twin;

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Result, bail};
use clap::Subcommand;

use self::{
    cache::Cache,
    machine::{Machine, Parts},
    recipe::Recipe,
    request::Place,
    step::Steps,
};
use crate::{
    say,
    setup::{self, For},
    target,
    toolchain::Toolchain,
};

/// The options of `cargo xtask vm`.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Options {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    kernel: KernelOption,
}

#[derive(clap::Args)]
struct KernelOption {
    /// The machine's kernel: stable, newest or 16k; each has a machine of its own.
    #[arg(long)]
    kernel: Option<String>,
}

#[derive(Subcommand)]
enum Command {
    /// Run a command in the machine, booted if it is not; its output and exit status are this one's.
    Run(Run),
    /// Run the tests that need the machine, in one of their own. The last line is `N passed, N failed`.
    Test(Test),
    /// Measure what it takes to start programs, natively, by Demotic and by qemu-user, in a machine of its own.
    Startup(KernelOption),
    /// Run the kernel's own tests for both processors, in a machine of its own, and write docs/selftests.md.
    Selftests(Test),
    /// Fetch and build what a machine is made of, and no more.
    Prepare(KernelOption),
    /// Switch machines off: all of them, or that of --kernel.
    Stop(KernelOption),
    /// Say which machines are running, and where what they are made of is kept.
    Status,
    /// Switch all machines off and remove all that was fetched and built for them.
    Clean,
}

#[derive(clap::Args)]
struct Run {
    #[command(flatten)]
    kernel: KernelOption,
    /// Run it in the x86_64 root.
    #[arg(long)]
    x86: bool,
    /// Seconds after which it is ended, with exit status 124.
    #[arg(long, default_value_t = 600)]
    timeout: u64,
    /// The command.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

#[derive(clap::Args)]
struct Test {
    #[command(flatten)]
    kernel: KernelOption,
    /// Only the tests with this in their name.
    filter: Option<String>,
}

/// The exit status of a command that was ended at its time limit, as timeout(1) has it.
const TIMED_OUT: i32 = 124;

/// Where things are built.
struct Workshop {
    cache: Cache,
    steps: Steps,
}

/// Does what is asked for.
pub fn vm(options: &Options) -> Result<ExitCode> {
    match &options.command {
        None => {
            let machine = ready(options.kernel.kernel.as_deref())?;
            say(
                "a shell in the machine; Ctrl-] leaves it, and `cargo xtask vm stop` switches the machine off",
            );
            let status = shell::interact(&machine)?;
            Ok(exit_code(status.unwrap_or(0)))
        }
        Some(Command::Run(run)) => {
            let machine = ready(run.kernel.kernel.as_deref())?;
            let place = if run.x86 { Place::X86_64 } else { Place::Own };
            let script = request::script(place, &run.command);
            let limit = Duration::from_secs(run.timeout);
            let (stdout, stderr) = (&mut io::stdout(), &mut io::stderr());
            let status = request::run(&machine, &script, limit, stdout, stderr)?;
            if status.is_none() {
                say(&format!("ended at its time limit of {} s", run.timeout));
            }
            Ok(exit_code(status.unwrap_or(TIMED_OUT)))
        }
        Some(Command::Test(Test { kernel, filter })) => {
            test(kernel.kernel.as_deref(), filter.as_deref())
        }
        Some(Command::Startup(KernelOption { kernel })) => startup(kernel.as_deref()),
        Some(Command::Selftests(Test { kernel, filter })) => {
            selftests(kernel.kernel.as_deref(), filter.as_deref())
        }
        Some(Command::Prepare(KernelOption { kernel })) => {
            let (workshop, recipe) = (Workshop::open()?, Recipe::read());
            workshop.parts(&recipe, recipe.kernel(kernel.as_deref())?)?;
            Ok(ExitCode::SUCCESS)
        }
        Some(Command::Stop(KernelOption { kernel })) => stop(kernel.as_deref()),
        Some(Command::Status) => status(),
        Some(Command::Clean) => {
            stop(None)?;
            Cache::open()?.clean()?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// A machine that is up, with the translator of this tree registered.
fn ready(kernel: Option<&str>) -> Result<Machine> {
    let workshop = Workshop::open()?;
    let recipe = Recipe::read();
    let kernel = recipe.kernel(kernel)?;
    let demotic = Toolchain::find(false)?.build()?;
    let machine = Machine::new(folder().join(&kernel.name))?;
    machine.boot(|| workshop.parts(&recipe, kernel).map(|(parts, _)| parts))?;
    translator::install(&machine, &demotic)?;
    Ok(machine)
}

/// The tests, in a machine booted for them and stopped after them, whatever comes of them.
fn test(kernel: Option<&str>, filter: Option<&str>) -> Result<ExitCode> {
    let (workshop, recipe) = (Workshop::open()?, Recipe::read());
    let builds = suite::Builds::new(&Toolchain::find(false)?)?;
    alone("test", &workshop, &recipe, kernel, |machine, x86_64| {
        suite::test(machine, &workshop.steps, &builds, x86_64, filter)
    })
}

/// The figures of starts, in the same way.
fn startup(kernel: Option<&str>) -> Result<ExitCode> {
    let (workshop, recipe) = (Workshop::open()?, Recipe::read());
    let demotic = Toolchain::find(false)?.build()?;
    alone("startup", &workshop, &recipe, kernel, |machine, _| {
        startup::measure(machine, &workshop, &recipe, &demotic)
    })
}

/// The kernel's own tests, in the same way.
fn selftests(kernel: Option<&str>, filter: Option<&str>) -> Result<ExitCode> {
    let (workshop, recipe) = (Workshop::open()?, Recipe::read());
    let demotic = Toolchain::find(false)?.build()?;
    alone("selftests", &workshop, &recipe, kernel, |machine, _| {
        selftests::run(machine, &workshop, &recipe, &demotic, filter)
    })
}

/// Does something in a machine that is booted for it, and stopped after it whatever comes of it; with the x86_64 root
/// also here.
fn alone(
    purpose: &str,
    workshop: &Workshop,
    recipe: &Recipe,
    kernel: Option<&str>,
    work: impl FnOnce(&Machine, &Path) -> Result<ExitCode>,
) -> Result<ExitCode> {
    let kernel = recipe.kernel(kernel)?;
    let (parts, x86_64) = workshop.parts(recipe, kernel)?;
    let machine = Machine::new(folder().join(format!("{purpose}-{}", kernel.name)))?;
    if machine.running()? {
        say("a machine that was left running is stopped");
        machine.stop()?;
    }
    machine.boot(|| Ok(parts))?;
    let done = work(&machine, &x86_64);
    machine.stop()?;
    done
}

impl Workshop {
    fn open() -> Result<Self> {
        if std::env::consts::ARCH != "x86_64" {
            bail!("the machine's x86_64 root is made by an x86_64 processor, which this is not");
        }
        setup::ensure(For::Vm);
        let cache = Cache::open()?;
        let steps = Steps::new(cache.folder().join("logs"))?;
        Ok(Self { cache, steps })
    }

    /// What a machine is booted from, fetched and built where it is not there yet; and the x86_64 root.
    fn parts(&self, recipe: &Recipe, kernel: &recipe::Kernel) -> Result<(Parts, PathBuf)> {
        let (fetched, roots) = std::thread::scope(|scope| {
            let fetched = scope.spawn(|| kernel::fetch(self, kernel));
            let roots = roots::build(self, recipe);
            (fetched.join().expect("no panic"), roots)
        });
        let (fetched, roots) = (fetched?, roots?);
        let parts = Parts {
            image: fetched.image()?,
            initrd: initrd::build(self, recipe, &kernel.name, &fetched)?,
            disks: image::build(self, &roots)?,
        };
        Ok((parts, roots.x86_64))
    }
}

/// Where machines have their folders.
fn folder() -> PathBuf {
    target().join("vm")
}

/// Switches one machine off, or all.
fn stop(kernel: Option<&str>) -> Result<ExitCode> {
    for (name, machine) in machine::all(&folder())? {
        if kernel.is_none_or(|kernel| kernel == name) && machine.running()? {
            machine.stop()?;
            say(&format!("{name}: stopped"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Says what is running and what is kept.
fn status() -> Result<ExitCode> {
    let cache = Cache::open()?;
    println!("kept in {} (or where {} says)", cache.folder().display(), cache::VARIABLE);
    for kernel in Recipe::read().kernel {
        let machine = Machine::new(folder().join(&kernel.name))?;
        let state = if !machine.running()? {
            "not running".into()
        } else {
            format!(
                "running, {}; its share is {}",
                machine.description(),
                machine.share().display()
            )
        };
        println!("{:8} {} of {}: {state}", kernel.name, kernel.package, kernel.suite);
    }
    Ok(ExitCode::SUCCESS)
}

/// An exit status as this program's own.
fn exit_code(status: i32) -> ExitCode {
    ExitCode::from(u8::try_from(status).unwrap_or(u8::MAX))
}
