#include "engine/holding.h"

#include "base/mem.h"
#include "base/sys.h"
#include "engine/kernels/kernels.h"
#include "engine/region.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define PACK_BYTES   ((uint64_t)2 << 20)  /* of the packed form that a thread makes at a time */
#define SLICE_BYTES  ((size_t)2 << 20)    /* moved into large pages at a time: so much is held twice for a moment */
#define SLICES_MAX   1024                 /* each is a mapping of its own */
#define THREADS_FROM ((uint64_t)16 << 20) /* below, starting threads takes longer than packing */
#define HASH_BYTES   ((size_t)1 << 20)
#define IMAGE_MAX    ((size_t)1 << 30)

typedef enum use { USE_CHECKING, USE_OK, USE_BROKEN } use;

/* The SHA-256 of the source, found by a thread of its own beside the packing. */
typedef struct hashing {
    pthread_t thread;
    bool running;
    int fd;
    const char *path;
    const uint8_t *want;
    atomic_bool *stop;
    err_code rc;
    err e;
} hashing;

struct holding {
    gguf *g; /* NULL once nothing more can be asked of it */
    char *path, *cache_path;
    uint8_t sha256[SHA256_LEN];
    bool has_sha, writes; /* writes: a packed file is to be made */
    unsigned n_threads;
    packfile *file; /* what is used of it; NULL: none */
    packfile_source source;
    hashing hash;

    packfile_entry *entries;
    size_t n_entries;
    uint64_t vectors_len, data_len;
    void *vectors;
    region r;
    uint64_t *sums;
    buf image;           /* a new tokenizer's, until it becomes the vocab's */
    const void *image_p; /* the vocab's */
    size_t image_len;
    bool from_cache;

    pthread_t thread;
    bool has_thread;
    atomic_bool stop;
    atomic_int use;
    atomic_size_t bad; /* the lowest chunk without its sum, SIZE_MAX: none */
    pthread_mutex_t lock;
    pthread_cond_t cond;
    /* under lock */
    err why; /* USE_BROKEN */
    bool settled;
    uint64_t moved;
    uint32_t mended;
};

/* ---- the source ------------------------------------------------------------------------------------------- */

static err_code hash_source(const hashing *h, err *e) {
    sha256 s;
    uint8_t digest[SHA256_LEN];
    uint8_t *part = mem_alloc(HASH_BYTES);
    if (!part) return err_nomem(e, "a buffer to hash a model's file");
    sha256_init(&s);
    err_code rc = ERR_OK;
    for (off_t at = 0; rc == ERR_OK;) {
        ssize_t got = pread(h->fd, part, HASH_BYTES, at);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) rc = err_errno(e, "%s: cannot read", h->path);
        if (got <= 0) break;
        sha256_update(&s, part, (size_t)got);
        at += got;
        if (atomic_load(h->stop)) rc = err_set(e, ERR_CANCELLED, "%s: loading was cancelled", h->path);
    }
    mem_free(part);
    if (rc != ERR_OK) return rc;
    sha256_final(&s, digest);
    if (memcmp(digest, h->want, SHA256_LEN) == 0) return ERR_OK;
    char hex[SHA256_HEX_LEN + 1];
    hex_encode(hex, digest, SHA256_LEN);
    return err_set(e, ERR_CORRUPT, "%s: its bytes hash to %s; remove it and import it again", h->path, hex);
}

static void *hash_thread(void *arg) {
    hashing *h = arg;
    h->rc = hash_source(h, &h->e);
    return NULL;
}

static err_code hash_begin(holding *h, err *e) {
    int failed = pthread_create(&h->hash.thread, NULL, hash_thread, &h->hash);
    if (failed)
        return err_set(e, ERR_UNAVAILABLE, "%s: a thread to hash it could not be started: %s", h->path,
                       strerror(failed));
    h->hash.running = true;
    return ERR_OK;
}

static err_code hash_end(holding *h, err *e) {
    if (!h->hash.running) return ERR_OK;
    pthread_join(h->hash.thread, NULL);
    h->hash.running = false;
    if (h->hash.rc != ERR_OK) {
        if (e) *e = h->hash.e;
        return h->hash.rc;
    }
    memcpy(h->source.sha256, h->sha256, SHA256_LEN);
    h->source.has_sha256 = 1;
    return ERR_OK;
}

static err_code look_at_source(holding *h, err *e) {
    struct stat st;
    size_t n;
    const uint8_t *head = gguf_head(h->g, &n);
    if (fstat(gguf_fd(h->g), &st) != 0) return err_errno(e, "%s: cannot stat", h->path);
    h->source = (packfile_source){.size = (uint64_t)st.st_size,
                                  .device = (uint64_t)st.st_dev,
                                  .inode = (uint64_t)st.st_ino,
                                  .mtime_ns = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec,
                                  .ctime_ns = (int64_t)st.st_ctim.tv_sec * 1000000000 + st.st_ctim.tv_nsec,
                                  .head_bytes = n,
                                  .head_sum = packfile_sum(head, n)};
    return ERR_OK;
}

/* ---- the packed file -------------------------------------------------------------------------------------- */

static void drop_file(holding *h, const char *why) {
    log_msg(LOG_WARN, "engine", "%s: %s; it is not used, and made anew", h->cache_path, why);
    packfile_close(h->file);
    h->file = NULL;
}

/* Is the packed file of this source? Where the source was touched since, it is hashed to be sure. */
static err_code bind_file(holding *h, err *e) {
    const packfile_source *made = &h->file->c.source, *now = &h->source;
    bool same = packfile_same_stat(made, now);
    if (made->size != now->size || made->head_bytes != now->head_bytes || made->head_sum != now->head_sum ||
        (h->has_sha && (!made->has_sha256 || memcmp(made->sha256, h->sha256, SHA256_LEN) != 0)) ||
        (!h->has_sha && !same)) {
        drop_file(h, "it was made from another file");
        return ERR_OK;
    }
    if (same) {
        h->source = *made;
        return ERR_OK;
    }
    err_code rc = hash_source(&h->hash, e);
    if (rc != ERR_OK) return rc;
    memcpy(h->source.sha256, h->sha256, SHA256_LEN);
    h->source.has_sha256 = 1;
    err why = {0};
    if (packfile_rebind(h->file, h->cache_path, &h->source, &why) != ERR_OK)
        log_msg(LOG_WARN, "engine", "%s; the model's file will be hashed again at the next start", why.msg);
    return ERR_OK;
}

static err_code find_file(holding *h, const model_options *o, err *e) {
    if (gguf_fd(h->g) < 0 && !h->has_sha) return ERR_OK; /* in memory, or in parts */
    if (gguf_fd(h->g) < 0) return err_set(e, ERR_UNSUPPORTED, "%s: is not one file, so it has no digest", h->path);
    h->hash.fd = gguf_fd(h->g);
    err_code rc = look_at_source(h, e);
    if (rc != ERR_OK) return rc;
    if (o->cache_path && !o->verify) {
        err why = {0};
        if (!(h->cache_path = mem_strdup(o->cache_path))) return err_nomem(e, "a model's weights");
        rc = packfile_open(&h->file, h->cache_path, &why);
        if (rc == ERR_NOMEM) return err_set(e, rc, "%s", why.msg);
        if (rc != ERR_OK && rc != ERR_NOT_FOUND)
            log_msg(LOG_WARN, "engine", "%s; it is not used, and made anew", why.msg);
        rc = h->file ? bind_file(h, e) : ERR_OK;
    }
    if (rc == ERR_OK && !h->file && h->has_sha) rc = hash_begin(h, e);
    return rc;
}

err_code holding_new(holding **out, gguf *g, const model_options *o, err *e) {
    *out = NULL;
    holding *h = mem_zalloc(sizeof *h);
    if (!h) {
        gguf_free(g);
        return err_nomem(e, "a model's weights");
    }
    h->g = g;
    h->image.max = IMAGE_MAX;
    atomic_store(&h->use, USE_CHECKING);
    atomic_store(&h->bad, SIZE_MAX);
    pthread_mutex_init(&h->lock, NULL);
    cond_init(&h->cond);
    h->n_threads = o && o->n_threads ? o->n_threads : sys_cpu_count();
    err_code rc = (h->path = mem_strdup(gguf_path(g))) ? ERR_OK : err_nomem(e, "a model's weights");
    if (rc == ERR_OK && o) {
        h->hash.path = h->path;
        h->hash.want = h->sha256;
        h->hash.stop = &h->stop;
        h->has_sha = o->source_sha256 != NULL;
        if (h->has_sha) memcpy(h->sha256, o->source_sha256, SHA256_LEN);
        rc = find_file(h, o, e);
    }
    if (rc == ERR_OK)
        *out = h;
    else
        holding_free(h);
    return rc;
}

void holding_free(holding *h) {
    if (!h) return;
    atomic_store(&h->stop, true);
    if (h->has_thread) pthread_join(h->thread, NULL);
    (void)hash_end(h, NULL);
    region_free(&h->r);
    mem_free_aligned(h->vectors);
    mem_free(h->entries);
    mem_free(h->sums);
    buf_free(&h->image);
    packfile_close(h->file);
    gguf_free(h->g);
    mem_free(h->path);
    mem_free(h->cache_path);
    pthread_cond_destroy(&h->cond);
    pthread_mutex_destroy(&h->lock);
    mem_free(h);
}

const gguf *holding_source(const holding *h) {
    return h->g;
}

/* ---- the tokenizer ---------------------------------------------------------------------------------------- */

/* The vocab goes through its image also when it is new: what is served is then the same on every start, and the image
 * need not be made again to be written. */
static err_code through_image(holding *h, vocab **v, err *e) {
    err why = {0};
    if (vocab_image_write(*v, &h->image, &why) == ERR_NOMEM) return err_set(e, ERR_NOMEM, "%s", why.msg);
    if (why.code) { /* it has no image: no packed file either */
        log_msg(LOG_WARN, "engine", "%s: %s; its packed form is not kept", h->path, why.msg);
        mem_free(h->cache_path);
        h->cache_path = NULL;
        return ERR_OK;
    }
    vocab *other;
    size_t n = h->image.len;
    void *p = mem_alloc_aligned(n);
    if (!p) return err_nomem(e, "the vocabulary");
    memcpy(p, h->image.ptr, n);
    buf_free(&h->image);
    err_code rc = vocab_image_read(&other, p, n, h->path, e);
    if (rc != ERR_OK) {
        mem_free_aligned(p);
        return rc;
    }
    vocab_free(*v);
    *v = other;
    h->image_p = p;
    h->image_len = n;
    return ERR_OK;
}

err_code holding_vocab(holding *h, vocab **out, err *e) {
    *out = NULL;
    if (h->file) {
        err why = {0};
        void *p = h->file->memory[PACKFILE_S_VOCAB];
        size_t n = (size_t)h->file->c.section[PACKFILE_S_VOCAB].len;
        err_code rc = vocab_image_read(out, p, n, h->cache_path, &why);
        if (rc == ERR_OK) {
            h->file->memory[PACKFILE_S_VOCAB] = NULL;
            h->image_p = p;
            h->image_len = n;
            return ERR_OK;
        }
        if (rc == ERR_NOMEM) return err_set(e, rc, "%s", why.msg);
        drop_file(h, why.msg);
        if (h->has_sha && (rc = hash_begin(h, e)) != ERR_OK) return rc;
    }
    err_code rc = vocab_new(out, h->g, e);
    if (rc == ERR_OK && h->cache_path) {
        rc = through_image(h, out, e);
        mem_trim(); /* making it took several times its size, in small pieces */
    }
    if (rc != ERR_OK) {
        vocab_free(*out);
        *out = NULL;
    }
    return rc;
}

/* ---- packing ---------------------------------------------------------------------------------------------- */

typedef struct unit { /* tasks [begin, end) of a matrix, or a vector */
    const packfile_entry *x;
    uint32_t begin, end;
} unit;

typedef struct packing {
    const holding *h;
    uint8_t *data;
    unit *units;
    size_t n;
} packing;

static const uint8_t *source_rows(const holding *h, const packfile_entry *x, uint64_t *row_bytes) {
    const gguf_tensor *t = gguf_tensor_at(h->g, x->tensor);
    *row_bytes = t->n_bytes / (t->dims[1] * t->dims[2]);
    return t->data + x->first * *row_bytes;
}

/* Counts the units, or lists them where `out` is not NULL. */
static size_t list_units(const holding *h, unit *out) {
    size_t n = 0;
    for (size_t i = 0; i < h->n_entries; i++) {
        const packfile_entry *x = &h->entries[i];
        packed p = {.n_tasks = 1, .task_bytes = PACK_BYTES};
        if (!x->is_vector) pack_plan(&p, (tensor_type)x->type, x->rows, x->cols);
        uint64_t each = p.task_bytes && p.task_bytes < PACK_BYTES ? PACK_BYTES / p.task_bytes : 1;
        for (uint32_t at = 0; at < p.n_tasks;) {
            uint32_t end = p.n_tasks - at > each ? at + (uint32_t)each : p.n_tasks;
            if (out) out[n] = (unit){x, at, end};
            n++;
            at = end;
        }
    }
    return n;
}

static void pack_units(void *ctx, size_t begin, size_t end, unsigned thread) {
    (void)thread;
    const packing *k = ctx;
    for (size_t i = begin; i < end && !atomic_load(&k->h->stop); i++) {
        const unit *u = &k->units[i];
        const packfile_entry *x = u->x;
        uint64_t row_bytes, first, n;
        const uint8_t *src = source_rows(k->h, x, &row_bytes);
        if (x->is_vector) {
            float *v = (float *)(void *)((uint8_t *)k->h->vectors + x->at);
            tensor_expand((tensor_type)x->type, src, v, (size_t)x->rows * x->cols);
            continue;
        }
        packed p;
        pack_plan(&p, (tensor_type)x->type, x->rows, x->cols);
        p.data = k->data + x->at;
        pack_fill(&p, src, u->begin, u->end);
        first = (uint64_t)u->begin * p.task_rows;
        n = (uint64_t)(u->end - u->begin) * p.task_rows;
        gguf_release(k->h->g, src + first * row_bytes, (size_t)(n * row_bytes));
    }
}

/* All matrices into `data`, and with `vectors` also these. */
static err_code pack_all(holding *h, uint8_t *data, err *e) {
    packing k = {.h = h, .data = data};
    pool *p = NULL;
    k.n = list_units(h, NULL);
    if (!k.n) return ERR_OK;
    if (!(k.units = mem_array(k.n, sizeof *k.units))) return err_nomem(e, "a model's weights");
    list_units(h, k.units);
    err_code rc = h->data_len >= THREADS_FROM && h->n_threads > 1 ? pool_new(&p, h->n_threads, e) : ERR_OK;
    if (rc == ERR_OK) pool_run(p, k.n, 1, pack_units, &k);
    pool_free(p);
    mem_free(k.units);
    gguf_release(h->g, NULL, 0);
    return rc;
}

static err_code place(holding *h, err *e) {
    h->vectors_len = h->data_len = 0;
    for (size_t i = 0; i < h->n_entries; i++) {
        packfile_entry *x = &h->entries[i];
        uint64_t *end = x->is_vector ? &h->vectors_len : &h->data_len;
        x->at = *end;
        if (x->len > SIZE_MAX / 4 - *end) return err_set(e, ERR_TOO_LARGE, "%s: its weights are too large", h->path);
        *end = (*end + x->len + 63) / 64 * 64;
    }
    return ERR_OK;
}

static bool file_fits(const holding *h) {
    const packfile_content *c = &h->file->c;
    return packfile_entry_count(c) == h->n_entries && c->data_len == h->data_len &&
           c->section[PACKFILE_S_VECTORS].len == h->vectors_len &&
           memcmp(packfile_entries(c), h->entries, h->n_entries * sizeof *h->entries) == 0;
}

static err_code fill_from_file(holding *h, err *e) {
    h->vectors = h->file->memory[PACKFILE_S_VECTORS];
    h->file->memory[PACKFILE_S_VECTORS] = NULL;
    memcpy(h->sums, h->file->memory[PACKFILE_S_SUMS], packfile_sum_count(h->data_len) * sizeof *h->sums);
    h->from_cache = true;
    return h->data_len ? region_map(&h->r, h->file->fd, h->file->c.data_at, (size_t)h->data_len, e) : ERR_OK;
}

static err_code fill_from_source(holding *h, err *e) {
    h->vectors = mem_alloc_aligned(h->vectors_len ? (size_t)h->vectors_len : 1);
    if (!h->vectors) return err_nomem(e, "a model's weights");
    memset(h->vectors, 0, (size_t)h->vectors_len);
    err_code rc = h->data_len ? region_new(&h->r, (size_t)h->data_len, e) : ERR_OK;
    if (rc == ERR_OK) rc = pack_all(h, h->r.base, e);
    region_seal(&h->r);
    h->writes = h->cache_path != NULL;
    return rc;
}

err_code holding_fill(holding *h, packfile_entry *entries, size_t n, err *e) {
    h->entries = mem_array(n ? n : 1, sizeof *entries);
    if (!h->entries) return err_nomem(e, "the list of a model's weights");
    memcpy(h->entries, entries, n * sizeof *entries);
    h->n_entries = n;
    err_code rc = place(h, e);
    if (rc != ERR_OK) return rc;
    memcpy(entries, h->entries, n * sizeof *entries);
    if (!(h->sums = mem_array(packfile_sum_count(h->data_len) + 1, sizeof *h->sums)))
        return err_nomem(e, "the list of a model's weights");
    if (h->file && !file_fits(h)) {
        drop_file(h, "its weights are not arranged as this polder loads them");
        if (h->has_sha) rc = hash_begin(h, e);
    }
    if (rc != ERR_OK) return rc;
    return h->file ? fill_from_file(h, e) : fill_from_source(h, e);
}

void *holding_at(const holding *h, const packfile_entry *x) {
    return (x->is_vector ? (uint8_t *)h->vectors : h->r.base) + x->at;
}

/* ---- the thread ------------------------------------------------------------------------------------------- */

static void set_use(holding *h, use u, const err *why) {
    pthread_mutex_lock(&h->lock);
    if (why) h->why = *why;
    atomic_store(&h->use, u);
    pthread_cond_broadcast(&h->cond);
    pthread_mutex_unlock(&h->lock);
}

/* Chunks [begin, end) of the data, as they are at `p` (the first of them). */
static bool have_sums(const holding *h, const uint8_t *p, size_t begin, size_t end) {
    for (size_t i = begin; i < end; i++, p += PACKFILE_CHUNK) {
        uint64_t n = h->data_len - i * PACKFILE_CHUNK;
        if (packfile_sum(p, n < PACKFILE_CHUNK ? (size_t)n : PACKFILE_CHUNK) != h->sums[i]) return false;
    }
    return true;
}

static void check_chunks(void *ctx, size_t begin, size_t end, unsigned thread) {
    (void)thread;
    holding *h = ctx;
    for (size_t i = begin; i < end && !atomic_load(&h->stop) && atomic_load(&h->bad) == SIZE_MAX; i++) {
        uint8_t *p = h->r.base + i * PACKFILE_CHUNK;
        size_t left = h->r.len - i * PACKFILE_CHUNK;
#ifdef MADV_POPULATE_READ
        /* one call instead of a fault for every 16 pages */
        (void)madvise(p, left < PACKFILE_CHUNK ? left : PACKFILE_CHUNK, MADV_POPULATE_READ);
#endif
        if (!have_sums(h, p, i, i + 1)) atomic_store(&h->bad, i);
    }
}

static bool check_all(holding *h) {
    pool *p = NULL;
    size_t n = packfile_sum_count(h->data_len);
    /* without threads it only takes longer */
    if (h->data_len >= THREADS_FROM && h->n_threads > 1) (void)pool_new(&p, h->n_threads, NULL);
    pool_run(p, n, 1, check_chunks, h);
    pool_free(p);
    return atomic_load(&h->bad) == SIZE_MAX;
}

/* Some bytes of the file are not what was written: it goes, and the weights are packed from the source again, which
 * must have its digest. Until then nobody uses them. */
static void mend(holding *h, const char *when) {
    err why = {0};
    log_msg(LOG_ERROR, "engine",
            "%s: bytes of it have changed, found %s; it is removed and the weights are packed again", h->cache_path,
            when);
    set_use(h, USE_CHECKING, NULL);
    (void)unlink(h->cache_path);
    region fresh = {0};
    err_code rc = h->has_sha ? hash_source(&h->hash, &why) : ERR_OK;
    /* nobody reads before the check; later somebody may, and what was moved would be lost */
    if (h->r.is_file && !h->moved) (void)madvise(h->r.base, h->r.len, MADV_DONTNEED);
    if (rc == ERR_OK) rc = region_new(&fresh, (size_t)h->data_len, &why);
    if (rc == ERR_OK) rc = pack_all(h, fresh.base, &why);
    if (rc == ERR_OK && !atomic_load(&h->stop) && !region_put(&h->r, 0, fresh.base, fresh.len))
        rc = err_errno(&why, "%s: its weights could not be replaced", h->path);
    else if (rc == ERR_OK && !atomic_load(&h->stop))
        fresh.base = NULL;
    region_free(&fresh);
    if (rc != ERR_OK) {
        log_msg(LOG_ERROR, "engine", "%s: the model cannot be used any more: %s", h->path, why.msg);
        set_use(h, USE_BROKEN, &why);
        return;
    }
    h->r.is_file = false;
    h->writes = true;
    pthread_mutex_lock(&h->lock);
    h->mended++;
    h->moved = h->r.len;
    pthread_mutex_unlock(&h->lock);
    set_use(h, USE_OK, NULL);
}

static size_t slice_bytes(const holding *h) {
    size_t n = h->r.len / SLICES_MAX / REGION_HUGE * REGION_HUGE + REGION_HUGE;
    return n < SLICE_BYTES ? SLICE_BYTES : n;
}

/* The same bytes in large pages, slice by slice. Where memory is short the rest stays as it is. */
static void move_all(holding *h) {
    size_t each = slice_bytes(h), len;
    if (h->r.len < REGION_HUGE || !region_huge_useful(h->r.len)) return;
    for (size_t at = 0; at < h->r.len && !atomic_load(&h->stop); at += len) {
        len = h->r.len - at < each ? h->r.len - at : each;
        uint8_t *slice = region_slice(len);
        if (!slice) return;
        memcpy(slice, h->r.base + at, len);
        size_t first = at / PACKFILE_CHUNK, end = (at + len) / PACKFILE_CHUNK, n = packfile_sum_count(h->data_len);
        if (!have_sums(h, slice, first, end < n ? end : n)) {
            region_drop(slice, len);
            mend(h, "after it was checked: answers since the model was loaded may be wrong, audit replay tells which");
            return;
        }
        if (!region_put(&h->r, at, slice, len)) {
            region_drop(slice, len);
            return;
        }
        pthread_mutex_lock(&h->lock);
        h->moved += len;
        pthread_mutex_unlock(&h->lock);
    }
    if (!atomic_load(&h->stop)) h->r.is_file = false;
}

static void write_file(holding *h) {
    packfile_content c = {.source = h->source, .data = h->r.base, .data_len = h->data_len};
    c.section[PACKFILE_S_ENTRIES].p = h->entries;
    c.section[PACKFILE_S_ENTRIES].len = h->n_entries * sizeof *h->entries;
    c.section[PACKFILE_S_VECTORS].p = h->vectors;
    c.section[PACKFILE_S_VECTORS].len = h->vectors_len;
    c.section[PACKFILE_S_VOCAB].p = h->image_p;
    c.section[PACKFILE_S_VOCAB].len = h->image_len;
    err e = {0};
    err_code rc = packfile_write(&c, h->sums, h->cache_path, &h->stop, &e);
    if (rc == ERR_OK)
        log_msg(LOG_INFO, "engine", "%s: the packed weights are kept there (%" PRIu64 " MiB)", h->cache_path,
                h->data_len >> 20);
    else if (rc != ERR_CANCELLED)
        log_msg(LOG_WARN, "engine", "%s; the model runs without, and is packed again at the next start", e.msg);
}

static void *background(void *arg) {
    holding *h = arg;
    if (h->from_cache) {
        bool good = check_all(h);
        if (!good && !atomic_load(&h->stop)) mend(h, "before any of it was used");
        if (good && !atomic_load(&h->stop)) set_use(h, USE_OK, NULL);
    }
    (void)setpriority(PRIO_PROCESS, 0, 19); /* of this thread */
    if (h->r.is_file && atomic_load(&h->use) == USE_OK) move_all(h);
    if (h->writes && atomic_load(&h->use) == USE_OK && !atomic_load(&h->stop)) write_file(h);
    gguf_free(h->g);
    packfile_close(h->file);
    h->g = NULL;
    h->file = NULL;
    pthread_mutex_lock(&h->lock);
    h->settled = true;
    pthread_cond_broadcast(&h->cond);
    pthread_mutex_unlock(&h->lock);
    return NULL;
}

err_code holding_start(holding *h, err *e) {
    err_code rc = hash_end(h, e);
    if (rc != ERR_OK) return rc;
    if (!h->from_cache) atomic_store(&h->use, USE_OK);
    gguf_release(h->g, NULL, 0);
    if (!h->from_cache && !h->writes) {
        gguf_free(h->g);
        h->g = NULL;
        h->settled = true;
        return ERR_OK;
    }
    int failed = pthread_create(&h->thread, NULL, background, h);
    if (failed)
        return err_set(e, ERR_UNAVAILABLE, "%s: a thread to look after its weights could not be started: %s", h->path,
                       strerror(failed));
    h->has_thread = true;
    return ERR_OK;
}

err_code holding_wait(holding *h, err *e) {
    if (atomic_load_explicit(&h->use, memory_order_acquire) == USE_OK) return ERR_OK;
    pthread_mutex_lock(&h->lock);
    while (atomic_load(&h->use) == USE_CHECKING) pthread_cond_wait(&h->cond, &h->lock);
    err_code rc = ERR_OK;
    if (atomic_load(&h->use) == USE_BROKEN) {
        rc = h->why.code;
        if (e) *e = h->why;
    }
    pthread_mutex_unlock(&h->lock);
    return rc;
}

void holding_settle(holding *h) {
    pthread_mutex_lock(&h->lock);
    while (!h->settled) pthread_cond_wait(&h->cond, &h->lock);
    pthread_mutex_unlock(&h->lock);
}

void holding_memory(holding *h, model_memory *out) {
    pthread_mutex_lock(&h->lock);
    uint64_t anon = h->from_cache ? h->moved : h->r.len;
    *out = (model_memory){.weights_bytes = h->data_len + h->vectors_len,
                          .mapped_bytes = h->r.len - anon,
                          .vocab_bytes = h->image_len,
                          .from_cache = h->from_cache,
                          .checked = atomic_load(&h->use) == USE_OK,
                          .huge = h->r.len >= REGION_HUGE && anon == h->r.len,
                          .mended = h->mended};
    pthread_mutex_unlock(&h->lock);
}
