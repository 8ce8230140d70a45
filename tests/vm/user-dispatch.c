/* PR_SET_SYSCALL_USER_DISPATCH: system calls that a program answers itself. */
#include "check.h"
#include <pthread.h>
#include <time.h>
#include <ucontext.h>

#ifndef PR_SET_SYSCALL_USER_DISPATCH
#define PR_SET_SYSCALL_USER_DISPATCH 59
#endif
#ifndef SYS_USER_DISPATCH
#define SYS_USER_DISPATCH 2
#endif

static volatile char selector;
static volatile int seen, number, code, error;
static void *volatile address;

static long set(long mode, unsigned long start, unsigned long length, volatile char *byte)
{
    return prctl(PR_SET_SYSCALL_USER_DISPATCH, mode, start, length, byte);
}

#ifdef __x86_64__
static volatile long accumulator;

static void handler(int signo, siginfo_t *info, void *context)
{
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    /* The way back is a system call as well. */
    selector = 0;
    seen++;
    number = info->si_syscall;
    code = info->si_code;
    error = info->si_errno;
    address = info->si_call_addr;
    accumulator = registers[REG_RAX];
    registers[REG_RAX] = 4711;
    (void)signo;
}

static long call(long which)
{
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(which) : "rcx", "r11", "memory");
    return result;
}

static void *other(void *unused)
{
    same_number("a call of another thread", call(SYS_getpid), getpid());
    return unused;
}

static int ends(volatile char *byte, char value)
{
    pid_t pid = start();
    if (pid == 0) {
        set(1, 0, 0, byte);
        selector = value;
        call(SYS_getpid);
        _exit(0);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static void dispatched(void)
{
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
    sigaction(SIGSYS, &action, NULL);
    long pid = call(SYS_getpid);
    need("PR_SET_SYSCALL_USER_DISPATCH", set(1, 0, 0, &selector));
    long result = call(SYS_getpid);
    check(result == pid && !seen, "calls are the kernel's");
    selector = 1;
    result = call(SYS_getpid);
    selector = 0;
    same_number("what the handler answers", result, 4711);
    same_number("signals", seen, 1);
    same_number("si_syscall", number, SYS_getpid);
    same_number("si_code", code, SYS_USER_DISPATCH);
    same_number("si_errno", error, 0);
    same_number("the register of the number", accumulator, SYS_getpid);
    check(((unsigned char *)address)[-2] == 0x0f && ((unsigned char *)address)[-1] == 0x05,
          "the address is behind the instruction");
    /* A number that is no call. */
    selector = 1;
    result = call(0x12345678);
    selector = 0;
    same_number("a number that is none", result, 4711);
    same_number("si_syscall", number, 0x12345678);
    /* What the vDSO answers is no call. */
    struct timespec now;
    seen = 0;
    selector = 1;
    clock_gettime(CLOCK_MONOTONIC, &now);
    selector = 0;
    same_number("signals of clock_gettime", seen, 0);

    pthread_t thread;
    pthread_create(&thread, NULL, other, NULL);
    selector = 1;
    /* Until the other has made its call nothing is called here. */
    for (volatile long i = 0; i < 3000000; i++)
        ;
    selector = 0;
    pthread_join(thread, NULL);
    pid_t child = start();
    if (child == 0) {
        selector = 1;
        result = call(SYS_getpid);
        selector = 0;
        check(result != 4711, "a forked child's calls are the kernel's");
        _exit(failures != 0);
    }
    all_well("a forked child", child);

    /* All code is excepted, or none but that. */
    need("a range of all", set(1, 1, -2UL, &selector));
    selector = 1;
    result = call(SYS_getpid);
    selector = 0;
    same_number("a call of excepted code", result, pid);
    need("off", set(0, 0, 0, NULL));
    selector = 1;
    result = call(SYS_getpid);
    selector = 0;
    same_number("a call when it is off", result, pid);

    same_number("a byte that says something else", ends(&selector, 7), SIGSYS);
    same_number("a byte that cannot be read", ends((char *)16, 0), SIGSEGV);
    same_number("a byte of 0", ends(&selector, 0), 0);
}
#else
static void dispatched(void)
{
}
#endif

int main(void)
{
    same_number("an unknown mode", set(9, 0, 0, NULL) == -1 ? errno : 0, EINVAL);
    same_number("off with a range", set(0, 1, 1, NULL) == -1 ? errno : 0, EINVAL);
    dispatched();
    return result();
}
