/* /proc/PID/fdinfo: the open flags are those that fcntl(2) gives, for every process. */
#include "check.h"
#include <sys/eventfd.h>
#include <sys/fanotify.h>
#include <sys/ioctl.h>

static long flags_of(const char *path)
{
    char text[4096];
    if (!read_file(path, text, sizeof text))
        return -errno;
    char *line = strstr(text, "flags:\t");
    return line ? strtol(line + 7, NULL, 8) : -1;
}

static void agree(const char *what, int fd, pid_t other)
{
    char path[64], text[100];
    /* FD_CLOEXEC is no file status flag, but is shown with them. */
    long wanted = fcntl(fd, F_GETFL) | (fcntl(fd, F_GETFD) ? O_CLOEXEC : 0);
    snprintf(text, sizeof text, "%s, of this process", what);
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
    same_number(text, flags_of(path), wanted);
    snprintf(text, sizeof text, "%s, of this thread", what);
    snprintf(path, sizeof path, "/proc/thread-self/fdinfo/%d", fd);
    same_number(text, flags_of(path), wanted);
    snprintf(text, sizeof text, "%s, of another process", what);
    snprintf(path, sizeof path, "/proc/%d/fdinfo/%d", other, fd);
    same_number(text, flags_of(path), wanted);
}

/* The descriptors that events bring have the flags that were asked for. */
static void notified(void)
{
#ifdef __x86_64__
    const int large = 0100000; /* the C library's is 0 */
#else
    const int large = 0400000;
#endif
    struct fanotify_event_metadata event = {0};
    int fan = need("fanotify_init", fanotify_init(FAN_CLASS_NOTIF | FAN_CLOEXEC, O_RDONLY | large | O_CLOEXEC));
    need("fanotify_mark", fanotify_mark(fan, FAN_MARK_ADD, FAN_OPEN, AT_FDCWD, "file"));
    close(need("open", open("file", O_RDONLY)));
    same_number("an event", read(fan, &event, sizeof event), sizeof event);
    same_number("flags of its file", fcntl(event.fd, F_GETFL) & (O_ACCMODE | large | O_DIRECTORY | O_NOFOLLOW), O_RDONLY | large);
    close(event.fd);
    close(fan);
}

int main(void)
{
    int pipes[2], direct[2], end;
    workplace();
    int folder = need("open", open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    int file = need("open", open("file", O_RDWR | O_CREAT | O_APPEND | O_NOFOLLOW, 0600));
    int path = need("open", open(".", O_PATH | O_NOFOLLOW));
    int event = need("eventfd", eventfd(7, EFD_NONBLOCK));
    need("pipe", pipe(pipes));
    need("pipe2", pipe2(direct, O_DIRECT | O_CLOEXEC));
    int terminal = need("openpty", open("/dev/ptmx", O_RDWR | O_NOCTTY)), unlocked = 0;
    need("TIOCSPTLCK", ioctl(terminal, TIOCSPTLCK, &unlocked));
    int peer = need("TIOCGPTPEER", ioctl(terminal, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_NOFOLLOW | O_CLOEXEC));
    same_number("a terminal's flags", fcntl(peer, F_GETFL) & (O_ACCMODE | O_NOFOLLOW | O_DIRECTORY), O_RDWR | O_NOFOLLOW);
    notified();
    pid_t pid = start();
    if (pid == 0) {
        close(pipes[1]);
        read(pipes[0], &end, 1);
        _exit(0);
    }
    agree("a folder", folder, pid);
    agree("a file", file, pid);
    agree("a path", path, pid);
    agree("an eventfd", event, pid);
    agree("a pipe of packets", direct[1], pid);
    agree("a terminal", peer, pid);
    char text[4096], name[64];
    snprintf(name, sizeof name, "/proc/self/fdinfo/%d", event);
    read_file(name, text, sizeof text);
    check(strstr(text, "\neventfd-count:") != NULL, "what else is there stays");
    close(pipes[1]);
    all_well("the other process", pid);
    return result();
}
