/* Internal to engine: what a model is in memory, one step as a model runs it, and the table of architectures.
 *
 * An architecture is two functions. `load` reads hyperparameters, checks the shape of every tensor against them, and
 * only then takes weights into memory. `run` computes one step; it cannot fail: everything that could was checked and
 * reserved by the session before.
 */
#ifndef POLDER_ENGINE_MODELS_H
#define POLDER_ENGINE_MODELS_H

#include "engine/engine.h"
#include "engine/gguf.h"
#include "engine/kernels/vec.h"
#include "engine/tensor.h"
#include "engine/vocab.h"

#define MODEL_LAYER_MAX    1024
#define MODEL_WIDTH_MAX    (1u << 17) /* d_model, feed-forward width, heads * head size */
#define MODEL_HEAD_MAX     1024
#define MODEL_HEAD_DIM_MAX 1024
#define MODEL_CTX_MAX      (1u << 26)
#define MODEL_VOCAB_MAX    (1u << 22)

typedef struct hparams {
    uint32_t n_layer, d_model, n_head, n_head_kv, head_k, head_v, d_ff, n_vocab, n_ctx_train, n_rot;
    float rms_eps, attn_scale;
} hparams;

typedef struct layer_weights {   /* a bias is NULL where the file has none */
    float *attn_norm, *ffn_norm; /* (d_model) */
    matrix *wq, *wk, *wv,
        *wo; /* (n_head * head_k, d_model), (n_head_kv * head_k, d_model), …, (d_model, n_head * head_v) */
    float *bq, *bk, *bv, *bo;
    matrix *gate, *up, *down; /* (d_ff, d_model) twice, (d_model, d_ff) */
    float *bgate, *bup, *bdown;
} layer_weights;

typedef struct arch arch;

struct model {
    const arch *arch;
    model_facts facts;
    hparams hp;
    vocab *vocab;
    chat_template *tmpl;
    char *tmpl_error;
    matrix *embd;       /* (n_vocab, d_model) */
    matrix *output;     /* the same object where tied */
    float *output_norm; /* (d_model) */
    layer_weights *layers;
    double *rope_freq;  /* (n_rot / 2) radians a position */
    double rope_mscale; /* YaRN: factor on cos and sin */
};

/* Tokens of one sequence within a step: rows [row, row + n) are its positions [pos, pos + n). */
typedef struct span {
    uint32_t row, n, pos;
    float *const *pages; /* KV pages by position / VEC_TILE */
    uint32_t n_out;      /* the last n_out rows want logits */
} span;

/* KV page: for each layer, for each key/value head: K (head_k, VEC_TILE) then V (VEC_TILE, head_v). */
typedef struct step {
    pool *pool;
    const vec_kernels *vec;
    acts *acts;
    const span *spans;
    uint32_t n_spans, n_rows, n_out;
    const int32_t *tokens; /* (n_rows) */
    float *cc, *ss;        /* (n_rows, n_rot) rope tables as vec.h wants them */
    float *x, *xn;         /* (n_rows, d_model) */
    float *q, *k, *v;      /* (n_rows, n_head * head_k), (n_rows, n_head_kv * head_k), (n_rows, n_head_kv * head_v) */
    float *att;            /* (n_rows, n_head * head_v) */
    float *gate, *up;      /* (n_rows, d_ff) */
    float *logits;         /* (n_out, n_vocab), spans in order */
} step;

struct arch {
    const char *name;
    err_code (*load)(model *m, const gguf *g, err *e);
    void (*run)(const model *m, step *st);
};

extern const arch arch_llama;

/* model_open on bytes in memory (which may go away afterwards); `name` stands for the path in errors. */
err_code model_open_memory(model **out, const void *p, size_t n, const char *name, err *e);

static inline size_t kv_head_floats(const hparams *h) {
    return (size_t)VEC_TILE * (h->head_k + h->head_v);
}
static inline size_t kv_page_floats(const hparams *h) {
    return kv_head_floats(h) * h->n_head_kv * h->n_layer;
}

/* ---- loading (weights.c) ---------------------------------------------------------------------------------- */

/* What a load takes from a file. Two steps: weights_matrix and weights_vector find a tensor, check its shape and note
 * where it shall go; weights_load then takes all into memory, with several threads where that is worth it. So nothing
 * is taken from a file whose last tensor is wrong. */
typedef struct weights {
    const gguf *g;
    struct weights_job *jobs; /* one for each tensor of the file at most */
    size_t n_jobs;
    uint8_t *used; /* by index of the tensor */
} weights;
err_code weights_new(weights *w, const gguf *g, err *e);
void weights_free(weights *w);
/* fmt makes the tensor's name. A matrix is (rows, cols). *out is set by weights_load; it stays as it is (NULL) where an
 * optional tensor is absent. ERR_INVALID names the tensor and what is wrong. */
err_code weights_matrix(weights *w, matrix **out, bool optional, uint32_t rows, uint32_t cols, err *e, const char *fmt,
                        ...) __attribute__((format(printf, 7, 8)));
err_code weights_vector(weights *w, float **out, bool optional, uint32_t n, err *e, const char *fmt, ...)
    __attribute__((format(printf, 6, 7)));
/* ERR_UNSUPPORTED names the first tensor that nobody asked for: a file with more in it would be answered wrongly. */
err_code weights_check_all_used(const weights *w, const char *arch_name, err *e);
err_code weights_load(weights *w, err *e);

/* ---- rope (rope.c) ---------------------------------------------------------------------------------------- */

/* Reads PREFIX.rope.* into rope_freq and rope_mscale. hp.n_rot and hp.n_ctx_train must be set. */
err_code rope_load(model *m, const gguf *g, const char *prefix, err *e);
/* Divide each frequency by its factor (the tensor rope_freqs.weight of llama 3; n_rot / 2 of them). */
err_code rope_apply_factors(model *m, const gguf *g, const float *factors, err *e);
/* Fill the tables for all rows of a step. */
void rope_tables(const model *m, step *st);

/* ---- parts of a step (blocks.c) --------------------------------------------------------------------------- */

void block_embed(const model *m, step *st); /* x = rows of embd */
void block_norm(const step *st, float *y, const float *x, const float *w, uint32_t n_rows, uint32_t n, float eps);
void block_bias(const step *st, float *y, const float *bias, uint32_t n_rows, uint32_t n); /* nothing where NULL */
void block_add(const step *st, float *x, const float *y, uint32_t n_rows, uint32_t n);
void block_swiglu(const step *st, float *gate, const float *up, uint32_t n_rows, uint32_t n);
/* Rotate q and k, and put k and v of all rows into the pages of `layer`. */
void block_rope_store(const model *m, const step *st, uint32_t layer);
/* att = attention of q over the pages. last: only for rows that want logits. */
void block_attention(const model *m, const step *st, uint32_t layer, bool last);
/* Move the rows that want logits to the front: x (n_out, n). */
void block_gather_out(const step *st, float *x, uint32_t n);

#endif
