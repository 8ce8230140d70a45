/* Kinds of memory: where it is mapped, who may see it, who fills it, who orders accesses to it. */
#include "check.h"
#include <linux/membarrier.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/uio.h>

#define PAGES 4
#define RW (PROT_READ | PROT_WRITE)
#define ANY (MAP_PRIVATE | MAP_ANONYMOUS)
enum { MSEAL = 462, ABOVE_4G = 0x80, SECRET = 447 };
/* As large as any kernel's here, in whose pages memory is filled. */
static const size_t page = 16384;

static int error(long result)
{
    return result == -1 ? errno : 0;
}

static char *memory(size_t pages)
{
    char *at = mmap(NULL, pages * page, RW, ANY, -1, 0);
    need("mmap", at == MAP_FAILED ? -1 : 0);
    return at;
}

#ifdef __x86_64__
static void places(void)
{
    char *low = mmap(NULL, page, RW, ANY | MAP_32BIT, -1, 0);
    check((unsigned long)low < 1UL << 31, "MAP_32BIT gives %p", low);
    char *high = mmap(NULL, page, RW, ANY | ABOVE_4G, -1, 0);
    check((unsigned long)high >= 1UL << 32, "MAP_ABOVE4G gives %p", high);
    check((unsigned long)memory(1) < 1UL << 47, "memory is below 2^47");
    same_number("a place beyond", error((long)mmap((void *)(1UL << 47), page, RW, ANY | MAP_FIXED, -1, 0)), ENOMEM);
}
#else
static void places(void)
{
}
#endif

static void moved(void)
{
    char *at = memory(PAGES), *twin;
    strcpy(at + page, "here");
    at = mremap(at, PAGES * page, 2 * PAGES * page, MREMAP_MAYMOVE);
    need("mremap", at == MAP_FAILED ? -1 : 0);
    same("what was there", at + page, "here");
    same_number("what is new", at[7 * page], 0);
    twin = mremap(at, 2 * PAGES * page, 2 * PAGES * page, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);
    need("mremap", twin == MAP_FAILED ? -1 : 0);
    same("what has moved", twin + page, "here");
    same_number("what is left", at[page], 0);
    need("mlock2", mlock2(twin, page, MLOCK_ONFAULT));
    same_number("mlock2 with unknown flags", error(mlock2(twin, page, 8)), EINVAL);
    need("munlock", munlock(twin, page));
    need("madvise", madvise(twin, 2 * PAGES * page, MADV_DONTNEED));
    same_number("what was discarded", twin[page], 0);
}

static void sealed(void)
{
    char *at = memory(PAGES);
    if (syscall(MSEAL, at, 2 * page, 0) < 0) {
        same_number("a kernel without mseal", errno, ENOSYS);
        return;
    }
    same_number("munmap", error(munmap(at + page, 2 * page)), EPERM);
    same_number("mprotect", error(mprotect(at, page, PROT_READ)), EPERM);
    same_number("mremap", error((long)mremap(at, page, 2 * page, MREMAP_MAYMOVE)), EPERM);
    same_number("a mapping over it", error((long)mmap(at, page, RW, ANY | MAP_FIXED, -1, 0)), EPERM);
    at[0] = 1;
    same_number("munmap of what is not sealed", error(munmap(at + 2 * page, 2 * page)), 0);
}

/* Nobody else may read it, the kernel neither. */
static void secret(void)
{
    int fd = syscall(SECRET, O_CLOEXEC);
    if (fd < 0) {
        check(errno == ENOSYS, "memfd_secret is not there: %s", strerror(errno));
        return;
    }
    need("ftruncate", ftruncate(fd, page));
    char *at = mmap(NULL, page, RW, MAP_SHARED, fd, 0);
    need("mmap", at == MAP_FAILED ? -1 : 0);
    strcpy(at, "secret");
    int pipes[2];
    need("pipe", pipe(pipes));
    same_number("vmsplice", error(vmsplice(pipes[1], &(struct iovec){at, 6}, 1, 0)), EFAULT);
    char got[8] = "";
    struct iovec local = {got, 6}, remote = {at, 6};
    same_number("process_vm_readv", error(process_vm_readv(getpid(), &local, 1, &remote, 1, 0)), EFAULT);
    close(fd);
}

static char *area;

/* Faults that another thread answers, in the kernel and out of it. */
static void *fill(void *word)
{
    int fd = *(int *)word;
    char *source = memory(1);
    for (int i = 0; i < 2; i++) {
        struct uffd_msg message;
        if (read(fd, &message, sizeof message) != sizeof message)
            return NULL;
        memset(source, 'a' + i, page);
        unsigned long at = (unsigned long)area;
        at += (message.arg.pagefault.address - at) / page * page;
        struct uffdio_copy copy = {at, (unsigned long)source, page, 0, 0};
        if (ioctl(fd, UFFDIO_COPY, &copy) < 0)
            return NULL;
    }
    return word;
}

static void filled(void)
{
    int fd = need("userfaultfd", syscall(SYS_userfaultfd, O_CLOEXEC)), file = need("open", open("file", O_RDWR | O_CREAT, 0600));
    struct uffdio_api api = {UFFD_API, 0, 0};
    need("UFFDIO_API", ioctl(fd, UFFDIO_API, &api));
    char *at = area = memory(2), byte = 0;
    struct uffdio_register range = {{(unsigned long)at, 2 * page}, UFFDIO_REGISTER_MODE_MISSING, 0};
    need("UFFDIO_REGISTER", ioctl(fd, UFFDIO_REGISTER, &range));
    pthread_t thread;
    void *end;
    pthread_create(&thread, NULL, fill, &fd);
    same_number("what the program reads", at[5], 'a');
    same_number("write", write(file, at + page, 1), 1);
    pthread_join(thread, &end);
    check(end != NULL, "both faults were answered");
    same_number("what the kernel read", pread(file, &byte, 1, 0) == 1 ? byte : -1, 'b');
    close(fd);
    close(file);
}

static void others(void)
{
    char *at = memory(1), got[8] = "";
    strcpy(at, "before");
    pid_t pid = start();
    if (pid == 0) {
        pause();
        _exit(0);
    }
    struct iovec local[2] = {{got, 3}, {got + 3, 4}}, remote = {at, 7};
    same_number("process_vm_readv", process_vm_readv(pid, local, 2, &remote, 1, 0), 7);
    same("what was read", got, "before");
    strcpy(got, "behind");
    same_number("process_vm_writev", process_vm_writev(pid, local, 2, &remote, 1, 0), 7);
    strcpy(got, "");
    same_number("process_vm_readv", process_vm_readv(pid, local, 2, &remote, 1, 0), 7);
    same("what was written", got, "behind");
    same("what is here", at, "before");
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

static void ordered(void)
{
    long known = need("MEMBARRIER_CMD_QUERY", syscall(SYS_membarrier, MEMBARRIER_CMD_QUERY, 0, 0));
    check(known & MEMBARRIER_CMD_PRIVATE_EXPEDITED, "commands %#lx", known);
    same_number("before it is asked for", error(syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0)), EPERM);
    need("register", syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0));
    need("membarrier", syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0));
    need("membarrier", syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0));
}

int main(void)
{
    workplace();
    places();
    moved();
    sealed();
    secret();
    filled();
    others();
    ordered();
    return result();
}
