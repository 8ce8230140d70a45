// What /proc says of the program itself, by every way its files can be named: absolute, relative to a descriptor or
// to the current directory, through links, by numbers. All must say the same, and say it of this program.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

// linux/openat2.h, which not every C library has.
struct open_how {
    unsigned long flags, mode, resolve;
};
enum { RESOLVE_NO_MAGICLINKS = 2, RESOLVE_NO_SYMLINKS = 4, RESOLVE_BENEATH = 8, RESOLVE_IN_ROOT = 16 };

static char content[1 << 20], expected[1 << 20];

static long read_all(int fd, char *buffer) {
    long length = 0, n;
    if (fd < 0) return -errno;
    while ((n = read(fd, buffer + length, (1 << 20) - 1 - length)) > 0) length += n;
    buffer[length] = 0;
    close(fd);
    return length;
}

// In maps and smaps only which mappings there are: sizes of the stack and what is resident change meanwhile. What
// grows by itself is the stack's lower end.
static void only_addresses(char *text) {
    char *to = text;
    for (char *line = strtok(text, "\n"); line; line = strtok(0, "\n")) {
        unsigned long start, end;
        if (sscanf(line, "%lx-%lx ", &start, &end) != 2 || strstr(line, "[stack]")) continue;
        to += sprintf(to, "%lx-%lx\n", start, end);
    }
    *to = 0;
}

static const char *const names[] = {"maps", "smaps", "cmdline", "environ", "auxv", "exe", "comm"};

static void compare(const char *way, const char *name, int fd) {
    long length = read_all(fd, content);
    if (length < 0) {
        printf("  %s: errno %ld\n", way, -length);
        return;
    }
    char path[64];
    sprintf(path, "/proc/self/%s", name);
    long should = read_all(open(path, O_RDONLY), expected);
    if (strstr(name, "maps")) {
        only_addresses(content);
        only_addresses(expected);
        length = strlen(content), should = strlen(expected);
    }
    printf("  %s: %s\n", way, length == should && !memcmp(content, expected, length) ? "the same" : "something else");
}

static int open2(int dirfd, const char *path, unsigned long resolve) {
    struct open_how how = {.flags = O_RDONLY | O_CLOEXEC, .resolve = resolve};
    return syscall(SYS_openat2, dirfd, path, &how, sizeof how);
}

static void opening(const char *name) {
    char path[256], link[64];
    printf("%s\n", name);
    int proc = open("/proc", O_PATH), self = open("/proc/self", O_RDONLY | O_DIRECTORY), root = open("/", O_PATH);
#define WAY(way, fd) compare(way, name, fd)
#define NAMED(...) (sprintf(path, __VA_ARGS__), path)
    WAY("by number", open(NAMED("/proc/%d/%s", getpid(), name), O_RDONLY));
    WAY("of the thread", open(NAMED("/proc/thread-self/%s", name), O_RDONLY));
    WAY("of the task", open(NAMED("/proc/self/task/%d/%s", getpid(), name), O_RDONLY));
    WAY("odd slashes", open(NAMED("//proc//./self/../self//%s", name), O_RDONLY));
    WAY("from elsewhere", open(NAMED("/usr/../proc/self/%s", name), O_RDONLY));
    WAY("below a descriptor", openat(self, name, O_RDONLY));
    WAY("below /proc", openat(proc, NAMED("self/%s", name), O_RDONLY));
    WAY("below /", openat(root, NAMED("proc/self/%s", name), O_RDONLY));
    WAY("upwards", openat(self, NAMED("../self/task/../%s", name), O_RDONLY));
    WAY("through a descriptor's link", open(NAMED("/proc/self/fd/%d/%s", self, name), O_RDONLY));
    WAY("through /dev/fd", open(NAMED("/dev/fd/%d/%s", self, name), O_RDONLY));
    sprintf(link, "link-to-%s", name);
    if (symlink(NAMED("/proc/self/%s", name), link)) abort();
    WAY("through a link", open(link, O_RDONLY));
    if (symlink("/proc/self", "link-to-self") && errno != EEXIST) abort();
    WAY("through a link to the folder", open(NAMED("link-to-self/%s", name), O_RDONLY));
    WAY("openat2", open2(AT_FDCWD, NAMED("/proc/self/%s", name), 0));
    WAY("openat2 below", open2(proc, NAMED("self/%s", name), RESOLVE_BENEATH));
    WAY("openat2 in a root", open2(root, NAMED("/proc/self/%s", name), RESOLVE_IN_ROOT));
    WAY("openat2 without links", open2(proc, NAMED("self/%s", name), RESOLVE_NO_SYMLINKS));
    WAY("openat2 without magic", open2(self, name, RESOLVE_NO_MAGICLINKS));
    WAY("not following", openat(self, name, O_RDONLY | O_NOFOLLOW));
    int here = open(".", O_PATH);
    if (fchdir(self)) abort();
    WAY("from within", open(name, O_RDONLY));
    WAY("from within, dotted", open(NAMED("./%s", name), O_RDONLY));
    if (fchdir(here)) abort();
    unlink(link);
    close(here), close(proc), close(self), close(root);
}

static void reading_links(void) {
    char target[4096], own[4096], path[64];
    int self = open("/proc/self", O_PATH), link = openat(self, "exe", O_PATH | O_NOFOLLOW), proc = open("/proc", O_PATH);
    if (!getcwd(own, sizeof own)) abort();
    strcat(own, "/proc-test");
#define LINK(way, n) do { long length = n; target[length < 0 ? 0 : length] = 0; \
    printf("  %s: %s\n", way, length < 0 ? strerror(errno) : strcmp(target, own) ? target : "this program"); } while (0)
    printf("readlink\n");
    LINK("absolute", readlink("/proc/self/exe", target, sizeof target));
    LINK("by number", readlink((sprintf(path, "/proc/%d/exe", getpid()), path), target, sizeof target));
    LINK("by task", readlink((sprintf(path, "/proc/self/task/%d/exe", getpid()), path), target, sizeof target));
    LINK("below a descriptor", readlinkat(self, "exe", target, sizeof target));
    LINK("below /proc", readlinkat(proc, "thread-self/exe", target, sizeof target));
    LINK("of a descriptor", readlinkat(link, "", target, sizeof target));
    LINK("through a link", readlink("link-to-self/exe", target, sizeof target));
    LINK("cut", readlink("link-to-self/exe", target, 4));
    LINK("into nothing", readlink("link-to-self/exe", target, 0));
    LINK("of a link to it", (symlink("/proc/self/exe", "exe"), readlink("exe", target, sizeof target)));
    LINK("of another file", readlink("proc-test", target, sizeof target));
    printf("stat\n");
    struct stat program, found;
    unsigned long extended[32];
    if (stat("proc-test", &program)) abort();
#define STAT(way, failed) printf("  %s: %s\n", way, failed ? strerror(errno) : \
    found.st_ino == program.st_ino && found.st_dev == program.st_dev ? "this program" : S_ISLNK(found.st_mode) ? "a link" : "another file")
    STAT("absolute", stat("/proc/self/exe", &found));
    STAT("below a descriptor", fstatat(self, "exe", &found, 0));
    STAT("through a link", stat("exe", &found));
    STAT("the link itself", fstatat(self, "exe", &found, AT_SYMLINK_NOFOLLOW));
    STAT("of the file opened", fstat(openat(self, "exe", O_RDONLY), &found));
    STAT("of the path opened", fstat(open("exe", O_PATH), &found));
    // statx(2), by number because not every C library has it; the inode is its fifth word.
    printf("  statx: %s\n", syscall(SYS_statx, self, "exe", 0, 0x100, extended) ? strerror(errno) :
        extended[4] == program.st_ino ? "this program" : "another file");
    unlink("exe");
}

static int here;

static void what_is_said(int argc, char **argv) {
    unsigned long low, high, at_main = 0, at_stack = 0, at_heap = 0, odd = 0;
    char kind[8], *heap = malloc(100);
    printf("contents\n");
    read_all(open("link-to-self/maps", O_RDONLY), content);
    for (char *line = strtok(content, "\n"); line; line = strtok(0, "\n")) {
        if (sscanf(line, "%lx-%lx %7s", &low, &high, kind) != 3) odd++;
        if (low <= (unsigned long)&here && (unsigned long)&here < high) at_main += !strcmp(kind, "rw-p");
        if (low <= (unsigned long)&low && (unsigned long)&low < high) at_stack += strstr(line, "[stack]") != 0;
        if (low <= (unsigned long)heap && (unsigned long)heap < high) at_heap++;
        if (strstr(line, "demotic") || strstr(line, "qemu")) odd++;
    }
    printf("  maps: data %lu, stack %lu, heap %lu, odd %lu\n", at_main, at_stack, at_heap, odd);
    long length = read_all(open("link-to-self/cmdline", O_RDONLY), content);
    printf("  cmdline:");
    for (char *word = content; word < content + length; word += strlen(word) + 1) printf(" [%s]", word);
    strcpy(argv[1], "ONE");
    length = read_all(open("link-to-self/cmdline", O_RDONLY), content);
    printf("\n  cmdline, changed:");
    for (char *word = content; word < content + length; word += strlen(word) + 1) printf(" [%s]", word);
    length = read_all(open("link-to-self/auxv", O_RDONLY), content);
    unsigned long page = 0;
    for (unsigned long *entry = (void *)content; *entry; entry += 2) if (*entry == AT_PAGESZ) page = entry[1];
    printf("\n  auxv: page size %lu, entry %s\n", page, getauxval(AT_ENTRY) ? "known" : "unknown");
    read_all(open("link-to-self/comm", O_RDONLY), content);
    printf("  comm: %s", content);
    read_all(open("link-to-self/../cpuinfo", O_RDONLY), content);
    read_all(open("/proc/cpuinfo", O_RDONLY), expected);
    // The clock rates differ from one time to the next.
    printf("  cpuinfo: flags %s\n", strstr(content, "flags") && strstr(expected, "flags") &&
        !strncmp(strstr(content, "flags"), strstr(expected, "flags"), 200) ? "the same" : "not the same");
    read_all(open("/proc/1/comm", O_RDONLY), content);
    printf("  another process's comm: %s\n", *content ? "something" : "nothing");
    free(heap);
}

static void *thread(void *unused) {
    printf("in a second thread\n");
    char path[64];
    sprintf(path, "/proc/self/task/%ld", syscall(SYS_gettid));
    int task = open(path, O_PATH), outside = open("/proc", O_PATH);
    compare("its task", "maps", openat(task, "maps", O_RDONLY));
    compare("thread-self", "maps", openat(outside, "thread-self/maps", O_RDONLY));
    sprintf(path, "%ld/cmdline", syscall(SYS_gettid));
    compare("its number", "cmdline", openat(outside, path, O_RDONLY));
    sprintf(path, "/proc/%ld/cmdline", syscall(SYS_gettid));
    compare("its number, absolute", "cmdline", open(path, O_RDONLY));
    return unused;
}

static void elsewhere(void) {
    printf("mounted elsewhere\n");
    fflush(stdout);
    mkdir("mounted", 0755);
    if (unshare(CLONE_NEWNS) || mount("none", "/", 0, MS_REC | MS_PRIVATE, 0) || mount("p", "mounted", "proc", 0, 0)) {
        printf("  not possible\n");
        return;
    }
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
        char path[64];
        sprintf(path, "mounted/self/%s", names[i]);
        compare(names[i], names[i], open(path, O_RDONLY));
    }
}

int main(int argc, char **argv) {
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++) opening(names[i]);
    reading_links();
    what_is_said(argc, argv);
    pthread_t other;
    pthread_create(&other, 0, thread, 0);
    pthread_join(other, 0);
    elsewhere();
    return 0;
}
