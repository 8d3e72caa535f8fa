/* store: files by digest.
 *
 * A blob comes in through a temporary file in blobs/sha256 (so the rename stays in one file system), which holds a
 * lock while its import runs. What has no lock at opening was left by a crash and is removed.
 *
 *   temporary file written and hashed → 0444 → fsync → rename without replacing → fsync of both folders
 *
 * Only after the last step is the import reported; a crash before it leaves a temporary file or a complete blob.
 */
#include "store/internal.h"

#include "base/file.h"
#include "base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define BLOB_CHUNK  (1024 * 1024)
#define BLOB_PREFIX ".import-"

static err_code blob_folder(const store *s, char out[STORE_PATH_MAX], err *e) {
    if ((size_t)snprintf(out, STORE_PATH_MAX, "%s/blobs/sha256", s->dir) >= STORE_PATH_MAX)
        return err_set(e, ERR_TOO_LONG, "%s: the path is too long", s->dir);
    return ERR_OK;
}

static err_code sync_folder(const char *path, err *e) {
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return err_errno(e, "%s: cannot open the folder", path);
    err_code code = fsync(fd) == 0 ? ERR_OK : err_errno(e, "%s: cannot sync the folder", path);
    close(fd);
    return code;
}

/* ---- opening --------------------------------------------------------------------------------------------- */

static void remove_abandoned(int dir, const char *name) {
    int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) return;
    if (flock(fd, LOCK_EX | LOCK_NB) == 0) unlinkat(dir, name, 0);
    close(fd);
}

err_code blob_open(store *s, err *e) {
    char folder[STORE_PATH_MAX];
    err_code code = blob_folder(s, folder, e);
    if (code == ERR_OK) code = file_make_dirs(folder, 0700, e);
    if (code != ERR_OK) return code;
    DIR *d = opendir(folder);
    if (!d) return err_errno(e, "%s: cannot read the folder", folder);
    struct dirent *de;
    while ((de = readdir(d)))
        if (strncmp(de->d_name, BLOB_PREFIX, strlen(BLOB_PREFIX)) == 0) remove_abandoned(dirfd(d), de->d_name);
    closedir(d);
    return ERR_OK;
}

err_code store_blob_path(store *s, const uint8_t digest[SHA256_LEN], char *out, size_t cap, err *e) {
    char hex[SHA256_HEX_LEN + 1];
    hex_encode(hex, digest, SHA256_LEN);
    if ((size_t)snprintf(out, cap, "%s/blobs/sha256/%.2s/%s", s->dir, hex, hex + 2) >= cap)
        return err_set(e, ERR_TOO_LONG, "%s: the path of blob %s is too long", s->dir, hex);
    if (!file_exists(out)) return err_set(e, ERR_NOT_FOUND, "%s: there is no blob %s", s->dir, hex);
    return ERR_OK;
}

/* ---- reading and hashing --------------------------------------------------------------------------------- */

static err_code open_regular(int *fd, struct stat *st, const char *path, err *e) {
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not block */
    if (*fd < 0) {
        if (errno == ENOENT) return err_set(e, ERR_NOT_FOUND, "%s: there is no such file", path);
        return err_errno(e, "%s: cannot open", path);
    }
    err_code code = ERR_OK;
    if (fstat(*fd, st) != 0)
        code = err_errno(e, "%s: cannot stat", path);
    else if (!S_ISREG(st->st_mode))
        code = err_set(e, ERR_INVALID, "%s: is not a regular file", path);
    if (code != ERR_OK) {
        close(*fd);
        *fd = -1;
    }
    return code;
}

typedef struct blob_copy {
    const char *from_path;
    int from;
    const char *to_path; /* NULL: only hash */
    int to;
    uint64_t total, done;
    store_progress progress;
    void *ctx;
    uint8_t digest[SHA256_LEN];
} blob_copy;

static err_code write_chunk(const blob_copy *c, const uint8_t *p, size_t n, err *e) {
    while (n > 0) {
        ssize_t put = write(c->to, p, n);
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) return err_errno(e, "%s: cannot write", c->to_path);
        p += put;
        n -= (size_t)put;
    }
    return ERR_OK;
}

static err_code copy_loop(blob_copy *c, uint8_t *chunk, err *e) {
    sha256 h;
    sha256_init(&h);
    for (;;) {
        ssize_t got = read(c->from, chunk, BLOB_CHUNK);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return err_errno(e, "%s: cannot read", c->from_path);
        if (got == 0) break;
        sha256_update(&h, chunk, (size_t)got);
        err_code code = c->to_path ? write_chunk(c, chunk, (size_t)got, e) : ERR_OK;
        if (code != ERR_OK) return code;
        c->done += (uint64_t)got;
        if (c->progress && c->progress(c->ctx, c->done, c->total) != 0)
            return err_set(e, ERR_CANCELLED, "%s: cancelled after %llu of %llu bytes", c->from_path,
                           (unsigned long long)c->done, (unsigned long long)c->total);
    }
    sha256_final(&h, c->digest);
    return ERR_OK;
}

static err_code copy_and_hash(blob_copy *c, err *e) {
    uint8_t *chunk = mem_alloc(BLOB_CHUNK);
    if (!chunk) return err_nomem(e, "a copy buffer");
    err_code code = copy_loop(c, chunk, e);
    mem_free(chunk);
    return code;
}

/* Bytes that do not hash to the name are told, never used. */
static err_code verify_path(const char *path, const uint8_t digest[SHA256_LEN], store_progress progress, void *ctx,
                            err *e) {
    struct stat st;
    blob_copy c = {.from_path = path, .to = -1, .progress = progress, .ctx = ctx};
    err_code code = open_regular(&c.from, &st, path, e);
    if (code != ERR_OK) return code;
    c.total = (uint64_t)st.st_size;
    code = copy_and_hash(&c, e);
    close(c.from);
    if (code == ERR_OK && memcmp(c.digest, digest, SHA256_LEN) != 0) {
        char hex[SHA256_HEX_LEN + 1];
        hex_encode(hex, c.digest, SHA256_LEN);
        code = err_set(e, ERR_CORRUPT, "%s: its bytes hash to %s; remove it and import it again", path, hex);
    }
    return code;
}

err_code store_blob_verify(store *s, const uint8_t digest[SHA256_LEN], store_progress progress, void *ctx, err *e) {
    char path[STORE_PATH_MAX];
    err_code code = store_blob_path(s, digest, path, sizeof path, e);
    return code == ERR_OK ? verify_path(path, digest, progress, ctx, e) : code;
}

/* ---- importing ------------------------------------------------------------------------------------------- */

static bool same_moment(const struct timespec *a, const struct timespec *b) {
    return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

/* The stored bytes always match their digest; this is for the person who thinks the file is one and the same. */
static err_code source_unchanged(const blob_copy *c, const struct stat *before, err *e) {
    struct stat now;
    if (fstat(c->from, &now) != 0) return err_errno(e, "%s: cannot stat", c->from_path);
    if (c->done == c->total && now.st_size == before->st_size && same_moment(&now.st_mtim, &before->st_mtim))
        return ERR_OK;
    return err_set(e, ERR_INVALID, "%s: changed while it was read; import it when nothing writes to it", c->from_path);
}

static int rename_new(const char *from, const char *to) {
    if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0) return 0;
    if (errno != EINVAL && errno != ENOSYS) return -1;
    if (link(from, to) != 0) return -1; /* file systems without RENAME_NOREPLACE */
    return unlink(from);
}

/* From a complete temporary file to a durable blob. */
static err_code publish(store *s, const char *folder, const char *temp, const uint8_t digest[SHA256_LEN], err *e) {
    char path[STORE_PATH_MAX], sub[STORE_PATH_MAX + 8];
    err_code code = store_blob_path(s, digest, path, sizeof path, e);
    if (code != ERR_OK && code != ERR_NOT_FOUND) return code;
    if (code == ERR_OK) return verify_path(path, digest, NULL, NULL, e); /* there already */
    snprintf(sub, sizeof sub, "%s/%02x", folder, digest[0]);
    if (mkdir(sub, 0700) != 0 && errno != EEXIST) return err_errno(e, "%s: cannot create the folder", sub);
    if (rename_new(temp, path) != 0) {
        if (errno == EEXIST) return verify_path(path, digest, NULL, NULL, e);
        return err_errno(e, "%s: cannot rename to %s", temp, path);
    }
    code = sync_folder(sub, e);
    return code == ERR_OK ? sync_folder(folder, e) : code;
}

static err_code fill_temp(blob_copy *c, err *e) {
    if (flock(c->to, LOCK_EX | LOCK_NB) != 0) return err_errno(e, "%s: cannot lock", c->to_path);
    /* A disk that is too small says so before the copy, where the file system can tell. */
    if (c->total > 0 && fallocate(c->to, 0, 0, (off_t)c->total) != 0 && errno != EOPNOTSUPP && errno != ENOSYS &&
        errno != EINTR)
        return err_errno(e, "%s: cannot reserve %llu bytes", c->to_path, (unsigned long long)c->total);
    return copy_and_hash(c, e);
}

static err_code seal_temp(const blob_copy *c, err *e) {
    if (ftruncate(c->to, (off_t)c->done) != 0) return err_errno(e, "%s: cannot set its length", c->to_path);
    if (fchmod(c->to, 0444) != 0) return err_errno(e, "%s: cannot make it read-only", c->to_path);
    if (fsync(c->to) != 0) return err_errno(e, "%s: cannot sync", c->to_path);
    return ERR_OK;
}

static err_code import_open_file(store *s, blob_copy *c, const struct stat *st, err *e) {
    char folder[STORE_PATH_MAX], temp[STORE_PATH_MAX + 64];
    err_code code = blob_folder(s, folder, e);
    if (code != ERR_OK) return code;
    snprintf(temp, sizeof temp, "%s/" BLOB_PREFIX "%016llx", folder, (unsigned long long)random_u64());
    c->to_path = temp;
    c->to = open(temp, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (c->to < 0) return err_errno(e, "%s: cannot create", temp);
    code = fill_temp(c, e);
    if (code == ERR_OK) code = source_unchanged(c, st, e);
    if (code == ERR_OK) code = seal_temp(c, e);
    if (code == ERR_OK) code = publish(s, folder, temp, c->digest, e);
    unlink(temp); /* gone already where it was published */
    close(c->to);
    return code;
}

err_code store_blob_import(store *s, const char *path, uint8_t digest[SHA256_LEN], uint64_t *len,
                           store_progress progress, void *ctx, err *e) {
    if (s->read_only) return err_set(e, ERR_DENIED, "%s: is open for reading only", s->path);
    struct stat st;
    blob_copy c = {.from_path = path, .progress = progress, .ctx = ctx};
    err_code code = open_regular(&c.from, &st, path, e);
    if (code != ERR_OK) return code;
    c.total = (uint64_t)st.st_size;
    code = import_open_file(s, &c, &st, e);
    close(c.from);
    if (code != ERR_OK) return code;
    memcpy(digest, c.digest, SHA256_LEN);
    if (len) *len = c.done;
    return ERR_OK;
}

/* ---- what is made of blobs --------------------------------------------------------------------------------- */

static err_code derived_folder(const store *s, char out[STORE_PATH_MAX], err *e) {
    if ((size_t)snprintf(out, STORE_PATH_MAX, "%s/derived", s->dir) >= STORE_PATH_MAX)
        return err_set(e, ERR_TOO_LONG, "%s: the path is too long", s->dir);
    return ERR_OK;
}

err_code store_derived_path(store *s, const uint8_t digest[SHA256_LEN], const char *kind, char *out, size_t cap,
                            err *e) {
    char folder[STORE_PATH_MAX], hex[SHA256_HEX_LEN + 1];
    if (s->read_only) return err_set(e, ERR_DENIED, "%s: is open for reading only", s->path);
    err_code code = derived_folder(s, folder, e);
    if (code == ERR_OK) code = file_make_dirs(folder, 0700, e);
    if (code != ERR_OK) return code;
    hex_encode(hex, digest, SHA256_LEN);
    if ((size_t)snprintf(out, cap, "%s/%s.%s", folder, hex, kind) >= cap)
        return err_set(e, ERR_TOO_LONG, "%s: the path of what is made of blob %s is too long", s->dir, hex);
    return ERR_OK;
}

/* All that was made of a blob; what cannot be removed is only in the way. */
static void remove_derived(const store *s, const uint8_t digest[SHA256_LEN]) {
    char folder[STORE_PATH_MAX], hex[SHA256_HEX_LEN + 1];
    DIR *d = derived_folder(s, folder, NULL) == ERR_OK ? opendir(folder) : NULL;
    hex_encode(hex, digest, SHA256_LEN);
    for (struct dirent *de; d && (de = readdir(d));)
        if (strncmp(de->d_name, hex, SHA256_HEX_LEN) == 0) unlinkat(dirfd(d), de->d_name, 0);
    if (d) closedir(d);
}

err_code store_blob_remove(store *s, const uint8_t digest[SHA256_LEN], err *e) {
    if (s->read_only) return err_set(e, ERR_DENIED, "%s: is open for reading only", s->path);
    char path[STORE_PATH_MAX];
    err_code code = store_blob_path(s, digest, path, sizeof path, e);
    if (code != ERR_OK) return code;
    if (unlink(path) != 0) return err_errno(e, "%s: cannot remove", path);
    remove_derived(s, digest);
    *strrchr(path, '/') = 0;
    return sync_folder(path, e);
}
