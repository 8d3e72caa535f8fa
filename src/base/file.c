#include "base/file.h"

#include "base/bytes.h"
#include "base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct vfile { /* as vfs_posix sees it */
    int fd;
};

static int posix_open(vfs *v, vfile **out, const char *path, int flags) {
    int fl = O_CLOEXEC | (flags & VFS_WRITE ? O_RDWR : O_RDONLY) | (flags & VFS_CREATE ? O_CREAT : 0) |
             (flags & VFS_EXCL ? O_EXCL : 0);
    vfile *f = mem_alloc(sizeof *f);
    if (!f) return -ENOMEM;
    f->fd = open(path, fl, 0600);
    if (f->fd < 0) {
        int r = -errno;
        mem_free(f);
        return r;
    }
    *out = f;
    return 0;
}

static void posix_close(vfs *v, vfile *f) {
    if (!f) return;
    close(f->fd);
    mem_free(f);
}

static int64_t posix_pread(vfs *v, vfile *f, void *p, size_t n, uint64_t off) {
    size_t done = 0;
    while (done < n) {
        ssize_t k = pread(f->fd, (char *)p + done, n - done, (off_t)(off + done));
        if (k < 0 && errno == EINTR) continue;
        if (k < 0) return -errno;
        if (k == 0) break;
        done += (size_t)k;
    }
    return (int64_t)done;
}

static int posix_pwrite(vfs *v, vfile *f, const void *p, size_t n, uint64_t off) {
    size_t done = 0;
    while (done < n) {
        ssize_t k = pwrite(f->fd, (const char *)p + done, n - done, (off_t)(off + done));
        if (k < 0 && errno == EINTR) continue;
        if (k < 0) return -errno;
        if (k == 0) return -EIO;
        done += (size_t)k;
    }
    return 0;
}

static int posix_sync(vfs *v, vfile *f) {
    return fdatasync(f->fd) == 0 ? 0 : -errno;
}

static int64_t posix_size(vfs *v, vfile *f) {
    struct stat st;
    return fstat(f->fd, &st) == 0 ? (int64_t)st.st_size : -(int64_t)errno;
}

static int posix_truncate(vfs *v, vfile *f, uint64_t size) {
    return ftruncate(f->fd, (off_t)size) == 0 ? 0 : -errno;
}

/* Writes zeros instead of fallocate: blocks that were only reserved cost a metadata update when first written, which
 * is what prewriting is there to avoid. */
static int posix_allocate(vfs *v, vfile *f, uint64_t size) {
    int64_t have = posix_size(v, f);
    if (have < 0) return (int)have;
    enum { STEP = 1 << 18 };
    char *zero = mem_zalloc(STEP);
    if (!zero) return -ENOMEM;
    int r = 0;
    for (uint64_t off = (uint64_t)have; r == 0 && off < size;) {
        size_t n = size - off < STEP ? (size_t)(size - off) : STEP;
        r = posix_pwrite(v, f, zero, n, off);
        off += n;
    }
    mem_free(zero);
    return r ? r : fsync(f->fd) == 0 ? 0 : -errno;
}

static void posix_let_go(vfs *v, vfile *f) {
    (void)posix_fadvise(f->fd, 0, 0, POSIX_FADV_DONTNEED);
}

static int posix_rename(vfs *v, const char *from, const char *to) {
    return rename(from, to) == 0 ? 0 : -errno;
}
static int posix_unlink(vfs *v, const char *path) {
    return unlink(path) == 0 ? 0 : -errno;
}

static int posix_mkdir(vfs *v, const char *path) {
    if (mkdir(path, 0700) == 0) return 0;
    int r = -errno;
    struct stat st;
    if (r == -EEXIST && stat(path, &st) == 0 && S_ISDIR(st.st_mode)) return 0;
    return r;
}

static int posix_sync_dir(vfs *v, const char *path) {
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return -errno;
    int r = fsync(fd) == 0 ? 0 : -errno;
    close(fd);
    return r;
}

static int posix_list(vfs *v, const char *path, int (*cb)(void *, const char *), void *ctx) {
    DIR *d = opendir(path);
    if (!d) return -errno;
    int r = 0;
    struct dirent *de;
    while (r == 0 && (de = readdir(d))) {
        if (strcmp(de->d_name, ".") == 0 || strcmp(de->d_name, "..") == 0) continue;
        r = cb(ctx, de->d_name);
    }
    closedir(d);
    return r;
}

vfs vfs_posix = {
    .open = posix_open,
    .close = posix_close,
    .pread = posix_pread,
    .pwrite = posix_pwrite,
    .sync = posix_sync,
    .size = posix_size,
    .truncate = posix_truncate,
    .allocate = posix_allocate,
    .let_go = posix_let_go,
    .rename = posix_rename,
    .unlink = posix_unlink,
    .mkdir = posix_mkdir,
    .sync_dir = posix_sync_dir,
    .list = posix_list,
};

err_code file_read(buf *out, const char *path, err *e) {
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC); /* a pipe without a writer would hold us for ever */
    if (fd < 0) return err_errno(e, "%s: cannot be opened", path);
    struct stat st;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        close(fd);
        return err_set(e, ERR_INVALID, "%s: not a regular file", path);
    }
    err_code rc = ERR_OK;
    for (;;) {
        /* one byte past the limit tells a file that fits from one that does not */
        char chunk[16384];
        ssize_t k = read(fd, chunk, sizeof chunk);
        if (k < 0 && errno == EINTR) continue;
        if (k < 0) {
            rc = err_errno(e, "%s: cannot be read", path);
            break;
        }
        if (k == 0) break;
        buf_append(out, chunk, (size_t)k);
        if (out->failed) {
            rc = buf_check(out, path, e);
            break;
        }
    }
    close(fd);
    if (rc == ERR_OK && !out->ptr) {
        buf_append(out, "", 0);
        rc = buf_check(out, path, e);
    }
    return rc;
}

static err_code sync_parent(const char *path, err *e) {
    char dir[4096];
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) : 0;
    if (n >= sizeof dir) return err_set(e, ERR_INVALID, "%s: the path is too long", path);
    memcpy(dir, path, n);
    dir[n] = 0;
    int r = posix_sync_dir(NULL, slash ? (n ? dir : "/") : ".");
    if (r == 0) return ERR_OK;
    errno = -r;
    return err_errno(e, "%s: its folder cannot be synced", path);
}

err_code file_write_atomic(const char *path, const void *p, size_t n, unsigned mode, err *e) {
    char tmp[4096];
    if (snprintf(tmp, sizeof tmp, "%s.tmp.%d.%08x", path, (int)getpid(), (unsigned)random_u64()) >= (int)sizeof tmp)
        return err_set(e, ERR_INVALID, "%s: the path is too long", path);
    int fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (fd < 0) return err_errno(e, "%s: cannot be created", tmp);
    err_code rc = ERR_OK;
    vfile f = {fd};
    int r = posix_pwrite(NULL, &f, p, n, 0);
    if (r == 0 && fsync(fd) != 0) r = -errno;
    if (close(fd) != 0 && r == 0) r = -errno;
    if (r == 0 && rename(tmp, path) != 0) r = -errno;
    if (r != 0) {
        unlink(tmp);
        errno = -r;
        rc = err_errno(e, "%s: cannot be written", path);
        if (rc == ERR_NOT_FOUND) rc = err_set(e, ERR_IO, "%s: its folder has gone", path);
        return rc;
    }
    return sync_parent(path, e);
}

err_code file_make_dirs(const char *path, unsigned mode, err *e) {
    char p[4096];
    size_t n = strlen(path);
    if (n == 0 || n >= sizeof p) return err_set(e, ERR_INVALID, "%s: not a usable path", path);
    memcpy(p, path, n + 1);
    for (size_t i = 1; i <= n; i++) {
        if (p[i] != '/' && p[i] != 0) continue;
        char c = p[i];
        p[i] = 0;
        if (mkdir(p, mode) != 0 && errno != EEXIST) return err_errno(e, "%s: cannot be created", p);
        p[i] = c;
    }
    struct stat st;
    if (stat(path, &st) != 0) return err_errno(e, "%s", path);
    if (!S_ISDIR(st.st_mode)) return err_set(e, ERR_EXISTS, "%s: is there already and is not a folder", path);
    return ERR_OK;
}

bool file_exists(const char *path) {
    return access(path, F_OK) == 0;
}

err_code path_join(char *out, size_t cap, err *e, const char *a, const char *b) {
    int n = snprintf(out, cap, "%s/%s", a, b);
    if (n < 0 || (size_t)n >= cap) return err_set(e, ERR_INVALID, "%s/%s: the path is too long", a, b);
    return ERR_OK;
}

err_code file_map_open(file_map *out, const char *path, err *e) {
    *out = (file_map){.fd = -1};
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe is refused below, not waited for */
    if (fd < 0) return err_errno(e, "%s: cannot be opened", path);
    struct stat st;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        close(fd);
        return err_set(e, ERR_INVALID, "%s: not a regular file", path);
    }
    if (st.st_size == 0) { /* mmap refuses empty files; an empty one is only short */
        out->fd = fd;
        return ERR_OK;
    }
    void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (p == MAP_FAILED) {
        err_code rc = err_errno(e, "%s: cannot be mapped", path);
        close(fd);
        return rc;
    }
    out->ptr = p;
    out->len = (size_t)st.st_size;
    out->fd = fd;
    return ERR_OK;
}

void file_map_close(file_map *m) {
    if (m->ptr) munmap((void *)(uintptr_t)m->ptr, m->len);
    if (m->fd >= 0) close(m->fd);
    *m = (file_map){.fd = -1};
}

err_code file_lock(int *fd, const char *path, err *e) {
    *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (*fd < 0) return err_errno(e, "%s: cannot be opened", path);
    if (flock(*fd, LOCK_EX | LOCK_NB) == 0) return ERR_OK;
    int saved = errno;
    close(*fd);
    *fd = -1;
    if (saved == EWOULDBLOCK) return err_set(e, ERR_BUSY, "%s: another polder process has this island open", path);
    errno = saved;
    return err_errno(e, "%s: cannot be locked", path);
}
