# Code that changes: written by the program, by the kernel (read, uname), by itself, and under mprotect.
.globl _start
.text
_start:
  # RWX page
  mov $9,%eax
  xor %edi,%edi
  mov $8192,%esi
  mov $7,%edx
  mov $0x22,%r10d
  mov $-1,%r8
  xor %r9d,%r9d
  syscall
  mov %rax,%r15
  # copy code into it
  mov %rax,%rdi
  lea code(%rip),%rsi
  mov $(codeend-code),%ecx
1: movb (%rsi),%al
  movb %al,(%rdi)
  inc %rsi
  inc %rdi
  dec %ecx
  jnz 1b
  # call it 3 times, changing the immediate each time from outside
  xor %r14d,%r14d
  mov $5,%ecx
2: mov %ecx,%ebx
  movl %ebx,1(%r15)
  call *%r15
  add %eax,%r14d
  mov %ebx,%ecx
  dec %ecx
  jnz 2b
  cmp $15,%r14d
  jne bad
  # read(2) into the code page: pipe
  mov $22,%eax
  lea fds(%rip),%rdi
  syscall
  mov $1,%eax
  mov fds+4(%rip),%edi
  lea imm(%rip),%rsi
  mov $4,%edx
  syscall
  xor %eax,%eax
  mov fds(%rip),%edi
  lea 1(%r15),%rsi
  mov $4,%edx
  syscall
  cmp $4,%rax
  jne bad
  call *%r15
  cmp $0x11223344,%eax
  jne bad
  # clock_gettime (vdso-like handler writing) into code page via guest::write : uname
  mov $63,%eax
  lea 64(%r15),%rdi
  syscall
  test %eax,%eax
  jnz bad
  # code that modifies itself in its own page
  lea (self-code)(%r15),%rax
  mov $7,%ecx
  call *%rax
  cmp $7,%eax
  jne bad
  # mprotect to r-x, then rw, change, r-x
  mov $10,%eax
  mov %r15,%rdi
  mov $4096,%esi
  mov $5,%edx
  syscall
  call *%r15
  mov $10,%eax
  mov %r15,%rdi
  mov $4096,%esi
  mov $3,%edx
  syscall
  movl $0x77,1(%r15)
  mov $10,%eax
  mov %r15,%rdi
  mov $4096,%esi
  mov $5,%edx
  syscall
  call *%r15
  cmp $0x77,%eax
  jne bad
  mov $1,%eax
  mov $1,%edi
  lea ok(%rip),%rsi
  mov $3,%edx
  syscall
  mov $231,%eax
  xor %edi,%edi
  syscall
bad:
  mov $231,%eax
  mov $99,%edi
  syscall
code:
  mov $0,%eax
  ret
self:
  # overwrite the immediate of the next mov with ecx
  lea 3f+1(%rip),%rdx
  movl %ecx,(%rdx)
3: mov $0x5555,%eax
  ret
codeend:
.data
ok: .ascii "ok\n"
fds: .long 0,0
imm: .long 0x11223344
