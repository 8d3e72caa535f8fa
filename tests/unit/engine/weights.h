/* Random weights in every tensor type, for tests of matrices and of the types themselves. */
#ifndef POLDER_TESTS_WEIGHTS_H
#define POLDER_TESTS_WEIGHTS_H

#include "engine/tensor.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static const tensor_type all_types[] = {TT_F32,  TT_F16,  TT_BF16, TT_Q8_0, TT_Q4_0, TT_Q4_1,   TT_Q5_0,   TT_Q5_1,
                                        TT_Q2_K, TT_Q3_K, TT_Q4_K, TT_Q5_K, TT_Q6_K, TT_IQ4_NL, TT_IQ4_XS, TT_MXFP4};
#define N_TYPES (sizeof all_types / sizeof *all_types)

static uint64_t rng_state = 1;
static inline uint32_t rng(void) { /* splitmix64 */
    uint64_t z = rng_state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (uint32_t)((z ^ z >> 31) >> 16);
}
static inline float rng_float(void) {
    return (float)(int32_t)rng() * 0x1p-31f;
} /* [-1, 1) */

/* Where the f16 scales of a block are; -1: none. */
static inline void scale_places(tensor_type t, int at[2]) {
    at[0] = 0;
    at[1] = -1;
    switch (t) {
    case TT_Q4_1:
    case TT_Q5_1:
    case TT_Q4_K:
    case TT_Q5_K: at[1] = 2; break;
    case TT_Q2_K: at[0] = 80, at[1] = 82; break;
    case TT_Q3_K: at[0] = 108; break;
    case TT_Q6_K: at[0] = 208; break;
    default: break;
    }
}

static inline size_t weights_bytes(tensor_type t, size_t n) {
    const tensor_type_facts *f = tensor_type_get((uint32_t)t);
    return n / f->block_len * f->block_bytes;
}

/* f16 of either sign and about 2^-10 to 2^2: finite, and products stay far from overflow */
static inline void put_f16(uint8_t *p) {
    p[0] = (uint8_t)rng();
    p[1] = (uint8_t)((rng() & 0x83) | (5 + rng() % 12) << 2);
}

/* n weights: integers at random over all their values (or all bytes `fill` where that is not negative), scales tame. */
static inline uint8_t *random_weights(tensor_type t, size_t n, int fill) {
    const tensor_type_facts *f = tensor_type_get((uint32_t)t);
    size_t len = weights_bytes(t, n);
    uint8_t *p = malloc(len);
    if (!p) abort();
    for (size_t i = 0; i < len; i++) p[i] = fill < 0 ? (uint8_t)rng() : (uint8_t)fill;
    if (t == TT_F32 || t == TT_BF16) {
        for (size_t i = 0; i < n; i++) {
            float v = rng_float();
            if (t == TT_F32)
                memcpy(p + 4 * i, &v, 4);
            else
                memcpy(p + 2 * i, (uint8_t *)&v + 2, 2);
        }
    } else if (t == TT_F16) {
        for (size_t i = 0; i < n; i++) put_f16(p + 2 * i);
    } else if (t == TT_MXFP4) {
        for (size_t b = 0; b < len; b += f->block_bytes) p[b] = (uint8_t)(118 + rng() % 12); /* 2^-10 to 2 */
    } else {
        int at[2];
        scale_places(t, at);
        for (size_t b = 0; b < len; b += f->block_bytes)
            for (int i = 0; i < 2; i++)
                if (at[i] >= 0) put_f16(p + b + at[i]);
    }
    return p;
}

#endif
