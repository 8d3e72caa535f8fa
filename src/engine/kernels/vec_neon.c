/* vec.h with Advanced SIMD of AArch64. Operation by operation the same as vec_scalar.c and num.h: only the grouping of
 * independent results into registers differs. What vec.h sums in eight lanes is two registers here. */
#include "engine/kernels/inline.h"
#include "engine/kernels/vec.h"

#include "engine/num.h"

#include <arm_neon.h>

#define ROWS_MAX 4
#define REGS     16 /* registers of sums */

/* num_exp32 */
INLINE float32x4_t exp_ps(float32x4_t x) {
    const float32x4_t lo = vdupq_n_f32(NUM_EXP32_LO), magic = vdupq_n_f32(NUM_ROUND_MAGIC);
    float32x4_t c = vminq_f32(vdupq_n_f32(NUM_EXP32_HI), vmaxq_f32(lo, x)); /* a NaN passes both */
    float32x4_t z = vfmaq_f32(magic, c, vdupq_n_f32(NUM_EXP32_LOG2E));
    float32x4_t n = vsubq_f32(z, magic);
    float32x4_t r = vfmaq_f32(c, n, vdupq_n_f32(-NUM_EXP32_LN2_HI));
    r = vfmaq_f32(r, n, vdupq_n_f32(-NUM_EXP32_LN2_LO));
    float32x4_t p = vfmaq_f32(vdupq_n_f32(1.0f / 720), r, vdupq_n_f32(1.0f / 5040));
    p = vfmaq_f32(vdupq_n_f32(1.0f / 120), r, p);
    p = vfmaq_f32(vdupq_n_f32(1.0f / 24), r, p);
    p = vfmaq_f32(vdupq_n_f32(1.0f / 6), r, p);
    p = vfmaq_f32(vdupq_n_f32(0.5f), r, p);
    p = vfmaq_f32(vdupq_n_f32(1.0f), r, p);
    p = vfmaq_f32(vdupq_n_f32(1.0f), r, p);
    int32x4_t k = vsubq_s32(vreinterpretq_s32_f32(z), vreinterpretq_s32_f32(magic));
    int32x4_t k1 = vshrq_n_s32(k, 1), k2 = vsubq_s32(k, k1), bias = vdupq_n_s32(127);
    p = vmulq_f32(p, vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(k1, bias), 23)));
    p = vmulq_f32(p, vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(k2, bias), 23)));
    return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(p), vcltq_f32(x, lo)));
}

/* Lanes 0 to 3 and 4 to 7: ((0+4)+(2+6)) + ((1+5)+(3+7)). */
INLINE float tree(float32x4_t lo, float32x4_t hi) {
    float32x4_t a = vaddq_f32(lo, hi);
    float32x2_t b = vadd_f32(vget_low_f32(a), vget_high_f32(a));
    return vget_lane_f32(b, 0) + vget_lane_f32(b, 1);
}

/* What a norm adds up of an element v. */
typedef enum addend {
    SQUARE,
    ITSELF,
    SQUARE_OFF_MEAN, /* (v - mean)^2 */
} addend;

INLINE float32x4_t add_of(addend what, float32x4_t s, float32x4_t v, float32x4_t mean) {
    if (what == ITSELF) return vaddq_f32(s, v);
    if (what == SQUARE_OFF_MEAN) v = vsubq_f32(v, mean);
    return vfmaq_f32(s, v, v);
}

/* The sum of a norm in 128 lanes, by two walks: the registers hold 64. */
INLINE float norm_sum(addend what, const float *x, uint32_t n, float mean) {
    const float32x4_t vm = vdupq_n_f32(mean);
    const uint32_t full = n / VEC_LANES * VEC_LANES;
    float lanes[VEC_LANES];
    for (uint32_t first = 0; first < VEC_LANES; first += 64) {
        float32x4_t s[16];
        UNROLL for (int j = 0; j < 16; j++) s[j] = vdupq_n_f32(0);
        for (uint32_t i = first; i < full; i += VEC_LANES)
            UNROLL for (int j = 0; j < 16; j++) s[j] = add_of(what, s[j], vld1q_f32(x + i + 4 * j), vm);
        UNROLL for (int j = 0; j < 16; j++) vst1q_f32(lanes + first + 4 * j, s[j]);
    }
    for (uint32_t i = full; i < n; i++) {
        float v = what == SQUARE_OFF_MEAN ? x[i] - mean : x[i], *to = lanes + (i - full);
        *to = what == ITSELF ? *to + v : fmaf(v, v, *to);
    }
    return vec_fold(lanes);
}

static void neon_rms_norm(float *y, const float *x, const float *w, uint32_t n, float eps) {
    float f = 1.0f / sqrtf(norm_sum(SQUARE, x, n, 0) / (float)n + eps);
    uint32_t i = 0;
    for (; i + 4 <= n; i += 4) vst1q_f32(y + i, vmulq_f32(vmulq_n_f32(vld1q_f32(x + i), f), vld1q_f32(w + i)));
    for (; i < n; i++) y[i] = x[i] * f * w[i];
}

static void neon_rope_pairs(float *x, const float *cc, const float *ss, uint32_t n) {
    uint32_t i = 0;
    for (; i + 4 <= n; i += 4) {
        float32x4_t v = vld1q_f32(x + i), t = vmulq_f32(vrev64q_f32(v), vld1q_f32(ss + i));
        vst1q_f32(x + i, vfmaq_f32(t, v, vld1q_f32(cc + i)));
    }
    for (; i + 1 < n; i += 2) {
        float a = x[i], b = x[i + 1];
        x[i] = fmaf(a, cc[i], b * ss[i]);
        x[i + 1] = fmaf(b, cc[i + 1], a * ss[i + 1]);
    }
}

static void neon_rope_halves(float *x, const float *cc, const float *ss, uint32_t n) {
    uint32_t h = n / 2, i = 0;
    for (; i + 4 <= h; i += 4) {
        float32x4_t a = vld1q_f32(x + i), b = vld1q_f32(x + h + i);
        float32x4_t ta = vmulq_f32(b, vld1q_f32(ss + i)), tb = vmulq_f32(a, vld1q_f32(ss + h + i));
        vst1q_f32(x + i, vfmaq_f32(ta, a, vld1q_f32(cc + i)));
        vst1q_f32(x + h + i, vfmaq_f32(tb, b, vld1q_f32(cc + h + i)));
    }
    for (; i < h; i++) {
        float a = x[i], b = x[i + h];
        x[i] = fmaf(a, cc[i], b * ss[i]);
        x[i + h] = fmaf(b, cc[i + h], a * ss[i + h]);
    }
}

static void neon_layer_norm(float *y, const float *x, const float *w, const float *b, uint32_t n, float eps) {
    const float mean = norm_sum(ITSELF, x, n, 0) / (float)n;
    const float f = 1.0f / sqrtf(norm_sum(SQUARE_OFF_MEAN, x, n, mean) / (float)n + eps);
    const float32x4_t vm = vdupq_n_f32(mean);
    uint32_t i = 0;
    for (; i + 4 <= n; i += 4) {
        float32x4_t d = vmulq_n_f32(vsubq_f32(vld1q_f32(x + i), vm), f);
        vst1q_f32(y + i, vfmaq_f32(vld1q_f32(b + i), d, vld1q_f32(w + i)));
    }
    for (; i < n; i++) y[i] = fmaf((x[i] - mean) * f, w[i], b[i]);
}

/* num_to_half: a NaN passes the clamp. */
static void neon_to_half(uint16_t *y, const float *x, size_t n) {
    const float32x4_t most = vdupq_n_f32(NUM_HALF_MAX), least = vdupq_n_f32(-NUM_HALF_MAX);
    size_t i = 0;
    for (; i + 4 <= n; i += 4) {
        float32x4_t v = vmaxq_f32(least, vminq_f32(most, vld1q_f32(x + i)));
        vst1_u16(y + i, vreinterpret_u16_f16(vcvt_f16_f32(v)));
    }
    for (; i < n; i++) y[i] = num_to_half(x[i]);
}

/* num_tanh32 */
INLINE float32x4_t tanh_ps(float32x4_t x) {
    const float32x4_t one = vdupq_n_f32(1.0f), two = vdupq_n_f32(2.0f);
    return vsubq_f32(one, vdivq_f32(two, vaddq_f32(one, exp_ps(vmulq_f32(two, x)))));
}

/* ---- attention -----------------------------------------------------------------------------------------------------
 */

/* Four numbers of a tile from `at` on; one. */
INLINE float32x4_t tile_load(const void *tile, size_t at, const bool half) {
    if (half) return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16((const uint16_t *)tile + at)));
    return vld1q_f32((const float *)tile + at);
}
INLINE float tile_get(const void *tile, size_t at, const bool half) {
    return half ? num_from_half(((const uint16_t *)tile)[at]) : ((const float *)tile)[at];
}

/* Scores of R rows for NV * 4 positions from p0: R * NV = REGS chains in registers. */
INLINE void scores_block(const attn_row *rows, float (*s)[VEC_TILE], const void *k, uint32_t dk, uint32_t p0,
                         float scale, const int R, const int NV, const bool half) {
    float32x4_t acc[REGS];
    UNROLL for (int i = 0; i < REGS; i++) acc[i] = vdupq_n_f32(0);
    for (uint32_t d = 0; d < dk; d++) {
        float32x4_t q[ROWS_MAX];
        UNROLL for (int r = 0; r < R; r++) q[r] = vld1q_dup_f32(rows[r].q + d);
        UNROLL for (int j = 0; j < NV; j++) {
            float32x4_t kv = tile_load(k, (size_t)d * VEC_TILE + p0 + 4 * (uint32_t)j, half);
            UNROLL for (int r = 0; r < R; r++) acc[r * NV + j] = vfmaq_f32(acc[r * NV + j], q[r], kv);
        }
    }
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int j = 0; j < NV; j++)
        vst1q_f32(s[r] + p0 + 4 * j, vmulq_n_f32(acc[r * NV + j], scale));
}

/* Positions past the last valid one are computed and never used: lanes do not touch each other. */
INLINE void scores(const attn_row *rows, uint32_t n_rows, float (*s)[VEC_TILE], const void *k, uint32_t dk, float scale,
                   const bool half) {
    uint32_t most = 0;
    for (uint32_t r = 0; r < n_rows; r++) most = rows[r].n_valid > most ? rows[r].n_valid : most;
    if (n_rows == 4)
        for (uint32_t p = 0; p < most; p += 16) scores_block(rows, s, k, dk, p, scale, 4, 4, half);
    else if (n_rows >= 2)
        for (uint32_t p = 0; p < most; p += 32) scores_block(rows, s, k, dk, p, scale, 2, 8, half);
    if (n_rows & 1) scores_block(rows + n_rows - 1, s + n_rows - 1, k, dk, 0, scale, 1, 16, half);
}

/* All ones in the lanes of [p, p + 4) that lie in [first, n). */
INLINE uint32x4_t lanes_seen(int p, int first, int n) {
    static const int32_t count[4] = {0, 1, 2, 3};
    int32x4_t at = vaddq_s32(vdupq_n_s32(p), vld1q_s32(count));
    return vandq_u32(vcgeq_s32(at, vdupq_n_s32(first)), vcltq_s32(at, vdupq_n_s32(n)));
}

/* Weights of four positions from p on, 0 where the row does not see: adding 0 changes no sum of weights. */
INLINE float32x4_t weights_at(const attn_row *r, float *s, int p, float32x4_t vm) {
    float32x4_t e = exp_ps(vsubq_f32(vld1q_f32(s + p), vm));
    e = vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(e), lanes_seen(p, (int)r->first, (int)r->n_valid)));
    vst1q_f32(s + p, e);
    return e;
}

/* Scores to weights; returns the factor for what was summed before. */
INLINE float weigh(attn_row *r, float *s, float cap) {
    const float32x4_t low = vdupq_n_f32(-INFINITY), vc = vdupq_n_f32(cap);
    const int n = (int)r->n_valid, first = (int)r->first;
    float32x4_t vm = vdupq_n_f32(r->m);
    for (int p = first & ~3; p < n; p += 4) {
        float32x4_t v = vld1q_f32(s + p);
        if (cap != 0) {
            v = vmulq_f32(vc, tanh_ps(vdivq_f32(v, vc)));
            vst1q_f32(s + p, v);
        }
        v = vbslq_f32(lanes_seen(p, first, n), v, low);
        vm = vbslq_f32(vcgtq_f32(v, vm), v, vm); /* a NaN is no new maximum */
    }
    const float m = vmaxvq_f32(vm);
    vm = vdupq_n_f32(m);
    float32x4_t lo = vdupq_n_f32(0), hi = lo;
    for (int p = first & ~7; p < n; p += 8) {
        lo = vaddq_f32(lo, weights_at(r, s, p, vm));
        hi = vaddq_f32(hi, weights_at(r, s, p + 4, vm));
    }
    float corr = num_exp32(r->m - m);
    r->m = m;
    r->l = fmaf(r->l, corr, tree(lo, hi));
    return corr;
}

/* acc[d0 … d0 + 4 NV) of R rows over positions [p0, p1). */
INLINE void values_block(attn_row *rows, const float (*s)[VEC_TILE], const void *v, uint32_t dv, uint32_t d0,
                         uint32_t p0, uint32_t p1, const int R, const int NV, const bool half) {
    float32x4_t acc[REGS];
    UNROLL for (int i = 0; i < R * NV; i++) acc[i] = vld1q_f32(rows[i / NV].acc + d0 + 4 * (i % NV));
    for (uint32_t p = p0; p < p1; p++) {
        float32x4_t w[ROWS_MAX];
        UNROLL for (int r = 0; r < R; r++) w[r] = vld1q_dup_f32(&s[r][p]);
        UNROLL for (int j = 0; j < NV; j++) {
            float32x4_t vv = tile_load(v, (size_t)p * dv + d0 + 4 * (uint32_t)j, half);
            UNROLL for (int r = 0; r < R; r++) acc[r * NV + j] = vfmaq_f32(acc[r * NV + j], w[r], vv);
        }
    }
    UNROLL for (int i = 0; i < R * NV; i++) vst1q_f32(rows[i / NV].acc + d0 + 4 * (i % NV), acc[i]);
}

INLINE void values_rows(attn_row *rows, const float (*s)[VEC_TILE], const void *v, uint32_t dv, uint32_t p0,
                        uint32_t p1, const int R, const bool half) {
    uint32_t d = 0;
    if (R == 1)
        for (; d + 64 <= dv; d += 64) values_block(rows, s, v, dv, d, p0, p1, 1, 16, half);
    if (R <= 2)
        for (; d + 32 <= dv; d += 32) values_block(rows, s, v, dv, d, p0, p1, R, 8, half);
    for (; d + 16 <= dv; d += 16) values_block(rows, s, v, dv, d, p0, p1, R, 4, half);
    for (; d + 4 <= dv; d += 4) values_block(rows, s, v, dv, d, p0, p1, R, 1, half);
    for (; d < dv; d++) {
        for (int r = 0; r < R; r++) {
            float a = rows[r].acc[d];
            for (uint32_t p = p0; p < p1; p++) a = fmaf(s[r][p], tile_get(v, (size_t)p * dv + d, half), a);
            rows[r].acc[d] = a;
        }
    }
}

static void values_1(attn_row *rows, const float (*s)[VEC_TILE], const void *v, uint32_t dv, uint32_t p0, uint32_t p1,
                     bool half) {
    if (half)
        values_rows(rows, s, v, dv, p0, p1, 1, true);
    else
        values_rows(rows, s, v, dv, p0, p1, 1, false);
}

/* Positions that all rows see together, before them and after them each row's rest alone: a weight of 0 times garbage
 * must not happen, and each row adds in increasing order. */
INLINE void values(attn_row *rows, uint32_t n_rows, const float (*s)[VEC_TILE], const void *v, uint32_t dv,
                   const bool half) {
    uint32_t from = 0, to = VEC_TILE;
    for (uint32_t r = 0; r < n_rows; r++) {
        to = rows[r].n_valid < to ? rows[r].n_valid : to;
        from = rows[r].first > from ? rows[r].first : from;
    }
    if (from > to) from = to;
    for (uint32_t r = 0; r < n_rows; r++)
        if (rows[r].first < from) values_1(rows + r, s + r, v, dv, rows[r].first, from, half);
    if (from < to) {
        if (n_rows == 4)
            values_rows(rows, s, v, dv, from, to, 4, half);
        else if (n_rows >= 2)
            values_rows(rows, s, v, dv, from, to, 2, half);
        if (n_rows & 1) values_1(rows + n_rows - 1, s + n_rows - 1, v, dv, from, to, half);
    }
    for (uint32_t r = 0; r < n_rows; r++) {
        uint32_t at = rows[r].first > to ? rows[r].first : to;
        if (rows[r].n_valid > at) values_1(rows + r, s + r, v, dv, at, rows[r].n_valid, half);
    }
}

static void neon_scale(float *x, float f, size_t n) {
    size_t i = 0;
    for (; i + 4 <= n; i += 4) vst1q_f32(x + i, vmulq_n_f32(vld1q_f32(x + i), f));
    for (; i < n; i++) x[i] *= f;
}

/* Part i of n of a tile on its way to the second-level cache: the hardware does not guess the next page. */
INLINE void fetch_part(const void *tile, size_t bytes, uint32_t i, uint32_t n) {
    for (size_t at = bytes * i / n, end = bytes * (i + 1) / n; at < end; at += 64)
        __builtin_prefetch((const char *)tile + at, 0, 2);
}

INLINE void attn_tile(attn_row *rows, uint32_t n_rows, const void *tile, const void *next, const attn_shape *a,
                      const bool half) {
    float s[ROWS_MAX][VEC_TILE];
    const size_t size = half ? sizeof(uint16_t) : sizeof(float);
    const uint32_t dk = a->dk, dv = a->dv;
    const void *v = (const char *)tile + VEC_TILE * dk * size;
    const uint32_t n_groups = (n_rows + ROWS_MAX - 1) / ROWS_MAX;
    for (uint32_t g = 0; g < n_groups; g++) {
        uint32_t n = n_rows < ROWS_MAX ? n_rows : ROWS_MAX;
        if (next) fetch_part(next, VEC_TILE * (dk + dv) * size, g, n_groups);
        scores(rows, n, s, tile, dk, a->scale, half);
        for (uint32_t r = 0; r < n; r++) neon_scale(rows[r].acc, weigh(&rows[r], s[r], a->cap), dv);
        values(rows, n, (const float(*)[VEC_TILE])s, v, dv, half);
        rows += n;
        n_rows -= n;
    }
}

static void neon_attn_tile(attn_row *rows, uint32_t n_rows, const uint16_t *tile, const uint16_t *next,
                           const attn_shape *a) {
    attn_tile(rows, n_rows, tile, next, a, true);
}

/* Eight elements of a tile of int8 times their scales. */
INLINE void expand_8(uint16_t *to, const int8_t *q, float32x4_t lo, float32x4_t hi) {
    int16x8_t i = vmovl_s8(vld1_s8(q));
    float32x4_t a = vmulq_f32(lo, vcvtq_f32_s32(vmovl_s16(vget_low_s16(i)))),
                b = vmulq_f32(hi, vcvtq_f32_s32(vmovl_s16(vget_high_s16(i))));
    vst1_u16(to, vreinterpret_u16_f16(vcvt_f16_f32(a)));
    vst1_u16(to + 4, vreinterpret_u16_f16(vcvt_f16_f32(b)));
}

static void neon_kv8_expand(uint16_t *tile, const void *from, const void *next, uint32_t dk, uint32_t dv) {
    const char *base = from;
    const int8_t *q = from;
    const uint16_t *ks = (const uint16_t *)(const void *)(base + kv8_k_scales_at(dk, dv)),
                   *vs = (const uint16_t *)(const void *)(base + kv8_v_scales_at(dk, dv));
    for (uint32_t d = 0; d < dk; ks += VEC_TILE) {
        float32x4_t scale[VEC_TILE / 4];
        if (next) fetch_part(next, kv8_bytes(dk, dv), d / KV8_BLOCK, kv8_blocks(dk));
        UNROLL for (int j = 0; j < VEC_TILE / 4; j++) scale[j] = tile_load(ks, 4 * (size_t)j, true);
        for (uint32_t stop = d + KV8_BLOCK < dk ? d + KV8_BLOCK : dk; d < stop; d++, q += VEC_TILE, tile += VEC_TILE) {
            UNROLL for (int j = 0; j < VEC_TILE / 8; j++)
                expand_8(tile + 8 * j, q + 8 * j, scale[2 * j], scale[2 * j + 1]);
        }
    }
    for (uint32_t p = 0; p < VEC_TILE; p++, q += dv, tile += dv) {
        for (uint32_t d = 0; d < dv; vs++) {
            const float32x4_t scale = vdupq_n_f32(num_from_half(*vs));
            uint32_t stop = d + KV8_BLOCK < dv ? d + KV8_BLOCK : dv;
            for (; d + 8 <= stop; d += 8) expand_8(tile + d, q + d, scale, scale);
            for (; d < stop; d++) tile[d] = num_to_half(num_from_half(*vs) * (float)q[d]);
        }
    }
}

static void neon_attn_tile_f32(attn_row *rows, uint32_t n_rows, const float *tile, const float *next,
                               const attn_shape *a) {
    attn_tile(rows, n_rows, tile, next, a, false);
}

/* ---- element by element --------------------------------------------------------------------------------------------
 */

static void neon_swiglu(float *gate, const float *up, size_t n) {
    const float32x4_t one = vdupq_n_f32(1.0f);
    size_t i = 0;
    for (; i + 4 <= n; i += 4) {
        float32x4_t g = vld1q_f32(gate + i), d = vaddq_f32(one, exp_ps(vnegq_f32(g)));
        vst1q_f32(gate + i, vmulq_f32(vdivq_f32(g, d), vld1q_f32(up + i)));
    }
    for (; i < n; i++) gate[i] = num_silu32(gate[i]) * up[i];
}

/* num_gelu32 */
INLINE float32x4_t gelu_ps(float32x4_t x) {
    float32x4_t u = vfmaq_f32(x, vmulq_f32(x, x), vmulq_n_f32(x, NUM_GELU_A));
    return vdivq_f32(x, vaddq_f32(vdupq_n_f32(1.0f), exp_ps(vmulq_n_f32(u, NUM_GELU_B))));
}

static void neon_geglu(float *gate, const float *up, size_t n) {
    size_t i = 0;
    for (; i + 4 <= n; i += 4) vst1q_f32(gate + i, vmulq_f32(gelu_ps(vld1q_f32(gate + i)), vld1q_f32(up + i)));
    for (; i < n; i++) gate[i] = num_gelu32(gate[i]) * up[i];
}

static void neon_gelu(float *x, size_t n) {
    size_t i = 0;
    for (; i + 4 <= n; i += 4) vst1q_f32(x + i, gelu_ps(vld1q_f32(x + i)));
    for (; i < n; i++) x[i] = num_gelu32(x[i]);
}

/* a where a < b, otherwise b: also where a is a NaN, as in vec_swiglu_clamped. */
INLINE float32x4_t below_ps(float32x4_t a, float32x4_t b) {
    return vbslq_f32(vcltq_f32(a, b), a, b);
}
INLINE float32x4_t above_ps(float32x4_t a, float32x4_t b) {
    return vbslq_f32(vcgtq_f32(a, b), a, b);
}

static void neon_swiglu_clamped(float *gate, const float *up, size_t n) {
    const float32x4_t one = vdupq_n_f32(1.0f), hi = vdupq_n_f32(7.0f), lo = vdupq_n_f32(-7.0f);
    size_t i = 0;
    for (; i + 4 <= n; i += 4) {
        float32x4_t g = below_ps(vld1q_f32(gate + i), hi), u = above_ps(below_ps(vld1q_f32(up + i), hi), lo);
        float32x4_t d = vaddq_f32(one, exp_ps(vmulq_n_f32(g, -1.702f)));
        vst1q_f32(gate + i, vmulq_f32(vdivq_f32(g, d), vaddq_f32(u, one)));
    }
    for (; i < n; i++) gate[i] = vec_swiglu_clamped(gate[i], up[i]);
}

static void neon_sigmoid_gate(float *x, const float *gate, size_t n) {
    const float32x4_t one = vdupq_n_f32(1.0f);
    size_t i = 0;
    for (; i + 4 <= n; i += 4) {
        float32x4_t d = vaddq_f32(one, exp_ps(vnegq_f32(vld1q_f32(gate + i))));
        vst1q_f32(x + i, vmulq_f32(vld1q_f32(x + i), vdivq_f32(one, d)));
    }
    for (; i < n; i++) x[i] *= num_sigmoid32(gate[i]);
}

static void neon_soft_cap(float *x, float cap, size_t n) {
    const float32x4_t vc = vdupq_n_f32(cap);
    size_t i = 0;
    for (; i + 4 <= n; i += 4) vst1q_f32(x + i, vmulq_f32(vc, tanh_ps(vdivq_f32(vld1q_f32(x + i), vc))));
    for (; i < n; i++) x[i] = cap * num_tanh32(x[i] / cap);
}

static void neon_mul_add(float *y, const float *x, float f, size_t n) {
    const float32x4_t vf = vdupq_n_f32(f);
    size_t i = 0;
    for (; i + 4 <= n; i += 4) vst1q_f32(y + i, vfmaq_f32(vld1q_f32(y + i), vf, vld1q_f32(x + i)));
    for (; i < n; i++) y[i] = fmaf(f, x[i], y[i]);
}

static void neon_add(float *x, const float *y, size_t n) {
    size_t i = 0;
    for (; i + 4 <= n; i += 4) vst1q_f32(x + i, vaddq_f32(vld1q_f32(x + i), vld1q_f32(y + i)));
    for (; i < n; i++) x[i] += y[i];
}

static double neon_exp_sum(float *w, const float *x, float max, float div, size_t n) {
    const float32x4_t vm = vdupq_n_f32(max), vd = vdupq_n_f32(div);
    float64x2_t sum[4];
    double s[8];
    size_t i = 0;
    UNROLL for (int j = 0; j < 4; j++) sum[j] = vdupq_n_f64(0);
    for (; i + 8 <= n; i += 8) {
        UNROLL for (int j = 0; j < 2; j++) {
            float32x4_t e = exp_ps(vdivq_f32(vsubq_f32(vld1q_f32(x + i + 4 * j), vm), vd));
            vst1q_f32(w + i + 4 * j, e);
            sum[2 * j] = vaddq_f64(sum[2 * j], vcvt_f64_f32(vget_low_f32(e)));
            sum[2 * j + 1] = vaddq_f64(sum[2 * j + 1], vcvt_high_f64_f32(e));
        }
    }
    UNROLL for (int j = 0; j < 4; j++) vst1q_f64(s + 2 * j, sum[j]);
    for (size_t j = 0; i < n; i++, j++) {
        w[i] = num_exp32((x[i] - max) / div);
        s[j] += (double)w[i];
    }
    return vec_tree64(s);
}

const vec_kernels vec_neon = {
    .name = "neon",
    .rms_norm = neon_rms_norm,
    .rope_pairs = neon_rope_pairs,
    .rope_halves = neon_rope_halves,
    .layer_norm = neon_layer_norm,
    .to_half = neon_to_half,
    .attn_tile = neon_attn_tile,
    .kv8_expand = neon_kv8_expand,
    .attn_tile_f32 = neon_attn_tile_f32,
    .swiglu = neon_swiglu,
    .geglu = neon_geglu,
    .gelu = neon_gelu,
    .swiglu_clamped = neon_swiglu_clamped,
    .sigmoid_gate = neon_sigmoid_gate,
    .soft_cap = neon_soft_cap,
    .add = neon_add,
    .scale = neon_scale,
    .mul_add = neon_mul_add,
    .exp_sum = neon_exp_sum,
};
