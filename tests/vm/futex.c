/* Futexes that threads wait at: requeued, one of many, in memory that is shared or not, with the calls of futex2. */
#include "check.h"
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sys/shm.h>
#include <time.h>

/* linux/futex.h, of newer kernels than the headers may be of */
struct waiter {
    unsigned long value, address;
    unsigned flags, reserved;
};
enum { WAIT = 455, WAKE = 454, REQUEUE = 456, WAITV = 449, SIZE_U32 = 2, PRIVATE = 128 };

enum { THREADS = 10, MANY = 30 };

static long op(void *word, int operation, long value, long value2, void *word2, long value3)
{
    return syscall(SYS_futex, word, operation, value, value2, word2, value3);
}

/* A thread, what it does and what came of it. */
struct worker {
    pthread_t thread;
    long (*work)(struct worker *);
    void *words;
    int flags;
    volatile int tid;
    long result;
};

static void *work(void *worker_)
{
    struct worker *worker = worker_;
    worker->tid = gettid();
    long result = worker->work(worker);
    worker->result = result < 0 ? -errno : result;
    return NULL;
}

/* Starts a thread, and waits until it sleeps and has done nothing for a while. */
static void begin(struct worker *worker)
{
    char path[64], text[512];
    worker->tid = 0;
    need("pthread_create", -pthread_create(&worker->thread, NULL, work, worker));
    for (int asleep = 0, rounds = 0; asleep < 3 && rounds < 3000; rounds++) {
        usleep(10000);
        snprintf(path, sizeof path, "/proc/self/task/%d/stat", worker->tid);
        if (worker->tid == 0 || access(path, R_OK) != 0)
            continue;
        read_file(path, text, sizeof text);
        char *state = strrchr(text, ')');
        asleep = state && state[2] == 'S' ? asleep + 1 : 0;
    }
}

static long end(struct worker *worker)
{
    pthread_join(worker->thread, NULL);
    return worker->result;
}

static struct timespec soon(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    time.tv_sec += 60;
    return time;
}

static long waits(struct worker *worker)
{
    struct timespec minute = {60, 0};
    return op(worker->words, FUTEX_WAIT | worker->flags, 0, (long)&minute, NULL, 0);
}

static void requeued(int flags)
{
    static int from, to;
    struct worker all[THREADS];
    for (int i = 0; i < THREADS; i++) {
        all[i] = (struct worker){.work = waits, .words = &from, .flags = flags};
        begin(&all[i]);
    }
    check(op(&from, FUTEX_CMP_REQUEUE | flags, 3, 7, &to, 1) == -1 && errno == EAGAIN, "another value");
    same_number("FUTEX_CMP_REQUEUE", op(&from, FUTEX_CMP_REQUEUE | flags, 3, 7, &to, 0), 10);
    same_number("nobody is left", op(&from, FUTEX_WAKE | flags, INT_MAX, 0, NULL, 0), 0);
    same_number("they are here", op(&to, FUTEX_WAKE | flags, INT_MAX, 0, NULL, 0), 7);
    for (int i = 0; i < THREADS; i++)
        same_number("a wait", end(&all[i]), 0);
}

static void list(struct waiter *waiters, int **words, int flags)
{
    for (int i = 0; i < MANY; i++)
        waiters[i] = (struct waiter){0, (unsigned long)words[i], SIZE_U32 | flags, 0};
}

static long waits_at_many(struct worker *worker)
{
    struct waiter waiters[MANY];
    struct timespec until = soon();
    list(waiters, worker->words, worker->flags);
    return syscall(WAITV, waiters, MANY, 0, &until, CLOCK_MONOTONIC);
}

static void one_of_many(int **words, int flags)
{
    struct worker worker = {.work = waits_at_many, .words = words, .flags = flags};
    begin(&worker);
    same_number("one is waked", op(words[MANY - 1], FUTEX_WAKE | flags, 1, 0, NULL, 0), 1);
    same_number("which one it was", end(&worker), MANY - 1);
    struct waiter waiters[MANY];
    struct timespec until = soon();
    list(waiters, words, flags);
    waiters[0].value = 1;
    check(syscall(WAITV, waiters, MANY, 0, &until, CLOCK_MONOTONIC) == -1 && errno == EAGAIN, "another value");
    waiters[0] = (struct waiter){0, (unsigned long)words[0], flags, 0};
    check(syscall(WAITV, waiters, MANY, 0, &until, CLOCK_MONOTONIC) == -1 && errno == EINVAL, "of no size");
    waiters[0] = (struct waiter){0, 1, SIZE_U32 | flags, 0};
    check(syscall(WAITV, waiters, MANY, 0, &until, CLOCK_MONOTONIC) == -1 && errno == EINVAL, "misaligned");
    waiters[0].address = 0;
    check(syscall(WAITV, waiters, MANY, 0, &until, CLOCK_MONOTONIC) == -1 && errno == EFAULT, "nowhere");
    check(syscall(WAITV, NULL, MANY, 0, &until, CLOCK_MONOTONIC) == -1 && errno == EINVAL, "no list");
    check(syscall(WAITV, waiters, MANY, 0, &until, CLOCK_TAI) == -1 && errno == EINVAL, "another clock");
}

static void many(void)
{
    static int own[MANY];
    int *words[MANY];
    for (int i = 0; i < MANY; i++)
        words[i] = &own[i];
    one_of_many(words, PRIVATE);
    for (int i = 0; i < MANY; i++) {
        int id = need("shmget", shmget(IPC_PRIVATE, 4096, IPC_CREAT | 0600));
        words[i] = shmat(id, NULL, 0);
        need("shmctl", shmctl(id, IPC_RMID, NULL));
    }
    one_of_many(words, 0);
}

static long waits_by_futex2(struct worker *worker)
{
    struct timespec until = soon();
    return syscall(WAIT, worker->words, 0, 0xffffffffUL, SIZE_U32 | PRIVATE, &until, CLOCK_MONOTONIC);
}

static void futex2(void)
{
    static int from, to;
    struct worker worker = {.work = waits_by_futex2, .words = &from};
    struct waiter places[2] = {
        {0, (unsigned long)&from, SIZE_U32 | PRIVATE, 0}, {0, (unsigned long)&to, SIZE_U32 | PRIVATE, 0}};
    begin(&worker);
    same_number("futex_wake", syscall(WAKE, &to, 0xffffffffUL, 1, SIZE_U32 | PRIVATE), 0);
    same_number("futex_requeue", syscall(REQUEUE, places, 0, 0, 1), 1);
    same_number("futex_wake", syscall(WAKE, &from, 0xffffffffUL, 1, SIZE_U32 | PRIVATE), 0);
    same_number("futex_wake", syscall(WAKE, &to, 0xffffffffUL, 1, SIZE_U32 | PRIVATE), 1);
    same_number("futex_wait", end(&worker), 0);
}

static long takes(struct worker *worker)
{
    int *lock = worker->words;
    if (op(lock, worker->flags, 0, 0, NULL, 0) < 0)
        return -1;
    return (*lock & FUTEX_TID_MASK) == gettid() ? op(lock, FUTEX_UNLOCK_PI_PRIVATE, 0, 0, NULL, 0) : 1;
}

/* Locks that know their owner. */
static void owned(void)
{
    static int lock;
    struct worker tries = {.work = takes, .words = &lock, .flags = FUTEX_TRYLOCK_PI_PRIVATE};
    struct worker waits = {.work = takes, .words = &lock, .flags = FUTEX_LOCK_PI_PRIVATE};
    same_number("FUTEX_LOCK_PI", op(&lock, FUTEX_LOCK_PI_PRIVATE, 0, 0, NULL, 0), 0);
    same_number("its owner", lock & FUTEX_TID_MASK, gettid());
    same_number("FUTEX_LOCK_PI once more", op(&lock, FUTEX_LOCK_PI_PRIVATE, 0, 0, NULL, 0), -1);
    same_number("errno", errno, EDEADLK);
    need("pthread_create", -pthread_create(&tries.thread, NULL, work, &tries));
    same_number("FUTEX_TRYLOCK_PI of another thread", end(&tries), -EAGAIN);
    begin(&waits);
    check((lock & FUTEX_WAITERS) != 0, "the lock is waited for: %#x", lock);
    same_number("FUTEX_UNLOCK_PI", op(&lock, FUTEX_UNLOCK_PI_PRIVATE, 0, 0, NULL, 0), 0);
    same_number("the thread that waited", end(&waits), 0);
    same_number("the lock", lock, 0);
    same_number("FUTEX_UNLOCK_PI of what is not ours", op(&lock, FUTEX_UNLOCK_PI_PRIVATE, 0, 0, NULL, 0), -1);
    same_number("errno", errno, EPERM);
}

int main(void)
{
    owned();
    requeued(FUTEX_PRIVATE_FLAG);
    requeued(0);
    many();
    futex2();
    return result();
}
