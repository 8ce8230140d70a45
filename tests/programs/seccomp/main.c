// seccomp(2): what filters see and what each action does, to this process, its threads, children and the programs
// they execute. Prints "ok", or what was not as it should be. Also part of the virtual machine's tests.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#define CHECK(x) do { if (!(x)) { printf("line %d: %s (errno %d)\n", __LINE__, #x, errno); fflush(stdout); fails++; } } while (0)
#define ABS(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define IS(value, t, f) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, t, f)
#define RET(value) BPF_STMT(BPF_RET | BPF_K, value)
#define INSTALL(flags, ...) ({ \
  struct sock_filter list_[] = {__VA_ARGS__}; \
  struct sock_fprog prog_ = {sizeof list_ / sizeof *list_, list_}; \
  syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &prog_); })
// One system call gets an answer, all others are allowed.
#define ANSWER(number, action) INSTALL(0, ABS(nr), IS(number, 0, 1), RET(action), RET(SECCOMP_RET_ALLOW))
#define CHILD(...) ({ fflush(stdout); pid_t pid_ = fork(); \
  if (pid_ == 0) { fails = 0; prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); __VA_ARGS__; fflush(stdout); _exit(fails != 0); } \
  int status_ = -1; waitpid(pid_, &status_, 0); status_; })
#define WELL(status) expect(__LINE__, status, 0)
#define BY(status, signal) expect(__LINE__, (status) & 0x7f, signal)

static int fails;
static char *self;

static void expect(int line, int has, int wanted) {
  if (has == wanted) return;
  printf("line %d: %#x, not %#x\n", line, has, wanted);
  fails++;
}

static void refused(void) {
  struct sock_filter allow = RET(SECCOMP_RET_ALLOW);
  struct sock_fprog empty = {0, &allow}, unreadable = {1, (void *)8};
  WELL(CHILD({
    CHECK(syscall(SYS_seccomp, 1, 1 << 20, &empty) == -1 && errno == EINVAL);
    CHECK(syscall(SYS_seccomp, 1, 0, &empty) == -1 && errno == EINVAL);
    CHECK(syscall(SYS_seccomp, 1, 0, &unreadable) == -1 && errno == EFAULT);
    CHECK(syscall(SYS_seccomp, 1, 0, (void *)8) == -1 && errno == EFAULT);
    CHECK(syscall(SYS_seccomp, 0, 1, 0) == -1 && errno == EINVAL);
    CHECK(syscall(SYS_seccomp, 99, 0, 0) == -1 && errno == EINVAL);
    CHECK(INSTALL(SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_NEW_LISTENER, allow) == -1 && errno == EINVAL);
    CHECK(INSTALL(0, BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 64), allow) == -1 && errno == EINVAL);
    CHECK(INSTALL(0, BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 0), allow) == -1 && errno == EINVAL);
    CHECK(INSTALL(0, BPF_STMT(BPF_ALU | BPF_MOD | BPF_K, 3), allow) == -1 && errno == EINVAL);
    CHECK(INSTALL(0, BPF_STMT(BPF_LD | BPF_MEM, 0), allow) == -1 && errno == EINVAL);
    CHECK(INSTALL(0, IS(0, 1, 0), allow) == -1 && errno == EINVAL);
    CHECK(INSTALL(0, BPF_STMT(BPF_LD | BPF_IMM, 0)) == -1 && errno == EINVAL);
    CHECK(prctl(PR_SET_SECCOMP, 9, 0, 0, 0) == -1 && errno == EINVAL);
    CHECK(prctl(PR_GET_SECCOMP, 0, 0, 0, 0) == 0);
  }));
  fflush(stdout);
  // Without privileges and without no_new_privs.
  pid_t child = fork();
  int status;
  if (child == 0) {
    fails = 0;
    CHECK(getuid() != 0 || setuid(65534) == 0);
    CHECK(INSTALL(0, allow) == -1 && errno == EACCES);
    CHECK(INSTALL(0, BPF_STMT(BPF_LD | BPF_IMM, 0)) == -1 && errno == EACCES);
    CHECK(syscall(SYS_seccomp, 1, 0, &empty) == -1 && errno == EINVAL);
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && INSTALL(0, allow) == 0);
    fflush(stdout);
    _exit(fails != 0);
  }
  waitpid(child, &status, 0);
  WELL(status);
}

static void available(void) {
  uint32_t known[] = {SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_KILL_THREAD, SECCOMP_RET_TRAP, SECCOMP_RET_ERRNO,
                      SECCOMP_RET_USER_NOTIF, SECCOMP_RET_TRACE, SECCOMP_RET_LOG, SECCOMP_RET_ALLOW}, other = 0x10000;
  for (unsigned i = 0; i < sizeof known / sizeof *known; i++)
    CHECK(syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &known[i]) == 0);
  CHECK(syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &other) == -1 && errno == EOPNOTSUPP);
  CHECK(syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 1, &known) == -1 && errno == EINVAL);
  CHECK(syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, 8) == -1 && errno == EFAULT);
  struct seccomp_notif_sizes sizes = {0};
  CHECK(syscall(SYS_seccomp, SECCOMP_GET_NOTIF_SIZES, 0, &sizes) == 0);
  CHECK(sizes.seccomp_notif == 80 && sizes.seccomp_notif_resp == 24 && sizes.seccomp_data == 64);
}

// What a filter sees.
static void data(void) {
  WELL(CHILD({
    CHECK(INSTALL(0, ABS(arch), IS(AUDIT_ARCH_X86_64, 0, 4), ABS(nr), IS(SYS_getppid, 0, 1),
                  RET(SECCOMP_RET_ERRNO | 77), RET(SECCOMP_RET_ALLOW), RET(SECCOMP_RET_KILL_PROCESS)) == 0);
    CHECK(syscall(SYS_getppid) == -1 && errno == 77);
    CHECK(prctl(PR_GET_SECCOMP, 0, 0, 0, 0) == 2);
    CHECK(getpid() > 0);
    // All of a register, whatever the call takes of it.
    CHECK(INSTALL(0, ABS(nr), IS(SYS_dup2, 0, 5), BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 28), IS(0x12345678, 0, 3),
                  BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 16), IS(1000, 0, 1), RET(SECCOMP_RET_ERRNO | 78),
                  RET(SECCOMP_RET_ALLOW)) == 0);
    CHECK(syscall(SYS_dup2, 1000, 0x1234567800000000) == -1 && errno == 78);
    CHECK(syscall(SYS_dup2, 1000, 0) == -1 && errno == EBADF);
    // The sixth argument.
    CHECK(INSTALL(0, ABS(nr), IS(SYS_mmap, 0, 3), BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 56), IS(0x7000, 0, 1),
                  RET(SECCOMP_RET_ERRNO | 79), RET(SECCOMP_RET_ALLOW)) == 0);
    CHECK(mmap(0, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0x7000) == MAP_FAILED && errno == 79);
    CHECK(mmap(0, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED);
  }));
  // A call of a number that nothing has, and one of a number below zero.
  WELL(CHILD({
    CHECK(ANSWER(9999, SECCOMP_RET_ERRNO | 5) == 0);
    CHECK(syscall(9999) == -1 && errno == 5);
    CHECK(ANSWER(0xfffffff0, SECCOMP_RET_ERRNO | 6) == 0);
    CHECK(syscall(-16) == -1 && errno == 6);
    CHECK(ANSWER(SYS_getppid, SECCOMP_RET_ERRNO) == 0);
    CHECK(syscall(SYS_getppid) == 0);
    CHECK(ANSWER(SYS_getpgrp, SECCOMP_RET_ERRNO | 0xffff) == 0);
    // Not through the C library, to which this is no error.
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(SYS_getpgrp) : "rcx", "r11", "memory");
    CHECK(result == -4095);
  }));
}

__attribute__((noinline, noclone)) static long calls_at_a_place(void) {
  long result;
  __asm__ volatile("syscall\n.globl place_behind\nplace_behind:" : "=a"(result) : "a"(SYS_getppid) : "rcx", "r11", "memory");
  return result;
}
extern char place_behind[];

static void place(void) {
  uint64_t at = (uint64_t)place_behind;
  WELL(CHILD({
    CHECK(INSTALL(0, BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 8), IS((uint32_t)at, 0, 3),
                  BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 12), IS((uint32_t)(at >> 32), 0, 1), RET(SECCOMP_RET_ERRNO | 80),
                  RET(SECCOMP_RET_ALLOW)) == 0);
    CHECK(calls_at_a_place() == -80);
    CHECK(syscall(SYS_getppid) > 0);
  }));
}

static volatile int trapped;
static siginfo_t trap_info;
static volatile uint64_t trap_rax;
static volatile uint64_t trap_rip;

static void on_trap(int signal, siginfo_t *info, void *context) {
  ucontext_t *u = context;
  trapped = signal;
  trap_info = *info;
  trap_rax = u->uc_mcontext.gregs[REG_RAX];
  trap_rip = u->uc_mcontext.gregs[REG_RIP];
  u->uc_mcontext.gregs[REG_RAX] = 4711;
}

static void traps(void) {
  WELL(CHILD({
    struct sigaction action = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO};
    sigaction(SIGSYS, &action, 0);
    CHECK(ANSWER(SYS_getppid, SECCOMP_RET_TRAP | 123) == 0);
    CHECK(calls_at_a_place() == 4711);
    CHECK(trapped == SIGSYS && trap_info.si_code == 1 /* SYS_SECCOMP */ && trap_info.si_errno == 123);
    CHECK(trap_info.si_syscall == SYS_getppid && trap_info.si_arch == AUDIT_ARCH_X86_64);
    CHECK(trap_info.si_call_addr == place_behind && trap_rip == (uint64_t)place_behind);
    CHECK(trap_rax == SYS_getppid);
  }));
  BY(CHILD({ ANSWER(SYS_getppid, SECCOMP_RET_TRAP); syscall(SYS_getppid); }), SIGSYS);
  BY(CHILD({ ANSWER(SYS_getppid, SECCOMP_RET_TRAP); signal(SIGSYS, SIG_IGN); syscall(SYS_getppid); }), SIGSYS);
  // A handler cannot return when sigreturn is not allowed.
  BY(CHILD({
    signal(SIGUSR1, SIG_DFL);
    struct sigaction action = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO};
    sigaction(SIGUSR1, &action, 0);
    ANSWER(SYS_rt_sigreturn, SECCOMP_RET_KILL_PROCESS);
    raise(SIGUSR1);
  }), SIGSYS);
}

static void *calls_getppid(void *result) {
  *(long *)result = syscall(SYS_getppid);
  return 0;
}

static pthread_barrier_t barrier;

static void *waits_and_calls(void *result) {
  pthread_barrier_wait(&barrier);
  pthread_barrier_wait(&barrier);
  return calls_getppid(result);
}

static void *is_killed(void *unused) {
  ANSWER(SYS_getppid, SECCOMP_RET_KILL_THREAD);
  syscall(SYS_getppid);
  return "alive";
}

static void kills(void) {
  BY(CHILD({ ANSWER(SYS_getppid, SECCOMP_RET_KILL_PROCESS); syscall(SYS_getppid); }), SIGSYS);
  BY(CHILD({ ANSWER(SYS_getppid, SECCOMP_RET_KILL_THREAD); syscall(SYS_getppid); }), SIGSYS);
  BY(CHILD({ ANSWER(SYS_getppid, 0x00010000); syscall(SYS_getppid); }), SIGSYS);
  // One thread of two, of which the other goes on.
  WELL(CHILD({
    pthread_t thread;
    void *result = 0;
    CHECK(pthread_create(&thread, 0, is_killed, 0) == 0);
    CHECK(pthread_join(thread, &result) == 0 && result == 0);
    CHECK(syscall(SYS_getppid) > 0);
  }));
  BY(CHILD({
    pthread_t thread;
    long result;
    ANSWER(SYS_getppid, SECCOMP_RET_KILL_PROCESS);
    pthread_create(&thread, 0, calls_getppid, &result);
    pthread_join(thread, 0);
  }), SIGSYS);
}

static void other_actions(void) {
  WELL(CHILD({
    CHECK(ANSWER(SYS_getppid, SECCOMP_RET_TRACE | 7) == 0);
    CHECK(syscall(SYS_getppid) == -1 && errno == ENOSYS);
    CHECK(ANSWER(SYS_getpgrp, SECCOMP_RET_USER_NOTIF) == 0);
    CHECK(syscall(SYS_getpgrp) == -1 && errno == ENOSYS);
    // The kernel's own numbers are numbers, too (ERESTARTSYS).
    CHECK(ANSWER(SYS_getegid, SECCOMP_RET_ERRNO | 512) == 0);
    CHECK(syscall(SYS_getegid) == -1 && errno == 512);
    CHECK(ANSWER(SYS_getuid, SECCOMP_RET_LOG) == 0);
    CHECK(syscall(SYS_getuid) == getuid());
  }));
  // The strictest of several counts, of equal ones the newest.
  WELL(CHILD({
    ANSWER(SYS_getppid, SECCOMP_RET_ERRNO | 1);
    ANSWER(SYS_getppid, SECCOMP_RET_ERRNO | 2);
    CHECK(syscall(SYS_getppid) == -1 && errno == 2);
    ANSWER(SYS_getppid, SECCOMP_RET_TRACE);
    CHECK(syscall(SYS_getppid) == -1 && errno == 2);
    // It may take away the right to install more.
    ANSWER(SYS_seccomp, SECCOMP_RET_ERRNO | 3);
    CHECK(ANSWER(SYS_getppid, SECCOMP_RET_ERRNO | 4) == -1 && errno == 3);
  }));
}

// The vDSO answers without a system call.
static void vdso(void) {
  WELL(CHILD({
    ANSWER(SYS_clock_gettime, SECCOMP_RET_ERRNO | 1);
    ANSWER(SYS_gettimeofday, SECCOMP_RET_KILL_PROCESS);
    struct timespec t;
    CHECK(syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &t) == -1 && errno == 1);
    CHECK(clock_gettime(CLOCK_MONOTONIC, &t) == 0);
    CHECK(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t) == -1 && errno == 1);
  }));
}

static void strict(void) {
  BY(CHILD({ prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT); syscall(SYS_getpid); }), SIGKILL);
  BY(CHILD({ syscall(SYS_seccomp, SECCOMP_SET_MODE_STRICT, 0, 0); prctl(PR_GET_SECCOMP); }), SIGKILL);
  int p[2];
  char text[3] = "";
  CHECK(pipe2(p, O_CLOEXEC) == 0);
  int status = CHILD({
    CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) == 0);
    write(p[1], "hi", 2);
    syscall(SYS_exit, 5);
  });
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 5);
  CHECK(read(p[0], text, 2) == 2 && strcmp(text, "hi") == 0);
  WELL(CHILD({
    ANSWER(SYS_getppid, SECCOMP_RET_ALLOW);
    CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) == -1 && errno == EINVAL);
  }));
}

static void *installs(void *unused) {
  ANSWER(SYS_getpgrp, SECCOMP_RET_ERRNO | 9);
  pthread_barrier_wait(&barrier);
  pthread_barrier_wait(&barrier);
  return (void *)(long)syscall(SYS_gettid);
}

static void threads(void) {
  // A thread has what its maker had, and what it installs is its own.
  WELL(CHILD({
    pthread_t thread;
    long result = 0;
    ANSWER(SYS_getppid, SECCOMP_RET_ERRNO | 5);
    pthread_create(&thread, 0, calls_getppid, &result);
    pthread_join(thread, 0);
    CHECK(result == -1);
  }));
  WELL(CHILD({
    pthread_t thread;
    long result = 0;
    pthread_barrier_init(&barrier, 0, 2);
    pthread_create(&thread, 0, waits_and_calls, &result);
    pthread_barrier_wait(&barrier);
    ANSWER(SYS_getppid, SECCOMP_RET_ERRNO | 5);
    pthread_barrier_wait(&barrier);
    pthread_join(thread, 0);
    CHECK(result > 0);
  }));
  // All at once.
  WELL(CHILD({
    pthread_t thread;
    long result = 0;
    pthread_barrier_init(&barrier, 0, 2);
    pthread_create(&thread, 0, waits_and_calls, &result);
    pthread_barrier_wait(&barrier);
    ANSWER(SYS_getpgrp, SECCOMP_RET_ERRNO | 6);
    CHECK(INSTALL(SECCOMP_FILTER_FLAG_TSYNC, ABS(nr), IS(SYS_getppid, 0, 1), RET(SECCOMP_RET_ERRNO | 7),
                  RET(SECCOMP_RET_ALLOW)) == 0);
    pthread_barrier_wait(&barrier);
    pthread_join(thread, 0);
    CHECK(result == -1);
  }));
  // A thread with filters of its own cannot take others.
  WELL(CHILD({
    pthread_t thread;
    void *tid;
    pthread_barrier_init(&barrier, 0, 2);
    pthread_create(&thread, 0, installs, 0);
    pthread_barrier_wait(&barrier);
    long unlike = INSTALL(SECCOMP_FILTER_FLAG_TSYNC, RET(SECCOMP_RET_ERRNO | 7));
    CHECK(INSTALL(SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_TSYNC_ESRCH, RET(SECCOMP_RET_ERRNO | 7)) == -1 &&
          errno == ESRCH);
    pthread_barrier_wait(&barrier);
    pthread_join(thread, &tid);
    CHECK(unlike > 0 && unlike == (long)tid);
    CHECK(prctl(PR_GET_SECCOMP) == 0);
  }));
}

// Children, and programs executed by them.
static void inherited(void) {
  WELL(CHILD({
    ANSWER(SYS_getppid, SECCOMP_RET_ERRNO | 81);
    ANSWER(SYS_getpgrp, SECCOMP_RET_ERRNO | 82);
    WELL(CHILD({
      CHECK(syscall(SYS_getppid) == -1 && errno == 81);
      ANSWER(SYS_getppid, SECCOMP_RET_ERRNO | 83);
      CHECK(syscall(SYS_getppid) == -1 && errno == 83);
    }));
    CHECK(syscall(SYS_getppid) == -1 && errno == 81);
    pid_t child = vfork();
    if (child == 0) {
      execl(self, self, "executed", (char *)0);
      _exit(3);
    }
    int status;
    waitpid(child, &status, 0);
    CHECK(status == 0);
    CHECK(execl("/none", "none", (char *)0) == -1 && errno == ENOENT);
    execl(self, self, "executed", "again", (char *)0);
    CHECK(0);
  }));
}

static int executed(int again) {
  CHECK(prctl(PR_GET_SECCOMP) == 2);
  CHECK(syscall(SYS_getppid) == -1 && errno == 81);
  CHECK(syscall(SYS_getpgrp) == -1 && errno == 82);
  CHECK(syscall(SYS_getuid) == getuid());
  for (int fd = 3; fd < 1024; fd++) {
    long result = syscall(SYS_fcntl, fd, 1 /* F_GETFD */);
    if (result >= 0)
      printf("descriptor %d is open\n", fd), fails++;
  }
  if (again) {
    CHECK(ANSWER(SYS_getpgrp, SECCOMP_RET_ERRNO | 82) == 0);
    fflush(stdout);
    execl(self, self, "executed", (char *)0);
    CHECK(0);
  }
  return fails != 0;
}

int main(int argc, char **argv) {
  self = argv[0];
  if (argc > 1 && strcmp(argv[1], "executed") == 0)
    return executed(argc > 2);
  close_range(3, ~0U, 0);
  refused();
  available();
  data();
  place();
  traps();
  kills();
  other_actions();
  vdso();
  strict();
  threads();
  inherited();
  puts(fails ? "failed" : "ok");
  return fails != 0;
}
