//! The handlers against a real arm64 kernel, by way of the table.

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::abi::epoll::GuestEpollEvent;
use crate::abi::sem::GuestSemidDs;
use crate::abi::stat::GuestStat;
use crate::abi::time::{Timespec, Timeval};
use crate::abi::{AT_FDCWD, errno};
use crate::host::{Errno, SysResult};
use crate::interrupt::SigInfo;
use crate::table::guest as nr;
use crate::task::Task;
use crate::{fds, guest, paths, table};

/// x86_64's values.
const O_RDWR: u64 = 0o2;
const O_CREAT: u64 = 0o100;
const O_NONBLOCK: u64 = 0o4000;
const O_DIRECTORY: u64 = 0o200000;
const O_NOFOLLOW: u64 = 0o400000;

/// A task and memory where a guest may have some.
struct Guest {
    task: Box<Task>,
    memory: u64,
}

const SIZE: usize = 1 << 16;

impl Guest {
    fn new() -> Self {
        const HINT: usize = 0x20_0000_0000;
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping, wherever there is room.
        let memory = unsafe { libc::mmap(HINT as *mut _, SIZE, prot, flags, -1, 0) };
        assert!((memory as usize) < 1 << 47);
        Self { task: Task::for_test(), memory: memory as u64 }
    }

    fn call(&mut self, number: u64, args: &[u64]) -> SysResult {
        let mut all = [0; 6];
        all[..args.len()].copy_from_slice(args);
        table::dispatch(&mut self.task, number, all)
    }

    /// Puts a path into the guest's memory.
    fn path(&mut self, at: u64, path: &Path) -> u64 {
        let addr = self.memory + at;
        let path = CString::new(path.as_os_str().as_bytes()).unwrap();
        guest::write_bytes(addr, path.as_bytes_with_nul()).unwrap();
        addr
    }

    fn pipe(&mut self) -> [i32; 2] {
        let at = self.memory + 0xf000;
        self.call(nr::pipe2, &[at, O_NONBLOCK]).unwrap();
        guest::read(at).unwrap()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // SAFETY: the mapping made by `new`.
        unsafe { libc::munmap(self.memory as *mut _, SIZE) };
    }
}

#[test]
fn open_flags_mean_what_they_do_on_x86_64() {
    let dir = tempfile::tempdir().unwrap();
    let mut guest = Guest::new();
    let path = guest.path(0, &dir.path().join("file"));
    let fd = guest.call(nr::open, &[path, O_RDWR | O_CREAT | O_NOFOLLOW, 0o600]).unwrap();
    assert_eq!(guest.call(nr::fcntl, &[fd, 3]).unwrap() & (O_RDWR | O_NONBLOCK), O_RDWR);
    guest.call(nr::fcntl, &[fd, 4, O_NONBLOCK]).unwrap();
    assert_ne!(guest.call(nr::fcntl, &[fd, 3]).unwrap() & O_NONBLOCK, 0);
    guest.call(nr::close, &[fd]).unwrap();
    assert_eq!(guest.call(nr::open, &[path, O_DIRECTORY, 0]), Err(errno::ENOTDIR));
    std::os::unix::fs::symlink(dir.path(), dir.path().join("link")).unwrap();
    let link = guest.path(0x800, &dir.path().join("link"));
    assert_eq!(guest.call(nr::open, &[link, O_NOFOLLOW, 0]), Err(errno::ELOOP));
    guest.call(nr::open, &[link, O_DIRECTORY, 0]).unwrap();
    if guest.task.host_call(nr::openat2, [0; 6]) == Err(errno::ENOSYS) {
        eprintln!("the host has no openat2: it is not tried");
        return;
    }
    let how = guest.memory + 0x1000;
    guest::write(how, &[O_DIRECTORY, 0, 0]).unwrap();
    let here = AT_FDCWD as u64;
    assert_eq!(guest.call(nr::openat2, &[here, path, how, 24]), Err(errno::ENOTDIR));
}

#[test]
fn stat_has_every_field_in_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, b"12345").unwrap();
    let mut guest = Guest::new();
    let (path, buf) = (guest.path(0, &file), guest.memory + 0x1000);
    let times = guest.memory + 0x2000;
    guest::write(times, &[[1_000_000_000i64, 123_456], [1_100_000_000, 654_321]]).unwrap();
    guest.call(nr::utimes, &[path, times]).unwrap();
    let expected = fs::metadata(&file).unwrap();
    let fd = guest.call(nr::open, &[path, 0]).unwrap();
    for (number, args) in [
        (nr::stat, vec![path, buf]),
        (nr::lstat, vec![path, buf]),
        (nr::fstat, vec![fd, buf]),
        (nr::newfstatat, vec![AT_FDCWD as u32 as u64, path, buf, 0]),
    ] {
        guest::write(buf, &[0u64; 18]).unwrap();
        guest.call(number, &args).unwrap();
        let stat: GuestStat = guest::read(buf).unwrap();
        assert_eq!((stat.dev, stat.ino), (expected.dev(), expected.ino()));
        assert_eq!((stat.mode, stat.nlink), (expected.mode(), 1));
        assert_eq!((stat.uid, stat.gid), (expected.uid(), expected.gid()));
        assert_eq!((stat.size, stat.blocks), (5, expected.blocks() as i64));
        assert_eq!(stat.times[0], [1_000_000_000, 123_456_000]);
        assert_eq!(stat.times[1], [1_100_000_000, 654_321_000]);
    }
}

#[test]
fn names_are_made_moved_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let mut guest = Guest::new();
    let one = guest.path(0, &at("one"));
    let two = guest.path(0x1000, &at("two"));
    let three = guest.path(0x2000, &at("three"));
    guest.call(nr::mkdir, &[one, 0o700]).unwrap();
    guest.call(nr::rename, &[one, two]).unwrap();
    assert!(at("two").is_dir());
    guest.call(nr::rmdir, &[two]).unwrap();
    let fd = guest.call(nr::creat, &[one, 0o600]).unwrap();
    guest.call(nr::close, &[fd]).unwrap();
    guest.call(nr::link, &[one, two]).unwrap();
    guest.call(nr::symlink, &[one, three]).unwrap();
    let buf = guest.memory + 0x3000;
    let length = guest.call(nr::readlink, &[three, buf, 1000]).unwrap();
    let mut target = vec![0; length as usize];
    guest::read_bytes(buf, &mut target).unwrap();
    assert_eq!(target, at("one").as_os_str().as_bytes());
    guest.call(nr::chmod, &[three, 0o400]).unwrap();
    assert_eq!(fs::metadata(at("two")).unwrap().mode() & 0o777, 0o400);
    guest.call(nr::access, &[two, 4]).unwrap();
    for path in [one, two, three] {
        guest.call(nr::unlink, &[path]).unwrap();
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    assert_eq!(guest.call(nr::access, &[two, 0]), Err(errno::ENOENT));
}

#[test]
fn absolute_names_below_the_sysroot_come_first() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("only-in-the-sysroot")).unwrap();
    // The other tests' files are not below it, so that they find what they did before.
    paths::set_sysroot(format!("{}/", root.path().display()).as_bytes());
    let mut guest = Guest::new();
    let there = guest.path(0, Path::new("/only-in-the-sysroot"));
    let not_there = guest.path(0x1000, Path::new("/only-in-the-sysroot/none"));
    let buf = guest.memory + 0x2000;
    guest.call(nr::stat, &[there, buf]).unwrap();
    guest.call(nr::statx, &[AT_FDCWD as u64, there, 0, 0x7ff, buf]).unwrap();
    assert_eq!(guest.call(nr::stat, &[not_there, buf]), Err(errno::ENOENT));
    guest.call(nr::rmdir, &[there]).unwrap();
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
}

#[test]
fn directories_are_listed_in_the_old_form() {
    let dir = tempfile::tempdir().unwrap();
    let names = ["a", "some-longer-name", "twelve-chars"];
    for name in names {
        fs::write(dir.path().join(name), b"").unwrap();
    }
    let mut guest = Guest::new();
    let (path, buf) = (guest.path(0, dir.path()), guest.memory + 0x1000);
    let fd = guest.call(nr::open, &[path, O_DIRECTORY]).unwrap();
    let filled = guest.call(nr::getdents, &[fd, buf, 0x1000]).unwrap();
    let mut found = Vec::new();
    let mut at = buf;
    while at < buf + filled {
        let length: u16 = guest::read(at + 16).unwrap();
        let name = guest::read_cstr(at + 18, 256).unwrap().into_string().unwrap();
        let kind: u8 = guest::read(at + u64::from(length) - 1).unwrap();
        assert_eq!(kind, if name.starts_with('.') { libc::DT_DIR } else { libc::DT_REG });
        found.push(name);
        at += u64::from(length);
    }
    found.sort();
    assert_eq!(found, [".", "..", names[0], names[1], names[2]]);
}

#[test]
fn descriptors_of_the_translator_are_not_the_guests() {
    let mut guest = Guest::new();
    let kept = fds::keep(2).unwrap() as u64;
    assert_eq!(guest.call(nr::close, &[kept]), Err(errno::EBADF));
    assert_eq!(guest.call(nr::dup2, &[2, kept]), Err(errno::EBADF));
    assert_eq!(guest.call(nr::fcntl, &[kept, libc::F_GETFD as u64, 0]), Err(errno::EBADF));
    guest.call(nr::close_range, &[kept, kept + 5, 0]).unwrap();
    // SAFETY: only asks.
    assert!(unsafe { libc::fcntl(kept as i32, libc::F_GETFD) } >= 0);
    assert_eq!(guest.call(nr::dup2, &[2, 2]), Ok(2));
    assert_eq!(guest.call(nr::dup2, &[900, 900]), Err(errno::EBADF));
}

#[test]
fn epoll_events_are_packed() {
    const EPOLLIN: u32 = 1;
    let mut guest = Guest::new();
    let (event, events) = (guest.memory, guest.memory + 0x1000);
    let epfd = guest.call(nr::epoll_create, &[1]).unwrap();
    let pipes = [guest.pipe(), guest.pipe()];
    for (i, [read, write]) in pipes.into_iter().enumerate() {
        let data = 0x1122_3344_5566_7700 + i as u64;
        guest::write(event, &GuestEpollEvent { events: EPOLLIN, data }).unwrap();
        guest.call(nr::epoll_ctl, &[epfd, 1, read as u64, event]).unwrap();
        guest.call(nr::write, &[write as u64, event, 1]).unwrap();
    }
    let mut data = Vec::new();
    assert_eq!(guest.call(nr::epoll_wait, &[epfd, events, 10, 1000]), Ok(2));
    for i in 0..2 {
        let event: GuestEpollEvent = guest::read(events + i * 12).unwrap();
        assert_eq!({ event.events }, EPOLLIN);
        data.push(event.data);
    }
    data.sort_unstable();
    assert_eq!(data, [0x1122_3344_5566_7700, 0x1122_3344_5566_7701]);
    let mask = guest.memory + 0x2000;
    guest::write(mask, &0u64).unwrap();
    assert_eq!(guest.call(nr::epoll_pwait, &[epfd, events, 1, 0, mask, 8]), Ok(1));
    assert_eq!(guest.call(nr::epoll_wait, &[epfd, events, 0, 0]), Err(errno::EINVAL));
}

#[test]
fn select_and_poll_wait_as_long_as_they_are_told() {
    let mut guest = Guest::new();
    let [read, write] = guest.pipe();
    let (set, time) = (guest.memory, guest.memory + 0x1000);
    let count = read as u64 + 1;
    guest::write(set, &(1u64 << read)).unwrap();
    guest::write(time, &Timeval { sec: 0, usec: 2000 }).unwrap();
    assert_eq!(guest.call(nr::select, &[count, set, 0, 0, time]), Ok(0));
    assert_eq!(guest::read::<Timeval>(time).unwrap(), Timeval::default());
    let fds = guest.memory + 0x2000;
    guest::write(fds, &[read, libc::POLLIN.into()]).unwrap();
    assert_eq!(guest.call(nr::poll, &[fds, 1, 1]), Ok(0));
    guest.call(nr::write, &[write as u64, set, 1]).unwrap();
    assert_eq!(guest.call(nr::poll, &[fds, 1, u64::from(u32::MAX)]), Ok(1));
    guest::write(set, &(1u64 << read)).unwrap();
    guest::write(time, &Timeval { sec: 100, usec: 0 }).unwrap();
    assert_eq!(guest.call(nr::select, &[count, set, 0, 0, time]), Ok(1));
    assert!(guest::read::<Timeval>(time).unwrap().sec >= 90);
    let (mask, pair) = (guest.memory + 0x3000, guest.memory + 0x4000);
    guest::write(mask, &0u64).unwrap();
    guest::write(pair, &[mask, 8]).unwrap();
    guest::write(time, &Timespec { sec: 100, nsec: 0 }).unwrap();
    assert_eq!(guest.call(nr::pselect6, &[count, set, 0, 0, time, pair]), Ok(1));
    assert_eq!(guest.call(nr::ppoll, &[fds, 1, time, mask, 8]), Ok(1));
    assert_eq!(guest.call(nr::ppoll, &[fds, 1, time, mask, 4]), Err(errno::EINVAL));
}

#[test]
fn semaphores_have_the_x86_64_form() {
    const IPC_PRIVATE: u64 = 0;
    const IPC_RMID: u64 = 0;
    const IPC_STAT: u64 = 2;
    let mut guest = Guest::new();
    let id = guest.call(nr::semget, &[IPC_PRIVATE, 3, 0o600]).unwrap();
    let buf = guest.memory;
    guest.call(nr::semctl, &[id, 0, IPC_STAT, buf]).unwrap();
    let ds: GuestSemidDs = guest::read(buf).unwrap();
    guest.call(nr::semctl, &[id, 0, IPC_RMID]).unwrap();
    assert_eq!(ds.nsems, 3);
    assert!(ds.ctime > 1_600_000_000);
}

#[test]
fn time_and_the_machine() {
    let mut guest = Guest::new();
    let buf = guest.memory;
    let now = guest.call(nr::time, &[buf]).unwrap();
    assert_eq!(guest::read::<u64>(buf).unwrap(), now);
    assert!(now > 1_600_000_000);
    assert_eq!(guest.call(nr::alarm, &[1000]), Ok(0));
    assert!((990..=1000).contains(&guest.call(nr::alarm, &[0]).unwrap()));
    guest.call(nr::uname, &[buf]).unwrap();
    assert_eq!(guest::read_cstr(buf + 4 * 65, 65).unwrap().as_bytes(), b"x86_64");
    let count = guest.call(nr::sysfs, &[3]).unwrap();
    guest.call(nr::sysfs, &[2, count - 1, buf]).unwrap();
    assert_eq!(guest.call(nr::sysfs, &[1, buf]), Ok(count - 1));
    assert_eq!(guest.call(nr::sysfs, &[2, count, buf]), Err(errno::EINVAL));
}

#[test]
fn the_hosts_vdso_tells_the_time() {
    // SAFETY: reads the auxiliary vector.
    if unsafe { libc::getauxval(libc::AT_SYSINFO_EHDR) } == 0 {
        eprintln!("the host has no vDSO: its kernel must be asked, and nothing is tried");
        return;
    }
    let mut guest = Guest::new();
    let buf = guest.memory;
    // The kernel is asked nothing while a signal waits.
    guest.task.inbox.put(&SigInfo::new(libc::SIGUSR1, 0));
    assert_eq!(guest.call(nr::getppid, &[]), Err(Errno::RESTART));
    for clock in [libc::CLOCK_REALTIME, libc::CLOCK_MONOTONIC, libc::CLOCK_BOOTTIME] {
        guest::write(buf, &Timespec::default()).unwrap();
        assert_eq!(guest.call(nr::clock_gettime, &[clock as u64, buf]), Ok(0));
        assert_ne!(guest::read::<Timespec>(buf).unwrap(), Timespec::default());
    }
    assert_eq!(guest.call(nr::gettimeofday, &[buf, 0]), Ok(0));
    assert!(guest::read::<Timeval>(buf).unwrap().sec > 1_600_000_000);
    assert!(guest.call(nr::time, &[0]).unwrap() > 1_600_000_000);
}

#[test]
fn bad_addresses_are_efault() {
    extern "C" fn handler(signo: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
        // SAFETY: the kernel passes a valid context, and nobody else knows it.
        let context = unsafe { &mut *context.cast::<libc::ucontext_t>() };
        match guest::fixup(context.uc_mcontext.pc) {
            Some(pc) => context.uc_mcontext.pc = pc,
            // SAFETY: back to the default, which ends the test at the fault.
            None => unsafe {
                libc::signal(signo, libc::SIG_DFL);
            },
        }
    }
    // SAFETY: the handler touches nothing but the context; the structure is valid when zero.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigaction(libc::SIGSEGV, &action, std::ptr::null_mut());
    }
    let guest = Guest::new();
    // SAFETY: the guest's own memory.
    let protect = |prot| unsafe { libc::mprotect(guest.memory as *mut _, SIZE, prot) };
    guest::write(guest.memory, &0x1234u64).unwrap();
    protect(libc::PROT_READ);
    assert_eq!(guest::read::<u64>(guest.memory), Ok(0x1234));
    assert_eq!(guest::write(guest.memory, &1u8), Err(errno::EFAULT));
    protect(libc::PROT_NONE);
    for len in [1, 2, 4, 8, 16, 40] {
        let mut bytes = vec![0; len];
        assert_eq!(guest::read_bytes(guest.memory + 64, &mut bytes), Err(errno::EFAULT));
        assert_eq!(guest::write_bytes(guest.memory + 64, &bytes), Err(errno::EFAULT));
    }
    assert_eq!(guest::read::<u64>(8), Err(errno::EFAULT));
}
