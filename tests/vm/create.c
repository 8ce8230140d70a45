/* Processes and threads as clone(2), clone3(2), fork(2) and vfork(2) make them, and what a program that is executed
 * keeps. The argument is a program of another architecture, or says what an executed one is to look at. */
#include "check.h"
#include <dirent.h>
#include <pthread.h>
#include <sys/ipc.h>
#include <sys/personality.h>
#include <sys/shm.h>
#include <sys/utsname.h>
#include <sys/resource.h>
#include <sys/syscall.h>

/* linux/sched.h, of newer kernels than the headers may be of */
#define CLEAR_SIGHAND 0x100000000UL
#define INTO_CGROUP 0x200000000UL
#define NEWTIME 0x80UL
#define NEWCGROUP 0x02000000UL

struct args {
    unsigned long flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup;
};

static pid_t clone3_(struct args *args) { return syscall(SYS_clone3, args, sizeof *args); }

/* clone(2) in each architecture's order of arguments. */
static pid_t clone_(unsigned long flags, void *stack, int *parent_tid, int *child_tid, unsigned long tls)
{
#ifdef __x86_64__
    return syscall(SYS_clone, flags, stack, parent_tid, child_tid, tls);
#else
    return syscall(SYS_clone, flags, stack, parent_tid, tls, child_tid);
#endif
}

static void fails(const char *what, long result, int error)
{
    int has = result < 0 ? errno : 0;
    check(has == error, "%s: %s, wanted %s", what, has ? strerrorname_np(has) : "0", strerrorname_np(error));
}

static int *shared;

static void cloned(void)
{
    int parent_tid = 0, child_tid = 0, status;
    fflush(stdout);
    pid_t pid = clone_(CLONE_PARENT_SETTID | CLONE_CHILD_SETTID | SIGURG, NULL, &parent_tid, &child_tid, 0);
    if (pid == 0)
        _exit(child_tid == getpid() ? 5 : 6);
    same_number("CLONE_PARENT_SETTID", parent_tid, pid);
    fails("waitpid for an exit signal other than SIGCHLD", waitpid(pid, &status, 0), ECHILD);
    same_number("with __WCLONE", waitpid(pid, &status, __WCLONE), pid);
    same_number("CLONE_CHILD_SETTID", WEXITSTATUS(status), 5);
    pid = clone_(0, NULL, NULL, NULL, 0);
    if (pid == 0)
        _exit(7);
    same_number("without an exit signal", waitpid(pid, &status, __WALL), pid);
    same_number("its status", WEXITSTATUS(status), 7);
    fails("CLONE_SIGHAND without CLONE_VM", clone_(CLONE_SIGHAND, NULL, NULL, NULL, 0), EINVAL);
    fails("CLONE_THREAD without CLONE_SIGHAND", clone_(CLONE_VM | CLONE_THREAD, NULL, NULL, NULL, 0), EINVAL);
    fails("CLONE_NEWNS with CLONE_FS", clone_(CLONE_NEWNS | CLONE_FS, NULL, NULL, NULL, 0), EINVAL);
    fails("CLONE_PIDFD with CLONE_PARENT_SETTID",
          clone_(CLONE_PIDFD | CLONE_PARENT_SETTID, NULL, &parent_tid, NULL, 0), EINVAL);
}

static int on_own_stack(void *word)
{
    *(int *)word += getpid() == *shared ? 1 : 100;
    return 9;
}

/* A child that shares memory, and nothing else. */
static void sharing(void)
{
    static char stack[65536] __attribute__((aligned(16)));
    volatile int word = 4;
    int status;
    *shared = -1;
    pid_t pid = clone(on_own_stack, stack + sizeof stack, CLONE_VM | SIGCHLD, (void *)&word);
    same_number("waitpid", waitpid(pid, &status, 0), pid);
    same_number("its status", WEXITSTATUS(status), 9);
    same_number("what it wrote", word, 104);
    pid = clone(on_own_stack, stack + sizeof stack, CLONE_VM | CLONE_VFORK | SIGCHLD, (void *)&word);
    same_number("what was written before CLONE_VFORK came back", word, 204);
    waitpid(pid, &status, 0);
}

static void vforked(void)
{
    volatile int word = 1, error = 0;
    char *arguments[] = {"true", NULL};
    fflush(stdout);
    pid_t pid = vfork();
    if (pid == 0) {
        word = 2;
        execve("/nonexistent", arguments, environ);
        error = errno;
        _exit(8);
    }
    same_number("what a child of vfork wrote", word, 2);
    same_number("the error of its execve", error, ENOENT);
    int status;
    waitpid(pid, &status, 0);
    same_number("its status", WEXITSTATUS(status), 8);
}

static int handled;
static void handler(int signal) { handled = signal; }

static void clone3_in_full(void)
{
    int pidfd = -1, child_tid = 0, parent_tid = 0, status;
    struct args args = {CLONE_PIDFD | CLONE_PARENT_SETTID | CLONE_CHILD_SETTID, (long)&pidfd, (long)&child_tid,
                        (long)&parent_tid, SIGCHLD, 0, 0, 0, 0, 0, 0};
    pid_t pid = clone3_(&args);
    if (pid == 0)
        _exit(child_tid == getpid() ? 1 : 2);
    check(pidfd >= 0 && parent_tid == pid, "CLONE_PIDFD and CLONE_PARENT_SETTID at once");
    waitpid(pid, &status, 0);
    same_number("CLONE_CHILD_SETTID", WEXITSTATUS(status), 1);
    close(pidfd);

    signal(SIGUSR1, handler);
    signal(SIGUSR2, SIG_IGN);
    args = (struct args){.flags = CLEAR_SIGHAND, .exit_signal = SIGCHLD};
    pid = clone3_(&args);
    if (pid == 0) {
        struct sigaction first, second;
        sigaction(SIGUSR1, NULL, &first);
        sigaction(SIGUSR2, NULL, &second);
        _exit((first.sa_handler == SIG_DFL) + 2 * (second.sa_handler == SIG_IGN));
    }
    waitpid(pid, &status, 0);
    same_number("CLONE_CLEAR_SIGHAND clears handlers alone", WEXITSTATUS(status), 3);
    signal(SIGUSR2, SIG_DFL);

    pid_t wanted = 0;
    for (wanted = 30000; kill(wanted, 0) == 0; wanted++)
        ;
    args = (struct args){.exit_signal = SIGCHLD, .set_tid = (long)&wanted, .set_tid_size = 1};
    pid = clone3_(&args);
    if (pid == 0)
        _exit(getpid() == wanted ? 1 : 2);
    same_number("CLONE_SET_TID", pid, wanted);
    waitpid(pid, &status, 0);
    same_number("as the child has it", WEXITSTATUS(status), 1);
    wanted = 1;
    fails("one that there is", clone3_(&args), EEXIST);
    args.set_tid_size = 0;
    fails("none", clone3_(&args), EINVAL);
    args.set_tid_size = 64;
    fails("too many", clone3_(&args), EINVAL);

    args = (struct args){.exit_signal = 65};
    fails("an exit signal that there is not", clone3_(&args), EINVAL);
    args = (struct args){.stack = (long)shared};
    fails("a stack without a size", clone3_(&args), EINVAL);
    args = (struct args){.flags = 1UL << 40};
    fails("a flag that there is not", clone3_(&args), EINVAL);
    args = (struct args){.flags = SIGCHLD};
    fails("an exit signal in the flags", clone3_(&args), EINVAL);
    args = (struct args){.flags = INTO_CGROUP, .cgroup = 0x100000000};
    fails("a cgroup that is no descriptor", clone3_(&args), EINVAL);
    args = (struct args){.flags = INTO_CGROUP};
    fails("a structure without a cgroup", syscall(SYS_clone3, &args, 64), EINVAL);
    fails("a structure that is too small", syscall(SYS_clone3, &args, 63), EINVAL);
    fails("one that is too large", syscall(SYS_clone3, &args, 5000), E2BIG);
    args = (struct args){.flags = INTO_CGROUP | CLONE_THREAD | CLONE_SIGHAND | CLONE_VM, .exit_signal = SIGCHLD};
    fails("a thread with an exit signal", clone3_(&args), EINVAL);
}

static void into_cgroup(void)
{
    char path[] = "cgroup/created-XXXXXX", text[4096];
    int folder, status;
    mkdir("cgroup", 0700);
    mount("cgroup2", "cgroup", "cgroup2", 0, NULL);
    folder = mkdtemp(path) ? open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (!check(folder >= 0, "a cgroup"))
        return;
    struct args args = {.flags = INTO_CGROUP, .exit_signal = SIGCHLD, .cgroup = folder};
    pid_t pid = clone3_(&args);
    if (pid == 0) {
        read_file("/proc/self/cgroup", text, sizeof text);
        _exit(strstr(text, "/created-") ? 1 : 2);
    }
    check(pid > 0, "CLONE_INTO_CGROUP");
    waitpid(pid, &status, 0);
    same_number("where the child is", WEXITSTATUS(status), 1);
    close(folder);
    rmdir(path);
    umount2("cgroup", MNT_DETACH);
}

static ino_t space(const char *name)
{
    char path[64];
    struct stat stat_;
    snprintf(path, sizeof path, "/proc/self/ns/%s", name);
    return stat(path, &stat_) == 0 ? stat_.st_ino : 0;
}

static void namespaces(void)
{
    static const struct {
        const char *name;
        unsigned long flag;
    } all[] = {
        {"mnt", CLONE_NEWNS}, {"uts", CLONE_NEWUTS}, {"ipc", CLONE_NEWIPC}, {"net", CLONE_NEWNET},
        {"user", CLONE_NEWUSER}, {"cgroup", NEWCGROUP}, {"time", NEWTIME}, {"pid", CLONE_NEWPID},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        for (int way = 0; way < 3; way++) {
            ino_t before = space(all[i].name);
            struct args args = {.flags = all[i].flag, .exit_signal = SIGCHLD};
            int status = 0;
            pid_t pid = 0;
            fflush(stdout);
            if (way == 0)
                pid = clone3_(&args);
            else if (way == 1 && all[i].flag != NEWTIME)
                pid = clone_(all[i].flag | SIGCHLD, NULL, NULL, NULL, 0);
            else if (way == 1)
                continue;
            else if ((pid = start()) == 0)
                need("unshare", unshare(all[i].flag));
            if (pid == 0) {
                /* unshare(2) is for the children, there. */
                int later = way == 2 && (all[i].flag == CLONE_NEWPID || all[i].flag == NEWTIME);
                if (later && fork() != 0) {
                    wait(&status);
                    _exit(WEXITSTATUS(status));
                }
                int first = all[i].flag != CLONE_NEWPID || getpid() == 1;
                /* /proc is that of the old pid namespace. */
                _exit(first && (all[i].flag == CLONE_NEWPID || space(all[i].name) != before) ? 1 : 2);
            }
            check(pid > 0, "%s: %s", all[i].name, way == 0 ? "clone3" : way == 1 ? "clone" : "unshare");
            waitpid(pid, &status, 0);
            same_number(all[i].name, WEXITSTATUS(status), 1);
        }
    }
    pid_t pid = start();
    if (pid == 0) {
        int here = need("ns", open("/proc/self/ns/uts", O_RDONLY | O_CLOEXEC));
        ino_t before = space("uts");
        need("unshare", unshare(CLONE_NEWUTS));
        check(space("uts") != before, "unshare");
        same_number("setns", setns(here, CLONE_NEWUTS), 0);
        check(space("uts") == before, "and back");
        _exit(result());
    }
    all_well("setns", pid);
}

/* The descriptors of a process, as /proc and as fcntl(2) tell; "" for none beside 0, 1 and 2. */
static void own_descriptors(const char *what)
{
    char listed[4096] = "";
    DIR *folder = opendir("/proc/self/fd");
    need("/proc/self/fd", folder ? 0 : -1);
    for (struct dirent *entry; (entry = readdir(folder));)
        if (entry->d_name[0] != '.' && atoi(entry->d_name) > 2 && atoi(entry->d_name) != dirfd(folder))
            snprintf(listed + strlen(listed), sizeof listed - strlen(listed), " %s", entry->d_name);
    closedir(folder);
    same(what, listed, "");
    same_number("those that fcntl finds", open_descriptors(), 0);
    struct stat stat_;
    char path[64];
    int found = 0;
    for (int i = 3; i < 1100; i++) {
        snprintf(path, sizeof path, "/proc/self/fd/%d", i);
        found += lstat(path, &stat_) == 0;
    }
    same_number("those that lstat finds", found, 0);
}

static void executed(const char *program, const char *word)
{
    pid_t pid = start();
    if (pid == 0) {
        char *arguments[] = {(char *)program, (char *)word, NULL}, *variables[] = {"ONLY=this", NULL};
        execve(program, arguments, variables);
        not_executed();
    }
    all_well(word, pid);
}

/* Reads the time stamp counter in a child: the signal that ended it. */
static int counter_read(void)
{
    pid_t pid = start();
    if (pid == 0) {
#ifdef __x86_64__
        __builtin_ia32_rdtsc();
#endif
        _exit(0);
    }
    int status;
    need("waitpid", waitpid(pid, &status, 0));
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

/* In programs that were executed. */
static int child(const char *word)
{
    int number;
    if (strcmp(word, "environment") == 0) {
        same("its environment", environ[0], "ONLY=this");
        check(environ[1] == NULL, "nothing else");
        char text[4096];
        size_t size = read_file("/proc/self/environ", text, sizeof text);
        check(size == 10 && strcmp(text, "ONLY=this") == 0, "/proc/self/environ: %zu bytes", size);
        own_descriptors("its descriptors");
    } else if (strcmp(word, "tsc") == 0) {
        same_number("PR_GET_TSC", prctl(PR_GET_TSC, &number) == 0 ? number : -1, PR_TSC_SIGSEGV);
        same_number("the counter read", counter_read(), SIGSEGV);
        same_number("personality", personality(0xffffffff), PER_LINUX32 | ADDR_NO_RANDOMIZE);
        struct utsname names;
        uname(&names);
        same("its machine", names.machine, "i686");
        char text[16];
        read_file("/proc/self/personality", text, sizeof text);
        same("/proc/self/personality", text, "00040008\n");
        same_number("PR_SET_TSC", prctl(PR_SET_TSC, PR_TSC_ENABLE), 0);
        same_number("the counter read then", counter_read(), 0);
    } else if (strcmp(word, "state") == 0) {
        same_number("PR_GET_NO_NEW_PRIVS", prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 1);
        same_number("PR_GET_PDEATHSIG", prctl(PR_GET_PDEATHSIG, &number) == 0 ? number : -1, SIGHUP);
        same_number("PR_GET_CHILD_SUBREAPER", prctl(PR_GET_CHILD_SUBREAPER, &number) == 0 ? number : -1, 0);
        same_number("PR_GET_DUMPABLE", prctl(PR_GET_DUMPABLE), 1);
        same_number("PR_GET_TIMERSLACK", prctl(PR_GET_TIMERSLACK), 77777);
        same_number("PR_GET_KEEPCAPS", prctl(PR_GET_KEEPCAPS), 0);
        same_number("PR_GET_THP_DISABLE", prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0), 1);
        same_number("PR_GET_SECUREBITS", prctl(PR_GET_SECUREBITS), 1 << 2 /* SECBIT_NO_SETUID_FIXUP */);
        same_number("personality", personality(0xffffffff), ADDR_NO_RANDOMIZE | UNAME26);
        same_number("nice", getpriority(PRIO_PROCESS, 0), 5);
        same_number("umask", umask(0), 027);
        sigset_t mask;
        sigprocmask(SIG_SETMASK, NULL, &mask);
        check(sigismember(&mask, SIGUSR1) && !sigismember(&mask, SIGUSR2), "the signal mask");
        struct sigaction first, second;
        sigaction(SIGUSR2, NULL, &first);
        sigaction(SIGHUP, NULL, &second);
        check(first.sa_handler == SIG_IGN && second.sa_handler == SIG_DFL, "ignored signals, and handled ones");
        struct rlimit limit;
        getrlimit(RLIMIT_NOFILE, &limit);
        same_number("RLIMIT_NOFILE", limit.rlim_cur, 333);
        stack_t stack;
        sigaltstack(NULL, &stack);
        same_number("no alternate stack", stack.ss_flags, SS_DISABLE);
    }
    return result();
}

static void kept(const char *program)
{
    pid_t pid = start();
    if (pid == 0) {
        sigset_t mask;
        sigemptyset(&mask);
        sigaddset(&mask, SIGUSR1);
        sigprocmask(SIG_SETMASK, &mask, NULL);
        signal(SIGUSR2, SIG_IGN);
        signal(SIGHUP, handler);
        stack_t stack = {.ss_sp = malloc(65536), .ss_size = 65536};
        sigaltstack(&stack, NULL);
        struct rlimit limit = {333, 400};
        need("setrlimit", setrlimit(RLIMIT_NOFILE, &limit));
        need("PR_SET_SECUREBITS", prctl(PR_SET_SECUREBITS, 1 << 2));
        need("PR_SET_NO_NEW_PRIVS", prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
        need("PR_SET_PDEATHSIG", prctl(PR_SET_PDEATHSIG, SIGHUP));
        need("PR_SET_TIMERSLACK", prctl(PR_SET_TIMERSLACK, 77777));
        need("PR_SET_THP_DISABLE", prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0));
        need("PR_SET_KEEPCAPS", prctl(PR_SET_KEEPCAPS, 1));
        need("setpriority", setpriority(PRIO_PROCESS, 0, 5));
        need("personality", personality(ADDR_NO_RANDOMIZE | UNAME26));
        umask(027);
        char *arguments[] = {(char *)program, "state", NULL};
        execve(program, arguments, environ);
        not_executed();
    }
    all_well("state over execve", pid);
}

/* Memory that may be read may be executed, if the program says so. */
static int ends_in(void *code)
{
    pid_t pid = start();
    if (pid == 0) {
        ((void (*)(void))code)();
        _exit(0);
    }
    int status;
    need("waitpid", waitpid(pid, &status, 0));
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static void implied(void)
{
#ifdef __x86_64__
    static const unsigned char code[] = {0xc3}; /* ret */
#else
    static const unsigned int code[] = {0xd65f03c0};
#endif
    void *before = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memcpy(before, code, sizeof code);
    need("personality", personality(READ_IMPLIES_EXEC));
    void *after = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memcpy(after, code, sizeof code);
    __builtin___clear_cache(after, (char *)after + sizeof code);
    __builtin___clear_cache(before, (char *)before + sizeof code);
    same_number("what was mapped before", ends_in(before), SIGSEGV);
    same_number("what was mapped then", ends_in(after), 0);
    need("mprotect", mprotect(before, 4096, PROT_READ));
    same_number("what was protected then", ends_in(before), 0);
    char *heap = sbrk(0);
    need("brk", brk(heap + 8192));
    char *segment = shmat(need("shmget", shmget(IPC_PRIVATE, 4096, IPC_CREAT | 0600)), NULL, 0);
    need("shmat", segment == (char *)-1 ? -1 : 0);
    char *places[] = {heap, segment};
    for (int i = 0; i < 2; i++) {
        char *place = (char *)((unsigned long)(places[i] + 15) & ~15UL);
        memcpy(place, code, sizeof code);
        __builtin___clear_cache(place, place + sizeof code);
        same_number(i == 0 ? "the heap" : "shared memory", ends_in(place), 0);
    }
    need("shmdt", shmdt(segment));
    need("personality", personality(PER_LINUX));
    need("mprotect", mprotect(before, 4096, PROT_READ));
    same_number("what was protected afterwards", ends_in(before), SIGSEGV);
}

static void *thread(void *word)
{
    *(int *)word = syscall(SYS_gettid);
    return word;
}

static void threads(void)
{
    int id = 0;
    pthread_t one;
    same_number("pthread_create", pthread_create(&one, NULL, thread, &id), 0);
    pthread_join(one, NULL);
    check(id != 0 && id != getpid(), "a thread");
    /* A fork of a process with threads has one. */
    pid_t pid = start();
    if (pid == 0) {
        same_number("pthread_create in a child", pthread_create(&one, NULL, thread, &id), 0);
        pthread_join(one, NULL);
        own_descriptors("a child's descriptors");
        _exit(result());
    }
    all_well("fork", pid);
}

int main(int argc, char **argv)
{
    char program[4096];
    if (argc > 1 && argv[1][0] != '/')
        return child(argv[1]);
    strcpy(program, self());
    need("unshare", unshare(CLONE_NEWNS));
    need("mount", mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
    workplace();
    shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    own_descriptors("the descriptors");
    cloned();
    sharing();
    vforked();
    clone3_in_full();
    into_cgroup();
    namespaces();
    threads();
    executed(program, "environment");
    if (argc > 1)
        executed(argv[1], "environment");
    kept(program);
#ifdef __x86_64__
    need("PR_SET_TSC", prctl(PR_SET_TSC, PR_TSC_SIGSEGV));
    same_number("personality", personality(PER_LINUX32 | ADDR_NO_RANDOMIZE), 0);
    executed(program, "tsc");
    need("PR_SET_TSC", prctl(PR_SET_TSC, PR_TSC_ENABLE));
    personality(PER_LINUX);
#endif
    implied();
    return result();
}
