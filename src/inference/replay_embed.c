/* Vectors and scores derived anew: rows pooled along the steps, finished as they were answered, compared by digest. */
#include "inference/replay_internal.h"

#include "base/json.h"
#include "base/mem.h"

#include <string.h>

typedef struct inputs {
    int32_t *lengths;
    size_t n, longest;
    uint32_t dimensions;
    bool scores;
    buf digests; /* of each vector, as logged */
} inputs;

static err_code read_inputs(replay_case *x, inputs *in, err *e) {
    unsigned long long seq = x->out->admitted;
    const char *pooled = NULL;
    json_get_str(x->params, "pooling", &pooled, NULL);
    in->scores = pooled && strcmp(pooled, pooling_name(POOLING_RANK)) == 0;
    in->dimensions = (uint32_t)replay_u64(x->params, "dimensions");
    err_code rc = replay_tokens(x, x->facts_seq, "lengths", &in->lengths, &in->n, e);
    size_t sum = 0;
    for (size_t i = 0; !rc && i < in->n; i++) {
        if (in->lengths[i] <= 0) return replay_cannot(x, "record %llu: input %zu has no tokens", seq, i);
        size_t n = (size_t)in->lengths[i];
        sum += n;
        if (n > in->longest) in->longest = n;
    }
    if (!rc && sum != x->n_prompt)
        rc = replay_cannot(x, "record %llu: its inputs have %zu tokens and %zu were kept", seq, sum, x->n_prompt);
    if (!rc && replay_has_content(x->ended, "vector_digests"))
        rc = replay_content(x, x->out->ended, "vector_digests", &in->digests, e);
    return rc;
}

static err_code check_model(replay_case *x, const inputs *in) {
    const model *m = x->r->now.m;
    uint32_t d = model_get_facts(m)->d_model;
    bool fits = in->scores ? model_ranks(m) : model_embeds(m);
    if (!fits)
        return replay_cannot(x, "%s: this model makes no %s", x->out->artifact, in->scores ? "scores" : "vectors");
    if (in->dimensions && in->dimensions <= d) return ERR_OK;
    return replay_cannot(x, "record %llu: vectors of %u numbers; the model makes %u",
                         (unsigned long long)x->out->admitted, in->dimensions, d);
}

/* The pooled row of one input. */
static err_code pool(replay_case *x, const int32_t *tokens, uint32_t total, float *row, err *e) {
    replay_model *m = &x->r->now;
    int seq = -1;
    err_code rc = session_seq_new(m->sess, &seq, e);
    for (uint32_t at = 0; at < total && !rc;) {
        uint32_t left = total - at, n = left < m->step_tokens ? left : m->step_tokens;
        chunk c = {.seq = seq, .tokens = tokens + at, .n = n, .n_logits = model_pool_rows(m->m, at, n, total)};
        rc = replay_step(x, &c, e);
        if (!rc) model_pool_add(m->m, row, c.logits, n, at, total);
        at += n;
    }
    if (seq >= 0) session_seq_free(m->sess, seq);
    return rc;
}

static err_code finish(replay_case *x, const inputs *in, float *row, err *e) {
    const model *m = x->r->now.m;
    if (!in->scores) return embedding_finish(row, model_get_facts(m)->d_model, in->dimensions, e);
    float score = 0;
    err_code rc = model_rank(m, row, &score, e);
    row[0] = score;
    return rc;
}

static void compare_one(replay_case *x, const inputs *in, uint32_t i, const float *row) {
    uint8_t made[SHA256_LEN];
    sha256_of(made, row, (size_t)in->dimensions * sizeof *row);
    bool logged = in->digests.len == in->n * SHA256_LEN;
    if (!logged || memcmp(made, in->digests.ptr + (size_t)i * SHA256_LEN, SHA256_LEN) == 0) return;
    replay_differs(x, i, "input %u: its %s is another than the record's", i, in->scores ? "score" : "vector");
    x->out->digest = true;
}

static err_code derive(replay_case *x, const inputs *in, err *e) {
    uint32_t d = model_get_facts(x->r->now.m)->d_model;
    uint8_t made[SHA256_LEN], logged[SHA256_LEN];
    sha256 all;
    sha256_init(&all);
    float *row = mem_array(d, sizeof *row);
    err_code rc = row ? ERR_OK : err_nomem(e, "a vector");
    const int32_t *at = x->prompt;
    for (size_t i = 0; i < in->n && !rc; i++) {
        memset(row, 0, d * sizeof *row);
        rc = pool(x, at, (uint32_t)in->lengths[i], row, e);
        if (!rc) rc = finish(x, in, row, e);
        if (rc) break;
        sha256_update(&all, row, (size_t)in->dimensions * sizeof *row);
        compare_one(x, in, (uint32_t)i, row);
        at += in->lengths[i];
        x->out->n++;
    }
    mem_free(row);
    if (rc) return rc;
    x->out->tokens = x->n_prompt;
    sha256_final(&all, made);
    if (replay_digest(x->ended, "vectors_sha256", logged) && memcmp(made, logged, SHA256_LEN) == 0) return ERR_OK;
    replay_differs(x, 0, "the numbers together are others than the record's");
    x->out->digest = true;
    return ERR_OK;
}

err_code replay_vectors(replay_case *x, err *e) {
    inputs in = {0};
    if (!json_get(x->ended, "vectors_sha256")) return ERR_OK; /* it failed before there was an answer */
    err_code rc = read_inputs(x, &in, e);
    if (!rc) rc = check_model(x, &in);
    uint32_t step = in.longest > REPLAY_STEP_TOKENS ? (uint32_t)in.longest : REPLAY_STEP_TOKENS;
    if (!rc && !model_get_facts(x->r->now.m)->encoder) step = REPLAY_STEP_TOKENS;
    if (!rc) rc = replay_session(x, true, step, e);
    if (!rc) rc = derive(x, &in, e);
    mem_free(in.lengths);
    buf_free(&in.digests);
    return rc;
}
