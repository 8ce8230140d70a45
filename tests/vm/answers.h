/* For programs that make every system call and compare what the kernel says: each case is made in a process of its own
 * or of its call's, so that none harms another, and its answer is 0 or an error number. What it must be is the answer
 * of the arm64 build on the same kernel; or, of calls that arm64 lacks, of the x86_64 build on a real processor. */
#ifndef ANSWERS_H
#define ANSWERS_H

#include "check.h"
#include <linux/seccomp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/uio.h>

enum kind { NUMBER, DESCRIPTOR, FOLDER, PROCESS, PATH, TEXT, PLACE, READ, WRITTEN, WORD };

struct call {
    int x86_64, arm64;
    const char *name;
    int refused; /* with this error; -1: it is not there yet */
    struct {
        const char *name;
        enum kind kind;
    } arguments[6];
};

static const struct call calls[] = {
#include "calls.h"
};
#define CALLS ((int)(sizeof calls / sizeof *calls))

#ifdef __x86_64__
#define IS_X86_64 1
#define NUMBER_OF(call) ((call)->x86_64)
#else
#define IS_X86_64 0
#define NUMBER_OF(call) ((call)->arm64)
#endif

static inline int is_address(enum kind kind) { return kind >= PATH; }

/* What a call is made on: memory, files and descriptors, the same for each. */
static char *in, *out, *place;
static int file, pipes[2], sockets[2], epoll, event, timer, notify, self_pidfd, folder;
#define AREA 65536L

static inline void *area(int prot)
{
    void *at = mmap(NULL, AREA + 4096, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    need("mmap", at == MAP_FAILED ? -1 : 0);
    /* Nothing is behind it, nor will be. */
    need("mprotect", mprotect((char *)at + AREA, 4096, PROT_NONE));
    return at;
}

static inline void furnish(void)
{
    in = area(PROT_READ | PROT_WRITE);
    out = area(PROT_READ | PROT_WRITE);
    place = area(PROT_READ | PROT_WRITE);
    file = need("file", open("file", O_RDWR | O_CREAT | O_TRUNC, 0600));
    need("write", write(file, "sixteen bytes...sixteen bytes...", 32));
    lseek(file, 0, SEEK_SET);
    need("pipe", pipe2(pipes, O_NONBLOCK));
    need("write", write(pipes[1], "sixteen bytes...", 16));
    need("socketpair", socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, sockets));
    for (int i = 0; i < 4; i++)
        need("send", send(sockets[1], "sixteen bytes...", 16, 0));
    epoll = need("epoll", epoll_create1(0));
    event = need("eventfd", eventfd(1, EFD_NONBLOCK));
    struct epoll_event ready = {.events = EPOLLIN};
    need("epoll_ctl", epoll_ctl(epoll, EPOLL_CTL_ADD, event, &ready));
    timer = need("timerfd", timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK));
    notify = need("inotify", inotify_init1(IN_NONBLOCK));
    self_pidfd = syscall(SYS_pidfd_open, getpid(), 0);
    folder = need("folder", open(".", O_RDONLY | O_DIRECTORY));
}

/* Arguments that are not what their kind has: by call (or any), and argument. */
struct value {
    const char *call, *argument;
    long value;
};
enum { ANY_FILE = 1000000, A_PIPE, A_WRITE_PIPE, A_SOCKET, AN_EPOLL, AN_EVENT, A_TIMER, A_NOTIFY, A_PIDFD, A_FOLDER };
static const struct value values[] = {
    {"close_range", "first", 900}, {"close_range", "last", 900}, {"dup2", "newfd", 200}, {"dup3", "newfd", 201},
    {"tee", "fd_in", A_PIPE}, {"tee", "fd_out", A_WRITE_PIPE}, {"splice", "fd_in", ANY_FILE},
    {"splice", "fd_out", A_WRITE_PIPE}, {"splice", "off_out", 0}, {"vmsplice", "fd", A_WRITE_PIPE},
    {"epoll_ctl", "fd", A_TIMER}, {"epoll_ctl", "op", EPOLL_CTL_ADD}, {"timerfd_settime", "fd", A_TIMER},
    {"timerfd_gettime", "fd", A_TIMER}, {"inotify_add_watch", "fd", A_NOTIFY}, {"inotify_add_watch", "mask", 2},
    {"inotify_rm_watch", "fd", A_NOTIFY}, {"getdents", "fd", A_FOLDER}, {"getdents64", "fd", A_FOLDER}, {"getdents", "count", 2048}, {"getdents64", "count", 2048},
    {"fchdir", "fd", A_FOLDER}, {"signalfd", "fd", -1}, {"signalfd4", "fd", -1}, {"flock", "operation", 2 | 4},
    {"fcntl", "cmd", F_GETLK}, {"ioctl", "request", 0x541b /* FIONREAD */}, {"ioctl", "fd", A_PIPE},
    {"mmap", "flags", MAP_PRIVATE | MAP_ANONYMOUS}, {"mmap", "prot", PROT_READ}, {"mremap", "flags", MREMAP_MAYMOVE},
    {"mprotect", "prot", PROT_READ}, {"pkey_mprotect", "pkey", -1}, {"mincore", "length", 4096},
    {"msync", "flags", MS_ASYNC}, {"getrlimit", "resource", RLIMIT_NICE}, {"setrlimit", "resource", RLIMIT_NICE},
    {"prlimit64", "resource", RLIMIT_NICE}, {"rt_sigaction", "signum", SIGUSR1}, {"futex", "futex_op", 0},
    {"futex", "val", 1}, {"futex_wait", "val", 1}, {"futex_wait", "mask", 1}, {"futex_wait", "flags", 2},
    {"futex_wake", "mask", 1}, {"futex_wake", "flags", 2}, {"wait4", "options", WNOHANG},
    {"waitid", "options", WNOHANG | WEXITED}, {"seccomp", "operation", SECCOMP_GET_ACTION_AVAIL},
    {"syslog", "type", 10}, {"getpriority", "who", 0}, {"setpriority", "who", 0}, {"prctl", "option", PR_GET_NAME},
    {"personality", "persona", 0xffffffff}, {"semctl", "cmd", 2}, {"shmctl", "cmd", 2}, {"msgctl", "cmd", 2},
    {"kexec_load", "nr_segments", 1}, {"umask", "mask", 022}, {"chmod", "mode", 0700}, {"fchmod", "mode", 0700},
    {"clock_settime", "clockid", 0}, {"clock_nanosleep", "clockid", 1}, {"recvmmsg", "vlen", 1},
    {"sendmmsg", "vlen", 1}, {"process_vm_readv", "flags", 0}, {"listen", "backlog", 1},
    {"arch_prctl", "code", 0x1003 /* ARCH_GET_FS */}, {"mount", "mountflags", 0}, {"sysfs", "option", 1},
    {"landlock_add_rule", "rule_type", 1}, {"bpf", "cmd", 1}, {"bpf", "size", 32}, {"keyctl", "cmd", 1},
    {"openat2", "size", 24}, {"clone3", "size", 88}, {"sched_getattr", "size", 48}, {"sched_setaffinity", "len", 8},
    {"mount_setattr", "usize", 32}, {"open_tree_attr", "size", 32}, {"file_getattr", "size", 24},
    {"file_setattr", "size", 24}, {"setxattrat", "size", 16}, {"getxattrat", "size", 16},
    {"landlock_create_ruleset", "size", 16}, {"set_robust_list", "len", 24}, {"mq_timedsend", "mqdes", -1},
    {"getsockopt", "level", SOL_SOCKET}, {"getsockopt", "optname", SO_TYPE}, {"setsockopt", "level", SOL_SOCKET},
    {"setsockopt", "optname", SO_PASSCRED}, {"setsockopt", "optlen", 4}, {"socket", "domain", AF_UNIX},
    {"socket", "type", SOCK_STREAM}, {"socketpair", "domain", AF_UNIX}, {"socketpair", "type", SOCK_STREAM},
    {"pidfd_getfd", "fd", ANY_FILE}, {"readahead", "count", 16}, {"mlockall", "flags", 1}, {"kcmp", "type", 1},
    {"memfd_create", "flags", 0}, {"alarm", "seconds", 0}, {"madvise", "advice", 0}, {"mseal", "len", 4096},
    {"munmap", "length", 4096}, {"mlock", "len", 4096}, {"mlock2", "len", 4096}, {"munlock", "len", 4096},
    {"remap_file_pages", "size", 4096}, {"exit", "status", 7}, {"exit_group", "status", 7},
    {"epoll_create", "size", 1}, {"close", "fd", A_NOTIFY}, {"setns", "nstype", CLONE_NEWUTS},
    {"shutdown", "how", SHUT_WR}, {"sync_file_range", "nbytes", 16},
    {"fallocate", "len", 64}, {"ftruncate", "length", 32}, {"truncate", "length", 32},
    /* Of any call. */
    {NULL, "epfd", AN_EPOLL}, {NULL, "sockfd", A_SOCKET}, {NULL, "pidfd", A_PIDFD}, {NULL, "mqdes", -1},
    {NULL, "fanotify_fd", -1}, {NULL, "ruleset_fd", -1}, {NULL, "pipefd", 0}, {NULL, "sigsetsize", 8},
    {NULL, "sizemask", 8}, {NULL, "nfds", 1}, {NULL, "iovcnt", 1}, {NULL, "liovcnt", 1}, {NULL, "riovcnt", 1},
    {NULL, "vlen", 1}, {NULL, "nr_segs", 1}, {NULL, "nsops", 1}, {NULL, "maxevents", 1}, {NULL, "count", 16},
    {NULL, "len", 16}, {NULL, "length", 16}, {NULL, "size", 16}, {NULL, "bufsiz", 16}, {NULL, "buflen", 16},
    {NULL, "bufsize", 64}, {NULL, "addrlen", 16}, {NULL, "old_size", 4096}, {NULL, "new_size", 4096},
    {NULL, "gidsetsize", 1}, {NULL, "msgsz", 4}, {NULL, "msg_len", 16}, {NULL, "nr_futexes", 1}, {NULL, "nr", 1},
    {NULL, "min_nr", 0}, {NULL, "nr_pages", 1}, {NULL, "maxnode", 64}, {NULL, "plen", 4}, {NULL, "nr_mnt_ids", 1},
    {NULL, "nr_ns_ids", 1}, {NULL, "magic1", 0},
};

static inline long descriptor(long value)
{
    switch (value) {
    case ANY_FILE: return file;
    case A_PIPE: return pipes[0];
    case A_WRITE_PIPE: return pipes[1];
    case A_SOCKET: return sockets[0];
    case AN_EPOLL: return epoll;
    case AN_EVENT: return event;
    case A_TIMER: return timer;
    case A_NOTIFY: return notify;
    case A_PIDFD: return self_pidfd;
    case A_FOLDER: return folder;
    default: return value;
    }
}

/* A harmless argument. */
static inline long harmless(const struct call *call, int i)
{
    const char *name = call->arguments[i].name;
    enum kind kind = call->arguments[i].kind;
    for (size_t v = 0; !is_address(kind) && v < sizeof values / sizeof *values; v++)
        if ((!values[v].call || strcmp(values[v].call, call->name) == 0) && strcmp(values[v].argument, name) == 0)
            return descriptor(values[v].value);
    switch (kind) {
    case DESCRIPTOR: return file;
    case FOLDER: return AT_FDCWD;
    case PROCESS: return getpid();
    case PATH: return (long)(strcmp(call->name, "acct") == 0 ? "." : "file");
    case TEXT: return (long)"text";
    case PLACE: return (long)place;
    case READ: return (long)(in + 4096L * i);
    case WRITTEN: return (long)(out + 4096L * i);
    default: return 0;
    }
}

/* What the kernel reads is zeros; but time is not to be set, and there is room where it asks for that. */
static inline void fill(const struct call *call)
{
    static const char *const rooms[] = {"addrlen", "optlen", "size"};
    int sets_time = strcmp(call->name, "settimeofday") == 0 || strcmp(call->name, "clock_settime") == 0;
    memset(in, sets_time ? 0x7f : 0, AREA);
    memset(out, 0, AREA);
    memset(place, 0, 4096);
    for (int a = 0; a < 6 && call->arguments[a].name; a++)
        for (size_t r = 0; r < sizeof rooms / sizeof *rooms; r++)
            if (call->arguments[a].kind == WRITTEN && strcmp(call->arguments[a].name, rooms[r]) == 0)
                *(int *)(out + 4096L * a) = 64;
}

static inline void wake(int signal) { (void)signal; }

/* A system call, in the caller's own stack frame: vfork(2) comes back from it twice. */
__attribute__((always_inline)) static inline long raw(long number, const long a[6])
{
#ifdef __x86_64__
    register long r10 __asm__("r10") = a[3], r8 __asm__("r8") = a[4], r9 __asm__("r9") = a[5];
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a[0]), "S"(a[1]), "d"(a[2]), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
#else
    register long x8 __asm__("x8") = number, x0 __asm__("x0") = a[0], x1 __asm__("x1") = a[1];
    register long x2 __asm__("x2") = a[2], x3 __asm__("x3") = a[3], x4 __asm__("x4") = a[4], x5 __asm__("x5") = a[5];
    __asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
    return x0;
#endif
}

/* Makes a call: 0 or the error. What blocks is woken. */
static inline int answer(long number, const long a[6])
{
    pid_t pid = getpid();
    struct sigaction action = {.sa_handler = wake};
    sigaction(SIGALRM, &action, NULL);
    struct itimerval second = {{1, 0}, {1, 0}}, none = {{0, 0}, {0, 0}};
    setitimer(ITIMER_REAL, &second, NULL);
    long result = raw(number, a);
    int error = result < 0 && result > -4096 ? -result : 0;
    if (getpid() != pid)
        _exit(0);
    setitimer(ITIMER_REAL, &none, NULL);
    return error;
}

/* Cases that rightly differ, and why. */
struct exception {
    const char *name, *reason;
};

/* What a program tries. */
struct cases {
    int count;
    void (*name)(int, char *);
    int (*group)(int);   /* those of one share a process */
    int (*make)(int);    /* the answer */
    int (*is_made)(int); /* whether this architecture has the call */
    int (*refused)(int); /* as in `struct call` */
    const struct exception *exceptions;
};

/* The answers; a process that is ended by a signal has answered KILLED and the signal. */
#define KILLED 1000
#define ENDED 2000
struct record {
    volatile int current;
    volatile int answers[];
};

/* Waits for the process of cases; not for ever. */
static inline int outcome(pid_t pid)
{
    int status;
    for (int turns = 0; waitpid(pid, &status, WNOHANG) == 0; turns++) {
        usleep(turns < 20 ? 500 : 20000);
        if (turns == 3000)
            kill(pid, SIGKILL);
    }
    return WIFSIGNALED(status) ? KILLED + WTERMSIG(status) : ENDED + WEXITSTATUS(status);
}

static inline struct record *answers(const struct cases *cases)
{
    size_t size = sizeof(struct record) + cases->count * sizeof(int);
    struct record *record = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    need("mmap", record == MAP_FAILED ? -1 : 0);
    for (int next = 0, end; next < cases->count;) {
        for (end = next; end < cases->count && cases->group(end) == cases->group(next);)
            end++;
        record->current = next;
        pid_t pid = start();
        if (pid == 0) {
            setsid();
            furnish();
            for (int i = next; i < end; i++) {
                record->current = i;
                record->answers[i] = cases->is_made(i) ? cases->make(i) : 0;
                record->current = i + 1;
            }
            _exit(0);
        }
        int ended = outcome(pid);
        next = record->current;
        if (next < end)
            record->answers[next++] = ended;
    }
    return record;
}

static inline const char *said(int answer)
{
    static char text[4][40];
    static int turn;
    char *to = text[turn++ % 4];
    if (answer <= 0)
        return answer ? "nothing" : "success";
    if (answer >= ENDED)
        snprintf(to, 40, "exit %d", answer - ENDED);
    else if (answer >= KILLED)
        snprintf(to, 40, "signal %d", answer - KILLED);
    else
        snprintf(to, 40, "%s", strerrorname_np(answer) ? strerrorname_np(answer) : "?");
    return to;
}

/* A private world, so that nothing is done to this one. */
static inline void retire(void)
{
    need("unshare", unshare(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET));
    need("mount", mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
    workplace();
}

/* Reads the answers that another build wrote, by the cases' names; -1 for what it does not have. */
static inline int *read_answers(FILE *from, const struct cases *cases)
{
    int *all = malloc(cases->count * sizeof *all), i = 0;
    char line[256], wanted[256], *mark;
    for (int j = 0; j < cases->count; j++)
        all[j] = -1;
    while (fgets(line, sizeof line, from)) {
        if (strncmp(line, "answer ", 7) != 0 || !(mark = strstr(line, " = ")))
            continue;
        *mark = 0;
        /* They are in the same order, but some are left out. */
        for (; i < cases->count; i++) {
            cases->name(i, wanted);
            if (strcmp(line + 7, wanted) == 0) {
                all[i++] = atoi(mark + 3);
                break;
            }
        }
    }
    fclose(from);
    return all;
}

static inline const char *reason(const struct cases *cases, const char *name)
{
    for (const struct exception *e = cases->exceptions; e->name; e++)
        if (strncmp(name, e->name, strlen(e->name)) == 0)
            return e->reason;
    return NULL;
}

/* Compares with the arm64 build's answers on this kernel, and with those from a real processor. */
static inline int compare(const struct cases *cases, const struct record *record, char **argv)
{
    char command[4200], name[256];
    snprintf(command, sizeof command, "%s answers", argv[1]);
    FILE *other = popen(command, "r"), *kept = fopen(argv[2], "r");
    need(argv[2], other && kept ? 0 : -1);
    int *control = read_answers(other, cases), *native = read_answers(kept, cases);
    int excepted = 0, unlike_native = 0;
    for (int i = 0; i < cases->count; i++) {
        int has = record->answers[i], refused = cases->refused(i);
        cases->name(i, name);
        if (refused) {
            if (has != (refused < 0 ? ENOSYS : refused))
                check(0, "%s: %s, and not refused with %s", name, said(has), said(refused));
            continue;
        }
        unlike_native += has != native[i];
        if (has == control[i] || has == native[i])
            continue;
        if (reason(cases, name))
            excepted++;
        else
            check(0, "%s: %s; the control says %s, a real processor %s", name, said(has), said(control[i]),
                  said(native[i]));
    }
    check(1, "%d cases; %d by exception, %d as on this kernel alone", cases->count, excepted, unlike_native);
    return result();
}

/* Tries all: compares, if told with what (the arm64 build, and a file of answers), or says the answers. */
static inline int answer_all(const struct cases *cases, char **argv)
{
    char name[256];
    const struct record *record = answers(cases);
    if (argv)
        return compare(cases, record, argv);
    for (int i = 0; i < cases->count; i++) {
        cases->name(i, name);
        if (cases->is_made(i))
            printf("answer %s = %d\n", name, record->answers[i]);
    }
    printf("%d cases\n", cases->count);
    return 0;
}

#endif
