/* What other processes see of a program in /proc: its command line always, its file when privileges allow. And what it
 * sees of itself, in whatever way the path is spelled. The argument is a program of another architecture. */
#include "check.h"
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>

static const char NEEDLE[] = "needle-4711";

/* The command line that programs are started with here, as /proc shows it. */
static const char LINE[] = "./a subject\0subject\0needle-4711\0two words\0";

/* Compares what /proc says of a process: for the words `exe`, whose file it is; `padded`, nulls may follow. */
static int observe(pid_t pid, const char *exe, const char *how)
{
    char path[128], text[4096], wanted[64];
    struct stat program, file;
    snprintf(path, sizeof path, "/proc/%d/cmdline", pid);
    size_t size = read_file(path, text, sizeof text), known = sizeof LINE - 1;
    int padded = strcmp(how, "padded") == 0;
    for (size_t i = known; padded && i < size && !text[i]; i++)
        size = i + 1 == size ? known : size;
    check(size == known && memcmp(text, LINE, known) == 0, "cmdline: %zu bytes, «%s»", size, text);
    snprintf(path, sizeof path, "/proc/%d/comm", pid);
    read_file(path, text, sizeof text);
    same("comm", text, "a subject\n");
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    read_file(path, text, sizeof text);
    snprintf(wanted, sizeof wanted, "%d (a subject) ", pid);
    check(strncmp(text, wanted, strlen(wanted)) == 0, "stat: %.30s", text);
    snprintf(path, sizeof path, "/proc/%d/status", pid);
    read_file(path, text, sizeof text);
    check(strncmp(text, "Name:\ta subject\n", 16) == 0, "status: %.15s", text);
    if (strcmp(how, "privileged") == 0) {
        snprintf(path, sizeof path, "/proc/%d/environ", pid);
        size = read_file(path, text, sizeof text);
        check(size == 10 && strcmp(text, "ONLY=this") == 0, "environ: %zu bytes, «%s»", size, text);
        snprintf(path, sizeof path, "/proc/%d/exe", pid);
        ssize_t length = readlink(path, text, sizeof text - 1);
        text[length > 0 ? length : 0] = 0;
        same("exe", text, exe);
        /* As start-stop-daemon --exec and killproc do. */
        check(stat(path, &program) == 0 && stat(exe, &file) == 0 && program.st_ino == file.st_ino &&
                  program.st_dev == file.st_dev,
              "it is the file");
    }
    return result();
}

/* In the subject: says that it is there, and waits. */
__attribute__((noreturn)) static void be_seen(void)
{
    need("write", write(9, "x", 1));
    for (;;)
        pause();
}

/* Without this, the translator cannot tell the kernel what to show. */
static void forbid_prctl(void)
{
    struct sock_filter list[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_prctl, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PR_SET_MM, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {6, list};
    need("PR_SET_NO_NEW_PRIVS", prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    need("seccomp", syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program));
}

static void become_subject(void)
{
    char *arguments[] = {"./a subject", "subject", (char *)NEEDLE, "two words", NULL};
    char *variables[] = {"ONLY=this", NULL};
    execve("./a subject", arguments, variables);
    not_executed();
}

static pid_t subject(int uid, const char *launcher)
{
    int ready[2];
    char byte;
    need("pipe", pipe(ready));
    pid_t pid = start();
    if (pid == 0) {
        dup2(ready[1], 9);
        close(ready[0]);
        close(ready[1]);
        if (uid)
            need("setresuid", setresuid(uid, uid, uid));
        if (launcher)
            execl(launcher, launcher, "launch", NULL);
        else
            become_subject();
        not_executed();
    }
    close(ready[1]);
    check(read(ready[0], &byte, 1) == 1, "the subject has started");
    close(ready[0]);
    return pid;
}

static void run(const char *program, pid_t pid, const char *exe, const char *how)
{
    char number[16], what[128];
    snprintf(number, sizeof number, "%d", pid);
    snprintf(what, sizeof what, "seen by %s, %s", file_name(program), how);
    pid_t observer = start();
    if (observer == 0) {
        execl(program, program, "observe", number, exe, how, NULL);
        not_executed();
    }
    all_well(what, observer);
}

/* Whether a command of a shell says a number. */
static void says(const char *command, pid_t number)
{
    char line[64] = "";
    FILE *from = popen(command, "r");
    if (from)
        while (fgets(line, sizeof line, from) && atoi(line) != number)
            ;
    if (from)
        pclose(from);
    same_number(command, atoi(line), number);
}

static void others(const char *own, const char *other)
{
    char exe[4200], text[8300];
    getcwd(exe, sizeof exe - 16);
    strcat(exe, "/a subject");
    pid_t pid = subject(0, NULL);
    run(own, pid, exe, "privileged");
    run(other, pid, exe, "privileged");
    says("pgrep -f 'subject needle-4711 two words$'", pid);
    says("pgrep -x 'a subject'", pid);
    says("ps -e -o pid=,args= | grep 'needle-4711 tw[o]'", pid);
    if (access("/usr/sbin/start-stop-daemon", X_OK) == 0) {
        snprintf(text, sizeof text, "start-stop-daemon --status --exec '%s' && echo %d", exe, pid);
        says(text, pid);
    }
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);

    pid = subject(1000, NULL);
    run(own, pid, exe, "ordinary");
    run(other, pid, exe, "ordinary");
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);

    /* With filters, a translated program cannot execute one that is not. */
#ifdef __x86_64__
    pid = subject(0, other);
#else
    pid = subject(0, own);
#endif
    run(other, pid, exe, "padded");
    run(own, pid, exe, "padded");
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

/* The first bytes of a file that a folder is the start of the name of. */
static size_t read_at(int folder, const char *path, char *text, size_t size)
{
    int fd = openat(folder, path, O_RDONLY | O_CLOEXEC);
    size_t have = 0;
    ssize_t n;
    while (fd >= 0 && have < size - 1 && (n = read(fd, text + have, size - 1 - have)) > 0)
        have += n;
    text[have] = 0;
    close(fd);
    return have;
}

/* One way to name a file of this process, which must be this program's. */
static void spelled(int folder, const char *path, const char *file)
{
    static char text[65536], link[4096];
    size_t size = read_at(folder, path, text, sizeof text);
    int good = 0;
    if (strcmp(file, "exe") == 0) {
        struct stat here, there;
        ssize_t length = readlinkat(folder, path, link, sizeof link - 1);
        link[length > 0 ? length : 0] = 0;
        /* A link to the link is read as it is. */
        good = strstr(link, "a subject") || strcmp(link, "/proc/self/exe") == 0;
        good = good && fstatat(folder, path, &here, 0) == 0 && stat("a subject", &there) == 0 &&
               here.st_ino == there.st_ino && size > 64 && memcmp(text, "\177ELF", 4) == 0;
    } else if (strcmp(file, "cmdline") == 0) {
        good = size == 20 && memcmp(text, "./a subject\0spelled\0", 20) == 0;
    } else if (strcmp(file, "environ") == 0) {
        good = size == 10 && strcmp(text, "ONLY=this") == 0;
    } else if (strcmp(file, "comm") == 0) {
        good = strcmp(text, "a subject\n") == 0;
    } else if (strcmp(file, "auxv") == 0) {
        unsigned long *pair = (unsigned long *)text;
        while ((char *)pair < text + size && pair[0] != AT_ENTRY)
            pair += 2;
        good = (char *)pair < text + size && pair[1] == getauxval(AT_ENTRY);
    } else {
        good = strstr(text, "/a subject\n") && strstr(text, "[stack]") && !strstr(text, "demotic");
    }
    check(good, "%s of «%s»", file, path);
}

static int see_oneself(void)
{
    static const char *const files[] = {"exe", "cmdline", "environ", "comm", "auxv", "maps", "smaps"};
    char path[4300], here[4096];
    int self_folder = need("open", open("/proc/self", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    int proc = need("open", open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    int thread = need("open", open("/proc/thread-self", O_PATH | O_CLOEXEC));
    int work = need("open", open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    getcwd(here, sizeof here);
    mkdir("mounted", 0700);
    need("bind", mount("/proc", "mounted", NULL, MS_BIND, NULL));
    need("symlink", symlink("/proc/self", "link"));
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        const char *file = files[i];
        const char *const formats[] = {
            "/proc/self/%s", "/proc/./self//%s", "//proc/self/./%s", "/proc/../proc/self/%s", "/proc/thread-self/%s",
            "/proc/self/root/proc/self/%s", "link/%s", "mounted/self/%s",
        };
        for (size_t f = 0; f < sizeof formats / sizeof *formats; f++) {
            snprintf(path, sizeof path, formats[f], file);
            spelled(AT_FDCWD, path, file);
        }
        snprintf(path, sizeof path, "/proc/%d/%s", getpid(), file);
        spelled(AT_FDCWD, path, file);
        snprintf(path, sizeof path, "/proc/%d/task/%d/%s", getpid(), getpid(), file);
        spelled(AT_FDCWD, path, file);
        snprintf(path, sizeof path, "/proc/self/task/%d/%s", getpid(), file);
        spelled(AT_FDCWD, path, file);
        snprintf(path, sizeof path, "../../proc/self/%s", file);
        spelled(work, path, file);
        spelled(self_folder, file, file);
        spelled(thread, file, file);
        snprintf(path, sizeof path, "self/%s", file);
        spelled(proc, path, file);
        snprintf(path, sizeof path, "%d/%s", getpid(), file);
        spelled(proc, path, file);
        snprintf(path, sizeof path, "%s/link-to-%s", here, file);
        char target[64];
        snprintf(target, sizeof target, "/proc/self/%s", file);
        need("symlink", symlink(target, path));
        spelled(AT_FDCWD, path, file);
        unlink(path);
    }
    need("umount", umount2("mounted", MNT_DETACH));
    unlink("link");
    return result();
}

int main(int argc, char **argv)
{
    char own[4096];
    if (argc > 1 && strcmp(argv[1], "subject") == 0)
        be_seen();
    if (argc > 1 && strcmp(argv[1], "spelled") == 0)
        return see_oneself();
    if (argc > 4 && strcmp(argv[1], "observe") == 0)
        return observe(atoi(argv[2]), argv[3], argv[4]);
    if (argc > 1 && strcmp(argv[1], "launch") == 0) {
        forbid_prctl();
        become_subject();
    }
    strcpy(own, self());
    workplace();
    copy(own, "a subject", 0755);
    need("unshare", unshare(CLONE_NEWNS));
    need("mount", mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
    others(own, argc > 1 ? argv[1] : own);
    pid_t pid = start();
    if (pid == 0) {
        char *arguments[] = {"./a subject", "spelled", NULL}, *variables[] = {"ONLY=this", NULL};
        execve("./a subject", arguments, variables);
        not_executed();
    }
    all_well("what it sees of itself", pid);
    return result();
}
