/* delta.h with AVX2 and FMA: two registers of columns. One walk over S does a token's update and output and the next
 * token's first sum, so S is read and written once a token; the sums are those of delta_scalar.c, in their order. */
#include "engine/kernels/delta.h"

#include <immintrin.h>
#include <math.h>

#define INLINE static inline __attribute__((always_inline)) /* `more` becomes a constant */

typedef struct pair {
    __m256 a, b;
} pair;

/* All ones in the first n lanes; n may be negative. */
static __m256i lanes_below(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

static pair first_sum(const float *s, const float *k, uint32_t dk) {
    pair m = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    for (uint32_t j = 0; j < dk; j++, s += DELTA_LANES) {
        __m256 kj = _mm256_broadcast_ss(k + j);
        m.a = _mm256_fmadd_ps(_mm256_load_ps(s), kj, m.a);
        m.b = _mm256_fmadd_ps(_mm256_load_ps(s + 8), kj, m.b);
    }
    return m;
}

/* S with this token in it; *out is its output; with more, *mem is the sum over S and the next token's key. */
INLINE void walk(float *s, const float *q, const float *k, const float *next_k, uint32_t dk, __m256 decay, pair diff,
                 pair *out, pair *mem, const int more) {
    pair o = {_mm256_setzero_ps(), _mm256_setzero_ps()}, m = o;
    for (uint32_t j = 0; j < dk; j++, s += DELTA_LANES) {
        __m256 kj = _mm256_broadcast_ss(k + j), qj = _mm256_broadcast_ss(q + j);
        __m256 sa = _mm256_fmadd_ps(kj, diff.a, _mm256_mul_ps(decay, _mm256_load_ps(s)));
        __m256 sb = _mm256_fmadd_ps(kj, diff.b, _mm256_mul_ps(decay, _mm256_load_ps(s + 8)));
        _mm256_store_ps(s, sa);
        _mm256_store_ps(s + 8, sb);
        o.a = _mm256_fmadd_ps(sa, qj, o.a);
        o.b = _mm256_fmadd_ps(sb, qj, o.b);
        if (!more) continue;
        __m256 nj = _mm256_broadcast_ss(next_k + j);
        m.a = _mm256_fmadd_ps(sa, nj, m.a);
        m.b = _mm256_fmadd_ps(sb, nj, m.b);
    }
    *out = o;
    *mem = m;
}

/* Columns [c, c + n), n at most DELTA_LANES. Lanes past n hold zeros and stay so: they read v as 0. */
static void run_columns(const delta_head *h, float *s, uint32_t c, uint32_t n) {
    __m256i la = lanes_below((int)n), lb = lanes_below((int)n - 8);
    pair mem = first_sum(s, h->k, h->dk), out;
    for (uint32_t t = 0; t < h->n; t++) {
        const float *q = h->q + t * h->ld_qk, *k = h->k + t * h->ld_qk, *v = h->v + t * h->ld_v + c;
        float *to = h->out + t * h->ld_out + c;
        __m256 decay = _mm256_broadcast_ss(h->decay + t * h->ld_gates);
        __m256 beta = _mm256_broadcast_ss(h->beta + t * h->ld_gates);
        pair diff = {_mm256_mul_ps(beta, _mm256_fnmadd_ps(decay, mem.a, _mm256_maskload_ps(v, la))),
                     _mm256_mul_ps(beta, _mm256_fnmadd_ps(decay, mem.b, _mm256_maskload_ps(v + 8, lb)))};
        if (t + 1 < h->n)
            walk(s, q, k, k + h->ld_qk, h->dk, decay, diff, &out, &mem, 1);
        else
            walk(s, q, k, NULL, h->dk, decay, diff, &out, &mem, 0);
        _mm256_maskstore_ps(to, la, out.a);
        _mm256_maskstore_ps(to + 8, lb, out.b);
    }
}

static void avx2_run(const delta_head *h) {
    for (uint32_t c = 0; c < h->dv; c += DELTA_LANES)
        run_columns(h, h->state + (size_t)c * h->dk, c, h->dv - c < DELTA_LANES ? h->dv - c : DELTA_LANES);
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
