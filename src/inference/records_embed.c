/* The records of a request for vectors or scores. The caller's texts are contents, never fields. */
#include "inference/internal.h"

#include "base/mem.h"

#include <string.h>

/* An input as it came: a string, or an array of token ids. */
static void put_input(jflat *f, const embed_input *in) {
    if (in->text) {
        jflat_str(f, NULL, in->text);
        return;
    }
    jflat_arr(f, NULL);
    for (size_t i = 0; i < in->n_tokens; i++) jflat_num(f, NULL, in->tokens[i]);
    jflat_end(f);
}

static err_code content_request(record *rec, const embed_request *q, err *e) {
    jflat f;
    jflat_init(&f, LEDGER_CONTENT_MAX);
    if (q->query) jflat_str(&f, "query", q->query);
    jflat_arr(&f, q->query ? "documents" : "input");
    for (uint32_t i = 0; i < q->n_inputs; i++) put_input(&f, &q->inputs[i]);
    jflat_end(&f);
    err_code rc = records_content_flat(rec, "request", &f, e);
    jflat_wipe(&f);
    return rc;
}

err_code records_embed_lengths(record *rec, const driver_call *c, err *e) {
    if (!c->inputs) return ERR_OK;
    uint32_t n = c->r->embed->n_inputs;
    int32_t *lengths = mem_array(n, sizeof *lengths);
    if (!lengths) return err_nomem(e, "the record of a request");
    for (uint32_t i = 0; i < n; i++) lengths[i] = (int32_t)c->inputs[i].n;
    err_code rc = records_content_tokens(rec, "lengths", lengths, n, e);
    mem_free(lengths);
    return rc;
}

err_code records_embed_contents(record *rec, const embed_request *q, const driver_call *c, err *e) {
    err_code rc = content_request(rec, q, e);
    return rc ? rc : records_embed_lengths(rec, c, e);
}

static void put_vectors(jflat *f, const driver_outcome *out) {
    char hex[SHA256_HEX_LEN + 1];
    if (!out->n_vectors) return;
    hex_encode(hex, out->vectors_sha256, SHA256_LEN);
    jflat_num(f, "inputs", out->n_vectors);
    jflat_num(f, "dimensions", out->dimensions);
    jflat_str(f, "vectors_sha256", hex);
}

err_code records_embed_outcome(record *rec, const ending *x, bool with_contents, err *e) {
    if (x->rc) return ERR_OK;
    put_vectors(record_fields(rec), x->o);
    err_code rc = jflat_check(record_fields(rec), "the record of a request", e);
    if (rc) return rc;
    if (!with_contents || !x->o->vector_digests) return ERR_OK;
    return record_content(rec, "vector_digests", x->o->vector_digests, (size_t)x->o->n_vectors * SHA256_LEN, e);
}
