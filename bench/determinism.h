/* Variants of kernels that are free to choose their order of sums: what determinism is measured against. Compiled with
 * AVX2, FMA, F16C and fast-math; written for speed alone. Several sums run side by side, what may be folded is folded.
 */
#ifndef POLDER_BENCH_DETERMINISM_H
#define POLDER_BENCH_DETERMINISM_H

#include "engine/kernels/delta.h"
#include "engine/kernels/kernels.h"

void free_rms_norm(float *y, const float *x, const float *w, uint32_t n, float eps);
void free_layer_norm(float *y, const float *x, const float *w, const float *b, uint32_t n, float eps);
void free_swiglu(float *gate, const float *up, size_t n);
double free_exp_sum(float *w, const float *x, float max, float div, size_t n);
void free_delta(const delta_head *h);
/* Products of Q4_0, Q4_K and Q8_0; tokens by fours and the rest one by one. Sums of even and odd blocks, or of minima,
 * are apart. */
void free_mul(const packed *p, const acts_view *a, float *y, size_t ldy);

#endif
