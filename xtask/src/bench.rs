//! `cargo xtask bench`: the same work by a native build, by Demotic and by other translators, in one run.

mod gate;
mod latency;
pub mod measure;
mod picture;
mod publish;
mod table;
mod translation;
mod translators;
mod workloads;

use std::{
    collections::HashMap,
    env::consts::ARCH,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result};

use self::{
    measure::{Counter, Hardware, Instrument, Launch, Measured},
    table::{Figures, Measure, Row, Run, Table},
    translators::{Demotic, Places, Translator},
    workloads::{Latency, Ready, Workload, Workloads, Workshop},
};
use crate::{
    apt,
    packages::Store,
    say,
    setup::{self, For},
    target,
    toolchain::Toolchain,
};

/// The options of `cargo xtask bench`.
#[derive(clap::Args)]
pub struct Options {
    /// Also under qemu-x86_64 and box64, and under Rosetta where the kernel has it.
    #[arg(long)]
    peers: bool,
    /// Demotic's --memory-model: `ordered` for ordered memory from the first instruction on.
    #[arg(long, value_name = "MODEL")]
    memory_model: Option<String>,
    /// Demotic's --host-features: instruction sets of the host to do without, as `lrcpc2=off,afp=off`.
    #[arg(long, value_name = "NAME=off,...")]
    host_features: Option<String>,
    /// Everything: with peers, with ordered memory and with fewer host features, written into docs and README.
    #[arg(long, conflicts_with_all = ["workload", "memory_model", "host_features"])]
    publish: bool,
    /// Count the programs of benches/gate, and fail if they take more instructions than recorded.
    #[arg(long, conflicts_with_all = ["workload", "peers", "publish"])]
    check: bool,
    /// Count the programs of benches/gate, and record the counts.
    #[arg(long, conflicts_with_all = ["workload", "peers", "publish", "check"])]
    record: bool,
    /// Only these workloads and operations of benches/workloads/workloads.toml.
    workload: Vec<String>,
}

/// Instruction sets that not every processor has: the table is published without them, too.
const FEWER_FEATURES: &str = "lrcpc2=off,flagm=off,flagm2=off,afp=off";

/// Runs the workloads, or the gate.
pub fn bench(options: &Options) -> Result<ExitCode> {
    setup::ensure(For::Bench);
    let demotic = Toolchain::find(false)?.build()?;
    let folder = folder()?;
    let store = Store::new(folder.clone());
    let workloads = Workloads::read()?;
    if options.check || options.record {
        let counter = counter(&workloads, &store, &folder, ",model=on")?;
        let counts = gate::Counts::take(&counter, &demotic)?;
        return if options.record { counts.record() } else { counts.check() };
    }
    let instrument = match ARCH {
        "aarch64" => Instrument::Hardware(Hardware::new(&folder)),
        _ => Instrument::Counter(counter(&workloads, &store, &folder, ",model=on")?),
    };
    let translators = options.translators();
    let peers = translators.iter().any(Translator::is_peer);
    let session = Session {
        workshop: Workshop::new(&folder, &store, &workloads.packages)?,
        peers: peers.then(|| store.unpack("peers", &workloads.packages.peers)).transpose()?,
        instrument,
        demotic,
        folder,
        translators,
        workloads,
    };
    let table = session.table(&options.workload)?;
    print!("{}", table.text());
    publish::write(&table, &session.folder)?;
    if options.publish {
        publish::publish(&table)?;
    }
    Ok(if table.complete() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Options {
    /// Who runs the workloads besides the native build.
    fn translators(&self) -> Vec<Translator> {
        let demotic = Demotic {
            memory_model: self.memory_model.clone(),
            host_features: self.host_features.clone(),
            stats: false,
        };
        let mut translators = vec![Translator::Demotic(demotic)];
        if self.publish {
            let ordered = Demotic { memory_model: Some("ordered".into()), ..Demotic::default() };
            let fewer =
                Demotic { host_features: Some(FEWER_FEATURES.into()), ..Demotic::default() };
            translators.extend([ordered, fewer].map(Translator::Demotic));
        }
        if self.peers || self.publish {
            translators.extend(Translator::peers());
        }
        translators
    }
}

/// The folder that packages are unpacked and programs built in.
pub fn folder() -> Result<PathBuf> {
    let folder = target().join("bench");
    fs::create_dir_all(&folder)?;
    Ok(folder.canonicalize()?)
}

/// The emulator that counts.
fn counter(workloads: &Workloads, store: &Store, folder: &Path, options: &str) -> Result<Counter> {
    let qemu = store.unpack("counter", &workloads.packages.counter)?;
    Counter::new(folder, &qemu, options)
}

/// The emulator that counts, with more options for its plugin.
pub fn counter_with(options: &str) -> Result<Counter> {
    let folder = folder()?;
    counter(&Workloads::read()?, &Store::new(folder.clone()), &folder, options)
}

/// What running workloads needs.
struct Session {
    instrument: Instrument,
    workshop: Workshop,
    peers: Option<PathBuf>,
    demotic: PathBuf,
    folder: PathBuf,
    translators: Vec<Translator>,
    workloads: Workloads,
}

/// A workload, prepared, and what its native build did.
struct Prepared {
    ready: Ready,
    native: Measured,
}

impl Session {
    /// Runs the workloads and operations of these names, or all.
    fn table(&self, names: &[String]) -> Result<Table> {
        let asked_for = |latency: &&Latency| names.is_empty() || names.contains(&latency.name);
        let operations: Vec<_> = self.workloads.latency.iter().filter(asked_for).collect();
        let others = names.iter().filter(|&name| operations.iter().all(|o| o.name != *name));
        let chosen: Vec<&Workload> = match names {
            [] => self.workloads.workload.iter().collect(),
            _ => others.map(|name| self.workloads.find(name)).collect::<Result<_>>()?,
        };
        let mut prepared = HashMap::new();
        let mut rows = Vec::new();
        for workload in chosen {
            say(&workload.name);
            self.prepare(workload, &mut prepared).with_context(|| workload.name.clone())?;
            let Prepared { ready, native } = &prepared[&workload.name];
            let run = |translator: &Translator| self.run(translator, ready, &native.printed);
            rows.push(Row::new(workload, native, self.translators.iter().map(run).collect()));
        }
        let translation = self.translation(&rows, &prepared)?;
        let mut latencies = Vec::new();
        for operation in operations {
            say(&operation.name);
            latencies.push(self.latency(operation).with_context(|| operation.name.clone())?);
        }
        let date = apt::output(Command::new("date").args(["-u", "+%F"]))?.trim().to_owned();
        let natives: Vec<Figures> = rows.iter().filter_map(Row::native).collect();
        let natives = natives.iter().chain(latencies.iter().flat_map(latency::Row::native));
        let measure = Measure::of(&self.instrument, natives);
        Ok(Table { date, measure, cost: self.instrument.cost(), rows, latencies, translation })
    }

    /// Runs an operation a few times and more times, natively and by each translator.
    fn latency(&self, operation: &Latency) -> Result<latency::Row> {
        let counts = [operation.times, 3 * operation.times];
        let prepare = |times| self.workshop.prepare_latency(operation, times);
        let ready = [prepare(counts[0])?, prepare(counts[1])?];
        let native = |ready| self.measured(&Translator::Native, ready).context("the native build");
        let natives = [native(&ready[0])?, native(&ready[1])?];
        let run = |translator: &Translator| {
            [0, 1].map(|i| self.run(translator, &ready[i], &natives[i].printed))
        };
        let others: Vec<_> = self.translators.iter().map(run).collect();
        let natives = natives.map(|native| Run::new("native".into(), false, Ok(native)));
        let runs = [vec![natives], others].concat();
        Ok(latency::Row::new(operation.name.clone(), counts[1] - counts[0], runs))
    }

    /// What translation costs, if the workloads that show it were run where what is not translated code is counted.
    fn translation(
        &self,
        rows: &[Row],
        prepared: &HashMap<String, Prepared>,
    ) -> Result<Vec<translation::Row>> {
        let list = &self.workloads.translation;
        let Some(Translator::Demotic(demotic)) = self.translators.first() else {
            return Ok(Vec::new());
        };
        let with_stats = Translator::Demotic(Demotic { stats: true, ..demotic.clone() });
        let row = |name: &str| -> Result<Option<translation::Row>> {
            let Some(row) = rows.iter().find(|row| row.workload == name) else { return Ok(None) };
            let Some(outside) = row.outside() else { return Ok(None) };
            // To count them takes instructions, so that is another run.
            let errors = self.folder.join("stats");
            let home = tempfile::tempdir()?;
            let launch = with_stats.launch(&prepared[name].ready, &self.places());
            let launch = Launch { errors: Some(errors.clone()), ..launch };
            self.instrument.run(home.path(), &launch)?;
            let stats = fs::read_to_string(errors)?;
            Ok(Some(translation::Row::new(name, outside, &stats)?))
        };
        let Some(smallest) = row(&list.smallest)? else { return Ok(Vec::new()) };
        let mut costs = Vec::new();
        for name in &list.workloads {
            costs.extend(row(name)?.map(|row| row.over(&smallest)));
        }
        Ok(costs)
    }

    /// Prepares a workload and those whose output it needs, and runs their native builds.
    fn prepare(&self, workload: &Workload, prepared: &mut HashMap<String, Prepared>) -> Result<()> {
        if prepared.contains_key(&workload.name) {
            return Ok(());
        }
        let ready = self.workshop.prepare(workload, |name| {
            self.prepare(self.workloads.find(name)?, prepared)?;
            let file = self.folder.join(format!("output-{name}"));
            fs::write(&file, &prepared[name].native.printed)?;
            Ok(file)
        })?;
        let native = self.measured(&Translator::Native, &ready).context("the native build")?;
        prepared.insert(workload.name.clone(), Prepared { ready, native });
        Ok(())
    }

    /// One run by a translator, whose output must be the native one's; what goes wrong is said and kept.
    fn run(&self, translator: &Translator, ready: &Ready, expected: &[u8]) -> Run {
        let name = translator.name();
        let measured = match self.measured(translator, ready) {
            Ok(run) if run.printed == expected => Ok(run),
            Ok(_) => Err("does not print what the native build prints".to_owned()),
            Err(error) => Err(format!("{error:#}")),
        };
        if let Err(failure) = &measured {
            say(&format!("{name}: {failure}"));
        }
        Run::new(name, translator.is_peer(), measured)
    }

    /// A run with an empty home: no translation is there from before.
    fn measured(&self, translator: &Translator, ready: &Ready) -> Result<Measured> {
        let home = tempfile::tempdir()?;
        self.instrument.run(home.path(), &translator.launch(ready, &self.places()))
    }

    fn places(&self) -> Places<'_> {
        Places {
            demotic: &self.demotic,
            runner: self.instrument.runner(),
            workshop: &self.workshop,
            peers: self.peers.as_deref(),
        }
    }
}
