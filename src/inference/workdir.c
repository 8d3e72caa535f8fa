#include "inference/workdir.h"

#include "base/bytes.h"
#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* One level of folders below is all that polder makes there. */
static void empty(int fd, int depth) {
    DIR *d = fdopendir(dup(fd));
    if (!d) return;
    struct dirent *de;
    while ((de = readdir(d))) {
        if (strcmp(de->d_name, ".") == 0 || strcmp(de->d_name, "..") == 0) continue;
        if (unlinkat(fd, de->d_name, 0) == 0 || depth == 0) continue;
        int sub = openat(fd, de->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (sub < 0) continue;
        empty(sub, depth - 1);
        close(sub);
        unlinkat(fd, de->d_name, AT_REMOVEDIR);
    }
    closedir(d);
}

static void remove_abandoned(const char *top) {
    int fd = open(top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d) {
        if (fd >= 0) close(fd);
        return;
    }
    struct dirent *de;
    while ((de = readdir(d))) {
        if (de->d_name[0] == '.') continue;
        int sub = openat(dirfd(d), de->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (sub < 0) continue;
        if (flock(sub, LOCK_EX | LOCK_NB) == 0) {
            empty(sub, 1);
            unlinkat(dirfd(d), de->d_name, AT_REMOVEDIR);
        }
        close(sub);
    }
    closedir(d);
}

static err_code open_locked(workdir *w, err *e) {
    if (mkdir(w->path, 0700) != 0 && errno != EEXIST) return err_errno(e, "%s: cannot make the folder", w->path);
    w->fd = open(w->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (w->fd < 0) return err_errno(e, "%s: cannot open the folder", w->path);
    if (flock(w->fd, LOCK_EX | LOCK_NB) == 0) return ERR_OK;
    close(w->fd);
    w->fd = -1;
    return err_set(e, ERR_BUSY, "%s: another process works there; wait for it to end", w->path);
}

err_code workdir_new(workdir *w, const char *island, err *e) {
    char top[4000];
    w->fd = -1;
    err_code rc = path_join(top, sizeof top, e, island, "tmp");
    if (!rc) rc = file_make_dirs(top, 0700, e);
    if (rc) return rc;
    remove_abandoned(top);
    snprintf(w->path, sizeof w->path, "%s/%016" PRIx64, top, random_u64());
    return open_locked(w, e);
}

err_code workdir_keep(workdir *w, const char *island, const char *name, err *e) {
    char top[4000];
    w->fd = -1;
    err_code rc = path_join(top, sizeof top, e, island, "pulls");
    if (!rc) rc = file_make_dirs(top, 0700, e);
    if (!rc) rc = path_join(w->path, sizeof w->path, e, top, name);
    return rc ? rc : open_locked(w, e);
}

void workdir_remove(workdir *w) {
    if (w->fd < 0) return;
    empty(w->fd, 2);
    rmdir(w->path);
    workdir_close(w);
}

void workdir_close(workdir *w) {
    if (w->fd >= 0) close(w->fd);
    w->fd = -1;
}

err_code workdir_check_room(const char *path, uint64_t bytes, const char *what, err *e) {
    struct statvfs v;
    if (statvfs(path, &v) != 0) return ERR_OK; /* the write itself will tell */
    uint64_t free_bytes = (uint64_t)v.f_bavail * v.f_frsize;
    if (free_bytes >= bytes) return ERR_OK;
    return err_set(e, ERR_IO, "%s: %s needs %.1f GB of disk, %.1f are free; make room and try again", path, what,
                   (double)bytes / 1e9, (double)free_bytes / 1e9);
}
