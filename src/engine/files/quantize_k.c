/* The types with 256 weights a block: runs of 16 or 32 weights with small integer scales of their own.
 *
 *   1. the best scale (and minimum) of every run by itself
 *   2. one f16 scale for all runs, and the runs' scales as integers of it
 *   3. for every run the neighbouring integers are tried too, each with its weights rounded anew
 *   4. for the integers found, the f16 scales by least squares, and 3 again: kept where the error falls
 */
#include "engine/files/quantize_fit.h"
#include "engine/quant.h"

#include <math.h>
#include <string.h>

#define PASSES 3

static void put16(uint8_t *p, uint16_t v) {
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}
static float as_f16(float v) {
    return f16_to_f32(quantize_scale_bits(v));
}
static const float *at(const float *w, int i) {
    return w ? w + i : NULL;
}

/* ---- w = d sc level ---------------------------------------------------------------------------------------- */

typedef struct signed_block {
    float d;
    int8_t sc[16];
    int8_t q[256];
} signed_block;

/* The integer scale near `want` that is best for a run, and its weights. */
static float best_sc(const levels *l, const float *x, const float *w, int run, float d, int want, int lo, int hi,
                     int8_t *sc, int8_t *q) {
    float best = INFINITY;
    int8_t mine[32];
    for (int k = want - 1; k <= want + 1; k++) {
        if (k < lo || k > hi) continue;
        float off = fit_error_scale(l, x, w, run, d * (float)k, mine);
        if (!(off < best) && best != INFINITY) continue;
        best = off;
        *sc = (int8_t)k;
        memcpy(q, mine, (size_t)run);
    }
    return best;
}

static float signed_pass(const levels *l, const float *x, const float *w, int run, int lo, int hi, const float *scales,
                         signed_block *b) {
    float id = b->d != 0 ? 1 / b->d : 0, sum = 0;
    for (int i = 0, j = 0; i < 256; i += run, j++)
        sum += best_sc(l, x + i, at(w, i), run, b->d, clamp_round(scales[j] * id, lo, hi), lo, hi, &b->sc[j], b->q + i);
    return sum;
}

/* d by least squares for the integers of b. */
static float signed_solve(const levels *l, const float *x, const float *w, int run, const signed_block *b) {
    float xa = 0, aa = 0;
    for (int i = 0; i < 256; i++) {
        float a = (float)(b->sc[i / run] * level_value(l, b->q[i])), wi = w ? w[i] : 1;
        xa += wi * x[i] * a;
        aa += wi * a * a;
    }
    return aa > 0 ? xa / aa : 0;
}

static void signed_fit(const levels *l, const float *x, const float *w, int run, int lo, int hi, signed_block *out) {
    float scales[16], max = 0;
    signed_block b;
    int8_t q[32];
    for (int i = 0, j = 0; i < 256; i += run, j++) {
        scales[j] = fit_scale(l, x + i, at(w, i), run, q);
        if (fabsf(scales[j]) > fabsf(max)) max = scales[j];
    }
    memset(out, 0, sizeof *out);
    for (int i = 0; i < 256; i++) out->q[i] = (int8_t)level_index(l, 0);
    float best = INFINITY, d = as_f16(max / (float)lo);
    for (int pass = 0; pass < PASSES && d != 0; pass++) {
        b.d = d;
        float off = signed_pass(l, x, w, run, lo, hi, scales, &b);
        if (!(off < best)) break;
        best = off;
        *out = b;
        d = as_f16(signed_solve(l, x, w, run, &b));
    }
}

/* ---- w = d sc q - dmin m ------------------------------------------------------------------------------------ */

typedef struct affine_block {
    float d, dmin;
    uint8_t sc[16], m[16];
    uint8_t q[256];
} affine_block;

static float best_pair(const float *x, const float *w, int run, int hi, int top, const affine_block *b, int sc, int m,
                       uint8_t *out_sc, uint8_t *out_m, uint8_t *q) {
    float best = INFINITY;
    uint8_t mine[32];
    for (int k = sc - 1; k <= sc + 1; k++)
        for (int h = m - 1; h <= m + 1; h++) {
            if (k < 0 || k > top || h < 0 || h > top) continue;
            float off = fit_error_affine(x, w, run, hi, b->d * (float)k, -b->dmin * (float)h, mine);
            if (!(off < best) && best != INFINITY) continue;
            best = off;
            *out_sc = (uint8_t)k;
            *out_m = (uint8_t)h;
            memcpy(q, mine, (size_t)run);
        }
    return best;
}

static float affine_pass(const float *x, const float *w, int run, int hi, int top, const float *scales,
                         const float *mins, affine_block *b) {
    float id = b->d > 0 ? 1 / b->d : 0, im = b->dmin > 0 ? 1 / b->dmin : 0, sum = 0;
    for (int i = 0, j = 0; i < 256; i += run, j++)
        sum += best_pair(x + i, at(w, i), run, hi, top, b, clamp_round(scales[j] * id, 0, top),
                         clamp_round(mins[j] * im, 0, top), &b->sc[j], &b->m[j], b->q + i);
    return sum;
}

/* d and dmin by least squares for the integers of b: x ~ d a - dmin c. */
static bool affine_solve(const float *x, const float *w, int run, const affine_block *b, float *d, float *dmin) {
    float aa = 0, ac = 0, cc = 0, xa = 0, xc = 0;
    for (int i = 0; i < 256; i++) {
        float a = (float)(b->sc[i / run] * b->q[i]), c = (float)b->m[i / run], wi = w ? w[i] : 1;
        aa += wi * a * a;
        ac += wi * a * c;
        cc += wi * c * c;
        xa += wi * x[i] * a;
        xc += wi * x[i] * c;
    }
    float det = aa * cc - ac * ac;
    if (!(det > 0)) return false;
    *d = as_f16((xa * cc - xc * ac) / det);
    *dmin = as_f16((xa * ac - xc * aa) / det);
    return *d > 0 && *dmin >= 0;
}

static void affine_fit(const float *x, const float *w, int run, int hi, int top, affine_block *out) {
    float scales[16], mins[16], max_d = 0, max_m = 0;
    uint8_t q[32];
    for (int i = 0, j = 0; i < 256; i += run, j++) {
        scales[j] = fit_affine(x + i, at(w, i), run, hi, false, q, &mins[j]);
        mins[j] = -mins[j];
        if (scales[j] > max_d) max_d = scales[j];
        if (mins[j] > max_m) max_m = mins[j];
    }
    affine_block b;
    memset(out, 0, sizeof *out);
    float best = INFINITY, d = as_f16(max_d / (float)top), dmin = as_f16(max_m / (float)top);
    for (int pass = 0; pass < PASSES; pass++) {
        b.d = d;
        b.dmin = dmin;
        float off = affine_pass(x, w, run, hi, top, scales, mins, &b);
        if (!(off < best)) break;
        best = off;
        *out = b;
        if (!affine_solve(x, w, run, &b, &d, &dmin)) break;
    }
}

/* ---- packing: the inverse of quant.c's parts ----------------------------------------------------------------- */

static void q2_k(const float *x, const float *w, uint8_t *out) {
    affine_block b;
    affine_fit(x, w, 16, 3, 15, &b);
    memset(out, 0, 84);
    for (int i = 0; i < 16; i++) out[i] = (uint8_t)(b.sc[i] | b.m[i] << 4);
    for (int run = 0; run < 8; run++)
        for (int i = 0; i < 32; i++) out[16 + run / 4 * 32 + i] |= (uint8_t)(b.q[32 * run + i] << (run % 4 * 2));
    put16(out + 80, quantize_scale_bits(b.d));
    put16(out + 82, quantize_scale_bits(b.dmin));
}

static void q3_k(const float *x, const float *w, uint8_t *out) {
    const levels l = {-4, 3, NULL};
    signed_block b;
    signed_fit(&l, x, w, 16, -32, 31, &b);
    memset(out, 0, 110);
    for (int run = 0; run < 8; run++)
        for (int i = 0; i < 32; i++) {
            int q = b.q[32 * run + i] + 4;
            out[32 + run / 4 * 32 + i] |= (uint8_t)((q & 3) << (run % 4 * 2));
            out[i] |= (uint8_t)((q >> 2) << run);
        }
    for (int j = 0; j < 16; j++) {
        int sc = b.sc[j] + 32;
        out[96 + j % 8] |= (uint8_t)((sc & 15) << (j < 8 ? 0 : 4));
        out[104 + j % 4] |= (uint8_t)((sc >> 4) << (j / 4 * 2));
    }
    put16(out + 108, quantize_scale_bits(b.d));
}

static void scales_12_put(uint8_t *p, const affine_block *b) {
    memset(p, 0, 12);
    for (int j = 0; j < 4; j++) {
        p[j] = (uint8_t)(b->sc[j] | (b->sc[j + 4] >> 4) << 6);
        p[j + 4] = (uint8_t)(b->m[j] | (b->m[j + 4] >> 4) << 6);
        p[j + 8] = (uint8_t)((b->sc[j + 4] & 15) | (b->m[j + 4] & 15) << 4);
    }
}

static void q45_k(const float *x, const float *w, uint8_t *out, bool fifth) {
    affine_block b;
    affine_fit(x, w, 32, fifth ? 31 : 15, 63, &b);
    put16(out, quantize_scale_bits(b.d));
    put16(out + 2, quantize_scale_bits(b.dmin));
    scales_12_put(out + 4, &b);
    uint8_t *low = out + (fifth ? 48 : 16);
    for (int i = 0; i < 128; i++) {
        const uint8_t *q = b.q + i / 32 * 64 + i % 32;
        low[i] = (uint8_t)((q[0] & 15) | (q[32] & 15) << 4);
    }
    if (!fifth) return;
    memset(out + 16, 0, 32);
    for (int run = 0; run < 8; run++)
        for (int i = 0; i < 32; i++) out[16 + i] |= (uint8_t)((b.q[32 * run + i] >> 4) << run);
}
static void q4_k(const float *x, const float *w, uint8_t *out) {
    q45_k(x, w, out, false);
}
static void q5_k(const float *x, const float *w, uint8_t *out) {
    q45_k(x, w, out, true);
}

static void q6_k(const float *x, const float *w, uint8_t *out) {
    const levels l = {-32, 31, NULL};
    signed_block b;
    signed_fit(&l, x, w, 16, -128, 127, &b);
    memset(out, 0, 210);
    for (int run = 0; run < 8; run++) {
        int half = run / 4, in = run % 4;
        for (int i = 0; i < 32; i++) {
            int q = b.q[32 * run + i] + 32;
            out[half * 64 + in % 2 * 32 + i] |= (uint8_t)((q & 15) << (in / 2 * 4));
            out[128 + half * 32 + i] |= (uint8_t)((q >> 4) << (in * 2));
        }
    }
    memcpy(out + 192, b.sc, 16);
    put16(out + 208, quantize_scale_bits(b.d));
}

static void iq4_xs(const float *x, const float *w, uint8_t *out) {
    const levels l = {0, 15, iq4_table};
    signed_block b;
    signed_fit(&l, x, w, 32, -32, 31, &b);
    memset(out, 0, 136);
    put16(out, quantize_scale_bits(b.d));
    unsigned high = 0;
    for (int j = 0; j < 8; j++) {
        int sc = b.sc[j] + 32;
        out[4 + j / 2] |= (uint8_t)((sc & 15) << (j % 2 * 4));
        high |= (unsigned)(sc >> 4) << (2 * j);
        for (int i = 0; i < 16; i++) out[8 + 16 * j + i] = (uint8_t)(b.q[32 * j + i] | b.q[32 * j + 16 + i] << 4);
    }
    put16(out + 2, (uint16_t)high);
}

quantize_block quantize_block_256(tensor_type type) {
    switch (type) {
    case TT_Q2_K: return q2_k;
    case TT_Q3_K: return q3_k;
    case TT_Q4_K: return q4_k;
    case TT_Q5_K: return q5_k;
    case TT_Q6_K: return q6_k;
    case TT_IQ4_XS: return iq4_xs;
    default: return NULL;
    }
}
