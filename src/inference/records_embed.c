/* The records of a request for vectors or scores. The caller's texts are contents, never fields. */
#include "inference/internal.h"

#include "base/json.h"
#include "base/mem.h"

#include <string.h>

/* An input as it came: a string, or an array of token ids. */
static cJSON *input_tree(const embed_input *in) {
    if (in->text) return cJSON_CreateString(in->text);
    cJSON *list = cJSON_CreateArray();
    for (size_t i = 0; i < in->n_tokens && list; i++) {
        cJSON *id = cJSON_CreateNumber(in->tokens[i]);
        if (id && cJSON_AddItemToArray(list, id)) continue;
        cJSON_Delete(id);
        cJSON_Delete(list);
        list = NULL;
    }
    return list;
}

static bool put_inputs(cJSON *o, const embed_request *q) {
    if (q->query && !cJSON_AddStringToObject(o, "query", q->query)) return false;
    cJSON *list = cJSON_AddArrayToObject(o, q->query ? "documents" : "input");
    for (uint32_t i = 0; i < q->n_inputs && list; i++) {
        cJSON *one = input_tree(&q->inputs[i]);
        if (one && cJSON_AddItemToArray(list, one)) continue;
        cJSON_Delete(one);
        return false;
    }
    return list != NULL;
}

static err_code content_request(record *rec, const embed_request *q, err *e) {
    cJSON *o = cJSON_CreateObject();
    err_code rc = o && put_inputs(o, q) ? ERR_OK : err_nomem(e, "the record of a request");
    if (!rc) rc = records_content_json(rec, "request", o, e);
    cJSON_Delete(o);
    return rc;
}

static err_code content_lengths(record *rec, const driver_call *c, err *e) {
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
    return !rc && c->inputs ? content_lengths(rec, c, e) : rc;
}

static bool put_vectors(cJSON *o, const driver_outcome *out) {
    char hex[SHA256_HEX_LEN + 1];
    if (!out->n_vectors) return true;
    hex_encode(hex, out->vectors_sha256, SHA256_LEN);
    return cJSON_AddNumberToObject(o, "inputs", out->n_vectors) &&
           cJSON_AddNumberToObject(o, "dimensions", out->dimensions) &&
           cJSON_AddStringToObject(o, "vectors_sha256", hex);
}

err_code records_embed_outcome(record *rec, const ending *x, bool with_contents, err *e) {
    if (x->rc) return ERR_OK;
    if (!put_vectors(record_body(rec), x->o)) return err_nomem(e, "the record of a request");
    if (!with_contents || !x->o->vector_digests) return ERR_OK;
    return record_content(rec, "vector_digests", x->o->vector_digests, (size_t)x->o->n_vectors * SHA256_LEN, e);
}
