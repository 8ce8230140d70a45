/* Mounts by descriptors, and what is told of them. */
#include "check.h"
#include <linux/mount.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <stdint.h>

enum { STATMOUNT = 457, LISTMOUNT = 458, SB_BASIC = 1, MNT_BASIC = 2, MNT_POINT = 0x10, FS_TYPE = 0x20 };
#define MAGIC_TMPFS 0x01021994

struct request {
    uint32_t size, spare;
    uint64_t mount, param;
};

/* The beginning of struct statmount. */
struct told {
    uint32_t size, options;
    uint64_t mask;
    uint32_t major, minor;
    uint64_t magic;
    uint32_t flags, type;
    uint64_t id, parent;
    uint32_t old_id, old_parent;
    uint64_t attributes, propagation, group, master, from;
    uint32_t root, point;
    uint64_t rest[50];
    char strings[4096];
};

static uint64_t unique_id(const char *path)
{
    struct statx stat;
    need("statx", statx(AT_FDCWD, path, 0, 0x4000 /* STATX_MNT_ID_UNIQUE */, &stat));
    return stat.stx_mnt_id;
}

static void told_of(uint64_t id, const char *point)
{
    static struct told told;
    struct request request = {sizeof request, 0, id, SB_BASIC | MNT_BASIC | MNT_POINT | FS_TYPE};
    need("statmount", syscall(STATMOUNT, &request, &told, sizeof told, 0));
    same_number("magic", told.magic, MAGIC_TMPFS);
    check(told.id == id, "it is the mount asked for");
    check(told.attributes & MOUNT_ATTR_NOSUID && told.attributes & MOUNT_ATTR_RDONLY, "attributes %#lx", told.attributes);
    same("type", told.strings + told.type, "tmpfs");
    const char *end = strrchr(told.strings + told.point, '/');
    same("point", end, point);

    uint64_t ids[100];
    struct request below = {sizeof below, 0, told.parent, 0};
    long count = need("listmount", syscall(LISTMOUNT, &below, ids, 100, 0));
    int found = 0;
    for (long i = 0; i < count; i++)
        found += ids[i] == id;
    same_number("times it is listed", found, 1);
}

int main(void)
{
    struct statfs fs;
    workplace();
    need("mkdir", mkdir("here", 0755));
    need("mkdir", mkdir("there", 0755));
    need("unshare", unshare(CLONE_NEWNS));
    need("private", mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
    int context = need("fsopen", syscall(SYS_fsopen, "tmpfs", 1));
    need("fsconfig", syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, "size", "64k", 0));
    same_number("fsconfig of what there is not", syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, "no", "x", 0), -1);
    same_number("errno", errno, EINVAL);
    char text[200] = "";
    check(read(context, text, sizeof text - 1) > 0 && strstr(text, "no"), "the kernel says «%s»", text);
    need("fsconfig", syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0));
    int tree = need("fsmount", syscall(SYS_fsmount, context, 1, MOUNT_ATTR_NOSUID));
    need("move_mount", syscall(SYS_move_mount, tree, "", AT_FDCWD, "here", MOVE_MOUNT_F_EMPTY_PATH));
    need("statfs", statfs("here", &fs));
    same_number("size", fs.f_blocks * fs.f_bsize, 65536);
    put("here/file", "x", 1, 0644);

    int copy = need("open_tree", syscall(SYS_open_tree, AT_FDCWD, "here", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC));
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY};
    need("mount_setattr", syscall(SYS_mount_setattr, copy, "", AT_EMPTY_PATH, &attr, sizeof attr));
    need("move_mount", syscall(SYS_move_mount, copy, "", AT_FDCWD, "there", MOVE_MOUNT_F_EMPTY_PATH));
    same_number("the copy's file", access("there/file", R_OK), 0);
    same_number("writing there", open("there/file", O_WRONLY), -1);
    same_number("errno", errno, EROFS);
    same_number("writing here", access("here/file", W_OK), 0);
    told_of(unique_id("there"), "/there");

    int picked = need("fspick", syscall(SYS_fspick, AT_FDCWD, "here", 0));
    need("fsconfig", syscall(SYS_fsconfig, picked, FSCONFIG_SET_STRING, "size", "128k", 0));
    need("fsconfig", syscall(SYS_fsconfig, picked, FSCONFIG_CMD_RECONFIGURE, NULL, NULL, 0));
    need("statfs", statfs("here", &fs));
    same_number("size", fs.f_blocks * fs.f_bsize, 131072);
    close(copy);
    need("umount", umount2("there", 0));
    close(tree);
    need("umount", umount2("here", MNT_DETACH));
    return result();
}
