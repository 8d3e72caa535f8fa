#include "engine/packfile.h"

#include "base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAGIC      0x4b434150444c4f50u /* "POLDPACK" */
#define DATA_ALIGN ((uint64_t)2 << 20)
#define TEMP_INFIX ".tmp-"
#define SYNC_EVERY ((uint64_t)32 << 20)

typedef struct section {
    uint64_t at, len, sum;
} section;

typedef struct header {
    uint64_t magic;
    uint32_t version, n_sections;
    packfile_source source;
    section sections[PACKFILE_SECTIONS];
    uint64_t data_at, data_len;
    uint64_t sum; /* of the bytes before */
} header;
_Static_assert(sizeof(header) <= PACKFILE_HEADER, "the header has its place");
_Static_assert(sizeof(packfile_entry) == 40 && sizeof(section) == 24 && sizeof(packfile_source) == 96, "no padding");

/* ---- sums ------------------------------------------------------------------------------------------------- */

#define SUM_LANES 8
#define SUM_MUL   0x9e3779b97f4a7c15u /* odd: every step can be undone, so two words that differ stay different */

static inline uint64_t sum_step(uint64_t a, uint64_t x) {
    a = (a ^ x) * SUM_MUL;
    return a << 29 | a >> 35;
}

uint64_t packfile_sum(const void *p, size_t n) {
    const uint8_t *b = p;
    uint64_t a[SUM_LANES], x[SUM_LANES], sum = n;
    for (int i = 0; i < SUM_LANES; i++) a[i] = (uint64_t)(i + 1) * SUM_MUL;
    for (; n >= sizeof x; b += sizeof x, n -= sizeof x) {
        memcpy(x, b, sizeof x);
        for (int i = 0; i < SUM_LANES; i++) a[i] = sum_step(a[i], x[i]);
    }
    if (n) {
        memset(x, 0, sizeof x);
        memcpy(x, b, n);
        for (int i = 0; i < SUM_LANES; i++) a[i] = sum_step(a[i], x[i]);
    }
    for (int i = 0; i < SUM_LANES; i++) {
        sum = sum_step(sum, a[i]);
        sum ^= sum >> 32;
    }
    return sum;
}

bool packfile_same_stat(const packfile_source *a, const packfile_source *b) {
    return a->size == b->size && a->device == b->device && a->inode == b->inode && a->mtime_ns == b->mtime_ns &&
           a->ctime_ns == b->ctime_ns;
}

/* ---- reading ---------------------------------------------------------------------------------------------- */

static err_code bad(err *e, const char *path, const char *what) {
    return err_set(e, ERR_INVALID, "%s: %s", path, what);
}

static err_code check_header(const header *h, uint64_t file_len, const char *path, err *e) {
    if (h->magic != MAGIC) return bad(e, path, "not a file of packed weights");
    if (h->version != PACKFILE_VERSION || h->n_sections != PACKFILE_SECTIONS)
        return err_set(e, ERR_INVALID, "%s: layout %u; this polder has layout %d", path, h->version, PACKFILE_VERSION);
    if (h->sum != packfile_sum(h, offsetof(header, sum))) return bad(e, path, "its header is damaged");
    for (int i = 0; i < PACKFILE_SECTIONS; i++) {
        const section *s = &h->sections[i];
        if (s->at < PACKFILE_HEADER || s->at > file_len || s->len > file_len - s->at || s->len > PACKFILE_SECTION_MAX)
            return bad(e, path, "a section lies outside of the file");
    }
    if (h->data_at % DATA_ALIGN || h->data_at > file_len || h->data_len > file_len - h->data_at)
        return bad(e, path, "the weights lie outside of the file");
    uint64_t full = (h->data_len + DATA_ALIGN - 1) / DATA_ALIGN * DATA_ALIGN; /* no overflow: it is in the file */
    if (full > file_len - h->data_at) return bad(e, path, "it is cut short");
    return ERR_OK;
}

static err_code check_entries(const packfile_content *c, const char *path, err *e) {
    uint64_t n_bytes = c->section[PACKFILE_S_ENTRIES].len, n = n_bytes / sizeof(packfile_entry);
    if (n_bytes % sizeof(packfile_entry) || n > PACKFILE_ENTRIES_MAX) return bad(e, path, "its table is malformed");
    if (c->section[PACKFILE_S_SUMS].len != packfile_sum_count(c->data_len) * sizeof(uint64_t))
        return bad(e, path, "its sums are not as many as its weights need");
    for (uint64_t i = 0; i < n; i++) {
        const packfile_entry *x = &packfile_entries(c)[i];
        uint64_t room = x->is_vector ? c->section[PACKFILE_S_VECTORS].len : c->data_len;
        if (x->at % 64 || x->at > room || x->len > room - x->at)
            return err_set(e, ERR_INVALID, "%s: entry %" PRIu64 " of its table lies outside of the weights", path, i);
        if (x->is_vector && x->len != (uint64_t)x->rows * x->cols * sizeof(float))
            return err_set(e, ERR_INVALID, "%s: entry %" PRIu64 " of its table has another length than its shape", path,
                           i);
    }
    return ERR_OK;
}

err_code packfile_parse(packfile *f, uint64_t file_len, packfile_get get, void *ctx, const char *path, err *e) {
    header h;
    err_code rc = file_len < PACKFILE_HEADER ? bad(e, path, "it is cut short") : get(ctx, 0, &h, sizeof h, e);
    if (rc == ERR_OK) rc = check_header(&h, file_len, path, e);
    if (rc != ERR_OK) return rc;
    f->c = (packfile_content){.source = h.source, .data_at = h.data_at, .data_len = h.data_len};
    for (int i = 0; i < PACKFILE_SECTIONS; i++) {
        const section *s = &h.sections[i];
        size_t n = (size_t)s->len;
        if (!(f->memory[i] = mem_alloc_aligned(n ? n : 1))) return err_nomem(e, "a file of packed weights");
        if ((rc = get(ctx, s->at, f->memory[i], n, e)) != ERR_OK) return rc;
        if (packfile_sum(f->memory[i], n) != s->sum) return bad(e, path, "a section is damaged");
        f->c.section[i].p = f->memory[i];
        f->c.section[i].len = s->len;
    }
    return check_entries(&f->c, path, e);
}

typedef struct disk {
    int fd;
    const char *path;
} disk;

static err_code disk_get(void *ctx, uint64_t at, void *p, size_t n, err *e) {
    const disk *d = ctx;
    for (uint8_t *b = p; n;) {
        ssize_t got = pread(d->fd, b, n, (off_t)at);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return err_errno(e, "%s: cannot read", d->path);
        if (got == 0) return bad(e, d->path, "it is cut short");
        b += got;
        at += (uint64_t)got;
        n -= (size_t)got;
    }
    return ERR_OK;
}

err_code packfile_open(packfile **out, const char *path, err *e) {
    *out = NULL;
    packfile *f = mem_zalloc(sizeof *f);
    if (!f) return err_nomem(e, "a file of packed weights");
    struct stat st;
    err_code rc = ERR_OK;
    f->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
    if (f->fd < 0)
        rc = errno == ENOENT ? err_set(e, ERR_NOT_FOUND, "%s: there is no such file", path)
                             : err_errno(e, "%s: cannot open", path);
    else if (fstat(f->fd, &st) != 0 || !S_ISREG(st.st_mode))
        rc = bad(e, path, "not a regular file");
    if (rc == ERR_OK) rc = packfile_parse(f, (uint64_t)st.st_size, disk_get, &(disk){f->fd, path}, path, e);
    if (rc == ERR_OK)
        *out = f;
    else
        packfile_close(f);
    return rc;
}

void packfile_close(packfile *f) {
    if (!f) return;
    for (int i = 0; i < PACKFILE_SECTIONS; i++) mem_free_aligned(f->memory[i]);
    if (f->fd >= 0) close(f->fd);
    mem_free(f);
}

/* ---- writing ---------------------------------------------------------------------------------------------- */

typedef struct writer {
    int fd;
    const char *path;
    atomic_bool *stop;
    uint64_t at, synced;
} writer;

static err_code put_at(const writer *w, uint64_t at, const void *p, size_t n, err *e) {
    for (const uint8_t *b = p; n;) {
        ssize_t put = pwrite(w->fd, b, n, (off_t)at);
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) return err_errno(e, "%s: cannot write", w->path);
        b += put;
        at += (uint64_t)put;
        n -= (size_t)put;
    }
    return ERR_OK;
}

/* Goes on at a multiple of 64. What was written goes to the disk in pieces, so that nobody waits long for the end. */
static err_code put(writer *w, const void *p, size_t n, err *e) {
    if (w->stop && atomic_load(w->stop)) return err_set(e, ERR_CANCELLED, "%s: writing was cancelled", w->path);
    err_code rc = put_at(w, w->at, p, n, e);
    w->at = (w->at + n + 63) / 64 * 64;
    if (w->at - w->synced >= SYNC_EVERY) {
        (void)sync_file_range(w->fd, (off_t)w->synced, (off_t)(w->at - w->synced),
                              SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
        w->synced = w->at;
    }
    return rc;
}

static err_code put_header(const writer *w, header *h, err *e) {
    h->sum = packfile_sum(h, offsetof(header, sum));
    return put_at(w, 0, h, sizeof *h, e);
}

static err_code put_all(writer *w, const packfile_content *c, uint64_t *sums, err *e) {
    header h;
    memset(&h, 0, sizeof h);
    h.magic = MAGIC;
    h.version = PACKFILE_VERSION;
    h.n_sections = PACKFILE_SECTIONS;
    h.source = c->source;
    h.data_len = c->data_len;
    size_t n_sums = packfile_sum_count(c->data_len);
    uint64_t at = PACKFILE_HEADER;
    for (int i = 0; i < PACKFILE_SECTIONS; i++) {
        h.sections[i].at = at;
        h.sections[i].len = i == PACKFILE_S_SUMS ? n_sums * sizeof *sums : c->section[i].len;
        at = (at + h.sections[i].len + 63) / 64 * 64;
    }
    h.data_at = (at + DATA_ALIGN - 1) / DATA_ALIGN * DATA_ALIGN;
    uint64_t end = h.data_at + (c->data_len + DATA_ALIGN - 1) / DATA_ALIGN * DATA_ALIGN;
    /* A disk that is too small says so before the work, where the file system can tell. */
    if (fallocate(w->fd, 0, 0, (off_t)end) != 0 && errno != EOPNOTSUPP && errno != ENOSYS && errno != EINTR)
        return err_errno(e, "%s: cannot reserve %" PRIu64 " bytes", w->path, end);
    if (ftruncate(w->fd, (off_t)end) != 0) return err_errno(e, "%s: cannot set its length", w->path);
    err_code rc = ERR_OK;
    w->at = w->synced = h.data_at;
    for (size_t i = 0; i < n_sums && rc == ERR_OK; i++) {
        uint64_t from = i * PACKFILE_CHUNK, n = c->data_len - from;
        if (n > PACKFILE_CHUNK) n = PACKFILE_CHUNK;
        sums[i] = packfile_sum(c->data + from, (size_t)n);
        rc = put(w, c->data + from, (size_t)n, e);
    }
    for (int i = 0; i < PACKFILE_SECTIONS && rc == ERR_OK; i++) {
        const void *p = i == PACKFILE_S_SUMS ? sums : c->section[i].p;
        w->at = w->synced = h.sections[i].at;
        h.sections[i].sum = packfile_sum(p, (size_t)h.sections[i].len);
        rc = put(w, p, (size_t)h.sections[i].len, e);
    }
    return rc == ERR_OK ? put_header(w, &h, e) : rc;
}

/* "FOLDER/" of a path, and what comes after. */
static const char *split_path(const char *path, char *folder, size_t cap) {
    const char *slash = strrchr(path, '/');
    if (!slash)
        snprintf(folder, cap, ".");
    else
        snprintf(folder, cap, "%.*s", slash == path ? 1 : (int)(slash - path), path);
    return slash ? slash + 1 : path;
}

/* Files that a writer was making when it died: nobody holds their lock. */
static void remove_abandoned(const char *path) {
    char folder[4096];
    const char *name = split_path(path, folder, sizeof folder);
    size_t n = strlen(name), k = strlen(TEMP_INFIX);
    DIR *d = opendir(folder);
    for (struct dirent *de; d && (de = readdir(d));) {
        if (strncmp(de->d_name, name, n) != 0 || strncmp(de->d_name + n, TEMP_INFIX, k) != 0) continue;
        int fd = openat(dirfd(d), de->d_name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0) unlinkat(dirfd(d), de->d_name, 0);
        if (fd >= 0) close(fd);
    }
    if (d) closedir(d);
}

static err_code sync_folder(const char *path, err *e) {
    char folder[4096];
    split_path(path, folder, sizeof folder);
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    err_code rc = fd < 0 || fsync(fd) != 0 ? err_errno(e, "%s: cannot sync", folder) : ERR_OK;
    if (fd >= 0) close(fd);
    return rc;
}

err_code packfile_write(const packfile_content *c, uint64_t *sums, const char *path, atomic_bool *stop, err *e) {
    char temp[4096 + 32];
    if (snprintf(temp, sizeof temp, "%s" TEMP_INFIX "%016" PRIx64, path, random_u64()) >= 4096)
        return err_set(e, ERR_TOO_LONG, "%s: the path is too long", path);
    remove_abandoned(path);
    writer w = {.path = temp, .stop = stop};
    w.fd = open(temp, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (w.fd < 0) return err_errno(e, "%s: cannot create", temp);
    err_code rc = flock(w.fd, LOCK_EX | LOCK_NB) == 0 ? ERR_OK : err_errno(e, "%s: cannot lock", temp);
    if (rc == ERR_OK) rc = put_all(&w, c, sums, e);
    if (rc == ERR_OK && fsync(w.fd) != 0) rc = err_errno(e, "%s: cannot sync", temp);
    if (rc == ERR_OK && rename(temp, path) != 0) rc = err_errno(e, "%s: cannot rename to %s", temp, path);
    if (rc != ERR_OK) unlink(temp);
    close(w.fd);
    return rc == ERR_OK ? sync_folder(path, e) : rc;
}

err_code packfile_rebind(packfile *f, const char *path, const packfile_source *now, err *e) {
    header h;
    struct stat mine, other;
    writer w = {.path = path};
    err_code rc = disk_get(&(disk){f->fd, path}, 0, &h, sizeof h, e);
    if (rc != ERR_OK) return rc;
    w.fd = open(path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (w.fd < 0) return err_errno(e, "%s: cannot open", path);
    if (fstat(f->fd, &mine) != 0 || fstat(w.fd, &other) != 0 || mine.st_ino != other.st_ino ||
        mine.st_dev != other.st_dev)
        rc = bad(e, path, "another file has taken its place");
    h.source = f->c.source = *now;
    if (rc == ERR_OK) rc = put_header(&w, &h, e); /* torn, it is damaged, and made anew */
    close(w.fd);
    return rc;
}
