/* Life of a session, its sequences, and the step.
 *
 * session_step first checks and reserves everything (plan), then changes sequences (commit), then computes. After plan
 * nothing can fail, so an error leaves every sequence as it was; only idle pages may have been given up. A decode step
 * allocates at most when a sequence crosses into a page that the session never had before, or a checkpoint is due.
 * Scratch is sized by max_step_tokens at session_new; the logits buffer alone may grow, in plan.
 */
#include "engine/session_internal.h"

#include "base/sys.h"

#include <inttypes.h>
#include <string.h>

#define SEQ_MAX           65536
#define STEP_TOKENS_MAX   65536
#define THREADS_MAX       1024
#define STEP_TOKENS_USUAL 512
#define SCRATCH_LARGE     ((size_t)16 << 20) /* from here on the size of its pages matters */
#define ROWS_LARGE        32                 /* a step with so many goes through most of it */
#define STEPS_SMALL       256                /* without such a step, and its memory goes back */

/* ---- life ------------------------------------------------------------------------------------------------- */

/* What may be kept. One sequence of the full context takes half of the checkpoints, so that there are some for others.
 */
static void read_budget(session *s, const session_options *o, uint64_t per_seq) {
    if (s->m->hp.encoder) return; /* each sequence comes whole, in one step */
    size_t keep = o->keep_positions / VEC_TILE;
    s->n_keep = keep < s->n_pages_max ? keep : s->n_pages_max;
    if (!s->m->need.state) return;
    s->n_checkpoints_max = (size_t)(o->keep_state_bytes / (CHECKPOINT_HEAD + session_state_bytes(s)));
    if (s->n_checkpoints_max == 0) s->n_keep = 0;
    if (s->n_keep == 0) return;
    uint64_t mine = s->n_checkpoints_max > 1 ? s->n_checkpoints_max / 2 : 1;
    s->checkpoint_every = (uint32_t)((per_seq + mine - 1) / mine) * VEC_TILE;
}

static err_code read_options(session *s, const session_options *o, unsigned *n_threads, err *e) {
    uint32_t trained = s->m->hp.n_ctx_train;
    s->n_seq_max = o->n_seq_max;
    s->n_ctx = o->n_ctx ? o->n_ctx : trained;
    s->max_rows = o->max_step_tokens ? o->max_step_tokens : STEP_TOKENS_USUAL;
    *n_threads = o->n_threads ? o->n_threads : sys_cpu_count();
    if (s->n_seq_max < 1 || s->n_seq_max > SEQ_MAX)
        return err_set(e, ERR_INVALID, "session: %u sequences at once; it must be 1 to %d", s->n_seq_max, SEQ_MAX);
    if (s->n_ctx > trained)
        return err_set(e, ERR_INVALID, "session: a context of %u positions; the model was made for %u", s->n_ctx,
                       trained);
    if (s->max_rows > STEP_TOKENS_MAX)
        return err_set(e, ERR_INVALID, "session: %u tokens a step; at most %d", s->max_rows, STEP_TOKENS_MAX);
    if ((unsigned)o->kv >= KV_FORMATS)
        return err_set(e, ERR_INVALID, "session: KV format %d is none that there is", (int)o->kv);
    if (*n_threads > THREADS_MAX)
        return err_set(e, ERR_INVALID, "session: %u threads; at most %d", *n_threads, THREADS_MAX);
    uint64_t per_seq = ((uint64_t)s->n_ctx + VEC_TILE - 1) / VEC_TILE;
    uint64_t pages = o->kv_positions ? ((uint64_t)o->kv_positions + VEC_TILE - 1) / VEC_TILE : per_seq * s->n_seq_max;
    if (pages > per_seq * s->n_seq_max) pages = per_seq * s->n_seq_max; /* more could not be used */
    if (per_seq * s->n_seq_max > (1u << 28))
        return err_set(e, ERR_INVALID, "session: %u sequences of %u positions are too many", s->n_seq_max, s->n_ctx);
    s->n_pages_max = (size_t)pages;
    read_budget(s, o, per_seq);
    return ERR_OK;
}

/* Cuts the scratch into the buffers of step; with base NULL only counts floats. */
static uint64_t lay_out(session *s, float *base) {
    const model *m = s->m;
    const needs *d = &m->need;
    const uint64_t rows = s->max_rows, pairs = rows * d->n_used, width = m->hp.d_model;
    step *st = &s->st;
    struct {
        void *to; /* of a pointer */
        uint64_t rows, cols;
    } const parts[] = {
        {&st->rope[0].cc, rows, m->rope[0].n_rot},
        {&st->rope[0].ss, rows, m->rope[0].n_rot},
        {&st->rope[1].cc, rows, m->rope[1].n_rot},
        {&st->rope[1].ss, rows, m->rope[1].n_rot},
        {&st->x, rows, width},
        {&st->xn, rows, width},
        {&st->q, rows, d->q},
        {&st->k, rows, d->k},
        {&st->v, rows, d->v},
        {&st->att, rows, d->att},
        {&st->gate, rows, d->ff},
        {&st->up, rows, d->ff},
        {&st->aux[0], rows, d->aux[0]},
        {&st->aux[1], rows, d->aux[1]},
        {&st->aux[2], rows, d->aux[2]},
        {&st->aux[3], rows, d->aux[3]},
        {&st->aux[4], rows, d->aux[4]},
        {&st->aux[5], rows, d->aux[5]},
        {&st->router, rows, d->n_expert},
        {&st->picks, pairs, 1},
        {&st->pick_weights, pairs, 1},
        {&st->pairs, pairs, 1},
        {&st->pair_x, pairs, width},
        {&st->pair_gate, pairs, d->expert_width},
        {&st->pair_up, pairs, d->expert_width},
        {&st->ops, d->ops, sizeof(matmul) / sizeof(float)},
    };
    _Static_assert(MODEL_AUX == 6 && MODEL_ROPES == 2, "the list above names each");
    _Static_assert(sizeof(matmul) % sizeof(float) == 0, "a list of them is counted in floats");
    uint64_t at = 0;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        float *p = base ? base + at : NULL;
        if (base) memcpy(parts[i].to, &p, sizeof p);
        at += (parts[i].rows * parts[i].cols + 15) / 16 * 16; /* each starts at a cache line */
    }
    return at;
}

static err_code take_memory(session *s, err *e) {
    size_t per_seq = ((size_t)s->n_ctx + VEC_TILE - 1) / VEC_TILE;
    uint64_t floats = lay_out(s, NULL);
    s->logits_cap = s->n_seq_max < s->max_rows ? s->n_seq_max : s->max_rows;
    uint64_t logits = (uint64_t)s->logits_cap * s->width;
    if (floats > SIZE_MAX / 8 || logits > SIZE_MAX / 8) return err_nomem(e, "a session's scratch");
    s->seqs = mem_array(s->n_seq_max, sizeof *s->seqs);
    s->page_table = mem_array(per_seq * s->n_seq_max, sizeof(void *));
    s->id_table = mem_array(per_seq * s->n_seq_max, sizeof *s->id_table);
    s->all = mem_array(s->n_pages_max, sizeof *s->all);
    s->free_pages = mem_array(s->n_pages_max, sizeof *s->free_pages);
    s->page_tokens = s->n_keep ? mem_array(s->n_pages_max, VEC_TILE * sizeof *s->page_tokens) : NULL;
    s->tokens = mem_array(s->max_rows, sizeof *s->tokens);
    s->spans = mem_array(s->n_seq_max, sizeof *s->spans);
    s->scratch = mem_alloc_aligned((size_t)floats * sizeof(float));
    s->logits = mem_alloc_aligned((size_t)logits * sizeof(float));
    if (!s->seqs || !s->page_table || !s->id_table || !s->all || !s->free_pages || (s->n_keep && !s->page_tokens) ||
        !s->tokens || !s->spans || !s->scratch || !s->logits)
        return err_nomem(e, "a session's scratch");
    for (uint32_t i = 0; i < s->n_seq_max; i++) {
        s->seqs[i].pages = s->page_table + per_seq * i;
        s->seqs[i].ids = s->id_table + per_seq * i;
    }
    lay_out(s, s->scratch);
    s->scratch_bytes = (size_t)floats * sizeof(float);
    if (s->scratch_bytes >= SCRATCH_LARGE) mem_drop_pages(s->scratch, s->scratch_bytes, false);
    uint64_t one_seq = sizeof *s->seqs + sizeof *s->spans + per_seq * (sizeof(void *) + sizeof *s->id_table),
             one_page = sizeof *s->all + sizeof *s->free_pages + (s->n_keep ? VEC_TILE * sizeof *s->page_tokens : 0);
    s->fixed_bytes =
        s->n_seq_max * one_seq + s->n_pages_max * one_page + s->max_rows * sizeof *s->tokens + floats * sizeof(float);
    return ERR_OK;
}

/* Room to spell out a tile of int8, for each thread. */
static err_code take_tiles(session *s, err *e) {
    if (s->st.kv != KV_Q8) return ERR_OK;
    uint64_t bytes = (uint64_t)pool_threads(s->pool) * s->m->need.tile * sizeof *s->st.tiles;
    s->st.tiles = mem_alloc_aligned((size_t)bytes);
    if (!s->st.tiles) return err_nomem(e, "a session's scratch");
    s->fixed_bytes += bytes;
    return ERR_OK;
}

err_code session_new(session **out, const model *m, const session_options *o, err *e) {
    *out = NULL;
    session *s = mem_zalloc(sizeof *s);
    if (!s) return err_nomem(e, "a session");
    s->m = m;
    prefix_init(&s->tree);
    unsigned n_threads = 0;
    s->st.hidden = o->hidden || m->hp.encoder;
    s->st.kv = o->kv;
    s->width = s->st.hidden ? m->hp.d_model : m->hp.n_vocab;
    err_code rc = read_options(s, o, &n_threads, e);
    if (rc == ERR_OK) rc = take_memory(s, e);
    if (rc == ERR_OK) rc = acts_new(&s->acts, s->max_rows, m->need.acts, e);
    if (rc == ERR_OK) rc = pool_new(&s->pool, n_threads, e);
    if (rc == ERR_OK) rc = take_tiles(s, e);
    if (rc != ERR_OK) {
        session_free(s);
        return rc;
    }
    s->st.pool = s->pool;
    s->st.vec = vec_get(isa_get());
    s->st.acts = s->acts;
    s->st.tokens = s->tokens;
    s->st.spans = s->spans;
    *out = s;
    return ERR_OK;
}

void session_free(session *s) {
    if (!s) return;
    pool_free(s->pool);
    acts_free(s->acts);
    session_memory_free(s);
    mem_free(s->tokens);
    mem_free(s->spans);
    mem_free_aligned(s->scratch);
    mem_free_aligned(s->st.tiles);
    mem_free_aligned(s->logits);
    mem_free(s);
}

uint64_t session_bytes(const session *s) {
    return s->fixed_bytes + s->n_made * session_page_bytes(s) + (uint64_t)s->logits_cap * s->width * sizeof(float) +
           s->n_states * session_state_bytes(s) + session_kept_bytes(s);
}

uint32_t session_n_ctx(const session *s) {
    return s->n_ctx;
}

uint32_t session_width(const session *s) {
    return s->width;
}

/* ---- sequences -------------------------------------------------------------------------------------------- */

/* A state of zeros for a sequence that begins. */
static err_code state_begin(session *s, seq *q, err *e) {
    size_t bytes = session_state_bytes(s);
    if (bytes && !q->state) {
        q->state = mem_alloc_aligned(bytes);
        if (!q->state) return err_nomem(e, "the state of a sequence");
        s->n_states++;
    }
    if (bytes) memset(q->state, 0, bytes);
    return ERR_OK;
}

err_code session_seq_new(session *s, int *seq_out, err *e) {
    for (uint32_t i = 0; i < s->n_seq_max; i++) {
        if (s->seqs[i].used) continue;
        err_code rc = state_begin(s, &s->seqs[i], e);
        if (rc != ERR_OK) return rc;
        s->seqs[i].used = true;
        s->seqs[i].len = s->seqs[i].last_page = 0;
        s->seqs[i].marked = false;
        *seq_out = (int)i;
        return ERR_OK;
    }
    return err_set(e, ERR_BUSY, "session: all %u sequences are in use; try again later", s->n_seq_max);
}

uint32_t session_seq_truncate(session *s, int i, uint32_t len) {
    seq *q = session_seq_get(s, i);
    if (!q) return 0;
    if (len >= q->len) return q->len;
    session_checkpoints_cut(s, q, len);
    if (q->state) { /* no state is the sum of others: only to where a copy was made */
        len = q->since ? q->since->pos : 0;
        if (q->since)
            memcpy(q->state, checkpoint_state(q->since), session_state_bytes(s));
        else
            memset(q->state, 0, session_state_bytes(s));
    }
    q->len = len;
    if (len < q->mark_len) q->marked = false;
    while (q->n_pages > session_pages_for(len)) session_seq_pop(s, q);
    session_keep_to_budget(s);
    return len;
}

void session_seq_free(session *s, int i) {
    seq *q = session_seq_get(s, i);
    if (!q) return;
    session_checkpoints_cut(s, q, 0);
    session_seq_truncate(s, i, 0);
    q->used = false;
}

uint32_t session_seq_len(const session *s, int i) {
    const seq *q = session_seq_get(s, i);
    return q ? q->len : 0;
}

uint32_t session_kv_free(const session *s) {
    uint64_t n = (uint64_t)session_pages_left(s) * VEC_TILE;
    return n > UINT32_MAX ? UINT32_MAX : (uint32_t)n;
}

/* ---- step ------------------------------------------------------------------------------------------------- */

static err_code check_tokens(const session *s, const chunk *c, err *e) {
    for (uint32_t i = 0; i < c->n; i++)
        if (c->tokens[i] < 0 || (uint32_t)c->tokens[i] >= s->m->hp.n_vocab)
            return err_set(e, ERR_INVALID, "token %" PRId32 " is not in the vocabulary of %u", c->tokens[i],
                           s->m->hp.n_vocab);
    return ERR_OK;
}

static err_code check_chunk(session *s, const chunk *c, err *e) {
    seq *q = session_seq_get(s, c->seq);
    if (!q) return err_set(e, ERR_INVALID, "step: sequence %d does not exist", c->seq);
    if (q->step == s->n_steps) return err_set(e, ERR_INVALID, "step: sequence %d is named twice", c->seq);
    q->step = s->n_steps;
    if (c->n == 0) return err_set(e, ERR_INVALID, "step: sequence %d brings no tokens", c->seq);
    if (s->m->hp.encoder && q->len)
        return err_set(e, ERR_INVALID, "step: sequence %d: an encoder takes a sequence whole, in one step", c->seq);
    if (c->n_logits > c->n)
        return err_set(e, ERR_INVALID, "step: sequence %d wants %u rows of logits for %u tokens", c->seq, c->n_logits,
                       c->n);
    if (c->n > s->n_ctx - q->len)
        return err_set(e, ERR_TOO_LONG, "the sequence would reach %" PRIu64 " tokens; the context has %u",
                       (uint64_t)q->len + c->n, s->n_ctx);
    return check_tokens(s, c, e);
}

static err_code grow_logits(session *s, uint32_t rows, err *e) {
    if (rows <= s->logits_cap) return ERR_OK;
    uint64_t n = (uint64_t)rows * s->width;
    float *p = n <= SIZE_MAX / 8 ? mem_alloc_aligned((size_t)n * sizeof *p) : NULL;
    if (!p) return err_nomem(e, "logits");
    mem_free_aligned(s->logits);
    s->logits = p;
    s->logits_cap = rows;
    return ERR_OK;
}

/* The sequence was cut inside a page that others read, too. */
static bool shares_last(const session *s, const seq *q) {
    return q->len % VEC_TILE && s->all[q->ids[q->n_pages - 1]].refs > 1;
}

/* All that can fail; marks and spare pages apart it leaves the session as it is. */
static err_code plan(session *s, const chunk *chunks, size_t n, err *e) {
    err_code rc;
    uint64_t rows = 0, outs = 0, pages = 0;
    s->n_steps++;
    if (n == 0) return err_set(e, ERR_INVALID, "step: there is nothing to do");
    for (size_t i = 0; i < n; i++) {
        if ((rc = check_chunk(s, &chunks[i], e)) != ERR_OK) return rc;
        const seq *q = &s->seqs[chunks[i].seq];
        rows += chunks[i].n;
        outs += chunks[i].n_logits;
        pages += session_pages_for((uint64_t)q->len + chunks[i].n) - q->n_pages + (shares_last(s, q) ? 1 : 0);
    }
    if (rows > s->max_rows)
        return err_set(e, ERR_INVALID, "step: %" PRIu64 " tokens; this session takes at most %u in one step", rows,
                       s->max_rows);
    if (pages > session_pages_left(s))
        return err_set(e, ERR_BUSY, "KV memory is full: %" PRIu64 " pages of %d positions are needed and %zu are free",
                       pages, VEC_TILE, session_pages_left(s));
    if ((rc = session_pages_reserve(s, (size_t)pages, e)) != ERR_OK) return rc;
    return grow_logits(s, (uint32_t)outs, e);
}

/* A copy of its own instead of a page that others read. */
static void part_last(session *s, seq *q) {
    uint32_t old = q->ids[q->n_pages - 1], own = session_page_take(s);
    memcpy(s->all[own].mem, s->all[old].mem, session_page_bytes(s));
    if (s->page_tokens) memcpy(session_tokens_of(s, own), session_tokens_of(s, old), VEC_TILE * sizeof *s->page_tokens);
    session_seq_pop(s, q);
    session_seq_push(s, q, own);
}

static void take_pages(session *s, seq *q, const chunk *c) {
    if (shares_last(s, q)) part_last(s, q);
    while (q->n_pages < session_pages_for((uint64_t)q->len + c->n)) session_seq_push(s, q, session_page_take(s));
    if (!s->page_tokens) return;
    for (uint32_t i = 0; i < c->n; i++) {
        uint32_t pos = q->len + i;
        session_tokens_of(s, q->ids[pos / VEC_TILE])[pos % VEC_TILE] = c->tokens[i];
    }
}

static void commit(session *s, const chunk *chunks, size_t n) {
    step *st = &s->st;
    st->n_rows = st->n_out = 0;
    st->n_spans = (uint32_t)n;
    st->out = s->logits;
    for (size_t i = 0; i < n; i++) {
        const chunk *c = &chunks[i];
        seq *q = &s->seqs[c->seq];
        take_pages(s, q, c);
        memcpy(s->tokens + st->n_rows, c->tokens, c->n * sizeof *c->tokens);
        s->spans[i] = (span){st->n_rows, c->n, q->len, q->pages, q->state, c->n_logits};
        q->len += c->n;
        st->n_rows += c->n;
        st->n_out += c->n_logits;
    }
    session_keep_to_budget(s);
}

/* Scratch is sized for the largest step. Steps of a few rows use a little of each buffer: with small pages the rest
 * takes no memory. Prompts use all of it, and are faster with large ones. */
static void set_scratch(session *s, bool large) {
    if (s->scratch_bytes < SCRATCH_LARGE || large == s->scratch_large) return;
    mem_drop_pages(s->scratch, s->scratch_bytes, large);
    s->scratch_large = large;
}

static void fit_scratch(session *s) {
    bool large = s->st.n_rows >= ROWS_LARGE;
    s->n_small = large ? 0 : s->n_small + 1;
    if (large || s->n_small >= STEPS_SMALL) set_scratch(s, large);
}

void session_rest(session *s) {
    set_scratch(s, false);
}

err_code session_step(session *s, chunk *chunks, size_t n_chunks, err *e) {
    err_code rc = model_wait(s->m, e); /* weights from a packed file are used when they are checked */
    if (rc == ERR_OK) rc = plan(s, chunks, n_chunks, e);
    if (rc != ERR_OK) return rc;
    commit(s, chunks, n_chunks);
    fit_scratch(s);
    s->m->arch->run(s->m, &s->st);
    const float *row = s->logits;
    for (size_t i = 0; i < n_chunks; i++) {
        chunks[i].logits = chunks[i].n_logits ? row : NULL;
        row += (size_t)chunks[i].n_logits * s->width;
        session_checkpoint_due(s, &s->seqs[chunks[i].seq]);
    }
    return ERR_OK;
}
