/* The definition of the kernels of delta.h. */
#include "engine/kernels/delta.h"

#include <math.h>

const delta_kernels *delta_kernels_get(isa i) {
    if (!isa_have(i)) return NULL;
#ifdef POLDER_HAVE_AVX2
    if (i == ISA_AVX2) return &delta_avx2;
#endif
#ifdef POLDER_HAVE_AVX512
    if (i == ISA_AVX512) return &delta_avx512;
#endif
#ifdef POLDER_HAVE_NEON
    if (i == ISA_NEON) return &delta_neon;
#endif
    return &delta_scalar;
}

/* s: one column, its elements DELTA_LANES apart. */
static void scalar_column(const delta_head *h, float *s, uint32_t c) {
    for (uint32_t t = 0; t < h->n; t++) {
        const float *q = h->q + t * h->ld_qk, *k = h->k + t * h->ld_qk;
        float decay = h->decay[t * h->ld_gates], beta = h->beta[t * h->ld_gates], mem = 0, out = 0;
        for (uint32_t j = 0; j < h->dk; j++) mem = fmaf(s[(size_t)j * DELTA_LANES], k[j], mem);
        float diff = beta * fmaf(-decay, mem, h->v[t * h->ld_v + c]);
        for (uint32_t j = 0; j < h->dk; j++) {
            float *sj = &s[(size_t)j * DELTA_LANES];
            *sj = fmaf(k[j], diff, decay * *sj);
            out = fmaf(*sj, q[j], out);
        }
        h->out[t * h->ld_out + c] = out;
    }
}

static void scalar_run(const delta_head *h) {
    for (uint32_t c = 0; c < h->dv; c++)
        scalar_column(h, h->state + (size_t)(c / DELTA_LANES) * h->dk * DELTA_LANES + c % DELTA_LANES, c);
}

static void scalar_conv(float *y, const float *const *x, const float *w, size_t ld_w, uint32_t taps, size_t n) {
    for (size_t i = 0; i < n; i++) {
        float s = 0;
        for (uint32_t k = 0; k < taps; k++) s = fmaf(w[k * ld_w + i], x[k][i], s);
        y[i] = s;
    }
}

const delta_kernels delta_scalar = {.name = "scalar", .run = scalar_run, .conv = scalar_conv};
