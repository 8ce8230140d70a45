/* Process file descriptors: all that can be done with them. What is newer than the kernel is left out. */
#include "check.h"
#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/utsname.h>

/* linux/pidfd.h and linux/sched.h of newer kernels than the headers may be of */
enum { NONBLOCK = O_NONBLOCK, THREAD = O_EXCL };
enum { TO_THREAD = 1, TO_THREAD_GROUP = 2, TO_PROCESS_GROUP = 4 };
enum { SELF_THREAD = -10000, SELF_THREAD_GROUP = -10001, OLD_SELF_THREAD_GROUP = -20000 };
#define GET_NAMESPACE(n) _IO(0xff, n)
struct info {
    unsigned long mask, cgroup;
    unsigned pid, tgid, ppid, ruid, rgid, euid, egid, suid, sgid, fsuid, fsgid;
    int exit_code;
};
#define GET_INFO _IOWR(0xff, 11, struct info)
enum { INFO_PID = 1, INFO_CREDS = 2, INFO_CGROUP = 4, INFO_EXIT = 8 };
enum { PASS_PIDFD = 76, PEER_PIDFD = 77, WITH_PIDFD = 4, SAME_FILE = 0 };
#define BY_PIDFD ((idtype_t)3)

static int pidfd_open(pid_t pid, unsigned flags) { return syscall(SYS_pidfd_open, pid, flags); }
static int pidfd_send_signal(int fd, int signal, siginfo_t *info, unsigned flags)
{
    return syscall(SYS_pidfd_send_signal, fd, signal, info, flags);
}
static int pidfd_getfd(int fd, int number) { return syscall(SYS_pidfd_getfd, fd, number, 0); }

static int since(int major, int minor)
{
    struct utsname name;
    int has_major, has_minor;
    uname(&name);
    sscanf(name.release, "%d.%d", &has_major, &has_minor);
    return has_major > major || (has_major == major && has_minor >= minor);
}

static void fails(const char *what, long result, int error)
{
    int has = result < 0 ? errno : 0;
    check(has == error, "%s: %s, wanted %s", what, strerrorname_np(has), strerrorname_np(error));
}

/* A child that waits to be ended. */
static pid_t sleeper(void)
{
    pid_t pid = start();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;)
            pause();
    }
    return pid;
}

static void end(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

static int number_in(int fd, const char *key)
{
    char path[64], text[4096], *line;
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
    read_file(path, text, sizeof text);
    line = strstr(text, key);
    return line ? atoi(line + strlen(key)) : -9;
}

static void opened(void)
{
    pid_t pid = sleeper();
    int fd = need("pidfd_open", pidfd_open(pid, 0));
    same_number("it is closed on exec", fcntl(fd, F_GETFD), FD_CLOEXEC);
    same_number("its flags", fcntl(fd, F_GETFL) & (O_NONBLOCK | O_ACCMODE), O_RDWR);
    same_number("Pid: of its fdinfo", number_in(fd, "Pid:\t"), pid);
    same_number("NSpid: of its fdinfo", number_in(fd, "NSpid:\t"), pid);
    int other = need("pidfd_open", pidfd_open(pid, NONBLOCK));
    same_number("O_NONBLOCK", fcntl(other, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
    siginfo_t info;
    fails("waitid that would block", waitid(BY_PIDFD, other, &info, WEXITED), EAGAIN);
    struct stat first, second;
    fstat(fd, &first);
    fstat(other, &second);
    check(first.st_ino == second.st_ino, "both are the same inode");
    same_number("kcmp", syscall(SYS_kcmp, getpid(), getpid(), SAME_FILE, fd, fd), 0);
    fails("flags that there are not", pidfd_open(pid, 1), EINVAL);
    fails("no process", pidfd_open(0, 0), EINVAL);
    fails("a number without a process", pidfd_open(0x3fffff, 0), ESRCH);
    end(pid);
    same_number("Pid: when it has ended", number_in(fd, "Pid:\t"), -1);
    fails("pidfd_open of one that is gone", pidfd_open(pid, 0), ESRCH);
    fails("pidfd_send_signal to it", pidfd_send_signal(fd, 0, NULL, 0), ESRCH);
    close(other);
    close(fd);
}

static siginfo_t got;
static volatile pid_t got_by;
static void handler(int signal, siginfo_t *info, void *context)
{
    (void)signal, (void)context;
    got = *info;
    got_by = syscall(SYS_gettid);
}

static volatile pid_t thread_id;
static int release[2];
static void *thread(void *unused)
{
    char byte;
    thread_id = syscall(SYS_gettid);
    while (read(release[0], &byte, 1) < 0)
        ;
    return unused;
}

static void wait_for_signal(const char *what)
{
    for (int i = 0; i < 5000 && !got_by; i++)
        usleep(1000);
    check(got_by != 0, "%s arrives", what);
}

static void signals(void)
{
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
    sigaction(SIGUSR1, &action, NULL);
    int own = need("pidfd_open", pidfd_open(getpid(), 0));
    same_number("pidfd_send_signal", pidfd_send_signal(own, SIGUSR1, NULL, 0), 0);
    wait_for_signal("a signal");
    same_number("si_code", got.si_code, SI_USER);
    same_number("si_pid", got.si_pid, getpid());
    siginfo_t info = {.si_signo = SIGUSR1, .si_code = SI_QUEUE};
    info.si_value.sival_int = 4711;
    got_by = 0;
    same_number("with siginfo", pidfd_send_signal(own, SIGUSR1, &info, 0), 0);
    wait_for_signal("it");
    same_number("si_value", got.si_value.sival_int, 4711);
    info.si_signo = SIGUSR2;
    fails("another signal in siginfo", pidfd_send_signal(own, SIGUSR1, &info, 0), EINVAL);
    fails("flags that there are not", pidfd_send_signal(own, 0, NULL, 64), EINVAL);
    fails("what is no pidfd", pidfd_send_signal(0, 0, NULL, 0), EBADF);
    pid_t pid = sleeper();
    int other = need("pidfd_open", pidfd_open(pid, 0));
    info.si_signo = SIGUSR1;
    info.si_code = SI_USER;
    fails("a siginfo that lies, to others", pidfd_send_signal(other, SIGUSR1, &info, 0), EPERM);
    same_number("SIGTERM", pidfd_send_signal(other, SIGTERM, NULL, 0), 0);
    int status;
    waitpid(pid, &status, 0);
    check(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM, "it ends the other");
    close(other);
    close(own);
}

static void threads(void)
{
    if (!since(6, 9))
        return;
    pthread_t id;
    need("pipe", pipe(release));
    pthread_create(&id, NULL, thread, NULL);
    while (!thread_id)
        usleep(1000);
    fails("a thread that leads no process", pidfd_open(thread_id, 0), since(6, 16) ? ENOENT : EINVAL);
    int fd = need("PIDFD_THREAD", pidfd_open(thread_id, THREAD));
    int own = need("pidfd_open", pidfd_open(getpid(), 0));
    same_number("O_EXCL", fcntl(fd, F_GETFL) & O_EXCL, O_EXCL);
    for (int i = 0; i < 3; i++) {
        got_by = 0;
        if (i == 0)
            same_number("to a thread", pidfd_send_signal(fd, SIGUSR1, NULL, 0), 0);
        else if (i == 1)
            same_number("PIDFD_SIGNAL_THREAD", pidfd_send_signal(fd, SIGUSR1, NULL, TO_THREAD), 0);
        else
            same_number("PIDFD_SIGNAL_THREAD_GROUP", pidfd_send_signal(fd, SIGUSR1, NULL, TO_THREAD_GROUP), 0);
        wait_for_signal("it");
        if (i < 2)
            same_number("who got it", got_by, thread_id);
    }
    fails("two at a time", pidfd_send_signal(own, 0, NULL, TO_THREAD | TO_THREAD_GROUP), EINVAL);
    struct pollfd poller = {.fd = fd, .events = POLLIN};
    same_number("poll while it runs", poll(&poller, 1, 0), 0);
    need("write", write(release[1], "x", 1));
    pthread_join(id, NULL);
    same_number("poll when it has ended", poll(&poller, 1, 5000), 1);
    close(fd);
    close(own);
}

static void group(void)
{
    if (!since(6, 9))
        return;
    pid_t leader = start(), member;
    if (leader == 0) {
        setpgid(0, 0);
        member = sleeper();
        int status, fd = need("pidfd_open", pidfd_open(getpid(), 0));
        signal(SIGTERM, SIG_IGN);
        same_number("PIDFD_SIGNAL_PROCESS_GROUP", pidfd_send_signal(fd, SIGTERM, NULL, TO_PROCESS_GROUP), 0);
        waitpid(member, &status, 0);
        check(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM, "the members get it");
        _exit(result());
    }
    all_well("a process group", leader);
}

static void self_names(void)
{
    if (!since(6, 14))
        return;
    int group = pidfd_send_signal(SELF_THREAD_GROUP, 0, NULL, 0) == 0 ? SELF_THREAD_GROUP : OLD_SELF_THREAD_GROUP;
    same_number("PIDFD_SELF_THREAD_GROUP", pidfd_send_signal(group, 0, NULL, 0), 0);
    got_by = 0;
    same_number("PIDFD_SELF_THREAD", pidfd_send_signal(SELF_THREAD, SIGUSR1, NULL, 0), 0);
    wait_for_signal("it");
    struct iovec one = {mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), 4096};
    same_number("process_madvise of itself", syscall(SYS_process_madvise, group, &one, 1, 20 /* MADV_COLD */, 0), 4096);
    fails("pidfd_getfd, which wants a descriptor", pidfd_getfd(group, 1), EBADF);
    fails("no descriptor", fcntl(group, F_GETFD), EBADF);
}

static void descriptors(void)
{
    int ends[2], ready[2];
    char byte;
    need("pipe", pipe(ready));
    pid_t pid = start();
    if (pid == 0) {
        need("pipe", pipe(ends));
        dup2(ends[1], 100);
        fcntl(100, F_SETFL, O_NONBLOCK);
        need("write", write(ready[1], "x", 1));
        if (read(ends[0], &byte, 1) == 1 && byte == 'y')
            _exit(0);
        _exit(1);
    }
    need("read", read(ready[0], &byte, 1));
    int fd = need("pidfd_open", pidfd_open(pid, 0));
    int end = pidfd_getfd(fd, 100);
    check(end >= 0, "pidfd_getfd");
    same_number("it is closed on exec", fcntl(end, F_GETFD), FD_CLOEXEC);
    same_number("it is the same file", syscall(SYS_kcmp, getpid(), pid, SAME_FILE, end, 100), 0);
    fails("one that is not open", pidfd_getfd(fd, 101), EBADF);
    fails("flags", syscall(SYS_pidfd_getfd, fd, 100, 1), EINVAL);
    need("write", write(end, "y", 1));
    all_well("the descriptor's owner", pid);
    close(fd);
    close(end);
    close(ready[0]);
    close(ready[1]);
}

static void information(void)
{
    pid_t pid = sleeper();
    int fd = need("pidfd_open", pidfd_open(pid, 0));
    if (since(6, 13)) {
        struct info info = {.mask = INFO_PID | INFO_CREDS | INFO_CGROUP};
        same_number("PIDFD_GET_INFO", ioctl(fd, GET_INFO, &info), 0);
        same_number("pid", info.pid, pid);
        same_number("tgid", info.tgid, pid);
        same_number("ppid", info.ppid, getpid());
        same_number("euid", info.euid, geteuid());
        check(info.mask & INFO_CGROUP && info.cgroup != 0, "a cgroup");
    }
    static const struct {
        int number, type;
        const char *name;
    } spaces[] = {
        {1, CLONE_NEWCGROUP, "cgroup"}, {2, CLONE_NEWIPC, "ipc"}, {3, CLONE_NEWNS, "mnt"}, {4, CLONE_NEWNET, "net"},
        {5, CLONE_NEWPID, "pid"}, {6, 0, "pid_for_children"}, {7, CLONE_NEWTIME, "time"},
        {8, 0, "time_for_children"}, {9, CLONE_NEWUSER, "user"}, {10, CLONE_NEWUTS, "uts"},
    };
    for (size_t i = 0; since(6, 11) && i < sizeof spaces / sizeof *spaces; i++) {
        char path[64];
        struct stat here, there;
        int space = ioctl(fd, GET_NAMESPACE(spaces[i].number), 0);
        snprintf(path, sizeof path, "/proc/%d/ns/%s", pid, spaces[i].name);
        if (!check(space >= 0 && fstat(space, &here) == 0 && stat(path, &there) == 0 && here.st_ino == there.st_ino,
                   "PIDFD_GET_%s_NAMESPACE", spaces[i].name))
            continue;
        if (spaces[i].type)
            same_number("NS_GET_NSTYPE", ioctl(space, _IO(0xb7, 3)), spaces[i].type);
        close(space);
    }
    end(pid);
    if (since(6, 15)) {
        struct info info = {.mask = INFO_EXIT};
        same_number("PIDFD_GET_INFO when it has ended", ioctl(fd, GET_INFO, &info), 0);
        check(info.mask & INFO_EXIT && WTERMSIG(info.exit_code) == SIGKILL, "its exit code %#x", info.exit_code);
    }
    close(fd);
}

static void waited(void)
{
    pid_t pid = start();
    if (pid == 0)
        _exit(42);
    int fd = need("pidfd_open", pidfd_open(pid, 0));
    struct pollfd poller = {.fd = fd, .events = POLLIN};
    same_number("poll", poll(&poller, 1, 10000), 1);
    same_number("its events", poller.revents & (POLLIN | POLLERR), POLLIN);
    siginfo_t info;
    memset(&info, 0, sizeof info);
    same_number("waitid(P_PIDFD), not reaping", waitid(BY_PIDFD, fd, &info, WEXITED | WNOWAIT), 0);
    same_number("si_pid", info.si_pid, pid);
    same_number("si_status", info.si_status, 42);
    same_number("si_code", info.si_code, CLD_EXITED);
    int many = need("epoll", epoll_create1(0));
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = 0x123456789abcdef0};
    need("epoll_ctl", epoll_ctl(many, EPOLL_CTL_ADD, fd, &event));
    memset(&event, 0, sizeof event);
    same_number("epoll_wait", epoll_wait(many, &event, 1, 5000), 1);
    check(event.data.u64 == 0x123456789abcdef0 && event.events & EPOLLIN, "its event");
    same_number("waitid(P_PIDFD)", waitid(BY_PIDFD, fd, &info, WEXITED), 0);
    fails("a second time", waitid(BY_PIDFD, fd, &info, WEXITED), ECHILD);
    fails("what is no pidfd", waitid(BY_PIDFD, 0, &info, WEXITED), EBADF);
    close(many);
    close(fd);
}

static void made(void)
{
    int fd = -1;
#ifdef __x86_64__
    pid_t pid = syscall(SYS_clone, CLONE_PIDFD | SIGCHLD, NULL, &fd, NULL, 0);
#else
    pid_t pid = syscall(SYS_clone, CLONE_PIDFD | SIGCHLD, NULL, &fd, 0, NULL);
#endif
    if (pid == 0)
        _exit(3);
    siginfo_t info;
    check(pid > 0 && fd >= 0, "clone with CLONE_PIDFD");
    same_number("waitid", waitid(BY_PIDFD, fd, &info, WEXITED), 0);
    same_number("si_status", info.si_status, 3);
    close(fd);
    fd = -1;
    struct { unsigned long flags, pidfd, child_tid, parent_tid, signal, rest[6]; } args = {
        .flags = CLONE_PIDFD, .pidfd = (long)&fd, .signal = SIGCHLD};
    pid = syscall(SYS_clone3, &args, sizeof args);
    if (pid == 0)
        _exit(4);
    check(pid > 0 && fd >= 0 && fcntl(fd, F_GETFD) == FD_CLOEXEC, "clone3 with CLONE_PIDFD");
    same_number("Pid: of its fdinfo", number_in(fd, "Pid:\t"), pid);
    same_number("waitid", waitid(BY_PIDFD, fd, &info, WEXITED), 0);
    same_number("si_status", info.si_status, 4);
    close(fd);
}

static void entered(void)
{
    int ready[2], fd;
    char byte, name[65];
    need("pipe", pipe(ready));
    pid_t pid = start();
    if (pid == 0) {
        need("unshare", unshare(CLONE_NEWUTS | CLONE_NEWIPC));
        sethostname("elsewhere", 9);
        need("write", write(ready[1], "x", 1));
        for (;;)
            pause();
    }
    need("read", read(ready[0], &byte, 1));
    fd = need("pidfd_open", pidfd_open(pid, 0));
    pid_t other = start();
    if (other == 0) {
        same_number("setns", setns(fd, CLONE_NEWUTS | CLONE_NEWIPC), 0);
        gethostname(name, sizeof name);
        same("the name of the host", name, "elsewhere");
        fails("setns to nothing", setns(fd, 0), EINVAL);
        _exit(result());
    }
    all_well("setns", other);
    end(pid);
    close(fd);
}

static void memory(void)
{
    int ready[2];
    char byte;
    need("pipe", pipe(ready));
    char *place = mmap(NULL, 1 << 16, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(place, 7, 1 << 16);
    pid_t pid = start();
    if (pid == 0) {
        memset(place, 8, 1 << 16);
        need("write", write(ready[1], "x", 1));
        for (;;)
            pause();
    }
    need("read", read(ready[0], &byte, 1));
    int fd = need("pidfd_open", pidfd_open(pid, 0));
    struct iovec one = {place, 1 << 16};
    same_number("process_madvise(MADV_COLD)", syscall(SYS_process_madvise, fd, &one, 1, 20, 0), 1 << 16);
    fails("advice that is not given to others", syscall(SYS_process_madvise, fd, &one, 1, MADV_DONTNEED, 0), EINVAL);
    same_number("its memory", syscall(SYS_process_vm_readv, pid, &(struct iovec){&byte, 1}, 1, &one, 1, 0), 1);
    same_number("is as it was", byte, 8);
    fails("process_mrelease of one that lives", syscall(SYS_process_mrelease, fd, 0), EINVAL);
    kill(pid, SIGKILL);
    long released = syscall(SYS_process_mrelease, fd, 0);
    check(released == 0 || errno == ESRCH, "process_mrelease of one that is killed");
    waitpid(pid, NULL, 0);
    fails("process_mrelease of one that is gone", syscall(SYS_process_mrelease, fd, 0), ESRCH);
    close(fd);
}

static void peers(void)
{
    if (!since(6, 5))
        return;
    int pair[2], fd = -1, on = 1;
    socklen_t size = sizeof fd;
    need("socketpair", socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    same_number("SO_PEERPIDFD", getsockopt(pair[0], SOL_SOCKET, PEER_PIDFD, &fd, &size), 0);
    same_number("whose it is", number_in(fd, "Pid:\t"), getpid());
    close(fd);
    need("SO_PASSPIDFD", setsockopt(pair[0], SOL_SOCKET, PASS_PIDFD, &on, sizeof on));
    pid_t pid = start();
    if (pid == 0) {
        need("send", send(pair[1], "x", 1, 0));
        for (;;)
            pause();
    }
    char byte;
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int)) * 2];
    } control;
    struct iovec one = {&byte, 1};
    struct msghdr message = {.msg_iov = &one, .msg_iovlen = 1, .msg_control = &control,
                             .msg_controllen = sizeof control};
    same_number("recvmsg", recvmsg(pair[0], &message, MSG_CMSG_CLOEXEC), 1);
    struct cmsghdr *first = CMSG_FIRSTHDR(&message);
    if (check(first && first->cmsg_level == SOL_SOCKET && first->cmsg_type == WITH_PIDFD, "SCM_PIDFD")) {
        memcpy(&fd, CMSG_DATA(first), sizeof fd);
        same_number("whose it is", number_in(fd, "Pid:\t"), pid);
        close(fd);
    }
    end(pid);
    close(pair[0]);
    close(pair[1]);
}

static void handles(void)
{
    if (!since(6, 14))
        return;
    pid_t pid = sleeper();
    int fd = need("pidfd_open", pidfd_open(pid, 0)), mount;
    union {
        struct file_handle handle;
        char bytes[sizeof(struct file_handle) + 128];
    } one = {.handle.handle_bytes = 128};
    same_number("name_to_handle_at", name_to_handle_at(fd, "", &one.handle, &mount, AT_EMPTY_PATH), 0);
    int again = open_by_handle_at(fd, &one.handle, 0);
    if (check(again >= 0, "open_by_handle_at"))
        same_number("whose it is", number_in(again, "Pid:\t"), pid);
    close(again);
    end(pid);
    fails("open_by_handle_at of one that is gone", open_by_handle_at(fd, &one.handle, 0), ESTALE);
    close(fd);
}

int main(void)
{
    close_range(3, ~0U, 0);
    opened();
    signals();
    threads();
    group();
    self_names();
    descriptors();
    information();
    waited();
    made();
    entered();
    memory();
    peers();
    handles();
    return result();
}
