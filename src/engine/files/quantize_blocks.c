/* Half precision, and the types with 32 weights a block. quant.c draws the blocks. */
#include "engine/files/quantize_fit.h"
#include "engine/quant.h"

#include <math.h>
#include <string.h>

/* ---- half precision --------------------------------------------------------------------------------------- */

uint16_t f32_to_f16(float f) {
    uint32_t u = num_bits(f), sign = u >> 16 & 0x8000, a = u & 0x7fffffff;
    if (a > 0x7f800000) return (uint16_t)(sign | 0x7e00 | (a >> 13 & 0x1ff)); /* NaN */
    if (a >= 0x477ff000) return (uint16_t)(sign | 0x7c00);                    /* rounds to 65536 or more */
    if (a < 0x38800000) { /* below 2^-14: adding 0.5 shifts the bits to where they belong, rounded */
        float v = num_from_bits(a) + 0.5f;
        return (uint16_t)(sign | (num_bits(v) - 0x3f000000));
    }
    uint32_t odd = a >> 13 & 1;
    return (uint16_t)(sign | (a - 0x38000000 + 0xfff + odd) >> 13);
}

uint16_t f32_to_bf16(float f) {
    uint32_t u = num_bits(f);
    if ((u & 0x7fffffff) > 0x7f800000) return (uint16_t)(u >> 16 | 64);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

static void put16(uint8_t *p, uint16_t v) {
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

uint16_t quantize_scale_bits(float d) {
    if (d > 65504.0f) d = 65504.0f; /* weights this large come back too small, but not as infinities */
    if (d < -65504.0f) d = -65504.0f;
    return f32_to_f16(d);
}

/* ---- plain rounding --------------------------------------------------------------------------------------- */

static float signed_max(const float *x) {
    float amax = 0, max = 0;
    for (int i = 0; i < 32; i++)
        if (fabsf(x[i]) > amax) {
            amax = fabsf(x[i]);
            max = x[i];
        }
    return max;
}

static void range(const float *x, float *min, float *max) {
    *min = *max = x[0];
    for (int i = 1; i < 32; i++) {
        if (x[i] < *min) *min = x[i];
        if (x[i] > *max) *max = x[i];
    }
}

/* v is not negative here but by rounding; NaN gives 0. */
static uint8_t cut(float v, int hi) {
    if (!(v > 0)) return 0;
    return v >= (float)hi ? (uint8_t)hi : (uint8_t)v;
}

static void nibbles_put(uint8_t *p, const uint8_t *q) {
    for (int j = 0; j < 16; j++) p[j] = (uint8_t)((q[j] & 15) | (q[j + 16] & 15) << 4);
}
static void fifth_put(uint8_t *p, const uint8_t *q) {
    uint32_t h = 0;
    for (int j = 0; j < 32; j++) h |= (uint32_t)(q[j] >> 4) << j;
    for (int i = 0; i < 4; i++) p[i] = (uint8_t)(h >> 8 * i);
}

static void q8_0(const float *x, const float *w, uint8_t *out) {
    (void)w;
    float d = fabsf(signed_max(x)) / 127.0f, id = d != 0 ? 1.0f / d : 0;
    put16(out, quantize_scale_bits(d));
    for (int j = 0; j < 32; j++) {
        float v = roundf(x[j] * id);
        out[2 + j] = (uint8_t)(int8_t)(v >= -128 && v <= 127 ? v : 0);
    }
}

/* d of one sign so that the largest weight sits on the lowest integer, which has no positive twin. */
static float scale_integers(const float *x, const float *w, int half, uint8_t *q) {
    if (w) {
        int8_t k[32];
        float d = fit_scale(&(levels){-half, half - 1, NULL}, x, w, 32, k);
        d = f16_to_f32(quantize_scale_bits(d));
        fit_error_scale(&(levels){-half, half - 1, NULL}, x, w, 32, d, k);
        for (int j = 0; j < 32; j++) q[j] = (uint8_t)(k[j] + half);
        return d;
    }
    float d = signed_max(x) / (float)-half, id = d != 0 ? 1.0f / d : 0;
    for (int j = 0; j < 32; j++) q[j] = cut(x[j] * id + ((float)half + 0.5f), 2 * half - 1);
    return d;
}

static float range_integers(const float *x, const float *w, int hi, uint8_t *q, float *m) {
    if (w) {
        float d = fit_affine(x, w, 32, hi, true, q, m);
        d = f16_to_f32(quantize_scale_bits(d));
        *m = f16_to_f32(quantize_scale_bits(*m));
        fit_error_affine(x, w, 32, hi, d, *m, q);
        return d;
    }
    float min, max;
    range(x, &min, &max);
    float d = (max - min) / (float)hi, id = d != 0 ? 1.0f / d : 0;
    for (int j = 0; j < 32; j++) q[j] = cut((x[j] - min) * id + 0.5f, hi);
    *m = min;
    return d;
}

static void q4_0(const float *x, const float *w, uint8_t *out) {
    uint8_t q[32];
    put16(out, quantize_scale_bits(scale_integers(x, w, 8, q)));
    nibbles_put(out + 2, q);
}
static void q5_0(const float *x, const float *w, uint8_t *out) {
    uint8_t q[32];
    put16(out, quantize_scale_bits(scale_integers(x, w, 16, q)));
    fifth_put(out + 2, q);
    nibbles_put(out + 6, q);
}
static void q4_1(const float *x, const float *w, uint8_t *out) {
    uint8_t q[32];
    float m;
    put16(out, quantize_scale_bits(range_integers(x, w, 15, q, &m)));
    put16(out + 2, quantize_scale_bits(m));
    nibbles_put(out + 4, q);
}
static void q5_1(const float *x, const float *w, uint8_t *out) {
    uint8_t q[32];
    float m;
    put16(out, quantize_scale_bits(range_integers(x, w, 31, q, &m)));
    put16(out + 2, quantize_scale_bits(m));
    fifth_put(out + 4, q);
    nibbles_put(out + 8, q);
}

static void iq4_nl(const float *x, const float *w, uint8_t *out) {
    const levels l = {0, 15, iq4_table};
    int8_t k[32];
    uint8_t q[32];
    float d = f16_to_f32(quantize_scale_bits(fit_scale(&l, x, w, 32, k)));
    fit_error_scale(&l, x, w, 32, d, k);
    for (int j = 0; j < 32; j++) q[j] = (uint8_t)k[j];
    put16(out, quantize_scale_bits(d));
    nibbles_put(out + 2, q);
}

/* OCP microscaling: a power of two for 32 weights of 4 bits (E2M1). Byte 0: exponent with bias 127; twice the values
 * 0, 0.5, 1, 1.5, 2, 3, 4, 6 are integers, so the table is doubled and the scale halved. */
static void mxfp4(const float *x, const float *w, uint8_t *out) {
    static const int8_t table[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
    (void)w;
    float amax = fabsf(signed_max(x));
    int exp = amax > 0 ? (int)(num_bits(amax) >> 23) - 127 : -127; /* floor(log2) of what is normal */
    int e = amax > 0 && isfinite(amax) ? exp - 2 + 127 : 0;
    if (e < 0) e = 0;
    float d = e > 1 ? num_from_bits((uint32_t)(e - 1) << 23) : num_from_bits(0x00200000u << e);
    uint8_t q[32];
    for (int j = 0; j < 32; j++) {
        int best = 0;
        for (int i = 1; i < 16; i++)
            if (fabsf((float)table[i] * d - x[j]) < fabsf((float)table[best] * d - x[j])) best = i;
        q[j] = (uint8_t)best;
    }
    out[0] = (uint8_t)e;
    nibbles_put(out + 1, q);
}

quantize_block quantize_block_32(tensor_type type) {
    switch (type) {
    case TT_Q8_0: return q8_0;
    case TT_Q4_0: return q4_0;
    case TT_Q4_1: return q4_1;
    case TT_Q5_0: return q5_0;
    case TT_Q5_1: return q5_1;
    case TT_IQ4_NL: return iq4_nl;
    case TT_MXFP4: return mxfp4;
    default: return NULL;
    }
}

/* ---- rows ------------------------------------------------------------------------------------------------- */

static void plain_row(tensor_type type, const float *src, uint8_t *dst, size_t n) {
    if (type == TT_F32) {
        memcpy(dst, src, n * 4);
        return;
    }
    for (size_t i = 0; i < n; i++) put16(dst + 2 * i, type == TT_F16 ? f32_to_f16(src[i]) : f32_to_bf16(src[i]));
}

void quantize_rows(tensor_type type, const float *src, uint8_t *dst, size_t n_rows, size_t cols,
                   const float *importance) {
    const tensor_type_facts *f = tensor_type_get(type);
    if (f->block_len == 1) {
        plain_row(type, src, dst, n_rows * cols);
        return;
    }
    quantize_block fn = f->block_len == 32 ? quantize_block_32(type) : quantize_block_256(type);
    size_t n = cols / f->block_len;
    for (size_t r = 0; r < n_rows; r++)
        for (size_t b = 0; b < n; b++, src += f->block_len, dst += f->block_bytes)
            fn(src, importance ? importance + b * f->block_len : NULL, dst);
}
