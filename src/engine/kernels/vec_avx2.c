/* vec.h with AVX2 and FMA. Operation by operation the same as vec_scalar.c and num.h: only the grouping of independent
 * results into registers differs. */
#include "engine/kernels/fetch.h"
#include "engine/kernels/inline.h"
#include "engine/kernels/vec.h"

#include "engine/num.h"

#include <immintrin.h>
#include <stdbool.h>

#define ROWS_MAX 4
#ifdef __clang__
#define BY_FOUR _Pragma("unroll(4)")
#else
#define BY_FOUR _Pragma("GCC unroll 4") /* a loop so short that its speed hangs on where it is placed */
#endif

/* num_exp32 */
INLINE __m256 exp_ps(__m256 x) {
    const __m256 lo = _mm256_set1_ps(NUM_EXP32_LO), magic = _mm256_set1_ps(NUM_ROUND_MAGIC);
    __m256 c = _mm256_max_ps(lo, x); /* both give the second operand where one is a NaN */
    c = _mm256_min_ps(_mm256_set1_ps(NUM_EXP32_HI), c);
    __m256 z = _mm256_fmadd_ps(c, _mm256_set1_ps(NUM_EXP32_LOG2E), magic);
    __m256 n = _mm256_sub_ps(z, magic);
    __m256 r = _mm256_fmadd_ps(n, _mm256_set1_ps(-NUM_EXP32_LN2_HI), c);
    r = _mm256_fmadd_ps(n, _mm256_set1_ps(-NUM_EXP32_LN2_LO), r);
    __m256 p = _mm256_fmadd_ps(r, _mm256_set1_ps(1.0f / 5040), _mm256_set1_ps(1.0f / 720));
    p = _mm256_fmadd_ps(r, p, _mm256_set1_ps(1.0f / 120));
    p = _mm256_fmadd_ps(r, p, _mm256_set1_ps(1.0f / 24));
    p = _mm256_fmadd_ps(r, p, _mm256_set1_ps(1.0f / 6));
    p = _mm256_fmadd_ps(r, p, _mm256_set1_ps(0.5f));
    p = _mm256_fmadd_ps(r, p, _mm256_set1_ps(1.0f));
    p = _mm256_fmadd_ps(r, p, _mm256_set1_ps(1.0f));
    __m256i k = _mm256_sub_epi32(_mm256_castps_si256(z), _mm256_castps_si256(magic));
    __m256i k1 = _mm256_srai_epi32(k, 1), k2 = _mm256_sub_epi32(k, k1), bias = _mm256_set1_epi32(127);
    p = _mm256_mul_ps(p, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(k1, bias), 23)));
    p = _mm256_mul_ps(p, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(k2, bias), 23)));
    return _mm256_andnot_ps(_mm256_cmp_ps(x, lo, _CMP_LT_OQ), p);
}

/* ((0+4)+(2+6)) + ((1+5)+(3+7)) */
INLINE float tree_ps(__m256 s) {
    __m128 a = _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
    a = _mm_add_ps(a, _mm_movehl_ps(a, a));
    return _mm_cvtss_f32(_mm_add_ss(a, _mm_movehdup_ps(a)));
}

/* All ones in the first n lanes. */
INLINE __m256i lanes_below(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

/* What a norm adds up of an element v. */
typedef enum addend {
    SQUARE,
    ITSELF,
    SQUARE_OFF_MEAN, /* (v - mean)^2 */
} addend;

INLINE __m256 add_of(addend what, __m256 s, __m256 v, __m256 mean) {
    if (what == ITSELF) return _mm256_add_ps(s, v);
    if (what == SQUARE_OFF_MEAN) v = _mm256_sub_ps(v, mean);
    return _mm256_fmadd_ps(v, v, s);
}

/* Lanes [first, first + 64) of the sum over n elements, a multiple of 128: eight registers, for two multiply-adds a
 * cycle of four cycles each. */
INLINE void sum_64(addend what, __m256 *sums, const float *x, size_t n, size_t first, __m256 mean) {
    __m256 s[8];
    UNROLL
    for (int j = 0; j < 8; j++) s[j] = _mm256_setzero_ps();
    for (size_t i = first; i < n; i += VEC_LANES) {
        UNROLL
        for (int j = 0; j < 8; j++) s[j] = add_of(what, s[j], _mm256_loadu_ps(x + i + 8 * j), mean);
    }
    UNROLL
    for (int j = 0; j < 8; j++) sums[j] = s[j];
}
/* All lanes: additions read memory, so 16 sums fit, and one walk does. */
INLINE void add_128(__m256 *sums, const float *x, size_t n) {
    __m256 s[8], t[8];
    UNROLL
    for (int j = 0; j < 8; j++) s[j] = t[j] = _mm256_setzero_ps();
    for (size_t i = 0; i < n; i += VEC_LANES) {
        UNROLL
        for (int j = 0; j < 8; j++) s[j] = _mm256_add_ps(s[j], _mm256_loadu_ps(x + i + 8 * j));
        UNROLL
        for (int j = 0; j < 8; j++) t[j] = _mm256_add_ps(t[j], _mm256_loadu_ps(x + i + 64 + 8 * j));
    }
    UNROLL
    for (int j = 0; j < 8; j++) sums[j] = s[j], sums[j + 8] = t[j];
}

/* The last elements, fewer than lanes: one without an element keeps its sum. In a copy of the sums, for whole lanes are
 * the rule and stay in registers. */
INLINE void sum_rest(addend what, __m256 *sums, const float *x, uint32_t n, __m256 mean) {
    __m256 s[16];
    memcpy(s, sums, sizeof s);
    for (uint32_t i = 0; i < n; i += 8) {
        __m256i there = lanes_below((int)(n - i));
        __m256 t = add_of(what, s[i / 8], _mm256_maskload_ps(x + i, there), mean);
        s[i / 8] = _mm256_blendv_ps(s[i / 8], t, _mm256_castsi256_ps(there));
    }
    memcpy(sums, s, sizeof s);
}

/* The sum of a norm in 128 lanes; of squares by two walks, for the registers hold 64. */
INLINE float norm_sum(addend what, const float *x, uint32_t n, float mean) {
    const __m256 vm = _mm256_set1_ps(mean);
    const uint32_t whole = n - n % VEC_LANES;
    __m256 s[16];
    if (what == ITSELF) {
        add_128(s, x, whole);
    } else {
        sum_64(what, s, x, whole, 0, vm);
        sum_64(what, s + 8, x, whole, 64, vm);
    }
    if (whole < n) sum_rest(what, s, x + whole, n - whole, vm);
    UNROLL
    for (int j = 0; j < 8; j++) s[j] = _mm256_add_ps(s[j], s[j + 8]);
    UNROLL
    for (int j = 0; j < 4; j++) s[j] = _mm256_add_ps(s[j], s[j + 4]);
    return tree_ps(_mm256_add_ps(_mm256_add_ps(s[0], s[2]), _mm256_add_ps(s[1], s[3])));
}

static void avx2_rms_norm(float *y, const float *x, const float *w, uint32_t n, float eps) {
    float f = 1.0f / sqrtf(norm_sum(SQUARE, x, n, 0) / (float)n + eps);
    __m256 vf = _mm256_set1_ps(f);
    const size_t whole = n - n % 8;
    BY_FOUR
    for (size_t i = 0; i < whole; i += 8)
        _mm256_storeu_ps(y + i, _mm256_mul_ps(_mm256_mul_ps(_mm256_loadu_ps(x + i), vf), _mm256_loadu_ps(w + i)));
    for (size_t i = whole; i < n; i++) y[i] = x[i] * f * w[i];
}

static void avx2_rope_pairs(float *x, const float *cc, const float *ss, uint32_t n) {
    uint32_t i = 0;
    for (; i + 8 <= n; i += 8) {
        __m256 v = _mm256_loadu_ps(x + i), swapped = _mm256_permute_ps(v, 0xB1);
        __m256 t = _mm256_mul_ps(swapped, _mm256_loadu_ps(ss + i));
        _mm256_storeu_ps(x + i, _mm256_fmadd_ps(v, _mm256_loadu_ps(cc + i), t));
    }
    for (; i + 1 < n; i += 2) {
        float a = x[i], b = x[i + 1];
        x[i] = fmaf(a, cc[i], b * ss[i]);
        x[i + 1] = fmaf(b, cc[i + 1], a * ss[i + 1]);
    }
}

static void avx2_rope_halves(float *x, const float *cc, const float *ss, uint32_t n) {
    uint32_t h = n / 2, i = 0;
    for (; i + 8 <= h; i += 8) {
        __m256 a = _mm256_loadu_ps(x + i), b = _mm256_loadu_ps(x + h + i);
        __m256 ta = _mm256_mul_ps(b, _mm256_loadu_ps(ss + i)), tb = _mm256_mul_ps(a, _mm256_loadu_ps(ss + h + i));
        _mm256_storeu_ps(x + i, _mm256_fmadd_ps(a, _mm256_loadu_ps(cc + i), ta));
        _mm256_storeu_ps(x + h + i, _mm256_fmadd_ps(b, _mm256_loadu_ps(cc + h + i), tb));
    }
    for (; i < h; i++) {
        float a = x[i], b = x[i + h];
        x[i] = fmaf(a, cc[i], b * ss[i]);
        x[i + h] = fmaf(b, cc[i + h], a * ss[i + h]);
    }
}

static void avx2_layer_norm(float *y, const float *x, const float *w, const float *b, uint32_t n, float eps) {
    float mean = norm_sum(ITSELF, x, n, 0) / (float)n;
    float f = 1.0f / sqrtf(norm_sum(SQUARE_OFF_MEAN, x, n, mean) / (float)n + eps);
    __m256 vm = _mm256_set1_ps(mean), vf = _mm256_set1_ps(f);
    const size_t whole = n - n % 8;
    BY_FOUR
    for (size_t i = 0; i < whole; i += 8) {
        __m256 d = _mm256_mul_ps(_mm256_sub_ps(_mm256_loadu_ps(x + i), vm), vf);
        _mm256_storeu_ps(y + i, _mm256_fmadd_ps(d, _mm256_loadu_ps(w + i), _mm256_loadu_ps(b + i)));
    }
    for (size_t i = whole; i < n; i++) y[i] = fmaf((x[i] - mean) * f, w[i], b[i]);
}

/* num_tanh32 */
INLINE __m256 tanh_ps(__m256 x) {
    const __m256 one = _mm256_set1_ps(1.0f), two = _mm256_set1_ps(2.0f);
    return _mm256_sub_ps(one, _mm256_div_ps(two, _mm256_add_ps(one, exp_ps(_mm256_mul_ps(two, x)))));
}

/* num_to_half: the clamp keeps a NaN, as its operand comes second. */
INLINE __m128i to_half_ps(__m256 x) {
    x = _mm256_min_ps(_mm256_set1_ps(NUM_HALF_MAX), x);
    x = _mm256_max_ps(_mm256_set1_ps(-NUM_HALF_MAX), x);
    return _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

static void avx2_to_half(uint16_t *y, const float *x, size_t n) {
    size_t i = 0;
    for (; i + 8 <= n; i += 8) _mm_storeu_si128((__m128i *)(void *)(y + i), to_half_ps(_mm256_loadu_ps(x + i)));
    for (; i < n; i++) y[i] = num_to_half(x[i]);
}

/* Eight elements of K or V from the i-th on; `half` is a constant wherever these are inlined. */
INLINE __m256 load_kv(const void *p, size_t i, const bool half) {
    if (half) return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)((const uint16_t *)p + i)));
    return _mm256_loadu_ps((const float *)p + i);
}
INLINE float one_kv(const void *p, size_t i, const bool half) {
    return half ? num_from_half(((const uint16_t *)p)[i]) : ((const float *)p)[i];
}

/* Scores of R rows for NV * 8 positions from p0: R * NV chains in registers, 8 at least (two multiply-adds a cycle, of
 * four cycles each), 12 at most. */
INLINE void scores_block(const attn_row *rows, float (*s)[VEC_TILE], const void *k, uint32_t dk, uint32_t p0,
                         float scale, fetching *f, const int R, const int NV, const bool half) {
    __m256 acc[12];
    UNROLL
    for (int i = 0; i < R * NV; i++) acc[i] = _mm256_setzero_ps();
    for (uint32_t d = 0; d < dk; d++) {
        size_t at = (size_t)d * VEC_TILE + p0;
        __m256 kv[8];
        fetch_step(f);
        UNROLL
        for (int j = 0; j < NV; j++) kv[j] = load_kv(k, at + 8 * (size_t)j, half);
        UNROLL
        for (int r = 0; r < R; r++) {
            __m256 q = _mm256_broadcast_ss(rows[r].q + d);
            UNROLL
            for (int j = 0; j < NV; j++) acc[r * NV + j] = _mm256_fmadd_ps(q, kv[j], acc[r * NV + j]);
        }
    }
    __m256 sc = _mm256_set1_ps(scale);
    UNROLL
    for (int r = 0; r < R; r++) {
        UNROLL
        for (int j = 0; j < NV; j++) _mm256_storeu_ps(s[r] + p0 + 8 * j, _mm256_mul_ps(acc[r * NV + j], sc));
    }
}

/* Positions past the last valid one are computed and never used: lanes do not touch each other. */
INLINE void scores(const attn_row *rows, uint32_t n_rows, float (*s)[VEC_TILE], const void *k, const attn_shape *a,
                   fetching *f, const bool half) {
    uint32_t most = 0;
    for (uint32_t r = 0; r < n_rows; r++) most = rows[r].n_valid > most ? rows[r].n_valid : most;
    if (n_rows == 4) {
        uint32_t p = 0;
        for (; p < most && p < 48; p += 24) scores_block(rows, s, k, a->dk, p, a->scale, f, 4, 3, half);
        if (p < most) scores_block(rows, s, k, a->dk, p, a->scale, f, 4, 2, half);
    }
    if (n_rows == 2 || n_rows == 3)
        for (uint32_t p = 0; p < most; p += 32) scores_block(rows, s, k, a->dk, p, a->scale, f, 2, 4, half);
    if (n_rows & 1) scores_block(rows + n_rows - 1, s + n_rows - 1, k, a->dk, 0, a->scale, f, 1, 8, half);
}

/* All ones in the lanes of [p, p + 8) that lie in [first, n). */
INLINE __m256 lanes_seen(int p, int first, int n) {
    return _mm256_castsi256_ps(_mm256_andnot_si256(lanes_below(first - p), lanes_below(n - p)));
}

/* Scores to weights; returns the factor for what was summed before. whole: the row sees all of the tile. */
INLINE float weigh_tile(attn_row *r, float *s, float cap, const bool whole) {
    const __m256 low = _mm256_set1_ps(-INFINITY), vc = _mm256_set1_ps(cap);
    const int n = whole ? VEC_TILE : (int)r->n_valid, first = whole ? 0 : (int)r->first;
    __m256 vm = _mm256_set1_ps(r->m);
    for (int p = first & ~7; p < n; p += 8) {
        __m256 v = _mm256_loadu_ps(s + p);
        if (cap != 0) {
            v = _mm256_mul_ps(vc, tanh_ps(_mm256_div_ps(v, vc)));
            _mm256_storeu_ps(s + p, v);
        }
        vm = _mm256_max_ps(whole ? v : _mm256_blendv_ps(low, v, lanes_seen(p, first, n)), vm);
    }
    __m128 h = _mm_max_ps(_mm256_castps256_ps128(vm), _mm256_extractf128_ps(vm, 1));
    h = _mm_max_ps(h, _mm_movehl_ps(h, h));
    h = _mm_max_ss(h, _mm_movehdup_ps(h));
    float m = _mm_cvtss_f32(h);
    vm = _mm256_set1_ps(m);
    __m256 sum = _mm256_setzero_ps();
    for (int p = first & ~7; p < n; p += 8) {
        __m256 e = exp_ps(_mm256_sub_ps(_mm256_loadu_ps(s + p), vm));
        if (!whole) e = _mm256_and_ps(e, lanes_seen(p, first, n)); /* adding 0 changes no sum of weights */
        _mm256_storeu_ps(s + p, e);
        sum = _mm256_add_ps(sum, e);
    }
    float corr = num_exp32(r->m - m);
    r->m = m;
    r->l = fmaf(r->l, corr, tree_ps(sum));
    return corr;
}

INLINE float weigh(attn_row *r, float *s, float cap) {
    if (r->first == 0 && r->n_valid == VEC_TILE) return weigh_tile(r, s, cap, true);
    return weigh_tile(r, s, cap, false);
}

/* Values of a tile and the weights of rows: acc += s v over positions [p0, p1). */
typedef struct weighted {
    const float (*s)[VEC_TILE];
    const void *v;
    uint32_t dv;
    fetching *f;
} weighted;

/* acc[d0 … d0 + 8 NV) of R rows. */
INLINE void values_block(attn_row *rows, weighted w, uint32_t d0, uint32_t p0, uint32_t p1, const int R, const int NV,
                         const bool half) {
    __m256 acc[12];
    UNROLL
    for (int i = 0; i < R * NV; i++) acc[i] = _mm256_loadu_ps(rows[i / NV].acc + d0 + 8 * (i % NV));
    for (uint32_t p = p0; p < p1; p++) {
        size_t at = (size_t)p * w.dv + d0;
        __m256 vv[8];
        fetch_step(w.f);
        UNROLL
        for (int j = 0; j < NV; j++) vv[j] = load_kv(w.v, at + 8 * (size_t)j, half);
        UNROLL
        for (int r = 0; r < R; r++) {
            __m256 f = _mm256_broadcast_ss(&w.s[r][p]);
            UNROLL
            for (int j = 0; j < NV; j++) acc[r * NV + j] = _mm256_fmadd_ps(f, vv[j], acc[r * NV + j]);
        }
    }
    UNROLL
    for (int i = 0; i < R * NV; i++) _mm256_storeu_ps(rows[i / NV].acc + d0 + 8 * (i % NV), acc[i]);
}

INLINE void values_rows(attn_row *rows, weighted w, uint32_t p0, uint32_t p1, const int R, const bool half) {
    uint32_t d = 0, dv = w.dv;
    if (R == 1)
        for (; d + 64 <= dv; d += 64) values_block(rows, w, d, p0, p1, 1, 8, half);
    if (R <= 2)
        for (; d + 32 <= dv; d += 32) values_block(rows, w, d, p0, p1, R, 4, half);
    if (R == 4)
        for (; d + 24 <= dv && dv - d != 32; d += 24) values_block(rows, w, d, p0, p1, 4, 3, half);
    for (; d + 16 <= dv; d += 16) values_block(rows, w, d, p0, p1, R, 2, half);
    for (; d + 8 <= dv; d += 8) values_block(rows, w, d, p0, p1, R, 1, half);
    for (; d < dv; d++) {
        for (int r = 0; r < R; r++) {
            float a = rows[r].acc[d];
            for (uint32_t p = p0; p < p1; p++) a = fmaf(w.s[r][p], one_kv(w.v, (size_t)p * dv + d, half), a);
            rows[r].acc[d] = a;
        }
    }
}

/* Of one row among several: w.s begins with its weights. */
static void values_1(attn_row *rows, weighted w, uint32_t r, uint32_t p0, uint32_t p1, bool half) {
    w.s += r;
    if (half)
        values_rows(rows + r, w, p0, p1, 1, true);
    else
        values_rows(rows + r, w, p0, p1, 1, false);
}

/* Positions that all rows see together, before them and after them each row's rest alone: a weight of 0 times garbage
 * must not happen, and each row adds in increasing order. */
INLINE void values(attn_row *rows, uint32_t n_rows, weighted w, const bool half) {
    uint32_t from = 0, to = VEC_TILE;
    for (uint32_t r = 0; r < n_rows; r++) {
        to = rows[r].n_valid < to ? rows[r].n_valid : to;
        from = rows[r].first > from ? rows[r].first : from;
    }
    if (from > to) from = to;
    for (uint32_t r = 0; r < n_rows; r++)
        if (rows[r].first < from) values_1(rows, w, r, rows[r].first, from, half);
    if (from < to) {
        if (n_rows == 4)
            values_rows(rows, w, from, to, 4, half);
        else if (n_rows >= 2)
            values_rows(rows, w, from, to, 2, half);
        if (n_rows & 1) values_1(rows, w, n_rows - 1, from, to, half);
    }
    for (uint32_t r = 0; r < n_rows; r++) {
        uint32_t at = rows[r].first > to ? rows[r].first : to;
        if (rows[r].n_valid > at) values_1(rows, w, r, at, rows[r].n_valid, half);
    }
}

static void avx2_scale(float *x, float f, size_t n) {
    __m256 vf = _mm256_set1_ps(f);
    size_t i = 0;
    for (; i + 8 <= n; i += 8) _mm256_storeu_ps(x + i, _mm256_mul_ps(_mm256_loadu_ps(x + i), vf));
    for (; i < n; i++) x[i] *= f;
}

INLINE void attn_tile(attn_row *rows, uint32_t n_rows, const void *tile, const void *next, const attn_shape *a,
                      const bool half) {
    float s[ROWS_MAX][VEC_TILE];
    size_t size = half ? sizeof(uint16_t) : sizeof(float);
    fetching f;
    const weighted w = {(const float(*)[VEC_TILE])s, (const char *)tile + VEC_TILE * a->dk * size, a->dv, &f};
    uint32_t n_groups = (n_rows + ROWS_MAX - 1) / ROWS_MAX;
    for (uint32_t g = 0; g < n_groups; g++) {
        uint32_t n = n_rows < ROWS_MAX ? n_rows : ROWS_MAX;
        uint32_t steps = n == 1 ? a->dk + a->dv : 2 * (a->dk + a->dv); /* as registers hold 64, 32, 24 of a row */
        f = fetch_part(next, VEC_TILE * ((size_t)a->dk + a->dv) * size, g, n_groups, steps);
        scores(rows, n, s, tile, a, &f, half);
        for (uint32_t r = 0; r < n; r++) avx2_scale(rows[r].acc, weigh(&rows[r], s[r], a->cap), a->dv);
        values(rows, n, w, half);
        rows += n;
        n_rows -= n;
    }
}

static void avx2_attn_tile(attn_row *rows, uint32_t n_rows, const uint16_t *tile, const uint16_t *next,
                           const attn_shape *a) {
    attn_tile(rows, n_rows, tile, next, a, true);
}

/* Eight elements of a tile of int8 times their scales. */
INLINE void expand_8(uint16_t *to, const int8_t *q, __m256 scale) {
    __m256i i = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)q));
    __m256 x = _mm256_mul_ps(scale, _mm256_cvtepi32_ps(i));
    _mm_storeu_si128((__m128i *)(void *)to, _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

static void avx2_kv8_expand(uint16_t *tile, const void *from, const void *next, uint32_t dk, uint32_t dv) {
    const char *base = from;
    fetching f = fetch_part(next, kv8_bytes(dk, dv), 0, 1, dk + VEC_TILE);
    const int8_t *q = from;
    const uint16_t *ks = (const uint16_t *)(const void *)(base + kv8_k_scales_at(dk, dv)),
                   *vs = (const uint16_t *)(const void *)(base + kv8_v_scales_at(dk, dv));
    for (uint32_t d = 0; d < dk; ks += VEC_TILE) {
        __m256 scale[VEC_TILE / 8];
        UNROLL
        for (int j = 0; j < VEC_TILE / 8; j++)
            scale[j] = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(ks + 8 * j)));
        for (uint32_t stop = d + KV8_BLOCK < dk ? d + KV8_BLOCK : dk; d < stop; d++, q += VEC_TILE, tile += VEC_TILE) {
            fetch_step(&f);
            UNROLL
            for (int j = 0; j < VEC_TILE / 8; j++) expand_8(tile + 8 * j, q + 8 * j, scale[j]);
        }
    }
    for (uint32_t p = 0; p < VEC_TILE; p++, q += dv, tile += dv) {
        fetch_step(&f);
        for (uint32_t d = 0; d < dv; vs++) {
            __m256 scale = _mm256_cvtph_ps(_mm_set1_epi16((short)*vs));
            uint32_t stop = d + KV8_BLOCK < dv ? d + KV8_BLOCK : dv;
            for (; d + 8 <= stop; d += 8) expand_8(tile + d, q + d, scale);
            for (; d < stop; d++) tile[d] = num_to_half(num_from_half(*vs) * (float)q[d]);
        }
    }
}

static void avx2_attn_tile_f32(attn_row *rows, uint32_t n_rows, const float *tile, const float *next,
                               const attn_shape *a) {
    attn_tile(rows, n_rows, tile, next, a, false);
}

static void avx2_swiglu(float *gate, const float *up, size_t n) {
    const __m256 one = _mm256_set1_ps(1.0f), sign = _mm256_set1_ps(-0.0f);
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        __m256 g = _mm256_loadu_ps(gate + i);
        __m256 d = _mm256_add_ps(one, exp_ps(_mm256_xor_ps(g, sign)));
        _mm256_storeu_ps(gate + i, _mm256_mul_ps(_mm256_div_ps(g, d), _mm256_loadu_ps(up + i)));
    }
    for (; i < n; i++) gate[i] = num_silu32(gate[i]) * up[i];
}

/* num_gelu32 */
INLINE __m256 gelu_ps(__m256 x) {
    __m256 u = _mm256_fmadd_ps(_mm256_mul_ps(x, x), _mm256_mul_ps(_mm256_set1_ps(NUM_GELU_A), x), x);
    __m256 d = _mm256_add_ps(_mm256_set1_ps(1.0f), exp_ps(_mm256_mul_ps(_mm256_set1_ps(NUM_GELU_B), u)));
    return _mm256_div_ps(x, d);
}

static void avx2_geglu(float *gate, const float *up, size_t n) {
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(gate + i, _mm256_mul_ps(gelu_ps(_mm256_loadu_ps(gate + i)), _mm256_loadu_ps(up + i)));
    for (; i < n; i++) gate[i] = num_gelu32(gate[i]) * up[i];
}

static void avx2_gelu(float *x, size_t n) {
    size_t i = 0;
    for (; i + 8 <= n; i += 8) _mm256_storeu_ps(x + i, gelu_ps(_mm256_loadu_ps(x + i)));
    for (; i < n; i++) x[i] = num_gelu32(x[i]);
}

/* Where a comparison of vec_swiglu_clamped fails (a NaN), it takes the bound; so do minps and maxps. */
static void avx2_swiglu_clamped(float *gate, const float *up, size_t n) {
    const __m256 one = _mm256_set1_ps(1.0f), hi = _mm256_set1_ps(7.0f), lo = _mm256_set1_ps(-7.0f);
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        __m256 g = _mm256_min_ps(_mm256_loadu_ps(gate + i), hi);
        __m256 u = _mm256_max_ps(_mm256_min_ps(_mm256_loadu_ps(up + i), hi), lo);
        __m256 d = _mm256_add_ps(one, exp_ps(_mm256_mul_ps(_mm256_set1_ps(-1.702f), g)));
        _mm256_storeu_ps(gate + i, _mm256_mul_ps(_mm256_div_ps(g, d), _mm256_add_ps(u, one)));
    }
    for (; i < n; i++) gate[i] = vec_swiglu_clamped(gate[i], up[i]);
}

static void avx2_sigmoid_gate(float *x, const float *gate, size_t n) {
    const __m256 one = _mm256_set1_ps(1.0f), sign = _mm256_set1_ps(-0.0f);
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        __m256 d = _mm256_add_ps(one, exp_ps(_mm256_xor_ps(_mm256_loadu_ps(gate + i), sign)));
        _mm256_storeu_ps(x + i, _mm256_mul_ps(_mm256_loadu_ps(x + i), _mm256_div_ps(one, d)));
    }
    for (; i < n; i++) x[i] *= num_sigmoid32(gate[i]);
}

static void avx2_soft_cap(float *x, float cap, size_t n) {
    const __m256 vc = _mm256_set1_ps(cap);
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(x + i, _mm256_mul_ps(vc, tanh_ps(_mm256_div_ps(_mm256_loadu_ps(x + i), vc))));
    for (; i < n; i++) x[i] = cap * num_tanh32(x[i] / cap);
}

static void avx2_mul_add(float *y, const float *x, float f, size_t n) {
    const __m256 vf = _mm256_set1_ps(f);
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(y + i, _mm256_fmadd_ps(vf, _mm256_loadu_ps(x + i), _mm256_loadu_ps(y + i)));
    for (; i < n; i++) y[i] = fmaf(f, x[i], y[i]);
}

static void avx2_add(float *x, const float *y, size_t n) {
    size_t i = 0;
    for (; i + 8 <= n; i += 8) _mm256_storeu_ps(x + i, _mm256_add_ps(_mm256_loadu_ps(x + i), _mm256_loadu_ps(y + i)));
    for (; i < n; i++) x[i] += y[i];
}

static double avx2_exp_sum(float *w, const float *x, float max, float div, size_t n) {
    const __m256 vm = _mm256_set1_ps(max), vd = _mm256_set1_ps(div);
    __m256d lo = _mm256_setzero_pd(), hi = _mm256_setzero_pd();
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        __m256 e = exp_ps(_mm256_div_ps(_mm256_sub_ps(_mm256_loadu_ps(x + i), vm), vd));
        _mm256_storeu_ps(w + i, e);
        lo = _mm256_add_pd(lo, _mm256_cvtps_pd(_mm256_castps256_ps128(e)));
        hi = _mm256_add_pd(hi, _mm256_cvtps_pd(_mm256_extractf128_ps(e, 1)));
    }
    double s[8];
    _mm256_storeu_pd(s, lo);
    _mm256_storeu_pd(s + 4, hi);
    for (size_t j = 0; i < n; i++, j++) {
        w[i] = num_exp32((x[i] - max) / div);
        s[j] += (double)w[i];
    }
    return vec_tree64(s);
}

const vec_kernels vec_avx2 = {
    .name = "avx2",
    .rms_norm = avx2_rms_norm,
    .rope_pairs = avx2_rope_pairs,
    .rope_halves = avx2_rope_halves,
    .layer_norm = avx2_layer_norm,
    .to_half = avx2_to_half,
    .attn_tile = avx2_attn_tile,
    .kv8_expand = avx2_kv8_expand,
    .attn_tile_f32 = avx2_attn_tile_f32,
    .swiglu = avx2_swiglu,
    .geglu = avx2_geglu,
    .gelu = avx2_gelu,
    .swiglu_clamped = avx2_swiglu_clamped,
    .sigmoid_gate = avx2_sigmoid_gate,
    .soft_cap = avx2_soft_cap,
    .add = avx2_add,
    .scale = avx2_scale,
    .mul_add = avx2_mul_add,
    .exp_sum = avx2_exp_sum,
};
