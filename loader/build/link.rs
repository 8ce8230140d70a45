//! rustc links `+crt-static` for arm64 glibc with `-static -no-pie`, at a fixed address that a guest
//! may want. This links it as gcc's `-static-pie` would: the start files for it, and `-pie` after
//! rustc's `-no-pie` (the last one counts).

use std::env::var;
use std::process::Command;

/// Prints the link arguments, if the target is the one they are for.
pub fn static_pie() {
    println!("cargo:rerun-if-env-changed=RUSTC_LINKER");
    let is = |key: &str, value: &str| var(key).is_ok_and(|v| v == value);
    let target = is("CARGO_CFG_TARGET_ARCH", "aarch64") && is("CARGO_CFG_TARGET_ENV", "gnu");
    let features = var("CARGO_CFG_TARGET_FEATURE").unwrap_or_default();
    if !target {
        return;
    }
    if !features.split(',').any(|f| f == "crt-static") {
        println!("cargo:warning=RUSTFLAGS hides .cargo/config.toml: demotic will not be static");
        return;
    }
    let linker = var("RUSTC_LINKER").unwrap_or_else(|_| "cc".into());
    let arg = |a: &str| println!("cargo:rustc-link-arg-bins={a}");
    arg("-nostartfiles");
    for file in ["rcrt1.o", "crti.o", "crtbeginS.o"] {
        arg(&start_file(&linker, file));
    }
    arg("-Wl,-pie,--no-dynamic-linker,-z,text");
    for file in ["crtendS.o", "crtn.o"] {
        arg(&start_file(&linker, file));
    }
}

/// Where the compiler driver keeps one of its start files.
fn start_file(linker: &str, name: &str) -> String {
    let out = Command::new(linker)
        .arg(format!("-print-file-name={name}"))
        .output()
        .unwrap_or_else(|e| panic!("cannot run the linker {linker}: {e}"));
    let path = String::from_utf8_lossy(&out.stdout).trim().to_owned();
    assert!(path.contains('/'), "{linker} has no {name}: install the static C library (libc6-dev)");
    path
}
