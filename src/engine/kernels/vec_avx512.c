/* vec.h with AVX-512. Operation by operation the same as vec_scalar.c and num.h: only the grouping of independent
 * results into registers differs. Rotations, a few registers long, are those of vec_avx2.c. */
#include "engine/kernels/fetch.h"
#include "engine/kernels/vec.h"

#include "engine/kernels/avx512.h"
#include "engine/num.h"

#include <stdbool.h>

#define ROWS_MAX 6 /* rows of attention at once: with 64 positions or elements, 24 sums in registers */

/* ---- 16 floats ------------------------------------------------------------------------------------------------- */

/* The first n lanes, at most 16. */
INLINE __mmask16 lanes_below(size_t n) {
    return (__mmask16)(n >= 16 ? 0xffff : (1u << n) - 1);
}
INLINE __m512 load_ps(const float *p, size_t n) {
    return n >= 16 ? _mm512_loadu_ps(p) : _mm512_maskz_loadu_ps(lanes_below(n), p);
}
INLINE void store_ps(float *p, size_t n, __m512 v) {
    if (n >= 16)
        _mm512_storeu_ps(p, v);
    else
        _mm512_mask_storeu_ps(p, lanes_below(n), v);
}
INLINE __m512 negate_ps(__m512 x) {
    return _mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(x), _mm512_set1_epi32((int)0x80000000)));
}

/* num_exp32 */
INLINE __m512 exp_ps(__m512 x) {
    const __m512 lo = _mm512_set1_ps(NUM_EXP32_LO), magic = _mm512_set1_ps(NUM_ROUND_MAGIC);
    __m512 c = _mm512_max_ps(lo, x); /* both give the second operand where one is a NaN */
    c = _mm512_min_ps(_mm512_set1_ps(NUM_EXP32_HI), c);
    __m512 z = _mm512_fmadd_ps(c, _mm512_set1_ps(NUM_EXP32_LOG2E), magic);
    __m512 n = _mm512_sub_ps(z, magic);
    __m512 r = _mm512_fmadd_ps(n, _mm512_set1_ps(-NUM_EXP32_LN2_HI), c);
    r = _mm512_fmadd_ps(n, _mm512_set1_ps(-NUM_EXP32_LN2_LO), r);
    __m512 p = _mm512_fmadd_ps(r, _mm512_set1_ps(1.0f / 5040), _mm512_set1_ps(1.0f / 720));
    p = _mm512_fmadd_ps(r, p, _mm512_set1_ps(1.0f / 120));
    p = _mm512_fmadd_ps(r, p, _mm512_set1_ps(1.0f / 24));
    p = _mm512_fmadd_ps(r, p, _mm512_set1_ps(1.0f / 6));
    p = _mm512_fmadd_ps(r, p, _mm512_set1_ps(0.5f));
    p = _mm512_fmadd_ps(r, p, _mm512_set1_ps(1.0f));
    p = _mm512_fmadd_ps(r, p, _mm512_set1_ps(1.0f));
    __m512i k = _mm512_sub_epi32(_mm512_castps_si512(z), _mm512_castps_si512(magic));
    __m512i k1 = _mm512_srai_epi32(k, 1), k2 = _mm512_sub_epi32(k, k1), bias = _mm512_set1_epi32(127);
    p = _mm512_mul_ps(p, _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(k1, bias), 23)));
    p = _mm512_mul_ps(p, _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(k2, bias), 23)));
    return _mm512_mask_mov_ps(p, _mm512_cmp_ps_mask(x, lo, _CMP_LT_OQ), _mm512_setzero_ps());
}

/* num_tanh32 */
INLINE __m512 tanh_ps(__m512 x) {
    const __m512 one = _mm512_set1_ps(1.0f), two = _mm512_set1_ps(2.0f);
    return _mm512_sub_ps(one, _mm512_div_ps(two, _mm512_add_ps(one, exp_ps(_mm512_mul_ps(two, x)))));
}

/* num_gelu32 */
INLINE __m512 gelu_ps(__m512 x) {
    __m512 u = _mm512_fmadd_ps(_mm512_mul_ps(x, x), _mm512_mul_ps(_mm512_set1_ps(NUM_GELU_A), x), x);
    __m512 d = _mm512_add_ps(_mm512_set1_ps(1.0f), exp_ps(_mm512_mul_ps(_mm512_set1_ps(NUM_GELU_B), u)));
    return _mm512_div_ps(x, d);
}

/* ((0+4)+(2+6)) + ((1+5)+(3+7)) */
INLINE float tree_ps(__m256 s) {
    __m128 a = _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
    a = _mm_add_ps(a, _mm_movehl_ps(a, a));
    return _mm_cvtss_f32(_mm_add_ss(a, _mm_movehdup_ps(a)));
}

INLINE __m256 low_half(__m512 v) {
    return _mm512_castps512_ps256(v);
}
INLINE __m256 high_half(__m512 v) {
    return _mm512_extractf32x8_ps(v, 1);
}

/* ---- what AVX2 does as well ------------------------------------------------------------------------------------- */

static void avx512_rope_pairs(float *x, const float *cc, const float *ss, uint32_t n) {
    vec_avx2.rope_pairs(x, cc, ss, n);
}
static void avx512_rope_halves(float *x, const float *cc, const float *ss, uint32_t n) {
    vec_avx2.rope_halves(x, cc, ss, n);
}

/* ---- norms ------------------------------------------------------------------------------------------------------ */

/* What a norm adds up of an element v. */
typedef enum addend {
    SQUARE,
    ITSELF,
    SQUARE_OFF_MEAN, /* (v - mean)^2 */
} addend;

INLINE __m512 add_of(addend what, __m512 s, __m512 v, __m512 mean) {
    if (what == ITSELF) return _mm512_add_ps(s, v);
    if (what == SQUARE_OFF_MEAN) v = _mm512_sub_ps(v, mean);
    return _mm512_fmadd_ps(v, v, s);
}

/* The sum of a norm in 128 lanes: eight registers. */
INLINE float norm_sum(addend what, const float *x, uint32_t n, float mean) {
    const __m512 vm = _mm512_set1_ps(mean);
    __m512 s[8];
    uint32_t i = 0;
    UNROLL for (int j = 0; j < 8; j++) s[j] = _mm512_setzero_ps();
    for (; i + VEC_LANES <= n; i += VEC_LANES)
        UNROLL for (int j = 0; j < 8; j++) s[j] = add_of(what, s[j], _mm512_loadu_ps(x + i + 16 * j), vm);
    UNROLL for (int j = 0; j < 8; j++, i += 16) {
        if (i >= n) continue;
        __m512 t = add_of(what, s[j], load_ps(x + i, n - i), vm);
        s[j] = _mm512_mask_mov_ps(s[j], lanes_below(n - i), t); /* a lane without an element keeps its sum */
    }
    UNROLL for (int j = 0; j < 4; j++) s[j] = _mm512_add_ps(s[j], s[j + 4]);
    s[0] = _mm512_add_ps(_mm512_add_ps(s[0], s[2]), _mm512_add_ps(s[1], s[3]));
    return tree_ps(_mm256_add_ps(low_half(s[0]), high_half(s[0])));
}

static void avx512_rms_norm(float *y, const float *x, const float *w, uint32_t n, float eps) {
    const __m512 f = _mm512_set1_ps(1.0f / sqrtf(norm_sum(SQUARE, x, n, 0) / (float)n + eps));
    uint32_t i = 0;
    for (; i + 16 <= n; i += 16)
        _mm512_storeu_ps(y + i, _mm512_mul_ps(_mm512_mul_ps(_mm512_loadu_ps(x + i), f), _mm512_loadu_ps(w + i)));
    if (i < n) store_ps(y + i, n - i, _mm512_mul_ps(_mm512_mul_ps(load_ps(x + i, n - i), f), load_ps(w + i, n - i)));
}

static void avx512_layer_norm(float *y, const float *x, const float *w, const float *b, uint32_t n, float eps) {
    const float mean = norm_sum(ITSELF, x, n, 0) / (float)n;
    const __m512 f = _mm512_set1_ps(1.0f / sqrtf(norm_sum(SQUARE_OFF_MEAN, x, n, mean) / (float)n + eps));
    const __m512 vm = _mm512_set1_ps(mean);
    uint32_t i = 0;
    for (; i + 16 <= n; i += 16) {
        __m512 d = _mm512_mul_ps(_mm512_sub_ps(_mm512_loadu_ps(x + i), vm), f);
        _mm512_storeu_ps(y + i, _mm512_fmadd_ps(d, _mm512_loadu_ps(w + i), _mm512_loadu_ps(b + i)));
    }
    if (i < n) {
        __m512 d = _mm512_mul_ps(_mm512_sub_ps(load_ps(x + i, n - i), vm), f);
        store_ps(y + i, n - i, _mm512_fmadd_ps(d, load_ps(w + i, n - i), load_ps(b + i, n - i)));
    }
}

/* ---- attention -------------------------------------------------------------------------------------------------- */

/* num_to_half: the clamp keeps a NaN, as its operand comes second. */
static void avx512_to_half(uint16_t *y, const float *x, size_t n) {
    for (size_t i = 0; i < n; i += 16) {
        __m512 v = _mm512_min_ps(_mm512_set1_ps(NUM_HALF_MAX), load_ps(x + i, n - i));
        v = _mm512_max_ps(_mm512_set1_ps(-NUM_HALF_MAX), v);
        __m256i h = _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
        if (n - i >= 16)
            _mm256_storeu_si256((__m256i *)(void *)(y + i), h);
        else
            _mm256_mask_storeu_epi16(y + i, lanes_below(n - i), h);
    }
}

/* n elements (at most 16) of K or V from the i-th on; `half` is a constant wherever this is inlined. */
INLINE __m512 load_kv(const void *p, size_t i, size_t n, const bool half) {
    if (!half) return load_ps((const float *)p + i, n);
    const uint16_t *h = (const uint16_t *)p + i;
    return _mm512_cvtph_ps(n >= 16 ? load256(h) : _mm256_maskz_loadu_epi16(lanes_below(n), h));
}

#define TILE_REGS (VEC_TILE / 16)

/* Scores of R rows for all positions of a tile. Those past the last valid one are computed and never used: lanes do not
 * touch each other. */
INLINE void scores(const attn_row *rows, float (*s)[VEC_TILE], const void *k, const attn_shape *a, fetching *f,
                   const int R, const bool half) {
    __m512 acc[ROWS_MAX][TILE_REGS];
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int j = 0; j < TILE_REGS; j++) acc[r][j] = _mm512_setzero_ps();
    for (uint32_t d = 0; d < a->dk; d++) {
        __m512 kv[TILE_REGS];
        fetch_step(f);
        UNROLL for (int j = 0; j < TILE_REGS; j++) kv[j] = load_kv(k, (size_t)d * VEC_TILE + 16 * (size_t)j, 16, half);
        UNROLL for (int r = 0; r < R; r++) {
            const __m512 q = _mm512_set1_ps(rows[r].q[d]);
            UNROLL for (int j = 0; j < TILE_REGS; j++) acc[r][j] = _mm512_fmadd_ps(q, kv[j], acc[r][j]);
        }
    }
    const __m512 scale = _mm512_set1_ps(a->scale);
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int j = 0; j < TILE_REGS; j++)
        _mm512_storeu_ps(s[r] + 16 * j, _mm512_mul_ps(acc[r][j], scale));
}

/* The lanes of [p, p + 16) that lie in [first, n). */
INLINE __mmask16 lanes_seen(uint32_t p, uint32_t first, uint32_t n) {
    return (__mmask16)(lanes_below(n - p) & ~(p < first ? lanes_below(first - p) : 0));
}

/* Scores to weights; returns the factor for what was summed before. whole: the row sees all of the tile. */
INLINE float weigh_tile(attn_row *r, float *s, float cap, const bool whole) {
    const __m512 vc = _mm512_set1_ps(cap);
    const uint32_t n = whole ? VEC_TILE : r->n_valid, first = whole ? 0 : r->first, begin = first & ~15u;
    __m512 vm = _mm512_set1_ps(r->m);
    for (uint32_t p = begin; p < n; p += 16) {
        __m512 v = _mm512_loadu_ps(s + p);
        if (cap != 0) {
            v = _mm512_mul_ps(vc, tanh_ps(_mm512_div_ps(v, vc)));
            _mm512_storeu_ps(s + p, v);
        }
        vm = whole ? _mm512_max_ps(v, vm) : _mm512_mask_max_ps(vm, lanes_seen(p, first, n), v, vm);
    }
    __m256 h8 = _mm256_max_ps(low_half(vm), high_half(vm));
    __m128 h = _mm_max_ps(_mm256_castps256_ps128(h8), _mm256_extractf128_ps(h8, 1));
    h = _mm_max_ps(h, _mm_movehl_ps(h, h));
    h = _mm_max_ss(h, _mm_movehdup_ps(h));
    float m = _mm_cvtss_f32(h);
    vm = _mm512_set1_ps(m);
    __m256 sum = _mm256_setzero_ps();
    for (uint32_t p = begin; p < n; p += 16) { /* adding 0 for what is not seen changes no sum of weights */
        __m512 e = exp_ps(_mm512_sub_ps(_mm512_loadu_ps(s + p), vm));
        if (!whole) e = _mm512_maskz_mov_ps(lanes_seen(p, first, n), e);
        _mm512_storeu_ps(s + p, e);
        sum = _mm256_add_ps(_mm256_add_ps(sum, low_half(e)), high_half(e));
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
    uint32_t dv, p0, p1;
    fetching *f;
} weighted;

/* acc[d0 … d0 + 16 NV) of R rows; of the last register n elements, at most 16. */
INLINE void values_block(attn_row *rows, const weighted *w, uint32_t d0, const int R, const int NV, size_t n,
                         const bool half) {
    __m512 acc[ROWS_MAX][4];
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int j = 0; j < NV; j++) acc[r][j] =
        load_ps(rows[r].acc + d0 + 16 * j, j == NV - 1 ? n : 16);
    for (uint32_t p = w->p0; p < w->p1; p++) {
        __m512 v[4];
        fetch_step(w->f);
        UNROLL for (int j = 0; j < NV; j++) v[j] =
            load_kv(w->v, (size_t)p * w->dv + d0 + 16 * (size_t)j, j == NV - 1 ? n : 16, half);
        UNROLL for (int r = 0; r < R; r++) {
            const __m512 f = _mm512_set1_ps(w->s[r][p]);
            UNROLL for (int j = 0; j < NV; j++) acc[r][j] = _mm512_fmadd_ps(f, v[j], acc[r][j]);
        }
    }
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int j = 0; j < NV; j++)
        store_ps(rows[r].acc + d0 + 16 * j, j == NV - 1 ? n : 16, acc[r][j]);
}

INLINE void values_rows(attn_row *rows, const weighted *w, const int R, const bool half) {
    uint32_t d = 0;
    for (; d + 64 <= w->dv; d += 64) values_block(rows, w, d, R, 4, 16, half);
    for (; d + 16 <= w->dv; d += 16) values_block(rows, w, d, R, 1, 16, half);
    if (d < w->dv) values_block(rows, w, d, R, 1, w->dv - d, half);
}

/* The switches give loops over rows their constants. */
INLINE void values_together(attn_row *rows, uint32_t n_rows, const weighted *w, const bool half) {
    switch (n_rows) {
    case 1: values_rows(rows, w, 1, half); break;
    case 2: values_rows(rows, w, 2, half); break;
    case 3: values_rows(rows, w, 3, half); break;
    case 4: values_rows(rows, w, 4, half); break;
    case 5: values_rows(rows, w, 5, half); break;
    default: values_rows(rows, w, 6, half);
    }
}

INLINE void scores_together(attn_row *rows, uint32_t n_rows, float (*s)[VEC_TILE], const void *k, const attn_shape *a,
                            fetching *f, const bool half) {
    switch (n_rows) {
    case 1: scores(rows, s, k, a, f, 1, half); break;
    case 2: scores(rows, s, k, a, f, 2, half); break;
    case 3: scores(rows, s, k, a, f, 3, half); break;
    case 4: scores(rows, s, k, a, f, 4, half); break;
    case 5: scores(rows, s, k, a, f, 5, half); break;
    default: scores(rows, s, k, a, f, 6, half);
    }
}

/* Of one row among several over [p0, p1). */
static void values_1(attn_row *rows, weighted w, uint32_t r, uint32_t p0, uint32_t p1, bool half) {
    w.s += r;
    w.p0 = p0;
    w.p1 = p1;
    if (half)
        values_rows(rows + r, &w, 1, true);
    else
        values_rows(rows + r, &w, 1, false);
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
    w.p0 = from;
    w.p1 = to;
    if (from < to) values_together(rows, n_rows, &w, half);
    for (uint32_t r = 0; r < n_rows; r++) {
        uint32_t at = rows[r].first > to ? rows[r].first : to;
        if (rows[r].n_valid > at) values_1(rows, w, r, at, rows[r].n_valid, half);
    }
}

static void avx512_scale(float *x, float f, size_t n) {
    const __m512 vf = _mm512_set1_ps(f);
    for (size_t i = 0; i < n; i += 16) store_ps(x + i, n - i, _mm512_mul_ps(load_ps(x + i, n - i), vf));
}

INLINE void attn_tile(attn_row *rows, uint32_t n_rows, const void *tile, const void *next, const attn_shape *a,
                      const bool half) {
    float s[ROWS_MAX][VEC_TILE];
    const size_t size = half ? sizeof(uint16_t) : sizeof(float);
    fetching f;
    const weighted w = {(const float(*)[VEC_TILE])s, (const char *)tile + VEC_TILE * a->dk * size, a->dv, 0, 0, &f};
    const uint32_t n_groups = (n_rows + ROWS_MAX - 1) / ROWS_MAX;
    for (uint32_t g = 0, at = 0; g < n_groups; g++) {
        const uint32_t end = (uint32_t)((uint64_t)n_rows * (g + 1) / n_groups), n = end - at; /* groups of like size */
        f = fetch_part(next, VEC_TILE * ((size_t)a->dk + a->dv) * size, g, n_groups, a->dk + a->dv);
        scores_together(rows + at, n, s, tile, a, &f, half);
        for (uint32_t r = 0; r < n; r++) avx512_scale(rows[at + r].acc, weigh(&rows[at + r], s[r], a->cap), a->dv);
        values(rows + at, n, w, half);
        at = end;
    }
}

static void avx512_attn_tile(attn_row *rows, uint32_t n_rows, const uint16_t *tile, const uint16_t *next,
                             const attn_shape *a) {
    attn_tile(rows, n_rows, tile, next, a, true);
}

/* n (at most 16) elements of a tile of int8 times their scales. */
INLINE void expand_16(uint16_t *to, const int8_t *q, __m512 scale, uint32_t n) {
    __m128i bytes = n >= 16 ? _mm_loadu_si128((const __m128i *)(const void *)q)
                            : _mm_maskz_loadu_epi8((__mmask16)lanes_below(n), q);
    __m512 x = _mm512_mul_ps(scale, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes)));
    __m256i h = _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    if (n >= 16)
        _mm256_storeu_si256((__m256i *)(void *)to, h);
    else
        _mm256_mask_storeu_epi16(to, lanes_below(n), h);
}

static void avx512_kv8_expand(uint16_t *tile, const void *from, const void *next, uint32_t dk, uint32_t dv) {
    const char *base = from;
    fetching f = fetch_part(next, kv8_bytes(dk, dv), 0, 1, dk + VEC_TILE);
    const int8_t *q = from;
    const uint16_t *ks = (const uint16_t *)(const void *)(base + kv8_k_scales_at(dk, dv)),
                   *vs = (const uint16_t *)(const void *)(base + kv8_v_scales_at(dk, dv));
    for (uint32_t d = 0; d < dk; ks += VEC_TILE) {
        __m512 scale[TILE_REGS];
        UNROLL for (int j = 0; j < TILE_REGS; j++) scale[j] = _mm512_cvtph_ps(load256(ks + 16 * j));
        for (uint32_t stop = d + KV8_BLOCK < dk ? d + KV8_BLOCK : dk; d < stop; d++, q += VEC_TILE, tile += VEC_TILE) {
            fetch_step(&f);
            UNROLL for (int j = 0; j < TILE_REGS; j++) expand_16(tile + 16 * j, q + 16 * j, scale[j], 16);
        }
    }
    for (uint32_t p = 0; p < VEC_TILE; p++, q += dv, tile += dv) {
        fetch_step(&f);
        uint32_t d = 0;
        for (; d + KV8_BLOCK <= dv; d += KV8_BLOCK, vs++) {
            const __m512 scale = _mm512_cvtph_ps(_mm256_set1_epi16((short)*vs));
            expand_16(tile + d, q + d, scale, 16);
            expand_16(tile + d + 16, q + d + 16, scale, 16);
        }
        if (d == dv) continue;
        const __m512 scale = _mm512_cvtph_ps(_mm256_set1_epi16((short)*vs++));
        for (; d < dv; d += 16) expand_16(tile + d, q + d, scale, dv - d);
    }
}

static void avx512_attn_tile_f32(attn_row *rows, uint32_t n_rows, const float *tile, const float *next,
                                 const attn_shape *a) {
    attn_tile(rows, n_rows, tile, next, a, false);
}

/* ---- one element after another ---------------------------------------------------------------------------------- */

static void avx512_swiglu(float *gate, const float *up, size_t n) {
    const __m512 one = _mm512_set1_ps(1.0f);
    for (size_t i = 0; i < n; i += 16) {
        __m512 g = load_ps(gate + i, n - i), d = _mm512_add_ps(one, exp_ps(negate_ps(g)));
        store_ps(gate + i, n - i, _mm512_mul_ps(_mm512_div_ps(g, d), load_ps(up + i, n - i)));
    }
}

static void avx512_geglu(float *gate, const float *up, size_t n) {
    for (size_t i = 0; i < n; i += 16)
        store_ps(gate + i, n - i, _mm512_mul_ps(gelu_ps(load_ps(gate + i, n - i)), load_ps(up + i, n - i)));
}

static void avx512_gelu(float *x, size_t n) {
    for (size_t i = 0; i < n; i += 16) store_ps(x + i, n - i, gelu_ps(load_ps(x + i, n - i)));
}

/* Where a comparison of vec_swiglu_clamped fails (a NaN), it takes the bound; so do minps and maxps. */
static void avx512_swiglu_clamped(float *gate, const float *up, size_t n) {
    const __m512 one = _mm512_set1_ps(1.0f), hi = _mm512_set1_ps(7.0f), lo = _mm512_set1_ps(-7.0f);
    for (size_t i = 0; i < n; i += 16) {
        __m512 g = _mm512_min_ps(load_ps(gate + i, n - i), hi);
        __m512 u = _mm512_max_ps(_mm512_min_ps(load_ps(up + i, n - i), hi), lo);
        __m512 d = _mm512_add_ps(one, exp_ps(_mm512_mul_ps(_mm512_set1_ps(-1.702f), g)));
        store_ps(gate + i, n - i, _mm512_mul_ps(_mm512_div_ps(g, d), _mm512_add_ps(u, one)));
    }
}

static void avx512_sigmoid_gate(float *x, const float *gate, size_t n) {
    const __m512 one = _mm512_set1_ps(1.0f);
    for (size_t i = 0; i < n; i += 16) {
        __m512 d = _mm512_add_ps(one, exp_ps(negate_ps(load_ps(gate + i, n - i))));
        store_ps(x + i, n - i, _mm512_mul_ps(load_ps(x + i, n - i), _mm512_div_ps(one, d)));
    }
}

static void avx512_soft_cap(float *x, float cap, size_t n) {
    const __m512 vc = _mm512_set1_ps(cap);
    for (size_t i = 0; i < n; i += 16)
        store_ps(x + i, n - i, _mm512_mul_ps(vc, tanh_ps(_mm512_div_ps(load_ps(x + i, n - i), vc))));
}

static void avx512_add(float *x, const float *y, size_t n) {
    for (size_t i = 0; i < n; i += 16)
        store_ps(x + i, n - i, _mm512_add_ps(load_ps(x + i, n - i), load_ps(y + i, n - i)));
}

static void avx512_mul_add(float *y, const float *x, float f, size_t n) {
    const __m512 vf = _mm512_set1_ps(f);
    for (size_t i = 0; i < n; i += 16)
        store_ps(y + i, n - i, _mm512_fmadd_ps(vf, load_ps(x + i, n - i), load_ps(y + i, n - i)));
}

/* Lanes without an element would add e^-max: they are made 0, and adding 0 to sums of weights changes nothing. */
static double avx512_exp_sum(float *w, const float *x, float max, float div, size_t n) {
    const __m512 vm = _mm512_set1_ps(max), vd = _mm512_set1_ps(div);
    __m512d sum = _mm512_setzero_pd();
    for (size_t i = 0; i < n; i += 16) {
        __m512 e = exp_ps(_mm512_div_ps(_mm512_sub_ps(load_ps(x + i, n - i), vm), vd));
        store_ps(w + i, n - i, e);
        e = _mm512_maskz_mov_ps(lanes_below(n - i), e);
        sum = _mm512_add_pd(sum, _mm512_cvtps_pd(low_half(e)));
        sum = _mm512_add_pd(sum, _mm512_cvtps_pd(high_half(e)));
    }
    double s[8];
    _mm512_storeu_pd(s, sum);
    return vec_tree64(s);
}

const vec_kernels vec_avx512 = {
    .name = "avx512",
    .rms_norm = avx512_rms_norm,
    .rope_pairs = avx512_rope_pairs,
    .rope_halves = avx512_rope_halves,
    .layer_norm = avx512_layer_norm,
    .to_half = avx512_to_half,
    .attn_tile = avx512_attn_tile,
    .kv8_expand = avx512_kv8_expand,
    .attn_tile_f32 = avx512_attn_tile_f32,
    .swiglu = avx512_swiglu,
    .geglu = avx512_geglu,
    .gelu = avx512_gelu,
    .swiglu_clamped = avx512_swiglu_clamped,
    .sigmoid_gate = avx512_sigmoid_gate,
    .soft_cap = avx512_soft_cap,
    .add = avx512_add,
    .scale = avx512_scale,
    .mul_add = avx512_mul_add,
    .exp_sum = avx512_exp_sum,
};
