/* Sequences that begin with what others computed; marks. engine.h says what callers may expect. */
#include "engine/session_internal.h"

#include <string.h>

/* ---- beginning -------------------------------------------------------------------------------------------- */

/* The last node of the longest kept prefix that a sequence of these n tokens can begin with. */
static prefix_node *longest(const session *s, const uint8_t *space, const int32_t *tokens, uint32_t n) {
    prefix_node *found = NULL;
    if (!s->n_keep || n == 0) return NULL;
    uint32_t most = (n < s->n_ctx ? n - 1 : s->n_ctx - 1) / VEC_TILE;
    for (uint32_t i = 0; i < most; i++) {
        prefix_node *next = prefix_find(&s->tree, found, space, tokens + (size_t)i * VEC_TILE);
        if (!next) break;
        found = next;
    }
    while (found && s->m->need.state && !found->state) found = found->parent;
    return found;
}

uint32_t session_kept_len(const session *s, const uint8_t space[32], const int32_t *tokens, uint32_t n) {
    const prefix_node *found = longest(s, space, tokens, n);
    return found ? (found->depth + 1) * VEC_TILE : 0;
}

err_code session_seq_new_with(session *s, int *seq_out, const uint8_t space[32], const int32_t *tokens, uint32_t n,
                              uint32_t *reused, err *e) {
    *reused = 0;
    err_code rc = session_seq_new(s, seq_out, e);
    if (rc != ERR_OK) return rc;
    seq *q = &s->seqs[*seq_out];
    q->last_page = n ? (n - 1) / VEC_TILE * VEC_TILE : 0;
    prefix_node *found = longest(s, space, tokens, n);
    if (!found) return ERR_OK;
    for (prefix_node *at = found; at; at = at->parent) { /* from the last page to the first */
        session_page_hold(s, at->page);
        q->ids[at->depth] = at->page;
        q->pages[at->depth] = s->all[at->page].mem;
    }
    q->n_pages = found->depth + 1;
    q->len = q->n_pages * VEC_TILE;
    if (q->state) memcpy(q->state, checkpoint_state(found->state), session_state_bytes(s));
    prefix_use(&s->tree, found);
    *reused = q->len;
    return ERR_OK;
}

/* ---- keeping ---------------------------------------------------------------------------------------------- */

/* Whole pages that are worth keeping: of a model with states up to its last checkpoint, for nothing can begin later. */
static uint32_t pages_worth(const session *s, const seq *q, uint32_t n) {
    uint32_t pages = (n < q->len ? n : q->len) / VEC_TILE;
    if (!s->m->need.state) return pages;
    const checkpoint *c = q->since;
    while (c && c->pos > pages * VEC_TILE) c = c->next;
    return c ? c->pos / VEC_TILE : 0;
}

/* The sequence's page i is that of the node from now on: the bits are the same, and one copy is enough. False where its
 * own belongs to another node, in another space: a sequence lets go of a path from its end only (invariant 3). */
static bool take_over(session *s, seq *q, uint32_t i, const prefix_node *n) {
    if (q->ids[i] == n->page) return true;
    if (s->all[q->ids[i]].kept) return false;
    session_page_hold(s, n->page);
    session_page_drop(s, q->ids[i]);
    q->ids[i] = n->page;
    q->pages[i] = s->all[n->page].mem;
    return true;
}

/* The sequence's checkpoint at `pos`, if it has one, goes to the node. */
static void give_checkpoint(session *s, seq *q, uint32_t pos, prefix_node *n) {
    checkpoint **at = &q->since;
    while (*at && (*at)->pos > pos) at = &(*at)->next;
    if (!*at || (*at)->pos != pos) return;
    checkpoint *c = *at;
    *at = c->next;
    if (n->state)
        session_checkpoint_put(s, c);
    else
        n->state = c;
}

void session_seq_keep(session *s, int i, const uint8_t space[32], const int32_t *tokens, uint32_t n) {
    seq *q = session_seq_get(s, i);
    if (!q || !s->n_keep) return;
    uint32_t pages = pages_worth(s, q, n);
    prefix_node *at = NULL;
    for (uint32_t p = 0; p < pages; p++) {
        const int32_t *own = session_tokens_of(s, q->ids[p]);
        /* A caller that names other tokens than it had computed would make all who share this answer wrongly. */
        if (memcmp(own, tokens + (size_t)p * VEC_TILE, VEC_TILE * sizeof *own) != 0) break;
        prefix_node *next = prefix_find(&s->tree, at, space, own);
        if (!next) next = s->all[q->ids[p]].kept ? NULL : session_node_add(s, at, space, q->ids[p]);
        if (!next || !take_over(s, q, p, next)) break;
        give_checkpoint(s, q, (p + 1) * VEC_TILE, next);
        at = next;
    }
    prefix_use(&s->tree, at);
    session_keep_to_budget(s);
}

uint32_t session_seq_cut(const session *s, int i, uint32_t n) {
    const seq *q = session_seq_get(s, i);
    if (!q || !s->checkpoint_every) return n;
    uint32_t due = s->checkpoint_every - q->len % s->checkpoint_every;
    if (q->last_page > q->len && q->last_page - q->len < due) due = q->last_page - q->len;
    return n < due ? n : due;
}

/* Nodes of a space from the ends of paths on: the least recently used first, until a round finds none. */
void session_kept_drop(session *s, const uint8_t *space) {
    for (bool again = true; again;) {
        again = false;
        for (prefix_node *n = s->tree.oldest, *next; n; n = next) {
            next = n->newer;
            if (n->n_children || (space && memcmp(n->space, space, PREFIX_SPACE) != 0)) continue;
            session_node_drop(s, n);
            again = true;
        }
    }
}

kept_facts session_kept_facts(const session *s) {
    return (kept_facts){.positions = (uint64_t)s->tree.n * VEC_TILE,
                        .idle = (uint64_t)s->n_idle * VEC_TILE,
                        .state_bytes = s->n_checkpoints * (uint64_t)session_state_bytes(s)};
}

/* ---- marks ------------------------------------------------------------------------------------------------ */

err_code session_seq_mark(session *s, int i, err *e) {
    seq *q = session_seq_get(s, i);
    if (!q) return err_set(e, ERR_INVALID, "session: sequence %d does not exist", i);
    size_t bytes = session_state_bytes(s);
    if (bytes && !q->mark) {
        q->mark = mem_alloc_aligned(CHECKPOINT_HEAD + bytes);
        if (!q->mark) return err_nomem(e, "a copy of a sequence's state");
        s->n_marks++;
    }
    if (bytes) memcpy(checkpoint_state(q->mark), q->state, bytes);
    q->mark_len = q->len;
    q->marked = true;
    return ERR_OK;
}

uint32_t session_seq_rollback(session *s, int i) {
    seq *q = session_seq_get(s, i);
    if (!q) return 0;
    if (!q->marked) return q->len;
    session_checkpoints_cut(s, q, q->mark_len);
    while (q->n_pages > session_pages_for(q->mark_len)) session_seq_pop(s, q);
    q->len = q->mark_len;
    if (q->state) memcpy(q->state, checkpoint_state(q->mark), session_state_bytes(s));
    session_keep_to_budget(s);
    return q->len;
}
