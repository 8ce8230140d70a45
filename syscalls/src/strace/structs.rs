//! Structures that pointers point to, as data. Members and their order are those strace(1) shows; the layouts are
//! x86_64's.

use super::names::*;
use crate::table::Kind::{self, *};
use crate::table::Type::*;
use crate::table::{Member, Struct};

/// A structure is: name, size (and `more` if it has members that are not shown), and members: name, offset, kind.
macro_rules! structs {
    ($($(#[$doc:meta])* $name:ident($size:literal $($more:ident)?) {
        $($member:literal $offset:literal $kind:expr),* $(,)?
    })*) => { $(
        $(#[$doc])*
        pub static $name: Struct = Struct {
            size: $size,
            members: &[$(Member { name: $member, offset: $offset, kind: $kind }),*],
            more: structs!(@ $($more)?),
        };
    )* };
    (@) => { false };
    (@ more) => { true };
}

const INT: Kind = Value(Int);
const UINT: Kind = Value(Uint);
const HEX32: Kind = Value(Hex32);
const LONG: Kind = Value(Long);
const ULONG: Kind = Value(Ulong);
const HEX: Kind = Value(Hex);
const POINTER: Kind = Value(Ptr);
const PID_: Kind = Value(Pid);
const UID_: Kind = Value(Uid);
const FD_: Kind = Value(Fd);

structs! {
    /// An `int` alone.
    NUMBER(4) { "" 0 INT }
    /// User or group.
    ID(4) { "" 0 UID_ }
    /// A `long` alone.
    WORD(8) { "" 0 LONG }
    /// An address alone.
    ADDRESS(8) { "" 0 POINTER }
    /// getrusage(2), wait4(2)
    RUSAGE(144 more) { "ru_utime" 0 MicroTime, "ru_stime" 16 MicroTime }
    /// sysinfo(2)
    SYSINFO(112) {
        "uptime" 0 LONG, "loads" 8 Values(3), "totalram" 32 ULONG, "freeram" 40 ULONG,
        "sharedram" 48 ULONG, "bufferram" 56 ULONG, "totalswap" 64 ULONG, "freeswap" 72 ULONG,
        "procs" 80 Half(Uint), "totalhigh" 88 ULONG, "freehigh" 96 ULONG, "mem_unit" 104 UINT,
    }
    /// times(2)
    TMS(32) {
        "tms_utime" 0 LONG, "tms_stime" 8 LONG, "tms_cutime" 16 LONG, "tms_cstime" 24 LONG,
    }
    /// gettimeofday(2)
    TIMEZONE(8) { "tz_minuteswest" 0 INT, "tz_dsttime" 4 INT }
    /// statfs(2)
    STATFS(120) {
        "f_type" 0 Value(FS_MAGIC), "f_bsize" 8 LONG, "f_blocks" 16 ULONG, "f_bfree" 24 ULONG,
        "f_bavail" 32 ULONG, "f_files" 40 ULONG, "f_ffree" 48 ULONG, "f_fsid" 56 Within(&FSID),
        "f_namelen" 64 LONG, "f_frsize" 72 LONG, "f_flags" 80 Value(ST),
    }
    /// `f_fsid`
    FSID(8) { "val" 0 Within(&TWO_NUMBERS) }
    /// Two numbers.
    TWO_NUMBERS(8) { "" 0 HEX32, "" 4 HEX32 }
    /// ustat(2)
    USTAT(32) { "f_tfree" 0 INT, "f_tinode" 8 ULONG, "f_fname" 16 Text(6), "f_fpack" 22 Text(6) }
    /// adjtimex(2)
    TIMEX(208 more) {
        "modes" 0 HEX32, "offset" 8 LONG, "freq" 16 LONG, "maxerror" 24 LONG, "esterror" 32 LONG,
        "status" 40 HEX32, "constant" 48 LONG, "precision" 56 LONG, "tolerance" 64 LONG,
        "time" 72 MicroTime, "tick" 88 LONG,
    }
    /// sched_setparam(2)
    SCHED_PARAM(4) { "" 0 INT }
    /// sched_setattr(2)
    SCHED_ATTR(56) {
        "size" 0 UINT, "sched_policy" 4 Value(SCHED), "sched_flags" 8 Value(SCHED_FLAGS),
        "sched_nice" 16 INT, "sched_priority" 20 UINT, "sched_runtime" 24 ULONG,
        "sched_deadline" 32 ULONG, "sched_period" 40 ULONG,
    }
    /// First argument of capget(2)
    CAP_HEADER(8) { "version" 0 Value(CAPABILITY_VERSION), "pid" 4 PID_ }
    /// Second argument of capget(2), its first half
    CAP_DATA(12) { "effective" 0 HEX32, "permitted" 4 HEX32, "inheritable" 8 HEX32 }
    /// timer_create(2)
    SIGEVENT(64) {
        "sigev_value" 0 Within(&SIGVAL), "sigev_signo" 8 Value(Signal), "sigev_notify" 12 Value(SIGEV),
    }
    /// `union sigval`
    SIGVAL(8) { "sival_int" 0 INT, "sival_ptr" 0 POINTER }
    /// mq_open(2)
    MQ_ATTR(64) {
        "mq_flags" 0 LONG, "mq_maxmsg" 8 LONG, "mq_msgsize" 16 LONG, "mq_curmsgs" 24 LONG,
    }
    /// semop(2)
    SEMBUF(6) { "sem_num" 0 Half(Uint), "sem_op" 2 Short, "sem_flg" 4 Half(SEM_FLAGS) }
    /// msgsnd(2)
    MSGBUF(8 more) { "mtype" 0 LONG }
    /// `struct ipc64_perm`
    IPC_PERM(48 more) {
        "uid" 4 UID_, "gid" 8 UID_, "mode" 20 Value(Mode), "key" 0 UINT, "cuid" 12 UID_,
        "cgid" 16 UID_,
    }
    /// shmctl(2)
    SHMID_DS(112 more) {
        "shm_perm" 0 Within(&IPC_PERM), "shm_segsz" 48 ULONG, "shm_cpid" 80 PID_,
        "shm_lpid" 84 PID_, "shm_nattch" 88 ULONG,
    }
    /// msgctl(2)
    MSQID_DS(120 more) {
        "msg_perm" 0 Within(&IPC_PERM), "msg_qnum" 80 ULONG, "msg_qbytes" 88 ULONG,
        "msg_lspid" 96 PID_, "msg_lrpid" 100 PID_,
    }
    /// fcntl(2)
    FLOCK(32) {
        "l_type" 0 Half(LOCK_TYPE), "l_whence" 2 Half(WHENCE), "l_start" 8 LONG, "l_len" 16 LONG,
    }
    /// fcntl(2), F_SETOWN_EX
    F_OWNER(8) { "type" 0 INT, "pid" 4 PID_ }
    /// ioctl(2), TCGETS
    TERMIOS(36 more) {
        "c_iflag" 0 HEX32, "c_oflag" 4 HEX32, "c_cflag" 8 HEX32, "c_lflag" 12 HEX32,
    }
    /// ioctl(2), TIOCGWINSZ
    WINSIZE(8) {
        "ws_row" 0 Half(Uint), "ws_col" 2 Half(Uint), "ws_xpixel" 4 Half(Uint),
        "ws_ypixel" 6 Half(Uint),
    }
    /// setsockopt(2), SO_LINGER
    LINGER(8) { "l_onoff" 0 INT, "l_linger" 4 INT }
    /// SO_PEERCRED, SCM_CREDENTIALS
    UCRED(12) { "pid" 0 PID_, "uid" 4 UID_, "gid" 8 UID_ }
    /// io_submit(2)
    IOCB(64) {
        "aio_data" 0 HEX, "aio_lio_opcode" 16 Half(IOCB_CMD), "aio_fildes" 20 FD_,
        "aio_buf" 24 POINTER, "aio_nbytes" 32 ULONG, "aio_offset" 40 LONG,
    }
    /// io_getevents(2)
    IO_EVENT(32) { "data" 0 HEX, "obj" 8 POINTER, "res" 16 LONG, "res2" 24 LONG }
    /// name_to_handle_at(2)
    FILE_HANDLE(8 more) { "handle_bytes" 0 UINT, "handle_type" 4 HEX32 }
    /// perf_event_open(2)
    PERF_ATTR(112 more) { "type" 0 UINT, "size" 4 UINT, "config" 8 HEX, "sample_period" 16 ULONG }
    /// futex_waitv(2)
    FUTEX_WAITER(24) { "val" 0 ULONG, "uaddr" 8 POINTER, "flags" 16 Value(FUTEX2) }
    /// mount_setattr(2)
    MOUNT_ATTRIBUTES(32) {
        "attr_set" 0 Value(MOUNT_ATTR), "attr_clr" 8 Value(MOUNT_ATTR), "propagation" 16 Value(MS),
        "userns_fd" 24 ULONG,
    }
    /// landlock_create_ruleset(2)
    LANDLOCK_RULESET(8 more) { "handled_access_fs" 0 Value(LANDLOCK_FS) }
    /// landlock_add_rule(2)
    LANDLOCK_BENEATH(12) { "allowed_access" 0 Value(LANDLOCK_FS), "parent_fd" 8 FD_ }
    /// cachestat(2)
    CACHESTAT_RANGE(16) { "off" 0 ULONG, "len" 8 ULONG }
    /// cachestat(2)
    CACHESTAT(40) {
        "nr_cache" 0 ULONG, "nr_dirty" 8 ULONG, "nr_writeback" 16 ULONG, "nr_evicted" 24 ULONG,
        "nr_recently_evicted" 32 ULONG,
    }
    /// statmount(2), listmount(2)
    MOUNT_REQUEST(24) { "size" 0 UINT, "mnt_id" 8 HEX, "param" 16 HEX }
    /// setxattrat(2)
    XATTR_ARGS(16) { "value" 0 POINTER, "size" 8 UINT, "flags" 12 Value(XATTR) }
    /// file_getattr(2)
    FILE_ATTR(24) {
        "fa_xflags" 0 HEX, "fa_extsize" 8 UINT, "fa_nextents" 12 UINT, "fa_projid" 16 UINT,
        "fa_cowextsize" 20 UINT,
    }
    /// listns(2)
    NS_REQUEST(32) { "size" 0 UINT, "ns_id" 8 HEX, "ns_type" 16 HEX32, "user_ns_id" 24 HEX }
    /// set_robust_list(2)
    ROBUST_LIST(24) { "list" 0 POINTER, "futex_offset" 8 LONG, "list_op_pending" 16 POINTER }
    /// rseq(2)
    RSEQ(32) { "cpu_id_start" 0 UINT, "cpu_id" 4 UINT, "rseq_cs" 8 POINTER, "flags" 16 HEX32 }
    /// Last argument of pselect6(2)
    SIGMASK_AND_SIZE(16) { "sigmask" 0 POINTER, "sigsetsize" 8 ULONG }
    /// `struct msghdr` of sendmmsg(2), without its parts
    MMSGHDR(64) { "msg_hdr" 0 Within(&MSGHDR), "msg_len" 56 UINT }
    /// `struct msghdr`, without its parts
    MSGHDR(56) {
        "msg_name" 0 POINTER, "msg_namelen" 8 UINT, "msg_iov" 16 POINTER, "msg_iovlen" 24 ULONG,
        "msg_control" 32 POINTER, "msg_controllen" 40 ULONG, "msg_flags" 48 Value(MSG),
    }
    /// ioctl(2), PIDFD_GET_INFO
    PIDFD_INFO(64 more) {
        "mask" 0 HEX, "cgroupid" 8 ULONG, "pid" 16 UINT, "tgid" 20 UINT, "ppid" 24 UINT,
        "ruid" 28 UID_, "rgid" 32 UID_, "euid" 36 UID_, "egid" 40 UID_,
    }
    /// kexec_load(2)
    KEXEC_SEGMENT(32) { "buf" 0 POINTER, "bufsz" 8 ULONG, "mem" 16 POINTER, "memsz" 24 ULONG }
    /// bpf(2), whatever the command
    BPF_ATTR(16 more) { "" 0 HEX32, "" 4 HEX32, "" 8 HEX32, "" 12 HEX32 }
    /// io_uring_setup(2)
    IO_URING_PARAMS(120 more) {
        "sq_entries" 0 UINT, "cq_entries" 4 UINT, "flags" 8 HEX32, "sq_thread_cpu" 12 UINT,
        "sq_thread_idle" 16 UINT, "features" 20 HEX32,
    }
    /// seccomp(2), SECCOMP_SET_MODE_FILTER
    SOCK_FPROG(16) { "len" 0 Half(Uint), "filter" 8 POINTER }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that a member takes.
    fn width(kind: Kind) -> u16 {
        match kind {
            Value(ty) if ty.width() == crate::table::Width::U64 => 8,
            Value(_) => 4,
            Byte(_) => 1,
            Half(_) | Short => 2,
            Time | MicroTime => 16,
            Text(size) => size,
            Values(count) => count * 8,
            Within(inner) => inner.size,
            Signals => 8,
        }
    }

    #[test]
    fn members_are_within_their_structures() {
        for within in [&RUSAGE, &SYSINFO, &STATFS, &TIMEX, &SCHED_ATTR, &SHMID_DS, &MSQID_DS, &IOCB]
        {
            for member in within.members {
                assert!(member.offset + width(member.kind) <= within.size, "{}", member.name);
            }
        }
    }
}
