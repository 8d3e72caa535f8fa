/* For tests: a complete deepseek2 GGUF with random weights, in both forms in which files hold latent attention. The
 * numbers of a tensor come from its name alone, so models that differ in form or type hold the same weights. */
#ifndef POLDER_TESTS_TINY_MLA_H
#define POLDER_TESTS_TINY_MLA_H

#include "engine/tensor.h"
#include "tiny_model.h"

typedef struct tiny_mla {
    uint32_t n_layer, n_dense, d, n_head, nope, rope, v, rank, q_rank, ff, n_ctx;
    uint32_t n_expert, n_used, ff_exp, n_shared, gating, groups, groups_used;
    uint32_t type;  /* of matrices: 0 F32, 8 Q8_0, 2 Q4_0 */
    bool expanded;  /* F32 tensors that hold what `type` holds after rounding */
    bool fused;     /* attn_kv_b instead of attn_k_b and attn_v_b */
    bool old_keys;  /* no *_mla keys */
    bool choice;    /* exp_probs_b */
    bool tied;      /* no output.weight */
    float yarn_log; /* not 0: YaRN by 4, original context 32, with this log multiplier */
} tiny_mla;

#define MLA_SMALL                                                                                                   \
    (tiny_mla) {                                                                                                    \
        .n_layer = 2, .n_dense = 1, .d = 64, .n_head = 3, .nope = 32, .rope = 8, .v = 32, .rank = 64, .q_rank = 32, \
        .ff = 96, .n_ctx = 256, .n_expert = 8, .n_used = 3, .ff_exp = 32, .n_shared = 2, .gating = 2, .groups = 4,  \
        .groups_used = 2, .choice = true                                                                            \
    }

typedef struct mla_writer {
    buf *infos, *data;
    const tiny_mla *t;
    uint64_t n;
} mla_writer;

static inline float *mla_random(const char *name, size_t n, float size) {
    uint64_t s = 14695981039346656037u;
    for (const char *p = name; *p; p++) s = (s ^ (uint8_t)*p) * 1099511628211u;
    float *x = mem_array(n, sizeof *x);
    if (!x) abort();
    for (int i = 0; i < 8; i++) tiny_rng(&s);
    for (size_t i = 0; i < n; i++) x[i] = size * ((float)(tiny_rng(&s) % 20001) / 10000 - 1);
    return x;
}

/* The formats' plain rounding, to the nearest scale that 16 bits hold. */
static inline uint16_t mla_half(float f) {
    uint32_t u;
    memcpy(&u, &f, 4);
    int32_t exp = (int32_t)(u >> 23 & 255) - 112;
    if (exp <= 0) return 0;
    return (uint16_t)((u >> 16 & 0x8000) | (uint32_t)exp << 10 | (u >> 13 & 0x3ff));
}

static inline void mla_put_block(buf *b, uint32_t type, const float *x) {
    float top = 0, amax = 0;
    int q[32];
    for (int i = 0; i < 32; i++)
        if (fabsf(x[i]) > amax) amax = fabsf(x[i]), top = x[i];
    uint16_t d = mla_half(type == 8 ? amax / 127 : top / -8);
    float scale;
    uint8_t bytes[2] = {(uint8_t)d, (uint8_t)(d >> 8)};
    tensor_expand(TT_F16, bytes, &scale, 1);
    int low = type == 8 ? -127 : -8, high = type == 8 ? 127 : 7;
    for (int i = 0; i < 32; i++) {
        q[i] = scale != 0 ? (int)lrintf(x[i] / scale) : 0;
        q[i] = q[i] < low ? low : q[i] > high ? high : q[i];
    }
    edit_put(b, d, 2);
    for (int i = 0; i < 32 && type == 8; i++) edit_put(b, (uint8_t)(int8_t)q[i], 1);
    for (int i = 0; i < 16 && type == 2; i++) edit_put(b, (uint64_t)((q[i] + 8) | (q[i + 16] + 8) << 4), 1);
}

static inline void mla_put_floats(buf *b, const float *x, size_t n) {
    for (size_t i = 0; i < n; i++) {
        uint32_t u;
        memcpy(&u, &x[i], 4);
        edit_put(b, u, 4);
    }
}

/* A tensor of given numbers; rows 0: a vector. */
static inline void mla_put(mla_writer *w, const char *name, uint32_t planes, uint32_t rows, uint32_t cols,
                           const float *x) {
    uint32_t type = rows ? w->t->type : 0;
    size_t n = (size_t)planes * (rows ? rows : 1) * cols;
    tiny_pad(w->data);
    edit_put_str(w->infos, name);
    edit_put(w->infos, planes > 1 ? 3 : rows ? 2 : 1, 4);
    edit_put(w->infos, cols, 8);
    if (rows) edit_put(w->infos, rows, 8);
    if (planes > 1) edit_put(w->infos, planes, 8);
    edit_put(w->infos, w->t->expanded ? 0 : type, 4);
    edit_put(w->infos, w->data->len, 8);
    w->n++;
    if (type == 0) {
        mla_put_floats(w->data, x, n);
        return;
    }
    buf blocks = {.max = 64u << 20};
    for (size_t i = 0; i < n; i += 32) mla_put_block(&blocks, type, x + i);
    if (w->t->expanded) {
        float *flat = mem_array(n, sizeof *flat);
        if (!flat) abort();
        tensor_expand((tensor_type)type, blocks.ptr, flat, n);
        mla_put_floats(w->data, flat, n);
        mem_free(flat);
    } else
        buf_append(w->data, blocks.ptr, blocks.len);
    buf_free(&blocks);
}

static inline void mla_tensor(mla_writer *w, int layer, const char *name, uint32_t planes, uint32_t rows,
                              uint32_t cols) {
    char full[80];
    if (layer < 0)
        snprintf(full, sizeof full, "%s", name);
    else
        snprintf(full, sizeof full, "blk.%d.%s", layer, name);
    size_t n = (size_t)planes * (rows ? rows : 1) * cols;
    bool norm = strstr(name, "norm") != NULL;
    float *x = mla_random(full, n, rows ? 3 / sqrtf((float)cols) : norm ? 0.25f : 0.2f);
    for (size_t i = 0; norm && i < n; i++) x[i] += 1;
    mla_put(w, full, planes, rows, cols, x);
    mem_free(x);
}

/* K (nope, rank) and V (v, rank) of each head: one above another, or K transposed in a tensor of its own. */
static inline void mla_kv_b(mla_writer *w, int layer) {
    const tiny_mla *t = w->t;
    char name[80];
    uint32_t both = t->nope + t->v;
    snprintf(name, sizeof name, "blk.%d.attn_kv_b.weight", layer);
    float *x = mla_random(name, (size_t)t->n_head * both * t->rank, 3 / sqrtf((float)t->rank));
    if (t->fused) {
        mla_put(w, name, 1, t->n_head * both, t->rank, x);
        mem_free(x);
        return;
    }
    float *k = mem_array((size_t)t->n_head * t->nope * t->rank, sizeof *k),
          *v = mem_array((size_t)t->n_head * t->v * t->rank, sizeof *v);
    if (!k || !v) abort();
    for (uint32_t h = 0; h < t->n_head; h++) {
        const float *head = x + (size_t)h * both * t->rank;
        for (uint32_t r = 0; r < t->rank; r++)
            for (uint32_t i = 0; i < t->nope; i++) k[(h * t->rank + r) * t->nope + i] = head[i * t->rank + r];
        memcpy(v + (size_t)h * t->v * t->rank, head + (size_t)t->nope * t->rank, (size_t)t->v * t->rank * sizeof *v);
    }
    snprintf(name, sizeof name, "blk.%d.attn_k_b.weight", layer);
    mla_put(w, name, t->n_head, t->rank, t->nope, k);
    snprintf(name, sizeof name, "blk.%d.attn_v_b.weight", layer);
    mla_put(w, name, t->n_head, t->v, t->rank, v);
    mem_free(x);
    mem_free(k);
    mem_free(v);
}

static inline void mla_experts(mla_writer *w, int i) {
    const tiny_mla *t = w->t;
    uint32_t d = t->d, shared = t->n_shared * t->ff_exp;
    mla_tensor(w, i, "ffn_gate_inp.weight", 1, t->n_expert, d);
    mla_tensor(w, i, "ffn_gate_exps.weight", t->n_expert, t->ff_exp, d);
    mla_tensor(w, i, "ffn_up_exps.weight", t->n_expert, t->ff_exp, d);
    mla_tensor(w, i, "ffn_down_exps.weight", t->n_expert, d, t->ff_exp);
    if (t->choice) mla_tensor(w, i, "exp_probs_b.bias", 1, 0, t->n_expert);
    if (!shared) return;
    mla_tensor(w, i, "ffn_gate_shexp.weight", 1, shared, d);
    mla_tensor(w, i, "ffn_up_shexp.weight", 1, shared, d);
    mla_tensor(w, i, "ffn_down_shexp.weight", 1, d, shared);
}

static inline void mla_layer(mla_writer *w, int i) {
    const tiny_mla *t = w->t;
    uint32_t d = t->d, key = t->nope + t->rope;
    mla_tensor(w, i, "attn_norm.weight", 1, 0, d);
    mla_tensor(w, i, "ffn_norm.weight", 1, 0, d);
    if (t->q_rank) {
        mla_tensor(w, i, "attn_q_a.weight", 1, t->q_rank, d);
        mla_tensor(w, i, "attn_q_a_norm.weight", 1, 0, t->q_rank);
        mla_tensor(w, i, "attn_q_b.weight", 1, t->n_head * key, t->q_rank);
    } else
        mla_tensor(w, i, "attn_q.weight", 1, t->n_head * key, d);
    mla_tensor(w, i, "attn_kv_a_mqa.weight", 1, t->rank + t->rope, d);
    mla_tensor(w, i, "attn_kv_a_norm.weight", 1, 0, t->rank);
    mla_kv_b(w, i);
    mla_tensor(w, i, "attn_output.weight", 1, d, t->n_head * t->v);
    if ((uint32_t)i >= t->n_dense) {
        mla_experts(w, i);
        return;
    }
    mla_tensor(w, i, "ffn_gate.weight", 1, t->ff, d);
    mla_tensor(w, i, "ffn_up.weight", 1, t->ff, d);
    mla_tensor(w, i, "ffn_down.weight", 1, d, t->ff);
}

static inline uint64_t mla_keys(buf *b, const tiny_mla *t) {
    const struct {
        const char *name;
        uint32_t value;
        bool leave_out;
    } keys[] = {
        {"block_count", t->n_layer, false},
        {"embedding_length", t->d, false},
        {"context_length", t->n_ctx, false},
        {"feed_forward_length", t->ff, false},
        {"attention.head_count", t->n_head, false},
        {"attention.head_count_kv", t->old_keys ? t->n_head : 1, false},
        {"attention.key_length", t->old_keys ? t->nope + t->rope : t->rank + t->rope, false},
        {"attention.value_length", t->old_keys ? t->v : t->rank, false},
        {"attention.key_length_mla", t->nope + t->rope, t->old_keys},
        {"attention.value_length_mla", t->v, t->old_keys},
        {"attention.kv_lora_rank", t->rank, false},
        {"attention.q_lora_rank", t->q_rank, false},
        {"rope.dimension_count", t->rope, false},
        {"leading_dense_block_count", t->n_dense, false},
        {"expert_count", t->n_expert, false},
        {"expert_used_count", t->n_used, false},
        {"expert_feed_forward_length", t->ff_exp, false},
        {"expert_shared_count", t->n_shared, false},
        {"expert_gating_func", t->gating, t->gating == 0},
        {"expert_group_count", t->groups, t->groups == 0},
        {"expert_group_used_count", t->groups_used, t->groups == 0},
        {"rope.scaling.original_context_length", 32, t->yarn_log == 0},
    };
    uint64_t n = 3;
    edit_put_string(b, "general.architecture", "deepseek2");
    edit_put_f32(b, "deepseek2.attention.layer_norm_rms_epsilon", 1e-6f);
    edit_put_f32(b, "deepseek2.rope.freq_base", 10000);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        char full[80];
        if (keys[i].leave_out) continue;
        snprintf(full, sizeof full, "deepseek2.%s", keys[i].name);
        edit_put_u32(b, full, keys[i].value);
        n++;
    }
    if (t->yarn_log != 0) {
        edit_put_string(b, "deepseek2.rope.scaling.type", "yarn");
        edit_put_f32(b, "deepseek2.rope.scaling.factor", 4);
        edit_put_f32(b, "deepseek2.rope.scaling.yarn_log_multiplier", t->yarn_log);
        n += 3;
    }
    return n + tiny_tokenizer(b);
}

/* The file's bytes; buf_free by the caller. */
static inline void mla_make(buf *out, const tiny_mla *t) {
    buf kvs = {.max = 1u << 20}, infos = {.max = 1u << 20}, data = {.max = 64u << 20};
    mla_writer w = {&infos, &data, t, 0};
    uint64_t n_kv = mla_keys(&kvs, t);
    mla_tensor(&w, -1, "token_embd.weight", 1, TINY_VOCAB, t->d);
    mla_tensor(&w, -1, "output_norm.weight", 1, 0, t->d);
    if (!t->tied) mla_tensor(&w, -1, "output.weight", 1, TINY_VOCAB, t->d);
    for (uint32_t i = 0; i < t->n_layer; i++) mla_layer(&w, (int)i);
    out->max = 128u << 20;
    buf_puts(out, "GGUF");
    edit_put(out, 3, 4);
    edit_put(out, w.n, 8);
    edit_put(out, n_kv, 8);
    buf_append(out, kvs.ptr, kvs.len);
    buf_append(out, infos.ptr, infos.len);
    tiny_pad(out);
    buf_append(out, data.ptr, data.len);
    buf_free(&kvs);
    buf_free(&infos);
    buf_free(&data);
}

#endif
