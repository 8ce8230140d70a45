//! `demotic doctor`: what this machine has of what Demotic needs or uses. [`CHECKS`] is the list.

mod probes;

use crate::binfmt::{Entry, KINDS, Table, chosen};
use crate::cli::ReportOptions;
use crate::status::{PROBE_OUTPUT, json};
use crate::{executable, host_features, start};
use probes::{Limit, Probed};
use serde::Serialize;
use std::fmt::Write;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use syscalls::exe_file::second_name;
use translator::engine::HostFeatures;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    /// As it should be.
    Ok,
    /// Not there, and only slower or less for it.
    Note,
    /// Some programs will fail.
    Warning,
    /// No program runs.
    Problem,
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Finding {
    level: Level,
    found: String,
    /// What it means and what to do, unless all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

impl Finding {
    fn ok(found: impl Into<String>) -> Self {
        Self { level: Level::Ok, found: found.into(), advice: None }
    }

    fn bad(level: Level, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { level, found: found.into(), advice: Some(advice.into()) }
    }

    /// There, or of this level when not.
    fn present(there: bool, level: Level, advice: &str) -> Self {
        if there { Self::ok("yes") } else { Self::bad(level, "no", advice) }
    }
}

/// A line of the report.
struct Check {
    group: &'static str,
    name: &'static str,
    probe: fn(&Host) -> Finding,
}

/// What several checks look at.
struct Host {
    features: HostFeatures,
    lrcpc3: bool,
    /// The kernel switches the processor to x86's memory order when asked.
    tso: bool,
    address_bits: u32,
    page_size: u64,
}

impl Host {
    fn of_this_machine() -> Self {
        const HWCAP2_LRCPC3: u64 = 1 << 46;
        let [caps, caps2] = start::host_capabilities();
        Self {
            features: host_features::detect(caps, caps2),
            lrcpc3: caps2 & HWCAP2_LRCPC3 != 0,
            tso: probes::has_tso_switch(),
            address_bits: probes::address_bits(),
            page_size: syscalls::memory::host_page_size(),
        }
    }
}

const PROCESSOR: &str = "processor";
const MEMORY: &str = "memory";
const KERNEL: &str = "kernel";
const LIMITS: &str = "limits";
const REGISTRATION: &str = "registration";
const DEMOTIC: &str = "demotic";

/// A row for a feature of the processor: not there, it costs time.
macro_rules! feature {
    ($name:literal, $has:expr, $without:literal) => {
        Check {
            group: PROCESSOR,
            name: $name,
            probe: |host| {
                let has: fn(&Host) -> bool = $has;
                Finding::present(has(host), Level::Note, concat!("slower without: ", $without))
            },
        }
    };
}

/// A row for a system call that programs get from the kernel as it is.
macro_rules! call {
    ($name:literal, $probe:expr, $without:literal) => {
        Check { group: KERNEL, name: $name, probe: |_| of_call($probe, $without) }
    };
}

const CHECKS: &[Check] = &[
    Check {
        group: PROCESSOR,
        name: "architecture",
        probe: |_| architecture(std::env::consts::ARCH),
    },
    feature!("LSE", |h| h.features.lse, "locked instructions become loops"),
    feature!(
        "LSE2",
        |h| h.features.lse2,
        "misaligned ordered accesses fault once, then take barriers"
    ),
    feature!("LRCPC", |h| h.features.lrcpc, "ordered loads wait for earlier ordered stores"),
    feature!(
        "LRCPC2",
        |h| h.features.lrcpc2,
        "ordered accesses take an instruction for their offset"
    ),
    feature!(
        "LRCPC3",
        |h| h.lrcpc3,
        "ordered vector accesses take barriers (Demotic does not use it yet)"
    ),
    feature!("FLAGM", |h| h.features.flagm, "the carry flag takes more instructions"),
    feature!("FLAGM2", |h| h.features.flagm2, "floating-point comparisons take more instructions"),
    feature!("AFP", |h| h.features.afp, "scalar floating point takes more instructions"),
    feature!("AES", |h| h.features.aes, "AES instructions are emulated"),
    feature!("PMULL", |h| h.features.pmull, "PCLMULQDQ is emulated"),
    feature!("SHA1", |h| h.features.sha1, "SHA-1 instructions are emulated"),
    feature!("SHA2", |h| h.features.sha2, "SHA-256 instructions are emulated"),
    feature!("CRC32", |h| h.features.crc32, "CRC32 is emulated"),
    Check { group: MEMORY, name: "page size", probe: |host| page_size(host.page_size) },
    Check { group: MEMORY, name: "address bits", probe: |host| address_bits(host.address_bits) },
    Check {
        group: MEMORY,
        name: "TSO control",
        probe: |host| {
            let advice =
                "the kernel does not offer PR_SET_MEM_MODEL: x86's order is made by instructions";
            Finding::present(host.tso, Level::Note, advice)
        },
    },
    Check {
        group: MEMORY,
        name: "memory model",
        probe: |host| Finding::ok(memory_model(host.tso, &host.features)),
    },
    Check {
        group: KERNEL,
        name: "version",
        probe: |_| kernel_version(executable::kernel_version()),
    },
    call!("pidfd_open", probes::pidfd_open, "systemd and runc need it: Linux 5.3"),
    call!("clone3", probes::clone3, "threads and processes start by clone: Linux 5.3"),
    call!("openat2", probes::openat2, "--sysroot follows links out of it: Linux 5.6"),
    call!(
        "io_uring",
        probes::io_uring,
        "programs fall back on other calls: sysctl kernel.io_uring_disabled"
    ),
    call!(
        "landlock",
        probes::landlock,
        "programs cannot confine themselves by it: kernel parameter lsm="
    ),
    call!("seccomp", probes::seccomp, "programs cannot filter system calls: CONFIG_SECCOMP_FILTER"),
    call!(
        "user namespaces",
        probes::user_namespace,
        "unprivileged containers fail: sysctl user.max_user_namespaces"
    ),
    call!(
        "cgroup v2",
        probes::cgroup2,
        "systemd and runc need it: mount cgroup2 at /sys/fs/cgroup"
    ),
    call!("binfmt_misc", probes::binfmt_misc, "register mounts it, and loads its module"),
    Check {
        group: REGISTRATION,
        name: "x86_64 programs",
        probe: |_| match Table::kernel().entries() {
            Ok(entries) => registration(
                chosen(&entries, &KINDS[0]).map(|e| (&e.name, e.interpreter.display())),
            ),
            Err(_) => registration(None::<(&String, &str)>),
        },
    },
    Check {
        group: REGISTRATION,
        name: "handlers",
        probe: |_| handlers(&Table::kernel().entries().unwrap_or_default()),
    },
    Check {
        group: REGISTRATION,
        name: "second name",
        probe: |_| {
            let name = executable::path().map(|path| second_name(&path));
            second_name_of(name.ok().filter(|name| executable::is_at(name)))
        },
    },
    Check {
        group: LIMITS,
        name: "address space",
        probe: |_| address_space(probes::limit(Limit::AddressSpace)),
    },
    Check {
        group: LIMITS,
        name: "open files",
        probe: |_| open_files(probes::limit(Limit::OpenFiles)),
    },
    Check {
        group: LIMITS,
        name: "vm.overcommit_memory",
        probe: |_| overcommit(probes::sysctl("vm/overcommit_memory")),
    },
    Check {
        group: LIMITS,
        name: "vm.max_map_count",
        probe: |_| map_count(probes::sysctl("vm/max_map_count")),
    },
    Check {
        group: LIMITS,
        name: "vm.mmap_min_addr",
        probe: |_| lowest_address(probes::sysctl("vm/mmap_min_addr")),
    },
    Check { group: DEMOTIC, name: "static", probe: |_| linkage() },
    Check {
        group: DEMOTIC,
        name: "readable",
        probe: |_| mode(executable::metadata().map(|m| m.mode()).ok()),
    },
    Check { group: DEMOTIC, name: "a test program", probe: |_| trial() },
];

fn architecture(name: &str) -> Finding {
    match name {
        "aarch64" => Finding::ok("arm64"),
        other => Finding::bad(Level::Problem, other, "Demotic makes arm64 code: run it on arm64"),
    }
}

fn page_size(bytes: u64) -> Finding {
    let found = format!("{} KiB", bytes / 1024);
    let advice = "x86_64 programs expect 4 KiB: what does not fit is copied, and shared file mappings \
                  that do not begin at a multiple of the page fail; a kernel with 4 KiB pages is best";
    match bytes {
        4096 => Finding::ok(found),
        16384 => Finding::bad(Level::Note, found, advice),
        _ => Finding::bad(Level::Warning, found, advice),
    }
}

fn address_bits(bits: u32) -> Finding {
    let advice =
        "x86_64 programs use addresses of 47 bits: use a kernel with CONFIG_ARM64_VA_BITS=48";
    match bits {
        48.. => Finding::ok(bits.to_string()),
        47 => Finding::bad(
            Level::Note,
            "47",
            "Demotic itself takes a part of the program's addresses",
        ),
        _ => Finding::bad(Level::Problem, bits.to_string(), advice),
    }
}

/// The order of loads and stores that `--memory-model auto` gives a program, and why.
fn memory_model(tso: bool, features: &HostFeatures) -> String {
    if tso {
        return "the processor's own x86 order, which the kernel offers".into();
    }
    let (pair, why) = if features.lrcpc2 {
        ("LDAPUR and STLUR", "the processor has LRCPC2")
    } else if features.lrcpc {
        ("LDAPR and STLR", "the processor has LRCPC")
    } else {
        ("LDAR and STLR", "the processor has no LRCPC")
    };
    format!("plain while a program has one thread and shares no memory, then {pair}: {why}")
}

fn kernel_version(version: (u32, u32)) -> Finding {
    let found = executable::kernel_release();
    match version {
        (5, 12..) | (6.., _) => Finding::ok(found),
        (5, _) | (4, 17..) => {
            Finding::bad(Level::Note, found, "binfmt_misc passes argv[0] on from Linux 5.12 on")
        }
        _ => Finding::bad(Level::Problem, found, "mmap needs MAP_FIXED_NOREPLACE: Linux 4.17"),
    }
}

fn of_call(probe: fn() -> Probed, without: &str) -> Finding {
    match probe() {
        Probed::There(found) => Finding::ok(found),
        Probed::Missing(found) => Finding::bad(Level::Warning, found, without),
    }
}

fn registration(handler: Option<(&String, impl std::fmt::Display)>) -> Finding {
    match handler {
        Some((name, path)) if name == crate::binfmt::NAME => Finding::ok(format!("{path}")),
        Some((name, path)) => Finding::bad(
            Level::Warning,
            format!("{name}: {path}"),
            "another handler runs them: sudo demotic register --replace",
        ),
        None => Finding::bad(
            Level::Warning,
            "nothing",
            "they run only as demotic PROGRAM: sudo demotic register",
        ),
    }
}

/// All entries for x86_64 programs, in the order in which the kernel tries them.
fn handlers(entries: &[Entry]) -> Finding {
    let entry = |entry: &Entry| {
        let Entry { name, enabled, interpreter, flags, .. } = entry;
        let state = if *enabled { "on" } else { "off" };
        format!("{name} ({}, flags {flags}, {state})", interpreter.display())
    };
    let all: Vec<String> = entries.iter().filter(|e| e.is_for_x86_64()).map(entry).collect();
    Finding::ok(if all.is_empty() { "none".into() } else { all.join(", ") })
}

/// The second name of Demotic's file, if it is there.
fn second_name_of(name: Option<PathBuf>) -> Finding {
    match name {
        Some(name) => Finding::ok(name.display().to_string()),
        None => Finding::bad(
            Level::Note,
            "none",
            "running programs can be written to, and others see Demotic as /proc/PID/exe: \
             sudo demotic register",
        ),
    }
}

fn of_bytes(limit: Option<u64>) -> String {
    limit.map_or("no limit".into(), |bytes| format!("{} MiB", bytes >> 20))
}

fn address_space(limit: Option<u64>) -> Finding {
    // The translation cache, the page sets, a stack, and a small program.
    const NEEDED: u64 = 1 << 30;
    match limit {
        Some(bytes) if bytes < NEEDED => Finding::bad(
            Level::Problem,
            of_bytes(limit),
            "the translator reserves more than that: ulimit -v unlimited, or LimitAS= of the unit",
        ),
        _ => Finding::ok(of_bytes(limit)),
    }
}

fn open_files(limit: Option<u64>) -> Finding {
    match limit {
        Some(count @ ..64) => Finding::bad(
            Level::Warning,
            count.to_string(),
            "the translator keeps a few descriptors itself: ulimit -n 1024",
        ),
        Some(count) => Finding::ok(count.to_string()),
        None => Finding::ok("no limit"),
    }
}

fn overcommit(value: Option<u64>) -> Finding {
    match value {
        Some(2) => Finding::bad(
            Level::Warning,
            "2",
            "reservations count as memory, and programs that reserve much fail: sysctl vm.overcommit_memory=0",
        ),
        Some(value) => Finding::ok(value.to_string()),
        None => Finding::ok("unknown"),
    }
}

fn map_count(value: Option<u64>) -> Finding {
    match value {
        Some(count @ ..65530) => Finding::bad(
            Level::Warning,
            count.to_string(),
            "less than usual, and the translator needs mappings too: sysctl vm.max_map_count=65530",
        ),
        Some(count) => Finding::ok(count.to_string()),
        None => Finding::ok("unknown"),
    }
}

fn lowest_address(value: Option<u64>) -> Finding {
    match value {
        Some(address) if address > 0x10000 => Finding::bad(
            Level::Note,
            address.to_string(),
            "programs linked below that address cannot be loaded: sysctl vm.mmap_min_addr=65536",
        ),
        Some(address) => Finding::ok(address.to_string()),
        None => Finding::ok("unknown"),
    }
}

fn linkage() -> Finding {
    let advice = "it may be in the way of programs, or not start in a chroot: build it as the \
                  project's cargo configuration says";
    match executable::linkage() {
        Ok(linkage) if linkage.is_static && linkage.is_position_independent => {
            Finding::ok("static and position-independent")
        }
        Ok(linkage) => Finding::bad(Level::Warning, format!("{linkage:?}"), advice),
        Err(error) => Finding::bad(
            Level::Warning,
            error.to_string(),
            "its own program cannot be read: mount /proc, and see its permissions",
        ),
    }
}

/// The permissions of the file, for the others who are to run programs with it.
fn mode(mode: Option<u32>) -> Finding {
    let Some(mode) = mode else {
        return Finding::bad(Level::Warning, "unknown", "mount /proc");
    };
    let found = format!("mode {:04o}", mode & 0o7777);
    match mode {
        _ if mode & 0o6000 != 0 => Finding::bad(
            Level::Warning,
            found,
            "it must not be setuid: it takes the rights of the program it runs; chmod ug-s",
        ),
        _ if mode & 0o002 != 0 => {
            Finding::bad(Level::Warning, found, "anyone may change it: chmod o-w")
        }
        _ if mode & 0o005 != 0o005 => {
            Finding::bad(Level::Warning, found, "other users cannot run it by hand: chmod o+rx")
        }
        _ => Finding::ok(found),
    }
}

fn trial() -> Finding {
    match start::trial() {
        Ok(output) if output == PROBE_OUTPUT.as_bytes() => Finding::ok("runs"),
        Ok(output) => Finding::bad(
            Level::Problem,
            format!("printed «{}»", String::from_utf8_lossy(&output).trim()),
            "see what it says with demotic --strace on a program of your own",
        ),
        Err(error) => Finding::bad(
            Level::Problem,
            error.to_string(),
            "the problems above may say why; else try demotic --strace on a program of your own",
        ),
    }
}

/// A row of the report, which is also the JSON.
#[derive(Debug, Serialize)]
struct Row {
    group: &'static str,
    name: &'static str,
    #[serde(flatten)]
    finding: Finding,
}

#[derive(Debug, Serialize)]
struct Report {
    programs_run: bool,
    checks: Vec<Row>,
}

impl Report {
    fn new(host: &Host, checks: &[Check]) -> Self {
        let row = |check: &Check| {
            let &Check { group, name, probe } = check;
            Row { group, name, finding: probe(host) }
        };
        let checks: Vec<Row> = checks.iter().map(row).collect();
        let programs_run = checks.iter().all(|row| row.finding.level != Level::Problem);
        Self { programs_run, checks }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        let mut group = "";
        for Row { group: of, name, finding } in &self.checks {
            // Writing to a String cannot fail.
            if *of != group {
                group = of;
                let _ = writeln!(text, "{group}");
            }
            let mark = match finding.level {
                Level::Ok => "",
                Level::Note => "note",
                Level::Warning => "warning",
                Level::Problem => "PROBLEM",
            };
            let _ = writeln!(text, "  {mark:<8} {name:<20} {}", finding.found);
            if let Some(advice) = &finding.advice {
                let _ = writeln!(text, "  {:<8} {:<20} ({advice})", "", "");
            }
        }
        let summary = match self.programs_run {
            true => "x86_64 programs run here.",
            false => "x86_64 programs do not run here: see the lines with PROBLEM.",
        };
        text + summary + "\n"
    }
}

/// `demotic doctor`; gives the exit status.
pub fn run(options: ReportOptions) -> i32 {
    let report = Report::new(&Host::of_this_machine(), CHECKS);
    if options.json {
        println!("{}", json(&report));
    } else {
        print!("{}", report.text());
    }
    i32::from(!report.programs_run)
}

#[cfg(test)]
mod tests;
