/* From one processor's program to the other's and back: argv[1] is this program for the other one. */
#include "check.h"

int main(int argc, char **argv)
{
    if (argc == 2) {
        /* The start: this, the other, this, the other, and the last says how it went. */
        char path[4096];
        strcpy(path, self());
        int pipe_ends[2];
        close_range(3, ~0U, 0);
        need("pipe", pipe(pipe_ends));
        pid_t pid = start();
        if (pid == 0) {
            char number[16];
            snprintf(number, sizeof number, "%d", pipe_ends[1]);
            char *arguments[] = {"0", argv[1], path, number, "", "a b", NULL};
            char *environment[] = {"A=1", "A=2", "odd", NULL};
            sigset_t mask;
            sigemptyset(&mask);
            sigaddset(&mask, SIGUSR1);
            sigaddset(&mask, 40);
            sigprocmask(SIG_BLOCK, &mask, NULL);
            signal(SIGUSR2, SIG_IGN);
            kill(getpid(), SIGUSR1);
            execve(argv[1], arguments, environment);
            not_executed();
        }
        all_well("five programs", pid);
        char text[64] = "";
        close(pipe_ends[1]);
        need("read", read(pipe_ends[0], text, sizeof text - 1));
        same("what they wrote to the pipe", text, "01234");
        return result();
    }
    int step = atoi(argv[0]);
    same_number("argc", argc, 6);
    same("argv[4]", argv[4], "");
    same("argv[5]", argv[5], "a b");
    same("AT_EXECFN", (char *)getauxval(AT_EXECFN), argv[1]);
    check(environ[0] && strcmp(environ[0], "A=1") == 0 && environ[1] && strcmp(environ[1], "A=2") == 0 &&
              environ[2] && strcmp(environ[2], "odd") == 0 && !environ[3],
          "step %d: the environment is as it was", step);
    sigset_t mask, pending;
    sigprocmask(SIG_BLOCK, NULL, &mask);
    sigpending(&pending);
    check(sigismember(&mask, SIGUSR1) && sigismember(&mask, 40) && !sigismember(&mask, SIGTERM),
          "the signal mask is as it was");
    check(sigismember(&pending, SIGUSR1), "the signal is still pending");
    struct sigaction action;
    sigaction(SIGUSR2, NULL, &action);
    check(action.sa_handler == SIG_IGN, "SIGUSR2 is still ignored");
    sigaction(SIGSEGV, NULL, &action);
    check(action.sa_handler == SIG_DFL, "SIGSEGV is not");
    int fd = atoi(argv[3]);
    need("write to the pipe", write(fd, argv[0], 1));
    same_number("descriptors from 3 on", open_descriptors(), 2);
    if (failures || step == 4)
        return failures != 0;
    char next[16];
    snprintf(next, sizeof next, "%d", step + 1);
    char *arguments[] = {next, argv[2], argv[1], argv[3], argv[4], argv[5], NULL};
    execve(argv[2], arguments, environ);
    not_executed();
}
