/* The parts that architectures put together. Each splits its work over rows or (sequence, head, rows); no sum crosses a
 * split, so the number of threads and the neighbours in a batch cannot show. */
#include "engine/models/models.h"

#include "engine/num.h"

#define ATT_ROWS     32   /* query heads that read a tile while it is in the nearest cache */
#define ALONE_FLOATS 8192 /* fewer elements than this: waking threads costs more than the work */

typedef struct rows_job {
    const step *st;
    const model *m;
    float *y;
    const float *x, *w;
    uint32_t n;
    float eps;
} rows_job;

static void rows_run(const step *st, uint32_t n_rows, pool_fn fn, rows_job *job) {
    if ((uint64_t)n_rows * job->n < ALONE_FLOATS || n_rows == 1)
        fn(job, 0, n_rows, 0);
    else
        pool_run(st->pool, n_rows, (n_rows + 15) / 16, fn, job);
}

static void embed_rows(void *ctx, size_t begin, size_t end, unsigned thread) {
    (void)thread;
    rows_job *j = ctx;
    for (size_t t = begin; t < end; t++) matrix_row(j->m->embd, (uint32_t)j->st->tokens[t], j->y + t * j->n);
}

void block_embed(const model *m, step *st) {
    rows_job j = {.st = st, .m = m, .y = st->x, .n = m->hp.d_model};
    rows_run(st, st->n_rows, embed_rows, &j);
}

static void norm_rows(void *ctx, size_t begin, size_t end, unsigned thread) {
    (void)thread;
    rows_job *j = ctx;
    for (size_t t = begin; t < end; t++) j->st->vec->rms_norm(j->y + t * j->n, j->x + t * j->n, j->w, j->n, j->eps);
}

void block_norm(const step *st, float *y, const float *x, const float *w, uint32_t n_rows, uint32_t n, float eps) {
    rows_job j = {.st = st, .y = y, .x = x, .w = w, .n = n, .eps = eps};
    rows_run(st, n_rows, norm_rows, &j);
}

static void bias_rows(void *ctx, size_t begin, size_t end, unsigned thread) {
    (void)thread;
    rows_job *j = ctx;
    for (size_t t = begin; t < end; t++) j->st->vec->add(j->y + t * j->n, j->w, j->n);
}

void block_bias(const step *st, float *y, const float *bias, uint32_t n_rows, uint32_t n) {
    if (!bias) return;
    rows_job j = {.st = st, .y = y, .w = bias, .n = n};
    rows_run(st, n_rows, bias_rows, &j);
}

static void add_rows(void *ctx, size_t begin, size_t end, unsigned thread) {
    (void)thread;
    rows_job *j = ctx;
    j->st->vec->add(j->y + begin * j->n, j->x + begin * j->n, (end - begin) * j->n);
}

void block_add(const step *st, float *x, const float *y, uint32_t n_rows, uint32_t n) {
    rows_job j = {.st = st, .y = x, .x = y, .n = n};
    rows_run(st, n_rows, add_rows, &j);
}

static void swiglu_rows(void *ctx, size_t begin, size_t end, unsigned thread) {
    (void)thread;
    rows_job *j = ctx;
    j->st->vec->swiglu(j->y + begin * j->n, j->x + begin * j->n, (end - begin) * j->n);
}

void block_swiglu(const step *st, float *gate, const float *up, uint32_t n_rows, uint32_t n) {
    rows_job j = {.st = st, .y = gate, .x = up, .n = n};
    rows_run(st, n_rows, swiglu_rows, &j);
}

void block_gather_out(const step *st, float *x, uint32_t n) {
    uint32_t to = 0;
    for (uint32_t i = 0; i < st->n_spans; i++) {
        const span *sp = &st->spans[i];
        uint32_t from = sp->row + sp->n - sp->n_out;
        if (from != to && sp->n_out)
            memmove(x + (size_t)to * n, x + (size_t)from * n, (size_t)sp->n_out * n * sizeof *x);
        to += sp->n_out;
    }
}

/* ---- attention -------------------------------------------------------------------------------------------- */

typedef struct att_job {
    const model *m;
    const step *st;
    uint32_t layer;
    bool last;
} att_job;

static float *tile_of(const hparams *h, float *page, uint32_t layer, uint32_t head_kv) {
    return page + ((size_t)layer * h->n_head_kv + head_kv) * kv_head_floats(h);
}

/* One item is one (span, key/value head): its query heads and its own are rotated, then k and v go to the pages. */
static void store_items(void *ctx, size_t begin, size_t end, unsigned thread) {
    (void)thread;
    const att_job *j = ctx;
    const step *st = j->st;
    const hparams *h = &j->m->hp;
    uint32_t group = h->n_head / h->n_head_kv;
    for (size_t item = begin; item < end; item++) {
        const span *sp = &st->spans[item / h->n_head_kv];
        uint32_t hk = (uint32_t)(item % h->n_head_kv);
        for (uint32_t i = 0; i < sp->n; i++) {
            size_t row = sp->row + i;
            const float *cc = st->cc + row * h->n_rot, *ss = st->ss + row * h->n_rot;
            float *q = st->q + (row * h->n_head + (size_t)hk * group) * h->head_k;
            float *k = st->k + (row * h->n_head_kv + hk) * h->head_k;
            const float *v = st->v + (row * h->n_head_kv + hk) * h->head_v;
            for (uint32_t a = 0; a < group; a++) st->vec->rope_pairs(q + (size_t)a * h->head_k, cc, ss, h->n_rot);
            st->vec->rope_pairs(k, cc, ss, h->n_rot);
            uint32_t pos = sp->pos + i, at = pos % VEC_TILE;
            float *kt = tile_of(h, sp->pages[pos / VEC_TILE], j->layer, hk);
            float *vt = kt + (size_t)VEC_TILE * h->head_k;
            for (uint32_t d = 0; d < h->head_k; d++) kt[(size_t)d * VEC_TILE + at] = k[d];
            memcpy(vt + (size_t)at * h->head_v, v, h->head_v * sizeof *v);
        }
    }
}

void block_rope_store(const model *m, const step *st, uint32_t layer) {
    att_job j = {m, st, layer, false};
    size_t n = (size_t)st->n_spans * m->hp.n_head_kv;
    uint64_t floats = (uint64_t)st->n_rows * m->hp.n_head * m->hp.head_k;
    if (floats < ALONE_FLOATS)
        store_items(&j, 0, n, 0);
    else
        pool_run(st->pool, n, 1, store_items, &j);
}

/* Rows of one span and key/value head, numbered token by token and head by head: positions never fall, so the rows that
 * still see a page are the last ones. */
static void attend_rows(const att_job *j, const span *sp, uint32_t hk, uint32_t first, uint32_t n) {
    const step *st = j->st;
    const hparams *h = &j->m->hp;
    uint32_t group = h->n_head / h->n_head_kv, pos[ATT_ROWS];
    attn_row rows[ATT_ROWS];
    for (uint32_t i = 0; i < n; i++) {
        uint32_t token = (first + i) / group, head = hk * group + (first + i) % group;
        size_t row = sp->row + token;
        pos[i] = sp->pos + token;
        rows[i] = (attn_row){.q = st->q + (row * h->n_head + head) * h->head_k,
                             .acc = st->att + (row * h->n_head + head) * h->head_v,
                             .m = -INFINITY};
        memset(rows[i].acc, 0, h->head_v * sizeof(float));
    }
    for (uint32_t base = 0, from = 0; base <= pos[n - 1]; base += VEC_TILE) {
        while (pos[from] < base) from++;
        for (uint32_t i = from; i < n; i++) rows[i].n_valid = pos[i] - base < VEC_TILE ? pos[i] - base + 1 : VEC_TILE;
        uint32_t page = base / VEC_TILE;
        const float *tile = tile_of(h, sp->pages[page], j->layer, hk);
        const float *next = base + VEC_TILE <= pos[n - 1] ? tile_of(h, sp->pages[page + 1], j->layer, hk) : NULL;
        st->vec->attn_tile(rows + from, n - from, tile, next, h->head_k, h->head_v, h->attn_scale);
    }
    for (uint32_t i = 0; i < n; i++) st->vec->scale(rows[i].acc, 1.0f / rows[i].l, h->head_v);
}

/* Items of a span: key/value heads times blocks of rows. */
static uint32_t span_rows(const att_job *j, const span *sp) {
    return (j->last ? sp->n_out : sp->n) * (j->m->hp.n_head / j->m->hp.n_head_kv);
}

static size_t span_items(const att_job *j, const span *sp) {
    return (size_t)j->m->hp.n_head_kv * ((span_rows(j, sp) + ATT_ROWS - 1) / ATT_ROWS);
}

static void attend_items(void *ctx, size_t begin, size_t end, unsigned thread) {
    (void)thread;
    const att_job *j = ctx;
    const hparams *h = &j->m->hp;
    size_t base = 0;
    for (uint32_t s = 0; s < j->st->n_spans && base < end; s++) {
        const span *sp = &j->st->spans[s];
        size_t items = span_items(j, sp);
        uint32_t group = h->n_head / h->n_head_kv, total = sp->n * group, skip = total - span_rows(j, sp);
        for (size_t i = begin > base ? begin - base : 0; i < items && base + i < end; i++) {
            /* the longest blocks first: threads then finish together */
            size_t block = items / h->n_head_kv - 1 - i / h->n_head_kv;
            uint32_t first = skip + (uint32_t)block * ATT_ROWS;
            attend_rows(j, sp, (uint32_t)(i % h->n_head_kv), first,
                        total - first < ATT_ROWS ? total - first : ATT_ROWS);
        }
        base += items;
    }
}

void block_attention(const model *m, const step *st, uint32_t layer, bool last) {
    att_job j = {m, st, layer, last};
    size_t n = 0;
    uint64_t work = 0;
    for (uint32_t s = 0; s < st->n_spans; s++) {
        const span *sp = &st->spans[s];
        n += span_items(&j, sp);
        work += (uint64_t)span_rows(&j, sp) * (sp->pos + sp->n);
    }
    if (work * (m->hp.head_k + m->hp.head_v) * m->hp.n_head_kv < 16 * ALONE_FLOATS)
        attend_items(&j, 0, n, 0);
    else
        pool_run(st->pool, n, 1, attend_items, &j);
}
