// Threads that all run translated code while it is thrown away under them: more code than a small cache of
// translations holds, functions that are rewritten while others call them, signals in the middle of loops, forks.
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { THREADS = 4, FUNCTIONS = 256, SLOT = 64, ROUNDS = 12 };

typedef uint32_t (*function)(uint32_t);

#define CHECK(what) do { if (!(what)) { printf("line %d: not %s\n", __LINE__, #what); fflush(stdout); _exit(1); } } while (0)

// lea eax, [rdi + constant]; a loop of a few turns that adds 1; ret.
static void write_function(uint8_t *at, uint32_t constant, uint8_t turns) {
    const uint8_t code[] = {
        0x8d, 0x87, constant, constant >> 8, constant >> 16, constant >> 24, // lea eax, [rdi + constant]
        0xb9, turns, 0, 0, 0,                                                // mov ecx, turns
        0xff, 0xc0,                                                          // again: inc eax
        0xff, 0xc9,                                                          // dec ecx
        0x75, 0xfa,                                                          // jnz again
        0xc3,                                                                // ret
    };
    memcpy(at, code, sizeof code);
}

static uint8_t *code_area(void) {
    uint8_t *area = mmap(0, FUNCTIONS * SLOT, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(area != MAP_FAILED);
    return area;
}

// Called by all threads, and changed by one meanwhile: each must see the old constant or the new one.
static uint8_t *shared;
static _Atomic uint32_t oldest, newest;

// A page in which each thread writes and calls a function of its own while the others do so with theirs.
static uint8_t *crowd;

static _Atomic int stop, handled;
static __thread volatile uint32_t in_handler;
static __thread uint8_t *own;

static void handler(int number) {
    (void)number;
    // Translated code in the middle of translated code.
    if (own) in_handler += ((function)(own + 7 * SLOT))(1) != 0;
    handled++;
}

// A loop that calls nothing and ends when another thread says so. It has two blocks: of a block that only goes
// back to itself qemu does not notice that another thread changes it.
static void *spin(void *unused) {
    uint64_t turns = 0;
    while (!atomic_load_explicit(&stop, memory_order_relaxed))
        if (++turns % 2) __asm__ volatile("nop");
    CHECK(turns > 0);
    return unused;
}

static void *call(void *number) {
    uint32_t seed = (uintptr_t)number + 1;
    uint8_t *area = code_area();
    uint32_t constants[FUNCTIONS];
    for (int i = 0; i < FUNCTIONS; i++) write_function(area + i * SLOT, constants[i] = i * 1000, 1 + i % 5);
    uint8_t *mine = crowd + (uintptr_t)number * SLOT;
    own = area;
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < FUNCTIONS; i++) {
            uint32_t result = ((function)(area + i * SLOT))(seed);
            CHECK(result == seed + constants[i] + 1 + i % 5);
            uint32_t from = atomic_load(&oldest);
            uint32_t seen = ((function)(shared + i % 16 * SLOT))(0) - 1;
            CHECK(seen >= from && seen <= atomic_load(&newest));
            if (i % 16 != round % 16) continue;
            write_function(area + i * SLOT, constants[i] += 7, 1 + i % 5);
            write_function(mine, constants[i], 1);
            CHECK(((function)mine)(seed) == seed + constants[i] + 1);
        }
    }
    own = 0;
    CHECK(munmap(area, FUNCTIONS * SLOT) == 0);
    return 0;
}

// Writes the constant of all shared functions with aligned stores, as a program that patches itself does.
static void *rewrite(void *unused) {
    for (uint32_t constant = 1; !stop; constant++) {
        atomic_store(&newest, constant);
        for (int i = 0; i < 16; i++) *(volatile uint32_t *)(shared + i * SLOT + 2) = constant;
        atomic_store(&oldest, constant);
        usleep(2000);
    }
    return unused;
}

static void forks(void) {
    for (int i = 0; i < 3; i++) {
        pid_t child = fork();
        if (!child) {
            own = 0;
            call((void *)7);
            _exit(3);
        }
        int status;
        while (waitpid(child, &status, 0) < 0) {}
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 3);
    }
}

int main(void) {
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
    sigaction(SIGUSR1, &action, 0);
    shared = code_area();
    crowd = code_area();
    // So that the constants are aligned: two bytes of the slot's start are left free.
    shared += 2;
    for (int i = 0; i < 16; i++) write_function(shared + i * SLOT, 0, 1);
    pthread_t threads[THREADS], spinner, writer;
    pthread_create(&spinner, 0, spin, 0);
    pthread_create(&writer, 0, rewrite, 0);
    for (uintptr_t i = 0; i < THREADS; i++) pthread_create(&threads[i], 0, call, (void *)i);
    for (int i = 0; i < 40; i++) {
        pthread_kill(spinner, SIGUSR1);
        usleep(1000);
    }
    forks();
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], 0);
    stop = 1;
    pthread_join(spinner, 0);
    pthread_join(writer, 0);
    CHECK(handled > 0);
    puts("ok");
    return 0;
}
