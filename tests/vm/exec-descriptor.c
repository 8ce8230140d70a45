/* Programs executed by descriptor: fexecve, execveat, memfd, with and without close-on-exec. */
#include "check.h"

static int child(int argc, char **argv)
{
    same("argv[0]", argv[0], "name");
    same_number("argc", argc, 5);
    const char *execfn = (char *)getauxval(AT_EXECFN);
    if (argv[2][0] == '/')
        same("AT_EXECFN", execfn, argv[2]);
    same_number("descriptors from 3 on", open_descriptors(), atoi(argv[3]));
    char comm[32];
    ssize_t n = read_file("/proc/self/comm", comm, sizeof comm);
    comm[n ? n - 1 : 0] = 0;
    same("comm", comm, argv[4]);
    return result();
}

/* `left`: descriptors that stay open; `comm`: what the process is called, which is the file's own name where the path
 * is empty (Linux 6.14). */
static void execute(const char *what, int fd, const char *path, int flags, const char *execfn, int left,
                    const char *comm)
{
    pid_t pid = start();
    if (pid == 0) {
        char count[16];
        snprintf(count, sizeof count, "%d", left);
        char *arguments[] = {"name", "child", (char *)execfn, count, (char *)comm, NULL};
        char *environment[] = {NULL};
        syscall(SYS_execveat, fd, path, arguments, environment, flags);
        not_executed();
    }
    all_well(what, pid);
}

static int memory_file(const char *path, unsigned flags)
{
    int in = need("open", open(path, O_RDONLY | O_CLOEXEC));
    int out = need("memfd_create", memfd_create("program", flags));
    struct stat stat;
    fstat(in, &stat);
    void *bytes = mmap(NULL, stat.st_size, PROT_READ, MAP_PRIVATE, in, 0);
    need("write", write(out, bytes, stat.st_size) == stat.st_size ? 0 : -1);
    munmap(bytes, stat.st_size);
    close(in);
    return out;
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "child") == 0)
        return child(argc, argv);
    char path[4096], name[64];
    strcpy(path, self());
    const char *folder = workplace();
    copy(path, "program", 0755);

    /* Closed on exec: the program does not see it. */
    int fd = need("open", open("program", O_RDONLY | O_CLOEXEC));
    snprintf(name, sizeof name, "/dev/fd/%d", fd);
    execute("fexecve, close-on-exec", fd, "", AT_EMPTY_PATH, name, 0, "program");
    fcntl(fd, F_SETFD, 0);
    execute("fexecve, open over exec", fd, "", AT_EMPTY_PATH, name, 1, "program");
    close(fd);

    fd = need("open", open("program", O_PATH | O_CLOEXEC));
    execute("fexecve of an O_PATH descriptor", fd, "", AT_EMPTY_PATH, "", 0, "program");
    close(fd);

    fd = need("open", open(".", O_PATH | O_DIRECTORY | O_CLOEXEC));
    snprintf(name, sizeof name, "/dev/fd/%d/program", fd);
    execute("execveat below a folder, close-on-exec", fd, "program", 0, name, 0, "program");
    fcntl(fd, F_SETFD, 0);
    execute("execveat below a folder", fd, "program", 0, name, 1, "program");
    close(fd);
    snprintf(name, sizeof name, "%s/program", folder);
    execute("execveat, absolute path", -1, name, 0, name, 0, "program");
    execute("execveat, relative path", AT_FDCWD, "./program", 0, "./program", 0, "program");
    symlink("program", "link");
    execute("execveat of a link", AT_FDCWD, "link", 0, "link", 0, "link");

    fd = memory_file(path, MFD_CLOEXEC);
    execute("memfd, close-on-exec", fd, "", AT_EMPTY_PATH, "", 0, "memfd:program");
    close(fd);
    fd = memory_file(path, 0);
    execute("memfd", fd, "", AT_EMPTY_PATH, "", 1, "memfd:program");
    close(fd);
    fd = memory_file(path, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL);
    execute("sealed memfd", fd, "", AT_EMPTY_PATH, "", 0, "memfd:program");
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    execute("memfd by its name in /proc", AT_FDCWD, name, 0, name, 0, file_name(name));
    close(fd);

    fd = need("open", open("program", O_RDONLY | O_CLOEXEC));
    unlink("program");
    execute("a deleted program", fd, "", AT_EMPTY_PATH, "", 0, "program");
    close(fd);

    /* The kernel's own errors. */
    struct {
        const char *what;
        int fd, flags, error;
        const char *path;
    } wrong[] = {
        {"an empty path without AT_EMPTY_PATH", AT_FDCWD, 0, ENOENT, ""},
        {"a closed descriptor", 77, AT_EMPTY_PATH, EBADF, ""},
        {"a relative path below a closed descriptor", 77, 0, EBADF, "x"},
        {"a link that is not to be followed", AT_FDCWD, AT_SYMLINK_NOFOLLOW, ELOOP, "link"},
        {"unknown flags", AT_FDCWD, 0x4000, EINVAL, "link"},
        {"the current folder", AT_FDCWD, 0, EACCES, "."},
    };
    for (int i = 0; i < 6; i++) {
        char *arguments[] = {"x", NULL};
        errno = 0;
        syscall(SYS_execveat, wrong[i].fd, wrong[i].path, arguments, environ, wrong[i].flags);
        same(wrong[i].what, strerrorname_np(errno), strerrorname_np(wrong[i].error));
    }
    return result();
}
