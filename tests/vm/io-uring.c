/* io_uring(7): what is converted for the kernel, and that all else is as it was. */
#include "uring.h"
#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>

#ifdef __x86_64__
#define LARGEFILE 0100000
#define TRANSLATED 1
#else
#define LARGEFILE 0400000
#define TRANSLATED 0
#endif

static void plain(struct ring *ring)
{
    char buffer[16] = "";
    ring_entry(ring, IORING_OP_NOP, -1);
    same_number("nop", ring_one(ring), 0);

    int fd = need("open", open("file", O_RDWR | O_CREAT | O_TRUNC, 0600));
    struct io_uring_sqe *entry = ring_entry(ring, IORING_OP_WRITE, fd);
    entry->addr = (unsigned long)"hello world";
    entry->len = 11;
    same_number("write", ring_one(ring), 11);
    entry = ring_entry(ring, IORING_OP_READ, fd);
    entry->addr = (unsigned long)buffer;
    entry->len = 5;
    same_number("read", ring_one(ring), 5);
    same("what was read", buffer, "hello");
    struct iovec parts[2] = {{buffer, 1}, {buffer + 1, 3}};
    entry = ring_entry(ring, IORING_OP_READV, fd);
    entry->addr = (unsigned long)parts;
    entry->len = 2;
    entry->off = 6;
    same_number("readv", ring_one(ring), 4);
    same("what was read", buffer, "worlo");
    close(fd);
}

/* What is to be seen of a descriptor or an error. */
static long seen(int fd)
{
    if (fd < 0)
        return fd;
    long flags = fcntl(fd, F_GETFL);
    close(fd);
    return flags;
}

static long open_flags(const char *path, int flags)
{
    int fd = openat(AT_FDCWD, path, flags, 0600);
    return fd < 0 ? -errno : seen(fd);
}

static void opening(struct ring *ring)
{
    static const struct {
        const char *path;
        int flags;
    } list[] = {
        {"file", O_RDONLY},
        {"file", O_RDONLY | O_DIRECTORY},
        {".", O_RDONLY | O_DIRECTORY},
        {"link", O_RDONLY | O_NOFOLLOW},
        {"link", O_RDONLY},
        {"file", O_RDWR | O_DIRECT},
        {"file", O_RDONLY | LARGEFILE},
        {".", O_RDWR | O_TMPFILE},
        {"link", O_PATH | O_NOFOLLOW},
        {".", O_PATH | O_DIRECTORY},
        {"new", O_WRONLY | O_CREAT | O_EXCL},
        {"missing", O_RDONLY | O_DIRECTORY},
    };
    struct {
        unsigned long flags, mode, resolve, more;
    } how = {0};
    need("symlink", symlink("file", "link"));
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        char what[100];
        unlink("new");
        long wanted = open_flags(list[i].path, list[i].flags);
        unlink("new");
        snprintf(what, sizeof what, "openat of %s with %#o", list[i].path, list[i].flags);
        ring_open_entry(ring, list[i].path, list[i].flags);
        same_number(what, seen(ring_one(ring)), wanted);

        unlink("new");
        snprintf(what, sizeof what, "openat2 of %s with %#o", list[i].path, list[i].flags);
        how.flags = list[i].flags;
        how.mode = list[i].flags & O_CREAT || (list[i].flags & O_TMPFILE) == O_TMPFILE ? 0600 : 0;
        wanted = seen(syscall(SYS_openat2, AT_FDCWD, list[i].path, &how, 24));
        wanted = wanted == -1 ? -errno : wanted;
        unlink("new");
        struct io_uring_sqe *entry = ring_entry(ring, IORING_OP_OPENAT2, AT_FDCWD);
        entry->addr = (unsigned long)list[i].path;
        entry->addr2 = (unsigned long)&how;
        entry->len = i % 2 ? sizeof how : 24;
        same_number(what, seen(ring_one(ring)), wanted);
    }
    how.more = 1;
    struct io_uring_sqe *entry = ring_entry(ring, IORING_OP_OPENAT2, AT_FDCWD);
    entry->addr = (unsigned long)"file";
    entry->addr2 = (unsigned long)&how;
    entry->len = sizeof how;
    same_number("openat2 with more than there is", ring_one(ring), -E2BIG);

    /* An entry is the program's: it stays as it is, and can be submitted again. */
    entry = ring_open_entry(ring, ".", O_DIRECTORY);
    struct io_uring_sqe before = *entry;
    check(seen(ring_one(ring)) >= 0, "a folder is opened");
    check(memcmp(&before, entry, sizeof before) == 0, "the entry is as it was");
    unsigned index = (*ring_word(ring, ring->params.sq_off.tail) - 1) & (ring->params.sq_entries - 1);
    ring_entry(ring, IORING_OP_NOP, -1);
    unsigned now = (index + 1) & (ring->params.sq_entries - 1);
    ring_word(ring, ring->params.sq_off.array)[now] = index;
    unsigned long of = 0;
    int result = -4095;
    same_number("submitted again", ring_enter(ring, 1, 1, IORING_ENTER_GETEVENTS), 1);
    ring_take(ring, &of, &result);
    check(of == before.user_data && seen(result) >= 0, "the same entry opens the folder again");
}

static void epolls(struct ring *ring)
{
    int epoll = need("epoll_create1", epoll_create1(0)), fd = need("eventfd", eventfd(1, 0));
    struct epoll_event event = {EPOLLIN, {.u64 = 0x1122334455667788}}, found = {0};
    struct io_uring_sqe *entry = ring_entry(ring, IORING_OP_EPOLL_CTL, epoll);
    entry->off = fd;
    entry->len = EPOLL_CTL_ADD;
    entry->addr = (unsigned long)&event;
    same_number("EPOLL_CTL_ADD", ring_one(ring), 0);
    same_number("epoll_wait", epoll_wait(epoll, &found, 1, 0), 1);
    check(found.data.u64 == event.data.u64 && found.events == EPOLLIN, "the event is the one given");
    entry = ring_entry(ring, IORING_OP_EPOLL_CTL, epoll);
    entry->off = fd;
    entry->len = EPOLL_CTL_DEL;
    same_number("EPOLL_CTL_DEL", ring_one(ring), 0);
    entry = ring_entry(ring, IORING_OP_EPOLL_CTL, epoll);
    entry->off = fd;
    entry->len = EPOLL_CTL_ADD;
    entry->addr = 8;
    same_number("EPOLL_CTL_ADD of a bad address", ring_one(ring), -EFAULT);
    close(epoll);
    close(fd);
}

/* What depends on the kernel. */
static void newer(struct ring *ring)
{
    struct {
        struct io_uring_probe probe;
        struct io_uring_probe_op more[256];
    } all = {0};
    need("IORING_REGISTER_PROBE",
         syscall(SYS_io_uring_register, ring->fd, IORING_REGISTER_PROBE, &all, 256));
    check(all.probe.ops[IORING_OP_OPENAT2].flags & IO_URING_OP_SUPPORTED, "openat2 is supported");
    if (all.probe.ops_len > OP_PIPE && all.probe.ops[OP_PIPE].flags & IO_URING_OP_SUPPORTED) {
        int pair[2] = {-1, -1}, wanted[2];
        struct io_uring_sqe *entry = ring_entry(ring, OP_PIPE, 0);
        entry->addr = (unsigned long)pair;
        entry->open_flags = O_DIRECT | O_CLOEXEC | O_NONBLOCK;
        same_number("pipe", ring_one(ring), 0);
        need("pipe2", pipe2(wanted, O_DIRECT | O_CLOEXEC | O_NONBLOCK));
        same_number("the flags of its end", seen(pair[1]), seen(wanted[1]));
        same_number("those of the other", seen(pair[0]), seen(wanted[0]));
    }
    int native = all.probe.ops_len > OP_EPOLL_WAIT &&
                 all.probe.ops[OP_EPOLL_WAIT].flags & IO_URING_OP_SUPPORTED;
    check(!native || !TRANSLATED, "EPOLL_WAIT is not said to be supported");
    if (!native) {
        struct epoll_event event;
        struct io_uring_sqe *entry = ring_entry(ring, OP_EPOLL_WAIT, 0);
        entry->addr = (unsigned long)&event;
        entry->len = 1;
        same_number("EPOLL_WAIT", ring_one(ring), -EINVAL);
    }
}

static void timing(struct ring *ring)
{
    int results[3], pair[2];
    struct __kernel_timespec soon = {0, 1000000};
    char byte;
    need("pipe", pipe(pair));
    struct io_uring_sqe *entry = ring_entry(ring, IORING_OP_TIMEOUT, -1);
    entry->addr = (unsigned long)&soon;
    entry->len = 1;
    same_number("a timeout", ring_one(ring), -ETIME);

    entry = ring_entry(ring, IORING_OP_READ, pair[0]);
    entry->addr = (unsigned long)&byte;
    entry->len = 1;
    entry->flags = IOSQE_IO_LINK;
    entry = ring_entry(ring, IORING_OP_LINK_TIMEOUT, -1);
    entry->addr = (unsigned long)&soon;
    entry->len = 1;
    ring_run(ring, 2, results);
    same_number("a read that takes too long", results[0], -ECANCELED);
    same_number("its timeout", results[1], -ETIME);

    /* A chain: what follows a failure is not done. */
    ring_open_entry(ring, "missing", O_DIRECTORY)->flags = IOSQE_IO_LINK;
    ring_entry(ring, IORING_OP_NOP, -1)->flags = IOSQE_IO_LINK;
    ring_entry(ring, IORING_OP_NOP, -1);
    ring_run(ring, 3, results);
    same_number("a chain that fails", results[0], -ENOENT);
    same_number("what comes after", results[1], -ECANCELED);
    same_number("and after that", results[2], -ECANCELED);

    entry = ring_entry(ring, IORING_OP_POLL_ADD, pair[0]);
    entry->poll_events = POLLIN;
    same_number("poll is submitted", ring_enter(ring, 1, 0, 0), 1);
    need("write", write(pair[1], "x", 1));
    unsigned long of;
    need("io_uring_enter", ring_enter(ring, 0, 1, IORING_ENTER_GETEVENTS));
    check(ring_take(ring, &of, results) && results[0] == POLLIN, "poll is %d", results[0]);
    close(pair[0]);
    close(pair[1]);
}

static void sockets(struct ring *ring)
{
    struct sockaddr_un name = {AF_UNIX, "socket"};
    int listener = need("socket", socket(AF_UNIX, SOCK_STREAM, 0)), results[2];
    int client = need("socket", socket(AF_UNIX, SOCK_STREAM, 0));
    char buffer[8] = "";
    need("bind", bind(listener, (void *)&name, sizeof name));
    need("listen", listen(listener, 1));
    struct io_uring_sqe *entry = ring_entry(ring, IORING_OP_ACCEPT, listener);
    entry->accept_flags = SOCK_CLOEXEC | SOCK_NONBLOCK;
    entry = ring_entry(ring, IORING_OP_CONNECT, client);
    entry->addr = (unsigned long)&name;
    entry->off = sizeof name;
    ring_run(ring, 2, results);
    int server = results[0];
    same_number("connect", results[1], 0);
    check(server > 0 && fcntl(server, F_GETFD) == FD_CLOEXEC, "accept with close on exec");
    entry = ring_entry(ring, IORING_OP_SEND, client);
    entry->addr = (unsigned long)"ping";
    entry->len = 4;
    entry = ring_entry(ring, IORING_OP_RECV, server);
    entry->addr = (unsigned long)buffer;
    entry->len = sizeof buffer;
    ring_run(ring, 2, results);
    same_number("send", results[0], 4);
    same_number("receive", results[1], 4);
    same("what was received", buffer, "ping");
    close(client);
    close(server);
    close(listener);
}

static void registered(struct ring *ring)
{
    char *memory = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct iovec buffer = {memory, 65536};
    int files[2] = {open("file", O_RDWR), -1}, results[3];
    need("buffers", syscall(SYS_io_uring_register, ring->fd, IORING_REGISTER_BUFFERS, &buffer, 1));
    need("files", syscall(SYS_io_uring_register, ring->fd, IORING_REGISTER_FILES, files, 2));
    strcpy(memory + 4096, "fixed");
    struct io_uring_sqe *entry = ring_entry(ring, IORING_OP_WRITE_FIXED, 0);
    entry->flags = IOSQE_FIXED_FILE | IOSQE_IO_LINK;
    entry->addr = (unsigned long)memory + 4096;
    entry->len = 5;
    entry = ring_entry(ring, IORING_OP_READ_FIXED, 0);
    entry->flags = IOSQE_FIXED_FILE;
    entry->addr = (unsigned long)memory;
    entry->len = 5;
    ring_run(ring, 2, results);
    same_number("a write from a registered buffer", results[0], 5);
    same_number("a read into it", results[1], 5);
    same("what was read", memory, "fixed");

    /* A file that has no descriptor: opened, read and closed in one call. */
    entry = ring_open_entry(ring, "file", O_RDONLY | O_NOFOLLOW);
    entry->file_index = 2;
    entry->flags = IOSQE_IO_LINK;
    entry = ring_entry(ring, IORING_OP_READ, 1);
    entry->flags = IOSQE_FIXED_FILE | IOSQE_IO_LINK;
    entry->addr = (unsigned long)memory + 100;
    entry->len = 5;
    entry = ring_entry(ring, IORING_OP_CLOSE, 0);
    entry->file_index = 2;
    ring_run(ring, 3, results);
    same_number("opened without a descriptor", results[0], 0);
    same_number("read", results[1], 5);
    same_number("closed", results[2], 0);
    same("what was read", memory + 100, "fixed");
    close(files[0]);
    munmap(memory, 65536);
}

/* The ring by a number of its own instead of the descriptor's. */
static void numbered(struct ring *ring)
{
    struct io_uring_rsrc_update update = {.offset = -1U, .data = ring->fd};
    same_number("IORING_REGISTER_RING_FDS",
                syscall(SYS_io_uring_register, ring->fd, IORING_REGISTER_RING_FDS, &update, 1), 1);
    ring_open_entry(ring, ".", O_DIRECTORY);
    int fd = ring->fd, result = -1;
    unsigned long of;
    ring->fd = update.offset;
    same_number("io_uring_enter by number",
                ring_enter(ring, 1, 1, IORING_ENTER_GETEVENTS | IORING_ENTER_REGISTERED_RING), 1);
    ring->fd = fd;
    check(ring_take(ring, &of, &result) && seen(result) >= 0, "a folder is opened: %d", result);
    update.data = 0;
    same_number("IORING_UNREGISTER_RING_FDS",
                syscall(SYS_io_uring_register, fd, IORING_UNREGISTER_RING_FDS, &update, 1), 1);
}

static void addresses(struct ring *ring)
{
    char text[65536], wanted[32];
    for (int i = 0; i < 2; i++) {
        unsigned long at = (unsigned long)(i ? ring->entries : ring->queue);
        check(!TRANSLATED || at < 1UL << 47, "a queue is at %#lx", at);
        snprintf(wanted, sizeof wanted, "%lx-", at);
        read_file("/proc/self/maps", text, sizeof text);
        char *line = strstr(text, wanted);
        char *end = line ? strchr(line, '\n') : NULL;
        if (end)
            *end = 0;
        check(line && strstr(line, "anon_inode:[io_uring]"), "/proc/self/maps: %s", line);
    }
    same_number("setup of a bad address", syscall(SYS_io_uring_setup, 4, 8) == -1 ? errno : 0, EFAULT);
    unsigned flags = IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG;
    long done = syscall(SYS_io_uring_enter, ring->fd, 0, 0, flags, 8, 24);
    same_number("a bad argument of io_uring_enter", done == -1 ? errno : 0, EFAULT);
    int fd = need("open", open("file", O_RDONLY));
    const unsigned long bad[] = {8, 1UL << 47, (1UL << 47) + (1UL << 45), -4096UL};
    for (int i = 0; i < 4; i++) {
        struct io_uring_sqe *entry = ring_entry(ring, IORING_OP_READ, fd);
        entry->addr = bad[i];
        entry->len = 4;
        snprintf(text, sizeof text, "a read to %#lx", bad[i]);
        same_number(text, ring_one(ring), -EFAULT);
        ring_open_entry(ring, (char *)bad[i], 0);
        snprintf(text, sizeof text, "a name at %#lx", bad[i]);
        same_number(text, ring_one(ring), -EFAULT);
    }
    close(fd);
}

/* Queues of another size (Linux 6.13), with an entry waiting in the old one. */
static void resized(void)
{
    struct ring ring;
    struct io_uring_params params = {.sq_entries = 32, .cq_entries = 64, .flags = IORING_SETUP_CQSIZE};
    unsigned flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
    need("setup", ring_open(&ring, 4, flags) ? 0 : -1);
    for (int i = 0; i < 3; i++) {
        ring_open_entry(&ring, ".", O_DIRECTORY);
        check(seen(ring_one(&ring)) >= 0, "a folder is opened");
    }
    ring_open_entry(&ring, ".", O_DIRECTORY);
    if (syscall(SYS_io_uring_register, ring.fd, REGISTER_RESIZE_RINGS, &params, 1) == -1) {
        same_number("queues cannot be resized", errno, EINVAL);
        ring_close(&ring);
        return;
    }
    same_number("the entries there are", params.sq_entries, 32);
    params.flags |= flags;
    ring_move(&ring, &params);
    int result = -1;
    unsigned long of;
    same_number("submitted", ring_enter(&ring, 1, 1, IORING_ENTER_GETEVENTS), 1);
    check(ring_take(&ring, &of, &result) && seen(result) >= 0, "what waited opens a folder: %d", result);
    int results[20];
    for (int i = 0; i < 20; i++)
        ring_open_entry(&ring, i % 2 ? "." : "file", O_DIRECTORY);
    ring_run(&ring, 20, results);
    int opened = 0;
    for (int i = 0; i < 20; i++)
        opened += results[i] >= 0 ? close(results[i]) == 0 : results[i] != -ENOTDIR ? 100 : 0;
    same_number("folders opened by the larger queue", opened, 10);
    ring_close(&ring);
}

static volatile int handled;

static void handler(int number)
{
    handled = number;
}

static void waiting(struct ring *ring)
{
    sigset_t set, empty;
    signal(SIGUSR1, handler);
    sigemptyset(&empty);
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    raise(SIGUSR1);
    check(!handled, "the signal is blocked");
    long done = syscall(SYS_io_uring_enter, ring->fd, 0, 1, IORING_ENTER_GETEVENTS, &empty, 8);
    same_number("a wait with another mask", done == -1 ? errno : 0, EINTR);
    same_number("the signal handled", handled, SIGUSR1);
    sigset_t now;
    sigprocmask(SIG_SETMASK, NULL, &now);
    check(sigismember(&now, SIGUSR1), "the mask is as it was");
    struct __kernel_timespec soon = {0, 1000000};
    struct io_uring_getevents_arg argument = {.ts = (unsigned long)&soon};
    unsigned flags = IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG;
    done = syscall(SYS_io_uring_enter, ring->fd, 0, 1, flags, &argument, sizeof argument);
    same_number("a wait with a limit", done == -1 ? errno : 0, ETIME);
    /* What was submitted counts, even when the wait is interrupted; and the signal is not lost. */
    handled = 0;
    raise(SIGUSR1);
    struct io_uring_sqe *entry = ring_entry(ring, IORING_OP_TIMEOUT, -1);
    struct __kernel_timespec late = {1000, 0};
    entry->addr = (unsigned long)&late;
    entry->len = 1;
    done = syscall(SYS_io_uring_enter, ring->fd, 1, 1, IORING_ENTER_GETEVENTS, &empty, 8);
    same_number("submitted before an interrupted wait", done, 1);
    same_number("the signal handled", handled, SIGUSR1);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
}

/* Several threads fill one queue in turn, and enter at once. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
#define THREADS 4
#define ROUNDS 100

static void *opener(void *argument)
{
    struct ring *ring = argument;
    for (int i = 0; i < ROUNDS; i++) {
        pthread_mutex_lock(&lock);
        ring_open_entry(ring, i % 2 ? "." : "file", O_DIRECTORY);
        pthread_mutex_unlock(&lock);
        while (ring_enter(ring, 1, i % 3 == 0, i % 3 == 0 ? IORING_ENTER_GETEVENTS : 0) < 0)
            if (errno != EINTR && errno != EAGAIN && errno != EBUSY)
                return NULL;
    }
    return NULL;
}

static void threads(void)
{
    struct ring ring;
    pthread_t list[THREADS];
    /* Room for all completions, which are taken at the end: who waits for one finds some. */
    need("setup", ring_open(&ring, 512, 0) ? 0 : -1);
    for (int i = 0; i < THREADS; i++)
        pthread_create(&list[i], NULL, opener, &ring);
    for (int i = 0; i < THREADS; i++)
        pthread_join(list[i], NULL);
    need("io_uring_enter", ring_enter(&ring, 512, THREADS * ROUNDS, IORING_ENTER_GETEVENTS));
    int opened = 0, refused = 0, result;
    for (unsigned long of; ring_take(&ring, &of, &result); opened += result >= 0, refused += result == -ENOTDIR)
        if (result >= 0)
            close(result);
    same_number("folders opened by threads", opened, THREADS * ROUNDS / 2);
    same_number("files that are none", refused, THREADS * ROUNDS / 2);
    ring_close(&ring);
}

/* The descriptor in other processes. */
static void inherited(struct ring *ring)
{
    pid_t pid = start();
    if (pid == 0) {
        ring_open_entry(ring, ".", O_DIRECTORY);
        check(seen(ring_one(ring)) >= 0, "a forked child opens a folder");
        _exit(result());
    }
    all_well("a forked child", pid);
    /* It has moved the parent's queue on as well. */
    ring_open_entry(ring, ".", O_DIRECTORY);
    check(seen(ring_one(ring)) >= 0, "and so does its parent");
    pid = start();
    if (pid == 0) {
        char number[16];
        snprintf(number, sizeof number, "%d", ring->fd);
        fcntl(ring->fd, F_SETFD, 0);
        char *arguments[] = {"io-uring", number, NULL};
        execve("/proc/self/exe", arguments, environ);
        not_executed();
    }
    all_well("an executed program", pid);
}

static int executed(int fd)
{
    struct ring ring = {.fd = fd};
    same_number("nothing submitted", ring_enter(&ring, 0, 0, 0), 0);
    long done = ring_enter(&ring, 1, 0, 0);
    if (TRANSLATED)
        same_number("another program's ring", done == -1 ? errno : 0, EOPNOTSUPP);
    else
        same_number("another program's ring", done, 0);
    return result();
}

/* A ring whose entries a thread of the kernel reads, as it seems. */
static void polled(void)
{
    struct ring ring;
    const unsigned both = IORING_SETUP_SQPOLL | IORING_SETUP_IOPOLL;
    need("setup", ring_open(&ring, 4, both) ? 0 : -1);
    same_number("it is polled in both ways", ring.params.flags & both, both);
    ring_close(&ring);
    need("setup", ring_open(&ring, 4, IORING_SETUP_SQPOLL | IORING_SETUP_SINGLE_ISSUER) ? 0 : -1);
    check(ring.params.flags & IORING_SETUP_SQPOLL, "it is polled");
    for (int i = 0; i < 6; i++) {
        ring_open_entry(&ring, ".", O_DIRECTORY);
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
        unsigned *flags = ring_word(&ring, ring.params.sq_off.flags);
        if (__atomic_load_n(flags, __ATOMIC_RELAXED) & IORING_SQ_NEED_WAKEUP)
            same_number("awake", ring_enter(&ring, 1, 0, IORING_ENTER_SQ_WAKEUP), 1);
        int result = -4095;
        unsigned long of;
        for (int j = 0; j < 10000 && !ring_take(&ring, &of, &result); j++)
            usleep(1000);
        check(seen(result) >= 0, "a folder is opened: %d", result);
    }
    ring_close(&ring);
}

/* Other forms of the queues. */
static void forms(void)
{
    static const struct {
        const char *name;
        unsigned flags;
    } list[] = {
        {"entries of 128 bytes", IORING_SETUP_SQE128},
        {"completions of 32 bytes", IORING_SETUP_CQE32},
        {"deferred work", IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN},
        {"no array", SETUP_NO_SQARRAY},
    };
    struct ring ring;
    for (int i = 0; i < 4; i++) {
        memset(&ring, 0, sizeof ring);
        if (!check(ring_open(&ring, 4, list[i].flags), "%s", list[i].name))
            continue;
        for (int j = 0; j < 6; j++) {
            ring_open_entry(&ring, ".", O_DIRECTORY);
            check(seen(ring_one(&ring)) >= 0, "a folder is opened");
        }
        ring_close(&ring);
    }
    struct io_uring_params params = {.flags = 1U << 31};
    same_number("an unknown form", syscall(SYS_io_uring_setup, 4, &params) == -1 ? errno : 0, EINVAL);
    params = (struct io_uring_params){.flags = IORING_SETUP_SQPOLL | IORING_SETUP_SQ_AFF, .sq_thread_cpu = 100000};
    same_number("a thread on no processor", syscall(SYS_io_uring_setup, 4, &params) == -1 ? errno : 0, EINVAL);
    params.sq_thread_cpu = sched_getcpu();
    int fd = need("a thread on a processor", syscall(SYS_io_uring_setup, 4, &params));
    same_number("unknown flags", syscall(SYS_io_uring_enter, fd, 1, 0, -1U, NULL, 0) == -1 ? errno : 0, EINVAL);
    close(fd);

    /* In the program's own memory. */
    char *memory = mmap(NULL, 131072, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    memset(memory, 0, 131072);
    memset(&ring, 0, sizeof ring);
    ring.params.flags = SETUP_NO_MMAP;
    USER_ADDRESS(ring.params.cq_off) = (unsigned long)memory;
    USER_ADDRESS(ring.params.sq_off) = (unsigned long)memory + 65536;
    ring.fd = syscall(SYS_io_uring_setup, 4, &ring.params);
    ring.next = 1;
    ring.entry_size = 64;
    ring.completion_size = 16;
    ring.queue = ring.completions = memory;
    ring.entries = memory + 65536;
    if (check(ring.fd >= 0, "a ring in the program's memory")) {
        ring_open_entry(&ring, ".", O_DIRECTORY);
        check(seen(ring_one(&ring)) >= 0, "a folder is opened");
        close(ring.fd);
    }
}

static void restricted(void)
{
    struct ring ring;
    struct io_uring_restriction list[2] = {
        {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_OPENAT},
        {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_EPOLL_CTL},
    };
    need("setup", ring_open(&ring, 4, IORING_SETUP_R_DISABLED) ? 0 : -1);
    ring_open_entry(&ring, ".", O_DIRECTORY);
    same_number("a ring that is off", ring_enter(&ring, 1, 0, 0) == -1 ? errno : 0, EBADFD);
    need("restrict", syscall(SYS_io_uring_register, ring.fd, IORING_REGISTER_RESTRICTIONS, list, 2));
    need("enable", syscall(SYS_io_uring_register, ring.fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0));
    check(seen(ring_one(&ring)) >= 0, "a folder is opened");
    ring_entry(&ring, IORING_OP_NOP, -1);
    same_number("an operation that is not allowed", ring_one(&ring), -EACCES);
    ring_close(&ring);
}

int main(int argc, char **argv)
{
    if (argc > 1)
        return executed(atoi(argv[1]));
    struct ring ring;
    workplace();
    need("io_uring_setup", ring_open(&ring, 8, 0) ? 0 : -1);
    plain(&ring);
    opening(&ring);
    epolls(&ring);
    newer(&ring);
    timing(&ring);
    sockets(&ring);
    registered(&ring);
    numbered(&ring);
    resized();
    addresses(&ring);
    inherited(&ring);
    threads();
    polled();
    forms();
    restricted();
    waiting(&ring);
    ring_close(&ring);
    return result();
}
