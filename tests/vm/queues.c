/* What processes tell each other by: semaphores, messages and memory of System V, message queues, and signals and
 * timers that are read. */
#include "check.h"
#include <mqueue.h>
#include <poll.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <time.h>

union semun {
    int val;
    struct semid_ds *buf;
    unsigned short *array;
};

static void semaphores(void)
{
    int id = need("semget", semget(IPC_PRIVATE, 3, IPC_CREAT | 0640));
    unsigned short values[3] = {1, 2, 3}, seen[3] = {0};
    struct semid_ds ds = {0};
    time_t now = time(NULL);
    need("SETALL", semctl(id, 0, SETALL, (union semun){.array = values}));
    need("GETALL", semctl(id, 0, GETALL, (union semun){.array = seen}));
    check(memcmp(values, seen, sizeof seen) == 0, "values are %d, %d, %d", seen[0], seen[1], seen[2]);
    pid_t pid = start();
    if (pid == 0) {
        /* Taken back at the end. */
        struct sembuf both[] = {{0, -1, 0}, {1, 5, SEM_UNDO}};
        _exit(semop(id, both, 2) != 0);
    }
    all_well("semop", pid);
    same_number("the first", semctl(id, 0, GETVAL), 0);
    same_number("the second", semctl(id, 1, GETVAL), 2);
    same_number("who", semctl(id, 0, GETPID), pid);
    struct timespec limit = {0, 1000000};
    struct sembuf take = {0, -1, 0};
    same_number("semtimedop", semtimedop(id, &take, 1, &limit), -1);
    same_number("errno", errno, EAGAIN);
    need("IPC_STAT", semctl(id, 0, IPC_STAT, (union semun){.buf = &ds}));
    same_number("semaphores", ds.sem_nsems, 3);
    same_number("mode", ds.sem_perm.mode & 0777, 0640);
    check(ds.sem_otime >= now && ds.sem_otime <= now + 100, "the last operation was at %ld", ds.sem_otime);
    check(ds.sem_ctime >= now && ds.sem_ctime <= now + 100, "the last change was at %ld", ds.sem_ctime);
    ds.sem_perm.mode = 0600;
    need("IPC_SET", semctl(id, 0, IPC_SET, (union semun){.buf = &ds}));
    need("IPC_STAT", semctl(id, 0, IPC_STAT, (union semun){.buf = &ds}));
    same_number("mode", ds.sem_perm.mode & 0777, 0600);
    need("IPC_RMID", semctl(id, 0, IPC_RMID));
}

static void messages(void)
{
    struct {
        long kind;
        char text[16];
    } message = {7, "hello"}, got = {0};
    int id = need("msgget", msgget(IPC_PRIVATE, IPC_CREAT | 0600));
    struct msqid_ds ds = {0};
    need("msgsnd", msgsnd(id, &message, 6, 0));
    message.kind = 3;
    need("msgsnd", msgsnd(id, &message, 5, 0));
    need("IPC_STAT", msgctl(id, IPC_STAT, &ds));
    same_number("messages", ds.msg_qnum, 2);
    same_number("bytes", ds.msg_cbytes, 11);
    same_number("who", ds.msg_lspid, getpid());
    same_number("msgrcv", msgrcv(id, &got, sizeof got.text, 3, 0), 5);
    same_number("kind", got.kind, 3);
    same_number("msgrcv of what is too long", msgrcv(id, &got, 3, 0, 0), -1);
    same_number("errno", errno, E2BIG);
    same_number("msgrcv, cut off", msgrcv(id, &got, 3, 0, MSG_NOERROR), 3);
    need("IPC_RMID", msgctl(id, IPC_RMID, NULL));
    same_number("msgrcv of none", msgrcv(id, &got, 3, 0, 0), -1);
    same_number("errno", errno, EINVAL);
}

static void shared(void)
{
    struct shmid_ds ds = {0};
    int id = need("shmget", shmget(IPC_PRIVATE, 20000, IPC_CREAT | 0600));
    volatile int *word = shmat(id, NULL, 0);
    need("shmat", word == (void *)-1 ? -1 : 0);
    pid_t pid = start();
    if (pid == 0) {
        *word = 4711;
        _exit(0);
    }
    all_well("a child that writes", pid);
    same_number("what it wrote", *word, 4711);
    need("IPC_STAT", shmctl(id, IPC_STAT, &ds));
    same_number("size", ds.shm_segsz, 20000);
    same_number("attached", ds.shm_nattch, 1);
    same_number("by", ds.shm_cpid, getpid());
    need("IPC_RMID", shmctl(id, IPC_RMID, NULL));
    need("shmdt", shmdt((void *)word));
}

static void posix_queues(void)
{
    struct mq_attr attr = {.mq_maxmsg = 4, .mq_msgsize = 64}, seen = {0};
    char text[64];
    unsigned priority = 0;
    mqd_t queue = need("mq_open", mq_open("/demotic-queues", O_RDWR | O_CREAT | O_NONBLOCK, 0600, &attr));
    need("mq_unlink", mq_unlink("/demotic-queues"));
    need("mq_getattr", mq_getattr(queue, &seen));
    check(seen.mq_maxmsg == 4 && seen.mq_msgsize == 64, "%ld messages of %ld bytes", seen.mq_maxmsg, seen.mq_msgsize);
    same_number("its flags", seen.mq_flags, O_NONBLOCK);
    same_number("mq_receive of nothing", mq_receive(queue, text, sizeof text, NULL), -1);
    same_number("errno", errno, EAGAIN);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN);
    sigprocmask(SIG_BLOCK, &set, NULL);
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN, .sigev_value = {.sival_int = 5}};
    need("mq_notify", mq_notify(queue, &event));
    need("mq_send", mq_send(queue, "low", 3, 1));
    need("mq_send", mq_send(queue, "high", 4, 9));
    siginfo_t info;
    need("sigwaitinfo", sigwaitinfo(&set, &info));
    check(info.si_code == SI_MESGQ && info.si_value.sival_int == 5, "code %d, value %d", info.si_code, info.si_value.sival_int);
    same_number("mq_receive", mq_receive(queue, text, sizeof text, &priority), 4);
    same_number("priority", priority, 9);
    close(queue);
}

static void signals_read(void)
{
    sigset_t set;
    struct signalfd_siginfo info = {0};
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    int fd = need("signalfd", signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC));
    same_number("read of nothing", read(fd, &info, sizeof info), -1);
    same_number("errno", errno, EAGAIN);
    sigqueue(getpid(), SIGUSR1, (union sigval){.sival_int = 77});
    struct pollfd ready = {fd, POLLIN, 0};
    same_number("poll", poll(&ready, 1, 1000), 1);
    same_number("read", read(fd, &info, sizeof info), sizeof info);
    same_number("signal", info.ssi_signo, SIGUSR1);
    same_number("code", info.ssi_code, SI_QUEUE);
    same_number("value", info.ssi_int, 77);
    same_number("from", info.ssi_pid, getpid());
    close(fd);
}

static void timers(void)
{
    struct itimerspec soon = {{0, 0}, {0, 1000000}}, left;
    unsigned long ticks = 0;
    int fd = need("timerfd_create", timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC));
    need("timerfd_settime", timerfd_settime(fd, 0, &soon, NULL));
    same_number("read", read(fd, &ticks, sizeof ticks), 8);
    same_number("ticks", ticks, 1);
    need("timerfd_gettime", timerfd_gettime(fd, &left));
    check(left.it_value.tv_sec == 0 && left.it_value.tv_nsec == 0, "it has ended");
    close(fd);

    sigset_t set;
    siginfo_t info;
    timer_t timer;
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN + 1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 1, .sigev_value = {.sival_int = 6}};
    need("timer_create", timer_create(CLOCK_MONOTONIC, &event, &timer));
    need("timer_settime", timer_settime(timer, 0, &soon, NULL));
    need("sigwaitinfo", sigwaitinfo(&set, &info));
    check(info.si_code == SI_TIMER && info.si_value.sival_int == 6, "code %d, value %d", info.si_code, info.si_value.sival_int);
    same_number("overruns", timer_getoverrun(timer), 0);
    need("timer_delete", timer_delete(timer));
}

int main(void)
{
    semaphores();
    messages();
    shared();
    posix_queues();
    signals_read();
    timers();
    return result();
}
