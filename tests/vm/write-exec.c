/* PR_SET_MDWE: memory that was writable does not become executable. */
#include "check.h"

#ifndef PR_SET_MDWE
#define PR_SET_MDWE 65
#define PR_GET_MDWE 66
#endif
#define REFUSE_EXEC_GAIN 1
#define NO_INHERIT 2

#define RW (PROT_READ | PROT_WRITE)
#define RX (PROT_READ | PROT_EXEC)

static void *map(int prot)
{
    return mmap(NULL, 65536, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static int error(long result)
{
    return result == -1 ? errno : 0;
}

static void refused(int wanted)
{
    char *writable = map(RW), *executable = map(RX);
    same_number("mmap, writable and executable", error((long)map(RW | PROT_EXEC)), wanted);
    same_number("mprotect of writable memory", error(mprotect(writable, 65536, RX)), wanted);
    same_number("mprotect of executable memory", error(mprotect(executable, 65536, RX | PROT_WRITE)), wanted);
    same_number("mprotect that gains nothing", error(mprotect(executable, 65536, PROT_EXEC)), 0);
    same_number("mprotect that loses", error(mprotect(writable, 65536, PROT_READ)), 0);
    munmap(writable, 65536);
    munmap(executable, 65536);
}

static int executed(const char *flags, const char *wanted)
{
    same_number("PR_GET_MDWE of an executed program", prctl(PR_GET_MDWE, 0, 0, 0, 0), atoi(flags));
    refused(atoi(wanted));
    return result();
}

static void one(int flags)
{
    char kept[12], wanted[12];
    int is_kept = flags == REFUSE_EXEC_GAIN;
    pid_t pid = start();
    if (pid == 0) {
        need("PR_SET_MDWE", prctl(PR_SET_MDWE, flags, 0, 0, 0));
        same_number("PR_GET_MDWE", prctl(PR_GET_MDWE, 0, 0, 0, 0), flags);
        refused(EACCES);
        same_number("taken back", error(prctl(PR_SET_MDWE, 0, 0, 0, 0)), EPERM);
        same_number("set again", error(prctl(PR_SET_MDWE, flags, 0, 0, 0)), 0);
        pid = start();
        if (pid == 0) {
            same_number("PR_GET_MDWE of a forked child", prctl(PR_GET_MDWE, 0, 0, 0, 0), is_kept ? flags : 0);
            refused(is_kept ? EACCES : 0);
            _exit(result());
        }
        all_well("a forked child", pid);
        snprintf(kept, sizeof kept, "%d", is_kept ? flags : 0);
        snprintf(wanted, sizeof wanted, "%d", is_kept ? EACCES : 0);
        execl("/proc/self/exe", "write-exec", kept, wanted, NULL);
        not_executed();
    }
    all_well("a program without", pid);
}

int main(int argc, char **argv)
{
    if (argc > 2)
        return executed(argv[1], argv[2]);
    same_number("PR_GET_MDWE", prctl(PR_GET_MDWE, 0, 0, 0, 0), 0);
    same_number("an unknown flag", error(prctl(PR_SET_MDWE, 4, 0, 0, 0)), EINVAL);
    same_number("NO_INHERIT alone", error(prctl(PR_SET_MDWE, NO_INHERIT, 0, 0, 0)), EINVAL);
    same_number("another argument", error(prctl(PR_SET_MDWE, REFUSE_EXEC_GAIN, 1, 0, 0)), EINVAL);
    refused(0);
#ifdef __x86_64__
    same_number("for programs executed too", error(prctl(PR_SET_MDWE, REFUSE_EXEC_GAIN, 0, 0, 0)), EINVAL);
#else
    one(REFUSE_EXEC_GAIN);
#endif
    one(REFUSE_EXEC_GAIN | NO_INHERIT);
    return result();
}
