// Small functions that call none, called in every way: what they return, where the stack is, what a handler sees of a fault in
// one, and signals and changes of code that come while they run.
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <ucontext.h>

enum { OFTEN = 200 };

typedef uint64_t function(const uint64_t *, uint64_t);

#define CODE(name, text) function name; __asm__(".text\n.balign 16\n.globl " #name "\n" #name ":\n" text "\n");
CODE(nothing, "mov %rsi, %rax\n ret\n")
CODE(load, "mov (%rdi), %rax\n add %rsi, %rax\n ret\n")
CODE(stack_argument, "mov 8(%rsp), %rax\n add (%rdi), %rax\n ret\n")
CODE(flags, "cmp (%rdi), %rsi\n setb %al\n movzbl %al, %eax\n ret\n")
CODE(narrow, "mov %sil, %al\n add (%rdi), %al\n movzbl %al, %eax\n bswap %rax\n ret\n")
CODE(with_a_branch, "mov %rsi, %rax\n test $1, %sil\n jz 1f\n add (%rdi), %rax\n 1: ret\n")
CODE(writes, "mov %rsi, %rax\n mov (%rsp), %rdx\n mov %rdx, (%rsp)\n ret\n")
// Returns behind the caller's next instruction, of two bytes.
CODE(elsewhere, "addq $2, (%rsp)\n mov %rsi, %rax\n ret\n")
CODE(drops, "mov %rsi, %rax\n ret $8\n")
CODE(outer, "call load\n ret\n .balign 16\n")
CODE(jumps, "jmp load\n .balign 16\n")
// A leaf that is also the end of another function.
CODE(with_a_tail, "test %rsi, %rsi\n jz tail\n add $3, %rsi\n jmp tail\n")
CODE(tail, "lea 1(%rsi), %rax\n ret\n")

static function *const functions[] = {
    nothing, load, stack_argument, flags, narrow, with_a_branch, writes, outer, jumps, with_a_tail, tail,
};

// Calls through a register with the stack pointer before and behind.
static uint64_t call(function *f, const uint64_t *p, uint64_t x, long *moved) {
  uint64_t result;
  register uint64_t before __asm__("r12"), behind __asm__("r13");
  __asm__ volatile("mov %%rsp, %%rbx\n sub $256, %%rsp\n and $-16, %%rsp\n push $77\n push $88\n"
                   "mov %%rsp, %%r12\n call *%[f]\n mov %%rsp, %%r13\n mov %%rbx, %%rsp"
                   : "=a"(result), "+D"(p), "+S"(x), "=&r"(before), "=&r"(behind)
                   : [f] "r"(f)
                   : "rbx", "rcx", "rdx", "r8", "r9", "r10", "r11", "memory", "cc");
  *moved = behind - before;
  return result;
}

static uint64_t skipping(uint64_t x) {
  uint64_t result;
  __asm__ volatile("sub $128, %%rsp\n call elsewhere\n .byte 0x0f, 0x0b\n add $128, %%rsp" // over UD2
                   : "=a"(result), "+S"(x) : : "rdi", "rdx", "memory", "cc");
  return result;
}

static sigjmp_buf back;
static uint64_t page[512];
static volatile long ticks;

static void at_fault(int signo, siginfo_t *info, void *context) {
  greg_t *g = ((ucontext_t *)context)->uc_mcontext.gregs;
  uint64_t *stack = (uint64_t *)g[REG_RSP];
  printf(" signal %d at load +%ld, address %#lx, the caller's stack %ld %ld\n", signo,
         (long)(g[REG_RIP] - (uint64_t)load), (uint64_t)info->si_addr, stack[1], stack[2]);
  if (info->si_addr == (void *)8) {
    g[REG_RDI] = (uint64_t)page; // and once more
    return;
  }
  siglongjmp(back, 1);
}

static void at_tick(int signo) {
  (void)signo;
  ticks++;
}

int main(void) {
  long moved;
  page[0] = 1000;
  for (unsigned i = 0; i < sizeof functions / sizeof *functions; i++) {
    uint64_t sum = 0;
    long all_moved = 0;
    for (int n = 0; n < OFTEN; n++) {
      sum = sum * 31 + call(functions[i], page, n, &moved);
      all_moved += moved;
    }
    printf("%u: %#lx, stack moved by %ld\n", i, sum, all_moved);
  }
  uint64_t sum = 0;
  for (int n = 0; n < OFTEN; n++) {
    sum += skipping(n);
    call(drops, page, n, &moved);
  }
  printf("skipped %lu, dropped %ld\n", sum, moved);

  // Calls by turns, and each directly.
  sum = 0;
  for (int n = 0; n < 20000; n++) {
    sum = sum * 3 + functions[n % 8 == 2 ? 0 : n % 8](page, n);
    sum += load(page, n) + nothing(page, n) + outer(page, n);
  }
  printf("by turns %#lx\n", sum);

  struct sigaction action = {.sa_sigaction = at_fault, .sa_flags = SA_SIGINFO | SA_NODEFER};
  sigaction(SIGSEGV, &action, NULL);
  for (int n = 0; n < OFTEN; n++) sum += call(load, page, n, &moved);
  for (int n = 0; n < 2; n++) {
    if (!sigsetjmp(back, 1)) call(load, (uint64_t *)16, 5, &moved);
    printf("once more: %lu\n", call(load, (uint64_t *)8, 5, &moved));
  }
  printf("%#lx\n", sum);

  // Signals that come at any time.
  signal(SIGALRM, at_tick);
  struct itimerval often = {{0, 500}, {0, 500}};
  setitimer(ITIMER_REAL, &often, NULL);
  uint64_t wrong = 0;
  for (uint64_t n = 0; ticks < 50; n++) {
    wrong += load(page, n) != n + 1000;
    wrong += functions[n % 2](page, n) != n + n % 2 * 1000;
    wrong += outer(page, n) != n + 1000;
  }
  often.it_value.tv_usec = 0;
  setitimer(ITIMER_REAL, &often, NULL);
  printf("%lu wrong while signals came\n", wrong);

  // A leaf that changes.
  unsigned char *code = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  sum = 0;
  for (int n = 0; n < 20; n++) {
    memcpy(code, "\xb8\0\0\0\0\xc3", 6); // mov $0, %eax; ret
    code[1] = n;
    for (int i = 0; i < 20; i++) sum = sum * 31 + call((function *)code, page, 0, &moved) + moved;
  }
  printf("changing %#lx\n", sum);

  // Nothing is at address 0.
  for (int n = 0; n < 3; n++) {
    if (!sigsetjmp(back, 1)) call((function *)NULL, page, 1, &moved);
  }
  return 0;
}
