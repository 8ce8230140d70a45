/* io_uring by its system calls, for the programs of this folder. */
#ifndef URING_H
#define URING_H

#include "check.h"
#include <linux/io_uring.h>
#include <linux/time_types.h>

/* What the headers may be too old for. */
#define SETUP_NO_MMAP (1U << 14)
/* The last member of a structure of offsets: user_addr, which was called resv2 before Linux 6.5. */
#define USER_ADDRESS(offsets) (((__u64 *)(&(offsets) + 1))[-1])
#define SETUP_NO_SQARRAY (1U << 16)
#define OP_EPOLL_WAIT 59
#define OP_PIPE 62
#define REGISTER_RESIZE_RINGS 33

struct ring {
    int fd;
    struct io_uring_params params;
    char *queue;
    char *completions;
    char *entries;
    size_t sizes[2];
    unsigned entry_size, completion_size;
    unsigned long next;
};

static inline long ring_enter(struct ring *ring, unsigned submit, unsigned wait, unsigned flags)
{
    return syscall(SYS_io_uring_enter, ring->fd, submit, wait, flags, NULL, 0);
}

static inline unsigned *ring_word(struct ring *ring, unsigned offset)
{
    return (unsigned *)(ring->queue + offset);
}

static inline void *ring_map(struct ring *ring, size_t size, off_t offset)
{
    void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring->fd, offset);
    need("mmap of a queue", at == MAP_FAILED ? -1 : 0);
    return at;
}

/* Maps the queues. */
static inline void ring_map_all(struct ring *ring)
{
    struct io_uring_params *p = &ring->params;
    size_t queue = p->sq_off.array + p->sq_entries * 4;
    size_t completions = p->cq_off.cqes + p->cq_entries * ring->completion_size;
    ring->sizes[0] = queue > completions ? queue : completions;
    ring->sizes[1] = p->sq_entries * ring->entry_size;
    ring->queue = ring_map(ring, ring->sizes[0], IORING_OFF_SQ_RING);
    ring->completions = ring->queue;
    ring->entries = ring_map(ring, ring->sizes[1], IORING_OFF_SQES);
}

static inline void ring_unmap(struct ring *ring)
{
    munmap(ring->queue, ring->sizes[0]);
    munmap(ring->entries, ring->sizes[1]);
}

/* The new queues of a ring in place of the old. */
static inline void ring_move(struct ring *ring, const struct io_uring_params *params)
{
    struct ring old = *ring;
    ring->params = *params;
    /* Which Linux 6.18 does not tell. */
    if (!ring->params.sq_off.array)
        ring->params.sq_off.array = params->cq_off.cqes + params->cq_entries * ring->completion_size;
    ring_map_all(ring);
    ring_unmap(&old);
}

/* Whether the kernel has such rings. */
static inline int ring_set_up(struct ring *ring, unsigned count, unsigned flags)
{
    memset(&ring->params, 0, sizeof ring->params);
    ring->params.flags = flags;
    ring->next = 1;
    ring->fd = syscall(SYS_io_uring_setup, count, &ring->params);
    ring->entry_size = flags & IORING_SETUP_SQE128 ? 128 : 64;
    ring->completion_size = flags & IORING_SETUP_CQE32 ? 32 : 16;
    return ring->fd >= 0;
}

static inline int ring_open(struct ring *ring, unsigned count, unsigned flags)
{
    if (!ring_set_up(ring, count, flags))
        return 0;
    ring_map_all(ring);
    return 1;
}

static inline void ring_close(struct ring *ring)
{
    ring_unmap(ring);
    close(ring->fd);
}

/* A new entry, which is the last of the queue already when the next call is made. */
static inline struct io_uring_sqe *ring_entry(struct ring *ring, int opcode, int fd)
{
    unsigned *tail = ring_word(ring, ring->params.sq_off.tail);
    unsigned index = *tail & (ring->params.sq_entries - 1);
    struct io_uring_sqe *entry = (void *)(ring->entries + index * ring->entry_size);
    memset(entry, 0, ring->entry_size);
    entry->opcode = opcode;
    entry->fd = fd;
    entry->user_data = ring->next++;
    if (!(ring->params.flags & SETUP_NO_SQARRAY))
        ring_word(ring, ring->params.sq_off.array)[index] = index;
    __atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
    return entry;
}

/* Takes a completion, if there is one. */
static inline int ring_take(struct ring *ring, unsigned long *of, int *result)
{
    unsigned *head = ring_word(ring, ring->params.cq_off.head);
    unsigned tail = __atomic_load_n(ring_word(ring, ring->params.cq_off.tail), __ATOMIC_ACQUIRE);
    if (*head == tail)
        return 0;
    unsigned index = *head & (ring->params.cq_entries - 1);
    struct io_uring_cqe *cqe =
        (void *)(ring->completions + ring->params.cq_off.cqes + index * ring->completion_size);
    *of = cqe->user_data;
    *result = cqe->res;
    __atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
    return 1;
}

/* Submits the last `count` entries and waits for as many completions; results in their order. */
static inline void ring_run(struct ring *ring, unsigned count, int *results)
{
    unsigned long first = ring->next - count, of;
    int result;
    for (unsigned i = 0; i < count; i++)
        results[i] = -4095;
    need("io_uring_enter", ring_enter(ring, count, count, IORING_ENTER_GETEVENTS));
    for (unsigned i = 0; i < count && ring_take(ring, &of, &result); i++)
        if (of >= first && of < first + count)
            results[of - first] = result;
}

/* The same for the last one. */
static inline int ring_one(struct ring *ring)
{
    int result;
    ring_run(ring, 1, &result);
    return result;
}

static inline struct io_uring_sqe *ring_open_entry(struct ring *ring, const char *path, int flags)
{
    struct io_uring_sqe *entry = ring_entry(ring, IORING_OP_OPENAT, AT_FDCWD);
    entry->addr = (unsigned long)path;
    entry->open_flags = flags;
    entry->len = 0600;
    return entry;
}

#endif
