/* delta.h with AVX-512: DELTA_LANES columns are one register. As in delta_avx2.c, one walk over S does a token's update
 * and output and the next token's first sum; the sums are those of delta_scalar.c, in their order. */
#include "engine/kernels/delta.h"

#include "engine/kernels/avx512.h"

static __m512 first_sum(const float *s, const float *k, uint32_t dk) {
    __m512 m = _mm512_setzero_ps();
    for (uint32_t j = 0; j < dk; j++, s += DELTA_LANES) m = _mm512_fmadd_ps(_mm512_load_ps(s), _mm512_set1_ps(k[j]), m);
    return m;
}

/* S with this token in it; returns its output; with next_k, *mem is the sum over S and the next token's key. */
INLINE __m512 walk(float *s, const float *q, const float *k, const float *next_k, uint32_t dk, __m512 decay,
                   __m512 diff, __m512 *mem) {
    __m512 out = _mm512_setzero_ps(), m = out;
    for (uint32_t j = 0; j < dk; j++, s += DELTA_LANES) {
        __m512 kj = _mm512_set1_ps(k[j]), qj = _mm512_set1_ps(q[j]);
        __m512 sj = _mm512_fmadd_ps(kj, diff, _mm512_mul_ps(decay, _mm512_load_ps(s)));
        _mm512_store_ps(s, sj);
        out = _mm512_fmadd_ps(sj, qj, out);
        if (next_k) m = _mm512_fmadd_ps(sj, _mm512_set1_ps(next_k[j]), m);
    }
    *mem = m;
    return out;
}

/* Columns [c, c + n), n at most DELTA_LANES. Lanes past n hold zeros and stay so: they read v as 0. */
static void run_columns(const delta_head *h, float *s, uint32_t c, uint32_t n) {
    const __mmask16 lanes = (__mmask16)(0xffffu >> (DELTA_LANES - n));
    __m512 mem = first_sum(s, h->k, h->dk);
    for (uint32_t t = 0; t < h->n; t++) {
        const float *q = h->q + t * h->ld_qk, *k = h->k + t * h->ld_qk;
        __m512 v = _mm512_maskz_loadu_ps(lanes, h->v + t * h->ld_v + c), out;
        __m512 decay = _mm512_set1_ps(h->decay[t * h->ld_gates]), beta = _mm512_set1_ps(h->beta[t * h->ld_gates]);
        __m512 diff = _mm512_mul_ps(beta, _mm512_fnmadd_ps(decay, mem, v));
        if (t + 1 < h->n)
            out = walk(s, q, k, k + h->ld_qk, h->dk, decay, diff, &mem);
        else
            out = walk(s, q, k, NULL, h->dk, decay, diff, &mem);
        _mm512_mask_storeu_ps(h->out + t * h->ld_out + c, lanes, out);
    }
}

static void avx512_run(const delta_head *h) {
    for (uint32_t c = 0; c < h->dv; c += DELTA_LANES)
        run_columns(h, h->state + (size_t)c * h->dk, c, h->dv - c < DELTA_LANES ? h->dv - c : DELTA_LANES);
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
