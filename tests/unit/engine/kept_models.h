/* For tests of kept prefixes: one small model of each kind of memory that a sequence can have, and what it computes
 * from scratch. */
#ifndef POLDER_TESTS_KEPT_MODELS_H
#define POLDER_TESTS_KEPT_MODELS_H

#include "harness.h"

#include "base/mem.h"
#include "engine/models/models.h"
#include "qwen35_ref.h"
#include "tiny_mla.h"

typedef struct kind {
    const char *name;
    const char *oracle; /* a folder of ../shared/oracle; NULL: made here */
    uint32_t type;
} kind;

static const kind kinds[] = {
    {"attention", NULL, 0},         {"attention-q8_0", NULL, 8},       {"latent", NULL, 8},
    {"recurrent", NULL, 0},         {"windowed", "gpt-oss", 0},        {"windowed-gelu", "gemma3", 0},
    {"shared-layers", "gemma4", 0}, {"recurrent-moe", "qwen3next", 0},
};
#define N_KINDS (sizeof kinds / sizeof *kinds)

static inline void kind_make(buf *b, const kind *k) {
    if (strcmp(k->name, "latent") == 0) {
        tiny_mla t = MLA_SMALL;
        t.type = k->type;
        mla_make(b, &t);
    } else if (strcmp(k->name, "recurrent") == 0) {
        static made f;
        f = (made){.arch = "qwen35",
                   .n_layer = 3,
                   .every = 3,
                   .d = 40,
                   .n_head = 4,
                   .n_kv = 2,
                   .head = 12,
                   .n_rot = 8,
                   .ff = 56,
                   .n_k = 2,
                   .n_v = 6,
                   .dk = 12,
                   .dv = 20,
                   .taps = 4,
                   .sections = {2, 1, 1, 0}};
        made_tensors(&f, 5);
        made_file(b, &f);
        made_free(&f);
    } else {
        const tiny t = {
            .n_layer = 2, .d = 64, .n_head = 4, .n_kv = 2, .head = 16, .ff = 96, .n_ctx = 512, .type = k->type};
        tiny_make(b, &t, 1);
    }
}

/* NULL where ../shared is absent and it comes from there; says what else is wrong. */
static inline model *kind_open(const kind *k) {
    model *m = NULL;
    err e = {0};
    if (k->oracle) {
        char path[1400];
        if (!test_shared()) return NULL;
        snprintf(path, sizeof path, "%s/oracle/%s/model.gguf", test_shared(), k->oracle);
        if (model_open(&m, path, &e) != ERR_OK) fprintf(stderr, "%s: %s\n", k->name, e.msg);
        return m;
    }
    buf b = {0};
    kind_make(&b, k);
    if (model_open_memory(&m, b.ptr, b.len, k->name, &e) != ERR_OK) fprintf(stderr, "%s: %s\n", k->name, e.msg);
    buf_free(&b);
    return m;
}

static inline void kind_tokens(const model *m, int32_t *t, uint32_t n, uint64_t seed) {
    seed = seed * 0x9E3779B97F4A7C15u + 77;
    for (int i = 0; i < 4; i++) tiny_rng(&seed);
    for (uint32_t i = 0; i < n; i++) t[i] = (int32_t)(tiny_rng(&seed) % model_get_facts(m)->n_vocab);
}

/* Logits (n, n_vocab) of n tokens in a session of their own that keeps nothing; NULL where that failed. */
static inline float *kind_from_scratch(const model *m, const int32_t *tokens, uint32_t n) {
    session *s = NULL;
    err e = {0};
    size_t v = model_get_facts(m)->n_vocab;
    float *out = mem_array(n * v, sizeof *out);
    chunk c = {.tokens = tokens, .n = n, .n_logits = n};
    bool good = out && session_new(&s, m, &(session_options){.n_threads = 1, .n_seq_max = 1}, &e) == ERR_OK &&
                session_seq_new(s, &c.seq, &e) == ERR_OK && session_step(s, &c, 1, &e) == ERR_OK;
    if (good) memcpy(out, c.logits, n * v * sizeof *out);
    if (!good) fprintf(stderr, "from scratch: %s\n", e.msg);
    session_free(s);
    if (good) return out;
    mem_free(out);
    return NULL;
}

#endif
