//! Builds the guest's vDSO and the test program, and asks for a static position-independent executable.

mod elf;
mod link;
mod probe;
mod vdso;

use std::path::Path;

fn main() {
    println!("cargo:rerun-if-changed=build");
    let out = std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR");
    for (name, image) in [("vdso.so", vdso::image()), ("probe", probe::image())] {
        std::fs::write(Path::new(&out).join(name), image).expect("OUT_DIR is writable");
    }
    link::static_pie();
}
