/* Variants of kernels whose order of sums is free: what determinism is measured against. Each computes what its kernel
 * does, by the same operations in the same structure: the source of the kernels is included, and only the loops that
 * add up are written anew. Several sums run side by side, those of minima by themselves, and any tree puts them
 * together. Lengths are multiples of 32, heads multiples of 64: no tails. */
#ifndef POLDER_BENCH_DETERMINISM_H
#define POLDER_BENCH_DETERMINISM_H

#include "engine/kernels/delta.h"
#include "engine/kernels/kernels.h"
#include "engine/kernels/vec.h"

typedef struct free_kernels {
    void (*rms_norm)(float *y, const float *x, const float *w, uint32_t n, float eps);
    void (*layer_norm)(float *y, const float *x, const float *w, const float *b, uint32_t n, float eps);
    double (*exp_sum)(float *w, const float *x, float max, float div, size_t n);
    /* rows that see all of the tile */
    void (*attn_tile)(attn_row *rows, uint32_t n_rows, const uint16_t *tile, const uint16_t *next, const attn_shape *s);
    void (*delta)(const delta_head *h);
} free_kernels;

extern const free_kernels free_avx2, free_avx512;

/* Q8_0, Q4_0, Q4_K, Q6_K, F16 and F32; one token or more than 16; rows: a multiple of 32, columns of 256. */
void free_mul_avx2(const packed *p, const acts_view *a, float *y, size_t ldy);
void free_mul_avx512(const packed *p, const acts_view *a, float *y, size_t ldy);

#endif
