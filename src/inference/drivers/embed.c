/* The driver of the local engine for vectors and scores: texts become tokens here, embedder.c computes their rows, and
 * here rows become what is answered. */
#include "inference/drivers/driver.h"
#include "inference/internal.h"

#include "base/mem.h"
#include "base/sys.h"

#include <stdio.h>
#include <string.h>

typedef struct embed_call {
    uint32_t dimensions; /* of an answer: 1 for scores */
    int32_t *ids;        /* of all inputs */
    size_t n_ids, cap_ids;
    size_t *starts; /* (n_inputs + 1) into ids */
    embed_seq *seqs;
    uint8_t *digests; /* (n_inputs, SHA256_LEN) */
    embed_job *job;
    bool told, done; /* STEP_STARTED; the rows are computed */
    uint32_t n_told; /* vectors that went out */
    sha256 all;      /* over them */
} embed_call;

/* ---- what is asked ----------------------------------------------------------------------------------------- */

static err_code check_model(const request *r, const model *m, err *e) {
    const model_facts *f = model_get_facts(m);
    bool ranks = f->pooling == POOLING_RANK;
    if (r->embed->query ? model_ranks(m) : model_embeds(m)) return ERR_OK;
    if (ranks && !r->embed->query)
        return err_set(e, ERR_UNSUPPORTED, "model '%s' ranks documents and makes no embeddings: ask it by /v1/rerank",
                       r->model);
    if (ranks)
        return err_set(e, ERR_UNSUPPORTED,
                       "model '%s' cannot rank: its file lacks the head (cls.output.weight), or the form in which it "
                       "reads query and document (tokenizer.chat_template.rerank)",
                       r->model);
    if (r->embed->query)
        return err_set(e, ERR_UNSUPPORTED, "model '%s' makes embeddings and cannot rank: ask it by /v1/embeddings",
                       r->model);
    return err_set(e, ERR_UNSUPPORTED,
                   "model '%s' makes no embeddings: its file %s, so nothing says which vector stands for a text",
                   r->model, f->pooling == POOLING_NONE ? "has pooling type none" : "names no pooling type");
}

static err_code check_request(const request *r, const model *m, uint32_t *dimensions, err *e) {
    const embed_request *q = r->embed;
    uint32_t d = model_get_facts(m)->d_model;
    err_code rc = check_model(r, m, e);
    if (rc) return rc;
    if (q->dimensions > d)
        return err_set(e, ERR_INVALID, "dimensions: %u; model '%s' makes vectors of %u", q->dimensions, r->model, d);
    *dimensions = q->query ? 1 : q->dimensions ? q->dimensions : d;
    if ((uint64_t)q->n_inputs * *dimensions > EMBED_NUMBERS_MAX)
        return err_set(e, ERR_TOO_LARGE,
                       "input: %u vectors of %u numbers are more than the %u of one answer; send fewer", q->n_inputs,
                       *dimensions, EMBED_NUMBERS_MAX);
    return ERR_OK;
}

/* ---- tokens ------------------------------------------------------------------------------------------------ */

static err_code add_ids(embed_call *x, const int32_t *ids, size_t n, err *e) {
    if (x->n_ids + n > x->cap_ids) {
        size_t cap = 2 * (x->n_ids + n);
        int32_t *p = mem_array(cap, sizeof *p);
        if (!p) return err_nomem(e, "tokens");
        if (x->n_ids) memcpy(p, x->ids, x->n_ids * sizeof *p);
        if (x->ids) mem_wipe(x->ids, x->n_ids * sizeof *p);
        mem_free(x->ids);
        x->ids = p;
        x->cap_ids = cap;
    }
    if (n) memcpy(x->ids + x->n_ids, ids, n * sizeof *ids);
    x->n_ids += n;
    return ERR_OK;
}

static err_code check_ids(const embed_input *in, uint32_t i, const model *m, uint32_t context, err *e) {
    uint32_t n_vocab = model_get_facts(m)->n_vocab;
    if (in->n_tokens > context)
        return err_set(e, ERR_TOO_LONG, "input %u: %zu tokens; this model takes at most %u here", i, in->n_tokens,
                       context);
    for (size_t k = 0; k < in->n_tokens; k++)
        if (in->tokens[k] < 0 || (uint32_t)in->tokens[k] >= n_vocab)
            return err_set(e, ERR_INVALID, "input %u: token %d is not in the vocabulary of %u", i, in->tokens[k],
                           n_vocab);
    return ERR_OK;
}

static err_code tokenize_text(const embed_request *q, const embed_input *in, uint32_t i, const loaded *l, int32_t **ids,
                              size_t *n, err *e) {
    uint32_t context = embedder_context(l->emb);
    const char *what = q->query ? "document" : "input";
    err_code rc = q->query ? model_tokenize_pair(l->m, q->query, q->query_len, in->text, in->len, context, ids, n, e)
                           : model_tokenize(l->m, in->text, in->len, TOK_ADD_SPECIAL, context, ids, n, e);
    if (rc == ERR_TOO_LONG)
        return err_set(e, rc,
                       "%s %u%s: more than the %u tokens that this model takes here; nothing is cut off: send less",
                       what, i, q->query ? " with the query" : "", context);
    if (!rc && !*n) return err_set(e, ERR_INVALID, "%s %u: it has no tokens", what, i);
    return rc;
}

static err_code tokenize_input(embed_call *x, const request *r, uint32_t i, const loaded *l, err *e) {
    const embed_request *q = r->embed;
    const embed_input *in = &q->inputs[i];
    int32_t *ids = NULL;
    size_t n = 0;
    if (in->text ? !in->len : !in->n_tokens)
        return err_set(e, ERR_INVALID, "%s %u: it is empty", q->query ? "document" : "input", i);
    if (!in->text) {
        err_code rc = check_ids(in, i, l->m, embedder_context(l->emb), e);
        return rc ? rc : add_ids(x, in->tokens, in->n_tokens, e);
    }
    err_code rc = tokenize_text(q, in, i, l, &ids, &n, e);
    if (!rc) rc = add_ids(x, ids, n, e);
    if (ids) mem_wipe(ids, n * sizeof *ids);
    mem_free(ids);
    return rc;
}

static err_code tokenize_all(embed_call *x, const request *r, const loaded *l, err *e) {
    uint32_t n = r->embed->n_inputs;
    err_code rc = ERR_OK;
    x->starts = mem_array((size_t)n + 1, sizeof *x->starts);
    x->seqs = mem_array(n, sizeof *x->seqs);
    x->digests = mem_array(n, SHA256_LEN);
    if (!x->starts || !x->seqs || !x->digests) return err_nomem(e, "embeddings");
    for (uint32_t i = 0; i < n && !rc; i++) {
        rc = tokenize_input(x, r, i, l, e);
        x->starts[i + 1] = x->n_ids;
    }
    for (uint32_t i = 0; i < n && !rc; i++)
        x->seqs[i] = (embed_seq){x->ids + x->starts[i], (uint32_t)(x->starts[i + 1] - x->starts[i])};
    return rc;
}

/* ---- the driver -------------------------------------------------------------------------------------------- */

static err_code embed_prepare(driver_call *c, err *e) {
    loaded *l = c->target;
    embed_call *x = mem_zalloc(sizeof *x);
    if (!x) return err_nomem(e, "a request");
    c->state = x;
    err_code rc = check_request(c->r, l->m, &x->dimensions, e);
    if (!rc) rc = tokenize_all(x, c->r, l, e);
    if (!rc) rc = embed_job_new(&x->job, l->emb, x->seqs, c->r->embed->n_inputs, e);
    if (rc) return rc;
    c->prompt_tokens = x->ids;
    c->inputs = x->seqs;
    c->n_prompt_tokens = x->n_ids;
    char hex[SHA256_HEX_LEN + 1];
    hex_encode(hex, l->digest, SHA256_LEN);
    snprintf(c->fingerprint, sizeof c->fingerprint, "p%d-%.12s", POLDER_NUMERICS, hex);
    return ERR_OK;
}

static err_code embed_describe(const driver_call *c, jflat *f, err *e) {
    const loaded *l = c->target;
    const embed_call *x = c->state;
    char artifact[8 + SHA256_HEX_LEN] = "sha256:";
    hex_encode(artifact + 7, l->digest, SHA256_LEN);
    jflat_obj(f, "params");
    jflat_num(f, "inputs", c->r->embed->n_inputs);
    jflat_num(f, "dimensions", x->dimensions);
    jflat_str(f, "pooling", pooling_name(model_get_facts(l->m)->pooling));
    jflat_end(f);
    jflat_str(f, "artifact", artifact);
    jflat_num(f, "numerics", POLDER_NUMERICS);
    jflat_str(f, "isa", engine_isa());
    return jflat_check(f, "the record of a request", e);
}

/* A pooled row becomes the answer: in place, at its beginning. */
static err_code finish_row(const driver_call *c, float *row, err *e) {
    const loaded *l = c->target;
    const embed_call *x = c->state;
    if (c->r->embed->query) {
        float score = 0;
        err_code rc = model_rank(l->m, row, &score, e);
        row[0] = score;
        return rc;
    }
    return embedding_finish(row, model_get_facts(l->m)->d_model, x->dimensions, e);
}

static void digest_row(sha256 *all, uint8_t one[SHA256_LEN], const float *v, uint32_t n) {
    sha256 s;
    sha256_init(&s);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t u;
        uint8_t le[4];
        memcpy(&u, &v[i], sizeof u);
        for (int k = 0; k < 4; k++) le[k] = (uint8_t)(u >> (8 * k));
        sha256_update(&s, le, 4);
        sha256_update(all, le, 4);
    }
    sha256_final(&s, one);
}

static err_code embed_start(driver_call *c, err *e) {
    embed_call *x = c->state;
    sha256_init(&x->all);
    embed_job_start(x->job);
    return ERR_OK;
}

/* The next row becomes a vector. */
static err_code next_vector(driver_call *c, driver_step *step, event *ev, err *e) {
    embed_call *x = c->state;
    const loaded *l = c->target;
    uint32_t i = x->n_told;
    *step = STEP_END;
    if (i == c->r->embed->n_inputs) return ERR_OK;
    float *row = embed_job_rows(x->job) + (size_t)i * model_get_facts(l->m)->d_model;
    err_code rc = finish_row(c, row, e);
    if (rc) return rc;
    digest_row(&x->all, x->digests + (size_t)i * SHA256_LEN, row, x->dimensions);
    x->n_told++;
    *step = STEP_EVENT;
    *ev = (event){.kind = EV_VECTOR, .input = i, .vector = row, .n_vector = x->dimensions};
    return ERR_OK;
}

static err_code embed_next(driver_call *c, int timeout_ms, driver_step *step, event *ev, err *e) {
    embed_call *x = c->state;
    if (!x->told) {
        x->told = true;
        *step = STEP_STARTED;
        return ERR_OK;
    }
    if (x->done) return next_vector(c, step, ev, e);
    *step = STEP_WAIT;
    if (!embed_job_wait(x->job, timeout_ms)) return ERR_OK;
    x->done = true;
    err_code rc = embed_job_result(x->job, e);
    return rc ? rc : next_vector(c, step, ev, e);
}

static void embed_cancel(driver_call *c) {
    embed_call *x = c->state;
    embed_job_cancel(x->job);
}

static void embed_end(driver_call *c, driver_outcome *out) {
    embed_call *x = c->state;
    embed_times t;
    out->prompt_tokens = x->n_ids;
    if (!x->done) return;
    embed_job_get_times(x->job, &t);
    out->queue_ns = t.queue;
    out->prefill_ns = t.compute;
    if (x->n_told < c->r->embed->n_inputs) return;
    sha256_final(&x->all, out->vectors_sha256);
    out->n_vectors = x->n_told;
    out->dimensions = x->dimensions;
    out->vector_digests = x->digests;
}

static void embed_release(driver_call *c) {
    embed_call *x = c->state;
    if (!x) return;
    embed_job_free(x->job);
    if (x->ids) mem_wipe(x->ids, x->n_ids * sizeof *x->ids);
    mem_free(x->ids);
    mem_free(x->starts);
    mem_free(x->seqs);
    mem_free(x->digests);
    mem_free(x);
    c->state = NULL;
}

const driver driver_embed = {.name = "engine",
                             .prepare = embed_prepare,
                             .describe = embed_describe,
                             .start = embed_start,
                             .next = embed_next,
                             .cancel = embed_cancel,
                             .finish = embed_end,
                             .release = embed_release};
