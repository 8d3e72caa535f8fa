/* Products for two tokens or more on CPUs with I8MM: smmla multiplies two rows of eight k by two tokens of eight k,
 * four times the products of an sdot. Compiled with these instructions switched on; mat_neon.c calls in here only where
 * the CPU has them. The integer sums are the same numbers, so are the steps behind them: mat_neon.h. */
#include "engine/kernels/mat_neon.h"

/* Rows 2 i and 2 i + 1 of a group, k from 8 c to 8 c + 7 of each. */
typedef struct row_pairs {
    int8x16_t q[4][4]; /* [i][c] */
} row_pairs;

INLINE void pair_rows(row_pairs *r, const weights *w) {
    UNROLL for (int c = 0; c < 4; c++) UNROLL for (int h = 0; h < 2; h++) {
        int32x4_t even = vreinterpretq_s32_s8(w->q[2 * c][h]), odd = vreinterpretq_s32_s8(w->q[2 * c + 1][h]);
        r->q[2 * h][c] = vreinterpretq_s8_s32(vzip1q_s32(even, odd));
        r->q[2 * h + 1][c] = vreinterpretq_s8_s32(vzip2q_s32(even, odd));
    }
}

/* Activations of two tokens: k from 8 c to 8 c + 7 of the first, then of the second. */
INLINE void pair_tokens(int8x16_t a[4], const act_block *x) {
    UNROLL for (int i = 0; i < 2; i++) {
        int64x2_t first = vreinterpretq_s64_s8(vld1q_s8(x[0].q + 16 * i));
        int64x2_t second = vreinterpretq_s64_s8(vld1q_s8(x[1].q + 16 * i));
        a[2 * i] = vreinterpretq_s8_s64(vtrn1q_s64(first, second));
        a[2 * i + 1] = vreinterpretq_s8_s64(vtrn2q_s64(first, second));
    }
}

/* Sums over k from 8 c to 8 (c + n) - 1 of four rows, for one token and the other. */
INLINE void dot_pairs(int32x4_t *first, int32x4_t *second, const row_pairs *r, const int8x16_t a[4], int h, int c,
                      int n) {
    int32x4_t s[2] = {vdupq_n_s32(0), vdupq_n_s32(0)};
    UNROLL for (int k = c; k < c + n; k++) {
        s[0] = vmmlaq_s32(s[0], r->q[2 * h][k], a[k]);
        s[1] = vmmlaq_s32(s[1], r->q[2 * h + 1][k], a[k]);
    }
    *first = vuzp1q_s32(s[0], s[1]);
    *second = vuzp2q_s32(s[0], s[1]);
}

INLINE void step_pair(tensor_type type, float32x4_t (*acc)[2], const weights *w, const row_pairs *r,
                      const act_block *x) {
    int8x16_t a[4];
    int_sums s[2];
    pair_tokens(a, x);
    UNROLL for (int h = 0; h < 2; h++) {
        dot_pairs(&s[0].lo[h], &s[1].lo[h], r, a, h, 0, is_per_16(type) ? 2 : 4);
        if (is_per_16(type)) dot_pairs(&s[0].hi[h], &s[1].hi[h], r, a, h, 2, 2);
        UNROLL for (int t = 0; t < 2; t++) {
            s[t].lo[h] = vaddq_s32(s[t].lo[h], sum_start(type, &x[t], 0));
            if (is_per_16(type)) s[t].hi[h] = vaddq_s32(s[t].hi[h], sum_start(type, &x[t], 1));
        }
    }
    UNROLL for (int t = 0; t < 2; t++) step(type, acc[t], w, &x[t], &s[t]);
}

INLINE void mul_tile(tensor_type type, const packed *p, uint32_t group, const acts_view *a, uint32_t t0, uint32_t n,
                     float *y, size_t ldy) {
    const uint8_t *start = p->data + group * p->task_bytes;
    float32x4_t acc[MAT_TILE][2];
    for (uint32_t t = 0; t < n; t++) acc[t][0] = acc[t][1] = vdupq_n_f32(0);
    for (uint32_t b = 0; b < p->cols / 32; b++) {
        weights w;
        row_pairs r;
        load_block(type, &w, p, start, b);
        pair_rows(&r, &w);
        const act_block *x = a->blocks + (size_t)b * a->ldb + t0;
        uint32_t t = 0;
        for (; t + 2 <= n; t += 2) step_pair(type, acc + t, &w, &r, x + t);
        if (t < n) step_dot(type, acc[t], &w, x + t);
    }
    for (uint32_t t = 0; t < n; t++) store_rows(y + (t0 + t) * ldy + group * LANES, acc[t], p->rows - group * LANES);
}

INLINE void mul_type(tensor_type type, const packed *p, uint32_t begin, uint32_t end, const acts_view *a, float *y,
                     size_t ldy) {
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

const mat_neon_fn mat_neon_i8mm[] = {MAT_NEON_TYPES(MAT_NEON_ENTRY)};
