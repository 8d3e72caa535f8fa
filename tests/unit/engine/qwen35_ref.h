/* For tests: small models of qwen3next, qwen35 and qwen35moe with random weights, and what they compute, in double
 * arithmetic and the plainest way: the whole prompt again for every call, every matrix looked up by its tensor's name.
 * Written from the published model code and from how GGUF files order heads, not from the engine. */
#ifndef POLDER_TESTS_QWEN35_REF_H
#define POLDER_TESTS_QWEN35_REF_H

#include "tiny_model.h"

typedef struct made_tensor {
    char name[64];
    uint32_t n, rows, cols;
    float *w;
} made_tensor;

typedef struct made {
    const char *arch;
    uint32_t n_layer, n_nextn, every; /* layers that count, layers after them; full attention in each n-th */
    uint32_t d, n_head, n_kv, head, n_rot, ff;
    uint32_t n_k, n_v, dk, dv, taps;
    uint32_t n_expert, n_used, ff_exp, ff_shared; /* n_expert 0: dense */
    int32_t sections[4];                          /* all 0: no such key */
    bool tied;
    bool older; /* qwen3next: attn_qkv and attn_gate in one tensor */
    uint64_t rng;
    made_tensor t[300];
    uint32_t n_t;
} made;

#define MADE_EPS  1e-6
#define MADE_BASE 10000.0

/* ---- the file --------------------------------------------------------------------------------------------- */

static inline made_tensor *made_find(made *f, const char *name) {
    for (uint32_t i = 0; i < f->n_t; i++)
        if (strcmp(f->t[i].name, name) == 0) return &f->t[i];
    fprintf(stderr, "the test has no tensor %s\n", name);
    abort();
}

static inline float made_random(made *f) {
    return (float)(tiny_rng(&f->rng) % 20001) / 10000 - 1;
}

/* x = base + width * random */
static inline void made_add(made *f, const char *name, uint32_t n, uint32_t rows, uint32_t cols, float base,
                            float width) {
    made_tensor *t = &f->t[f->n_t++];
    size_t len = (size_t)n * rows * cols;
    snprintf(t->name, sizeof t->name, "%s", name);
    t->n = n, t->rows = rows, t->cols = cols;
    t->w = malloc(len * sizeof *t->w);
    if (!t->w) abort();
    for (size_t i = 0; i < len; i++) t->w[i] = base + width * made_random(f);
}

static inline void made_layer(made *f, uint32_t layer, const char *name, uint32_t n, uint32_t rows, uint32_t cols) {
    char full[64];
    snprintf(full, sizeof full, "blk.%u.%s", layer, name);
    bool norm = rows == 1 && strstr(name, "norm");
    made_add(f, full, n, rows, cols, norm ? 1.0f : 0.0f, norm ? 0.4f : 2.5f / sqrtf((float)cols));
}

static inline void made_linear(made *f, uint32_t i) {
    uint32_t inner = f->n_v * f->dv, channels = 2 * f->n_k * f->dk + inner;
    char name[64];
    made_layer(f, i, "attn_qkv.weight", 1, channels, f->d);
    made_layer(f, i, "attn_gate.weight", 1, inner, f->d);
    made_layer(f, i, "ssm_conv1d.weight", 1, channels, f->taps);
    snprintf(name, sizeof name, "blk.%u.ssm_a", i);
    made_add(f, name, 1, 1, f->n_v, -0.3f, 0.25f);
    snprintf(name, sizeof name, "blk.%u.ssm_dt.bias", i);
    made_add(f, name, 1, 1, f->n_v, -1, 1);
    if (strcmp(f->arch, "qwen3next") == 0)
        made_layer(f, i, "ssm_ba.weight", 1, 2 * f->n_v, f->d);
    else {
        made_layer(f, i, "ssm_beta.weight", 1, f->n_v, f->d);
        made_layer(f, i, "ssm_alpha.weight", 1, f->n_v, f->d);
    }
    made_layer(f, i, "ssm_norm.weight", 1, 1, f->dv);
    made_layer(f, i, "ssm_out.weight", 1, f->d, inner);
}

static inline void made_block(made *f, uint32_t i, bool linear) {
    made_layer(f, i, "attn_norm.weight", 1, 1, f->d);
    made_layer(f, i, "post_attention_norm.weight", 1, 1, f->d);
    if (linear)
        made_linear(f, i);
    else {
        made_layer(f, i, "attn_q.weight", 1, 2 * f->n_head * f->head, f->d);
        made_layer(f, i, "attn_k.weight", 1, f->n_kv * f->head, f->d);
        made_layer(f, i, "attn_v.weight", 1, f->n_kv * f->head, f->d);
        made_layer(f, i, "attn_output.weight", 1, f->d, f->n_head * f->head);
        made_layer(f, i, "attn_q_norm.weight", 1, 1, f->head);
        made_layer(f, i, "attn_k_norm.weight", 1, 1, f->head);
    }
    const char *suffix = f->n_expert ? "_shexp" : "", *part[3] = {"gate", "up", "down"};
    uint32_t width = f->n_expert ? f->ff_shared : f->ff;
    for (int k = 0; k < 3; k++) {
        char name[64];
        snprintf(name, sizeof name, "ffn_%s%s.weight", part[k], suffix);
        made_layer(f, i, name, 1, k == 2 ? f->d : width, k == 2 ? width : f->d);
        snprintf(name, sizeof name, "ffn_%s_exps.weight", part[k]);
        if (f->n_expert) made_layer(f, i, name, f->n_expert, k == 2 ? f->d : f->ff_exp, k == 2 ? f->ff_exp : f->d);
    }
    if (!f->n_expert) return;
    made_layer(f, i, "ffn_gate_inp.weight", 1, f->n_expert, f->d);
    made_layer(f, i, "ffn_gate_inp_shexp.weight", 1, 1, f->d);
}

static inline bool made_is_linear(const made *f, uint32_t layer) {
    return (layer + 1) % f->every != 0;
}

/* Rows of attn_qkv and attn_gate in one tensor ssm_in, by key head: query, key, its values, their gates. */
static inline void made_join(made *f, uint32_t layer) {
    char qkv_name[64], z_name[64], name[64];
    uint32_t per = f->n_v / f->n_k * f->dv, inner = f->n_v * f->dv, keys = f->n_k * f->dk;
    snprintf(qkv_name, sizeof qkv_name, "blk.%u.attn_qkv.weight", layer);
    snprintf(z_name, sizeof z_name, "blk.%u.attn_gate.weight", layer);
    snprintf(name, sizeof name, "blk.%u.ssm_in.weight", layer);
    made_add(f, name, 1, 2 * keys + 2 * inner, f->d, 0, 0);
    made_tensor *qkv = made_find(f, qkv_name), *z = made_find(f, z_name);
    float *to = f->t[f->n_t - 1].w;
    size_t row = f->d * sizeof(float);
    for (uint32_t h = 0; h < f->n_k; h++) {
        const float *parts[4] = {qkv->w + (size_t)h * f->dk * f->d, qkv->w + (size_t)(keys + h * f->dk) * f->d,
                                 qkv->w + (size_t)(2 * keys + h * per) * f->d, z->w + (size_t)h * per * f->d};
        for (int k = 0; k < 4; k++) {
            size_t rows = k < 2 ? f->dk : per;
            memcpy(to, parts[k], rows * row);
            to += rows * f->d;
        }
    }
    free(qkv->w);
    *qkv = f->t[--f->n_t]; /* in its place */
    free(z->w);
    *z = f->t[--f->n_t];
}

static inline void made_tensors(made *f, uint64_t seed) {
    f->rng = seed * 2654435761u + 88172645463325252u;
    made_add(f, "token_embd.weight", 1, TINY_VOCAB, f->d, 0, 1);
    made_add(f, "output_norm.weight", 1, 1, f->d, 1, 0.4f);
    if (!f->tied) made_add(f, "output.weight", 1, TINY_VOCAB, f->d, 0, 2.5f / sqrtf((float)f->d));
    for (uint32_t i = 0; i < f->n_layer; i++) made_block(f, i, made_is_linear(f, i));
    for (uint32_t i = 0; f->older && i < f->n_layer; i++)
        if (made_is_linear(f, i)) made_join(f, i);
    for (uint32_t i = f->n_layer; i < f->n_layer + f->n_nextn; i++) {
        made_block(f, i, false);
        made_layer(f, i, "nextn.eh_proj.weight", 1, f->d, 2 * f->d);
        made_layer(f, i, "nextn.enorm.weight", 1, 1, f->d);
        made_layer(f, i, "nextn.hnorm.weight", 1, 1, f->d);
        made_layer(f, i, "nextn.shared_head_norm.weight", 1, 1, f->d);
    }
}

static inline void made_free(made *f) {
    for (uint32_t i = 0; i < f->n_t; i++) free(f->t[i].w);
    f->n_t = 0;
}

static inline uint64_t made_keys(buf *b, const made *f) {
    char key[96];
    const struct {
        const char *name;
        uint32_t v;
    } keys[] = {
        {"block_count", f->n_layer + f->n_nextn},
        {"embedding_length", f->d},
        {"context_length", 256},
        {"attention.head_count", f->n_head},
        {"attention.head_count_kv", f->n_kv},
        {"attention.key_length", f->head},
        {"attention.value_length", f->head},
        {"rope.dimension_count", f->n_rot},
        {"ssm.conv_kernel", f->taps},
        {"ssm.inner_size", f->n_v * f->dv},
        {"ssm.state_size", f->dk},
        {"ssm.time_step_rank", f->n_v},
        {"ssm.group_count", f->n_k},
        {"full_attention_interval", f->every},
        {"nextn_predict_layers", f->n_nextn},
        {f->n_expert ? "expert_feed_forward_length" : "feed_forward_length", f->n_expert ? f->ff_exp : f->ff},
        {"expert_count", f->n_expert},
        {"expert_used_count", f->n_used},
        {"expert_shared_feed_forward_length", f->ff_shared},
    };
    uint64_t n = sizeof keys / sizeof *keys - (f->n_expert ? 0 : 3);
    edit_put_string(b, "general.architecture", f->arch);
    for (uint64_t i = 0; i < n; i++) {
        snprintf(key, sizeof key, "%s.%s", f->arch, keys[i].name);
        edit_put_u32(b, key, keys[i].v);
    }
    snprintf(key, sizeof key, "%s.attention.layer_norm_rms_epsilon", f->arch);
    edit_put_f32(b, key, (float)MADE_EPS);
    if (f->sections[0] || f->sections[1] || f->sections[2] || f->sections[3]) {
        snprintf(key, sizeof key, "%s.rope.dimension_sections", f->arch);
        edit_put_str(b, key);
        edit_put(b, 9, 4);
        edit_put(b, 5, 4);
        edit_put(b, 4, 8);
        for (int i = 0; i < 4; i++) edit_put(b, (uint32_t)f->sections[i], 4);
        n++;
    }
    return n + 2 + tiny_tokenizer(b);
}

/* The file's bytes; buf_free by the caller. */
static inline void made_file(buf *out, const made *f) {
    buf kvs = {.max = 1u << 20}, infos = {.max = 1u << 20}, data = {.max = 64u << 20};
    uint64_t n_kv = made_keys(&kvs, f);
    for (uint32_t i = 0; i < f->n_t; i++) {
        const made_tensor *t = &f->t[i];
        uint32_t dims = t->n > 1 ? 3 : t->rows > 1 ? 2 : 1;
        tiny_pad(&data);
        edit_put_str(&infos, t->name);
        edit_put(&infos, dims, 4);
        edit_put(&infos, t->cols, 8);
        if (dims > 1) edit_put(&infos, t->rows, 8);
        if (dims > 2) edit_put(&infos, t->n, 8);
        edit_put(&infos, 0, 4);
        edit_put(&infos, data.len, 8);
        buf_append(&data, (const char *)t->w, (size_t)t->n * t->rows * t->cols * sizeof(float));
    }
    out->max = 128u << 20;
    buf_puts(out, "GGUF");
    edit_put(out, 3, 4);
    edit_put(out, f->n_t, 8);
    edit_put(out, n_kv, 8);
    buf_append(out, kvs.ptr, kvs.len);
    buf_append(out, infos.ptr, infos.len);
    tiny_pad(out);
    buf_append(out, data.ptr, data.len);
    buf_free(&kvs);
    buf_free(&infos);
    buf_free(&data);
}

/* ---- what it computes ------------------------------------------------------------------------------------- */

#define REF_WIDTH 512

static inline double ref_sigmoid(double x) {
    return 1 / (1 + exp(-x));
}
static inline double ref_silu(double x) {
    return x * ref_sigmoid(x);
}

static inline made_tensor *ref_of(made *f, uint32_t layer, const char *name) {
    char full[64];
    snprintf(full, sizeof full, "blk.%u.%s", layer, name);
    return made_find(f, full);
}

/* y = W x, plane `plane` of the tensor */
static inline void ref_mul(const made_tensor *t, uint32_t plane, double *y, const double *x) {
    const float *w = t->w + (size_t)plane * t->rows * t->cols;
    for (uint32_t r = 0; r < t->rows; r++) {
        y[r] = 0;
        for (uint32_t c = 0; c < t->cols; c++) y[r] += (double)w[(size_t)r * t->cols + c] * x[c];
    }
}

static inline void ref_norm(const made_tensor *t, double *y, const double *x) {
    double s = 0;
    for (uint32_t i = 0; i < t->cols; i++) s += x[i] * x[i];
    for (uint32_t i = 0; i < t->cols; i++) y[i] = x[i] / sqrt(s / t->cols + MADE_EPS) * (double)t->w[i];
}

static inline void ref_unit(double *x, uint32_t n) {
    double s = 0;
    for (uint32_t i = 0; i < n; i++) s += x[i] * x[i];
    for (uint32_t i = 0; i < n; i++) x[i] /= sqrt(s + 1e-6);
}

/* Which key head, and where in the row of ssm_ba beta and alpha of value head h are (qwen3next). */
static inline uint32_t ref_key_head(const made *f, uint32_t h) {
    return strcmp(f->arch, "qwen3next") == 0 ? h / (f->n_v / f->n_k) : h % f->n_k;
}

static inline void ref_gates(made *f, uint32_t layer, const double *x, double *beta, double *decay) {
    double b[REF_WIDTH], a[REF_WIDTH], ba[REF_WIDTH];
    if (strcmp(f->arch, "qwen3next") == 0) {
        uint32_t per = f->n_v / f->n_k;
        ref_mul(ref_of(f, layer, "ssm_ba.weight"), 0, ba, x);
        for (uint32_t k = 0; k < f->n_k; k++)
            for (uint32_t i = 0; i < per; i++) {
                b[k * per + i] = ba[k * 2 * per + i];
                a[k * per + i] = ba[k * 2 * per + per + i];
            }
    } else {
        ref_mul(ref_of(f, layer, "ssm_beta.weight"), 0, b, x);
        ref_mul(ref_of(f, layer, "ssm_alpha.weight"), 0, a, x);
    }
    for (uint32_t h = 0; h < f->n_v; h++) {
        double dt = (double)ref_of(f, layer, "ssm_dt.bias")->w[h], neg = (double)ref_of(f, layer, "ssm_a")->w[h];
        beta[h] = ref_sigmoid(b[h]);
        decay[h] = exp(neg * log1p(exp(a[h] + dt)));
    }
}

/* One value head over all tokens: u (n, channels) after the convolution; o (n, dv) */
static inline void ref_head(const made *f, uint32_t h, uint32_t n, double (*u)[REF_WIDTH], double (*beta)[REF_WIDTH],
                            double (*decay)[REF_WIDTH], double (*o)[REF_WIDTH]) {
    static double s[64][64];
    uint32_t hk = ref_key_head(f, h);
    memset(s, 0, sizeof s);
    for (uint32_t t = 0; t < n; t++) {
        const double *q = u[t] + hk * f->dk, *k = u[t] + (f->n_k + hk) * f->dk,
                     *v = u[t] + 2 * f->n_k * f->dk + h * f->dv;
        for (uint32_t c = 0; c < f->dv; c++) {
            double read = 0, out = 0;
            for (uint32_t j = 0; j < f->dk; j++) read += (s[j][c] *= decay[t][h]) * k[j];
            for (uint32_t j = 0; j < f->dk; j++) s[j][c] += k[j] * (v[c] - read) * beta[t][h];
            for (uint32_t j = 0; j < f->dk; j++) out += s[j][c] * q[j] / sqrt(f->dk);
            o[t][h * f->dv + c] = out;
        }
    }
}

#define REF_N 40
typedef double ref_rows[REF_N][REF_WIDTH];

static inline void ref_linear(made *f, uint32_t layer, uint32_t n, ref_rows x, ref_rows y) {
    static ref_rows in, u, beta, decay, o;
    uint32_t channels = 2 * f->n_k * f->dk + f->n_v * f->dv;
    const made_tensor *w = ref_of(f, layer, "ssm_conv1d.weight"), *norm = ref_of(f, layer, "ssm_norm.weight");
    for (uint32_t t = 0; t < n; t++) {
        ref_mul(ref_of(f, layer, "attn_qkv.weight"), 0, in[t], x[t]);
        ref_gates(f, layer, x[t], beta[t], decay[t]);
    }
    for (uint32_t t = 0; t < n; t++) {
        for (uint32_t c = 0; c < channels; c++) {
            double s = 0;
            for (uint32_t k = 0; k < f->taps; k++)
                if (t + k + 1 >= f->taps) s += (double)w->w[c * f->taps + k] * in[t + k + 1 - f->taps][c];
            u[t][c] = ref_silu(s);
        }
        for (uint32_t h = 0; h < 2 * f->n_k; h++) ref_unit(u[t] + h * f->dk, f->dk);
    }
    for (uint32_t h = 0; h < f->n_v; h++) ref_head(f, h, n, u, beta, decay, o);
    for (uint32_t t = 0; t < n; t++) {
        double z[REF_WIDTH];
        ref_mul(ref_of(f, layer, "attn_gate.weight"), 0, z, x[t]);
        for (uint32_t h = 0; h < f->n_v; h++) ref_norm(norm, o[t] + h * f->dv, o[t] + h * f->dv);
        for (uint32_t c = 0; c < f->n_v * f->dv; c++) o[t][c] *= ref_silu(z[c]);
        ref_mul(ref_of(f, layer, "ssm_out.weight"), 0, y[t], o[t]);
    }
}

static inline void ref_turn(const made *f, double *x, uint32_t pos) {
    for (uint32_t i = 0; i < f->n_rot / 2; i++) {
        double angle = pos * pow(MADE_BASE, -2.0 * i / f->n_rot), a = x[i], b = x[i + f->n_rot / 2];
        x[i] = a * cos(angle) - b * sin(angle);
        x[i + f->n_rot / 2] = b * cos(angle) + a * sin(angle);
    }
}

static inline void ref_attend(const made *f, uint32_t t, uint32_t h, const double *q, ref_rows k, ref_rows v,
                              double *o) {
    double p[REF_N], max = -INFINITY, sum = 0;
    uint32_t at = h / (f->n_head / f->n_kv) * f->head;
    for (uint32_t j = 0; j <= t; j++) {
        p[j] = 0;
        for (uint32_t i = 0; i < f->head; i++) p[j] += q[i] * k[j][at + i] / sqrt(f->head);
        max = fmax(max, p[j]);
    }
    for (uint32_t j = 0; j <= t; j++) sum += p[j] = exp(p[j] - max);
    for (uint32_t i = 0; i < f->head; i++) {
        o[i] = 0;
        for (uint32_t j = 0; j <= t; j++) o[i] += p[j] / sum * v[j][at + i];
    }
}

static inline void ref_attention(made *f, uint32_t layer, uint32_t n, ref_rows x, ref_rows y) {
    static ref_rows qg, k, v;
    const made_tensor *qn = ref_of(f, layer, "attn_q_norm.weight"), *kn = ref_of(f, layer, "attn_k_norm.weight");
    for (uint32_t t = 0; t < n; t++) {
        ref_mul(ref_of(f, layer, "attn_q.weight"), 0, qg[t], x[t]);
        ref_mul(ref_of(f, layer, "attn_k.weight"), 0, k[t], x[t]);
        ref_mul(ref_of(f, layer, "attn_v.weight"), 0, v[t], x[t]);
        for (uint32_t h = 0; h < f->n_kv; h++) {
            ref_norm(kn, k[t] + h * f->head, k[t] + h * f->head);
            ref_turn(f, k[t] + h * f->head, t);
        }
    }
    for (uint32_t t = 0; t < n; t++) {
        double o[REF_WIDTH];
        for (uint32_t h = 0; h < f->n_head; h++) {
            double *q = qg[t] + 2 * h * f->head, *gate = q + f->head, *oh = o + h * f->head;
            ref_norm(qn, q, q);
            ref_turn(f, q, t);
            ref_attend(f, t, h, q, k, v, oh);
            for (uint32_t i = 0; i < f->head; i++) oh[i] *= ref_sigmoid(gate[i]);
        }
        ref_mul(ref_of(f, layer, "attn_output.weight"), 0, y[t], o);
    }
}

/* down(silu(gate x) * up x), tensors ffn_*SUFFIX */
static inline void ref_ffn(made *f, uint32_t layer, const char *suffix, uint32_t plane, const double *x, double *y) {
    double g[REF_WIDTH], u[REF_WIDTH];
    char name[3][48];
    snprintf(name[0], sizeof name[0], "ffn_gate%s.weight", suffix);
    snprintf(name[1], sizeof name[1], "ffn_up%s.weight", suffix);
    snprintf(name[2], sizeof name[2], "ffn_down%s.weight", suffix);
    const made_tensor *t = ref_of(f, layer, name[0]);
    ref_mul(t, plane, g, x);
    ref_mul(ref_of(f, layer, name[1]), plane, u, x);
    for (uint32_t i = 0; i < t->rows; i++) g[i] = ref_silu(g[i]) * u[i];
    ref_mul(ref_of(f, layer, name[2]), plane, y, g);
}

static inline void ref_experts(made *f, uint32_t layer, const double *x, double *y) {
    double p[REF_WIDTH], one[REF_WIDTH], gate, all = 0, chosen = 0;
    bool used[REF_WIDTH] = {false};
    ref_mul(ref_of(f, layer, "ffn_gate_inp.weight"), 0, p, x);
    for (uint32_t i = 0; i < f->n_expert; i++) all += p[i] = exp(p[i]);
    for (uint32_t k = 0; k < f->n_used; k++) {
        uint32_t best = f->n_expert;
        for (uint32_t i = 0; i < f->n_expert; i++)
            if (!used[i] && (best == f->n_expert || p[i] > p[best])) best = i;
        used[best] = true;
        chosen += p[best] / all;
    }
    ref_ffn(f, layer, "_shexp", 0, x, y);
    ref_mul(ref_of(f, layer, "ffn_gate_inp_shexp.weight"), 0, &gate, x);
    for (uint32_t c = 0; c < f->d; c++) y[c] *= ref_sigmoid(gate);
    for (uint32_t i = 0; i < f->n_expert; i++) {
        if (!used[i]) continue;
        ref_ffn(f, layer, "_exps", i, x, one);
        for (uint32_t c = 0; c < f->d; c++) y[c] += p[i] / all / chosen * one[c];
    }
}

/* logits: (n, TINY_VOCAB) */
static inline void ref_logits(made *f, const int32_t *tokens, uint32_t n, double *logits) {
    static ref_rows x, xn, y;
    const made_tensor *embd = made_find(f, "token_embd.weight");
    for (uint32_t t = 0; t < n; t++)
        for (uint32_t c = 0; c < f->d; c++) x[t][c] = (double)embd->w[(size_t)tokens[t] * f->d + c];
    for (uint32_t i = 0; i < f->n_layer; i++) {
        for (uint32_t t = 0; t < n; t++) ref_norm(ref_of(f, i, "attn_norm.weight"), xn[t], x[t]);
        (made_is_linear(f, i) ? ref_linear : ref_attention)(f, i, n, xn, y);
        for (uint32_t t = 0; t < n; t++) {
            for (uint32_t c = 0; c < f->d; c++) x[t][c] += y[t][c];
            ref_norm(ref_of(f, i, "post_attention_norm.weight"), xn[t], x[t]);
            if (f->n_expert)
                ref_experts(f, i, xn[t], y[t]);
            else
                ref_ffn(f, i, "", 0, xn[t], y[t]);
            for (uint32_t c = 0; c < f->d; c++) x[t][c] += y[t][c];
        }
    }
    for (uint32_t t = 0; t < n; t++) {
        ref_norm(made_find(f, "output_norm.weight"), x[t], x[t]);
        ref_mul(f->tied ? embd : made_find(f, "output.weight"), 0, logits + (size_t)t * TINY_VOCAB, x[t]);
    }
}

#endif
