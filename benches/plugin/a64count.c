/*
 * a64count - a QEMU TCG plugin that counts executed arm64 instructions.
 *
 * For qemu-user built with plugins, of the plugin interface's version 1 (qemu 5
 * to 8). The few functions of it that are used are declared below, so no header
 * of QEMU's is needed.
 *
 *   qemu-aarch64 -plugin a64count.so,out=FILE[,model=on][,hot=N][,blocks=FILE][,threads=on] PROGRAM...
 *
 *   out=FILE    append one JSON line per process image to FILE
 *   model=on    also count by class, and give a weighted sum ("cost") and the
 *               share of instructions in memory that no file backs ("jit")
 *   hot=N       also list the N blocks in which most instructions were executed
 *   blocks=FILE also append to FILE a line for each block outside of anonymous
 *               memory: pid, address, instructions, executions
 *   threads=on  exact counters for programs with several threads (slower)
 *
 * How: one inline 64-bit addition per execution of a block; the number of its
 * instructions (and of each class) is kept beside the counter and multiplied out
 * at the end. A block that is left early by a fault counts whole. A forked child
 * starts from zero; execve writes the line and starts from zero: the sum over
 * all lines is the total of the process tree, as far as the children themselves
 * run under this plugin.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- the part of the plugin API (v1) that is used ------------------------ */
#define EXPORT __attribute__((visibility("default")))
typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef struct qemu_info_t {
    const char *target_name;
    struct { int min, cur; } version;
    bool system_emulation;
    struct { int smp_vcpus, max_vcpus; } system;
} qemu_info_t;
enum { OP_ADD_U64 = 0 };
enum { CB_NO_REGS = 0 };
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t,
        void (*)(qemu_plugin_id_t, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, int op,
        void *ptr, uint64_t imm);
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *,
        void (*)(unsigned, void *), int flags, void *);
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t,
        void (*)(qemu_plugin_id_t, void *), void *);
void qemu_plugin_register_vcpu_syscall_cb(qemu_plugin_id_t,
        void (*)(qemu_plugin_id_t, unsigned, int64_t, uint64_t, uint64_t, uint64_t,
                 uint64_t, uint64_t, uint64_t, uint64_t, uint64_t));
void qemu_plugin_register_vcpu_syscall_ret_cb(qemu_plugin_id_t,
        void (*)(qemu_plugin_id_t, unsigned, int64_t, int64_t));
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
void *qemu_plugin_insn_haddr(const struct qemu_plugin_insn *);

EXPORT int qemu_plugin_version = 1;

/* ---- classes -------------------------------------------------------------- */
enum cls {
    C_ALU, C_MUL, C_DIV, C_CRC,
    C_LOAD, C_STORE, C_LDP, C_STP,
    C_LDACQ, C_STREL, C_EXCL, C_ATOMIC,
    C_VLOAD, C_VSTORE,
    C_B, C_BL, C_BCOND, C_BIND, C_RET,
    C_FPSIMD, C_FPDIV, C_FPMOV, C_CRYPTO,
    C_NZCV, C_FPCR, C_MRS, C_FLAGM, C_CACHE,
    C_DMB, C_ISB, C_SVC, C_HINT, C_OTHER,
    NCLS
};
static const char *const cls_name[NCLS] = {
    "alu", "mul", "div", "crc",
    "load", "store", "ldp", "stp",
    "ldacq", "strel", "excl", "atomic",
    "vload", "vstore",
    "b", "bl", "bcond", "bind", "ret",
    "fpsimd", "fpdiv", "fpmov", "crypto",
    "nzcv", "fpcr", "mrs", "flagm", "cache",
    "dmb", "isb", "svc", "hint", "other",
};
/* Weights in quarters of one simple ALU instruction.  A guess at the relative
 * cost on a wide out-of-order core with data in L1: it is for comparing
 * translators with one another, not for predicting time. */
static const unsigned weight[NCLS] = {
    [C_ALU] = 4, [C_MUL] = 8, [C_DIV] = 32, [C_CRC] = 8,
    [C_LOAD] = 8, [C_STORE] = 6, [C_LDP] = 10, [C_STP] = 8,
    [C_LDACQ] = 12, [C_STREL] = 16, [C_EXCL] = 32, [C_ATOMIC] = 40,
    [C_VLOAD] = 8, [C_VSTORE] = 6,
    [C_B] = 4, [C_BL] = 4, [C_BCOND] = 5, [C_BIND] = 12, [C_RET] = 6,
    [C_FPSIMD] = 6, [C_FPDIV] = 32, [C_FPMOV] = 10, [C_CRYPTO] = 8,
    [C_NZCV] = 12, [C_FPCR] = 40, [C_MRS] = 8, [C_FLAGM] = 4, [C_CACHE] = 80,
    [C_DMB] = 48, [C_ISB] = 120, [C_SVC] = 800, [C_HINT] = 2, [C_OTHER] = 8,
};

#define BITS(w, hi, lo) (((w) >> (lo)) & ((1u << ((hi) - (lo) + 1)) - 1))
#define BIT(w, n) (((w) >> (n)) & 1)

static enum cls decode_ldst(uint32_t w)
{
    bool v = BIT(w, 26);

    if (BITS(w, 29, 27) == 1 && !v) {            /* exclusive, ordered, CAS(P) */
        bool o2 = BIT(w, 23), l = BIT(w, 22), o1 = BIT(w, 21);
        if (BIT(w, 24))                          /* 001001: newer atomics      */
            return C_ATOMIC;
        if (!o2)
            return (o1 && !BIT(w, 31)) ? C_ATOMIC /* CASP */ : C_EXCL;
        if (o1)
            return C_ATOMIC;                     /* CAS */
        return l ? C_LDACQ : C_STREL;            /* LDAR/LDLAR, STLR/STLLR */
    }
    if (BITS(w, 29, 27) == 1)                    /* LD1..LD4, ST1..ST4 */
        return BIT(w, 22) ? C_VLOAD : C_VSTORE;
    if (BITS(w, 29, 27) == 5) {                  /* pairs */
        bool l = BIT(w, 22);
        return v ? (l ? C_VLOAD : C_VSTORE) : (l ? C_LDP : C_STP);
    }
    if (BITS(w, 29, 27) == 3) {
        if (!BIT(w, 24))                         /* literal */
            return v ? C_VLOAD : BITS(w, 31, 30) == 3 ? C_HINT : C_LOAD;
        if (BIT(w, 21))                          /* tags */
            return C_OTHER;
        if (BITS(w, 11, 10) == 0 || (v && BITS(w, 11, 10) == 2)) /* LDAPUR, STLUR */
            return BITS(w, 23, 22) == 0 || (v && BITS(w, 23, 22) == 2) ? C_STREL : C_LDACQ;
        return C_OTHER;                          /* MOPS, ... */
    }
    /* 111: single register */
    if (!BIT(w, 24) && BIT(w, 21) && BITS(w, 11, 10) == 0) {
        /* atomics; LDAPR is A=1 R=0 o3=1 opc=100 Rs=31 */
        if (!v && BITS(w, 23, 22) == 2 && BITS(w, 15, 12) == 12 && BITS(w, 20, 16) == 31)
            return C_LDACQ;
        return C_ATOMIC;
    }
    unsigned opc = BITS(w, 23, 22);
    if (v)
        return (opc & 1) ? C_VLOAD : C_VSTORE;
    if (opc == 0)
        return C_STORE;
    if (opc == 2 && BITS(w, 31, 30) == 3)
        return C_HINT;                           /* PRFM */
    return C_LOAD;
}

static enum cls decode_branch_sys(uint32_t w)
{
    if (BITS(w, 30, 26) == 5)
        return BIT(w, 31) ? C_BL : C_B;
    if (BITS(w, 31, 25) == 0x2a)                 /* B.cond, BC.cond */
        return C_BCOND;
    if (BITS(w, 30, 25) == 0x1a || BITS(w, 30, 25) == 0x1b)
        return C_BCOND;                          /* CBZ, CBNZ, TBZ, TBNZ */
    if (BITS(w, 31, 25) == 0x6b)
        return (BITS(w, 24, 21) & 7) == 2 ? C_RET : C_BIND;
    if (BITS(w, 31, 24) == 0xd4)
        return C_SVC;
    if (BITS(w, 31, 22) == 0x354) {              /* 1101010100 system */
        if ((w & 0xfffff01f) == 0xd503201f)
            return C_HINT;
        if ((w & 0xfffff01f) == 0xd503301f)
            return BITS(w, 7, 5) == 6 || BITS(w, 7, 5) == 7 ? C_ISB :
                   BITS(w, 7, 5) == 2 ? C_HINT : C_DMB;
        if ((w & 0xfff8f01f) == 0xd500401f)
            return C_FLAGM;                      /* CFINV, XAFLAG, AXFLAG */
        if (BITS(w, 20, 19) == 1)
            return C_CACHE;                      /* DC ZVA, IC IVAU, ... */
        if (BIT(w, 20)) {
            unsigned r = BITS(w, 19, 5);         /* o0 op1 CRn CRm op2 */
            if (r == (1 << 14 | 3 << 11 | 4 << 7 | 2 << 3 | 0))
                return C_NZCV;
            if ((r & ~1u) == (1 << 14 | 3 << 11 | 4 << 7 | 4 << 3))
                return C_FPCR;                   /* FPCR, FPSR */
            return C_MRS;
        }
    }
    return C_OTHER;
}

static enum cls decode_dpreg(uint32_t w)
{
    if (BITS(w, 28, 24) == 0x1b)
        return C_MUL;
    if (BITS(w, 28, 21) == 0xd6 && !BIT(w, 30)) {
        unsigned op = BITS(w, 15, 10);
        if ((op & ~1u) == 2)
            return C_DIV;
        if ((op & 0x38) == 0x10)
            return C_CRC;
        return C_ALU;
    }
    if (BITS(w, 28, 21) == 0xd0 && BITS(w, 15, 10) != 0)
        return C_FLAGM;                          /* RMIF, SETF8, SETF16 */
    return C_ALU;
}

static enum cls decode_fpsimd(uint32_t w)
{
    if (BITS(w, 28, 24) == 0x1e && BIT(w, 30) == 0 && BIT(w, 21)) {
        if (BITS(w, 15, 10) == 0)
            return C_FPMOV;                      /* FMOV/FCVT* with a GPR */
        if (BITS(w, 11, 10) == 2 && BITS(w, 15, 12) == 1)
            return C_FPDIV;                      /* FDIV scalar */
        if (BITS(w, 14, 10) == 16 && BITS(w, 20, 15) == 3)
            return C_FPDIV;                      /* FSQRT scalar */
        return C_FPSIMD;
    }
    if (BITS(w, 28, 24) == 0x1e && BIT(w, 30) == 0 && !BIT(w, 21))
        return C_FPMOV;                          /* fixed-point conversions */
    if ((w & 0xff3e0c00) == 0x4e280800 ||        /* AES */
        (w & 0xffe08c00) == 0x5e000000 ||        /* SHA1, SHA256, 3 registers */
        (w & 0xff3e0c00) == 0x5e280800 ||        /* SHA1, SHA256, 2 registers */
        (w & 0xff000000) == 0xce000000 ||        /* SHA3, SHA512, SM3, SM4 */
        (w & 0xbf20fc00) == 0x0e20e000)          /* PMULL */
        return C_CRYPTO;
    if ((w & 0x9fe08400) == 0x0e000400) {        /* SIMD copy */
        unsigned imm4 = BITS(w, 14, 11);
        if (!BIT(w, 29) && (imm4 == 1 || imm4 == 3 || imm4 == 5 || imm4 == 7))
            return C_FPMOV;                      /* DUP/INS general, SMOV, UMOV */
        return C_FPSIMD;
    }
    if ((w & 0xbfa0fc00) == 0x2e20fc00)
        return C_FPDIV;                          /* FDIV vector */
    if ((w & 0xbfbffc00) == 0x2ea1f800)
        return C_FPDIV;                          /* FSQRT vector */
    return C_FPSIMD;
}

static enum cls decode(uint32_t w)
{
    unsigned op0 = BITS(w, 28, 25);

    if ((op0 & 0xe) == 0x8)
        return C_ALU;                            /* data processing, immediate */
    if ((op0 & 0xe) == 0xa)
        return decode_branch_sys(w);
    if ((op0 & 0x5) == 0x4)
        return decode_ldst(w);
    if ((op0 & 0x7) == 0x5)
        return decode_dpreg(w);
    if ((op0 & 0x7) == 0x7)
        return decode_fpsimd(w);
    if (op0 == 2)
        return C_FPSIMD;                         /* SVE */
    return C_OTHER;
}

enum { MAX_HOT = 64 };

/* ---- counters ------------------------------------------------------------- */
struct tbrec {
    uint64_t execs;
    uint64_t vaddr;
    uint16_t n;
    uint8_t jit;
    uint16_t c[];                                /* NCLS of them with model=on */
};
struct chunk {
    struct chunk *next;
    size_t used;
    char mem[1 << 20];
};
static struct chunk *chunks;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static bool model, threads;
static int hot;
static char out_path[4096], blocks_path[4096];
static pid_t home;
static size_t rec_size;

/* Is this host address in a file mapping (the translator's own code, libc, ...)
 * or in anonymous memory (code made at run time)? */
static struct { uintptr_t lo, hi; uint8_t jit; } maps[4096];
static int n_maps;

static void read_maps(void)
{
    FILE *f = fopen("/proc/self/maps", "r");
    char line[5000];
    n_maps = 0;
    if (!f)
        return;
    while (n_maps < 4096 && fgets(line, sizeof line, f)) {
        unsigned long lo, hi;
        int at = 0;
        if (sscanf(line, "%lx-%lx %*s %*s %*s %*s %n", &lo, &hi, &at) < 2)
            continue;
        const char *p = at ? line + at : "";
        maps[n_maps].lo = lo;
        maps[n_maps].hi = hi;
        maps[n_maps].jit = !(p[0] == '/' && strncmp(p, "/memfd:", 7) &&
                             strncmp(p, "/dev/zero", 9));
        n_maps++;
    }
    fclose(f);
}

static int kind_of(uintptr_t a)
{
    static int last;
    static unsigned since;
    /* anonymous memory can come and go: look again now and then */
    if (++since > 20000) {
        since = 0;
        n_maps = 0;
    }
    for (int pass = 0; pass < 2; pass++) {
        if (last < n_maps && a >= maps[last].lo && a < maps[last].hi)
            return maps[last].jit;
        for (int i = 0; i < n_maps; i++) {
            if (a >= maps[i].lo && a < maps[i].hi) {
                last = i;
                return maps[i].jit;
            }
        }
        if (pass == 0)
            read_maps();
    }
    return 1;
}

static void tb_exec_mt(unsigned cpu, void *p)
{
    (void)cpu;
    __atomic_fetch_add(&((struct tbrec *)p)->execs, 1, __ATOMIC_RELAXED);
}

static void tb_trans(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    (void)id;
    size_t n = qemu_plugin_tb_n_insns(tb);
    struct tbrec *r;

    if (!n)
        return;
    pthread_mutex_lock(&lock);
    if (!chunks || chunks->used + rec_size > sizeof chunks->mem) {
        struct chunk *c = calloc(1, sizeof *c);
        if (!c)
            abort();
        c->next = chunks;
        chunks = c;
    }
    r = (struct tbrec *)(chunks->mem + chunks->used);
    chunks->used += rec_size;
    struct qemu_plugin_insn *first = qemu_plugin_tb_get_insn(tb, 0);
    r->vaddr = qemu_plugin_tb_vaddr(tb);
    r->n = n;
    if (model) {
        r->jit = kind_of((uintptr_t)qemu_plugin_insn_haddr(first));
        for (size_t i = 0; i < n; i++) {
            uint32_t w;
            memcpy(&w, qemu_plugin_insn_data(qemu_plugin_tb_get_insn(tb, i)), 4);
            r->c[decode(w)]++;
        }
    }
    pthread_mutex_unlock(&lock);
    if (threads)
        qemu_plugin_register_vcpu_tb_exec_cb(tb, tb_exec_mt, CB_NO_REGS, r);
    else
        qemu_plugin_register_vcpu_tb_exec_inline(tb, OP_ADD_U64, &r->execs, 1);
}

static char buf[1 << 16];
static size_t buf_n;
static void put(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    if (buf_n < sizeof buf)
        buf_n += vsnprintf(buf + buf_n, sizeof buf - buf_n, fmt, ap);
    if (buf_n > sizeof buf)
        buf_n = sizeof buf;
    va_end(ap);
}

struct totals {
    uint64_t execs, insns, jit, c[NCLS];
    struct tbrec *top[MAX_HOT];                  /* by executed instructions */
    int n_top;
};

static uint64_t executed(const struct tbrec *r)
{
    return r->execs * r->n;
}

static void rank(struct totals *t, struct tbrec *r)
{
    int i;

    if (t->n_top < hot)
        i = t->n_top++;
    else if (executed(t->top[hot - 1]) < executed(r))
        i = hot - 1;
    else
        return;
    for (; i > 0 && executed(t->top[i - 1]) < executed(r); i--)
        t->top[i] = t->top[i - 1];
    t->top[i] = r;
}

static void add(struct totals *t, struct tbrec *r)
{
    if (!r->execs)
        return;
    t->execs += r->execs;
    t->insns += executed(r);
    if (model) {
        if (r->jit)
            t->jit += executed(r);
        for (int i = 0; i < NCLS; i++)
            t->c[i] += r->execs * r->c[i];
    }
    if (hot)
        rank(t, r);
}

static void put_model(const struct totals *t)
{
    uint64_t cost = 0;
    const char *separator = "";

    for (int i = 0; i < NCLS; i++)
        cost += t->c[i] * weight[i];
    put(",\"cost\":%" PRIu64 ",\"jit\":%" PRIu64 ",\"classes\":{", cost / 4, t->jit);
    for (int i = 0; i < NCLS; i++) {
        if (t->c[i]) {
            put("%s\"%s\":%" PRIu64, separator, cls_name[i], t->c[i]);
            separator = ",";
        }
    }
    put("}");
}

static void put_hot(const struct totals *t)
{
    put(",\"hot\":[");
    for (int i = 0; i < t->n_top; i++)
        put("%s{\"pc\":\"0x%" PRIx64 "\",\"length\":%u,\"executions\":%" PRIu64 "}", i ? "," : "",
            t->top[i]->vaddr, t->top[i]->n, t->top[i]->execs);
    put("]");
}

static void write_blocks(void)
{
    FILE *f = fopen(blocks_path, "a");

    if (!f) {
        perror("a64count");
        return;
    }
    for (struct chunk *k = chunks; k; k = k->next) {
        for (size_t at = 0; at < k->used; at += rec_size) {
            const struct tbrec *r = (struct tbrec *)(k->mem + at);
            if (r->execs && !r->jit)
                fprintf(f, "%d %" PRIx64 " %u %" PRIu64 "\n", (int)getpid(), r->vaddr, r->n, r->execs);
        }
    }
    fclose(f);
}

static void report(const char *why)
{
    static struct totals t;
    int fd;

    pthread_mutex_lock(&lock);
    memset(&t, 0, sizeof t);
    for (struct chunk *k = chunks; k; k = k->next)
        for (size_t at = 0; at < k->used; at += rec_size)
            add(&t, (struct tbrec *)(k->mem + at));
    buf_n = 0;
    put("{\"pid\":%d,\"why\":\"%s\",\"instructions\":%" PRIu64 ",\"blocks\":%" PRIu64,
        (int)getpid(), why, t.insns, t.execs);
    if (model)
        put_model(&t);
    if (hot)
        put_hot(&t);
    put("}\n");
    fd = open(out_path, O_WRONLY | O_CREAT | O_APPEND, 0666);
    if (fd < 0 || write(fd, buf, buf_n) < 0)
        perror("a64count");
    if (fd >= 0)
        close(fd);
    if (blocks_path[0])
        write_blocks();
    pthread_mutex_unlock(&lock);
}

static void zero(void)
{
    for (struct chunk *k = chunks; k; k = k->next)
        for (size_t at = 0; at < k->used; at += rec_size)
            ((struct tbrec *)(k->mem + at))->execs = 0;
}

static void at_exit(qemu_plugin_id_t id, void *p)
{
    (void)id;
    (void)p;
    report("exit");
}

static void sys_enter(qemu_plugin_id_t id, unsigned cpu, int64_t num, uint64_t a1, uint64_t a2,
                      uint64_t a3, uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8)
{
    (void)id; (void)cpu; (void)a1; (void)a2; (void)a4; (void)a5; (void)a6; (void)a7; (void)a8;
    if (num == 221 || num == 281) {              /* execve, execveat */
        report("exec");
        zero();
    } else if (num == 131 && a3 == 6) {          /* tgkill(SIGABRT): no atexit after this */
        report("abort");
        zero();
    }
}

static void sys_leave(qemu_plugin_id_t id, unsigned cpu, int64_t num, int64_t ret)
{
    (void)id; (void)cpu; (void)ret;
    if ((num == 220 || num == 435) && getpid() != home) { /* clone, clone3: in a new process */
        home = getpid();
        zero();
    }
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv)
{
    if (strcmp(info->target_name, "aarch64")) {
        fprintf(stderr, "a64count: for aarch64 guests, not %s\n", info->target_name);
        return -1;
    }
    for (int i = 0; i < argc; i++) {
        char *v = strchr(argv[i], '=');
        bool on;
        if (!v)
            goto bad;
        *v++ = 0;
        on = !strcmp(v, "on") || !strcmp(v, "true") || !strcmp(v, "1");
        if (!strcmp(argv[i], "model"))
            model = on;
        else if (!strcmp(argv[i], "threads"))
            threads = on;
        else if (!strcmp(argv[i], "hot"))
            hot = atoi(v) > MAX_HOT ? MAX_HOT : atoi(v);
        else if (!strcmp(argv[i], "out"))
            snprintf(out_path, sizeof out_path, "%s", v);
        else if (!strcmp(argv[i], "blocks"))
            snprintf(blocks_path, sizeof blocks_path, "%s", v);
        else
            goto bad;
        continue;
bad:
        fprintf(stderr, "a64count: bad argument %s\n", argv[i]);
        return -1;
    }
    if (!out_path[0]) {
        fprintf(stderr, "a64count: out=FILE is missing\n");
        return -1;
    }
    home = getpid();
    rec_size = offsetof(struct tbrec, c) + (model ? NCLS * sizeof(uint16_t) : 0);
    rec_size = (rec_size + 7) & ~(size_t)7;
    qemu_plugin_register_vcpu_tb_trans_cb(id, tb_trans);
    qemu_plugin_register_vcpu_syscall_cb(id, sys_enter);
    qemu_plugin_register_vcpu_syscall_ret_cb(id, sys_leave);
    qemu_plugin_register_atexit_cb(id, at_exit, NULL);
    return 0;
}
