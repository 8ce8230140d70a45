// How a program finds itself when it begins: its auxiliary vector, its segments and what they may be used for.
#define _GNU_SOURCE
#include <cpuid.h>
#include <elf.h>
#include <link.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef ALIGNMENT
#define ALIGNMENT 16
#endif

extern char _start[], **environ;

static char aligned[64] __attribute__((aligned(ALIGNMENT))) = "in the file";
static char zero[3 * 65536 + 123];
static int initialised = 42;
// Written by relocation, then read-only (RELRO).
static int *const volatile relocated __attribute__((section(".data.rel.ro"))) = &initialised;

static unsigned long counted(const Elf64_auxv_t *vector, unsigned long type) {
    unsigned long count = 0;
    for (; vector->a_type != AT_NULL; vector++) count += vector->a_type == type;
    return count;
}

// The C library keeps something else of AT_HWCAP.
static unsigned long value_of(const Elf64_auxv_t *vector, unsigned long type) {
    for (; vector->a_type != AT_NULL; vector++)
        if (vector->a_type == type) return vector->a_un.a_val;
    return 0;
}

// What becomes of a child that does this.
static void try(const char *what, void (*act)(void)) {
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        act();
        _exit(7);
    }
    int status;
    waitpid(child, &status, 0);
    if (WIFSIGNALED(status)) printf("%s: %s\n", what, strsignal(WTERMSIG(status)));
    else printf("%s: goes on, %d\n", what, WEXITSTATUS(status));
}

static void write_relro(void) { *(int *volatile *)&relocated = 0; }
static void write_code(void) { *(volatile char *)_start = 0; }
static void run_data(void) {
    static unsigned char code[] = {0xc3};
    ((void (*)(void))code)();
}
static void run_stack(void) {
    volatile unsigned char code[16] = {0xc3};
    ((void (*)(void))code)();
}

int main(int argc, char **argv) {
    char **end = environ;
    while (*end) end++;
    const Elf64_auxv_t *vector = (void *)(end + 1);

    unsigned a, b, c, d;
    __get_cpuid(1, &a, &b, &c, &d);
    printf("one AT_BASE: %d, zero: %d\n", counted(vector, AT_BASE) == 1, getauxval(AT_BASE) == 0);
    printf("AT_HWCAP is CPUID's: %d, AT_HWCAP2: %lu\n", value_of(vector, AT_HWCAP) == d, counted(vector, AT_HWCAP2));
    printf("AT_PLATFORM %s, AT_PAGESZ %lu, AT_CLKTCK %lu\n", (char *)getauxval(AT_PLATFORM), getauxval(AT_PAGESZ),
           getauxval(AT_CLKTCK));
    printf("AT_ENTRY: %d, AT_SECURE %lu, AT_FLAGS %lu\n", getauxval(AT_ENTRY) == (unsigned long)_start,
           getauxval(AT_SECURE), getauxval(AT_FLAGS));
    static const char none[16];
    printf("AT_RANDOM: %d\n", memcmp((void *)getauxval(AT_RANDOM), none, 16) != 0);
    printf("AT_SYSINFO_EHDR: %d\n", memcmp((void *)getauxval(AT_SYSINFO_EHDR), ELFMAG, SELFMAG) == 0);
    printf("AT_EXECFN is argv[0]: %d\n", !strcmp((char *)getauxval(AT_EXECFN), argv[0]));
    printf("%d argument, stack aligned: %d\n", argc, ((uintptr_t)(argv - 1) & 15) == 0);

    const Elf64_Phdr *headers = (void *)getauxval(AT_PHDR);
    printf("AT_PHENT %lu\n", getauxval(AT_PHENT));
    uintptr_t lowest = UINTPTR_MAX;
    for (unsigned long i = 0; i < getauxval(AT_PHNUM); i++)
        if (headers[i].p_type == PT_LOAD && headers[i].p_vaddr < lowest) lowest = headers[i].p_vaddr;
    printf("linked at %#lx\n", lowest);

    int clean = 1;
    for (size_t i = 0; i < sizeof zero; i++) clean &= zero[i] == 0;
    printf("zero: %d, data: %d, %s, aligned: %d\n", clean, *relocated, aligned, ((uintptr_t)aligned % ALIGNMENT) == 0);
    char *low = mmap((void *)0x10000, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    printf("mapped at %p\n", (void *)low);
    low[4095] = 1;

    try("writing what was relocated", write_relro);
    try("writing code", write_code);
    try("running data", run_data);
    try("running the stack", run_stack);
}
