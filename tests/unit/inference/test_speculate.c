/* Guesses, and that no guess and no shared prefix ever shows in an answer: the same jobs run plainly, with n-grams,
 * with a draft model, with kept prefixes, and give the same tokens and the same digests of the same rows. */
#include "harness.h"
#include "tiny_model.h"

#include "inference/drafter.h"
#include "inference/scheduler.h"
#include "inference/waiting.h"

#include "base/mem.h"
#include "base/metrics.h"

/* ---- n-grams ----------------------------------------------------------------------------------------------- */

static uint32_t lookup(const int32_t *text, uint32_t n_prompt, uint32_t n_made, int32_t *out, uint32_t most) {
    const history h = {text, text + n_prompt, n_prompt, n_made};
    return guess_lookup(&h, out, most, most);
}

TEST(lookup_finds_what_followed) {
    int32_t out[GUESS_MAX];
    const int32_t text[] = {1, 2, 3, 4, 5, 9, 8, 2, 3};
    for (uint32_t split = 0; split <= 9; split++) { /* wherever the prompt ends */
        CHECK_INT(lookup(text, split, 9 - split, out, 3), 3);
        CHECK(out[0] == 4 && out[1] == 5 && out[2] == 9);
    }
    CHECK_INT(lookup(text, 8, 0, out, 3), 0); /* one token is not enough */
    CHECK_INT(lookup(text, 0, 0, out, 3), 0);
    CHECK_INT(lookup(text, 2, 0, out, 3), 0);
}

TEST(lookup_takes_the_longest_and_of_those_the_latest) {
    int32_t out[GUESS_MAX];
    const int32_t longest[] = {7, 1, 2, 3, 50, 9, 2, 3, 60, 7, 1, 2, 3};
    CHECK_INT(lookup(longest, 13, 0, out, 1), 1);
    CHECK_INT(out[0], 50);
    const int32_t latest[] = {2, 3, 50, 9, 2, 3, 60, 8, 2, 3};
    CHECK_INT(lookup(latest, 10, 0, out, 1), 1);
    CHECK_INT(out[0], 60);
}

TEST(lookup_goes_on_with_what_it_guessed) {
    int32_t out[GUESS_MAX];
    const int32_t text[] = {9, 5, 6, 5, 6};
    CHECK_INT(lookup(text, 5, 0, out, 6), 6);
    for (int i = 0; i < 6; i++) CHECK_INT(out[i], i % 2 ? 6 : 5);
}

TEST(lookup_trusts_long_repetitions) {
    int32_t out[GUESS_MAX];
    int32_t text[40];
    for (int i = 0; i < 40; i++) text[i] = i % 20;
    history h = {text, NULL, 40, 0};
    CHECK_INT(guess_lookup(&h, out, 2, 11), 11);
    for (int i = 0; i < 11; i++) CHECK_INT(out[i], i);
    text[39 - LOOKUP_ENOUGH + 1] = 99; /* one short of enough */
    CHECK_INT(guess_lookup(&h, out, 2, 11), 2);
}

TEST(guesses_grow_with_success_and_rest_after_failure) {
    guess_state g;
    guess_init(&g);
    uint32_t first = guess_want(&g);
    CHECK(first > 1);
    for (int i = 0; i < 5; i++) guess_outcome(&g, guess_want(&g), guess_want(&g));
    CHECK_INT(guess_want(&g), GUESS_MAX);
    guess_outcome(&g, GUESS_MAX, 3);
    CHECK_INT(guess_want(&g), 4);
    int tries = 0, steps = 0;
    for (; steps < 100; steps++) {
        uint32_t n = guess_want(&g);
        tries += n > 0;
        guess_outcome(&g, n, 0);
    }
    CHECK(tries > 5 && tries < 30);
}

/* ---- who goes first ----------------------------------------------------------------------------------------- */

TEST(owners_come_and_go) {
    waiting w = {0};
    owner *a = waiting_know(&w, 1), *again = waiting_know(&w, 1);
    CHECK(a && a == again);
    a->served = 100;
    owner *b = waiting_know(&w, 2); /* begins where the least served stands: what it did before does not count */
    CHECK_INT(b->served, 100);
    a->served = 500;
    waiting_forget(&w, b);
    b = waiting_know(&w, 2);
    CHECK_INT(b->served, 500);
    waiting_forget(&w, a);
    waiting_forget(&w, a);
    waiting_forget(&w, b);
    CHECK(!w.owners);
    mem_fail_after(0);
    CHECK(!waiting_know(&w, 3));
    mem_fail_after(-1);
}

/* ---- through the scheduler ---------------------------------------------------------------------------------- */

static char dir[256];
static model *large, *small;

static err_code open_models(err *e) {
    char path[300];
    if (!test_tmpdir(dir)) return err_errno(e, "a temporary folder");
    err_code rc = engine_init(e);
    for (int i = 0; i < 2 && !rc; i++) {
        snprintf(path, sizeof path, "%s/%d.gguf", dir, i);
        if (!tiny_write(path, true, true, NULL, 5 + (unsigned)i)) return err_set(e, ERR_IO, "the small model");
        rc = model_open(i ? &small : &large, path, e);
    }
    return rc;
}

static void close_models(void) {
    model_free(large);
    model_free(small);
    large = small = NULL;
    if (dir[0]) test_rm(dir);
    dir[0] = 0;
}

#define JOBS    6
#define CHOICES 2
#define NEW_MAX 90
#define PROMPT  200

typedef struct told {
    size_t n[JOBS][CHOICES];
    int32_t tokens[JOBS][CHOICES][NEW_MAX];
    uint8_t digest[JOBS][CHOICES][SHA256_LEN];
    uint32_t steps, reused;
} told;

static int32_t prompts[JOBS][PROMPT];

/* Texts that repeat themselves, with a beginning in common; low temperatures repeat too. */
static job_spec spec_of(int i) {
    for (int k = 0; k < PROMPT; k++) prompts[i][k] = 7 + (k < 130 ? k % 23 : (k * (i + 3)) % 41);
    job_spec spec = {.prompt = prompts[i],
                     .n_prompt = PROMPT - 3 * (uint32_t)i,
                     .n_choices = i % 2 ? CHOICES : 1,
                     .max_new = NEW_MAX - (uint32_t)i,
                     .owner = (uint64_t)i % 3,
                     .priority = i == 4 ? -1 : 0,
                     .ignore_end = true};
    sampler_params_default(&spec.sampling);
    spec.sampling.temperature = i < 3 ? 0.0f : 0.4f;
    spec.sampling.repeat_penalty = i == 5 ? 1.1f : 1.0f;
    spec.sampling.seed = 11 + (uint64_t)i;
    return spec;
}

static void tell(told *t, int i, job *j, uint32_t n_choices) {
    for (uint32_t c = 0; c < n_choices; c++) {
        job_choice jc;
        job_get_choice(j, c, &jc);
        t->n[i][c] = jc.n_tokens;
        memcpy(t->tokens[i][c], jc.tokens, jc.n_tokens * sizeof *jc.tokens);
        memcpy(t->digest[i][c], jc.logits_sha256, SHA256_LEN);
        t->steps += jc.steps;
        t->reused += jc.reused;
    }
}

static err_code run_jobs(told *t, const scheduler_options *o, err *e) {
    memset(t, 0, sizeof *t);
    scheduler *s = NULL;
    job *j[JOBS] = {0};
    err_code rc = scheduler_new(&s, large, o, e);
    for (int i = 0; i < JOBS && !rc; i++) {
        job_spec spec = spec_of(i);
        rc = job_new(&j[i], s, &spec, e);
        if (!rc) job_start(j[i]);
    }
    for (int i = 0; i < JOBS && !rc; i++) {
        piece p;
        do job_next(j[i], &p, 1000);
        while (p.kind != PIECE_END);
        rc = job_result(j[i], e);
        if (!rc) tell(t, i, j[i], spec_of(i).n_choices);
    }
    for (int i = 0; i < JOBS; i++) job_free(j[i]);
    scheduler_free(s);
    return rc;
}

static bool same(const told *a, const told *b) {
    return memcmp(a->n, b->n, sizeof a->n) == 0 && memcmp(a->tokens, b->tokens, sizeof a->tokens) == 0 &&
           memcmp(a->digest, b->digest, sizeof a->digest) == 0;
}

static double counter(const char *name) {
    return metric_value(metric_get(METRIC_COUNTER, name, NULL, ""));
}

TEST(answers_are_the_same_however_they_were_made) {
    err e = {0};
    static told plain, other;
    CHECK_OK(open_models(&e), e);
    scheduler_options o = {.threads = 1, .max_sequences = 8, .max_queue = 10, .kv_bytes = 1 << 24, .step_tokens = 64};
    CHECK_OK(run_jobs(&plain, &o, &e), e);
    CHECK_INT(plain.n[0][0], NEW_MAX);
    CHECK_INT(plain.reused, 0);
    for (int way = 1; way < 16; way++) {
        o.share = way & 1;
        o.speculate = (way >> 1) % 4 == 0 ? SPECULATE_OFF : (way >> 1) % 4 == 1 ? SPECULATE_LOOKUP : SPECULATE_DRAFT;
        o.draft = (way >> 1) % 4 == 2 ? large : small; /* itself: every guess is right at temperature 0 */
        o.max_sequences = way & 8 ? 3 : 8;
        o.kv_bytes = way & 8 ? 150 << 10 : 1 << 24; /* scarce: choices give way and come back */
        double right = counter("polder_guessed_right_total");
        CHECK_OK(run_jobs(&other, &o, &e), e);
        CHECK(same(&plain, &other));
        CHECK(o.share == (other.reused > 0));
        right = counter("polder_guessed_right_total") - right;
        if (o.speculate == SPECULATE_OFF) CHECK(right == 0);
        if (o.speculate == SPECULATE_LOOKUP || o.draft == large) CHECK(o.speculate == SPECULATE_OFF || right > 0);
        if (o.speculate == SPECULATE_DRAFT && o.draft == large && way < 8) CHECK(other.steps < plain.steps * 2 / 3);
    }
    close_models();
}

/* Breaks where the other choices of a request compute its prompt again. */
TEST(choices_share_their_prompt) {
    err e = {0};
    CHECK_OK(open_models(&e), e);
    scheduler_options o = {
        .threads = 1, .max_sequences = 8, .max_queue = 10, .kv_bytes = 1 << 24, .step_tokens = 64, .share = true};
    scheduler *s;
    job *j;
    CHECK_OK(scheduler_new(&s, large, &o, &e), e);
    job_spec spec = spec_of(0);
    spec.n_choices = 5;
    spec.max_new = 3;
    CHECK_OK(job_new(&j, s, &spec, &e), e);
    job_start(j);
    piece p;
    do job_next(j, &p, 1000);
    while (p.kind != PIECE_END);
    CHECK_OK(job_result(j, &e), e);
    for (uint32_t c = 0; c < 5; c++) {
        job_choice jc;
        job_get_choice(j, c, &jc);
        CHECK_INT(jc.reused, c ? PROMPT / 64 * 64 : 0);
    }
    job_free(j);
    scheduler_free(s);
    close_models();
}

/* Breaks where positions cross from one space to another. */
TEST(spaces_share_nothing) {
    err e = {0};
    CHECK_OK(open_models(&e), e);
    scheduler_options o = {
        .threads = 1, .max_sequences = 8, .max_queue = 10, .kv_bytes = 1 << 24, .step_tokens = 64, .share = true};
    scheduler *s;
    CHECK_OK(scheduler_new(&s, large, &o, &e), e);
    static const uint8_t spaces[] = {1, 1, 2, 1, 2};
    static const uint32_t reused[] = {0, 192, 0, 192, 192};
    for (int i = 0; i < 5; i++) {
        job *j;
        job_spec spec = spec_of(0);
        spec.max_new = 2;
        spec.space[31] = spaces[i];
        CHECK_OK(job_new(&j, s, &spec, &e), e);
        job_start(j);
        piece p;
        do job_next(j, &p, 1000);
        while (p.kind != PIECE_END);
        job_choice jc;
        job_get_choice(j, 0, &jc);
        CHECK_INT(jc.reused, reused[i]);
        job_free(j);
    }
    scheduler_free(s);
    close_models();
}

/* An owner with many requests in the queue does not keep one with few waiting; low priority waits for all. */
TEST(owners_are_served_fairly) {
    err e = {0};
    CHECK_OK(open_models(&e), e);
    scheduler_options o = {.threads = 1, .max_sequences = 1, .max_queue = 40, .kv_bytes = 1 << 24, .step_tokens = 64};
    scheduler *s;
    CHECK_OK(scheduler_new(&s, large, &o, &e), e);
    job *j[13];
    for (int i = 0; i < 13; i++) { /* ten of owner 1, one of low priority, then two of owner 2 */
        job_spec spec = spec_of(0);
        spec.max_new = 20;
        spec.owner = i < 11 ? 1 : 2;
        spec.priority = i == 0 ? -1 : 0;
        CHECK_OK(job_new(&j[i], s, &spec, &e), e);
    }
    for (int i = 1; i < 13; i++) job_start(j[i]);
    job_start(j[0]);
    uint64_t waited[13];
    for (int i = 0; i < 13; i++) {
        piece p;
        do job_next(j[i], &p, 1000);
        while (p.kind != PIECE_END);
        job_times t;
        job_get_times(j[i], &t);
        waited[i] = t.queue;
    }
    int before_second = 0;
    for (int i = 1; i < 11; i++) before_second += waited[i] < waited[12];
    CHECK(before_second <= 4); /* turn by turn, not ten first */
    for (int i = 1; i < 13; i++) CHECK(waited[i] < waited[0]);
    for (int i = 0; i < 13; i++) job_free(j[i]);
    scheduler_free(s);
    close_models();
}

TEST(models_of_another_vocabulary_guess_nothing) {
    err e = {0};
    char path[300];
    CHECK_OK(open_models(&e), e);
    snprintf(path, sizeof path, "%s/other.gguf", dir);
    CHECK(tiny_write(path, false, true, NULL, 5));
    model *other;
    CHECK_OK(model_open(&other, path, &e), e);
    CHECK_INT(drafter_check(large, other, &e), ERR_INVALID);
    CHECK_HAS(e.msg, "vocabulary");
    CHECK_OK(drafter_check(large, small, &e), e);
    model_free(other);
    close_models();
}

TEST(failed_allocations_leave_nothing_behind) {
    err e = {0};
    CHECK_OK(open_models(&e), e);
    scheduler_options o = {.threads = 1,
                           .max_sequences = 2,
                           .kv_bytes = 1 << 22,
                           .step_tokens = 16,
                           .share = true,
                           .speculate = SPECULATE_DRAFT,
                           .draft = small};
    for (int n = 0;; n++) {
        scheduler *s = NULL;
        CHECK(n < 400);
        mem_fail_after(n);
        err_code rc = scheduler_new(&s, large, &o, &e);
        mem_fail_after(-1);
        scheduler_free(s);
        if (!rc) break;
        CHECK(rc == ERR_NOMEM && !s);
    }
    close_models();
}

int main(int argc, char **argv) {
    test_begin(argc, argv);
    RUN(lookup_finds_what_followed);
    RUN(lookup_takes_the_longest_and_of_those_the_latest);
    RUN(lookup_goes_on_with_what_it_guessed);
    RUN(lookup_trusts_long_repetitions);
    RUN(guesses_grow_with_success_and_rest_after_failure);
    RUN(owners_come_and_go);
    RUN(answers_are_the_same_however_they_were_made);
    RUN(choices_share_their_prompt);
    RUN(spaces_share_nothing);
    RUN(owners_are_served_fairly);
    RUN(models_of_another_vocabulary_guess_nothing);
    RUN(failed_allocations_leave_nothing_behind);
    return test_end();
}
