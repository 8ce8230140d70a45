//! The runner of whole programs itself: with stand-ins for the translator that translate nothing, one faithful,
//! the others each wrong in one way that must be reported.
#![cfg(target_arch = "x86_64")]

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

/// Takes the translator's options, records the program, and then does as `BODY` says.
const STAND_IN: &str = r#"#!/bin/sh
while :; do
    case $1 in
        --sysroot) shift 2 ;;
        --trace-exec) record=$2; shift 2 ;;
        *) break ;;
    esac
done
echo "$$ $1" >> "$record"
BODY
"#;

/// Runs `list` under a stand-in; returns what the runner printed.
fn programs(list: &str, body: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("programs.toml"), list).unwrap();
    fs::create_dir_all(path("programs/files")).unwrap();
    fs::write(path("programs/files/given"), "given\n").unwrap();
    fs::write(path("demotic"), STAND_IN.replace("BODY", body)).unwrap();
    fs::set_permissions(path("demotic"), fs::Permissions::from_mode(0o755)).unwrap();
    run(&path("demotic"), &path("programs.toml"), &path("work"))
}

fn run(demotic: &Path, list: &Path, work: &Path) -> String {
    let runner = Command::new(env!("CARGO_BIN_EXE_programs"))
        .arg("--demotic")
        .arg(demotic)
        .arg("--list")
        .arg(list)
        .arg("--work")
        .arg(work)
        .output()
        .unwrap();
    let printed = String::from_utf8(runner.stdout).unwrap();
    assert_eq!(runner.status.success(), printed.ends_with(", 0 failed\n"), "{printed}");
    printed
}

const ONE: &str = r#"
[[program]]
name = "files"
script = "cat given; echo two > written; exit 3"
status = 3
timeout = 20
"#;

#[track_caller]
fn fails_with(list: &str, body: &str, problem: &str) {
    let printed = programs(list, body);
    assert!(printed.contains(problem), "{printed}");
    assert!(printed.ends_with("0 passed, 1 failed\n"), "{printed}");
}

#[test]
fn programs_that_do_the_same_pass() {
    assert!(programs(ONE, r#"exec "$@""#).ends_with("1 passed, 0 failed\n"));
}

#[test]
fn different_output_is_shown() {
    fails_with(
        ONE,
        r#"echo more; exec "$@""#,
        "standard output differs (- native, + translated):\n    @@",
    );
}

#[test]
fn a_different_exit_status_is_shown() {
    fails_with(ONE, r#""$@"; exit 4"#, "ended with exit status 4, not with status 3");
}

#[test]
fn different_files_are_shown() {
    fails_with(ONE, r#""$@"; echo three > written; exit 3"#, "    -two\n    +three\n");
    fails_with(ONE, r#""$@"; rm written; exit 3"#, "written was not written");
    fails_with(ONE, r#""$@"; : > more; exit 3"#, "more should not be there");
    fails_with(ONE, r#""$@"; chmod 700 written; exit 3"#, "written has mode 700, not");
}

#[test]
fn a_child_that_was_not_translated_is_shown() {
    let list = ONE.replace("timeout", "children = [\"cat\"]\ntimeout");
    fails_with(&list, r#"exec "$@""#, "never seen translated: cat");
}

#[test]
fn a_program_that_varies_is_no_test() {
    let list = "[[program]]\nname = 'files'\nscript = 'date +%N; echo $$'\ntimeout = 20\n";
    fails_with(list, r#"exec "$@""#, "does not do the same twice");
}

#[test]
fn the_time_limit_ends_a_run() {
    let list = ONE.replace("20", "1");
    fails_with(
        &list,
        r#"[ -d ../native ] && exec sleep 60; exec "$@""#,
        "ended with the time limit",
    );
}
