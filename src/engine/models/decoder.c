/* The decoder that most architectures are: blocks of a mixer (attention, if nothing else is said) and a feed-forward
 * block, each behind an RMS norm and added to the stream x, some with a second norm on what is added.
 *
 *   x = embd_scale embd[token]
 *   each layer:  x += post_norm(Wo mix(norm x));  x += post_norm(ffn(norm x));  after(x)
 *   logits = cap(Wout norm x)
 */
#include "engine/models/models.h"
#include "engine/pooling.h"

#include <stdio.h>

/* ---- loading ---------------------------------------------------------------------------------------------- */

static err_code vector_if(weights *w, const float **out, has h, uint32_t n, err *e, uint32_t layer, const char *name) {
    return h == HAS_NOT ? ERR_OK : weights_vector(w, out, h == HAS_MAYBE, n, e, "blk.%u.%s", layer, name);
}

static err_code take_qkv(weights *w, const decoder_parts *p, attn *a, uint32_t d, uint32_t i, err *e) {
    uint32_t rows[3] = {a->n_head * a->head_k, a->n_head_kv * a->head_k, a->n_head_kv * a->head_v};
    matrix **outs[3] = {&a->wq, &a->wk, &a->wv};
    err_code rc;
    if (p->fused_qkv && weights_has(w, "blk.%u.attn_qkv.weight", i))
        return weights_split(w, outs, rows, 3, d, e, "blk.%u.attn_qkv.weight", i);
    if ((rc = weights_matrix(w, &a->wq, false, rows[0], d, e, "blk.%u.attn_q.weight", i)) != ERR_OK ||
        (rc = vector_if(w, &a->bq, p->qkv_bias, rows[0], e, i, "attn_q.bias")) != ERR_OK || a->reads_only)
        return rc;
    if ((rc = weights_matrix(w, &a->wk, false, rows[1], d, e, "blk.%u.attn_k.weight", i)) != ERR_OK ||
        (rc = weights_matrix(w, &a->wv, p->v_is_k, rows[2], d, e, "blk.%u.attn_v.weight", i)) != ERR_OK ||
        (rc = vector_if(w, &a->bk, p->qkv_bias, rows[1], e, i, "attn_k.bias")) != ERR_OK)
        return rc;
    return vector_if(w, &a->bv, p->qkv_bias, rows[2], e, i, "attn_v.bias");
}

err_code decoder_take_attn(model *m, weights *w, const decoder_parts *p, uint32_t i, err *e) {
    attn *a = &m->layers[i].a;
    uint32_t d = m->hp.d_model, no = a->n_head * a->head_v;
    err_code rc;
    if ((rc = take_qkv(w, p, a, d, i, e)) != ERR_OK ||
        (rc = weights_matrix(w, &a->wo, false, d, no, e, "blk.%u.attn_output.weight", i)) != ERR_OK ||
        (rc = vector_if(w, &a->bo, p->out_bias, d, e, i, "attn_output.bias")) != ERR_OK ||
        (rc = vector_if(w, &a->q_norm, p->qk_norm, a->head_k, e, i, "attn_q_norm.weight")) != ERR_OK ||
        (rc = vector_if(w, &a->sinks, p->sinks, a->n_head, e, i, "attn_sinks.weight")) != ERR_OK)
        return rc;
    if (!a->reads_only) {
        rc = vector_if(w, &a->k_norm, p->qk_norm, a->head_k, e, i, "attn_k_norm.weight");
        attn_reserve(m, a);
    }
    need_at_least(&m->need.q, a->n_head * a->head_k);
    need_at_least(&m->need.k, a->n_head_kv * a->head_k);
    need_at_least(&m->need.v, a->n_head_kv * a->head_v);
    need_at_least(&m->need.att, no);
    need_at_least(&m->need.acts, no);
    return rc;
}

err_code decoder_take_ffn(model *m, weights *w, const decoder_parts *p, ffn *f, uint32_t i, const char *suffix,
                          err *e) {
    uint32_t d = m->hp.d_model, n = f->width;
    err_code rc;
    char name[3][64];
    need_at_least(&m->need.ff, n);
    need_at_least(&m->need.acts, n);
    if (p->fused_gate_up) {
        matrix **outs[2] = {&f->gate, &f->up};
        if ((rc = weights_split(w, outs, (uint32_t[2]){n, n}, 2, d, e, "blk.%u.ffn_up%s.weight", i, suffix)) != ERR_OK)
            return rc;
    } else {
        if ((f->act != ACT_GELU &&
             (rc = weights_matrix(w, &f->gate, false, n, d, e, "blk.%u.ffn_gate%s.weight", i, suffix)) != ERR_OK) ||
            (rc = weights_matrix(w, &f->up, false, n, d, e, "blk.%u.ffn_up%s.weight", i, suffix)) != ERR_OK)
            return rc;
    }
    snprintf(name[0], sizeof name[0], "ffn_gate%s.bias", suffix);
    snprintf(name[1], sizeof name[1], "ffn_up%s.bias", suffix);
    snprintf(name[2], sizeof name[2], "ffn_down%s.bias", suffix);
    has gate_bias = f->act == ACT_GELU ? HAS_NOT : p->ffn_bias;
    if ((rc = weights_matrix(w, &f->down, false, d, n, e, "blk.%u.ffn_down%s.weight", i, suffix)) != ERR_OK ||
        (rc = vector_if(w, &f->bgate, gate_bias, n, e, i, name[0])) != ERR_OK ||
        (rc = vector_if(w, &f->bup, p->ffn_bias, n, e, i, name[1])) != ERR_OK)
        return rc;
    return vector_if(w, &f->bdown, p->ffn_bias, d, e, i, name[2]);
}

static err_code take_layer(model *m, weights *w, const decoder_parts *p, uint32_t i, err *e) {
    model_layer *l = &m->layers[i];
    uint32_t d = m->hp.d_model;
    err_code rc;
    if ((rc = weights_vector(w, &l->attn_norm, false, d, e, "blk.%u.attn_norm.weight", i)) != ERR_OK ||
        (rc = weights_vector(w, &l->ffn_norm, false, d, e, "blk.%u.%s.weight", i,
                             p->ffn_norm ? p->ffn_norm : "ffn_norm")) != ERR_OK ||
        (rc = vector_if(w, &l->attn_post_norm, p->post_norms, d, e, i, "post_attention_norm.weight")) != ERR_OK ||
        (rc = vector_if(w, &l->ffn_post_norm, p->post_norms, d, e, i, "post_ffw_norm.weight")) != ERR_OK)
        return rc;
    if (!l->mix && (rc = decoder_take_attn(m, w, p, i, e)) != ERR_OK) return rc;
    if (l->moe && (rc = moe_take(w, m, i, l->moe, e)) != ERR_OK) return rc;
    if (!l->f.width) return ERR_OK;
    return decoder_take_ffn(m, w, p, &l->f, i, l->moe && !l->feed ? "_shexp" : "", e);
}

err_code decoder_take(model *m, weights *w, const decoder_parts *p, err *e) {
    const hparams *h = &m->hp;
    err_code rc;
    need_at_least(&m->need.acts, h->d_model);
    if ((rc = weights_matrix(w, &m->embd, false, h->n_vocab, h->d_model, e, "token_embd.weight")) != ERR_OK ||
        (rc = weights_vector(w, &m->output_norm, false, h->d_model, e, "output_norm.weight")) != ERR_OK)
        return rc;
    if (p->output != HAS_NOT && (rc = weights_matrix(w, &m->output, p->output == HAS_MAYBE, h->n_vocab, h->d_model, e,
                                                     "output.weight")) != ERR_OK)
        return rc;
    for (uint32_t i = 0; i < h->n_layer; i++) {
        if (!m->layers[i].moe && !m->layers[i].f.width)
            return err_set(e, ERR_INVALID, "%s: key %s.feed_forward_length is missing", gguf_path(w->g), m->arch->name);
        if ((rc = take_layer(m, w, p, i, e)) != ERR_OK) return rc;
    }
    return ERR_OK;
}

err_code decoder_load(model *m, const gguf *g, const decoder_parts *p, err *e) {
    return decoder_load_with(m, g, p, NULL, e);
}

err_code decoder_load_with(model *m, const gguf *g, const decoder_parts *p, decoder_more *more, err *e) {
    weights w = {0};
    const float *factors = NULL;
    err_code rc = weights_new(&w, m, g, e);
    if (rc == ERR_OK) rc = decoder_take(m, &w, p, e);
    if (rc == ERR_OK && more) rc = more(m, &w, e);
    if (rc == ERR_OK) rc = pooling_take(m, &w, e);
    if (rc == ERR_OK) rc = weights_vector(&w, &factors, true, m->rope[0].n_rot / 2, e, "rope_freqs.weight");
    if (rc == ERR_OK) rc = weights_load(&w, e);
    if (rc == ERR_OK) rc = pooling_finish(m, e);
    if (rc == ERR_OK && !m->output) m->output = m->embd;
    if (rc == ERR_OK && factors) rc = rope_apply_factors(m, g, 0, factors, "rope_freqs.weight", e);
    weights_free(&w);
    return rc;
}

/* ---- running ---------------------------------------------------------------------------------------------- */

/* x[0 … n) += post_norm(Wo att) */
static void run_mix_out(const model *m, step *st, const model_layer *l, uint32_t n) {
    const hparams *h = &m->hp;
    block_linear(st, l->a.wo, st->xn, h->d_model, st->att, l->mix_width, n);
    block_bias(st, st->xn, l->a.bo, n, h->d_model);
    if (l->attn_post_norm) block_norm(st, st->xn, st->xn, l->attn_post_norm, n, h->d_model, h->rms_eps);
    block_add(st, st->x, st->xn, n, h->d_model);
}

static void run_ffn(const model *m, step *st, const model_layer *l, uint32_t n) {
    const hparams *h = &m->hp;
    if (l->feed) {
        l->feed(m, st, (uint32_t)(l - m->layers), n);
    } else {
        block_norm(st, st->xn, st->x, l->ffn_norm, n, h->d_model, h->rms_eps);
        if (l->moe)
            moe_run(m, st, l, n);
        else
            block_ffn(m, st, &l->f, st->xn, st->xn, n);
    }
    if (l->ffn_post_norm) block_norm(st, st->xn, st->xn, l->ffn_post_norm, n, h->d_model, h->rms_eps);
    block_add(st, st->x, st->xn, n, h->d_model);
}

static void run_out(const model *m, step *st) {
    const hparams *h = &m->hp;
    if (st->hidden) {
        block_norm(st, st->out, st->x, m->output_norm, st->n_out, h->d_model, h->rms_eps);
        return;
    }
    block_norm(st, st->xn, st->x, m->output_norm, st->n_out, h->d_model, h->rms_eps);
    block_linear(st, m->output, st->out, h->n_vocab, st->xn, h->d_model, st->n_out);
    if (h->logit_cap != 0) block_cap(st, st->out, h->logit_cap, st->n_out, h->n_vocab);
}

void decoder_begin(const model *m, step *st) {
    block_embed(m, st);
    rope_tables(m, st);
}

void decoder_layers(const model *m, step *st) {
    const hparams *h = &m->hp;
    for (uint32_t i = 0; i < h->n_layer; i++) {
        const model_layer *l = &m->layers[i];
        bool last = i + 1 == h->n_layer;
        uint32_t n = last ? st->n_out : st->n_rows;
        block_norm(st, st->xn, st->x, l->attn_norm, st->n_rows, h->d_model, h->rms_eps);
        (l->mix ? l->mix : attn_mix)(m, st, i, last);
        if (n == 0) return; /* what later tokens need is stored; nobody reads further */
        if (last) {
            block_gather_out(st, st->att, l->mix_width);
            block_gather_out(st, st->x, h->d_model);
        }
        run_mix_out(m, st, l, n);
        run_ffn(m, st, l, n);
        if (l->after) l->after(m, st, i, n);
    }
    run_out(m, st);
}

void decoder_run(const model *m, step *st) {
    decoder_begin(m, st);
    decoder_layers(m, st);
}
