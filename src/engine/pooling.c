#include "engine/pooling.h"

#include "base/mem.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define KEY_RANK_FORM "tokenizer.chat_template.rerank"
#define FORM_MAX      65536

const char *pooling_name(pooling p) {
    static const char *const names[] = {"", "none", "mean", "first", "last", "rank"};
    return (unsigned)p < sizeof names / sizeof *names ? names[p] : "";
}

/* ---- loading ---------------------------------------------------------------------------------------------- */

/* A decoder may be made to see whole texts (attention.causal false). */
static err_code read_causal(model *m, const gguf *g, err *e) {
    bool causal = !m->hp.encoder;
    err_code rc = params_bool_or(m, g, "attention.causal", causal, &causal, e);
    if (rc != ERR_OK || causal == !m->hp.encoder) return rc;
    if (causal)
        return err_set(e, ERR_UNSUPPORTED, "%s: %s.attention.causal is true; polder runs %s as an encoder only",
                       gguf_path(g), m->arch->name, m->arch->name);
    bool plain = m->need.state == 0;
    for (uint32_t i = 0; i < m->hp.n_layer; i++) plain = plain && !m->layers[i].a.window && !m->layers[i].a.chunk;
    if (!plain)
        return err_set(e, ERR_UNSUPPORTED,
                       "%s: %s.attention.causal is false; polder runs no %s with windows or states that way",
                       gguf_path(g), m->arch->name, m->arch->name);
    m->hp.encoder = true;
    return ERR_OK;
}

/* The score is that of "yes" where a label is called so, otherwise of the first. */
static err_code read_labels(model *m, const gguf *g, rank_head *r, err *e) {
    char key[160];
    gguf_str names[RANK_LABELS_MAX];
    size_t n = 0;
    snprintf(key, sizeof key, "%s.classifier.output_labels", m->arch->name);
    r->n_labels = 1;
    if (!gguf_has(g, key)) return ERR_OK;
    err_code rc = gguf_arr(g, key, GGUF_STR, &n, e);
    if (rc != ERR_OK) return rc;
    if (n < 1 || n > RANK_LABELS_MAX)
        return err_set(e, ERR_INVALID, "%s: %s has %zu labels; it must be 1 to %d", gguf_path(g), key, n,
                       RANK_LABELS_MAX);
    rc = gguf_arr_strs(g, key, names, n, e);
    r->n_labels = (uint32_t)n;
    for (uint32_t i = 0; rc == ERR_OK && i < r->n_labels; i++)
        if (names[i].len == 3 && memcmp(names[i].ptr, "yes", 3) == 0) r->yes = i;
    return rc;
}

static err_code read_form(model *m, const gguf *g, rank_head *r, err *e) {
    gguf_str s = {0};
    err_code rc = gguf_str_or(g, KEY_RANK_FORM, &s, e);
    if (rc != ERR_OK || !s.len) return rc;
    if (s.len > FORM_MAX || memchr(s.ptr, 0, s.len))
        return err_set(e, ERR_INVALID, "%s: %s: %zu bytes; at most %d, none of them zero, are taken", gguf_path(g),
                       KEY_RANK_FORM, s.len, FORM_MAX);
    rc = model_take(m, &r->form, s.len + 1, 1, e);
    if (rc == ERR_OK) memcpy(r->form, s.ptr, s.len);
    return rc;
}

static err_code take_head(model *m, weights *w, rank_head *r, err *e) {
    uint32_t d = m->hp.d_model;
    err_code rc;
    if ((rc = weights_floats(w, &r->cls, true, 1, d, d, e, "cls.weight")) != ERR_OK ||
        (rc = weights_vector(w, &r->cls_bias, true, d, e, "cls.bias")) != ERR_OK ||
        (rc = weights_floats(w, &r->out, true, 1, r->n_labels, d, e, "cls.output.weight")) != ERR_OK)
        return rc;
    return weights_vector(w, &r->out_bias, true, r->n_labels, e, "cls.output.bias");
}

err_code pooling_take(model *m, weights *w, err *e) {
    const gguf *g = w->g;
    bool built_encoder = m->hp.encoder;
    uint32_t kind = 0;
    err_code rc = read_causal(m, g, e);
    if (rc == ERR_OK && params_has(m, g, "pooling_type")) {
        rc = params_u32(m, g, "pooling_type", 0, 4, &kind, e);
        m->facts.pooling = (pooling)(kind + POOLING_NONE);
    }
    bool has_head = weights_has(w, "cls.weight") || weights_has(w, "cls.output.weight");
    if (rc != ERR_OK || !has_head) return rc;
    if ((rc = model_take(m, &m->rank, 1, sizeof *m->rank, e)) != ERR_OK) return rc;
    rank_head *r = m->rank;
    r->last = r->softmax = !built_encoder;
    r->twice = strcmp(vocab_kind(m->vocab), "wordpiece") != 0;
    if ((rc = read_labels(m, g, r, e)) == ERR_OK) rc = read_form(m, g, r, e);
    return rc == ERR_OK ? take_head(m, w, r, e) : rc;
}

err_code pooling_finish(model *m, err *e) {
    rank_head *r = m->rank;
    if (!r) return ERR_OK;
    err_code rc = ERR_OK;
    if (r->cls) rc = model_take_turned(m, &r->cls_cols, r->cls, m->hp.d_model, m->hp.d_model, e);
    if (rc == ERR_OK && r->out) rc = model_take_turned(m, &r->cols, r->out, r->n_labels, m->hp.d_model, e);
    return rc;
}

/* ---- pooling ---------------------------------------------------------------------------------------------- */

bool model_embeds(const model *m) {
    pooling p = m->facts.pooling;
    return p == POOLING_MEAN || p == POOLING_FIRST || p == POOLING_LAST;
}

bool model_ranks(const model *m) {
    const rank_head *r = m->rank;
    if (m->facts.pooling != POOLING_RANK || !r || !r->out) return false;
    return r->form ? vocab_can_fill_forms(m->vocab) : !r->last && vocab_has_pairs(m->vocab);
}

/* Which row is the one, where pooling takes one. */
static bool takes_last(const model *m) {
    return m->facts.pooling == POOLING_LAST || (m->facts.pooling == POOLING_RANK && m->rank && m->rank->last);
}

uint32_t model_pool_rows(const model *m, uint32_t at, uint32_t n, uint32_t total) {
    if (m->facts.pooling == POOLING_MEAN) return n;
    if (takes_last(m)) return at + n == total ? 1 : 0;
    return at == 0 ? n : 0;
}

void model_pool_add(const model *m, float *v, const float *rows, uint32_t n, uint32_t at, uint32_t total) {
    const vec_kernels *vec = vec_get(isa_get());
    uint32_t d = m->hp.d_model;
    if (m->facts.pooling != POOLING_MEAN) {
        if (model_pool_rows(m, at, n, total)) memcpy(v, rows, d * sizeof *v);
        return;
    }
    if (at == 0) memset(v, 0, d * sizeof *v);
    for (uint32_t i = 0; i < n; i++) vec->add(v, rows + (size_t)i * d, d);
    if (at + n == total) vec->scale(v, 1.0f / (float)total, d);
}

static err_code check_finite(const float *v, uint32_t n, err *e) {
    for (uint32_t i = 0; i < n; i++)
        if (!isfinite(v[i]))
            return err_set(e, ERR_INTERNAL, "the model gave a number that is not finite: its weights are broken");
    return ERR_OK;
}

err_code embedding_finish(float *v, uint32_t n, uint32_t dimensions, err *e) {
    if (dimensions < 1 || dimensions > n)
        return err_set(e, ERR_INVALID, "dimensions: %u; vectors of this model have 1 to %u", dimensions, n);
    err_code rc = check_finite(v, n, e);
    if (rc != ERR_OK) return rc;
    double sum = 0; /* a square of a float is exact in double */
    for (uint32_t i = 0; i < dimensions; i++) sum += (double)v[i] * (double)v[i];
    double length = sqrt(sum);
    for (uint32_t i = 0; i < dimensions && length > 0; i++) v[i] = (float)((double)v[i] / length);
    return ERR_OK;
}

/* ---- ranking ---------------------------------------------------------------------------------------------- */

/* y (rows) = W x + b, W given with inputs as rows. */
static void apply(const vec_kernels *vec, float *y, const float *cols, const float *bias, const float *x, uint32_t rows,
                  uint32_t n) {
    memset(y, 0, rows * sizeof *y);
    for (uint32_t k = 0; k < n; k++) vec->mul_add(y, cols + (size_t)k * rows, x[k], rows);
    if (bias) vec->add(y, bias, rows);
}

err_code model_rank(const model *m, float *v, float *score, err *e) {
    const vec_kernels *vec = vec_get(isa_get());
    const rank_head *r = m->rank;
    uint32_t d = m->hp.d_model;
    float y[RANK_LABELS_MAX];
    if (r->cls_cols) {
        float *t = mem_array(d, sizeof *t);
        if (!t) return err_nomem(e, "a score");
        apply(vec, t, r->cls_cols, r->cls_bias, v, d, d);
        for (uint32_t i = 0; i < d; i++) v[i] = num_tanh32(t[i]);
        mem_free(t);
    }
    apply(vec, y, r->cols, r->out_bias, v, r->n_labels, d);
    err_code rc = check_finite(y, r->n_labels, e);
    if (rc != ERR_OK) return rc;
    *score = num_sigmoid32(y[r->yes]);
    if (!r->softmax || r->n_labels == 1) return ERR_OK;
    float max = y[0], sum = 0;
    for (uint32_t i = 1; i < r->n_labels; i++) max = y[i] > max ? y[i] : max;
    for (uint32_t i = 0; i < r->n_labels; i++) sum += num_exp32(y[i] - max);
    *score = num_exp32(y[r->yes] - max) / sum;
    return ERR_OK;
}

err_code model_tokenize_pair(const model *m, const char *query, size_t query_len, const char *document,
                             size_t document_len, size_t max_tokens, int32_t **out, size_t *n, err *e) {
    const vocab_pair p = {query, query_len, document, document_len, m->rank->twice};
    return m->rank->form ? vocab_fill_form(m->vocab, m->rank->form, &p, max_tokens, out, n, e)
                         : vocab_encode_pair(m->vocab, &p, max_tokens, out, n, e);
}
