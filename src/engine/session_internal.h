/* Internal to engine: what a session is made of, shared by session*.c.
 *
 *   session.c         life, sequences, the step
 *   session_memory.c  pages by reference count, states and their checkpoints
 *   session_prefix.c  beginning with what others computed, marks
 *   session_kept.c    kept prefixes to bytes and back
 *
 * 1. A page of KV memory holds VEC_TILE positions, all layers. It is allocated when first needed and given back by
 *    session_free; in between it is free, or held by sequences and by at most one node of the tree (refs counts both).
 * 2. A sequence writes only to a page that nobody else holds: whole pages alone are shared, and where a sequence was
 * cut inside a shared one, the step copies it first.
 * 3. A sequence that holds the page of a node holds those of all nodes before it. So pages that the tree alone holds
 *    (idle) lie at the ends of paths, and all of them can be given up, one after the other.
 */
#ifndef POLDER_ENGINE_SESSION_INTERNAL_H
#define POLDER_ENGINE_SESSION_INTERNAL_H

#include "engine/models/models.h"
#include "engine/prefix.h"

_Static_assert(SESSION_PAGE == VEC_TILE, "engine.h names the size of a page");

typedef struct kv_page {
    void *mem;
    uint32_t refs;
    bool kept; /* one of the holders is a node of the tree */
} kv_page;

/* A copy of a state, after `pos` positions; the numbers follow at CHECKPOINT_HEAD bytes. */
typedef struct checkpoint {
    struct checkpoint *next;
    uint32_t pos;
} checkpoint;
#define CHECKPOINT_HEAD 64

typedef struct seq {
    bool used, marked;
    uint32_t len, n_pages;
    uint32_t mark_len, last_page; /* where the mark stands; the last page boundary before the end of the prompt */
    uint64_t step;                /* the last step that it took part in: finds a sequence that a step names twice */
    void **pages;                 /* (pages of n_ctx), a slice of session.page_table, */
    uint32_t *ids;                /* and which pages of the session these are */
    float *state;      /* (need.state), made with the first sequence in this place; NULL where models have none */
    checkpoint *mark;  /* made with the first mark in this place */
    checkpoint *since; /* its checkpoints, newest first, which no node has */
} seq;

struct session {
    const model *m;
    pool *pool;
    acts *acts;
    uint32_t n_seq_max, n_ctx, max_rows;
    uint32_t width; /* floats of a row that a step gives */
    uint32_t n_states;
    seq *seqs;
    void **page_table;
    uint32_t *id_table;
    kv_page *all;         /* (n_pages_max), the first n_made of them have memory */
    uint32_t *free_pages; /* (n_pages_max), n_free of them: made, held by nobody */
    int32_t *page_tokens; /* (n_pages_max, VEC_TILE) where anything is kept, otherwise NULL */
    size_t n_free, n_made, n_pages_max;
    size_t n_idle, n_keep; /* held by the tree alone, and how many of these are too many */
    prefix_tree tree;
    checkpoint *spare_checkpoints;
    size_t n_checkpoints, n_checkpoints_max, n_marks; /* made, of sequences and nodes; marks are counted apart */
    uint32_t checkpoint_every;                        /* positions; 0: there are no checkpoints */
    uint64_t n_steps, fixed_bytes;
    float *scratch; /* all of step's buffers but logits; nothing in it outlives a step */
    size_t scratch_bytes;
    bool scratch_large; /* it has 2 MiB pages */
    uint32_t n_small;   /* steps since then that did not need them */
    float *logits;
    uint32_t logits_cap; /* rows */
    int32_t *tokens;     /* (max_rows) */
    span *spans;         /* (n_seq_max) */
    step st;
};

static inline size_t session_page_bytes(const session *s) {
    return (size_t)s->m->need.page[s->st.kv];
}
static inline size_t session_state_bytes(const session *s) {
    return (size_t)s->m->need.state * sizeof(float);
}
static inline uint32_t session_pages_for(uint64_t len) {
    return (uint32_t)((len + VEC_TILE - 1) / VEC_TILE);
}
static inline float *checkpoint_state(checkpoint *c) {
    return (float *)((char *)c + CHECKPOINT_HEAD);
}
static inline int32_t *session_tokens_of(const session *s, uint32_t page) {
    return s->page_tokens + (size_t)page * VEC_TILE;
}

/* ---- session_memory.c ---- */

seq *session_seq_get(const session *s, int i); /* NULL where it does not exist */

/* Pages that can be had: free, not made yet, idle. */
size_t session_pages_left(const session *s);
/* Make n_free at least n: with new memory up to n_pages_max, then by giving up idle pages. n must not be more than
 * session_pages_left. */
err_code session_pages_reserve(session *s, size_t n, err *e);
bool session_page_make(session *s);     /* a free one is there; false: nothing can be had without giving up another */
uint32_t session_page_take(session *s); /* of the free ones, held once; there must be one */
void session_page_hold(session *s, uint32_t page);
void session_page_drop(session *s, uint32_t page);
/* Put a page at the end of a sequence, whose hold passes to it; take the last one off. */
void session_seq_push(session *s, seq *q, uint32_t page);
void session_seq_pop(session *s, seq *q);

/* A node of its own for a page; NULL where there is no memory. */
prefix_node *session_node_add(session *s, prefix_node *parent, const uint8_t *space, uint32_t page);
void session_node_drop(session *s, prefix_node *n); /* n has no children */
void session_keep_to_budget(session *s);            /* give up idle pages past n_keep, the least recently used first */

/* A checkpoint from the budget, or NULL; where all are in use and `take` is set, that of the least recently used node.
 */
checkpoint *session_checkpoint_get(session *s, bool take);
void session_checkpoint_put(session *s, checkpoint *c); /* NULL is fine */
/* Forget those of a sequence past len. */
void session_checkpoints_cut(session *s, seq *q, uint32_t len);
/* Make one where the sequence stands, if one is due there. */
void session_checkpoint_due(session *s, seq *q);

/* Memory of a session beyond its fixed part, logits, pages and states. */
uint64_t session_kept_bytes(const session *s);
void session_memory_free(session *s);

#endif
