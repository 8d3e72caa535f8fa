/* Kernels of the gated delta rule: each set against the scalar definition, bit for bit, on random shapes with tails; in
 * one call and in several; and the definition against plain double arithmetic, written as the paper has it (decay,
 * read, write, answer). Breaks when a lane, a tail or an order of operations differs, when a call begins with something
 * else than what the one before left, or when a row's neighbours are written. */
#include "harness.h"

#include "engine/kernels/delta.h"

#include <math.h>

#define DK_MAX   132
#define DV_MAX   70
#define N_MAX    12
#define ROW_MAX  100 /* of v and out */
#define CHAN_MAX 70

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

typedef struct head_case {
    _Alignas(64) float state[DK_MAX * (DV_MAX + DELTA_LANES)];
    float q[N_MAX][DK_MAX + 3], k[N_MAX][DK_MAX + 3], v[N_MAX][ROW_MAX], out[N_MAX][ROW_MAX], gates[N_MAX][2];
    uint32_t n, dk, dv;
} head_case;

static float *state_at(head_case *c, uint32_t j, uint32_t col) {
    return &c->state[(size_t)(col / DELTA_LANES) * c->dk * DELTA_LANES + (size_t)j * DELTA_LANES + col % DELTA_LANES];
}

static void random_case(head_case *c) {
    c->dk = rng() % 3 ? rng() % 40 + 1 : rng() % DK_MAX + 1;
    c->dv = rng() % DV_MAX + 1;
    c->n = rng() % N_MAX + 1;
    memset(c->state, 0, sizeof c->state);
    for (uint32_t j = 0; j < c->dk; j++)
        for (uint32_t col = 0; col < c->dv; col++) *state_at(c, j, col) = rnd(1);
    for (uint32_t t = 0; t < N_MAX; t++) {
        float f = 1.7f / sqrtf((float)c->dk); /* keys of length about 1, as the rule wants them */
        fill(c->q[t], DK_MAX, f);
        fill(c->k[t], DK_MAX, f);
        fill(c->v[t], ROW_MAX, 2);
        fill(c->out[t], ROW_MAX, 5);
        c->gates[t][0] = (rnd(1) + 1) / 2;
        c->gates[t][1] = rng() % 8 ? (rnd(1) + 1) / 2 : 1;
    }
}

static void run(const delta_kernels *k, head_case *c, uint32_t from, uint32_t n) {
    k->run(&(delta_head){.state = c->state,
                         .q = c->q[from],
                         .k = c->k[from],
                         .v = c->v[from],
                         .out = c->out[from],
                         .decay = &c->gates[from][1],
                         .beta = &c->gates[from][0],
                         .ld_qk = DK_MAX + 3,
                         .ld_v = ROW_MAX,
                         .ld_out = ROW_MAX,
                         .ld_gates = 2,
                         .n = n,
                         .dk = c->dk,
                         .dv = c->dv});
}

/* Everything that may be looked at: all of out (past dv it must be as before), the columns of the state. */
static bool same_cases(head_case *a, head_case *b) {
    if (memcmp(a->out, b->out, sizeof a->out) != 0) return false;
    for (uint32_t j = 0; j < a->dk; j++)
        for (uint32_t col = 0; col < a->dv; col++)
            if (memcmp(state_at(a, j, col), state_at(b, j, col), sizeof(float)) != 0) return false;
    return true;
}

TEST(the_rule_is_bit_identical) {
    static head_case start, a, b;
    for (int round = 0; round < 3000; round++) {
        random_case(&start);
        a = start;
        run(&delta_scalar, &a, 0, a.n);
        for (isa i = ISA_SCALAR + 1; i < ISA_COUNT; i++) {
            const delta_kernels *k = delta_kernels_get(i);
            if (!k) continue;
            b = start;
            run(k, &b, 0, b.n);
            CHECK(same_cases(&a, &b));
        }
    }
}

TEST(calls_may_be_cut_anywhere) {
    static head_case a, b;
    for (isa i = 0; i < ISA_COUNT; i++) {
        const delta_kernels *k = delta_kernels_get(i);
        for (int round = 0; k && round < 1000; round++) {
            random_case(&a);
            b = a;
            run(k, &a, 0, a.n);
            for (uint32_t at = 0, n; at < b.n; at += n) {
                n = rng() % (b.n - at) + 1;
                run(k, &b, at, n);
            }
            CHECK(same_cases(&a, &b));
        }
    }
}

TEST(padding_of_a_state_stays_zero) {
    static head_case a;
    for (isa i = 0; i < ISA_COUNT; i++) {
        const delta_kernels *k = delta_kernels_get(i);
        for (int round = 0; k && round < 200; round++) {
            random_case(&a);
            run(k, &a, 0, a.n);
            uint32_t padded = (a.dv + DELTA_LANES - 1) / DELTA_LANES * DELTA_LANES;
            CHECK_INT(delta_state_floats(a.dk, a.dv), padded * a.dk);
            for (uint32_t j = 0; j < a.dk; j++)
                for (uint32_t col = a.dv; col < padded; col++) CHECK(*state_at(&a, j, col) == 0);
        }
    }
}

/* S' = decay S;  S = S' + k (beta (v - S'^T k))^T;  out = S^T q */
static double rule_in_double(head_case *c) {
    static double s[DK_MAX][DV_MAX];
    static head_case before;
    double worst = 0;
    before = *c;
    for (uint32_t j = 0; j < c->dk; j++)
        for (uint32_t col = 0; col < c->dv; col++) s[j][col] = (double)*state_at(&before, j, col);
    run(&delta_scalar, c, 0, c->n);
    for (uint32_t t = 0; t < c->n; t++)
        for (uint32_t col = 0; col < c->dv; col++) {
            double beta = (double)c->gates[t][0], decay = (double)c->gates[t][1], read = 0, out = 0;
            for (uint32_t j = 0; j < c->dk; j++) s[j][col] *= decay;
            for (uint32_t j = 0; j < c->dk; j++) read += s[j][col] * (double)c->k[t][j];
            double diff = ((double)c->v[t][col] - read) * beta;
            for (uint32_t j = 0; j < c->dk; j++) s[j][col] += diff * (double)c->k[t][j];
            for (uint32_t j = 0; j < c->dk; j++) out += s[j][col] * (double)c->q[t][j];
            worst = fmax(worst, fabs(out - (double)c->out[t][col]));
        }
    for (uint32_t j = 0; j < c->dk; j++)
        for (uint32_t col = 0; col < c->dv; col++) worst = fmax(worst, fabs(s[j][col] - (double)*state_at(c, j, col)));
    return worst;
}

TEST(the_rule_is_the_paper_s) {
    static head_case a;
    double worst = 0;
    for (int round = 0; round < 1000; round++) {
        random_case(&a);
        worst = fmax(worst, rule_in_double(&a));
    }
    printf("     largest difference to double arithmetic: %.1e\n", worst);
    CHECK(worst > 0 && worst < 4e-6);
}

TEST(the_convolution_is_bit_identical_and_right) {
    static float x[DELTA_CONV_MAX][CHAN_MAX], y[3][CHAN_MAX + 8], w[DELTA_CONV_MAX][CHAN_MAX + 5], last[CHAN_MAX];
    const float *in[DELTA_CONV_MAX];
    for (int i = 0; i < DELTA_CONV_MAX; i++) in[i] = x[i];
    for (int round = 0; round < 2000; round++) {
        uint32_t n = rng() % CHAN_MAX + 1, taps = rng() % (DELTA_CONV_MAX - 1) + 2;
        fill(x[0], sizeof x / sizeof(float), 3);
        fill(w[0], sizeof w / sizeof(float), 1);
        fill(y[0], sizeof y[0] / sizeof(float), 3);
        memcpy(y[2], y[0], sizeof y[0]);
        delta_scalar.conv(y[0], in, w[0], CHAN_MAX + 5, taps, n);
        for (uint32_t i = 0; i < n; i++) {
            double s = 0;
            for (uint32_t t = 0; t < taps; t++) s += (double)w[t][i] * (double)x[t][i];
            CHECK(fabs(s - (double)y[0][i]) < 1e-5);
        }
        for (isa i = ISA_SCALAR + 1; i < ISA_COUNT; i++) {
            const delta_kernels *k = delta_kernels_get(i);
            if (!k) continue;
            memcpy(y[1], y[2], sizeof y[1]);
            k->conv(y[1], in, w[0], CHAN_MAX + 5, taps, n);
            CHECK(memcmp(y[0], y[1], sizeof y[0]) == 0);
            memcpy(last, x[taps - 1], sizeof last);
            k->conv(x[taps - 1], in, w[0], CHAN_MAX + 5, taps, n); /* in place */
            CHECK(memcmp(x[taps - 1], y[0], n * sizeof(float)) == 0);
            memcpy(x[taps - 1], last, sizeof last);
        }
    }
}

int main(int argc, char **argv) {
    test_begin(argc, argv);
    RUN(the_rule_is_bit_identical);
    RUN(calls_may_be_cut_anywhere);
    RUN(padding_of_a_state_stays_zero);
    RUN(the_rule_is_the_paper_s);
    RUN(the_convolution_is_bit_identical_and_right);
    return test_end();
}
