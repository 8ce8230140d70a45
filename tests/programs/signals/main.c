// Signals: delivery in loops and in system calls, masks, frames, alternate stacks, faults, default actions.
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#define CHECK(x) do { if (!(x)) { printf("line %d: %s (got %d, errno %d)\n", __LINE__, #x, (int)got, errno); fails++; } } while (0)

static int fails;
static volatile sig_atomic_t got, depth, on_stack;
static char alt[65536];
static sigjmp_buf jump;

static void note(int s) { got = s; }
static void note_info(int s, siginfo_t *i, void *u) { (void)s; (void)u; got = i->si_signo * 1000 + i->si_code; }
static void note_stack(int s) { char c; on_stack = &c >= alt && &c < alt + sizeof alt; got = s; }
static void jump_out(int s) { siglongjmp(jump, s); }
static void inner(int s) { (void)s; depth = depth * 10 + 2; }
static void outer(int s) { (void)s; depth = depth * 10 + 1; raise(SIGUSR2); depth = depth * 10 + 3; }
static void skip_two_bytes(int s, siginfo_t *i, void *u) { (void)i; got = s; ((ucontext_t *)u)->uc_mcontext.gregs[REG_RIP] += 2; }

static void timer(int ms) { struct itimerval t = {{0, 0}, {ms / 1000, ms % 1000 * 1000}}; setitimer(ITIMER_REAL, &t, 0); }
static void set(int sig, void (*f)(int), int flags) { struct sigaction a = {.sa_handler = f, .sa_flags = flags}; sigaction(sig, &a, 0); }
static void set_info(int sig, void (*f)(int, siginfo_t *, void *)) { struct sigaction a = {.sa_sigaction = f, .sa_flags = SA_SIGINFO}; sigaction(sig, &a, 0); }

static void in_loops_and_calls(void) {
  int p[2], st; char b[8];
  set(SIGALRM, note, 0);
  got = 0; timer(400); volatile unsigned long n = 0; while (!got) n++; CHECK(got == SIGALRM);
  got = 0; timer(400); while (!got) ; CHECK(got == SIGALRM);
  CHECK(pipe(p) == 0);
  got = 0; timer(400); CHECK(read(p[0], b, 1) == -1 && errno == EINTR); CHECK(got == SIGALRM);
  set(SIGALRM, note, SA_RESTART);
  got = 0; timer(400);
  if (!fork()) { struct timespec t = {1, 500000000}; nanosleep(&t, 0); CHECK(write(p[1], "x", 1) == 1); _exit(0); }
  CHECK(read(p[0], b, 1) == 1); CHECK(got == SIGALRM); wait(&st);
  struct timespec t = {5, 0}, rest = {0, 0};
  got = 0; timer(400); CHECK(nanosleep(&t, &rest) == -1 && errno == EINTR && rest.tv_sec == 4);
  struct pollfd f = {p[0], POLLIN, 0};
  got = 0; timer(400); CHECK(poll(&f, 1, 5000) == -1 && errno == EINTR);
  signal(SIGPIPE, SIG_IGN); close(p[0]); CHECK(write(p[1], "x", 1) == -1 && errno == EPIPE); close(p[1]);
}

static void masks(void) {
  sigset_t usr1, old, pending; siginfo_t info; union sigval v = {.sival_int = 5}; struct timespec t = {5, 0};
  set_info(SIGUSR1, note_info);
  got = 0; kill(getpid(), SIGUSR1); CHECK(got == 10000 + SI_USER);
  got = 0; sigqueue(getpid(), SIGUSR1, v); CHECK(got == 10000 + SI_QUEUE);
  sigemptyset(&usr1); sigaddset(&usr1, SIGUSR1); sigprocmask(SIG_BLOCK, &usr1, &old);
  got = 0; kill(getpid(), SIGUSR1); CHECK(got == 0);
  sigpending(&pending); CHECK(sigismember(&pending, SIGUSR1));
  CHECK(sigsuspend(&old) == -1 && errno == EINTR); CHECK(got == 10000);
  sigprocmask(SIG_BLOCK, 0, &pending); CHECK(sigismember(&pending, SIGUSR1));
  got = 0; kill(getpid(), SIGUSR1); CHECK(ppoll(0, 0, &t, &old) == -1 && errno == EINTR); CHECK(got == 10000);
  kill(getpid(), SIGUSR1); CHECK(sigwaitinfo(&usr1, &info) == SIGUSR1 && info.si_pid == getpid());
  got = 0; kill(getpid(), SIGUSR1); sigprocmask(SIG_SETMASK, &old, 0); CHECK(got == 10000);
}

static void frames(void) {
  stack_t stack = {.ss_sp = alt, .ss_size = sizeof alt}, now; struct sigaction a;
  CHECK(sigaltstack(&stack, 0) == 0); set(SIGUSR2, note_stack, SA_ONSTACK);
  raise(SIGUSR2); CHECK(on_stack == 1);
  sigaltstack(0, &now); CHECK(now.ss_sp == alt && now.ss_flags == 0);
  set(SIGUSR1, outer, 0); set(SIGUSR2, inner, 0); raise(SIGUSR1); CHECK(depth == 123);
  set(SIGUSR2, note, SA_RESETHAND); raise(SIGUSR2); sigaction(SIGUSR2, 0, &a); CHECK(a.sa_handler == SIG_DFL);
}

static void faults(void) {
  int r; volatile int round;
  set(SIGSEGV, jump_out, 0); set(SIGFPE, jump_out, 0); set(SIGILL, jump_out, 0);
  for (round = 0; round < 2; round++) {
    if (!(r = sigsetjmp(jump, 1))) *(volatile int *)8 = 1;
    CHECK(r == SIGSEGV);
  }
  if (!(r = sigsetjmp(jump, 1))) { int q, z = 0; __asm__ volatile("cltd; idivl %1" : "=a"(q) : "r"(z), "0"(1) : "edx"); }
  CHECK(r == SIGFPE);
  if (!(r = sigsetjmp(jump, 1))) __asm__ volatile("ud2");
  CHECK(r == SIGILL);
  set(SIGTRAP, note, 0); got = 0; __asm__ volatile("int3"); CHECK(got == SIGTRAP);
  set_info(SIGILL, skip_two_bytes); got = 0; __asm__ volatile("ud2"); CHECK(got == SIGILL);
  set(SIGSEGV, note, 0); got = 0; kill(getpid(), SIGSEGV); CHECK(got == SIGSEGV);
}

static void default_actions(void) {
  int st; pid_t c;
  if (!fork()) { raise(SIGTERM); _exit(1); }
  wait(&st); CHECK(WIFSIGNALED(st) && WTERMSIG(st) == SIGTERM);
  if (!fork()) { signal(SIGSEGV, SIG_DFL); *(volatile int *)8 = 1; _exit(1); }
  wait(&st); CHECK(WIFSIGNALED(st) && WTERMSIG(st) == SIGSEGV);
  if (!(c = fork())) { raise(SIGSTOP); _exit(7); }
  waitpid(c, &st, WUNTRACED); CHECK(WIFSTOPPED(st)); kill(c, SIGCONT);
  waitpid(c, &st, 0); CHECK(WIFEXITED(st) && WEXITSTATUS(st) == 7);
  sigset_t chld, old; sigemptyset(&chld); sigaddset(&chld, SIGCHLD); sigprocmask(SIG_BLOCK, &chld, &old);
  set(SIGCHLD, note, 0); got = 0; if (!fork()) _exit(0);
  while (!got) sigsuspend(&old); // blocked until here: a signal before pause() would be lost
  CHECK(got == SIGCHLD); wait(0); sigprocmask(SIG_SETMASK, &old, 0);
}

int main(void) {
  in_loops_and_calls();
  masks();
  frames();
  faults();
  default_actions();
  puts(fails ? "failed" : "ok");
  return fails != 0;
}
