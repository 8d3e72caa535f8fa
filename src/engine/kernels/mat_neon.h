/* Internal to engine: what mat_neon.c and mat_neon_i8mm.c share: 32 weights of 8 rows in registers, their scales, and
 * one token's floating-point step. Needs dot products. All functions here become part of their callers, where `type` is
 * a constant.
 *
 * Register j of kernels.h is two of these registers: rows 0 to 3, rows 4 to 7, four k in each 32-bit lane: just what
 * sdot takes, with a lane of the activations as the other operand. Products and sums are exact in 32 bits, so weights
 * stay as they are stored where their offset times the sum of the activations can be taken off at the end.
 */
#ifndef POLDER_ENGINE_KERNELS_MAT_NEON_H
#define POLDER_ENGINE_KERNELS_MAT_NEON_H

#include "engine/kernels/inline.h"
#include "engine/kernels/kernels.h"
#include "engine/kernels/types.h"

#include <arm_neon.h>

#define MAT_TILE 32 /* tokens whose sums stay in the first cache while a group of rows passes */

typedef void (*mat_neon_fn)(const packed *p, uint32_t begin, uint32_t end, const acts_view *a, float *y, size_t ldy);
/* The products of quantised types for two tokens or more, by the instructions of I8MM: only where the CPU has them. */
extern const mat_neon_fn mat_neon_i8mm[];

/* [.][h]: rows 4 h to 4 h + 3. */
typedef struct weights {
    int8x16_t q[8][2];
    float32x4_t scale[2]; /* per 32: d sc; per 16: d */
    float32x4_t min[2];   /* m, dmin m or dmin */
    int32x4_t sc[2][2];   /* per 16: of the first and the last 16 */
    int32x4_t m[2][2];
} weights;

typedef struct int_sums {
    int32x4_t lo[2], hi[2]; /* per 32: lo alone; per 16: over the first and the last 16 */
} int_sums;

/* ---- loads ------------------------------------------------------------------------------------------------------- */

INLINE uint8x16_t load_bytes(const uint8_t *p) {
    return vld1q_u8(p);
}
INLINE void load_f16(float32x4_t out[2], const uint8_t *p) {
    uint16x8_t v = vreinterpretq_u16_u8(vld1q_u8(p));
    out[0] = vcvt_f32_f16(vreinterpret_f16_u16(vget_low_u16(v)));
    out[1] = vcvt_f32_f16(vreinterpret_f16_u16(vget_high_u16(v)));
}
INLINE void load_bf16(float32x4_t out[2], const uint8_t *p) {
    uint16x8_t v = vreinterpretq_u16_u8(vld1q_u8(p));
    out[0] = vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(v), 16));
    out[1] = vreinterpretq_f32_u32(vshll_n_u16(vget_high_u16(v), 16));
}
/* 2^(e - 128); below e = 2 it is subnormal */
INLINE float32x4_t from_e8m0(uint32x4_t e) {
    uint32x4_t one = vdupq_n_u32(1), small = vshlq_u32(vdupq_n_u32(0x200000), vreinterpretq_s32_u32(e));
    return vreinterpretq_f32_u32(vbslq_u32(vcgtq_u32(e, one), vshlq_n_u32(vsubq_u32(e, one), 23), small));
}
INLINE void load_e8m0(float32x4_t out[2], const uint8_t *p) {
    uint16x8_t e = vmovl_u8(vld1_u8(p));
    out[0] = from_e8m0(vmovl_u16(vget_low_u16(e)));
    out[1] = from_e8m0(vmovl_u16(vget_high_u16(e)));
}
INLINE void load_i8(int32x4_t out[2], const uint8_t *p) {
    int16x8_t v = vmovl_s8(vreinterpret_s8_u8(vld1_u8(p)));
    out[0] = vmovl_s16(vget_low_s16(v));
    out[1] = vmovl_s16(vget_high_s16(v));
}

/* vshlq_n and vshrq_n take no shift by 0. */
INLINE uint8x16_t shift_left(uint8x16_t v, int n) {
    return vshlq_u8(v, vdupq_n_s8((int8_t)n));
}

INLINE void load_4bit(weights *w, const uint8_t *p) {
    const uint8x16_t mask = vdupq_n_u8(15);
    UNROLL for (int i = 0; i < 8; i++) {
        uint8x16_t v = load_bytes(p + 16 * i);
        w->q[i / 2][i % 2] = vreinterpretq_s8_u8(vandq_u8(v, mask));
        w->q[i / 2 + 4][i % 2] = vreinterpretq_s8_u8(vshrq_n_u8(v, 4));
    }
}

INLINE void load_2bit(weights *w, const uint8_t *p) {
    const uint8x16_t mask = vdupq_n_u8(3);
    UNROLL for (int i = 0; i < 4; i++) {
        uint8x16_t v = load_bytes(p + 16 * i);
        w->q[i / 2][i % 2] = vreinterpretq_s8_u8(vandq_u8(v, mask));
        w->q[i / 2 + 2][i % 2] = vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8(v, 2), mask));
        w->q[i / 2 + 4][i % 2] = vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8(v, 4), mask));
        w->q[i / 2 + 6][i % 2] = vreinterpretq_s8_u8(vshrq_n_u8(v, 6));
    }
}

/* Bits j of the bytes at p become bit `width` of register j. */
INLINE void or_1bit(weights *w, const uint8_t *p, int width) {
    const uint8x16_t mask = vdupq_n_u8((uint8_t)(1 << width));
    UNROLL for (int i = 0; i < 16; i++) {
        uint8x16_t v = vandq_u8(shift_left(load_bytes(p + 16 * (i % 2)), width - i / 2), mask);
        w->q[i / 2][i % 2] = vorrq_s8(w->q[i / 2][i % 2], vreinterpretq_s8_u8(v));
    }
}

/* Two bits above four. */
INLINE void or_2bit(weights *w, const uint8_t *p) {
    const uint8x16_t mask = vdupq_n_u8(0x30);
    UNROLL for (int i = 0; i < 16; i++) {
        int j = i / 2;
        uint8x16_t v = shift_left(load_bytes(p + 32 * (j % 2) + 16 * (i % 2)), 4 - j / 2 * 2);
        w->q[j][i % 2] = vorrq_s8(w->q[j][i % 2], vreinterpretq_s8_u8(vandq_u8(v, mask)));
    }
}

/* Four-bit indices to what they stand for. */
INLINE void load_table(weights *w, const uint8_t *p, const int8_t *table) {
    const int8x16_t t = vld1q_s8(table);
    load_4bit(w, p);
    UNROLL for (int i = 0; i < 16; i++) w->q[i / 2][i % 2] = vqtbl1q_s8(t, vreinterpretq_u8_s8(w->q[i / 2][i % 2]));
}

INLINE void load_integers(tensor_type t, weights *w, const uint8_t *part) {
    const uint8_t *bits = part + (is_per_16(t) ? 16 : has_scaled_min(t) ? 16 : t == TT_IQ4_XS ? 8 : 0);
    switch (t) {
    case TT_Q8_0:
        UNROLL for (int i = 0; i < 16; i++) w->q[i / 2][i % 2] = vreinterpretq_s8_u8(load_bytes(bits + 16 * i));
        break;
    case TT_IQ4_NL:
    case TT_IQ4_XS: load_table(w, bits, iq4_table); break;
    case TT_MXFP4: load_table(w, bits, mxfp4_table); break;
    case TT_Q5_0:
    case TT_Q5_1:
    case TT_Q5_K:
        load_4bit(w, bits + 32);
        or_1bit(w, bits, 4);
        break;
    case TT_Q3_K:
        load_2bit(w, bits + 32);
        or_1bit(w, bits, 2);
        break;
    case TT_Q2_K: load_2bit(w, bits); break;
    case TT_Q6_K:
        load_4bit(w, bits + 64);
        or_2bit(w, bits);
        break;
    default: load_4bit(w, bits);
    }
}

/* Q2_K has scale and minimum in the four bits of a byte each. */
INLINE void split_q2(int32x4_t sc[2], int32x4_t m[2]) {
    const int32x4_t mask = vdupq_n_s32(15);
    UNROLL for (int h = 0; h < 2; h++) {
        m[h] = vandq_s32(vshrq_n_s32(sc[h], 4), mask);
        sc[h] = vandq_s32(sc[h], mask);
    }
}

INLINE void load_scales(tensor_type t, weights *w, const uint8_t *unit, const uint8_t *part) {
    if (t == TT_MXFP4)
        load_e8m0(w->scale, unit);
    else
        load_f16(w->scale, unit);
    if (has_head_min(t)) load_f16(w->min, unit + 16);
    if (is_per_16(t)) {
        load_i8(w->sc[0], part);
        load_i8(w->sc[1], part + 8);
        if (t == TT_Q2_K) {
            split_q2(w->sc[0], w->m[0]);
            split_q2(w->sc[1], w->m[1]);
        }
    } else if (is_256(t)) {
        int32x4_t sc[2], m[2];
        load_i8(sc, part);
        UNROLL for (int h = 0; h < 2; h++) w->scale[h] = vmulq_f32(w->scale[h], vcvtq_f32_s32(sc[h]));
        if (!has_scaled_min(t)) return;
        load_i8(m, part + 8);
        UNROLL for (int h = 0; h < 2; h++) w->min[h] = vmulq_f32(w->min[h], vcvtq_f32_s32(m[h]));
    }
}

/* Block b of a group: the scales and the 32 weights. */
INLINE void load_block(tensor_type type, weights *w, const packed *p, const uint8_t *group, uint32_t b) {
    const uint8_t *unit = group + (size_t)(is_256(type) ? b / 8 : b) * p->unit_bytes;
    const int head = type == TT_MXFP4 ? 8 : has_head_min(type) ? 32 : 16;
    const uint8_t *part = unit + head + (is_256(type) ? b % 8 * p->part_bytes : 0);
    load_scales(type, w, unit, part);
    load_integers(type, w, part);
}

/* ---- one block, one token ---------------------------------------------------------------------------------------- */

/* What the stored integers are too large by, times the activations: where sums begin. half: of 16, where scales are. */
INLINE int32x4_t sum_start(tensor_type type, const act_block *x, int half) {
    switch (type) {
    case TT_Q4_0: return vld1q_dup_s32(&x->nsum8);
    case TT_Q5_0: return vshlq_n_s32(vld1q_dup_s32(&x->nsum8), 1);
    case TT_Q6_K: return vdupq_n_s32(-32 * x->s[half]);
    case TT_Q3_K: return vdupq_n_s32(-4 * x->s[half]);
    default: return vdupq_n_s32(0);
    }
}

/* Registers j to j + 3 of half the rows times 16 activations. */
INLINE int32x4_t dot_16(int32x4_t sum, const weights *w, int j, int h, int8x16_t a) {
    sum = vdotq_laneq_s32(sum, w->q[j][h], a, 0);
    sum = vdotq_laneq_s32(sum, w->q[j + 1][h], a, 1);
    sum = vdotq_laneq_s32(sum, w->q[j + 2][h], a, 2);
    return vdotq_laneq_s32(sum, w->q[j + 3][h], a, 3);
}

INLINE void dot_block(tensor_type type, int_sums *s, const weights *w, const act_block *x) {
    const int8x16_t first = vld1q_s8(x->q), last = vld1q_s8(x->q + 16);
    UNROLL for (int h = 0; h < 2; h++) {
        s->lo[h] = dot_16(sum_start(type, x, 0), w, 0, h, first);
        if (is_per_16(type))
            s->hi[h] = dot_16(sum_start(type, x, 1), w, 4, h, last);
        else
            s->lo[h] = dot_16(s->lo[h], w, 4, h, last);
    }
}

/* acc += block, by the floating-point steps of kernels.h. */
INLINE void step(tensor_type type, float32x4_t acc[2], const weights *w, const act_block *x, const int_sums *s) {
    const float32x4_t d = vdupq_n_f32(x->d), asum = vdupq_n_f32(x->asum);
    UNROLL for (int h = 0; h < 2; h++) {
        int32x4_t dot = s->lo[h];
        if (is_per_16(type)) dot = vmlaq_s32(vmulq_s32(w->sc[0][h], dot), w->sc[1][h], s->hi[h]);
        acc[h] = vfmaq_f32(acc[h], vmulq_f32(w->scale[h], d), vcvtq_f32_s32(dot));
        if (has_added_min(type)) acc[h] = vfmaq_f32(acc[h], w->min[h], asum);
        if (has_scaled_min(type)) acc[h] = vfmsq_f32(acc[h], w->min[h], asum);
        if (type == TT_Q2_K) {
            int32x4_t m = vmlaq_n_s32(vmulq_n_s32(w->m[0][h], x->s[0]), w->m[1][h], x->s[1]);
            acc[h] = vfmsq_f32(acc[h], vmulq_f32(w->min[h], d), vcvtq_f32_s32(m));
        }
    }
}

INLINE void step_dot(tensor_type type, float32x4_t acc[2], const weights *w, const act_block *x) {
    int_sums s;
    dot_block(type, &s, w, x);
    step(type, acc, w, x, &s);
}

INLINE void store_rows(float *y, const float32x4_t v[2], uint32_t n) {
    float f[LANES], *to = n >= LANES ? y : f;
    vst1q_f32(to, v[0]);
    vst1q_f32(to + 4, v[1]);
    for (uint32_t i = 0; n < LANES && i < n; i++) y[i] = f[i];
}

/* One function a type, and the table of them: MAT_NEON_TYPES(MUL_OF) and MAT_NEON_TABLE. */
#define MAT_NEON_TYPES(DO)    \
    DO(mul_q8_0, TT_Q8_0)     \
    DO(mul_q4_0, TT_Q4_0)     \
    DO(mul_q4_1, TT_Q4_1)     \
    DO(mul_q5_0, TT_Q5_0)     \
    DO(mul_q5_1, TT_Q5_1)     \
    DO(mul_q2_k, TT_Q2_K)     \
    DO(mul_q3_k, TT_Q3_K)     \
    DO(mul_q4_k, TT_Q4_K)     \
    DO(mul_q5_k, TT_Q5_K)     \
    DO(mul_q6_k, TT_Q6_K)     \
    DO(mul_iq4_nl, TT_IQ4_NL) \
    DO(mul_iq4_xs, TT_IQ4_XS) \
    DO(mul_mxfp4, TT_MXFP4)
#define MAT_NEON_ENTRY(name, type) [type] = name,

#endif
