/* Pooled rows against what llama.cpp computed from the same file (../shared/oracle), and every pooling against itself:
 * whatever the chunks, the company and the threads, the bits are the same. Breaks when a pooling takes other rows, or
 * its sum goes another way when a text comes in pieces. */
#include "oracle.h"

#include <string.h>

/* The pooled row of a prompt, brought in chunks of n. */
static bool pooled(const model *m, const int32_t *tokens, uint32_t total, uint32_t chunk_len, unsigned threads,
                   float *out) {
    session *s = NULL;
    err e = {0};
    int seq;
    bool good = false;
    session_options o = {.n_threads = threads, .n_seq_max = 1, .max_step_tokens = 256, .hidden = true};
    if (session_new(&s, m, &o, &e) || session_seq_new(s, &seq, &e)) goto out;
    for (uint32_t at = 0; at < total; at += chunk_len) {
        uint32_t n = total - at < chunk_len ? total - at : chunk_len;
        chunk c = {.seq = seq, .tokens = tokens + at, .n = n, .n_logits = model_pool_rows(m, at, n, total)};
        if (session_step(s, &c, 1, &e)) goto out;
        model_pool_add(m, out, c.logits, n, at, total);
    }
    good = true;
out:
    if (!good) fprintf(stderr, "%s\n", e.msg);
    session_free(s);
    return good;
}

static double worst_of(const model *m, const char *folder, int line, const char *file) {
    int32_t tokens[256];
    uint32_t n = (uint32_t)load_prompt(tokens, 256, folder, line), d = m->hp.d_model;
    float *row = mem_array(d, sizeof *row);
    buf want = {0};
    double worst = -1;
    if (row && n && load_file(&want, folder, file) && want.len == d * sizeof(float) &&
        pooled(m, tokens, n, n, 2, row)) {
        worst = 0;
        for (uint32_t i = 0; i < d; i++) {
            float w;
            memcpy(&w, want.ptr + i * sizeof w, sizeof w);
            double diff = fabs((double)row[i] - (double)w);
            if (!(diff <= worst)) worst = diff;
        }
    }
    mem_free(row);
    buf_free(&want);
    return worst;
}

TEST(pooled_rows_match_the_reference) {
    static const struct {
        const char *name;
        double tolerance;
        pooling kind;
    } cases[] = {{"bert", 2e-2, POOLING_FIRST}, {"nomic-bert", 1e-3, POOLING_MEAN}};
    if (!test_shared()) SKIP("../shared is absent");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char folder[300];
        snprintf(folder, sizeof folder, "oracle/%s", cases[i].name);
        model *m = open_oracle(cases[i].name);
        CHECK(m);
        CHECK(model_embeds(m) && !model_ranks(m));
        CHECK_INT(model_get_facts(m)->pooling, cases[i].kind);
        double a = worst_of(m, folder, 0, "pooled16.f32"), b = worst_of(m, folder, 1, "pooled200.f32");
        printf("     %-10s max abs %.2e (16 tokens), %.2e (200 tokens), allowed %.2e\n", cases[i].name, a, b,
               cases[i].tolerance);
        model_free(m);
        CHECK(a >= 0 && b >= 0 && a <= cases[i].tolerance && b <= cases[i].tolerance);
    }
}

/* A causal model with each pooling: qwen3, as Qwen3-Embedding is one. Its file says nothing; this says it for it. */
TEST(pooling_in_chunks_gives_the_same_bits) {
    static const pooling kinds[] = {POOLING_MEAN, POOLING_FIRST, POOLING_LAST};
    static const uint32_t chunks[] = {1, 7, 64, 199};
    int32_t tokens[256];
    if (!test_shared()) SKIP("../shared is absent");
    model *m = open_oracle("qwen3");
    CHECK(m);
    CHECK(!model_embeds(m));
    uint32_t n = (uint32_t)load_prompt(tokens, 256, "oracle/qwen3", 1), d = m->hp.d_model;
    float *want = mem_array(d, sizeof *want), *got = mem_array(d, sizeof *got);
    CHECK(want && got && n == 200);
    float first = 0;
    for (size_t k = 0; k < 3; k++) {
        m->facts.pooling = kinds[k];
        CHECK(model_embeds(m));
        CHECK(pooled(m, tokens, n, n, 1, want));
        CHECK(k == 0 || want[0] != first);
        first = want[0];
        for (size_t c = 0; c < 4; c++) {
            CHECK(pooled(m, tokens, n, chunks[c], 1 + c % 2, got));
            CHECK(memcmp(want, got, d * sizeof *want) == 0);
        }
    }
    mem_free(want);
    mem_free(got);
    model_free(m);
}

/* Breaks where the hidden rows of a decoder are not those that its logits come from. */
TEST(hidden_rows_are_what_the_head_reads) {
    int32_t tokens[256];
    err e = {0};
    if (!test_shared()) SKIP("../shared is absent");
    model *m = open_oracle("qwen3"); /* tied: the head is the embedding */
    CHECK(m);
    uint32_t n = (uint32_t)load_prompt(tokens, 256, "oracle/qwen3", 0), d = m->hp.d_model, v = m->hp.n_vocab;
    session *rows = NULL, *logits = NULL;
    session_options o = {.n_threads = 1, .n_seq_max = 1};
    chunk a = {.tokens = tokens, .n = n, .n_logits = 1}, b = a;
    float *w = mem_array(d, sizeof *w);
    CHECK_OK(session_new(&logits, m, &o, &e), e);
    o.hidden = true;
    CHECK_OK(session_new(&rows, m, &o, &e), e);
    CHECK(session_width(rows) == d && session_width(logits) == v);
    CHECK_OK(session_seq_new(rows, &a.seq, &e), e);
    CHECK_OK(session_seq_new(logits, &b.seq, &e), e);
    CHECK_OK(session_step(rows, &a, 1, &e), e);
    CHECK_OK(session_step(logits, &b, 1, &e), e);
    for (uint32_t t = 0; t < v; t += 37) {
        double sum = 0;
        matrix_row(m->embd, t, w);
        for (uint32_t i = 0; i < d; i++) sum += (double)w[i] * (double)a.logits[i];
        CHECK(fabs(sum - (double)b.logits[t]) < 1e-4);
    }
    mem_free(w);
    session_free(rows);
    session_free(logits);
    model_free(m);
}

/* Breaks where a kernel set sums, activates or normalises in another order. */
TEST(kernel_sets_give_the_same_bits) {
    static const char *const names[] = {"bert", "nomic-bert"};
    err e = {0};
    if (!test_shared()) SKIP("../shared is absent");
    const isa was = isa_get();
    for (size_t i = 0; i < 2; i++) {
        int32_t tokens[256];
        char folder[300];
        snprintf(folder, sizeof folder, "oracle/%s", names[i]);
        model *m = open_oracle(names[i]);
        CHECK(m);
        uint32_t n = (uint32_t)load_prompt(tokens, 256, folder, 1), d = m->hp.d_model;
        float *want = mem_array(d, sizeof *want), *got = mem_array(d, sizeof *got);
        CHECK(want && got && n == 200 && pooled(m, tokens, n, n, 2, want));
        CHECK_OK(embedding_finish(want, d, d, &e), e);
        for (isa k = ISA_SCALAR; k < ISA_COUNT; k++) {
            if (!isa_have(k)) continue;
            CHECK_OK(isa_select(isa_name(k), &e), e);
            CHECK(pooled(m, tokens, n, n, 1, got));
            CHECK_OK(embedding_finish(got, d, d, &e), e);
            CHECK(memcmp(want, got, d * sizeof *want) == 0);
        }
        CHECK_OK(isa_select(isa_name(was), &e), e);
        mem_free(want);
        mem_free(got);
        model_free(m);
    }
}

int main(int argc, char **argv) {
    if (!oracle_begin(argc, argv)) return 1;
    RUN(pooled_rows_match_the_reference);
    RUN(pooling_in_chunks_gives_the_same_bits);
    RUN(hidden_rows_are_what_the_head_reads);
    RUN(kernel_sets_give_the_same_bits);
    return test_end();
}
