//! SysV IPC, message queues, futexes.

use crate::table::{Names, Type, Width};

/// Flags of shmget(2), semget(2) and msgget(2): with a mode.
pub const IPC_GET: Type = Type::Named(
    Width::U32,
    &Names {
        mask: 0,
        values: &[],
        flags: &[
            (0o1000, "IPC_CREAT"),
            (0o2000, "IPC_EXCL"),
            (0o4000, "SHM_HUGETLB"),
            (0o10000, "SHM_NORESERVE"),
        ],
        mode: 0o777,
    },
);

values! {
    /// Keys of shmget(2), semget(2) and msgget(2)
    IPC_KEY(U32) { IPC_PRIVATE = 0 }
    /// semctl(2), shmctl(2), msgctl(2)
    IPC_CMD(I32) {
        IPC_RMID = 0, IPC_SET = 1, IPC_STAT = 2, IPC_INFO = 3, GETPID = 11, GETVAL = 12, GETALL = 13,
        GETNCNT = 14, GETZCNT = 15, SETVAL = 16, SETALL = 17, SEM_STAT = 18, SEM_INFO = 19,
        SEM_STAT_ANY = 20,
    }
    /// shmctl(2)
    SHM_CMD(I32) {
        IPC_RMID = 0, IPC_SET = 1, IPC_STAT = 2, IPC_INFO = 3, SHM_LOCK = 11, SHM_UNLOCK = 12,
        SHM_STAT = 13, SHM_INFO = 14, SHM_STAT_ANY = 15,
    }
    /// msgctl(2)
    MSG_CMD(I32) {
        IPC_RMID = 0, IPC_SET = 1, IPC_STAT = 2, IPC_INFO = 3, MSG_STAT = 11, MSG_INFO = 12,
        MSG_STAT_ANY = 13,
    }
    /// `sigev_notify` of sigevent(3)
    SIGEV(I32) { SIGEV_SIGNAL = 0, SIGEV_NONE = 1, SIGEV_THREAD = 2, SIGEV_THREAD_ID = 4 }
}

flags! {
    /// shmat(2)
    SHMAT(U32) {; SHM_RDONLY = 0o10000, SHM_RND = 0o20000, SHM_REMAP = 0o40000, SHM_EXEC = 0o100000 }
    /// msgsnd(2), msgrcv(2)
    MSG_FLAGS(U32) {; IPC_NOWAIT = 0o4000, MSG_NOERROR = 0o10000, MSG_EXCEPT = 0o20000, MSG_COPY = 0o40000 }
    /// `sem_flg` of semop(2)
    SEM_FLAGS(U32) {; SEM_UNDO = 0x1000, IPC_NOWAIT = 0o4000 }
    /// futex(2)
    FUTEX(I32 & 0xff) {
        FUTEX_WAIT = 0, FUTEX_WAKE = 1, FUTEX_REQUEUE = 3, FUTEX_CMP_REQUEUE = 4, FUTEX_WAKE_OP = 5,
        FUTEX_LOCK_PI = 6, FUTEX_UNLOCK_PI = 7, FUTEX_TRYLOCK_PI = 8, FUTEX_WAIT_BITSET = 9,
        FUTEX_WAKE_BITSET = 10, FUTEX_WAIT_REQUEUE_PI = 11, FUTEX_CMP_REQUEUE_PI = 12,
        FUTEX_LOCK_PI2 = 13, FUTEX_WAIT_PRIVATE = 128, FUTEX_WAKE_PRIVATE = 129,
        FUTEX_REQUEUE_PRIVATE = 131, FUTEX_CMP_REQUEUE_PRIVATE = 132, FUTEX_WAKE_OP_PRIVATE = 133,
        FUTEX_LOCK_PI_PRIVATE = 134, FUTEX_UNLOCK_PI_PRIVATE = 135, FUTEX_TRYLOCK_PI_PRIVATE = 136,
        FUTEX_WAIT_BITSET_PRIVATE = 137, FUTEX_WAKE_BITSET_PRIVATE = 138,
        FUTEX_WAIT_REQUEUE_PI_PRIVATE = 139, FUTEX_CMP_REQUEUE_PI_PRIVATE = 140,
        FUTEX_LOCK_PI2_PRIVATE = 141;
        FUTEX_CLOCK_REALTIME = 256,
    }
    /// futex_waitv(2) and the calls after it (linux/futex.h)
    FUTEX2(U32 & 3) {
        FUTEX2_SIZE_U8 = 0, FUTEX2_SIZE_U16 = 1, FUTEX2_SIZE_U32 = 2, FUTEX2_SIZE_U64 = 3;
        FUTEX2_NUMA = 4, FUTEX2_MPOL = 8, FUTEX2_PRIVATE = 128,
    }
}
