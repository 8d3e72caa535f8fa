/* The llama architecture: pre-norm blocks of grouped-query attention with rotary positions on neighbouring pairs, and
 * of SwiGLU; RMS norms; tied or separate output; biases where the file has them. Also what many other families' files
 * call themselves (Mistral 7B, TinyLlama, SmolLM, …).
 *
 *   x = embd[token]
 *   each layer:  h = norm(x);  q, k, v = Wq h, Wk h, Wv h;  x += Wo attention(rope q, rope k, v)
 *                h = norm(x);  x += Wdown (silu(Wgate h) * Wup h)
 *   logits = Wout norm(x)
 */
#include "engine/models/models.h"

#include "engine/num.h"

static err_code read_hparams(hparams *h, const gguf *g, err *e) {
    err_code rc;
    uint32_t experts = 0;
    if ((rc = gguf_u32(g, "llama.block_count", 1, MODEL_LAYER_MAX, &h->n_layer, e)) != ERR_OK ||
        (rc = gguf_u32(g, "llama.embedding_length", 1, MODEL_WIDTH_MAX, &h->d_model, e)) != ERR_OK ||
        (rc = gguf_u32(g, "llama.context_length", 1, MODEL_CTX_MAX, &h->n_ctx_train, e)) != ERR_OK ||
        (rc = gguf_u32(g, "llama.feed_forward_length", 1, MODEL_WIDTH_MAX, &h->d_ff, e)) != ERR_OK ||
        (rc = gguf_u32(g, "llama.attention.head_count", 1, MODEL_HEAD_MAX, &h->n_head, e)) != ERR_OK ||
        (rc = gguf_u32_or(g, "llama.attention.head_count_kv", 1, MODEL_HEAD_MAX, h->n_head, &h->n_head_kv, e)) !=
            ERR_OK ||
        (rc = gguf_u32_or(g, "llama.expert_count", 0, UINT32_MAX, 0, &experts, e)) != ERR_OK)
        return rc;
    if (experts)
        return err_set(e, ERR_UNSUPPORTED, "%s: a llama model with %u experts; polder runs dense llama models",
                       gguf_path(g), experts);
    if (h->n_head % h->n_head_kv)
        return err_set(e, ERR_INVALID, "%s: %u attention heads cannot share %u key/value heads evenly", gguf_path(g),
                       h->n_head, h->n_head_kv);
    return ERR_OK;
}

static err_code read_head_sizes(hparams *h, const gguf *g, err *e) {
    err_code rc;
    uint32_t def = h->d_model / h->n_head;
    if (!gguf_has(g, "llama.attention.key_length") && (def == 0 || h->d_model % h->n_head))
        return err_set(e, ERR_INVALID, "%s: embedding length %u is not a multiple of %u heads", gguf_path(g),
                       h->d_model, h->n_head);
    if ((rc = gguf_u32_or(g, "llama.attention.key_length", 2, MODEL_HEAD_DIM_MAX, def, &h->head_k, e)) != ERR_OK ||
        (rc = gguf_u32_or(g, "llama.attention.value_length", 1, MODEL_HEAD_DIM_MAX, def, &h->head_v, e)) != ERR_OK ||
        (rc = gguf_u32_or(g, "llama.rope.dimension_count", 2, MODEL_HEAD_DIM_MAX, h->head_k, &h->n_rot, e)) != ERR_OK)
        return rc;
    if (h->head_k < 1 || h->head_k > MODEL_HEAD_DIM_MAX || h->head_v < 1 || h->head_v > MODEL_HEAD_DIM_MAX)
        return err_set(e, ERR_INVALID, "%s: attention heads of size %u; polder takes 1 to %d", gguf_path(g), h->head_k,
                       MODEL_HEAD_DIM_MAX);
    if (h->n_rot % 2 || h->n_rot < 2 || h->n_rot > h->head_k)
        return err_set(e, ERR_INVALID,
                       "%s: llama.rope.dimension_count is %u; it must be even and at most the key size %u",
                       gguf_path(g), h->n_rot, h->head_k);
    if ((uint64_t)h->n_head * h->head_k > MODEL_WIDTH_MAX || (uint64_t)h->n_head * h->head_v > MODEL_WIDTH_MAX)
        return err_set(e, ERR_INVALID, "%s: %u heads of size %u and %u are wider than %u", gguf_path(g), h->n_head,
                       h->head_k, h->head_v, MODEL_WIDTH_MAX);
    return ERR_OK;
}

static err_code read_numbers(hparams *h, const gguf *g, err *e) {
    const char *eps = "llama.attention.layer_norm_rms_epsilon";
    err_code rc;
    if (!gguf_has(g, eps)) return err_set(e, ERR_INVALID, "%s: key %s is missing", gguf_path(g), eps);
    if ((rc = gguf_f32_or(g, eps, 0, &h->rms_eps, e)) != ERR_OK ||
        (rc = gguf_f32_or(g, "llama.attention.scale", 0, &h->attn_scale, e)) != ERR_OK)
        return rc;
    if (!(h->rms_eps >= 0 && h->rms_eps < 1))
        return err_set(e, ERR_INVALID, "%s: %s is %g; it must be from 0 to 1", gguf_path(g), eps, (double)h->rms_eps);
    if (h->attn_scale == 0) h->attn_scale = 1.0f / sqrtf((float)h->head_k);
    return ERR_OK;
}

static err_code take_layer(const hparams *h, layer_weights *l, uint32_t i, weights *w, err *e) {
    err_code rc;
    uint32_t d = h->d_model, nq = h->n_head * h->head_k, nk = h->n_head_kv * h->head_k, nv = h->n_head_kv * h->head_v,
             no = h->n_head * h->head_v;
    if ((rc = weights_vector(w, &l->attn_norm, false, d, e, "blk.%u.attn_norm.weight", i)) != ERR_OK ||
        (rc = weights_matrix(w, &l->wq, false, nq, d, e, "blk.%u.attn_q.weight", i)) != ERR_OK ||
        (rc = weights_matrix(w, &l->wk, false, nk, d, e, "blk.%u.attn_k.weight", i)) != ERR_OK ||
        (rc = weights_matrix(w, &l->wv, false, nv, d, e, "blk.%u.attn_v.weight", i)) != ERR_OK ||
        (rc = weights_matrix(w, &l->wo, false, d, no, e, "blk.%u.attn_output.weight", i)) != ERR_OK ||
        (rc = weights_vector(w, &l->bq, true, nq, e, "blk.%u.attn_q.bias", i)) != ERR_OK ||
        (rc = weights_vector(w, &l->bk, true, nk, e, "blk.%u.attn_k.bias", i)) != ERR_OK ||
        (rc = weights_vector(w, &l->bv, true, nv, e, "blk.%u.attn_v.bias", i)) != ERR_OK ||
        (rc = weights_vector(w, &l->bo, true, d, e, "blk.%u.attn_output.bias", i)) != ERR_OK ||
        (rc = weights_vector(w, &l->ffn_norm, false, d, e, "blk.%u.ffn_norm.weight", i)) != ERR_OK ||
        (rc = weights_matrix(w, &l->gate, false, h->d_ff, d, e, "blk.%u.ffn_gate.weight", i)) != ERR_OK ||
        (rc = weights_matrix(w, &l->up, false, h->d_ff, d, e, "blk.%u.ffn_up.weight", i)) != ERR_OK ||
        (rc = weights_matrix(w, &l->down, false, d, h->d_ff, e, "blk.%u.ffn_down.weight", i)) != ERR_OK ||
        (rc = weights_vector(w, &l->bgate, true, h->d_ff, e, "blk.%u.ffn_gate.bias", i)) != ERR_OK ||
        (rc = weights_vector(w, &l->bup, true, h->d_ff, e, "blk.%u.ffn_up.bias", i)) != ERR_OK ||
        (rc = weights_vector(w, &l->bdown, true, d, e, "blk.%u.ffn_down.bias", i)) != ERR_OK)
        return rc;
    return ERR_OK;
}

static err_code take_all(model *m, weights *w, float **rope_factors, err *e) {
    const hparams *h = &m->hp;
    err_code rc;
    if ((rc = weights_matrix(w, &m->embd, false, h->n_vocab, h->d_model, e, "token_embd.weight")) != ERR_OK ||
        (rc = weights_vector(w, &m->output_norm, false, h->d_model, e, "output_norm.weight")) != ERR_OK ||
        (rc = weights_matrix(w, &m->output, true, h->n_vocab, h->d_model, e, "output.weight")) != ERR_OK ||
        (rc = weights_vector(w, rope_factors, true, h->n_rot / 2, e, "rope_freqs.weight")) != ERR_OK)
        return rc;
    for (uint32_t i = 0; i < h->n_layer; i++)
        if ((rc = take_layer(h, &m->layers[i], i, w, e)) != ERR_OK) return rc;
    if ((rc = weights_check_all_used(w, "llama", e)) != ERR_OK) return rc;
    return weights_load(w, e);
}

static err_code llama_load(model *m, const gguf *g, err *e) {
    weights w = {0};
    float *rope_factors = NULL;
    err_code rc;
    if ((rc = read_hparams(&m->hp, g, e)) != ERR_OK || (rc = read_head_sizes(&m->hp, g, e)) != ERR_OK ||
        (rc = read_numbers(&m->hp, g, e)) != ERR_OK || (rc = rope_load(m, g, "llama", e)) != ERR_OK ||
        (rc = weights_new(&w, g, e)) != ERR_OK)
        return rc;
    m->layers = mem_array(m->hp.n_layer, sizeof *m->layers);
    rc = m->layers ? take_all(m, &w, &rope_factors, e) : err_nomem(e, "a model's layers");
    if (rc == ERR_OK && !m->output) m->output = m->embd;
    if (rc == ERR_OK && rope_factors) rc = rope_apply_factors(m, g, rope_factors, e);
    mem_free(rope_factors);
    weights_free(&w);
    return rc;
}

/* Query, key and value of all rows, then into the pages. */
static void run_qkv(const model *m, step *st, uint32_t layer) {
    const hparams *h = &m->hp;
    const layer_weights *l = &m->layers[layer];
    uint32_t nq = h->n_head * h->head_k, nk = h->n_head_kv * h->head_k, nv = h->n_head_kv * h->head_v;
    block_norm(st, st->xn, st->x, l->attn_norm, st->n_rows, h->d_model, h->rms_eps);
    acts_set(st->acts, st->pool, st->xn, h->d_model, st->n_rows, h->d_model);
    const matmul ops[3] = {{l->wq, st->q, nq}, {l->wk, st->k, nk}, {l->wv, st->v, nv}};
    matrix_mul(st->pool, ops, 3, st->acts);
    block_bias(st, st->q, l->bq, st->n_rows, nq);
    block_bias(st, st->k, l->bk, st->n_rows, nk);
    block_bias(st, st->v, l->bv, st->n_rows, nv);
    block_rope_store(m, st, layer);
}

/* x[0 … n) += Wo att */
static void run_attention_out(const model *m, step *st, const layer_weights *l, uint32_t n) {
    const hparams *h = &m->hp;
    uint32_t no = h->n_head * h->head_v;
    acts_set(st->acts, st->pool, st->att, no, n, no);
    matrix_mul(st->pool, &(matmul){l->wo, st->xn, h->d_model}, 1, st->acts);
    block_bias(st, st->xn, l->bo, n, h->d_model);
    block_add(st, st->x, st->xn, n, h->d_model);
}

static void run_ffn(const model *m, step *st, const layer_weights *l, uint32_t n) {
    const hparams *h = &m->hp;
    block_norm(st, st->xn, st->x, l->ffn_norm, n, h->d_model, h->rms_eps);
    acts_set(st->acts, st->pool, st->xn, h->d_model, n, h->d_model);
    const matmul ops[2] = {{l->gate, st->gate, h->d_ff}, {l->up, st->up, h->d_ff}};
    matrix_mul(st->pool, ops, 2, st->acts);
    block_bias(st, st->gate, l->bgate, n, h->d_ff);
    block_bias(st, st->up, l->bup, n, h->d_ff);
    block_swiglu(st, st->gate, st->up, n, h->d_ff);
    acts_set(st->acts, st->pool, st->gate, h->d_ff, n, h->d_ff);
    matrix_mul(st->pool, &(matmul){l->down, st->xn, h->d_model}, 1, st->acts);
    block_bias(st, st->xn, l->bdown, n, h->d_model);
    block_add(st, st->x, st->xn, n, h->d_model);
}

static void llama_run(const model *m, step *st) {
    const hparams *h = &m->hp;
    block_embed(m, st);
    rope_tables(m, st);
    for (uint32_t i = 0; i < h->n_layer; i++) {
        bool last = i + 1 == h->n_layer;
        uint32_t n = last ? st->n_out : st->n_rows;
        run_qkv(m, st, i);
        if (n == 0) return; /* keys and values are stored; nobody reads further */
        block_attention(m, st, i, last);
        if (last) {
            block_gather_out(st, st->att, h->n_head * h->head_v);
            block_gather_out(st, st->x, h->d_model);
        }
        run_attention_out(m, st, &m->layers[i], n);
        run_ffn(m, st, &m->layers[i], n);
    }
    block_norm(st, st->xn, st->x, m->output_norm, st->n_out, h->d_model, h->rms_eps);
    acts_set(st->acts, st->pool, st->xn, h->d_model, st->n_out, h->d_model);
    matrix_mul(st->pool, &(matmul){m->output, st->logits, h->n_vocab}, 1, st->acts);
}

const arch arch_llama = {"llama", llama_load, llama_run};
