// The answers of an x86_64 kernel about the machine and the process: arch_prctl(2), prctl(2), ptrace(2), the vsyscall
// page, membarrier(2), flags of descriptors, IPC. Prints "ok", or what was not as it should be.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(x) do { if (!(x)) { printf("line %d: %s (errno %d)\n", __LINE__, #x, errno); fails++; } } while (0)
#define FAILS(x, error) CHECK((x) == -1 && errno == (error))

static int fails;
static uint64_t word;
#define ARCH(code, arg) syscall(SYS_arch_prctl, code, arg)

static void arch(void) {
  FAILS(ARCH(0x1001, 0x7ffffffff000), EPERM);
  FAILS(ARCH(0x1002, 0x800000000000), EPERM);
  CHECK(ARCH(0x1001, 0x7fffffffefff) == 0);
  CHECK(ARCH(0x1004, &word) == 0 && word == 0x7fffffffefff);
  CHECK(ARCH(0x1001, 0) == 0);
  FAILS(ARCH(0x1003, 8), EFAULT);
  FAILS(ARCH(0x1004, 8), EFAULT);
  CHECK(ARCH(0x1011, 0) == 1);
  // Components of the processor's state: x87 and SSE always.
  CHECK(ARCH(0x1021, &word) == 0 && (word & 3) == 3);
  CHECK(ARCH(0x1022, &word) == 0 && (word & 3) == 3);
  FAILS(ARCH(0x1021, 8), EFAULT);
  FAILS(ARCH(0x1023, 2), EOPNOTSUPP);
  FAILS(ARCH(0x1023, 17), EOPNOTSUPP);
  FAILS(ARCH(0x1023, 63), EINVAL);
  FAILS(ARCH(0x2003, 0), EEXIST);
  FAILS(ARCH(0x1234, 0), EINVAL);
  FAILS(syscall(SYS_set_thread_area, &word), ENOSYS);
  FAILS(syscall(SYS_pkey_alloc, 1, 0), EINVAL);
  FAILS(syscall(SYS_pkey_alloc, 0, 8), EINVAL);
  FAILS(syscall(SYS_pkey_free, 13), EINVAL);
}

static void options(void) {
  // Those of other architectures.
  static const int others[] = {5, 6, 9, 10, 11, 12, 19, 20, 43, 44, 45, 46, 50, 51, 54, 55, 56, 60, 61, 63, 64, 69, 70,
                               71, 72, 73};
  for (unsigned i = 0; i < sizeof others / sizeof *others; i++)
    if (syscall(SYS_prctl, others[i], 0, 0, 0, 0) != -1 || errno != EINVAL)
      printf("prctl %d\n", others[i]), fails++;
  int mode = 0;
  CHECK(prctl(PR_GET_TSC, &mode) == 0 && mode == PR_TSC_ENABLE);
  CHECK(prctl(PR_SET_TSC, PR_TSC_ENABLE) == 0);
  FAILS(prctl(PR_SET_TSC, 3), EINVAL);
  FAILS(prctl(PR_GET_TSC, 8), EFAULT);
  CHECK(prctl(PR_GET_DUMPABLE) == 1);
  CHECK(prctl(PR_SET_DUMPABLE, 0) == 0 && prctl(PR_GET_DUMPABLE) == 0 && prctl(PR_SET_DUMPABLE, 1) == 0);
  FAILS(prctl(PR_SET_DUMPABLE, 2), EINVAL);
  char name[16] = "";
  CHECK(prctl(PR_SET_NAME, "a name that is too long") == 0);
  CHECK(prctl(PR_GET_NAME, name) == 0 && strcmp(name, "a name that is ") == 0);
  CHECK(prctl(PR_SET_PDEATHSIG, SIGUSR1) == 0 && prctl(PR_GET_PDEATHSIG, &mode) == 0 && mode == SIGUSR1);
  CHECK(prctl(PR_SET_PDEATHSIG, 0) == 0);
  // The auxiliary vector, which begins with AT_SYSINFO_EHDR.
  uint64_t auxv[128] = {0};
  long size = prctl(0x41555856, auxv, sizeof auxv, 0, 0);
  CHECK(size > 16 * 10 && size < (long)sizeof auxv && auxv[0] == 33);
  auxv[1] = 1;
  CHECK(prctl(0x41555856, auxv, 8, 0, 0) == size && auxv[1] == 1);
  FAILS(prctl(0x41555856, auxv, 8, 1, 0), EINVAL);
  FAILS(prctl(0x41555856, 8, 8, 0, 0), EFAULT);
}

static void trace(void) {
  FAILS(syscall(SYS_ptrace, 12 /* PTRACE_GETREGS */, getpid(), 0, &word), ESRCH);
  FAILS(syscall(SYS_ptrace, 16 /* PTRACE_ATTACH */, getpid(), 0, 0), EPERM);
  FAILS(syscall(SYS_ptrace, 16, 0x3fffffff, 0, 0), ESRCH);
  FAILS(syscall(SYS_ptrace, 0x4206 /* PTRACE_SEIZE */, getppid(), 1, 0), EIO);
  FAILS(syscall(SYS_ptrace, 0x9999, getppid(), 0, 0), ESRCH);
}

static sigjmp_buf jump;
static volatile int code;
static void on_fault(int signal, siginfo_t *info, void *context) { code = info->si_code; siglongjmp(jump, signal); }

// The signal that reading the time stamp counter gives, with RDTSC and RDTSCP.
static int read_tsc(int both) {
  int signal = sigsetjmp(jump, 1);
  if (signal) return signal;
  if (both) __builtin_ia32_rdtscp(&(unsigned){0});
  else __builtin_ia32_rdtsc();
  return 0;
}

static void *reader(void *unused) { return (void *)(intptr_t)read_tsc(0); }

static void time_stamps(void) {
  struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER};
  pid_t child = fork();
  int status = 0, mode = 0;
  if (child == 0) {
    sigaction(SIGSEGV, &action, 0);
    for (int i = 0; i < 100; i++) {
      CHECK(read_tsc(i & 1) == 0);
      CHECK(prctl(PR_SET_TSC, PR_TSC_SIGSEGV) == 0 && prctl(PR_GET_TSC, &mode) == 0 && mode == PR_TSC_SIGSEGV);
      code = 0;
      CHECK(read_tsc(i & 1) == SIGSEGV && code == SI_KERNEL);
      CHECK(prctl(PR_SET_TSC, PR_TSC_ENABLE) == 0);
    }
    // Children and threads have what their maker has, and each its own.
    CHECK(prctl(PR_SET_TSC, PR_TSC_SIGSEGV) == 0);
    if (fork() == 0) _exit(read_tsc(0));
    wait(&status);
    CHECK(WEXITSTATUS(status) == SIGSEGV);
    pthread_t thread;
    void *result = 0;
    pthread_create(&thread, 0, reader, 0);
    prctl(PR_SET_TSC, PR_TSC_ENABLE);
    pthread_join(thread, &result);
    CHECK((intptr_t)result == SIGSEGV && read_tsc(0) == 0);
    fflush(stdout);
    _exit(fails != 0);
  }
  waitpid(child, &status, 0);
  CHECK(status == 0);
}

#define VSYSCALL 0xffffffffff600000

static void vsyscalls(void) {
  struct timeval tv = {0, -1};
  time_t now = 0;
  unsigned cpu = ~0u, node = ~0u;
  int signal;
  CHECK(((int (*)(void *, void *))VSYSCALL)(&tv, 0) == 0 && tv.tv_sec > 1600000000 && tv.tv_usec >= 0);
  CHECK(((time_t (*)(time_t *))(VSYSCALL + 0x400))(&now) == now && now >= tv.tv_sec);
  CHECK(((int (*)(unsigned *, unsigned *))(VSYSCALL + 0x800))(&cpu, &node) == 0 && cpu != ~0u && node != ~0u);
  struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER};
  sigaction(SIGSEGV, &action, 0);
  if (!(signal = sigsetjmp(jump, 1))) CHECK(*(volatile char *)VSYSCALL && 0);
  CHECK(signal == SIGSEGV);
  if (!(signal = sigsetjmp(jump, 1))) ((int (*)(void))(VSYSCALL + 0xc00))();
  CHECK(signal == SIGSEGV);
  if (!(signal = sigsetjmp(jump, 1))) ((int (*)(void))(VSYSCALL + 1))();
  CHECK(signal == SIGSEGV);
  if (!(signal = sigsetjmp(jump, 1))) ((int (*)(void *, void *))VSYSCALL)((void *)8, 0);
  CHECK(signal == SIGSEGV);
  action.sa_handler = SIG_DFL;
  action.sa_flags = 0;
  sigaction(SIGSEGV, &action, 0);
  // A filter of system calls sees it.
  fflush(stdout);
  if (fork() == 0) {
    struct sock_filter list[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_time, 0, 3),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 8), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)VSYSCALL + 0x400, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | 7), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    struct sock_fprog program = {6, list};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
    _exit(((time_t (*)(time_t *))(VSYSCALL + 0x400))(&now) != -7 || syscall(SYS_time, 0) < now);
  }
  int status;
  wait(&status);
  CHECK(status == 0);
}

static void barriers(void) {
  long known = syscall(SYS_membarrier, 0, 0, 0);
  CHECK(known > 0 && (known & 1) && (known & 8) && (known & 16));
  CHECK(syscall(SYS_membarrier, 1, 0, 0) == 0);
  FAILS(syscall(SYS_membarrier, 8, 0, 0), EPERM);
  CHECK(syscall(SYS_membarrier, 16, 0, 0) == 0 && syscall(SYS_membarrier, 8, 0, 0) == 0);
  CHECK(syscall(SYS_membarrier, 64, 0, 0) == 0 && syscall(SYS_membarrier, 32, 0, 0) == 0);
  FAILS(syscall(SYS_membarrier, 1 << 20, 0, 0), EINVAL);
}

// Without O_LARGEFILE and O_NOFOLLOW, of which an emulator has its own idea.
#define FLAGS(fd) (fcntl(fd, F_GETFL) & ~(0100000 | O_NOFOLLOW))
static void flags(void) {
  int p[2], fd = open("file", O_RDWR | O_CREAT | O_NOFOLLOW | O_NOATIME, 0600);
  CHECK(FLAGS(fd) == (O_RDWR | O_NOATIME));
  CHECK(fcntl(fd, F_SETFL, O_APPEND | O_NONBLOCK) == 0);
  CHECK((FLAGS(fd) & (O_APPEND | O_NONBLOCK | O_NOATIME)) == (O_APPEND | O_NONBLOCK));
  close(fd);
  CHECK(pipe2(p, O_DIRECT | O_NONBLOCK) == 0 && FLAGS(p[0]) == O_NONBLOCK && (FLAGS(p[1]) & O_NONBLOCK));
  // With O_DIRECT what was written is read as it was.
  char b[8];
  CHECK(write(p[1], "abc", 3) == 3 && write(p[1], "de", 2) == 2 && read(p[0], b, 8) == 3);
  close(p[0]), close(p[1]);
  FAILS(open("file", O_DIRECTORY), ENOTDIR);
  CHECK(symlink("file", "link") == 0);
  FAILS(open("link", O_NOFOLLOW), ELOOP);
  fd = open("link", O_NOFOLLOW | O_PATH);
  CHECK(FLAGS(fd) == O_PATH);
  close(fd);
  fd = open(".", O_TMPFILE | O_RDWR, 0600);
  CHECK((FLAGS(fd) & O_TMPFILE) == O_TMPFILE);
  close(fd);
  struct { uint64_t flags, mode, resolve; } how = {O_DIRECTORY | O_NOFOLLOW};
  FAILS(syscall(SYS_openat2, AT_FDCWD, "link", &how, sizeof how), ENOTDIR);
  unlink("file"), unlink("link");
}

static void ipc(void) {
  int id = semget(IPC_PRIVATE, 3, 0600);
  struct semid_ds sem;
  memset(&sem, 0xff, sizeof sem);
  CHECK(semctl(id, 0, IPC_STAT, &sem) == 0 && sem.sem_nsems == 3 && sem.sem_perm.mode == 0600 && sem.sem_otime == 0 &&
        sem.sem_ctime > 1600000000);
  sem.sem_perm.mode = 0640;
  CHECK(semctl(id, 0, IPC_SET, &sem) == 0 && semctl(id, 0, IPC_STAT, &sem) == 0 && sem.sem_perm.mode == 0640);
  unsigned short values[3] = {1, 2, 3}, read[3];
  CHECK(semctl(id, 0, SETALL, values) == 0 && semctl(id, 0, GETALL, read) == 0 && !memcmp(values, read, 6));
  CHECK(semctl(id, 1, GETVAL) == 2 && semctl(id, 0, IPC_RMID) == 0);
  FAILS(semctl(id, 0, IPC_STAT, &sem), EINVAL);
  int queue = msgget(IPC_PRIVATE, 0600);
  struct msqid_ds msg;
  struct { long type; char text[8]; } message = {5, "hello"};
  CHECK(msgsnd(queue, &message, 6, 0) == 0 && msgctl(queue, IPC_STAT, &msg) == 0 && msg.msg_qnum == 1 &&
        msg.msg_cbytes == 6 && msg.msg_lspid == getpid() && msg.msg_stime > 1600000000);
  message.type = 0;
  CHECK(msgrcv(queue, &message, 8, 0, IPC_NOWAIT) == 6 && message.type == 5 && msgctl(queue, IPC_RMID, 0) == 0);
  int segment = shmget(IPC_PRIVATE, 8192, 0600);
  struct shmid_ds shm;
  char *at = shmat(segment, 0, 0);
  CHECK(at != (void *)-1 && shmctl(segment, IPC_STAT, &shm) == 0 && shm.shm_segsz == 8192 && shm.shm_nattch == 1 &&
        shm.shm_cpid == getpid());
  at[8191] = 1;
  CHECK(shmdt(at) == 0 && shmctl(segment, IPC_RMID, 0) == 0);
}

static void memory(void) {
  long page = 4096;
  char *at = mmap(0, 8 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  memset(at, 7, 8 * page);
  CHECK(madvise(at + page, 2 * page, MADV_DONTNEED) == 0 && at[page] == 0 && at[3 * page] == 7 && at[0] == 7);
  FAILS(madvise(at + 1, page, MADV_NORMAL), EINVAL);
  FAILS(mlock2(at, page, 8), EINVAL);
  CHECK(munmap(at + 4 * page, 4 * page) == 0);
  FAILS((long)mremap(at + 5 * page, page, 2 * page, MREMAP_MAYMOVE), EFAULT);
  char *moved = mremap(at, 4 * page, 64 * page, MREMAP_MAYMOVE);
  CHECK(moved != MAP_FAILED && moved[3 * page] == 7 && moved[63 * page] == 0);
  FAILS((long)mremap(moved, 64 * page, 65 * page, MREMAP_FIXED), EINVAL);
  munmap(moved, 64 * page);
  // Sealed.
  at = mmap(0, 4 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  FAILS(syscall(462, at, page, 1), EINVAL);
  FAILS(syscall(462, at + 1, page, 0), EINVAL);
  FAILS(syscall(462, 0x1000, page, 0), ENOMEM);
  CHECK(mprotect(at, page, PROT_READ) == 0 && syscall(462, at, 2 * page, 0) == 0 && syscall(462, at, 2 * page, 0) == 0);
  FAILS(munmap(at, page), EPERM);
  FAILS(mprotect(at + page, page, PROT_READ), EPERM);
  FAILS((long)mmap(at, page, PROT_READ, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), EPERM);
  FAILS((long)mremap(at + page, page, 2 * page, MREMAP_MAYMOVE), EPERM);
  FAILS(madvise(at, page, MADV_DONTNEED), EPERM);
  CHECK(madvise(at + page, page, MADV_DONTNEED) == 0 && munmap(at + 2 * page, 2 * page) == 0);
  FAILS(syscall(SYS_remap_file_pages, at, page, 0, 0, 0), EINVAL);
  // A device of no file system that is mounted.
  FAILS(syscall(SYS_ustat, makedev(250, 250), &word), EINVAL);
}

int main(void) {
  arch();
  options();
  time_stamps();
  trace();
  vsyscalls();
  barriers();
  flags();
  ipc();
  memory();
  puts(fails ? "failed" : "ok");
  return fails != 0;
}
