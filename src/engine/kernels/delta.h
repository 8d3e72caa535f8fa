/* Internal to engine: the kernels of the gated delta rule (arXiv 2412.06464), one table for each instruction set.
 *
 * A head keeps a matrix S (dk, dv). A token brings a query q, a key k (dk), a value v (dv), a decay and a beta:
 *
 *   mem[c]  = sum over j of S[j][c] k[j]                  a chain of fused multiply-adds over increasing j, from +0
 *   diff[c] = beta * fma(-decay, mem[c], v[c])            what the value is beyond what the decayed S gives back
 *   S[j][c] = fma(k[j], diff[c], decay * S[j][c])
 *   out[c]  = sum over j of S[j][c] q[j]                  as above, with the new S
 *
 * 1. delta_scalar.c is the definition; every set gives its bits.
 * 2. A column c touches no other, so lanes run over columns, and DELTA_LANES columns take all tokens of a call before
 * the next ones start: their part of S stays in the nearest cache. How tokens are cut into calls cannot show.
 */
#ifndef POLDER_ENGINE_KERNELS_DELTA_H
#define POLDER_ENGINE_KERNELS_DELTA_H

#include "engine/isa.h"

#include <stddef.h>
#include <stdint.h>

#define DELTA_LANES    16
#define DELTA_CONV_MAX 8 /* taps of a convolution */

/* n tokens of one head; token t's values are at t * stride. */
typedef struct delta_head {
    float *state;            /* delta_state_floats(dk, dv): by groups of DELTA_LANES columns (dk, DELTA_LANES) each */
    const float *q, *k;      /* (n, dk) */
    const float *v;          /* (n, dv) */
    float *out;              /* (n, dv) */
    const float *decay;      /* (n) */
    const float *beta;       /* (n) */
    size_t ld_qk, ld_v;      /* strides of q and k, of v, */
    size_t ld_out, ld_gates; /* of out, of decay and beta */
    uint32_t n, dk, dv;      /* none is 0 */
} delta_head;

static inline size_t delta_state_floats(uint32_t dk, uint32_t dv) {
    return ((size_t)dv + DELTA_LANES - 1) / DELTA_LANES * DELTA_LANES * dk;
}

typedef struct delta_kernels {
    const char *name;
    void (*run)(const delta_head *h);
    /* One token of a causal depthwise convolution over n channels: y[i] = sum over taps of w[tap * ld_w + i] x[tap][i],
     * a chain from the oldest tap on, from +0. y may be one of x. */
    void (*conv)(float *y, const float *const *x, const float *w, size_t ld_w, uint32_t taps, size_t n);
} delta_kernels;

extern const delta_kernels delta_scalar, delta_avx2, delta_avx512, delta_neon;

/* The table of a set; NULL where this build or this CPU lacks it. */
const delta_kernels *delta_kernels_get(isa i);

#endif
