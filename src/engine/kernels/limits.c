#include "engine/kernels/limits.h"

#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>

/* Sums enough to hide the latency of an instruction; the empty assembly keeps the loop from being computed ahead. */
enum { CHAINS = 12 };

__attribute__((target("avx2"))) static uint64_t int8_avx2(uint64_t n) {
    __m256i a[CHAINS / 2], w[CHAINS / 2], x = _mm256_set1_epi8(1);
    for (int i = 0; i < CHAINS / 2; i++) a[i] = w[i] = _mm256_set1_epi8((char)i);
    for (uint64_t k = 0; k < n; k++) {
        for (int i = 0; i < CHAINS / 2; i++) a[i] = _mm256_add_epi16(a[i], _mm256_maddubs_epi16(w[i], x));
        __asm__ volatile("" : "+x"(x));
    }
    for (int i = 1; i < CHAINS / 2; i++) a[0] = _mm256_add_epi16(a[0], a[i]);
    return (uint64_t)_mm256_extract_epi64(a[0], 0);
}

__attribute__((target("avx2,fma"))) static uint64_t f32_avx2(uint64_t n) {
    __m256 a[CHAINS], m = _mm256_set1_ps(0.999f), c = _mm256_set1_ps(1e-3f);
    for (int i = 0; i < CHAINS; i++) a[i] = _mm256_set1_ps((float)i);
    for (uint64_t k = 0; k < n; k++)
        for (int i = 0; i < CHAINS; i++) a[i] = _mm256_fmadd_ps(a[i], m, c);
    for (int i = 1; i < CHAINS; i++) a[0] = _mm256_add_ps(a[0], a[i]);
    return (uint64_t)_mm256_extract_epi64(_mm256_castps_si256(a[0]), 0);
}

__attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni"))) static uint64_t int8_avx512(uint64_t n) {
    __m512i a[CHAINS], x = _mm512_set1_epi8(1), w = _mm512_set1_epi8(3);
    for (int i = 0; i < CHAINS; i++) a[i] = _mm512_set1_epi32(i);
    for (uint64_t k = 0; k < n; k++) {
        for (int i = 0; i < CHAINS; i++) a[i] = _mm512_dpbusd_epi32(a[i], w, x);
        __asm__ volatile("" : "+v"(x));
    }
    for (int i = 1; i < CHAINS; i++) a[0] = _mm512_add_epi32(a[0], a[i]);
    return (uint64_t)_mm256_extract_epi64(_mm512_castsi512_si256(a[0]), 0);
}

__attribute__((target("avx512f"))) static uint64_t f32_avx512(uint64_t n) {
    __m512 a[CHAINS], m = _mm512_set1_ps(0.999f), c = _mm512_set1_ps(1e-3f);
    for (int i = 0; i < CHAINS; i++) a[i] = _mm512_set1_ps((float)i);
    for (uint64_t k = 0; k < n; k++)
        for (int i = 0; i < CHAINS; i++) a[i] = _mm512_fmadd_ps(a[i], m, c);
    for (int i = 1; i < CHAINS; i++) a[0] = _mm512_add_ps(a[0], a[i]);
    return (uint64_t)_mm256_extract_epi64(_mm512_castsi512_si256(_mm512_castps_si512(a[0])), 0);
}
#endif

limit_kernels limit_kernels_get(const char *isa) {
    limit_kernels none = {0};
#if defined(__x86_64__)
    /* Bytes of a register, two operations each; four-byte lanes for floats. */
    if (strcmp(isa, "avx2") == 0 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return (limit_kernels){int8_avx2, f32_avx2, CHAINS / 2 * 64, CHAINS * 16};
    if (strcmp(isa, "avx512") == 0 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vnni"))
        return (limit_kernels){int8_avx512, f32_avx512, CHAINS * 128, CHAINS * 32};
#endif
    (void)isa;
    return none;
}
