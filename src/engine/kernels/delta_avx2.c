/* delta.h with AVX2 and FMA: two or four registers of columns. One walk over S does a token's update and output and the
 * next token's first sum, so S is read and written once a token; the sums are those of delta_scalar.c, in their order.
 */
#include "engine/kernels/delta.h"
#include "engine/kernels/inline.h"

#include <immintrin.h>
#include <math.h>
#include <stdbool.h>

#define REGS_MAX 4

/* All ones in the first n lanes; n may be negative. */
static __m256i lanes_below(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

/* Where the columns of register r begin in S, whose groups of DELTA_LANES columns are `apart` floats from each other.
 */
INLINE size_t place(int r, size_t apart) {
    return (size_t)(r / 2) * apart + 8 * (size_t)(r % 2);
}

/* R registers of columns: their sums do not wait for each other. */
INLINE void first_sum(const float *s, size_t apart, const float *k, uint32_t dk, __m256 *mem, const int R) {
    __m256 m[REGS_MAX];
    UNROLL
    for (int r = 0; r < R; r++) m[r] = _mm256_setzero_ps();
    for (uint32_t j = 0; j < dk; j++, s += DELTA_LANES) {
        __m256 kj = _mm256_broadcast_ss(k + j);
        UNROLL
        for (int r = 0; r < R; r++) m[r] = _mm256_fmadd_ps(_mm256_load_ps(s + place(r, apart)), kj, m[r]);
    }
    UNROLL
    for (int r = 0; r < R; r++) mem[r] = m[r];
}

/* S with this token in it; *out is its output; with more, *mem is the sum over S and the next token's key. */
INLINE void walk(float *s, size_t apart, const float *q, const float *k, const float *next_k, uint32_t dk, __m256 decay,
                 const __m256 *diff, __m256 *out, __m256 *mem, const int R, const bool more) {
    __m256 d[REGS_MAX], o[REGS_MAX], m[REGS_MAX];
    UNROLL
    for (int r = 0; r < R; r++) {
        d[r] = diff[r];
        o[r] = m[r] = _mm256_setzero_ps();
    }
    for (uint32_t j = 0; j < dk; j++, s += DELTA_LANES) {
        __m256 kj = _mm256_broadcast_ss(k + j), qj = _mm256_broadcast_ss(q + j), nj = _mm256_broadcast_ss(next_k + j);
        UNROLL
        for (int r = 0; r < R; r++) {
            float *at = s + place(r, apart);
            __m256 sj = _mm256_fmadd_ps(kj, d[r], _mm256_mul_ps(decay, _mm256_load_ps(at)));
            _mm256_store_ps(at, sj);
            o[r] = _mm256_fmadd_ps(sj, qj, o[r]);
            if (more) m[r] = _mm256_fmadd_ps(sj, nj, m[r]);
        }
    }
    UNROLL
    for (int r = 0; r < R; r++) {
        out[r] = o[r];
        mem[r] = m[r];
    }
}

/* Columns [c, c + n) in R registers. Lanes past n hold zeros and stay so: they read v as 0. */
INLINE void run_columns(const delta_head *h, uint32_t c, uint32_t n, const int R) {
    float *s = h->state + (size_t)c * h->dk;
    const size_t apart = (size_t)DELTA_LANES * h->dk;
    __m256 mem[REGS_MAX], diff[REGS_MAX], out[REGS_MAX];
    first_sum(s, apart, h->k, h->dk, mem, R);
    for (uint32_t t = 0; t < h->n; t++) {
        const float *q = h->q + t * h->ld_qk, *k = h->k + t * h->ld_qk, *v = h->v + t * h->ld_v + c;
        float *to = h->out + t * h->ld_out + c;
        __m256 decay = _mm256_broadcast_ss(h->decay + t * h->ld_gates);
        __m256 beta = _mm256_broadcast_ss(h->beta + t * h->ld_gates);
        UNROLL
        for (int r = 0; r < R; r++) {
            __m256 vr = _mm256_maskload_ps(v + 8 * r, lanes_below((int)n - 8 * r));
            diff[r] = _mm256_mul_ps(beta, _mm256_fnmadd_ps(decay, mem[r], vr));
        }
        if (t + 1 < h->n)
            walk(s, apart, q, k, k + h->ld_qk, h->dk, decay, diff, out, mem, R, true);
        else
            walk(s, apart, q, k, k, h->dk, decay, diff, out, mem, R, false);
        UNROLL
        for (int r = 0; r < R; r++) _mm256_maskstore_ps(to + 8 * r, lanes_below((int)n - 8 * r), out[r]);
    }
}

/* As many columns at once as the registers hold: of several tokens each takes two sums, of one token one. */
static void avx2_run(const delta_head *h) {
    const uint32_t dv = h->dv;
    uint32_t c = 0;
    if (h->n == 1)
        for (; c + 32 <= dv; c += 32) run_columns(h, c, 32, 4);
    for (; c < dv; c += DELTA_LANES) run_columns(h, c, dv - c < DELTA_LANES ? dv - c : DELTA_LANES, 2);
}

static void avx2_conv(float *y, const float *const *x, const float *w, size_t ld_w, uint32_t taps, size_t n) {
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        __m256 s = _mm256_setzero_ps();
        for (uint32_t k = 0; k < taps; k++)
            s = _mm256_fmadd_ps(_mm256_loadu_ps(w + k * ld_w + i), _mm256_loadu_ps(x[k] + i), s);
        _mm256_storeu_ps(y + i, s);
    }
    for (; i < n; i++) {
        float s = 0;
        for (uint32_t k = 0; k < taps; k++) s = fmaf(w[k * ld_w + i], x[k][i], s);
        y[i] = s;
    }
}

const delta_kernels delta_avx2 = {.name = "avx2", .run = avx2_run, .conv = avx2_conv};
