//! The code that is emitted for the important patterns, pinned in `tests/golden/*.txt`.
//!
//! A file begins with comment lines and lines of guest code in hexadecimal (`= 48 01 d8`); behind the line `---` stands the
//! expected listing. `UPDATE_GOLDEN=1 cargo test -p translator --test golden` rewrites the listings: read the difference
//! before committing it.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;
use translator::dump;
use translator::engine::{Config, GuestMemory, HostFeatures, MemoryOrder};

/// Where the code is put, so that listings do not depend on the machine.
const BASE: u64 = 0x1000_0000;

struct Code(u64);

impl GuestMemory for Code {
    fn executable_from(&self, addr: u64) -> u64 {
        (BASE + self.0).saturating_sub(addr.max(BASE)).min(4096)
    }
    fn watch(&self, _start: u64, _end: u64) {}
}

fn listing(code: &[u8], features: HostFeatures, order: MemoryOrder, misaligned: bool) -> String {
    // SAFETY: a new private mapping at an address that is free in a test process; the copy stays inside.
    unsafe {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let p = libc::mmap(BASE as *mut _, 65536, prot, flags, -1, 0);
        assert_eq!(p as u64, BASE);
        std::ptr::copy_nonoverlapping(code.as_ptr(), BASE as *mut u8, code.len());
    }
    let config = Config { order, host: features, ..Config::default() };
    let memory = Code(code.len() as u64);
    let known =
        if misaligned { (BASE..BASE + code.len() as u64).collect() } else { BTreeSet::new() };
    let made = dump::translate_knowing(&memory, BASE, &config, &known).expect("there is code");
    dump::text(&made.region, &made.asm, &made.emitted)
}

#[test]
fn emitted_code_is_as_pinned() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut files: Vec<_> =
        std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden"))
            .expect("the folder is there")
            .map(|e| e.expect("readable").path())
            .collect();
    files.sort();
    assert!(!files.is_empty());
    let mut wrong = String::new();
    for path in files {
        let text = std::fs::read_to_string(&path).expect("readable");
        let (head, expected) = text.split_once("---\n").expect("a file has a line ---");
        let bytes: Vec<u8> = head
            .lines()
            .filter_map(|l| l.strip_prefix("= "))
            .flat_map(|l| l.split(';').next().unwrap_or("").split_whitespace())
            .map(|b| u8::from_str_radix(b, 16).expect("hexadecimal"))
            .collect();
        let flagm = HostFeatures {
            flagm: true,
            flagm2: true,
            lse: true,
            sha2: true,
            aes: true,
            lrcpc: true,
            lrcpc2: true,
            ..Default::default()
        };
        let order =
            if head.contains("ordered") { MemoryOrder::Ordered } else { MemoryOrder::Plain };
        let got = listing(&bytes, flagm, order, head.contains("misaligned"));
        if update {
            std::fs::write(&path, format!("{head}---\n{got}")).expect("writable");
        } else if got != expected {
            let _ = writeln!(wrong, "{}:\nexpected\n{expected}\ngot\n{got}", path.display());
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}
