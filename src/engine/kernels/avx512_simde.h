/* Internal to engine: AVX-512 by SIMDe, for tests; avx512.h says why and is the only one to include this. */
#ifndef POLDER_ENGINE_KERNELS_AVX512_SIMDE_H
#define POLDER_ENGINE_KERNELS_AVX512_SIMDE_H

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx2.h>
#include <simde/x86/avx512.h>
#include <simde/x86/f16c.h>
#include <simde/x86/fma.h>

#include <string.h>

#define WIDE static inline __attribute__((always_inline))

typedef union wide {
    __m512 ps;
    __m512d pd;
    __m512i i;
    __m256 ps_half[2];
    __m256d pd_half[2];
    __m256i i_half[2];
    __m128i i_quarter[4];
} wide;

/* One instruction over AVX2 for each half. */
#define BY_HALVES_1(name, to, from, type_to, type_from, op) \
    WIDE type_to name(type_from a) {                        \
        wide w = {.from = a};                               \
        for (int h = 0; h < 2; h++) w.to##_half[h] = op;    \
        return w.to;                                        \
    }
BY_HALVES_1(wide_cvtepi32_ps, ps, i, __m512, __m512i, _mm256_cvtepi32_ps(w.i_half[h]))
BY_HALVES_1(wide_cvtps_epi32, i, ps, __m512i, __m512, _mm256_cvtps_epi32(w.ps_half[h]))

WIDE __m512i wide_cvtepi8_epi32(__m128i a) {
    wide w;
    w.i_half[0] = _mm256_cvtepi8_epi32(a);
    w.i_half[1] = _mm256_cvtepi8_epi32(_mm_unpackhi_epi64(a, a));
    return w.i;
}
WIDE __m512i wide_cvtepu16_epi32(__m256i a) {
    wide w;
    w.i_half[0] = _mm256_cvtepu16_epi32(_mm256_castsi256_si128(a));
    w.i_half[1] = _mm256_cvtepu16_epi32(_mm256_extracti128_si256(a, 1));
    return w.i;
}
WIDE __m512i wide_zextsi256_si512(__m256i a) {
    wide w = {.i_half = {a, _mm256_setzero_si256()}};
    return w.i;
}
WIDE __m512 wide_cvtph_ps(__m256i a) {
    wide w;
    w.ps_half[0] = _mm256_cvtph_ps(_mm256_castsi256_si128(a));
    w.ps_half[1] = _mm256_cvtph_ps(_mm256_extracti128_si256(a, 1));
    return w.ps;
}
WIDE __m256i wide_cvtps_ph(__m512 a) { /* to nearest, ties to even: nobody here asks for another way */
    wide w = {.ps = a};
    __m128i low = _mm256_cvtps_ph(w.ps_half[0], _MM_FROUND_TO_NEAREST_INT);
    return _mm256_inserti128_si256(_mm256_castsi128_si256(low),
                                   _mm256_cvtps_ph(w.ps_half[1], _MM_FROUND_TO_NEAREST_INT), 1);
}
WIDE __m512d wide_cvtps_pd(__m256 a) {
    wide w;
    w.pd_half[0] = _mm256_cvtps_pd(_mm256_castps256_ps128(a));
    w.pd_half[1] = _mm256_cvtps_pd(_mm256_extractf128_ps(a, 1));
    return w.pd;
}
WIDE __m256 wide_extractf32x8_ps(__m512 a, int h) {
    wide w = {.ps = a};
    return w.ps_half[h];
}
WIDE __m512 wide_fmadd_ps(__m512 a, __m512 b, __m512 c) {
    wide x = {.ps = a}, y = {.ps = b}, z = {.ps = c};
    for (int h = 0; h < 2; h++) z.ps_half[h] = _mm256_fmadd_ps(x.ps_half[h], y.ps_half[h], z.ps_half[h]);
    return z.ps;
}
WIDE __m512 wide_fnmadd_ps(__m512 a, __m512 b, __m512 c) {
    wide x = {.ps = a}, y = {.ps = b}, z = {.ps = c};
    for (int h = 0; h < 2; h++) z.ps_half[h] = _mm256_fnmadd_ps(x.ps_half[h], y.ps_half[h], z.ps_half[h]);
    return z.ps;
}
/* As the instructions: the second operand where one is a NaN. */
WIDE __m512 wide_max_ps(__m512 a, __m512 b) {
    wide x = {.ps = a}, y = {.ps = b};
    for (int h = 0; h < 2; h++) y.ps_half[h] = _mm256_max_ps(x.ps_half[h], y.ps_half[h]);
    return y.ps;
}
WIDE __m512 wide_min_ps(__m512 a, __m512 b) {
    wide x = {.ps = a}, y = {.ps = b};
    for (int h = 0; h < 2; h++) y.ps_half[h] = _mm256_min_ps(x.ps_half[h], y.ps_half[h]);
    return y.ps;
}
WIDE __m512i wide_madd_epi16(__m512i a, __m512i b) {
    wide x = {.i = a}, y = {.i = b};
    for (int h = 0; h < 2; h++) y.i_half[h] = _mm256_madd_epi16(x.i_half[h], y.i_half[h]);
    return y.i;
}
/* Shifts by what is a constant only after unrolling. */
#define WIDE_SHIFT(name, op)                                                                  \
    WIDE __m512i name(__m512i a, unsigned n) {                                                \
        wide w = {.i = a};                                                                    \
        for (int h = 0; h < 2; h++) w.i_half[h] = op(w.i_half[h], _mm_cvtsi32_si128((int)n)); \
        return w.i;                                                                           \
    }
WIDE_SHIFT(wide_slli_epi16, _mm256_sll_epi16)
WIDE_SHIFT(wide_slli_epi32, _mm256_sll_epi32)
WIDE_SHIFT(wide_srai_epi32, _mm256_sra_epi32)
WIDE_SHIFT(wide_srli_epi16, _mm256_srl_epi16)
WIDE_SHIFT(wide_srli_epi32, _mm256_srl_epi32)

/* Where a mask is 0 memory is not touched. */
WIDE void wide_load(void *to, const void *from, size_t size, uint32_t mask, int lanes) {
    memset(to, 0, size * (size_t)lanes);
    for (int i = 0; i < lanes; i++)
        if (mask >> i & 1) memcpy((char *)to + size * (size_t)i, (const char *)from + size * (size_t)i, size);
}
WIDE void wide_store(void *to, const void *from, size_t size, uint32_t mask, int lanes) {
    for (int i = 0; i < lanes; i++)
        if (mask >> i & 1) memcpy((char *)to + size * (size_t)i, (const char *)from + size * (size_t)i, size);
}
WIDE __m512 wide_maskz_loadu_ps(__mmask16 k, const void *p) {
    wide w;
    wide_load(&w, p, 4, k, 16);
    return w.ps;
}
WIDE __m512i wide_maskz_loadu_epi16(__mmask32 k, const void *p) {
    wide w;
    wide_load(&w, p, 2, k, 32);
    return w.i;
}
WIDE __m256i wide_maskz_loadu_epi16_256(__mmask16 k, const void *p) {
    __m256i v;
    wide_load(&v, p, 2, k, 16);
    return v;
}
WIDE __m128i wide_maskz_loadu_epi8_128(__mmask16 k, const void *p) {
    __m128i v;
    wide_load(&v, p, 1, k, 16);
    return v;
}
WIDE void wide_mask_storeu_ps(void *p, __mmask16 k, __m512 v) {
    wide_store(p, &v, 4, k, 16);
}
WIDE void wide_mask_storeu_ps_256(void *p, __mmask8 k, __m256 v) {
    wide_store(p, &v, 4, k, 8);
}
WIDE void wide_mask_storeu_epi16_256(void *p, __mmask16 k, __m256i v) {
    wide_store(p, &v, 2, k, 16);
}

/* Names as the kernels call them; some SIMDe has under another shape. */
#undef _mm_maskz_loadu_epi8
#undef _mm512_cvtepi32_ps
#undef _mm512_cvtepi8_epi32
#undef _mm512_cvtepu16_epi32
#undef _mm512_cvtph_ps
#undef _mm512_cvtps_epi32
#undef _mm512_cvtps_pd
#undef _mm512_cvtps_ph
#undef _mm512_extractf32x8_ps
#undef _mm512_fmadd_ps
#undef _mm512_fnmadd_ps
#undef _mm512_madd_epi16
#undef _mm512_max_ps
#undef _mm512_min_ps
#undef _mm512_slli_epi16
#undef _mm512_slli_epi32
#undef _mm512_srli_epi16
#undef _mm512_srli_epi32
#undef _mm512_srai_epi32
#undef _mm512_zextsi256_si512
#undef _mm256_mask_storeu_epi16
#undef _mm256_mask_storeu_ps
#undef _mm256_maskz_loadu_epi16
#undef _mm512_mask_max_ps
#undef _mm512_mask_storeu_ps
#undef _mm512_maskz_loadu_epi16
#undef _mm512_maskz_loadu_ps
#define _mm_maskz_loadu_epi8           wide_maskz_loadu_epi8_128
#define _mm512_cvtepi32_ps             wide_cvtepi32_ps
#define _mm512_cvtepi8_epi32           wide_cvtepi8_epi32
#define _mm512_cvtepu16_epi32          wide_cvtepu16_epi32
#define _mm512_cvtph_ps                wide_cvtph_ps
#define _mm512_cvtps_epi32             wide_cvtps_epi32
#define _mm512_cvtps_pd                wide_cvtps_pd
#define _mm512_cvtps_ph(v, how)        wide_cvtps_ph(v)
#define _mm512_extractf32x8_ps         wide_extractf32x8_ps
#define _mm512_fmadd_ps                wide_fmadd_ps
#define _mm512_fnmadd_ps               wide_fnmadd_ps
#define _mm512_madd_epi16              wide_madd_epi16
#define _mm512_max_ps                  wide_max_ps
#define _mm512_min_ps                  wide_min_ps
#define _mm512_slli_epi16              wide_slli_epi16
#define _mm512_slli_epi32              wide_slli_epi32
#define _mm512_srli_epi16              wide_srli_epi16
#define _mm512_srli_epi32              wide_srli_epi32
#define _mm512_srai_epi32              wide_srai_epi32
#define _mm512_zextsi256_si512         wide_zextsi256_si512
#define _mm256_mask_storeu_epi16       wide_mask_storeu_epi16_256
#define _mm256_mask_storeu_ps          wide_mask_storeu_ps_256
#define _mm256_maskz_loadu_epi16       wide_maskz_loadu_epi16_256
#define _mm512_mask_max_ps(v, k, a, b) _mm512_mask_mov_ps(v, k, wide_max_ps(a, b))
#define _mm512_mask_storeu_ps          wide_mask_storeu_ps
#define _mm512_maskz_loadu_epi16       wide_maskz_loadu_epi16
#define _mm512_maskz_loadu_ps          wide_maskz_loadu_ps

#endif
