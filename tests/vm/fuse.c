/* A file system (/dev/fuse) and a device (/dev/cuse) served by this program: the open flags in the kernel's requests
 * are those that the file was opened with, however the requests are read. */
#include "check.h"
#include <linux/fuse.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>

/* The C library has its own, which is 0. */
#ifdef __x86_64__
#define LARGEFILE 0100000
#else
#define LARGEFILE 0400000
#endif
enum { TMPFILE = 51, FLAGS2_OVER_IO_URING = 1 << 9, FOLDER = 1, PLAIN = 2, NEW = 3, MAX_WRITE = 8192 };

/* A request, and the flags that the last one of each operation had. */
static union {
    struct fuse_in_header header;
    char bytes[65536];
} request;
#define BODY ((void *)(request.bytes + sizeof request.header))
static unsigned seen[64], flags2;
static int has_init;

/* How requests are read. */
typedef ssize_t reader(int fd);

static ssize_t by_read(int fd)
{
    return read(fd, request.bytes, sizeof request.bytes);
}

static ssize_t by_pread(int fd)
{
    return pread(fd, request.bytes, sizeof request.bytes, 0);
}

/* Pieces that end within words; `count` is how many there are in all. */
static struct iovec pieces[12];
static int in_pieces(void)
{
    static const size_t lengths[] = {3, 0, 2, 36, 1, 2, 5, 26, 4, 1, 1000};
    size_t at = 0, count = sizeof lengths / sizeof *lengths;
    for (size_t i = 0; i < count; at += lengths[i++])
        pieces[i] = (struct iovec){request.bytes + at, lengths[i]};
    pieces[count] = (struct iovec){request.bytes + at, sizeof request.bytes - at};
    return count + 1;
}

static ssize_t by_readv(int fd)
{
    return readv(fd, pieces, in_pieces());
}

static ssize_t by_preadv(int fd)
{
    return preadv(fd, pieces, in_pieces(), 0);
}

static ssize_t by_preadv2(int fd)
{
    return preadv2(fd, pieces, in_pieces(), -1, 0);
}

static ssize_t by_splice(int fd)
{
    static int pipes[2];
    if (!pipes[1])
        need("pipe2", pipe2(pipes, O_CLOEXEC | O_NONBLOCK));
    ssize_t size = splice(fd, NULL, pipes[1], NULL, sizeof request.bytes, 0);
    return size <= 0 ? size : read(pipes[0], request.bytes, size);
}

static void answer(int fd, int error, const void *bytes, size_t size)
{
    struct fuse_out_header out = {sizeof out + size, error, request.header.unique};
    struct iovec both[] = {{&out, sizeof out}, {(void *)bytes, size}};
    if (writev(fd, both, 2) < 0 && errno != ENOENT)
        check(0, "answering operation %u: %s", request.header.opcode, strerror(errno));
}

static struct fuse_attr attributes(unsigned long node)
{
    mode_t mode = node == FOLDER ? S_IFDIR | 0755 : S_IFREG | 0644;
    return (struct fuse_attr){.ino = node, .size = 100, .mode = mode, .nlink = 1};
}

static struct fuse_entry_out entry(unsigned long node)
{
    return (struct fuse_entry_out){.nodeid = node, .attr = attributes(node)};
}

static void initialize(int fd, unsigned with)
{
    struct fuse_init_in *in = BODY;
    struct fuse_init_out out = {.major = 7, .minor = 31, .max_write = MAX_WRITE, .flags = in->flags & with};
    flags2 = in->flags2;
    has_init = 1;
    answer(fd, 0, &out, sizeof out);
}

static void look_up(int fd)
{
    struct fuse_entry_out out = entry(PLAIN);
    if (strcmp(BODY, "plain") == 0)
        answer(fd, 0, &out, sizeof out);
    else
        answer(fd, -ENOENT, NULL, 0);
}

static void create(int fd)
{
    struct {
        struct fuse_entry_out entry;
        struct fuse_open_out open;
    } out = {entry(NEW + (request.header.opcode == TMPFILE)), {0}};
    answer(fd, 0, &out, sizeof out);
}

/* Serves one request; 0 when there are no more. */
static int serve(int fd, reader *receive, unsigned with)
{
    struct fuse_attr_out attr = {.attr = attributes(request.header.nodeid)};
    struct fuse_open_out opened = {0};
    ssize_t size = receive(fd);
    if (size < 0)
        return errno == EINTR || errno == ENOENT || errno == EAGAIN;
    unsigned operation = request.header.opcode, *flags = operation < 64 ? &seen[operation] : NULL;
    if ((size_t)size != request.header.len)
        check(0, "read %zd bytes of a request of %u", size, request.header.len);
    switch (operation) {
    case FUSE_INIT:
        initialize(fd, with);
        break;
    case FUSE_LOOKUP:
        look_up(fd);
        break;
    case FUSE_GETATTR:
        attr.attr = attributes(request.header.nodeid);
        answer(fd, 0, &attr, sizeof attr);
        break;
    case FUSE_OPEN:
    case FUSE_OPENDIR:
        *flags = ((struct fuse_open_in *)BODY)->flags;
        answer(fd, 0, &opened, sizeof opened);
        break;
    case FUSE_CREATE:
    case TMPFILE:
        *flags = ((struct fuse_create_in *)BODY)->flags;
        create(fd);
        break;
    case FUSE_RELEASE:
    case FUSE_RELEASEDIR:
        *flags = ((struct fuse_release_in *)BODY)->flags;
        answer(fd, 0, NULL, 0);
        break;
    case FUSE_READ:
    case FUSE_READDIR:
    case FUSE_READDIRPLUS:
        *flags = ((struct fuse_read_in *)BODY)->flags;
        answer(fd, 0, NULL, 0);
        break;
    case FUSE_WRITE: {
        struct fuse_write_in *in = BODY;
        struct fuse_write_out out = {.size = in->size};
        *flags = in->flags;
        check(size == (ssize_t)(sizeof request.header + sizeof *in + in->size), "a write of %u bytes", in->size);
        answer(fd, 0, &out, sizeof out);
        break;
    }
    case FUSE_FORGET:
    case FUSE_BATCH_FORGET:
    case FUSE_INTERRUPT:
        break;
    default:
        answer(fd, -ENOSYS, NULL, 0);
    }
    return 1;
}

/* What is done with the files. Nothing may be held open at its end. */
#define OF_FILE (O_RDWR | O_DIRECT | O_NOFOLLOW | O_NOATIME)
#define OF_FOLDER (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NONBLOCK)
static void client(void)
{
    failures = 0;
    static char bytes[5000];
    int fd = need("open of a file", open("mounted/plain", OF_FILE));
    same_number("write", write(fd, bytes, 5000), 5000);
    same_number("read", pread(fd, bytes, 100, 0), 0);
    close(fd);
    fd = need("open of a folder", open("mounted", OF_FOLDER));
    same_number("getdents64", syscall(SYS_getdents64, fd, bytes, sizeof bytes), 0);
    close(fd);
    close(need("creation of a file", open("mounted/new", OF_FILE | O_CREAT | O_EXCL, 0600)));
    close(need("file without a name", open("mounted", O_RDWR | O_TMPFILE | O_DIRECT, 0600)));
    fflush(stdout);
    _exit(failures != 0);
}

/* Sends a descriptor over a socket and gives the one received, as fusermount3 does. */
static int sent(int fd)
{
    int sockets[2];
    char byte = 0;
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {.header = {CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS}};
    struct iovec vector = {&byte, 1};
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = &control};
    message.msg_controllen = sizeof control;
    need("socketpair", socketpair(AF_UNIX, SOCK_STREAM, 0, sockets));
    *(int *)CMSG_DATA(&control.header) = fd;
    need("sendmsg", sendmsg(sockets[0], &message, 0));
    close(fd);
    need("recvmsg", recvmsg(sockets[1], &message, 0));
    close(sockets[0]);
    close(sockets[1]);
    return *(int *)CMSG_DATA(&control.header);
}

static void flags_are(const char *reader, const char *what, unsigned operation, unsigned wanted)
{
    check(seen[operation] == wanted, "%s: flags of %s are %#o, wanted %#o", reader, what, seen[operation], wanted);
}

static int mounted(void)
{
    char options[100];
    int fd = sent(need("/dev/fuse", open("/dev/fuse", O_RDWR | O_CLOEXEC)));
    snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=0,group_id=0", fd);
    need("mount", mount("fuse", "mounted", "fuse", 0, options));
    memset(seen, 0, sizeof seen);
    return fd;
}

static void unmount(int fd)
{
    need("umount", umount2("mounted", MNT_DETACH));
    close(fd);
}

/* Serves until a child has ended, and then what nobody waits for. Gives the child's status. */
static int serve_until_end(int fd, reader *receive, unsigned with, pid_t child)
{
    struct pollfd ready = {fd, POLLIN, 0};
    int status = 0;
    while (waitpid(child, &status, WNOHANG) == 0)
        if (poll(&ready, 1, 10) > 0 && !serve(fd, receive, with))
            break;
    while (poll(&ready, 1, 200) > 0 && serve(fd, receive, with))
        ;
    return status;
}

static void serve_files(const char *name, reader *receive, unsigned with)
{
    int fd = mounted();
    pid_t child = start();
    if (child == 0)
        client();
    same_number("the client's status", serve_until_end(fd, receive, with, child), 0);
    flags_are(name, "open", FUSE_OPEN, OF_FILE | LARGEFILE);
    flags_are(name, "write", FUSE_WRITE, OF_FILE | LARGEFILE);
    flags_are(name, "read", FUSE_READ, OF_FILE | LARGEFILE);
    flags_are(name, "create", FUSE_CREATE, OF_FILE | O_CREAT | O_EXCL | LARGEFILE);
    flags_are(name, "opendir", FUSE_OPENDIR, OF_FOLDER | LARGEFILE);
    flags_are(name, "readdir", with ? FUSE_READDIRPLUS : FUSE_READDIR, OF_FOLDER | LARGEFILE);
    flags_are(name, "releasedir", FUSE_RELEASEDIR, OF_FOLDER | LARGEFILE);
    flags_are(name, "tmpfile", TMPFILE, O_RDWR | O_TMPFILE | O_DIRECT | LARGEFILE);
    /* The last file that was closed. */
    flags_are(name, "release", FUSE_RELEASE, O_RDWR | O_TMPFILE | O_DIRECT | LARGEFILE);
    unmount(fd);
}

/* Whether requests over io_uring are offered: by a kernel that has them, and never to a translated program. */
static void rings(void)
{
    const char *setting = "/sys/module/fuse/parameters/enable_uring";
    int fd = open(setting, O_WRONLY), native = 0;
    if (fd >= 0)
        same_number("enable_uring", write(fd, "Y", 1), 1);
#ifdef __aarch64__
    native = fd >= 0;
#endif
    serve_files("read", by_read, 0);
    check(has_init, "the kernel said what it can");
    same_number("it offers rings", (flags2 & FLAGS2_OVER_IO_URING) != 0, native);
    if (fd >= 0)
        same_number("enable_uring", write(fd, "N", 1), 1);
}

static void splice_fails(const char *what, int fd, int pipe, int wanted)
{
    long result = splice(fd, NULL, pipe, NULL, sizeof request.bytes, 0);
    check(result == -1 && errno == wanted, "splice to %s: %ld, %s", what, result, strerror(errno));
}

/* In a pipe of packets each has a page of its own. */
static void full_pipe(int pipes[2])
{
    need("pipe2", pipe2(pipes, O_DIRECT | O_NONBLOCK));
    while (write(pipes[1], "", 1) == 1)
        ;
}

/* Pipes without room. The request is a write: the translator makes none that a native program's calls do not. */
static void full_pipes(void)
{
    static char bytes[MAX_WRITE];
    int pipes[2], fd = mounted();
    pid_t child = start();
    if (child == 0) {
        int file = need("open", open("mounted/plain", OF_FILE));
        /* Before the first one the kernel asks for capabilities. */
        need("write", write(file, bytes, 1));
        _exit(write(file, bytes, MAX_WRITE) < 0 ? errno : 0);
    }
    while (!seen[FUSE_WRITE])
        serve(fd, by_read, 0);
    struct pollfd ready = {fd, POLLIN, 0};
    same_number("a write is there", poll(&ready, 1, 10000), 1);
    full_pipe(pipes);
    splice_fails("a full pipe", fd, pipes[1], EAGAIN);
    close(pipes[0]);
    signal(SIGPIPE, SIG_IGN);
    splice_fails("a pipe that nobody reads", fd, pipes[1], EPIPE);
    close(pipes[1]);
    splice_fails("no pipe", fd, need("file", open("file", O_RDWR | O_CREAT, 0600)), EINVAL);

    /* One page of 4 KiB is too little. What becomes of the request then is not the same for all kernels: it stays, it
     * fails, or nobody hears of it again. So that ends it. */
    full_pipe(pipes);
    need("read", read(pipes[0], bytes, 1));
    if (splice(fd, NULL, pipes[1], NULL, sizeof request.bytes, 0) > 0) {
        while (read(pipes[0], request.bytes, sizeof request.bytes) == 1)
            ;
        int operation = request.header.opcode;
        check(operation == FUSE_WRITE, "a page larger than 4 KiB had room for operation %d", operation);
    } else {
        check(errno == EINVAL || errno == EIO, "splice to a pipe with one page: %s", strerror(errno));
    }
    need("umount2", umount2("mounted", MNT_FORCE | MNT_DETACH));
    need("waitpid", waitpid(child, NULL, 0));
    close(fd);
}

/* A device: it is there when the first request has been answered. */
static void device(void)
{
    static const char name[] = "DEVNAME=demotic-test";
    struct {
        struct cuse_init_out init;
        char name[sizeof name];
    } out = {{.major = 7, .minor = 31, .max_read = 4096, .max_write = 4096}, ""};
    int fd = need("/dev/cuse", open("/dev/cuse", O_RDWR | O_CLOEXEC));
    need("read", by_read(fd));
    same_number("the operation", request.header.opcode, CUSE_INIT);
    memcpy(out.name, name, sizeof name);
    answer(fd, 0, &out, sizeof out.init + sizeof name);
    memset(seen, 0, sizeof seen);
    pid_t child = start();
    if (child == 0) {
        int opened = -1;
        for (int i = 0; i < 500 && (opened = open("/dev/demotic-test", O_RDWR | O_NOFOLLOW)) < 0; i++)
            usleep(10000);
        _exit(opened < 0);
    }
    same_number("the client's status", serve_until_end(fd, by_read, 0, child), 0);
    flags_are("device", "open", FUSE_OPEN, O_RDWR | O_NOFOLLOW | LARGEFILE);
    close(fd);
}

int main(void)
{
    workplace();
    need("mkdir", mkdir("mounted", 0755));
    rings();
    serve_files("pread", by_pread, 0);
    serve_files("readv", by_readv, FUSE_DO_READDIRPLUS);
    serve_files("preadv", by_preadv, 0);
    serve_files("preadv2", by_preadv2, 0);
    serve_files("splice", by_splice, 0);
    full_pipes();
    device();
    return result();
}
