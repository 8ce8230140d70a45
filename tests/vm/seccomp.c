/* What only a kernel can do for filters of system calls: /proc shows them, programs that are executed keep them, those
 * with more privileges as well, and another process answers for the kernel. The argument is a program of another
 * architecture. */
#include "check.h"
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <stddef.h>
#include <sys/ioctl.h>

#ifdef __x86_64__
#define ARCH AUDIT_ARCH_X86_64
#else
#define ARCH AUDIT_ARCH_AARCH64
#endif

/* A filter that gives one system call an answer. */
static long filter(unsigned flags, int number, unsigned action)
{
    struct sock_filter list[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, action),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {4, list};
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
}

/* A line of /proc/PID/status. */
static long status_line(const char *name)
{
    char text[8192], *line;
    read_file("/proc/self/status", text, sizeof text);
    line = strstr(text, name);
    return line ? strtol(line + strlen(name), NULL, 10) : -1;
}

static void shown(void)
{
    long before = status_line("\nSeccomp_filters:");
    same_number("Seccomp", status_line("\nSeccomp:"), before ? 2 : 0);
    pid_t pid = start();
    if (pid == 0) {
        need("filter", filter(0, SYS_getpgid, SECCOMP_RET_ERRNO | 5));
        need("filter", filter(0, SYS_getsid, SECCOMP_RET_ERRNO | 6));
        same_number("Seccomp", status_line("\nSeccomp:"), 2);
        same_number("Seccomp_filters", status_line("\nSeccomp_filters:"), before + 2);
        _exit(result());
    }
    all_well("/proc/self/status", pid);
}

/* In a program executed with a filter: getpgid(0) is error 7. */
static int filtered(int euid)
{
    same_number("getpgid", syscall(SYS_getpgid, 0) == -1 ? errno : 0, 7);
    same_number("PR_GET_SECCOMP", prctl(PR_GET_SECCOMP), 2);
    same_number("euid", geteuid(), euid);
    return result();
}

/* Files that a program might take for its filters, if it were not careful. */
static void forge(void)
{
    /* One filter: SECCOMP_RET_ALLOW. */
    unsigned bytes[4] = {0, 1, 6, SECCOMP_RET_ALLOW};
    int places[] = {20, 1000, 1023};
    for (int i = 0; i < 3; i++) {
        int fd = need("memfd_create", memfd_create("seccomp", MFD_ALLOW_SEALING));
        need("write", write(fd, bytes, sizeof bytes));
        need("seal", fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE));
        need("dup2", dup2(fd, places[i]));
        close(fd);
    }
}

static void kept(const char *other)
{
    char path[4096];
    strcpy(path, self());
    workplace();
    copy(path, "setuid", 04755);
    copy(path, "plain", 0755);
    copy(other, "other", 0755);
    put("script", "#!./plain filtered\n", 19, 0755);
    pid_t pid = start();
    if (pid == 0) {
        need("filter", filter(0, SYS_getpgid, SECCOMP_RET_ERRNO | 7));
        const char *all[] = {"./plain", "./setuid", "./script"};
        for (int i = 0; i < 3; i++) {
            pid = start();
            if (pid == 0) {
                forge();
                need("setresuid", setresuid(1000, 1000, 1000));
                execl(all[i], all[i], "filtered", i == 1 ? "0" : "1000", NULL);
                not_executed();
            }
            all_well(all[i], pid);
        }
        pid = start();
        if (pid == 0) {
            int fd = need("open", open("plain", O_PATH | O_CLOEXEC));
            char *arguments[] = {"plain", "filtered", "0", NULL};
            syscall(SYS_execveat, fd, "", arguments, environ, AT_EMPTY_PATH);
            not_executed();
        }
        all_well("by descriptor", pid);
        pid = start();
        if (pid == 0) {
            execl("./other", "other", "nothing", NULL);
            not_executed();
        }
#ifdef __x86_64__
        /* It would have no filters. */
        same_number("a program of another architecture", ended("other", pid), NOT_EXECUTED + EACCES);
#else
        all_well("a program of another architecture", pid);
#endif
        _exit(result());
    }
    all_well("filters of programs", pid);
    /* Without filters such files are nobody's. */
    pid = start();
    if (pid == 0) {
        forge();
        need("setresuid", setresuid(1000, 1000, 1000));
        execl("./setuid", "setuid", "unfiltered", NULL);
        not_executed();
    }
    all_well("no filters", pid);
}

static int unfiltered(void)
{
    check(syscall(SYS_getpgid, 0) > 0, "getpgid is not filtered");
    same_number("PR_GET_SECCOMP", prctl(PR_GET_SECCOMP), 0);
    check(fcntl(20, F_GETFD) >= 0, "descriptor 20 is still there");
    return result();
}

/* The calls that are told to a listener, and what they give. */
static int told(void)
{
    same_number("an answer", syscall(SYS_getpgid, 1, 0x1234567887654321, 3, 4, 5), 4711);
    same_number("an error", syscall(SYS_getpgid, 2) == -1 ? errno : 0, 77);
    check(syscall(SYS_getpgid, 0) > 0 && syscall(SYS_getpid) > 0, "the call is made after all");
    long fd = syscall(SYS_getpgid, 4);
    check(fd > 2 && fcntl(fd, F_GETFD) >= 0, "a descriptor from the listener");
    return result();
}

static void listen_to(int listener, pid_t pid)
{
    for (int i = 1; i <= 4; i++) {
        struct seccomp_notif notif;
        struct seccomp_notif_resp response;
        struct pollfd fd = {listener, POLLIN, 0};
        memset(&notif, 0, sizeof notif);
        memset(&response, 0, sizeof response);
        same_number("poll", poll(&fd, 1, 30000), 1);
        if (!check(ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &notif) == 0, "SECCOMP_IOCTL_NOTIF_RECV"))
            return;
        same_number("nr", notif.data.nr, SYS_getpgid);
        check(notif.data.arch == ARCH, "arch is %x", notif.data.arch);
        same_number("pid", notif.pid, pid);
        same_number("the first argument", notif.data.args[0], i == 3 ? 0 : i);
        if (i == 1) {
            check(notif.data.args[1] == 0x1234567887654321 && notif.data.args[2] == 3 && notif.data.args[3] == 4 &&
                  notif.data.args[4] == 5, "the other arguments");
        }
        same_number("SECCOMP_IOCTL_NOTIF_ID_VALID", ioctl(listener, SECCOMP_IOCTL_NOTIF_ID_VALID, &notif.id), 0);
        response.id = notif.id;
        response.val = i == 1 ? 4711 : 0;
        response.error = i == 2 ? -77 : 0;
        response.flags = i == 3 ? SECCOMP_USER_NOTIF_FLAG_CONTINUE : 0;
        if (i == 4) {
            struct seccomp_notif_addfd add = {.id = notif.id, .flags = SECCOMP_ADDFD_FLAG_SEND, .srcfd = 1};
            check(ioctl(listener, SECCOMP_IOCTL_NOTIF_ADDFD, &add) > 0, "SECCOMP_IOCTL_NOTIF_ADDFD");
        } else {
            same_number("SECCOMP_IOCTL_NOTIF_SEND", ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &response), 0);
        }
        check(ioctl(listener, SECCOMP_IOCTL_NOTIF_ID_VALID, &notif.id) == -1 && errno == ENOENT, "it is answered");
    }
}

static void listener(void)
{
    pid_t all = start();
    if (all == 0) {
        int fd = need("listener", filter(SECCOMP_FILTER_FLAG_NEW_LISTENER, SYS_getpgid, SECCOMP_RET_USER_NOTIF));
        check(fcntl(fd, F_GETFD) == FD_CLOEXEC, "the listener is closed on exec");
        check(filter(SECCOMP_FILTER_FLAG_NEW_LISTENER, SYS_getpgid, SECCOMP_RET_ALLOW) == -1 && errno == EBUSY,
              "there is one listener");
        pid_t pid = start();
        if (pid == 0)
            _exit(told());
        listen_to(fd, pid);
        all_well("told by a child", pid);
        pid = start();
        if (pid == 0) {
            execl("./plain", "plain", "told", NULL);
            not_executed();
        }
        listen_to(fd, pid);
        all_well("told by a program", pid);
        /* With nobody to listen. */
        close(fd);
        check(syscall(SYS_getpgid, 0) == -1 && errno == ENOSYS, "nobody listens");
        _exit(result());
    }
    all_well("a listener", all);
}

int main(int argc, char **argv)
{
    /* A script's name may stand between. */
    if (argc > 2 && strcmp(argv[1], "filtered") == 0)
        return filtered(atoi(argv[argc - 1]));
    if (argc > 1 && strcmp(argv[1], "unfiltered") == 0)
        return unfiltered();
    if (argc > 1 && strcmp(argv[1], "told") == 0)
        return told();
    if (argc > 1 && strcmp(argv[1], "nothing") == 0)
        return 0;
    shown();
    kept(argv[1]);
    listener();
    return result();
}
