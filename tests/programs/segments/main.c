// Segment registers, descriptors and far transfers of a 64-bit process.
#define _GNU_SOURCE
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

static sigjmp_buf back;

static void handler(int signo, siginfo_t *info, void *context) {
  greg_t *g = ((ucontext_t *)context)->uc_mcontext.gregs;
  printf(" signal %d code %d addr %#lx trap %lld err %#llx selectors %#llx\n", signo, info->si_code,
         (uint64_t)info->si_addr, g[REG_TRAPNO], g[REG_ERR], g[REG_CSGSFS]);
  siglongjmp(back, 1);
}

#define TRY(statement) \
  do { \
    if (!sigsetjmp(back, 1)) { \
      statement; \
    } \
  } while (0)

static void registers(const char *where) {
  uint64_t cs, ss, ds, es, fs, gs;
  __asm__ volatile("mov %%cs, %0\n mov %%ss, %1\n mov %%ds, %2\n mov %%es, %3\n mov %%fs, %4\n mov %%gs, %5"
                   : "=r"(cs), "=r"(ss), "=r"(ds), "=r"(es), "=r"(fs), "=r"(gs));
  printf("%s: cs %lx ss %lx ds %lx es %lx fs %lx gs %lx\n", where, cs, ss, ds, es, fs, gs);
}

static const uint16_t selectors[] = {0,    4,    7,    8,    0x10, 0x1b, 0x20, 0x23, 0x28, 0x29,  0x2a,
                                     0x2b, 0x30, 0x33, 0x38, 0x40, 0x4b, 0x50, 0x63, 0x7b, 0x83, 0xfff8};

static void descriptors(uint16_t selector) {
  uint64_t rights = 0xdead, limit = 0xbeef;
  uint8_t has_rights, has_limit, readable, writable;
  __asm__ volatile("lar %k4, %k0\n setz %1\n lsl %k4, %k2\n setz %3"
                   : "+r"(rights), "=&q"(has_rights), "+r"(limit), "=&q"(has_limit)
                   : "r"((uint64_t)selector)
                   : "cc");
  __asm__ volatile("verr %w2\n setz %0\n verw %w2\n setz %1"
                   : "=&q"(readable), "=&q"(writable)
                   : "r"(selector)
                   : "cc");
  // The limit at 0x7b is the processor's number.
  if (selector == 0x7b) limit = 0;
  printf("%x: lar %d %lx lsl %d %lx verr %d verw %d\n", selector, has_rights, rights, has_limit, limit, readable,
         writable);
}

static void loads(uint16_t selector) {
  uint64_t seen, base = 0x123456789000;
  TRY(__asm__ volatile("mov %1, %%ds\n mov %%ds, %0" : "=r"(seen) : "r"((uint64_t)selector)); printf(" ds %lx", seen));
  TRY(__asm__ volatile("mov %1, %%es\n mov %%es, %0" : "=r"(seen) : "r"((uint64_t)selector)); printf(" es %lx", seen));
  TRY(__asm__ volatile("mov %1, %%ss\n mov %%ss, %0" : "=r"(seen) : "r"((uint64_t)selector)); printf(" ss %lx", seen));
  TRY(__asm__ volatile("wrgsbase %1\n push %2\n pop %%gs\n mov %%gs, %0\n rdgsbase %1"
                       : "=&r"(seen), "+&r"(base)
                       : "r"((uint64_t)selector));
      printf(" gs %lx base %lx\n", seen, base));
  __asm__ volatile("mov %0, %%ds\n mov %0, %%es\n mov %0, %%gs" ::"r"(0));
}

// FS carries the thread pointer: its base is put back before anything uses it.
static void fs(void) {
  uint64_t base, after, seen;
  struct {
    uint32_t offset;
    uint16_t selector;
  } __attribute__((packed)) pointer = {0x1234, 0x2b};
  uint64_t offset;
  __asm__ volatile("rdfsbase %0\n lfs %4, %k3\n mov %%fs, %2\n rdfsbase %1\n wrfsbase %0"
                   : "=&r"(base), "=&r"(after), "=&r"(seen), "=&r"(offset)
                   : "m"(pointer));
  printf("lfs: %lx, fs %lx, base %lx\n", offset, seen, after);
  registers("with a base");
  syscall(SYS_arch_prctl, 0x1002, base);
  registers("after ARCH_SET_FS");
}

static void far_transfers(void) {
  uint64_t rsp, result = 0;
  __asm__ volatile("mov %%rsp, %0\n lea 1f(%%rip), %%rax\n push $0x33\n push %%rax\n lretq\n 1:\n sub %%rsp, %0"
                   : "=&r"(rsp)::"rax", "memory");
  printf("retf: rsp %ld\n", rsp);
  __asm__ volatile(
      "mov %%rsp, %%rdx\n mov %%ss, %%ecx\n push %%rcx\n push %%rdx\n push $0xad7\n mov %%cs, %%ecx\n push %%rcx\n"
      "lea 1f(%%rip), %%rax\n push %%rax\n cmp %%eax, %%eax\n iretq\n 1: pushf\n pop %0\n cld\n sub %%rsp, %%rdx"
      : "=r"(result), "=&d"(rsp)::"rax", "rcx", "memory", "cc");
  printf("iretq: rsp %ld flags %lx\n", rsp, result & 0xcd5);
  static struct {
    uint32_t offset;
    uint16_t selector;
  } __attribute__((packed)) pointer = {0, 0x33};
  __asm__ volatile("lea 1f(%%rip), %%rax\n mov %%eax, %1\n ljmpl *%1\n mov $1, %0\n 1:" : "+r"(result), "+m"(pointer)::"rax");
  __asm__ volatile(
      "lea 1f(%%rip), %%rax\n mov %%eax, %1\n mov %%rsp, %%rdx\n lcalll *%1\n jmp 2f\n 1: mov (%%rsp), %0\n lretl\n"
      "2: shr $32, %0\n sub %%rsp, %%rdx"
      : "=&r"(result), "+m"(pointer), "=&d"(rsp)::"rax", "memory");
  printf("far call: cs %lx, rsp %ld\n", result, rsp);
  static const uint16_t wrong[] = {0, 0x2b, 0x10, 0x50, 0x7b, 0x32};
  for (unsigned i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    printf("to %x:\n", wrong[i]);
    pointer.selector = wrong[i];
    if (wrong[i] != 0x32) TRY(__asm__ volatile("ljmpl *%0" ::"m"(pointer)));
    TRY(__asm__ volatile("push %0\n push $0\n lretq" ::"r"((uint64_t)wrong[i]) : "memory"));
    TRY(__asm__ volatile("push $0x2b\n push $0\n push $0x202\n push %0\n push $0\n iretq" ::"r"((uint64_t)wrong[i])
                         : "memory"));
  }
}

static void tables(void) {
  uint8_t image[16];
#define STORE(name) \
  memset(image, 0xee, sizeof image); \
  __asm__ volatile(#name " %0" : "+m"(image)); \
  printf(#name); \
  for (int i = 0; i < 12; i++) printf(" %02x", image[i]); \
  puts("");
  STORE(sgdt) STORE(sidt) STORE(sldt) STORE(smsw) STORE(str)
}

static void *thread(void *unused) {
  registers("thread");
  return unused;
}

static void caught(int signo) { registers("handler"); }

int main(void) {
  setvbuf(stdout, NULL, _IONBF, 0);
  struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_NODEFER};
  sigaction(SIGSEGV, &action, NULL);
  sigaction(SIGBUS, &action, NULL);
  sigaction(SIGILL, &action, NULL);
  signal(SIGUSR1, caught);
  registers("start");
  for (unsigned i = 0; i < sizeof selectors / sizeof *selectors; i++) {
    descriptors(selectors[i]);
    loads(selectors[i]);
  }
  fs();
  far_transfers();
  tables();
  __asm__ volatile("mov %0, %%ds\n mov %0, %%es\n mov %0, %%gs" ::"r"(0x2b));
  raise(SIGUSR1);
  pthread_t other;
  pthread_create(&other, NULL, thread, NULL);
  pthread_join(other, NULL);
  if (!fork()) {
    registers("child");
    _exit(0);
  }
  wait(NULL);
  registers("end");
}
