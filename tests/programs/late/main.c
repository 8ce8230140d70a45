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

enum { PAGE = 4096, ROWS = 16 };

static const uint32_t constants[4 * ROWS] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static char *rows;
static volatile int faults;

/* Rows are read in order: this is the one that has faulted. */
static void open_row(int signo) {
    (void)signo;
    mprotect(rows + PAGE * (faults++ % ROWS), PAGE, PROT_READ);
}

#define M0 "%%xmm3"
#define M1 "%%xmm4"
#define M2 "%%xmm5"
#define M3 "%%xmm6"

/* Two and two rounds with row n and the message words m. */
#define WORDS(n, m) "movdqa " #n "*4096(%[rows]), %%xmm0\n paddd " m ", %%xmm0\n"
#define FIRST "sha256rnds2 %%xmm0, %%xmm1, %%xmm2\n pshufd $0x0e, %%xmm0, %%xmm0\n"
#define SECOND "sha256rnds2 %%xmm0, %%xmm2, %%xmm1\n"
/* The message schedule: the first step, w[t-7] added, and the last step. */
#define STEP1(m, next) "sha256msg1 " next ", " m "\n"
#define ADD(m, before, newest) \
    "movdqa " newest ", %%xmm7\n palignr $4, " before ", %%xmm7\n nop\n paddd %%xmm7, " m "\n"
#define STEP2(m, newest) "sha256msg2 " newest ", " m "\n"
#define GROUP(n, a, b, c, d) WORDS(n, d) STEP2(a, d) FIRST ADD(b, d, a) STEP1(c, d) SECOND

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

static uint32_t turn(uint32_t x, int by) { return x >> by | x << (32 - by); }

/* The same as the standard has it (FIPS 180-4, 6.2.2). */
static void plain_block(uint32_t state[8], const unsigned char *message) {
    uint32_t w[64], s[8];
    memcpy(s, state, sizeof s);
    for (int t = 0; t < 64; t++) {
        uint32_t *v = w + t;
        if (t < 16) {
            const unsigned char *m = message + 4 * t;
            *v = (uint32_t)m[0] << 24 | m[1] << 16 | m[2] << 8 | m[3];
        } else {
            *v = v[-16] + (turn(v[-15], 7) ^ turn(v[-15], 18) ^ v[-15] >> 3) + v[-7] +
                 (turn(v[-2], 17) ^ turn(v[-2], 19) ^ v[-2] >> 10);
        }
        uint32_t t1 = s[7] + (turn(s[4], 6) ^ turn(s[4], 11) ^ turn(s[4], 25)) +
                      ((s[4] & s[5]) ^ (~s[4] & s[6])) + constants[t] + *v;
        uint32_t t2 = (turn(s[0], 2) ^ turn(s[0], 13) ^ turn(s[0], 22)) +
                      ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
        memmove(s + 1, s, 7 * sizeof *s);
        s[4] += t1;
        s[0] = t1 + t2;
    }
    for (int i = 0; i < 8; i++) state[i] += s[i];
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
