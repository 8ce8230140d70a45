/*
 * A kernel of integer work like a small embedded program's: a linked list that is
 * searched, reversed and sorted, a matrix product, a state machine that reads
 * numbers, and a CRC over all results. It prints the CRC, and does the same on
 * every processor.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NODES = 256, SIDE = 24, ROUNDS = 200 };

static uint32_t state = 1;

static uint32_t next_number(void)
{
    return state = state * 1664525u + 1013904223u;
}

static uint16_t crc16(uint16_t crc, uint32_t word)
{
    for (int bit = 0; bit < 32; bit++) {
        int carry = (crc ^ word) & 1;
        crc >>= 1;
        word >>= 1;
        if (carry)
            crc ^= 0xa001;
    }
    return crc;
}

/* ---- the list -------------------------------------------------------------- */

struct node {
    struct node *next;
    int16_t key, value;
};

static struct node nodes[NODES];

static struct node *make_list(void)
{
    for (int i = 0; i < NODES; i++) {
        nodes[i].next = i + 1 < NODES ? &nodes[i + 1] : NULL;
        nodes[i].key = next_number() >> 20;
        nodes[i].value = i;
    }
    return nodes;
}

static struct node *reverse(struct node *list)
{
    struct node *reversed = NULL;
    while (list) {
        struct node *rest = list->next;
        list->next = reversed;
        reversed = list;
        list = rest;
    }
    return reversed;
}

static const struct node *find(const struct node *list, int key)
{
    while (list && list->key != key)
        list = list->next;
    return list;
}

typedef int compare(const struct node *, const struct node *);

static int by_key(const struct node *a, const struct node *b)
{
    return a->key - b->key;
}

static int by_value(const struct node *a, const struct node *b)
{
    return a->value - b->value;
}

static struct node *merge(struct node *a, struct node *b, compare *order)
{
    struct node *merged = NULL, **end = &merged;
    while (a && b) {
        struct node **least = order(a, b) <= 0 ? &a : &b;
        *end = *least;
        end = &(*least)->next;
        *least = *end;
    }
    *end = a ? a : b;
    return merged;
}

static struct node *sort(struct node *list, int length, compare *order)
{
    struct node *second = list, *last = NULL;
    if (length < 2)
        return list;
    for (int i = 0; i < length / 2; i++) {
        last = second;
        second = second->next;
    }
    last->next = NULL;
    return merge(sort(list, length / 2, order), sort(second, length - length / 2, order), order);
}

static uint16_t list_work(uint16_t crc)
{
    struct node *list = sort(make_list(), NODES, by_key);
    for (int i = 0; i < 32; i++) {
        const struct node *found = find(list, nodes[next_number() % NODES].key);
        crc = crc16(crc, found->value);
        list = reverse(list);
    }
    list = sort(list, NODES, by_value);
    return crc16(crc, list->key);
}

/* ---- the matrix ------------------------------------------------------------ */

static uint16_t matrix_work(uint16_t crc)
{
    static int16_t a[SIDE][SIDE], b[SIDE][SIDE];
    static int32_t product[SIDE][SIDE];
    int32_t sum = 0;
    for (int i = 0; i < SIDE * SIDE; i++) {
        a[i / SIDE][i % SIDE] = next_number() >> 22;
        b[i / SIDE][i % SIDE] = next_number() >> 22;
    }
    for (int i = 0; i < SIDE; i++) {
        for (int j = 0; j < SIDE; j++) {
            product[i][j] = 0;
            for (int k = 0; k < SIDE; k++)
                product[i][j] += a[i][k] * b[k][j];
        }
    }
    for (int i = 0; i < SIDE; i++)
        for (int j = 0; j < SIDE; j++)
            sum = (int32_t)((uint32_t)sum * 31 + (uint32_t)(product[i][j] >> (j & 7)));
    return crc16(crc, sum);
}

/* ---- the state machine ----------------------------------------------------- */

enum kind { START, SIGN, INTEGER, POINT, FRACTION, EXPONENT, SCALE, INVALID, KINDS };

static enum kind step(enum kind kind, char c)
{
    int digit = c >= '0' && c <= '9';
    switch (kind) {
    case START:
        return digit ? INTEGER : c == '+' || c == '-' ? SIGN : c == '.' ? POINT : INVALID;
    case SIGN:
        return digit ? INTEGER : c == '.' ? POINT : INVALID;
    case INTEGER:
        return digit ? INTEGER : c == '.' ? POINT : c == 'e' ? EXPONENT : INVALID;
    case POINT:
    case FRACTION:
        return digit ? FRACTION : c == 'e' ? EXPONENT : INVALID;
    case EXPONENT:
        return digit || c == '-' ? SCALE : INVALID;
    case SCALE:
        return digit ? SCALE : INVALID;
    default:
        return INVALID;
    }
}

static uint16_t machine_work(uint16_t crc)
{
    static const char *const words[] = {
        "5012", "1234.500", "-110.7e4", "+0.64400", ".1e-7", "T0.3e", "-T.T++Tq", "1e3", "34x", "-.123",
    };
    char text[512];
    unsigned counts[KINDS] = { 0 };
    size_t length = 0;
    while (length < sizeof text - 16) {
        const char *word = words[next_number() % 10];
        length += strlen(strcpy(text + length, word));
        text[length++] = ',';
    }
    text[length] = 0;
    enum kind kind = START;
    for (const char *c = text; *c; c++) {
        if (*c == ',') {
            counts[kind]++;
            kind = START;
        } else {
            kind = step(kind, *c);
        }
    }
    for (int i = 0; i < KINDS; i++)
        crc = crc16(crc, counts[i]);
    return crc;
}

int main(int argc, char **argv)
{
    int rounds = argc > 1 ? atoi(argv[1]) : ROUNDS;
    uint16_t crc = 0;
    for (int i = 0; i < rounds; i++)
        crc = machine_work(matrix_work(list_work(crc)));
    printf("crc %04x after %d rounds\n", crc, rounds);
    return 0;
}
