/* gemma4: gemma3's frame with
 *   - values normed too (without a weight), scores not scaled; where a layer has no attn_v, values are the keys before
 *     their norm and rotation;
 *   - heads of another size on windowed layers; the full layers' rotation has factors (rope_freqs) that leave slow
 * pairs unturned;
 *   - the last `shared_kv_layers` layers read the keys and values of the last layer of their kind before them;
 *   - per-layer embeddings: each token has a short vector for each layer, mixed with a projection of its embedding;
 *     after a layer's blocks, x += norm(Wproj (gelu(Wgate x) * vector)), and x is scaled by a number of the layer;
 *   - in the larger ones, experts beside the dense block, each behind norms of their own.
 */
#include "engine/models/models.h"

#include "engine/num.h"

#include <string.h>

typedef struct gemma4 {
    uint32_t ple;          /* width of a layer's short vector; 0: none */
    matrix *ple_embd;      /* (n_vocab, n_layer * ple) */
    matrix *ple_proj;      /* (n_layer * ple, d_model) */
    const float *ple_norm; /* (ple) */
} gemma4;

typedef struct gemma4_layer {
    matrix *ple_gate, *ple_out;                   /* (ple, d_model), (d_model, ple) */
    const float *ple_post;                        /* (d_model) */
    const float *out_scale;                       /* (1) */
    const float *router_norm;                     /* (d_model) on the normed x, for the router */
    const float *dense_post, *moe_pre, *moe_post; /* (d_model) */
} gemma4_layer;

/* Scratch: the short vectors of all layers; a layer's gate; its vectors; the dense block's answer. */
enum { PLE_ALL, PLE_GATE, PLE_SLICE, DENSE_OUT };

/* ---- per-layer embeddings --------------------------------------------------------------------------------- */

typedef struct ple_job {
    const model *m;
    const step *st;
    uint32_t layer;
} ple_job;

/* (norm(proj / sqrt(d)) + embd * sqrt(ple)) / sqrt(2) */
static void mix_rows(void *ctx, size_t begin, size_t end, unsigned thread) {
    (void)thread;
    const ple_job *j = ctx;
    const gemma4 *g = j->m->more;
    const vec_kernels *v = j->st->vec;
    uint32_t width = j->m->hp.n_layer * g->ple;
    for (size_t t = begin; t < end; t++) {
        float *y = j->st->aux[PLE_ALL] + t * width, *e = j->st->aux[PLE_ALL] + (j->st->n_rows + t) * width;
        v->scale(y, 1.0f / sqrtf((float)j->m->hp.d_model), width);
        for (uint32_t i = 0; i < j->m->hp.n_layer; i++)
            v->rms_norm(y + (size_t)i * g->ple, y + (size_t)i * g->ple, g->ple_norm, g->ple, j->m->hp.rms_eps);
        matrix_row(g->ple_embd, (uint32_t)j->st->tokens[t], e);
        v->mul_add(y, e, sqrtf((float)g->ple), width);
        v->scale(y, 0x1.6a09e6p-1f, width); /* 1 / sqrt(2) */
    }
}

static void slice_rows(void *ctx, size_t begin, size_t end, unsigned thread) {
    (void)thread;
    const ple_job *j = ctx;
    const gemma4 *g = j->m->more;
    size_t width = (size_t)j->m->hp.n_layer * g->ple;
    for (size_t t = begin; t < end; t++)
        memcpy(j->st->aux[PLE_SLICE] + t * g->ple, j->st->aux[PLE_ALL] + t * width + (size_t)j->layer * g->ple,
               g->ple * sizeof(float));
}

static void after_layer(const model *m, step *st, uint32_t layer, uint32_t n) {
    const gemma4 *g = m->more;
    const gemma4_layer *l = m->layers[layer].more;
    uint32_t d = m->hp.d_model;
    if (g->ple) {
        ple_job j = {m, st, layer};
        if (layer + 1 == m->hp.n_layer) block_gather_out(st, st->aux[PLE_ALL], m->hp.n_layer * g->ple);
        block_rows(st, n, g->ple, slice_rows, &j);
        block_linear(st, l->ple_gate, st->aux[PLE_GATE], g->ple, st->x, d, n);
        block_activate(st, ACT_GEGLU, st->aux[PLE_GATE], st->aux[PLE_SLICE], n, g->ple);
        block_linear(st, l->ple_out, st->xn, d, st->aux[PLE_GATE], g->ple, n);
        block_norm(st, st->xn, st->xn, l->ple_post, n, d, m->hp.rms_eps);
        block_add(st, st->x, st->xn, n, d);
    }
    if (l->out_scale) block_scale(st, st->x, *l->out_scale, n, d);
}

/* ---- the experts beside the dense block ------------------------------------------------------------------- */

static void feed_both(const model *m, step *st, uint32_t layer, uint32_t n) {
    const model_layer *b = &m->layers[layer];
    const gemma4_layer *l = b->more;
    uint32_t d = m->hp.d_model;
    float eps = m->hp.rms_eps, *dense = st->aux[DENSE_OUT];
    block_norm(st, st->xn, st->x, l->router_norm, n, d, eps);
    moe_choose(m, st, b->moe, st->xn, n);
    block_norm(st, st->xn, st->x, b->ffn_norm, n, d, eps);
    block_ffn(m, st, &b->f, dense, st->xn, n);
    block_norm(st, dense, dense, l->dense_post, n, d, eps);
    block_norm(st, st->xn, st->x, l->moe_pre, n, d, eps);
    moe_answer(m, st, b->moe, n);
    block_norm(st, st->xn, st->xn, l->moe_post, n, d, eps);
    block_add(st, st->xn, dense, n, d);
}

/* ---- loading ---------------------------------------------------------------------------------------------- */

/* Which layers have a window: an array of flags. */
static err_code read_windows(model *m, const gguf *g, err *e) {
    uint32_t window = 0, *flags = NULL;
    err_code rc = params_u32(m, g, "attention.sliding_window", 1, MODEL_CTX_MAX, &window, e);
    if (rc == ERR_OK) rc = model_take(m, &flags, m->hp.n_layer, sizeof *flags, e);
    if (rc == ERR_OK) rc = params_u32_layers(m, g, "attention.sliding_window_pattern", 0, 1, flags, e);
    for (uint32_t i = 0; rc == ERR_OK && i < m->hp.n_layer; i++) m->layers[i].a.window = flags[i] ? window : 0;
    return rc;
}

static err_code read_heads(model *m, const gguf *g, uint32_t *rot_near, err *e) {
    const hparams *h = &m->hp;
    uint32_t key = 0, value = 0;
    float *ones_full = NULL, *ones_near = NULL;
    err_code rc;
    if ((rc = params_u32_or(m, g, "attention.key_length_swa", 2, MODEL_HEAD_DIM_MAX, h->head_k, &key, e)) != ERR_OK ||
        (rc = params_u32_or(m, g, "attention.value_length_swa", 1, MODEL_HEAD_DIM_MAX, h->head_v, &value, e)) !=
            ERR_OK ||
        (rc = params_u32_or(m, g, "rope.dimension_count_swa", 2, MODEL_HEAD_DIM_MAX, key, rot_near, e)) != ERR_OK ||
        (rc = model_take_ones(m, &ones_full, h->head_v, e)) != ERR_OK ||
        (rc = model_take_ones(m, &ones_near, value, e)) != ERR_OK)
        return rc;
    if (*rot_near > key || *rot_near % 2)
        return err_set(e, ERR_INVALID, "%s: gemma4.rope.dimension_count_swa is %u; it must be even and at most %u",
                       gguf_path(g), *rot_near, key);
    for (uint32_t i = 0; i < h->n_layer; i++) {
        attn *a = &m->layers[i].a;
        a->scale = 1;
        a->rope = a->window ? 1 : 0;
        a->head_k = a->window ? key : h->head_k;
        a->head_v = a->window ? value : h->head_v;
        a->v_norm = a->window ? ones_near : ones_full;
        m->layers[i].mix_width = a->n_head * a->head_v;
    }
    return ERR_OK;
}

/* The last layers read what the last layer of their kind before them stored. Checked before kv_at is known: take_attn
 * fills kv_at in the order of the layers, so the reader copies it afterwards. */
static err_code share_kv(model *m, const gguf *g, err *e) {
    uint32_t shared = 0, n = m->hp.n_layer;
    err_code rc = params_u32_or(m, g, "attention.shared_kv_layers", 0, n - 1, 0, &shared, e);
    for (uint32_t i = n - shared; rc == ERR_OK && i < n; i++) {
        m->layers[i].a.reads_only = true;
        uint32_t from = n - shared;
        while (from > 0 && !m->layers[from - 1].a.window != !m->layers[i].a.window) from--;
        if (from == 0)
            rc = err_set(e, ERR_INVALID, "%s: layer %u reads another's keys, but no %s layer comes before it",
                         gguf_path(g), i, m->layers[i].a.window ? "windowed" : "full");
    }
    return rc;
}

static void point_at_shared(model *m) {
    uint32_t n = m->hp.n_layer, first = n;
    while (first > 0 && m->layers[first - 1].a.reads_only) first--;
    for (uint32_t i = first; i < n; i++)
        for (uint32_t from = first; from > 0; from--)
            if (!m->layers[from - 1].a.window == !m->layers[i].a.window) {
                memcpy(m->layers[i].a.kv_at, m->layers[from - 1].a.kv_at, sizeof m->layers[i].a.kv_at);
                break;
            }
}

static err_code set_experts(model *m, const gguf *g, err *e) {
    uint32_t n = 0;
    moe o = {.act = ACT_GEGLU, .gate = GATING_SOFTMAX, .normalise = true};
    err_code rc = params_u32_or(m, g, "expert_count", 0, MODEL_EXPERT_MAX, 0, &n, e);
    if (rc != ERR_OK || n == 0 || (rc = params_moe(m, g, &o, e)) != ERR_OK) return rc;
    for (uint32_t i = 0; rc == ERR_OK && i < m->hp.n_layer; i++) {
        model_layer *l = &m->layers[i];
        l->feed = feed_both;
        if ((rc = model_take(m, &l->moe, 1, sizeof o, e)) == ERR_OK) *l->moe = o;
    }
    need_at_least(&m->need.aux[DENSE_OUT], m->hp.d_model);
    return rc;
}

static err_code take_experts_of(weights *w, gemma4_layer *l, uint32_t i, uint32_t d, err *e) {
    err_code rc;
    if ((rc = weights_vector(w, &l->router_norm, false, d, e, "blk.%u.ffn_gate_inp.scale", i)) != ERR_OK ||
        (rc = weights_vector(w, &l->dense_post, false, d, e, "blk.%u.post_ffw_norm_1.weight", i)) != ERR_OK ||
        (rc = weights_vector(w, &l->moe_pre, false, d, e, "blk.%u.pre_ffw_norm_2.weight", i)) != ERR_OK)
        return rc;
    return weights_vector(w, &l->moe_post, false, d, e, "blk.%u.post_ffw_norm_2.weight", i);
}

static err_code take_more(model *m, weights *w, err *e) {
    gemma4 *g = m->more;
    uint32_t d = m->hp.d_model, all = g->ple * m->hp.n_layer;
    err_code rc;
    if (g->ple && ((rc = weights_matrix(w, &g->ple_embd, false, m->hp.n_vocab, all, e,
                                        "per_layer_token_embd.weight")) != ERR_OK ||
                   (rc = weights_matrix(w, &g->ple_proj, false, all, d, e, "per_layer_model_proj.weight")) != ERR_OK ||
                   (rc = weights_vector(w, &g->ple_norm, false, g->ple, e, "per_layer_proj_norm.weight")) != ERR_OK))
        return rc;
    for (uint32_t i = 0; i < m->hp.n_layer; i++) {
        gemma4_layer *l = m->layers[i].more;
        if ((rc = weights_vector(w, &l->out_scale, true, 1, e, "blk.%u.layer_output_scale.weight", i)) != ERR_OK ||
            (m->layers[i].moe && (rc = take_experts_of(w, l, i, d, e)) != ERR_OK))
            return rc;
        if (!g->ple) continue;
        if ((rc = weights_matrix(w, &l->ple_gate, false, g->ple, d, e, "blk.%u.inp_gate.weight", i)) != ERR_OK ||
            (rc = weights_matrix(w, &l->ple_out, false, d, g->ple, e, "blk.%u.proj.weight", i)) != ERR_OK ||
            (rc = weights_vector(w, &l->ple_post, false, d, e, "blk.%u.post_norm.weight", i)) != ERR_OK)
            return rc;
    }
    return ERR_OK;
}

static err_code set_layers(model *m, const gguf *g, err *e) {
    gemma4 *own = NULL;
    uint32_t *widths = NULL;
    err_code rc = model_take(m, &own, 1, sizeof *own, e);
    m->more = own;
    if (rc == ERR_OK) rc = model_take(m, &widths, m->hp.n_layer, sizeof *widths, e);
    if (rc == ERR_OK) rc = params_u32_layers(m, g, "feed_forward_length", 1, MODEL_WIDTH_MAX, widths, e);
    if (rc == ERR_OK)
        rc = params_u32_or(m, g, "embedding_length_per_layer_input", 0, MODEL_WIDTH_MAX / m->hp.n_layer, 0, &own->ple,
                           e);
    for (uint32_t i = 0; rc == ERR_OK && i < m->hp.n_layer; i++) {
        model_layer *l = &m->layers[i];
        l->f = (ffn){.act = ACT_GEGLU, .width = widths[i]};
        l->after = after_layer;
        rc = model_take(m, &l->more, 1, sizeof(gemma4_layer), e);
    }
    if (rc != ERR_OK) return rc;
    need_at_least(&m->need.aux[PLE_ALL], 2ull * own->ple * m->hp.n_layer); /* a second half while they are made */
    need_at_least(&m->need.aux[PLE_GATE], own->ple);
    need_at_least(&m->need.aux[PLE_SLICE], own->ple);
    need_at_least(&m->need.acts, own->ple);
    return ERR_OK;
}

/* The router sees norm(x) / sqrt(d) times its scale. */
static err_code scale_router_norm(model *m, gemma4_layer *l, err *e) {
    uint32_t d = m->hp.d_model;
    float *scaled = NULL;
    if (!l->router_norm) return ERR_OK;
    err_code rc = model_take(m, &scaled, d, sizeof *scaled, e);
    for (uint32_t k = 0; rc == ERR_OK && k < d; k++) scaled[k] = l->router_norm[k] / sqrtf((float)d);
    if (rc == ERR_OK) l->router_norm = scaled;
    return rc;
}

static err_code gemma4_load(model *m, const gguf *g, err *e) {
    const decoder_parts p = {.post_norms = HAS, .qk_norm = HAS, .v_is_k = true, .output = HAS_MAYBE};
    uint32_t rot_near = 0;
    err_code rc;
    if ((rc = params_common(m, g, e)) != ERR_OK ||
        (rc = params_f32_or(m, g, "final_logit_softcapping", 0, 1e6f, 0, &m->hp.logit_cap, e)) != ERR_OK ||
        (rc = set_layers(m, g, e)) != ERR_OK || (rc = read_windows(m, g, e)) != ERR_OK ||
        (rc = read_heads(m, g, &rot_near, e)) != ERR_OK || (rc = share_kv(m, g, e)) != ERR_OK ||
        (rc = set_experts(m, g, e)) != ERR_OK)
        return rc;
    m->hp.embd_scale = sqrtf((float)m->hp.d_model);
    const rope_wish full = {m->hp.n_rot, true, true, "freq_base", 1000000, false};
    const rope_wish near = {rot_near, true, false, "freq_base_swa", 10000, false};
    if ((rc = rope_load(m, g, 0, &full, e)) != ERR_OK || (rc = rope_load(m, g, 1, &near, e)) != ERR_OK ||
        (rc = decoder_load_with(m, g, &p, take_more, e)) != ERR_OK)
        return rc;
    for (uint32_t i = 0; rc == ERR_OK && i < m->hp.n_layer; i++) rc = scale_router_norm(m, m->layers[i].more, e);
    if (rc != ERR_OK) return rc;
    point_at_shared(m);
    return ERR_OK;
}

static void gemma4_run(const model *m, step *st) {
    const gemma4 *g = m->more;
    decoder_begin(m, st);
    if (g->ple) {
        ple_job j = {m, st, 0};
        uint32_t width = m->hp.n_layer * g->ple;
        block_linear(st, g->ple_proj, st->aux[PLE_ALL], width, st->x, m->hp.d_model, st->n_rows);
        block_rows(st, st->n_rows, width, mix_rows, &j);
    }
    decoder_layers(m, st);
}

const arch arch_gemma4 = {"gemma4", gemma4_load, gemma4_run};
