/* `#!` scripts: their interpreter is this program. */
#include "check.h"

/* Prints its arguments, AT_EXECFN and name, which the parent reads. */
static int child(int argc, char **argv)
{
    char comm[32];
    ssize_t n = read_file("/proc/self/comm", comm, sizeof comm);
    comm[n ? n - 1 : 0] = 0;
    for (int i = 1; i < argc; i++)
        printf("%s|", argv[i]);
    printf("%s|%s", (char *)getauxval(AT_EXECFN), comm);
    return 0;
}

static void executes(const char *what, const char *path, const char *expected)
{
    int ends[2];
    char text[4096] = "";
    need("pipe", pipe2(ends, O_CLOEXEC));
    pid_t pid = start();
    if (pid == 0) {
        dup2(ends[1], 1);
        char *arguments[] = {"zero", "one", "two", NULL};
        execve(path, arguments, environ);
        not_executed();
    }
    close(ends[1]);
    size_t have = 0;
    ssize_t n;
    while ((n = read(ends[0], text + have, sizeof text - 1 - have)) > 0)
        have += n;
    close(ends[0]);
    int status = ended(what, pid);
    if (status >= NOT_EXECUTED)
        snprintf(text, sizeof text, "%s", strerrorname_np(status - NOT_EXECUTED));
    same(what, text, expected);
}

static void script(const char *path, const char *line)
{
    put(path, line, strlen(line), 0755);
}

int main(int argc, char **argv)
{
    if (argc > 1 && strncmp(argv[1], "child", 5) == 0)
        return child(argc, argv);
    char path[4096], line[8192];
    strcpy(path, self());
    workplace();
    copy(path, "p", 0755);
    getcwd(path, sizeof path);

    snprintf(line, sizeof line, "#!%s/p child\n", path);
    script("script", line);
    executes("one argument", "./script", "child|./script|one|two|./script|script");
    snprintf(line, sizeof line, "#! \t %s/p  child of -x  \t\nmore", path);
    script("s2", line);
    executes("an argument with blanks", "./s2", "child of -x|./s2|one|two|./s2|s2");
    snprintf(line, sizeof line, "#!%s/script of\n", path);
    script("s3", line);
    snprintf(line, sizeof line, "child|%s/script|of|./s3|one|two|./s3|s3", path);
    executes("a script of a script", "./s3", line);
    snprintf(line, sizeof line, "#!p child");
    script("s4", line);
    executes("a relative interpreter, and no end of line", "./s4", "child|./s4|one|two|./s4|s4");
    script("s5", "#!/nonexistent/interpreter\n");
    executes("a missing interpreter", "./s5", "ENOENT");
    script("s6", "#!\n");
    executes("no interpreter", "./s6", "ENOEXEC");
    script("s7", "#!./s7\n");
    executes("a script of itself", "./s7", "ELOOP");
    put("s8", "#!p child\n", 10, 0644);
    executes("a script without permission", "./s8", "EACCES");
    put("s9", "#!./s8\n", 7, 0755);
    executes("an interpreter without permission", "./s9", "EACCES");
    script("s10", "echo a script without an interpreter\n");
    executes("neither a program nor a script", "./s10", "ENOEXEC");

    /* Its descriptor is closed when the interpreter wants to open it. */
    int fd = need("open", open("script", O_RDONLY | O_CLOEXEC));
    char *arguments[] = {"zero", NULL};
    syscall(SYS_execveat, fd, "", arguments, environ, AT_EMPTY_PATH);
    same("a script by descriptor, close-on-exec", strerrorname_np(errno), "ENOENT");
    return result();
}
