/* The reference: the numerics of kernels.h spelt out, for every type, on any machine. fmaf is exact in every C library,
 * with or without the instruction. */
#include "engine/kernels/kernels.h"

#include <math.h>
#include <string.h>

/* ---- activations ------------------------------------------------------------------------------------------- */

static void quantise_block(act_block *b, const float *x) {
    /* compared as bits: NaN lies above infinity, infinity above all finite values */
    uint32_t top = 0;
    for (int i = 0; i < 32; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], 4);
        bits &= 0x7fffffff;
        if (bits > top) top = bits;
    }
    memset(b, 0, sizeof *b);
    if (top >= 0x7f800000) {
        b->d = b->asum = NAN;
        return;
    }
    float amax;
    memcpy(&amax, &top, 4);
    if (amax < 0x1p-118f) return;
    b->d = amax / 127.0f;
    float scale = 127.0f / amax;
    for (int i = 0; i < 32; i++) {
        /* adding 1.5 * 2^23 leaves the value, rounded half to even, in the low bits */
        float f = x[i] * scale + 12582912.0f;
        int32_t bits;
        memcpy(&bits, &f, 4);
        b->q[i] = (int8_t)(bits - 0x4b400000);
        b->s[i / 16] = (int16_t)(b->s[i / 16] + b->q[i]);
    }
    int32_t sum = b->s[0] + b->s[1];
    b->asum = b->d * (float)sum;
    b->nsum8 = -8 * sum;
}

static void quantise(act_block *blocks, const acts_view *a, uint32_t begin, uint32_t end) {
    for (uint32_t b = 0; b < a->cols / 32; b++)
        for (uint32_t t = begin; t < end; t++)
            quantise_block(&blocks[(size_t)b * a->ldb + t], a->x + t * a->ldx + 32ull * b);
}

/* ---- floats ------------------------------------------------------------------------------------------------ */

static void mul_floats(const packed *w, uint32_t panel, const acts_view *a, float *y, size_t ldy) {
    uint32_t first = panel * PANEL_GROUPS, n_lanes = w->n_groups - first;
    n_lanes = (n_lanes < PANEL_GROUPS ? n_lanes : PANEL_GROUPS) * LANES;
    const uint8_t *src = w->data + panel * w->task_bytes;
    for (uint32_t t = 0; t < a->n; t++) {
        const float *x = a->x + t * a->ldx;
        float acc[PANEL_GROUPS * LANES] = {0}, row[PANEL_GROUPS * LANES];
        for (uint32_t k = 0; k < w->cols; k++) {
            tensor_expand(w->type, src + (size_t)k * n_lanes * w->unit_bytes, row, n_lanes);
            for (uint32_t i = 0; i < n_lanes; i++) acc[i] = fmaf(row[i], x[k], acc[i]);
        }
        for (uint32_t i = 0; i < n_lanes && first * LANES + i < w->rows; i++) y[t * ldy + first * LANES + i] = acc[i];
    }
}

/* ---- integers ---------------------------------------------------------------------------------------------- */

static int32_t dot16(const int8_t *w, const int8_t *q) {
    int32_t s = 0;
    for (int k = 0; k < 16; k++) s += w[k] * q[k];
    return s;
}

/* One block of 32, lane r, added to acc. */
static float step(const quant_shape *s, const block8 *w, int r, const act_block *x, float acc) {
    int32_t lo = dot16(w->w[r], x->q), hi = dot16(w->w[r] + 16, x->q + 16);
    float d = w->d[r], dmin = w->dmin[r];
    if (s->run == 16) {
        acc = fmaf(d * x->d, (float)(w->sc[0][r] * lo + w->sc[1][r] * hi), acc);
        if (s->min == MIN_SCALED) acc = fmaf(-(dmin * x->d), (float)(w->m[0][r] * x->s[0] + w->m[1][r] * x->s[1]), acc);
        return acc;
    }
    acc = fmaf(d * (float)w->sc[0][r] * x->d, (float)(lo + hi), acc);
    if (s->min == MIN_ADDED) acc = fmaf(dmin, x->asum, acc);
    if (s->min == MIN_SCALED) acc = fmaf(-(dmin * (float)w->m[0][r]), x->asum, acc);
    return acc;
}

#define TILE 32 /* tokens at once, so that a block of weights is unpacked once for all of them */

static void mul_group(const packed *w, uint32_t group, const acts_view *a, uint32_t t0, uint32_t n, float *y,
                      size_t ldy) {
    const quant_shape *s = quant_shape_get(w->type);
    float acc[TILE][LANES] = {{0}};
    for (uint32_t b = 0; b < w->cols / 32; b++) {
        block8 v;
        packed_block(w, group, b, &v);
        const act_block *x = a->blocks + (size_t)b * a->ldb + t0;
        for (uint32_t t = 0; t < n; t++)
            for (int r = 0; r < LANES; r++) acc[t][r] = step(s, &v, r, &x[t], acc[t][r]);
    }
    for (uint32_t t = 0; t < n; t++)
        for (uint32_t r = 0; r < LANES && group * LANES + r < w->rows; r++)
            y[(t0 + t) * ldy + group * LANES + r] = acc[t][r];
}

static void mul(const packed *w, uint32_t begin, uint32_t end, const acts_view *a, float *y, size_t ldy) {
    for (uint32_t i = begin; i < end; i++) {
        if (!quant_shape_get(w->type)) {
            mul_floats(w, i, a, y, ldy);
            continue;
        }
        for (uint32_t t = 0; t < a->n; t += TILE) mul_group(w, i, a, t, a->n - t < TILE ? a->n - t : TILE, y, ldy);
    }
}

const mat_kernels mat_scalar = {quantise, mul};
