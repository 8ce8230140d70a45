//! Names of values and flags, x86_64's where the architectures differ.

use crate::abi::open_flags;
use crate::table::{Names, Type, Width};

/// Signals from 1 on, without "SIG" (signal(7)).
pub const SIGNALS: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// Flags of open(2) and pipe2(2).
pub const OPEN: Type = Type::Named(
    Width::I32,
    &Names {
        mask: 3,
        values: &[(0, "O_RDONLY"), (1, "O_WRONLY"), (2, "O_RDWR")],
        flags: &OPEN_FLAGS,
        mode: 0,
    },
);

/// Flags of pipe2(2) and dup3(2): those of open(2), without an access mode.
pub const DESCRIPTOR: Type =
    Type::Named(Width::I32, &Names { mask: 0, values: &[], flags: &OPEN_FLAGS, mode: 0 });

/// The flags of [`open_flags::TABLE`], without the access modes at its beginning.
const OPEN_FLAGS: [(u64, &str); open_flags::TABLE.len() - 2] = {
    let mut flags = [(0, ""); open_flags::TABLE.len() - 2];
    let mut i = 0;
    while i < flags.len() {
        let (name, guest, _) = open_flags::TABLE[i + 2];
        flags[i] = (guest, name);
        i += 1;
    }
    flags
};

/// One of the listed values.
macro_rules! values {
    ($($(#[$doc:meta])* $name:ident($width:ident) { $($value:ident = $number:expr),* $(,)? })*) => { $(
        $(#[$doc])*
        pub const $name: $crate::table::Type = $crate::table::Type::Named($crate::table::Width::$width, &$crate::table::Names {
            mask: u64::MAX,
            values: &[$(($number, stringify!($value))),*],
            flags: &[],
            mode: 0,
        });
    )* };
}

/// A union of the listed flags; before the bar, what zero is called, or values under a mask.
macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident($width:ident $(& $mask:literal)?) {
        $($value:ident = $number:expr),* ; $($flag:ident = $bits:expr),* $(,)?
    })*) => { $(
        $(#[$doc])*
        pub const $name: $crate::table::Type = $crate::table::Type::Named($crate::table::Width::$width, &$crate::table::Names {
            mask: 0 $(+ $mask)?,
            values: &[$(($number, stringify!($value))),*],
            flags: &[$(($bits, stringify!($flag))),*],
            mode: 0,
        });
    )* };
}

mod files;
mod ipc;
mod memory;
mod process;
pub mod signals;
pub mod sockets;

pub use files::*;
pub use ipc::*;
pub use memory::*;
pub use process::*;

values! {
    /// lseek(2)
    WHENCE(U32) { SEEK_SET = 0, SEEK_CUR = 1, SEEK_END = 2, SEEK_DATA = 3, SEEK_HOLE = 4 }
    /// rt_sigprocmask(2)
    SIG_HOW(I32) { SIG_BLOCK = 0, SIG_UNBLOCK = 1, SIG_SETMASK = 2 }
    /// clock_gettime(2)
    CLOCK(I32) {
        CLOCK_REALTIME = 0, CLOCK_MONOTONIC = 1, CLOCK_PROCESS_CPUTIME_ID = 2,
        CLOCK_THREAD_CPUTIME_ID = 3, CLOCK_MONOTONIC_RAW = 4, CLOCK_REALTIME_COARSE = 5,
        CLOCK_MONOTONIC_COARSE = 6, CLOCK_BOOTTIME = 7, CLOCK_REALTIME_ALARM = 8,
        CLOCK_BOOTTIME_ALARM = 9, CLOCK_TAI = 11,
    }
    /// getitimer(2)
    ITIMER(I32) { ITIMER_REAL = 0, ITIMER_VIRTUAL = 1, ITIMER_PROF = 2 }
    /// epoll_ctl(2)
    EPOLL_CTL(I32) { EPOLL_CTL_ADD = 1, EPOLL_CTL_DEL = 2, EPOLL_CTL_MOD = 3 }
    /// shutdown(2)
    SHUT(I32) { SHUT_RD = 0, SHUT_WR = 1, SHUT_RDWR = 2 }
    /// Address families
    AF(I32) {
        AF_UNSPEC = 0, AF_UNIX = 1, AF_INET = 2, AF_INET6 = 10, AF_NETLINK = 16, AF_PACKET = 17,
        AF_ALG = 38, AF_VSOCK = 40, AF_QIPCRTR = 42,
    }
    /// Levels of setsockopt(2)
    SOL(I32) {
        SOL_IP = 0, SOL_SOCKET = 1, SOL_TCP = 6, SOL_UDP = 17, SOL_IPV6 = 41, SOL_RAW = 255,
        SOL_PACKET = 263, SOL_NETLINK = 270, SOL_ALG = 279,
    }
    /// getrlimit(2)
    RLIMIT(U32) {
        RLIMIT_CPU = 0, RLIMIT_FSIZE = 1, RLIMIT_DATA = 2, RLIMIT_STACK = 3, RLIMIT_CORE = 4,
        RLIMIT_RSS = 5, RLIMIT_NPROC = 6, RLIMIT_NOFILE = 7, RLIMIT_MEMLOCK = 8, RLIMIT_AS = 9,
        RLIMIT_LOCKS = 10, RLIMIT_SIGPENDING = 11, RLIMIT_MSGQUEUE = 12, RLIMIT_NICE = 13,
        RLIMIT_RTPRIO = 14, RLIMIT_RTTIME = 15,
    }
    /// madvise(2)
    MADV(I32) {
        MADV_NORMAL = 0, MADV_RANDOM = 1, MADV_SEQUENTIAL = 2, MADV_WILLNEED = 3, MADV_DONTNEED = 4,
        MADV_FREE = 8, MADV_REMOVE = 9, MADV_DONTFORK = 10, MADV_DOFORK = 11, MADV_MERGEABLE = 12,
        MADV_UNMERGEABLE = 13, MADV_HUGEPAGE = 14, MADV_NOHUGEPAGE = 15, MADV_DONTDUMP = 16,
        MADV_DODUMP = 17, MADV_WIPEONFORK = 18, MADV_KEEPONFORK = 19, MADV_COLD = 20,
        MADV_PAGEOUT = 21, MADV_POPULATE_READ = 22, MADV_POPULATE_WRITE = 23, MADV_COLLAPSE = 25,
        MADV_HWPOISON = 100, MADV_GUARD_INSTALL = 102, MADV_GUARD_REMOVE = 103,
    }
    /// posix_fadvise(2)
    FADV(I32) {
        POSIX_FADV_NORMAL = 0, POSIX_FADV_RANDOM = 1, POSIX_FADV_SEQUENTIAL = 2,
        POSIX_FADV_WILLNEED = 3, POSIX_FADV_DONTNEED = 4, POSIX_FADV_NOREUSE = 5,
    }
    /// fcntl(2)
    FCNTL(U32) {
        F_DUPFD = 0, F_GETFD = 1, F_SETFD = 2, F_GETFL = 3, F_SETFL = 4, F_GETLK = 5, F_SETLK = 6,
        F_SETLKW = 7, F_SETOWN = 8, F_GETOWN = 9, F_SETSIG = 10, F_GETSIG = 11, F_SETOWN_EX = 15,
        F_GETOWN_EX = 16, F_OFD_GETLK = 36, F_OFD_SETLK = 37, F_OFD_SETLKW = 38, F_SETLEASE = 1024,
        F_GETLEASE = 1025, F_NOTIFY = 1026, F_DUPFD_QUERY = 1027, F_DUPFD_CLOEXEC = 1030,
        F_SETPIPE_SZ = 1031, F_GETPIPE_SZ = 1032, F_ADD_SEALS = 1033, F_GET_SEALS = 1034,
    }
    /// ioctl(2): the common ones
    IOCTL(U32) {
        TCGETS = 0x5401, TCSETS = 0x5402, TCSETSW = 0x5403, TCSETSF = 0x5404, TCSBRK = 0x5409,
        TCXONC = 0x540a, TCFLSH = 0x540b, TIOCSCTTY = 0x540e, TIOCGPGRP = 0x540f,
        TIOCSPGRP = 0x5410, TIOCOUTQ = 0x5411, TIOCGWINSZ = 0x5413, TIOCSWINSZ = 0x5414,
        FIONREAD = 0x541b, FIONBIO = 0x5421, TIOCNOTTY = 0x5422, TIOCGSID = 0x5429,
        TIOCGPTN = 0x8004_5430, TIOCSPTLCK = 0x4004_5431, TIOCGPTPEER = 0x5441, FIONCLEX = 0x5450,
        FIOCLEX = 0x5451, FIOASYNC = 0x5452, SIOCGIFCONF = 0x8912, SIOCGIFFLAGS = 0x8913,
        SIOCGIFADDR = 0x8915, FICLONE = 0x4004_9409, FICLONERANGE = 0x4020_940d,
        BLKGETSIZE64 = 0x8008_1272, FS_IOC_GETFLAGS = 0x8008_6601, FS_IOC_SETFLAGS = 0x4008_6602,
        PIDFD_GET_CGROUP_NAMESPACE = 0xff01, PIDFD_GET_IPC_NAMESPACE = 0xff02,
        PIDFD_GET_MNT_NAMESPACE = 0xff03, PIDFD_GET_NET_NAMESPACE = 0xff04,
        PIDFD_GET_PID_NAMESPACE = 0xff05, PIDFD_GET_PID_FOR_CHILDREN_NAMESPACE = 0xff06,
        PIDFD_GET_TIME_NAMESPACE = 0xff07, PIDFD_GET_TIME_FOR_CHILDREN_NAMESPACE = 0xff08,
        PIDFD_GET_USER_NAMESPACE = 0xff09, PIDFD_GET_UTS_NAMESPACE = 0xff0a,
        NS_GET_USERNS = 0xb701, NS_GET_PARENT = 0xb702, NS_GET_NSTYPE = 0xb703,
        NS_GET_OWNER_UID = 0xb704, NS_GET_MNTNS_ID = 0x8008_b705,
        NS_GET_PID_FROM_PIDNS = 0x8004_b706, NS_GET_TGID_FROM_PIDNS = 0x8004_b707,
        NS_GET_PID_IN_PIDNS = 0x8004_b708, NS_GET_TGID_IN_PIDNS = 0x8004_b709,
        UFFDIO_API = 0xc018_aa3f, UFFDIO_REGISTER = 0xc020_aa00, UFFDIO_UNREGISTER = 0x8010_aa01,
        UFFDIO_WAKE = 0x8010_aa02, UFFDIO_COPY = 0xc028_aa03, UFFDIO_ZEROPAGE = 0xc020_aa04,
        LOOP_SET_FD = 0x4c00, LOOP_CLR_FD = 0x4c01, LOOP_CTL_GET_FREE = 0x4c82,
        EPIOCSPARAMS = 0x4008_8a01, EPIOCGPARAMS = 0x8008_8a02, TCGETS2 = 0x802c_542a,
        TCSETS2 = 0x402c_542b, TIOCSTI = 0x5412, TIOCEXCL = 0x540c, TIOCNXCL = 0x540d,
        TIOCMGET = 0x5415, TCSBRKP = 0x5425, TIOCSBRK = 0x5427, TIOCCBRK = 0x5428,
        SIOCGIFNAME = 0x8910, SIOCSIFFLAGS = 0x8914, SIOCSIFADDR = 0x8916, SIOCGIFNETMASK = 0x891b,
        SIOCGIFHWADDR = 0x8927, SIOCGIFINDEX = 0x8933, SIOCGIFMTU = 0x8921, SIOCATMARK = 0x8905,
        SIOCGSTAMP_OLD = 0x8906, RNDGETENTCNT = 0x8004_5200,
    }
    /// arch_prctl(2)
    ARCH(I32) {
        ARCH_SET_GS = 0x1001, ARCH_SET_FS = 0x1002, ARCH_GET_FS = 0x1003, ARCH_GET_GS = 0x1004,
        ARCH_GET_CPUID = 0x1011, ARCH_SET_CPUID = 0x1012, ARCH_GET_XCOMP_SUPP = 0x1021,
        ARCH_GET_XCOMP_PERM = 0x1022, ARCH_REQ_XCOMP_PERM = 0x1023, ARCH_MAP_VDSO_X32 = 0x2001,
        ARCH_MAP_VDSO_32 = 0x2002, ARCH_MAP_VDSO_64 = 0x2003, ARCH_GET_UNTAG_MASK = 0x4001,
        ARCH_SHSTK_ENABLE = 0x5001, ARCH_SHSTK_DISABLE = 0x5002, ARCH_SHSTK_LOCK = 0x5003,
        ARCH_SHSTK_STATUS = 0x5005,
    }
    /// prctl(2)
    PRCTL(I32) {
        PR_SET_PDEATHSIG = 1, PR_GET_PDEATHSIG = 2, PR_GET_DUMPABLE = 3, PR_SET_DUMPABLE = 4,
        PR_GET_UNALIGN = 5, PR_SET_UNALIGN = 6, PR_GET_KEEPCAPS = 7, PR_SET_KEEPCAPS = 8, PR_SET_NAME = 15, PR_GET_NAME = 16,
        PR_GET_SECCOMP = 21, PR_SET_SECCOMP = 22, PR_CAPBSET_READ = 23, PR_CAPBSET_DROP = 24,
        PR_GET_TSC = 25, PR_SET_TSC = 26, PR_GET_SECUREBITS = 27, PR_SET_SECUREBITS = 28,
        PR_SET_TIMERSLACK = 29, PR_GET_TIMERSLACK = 30, PR_SET_MM = 35,
        PR_SET_CHILD_SUBREAPER = 36, PR_GET_CHILD_SUBREAPER = 37, PR_SET_NO_NEW_PRIVS = 38,
        PR_GET_NO_NEW_PRIVS = 39, PR_GET_TID_ADDRESS = 40, PR_SET_THP_DISABLE = 41,
        PR_GET_THP_DISABLE = 42, PR_SET_FP_MODE = 45, PR_GET_FP_MODE = 46, PR_SVE_SET_VL = 50,
        PR_SVE_GET_VL = 51, PR_SET_TAGGED_ADDR_CTRL = 55, PR_GET_TAGGED_ADDR_CTRL = 56,
        PR_MCE_KILL = 33, PR_MCE_KILL_GET = 34, PR_TASK_PERF_EVENTS_DISABLE = 31,
        PR_TASK_PERF_EVENTS_ENABLE = 32, PR_GET_TIMING = 13, PR_SET_TIMING = 14, PR_CAP_AMBIENT = 47, PR_GET_SPECULATION_CTRL = 52,
        PR_SET_SPECULATION_CTRL = 53, PR_SET_IO_FLUSHER = 57, PR_GET_IO_FLUSHER = 58,
        PR_SET_SYSCALL_USER_DISPATCH = 59, PR_SCHED_CORE = 62, PR_SET_MDWE = 65, PR_GET_MDWE = 66,
        PR_SET_MEMORY_MERGE = 67, PR_GET_MEMORY_MERGE = 68, PR_GET_AUXV = 0x4155_5856,
        PR_SET_VMA = 0x5356_4d41, PR_SET_PTRACER = 0x5961_6d61,
    }
    /// ptrace(2)
    PTRACE(U64) {
        PTRACE_TRACEME = 0, PTRACE_PEEKTEXT = 1, PTRACE_PEEKDATA = 2, PTRACE_PEEKUSER = 3,
        PTRACE_POKETEXT = 4, PTRACE_POKEDATA = 5, PTRACE_POKEUSER = 6, PTRACE_CONT = 7,
        PTRACE_KILL = 8, PTRACE_SINGLESTEP = 9, PTRACE_GETREGS = 12, PTRACE_SETREGS = 13,
        PTRACE_GETFPREGS = 14, PTRACE_SETFPREGS = 15, PTRACE_ATTACH = 16, PTRACE_DETACH = 17,
        PTRACE_SYSCALL = 24, PTRACE_SYSEMU = 31, PTRACE_SETOPTIONS = 0x4200,
        PTRACE_GETEVENTMSG = 0x4201, PTRACE_GETSIGINFO = 0x4202, PTRACE_SETSIGINFO = 0x4203,
        PTRACE_GETREGSET = 0x4204, PTRACE_SETREGSET = 0x4205, PTRACE_SEIZE = 0x4206,
        PTRACE_INTERRUPT = 0x4207, PTRACE_LISTEN = 0x4208, PTRACE_GET_SYSCALL_INFO = 0x420e,
    }
    /// seccomp(2)
    SECCOMP(U32) {
        SECCOMP_SET_MODE_STRICT = 0, SECCOMP_SET_MODE_FILTER = 1, SECCOMP_GET_ACTION_AVAIL = 2,
        SECCOMP_GET_NOTIF_SIZES = 3,
    }
    /// stat(2): the type in `st_mode`
    FILE_TYPE(U32) {
        S_IFIFO = 0o010000, S_IFCHR = 0o020000, S_IFDIR = 0o040000, S_IFBLK = 0o060000,
        S_IFREG = 0o100000, S_IFLNK = 0o120000, S_IFSOCK = 0o140000,
    }
}

flags! {
    /// access(2)
    ACCESS(I32) { F_OK = 0; R_OK = 4, W_OK = 2, X_OK = 1 }
    /// `flags` of the calls that take a directory descriptor; but for unlinkat(2), 0x200 is AT_EACCESS
    AT(I32) {;
        AT_SYMLINK_NOFOLLOW = 0x100, AT_EACCESS = 0x200, AT_SYMLINK_FOLLOW = 0x400,
        AT_NO_AUTOMOUNT = 0x800, AT_EMPTY_PATH = 0x1000, AT_STATX_FORCE_SYNC = 0x2000,
        AT_STATX_DONT_SYNC = 0x4000, AT_RECURSIVE = 0x8000,
    }
    /// unlinkat(2)
    UNLINK(I32) {; AT_REMOVEDIR = 0x200 }
    /// mmap(2) and mprotect(2)
    PROT(U64) {
        PROT_NONE = 0;
        PROT_READ = 1, PROT_WRITE = 2, PROT_EXEC = 4, PROT_SEM = 8,
        PROT_GROWSDOWN = 0x0100_0000, PROT_GROWSUP = 0x0200_0000,
    }
    /// mmap(2)
    MAP(U64 & 0xf) {
        MAP_FILE = 0, MAP_SHARED = 1, MAP_PRIVATE = 2, MAP_SHARED_VALIDATE = 3;
        MAP_FIXED = 0x10, MAP_ANONYMOUS = 0x20, MAP_32BIT = 0x40, MAP_ABOVE4G = 0x80,
        MAP_GROWSDOWN = 0x100, MAP_DENYWRITE = 0x800, MAP_EXECUTABLE = 0x1000, MAP_LOCKED = 0x2000,
        MAP_NORESERVE = 0x4000, MAP_POPULATE = 0x8000, MAP_NONBLOCK = 0x10000, MAP_STACK = 0x20000,
        MAP_HUGETLB = 0x40000, MAP_SYNC = 0x80000, MAP_FIXED_NOREPLACE = 0x10_0000,
    }
    /// mremap(2)
    MREMAP(U64) {; MREMAP_MAYMOVE = 1, MREMAP_FIXED = 2, MREMAP_DONTUNMAP = 4 }
    /// msync(2)
    MSYNC(I32) {; MS_ASYNC = 1, MS_INVALIDATE = 2, MS_SYNC = 4 }
    /// mount(2)
    MS(U64) {;
        MS_RDONLY = 1, MS_NOSUID = 2, MS_NODEV = 4, MS_NOEXEC = 8, MS_SYNCHRONOUS = 16,
        MS_REMOUNT = 32, MS_NOSYMFOLLOW = 256, MS_NOATIME = 1024, MS_NODIRATIME = 2048,
        MS_BIND = 4096, MS_MOVE = 8192, MS_REC = 16384, MS_SILENT = 32768, MS_UNBINDABLE = 1 << 17,
        MS_PRIVATE = 1 << 18, MS_SLAVE = 1 << 19, MS_SHARED = 1 << 20, MS_RELATIME = 1 << 21,
        MS_STRICTATIME = 1 << 24, MS_LAZYTIME = 1 << 25,
    }
    /// clone(2); the low byte is the signal at the end
    CLONE(U64 & 0xff) {
        SIGCHLD = 17;
        CLONE_VM = 0x100, CLONE_FS = 0x200, CLONE_FILES = 0x400, CLONE_SIGHAND = 0x800,
        CLONE_PIDFD = 0x1000, CLONE_PTRACE = 0x2000, CLONE_VFORK = 0x4000, CLONE_PARENT = 0x8000,
        CLONE_THREAD = 0x10000, CLONE_NEWNS = 0x20000, CLONE_SYSVSEM = 0x40000,
        CLONE_SETTLS = 0x80000, CLONE_PARENT_SETTID = 0x10_0000, CLONE_CHILD_CLEARTID = 0x20_0000,
        CLONE_DETACHED = 0x40_0000, CLONE_UNTRACED = 0x80_0000, CLONE_CHILD_SETTID = 0x100_0000,
        CLONE_NEWCGROUP = 0x200_0000, CLONE_NEWUTS = 0x400_0000, CLONE_NEWIPC = 0x800_0000,
        CLONE_NEWUSER = 0x1000_0000, CLONE_NEWPID = 0x2000_0000, CLONE_NEWNET = 0x4000_0000,
        CLONE_IO = 0x8000_0000,
    }
    /// unshare(2) and the 64-bit flags of clone3(2)
    UNSHARE(U64) {;
        CLONE_NEWTIME = 0x80, CLONE_VM = 0x100, CLONE_FS = 0x200, CLONE_FILES = 0x400,
        CLONE_SIGHAND = 0x800, CLONE_PIDFD = 0x1000, CLONE_PTRACE = 0x2000, CLONE_VFORK = 0x4000,
        CLONE_PARENT = 0x8000, CLONE_THREAD = 0x10000, CLONE_NEWNS = 0x20000,
        CLONE_SYSVSEM = 0x40000, CLONE_SETTLS = 0x80000, CLONE_PARENT_SETTID = 0x10_0000,
        CLONE_CHILD_CLEARTID = 0x20_0000, CLONE_DETACHED = 0x40_0000, CLONE_UNTRACED = 0x80_0000,
        CLONE_CHILD_SETTID = 0x100_0000, CLONE_NEWCGROUP = 0x200_0000, CLONE_NEWUTS = 0x400_0000,
        CLONE_NEWIPC = 0x800_0000, CLONE_NEWUSER = 0x1000_0000, CLONE_NEWPID = 0x2000_0000,
        CLONE_NEWNET = 0x4000_0000, CLONE_IO = 0x8000_0000, CLONE_CLEAR_SIGHAND = 1 << 32,
        CLONE_INTO_CGROUP = 1 << 33,
    }
    /// setns(2)
    NSTYPE(I32) {;
        CLONE_NEWTIME = 0x80, CLONE_NEWNS = 0x20000, CLONE_NEWCGROUP = 0x200_0000,
        CLONE_NEWUTS = 0x400_0000, CLONE_NEWIPC = 0x800_0000, CLONE_NEWUSER = 0x1000_0000,
        CLONE_NEWPID = 0x2000_0000, CLONE_NEWNET = 0x4000_0000,
    }
    /// socket(2), accept4(2)
    SOCK(I32 & 0xf) {
        SOCK_STREAM = 1, SOCK_DGRAM = 2, SOCK_RAW = 3, SOCK_RDM = 4, SOCK_SEQPACKET = 5, SOCK_PACKET = 10;
        SOCK_CLOEXEC = 0o2000000, SOCK_NONBLOCK = 0o4000,
    }
    /// send(2), recv(2)
    MSG(U32) {;
        MSG_OOB = 1, MSG_PEEK = 2, MSG_DONTROUTE = 4, MSG_CTRUNC = 8, MSG_TRUNC = 0x20,
        MSG_DONTWAIT = 0x40, MSG_EOR = 0x80, MSG_WAITALL = 0x100, MSG_CONFIRM = 0x800,
        MSG_ERRQUEUE = 0x2000, MSG_NOSIGNAL = 0x4000, MSG_MORE = 0x8000, MSG_WAITFORONE = 0x10000,
        MSG_ZEROCOPY = 0x400_0000, MSG_FASTOPEN = 0x2000_0000, MSG_CMSG_CLOEXEC = 0x4000_0000,
    }
    /// flock(2)
    LOCK(U32) {; LOCK_SH = 1, LOCK_EX = 2, LOCK_NB = 4, LOCK_UN = 8 }
    /// wait4(2), waitid(2)
    WAIT(I32) {;
        WNOHANG = 1, WSTOPPED = 2, WEXITED = 4, WCONTINUED = 8, WNOWAIT = 0x0100_0000,
        __WNOTHREAD = 0x2000_0000, __WALL = 0x4000_0000, __WCLONE = 0x8000_0000,
    }
    /// clock_nanosleep(2)
    TIMER(I32) {; TIMER_ABSTIME = 1 }
    /// setxattr(2)
    XATTR(I32) {; XATTR_CREATE = 1, XATTR_REPLACE = 2 }
    /// splice(2)
    SPLICE(U32) {; SPLICE_F_MOVE = 1, SPLICE_F_NONBLOCK = 2, SPLICE_F_MORE = 4, SPLICE_F_GIFT = 8 }
    /// fallocate(2)
    FALLOC(I32) {;
        FALLOC_FL_KEEP_SIZE = 1, FALLOC_FL_PUNCH_HOLE = 2, FALLOC_FL_COLLAPSE_RANGE = 8,
        FALLOC_FL_ZERO_RANGE = 16, FALLOC_FL_INSERT_RANGE = 32, FALLOC_FL_UNSHARE_RANGE = 64,
    }
    /// renameat2(2)
    RENAME(U32) {; RENAME_NOREPLACE = 1, RENAME_EXCHANGE = 2, RENAME_WHITEOUT = 4 }
    /// getrandom(2)
    GRND(U32) {; GRND_NONBLOCK = 1, GRND_RANDOM = 2, GRND_INSECURE = 4 }
    /// memfd_create(2)
    MFD(U32) {; MFD_CLOEXEC = 1, MFD_ALLOW_SEALING = 2, MFD_HUGETLB = 4, MFD_NOEXEC_SEAL = 8, MFD_EXEC = 16 }
    /// close_range(2)
    CLOSE_RANGE(U32) {; CLOSE_RANGE_UNSHARE = 2, CLOSE_RANGE_CLOEXEC = 4 }
    /// eventfd2(2)
    EFD(I32) {; EFD_SEMAPHORE = 1, EFD_CLOEXEC = 0o2000000, EFD_NONBLOCK = 0o4000 }
    /// epoll_create1(2)
    EPOLL(I32) {; EPOLL_CLOEXEC = 0o2000000 }
    /// signalfd4(2)
    SFD(I32) {; SFD_CLOEXEC = 0o2000000, SFD_NONBLOCK = 0o4000 }
    /// timerfd_create(2)
    TFD(I32) {; TFD_CLOEXEC = 0o2000000, TFD_NONBLOCK = 0o4000 }
    /// inotify_init1(2)
    INOTIFY(I32) {; IN_CLOEXEC = 0o2000000, IN_NONBLOCK = 0o4000 }
    /// poll(2)
    POLL(U32) {;
        POLLIN = 1, POLLPRI = 2, POLLOUT = 4, POLLERR = 8, POLLHUP = 16, POLLNVAL = 32,
        POLLRDNORM = 64, POLLRDBAND = 128, POLLWRNORM = 256, POLLWRBAND = 512, POLLRDHUP = 0x2000,
    }
    /// `events` of epoll_ctl(2)
    EPOLL_EVENTS(U32) {;
        EPOLLIN = 1, EPOLLPRI = 2, EPOLLOUT = 4, EPOLLERR = 8, EPOLLHUP = 16, EPOLLRDNORM = 64,
        EPOLLRDBAND = 128, EPOLLWRNORM = 256, EPOLLWRBAND = 512, EPOLLRDHUP = 0x2000,
        EPOLLEXCLUSIVE = 1 << 28, EPOLLWAKEUP = 1 << 29, EPOLLONESHOT = 1 << 30, EPOLLET = 1 << 31,
    }
    /// statx(2)
    STATX(U32) {;
        STATX_ALL = 0xfff, STATX_BASIC_STATS = 0x7ff, STATX_TYPE = 1, STATX_MODE = 2, STATX_NLINK = 4,
        STATX_UID = 8, STATX_GID = 16, STATX_ATIME = 32, STATX_MTIME = 64, STATX_CTIME = 128,
        STATX_INO = 256, STATX_SIZE = 512, STATX_BLOCKS = 1024, STATX_BTIME = 2048,
        STATX_MNT_ID = 4096, STATX_DIOALIGN = 8192, STATX_MNT_ID_UNIQUE = 16384,
    }
    /// `sa_flags` of sigaction(2)
    SA(U64) {;
        SA_RESTORER = 0x0400_0000, SA_ONSTACK = 0x0800_0000, SA_RESTART = 0x1000_0000,
        SA_NODEFER = 0x4000_0000, SA_RESETHAND = 0x8000_0000, SA_NOCLDSTOP = 1, SA_NOCLDWAIT = 2,
        SA_SIGINFO = 4,
    }
    /// `ss_flags` of sigaltstack(2)
    SS(U32) {; SS_ONSTACK = 1, SS_DISABLE = 2, SS_AUTODISARM = 0x8000_0000 }
}
