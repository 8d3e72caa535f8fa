/* Attention over a long context beside the limits of this machine, measured in the same run, by one thread.
 *
 *     bench_attention [POSITIONS]
 *
 * decode: the query rows of one token that share a key/value head read 8,000 positions (or as many as named) of keys
 * and values in F16 from memory, and as int8 (q8, as a share of the time of F16); `% mem` is against reading memory
 * without computing. prefill: 32 query rows read them, as one block of a prompt does; `% peak` is against fused
 * multiply-adds in registers alone. store: rounding to F16. Best of seven rounds, kernel sets in turn, since other
 * programs only ever take time away. */
#include "base/bytes.h"
#include "base/mem.h"
#include "base/sys.h"
#include "engine/engine.h"
#include "engine/kernels/vec.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ROUNDS    7
#define ROWS_MOST 32
#define DIM_MOST  576
#define MEMORY    ((size_t)224 << 20) /* more than a last-level cache holds */

typedef struct shape {
    const char *name;
    uint32_t dk, dv, group;
} shape;

typedef struct job {
    const vec_kernels *v;
    attn_shape a;
    const uint16_t *kv;
    uint16_t *spelt;           /* not NULL: tiles are int8 and are spelt out here */
    size_t n_tiles, n_context; /* all that there are; those of one sequence */
    uint32_t n_rows;
    attn_row rows[ROWS_MOST];
    float *q, *acc;
} job;

/* Time of this thread alone: what others take of the core does not count (what they take of memory does). */
static uint64_t cpu_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void begin(job *j) {
    for (uint32_t i = 0; i < j->n_rows; i++) {
        j->rows[i] = (attn_row){j->q + (size_t)i * j->a.dk, j->acc + (size_t)i * j->a.dv, -INFINITY, 0, 0, VEC_TILE};
        memset(j->rows[i].acc, 0, j->a.dv * sizeof(float));
    }
}

/* The shortest time that one context took, of all that are there. */
static double seconds_of(job *j) {
    size_t tile = j->spelt ? kv8_bytes(j->a.dk, j->a.dv) / sizeof *j->kv : (size_t)VEC_TILE * (j->a.dk + j->a.dv);
    double best = 1e9;
    for (size_t at = 0; at + j->n_context <= j->n_tiles; at += j->n_context) {
        uint64_t t0 = cpu_ns();
        begin(j);
        for (size_t t = at; t < at + j->n_context; t++) {
            const uint16_t *now = j->kv + t * tile, *next = t + 1 < j->n_tiles ? now + tile : NULL;
            if (j->spelt) j->v->kv8_expand(j->spelt, now, next, j->a.dk, j->a.dv);
            j->v->attn_tile(j->rows, j->n_rows, j->spelt ? j->spelt : now, j->spelt ? NULL : next, &j->a);
        }
        double s = (double)(cpu_ns() - t0) * 1e-9;
        if (s < best) best = s;
    }
    return best;
}

static void one_shape(const shape *s, uint32_t positions, const uint16_t *kv, uint16_t *spelt, float *q, float *acc,
                      const machine_limits *l) {
    size_t tile = (size_t)VEC_TILE * (s->dk + s->dv), n_tiles = MEMORY / sizeof *kv / tile;
    double best[ISA_COUNT][4]; /* decode, prefill, both with int8 */
    job j = {.a = {s->dk, s->dv, 0.1f, 0},
             .kv = kv,
             .n_tiles = n_tiles,
             .n_context = positions / VEC_TILE,
             .q = q,
             .acc = acc};
    for (int i = 0; i < ISA_COUNT; i++)
        for (int k = 0; k < 4; k++) best[i][k] = 1e9;
    for (int round = 0; round < ROUNDS; round++)
        for (int i = ISA_SCALAR + 1; i < ISA_COUNT; i++)
            for (int k = 0; k < 4 && vec_get((isa)i); k++) {
                j.v = vec_get((isa)i);
                j.n_rows = k % 2 ? ROWS_MOST : s->group;
                j.n_tiles = k % 2 ? j.n_context * 2 : n_tiles;
                j.spelt = k / 2 ? spelt : NULL;
                double t = seconds_of(&j);
                if (t < best[i][k]) best[i][k] = t;
            }
    for (int i = ISA_SCALAR + 1; i < ISA_COUNT; i++) {
        if (!vec_get((isa)i)) continue;
        double gbs = (double)(j.n_context * tile * sizeof *kv) / best[i][0] * 1e-9,
               gflops = 2.0 * ROWS_MOST * (double)(j.n_context * tile) / best[i][1] * 1e-9;
        printf("%-22s %-7s  decode %6.1f GB/s %4.0f %% mem   prefill %6.1f GFLOP/s %4.0f %% peak   q8 %.2f %.2f\n",
               s->name, isa_name((isa)i), gbs, 100 * gbs / l->read_gbs, gflops, 100 * gflops / l->f32_gflops,
               best[i][2] / best[i][0], best[i][3] / best[i][1]);
    }
}

static void rounding(uint16_t *kv, const float *x, size_t n) {
    for (int i = 0; i < ISA_COUNT; i++) {
        const vec_kernels *v = vec_get((isa)i);
        double best = 1e9;
        for (int round = 0; v && round < ROUNDS * 20; round++) {
            uint64_t t = cpu_ns();
            v->to_half(kv, x, n);
            double s = (double)(cpu_ns() - t) * 1e-9;
            if (s < best) best = s;
        }
        if (v) printf("to F16                 %-7s  %6.2f ns a number\n", isa_name((isa)i), best / (double)n * 1e9);
    }
}

int main(int argc, char **argv) {
    static const shape shapes[] = {
        {"64, 4 queries a head", 64, 64, 4},    {"128, 4 queries a head", 128, 128, 4},
        {"128, 2 queries a head", 128, 128, 2}, {"128, 1 query a head", 128, 128, 1},
        {"latent, 16 queries", 576, 512, 16},
    };
    uint32_t positions = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 8000;
    err e = {0};
    machine_limits l;
    base_init();
    if (positions < VEC_TILE) positions = VEC_TILE;
    if (engine_init(&e) != ERR_OK || limits_measure(&l, 1, 7, &e) != ERR_OK) {
        fprintf(stderr, "bench_attention: %s\n", e.msg);
        return 3;
    }
    uint16_t *kv = mem_alloc_aligned(MEMORY), *spelt = mem_alloc_aligned(2 * VEC_TILE * DIM_MOST * sizeof *spelt);
    float *q = mem_array((size_t)ROWS_MOST * DIM_MOST, sizeof *q),
          *acc = mem_array((size_t)ROWS_MOST * DIM_MOST, sizeof *acc);
    if (!kv || !spelt || !q || !acc) return 3;
    for (size_t i = 0; i < MEMORY / sizeof *kv; i++) kv[i] = (uint16_t)(0x3000 + i * 2654435761u % 0x900);
    for (size_t i = 0; i < (size_t)ROWS_MOST * DIM_MOST; i++) q[i] = (float)(i % 17) / 17 - 0.5f;
    printf("one thread: memory %.1f GB/s, fused multiply-adds %.0f GFLOP/s (%s); %u positions\n", l.read_gbs,
           l.f32_gflops, engine_isa(), positions);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) one_shape(&shapes[i], positions, kv, spelt, q, acc, &l);
    rounding(kv, q, 4096);
    mem_free_aligned(kv);
    mem_free_aligned(spelt);
    mem_free(q);
    mem_free(acc);
    return 0;
}
