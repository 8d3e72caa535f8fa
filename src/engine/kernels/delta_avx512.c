/* delta.h with AVX-512: DELTA_LANES columns are one register. As in delta_avx2.c, one walk over S does a token's update
 * and output and the next token's first sum; the sums are those of delta_scalar.c, in their order. */
#include "engine/kernels/delta.h"

#include "engine/kernels/avx512.h"

#include <stdbool.h>

#define AT_ONCE 4 /* registers of columns: their sums do not wait for each other */

/* s: the state of G neighbouring registers of columns, `apart` floats from each other. */
INLINE void first_sum(const float *s, size_t apart, const float *k, uint32_t dk, __m512 *mem, const int G) {
    __m512 m[AT_ONCE];
    UNROLL for (int g = 0; g < G; g++) m[g] = _mm512_setzero_ps();
    for (uint32_t j = 0; j < dk; j++, s += DELTA_LANES) {
        const __m512 kj = _mm512_set1_ps(k[j]);
        UNROLL for (int g = 0; g < G; g++) m[g] = _mm512_fmadd_ps(_mm512_load_ps(s + (size_t)g * apart), kj, m[g]);
    }
    UNROLL for (int g = 0; g < G; g++) mem[g] = m[g];
}

/* S with this token in it; *out is its output; with more, *mem is the sum over S and the next token's key.
 *
 * Of a row all registers are read before one is written: with 128 keys they are 8 KiB apart, and a processor that
 * compares only the low 12 bits of addresses makes a read wait for a write to the neighbouring column (up to 1.8 times
 * the time on Zen 4). */
INLINE void walk(float *s, size_t apart, const float *q, const float *k, const float *next_k, uint32_t dk, __m512 decay,
                 const __m512 *diff, __m512 *out, __m512 *mem, const int G, const bool more) {
    __m512 d[AT_ONCE], o[AT_ONCE], m[AT_ONCE];
    UNROLL for (int g = 0; g < G; g++) {
        d[g] = diff[g];
        o[g] = m[g] = _mm512_setzero_ps();
    }
    for (uint32_t j = 0; j < dk; j++, s += DELTA_LANES) {
        const __m512 kj = _mm512_set1_ps(k[j]), qj = _mm512_set1_ps(q[j]), nj = _mm512_set1_ps(next_k[j]);
        __m512 sj[AT_ONCE];
        UNROLL for (int g = 0; g < G; g++) sj[g] = _mm512_mul_ps(decay, _mm512_load_ps(s + (size_t)g * apart));
        UNROLL for (int g = 0; g < G; g++) {
            sj[g] = _mm512_fmadd_ps(kj, d[g], sj[g]);
            _mm512_store_ps(s + (size_t)g * apart, sj[g]);
            o[g] = _mm512_fmadd_ps(sj[g], qj, o[g]);
            if (more) m[g] = _mm512_fmadd_ps(sj[g], nj, m[g]);
        }
    }
    UNROLL for (int g = 0; g < G; g++) {
        out[g] = o[g];
        mem[g] = m[g];
    }
}

/* Columns [c, c + n) in G registers; the last may not be full: lanes past n hold zeros and stay so, they read v as 0.
 */
INLINE void run_columns(const delta_head *h, uint32_t c, uint32_t n, const int G) {
    float *s = h->state + (size_t)c * h->dk;
    const size_t apart = (size_t)DELTA_LANES * h->dk;
    const __mmask16 last = (__mmask16)(0xffffu >> ((uint32_t)G * DELTA_LANES - n));
    __m512 mem[AT_ONCE], diff[AT_ONCE], out[AT_ONCE];
    first_sum(s, apart, h->k, h->dk, mem, G);
    for (uint32_t t = 0; t < h->n; t++) {
        const float *q = h->q + t * h->ld_qk, *k = h->k + t * h->ld_qk, *v = h->v + t * h->ld_v + c;
        const __m512 decay = _mm512_set1_ps(h->decay[t * h->ld_gates]), beta = _mm512_set1_ps(h->beta[t * h->ld_gates]);
        UNROLL for (int g = 0; g < G; g++) {
            const __m512 vg = _mm512_maskz_loadu_ps(g == G - 1 ? last : 0xffff, v + DELTA_LANES * g);
            diff[g] = _mm512_mul_ps(beta, _mm512_fnmadd_ps(decay, mem[g], vg));
        }
        if (t + 1 < h->n)
            walk(s, apart, q, k, k + h->ld_qk, h->dk, decay, diff, out, mem, G, true);
        else
            walk(s, apart, q, k, k, h->dk, decay, diff, out, mem, G, false);
        float *to = h->out + t * h->ld_out + c;
        UNROLL for (int g = 0; g < G; g++)
            _mm512_mask_storeu_ps(to + DELTA_LANES * g, g == G - 1 ? last : 0xffff, out[g]);
    }
}

static void avx512_run(const delta_head *h) {
    const uint32_t many = AT_ONCE * DELTA_LANES;
    uint32_t c = 0;
    for (; c + many <= h->dv; c += many) run_columns(h, c, many, AT_ONCE);
    for (; c < h->dv; c += DELTA_LANES) run_columns(h, c, h->dv - c < DELTA_LANES ? h->dv - c : DELTA_LANES, 1);
}

static void avx512_conv(float *y, const float *const *x, const float *w, size_t ld_w, uint32_t taps, size_t n) {
    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 lanes = (__mmask16)(n - i >= 16 ? 0xffff : (1u << (n - i)) - 1);
        __m512 s = _mm512_setzero_ps();
        for (uint32_t k = 0; k < taps; k++)
            s = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(lanes, w + k * ld_w + i), _mm512_maskz_loadu_ps(lanes, x[k] + i),
                                s);
        _mm512_mask_storeu_ps(y + i, lanes, s);
    }
}

const delta_kernels delta_avx512 = {.name = "avx512", .run = avx512_run, .conv = avx512_conv};
