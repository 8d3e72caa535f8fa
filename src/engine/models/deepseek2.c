/* deepseek2: DeepSeek V2, V3 and R1, Kimi K2. Latent attention (MLA, arXiv 2405.04434, section 2.1), experts behind
 * leading dense layers, rotation of neighbouring pairs.
 *
 * What a position leaves behind is one latent c (rank) and one rotated key k_r (rope), shared by all heads. A head h
 * has keys K_h c (nope) beside k_r, and values V_h c (v). Neither is ever made: with q = [q_n | q_r]
 *     score = q_n K_h c + q_r k_r = [K_h' q_n | q_r] [c | k_r]        output = sum w V_h c = V_h (sum w c)
 * so attention runs with one key/value head whose key is [c | k_r] and whose value is c. The pages hold c twice, once
 * in the layout of keys and once in that of values (attn_tile reads both), which is still 1/28 of DeepSeek V3's
 * expanded keys and values.
 *
 * Files store K and V in one of two forms: `attn_k_b` (n_head, rank, nope) with `attn_v_b` (n_head, v, rank), K_h being
 * transposed already; or older, `attn_kv_b` with K_h (nope, rank) and V_h (v, rank) of each head one above another.
 * There K_h is transposed while loading, which a quantised type does not survive: it becomes binary32. */
#include "engine/models/models.h"

#include "engine/num.h"

#include <stdio.h>
#include <string.h>

typedef struct sizes { /* model.more */
    uint32_t nope, rope, v, rank;
    uint32_t q_rank; /* 0: queries come straight from x */
    uint32_t key;    /* nope + rope */
} sizes;

typedef struct mla {      /* model_layer.more */
    matrix *q_a;          /* (q_rank, d_model) */
    matrix *q;            /* (n_head * key, q_rank or d_model) */
    matrix *kv_a;         /* (rank + rope, d_model) */
    const float *q_norm;  /* (q_rank) */
    const float *kv_norm; /* (rank) */
    matrix **k_b;         /* (n_head) of (rank, nope) */
    matrix **v_b;         /* (n_head) of (v, rank) */
} mla;

/* ---- running ---------------------------------------------------------------------------------------------- */

/* aux[0] = query heads (n_head, nope + rope); k = [latent | key to rotate]; aux[1] = the compressed query. */
static void project(const model *m, step *st, const sizes *z, const mla *p) {
    uint32_t d = m->hp.d_model, n_q = m->hp.n_head * z->key;
    const matmul kv = {.m = p->kv_a, .y = st->k, .ldy = z->rank + z->rope};
    acts_set(st->acts, st->pool, st->xn, d, st->n_rows, d);
    if (!p->q_a) {
        matrix_mul(st->pool, (matmul[2]){{.m = p->q, .y = st->aux[0], .ldy = n_q}, kv}, 2, st->acts);
        return;
    }
    matrix_mul(st->pool, (matmul[2]){{.m = p->q_a, .y = st->aux[1], .ldy = z->q_rank}, kv}, 2, st->acts);
    block_norm(st, st->aux[1], st->aux[1], p->q_norm, st->n_rows, z->q_rank, m->hp.rms_eps);
    block_linear(st, p->q, st->aux[0], n_q, st->aux[1], z->q_rank, st->n_rows);
}

typedef struct place_job {
    const model *m;
    const step *st;
    const sizes *z;
    const model_layer *l;
} place_job;

/* q_r of all heads goes rotated to where attention reads it; the q_n close ranks, so that the blocks of 32 that
 * quantising cuts a row into begin with a head. */
static void place_query(const place_job *j, size_t row) {
    const sizes *z = j->z;
    uint32_t n_head = j->m->hp.n_head, head_k = z->rank + z->rope;
    float *from = j->st->aux[0] + row * n_head * z->key, *q = j->st->q + row * n_head * head_k;
    for (uint32_t h = 0; h < n_head; h++) {
        float *head = from + (size_t)h * z->key, *turned = q + (size_t)h * head_k + z->rank;
        memcpy(turned, head + z->nope, z->rope * sizeof *turned);
        rope_head(j->m, j->st, 0, row, turned);
        memmove(from + (size_t)h * z->nope, head, z->nope * sizeof *head);
    }
}

static void place_key(const place_job *j, const span *sp, size_t row) {
    const sizes *z = j->z;
    const step *st = j->st;
    uint32_t pos = sp->pos + (uint32_t)(row - sp->row);
    float *k = st->k + row * (z->rank + z->rope);
    st->vec->rms_norm(k, k, ((const mla *)j->l->more)->kv_norm, z->rank, j->m->hp.rms_eps);
    rope_head(j->m, st, 0, row, k + z->rank);
    kv_put(j->m, st, &j->l->a, attn_tile_at(j->m, st, &j->l->a, sp, pos / VEC_TILE, 0), pos % VEC_TILE, k, k);
}

static void place_rows(void *ctx, size_t begin, size_t end, unsigned thread) {
    (void)thread;
    const place_job *j = ctx;
    for (uint32_t s = 0; s < j->st->n_spans; s++) {
        const span *sp = &j->st->spans[s];
        size_t first = begin > sp->row ? begin : sp->row, past = sp->row + (size_t)sp->n;
        for (size_t row = first; row < end && row < past; row++) {
            place_query(j, row);
            place_key(j, sp, row);
        }
    }
}

/* y[t][h] = ms[h] x[t][h] for rows [first, first + n); x[t] holds heads of ms' columns, y[t] heads y_head apart. */
static void head_products(const model *m, step *st, matrix *const *ms, const float *x, size_t ldx, float *y,
                          uint32_t y_head, uint32_t first, uint32_t n) {
    uint32_t n_head = m->hp.n_head, cols = matrix_cols(ms[0]);
    size_t ldy = (size_t)n_head * y_head;
    for (uint32_t h = 0; h < n_head; h++)
        st->ops[h] = (matmul){.m = ms[h], .y = y + first * ldy + (size_t)h * y_head, .ldy = ldy, .col = h * cols};
    acts_set(st->acts, st->pool, x + first * ldx, ldx, n, n_head * cols);
    matrix_mul(st->pool, st->ops, n_head, st->acts);
}

static void mla_mix(const model *m, step *st, uint32_t layer, bool last) {
    const model_layer *l = &m->layers[layer];
    const sizes *z = m->more;
    const mla *p = l->more;
    uint32_t n_head = m->hp.n_head;
    place_job j = {m, st, z, l};
    project(m, st, z, p);
    block_rows(st, st->n_rows, n_head * z->key, place_rows, &j);
    if (last && !st->n_out) return;
    head_products(m, st, p->k_b, st->aux[0], (size_t)n_head * z->key, st->q, z->rank + z->rope, 0, st->n_rows);
    step latent = *st;
    latent.att = st->aux[2]; /* (n_rows, n_head, rank) */
    attn_read(m, &latent, &l->a, last);
    size_t ldx = (size_t)n_head * z->rank;
    if (!last || st->n_out == st->n_rows) {
        head_products(m, st, p->v_b, st->aux[2], ldx, st->att, z->v, 0, st->n_rows);
        return;
    }
    for (uint32_t s = 0; s < st->n_spans; s++) {
        const span *sp = &st->spans[s];
        if (sp->n_out)
            head_products(m, st, p->v_b, st->aux[2], ldx, st->att, z->v, sp->row + sp->n - sp->n_out, sp->n_out);
    }
}

/* ---- hyperparameters -------------------------------------------------------------------------------------- */

/* With `key_length_mla` in the file, key_length and value_length are those of [c | k_r] and c; without, of a head. */
static err_code read_lengths(const model *m, const gguf *g, sizes *z, err *e) {
    const hparams *h = &m->hp;
    err_code rc;
    z->key = h->head_k;
    z->v = h->head_v;
    if (!params_has(m, g, "attention.key_length_mla")) return ERR_OK;
    if ((rc = params_u32(m, g, "attention.key_length_mla", 1, MODEL_HEAD_DIM_MAX, &z->key, e)) != ERR_OK ||
        (rc = params_u32(m, g, "attention.value_length_mla", 1, MODEL_HEAD_DIM_MAX, &z->v, e)) != ERR_OK)
        return rc;
    if (h->head_k == z->rank + z->rope && h->head_v == z->rank) return ERR_OK;
    return err_set(e, ERR_INVALID,
                   "%s: key and value lengths %u and %u contradict a latent of %u and %u rotated elements; with "
                   "deepseek2.attention.key_length_mla they must be %u and %u",
                   gguf_path(g), h->head_k, h->head_v, z->rank, z->rope, z->rank + z->rope, z->rank);
}

static err_code read_sizes(model *m, const gguf *g, sizes *z, err *e) {
    hparams *h = &m->hp;
    err_code rc;
    if ((rc = params_u32(m, g, "attention.kv_lora_rank", 1, MODEL_HEAD_DIM_MAX, &z->rank, e)) != ERR_OK ||
        (rc = params_u32_or(m, g, "attention.q_lora_rank", 0, MODEL_WIDTH_MAX, 0, &z->q_rank, e)) != ERR_OK ||
        (rc = params_u32(m, g, "rope.dimension_count", 2, MODEL_HEAD_DIM_MAX, &z->rope, e)) != ERR_OK ||
        (rc = read_lengths(m, g, z, e)) != ERR_OK)
        return rc;
    if (z->key <= z->rope)
        return err_set(e, ERR_INVALID, "%s: keys of %u elements have none beside the %u that are rotated", gguf_path(g),
                       z->key, z->rope);
    z->nope = z->key - z->rope;
    if (z->rank + z->rope > MODEL_HEAD_DIM_MAX)
        return err_set(e, ERR_INVALID, "%s: a latent of %u and %u rotated elements; polder takes %d together",
                       gguf_path(g), z->rank, z->rope, MODEL_HEAD_DIM_MAX);
    uint32_t widest = z->key > z->v ? z->key : z->v;
    widest = widest > z->rank + z->rope ? widest : z->rank + z->rope;
    if ((uint64_t)h->n_head * widest > MODEL_WIDTH_MAX)
        return err_set(e, ERR_INVALID, "%s: %u heads of size %u are wider than %u", gguf_path(g), h->n_head, widest,
                       MODEL_WIDTH_MAX);
    h->n_head_kv = 1;
    h->head_k = z->rank + z->rope;
    h->head_v = z->rank;
    if (!params_has(m, g, "attention.scale")) h->attn_scale = 1.0f / sqrtf((float)z->key);
    return ERR_OK;
}

/* With YaRN and mscale_all_dim = a, DeepSeek multiplies scores by (1 + 0.1 a ln factor)^2 and leaves cos and sin alone
 * (its models have mscale = mscale_all_dim, and the two cancel there). Files hold 0.1 a. */
static err_code read_rope(model *m, const gguf *g, const sizes *z, err *e) {
    const rope_wish wish = {z->rope, false, true, "freq_base", 10000, false};
    rope *r = &m->rope[0];
    float tenth = 0, attn_factor = 1;
    err_code rc;
    if ((rc = rope_load(m, g, 0, &wish, e)) != ERR_OK ||
        (rc = params_f32_or(m, g, "rope.scaling.yarn_log_multiplier", 0, 100, 0, &tenth, e)) != ERR_OK ||
        (rc = params_f32_or(m, g, "rope.scaling.attn_factor", 1e-3f, 1e3f, 1, &attn_factor, e)) != ERR_OK)
        return rc;
    if (r->yarn <= 1 || tenth == 0) return ERR_OK;
    double magnitude = 1 + (double)tenth * num_log(r->yarn);
    r->mscale = (double)attn_factor;
    m->hp.attn_scale = (float)((double)m->hp.attn_scale * magnitude * magnitude);
    return ERR_OK;
}

/* DeepSeek V2, known by its softmax, takes a group for as good as its best expert ("group_limited_greedy"); V3 adds a
 * group's two best ("noaux_tc"). */
static err_code read_experts(model *m, const gguf *g, err *e) {
    moe o = {.act = ACT_SWIGLU, .gate = GATING_SOFTMAX};
    uint32_t n_dense = 0, n_shared = 0;
    err_code rc = params_u32_or(m, g, "leading_dense_block_count", 0, m->hp.n_layer, 0, &n_dense, e);
    if (rc != ERR_OK || n_dense == m->hp.n_layer) return rc;
    if ((rc = params_moe(m, g, &o, e)) != ERR_OK ||
        (rc = params_u32_or(m, g, "expert_shared_count", 0, MODEL_EXPERT_MAX, 0, &n_shared, e)) != ERR_OK)
        return rc;
    o.group_max = o.gate == GATING_SOFTMAX;
    if ((uint64_t)n_shared * o.width > MODEL_WIDTH_MAX)
        return err_set(e, ERR_INVALID, "%s: %u shared experts of width %u are wider than %u", gguf_path(g), n_shared,
                       o.width, MODEL_WIDTH_MAX);
    return moe_give(m, &o, n_shared * o.width, n_dense, 1, e);
}

static err_code prepare_layers(model *m, const sizes *z, err *e) {
    const hparams *h = &m->hp;
    err_code rc = ERR_OK;
    for (uint32_t i = 0; rc == ERR_OK && i < h->n_layer; i++) {
        model_layer *l = &m->layers[i];
        l->a = (attn){.n_head = h->n_head,
                      .n_head_kv = 1,
                      .head_k = h->head_k,
                      .head_v = h->head_v,
                      .rope = -1,
                      .scale = h->attn_scale};
        attn_reserve(m, &l->a);
        l->mix = mla_mix;
        l->mix_width = h->n_head * z->v;
        rc = model_take(m, &l->more, 1, sizeof(mla), e);
    }
    needs *n = &m->need;
    need_at_least(&n->q, (uint64_t)h->n_head * h->head_k);
    need_at_least(&n->k, h->head_k);
    need_at_least(&n->att, (uint64_t)h->n_head * z->v);
    need_at_least(&n->aux[0], (uint64_t)h->n_head * z->key);
    need_at_least(&n->aux[1], z->q_rank);
    need_at_least(&n->aux[2], (uint64_t)h->n_head * z->rank);
    need_at_least(&n->acts, (uint64_t)h->n_head * (z->nope > z->rank ? z->nope : z->rank));
    need_at_least(&n->acts, (uint64_t)h->n_head * z->v);
    need_at_least(&n->acts, z->q_rank);
    need_at_least(&n->ops, h->n_head);
    return rc;
}

/* ---- weights ---------------------------------------------------------------------------------------------- */

static err_code take_query(model *m, weights *w, const sizes *z, mla *p, uint32_t i, err *e) {
    uint32_t d = m->hp.d_model, rows = m->hp.n_head * z->key;
    err_code rc;
    if (!z->q_rank) return weights_matrix(w, &p->q, false, rows, d, e, "blk.%u.attn_q.weight", i);
    if ((rc = weights_matrix(w, &p->q_a, false, z->q_rank, d, e, "blk.%u.attn_q_a.weight", i)) != ERR_OK ||
        (rc = weights_vector(w, &p->q_norm, false, z->q_rank, e, "blk.%u.attn_q_a_norm.weight", i)) != ERR_OK)
        return rc;
    return weights_matrix(w, &p->q, false, rows, z->q_rank, e, "blk.%u.attn_q_b.weight", i);
}

static err_code take_layer(model *m, weights *w, uint32_t i, err *e) {
    const sizes *z = m->more;
    model_layer *l = &m->layers[i];
    mla *p = l->more;
    uint32_t d = m->hp.d_model, n_head = m->hp.n_head;
    err_code rc;
    if ((rc = take_query(m, w, z, p, i, e)) != ERR_OK ||
        (rc = weights_matrix(w, &p->kv_a, false, z->rank + z->rope, d, e, "blk.%u.attn_kv_a_mqa.weight", i)) !=
            ERR_OK ||
        (rc = weights_vector(w, &p->kv_norm, false, z->rank, e, "blk.%u.attn_kv_a_norm.weight", i)) != ERR_OK ||
        (rc = weights_matrix(w, &l->a.wo, false, d, n_head * z->v, e, "blk.%u.attn_output.weight", i)) != ERR_OK ||
        (rc = model_take(m, &p->k_b, n_head, sizeof *p->k_b, e)) != ERR_OK ||
        (rc = model_take(m, &p->v_b, n_head, sizeof *p->v_b, e)) != ERR_OK)
        return rc;
    if (weights_has(w, "blk.%u.attn_kv_b.weight", i)) /* taken by split_kv_b */
        return weights_matrices(w, NULL, false, 1, n_head * (z->nope + z->v), z->rank, e, "blk.%u.attn_kv_b.weight", i);
    rc = weights_matrices(w, p->k_b, false, n_head, z->rank, z->nope, e, "blk.%u.attn_k_b.weight", i);
    if (rc != ERR_OK) return rc;
    return weights_matrices(w, p->v_b, false, n_head, z->v, z->rank, e, "blk.%u.attn_v_b.weight", i);
}

static err_code take_latent(model *m, weights *w, err *e) {
    err_code rc = ERR_OK;
    for (uint32_t i = 0; rc == ERR_OK && i < m->hp.n_layer; i++) rc = take_layer(m, w, i, e);
    return rc;
}

/* K_h (nope, rank) of any type to (rank, nope) in binary32. scratch: 2 * nope * rank floats. */
static err_code transpose_k(matrix **out, const sizes *z, tensor_type type, const void *rows, float *scratch,
                            const char *name, err *e) {
    size_t n = (size_t)z->nope * z->rank;
    float *turned = scratch + n;
    tensor_expand(type, rows, scratch, n);
    for (uint32_t r = 0; r < z->nope; r++)
        for (uint32_t c = 0; c < z->rank; c++) turned[(size_t)c * z->nope + r] = scratch[(size_t)r * z->rank + c];
    return matrix_new(out, TT_F32, z->rank, z->nope, turned, name, e);
}

/* The heads of blk.i.attn_kv_b, whose shape is checked, become matrices that the model owns. */
static err_code split_kv_b(model *m, const gguf *g, const sizes *z, uint32_t i, float *scratch, err *e) {
    char name[GGUF_NAME_MAX + 1];
    const mla *p = m->layers[i].more;
    snprintf(name, sizeof name, "blk.%u.attn_kv_b.weight", i);
    const gguf_tensor *t = gguf_tensor_find(g, name);
    if (!t) return ERR_OK;
    err_code rc = ERR_OK;
    uint64_t row_bytes = t->n_bytes / t->dims[1];
    for (uint32_t h = 0; rc == ERR_OK && h < m->hp.n_head; h++) {
        const uint8_t *rows = t->data + (uint64_t)h * (z->nope + z->v) * row_bytes;
        if ((rc = transpose_k(&p->k_b[h], z, t->type, rows, scratch, name, e)) != ERR_OK ||
            (rc = weights_own(m, p->k_b[h], e)) != ERR_OK ||
            (rc = matrix_new(&p->v_b[h], t->type, z->v, z->rank, rows + z->nope * row_bytes, name, e)) != ERR_OK)
            return rc;
        rc = weights_own(m, p->v_b[h], e);
    }
    return rc;
}

static err_code split_all(model *m, const gguf *g, const sizes *z, err *e) {
    err_code rc = ERR_OK;
    float *scratch = mem_array(2 * (size_t)z->nope * z->rank, sizeof *scratch);
    if (!scratch) return err_nomem(e, "room to transpose a matrix");
    for (uint32_t i = 0; rc == ERR_OK && i < m->hp.n_layer; i++) rc = split_kv_b(m, g, z, i, scratch, e);
    mem_free(scratch);
    return rc == ERR_OK ? rc : err_prefix(e, "%s", gguf_path(g));
}

static err_code deepseek2_load(model *m, const gguf *g, err *e) {
    const decoder_parts parts = {.output = HAS_MAYBE};
    sizes *z = NULL;
    err_code rc;
    if ((rc = params_common(m, g, e)) != ERR_OK || (rc = model_take(m, &z, 1, sizeof *z, e)) != ERR_OK) return rc;
    m->more = z;
    if ((rc = read_sizes(m, g, z, e)) != ERR_OK || (rc = read_rope(m, g, z, e)) != ERR_OK ||
        (rc = read_experts(m, g, e)) != ERR_OK || (rc = prepare_layers(m, z, e)) != ERR_OK ||
        (rc = decoder_load_with(m, g, &parts, take_latent, e)) != ERR_OK)
        return rc;
    return split_all(m, g, z, e);
}

const arch arch_deepseek2 = {"deepseek2", deepseek2_load, decoder_run};
