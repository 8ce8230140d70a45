/* io_uring(7): the program's memory that entries and registrations name. */
#include "uring.h"
#include <sys/socket.h>
#include <sys/uio.h>

/* Where a program's addresses end: arm64 kernels have 47 bits or more. */
static unsigned long end_of_addresses(void)
{
    void *at = (void *)(1UL << 47);
    if (mmap(at, 65536, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) != at)
        return 1UL << 47;
    munmap(at, 65536);
    return 1UL << 48;
}

/* Addresses within what entries and registrations point to. */
static void pointed(struct ring *ring)
{
    static char buffer[64];
    int fd = need("open", open("file", O_RDWR | O_CREAT, 0600)), pair[2];
    need("write", pwrite(fd, "0123456789", 10, 0));
    need("socketpair", socketpair(AF_UNIX, SOCK_DGRAM, 0, pair));
    const unsigned long bad[] = {8, 1UL << 47, (1UL << 47) + (1UL << 45), -65536UL};
    for (int i = 0; i < 4; i++) {
        char what[100];
        struct iovec vectors[2] = {{buffer, 2}, {(void *)bad[i], 2}};
        struct io_uring_sqe *entry = ring_entry(ring, IORING_OP_READV, fd);
        entry->addr = (unsigned long)(vectors + 1);
        entry->len = 1;
        snprintf(what, sizeof what, "readv to %#lx", bad[i]);
        same_number(what, ring_one(ring), -EFAULT);
        entry = ring_entry(ring, IORING_OP_WRITEV, fd);
        entry->addr = (unsigned long)vectors;
        entry->len = 2;
        snprintf(what, sizeof what, "writev, the second from %#lx", bad[i]);
        /* An address may be bad, or be no address of a program's at all. */
        same_number(what, ring_one(ring), bad[i] < end_of_addresses() ? 2 : -EFAULT);
        check(vectors[1].iov_base == (void *)bad[i], "the vectors are as they were");

        struct msghdr message = {.msg_iov = vectors + 1, .msg_iovlen = 1};
        entry = ring_entry(ring, IORING_OP_SENDMSG, pair[0]);
        entry->addr = (unsigned long)&message;
        snprintf(what, sizeof what, "a message from %#lx", bad[i]);
        same_number(what, ring_one(ring), -EFAULT);
        need("send", send(pair[0], "x", 1, 0));
        entry = ring_entry(ring, IORING_OP_RECVMSG, pair[1]);
        entry->addr = (unsigned long)&message;
        snprintf(what, sizeof what, "a message to %#lx", bad[i]);
        same_number(what, ring_one(ring), -EFAULT);
        recv(pair[1], buffer, 1, MSG_DONTWAIT);

        struct iovec area = {(void *)bad[i], 4096};
        long done = syscall(SYS_io_uring_register, ring->fd, IORING_REGISTER_BUFFERS, &area, 1);
        snprintf(what, sizeof what, "a registered buffer at %#lx", bad[i]);
        same_number(what, done == -1 ? errno : 0, EFAULT);
        struct io_uring_rsrc_register by = {.nr = 1, .data = (unsigned long)&area};
        done = syscall(SYS_io_uring_register, ring->fd, IORING_REGISTER_BUFFERS2, &by, sizeof by);
        same_number("the same in the newer way", done == -1 ? errno : 0, EFAULT);
        by.data = bad[i];
        done = syscall(SYS_io_uring_register, ring->fd, IORING_REGISTER_FILES2, &by, sizeof by);
        snprintf(what, sizeof what, "files listed at %#lx", bad[i]);
        same_number(what, done == -1 ? errno : 0, EFAULT);

        entry = ring_entry(ring, IORING_OP_MADVISE, -1);
        entry->addr = bad[i] & -65536UL;
        entry->len = 65536;
        entry->fadvise_advice = MADV_DONTNEED;
        snprintf(what, sizeof what, "advice for %#lx", bad[i] & -65536UL);
        same_number(what, ring_one(ring), i == 3 ? -EINVAL : -ENOMEM);
    }
    /* All is well with good ones; a tag is a number. */
    struct iovec area = {mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), 65536};
    unsigned long tag = 0;
    struct io_uring_rsrc_register by = {.nr = 1, .data = (unsigned long)&area, .tags = (unsigned long)&tag};
    need("buffers", syscall(SYS_io_uring_register, ring->fd, IORING_REGISTER_BUFFERS2, &by, sizeof by));
    need("no buffers", syscall(SYS_io_uring_register, ring->fd, IORING_UNREGISTER_BUFFERS, NULL, 0));
    struct io_uring_rsrc_register none = {.nr = 4, .flags = 1 /* IORING_RSRC_REGISTER_SPARSE */};
    need("room for buffers", syscall(SYS_io_uring_register, ring->fd, IORING_REGISTER_BUFFERS2, &none, sizeof none));
    struct io_uring_rsrc_update2 update = {.data = (unsigned long)&area, .tags = (unsigned long)&tag, .nr = 1};
    same_number("a buffer exchanged",
                syscall(SYS_io_uring_register, ring->fd, IORING_REGISTER_BUFFERS_UPDATE, &update, sizeof update), 1);
    struct io_uring_sqe *entry = ring_entry(ring, IORING_OP_READ_FIXED, fd);
    entry->addr = (unsigned long)area.iov_base + 5;
    entry->len = 2;
    same_number("a read into it", ring_one(ring), 2);
    need("no buffers", syscall(SYS_io_uring_register, ring->fd, IORING_UNREGISTER_BUFFERS, NULL, 0));
    munmap(area.iov_base, area.iov_len);
    close(fd);
    close(pair[0]);
    close(pair[1]);
}

/* Code that the kernel writes over, by each kind of buffer, is the new one when it is executed next. */
static void code(struct ring *ring)
{
#ifdef __x86_64__
    static const unsigned char versions[2][8] = {{0xb8, 1, 0, 0, 0, 0xc3}, {0xb8, 2, 0, 0, 0, 0xc3}};
#else
    static const unsigned versions[2][2] = {{0x52800020, 0xd65f03c0}, {0x52800040, 0xd65f03c0}};
#endif
    char *area = mmap(NULL, 65536, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int (*function)(void) = (void *)area, files[2], pair[2];
    struct iovec vector = {area, 8}, whole = {area, 65536};
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1};
    static const char *const names[] = {"read", "readv", "a registered buffer", "a message", "a provided buffer"};
    need("socketpair", socketpair(AF_UNIX, SOCK_DGRAM, 0, pair));
    for (int i = 0; i < 2; i++) {
        put(i ? "second" : "first", versions[i], 8, 0600);
        files[i] = need("open", open(i ? "second" : "first", O_RDONLY));
    }
    /* It is registered while there is code in it. */
    memcpy(area, versions[0], 8);
    __builtin___clear_cache(area, area + 8);
    same_number("the first version", function(), 1);
    need("buffers", syscall(SYS_io_uring_register, ring->fd, IORING_REGISTER_BUFFERS, &whole, 1));
    for (int i = 0; i < 10; i++) {
        int version = (i + 1) % 2;
        struct io_uring_sqe *entry;
        switch (i / 2) {
        case 0:
            entry = ring_entry(ring, IORING_OP_READ, files[version]);
            entry->addr = (unsigned long)area, entry->len = 8;
            break;
        case 1:
            entry = ring_entry(ring, IORING_OP_READV, files[version]);
            entry->addr = (unsigned long)&vector, entry->len = 1;
            break;
        case 2:
            entry = ring_entry(ring, IORING_OP_READ_FIXED, files[version]);
            entry->addr = (unsigned long)area, entry->len = 8;
            break;
        case 3:
            need("send", send(pair[0], versions[version], 8, 0));
            entry = ring_entry(ring, IORING_OP_RECVMSG, pair[1]);
            entry->addr = (unsigned long)&message;
            break;
        default:
            entry = ring_entry(ring, IORING_OP_PROVIDE_BUFFERS, 1);
            entry->addr = (unsigned long)area, entry->len = 8;
            same_number("a buffer provided", ring_one(ring), 0);
            need("send", send(pair[0], versions[version], 8, 0));
            entry = ring_entry(ring, IORING_OP_RECV, pair[1]);
            entry->flags = IOSQE_BUFFER_SELECT, entry->len = 8;
        }
        same_number(names[i / 2], ring_one(ring), 8);
        __builtin___clear_cache(area, area + 8);
        same_number("the version executed", function(), version + 1);
    }
    need("no buffers", syscall(SYS_io_uring_register, ring->fd, IORING_UNREGISTER_BUFFERS, NULL, 0));
    munmap(area, 65536);
    for (int i = 0; i < 2; i++)
        close(files[i]), close(pair[i]);
}

int main(void)
{
    struct ring ring;
    workplace();
    need("io_uring_setup", ring_open(&ring, 8, 0) ? 0 : -1);
    pointed(&ring);
    code(&ring);
    ring_close(&ring);
    return result();
}
