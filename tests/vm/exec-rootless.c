/* A root directory with nothing in it but the program: no /proc, no translator, no /dev. */
#include "check.h"

int main(int argc, char **argv)
{
    if (argc > 1) {
        int depth = atoi(argv[1]);
        check(access("/proc/self", F_OK) < 0, "there is no /proc");
        same("argv[0]", argv[0], "name");
        same("AT_EXECFN", (char *)getauxval(AT_EXECFN), depth % 2 ? "./program" : "/program");
        same_number("descriptors from 3 on", open_descriptors(), 0);
        if (depth == 3) {
            /* By descriptor: nothing else leads to it. */
            int fd = need("open", open("/program", O_RDONLY));
            unlink("/program");
            char *last[] = {"name", NULL};
            syscall(SYS_execveat, fd, "", last, environ, AT_EMPTY_PATH);
            check(0, "execveat: %s", strerror(errno));
        }
        if (failures)
            return 1;
        pid_t pid = start();
        if (pid == 0) {
            char next[16];
            snprintf(next, sizeof next, "%d", depth + 1);
            char *arguments[] = {"name", next, NULL};
            execve(depth % 2 ? "/program" : "./program", arguments, environ);
            not_executed();
        }
        all_well("one more", pid);
        return failures != 0;
    }
    if (strcmp(argv[0], "name") == 0)
        return 0;
    char path[4096];
    strcpy(path, self());
    workplace();
    copy(path, "program", 0755);
    pid_t pid = start();
    if (pid == 0) {
        need("chroot", chroot("."));
        char *arguments[] = {"name", "0", NULL};
        execve("/program", arguments, environ);
        not_executed();
    }
    all_well("in an empty root", pid);

    /* The same without privileges: a user namespace with a root of its own. */
    pid = start();
    if (pid == 0) {
        copy(path, "program", 0755);
        need("unshare", unshare(CLONE_NEWUSER | CLONE_NEWNS));
        need("chroot", chroot("."));
        char *arguments[] = {"name", "0", NULL};
        execve("/program", arguments, environ);
        not_executed();
    }
    all_well("in a user namespace", pid);

    /* As containers do it: namespaces of all kinds, and nothing left of the old root. */
    mkdir("container", 0755);
    pid = start();
    if (pid == 0) {
        int all = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET | CLONE_NEWCGROUP;
        need("unshare", unshare(all));
        need("private", mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
        need("mount", mount("none", "container", "tmpfs", 0, NULL));
        copy(path, "container/program", 0755);
        need("chdir", chdir("container"));
        need("pivot_root", syscall(SYS_pivot_root, ".", "."));
        need("umount", umount2(".", MNT_DETACH));
        pid_t first = start();
        if (first == 0) {
            same_number("the process number", getpid(), 1);
            char *arguments[] = {"name", "0", NULL};
            execve("/program", arguments, environ);
            not_executed();
        }
        all_well("the first process", first);
        _exit(failures != 0);
    }
    all_well("in a container", pid);
    return result();
}
