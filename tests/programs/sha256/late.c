/* SHA-256 in the order of instructions that libraries have, with each row of the constants on a page that faults: what a
 * translator has put off, or done beforehand, must be right whichever access faults. The handler takes no siginfo: none
 * looks at the registers.
 */
#include <cpuid.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#define ROW "4096"
#include "sha256.h"

enum { PAGE = 4096, ROWS = 16 };

static char *rows;
static volatile int faults;

/* Rows are read in order: this is the one that has faulted. */
static void open_row(int signo) {
    (void)signo;
    mprotect(rows + PAGE * (faults++ % ROWS), PAGE, PROT_READ);
}

static void block(uint32_t state[8], const unsigned char *message) {
    static const uint8_t swap[16] = {3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12};
    uint32_t words[8] = {state[5], state[4], state[1], state[0], state[7], state[6], state[3], state[2]};
    asm volatile(
        "movdqu (%[words]), %%xmm1\n movdqu 16(%[words]), %%xmm2\n movdqu (%[swap]), %%xmm7\n"
        "movdqu (%[message]), %%xmm3\n movdqu 16(%[message]), %%xmm4\n"
        "movdqu 32(%[message]), %%xmm5\n movdqu 48(%[message]), %%xmm6\n"
        "movdqa %%xmm1, %%xmm8\n movdqa %%xmm2, %%xmm9\n pshufb %%xmm7, %%xmm3\n"
        WORDS(0, M0) "pshufb %%xmm7, %%xmm4\n" FIRST SECOND
        WORDS(1, M1) "pshufb %%xmm7, %%xmm5\n" FIRST STEP1(M0, M1) SECOND
        WORDS(2, M2) "pshufb %%xmm7, %%xmm6\n" FIRST ADD(M0, M2, M3) STEP1(M1, M2) SECOND
        GROUP(3, M0, M1, M2, M3) GROUP(4, M1, M2, M3, M0) GROUP(5, M2, M3, M0, M1)
        GROUP(6, M3, M0, M1, M2) GROUP(7, M0, M1, M2, M3) GROUP(8, M1, M2, M3, M0)
        GROUP(9, M2, M3, M0, M1) GROUP(10, M3, M0, M1, M2) GROUP(11, M0, M1, M2, M3)
        GROUP(12, M1, M2, M3, M0)
        WORDS(13, M1) STEP2(M2, M1) FIRST ADD(M3, M1, M2) SECOND
        WORDS(14, M2) STEP2(M3, M2) FIRST SECOND
        WORDS(15, M3) FIRST SECOND
        "paddd %%xmm9, %%xmm2\n paddd %%xmm8, %%xmm1\n"
        "movdqu %%xmm1, (%[words])\n movdqu %%xmm2, 16(%[words])\n"
        :
        : [words] "r"(words), [message] "r"(message), [rows] "r"(rows), [swap] "r"(swap)
        : "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9");
    static const int place[8] = {5, 4, 1, 0, 7, 6, 3, 2};
    for (int i = 0; i < 8; i++) state[place[i]] = words[i];
}

int main(void) {
    unsigned eax, ebx = 0, ecx, edx;
    __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx);
    int has_sha = ebx >> 29 & 1;
    rows = mmap(NULL, PAGE * ROWS, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int i = 0; i < ROWS; i++) memcpy(rows + PAGE * i, constants + 4 * i, 16);
    signal(SIGSEGV, open_row);

    uint32_t state[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                         0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    uint32_t plain[8];
    memcpy(plain, state, sizeof plain);
    unsigned char message[64] = "abc\x80";
    message[63] = 24;
    for (int i = 0; i < 40; i++) {
        /* Every second block finds no row. */
        int closed = i % 2;
        mprotect(rows, PAGE * ROWS, closed ? PROT_NONE : PROT_READ);
        int before = faults;
        plain_block(plain, message);
        if (has_sha) {
            block(state, message);
            int right = !memcmp(state, plain, sizeof state) && faults - before == closed * ROWS;
            if (!right) printf("block %d is wrong, after %d faults\n", i, faults - before);
        }
    }
    for (int word = 0; word < 8; word++) printf("%08x", plain[word]);
    puts("");
    return 0;
}
