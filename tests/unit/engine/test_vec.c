/* Vector kernels: each set against the scalar definition, bit for bit, on random shapes with tails; and the definition
 * against plain double arithmetic. Breaks when a lane, a tail or an order of operations differs, or when something past
 * the valid positions of a page has an influence. */
#include "harness.h"

#include "engine/kernels/vec.h"
#include "engine/num.h"

#include <math.h>

#define DIM_MAX  160
#define ROWS_MAX 11

static uint64_t rng_state = 88172645463325252u;
static uint32_t rng(void) {
    rng_state ^= rng_state << 13;
    rng_state ^= rng_state >> 7;
    rng_state ^= rng_state << 17;
    return (uint32_t)(rng_state >> 16);
}
static float rnd(float span) {
    return span * ((float)(rng() % 2000001) / 1e6f - 1);
}
static void fill(float *x, size_t n, float span) {
    for (size_t i = 0; i < n; i++) x[i] = rnd(span);
}
static bool same(const float *a, const float *b, size_t n) {
    return memcmp(a, b, n * sizeof *a) == 0;
}

/* The check for every set beside scalar; false where there is none. */
static bool for_others(void (*check)(const vec_kernels *)) {
    bool any = false;
    for (isa i = ISA_SCALAR + 1; i < ISA_COUNT; i++) {
        if (!vec_get(i)) continue;
        check(vec_get(i));
        any = true;
    }
    return any;
}

static void elementwise_like_scalar(const vec_kernels *v) {
    static float x[4][1100], y[4][1100];
    for (int round = 0; round < 400; round++) {
        uint32_t n = rng() % 1050 + 1;
        for (int k = 0; k < 4; k++) fill(x[k], n, k == 2 ? 1 : 20);
        memcpy(y, x, sizeof x);
        vec_scalar.rms_norm(x[0], x[1], x[2], n, 1e-5f);
        v->rms_norm(y[0], y[1], y[2], n, 1e-5f);
        CHECK(same(x[0], y[0], n));
        vec_scalar.rope_pairs(x[1], x[2], x[3], n & ~1u);
        v->rope_pairs(y[1], y[2], y[3], n & ~1u);
        CHECK(same(x[1], y[1], n));
        const float odd[] = {0, -0.0f, 88.8f, -88.8f, 1e30f, -1e30f, 87.3f, -87.4f, 1e-40f};
        for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) x[3][rng() % n] = odd[i];
        memcpy(y[3], x[3], sizeof x[3]);
        vec_scalar.swiglu(x[3], x[2], n);
        v->swiglu(y[3], y[2], n);
        CHECK(same(x[3], y[3], n));
        vec_scalar.rope_halves(x[1], x[2], x[3], n & ~1u);
        v->rope_halves(y[1], y[2], y[3], n & ~1u);
        CHECK(same(x[1], y[1], n));
        vec_scalar.layer_norm(x[0], x[1], x[2], x[3], n, 1e-5f);
        v->layer_norm(y[0], y[1], y[2], y[3], n, 1e-5f);
        CHECK(same(x[0], y[0], n));
        vec_scalar.geglu(x[0], x[2], n);
        v->geglu(y[0], y[2], n);
        CHECK(same(x[0], y[0], n));
        vec_scalar.gelu(x[0], n);
        v->gelu(y[0], n);
        CHECK(same(x[0], y[0], n));
        vec_scalar.sigmoid_gate(x[0], x[3], n);
        v->sigmoid_gate(y[0], y[3], n);
        CHECK(same(x[0], y[0], n));
        vec_scalar.mul_add(x[0], x[2], 1.7f, n);
        v->mul_add(y[0], y[2], 1.7f, n);
        CHECK(same(x[0], y[0], n));
        vec_scalar.soft_cap(x[0], 2.5f, n);
        v->soft_cap(y[0], 2.5f, n);
        CHECK(same(x[0], y[0], n));
        vec_scalar.swiglu_clamped(x[3], x[2], n);
        v->swiglu_clamped(y[3], y[2], n);
        CHECK(same(x[3], y[3], n));
        vec_scalar.add(x[0], x[2], n);
        v->add(y[0], y[2], n);
        vec_scalar.scale(x[0], 0.3f, n);
        v->scale(y[0], 0.3f, n);
        CHECK(same(x[0], y[0], n));
        double a = vec_scalar.exp_sum(x[0], x[1], 21, 0.7f, n), b = v->exp_sum(y[0], y[1], 21, 0.7f, n);
        CHECK(same(x[0], y[0], n) && memcmp(&a, &b, sizeof a) == 0);
    }
}

TEST(elementwise_kernels_are_bit_identical) {
    if (!for_others(elementwise_like_scalar)) SKIP("this CPU has no other set");
}

static void exp_like_scalar(const vec_kernels *v) {
    static float x[4096], a[4096], b[4096];
    for (uint32_t from = 0; from < 0xff800000u; from += 4096 * 131) {
        for (uint32_t i = 0; i < 4096; i++) x[i] = num_from_bits(from + i * 131);
        for (uint32_t i = 0; i < 4096; i++)
            if (x[i] != x[i]) x[i] = INFINITY;
        vec_scalar.exp_sum(a, x, 0, 1, 4096);
        v->exp_sum(b, x, 0, 1, 4096);
        CHECK(same(a, b, 4096));
    }
}

TEST(exp_is_bit_identical_over_its_range) {
    if (!for_others(exp_like_scalar)) SKIP("this CPU has no other set");
}

/* Every half comes back from its number; between two of them the nearer is taken, the even one of two as near; and
 * every set gives these bits for every 131st float, NaNs included. */
TEST(halves_are_rounded_to_the_nearest_in_every_set) {
    for (uint32_t h = 0; h < 0x7c00; h++) {
        float f = num_from_half((uint16_t)h);
        CHECK_INT(num_to_half(f), h);
        CHECK_INT(num_to_half(-f), h | 0x8000);
        if (h == 0x7bff) break;
        double mid = ((double)f + (double)num_from_half((uint16_t)(h + 1))) / 2;
        CHECK_INT(num_to_half((float)mid), h + (h & 1));
        CHECK_INT(num_to_half(nextafterf((float)mid, 0)), h);
        CHECK_INT(num_to_half(nextafterf((float)mid, INFINITY)), h + 1);
    }
    CHECK(num_to_half(INFINITY) == 0x7bff && num_to_half(-3e38f) == 0xfbff && num_to_half(65520) == 0x7bff);
    CHECK(isnan(num_from_half(num_to_half(NAN))) && num_from_half(0x7bff) == NUM_HALF_MAX);
    static float x[4099];
    static uint16_t a[4099], b[4099];
    for (uint64_t from = 0; from < 0x100000000u; from += 4099 * 131) {
        for (uint32_t i = 0; i < 4099; i++) x[i] = num_from_bits((uint32_t)(from + i * 131));
        vec_scalar.to_half(a, x, 4099);
        for (isa i = ISA_SCALAR; i < ISA_COUNT; i++) {
            if (!vec_get(i)) continue;
            memset(b, 0, sizeof b);
            vec_get(i)->to_half(b, x, 4099);
            CHECK(memcmp(a, b, sizeof a) == 0);
        }
    }
}

typedef struct att {
    float q[ROWS_MAX][DIM_MAX], acc[ROWS_MAX][DIM_MAX];
    float tile[3][2 * DIM_MAX * VEC_TILE]; /* K, then V; all are halves */
    uint16_t half[3][2 * DIM_MAX * VEC_TILE];
    attn_row rows[ROWS_MAX];
    uint32_t dk, dv, n_rows, pos[ROWS_MAX]; /* row i sees positions up to pos[i] */
    uint32_t from[ROWS_MAX];                /* and from this one on */
    float sink, cap;                        /* -inf: no sink; 0: no cap */
} att;

static float *k_at(att *t, uint32_t p, uint32_t d) {
    return &t->tile[p / VEC_TILE][d * VEC_TILE + p % VEC_TILE];
}
static float *v_at(att *t, uint32_t p, uint32_t d) {
    return &t->tile[p / VEC_TILE][VEC_TILE * t->dk + p % VEC_TILE * t->dv + d];
}

static void att_random(att *t) {
    t->dk = rng() % (DIM_MAX - 1) + 1;
    t->dv = rng() % (DIM_MAX - 1) + 1;
    if (rng() % 2) t->dv = t->dk = (t->dk + 15) / 16 * 16;
    t->n_rows = rng() % ROWS_MAX + 1;
    for (uint32_t i = 0; i < ROWS_MAX; i++) {
        fill(t->q[i], DIM_MAX, 2);
        t->pos[i] = rng() % (3 * VEC_TILE);
        t->from[i] = rng() % 2 ? 0 : rng() % (t->pos[i] + 1);
    }
    t->sink = rng() % 2 ? -INFINITY : (float)(rng() % 7) - 3;
    t->cap = rng() % 2 ? 0 : (float)(rng() % 20 + 1);
    for (int i = 0; i < 3; i++) {
        for (size_t k = 0; k < (size_t)2 * DIM_MAX * VEC_TILE; k++) t->tile[i][k] = num_from_half(num_to_half(rnd(2)));
    }
}

static uint16_t half_of(float f) { /* infinities too */
    return isinf(f) ? f < 0 ? 0xfc00 : 0x7c00 : num_to_half(f);
}

static void one_tile(att *t, const vec_kernels *v, attn_row *rows, uint32_t n, uint32_t i, bool half) {
    const attn_shape shape = {t->dk, t->dv, 0.17f, t->cap};
    if (half)
        v->attn_tile(rows, n, t->half[i], i < 2 ? t->half[i + 1] : NULL, &shape);
    else
        v->attn_tile_f32(rows, n, t->tile[i], i < 2 ? t->tile[i + 1] : NULL, &shape);
}

/* groups: how many rows a call gets at once; 0 for all. half: from tiles of halves. */
static void att_run(att *t, const vec_kernels *v, uint32_t groups, bool half) {
    for (size_t i = 0; half && i < 3; i++)
        for (size_t k = 0; k < (size_t)VEC_TILE * (t->dk + t->dv); k++) t->half[i][k] = half_of(t->tile[i][k]);
    for (uint32_t i = 0; i < t->n_rows; i++) {
        memset(t->acc[i], 0, sizeof t->acc[i]);
        t->rows[i] = (attn_row){t->q[i], t->acc[i], t->sink, isinf(t->sink) ? 0 : 1, 0, 0};
    }
    for (uint32_t tile = 0; tile < 3; tile++) {
        attn_row live[ROWS_MAX];
        uint32_t which[ROWS_MAX], n = 0;
        for (uint32_t i = 0; i < t->n_rows; i++) {
            if (t->pos[i] < tile * VEC_TILE || t->from[i] >= (tile + 1) * VEC_TILE) continue;
            uint32_t in = t->pos[i] - tile * VEC_TILE + 1;
            live[n] = t->rows[i];
            live[n].n_valid = in < VEC_TILE ? in : VEC_TILE;
            live[n].first = t->from[i] > tile * VEC_TILE ? t->from[i] - tile * VEC_TILE : 0;
            which[n++] = i;
        }
        for (uint32_t i = 0; i < n;) {
            uint32_t g = groups && groups < n - i ? groups : n - i;
            one_tile(t, v, live + i, g, tile, half);
            i += g;
        }
        for (uint32_t i = 0; i < n; i++) t->rows[which[i]] = live[i];
    }
}

TEST(attention_matches_double_arithmetic) {
    static att t;
    double worst = 0;
    for (int round = 0; round < 30; round++) {
        att_random(&t);
        att_run(&t, &vec_scalar, 0, false);
        for (uint32_t r = 0; r < t.n_rows; r++) {
            double s[3 * VEC_TILE], sum = isinf(t.sink) ? 0 : exp((double)t.sink);
            for (uint32_t p = t.from[r]; p <= t.pos[r]; p++) {
                double dot = 0;
                for (uint32_t d = 0; d < t.dk; d++) dot += (double)t.q[r][d] * (double)*k_at(&t, p, d);
                dot *= (double)0.17f;
                if (t.cap != 0) dot = (double)t.cap * tanh(dot / (double)t.cap);
                sum += s[p] = exp(dot);
            }
            for (uint32_t d = 0; d < t.dv; d++) {
                double want = 0;
                for (uint32_t p = t.from[r]; p <= t.pos[r]; p++) want += s[p] * (double)*v_at(&t, p, d);
                worst = fmax(worst, fabs(want / sum - (double)(t.acc[r][d] / t.rows[r].l)));
            }
        }
    }
    printf("     attention: %.2g absolute\n", worst);
    CHECK(worst < 3e-5);
}

TEST(attention_is_bit_identical_however_rows_are_grouped) {
    static att t, u;
    for (int round = 0; round < 300; round++) {
        att_random(&t);
        att_run(&t, &vec_scalar, 0, false);
        for (uint32_t groups = 0; groups <= 5; groups++)
            for (isa i = ISA_SCALAR; i < ISA_COUNT; i++) {
                const vec_kernels *v = vec_get(i);
                for (int half = v && v->attn_tile_f32 ? 0 : 1; v && half < 2; half++) {
                    u = t;
                    att_run(&u, v, groups, half);
                    for (uint32_t r = 0; r < t.n_rows; r++) {
                        CHECK(same(t.acc[r], u.acc[r], t.dv));
                        CHECK(num_bits(t.rows[r].l) == num_bits(u.rows[r].l) && t.rows[r].m == u.rows[r].m);
                    }
                }
            }
    }
}

/* What a page holds where no row looks, NaN and infinities too, must not show. */
TEST(garbage_outside_what_rows_see_has_no_influence) {
    static att t, u;
    for (int round = 0; round < 200; round++) {
        att_random(&t);
        uint32_t end = 0;
        for (uint32_t i = 0; i < t.n_rows; i++) end = t.pos[i] > end ? t.pos[i] : end;
        u = t;
        uint32_t begin = 3 * VEC_TILE;
        for (uint32_t i = 0; i < t.n_rows; i++) begin = t.from[i] < begin ? t.from[i] : begin;
        for (uint32_t p = 0; p < 3 * VEC_TILE; p++) {
            if (p >= begin && p <= end) continue;
            const float bad[] = {NAN, INFINITY, -INFINITY, 65504};
            for (uint32_t d = 0; d < t.dk; d++) *k_at(&u, p, d) = bad[rng() % 4];
            for (uint32_t d = 0; d < t.dv; d++) *v_at(&u, p, d) = bad[rng() % 4];
        }
        for (isa i = ISA_SCALAR; i < ISA_COUNT; i++) {
            const vec_kernels *v = vec_get(i);
            for (int half = v && v->attn_tile_f32 ? 0 : 1; v && half < 2; half++) {
                att_run(&t, v, 0, half);
                att_run(&u, v, 0, half);
                for (uint32_t r = 0; r < t.n_rows; r++) CHECK(same(t.acc[r], u.acc[r], t.dv));
            }
        }
    }
}

/* ---- keys and values as int8 (kv8.h) ------------------------------------------------------------------------ */

/* The value that a block gives back for its i-th number, by the header's words in double arithmetic. */
static double kv8_value(const int8_t *q, const uint16_t *scales, uint32_t i) {
    return (double)num_from_half(scales[i / KV8_BLOCK]) * q[i];
}

static bool four_bits(double scale) {
    int exponent;
    double m = frexp(scale, &exponent) * 16, least = scale * 0x1p24;
    return floor(m) == m && floor(least) == least && scale <= 512;
}

/* The next smaller scale that there is. */
static double next_below(double scale) {
    int exponent;
    double m = frexp(scale, &exponent), unit = ldexp(m == 0.5 ? 1.0 / 32 : 1.0 / 16, exponent);
    return scale - fmax(unit, 0x1p-24);
}

/* Of all magnitudes, the smallest and largest there are among them. */
TEST(int8_blocks_are_as_near_as_their_scale) {
    static const float spans[] = {1e-45f, 1e-9f, 1e-6f, 1e-4f, 0.01f, 1, 300, 65024, 1e6f, 3e38f};
    float x[DIM_MAX];
    int8_t q[DIM_MAX];
    uint16_t scales[DIM_MAX];
    for (int round = 0; round < 4000; round++) {
        uint32_t n = rng() % DIM_MAX + 1;
        for (uint32_t i = 0; i < n; i++) x[i] = rnd(1) * spans[(unsigned)(round + (i / KV8_BLOCK)) % 10];
        if (round % 7 == 0) x[rng() % n] = round % 2 ? INFINITY : -INFINITY;
        kv8_quantise(q, scales, x, n);
        for (uint32_t at = 0; at < n; at += KV8_BLOCK) {
            double amax = 0, scale = (double)num_from_half(scales[at / KV8_BLOCK]);
            for (uint32_t i = at; i < n && i < at + KV8_BLOCK; i++) amax = fmax(amax, fmin(fabs((double)x[i]), 65024));
            CHECK(scale * 127 * (1 + 1e-7) >= amax || amax < 1e-42);
            CHECK(four_bits(scale) && (scale == 0 || next_below(scale) * 127 < amax)); /* the least that does */
            for (uint32_t i = at; i < n && i < at + KV8_BLOCK; i++) {
                double held = fmax(fmin((double)x[i], 65024), -65024);
                CHECK(q[i] >= -127 && fabs(held - kv8_value(q, scales, i)) <= scale * 0.50001 + 1e-42);
            }
        }
    }
}

TEST(a_nan_in_a_block_of_int8_is_not_lost) {
    float x[100] = {0};
    int8_t q[100];
    uint16_t scales[4];
    for (int i = 0; i < 100; i++) x[i] = (float)i;
    x[40] = NAN;
    kv8_quantise(q, scales, x, 100);
    CHECK(isnan(num_from_half(scales[1])) && !isnan(num_from_half(scales[0])) && !isnan(num_from_half(scales[2])));
    for (int i = 32; i < 64; i++) CHECK_INT(q[i], 0);
    float zero[33] = {0, -0.0f};
    kv8_quantise(q, scales, zero, 33);
    CHECK(scales[0] == 0 && scales[1] == 0 && q[0] == 0 && q[32] == 0);
}

typedef struct kv8_case {
    _Alignas(64) uint8_t from[4 * DIM_MAX * VEC_TILE];
    _Alignas(64) uint16_t want[2 * DIM_MAX * VEC_TILE + 1], got[2 * DIM_MAX * VEC_TILE + 1];
} kv8_case;

/* In whatever order positions are stored, a tile spelt out holds for each exactly what its blocks say. */
TEST(tiles_of_int8_are_spelt_out_as_they_were_stored) {
    static kv8_case t;
    static float k[VEC_TILE][DIM_MAX], v[VEC_TILE][DIM_MAX];
    for (int round = 0; round < 60; round++) {
        uint32_t dk = rng() % DIM_MAX + 1, dv = round % 3 ? rng() % DIM_MAX + 1 : dk;
        memset(t.from, 0xa5, sizeof t.from);
        CHECK(kv8_bytes(dk, dv) % 64 == 0 && kv8_bytes(dk, dv) <= sizeof t.from);
        for (uint32_t i = 0; i < VEC_TILE; i++) {
            uint32_t p = i * 37 % VEC_TILE;
            fill(k[p], dk, 4);
            fill(v[p], dv, round % 2 ? 0.01f : 1e-6f);
            kv8_put(t.from, p, k[p], dk, v[p], dv);
        }
        CHECK(kv8_bytes(dk, dv) == sizeof t.from || t.from[kv8_bytes(dk, dv)] == 0xa5);
        vec_scalar.kv8_expand(t.want, t.from, NULL, dk, dv);
        for (uint32_t p = 0; p < VEC_TILE; p++) {
            int8_t q[DIM_MAX];
            uint16_t scales[DIM_MAX];
            kv8_quantise(q, scales, k[p], dk);
            for (uint32_t d = 0; d < dk; d++)
                CHECK((double)num_from_half(t.want[d * VEC_TILE + p]) == kv8_value(q, scales, d));
            kv8_quantise(q, scales, v[p], dv);
            for (uint32_t d = 0; d < dv; d++)
                CHECK((double)num_from_half(t.want[VEC_TILE * dk + p * dv + d]) == kv8_value(q, scales, d));
        }
    }
}

/* Any scale up to the largest one, subnormals and NaN too, in every set. */
TEST(tiles_of_int8_are_spelt_out_to_the_same_bits) {
    static kv8_case t;
    for (int round = 0; round < 300; round++) {
        uint32_t dk = rng() % DIM_MAX + 1, dv = rng() % DIM_MAX + 1;
        size_t n = (size_t)VEC_TILE * (dk + dv), n_scales = (size_t)VEC_TILE * (kv8_blocks(dk) + kv8_blocks(dv));
        for (size_t i = 0; i < n; i++) t.from[i] = (uint8_t)(int8_t)((int)(rng() % 255) - 127);
        for (size_t i = 0; i < n_scales; i++) {
            uint16_t h = rng() % 50 == 0 ? 0x7e00 : (uint16_t)(rng() % (round % 2 ? 0x6001 : 0x500));
            memcpy(t.from + n + 2 * i, &h, 2);
        }
        vec_scalar.kv8_expand(t.want, t.from, NULL, dk, dv);
        for (isa i = ISA_SCALAR; i < ISA_COUNT; i++) {
            if (!vec_get(i)) continue;
            memset(t.got, 0xff, sizeof t.got);
            vec_get(i)->kv8_expand(t.got, t.from, round % 2 ? t.from : NULL, dk, dv);
            CHECK(memcmp(t.got, t.want, n * sizeof *t.got) == 0);
            CHECK_INT(t.got[n], 0xffff); /* nothing past the end */
        }
    }
}

TEST(norm_and_rope_follow_their_definitions) {
    float x[DIM_MAX], w[DIM_MAX], y[DIM_MAX];
    fill(x, DIM_MAX, 3);
    fill(w, DIM_MAX, 1);
    double ss = 0;
    for (int i = 0; i < DIM_MAX; i++) ss += (double)x[i] * (double)x[i];
    double f = 1 / sqrt(ss / DIM_MAX + 1e-5);
    vec_scalar.rms_norm(y, x, w, DIM_MAX, 1e-5f);
    for (int i = 0; i < DIM_MAX; i++) CHECK(fabs((double)y[i] - (double)x[i] * f * (double)w[i]) < 1e-6);
    /* a quarter turn: (a, b) becomes (-b, a) */
    float p[2] = {3, 5}, cc[2] = {0, 0}, sn[2] = {-1, 1};
    vec_scalar.rope_pairs(p, cc, sn, 2);
    CHECK(p[0] == -5 && p[1] == 3);
    float h[4] = {3, 7, 5, 11}, hc[4] = {0, 1, 0, 1}, hs[4] = {-1, 0, 1, 0}; /* the first pair is (3, 5) */
    vec_scalar.rope_halves(h, hc, hs, 4);
    CHECK(h[0] == -5 && h[2] == 3 && h[1] == 7 && h[3] == 11);
}

/* Against double arithmetic: layer norm, GELU in its tanh form, soft cap, the clamped SwiGLU. */
TEST(the_other_kernels_follow_their_definitions) {
    float x[DIM_MAX], w[DIM_MAX], b[DIM_MAX], y[DIM_MAX];
    for (int round = 0; round < 50; round++) {
        fill(x, DIM_MAX, 9);
        fill(w, DIM_MAX, 9);
        fill(b, DIM_MAX, 1);
        double mean = 0, var = 0;
        for (int i = 0; i < DIM_MAX; i++) mean += (double)x[i] / DIM_MAX;
        for (int i = 0; i < DIM_MAX; i++) var += ((double)x[i] - mean) * ((double)x[i] - mean) / DIM_MAX;
        vec_scalar.layer_norm(y, x, w, b, DIM_MAX, 1e-5f);
        for (int i = 0; i < DIM_MAX; i++)
            CHECK(fabs((double)y[i] - (((double)x[i] - mean) / sqrt(var + 1e-5) * (double)w[i] + (double)b[i])) < 3e-5);
        memcpy(y, x, sizeof y);
        vec_scalar.gelu(y, DIM_MAX);
        for (int i = 0; i < DIM_MAX; i++) {
            double v = (double)x[i], u = sqrt(2 / acos(-1.0)) * (v + 0.044715 * v * v * v);
            CHECK(fabs((double)y[i] - v / 2 * (1 + tanh(u))) < 3e-6);
        }
        memcpy(y, x, sizeof y);
        vec_scalar.soft_cap(y, 4, DIM_MAX);
        for (int i = 0; i < DIM_MAX; i++) CHECK(fabs((double)y[i] - 4 * tanh((double)x[i] / 4)) < 2e-6);
        memcpy(y, x, sizeof y);
        vec_scalar.swiglu_clamped(y, w, DIM_MAX);
        for (int i = 0; i < DIM_MAX; i++) {
            double g = fmin((double)x[i], 7), u = fmax(fmin((double)w[i], 7), -7);
            CHECK(fabs((double)y[i] - g / (1 + exp(-(double)1.702f * g)) * (u + 1)) < 3e-5);
        }
    }
}

int main(int argc, char **argv) {
    test_begin(argc, argv);
    RUN(int8_blocks_are_as_near_as_their_scale);
    RUN(a_nan_in_a_block_of_int8_is_not_lost);
    RUN(tiles_of_int8_are_spelt_out_as_they_were_stored);
    RUN(tiles_of_int8_are_spelt_out_to_the_same_bits);
    RUN(norm_and_rope_follow_their_definitions);
    RUN(the_other_kernels_follow_their_definitions);
    RUN(elementwise_kernels_are_bit_identical);
    RUN(exp_is_bit_identical_over_its_range);
    RUN(halves_are_rounded_to_the_nearest_in_every_set);
    RUN(attention_matches_double_arithmetic);
    RUN(attention_is_bit_identical_however_rows_are_grouped);
    RUN(garbage_outside_what_rows_see_has_no_influence);
    return test_end();
}
