/* Norms, sums of exponentials, attention and the delta rule of AVX2. */
#include "engine/kernels/delta.h"
#define vec_avx2 free_own_vec_avx2
#include "engine/kernels/vec_avx2.c"
#undef vec_avx2

#include "determinism.h"

/* One walk, eight sums. */
INLINE float sum_of(addend what, const float *x, uint32_t n, float mean) {
    const __m256 vm = _mm256_set1_ps(mean);
    __m256 s[8];
    UNROLL
    for (int j = 0; j < 8; j++) s[j] = _mm256_setzero_ps();
    for (size_t i = 0; i < n; i += 64) {
        UNROLL
        for (int j = 0; j < 8; j++) s[j] = add_of(what, s[j], _mm256_loadu_ps(x + i + 8 * j), vm);
    }
    UNROLL
    for (int j = 0; j < 4; j++) s[j] = _mm256_add_ps(s[j], s[j + 4]);
    return tree_ps(_mm256_add_ps(_mm256_add_ps(s[0], s[2]), _mm256_add_ps(s[1], s[3])));
}

static void rms_norm(float *y, const float *x, const float *w, uint32_t n, float eps) {
    float f = 1.0f / sqrtf(sum_of(SQUARE, x, n, 0) / (float)n + eps);
    __m256 vf = _mm256_set1_ps(f);
    BY_FOUR
    for (size_t i = 0; i < n; i += 8)
        _mm256_storeu_ps(y + i, _mm256_mul_ps(_mm256_mul_ps(_mm256_loadu_ps(x + i), vf), _mm256_loadu_ps(w + i)));
}

static void layer_norm(float *y, const float *x, const float *w, const float *b, uint32_t n, float eps) {
    float mean = sum_of(ITSELF, x, n, 0) / (float)n;
    float f = 1.0f / sqrtf(sum_of(SQUARE_OFF_MEAN, x, n, mean) / (float)n + eps);
    __m256 vm = _mm256_set1_ps(mean), vf = _mm256_set1_ps(f);
    BY_FOUR
    for (size_t i = 0; i < n; i += 8) {
        __m256 d = _mm256_mul_ps(_mm256_sub_ps(_mm256_loadu_ps(x + i), vm), vf);
        _mm256_storeu_ps(y + i, _mm256_fmadd_ps(d, _mm256_loadu_ps(w + i), _mm256_loadu_ps(b + i)));
    }
}

/* Eight sums instead of two. */
static double exp_sum(float *w, const float *x, float max, float div, size_t n) {
    const __m256 vm = _mm256_set1_ps(max), vd = _mm256_set1_ps(div);
    __m256d s[8];
    UNROLL
    for (int j = 0; j < 8; j++) s[j] = _mm256_setzero_pd();
    for (size_t i = 0; i < n; i += 32) {
        UNROLL
        for (size_t j = 0; j < 4; j++) {
            __m256 e = exp_ps(_mm256_div_ps(_mm256_sub_ps(_mm256_loadu_ps(x + i + 8 * j), vm), vd));
            _mm256_storeu_ps(w + i + 8 * j, e);
            s[2 * j] = _mm256_add_pd(s[2 * j], _mm256_cvtps_pd(_mm256_castps256_ps128(e)));
            s[2 * j + 1] = _mm256_add_pd(s[2 * j + 1], _mm256_cvtps_pd(_mm256_extractf128_ps(e, 1)));
        }
    }
    UNROLL
    for (int j = 0; j < 4; j++) s[j] = _mm256_add_pd(s[j], s[j + 4]);
    double lanes[4];
    _mm256_storeu_pd(lanes, _mm256_add_pd(_mm256_add_pd(s[0], s[1]), _mm256_add_pd(s[2], s[3])));
    return lanes[0] + lanes[1] + lanes[2] + lanes[3];
}

/* ---- attention -------------------------------------------------------------------------------------------------- */

/* As weigh, with four sums of weights. */
INLINE float weigh_apart(attn_row *r, float *s) {
    __m256 vm = _mm256_set1_ps(r->m), sum[4];
    for (int p = 0; p < VEC_TILE; p += 8) vm = _mm256_max_ps(_mm256_loadu_ps(s + p), vm);
    __m128 h = _mm_max_ps(_mm256_castps256_ps128(vm), _mm256_extractf128_ps(vm, 1));
    h = _mm_max_ps(h, _mm_movehl_ps(h, h));
    h = _mm_max_ss(h, _mm_movehdup_ps(h));
    float m = _mm_cvtss_f32(h);
    vm = _mm256_set1_ps(m);
    UNROLL
    for (int j = 0; j < 4; j++) sum[j] = _mm256_setzero_ps();
    for (int p = 0; p < VEC_TILE; p += 32) {
        UNROLL
        for (int j = 0; j < 4; j++) {
            __m256 e = exp_ps(_mm256_sub_ps(_mm256_loadu_ps(s + p + 8 * j), vm));
            _mm256_storeu_ps(s + p + 8 * j, e);
            sum[j] = _mm256_add_ps(sum[j], e);
        }
    }
    float corr = num_exp32(r->m - m);
    r->m = m;
    r->l = fmaf(r->l, corr, tree_ps(_mm256_add_ps(_mm256_add_ps(sum[0], sum[1]), _mm256_add_ps(sum[2], sum[3]))));
    return corr;
}

/* One row: 32 positions, even and odd elements apart. */
INLINE void scores_one(const attn_row *row, float *s, const uint16_t *k, const attn_shape *a, uint32_t p0,
                       fetching *f) {
    __m256 acc[2][4];
    UNROLL
    for (int j = 0; j < 4; j++) acc[0][j] = acc[1][j] = _mm256_setzero_ps();
    for (uint32_t d = 0; d < a->dk; d += 2) {
        UNROLL
        for (uint32_t i = 0; i < 2; i++) {
            fetch_step(f);
            __m256 q = _mm256_broadcast_ss(row->q + d + i);
            UNROLL
            for (size_t j = 0; j < 4; j++)
                acc[i][j] = _mm256_fmadd_ps(q, load_kv(k, (size_t)(d + i) * VEC_TILE + p0 + 8 * j, true), acc[i][j]);
        }
    }
    UNROLL
    for (int j = 0; j < 4; j++)
        _mm256_storeu_ps(s + p0 + 8 * j, _mm256_mul_ps(_mm256_add_ps(acc[0][j], acc[1][j]), _mm256_set1_ps(a->scale)));
}

/* One row: 32 elements, even and odd positions apart. */
INLINE void values_one(attn_row *row, const float *s, weighted w, uint32_t d0) {
    __m256 acc[2][4];
    UNROLL
    for (int j = 0; j < 4; j++) {
        acc[0][j] = _mm256_loadu_ps(row->acc + d0 + 8 * j);
        acc[1][j] = _mm256_setzero_ps();
    }
    for (uint32_t p = 0; p < VEC_TILE; p += 2) {
        UNROLL
        for (uint32_t i = 0; i < 2; i++) {
            fetch_step(w.f);
            __m256 f = _mm256_broadcast_ss(s + p + i);
            UNROLL
            for (size_t j = 0; j < 4; j++)
                acc[i][j] = _mm256_fmadd_ps(f, load_kv(w.v, (size_t)(p + i) * w.dv + d0 + 8 * j, true), acc[i][j]);
        }
    }
    UNROLL
    for (int j = 0; j < 4; j++) _mm256_storeu_ps(row->acc + d0 + 8 * j, _mm256_add_ps(acc[0][j], acc[1][j]));
}

/* Rows by fours are 12 chains in either order: they stay as they are. */
static void attn_apart(attn_row *rows, uint32_t n_rows, const uint16_t *tile, const uint16_t *next,
                       const attn_shape *a) {
    float s[ROWS_MAX][VEC_TILE];
    fetching f;
    const weighted w = {(const float(*)[VEC_TILE])s, tile + (size_t)VEC_TILE * a->dk, a->dv, &f};
    uint32_t n_groups = (n_rows + ROWS_MAX - 1) / ROWS_MAX;
    for (uint32_t g = 0; g < n_groups; g++, rows += ROWS_MAX) {
        f = fetch_part((const char *)next, VEC_TILE * ((size_t)a->dk + a->dv) * 2, g, n_groups, 2 * (a->dk + a->dv));
        if (n_rows == 1) {
            for (uint32_t p = 0; p < VEC_TILE; p += 32) scores_one(rows, s[0], tile, a, p, &f);
            avx2_scale(rows->acc, weigh_apart(rows, s[0]), a->dv);
            for (uint32_t d = 0; d < a->dv; d += 32) values_one(rows, s[0], w, d);
            continue;
        }
        scores(rows, ROWS_MAX, s, tile, a, &f, true);
        for (uint32_t r = 0; r < ROWS_MAX; r++) avx2_scale(rows[r].acc, weigh_apart(&rows[r], s[r]), a->dv);
        values(rows, ROWS_MAX, w, true);
    }
}

/* ---- delta rule: even and odd rows of the state apart ------------------------------------------------------------ */

INLINE void first_apart(const float *s, const float *k, uint32_t dk, __m256 *mem) {
    __m256 m[2][2] = {{_mm256_setzero_ps(), _mm256_setzero_ps()}, {_mm256_setzero_ps(), _mm256_setzero_ps()}};
    for (uint32_t j = 0; j < dk; j += 2, s += 2 * DELTA_LANES) {
        UNROLL
        for (int i = 0; i < 4; i++)
            m[i / 2][i % 2] = _mm256_fmadd_ps(_mm256_load_ps(s + 8 * i), _mm256_broadcast_ss(k + j + (uint32_t)i / 2),
                                              m[i / 2][i % 2]);
    }
    UNROLL
    for (int i = 0; i < 2; i++) mem[i] = _mm256_add_ps(m[0][i], m[1][i]);
}

INLINE void walk_apart(float *s, const float *q, const float *k, const float *next_k, uint32_t dk, __m256 decay,
                       const __m256 *diff, __m256 *out, __m256 *mem, const bool more) {
    const __m256 zero = _mm256_setzero_ps();
    __m256 o[2][2] = {{zero, zero}, {zero, zero}}, m[2][2] = {{zero, zero}, {zero, zero}};
    for (uint32_t j = 0; j < dk; j += 2, s += 2 * DELTA_LANES) {
        UNROLL
        for (int i = 0; i < 4; i++) {
            const uint32_t at = j + (uint32_t)i / 2;
            __m256 v = _mm256_fmadd_ps(_mm256_broadcast_ss(k + at), diff[i % 2],
                                       _mm256_mul_ps(decay, _mm256_load_ps(s + 8 * i)));
            _mm256_store_ps(s + 8 * i, v);
            o[i / 2][i % 2] = _mm256_fmadd_ps(v, _mm256_broadcast_ss(q + at), o[i / 2][i % 2]);
            if (more) m[i / 2][i % 2] = _mm256_fmadd_ps(v, _mm256_broadcast_ss(next_k + at), m[i / 2][i % 2]);
        }
    }
    UNROLL
    for (int i = 0; i < 2; i++) {
        out[i] = _mm256_add_ps(o[0][i], o[1][i]);
        mem[i] = _mm256_add_ps(m[0][i], m[1][i]);
    }
}

static void delta_apart(const delta_head *h) {
    for (uint32_t c = 0; c < h->dv; c += DELTA_LANES) {
        float *s = h->state + (size_t)c * h->dk;
        __m256 mem[2], out[2], diff[2];
        first_apart(s, h->k, h->dk, mem);
        for (uint32_t t = 0; t < h->n; t++) {
            const float *q = h->q + t * h->ld_qk, *k = h->k + t * h->ld_qk, *v = h->v + t * h->ld_v + c;
            __m256 decay = _mm256_broadcast_ss(h->decay + t * h->ld_gates);
            __m256 beta = _mm256_broadcast_ss(h->beta + t * h->ld_gates);
            UNROLL
            for (int i = 0; i < 2; i++)
                diff[i] = _mm256_mul_ps(beta, _mm256_fnmadd_ps(decay, mem[i], _mm256_loadu_ps(v + 8 * i)));
            if (t + 1 < h->n)
                walk_apart(s, q, k, k + h->ld_qk, h->dk, decay, diff, out, mem, true);
            else
                walk_apart(s, q, k, k, h->dk, decay, diff, out, mem, false);
            UNROLL
            for (int i = 0; i < 2; i++) _mm256_storeu_ps(h->out + t * h->ld_out + c + 8 * i, out[i]);
        }
    }
}

const free_kernels free_avx2 = {rms_norm, layer_norm, exp_sum, attn_apart, delta_apart};
