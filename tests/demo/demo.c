/*
 * The program `cargo xtask run` shows: the calls on a process file descriptor
 * that Rosetta for Linux answers with ENOSYS, and what the kernel said to each.
 *
 * Freestanding x86_64, so that the committed binary is small and the same from
 * any build. The exit status is 0 when every call succeeded, else 1.
 */
typedef long word;

enum { /* arch/x86/entry/syscalls/syscall_64.tbl */
    SYS_read = 0, SYS_write = 1, SYS_close = 3, SYS_pause = 34, SYS_alarm = 37,
    SYS_fork = 57, SYS_wait4 = 61, SYS_kill = 62, SYS_exit_group = 231,
    SYS_waitid = 247, SYS_pipe2 = 293, SYS_pidfd_send_signal = 424,
    SYS_pidfd_open = 434, SYS_pidfd_getfd = 438,
};
enum { P_PIDFD = 3, WEXITED = 4, CLD_KILLED = 2, SIGTERM = 15 };
enum { TIME_LIMIT_SECONDS = 20 };

/* The part of siginfo_t that waitid fills in (<asm-generic/siginfo.h>). */
struct siginfo {
    int signo, error, code, padding;
    int pid, uid, status;
    int rest[25];
};

static word call(word number, word a, word b, word c, word d, word e)
{
    register word r10 __asm__("r10") = d;
    register word r8 __asm__("r8") = e;
    word result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
                     : "rcx", "r11", "memory");
    return result;
}

static void text(const char *s)
{
    word length = 0;
    while (s[length])
        length++;
    call(SYS_write, 1, (word)s, length, 0, 0);
}

static void number(word n)
{
    char digits[24], *p = digits + sizeof digits;
    unsigned long rest = n < 0 ? -(unsigned long)n : (unsigned long)n;
    *--p = 0;
    do
        *--p = '0' + rest % 10;
    while (rest /= 10);
    if (n < 0)
        *--p = '-';
    text(p);
}

static const char *error_name(word error)
{
    static const struct { short error; char name[8]; } names[] = {
        { 1, "EPERM" }, { 3, "ESRCH" }, { 4, "EINTR" }, { 9, "EBADF" }, { 10, "ECHILD" },
        { 14, "EFAULT" }, { 22, "EINVAL" }, { 24, "EMFILE" }, { 38, "ENOSYS" },
    };
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++)
        if (names[i].error == error)
            return names[i].name;
    return "error";
}

static int failures;

/* Says what the kernel answered to a call, and whether that is what it should be. */
static void answered(const char *name, word result, int right)
{
    text(name);
    text(" = ");
    number(result);
    if (result < 0) {
        text(" (");
        text(error_name(-result));
        text(")");
    } else if (!right) {
        text(", but without the effect it should have");
    }
    text(right ? ": works\n" : ": FAILED\n");
    failures += !right;
}

/* The child: opens a pipe of its own, tells its number, and waits to be killed. */
static void child(int report)
{
    int own[2];
    call(SYS_alarm, TIME_LIMIT_SECONDS, 0, 0, 0, 0);
    call(SYS_pipe2, (word)own, 0, 0, 0, 0);
    call(SYS_write, own[1], (word)"secret", 6, 0, 0);
    call(SYS_write, report, (word)&own[0], sizeof own[0], 0, 0);
    for (;;)
        call(SYS_pause, 0, 0, 0, 0, 0);
}

/* Does the descriptor taken from the child read what only the child wrote? */
static int reads_secret(word descriptor)
{
    char got[8] = { 0 };
    if (descriptor < 0 || call(SYS_read, descriptor, (word)got, 6, 0, 0) != 6)
        return 0;
    for (int i = 0; i < 6; i++)
        if (got[i] != "secret"[i])
            return 0;
    return 1;
}

static int demo(void)
{
    struct siginfo info = { 0 };
    int report[2], theirs = -1;

    call(SYS_alarm, TIME_LIMIT_SECONDS, 0, 0, 0, 0);
    call(SYS_pipe2, (word)report, 0, 0, 0, 0);
    word pid = call(SYS_fork, 0, 0, 0, 0, 0);
    if (pid == 0)
        child(report[1]);
    answered("fork()", pid, pid > 0);
    if (pid < 0)
        return 1;
    call(SYS_close, report[1], 0, 0, 0, 0);
    call(SYS_read, report[0], (word)&theirs, sizeof theirs, 0, 0);

    word pidfd = call(SYS_pidfd_open, pid, 0, 0, 0, 0);
    answered("pidfd_open(child)", pidfd, pidfd >= 0);

    word taken = call(SYS_pidfd_getfd, pidfd, theirs, 0, 0, 0);
    answered("pidfd_getfd(child's pipe)", taken, reads_secret(taken));

    word sent = call(SYS_pidfd_send_signal, pidfd, SIGTERM, 0, 0, 0);
    answered("pidfd_send_signal(SIGTERM)", sent, sent == 0);
    if (sent < 0)
        call(SYS_kill, pid, SIGTERM, 0, 0, 0);

    word waited = call(SYS_waitid, P_PIDFD, pidfd, (word)&info, WEXITED, 0);
    answered("waitid(P_PIDFD)", waited,
             waited == 0 && info.pid == pid && info.code == CLD_KILLED && info.status == SIGTERM);
    if (waited < 0)
        call(SYS_wait4, pid, 0, 0, 0, 0);
    return failures != 0;
}

/* The kernel enters with an aligned stack and no return address. */
__attribute__((noreturn, force_align_arg_pointer, used)) void _start(void)
{
    call(SYS_exit_group, demo(), 0, 0, 0, 0);
    __builtin_unreachable();
}
