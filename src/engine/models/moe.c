/* Mixtures of experts. A router scores the experts for each row; the best n_used answer, weighted. Rows are sorted by
 * expert, so that an expert's weights are read once a step; a row's answers are added in the order of the experts'
 * numbers, which no batch changes.
 *
 * Gatings: softmax (Mixtral, Qwen, DeepSeek V2), sigmoid with a bias for the choice and groups (DeepSeek V3, arXiv
 * 2412.19437, section 2.1.2), softmax of the chosen (gpt-oss). Ties go to the lower number. */
#include "engine/models/models.h"

#include "engine/num.h"

#include <string.h>

#define WEIGHT_SUM_MIN 6.103515625e-5f /* 2^-14: chosen weights that are all next to nothing are not blown up */

/* ---- choosing --------------------------------------------------------------------------------------------- */

static void softmax(float *p, uint32_t n) {
    float max = p[0], sum = 0;
    for (uint32_t i = 1; i < n; i++) max = p[i] > max ? p[i] : max;
    for (uint32_t i = 0; i < n; i++) sum += p[i] = num_exp32(p[i] - max);
    for (uint32_t i = 0; i < n; i++) p[i] /= sum;
}

/* The place of the largest that is not yet taken; a NaN is never larger, so the result is always in range. */
static uint32_t best_of(const float *score, const bool *taken, uint32_t n) {
    uint32_t best = UINT32_MAX;
    for (uint32_t i = 0; i < n; i++)
        if (!taken[i] && (best == UINT32_MAX || score[i] > score[best])) best = i;
    return best;
}

/* Experts outside the best groups are marked as taken. */
static void close_groups(const moe *o, const float *score, bool *taken) {
    uint32_t size = o->n_expert / o->n_group;
    float sum[MODEL_EXPERT_MAX];
    bool open[MODEL_EXPERT_MAX] = {false};
    for (uint32_t g = 0; g < o->n_group; g++) {
        float first = -INFINITY, second = -INFINITY;
        for (uint32_t i = g * size; i < (g + 1) * size; i++) {
            float s = score[i];
            if (s > first)
                second = first, first = s;
            else if (s > second)
                second = s;
        }
        sum[g] = size > 1 && !o->group_max ? first + second : first;
    }
    for (uint32_t k = 0; k < o->n_group_used; k++) open[best_of(sum, open, o->n_group)] = true;
    for (uint32_t g = 0; g < o->n_group; g++)
        for (uint32_t i = 0; i < size; i++) taken[g * size + i] = !open[g];
}

/* picks: n_used experts in increasing order; p: scores of the router, used up. */
static void choose(const moe *o, float *p, uint32_t *picks, float *share) {
    float score[MODEL_EXPERT_MAX], sum = 0;
    bool taken[MODEL_EXPERT_MAX] = {false}, chosen[MODEL_EXPERT_MAX] = {false};
    uint32_t n = o->n_expert, at = 0;
    if (o->router_bias)
        for (uint32_t i = 0; i < n; i++) p[i] += o->router_bias[i];
    if (o->gate == GATING_SOFTMAX) softmax(p, n);
    if (o->gate == GATING_SIGMOID)
        for (uint32_t i = 0; i < n; i++) p[i] = num_sigmoid32(p[i]);
    for (uint32_t i = 0; i < n; i++) score[i] = o->choice_bias ? p[i] + o->choice_bias[i] : p[i];
    if (o->n_group > 1) close_groups(o, score, taken);
    for (uint32_t k = 0; k < o->n_used; k++) {
        uint32_t i = best_of(score, taken, n);
        taken[i] = chosen[i] = true;
    }
    for (uint32_t i = 0; i < n; i++)
        if (chosen[i]) picks[at] = i, share[at++] = p[i];
    if (o->gate == GATING_SOFTMAX_CHOSEN) softmax(share, o->n_used);
    for (uint32_t k = 0; k < o->n_used; k++) sum += share[k];
    if (sum < WEIGHT_SUM_MIN) sum = WEIGHT_SUM_MIN;
    for (uint32_t k = 0; k < o->n_used; k++) share[k] = (o->normalise ? share[k] / sum : share[k]) * o->scale;
    for (uint32_t k = 0; o->expert_scale && k < o->n_used; k++) share[k] *= o->expert_scale[picks[k]];
}

typedef struct moe_job {
    const model *m;
    const step *st;
    const moe *o;
    float *y;
} moe_job;

static void choose_rows(void *ctx, size_t begin, size_t end, unsigned thread) {
    (void)thread;
    const moe_job *j = ctx;
    const moe *o = j->o;
    for (size_t t = begin; t < end; t++)
        choose(o, j->st->router + t * o->n_expert, j->st->picks + t * o->n_used, j->st->pick_weights + t * o->n_used);
}

/* ---- answering -------------------------------------------------------------------------------------------- */

/* Place the picks in the order of the experts; at[e] is where expert e's begin. */
static void sort_pairs(const moe *o, const step *st, uint32_t n, uint32_t at[MODEL_EXPERT_MAX + 1]) {
    uint32_t next[MODEL_EXPERT_MAX];
    memset(at, 0, (o->n_expert + 1) * sizeof *at);
    for (uint32_t i = 0; i < n * o->n_used; i++) at[st->picks[i] + 1]++;
    for (uint32_t i = 0; i < o->n_expert; i++) next[i] = at[i + 1] += at[i];
    for (uint32_t i = 0; i < o->n_expert; i++) next[i] = at[i];
    for (uint32_t i = 0; i < n * o->n_used; i++) st->pairs[i] = next[st->picks[i]]++;
}

static void spread_rows(void *ctx, size_t begin, size_t end, unsigned thread) {
    (void)thread;
    const moe_job *j = ctx;
    const moe *o = j->o;
    size_t d = j->m->hp.d_model;
    for (size_t t = begin; t < end; t++)
        for (uint32_t k = 0; k < o->n_used; k++) {
            size_t i = t * o->n_used + k;
            float *x = j->st->pair_x + j->st->pairs[i] * d;
            memcpy(x, j->st->xn + t * d, d * sizeof *x);
            if (o->weigh_input) j->st->vec->scale(x, j->st->pick_weights[i], d);
        }
}

static void bias_experts(const step *st, const moe *o, float *y, const float *bias, uint32_t n, const uint32_t *at) {
    for (uint32_t i = 0; bias && i < o->n_expert; i++)
        block_bias(st, y + (size_t)at[i] * n, bias + (size_t)i * n, at[i + 1] - at[i], n);
}

/* Answers of all pairs into pair_x. */
static void run_experts(const moe_job *j, const uint32_t *at, uint32_t n_pairs) {
    const moe *o = j->o;
    const step *st = j->st;
    uint32_t d = j->m->hp.d_model, n_ops = 0;
    for (uint32_t i = 0; i < o->n_expert; i++) {
        uint32_t n = at[i + 1] - at[i];
        if (!n) continue;
        size_t y = (size_t)at[i] * o->width;
        st->ops[n_ops++] = (matmul){.m = o->wgate[i], .y = st->pair_gate + y, .ldy = o->width, .first = at[i], .n = n};
        st->ops[n_ops++] = (matmul){.m = o->wup[i], .y = st->pair_up + y, .ldy = o->width, .first = at[i], .n = n};
    }
    acts_set(st->acts, st->pool, st->pair_x, d, n_pairs, d);
    matrix_mul(st->pool, st->ops, n_ops, st->acts);
    bias_experts(st, o, st->pair_gate, o->bgate, o->width, at);
    bias_experts(st, o, st->pair_up, o->bup, o->width, at);
    block_activate(st, o->act, st->pair_gate, st->pair_up, n_pairs, o->width);
    n_ops = 0;
    for (uint32_t i = 0; i < o->n_expert; i++) {
        uint32_t n = at[i + 1] - at[i];
        float *y = st->pair_x + (size_t)at[i] * d;
        if (n) st->ops[n_ops++] = (matmul){.m = o->wdown[i], .y = y, .ldy = d, .first = at[i], .n = n};
    }
    acts_set(st->acts, st->pool, st->pair_gate, o->width, n_pairs, o->width);
    matrix_mul(st->pool, st->ops, n_ops, st->acts);
    bias_experts(st, o, st->pair_x, o->bdown, d, at);
}

/* y = sum over a row's experts, in increasing order, of weight * answer. */
static void sum_rows(void *ctx, size_t begin, size_t end, unsigned thread) {
    (void)thread;
    const moe_job *j = ctx;
    const moe *o = j->o;
    size_t d = j->m->hp.d_model;
    for (size_t t = begin; t < end; t++) {
        float *y = j->y + t * d;
        memset(y, 0, d * sizeof *y);
        for (uint32_t k = 0; k < o->n_used; k++) {
            size_t i = t * o->n_used + k;
            j->st->vec->mul_add(y, j->st->pair_x + j->st->pairs[i] * d, o->weigh_input ? 1 : j->st->pick_weights[i], d);
        }
    }
}

/* The factor of the shared expert goes on its output: sigmoid of a dot product in eight lanes, then vec_tree. */
static void gate_shared(void *ctx, size_t begin, size_t end, unsigned thread) {
    (void)thread;
    const moe_job *j = ctx;
    size_t d = j->m->hp.d_model;
    for (size_t t = begin; t < end; t++) {
        const float *x = j->st->xn + t * d;
        float s[8] = {0};
        for (size_t i = 0; i < d; i++) s[i % 8] = fmaf(x[i], j->o->shared_gate[i], s[i % 8]);
        j->st->vec->scale(j->y + t * d, num_sigmoid32(vec_tree(s)), d);
    }
}

void moe_choose(const model *m, step *st, const moe *o, const float *x, uint32_t n) {
    moe_job j = {m, st, o, NULL};
    block_linear(st, o->router, st->router, o->n_expert, x, m->hp.d_model, n);
    block_rows(st, n, o->n_expert * 8, choose_rows, &j);
}

void moe_answer(const model *m, step *st, const moe *o, uint32_t n) {
    uint32_t at[MODEL_EXPERT_MAX + 1];
    moe_job j = {m, st, o, st->xn};
    sort_pairs(o, st, n, at);
    block_rows(st, n, o->n_used * m->hp.d_model, spread_rows, &j);
    run_experts(&j, at, n * o->n_used);
    block_rows(st, n, o->n_used * m->hp.d_model, sum_rows, &j);
}

void moe_run(const model *m, step *st, const model_layer *l, uint32_t n) {
    const moe *o = l->moe;
    uint32_t d = m->hp.d_model;
    moe_choose(m, st, o, st->xn, n);
    if (l->f.width) { /* st->q is free by now: att has what came of it */
        moe_job j = {m, st, o, st->q};
        block_ffn(m, st, &l->f, st->q, st->xn, n);
        if (o->shared_gate) block_rows(st, n, d, gate_shared, &j);
    }
    moe_answer(m, st, o, n);
    if (l->f.width) block_add(st, st->xn, st->q, n, d);
}

/* ---- loading ---------------------------------------------------------------------------------------------- */

err_code moe_give(model *m, const moe *o, uint32_t shared, uint32_t first, uint32_t every, err *e) {
    err_code rc = ERR_OK;
    for (uint32_t i = first; rc == ERR_OK && i < m->hp.n_layer; i += every) {
        m->layers[i].f.width = shared;
        if ((rc = model_take(m, &m->layers[i].moe, 1, sizeof *o, e)) == ERR_OK) *m->layers[i].moe = *o;
    }
    return rc;
}

/* Two tensors, or one with an expert's gate above its up. */
static err_code take_gate_up(weights *w, moe *o, uint32_t i, uint32_t d, err *e) {
    uint32_t n = o->n_expert, f = o->width;
    err_code rc;
    if (!weights_has(w, "blk.%u.ffn_gate_up_exps.weight", i)) {
        if ((rc = weights_matrices(w, o->wgate, false, n, f, d, e, "blk.%u.ffn_gate_exps.weight", i)) != ERR_OK)
            return rc;
        return weights_matrices(w, o->wup, false, n, f, d, e, "blk.%u.ffn_up_exps.weight", i);
    }
    matrix ***outs = NULL;
    uint32_t *rows = NULL;
    if ((rc = model_take(w->m, &outs, 2ull * n, sizeof *outs, e)) != ERR_OK ||
        (rc = model_take(w->m, &rows, 2ull * n, sizeof *rows, e)) != ERR_OK)
        return rc;
    for (uint32_t k = 0; k < n; k++) {
        outs[2 * k] = &o->wgate[k];
        outs[2 * k + 1] = &o->wup[k];
        rows[2 * k] = rows[2 * k + 1] = f;
    }
    return weights_split_planes(w, outs, rows, n, 2, d, e, "blk.%u.ffn_gate_up_exps.weight", i);
}

err_code moe_take(weights *w, const model *cm, uint32_t i, moe *o, err *e) {
    model *m = w->m;
    uint32_t n = o->n_expert, d = cm->hp.d_model, f = o->width;
    err_code rc;
    if ((rc = model_take(m, &o->wgate, n, sizeof(matrix *), e)) != ERR_OK ||
        (rc = model_take(m, &o->wup, n, sizeof(matrix *), e)) != ERR_OK ||
        (rc = model_take(m, &o->wdown, n, sizeof(matrix *), e)) != ERR_OK ||
        (rc = weights_matrix(w, &o->router, false, n, d, e, "blk.%u.ffn_gate_inp.weight", i)) != ERR_OK ||
        (rc = weights_vector(w, &o->router_bias, true, n, e, "blk.%u.ffn_gate_inp.bias", i)) != ERR_OK ||
        (rc = weights_vector(w, &o->choice_bias, true, n, e, "blk.%u.exp_probs_b.bias", i)) != ERR_OK ||
        (rc = weights_matrices(w, o->wdown, false, n, d, f, e, "blk.%u.ffn_down_exps.weight", i)) != ERR_OK ||
        (rc = take_gate_up(w, o, i, d, e)) != ERR_OK ||
        (rc = weights_floats(w, &o->bgate, true, 1, n, f, e, "blk.%u.ffn_gate_exps.bias", i)) != ERR_OK ||
        (rc = weights_floats(w, &o->bup, true, 1, n, f, e, "blk.%u.ffn_up_exps.bias", i)) != ERR_OK ||
        (rc = weights_floats(w, &o->bdown, true, 1, n, d, e, "blk.%u.ffn_down_exps.bias", i)) != ERR_OK ||
        (rc = weights_vector(w, &o->expert_scale, true, n, e, "blk.%u.ffn_down_exps.scale", i)) != ERR_OK ||
        (rc = weights_vector(w, &o->shared_gate, true, d, e, "blk.%u.ffn_gate_inp_shexp.weight", i)) != ERR_OK)
        return rc;
    need_at_least(&m->need.n_expert, n);
    need_at_least(&m->need.n_used, o->n_used);
    need_at_least(&m->need.expert_width, f);
    need_at_least(&m->need.q, d);
    need_at_least(&m->need.acts, (uint64_t)o->n_used * (f > d ? f : d));
    need_at_least(&m->need.ops, 2 * n);
    return ERR_OK;
}
