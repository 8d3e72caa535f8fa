/* The engine thread's order of work, by what the jobs themselves can tell: steps, times, order of their ends. */
#include "harness.h"
#include "tiny_model.h"

#include "inference/crew.h"
#include "inference/scheduler.h"

#include "base/mem.h"
#include "base/metrics.h"
#include "base/sys.h"

#include <stdatomic.h>

static char dir[256];
static model *m;
static scheduler *s;

static err_code begin(uint32_t max_sequences, uint32_t max_queue, uint32_t step_tokens, uint64_t kv_bytes, err *e) {
    char path[300];
    if (!test_tmpdir(dir)) return err_errno(e, "a temporary folder");
    snprintf(path, sizeof path, "%s/tiny.gguf", dir);
    if (!tiny_write(path, true, true, NULL, 5)) return err_set(e, ERR_IO, "the small model");
    err_code rc = engine_init(e);
    if (!rc) rc = model_open(&m, path, e);
    scheduler_options o = {.threads = 1,
                           .max_sequences = max_sequences,
                           .max_queue = max_queue,
                           .kv_bytes = kv_bytes,
                           .step_tokens = step_tokens};
    return rc ? rc : scheduler_new(&s, m, &o, e);
}

static void end(void) {
    scheduler_free(s);
    model_free(m);
    s = NULL;
    m = NULL;
    if (dir[0]) test_rm(dir);
    dir[0] = 0;
}

static int32_t prompt_of[TINY_CONTEXT]; /* any tokens do */

static job_spec spec_of(uint32_t n_prompt, uint32_t max_new) {
    for (int i = 0; i < TINY_CONTEXT; i++) prompt_of[i] = 7 + i % 200;
    job_spec spec = {.prompt = prompt_of, .n_prompt = n_prompt, .n_choices = 1, .max_new = max_new, .ignore_end = true};
    sampler_params_default(&spec.sampling);
    return spec;
}

static err_code finish(job *j, err *e) {
    piece p;
    do job_next(j, &p, 1000);
    while (p.kind != PIECE_END);
    return job_result(j, e);
}

static uint64_t first_token_ns(job *j) {
    job_times t;
    job_get_times(j, &t);
    return t.queue + t.prefill;
}

/* Breaks where a long prompt is finished before a short one that came right after it gets its turn. */
TEST(scheduler_long_prompt_does_not_block_a_short_one) {
    err e = {0};
    job *long_one, *short_one;
    job_spec a = spec_of(380, 1), c = spec_of(4, 1);
    CHECK_OK(begin(4, 10, 8, 1 << 24, &e), e);
    CHECK_OK(job_new(&long_one, s, &a, &e), e);
    CHECK_OK(job_new(&short_one, s, &c, &e), e);
    job_start(long_one);
    job_start(short_one);
    CHECK_OK(finish(short_one, &e), e);
    CHECK_OK(finish(long_one, &e), e);
    job_choice jc;
    job_get_choice(long_one, 0, &jc);
    CHECK(jc.steps >= 380 / 8);
    job_get_choice(short_one, 0, &jc);
    CHECK(jc.steps <= 3);
    CHECK(first_token_ns(short_one) < first_token_ns(long_one));
    job_free(long_one);
    job_free(short_one);
}

/* Breaks where a request with many choices takes a share of prompt work for each of them. */
TEST(scheduler_shares_by_request_not_by_choice) {
    err e = {0};
    job *many, *one;
    job_spec a = spec_of(300, 1), c = spec_of(300, 1);
    a.n_choices = 8;
    CHECK_OK(begin(12, 10, 24, 1 << 24, &e), e);
    CHECK_OK(job_new(&many, s, &a, &e), e);
    CHECK_OK(job_new(&one, s, &c, &e), e);
    job_start(many);
    job_start(one);
    CHECK_OK(finish(one, &e), e);
    CHECK_OK(finish(many, &e), e);
    job_choice jc;
    job_get_choice(one, 0, &jc);
    CHECK(jc.steps <= 300 / 12 + 4); /* half of each step is its own */
    job_free(many);
    job_free(one);
}

/* Breaks where decoding waits for prompts: each step carries a token of every decoding choice. */
TEST(scheduler_decoding_goes_on_beside_prompts) {
    err e = {0};
    job *writer, *reader[3];
    job_spec w = spec_of(4, 100), r = spec_of(370, 1);
    CHECK_OK(begin(4, 10, 8, 1 << 24, &e), e);
    CHECK_OK(job_new(&writer, s, &w, &e), e);
    for (int i = 0; i < 3; i++) CHECK_OK(job_new(&reader[i], s, &r, &e), e);
    job_start(writer);
    for (int i = 0; i < 3; i++) job_start(reader[i]);
    CHECK_OK(finish(writer, &e), e);
    for (int i = 0; i < 3; i++) CHECK_OK(finish(reader[i], &e), e);
    CHECK(first_token_ns(reader[2]) > first_token_ns(writer));
    job_choice jc;
    job_get_choice(writer, 0, &jc);
    CHECK_INT(jc.n_tokens, 100);
    CHECK(jc.steps <= 100 + 3);
    job_free(writer);
    for (int i = 0; i < 3; i++) job_free(reader[i]);
}

/* Breaks where step_tokens below the number of sequences starves prompts or decoding. */
TEST(scheduler_smallest_step) {
    err e = {0};
    job *j[6];
    job_spec spec = spec_of(50, 20);
    CHECK_OK(begin(6, 10, 1, 1 << 24, &e), e);
    for (int i = 0; i < 6; i++) CHECK_OK(job_new(&j[i], s, &spec, &e), e);
    for (int i = 0; i < 6; i++) job_start(j[i]);
    for (int i = 0; i < 6; i++) CHECK_OK(finish(j[i], &e), e);
    for (int i = 0; i < 6; i++) job_free(j[i]);
}

/* Breaks where places are counted wrongly: reserved, given back unused, taken by who runs. */
TEST(scheduler_counts_places) {
    err e = {0};
    job *j[5], *more;
    job_spec spec = spec_of(5, 5);
    CHECK_OK(begin(2, 3, 64, 1 << 24, &e), e);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 5; i++) CHECK_OK(job_new(&j[i], s, &spec, &e), e);
        CHECK_INT(job_new(&more, s, &spec, &e), ERR_BUSY);
        CHECK(more == NULL);
        for (int i = 0; i < 5; i++) {
            if (round == 1) job_start(j[i]);
            if (round == 1) CHECK_OK(finish(j[i], &e), e);
            job_free(j[i]);
        }
    }
    CHECK(metric_value(metric_get(METRIC_GAUGE, "polder_queue_requests", NULL, "")) == 0);
}

/* Breaks where a job that waits cannot be cancelled, or a free blocks on one that never started. */
TEST(scheduler_cancels_what_waits) {
    err e = {0};
    job *j[4];
    job_spec spec = spec_of(5, 370);
    spec.n_choices = 4;
    CHECK_OK(begin(1, 10, 64, 1 << 24, &e), e);
    for (int i = 0; i < 4; i++) CHECK_OK(job_new(&j[i], s, &spec, &e), e);
    for (int i = 0; i < 4; i++) job_start(j[i]);
    job_cancel(j[2]);
    CHECK_INT(finish(j[2], &e), ERR_CANCELLED);
    job_choice jc;
    job_get_choice(j[2], 3, &jc);
    CHECK_INT(jc.n_tokens, 0);
    CHECK(jc.finish == NULL);
    for (int i = 0; i < 4; i++) job_free(j[i]); /* cancels the others, running and waiting */
    CHECK(metric_value(metric_get(METRIC_GAUGE, "polder_running_sequences", NULL, "")) == 0);
    CHECK(metric_value(metric_get(METRIC_GAUGE, "polder_queue_requests", NULL, "")) == 0);
}

TEST(scheduler_refuses_what_can_never_run) {
    err e = {0};
    job *j;
    job_spec spec = spec_of(TINY_CONTEXT, 1);
    CHECK_OK(begin(4, 10, 64, 100 * 256, &e), e); /* 256 bytes a position: one page of 64 */
    CHECK_INT(scheduler_kv_positions(s), 64);
    CHECK_INT(scheduler_context(s), 64);
    CHECK_INT(job_new(&j, s, &spec, &e), ERR_TOO_LONG);
    spec = spec_of(60, 4);
    CHECK_OK(job_new(&j, s, &spec, &e), e);
    job_start(j);
    CHECK_OK(finish(j, &e), e);
    job_free(j);
    scheduler *none;
    scheduler_options o = {.threads = 1, .max_sequences = 1, .kv_bytes = 1000, .step_tokens = 8};
    CHECK_INT(scheduler_new(&none, m, &o, &e), ERR_USAGE);
    CHECK_HAS(e.msg, "kv_memory_mib");
}

/* int8 keys and values: more positions in the same memory, and answers all the same. */
TEST(int8_pages_make_room_for_more_positions) {
    uint32_t positions[KV_FORMATS];
    err e = {0};
    CHECK_OK(begin(4, 4, 64, 60 << 10, &e), e);
    for (kv_format kv = 0; kv < KV_FORMATS; kv++) {
        scheduler *mine;
        scheduler_options o = {
            .threads = 1, .max_sequences = 4, .max_queue = 4, .kv_bytes = 60 << 10, .kv = kv, .step_tokens = 64};
        job *j;
        job_spec spec = spec_of(60, 20);
        CHECK_OK(scheduler_new(&mine, m, &o, &e), e);
        positions[kv] = scheduler_kv_positions(mine);
        CHECK_INT(scheduler_kv(mine), kv);
        CHECK_INT(positions[kv], (60 << 10) / model_get_facts(m)->kv_bytes[kv] / 64 * 64);
        CHECK_OK(job_new(&j, mine, &spec, &e), e);
        job_start(j);
        CHECK_OK(finish(j, &e), e);
        job_free(j);
        scheduler_free(mine);
    }
    CHECK(positions[KV_Q8] > positions[KV_F16]);
}

static atomic_int crew_hits[100];
static void crew_hit(void *ctx, size_t i) {
    atomic_fetch_add(&crew_hits[i], *(int *)ctx);
}

/* Breaks where a piece is done twice, left out, or not finished when crew_run returns. */
TEST(crew_does_every_piece_once) {
    err e = {0};
    for (unsigned threads = 1; threads <= 4; threads++) {
        crew *c;
        CHECK_OK(crew_new(&c, threads, &e), e);
        for (int round = 0; round < 300; round++) {
            int n = round % 100, one = 1;
            for (int i = 0; i < 100; i++) atomic_store(&crew_hits[i], 0);
            crew_run(c, (size_t)n, crew_hit, &one);
            for (int i = 0; i < 100; i++) CHECK_INT(atomic_load(&crew_hits[i]), i < n);
        }
        crew_free(c);
    }
    for (int64_t n = 0; n < 2; n++) {
        crew *c;
        mem_fail_after(n);
        err_code rc = crew_new(&c, 3, &e);
        mem_fail_after(-1);
        CHECK_INT(rc, ERR_NOMEM);
    }
}

static void each(const char *name, void (*fn)(void)) {
    test_run(name, fn);
    end();
}
#undef RUN
#define RUN(name) each(#name, test_case_##name)

int main(int argc, char **argv) {
    test_begin(argc, argv);
    RUN(scheduler_long_prompt_does_not_block_a_short_one);
    RUN(scheduler_shares_by_request_not_by_choice);
    RUN(scheduler_decoding_goes_on_beside_prompts);
    RUN(scheduler_smallest_step);
    RUN(scheduler_counts_places);
    RUN(scheduler_cancels_what_waits);
    RUN(scheduler_refuses_what_can_never_run);
    RUN(int8_pages_make_room_for_more_positions);
    RUN(crew_does_every_piece_once);
    return test_end();
}
