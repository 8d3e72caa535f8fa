/* Kept prefixes to bytes and back. Numbers are little endian, as are keys and values in memory (the engine runs nowhere
 * else).
 *
 *   header   0 "polderkv"      8 u32 version           12 u32 POLDER_NUMERICS   16 identity of the model [32]
 *           48 u64 page bytes  56 u64 state bytes      64 u32 positions a page  68 u32 0: floats, 1: halves, 2: int8
 * (kv8.h) 72 u32 vocabulary  76 u32 layers           80 u64 records           88 0 96 SHA-256 of the above record   0
 * u64 0: first page; i: after record i (from 1)       8 u32 1: has a state   12 u32 pages before it 16 space [32] 48
 * i32 tokens [64]      304 page, then state SHA-256 of the header's digest, the record's number (u64, from 1) and all
 * of it
 *
 * Records are in order of last use, the newest first; so one comes after what it continues, and a reader who has room
 * for less takes what was used last. */
#include "engine/session_internal.h"

#include "base/bytes.h"
#include "base/file.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define KEPT_VERSION 1
#define HEAD_BYTES   128
#define HEAD_SIGNED  96
#define RECORD_HEAD  (48 + VEC_TILE * sizeof(int32_t))
#define PATH_BYTES   4096

static const char magic[] = "polderkv";

static void put32(uint8_t *p, uint32_t v) {
    for (int i = 0; i < 4; i++) p[i] = (uint8_t)(v >> 8 * i);
}
static void put64(uint8_t *p, uint64_t v) {
    for (int i = 0; i < 8; i++) p[i] = (uint8_t)(v >> 8 * i);
}
static uint32_t get32(const uint8_t *p) {
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}
static uint64_t get64(const uint8_t *p) {
    return get32(p) | (uint64_t)get32(p + 4) << 32;
}

/* All that must be equal for pages to be of use here. */
static void put_header(const session *s, const uint8_t *identity, uint64_t n, uint8_t head[HEAD_BYTES]) {
    memset(head, 0, HEAD_BYTES);
    memcpy(head, magic, 8);
    put32(head + 8, KEPT_VERSION);
    put32(head + 12, POLDER_NUMERICS);
    memcpy(head + 16, identity, 32);
    put64(head + 48, session_page_bytes(s));
    put64(head + 56, session_state_bytes(s));
    put32(head + 64, VEC_TILE);
    put32(head + 68, s->st.kv == KV_Q8 ? 2 : s->m->hp.kv_half);
    put32(head + 72, s->m->hp.n_vocab);
    put32(head + 76, s->m->hp.n_layer);
    put64(head + 80, n);
    sha256_of(head + HEAD_SIGNED, head, HEAD_SIGNED);
}

static void digest_begin(sha256 *h, const uint8_t *head, uint64_t number, const uint8_t *record) {
    uint8_t n[8];
    put64(n, number);
    sha256_init(h);
    sha256_update(h, head + HEAD_SIGNED, SHA256_LEN);
    sha256_update(h, n, sizeof n);
    sha256_update(h, record, RECORD_HEAD);
}

/* ---- writing ---------------------------------------------------------------------------------------------- */

typedef struct writer {
    const session *s;
    session_write_fn *write;
    void *ctx;
    uint8_t head[HEAD_BYTES];
} writer;

static err_code save_node(const writer *w, const prefix_node *n, err *e) {
    const session *s = w->s;
    size_t page_bytes = session_page_bytes(s), state_bytes = n->state ? session_state_bytes(s) : 0;
    uint8_t record[RECORD_HEAD], digest[SHA256_LEN];
    sha256 h;
    err_code rc;
    put64(record, n->parent ? n->parent->mark : 0);
    put32(record + 8, n->state != NULL);
    put32(record + 12, n->depth);
    memcpy(record + 16, n->space, PREFIX_SPACE);
    for (size_t i = 0; i < VEC_TILE; i++) put32(record + 48 + 4 * i, (uint32_t)n->tokens[i]);
    digest_begin(&h, w->head, n->mark, record);
    sha256_update(&h, s->all[n->page].mem, page_bytes);
    if (state_bytes) sha256_update(&h, checkpoint_state(n->state), state_bytes);
    sha256_final(&h, digest);
    if ((rc = w->write(w->ctx, record, sizeof record, e)) != ERR_OK ||
        (rc = w->write(w->ctx, s->all[n->page].mem, page_bytes, e)) != ERR_OK ||
        (state_bytes && (rc = w->write(w->ctx, checkpoint_state(n->state), state_bytes, e)) != ERR_OK))
        return rc;
    return w->write(w->ctx, digest, sizeof digest, e);
}

err_code session_kept_save(const session *s, const uint8_t identity[32], session_write_fn *write, void *ctx, err *e) {
    writer w = {.s = s, .write = write, .ctx = ctx};
    put_header(s, identity, s->tree.n, w.head);
    err_code rc = write(ctx, w.head, sizeof w.head, e);
    uint32_t number = 0;
    for (prefix_node *n = s->tree.newest; rc == ERR_OK && n; n = n->older) {
        n->mark = ++number; /* a parent was used no earlier than its child, so it has its number by now */
        rc = save_node(&w, n, e);
    }
    return rc;
}

/* ---- reading ---------------------------------------------------------------------------------------------- */

typedef struct reader {
    session *s;
    session_read_fn *read;
    void *ctx;
    uint8_t head[HEAD_BYTES];
    prefix_node **nodes; /* (n_nodes) what a record became */
    uint64_t n_nodes;
} reader;

static err_code check_header(const session *s, const uint8_t *identity, const uint8_t *head, err *e) {
    uint8_t want[HEAD_BYTES], digest[SHA256_LEN];
    put_header(s, identity, get64(head + 80), want);
    sha256_of(digest, head, HEAD_SIGNED);
    if (memcmp(head, magic, 8) != 0)
        return err_set(e, ERR_INVALID, "kept prefixes: this is something else (it does not begin with %s)", magic);
    if (memcmp(digest, head + HEAD_SIGNED, sizeof digest) != 0)
        return err_set(e, ERR_CORRUPT, "kept prefixes: the header is damaged");
    if (get32(head + 8) != KEPT_VERSION || get32(head + 12) != POLDER_NUMERICS)
        return err_set(e, ERR_UNSUPPORTED,
                       "kept prefixes: format %" PRIu32 " with numerics %" PRIu32 "; this program has %d and %d",
                       get32(head + 8), get32(head + 12), KEPT_VERSION, POLDER_NUMERICS);
    if (memcmp(head + 16, want + 16, 32) != 0)
        return err_set(e, ERR_UNSUPPORTED, "kept prefixes: they are those of another model");
    if (memcmp(head, want, HEAD_SIGNED) != 0)
        return err_set(
            e, ERR_UNSUPPORTED,
            "kept prefixes: the model is the same, but its pages have another shape (inference.kv was another)");
    return ERR_OK;
}

/* A record's numbers, which its checksum has not vouched for yet. */
static err_code check_record(const reader *r, uint64_t number, const uint8_t *record, err *e) {
    const session *s = r->s;
    uint64_t after = get64(record);
    uint32_t has_state = get32(record + 8), depth = get32(record + 12);
    bool good = after < number && has_state <= (s->m->need.state > 0);
    if (good) good = depth == (after ? r->nodes[after - 1]->depth + 1 : 0);
    for (size_t i = 0; good && i < VEC_TILE; i++) good = get32(record + 48 + 4 * i) < s->m->hp.n_vocab;
    if (good) return ERR_OK;
    return err_set(e, ERR_CORRUPT, "kept prefixes: record %" PRIu64 " is damaged", number);
}

static err_code read_content(const reader *r, uint64_t number, const uint8_t *record, uint32_t page, checkpoint *c,
                             err *e) {
    session *s = r->s;
    uint8_t digest[SHA256_LEN], want[SHA256_LEN];
    sha256 h;
    err_code rc;
    if ((rc = r->read(r->ctx, s->all[page].mem, session_page_bytes(s), e)) != ERR_OK ||
        (c && (rc = r->read(r->ctx, checkpoint_state(c), session_state_bytes(s), e)) != ERR_OK) ||
        (rc = r->read(r->ctx, want, sizeof want, e)) != ERR_OK)
        return rc;
    digest_begin(&h, r->head, number, record);
    sha256_update(&h, s->all[page].mem, session_page_bytes(s));
    if (c) sha256_update(&h, checkpoint_state(c), session_state_bytes(s));
    sha256_final(&h, digest);
    if (memcmp(digest, want, sizeof digest) == 0) return ERR_OK;
    return err_set(e, ERR_CORRUPT, "kept prefixes: record %" PRIu64 " is damaged", number);
}

/* A record that is in order becomes a node, or finds the one that is there already. The page and the checkpoint pass to
 * it, or to nobody. */
static prefix_node *place(session *s, prefix_node *parent, const uint8_t *space, uint32_t page, checkpoint *c) {
    prefix_node *n = prefix_find(&s->tree, parent, space, session_tokens_of(s, page));
    if (!n) n = session_node_add(s, parent, space, page);
    session_page_drop(s, page);
    if (n && c && !n->state) {
        c->pos = (n->depth + 1) * VEC_TILE;
        n->state = c;
    } else {
        session_checkpoint_put(s, c);
    }
    return n;
}

/* *full: there is no more room, and what follows was used longer ago. Nothing is given up for it. */
static err_code load_record(reader *r, uint64_t number, bool *full, err *e) {
    session *s = r->s;
    uint8_t record[RECORD_HEAD];
    *full = s->n_idle >= s->n_keep || (s->n_free == 0 && s->n_made == s->n_pages_max);
    if (*full) return ERR_OK;
    err_code rc = r->read(r->ctx, record, sizeof record, e);
    if (rc == ERR_OK) rc = check_record(r, number, record, e);
    if (rc != ERR_OK) return rc;
    if (get32(record + 12) >= s->n_ctx / VEC_TILE) {
        *full = true; /* a longer context than this session has: rare, and not worth reading past */
        return ERR_OK;
    }
    checkpoint *c = get32(record + 8) ? session_checkpoint_get(s, false) : NULL;
    *full = get32(record + 8) && !c;
    if (*full) return ERR_OK;
    if (!session_page_make(s)) {
        session_checkpoint_put(s, c);
        return err_nomem(e, "a page of KV memory");
    }
    uint32_t page = session_page_take(s);
    for (size_t i = 0; i < VEC_TILE; i++) session_tokens_of(s, page)[i] = (int32_t)get32(record + 48 + 4 * i);
    rc = read_content(r, number, record, page, c, e);
    if (rc != ERR_OK) {
        session_page_drop(s, page);
        session_checkpoint_put(s, c);
        return rc;
    }
    uint64_t after = get64(record);
    prefix_node *n = place(s, after ? r->nodes[after - 1] : NULL, record + 16, page, c);
    r->nodes[number - 1] = n;
    return n ? ERR_OK : err_nomem(e, "a kept prefix");
}

err_code session_kept_load(session *s, const uint8_t identity[32], session_read_fn *read, void *ctx, err *e) {
    reader r = {.s = s, .read = read, .ctx = ctx};
    err_code rc = read(ctx, r.head, sizeof r.head, e);
    if (rc == ERR_OK) rc = check_header(s, identity, r.head, e);
    if (rc != ERR_OK) return rc;
    r.n_nodes = get64(r.head + 80);
    if (r.n_nodes > s->n_pages_max) r.n_nodes = s->n_pages_max;
    if (r.n_nodes == 0 || s->n_keep == 0) return ERR_OK;
    r.nodes = mem_array((size_t)r.n_nodes, sizeof(prefix_node *));
    if (!r.nodes) return err_nomem(e, "kept prefixes");
    bool full = false;
    for (uint64_t i = 1; rc == ERR_OK && !full && i <= r.n_nodes; i++) rc = load_record(&r, i, &full, e);
    mem_free(r.nodes);
    return rc;
}

/* ---- files ------------------------------------------------------------------------------------------------ */

typedef struct kept_file {
    vfile *f;
    uint64_t at;
    const char *path;
} kept_file;

static err_code failed(int rc, const char *path, const char *what, err *e) {
    errno = -rc;
    return err_errno(e, "%s: cannot be %s", path, what);
}

static err_code file_put(void *ctx, const void *p, size_t n, err *e) {
    kept_file *k = ctx;
    int rc = vfs_posix.pwrite(&vfs_posix, k->f, p, n, k->at);
    if (rc != 0) return failed(rc, k->path, "written", e);
    k->at += n;
    return ERR_OK;
}

static err_code file_get(void *ctx, void *p, size_t n, err *e) {
    kept_file *k = ctx;
    int64_t got = vfs_posix.pread(&vfs_posix, k->f, p, n, k->at);
    if (got < 0) return failed((int)got, k->path, "read", e);
    if ((uint64_t)got != n) return err_set(e, ERR_INVALID, "it ends after %" PRIu64 " bytes", k->at + (uint64_t)got);
    k->at += n;
    return ERR_OK;
}

err_code session_kept_save_file(const session *s, const uint8_t identity[32], const char *path, err *e) {
    char beside[PATH_BYTES], folder[PATH_BYTES];
    int n = snprintf(beside, sizeof beside, "%s.new", path);
    if (n < 0 || (size_t)n >= sizeof beside) return err_set(e, ERR_INVALID, "%.60s…: the path is too long", path);
    snprintf(folder, sizeof folder, "%s", path);
    char *slash = strrchr(folder, '/');
    if (!slash)
        snprintf(folder, sizeof folder, ".");
    else
        slash[slash == folder] = '\0';
    kept_file k = {.path = beside};
    (void)vfs_posix.unlink(&vfs_posix, beside); /* of a program that died */
    int rc = vfs_posix.open(&vfs_posix, &k.f, beside, VFS_WRITE | VFS_CREATE | VFS_EXCL);
    if (rc != 0) return failed(rc, beside, "created", e);
    err_code result = session_kept_save(s, identity, file_put, &k, e);
    if (result == ERR_OK && (rc = vfs_posix.sync(&vfs_posix, k.f)) != 0) result = failed(rc, beside, "written", e);
    vfs_posix.close(&vfs_posix, k.f);
    if (result == ERR_OK && (rc = vfs_posix.rename(&vfs_posix, beside, path)) != 0)
        result = failed(rc, path, "replaced", e);
    if (result == ERR_OK && (rc = vfs_posix.sync_dir(&vfs_posix, folder)) != 0)
        result = failed(rc, folder, "synced", e);
    if (result != ERR_OK) (void)vfs_posix.unlink(&vfs_posix, beside);
    return result;
}

err_code session_kept_load_file(session *s, const uint8_t identity[32], const char *path, err *e) {
    kept_file k = {.path = path};
    int rc = vfs_posix.open(&vfs_posix, &k.f, path, VFS_READ);
    if (rc == -ENOENT) return err_set(e, ERR_NOT_FOUND, "%s: there is no such file", path);
    if (rc != 0) return failed(rc, path, "read", e);
    err_code result = session_kept_load(s, identity, file_get, &k, e);
    vfs_posix.close(&vfs_posix, k.f);
    return result == ERR_OK || result == ERR_IO ? result : err_prefix(e, "%s", path);
}
