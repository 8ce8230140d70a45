/* Mappings, to the page as the program knows it. The kernel below may have larger ones: what it cannot do is EINVAL. */
#include "check.h"
#include <pthread.h>
#include <setjmp.h>
#include <stdint.h>

enum { PAGES = 24, FILE_PAGES = 12, THREADS = 4 };
static size_t page;
static int file;

static uint8_t *map(void *at, size_t pages, int protection, int flags, int fd, size_t offset)
{
    return mmap(at, pages * page, protection, flags | (fd < 0 ? MAP_ANONYMOUS : 0), fd, offset * page);
}

/* Whether a page is full of a byte. */
static int full(const uint8_t *at, int byte)
{
    for (size_t i = 0; i < page; i++)
        if (at[i] != byte)
            return 0;
    return 1;
}

/* A file whose page `n` is full of bytes 100 + n. */
static void make_file(void)
{
    file = need("memfd_create", memfd_create("pages", MFD_CLOEXEC));
    uint8_t *bytes = malloc(page);
    for (int n = 0; n < FILE_PAGES; n++) {
        memset(bytes, 100 + n, page);
        need("write", write(file, bytes, page));
    }
    free(bytes);
}

static void files_anywhere(void)
{
    int good = 1;
    for (int n = 0; n + 2 <= FILE_PAGES; n++) {
        uint8_t *private = map(NULL, 2, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, n);
        uint8_t *shared = map(NULL, 2, PROT_READ | PROT_WRITE, MAP_SHARED, file, n), seen = 0;
        if (private == MAP_FAILED || shared == MAP_FAILED) {
            check(0, "page %d of a file: %s", n, strerror(errno));
            return;
        }
        good &= full(private, 100 + n) && full(private + page, 101 + n) && full(shared + page, 101 + n);
        *private = 1;
        shared[page - 1] = 2;
        good &= pread(file, &seen, 1, (n + 1) * page - 1) == 1 && seen == 2;
        shared[page - 1] = 100 + n;
        good &= *shared == 100 + n && munmap(private, page) == 0 && full(private + page, 101 + n);
        munmap(private + page, page);
        munmap(shared, 2 * page);
    }
    check(good, "files are mapped from each of their pages on, private and shared");
}

static uint8_t *reserve(void)
{
    uint8_t *base = map(NULL, PAGES, PROT_NONE, MAP_PRIVATE, -1, 0);
    need("mmap", base == MAP_FAILED ? -1 : 0);
    return base;
}

static void files_at_an_address(void)
{
    uint8_t *base = reserve();
    int good = 1;
    for (int to = 0; to < 4; to++)
        for (int n = 0; n < 4; n++) {
            memset(map(base, PAGES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, -1, 0), 7, PAGES * page);
            uint8_t *at = map(base + (4 + to) * page, 8, PROT_READ, MAP_PRIVATE | MAP_FIXED, file, n);
            if (at == MAP_FAILED) {
                check(0, "page %d of a file at page %d: %s", n, to, strerror(errno));
                return;
            }
            for (int i = 0; i < 8; i++)
                good &= full(at + i * page, 100 + n + i);
            good &= full(at - page, 7) && full(at + 8 * page, 7);
            good &= munmap(at + page, 2 * page) == 0 && full(at, 100 + n) && full(at + 3 * page, 103 + n);
            at = map(at + page, 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, -1, 0);
            good &= full(at, 0) && full(at - page, 100 + n) && full(at + 2 * page, 103 + n);
        }
    check(good, "private mappings of a file at any address");
    int refused = 0;
    good = 1;
    for (int to = 0; to < 4; to++) {
        uint8_t *at = map(base + to * page, FILE_PAGES, PROT_READ, MAP_SHARED | MAP_FIXED, file, 0);
        if (at == MAP_FAILED)
            refused += errno == EINVAL;
        else
            good &= full(at, 100) && full(at + (FILE_PAGES - 1) * page, 99 + FILE_PAGES);
        good &= at != MAP_FAILED || errno == EINVAL;
    }
    check(good && refused < 4, "shared ones at an address, where they fit (%d do not)", refused);
    munmap(base, PAGES * page);
}

static void the_break(void)
{
    uint8_t *start = sbrk(0);
    int good = 1;
    need("sbrk", sbrk(page - (uintptr_t)start % page) == (void *)-1 ? -1 : 0);
    for (int round = 0; round < 3; round++) {
        uint8_t *from = sbrk(0);
        for (int n = 0; n < 6; n++) {
            uint8_t *at = sbrk(page);
            good &= at == from + n * page && full(at, 0);
            memset(at, 9, page);
        }
        for (int n = 0; n < 6; n++)
            good &= full(from + n * page, 9);
        good &= sbrk(-6 * (intptr_t)page) == from + 6 * page;
    }
    check(good, "the program's break moves by pages, and what is new is zero");
}

static void moved_grown_and_cleared(void)
{
    uint8_t *base = reserve();
    uint8_t *at = map(base + page, 8, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, -1, 0);
    int good = 1;
    for (int n = 0; n < 8; n++)
        memset(at + n * page, n + 1, page);
    good &= madvise(at + 2 * page, page, MADV_DONTNEED) == 0;
    for (int n = 0; n < 8; n++)
        good &= full(at + n * page, n == 2 ? 0 : n + 1);
    check(good, "one page is cleared");
    uint8_t *to = mremap(at + 4 * page, 3 * page, 3 * page, MREMAP_MAYMOVE | MREMAP_FIXED, base + 14 * page);
    good = to == base + 14 * page && full(to, 5) && full(to + 2 * page, 7);
    check(good && full(at + 3 * page, 4) && full(at + 7 * page, 8), "and three are moved");
    munmap(base, PAGES * page);

    at = map(NULL, 4, PROT_READ | PROT_WRITE, MAP_PRIVATE, -1, 0);
    memset(at, 3, 4 * page);
    good = mremap(at, 4 * page, page, 0) == at;
    to = mremap(at, page, 9 * page, MREMAP_MAYMOVE);
    good &= to != MAP_FAILED && full(to, 3);
    for (int n = 1; n < 9 && good; n++)
        good &= full(to + n * page, 0);
    check(good, "what a mapping has grown by is zero");
    munmap(to, 9 * page);
}

/* A function that gives a number. */
static void write_function(uint8_t *at, uint16_t number)
{
#ifdef __aarch64__
    const uint32_t code[] = {0x52800000 | number << 5, 0xd65f03c0}; /* movz w0, number; ret */
#else
    const uint8_t code[] = {0xb8, number, number >> 8, 0, 0, 0xc3}; /* mov eax, number; ret */
#endif
    memcpy(at, code, sizeof code);
    __builtin___clear_cache((char *)at, (char *)at + sizeof code);
}

static uint8_t *code;
static volatile int stop;

/* Calls the function, and counts in the page behind it. */
static void *count(void *number)
{
    volatile uint64_t *counter = (uint64_t *)(code + page) + (intptr_t)number;
    while (!stop) {
        if (((int (*)(void))code)() != 5)
            return code;
        ++*counter;
    }
    return NULL;
}

static void code_beside_data(void)
{
    code = map(NULL, 2, PROT_READ | PROT_WRITE, MAP_PRIVATE, -1, 0);
    write_function(code, 5);
    need("mprotect", mprotect(code, page, PROT_READ | PROT_EXEC));
    pthread_t threads[THREADS];
    for (intptr_t i = 0; i < THREADS; i++)
        need("pthread_create", -pthread_create(&threads[i], NULL, count, (void *)i));
    int good = 1;
    for (int i = 0; i < THREADS; i++)
        for (int wait = 0; ((volatile uint64_t *)(code + page))[i] < 20000; wait++) {
            if (wait == 20000) {
                good = 0;
                break;
            }
            usleep(1000);
        }
    stop = 1;
    for (int i = 0; i < THREADS; i++) {
        void *wrong;
        pthread_join(threads[i], &wrong);
        good &= wrong == NULL;
    }
    check(good, "threads write beside the code that they run");
    need("mprotect", mprotect(code, page, PROT_READ | PROT_WRITE));
    write_function(code, 6);
    need("mprotect", mprotect(code, page, PROT_READ | PROT_EXEC));
    same_number("changed code says", ((int (*)(void))code)(), 6);
    /* Code in both pages, of which one can be written to. */
    need("mprotect", mprotect(code + page, page, PROT_READ | PROT_WRITE | PROT_EXEC));
    for (int number = 1; number < 100; number++) {
        write_function(code + page, number);
        good &= ((int (*)(void))(code + page))() == number && ((int (*)(void))code)() == 6;
    }
    check(good, "code beside code is changed");
    munmap(code, 2 * page);
}

static sigjmp_buf *caught;
static void handler(int number)
{
    siglongjmp(*caught, number);
}

/* The signal that a write gets, or 0. */
static int refused(volatile uint8_t *at)
{
    sigjmp_buf here;
    caught = &here;
    int number = sigsetjmp(here, 1);
    if (number == 0)
        *at = 1;
    return number;
}

static void protected(void)
{
    signal(SIGSEGV, handler);
    uint8_t *at = map(NULL, 1, PROT_READ | PROT_WRITE, MAP_PRIVATE, -1, 0);
    same_number("a write is refused with", refused(at), 0);
    need("mprotect", mprotect(at, page, PROT_READ));
    same_number("by a page of its own that may be read,", refused(at), SIGSEGV);
    need("mprotect", mprotect(at, page, PROT_NONE));
    same_number("that may not be read,", refused(at), SIGSEGV);
    munmap(at, page);
    same_number("and that is unmapped:", refused(at), SIGSEGV);
}

int main(void)
{
    page = sysconf(_SC_PAGESIZE);
    make_file();
    files_anywhere();
    files_at_an_address();
    the_break();
    moved_grown_and_cleared();
    code_beside_data();
    protected();
    return result();
}
