/* The writer: group commit.
 *
 *   callers --ledger_append--> queue --commit thread--> group --> keys, tree, frame, sync --> callers wake
 *
 * While one group is being synced the next gathers in the queue, so the disk's latency sets the group's size. Where
 * many append at once and the disk is quick, groups would be small and the processor's time go into syncs and
 * signatures: a writer that has just written a larger group gives the next one a moment more. A group is one frame:
 * leaves and the signed checkpoint that covers them become durable together.
 *
 * What a failure leaves behind
 *  - The disk refused a write (full, or an error): the group fails, the state in memory is what it was, the bytes that
 *    were written lie behind the end of the log and are overwritten by the next group. tail_dirty and keys_dirty say
 *    that there may be such bytes.
 *  - A sync failed: the kernel may have thrown the data away and say "fine" the next time, so nothing that is written
 *    from now on could be vouched for. The ledger stays failed until it is opened anew.
 */
#include "audit/commit.h"

#include "base/mem.h"
#include "base/metrics.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define LINK_DIGITS 16u        /* of LEDGER_SEQ_PENDING */
#define ENTRY_USUAL 1400u      /* bytes that most entries fit into */
#define FRAME_KEPT  (1u << 20) /* bytes of a frame's memory */
#define GATHER_FROM 4u         /* records of the last group */
#define GATHER_NS   300000L

typedef struct group {
    waiter *first;
    uint32_t n;
    size_t entries_len, contents_len;
    bool has_contents;
    frontier edge;
    buf stored; /* hashes for the tree file */
    char note[NOTE_OWN_MAX];
    size_t note_len;
    buf bytes; /* the frame, padded to whole sectors */
} group;

static void set_metrics(ledger *l, double commit_ms) {
    metric_set(l->metrics.size, (double)atomic_load(&l->size));
    if (commit_ms >= 0) metric_observe(l->metrics.seconds, commit_ms / 1e3);
}

static void count_failed(ledger *l, uint64_t n) { /* under mu */
    l->failed_appends += n;
    metric_add(l->metrics.failed, (double)n);
}

static void set_queue(ledger *l) { /* under mu */
    metric_set(l->metrics.queue, (double)l->queued);
}

static void find_metrics(ledger *l) {
    l->metrics.size = metric_get(METRIC_GAUGE, "polder_ledger_size", NULL, "Records in the ledger that are durable.");
    l->metrics.queue = metric_get(METRIC_GAUGE, "polder_ledger_queue", NULL, "Records that wait to be made durable.");
    l->metrics.failed = metric_get(METRIC_COUNTER, "polder_ledger_failed_appends_total", NULL,
                                   "Records that could not be made durable.");
    l->metrics.seconds =
        metric_get(METRIC_HISTOGRAM, "polder_ledger_commit_seconds", NULL, "Time to make a group of records durable.");
}

/* ---- failing for good ------------------------------------------------------------------------------------ */

static void poison(ledger *l, const err *why) {
    pthread_mutex_lock(&l->mu);
    if (!l->failed) {
        l->failed = true;
        snprintf(l->fail_why, sizeof l->fail_why, "%.200s", why->msg);
        log_msg(LOG_ERROR, "ledger", "a sync failed, nothing more is accepted until a restart: %s", why->msg);
    }
    pthread_mutex_unlock(&l->mu);
}

static err_code failed_error(ledger *l, err *e) { /* under mu */
    return err_set(e, ERR_UNAVAILABLE,
                   "ledger: a sync to disk has failed and what was written since cannot be vouched for (%s); check the "
                   "disk and restart",
                   l->fail_why);
}

/* ---- publishing the checkpoint ---------------------------------------------------------------------------- */

static err_code publish(ledger *l, err *e) {
    bool sync_failed = false;
    err_code rc = fs_replace(l->fs, l->dir, "ledger", "checkpoint", l->tail.note, l->tail.note_len, &sync_failed, e);
    l->published_ms = time_mono_ns() / 1000000;
    if (rc == ERR_OK) {
        l->published_size = l->tail.edge.size;
        return rc;
    }
    if (sync_failed)
        poison(l, e);
    else
        log_msg(LOG_WARN, "ledger", "the checkpoint was not published (tried again later): %s", e ? e->msg : "");
    return rc;
}

static void publish_if_due(ledger *l) {
    err e;
    uint64_t now = time_mono_ns() / 1000000;
    if (l->published_size == l->tail.edge.size || now - l->published_ms < PUBLISH_INTERVAL_MS) return;
    publish(l, &e);
}

static void renew_seed_if_due(ledger *l) {
    err e;
    bool sync_failed = false;
    if (l->vault.since < l->seed_records) return;
    int r = vault_roll(&l->vault, l->tail.edge.size, &sync_failed);
    if (r == 0) return;
    fs_error(r, &e, "%s/ledger/seeds: cannot be written", l->dir);
    if (sync_failed)
        poison(l, &e);
    else
        log_msg(LOG_WARN, "ledger", "each group takes a sync more until this works: %s", e.msg);
}

/* ---- one group ------------------------------------------------------------------------------------------- */

/* What depends on the last byte of an entry: its leaf, and the seal of its contents, which is bound to the leaf. */
static void finish_waiter(ledger *l, waiter *w) {
    merkle_leaf(&w->leaf, w->entry, w->entry_len);
    if (!w->sealed) return;
    w->seed_no = vault_new_key(&l->vault, &w->leaf, w->key);
    vault_encrypt(l->log_id, &w->leaf, w->key, w->sealed, w->sealed_len);
}

/* The index of the record before it takes the place of LEDGER_SEQ_PENDING, which has more digits than any. */
static void link_waiter(ledger *l, waiter *w, uint64_t seq) {
    char digits[U64_TEXT];
    size_t n = text_u64(digits, seq);
    uint8_t *at = w->entry + w->link_at, *after = at + LINK_DIGITS;
    memcpy(at, digits, n);
    memmove(at + n, after, (size_t)(w->entry + w->entry_len - after));
    w->entry_len -= LINK_DIGITS - n;
    w->linked = false;
    finish_waiter(l, w);
}

static err_code group_hash(ledger *l, group *g, err *e) {
    hash32 root;
    buf note = {.max = NOTE_OWN_MAX};
    g->edge = l->tail.edge;
    g->stored.max = (size_t)g->n * 2 * HASH_LEN + (MERKLE_LEVELS + 1) * HASH_LEN;
    for (waiter *w = g->first; w; w = w->next) {
        hash32 out[MERKLE_LEVELS + 1];
        w->seq = g->edge.size;
        if (w->linked) {
            g->entries_len -= w->entry_len;
            link_waiter(l, w, w->seq - 1);
            g->entries_len += w->entry_len;
        }
        unsigned n = frontier_append(&g->edge, &w->leaf, out);
        buf_append(&g->stored, out, n * sizeof *out);
    }
    frontier_root(&g->edge, &root);
    checkpoint_sign(&note, &l->signer, g->edge.size, &root);
    err_code rc = buf_check(&g->stored, "hashes of a group", e);
    if (rc == ERR_OK) rc = buf_check(&note, "a checkpoint", e);
    if (rc == ERR_OK) {
        memcpy(g->note, note.ptr, note.len);
        g->note_len = note.len;
    }
    buf_free(&note);
    return rc;
}

static err_code group_frame(ledger *l, group *g, err *e) {
    frame_header h = {.count = g->n,
                      .note_len = (uint32_t)g->note_len,
                      .first = l->tail.edge.size,
                      .time_ms = (uint64_t)time_unix_ms(),
                      .entries_len = g->entries_len,
                      .contents_len = g->has_contents ? 4ull * g->n + g->contents_len : 0};
    uint8_t head[FRAME_HEADER_LEN], sum[SHA256_LEN];
    static const uint8_t zero[SECTOR];
    buf *b = &g->bytes;
    size_t room = (size_t)frame_room(&h);
    *b = l->frame;
    l->frame = (buf){0};
    b->len = 0;
    b->max = room < b->cap ? b->cap - 1 : room;
    if (!buf_reserve(b, room)) return buf_check(b, "a group of records", e);
    frame_header_encode(head, &h);
    buf_append(b, head, sizeof head);
    for (waiter *w = g->first; w; w = w->next) {
        buf_be(b, w->entry_len, 2);
        buf_append(b, w->entry, w->entry_len);
    }
    for (waiter *w = g->first; w && g->has_contents; w = w->next) buf_be(b, w->sealed_len, 4);
    for (waiter *w = g->first; w; w = w->next) buf_append(b, w->sealed, w->sealed_len);
    buf_append(b, g->note, g->note_len);
    sha256_of(sum, b->ptr, b->len);
    buf_append(b, sum, sizeof sum);
    buf_append(b, zero, room - b->len);
    return buf_check(b, "a group of records", e);
}

static err_code remember_segment(ledger *l, uint64_t first, uint64_t len, err *e) {
    pthread_mutex_lock(&l->read_mu);
    err_code rc = ERR_OK;
    if (l->n_segs == l->cap_segs) {
        uint64_t *v = mem_realloc(l->segs, 2 * l->cap_segs * sizeof *v);
        if (v) {
            l->segs = v;
            l->cap_segs *= 2;
        } else {
            rc = err_nomem(e, "the list of segments");
        }
    }
    if (rc == ERR_OK) l->segs[l->n_segs++] = first;
    pthread_mutex_unlock(&l->read_mu);
    pthread_mutex_lock(&l->mu);
    if (rc == ERR_OK) l->segment_bytes += len;
    pthread_mutex_unlock(&l->mu);
    return rc;
}

/* Zero what failed groups left behind the end of the tail segment. */
static int clear_tail(ledger *l, bool *sync_failed) {
    uint8_t zero[8 * SECTOR] = {0};
    int r = 0;
    if (!l->tail_dirty) return 0;
    for (uint64_t off = l->tail.off; r == 0 && off < l->tail.len; off += sizeof zero) {
        uint64_t n = l->tail.len - off;
        r = l->fs->pwrite(l->fs, l->tail.f, zero, n < sizeof zero ? (size_t)n : sizeof zero, off);
    }
    if (r != 0) return r;
    r = l->fs->sync(l->fs, l->tail.f);
    if (r != 0) *sync_failed = true;
    l->tail_dirty = r != 0;
    return r;
}

/* A new segment where the frame does not fit into the tail. */
static err_code next_segment(ledger *l, uint64_t room, bool *sync_failed, err *e) {
    tail *t = &l->tail;
    if (room <= t->len - t->off) return ERR_OK;
    int r = clear_tail(l, sync_failed);
    if (r != 0) return fs_error(r, e, "%s/ledger/seg: the last segment cannot be finished", l->dir);
    /* the header that is written next says what the tree was: from then on the tree file is not mended from the
     * segments before it */
    r = l->fs->sync(l->fs, l->tree);
    if (r != 0) {
        *sync_failed = true;
        return fs_error(r, e, "%s/ledger/tree: cannot be synced", l->dir);
    }
    seg_header h = {.edge = t->edge, .note_len = t->note_len};
    memcpy(h.note, t->note, t->note_len);
    uint64_t len = l->segment_len;
    if (len < SEG_HEADER_LEN + room) len = SEG_HEADER_LEN + room;
    vfile *f = NULL;
    err_code rc = segment_create(l->fs, l->dir, l->log_id, &h, len, &f, sync_failed, e);
    if (rc != ERR_OK) return rc;
    rc = remember_segment(l, t->edge.size, len, e);
    if (rc != ERR_OK) { /* it is there now and must be used: only opening anew finds it */
        *sync_failed = true;
        l->fs->close(l->fs, f);
        return rc;
    }
    /* Full segments are read seldom and late. Their memory is what the next one takes: on a machine whose host hands
     * pages out as they are first touched, fresh ones cost more than all the writing (docs/results/perimeter.md). */
    l->fs->let_go(l->fs, t->f);
    l->fs->close(l->fs, t->f);
    t->f = f;
    t->first = t->edge.size;
    t->off = SEG_HEADER_LEN;
    t->len = len;
    t->last_room = 0;
    return ERR_OK;
}

static err_code write_keys(ledger *l, group *g, bool *sync_failed, err *e) {
    int r = 0;
    if (l->keys_dirty) {
        r = vault_trim(&l->vault, l->tail.edge.size);
        if (r != 0) return fs_error(r, e, "%s/ledger/keys: cannot be written", l->dir);
        l->keys_dirty = false;
    }
    if (!g->has_contents) return ERR_OK;
    const uint8_t **keys = mem_array(g->n, sizeof *keys);
    if (!keys) return err_nomem(e, "content keys");
    uint32_t i = 0;
    bool due = false;
    for (waiter *w = g->first; w; w = w->next) {
        keys[i++] = w->sealed ? w->key : NULL;
        if (!w->sealed) continue;
        l->vault.since++;
        due = due || !vault_comes_back(&l->vault, w->seed_no);
    }
    l->keys_dirty = true; /* until the frame is there too */
    r = vault_write(&l->vault, l->tail.edge.size, g->n, keys);
    mem_free(keys);
    if (r != 0) return fs_error(r, e, "%s/ledger/keys: cannot be written", l->dir);
    r = due ? l->fs->sync(l->fs, l->vault.f) : 0;
    if (r != 0) {
        *sync_failed = true;
        return fs_error(r, e, "%s/ledger/keys: cannot be synced", l->dir);
    }
    return ERR_OK;
}

/* Hide a frame whose sync failed from readers who look at the system's memory. Nobody was told of it. */
static void hide_frame(ledger *l) {
    static const uint8_t zero[SECTOR];
    l->tail_dirty = true;
    l->fs->pwrite(l->fs, l->tail.f, zero, sizeof zero, l->tail.off);
}

static err_code write_group(ledger *l, group *g, bool *sync_failed, err *e) {
    err_code rc = next_segment(l, g->bytes.len, sync_failed, e);
    if (rc == ERR_OK) rc = write_keys(l, g, sync_failed, e);
    if (rc != ERR_OK) return rc;
    /* before the frame, so that whoever sees the frame finds its hashes */
    int r = l->fs->pwrite(l->fs, l->tree, g->stored.ptr, g->stored.len, stored_count(l->tail.edge.size) * HASH_LEN);
    if (r != 0) return fs_error(r, e, "%s/ledger/tree: cannot be written", l->dir);
    r = l->fs->pwrite(l->fs, l->tail.f, g->bytes.ptr, g->bytes.len, l->tail.off);
    if (r == 0) {
        r = l->fs->sync(l->fs, l->tail.f);
        if (r != 0) *sync_failed = true;
    }
    if (r != 0) {
        hide_frame(l);
        return fs_error(r, e, "%s/ledger/seg: record %llu cannot be written", l->dir,
                        (unsigned long long)l->tail.edge.size);
    }
    return ERR_OK;
}

static void advance(ledger *l, const group *g) {
    tail *t = &l->tail;
    t->last_off = t->off;
    t->last_room = g->bytes.len;
    t->off += g->bytes.len;
    t->edge = g->edge;
    memcpy(t->note, g->note, g->note_len);
    t->note_len = g->note_len;
    if (g->has_contents) l->keys_dirty = false;
}

static err_code commit_group(ledger *l, group *g, err *e) {
    bool sync_failed = false;
    err_code rc = group_hash(l, g, e);
    if (rc == ERR_OK) rc = group_frame(l, g, e);
    if (rc == ERR_OK) rc = write_group(l, g, &sync_failed, e);
    if (rc == ERR_OK) {
        advance(l, g);
    } else {
        if (sync_failed) poison(l, e);
        err_prefix(e, "ledger: not written");
        e->code = ERR_UNAVAILABLE;
    }
    buf_free(&g->stored);
    if (!g->bytes.ptr) return ERR_UNAVAILABLE; /* it did not come to writing: l->frame is where it was */
    if (g->bytes.cap <= FRAME_KEPT) {
        l->frame = g->bytes;
        l->frame.failed = l->frame.over_max = false;
    } else {
        buf_free(&g->bytes);
    }
    return rc == ERR_OK ? ERR_OK : ERR_UNAVAILABLE;
}

/* ---- the thread ------------------------------------------------------------------------------------------ */

/* Under mu: take a group from the head of the queue. */
static void take_group(ledger *l, group *g) {
    waiter *last = NULL;
    memset(g, 0, sizeof *g);
    g->first = l->head;
    for (waiter *w = l->head; w; w = w->next) {
        size_t bytes = g->entries_len + g->contents_len + w->entry_len + w->sealed_len;
        bool full = g->n >= l->group_max || (g->n && bytes > GROUP_BYTES_MAX);
        if (full && !w->linked) break;
        g->n++;
        g->entries_len += 2 + w->entry_len;
        g->contents_len += w->sealed_len;
        g->has_contents = g->has_contents || w->sealed;
        l->queued--;
        l->queued_bytes -= w->entry_len + w->sealed_len;
        last = w;
    }
    if (last) { /* always: the caller has seen that the queue is not empty */
        l->head = last->next;
        last->next = NULL;
    }
    if (!l->head) l->tail_link = &l->head;
    l->word = (l->word + 1) % WAKE_WORDS;
    set_queue(l);
}

/* Under mu: what the group's outcome means for everybody. */
static void record_outcome(ledger *l, const group *g, err_code rc, double ms) {
    if (rc == ERR_OK) {
        memcpy(l->note, l->tail.note, l->tail.note_len);
        l->note_len = l->tail.note_len;
        atomic_store(&l->size, l->tail.edge.size);
        l->groups++;
        l->last_commit_ms = ms;
        l->commit_ms_sum += ms;
    } else {
        count_failed(l, g->n);
    }
    l->refused_ns = rc == ERR_OK ? 0 : time_mono_ns();
    set_metrics(l, rc == ERR_OK ? ms : -1);
}

/* Tell everyone in the group. Without the lock: hundreds of threads that wake would queue up for it. A waiter is gone
 * as soon as it is told, the words stay. Those of one group nearly always share one; where a group was full, those who
 * were left over have the word of those before them, and wake once for nothing. */
static void tell_group(group *g, err_code rc, const err *why) {
    wake_word *last = NULL;
    for (waiter *w = g->first, *next; w; w = next) {
        wake_word *word = w->word;
        next = w->next;
        w->rc = rc;
        if (w->silent) continue;
        if (rc != ERR_OK && w->why) *w->why = *why;
        if (last && word != last) wake_all(last);
        last = word;
        atomic_store(&w->told, true);
    }
    if (last) wake_all(last);
}

/* Under mu, which is let go meanwhile. */
static void gather(ledger *l) {
    struct timespec t = {.tv_nsec = GATHER_NS};
    pthread_mutex_unlock(&l->mu);
    (void)nanosleep(&t, NULL);
    pthread_mutex_lock(&l->mu);
}

static void *commit_main(void *arg) {
    ledger *l = arg;
    uint32_t n_last = 0;
    pthread_mutex_lock(&l->mu);
    while (l->head || !l->stopping) {
        if (!l->head) {
            bool publish_later = l->published_size != l->tail.edge.size && !l->failed;
            if (!publish_later)
                pthread_cond_wait(&l->work, &l->mu);
            else if (!cond_wait_ms(&l->work, &l->mu, PUBLISH_INTERVAL_MS)) {
                pthread_mutex_unlock(&l->mu);
                publish_if_due(l);
                pthread_mutex_lock(&l->mu);
            }
            continue;
        }
        group g;
        err why = {0};
        if (n_last >= GATHER_FROM && l->queued < l->group_max && !l->stopping) gather(l);
        take_group(l, &g);
        n_last = g.n;
        err_code rc = l->failed ? failed_error(l, &why) : ERR_OK;
        pthread_mutex_unlock(&l->mu);
        uint64_t t0 = time_mono_ns();
        if (rc == ERR_OK) rc = commit_group(l, &g, &why);
        if (rc == ERR_OK) renew_seed_if_due(l);
        double ms = (double)(time_mono_ns() - t0) / 1e6;
        pthread_mutex_lock(&l->mu);
        bool failed = l->failed;
        record_outcome(l, &g, rc, ms);
        pthread_mutex_unlock(&l->mu);
        tell_group(&g, rc, &why);
        if (!failed) publish_if_due(l);
        pthread_mutex_lock(&l->mu);
    }
    pthread_mutex_unlock(&l->mu);
    return NULL;
}

err_code commit_start(ledger *l, err *e) {
    char path[LEDGER_PATH_MAX];
    err_code rc = ledger_path(l, path, "ledger/clean", e);
    if (rc != ERR_OK) return rc;
    find_metrics(l);
    if (l->published_size != l->tail.edge.size) rc = publish(l, e);
    if (rc != ERR_OK) return rc;
    /* Without a sync: where the mark comes back after a crash, its size is not that of the log, or nothing was lost. */
    int r = l->fs->unlink(l->fs, path);
    if (r != 0 && r != -ENOENT) return fs_error(r, e, "%s: cannot be removed", path);
    r = pthread_create(&l->thread, NULL, commit_main, l);
    if (r != 0) return fs_error(-r, e, "ledger: its thread cannot be started");
    l->has_thread = true;
    set_metrics(l, -1);
    return ERR_OK;
}

/* A clean ledger has one form: nothing of failed groups is left behind its ends. */
static int clear_leftovers(ledger *l, bool *sync_failed) {
    int r = clear_tail(l, sync_failed);
    if (r == 0 && l->keys_dirty) {
        r = vault_trim(&l->vault, l->tail.edge.size);
    }
    if (r == 0) r = vault_end_seeds(&l->vault, l->tail.edge.size, sync_failed);
    if (r == 0) r = l->fs->truncate(l->fs, l->tree, stored_count(l->tail.edge.size) * HASH_LEN);
    if (r == 0) r = l->fs->sync(l->fs, l->tree);
    return r;
}

static void mark_clean(ledger *l) {
    err e = {0};
    bool sync_failed = false;
    err_code rc = ERR_OK;
    if (l->published_size != l->tail.edge.size) rc = publish(l, &e);
    if (rc == ERR_OK) {
        int r = clear_leftovers(l, &sync_failed);
        if (r != 0) rc = fs_error(r, &e, "%s/ledger", l->dir);
    }
    if (rc == ERR_OK)
        rc = fs_replace(l->fs, l->dir, "ledger", "clean", l->tail.note, l->tail.note_len, &sync_failed, &e);
    if (rc != ERR_OK) log_msg(LOG_WARN, "ledger", "could not be closed cleanly, nothing is lost: %s", e.msg);
}

void commit_stop(ledger *l) {
    if (!l->has_thread) return;
    pthread_mutex_lock(&l->mu);
    l->stopping = true;
    pthread_cond_signal(&l->work);
    pthread_mutex_unlock(&l->mu);
    pthread_join(l->thread, NULL);
    l->has_thread = false;
    if (!l->failed) mark_clean(l);
    mem_wipe(&l->signer, sizeof l->signer);
}

/* ---- append ---------------------------------------------------------------------------------------------- */

/* Queues what begins at `first` and ends at `last`, and waits. */
static err_code wait_durable(ledger *l, waiter *first, waiter *last, err *e) {
    size_t bytes = 0, n = 0;
    for (waiter *w = first; w; w = w->next, n++) bytes += w->entry_len + w->sealed_len;
    pthread_mutex_lock(&l->mu);
    err_code rc = ERR_OK;
    if (l->failed)
        rc = failed_error(l, e);
    else if (l->stopping)
        rc = err_set(e, ERR_UNAVAILABLE, "ledger: is being closed");
    else if (l->queued >= QUEUE_MAX || l->queued_bytes + bytes > QUEUE_BYTES_MAX)
        rc = err_set(e, ERR_UNAVAILABLE, "ledger: its queue is full; the disk does not keep up");
    if (rc != ERR_OK) {
        count_failed(l, n);
        pthread_mutex_unlock(&l->mu);
        return rc;
    }
    last->why = e;
    last->word = &l->words[l->word];
    *l->tail_link = first;
    l->tail_link = &last->next;
    l->queued += n;
    l->queued_bytes += bytes;
    set_queue(l);
    bool idle = l->head == first; /* otherwise the writer is awake already */
    pthread_mutex_unlock(&l->mu);
    if (idle) pthread_cond_signal(&l->work);
    for (;;) {
        uint32_t seen = wake_look(last->word);
        if (atomic_load(&last->told)) break;
        wake_wait(last->word, seen);
    }
    return last->rc;
}

/* Where the one number stands that is to become an index. */
static err_code find_link(waiter *w, const char *field, err *e) {
    char text[80];
    size_t len = strlen(field), n = 0;
    const uint8_t *end = w->entry + w->entry_len, *at = NULL, *more = NULL;
    if (len < sizeof text - 3 - U64_TEXT) {
        text[0] = '"';
        memcpy(text + 1, field, len);
        memcpy(text + 1 + len, "\":", 2);
        n = len + 3 + text_u64(text + len + 3, LEDGER_SEQ_PENDING);
        at = memmem(w->entry, w->entry_len, text, n);
    }
    if (at) more = memmem(at + n, (size_t)(end - at) - n, text, n);
    if (!at || more) return err_set(e, ERR_INVALID, "record: it does not name the record before it as \"%s\"", field);
    w->linked = true;
    w->link_at = (size_t)(at - w->entry) + n - LINK_DIGITS;
    return ERR_OK;
}

static err_code make_waiter(ledger *l, record *r, const char *field, buf *entry, waiter *w, err *e) {
    *w = (waiter){0};
    *entry = (buf){.max = LEDGER_ENTRY_MAX};
    (void)buf_reserve(entry, ENTRY_USUAL);
    err_code rc = record_bytes(r, entry, e);
    if (rc != ERR_OK) return rc;
    w->entry = (uint8_t *)entry->ptr;
    w->entry_len = entry->len;
    if (field) rc = find_link(w, field, e);
    if (rc == ERR_OK && r->contents.n) contents_take(&r->contents, &w->sealed, &w->sealed_len);
    /* whoever comes next takes this memory while it is in the processor's cache, and not only after this wait */
    record_use_up(r);
    if (rc == ERR_OK && !field) finish_waiter(l, w);
    return rc;
}

static void free_waiter(waiter *w, buf *entry) {
    if (w->linked && w->sealed) mem_wipe(w->sealed, w->sealed_len); /* it got no index, and so no seal */
    mem_wipe(w->key, sizeof w->key);
    mem_free(w->sealed);
    buf_free(entry);
}

static err_code refuse_reader(const ledger *l, err *e) {
    return l->read_only ? err_set(e, ERR_UNAVAILABLE, "ledger: is open for reading only") : ERR_OK;
}

err_code ledger_append(ledger *l, record *r, uint64_t *seq, err *e) {
    buf entry;
    waiter w;
    err_code rc = refuse_reader(l, e);
    if (rc != ERR_OK) return rc;
    rc = make_waiter(l, r, NULL, &entry, &w, e);
    if (rc == ERR_OK) rc = wait_durable(l, &w, &w, e);
    if (rc == ERR_OK && seq) *seq = w.seq;
    free_waiter(&w, &entry);
    return rc;
}

err_code ledger_append_pair(ledger *l, record *first, record *second, const char *field, uint64_t *seq, err *e) {
    buf entries[2];
    waiter w[2];
    err_code rc = refuse_reader(l, e);
    if (rc != ERR_OK) return rc;
    rc = make_waiter(l, first, NULL, &entries[0], &w[0], e);
    if (rc == ERR_OK) {
        rc = make_waiter(l, second, field, &entries[1], &w[1], e);
        w[0].next = &w[1];
        w[0].silent = true;
        if (rc == ERR_OK) rc = wait_durable(l, &w[0], &w[1], e);
        if (rc == ERR_OK && seq) *seq = w[0].seq;
        free_waiter(&w[1], &entries[1]);
    }
    free_waiter(&w[0], &entries[0]);
    return rc;
}
