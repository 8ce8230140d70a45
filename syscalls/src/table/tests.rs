//! The table against the kernel's own list.

use std::collections::BTreeMap;
use std::path::Path;

use super::*;

/// Linux's system calls: x86_64 number, name, arm64 number, prototype.
const LINUX: &str = include_str!("linux.tsv");

struct Row {
    number: u32,
    name: &'static str,
    host: Option<u32>,
    prototype: &'static str,
}

fn linux() -> impl Iterator<Item = Row> {
    LINUX.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let mut fields = line.split('\t');
        let mut field = || fields.next().unwrap();
        Row {
            number: field().parse().unwrap(),
            name: field(),
            host: field().parse().ok(),
            prototype: field(),
        }
    })
}

#[test]
fn every_call_of_the_kernel_has_its_row() {
    assert_eq!(linux().count(), CALLS.len());
    for row in linux() {
        let call = lookup(row.number).unwrap_or_else(|| panic!("{} is missing", row.name));
        assert_eq!((call.number, call.name, call.host), (row.number, row.name, row.host));
    }
}

#[test]
fn rows_are_in_order_and_found() {
    assert!(CALLS.is_sorted_by_key(|call| call.number));
    assert!(CALLS.last().unwrap().number < UNKNOWN);
    assert!(lookup(337).is_none());
    assert!(lookup(UNKNOWN).is_none());
    assert!(lookup(u32::MAX).is_none());
}

#[test]
fn only_calls_the_host_has_are_passed() {
    for call in CALLS {
        assert!(call.host.is_some() || !matches!(call.handling, Handling::Pass), "{}", call.name);
    }
}

/// How wide the kernel takes an argument of a C type.
fn width_of(c_type: &str) -> Option<bool> {
    let c_type = c_type.trim();
    if c_type.contains('*') {
        return Some(true);
    }
    // The parameter's name, where there is one, is the last word.
    let words: Vec<&str> = c_type.split(' ').collect();
    let wide = ["long", "size_t", "off_t", "loff_t", "aio_context_t"];
    let narrow = [
        "int",
        "unsigned",
        "u32",
        "__u32",
        "uint32_t",
        "__s32",
        "pid_t",
        "uid_t",
        "gid_t",
        "qid_t",
        "umode_t",
        "clockid_t",
        "timer_t",
        "mqd_t",
        "key_t",
        "key_serial_t",
        "rwf_t",
        "enum",
    ];
    match () {
        () if words.iter().any(|word| wide.contains(word)) => Some(true),
        () if words.iter().any(|word| narrow.contains(word)) => Some(false),
        () => None,
    }
}

#[test]
fn arguments_are_as_many_and_as_wide_as_the_kernel_takes() {
    for row in linux() {
        let call = lookup(row.number).unwrap();
        if matches!(row.prototype, "?" | "void") {
            continue;
        }
        // The listed prototypes of these are the kernel's inner or 32-bit ones.
        if matches!(row.name, "rt_sigreturn" | "fanotify_mark" | "ioperm") {
            continue;
        }
        let c_types: Vec<&str> = row.prototype.split(',').collect();
        assert_eq!(call.args.len(), c_types.len(), "{}", row.name);
        for (arg, c_type) in call.args.iter().zip(c_types) {
            // Descriptors the kernel declares long are cut to int further in.
            if matches!(arg.ty, Type::Fd) && c_type.contains("unsigned long fd") {
                continue;
            }
            let wide = arg.ty.width() == Width::U64;
            assert_eq!(Some(wide), width_of(c_type).or(Some(wide)), "{}: {}", row.name, arg.name);
        }
    }
}

/// The programs that the lists of tests name for each call (`calls` in `programs.toml`).
fn tested_by() -> BTreeMap<String, Vec<String>> {
    let mut by: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for list in ["programs.toml", "vm/programs.toml"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests").join(list);
        let text = std::fs::read_to_string(&path).unwrap();
        let table: toml::Table = text.parse().unwrap();
        for program in table["program"].as_array().unwrap() {
            let name = program["name"].as_str().unwrap();
            let listed = program.get("calls").and_then(|calls| calls.as_array());
            let listed = listed.into_iter().flatten().map(|call| call.as_str().unwrap());
            let every = program.get("every_call").map(|_| CALLS).unwrap_or_default();
            for call in listed.chain(every.iter().map(|call| call.name)) {
                by.entry(call.to_owned()).or_default().push(name.to_owned());
            }
        }
    }
    by
}

#[test]
fn tests_name_calls_that_there_are() {
    for (name, programs) in tested_by() {
        assert!(CALLS.iter().any(|call| call.name == name), "{name} of {programs:?}");
    }
}

/// The documentation page, from the table.
fn page() -> String {
    let tested_by = tested_by();
    let mut page = String::from(
        "# System calls\n\n\
         Generated from `syscalls/src/table/calls.rs`; `UPDATE_DOCS=1 cargo test -p syscalls` writes it anew, and\n\
         `demotic syscalls` prints what is in it.\n\n\
         - **pass**: the arm64 kernel's call of the same name does it\n\
         - **convert**: goes to the arm64 kernel with arguments or results converted\n\
         - **emulate**: answered, wholly or in some cases, without the arm64 kernel\n\
         - **refuse**: fails as on an x86_64 kernel that lacks the feature\n\
         - **missing**: not there yet: ENOSYS and a line in the log\n\n\
         *Tested by* names programs of the lists in [tests](../tests) that are seen to make the call, and to get an\n\
         answer other than ENOSYS. `every-call` makes each once, with harmless arguments, and must get the answer that\n\
         the same kernel gives an arm64 program, or an x86_64 kernel a native one; of a call that is refused, the error\n\
         named here. `bad-pointers` does so with ten kinds of bad pointers in place of each that a call takes.\n\n\
         What the kernel's own tests say of them stands in [selftests.md](selftests.md).\n\n\
         Numbers from 472 on are newer than this table and go to the kernel as they are.\n\n\
         What is different:\n\n\
         - An address that no x86_64 program can have (2^47 and up) is a bad one, in arguments and in the structures that\n  \
           they point to; in those of ioctl(2), where the request is a common one ([ioctl.rs](../syscalls/src/pointers/ioctl.rs)).\n  \
           In a driver's own structures, and in programs of bpf(2), it may be the translator's memory.\n\
         - A program that serves a FUSE file system and reads the kernel's requests through io_uring, or with io_submit(2),\n  \
           finds the open flags of arm64 in them. FUSE over io_uring is not offered (FUSE_OVER_IO_URING).\n\
         - perf_event_open(2) counts what the kernel counts. An event of an x86 processor (PERF_TYPE_RAW) is ENOENT; samples\n  \
           of registers and breakpoints in code are EOPNOTSUPP, with a line in the log. The addresses of code in samples are\n  \
           those of translated code (`--perf-map` names it).\n\
         - More stands in [io-uring.md](io-uring.md), [seccomp.md](seccomp.md), [exec.md](exec.md) and [pages.md](pages.md).\n\n",
    );
    for level in ["pass", "convert", "emulate", "refuse", "missing"] {
        let count = CALLS.iter().filter(|call| call.handling.level() == level).count();
        page += &format!("{count} {level}. ");
    }
    page += &format!("{} of {} with a test.", tested_by.len(), CALLS.len());
    page += "\n\n| number | arm64 | call | handling | remark | tested by |\n|---:|---:|---|---|---|---|\n";
    for call in CALLS {
        let host = call.host.map_or("-".into(), |host| host.to_string());
        let args: Vec<&str> = call.args.iter().map(|arg| arg.name).collect();
        let level = match &call.handling {
            handling @ Handling::Refuse(_) => format!("refuse: {}", handling.error().unwrap()),
            handling => handling.level().into(),
        };
        page += &format!(
            "| {} | {host} | {}({}) | {level} | {} | {} |\n",
            call.number,
            call.name,
            args.join(", "),
            call.note,
            tested_by.get(call.name).map_or(String::new(), |by| by.join(", "))
        );
    }
    page
}

/// What an argument is to the programs of `tests/vm` that make every call.
fn kind(ty: Type) -> &'static str {
    match ty {
        Type::Fd => "DESCRIPTOR",
        Type::DirFd => "FOLDER",
        Type::Pid => "PROCESS",
        Type::Path | Type::LinkPath => "PATH",
        Type::Str => "TEXT",
        Type::Ptr => "PLACE",
        Type::In(_) => "READ",
        Type::Out(_) | Type::IpcArg(_) => "WRITTEN",
        ty if ty.is_address() => "WORD",
        _ => "NUMBER",
    }
}

/// The table for those programs.
fn header() -> String {
    let mut header = String::from(
        "/* Generated from syscalls/src/table/calls.rs; `UPDATE_DOCS=1 cargo test -p syscalls` writes it anew.\n \
         * x86_64 number, arm64 number, name, the error it is refused with (-1: it is missing), arguments. */\n",
    );
    for call in CALLS {
        let refused = match call.handling {
            Handling::Refuse(Errno(error)) => error,
            Handling::Missing => -1,
            _ => 0,
        };
        let host = call.host.map_or(-1, i64::from);
        let args = call.args.iter().map(|arg| format!("{{\"{}\", {}}}", arg.name, kind(arg.ty)));
        let args: Vec<_> = args.collect();
        header += &format!(
            "{{{}, {host}, \"{}\", {refused}, {{{}}}}},\n",
            call.number,
            call.name,
            args.join(", ")
        );
    }
    header
}

#[test]
fn what_is_generated_is_up_to_date() {
    for (name, text) in [("docs/syscalls.md", page()), ("tests/vm/calls.h", header())] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(written == text, "{name} is stale: UPDATE_DOCS=1 cargo test -p syscalls");
    }
}

/// What the guest left in the upper half of a register does not pass, and the type says what is there instead.
#[test]
fn extension_follows_the_c_type() {
    let raw = 0xdead_beef_ffff_ff9c;
    let (signed, unsigned) = (-100i64 as u64, 0xffff_ff9c);
    for call in CALLS {
        let args = call.extend([raw; 6]);
        for (arg, value) in call.args.iter().zip(args) {
            let wanted = match arg.ty.width() {
                Width::I32 => signed,
                Width::U32 => unsigned,
                Width::U64 => raw,
            };
            assert_eq!(value, wanted, "{} of {}", arg.name, call.name);
        }
        assert!(args[call.args.len()..].iter().all(|&value| value == raw), "{}", call.name);
    }
}
