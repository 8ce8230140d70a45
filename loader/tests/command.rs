//! The command as its user sees it when there is nothing to run.

use std::fs;
use std::process::{Command, Output};

/// The environment variable that cargo takes the runner of foreign programs from.
const RUNNER: &str = "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER";

fn demotic(arguments: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_demotic");
    let runner = if cfg!(target_arch = "aarch64") {
        std::env::var(RUNNER).ok()
    } else {
        None
    };
    let mut words: Vec<&str> = runner.iter().flat_map(|r| r.split_whitespace()).collect();
    words.push(program);
    words.extend(arguments);
    Command::new(words[0])
        .args(&words[1..])
        .output()
        .expect("demotic starts")
}

/// Runs something that is no program; gives the exit status and the one line of the message.
fn refused(path: &str) -> (i32, String) {
    let output = demotic(&[path]);
    let message = String::from_utf8(output.stderr).unwrap();
    let start = format!("demotic: {path}: ");
    assert_eq!(message.lines().count(), 1, "{message}");
    let text = message
        .strip_prefix(&start)
        .unwrap_or_else(|| panic!("{message}"));
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

#[test]
fn a_wrong_command_line() {
    for arguments in [
        &[][..],
        &["--no-such-option", "/bin/true"],
        &["--exec-fd", "-1", "/x"],
    ] {
        let output = demotic(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(!output.stderr.is_empty());
    }
}

#[test]
fn help_and_version_go_to_standard_output() {
    let version = demotic(&["--version"]);
    assert_eq!(version.status.code(), Some(0));
    assert_eq!(
        version.stdout,
        format!("demotic {}\n", env!("CARGO_PKG_VERSION")).as_bytes()
    );
    let help = demotic(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    assert!(
        String::from_utf8(help.stdout)
            .unwrap()
            .contains("Exit status:")
    );
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
