/* Products of every tensor type beside the limits of this machine, measured in the same run.
 *
 *     bench_mat [TYPE]
 *
 * For 1, 4, 16 and 512 tokens, by 1 and by 2 threads: bytes of packed weights read and multiplications and additions
 * done per second (10^9), and the percentage of the limit that binds: the time that reading the bytes or computing in
 * registers alone would take, whichever is longer, over the time taken. Limits: reading memory; for floats FMA; for
 * weights of up to 6 bits unsigned by signed bytes, for 8 bits products of int16 (AVX-512: dpbusd for both). Best of
 * some rounds (other programs only ever take time away), one thread by its CPU time. Matrices are 2048 x 8192; up to 16
 * tokens they are read from memory. */
#include "base/bytes.h"
#include "base/mem.h"
#include "base/sys.h"
#include "engine/engine.h"
#include "engine/kernels/limits.h"
#include "engine/tensor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define ROWS       2048u
#define COLS       8192u
#define TOKENS     512u
#define POOL_BYTES (160u << 20) /* more than a last-level cache holds */
#define ROUNDS     5

static void die(const err *e) {
    fprintf(stderr, "bench_mat: %s\n", e->msg);
    exit(3);
}

/* One thread: its own CPU time, so that other programs matter less. Two: the clock on the wall. */
static const clockid_t clock_of[] = {CLOCK_THREAD_CPUTIME_ID, CLOCK_MONOTONIC};
static clockid_t clock_used;

static double now_s(void) {
    struct timespec t;
    clock_gettime(clock_used, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Seconds of fn(ctx), the shortest. */
static double measure(void (*fn)(void *), void *ctx) {
    double best = 1e9;
    fn(ctx);
    for (int i = 0; i < ROUNDS; i++) {
        double t = now_s();
        fn(ctx);
        double s = now_s() - t;
        if (s < best) best = s;
    }
    return best;
}

/* ---- limits ------------------------------------------------------------------------------------------------ */

typedef struct limit_job {
    pool *p;
    uint8_t *data;
    uint64_t (*spin)(uint64_t n);
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

#define SPINS 500000ull
__attribute__((target("avx2"))) static uint64_t int16_avx2(uint64_t n) {
    __m256i a[6], w[6], x = _mm256_set1_epi8(1);
    for (int i = 0; i < 6; i++) a[i] = w[i] = _mm256_set1_epi16((short)i);
    for (uint64_t k = 0; k < n; k++) {
        for (int i = 0; i < 6; i++) a[i] = _mm256_add_epi32(a[i], _mm256_madd_epi16(w[i], x));
        __asm__ volatile("" : "+x"(x)); /* or the products are taken out of the loop */
    }
    for (int i = 1; i < 6; i++) a[0] = _mm256_add_epi32(a[0], a[i]);
    return (uint64_t)_mm256_extract_epi64(a[0], 0);
}

static void spin_range(void *ctx, size_t begin, size_t end, unsigned thread) {
    limit_job *j = ctx;
    j->sink[thread] = j->spin(SPINS);
}

static void run_read(void *ctx) {
    pool_run(((limit_job *)ctx)->p, POOL_BYTES / 4096, 256, read_range, ctx);
}
static void run_spin(void *ctx) {
    pool_run(((limit_job *)ctx)->p, pool_threads(((limit_job *)ctx)->p), 1, spin_range, ctx);
}
static double spin_rate(limit_job *j, uint64_t (*spin)(uint64_t), uint32_t ops) {
    j->spin = spin;
    return spin ? pool_threads(j->p) * (double)SPINS * ops / measure(run_spin, j) * 1e-9 : 0;
}
#endif

typedef struct limits {
    double read, f32, int8, int16; /* GB/s, GFLOP/s, GOP/s; 0 where not measured */
} limits;

static limits measure_limits(pool *p) {
    limits l = {0};
#if defined(__x86_64__)
    limit_kernels k = limit_kernels_get(engine_isa());
    limit_job j = {.p = p, .data = mem_alloc_aligned(POOL_BYTES)};
    if (!k.int8 || !j.data) return l;
    memset(j.data, 1, POOL_BYTES);
    l.read = POOL_BYTES / measure(run_read, &j) * 1e-9;
    l.f32 = spin_rate(&j, k.f32, k.f32_ops);
    l.int8 = spin_rate(&j, k.int8, k.int8_ops);
    l.int16 = strcmp(engine_isa(), "avx2") == 0 ? spin_rate(&j, int16_avx2, 6 * 32) : l.int8;
    mem_free_aligned(j.data);
#endif
    return l;
}

/* ---- products ---------------------------------------------------------------------------------------------- */

typedef struct mat_job {
    pool *p;
    matrix **m;
    size_t n;
    uint32_t tokens;
    acts *a;
    float *x, *y;
} mat_job;

static void run_products(void *ctx) {
    mat_job *j = ctx;
    for (size_t i = 0; i < (j->tokens <= 16 ? j->n : 1); i++) {
        acts_set(j->a, j->p, j->x, COLS, j->tokens, COLS);
        matrix_mul(j->p, &(matmul){j->m[i], j->y, ROWS}, 1, j->a);
    }
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
    static const uint32_t tokens[] = {1, 4, 16, 512};
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
    printf("%-7s %5.2f %7.2f\n", f->name, (double)matrix_bytes(m[0]) / (double)len, (double)(len * n) / pack * 1e-9);
    bool eight = f->type == TT_Q8_0 || f->type == TT_IQ4_NL || f->type == TT_IQ4_XS;
    for (size_t k = 0; k < sizeof tokens / sizeof *tokens; k++) {
        printf("%14u tok", j.tokens = tokens[k]);
        for (int i = 0; i < 2; i++) {
            j.p = pools[i];
            clock_used = clock_of[i];
            double times = tokens[k] <= 16 ? (double)n : 1, s = measure(run_products, &j) / times;
            double gb = (double)matrix_bytes(m[0]) * 1e-9, gop = 2e-9 * ROWS * COLS * tokens[k];
            double peak = f->block_len == 1 ? l[i].f32 : eight ? l[i].int16 : l[i].int8;
            double t_read = tokens[k] <= 16 && l[i].read > 0 ? gb / l[i].read : 0, t_ops = peak > 0 ? gop / peak : 0;
            printf(" | %7.2f %8.1f %4.0f %s", gb / s, gop / s, 100 * (t_read > t_ops ? t_read : t_ops) / s,
                   t_read > t_ops ? "mem" : "ops");
        }
        printf("\n");
    }
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
        clock_used = clock_of[i];
        l[i] = measure_limits(pools[i]);
        printf("%u thread%s: memory read %.1f GB/s, f32 FMA %.0f GFLOP/s, int8 %.0f GOP/s, int16 %.0f GOP/s\n", i + 1,
               i ? "s" : "", l[i].read, l[i].f32, l[i].int8, l[i].int16);
    }
    printf("kernels: %s; columns for 1 thread | 2 threads: GB/s, GOP/s, %% of the limit that binds\n", engine_isa());
    printf("%-7s %5s %7s\n%-7s %5s %7s\n", "type", "size", "pack", "", "ratio", "GB/s");
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        const tensor_type_facts *f = tensor_type_get(types[i]);
        if (argc > 1 && strcmp(argv[1], f->name) != 0) continue;
        bench_type(f, pools, l);
        fflush(stdout);
    }
    for (int i = 0; i < 2; i++) pool_free(pools[i]);
    return 0;
}
