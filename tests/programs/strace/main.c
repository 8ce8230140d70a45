/* System calls whose lines in --strace must be those of strace(1): each is made by number, so that the C library adds
 * none, between two marks. Addresses and process numbers are the only things that may differ from run to run. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define call(name, ...) syscall(SYS_##name, ##__VA_ARGS__)

static char buffer[4096];

static void mark(const char *text)
{
    call(access, text, F_OK);
}

static void files(void)
{
    int pair[2];
    struct stat status;
    mark("/mark/files");
    int fd = call(openat, AT_FDCWD, "file", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    call(write, fd, "hello\n\001world", 12);
    call(pwrite64, fd, "x", 1, 0);
    call(lseek, fd, 2, SEEK_SET);
    call(read, fd, buffer, 4);
    struct iovec parts[2] = {{buffer, 3}, {buffer + 100, 40}};
    call(writev, fd, parts, 2);
    call(pread64, fd, buffer, 100, 0);
    call(ftruncate, fd, 100000);
    call(fallocate, fd, FALLOC_FL_KEEP_SIZE, 0, 4096);
    call(fadvise64, fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    call(fsync, fd);
    call(fchmod, fd, 0600);
    call(fchown, fd, -1, -1);
    call(fcntl, fd, F_GETFD);
    call(fcntl, fd, F_SETFD, FD_CLOEXEC);
    call(fcntl, fd, F_SETFL, O_APPEND);
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 1, .l_len = 2};
    call(fcntl, fd, F_SETLK, &lock);
    call(flock, fd, LOCK_EX | LOCK_NB);
    call(mkdir, "folder", 0700);
    call(rename, "file", "folder/file");
    call(symlink, "target", "link");
    call(readlink, "link", buffer, 100);
    call(unlink, "link");
    call(linkat, AT_FDCWD, "folder/file", AT_FDCWD, "hard", 0);
    call(renameat2, AT_FDCWD, "hard", AT_FDCWD, "folder/file", 2 /* RENAME_EXCHANGE */);
    call(unlinkat, AT_FDCWD, "hard", 0);
    call(stat, "nonexistent", &status);
    call(newfstatat, AT_FDCWD, "/dev/null", &status, AT_SYMLINK_NOFOLLOW);
    call(chdir, "folder");
    call(access, "file", R_OK | W_OK);
    call(utimensat, AT_FDCWD, "file", (struct timespec[2]){{1, 2}, {.tv_nsec = UTIME_OMIT}}, 0);
    call(truncate, "file", 10);
    call(chmod, "file", 0640);
    call(chown, "file", 0, -1);
    call(chdir, "..");
    call(dup2, fd, 9);
    call(dup3, fd, 10, O_CLOEXEC);
    call(close, 9);
    call(close, 10);
    call(close_range, 50, ~0U, 0);
    call(pipe2, pair, O_NONBLOCK | O_CLOEXEC);
    call(read, pair[0], buffer, 10);
    call(fcntl, pair[0], F_SETPIPE_SZ, 8192);
    call(splice, fd, 0, pair[1], 0, 10, SPLICE_F_NONBLOCK);
    call(umask, 022);
    call(close, 12345);
    call(open, "nonexistent", O_RDONLY | O_DIRECTORY);
    call(inotify_init1, IN_NONBLOCK);
    call(memfd_create, "name", MFD_CLOEXEC | MFD_ALLOW_SEALING);
}

static void descriptors(void)
{
    int pair[2];
    mark("/mark/descriptors");
    call(socketpair, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair);
    int on = 1;
    call(setsockopt, pair[0], SOL_SOCKET, SO_PASSCRED, &on, sizeof on);
    struct linger linger = {1, 5};
    call(setsockopt, pair[0], SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
    call(sendto, pair[0], "message", 7, MSG_NOSIGNAL | MSG_DONTWAIT, 0, 0);
    struct pollfd ready[2] = {{pair[1], POLLIN | POLLRDHUP, 0}, {-1, POLLOUT, 0}};
    call(poll, ready, 2, 0);
    call(recvfrom, pair[1], buffer, 100, MSG_PEEK, 0, 0);
    call(recvfrom, pair[1], buffer, 100, MSG_DONTWAIT, 0, 0);
    call(poll, ready, 2, 0);
    call(shutdown, pair[0], SHUT_WR);
    struct sockaddr_un path = {AF_UNIX, "/nonexistent/socket"};
    int fd = call(socket, AF_UNIX, SOCK_DGRAM, 0);
    call(connect, fd, &path, sizeof path);
    int epoll = call(epoll_create1, EPOLL_CLOEXEC);
    call(epoll_ctl, epoll, EPOLL_CTL_DEL, pair[0], 0);
    fd_set set;
    FD_ZERO(&set);
    FD_SET(pair[1], &set);
    call(select, pair[1] + 1, &set, 0, 0, 0);
    call(eventfd2, 3, EFD_SEMAPHORE | EFD_NONBLOCK);
    call(timerfd_create, CLOCK_MONOTONIC, TFD_CLOEXEC);
    uint64_t signals = 1 << (SIGUSR1 - 1);
    call(signalfd4, -1, &signals, 8, SFD_CLOEXEC);
}

static void memory(void)
{
    mark("/mark/memory");
    void *at = (void *)call(mmap, 0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    call(mprotect, at, 4096, PROT_READ | PROT_EXEC);
    call(madvise, at, 4096, MADV_DONTNEED);
    call(msync, at, 4096, MS_ASYNC | MS_INVALIDATE);
    call(mlock, at, 4096);
    call(munlock, at, 4096);
    call(munmap, at, 8192);
    call(shmget, IPC_PRIVATE, 0, IPC_CREAT | 0600);
    call(shmctl, -1, IPC_RMID, 0);
    call(shmat, -1, 0, SHM_RDONLY);
    call(msgget, 12345, 0640);
    call(semop, -1, &(struct sembuf){1, -1, SEM_UNDO | IPC_NOWAIT}, 1);
}

static void time_(void)
{
    struct timespec time = {0, 1000};
    mark("/mark/time");
    call(nanosleep, &time, 0);
    call(clock_nanosleep, CLOCK_MONOTONIC, 0, &time, 0);
    call(setitimer, ITIMER_REAL, &(struct itimerval){{1, 2}, {3000, 4}}, 0);
    call(setitimer, ITIMER_REAL, &(struct itimerval){{0, 0}, {0, 0}}, 0);
    call(clock_nanosleep, CLOCK_REALTIME, TIMER_ABSTIME, &(struct timespec){1, 0}, 0);
    call(futex, &time, 129 /* FUTEX_WAKE_PRIVATE */, 1);
    call(futex, &time.tv_nsec, 0 /* FUTEX_WAIT */, 7, &time);
}

static void processes(void)
{
    struct rlimit limit;
    mark("/mark/processes");
    call(setrlimit, RLIMIT_CORE, &(struct rlimit){0, 0});
    call(prlimit64, 0, RLIMIT_CORE, 0, &limit);
    call(getgroups, -1, 0);
    call(setuid, 0);
    call(setresgid, -1, 0, -1);
    // However nice the whole test is.
    call(setpriority, PRIO_PROCESS, 0, 19);
    call(getpriority, PRIO_PROCESS, 0);
    call(setpgid, 0, 0);
    call(kill, 0x3fffffff, SIGTERM);
    call(tgkill, 0x3fffffff, 1, SIGRTMIN);
    call(prctl, PR_SET_NAME, "renamed");
    call(prctl, PR_SET_PDEATHSIG, SIGHUP);
    call(prctl, PR_GET_DUMPABLE);
    call(wait4, -1, 0, WNOHANG, 0);
    call(pidfd_open, 0x3fffffff, O_NONBLOCK);
    call(pidfd_send_signal, -1, SIGUSR1, 0, 0);
    call(personality, 0xffffffff);
    call(unshare, 0);
    call(setns, -1, CLONE_NEWNET | CLONE_NEWUTS);
    call(rt_sigprocmask, SIG_BLOCK, &(uint64_t){1 << (SIGUSR2 - 1) | 1 << (SIGCHLD - 1)}, 0, 8);
    call(rt_sigprocmask, SIG_SETMASK, &(uint64_t){~(1ULL << (SIGTERM - 1))}, 0, 8);
    call(rt_sigprocmask, SIG_SETMASK, &(uint64_t){0}, 0, 8);
    call(getrandom, buffer, 0, GRND_NONBLOCK);
    call(sched_yield);
    call(getpgid, 0x3fffffff);
    call(mount, "from", "/nonexistent", "tmpfs", MS_NOSUID | MS_NODEV, 0);
    call(umount2, "/nonexistent", MNT_DETACH);
    call(openat2, AT_FDCWD, "nonexistent", &(uint64_t[3]){O_RDONLY | O_CLOEXEC, 0, 4}, 24);
    call(kcmp, 0x3fffffff, 1, 0, 0, 0);
    call(setxattr, "nonexistent", "user.x", "value", 5, 1);
}

static void handler(int signo, siginfo_t *info, void *context)
{
    (void)signo, (void)info, (void)context;
}

static int told[2];

static int thread(void *argument)
{
    (void)argument;
    call(close, 20000);
    call(write, told[1], "x", 1);
    call(exit, 5);
    return 0;
}

/* clone(2) by itself: the C library's refuses to make threads (musl 1.2.6). */
static void make_thread(int (*function)(void *), char *stack, long flags)
{
    long result;
    register long child_tid asm("r10") = 0, tls asm("r8") = 0;
    asm volatile("syscall; test %%eax, %%eax; jnz 1f; xor %%edi, %%edi; call *%[function]; hlt; 1:"
                 : "=a"(result)
                 : "a"(SYS_clone), "D"(flags), "S"(stack), "d"(0L), "r"(child_tid), "r"(tls),
                   [function] "b"(function)
                 : "rcx", "r11", "memory");
}

static void children(char **argv)
{
    static char stack[65536];
    int status;
    siginfo_t info;
    mark("/mark/children");
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_RESTART};
    sigaction(SIGUSR1, &action, 0);
    pid_t self = call(getpid);
    call(tgkill, self, self, SIGUSR1);
    call(rt_sigqueueinfo, self, SIGUSR1, &(siginfo_t){.si_signo = SIGUSR1, .si_code = SI_QUEUE});
    call(pipe, told);
    make_thread(thread, stack + sizeof stack,
                CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM);
    call(read, told[0], buffer, 1);
    pid_t child = call(fork);
    if (child == 0) {
        call(execve, "nonexistent", argv, 0);
        call(execve, "/proc/self/exe", (char *[]){argv[0], "child", 0}, (char *[]){"A=1", 0});
        call(exit_group, 9);
    }
    call(wait4, child, &status, 0, 0);
    child = call(fork);
    if (child == 0) {
        pid_t own = call(gettid);
        call(tkill, own, SIGTERM);
        call(exit_group, 9);
    }
    call(wait4, child, &status, 0, 0);
    child = call(fork);
    if (child == 0) {
        call(setrlimit, RLIMIT_CORE, &(struct rlimit){0, 0});
        *(volatile int *)0x10 = 1;
        call(exit_group, 9);
    }
    call(waitid, P_PID, child, &info, WEXITED, 0);
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        call(exit_group, 7);
    }
    files();
    descriptors();
    memory();
    time_();
    processes();
    children(argv);
    mark("/mark/end");
    puts("done");
    return 3;
}
