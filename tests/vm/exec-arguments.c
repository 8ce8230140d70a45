/* What a program gets from execve: argv, environment, auxiliary vector, descriptors, its names in /proc. */
#include "check.h"

static const char *const words[] = {"", "--help", "-0", "a b", "--"};

static int child(int argc, char **argv)
{
    char buffer[4096], expected[4096];
    const char *path = argv[1];
    same("argv[0]", argv[0], "-any name");
    same_number("argc", argc, 7);
    for (int i = 0; i < 5 && i + 2 < argc; i++)
        same("an argument", argv[i + 2], words[i]);
    check(argv[argc] == NULL, "argv ends");

    same("environ[0]", environ[0], "=odd");
    same("environ[1]", environ[1], "no equals sign");
    same("environ[2]", environ[2], "A=1");
    same("environ[3]", environ[3], "A=2");
    same("environ[4]", environ[4], "LD_PRELOAD=/nonexistent");
    check(environ[5] == NULL, "environ ends");

    same("AT_EXECFN", (char *)getauxval(AT_EXECFN), path);
    same_number("AT_SECURE", getauxval(AT_SECURE), 0);
    same_number("AT_FLAGS", getauxval(AT_FLAGS), 0);
    same_number("AT_PAGESZ", getauxval(AT_PAGESZ), sysconf(_SC_PAGESIZE));
    errno = 0;
    check(getauxval(AT_EXECFD) == 0 && errno == ENOENT, "there is no AT_EXECFD");
#ifdef __x86_64__
    same("AT_PLATFORM", (char *)getauxval(AT_PLATFORM), "x86_64");
#endif
    const unsigned char *random = (void *)getauxval(AT_RANDOM);
    int set = 0;
    for (int i = 0; random && i < 16; i++)
        set |= random[i];
    check(set, "AT_RANDOM has bytes");
    same_number("descriptors from 3 on", open_descriptors(), 0);

    same("/proc/self/exe", self(), path);
    ssize_t n = read_file("/proc/self/cmdline", buffer, sizeof buffer);
    for (ssize_t i = 0; i + 1 < n; i++)
        buffer[i] = buffer[i] ? buffer[i] : '|';
    snprintf(expected, sizeof expected, "-any name|%s||--help|-0|a b|--", path);
    same("/proc/self/cmdline", buffer, expected);
    n = read_file("/proc/self/comm", buffer, sizeof buffer);
    buffer[n ? n - 1 : 0] = 0;
    snprintf(expected, 16, "%s", file_name(path));
    same("/proc/self/comm", buffer, expected);
    n = read_file("/proc/self/environ", buffer, sizeof buffer);
    check(n > 5 && memcmp(buffer, "=odd", 5) == 0, "/proc/self/environ is the environment");
    return result();
}

int main(int argc, char **argv)
{
    if (argc > 2)
        return child(argc, argv);
    if (argc == 1 && argv[0][0] == 0) {
        /* Executed with no argument, or with no environment, or with neither. */
        return environ[0] ? 10 : 11;
    }
    char path[4096];
    strcpy(path, self());
    close_range(3, ~0U, 0);
    pid_t pid = start();
    if (pid == 0) {
        char *arguments[] = {"-any name", path, "", "--help", "-0", "a b", "--", NULL};
        char *environment[] = {"=odd", "no equals sign", "A=1", "A=2", "LD_PRELOAD=/nonexistent", NULL};
        execve(path, arguments, environment);
        not_executed();
    }
    all_well("arguments", pid);

    char *nothing[] = {NULL}, *some[] = {"X=1", NULL};
    struct {
        const char *what;
        char **argv, **envp;
        int status;
    } empty[] = {
        {"argc 0", nothing, some, 10},
        {"argc 0 and no environment", nothing, nothing, 11},
        {"argv and envp are null", NULL, NULL, 11},
    };
    for (int i = 0; i < 3; i++) {
        pid = start();
        if (pid == 0) {
            syscall(SYS_execve, path, empty[i].argv, empty[i].envp);
            not_executed();
        }
        same_number(empty[i].what, ended(empty[i].what, pid), empty[i].status);
    }
    return result();
}
