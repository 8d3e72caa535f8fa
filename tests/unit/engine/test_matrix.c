/* Matrix products against a second writing of the numerics (ref_dot below, from kernels.h's text and the bytes of the
 * file, not from the packed form), bit for bit; and that against double precision, within what rounding activations
 * to eight bits can do. What breaks it: any change of an order of sums, a sum that overflows, a tail that is wrong. */
#include "engine/engine.h"
#include "engine/isa.h"
#include "engine/kernels/kernels.h"
#include "engine/quant.h"
#include "tests/harness.h"
#include "weights.h"

#include "base/mem.h"

#include <math.h>

/* ---- the reference ----------------------------------------------------------------------------------------- */

typedef struct ref_acts {
    float d, asum;
    int q[32], s[2];
} ref_acts;

static void ref_quantise(ref_acts *a, const float *x) {
    memset(a, 0, sizeof *a);
    float amax = 0;
    bool bad = false;
    for (int i = 0; i < 32; i++) {
        if (!isfinite(x[i])) bad = true;
        if (fabsf(x[i]) > amax) amax = fabsf(x[i]);
    }
    if (bad) a->d = a->asum = NAN;
    if (bad || amax < 0x1p-118f) return;
    a->d = amax / 127;
    float scale = 127 / amax;
    for (int i = 0; i < 32; i++) {
        a->q[i] = (int)nearbyintf(x[i] * scale);
        a->s[i / 16] += a->q[i];
    }
    a->asum = a->d * (float)(a->s[0] + a->s[1]);
}

/* Block b of 32 of a row. */
static float ref_block(tensor_type t, const uint8_t *row, uint32_t b, const float *x, float acc) {
    const quant_shape *s = quant_shape_get(t);
    quant_parts o;
    ref_acts a;
    uint32_t per = (uint32_t)s->block / 32, at = b % per * 32;
    quant_split(t, row + b / per * tensor_type_get(t)->block_bytes, &o);
    ref_quantise(&a, x + 32 * b);
    int dot[2] = {0, 0};
    for (uint32_t i = 0; i < 32; i++) dot[i / 16] += quant_weight(s, t, o.q[at + i]) * a.q[i];
    float d = quant_scale(t, o.d), dmin = quant_scale(t, o.dmin);
    if (s->run == 16) {
        uint32_t h = at / 16;
        acc = fmaf(d * a.d, (float)(o.sc[h] * dot[0] + o.sc[h + 1] * dot[1]), acc);
        if (t == TT_Q2_K) acc = fmaf(-(dmin * a.d), (float)(o.m[h] * a.s[0] + o.m[h + 1] * a.s[1]), acc);
        return acc;
    }
    if (s->scaled) d = d * (float)o.sc[at / 32];
    acc = fmaf(d * a.d, (float)(dot[0] + dot[1]), acc);
    if (t == TT_Q4_1 || t == TT_Q5_1) acc = fmaf(dmin, a.asum, acc);
    if (t == TT_Q4_K || t == TT_Q5_K) acc = fmaf(-(dmin * (float)o.m[at / 32]), a.asum, acc);
    return acc;
}

/* `swapped`: even terms first, then odd ones, as a kernel with lanes over k would; a test of orders must notice. */
static float ref_dot(tensor_type t, const uint8_t *row, const float *x, uint32_t cols, bool swapped) {
    uint32_t unit = tensor_type_get((uint32_t)t)->block_len == 1 ? 1 : 32, n = cols / unit, n_even = n - n / 2;
    float acc = 0, w;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t b = !swapped ? i : i < n_even ? 2 * i : 2 * (i - n_even) + 1;
        if (unit == 32) {
            acc = ref_block(t, row, b, x, acc);
        } else {
            tensor_expand(t, row + b * tensor_type_get((uint32_t)t)->block_bytes, &w, 1);
            acc = fmaf(w, x[b], acc);
        }
    }
    return acc;
}

/* ---- one product ------------------------------------------------------------------------------------------- */

typedef struct product {
    tensor_type type;
    uint32_t rows, cols, n;
    uint8_t *data;
    float *x, *want, *got;
    size_t ldx, ldy;
    matrix *m;
    acts *a;
} product;

static bool product_new(product *p, tensor_type t, uint32_t rows, uint32_t cols, uint32_t n, int fill) {
    *p = (product){.type = t, .rows = rows, .cols = cols, .n = n, .ldx = cols + 3, .ldy = rows + 5};
    p->data = random_weights(t, (size_t)rows * cols, fill);
    p->x = calloc(n * p->ldx, 4);
    p->want = calloc(n * p->ldy, 4);
    p->got = calloc(n * p->ldy, 4);
    if (!p->x || !p->want || !p->got) abort();
    for (size_t i = 0; i < n * p->ldx; i++) p->x[i] = rng_float() * (float)(1 + rng() % 5);
    err e = {0};
    return matrix_new(&p->m, t, rows, cols, p->data, "w", &e) == ERR_OK && acts_new(&p->a, n, cols, &e) == ERR_OK;
}

static void product_free(product *p) {
    matrix_free(p->m);
    acts_free(p->a);
    free(p->data);
    free(p->x);
    free(p->want);
    free(p->got);
}

static const uint8_t *row_of(const product *p, uint32_t r) {
    return p->data + r * weights_bytes(p->type, p->cols);
}

static void product_want(product *p) {
    for (uint32_t t = 0; t < p->n; t++)
        for (uint32_t r = 0; r < p->rows; r++)
            p->want[t * p->ldy + r] = ref_dot(p->type, row_of(p, r), p->x + t * p->ldx, p->cols, false);
}

static void product_get(product *p, pool *pl) {
    for (size_t i = 0; i < p->n * p->ldy; i++) p->got[i] = 12345; /* what is between rows must stay */
    acts_set(p->a, pl, p->x, p->ldx, p->n, p->cols);
    matrix_mul(pl, &(matmul){p->m, p->got, p->ldy}, 1, p->a);
}

static bool same_bits(const float *a, const float *b) {
    return memcmp(a, b, 4) == 0 || (isnan(*a) && isnan(*b));
}

/* -1: all as wanted and nothing else written; otherwise the first place that differs. */
static long product_differs(const product *p) {
    for (size_t i = 0; i < p->n * p->ldy; i++) {
        float filler = 12345;
        if (!same_bits(&p->got[i], i % p->ldy < p->rows ? &p->want[i] : &filler)) return (long)i;
    }
    return -1;
}

#define FOR_ISAS(name)                                                                                         \
    for (const char *const *name##_p = (const char *const[]){"scalar", "avx2", "avx512", "neon", NULL}, *name; \
         (name = *name##_p) != NULL; name##_p++)                                                               \
        if (isa_select(name, NULL) == ERR_OK)

static const char *type_name(tensor_type t) {
    return tensor_type_get((uint32_t)t)->name;
}

/* ---- cases ------------------------------------------------------------------------------------------------- */

TEST(products_have_the_same_bits_in_every_set) {
    static const uint32_t rows[] = {1, 7, 8, 9, 24, 31, 40, 67}, ns[] = {1, 2, 3, 4, 5, 7, 13, 32, 33, 40, 49};
    for (size_t i = 0; i < N_TYPES; i++)
        for (int round = 0; round < 8; round++) {
            uint32_t len = tensor_type_get(all_types[i])->block_len, cols = len * (1 + rng() % (len == 256 ? 3 : 9));
            if (len == 1) cols = 1 + rng() % 300;
            product p;
            CHECK(product_new(&p, all_types[i], rows[round], cols, ns[rng() % (sizeof ns / sizeof *ns)], -1));
            product_want(&p);
            FOR_ISAS(set) {
                product_get(&p, NULL);
                long at = product_differs(&p);
                if (at >= 0)
                    FAIL("%s %s %u x %u, n %u: token %ld row %ld: %a, not %a", set, type_name(p.type), p.rows, p.cols,
                         p.n, at / (long)p.ldy, at % (long)p.ldy, p.got[at], p.want[at]);
            }
            product_free(&p);
        }
}

/* Every remainder of a tile of tokens and of a pair of groups, one block of columns and more than a chunk of them. */
TEST(tails_of_tiles_have_the_same_bits) {
    static const uint32_t rows[] = {3, 16, 21}, wide_ns[] = {18, 31, 63, 64, 65, 67, 130};
    for (size_t i = 0; i < N_TYPES; i++)
        for (uint32_t k = 0; k < 17 + sizeof wide_ns / sizeof *wide_ns; k++) {
            uint32_t n = k < 17 ? k + 1 : wide_ns[k - 17], len = tensor_type_get(all_types[i])->block_len;
            uint32_t cols = len == 1 ? 1 + rng() % 140 : k % 3 == 2 ? (len == 256 ? 768 : 32 * 19) : len;
            product p;
            CHECK(product_new(&p, all_types[i], rows[k % 3], cols, n, -1));
            product_want(&p);
            FOR_ISAS(set) {
                product_get(&p, NULL);
                long at = product_differs(&p);
                if (at >= 0)
                    FAIL("%s %s %u x %u, n %u: token %ld row %ld", set, type_name(p.type), p.rows, p.cols, p.n,
                         at / (long)p.ldy, at % (long)p.ldy);
            }
            product_free(&p);
        }
}

TEST(products_have_the_same_bits_for_every_thread_count) {
    static const unsigned threads[] = {1, 2, 5};
    err e = {0};
    for (int k = 0; k < 3; k++) {
        pool *pl;
        CHECK_OK(pool_new(&pl, threads[k], &e), e);
        for (size_t i = 0; i < N_TYPES; i++) {
            product p;
            CHECK(product_new(&p, all_types[i], 200 + rng() % 9, 512, k == 1 ? 1 : 5, -1));
            isa_select("scalar", NULL);
            product_get(&p, NULL);
            memcpy(p.want, p.got, p.n * p.ldy * 4);
            FOR_ISAS(set) {
                product_get(&p, pl);
                if (product_differs(&p) >= 0) FAIL("%s %s with %u threads", set, type_name(p.type), threads[k]);
            }
            product_free(&p);
        }
        pool_free(pl);
    }
}

/* Every token alone, in other companies, and all together. */
TEST(neighbours_do_not_matter) {
    for (size_t i = 0; i < N_TYPES; i++) {
        product p;
        CHECK(product_new(&p, all_types[i], 43, 512, 37, -1));
        FOR_ISAS(set) {
            product_get(&p, NULL);
            memcpy(p.want, p.got, p.n * p.ldy * 4);
            for (uint32_t t = 0; t < p.n; t += 1 + rng() % 6) {
                uint32_t n = 1 + rng() % 4 < p.n - t ? 1 + rng() % 4 : 1;
                if (n > p.n - t) n = 1;
                acts_set(p.a, NULL, p.x + t * p.ldx, p.ldx, n, p.cols);
                matrix_mul(NULL, &(matmul){p.m, p.got + t * p.ldy, p.ldy}, 1, p.a);
            }
            if (product_differs(&p) >= 0)
                FAIL("%s %s: a token's row depends on its neighbours", set, type_name(p.type));
        }
        product_free(&p);
    }
}

/* The first case would be worthless if the order did not show: another order must change bits. */
TEST(a_swapped_order_shows) {
    for (size_t i = 0; i < N_TYPES; i++) {
        product p;
        CHECK(product_new(&p, all_types[i], 64, 1024, 1, -1));
        isa_select("scalar", NULL);
        product_get(&p, NULL);
        int differ = 0;
        for (uint32_t r = 0; r < p.rows; r++) {
            float v = ref_dot(p.type, row_of(&p, r), p.x, p.cols, true);
            differ += !same_bits(&v, &p.got[r]);
        }
        if (differ < 32) FAIL("%s: only %d of 64 rows show another order", type_name(p.type), differ);
        product_free(&p);
    }
}

/* Saturation shows where all weights are as large as they get and all activations have one sign. */
TEST(extreme_integers_do_not_overflow) {
    static const int fills[] = {0x00, 0xff, 0x80, 0x7f, 0x0f, 0xf0};
    for (size_t i = 0; i < N_TYPES; i++)
        for (size_t f = 0; f < sizeof fills / sizeof *fills; f++) {
            product p;
            CHECK(product_new(&p, all_types[i], 8, 256, 20, fills[f]));
            for (uint32_t t = 0; t < p.n; t++) /* 20: more than go the way of a few */
                for (uint32_t k = 0; k < p.cols; k++) {
                    bool down[] = {false, true, k % 4 >= 2, k % 32 >= 16}; /* pairs and halves of either sign */
                    p.x[t * p.ldx + k] = down[t % 4] ? -1 : 1;
                }
            product_want(&p);
            FOR_ISAS(set) {
                product_get(&p, NULL);
                if (product_differs(&p) >= 0) FAIL("%s %s, all bytes %02x", set, type_name(p.type), (unsigned)fills[f]);
            }
            product_free(&p);
        }
}

/* |error| <= sum over blocks of sum |w| * d / 2 (half a step of the activations), and a little for float sums. */
TEST(products_are_near_double_precision) {
    for (size_t i = 0; i < N_TYPES; i++) {
        product p;
        CHECK(product_new(&p, all_types[i], 40, 1024, 2, -1));
        CHECK_OK(isa_select("scalar", NULL), (err){0});
        product_get(&p, NULL);
        float *w = malloc(p.cols * sizeof *w);
        CHECK(w);
        for (uint32_t t = 0; t < p.n; t++)
            for (uint32_t r = 0; r < p.rows; r++) {
                double sum = 0, abs_sum = 0, slack = 0;
                const float *x = p.x + t * p.ldx;
                tensor_expand(p.type, row_of(&p, r), w, p.cols);
                for (uint32_t b = 0; b < p.cols; b += 32) {
                    double amax = 0, abs_w = 0;
                    for (uint32_t k = b; k < b + 32; k++) {
                        sum += (double)w[k] * x[k];
                        abs_sum += fabs((double)w[k] * x[k]);
                        abs_w += fabs(w[k]);
                        amax = fmax(amax, fabs(x[k]));
                    }
                    if (tensor_type_get(p.type)->block_len > 1) slack += abs_w * amax / 127 / 2 * 1.001;
                }
                double diff = fabs(sum - p.got[t * p.ldy + r]);
                /* minima are subtracted as whole sums, larger than what they leave: hence the factor */
                if (!(diff <= slack + abs_sum * 1e-4))
                    FAIL("%s row %u: %g from %g, %g allowed", type_name(p.type), r, diff, sum, slack);
            }
        free(w);
        product_free(&p);
    }
}

TEST(rows_are_those_of_the_file) {
    for (size_t i = 0; i < N_TYPES; i++) {
        product p;
        CHECK(product_new(&p, all_types[i], 35, 512, 1, -1));
        float *want = malloc(p.cols * 4), *got = malloc(p.cols * 4);
        CHECK(want && got);
        for (uint32_t r = 0; r < p.rows; r++) {
            tensor_expand(p.type, row_of(&p, r), want, p.cols);
            matrix_row(p.m, r, got);
            for (uint32_t k = 0; k < p.cols; k++)
                if (!same_bits(&want[k], &got[k])) FAIL("%s row %u column %u", type_name(p.type), r, k);
        }
        free(want);
        free(got);
        product_free(&p);
    }
}

TEST(the_packed_form_is_no_larger) {
    for (size_t i = 0; i < N_TYPES; i++) {
        product p;
        CHECK(product_new(&p, all_types[i], 64, 1024, 1, -1));
        double ratio = (double)matrix_bytes(p.m) / (double)weights_bytes(p.type, 64 * 1024);
        if (ratio < 0.999 || ratio > 1.05) FAIL("%s: %.3f times the file's bytes", type_name(p.type), ratio);
        product_free(&p);
    }
}

/* NaN and infinity must reach the output (an answer from garbage would look like an answer); zeros and values too small
 * to scale are zeros. */
TEST(strange_activations) {
    static const float odd[] = {NAN, INFINITY, -INFINITY, 0, -0.0f, 1e-45f, 1e-38f, 2.9e-36f, 3.1e-36f, 3.4e38f};
    for (size_t i = 0; i < N_TYPES; i++)
        for (size_t o = 0; o < sizeof odd / sizeof *odd; o++) {
            product p;
            CHECK(product_new(&p, all_types[i], 11, 512, 3, -1));
            if (fabsf(odd[o]) < 1e-30f) memset(p.x + p.ldx, 0, p.cols * 4); /* or it would drown */
            for (uint32_t k = 0; k < 32; k++) p.x[p.ldx + 64 + k] = k == 5 ? odd[o] : k % 2 ? odd[o] / 3 : 0;
            product_want(&p);
            FOR_ISAS(set) {
                product_get(&p, NULL);
                if (product_differs(&p) >= 0) FAIL("%s %s with %g", set, type_name(p.type), odd[o]);
                if (!isfinite(odd[o]) && !(isnan(p.got[p.ldy]) || isinf(p.got[p.ldy])))
                    FAIL("%s %s: %g in, %g out", set, type_name(p.type), odd[o], p.got[p.ldy]);
            }
            product_free(&p);
        }
}

/* Files may hold any bytes: scales that are NaN, infinite or subnormal. */
TEST(strange_weights) {
    for (size_t i = 0; i < N_TYPES; i++)
        for (int round = 0; round < 4; round++) {
            product p;
            CHECK(product_new(&p, all_types[i], 17, 512, 3, -1));
            size_t len = weights_bytes(p.type, (size_t)p.rows * p.cols);
            for (size_t k = 0; k < len; k++) p.data[k] = round == 0 ? 0xff : (uint8_t)rng();
            matrix_free(p.m);
            err e = {0};
            CHECK_OK(matrix_new(&p.m, p.type, p.rows, p.cols, p.data, "w", &e), e);
            product_want(&p);
            FOR_ISAS(set) {
                product_get(&p, NULL);
                if (product_differs(&p) >= 0) FAIL("%s %s", set, type_name(p.type));
            }
            product_free(&p);
        }
}

TEST(several_matrices_at_once) {
    err e = {0};
    pool *pl;
    CHECK_OK(pool_new(&pl, 2, &e), e);
    product p[N_TYPES];
    matmul ops[N_TYPES];
    for (size_t i = 0; i < N_TYPES; i++) {
        CHECK(product_new(&p[i], all_types[i], 50 + rng() % 100, 256, 6, -1));
        memcpy(p[i].x, p[0].x, 6 * p[0].ldx * 4);
        product_want(&p[i]);
        for (size_t k = 0; k < p[i].n * p[i].ldy; k++) p[i].got[k] = 12345;
        ops[i] = (matmul){p[i].m, p[i].got, p[i].ldy};
    }
    FOR_ISAS(set) {
        acts_set(p[0].a, pl, p[0].x, p[0].ldx, 6, 256);
        matrix_mul(pl, ops, N_TYPES, p[0].a);
        for (size_t i = 0; i < N_TYPES; i++)
            if (product_differs(&p[i]) >= 0) FAIL("%s %s among others", set, type_name(p[i].type));
    }
    for (size_t i = 0; i < N_TYPES; i++) product_free(&p[i]);
    pool_free(pl);
}

TEST(bad_shapes_are_refused) {
    err e = {0};
    matrix *m = (matrix *)&e;
    uint8_t none = 0;
    CHECK(matrix_new(&m, TT_Q4_0, 4, 48, &none, "blk.0.x", &e) == ERR_INVALID && m == NULL);
    CHECK_HAS(e.msg, "tensor blk.0.x: rows of 48 weights are not whole blocks of 32 (Q4_0)");
    CHECK(matrix_new(&m, TT_Q4_K, 4, 128, &none, "blk.0.x", &e) == ERR_INVALID);
    CHECK(matrix_new(&m, TT_F32, 0, 32, &none, "w", &e) == ERR_INVALID);
    CHECK(matrix_new(&m, TT_F32, 32, 0, &none, "w", &e) == ERR_INVALID);
    CHECK(matrix_new(&m, (tensor_type)4, 32, 32, &none, "w", &e) == ERR_UNSUPPORTED);
    CHECK(matrix_new(&m, TT_F32, UINT32_MAX, UINT32_MAX, &none, "w", &e) == ERR_TOO_LARGE);
}

TEST(failed_allocations_leave_nothing_behind) {
    err e = {0};
    uint8_t *data = random_weights(TT_Q4_K, 8 * 256, -1);
    for (int n = 0;; n++) {
        CHECK(n < 20);
        matrix *m = NULL;
        acts *a = NULL;
        mem_fail_after(n);
        err_code c = matrix_new(&m, TT_Q4_K, 8, 256, data, "w", &e), c2 = acts_new(&a, 4, 256, &e);
        mem_fail_after(-1);
        CHECK(c == ERR_OK ? m != NULL : c == ERR_NOMEM && m == NULL);
        CHECK(c2 == ERR_OK ? a != NULL : c2 == ERR_NOMEM && a == NULL);
        matrix_free(m);
        acts_free(a);
        if (c == ERR_OK && c2 == ERR_OK) break;
        CHECK(e.msg[0]);
    }
    free(data);
}

TEST(sets_are_chosen_by_name) {
    err e = {0};
    CHECK(isa_select("sse9", &e) == ERR_USAGE);
    CHECK_HAS(e.msg, "sse9");
    CHECK_OK(isa_select("scalar", &e), e);
    CHECK(isa_get() == ISA_SCALAR);
    setenv("POLDER_ISA", "sse9", 1);
    CHECK(engine_init(&e) == ERR_USAGE);
    CHECK_HAS(e.msg, "environment variable POLDER_ISA: instruction set \"sse9\" is unknown");
    CHECK_STR(engine_isa(), "scalar");
    unsetenv("POLDER_ISA");
    CHECK_OK(engine_init(&e), e); /* the best where nothing is asked */
    CHECK_STR(engine_isa(), isa_have(ISA_AVX512) ? "avx512"
                            : isa_have(ISA_AVX2) ? "avx2"
                            : isa_have(ISA_NEON) ? "neon"
                                                 : "scalar");
    setenv("POLDER_ISA", "scalar", 1);
    CHECK_OK(engine_init(&e), e);
    CHECK_STR(engine_isa(), "scalar");
    for (isa i = 0; i < ISA_COUNT; i++) { /* a message names what there is, and what is not there has no table */
        CHECK_INT(isa_select(isa_name(i), &e) == ERR_OK, isa_have(i));
        CHECK_INT(mat_get(i) != NULL, isa_have(i));
        CHECK(isa_select("none", &e) == ERR_USAGE);
        CHECK_INT(strstr(e.msg, isa_name(i)) != NULL, isa_have(i));
    }
    unsetenv("POLDER_ISA");
}

int main(int argc, char **argv) {
    test_begin(argc, argv);
    RUN(products_have_the_same_bits_in_every_set);
    RUN(tails_of_tiles_have_the_same_bits);
    RUN(products_have_the_same_bits_for_every_thread_count);
    RUN(neighbours_do_not_matter);
    RUN(a_swapped_order_shows);
    RUN(extreme_integers_do_not_overflow);
    RUN(products_are_near_double_precision);
    RUN(rows_are_those_of_the_file);
    RUN(the_packed_form_is_no_larger);
    RUN(strange_activations);
    RUN(strange_weights);
    RUN(several_matrices_at_once);
    RUN(bad_shapes_are_refused);
    RUN(failed_allocations_leave_nothing_behind);
    RUN(sets_are_chosen_by_name);
    return test_end();
}
