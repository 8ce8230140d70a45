//! Values of socket options, ancillary messages, and arguments of ioctl(2) and fcntl(2).

use super::*;
use crate::strace::structs;
use crate::table::Struct;

const SOL_SOCKET: u64 = 1;

/// The value of a socket's option, of `length` bytes.
pub fn option_value(level: u64, option: u64, addr: u64, length: u64) -> Result<String, Errno> {
    let what: Option<&Struct> = match (level, option, length) {
        (SOL_SOCKET, 13, 8) => Some(&structs::LINGER),
        (SOL_SOCKET, 17, 12) => Some(&structs::UCRED),
        (SOL_SOCKET, 20 | 21, 16) => return shapes::timeval(addr),
        (_, _, 4) => Some(&structs::NUMBER),
        _ => None,
    };
    match what {
        Some(what) => data::behind(what, addr),
        None => shapes::buffer(addr, length),
    }
}

/// Ancillary messages (cmsg(3)); the same on both architectures.
pub fn control(addr: u64, length: u64) -> Result<String, Errno> {
    const HEADER: u64 = 16;
    const SCM_RIGHTS: u32 = 1;
    const SCM_CREDENTIALS: u32 = 2;
    const SCM_PIDFD: u32 = 4;
    const MOST: usize = 8;
    let mut texts = Vec::new();
    let mut at = addr;
    let end = addr.saturating_add(length);
    while at.saturating_add(HEADER) <= end && texts.len() < MOST {
        let size = guest::read::<u64>(at)?;
        let [level, kind] = guest::read::<[u32; 2]>(at + 8)?;
        if size < HEADER || size > end - at {
            break;
        }
        let (data, bytes) = (at + HEADER, size - HEADER);
        let (name, value) = if u64::from(level) == SOL_SOCKET {
            let value = match kind {
                SCM_RIGHTS | SCM_PIDFD => {
                    data::list(bytes / 4, |n| Ok(guest::read::<i32>(data + 4 * n)?.to_string()))?
                }
                SCM_CREDENTIALS => data::one(&structs::UCRED, data)?,
                _ => shapes::buffer(data, bytes)?,
            };
            (plain(names::sockets::SCM, kind.into()), value)
        } else {
            (format!("{kind:#x}"), shapes::buffer(data, bytes)?)
        };
        let level = plain(names::SOL, level.into());
        texts.push(format!(
            "{{cmsg_len={size}, cmsg_level={level}, cmsg_type={name}, cmsg_data={value}}}"
        ));
        at += size.next_multiple_of(8);
    }
    Ok(format!("[{}]", texts.join(", ")))
}

/// What an ioctl(2) reads before it, if that is known.
pub fn ioctl_before(request: u64, value: u64) -> Option<String> {
    let what = match request & 0xffff_ffff {
        // TCSETS, TCSETSW, TCSETSF; TIOCSWINSZ; FIONBIO, FIOASYNC, TIOCSPGRP, TIOCSPTLCK
        0x5402..=0x5404 => &structs::TERMIOS,
        0x5414 => &structs::WINSIZE,
        0x5421 | 0x5452 | 0x5410 | 0x4004_5431 => &structs::NUMBER,
        // Without an argument: FIOCLEX, FIONCLEX, TIOCNOTTY, namespaces of a pidfd
        0x5450 | 0x5451 | 0x5422 | 0xff01..=0xff0a => return Some(plain(Type::Hex, value)),
        _ => return (!ioctl_writes(request)).then(|| plain(Type::Hex, value)),
    };
    Some(pointed(value, || data::behind(what, value)))
}

/// What an ioctl(2) has written.
pub fn ioctl_after(request: u64, value: u64) -> String {
    let what = match request & 0xffff_ffff {
        0x5401 => &structs::TERMIOS,
        0x5413 => &structs::WINSIZE,
        // TIOCGPGRP, TIOCOUTQ, FIONREAD, TIOCGSID, TIOCGPTN, SIOCATMARK, and namespaces' numbers
        0x540f
        | 0x5411
        | 0x541b
        | 0x5429
        | 0x8004_5430
        | 0x8905
        | 0x8004_b706..=0x8004_b709
        | 0xb704 => &structs::NUMBER,
        // BLKGETSIZE64, FS_IOC_GETFLAGS, NS_GET_MNTNS_ID
        0x8008_1272 | 0x8008_6601 | 0x8008_b705 => &structs::WORD,
        request if is_pidfd_info(request) => &structs::PIDFD_INFO,
        _ => return plain(Type::Hex, value),
    };
    pointed(value, || data::behind(what, value))
}

/// PIDFD_GET_INFO (linux/pidfd.h), whose structure grows.
pub fn is_pidfd_info(request: u64) -> bool {
    request & 0xc000_ffff == 0xc000_ff0b
}

fn ioctl_writes(request: u64) -> bool {
    let request = request & 0xffff_ffff;
    matches!(
        request,
        0x5401 | 0x5413 | 0x540f | 0x5411 | 0x541b | 0x5429 | 0x8004_5430 | 0x8905 | 0x8004_b706
            ..=0x8004_b709 | 0xb704 | 0x8008_1272 | 0x8008_6601 | 0x8008_b705
    ) || is_pidfd_info(request)
}

/// fcntl(2): what the third argument is depends on the command.
pub fn fcntl_before(command: u64, value: u64) -> Option<String> {
    Some(match command {
        // F_SETFD
        2 if value == 1 => "FD_CLOEXEC".into(),
        // F_SETFL
        4 => plain(names::OPEN, value),
        // F_GETLK, F_OFD_GETLK, F_GETOWN_EX
        5 | 36 | 16 => return None,
        // F_SETLK, F_SETLKW, F_OFD_SETLK, F_OFD_SETLKW
        6 | 7 | 37 | 38 => pointed(value, || data::one(&structs::FLOCK, value)),
        15 => pointed(value, || data::one(&structs::F_OWNER, value)),
        // F_DUPFD, F_SETFD, F_SETOWN, F_SETLEASE, F_NOTIFY, F_DUPFD_CLOEXEC, F_SETPIPE_SZ
        0 | 2 | 8 | 1024 | 1026 | 1027 | 1030 | 1031 => (value as i32).to_string(),
        10 => signal(value),
        // F_ADD_SEALS
        1033 => plain(names::SEALS, value),
        _ => pointer(value),
    })
}

/// The same, for commands that write.
pub fn fcntl_after(command: u64, value: u64) -> String {
    let what = if command == 16 { &structs::F_OWNER } else { &structs::FLOCK };
    pointed(value, || data::one(what, value))
}
