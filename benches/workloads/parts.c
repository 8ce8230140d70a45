/*
 * What hot programs consist of, each part alone: `parts NAME ROUNDS` does one part ROUNDS times and prints a
 * checksum, the same on every processor.
 */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint32_t state = 1;

static uint32_t next_number(void)
{
    return state = state * 1664525u + 1013904223u;
}

static uint32_t mix(uint32_t sum, uint32_t value)
{
    return (sum ^ value) * 16777619u;
}

/* ---- hash: SHA-256 (FIPS 180-4), rotations and additions ------------------- */

static const uint32_t round_constants[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static uint32_t rotate(uint32_t word, int bits)
{
    return word >> bits | word << (32 - bits);
}

static void sha256_block(uint32_t hash[8], const uint8_t block[64])
{
    uint32_t w[64], v[8];
    for (int i = 0; i < 16; i++) {
        const uint8_t *b = block + 4 * i;
        w[i] = (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
    }
    for (int i = 16; i < 64; i++) {
        uint32_t s0 = rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ w[i - 15] >> 3;
        uint32_t s1 = rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ w[i - 2] >> 10;
        w[i] = w[i - 16] + s0 + w[i - 7] + s1;
    }
    memcpy(v, hash, sizeof v);
    for (int i = 0; i < 64; i++) {
        uint32_t s1 = rotate(v[4], 6) ^ rotate(v[4], 11) ^ rotate(v[4], 25);
        uint32_t t1 = v[7] + s1 + ((v[4] & v[5]) ^ (~v[4] & v[6])) + round_constants[i] + w[i];
        uint32_t s0 = rotate(v[0], 2) ^ rotate(v[0], 13) ^ rotate(v[0], 22);
        uint32_t t2 = s0 + ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
        memmove(v + 1, v, 7 * sizeof *v);
        v[4] += t1;
        v[0] = t1 + t2;
    }
    for (int i = 0; i < 8; i++)
        hash[i] += v[i];
}

static uint32_t hash_part(void)
{
    uint32_t hash[8] = { 0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19 };
    uint8_t block[64];
    for (int i = 0; i < 64; i++)
        block[i] = next_number() >> 24;
    for (int i = 0; i < 20; i++)
        sha256_block(hash, block);
    return hash[0] ^ hash[7];
}

/* ---- compress: bytes, a table of earlier places, matches copied ------------ */

enum { TEXT = 4096, PLACES = 1024 };

static size_t compress(const uint8_t *text, size_t length, uint8_t *out)
{
    static uint16_t places[PLACES];
    size_t at = 0, end = 0;
    memset(places, 0, sizeof places);
    while (at + 4 < length) {
        uint32_t word;
        memcpy(&word, text + at, 4);
        uint16_t *place = &places[word * 2654435761u >> 22];
        size_t earlier = *place, run = 0;
        *place = at;
        if (earlier < at)
            while (run < 130 && at + run < length && text[earlier + run] == text[at + run])
                run++;
        if (run >= 4) {
            out[end++] = 0x80 | (run - 4);
            out[end++] = (at - earlier) >> 8;
            out[end++] = at - earlier;
            at += run;
        } else {
            out[end++] = text[at++] & 0x7f;
        }
    }
    while (at < length)
        out[end++] = text[at++] & 0x7f;
    return end;
}

static size_t expand(const uint8_t *packed, size_t length, uint8_t *out)
{
    size_t end = 0;
    for (size_t at = 0; at < length;) {
        uint8_t byte = packed[at++];
        if (byte & 0x80) {
            size_t distance = packed[at] << 8 | packed[at + 1];
            at += 2;
            for (int run = (byte & 0x7f) + 4; run > 0; run--, end++)
                out[end] = out[end - distance];
        } else {
            out[end++] = byte;
        }
    }
    return end;
}

static uint32_t compress_part(void)
{
    static uint8_t text[TEXT], packed[2 * TEXT], again[2 * TEXT];
    for (int i = 0; i < TEXT; i++)
        text[i] = "the quick brown fox jumps "[(next_number() >> 28) + i % 7];
    size_t size = compress(text, TEXT, packed);
    size_t length = expand(packed, size, again);
    return mix(size, length == TEXT && memcmp(text, again, TEXT) == 0);
}

/* ---- interpret: a loop around a switch, as in interpreters ----------------- */

enum operation { PUSH, ADD, SUBTRACT, MULTIPLY, DUPLICATE, SWAP, LOAD, STORE, JUMP_UNLESS, END };

static uint32_t interpret(const uint8_t *code)
{
    uint32_t stack[16], variables[4] = { 0 }, *top = stack;
    for (;;) {
        switch ((enum operation)*code++) {
        case PUSH:
            *++top = *code++;
            break;
        case ADD:
            top--;
            *top += top[1];
            break;
        case SUBTRACT:
            top--;
            *top -= top[1];
            break;
        case MULTIPLY:
            top--;
            *top *= top[1];
            break;
        case DUPLICATE:
            top++;
            *top = top[-1];
            break;
        case SWAP: {
            uint32_t below = top[-1];
            top[-1] = *top;
            *top = below;
            break;
        }
        case LOAD:
            *++top = variables[*code++];
            break;
        case STORE:
            variables[*code++] = *top--;
            break;
        case JUMP_UNLESS:
            code += 1;
            if (*top-- != 0)
                code -= code[-1];
            break;
        case END:
            return variables[1];
        }
    }
}

static uint32_t interpret_part(void)
{
    /* n = 200; do { sum = sum * 31 + n * n; n = n - 1 } while (n) */
    static const uint8_t code[] = {
        PUSH, 200, STORE, 0,
        LOAD, 1, PUSH, 31, MULTIPLY, LOAD, 0, DUPLICATE, MULTIPLY, ADD, STORE, 1,
        PUSH, 1, LOAD, 0, SWAP, SUBTRACT, DUPLICATE, STORE, 0, JUMP_UNLESS, 22,
        END,
    };
    return interpret(code);
}

/* ---- call: recursion, calls through pointers, records on a heap ------------ */

struct shape {
    uint32_t (*area)(const struct shape *);
    struct shape *left, *right;
    uint32_t key, width, height;
};

static uint32_t box(const struct shape *shape)
{
    return shape->width * shape->height;
}

static uint32_t triangle(const struct shape *shape)
{
    return shape->width * shape->height / 2;
}

static uint32_t circle(const struct shape *shape)
{
    return shape->width * shape->width * 355 / 113;
}

static struct shape *insert(struct shape *tree, struct shape *shape)
{
    if (!tree)
        return shape;
    if (shape->key < tree->key)
        tree->left = insert(tree->left, shape);
    else
        tree->right = insert(tree->right, shape);
    return tree;
}

static uint32_t areas(const struct shape *tree)
{
    return tree ? mix(areas(tree->left) + areas(tree->right), tree->area(tree)) : 0;
}

static int by_area(const void *a, const void *b)
{
    const struct shape *first = *(struct shape *const *)a, *second = *(struct shape *const *)b;
    uint32_t x = first->area(first), y = second->area(second);
    return x != y ? (x > y) - (x < y) : (first->key > second->key) - (first->key < second->key);
}

static uint32_t call_part(void)
{
    static uint32_t (*const kinds[])(const struct shape *) = { box, triangle, circle };
    enum { SHAPES = 200 };
    struct shape *tree = NULL, *all[SHAPES];
    uint32_t sum = 0;
    for (int i = 0; i < SHAPES; i++) {
        struct shape *shape = calloc(1, sizeof *shape);
        shape->area = kinds[(next_number() >> 16) % 3];
        shape->key = next_number();
        shape->width = next_number() >> 24;
        shape->height = next_number() >> 24;
        all[i] = shape;
        tree = insert(tree, shape);
    }
    sum = areas(tree);
    qsort(all, SHAPES, sizeof *all, by_area);
    for (int i = 0; i < SHAPES; i++) {
        sum = mix(sum, all[i]->key);
        free(all[i]);
    }
    return sum;
}

/* ---- real: bodies that attract each other, in double precision ------------- */

static uint32_t real_part(void)
{
    enum { BODIES = 8 };
    double place[BODIES][3], speed[BODIES][3], sum = 0;
    for (int i = 0; i < BODIES; i++) {
        for (int k = 0; k < 3; k++) {
            place[i][k] = (next_number() >> 16) / 4096.0;
            speed[i][k] = 0;
        }
    }
    for (int step = 0; step < 20; step++) {
        for (int i = 0; i < BODIES; i++) {
            for (int j = 0; j < i; j++) {
                double d[3], square = 0.01;
                for (int k = 0; k < 3; k++) {
                    d[k] = place[i][k] - place[j][k];
                    square += d[k] * d[k];
                }
                double pull = 0.001 / (square * sqrt(square));
                for (int k = 0; k < 3; k++) {
                    speed[i][k] -= d[k] * pull;
                    speed[j][k] += d[k] * pull;
                }
            }
        }
        for (int i = 0; i < BODIES; i++)
            for (int k = 0; k < 3; k++)
                place[i][k] += 0.01 * speed[i][k];
    }
    for (int i = 0; i < BODIES; i++)
        sum += place[i][0] + (float)place[i][1] * 0.5f + (int)place[i][2];
    return (uint32_t)(int64_t)(sum * 1000);
}

/* ---- vector: loops over arrays that a compiler does several elements at once */

static uint32_t vector_part(void)
{
    enum { LENGTH = 512 };
    static float x[LENGTH], y[LENGTH];
    static int32_t a[LENGTH], b[LENGTH];
    static uint8_t p[LENGTH], q[LENGTH];
    uint32_t sum = 0;
    for (int i = 0; i < LENGTH; i++) {
        x[i] = a[i] = next_number() >> 20;
        y[i] = b[i] = next_number() >> 20;
        p[i] = a[i];
        q[i] = b[i];
    }
    for (int turn = 0; turn < 4; turn++) {
        for (int i = 0; i < LENGTH; i++)
            y[i] += 0.5f * x[i];
        for (int i = 0; i < LENGTH; i++)
            b[i] = a[i] > b[i] ? a[i] - b[i] : b[i] + (a[i] << 1);
        for (int i = 0; i < LENGTH; i++)
            q[i] = (p[i] + q[i] + 1) >> 1;
    }
    for (int i = 0; i < LENGTH; i++)
        sum = mix(sum, (uint32_t)(int32_t)y[i] + (uint32_t)b[i] + q[i]);
    return sum;
}

/* ---- text: the C library's strings and conversions ------------------------- */

static uint32_t text_part(void)
{
    char line[256], *word, *rest;
    uint32_t sum = 0;
    for (int i = 0; i < 10; i++) {
        uint32_t a = next_number(), b = next_number();
        int length = snprintf(line, sizeof line, "%08x key=%u value=%-6d name=%s;", a, b >> 8, (int)(b >> 20) - 999,
                              "alpha\0bravo\0delta" + 6 * (a % 3));
        for (word = strtok_r(line, " ;", &rest); word; word = strtok_r(NULL, " ;", &rest)) {
            const char *value = strchr(word, '=');
            sum = mix(sum, value ? strtoul(value + 1, NULL, 10) + strlen(value) : strtoul(word, NULL, 16));
        }
        sum = mix(sum, length);
    }
    return sum;
}

/* ---- narrow: 8- and 16-bit arithmetic, wide products, divisions, carries --- */

static uint32_t narrow_part(void)
{
    uint8_t byte = 1;
    int16_t half = 1;
    uint64_t low = 1, high = 0;
    uint32_t sum = 0;
    for (int i = 0; i < 400; i++) {
        uint32_t number = next_number();
        byte = byte * 5 + (number >> 24);
        half -= byte > 100 ? byte : half >> 3;
        unsigned __int128 wide = (unsigned __int128)low * (number | 1) + high;
        low = (uint64_t)wide;
        high = (uint64_t)(wide >> 64) + (low < number);
        sum = mix(sum, (uint32_t)half / (byte | 1u) + (uint32_t)(low % (number | 1)));
        sum ^= __builtin_popcount(number) + __builtin_clz(number | 1) + __builtin_bswap32(number);
    }
    return sum ^ (uint32_t)(low ^ high);
}

static const struct {
    const char *name;
    uint32_t (*work)(void);
} parts[] = {
    { "hash", hash_part }, { "compress", compress_part }, { "interpret", interpret_part }, { "call", call_part },
    { "real", real_part }, { "vector", vector_part }, { "text", text_part }, { "narrow", narrow_part },
};

int main(int argc, char **argv)
{
    int rounds = argc > 2 ? atoi(argv[2]) : 1;
    for (size_t i = 0; argc > 1 && i < sizeof parts / sizeof *parts; i++) {
        if (strcmp(argv[1], parts[i].name) == 0) {
            uint32_t sum = 0;
            for (int round = 0; round < rounds; round++)
                sum = mix(sum, parts[i].work());
            printf("%s: %08x after %d rounds\n", parts[i].name, sum, rounds);
            return 0;
        }
    }
    fprintf(stderr, "usage: parts hash|compress|interpret|call|real|vector|text|narrow [ROUNDS]\n");
    return 2;
}
