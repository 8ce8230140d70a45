/* A system call with a number that is newer than all tables: its arguments reach the kernel untouched. A filter of the
 * kernel's says so, installed by an arm64 program before it executes this one; the argument is the other processor's
 * build. */
#include "check.h"
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>

#define NUMBER 500
static const unsigned long arguments[6] = {1, 0x1234567887654321, 1UL << 47, 0xffff7fffffffffff, 0xaaaadeadbeef0000, -1UL};

enum { UNTOUCHED = 77, OTHERS = 78 };

/* The number fails with one error or the other, as its arguments are. */
static void install(void)
{
    enum { ARGUMENTS = 12 };
    struct sock_filter list[2 + 2 * ARGUMENTS + 3] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, NUMBER, 0, 2 * ARGUMENTS + 2),
    };
    for (int i = 0; i < ARGUMENTS; i++) {
        unsigned half = arguments[i / 2] >> (i % 2 * 32);
        struct sock_filter load = BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args) + 4 * i);
        struct sock_filter jump = BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, half, 0, 2 * (ARGUMENTS - 1 - i) + 1);
        list[2 + 2 * i] = load;
        list[3 + 2 * i] = jump;
    }
    struct sock_filter ends[3] = {
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | UNTOUCHED),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | OTHERS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    memcpy(list + 2 + 2 * ARGUMENTS, ends, sizeof ends);
    struct sock_fprog program = {sizeof list / sizeof *list, list};
    need("filter", syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program));
}

static int error_of(const unsigned long *with)
{
    return syscall(NUMBER, with[0], with[1], with[2], with[3], with[4], with[5]) == -1 ? errno : 0;
}

static int filtered(void)
{
    same_number("with the arguments that the filter knows", error_of(arguments), UNTOUCHED);
    for (int i = 0; i < 6; i++) {
        unsigned long others[6];
        memcpy(others, arguments, sizeof others);
        others[i] ^= 1UL << (7 * i + 20);
        same_number("with another one", error_of(others), OTHERS);
    }
    return result();
}

int main(int argc, char **argv)
{
    if (argc > 2 && strcmp(argv[1], "filtered") == 0)
        return filtered();
    if (argc > 2) {
        install();
        execl(argv[2], argv[2], "filtered", "", NULL);
        not_executed();
    }
    same_number("the error without a filter", error_of(arguments), ENOSYS);
    pid_t pid = start();
    if (pid == 0) {
#ifdef __x86_64__
        const char *installer = argv[1];
#else
        const char *installer = self();
#endif
        char own[4096];
        strcpy(own, self());
        execl(installer, installer, "install", own, NULL);
        not_executed();
    }
    all_well("a filter that an arm64 program installed", pid);
    return result();
}
