/* SHA-256 in the order of instructions that libraries have, in parts, and as the standard has it. Who includes this says in ROW
 * how far the rows of constants are apart; their address is the operand `rows`.
 */
#include <stdint.h>
#include <string.h>

static const uint32_t constants[64] __attribute__((aligned(16))) = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

#define M0 "%%xmm3"
#define M1 "%%xmm4"
#define M2 "%%xmm5"
#define M3 "%%xmm6"

/* Two and two rounds with row n and the message words m. */
#define WORDS(n, m) "movdqa " #n "*" ROW "(%[rows]), %%xmm0\n paddd " m ", %%xmm0\n"
#define FIRST "sha256rnds2 %%xmm0, %%xmm1, %%xmm2\n pshufd $0x0e, %%xmm0, %%xmm0\n"
#define SECOND "sha256rnds2 %%xmm0, %%xmm2, %%xmm1\n"
/* The message schedule: the first step, w[t-7] added, and the last step. */
#define STEP1(m, next) "sha256msg1 " next ", " m "\n"
#define ADD(m, before, newest) \
    "movdqa " newest ", %%xmm7\n palignr $4, " before ", %%xmm7\n nop\n paddd %%xmm7, " m "\n"
#define STEP2(m, newest) "sha256msg2 " newest ", " m "\n"
#define GROUP(n, a, b, c, d) WORDS(n, d) STEP2(a, d) FIRST ADD(b, d, a) STEP1(c, d) SECOND

static uint32_t turn(uint32_t x, int by) { return x >> by | x << (32 - by); }

/* A block as the standard has it (FIPS 180-4, 6.2.2). */
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
