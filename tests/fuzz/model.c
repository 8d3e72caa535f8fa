/* Whole model files: opens any bytes as a model and, where that works, runs two prompts and samples. What breaks it: a
 * hyperparameter that was believed before a tensor's shape confirmed it, an index past a buffer, NaN weights that lead
 * a sampler astray. */
#include "base/mem.h"
#include "engine/models/models.h"

#include <stdlib.h>

static void sample(const model *m, const float *row) {
    static const sampler_params ways[] = {
        {.temperature = 0, .top_p = 1, .repeat_penalty = 1},
        {.temperature = 0.7f, .top_p = 0.9f, .min_p = 0.01f, .top_k = 40, .repeat_penalty = 1.1f, .repeat_last_n = 8},
    };
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        sampler *s = NULL;
        sampled out;
        if (sampler_new(&s, m, &ways[i], NULL) != ERR_OK) abort();
        for (uint32_t pos = 0; pos < 3; pos++) {
            sampler_draw(s, row, pos, true, 5, NULL, &out);
            if (out.token < 0 || (uint32_t)out.token >= model_get_facts(m)->n_vocab) abort();
        }
        sampler_free(s);
    }
}

/* Models that make vectors or rank: their rows are no logits. */
static void run_hidden(const model *m) {
    const model_facts *f = model_get_facts(m);
    session *s = NULL;
    int32_t tokens[70], *pair = NULL;
    size_t n_pair = 0;
    uint32_t n = f->n_ctx_train < 70 ? 1 : 70;
    float *v = mem_array(f->d_model, sizeof *v), score;
    for (uint32_t i = 0; i < 70; i++) tokens[i] = (int32_t)(i * 7 % f->n_vocab);
    session_options o = {
        .n_threads = 1, .n_seq_max = 1, .n_ctx = f->n_ctx_train < 100 ? 0 : 100, .max_step_tokens = 80, .hidden = true};
    chunk c = {.tokens = tokens, .n = n, .n_logits = model_pool_rows(m, 0, n, n)};
    if (v && session_new(&s, m, &o, NULL) == ERR_OK && session_seq_new(s, &c.seq, NULL) == ERR_OK &&
        session_step(s, &c, 1, NULL) == ERR_OK) {
        model_pool_add(m, v, c.logits, n, 0, n);
        if (model_ranks(m)) {
            if (model_rank(m, v, &score, NULL) == ERR_OK && !(score >= 0 && score <= 1)) abort();
            if (model_tokenize_pair(m, "a b", 3, "<s>c", 4, 90, &pair, &n_pair, NULL) == ERR_OK && n_pair > 90) abort();
            mem_free(pair);
        } else {
            (void)embedding_finish(v, f->d_model, 1 + f->d_model / 2, NULL);
        }
    }
    session_free(s);
    mem_free(v);
}

static void run(const model *m) {
    const model_facts *f = model_get_facts(m);
    if (f->encoder || f->pooling != POOLING_ABSENT) run_hidden(m);
    if (f->encoder) return;
    session *s = NULL;
    err e;
    int a, b;
    int32_t tokens[70];
    for (uint32_t i = 0; i < 70; i++) tokens[i] = (int32_t)(i * 7 % f->n_vocab);
    session_options o = {
        .n_threads = 1, .n_seq_max = 2, .n_ctx = f->n_ctx_train < 100 ? 0 : 100, .max_step_tokens = 80};
    if (session_new(&s, m, &o, &e) != ERR_OK) return;
    if (session_seq_new(s, &a, &e) != ERR_OK || session_seq_new(s, &b, &e) != ERR_OK) abort();
    chunk c[2] = {{.seq = a, .tokens = tokens, .n = 70, .n_logits = 1}, {.seq = b, .tokens = tokens, .n = 2}};
    if (session_n_ctx(s) < 71) c[0].n = 1;
    if (session_step(s, c, 2, &e) == ERR_OK) {
        sample(m, c[0].logits);
        c[0].n = 1;
        if (session_step(s, c, 1, &e) == ERR_OK) sample(m, c[0].logits);
    }
    session_free(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    model *m = NULL;
    err e = {0};
    if (model_open_memory(&m, data, size, "fuzz", &e) == ERR_OK)
        run(m);
    else if (m || !e.msg[0])
        abort();
    model_free(m);
    return 0;
}
