/* Opening and following the end of the log.
 *
 * Only the last segment is read: its header carries the tree before it, signed. What can be there:
 *
 *   header | good frame | good frame | zeros                      a clean end
 *   header | good frame | good frame | something | zeros          a group that was being written: dropped, nobody was
 *                                                                 told of it
 *   header | good frame | something | good frame                  damage: ERR_CORRUPT
 *   ... and the published checkpoint covers more than the good frames: damage, or an old copy of the folder
 *
 * A frame that is read by the one who recovers may be in the system's memory only (its sync never came to pass, or
 * failed). So recovery writes the last frame once more and syncs it before anybody hears of it. */
#include "audit/internal.h"

#include "base/mem.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { STEP = 1 << 16 };

/* ---- one frame ------------------------------------------------------------------------------------------- */

typedef enum take { TAKE_OK, TAKE_BAD, TAKE_RESTART } take;

/* Bring the tree file in line with the hashes of a frame. */
static err_code settle_tree(ledger *l, uint64_t index, const buf *stored, ledger_report *rep, take *t, err *e) {
    if (l->overlay_on) {
        buf_append(&l->overlay, stored->ptr, stored->len);
        return buf_check(&l->overlay, "hashes of the last segment", e);
    }
    buf have = {.max = stored->len};
    int64_t got = 0;
    if (l->tree && buf_reserve(&have, stored->len))
        got = l->fs->pread(l->fs, l->tree, have.ptr, stored->len, index * HASH_LEN);
    err_code rc = buf_check(&have, "hashes of a group", e);
    bool same =
        have.ptr && stored->ptr && got == (int64_t)stored->len && memcmp(have.ptr, stored->ptr, stored->len) == 0;
    buf_free(&have);
    if (rc != ERR_OK || same) return rc;
    if (l->read_only) {
        *t = TAKE_RESTART;
        return ERR_OK;
    }
    if (rep) rep->tree_rebuilt = true;
    int r = l->fs->pwrite(l->fs, l->tree, stored->ptr, stored->len, index * HASH_LEN);
    return r == 0 ? ERR_OK : fs_error(r, e, "%s/ledger/tree: cannot be written", l->dir);
}

/* A frame whose bytes are whole: does it continue the log? Then the tail moves past it. */
static err_code take_frame(ledger *l, frame *fr, ledger_report *rep, take *t, err *e) {
    tail *tl = &l->tail;
    *t = TAKE_BAD;
    if (fr->h.first != tl->edge.size) {
        snprintf(fr->why, sizeof fr->why, "it begins with record %llu", (unsigned long long)fr->h.first);
        return ERR_OK;
    }
    frontier edge = tl->edge;
    buf stored = {.max = (size_t)fr->h.count * 2 * HASH_LEN + (MERKLE_LEVELS + 1) * HASH_LEN};
    err_code rc = tree_extend(&edge, fr, &stored, e);
    checkpoint c;
    hash32 root;
    frontier_root(&edge, &root);
    err ignored;
    if (rc == ERR_OK) {
        if (checkpoint_open_own(&c, fr->note, fr->h.note_len, &l->key, false, &ignored) != ERR_OK) {
            snprintf(fr->why, sizeof fr->why, "its checkpoint is malformed");
        } else if (c.size != edge.size || !hash_equal(&c.root, &root)) {
            snprintf(fr->why, sizeof fr->why, "its checkpoint is not that of its records");
        } else {
            *t = TAKE_OK;
            rc = settle_tree(l, stored_count(tl->edge.size), &stored, rep, t, e);
        }
    }
    buf_free(&stored);
    if (rc != ERR_OK || *t != TAKE_OK) return rc;
    tl->edge = edge;
    memcpy(tl->note, fr->note, fr->h.note_len);
    tl->note_len = fr->h.note_len;
    tl->last_off = tl->off;
    tl->last_room = frame_room(&fr->h);
    tl->off += tl->last_room;
    return ERR_OK;
}

/* ---- the end of the good frames -------------------------------------------------------------------------- */

/* Bytes from off up to the last that is not zero. */
static err_code leftover(ledger *l, uint64_t off, uint64_t *n, err *e) {
    uint8_t *chunk = mem_alloc(STEP);
    if (!chunk) return err_nomem(e, "reading the last segment");
    uint64_t from = off;
    int64_t got;
    *n = 0;
    while ((got = l->fs->pread(l->fs, l->tail.f, chunk, STEP, off)) > 0) {
        if (!all_zero(chunk, (size_t)got)) {
            size_t end = (size_t)got;
            while (chunk[end - 1] == 0) end--;
            *n = off + end - from;
        }
        off += (uint64_t)got;
    }
    mem_free(chunk);
    return got < 0 ? fs_error((int)got, e, "%s: the last segment", l->dir) : ERR_OK;
}

/* Whether a whole, signed frame of later records follows in the segment. */
static err_code later_frame(ledger *l, uint64_t end, uint64_t *first, err *e) {
    *first = 0;
    for (uint64_t off = l->tail.off + SECTOR; off < end; off += SECTOR) {
        frame fr;
        frame_state state;
        err_code rc = frame_peek(l->fs, l->tail.f, off, l->tail.len, &fr, &state, e);
        if (rc == ERR_OK && state == FRAME_GOOD) rc = frame_load(l->fs, l->tail.f, off, l->tail.len, &fr, &state, e);
        checkpoint c;
        err ignored;
        bool later = rc == ERR_OK && state == FRAME_GOOD && fr.h.first > l->tail.edge.size &&
                     checkpoint_open_own(&c, fr.note, fr.h.note_len, &l->key, true, &ignored) == ERR_OK;
        if (later) *first = fr.h.first;
        frame_free(&fr);
        if (rc != ERR_OK || later) return rc;
    }
    return ERR_OK;
}

static err_code try_frame(ledger *l, ledger_report *rep, take *t, char why[160], err *e) {
    frame fr;
    frame_state state;
    *t = TAKE_BAD;
    why[0] = 0;
    err_code rc = frame_load(l->fs, l->tail.f, l->tail.off, l->tail.len, &fr, &state, e);
    if (rc == ERR_OK && state == FRAME_GOOD) rc = take_frame(l, &fr, rep, t, e);
    snprintf(why, 160, "%s", state == FRAME_NONE ? "there is nothing where it should begin" : fr.why);
    frame_free(&fr);
    return rc;
}

/* Take frames until there are no more. What follows them is *dropped bytes of an unfinished group, or damage. */
static err_code take_frames(ledger *l, uint64_t covered, ledger_report *rep, uint64_t *dropped, bool *restart, err *e) {
    char why[160];
    take t = TAKE_OK;
    *dropped = 0;
    for (;;) {
        err_code rc = ERR_OK;
        while (rc == ERR_OK && t == TAKE_OK) rc = try_frame(l, rep, &t, why, e);
        if (rc != ERR_OK) return rc;
        if (t == TAKE_RESTART) {
            *restart = true;
            return ERR_OK;
        }
        uint64_t first = 0;
        rc = leftover(l, l->tail.off, dropped, e);
        if (rc == ERR_OK && *dropped) rc = later_frame(l, l->tail.off + *dropped, &first, e);
        if (rc != ERR_OK) return rc;
        uint64_t size = l->tail.edge.size;
        if (first == 0 && covered <= size) return ERR_OK;
        /* A writer may have finished the frame since: where a later one is whole, this one must be by now. */
        rc = try_frame(l, rep, &t, why, e);
        if (rc != ERR_OK) return rc;
        if (t != TAKE_BAD) continue;
        char name[SEG_NAME_LEN + 1];
        seg_name(name, l->tail.first);
        if (first)
            return err_set(e, ERR_CORRUPT,
                           "%s/ledger/seg/%s: record %llu: its group is damaged (%s), and record %llu after it is not",
                           l->dir, name, (unsigned long long)size, why, (unsigned long long)first);
        return err_set(e, ERR_CORRUPT,
                       "%s/ledger/seg/%s: record %llu: missing (%s), but the checkpoint that was published covers %llu "
                       "records: the log was cut off or an old copy was put back; restore a newer one",
                       l->dir, name, (unsigned long long)size, why, (unsigned long long)covered);
    }
}

/* ---- open ------------------------------------------------------------------------------------------------ */

static err_code enter_segment(ledger *l, uint64_t first, err *e) {
    char name[64];
    vfile *f = NULL;
    seg_header h;
    err_code rc = segment_open(l->fs, l->dir, first, l->read_only ? VFS_READ : VFS_WRITE, &f, name, e);
    if (rc != ERR_OK) return rc;
    rc = seg_header_open(&h, l->fs, f, name, l->log_id, &l->key, e);
    int64_t len = rc == ERR_OK ? l->fs->size(l->fs, f) : 0;
    if (len < 0) rc = fs_error((int)len, e, "%s/%s", l->dir, name);
    if (rc == ERR_OK && h.edge.size != first)
        rc = err_set(e, ERR_CORRUPT, "%s/%s: begins with record %llu, not with that of its name", l->dir, name,
                     (unsigned long long)h.edge.size);
    if (rc != ERR_OK) {
        l->fs->close(l->fs, f);
        return rc;
    }
    if (l->tail.f) l->fs->close(l->fs, l->tail.f);
    l->tail = (tail){.f = f, .first = first, .off = SEG_HEADER_LEN, .len = (uint64_t)len, .edge = h.edge};
    memcpy(l->tail.note, h.note, h.note_len);
    l->tail.note_len = h.note_len;
    return ERR_OK;
}

static err_code check_tree(ledger *l, ledger_report *rep, err *e) {
    if (tree_agrees(l, &l->tail.edge)) return ERR_OK;
    if (l->read_only)
        return err_set(
            e, ERR_CORRUPT,
            "%s/ledger/tree: damaged before record %llu; open the island for writing once to have it rebuilt", l->dir,
            (unsigned long long)l->tail.first);
    if (rep) rep->tree_rebuilt = true;
    err_code rc = tree_rebuild(l, e);
    if (rc == ERR_OK && !tree_agrees(l, &l->tail.edge))
        rc = err_set(e, ERR_CORRUPT, "%s/ledger/seg: the segments before record %llu do not lead up to it", l->dir,
                     (unsigned long long)l->tail.first);
    return rc;
}

/* The tail segment from its header on. */
static err_code read_tail(ledger *l, uint64_t covered, ledger_report *rep, uint64_t *dropped, err *e) {
    bool restart = false;
    err_code rc = check_tree(l, rep, e);
    if (rc == ERR_OK) rc = take_frames(l, covered, rep, dropped, &restart, e);
    if (rc == ERR_OK && restart) {
        l->overlay_on = true;
        l->overlay_base = stored_count(l->tail.first);
        l->overlay.max = 512u << 20; /* two hashes a record of one segment: a few MiB in practice */
        buf_reset(&l->overlay);
        rc = enter_segment(l, l->tail.first, e);
        if (rc == ERR_OK) rc = take_frames(l, covered, rep, dropped, &restart, e);
        if (rep) rep->tree_rebuilt = true;
    }
    if (rc != ERR_OK || l->tail.last_room == 0) return rc;
    checkpoint c;
    rc = checkpoint_open_own(&c, l->tail.note, l->tail.note_len, &l->key, true, e);
    if (rc != ERR_OK)
        rc = err_set(e, ERR_CORRUPT, "%s/ledger/seg: the last checkpoint (%llu records) is not signed by this log",
                     l->dir, (unsigned long long)l->tail.edge.size);
    return rc;
}

static err_code load_checkpoint(ledger *l, const char *name, checkpoint *c, err *e) {
    buf b = {.max = NOTE_OWN_MAX};
    err_code rc = fs_read_file(l->fs, l->dir, name, &b, e);
    if (rc == ERR_OK && checkpoint_open_own(c, b.ptr, b.len, &l->key, true, e) != ERR_OK) {
        err_prefix(e, "%s/%s", l->dir, name);
        rc = ERR_CORRUPT;
    } else if (rc == ERR_TOO_LARGE) {
        rc = err_set(e, ERR_CORRUPT, "%s/%s: not a checkpoint", l->dir, name);
    }
    if (rc == ERR_CORRUPT && e) e->code = rc;
    buf_free(&b);
    return rc;
}

/* The published checkpoint must be one that this log has gone through. */
static err_code check_published(ledger *l, const checkpoint *c, err *e) {
    hash_source s = tree_source(l);
    hash32 root;
    err_code rc = merkle_root(&s, c->size, &root, e);
    if (rc == ERR_OK && hash_equal(&root, &c->root)) return ERR_OK;
    if (rc == ERR_OK)
        rc =
            err_set(e, ERR_CORRUPT, "%s/ledger/checkpoint: at %llu records the log has another root than was published",
                    l->dir, (unsigned long long)c->size);
    return rc;
}

static void report(const ledger *l, ledger_report *rep, bool clean, uint64_t dropped) {
    rep->size = l->tail.edge.size;
    rep->dropped_bytes = dropped;
    rep->clean = clean;
    int n = snprintf(rep->text, sizeof rep->text, "%llu records, %s", (unsigned long long)rep->size,
                     clean ? "closed cleanly" : "not closed by the last writer");
    if (dropped && n > 0 && (size_t)n < sizeof rep->text)
        n += snprintf(rep->text + n, sizeof rep->text - (size_t)n, "; dropped %llu bytes of an unfinished group",
                      (unsigned long long)dropped);
    if (rep->tree_rebuilt && n > 0 && (size_t)n < sizeof rep->text)
        snprintf(rep->text + n, sizeof rep->text - (size_t)n, "; tree hashes were computed anew");
}

static err_code load_segments(ledger *l, err *e) {
    mem_free(l->segs);
    l->segs = NULL;
    l->n_segs = l->cap_segs = 0;
    err_code rc = list_segments(l->fs, l->dir, &l->segs, &l->n_segs, NULL, e);
    l->cap_segs = l->n_segs;
    if (rc == ERR_OK && l->n_segs == 0) rc = err_set(e, ERR_CORRUPT, "%s/ledger/seg: holds no segment", l->dir);
    if (rc == ERR_OK && l->segs[0] != 0)
        rc = err_set(e, ERR_CORRUPT, "%s/ledger/seg: record 0: its segment is missing", l->dir);
    return rc;
}

err_code tail_open(ledger *l, ledger_report *rep, err *e) {
    checkpoint published = {0}, closed = {0};
    uint64_t dropped = 0;
    /* the checkpoint first: what it covers was durable before, so a reader beside a writer must find it all */
    err_code rc = load_checkpoint(l, "ledger/checkpoint", &published, e);
    if (rc == ERR_NOT_FOUND)
        rc = err_set(e, ERR_CORRUPT, "%s/ledger/checkpoint: missing; without it lost records could not be noticed",
                     l->dir);
    if (rc == ERR_OK) rc = load_segments(l, e);
    if (rc == ERR_OK) rc = enter_segment(l, l->segs[l->n_segs - 1], e);
    if (rc == ERR_OK) rc = read_tail(l, published.size, rep, &dropped, e);
    if (rc == ERR_OK) rc = check_published(l, &published, e);
    if (rc != ERR_OK) return rc;
    l->published_size = published.size;
    err ignored;
    bool clean = load_checkpoint(l, "ledger/clean", &closed, &ignored) == ERR_OK && closed.size == l->tail.edge.size &&
                 dropped == 0;
    report(l, rep, clean, dropped);
    return ERR_OK;
}

/* ---- following a writer ---------------------------------------------------------------------------------- */

static err_code note_segment(ledger *l, uint64_t first, err *e) {
    if (l->n_segs == l->cap_segs) {
        uint64_t *v = mem_realloc(l->segs, 2 * l->cap_segs * sizeof *v);
        if (!v) return err_nomem(e, "the list of segments");
        l->segs = v;
        l->cap_segs *= 2;
    }
    l->segs[l->n_segs++] = first;
    return ERR_OK;
}

/* Read-only: take what has come since. What is read may not be durable yet, so it is synced from here; only then is
 * it part of what this reader vouches for. */
err_code tail_follow(ledger *l, err *e) {
    uint64_t dropped, before = l->tail.edge.size;
    err_code rc = ERR_OK;
    for (;;) {
        uint64_t from = l->tail.edge.size;
        bool restart = false;
        rc = take_frames(l, 0, NULL, &dropped, &restart, e);
        if (rc == ERR_OK && restart) {
            rc = enter_segment(l, l->tail.first, e);
            if (rc == ERR_OK) rc = read_tail(l, 0, NULL, &dropped, e);
        }
        if (rc != ERR_OK) return rc;
        uint64_t size = l->tail.edge.size;
        int r = size > from || size > l->published_size ? l->fs->sync(l->fs, l->tail.f) : 0;
        if (r != 0 && r != -EROFS && r != -EINVAL)
            return fs_error(r, e, "%s: the last segment cannot be synced", l->dir);
        if (size == l->tail.first) break;
        rc = enter_segment(l, size, e);
        if (rc == ERR_NOT_FOUND) break; /* no next segment: this is the end */
        l->overlay_on = false;
        if (rc == ERR_OK) rc = note_segment(l, size, e);
        if (rc == ERR_OK) rc = check_tree(l, NULL, e);
        if (rc != ERR_OK) return rc;
    }
    if (l->tail.edge.size == before) return ERR_OK;
    checkpoint c;
    rc = checkpoint_open_own(&c, l->tail.note, l->tail.note_len, &l->key, true, e);
    return rc == ERR_OK
               ? rc
               : err_set(e, ERR_CORRUPT, "%s/ledger/seg: the last checkpoint is not signed by this log", l->dir);
}

/* ---- recovery for writing -------------------------------------------------------------------------------- */

static int rewrite(ledger *l, uint64_t off, uint64_t n) {
    uint8_t *chunk = mem_alloc(STEP);
    int r = chunk ? 0 : -ENOMEM;
    for (uint64_t done = 0; r == 0 && done < n;) {
        size_t k = n - done < STEP ? (size_t)(n - done) : STEP;
        r = fs_read_exact(l->fs, l->tail.f, chunk, k, off + done);
        if (r == 0) r = l->fs->pwrite(l->fs, l->tail.f, chunk, k, off + done);
        done += k;
    }
    mem_free(chunk);
    return r;
}

static int write_zeros(ledger *l, uint64_t off, uint64_t n) {
    uint8_t *zero = mem_zalloc(STEP);
    int r = zero ? 0 : -ENOMEM;
    for (uint64_t done = 0; r == 0 && done < n;) {
        size_t k = n - done < STEP ? (size_t)(n - done) : STEP;
        r = l->fs->pwrite(l->fs, l->tail.f, zero, k, off + done);
        done += k;
    }
    mem_free(zero);
    return r;
}

err_code tail_recover(ledger *l, ledger_report *rep, err *e) {
    char folder[LEDGER_PATH_MAX];
    err_code rc = ledger_path(l, folder, "ledger/seg", e);
    if (rc != ERR_OK || rep->clean) return rc;
    /* a segment without frames got its name after its header was synced */
    int r = l->tail.last_room ? rewrite(l, l->tail.last_off, l->tail.last_room) : 0;
    if (r == 0 && rep->dropped_bytes) r = write_zeros(l, l->tail.off, rep->dropped_bytes);
    if (r == 0) r = l->fs->sync(l->fs, l->tail.f);
    if (r == 0) r = l->fs->sync_dir(l->fs, folder);
    if (r != 0) return fs_error(r, e, "%s: the end of the log cannot be made durable", folder);
    r = vault_trim(&l->vault, l->tail.edge.size);
    if (r == 0) r = l->fs->sync(l->fs, l->vault.f);
    if (r != 0) return fs_error(r, e, "%s/ledger/keys: cannot be made durable", l->dir);
    return ERR_OK;
}
