/* Internal to engine: where the AVX-512 kernels take their instructions from. Compiled for AVX-512 they are the
 * compiler's intrinsics. With POLDER_SIMDE they are SIMDe's over AVX2, FMA and F16C: the same source runs, slowly, on
 * machines without AVX-512, for tests. What SIMDe has not (0.7.4), and what must round once and to even (fused
 * multiply-adds, conversions), is written here by halves of 256 bits.
 */
#ifndef POLDER_ENGINE_KERNELS_AVX512_H
#define POLDER_ENGINE_KERNELS_AVX512_H

#include "engine/kernels/inline.h"

#ifdef POLDER_SIMDE
#include "engine/kernels/avx512_simde.h"
#else
#include <immintrin.h>
#endif

INLINE __m256i load256(const void *p) {
    return _mm256_loadu_si256((const __m256i *)p);
}
INLINE __m128i load128(const void *p) {
    return _mm_loadu_si128((const __m128i *)p);
}
INLINE __m128i load64(const void *p) {
    return _mm_loadl_epi64((const __m128i *)p);
}
INLINE __m512i two256(__m256i a, __m256i b) {
    return _mm512_inserti64x4(_mm512_castsi256_si512(a), b, 1);
}

#endif
