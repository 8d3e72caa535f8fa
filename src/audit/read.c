/* Reading records: where a record's frame is, its entry, its contents. */
#include "audit/internal.h"

#include "base/json.h"
#include "base/mem.h"

#include <stdio.h>
#include <string.h>

enum { CACHE_KEEP = 4 << 20 };

/* ---- where a frame is ------------------------------------------------------------------------------------ */

static void index_close(ledger *l, seg_index *s) {
    if (s->f) l->fs->close(l->fs, s->f);
    mem_free(s->v);
    *s = (seg_index){0};
}

void read_close(ledger *l) {
    for (int i = 0; i < INDEX_SEGMENTS; i++) index_close(l, &l->index[i]);
    if (l->has_cached) frame_free(&l->cached);
    l->has_cached = false;
}

/* The index of the segment that holds seq: kept, or begun anew in place of the one used longest ago. */
static err_code index_for(ledger *l, uint64_t seq, seg_index **out, err *e) {
    size_t lo = 0, hi = l->n_segs; /* segs[lo] <= seq < segs[hi] */
    while (hi - lo > 1) {
        size_t mid = lo + (hi - lo) / 2;
        if (l->segs[mid] <= seq)
            lo = mid;
        else
            hi = mid;
    }
    uint64_t first = l->segs[lo];
    seg_index *oldest = &l->index[0];
    for (int i = 0; i < INDEX_SEGMENTS; i++) {
        seg_index *s = &l->index[i];
        if (s->f && s->seg_first == first) {
            s->used = ++l->index_clock;
            *out = s;
            return ERR_OK;
        }
        if (s->used < oldest->used) oldest = s;
    }
    index_close(l, oldest);
    char name[64];
    err_code rc = segment_open(l->fs, l->dir, first, VFS_READ, &oldest->f, name, e);
    if (rc != ERR_OK) return rc;
    int64_t len = l->fs->size(l->fs, oldest->f);
    if (len < 0) {
        index_close(l, oldest);
        return fs_error((int)len, e, "%s/%s", l->dir, name);
    }
    oldest->seg_first = oldest->next_first = first;
    oldest->seg_len = (uint64_t)len;
    oldest->next_off = SEG_HEADER_LEN;
    oldest->used = ++l->index_clock;
    *out = oldest;
    return ERR_OK;
}

static err_code index_grow(seg_index *s, err *e) {
    if (s->n < s->cap) return ERR_OK;
    size_t cap = s->cap ? 2 * s->cap : 64;
    frame_pos *v = mem_realloc(s->v, cap * sizeof *v);
    if (!v) return err_nomem(e, "the index of a segment");
    s->v = v;
    s->cap = cap;
    return ERR_OK;
}

err_code read_locate(ledger *l, uint64_t seq, seg_index **out, frame_pos *at, err *e) {
    seg_index *s = NULL;
    *out = NULL;
    *at = (frame_pos){0};
    if (seq >= atomic_load(&l->size))
        return err_set(e, ERR_NOT_FOUND, "record %llu: the ledger has %llu records", (unsigned long long)seq,
                       (unsigned long long)atomic_load(&l->size));
    err_code rc = index_for(l, seq, &s, e);
    while (rc == ERR_OK && s && seq >= s->next_first) {
        frame fr;
        frame_state state;
        rc = frame_peek(l->fs, s->f, s->next_off, s->seg_len, &fr, &state, e);
        if (rc == ERR_OK && (state != FRAME_GOOD || fr.h.first != s->next_first))
            rc = err_set(e, ERR_CORRUPT, "%s/ledger/seg/%020llu.seg: record %llu: its group is damaged (%s)", l->dir,
                         (unsigned long long)s->seg_first, (unsigned long long)s->next_first,
                         state == FRAME_BAD ? fr.why : "it is not where it should be");
        if (rc == ERR_OK) rc = index_grow(s, e);
        if (rc != ERR_OK) break;
        s->v[s->n++] = (frame_pos){s->next_first, s->next_off};
        s->next_first += fr.h.count;
        s->next_off += frame_room(&fr.h);
    }
    if (rc != ERR_OK || !s || s->n == 0) return rc;
    size_t lo = 0, hi = s->n;
    while (hi - lo > 1) {
        size_t mid = lo + (hi - lo) / 2;
        if (s->v[mid].first <= seq)
            lo = mid;
        else
            hi = mid;
    }
    *at = s->v[lo];
    *out = s;
    return ERR_OK;
}

/* ---- entries --------------------------------------------------------------------------------------------- */

static err_code damaged(const ledger *l, const seg_index *s, uint64_t seq, const char *why, err *e) {
    err_set(e, ERR_CORRUPT, "%s/ledger/seg/%020llu.seg: record %llu: %s", l->dir, (unsigned long long)s->seg_first,
            (unsigned long long)seq, why);
    return ERR_CORRUPT;
}

/* The frame of a record with its entries, kept for the next record. */
static err_code load_frame(ledger *l, uint64_t seq, seg_index **seg, err *e) {
    frame_pos at;
    frame_state state;
    err_code rc = read_locate(l, seq, seg, &at, e);
    if (rc != ERR_OK || !*seg) return rc;
    if (l->has_cached && l->cached_seg == (*seg)->seg_first && l->cached_off == at.off) return ERR_OK;
    if (l->has_cached) frame_free(&l->cached);
    l->has_cached = false;
    rc = frame_load_entries(l->fs, (*seg)->f, at.off, (*seg)->seg_len, &l->cached, &state, e);
    if (rc == ERR_OK && (state != FRAME_GOOD || l->cached.h.first != at.first))
        rc = damaged(l, *seg, seq, state == FRAME_BAD ? l->cached.why : "its group is not where it should be", e);
    if (rc != ERR_OK) {
        frame_free(&l->cached);
        return rc;
    }
    l->has_cached = true;
    l->cached_seg = (*seg)->seg_first;
    l->cached_off = at.off;
    return ERR_OK;
}

err_code read_entry(ledger *l, uint64_t seq, const uint8_t **p, size_t *n, hash32 *leaf, err *e) {
    seg_index *s = NULL;
    hash32 want;
    hash_source src = tree_source(l);
    *p = NULL;
    *n = 0;
    err_code rc = load_frame(l, seq, &s, e);
    if (rc != ERR_OK || !s) return rc;
    size_t at = 0;
    for (uint64_t k = l->cached.h.first; k <= seq; k++)
        if (!entries_next((const uint8_t *)l->cached.entries.ptr, l->cached.entries.len, &at, p, n))
            return damaged(l, s, seq, "its group has fewer records than it says", e);
    merkle_leaf(leaf, *p, *n);
    rc = src.read(src.ctx, stored_index(0, seq), &want, e);
    if (rc == ERR_OK && !hash_equal(leaf, &want))
        rc = damaged(l, s, seq, "its bytes are not those that were logged", e);
    return rc;
}

static void drop_large_cache(ledger *l) {
    if (!l->has_cached || l->cached.entries.cap <= CACHE_KEEP) return;
    frame_free(&l->cached);
    l->has_cached = false;
}

err_code ledger_read(ledger *l, uint64_t seq, buf *out, err *e) {
    const uint8_t *p;
    size_t n;
    hash32 leaf;
    pthread_mutex_lock(&l->read_mu);
    err_code rc = read_entry(l, seq, &p, &n, &leaf, e);
    if (rc == ERR_OK) buf_append(out, p, n);
    drop_large_cache(l);
    pthread_mutex_unlock(&l->read_mu);
    return rc == ERR_OK ? buf_check(out, "a record", e) : rc;
}

/* ---- contents -------------------------------------------------------------------------------------------- */

/* What an entry says about one of its contents: its length and commitment. */
static err_code stated_content(const uint8_t *entry, size_t n, uint64_t seq, const char *name, uint64_t *bytes,
                               uint8_t commit[SHA256_LEN], err *e) {
    cJSON *v = NULL;
    err_code rc = json_parse(&v, (const char *)entry, n, "entry", e);
    const cJSON *all = v ? json_get(v, "content") : NULL, *one = all ? json_get(all, name) : NULL;
    if (rc == ERR_OK && !one)
        rc = err_set(e, ERR_NOT_FOUND, "record %llu: has no content %s", (unsigned long long)seq, name);
    const char *hex = NULL;
    int64_t len = -1;
    if (rc == ERR_OK) rc = json_get_str(one, "commit", &hex, e);
    if (rc == ERR_OK) rc = json_get_int(one, "bytes", 0, LEDGER_CONTENT_MAX, &len, e);
    if (rc == ERR_OK && (!hex || len < 0 || !hex_decode(commit, SHA256_LEN, hex, strlen(hex))))
        rc = err_set(e, ERR_CORRUPT, "record %llu: content %s has no commitment", (unsigned long long)seq, name);
    *bytes = (uint64_t)len;
    cJSON_Delete(v);
    return rc;
}

/* The sealed bytes of one record of the cached frame, NULL where it has none. mem_free *out. */
static err_code load_sealed(ledger *l, const seg_index *s, uint64_t seq, uint8_t **out, size_t *n, err *e) {
    const frame *f = &l->cached;
    uint64_t table = 4ull * f->h.count, before = 0, len = 0;
    *out = NULL;
    *n = 0;
    if (f->h.contents_len == 0) return ERR_OK;
    if (f->h.contents_len < table) return damaged(l, s, seq, "its group's contents are too short", e);
    uint8_t *t = mem_alloc((size_t)table);
    if (!t) return err_nomem(e, "a table of contents");
    int r = fs_read_exact(l->fs, s->f, t, (size_t)table, f->contents_off);
    for (uint64_t k = 0; r == 0 && k <= seq - f->h.first; k++) {
        before += len;
        len = be_get(t + 4 * k, 4);
    }
    mem_free(t);
    if (r != 0) return fs_error(r, e, "%s: contents of record %llu", l->dir, (unsigned long long)seq);
    if (len == 0) return ERR_OK;
    if (before + len > f->h.contents_len - table)
        return damaged(l, s, seq, "its contents are not where they should be", e);
    *out = mem_alloc((size_t)len);
    if (!*out) return err_nomem(e, "a record's contents");
    r = fs_read_exact(l->fs, s->f, *out, (size_t)len, f->contents_off + table + before);
    *n = (size_t)len;
    if (r == 0) return ERR_OK;
    mem_free(*out);
    *out = NULL;
    return fs_error(r, e, "%s: contents of record %llu", l->dir, (unsigned long long)seq);
}

err_code read_sealed(ledger *l, uint64_t seq, hash32 *leaf, uint8_t **sealed, size_t *n, err *e) {
    const uint8_t *entry = NULL;
    seg_index *s = NULL;
    frame_pos at;
    *sealed = NULL;
    err_code rc = read_entry(l, seq, &entry, n, leaf, e);
    if (rc == ERR_OK) rc = read_locate(l, seq, &s, &at, e);
    return rc == ERR_OK && s ? load_sealed(l, s, seq, sealed, n, e) : rc;
}

/* Master key on first use: a reader that never asks for contents needs none. */
static err_code need_master(ledger *l, err *e) {
    bool damaged;
    if (l->vault.have_master) return ERR_OK;
    err_code rc = load_vault_key(l->fs, l->dir, l->vault.master, e);
    l->vault.have_master = rc == ERR_OK;
    return rc == ERR_OK ? vault_load_seeds(&l->vault, l->dir, &damaged, e) : rc;
}

err_code ledger_derive_key(ledger *l, const char *purpose, uint8_t out[32], err *e) {
    char text[256];
    int n = snprintf(text, sizeof text, "polder/derived-key/1:%s", purpose);
    if (n < 0 || (size_t)n >= sizeof text) return err_set(e, ERR_INTERNAL, "the purpose of a derived key is too long");
    pthread_mutex_lock(&l->read_mu);
    err_code rc = need_master(l, e);
    if (rc == ERR_OK) hmac_sha256(out, l->vault.master, sizeof l->vault.master, text, (size_t)n);
    pthread_mutex_unlock(&l->read_mu);
    return rc;
}

static err_code open_sealed(ledger *l, const seg_index *s, uint64_t seq, const hash32 *leaf, uint8_t **sealed,
                            uint8_t **plain, size_t *plain_len, err *e) {
    uint8_t key[CONTENT_KEY_LEN];
    slot_state state = SLOT_EMPTY;
    size_t n = 0;
    err_code rc = need_master(l, e);
    if (rc != ERR_OK) return rc;
    rc = load_sealed(l, s, seq, sealed, &n, e);
    if (rc == ERR_OK && !*sealed) rc = damaged(l, s, seq, "its group holds no contents of it", e);
    if (rc != ERR_OK) return rc;
    int r = vault_find_key(&l->vault, seq, leaf, *sealed, n, &state, key);
    if (r != 0) return fs_error(r, e, "%s/ledger/keys: the key of record %llu", l->dir, (unsigned long long)seq);
    if (state == SLOT_ERASED)
        return err_set(e, ERR_NOT_FOUND, "record %llu: its contents were erased (their key was destroyed)",
                       (unsigned long long)seq);
    if (state != SLOT_KEY)
        return err_set(e, ERR_CORRUPT, "%s/ledger/keys: record %llu: the key of its contents is %s", l->dir,
                       (unsigned long long)seq, state == SLOT_EMPTY ? "missing" : "damaged");
    rc = vault_open(l->log_id, leaf, key, *sealed, n, plain, plain_len, e);
    mem_wipe(key, sizeof key);
    if (rc == ERR_CORRUPT) err_prefix(e, "%s: record %llu", l->dir, (unsigned long long)seq);
    return rc;
}

static err_code pick_content(const uint8_t *plain, size_t n, uint64_t seq, const char *name, uint64_t bytes,
                             const uint8_t commit[SHA256_LEN], buf *out, err *e) {
    content_view v;
    size_t at = 0;
    unsigned left = 0;
    bool whole;
    while (vault_next(plain, n, &at, &left, &v, &whole)) {
        uint8_t mac[SHA256_LEN];
        if (v.name_len != strlen(name) || memcmp(v.name, name, v.name_len) != 0) continue;
        hmac_sha256(mac, v.salt, SALT_LEN, v.bytes, v.len);
        if (v.len != bytes || !bytes_equal_ct(mac, commit, SHA256_LEN))
            return err_set(e, ERR_CORRUPT, "record %llu: content %s is not what the record commits to",
                           (unsigned long long)seq, name);
        buf_append(out, v.bytes, v.len);
        return buf_check(out, "a content", e);
    }
    return err_set(e, ERR_CORRUPT, "record %llu: content %s is not in the vault", (unsigned long long)seq, name);
}

err_code ledger_content(ledger *l, uint64_t seq, const char *name, buf *out, err *e) {
    const uint8_t *entry = NULL;
    uint8_t commit[SHA256_LEN], *sealed = NULL, *plain = NULL;
    size_t n = 0, plain_len = 0;
    uint64_t bytes = 0;
    hash32 leaf = {{0}};
    pthread_mutex_lock(&l->read_mu);
    err_code rc = read_entry(l, seq, &entry, &n, &leaf, e);
    if (rc == ERR_OK) rc = stated_content(entry, n, seq, name, &bytes, commit, e);
    seg_index *s = NULL;
    frame_pos at;
    if (rc == ERR_OK) rc = read_locate(l, seq, &s, &at, e);
    if (rc == ERR_OK && s) rc = open_sealed(l, s, seq, &leaf, &sealed, &plain, &plain_len, e);
    drop_large_cache(l);
    pthread_mutex_unlock(&l->read_mu);
    if (rc == ERR_OK) {
        rc = pick_content(plain, plain_len, seq, name, bytes, commit, out, e);
        mem_wipe(plain, plain_len);
    }
    mem_free(sealed);
    return rc;
}

/* ---- checkpoints ----------------------------------------------------------------------------------------- */

void note_copy(ledger *l, buf *out, uint64_t *size) {
    pthread_mutex_lock(&l->mu);
    buf_append(out, l->note, l->note_len);
    if (size) *size = atomic_load(&l->size);
    pthread_mutex_unlock(&l->mu);
}

err_code ledger_checkpoint(ledger *l, buf *out, err *e) {
    note_copy(l, out, NULL);
    return buf_check(out, "a checkpoint", e);
}
