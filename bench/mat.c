/* Products of every tensor type beside the limits of this machine, measured in the same run.
 *
 *     bench_mat [TYPE]
 *
 * n = 1 (decode): bytes of packed weights read per second; `% mem` is against reading memory without computing.
 * n = 256 (prefill): multiplications and additions per second; `% peak` is against registers alone (floats: FMA;
 * others: unsigned by signed bytes). Best of seven rounds (other programs only ever take time away), by 1 and by 2
 * threads. Matrices are 2048 x 8192. */
#include "base/bytes.h"
#include "base/mem.h"
#include "base/sys.h"
#include "engine/engine.h"
#include "engine/tensor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define ROWS       2048u
#define COLS       8192u
#define TOKENS     256u
#define POOL_BYTES (160u << 20) /* more than a last-level cache holds */
#define ROUNDS     7

static void die(const err *e) {
    fprintf(stderr, "bench_mat: %s\n", e->msg);
    exit(3);
}

/* Seconds of fn(ctx), the shortest. */
static double measure(void (*fn)(void *), void *ctx) {
    double best = 1e9;
    fn(ctx);
    for (int i = 0; i < ROUNDS; i++) {
        uint64_t t = time_mono_ns();
        fn(ctx);
        double s = (double)(time_mono_ns() - t) * 1e-9;
        if (s < best) best = s;
    }
    return best;
}

/* ---- limits ------------------------------------------------------------------------------------------------ */

typedef struct limit_job {
    pool *p;
    uint8_t *data;
    size_t len;
    volatile uint64_t sink[2];
} limit_job;

#if defined(__x86_64__)
__attribute__((target("avx2"))) static void read_range(void *ctx, size_t begin, size_t end, unsigned thread) {
    limit_job *j = ctx;
    __m256i s[4] = {0};
    for (size_t i = begin; i < end; i++) { /* units of 4 KiB */
        const uint8_t *p = j->data + i * 4096;
        for (size_t k = 0; k < 4096; k += 128)
            for (int c = 0; c < 4; c++)
                s[c] =
                    _mm256_xor_si256(s[c], _mm256_load_si256((const __m256i *)(const void *)(p + k + 32 * (size_t)c)));
    }
    __m256i x = _mm256_xor_si256(_mm256_xor_si256(s[0], s[1]), _mm256_xor_si256(s[2], s[3]));
    j->sink[thread] = (uint64_t)_mm256_extract_epi64(x, 0);
}

#define SPINS 2000000ull
__attribute__((target("avx2,fma"))) static void fma_range(void *ctx, size_t begin, size_t end, unsigned thread) {
    limit_job *j = ctx;
    __m256 a[12], m = _mm256_set1_ps(0.999f), c = _mm256_set1_ps(1e-3f);
    for (int i = 0; i < 12; i++) a[i] = _mm256_set1_ps((float)i);
    for (uint64_t n = 0; n < SPINS; n++)
        for (int i = 0; i < 12; i++) a[i] = _mm256_fmadd_ps(a[i], m, c);
    for (int i = 1; i < 12; i++) a[0] = _mm256_add_ps(a[0], a[i]);
    j->sink[thread] = (uint64_t)_mm256_extract_epi64(_mm256_castps_si256(a[0]), 0);
}

__attribute__((target("avx2"))) static void int8_range(void *ctx, size_t begin, size_t end, unsigned thread) {
    limit_job *j = ctx;
    __m256i a[6], w[6], x = _mm256_set1_epi8((char)thread);
    for (int i = 0; i < 6; i++) a[i] = w[i] = _mm256_set1_epi8((char)i);
    for (uint64_t n = 0; n < SPINS; n++) {
        for (int i = 0; i < 6; i++) a[i] = _mm256_add_epi16(a[i], _mm256_maddubs_epi16(w[i], x));
        __asm__ volatile("" : "+x"(x)); /* or the products are taken out of the loop */
    }
    for (int i = 1; i < 6; i++) a[0] = _mm256_add_epi16(a[0], a[i]);
    j->sink[thread] = (uint64_t)_mm256_extract_epi64(a[0], 0);
}

static void run_read(void *ctx) {
    pool_run(((limit_job *)ctx)->p, POOL_BYTES / 4096, 256, read_range, ctx);
}
static void run_fma(void *ctx) {
    pool_run(((limit_job *)ctx)->p, pool_threads(((limit_job *)ctx)->p), 1, fma_range, ctx);
}
static void run_int8(void *ctx) {
    pool_run(((limit_job *)ctx)->p, pool_threads(((limit_job *)ctx)->p), 1, int8_range, ctx);
}
#endif

typedef struct limits {
    double read, f32, int8; /* GB/s, GFLOP/s, GOP/s; 0 where not measured */
} limits;

static limits measure_limits(pool *p) {
    limits l = {0};
#if defined(__x86_64__)
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return l;
    limit_job j = {.p = p, .data = mem_alloc_aligned(POOL_BYTES)};
    if (!j.data) return l;
    memset(j.data, 1, POOL_BYTES);
    double n = pool_threads(p);
    l.read = POOL_BYTES / measure(run_read, &j) * 1e-9;
    l.f32 = n * (double)SPINS * 12 * 16 / measure(run_fma, &j) * 1e-9;
    l.int8 = n * (double)SPINS * 6 * 64 / measure(run_int8, &j) * 1e-9;
    mem_free_aligned(j.data);
#endif
    return l;
}

/* ---- products ---------------------------------------------------------------------------------------------- */

typedef struct mat_job {
    pool *p;
    matrix **m;
    size_t n;
    acts *a;
    float *x, *y;
} mat_job;

static void run_decode(void *ctx) {
    mat_job *j = ctx;
    for (size_t i = 0; i < j->n; i++) {
        acts_set(j->a, j->p, j->x, COLS, 1, COLS);
        matrix_mul(j->p, &(matmul){j->m[i], j->y, ROWS}, 1, j->a);
    }
}
static void run_prefill(void *ctx) {
    mat_job *j = ctx;
    acts_set(j->a, j->p, j->x, COLS, TOKENS, COLS);
    matrix_mul(j->p, &(matmul){j->m[0], j->y, ROWS}, 1, j->a);
}

/* Random bytes, with every exponent of an f16 or wider scale pulled to a small value. */
static uint8_t *random_weights(const tensor_type_facts *f, size_t *len) {
    *len = (size_t)ROWS * COLS / f->block_len * f->block_bytes;
    uint8_t *p = mem_alloc(*len);
    if (!p) return NULL;
    uint64_t s = 88172645463325252ull;
    for (size_t i = 0; i < *len; i++) {
        s ^= s << 13, s ^= s >> 7, s ^= s << 17;
        p[i] = (uint8_t)(s >> 32) & 0xbf; /* no exponent of all ones: no NaN */
    }
    return p;
}

static void bench_type(const tensor_type_facts *f, pool **pools, const limits *l) {
    err e = {0};
    size_t len;
    uint8_t *data = random_weights(f, &len);
    size_t n = POOL_BYTES / len + 1;
    matrix **m = mem_array(n, sizeof *m);
    mat_job j = {.m = m, .n = n, .x = mem_array(TOKENS * COLS, 4), .y = mem_array(TOKENS * ROWS, 4)};
    if (!data || !m || !j.x || !j.y || acts_new(&j.a, TOKENS, COLS, &e)) die(&e);
    for (size_t i = 0; i < TOKENS * COLS; i++) j.x[i] = (float)((i * 2654435761u >> 8) % 2001) / 1000 - 1;
    uint64_t t = time_mono_ns();
    for (size_t i = 0; i < n; i++)
        if (matrix_new(&m[i], f->type, ROWS, COLS, data, f->name, &e)) die(&e);
    double pack = (double)(time_mono_ns() - t) * 1e-9;
    printf("%-7s %5.2f %7.2f", f->name, (double)matrix_bytes(m[0]) / (double)len, (double)(len * n) / pack * 1e-9);
    for (int i = 0; i < 2; i++) {
        j.p = pools[i];
        double gbs = (double)matrix_bytes(m[0]) * (double)n / measure(run_decode, &j) * 1e-9;
        double gops = 2.0 * ROWS * COLS * TOKENS / measure(run_prefill, &j) * 1e-9;
        double peak = f->block_len == 1 ? l[i].f32 : l[i].int8;
        printf(" | %7.2f %5.0f %8.1f %5.0f", gbs, l[i].read > 0 ? 100 * gbs / l[i].read : 0, gops,
               peak > 0 ? 100 * gops / peak : 0);
    }
    printf("\n");
    for (size_t i = 0; i < n; i++) matrix_free(m[i]);
    acts_free(j.a);
    mem_free(j.x);
    mem_free(j.y);
    mem_free(m);
    mem_free(data);
}

int main(int argc, char **argv) {
    static const uint32_t types[] = {TT_F32,  TT_F16,  TT_BF16, TT_Q8_0, TT_Q4_0, TT_Q4_1,   TT_Q5_0,  TT_Q5_1,
                                     TT_Q2_K, TT_Q3_K, TT_Q4_K, TT_Q5_K, TT_Q6_K, TT_IQ4_NL, TT_IQ4_XS};
    err e = {0};
    base_init();
    if (engine_init(&e)) die(&e);
    pool *pools[2];
    limits l[2];
    for (unsigned i = 0; i < 2; i++) {
        if (pool_new(&pools[i], i + 1, &e)) die(&e);
        l[i] = measure_limits(pools[i]);
        printf("%u thread%s: memory read %.1f GB/s, f32 FMA %.0f GFLOP/s, int8 %.0f GOP/s\n", i + 1, i ? "s" : "",
               l[i].read, l[i].f32, l[i].int8);
    }
    printf("kernels: %s; columns for 1 thread | 2 threads\n", engine_isa());
    printf("%-7s %5s %7s", "type", "size", "pack");
    for (int i = 0; i < 2; i++) printf(" | %7s %5s %8s %5s", "n=1", "% mem", "n=256", "%peak");
    printf("\n%-7s %5s %7s", "", "ratio", "GB/s");
    for (int i = 0; i < 2; i++) printf(" | %7s %5s %8s %5s", "GB/s", "", "GOP/s", "");
    printf("\n");
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        const tensor_type_facts *f = tensor_type_get(types[i]);
        if (argc > 1 && strcmp(argv[1], f->name) != 0) continue;
        bench_type(f, pools, l);
        fflush(stdout);
    }
    for (int i = 0; i < 2; i++) pool_free(pools[i]);
    return 0;
}
