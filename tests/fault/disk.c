#include "disk.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { SECTOR_LEN = 512, NAMES_MAX = 256, PENDING_NAMES_MAX = 512, INODES_MAX = 1024 };

typedef struct version { /* a sector as it was after a write that is not synced */
    uint64_t sector;
    uint8_t bytes[SECTOR_LEN];
} version;

typedef struct inode {
    uint8_t *now, *disk;
    uint64_t now_len, disk_len, now_cap, disk_cap;
    version *v;
    size_t n_v, cap_v;
    uint64_t *sizes; /* sizes since the last sync */
    size_t n_sizes, cap_sizes;
} inode;

typedef struct name {
    char *path;
    int inode; /* -1: free */
} name;

typedef struct name_op {
    char *from, *to; /* create: to; unlink: from; rename: both */
    int inode;
} name_op;

typedef struct fault {
    int64_t skip, times;
    int error;
    char part[64];
} fault;

struct vfile {
    int inode;
    char *path;
};

struct simdisk {
    vfs v; /* first: the vfs pointer is the disk */
    pthread_mutex_t mu;
    inode *inodes[INODES_MAX];
    int n_inodes;
    name now[NAMES_MAX], disk[NAMES_MAX];
    name_op ops[PENDING_NAMES_MAX];
    int n_ops;
    int64_t changes, crash_at;
    bool lose_syncs, stop_at_fault;
    fault faults[SIM_CALLS];
};

static void *must(void *p) {
    if (!p) abort();
    return p;
}

static char *dup_str(const char *s) {
    size_t n = strlen(s) + 1;
    return memcpy(must(malloc(n)), s, n);
}

static simdisk *disk_of(vfs *v) {
    return (simdisk *)(void *)v;
}

/* ---- names ----------------------------------------------------------------------------------------------- */

static name *find(name *t, const char *path) {
    for (int i = 0; i < NAMES_MAX; i++)
        if (t[i].path && strcmp(t[i].path, path) == 0) return &t[i];
    return NULL;
}

static void unset(name *t, const char *path) {
    name *n = find(t, path);
    if (!n) return;
    free(n->path);
    n->path = NULL;
}

static void set(name *t, const char *path, int ino) {
    unset(t, path);
    for (int i = 0; i < NAMES_MAX; i++) {
        if (t[i].path) continue;
        t[i] = (name){dup_str(path), ino};
        return;
    }
    abort();
}

static void apply(name *t, const name_op *op) {
    if (op->from) unset(t, op->from);
    if (op->to) set(t, op->to, op->inode);
}

static void pend(simdisk *d, const char *from, const char *to, int ino) {
    if (d->n_ops == PENDING_NAMES_MAX) abort();
    name_op op = {from ? dup_str(from) : NULL, to ? dup_str(to) : NULL, ino};
    apply(d->now, &op);
    d->ops[d->n_ops++] = op;
}

static bool in_folder(const char *path, const char *folder) {
    size_t n = strlen(folder);
    return strncmp(path, folder, n) == 0 && path[n] == '/' && !strchr(path + n + 1, '/');
}

static void drop_op(name_op *op) {
    free(op->from);
    free(op->to);
}

/* ---- bytes ----------------------------------------------------------------------------------------------- */

static void grow(uint8_t **p, uint64_t *cap, uint64_t n) {
    n = (n + SECTOR_LEN - 1) / SECTOR_LEN * SECTOR_LEN; /* whole sectors, zero past the end */
    if (n <= *cap) return;
    uint64_t c = *cap * 2 > n ? *cap * 2 : n;
    *p = must(realloc(*p, c));
    memset(*p + *cap, 0, c - *cap);
    *cap = c;
}

static void record_size(inode *f) {
    if (f->n_sizes == f->cap_sizes) {
        f->cap_sizes = f->cap_sizes ? 2 * f->cap_sizes : 8;
        f->sizes = must(realloc(f->sizes, f->cap_sizes * sizeof *f->sizes));
    }
    f->sizes[f->n_sizes++] = f->now_len;
}

static void record_sectors(inode *f, uint64_t from, uint64_t to) {
    for (uint64_t s = from / SECTOR_LEN; s * SECTOR_LEN < to; s++) {
        if (f->n_v == f->cap_v) {
            f->cap_v = f->cap_v ? 2 * f->cap_v : 16;
            f->v = must(realloc(f->v, f->cap_v * sizeof *f->v));
        }
        f->v[f->n_v].sector = s;
        memcpy(f->v[f->n_v++].bytes, f->now + s * SECTOR_LEN, SECTOR_LEN);
    }
}

static void file_write(inode *f, const void *p, size_t n, uint64_t off) {
    if (n == 0) return;
    grow(&f->now, &f->now_cap, off + n);
    memcpy(f->now + off, p, n);
    if (off + n > f->now_len) {
        f->now_len = off + n;
        record_size(f);
    }
    record_sectors(f, off, off + n);
}

static void file_truncate(inode *f, uint64_t n) {
    uint64_t old = f->now_len;
    grow(&f->now, &f->now_cap, n);
    if (n < old) memset(f->now + n, 0, old - n); /* old > 0: there are bytes */
    f->now_len = n;
    record_size(f);
    if (n < old) record_sectors(f, n, old);
}

static void file_sync(inode *f) {
    grow(&f->disk, &f->disk_cap, f->now_len > f->disk_len ? f->now_len : f->disk_len);
    for (size_t i = 0; i < f->n_v; i++) {
        uint64_t at = f->v[i].sector * SECTOR_LEN;
        if (at < f->disk_cap) memcpy(f->disk + at, f->v[i].bytes, SECTOR_LEN);
    }
    f->disk_len = f->now_len;
    f->n_v = f->n_sizes = 0;
}

static int new_inode(simdisk *d) {
    if (d->n_inodes == INODES_MAX) abort();
    d->inodes[d->n_inodes] = must(calloc(1, sizeof(inode)));
    return d->n_inodes++;
}

/* ---- power and faults ------------------------------------------------------------------------------------ */

/* A changing call: -EIO once the power is gone. */
static int change(simdisk *d) {
    if (d->crash_at >= 0 && d->changes >= d->crash_at) return -EIO;
    d->changes++;
    return 0;
}

static int strike(simdisk *d, sim_call call, const char *path) {
    fault *f = &d->faults[call];
    if (f->error == 0 || f->times == 0 || !strstr(path, f->part)) return 0;
    if (f->skip > 0) {
        f->skip--;
        return 0;
    }
    if (f->times > 0) f->times--;
    if (d->stop_at_fault) d->crash_at = d->changes;
    return -f->error;
}

void sim_fail(simdisk *d, sim_call call, int64_t n, int64_t times, int error, const char *path_part) {
    pthread_mutex_lock(&d->mu);
    fault *f = &d->faults[call];
    *f = (fault){.skip = n, .times = times, .error = error};
    if (path_part) strncpy(f->part, path_part, sizeof f->part - 1);
    pthread_mutex_unlock(&d->mu);
}

void sim_crash_after(simdisk *d, int64_t n) {
    pthread_mutex_lock(&d->mu);
    d->crash_at = n < 0 ? -1 : d->changes + n;
    if (n < 0) d->stop_at_fault = false;
    pthread_mutex_unlock(&d->mu);
}

void sim_stop_at_fault(simdisk *d) {
    pthread_mutex_lock(&d->mu);
    d->stop_at_fault = true;
    pthread_mutex_unlock(&d->mu);
}

int64_t sim_changes(simdisk *d) {
    pthread_mutex_lock(&d->mu);
    int64_t n = d->changes;
    pthread_mutex_unlock(&d->mu);
    return n;
}

void sim_lose_syncs(simdisk *d, bool on) {
    pthread_mutex_lock(&d->mu);
    d->lose_syncs = on;
    pthread_mutex_unlock(&d->mu);
}

/* ---- the vfs --------------------------------------------------------------------------------------------- */

static int sim_open(vfs *v, vfile **out, const char *path, int flags) {
    simdisk *d = disk_of(v);
    pthread_mutex_lock(&d->mu);
    name *n = find(d->now, path);
    int ino = n ? n->inode : -1, r = 0;
    if (n && (flags & VFS_EXCL)) r = -EEXIST;
    if (!n && !(flags & VFS_CREATE)) r = -ENOENT;
    if (r == 0 && !n) {
        r = change(d);
        if (r == 0) {
            ino = new_inode(d);
            pend(d, NULL, path, ino);
        }
    }
    if (r == 0) {
        *out = must(malloc(sizeof **out));
        **out = (vfile){ino, dup_str(path)};
    }
    pthread_mutex_unlock(&d->mu);
    return r;
}

static void sim_close(vfs *v, vfile *f) {
    if (!f) return;
    free(f->path);
    free(f);
}

static int64_t sim_pread(vfs *v, vfile *f, void *p, size_t n, uint64_t off) {
    simdisk *d = disk_of(v);
    pthread_mutex_lock(&d->mu);
    inode *i = d->inodes[f->inode];
    uint64_t left = off < i->now_len ? i->now_len - off : 0;
    if (n > left) n = (size_t)left;
    if (n) memcpy(p, i->now + off, n);
    pthread_mutex_unlock(&d->mu);
    return (int64_t)n;
}

static int sim_pwrite(vfs *v, vfile *f, const void *p, size_t n, uint64_t off) {
    simdisk *d = disk_of(v);
    pthread_mutex_lock(&d->mu);
    int r = change(d);
    if (r == 0) {
        r = strike(d, SIM_WRITE, f->path);
        file_write(d->inodes[f->inode], p, r == 0 ? n : n / 2, off);
    }
    pthread_mutex_unlock(&d->mu);
    return r;
}

static int sim_sync(vfs *v, vfile *f) {
    simdisk *d = disk_of(v);
    pthread_mutex_lock(&d->mu);
    int r = change(d);
    if (r == 0) r = strike(d, SIM_SYNC, f->path);
    if (r == 0 && !d->lose_syncs) file_sync(d->inodes[f->inode]);
    if (r < 0 && d->faults[SIM_SYNC].error) d->inodes[f->inode]->n_v = 0; /* fsyncgate: the pages count as clean now */
    pthread_mutex_unlock(&d->mu);
    return r;
}

static int64_t sim_size(vfs *v, vfile *f) {
    simdisk *d = disk_of(v);
    pthread_mutex_lock(&d->mu);
    int64_t n = (int64_t)d->inodes[f->inode]->now_len;
    pthread_mutex_unlock(&d->mu);
    return n;
}

static int sim_truncate(vfs *v, vfile *f, uint64_t size) {
    simdisk *d = disk_of(v);
    pthread_mutex_lock(&d->mu);
    int r = change(d);
    if (r == 0 && d->inodes[f->inode]->now_len != size) file_truncate(d->inodes[f->inode], size);
    pthread_mutex_unlock(&d->mu);
    return r;
}

static int sim_allocate(vfs *v, vfile *f, uint64_t size) {
    simdisk *d = disk_of(v);
    pthread_mutex_lock(&d->mu);
    int r = change(d);
    inode *i = d->inodes[f->inode];
    int bad = r == 0 ? strike(d, SIM_ALLOCATE, f->path) : 0;
    uint64_t have = i->now_len, to = bad ? have + (size - have) / 2 : size;
    if (r == 0 && to > have) {
        grow(&i->now, &i->now_cap, to);
        i->now_len = to;
        record_size(i);
        record_sectors(i, have, to);
        if (bad == 0 && !d->lose_syncs) file_sync(i);
    }
    pthread_mutex_unlock(&d->mu);
    return r ? r : bad;
}

static void sim_let_go(vfs *v, vfile *f) {}

static int sim_rename(vfs *v, const char *from, const char *to) {
    simdisk *d = disk_of(v);
    pthread_mutex_lock(&d->mu);
    name *n = find(d->now, from);
    int r = n ? change(d) : -ENOENT;
    if (r == 0) r = strike(d, SIM_RENAME, to);
    if (r == 0) pend(d, from, to, n->inode);
    pthread_mutex_unlock(&d->mu);
    return r;
}

static int sim_unlink(vfs *v, const char *path) {
    simdisk *d = disk_of(v);
    pthread_mutex_lock(&d->mu);
    int r = find(d->now, path) ? change(d) : -ENOENT;
    if (r == 0) pend(d, path, NULL, -1);
    pthread_mutex_unlock(&d->mu);
    return r;
}

static int sim_mkdir(vfs *v, const char *path) {
    return 0; /* folders are there as soon as a name is in them */
}

static int sim_sync_dir(vfs *v, const char *path) {
    simdisk *d = disk_of(v);
    pthread_mutex_lock(&d->mu);
    int r = change(d), kept = 0;
    if (r == 0) r = strike(d, SIM_SYNC_DIR, path);
    for (int i = 0; r == 0 && !d->lose_syncs && i < d->n_ops; i++) {
        name_op *op = &d->ops[i];
        if (in_folder(op->to ? op->to : op->from, path)) {
            apply(d->disk, op);
            drop_op(op);
        } else {
            d->ops[kept++] = *op;
        }
    }
    if (r == 0 && !d->lose_syncs) d->n_ops = kept;
    pthread_mutex_unlock(&d->mu);
    return r;
}

static int sim_list(vfs *v, const char *path, int (*cb)(void *, const char *), void *ctx) {
    simdisk *d = disk_of(v);
    char *names[NAMES_MAX];
    int n = 0, r = 0;
    pthread_mutex_lock(&d->mu);
    for (int i = 0; i < NAMES_MAX; i++)
        if (d->now[i].path && in_folder(d->now[i].path, path)) names[n++] = dup_str(d->now[i].path + strlen(path) + 1);
    pthread_mutex_unlock(&d->mu);
    for (int i = 0; i < n; i++) {
        if (r == 0) r = cb(ctx, names[i]);
        free(names[i]);
    }
    return r;
}

/* ---- the disk -------------------------------------------------------------------------------------------- */

simdisk *sim_new(void) {
    simdisk *d = must(calloc(1, sizeof *d));
    d->v = (vfs){sim_open,     sim_close,  sim_pread,  sim_pwrite, sim_sync,  sim_size,     sim_truncate,
                 sim_allocate, sim_let_go, sim_rename, sim_unlink, sim_mkdir, sim_sync_dir, sim_list};
    d->crash_at = -1;
    pthread_mutex_init(&d->mu, NULL);
    return d;
}

vfs *sim_vfs(simdisk *d) {
    return &d->v;
}

void sim_free(simdisk *d) {
    if (!d) return;
    for (int i = 0; i < d->n_inodes; i++) {
        inode *f = d->inodes[i];
        free(f->now);
        free(f->disk);
        free(f->v);
        free(f->sizes);
        free(f);
    }
    for (int i = 0; i < NAMES_MAX; i++) {
        free(d->now[i].path);
        free(d->disk[i].path);
    }
    for (int i = 0; i < d->n_ops; i++) drop_op(&d->ops[i]);
    pthread_mutex_destroy(&d->mu);
    free(d);
}

static uint64_t draw(uint64_t *s) { /* splitmix64: the states of a seed are the same everywhere */
    uint64_t z = (*s += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

typedef struct dice {
    uint64_t seed, state;
    unsigned keep; /* of 8: how many unsynced things survive; drawn once, so that sparse and dense states occur */
} dice;

static bool survives(dice *c) {
    if (c->seed < 2) return c->seed == 1;
    return draw(&c->state) % 8 < c->keep;
}

/* The bytes of one file after the crash. */
static void settle(inode *out, const inode *f, dice *c) {
    uint64_t size = f->disk_len;
    if (f->n_sizes && survives(c)) size = c->seed == 1 ? f->now_len : f->sizes[draw(&c->state) % f->n_sizes];
    uint64_t cap = size > f->disk_len ? size : f->disk_len;
    if (f->now_len > cap) cap = f->now_len;
    for (size_t i = 0; i < f->n_v; i++)
        if ((f->v[i].sector + 1) * SECTOR_LEN > cap) cap = (f->v[i].sector + 1) * SECTOR_LEN;
    grow(&out->now, &out->now_cap, cap);
    if (f->disk_len) memcpy(out->now, f->disk, f->disk_len);
    /* what the size covers and nobody wrote: old blocks */
    for (uint64_t i = f->disk_len; i < size && c->seed >= 2 && c->keep % 2; i++) out->now[i] = (uint8_t)draw(&c->state);
    for (size_t i = 0; i < f->n_v; i++) {
        if (!survives(c)) continue;
        size_t n = SECTOR_LEN;
        if (c->seed >= 2 && draw(&c->state) % 6 == 0) n = (size_t)(draw(&c->state) % SECTOR_LEN); /* torn */
        memcpy(out->now + f->v[i].sector * SECTOR_LEN, f->v[i].bytes, n);
    }
    if (out->now_cap > size) memset(out->now + size, 0, out->now_cap - size);
    out->now_len = size;
    out->n_v = out->n_sizes = 0;
    grow(&out->disk, &out->disk_cap, size);
    uint64_t both = out->disk_cap < out->now_cap ? out->disk_cap : out->now_cap;
    if (both) memcpy(out->disk, out->now, both);
    out->disk_len = size;
}

simdisk *sim_after_crash(simdisk *d, uint64_t seed) {
    simdisk *n = sim_new();
    dice c = {.seed = seed, .state = seed * UINT64_C(0x2545f4914f6cdd1d) + 1};
    c.keep = (unsigned)(draw(&c.state) % 8);
    pthread_mutex_lock(&d->mu);
    for (int i = 0; i < d->n_inodes; i++) settle(n->inodes[new_inode(n)], d->inodes[i], &c);
    for (int i = 0; i < NAMES_MAX; i++)
        if (d->disk[i].path) set(n->now, d->disk[i].path, d->disk[i].inode);
    for (int i = 0; i < d->n_ops; i++)
        if (survives(&c)) apply(n->now, &d->ops[i]);
    for (int i = 0; i < NAMES_MAX; i++)
        if (n->now[i].path) set(n->disk, n->now[i].path, n->now[i].inode);
    pthread_mutex_unlock(&d->mu);
    return n;
}

/* ---- damage ---------------------------------------------------------------------------------------------- */

bool sim_read(simdisk *d, const char *path, buf *out) {
    pthread_mutex_lock(&d->mu);
    name *n = find(d->now, path);
    if (n) buf_append(out, d->inodes[n->inode]->now, (size_t)d->inodes[n->inode]->now_len);
    pthread_mutex_unlock(&d->mu);
    return n && !out->failed;
}

bool sim_flip(simdisk *d, const char *path, uint64_t byte, unsigned bit) {
    pthread_mutex_lock(&d->mu);
    name *n = find(d->now, path);
    bool ok = n && byte < d->inodes[n->inode]->now_len;
    if (ok) d->inodes[n->inode]->now[byte] ^= (uint8_t)(1u << bit);
    pthread_mutex_unlock(&d->mu);
    return ok;
}

void sim_put(simdisk *d, const char *path, const void *p, size_t n) {
    pthread_mutex_lock(&d->mu);
    name *at = find(d->now, path);
    int ino = at ? at->inode : new_inode(d);
    if (!at) {
        set(d->now, path, ino);
        set(d->disk, path, ino);
    }
    file_truncate(d->inodes[ino], 0);
    file_write(d->inodes[ino], p, n, 0);
    file_sync(d->inodes[ino]);
    pthread_mutex_unlock(&d->mu);
}

bool sim_remove(simdisk *d, const char *path) {
    pthread_mutex_lock(&d->mu);
    bool there = find(d->now, path) != NULL;
    unset(d->now, path);
    unset(d->disk, path);
    pthread_mutex_unlock(&d->mu);
    return there;
}

const char *sim_path(simdisk *d, unsigned i) {
    for (int k = 0; k < NAMES_MAX; k++)
        if (d->now[k].path && i-- == 0) return d->now[k].path;
    return NULL;
}
