/* The machine's limits and what a model reads a token: the two figures beside which speed is shown. What breaks it: a
 * failed allocation that is not told, a loop that the compiler computes ahead (a rate beyond any machine's), a table of
 * embeddings that is counted though it is only looked up. */
#include "base/mem.h"
#include "engine/engine.h"
#include "engine/isa.h"
#include "engine/models/models.h"
#include "tests/harness.h"
#include "tiny_model.h"

TEST(rates_are_those_of_a_machine) {
    err e = {0};
    machine_limits one, two;
    CHECK_OK(limits_measure(&one, 1, 2, &e), e);
    CHECK_OK(limits_measure(&two, 2, 1, &e), e);
    CHECK(one.read_gbs > 0.01 && one.read_gbs < 2000);
    CHECK(two.read_gbs > 0.01 && two.read_gbs < 4000);
    if (strcmp(engine_isa(), "avx2") == 0 || strcmp(engine_isa(), "avx512") == 0) {
        /* at most two instructions a cycle and 7 GHz */
        CHECK(one.int_gops > 0.1 && one.int_gops < 7.0 * 2 * 128);
        CHECK(one.f32_gflops > 0.1 && one.f32_gflops < 7.0 * 2 * 32);
    }
}

TEST(kernels_without_a_measure_say_so) {
    err e = {0};
    machine_limits l;
    const char *before = engine_isa();
    CHECK_OK(isa_select("scalar", &e), e);
    err_code rc = limits_measure(&l, 1, 1, &e);
    CHECK_OK(isa_select(before, &e), e);
    CHECK(rc == ERR_OK && l.read_gbs > 0 && l.int_gops == 0 && l.f32_gflops == 0);
}

TEST(every_allocation_may_fail) {
    err e = {0};
    machine_limits l;
    int64_t n = mem_count();
    CHECK_OK(limits_measure(&l, 1, 1, &e), e);
    n = mem_count() - n;
    CHECK(n >= 2);
    for (int64_t i = 0; i < n; i++) {
        mem_fail_after(i);
        err_code rc = limits_measure(&l, 1, 1, &e);
        mem_fail_after(-1);
        CHECK_INT(rc, ERR_NOMEM);
    }
}

static bool facts_of(const tiny *t, model_facts *out) {
    err e = {0};
    buf b = {0};
    model *m = NULL;
    tiny_make(&b, t, 1);
    bool ok = model_open_memory(&m, b.ptr, b.len, "tiny", &e) == ERR_OK;
    if (ok)
        *out = *model_get_facts(m);
    else
        fprintf(stderr, "%s\n", e.msg);
    model_free(m);
    buf_free(&b);
    return ok;
}

TEST(a_step_reads_what_it_is_multiplied_with) {
    const tiny tied = {.n_layer = 2, .d = 64, .n_head = 2, .n_kv = 1, .head = 32, .ff = 96, .n_ctx = 64, .tied = true};
    tiny own = tied, packed = tied;
    own.tied = false;
    packed.type = 8;
    uint64_t layer = 64 * 64 * 2 + 64 * 32 * 2 + 64 * 96 * 3, head = 64 * TINY_VOCAB;
    model_facts f = {0};
    CHECK(facts_of(&tied, &f));
    CHECK_INT(f.step_weights, 2 * layer + head);
    CHECK_INT(f.step_bytes, 4 * (2 * layer + head));
    CHECK(facts_of(&own, &f)); /* the table of embeddings is looked up, the head is multiplied with */
    CHECK_INT(f.step_weights, 2 * layer + head);
    CHECK(facts_of(&packed, &f));
    CHECK_INT(f.step_bytes, (2 * layer + head) / 32 * 34);
}

int main(int argc, char **argv) {
    test_begin(argc, argv);
    RUN(rates_are_those_of_a_machine);
    RUN(kernels_without_a_measure_say_so);
    RUN(every_allocation_may_fail);
    RUN(a_step_reads_what_it_is_multiplied_with);
    return test_end();
}
