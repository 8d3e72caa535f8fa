/* AVX-512 with VNNI: the numerics of kernels.h with a row in each 32-bit lane, two neighbouring groups of 8 rows in a
 * register (of an odd number of groups the last one stands in both halves, and one of them is not stored).
 *
 * Integer sums. vpdpbusd adds four products of an unsigned and a signed byte to 32 bits and never saturates, so a
 * block's sum is eight of them. Weights are the unsigned side, as integers u with an offset that is taken off by means
 * of the sum of the activations:
 *     as they are stored, 2 to 6 bits   offset 0 (Q4_1 Q5_1 Q2_K Q4_K Q5_K), 8 (Q4_0), 16 (Q5_0), 32 (Q6_K)
 *     w + 128                           Q8_0, and the tables of IQ4_NL and IQ4_XS
 *     w + 16                            the table of MXFP4 (-12 to 12)
 *     sc w, scales of 0 to 15           Q2_K: at most 45, so both scales of a block are in the weights already
 *     128 - sc w                        Q3_K: sc w is -124 to 128, so this is 0 to 252
 * Only Q6_K multiplies sums by scales.
 *
 * Few tokens (up to FEW): weights go from memory to registers and meet all tokens there. More: a block of 32 rows is
 * spelt out in the first cache and meets the tokens of a tile, AT_ONCE at a time, each activation that is loaded
 * meeting two registers of weights. Weights are fetched ahead when the first tile meets them; without that, 17 to 32
 * tokens wait for memory. Activations are not: fetching the next block's by hand costs 5 to 10 %.
 */
#include "engine/kernels/kernels.h"
#include "engine/kernels/types.h"

#include "engine/kernels/avx512.h"

#include <string.h>

/* ---- activations ------------------------------------------------------------------------------------------- */

/* As in mat_scalar.c; conversion rounds half to even because nobody changes MXCSR. */
static void quantise_block(act_block *b, const float *x) {
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
    __m512 v0 = _mm512_loadu_ps(x), v1 = _mm512_loadu_ps(x + 16);
    __m512i top = _mm512_max_epu32(_mm512_and_si512(_mm512_castps_si512(v0), magnitude),
                                   _mm512_and_si512(_mm512_castps_si512(v1), magnitude));
    __m256i t8 = _mm256_max_epu32(_mm512_castsi512_si256(top), _mm512_extracti64x4_epi64(top, 1));
    __m128i t = _mm_max_epu32(_mm256_castsi256_si128(t8), _mm256_extracti128_si256(t8, 1));
    t = _mm_max_epu32(t, _mm_shuffle_epi32(t, 0x4e));
    t = _mm_max_epu32(t, _mm_shuffle_epi32(t, 0xb1));
    uint32_t bits = (uint32_t)_mm_cvtsi128_si32(t);
    float amax;
    memcpy(&amax, &bits, 4);
    if (bits >= 0x7f800000 || amax < 0x1p-118f) {
        memset(b, 0, sizeof *b);
        if (bits >= 0x7f800000) b->d = b->asum = __builtin_nanf("");
        return;
    }
    b->d = amax / 127.0f;
    const __m512 scale = _mm512_set1_ps(127.0f / amax);
    __m128i lo = _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(v0, scale)));
    __m128i hi = _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(v1, scale)));
    _mm_storeu_si128((__m128i *)(void *)b->q, lo);
    _mm_storeu_si128((__m128i *)(void *)(b->q + 16), hi);
    /* sums of eight bytes, 128 too much each: bytes are made unsigned first */
    const __m128i flip = _mm_set1_epi8((char)0x80);
    lo = _mm_sad_epu8(_mm_xor_si128(lo, flip), _mm_setzero_si128());
    hi = _mm_sad_epu8(_mm_xor_si128(hi, flip), _mm_setzero_si128());
    int32_t s0 = _mm_cvtsi128_si32(lo) + _mm_extract_epi16(lo, 4) - 16 * 128;
    int32_t s1 = _mm_cvtsi128_si32(hi) + _mm_extract_epi16(hi, 4) - 16 * 128;
    b->s[0] = (int16_t)s0;
    b->s[1] = (int16_t)s1;
    b->asum = b->d * (float)(s0 + s1);
    b->nsum8 = -8 * (s0 + s1);
}

static void quantise(act_block *blocks, const acts_view *a, uint32_t begin, uint32_t end) {
    for (uint32_t b = 0; b < a->cols / 32; b++)
        for (uint32_t t = begin; t < end; t++)
            quantise_block(&blocks[(size_t)b * a->ldb + t], a->x + t * a->ldx + 32ull * b);
}

/* ---- 32 weights of 16 rows in registers --------------------------------------------------------------------- */

typedef struct weights {
    __m512i q[8]; /* unsigned integers */
    __m512 scale; /* d sc; d where sc is in the weights (Q2_K, Q3_K) or comes later (Q6_K) */
    __m512 min;   /* m; -(dmin m); -dmin */
    __m512i sc[2];
    __m512i m01; /* Q2_K: both minima as two int16 */
} weights;

/* How the sum of a block is made from that of the registers. */
typedef enum sum_kind {
    SUM_OFFSET,    /* + (-8 sum of activations) << shift */
    SUM_MIN,       /* as it is; the minimum is a float step */
    SUM_INVERTED,  /* minus what SUM_OFFSET makes */
    SUM_MINS_16,   /* as it is; two minima (Q2_K) */
    SUM_SCALES_16, /* sc0 of the first half + sc1 of the second, offset 32 (Q6_K) */
} sum_kind;

INLINE sum_kind kind_of(tensor_type t) {
    switch (t) {
    case TT_Q4_1:
    case TT_Q5_1:
    case TT_Q4_K:
    case TT_Q5_K: return SUM_MIN;
    case TT_Q3_K: return SUM_INVERTED;
    case TT_Q2_K: return SUM_MINS_16;
    case TT_Q6_K: return SUM_SCALES_16;
    default: return SUM_OFFSET;
    }
}
/* Log2 of a type's offset / 8, where it has one. */
INLINE int shift_of(tensor_type t) {
    return t == TT_Q4_0 ? 0 : t == TT_Q5_0 || t == TT_MXFP4 ? 1 : 4;
}

/* The same place in two groups. */
typedef struct place {
    const uint8_t *a, *b;
} place;

INLINE place after(place p, size_t n) {
    return (place){p.a + n, p.b + n};
}
INLINE __m512i load(place p) {
    return two256(load256(p.a), load256(p.b));
}
INLINE __m512i load_i8(place p) {
    return _mm512_cvtepi8_epi32(_mm_unpacklo_epi64(load64(p.a), load64(p.b)));
}
INLINE __m512 load_f16(place p) {
    return _mm512_cvtph_ps(_mm256_inserti128_si256(_mm256_castsi128_si256(load128(p.a)), load128(p.b), 1));
}
/* 2^(e - 128); below e = 2 it is subnormal */
INLINE __m512 load_e8m0(place p) {
    __m512i e = _mm512_and_si512(load_i8(p), _mm512_set1_epi32(255)), one = _mm512_set1_epi32(1);
    __m512i small = _mm512_sllv_epi32(_mm512_set1_epi32(0x200000), e);
    __m512i usual = _mm512_slli_epi32(_mm512_sub_epi32(e, one), 23);
    return _mm512_castsi512_ps(_mm512_mask_mov_epi32(small, _mm512_cmpgt_epi32_mask(e, one), usual));
}
INLINE __m512i pair16(__m512i low, __m512i high) {
    return _mm512_or_si512(_mm512_and_si512(low, _mm512_set1_epi32(0xffff)), _mm512_slli_epi32(high, 16));
}
/* a | (b & c) */
INLINE __m512i or_and(__m512i a, __m512i b, __m512i c) {
    return _mm512_ternarylogic_epi32(a, b, c, 0xf8);
}
INLINE __m512i table16(const int8_t *table, int offset) {
    __m128i t = _mm_add_epi8(load128(table), _mm_set1_epi8((char)offset));
    return _mm512_broadcast_i32x4(t);
}

/* The integers of a block in n registers. 8: of two places, register j has the j-th four columns of each. 4: of one,
 * p.a; it has the columns of 2j in its low half and those of 2j + 1 in its high one, as they lie in memory. */
#define STEP(n) (256 / (size_t)(n))

INLINE __m512i load_of(int n, place p) {
    return n == 4 ? _mm512_loadu_si512(p.a) : load(p);
}

INLINE void load_4bit(int n, __m512i *q, place p) {
    const __m512i mask = _mm512_set1_epi8(15);
    UNROLL for (int i = 0; i < n / 2; i++) {
        __m512i v = load_of(n, after(p, STEP(n) * (size_t)i));
        q[i] = _mm512_and_si512(v, mask);
        q[i + n / 2] = _mm512_and_si512(_mm512_srli_epi16(v, 4), mask);
    }
}

INLINE void load_2bit(int n, __m512i *q, place p) {
    const __m512i mask = _mm512_set1_epi8(3);
    UNROLL for (int i = 0; i < n / 4; i++) {
        __m512i v = load_of(n, after(p, STEP(n) * (size_t)i));
        q[i] = _mm512_and_si512(v, mask);
        q[i + n / 4] = _mm512_and_si512(_mm512_srli_epi16(v, 2), mask);
        q[i + n / 2] = _mm512_and_si512(_mm512_srli_epi16(v, 4), mask);
        q[i + n / 2 + n / 4] = _mm512_and_si512(_mm512_srli_epi16(v, 6), mask);
    }
}

/* Bits j of the bytes at p become bit `width` of the j-th columns. */
INLINE void or_1bit(int n, __m512i *q, place p, int width) {
    const __m512i mask = _mm512_set1_epi8((char)(1 << width));
    const __m256i a = load256(p.a);
    const __m512i v = two256(a, n == 4 ? _mm256_srli_epi16(a, 1) : load256(p.b));
    UNROLL for (int i = 0; i < n; i++) {
        const int j = i * 8 / n;
        __m512i s =
            j <= width ? _mm512_slli_epi16(v, (unsigned)(width - j)) : _mm512_srli_epi16(v, (unsigned)(j - width));
        q[i] = or_and(q[i], s, mask);
    }
}

/* Two bits above four. */
INLINE void or_2bit(int n, __m512i *q, place p) {
    const __m512i mask = _mm512_set1_epi8(0x30);
    UNROLL for (int i = 0; i < n / 4; i++) {
        const __m512i v = load_of(n, after(p, STEP(n) * (size_t)i));
        q[i] = or_and(q[i], _mm512_slli_epi16(v, 4), mask);
        q[i + n / 4] = or_and(q[i + n / 4], _mm512_slli_epi16(v, 2), mask);
        q[i + n / 2] = or_and(q[i + n / 2], v, mask);
        q[i + n / 2 + n / 4] = or_and(q[i + n / 2 + n / 4], _mm512_srli_epi16(v, 2), mask);
    }
}

/* q = sc q, bytes of at most 45: no byte runs over into its neighbour. */
INLINE void scale_2bit(int n, __m512i *q, const __m512i *sc) {
    UNROLL for (int i = 0; i < n; i++) {
        __m512i v = sc[2 * i / n];
        q[i] = _mm512_mullo_epi16(q[i], _mm512_or_si512(v, _mm512_slli_epi32(v, 16)));
    }
}

/* q = 128 - sc (q - 4) = 128 + 4 sc - sc q, all modulo 256. */
INLINE void scale_3bit(int n, __m512i *q, const __m512i *scales) {
    const __m512i even = _mm512_set1_epi16(255);
    UNROLL for (int h = 0; h < 2; h++) {
        __m512i sc = pair16(scales[h], scales[h]);
        __m512i top = _mm512_add_epi16(_mm512_set1_epi16(128), _mm512_slli_epi16(sc, 2));
        top = or_and(_mm512_slli_epi16(top, 8), top, even);
        UNROLL for (int i = h * n / 2; i < (h + 1) * n / 2; i++) {
            __m512i low = _mm512_mullo_epi16(_mm512_and_si512(q[i], even), sc);
            __m512i high = _mm512_mullo_epi16(_mm512_andnot_si512(even, q[i]), sc);
            q[i] = _mm512_sub_epi8(top, or_and(high, low, even));
        }
    }
}

/* sc: of types with two scales a block, for each 32-bit lane. */
INLINE void load_integers(tensor_type t, int n, __m512i *q, const __m512i *sc, place part) {
    place bits = after(part, is_per_16(t) || has_scaled_min(t) ? 16 : t == TT_IQ4_XS ? 8 : 0);
    switch (t) {
    case TT_Q8_0:
        UNROLL for (int i = 0; i < n; i++) q[i] =
            _mm512_xor_si512(load_of(n, after(bits, STEP(n) * (size_t)i)), _mm512_set1_epi8((char)0x80));
        break;
    case TT_IQ4_NL:
    case TT_IQ4_XS:
        load_4bit(n, q, bits);
        UNROLL for (int i = 0; i < n; i++) q[i] = _mm512_shuffle_epi8(table16(iq4_table, 128), q[i]);
        break;
    case TT_MXFP4:
        load_4bit(n, q, bits);
        UNROLL for (int i = 0; i < n; i++) q[i] = _mm512_shuffle_epi8(table16(mxfp4_table, 16), q[i]);
        break;
    case TT_Q5_0:
    case TT_Q5_1:
    case TT_Q5_K:
        load_4bit(n, q, after(bits, 32));
        or_1bit(n, q, bits, 4);
        break;
    case TT_Q3_K:
        load_2bit(n, q, after(bits, 32));
        or_1bit(n, q, bits, 2);
        scale_3bit(n, q, sc);
        break;
    case TT_Q2_K:
        load_2bit(n, q, bits);
        scale_2bit(n, q, sc);
        break;
    case TT_Q6_K:
        load_4bit(n, q, after(bits, 64));
        or_2bit(n, q, bits);
        break;
    default: load_4bit(n, q, bits);
    }
}

/* What all blocks of a unit have in common. */
typedef struct unit_head {
    __m512 d, dmin; /* dmin negated where the minimum is taken off */
} unit_head;

INLINE unit_head load_head(tensor_type t, place unit) {
    unit_head h = {t == TT_MXFP4 ? load_e8m0(unit) : load_f16(unit), _mm512_setzero_ps()};
    if (has_head_min(t)) h.dmin = load_f16(after(unit, 16));
    if (has_head_min(t) && is_256(t)) h.dmin = _mm512_xor_ps(h.dmin, _mm512_set1_ps(-0.0f));
    return h;
}

INLINE void load_scales(tensor_type t, weights *w, unit_head h, place part) {
    w->scale = h.d;
    w->min = h.dmin;
    if (is_per_16(t)) {
        w->sc[0] = load_i8(part);
        w->sc[1] = load_i8(after(part, 8));
    }
    if (t == TT_Q2_K) {
        const __m512i mask = _mm512_set1_epi32(15);
        w->m01 = pair16(_mm512_and_si512(_mm512_srli_epi32(w->sc[0], 4), mask),
                        _mm512_and_si512(_mm512_srli_epi32(w->sc[1], 4), mask));
        w->sc[0] = _mm512_and_si512(w->sc[0], mask);
        w->sc[1] = _mm512_and_si512(w->sc[1], mask);
    }
    if (is_256(t) && !is_per_16(t)) w->scale = _mm512_mul_ps(h.d, _mm512_cvtepi32_ps(load_i8(part)));
    if (has_scaled_min(t)) w->min = _mm512_mul_ps(h.dmin, _mm512_cvtepi32_ps(load_i8(after(part, 8))));
}

/* Bytes before the parts of a unit. */
INLINE size_t head_bytes(tensor_type t) {
    return t == TT_MXFP4 ? 8 : has_head_min(t) ? 32 : 16;
}
INLINE size_t block_bytes(tensor_type t, const packed *p) {
    return is_256(t) ? p->unit_bytes / 8 : p->unit_bytes;
}

INLINE void load_block(tensor_type t, weights *w, unit_head h, place part) {
    load_scales(t, w, h, part);
    load_integers(t, 8, w->q, w->sc, part);
}

/* Block b of two places. The head of a unit of 256 is read with its first block: whoever walks over blocks begins there
 * and keeps h. */
INLINE void load_at(tensor_type t, const packed *p, place groups, uint32_t b, unit_head *h, weights *w) {
    const uint32_t i = is_256(t) ? b % 8 : 0;
    const place unit = after(groups, (size_t)(is_256(t) ? b / 8 : b) * p->unit_bytes);
    if (i == 0) *h = load_head(t, unit);
    load_block(t, w, *h, after(unit, head_bytes(t) + i * p->part_bytes));
}

/* ---- sums of a block ------------------------------------------------------------------------------------------- */

INLINE __m512i bcast(const void *p) {
    int32_t v;
    memcpy(&v, p, 4);
    return _mm512_set1_epi32(v);
}

/* What a block of activations has beside its integers, for each row. */
typedef struct act_facts {
    __m512i nsum8, s;
    __m512 d, asum;
} act_facts;

INLINE act_facts facts_of(const act_block *x) {
    return (act_facts){bcast(&x->nsum8), bcast(x->s), _mm512_set1_ps(x->d), _mm512_set1_ps(x->asum)};
}

/* What sums of registers [0, 4) (half 0) and [4, 8) start from; where the kind has one sum it is half 0. */
INLINE __m512i start_of(sum_kind kind, int shift, act_facts x, int half) {
    if ((kind == SUM_OFFSET || kind == SUM_INVERTED) && half == 0) return _mm512_slli_epi32(x.nsum8, (unsigned)shift);
    if (kind == SUM_SCALES_16) { /* -32 times the sum over a half */
        __m512i s = half ? _mm512_and_si512(x.s, _mm512_set1_epi32((int)0xffff0000)) : _mm512_slli_epi32(x.s, 16);
        return _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_srai_epi32(s, 11));
    }
    return _mm512_setzero_si512();
}

/* The factors of what a block adds: scale * dot, and with a minimum min * of_min. */
typedef struct addends {
    __m512 scale, dot, min, of_min;
} addends;

INLINE bool has_min(sum_kind kind) {
    return kind == SUM_MIN || kind == SUM_MINS_16;
}

INLINE addends addends_of(sum_kind kind, __m512i dot, __m512i high, const weights *w, act_facts x) {
    if (kind == SUM_INVERTED) dot = _mm512_sub_epi32(_mm512_setzero_si512(), dot);
    if (kind == SUM_SCALES_16)
        dot = _mm512_add_epi32(_mm512_mullo_epi32(w->sc[0], dot), _mm512_mullo_epi32(w->sc[1], high));
    addends a = {_mm512_mul_ps(w->scale, x.d), _mm512_cvtepi32_ps(dot), w->min, x.asum};
    if (kind == SUM_MINS_16) {
        a.min = _mm512_mul_ps(w->min, x.d);
        a.of_min = _mm512_cvtepi32_ps(_mm512_madd_epi16(w->m01, x.s));
    }
    return a;
}

INLINE __m512 add_block(sum_kind kind, __m512 acc, addends a) {
    acc = _mm512_fmadd_ps(a.scale, a.dot, acc);
    return has_min(kind) ? _mm512_fmadd_ps(a.min, a.of_min, acc) : acc;
}

/* ---- one token -------------------------------------------------------------------------------------------------- */

/* A block of one group of 8 rows, read in the order in which it lies in memory: a register holds eight columns, four in
 * each half, and only the integer sums are of 512 bits. What counts here is the number of instructions: with twice as
 * many one Zen 4 core waits for them and not for memory. Nothing is fetched ahead by hand: there that costs more than
 * it brings, whatever the distance. */
typedef struct group_head {
    __m256 d, dmin;
} group_head;

typedef struct group_weights {
    __m512i q[4];
    __m256 scale, min;
    __m256i sc[2], m01;
} group_weights; /* as unit_head and weights; read by those' functions they cost 10 to 17 % in the caches */

INLINE __m256 group_f16(const uint8_t *p) {
    return _mm256_cvtph_ps(load128(p));
}
INLINE __m256i group_i8(const uint8_t *p) {
    return _mm256_cvtepi8_epi32(load64(p));
}

INLINE group_head load_group_head(tensor_type t, const uint8_t *unit) {
    group_head h = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    h.d = t == TT_MXFP4 ? _mm512_castps512_ps256(load_e8m0((place){unit, unit})) : group_f16(unit);
    if (has_head_min(t)) h.dmin = group_f16(unit + 16);
    if (has_head_min(t) && is_256(t)) h.dmin = _mm256_xor_ps(h.dmin, _mm256_set1_ps(-0.0f));
    return h;
}

INLINE void load_group(tensor_type t, group_weights *w, group_head h, const uint8_t *part) {
    w->scale = h.d;
    w->min = h.dmin;
    if (is_per_16(t)) {
        w->sc[0] = group_i8(part);
        w->sc[1] = group_i8(part + 8);
    }
    if (t == TT_Q2_K) {
        const __m256i m0 = _mm256_and_si256(_mm256_srli_epi32(w->sc[0], 4), _mm256_set1_epi32(15));
        const __m256i m1 = _mm256_and_si256(_mm256_srli_epi32(w->sc[1], 4), _mm256_set1_epi32(15));
        w->m01 = _mm256_or_si256(m0, _mm256_slli_epi32(m1, 16));
        w->sc[0] = _mm256_and_si256(w->sc[0], _mm256_set1_epi32(15));
        w->sc[1] = _mm256_and_si256(w->sc[1], _mm256_set1_epi32(15));
    }
    if (is_256(t) && !is_per_16(t)) w->scale = _mm256_mul_ps(h.d, _mm256_cvtepi32_ps(group_i8(part)));
    if (has_scaled_min(t)) w->min = _mm256_mul_ps(h.dmin, _mm256_cvtepi32_ps(group_i8(part + 8)));
    const __m512i sc[2] = {two256(w->sc[0], w->sc[0]), two256(w->sc[1], w->sc[1])};
    load_integers(t, 4, w->q, sc, (place){part, part});
}

INLINE __m256i both_halves(__m512i v) {
    return _mm256_add_epi32(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64(v, 1));
}

/* *acc += a block, *min += what its minimum adds; the contract wants one sum, so mul_one's are the same. */
INLINE void meet_one(tensor_type type, const group_weights *w, const act_block *x, __m256 *acc, __m256 *min) {
    const sum_kind kind = kind_of(type);
    const act_facts f = facts_of(x);
    const __m512i columns = two256(_mm256_setzero_si256(), _mm256_set1_epi32(1));
    const __m512i q = _mm512_broadcast_i64x4(load256(x->q));
    __m512i sum[2];
    UNROLL for (int h = 0; h < 2; h++) sum[h] =
        _mm512_zextsi256_si512(_mm512_castsi512_si256(start_of(kind, shift_of(type), f, h)));
    UNROLL for (int i = 0; i < 4; i++) {
        __m512i *s = &sum[kind == SUM_SCALES_16 && i >= 2];
        __m512i v = _mm512_permutexvar_epi32(_mm512_add_epi32(columns, _mm512_set1_epi32(2 * i)), q);
        *s = _mm512_dpbusd_epi32(*s, w->q[i], v);
    }
    __m256i dot = both_halves(sum[0]);
    if (kind == SUM_INVERTED) dot = _mm256_sub_epi32(_mm256_setzero_si256(), dot);
    if (kind == SUM_SCALES_16)
        dot = _mm256_add_epi32(_mm256_mullo_epi32(w->sc[0], dot), _mm256_mullo_epi32(w->sc[1], both_halves(sum[1])));
    const __m256 d = _mm256_set1_ps(x->d);
    *acc = _mm256_fmadd_ps(_mm256_mul_ps(w->scale, d), _mm256_cvtepi32_ps(dot), *acc);
    if (kind == SUM_MIN) *min = _mm256_fmadd_ps(w->min, _mm256_set1_ps(x->asum), *min);
    if (kind == SUM_MINS_16) {
        __m256i mins = _mm256_madd_epi16(w->m01, _mm512_castsi512_si256(f.s));
        *min = _mm256_fmadd_ps(_mm256_mul_ps(w->min, d), _mm256_cvtepi32_ps(mins), *min);
    }
}

/* Groups one after the other, each from its first column to its last. Columns in chunks, whose activations would stay
 * in the first cache while several groups pass, halve the speed: memory is read in pieces. */
INLINE void mul_one(tensor_type type, const packed *p, uint32_t begin, uint32_t end, const acts_view *a, float *y) {
    for (uint32_t g = begin; g < end; g++) {
        const uint8_t *unit = p->data + g * p->task_bytes, *unit_end = unit + p->task_bytes;
        const act_block *x = a->blocks;
        __m256 acc = _mm256_setzero_ps();
        for (; unit < unit_end; unit += p->unit_bytes) {
            const group_head h = load_group_head(type, unit);
            const uint8_t *part = unit + head_bytes(type);
            for (int i = 0; i < (is_256(type) ? 8 : 1); i++, part += p->part_bytes, x += a->ldb) {
                group_weights w = {0};
                load_group(type, &w, h, part);
                meet_one(type, &w, x, &acc, &acc);
            }
        }
        uint32_t left = p->rows - g * LANES;
        _mm256_mask_storeu_ps(y + g * LANES, (__mmask8)(left >= LANES ? 0xff : (1u << left) - 1), acc);
    }
}

/* ---- few tokens ------------------------------------------------------------------------------------------------ */

#define FEW 16

/* How far ahead lines are asked for. The hardware does it within a page only. */
#define AHEAD 4096

INLINE void fetch(const uint8_t *p, size_t n) {
    for (size_t i = 0; i < n; i += 64) _mm_prefetch((const char *)p + i, _MM_HINT_T0);
}

INLINE void store_rows(float *y, __m512 v, uint32_t n) {
    _mm512_mask_storeu_ps(y, (__mmask16)(n >= 16 ? 0xffff : (1u << n) - 1), v);
}

/* Groups that a register takes from `group` on, of those before `end`. */
INLINE place pair_at(const packed *p, uint32_t group, uint32_t end) {
    const uint8_t *a = p->data + group * p->task_bytes;
    return (place){a, group + 1 < end ? a + p->task_bytes : a};
}
INLINE uint32_t rows_at(const packed *p, uint32_t group, uint32_t end) {
    uint32_t left = p->rows - group * LANES, most = group + 1 < end ? 2 * LANES : LANES;
    return left < most ? left : most;
}

/* acc[t] += a block of weights, for nt tokens, four of them at a time. */
INLINE void meet_few(tensor_type type, int nt, const weights *w, const act_block *x, __m512 *acc) {
    const sum_kind kind = kind_of(type);
    UNROLL for (int t0 = 0; t0 < nt; t0 += 4, x += 4, acc += 4) {
        const int n = nt - t0 < 4 ? nt - t0 : 4;
        __m512i dot[4], high[4];
        UNROLL for (int t = 0; t < n; t++) {
            dot[t] = start_of(kind, shift_of(type), facts_of(x + t), 0);
            high[t] = start_of(kind, shift_of(type), facts_of(x + t), 1);
        }
        UNROLL for (int j = 0; j < 8; j++) UNROLL for (int t = 0; t < n; t++) {
            __m512i *sum = kind == SUM_SCALES_16 && j >= 4 ? &high[t] : &dot[t];
            *sum = _mm512_dpbusd_epi32(*sum, w->q[j], bcast(x[t].q + 4 * j));
        }
        UNROLL for (int t = 0; t < n; t++) acc[t] =
            add_block(kind, acc[t], addends_of(kind, dot[t], high[t], w, facts_of(x + t)));
    }
}

/* nt: at least a->n; what comes out for the rest, which reads the blocks that happen to stand there, is not stored. */
INLINE void mul_few(tensor_type type, int nt, const packed *p, uint32_t begin, uint32_t end, const acts_view *a,
                    float *y, size_t ldy) {
    const size_t step = block_bytes(type, p);
    for (uint32_t g = begin; g < end; g += 2) {
        place groups = pair_at(p, g, end), ahead = after(groups, AHEAD);
        const act_block *x = a->blocks;
        unit_head h = {0};
        __m512 acc[FEW];
        UNROLL for (int t = 0; t < nt; t++) acc[t] = _mm512_setzero_ps();
        for (uint32_t b = 0; b < p->cols / 32; b++, x += a->ldb, ahead = after(ahead, step)) {
            weights w;
            load_at(type, p, groups, b, &h, &w);
            size_t skip = b * step + AHEAD < p->task_bytes ? 0 : p->task_bytes; /* then in the next two groups */
            fetch(ahead.a + skip, step);
            fetch(ahead.b + skip, step);
            meet_few(type, nt, &w, x, acc);
        }
        UNROLL for (int t = 0; t < nt; t++) if ((uint32_t)t < a->n)
            store_rows(y + (size_t)t * ldy + g * LANES, acc[t], rows_at(p, g, end));
    }
}

/* ---- more tokens ----------------------------------------------------------------------------------------------- */

#define TILE   128 /* tokens whose sums and activations of a block stay in the first cache while rows pass */
#define BATCH  16  /* groups that pass before the next chunk of blocks: its activations stay in the second cache */
#define BLOCKS 48  /* of a chunk; units of 256 are not cut */
/* Tokens: with two registers of rows, 8 sums. With 16 the conversions and multiply-adds of all come at once, too far
 * from the products that could hide them: 77 to 80 % of the rate of products in the first cache, with 8 it is 81 to 84
 * %. */
#define AT_ONCE 4

/* acc[2 t + r] += block r, for nt tokens and nr registers of rows. */
INLINE void meet_some(sum_kind kind, int shift, int nr, int nt, const weights *w, const act_block *x, __m512 *acc) {
    __m512i dot[AT_ONCE][2], high[AT_ONCE][2];
    UNROLL for (int t = 0; t < nt; t++) {
        __m512i low = start_of(kind, shift, facts_of(x + t), 0), up = start_of(kind, shift, facts_of(x + t), 1);
        UNROLL for (int r = 0; r < nr; r++) dot[t][r] = low, high[t][r] = up;
    }
    UNROLL for (int j = 0; j < 8; j++) {
        __m512i q[2];
        UNROLL for (int r = 0; r < nr; r++) q[r] = w[r].q[j];
        UNROLL for (int t = 0; t < nt; t++) {
            __m512i v = bcast(x[t].q + 4 * j);
            UNROLL for (int r = 0; r < nr; r++) {
                __m512i *sum = kind == SUM_SCALES_16 && j >= 4 ? &high[t][r] : &dot[t][r];
                *sum = _mm512_dpbusd_epi32(*sum, q[r], v);
            }
        }
    }
    UNROLL for (int t = 0; t < nt; t++) {
        const act_facts f = facts_of(x + t);
        UNROLL for (int r = 0; r < nr; r++) acc[2 * t + r] =
            add_block(kind, acc[2 * t + r], addends_of(kind, dot[t][r], high[t][r], &w[r], f));
    }
}

/* The weights are copied, so that they stay in registers: for all the compiler knows, sums are part of `from`. */
INLINE void meet(sum_kind kind, int shift, int nr, const weights *from, const act_block *x, __m512 *acc, uint32_t n) {
    weights w[2];
    UNROLL for (int r = 0; r < nr; r++) w[r] = from[r];
    for (; n >= AT_ONCE; n -= AT_ONCE, x += AT_ONCE, acc += 2 * AT_ONCE) meet_some(kind, shift, nr, AT_ONCE, w, x, acc);
    for (; n > 0; n--, x++, acc += 2) meet_some(kind, shift, nr, 1, from, x, acc);
}

typedef void meet_fn(const weights *w, const act_block *x, __m512 *acc, uint32_t n);

#define MEET(name, kind, shift)                                                           \
    static void name##_1(const weights *w, const act_block *x, __m512 *acc, uint32_t n) { \
        meet(kind, shift, 1, w, x, acc, n);                                               \
    }                                                                                     \
    static void name##_2(const weights *w, const act_block *x, __m512 *acc, uint32_t n) { \
        meet(kind, shift, 2, w, x, acc, n);                                               \
    }
MEET(meet_offset_8, SUM_OFFSET, 0)
MEET(meet_offset_16, SUM_OFFSET, 1)
MEET(meet_offset_128, SUM_OFFSET, 4)
MEET(meet_min, SUM_MIN, 0)
MEET(meet_inverted, SUM_INVERTED, 4)
MEET(meet_mins_16, SUM_MINS_16, 0)
MEET(meet_scales_16, SUM_SCALES_16, 0)

typedef struct type_kernels {
    void (*few)(const packed *p, uint32_t begin, uint32_t end, const acts_view *a, float *y, size_t ldy);
    void (*spell)(const packed *p, place groups, uint32_t b, unit_head *h, weights *w);
    meet_fn *meet[2];
} type_kernels;

/* The lines that four groups write, asked for in the course of their last steps: they are tokens apart, and stores that
 * all come at the end would wait for them. */
typedef struct results {
    float *y;
    size_t ldy;
    uint32_t n, n_rows, n_steps, step, t; /* tokens, rows of each; steps in all, done; tokens asked for */
} results;

INLINE void fetch_results(results *r) {
    r->step++;
    for (; (uint64_t)r->t * r->n_steps < (uint64_t)r->step * r->n && r->t < r->n; r->t++)
        for (uint32_t i = 0; i < r->n_rows; i += 16) __builtin_prefetch(r->y + r->t * r->ldy + i, 1, 2);
}

/* Blocks [b0, b1) of up to four groups, as two registers of rows. first: of the tokens of a product, so the weights
 * come from memory, and the next four groups will. */
static void mul_quad(const type_kernels *k, const packed *p, uint32_t group, uint32_t end, uint32_t b0, uint32_t b1,
                     const act_block *x, size_t ldb, uint32_t n, bool first, results *out, __m512 *acc) {
    const uint32_t nr = end - group > 2 ? 2 : 1;
    const place groups[2] = {pair_at(p, group, end), pair_at(p, group + 2 * (nr - 1), end)};
    const size_t step = p->task_bytes / (p->cols / 32);
    unit_head h[2] = {0};
    for (uint32_t b = b0; b < b1; b++, x += ldb) {
        weights w[2];
        fetch_results(out);
        size_t ahead = b * step + AHEAD;
        if (ahead >= p->task_bytes) ahead += 3 * p->task_bytes;
        for (uint32_t r = 0; r < nr; r++) {
            k->spell(p, groups[r], b, &h[r], &w[r]);
            if (!first) continue;
            fetch(groups[r].a + ahead, step);
            fetch(groups[r].b + ahead, step);
        }
        k->meet[nr - 1](w, x, acc, n);
    }
}

/* y of up to four groups for n tokens. */
static void store_quad(const packed *p, uint32_t group, uint32_t end, const __m512 *acc, uint32_t n, float *y,
                       size_t ldy) {
    for (uint32_t t = 0; t < n; t++)
        for (uint32_t g = group; g < end; g += 2)
            store_rows(y + t * ldy + g * LANES, acc[2 * t + (g - group) / 2], rows_at(p, g, end));
}

/* Groups [begin, end), at most BATCH, times n tokens from t0 on, at most TILE. */
static void mul_batch(const type_kernels *k, const packed *p, uint32_t begin, uint32_t end, const acts_view *a,
                      uint32_t t0, uint32_t n, float *y, size_t ldy) {
    const uint32_t n_blocks = p->cols / 32;
    __m512 acc[BATCH / 4][2 * TILE];
    for (uint32_t b = 0; b < n_blocks; b += BLOCKS)
        for (uint32_t g = begin; g < end; g += 4) {
            const uint32_t b_end = n_blocks - b < BLOCKS ? n_blocks : b + BLOCKS, g_end = end - g < 4 ? end : g + 4;
            /* of a single chunk all groups have the same sums, which then stay in the first cache */
            __m512 *sums = acc[n_blocks <= BLOCKS ? 0 : (g - begin) / 4];
            for (uint32_t s = 0; b == 0 && s < 2 * n; s++) sums[s] = _mm512_setzero_ps();
            const bool last = b_end == n_blocks;
            results out = {y + t0 * ldy + g * LANES, ldy, last ? n : 0, (g_end - g) * LANES, b_end - b, 0, 0};
            mul_quad(k, p, g, g_end, b, b_end, a->blocks + (size_t)b * a->ldb + t0, a->ldb, n, t0 == 0, &out, sums);
            if (last) store_quad(p, g, g_end, sums, n, y + t0 * ldy, ldy);
        }
}

static void mul_many(const type_kernels *k, const packed *p, uint32_t begin, uint32_t end, const acts_view *a, float *y,
                     size_t ldy) {
    const uint32_t n_tiles = (a->n + TILE - 1) / TILE;
    const uint32_t tile = ((a->n + n_tiles - 1) / n_tiles + AT_ONCE - 1) / AT_ONCE * AT_ONCE; /* all alike */
    for (uint32_t g = begin; g < end; g += BATCH)
        for (uint32_t t = 0; t < a->n; t += tile)
            mul_batch(k, p, g, end - g < BATCH ? end : g + BATCH, a, t, a->n - t < tile ? a->n - t : tile, y, ldy);
}

#define KERNELS(name, type)                                                                                           \
    static void few_##name(const packed *p, uint32_t begin, uint32_t end, const acts_view *a, float *y, size_t ldy) { \
        switch (a->n) {                                                                                               \
        case 1: mul_one(type, p, begin, end, a, y); break;                                                            \
        case 2: mul_few(type, 2, p, begin, end, a, y, ldy); break;                                                    \
        case 3: mul_few(type, 3, p, begin, end, a, y, ldy); break;                                                    \
        case 4: mul_few(type, 4, p, begin, end, a, y, ldy); break;                                                    \
        case 5: mul_few(type, 5, p, begin, end, a, y, ldy); break;                                                    \
        case 6: mul_few(type, 6, p, begin, end, a, y, ldy); break;                                                    \
        case 7: mul_few(type, 7, p, begin, end, a, y, ldy); break;                                                    \
        case 8: mul_few(type, 8, p, begin, end, a, y, ldy); break;                                                    \
        case 9:                                                                                                       \
        case 10:                                                                                                      \
        case 11:                                                                                                      \
        case 12: mul_few(type, 12, p, begin, end, a, y, ldy); break;                                                  \
        default: mul_few(type, 16, p, begin, end, a, y, ldy);                                                         \
        }                                                                                                             \
    }                                                                                                                 \
    static void spell_##name(const packed *p, place groups, uint32_t b, unit_head *h, weights *w) {                   \
        load_at(type, p, groups, b, h, w);                                                                            \
    }
KERNELS(q8_0, TT_Q8_0)
KERNELS(q4_0, TT_Q4_0)
KERNELS(q4_1, TT_Q4_1)
KERNELS(q5_0, TT_Q5_0)
KERNELS(q5_1, TT_Q5_1)
KERNELS(q2_k, TT_Q2_K)
KERNELS(q3_k, TT_Q3_K)
KERNELS(q4_k, TT_Q4_K)
KERNELS(q5_k, TT_Q5_K)
KERNELS(q6_k, TT_Q6_K)
KERNELS(iq4_nl, TT_IQ4_NL)
KERNELS(iq4_xs, TT_IQ4_XS)
KERNELS(mxfp4, TT_MXFP4)

#define ENTRY(name, meets)          \
    {                               \
        few_##name, spell_##name, { \
            meets##_1, meets##_2    \
        }                           \
    }
static const type_kernels by_type[] = {
    [TT_Q8_0] = ENTRY(q8_0, meet_offset_128),
    [TT_Q4_0] = ENTRY(q4_0, meet_offset_8),
    [TT_Q4_1] = ENTRY(q4_1, meet_min),
    [TT_Q5_0] = ENTRY(q5_0, meet_offset_16),
    [TT_Q5_1] = ENTRY(q5_1, meet_min),
    [TT_Q2_K] = ENTRY(q2_k, meet_mins_16),
    [TT_Q3_K] = ENTRY(q3_k, meet_inverted),
    [TT_Q4_K] = ENTRY(q4_k, meet_min),
    [TT_Q5_K] = ENTRY(q5_k, meet_min),
    [TT_Q6_K] = ENTRY(q6_k, meet_scales_16),
    [TT_IQ4_NL] = ENTRY(iq4_nl, meet_offset_128),
    [TT_IQ4_XS] = ENTRY(iq4_xs, meet_offset_128),
    [TT_MXFP4] = ENTRY(mxfp4, meet_offset_16),
};

/* ---- floats ---------------------------------------------------------------------------------------------------- */

#define CHUNK          96 /* k's of a panel that stay in the first cache, spelt out as binary32, while tokens pass */
#define FLOAT_TILE     48
#define FLOATS_AT_ONCE 8 /* tokens: with two registers of rows, 16 sums */
#define PANEL_ROWS     (PANEL_GROUPS * LANES)

/* 32 weights of a k from p on, those of the mask; of a full panel the mask is not looked at. */
INLINE void load_floats(tensor_type type, __m512 *w, const uint8_t *p, bool full, __mmask32 mask) {
    if (type == TT_F32) {
        const float *f = (const float *)(const void *)p;
        w[0] = full ? _mm512_loadu_ps(f) : _mm512_maskz_loadu_ps((__mmask16)mask, f);
        w[1] = full ? _mm512_loadu_ps(f + 16) : _mm512_maskz_loadu_ps((__mmask16)(mask >> 16), f + 16);
        return;
    }
    __m512i v = full ? _mm512_loadu_si512(p) : _mm512_maskz_loadu_epi16(mask, p);
    UNROLL for (int r = 0; r < 2; r++) {
        __m256i h = r ? _mm512_extracti64x4_epi64(v, 1) : _mm512_castsi512_si256(v);
        w[r] =
            type == TT_F16 ? _mm512_cvtph_ps(h) : _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
    }
}

/* sums (nt, 2) += n_k k's of nt tokens. ahead: w comes from memory. */
INLINE void float_step(tensor_type type, int nt, const uint8_t *w, size_t k_bytes, bool full, __mmask32 mask,
                       bool ahead, uint32_t n_k, const float *x, size_t ldx, __m512 *sums) {
    __m512 acc[FLOATS_AT_ONCE][2];
    UNROLL for (int t = 0; t < nt; t++) acc[t][0] = sums[2 * t], acc[t][1] = sums[2 * t + 1];
    for (uint32_t k = 0; k < n_k; k++, w += k_bytes) {
        __m512 v[2];
        if (ahead) fetch(w + AHEAD, PANEL_ROWS * (type == TT_F32 ? 4 : 2));
        load_floats(type, v, w, full, mask);
        UNROLL for (int t = 0; t < nt; t++) {
            const __m512 xt = _mm512_set1_ps(x[(size_t)t * ldx + k]);
            acc[t][0] = _mm512_fmadd_ps(v[0], xt, acc[t][0]);
            acc[t][1] = _mm512_fmadd_ps(v[1], xt, acc[t][1]);
        }
    }
    UNROLL for (int t = 0; t < nt; t++) sums[2 * t] = acc[t][0], sums[2 * t + 1] = acc[t][1];
}

/* Few tokens: the panel is read once, from where it stands. */
INLINE void mul_panel_few(tensor_type type, int nt, const packed *p, const uint8_t *w, __mmask32 mask, const float *x,
                          size_t ldx, __m512 *sums) {
    const size_t k_bytes = (size_t)__builtin_popcount(mask) * (type == TT_F32 ? 4 : 2);
    if (mask == 0xffffffff)
        float_step(type, nt, w, PANEL_ROWS * (type == TT_F32 ? 4 : 2), true, mask, true, p->cols, x, ldx, sums);
    else
        float_step(type, nt, w, k_bytes, false, mask, true, p->cols, x, ldx, sums);
}

static void float_steps(const float *w, uint32_t n_k, const float *x, size_t ldx, uint32_t n, __m512 *sums) {
    const uint8_t *p = (const uint8_t *)w;
    const size_t row = PANEL_ROWS * sizeof *w;
    for (; n >= FLOATS_AT_ONCE; n -= FLOATS_AT_ONCE, x += FLOATS_AT_ONCE * ldx, sums += 2 * FLOATS_AT_ONCE)
        float_step(TT_F32, FLOATS_AT_ONCE, p, row, true, 0, false, n_k, x, ldx, sums);
    for (; n >= 4; n -= 4, x += 4 * ldx, sums += 8) float_step(TT_F32, 4, p, row, true, 0, false, n_k, x, ldx, sums);
    for (; n > 0; n--, x += ldx, sums += 2) float_step(TT_F32, 1, p, row, true, 0, false, n_k, x, ldx, sums);
}

INLINE void mul_panel(tensor_type type, const packed *p, uint32_t panel, const acts_view *a, uint32_t t0, uint32_t n,
                      __m512 *sums) {
    const uint8_t *w = p->data + panel * p->task_bytes;
    uint32_t n_groups = p->n_groups - panel * PANEL_GROUPS;
    if (n_groups > PANEL_GROUPS) n_groups = PANEL_GROUPS;
    const __mmask32 mask = (__mmask32)(0xffffffffu >> (PANEL_ROWS - n_groups * LANES));
    const size_t k_bytes = (size_t)n_groups * LANES * p->unit_bytes;
    const float *x = a->x + t0 * a->ldx;
    switch (n) {
    case 1: mul_panel_few(type, 1, p, w, mask, x, a->ldx, sums); return;
    case 2: mul_panel_few(type, 2, p, w, mask, x, a->ldx, sums); return;
    case 3: mul_panel_few(type, 3, p, w, mask, x, a->ldx, sums); return;
    case 4: mul_panel_few(type, 4, p, w, mask, x, a->ldx, sums); return;
    case 5: mul_panel_few(type, 5, p, w, mask, x, a->ldx, sums); return;
    case 6: mul_panel_few(type, 6, p, w, mask, x, a->ldx, sums); return;
    case 7: mul_panel_few(type, 7, p, w, mask, x, a->ldx, sums); return;
    case 8: mul_panel_few(type, 8, p, w, mask, x, a->ldx, sums); return;
    default: break;
    }
    float room[CHUNK * PANEL_ROWS];
    for (uint32_t k = 0; k < p->cols; k += CHUNK) {
        uint32_t n_k = p->cols - k < CHUNK ? p->cols - k : CHUNK;
        for (uint32_t i = 0; i < n_k; i++) {
            __m512 v[2];
            load_floats(type, v, w + (k + i) * k_bytes, false, mask);
            _mm512_storeu_ps(room + i * PANEL_ROWS, v[0]);
            _mm512_storeu_ps(room + i * PANEL_ROWS + 16, v[1]);
        }
        float_steps(room, n_k, x + k, a->ldx, n, sums);
    }
}

INLINE void mul_floats(tensor_type type, const packed *p, uint32_t begin, uint32_t end, const acts_view *a, float *y,
                       size_t ldy) {
    for (uint32_t t0 = 0; t0 < a->n; t0 += FLOAT_TILE) {
        uint32_t n = a->n - t0 < FLOAT_TILE ? a->n - t0 : FLOAT_TILE;
        for (uint32_t i = begin; i < end; i++) {
            __m512 sums[2 * FLOAT_TILE];
            for (uint32_t s = 0; s < 2 * n; s++) sums[s] = _mm512_setzero_ps();
            mul_panel(type, p, i, a, t0, n, sums);
            for (uint32_t t = 0; t < n; t++)
                for (uint32_t r = 0; r < 2 && i * PANEL_ROWS + 16 * r < p->rows; r++)
                    store_rows(y + (t0 + t) * ldy + i * PANEL_ROWS + 16 * r, sums[2 * t + r],
                               p->rows - i * PANEL_ROWS - 16 * r);
        }
    }
}

/* ---- the table --------------------------------------------------------------------------------------------------- */

static void mul(const packed *p, uint32_t begin, uint32_t end, const acts_view *a, float *y, size_t ldy) {
    switch (p->type) {
    case TT_F32: mul_floats(TT_F32, p, begin, end, a, y, ldy); return;
    case TT_F16: mul_floats(TT_F16, p, begin, end, a, y, ldy); return;
    case TT_BF16: mul_floats(TT_BF16, p, begin, end, a, y, ldy); return;
    default: break;
    }
    const type_kernels *k = &by_type[p->type];
    if (a->n <= FEW)
        k->few(p, begin, end, a, y, ldy);
    else
        mul_many(k, p, begin, end, a, y, ldy);
}

const mat_kernels mat_avx512 = {quantise, mul};
