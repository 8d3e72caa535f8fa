/* Encoders: every token sees the whole text, and what comes out are rows, not logits.
 *
 *   x = norm(embd[token] + type[of the token] + position[at])
 *   each layer:  x = norm(x + Wo att(x));  x = norm(x + ffn(x))
 *
 * where a norm is LayerNorm with scale and bias, after what is added. bert (BERT, RoBERTa, XLM-RoBERTa: BGE, E5,
 * MiniLM): learned positions, biases everywhere, GELU. nomic-bert: positions by rotation of halves, no biases, SwiGLU.
 *
 * Token types: all are of the first type, but for the second text of a pair in a model that ranks, which is what such
 * models saw in training (llama.cpp gives the first type to both).
 *
 * No layer needs the keys of an earlier one, so all share one place in the pages.
 */
#include "engine/models/models.h"
#include "engine/pooling.h"
#include "engine/vocab/vocab_keys.h"

#include <string.h>

typedef struct bert {
    const float *types; /* (n_types, d_model); NULL: none */
    uint32_t n_types;
    const float *positions; /* (n_ctx_train, d_model); NULL: by rotation */
    const float *norm, *norm_bias;
    int32_t sep; /* the second text of a pair begins after it; -1: unknown */
} bert;

typedef struct bert_layer {
    const float *attn_bias, *out_bias; /* of the two norms, whose scales are attn_norm and ffn_norm */
} bert_layer;

/* ---- loading ---------------------------------------------------------------------------------------------- */

static err_code take_embedding(model *m, weights *w, bert *b, bool positions, err *e) {
    const hparams *h = &m->hp;
    uint32_t d = h->d_model;
    const gguf_tensor *types = gguf_tensor_find(w->g, "token_types.weight");
    err_code rc;
    b->n_types = types && types->dims[1] < UINT16_MAX ? (uint32_t)types->dims[1] : 1;
    if ((rc = weights_matrix(w, &m->embd, false, h->n_vocab, d, e, "token_embd.weight")) != ERR_OK ||
        (rc = weights_floats(w, &b->types, true, 1, b->n_types, d, e, "token_types.weight")) != ERR_OK ||
        (rc = weights_vector(w, &b->norm, false, d, e, "token_embd_norm.weight")) != ERR_OK ||
        (rc = weights_vector(w, &b->norm_bias, false, d, e, "token_embd_norm.bias")) != ERR_OK || !positions)
        return rc;
    return weights_floats(w, &b->positions, false, 1, h->n_ctx_train, d, e, "position_embd.weight");
}

static err_code take_layer(model *m, weights *w, const decoder_parts *p, uint32_t i, err *e) {
    model_layer *l = &m->layers[i];
    bert_layer *more;
    uint32_t d = m->hp.d_model;
    err_code rc = model_take(m, &l->more, 1, sizeof(bert_layer), e);
    if (rc != ERR_OK) return rc;
    more = l->more;
    memset(m->need.page, 0, sizeof m->need.page); /* each layer's keys lie where the last one's did */
    if ((rc = decoder_take_attn(m, w, p, i, e)) != ERR_OK ||
        (rc = decoder_take_ffn(m, w, p, &l->f, i, "", e)) != ERR_OK ||
        (rc = weights_vector(w, &l->attn_norm, false, d, e, "blk.%u.attn_output_norm.weight", i)) != ERR_OK ||
        (rc = weights_vector(w, &more->attn_bias, false, d, e, "blk.%u.attn_output_norm.bias", i)) != ERR_OK ||
        (rc = weights_vector(w, &l->ffn_norm, false, d, e, "blk.%u.layer_output_norm.weight", i)) != ERR_OK)
        return rc;
    return weights_vector(w, &more->out_bias, false, d, e, "blk.%u.layer_output_norm.bias", i);
}

static err_code take_all(model *m, weights *w, const decoder_parts *p, bool positions, err *e) {
    need_at_least(&m->need.acts, m->hp.d_model);
    err_code rc = take_embedding(m, w, m->more, positions, e);
    for (uint32_t i = 0; rc == ERR_OK && i < m->hp.n_layer; i++) rc = take_layer(m, w, p, i, e);
    if (rc == ERR_OK) rc = pooling_take(m, w, e);
    return rc;
}

static err_code encoder_load(model *m, const gguf *g, const decoder_parts *p, bool positions, err *e) {
    weights w = {0};
    uint32_t sep = UINT32_MAX;
    err_code rc = model_take(m, &m->more, 1, sizeof(bert), e);
    if (rc == ERR_OK) rc = gguf_u32_or(g, KEY_SEP, 0, UINT32_MAX, UINT32_MAX, &sep, e);
    if (rc != ERR_OK) return rc;
    ((bert *)m->more)->sep = sep < m->hp.n_vocab ? (int32_t)sep : -1;
    if (m->hp.d_ff == 0)
        return err_set(e, ERR_INVALID, "%s: key %s.feed_forward_length is missing", gguf_path(g), m->arch->name);
    rc = weights_new(&w, m, g, e);
    if (rc == ERR_OK) rc = take_all(m, &w, p, positions, e);
    if (rc == ERR_OK) rc = weights_load(&w, e);
    if (rc == ERR_OK) rc = pooling_finish(m, e);
    weights_free(&w);
    return rc;
}

static err_code bert_load(model *m, const gguf *g, err *e) {
    const decoder_parts p = {.qkv_bias = HAS, .out_bias = HAS, .ffn_bias = HAS};
    err_code rc = params_common(m, g, e);
    if (rc != ERR_OK) return rc;
    m->hp.encoder = true;
    for (uint32_t i = 0; i < m->hp.n_layer; i++) {
        m->layers[i].a.rope = -1;
        m->layers[i].f.act = ACT_GELU;
    }
    return encoder_load(m, g, &p, true, e);
}

static err_code nomic_bert_load(model *m, const gguf *g, err *e) {
    const decoder_parts p = {.fused_qkv = true, .out_bias = HAS_MAYBE, .ffn_bias = HAS_MAYBE};
    err_code rc = params_common(m, g, e);
    if (rc != ERR_OK) return rc;
    const rope_wish r = {m->hp.n_rot, true, true, "freq_base", 10000, false};
    m->hp.encoder = true;
    rc = rope_load(m, g, 0, &r, e);
    return rc != ERR_OK ? rc : encoder_load(m, g, &p, false, e);
}

/* ---- running ---------------------------------------------------------------------------------------------- */

/* x += type + position, token by token. */
static void add_places(const model *m, step *st) {
    const bert *b = m->more;
    uint32_t d = m->hp.d_model;
    bool pairs = m->facts.pooling == POOLING_RANK && b->n_types > 1 && b->sep >= 0;
    for (uint32_t s = 0; s < st->n_spans; s++) {
        const span *sp = &st->spans[s];
        uint32_t type = 0;
        for (uint32_t i = 0; i < sp->n; i++) {
            float *x = st->x + (size_t)(sp->row + i) * d;
            if (b->types) st->vec->add(x, b->types + (size_t)type * d, d);
            if (b->positions) st->vec->add(x, b->positions + (size_t)(sp->pos + i) * d, d);
            if (pairs && st->tokens[sp->row + i] == b->sep) type = 1;
        }
    }
}

/* The stream is st->xn, what a block adds st->x. */
static void run_layer(const model *m, step *st, uint32_t i) {
    const hparams *h = &m->hp;
    const model_layer *l = &m->layers[i];
    const bert_layer *more = l->more;
    bool last = i + 1 == h->n_layer;
    uint32_t n = last ? st->n_out : st->n_rows, d = h->d_model;
    attn_mix(m, st, i, last);
    if (last) {
        block_gather_out(st, st->att, l->mix_width);
        block_gather_out(st, st->xn, d);
    }
    block_linear(st, l->a.wo, st->x, d, st->att, l->mix_width, n);
    block_bias(st, st->x, l->a.bo, n, d);
    block_add(st, st->x, st->xn, n, d);
    block_layer_norm(st, st->xn, st->x, l->attn_norm, more->attn_bias, n, d, h->rms_eps);
    block_ffn(m, st, &l->f, st->x, st->xn, n);
    block_add(st, st->x, st->xn, n, d);
    block_layer_norm(st, last ? st->out : st->xn, st->x, l->ffn_norm, more->out_bias, n, d, h->rms_eps);
}

static void encoder_run(const model *m, step *st) {
    const bert *b = m->more;
    if (st->n_out == 0) return; /* nothing is stored for later tokens: there are none */
    block_embed(m, st);
    add_places(m, st);
    rope_tables(m, st);
    block_layer_norm(st, st->xn, st->x, b->norm, b->norm_bias, st->n_rows, m->hp.d_model, m->hp.rms_eps);
    for (uint32_t i = 0; i < m->hp.n_layer; i++) run_layer(m, st, i);
}

const arch arch_bert = {"bert", bert_load, encoder_run};
const arch arch_nomic_bert = {"nomic-bert", nomic_bert_load, encoder_run};
