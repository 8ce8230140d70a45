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
    if (status >= 200)
        return strerrorname_np(status - 200);
    snprintf(text, sizeof text, "status %d", status);
    return text;
}

/* A file that says it is a program of this processor, and is none. A native kernel answers with `error`; a
 * registered translator can only end the process, with status 126 or 127. */
static void malformed(const char *what, const char *path, const char *error, const char *status)
{
    const char *has = outcome(path);
    check(strcmp(has, error) == 0 || strcmp(has, status) == 0, "%s is not run", what);
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "child") == 0)
        return 42;
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

    /* ELF headers that lead nowhere. */
    Elf64_Ehdr header;
    int in = need("open", open(path, O_RDONLY | O_CLOEXEC));
    need("read", read(in, &header, sizeof header));
    close(in);
    put("e0", &header, 32, 0755);
    malformed("a part of a header", "./e0", "ENOEXEC", "status 126");
    put("e1", &header, sizeof header, 0755);
    malformed("a header without program headers", "./e1", "ENOEXEC", "status 126");
    Elf64_Ehdr bad = header;
    bad.e_phentsize = 1;
    put("e2", &bad, sizeof bad, 0755);
    malformed("program headers of an unknown size", "./e2", "ENOEXEC", "status 126");
    bad = header;
    bad.e_phoff = sizeof bad;
    bad.e_phnum = 2;
    bad.e_type = ET_EXEC;
    bad.e_entry = 0x500000;
    struct {
        Elf64_Ehdr header;
        Elf64_Phdr segments[2];
        char interpreter[32];
    } file = {
        .header = bad,
        .segments = {{.p_type = PT_INTERP, .p_flags = PF_R, .p_filesz = 32, .p_memsz = 32,
                      .p_offset = sizeof(Elf64_Ehdr) + 2 * sizeof(Elf64_Phdr)},
                     {.p_type = PT_LOAD, .p_flags = PF_R, .p_vaddr = 0x500000, .p_filesz = 200,
                      .p_memsz = 200, .p_align = 4096}},
        .interpreter = "/nonexistent/interpreter",
    };
    put("e3", &file, sizeof file, 0755);
    malformed("a program without its interpreter", "./e3", "ENOENT", "status 127");

    /* And this process is still the one that it was. */
    check(access("program", X_OK) == 0, "goes on after all that");
    return result();
}
