/* What is no program, or may not be executed now. */
#include "check.h"

/* The exit status, or the error's name. */
static const char *outcome(const char *path)
{
    static char text[64];
    pid_t pid = start();
    if (pid == 0) {
        int null = open("/dev/null", O_WRONLY);
        dup2(null, 2);
        close(null);
        char *arguments[] = {"name", "child", NULL};
        execve(path, arguments, environ);
        not_executed();
    }
    int status = ended(path, pid);
    if (status >= NOT_EXECUTED)
        return strerrorname_np(status - NOT_EXECUTED);
    snprintf(text, sizeof text, "status %d", status);
    return text;
}

/* What an error is called; "0" without one. */
static const char *error_of(int result)
{
    return result < 0 ? strerrorname_np(errno) : "0";
}

static const char *writing(const char *path)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    const char *error = error_of(fd);
    close(fd);
    return error;
}

/* Programs of this processor that are none, and what execve says of them. */
static void malformed(void)
{
    struct {
        Elf64_Ehdr header;
        Elf64_Phdr interpreter, segment;
        char path[32];
    } file, good = {
        .segment = {.p_type = PT_LOAD, .p_flags = PF_R | PF_X, .p_vaddr = 0x500000, .p_filesz = sizeof file,
                    .p_memsz = sizeof file, .p_align = 4096},
        .interpreter = {.p_type = PT_INTERP, .p_flags = PF_R, .p_filesz = sizeof file.path,
                        .p_memsz = sizeof file.path, .p_offset = (char *)file.path - (char *)&file},
    };
    int in = need("open", open("program", O_RDONLY | O_CLOEXEC));
    need("read", read(in, &good.header, sizeof good.header));
    close(in);
    good.header.e_type = ET_EXEC;
    good.header.e_entry = 0x500000;
    good.header.e_phoff = sizeof good.header;
    good.header.e_phnum = 2;
    put("short", "no program", 10, 0755);
    char text[2 * sizeof(Elf64_Ehdr)];
    memset(text, 'x', sizeof text);
    put("long", text, sizeof text, 0755);
    mkdir("folder", 0755);

#define CASE(what, error, length, change) \
    file = good;                          \
    change;                               \
    put("malformed", &file, length, 0755); \
    same(what, outcome("./malformed"), error)
#define FIELD(what, field, value) CASE(what, "ENOEXEC", sizeof file, file.field = (value))
#define INTERPRETER(name, error) CASE("the interpreter " name, error, sizeof file, strcpy(file.path, name))

    CASE("a part of a header", "ENOEXEC", 32, );
    CASE("a header and no more", "ENOEXEC", sizeof file.header, );
    CASE("a part of the program headers", "ENOEXEC", sizeof file.header + 100, );
    FIELD("program headers of another size", header.e_phentsize, 1);
    FIELD("no program headers", header.e_phnum, 0);
    FIELD("more program headers than 64 KiB", header.e_phnum, 2000);
    FIELD("program headers behind the end", header.e_phoff, 1 << 20);
    FIELD("program headers at a negative offset", header.e_phoff, ~0UL - 64);
    FIELD("a file to be linked", header.e_type, ET_REL);
    FIELD("a memory dump", header.e_type, ET_CORE);
    FIELD("a program for another processor", header.e_machine, EM_S390);
    FIELD("an interpreter's path of one byte", interpreter.p_filesz, 1);
    FIELD("an interpreter's path that is too long", interpreter.p_filesz, 4097);
    CASE("an interpreter's path that is cut off", "EIO", sizeof file - 1, );
    CASE("an interpreter's path behind the end", "EIO", sizeof file, file.interpreter.p_offset = 1 << 20);
    CASE("an interpreter's path at a negative offset", "EINVAL", sizeof file, file.interpreter.p_offset = ~0UL - 64);
    CASE("an interpreter's path without an end", "ENOEXEC", sizeof file,
         memset(file.path, 'x', sizeof file.path));
    INTERPRETER("/nonexistent", "ENOENT");
    INTERPRETER("folder", "EACCES");
    INTERPRETER("plain", "EACCES");
    INTERPRETER("short", "EIO");
    INTERPRETER("long", "ELIBBAD");

    /* And the same by way of a script. */
    file = good;
    file.header.e_phnum = 0;
    put("malformed", &file, sizeof file, 0755);
    put("script", "#!./malformed\n", 14, 0755);
    same("a script for a malformed program", outcome("./script"), "ENOEXEC");

#ifdef __aarch64__
    /* The kernel gives any other caller's file to the translator, which can only end. */
    CASE("a malformed x86_64 program", "status 126", sizeof file,
         file.header.e_machine = EM_X86_64; file.header.e_phnum = 0);
    CASE("an x86_64 program without its interpreter", "status 127", sizeof file,
         file.header.e_machine = EM_X86_64; strcpy(file.path, "/nonexistent"));
#endif
}

/* A program that runs cannot be written to, and is what /proc/PID/exe leads to; also one that has another root. */
static void busy(const char *root)
{
    int here = need("open", open(".", O_PATH | O_CLOEXEC));
    need("chdir", chdir(root));
    int ends[2];
    need("pipe", pipe(ends));
    pid_t pid = start();
    if (pid == 0) {
        if (strcmp(root, ".") != 0)
            need("chroot", chroot("."));
        close(ends[1]);
        dup2(ends[0], 0);
        char *arguments[] = {"name", "read", NULL};
        execve("./program", arguments, environ);
        not_executed();
    }
    close(ends[0]);
    char path[64], has[4096] = "";
    snprintf(path, sizeof path, "/proc/%d/cmdline", pid);
    while (strcmp(has, "name") != 0)
        read_file(path, has, sizeof has);
    struct stat program, executable;
    need("stat", stat("program", &program));
    snprintf(path, sizeof path, "/proc/%d/exe", pid);
    need(path, stat(path, &executable));
    check(program.st_dev == executable.st_dev && program.st_ino == executable.st_ino,
          "/proc/PID/exe leads to the running program");
    same("a running program, opened for writing", writing("program"), "ETXTBSY");
    same("truncated", error_of(truncate("program", 0)), "ETXTBSY");
    rename("program", "renamed");
    same("by another name", writing("renamed"), "ETXTBSY");
    rename("renamed", "program");
    close(ends[1]);
    same_number("the running program", ended("read", pid), 42);
    same("the program when it has ended", writing("program"), "0");
    need("fchdir", fchdir(here));
    close(here);
}

/* A root directory in which no other file of the translator's can be reached, but for /proc. */
static void busy_in_another_root(void)
{
    mkdir("root", 0755);
    mkdir("root/proc", 0755);
    copy("program", "root/program", 0755);
    need("mount", mount("proc", "root/proc", "proc", 0, NULL));
    busy("root");
    umount("root/proc");
}

/* A copy that a process has of itself is busy too; and what has executed another program is not. */
static void busy_over_fork(const char *path)
{
    copy(path, "forking", 0755);
    pid_t pid = start();
    if (pid == 0) {
        char *arguments[] = {"name", "fork", NULL};
        execve("./forking", arguments, environ);
        not_executed();
    }
    same_number("a program that forks", ended("fork", pid), 42);
    same("the program when all have ended", writing("forking"), "0");
}

static int forking(void)
{
    same("this program", writing("forking"), "ETXTBSY");
    pid_t pid = start();
    if (pid == 0) {
        same("in a child", writing("forking"), "ETXTBSY");
        unlink("other");
        copy("forking", "other", 0755);
        char *arguments[] = {"name", "other", NULL};
        execve("./other", arguments, environ);
        not_executed();
    }
    same_number("another program", ended("other", pid), 42);
    return failures ? 1 : 42;
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "child") == 0)
        return 42;
    if (argc > 1 && strcmp(argv[1], "read") == 0)
        return read(0, argv[0], 1) == 0 ? 42 : 1;
    if (argc > 1 && strcmp(argv[1], "fork") == 0)
        return forking();
    if (argc > 1 && strcmp(argv[1], "other") == 0) {
        same("the parent's program", writing("forking"), "ETXTBSY");
        same("this one", writing("other"), "ETXTBSY");
        return failures ? 1 : 42;
    }
    char path[4096];
    strcpy(path, self());
    workplace();
    copy(path, "program", 0755);
    same("a program", outcome("./program"), "status 42");

    /* Open for writing. */
    int fd = need("open", open("program", O_WRONLY | O_CLOEXEC));
    same("a program that is being written", outcome("./program"), "ETXTBSY");
    close(fd);
    same("a program that was written", outcome("./program"), "status 42");

    same("what is not there", outcome("./nothing"), "ENOENT");
    same("a folder", outcome("."), "EACCES");
    same("below a file", outcome("./program/x"), "ENOTDIR");
    copy(path, "plain", 0644);
    same("no permission", outcome("./plain"), "EACCES");
    put("empty", "", 0, 0755);
    same("an empty file", outcome("./empty"), "ENOEXEC");
    put("text", "hello\n", 6, 0755);
    same("text", outcome("./text"), "ENOEXEC");
    mkdir("mounted", 0755);
    if (mount("none", "mounted", "tmpfs", MS_NOEXEC, NULL) == 0) {
        copy(path, "mounted/program", 0755);
        same("a mount with noexec", outcome("mounted/program"), "EACCES");
        umount("mounted");
    }
    char long_name[5000];
    memset(long_name, 'x', sizeof long_name - 1);
    long_name[sizeof long_name - 1] = 0;
    same("a name that is too long", outcome(long_name), "ENAMETOOLONG");

    malformed();
    busy(".");
    busy_in_another_root();
    busy_over_fork(path);

    /* And this process is still the one that it was. */
    check(access("program", X_OK) == 0, "goes on after all that");
    return result();
}
