/* Attention over paged keys and values. Work is split over (sequence, key/value head, block of query rows); a row's own
 * sums run over positions in order, tile by tile, whatever the split. */
#include "engine/models/models.h"

#include "engine/num.h"

#include <string.h>

#define ATT_ROWS     32   /* query heads that read a tile while it is in the nearest cache */
#define ALONE_FLOATS 8192 /* fewer elements than this: waking threads costs more than the work */

static size_t head_bytes(const model *m, const attn *a, kv_format kv) {
    if (kv == KV_Q8) return kv8_bytes(a->head_k, a->head_v);
    return (size_t)VEC_TILE * (a->head_k + a->head_v) * (m->hp.kv_half ? sizeof(uint16_t) : sizeof(float));
}

void attn_reserve(model *m, attn *a) {
    for (kv_format kv = 0; kv < KV_FORMATS; kv++) {
        a->kv_at[kv] = m->need.page[kv];
        m->need.page[kv] += head_bytes(m, a, kv) * a->n_head_kv;
    }
    need_at_least(&m->need.tile, (uint64_t)VEC_TILE * (a->head_k + a->head_v));
}

void *attn_tile_at(const model *m, const step *st, const attn *a, const span *sp, uint32_t page, uint32_t head_kv) {
    return (char *)sp->pages[page] + a->kv_at[st->kv] + head_kv * head_bytes(m, a, st->kv);
}

static void put_halves(const step *st, const attn *a, uint16_t *tile, uint32_t at, const float *k, const float *v) {
    uint16_t half[MODEL_HEAD_DIM_MAX];
    st->vec->to_half(half, k, a->head_k);
    for (uint32_t d = 0; d < a->head_k; d++) tile[(size_t)d * VEC_TILE + at] = half[d];
    st->vec->to_half(tile + (size_t)VEC_TILE * a->head_k + (size_t)at * a->head_v, v, a->head_v);
}

static void put_floats(const attn *a, float *tile, uint32_t at, const float *k, const float *v) {
    for (uint32_t d = 0; d < a->head_k; d++) tile[(size_t)d * VEC_TILE + at] = k[d];
    memcpy(tile + (size_t)VEC_TILE * a->head_k + (size_t)at * a->head_v, v, a->head_v * sizeof *v);
}

void kv_put(const model *m, const step *st, const attn *a, void *tile, uint32_t at, const float *k, const float *v) {
    if (st->kv == KV_Q8)
        kv8_put(tile, at, k, a->head_k, v, a->head_v);
    else if (m->hp.kv_half)
        put_halves(st, a, tile, at, k, v);
    else
        put_floats(a, tile, at, k, v);
}

/* ---- projection ------------------------------------------------------------------------------------------- */

void attn_project(const model *m, step *st, const attn *a) {
    uint32_t d = m->hp.d_model, nq = a->n_head * a->head_k, nk = a->n_head_kv * a->head_k,
             nv = a->n_head_kv * a->head_v;
    acts_set(st->acts, st->pool, st->xn, d, st->n_rows, d);
    const matmul ops[3] = {
        {.m = a->wq, .y = st->q, .ldy = nq}, {.m = a->wk, .y = st->k, .ldy = nk}, {.m = a->wv, .y = st->v, .ldy = nv}};
    matrix_mul(st->pool, ops, a->reads_only ? 1 : a->wv ? 3 : 2, st->acts);
    block_bias(st, st->q, a->bq, st->n_rows, nq);
    if (a->reads_only) return;
    block_bias(st, st->k, a->bk, st->n_rows, nk);
    if (!a->wv) memcpy(st->v, st->k, (size_t)st->n_rows * nk * sizeof(float));
    block_bias(st, st->v, a->bv, st->n_rows, nv);
}

/* ---- norms, rotation and storing -------------------------------------------------------------------------- */

typedef struct att_job {
    const model *m;
    const step *st;
    const attn *a;
    bool last;
    bool turns, stores; /* who attends: turns its queries first; stores its key/value head first */
} att_job;

static void *tile_of(const att_job *j, const span *sp, uint32_t page, uint32_t head_kv) {
    return attn_tile_at(j->m, j->st, j->a, sp, page, head_kv);
}

static float temperature(const attn *a, uint32_t pos) {
    uint32_t steps = (pos + a->temp_offset) / a->temp_every;
    return (float)(1 + (double)a->temp * num_log(1 + (double)steps));
}

static void norm_head(const att_job *j, float *x, const float *norm, uint32_t n) {
    if (norm) j->st->vec->rms_norm(x, x, norm, n, j->a->qk_eps);
}

static void turn_head(const att_job *j, float *x, const float *norm, size_t row) {
    const attn *a = j->a;
    if (!a->norm_after_rope) norm_head(j, x, norm, a->head_k);
    if (a->rope >= 0) rope_head(j->m, j->st, a->rope, row, x);
    if (a->norm_after_rope) norm_head(j, x, norm, a->head_k);
}

static void turn_query(const att_job *j, float *q, size_t row, uint32_t pos) {
    turn_head(j, q, j->a->q_norm, row);
    if (j->a->temp != 0) j->st->vec->scale(q, temperature(j->a, pos), j->a->head_k);
}

/* A span's key/value head: keys are rotated, then k and v go to the pages. */
static void store_head(const att_job *j, const span *sp, uint32_t hk) {
    const step *st = j->st;
    const attn *a = j->a;
    for (uint32_t i = 0; i < sp->n; i++) {
        size_t row = sp->row + i;
        uint32_t pos = sp->pos + i;
        float *k = st->k + (row * a->n_head_kv + hk) * a->head_k, *v = st->v + (row * a->n_head_kv + hk) * a->head_v;
        turn_head(j, k, a->k_norm, row);
        norm_head(j, v, a->v_norm, a->head_v);
        kv_put(j->m, st, a, tile_of(j, sp, pos / VEC_TILE, hk), pos % VEC_TILE, k, v);
    }
}

static void store_items(void *ctx, size_t begin, size_t end, unsigned thread) {
    (void)thread;
    const att_job *j = ctx;
    uint32_t n_kv = j->a->n_head_kv;
    for (size_t i = begin; i < end; i++) store_head(j, &j->st->spans[i / n_kv], (uint32_t)(i % n_kv));
}

static void store(att_job *j) {
    const step *st = j->st;
    const attn *a = j->a;
    size_t n = (size_t)st->n_spans * a->n_head_kv;
    if ((uint64_t)st->n_rows * a->n_head_kv * a->head_k < ALONE_FLOATS)
        store_items(j, 0, n, 0);
    else
        pool_run(st->pool, n, 1, store_items, j);
}

/* ---- attention -------------------------------------------------------------------------------------------- */

/* Positions [first, last] that a position sees. Neither falls as positions grow. */
typedef struct sight {
    uint32_t first, last;
} sight;

static sight sees(const att_job *j, const span *sp, uint32_t pos) {
    const attn *a = j->a;
    if (j->m->hp.encoder) return (sight){0, sp->pos + sp->n - 1};
    uint32_t first = 0;
    if (a->window && pos >= a->window) first = pos - a->window + 1;
    if (a->chunk) first = pos / a->chunk * a->chunk;
    return (sight){first, pos};
}

/* spelt: room for a tile, of this thread. All rows read what was spelt out once. */
static void attend_tile(const att_job *j, attn_row *rows, uint32_t n, const void *tile, const void *next,
                        const attn_shape *shape, uint16_t *spelt) {
    const vec_kernels *v = j->st->vec;
    if (j->st->kv == KV_Q8) {
        v->kv8_expand(spelt, tile, next, shape->dk, shape->dv);
        v->attn_tile(rows, n, spelt, NULL, shape);
    } else if (j->m->hp.kv_half) {
        v->attn_tile(rows, n, tile, next, shape);
    } else {
        (v->attn_tile_f32 ? v : &vec_scalar)->attn_tile_f32(rows, n, tile, next, shape);
    }
}

/* Rows of one span and key/value head, numbered token by token and head by head: what they see never falls, so the
 * rows that see a tile lie together. */
static void attend_rows(const att_job *j, const span *sp, uint32_t hk, uint32_t first, uint32_t n, uint16_t *spelt) {
    if (n == 0) return;
    const step *st = j->st;
    const attn *a = j->a;
    const attn_shape shape = {a->head_k, a->head_v, a->scale, a->cap};
    uint32_t group = a->n_head / a->n_head_kv;
    sight see[ATT_ROWS];
    attn_row rows[ATT_ROWS];
    for (uint32_t i = 0; i < n; i++) {
        uint32_t token = (first + i) / group, head = hk * group + (first + i) % group;
        size_t row = sp->row + token;
        if (j->turns) turn_query(j, st->q + (row * a->n_head + head) * a->head_k, row, sp->pos + token);
        see[i] = sees(j, sp, sp->pos + token);
        rows[i] = (attn_row){.q = st->q + (row * a->n_head + head) * a->head_k,
                             .acc = st->att + (row * a->n_head + head) * a->head_v,
                             .m = a->sinks ? a->sinks[head] : -INFINITY,
                             .l = a->sinks ? 1 : 0};
        memset(rows[i].acc, 0, a->head_v * sizeof(float));
    }
    uint32_t last = see[n - 1].last;
    const void *then = hk + 1 < a->n_head_kv ? tile_of(j, sp, see[0].first / VEC_TILE, hk + 1) : NULL; /* most likely */
    for (uint32_t base = see[0].first / VEC_TILE * VEC_TILE, from = 0, to = 0; base <= last; base += VEC_TILE) {
        while (see[from].last < base) from++;
        while (to < n && see[to].first < base + VEC_TILE) to++;
        for (uint32_t i = from; i < to; i++) {
            rows[i].first = see[i].first > base ? see[i].first - base : 0;
            rows[i].n_valid = see[i].last - base < VEC_TILE ? see[i].last - base + 1 : VEC_TILE;
        }
        uint32_t page = base / VEC_TILE;
        const void *next = base + VEC_TILE <= last ? tile_of(j, sp, page + 1, hk) : then;
        if (from < to) attend_tile(j, rows + from, to - from, tile_of(j, sp, page, hk), next, &shape, spelt);
    }
    for (uint32_t i = 0; i < n; i++) st->vec->scale(rows[i].acc, 1.0f / rows[i].l, a->head_v);
}

/* Items of a span: key/value heads times blocks of rows. */
static uint32_t span_rows(const att_job *j, const span *sp) {
    return (j->last ? sp->n_out : sp->n) * (j->a->n_head / j->a->n_head_kv);
}

static size_t span_items(const att_job *j, const span *sp) {
    return (size_t)j->a->n_head_kv * ((span_rows(j, sp) + ATT_ROWS - 1) / ATT_ROWS);
}

static void attend_items(void *ctx, size_t begin, size_t end, unsigned thread) {
    const att_job *j = ctx;
    const attn *a = j->a;
    uint16_t *spelt = j->st->tiles ? j->st->tiles + (size_t)thread * j->m->need.tile : NULL;
    size_t base = 0;
    for (uint32_t s = 0; s < j->st->n_spans && base < end; s++) {
        const span *sp = &j->st->spans[s];
        size_t items = span_items(j, sp);
        uint32_t group = a->n_head / a->n_head_kv, total = sp->n * group, skip = total - span_rows(j, sp);
        for (size_t i = begin > base ? begin - base : 0; i < items && base + i < end; i++) {
            /* the longest blocks first: threads then finish together */
            size_t block = items / a->n_head_kv - 1 - i / a->n_head_kv;
            uint32_t first = skip + (uint32_t)block * ATT_ROWS, hk = (uint32_t)(i % a->n_head_kv);
            if (j->stores) store_head(j, sp, hk);
            attend_rows(j, sp, hk, first, total - first < ATT_ROWS ? total - first : ATT_ROWS, spelt);
        }
        base += items;
    }
}

static void attend(att_job *j) {
    const step *st = j->st;
    const attn *a = j->a;
    size_t n = 0;
    uint64_t work = 0;
    for (uint32_t s = 0; s < st->n_spans; s++) {
        const span *sp = &st->spans[s];
        n += span_items(j, sp);
        work += (uint64_t)span_rows(j, sp) * (sp->pos + sp->n);
    }
    work *= (uint64_t)(a->head_k + a->head_v) * a->n_head_kv;
    if (j->turns) work += (uint64_t)16 * st->n_rows * a->n_head * a->head_k;
    if (work < 16 * ALONE_FLOATS)
        attend_items(j, 0, n, 0);
    else
        pool_run(st->pool, n, 1, attend_items, j);
}

void attn_read(const model *m, const step *st, const attn *a, bool last) {
    attend(&(att_job){.m = m, .st = st, .a = a, .last = last});
}

/* Every key/value head of every span is one item of attention: nobody else reads what that item stores. */
static bool one_block_each(const att_job *j) {
    for (uint32_t s = 0; s < j->st->n_spans; s++)
        if (span_items(j, &j->st->spans[s]) != j->a->n_head_kv) return false;
    return true;
}

void attn_run(const model *m, const step *st, const attn *a, bool last) {
    att_job j = {.m = m, .st = st, .a = a, .last = last, .turns = true};
    if (!a->reads_only) {
        j.stores = one_block_each(&j);
        if (!j.stores) store(&j);
    }
    if (!last || st->n_out) attend(&j);
}

void attn_mix(const model *m, step *st, uint32_t layer, bool last) {
    const attn *a = &m->layers[layer].a;
    attn_project(m, st, a);
    attn_run(m, st, a, last);
}
