/* The definition of every kernel of vec.h; other instruction sets give the same bits. */
#include "engine/kernels/vec.h"

#include "engine/num.h"

#include <stdbool.h>

const vec_kernels *vec_get(isa i) {
    if (!isa_have(i)) return NULL;
#ifdef POLDER_HAVE_AVX2
    if (i == ISA_AVX2) return &vec_avx2;
#endif
#ifdef POLDER_HAVE_AVX512
    if (i == ISA_AVX512) return &vec_avx512;
#endif
#ifdef POLDER_HAVE_NEON
    if (i == ISA_NEON) return &vec_neon;
#endif
    return &vec_scalar;
}

static void scalar_rms_norm(float *y, const float *x, const float *w, uint32_t n, float eps) {
    float s[VEC_LANES] = {0};
    for (uint32_t i = 0; i < n; i++) s[i % VEC_LANES] = fmaf(x[i], x[i], s[i % VEC_LANES]);
    float f = 1.0f / sqrtf(vec_fold(s) / (float)n + eps);
    for (uint32_t i = 0; i < n; i++) y[i] = x[i] * f * w[i];
}

static void scalar_rope_pairs(float *x, const float *cc, const float *ss, uint32_t n) {
    for (uint32_t i = 0; i + 1 < n; i += 2) {
        float a = x[i], b = x[i + 1];
        x[i] = fmaf(a, cc[i], b * ss[i]);
        x[i + 1] = fmaf(b, cc[i + 1], a * ss[i + 1]);
    }
}

static void scalar_rope_halves(float *x, const float *cc, const float *ss, uint32_t n) {
    for (uint32_t i = 0; i < n / 2; i++) {
        float a = x[i], b = x[i + n / 2];
        x[i] = fmaf(a, cc[i], b * ss[i]);
        x[i + n / 2] = fmaf(b, cc[i + n / 2], a * ss[i + n / 2]);
    }
}

static void scalar_layer_norm(float *y, const float *x, const float *w, const float *b, uint32_t n, float eps) {
    float s[VEC_LANES] = {0}, v[VEC_LANES] = {0};
    for (uint32_t i = 0; i < n; i++) s[i % VEC_LANES] += x[i];
    float mean = vec_fold(s) / (float)n;
    for (uint32_t i = 0; i < n; i++) v[i % VEC_LANES] = fmaf(x[i] - mean, x[i] - mean, v[i % VEC_LANES]);
    float f = 1.0f / sqrtf(vec_fold(v) / (float)n + eps);
    for (uint32_t i = 0; i < n; i++) y[i] = fmaf((x[i] - mean) * f, w[i], b[i]);
}

static void scalar_to_half(uint16_t *y, const float *x, size_t n) {
    for (size_t i = 0; i < n; i++) y[i] = num_to_half(x[i]);
}

static inline float element(const void *p, size_t i, bool half) {
    return half ? num_from_half(((const uint16_t *)p)[i]) : ((const float *)p)[i];
}

/* One row over a tile; K and V are binary16 or binary32. */
static void scalar_attn_row(attn_row *r, const void *k, const void *v, const attn_shape *a, bool half) {
    float s[VEC_TILE], m = r->m;
    uint32_t dk = a->dk, dv = a->dv;
    for (uint32_t p = r->first; p < r->n_valid; p++) {
        float dot = 0;
        for (uint32_t d = 0; d < dk; d++) dot = fmaf(r->q[d], element(k, (size_t)d * VEC_TILE + p, half), dot);
        s[p] = dot * a->scale;
        if (a->cap != 0) s[p] = a->cap * num_tanh32(s[p] / a->cap);
        if (s[p] > m) m = s[p];
    }
    float corr = num_exp32(r->m - m), sum[8] = {0};
    for (uint32_t p = r->first; p < r->n_valid; p++) {
        s[p] = num_exp32(s[p] - m);
        sum[p % 8] += s[p];
    }
    r->m = m;
    r->l = fmaf(r->l, corr, vec_tree(sum));
    for (uint32_t d = 0; d < dv; d++) {
        float x = r->acc[d] * corr;
        for (uint32_t p = r->first; p < r->n_valid; p++) x = fmaf(s[p], element(v, (size_t)p * dv + d, half), x);
        r->acc[d] = x;
    }
}

static void scalar_attn_tile(attn_row *rows, uint32_t n_rows, const uint16_t *tile, const uint16_t *next,
                             const attn_shape *s) {
    (void)next;
    for (uint32_t i = 0; i < n_rows; i++) scalar_attn_row(&rows[i], tile, tile + (size_t)VEC_TILE * s->dk, s, true);
}

static void scalar_attn_tile_f32(attn_row *rows, uint32_t n_rows, const float *tile, const float *next,
                                 const attn_shape *s) {
    (void)next;
    for (uint32_t i = 0; i < n_rows; i++) scalar_attn_row(&rows[i], tile, tile + (size_t)VEC_TILE * s->dk, s, false);
}

static void scalar_kv8_expand(uint16_t *tile, const void *from, const void *next, uint32_t dk, uint32_t dv) {
    (void)next;
    const char *base = from;
    const int8_t *q = from;
    const uint16_t *ks = (const uint16_t *)(const void *)(base + kv8_k_scales_at(dk, dv)),
                   *vs = (const uint16_t *)(const void *)(base + kv8_v_scales_at(dk, dv));
    for (uint32_t d = 0; d < dk; d++, q += VEC_TILE, tile += VEC_TILE)
        for (uint32_t p = 0; p < VEC_TILE; p++)
            tile[p] = num_to_half(num_from_half(ks[d / KV8_BLOCK * VEC_TILE + p]) * (float)q[p]);
    for (uint32_t p = 0; p < VEC_TILE; p++, q += dv, tile += dv)
        for (uint32_t d = 0; d < dv; d++)
            tile[d] = num_to_half(num_from_half(vs[p * kv8_blocks(dv) + d / KV8_BLOCK]) * (float)q[d]);
}

static void scalar_swiglu(float *gate, const float *up, size_t n) {
    for (size_t i = 0; i < n; i++) gate[i] = num_silu32(gate[i]) * up[i];
}

static void scalar_geglu(float *gate, const float *up, size_t n) {
    for (size_t i = 0; i < n; i++) gate[i] = num_gelu32(gate[i]) * up[i];
}

static void scalar_gelu(float *x, size_t n) {
    for (size_t i = 0; i < n; i++) x[i] = num_gelu32(x[i]);
}

static void scalar_swiglu_clamped(float *gate, const float *up, size_t n) {
    for (size_t i = 0; i < n; i++) gate[i] = vec_swiglu_clamped(gate[i], up[i]);
}

static void scalar_sigmoid_gate(float *x, const float *gate, size_t n) {
    for (size_t i = 0; i < n; i++) x[i] *= num_sigmoid32(gate[i]);
}

static void scalar_soft_cap(float *x, float cap, size_t n) {
    for (size_t i = 0; i < n; i++) x[i] = cap * num_tanh32(x[i] / cap);
}

static void scalar_add(float *x, const float *y, size_t n) {
    for (size_t i = 0; i < n; i++) x[i] += y[i];
}

static void scalar_scale(float *x, float f, size_t n) {
    for (size_t i = 0; i < n; i++) x[i] *= f;
}

static void scalar_mul_add(float *y, const float *x, float f, size_t n) {
    for (size_t i = 0; i < n; i++) y[i] = fmaf(f, x[i], y[i]);
}

static double scalar_exp_sum(float *w, const float *x, float max, float div, size_t n) {
    double s[8] = {0};
    for (size_t i = 0; i < n; i++) {
        w[i] = num_exp32((x[i] - max) / div);
        s[i % 8] += (double)w[i];
    }
    return vec_tree64(s);
}

const vec_kernels vec_scalar = {
    .name = "scalar",
    .rms_norm = scalar_rms_norm,
    .rope_pairs = scalar_rope_pairs,
    .rope_halves = scalar_rope_halves,
    .layer_norm = scalar_layer_norm,
    .to_half = scalar_to_half,
    .attn_tile = scalar_attn_tile,
    .kv8_expand = scalar_kv8_expand,
    .attn_tile_f32 = scalar_attn_tile_f32,
    .swiglu = scalar_swiglu,
    .geglu = scalar_geglu,
    .gelu = scalar_gelu,
    .swiglu_clamped = scalar_swiglu_clamped,
    .sigmoid_gate = scalar_sigmoid_gate,
    .soft_cap = scalar_soft_cap,
    .add = scalar_add,
    .scale = scalar_scale,
    .mul_add = scalar_mul_add,
    .exp_sum = scalar_exp_sum,
};
