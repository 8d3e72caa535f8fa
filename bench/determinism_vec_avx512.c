/* Norms, sums of exponentials, attention and the delta rule of AVX-512. */
#include "engine/kernels/delta.h"
#define vec_avx512 free_own_vec_avx512
#include "engine/kernels/vec_avx512.c"

#include "determinism.h"

#define ONE_SUMS 2 /* of a row: even and odd ones */

/* 16 sums. */
INLINE float sum_of(addend what, const float *x, uint32_t n, float mean) {
    const __m512 vm = _mm512_set1_ps(mean);
    __m512 s[16];
    UNROLL for (int j = 0; j < 16; j++) s[j] = _mm512_setzero_ps();
    for (uint32_t i = 0; i < n; i += 256)
        UNROLL for (int j = 0; j < 16; j++) s[j] = add_of(what, s[j], _mm512_loadu_ps(x + i + 16 * j), vm);
    for (int half = 8; half >= 1; half /= 2)
        UNROLL for (int j = 0; j < half; j++) s[j] = _mm512_add_ps(s[j], s[half + j]);
    return tree_ps(_mm256_add_ps(low_half(s[0]), high_half(s[0])));
}

static void rms_norm(float *y, const float *x, const float *w, uint32_t n, float eps) {
    const __m512 f = _mm512_set1_ps(1.0f / sqrtf(sum_of(SQUARE, x, n, 0) / (float)n + eps));
    for (uint32_t i = 0; i < n; i += 16)
        _mm512_storeu_ps(y + i, _mm512_mul_ps(_mm512_mul_ps(_mm512_loadu_ps(x + i), f), _mm512_loadu_ps(w + i)));
}

static void layer_norm(float *y, const float *x, const float *w, const float *b, uint32_t n, float eps) {
    const float mean = sum_of(ITSELF, x, n, 0) / (float)n;
    const __m512 f = _mm512_set1_ps(1.0f / sqrtf(sum_of(SQUARE_OFF_MEAN, x, n, mean) / (float)n + eps));
    const __m512 vm = _mm512_set1_ps(mean);
    for (uint32_t i = 0; i < n; i += 16) {
        __m512 d = _mm512_mul_ps(_mm512_sub_ps(_mm512_loadu_ps(x + i), vm), f);
        _mm512_storeu_ps(y + i, _mm512_fmadd_ps(d, _mm512_loadu_ps(w + i), _mm512_loadu_ps(b + i)));
    }
}

/* Four sums instead of one. */
static double exp_sum(float *w, const float *x, float max, float div, size_t n) {
    const __m512 vm = _mm512_set1_ps(max), vd = _mm512_set1_ps(div);
    __m512d s[4];
    UNROLL for (int j = 0; j < 4; j++) s[j] = _mm512_setzero_pd();
    for (size_t i = 0; i < n; i += 32) UNROLL for (size_t j = 0; j < 2; j++) {
            __m512 e = exp_ps(_mm512_div_ps(_mm512_sub_ps(_mm512_loadu_ps(x + i + 16 * j), vm), vd));
            _mm512_storeu_ps(w + i + 16 * j, e);
            s[2 * j] = _mm512_add_pd(s[2 * j], _mm512_cvtps_pd(low_half(e)));
            s[2 * j + 1] = _mm512_add_pd(s[2 * j + 1], _mm512_cvtps_pd(high_half(e)));
        }
    return _mm512_reduce_add_pd(_mm512_add_pd(_mm512_add_pd(s[0], s[1]), _mm512_add_pd(s[2], s[3])));
}

/* ---- attention -------------------------------------------------------------------------------------------------- */

/* As weigh; 16 lanes and four registers of sums. */
INLINE float weigh_apart(attn_row *r, float *s) {
    __m512 v[TILE_REGS], vm = _mm512_set1_ps(r->m);
    UNROLL for (int j = 0; j < TILE_REGS; j++) v[j] = _mm512_loadu_ps(s + 16 * j);
    UNROLL for (int j = 0; j < TILE_REGS; j++) vm = _mm512_max_ps(v[j], vm);
    __m256 h8 = _mm256_max_ps(low_half(vm), high_half(vm));
    __m128 h = _mm_max_ps(_mm256_castps256_ps128(h8), _mm256_extractf128_ps(h8, 1));
    h = _mm_max_ps(h, _mm_movehl_ps(h, h));
    h = _mm_max_ss(h, _mm_movehdup_ps(h));
    float m = _mm_cvtss_f32(h);
    vm = _mm512_set1_ps(m);
    UNROLL for (int j = 0; j < TILE_REGS; j++) {
        v[j] = exp_ps(_mm512_sub_ps(v[j], vm));
        _mm512_storeu_ps(s + 16 * j, v[j]);
    }
    __m512 sum = _mm512_add_ps(_mm512_add_ps(v[0], v[1]), _mm512_add_ps(v[2], v[3]));
    float corr = num_exp32(r->m - m);
    r->m = m;
    r->l = fmaf(r->l, corr, tree_ps(_mm256_add_ps(low_half(sum), high_half(sum))));
    return corr;
}

/* One row: even and odd elements apart. */
INLINE void scores_one(const attn_row *row, float *s, const uint16_t *k, const attn_shape *a, fetching *f) {
    __m512 acc[ONE_SUMS][TILE_REGS];
    UNROLL for (int j = 0; j < TILE_REGS; j++) acc[0][j] = acc[1][j] = _mm512_setzero_ps();
    for (uint32_t d = 0; d < a->dk; d += ONE_SUMS) UNROLL for (uint32_t i = 0; i < ONE_SUMS; i++) {
            const __m512 q = _mm512_set1_ps(row->q[d + i]);
            fetch_step(f);
            UNROLL for (size_t j = 0; j < TILE_REGS; j++) acc[i][j] =
                _mm512_fmadd_ps(q, load_kv(k, (size_t)(d + i) * VEC_TILE + 16 * j, 16, true), acc[i][j]);
        }
    UNROLL for (int j = 0; j < TILE_REGS; j++)
        _mm512_storeu_ps(s + 16 * j, _mm512_mul_ps(_mm512_add_ps(acc[0][j], acc[1][j]), _mm512_set1_ps(a->scale)));
}

/* One row: 64 elements, even and odd positions apart. */
INLINE void values_one(attn_row *row, const float *s, const weighted *w, uint32_t d0) {
    __m512 acc[ONE_SUMS][4];
    UNROLL for (int j = 0; j < 4; j++) {
        acc[0][j] = _mm512_loadu_ps(row->acc + d0 + 16 * j);
        acc[1][j] = _mm512_setzero_ps();
    }
    for (uint32_t p = 0; p < VEC_TILE; p += ONE_SUMS) UNROLL for (uint32_t i = 0; i < ONE_SUMS; i++) {
            const __m512 f = _mm512_set1_ps(s[p + i]);
            fetch_step(w->f);
            UNROLL for (size_t j = 0; j < 4; j++) acc[i][j] =
                _mm512_fmadd_ps(f, load_kv(w->v, (size_t)(p + i) * w->dv + d0 + 16 * j, 16, true), acc[i][j]);
        }
    UNROLL for (int j = 0; j < 4; j++) _mm512_storeu_ps(row->acc + d0 + 16 * j, _mm512_add_ps(acc[0][j], acc[1][j]));
}

/* Several rows are 16 to 24 chains in either order: they stay as they are. */
static void attn_apart(attn_row *rows, uint32_t n_rows, const uint16_t *tile, const uint16_t *next,
                       const attn_shape *a) {
    float s[ROWS_MAX][VEC_TILE];
    fetching f;
    const weighted w = {(const float(*)[VEC_TILE])s, tile + (size_t)VEC_TILE * a->dk, a->dv, 0, VEC_TILE, &f};
    const uint32_t n_groups = (n_rows + ROWS_MAX - 1) / ROWS_MAX;
    for (uint32_t g = 0, at = 0; g < n_groups; g++) {
        const uint32_t end = (uint32_t)((uint64_t)n_rows * (g + 1) / n_groups), n = end - at;
        f = fetch_part((const char *)next, VEC_TILE * ((size_t)a->dk + a->dv) * 2, g, n_groups, a->dk + a->dv);
        if (n == 1)
            scores_one(rows + at, s[0], tile, a, &f);
        else
            scores_together(rows + at, n, s, tile, a, &f, true);
        for (uint32_t r = 0; r < n; r++) avx512_scale(rows[at + r].acc, weigh_apart(&rows[at + r], s[r]), a->dv);
        if (n == 1)
            for (uint32_t d = 0; d < a->dv; d += 64) values_one(rows + at, s[0], &w, d);
        else
            values_together(rows + at, n, &w, true);
        at = end;
    }
}

/* ---- delta rule: each fourth row of the state apart -----------------------------------------------------------------
 */

INLINE __m512 sum_4(const __m512 *s) {
    return _mm512_add_ps(_mm512_add_ps(s[0], s[1]), _mm512_add_ps(s[2], s[3]));
}

INLINE __m512 first_apart(const float *s, const float *k, uint32_t dk) {
    __m512 m[4];
    UNROLL for (int i = 0; i < 4; i++) m[i] = _mm512_setzero_ps();
    for (uint32_t j = 0; j < dk; j += 4, s += 4 * DELTA_LANES)
        UNROLL for (uint32_t i = 0; i < 4; i++) m[i] =
            _mm512_fmadd_ps(_mm512_load_ps(s + i * DELTA_LANES), _mm512_set1_ps(k[j + i]), m[i]);
    return sum_4(m);
}

INLINE __m512 walk_apart(float *s, const float *q, const float *k, const float *next_k, uint32_t dk, __m512 decay,
                         __m512 diff, __m512 *mem, const bool more) {
    __m512 o[4], m[4];
    UNROLL for (int i = 0; i < 4; i++) o[i] = m[i] = _mm512_setzero_ps();
    for (uint32_t j = 0; j < dk; j += 4, s += 4 * DELTA_LANES) UNROLL for (uint32_t i = 0; i < 4; i++) {
            __m512 v = _mm512_fmadd_ps(_mm512_set1_ps(k[j + i]), diff,
                                       _mm512_mul_ps(decay, _mm512_load_ps(s + i * DELTA_LANES)));
            _mm512_store_ps(s + i * DELTA_LANES, v);
            o[i] = _mm512_fmadd_ps(v, _mm512_set1_ps(q[j + i]), o[i]);
            if (more) m[i] = _mm512_fmadd_ps(v, _mm512_set1_ps(next_k[j + i]), m[i]);
        }
    *mem = sum_4(m);
    return sum_4(o);
}

static void delta_apart(const delta_head *h) {
    for (uint32_t c = 0; c < h->dv; c += DELTA_LANES) {
        float *s = h->state + (size_t)c * h->dk;
        __m512 mem = first_apart(s, h->k, h->dk), out;
        for (uint32_t t = 0; t < h->n; t++) {
            const float *q = h->q + t * h->ld_qk, *k = h->k + t * h->ld_qk;
            __m512 decay = _mm512_set1_ps(h->decay[t * h->ld_gates]), beta = _mm512_set1_ps(h->beta[t * h->ld_gates]);
            __m512 diff = _mm512_mul_ps(beta, _mm512_fnmadd_ps(decay, mem, _mm512_loadu_ps(h->v + t * h->ld_v + c)));
            if (t + 1 < h->n)
                out = walk_apart(s, q, k, k + h->ld_qk, h->dk, decay, diff, &mem, true);
            else
                out = walk_apart(s, q, k, k, h->dk, decay, diff, &mem, false);
            _mm512_storeu_ps(h->out + t * h->ld_out + c, out);
        }
    }
}

const free_kernels free_avx512 = {rms_norm, layer_norm, exp_sum, attn_apart, delta_apart};
