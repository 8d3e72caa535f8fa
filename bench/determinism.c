/* What a fixed order of sums costs: each kernel that adds floats against a variant that is free to choose the order
 * (determinism.h), for each of AVX2 and AVX-512 that this machine has (POLDER_ISA names one), in alternating rounds of
 * the same run, by the thread's CPU time. A process's figure of a kernel is the median over its rounds of
 *
 *     time of the fixed kernel / time of the free one - 1
 *
 * in percent: below 0 the fixed one is the faster. Where a process's pages and branches happen to lie shifts it by
 * some percent for as long as the process lives (Mytkowicz et al., "Producing wrong data without doing anything
 * obviously wrong!", ASPLOS 2009), so every kernel is measured in several processes, and their median counts; the least
 * and the most stand beside it. Exits 1 where a median is over 5 %, 0 where none is, 2 where there is neither set, 3
 * where a variant does not compute what its kernel does or a process fails.
 *
 * Left out, because they add no floats or nothing to each other: swiglu, gelu, sigmoid, soft cap, rotations (every
 * element by itself), quantise (its sums are of integers). The convolution of the delta rule adds four taps, each
 * element by itself. */
#include "determinism.h"

#include "base/bytes.h"
#include "base/mem.h"
#include "engine/tensor.h"

#include <errno.h>
#include <math.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LIMIT_PERCENT 5.0
#define ROUNDS        61
#define ROUND_S       0.0015 /* what a round takes at least */
#define PROCESSES     7
#define KERNELS       64      /* at most */
#define PLACE         "place" /* of the argument that makes this program one of the processes */
#define MANY          512     /* tokens */
#define COLS          2048
#define ONE_BYTES     (72u << 20) /* of a matrix for one token: more than the caches hold, so it comes from memory */
#define DELTA_N       64          /* tokens */
#define HEAD          128
#define TILES         32 /* of a context: 2,048 positions */
#define QUERIES       32 /* rows of attention at most */

typedef struct job {
    isa set;
    const vec_kernels *vec;
    const mat_kernels *mat;
    const free_kernels *free_order;
    void (*free_mul)(const packed *p, const acts_view *a, float *y, size_t ldy);
    packed p;
    acts_view a;
    delta_head delta;
    attn_row rows[QUERIES];
    const uint16_t *tiles;
    float *x, *y, *w, *b; /* N_VALUES each */
    uint32_t n, n_rows;
    size_t n_out; /* values of y that count */
} job;

#define N_VALUES ((size_t)MANY * COLS)

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

static void *must(void *p) {
    if (p) return p;
    fprintf(stderr, "bench_determinism: no memory for the matrices\n");
    exit(3);
}

static void clear(job *j) {
    memset(j->y, 0, j->n_out * sizeof *j->y);
    if (j->delta.state) memset(j->delta.state, 0, delta_state_floats(HEAD, HEAD) * sizeof(float));
}

/* Both must give the same numbers, but for rounding. */
static void check(const char *name, run_fn fixed, run_fn free_order, job *j) {
    float *of_fixed = must(mem_array(j->n_out, sizeof *of_fixed));
    clear(j);
    fixed(j);
    memcpy(of_fixed, j->y, j->n_out * sizeof *of_fixed);
    clear(j);
    free_order(j);
    double most = 0, apart = 0;
    for (size_t i = 0; i < j->n_out; i++) {
        double d = fabs((double)of_fixed[i] - (double)j->y[i]), v = fabs((double)of_fixed[i]);
        if (!(d <= apart)) apart = d; /* a NaN is apart, too */
        if (v > most) most = v;
    }
    mem_free(of_fixed);
    if (most > 0 && apart <= 1e-4 * most) return;
    fprintf(stderr, "bench_determinism: %s: the free variant is %g off, the largest value is %g\n", name, apart, most);
    exit(3);
}

static double median_percent(run_fn fixed, run_fn free_order, job *j, double *us) {
    double ratio[ROUNDS], free_s[ROUNDS];
    double once = time_of(free_order, j, 1) + 1e-9;
    unsigned times = once < ROUND_S ? (unsigned)(ROUND_S / once) + 1 : 1;
    for (int i = 0; i < ROUNDS; i++) {
        bool first = i & 1; /* who goes first alternates, too */
        double f = first ? time_of(free_order, j, times) : 0, t = time_of(fixed, j, times);
        if (!first) f = time_of(free_order, j, times);
        ratio[i] = t / f;
        free_s[i] = f / times;
    }
    qsort(ratio, ROUNDS, sizeof *ratio, by_value);
    qsort(free_s, ROUNDS, sizeof *free_s, by_value);
    *us = free_s[ROUNDS / 2] * 1e6;
    return 100 * (ratio[ROUNDS / 2] - 1);
}

static unsigned n_kernels;

/* One process's figure, as the first process reads it. */
static void compare(const char *name, run_fn fixed, run_fn free_order, job *j) {
    check(name, fixed, free_order, j);
    double us, percent = median_percent(fixed, free_order, j, &us);
    n_kernels++;
    printf("%s\t%s\t%.17g\t%.17g\n", j->vec->name, name, percent, us);
    fflush(stdout);
}

/* ---- vectors --------------------------------------------------------------------------------------------------- */

static void norm_fixed(job *j) {
    j->vec->rms_norm(j->y, j->x, j->w, j->n, 1e-5f);
}
static void norm_free(job *j) {
    j->free_order->rms_norm(j->y, j->x, j->w, j->n, 1e-5f);
}
static void layer_fixed(job *j) {
    j->vec->layer_norm(j->y, j->x, j->w, j->b, j->n, 1e-5f);
}
static void layer_free(job *j) {
    j->free_order->layer_norm(j->y, j->x, j->w, j->b, j->n, 1e-5f);
}
static void exp_fixed(job *j) {
    j->y[j->n] = (float)j->vec->exp_sum(j->y, j->x, 1, 0.7f, j->n);
}
static void exp_free(job *j) {
    j->y[j->n] = (float)j->free_order->exp_sum(j->y, j->x, 1, 0.7f, j->n);
}

static void compare_vectors(job *j) {
    j->n = 2048;
    j->n_out = j->n;
    compare("rms_norm 2048", norm_fixed, norm_free, j);
    compare("layer_norm 2048", layer_fixed, layer_free, j);
    j->n = 8192;
    j->n_out = j->n + 1;
    compare("exp_sum 8192", exp_fixed, exp_free, j);
}

/* ---- attention ------------------------------------------------------------------------------------------------- */

static void attention(job *j,
                      void (*tile)(attn_row *, uint32_t, const uint16_t *, const uint16_t *, const attn_shape *)) {
    const attn_shape shape = {HEAD, HEAD, 0.088f, 0};
    const size_t size = (size_t)2 * HEAD * VEC_TILE;
    for (uint32_t r = 0; r < j->n_rows; r++) {
        j->rows[r] = (attn_row){j->x + r * HEAD, j->y + (size_t)r * HEAD, -INFINITY, 0, 0, VEC_TILE};
        memset(j->rows[r].acc, 0, HEAD * sizeof(float));
    }
    for (int i = 0; i < TILES; i++) {
        const uint16_t *at = j->tiles + i * size;
        tile(j->rows, j->n_rows, at, i + 1 < TILES ? at + size : NULL, &shape);
    }
    for (uint32_t r = 0; r < j->n_rows; r++) j->y[j->n_rows * HEAD + r] = j->rows[r].l;
}
static void attn_fixed(job *j) {
    attention(j, j->vec->attn_tile);
}
static void attn_free(job *j) {
    attention(j, j->free_order->attn_tile);
}

static void compare_attention(job *j) {
    static const uint32_t rows[] = {1, 4, QUERIES};
    const size_t n = (size_t)TILES * 2 * HEAD * VEC_TILE;
    uint16_t *tiles = must(mem_alloc_aligned(n * sizeof *tiles));
    j->vec->to_half(tiles, j->x, n < N_VALUES ? n : N_VALUES);
    j->tiles = tiles;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char name[64];
        snprintf(name, sizeof name, "attention, %u row%s", rows[i], rows[i] > 1 ? "s" : "");
        j->n_rows = rows[i];
        j->n_out = (size_t)rows[i] * (HEAD + 1);
        compare(name, attn_fixed, attn_free, j);
    }
    mem_free_aligned(tiles);
}

/* ---- delta rule ------------------------------------------------------------------------------------------------ */

static void delta_fixed(job *j) {
    delta_kernels_get(j->set)->run(&j->delta);
}
static void delta_free(job *j) {
    j->free_order->delta(&j->delta);
}

static void compare_delta(job *j) {
    float gates[DELTA_N];
    for (int i = 0; i < DELTA_N; i++) gates[i] = 0.9f;
    float *state = must(mem_alloc_aligned(delta_state_floats(HEAD, HEAD) * sizeof *state));
    float *keys = must(mem_array(DELTA_N * HEAD, sizeof *keys));
    /* so small that the state stays where it is */
    for (uint32_t i = 0; i < DELTA_N * HEAD; i++) keys[i] = j->x[i + 77] * 0.01f;
    j->delta = (delta_head){state, j->x, keys, j->x, j->y, gates, gates, HEAD, HEAD, HEAD, 1, 1, HEAD, HEAD};
    for (int many = 0; many < 2; many++) {
        j->delta.n = many ? DELTA_N : 1;
        j->n_out = (size_t)j->delta.n * HEAD;
        compare(many ? "delta rule, 64 tokens" : "delta rule, 1 token", delta_fixed, delta_free, j);
    }
    j->delta.state = NULL;
    mem_free_aligned(state);
    mem_free(keys);
}

/* ---- products -------------------------------------------------------------------------------------------------- */

static void mul_fixed(job *j) {
    j->mat->mul(&j->p, 0, j->p.n_tasks, &j->a, j->y, j->p.rows);
}
static void mul_free(job *j) {
    j->free_mul(&j->p, &j->a, j->y, j->p.rows);
}

static void fill_weights(packed *p) {
    uint64_t s = 88172645463325252ull;
    for (uint64_t i = 0; i < p->n_bytes; i++) {
        s ^= s << 13, s ^= s >> 7, s ^= s << 17;
        p->data[i] = (uint8_t)(s >> 32) & 0xbf; /* no scale and no float is a NaN, or over 2 */
        if (p->type == TT_F32 && i % 4 == 3) p->data[i] = 0x3d | (p->data[i] & 0x80); /* nor nearly 0 */
    }
}

static void compare_products(job *j, tensor_type type, uint32_t rows, uint32_t n) {
    if (!pack_plan(&j->p, type, rows, COLS)) exit(3);
    j->p.data = must(mem_alloc_aligned((size_t)j->p.n_bytes));
    fill_weights(&j->p);
    act_block *blocks = must(mem_alloc_aligned(((size_t)n * (COLS / 32) + ACTS_BEYOND) * sizeof *blocks));
    j->a = (acts_view){j->x, COLS, blocks, n, n, COLS};
    j->mat->quantise(blocks, &j->a, 0, n);
    j->n_out = (size_t)rows * n;
    char name[64];
    snprintf(name, sizeof name, "%s, %u token%s", tensor_type_get(type)->name, n, n > 1 ? "s" : "");
    compare(name, mul_fixed, mul_free, j);
    mem_free_aligned(j->p.data);
    mem_free_aligned(blocks);
}

static void compare_set(job *j) {
    static const tensor_type types[] = {TT_Q8_0, TT_Q4_0, TT_Q4_K, TT_Q6_K, TT_F16, TT_F32};
    compare_vectors(j);
    compare_attention(j);
    compare_delta(j);
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        packed p;
        if (!pack_plan(&p, types[i], 256, COLS)) exit(3);
        compare_products(j, types[i], (uint32_t)(ONE_BYTES / p.n_bytes) * 256, 1);
        compare_products(j, types[i], 256, MANY);
    }
}

/* What each of the processes does. */
static int measure(void) {
    base_init();
    job j = {0};
    j.x = must(mem_alloc_aligned(N_VALUES * sizeof *j.x));
    j.y = must(mem_alloc_aligned(N_VALUES * sizeof *j.y));
    j.w = must(mem_alloc_aligned(N_VALUES * sizeof *j.w));
    j.b = must(mem_alloc_aligned(N_VALUES * sizeof *j.b));
    for (size_t i = 0; i < N_VALUES; i++) {
        j.x[i] = (float)((i * 2654435761u >> 8) % 2001) / 1000 - 1;
        j.w[i] = j.b[i] = 1;
    }
    const char *wish = getenv("POLDER_ISA");
    for (j.set = ISA_SCALAR + 1; j.set < ISA_COUNT; j.set++) {
        j.vec = vec_get(j.set);
        j.mat = mat_get(j.set);
        if (!j.vec || !j.mat || (wish && *wish && strcmp(wish, j.vec->name) != 0)) continue;
        j.free_order = j.set == ISA_AVX512 ? &free_avx512 : &free_avx2;
        j.free_mul = j.set == ISA_AVX512 ? free_mul_avx512 : free_mul_avx2;
        compare_set(&j);
    }
    mem_free_aligned(j.x);
    mem_free_aligned(j.y);
    mem_free_aligned(j.w);
    mem_free_aligned(j.b);
    if (n_kernels > 0) return 0;
    fprintf(stderr, "bench_determinism: the free variants are for AVX2 and AVX-512, and this machine has neither, or "
                    "POLDER_ISA names another\n");
    return 2;
}

/* ---- processes ------------------------------------------------------------------------------------------------- */

typedef struct figure {
    char set[16], name[40];
    double percent[PROCESSES], us[PROCESSES];
} figure;

/* Runs process number p and adds its figures; returns its exit status, 3 where it could not run or wrote anything
 * else than the figures of the first. */
static int run_process(int p, figure *of, unsigned *n) {
    int ends[2];
    posix_spawn_file_actions_t files;
    if (pipe(ends) != 0 || posix_spawn_file_actions_init(&files) != 0) return 3;
    posix_spawn_file_actions_adddup2(&files, ends[1], STDOUT_FILENO);
    posix_spawn_file_actions_addclose(&files, ends[0]);
    posix_spawn_file_actions_addclose(&files, ends[1]);
    char name[] = "bench_determinism", arg[] = PLACE;
    char *args[] = {name, arg, NULL};
    pid_t pid;
    int why = posix_spawn(&pid, "/proc/self/exe", &files, NULL, args, environ);
    posix_spawn_file_actions_destroy(&files);
    close(ends[1]);
    FILE *in = fdopen(ends[0], "r");
    if (why != 0 || !in) {
        fprintf(stderr, "bench_determinism: a process cannot be started: %s\n", strerror(why ? why : errno));
        return 3;
    }
    unsigned i = 0;
    char line[128];
    bool good = true;
    while (good && fgets(line, sizeof line, in)) {
        figure f;
        good = i < KERNELS && sscanf(line, "%15[^\t]\t%39[^\t]\t%lf\t%lf", f.set, f.name, &f.percent[p], &f.us[p]) == 4;
        if (!good) break;
        if (p == 0) of[i] = f;
        good = strcmp(of[i].set, f.set) == 0 && strcmp(of[i].name, f.name) == 0;
        of[i].percent[p] = f.percent[p];
        of[i].us[p] = f.us[p];
        i++;
    }
    fclose(in); /* a process that still writes ends by it */
    int status;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR) return 3;
    if (p == 0) *n = i;
    if (WIFEXITED(status) && WEXITSTATUS(status) != 0) return WEXITSTATUS(status);
    if (!good || i != *n || !WIFEXITED(status)) {
        fprintf(stderr, "bench_determinism: process %d of %d did not measure all kernels\n", p + 1, PROCESSES);
        return 3;
    }
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 2 && strcmp(argv[1], PLACE) == 0) return measure();
    if (argc > 1) {
        fprintf(stderr, "usage: %s\n", argv[0]);
        return 3;
    }
    figure of[KERNELS];
    unsigned n = 0, n_over = 0;
    for (int p = 0; p < PROCESSES; p++) {
        int code = run_process(p, of, &n);
        if (code) return code;
        if (isatty(STDERR_FILENO))
            fprintf(stderr, "\rprocess %d of %d%s", p + 1, PROCESSES, p + 1 < PROCESSES ? "" : "\n");
    }
    printf("cost of a fixed order of sums: medians of %d processes with %d alternating rounds each (least, most); time "
           "of the free variant\n",
           PROCESSES, ROUNDS);
    for (unsigned i = 0; i < n; i++) {
        figure *f = of + i;
        qsort(f->percent, PROCESSES, sizeof *f->percent, by_value);
        qsort(f->us, PROCESSES, sizeof *f->us, by_value);
        double median = f->percent[PROCESSES / 2];
        bool over = median > LIMIT_PERCENT;
        n_over += over;
        printf("%-7s %-26s %+6.1f %%  (%+6.1f, %+6.1f)  %10.1f us%s\n", f->set, f->name, median, f->percent[0],
               f->percent[PROCESSES - 1], f->us[PROCESSES / 2], over ? "  over" : "");
    }
    printf("%u of %u over %.0f %%\n", n_over, n, LIMIT_PERCENT);
    return n_over ? 1 : 0;
}
