/* For the programs of this folder: each line says what was checked, and the exit status whether all was well.
 * They are static, run as root on a real kernel, and are built for x86_64 (translated) and for arm64 (as the
 * control: what fails there too is the kernel's doing). */
#ifndef CHECK_H
#define CHECK_H

#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;
static int failures;

__attribute__((format(printf, 2, 3))) static inline int check(int good, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    printf(good ? "ok: " : "FAILED: ");
    vprintf(format, list);
    printf("\n");
    va_end(list);
    fflush(stdout);
    failures += !good;
    return good;
}

/* Whether two strings are the same; says both. */
static inline void same(const char *what, const char *has, const char *wanted)
{
    has = has ? has : "(null)";
    if (strcmp(has, wanted) == 0)
        check(1, "%s is «%s»", what, has);
    else
        check(0, "%s is «%s», not «%s»", what, has, wanted);
}

static inline void same_number(const char *what, long has, long wanted)
{
    if (has == wanted)
        check(1, "%s is %ld", what, has);
    else
        check(0, "%s is %ld, not %ld", what, has, wanted);
}

/* What a test cannot go on without. */
static inline long need(const char *what, long result)
{
    if (result < 0) {
        printf("FAILED: %s: %s\n", what, strerror(errno));
        exit(1);
    }
    return result;
}

/* Waits for a child; its failures are ours. A child that could not execute ends with NOT_EXECUTED + errno. */
#define NOT_EXECUTED 160
static inline int ended(const char *what, pid_t child)
{
    int status = 0;
    need("waitpid", waitpid(child, &status, 0));
    if (WIFSIGNALED(status)) {
        check(0, "%s: ended by signal %d", what, WTERMSIG(status));
        return -1;
    }
    return WEXITSTATUS(status);
}

static inline void all_well(const char *what, pid_t child)
{
    int status = ended(what, child);
    check(status == 0, "%s: exit status %d", what, status);
}

/* In a child after a failed exec. */
__attribute__((noreturn)) static inline void not_executed(void)
{
    fflush(stdout);
    _exit(NOT_EXECUTED + (errno < 95 ? errno : 95));
}

static inline pid_t start(void)
{
    fflush(stdout);
    return need("fork", fork());
}

/* Copies a file, with a mode. */
static inline void copy(const char *from, const char *to, mode_t mode)
{
    char buffer[65536];
    ssize_t n;
    unlink(to);
    int in = need(from, open(from, O_RDONLY | O_CLOEXEC));
    int out = need(to, open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0700));
    while ((n = need("read", read(in, buffer, sizeof buffer))) > 0)
        need("write", write(out, buffer, n));
    need("fchmod", fchmod(out, mode));
    close(in);
    close(out);
}

static inline void put(const char *path, const void *bytes, size_t size, mode_t mode)
{
    unlink(path);
    int out = need(path, open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0700));
    need("write", write(out, bytes, size));
    need("fchmod", fchmod(out, mode));
    close(out);
}

/* The program's own file; this is what `self` is taken from before anything is deleted. */
static inline const char *self(void)
{
    static char path[4096];
    ssize_t n = need("/proc/self/exe", readlink("/proc/self/exe", path, sizeof path - 1));
    path[n] = 0;
    return path;
}

/* A new folder to work in, which becomes the current one; gives its path. What the runner left open is closed. */
static inline const char *workplace(void)
{
    static char path[] = "/tmp/exec-XXXXXX";
    close_range(3, ~0U, 0);
    need("mkdtemp", mkdtemp(path) ? 0 : -1);
    need("chdir", chdir(path));
    chmod(path, 0755);
    return path;
}

/* Descriptors from 3 on that are open. */
static inline int open_descriptors(void)
{
    int count = 0;
    for (int fd = 3; fd < 4096; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

static inline const char *file_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* The whole of a file of /proc. */
static inline size_t read_file(const char *path, char *buffer, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    size_t have = 0;
    ssize_t n;
    if (fd < 0)
        return 0;
    while ((n = read(fd, buffer + have, size - 1 - have)) > 0)
        have += n;
    buffer[have] = 0;
    close(fd);
    return have;
}

static inline int result(void)
{
    printf("%d failed\n", failures);
    return failures != 0;
}

#endif
