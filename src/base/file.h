/* Files: a small table of file-system calls (so that tests put a simulated disk under the ledger), and helpers.
 *
 * Everything that must survive a crash is written through a `vfs`; vfs_posix is the real one. All calls are
 * thread-safe as the system's are. Results are 0 or -errno.
 */
#ifndef POLDER_BASE_FILE_H
#define POLDER_BASE_FILE_H

#include "base/buf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { VFS_READ = 0, VFS_WRITE = 1, VFS_CREATE = 2, VFS_EXCL = 4 };

typedef struct vfs vfs;
typedef struct vfile vfile; /* belongs to its vfs */

/* Paths are as the vfs understands them ('/' separates). Modes of created files are 0600, of folders 0700. */
struct vfs {
    int (*open)(vfs *v, vfile **out, const char *path, int flags);
    void (*close)(vfs *v, vfile *f);
    int64_t (*pread)(vfs *v, vfile *f, void *p, size_t n, uint64_t off);    /* bytes read, short at end, or -errno */
    int (*pwrite)(vfs *v, vfile *f, const void *p, size_t n, uint64_t off); /* all or -errno */
    int (*sync)(vfs *v, vfile *f);                                          /* fdatasync */
    int64_t (*size)(vfs *v, vfile *f);
    int (*truncate)(vfs *v, vfile *f, uint64_t size);
    int (*allocate)(vfs *v, vfile *f, uint64_t size); /* prewrite zeros up to size and sync */
    void (*let_go)(vfs *v, vfile *f);                 /* not read soon: what is synced leaves the system's memory */
    int (*rename)(vfs *v, const char *from, const char *to);
    int (*unlink)(vfs *v, const char *path); /* -ENOENT where absent */
    int (*mkdir)(vfs *v, const char *path);  /* 0 where it exists already */
    int (*sync_dir)(vfs *v, const char *path);
    /* Calls cb for each name in the folder, in no order; stops where cb returns non-zero and returns that. */
    int (*list)(vfs *v, const char *path, int (*cb)(void *ctx, const char *name), void *ctx);
};

extern vfs vfs_posix;

/* Helpers on the real file system. */
err_code file_read(buf *out, const char *path, err *e); /* whole; out->max bounds it */
err_code file_write_atomic(const char *path, const void *p, size_t n, unsigned mode,
                           err *e);                               /* temp, fsync, rename, fsync folder */
err_code file_make_dirs(const char *path, unsigned mode, err *e); /* mkdir -p */
bool file_exists(const char *path);
err_code path_join(char *out, size_t cap, err *e, const char *a, const char *b);

typedef struct file_map { /* a read-only mapping */
    const uint8_t *ptr;
    size_t len;
    int fd;
} file_map;
err_code file_map_open(file_map *out, const char *path, err *e);
void file_map_close(file_map *m);

/* Exclusive advisory lock on a file (created). *fd holds it until closed. ERR_BUSY where another holds it. */
err_code file_lock(int *fd, const char *path, err *e);

#endif
