/*
 * Operations that take the kernel and the translator, not computing: latency NAME TIMES does one of them so often.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void check(int ok, const char *what)
{
    if (!ok) {
        perror(what);
        exit(1);
    }
}

/* No C library remembers its answer. */
static void system_call(long times)
{
    pid_t parent = getppid();
    while (times-- > 0)
        check(syscall(SYS_getppid) == parent, "getppid");
}

static volatile sig_atomic_t delivered;

static void deliver(int number)
{
    (void)number;
    delivered++;
}

static void signals(long times)
{
    pid_t process = getpid(), thread = syscall(SYS_gettid);
    struct sigaction action = { .sa_handler = deliver };
    check(sigaction(SIGUSR1, &action, NULL) == 0, "sigaction");
    for (long i = 0; i < times; i++)
        check(syscall(SYS_tgkill, process, thread, SIGUSR1) == 0, "tgkill");
    check(delivered == times, "a signal is missing");
}

static void *answer(void *value)
{
    return value;
}

static void threads(long times)
{
    for (long i = 0; i < times; i++) {
        pthread_t thread;
        int token;
        void *value;
        check(pthread_create(&thread, NULL, answer, &token) == 0, "pthread_create");
        check(pthread_join(thread, &value) == 0 && value == &token, "pthread_join");
    }
}

static void forks(long times)
{
    for (long i = 0; i < times; i++) {
        int status;
        pid_t child = fork();
        if (child == 0)
            _exit(7);
        check(child > 0 && waitpid(child, &status, 0) == child, "fork");
        check(WIFEXITED(status) && WEXITSTATUS(status) == 7, "the child's status");
    }
}

/* A byte goes to another process and comes back. */
static void pipes(long times)
{
    int there[2], back[2], status;
    char byte = 'x';
    check(pipe(there) == 0 && pipe(back) == 0, "pipe");
    pid_t child = fork();
    check(child >= 0, "fork");
    if (child == 0) {
        close(there[1]);
        while (read(there[0], &byte, 1) == 1)
            check(write(back[1], &byte, 1) == 1, "write");
        _exit(0);
    }
    while (times-- > 0) {
        check(write(there[1], &byte, 1) == 1, "write");
        check(read(back[0], &byte, 1) == 1, "read");
    }
    close(there[1]);
    check(waitpid(child, &status, 0) == child && status == 0, "waitpid");
}

static void maps(long times)
{
    enum { LENGTH = 1 << 18 };
    while (times-- > 0) {
        char *block = mmap(NULL, LENGTH, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        check(block != MAP_FAILED, "mmap");
        block[LENGTH / 2] = 1;
        check(munmap(block, LENGTH) == 0, "munmap");
    }
}

static const struct {
    const char *name;
    void (*operate)(long times);
} operations[] = {
    { "system-call", system_call }, { "signal", signals }, { "thread", threads },
    { "fork", forks }, { "pipe", pipes }, { "map", maps },
};

int main(int argc, char **argv)
{
    for (size_t i = 0; argc == 3 && i < sizeof operations / sizeof *operations; i++) {
        if (strcmp(argv[1], operations[i].name) == 0) {
            operations[i].operate(atol(argv[2]));
            printf("%s: done\n", argv[1]);
            return 0;
        }
    }
    fprintf(stderr, "usage: latency system-call|signal|thread|fork|pipe|map TIMES\n");
    return 2;
}
