//! `demotic status`: what the kernel would run an x86_64 program with, by its table and by trying it.

use crate::binfmt::{DIRECTORY, Entry, KINDS, Table, chosen};
use crate::cli::{OPTIONS_VARIABLE, ReportOptions};
use crate::executable;
use serde::Serialize;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use syscalls::exe_file::second_name;
use syscalls::process;

/// The test program; `build/probe.rs` writes it.
pub static PROBE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/probe"));
/// What it prints.
pub const PROBE_OUTPUT: &str = "x86_64 code is running\n";

/// How long it may take: some translators are slow to start, and so is an emulated machine.
const PROBE_LIMIT: Duration = Duration::from_secs(60);

/// The report, which is also the JSON.
#[derive(Serialize, Debug)]
struct Status {
    /// Whether the table is mounted at its place.
    mounted: bool,
    /// Whether the kernel looks at the table.
    enabled: bool,
    /// The entries for x86_64 programs, in the order in which the kernel tries them.
    handlers: Vec<Handler>,
    /// For each kind of x86_64 program, the name of the entry that is taken.
    chosen: Vec<Choice>,
    proof: Proof,
}

#[derive(Serialize, Debug)]
struct Handler {
    name: String,
    interpreter: String,
    flags: String,
    enabled: bool,
}

#[derive(Serialize, Debug)]
struct Choice {
    program: &'static str,
    handler: Option<String>,
}

/// What happened when an x86_64 program was executed.
#[derive(Serialize, Debug, Default)]
pub struct Proof {
    /// What it printed.
    output: String,
    /// Its exit status; none if a signal ended it or it never began.
    exit_status: Option<i32>,
    /// The file that the kernel ran for it.
    run_by: Option<String>,
    /// Whether that file is this program.
    by_this_demotic: bool,
    /// Why it was not run, or not to its end.
    error: Option<String>,
}

impl Proof {
    /// Whether it ran as it should, whoever did it.
    pub fn is_correct(&self) -> bool {
        self.error.is_none() && self.output == PROBE_OUTPUT && self.exit_status == Some(0)
    }

    /// Whether this program ran it.
    pub fn is_this_program(&self) -> bool {
        self.by_this_demotic
    }

    /// What ran it, if it was something else than this program.
    pub fn other_runner(&self) -> Option<&str> {
        self.run_by.as_deref().filter(|_| !self.by_this_demotic)
    }
}

/// The test program as a file in memory. It stays open over exec: an interpreter without flag O opens it by
/// its name.
pub fn probe_file() -> io::Result<File> {
    const MFD_EXEC: u32 = 0x10;
    let create = |flags| {
        // SAFETY: the call reads a string and makes a descriptor.
        let fd = unsafe { libc::memfd_create(c"x86_64 test".as_ptr(), flags) };
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(fd) }
    };
    // Kernels before 6.3 do not know the flag.
    let fd = create(MFD_EXEC).or_else(|_| create(0))?;
    // SAFETY: the descriptor is new and nobody else's.
    let mut file = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    file.write_all(PROBE)?;
    Ok(file)
}

/// Executes the test program as anyone would, and looks at who runs it.
pub fn prove() -> Proof {
    let spawned = probe_file().and_then(|file| {
        let mut command = Command::new(format!("/proc/self/fd/{}", file.as_raw_fd()));
        command.env_remove(OPTIONS_VARIABLE);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()
    });
    match spawned {
        Ok(child) => observe(child),
        Err(error) => Proof {
            error: Some(match error.raw_os_error() {
                Some(libc::ENOEXEC) => "the kernel knows no way to run it".into(),
                _ => format!("it could not be executed: {error}"),
            }),
            ..Proof::default()
        },
    }
}

/// Reads what the test program prints, sees what it is run by while it waits, and lets it end.
fn observe(mut child: Child) -> Proof {
    let mut proof = Proof::default();
    let output = child.stdout.take().map_or(Ok(Vec::new()), |mut stdout| {
        read_until(&mut stdout, PROBE_OUTPUT.len(), Instant::now() + PROBE_LIMIT)
    });
    match output {
        Ok(bytes) => proof.output = String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => {
            proof.error = Some(format!("it printed nothing: {error}"));
            // An error would mean that it has ended.
            let _ = child.kill();
        }
    }
    let process = child.id().to_string();
    proof.by_this_demotic = process::is_run_by_same(&process);
    proof.run_by = match proof.by_this_demotic {
        true => Some(executable::path_text()),
        false => runner(&process).map(|path| path.to_string_lossy().into_owned()),
    };
    drop(child.stdin.take());
    match child.wait() {
        Ok(status) => proof.exit_status = status.code(),
        Err(error) => proof.error = Some(format!("it could not be waited for: {error}")),
    }
    if proof.error.is_none() && !proof.is_correct() {
        proof.error = Some("it did not print its line and exit with status 0".into());
    }
    proof
}

/// The file that a process runs the code of. Its executable is another when a translator has put the program in its
/// place there (`syscalls::exe_file`).
fn runner(process: &str) -> Option<PathBuf> {
    let exe = std::fs::read_link(format!("/proc/{process}/exe")).ok()?;
    let mut code = process::code_files(process);
    if code.is_empty() || code.iter().any(|file| file.path == exe) {
        return Some(exe);
    }
    Some(code.swap_remove(0).path)
}

/// Reads `len` bytes, or up to the end, until a point in time.
pub fn read_until(
    from: &mut (impl Read + AsRawFd),
    len: usize,
    deadline: Instant,
) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    let mut have = 0;
    while have < len {
        let left = deadline.saturating_duration_since(Instant::now()).as_millis() as i32;
        let mut poll = libc::pollfd { fd: from.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one structure, which is ours.
        match unsafe { libc::poll(&mut poll, 1, left) } {
            0 => return Err(io::ErrorKind::TimedOut.into()),
            1 => match from.read(&mut bytes[have..])? {
                0 => break,
                n => have += n,
            },
            _ => return Err(io::Error::last_os_error()),
        }
    }
    bytes.truncate(have);
    Ok(bytes)
}

impl Status {
    fn new(table: &Table, proof: Proof) -> io::Result<Self> {
        let mounted = table.is_mounted();
        let entries = if mounted { table.entries()? } else { Vec::new() };
        let enabled = mounted && table.is_enabled()?;
        Ok(Self::of(mounted, enabled, &entries, proof))
    }

    fn of(mounted: bool, enabled: bool, entries: &[Entry], proof: Proof) -> Self {
        let usable = if enabled { entries } else { &[] };
        let choice = |kind| {
            let handler = chosen(usable, kind).map(|entry| entry.name.clone());
            Choice { program: kind.name, handler }
        };
        let handler = |entry: &Entry| Handler {
            name: entry.name.clone(),
            interpreter: entry.interpreter.to_string_lossy().into_owned(),
            flags: entry.flags.clone(),
            enabled: entry.enabled,
        };
        Self {
            mounted,
            enabled,
            handlers: entries.iter().filter(|e| e.is_for_x86_64()).map(handler).collect(),
            chosen: KINDS.iter().map(choice).collect(),
            proof,
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |words: String| text += &(words + "\n");
        if !self.mounted {
            line(format!("binfmt_misc is not mounted at {DIRECTORY}"));
        } else if !self.enabled {
            line("binfmt_misc is turned off as a whole: echo 1 to its file status".into());
        }
        if self.handlers.is_empty() {
            line("no entry is for x86_64 programs; to make one: sudo demotic register".into());
        } else {
            line(
                "entries for x86_64 programs, in the order in which the kernel tries them:".into(),
            );
        }
        for Handler { name, interpreter, flags, enabled } in &self.handlers {
            let state = if *enabled { "on" } else { "off" };
            line(format!("  {name}: {interpreter}, flags {flags}, {state}"));
        }
        let name = |choice: &Choice| choice.handler.clone().unwrap_or_else(|| "none".into());
        let first = name(&self.chosen[0]);
        if self.chosen.iter().all(|choice| name(choice) == first) {
            line(format!("taken for every kind of x86_64 program: {first}"));
        } else {
            self.chosen.iter().for_each(|choice| {
                line(format!("taken for programs that are {}: {}", choice.program, name(choice)));
            });
        }
        let Proof { output, run_by, by_this_demotic, error, .. } = &self.proof;
        let runner = match (run_by, by_this_demotic) {
            (Some(path), true) => format!("this demotic, {path}"),
            (Some(path), false) => path.clone(),
            (None, _) => "an unknown program".into(),
        };
        match error {
            None => {
                line(format!("tried: a test program printed «{}», run by {runner}", output.trim()))
            }
            Some(error) if run_by.is_some() => {
                line(format!("tried: a test program, run by {runner}: {error}"))
            }
            Some(error) => line(format!("tried: a test program: {error}")),
        }
        if self.proof.other_runner().is_some_and(was_this_program) {
            line(
                "the kernel still has the file that was there before: sudo demotic register".into(),
            );
        }
        text
    }
}

/// Whether a path is that of a file which had a name of this program's before.
fn was_this_program(path: &str) -> bool {
    let own = executable::path_text();
    let name = path.strip_suffix(" (deleted)").unwrap_or(path);
    name == own || Path::new(name) == second_name(Path::new(&own))
}

/// `demotic status`; gives the exit status.
pub fn run(options: ReportOptions) -> i32 {
    let proof = prove();
    let works = proof.is_correct() && proof.is_this_program();
    match Status::new(&Table::kernel(), proof) {
        Ok(status) if options.json => println!("{}", json(&status)),
        Ok(status) => print!("{}", status.text()),
        Err(error) => {
            eprintln!("demotic: cannot read {DIRECTORY}: {error}; check its permissions");
            return 1;
        }
    }
    i32::from(!works)
}

/// JSON for programs and people.
pub fn json(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value)
        .unwrap_or_else(|error| format!("{{\"error\": \"{error}\"}}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::binfmt::tests::{demotic, qemu};
    use iced_x86::{Decoder, DecoderOptions, Formatter, NasmFormatter};

    fn status(entries: &[Entry]) -> Status {
        Status::of(true, true, entries, Proof::default())
    }

    #[test]
    fn the_test_program_is_a_plain_static_one() {
        let elf = goblin::elf::Elf::parse(PROBE).unwrap();
        assert_eq!((elf.header.e_type, elf.header.e_machine), (2, 62));
        assert_eq!(elf.interpreter, None);
        let plan = crate::elf::plan(PROBE).unwrap();
        assert!(!plan.relocatable && !plan.executable_stack);
        let load = &elf.program_headers[0];
        let code = &PROBE[(elf.entry - load.p_vaddr) as usize..];
        let mut formatter = NasmFormatter::new();
        let mut text = String::new();
        for instruction in
            Decoder::with_ip(64, code, elf.entry, DecoderOptions::NONE).iter().take(14)
        {
            formatter.format(&instruction, &mut text);
            text.push(';');
        }
        let message = load.p_vaddr + (PROBE.len() - PROBE_OUTPUT.len()) as u64;
        assert_eq!(
            text,
            format!(
                "mov eax,1;mov edi,1;lea rsi,[rel {message:X}h];mov edx,{:X}h;syscall;\
                 xor eax,eax;xor edi,edi;lea rsi,[rsp-80h];mov edx,1;syscall;\
                 mov eax,0E7h;xor edi,edi;syscall;ud2;",
                PROBE_OUTPUT.len()
            )
        );
        assert!(PROBE.ends_with(PROBE_OUTPUT.as_bytes()));
    }

    /// An x86_64 machine runs it by itself: the program's own file is what the process runs.
    #[test]
    #[cfg(target_arch = "x86_64")]
    fn the_test_program_runs() {
        let proof = prove();
        assert!(proof.is_correct(), "{proof:?}");
        assert!(proof.other_runner().unwrap().contains("x86_64 test"), "{proof:?}");
    }

    #[test]
    fn what_does_not_run_is_no_proof() {
        let observed = |script: &str| {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped());
            observe(command.spawn().unwrap())
        };
        // Not every cat(1) bears that nobody reads what it does not write.
        let right =
            format!("printf '{}'; cat >/dev/null", PROBE_OUTPUT.trim_end().to_owned() + "\\n");
        assert!(observed(&right).is_correct());
        for wrong in [format!("{right}; exit 3"), "echo x86_64".into(), format!("{right}; kill $$")]
        {
            let proof = observed(&wrong);
            assert!(!proof.is_correct() && proof.error.is_some(), "{wrong}: {proof:?}");
        }
    }

    #[test]
    fn reading_has_an_end() {
        let mut child = Command::new("/bin/sh")
            .args(["-c", "echo ab; cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let soon = Instant::now() + Duration::from_millis(300);
        assert_eq!(read_until(&mut stdout, 3, Instant::now() + PROBE_LIMIT).unwrap(), b"ab\n");
        let late = read_until(&mut stdout, 1, soon).unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        drop(child.stdin.take());
        assert_eq!(read_until(&mut stdout, 1, Instant::now() + PROBE_LIMIT).unwrap(), b"");
        child.wait().unwrap();
    }

    #[test]
    fn text_says_who_is_first() {
        let text = status(&[demotic(), qemu()]).text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1], "  demotic: /usr/bin/demotic, flags POCF, on");
        assert!(lines[2].starts_with("  qemu-x86_64: "));
        assert_eq!(lines[3], "taken for every kind of x86_64 program: demotic");
        // qemu's mask leaves AppImages alone.
        let text = status(&[qemu(), demotic()]).text();
        assert!(text.contains("taken for programs that are position-independent: qemu-x86_64\n"));
        assert!(text.contains("taken for programs that are AppImage: demotic\n"), "{text}");
    }

    #[test]
    fn nothing_registered_is_said() {
        assert!(status(&[]).text().contains("sudo demotic register"));
        let off = Status::of(true, false, &[demotic()], Proof::default());
        assert!(off.text().contains("turned off as a whole"));
        assert!(off.chosen.iter().all(|choice| choice.handler.is_none()));
        assert!(Status::of(false, false, &[], Proof::default()).text().contains("not mounted"));
    }

    #[test]
    fn json_has_the_same() {
        let value: serde_json::Value =
            serde_json::from_str(&json(&status(&[qemu(), demotic()]))).unwrap();
        assert_eq!(value["handlers"][0]["name"], "qemu-x86_64");
        assert_eq!(value["chosen"][4]["handler"], "demotic");
        assert_eq!(value["proof"]["by_this_demotic"], false);
    }
}
