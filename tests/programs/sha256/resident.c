/* SHA-256 over many blocks, in a loop as libraries have it, of which a translator may keep everything in registers: it
 * finds the pages of its message and of its constants closed, and is interrupted again and again. At each fault all
 * registers are as the processor has them; in each signal at the loop's start the hash can be finished from them. (The
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

#define ROW "16"
#include "sha256.h"

enum { PAGE = 4096, PAGES = 16, BLOCKS = PAGE * PAGES / 64 };

static unsigned char *data; /* the message, behind it a page with the constants */
static unsigned char *rows;
static volatile int faults, next;
static volatile uint64_t loop_start, loop_end;
static volatile int seen, wrong;
static uint64_t registers = 1; /* a checksum of those at all faults */
static uint32_t final[8];      /* what the interrupted hash must come to */

static void mix(uint64_t value) { registers = (registers ^ value) * 0x9e3779b97f4a7c15u, registers ^= registers >> 29; }

/* Where A to H are in xmm1 (A B E F) and xmm2 (C D G H), the first one in the highest word. */
static const int place[8] = {3, 2, 7, 6, 1, 0, 5, 4};

/* Pages of the message are read in order. Whether it is one of them, or the constants', the instruction says. */
static void open_page(int signo, siginfo_t *info, void *context) {
    (void)signo, (void)info;
    const ucontext_t *c = context;
    const greg_t *r = c->uc_mcontext.gregs;
    uint64_t at = r[REG_RIP];
    if (at >= loop_start && at < loop_end) mix(at - loop_start);
    mix(r[REG_RSI] - (uint64_t)data), mix(r[REG_RDX]), mix(r[REG_RCX] - (uint64_t)rows);
    for (int i = 0; i < 16; i++) {
        const uint32_t *words = c->uc_mcontext.fpregs->_xmm[i].element;
        mix((uint64_t)words[1] << 32 | words[0]), mix((uint64_t)words[3] << 32 | words[2]);
    }
    faults++;
    unsigned char *page = *(const unsigned char *)at == 0xf3 ? data + PAGE * next++ : rows;
    mprotect(page, PAGE, PROT_READ);
}

static void look(int signo, siginfo_t *info, void *context) {
    (void)signo, (void)info;
    const ucontext_t *c = context;
    const greg_t *r = c->uc_mcontext.gregs;
    if ((uint64_t)r[REG_RIP] < loop_start || (uint64_t)r[REG_RIP] >= loop_end) return;
    seen++;
    if ((uint64_t)r[REG_RIP] != loop_start) return;
    uint32_t words[8], state[8];
    memcpy(words, c->uc_mcontext.fpregs->_xmm[1].element, 16);
    memcpy(words + 4, c->uc_mcontext.fpregs->_xmm[2].element, 16);
    for (int i = 0; i < 8; i++) state[i] = words[place[i]];
    const unsigned char *message = (void *)r[REG_RSI];
    for (uint64_t left = r[REG_RDX]; left; left--, message += 64) plain_block(state, message);
    if (memcmp(state, final, sizeof final)) wrong++;
}

/* `other` is what xmm7 holds in the first turn: the places of the bytes, or others. */
static void blocks(uint32_t state[8], const unsigned char *message, uint64_t count, const uint8_t other[16]) {
    static const uint8_t swap[16] = {3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12};
    uint32_t words[8];
    for (int i = 0; i < 8; i++) words[place[i]] = state[i];
    asm volatile(
        "lea 1f(%%rip), %%rax\n mov %%rax, %[start]\n lea 2f(%%rip), %%rax\n mov %%rax, %[end]\n"
        "movdqu (%[words]), %%xmm1\n movdqu 16(%[words]), %%xmm2\n"
        "movdqu (%[swap]), %%xmm8\n movdqu (%[other]), %%xmm7\n"
        "pcmpeqd %%xmm9, %%xmm9\n pxor %%xmm10, %%xmm10\n movdqa %%xmm8, %%xmm11\n movdqa %%xmm7, %%xmm12\n"
        "pcmpeqd %%xmm13, %%xmm13\n pxor %%xmm14, %%xmm14\n movdqa %%xmm8, %%xmm15\n pslld $3, %%xmm13\n"
        "movdqa %%xmm13, %%xmm0\n movdqa %%xmm13, %%xmm3\n movdqa %%xmm14, %%xmm4\n"
        "movdqa %%xmm15, %%xmm5\n movdqa %%xmm13, %%xmm6\n"
        ".p2align 4\n"
        "1: movdqu (%%rsi), %%xmm3\n movdqu 16(%%rsi), %%xmm4\n"
        "movdqu 32(%%rsi), %%xmm5\n pshufb %%xmm7, %%xmm3\n movdqu 48(%%rsi), %%xmm6\n"
        WORDS(0, M0) "pshufb %%xmm7, %%xmm4\n movdqa %%xmm2, %%xmm10\n" FIRST "nop\n movdqa %%xmm1, %%xmm9\n" SECOND
        WORDS(1, M1) "pshufb %%xmm7, %%xmm5\n" FIRST "lea 64(%%rsi), %%rsi\n" STEP1(M0, M1) SECOND
        WORDS(2, M2) "pshufb %%xmm7, %%xmm6\n" FIRST ADD(M0, M2, M3) STEP1(M1, M2) SECOND
        GROUP(3, M0, M1, M2, M3) GROUP(4, M1, M2, M3, M0) GROUP(5, M2, M3, M0, M1)
        GROUP(6, M3, M0, M1, M2) GROUP(7, M0, M1, M2, M3) GROUP(8, M1, M2, M3, M0)
        GROUP(9, M2, M3, M0, M1) GROUP(10, M3, M0, M1, M2) GROUP(11, M0, M1, M2, M3)
        GROUP(12, M1, M2, M3, M0)
        WORDS(13, M1) STEP2(M2, M1) FIRST ADD(M3, M1, M2) SECOND
        WORDS(14, M2) FIRST STEP2(M3, M2) "movdqa %%xmm8, %%xmm7\n" SECOND
        WORDS(15, M3) FIRST "dec %%rdx\n" SECOND
        "paddd %%xmm10, %%xmm2\n paddd %%xmm9, %%xmm1\n jnz 1b\n"
        "2: movdqu %%xmm1, (%[words])\n movdqu %%xmm2, 16(%[words])\n"
        : "+S"(message), "+d"(count), [start] "=m"(loop_start), [end] "=m"(loop_end)
        : [words] "r"(words), [rows] "c"(rows), [swap] "r"(swap), [other] "r"(other)
        : "memory", "rax", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",
          "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
    for (int i = 0; i < 8; i++) state[i] = words[place[i]];
}

static const uint32_t initial[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                    0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
static const uint8_t in_words[16] = {3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12};
static const uint8_t others[16] = {3, 2, 1, 0, 7, 0x86, 5, 0x74, 11, 10, 9, 8, 15, 14, 13, 12};

static void show(const char *name, const uint32_t state[8]) {
    printf("%s ", name);
    for (int i = 0; i < 8; i++) printf("%08x", state[i]);
    puts("");
}

int main(void) {
    unsigned eax, ebx = 0, ecx, edx;
    __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx);
    int has_sha = ebx >> 29 & 1;
    data = mmap(NULL, PAGE * (PAGES + 1), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    rows = data + PAGE * PAGES;
    memcpy(rows, constants, sizeof constants);
    uint32_t x = 1;
    for (int i = 0; i < PAGE * PAGES; i++) data[i] = (x = x * 1664525 + 1013904223) >> 24;
    signal(SIGSEGV, (void (*)(int))(void *)open_page);

    uint32_t plain[8];
    memcpy(plain, initial, sizeof plain);
    for (int i = 0; i < BLOCKS; i++) plain_block(plain, data + 64 * i);
    show("plain", plain);
    if (!has_sha) return 0;

    for (int turns = 1; turns < 12; turns++) {
        uint32_t state[8];
        for (int i = 0; i < 4; i++) {
            memcpy(state, initial, sizeof state);
            blocks(state, data + i, turns, i % 2 ? others : in_words);
            show("turns", state);
        }
    }
    /* Blocks from all places before the end of a page on. */
    for (int start = 0; start < 64; start += 7) {
        uint32_t state[8];
        memcpy(state, initial, sizeof state);
        mprotect(data, PAGE * (PAGES + 1), PROT_NONE);
        faults = next = 0;
        blocks(state, data + start, BLOCKS - 1, start % 2 ? others : in_words);
        printf("%d faults, registers %016lx ", faults, (unsigned long)registers);
        show("pages", state);
    }

    memcpy(final, plain, sizeof final);
    struct sigaction action = {.sa_sigaction = look, .sa_flags = SA_SIGINFO | SA_RESTART};
    sigaction(SIGALRM, &action, NULL);
    struct itimerval timer = {{0, 4000}, {0, 4000}};
    setitimer(ITIMER_REAL, &timer, NULL);
    mprotect(data, PAGE * PAGES, PROT_READ);
    int different = 0;
    for (int i = 0; i < 40 || (seen < 10 && i < 4000); i++) {
        uint32_t state[8];
        memcpy(state, initial, sizeof state);
        blocks(state, data, BLOCKS, in_words);
        different += memcmp(state, plain, sizeof state) != 0;
    }
    timer = (struct itimerval){{0, 0}, {0, 0}};
    setitimer(ITIMER_REAL, &timer, NULL);
    printf("%d different, %d wrong, seen: %s\n", different, wrong, seen >= 10 ? "yes" : "no");
    return 0;
}
