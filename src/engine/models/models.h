/* Internal to engine: what a model is in memory, one step as a model runs it, and the table of architectures.
 *
 * An architecture is two functions. `load` reads hyperparameters, checks the shape of every tensor against them, and
 * only then takes weights into memory. `run` computes one step; it cannot fail: everything that could was checked and
 * reserved by the session before. Most are decoders that differ in what a layer has (decoder.c): their `load` fills the
 * layers and their `run` is decoder_run. docs/guide/architectures.md says how to add one.
 *
 * 1. What a row of a step needs of scratch, what a position needs of KV memory and what a sequence needs of state is
 *    counted while loading (`need`); the session reserves it.
 * 2. No sum crosses a split of work: neither threads nor the neighbours in a batch can show in a result.
 * 3. Weights and what hangs on a model come from model_take and weights_*; model_free gives all back.
 */
#ifndef POLDER_ENGINE_MODELS_H
#define POLDER_ENGINE_MODELS_H

#include "engine/engine.h"
#include "engine/files/gguf.h"
#include "engine/kernels/vec.h"
#include "engine/tensor.h"
#include "engine/vocab/vocab.h"

#define MODEL_LAYER_MAX    1024
#define MODEL_WIDTH_MAX    (1u << 17) /* d_model, feed-forward width, heads * head size */
#define MODEL_HEAD_MAX     1024
#define MODEL_HEAD_DIM_MAX 1024
#define MODEL_CTX_MAX      (1u << 26)
#define MODEL_VOCAB_MAX    (1u << 22)
#define MODEL_EXPERT_MAX   1024
#define MODEL_EXPERTS_USED 64 /* at most, of one token */
#define MODEL_ROPES        2
#define MODEL_AUX          6

typedef struct arch arch;
typedef struct step step;

/* ---- what a layer is -------------------------------------------------------------------------------------- */

/* Rotary positions: tables of one kind. Layers name theirs by index, or -1 for none. */
typedef struct rope {
    uint32_t n_rot; /* rotated elements of a head, from its first; even. 0: this table is not in use */
    bool halves;    /* pairs (i, i + n_rot / 2) instead of neighbours */
    double *freq;   /* (n_rot / 2) radians a position */
    double mscale;  /* YaRN: factor on cos and sin */
    double yarn;    /* factor that YaRN stretches the context by; 1: no YaRN */
} rope;

typedef struct attn {
    uint32_t n_head, n_head_kv, head_k, head_v;
    uint32_t window; /* w: position i sees j where i - j < w; 0: all */
    uint32_t chunk;  /* c: position i sees j where i / c == j / c; 0: all */
    int rope;        /* index into model.rope; -1: none */
    float scale;     /* score = scale * q k, */
    float cap;       /* then cap * tanh(score / cap) where not 0 */
    float temp;      /* q *= 1 + temp * ln(1 + floor((position + temp_offset) / temp_every)) where not 0 */
    uint32_t temp_every, temp_offset;
    uint64_t kv_at[KV_FORMATS]; /* where this layer's part of a KV page begins, bytes */
    bool reads_only;            /* keys and values are those that another layer stored at kv_at */
    bool norm_after_rope;       /* q_norm and k_norm come after the rotation */
    float qk_eps;               /* of q_norm and k_norm */
    matrix *wq, *wk, *wv;       /* (n_head * head_k, d_model), (n_head_kv * head_k, d_model), … */
    matrix *wo;                 /* (d_model, n_head * head_v) */
    const float *bq, *bk, *bv, *bo;
    const float *q_norm, *k_norm; /* (head_k) RMS norm of each head; NULL: none */
    const float *v_norm;          /* (head_v) the same for values */
    const float *sinks;           /* (n_head) a score without a value; NULL: none */
} attn;

typedef enum activation {
    ACT_SWIGLU,         /* silu(gate) * up */
    ACT_GEGLU,          /* gelu(gate) * up */
    ACT_GELU,           /* gelu(up): there is no gate */
    ACT_SWIGLU_CLAMPED, /* gpt-oss */
} activation;

typedef struct ffn {
    activation act;
    uint32_t width;           /* 0: this layer has none */
    matrix *gate, *up, *down; /* (width, d_model) twice, (d_model, width) */
    const float *bgate, *bup, *bdown;
} ffn;

typedef enum gating {
    GATING_SOFTMAX = 1,        /* over all experts, then the best are taken */
    GATING_SIGMOID = 2,        /* each expert on its own */
    GATING_SOFTMAX_CHOSEN = 3, /* the best are taken, then softmax over these */
} gating;

typedef struct moe {
    uint32_t n_expert, n_used, width; /* width of one expert */
    activation act;
    gating gate;
    uint32_t n_group, n_group_used;   /* experts are chosen from the best groups only; 1 and 1: no groups */
    bool group_max;                   /* a group is as good as its best expert, not as its two best together */
    bool normalise;                   /* the chosen weights add up to 1 */
    bool weigh_input;                 /* the weight goes on an expert's input instead of its output (llama 4) */
    float scale;                      /* on the weights, at the end */
    matrix *router;                   /* (n_expert, d_model) */
    const float *router_bias;         /* (n_expert) on the router's outputs */
    const float *choice_bias;         /* (n_expert) on what experts are chosen by, not on the weights */
    matrix **wgate, **wup, **wdown;   /* (n_expert) of each */
    const float *bgate, *bup, *bdown; /* (n_expert, width) twice, (n_expert, d_model) */
    const float *expert_scale;        /* (n_expert) factor on an expert's answer; NULL: none */
    const float *shared_gate;         /* (d_model) the shared expert's output times sigmoid of this; NULL: as it is */
} moe;

typedef struct model_layer {
    const float *attn_norm, *attn_post_norm; /* (d_model); a post norm is on the block's output, before it is added */
    const float *ffn_norm, *ffn_post_norm;
    attn a;
    ffn f;      /* the feed-forward block, or with a moe the expert that every token goes through */
    moe *moe;   /* NULL: dense */
    void *more; /* what only the architecture knows, from model_take */
    /* What stands between the norm and wo: reads st->xn (normed rows), writes st->att, and stores what later tokens
     * need. With last, only rows that want logits must be written (others may be); NULL: attn_mix. */
    void (*mix)(const struct model *m, step *st, uint32_t layer, bool last);
    uint32_t mix_width; /* floats a row that mix leaves in st->att, the columns of a.wo */
    /* The feed-forward block: from st->x (n rows) to st->xn, before the post norm; NULL: moe or f behind ffn_norm. */
    void (*feed)(const struct model *m, step *st, uint32_t layer, uint32_t n);
    /* After the feed-forward block of this layer, on x (n rows); NULL: nothing. */
    void (*after)(const struct model *m, step *st, uint32_t layer, uint32_t n);
    uint64_t state_at; /* where this layer's part of a sequence's state begins, floats */
} model_layer;

/* ---- model ------------------------------------------------------------------------------------------------ */

typedef struct hparams {
    uint32_t n_layer, d_model, n_head, n_head_kv, head_k, head_v, d_ff, n_vocab, n_ctx_train, n_rot;
    float rms_eps, attn_scale;
    float embd_scale; /* x = embd_scale * embd[token]; 1 where there is none */
    float logit_cap;  /* logits = cap * tanh(logits / cap); 0: none */
    bool kv_half;     /* KV_F16 is binary16, not binary32; known before `load`: the file has quantised weights */
    bool encoder;     /* not causal: every row sees the whole sequence, which one step brings; rows out are (d_model) */
} hparams;

/* Floats a row of scratch, and what else the session reserves. */
typedef struct needs {
    uint32_t q, k, v, att, ff;
    uint32_t aux[MODEL_AUX];                 /* for the architecture's own use */
    uint32_t n_expert, n_used, expert_width; /* largest of all layers */
    uint32_t acts;                           /* widest input of a matrix; of experts, all that a row asks */
    uint32_t ops;                            /* matrices that one matrix_mul takes from st->ops */
    uint64_t page[KV_FORMATS];               /* bytes of a KV page */
    uint32_t tile;                           /* elements of the largest tile of a key/value head */
    uint64_t state;                          /* floats of state a sequence */
} needs;

struct model {
    const arch *arch;
    model_facts facts;
    hparams hp;
    needs need;
    vocab *vocab;
    chat_template *tmpl;
    char *tmpl_error;
    struct token_trie *_Atomic trie; /* for constrained output; made on first use */
    matrix *embd;                    /* (n_vocab, d_model) */
    matrix *output;                  /* the same object where tied; NULL where the model has no head */
    const float *output_norm;        /* (d_model) */
    model_layer *layers;
    rope rope[MODEL_ROPES];
    struct rank_head *rank; /* pooling.h; NULL: it cannot rank */
    void *more;             /* what only the architecture knows */
    arena *memory;          /* model_take */
    struct holding *hold;   /* holding.h: the weights' bytes */
    struct {                /* what weights_load and weights_own made */
        matrix **matrices;
        size_t n_matrices;
    } owned;
};

/* Zeroed memory that lives as long as the model; and floats that are all 1, the weight of a norm without one. */
err_code model_take(model *m, void *out_pointer, size_t n, size_t size_bytes, err *e);
err_code model_take_ones(model *m, float **out, uint32_t n, err *e);
/* A copy of w (rows, cols) as (cols, rows). */
err_code model_take_turned(model *m, const float **out, const float *w, uint32_t rows, uint32_t cols, err *e);

/* Tokens of one sequence within a step: rows [row, row + n) are its positions [pos, pos + n). */
typedef struct span {
    uint32_t row, n, pos;
    void *const *pages; /* KV pages by position / VEC_TILE */
    float *state;       /* (need.state) of the sequence; zero before its first token */
    uint32_t n_out;     /* the last n_out rows are wanted */
} span;

/* KV page: each layer's part at its kv_at; there, for each key/value head, a tile. KV_F16: K (head_k, VEC_TILE) then V
 * (VEC_TILE, head_v), binary16 or, where hp.kv_half is not set, binary32. KV_Q8: as kernels/kv8.h says. Buffers have
 * n_rows rows of the width that needs names. */
struct step {
    pool *pool;
    const vec_kernels *vec;
    acts *acts;
    kv_format kv;
    uint16_t *tiles; /* KV_Q8: (threads of pool, need.tile) a tile spelt out for each thread */
    const span *spans;
    uint32_t n_spans, n_rows, n_out;
    bool hidden;           /* rows out are (d_model), normed, instead of logits */
    const int32_t *tokens; /* (n_rows) */
    struct {
        float *cc, *ss; /* (n_rows, n_rot) as vec.h wants them */
    } rope[MODEL_ROPES];
    float *x, *xn; /* (n_rows, d_model) */
    float *q, *k, *v, *att;
    float *gate, *up;
    float *aux[MODEL_AUX];
    float *router;              /* (n_rows, n_expert) */
    uint32_t *picks;            /* (n_rows, n_used) experts of a row, increasing */
    float *pick_weights;        /* (n_rows, n_used) */
    uint32_t *pairs;            /* (n_rows * n_used) where each pick stands when sorted by expert */
    float *pair_x;              /* (n_rows * n_used, d_model) */
    float *pair_gate, *pair_up; /* (n_rows * n_used, expert_width) */
    matmul *ops;                /* (need.ops) */
    float *out;                 /* (n_out, n_vocab or d_model), spans in order */
};

struct arch {
    const char *name;
    err_code (*load)(model *m, const gguf *g, err *e);
    void (*run)(const model *m, step *st);
};

/* All architectures, NULL at the end. */
extern const arch *const arch_table[];

/* Until all weights are checked and may be used (holding_wait): before each step. */
err_code model_wait(const model *m, err *e);

/* model_open on bytes in memory (which may go away afterwards); `name` stands for the path in errors. */
err_code model_open_memory(model **out, const void *p, size_t n, const char *name, err *e);

/* ---- hyperparameters (params.c) --------------------------------------------------------------------------- */

/* Keys are PREFIX.name, PREFIX being the architecture's name in the file (m->arch->name). */
err_code params_u32(const model *m, const gguf *g, const char *name, uint32_t min, uint32_t max, uint32_t *out, err *e);
err_code params_u32_or(const model *m, const gguf *g, const char *name, uint32_t min, uint32_t max, uint32_t def,
                       uint32_t *out, err *e);
/* ERR_INVALID where it is outside [min, max]. */
err_code params_f32(const model *m, const gguf *g, const char *name, float min, float max, float *out, err *e);
err_code params_f32_or(const model *m, const gguf *g, const char *name, float min, float max, float def, float *out,
                       err *e);
err_code params_bool_or(const model *m, const gguf *g, const char *name, bool def, bool *out, err *e);
bool params_has(const model *m, const gguf *g, const char *name);
/* One number for all layers, or an array of one each. out: (n_layer). */
err_code params_u32_layers(const model *m, const gguf *g, const char *name, uint32_t min, uint32_t max, uint32_t *out,
                           err *e);
/* What nearly all have: sizes, heads, epsilon, context, into hp (attn_scale = 1 / sqrt(head_k) where the file has
 * none); takes the layers and fills their attn from hp (rope 0, no window). */
err_code params_common(model *m, const gguf *g, err *e);
/* Experts of one layer from PREFIX.expert_*: n_expert, n_used, width, groups, gating, scale, normalise. ERR_INVALID
 * where they contradict each other. */
err_code params_moe(const model *m, const gguf *g, moe *out, err *e);

/* ---- loading (weights.c) ---------------------------------------------------------------------------------- */

/* What a load takes from a file. Two steps: the functions below find a tensor, check its shape and note where it shall
 * go; weights_load then takes all into memory, with several threads where that is worth it. So nothing is taken from a
 * file whose last tensor is wrong. */
typedef struct weights {
    model *m;
    const gguf *g;
    struct weights_job *jobs;
    size_t n_jobs, cap_jobs;
    uint8_t *used; /* by index of the tensor */
} weights;
err_code weights_new(weights *w, model *m, const gguf *g, err *e);
void weights_free(weights *w);
/* What these give is the file's: a kept form of it is mapped, summed and moved, so whoever needs other numbers makes
 * a copy (model_take). fmt makes the tensor's name. A matrix is (rows, cols). *out is set by weights_load; it stays as
 * it is (NULL) where an optional tensor is absent. ERR_INVALID names the tensor and what is wrong. */
err_code weights_matrix(weights *w, matrix **out, bool optional, uint32_t rows, uint32_t cols, err *e, const char *fmt,
                        ...) __attribute__((format(printf, 7, 8)));
err_code weights_vector(weights *w, const float **out, bool optional, uint32_t n, err *e, const char *fmt, ...)
    __attribute__((format(printf, 6, 7)));
/* n matrices (rows, cols) out of one tensor (n, rows, cols). Where outs is NULL nothing is taken, only checked. */
err_code weights_matrices(weights *w, matrix **outs, bool optional, uint32_t n, uint32_t rows, uint32_t cols, err *e,
                          const char *fmt, ...) __attribute__((format(printf, 8, 9)));
/* Matrices one above another in one tensor of the sum of rows: n of them, rows[i] each. */
err_code weights_split(weights *w, matrix **const *outs, const uint32_t *rows, uint32_t n, uint32_t cols, err *e,
                       const char *fmt, ...) __attribute__((format(printf, 7, 8)));
/* The same in each of `planes` planes; outs and rows go on over all planes, n of them a plane. */
err_code weights_split_planes(weights *w, matrix **const *outs, const uint32_t *rows, uint32_t planes, uint32_t n,
                              uint32_t cols, err *e, const char *fmt, ...) __attribute__((format(printf, 8, 9)));
/* A tensor (n, rows, cols) of any type as binary32, (n * rows * cols) floats in the file's order. */
err_code weights_floats(weights *w, const float **out, bool optional, uint32_t n, uint32_t rows, uint32_t cols, err *e,
                        const char *fmt, ...) __attribute__((format(printf, 8, 9)));
bool weights_has(const weights *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* ERR_UNSUPPORTED names the first tensor that nobody asked for: a file with more in it would be answered wrongly. */
err_code weights_check_all_used(const weights *w, err *e);
/* Checks that too, then takes everything; once a model. The model owns what it made, also where it fails. Until
 * model_wait only vectors may be read. */
err_code weights_load(weights *w, err *e);
/* The model owns a matrix that was made by other ways (a transposed one). */
err_code weights_own(model *m, matrix *made, err *e);

/* ---- rope (rope.c) ---------------------------------------------------------------------------------------- */

/* Reads PREFIX.rope.* into model.rope[i]: n_rot elements, freq_base from the key `base_key` ("freq_base", or another
 * whose default is base_default); scaled: with the file's scaling, otherwise without. hp.n_ctx_train must be set. */
typedef struct rope_wish {
    uint32_t n_rot;
    bool halves, scaled;
    const char *base_key;
    float base_default;
    bool longrope; /* scaling type "longrope" is known: the architecture applies its factors */
} rope_wish;
err_code rope_load(model *m, const gguf *g, uint32_t i, const rope_wish *r, err *e);
/* Divide each frequency by its factor (n_rot / 2 of them, from the tensor `name`). */
err_code rope_apply_factors(model *m, const gguf *g, uint32_t i, const float *factors, const char *name, err *e);
/* Fill the tables for all rows of a step. */
void rope_tables(const model *m, step *st);
/* Rotate one head. */
static inline void rope_head(const model *m, const step *st, int i, size_t row, float *x) {
    const rope *r = &m->rope[i];
    const float *cc = st->rope[i].cc + row * r->n_rot, *ss = st->rope[i].ss + row * r->n_rot;
    (r->halves ? st->vec->rope_halves : st->vec->rope_pairs)(x, cc, ss, r->n_rot);
}

/* ---- parts of a step (blocks.c) --------------------------------------------------------------------------- */

void block_embed(const model *m, step *st); /* x = embd_scale * rows of embd */
void block_norm(const step *st, float *y, const float *x, const float *w, uint32_t n_rows, uint32_t n, float eps);
void block_layer_norm(const step *st, float *y, const float *x, const float *w, const float *b, uint32_t n_rows,
                      uint32_t n, float eps);
void block_bias(const step *st, float *y, const float *bias, uint32_t n_rows, uint32_t n); /* nothing where NULL */
void block_add(const step *st, float *x, const float *y, uint32_t n_rows, uint32_t n);
void block_scale(const step *st, float *x, float f, uint32_t n_rows, uint32_t n);
void block_cap(const step *st, float *x, float cap, uint32_t n_rows, uint32_t n);
void block_gate(const step *st, float *x, const float *gate, uint32_t n_rows, uint32_t n); /* x *= sigmoid(gate) */
void block_activate(const step *st, activation a, float *gate, float *up, uint32_t n_rows, uint32_t n); /* into gate */
/* y = W x for n rows. */
void block_linear(const step *st, const matrix *w, float *y, size_t ldy, const float *x, uint32_t cols, uint32_t n);
/* Move the rows that are wanted to the front: x (n_out, n). */
void block_gather_out(const step *st, float *x, uint32_t n);
/* y = the feed-forward block of x; n rows. y may be x. */
void block_ffn(const model *m, step *st, const ffn *f, float *y, const float *x, uint32_t n);
/* Runs fn over rows, alone where threads would cost more than `width` elements a row do. */
void block_rows(const step *st, uint32_t n_rows, uint32_t width, pool_fn fn, void *job);

/* ---- attention (attention.c) ------------------------------------------------------------------------------ */

/* The tile of a key/value head in page `page` of a sequence. */
void *attn_tile_at(const model *m, const step *st, const attn *a, const span *sp, uint32_t page, uint32_t head_kv);
/* Put key (head_k) and value (head_v) of the tile's position `at` into it. */
void kv_put(const model *m, const step *st, const attn *a, void *tile, uint32_t at, const float *k, const float *v);
/* Reserve KV memory for a layer's attn: sets kv_at. */
void attn_reserve(model *m, attn *a);
/* Query, key and value of st->xn into st->q, k, v, with biases. */
void attn_project(const model *m, step *st, const attn *a);
/* Norms of heads, rotation, q's temperature; k and v of all rows go into the pages; then attn_read. */
void attn_run(const model *m, const step *st, const attn *a, bool last);
/* att = attention of q over the pages. last: only for rows that are wanted; there must be one. */
void attn_read(const model *m, const step *st, const attn *a, bool last);
/* attn_project and attn_run. */
void attn_mix(const model *m, step *st, uint32_t layer, bool last);

/* ---- experts (moe.c) -------------------------------------------------------------------------------------- */

/* Choose the experts of n rows from x, then xn = their answers to xn. Two steps, for some look at x in another way. */
void moe_choose(const model *m, step *st, const moe *o, const float *x, uint32_t n);
void moe_answer(const model *m, step *st, const moe *o, uint32_t n);
/* xn = the experts' answer to xn (n rows), the shared expert's (layer.f) included. */
void moe_run(const model *m, step *st, const model_layer *l, uint32_t n);
/* Give layers first, first + every, … a moe like o, and a shared expert of width `shared` (0: none). */
err_code moe_give(model *m, const moe *o, uint32_t shared, uint32_t first, uint32_t every, err *e);
/* Take a layer's expert tensors (blk.N.ffn_*_exps) for a moe whose numbers are set. fused: gate and up are one tensor.
 */
err_code moe_take(weights *w, const model *m, uint32_t layer, moe *e_out, err *e);

/* ---- decoders (decoder.c) --------------------------------------------------------------------------------- */

typedef enum has { HAS_NOT, HAS_MAYBE, HAS } has;

/* What tensors the layers of a standard decoder have. */
typedef struct decoder_parts {
    has qkv_bias, out_bias, qk_norm, post_norms, sinks, ffn_bias;
    bool fused_qkv, fused_gate_up; /* one tensor instead of three, of two */
    bool v_is_k;                   /* attn_v may be absent: values are then the keys before norm and rotation */
    const char *ffn_norm;          /* name of the norm before the feed-forward block; NULL: ffn_norm */
    has output;                    /* HAS_NOT: tied */
} decoder_parts;
/* Take embedding, output and everything in the layers whose shapes stand in them: attn where mix is NULL, f where width
 * is not 0, moe where there is one. Also counts `need`. */
err_code decoder_take(model *m, weights *w, const decoder_parts *p, err *e);
err_code decoder_take_attn(model *m, weights *w, const decoder_parts *p, uint32_t layer, err *e);
err_code decoder_take_ffn(model *m, weights *w, const decoder_parts *p, ffn *f, uint32_t layer, const char *suffix,
                          err *e);
/* params_common was called, ropes are there: take, load, done. */
err_code decoder_load(model *m, const gguf *g, const decoder_parts *p, err *e);
/* The same; `more` takes what else the architecture has. */
typedef err_code decoder_more(model *m, weights *w, err *e);
err_code decoder_load_with(model *m, const gguf *g, const decoder_parts *p, decoder_more *more, err *e);
void decoder_run(const model *m, step *st);
/* Its two parts: embedding and rope tables; layers and output. */
void decoder_begin(const model *m, step *st);
void decoder_layers(const model *m, step *st);

/* need = the larger of the two */
static inline void need_at_least(uint32_t *need, uint64_t n) {
    if (n > *need) *need = n > UINT32_MAX ? UINT32_MAX : (uint32_t)n;
}

#endif
