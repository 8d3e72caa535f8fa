/* Internal to engine: the kernels between the matrix products, one table for each instruction set.
 *
 * 1. Every function of a table gives the bits of vec_scalar (NaN payloads aside): vec_scalar.c is the definition.
 * 2. A sum over elements has n lanes: lane i takes elements i, n + i, 2 n + i, … in increasing order, starting
 *    from +0. The norms' sums have 128, as many as hide an addition's latency: eight registers of 512 bits. They are
 *    folded in halves: lanes 64 to 127 onto 0 to 63, and so on down to eight lanes. See vec_fold. Sums of weights
 *    (exp_sum, attention) have eight from the start. Eight lanes: ((0+4)+(2+6)) + ((1+5)+(3+7)). See vec_tree.
 * 3. An attention score is a chain of fused multiply-adds over the head's elements in increasing order; so is an output
 *    element over positions, tile by tile. How rows are grouped does not enter.
 */
#ifndef POLDER_ENGINE_KERNELS_VEC_H
#define POLDER_ENGINE_KERNELS_VEC_H

#include "engine/isa.h"
#include "engine/kernels/kv8.h"
#include "engine/num.h"

#include <stddef.h>
#include <stdint.h>

#define VEC_LANES 128 /* of the norms' sums */

#define VEC_TILE 64 /* positions in a page of KV memory, and in a tile of attention */

/* One query head on its way over the tiles. Before the first tile: m = -inf, l = 0, acc all zero; or, with an attention
 * sink (a score without a value), m = the sink, l = 1. After the last: output = acc / l. */
typedef struct attn_row {
    const float *q;   /* (dk) */
    float *acc;       /* (dv) */
    float m, l;       /* largest score so far; sum of e^(score - m) */
    uint32_t first;   /* the row sees positions [first, n_valid) of this tile: never none */
    uint32_t n_valid; /* 1 to VEC_TILE */
} attn_row;

typedef struct attn_shape {
    uint32_t dk, dv;
    float scale; /* score = scale * q k, and then */
    float cap;   /* where not 0: score = cap * tanh(score / cap) */
} attn_shape;

typedef struct vec_kernels {
    const char *name;
    /* y = x / sqrt(mean(x^2) + eps) * w. y may be x. */
    void (*rms_norm)(float *y, const float *x, const float *w, uint32_t n, float eps);
    /* Rotate neighbouring pairs of x (n, even) by tables of n: cc = c0 c0 c1 c1 …, ss = -s0 s0 -s1 s1 …:
     * x[i] = fma(x[i], cc[i], x[i ^ 1] * ss[i]). */
    void (*rope_pairs)(float *x, const float *cc, const float *ss, uint32_t n);
    /* The same for pairs (i, i + n / 2): cc = c0 c1 … c0 c1 …, ss = -s0 -s1 … s0 s1 … */
    void (*rope_halves)(float *x, const float *cc, const float *ss, uint32_t n);
    /* y = (x - mean) / sqrt(mean((x - mean)^2) + eps) * w + b. y may be x. */
    void (*layer_norm)(float *y, const float *x, const float *w, const float *b, uint32_t n, float eps);
    /* y = x in binary16, as num_to_half: what KV memory holds. */
    void (*to_half)(uint16_t *y, const float *x, size_t n);
    /* One tile for rows that read the same K and V. tile: K (dk, VEC_TILE), then V (VEC_TILE, dv), all binary16 and
     * read back exactly. Positions from n_valid on may hold anything. next: the tile that will be asked for after this
     * one, to fetch it meanwhile, or NULL. */
    void (*attn_tile)(attn_row *rows, uint32_t n_rows, const uint16_t *tile, const uint16_t *next, const attn_shape *s);
    /* A tile of int8 (kv8.h) as the tile of binary16 that attn_tile reads. next: as there. What was never stored may
     * come out as anything. */
    void (*kv8_expand)(uint16_t *tile, const void *from, const void *next, uint32_t dk, uint32_t dv);
    /* attn_tile on tiles of binary32. NULL: this set leaves it to vec_scalar. */
    void (*attn_tile_f32)(attn_row *rows, uint32_t n_rows, const float *tile, const float *next, const attn_shape *s);
    void (*swiglu)(float *gate, const float *up, size_t n); /* gate = silu(gate) * up */
    void (*geglu)(float *gate, const float *up, size_t n);  /* gate = gelu(gate) * up (tanh form) */
    void (*gelu)(float *x, size_t n);
    /* gate = g sigmoid(1.702 g) (u + 1), g = min(gate, 7), u = up held within -7 and 7 (gpt-oss) */
    void (*swiglu_clamped)(float *gate, const float *up, size_t n);
    void (*sigmoid_gate)(float *x, const float *gate, size_t n);  /* x *= sigmoid(gate) */
    void (*soft_cap)(float *x, float cap, size_t n);              /* x = cap * tanh(x / cap) */
    void (*add)(float *x, const float *y, size_t n);              /* x += y */
    void (*scale)(float *x, float f, size_t n);                   /* x *= f */
    void (*mul_add)(float *y, const float *x, float f, size_t n); /* y = fma(f, x, y) */
    /* w[i] = e^((x[i] - max) / div); returns the sum in double (eight lanes). */
    double (*exp_sum)(float *w, const float *x, float max, float div, size_t n);
} vec_kernels;

extern const vec_kernels vec_scalar, vec_avx2, vec_avx512, vec_neon;

/* The table of a set; NULL where this build or this CPU lacks it. vec_get(isa_get()) is the one in use. */
const vec_kernels *vec_get(isa i);

static inline float vec_swiglu_clamped(float gate, float up) {
    float g = gate < 7.0f ? gate : 7.0f, u = up < 7.0f ? up : 7.0f;
    u = u > -7.0f ? u : -7.0f;
    return g / (1.0f + num_exp32(-1.702f * g)) * (u + 1.0f);
}

static inline float vec_tree(const float s[8]) {
    return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}
/* s is overwritten. */
static inline float vec_fold(float s[VEC_LANES]) {
    for (uint32_t half = VEC_LANES / 2; half >= 8; half /= 2)
        for (uint32_t i = 0; i < half; i++) s[i] += s[half + i];
    return vec_tree(s);
}
static inline double vec_tree64(const double s[8]) {
    return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}

#endif
