/* What a program takes from itself, keeps for itself, and lets others do. */
#include "check.h"
#include <linux/keyctl.h>
#include <linux/landlock.h>
#include <linux/ptrace.h>
#include <stdint.h>

static int error(long result)
{
    return result == -1 ? errno : 0;
}

/* Files may be read and executed below one folder only; what is executed has no more rights. */
static void landlocked(void)
{
    uint64_t every = LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE;
    struct landlock_ruleset_attr attr = {.handled_access_fs = every};
    long version = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    if (version < 0) {
        check(errno == ENOSYS || errno == EOPNOTSUPP, "landlock is not there: %s", strerror(errno));
        return;
    }
    int rules = need("landlock_create_ruleset", syscall(SYS_landlock_create_ruleset, &attr, sizeof attr.handled_access_fs, 0));
    struct landlock_path_beneath_attr beneath = {every & ~LANDLOCK_ACCESS_FS_WRITE_FILE, open("allowed", O_PATH)};
    need("landlock_add_rule", syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &beneath, 0));
    /* As a program's loader does: without it nothing can be executed. */
    struct landlock_path_beneath_attr system = {every & ~LANDLOCK_ACCESS_FS_WRITE_FILE, open("/usr", O_PATH)};
    need("landlock_add_rule", syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &system, 0));
    need("no_new_privs", prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    need("landlock_restrict_self", syscall(SYS_landlock_restrict_self, rules, 0));
    same_number("reading what is allowed", error(open("allowed/file", O_RDONLY)), 0);
    same_number("writing it", error(open("allowed/file", O_WRONLY)), EACCES);
    same_number("reading something else", error(open("other", O_RDONLY)), EACCES);
    fflush(stdout);
    execl("allowed/self", "rights", "confined", NULL);
    not_executed();
}

static int confined(void)
{
    same_number("reading what is allowed", error(open("allowed/file", O_RDONLY)), 0);
    same_number("reading something else", error(open("other", O_RDONLY)), EACCES);
    return result();
}

static void keys(void)
{
    char text[100] = "";
    int ring = KEY_SPEC_PROCESS_KEYRING;
    long key = syscall(SYS_add_key, "user", "demotic:rights", "secret", 6L, ring);
    if (key < 0) {
        same_number("a kernel without keys", errno, ENOSYS);
        return;
    }
    same_number("request_key", syscall(SYS_request_key, "user", "demotic:rights", NULL, 0), key);
    same_number("KEYCTL_READ", syscall(SYS_keyctl, KEYCTL_READ, key, text, 100L, 0), 6);
    same("what it is", text, "secret");
    same_number("KEYCTL_UPDATE", syscall(SYS_keyctl, KEYCTL_UPDATE, key, "other", 5L, 0), 0);
    memset(text, 0, sizeof text);
    same_number("KEYCTL_READ", syscall(SYS_keyctl, KEYCTL_READ, key, text, 100L, 0), 5);
    same("what it is", text, "other");
    need("KEYCTL_DESCRIBE", syscall(SYS_keyctl, KEYCTL_DESCRIBE, key, text, 100L, 0));
    check(strncmp(text, "user;", 5) == 0, "described as «%s»", text);
    need("KEYCTL_REVOKE", syscall(SYS_keyctl, KEYCTL_REVOKE, key));
    same_number("KEYCTL_READ", error(syscall(SYS_keyctl, KEYCTL_READ, key, text, 100L, 0)), EKEYREVOKED);
}

/* A translated program is not traced, and says so. */
static void traced(void)
{
#ifdef __x86_64__
    const int wanted = EPERM;
#else
    const int wanted = 0;
#endif
    need("PR_SET_PTRACER", prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0) < 0 && errno != EINVAL ? -1 : 0);
    need("PR_SET_DUMPABLE", prctl(PR_SET_DUMPABLE, 0, 0, 0, 0));
    same_number("PR_GET_DUMPABLE", prctl(PR_GET_DUMPABLE, 0, 0, 0, 0), 0);
    need("PR_SET_DUMPABLE", prctl(PR_SET_DUMPABLE, 1, 0, 0, 0));
    pid_t pid = start();
    if (pid == 0) {
        pause();
        _exit(0);
    }
    same_number("PTRACE_SEIZE", error(syscall(SYS_ptrace, PTRACE_SEIZE, pid, 0, 0)), wanted);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, __WALL);
    pid = start();
    if (pid == 0)
        _exit(error(syscall(SYS_ptrace, PTRACE_TRACEME, 0, 0, 0)));
    same_number("PTRACE_TRACEME", ended("a child", pid), wanted);
}

int main(int argc, char **argv)
{
    (void)argv;
    if (argc > 1)
        return confined();
    const char *own = self();
    workplace();
    need("mkdir", mkdir("allowed", 0755));
    copy(own, "allowed/self", 0755);
    put("allowed/file", "x", 1, 0666);
    put("other", "x", 1, 0666);
    keys();
    traced();
    pid_t pid = start();
    if (pid == 0) {
        landlocked();
        _exit(result());
    }
    all_well("a program with landlock", pid);
    return result();
}
