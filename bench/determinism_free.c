#include "determinism.h"

#include <immintrin.h>
#include <math.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 8")
#endif

/* ---- vectors: the compiler reassociates ---------------------------------------------------------------------- */

void free_rms_norm(float *y, const float *x, const float *w, uint32_t n, float eps) {
    __m256 s[4] = {0};
    float rest = 0;
    uint32_t i = 0;
    for (; i + 32 <= n; i += 32) UNROLL for (int k = 0; k < 4; k++) {
            __m256 v = _mm256_loadu_ps(x + i + 8 * k);
            s[k] = _mm256_fmadd_ps(v, v, s[k]);
        }
    for (; i < n; i++) rest += x[i] * x[i];
    float lanes[8];
    _mm256_storeu_ps(lanes, _mm256_add_ps(_mm256_add_ps(s[0], s[1]), _mm256_add_ps(s[2], s[3])));
    for (int k = 0; k < 8; k++) rest += lanes[k];
    float f = 1 / sqrtf(rest / (float)n + eps);
    for (i = 0; i < n; i++) y[i] = x[i] * f * w[i];
}

/* Sum and sum of squares in one pass, as a free variant may. */
void free_layer_norm(float *y, const float *x, const float *w, const float *b, uint32_t n, float eps) {
    __m256 s[4] = {0}, q[4] = {0};
    float sum = 0, squares = 0;
    uint32_t i = 0;
    for (; i + 32 <= n; i += 32) UNROLL for (int k = 0; k < 4; k++) {
            __m256 v = _mm256_loadu_ps(x + i + 8 * k);
            s[k] = _mm256_add_ps(s[k], v);
            q[k] = _mm256_fmadd_ps(v, v, q[k]);
        }
    for (; i < n; i++) {
        sum += x[i];
        squares += x[i] * x[i];
    }
    float lanes[2][8];
    _mm256_storeu_ps(lanes[0], _mm256_add_ps(_mm256_add_ps(s[0], s[1]), _mm256_add_ps(s[2], s[3])));
    _mm256_storeu_ps(lanes[1], _mm256_add_ps(_mm256_add_ps(q[0], q[1]), _mm256_add_ps(q[2], q[3])));
    for (int k = 0; k < 8; k++) {
        sum += lanes[0][k];
        squares += lanes[1][k];
    }
    float mean = sum / (float)n, f = 1 / sqrtf(squares / (float)n - mean * mean + eps);
    for (i = 0; i < n; i++) y[i] = (x[i] - mean) * f * w[i] + b[i];
}

/* e^x: the polynomial of num_exp32 by pairs (Estrin) instead of as one chain, one scaling instead of two. */
INLINE __m256 exp_free(__m256 x) {
    const __m256 c = _mm256_min_ps(_mm256_set1_ps(88.0f), _mm256_max_ps(_mm256_set1_ps(-87.0f), x));
    __m256 n =
        _mm256_round_ps(_mm256_mul_ps(c, _mm256_set1_ps(1.44269504f)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693359375f), c);
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.12194440e-4f), r);
    __m256 r2 = _mm256_mul_ps(r, r), one = _mm256_set1_ps(1);
    __m256 a = _mm256_add_ps(r, one), b = _mm256_fmadd_ps(r, _mm256_set1_ps(1.0f / 6), _mm256_set1_ps(0.5f));
    __m256 d = _mm256_fmadd_ps(r, _mm256_set1_ps(1.0f / 120), _mm256_set1_ps(1.0f / 24));
    __m256 e = _mm256_fmadd_ps(r, _mm256_set1_ps(1.0f / 5040), _mm256_set1_ps(1.0f / 720));
    __m256 p = _mm256_fmadd_ps(_mm256_mul_ps(r2, r2), _mm256_fmadd_ps(e, r2, d), _mm256_fmadd_ps(b, r2, a));
    __m256i k = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    return _mm256_mul_ps(p, _mm256_castsi256_ps(k));
}

void free_swiglu(float *gate, const float *up, size_t n) {
    const __m256 one = _mm256_set1_ps(1), zero = _mm256_setzero_ps();
    for (size_t i = 0; i + 8 <= n; i += 8) {
        __m256 g = _mm256_loadu_ps(gate + i), d = _mm256_add_ps(one, exp_free(_mm256_sub_ps(zero, g)));
        _mm256_storeu_ps(gate + i, _mm256_div_ps(_mm256_mul_ps(g, _mm256_loadu_ps(up + i)), d));
    }
}

double free_exp_sum(float *w, const float *x, float max, float div, size_t n) {
    const __m256 vm = _mm256_set1_ps(max), vd = _mm256_set1_ps(1 / div);
    __m256d s[4] = {0};
    for (size_t i = 0; i + 16 <= n; i += 16) UNROLL for (int k = 0; k < 2; k++) {
            __m256 e = exp_free(_mm256_mul_ps(_mm256_sub_ps(_mm256_loadu_ps(x + i + 8 * k), vm), vd));
            _mm256_storeu_ps(w + i + 8 * k, e);
            s[2 * k] = _mm256_add_pd(s[2 * k], _mm256_cvtps_pd(_mm256_castps256_ps128(e)));
            s[2 * k + 1] = _mm256_add_pd(s[2 * k + 1], _mm256_cvtps_pd(_mm256_extractf128_ps(e, 1)));
        }
    double lanes[4];
    _mm256_storeu_pd(lanes, _mm256_add_pd(_mm256_add_pd(s[0], s[1]), _mm256_add_pd(s[2], s[3])));
    return lanes[0] + lanes[1] + lanes[2] + lanes[3];
}

/* ---- delta rule: even and odd rows of the state in sums of their own ------------------------------------------- */

void free_delta(const delta_head *h) {
    for (uint32_t c = 0; c + DELTA_LANES <= h->dv; c += DELTA_LANES) {
        float *state = h->state + (size_t)c * h->dk;
        __m256 m[2][2] = {{_mm256_setzero_ps(), _mm256_setzero_ps()}, {_mm256_setzero_ps(), _mm256_setzero_ps()}};
        for (uint32_t j = 0; j < h->dk; j++)
            UNROLL for (int i = 0; i < 2; i++) m[j & 1][i] = _mm256_fmadd_ps(
                _mm256_load_ps(state + (size_t)j * DELTA_LANES + 8 * i), _mm256_set1_ps(h->k[j]), m[j & 1][i]);
        for (uint32_t t = 0; t < h->n; t++) {
            const float *q = h->q + t * h->ld_qk, *k = h->k + t * h->ld_qk;
            const float *next = t + 1 < h->n ? k + h->ld_qk : k;
            __m256 decay = _mm256_set1_ps(h->decay[t * h->ld_gates]), beta = _mm256_set1_ps(h->beta[t * h->ld_gates]);
            __m256 diff[2], o[2][2];
            UNROLL for (int i = 0; i < 2; i++) {
                __m256 v = _mm256_loadu_ps(h->v + t * h->ld_v + c + 8 * i);
                diff[i] = _mm256_mul_ps(beta, _mm256_fnmadd_ps(decay, _mm256_add_ps(m[0][i], m[1][i]), v));
                o[0][i] = o[1][i] = m[0][i] = m[1][i] = _mm256_setzero_ps();
            }
            for (uint32_t j = 0; j + 2 <= h->dk; j += 2)
                UNROLL for (int s = 0; s < 2; s++) UNROLL for (int i = 0; i < 2; i++) {
                    float *at = state + (size_t)(j + (uint32_t)s) * DELTA_LANES + 8 * i;
                    __m256 v = _mm256_fmadd_ps(_mm256_set1_ps(k[j + (uint32_t)s]), diff[i],
                                               _mm256_mul_ps(decay, _mm256_load_ps(at)));
                    _mm256_store_ps(at, v);
                    o[s][i] = _mm256_fmadd_ps(v, _mm256_set1_ps(q[j + (uint32_t)s]), o[s][i]);
                    m[s][i] = _mm256_fmadd_ps(v, _mm256_set1_ps(next[j + (uint32_t)s]), m[s][i]);
                }
            UNROLL for (int i = 0; i < 2; i++)
                _mm256_storeu_ps(h->out + t * h->ld_out + c + 8 * i, _mm256_add_ps(o[0][i], o[1][i]));
        }
    }
}

/* ---- products -------------------------------------------------------------------------------------------------- */

INLINE __m256i bcast(const void *p) {
    int32_t v;
    memcpy(&v, p, 4);
    return _mm256_set1_epi32(v);
}
INLINE __m256i load(const uint8_t *p) {
    return _mm256_loadu_si256((const __m256i *)(const void *)p);
}
INLINE __m256 load_f16(const uint8_t *p) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p));
}
INLINE __m256 load_i8(const uint8_t *p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p)));
}

/* dot of 32 four-bit weights; the activations of nt tokens */
INLINE void dot4(__m256i *dot, const uint8_t *low, const act_block *x, int nt) {
    const __m256i mask = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
    __m256i q[8], a[4];
    UNROLL for (int i = 0; i < 4; i++) {
        __m256i v = load(low + 32 * i);
        q[i] = _mm256_and_si256(v, mask);
        q[i + 4] = _mm256_and_si256(_mm256_srli_epi16(v, 4), mask);
    }
    UNROLL for (int j = 0; j < 8; j++) UNROLL for (int t = 0; t < nt; t++) {
        __m256i p = _mm256_maddubs_epi16(q[j], bcast(x[t].q + 4 * j));
        a[t] = j ? _mm256_add_epi16(a[t], p) : p;
        __asm__("" : "+x"(a[t]));
    }
    UNROLL for (int t = 0; t < nt; t++) dot[t] = _mm256_madd_epi16(a[t], ones);
}

/* Signed bytes by the sign trick: |w| times a with w's sign. */
INLINE __m256i dot8(const uint8_t *w, const act_block *x) {
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i s[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
    UNROLL for (int j = 0; j < 8; j++) {
        __m256i v = load(w + 32 * j),
                p = _mm256_maddubs_epi16(_mm256_abs_epi8(v), _mm256_sign_epi8(bcast(x->q + 4 * j), v));
        s[j & 1] = _mm256_add_epi32(s[j & 1], _mm256_madd_epi16(p, ones));
    }
    return _mm256_add_epi32(s[0], s[1]);
}

/* nt tokens; sums of even and odd blocks apart */
INLINE void mul_group(const packed *p, uint32_t g, const acts_view *a, uint32_t t0, int nt, float *y, size_t ldy) {
    const uint8_t *at = p->data + g * p->task_bytes;
    __m256 acc[2][4];
    UNROLL for (int t = 0; t < nt; t++) acc[0][t] = acc[1][t] = _mm256_setzero_ps();
    const uint32_t per = p->type == TT_Q4_K ? 8 : 1;
    for (uint32_t u = 0; u < p->cols / (32 * per); u++, at += p->unit_bytes) {
        __m256 d = load_f16(at);
        UNROLL for (int i = 0; i < 16; i++) _mm_prefetch((const char *)(at + 4096 + 64 * i), _MM_HINT_T0);
        for (uint32_t b = 0; b < per; b++) {
            const uint8_t *part = at + p->head_bytes + b * p->part_bytes;
            const act_block *x = a->blocks + (size_t)(u * per + b) * a->ldb + t0;
            __m256i dot[4];
            __m256 sc = d, min = d;
            if (p->type == TT_Q8_0) {
                UNROLL for (int t = 0; t < nt; t++) dot[t] = dot8(part, x + t);
            } else {
                dot4(dot, part + (per == 8 ? 16 : 0), x, nt);
            }
            if (per == 8) {
                sc = _mm256_mul_ps(d, load_i8(part));
                min = _mm256_mul_ps(load_f16(at + 16), load_i8(part + 8));
            }
            UNROLL for (int t = 0; t < nt; t++) {
                if (p->type == TT_Q4_0) dot[t] = _mm256_add_epi32(dot[t], bcast(&x[t].nsum8));
                __m256 *s = &acc[per == 8 ? 0 : u & 1][t];
                *s = _mm256_fmadd_ps(_mm256_mul_ps(sc, _mm256_set1_ps(x[t].d)), _mm256_cvtepi32_ps(dot[t]), *s);
                if (per == 8) acc[1][t] = _mm256_fnmadd_ps(min, _mm256_set1_ps(x[t].asum), acc[1][t]);
            }
        }
    }
    UNROLL for (int t = 0; t < nt; t++)
        _mm256_storeu_ps(y + (t0 + (uint32_t)t) * ldy + g * LANES, _mm256_add_ps(acc[0][t], acc[1][t]));
}

void free_mul(const packed *p, const acts_view *a, float *y, size_t ldy) {
    for (uint32_t g = 0; g < p->n_groups; g++) {
        uint32_t t = 0;
        for (; t + 4 <= a->n; t += 4) mul_group(p, g, a, t, 4, y, ldy);
        for (; t < a->n; t++) mul_group(p, g, a, t, 1, y, ldy);
    }
}
