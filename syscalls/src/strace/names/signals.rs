//! Why a signal came: `si_code` of sigaction(2).

use crate::table::Type;

/// The names of a signal's codes.
pub fn codes(signo: i32) -> Type {
    match signo {
        libc::SIGILL => ILL,
        libc::SIGFPE => FPE,
        libc::SIGSEGV => SEGV,
        libc::SIGBUS => BUS,
        libc::SIGTRAP => TRAP,
        libc::SIGCHLD => CLD,
        libc::SIGIO => POLL_CODE,
        libc::SIGSYS => SYS,
        _ => ANY,
    }
}

/// Codes that a signal of any number may have, in front of those given.
macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident { $($code:ident = $number:literal),* $(,)? })*) => {
        values! { $(
            $(#[$doc])*
            $name(I32) {
                $($code = $number,)*
                SI_USER = 0, SI_KERNEL = 0x80, SI_QUEUE = -1i64 as u64, SI_TIMER = -2i64 as u64,
                SI_MESGQ = -3i64 as u64, SI_ASYNCIO = -4i64 as u64, SI_SIGIO = -5i64 as u64,
                SI_TKILL = -6i64 as u64, SI_ASYNCNL = -60i64 as u64,
            }
        )* }
    };
}

codes! {
    /// Of signals without codes of their own.
    ANY {}
    /// SIGILL
    ILL {
        ILL_ILLOPC = 1, ILL_ILLOPN = 2, ILL_ILLADR = 3, ILL_ILLTRP = 4, ILL_PRVOPC = 5,
        ILL_PRVREG = 6, ILL_COPROC = 7, ILL_BADSTK = 8,
    }
    /// SIGFPE
    FPE {
        FPE_INTDIV = 1, FPE_INTOVF = 2, FPE_FLTDIV = 3, FPE_FLTOVF = 4, FPE_FLTUND = 5,
        FPE_FLTRES = 6, FPE_FLTINV = 7, FPE_FLTSUB = 8,
    }
    /// SIGSEGV
    SEGV { SEGV_MAPERR = 1, SEGV_ACCERR = 2, SEGV_BNDERR = 3, SEGV_PKUERR = 4 }
    /// SIGBUS
    BUS { BUS_ADRALN = 1, BUS_ADRERR = 2, BUS_OBJERR = 3, BUS_MCEERR_AR = 4, BUS_MCEERR_AO = 5 }
    /// SIGTRAP
    TRAP { TRAP_BRKPT = 1, TRAP_TRACE = 2, TRAP_BRANCH = 3, TRAP_HWBKPT = 4, TRAP_PERF = 6 }
    /// SIGCHLD
    CLD {
        CLD_EXITED = 1, CLD_KILLED = 2, CLD_DUMPED = 3, CLD_TRAPPED = 4, CLD_STOPPED = 5,
        CLD_CONTINUED = 6,
    }
    /// SIGIO
    POLL_CODE { POLL_IN = 1, POLL_OUT = 2, POLL_MSG = 3, POLL_ERR = 4, POLL_PRI = 5, POLL_HUP = 6 }
    /// SIGSYS
    SYS { SYS_SECCOMP = 1, SYS_USER_DISPATCH = 2 }
}
