/* Short loops over memory, of which a translator may do several turns at once: each finds the pages of its data closed,
 * and is interrupted again and again. In every signal counter and pointer belong together, and a fault is a load's. (The
 * handler of SIGSEGV asks for no siginfo, though it has one as any handler: so nobody is taken to look at flags.)
 */
#define _GNU_SOURCE
#include <cpuid.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <ucontext.h>

enum { PAGE = 4096, PAGES = 64, LENGTH = PAGE * PAGES / 16 };

static unsigned char *data;
static volatile int faults, next;
static volatile uint64_t loop_start, loop_end, first, turns;
static volatile int seen, wrong;

/* Pages are read in order: this is the one that has faulted. */
static void open_page(int signo, siginfo_t *info, void *context) {
    (void)signo, (void)info;
    faults++;
    mprotect(data + PAGE * next++, PAGE, PROT_READ);
    const greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;
    const unsigned char *at = (void *)r[REG_RIP];
    int loads = !memcmp(at, "\x0f\x10", 2) || !memcmp(at, "\xf3\x0f\x6f", 3);
    int in_rounds = (uint64_t)at >= loop_start && (uint64_t)at < loop_end;
    uint64_t sum = (r[REG_RCX] - first) / 16 + (uint32_t)r[REG_RAX];
    if (!loads || (in_rounds && sum != turns - 1)) wrong++;
}

static void look(int signo, siginfo_t *info, void *context) {
    (void)signo, (void)info;
    const greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;
    if ((uint64_t)r[REG_RIP] < loop_start || (uint64_t)r[REG_RIP] >= loop_end) return;
    seen++;
    uint64_t sum = (r[REG_RCX] - first) / 16 + (uint32_t)r[REG_RAX];
    if (sum != turns && sum != turns - 1) wrong++;
}

static void show(const char *name, const uint64_t state[2]) {
    printf("%s %016lx%016lx\n", name, (unsigned long)state[1], (unsigned long)state[0]);
}

/* The rounds of a cipher, with a key each. */
static void rounds(uint64_t state[2], const void *keys, uint32_t count) {
    first = (uint64_t)keys;
    turns = count;
    asm volatile(
        "lea 1f(%%rip), %%rdx\n mov %%rdx, %[start]\n lea 2f(%%rip), %%rdx\n mov %%rdx, %[end]\n"
        "movdqu (%[state]), %%xmm2\n movdqa %%xmm2, %%xmm1\n"
        ".p2align 4\n"
        "1: aesenc %%xmm1, %%xmm2\n dec %%eax\n movups (%%rcx), %%xmm1\n lea 16(%%rcx), %%rcx\n jnz 1b\n"
        "2: aesenclast %%xmm1, %%xmm2\n movdqu %%xmm2, (%[state])\n"
        : "+a"(count), "+c"(keys), [start] "=m"(loop_start), [end] "=m"(loop_end)
        : [state] "r"(state)
        : "memory", "rdx", "xmm1", "xmm2");
}

/* Sums of two columns. */
static void sums(uint64_t state[2], const unsigned char *p, uint64_t count) {
    asm volatile(
        "pxor %%xmm0, %%xmm0\n pxor %%xmm3, %%xmm3\n"
        ".p2align 4\n"
        "1: movdqu (%[p]), %%xmm1\n paddd %%xmm1, %%xmm0\n movdqu 16(%[p]), %%xmm2\n pxor %%xmm2, %%xmm3\n"
        "add $32, %[p]\n sub $1, %[count]\n jnz 1b\n"
        "paddd %%xmm1, %%xmm3\n paddd %%xmm3, %%xmm0\n movdqu %%xmm0, (%[state])\n"
        : [p] "+r"(p), [count] "+r"(count)
        : [state] "r"(state)
        : "memory", "xmm0", "xmm1", "xmm2", "xmm3");
}

static void close_pages(void) {
    mprotect(data, PAGE * PAGES, PROT_NONE);
    faults = next = 0;
}

int main(void) {
    unsigned eax, ebx, ecx = 0, edx;
    __get_cpuid(1, &eax, &ebx, &ecx, &edx);
    int has_aes = ecx >> 25 & 1;
    data = mmap(NULL, PAGE * PAGES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint32_t x = 1;
    for (int i = 0; i < PAGE * PAGES; i++) data[i] = (x = x * 1664525 + 1013904223) >> 24;
    signal(SIGSEGV, (void (*)(int))(void *)open_page);

    uint64_t state[2] = {0x0123456789abcdef, 0xfedcba9876543210};
    /* From all places before the end of a page on, so that each turn of a pass is one that faults. */
    for (int start = 0; start < 20; start++) {
        mprotect(data, PAGE * PAGES, PROT_READ);
        for (int i = 0; i < 4; i++) sums(state, data, 100); /* Until it is translated. */
        close_pages();
        sums(state, data + 8 * start, 300);
        printf("%d faults ", faults);
        show("sums", state);
        if (!has_aes) continue;
        mprotect(data, PAGE * PAGES, PROT_READ);
        for (int i = 0; i < 4; i++) rounds(state, data, 13);
        close_pages();
        rounds(state, data + 8 * start, LENGTH - 100);
        printf("%d faults ", faults);
        show("rounds", state);
        /* As many as keys of each length have, over the end of a page. */
        for (int count = 9; count <= 13; count += 2) {
            close_pages();
            rounds(state, data + PAGE - 16 * start, count);
            printf("%d faults ", faults);
            show("all rounds", state);
        }
    }

    struct sigaction action = {.sa_sigaction = look, .sa_flags = SA_SIGINFO | SA_RESTART};
    sigaction(SIGALRM, &action, NULL);
    struct itimerval timer = {{0, 4000}, {0, 4000}};
    setitimer(ITIMER_REAL, &timer, NULL);
    mprotect(data, PAGE * PAGES, PROT_READ);
    for (int i = 0; has_aes && (i < 20 || (seen < 20 && i < 100000)); i++) {
        uint64_t other[2] = {state[0], state[1]};
        rounds(other, data, LENGTH);
        if (i == 19) show("interrupted", other);
    }
    timer = (struct itimerval){{0, 0}, {0, 0}};
    setitimer(ITIMER_REAL, &timer, NULL);
    printf("%d wrong, seen: %s\n", wrong, !has_aes || seen >= 20 ? "yes" : "no");
    return 0;
}
