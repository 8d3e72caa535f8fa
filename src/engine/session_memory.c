/* Pages by reference count, checkpoints of states. The invariants are at the top of session_internal.h. */
#include "engine/session_internal.h"

#include <string.h>

seq *session_seq_get(const session *s, int i) {
    return i >= 0 && (uint32_t)i < s->n_seq_max && s->seqs[i].used ? &s->seqs[i] : NULL;
}

/* ---- pages ------------------------------------------------------------------------------------------------ */

size_t session_pages_left(const session *s) {
    return s->n_free + (s->n_pages_max - s->n_made) + s->n_idle;
}

/* The least recently used node that nobody but the tree holds; all after it in its path are gone already. */
static prefix_node *oldest_idle(const session *s) {
    if (s->n_idle == 0) return NULL;
    for (prefix_node *n = s->tree.oldest; n; n = n->newer)
        if (s->all[n->page].refs == 1 && n->n_children == 0) return n;
    return NULL;
}

static bool add_page(session *s) {
    void *p = s->n_made < s->n_pages_max ? mem_alloc_aligned(session_page_bytes(s)) : NULL;
    if (!p) return false;
    s->all[s->n_made].mem = p;
    s->free_pages[s->n_free++] = (uint32_t)s->n_made++;
    return true;
}

bool session_page_make(session *s) {
    return s->n_free > 0 || add_page(s);
}

err_code session_pages_reserve(session *s, size_t n, err *e) {
    while (s->n_free < n) {
        if (add_page(s)) continue;
        prefix_node *old = oldest_idle(s);
        if (!old) return err_nomem(e, "a page of KV memory");
        session_node_drop(s, old);
    }
    return ERR_OK;
}

uint32_t session_page_take(session *s) {
    uint32_t page = s->free_pages[--s->n_free];
    s->all[page].refs = 1;
    return page;
}

void session_page_hold(session *s, uint32_t page) {
    kv_page *p = &s->all[page];
    if (p->kept && p->refs == 1) s->n_idle--;
    p->refs++;
}

void session_page_drop(session *s, uint32_t page) {
    kv_page *p = &s->all[page];
    p->refs--;
    if (p->refs == 0)
        s->free_pages[s->n_free++] = page;
    else if (p->kept && p->refs == 1)
        s->n_idle++;
}

void session_seq_push(session *s, seq *q, uint32_t page) {
    q->ids[q->n_pages] = page;
    q->pages[q->n_pages++] = s->all[page].mem;
}

void session_seq_pop(session *s, seq *q) {
    session_page_drop(s, q->ids[--q->n_pages]);
}

/* ---- nodes ------------------------------------------------------------------------------------------------ */

prefix_node *session_node_add(session *s, prefix_node *parent, const uint8_t *space, uint32_t page) {
    prefix_node *n = prefix_add(&s->tree, parent, space, session_tokens_of(s, page), page);
    if (!n) return NULL;
    session_page_hold(s, page);
    s->all[page].kept = true;
    return n;
}

void session_node_drop(session *s, prefix_node *n) {
    kv_page *p = &s->all[n->page];
    if (p->refs == 1) s->n_idle--;
    p->kept = false;
    session_page_drop(s, n->page);
    session_checkpoint_put(s, n->state);
    prefix_remove(&s->tree, n);
}

void session_keep_to_budget(session *s) {
    for (prefix_node *n; s->n_idle > s->n_keep && (n = oldest_idle(s));) session_node_drop(s, n);
}

/* ---- checkpoints ------------------------------------------------------------------------------------------ */

static checkpoint *take_oldest(session *s) {
    for (prefix_node *n = s->tree.oldest; n; n = n->newer) {
        if (!n->state) continue;
        checkpoint *c = n->state;
        n->state = NULL;
        return c;
    }
    return NULL;
}

checkpoint *session_checkpoint_get(session *s, bool take) {
    checkpoint *c = s->spare_checkpoints;
    if (c) {
        s->spare_checkpoints = c->next;
    } else if (s->n_checkpoints < s->n_checkpoints_max) {
        c = mem_alloc_aligned(CHECKPOINT_HEAD + session_state_bytes(s));
        if (c) s->n_checkpoints++;
    }
    return !c && take ? take_oldest(s) : c;
}

void session_checkpoint_put(session *s, checkpoint *c) {
    if (!c) return;
    c->next = s->spare_checkpoints;
    s->spare_checkpoints = c;
}

void session_checkpoints_cut(session *s, seq *q, uint32_t len) {
    while (q->since && q->since->pos > len) {
        checkpoint *c = q->since;
        q->since = c->next;
        session_checkpoint_put(s, c);
    }
}

void session_checkpoint_due(session *s, seq *q) {
    if (!s->checkpoint_every || q->len % VEC_TILE) return;
    if (q->len % s->checkpoint_every && q->len != q->last_page) return;
    checkpoint *c = session_checkpoint_get(s, true);
    if (!c) return;
    c->pos = q->len;
    memcpy(checkpoint_state(c), q->state, session_state_bytes(s));
    c->next = q->since;
    q->since = c;
}

/* ---- the end ---------------------------------------------------------------------------------------------- */

uint64_t session_kept_bytes(const session *s) {
    return (s->n_checkpoints + s->n_marks) * (uint64_t)(CHECKPOINT_HEAD + session_state_bytes(s)) +
           s->tree.n * sizeof(prefix_node) + s->tree.n_buckets * sizeof(prefix_node *);
}

static void free_checkpoints(checkpoint *c) {
    for (checkpoint *next; c; c = next) {
        next = c->next;
        mem_free_aligned(c);
    }
}

void session_memory_free(session *s) {
    for (prefix_node *n = s->tree.newest; n; n = n->older) mem_free_aligned(n->state);
    prefix_free(&s->tree);
    free_checkpoints(s->spare_checkpoints);
    for (uint32_t i = 0; s->seqs && i < s->n_seq_max; i++) {
        free_checkpoints(s->seqs[i].since);
        mem_free_aligned(s->seqs[i].mark);
        mem_free_aligned(s->seqs[i].state);
    }
    for (size_t i = 0; i < s->n_made; i++) mem_free_aligned(s->all[i].mem);
    mem_free(s->all);
    mem_free(s->free_pages);
    mem_free(s->page_tokens);
    mem_free(s->page_table);
    mem_free(s->id_table);
    mem_free(s->seqs);
}
