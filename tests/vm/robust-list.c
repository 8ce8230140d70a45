/* The list of robust futexes: what the kernel gives back of it, and what it does with it at the end of a thread. */
#include "check.h"
#include <linux/futex.h>
#include <pthread.h>

static long set(unsigned long head, unsigned long size) { return syscall(SYS_set_robust_list, head, size); }

static unsigned long get(int pid)
{
    unsigned long head = 1, size = 1;
    if (syscall(SYS_get_robust_list, pid, &head, &size) != 0)
        return 2;
    same_number("the length", size, 24);
    return head;
}

static void given_back(void)
{
    static struct robust_list_head list;
    const unsigned long heads[] = {
        (unsigned long)&list, (unsigned long)&list + 1, 3, 0x7fffffffffff, 1UL << 47, 0xaaaadeadbeef,
        0x1234567887654321, 0,
    };
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
        same_number("set_robust_list", set(heads[i], 24), 0);
        same_number("the head", get(0), heads[i]);
        same_number("the head, by the thread's number", get(gettid()), heads[i]);
        check(set(5, 23) == -1 && errno == EINVAL, "another length");
        same_number("the head is still there", get(0), heads[i]);
    }
    check(syscall(SYS_get_robust_list, 0x3fffffff, &list, &list) == -1 && errno == ESRCH, "a thread that there is not");
    unsigned long size;
    check(syscall(SYS_get_robust_list, 0, 1UL << 47, &size) == -1 && errno == EFAULT, "no place for the head");
    check(syscall(SYS_get_robust_list, 0, &size, 1UL << 47) == -1 && errno == EFAULT, "no place for the length");
    set((unsigned long)&list, 24);
    /* The C library's fork sets one anew. */
    fflush(stdout);
    pid_t pid = need("clone", syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0));
    if (pid == 0) {
        same_number("a child's head", get(0), 0);
        check(get(getppid()) == (unsigned long)&list, "its parent's");
        _exit(result());
    }
    all_well("a child", pid);
}

/* A lock, as far as the kernel knows it. */
struct lock {
    struct robust_list list;
    int word, waiters;
};

static struct {
    struct robust_list_head head;
    struct lock locks[4];
} held;

/* Ends with all locks held, and a list whose second pointer is as given. */
static void *holder(void *second)
{
    for (int i = 0; i < 4; i++) {
        held.locks[i].word = gettid();
        held.locks[i].list.next = i == 3 ? &held.head.list : &held.locks[i + 1].list;
    }
    held.head.list.next = &held.locks[0].list;
    held.head.futex_offset = offsetof(struct lock, word);
    held.head.list_op_pending = NULL;
    if (second)
        held.locks[0].list.next = second;
    set((unsigned long)&held.head, sizeof held.head);
    syscall(SYS_exit, 0);
    return NULL;
}

/* How many locks are marked when a thread has ended. */
static int marked(void *second)
{
    pthread_t thread;
    need("pthread_create", -pthread_create(&thread, NULL, holder, second));
    pthread_join(thread, NULL);
    int count = 0;
    for (int i = 0; i < 4; i++)
        count += held.locks[i].word == FUTEX_OWNER_DIED;
    return count;
}

static void at_the_end(void)
{
    same_number("locks of a good list", marked(NULL), 4);
    same_number("of one that goes nowhere", marked((void *)16), 1);
    same_number("of one that ends early", marked(&held.head.list), 1);
    same_number("of one that leaves what a program can have", marked((void *)0xffff800000000000), 1);
    same_number("of one that does not end", marked(&held.locks[0].list), 1);
}

int main(void)
{
    given_back();
    at_the_end();
    return result();
}
