//! Structures and arrays that are described as data.

use super::shapes::{micro, nano, sigset};
use super::*;
use crate::table::{Count, Kind, Struct};

/// Elements of an array that are shown.
pub const ELEMENTS: u64 = 32;

/// A structure at an address.
pub fn one(what: &Struct, addr: u64) -> Result<String, Errno> {
    let mut texts = Vec::with_capacity(what.members.len());
    for member in what.members {
        let text = value(member.kind, addr.wrapping_add(member.offset.into()))?;
        texts.push(match member.name {
            "" => text,
            name => format!("{name}={text}"),
        });
    }
    if what.more {
        texts.push("...".into());
    }
    Ok(match what.members {
        // A number behind a pointer.
        [member] if member.name.is_empty() && !what.more => texts.concat(),
        [member, ..] if member.name.is_empty() => format!("[{}]", texts.join(", ")),
        _ => format!("{{{}}}", texts.join(", ")),
    })
}

/// The structure behind a pointer argument: a number alone is shown as an array of one.
pub fn behind(what: &Struct, addr: u64) -> Result<String, Errno> {
    let text = one(what, addr)?;
    let number = matches!(what.members, [member] if member.name.is_empty());
    Ok(if number { format!("[{text}]") } else { text })
}

fn value(kind: Kind, addr: u64) -> Result<String, Errno> {
    Ok(match kind {
        Kind::Value(ty) => match ty.width() {
            Width::I32 => plain(ty, guest::read::<i32>(addr)? as u64),
            Width::U32 => plain(ty, guest::read::<u32>(addr)?.into()),
            Width::U64 => plain(ty, guest::read(addr)?),
        },
        Kind::Byte(ty) => plain(ty, guest::read::<u8>(addr)?.into()),
        Kind::Half(ty) => plain(ty, guest::read::<u16>(addr)?.into()),
        Kind::Short => guest::read::<i16>(addr)?.to_string(),
        Kind::Time => nano(guest::read(addr)?),
        Kind::MicroTime => micro(guest::read(addr)?),
        Kind::Text(size) => {
            let mut bytes = vec![0; size.into()];
            guest::read_bytes(addr, &mut bytes)?;
            quoted(bytes.split(|&byte| byte == 0).next().unwrap_or_default(), false)
        }
        Kind::Values(count) => {
            let values = (0..u64::from(count)).map(|i| guest::read::<u64>(addr + 8 * i));
            let texts: Result<Vec<_>, _> = values.map(|v| v.map(|v| v.to_string())).collect();
            format!("[{}]", texts?.join(", "))
        }
        Kind::Within(inner) => one(inner, addr)?,
        Kind::Signals => sigset(guest::read(addr)?),
    })
}

/// How many elements an array has.
fn elements(count: Count, args: &[u64; 6], i: usize, result: u64) -> u64 {
    let count = match count {
        Count::Next => args.get(i + 1).copied().unwrap_or(0),
        Count::Previous => i.checked_sub(1).map_or(0, |before| args[before]),
        Count::Result => result,
    };
    // A negative number is none.
    if count > i64::MAX as u64 { 0 } else { count }
}

/// An array of structures.
pub fn many(
    what: &Struct,
    count: Count,
    args: &[u64; 6],
    i: usize,
    result: u64,
) -> Result<String, Errno> {
    list(elements(count, args, i, result), |n| {
        one(what, args[i].wrapping_add(n.wrapping_mul(what.size.into())))
    })
}

/// An array of pointers to structures.
pub fn pointers(
    what: &Struct,
    count: Count,
    args: &[u64; 6],
    i: usize,
    result: u64,
) -> Result<String, Errno> {
    list(elements(count, args, i, result), |n| {
        let at = guest::read::<u64>(args[i].wrapping_add(8 * n))?;
        Ok(pointed(at, || one(what, at)))
    })
}

/// Elements in brackets, the first of them.
pub fn list(
    count: u64,
    mut element: impl FnMut(u64) -> Result<String, Errno>,
) -> Result<String, Errno> {
    let mut texts = Vec::new();
    for n in 0..count.min(ELEMENTS) {
        match element(n) {
            Ok(text) => texts.push(text),
            // What can be read is shown.
            Err(_) if n > 0 => {
                texts.push("...".into());
                break;
            }
            Err(error) => return Err(error),
        }
    }
    if count > ELEMENTS {
        texts.push("...".into());
    }
    Ok(format!("[{}]", texts.join(", ")))
}
