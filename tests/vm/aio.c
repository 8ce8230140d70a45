/* Asynchronous I/O by its system calls, with the ring of events read by the program itself, as libaio does. */
#include "check.h"
#include <linux/aio_abi.h>
#include <sys/eventfd.h>
#include <time.h>

/* The beginning of the ring (fs/aio.c). */
struct ring {
    unsigned id, count, head, tail, magic, compatible, incompatible, header_length;
    struct io_event events[];
};
#define MAGIC 0xa10a10a1

static aio_context_t open_context(unsigned count)
{
    aio_context_t context = 0;
    need("io_setup", syscall(SYS_io_setup, count, &context));
    return context;
}

static long submit(aio_context_t context, struct iocb *one)
{
    return syscall(SYS_io_submit, context, 1, &one);
}

static void rings(aio_context_t context)
{
    struct ring *ring = (void *)context;
#ifdef __x86_64__
    check(context < 1UL << 47, "the ring is at %#lx", (unsigned long)context);
#endif
    same_number("its magic number", ring->magic, MAGIC);
    same_number("its header's length", ring->header_length, sizeof *ring);
    check(ring->count >= 8, "it has room for %u events", ring->count);
    char text[65536], wanted[32];
    snprintf(wanted, sizeof wanted, "%lx-", (unsigned long)context);
    read_file("/proc/self/maps", text, sizeof text);
    char *line = strstr(text, wanted), *end = line ? strchr(line, '\n') : NULL;
    if (end)
        *end = 0;
    check(line && strstr(line, "/[aio]"), "/proc/self/maps: %s", line);
}

static void transfers(aio_context_t context)
{
    char buffer[16] = "";
    struct ring *ring = (void *)context;
    struct io_event event = {0};
    int fd = need("open", open("file", O_RDWR | O_CREAT | O_TRUNC, 0600));
    struct iocb write = {.aio_lio_opcode = IOCB_CMD_PWRITE, .aio_fildes = fd, .aio_nbytes = 11, .aio_data = 4711};
    write.aio_buf = (unsigned long)"hello world";
    same_number("io_submit of a write", submit(context, &write), 1);
    same_number("io_getevents", syscall(SYS_io_getevents, context, 1, 1, &event, NULL), 1);
    same_number("the result", event.res, 11);
    check(event.data == 4711 && event.obj == (unsigned long)&write, "the event is the request's");

    /* As libaio does: the event is taken without a call. */
    struct iocb read = {.aio_lio_opcode = IOCB_CMD_PREAD, .aio_fildes = fd, .aio_nbytes = 5, .aio_offset = 6};
    read.aio_buf = (unsigned long)buffer;
    same_number("io_submit of a read", submit(context, &read), 1);
    for (int i = 0; i < 10000 && __atomic_load_n(&ring->tail, __ATOMIC_ACQUIRE) == ring->head; i++)
        usleep(1000);
    check(ring->tail != ring->head, "an event is in the ring");
    event = ring->events[ring->head];
    __atomic_store_n(&ring->head, (ring->head + 1) % ring->count, __ATOMIC_RELEASE);
    same_number("the result", event.res, 5);
    same("what was read", buffer, "world");
    struct timespec none = {0, 0};
    same_number("no more events", syscall(SYS_io_getevents, context, 0, 1, &event, &none), 0);

    int counter = need("eventfd", eventfd(0, EFD_NONBLOCK));
    read.aio_flags = IOCB_FLAG_RESFD;
    read.aio_resfd = counter;
    same_number("io_submit with an eventfd", submit(context, &read), 1);
    same_number("io_getevents", syscall(SYS_io_getevents, context, 1, 1, &event, NULL), 1);
    unsigned long count = 0;
    need("read", syscall(SYS_read, counter, &count, 8));
    same_number("what it counts", count, 1);
    close(counter);

    read.aio_flags = 0;
    read.aio_buf = 8;
    same_number("io_submit of a bad buffer", submit(context, &read), 1);
    same_number("io_getevents", syscall(SYS_io_getevents, context, 1, 1, &event, NULL), 1);
    same_number("the result", event.res, -EFAULT);
    struct iocb *bad = (void *)8;
    same_number("io_submit of a bad address", syscall(SYS_io_submit, context, 1, &bad) == -1 ? errno : 0, EFAULT);
    close(fd);
}

static volatile int handled;

static void handler(int number)
{
    handled = number;
}

static void waiting(aio_context_t context)
{
    struct {
        sigset_t *set;
        size_t size;
    } mask;
    sigset_t set, empty, now;
    struct io_event event;
    struct timespec limit = {10, 0};
    signal(SIGUSR1, handler);
    sigemptyset(&empty);
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    raise(SIGUSR1);
    mask.set = &empty;
    mask.size = 8;
    long done = syscall(SYS_io_pgetevents, context, 1, 1, &event, &limit, &mask);
    same_number("io_pgetevents with another mask", done == -1 ? errno : 0, EINTR);
    same_number("the signal handled", handled, SIGUSR1);
    sigprocmask(SIG_SETMASK, NULL, &now);
    check(sigismember(&now, SIGUSR1), "the mask is as it was");
    limit.tv_sec = 0;
    limit.tv_nsec = 1000000;
    same_number("without a mask", syscall(SYS_io_pgetevents, context, 1, 1, &event, &limit, NULL), 0);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
}

int main(void)
{
    workplace();
    aio_context_t context = open_context(8), other = open_context(100), bad = 1;
    rings(context);
    rings(other);
    same_number("io_destroy", syscall(SYS_io_destroy, other), 0);
    same_number("once more", syscall(SYS_io_destroy, other) == -1 ? errno : 0, EINVAL);
    char text[65536], wanted[32];
    snprintf(wanted, sizeof wanted, "%lx-", (unsigned long)other);
    read_file("/proc/self/maps", text, sizeof text);
    check(!strstr(text, wanted), "its ring is gone");
    transfers(context);
    waiting(context);
    same_number("io_setup in a place that is not zero", syscall(SYS_io_setup, 1, &bad) == -1 ? errno : 0, EINVAL);
    same_number("io_setup of a bad address", syscall(SYS_io_setup, 1, 8) == -1 ? errno : 0, EFAULT);
    same_number("io_destroy", syscall(SYS_io_destroy, context), 0);
    return result();
}
