/* delta.h with Advanced SIMD: four registers of columns. One walk over S does a token's update and output and the next
 * token's first sum, so S is read and written once a token; the sums are those of delta_scalar.c, in their order. */
#include "engine/kernels/delta.h"
#include "engine/kernels/inline.h"

#include <arm_neon.h>
#include <math.h>
#include <string.h>

#define QUADS (DELTA_LANES / 4)

typedef struct columns {
    float32x4_t v[QUADS];
} columns;

INLINE columns columns_zero(void) {
    columns c;
    UNROLL for (int i = 0; i < QUADS; i++) c.v[i] = vdupq_n_f32(0);
    return c;
}

/* The first n of DELTA_LANES, the others 0. */
INLINE columns columns_load(const float *p, uint32_t n) {
    columns c;
    float room[DELTA_LANES] = {0};
    if (n < DELTA_LANES) p = memcpy(room, p, n * sizeof *p);
    UNROLL for (int i = 0; i < QUADS; i++) c.v[i] = vld1q_f32(p + 4 * i);
    return c;
}

INLINE void columns_store(float *p, const columns *c, uint32_t n) {
    float room[DELTA_LANES], *to = n < DELTA_LANES ? room : p;
    UNROLL for (int i = 0; i < QUADS; i++) vst1q_f32(to + 4 * i, c->v[i]);
    if (n < DELTA_LANES) memcpy(p, room, n * sizeof *p);
}

static columns first_sum(const float *s, const float *k, uint32_t dk) {
    columns m = columns_zero();
    for (uint32_t j = 0; j < dk; j++, s += DELTA_LANES) {
        float32x4_t kj = vdupq_n_f32(k[j]);
        UNROLL for (int i = 0; i < QUADS; i++) m.v[i] = vfmaq_f32(m.v[i], vld1q_f32(s + 4 * i), kj);
    }
    return m;
}

/* S with this token in it; *out is its output; with more, *mem is the sum over S and the next token's key. */
INLINE void walk(float *s, const float *q, const float *k, const float *next_k, uint32_t dk, float32x4_t decay,
                 const columns *diff, columns *out, columns *mem, const int more) {
    columns o = columns_zero(), m = o;
    for (uint32_t j = 0; j < dk; j++, s += DELTA_LANES) {
        float32x4_t kj = vdupq_n_f32(k[j]), qj = vdupq_n_f32(q[j]), nj = vdupq_n_f32(more ? next_k[j] : 0);
        UNROLL for (int i = 0; i < QUADS; i++) {
            float32x4_t v = vfmaq_f32(vmulq_f32(decay, vld1q_f32(s + 4 * i)), kj, diff->v[i]);
            vst1q_f32(s + 4 * i, v);
            o.v[i] = vfmaq_f32(o.v[i], v, qj);
            if (more) m.v[i] = vfmaq_f32(m.v[i], v, nj);
        }
    }
    *out = o;
    *mem = m;
}

/* Columns [c, c + n), n at most DELTA_LANES. Lanes past n hold zeros and stay so: they read v as 0. */
static void run_columns(const delta_head *h, float *s, uint32_t c, uint32_t n) {
    columns mem = first_sum(s, h->k, h->dk), out;
    for (uint32_t t = 0; t < h->n; t++) {
        const float *q = h->q + t * h->ld_qk, *k = h->k + t * h->ld_qk;
        float32x4_t decay = vdupq_n_f32(h->decay[t * h->ld_gates]), beta = vdupq_n_f32(h->beta[t * h->ld_gates]);
        columns diff = columns_load(h->v + t * h->ld_v + c, n);
        UNROLL for (int i = 0; i < QUADS; i++) diff.v[i] =
            vmulq_f32(beta, vfmsq_f32(diff.v[i], decay, mem.v[i])); /* v - decay mem, rounded once */
        if (t + 1 < h->n)
            walk(s, q, k, k + h->ld_qk, h->dk, decay, &diff, &out, &mem, 1);
        else
            walk(s, q, k, NULL, h->dk, decay, &diff, &out, &mem, 0);
        columns_store(h->out + t * h->ld_out + c, &out, n);
    }
}

static void neon_run(const delta_head *h) {
    for (uint32_t c = 0; c < h->dv; c += DELTA_LANES)
        run_columns(h, h->state + (size_t)c * h->dk, c, h->dv - c < DELTA_LANES ? h->dv - c : DELTA_LANES);
}

static void neon_conv(float *y, const float *const *x, const float *w, size_t ld_w, uint32_t taps, size_t n) {
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        float32x4_t a = vdupq_n_f32(0), b = a;
        for (uint32_t k = 0; k < taps; k++) {
            a = vfmaq_f32(a, vld1q_f32(w + k * ld_w + i), vld1q_f32(x[k] + i));
            b = vfmaq_f32(b, vld1q_f32(w + k * ld_w + i + 4), vld1q_f32(x[k] + i + 4));
        }
        vst1q_f32(y + i, a);
        vst1q_f32(y + i + 4, b);
    }
    for (; i < n; i++) {
        float s = 0;
        for (uint32_t k = 0; k < taps; k++) s = fmaf(w[k * ld_w + i], x[k][i], s);
        y[i] = s;
    }
}

const delta_kernels delta_neon = {.name = "neon", .run = neon_run, .conv = neon_conv};
