//! The command as its user sees it when there is nothing to run.

use std::fs;
use std::process::{Command, Output};

/// The environment variable that cargo takes the runner of foreign programs from.
const RUNNER: &str = "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER";

fn demotic(arguments: &[&str]) -> Output {
    command(arguments).output().expect("demotic starts")
}

fn command(arguments: &[&str]) -> Command {
    let program = env!("CARGO_BIN_EXE_demotic");
    let runner = if cfg!(target_arch = "aarch64") { std::env::var(RUNNER).ok() } else { None };
    let mut words: Vec<&str> = runner.iter().flat_map(|r| r.split_whitespace()).collect();
    words.push(program);
    words.extend(arguments);
    let mut command = Command::new(words[0]);
    command.args(&words[1..]);
    command
}

/// Runs something that is no program; gives the exit status and the one line of the message.
fn refused(path: &str) -> (i32, String) {
    let output = demotic(&[path]);
    let message = String::from_utf8(output.stderr).unwrap();
    let start = format!("demotic: {path}: ");
    assert_eq!(message.lines().count(), 1, "{message}");
    let text = message.strip_prefix(&start).unwrap_or_else(|| panic!("{message}"));
    assert!(text.contains("; "), "says what to do: {text}");
    (output.status.code().expect("no signal"), text.to_owned())
}

#[test]
fn what_is_not_there() {
    let (status, message) = refused("/nonexistent/program");
    assert_eq!(status, 127);
    assert!(message.contains("No such file"), "{message}");
}

#[test]
fn what_cannot_be_executed() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, contents: &[u8]| {
        let path = directory.path().join(name);
        fs::write(&path, contents).unwrap();
        refused(path.to_str().unwrap())
    };
    assert_eq!(refused("/").0, 126);
    for (name, contents, text) in [
        ("empty", &b""[..], "not an ELF file"),
        ("text", b"hello", "not an ELF file"),
        ("script", b"#!/bin/sh\n", "is a script"),
        ("cut", b"\x7fELF\x02\x01\x01", "cut short"),
    ] {
        let (status, message) = file(name, contents);
        assert_eq!(status, 126, "{name}");
        assert!(message.contains(text), "{message}");
    }
}

/// Bytes of the headers of a program of so many segments.
const fn headers(segments: usize) -> usize {
    64 + 56 * segments
}

/// An x86_64 program: segments of a type, an offset in the file and a length, then what stands behind the headers, where
/// it begins to be executed.
fn program(segments: &[(u32, usize, usize)], content: &[u8]) -> Vec<u8> {
    const BASE: usize = 0x40_0000;
    let segment = |&(kind, offset, size): &(u32, usize, usize)| {
        let words = [offset, BASE, 0, size, size, 0x1000].map(|w| (w as u64).to_le_bytes());
        [&kind.to_le_bytes()[..], &5u32.to_le_bytes(), words.as_flattened()].concat()
    };
    let halves = |values: &[u16]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>();
    let entry = (BASE + headers(segments.len())) as u64;
    [
        b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0",
        &halves(&[2, 62, 1, 0])[..], // e_type, e_machine, e_version
        &[entry, 64, 0].map(u64::to_le_bytes).concat(), // e_entry, e_phoff, e_shoff
        &halves(&[0, 0, 64, 56, segments.len() as u16, 0, 0, 0]),
        &segments.iter().flat_map(segment).collect::<Vec<_>>(),
        content,
    ]
    .concat()
}

const PT_LOAD: u32 = 1;
const PT_INTERP: u32 = 3;

/// A program of nothing but headers that asks for an interpreter.
fn program_with_interpreter(path: &str) -> Vec<u8> {
    let segments = [(PT_LOAD, 0, headers(2)), (PT_INTERP, headers(2), path.len() + 1)];
    program(&segments, format!("{path}\0").as_bytes())
}

#[test]
fn interpreters_that_cannot_be_used() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("program");
    let with_interpreter = |path: &str| {
        fs::write(&program, program_with_interpreter(path)).unwrap();
        refused(program.to_str().unwrap())
    };
    let (status, message) = with_interpreter("/nonexistent/ld.so");
    assert_eq!(status, 127);
    assert!(message.contains("/nonexistent/ld.so was not found"), "{message}");
    let text = directory.path().join("text");
    fs::write(&text, "hello").unwrap();
    let (status, message) = with_interpreter(text.to_str().unwrap());
    assert_eq!(status, 126);
    assert!(message.contains("text is not an ELF file"), "{message}");
}

#[test]
fn a_wrong_command_line() {
    for arguments in [&[][..], &["--no-such-option", "/bin/true"], &["--exec-fd", "-1", "/x"]] {
        let output = demotic(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(!output.stderr.is_empty());
    }
}

#[test]
fn help_and_version_go_to_standard_output() {
    let version = demotic(&["--version"]);
    assert_eq!(version.status.code(), Some(0));
    assert_eq!(version.stdout, format!("demotic {}\n", env!("CARGO_PKG_VERSION")).as_bytes());
    let help = demotic(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    assert!(String::from_utf8(help.stdout).unwrap().contains("Exit status:"));
}

/// binfmt_misc's F flag and chroots need a program that needs no other file, and a guest may want
/// any address.
#[test]
#[cfg(all(target_arch = "aarch64", target_env = "gnu"))]
fn is_a_static_position_independent_executable() {
    let bytes = fs::read(env!("CARGO_BIN_EXE_demotic")).unwrap();
    let elf = goblin::elf::Elf::parse(&bytes).unwrap();
    assert_eq!(elf.header.e_type, goblin::elf::header::ET_DYN);
    assert_eq!(elf.interpreter, None);
    assert!(elf.libraries.is_empty(), "needs {:?}", elf.libraries);
}

#[test]
#[cfg(target_arch = "aarch64")]
fn perf_is_told_of_translated_code() {
    // mov eax, exit_group; xor edi, edi; syscall
    let code = [0xb8, 231, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05];
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("program");
    fs::write(&path, program(&[(PT_LOAD, 0, headers(1) + code.len())], &code)).unwrap();
    let arguments = ["--perf-map", "--jit-dump", "--interpret", "0", path.to_str().unwrap()];
    let mut child = command(&arguments).spawn().unwrap();
    assert!(child.wait().unwrap().success());
    let map = format!("/tmp/perf-{}.map", child.id());
    let text = fs::read_to_string(&map).unwrap();
    fs::remove_file(map).unwrap();
    let [start, length, name] = text.split_whitespace().collect::<Vec<_>>()[..] else {
        panic!("one region: {text}");
    };
    assert!(u64::from_str_radix(start, 16).unwrap() > 0);
    assert!(u64::from_str_radix(length, 16).unwrap() >= 4 * 3);
    assert_eq!(name, "program+0x78");
    // A header of 40 bytes, and one record: its length, where the code is, and its name.
    let dump = format!("/tmp/jit-{}.dump", child.id());
    let bytes = fs::read(&dump).unwrap();
    fs::remove_file(dump).unwrap();
    let record = &bytes[40..];
    assert_eq!(record[4..8], (record.len() as u32).to_le_bytes());
    assert_eq!(record[24..32], u64::from_str_radix(start, 16).unwrap().to_le_bytes());
    assert!(record[56..].starts_with(b"program+0x78\0"));
}

/// Where translated code runs, the test program does, and doctor says so.
#[test]
fn doctor_tries_a_program() {
    let output = demotic(&["doctor", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let trial = report["checks"].as_array().unwrap().last().unwrap();
    assert_eq!(trial["name"], "a test program");
    let runs = cfg!(target_arch = "aarch64");
    assert_eq!(trial["level"] == "ok", runs, "{trial}");
    assert_eq!(report["programs_run"], runs, "{report}");
    assert_eq!(output.status.code(), Some(i32::from(!runs)));
}

#[test]
fn doctor_reads_well() {
    let text = String::from_utf8(demotic(&["doctor"]).stdout).unwrap();
    for group in ["processor\n", "memory\n", "kernel\n", "limits\n", "demotic\n"] {
        assert!(text.contains(group), "{text}");
    }
    assert!(text.lines().last().unwrap().starts_with("x86_64 programs "), "{text}");
}

#[test]
fn rules_are_printed_without_changing_anything() {
    let text = String::from_utf8(demotic(&["register", "--print"]).stdout).unwrap();
    if cfg!(target_arch = "x86_64") {
        // What is built for this machine's own processor is not static.
        assert_eq!(text, "");
        return;
    }
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("# systemd-binfmt"), "{text}");
    assert!(
        lines[1].starts_with(":demotic:M:0:\\x7f\\x45") && lines[1].ends_with(":POCF"),
        "{text}"
    );
    assert!(lines[3].starts_with("update-binfmts --install demotic /"), "{text}");
}
