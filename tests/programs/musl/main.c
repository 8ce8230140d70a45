/* With the musl C library, static and dynamic: threads, thread-local storage, printf, malloc, qsort. */
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static __thread int mine;
static int shared;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void *work(void *argument)
{
    for (int i = 0; i < 1000; i++) {
        mine++;
        pthread_mutex_lock(&lock);
        shared += *(int *)argument;
        pthread_mutex_unlock(&lock);
    }
    return (void *)(long)mine;
}

static int by_name(const void *a, const void *b) { return strcmp(*(char **)a, *(char **)b); }

int main(int argc, char **argv)
{
    pthread_t threads[3];
    int steps[3] = { 1, 10, 100 };
    for (int i = 0; i < 3; i++)
        pthread_create(&threads[i], NULL, work, &steps[i]);
    for (int i = 0; i < 3; i++) {
        void *result;
        pthread_join(threads[i], &result);
        printf("thread %d counted %ld\n", i, (long)result);
    }
    printf("shared %d, mine %d\n", shared, mine);
    char *names[] = { "delta", "alpha", "charlie", "bravo" };
    qsort(names, 4, sizeof *names, by_name);
    printf("%s %s %.15g %a %s\n", names[0], names[3], sin(1) * 1e10, 0.1, strerror(ENOENT));
    char *grown = NULL;
    for (size_t n = 1; n < 1 << 22; n *= 2)
        memset(grown = realloc(grown, n), 'x', n);
    time_t then = 1700000000;
    printf("%c %s", grown[12345], asctime(gmtime(&then)));
    for (int i = 1; i < argc; i++)
        printf("[%s]", argv[i]);
    printf(" %d\n", access("/nonexistent", F_OK));
    return 0;
}
