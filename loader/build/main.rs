//! Builds the guest's vDSO and asks for a static position-independent executable.

mod link;
mod vdso;

use std::path::Path;

fn main() {
    println!("cargo:rerun-if-changed=build");
    let out = std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR");
    std::fs::write(Path::new(&out).join("vdso.so"), vdso::image()).expect("OUT_DIR is writable");
    link::static_pie();
}
