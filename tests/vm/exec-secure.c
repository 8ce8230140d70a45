/* Setuid programs, and programs that their user may execute and not read. */
#include "check.h"

static const char *const environment[] = {
    "DEMOTIC_OPTIONS=--strace --no-such-option", "A=1", "LIBRARY=LD_LIBRARY_PATH", "=", "Z=", NULL,
};

static int child(char **argv)
{
    int uid = atoi(argv[2]), euid = atoi(argv[3]), gid = atoi(argv[4]), egid = atoi(argv[5]);
    uid_t ids[3];
    getresuid(&ids[0], &ids[1], &ids[2]);
    same_number("uid", ids[0], uid);
    same_number("euid", ids[1], euid);
    same_number("saved uid", ids[2], euid);
    getresgid(&ids[0], &ids[1], &ids[2]);
    same_number("gid", ids[0], gid);
    same_number("egid", ids[1], egid);
    same_number("AT_UID", getauxval(AT_UID), uid);
    same_number("AT_EUID", getauxval(AT_EUID), euid);
    same_number("AT_EGID", getauxval(AT_EGID), egid);
    int secure = uid != euid || gid != egid;
    same_number("AT_SECURE", getauxval(AT_SECURE), secure);
    /* The C library of a privileged program takes this one out; the kernel does not. */
    char text[4096] = "";
    read_file("/proc/self/environ", text, sizeof text);
    if (secure && euid == 0)
        same("the first of /proc/self/environ", text, "LD_LIBRARY_PATH=/x");
    int i = 0;
    for (; secure && environment[i] && environ[i]; i++)
        same("environ", environ[i], environment[i]);
    check(!secure || (environment[i] == NULL && environ[i] == NULL), "the environment is all there");
    same("argv[0]", argv[0], "-name");
    same_number("descriptors from 3 on", open_descriptors(), 0);
    if (secure)
        same_number("dumpable", prctl(PR_GET_DUMPABLE), 0);
    return result();
}

static void execute(const char *what, const char *path, const char *ids[4], int by_descriptor)
{
    pid_t pid = start();
    if (pid == 0) {
        int fd = by_descriptor ? need("open", open(path, O_PATH | O_CLOEXEC)) : -1;
        need("setresgid", setresgid(1000, 1000, 1000));
        need("setresuid", setresuid(1000, 1000, 1000));
        char *arguments[] = {"-name", "child", (char *)ids[0], (char *)ids[1], (char *)ids[2],
                             (char *)ids[3], NULL};
        char *plain[] = {"A=1", NULL};
        int secure = strcmp(ids[0], ids[1]) || strcmp(ids[2], ids[3]);
        char *all[8] = {"LD_LIBRARY_PATH=/x"};
        memcpy(all + 1, environment, sizeof environment);
        char **environ = secure ? all : plain;
        if (by_descriptor)
            syscall(SYS_execveat, fd, "", arguments, environ, AT_EMPTY_PATH);
        else
            execve(path, arguments, environ);
        not_executed();
    }
    all_well(what, pid);
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "child") == 0)
        return child(argv);
    char path[4096];
    strcpy(path, self());
    workplace();
    const char *plain[] = {"1000", "1000", "1000", "1000"};
    const char *user[] = {"1000", "0", "1000", "1000"};
    const char *group[] = {"1000", "1000", "1000", "0"};
    copy(path, "plain", 0755);
    execute("a plain program", "./plain", plain, 0);
    copy(path, "setuid", 04755);
    execute("a setuid program", "./setuid", user, 0);
    execute("a setuid program by descriptor", "./setuid", user, 1);
    copy(path, "setgid", 02755);
    execute("a setgid program", "./setgid", group, 0);
    copy(path, "unreadable", 0711);
    execute("a program that is not to be read", "./unreadable", plain, 0);
    copy(path, "both", 04711);
    execute("a setuid program that is not to be read", "./both", user, 0);

    /* no_new_privs takes the bit's effect away. */
    pid_t pid = start();
    if (pid == 0) {
        need("PR_SET_NO_NEW_PRIVS", prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
        execute("setuid with no_new_privs", "./setuid", plain, 0);
        _exit(failures != 0);
    }
    all_well("no_new_privs", pid);
    return result();
}
