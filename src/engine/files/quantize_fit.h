/* Internal to quantize*.c: the searches that all searching types share. */
#ifndef POLDER_ENGINE_QUANTIZE_FIT_H
#define POLDER_ENGINE_QUANTIZE_FIT_H

#include "engine/files/quantize.h"
#include "engine/num.h"

/* The values that a stored index stands for: lo … hi, or 16 of a table (then lo is 0 and hi 15). */
typedef struct levels {
    int lo, hi;
    const int8_t *table; /* ascending; NULL: the integers themselves */
} levels;

static inline int round_even(float v) { /* |v| < 2^22 */
    return (int)(num_bits(v + NUM_ROUND_MAGIC) & 0x7fffff) - 0x400000;
}

static inline int clamp_round(float v, int lo, int hi) {
    if (!(v > (float)lo)) return lo; /* NaN too */
    if (v >= (float)hi) return hi;
    return round_even(v);
}

/* Index of the nearest level to v. */
static inline int level_index(const levels *l, float v) {
    if (!l->table) return clamp_round(v, l->lo, l->hi);
    int i = 0;
    for (int step = 8; step; step /= 2)
        if (v > 0.5f * (float)(l->table[i + step - 1] + l->table[i + step])) i += step;
    return i;
}
static inline int level_value(const levels *l, int index) {
    return l->table ? l->table[index] : index;
}

/* A scale as f16: to nearest, finite. */
uint16_t quantize_scale_bits(float d);
/* Weighted square error of x ~ d level, each x at its nearest; q gets the indexes. */
float fit_error_scale(const levels *l, const float *x, const float *w, int n, float d, int8_t *q);
/* The d that the search finds best; q as for that d. */
float fit_scale(const levels *l, const float *x, const float *w, int n, int8_t *q);
/* x ~ d q + m, q in 0 … hi; m <= 0 unless any_sign. */
float fit_error_affine(const float *x, const float *w, int n, int hi, float d, float m, uint8_t *q);
float fit_affine(const float *x, const float *w, int n, int hi, bool any_sign, uint8_t *q, float *m);

#endif
