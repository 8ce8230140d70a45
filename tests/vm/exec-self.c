/* The program's own file: /proc/self/exe, also when it was deleted, replaced, or never had a name. */
#include "check.h"

static int same_file(const char *a, const char *b)
{
    struct stat first, second;
    return stat(a, &first) == 0 && stat(b, &second) == 0 && first.st_ino == second.st_ino &&
           first.st_dev == second.st_dev;
}

/* Executes /proc/self/exe, with a word that says what to do there. */
static void again(const char *what, const char *word)
{
    pid_t pid = start();
    if (pid == 0) {
        char *arguments[] = {"name", (char *)word, NULL};
        execve("/proc/self/exe", arguments, environ);
        not_executed();
    }
    same_number(what, ended(what, pid), 42);
}

static int child(const char *word)
{
    char path[4096], text[4200];
    if (strcmp(word, "end") == 0)
        return 42;
    getcwd(path, sizeof path);
    snprintf(text, sizeof text, "%s/program", path);
    if (strcmp(word, "deleted") == 0) {
        same("/proc/self/exe", self(), text);
        check(same_file("/proc/self/exe", "program"), "it leads to the file");
        need("unlink", unlink("program"));
        strcat(text, " (deleted)");
        same("/proc/self/exe when deleted", self(), text);
        again("executed again", "end");
        /* Something else of that name is not the program. */
        put("program", "#!/nonexistent\n", 15, 0755);
        again("executed again beside another of its name", "end");
    } else if (strcmp(word, "memory") == 0) {
        same("/proc/self/exe", self(), "/memfd:runc (deleted)");
        again("executed again", "end");
    }
    int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    char magic[4] = "";
    check(fd >= 0 && read(fd, magic, 4) == 4 && memcmp(magic, "\177ELF", 4) == 0, "it can be read");
    Elf64_Ehdr header;
    pread(fd, &header, sizeof header, 0);
#ifdef __x86_64__
    same_number("e_machine", header.e_machine, EM_X86_64);
#else
    same_number("e_machine", header.e_machine, EM_AARCH64);
#endif
    snprintf(text, sizeof text, "/proc/self/fd/%d", fd);
    check(same_file("/proc/self/exe", text), "stat and open agree");
    if (strcmp(word, "memory") == 0) {
        int seals = fcntl(fd, F_GET_SEALS);
        same_number("its seals", seals, F_SEAL_WRITE | F_SEAL_SEAL);
    }
    snprintf(text, sizeof text, "/proc/%d/exe", getpid());
    check(same_file("/proc/self/exe", text), "/proc/PID/exe is the same");
    check(same_file("/proc/self/exe", "/proc/thread-self/exe"), "/proc/thread-self/exe is the same");
    close(fd);
    return failures ? 1 : 42;
}

int main(int argc, char **argv)
{
    if (argc > 1 && argv[1][0] != '/')
        return child(argv[1]);
    char path[4096];
    strcpy(path, self());
    workplace();
    copy(path, "program", 0755);
    pid_t pid = start();
    if (pid == 0) {
        char *arguments[] = {"name", "deleted", NULL};
        execve("./program", arguments, environ);
        not_executed();
    }
    same_number("a program that is deleted", ended("deleted", pid), 42);

    /* As runc does it: a sealed copy in memory. */
    int fd = need("memfd_create", memfd_create("runc", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    int in = need("open", open(path, O_RDONLY | O_CLOEXEC));
    struct stat stat;
    fstat(in, &stat);
    void *bytes = mmap(NULL, stat.st_size, PROT_READ, MAP_PRIVATE, in, 0);
    need("write", write(fd, bytes, stat.st_size));
    need("seals", fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SEAL));
    pid = start();
    if (pid == 0) {
        char *arguments[] = {"name", "memory", NULL};
        syscall(SYS_execveat, fd, "", arguments, environ, AT_EMPTY_PATH);
        not_executed();
    }
    same_number("a program in memory", ended("memory", pid), 42);
    return result();
}
