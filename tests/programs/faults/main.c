// What a handler sees of a fault: signal, code, address, trap number, error code, cr2, the instruction and the flags.
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

static sigjmp_buf back;
static char stack[65536];
static uint64_t start, defined;

static void handler(int signo, siginfo_t *info, void *context) {
  greg_t *g = ((ucontext_t *)context)->uc_mcontext.gregs;
  int trap = g[REG_TRAPNO];
  printf(" signal %d code %d addr %#lx trap %d err %#lx cr2 %#lx rip +%ld flags %#llx rcx %#lx\n", signo, info->si_code,
         // Where an instruction is, is not the same in every run.
         (uint64_t)info->si_addr - start < 4096 ? 1 : (uint64_t)info->si_addr, trap, (long)g[REG_ERR],
         trap == 14 ? (uint64_t)g[REG_CR2] : 0, (long)(g[REG_RIP] - start), g[REG_EFL] & defined, (long)g[REG_RCX]);
  siglongjmp(back, 1);
}

// A piece of code that is entered with rdi = readable memory, rsi = an address that faults, rcx = 3, all flags clear.
#define CODE(name, text) \
  void name(void); \
  __asm__(".text\n.balign 16\n.globl " #name "\n" #name ":\n" text "\n ret\n");
// The fault, and behind it something that overwrites all flags.
#define FAULT "mov (%rsi), %rax\n cmp %r8, %r9\n"

CODE(zero_idiom, "xor %eax, %eax\n" FAULT)
CODE(result, "mov $0x7f, %al\n add $1, %al\n lea 5(%rdi), %rdx\n" FAULT)
CODE(overwritten, "mov $0x7f, %al\n add $1, %al\n mov %rdi, %rax\n" FAULT)
CODE(comparison, "mov $0x10, %eax\n cmp $0x81, %eax\n jz 1f\n 1:" FAULT)
CODE(stack_pointer, "push %rcx\n sub $0x7ff8, %rsp\n push %rdx\n pop %rdx\n add $0x8000, %rsp\n" FAULT)
CODE(increment, "mov $0xff, %al\n add %al, %al\n inc %ecx\n" FAULT)
CODE(shift, "mov $5, %eax\n shr $1, %eax\n mov %eax, %edx\n" FAULT)
CODE(shift_left, "mov $0xc0000000, %eax\n shl $1, %eax\n" FAULT)
CODE(shift_by_zero, "xor %ecx, %ecx\n mov $5, %eax\n cmp $9, %eax\n shl %cl, %eax\n mov $7, %eax\n" FAULT)
CODE(rotate, "mov $1, %eax\n cmp $2, %eax\n ror $1, %eax\n" FAULT)
CODE(product, "mov $-1, %rax\n mul %rax\n" FAULT)
CODE(carry_chain, "stc\n mov $-1, %rax\n adc $0, %rax\n mov %rdi, %rax\n" FAULT)
CODE(memory_operand, "cmpl $5, (%rdi)\n" FAULT)
CODE(at_a_join, "mov %ecx, %eax\n 1: sub $1, %eax\n jnz 1b\n 2:" FAULT)
CODE(turn_of_a_loop, "xor %eax, %eax\n 1: cmp $2, %ecx\n cmove %rsi, %rdi\n mov (%rdi), %rdx\n add $0x40, %al\n dec %ecx\n jmp 1b\n")
CODE(behind_a_call, "call 1f\n" FAULT "ret\n 1: mov $0x80, %al\n sub $1, %al\n")
CODE(in_a_callee, "mov $0x80, %al\n cmp $1, %al\n mov %rsp, %rdx\n mov %rsi, %rsp\n add $8, %rsp\n cmp $1, %al\n call 1f\n 1: cmp %r8, %r9\n")
CODE(in_a_string, "cmp %rdi, %rsi\n rep movsb\n cmp %r8, %r9\n")
CODE(float_comparison, "pxor %xmm0, %xmm0\n ucomisd %xmm0, %xmm0\n" FAULT)
CODE(bit, "mov $2, %eax\n bt $1, %eax\n setc %cl\n sub %ecx, %eax\n" FAULT)
CODE(store, "cmp $7, %ecx\n mov %eax, (%rsi)\n cmp %r8, %r9\n")
CODE(subtract_from_memory, "test %ecx, %ecx\n sub %ecx, (%rsi)\n cmp %r8, %r9\n")
CODE(behind_a_helper, "cmp $7, %ecx\n stmxcsr (%rsi)\n cmp %r8, %r9\n")
CODE(saved_flags, "mov %rsp, %rdx\n lea 8(%rsi), %rsp\n cmp $7, %ecx\n pushfq\n mov %rdx, %rsp\n")
// A return that belongs to no call, to code that reads flags.
CODE(pushed_address, "lea 1f(%rip), %rax\n push %rax\n mov $5, %eax\n cmp $9, %eax\n mov $3, %eax\n ret\n 1: setc %cl\n" FAULT)

// `undefined` are the flags that the last instruction to write them leaves undefined.
// Operands of 16 bytes that lack their alignment.
CODE(aligned_load, "movaps 8(%rdi), %xmm0\n")
CODE(aligned_store, "movdqa %xmm0, 8(%rdi,%rcx,4)\n")
CODE(aligned_operand, "cmp $4, %ecx\n paddd 1(%rdi), %xmm0\n cmp %r8, %r9\n")
CODE(unaligned_forms, "movups 1(%rdi), %xmm0\n movdqu %xmm0, 3(%rdi)\n lddqu 5(%rdi), %xmm0\n movaps 16(%rdi), %xmm0\n")
CODE(known_alignment, "movaps (%rdi), %xmm0\n add $24, %rdi\n movaps 8(%rdi), %xmm0\n lea 4(%rdi), %rdx\n movaps (%rdx), %xmm0\n")
CODE(misaligned_and_bad, "movaps 4(%rsi), %xmm0\n")
CODE(misaligned_stack, "mov %rsp, %rdx\n or $8, %rsp\n movaps %xmm0, -64(%rsp)\n mov %rdx, %rsp\n")
CODE(misaligned_save, "fxsave 8(%rdi)\n")
CODE(misaligned_swap, "cmpxchg16b 8(%rdi)\n")
// Addresses that are not canonical.
CODE(no_load, "mov $0x1234567812345678, %rdx\n cmp $4, %ecx\n mov (%rdx), %rax\n cmp %r8, %r9\n")
CODE(no_store, "mov $0x800000000000, %rdx\n mov %rax, (%rdx)\n")
CODE(above_all, "mov $0x7ffffffff800, %rdx\n mov (%rdx), %rax\n")
CODE(no_stack, "mov %rsp, %rdx\n mov $0x1234567812345678, %rsp\n push %rax\n mov %rdx, %rsp\n")
CODE(no_frame, "mov %rbp, %rdx\n mov $0x1234567812345678, %rbp\n mov (%rbp), %rax\n mov %rdx, %rbp\n")
// Unmasked exceptions: the divide-by-zero, invalid, overflow, underflow and precision ones of SSE, then of the x87 unit.
#define UNMASKED(mask, text) "movl $" #mask ", (%rdi)\n ldmxcsr (%rdi)\n mov $0x3ff0000000000000, %rax\n movq %rax, %xmm0\n xorps %xmm1, %xmm1\n cmp $4, %ecx\n" text "\n cmp %r8, %r9\n movl $0x1f80, (%rdi)\n ldmxcsr (%rdi)\n"
CODE(divide, UNMASKED(0x1d80, "divsd %xmm1, %xmm0"))
CODE(invalid, UNMASKED(0x1f00, "sqrtsd %xmm1, %xmm1\n divsd %xmm1, %xmm1"))
CODE(overflow, UNMASKED(0x1b80, "mov $0x7fefffffffffffff, %rax\n movq %rax, %xmm0\n addsd %xmm0, %xmm0"))
CODE(underflow, UNMASKED(0x1780, "mov $0x0010000000000000, %rax\n movq %rax, %xmm0\n mov $0x3fe0000000000000, %rax\n movq %rax, %xmm1\n mulsd %xmm1, %xmm0"))
CODE(inexact, UNMASKED(0x0f80, "mov $0x4008000000000000, %rax\n movq %rax, %xmm1\n divsd %xmm1, %xmm0"))
CODE(comparison_of_nan, UNMASKED(0x1f00, "mov $-1, %rax\n movq %rax, %xmm1\n comisd %xmm1, %xmm0"))
CODE(conversion, UNMASKED(0x1f00, "mov $0x4400000000000000, %rax\n movq %rax, %xmm1\n cvttsd2si %xmm1, %ecx"))
CODE(two_exceptions, UNMASKED(0x1d80, "movl $7, (%rdi)\n divps %xmm1, %xmm0"))
CODE(masked, UNMASKED(0x1f80, "divsd %xmm1, %xmm0"))
CODE(x87_divide, "movw $0x37b, (%rdi)\n fldcw (%rdi)\n fld1\n fldz\n cmp $4, %ecx\n fdivrp\n cmp %r8, %r9\n mov %rcx, %rax\n cmp %rcx, %rdi\n fwait\n cmp %r8, %r9\n")
CODE(x87_invalid, "movw $0x37e, (%rdi)\n fldcw (%rdi)\n fldz\n fldz\n fdivrp\n test %ecx, %ecx\n fld1\n cmp %r8, %r9\n")

static void try(const char *name, void (*code)(void), void *bad, unsigned undefined) {
  static int memory[256] __attribute__((aligned(64)));
  memset(memory, 0, sizeof memory);
  defined = 0xcd5 & ~undefined;
  printf("%s:", name);
  fflush(stdout);
  start = (uint64_t)code;
  if (sigsetjmp(back, 1)) {
    __asm__ volatile("fnclex\n fninit\n ldmxcsr %0" : : "m"((int){0x1f80}));
    return;
  }
  __asm__ volatile("mov $3, %%ecx\n xor %%r8d, %%r8d\n mov $1, %%r9d\n pushq $0x202\n popfq\n call *%[code]"
                   : "+S"(bad)
                   : "D"(memory), [code] "r"(code)
                   : "rax", "rcx", "rdx", "r8", "r9", "r10", "r11", "xmm0", "xmm1", "memory", "cc");
  puts(" no signal");
}
#define TRY(name) try(#name, name, bad, 0)
#define TRY_BUT(undefined, name) try(#name, name, bad, undefined)
#define AF 0x10
#define PF 4
#define SF_ZF_AF_PF 0xd4

static void flags(void *bad) {
  TRY_BUT(AF, zero_idiom), TRY(result), TRY(overwritten), TRY(comparison), TRY_BUT(AF | PF, stack_pointer), TRY(increment), TRY_BUT(AF, shift);
  TRY_BUT(AF, shift_left), TRY(shift_by_zero), TRY(rotate), TRY_BUT(SF_ZF_AF_PF, product), TRY(carry_chain), TRY(memory_operand), TRY(at_a_join);
  TRY(turn_of_a_loop), TRY(behind_a_call), TRY(in_a_callee), TRY(in_a_string), TRY(float_comparison), TRY(bit);
  TRY(store), TRY(subtract_from_memory), TRY(behind_a_helper), TRY(saved_flags), TRY(pushed_address);
}

static void exceptions(void *bad) {
  TRY(aligned_load), TRY(aligned_store), TRY(aligned_operand), TRY(unaligned_forms), TRY(known_alignment);
  TRY(misaligned_and_bad), TRY_BUT(AF | PF, misaligned_stack), TRY(misaligned_save), TRY(misaligned_swap);
  TRY(no_load), TRY(no_store), TRY(above_all), TRY(no_stack), TRY(no_frame);
  TRY(divide), TRY(invalid), TRY(overflow), TRY(underflow), TRY(inexact), TRY(comparison_of_nan), TRY(conversion);
  TRY(two_exceptions), TRY(masked), TRY(x87_divide), TRY(x87_invalid);
}

int main(void) {
  int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE};
  stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
  sigaltstack(&alternate, 0);
  // A page below its own mapping that nothing may touch, at the same place in every run.
  void *bad = mmap((void *)0x10000000, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
  struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_ONSTACK};
  for (int i = 0; i < 5; i++) sigaction(signals[i], &action, 0);
  // Twice: translated when first met, and again.
  for (int round = 0; round < 2; round++) flags(bad), flags((void *)8), exceptions(bad);
  return 0;
}
