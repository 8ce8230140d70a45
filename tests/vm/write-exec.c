/* Memory that does not become executable: what was writable (PR_SET_MDWE), and files that are not to be executed. */
#include "check.h"
#include <sys/ipc.h>
#include <sys/personality.h>
#include <sys/shm.h>

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

/* Files of a mount with `noexec`, and shared memory that nobody may execute. */
static void nothing_executable(void)
{
    workplace();
    need("mkdir", mkdir("mounted", 0755));
    need("mount", mount("none", "mounted", "tmpfs", MS_NOEXEC, NULL));
    int fd = need("open", open("mounted/file", O_RDWR | O_CREAT, 0755));
    need("ftruncate", ftruncate(fd, 65536));
    same_number("mmap of a file", error((long)mmap(NULL, 65536, RX, MAP_PRIVATE, fd, 0)), EPERM);
    char *mapped = mmap(NULL, 65536, RW, MAP_SHARED, fd, 0);
    need("mmap", mapped == MAP_FAILED ? -1 : 0);
    same_number("mprotect of a file", error(mprotect(mapped, 65536, RX)), EACCES);
    mapped[5] = 1;
    need("personality", personality(READ_IMPLIES_EXEC));
    same_number("mprotect for reading", error(mprotect(mapped, 65536, PROT_READ)), 0);
    need("personality", personality(PER_LINUX));
    need("umount", umount2("mounted", MNT_DETACH));
    close(fd);

    int plain = need("shmget", shmget(IPC_PRIVATE, 65536, IPC_CREAT | 0666));
    int executable = need("shmget", shmget(IPC_PRIVATE, 65536, IPC_CREAT | 0777));
    pid_t pid = start();
    if (pid == 0) {
        failures = 0;
        need("setuid", setuid(1000));
        same_number("shmat with SHM_EXEC", error((long)shmat(plain, NULL, SHM_EXEC)), EACCES);
        same_number("shmat of what may be", error((long)shmat(executable, NULL, SHM_EXEC)), 0);
        _exit(result());
    }
    all_well("shared memory", pid);
    shmctl(plain, IPC_RMID, NULL);
    shmctl(executable, IPC_RMID, NULL);
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
    nothing_executable();
    return result();
}
