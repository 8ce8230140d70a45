//! Arguments as text.

use std::fmt::Write;

use super::names;
use crate::abi::time::{Itimerspec, Itimerval, Timespec, Timeval};
use crate::abi::{AT_FDCWD, PATH_MAX};
use crate::guest;
use crate::host::{Errno, SysResult};
use crate::table::{Call, Names, Shape, Type, Width, guest as nr};

mod data;
mod options;
mod shapes;
pub mod siginfo;

/// Bytes of a string or buffer that are shown, as strace(1)'s `-s 32`.
const SHOWN: usize = 32;

/// How many arguments the kernel looks at: some depend on others.
pub fn count(call: &Call, args: &[u64; 6]) -> usize {
    /// O_CREAT and O_TMPFILE without O_DIRECTORY.
    const CREATES: u64 = 0o20000100;
    const MREMAP_FIXED: u64 = 2;
    let all = call.args.len();
    match u64::from(call.number) {
        nr::open if args[1] & CREATES == 0 => 2,
        nr::openat if args[2] & CREATES == 0 => 3,
        nr::mq_open if args[1] & CREATES == 0 => 2,
        nr::mremap if args[3] & MREMAP_FIXED == 0 => 4,
        // PR_SET_PDEATHSIG PR_GET_DUMPABLE PR_SET_DUMPABLE PR_SET_NAME PR_GET_NAME PR_GET_SECCOMP
        nr::prctl if matches!(args[0], 1 | 4 | 15 | 16) => 2,
        nr::prctl if matches!(args[0], 3 | 21) => 1,
        // F_GETFD F_GETFL F_GETOWN F_GETSIG F_GETLEASE F_GETPIPE_SZ F_GET_SEALS
        nr::fcntl if matches!(args[1], 1 | 3 | 9 | 11 | 1025 | 1032 | 1034) => 2,
        nr::futex => match args[1] & 0x7f {
            // Those that wait, then the bit sets, then wake and unlock.
            0 | 6 | 13 => 4,
            9 | 10 => 6,
            1 | 7 | 8 => 3,
            _ => all,
        },
        _ => all,
    }
}

/// The text of argument `i` before the call; None if it is only known after it.
pub fn entering(call: &Call, args: &[u64; 6], i: usize) -> Option<String> {
    let value = args[i];
    let text = match call.args[i].ty {
        Type::Out(_) => return None,
        Type::In(shape) => pointed(value, || shapes::before(shape, args, i)),
        Type::Path | Type::LinkPath => pointed(value, || string(value, PATH_MAX)),
        Type::Str => pointed(value, || string(value, SHOWN)),
        Type::FcntlArg => return options::fcntl_before(args[i - 1], value),
        Type::IoctlArg => return options::ioctl_before(args[i - 1], value),
        Type::IpcArg(_) if is_ipc_stat(args[i - 1]) => return None,
        Type::SocketOption => plain(names::sockets::options(args[i - 1]), value),
        Type::PrctlArg => prctl_arg(args[i - 1], value),
        Type::FutexArg => futex_arg(args[i - 2], value),
        other => plain(other, value),
    };
    Some(text)
}

/// The text of an argument that the kernel wrote to.
pub fn leaving(call: &Call, args: &[u64; 6], i: usize, result: SysResult) -> String {
    match (call.args[i].ty, result) {
        (Type::Out(shape), Ok(value)) => pointed(args[i], || shapes::after(shape, args, i, value)),
        (Type::IpcArg(what), Ok(_)) => pointed(args[i], || data::one(what, args[i])),
        (Type::FcntlArg, Ok(_)) => options::fcntl_after(args[i - 1], args[i]),
        (Type::IoctlArg, Ok(_)) => options::ioctl_after(args[i - 1], args[i]),
        _ => pointer(args[i]),
    }
}

/// What a result means besides its number; nothing for most.
pub fn remark(call: &Call, args: &[u64; 6], result: u64) -> String {
    let found = match u64::from(call.number) {
        nr::poll | nr::ppoll | nr::select | nr::pselect6 if result == 0 => Ok("Timeout".into()),
        nr::poll | nr::ppoll => shapes::polled(args[0], args[1]),
        nr::personality => Ok(plain(names::PERSONALITY, result)),
        // PR_GET_DUMPABLE
        nr::prctl if args[0] == 3 && result == 1 => Ok("SUID_DUMP_USER".into()),
        nr::select | nr::pselect6 => shapes::selected(args),
        _ => return String::new(),
    };
    found.unwrap_or_default()
}

/// The arguments of clone(2), named and in strace(1)'s order.
pub fn clone(args: &[u64; 6], result: SysResult) -> Vec<Option<String>> {
    const CSIGNAL: u64 = 0xff;
    const CLONE_SETTLS: u64 = 0x8_0000;
    const PARENT: u64 = 0x1000 | 0x10_0000;
    const CHILD: u64 = 0x20_0000 | 0x100_0000;
    let [flags, stack, parent, child, tls, _] = *args;
    let mut names = Vec::new();
    if flags & !CSIGNAL != 0 {
        names.push(plain(names::UNSHARE, flags & !CSIGNAL));
    }
    if flags & CSIGNAL != 0 || names.is_empty() {
        names.push(signal(flags & CSIGNAL));
    }
    let mut texts =
        vec![format!("child_stack={}", pointer(stack)), format!("flags={}", names.join("|"))];
    if flags & PARENT != 0 {
        let number = |at| guest::read::<i32>(at).map(|number| format!("[{number}]"));
        let text =
            if result.is_ok() { pointed(parent, || number(parent)) } else { pointer(parent) };
        texts.push(format!("parent_tid={text}"));
    }
    if flags & CLONE_SETTLS != 0 {
        texts.push(format!("tls={tls:#x}"));
    }
    if flags & CHILD != 0 {
        texts.push(format!("child_tidptr={}", pointer(child)));
    }
    texts.into_iter().map(Some).collect()
}

/// The argument of rt_sigreturn(2), which is on the stack: the mask that comes back.
pub fn sigreturn(sp: u64) -> Option<String> {
    /// `uc_sigmask` of x86_64's ucontext.
    const SIGMASK: u64 = 296;
    let mask = guest::read(sp.wrapping_add(SIGMASK)).ok()?;
    Some(format!("{{mask={}}}", shapes::sigset(mask)))
}

/// What is behind a pointer, or the pointer itself where that cannot be read.
fn pointed(addr: u64, text: impl FnOnce() -> Result<String, Errno>) -> String {
    let text = if addr == 0 { None } else { text().ok() };
    text.unwrap_or_else(|| pointer(addr))
}

fn pointer(addr: u64) -> String {
    if addr == 0 { "NULL".into() } else { format!("{addr:#x}") }
}

/// A value that is not followed anywhere.
pub fn plain(ty: Type, value: u64) -> String {
    match ty {
        Type::Named(Width::U32, _) if value == u64::from(u32::MAX) => format!("{value:#x}"),
        Type::Named(_, names) => named(names, value),
        Type::AtFlags => plain(names::AT, value),
        Type::Hex | Type::Word | Type::Hex32 if value == 0 => "0".into(),
        Type::Signal => signal(value),
        Type::DirFd if value as i32 == AT_FDCWD => "AT_FDCWD".into(),
        Type::Mode => format!("0{value:02o}"),
        Type::Dev => format!(
            "makedev({:#x}, {:#x})",
            value >> 8 & 0xfff,
            value & 0xff | value >> 12 & 0xfff00
        ),
        Type::Uid if value as u32 == u32::MAX => "-1".into(),
        Type::Uint | Type::Ulong | Type::Uid => value.to_string(),
        Type::Hex | Type::Word | Type::Hex32 => format!("{value:#x}"),
        Type::Int | Type::Fd | Type::DirFd | Type::Pid => (value as i32).to_string(),
        Type::Long => (value as i64).to_string(),
        _ => pointer(value),
    }
}

/// Names of the value and the flags, the rest in hexadecimal.
fn named(names: &Names, value: u64) -> String {
    let mut parts = Vec::new();
    let mut rest = value;
    if names.mask != 0 || value == 0 {
        let masked = value & names.mask;
        if let Some((_, name)) = names.values.iter().find(|(known, _)| *known == masked) {
            parts.push((*name).to_string());
            rest &= !names.mask;
        }
    }
    for (flag, name) in names.flags {
        if rest & flag == *flag {
            parts.push((*name).to_string());
            rest &= !flag;
        }
    }
    if rest & names.mode != 0 {
        parts.push(plain(Type::Mode, rest & names.mode));
        rest &= !names.mode;
    }
    if rest != 0 || parts.is_empty() {
        parts.push(if rest == 0 { "0".into() } else { format!("{rest:#x}") });
    }
    parts.join("|")
}

/// A signal's name, without anything for the numbers it has none for.
pub fn signal(number: u64) -> String {
    match names::SIGNALS.get((number as usize).wrapping_sub(1)) {
        Some(name) => format!("SIG{name}"),
        None if number == 32 => "SIGRTMIN".into(),
        None if (32..=64).contains(&number) => format!("SIGRT_{}", number - 32),
        None => (number as i32).to_string(),
    }
}

fn string(addr: u64, max: usize) -> Result<String, Errno> {
    let mut bytes = Vec::new();
    while bytes.len() <= max {
        match guest::read::<u8>(addr + bytes.len() as u64)? {
            0 => return Ok(quoted(&bytes, false)),
            byte => bytes.push(byte),
        }
    }
    Ok(quoted(&bytes[..max], true))
}

/// Bytes in quotes, with C escapes.
fn quoted(bytes: &[u8], cut: bool) -> String {
    let mut text = String::from("\"");
    for (i, &byte) in bytes.iter().enumerate() {
        match byte {
            b'"' | b'\\' => text.extend(['\\', byte as char]),
            b'\n' => text += "\\n",
            b'\t' => text += "\\t",
            b'\r' => text += "\\r",
            0x0b => text += "\\v",
            0x0c => text += "\\f",
            b' '..=b'~' => text.push(byte as char),
            // Three digits where the next character would be taken for one more.
            _ if bytes.get(i + 1).is_some_and(u8::is_ascii_digit) => {
                let _ = write!(text, "\\{byte:03o}");
            }
            _ => {
                let _ = write!(text, "\\{byte:o}");
            }
        }
    }
    text += if cut { "\"..." } else { "\"" };
    text
}

/// Commands of shmctl(2) and msgctl(2) that fill their buffer: IPC_STAT and its kin.
fn is_ipc_stat(command: u64) -> bool {
    matches!(command & 0xff, 2 | 13 | 15)
}

/// prctl(2): the thread's name, a signal, or a number.
fn prctl_arg(option: u64, value: u64) -> String {
    const PR_SET_PDEATHSIG: u64 = 1;
    const PR_SET_NAME: u64 = 15;
    match option {
        PR_SET_PDEATHSIG => signal(value),
        PR_SET_NAME => pointed(value, || string(value, 15)),
        _ => plain(Type::Hex, value),
    }
}

/// futex(2): a timeout where the call waits, a number where it requeues.
fn futex_arg(operation: u64, value: u64) -> String {
    match operation & 0x7f {
        0 | 6 | 9 | 11 | 13 => pointed(value, || shapes::timespec(value)),
        _ => pointer(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::errno;
    use crate::table::lookup;

    /// A call's arguments as they are printed.
    fn text(number: u64, args: [u64; 6], result: SysResult) -> String {
        let call = lookup(number as u32).unwrap();
        let texts = (0..count(call, &args))
            .map(|i| entering(call, &args, i).unwrap_or_else(|| leaving(call, &args, i, result)));
        texts.collect::<Vec<_>>().join(", ")
    }

    fn at<T>(value: &T) -> u64 {
        (&raw const *value) as u64
    }

    #[test]
    fn names_of_files_and_flags() {
        let path = at(b"/etc/x\n\x01\0");
        let here = AT_FDCWD as u64;
        assert_eq!(
            text(nr::openat, [here, path, 0o2200000, 0, 0, 0], Ok(3)),
            r#"AT_FDCWD, "/etc/x\n\1", O_RDONLY|O_DIRECTORY|O_CLOEXEC"#
        );
        assert_eq!(
            text(nr::open, [path, 0o102, 0o644, 0, 0, 0], Ok(3)),
            r#""/etc/x\n\1", O_RDWR|O_CREAT, 0644"#
        );
        assert_eq!(text(nr::open, [0, 0, 0, 0, 0, 0], Ok(3)), "NULL, O_RDONLY");
        assert_eq!(text(nr::access, [path, 6, 0, 0, 0, 0], Ok(0)), r#""/etc/x\n\1", R_OK|W_OK"#);
        assert_eq!(
            text(nr::newfstatat, [3, path, 0x1000, 0x1100, 0, 0], Err(errno::ENOENT)),
            r#"3, "/etc/x\n\1", 0x1000, AT_SYMLINK_NOFOLLOW|AT_EMPTY_PATH"#
        );
    }

    #[test]
    fn buffers_are_as_long_as_was_read_or_is_to_be_written() {
        let bytes = b"0123456789abcdef0123456789abcdefXYZ";
        assert_eq!(text(nr::write, [1, at(bytes), 3, 0, 0, 0], Ok(3)), r#"1, "012", 3"#);
        assert_eq!(text(nr::read, [0, at(bytes), 100, 0, 0, 0], Ok(2)), r#"0, "01", 100"#);
        let cut = r#"1, "0123456789abcdef0123456789abcdef"..., 35"#;
        assert_eq!(text(nr::write, [1, at(bytes), 35, 0, 0, 0], Ok(35)), cut);
        assert_eq!(text(nr::read, [0, 0x1000, 5, 0, 0, 0], Err(errno::EFAULT)), "0, 0x1000, 5");
    }

    #[test]
    fn what_is_printed_depends_on_the_command() {
        assert_eq!(text(nr::fcntl, [3, 1, 0xdead, 0, 0, 0], Ok(0)), "3, F_GETFD");
        assert_eq!(text(nr::fcntl, [3, 2, 1, 0, 0, 0], Ok(0)), "3, F_SETFD, FD_CLOEXEC");
        assert_eq!(text(nr::fcntl, [3, 1030, 10, 0, 0, 0], Ok(0)), "3, F_DUPFD_CLOEXEC, 10");
        assert_eq!(
            text(nr::futex, [0x1000, 129, 1, 0, 0, 0], Ok(0)),
            "0x1000, FUTEX_WAKE_PRIVATE, 1"
        );
        assert_eq!(text(nr::futex, [0x1000, 0, 2, 0, 0, 0], Ok(0)), "0x1000, FUTEX_WAIT, 2, NULL");
    }

    #[test]
    fn values_flags_and_what_has_no_name() {
        let mmap = [0, 4096, 3, 0x22, u64::MAX, 0];
        let text_of_mmap = "NULL, 4096, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0";
        assert_eq!(text(nr::mmap, mmap, Ok(0x1000)), text_of_mmap);
        assert_eq!(plain(names::PROT, 0), "PROT_NONE");
        assert_eq!(plain(names::PROT, 0x85), "PROT_READ|PROT_EXEC|0x80");
        assert_eq!(plain(names::AT, 0), "0");
        assert_eq!(plain(names::WHENCE, 9), "0x9");
        assert_eq!(plain(names::SOCK, 0o2000001), "SOCK_STREAM|SOCK_CLOEXEC");
        assert_eq!(signal(9), "SIGKILL");
        assert_eq!(signal(34), "SIGRT_2");
        assert_eq!(signal(0), "0");
        assert_eq!(text(nr::chown, [0, 0xffff_ffff, 5, 0, 0, 0], Ok(0)), "NULL, -1, 5");
    }

    #[test]
    fn structures() {
        let time = Timespec { sec: 1, nsec: 500 };
        assert_eq!(
            text(nr::nanosleep, [at(&time), 0, 0, 0, 0, 0], Ok(0)),
            "{tv_sec=1, tv_nsec=500}, NULL"
        );
        let set = 1u64 << 1 | 1 << 16;
        assert_eq!(
            text(nr::rt_sigprocmask, [0, at(&set), 0, 8, 0, 0], Ok(0)),
            "SIG_BLOCK, [INT CHLD], NULL, 8"
        );
        let nearly_all = !(1u64 << 8);
        assert_eq!(
            text(nr::rt_sigprocmask, [2, at(&nearly_all), 0, 8, 0, 0], Ok(0)),
            "SIG_SETMASK, ~[KILL], NULL, 8"
        );
        let pipe = [3i32, 4];
        assert_eq!(text(nr::pipe, [at(&pipe), 0, 0, 0, 0, 0], Ok(0)), "[3, 4]");
        let status = 0x0100u32;
        assert_eq!(
            text(nr::wait4, [u64::MAX, at(&status), 1, 0, 0, 0], Ok(7)),
            "-1, [{WIFEXITED(s) && WEXITSTATUS(s) == 1}], WNOHANG, NULL"
        );
        let address = *b"\x02\0\0\x50\x7f\0\0\x01\0\0\0\0\0\0\0\0";
        assert_eq!(
            text(nr::connect, [3, at(&address), 16, 0, 0, 0], Ok(0)),
            r#"3, {sa_family=AF_INET, sin_port=htons(80), sin_addr=inet_addr("127.0.0.1")}, 16"#
        );
        let [first, second] = [*b"a\0", *b"b\0"];
        let argv = [at(&first), at(&second), 0];
        assert_eq!(
            text(nr::execve, [at(&first), at(&argv), 0, 0, 0, 0], Ok(0)),
            r#""a", ["a", "b"], NULL"#
        );
    }
}
