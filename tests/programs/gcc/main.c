/* Compiled, linked and run translated: floating point, sorting, strings, variable arguments, long jumps. */
#include <math.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint32_t state = 1;
static uint32_t next(void) { return state = state * 1664525u + 1013904223u; }
static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}
static jmp_buf back;
static void leave(int depth)
{
    if (depth == 0)
        longjmp(back, 42);
    else
        leave(depth - 1);
}

int main(int argc, char **argv)
{
    enum { N = 20000 };
    static uint32_t numbers[N];
    double sum = 0, matrix[16][16], product[16][16] = { { 0 } };
    char text[256];

    for (int i = 0; i < N; i++)
        numbers[i] = next();
    qsort(numbers, N, sizeof *numbers, by_value);
    for (int i = 0; i < N; i++)
        sum += sqrt(numbers[i]) * sin(i) + pow(1.0001, i);
    for (int i = 0; i < 256; i++)
        matrix[i / 16][i % 16] = i % 7 - 3 + i / 100.0;
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 16; j++)
            for (int k = 0; k < 16; k++)
                product[i][j] += matrix[i][k] * matrix[k][j];
    printf("%u %u %.6f %.6f\n", numbers[0], numbers[N - 1], sum, product[7][11]);
    snprintf(text, sizeof text, "%d %s %5.2Lf %#x %lld", argc, argv[1], 1.0L / 3, 255, INT64_MIN + (long long)argc);
    printf("%s %zu %s\n", text, strlen(text), strstr(text, "0xff"));
    __int128 wide = (__int128)INT64_MAX * 1000003;
    printf("%llx %lld\n", (unsigned long long)(wide >> 64), (long long)(wide / 1000000007));
    if (setjmp(back) == 0)
        leave(100);
    else
        printf("came back, %a\n", strtod("0.1", NULL));
    return 17;
}
