//! Arguments as text.

use std::fmt::Write;

use super::names;
use crate::abi::time::{Itimerspec, Itimerval, Timespec, Timeval};
use crate::abi::{AT_FDCWD, PATH_MAX};
use crate::guest;
use crate::host::{Errno, SysResult};
use crate::table::{Call, Names, Shape, Type};

mod shapes;

/// Bytes of a string or buffer that are shown, as strace(1)'s `-s 32`.
const SHOWN: usize = 32;

/// The text of argument `i` before the call; None if it is only known after it.
pub fn entering(call: &Call, args: &[u64; 6], i: usize) -> Option<String> {
    let value = args[i];
    let text = match call.args[i].ty {
        Type::Out(_) => return None,
        Type::In(shape) => pointed(value, shapes::before(shape, args, i)),
        Type::Path | Type::LinkPath => pointed(value, string(value, PATH_MAX)),
        Type::Str => pointed(value, string(value, SHOWN)),
        Type::FcntlArg => fcntl_arg(args[i - 1], value),
        Type::FutexArg => futex_arg(args[i - 2], value),
        other => plain(other, value),
    };
    Some(text)
}

/// The text of an argument that the kernel wrote to.
pub fn leaving(call: &Call, args: &[u64; 6], i: usize, result: SysResult) -> String {
    match (call.args[i].ty, result) {
        (Type::Out(shape), Ok(value)) => pointed(args[i], shapes::after(shape, args, i, value)),
        _ => pointer(args[i]),
    }
}

/// What is behind a pointer, or the pointer itself where that cannot be read.
fn pointed(addr: u64, text: Result<String, Errno>) -> String {
    match text {
        Ok(text) if addr != 0 => text,
        _ => pointer(addr),
    }
}

fn pointer(addr: u64) -> String {
    if addr == 0 { "NULL".into() } else { format!("{addr:#x}") }
}

/// A value that is not followed anywhere.
pub fn plain(ty: Type, value: u64) -> String {
    match ty {
        Type::Named(_, names) => named(names, value),
        Type::AtFlags => plain(names::AT, value),
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
        Type::Hex | Type::Hex32 => format!("{value:#x}"),
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
    if rest != 0 || parts.is_empty() {
        parts.push(if rest == 0 { "0".into() } else { format!("{rest:#x}") });
    }
    parts.join("|")
}

/// A signal's name, without anything for the numbers it has none for.
pub fn signal(number: u64) -> String {
    match names::SIGNALS.get((number as usize).wrapping_sub(1)) {
        Some(name) => format!("SIG{name}"),
        // The C library keeps the first two real-time signals to itself.
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

/// fcntl(2): what the third argument is depends on the command.
fn fcntl_arg(command: u64, value: u64) -> String {
    match command {
        2 if value == 1 => "FD_CLOEXEC".into(),
        4 => plain(names::OPEN, value),
        0 | 2 | 8 | 10 | 1024 | 1026 | 1030 | 1031 => (value as i32).to_string(),
        _ => pointer(value),
    }
}

/// futex(2): a timeout where the call waits, a number where it requeues.
fn futex_arg(operation: u64, value: u64) -> String {
    match operation & 0x7f {
        0 | 6 | 9 | 11 | 13 => pointed(value, shapes::timespec(value)),
        _ => pointer(value),
    }
}
