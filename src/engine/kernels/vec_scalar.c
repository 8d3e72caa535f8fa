/* The definition of every kernel of vec.h; other instruction sets give the same bits. */
#include "engine/kernels/vec.h"

#include "engine/num.h"

const vec_kernels *vec_get(isa i) {
    if (!isa_have(i)) return NULL;
#ifdef POLDER_HAVE_AVX2
    if (i == ISA_AVX2) return &vec_avx2;
#endif
    return &vec_scalar;
}

static void scalar_rms_norm(float *y, const float *x, const float *w, uint32_t n, float eps) {
    float s[8] = {0};
    for (uint32_t i = 0; i < n; i++) s[i % 8] = fmaf(x[i], x[i], s[i % 8]);
    float f = 1.0f / sqrtf(vec_tree(s) / (float)n + eps);
    for (uint32_t i = 0; i < n; i++) y[i] = x[i] * f * w[i];
}

static void scalar_rope_pairs(float *x, const float *cc, const float *ss, uint32_t n) {
    for (uint32_t i = 0; i + 1 < n; i += 2) {
        float a = x[i], b = x[i + 1];
        x[i] = fmaf(a, cc[i], b * ss[i]);
        x[i + 1] = fmaf(b, cc[i + 1], a * ss[i + 1]);
    }
}

static void scalar_attn_row(attn_row *r, const float *k, const float *v, uint32_t dk, uint32_t dv, float scale) {
    float s[VEC_TILE], m = r->m;
    for (uint32_t p = 0; p < r->n_valid; p++) {
        float dot = 0;
        for (uint32_t d = 0; d < dk; d++) dot = fmaf(r->q[d], k[(size_t)d * VEC_TILE + p], dot);
        s[p] = dot * scale;
        if (s[p] > m) m = s[p];
    }
    float corr = num_exp32(r->m - m), sum[8] = {0};
    for (uint32_t p = 0; p < r->n_valid; p++) {
        s[p] = num_exp32(s[p] - m);
        sum[p % 8] += s[p];
    }
    r->m = m;
    r->l = fmaf(r->l, corr, vec_tree(sum));
    for (uint32_t d = 0; d < dv; d++) {
        float a = r->acc[d] * corr;
        for (uint32_t p = 0; p < r->n_valid; p++) a = fmaf(s[p], v[(size_t)p * dv + d], a);
        r->acc[d] = a;
    }
}

static void scalar_attn_tile(attn_row *rows, uint32_t n_rows, const float *tile, const float *next, uint32_t dk,
                             uint32_t dv, float scale) {
    (void)next;
    for (uint32_t i = 0; i < n_rows; i++) scalar_attn_row(&rows[i], tile, tile + (size_t)VEC_TILE * dk, dk, dv, scale);
}

static void scalar_swiglu(float *gate, const float *up, size_t n) {
    for (size_t i = 0; i < n; i++) gate[i] = num_silu32(gate[i]) * up[i];
}

static void scalar_add(float *x, const float *y, size_t n) {
    for (size_t i = 0; i < n; i++) x[i] += y[i];
}

static void scalar_scale(float *x, float f, size_t n) {
    for (size_t i = 0; i < n; i++) x[i] *= f;
}

static double scalar_exp_sum(float *w, const float *x, float max, float div, size_t n) {
    double s[8] = {0};
    for (size_t i = 0; i < n; i++) {
        w[i] = num_exp32((x[i] - max) / div);
        s[i % 8] += (double)w[i];
    }
    return vec_tree64(s);
}

const vec_kernels vec_scalar = {"scalar",      scalar_rms_norm, scalar_rope_pairs, scalar_attn_tile,
                                scalar_swiglu, scalar_add,      scalar_scale,      scalar_exp_sum};
