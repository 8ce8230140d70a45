// The vDSO as a C library finds it: an ELF image at AT_SYSINFO_EHDR, its symbols by either hash table, and what
// each of its functions answers beside the system call.
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static uintptr_t bias;
static const Elf64_Sym *symbols;
static const char *names;
static const uint32_t *old_hash, *gnu_hash;
static const uint16_t *versions;

static void read_image(const Elf64_Ehdr *image) {
    const Elf64_Phdr *headers = (void *)((uintptr_t)image + image->e_phoff);
    const Elf64_Dyn *dynamic = 0;
    for (int i = 0; i < image->e_phnum; i++) {
        if (headers[i].p_type == PT_LOAD) bias = (uintptr_t)image + headers[i].p_offset - headers[i].p_vaddr;
        if (headers[i].p_type == PT_DYNAMIC) dynamic = (void *)((uintptr_t)image + headers[i].p_offset);
    }
    for (; dynamic->d_tag; dynamic++) {
        void *value = (void *)(bias + dynamic->d_un.d_ptr);
        switch (dynamic->d_tag) {
        case DT_STRTAB: names = value; break;
        case DT_SYMTAB: symbols = value; break;
        case DT_HASH: old_hash = value; break;
        case DT_GNU_HASH: gnu_hash = value; break;
        case DT_VERSYM: versions = value; break;
        }
    }
}

static void *by_old_hash(const char *name) {
    uint32_t hash = 0;
    for (const char *c = name; *c; c++) {
        hash = (hash << 4) + *c;
        hash = (hash ^ (hash >> 24 & 0xf0)) & 0xfffffff;
    }
    const uint32_t *buckets = old_hash + 2, *chain = buckets + old_hash[0];
    for (uint32_t i = buckets[hash % old_hash[0]]; i; i = chain[i])
        if (!strcmp(names + symbols[i].st_name, name)) return (void *)(bias + symbols[i].st_value);
    return 0;
}

static void *by_gnu_hash(const char *name) {
    uint32_t hash = 5381;
    for (const char *c = name; *c; c++) hash = hash * 33 + (uint8_t)*c;
    const uint64_t *bloom = (void *)(gnu_hash + 4);
    const uint32_t *buckets = (void *)(bloom + gnu_hash[2]), *chain = buckets + gnu_hash[0];
    uint64_t word = bloom[hash / 64 % gnu_hash[2]];
    if (!(word >> hash % 64 & 1 && word >> (hash >> gnu_hash[3]) % 64 & 1)) return 0;
    for (uint32_t i = buckets[hash % gnu_hash[0]]; i; i++) {
        uint32_t other = chain[i - gnu_hash[1]];
        if ((other | 1) == (hash | 1) && !strcmp(names + symbols[i].st_name, name)) return (void *)(bias + symbols[i].st_value);
        if (other & 1) break;
    }
    return 0;
}

static void *find(const char *name) {
    void *address = by_gnu_hash(name);
    printf("%s: %s\n", name, !address ? "not there" : "there");
    // Kernels since 6.16 have left out DT_HASH.
    if (old_hash && by_old_hash(name) != address) printf("  but not by DT_HASH\n");
    return address;
}

static int64_t nanoseconds(struct timespec time) { return time.tv_sec * 1000000000 + time.tv_nsec; }

int main(void) {
    read_image((void *)getauxval(AT_SYSINFO_EHDR));
    printf("symbols with versions: %s\n", symbols && names && gnu_hash && versions ? "yes" : "no");

    int (*clock_get)(int, struct timespec *) = find("__vdso_clock_gettime");
    int (*resolution)(int, struct timespec *) = find("__vdso_clock_getres");
    for (int clock = -2; clock < 14; clock++) {
        // Whether the clocks that wake a machine are there is the machine's affair.
        if (clock == CLOCK_REALTIME_ALARM || clock == CLOCK_BOOTTIME_ALARM) continue;
        struct timespec before, now, after, own, kernels;
        long first = syscall(SYS_clock_gettime, clock, &before);
        int answer = clock_get(clock, &now);
        syscall(SYS_clock_gettime, clock, &after);
        if (answer < 0) first = first < 0 ? -errno : 0;
        // A coarse clock may be a tick behind; the kernel's own vDSO does not agree with it to the nanosecond.
        int64_t slack = 1000;
        int within = nanoseconds(now) >= nanoseconds(before) - slack && nanoseconds(now) <= nanoseconds(after) + slack;
        printf("clock %d: %s", clock, answer ? answer == first ? "the kernel's error" : "another error" : within ? "between" : "off");
        long known = syscall(SYS_clock_getres, clock, &kernels);
        answer = resolution(clock, &own);
        printf(", resolution %s\n", answer < 0 || known < 0 ? (answer < 0) == (known < 0) ? "refused" : "odd" :
            nanoseconds(own) == nanoseconds(kernels) ? "the same" : "another");
    }

    int (*day)(struct timeval *, struct timezone *) = find("__vdso_gettimeofday");
    struct timeval before, now, after;
    struct timezone zone = {1, 1}, kernels;
    syscall(SYS_gettimeofday, &before, &kernels);
    int answer = day(&now, &zone);
    syscall(SYS_gettimeofday, &after, 0);
    printf("gettimeofday: %d, %s, zone %s\n", answer, !timercmp(&now, &before, <) && !timercmp(&after, &now, <) ? "between" : "off",
        !memcmp(&zone, &kernels, sizeof zone) ? "the same" : "another");
    printf("gettimeofday into nothing: %d\n", day(0, 0));

    long (*seconds)(long *) = find("__vdso_time");
    long stored = 0, first = syscall(SYS_time, 0), second = seconds(&stored), third = syscall(SYS_time, 0);
    printf("time: %s, stored %s\n", first <= second && second <= third ? "between" : "off", stored == second ? "too" : "not");
    printf("time into nothing: %s\n", seconds(0) >= second ? "later" : "earlier");

    long (*processor)(unsigned *, unsigned *, void *) = find("__vdso_getcpu");
    unsigned cpu = -1, node = -1, kernels_cpu, kernels_node;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    sched_setaffinity(0, sizeof one, &one);
    syscall(SYS_getcpu, &kernels_cpu, &kernels_node, 0);
    long result = processor(&cpu, &node, 0);
    printf("getcpu: %ld, %s\n", result, cpu == kernels_cpu && node == kernels_node ? "the same" : "another");
    printf("getcpu into nothing: %ld\n", processor(0, 0, 0));

    // getrandom(2) of the vDSO: the state's size is asked for with a length of ~0 (Documentation: vgetrandom).
    ssize_t (*random)(void *, size_t, unsigned, void *, size_t) = find("__vdso_getrandom");
    if (random) {
        struct {
            uint32_t size, prot, flags, reserved[13];
        } parameters = {0};
        // An error is an answer, too: then a C library makes the system call.
        ssize_t asked = random(0, 0, 0, &parameters, ~0ul);
        void *state = mmap(0, 4096, parameters.prot, parameters.flags, -1, 0);
        int given = asked == 0 && parameters.size && parameters.size <= 4096 && state != MAP_FAILED;
        printf("getrandom's parameters: %s\n", given || asked == -ENOSYS ? "given or refused" : "odd");
        unsigned char bytes[2][64] = {0};
        ssize_t one = random(bytes[0], 64, 0, state, parameters.size), two = random(bytes[1], 64, 0, state, parameters.size);
        printf("getrandom: %zd %zd, %s\n", one, two, memcmp(bytes[0], bytes[1], 64) ? "different" : "the same");
        printf("getrandom of nothing: %zd, with odd flags: %zd\n", random(bytes[0], 0, 0, state, parameters.size),
            random(bytes[0], 8, 0x80, state, parameters.size));
    }
    return 0;
}
