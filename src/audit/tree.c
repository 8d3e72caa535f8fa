/* The tree file: stored hashes, 32 bytes each. It holds nothing that the segments do not say; it is there so that
 * proofs and tiles need a few reads and no memory. */
#include "audit/internal.h"

#include "base/mem.h"

#include <string.h>

static err_code tree_read(void *ctx, uint64_t index, hash32 *out, err *e) {
    ledger *l = ctx;
    if (l->overlay_on && index >= l->overlay_base) {
        uint64_t at = (index - l->overlay_base) * HASH_LEN;
        if (at + HASH_LEN <= l->overlay.len) {
            memcpy(out->b, l->overlay.ptr + at, HASH_LEN);
            return ERR_OK;
        }
    } else if (l->tree) {
        int64_t got = l->fs->pread(l->fs, l->tree, out->b, HASH_LEN, index * HASH_LEN);
        if (got == HASH_LEN) return ERR_OK;
        if (got < 0) return fs_error((int)got, e, "%s/ledger/tree", l->dir);
    }
    return err_set(e, ERR_CORRUPT, "%s/ledger/tree: too short; open the island for writing once to have it rebuilt",
                   l->dir);
}

hash_source tree_source(ledger *l) {
    return (hash_source){tree_read, l};
}

err_code tree_extend(frontier *edge, const frame *f, buf *stored, err *e) {
    const uint8_t *entry;
    size_t at = 0, len;
    while (entries_next((const uint8_t *)f->entries.ptr, f->entries.len, &at, &entry, &len)) {
        hash32 leaf, out[MERKLE_LEVELS + 1];
        merkle_leaf(&leaf, entry, len);
        unsigned n = frontier_append(edge, &leaf, out);
        buf_append(stored, out, n * sizeof *out);
    }
    return buf_check(stored, "hashes of a group", e);
}

bool tree_agrees(ledger *l, const frontier *edge) {
    hash_source s = tree_source(l);
    frontier have;
    err e;
    return merkle_frontier(&s, edge->size, &have, &e) == ERR_OK && frontier_equal(&have, edge);
}

/* Hash one segment anew. *edge begins as the tree before it and ends as the tree after it. */
static err_code rebuild_segment(ledger *l, uint64_t first, frontier *edge, err *e) {
    char name[64];
    vfile *f = NULL;
    seg_header h;
    err_code rc = segment_open(l->fs, l->dir, first, VFS_READ, &f, name, e);
    if (rc != ERR_OK) return rc;
    rc = seg_header_open(&h, l->fs, f, name, l->log_id, &l->key, e);
    if (rc == ERR_OK && !frontier_equal(&h.edge, edge))
        rc = err_set(e, ERR_CORRUPT, "%s: does not follow the segment before it at record %llu", name,
                     (unsigned long long)edge->size);
    int64_t len = rc == ERR_OK ? l->fs->size(l->fs, f) : 0;
    frame_state state = FRAME_GOOD;
    buf stored = {.max = 8u << 20};
    for (uint64_t off = SEG_HEADER_LEN; rc == ERR_OK && state == FRAME_GOOD;) {
        frame fr;
        rc = frame_load(l->fs, f, off, (uint64_t)len, &fr, &state, e);
        if (rc == ERR_OK && state == FRAME_GOOD && fr.h.first != edge->size) state = FRAME_BAD;
        uint64_t index = stored_count(edge->size);
        buf_reset(&stored);
        if (rc == ERR_OK && state == FRAME_GOOD) rc = tree_extend(edge, &fr, &stored, e);
        if (rc == ERR_OK && stored.len) {
            int r = l->fs->pwrite(l->fs, l->tree, stored.ptr, stored.len, index * HASH_LEN);
            if (r != 0) rc = fs_error(r, e, "%s/ledger/tree: cannot be written", l->dir);
        }
        if (rc == ERR_OK && state == FRAME_BAD)
            rc = err_set(e, ERR_CORRUPT, "%s: record %llu: the group is damaged: %s", name,
                         (unsigned long long)edge->size, fr.why[0] ? fr.why : "its index is wrong");
        off += state == FRAME_GOOD ? frame_room(&fr.h) : 0;
        frame_free(&fr);
    }
    l->fs->close(l->fs, f);
    buf_free(&stored);
    return rc;
}

err_code tree_rebuild(ledger *l, err *e) {
    frontier edge = {0};
    err_code rc = ERR_OK;
    int r = l->fs->truncate(l->fs, l->tree, 0);
    if (r != 0) return fs_error(r, e, "%s/ledger/tree: cannot be emptied", l->dir);
    for (size_t i = 0; rc == ERR_OK && i + 1 < l->n_segs; i++) rc = rebuild_segment(l, l->segs[i], &edge, e);
    if (rc != ERR_OK) return rc;
    r = l->fs->sync(l->fs, l->tree);
    return r == 0 ? ERR_OK : fs_error(r, e, "%s/ledger/tree: cannot be synced", l->dir);
}
