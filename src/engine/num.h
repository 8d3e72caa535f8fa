/* Internal to engine: the elementary functions that results depend on.
 *
 * No libm but its fma and sqrt, which IEEE 754 defines to the last bit: two machines with different C libraries agree.
 * num_exp32 exists a second time in kernels/vec_avx2.c, operation by operation, and must stay equal to it.
 *
 * Accuracy (tests/unit/engine/test_num.c measures it against libm): num_exp32 1 ulp; double functions 2 ulp, but
 * num_pow, whose relative error grows to 1e-14 with |y log x|; num_sin and num_cos 2e-16 absolute for |x| < 2^30.
 */
#ifndef POLDER_ENGINE_NUM_H
#define POLDER_ENGINE_NUM_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#define NUM_EXP32_HI     88.8f         /* above: +inf comes out of the last multiplication */
#define NUM_EXP32_LO     (-87.336544f) /* below: 0; results under 2^-126 would be slow and mean nothing */
#define NUM_EXP32_LOG2E  0x1.715476p0f
#define NUM_EXP32_LN2_HI 0x1.62e4p-1f /* 15 bits: n * LN2_HI is exact for |n| <= 256 */
#define NUM_EXP32_LN2_LO 0x1.7f7d1cp-20f
#define NUM_ROUND_MAGIC  0x1.8p23f /* adding it rounds to an integer, half to even, and leaves that in the low bits */

static inline float num_from_bits(uint32_t u) {
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}
static inline uint32_t num_bits(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

/* IEEE binary16 and back: to nearest, ties to even, held within +-65504 (infinity too: a score must stay a number);
 * NaN stays NaN, quiet, with the first bits of its payload. Subnormals are kept. Processors' conversions (F16C,
 * AVX-512, FCVTN) give these bits once the value is clamped. */
#define NUM_HALF_MAX 65504.0f
static inline uint16_t num_to_half(float x) {
    uint32_t u = num_bits(x), sign = u >> 16 & 0x8000, a = u & 0x7fffffff;
    if (a > 0x7f800000) return (uint16_t)(sign | 0x7e00 | (a >> 13 & 0x1ff));
    if (a >= 0x477fe000) return (uint16_t)(sign | 0x7bff);
    if (a < 0x38800000) { /* under 2^-14: a multiple of 2^-24; adding 0.5 rounds to one */
        return (uint16_t)(sign | (num_bits(num_from_bits(a) + 0.5f) - num_bits(0.5f)));
    }
    return (uint16_t)(sign | ((a - 0x38000000 + 0xfff + (a >> 13 & 1)) >> 13));
}
static inline float num_from_half(uint16_t h) { /* exact */
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, a = h & 0x7fff;
    if (a >= 0x7c00) return num_from_bits(sign | 0x7f800000 | (a & 0x3ff) << 13 | (a > 0x7c00 ? 0x400000 : 0));
    if (a < 0x400) return num_from_bits(sign | num_bits((float)a * 0x1p-24f));
    return num_from_bits(sign | ((a << 13) + 0x38000000));
}

/* e^x in float: x = n ln 2 + r, |r| <= 0.35, Taylor polynomial of degree 7 (remainder 5e-9), times 2^n in two steps so
 * that n = 128 does not overflow on the way. NaN gives NaN. */
static inline float num_exp32(float x) {
    float c = NUM_EXP32_LO > x ? NUM_EXP32_LO : x; /* in this order a NaN survives, as in the vector instruction */
    c = NUM_EXP32_HI < c ? NUM_EXP32_HI : c;
    float z = fmaf(c, NUM_EXP32_LOG2E, NUM_ROUND_MAGIC);
    float n = z - NUM_ROUND_MAGIC;
    float r = fmaf(n, -NUM_EXP32_LN2_HI, c);
    r = fmaf(n, -NUM_EXP32_LN2_LO, r);
    float p = fmaf(r, 1.0f / 5040, 1.0f / 720);
    p = fmaf(r, p, 1.0f / 120);
    p = fmaf(r, p, 1.0f / 24);
    p = fmaf(r, p, 1.0f / 6);
    p = fmaf(r, p, 0.5f);
    p = fmaf(r, p, 1.0f);
    p = fmaf(r, p, 1.0f);
    int32_t k = (int32_t)(num_bits(z) - num_bits(NUM_ROUND_MAGIC));
    int32_t k1 = k >> 1, k2 = k - k1;
    p = p * num_from_bits((uint32_t)(k1 + 127) << 23);
    p = p * num_from_bits((uint32_t)(k2 + 127) << 23);
    return x < NUM_EXP32_LO ? 0.0f : p;
}

/* x / (1 + e^-x) */
static inline float num_silu32(float x) {
    return x / (1.0f + num_exp32(-x));
}

/* 1 / (1 + e^-x) */
static inline float num_sigmoid32(float x) {
    return 1.0f / (1.0f + num_exp32(-x));
}

/* 1 - 2 / (1 + e^2x): within 1.2e-7 of tanh, absolute; for small |x| the relative error grows. */
static inline float num_tanh32(float x) {
    return 1.0f - 2.0f / (1.0f + num_exp32(2.0f * x));
}

/* GELU in its tanh form (arXiv 1606.08415): x/2 (1 + tanh u) = x / (1 + e^-2u), u = sqrt(2 / pi) (x + 0.044715 x^3). */
#define NUM_GELU_A 0.044715f
#define NUM_GELU_B (-1.5957691216f) /* -2 sqrt(2 / pi) */
static inline float num_gelu32(float x) {
    float u = fmaf(x * x, NUM_GELU_A * x, x);
    return x / (1.0f + num_exp32(NUM_GELU_B * u));
}

double num_exp(double x);
double num_log(double x);           /* x < 0 gives NaN, 0 gives -inf */
double num_pow(double x, double y); /* x > 0 */
/* |x| at most 2^30, about 10^9 positions; NaN past that. */
double num_sin(double x);
double num_cos(double x);

#endif
