// Threads that unmap code, and map and run other code at the same addresses, while children are forked in the middle of
// it: nobody may run what was there before.
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { THREADS = 4, FORKS = 60, SIZE = 4 * 4096 };

static _Atomic int stop;

// mov eax, number; ret.
static void write_function(uint8_t *at, uint32_t number) {
    const uint8_t code[] = {0xb8, number, number >> 8, number >> 16, number >> 24, 0xc3};
    memcpy(at, code, sizeof code);
}

static int once(uint32_t number) {
    uint8_t *area = mmap(0, SIZE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int wrong = 0;
    for (int i = 0; i < 4; i++) {
        for (int at = 0; at < SIZE; at += 4096) {
            write_function(area + at, number + i);
            // Often enough to be translated.
            for (int again = 0; again < 4; again++) wrong += ((uint32_t (*)(void))(area + at))() != number + i;
        }
    }
    munmap(area, SIZE);
    return wrong;
}

static void *work(void *number) {
    int wrong = 0;
    for (uint32_t i = 0; !stop; i += 1000) wrong += once((uintptr_t)number + i);
    if (wrong) printf("%d wrong in a thread\n", wrong);
    return 0;
}

int main(void) {
    pthread_t threads[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++) pthread_create(&threads[i], 0, work, (void *)(i << 24));
    int wrong = 0;
    for (int i = 0; i < FORKS; i++) {
        pid_t child = fork();
        if (!child) _exit(once(1 << 30) + once(2 << 30) > 0);
        int status;
        while (waitpid(child, &status, 0) < 0) {}
        wrong += status != 0;
    }
    stop = 1;
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], 0);
    printf("%d wrong in children\n", wrong);
    return 0;
}
