/* What a fixed order of sums costs: each AVX2 kernel against a variant that is free to choose (determinism_free.c), in
 * alternating rounds of the same run, by the thread's CPU time. Prints for each kernel the median over the rounds of
 *
 *     time of the fixed kernel / time of the free one - 1
 *
 * in percent (below 0: the fixed one is the faster), and exits 1 where one is over 5 %, 0 where none is, 2 where this
 * machine has no AVX2. Matrices for one token are read from memory, for many from the caches, as in use. */
#include "determinism.h"

#include "base/bytes.h"
#include "base/mem.h"
#include "engine/kernels/vec.h"
#include "engine/tensor.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define LIMIT_PERCENT 5.0
#define ROUNDS        41
#define ROUND_S       0.001 /* what a round takes at least */

typedef struct job {
    const vec_kernels *vec;
    const mat_kernels *mat;
    packed p;
    acts_view a;
    delta_head delta;
    float *x, *y, *w, *b;
    uint32_t n;
} job;

typedef void (*run_fn)(job *j);

static double cpu_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double time_of(run_fn fn, job *j, unsigned times) {
    double t = cpu_s();
    for (unsigned i = 0; i < times; i++) fn(j);
    return cpu_s() - t;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static unsigned n_over;

static void compare(const char *name, run_fn fixed, run_fn free_order, job *j) {
    double ratio[ROUNDS];
    time_of(fixed, j, 1); /* to warm up */
    double once = time_of(free_order, j, 1) + 1e-9;
    unsigned times = once < ROUND_S ? (unsigned)(ROUND_S / once) + 1 : 1;
    for (int i = 0; i < ROUNDS; i++) {
        bool first = i & 1; /* who goes first alternates, too */
        double f = first ? time_of(free_order, j, times) : 0, t = time_of(fixed, j, times);
        if (!first) f = time_of(free_order, j, times);
        ratio[i] = t / f;
    }
    qsort(ratio, ROUNDS, sizeof *ratio, by_value);
    double percent = 100 * (ratio[ROUNDS / 2] - 1);
    bool over = percent > LIMIT_PERCENT;
    n_over += over;
    printf("%-28s %+7.1f %%%s\n", name, percent, over ? "  over" : "");
    fflush(stdout);
}

/* ---- vectors --------------------------------------------------------------------------------------------------- */

static void norm_fixed(job *j) {
    j->vec->rms_norm(j->y, j->x, j->w, j->n, 1e-5f);
}
static void norm_free(job *j) {
    free_rms_norm(j->y, j->x, j->w, j->n, 1e-5f);
}
static void layer_fixed(job *j) {
    j->vec->layer_norm(j->y, j->x, j->w, j->b, j->n, 1e-5f);
}
static void layer_free(job *j) {
    free_layer_norm(j->y, j->x, j->w, j->b, j->n, 1e-5f);
}
static void swiglu_fixed(job *j) {
    memcpy(j->y, j->x, j->n * sizeof *j->x);
    j->vec->swiglu(j->y, j->w, j->n);
}
static void swiglu_free(job *j) {
    memcpy(j->y, j->x, j->n * sizeof *j->x);
    free_swiglu(j->y, j->w, j->n);
}
static void exp_fixed(job *j) {
    j->b[0] = (float)j->vec->exp_sum(j->y, j->x, 1, 0.7f, j->n);
}
static void exp_free(job *j) {
    j->b[0] = (float)free_exp_sum(j->y, j->x, 1, 0.7f, j->n);
}

static void compare_vectors(job *j) {
    j->n = 2048;
    compare("rms_norm 2048", norm_fixed, norm_free, j);
    compare("layer_norm 2048", layer_fixed, layer_free, j);
    j->n = 8192;
    compare("swiglu 8192", swiglu_fixed, swiglu_free, j);
    compare("exp_sum 8192", exp_fixed, exp_free, j);
}

/* ---- delta rule ------------------------------------------------------------------------------------------------ */

static void delta_fixed(job *j) {
    delta_kernels_get(ISA_AVX2)->run(&j->delta);
}
static void delta_free(job *j) {
    free_delta(&j->delta);
}

static void compare_delta(job *j) {
    enum { D = 128, N = 64 };
    float *gates = j->b;
    for (int i = 0; i < N; i++) gates[i] = 0.9f;
    float *state = mem_alloc_aligned(delta_state_floats(D, D) * sizeof *state);
    if (!state) exit(3);
    memset(state, 0, delta_state_floats(D, D) * sizeof *state);
    /* keys so small that the state stays where it is */
    for (uint32_t i = 0; i < N * D; i++) j->w[i] = j->x[i] * 0.01f;
    j->delta = (delta_head){state, j->x, j->w, j->x, j->y, gates, gates, D, D, D, 1, 1, D, D};
    for (int many = 0; many < 2; many++) {
        j->delta.n = many ? N : 1;
        compare(many ? "delta rule, 64 tokens" : "delta rule, one token", delta_fixed, delta_free, j);
    }
    mem_free_aligned(state);
}

/* ---- products -------------------------------------------------------------------------------------------------- */

static void mul_fixed(job *j) {
    j->mat->mul(&j->p, 0, j->p.n_tasks, &j->a, j->y, j->p.rows);
}
static void mul_free(job *j) {
    free_mul(&j->p, &j->a, j->y, j->p.rows);
}

static void compare_products(job *j, tensor_type type, uint32_t rows, uint32_t n) {
    enum { COLS = 2048 };
    if (!pack_plan(&j->p, type, rows, COLS)) exit(3);
    j->p.data = mem_alloc_aligned((size_t)j->p.n_bytes);
    act_block *blocks = mem_alloc_aligned((size_t)n * (COLS / 32) * sizeof *blocks);
    if (!j->p.data || !blocks) exit(3);
    uint64_t s = 88172645463325252ull;
    for (uint64_t i = 0; i < j->p.n_bytes; i++) {
        s ^= s << 13, s ^= s >> 7, s ^= s << 17;
        j->p.data[i] = (uint8_t)(s >> 32) & 0xbf; /* no scale is a NaN */
    }
    j->a = (acts_view){j->x, COLS, blocks, n, n, COLS};
    j->mat->quantise(blocks, &j->a, 0, n);
    char name[64];
    snprintf(name, sizeof name, "%s, %u token%s", tensor_type_get(type)->name, n, n > 1 ? "s" : "");
    compare(name, mul_fixed, mul_free, j);
    mem_free_aligned(j->p.data);
    mem_free_aligned(blocks);
}

int main(void) {
    static const tensor_type types[] = {TT_Q8_0, TT_Q4_0, TT_Q4_K};
    base_init();
    job j = {.vec = vec_get(ISA_AVX2), .mat = mat_get(ISA_AVX2)};
    if (!j.vec || !j.mat) {
        fprintf(stderr, "bench_determinism: this machine has no AVX2, and the free variants are written for it\n");
        return 2;
    }
    const size_t n = 16384 * 64; /* values: rows by tokens, and more than all others need */
    j.x = mem_array(n, sizeof *j.x);
    j.y = mem_array(n, sizeof *j.y);
    j.w = mem_array(n, sizeof *j.w);
    j.b = mem_array(n, sizeof *j.b);
    if (!j.x || !j.y || !j.w || !j.b) return 3;
    for (size_t i = 0; i < n; i++) {
        j.x[i] = (float)((i * 2654435761u >> 8) % 2001) / 1000 - 1;
        j.w[i] = j.b[i] = 1;
    }
    printf("cost of a fixed order of sums, AVX2, medians of %d alternating rounds\n", ROUNDS);
    compare_vectors(&j);
    compare_delta(&j);
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        compare_products(&j, types[i], 16384, 1);
        compare_products(&j, types[i], 256, 64);
    }
    printf("%u over %.0f %%\n", n_over, LIMIT_PERCENT);
    mem_free(j.x);
    mem_free(j.y);
    mem_free(j.w);
    mem_free(j.b);
    return n_over ? 1 : 0;
}
