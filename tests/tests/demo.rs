//! The committed demo is what its source says.
#![cfg(target_arch = "x86_64")]

use std::{fs, path::Path, process::Command};

/// The compiler a program was built with, from its `.comment` section.
fn compiler(program: &[u8]) -> &[u8] {
    let start = program.windows(5).position(|bytes| bytes == b"GCC: ").expect("a .comment section");
    let length =
        program[start..].iter().position(|&byte| byte == 0).expect("the end of the string");
    &program[start..start + length]
}

#[test]
fn the_demo_is_what_its_source_says() {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo");
    let folder = tempfile::tempdir().unwrap();
    let rebuilt = folder.path().join("demo");
    let build = Command::new(demo.join("build")).arg(&rebuilt).status().unwrap();
    assert!(build.success());
    let committed = fs::read(demo.join("demo")).unwrap();
    let rebuilt = fs::read(rebuilt).unwrap();
    if compiler(&committed) == compiler(&rebuilt) {
        assert!(
            committed == rebuilt,
            "tests/demo/demo is not what tests/demo/build makes of its source"
        );
    } else {
        eprintln!("another compiler than the demo was built with: only that it builds was tested");
    }
}

#[test]
fn a_native_kernel_answers_every_call_of_the_demo() {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/demo");
    let output = Command::new(demo).output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{printed}");
    for call in ["pidfd_open", "pidfd_getfd", "pidfd_send_signal", "waitid(P_PIDFD)"] {
        assert!(
            printed.lines().any(|line| line.starts_with(call) && line.ends_with(": works")),
            "{printed}"
        );
    }
}
