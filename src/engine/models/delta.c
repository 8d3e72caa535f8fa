/* delta.h says what is computed. Threads split over channels, rows, and (sequence, value head); no sum crosses these.
 */
#include "engine/models/delta.h"

#include "engine/kernels/delta.h"
#include "engine/num.h"

#include <string.h>

#define STATE_MAX      (1u << 30) /* floats a sequence: 4 GiB */
#define LENGTH_EPS     1e-6f      /* added to a head's squared length */
#define CHANNELS_BLOCK 128        /* of a convolution at once */
#define ALONE_FLOATS   8192       /* fewer elements than this: waking threads costs more than the work */

/* ---- loading ---------------------------------------------------------------------------------------------- */

static err_code check_sizes(const model *m, const gguf *g, const delta *d, err *e) {
    const char *path = gguf_path(g), *name = m->arch->name;
    if (d->n_v % d->n_k)
        return err_set(e, ERR_INVALID, "%s: %s.ssm.time_step_rank %u (value heads) is not a multiple of group_count %u",
                       path, name, d->n_v, d->n_k);
    if (d->inner % d->n_v)
        return err_set(e, ERR_INVALID, "%s: %s.ssm.inner_size %u is not a multiple of time_step_rank %u (value heads)",
                       path, name, d->inner, d->n_v);
    if (d->inner / d->n_v > MODEL_HEAD_DIM_MAX)
        return err_set(e, ERR_INVALID, "%s: %s.ssm.inner_size %u makes %u value heads of size %u; polder takes %d",
                       path, name, d->inner, d->n_v, d->inner / d->n_v, MODEL_HEAD_DIM_MAX);
    if (2ull * d->n_k * d->dk + d->inner > MODEL_WIDTH_MAX)
        return err_set(e, ERR_INVALID, "%s: %s.ssm: %u key heads of size %u and inner_size %u are wider than %u", path,
                       name, d->n_k, d->dk, d->inner, MODEL_WIDTH_MAX);
    return ERR_OK;
}

static err_code take_scales(model *m, delta *d, err *e) {
    float *q = NULL, *k = NULL;
    err_code rc;
    if ((rc = model_take(m, &q, d->dk, sizeof *q, e)) != ERR_OK ||
        (rc = model_take(m, &k, d->dk, sizeof *k, e)) != ERR_OK)
        return rc;
    for (uint32_t i = 0; i < d->dk; i++) {
        q[i] = 1.0f / (float)d->dk;
        k[i] = 1.0f / sqrtf((float)d->dk);
    }
    d->q_scale = q;
    d->k_scale = k;
    return ERR_OK;
}

err_code delta_params(model *m, const gguf *g, bool together, delta *d, err *e) {
    err_code rc;
    *d = (delta){.together = together};
    if ((rc = params_u32(m, g, "ssm.conv_kernel", 2, DELTA_CONV_MAX, &d->taps, e)) != ERR_OK ||
        (rc = params_u32(m, g, "ssm.state_size", 1, MODEL_HEAD_DIM_MAX, &d->dk, e)) != ERR_OK ||
        (rc = params_u32(m, g, "ssm.group_count", 1, MODEL_HEAD_MAX, &d->n_k, e)) != ERR_OK ||
        (rc = params_u32(m, g, "ssm.time_step_rank", 1, MODEL_HEAD_MAX, &d->n_v, e)) != ERR_OK ||
        (rc = params_u32(m, g, "ssm.inner_size", 1, MODEL_WIDTH_MAX, &d->inner, e)) != ERR_OK ||
        (rc = check_sizes(m, g, d, e)) != ERR_OK)
        return rc;
    d->group = d->n_v / d->n_k;
    d->dv = d->inner / d->n_v;
    d->channels = 2 * d->n_k * d->dk + d->inner;
    return take_scales(m, d, e);
}

static size_t conv_floats(const delta *d) {
    return ((size_t)(d->taps - 1) * d->channels + DELTA_LANES - 1) / DELTA_LANES * DELTA_LANES;
}

static err_code take_qkvz(weights *w, delta *d, uint32_t i, err *e) {
    uint32_t cols = w->m->hp.d_model, all = d->channels + d->inner;
    if (d->together && weights_has(w, "blk.%u.ssm_in.weight", i)) {
        need_at_least(&w->m->need.aux[3], all);
        return weights_matrix(w, &d->wqkvz, false, all, cols, e, "blk.%u.ssm_in.weight", i);
    }
    err_code rc = weights_matrix(w, &d->wqkv, false, d->channels, cols, e, "blk.%u.attn_qkv.weight", i);
    if (rc != ERR_OK) return rc;
    return weights_matrix(w, &d->wz, false, d->inner, cols, e, "blk.%u.attn_gate.weight", i);
}

static err_code take_tensors(weights *w, delta *d, uint32_t i, err *e) {
    uint32_t cols = w->m->hp.d_model;
    err_code rc;
    if ((rc = take_qkvz(w, d, i, e)) != ERR_OK ||
        (rc = weights_floats(w, &d->conv, false, 1, d->channels, d->taps, e, "blk.%u.ssm_conv1d.weight", i)) !=
            ERR_OK ||
        (rc = weights_vector(w, &d->dt, false, d->n_v, e, "blk.%u.ssm_dt.bias", i)) != ERR_OK ||
        (rc = weights_vector(w, &d->a, false, d->n_v, e, "blk.%u.ssm_a", i)) != ERR_OK ||
        (rc = weights_vector(w, &d->norm, false, d->dv, e, "blk.%u.ssm_norm.weight", i)) != ERR_OK)
        return rc;
    if (d->together) return weights_matrix(w, &d->wba, false, 2 * d->n_v, cols, e, "blk.%u.ssm_ba.weight", i);
    if ((rc = weights_matrix(w, &d->wb, false, d->n_v, cols, e, "blk.%u.ssm_beta.weight", i)) != ERR_OK) return rc;
    return weights_matrix(w, &d->wa, false, d->n_v, cols, e, "blk.%u.ssm_alpha.weight", i);
}

err_code delta_take(weights *w, uint32_t i, const delta *sizes, err *e) {
    model *m = w->m;
    model_layer *l = &m->layers[i];
    delta *d = NULL;
    err_code rc = model_take(m, &d, 1, sizeof *d, e);
    if (rc != ERR_OK) return rc;
    *d = *sizes;
    l->more = d;
    l->mix = delta_mix;
    l->mix_width = d->inner;
    l->state_at = m->need.state;
    m->need.state += conv_floats(d) + d->n_v * (uint64_t)delta_state_floats(d->dk, d->dv);
    if (m->need.state > STATE_MAX)
        return err_set(e, ERR_UNSUPPORTED, "%s: layers up to %u have a recurrent state of %llu numbers; at most %u",
                       gguf_path(w->g), i, (unsigned long long)m->need.state, STATE_MAX);
    need_at_least(&m->need.aux[0], d->channels);
    need_at_least(&m->need.aux[1], d->inner);
    need_at_least(&m->need.aux[2], 2 * d->n_v);
    need_at_least(&m->need.att, d->inner);
    need_at_least(&m->need.acts, d->inner);
    if ((rc = take_tensors(w, d, i, e)) != ERR_OK) return rc;
    return weights_matrix(w, &l->a.wo, false, m->hp.d_model, d->inner, e, "blk.%u.ssm_out.weight", i);
}

err_code delta_loaded(model *m, err *e) {
    for (uint32_t i = 0; i < m->hp.n_layer; i++) {
        if (m->layers[i].mix != delta_mix) continue;
        delta *d = m->layers[i].more;
        err_code rc = model_take_turned(m, &d->conv, d->conv, d->channels, d->taps, e);
        if (rc != ERR_OK) return rc;
    }
    return ERR_OK;
}

/* ---- convolution ------------------------------------------------------------------------------------------ */

typedef struct delta_job {
    const step *st;
    const delta *d;
    const delta_kernels *k;
    uint64_t state_at;
    float eps;
} delta_job;

/* One span's channels [c, c + n), from its last token to its first: a result then takes the place of an input that only
 * later tokens read. */
static void conv_span(const delta_job *j, const span *sp, uint32_t c, uint32_t n) {
    const delta *d = j->d;
    size_t ld = d->channels, past = d->taps - 1;
    float *x = j->st->aux[0] + (size_t)sp->row * ld + c, *state = sp->state + j->state_at + c;
    float keep[DELTA_CONV_MAX - 1][CHANNELS_BLOCK], ones[CHANNELS_BLOCK];
    const float *in[DELTA_CONV_MAX];
    for (uint32_t i = 0; i < n; i++) ones[i] = 1;
    for (size_t i = 0; i < past; i++) { /* of what was and what is now, the last rows */
        size_t at = sp->n + i;
        memcpy(keep[i], at < past ? state + at * ld : x + (at - past) * ld, n * sizeof(float));
    }
    for (size_t t = sp->n; t-- > 0;) {
        for (size_t i = 0; i <= past; i++) in[i] = t + i < past ? state + (t + i) * ld : x + (t + i - past) * ld;
        j->k->conv(x + t * ld, in, d->conv + c, ld, d->taps, n);
        j->st->vec->swiglu(x + t * ld, ones, n);
    }
    for (size_t i = 0; i < past; i++) memcpy(state + i * ld, keep[i], n * sizeof(float));
}

static void conv_items(void *ctx, size_t begin, size_t end, unsigned thread) {
    (void)thread;
    const delta_job *j = ctx;
    uint32_t channels = j->d->channels, blocks = (channels + CHANNELS_BLOCK - 1) / CHANNELS_BLOCK;
    for (size_t i = begin; i < end; i++) {
        uint32_t c = (uint32_t)(i % blocks) * CHANNELS_BLOCK, left = channels - c;
        conv_span(j, &j->st->spans[i / blocks], c, left < CHANNELS_BLOCK ? left : CHANNELS_BLOCK);
    }
}

/* ---- heads and gates -------------------------------------------------------------------------------------- */

/* ln(1 + e^x) */
static double softplus(double x) {
    return x > 0 ? x + num_log(1 + num_exp(-x)) : num_log(1 + num_exp(x));
}

/* A row of Wb x and Wa x becomes (beta, n_v), (decay, n_v). */
static void gate_row(const delta *d, float *row) {
    uint32_t n = d->n_v;
    float old[2 * MODEL_HEAD_MAX];
    memcpy(old, row, 2 * n * sizeof *row);
    for (uint32_t h = 0; h < n; h++) {
        uint32_t at = d->together ? h / d->group * 2 * d->group + h % d->group : h;
        float alpha = old[at + (d->together ? d->group : n)] + d->dt[h];
        row[h] = num_sigmoid32(old[at]);
        row[n + h] = (float)num_exp((double)d->a[h] * softplus((double)alpha));
    }
}

static void head_rows(void *ctx, size_t begin, size_t end, unsigned thread) {
    (void)thread;
    const delta_job *j = ctx;
    const delta *d = j->d;
    for (size_t t = begin; t < end; t++) {
        float *q = j->st->aux[0] + t * d->channels, *k = q + (size_t)d->n_k * d->dk;
        for (size_t h = 0; h < d->n_k; h++) {
            float *qh = q + h * d->dk, *kh = k + h * d->dk;
            j->st->vec->rms_norm(qh, qh, d->q_scale, d->dk, LENGTH_EPS / (float)d->dk);
            j->st->vec->rms_norm(kh, kh, d->k_scale, d->dk, LENGTH_EPS / (float)d->dk);
        }
        gate_row(d, j->st->aux[2] + t * 2 * d->n_v);
    }
}

/* ---- the recurrence --------------------------------------------------------------------------------------- */

/* One item is one (span, value head): the delta rule, then norm and gate of what came out. att holds Wz x. */
static void run_items(void *ctx, size_t begin, size_t end, unsigned thread) {
    (void)thread;
    const delta_job *j = ctx;
    const delta *d = j->d;
    for (size_t i = begin; i < end; i++) {
        const span *sp = &j->st->spans[i / d->n_v];
        size_t h = i % d->n_v, hk = d->together ? h / d->group : h % d->n_k, row = sp->row;
        float *u = j->st->aux[0] + row * d->channels, *o = j->st->aux[1] + row * d->inner + h * d->dv,
              *gates = j->st->aux[2] + row * 2 * d->n_v + h, *z = j->st->att + row * d->inner + h * d->dv;
        const delta_head head = {
            .state = sp->state + j->state_at + conv_floats(d) + h * delta_state_floats(d->dk, d->dv),
            .q = u + hk * d->dk,
            .k = u + (d->n_k + hk) * d->dk,
            .v = u + (size_t)2 * d->n_k * d->dk + h * d->dv,
            .out = o,
            .decay = gates + d->n_v,
            .beta = gates,
            .ld_qk = d->channels,
            .ld_v = d->channels,
            .ld_out = d->inner,
            .ld_gates = 2 * (size_t)d->n_v,
            .n = sp->n,
            .dk = d->dk,
            .dv = d->dv,
        };
        j->k->run(&head);
        for (uint32_t t = 0; t < sp->n; t++, o += d->inner, z += d->inner) {
            j->st->vec->rms_norm(o, o, d->norm, d->dv, j->eps);
            j->st->vec->swiglu(z, o, d->dv);
        }
    }
}

static void sort_rows(void *ctx, size_t begin, size_t end, unsigned thread) {
    (void)thread;
    const delta_job *j = ctx;
    const delta *d = j->d;
    size_t nk = d->dk * sizeof(float), values = (size_t)d->group * d->dv, nv = values * sizeof(float);
    for (size_t t = begin; t < end; t++) {
        const float *from = j->st->aux[3] + t * (d->channels + d->inner);
        float *u = j->st->aux[0] + t * d->channels, *z = j->st->att + t * d->inner;
        for (size_t h = 0; h < d->n_k; h++) {
            memcpy(u + h * d->dk, from, nk);
            memcpy(u + (d->n_k + h) * d->dk, from + d->dk, nk);
            memcpy(u + (size_t)2 * d->n_k * d->dk + h * values, from + (size_t)2 * d->dk, nv);
            memcpy(z + h * values, from + (size_t)2 * d->dk + values, nv);
            from += 2 * (d->dk + values);
        }
    }
}

static void project(const model *m, step *st, delta_job *j) {
    const delta *d = j->d;
    float *ba = st->aux[2];
    size_t n = 0, ld_ba = 2 * (size_t)d->n_v, all = d->channels + d->inner;
    matmul ops[4];
    acts_set(st->acts, st->pool, st->xn, m->hp.d_model, st->n_rows, m->hp.d_model);
    if (d->wqkvz)
        ops[n++] = (matmul){.m = d->wqkvz, .y = st->aux[3], .ldy = all};
    else {
        ops[n++] = (matmul){.m = d->wqkv, .y = st->aux[0], .ldy = d->channels};
        ops[n++] = (matmul){.m = d->wz, .y = st->att, .ldy = d->inner};
    }
    ops[n++] = (matmul){.m = d->together ? d->wba : d->wb, .y = ba, .ldy = ld_ba};
    if (!d->together) ops[n++] = (matmul){.m = d->wa, .y = ba + d->n_v, .ldy = ld_ba};
    matrix_mul(st->pool, ops, n, st->acts);
    if (d->wqkvz) block_rows(st, st->n_rows, (uint32_t)all, sort_rows, j);
}

/* All rows even in the last layer: what later tokens need has gone through every one. */
void delta_mix(const model *m, step *st, uint32_t layer, bool last) {
    (void)last;
    const model_layer *l = &m->layers[layer];
    const delta *d = l->more;
    delta_job j = {st, d, delta_kernels_get(isa_get()), l->state_at, m->hp.rms_eps};
    size_t blocks = (size_t)st->n_spans * ((d->channels + CHANNELS_BLOCK - 1) / CHANNELS_BLOCK);
    size_t heads = (size_t)st->n_spans * d->n_v;
    project(m, st, &j);
    if ((uint64_t)st->n_rows * d->channels < ALONE_FLOATS)
        conv_items(&j, 0, blocks, 0);
    else
        pool_run(st->pool, blocks, 4, conv_items, &j);
    block_rows(st, st->n_rows, 2 * d->n_k * d->dk, head_rows, &j);
    if ((uint64_t)st->n_rows * d->inner * d->dk < 4 * ALONE_FLOATS)
        run_items(&j, 0, heads, 0);
    else
        pool_run(st->pool, heads, 1, run_items, &j);
}
