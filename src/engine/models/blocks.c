/* The parts that architectures put together. Each splits its work over rows; no sum crosses a split, so the number of
 * threads and the neighbours in a batch cannot show. */
#include "engine/models/models.h"

#include <string.h>

#define ALONE_FLOATS 8192 /* fewer elements than this: waking threads costs more than the work */

void block_rows(const step *st, uint32_t n_rows, uint32_t width, pool_fn fn, void *job) {
    if ((uint64_t)n_rows * width < ALONE_FLOATS || n_rows == 1)
        fn(job, 0, n_rows, 0);
    else
        pool_run(st->pool, n_rows, (n_rows + 15) / 16, fn, job);
}

typedef struct rows_job {
    const step *st;
    const model *m;
    float *y, *z;
    const float *x, *w, *b;
    uint32_t n;
    float f;
    activation act;
} rows_job;

/* ---- rows ------------------------------------------------------------------------------------------------- */

static void embed_rows(void *ctx, size_t begin, size_t end, unsigned thread) {
    (void)thread;
    rows_job *j = ctx;
    for (size_t t = begin; t < end; t++) {
        float *y = j->y + t * j->n;
        matrix_row(j->m->embd, (uint32_t)j->st->tokens[t], y);
        if (j->f != 1) j->st->vec->scale(y, j->f, j->n);
    }
}

void block_embed(const model *m, step *st) {
    rows_job j = {.st = st, .m = m, .y = st->x, .n = m->hp.d_model, .f = m->hp.embd_scale};
    block_rows(st, st->n_rows, j.n, embed_rows, &j);
}

static void norm_rows(void *ctx, size_t begin, size_t end, unsigned thread) {
    (void)thread;
    rows_job *j = ctx;
    for (size_t t = begin; t < end; t++) j->st->vec->rms_norm(j->y + t * j->n, j->x + t * j->n, j->w, j->n, j->f);
}

void block_norm(const step *st, float *y, const float *x, const float *w, uint32_t n_rows, uint32_t n, float eps) {
    rows_job j = {.st = st, .y = y, .x = x, .w = w, .n = n, .f = eps};
    block_rows(st, n_rows, n, norm_rows, &j);
}

static void layer_norm_rows(void *ctx, size_t begin, size_t end, unsigned thread) {
    (void)thread;
    rows_job *j = ctx;
    for (size_t t = begin; t < end; t++)
        j->st->vec->layer_norm(j->y + t * j->n, j->x + t * j->n, j->w, j->b, j->n, j->f);
}

void block_layer_norm(const step *st, float *y, const float *x, const float *w, const float *b, uint32_t n_rows,
                      uint32_t n, float eps) {
    rows_job j = {.st = st, .y = y, .x = x, .w = w, .b = b, .n = n, .f = eps};
    block_rows(st, n_rows, n, layer_norm_rows, &j);
}

static void bias_rows(void *ctx, size_t begin, size_t end, unsigned thread) {
    (void)thread;
    rows_job *j = ctx;
    for (size_t t = begin; t < end; t++) j->st->vec->add(j->y + t * j->n, j->w, j->n);
}

void block_bias(const step *st, float *y, const float *bias, uint32_t n_rows, uint32_t n) {
    if (!bias) return;
    rows_job j = {.st = st, .y = y, .w = bias, .n = n};
    block_rows(st, n_rows, n, bias_rows, &j);
}

/* ---- elements --------------------------------------------------------------------------------------------- */

static void add_rows(void *ctx, size_t begin, size_t end, unsigned thread) {
    (void)thread;
    rows_job *j = ctx;
    j->st->vec->add(j->y + begin * j->n, j->x + begin * j->n, (end - begin) * j->n);
}

void block_add(const step *st, float *x, const float *y, uint32_t n_rows, uint32_t n) {
    rows_job j = {.st = st, .y = x, .x = y, .n = n};
    block_rows(st, n_rows, n, add_rows, &j);
}

static void scale_rows(void *ctx, size_t begin, size_t end, unsigned thread) {
    (void)thread;
    rows_job *j = ctx;
    j->st->vec->scale(j->y + begin * j->n, j->f, (end - begin) * j->n);
}

void block_scale(const step *st, float *x, float f, uint32_t n_rows, uint32_t n) {
    rows_job j = {.st = st, .y = x, .n = n, .f = f};
    block_rows(st, n_rows, n, scale_rows, &j);
}

static void cap_rows(void *ctx, size_t begin, size_t end, unsigned thread) {
    (void)thread;
    rows_job *j = ctx;
    j->st->vec->soft_cap(j->y + begin * j->n, j->f, (end - begin) * j->n);
}

void block_cap(const step *st, float *x, float cap, uint32_t n_rows, uint32_t n) {
    rows_job j = {.st = st, .y = x, .n = n, .f = cap};
    block_rows(st, n_rows, n, cap_rows, &j);
}

static void gate_rows(void *ctx, size_t begin, size_t end, unsigned thread) {
    (void)thread;
    rows_job *j = ctx;
    j->st->vec->sigmoid_gate(j->y + begin * j->n, j->x + begin * j->n, (end - begin) * j->n);
}

void block_gate(const step *st, float *x, const float *gate, uint32_t n_rows, uint32_t n) {
    rows_job j = {.st = st, .y = x, .x = gate, .n = n};
    block_rows(st, n_rows, n, gate_rows, &j);
}

static void activate_rows(void *ctx, size_t begin, size_t end, unsigned thread) {
    (void)thread;
    rows_job *j = ctx;
    const vec_kernels *v = j->st->vec;
    float *gate = j->y + begin * j->n, *up = j->z + begin * j->n;
    size_t n = (end - begin) * j->n;
    switch (j->act) {
    case ACT_SWIGLU: v->swiglu(gate, up, n); break;
    case ACT_GEGLU: v->geglu(gate, up, n); break;
    case ACT_SWIGLU_CLAMPED: v->swiglu_clamped(gate, up, n); break;
    case ACT_GELU: v->gelu(gate, n); break;
    }
}

void block_activate(const step *st, activation a, float *gate, float *up, uint32_t n_rows, uint32_t n) {
    rows_job j = {.st = st, .y = gate, .z = up, .n = n, .act = a};
    block_rows(st, n_rows, n, activate_rows, &j);
}

/* ---- larger parts ----------------------------------------------------------------------------------------- */

void block_linear(const step *st, const matrix *w, float *y, size_t ldy, const float *x, uint32_t cols, uint32_t n) {
    acts_set(st->acts, st->pool, x, cols, n, cols);
    matrix_mul(st->pool, &(matmul){.m = w, .y = y, .ldy = ldy}, 1, st->acts);
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

void block_ffn(const model *m, step *st, const ffn *f, float *y, const float *x, uint32_t n) {
    uint32_t d = m->hp.d_model;
    bool gated = f->act != ACT_GELU;
    acts_set(st->acts, st->pool, x, d, n, d);
    const matmul ops[2] = {{.m = f->up, .y = gated ? st->up : st->gate, .ldy = f->width},
                           {.m = f->gate, .y = st->gate, .ldy = f->width}};
    matrix_mul(st->pool, ops, gated ? 2 : 1, st->acts);
    if (gated) block_bias(st, st->gate, f->bgate, n, f->width);
    block_bias(st, gated ? st->up : st->gate, f->bup, n, f->width);
    block_activate(st, f->act, st->gate, st->up, n, f->width);
    block_linear(st, f->down, y, d, st->gate, f->width, n);
    block_bias(st, y, f->bdown, n, d);
}
