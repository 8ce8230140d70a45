// execve(2) in the places where a translator may lose itself or the program: changed roots, no /proc, descriptors
// in place of names, interpreters of scripts, odd arguments; and every error that execve gives back.
//
// Called without arguments it is the test. With `show` it says what it was started with; with `again FILE` it
// executes that.
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static void show(char **argv) {
    char name[17] = "";
    prctl(PR_GET_NAME, name);
    printf("  %s as %s:", name, (char *)getauxval(AT_EXECFN));
    for (; *argv; argv++) printf(" [%.40s]", *argv);
    printf("\n  environment:");
    for (char **entry = environ; *entry; entry++) printf(" [%.40s]", *entry);
    printf("\n  descriptors:");
    for (int fd = 0; fd < 256; fd++)
        if (fcntl(fd, F_GETFD) >= 0) printf(" %d", fd);
    printf("\n  secure: %s, mask: ", getauxval(AT_SECURE) == (getuid() != geteuid()) ? "as the ids say" : "no");
    uint64_t mask = 0;
    syscall(SYS_rt_sigprocmask, 0, 0, &mask, 8);
    printf("%lx\n", (unsigned long)mask);
}

static char *const plain[] = {"name", "show", 0};
static char *const counted[] = {"name", "count", 0};
static char *const environment[] = {"A=1", "B=two words", 0};

// For what must not fail before the call that is tested.
#define MUST_NOT(failed) do { if (failed) _exit(98); } while (0)

// Runs the statements in a child and says how that ended.
#define CASE(title, ...) do { \
    printf("%s\n", title); \
    fflush(stdout); \
    pid_t child = fork(); \
    if (!child) { __VA_ARGS__; printf("  errno %d\n", errno); fflush(stdout); _exit(99); } \
    int status; \
    waitpid(child, &status, 0); \
    printf("  status %x\n", status); \
} while (0)

static int execat(int fd, const char *path, char *const *argv, int flags) {
    return syscall(SYS_execveat, fd, path, argv, environment, flags);
}

static void copy_to(int to, const char *from) {
    char buffer[65536];
    int fd = open(from, O_RDONLY);
    for (ssize_t n; (n = read(fd, buffer, sizeof buffer)) > 0;)
        if (write(to, buffer, n) != n) abort();
    close(fd);
}

static void copy(const char *from, const char *to) {
    int fd = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0755);
    copy_to(fd, from);
    close(fd);
}

static void text(const char *name, const char *content, size_t length, int mode) {
    int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0700);
    if (write(fd, content, length) != (ssize_t)length) abort();
    close(fd);
    chmod(name, mode);
}

static int memory_file(const char *name, const char *from, unsigned flags) {
    int fd = memfd_create(name, flags);
    copy_to(fd, from);
    return fd;
}

static void places(void) {
    mkdir("root", 0755);
    copy("exec", "root/in-chroot");
    copy("exec", "root/nested");
    text("root/script", "#!/in-chroot show -x\n", 21, 0755);
    mkdir("dir", 0755);
    copy("exec", "dir/relative");
    char *again[] = {"again", "again", "/nested", 0};
    CASE("in a root without the translator and without /proc",
        MUST_NOT(chroot("root") || chdir("/")); execve("/in-chroot", plain, environment));
    CASE("twice in such a root", MUST_NOT(chroot("root") || chdir("/")); execve("/in-chroot", again, environment));
    CASE("in such a root, from outside of it", MUST_NOT(chroot("root")); execve("dir/relative", plain, environment));
    CASE("a script in such a root", MUST_NOT(chroot("root") || chdir("/")); execve("script", plain, environment));
    CASE("in memory in such a root",
        int fd = memory_file("in-bare-memory", "exec", MFD_CLOEXEC);
        MUST_NOT(chroot("root") || chdir("/")); execat(fd, "", counted, AT_EMPTY_PATH));
    CASE("without /proc",
        MUST_NOT(unshare(CLONE_NEWNS) || mount("none", "/", 0, MS_REC | MS_PRIVATE, 0) || umount2("/proc", MNT_DETACH));
        execve("dir/relative", plain, environment));
    CASE("relative", execve("dir/relative", plain, environment));
    CASE("relative elsewhere", MUST_NOT(chdir("dir")); execve("relative", plain, environment));
    CASE("relative upwards", MUST_NOT(chdir("dir")); execve("../dir/./../dir/relative", plain, environment));
    CASE("in a folder that is gone",
        char here[4096]; MUST_NOT(!getcwd(here, sizeof here));
        strcat(here, "/dir/relative");
        mkdir("gone", 0755); MUST_NOT(chdir("gone") || rmdir("../gone"));
        execve(here, plain, environment));
    CASE("through a symbolic link", symlink("dir/relative", "link"); execve("link", plain, environment));
}

static void descriptors(void) {
    CASE("descriptors", open("exec", O_RDONLY); open("exec", O_RDONLY | O_CLOEXEC); dup2(1, 20); dup3(1, 30, O_CLOEXEC);
        execve("exec", plain, environment));
    CASE("all closed but output", for (int fd = 0; fd < 256; fd++) if (fd != 1) close(fd); execve("exec", plain, environment));
    CASE("few descriptors allowed", struct rlimit few; getrlimit(RLIMIT_NOFILE, &few); few.rlim_cur = 8;
        setrlimit(RLIMIT_NOFILE, &few); execve("exec", plain, environment));
    CASE("in memory", execat(memory_file("in-memory", "exec", 0), "", plain, AT_EMPTY_PATH));
    CASE("in memory, closed on exec", execat(memory_file("in-memory", "exec", MFD_CLOEXEC), "", plain, AT_EMPTY_PATH));
    CASE("an O_PATH descriptor", execat(open("exec", O_PATH | O_CLOEXEC), "", plain, AT_EMPTY_PATH));
    CASE("below a descriptor", execat(open("dir", O_PATH), "relative", plain, 0));
    CASE("below a descriptor, closed on exec", execat(open("dir", O_RDONLY | O_CLOEXEC), "relative", plain, 0));
    CASE("an absolute name and a bad descriptor", char here[4096]; MUST_NOT(!getcwd(here, sizeof here));
        execat(-7, strcat(here, "/exec"), plain, 0));
    CASE("/proc/self/exe", execve("/proc/self/exe", plain, environment));
    CASE("/proc/self/fd", char name[64]; int fd = open("exec", O_RDONLY); sprintf(name, "/proc/self/fd/%d", fd);
        execve(name, plain, environment));
}

static void scripts(void) {
    text("one", "#!./exec show  two words \n", 26, 0755);
    text("two", "#! one\n", 7, 0755);
    text("three", "#!\ttwo  x", 9, 0755);
    text("loop", "#!loop\n", 7, 0755);
    text("lost", "#!/nonexistent/interpreter\n", 27, 0755);
    text("nothing", "#!  \n", 5, 0755);
    text("folder", "#!/\n", 4, 0755);
    CASE("a script", execve("one", plain, environment));
    CASE("a script without arguments", char *none[] = {0}; execve("./one", none, environment));
    CASE("a script of a script", execve("two", plain, environment));
    CASE("three deep", execve("three", plain, environment));
    CASE("a script by descriptor", execat(open("one", O_RDONLY), "", plain, AT_EMPTY_PATH));
    CASE("a script by descriptor, closed on exec", execat(open("one", O_RDONLY | O_CLOEXEC), "", plain, AT_EMPTY_PATH));
    CASE("its own interpreter", execve("loop", plain, environment));
    CASE("an interpreter that is not there", execve("lost", plain, environment));
    CASE("an interpreter without a name", execve("nothing", plain, environment));
    CASE("an interpreter that is a folder", execve("folder", plain, environment));
}

static void arguments(void) {
    CASE("no environment", char *none[] = {0}; execve("exec", plain, none));
    CASE("a null environment", execve("exec", plain, 0));
    CASE("options as names", char *argv[] = {"--help", "show", "--version", "--", "", "-x", 0}; execve("exec", argv, environment));
    CASE("a login shell's name", char *argv[] = {"-sh", "show", 0}; execve("exec", argv, environment));
    CASE("an empty name", char *argv[] = {"", "show", "", 0}; execve("exec", argv, environment));
    CASE("bytes that are no text", char *argv[] = {"\xff\xfe\n", "show", "a\tb\x80", 0}; execve("exec", argv, environment));
    CASE("many arguments", static char *argv[3001]; for (int i = 0; i < 3000; i++) argv[i] = i == 1 ? "count" : "argument";
        execve("exec", argv, environment));
    CASE("long arguments", static char word[131072]; memset(word, 'x', sizeof word - 1);
        char *argv[] = {"name", "count", word, word, 0}; execve("exec", argv, environment));
}

// A copy of this program with one field of its header changed.
static void broken(const char *name, size_t offset, unsigned short value, size_t length) {
    copy("exec", name);
    int fd = open(name, O_RDWR);
    if (pwrite(fd, &value, 2, offset) != 2) abort();
    if (length && ftruncate(fd, length)) abort();
    close(fd);
}

// A copy of this program that names a dynamic linker, in place of its PT_GNU_STACK.
static void dynamic(const char *name, const char *linker) {
    copy("exec", name);
    int fd = open(name, O_RDWR);
    Elf64_Ehdr header;
    Elf64_Phdr segment = {0};
    if (pread(fd, &header, sizeof header, 0) != sizeof header) abort();
    off_t at = header.e_phoff;
    while (segment.p_type != PT_GNU_STACK) {
        if (pread(fd, &segment, sizeof segment, at) != sizeof segment) abort();
        at += sizeof segment;
    }
    segment.p_type = PT_INTERP;
    segment.p_offset = lseek(fd, 0, SEEK_END);
    segment.p_filesz = segment.p_memsz = strlen(linker) + 1;
    if (write(fd, linker, segment.p_filesz) != (ssize_t)segment.p_filesz) abort();
    if (pwrite(fd, &segment, sizeof segment, at - sizeof segment) != sizeof segment) abort();
    close(fd);
}

static void errors(void) {
    char long_text[100];
    memset(long_text, 'x', sizeof long_text);
    text("long-text", long_text, sizeof long_text, 0755);
    dynamic("orphan", "/nonexistent/linker");
    dynamic("adopted", "words");
    dynamic("adopted-too", "long-text");
    dynamic("misled", "dir");
    dynamic("refused", "forbidden");
    text("empty", "", 0, 0755);
    text("words", "echo plain\n", 11, 0755);
    text("forbidden", "#!/bin/sh\n", 10, 0644);
    broken("no-headers", offsetof(Elf64_Ehdr, e_phnum), 0, 0);
    broken("odd-headers", offsetof(Elf64_Ehdr, e_phentsize), 40, 0);
    broken("object", offsetof(Elf64_Ehdr, e_type), ET_REL, 0);
    broken("machine", offsetof(Elf64_Ehdr, e_machine), EM_SPARCV9, 0);
    broken("cut", 0, 0x457f, 64);
    CASE("ENOENT", execve("missing", plain, environment));
    CASE("no name", execve("", plain, environment));
    CASE("ENOTDIR", execve("exec/x", plain, environment));
    CASE("a folder", execve("dir", plain, environment));
    CASE("a device", execve("/dev/null", plain, environment));
    CASE("no permission", execve("forbidden", plain, environment));
    CASE("an empty file", execve("empty", plain, environment));
    CASE("text", execve("words", plain, environment));
    CASE("an ELF file without program headers", execve("no-headers", plain, environment));
    CASE("program headers of an odd size", execve("odd-headers", plain, environment));
    CASE("an object file", execve("object", plain, environment));
    CASE("a program of another machine", execve("machine", plain, environment));
    CASE("a program cut off behind its header", execve("cut", plain, environment));
    CASE("no dynamic linker", execve("orphan", plain, environment));
    CASE("a dynamic linker that is short text", execve("adopted", plain, environment));
    CASE("a dynamic linker that is text", execve("adopted-too", plain, environment));
    CASE("a dynamic linker that is a folder", execve("misled", plain, environment));
    CASE("a dynamic linker that may not be executed", execve("refused", plain, environment));
    CASE("a loop of links", symlink("ring", "ring"); execve("ring", plain, environment));
    CASE("a link not followed", execat(AT_FDCWD, "link", plain, AT_SYMLINK_NOFOLLOW));
    CASE("a bad descriptor", execat(77, "", plain, AT_EMPTY_PATH));
    CASE("a bad folder", execat(77, "x", plain, 0));
    CASE("a descriptor and no name", execat(1, "", plain, 0));
    CASE("unknown flags", execat(AT_FDCWD, "exec", plain, 0x10));
    CASE("a pipe", int ends[2]; MUST_NOT(pipe(ends)); execat(ends[0], "", plain, AT_EMPTY_PATH));
    CASE("a name that is too long", static char name[5000]; memset(name, 'x', 4999); execve(name, plain, environment));
    CASE("a name nowhere", execve((char *)8, plain, environment));
    CASE("arguments nowhere", execve("exec", (char **)8, environment));
    CASE("an argument nowhere", char *argv[] = {"name", (char *)8, 0}; execve("exec", argv, environment));
    CASE("an environment nowhere", execve("exec", plain, (char **)8));
    CASE("an argument that is too long", static char word[200000]; memset(word, 'x', sizeof word - 1);
        char *argv[] = {"name", "count", word, 0}; execve("exec", argv, environment));
    CASE("arguments that are too long", static char word[100000]; memset(word, 'x', sizeof word - 1);
        static char *argv[200]; argv[0] = "name"; for (int i = 1; i < 199; i++) argv[i] = word; execve("exec", argv, environment));
    CASE("open for writing", copy("exec", "busy"); open("busy", O_WRONLY); execve("busy", plain, environment));
    CASE("mounted noexec", mkdir("mounted", 0755);
        MUST_NOT(unshare(CLONE_NEWNS) || mount("none", "/", 0, MS_REC | MS_PRIVATE, 0) || mount("t", "mounted", "tmpfs", MS_NOEXEC, 0));
        copy("exec", "mounted/x"); execve("mounted/x", plain, environment));
    CASE("another user may not", copy("exec", "private"); chmod("private", 0700); MUST_NOT(setuid(65534));
        execve("private", plain, environment));
}

static void privileges(void) {
    copy("exec", "setuid");
    chmod("setuid", 04755);
    CASE("setuid, for its owner", execve("setuid", plain, environment));
    CASE("setuid, for another user", MUST_NOT(chmod(".", 0755) || setuid(65534)); execve("setuid", plain, environment));
    CASE("setuid, without new privileges", prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); MUST_NOT(setuid(65534));
        execve("setuid", plain, environment));
    CASE("signals", uint64_t mask = 1 << 9; syscall(SYS_rt_sigprocmask, 0, &mask, 0, 8); execve("exec", plain, environment));
}

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "count")) {
        size_t length = 0;
        for (char **word = argv; *word; word++) length += strlen(*word);
        printf("  %d arguments, %zu bytes\n", argc, length);
        return 5;
    }
    if (argc > 2 && !strcmp(argv[1], "again")) {
        execve(argv[2], plain, environment);
        return errno;
    }
    if (argc > 1) {
        show(argv);
        return 7;
    }
    places();
    descriptors();
    scripts();
    arguments();
    errors();
    privileges();
    return 0;
}
