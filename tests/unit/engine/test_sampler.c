/* The sampler against published vectors (Philox), against a second implementation that sorts everything (sets and
 * draws), and against arithmetic by hand (penalties, bias, log-probabilities). */
#include "harness.h"

#include "base/mem.h"
#include "engine/models/models.h"
#include "engine/num.h"
#include "engine/philox.h"

#include <float.h>
#include <math.h>

#define V_MAX 40000

static float logits[V_MAX];
static model fake; /* a sampler asks a model only for its vocabulary */

static uint64_t rng_state = 1234567891011u;
static double uniform(void) {
    rng_state ^= rng_state << 13;
    rng_state ^= rng_state >> 7;
    rng_state ^= rng_state << 17;
    return (double)(rng_state >> 11) * 0x1p-53;
}

static void random_logits(uint32_t n, double spread) {
    fake.facts.n_vocab = n;
    for (uint32_t i = 0; i < n; i++) logits[i] = (float)((uniform() + uniform() + uniform() - 1.5) * spread);
    for (uint32_t i = 0; i < n / 10; i++) /* ties */
        logits[(uint32_t)(uniform() * n)] = logits[(uint32_t)(uniform() * n)];
}

static sampler_params base(float temperature) {
    sampler_params p;
    sampler_params_default(&p);
    p.temperature = temperature;
    return p;
}

/* One draw of a fresh sampler. */
static int32_t draw1(const sampler_params *p, uint32_t position) {
    sampler *s = NULL;
    err e = {0};
    if (sampler_new(&s, &fake, p, &e) != ERR_OK) {
        fprintf(stderr, "%s\n", e.msg);
        return -2;
    }
    sampled out;
    sampler_draw(s, logits, position, false, 0, NULL, &out);
    sampler_free(s);
    return out.token;
}

/* Lines "philox4x32 10" of tests/kat_vectors in Random123 1.14. */
TEST(philox_known_answers) {
    static const uint32_t kat[3][10] = {{0, 0, 0, 0, 0, 0, 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8},
                                        {0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff,
                                         0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd},
                                        {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0,
                                         0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}};
    for (int i = 0; i < 3; i++) {
        uint32_t out[4];
        philox4x32_10(out, kat[i], kat[i] + 4);
        CHECK(memcmp(out, kat[i] + 6, sizeof out) == 0);
    }
    CHECK(philox_u64(0, 0) == 0xe169c58d6627e8d5u);
    const uint32_t counter[4] = {0x01234567, 0, 0, 0}, key[2] = {0x89abcdef, 0x13579bdf};
    uint32_t out[4];
    philox4x32_10(out, counter, key);
    CHECK(philox_u64(0x13579bdf89abcdefu, 0x01234567) == ((uint64_t)out[1] << 32 | out[0]));
}

TEST(greedy_takes_the_highest_and_the_lowest_id_on_a_tie) {
    random_logits(500, 3);
    logits[77] = logits[400] = 50;
    sampler_params p = base(0);
    CHECK_INT(draw1(&p, 3), 77);
    logits[77] = NAN;
    CHECK_INT(draw1(&p, 3), 400);
    logits[300] = INFINITY;
    logits[301] = FLT_MAX; /* counts the same as infinity */
    CHECK_INT(draw1(&p, 3), 300);
    for (int i = 0; i < 500; i++) logits[i] = NAN;
    CHECK_INT(draw1(&p, 3), 0);
    p = base(1);
    CHECK_INT(draw1(&p, 3), 0);
}

/* ---- a second implementation ------------------------------------------------------------------------------ */

typedef struct item {
    double logit, w;
    int32_t id;
} item;
static int by_logit(const void *a, const void *b) {
    const item *x = a, *y = b;
    if (x->logit != y->logit) return x->logit > y->logit ? -1 : 1;
    return x->id < y->id ? -1 : 1;
}
static int by_id(const void *a, const void *b) {
    return ((const item *)a)->id < ((const item *)b)->id ? -1 : 1;
}

static int32_t reference_draw(const sampler_params *p, uint32_t n, uint32_t position) {
    static item it[V_MAX];
    for (uint32_t i = 0; i < n; i++) it[i] = (item){(double)logits[i], 0, (int32_t)i};
    qsort(it, n, sizeof *it, by_logit);
    size_t k = p->top_k > 0 && (uint32_t)p->top_k < n ? (size_t)p->top_k : n;
    double total = 0, sum = 0;
    for (size_t i = 0; i < k; i++) total += it[i].w = exp((it[i].logit - it[0].logit) / (double)p->temperature);
    if (p->top_p < 1)
        for (size_t i = 0; i < k; i++)
            if ((sum += it[i].w) >= (double)p->top_p * total) k = i + 1;
    size_t kept = 0;
    for (size_t i = 0; i < k; i++)
        if (it[i].w >= (double)p->min_p * it[0].w) it[kept++] = it[i];
    qsort(it, kept, sizeof *it, by_id);
    total = sum = 0;
    for (size_t i = 0; i < kept; i++) total += it[i].w;
    double u = (double)philox_u64(p->seed, position) * 0x1p-64 * total;
    for (size_t i = 0; i < kept; i++)
        if ((sum += it[i].w) > u) return it[i].id;
    return it[kept - 1].id;
}

TEST(draws_agree_with_a_second_implementation) {
    static const uint32_t sizes[] = {1, 2, 3, 17, 352, 1500, 40000};
    uint32_t n_draws = 0;
    for (int round = 0; round < 500; round++) {
        uint32_t n = sizes[round % 50 == 0 ? 6 : round % 6];
        random_logits(n, round % 5 == 0 ? 0.1 : 4 + uniform() * 8); /* flat ones need many candidates */
        sampler_params p = base((float)(0.2 + uniform() * 1.5));
        p.seed = (uint64_t)round * 0x9E3779B97F4A7C15u;
        if (round & 1) p.top_k = (int32_t)(uniform() * (round & 8 ? 2000 : 50)) + 1;
        if (round & 2) p.top_p = (float)(0.05 + uniform() * 0.949);
        if (round & 4) p.min_p = (float)(uniform() * 0.3);
        for (uint32_t pos = 0; pos < 3; pos++) {
            int32_t want = reference_draw(&p, n, pos);
            for (isa i = ISA_SCALAR; i < ISA_COUNT; i++) {
                err e = {0};
                if (!isa_have(i)) continue;
                CHECK_OK(isa_select(isa_name(i), &e), e);
                CHECK_INT(draw1(&p, pos), want);
                n_draws++;
            }
        }
    }
    printf("     %u draws\n", n_draws);
}

/* Frequencies of 20,000 positions: every token within five standard deviations. */
TEST(draws_follow_the_distribution) {
    random_logits(12, 3);
    sampler_params p = base(0.8f);
    double total = 0;
    int count[12] = {0};
    sampler *s = NULL;
    err e = {0};
    CHECK_OK(sampler_new(&s, &fake, &p, &e), e);
    for (int i = 0; i < 12; i++) total += exp((double)logits[i] / 0.8);
    for (uint32_t pos = 0; pos < 20000; pos++) {
        sampled out;
        sampler_draw(s, logits, pos, false, 0, NULL, &out);
        count[out.token]++;
    }
    sampler_free(s);
    for (int i = 0; i < 12; i++) {
        double q = exp((double)logits[i] / 0.8) / total;
        CHECK(fabs(count[i] - 20000 * q) <= 5 * sqrt(20000 * q * (1 - q)) + 1);
    }
}

TEST(a_draw_depends_on_seed_and_position_alone) {
    random_logits(352, 2);
    sampler_params p = base(1);
    p.seed = 99;
    int32_t first = draw1(&p, 40), differ = 0;
    sampler *s = NULL;
    err e = {0};
    CHECK_OK(sampler_new(&s, &fake, &p, &e), e);
    sampled out;
    for (uint32_t pos = 0; pos <= 40; pos++) sampler_draw(s, logits, pos, false, 0, NULL, &out);
    sampler_free(s);
    CHECK_INT(out.token, first);
    for (uint64_t seed = 0; seed < 50; seed++) {
        p.seed = seed << 32 | 5; /* the upper half counts too */
        differ += draw1(&p, 40) != first;
    }
    CHECK(differ > 30);
}

/* ---- bias and penalties ----------------------------------------------------------------------------------- */

TEST(bias_moves_and_bans) {
    random_logits(300, 1);
    logits[5] = 10;
    sampler_params p = base(0);
    logit_bias b[2] = {{5, -100}, {9, 99}};
    p.bias = b;
    p.n_bias = 2;
    CHECK_INT(draw1(&p, 0), 9);
    p.n_bias = 1;
    p.temperature = 1;
    for (uint32_t pos = 0; pos < 300; pos++) CHECK(draw1(&p, pos) != 5);
    /* everything banned: as if nothing were */
    fake.facts.n_vocab = 2;
    logits[0] = 1;
    logits[1] = 2;
    b[0] = (logit_bias){0, -100};
    b[1] = (logit_bias){1, -100};
    p.n_bias = 2;
    CHECK_INT(draw1(&p, 0), 1);
}

static int32_t greedy_after(const sampler_params *p, const int32_t *prompt, size_t n, const float *row, int draws) {
    sampler *s = NULL;
    err e = {0};
    sampled out = {.token = -2};
    if (sampler_new(&s, &fake, p, &e) != ERR_OK) return -2;
    sampler_prompt(s, prompt, n);
    for (int i = 0; i < draws; i++) sampler_draw(s, row, (uint32_t)i, false, 0, NULL, &out);
    sampler_free(s);
    return out.token;
}

TEST(repetition_penalty_reads_the_window) {
    fake.facts.n_vocab = 4;
    const float row[4] = {3.0f, 2.9f, -1.0f, -1.1f}, low[4] = {-1.0f, -1.1f, -9, -9};
    const int32_t prompt[] = {0, 2, 2};
    sampler_params p = base(0);
    p.repeat_penalty = 1.5f;
    p.repeat_last_n = 3;
    CHECK_INT(greedy_after(&p, prompt, 3, row, 1), 1); /* 3 / 1.5 is below 2.9 */
    CHECK_INT(greedy_after(&p, prompt, 3, low, 1), 1); /* a negative one is multiplied */
    p.repeat_last_n = 2;
    CHECK_INT(greedy_after(&p, prompt, 3, row, 1), 0); /* token 0 has left the window */
    CHECK_INT(greedy_after(&p, prompt, 3, row, 2), 1); /* and is back after it was drawn */
    p.repeat_penalty = 1;
    CHECK_INT(greedy_after(&p, prompt, 3, row, 2), 0);
}

TEST(frequency_and_presence_count_generated_tokens_only) {
    fake.facts.n_vocab = 3;
    const float row[3] = {3.0f, 2.0f, -5};
    const int32_t prompt[] = {0, 0, 0, 0, 0, 0};
    sampler_params p = base(0);
    p.frequency_penalty = 0.4f;
    CHECK_INT(greedy_after(&p, prompt, 6, row, 1), 0);
    CHECK_INT(greedy_after(&p, prompt, 6, row, 3), 0); /* 3 - 0.8 */
    CHECK_INT(greedy_after(&p, prompt, 6, row, 4), 1); /* 3 - 1.2 */
    p = base(0);
    p.presence_penalty = 1.5f;
    CHECK_INT(greedy_after(&p, prompt, 6, row, 1), 0);
    CHECK_INT(greedy_after(&p, prompt, 6, row, 2), 1);
    CHECK_INT(greedy_after(&p, prompt, 6, row, 3), 0); /* once each: 1.5 and 0.5 */
    p.presence_penalty = -2;
    CHECK_INT(greedy_after(&p, prompt, 6, row, 5), 0);
}

/* ---- log-probabilities and digest ------------------------------------------------------------------------- */

TEST(logprobs_are_of_the_unmodified_distribution) {
    random_logits(1000, 5);
    double lse = 0;
    for (int i = 0; i < 1000; i++) lse += exp((double)logits[i]);
    lse = log(lse);
    sampler_params p = base(0.3f);
    logit_bias b = {3, 50};
    p.bias = &b;
    p.n_bias = 1;
    p.top_k = 1;
    sampler *s = NULL;
    err e = {0};
    sampled out;
    CHECK_OK(sampler_new(&s, &fake, &p, &e), e);
    sampler_draw(s, logits, 0, true, 20, NULL, &out);
    sampler_free(s);
    CHECK_INT(out.token, 3);
    CHECK(fabs((double)out.logprob - ((double)logits[3] - lse)) < 1e-5);
    CHECK_INT(out.n_top, 20);
    double sum = 0;
    for (uint32_t i = 0; i < 20; i++) {
        CHECK(fabs((double)out.top[i].logprob - ((double)logits[out.top[i].token] - lse)) < 1e-5);
        if (i)
            CHECK(out.top[i].logprob < out.top[i - 1].logprob ||
                  (out.top[i].logprob == out.top[i - 1].logprob && out.top[i].token > out.top[i - 1].token));
        for (int k = 0; k < 1000; k++) { /* nothing that is not listed is higher than the last */
            bool listed = false;
            for (uint32_t j = 0; j < 20; j++) listed = listed || out.top[j].token == k;
            CHECK(listed || logits[k] <= logits[out.top[19].token]);
        }
    }
    for (int i = 0; i < 1000; i++) {
        logits_logprob(logits, 1000, i, 0, &out);
        sum += exp((double)out.logprob);
    }
    CHECK(fabs(sum - 1) < 1e-5);
}

TEST(logprobs_at_the_edges) {
    float row[3] = {INFINITY, NAN, -INFINITY};
    sampled out;
    logits_logprob(row, 3, 0, 20, &out);
    CHECK_INT(out.n_top, 3);
    CHECK(out.logprob == 0 && out.top[0].token == 0);
    logits_logprob(row, 3, 1, 0, &out);
    CHECK(out.logprob == -FLT_MAX && out.n_top == 0);
    logits_logprob(row, 3, 7, 1, &out);
    CHECK(out.logprob == -FLT_MAX);
    for (int i = 0; i < 3; i++) row[i] = -INFINITY;
    logits_logprob(row, 3, 1, 2, &out);
    CHECK(isfinite(out.logprob) && out.n_top == 2);
}

TEST(digest_takes_every_row_that_was_sampled_from) {
    random_logits(100, 2);
    sampler_params p = base(1);
    sampler *s = NULL;
    err e = {0};
    CHECK_OK(sampler_new(&s, &fake, &p, &e), e);
    sha256 got, want;
    sampled out;
    uint8_t a[SHA256_LEN], b[SHA256_LEN];
    sha256_init(&got);
    sha256_init(&want);
    for (uint32_t i = 0; i < 3; i++) {
        logits[i] += 1;
        sampler_draw(s, logits, i, true, 1, &got, &out);
        sha256_update(&want, logits, 100 * sizeof *logits);
    }
    sampler_free(s);
    sha256_final(&got, a);
    sha256_final(&want, b);
    CHECK(memcmp(a, b, sizeof a) == 0);
}

/* ---- parameters ------------------------------------------------------------------------------------------- */

TEST(parameters_outside_their_range_are_refused) {
    sampler_params good = base(1);
    err e = {0};
    CHECK_OK(sampler_params_check(&good, 100, &e), e);
#define BAD(field, value, name)                                  \
    do {                                                         \
        sampler_params p = good;                                 \
        p.field = (value);                                       \
        e = (err){0};                                            \
        CHECK(sampler_params_check(&p, 100, &e) == ERR_INVALID); \
        CHECK_HAS(e.msg, name);                                  \
    } while (0)
    BAD(temperature, -0.1f, "temperature");
    BAD(temperature, 2.1f, "temperature");
    BAD(temperature, NAN, "temperature");
    BAD(top_k, -1, "top_k");
    BAD(top_p, 0, "top_p");
    BAD(top_p, 1.1f, "top_p");
    BAD(top_p, NAN, "top_p");
    BAD(min_p, 1, "min_p");
    BAD(min_p, -0.1f, "min_p");
    BAD(repeat_penalty, 0, "repeat_penalty");
    BAD(repeat_penalty, NAN, "repeat_penalty");
    BAD(repeat_last_n, 5000, "repeat_last_n");
    BAD(repeat_last_n, -1, "repeat_last_n");
    BAD(frequency_penalty, 3, "frequency_penalty");
    BAD(presence_penalty, -3, "presence_penalty");
    BAD(n_bias, 1025, "logit_bias");
    logit_bias b = {100, 0};
    good.bias = &b;
    good.n_bias = 1;
    CHECK(sampler_params_check(&good, 100, &e) == ERR_INVALID);
    CHECK_HAS(e.msg, "token 100");
    b = (logit_bias){-1, 0};
    CHECK(sampler_params_check(&good, 100, &e) == ERR_INVALID);
    b = (logit_bias){1, NAN};
    CHECK(sampler_params_check(&good, 100, &e) == ERR_INVALID);
}

TEST(every_failed_allocation_is_an_error) {
    random_logits(50, 1);
    sampler_params p = base(1);
    p.top_k = 5;
    p.frequency_penalty = 1;
    p.repeat_penalty = 1.1f;
    p.repeat_last_n = 64;
    int failures = 0;
    for (int64_t n = 0;; n++) {
        sampler *s = NULL;
        err e = {0};
        mem_fail_after(n);
        err_code rc = sampler_new(&s, &fake, &p, &e);
        mem_fail_after(-1);
        if (rc == ERR_OK) {
            sampler_free(s);
            break;
        }
        CHECK(rc == ERR_NOMEM && s == NULL && e.msg[0]);
        failures++;
    }
    CHECK(failures >= 9);
}

int main(int argc, char **argv) {
    test_begin(argc, argv);
    RUN(philox_known_answers);
    RUN(greedy_takes_the_highest_and_the_lowest_id_on_a_tie);
    RUN(draws_agree_with_a_second_implementation);
    RUN(draws_follow_the_distribution);
    RUN(a_draw_depends_on_seed_and_position_alone);
    RUN(bias_moves_and_bans);
    RUN(repetition_penalty_reads_the_window);
    RUN(frequency_and_presence_count_generated_tokens_only);
    RUN(logprobs_are_of_the_unmodified_distribution);
    RUN(logprobs_at_the_edges);
    RUN(digest_takes_every_row_that_was_sampled_from);
    RUN(parameters_outside_their_range_are_refused);
    RUN(every_failed_allocation_is_an_error);
    return test_end();
}
