#include "audit/segment.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { CHUNK = 1 << 14 }; /* on the stack of whoever opens or refreshes */

err_code fs_error(int rc, err *e, const char *fmt, ...) {
    char what[ERR_MSG_MAX];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    if (rc == -ENOMEM) return err_nomem(e, what);
    errno = -rc;
    return err_errno(e, "%s", what);
}

int fs_read_exact(vfs *fs, vfile *f, void *p, size_t n, uint64_t off) {
    int64_t got = fs->pread(fs, f, p, n, off);
    if (got < 0) return (int)got;
    return (uint64_t)got == n ? 0 : -ENODATA;
}

bool all_zero(const void *p, size_t n) {
    const uint8_t *b = p;
    return n == 0 || (b[0] == 0 && memcmp(b, b + 1, n - 1) == 0);
}

/* ---- segment headers ------------------------------------------------------------------------------------- */

void seg_name(char out[SEG_NAME_LEN + 1], uint64_t first) {
    snprintf(out, SEG_NAME_LEN + 1, "%020llu.seg", (unsigned long long)first);
}

bool seg_name_parse(uint64_t *first, const char *name) {
    char again[SEG_NAME_LEN + 1];
    uint64_t v = 0;
    if (strlen(name) != SEG_NAME_LEN) return false;
    for (int i = 0; i < 20; i++) {
        if (name[i] < '0' || name[i] > '9') return false;
        v = v * 10 + (uint64_t)(name[i] - '0'); /* past 2^64 the name does not come out the same again */
    }
    seg_name(again, v);
    *first = v;
    return strcmp(again, name) == 0;
}

void seg_header_encode(uint8_t out[SEG_HEADER_LEN], const uint8_t log_id[32], const seg_header *h) {
    memset(out, 0, SEG_HEADER_LEN);
    memcpy(out, SEG_MAGIC, 8);
    memcpy(out + 8, log_id, 32);
    be_put(out + 40, h->edge.size, 8);
    be_put(out + 48, h->note_len, 4);
    for (unsigned k = 0; k < MERKLE_LEVELS; k++)
        if (h->edge.size >> k & 1) memcpy(out + 64 + k * HASH_LEN, h->edge.h[k].b, HASH_LEN);
    memcpy(out + SEG_NOTE_AT, h->note, h->note_len);
    sha256_of(out + SEG_HEADER_LEN - 32, out, SEG_HEADER_LEN - 32);
}

err_code seg_header_decode(seg_header *out, const uint8_t in[SEG_HEADER_LEN], const uint8_t log_id[32], err *e) {
    uint8_t again[SEG_HEADER_LEN];
    memset(out, 0, sizeof *out);
    if (memcmp(in, SEG_MAGIC, 8) != 0)
        return err_set(e, ERR_CORRUPT, "segment header: does not begin with %s", SEG_MAGIC);
    if (memcmp(in + 8, log_id, 32) != 0) return err_set(e, ERR_CORRUPT, "segment header: belongs to another log");
    out->edge.size = be_get(in + 40, 8);
    out->note_len = (size_t)be_get(in + 48, 4);
    if (out->note_len > SEG_NOTE_MAX) return err_set(e, ERR_CORRUPT, "segment header: the checkpoint is too long");
    for (unsigned k = 0; k < MERKLE_LEVELS; k++)
        if (out->edge.size >> k & 1) memcpy(out->edge.h[k].b, in + 64 + k * HASH_LEN, HASH_LEN);
    memcpy(out->note, in + SEG_NOTE_AT, out->note_len);
    /* encoding again covers the zero fields and the hash at once */
    seg_header_encode(again, log_id, out);
    if (memcmp(again, in, SEG_HEADER_LEN) != 0)
        return err_set(e, ERR_CORRUPT, "segment header: its SHA-256 does not match");
    return ERR_OK;
}

err_code seg_header_open(seg_header *out, vfs *fs, vfile *f, const char *name, const uint8_t log_id[32],
                         const note_key *k, err *e) {
    uint8_t raw[SEG_HEADER_LEN];
    memset(out, 0, sizeof *out);
    int64_t got = fs->pread(fs, f, raw, sizeof raw, 0);
    if (got < 0) return fs_error((int)got, e, "%s: the header cannot be read", name);
    if ((size_t)got != sizeof raw) return err_set(e, ERR_CORRUPT, "%s: shorter than a segment header", name);
    err_code rc = seg_header_decode(out, raw, log_id, e);
    checkpoint c;
    if (rc == ERR_OK) {
        rc = checkpoint_open_own(&c, out->note, out->note_len, k, true, e);
        if (rc != ERR_OK && e) e->code = rc = ERR_CORRUPT;
    }
    if (rc != ERR_OK) return err_prefix(e, "%s", name), ERR_CORRUPT;
    hash32 root;
    frontier_root(&out->edge, &root);
    if (c.size != out->edge.size || !hash_equal(&c.root, &root))
        return err_set(e, ERR_CORRUPT, "%s: segment header: its frontier is not that of its checkpoint", name);
    return ERR_OK;
}

/* ---- frames ---------------------------------------------------------------------------------------------- */

uint64_t frame_len(const frame_header *h) {
    return FRAME_HEADER_LEN + h->entries_len + h->contents_len + h->note_len + SHA256_LEN;
}

uint64_t frame_room(const frame_header *h) {
    return (frame_len(h) + SECTOR - 1) / SECTOR * SECTOR;
}

void frame_header_encode(uint8_t out[FRAME_HEADER_LEN], const frame_header *h) {
    memset(out, 0, FRAME_HEADER_LEN);
    memcpy(out, FRAME_MAGIC, 8);
    be_put(out + 8, h->count, 4);
    be_put(out + 12, h->note_len, 4);
    be_put(out + 16, h->first, 8);
    be_put(out + 24, h->time_ms, 8);
    be_put(out + 32, h->entries_len, 8);
    be_put(out + 40, h->contents_len, 8);
}

static const char *header_decode(frame_header *h, const uint8_t in[FRAME_HEADER_LEN], uint64_t room) {
    if (memcmp(in, FRAME_MAGIC, 8) != 0) return "does not begin with " FRAME_MAGIC;
    h->count = (uint32_t)be_get(in + 8, 4);
    h->note_len = (uint32_t)be_get(in + 12, 4);
    h->first = be_get(in + 16, 8);
    h->time_ms = be_get(in + 24, 8);
    h->entries_len = be_get(in + 32, 8);
    h->contents_len = be_get(in + 40, 8);
    if (h->count == 0 || h->count > FRAME_COUNT_MAX) return "the count of records is out of range";
    if (h->note_len == 0 || h->note_len > NOTE_OWN_MAX) return "the checkpoint's length is out of range";
    if (h->entries_len < 2ull * h->count || h->entries_len > FRAME_ENTRIES_MAX)
        return "the entries' length is out of range";
    if (h->contents_len > FRAME_CONTENTS_MAX || (h->contents_len && h->contents_len < 4ull * h->count))
        return "the contents' length is out of range";
    if (h->first > (uint64_t)INT64_MAX - h->count) return "the index is out of range";
    if (!all_zero(in + 48, 16)) return "a reserved field is not zero";
    if (frame_room(h) > room) return "it would end past the end of the segment";
    return NULL;
}

static err_code bad(frame *out, frame_state *state, const char *why) {
    snprintf(out->why, sizeof out->why, "%s", why);
    *state = FRAME_BAD;
    return ERR_OK;
}

err_code frame_peek(vfs *fs, vfile *f, uint64_t off, uint64_t seg_len, frame *out, frame_state *state, err *e) {
    uint8_t sector[SECTOR];
    *out = (frame){.entries = {.max = FRAME_ENTRIES_MAX}};
    *state = FRAME_NONE;
    if (off > seg_len || seg_len - off < SECTOR) return ERR_OK;
    int64_t got = fs->pread(fs, f, sector, sizeof sector, off);
    if (got < 0) return fs_error((int)got, e, "a group at offset %llu cannot be read", (unsigned long long)off);
    if ((size_t)got < sizeof sector) return bad(out, state, "the segment was cut off");
    if (all_zero(sector, sizeof sector)) return ERR_OK;
    const char *why = header_decode(&out->h, sector, seg_len - off);
    if (why) return bad(out, state, why);
    out->contents_off = off + FRAME_HEADER_LEN + out->h.entries_len;
    *state = FRAME_GOOD;
    return ERR_OK;
}

bool entries_next(const uint8_t *p, size_t n, size_t *at, const uint8_t **entry, size_t *len) {
    if (*at > n || n - *at < 2) return false;
    size_t l = (size_t)be_get(p + *at, 2);
    if (n - *at - 2 < l) return false;
    *entry = p + *at + 2;
    *len = l;
    *at += 2 + l;
    return true;
}

err_code frame_load_entries(vfs *fs, vfile *f, uint64_t off, uint64_t seg_len, frame *out, frame_state *state, err *e) {
    err_code rc = frame_peek(fs, f, off, seg_len, out, state, e);
    if (rc != ERR_OK || *state != FRAME_GOOD) return rc;
    if (!buf_reserve(&out->entries, (size_t)out->h.entries_len))
        return buf_check(&out->entries, "a group's entries", e);
    int r = fs_read_exact(fs, f, out->entries.ptr, (size_t)out->h.entries_len, off + FRAME_HEADER_LEN);
    if (r == -ENODATA) return bad(out, state, "the segment was cut off");
    if (r != 0) return fs_error(r, e, "the entries of a group at offset %llu", (unsigned long long)off);
    out->entries.len = (size_t)out->h.entries_len;
    out->entries.ptr[out->entries.len] = 0;
    const uint8_t *entry;
    size_t at = 0, len;
    uint32_t count = 0;
    while (entries_next((const uint8_t *)out->entries.ptr, out->entries.len, &at, &entry, &len)) count++;
    if (at != out->entries.len || count != out->h.count)
        return bad(out, state, "the entries do not fill their section");
    return ERR_OK;
}

/* Hash what lies between the entries and the note, in pieces. */
static int hash_contents(vfs *fs, vfile *f, const frame *fr, sha256 *s) {
    uint8_t chunk[CHUNK];
    for (uint64_t done = 0; done < fr->h.contents_len;) {
        uint64_t left = fr->h.contents_len - done;
        size_t n = left < sizeof chunk ? (size_t)left : sizeof chunk;
        int r = fs_read_exact(fs, f, chunk, n, fr->contents_off + done);
        if (r != 0) return r;
        sha256_update(s, chunk, n);
        done += n;
    }
    return 0;
}

err_code frame_load(vfs *fs, vfile *f, uint64_t off, uint64_t seg_len, frame *out, frame_state *state, err *e) {
    err_code rc = frame_load_entries(fs, f, off, seg_len, out, state, e);
    if (rc != ERR_OK || *state != FRAME_GOOD) return rc;
    uint8_t head[FRAME_HEADER_LEN], tail[NOTE_OWN_MAX + SHA256_LEN + SECTOR], sum[SHA256_LEN];
    sha256 s;
    sha256_init(&s);
    frame_header_encode(head, &out->h); /* decoding has checked every byte of it */
    sha256_update(&s, head, sizeof head);
    sha256_update(&s, out->entries.ptr, out->entries.len);
    int r = hash_contents(fs, f, out, &s);
    uint64_t note_off = out->contents_off + out->h.contents_len;
    size_t tail_len = (size_t)(off + frame_room(&out->h) - note_off);
    if (r == 0) r = fs_read_exact(fs, f, tail, tail_len, note_off);
    if (r == -ENODATA) return bad(out, state, "the segment was cut off");
    if (r != 0) return fs_error(r, e, "a group at offset %llu", (unsigned long long)off);
    sha256_update(&s, tail, out->h.note_len);
    sha256_final(&s, sum);
    memcpy(out->note, tail, out->h.note_len);
    size_t end = out->h.note_len + SHA256_LEN;
    if (memcmp(sum, tail + out->h.note_len, SHA256_LEN) != 0) return bad(out, state, "its SHA-256 does not match");
    if (!all_zero(tail + end, tail_len - end)) return bad(out, state, "its padding is not zero");
    return ERR_OK;
}

void frame_free(frame *f) {
    buf_free(&f->entries);
}
