/* Every architecture against the logits that llama.cpp computed from the same file (../shared/oracle), and against
 * itself: one token at a time, in chunks, in another sequence's company, with one thread and with two, all bits are the
 * same. Breaks when a window, a norm, a gate, an expert or a state computes something else, or depends on how work is
 * cut. */
#include "oracle.h"

#include <string.h>

typedef struct family {
    const char *name;
    double tolerance; /* largest difference to the reference; 0: as its manifest asks of 8-bit activations */
} family;

static const family families[] = {
    {"mixtral", 1e-3},      {"qwen2", 1e-3},         {"qwen3", 1e-3},          {"qwen3moe", 1e-3},
    {"mistral3", 1e-3},     {"phi3", 1e-3},          {"gemma2", 2e-2},         {"gemma3", 2e-2},
    {"gemma4", 2e-2},       {"gpt-oss-f32", 1e-3},   {"deepseek2-lite", 1e-3}, {"deepseek2-v3", 1e-3},
    {"deepseek2-k2", 1e-3}, {"deepseek2-kvb", 1e-3}, {"gpt-oss", 0},           {"qwen3next", 1e-3},
    {"qwen35", 1e-3},       {"bert", 2e-2},          {"nomic-bert", 1e-3},
};
#define N_FAMILIES (sizeof families / sizeof *families)

TEST(all_match_the_reference) {
    if (!test_shared()) SKIP("../shared is absent");
    bool all = true;
    for (size_t i = 0; i < N_FAMILIES; i++) {
        const family *f = &families[i];
        char folder[300];
        snprintf(folder, sizeof folder, "oracle/%s", f->name);
        model *m = open_oracle(f->name);
        double allowed = f->tolerance > 0 ? f->tolerance : quantised_tolerance(f->name), a = -1, b = -1;
        bool rows = m && m->hp.encoder;
        if (m) a = compare(m, folder, 0, 16, rows ? "embd16.f32" : "logits16.f32");
        if (m) b = compare(m, folder, 1, 8, rows ? "embd200.f32" : "logits200.f32");
        printf("     %-14s max abs %.2e (16 tokens), %.2e (200 tokens), allowed %.2e\n", f->name, a, b, allowed);
        if (!(a >= 0 && b >= 0 && a <= allowed && b <= allowed)) all = false;
        model_free(m);
    }
    CHECK(all);
}

/* Rows of all 200 positions, the prompt brought in chunks of n; with a neighbour that runs along. */
static bool rows_of(const model *m, const int32_t *tokens, uint32_t n_tokens, uint32_t chunk_len, unsigned threads,
                    bool neighbour, float *out) {
    session *s = NULL;
    err e = {0};
    int seq[2];
    bool good = false;
    session_options o = {.n_threads = threads, .n_seq_max = 2, .max_step_tokens = 512};
    if (session_new(&s, m, &o, &e) || session_seq_new(s, &seq[0], &e) || session_seq_new(s, &seq[1], &e)) goto out;
    for (uint32_t at = 0; at < n_tokens; at += chunk_len) {
        uint32_t n = n_tokens - at < chunk_len ? n_tokens - at : chunk_len;
        /* the neighbour reads the same text from its end */
        chunk c[2] = {{.seq = seq[1], .tokens = tokens + n_tokens - at - n, .n = n, .n_logits = n},
                      {.seq = seq[0], .tokens = tokens + at, .n = n, .n_logits = n}};
        if (session_step(s, neighbour ? c : c + 1, neighbour ? 2 : 1, &e)) goto out;
        memcpy(out + (size_t)at * session_width(s), c[1].logits, (size_t)n * session_width(s) * sizeof *out);
    }
    good = true;
out:
    if (!good) fprintf(stderr, "%s\n", e.msg);
    session_free(s);
    return good;
}

static bool same_however_cut(const char *name) {
    char folder[300];
    int32_t tokens[256];
    static const struct {
        uint32_t chunk;
        unsigned threads;
        bool neighbour;
    } ways[] = {{1, 1, false}, {7, 2, false}, {64, 1, true}, {33, 2, true}, {200, 1, false}};
    snprintf(folder, sizeof folder, "oracle/%s", name);
    model *m = open_oracle(name);
    uint32_t n = (uint32_t)load_prompt(tokens, 256, folder, 1);
    if (!m || n != 200) return false;
    size_t floats = (size_t)n * (m->hp.encoder ? m->hp.d_model : m->hp.n_vocab);
    float *want = mem_array(floats, sizeof *want), *got = mem_array(floats, sizeof *got);
    bool good = want && got && rows_of(m, tokens, n, n, 2, false, want);
    for (size_t i = 0; good && i < sizeof ways / sizeof *ways; i++) {
        if (m->hp.encoder && ways[i].chunk < n) continue; /* takes a sequence whole */
        good = rows_of(m, tokens, n, ways[i].chunk, ways[i].threads, ways[i].neighbour, got) &&
               memcmp(want, got, floats * sizeof *want) == 0;
        if (!good)
            fprintf(stderr, "%s: other bits in chunks of %u, %u threads\n", name, ways[i].chunk, ways[i].threads);
    }
    mem_free(want);
    mem_free(got);
    model_free(m);
    return good;
}

TEST(bits_do_not_depend_on_how_work_is_cut) {
    if (!test_shared()) SKIP("../shared is absent");
    bool all = true;
    for (size_t i = 0; i < N_FAMILIES; i++)
        if (!same_however_cut(families[i].name)) all = false;
    CHECK(all);
}

int main(int argc, char **argv) {
    if (!oracle_begin(argc, argv)) return 1;
    RUN(all_match_the_reference);
    RUN(bits_do_not_depend_on_how_work_is_cut);
    return test_end();
}
