/* Advanced SIMD with dot products (ARMv8.2): the numerics of kernels.h with a row in each 32-bit lane. Compiled with
 * these instructions switched on, so nothing here runs before isa.c has found them. Where the CPU has I8MM too,
 * products of quantised types for several tokens are those of mat_neon_i8mm.c. */
#include "engine/kernels/mat_neon.h"

#include <string.h>

/* ---- activations ------------------------------------------------------------------------------------------- */

/* As in mat_scalar.c; conversion rounds half to even. */
static void quantise_block(act_block *b, const float *x) {
    float32x4_t v[8];
    uint32x4_t top = vdupq_n_u32(0);
    UNROLL for (int i = 0; i < 8; i++) {
        v[i] = vld1q_f32(x + 4 * i);
        top = vmaxq_u32(top, vandq_u32(vreinterpretq_u32_f32(v[i]), vdupq_n_u32(0x7fffffff)));
    }
    uint32_t bits = vmaxvq_u32(top);
    float amax;
    memcpy(&amax, &bits, 4);
    if (bits >= 0x7f800000 || amax < 0x1p-118f) {
        memset(b, 0, sizeof *b);
        if (bits >= 0x7f800000) b->d = b->asum = __builtin_nanf("");
        return;
    }
    b->d = amax / 127.0f;
    const float scale = 127.0f / amax;
    int32_t s[2];
    UNROLL for (int half = 0; half < 2; half++) {
        int16x8_t w[2];
        UNROLL for (int i = 0; i < 2; i++) {
            int32x4_t lo = vcvtnq_s32_f32(vmulq_n_f32(v[4 * half + 2 * i], scale));
            int32x4_t hi = vcvtnq_s32_f32(vmulq_n_f32(v[4 * half + 2 * i + 1], scale));
            w[i] = vcombine_s16(vmovn_s32(lo), vmovn_s32(hi));
        }
        s[half] = vaddvq_s16(vaddq_s16(w[0], w[1])); /* |sum| is at most 16 * 127 */
        vst1q_s8(b->q + 16 * half, vcombine_s8(vmovn_s16(w[0]), vmovn_s16(w[1])));
        b->s[half] = (int16_t)s[half];
    }
    b->asum = b->d * (float)(s[0] + s[1]);
    b->nsum8 = -8 * (s[0] + s[1]);
}

static void quantise(act_block *blocks, const acts_view *a, uint32_t begin, uint32_t end) {
    for (uint32_t b = 0; b < a->cols / 32; b++)
        for (uint32_t t = begin; t < end; t++)
            quantise_block(&blocks[(size_t)b * a->ldb + t], a->x + t * a->ldx + 32ull * b);
}

/* ---- products of quantised types ------------------------------------------------------------------------------ */

INLINE void mul_one(tensor_type type, const packed *p, uint32_t group, const acts_view *a, float *y) {
    float32x4_t acc[2] = {vdupq_n_f32(0), vdupq_n_f32(0)};
    const uint8_t *start = p->data + group * p->task_bytes;
    for (uint32_t b = 0; b < p->cols / 32; b++) {
        weights w;
        load_block(type, &w, p, start, b);
        step_dot(type, acc, &w, a->blocks + b * a->ldb);
    }
    store_rows(y + group * LANES, acc, p->rows - group * LANES);
}

INLINE void mul_tile(tensor_type type, const packed *p, uint32_t group, const acts_view *a, uint32_t t0, uint32_t n,
                     float *y, size_t ldy) {
    const uint8_t *start = p->data + group * p->task_bytes;
    float32x4_t acc[MAT_TILE][2];
    for (uint32_t t = 0; t < n; t++) acc[t][0] = acc[t][1] = vdupq_n_f32(0);
    for (uint32_t b = 0; b < p->cols / 32; b++) {
        weights w;
        load_block(type, &w, p, start, b);
        const act_block *x = a->blocks + (size_t)b * a->ldb + t0;
        uint32_t t = 0;
        for (; t + 2 <= n; t += 2) {
            int_sums s[2];
            UNROLL for (int i = 0; i < 2; i++) dot_block(type, &s[i], &w, x + t + i);
            UNROLL for (int i = 0; i < 2; i++) step(type, acc[t + (uint32_t)i], &w, x + t + i, &s[i]);
        }
        if (t < n) step_dot(type, acc[t], &w, x + t);
    }
    for (uint32_t t = 0; t < n; t++) store_rows(y + (t0 + t) * ldy + group * LANES, acc[t], p->rows - group * LANES);
}

INLINE void mul_type(tensor_type type, const packed *p, uint32_t begin, uint32_t end, const acts_view *a, float *y,
                     size_t ldy) {
    if (a->n == 1) {
        for (uint32_t g = begin; g < end; g++) mul_one(type, p, g, a, y);
        return;
    }
    for (uint32_t t = 0; t < a->n; t += MAT_TILE) {
        uint32_t n = a->n - t < MAT_TILE ? a->n - t : MAT_TILE;
        for (uint32_t g = begin; g < end; g++) mul_tile(type, p, g, a, t, n, y, ldy);
    }
}

#define MUL_OF(name, type)                                                                                      \
    static void name(const packed *p, uint32_t begin, uint32_t end, const acts_view *a, float *y, size_t ldy) { \
        mul_type(type, p, begin, end, a, y, ldy);                                                               \
    }
MAT_NEON_TYPES(MUL_OF)

/* ---- floats ---------------------------------------------------------------------------------------------------- */

#define CHUNK      128 /* k's of a panel that stay in the first cache, spelt out as binary32, while tokens pass */
#define AT_ONCE    3   /* tokens: 3 x 8 sums in registers */
#define FLOAT_TILE 48

typedef struct panel_sums {
    float32x4_t v[PANEL_GROUPS][2];
} panel_sums;

INLINE void load_weights(tensor_type type, float32x4_t w[2], const uint8_t *p) {
    if (type == TT_F32) {
        w[0] = vreinterpretq_f32_u8(vld1q_u8(p));
        w[1] = vreinterpretq_f32_u8(vld1q_u8(p + 16));
    } else if (type == TT_F16) {
        load_f16(w, p);
    } else {
        load_bf16(w, p);
    }
}

INLINE void float_step(tensor_type type, int n_groups, int nt, const uint8_t *w, uint32_t n_k, const float *x,
                       size_t ldx, panel_sums *sums) {
    const int size = type == TT_F32 ? 4 : 2;
    panel_sums acc[AT_ONCE];
    UNROLL for (int t = 0; t < nt; t++) acc[t] = sums[t];
    for (uint32_t k = 0; k < n_k; k++, w += n_groups * LANES * size) {
        float32x4_t v[AT_ONCE];
        UNROLL for (int t = 0; t < nt; t++) v[t] = vld1q_dup_f32(x + (size_t)t * ldx + k);
        UNROLL for (int g = 0; g < n_groups; g++) {
            float32x4_t wg[2];
            load_weights(type, wg, w + g * LANES * size);
            UNROLL for (int t = 0; t < nt; t++) {
                acc[t].v[g][0] = vfmaq_f32(acc[t].v[g][0], wg[0], v[t]);
                acc[t].v[g][1] = vfmaq_f32(acc[t].v[g][1], wg[1], v[t]);
            }
        }
    }
    UNROLL for (int t = 0; t < nt; t++) sums[t] = acc[t];
}

/* A chunk of a panel: where its weights are as binary32 (F32: where they stand). */
INLINE const uint8_t *spell_out(tensor_type type, float *room, const uint8_t *w, size_t n) {
    if (type == TT_F32) return w;
    for (size_t i = 0; i < n; i += LANES) {
        float32x4_t v[2];
        load_weights(type, v, w + 2 * i);
        vst1q_f32(room + i, v[0]);
        vst1q_f32(room + i + 4, v[1]);
    }
    return (const uint8_t *)room;
}

INLINE void mul_panel_tile(tensor_type type, int n_groups, const packed *p, uint32_t panel, const acts_view *a,
                           uint32_t t0, uint32_t n, panel_sums *sums) {
    const uint8_t *w = p->data + panel * p->task_bytes;
    const size_t k_bytes = (size_t)n_groups * LANES * (type == TT_F32 ? 4 : 2);
    if (n == 1) {
        float_step(type, n_groups, 1, w, p->cols, a->x + t0 * a->ldx, a->ldx, sums);
        return;
    }
    float room[CHUNK * PANEL_GROUPS * LANES];
    for (uint32_t k = 0; k < p->cols; k += CHUNK) {
        uint32_t n_k = p->cols - k < CHUNK ? p->cols - k : CHUNK, t = 0;
        const uint8_t *f = spell_out(type, room, w + k * k_bytes, (size_t)n_k * (size_t)n_groups * LANES);
        const float *x = a->x + t0 * a->ldx + k;
        for (; t + AT_ONCE <= n; t += AT_ONCE)
            float_step(TT_F32, n_groups, AT_ONCE, f, n_k, x + t * a->ldx, a->ldx, sums + t);
        for (; t < n; t++) float_step(TT_F32, n_groups, 1, f, n_k, x + t * a->ldx, a->ldx, sums + t);
    }
}

INLINE void mul_floats(tensor_type type, const packed *p, uint32_t begin, uint32_t end, const acts_view *a, float *y,
                       size_t ldy) {
    for (uint32_t t0 = 0; t0 < a->n; t0 += FLOAT_TILE) {
        uint32_t n = a->n - t0 < FLOAT_TILE ? a->n - t0 : FLOAT_TILE;
        for (uint32_t i = begin; i < end; i++) {
            panel_sums sums[FLOAT_TILE];
            memset(sums, 0, n * sizeof *sums);
            uint32_t first = i * PANEL_GROUPS, n_groups = p->n_groups - first;
            switch (n_groups) {
            case 1: mul_panel_tile(type, 1, p, i, a, t0, n, sums); break;
            case 2: mul_panel_tile(type, 2, p, i, a, t0, n, sums); break;
            case 3: mul_panel_tile(type, 3, p, i, a, t0, n, sums); break;
            default: mul_panel_tile(type, 4, p, i, a, t0, n, sums);
            }
            for (uint32_t t = 0; t < n; t++)
                for (uint32_t g = 0; g < PANEL_GROUPS && g < n_groups; g++)
                    store_rows(y + (t0 + t) * ldy + (first + g) * LANES, sums[t].v[g], p->rows - (first + g) * LANES);
        }
    }
}

#define FLOATS_OF(name, type)                                                                                   \
    static void name(const packed *p, uint32_t begin, uint32_t end, const acts_view *a, float *y, size_t ldy) { \
        mul_floats(type, p, begin, end, a, y, ldy);                                                             \
    }
FLOATS_OF(mul_f32, TT_F32)
FLOATS_OF(mul_f16, TT_F16)
FLOATS_OF(mul_bf16, TT_BF16)

/* ---- the table --------------------------------------------------------------------------------------------------- */

static void mul(const packed *p, uint32_t begin, uint32_t end, const acts_view *a, float *y, size_t ldy) {
    static const mat_neon_fn by_type[] = {
        [TT_F32] = mul_f32, [TT_F16] = mul_f16, [TT_BF16] = mul_bf16, MAT_NEON_TYPES(MAT_NEON_ENTRY)};
    bool is_float = p->type == TT_F32 || p->type == TT_F16 || p->type == TT_BF16;
    (a->n > 1 && !is_float && isa_have_i8mm() ? mat_neon_i8mm : by_type)[p->type](p, begin, end, a, y, ldy);
}

const mat_kernels mat_neon = {quantise, mul};
