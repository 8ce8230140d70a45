/* Every system call, with bad pointers in place of each that it takes, also within structures. The arguments are the
 * arm64 build of this program and what the x86_64 build answered on a real processor. */
#include "answers.h"
#include <linux/aio_abi.h>
#include <linux/net.h>
#include <mqueue.h>
#include <net/if.h>
#include <netinet/in.h>

/* Bad in one way each. */
enum { ZERO, UNMAPPED, STRADDLING, READ_ONLY, MISALIGNED, OF_TRANSLATOR, BEHIND, TAGGED, LAST, OF_KERNEL, BADS };
static const char *const bads[] = {
    "null", "unmapped", "straddling", "read-only", "misaligned", "the translator's", "behind the last", "not canonical",
    "the last", "the kernel's",
};

/* Memory that the translator can write to; of others, the kernel. */
static unsigned long translators = 0xffff900000000000;

/* Far from all that is mapped. */
static char *const hole = (char *)0x600000000000;
static char *constant;

static long bad(int kind)
{
    switch (kind) {
    case ZERO: return 0;
    case UNMAPPED: return (long)hole;
    case STRADDLING: return (long)(in + AREA - 1);
    case READ_ONLY: return (long)constant;
    case MISALIGNED: return (long)(out + 1);
    case OF_TRANSLATOR: return translators;
    case BEHIND: return 0x800000000000;
    case TAGGED: return 0x4100000000000000 | (long)out;
    case LAST: return -8;
    default: return 0xffff800000000000;
    }
}

/* Structures with a pointer in them. */
static long vectors(long number, void *p)
{
    struct iovec all[] = {{out, 4}, {p, 4}};
    return answer(number, (long[6]){number == SYS_writev || number == SYS_pwritev ? file : pipes[0], (long)all, 2, 0});
}
static long in_readv(void *p) { return vectors(SYS_readv, p); }
static long in_writev(void *p) { return vectors(SYS_writev, p); }
static long in_pwritev(void *p) { return vectors(SYS_pwritev, p); }
static long in_preadv(void *p)
{
    struct iovec one = {p, 4};
    return answer(SYS_preadv, (long[6]){file, (long)&one, 1, 0, 0});
}
static long in_many_vectors(void *p)
{
    struct iovec all[20];
    for (int i = 0; i < 20; i++)
        all[i] = (struct iovec){i < 19 ? out : p, 1};
    return answer(SYS_writev, (long[6]){file, (long)all, 20});
}
static long in_vmsplice(void *p)
{
    struct iovec one = {p, 4};
    return answer(SYS_vmsplice, (long[6]){pipes[1], (long)&one, 1, 0});
}
static long in_own_memory(void *p)
{
    struct iovec own = {p, 4}, other = {out, 4};
    return answer(SYS_process_vm_readv, (long[6]){getpid(), (long)&own, 1, (long)&other, 1, 0});
}
static long in_other_memory(void *p)
{
    struct iovec own = {out, 4}, other = {p, 4};
    return answer(SYS_process_vm_readv, (long[6]){getpid(), (long)&own, 1, (long)&other, 1, 0});
}
static long in_others_written(void *p)
{
    struct iovec own = {in, 4}, other = {p, 4};
    return answer(SYS_process_vm_writev, (long[6]){getpid(), (long)&own, 1, (long)&other, 1, 0});
}
static long message(long number, int where, void *p)
{
    struct iovec one = {out, 4};
    struct mmsghdr many = {.msg_hdr = {.msg_iov = &one, .msg_iovlen = 1}};
    struct msghdr *it = &many.msg_hdr;
    switch (where) {
    case 0: it->msg_name = p, it->msg_namelen = 16; break;
    case 1: it->msg_iov = p; break;
    case 2: it->msg_control = p, it->msg_controllen = 64; break;
    default: one.iov_base = p;
    }
    int on = 1;
    setsockopt(sockets[0], SOL_SOCKET, SO_PASSCRED, &on, sizeof on);
    if (number == SYS_sendmmsg || number == SYS_recvmmsg)
        return answer(number, (long[6]){sockets[0], (long)&many, 1, MSG_DONTWAIT, 0});
    return answer(number, (long[6]){sockets[0], (long)it, MSG_DONTWAIT});
}
#define MESSAGE(name, number)                                                    \
    static long name##_name(void *p) { return message(number, 0, p); }            \
    static long name##_vectors(void *p) { return message(number, 1, p); }         \
    static long name##_control(void *p) { return message(number, 2, p); }         \
    static long name##_bytes(void *p) { return message(number, 3, p); }
MESSAGE(sendmsg, SYS_sendmsg)
MESSAGE(recvmsg, SYS_recvmsg)
MESSAGE(sendmmsg, SYS_sendmmsg)
MESSAGE(recvmmsg, SYS_recvmmsg)

static long in_waiter(void *p)
{
    struct { unsigned long value, address; unsigned flags, reserved; } one = {1, (long)p, 2, 0};
    struct timespec long_ago = {0, 1};
    return answer(449 /* futex_waitv */, (long[6]){(long)&one, 1, 0, (long)&long_ago, CLOCK_MONOTONIC});
}
static long in_requeue(void *p)
{
    struct { unsigned long value, address; unsigned flags, reserved; } both[] = {{0, (long)place, 2, 0}, {0, (long)p, 2, 0}};
    return answer(456 /* futex_requeue */, (long[6]){(long)both, 0, 0, 1});
}
static long in_request(void *p)
{
    aio_context_t context = 0;
    need("io_setup", syscall(SYS_io_setup, 1, &context));
    struct iocb one = {.aio_lio_opcode = IOCB_CMD_PREAD, .aio_fildes = file, .aio_buf = (long)p, .aio_nbytes = 4};
    struct iocb *list[] = {&one};
    int error = answer(SYS_io_submit, (long[6]){context, 1, (long)list});
    syscall(SYS_io_destroy, context);
    return error;
}
static long in_request_list(void *p)
{
    aio_context_t context = 0;
    need("io_setup", syscall(SYS_io_setup, 1, &context));
    int error = answer(SYS_io_submit, (long[6]){context, 1, (long)&p});
    syscall(SYS_io_destroy, context);
    return error;
}
static long creation(int word, unsigned long flags, void *p)
{
    unsigned long words[11] = {flags, 0, 0, 0, 0};
    words[word] = (long)p;
    if (word == 8)
        words[9] = 1;
    return answer(435 /* clone3 */, (long[6]){(long)words, sizeof words});
}
static long in_clone3_pidfd(void *p) { return creation(1, CLONE_PIDFD, p); }
static long in_clone3_child_tid(void *p) { return creation(2, CLONE_CHILD_SETTID, p); }
static long in_clone3_parent_tid(void *p) { return creation(3, CLONE_PARENT_SETTID, p); }
static long in_clone3_set_tid(void *p) { return creation(8, 0, p); }
static long in_notification(void *p)
{
    struct sigevent event = {.sigev_notify = SIGEV_THREAD, .sigev_value.sival_ptr = p};
    struct mq_attr attributes = {.mq_maxmsg = 1, .mq_msgsize = 8};
    int queue = syscall(SYS_mq_open, "queue", O_RDWR | O_CREAT | O_NONBLOCK, 0600, &attributes);
    event.sigev_signo = sockets[0];
    return answer(SYS_mq_notify, (long[6]){queue, (long)&event});
}
static long in_attribute(void *p)
{
    struct { unsigned long value; unsigned size, flags; } value = {(long)p, 4, 0};
    return answer(463 /* setxattrat */, (long[6]){AT_FDCWD, (long)"file", 0, (long)"user.x", (long)&value, sizeof value});
}
static long in_map_key(void *p)
{
    unsigned creation[12] = {1 /* BPF_MAP_TYPE_HASH */, 4, 4, 1};
    int map = syscall(SYS_bpf, 0, creation, sizeof creation);
    unsigned long words[4] = {(unsigned)map, (long)p, (long)out};
    return answer(SYS_bpf, (long[6]){1, (long)words, sizeof words});
}
static long in_program_information(void *p)
{
    /* r0 = 0; exit */
    unsigned long code[] = {0xb7, 0x95}, words[6] = {1 | 2UL << 32, (long)code, (long)"GPL"}, information[29] = {0};
    int program = syscall(SYS_bpf, 5 /* BPF_PROG_LOAD */, words, sizeof words);
    information[2] = 16UL << 32, information[4] = (long)p; /* the translated program's length, and where it goes */
    unsigned long about[2] = {(unsigned)program | sizeof information << 32, (long)information};
    return answer(SYS_bpf, (long[6]){15 /* BPF_OBJ_GET_INFO_BY_FD */, (long)about, sizeof about});
}
static long in_arguments(void *p)
{
    char *arguments[] = {"file", p, NULL}, *none[] = {NULL};
    chmod("file", 0700);
    return answer(SYS_execve, (long[6]){(long)"file", (long)arguments, (long)none});
}
static long in_environment(void *p)
{
    char *none[] = {"file", NULL}, *variables[] = {p, NULL};
    chmod("file", 0700);
    return answer(SYS_execve, (long[6]){(long)"file", (long)none, (long)variables});
}
static long in_mask(void *p)
{
    struct { void *mask; long size; } both = {p, 8};
    struct timespec none = {0, 0};
    return answer(SYS_pselect6, (long[6]){0, 0, 0, 0, (long)&none, (long)&both});
}
static long in_events_mask(void *p)
{
    struct { void *mask; long size; } both = {p, 8};
    struct timespec none = {0, 0};
    aio_context_t context = 0;
    need("io_setup", syscall(SYS_io_setup, 1, &context));
    int error = answer(SYS_io_pgetevents, (long[6]){context, 0, 1, (long)out, (long)&none, (long)&both});
    syscall(SYS_io_destroy, context);
    return error;
}
static long in_interfaces(void *p)
{
    struct ifconf all = {.ifc_len = 400, .ifc_buf = p};
    int inet = need("socket", socket(AF_INET, SOCK_DGRAM, 0)), error;
    struct ifreq up = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    ioctl(inet, 0x8914 /* SIOCSIFFLAGS */, &up);
    error = answer(SYS_ioctl, (long[6]){inet, 0x8912 /* SIOCGIFCONF */, (long)&all});
    close(inet);
    return error;
}
static long in_link_settings(void *p)
{
    struct ifreq one = {.ifr_name = "lo", .ifr_data = p};
    int inet = need("socket", socket(AF_INET, SOCK_DGRAM, 0));
    return answer(SYS_ioctl, (long[6]){inet, 0x8946 /* SIOCETHTOOL */, (long)&one});
}
static long in_tap_filter(void *p)
{
    struct { unsigned short count; void *program; } filter = {1, p};
    struct ifreq tap = {.ifr_flags = 0x1002 /* IFF_TAP | IFF_NO_PI */};
    int tun = open("/dev/net/tun", O_RDWR);
    ioctl(tun, 0x400454ca /* TUNSETIFF */, &tap);
    return answer(SYS_ioctl, (long[6]){tun, 0x401054d5 /* TUNATTACHFILTER */, (long)&filter});
}
static long faults(long request, unsigned long words[5])
{
    unsigned long api[3] = {0xaa};
    int fd = syscall(SYS_userfaultfd, O_CLOEXEC);
    ioctl(fd, 0xc018aa3f /* UFFDIO_API */, api);
    return answer(SYS_ioctl, (long[6]){fd, request, (long)words});
}
static long in_registered_range(void *p)
{
    return faults(0xc020aa00 /* UFFDIO_REGISTER */, (unsigned long[5]){(long)p & -4096, 4096, 1});
}
static long in_copied_page(void *p)
{
    return faults(0xc028aa03 /* UFFDIO_COPY */, (unsigned long[5]){(long)p & -4096, (long)in, 4096});
}
static long in_page_list(void *p)
{
    unsigned long in_memory = 1 << 3 /* PAGE_IS_PRESENT */;
    unsigned long scan[12] = {96, 0, (long)in, (long)in + AREA, 0, (long)p, 4, 0, 0, in_memory, 0, in_memory};
    int pagemap = need("pagemap", open("/proc/self/pagemap", O_RDONLY));
    return answer(SYS_ioctl, (long[6]){pagemap, 0xc0606610 /* PAGEMAP_SCAN */, (long)scan});
}
/* Both ends of a connection. */
static void connect_both(int ends[2])
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof at;
    int listener = need("socket", socket(AF_INET, SOCK_STREAM, 0));
    struct ifreq up = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    ioctl(listener, 0x8914 /* SIOCSIFFLAGS */, &up);
    need("bind", bind(listener, (void *)&at, sizeof at));
    need("listen", listen(listener, 1));
    getsockname(listener, (void *)&at, &size);
    ends[0] = need("socket", socket(AF_INET, SOCK_STREAM, 0));
    need("connect", connect(ends[0], (void *)&at, sizeof at));
    ends[1] = need("accept", accept(listener, NULL, NULL));
}
static long received_in(int word, void *p)
{
    int ends[2];
    unsigned size = 64;
    connect_both(ends);
    need("send", send(ends[0], "sixteen bytes...", 16, 0));
    usleep(10000);
    void *pages = mmap(NULL, AREA, PROT_READ, MAP_SHARED, ends[1], 0);
    unsigned long zerocopy[8] = {(long)pages, AREA, 0, (long)out, 64, 0, 0, 0};
    zerocopy[word] = (long)p;
    return answer(SYS_getsockopt, (long[6]){ends[1], IPPROTO_TCP, 35 /* TCP_ZEROCOPY_RECEIVE */, (long)zerocopy, (long)&size});
}
static long in_received_pages(void *p) { return received_in(0, p); }
static long in_received_bytes(void *p) { return received_in(3, p); }
static long in_breakpoint(void *p)
{
    /* Memory that is written, of this process alone. */
    unsigned long event[14] = {5 | 112UL << 32, 0, 0, 0, 0, 1 << 5, 2UL << 32, (long)p, 4};
    return answer(SYS_perf_event_open, (long[6]){(long)event, 0, -1, -1, 0});
}
static long in_filter(void *p)
{
    struct { unsigned short count; void *program; } filter = {1, p};
    return answer(SYS_setsockopt, (long[6]){sockets[0], SOL_SOCKET, SO_ATTACH_FILTER, (long)&filter, sizeof filter});
}
static long in_own_filter(void *p)
{
    struct { unsigned short count; void *program; } filter = {1, p};
    return answer(SYS_prctl, (long[6]){PR_SET_SECCOMP, 2, (long)&filter, 0, 0});
}

static const struct {
    const char *name;
    long (*make)(void *);
} structures[] = {
    {"readv: base", in_readv}, {"writev: base", in_writev}, {"pwritev: base", in_pwritev},
    {"preadv: base", in_preadv}, {"writev: the last of many", in_many_vectors}, {"vmsplice: base", in_vmsplice},
    {"process_vm_readv: own", in_own_memory}, {"process_vm_readv: other", in_other_memory},
    {"process_vm_writev: other", in_others_written}, {"sendmsg: name", sendmsg_name},
    {"sendmsg: vectors", sendmsg_vectors}, {"sendmsg: control", sendmsg_control}, {"sendmsg: base", sendmsg_bytes},
    {"recvmsg: name", recvmsg_name}, {"recvmsg: vectors", recvmsg_vectors}, {"recvmsg: control", recvmsg_control},
    {"recvmsg: base", recvmsg_bytes}, {"sendmmsg: name", sendmmsg_name}, {"sendmmsg: vectors", sendmmsg_vectors},
    {"sendmmsg: control", sendmmsg_control}, {"sendmmsg: base", sendmmsg_bytes}, {"recvmmsg: name", recvmmsg_name},
    {"recvmmsg: vectors", recvmmsg_vectors}, {"recvmmsg: control", recvmmsg_control},
    {"recvmmsg: base", recvmmsg_bytes}, {"futex_waitv: address", in_waiter}, {"futex_requeue: address", in_requeue},
    {"io_submit: buffer", in_request}, {"io_submit: request", in_request_list}, {"clone3: pidfd", in_clone3_pidfd},
    {"clone3: child_tid", in_clone3_child_tid}, {"clone3: parent_tid", in_clone3_parent_tid},
    {"clone3: set_tid", in_clone3_set_tid}, {"mq_notify: cookie", in_notification},
    {"setxattrat: value", in_attribute}, {"bpf: key", in_map_key}, {"bpf: information", in_program_information},
    {"execve: an argument", in_arguments},
    {"execve: a variable", in_environment}, {"pselect6: mask", in_mask}, {"io_pgetevents: mask", in_events_mask}, {"ioctl: SIOCGIFCONF", in_interfaces},
    {"ioctl: SIOCETHTOOL", in_link_settings}, {"ioctl: TUNATTACHFILTER", in_tap_filter},
    {"ioctl: UFFDIO_REGISTER", in_registered_range}, {"ioctl: UFFDIO_COPY", in_copied_page},
    {"ioctl: PAGEMAP_SCAN", in_page_list}, {"getsockopt: TCP_ZEROCOPY_RECEIVE: address", in_received_pages},
    {"getsockopt: TCP_ZEROCOPY_RECEIVE: bytes", in_received_bytes}, {"perf_event_open: bp_addr", in_breakpoint},
    {"setsockopt: SO_ATTACH_FILTER", in_filter}, {"prctl: PR_SET_SECCOMP", in_own_filter},
};
#define STRUCTURES ((int)(sizeof structures / sizeof *structures))

/* The cases: an argument of a call, or a structure; and what is bad about it. */
static struct item {
    short call, argument; /* -1: of a structure */
    short bad;
} *items;
static int count;

/* What cannot be tried: it ends the process, or has no address. */
static int is_left_out(const struct call *call)
{
    static const char *const names[] = {"rt_sigreturn", "exit", "exit_group", "restart_syscall", "ptrace"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(call->name, names[i]) == 0)
            return 1;
    return 0;
}

static void list(void)
{
    items = calloc(CALLS * 6 * BADS + STRUCTURES * BADS, sizeof *items);
    for (int c = 0; c < CALLS; c++)
        for (int a = 0; a < 6 && calls[c].arguments[a].name && !is_left_out(&calls[c]); a++)
            for (int b = 0; b < BADS && is_address(calls[c].arguments[a].kind); b++)
                items[count++] = (struct item){c, a, b};
    for (int s = 0; s < STRUCTURES; s++)
        for (int b = 0; b < BADS; b++)
            items[count++] = (struct item){s, -1, b};
}

static void name(int i, char *text)
{
    const struct item *item = &items[i];
    if (item->argument < 0)
        sprintf(text, "%s: %s", structures[item->call].name, bads[item->bad]);
    else
        sprintf(text, "%s: %s: %s", calls[item->call].name, calls[item->call].arguments[item->argument].name,
                bads[item->bad]);
}

static int group(int i) { return items[i].argument < 0 ? CALLS + items[i].call * BADS + items[i].bad : items[i].call; }

static int is_made(int i) { return items[i].argument < 0 || NUMBER_OF(&calls[items[i].call]) >= 0; }

static int make(int i)
{
    const struct item *item = &items[i];
    static const struct call nothing = {.name = ""};
    const struct call *call = item->argument < 0 ? &nothing : &calls[item->call];
    long arguments[6];
    if (!is_made(i))
        return 0;
    fill(call);
    if (item->argument < 0)
        return structures[item->call].make((void *)bad(item->bad));
    for (int a = 0; a < 6; a++)
        arguments[a] = call->arguments[a].name ? harmless(call, a) : 0;
    arguments[item->argument] = bad(item->bad);
    return answer(NUMBER_OF(call), arguments);
}

/* Where the translator is when the kernel gives a process no more addresses than x86_64's does. */
#define BESIDE_GUEST 0x7e0000000000

/* Where the translator of this process can be written to, by what a program that is not translated reads. */
static void ask_where(const char *other)
{
    char command[4200], line[256];
    snprintf(command, sizeof command, "%s where %d", other, getpid());
    FILE *from = popen(command, "r");
    need("popen", from && fgets(line, sizeof line, from) ? 0 : -1);
    pclose(from);
    translators = strtoul(line, NULL, 16);
    check(translators >= BESIDE_GUEST, "the translator can be written to at %#lx", translators);
}

static int where(const char *pid)
{
    char path[64], line[512];
    unsigned long start, end, found = 0, most = 0, from = BESIDE_GUEST;
    char prot[8];
    snprintf(path, sizeof path, "/proc/%s/maps", pid);
    FILE *maps = fopen(path, "r");
    need(path, maps ? 0 : -1);
    while (fgets(line, sizeof line, maps))
        if (sscanf(line, "%lx-%lx %7s", &start, &end, prot) == 3 && start >= from && prot[1] == 'w') {
            if (start >= 1UL << 47 && from < 1UL << 47)
                from = 1UL << 47, most = 0;
            if (end - start > most)
                most = end - start, found = start;
        }
    printf("%lx\n", found + most / 2);
    return 0;
}

static int refused(int i) { return items[i].argument < 0 ? 0 : calls[items[i].call].refused; }

static const struct exception exceptions[] = {
    {"kexec_load: segments", "the kernel says EBUSY while another program tries"},
    {"listns: ns_ids: behind the last", "access_ok() comes before the request is read, and arm64's has this address"},
    {NULL, NULL},
};

int main(int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "answers";
    if (strcmp(mode, "where") == 0)
        return where(argv[2]);
    list();
    int compared = IS_X86_64 && mode[0] == '/';
    if (compared)
        ask_where(mode);
    retire();
    check(msync(hole, 4096, MS_ASYNC) == -1 && errno == ENOMEM, "nothing is at %p", hole);
    constant = mmap(NULL, AREA, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return answer_all(&(struct cases){count, name, group, make, is_made, refused, exceptions}, compared ? argv : NULL);
}
