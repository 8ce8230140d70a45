//! What pointers point to, as text.

use super::data::{self, ELEMENTS};
use super::*;
use super::{options, siginfo};
use crate::abi::epoll::GuestEpollEvent;
use crate::abi::stat::GuestStat;
use crate::abi::time::Utimbuf;
use crate::files::OpenHow;
use crate::interrupt::SigInfo;
use crate::limits::Rlimit;

/// What the kernel is about to read for argument `i`.
pub fn before(shape: Shape, args: &[u64; 6], i: usize) -> Result<String, Errno> {
    let addr = args[i];
    let next = args.get(i + 1).copied().unwrap_or(0);
    match shape {
        Shape::Buffer => buffer(addr, next),
        Shape::Iovec => iovec(addr, next, u64::MAX),
        Shape::Pollfds => array(addr, 8, next, pollfd),
        Shape::FdSet => fd_set(addr, args[0]),
        Shape::Argv => argv(addr),
        Shape::Envp => {
            let count = pointers(addr)?.len();
            Ok(format!("{addr:#x} /* {count} var{} */", if count == 1 { "" } else { "s" }))
        }
        Shape::Sockaddr => sockaddr(addr, next),
        Shape::CloneArgs => clone_args(addr, next),
        Shape::Msghdr => msghdr(addr, u64::MAX),
        Shape::Many(what, count) => data::many(what, count, args, i, 0),
        Shape::Pointers(what, count) => data::pointers(what, count, args, i, 0),
        Shape::OptionValue => options::option_value(args[1], args[2], addr, next),
        Shape::BitMap => bit_map(addr, args[i - 1]),
        other => fixed(other, addr),
    }
}

/// What the kernel wrote for argument `i`.
pub fn after(shape: Shape, args: &[u64; 6], i: usize, result: u64) -> Result<String, Errno> {
    let addr = args[i];
    let next = args.get(i + 1).copied().unwrap_or(0);
    match shape {
        Shape::Buffer => buffer(addr, result),
        Shape::Iovec => iovec(addr, next, result),
        Shape::EpollEvents => array(addr, 12, result, epoll_event),
        Shape::Sockaddr => sockaddr(addr, guest::read::<u32>(next)?.into()),
        Shape::Msghdr => msghdr(addr, result),
        Shape::Many(what, count) => data::many(what, count, args, i, result),
        Shape::Pointers(what, count) => data::pointers(what, count, args, i, result),
        Shape::OptionValue => {
            let length = guest::read::<u32>(next)?.into();
            options::option_value(args[1], args[2], addr, length)
        }
        Shape::BitMap => bit_map(addr, result),
        Shape::Directory => directory(addr, result),
        Shape::Random => random(addr, result),
        other => fixed(other, addr),
    }
}

/// Structures of one size.
fn fixed(shape: Shape, addr: u64) -> Result<String, Errno> {
    Ok(match shape {
        Shape::One(what) => data::behind(what, addr)?,
        Shape::Siginfo => siginfo::text(&SigInfo(guest::read(addr)?)),
        Shape::Text => string(addr, PATH_MAX)?,
        Shape::FdPair => format!("{:?}", guest::read::<[i32; 2]>(addr)?),
        Shape::Number32 => format!("[{}]", guest::read::<i32>(addr)?),
        Shape::Number64 => format!("[{}]", guest::read::<i64>(addr)?),
        Shape::Stat => stat(&guest::read(addr)?),
        Shape::Statx => statx(addr)?,
        Shape::Timespec => timespec(addr)?,
        Shape::TimespecPair => pair(timespec(addr)?, timespec(addr + 16)?),
        Shape::Timeval => timeval(addr)?,
        Shape::Utimbuf => {
            let Utimbuf { actime, modtime } = guest::read(addr)?;
            format!("{{actime={actime}, modtime={modtime}}}")
        }
        Shape::TimevalPair => pair(timeval(addr)?, timeval(addr + 16)?),
        Shape::Itimerval => {
            let Itimerval { interval, value } = guest::read(addr)?;
            format!("{{it_interval={}, it_value={}}}", micro(interval), micro(value))
        }
        Shape::Itimerspec => {
            let Itimerspec { interval, value } = guest::read(addr)?;
            format!("{{it_interval={}, it_value={}}}", nano(interval), nano(value))
        }
        Shape::Rlimit => {
            let Rlimit { cur, max } = guest::read(addr)?;
            format!("{{rlim_cur={}, rlim_max={}}}", limit(cur), limit(max))
        }
        Shape::Sigset => sigset(guest::read(addr)?),
        Shape::Sigaction => sigaction(addr)?,
        Shape::Stack => {
            let [sp, flags, size] = guest::read::<[u64; 3]>(addr)?;
            let flags = plain(names::SS, flags & 0xffff_ffff);
            format!("{{ss_sp={}, ss_flags={flags}, ss_size={size}}}", pointer(sp))
        }
        Shape::EpollEvent => epoll_event(addr)?,
        Shape::OpenHow => {
            let how: OpenHow = guest::read(addr)?;
            let flags = plain(names::OPEN, how.flags);
            let mode = match how.mode {
                0 => String::new(),
                mode => format!(", mode={}", plain(Type::Mode, mode)),
            };
            format!("{{flags={flags}{mode}, resolve={}}}", plain(names::RESOLVE, how.resolve))
        }
        Shape::Utsname => utsname(addr)?,
        Shape::Wstatus => wstatus(guest::read::<u32>(addr)?),
        _ => pointer(addr),
    })
}

pub fn buffer(addr: u64, length: u64) -> Result<String, Errno> {
    let mut bytes = vec![0; length.min(SHOWN as u64) as usize];
    guest::read_bytes(addr, &mut bytes)?;
    Ok(quoted(&bytes, length > SHOWN as u64))
}

/// `count` elements of `size` bytes.
fn array(
    addr: u64,
    size: u64,
    count: u64,
    element: fn(u64) -> Result<String, Errno>,
) -> Result<String, Errno> {
    let shown = (0..count.min(ELEMENTS)).map(|i| element(addr + i * size));
    let mut texts = shown.collect::<Result<Vec<_>, _>>()?;
    if count > ELEMENTS {
        texts.push("...".into());
    }
    Ok(format!("[{}]", texts.join(", ")))
}

fn pair(first: String, second: String) -> String {
    format!("[{first}, {second}]")
}

/// The buffers, with `total` bytes of content between them.
fn iovec(addr: u64, count: u64, total: u64) -> Result<String, Errno> {
    let mut left = total;
    let mut texts = Vec::new();
    for i in 0..count.min(ELEMENTS) {
        let [base, length] = guest::read::<[u64; 2]>(addr + i * 16)?;
        let content = buffer(base, length.min(left)).unwrap_or_else(|_| pointer(base));
        left = left.saturating_sub(length);
        texts.push(format!("{{iov_base={content}, iov_len={length}}}"));
    }
    if count > ELEMENTS {
        texts.push("...".into());
    }
    Ok(format!("[{}]", texts.join(", ")))
}

/// `struct msghdr`; the same on both architectures.
fn msghdr(addr: u64, total: u64) -> Result<String, Errno> {
    let [name, name_length, iov, iov_count, control, control_length, flags] =
        guest::read::<[u64; 7]>(addr)?;
    let name_length = name_length as u32;
    let name = pointed(name, || sockaddr(name, name_length.into()));
    let iov = pointed(iov, || iovec(iov, iov_count, total));
    let control = match control_length {
        0 => String::new(),
        length => {
            format!("msg_control={}, ", pointed(control, || options::control(control, length)))
        }
    };
    let flags = plain(names::MSG, flags & 0xffff_ffff);
    Ok(format!(
        "{{msg_name={name}, msg_namelen={name_length}, msg_iov={iov}, msg_iovlen={iov_count}, \
         {control}msg_controllen={control_length}, msg_flags={flags}}}"
    ))
}

fn pollfd(addr: u64) -> Result<String, Errno> {
    let fd = guest::read::<i32>(addr)?;
    if fd < 0 {
        return Ok(format!("{{fd={fd}}}"));
    }
    let events = guest::read::<u16>(addr + 4)?;
    Ok(format!("{{fd={fd}, events={}}}", plain(names::POLL, events.into())))
}

/// The descriptors that poll(2) found something at.
pub fn polled(addr: u64, count: u64) -> Result<String, Errno> {
    let mut texts = Vec::new();
    for at in (0..count.min(1024)).map(|i| addr + 8 * i) {
        let revents = guest::read::<u16>(at + 6)?;
        if revents != 0 {
            let fd = guest::read::<i32>(at)?;
            texts.push(format!("{{fd={fd}, revents={}}}", plain(names::POLL, revents.into())));
        }
    }
    Ok(format!("[{}]", texts.join(", ")))
}

/// The descriptors that select(2) left in its sets.
pub fn selected(args: &[u64; 6]) -> Result<String, Errno> {
    let mut texts = Vec::new();
    for (name, addr) in ["in", "out", "except"].into_iter().zip(&args[1..4]) {
        let set = if *addr == 0 { "[]".into() } else { fd_set(*addr, args[0])? };
        if set != "[]" {
            texts.push(format!("{name} {set}"));
        }
    }
    Ok(texts.join(", "))
}

fn epoll_event(addr: u64) -> Result<String, Errno> {
    let GuestEpollEvent { events, data } = guest::read(addr)?;
    Ok(format!("{{events={}, data={data:#x}}}", plain(names::EPOLL_EVENTS, events.into())))
}

/// Bits of a map of `size` bytes that are set.
fn bit_map(addr: u64, size: u64) -> Result<String, Errno> {
    fd_set(addr, size.saturating_mul(8))
}

/// Entries of a directory, counted (getdents(2)); both structures have their length at the same place.
fn directory(addr: u64, size: u64) -> Result<String, Errno> {
    let (mut at, mut count) = (0, 0);
    while at < size {
        at += u64::from(guest::read::<u16>(addr + at + 16)?.max(1));
        count += 1;
    }
    Ok(format!("{addr:#x} /* {count} entries */"))
}

/// Bytes in hexadecimal, in quotes.
fn random(addr: u64, length: u64) -> Result<String, Errno> {
    let mut bytes = vec![0u8; length.min(SHOWN as u64) as usize];
    guest::read_bytes(addr, &mut bytes)?;
    let mut text = String::from("\"");
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "\\x{byte:02x}");
    }
    Ok(text + if length > SHOWN as u64 { "\"..." } else { "\"" })
}

fn fd_set(addr: u64, count: u64) -> Result<String, Errno> {
    let mut fds = Vec::new();
    for i in 0..count.min(1024).div_ceil(8) {
        let byte = guest::read::<u8>(addr + i)?;
        fds.extend((0..8).filter(|bit| byte >> bit & 1 != 0).map(|bit| (i * 8 + bit).to_string()));
    }
    Ok(format!("[{}]", fds.join(" ")))
}

/// The pointers of a null-terminated array.
fn pointers(addr: u64) -> Result<Vec<u64>, Errno> {
    const MOST: u64 = 100_000;
    let mut found = Vec::new();
    for i in 0..MOST {
        match guest::read::<u64>(addr.wrapping_add(i * 8))? {
            0 => break,
            pointer => found.push(pointer),
        }
    }
    Ok(found)
}

fn argv(addr: u64) -> Result<String, Errno> {
    let all = pointers(addr)?;
    let shown = all.iter().take(SHOWN).map(|&arg| pointed(arg, || string(arg, SHOWN)));
    let mut texts: Vec<String> = shown.collect();
    if all.len() > SHOWN {
        texts.push("...".into());
    }
    Ok(format!("[{}]", texts.join(", ")))
}

/// `struct sockaddr` of the common families (unix(7), ip(7), ipv6(7)).
fn sockaddr(addr: u64, length: u64) -> Result<String, Errno> {
    const UNIX: u16 = 1;
    const INET: u16 = 2;
    const INET6: u16 = 10;
    let mut bytes = vec![0; length.min(128) as usize];
    guest::read_bytes(addr, &mut bytes)?;
    let Some(&[low, high]) = bytes.get(..2) else {
        return Ok(pointer(addr));
    };
    let port = bytes.get(2..4).map_or(0, |port| u16::from_be_bytes([port[0], port[1]]));
    Ok(match u16::from_ne_bytes([low, high]) {
        UNIX if bytes.len() == 2 => "{sa_family=AF_UNIX}".into(),
        UNIX if bytes[2] == 0 => {
            format!("{{sa_family=AF_UNIX, sun_path=@{}}}", quoted(&bytes[3..], false))
        }
        UNIX => {
            let path = bytes[2..].split(|&byte| byte == 0).next().unwrap_or_default();
            format!("{{sa_family=AF_UNIX, sun_path={}}}", quoted(path, false))
        }
        INET if bytes.len() >= 8 => {
            let [a, b, c, d] = [bytes[4], bytes[5], bytes[6], bytes[7]];
            format!(
                "{{sa_family=AF_INET, sin_port=htons({port}), sin_addr=inet_addr(\"{a}.{b}.{c}.{d}\")}}"
            )
        }
        INET6 if bytes.len() >= 24 => {
            let mut octets = [0; 16];
            octets.copy_from_slice(&bytes[8..24]);
            let address = std::net::Ipv6Addr::from(octets);
            format!("{{sa_family=AF_INET6, sin6_port=htons({port}), sin6_addr=\"{address}\"}}")
        }
        family => {
            let data = quoted(&bytes[2..], false);
            format!("{{sa_family={}, sa_data={data}}}", plain(names::AF, family.into()))
        }
    })
}

fn stat(stat: &GuestStat) -> String {
    const S_IFMT: u32 = 0o170000;
    const S_IFCHR: u32 = 0o020000;
    const S_IFBLK: u32 = 0o060000;
    let size = match stat.mode & S_IFMT {
        S_IFCHR | S_IFBLK => format!("st_rdev={}", plain(Type::Dev, stat.rdev)),
        _ => format!("st_size={}", stat.size),
    };
    format!("{{st_mode={}, {size}, ...}}", mode(stat.mode))
}

/// `st_mode` with the file type's name.
fn mode(mode: u32) -> String {
    let kind = plain(names::FILE_TYPE, u64::from(mode & 0o170000));
    format!("{kind}|{}", plain(Type::Mode, u64::from(mode & 0o7777)))
}

/// `struct statx`: the mask, the mode and the size.
fn statx(addr: u64) -> Result<String, Errno> {
    let mask = plain(names::STATX, guest::read::<u32>(addr)?.into());
    let mode = mode(guest::read::<u16>(addr + 28)?.into());
    let size = guest::read::<u64>(addr + 40)?;
    Ok(format!("{{stx_mask={mask}, stx_mode={mode}, stx_size={size}, ...}}"))
}

pub fn timespec(addr: u64) -> Result<String, Errno> {
    guest::read(addr).map(nano)
}

pub fn timeval(addr: u64) -> Result<String, Errno> {
    guest::read(addr).map(micro)
}

pub fn nano(time: Timespec) -> String {
    match time.nsec {
        0x3fff_ffff => "UTIME_NOW".into(),
        0x3fff_fffe => "UTIME_OMIT".into(),
        nsec => format!("{{tv_sec={}, tv_nsec={nsec}}}", time.sec),
    }
}

pub fn micro(time: Timeval) -> String {
    format!("{{tv_sec={}, tv_usec={}}}", time.sec, time.usec)
}

fn limit(value: u64) -> String {
    match value {
        u64::MAX => "RLIM64_INFINITY".into(),
        value if value != 0 && value % 1024 == 0 => format!("{}*1024", value / 1024),
        value => value.to_string(),
    }
}

/// Signals of a set; of a set that is nearly full, those that are not in it.
pub fn sigset(set: u64) -> String {
    let (sign, shown) = if set.count_ones() > 32 { ("~", !set) } else { ("", set) };
    let signals = (1..=64).filter(|number| shown >> (number - 1) & 1 != 0);
    let texts: Vec<String> =
        signals.map(|number| signal(number).trim_start_matches("SIG").to_string()).collect();
    format!("{sign}[{}]", texts.join(" "))
}

/// The kernel's `struct sigaction`: handler, flags, restorer, mask.
fn sigaction(addr: u64) -> Result<String, Errno> {
    const SA_RESTORER: u64 = 0x0400_0000;
    let [handler, flags, restorer, mask] = guest::read::<[u64; 4]>(addr)?;
    let handler = match handler {
        0 => "SIG_DFL".into(),
        1 => "SIG_IGN".into(),
        handler => format!("{handler:#x}"),
    };
    let restorer = match flags & SA_RESTORER {
        0 => String::new(),
        _ => format!(", sa_restorer={}", pointer(restorer)),
    };
    let (flags, mask) = (plain(names::SA, flags), sigset(mask));
    Ok(format!("{{sa_handler={handler}, sa_mask={mask}, sa_flags={flags}{restorer}}}"))
}

/// `struct clone_args`, as far as `size` says that it is there.
fn clone_args(addr: u64, size: u64) -> Result<String, Errno> {
    const CLONE_PIDFD: u64 = 0x1000;
    const CLONE_SETTLS: u64 = 0x8_0000;
    const CLONE_PARENT_SETTID: u64 = 0x10_0000;
    const CHILD_TID: u64 = 0x20_0000 | 0x100_0000;
    const CLONE_INTO_CGROUP: u64 = 1 << 33;
    let mut words = [0u64; 11];
    for (i, word) in words.iter_mut().enumerate().take((size / 8) as usize) {
        *word = guest::read(addr + 8 * i as u64)?;
    }
    let [flags, pidfd, child, parent, exit_signal, stack, stack_size, tls, set, count, cgroup] =
        words;
    let mut text = format!("{{flags={}", plain(names::UNSHARE, flags));
    // Members that the flags leave unused are not shown, as long as they are zero.
    let mut member = |name: &str, used: u64, value: u64| {
        if flags & used != 0 || value != 0 {
            text += &format!(", {name}={}", pointer(value));
        }
    };
    member("pidfd", CLONE_PIDFD, pidfd);
    member("child_tid", CHILD_TID, child);
    member("parent_tid", CLONE_PARENT_SETTID, parent);
    text += &format!(", exit_signal={}", signal(exit_signal));
    text += &format!(", stack={}, stack_size={stack_size:#x}", pointer(stack));
    if flags & CLONE_SETTLS != 0 || tls != 0 {
        text += &format!(", tls={tls:#x}");
    }
    if count != 0 {
        let numbers = data::list(count, |n| Ok(guest::read::<i32>(set + 4 * n)?.to_string()));
        text += &format!(", set_tid={}, set_tid_size={count}", pointed(set, || numbers));
    }
    if flags & CLONE_INTO_CGROUP != 0 || cgroup != 0 {
        text += &format!(", cgroup={cgroup}");
    }
    Ok(text + "}")
}

fn utsname(addr: u64) -> Result<String, Errno> {
    const FIELD: u64 = 65;
    Ok(format!("{{sysname={}, nodename={}, ...}}", string(addr, 64)?, string(addr + FIELD, 64)?))
}

/// A status as wait(2) gives it.
fn wstatus(status: u32) -> String {
    let number = u64::from(status & 0x7f);
    match status {
        0xffff => "[{WIFCONTINUED(s)}]".into(),
        _ if status & 0xff == 0x7f => {
            format!(
                "[{{WIFSTOPPED(s) && WSTOPSIG(s) == {}}}]",
                signal(u64::from(status >> 8 & 0xff))
            )
        }
        _ if number == 0 => {
            format!("[{{WIFEXITED(s) && WEXITSTATUS(s) == {}}}]", status >> 8 & 0xff)
        }
        _ if status & 0x80 != 0 => {
            format!("[{{WIFSIGNALED(s) && WTERMSIG(s) == {} && WCOREDUMP(s)}}]", signal(number))
        }
        _ => format!("[{{WIFSIGNALED(s) && WTERMSIG(s) == {}}}]", signal(number)),
    }
}
