/* qwen3next (Qwen3-Next), qwen35 and qwen35moe (Qwen 3.5): three layers out of four mix by a gated delta rule
 * (delta.h), the fourth by attention whose output is gated: attn_q holds, head by head, a query and a gate, and a
 * head's output is multiplied by sigmoid(gate). Part of a head rotates, by halves. qwen3next and qwen35moe have experts
 * and a gated shared expert.
 *
 * Rotation in sections (rope.dimension_sections) gives pictures three coordinates; text has all three equal, so it is
 * the plain one. A file may end with layers for predicting several tokens at once (nextn_predict_layers); they are not
 * part of the model's own answer and are left in the file. */
#include "engine/models/delta.h"

#include <stdio.h>

/* ---- attention with a gate -------------------------------------------------------------------------------- */

typedef struct gate_job {
    const step *st;
    const attn *a;
    size_t first; /* row */
} gate_job;

/* aux[0] has query and gate of each head; the queries go to q. */
static void split_rows(void *ctx, size_t begin, size_t end, unsigned thread) {
    (void)thread;
    const gate_job *j = ctx;
    const attn *a = j->a;
    for (size_t t = begin; t < end; t++) {
        const float *from = j->st->aux[0] + t * 2 * a->n_head * a->head_k;
        float *q = j->st->q + t * a->n_head * a->head_k;
        for (size_t h = 0; h < a->n_head; h++)
            memcpy(q + h * a->head_k, from + 2 * h * a->head_k, a->head_k * sizeof *q);
    }
}

static void gate_rows(void *ctx, size_t begin, size_t end, unsigned thread) {
    (void)thread;
    const gate_job *j = ctx;
    const attn *a = j->a;
    for (size_t i = begin; i < end; i++) {
        size_t at = (j->first + i) * a->n_head * a->head_k;
        for (size_t h = 0; h < a->n_head; h++, at += a->head_k)
            j->st->vec->sigmoid_gate(j->st->att + at, j->st->aux[0] + 2 * at + a->head_k, a->head_k);
    }
}

static void gated_mix(const model *m, step *st, uint32_t layer, bool last) {
    const attn *a = &m->layers[layer].a;
    uint32_t d = m->hp.d_model, nq = a->n_head * a->head_k, nk = a->n_head_kv * a->head_k;
    gate_job j = {st, a, 0};
    acts_set(st->acts, st->pool, st->xn, d, st->n_rows, d);
    const matmul ops[3] = {{.m = a->wq, .y = st->aux[0], .ldy = 2 * (size_t)nq},
                           {.m = a->wk, .y = st->k, .ldy = nk},
                           {.m = a->wv, .y = st->v, .ldy = nk}};
    matrix_mul(st->pool, ops, 3, st->acts);
    block_rows(st, st->n_rows, nq, split_rows, &j);
    attn_run(m, st, a, last);
    if (!last) block_rows(st, st->n_rows, nq, gate_rows, &j);
    for (uint32_t i = 0; last && i < st->n_spans; i++) { /* the other rows hold nothing */
        const span *sp = &st->spans[i];
        j.first = sp->row + sp->n - sp->n_out;
        block_rows(st, sp->n_out, nq, gate_rows, &j);
    }
}

static err_code take_attention(weights *w, uint32_t i, err *e) {
    model *m = w->m;
    model_layer *l = &m->layers[i];
    attn *a = &l->a;
    uint32_t d = m->hp.d_model, nq = a->n_head * a->head_k, nk = a->n_head_kv * a->head_k;
    err_code rc;
    l->mix = gated_mix;
    l->mix_width = nq;
    need_at_least(&m->need.aux[0], 2 * nq);
    need_at_least(&m->need.q, nq);
    need_at_least(&m->need.k, nk);
    need_at_least(&m->need.v, nk);
    need_at_least(&m->need.att, nq);
    need_at_least(&m->need.acts, nq);
    attn_reserve(m, a);
    if ((rc = weights_matrix(w, &a->wq, false, 2 * nq, d, e, "blk.%u.attn_q.weight", i)) != ERR_OK ||
        (rc = weights_matrix(w, &a->wk, false, nk, d, e, "blk.%u.attn_k.weight", i)) != ERR_OK ||
        (rc = weights_matrix(w, &a->wv, false, nk, d, e, "blk.%u.attn_v.weight", i)) != ERR_OK ||
        (rc = weights_vector(w, &a->q_norm, false, a->head_k, e, "blk.%u.attn_q_norm.weight", i)) != ERR_OK ||
        (rc = weights_vector(w, &a->k_norm, false, a->head_k, e, "blk.%u.attn_k_norm.weight", i)) != ERR_OK)
        return rc;
    return weights_matrix(w, &a->wo, false, d, nq, e, "blk.%u.attn_output.weight", i);
}

/* ---- layers that are not run ------------------------------------------------------------------------------ */

typedef struct known {
    const char *name;
    uint32_t n, rows, cols;
} known;

/* One looks like a layer with attention, with some tensors more: known by name and shape, and left in the file. */
static err_code skip_layer(weights *w, uint32_t i, const moe *o, uint32_t shared, err *e) {
    const hparams *h = &w->m->hp;
    uint32_t d = h->d_model, nq = h->n_head * h->head_k, nk = h->n_head_kv * h->head_k, v = h->n_vocab;
    uint32_t n_expert = o ? o->n_expert : 1, f = o ? o->width : h->d_ff;
    const known tensors[] = {
        {"attn_norm.weight", 1, 1, d},
        {"post_attention_norm.weight", 1, 1, d},
        {"attn_q.weight", 1, 2 * nq, d},
        {"attn_k.weight", 1, nk, d},
        {"attn_v.weight", 1, nk, d},
        {"attn_output.weight", 1, d, nq},
        {"attn_q_norm.weight", 1, 1, h->head_k},
        {"attn_k_norm.weight", 1, 1, h->head_k},
        {"nextn.eh_proj.weight", 1, d, 2 * d},
        {"nextn.enorm.weight", 1, 1, d},
        {"nextn.hnorm.weight", 1, 1, d},
        {"nextn.embed_tokens.weight", 1, v, d},
        {"nextn.shared_head_head.weight", 1, v, d},
        {"nextn.shared_head_norm.weight", 1, 1, d},
        {o ? "ffn_gate_exps.weight" : "ffn_gate.weight", n_expert, f, d},
        {o ? "ffn_up_exps.weight" : "ffn_up.weight", n_expert, f, d},
        {o ? "ffn_down_exps.weight" : "ffn_down.weight", n_expert, d, f},
        {"ffn_gate_inp.weight", 1, n_expert, d},
        {"ffn_gate_inp_shexp.weight", 1, 1, d},
        {"ffn_gate_shexp.weight", 1, shared, d},
        {"ffn_up_shexp.weight", 1, shared, d},
        {"ffn_down_shexp.weight", 1, d, shared},
    };
    err_code rc = ERR_OK;
    size_t n = sizeof tensors / sizeof *tensors - (o ? 0 : 5);
    for (size_t k = 0; rc == ERR_OK && k < n; k++)
        rc = weights_matrices(w, NULL, true, tensors[k].n, tensors[k].rows, tensors[k].cols, e, "blk.%u.%s", i,
                              tensors[k].name);
    return rc;
}

/* ---- loading ---------------------------------------------------------------------------------------------- */

/* A pair's section is time, height or width, in turns as far as each reaches; what is left over goes by a fourth number
 * that text has not. */
static err_code check_sections(const model *m, const gguf *g, err *e) {
    char key[96];
    int32_t s[4] = {0};
    size_t n = 0;
    snprintf(key, sizeof key, "%s.rope.dimension_sections", m->arch->name);
    if (!gguf_has(g, key)) return ERR_OK;
    err_code rc = gguf_arr(g, key, GGUF_I32, &n, NULL);
    if (rc != ERR_OK) rc = gguf_arr(g, key, GGUF_U32, &n, e);
    if (rc != ERR_OK) return rc;
    if (n < 3 || n > 4)
        return err_set(e, ERR_INVALID, "%s: %s has %zu numbers; it must be 3 or 4", gguf_path(g), key, n);
    if ((rc = gguf_arr_i32(g, key, s, n, e)) != ERR_OK) return rc;
    int64_t sum = 0;
    for (int i = 0; i < 4; i++) {
        if (s[i] < 0 || s[i] > MODEL_HEAD_DIM_MAX)
            return err_set(e, ERR_INVALID, "%s: %s: section %d is %d; it must be 0 to %d", gguf_path(g), key, i, s[i],
                           MODEL_HEAD_DIM_MAX);
        sum += s[i];
    }
    for (uint32_t i = 0; sum && i < m->hp.n_rot / 2; i++) {
        int64_t at = i % sum;
        if (at >= 3 * (int64_t)s[at % 3])
            return err_set(e, ERR_UNSUPPORTED,
                           "%s: %s (%d, %d, %d, %d): pair %u of %u belongs to no coordinate that text has",
                           gguf_path(g), key, s[0], s[1], s[2], s[3], i, m->hp.n_rot / 2);
    }
    return ERR_OK;
}

typedef struct shape {
    bool together; /* order of value heads, see delta.h */
    bool experts;
    uint32_t every, n_nextn, shared; /* full attention in every n-th layer; width of the shared expert */
    delta d;
    moe o;
} shape;

static err_code read_shape(model *m, const gguf *g, shape *s, err *e) {
    hparams *h = &m->hp;
    err_code rc;
    if ((rc = params_common(m, g, e)) != ERR_OK || (rc = delta_params(m, g, s->together, &s->d, e)) != ERR_OK ||
        (rc = params_u32_or(m, g, "full_attention_interval", 1, MODEL_LAYER_MAX, 4, &s->every, e)) != ERR_OK ||
        (rc = params_u32_or(m, g, "nextn_predict_layers", 0, MODEL_LAYER_MAX, 0, &s->n_nextn, e)) != ERR_OK ||
        (rc = check_sections(m, g, e)) != ERR_OK)
        return rc;
    if (h->head_k != h->head_v)
        return err_set(e, ERR_INVALID,
                       "%s: %s.attention.key_length %u and value_length %u differ; the gate needs one size",
                       gguf_path(g), m->arch->name, h->head_k, h->head_v);
    if (s->n_nextn >= h->n_layer)
        return err_set(e, ERR_INVALID, "%s: %s.nextn_predict_layers is %u of %u layers; some must be left",
                       gguf_path(g), m->arch->name, s->n_nextn, h->n_layer);
    h->n_layer -= s->n_nextn;
    if (!s->experts) return ERR_OK;
    if ((rc = params_moe(m, g, &s->o, e)) != ERR_OK) return rc;
    return params_u32_or(m, g, "expert_shared_feed_forward_length", 1, MODEL_WIDTH_MAX, h->d_ff ? h->d_ff : s->o.width,
                         &s->shared, e);
}

static err_code take_all(weights *w, const shape *s, err *e) {
    const decoder_parts p = {.ffn_norm = "post_attention_norm", .output = HAS_MAYBE};
    model *m = w->m;
    uint32_t n = m->hp.n_layer;
    err_code rc = ERR_OK;
    for (uint32_t i = 0; rc == ERR_OK && i < n; i++)
        rc = (i + 1) % s->every ? delta_take(w, i, &s->d, e) : take_attention(w, i, e);
    if (rc == ERR_OK) rc = decoder_take(m, w, &p, e);
    for (uint32_t i = n; rc == ERR_OK && i < n + s->n_nextn; i++)
        rc = skip_layer(w, i, s->experts ? &s->o : NULL, s->shared, e);
    return rc;
}

static err_code load_shape(model *m, const gguf *g, shape *s, err *e) {
    weights w = {0};
    err_code rc = read_shape(m, g, s, e);
    if (rc == ERR_OK && s->experts) rc = moe_give(m, &s->o, s->shared, 0, 1, e);
    if (rc != ERR_OK) return rc;
    const rope_wish r = {m->hp.n_rot, true, true, "freq_base", 10000, false};
    if ((rc = rope_load(m, g, 0, &r, e)) != ERR_OK || (rc = weights_new(&w, m, g, e)) != ERR_OK) return rc;
    rc = take_all(&w, s, e);
    if (rc == ERR_OK) rc = weights_load(&w, e);
    if (rc == ERR_OK) rc = delta_loaded(m, e);
    if (rc == ERR_OK && !m->output) m->output = m->embd;
    weights_free(&w);
    return rc;
}

static const moe experts = {.act = ACT_SWIGLU, .gate = GATING_SOFTMAX, .normalise = true};

static err_code qwen3next_load(model *m, const gguf *g, err *e) {
    shape s = {.together = true, .experts = true, .o = experts};
    return load_shape(m, g, &s, e);
}

static err_code qwen35_load(model *m, const gguf *g, err *e) {
    shape s = {.together = false};
    return load_shape(m, g, &s, e);
}

static err_code qwen35moe_load(model *m, const gguf *g, err *e) {
    shape s = {.experts = true, .o = experts};
    return load_shape(m, g, &s, e);
}

const arch arch_qwen3next = {"qwen3next", qwen3next_load, decoder_run};
const arch arch_qwen35 = {"qwen35", qwen35_load, decoder_run};
const arch arch_qwen35moe = {"qwen35moe", qwen35moe_load, decoder_run};
