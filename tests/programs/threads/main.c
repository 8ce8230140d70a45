// Threads and processes: locks, thread-local storage, signals to threads, fork among threads, spawning, exit.
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#define CHECK(x) do { if (!(x)) { printf("line %d: %s (errno %d)\n", __LINE__, #x, errno); fails++; } } while (0)

extern char **environ;
static int fails;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t started = PTHREAD_COND_INITIALIZER;
static long counter, atomic_counter;
static int go;
static __thread int local = 5;
static volatile int stop, spinner, signalled;

static void *work(void *arg) {
  long n = (long)arg;
  local += n;
  pthread_mutex_lock(&lock);
  while (!go) pthread_cond_wait(&started, &lock);
  pthread_mutex_unlock(&lock);
  for (int i = 0; i < 1000; i++) {
    pthread_mutex_lock(&lock); counter++; pthread_mutex_unlock(&lock);
    __atomic_fetch_add(&atomic_counter, 1, __ATOMIC_SEQ_CST);
  }
  char *p = malloc(1000 + n); memset(p, n, 1000); free(p);
  return (void *)(long)local;
}
static void note_thread(int s) { (void)s; signalled = syscall(SYS_gettid); }
static void *spin(void *arg) { (void)arg; spinner = syscall(SYS_gettid); while (!stop) ; return 0; }
static void *fork_some(void *arg) {
  for (int i = 0; i < 5; i++) {
    int st; pid_t p = fork();
    if (!p) { free(malloc(100)); _exit(i); }
    waitpid(p, &st, 0); CHECK(WEXITSTATUS(st) == i);
  }
  return arg;
}
static void *exit_nine(void *arg) { (void)arg; exit(9); }

static void many_threads(void) {
  pthread_t t[8]; void *r;
  for (long i = 0; i < 8; i++) CHECK(pthread_create(&t[i], 0, work, (void *)i) == 0);
  pthread_mutex_lock(&lock); go = 1; pthread_cond_broadcast(&started); pthread_mutex_unlock(&lock);
  for (long i = 0; i < 8; i++) { pthread_join(t[i], &r); CHECK((long)r == 5 + i); }
  for (int i = 0; i < 50; i++) { pthread_create(&t[0], 0, work, (void *)1); pthread_join(t[0], &r); }
  CHECK(counter == 58000 && atomic_counter == 58000);
}

// Ordered accesses at addresses that are not aligned, across 16 bytes, a cache line and a page; with system calls between,
// at which they may be translated anew.
static void misaligned(void) {
  static char memory[3 * 4096] __attribute__((aligned(4096)));
  static const int places[] = {10, 60, 4093};
  for (int n = 0; n < 60; n++, getppid()) {
    int i = n % 3;
    volatile unsigned long *p = (volatile unsigned long *)(memory + places[i]);
    *p = 0x1122334455667788 + i;
    CHECK(*p == 0x1122334455667788 + i && memory[places[i] + 7] == 0x11);
    *p += 1;
    CHECK(*p == 0x1122334455667789 + i);
  }
}

// Pushes and pops in a row, with faults between: the handler sees where the stack pointer is, and lets the code go on.
void row(void);
__asm__(".text\n.balign 16\nrow:\n mov %rsp, %r8\n push %rcx\n push %rdx\n mov (%rsi), %rax\n push %rax\n sub $24, %rsp\n"
        " mov %rcx, (%rsp)\n add $24, %rsp\n pop %rax\n pop %r9\n mov (%rdi), %r10\n pop %r10\n cmp %rsp, %r8\n setne %al\n ret\n");

static long depths[2];
static void note_depth(int signo, siginfo_t *info, void *context) {
  greg_t *g = ((ucontext_t *)context)->uc_mcontext.gregs;
  static long good;
  int second = g[REG_RSI] != 0;
  (void)signo; (void)info;
  depths[second] = g[REG_R8] - g[REG_RSP];
  g[second ? REG_RDI : REG_RSI] = (greg_t)&good;
}

static void faults_in_a_row(void) {
  struct sigaction a = {.sa_sigaction = note_depth, .sa_flags = SA_SIGINFO}, old;
  sigaction(SIGSEGV, &a, &old);
  for (int i = 0; i < 50; i++) {
    register long r9 __asm__("r9"), r10 __asm__("r10");
    long rsi = 0, rdi = 0, wrong;
    __asm__ volatile("sub $128, %%rsp\n call row\n add $128, %%rsp"
                     : "+S"(rsi), "+D"(rdi), "=a"(wrong), "=r"(r9), "=r"(r10) : "c"(11L), "d"(12L) : "r8", "memory", "cc");
    CHECK(depths[0] == 16 && depths[1] == 8 && (wrong & 0xff) == 0 && r9 == 12 && r10 == 11);
    depths[0] = depths[1] = 0;
  }
  sigaction(SIGSEGV, &old, 0);
}

static void one_is_signalled(void) {
  pthread_t t; struct sigaction a = {.sa_handler = note_thread};
  sigaction(SIGUSR1, &a, 0);
  pthread_create(&t, 0, spin, 0);
  while (!spinner) usleep(1000);
  pthread_kill(t, SIGUSR1);
  while (!signalled) usleep(1000);
  CHECK(signalled == spinner); stop = 1; pthread_join(t, 0);
}

static void forks(void) {
  pthread_t t[4]; int st; pid_t p;
  stop = 0; pthread_create(&t[3], 0, spin, 0);
  for (int i = 0; i < 3; i++) pthread_create(&t[i], 0, fork_some, 0);
  for (int i = 0; i < 3; i++) pthread_join(t[i], 0);
  stop = 1; pthread_join(t[3], 0);
  int *shared = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (!(p = fork())) { shared[1] = 77; _exit(0); }
  waitpid(p, &st, 0); CHECK(shared[1] == 77);
  if (!(p = fork())) { pthread_create(&t[0], 0, exit_nine, 0); pause(); }
  waitpid(p, &st, 0); CHECK(WIFEXITED(st) && WEXITSTATUS(st) == 9);
  if (!(p = fork())) { stop = 0; pthread_create(&t[0], 0, spin, 0); pthread_detach(t[0]); syscall(SYS_exit, 0); }
  usleep(100000); CHECK(waitpid(p, &st, WNOHANG) == 0); kill(p, SIGKILL); waitpid(p, &st, 0);
}

static void programs(void) {
  char *args[] = {"/bin/sh", "-c", "exit 11", 0}, line[32] = ""; pid_t p; int st;
  CHECK(posix_spawn(&p, args[0], 0, 0, args, environ) == 0); waitpid(p, &st, 0); CHECK(WEXITSTATUS(st) == 11);
  args[0] = "/nonexistent"; CHECK(posix_spawn(&p, args[0], 0, 0, args, environ) == ENOENT);
  FILE *f = popen("echo popen", "r"); CHECK(fgets(line, sizeof line, f) && !strcmp(line, "popen\n")); pclose(f);
  CHECK(system("exit 4") == 0x400);
  if (!(p = vfork())) _exit(6);
  waitpid(p, &st, 0); CHECK(WEXITSTATUS(st) == 6);
}

int main(void) {
  many_threads();
  misaligned();
  faults_in_a_row();
  one_is_signalled();
  forks();
  programs();
  puts(fails ? "failed" : "ok");
  return fails != 0;
}
