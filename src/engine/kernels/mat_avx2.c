/* AVX2, FMA and F16C: the numerics of kernels.h with a row in each 32-bit lane. Compiled with these instruction sets
 * switched on, so nothing here runs before isa.c has found them.
 *
 * Integer sums. maddubs multiplies unsigned weights by signed activations and adds pairs into 16 bits, saturating at
 * 32,767; what may be added up before madd widens to 32 bits is bounded by the largest weight (activations: 127):
 *     4 bits: all 8 registers of a block    8 x 2 x 15 x 127 = 30,480
 *     5 bits: 4 registers                   4 x 2 x 31 x 127 = 31,496
 *     6 bits: 2 registers                   2 x 2 x 63 x 127 = 32,004
 *     8 bits: none, so w + 128 is cut into two chains of four bits, w = 16 hi + lo - 128
 */
#include "engine/kernels/inline.h"
#include "engine/kernels/kernels.h"
#include "engine/kernels/types.h"

#include <immintrin.h>
#include <string.h>

/* A value that must be in a register here. Without it gcc puts off the additions of a whole block and spills every
 * product on the way. */
#define KEEP(v) __asm__("" : "+x"(v))
/* A pointer that the compiler knows nothing about: what it points to stays in memory until it is used. Otherwise gcc
 * takes the loads out of a loop over tokens, has no registers for them, and copies them from memory to memory. */
INLINE const void *opaque(const void *p) {
    __asm__ volatile("" : "+r"(p));
    return p;
}
#define OPAQUE(p) ((const weights *)opaque(p))

/* ---- activations ------------------------------------------------------------------------------------------- */

INLINE int32_t sum_epi32(__m128i v) {
    v = _mm_add_epi32(v, _mm_shuffle_epi32(v, 0x4e));
    v = _mm_add_epi32(v, _mm_shuffle_epi32(v, 0xb1));
    return _mm_cvtsi128_si32(v);
}

INLINE int32_t sum_8(__m256i v) {
    return sum_epi32(_mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1)));
}

/* As in mat_scalar.c; conversion rounds half to even because nobody changes MXCSR. */
static void quantise_block(act_block *b, const float *x) {
    __m256 v[4];
    __m256i top = _mm256_setzero_si256();
    UNROLL for (int i = 0; i < 4; i++) {
        v[i] = _mm256_loadu_ps(x + 8 * i);
        top = _mm256_max_epu32(top, _mm256_and_si256(_mm256_castps_si256(v[i]), _mm256_set1_epi32(0x7fffffff)));
    }
    __m128i t = _mm_max_epu32(_mm256_castsi256_si128(top), _mm256_extracti128_si256(top, 1));
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
    __m256 scale = _mm256_set1_ps(127.0f / amax);
    __m256i q[4];
    UNROLL for (int i = 0; i < 4; i++) q[i] = _mm256_cvtps_epi32(_mm256_mul_ps(v[i], scale));
    int32_t s0 = sum_8(_mm256_add_epi32(q[0], q[1])), s1 = sum_8(_mm256_add_epi32(q[2], q[3]));
    /* packs work in halves of 128 bits: put the dwords back in order */
    __m256i p = _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
    p = _mm256_permutevar8x32_epi32(p, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    _mm256_storeu_si256((__m256i *)(void *)b->q, p);
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

/* ---- 32 weights of 8 rows in registers ---------------------------------------------------------------------- */

/* How the integer dot of a type goes. */
typedef enum dot_kind {
    DOT_4,       /* four bits, one chain */
    DOT_5,       /* five bits, two chains */
    DOT_8,       /* two chains of four bits */
    DOT_16_FEW,  /* scales per 16, two or three bits */
    DOT_16_MANY, /* scales per 16, six bits */
} dot_kind;

typedef struct weights {
    __m256i q[16]; /* unsigned integers; DOT_8: low four bits, then high four bits; wide: see spell_wide */
    __m256 scale;  /* per 32: d sc; per 16: d */
    __m256 min;    /* m, dmin m or dmin */
    __m256i sc[2]; /* per 16: the scale twice, as two int16 */
    __m256i sc01;  /* per 16: both scales as two int16 */
    __m256i m01;
} weights;

INLINE dot_kind kind_of(tensor_type t) {
    switch (t) {
    case TT_Q8_0:
    case TT_IQ4_NL:
    case TT_IQ4_XS: return DOT_8;
    case TT_Q5_0:
    case TT_Q5_1:
    case TT_MXFP4:
    case TT_Q5_K: return DOT_5;
    case TT_Q2_K:
    case TT_Q3_K: return DOT_16_FEW;
    case TT_Q6_K: return DOT_16_MANY;
    default: return DOT_4;
    }
}

INLINE __m256i load(const uint8_t *p) {
    return _mm256_loadu_si256((const __m256i *)(const void *)p);
}
INLINE __m256 load_f16(const uint8_t *p) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p));
}
INLINE __m256 load_bf16(const uint8_t *p) {
    __m256i v = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(v, 16));
}
/* 2^(e - 128); below e = 2 it is subnormal */
INLINE __m256 load_e8m0(const uint8_t *p) {
    __m256i e = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p)), one = _mm256_set1_epi32(1);
    __m256i small = _mm256_sllv_epi32(_mm256_set1_epi32(0x200000), e);
    __m256i usual = _mm256_slli_epi32(_mm256_sub_epi32(e, one), 23);
    return _mm256_castsi256_ps(_mm256_blendv_epi8(small, usual, _mm256_cmpgt_epi32(e, one)));
}
INLINE __m256i load_i8(const uint8_t *p) {
    return _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p));
}
INLINE __m256i pair16(__m256i low, __m256i high) {
    return _mm256_blend_epi16(low, _mm256_slli_epi32(high, 16), 0xaa);
}

INLINE void load_4bit(weights *w, const uint8_t *p) {
    const __m256i mask = _mm256_set1_epi8(15);
    UNROLL for (int i = 0; i < 4; i++) {
        __m256i v = load(p + 32 * i);
        w->q[i] = _mm256_and_si256(v, mask);
        w->q[i + 4] = _mm256_and_si256(_mm256_srli_epi16(v, 4), mask);
    }
}

INLINE void load_2bit(weights *w, const uint8_t *p) {
    const __m256i mask = _mm256_set1_epi8(3);
    UNROLL for (int i = 0; i < 2; i++) {
        __m256i v = load(p + 32 * i);
        w->q[i] = _mm256_and_si256(v, mask);
        w->q[i + 2] = _mm256_and_si256(_mm256_srli_epi16(v, 2), mask);
        w->q[i + 4] = _mm256_and_si256(_mm256_srli_epi16(v, 4), mask);
        w->q[i + 6] = _mm256_and_si256(_mm256_srli_epi16(v, 6), mask);
    }
}

/* Bits j of the bytes at p become bit `width` of register j. */
INLINE void or_1bit(weights *w, const uint8_t *p, int width) {
    const __m256i v = load(p), mask = _mm256_set1_epi8((char)(1 << width));
    UNROLL for (int j = 0; j < 8; j++) {
        __m256i s = j <= width ? _mm256_slli_epi16(v, width - j) : _mm256_srli_epi16(v, j - width);
        w->q[j] = _mm256_or_si256(w->q[j], _mm256_and_si256(s, mask));
    }
}

/* Two bits above four. */
INLINE void or_2bit(weights *w, const uint8_t *p) {
    const __m256i mask = _mm256_set1_epi8(0x30);
    UNROLL for (int i = 0; i < 2; i++) {
        const __m256i v = load(p + 32 * i);
        w->q[i] = _mm256_or_si256(w->q[i], _mm256_and_si256(_mm256_slli_epi16(v, 4), mask));
        w->q[i + 2] = _mm256_or_si256(w->q[i + 2], _mm256_and_si256(_mm256_slli_epi16(v, 2), mask));
        w->q[i + 4] = _mm256_or_si256(w->q[i + 4], _mm256_and_si256(v, mask));
        w->q[i + 6] = _mm256_or_si256(w->q[i + 6], _mm256_and_si256(_mm256_srli_epi16(v, 2), mask));
    }
}

INLINE void load_8bit(weights *w, const uint8_t *p) {
    const __m256i mask = _mm256_set1_epi8(15), flip = _mm256_set1_epi8(8);
    UNROLL for (int j = 0; j < 8; j++) {
        __m256i v = load(p + 32 * j);
        w->q[j] = _mm256_and_si256(v, mask);
        w->q[8 + j] = _mm256_xor_si256(_mm256_and_si256(_mm256_srli_epi16(v, 4), mask), flip);
    }
}

/* Four-bit indices to table[i] + 128, low and high four bits. */
INLINE void load_table(weights *w, const uint8_t *p) {
    __m128i t = _mm_add_epi8(_mm_loadu_si128((const __m128i *)(const void *)iq4_table), _mm_set1_epi8((char)128));
    const __m256i low = _mm256_broadcastsi128_si256(_mm_and_si128(t, _mm_set1_epi8(15)));
    const __m256i high = _mm256_broadcastsi128_si256(_mm_and_si128(_mm_srli_epi16(t, 4), _mm_set1_epi8(15)));
    load_4bit(w, p);
    UNROLL for (int j = 0; j < 8; j++) {
        w->q[8 + j] = _mm256_shuffle_epi8(high, w->q[j]);
        w->q[j] = _mm256_shuffle_epi8(low, w->q[j]);
    }
}

/* Four-bit indices to table[i] + 12: 0 to 24. */
INLINE void load_mxfp4(weights *w, const uint8_t *p) {
    __m128i t = _mm_add_epi8(_mm_loadu_si128((const __m128i *)(const void *)mxfp4_table), _mm_set1_epi8(12));
    const __m256i table = _mm256_broadcastsi128_si256(t);
    load_4bit(w, p);
    UNROLL for (int j = 0; j < 8; j++) w->q[j] = _mm256_shuffle_epi8(table, w->q[j]);
}

INLINE void load_integers(tensor_type t, weights *w, const uint8_t *part) {
    const uint8_t *bits = part + (is_per_16(t) ? 16 : has_scaled_min(t) ? 16 : t == TT_IQ4_XS ? 8 : 0);
    switch (t) {
    case TT_Q8_0: load_8bit(w, bits); break;
    case TT_IQ4_NL:
    case TT_IQ4_XS: load_table(w, bits); break;
    case TT_MXFP4: load_mxfp4(w, bits); break;
    case TT_Q5_0:
    case TT_Q5_1:
    case TT_Q5_K:
        load_4bit(w, bits + 32);
        or_1bit(w, bits, 4);
        break;
    case TT_Q3_K:
        load_2bit(w, bits + 32);
        or_1bit(w, bits, 2);
        break;
    case TT_Q2_K: load_2bit(w, bits); break;
    case TT_Q6_K:
        load_4bit(w, bits + 64);
        or_2bit(w, bits);
        break;
    default: load_4bit(w, bits);
    }
}

INLINE void load_scales(tensor_type t, weights *w, const uint8_t *unit, const uint8_t *part) {
    __m256 d = t == TT_MXFP4 ? load_e8m0(unit) : load_f16(unit), dmin = _mm256_setzero_ps();
    if (has_head_min(t)) dmin = load_f16(unit + 16);
    w->scale = d;
    w->min = dmin;
    if (is_per_16(t)) {
        __m256i a = load_i8(part), b = load_i8(part + 8);
        if (t == TT_Q2_K) {
            const __m256i mask = _mm256_set1_epi32(15);
            w->m01 = pair16(_mm256_and_si256(_mm256_srli_epi32(a, 4), mask),
                            _mm256_and_si256(_mm256_srli_epi32(b, 4), mask));
            a = _mm256_and_si256(a, mask);
            b = _mm256_and_si256(b, mask);
        }
        w->sc[0] = pair16(a, a);
        w->sc[1] = pair16(b, b);
        w->sc01 = pair16(a, b);
    } else if (is_256(t)) {
        w->scale = _mm256_mul_ps(d, _mm256_cvtepi32_ps(load_i8(part)));
        if (has_scaled_min(t)) w->min = _mm256_mul_ps(dmin, _mm256_cvtepi32_ps(load_i8(part + 8)));
    }
}

/* ---- one block times NT tokens ------------------------------------------------------------------------------- */

INLINE __m256i bcast(const void *p) {
    int32_t v;
    memcpy(&v, p, 4);
    return _mm256_set1_epi32(v);
}

/* Registers [from, from + n) of q times the activations of NT tokens, in 16 bits. */
INLINE void chain(__m256i *out, const __m256i *q, int from, int n, const act_block *x, int nt) {
    UNROLL for (int j = from; j < from + n; j++) UNROLL for (int t = 0; t < nt; t++) {
        __m256i p = _mm256_maddubs_epi16(q[j], bcast(x[t].q + 4 * j));
        out[t] = j == from ? p : _mm256_add_epi16(out[t], p);
        KEEP(out[t]);
    }
}

INLINE void dot_one_scale(tensor_type type, __m256i *dot, const weights *w, const act_block *x, int nt) {
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i a[4], b[4];
    dot_kind kind = kind_of(type);
    if (kind == DOT_8) {
        UNROLL for (int j = 0; j < 8; j++) UNROLL for (int t = 0; t < nt; t++) {
            __m256i v = bcast(x[t].q + 4 * j);
            __m256i lo = _mm256_maddubs_epi16(w->q[j], v), hi = _mm256_maddubs_epi16(w->q[8 + j], v);
            a[t] = j ? _mm256_add_epi16(a[t], lo) : lo;
            b[t] = j ? _mm256_add_epi16(b[t], hi) : hi;
            KEEP(a[t]);
            KEEP(b[t]);
        }
    } else {
        chain(a, w->q, 0, kind == DOT_5 ? 4 : 8, x, nt);
        if (kind == DOT_5) chain(b, w->q, 4, 4, x, nt);
    }
    UNROLL for (int t = 0; t < nt; t++) {
        dot[t] = _mm256_madd_epi16(a[t], ones);
        if (kind == DOT_5) dot[t] = _mm256_add_epi32(dot[t], _mm256_madd_epi16(b[t], ones));
        if (kind == DOT_8) {
            __m256i hi = _mm256_add_epi32(_mm256_madd_epi16(b[t], ones), bcast(&x[t].nsum8));
            dot[t] = _mm256_add_epi32(dot[t], _mm256_slli_epi32(hi, 4));
        }
        if (type == TT_Q4_0) dot[t] = _mm256_add_epi32(dot[t], bcast(&x[t].nsum8));
        if (type == TT_MXFP4) { /* 12 is 8 and half of it */
            __m256i off = bcast(&x[t].nsum8);
            dot[t] = _mm256_add_epi32(dot[t], _mm256_add_epi32(off, _mm256_srai_epi32(off, 1)));
        }
        if (type == TT_Q5_0) dot[t] = _mm256_add_epi32(dot[t], _mm256_slli_epi32(bcast(&x[t].nsum8), 1));
    }
}

INLINE void dot_per_16(tensor_type type, __m256i *dot, const weights *w, const act_block *x, int nt) {
    int n = kind_of(type) == DOT_16_FEW ? 4 : 2; /* registers that 16 bits can hold */
    UNROLL for (int j = 0; j < 8; j += n) {
        __m256i a[4];
        chain(a, w->q, j, n, x, nt);
        UNROLL for (int t = 0; t < nt; t++) {
            __m256i v = _mm256_madd_epi16(a[t], w->sc[j / 4]);
            dot[t] = j ? _mm256_add_epi32(dot[t], v) : v;
        }
    }
    int log_offset = type == TT_Q6_K ? 5 : 2;
    UNROLL for (int t = 0; t < nt && type != TT_Q2_K; t++) {
        __m256i off = _mm256_madd_epi16(w->sc01, bcast(x[t].s));
        dot[t] = _mm256_sub_epi32(dot[t], _mm256_slli_epi32(off, log_offset));
    }
}

/* acc[t] += block, by the floating-point steps of kernels.h. */
INLINE void step(tensor_type type, __m256 *acc, const weights *w, const act_block *x, int nt) {
    __m256i dot[4];
    if (is_per_16(type))
        dot_per_16(type, dot, w, x, nt);
    else
        dot_one_scale(type, dot, w, x, nt);
    UNROLL for (int t = 0; t < nt; t++) {
        __m256 d = _mm256_set1_ps(x[t].d);
        acc[t] = _mm256_fmadd_ps(_mm256_mul_ps(w->scale, d), _mm256_cvtepi32_ps(dot[t]), acc[t]);
        if (has_added_min(type)) acc[t] = _mm256_fmadd_ps(w->min, _mm256_set1_ps(x[t].asum), acc[t]);
        if (has_scaled_min(type)) acc[t] = _mm256_fnmadd_ps(w->min, _mm256_set1_ps(x[t].asum), acc[t]);
        if (type == TT_Q2_K) {
            __m256i m = _mm256_madd_epi16(w->m01, bcast(x[t].s));
            acc[t] = _mm256_fnmadd_ps(_mm256_mul_ps(w->min, d), _mm256_cvtepi32_ps(m), acc[t]);
        }
    }
}

/* ---- products of quantised types ------------------------------------------------------------------------------ */

INLINE void store_rows(float *y, __m256 v, uint32_t n) {
    if (n >= LANES) {
        _mm256_storeu_ps(y, v);
        return;
    }
    float f[LANES];
    _mm256_storeu_ps(f, v);
    memcpy(y, f, n * sizeof *f);
}

/* Block b of a group: the scales and the 32 weights. */
INLINE void load_block(tensor_type type, weights *w, const packed *p, const uint8_t *group, uint32_t b) {
    const uint8_t *unit = group + (size_t)(is_256(type) ? b / 8 : b) * p->unit_bytes;
    const uint8_t *part = unit +
                          (type == TT_MXFP4     ? 8
                           : has_head_min(type) ? 32
                                                : 16) +
                          (is_256(type) ? b % 8 * p->part_bytes : 0);
    load_scales(type, w, unit, part);
    load_integers(type, w, part);
}

INLINE __m256i even_bytes(__m256i v) {
    return _mm256_srai_epi16(_mm256_slli_epi16(v, 8), 8);
}
INLINE __m256i odd_bytes(__m256i v) {
    return _mm256_srai_epi16(v, 8);
}

/* Signed bytes of register j as int16: places 2 j and 2 j + 1. */
INLINE void spell_wide(tensor_type type, weights *w, const uint8_t *p) {
    __m256i v[8];
    if (type == TT_Q8_0) {
        UNROLL for (int j = 0; j < 8; j++) v[j] = load(p + 32 * j);
    } else {
        const __m256i table = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)iq4_table));
        load_4bit(w, p);
        UNROLL for (int j = 0; j < 8; j++) v[j] = _mm256_shuffle_epi8(table, w->q[j]);
    }
    UNROLL for (int j = 0; j < 8; j++) {
        w->q[2 * j] = even_bytes(v[j]);
        w->q[2 * j + 1] = odd_bytes(v[j]);
    }
}

/* As load_block, the integers as int16. */
INLINE void load_block_wide(tensor_type type, weights *w, const packed *p, const uint8_t *group, uint32_t b) {
    const bool super = type == TT_IQ4_XS;
    const uint8_t *unit = group + (size_t)(super ? b / 8 : b) * p->unit_bytes;
    const uint8_t *part = unit + 16 + (super ? b % 8 * p->part_bytes : 0);
    load_scales(type, w, unit, part);
    spell_wide(type, w, part + (super ? 8 : 0));
}

#define STREAM 4    /* tokens whose sums stay in registers */
#define AHEAD  4096 /* bytes */
/* Bytes of a block of 32 in a unit, with its share of the head. */
INLINE uint32_t block_bytes(tensor_type t) {
    uint32_t head = t == TT_MXFP4 ? 8 : has_head_min(t) ? 32 : 16;
    uint32_t scales = is_per_16(t) || has_scaled_min(t) ? 16 : t == TT_IQ4_XS ? 8 : 0;
    uint32_t low = t == TT_Q8_0 ? 256 : kind_of(t) == DOT_16_FEW ? 64 : 128;
    uint32_t high = t == TT_Q6_K ? 64 : t == TT_Q3_K || (kind_of(t) == DOT_5 && t != TT_MXFP4) ? 32 : 0;
    return (is_256(t) ? head / 8 : head) + scales + high + low;
}

/* Lines of the block that begins at p on their way to the nearest cache; p may lie past the end of everything. */
INLINE void fetch(tensor_type t, const uint8_t *p) {
    UNROLL for (uint32_t i = 0; i < (block_bytes(t) + 63) / 64; i++)
        _mm_prefetch((const char *)(p + 64 * i), _MM_HINT_T0);
}

INLINE void stream_block(tensor_type type, const uint8_t *unit, const uint8_t *part, const uint8_t *at,
                         const act_block *x, const int n, __m256 *acc) {
    weights w;
    fetch(type, at + AHEAD);
    load_scales(type, &w, unit, part);
    load_integers(type, &w, part);
    step(type, acc, &w, x, n);
}

/* A few tokens: memory is the limit, so each group streams by once and is fetched ahead of its use. One group at a
 * time: two streams side by side halve what memory delivers. The walk knows the sizes of units and parts, for in the
 * products of one token there is little to hide the search for a block behind. */
INLINE void mul_stream(tensor_type type, const packed *p, uint32_t group, const acts_view *a, const int n, float *y,
                       size_t ldy) {
    const uint32_t per_unit = is_256(type) ? 8 : 1, head = type == TT_MXFP4 ? 8 : has_head_min(type) ? 32 : 16;
    const uint32_t part_bytes = block_bytes(type) - head / per_unit;
    const uint8_t *unit = p->data + group * p->task_bytes, *end = unit + p->task_bytes;
    const act_block *x = a->blocks;
    __m256 acc[STREAM];
    UNROLL for (int t = 0; t < n; t++) acc[t] = _mm256_setzero_ps();
    for (; unit < end; unit += (size_t)per_unit * block_bytes(type))
        for (uint32_t i = 0; i < per_unit; i++, x += a->ldb)
            stream_block(type, unit, unit + head + i * part_bytes, unit + i * block_bytes(type), x, n, acc);
    UNROLL for (int t = 0; t < n; t++) store_rows(y + (size_t)t * ldy + group * LANES, acc[t], p->rows - group * LANES);
}

/* More of them than STREAM, sooner than mul_pair gains anything by spelling out the weights. */
INLINE uint32_t few_of(tensor_type type) {
    return kind_of(type) == DOT_5 ? 8 : 7;
}
/* Types whose weights cost more to unpack than sums to spill. */
INLINE bool is_slow_to_unpack(tensor_type type) {
    return kind_of(type) == DOT_5 || type == TT_Q3_K || type == TT_Q6_K;
}

/* Weights are unpacked once, sums are spilled. */
INLINE void mul_once(tensor_type type, const packed *p, uint32_t group, const acts_view *a, float *y, size_t ldy) {
    const uint8_t *start = p->data + group * p->task_bytes;
    __m256 acc[2 * STREAM];
    for (uint32_t t = 0; t < a->n; t++) acc[t] = _mm256_setzero_ps();
    for (uint32_t b = 0; b < p->cols / 32; b++) {
        weights w;
        fetch(type, start + (size_t)b * block_bytes(type) + AHEAD);
        load_block(type, &w, p, start, b);
        const act_block *x = a->blocks + b * a->ldb;
        uint32_t t = 0;
        for (; t + STREAM <= a->n; t += STREAM) step(type, acc + t, &w, x + t, STREAM);
        for (; t < a->n; t++) step(type, acc + t, &w, x + t, 1);
    }
    for (uint32_t t = 0; t < a->n; t++) store_rows(y + t * ldy + group * LANES, acc[t], p->rows - group * LANES);
}

/* In passes: the group stays in the first or second cache meanwhile. */
INLINE void mul_few(tensor_type type, const packed *p, uint32_t group, const acts_view *a, float *y, size_t ldy) {
    if (is_slow_to_unpack(type) && a->n > STREAM) {
        mul_once(type, p, group, a, y, ldy);
        return;
    }
    const uint32_t n_passes = (a->n + STREAM - 1) / STREAM;
    acts_view part = *a;
    for (uint32_t i = 0, t = 0; i < n_passes; i++, t += part.n) {
        part.n = (a->n - t + n_passes - i - 1) / (n_passes - i); /* of 5: 3 and 2 */
        part.blocks = a->blocks + t;
        switch (part.n) {
        case 1: mul_stream(type, p, group, &part, 1, y + t * ldy, ldy); break;
        case 2: mul_stream(type, p, group, &part, 2, y + t * ldy, ldy); break;
        case 3: mul_stream(type, p, group, &part, 3, y + t * ldy, ldy); break;
        default: mul_stream(type, p, group, &part, STREAM, y + t * ldy, ldy);
        }
    }
}

/* ---- products of quantised types, several tokens ---------------------------------------------------------------- */

/* Groups of rows pass in pairs, so that an activation, once in a register, is multiplied twice; columns pass in chunks,
 * so that the activations of a tile of tokens stay in the first cache while all the groups of a batch read them. */
#define TILE  64  /* tokens */
#define BATCH 16  /* groups */
#define NT    4   /* tokens whose sums are in registers together */
#define ROOM  256 /* blocks of activations of a chunk: tokens by blocks */

/* Bytes 0 and 2 of each dword as int16, then 1 and 3. */
typedef struct wide {
    int32_t q[16];
    float d;
} wide;

INLINE bool is_wide(tensor_type t) {
    return kind_of(t) == DOT_8;
}
/* What 16-bit sums take off every weight. */
INLINE int centre_of(tensor_type t) {
    switch (t) {
    case TT_Q5_0:
    case TT_Q5_1:
    case TT_Q5_K: return 16;
    case TT_MXFP4: return 12;
    case TT_Q3_K: return 4;
    case TT_Q6_K: return 32;
    default: return 0;
    }
}

/* Types with a centre: 16-bit sums begin with -centre times the sum of the activations that they take in (here in place
 * of s, for the second half in place of nsum8). They may wrap around on their way, since only the last value counts,
 * and that fits: of 32 weights a 16-bit lane adds 16 products, 5 bits: 16 x 16 x 127 = 32,512     6 bits, halves of a
 * block: 8 x 32 x 127 = 32,512 */
INLINE void centre_set(tensor_type type, act_block *to, const act_block *x) {
    __m256i q = _mm256_loadu_si256((const __m256i *)(const void *)x->q);
    __m256i s = _mm256_maddubs_epi16(_mm256_set1_epi8(1), q);
    s = _mm256_mullo_epi16(s, _mm256_set1_epi16((short)-centre_of(type)));
    s = _mm256_add_epi16(s, _mm256_shuffle_epi32(s, 0x4e));
    s = _mm256_add_epi16(s, _mm256_shuffle_epi32(s, 0xb1));
    __m128i lo = _mm256_castsi256_si128(s), hi = _mm256_extracti128_si256(s, 1);
    if (!is_per_16(type)) lo = _mm_add_epi16(lo, hi);
    int32_t first = _mm_cvtsi128_si32(lo);
    *to = *x;
    memcpy(to->s, &first, 4);
    if (is_per_16(type)) to->nsum8 = _mm_cvtsi128_si32(hi);
    if (type == TT_Q5_1 || type == TT_Q5_K) to->nsum8 = -2 * x->nsum8; /* puts the centre back: 16 (s0 + s1) */
}

INLINE void wide_set(wide *to, const act_block *x) {
    __m256i q = _mm256_loadu_si256((const __m256i *)(const void *)x->q);
    _mm256_storeu_si256((__m256i *)(void *)to->q, even_bytes(q));
    _mm256_storeu_si256((__m256i *)(void *)(to->q + 8), odd_bytes(q));
    to->d = x->d;
}

/* Registers [from, from + n) of two groups times the activations of nt tokens, in 16 bits. */
INLINE void chain_pair(tensor_type type, __m256i (*a)[NT], const weights *w, int from, int n, const act_block *x,
                       int nt) {
    if (centre_of(type)) {
        UNROLL for (int t = 0; t < nt; t++) a[0][t] = a[1][t] = from ? bcast(&x[t].nsum8) : bcast(x[t].s);
    }
    UNROLL for (int j = from; j < from + n; j++) {
        __m256i w0 = w[0].q[j], w1 = w[1].q[j];
        KEEP(w0);
        KEEP(w1);
        UNROLL for (int t = 0; t < nt; t++) {
            __m256i v = bcast(x[t].q + 4 * j);
            __m256i p0 = _mm256_maddubs_epi16(w0, v), p1 = _mm256_maddubs_epi16(w1, v);
            bool first = j == from && !centre_of(type);
            a[0][t] = first ? p0 : _mm256_add_epi16(a[0][t], p0);
            a[1][t] = first ? p1 : _mm256_add_epi16(a[1][t], p1);
            KEEP(a[0][t]);
            KEEP(a[1][t]);
        }
    }
}

INLINE void dot_narrow(tensor_type type, __m256i (*dot)[NT], const weights *w, const act_block *x, int nt) {
    const __m256i ones = _mm256_set1_epi16(1);
    if (!is_per_16(type)) {
        chain_pair(type, dot, w, 0, 8, x, nt);
        UNROLL for (int r = 0; r < 2; r++) UNROLL for (int t = 0; t < nt; t++) {
            dot[r][t] = _mm256_madd_epi16(dot[r][t], ones);
            __m256i n = bcast(&x[t].nsum8);
            if (type == TT_Q4_0 || type == TT_Q5_1 || type == TT_Q5_K) dot[r][t] = _mm256_add_epi32(dot[r][t], n);
        }
        return;
    }
    __m256i half[2][NT]; /* kept in memory while the second half needs the registers */
    chain_pair(type, dot, w, 0, 4, x, nt);
    UNROLL for (int r = 0; r < 2; r++) UNROLL for (int t = 0; t < nt; t++) {
        half[r][t] = _mm256_madd_epi16(dot[r][t], w[r].sc[0]);
        __asm__("" : "+m"(half[r][t]));
    }
    chain_pair(type, dot, w, 4, 4, x, nt);
    UNROLL for (int r = 0; r < 2; r++) UNROLL for (int t = 0; t < nt; t++) dot[r][t] =
        _mm256_add_epi32(_mm256_madd_epi16(dot[r][t], w[r].sc[1]), half[r][t]);
}

/* acc[r][t] += block, by the floating-point steps of kernels.h. */
INLINE void step_narrow(tensor_type type, __m256 (*acc)[TILE], const weights *w, const act_block *x, int nt) {
    __m256i dot[2][NT];
    dot_narrow(type, dot, w, x, nt);
    UNROLL for (int t = 0; t < nt; t++) UNROLL for (int r = 0; r < 2; r++) {
        __m256 d = _mm256_set1_ps(x[t].d), s = acc[r][t];
        s = _mm256_fmadd_ps(_mm256_mul_ps(w[r].scale, d), _mm256_cvtepi32_ps(dot[r][t]), s);
        if (has_added_min(type)) s = _mm256_fmadd_ps(w[r].min, _mm256_set1_ps(x[t].asum), s);
        if (has_scaled_min(type)) s = _mm256_fnmadd_ps(w[r].min, _mm256_set1_ps(x[t].asum), s);
        if (type == TT_Q2_K) {
            __m256i m = _mm256_madd_epi16(w[r].m01, bcast(x[t].s));
            s = _mm256_fnmadd_ps(_mm256_mul_ps(w[r].min, d), _mm256_cvtepi32_ps(m), s);
        }
        acc[r][t] = s;
    }
}

INLINE void step_wide(__m256 (*acc)[TILE], const weights *w, const wide *x, int nt) {
    __m256i dot[2][NT];
    UNROLL for (int j = 0; j < 16; j++) {
        __m256i w0 = w[0].q[j], w1 = w[1].q[j];
        KEEP(w0);
        KEEP(w1);
        UNROLL for (int t = 0; t < nt; t++) {
            __m256i v = bcast(&x[t].q[j / 2 + j % 2 * 8]);
            __m256i p0 = _mm256_madd_epi16(w0, v), p1 = _mm256_madd_epi16(w1, v);
            dot[0][t] = j ? _mm256_add_epi32(dot[0][t], p0) : p0;
            dot[1][t] = j ? _mm256_add_epi32(dot[1][t], p1) : p1;
            KEEP(dot[0][t]);
            KEEP(dot[1][t]);
        }
    }
    UNROLL for (int t = 0; t < nt; t++) UNROLL for (int r = 0; r < 2; r++) {
        __m256 d = _mm256_set1_ps(x[t].d);
        acc[r][t] = _mm256_fmadd_ps(_mm256_mul_ps(w[r].scale, d), _mm256_cvtepi32_ps(dot[r][t]), acc[r][t]);
    }
}

/* Blocks [b0, b1) of groups first and first + 1 (or first alone: then the other's sums are thrown away). next: the pair
 * that comes after. */
INLINE void mul_pair(tensor_type type, const packed *p, const uint8_t *const *group, const uint8_t *const *next,
                     uint32_t b0, uint32_t b1, const void *room, size_t ldb, uint32_t n, __m256 (*acc)[TILE]) {
    for (uint32_t b = b0; b < b1; b++) {
        weights w[2];
        UNROLL for (int r = 0; r < 2; r++) {
            fetch(type, next[r] + (size_t)b * block_bytes(type));
            if (is_wide(type))
                load_block_wide(type, &w[r], p, group[r], b);
            else
                load_block(type, &w[r], p, group[r], b);
        }
        __asm__ volatile("" : : "r"(w) : "memory"); /* not in registers: there are none left */
        const weights *v = w;
        uint32_t t = 0;
        if (is_wide(type)) {
            const wide *x = (const wide *)room + (b - b0) * ldb;
            for (; t + NT <= n; t += NT) step_wide((__m256(*)[TILE])(*acc + t), OPAQUE(v), x + t, NT);
            for (; t < n; t++) step_wide((__m256(*)[TILE])(*acc + t), OPAQUE(v), x + t, 1);
        } else {
            const act_block *x = (const act_block *)room + (b - b0) * ldb;
            for (; t + NT <= n; t += NT) step_narrow(type, (__m256(*)[TILE])(*acc + t), OPAQUE(v), x + t, NT);
            for (; t < n; t++) step_narrow(type, (__m256(*)[TILE])(*acc + t), OPAQUE(v), x + t, 1);
        }
    }
}

/* Groups [begin, end), at most BATCH, times n tokens from t0 on, at most TILE. */
INLINE void mul_batch(tensor_type type, const packed *p, uint32_t begin, uint32_t end, const acts_view *a, uint32_t t0,
                      uint32_t n, float *y, size_t ldy) {
    __m256 acc[BATCH + 1][TILE];
    union {
        act_block a[ROOM];
        wide w[ROOM];
    } room;
    const uint32_t n_blocks = p->cols / 32, chunk = ROOM / n;
    const bool direct = !is_wide(type) && !centre_of(type); /* reads the activations where they are */
    for (uint32_t g = 0; g < end - begin + 1; g++)
        for (uint32_t t = 0; t < n; t++) acc[g][t] = _mm256_setzero_ps();
    for (uint32_t b0 = 0; b0 < n_blocks; b0 += chunk) {
        uint32_t b1 = n_blocks - b0 < chunk ? n_blocks : b0 + chunk;
        for (uint32_t b = b0; b < b1 && !direct; b++)
            for (uint32_t t = 0; t < n; t++) {
                const act_block *x = a->blocks + (size_t)b * a->ldb + t0 + t;
                if (is_wide(type))
                    wide_set(&room.w[(b - b0) * n + t], x);
                else
                    centre_set(type, &room.a[(b - b0) * n + t], x);
            }
        for (uint32_t g = begin; g < end; g += 2) {
            const uint8_t *at = p->data + g * p->task_bytes;
            size_t second = g + 1 < end ? p->task_bytes : 0;
            mul_pair(type, p, (const uint8_t *const[]){at, at + second},
                     (const uint8_t *const[]){at + 2 * p->task_bytes, at + 3 * p->task_bytes}, b0, b1,
                     direct ? (const void *)(a->blocks + (size_t)b0 * a->ldb + t0) : &room, direct ? a->ldb : n, n,
                     acc + (g - begin));
        }
    }
    for (uint32_t g = begin; g < end; g++)
        for (uint32_t t = 0; t < n; t++)
            store_rows(y + (t0 + t) * ldy + g * LANES, acc[g - begin][t], p->rows - g * LANES);
}

INLINE void mul_type(tensor_type type, const packed *p, uint32_t begin, uint32_t end, const acts_view *a, float *y,
                     size_t ldy) {
    if (a->n <= few_of(type)) {
        for (uint32_t g = begin; g < end; g++) mul_few(type, p, g, a, y, ldy);
        return;
    }
    for (uint32_t g = begin; g < end; g += BATCH)
        for (uint32_t t = 0; t < a->n; t += TILE)
            mul_batch(type, p, g, end - g < BATCH ? end : g + BATCH, a, t, a->n - t < TILE ? a->n - t : TILE, y, ldy);
}

#define MUL_OF(name, type)                                                                                      \
    static void name(const packed *p, uint32_t begin, uint32_t end, const acts_view *a, float *y, size_t ldy) { \
        mul_type(type, p, begin, end, a, y, ldy);                                                               \
    }
MUL_OF(mul_q8_0, TT_Q8_0)
MUL_OF(mul_q4_0, TT_Q4_0)
MUL_OF(mul_q4_1, TT_Q4_1)
MUL_OF(mul_q5_0, TT_Q5_0)
MUL_OF(mul_q5_1, TT_Q5_1)
MUL_OF(mul_q2_k, TT_Q2_K)
MUL_OF(mul_q3_k, TT_Q3_K)
MUL_OF(mul_q4_k, TT_Q4_K)
MUL_OF(mul_q5_k, TT_Q5_K)
MUL_OF(mul_q6_k, TT_Q6_K)
MUL_OF(mul_iq4_nl, TT_IQ4_NL)
MUL_OF(mul_iq4_xs, TT_IQ4_XS)
MUL_OF(mul_mxfp4, TT_MXFP4)

/* ---- floats ---------------------------------------------------------------------------------------------------- */

#define CHUNK   128 /* k's of a panel that stay in the first cache, spelt out as binary32, while tokens pass */
#define AT_ONCE 3   /* tokens: 3 x 4 sums in registers */

INLINE __m256 load_weights(tensor_type type, const uint8_t *p) {
    if (type == TT_F32) return _mm256_loadu_ps((const float *)(const void *)p);
    return type == TT_F16 ? load_f16(p) : load_bf16(p);
}

INLINE void fetch_row(const uint8_t *w, int bytes) {
    UNROLL for (int i = 0; i < bytes; i += 64) _mm_prefetch((const char *)(w + AHEAD + i), _MM_HINT_T0);
}

/* sums: (nt, PANEL_GROUPS). ahead: w comes from memory. */
INLINE void float_step(tensor_type type, int n_groups, int nt, const uint8_t *w, bool ahead, uint32_t n_k,
                       const float *x, size_t ldx, __m256 *sums) {
    const int size = type == TT_F32 ? 4 : 2;
    __m256 acc[AT_ONCE][PANEL_GROUPS];
    UNROLL for (int t = 0; t < nt; t++) UNROLL for (int g = 0; g < n_groups; g++) acc[t][g] =
        sums[t * PANEL_GROUPS + g];
    for (uint32_t k = 0; k < n_k; k++, w += n_groups * LANES * size) {
        __m256 v[AT_ONCE];
        if (ahead) fetch_row(w, n_groups * LANES * size);
        UNROLL for (int t = 0; t < nt; t++) v[t] = _mm256_set1_ps(x[t * ldx + k]);
        UNROLL for (int g = 0; g < n_groups; g++) {
            __m256 wg = load_weights(type, w + g * LANES * size);
            UNROLL for (int t = 0; t < nt; t++) acc[t][g] = _mm256_fmadd_ps(wg, v[t], acc[t][g]);
        }
    }
    UNROLL for (int t = 0; t < nt; t++) UNROLL for (int g = 0; g < n_groups; g++) sums[t * PANEL_GROUPS + g] =
        acc[t][g];
}

/* A chunk of a panel: where its weights are as binary32 (F32: where they stand). */
INLINE const uint8_t *spell_out(tensor_type type, float *room, const uint8_t *w, size_t n) {
    if (type == TT_F32) return w;
    for (size_t i = 0; i < n; i += LANES) _mm256_storeu_ps(room + i, load_weights(type, w + 2 * i));
    return (const uint8_t *)room;
}

INLINE void mul_panel_tile(tensor_type type, int n_groups, const packed *p, uint32_t panel, const acts_view *a,
                           uint32_t t0, uint32_t n, __m256 *sums) {
    const uint8_t *w = p->data + panel * p->task_bytes;
    const size_t k_bytes = (size_t)n_groups * LANES * (type == TT_F32 ? 4 : 2);
    if (n == 1) {
        float_step(type, n_groups, 1, w, true, p->cols, a->x + t0 * a->ldx, a->ldx, sums);
        return;
    }
    float room[CHUNK * PANEL_GROUPS * LANES];
    for (uint32_t k = 0; k < p->cols; k += CHUNK) {
        uint32_t n_k = p->cols - k < CHUNK ? p->cols - k : CHUNK, t = 0;
        const uint8_t *f = spell_out(type, room, w + k * k_bytes, (size_t)n_k * (size_t)n_groups * LANES);
        const float *x = a->x + t0 * a->ldx + k;
        for (; t + AT_ONCE <= n; t += AT_ONCE)
            float_step(TT_F32, n_groups, AT_ONCE, f, false, n_k, x + t * a->ldx, a->ldx, sums + t * PANEL_GROUPS);
        for (; t < n; t++)
            float_step(TT_F32, n_groups, 1, f, false, n_k, x + t * a->ldx, a->ldx, sums + t * PANEL_GROUPS);
    }
}

#define FLOAT_TILE 48

INLINE void mul_floats(tensor_type type, const packed *p, uint32_t begin, uint32_t end, const acts_view *a, float *y,
                       size_t ldy) {
    for (uint32_t t0 = 0; t0 < a->n; t0 += FLOAT_TILE) {
        uint32_t n = a->n - t0 < FLOAT_TILE ? a->n - t0 : FLOAT_TILE;
        for (uint32_t i = begin; i < end; i++) {
            __m256 sums[FLOAT_TILE * PANEL_GROUPS];
            for (uint32_t s = 0; s < n * PANEL_GROUPS; s++) sums[s] = _mm256_setzero_ps();
            uint32_t first = i * PANEL_GROUPS, n_groups = p->n_groups - first;
            switch (n_groups) {
            case 1: mul_panel_tile(type, 1, p, i, a, t0, n, sums); break;
            case 2: mul_panel_tile(type, 2, p, i, a, t0, n, sums); break;
            case 3: mul_panel_tile(type, 3, p, i, a, t0, n, sums); break;
            default: mul_panel_tile(type, 4, p, i, a, t0, n, sums);
            }
            for (uint32_t t = 0; t < n; t++)
                for (uint32_t g = 0; g < PANEL_GROUPS && g < n_groups; g++)
                    store_rows(y + (t0 + t) * ldy + (first + g) * LANES, sums[t * PANEL_GROUPS + g],
                               p->rows - (first + g) * LANES);
        }
    }
}

#define FLOATS_OF(name, type)                                                                                   \
    static void name(const packed *p, uint32_t begin, uint32_t end, const acts_view *a, float *y, size_t ldy) { \
        mul_floats(type, p, begin, end, a, y, ldy);                                                             \
    }
FLOATS_OF(mul_f32, TT_F32)
FLOATS_OF(mul_f16, TT_F16)
FLOATS_OF(mul_bf16, TT_BF16)

/* ---- the table --------------------------------------------------------------------------------------------------- */

static void mul(const packed *p, uint32_t begin, uint32_t end, const acts_view *a, float *y, size_t ldy) {
    static void (*const by_type[])(const packed *, uint32_t, uint32_t, const acts_view *, float *, size_t) = {
        [TT_F32] = mul_f32,   [TT_F16] = mul_f16,       [TT_BF16] = mul_bf16,     [TT_Q8_0] = mul_q8_0,
        [TT_Q4_0] = mul_q4_0, [TT_Q4_1] = mul_q4_1,     [TT_Q5_0] = mul_q5_0,     [TT_Q5_1] = mul_q5_1,
        [TT_Q2_K] = mul_q2_k, [TT_Q3_K] = mul_q3_k,     [TT_Q4_K] = mul_q4_k,     [TT_Q5_K] = mul_q5_k,
        [TT_Q6_K] = mul_q6_k, [TT_IQ4_NL] = mul_iq4_nl, [TT_IQ4_XS] = mul_iq4_xs, [TT_MXFP4] = mul_mxfp4,
    };
    by_type[p->type](p, begin, end, a, y, ldy);
}

const mat_kernels mat_avx2 = {quantise, mul};
