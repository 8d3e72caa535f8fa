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
    buf text = {.max = LEDGER_CONTENT_MAX};
    err_code rc = o && put_inputs(o, q) ? ERR_OK : err_nomem(e, "the record of a request");
    if (!rc) rc = json_canonical(&text, o, e);
    if (!rc) rc = buf_check(&text, "the record of a request", e);
    if (!rc) rc = record_content(rec, "request", buf_str(&text), text.len, e);
    cJSON_Delete(o);
    if (text.ptr) mem_wipe(text.ptr, text.len);
    buf_free(&text);
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

static err_code fill_admitted(record *rec, const inference *inf, const driver *d, const driver_call *c, err *e) {
    const request *r = c->r;
    cJSON *o = record_body(rec);
    bool ok = cJSON_AddStringToObject(o, "key", r->who.key_id) &&
              cJSON_AddStringToObject(o, "role", role_name(r->who.role)) &&
              cJSON_AddStringToObject(o, "dialect", r->dialect ? r->dialect : "") &&
              cJSON_AddStringToObject(o, "model", r->model) && cJSON_AddStringToObject(o, "route", d->name) &&
              cJSON_AddNumberToObject(o, "prompt_tokens", (double)c->n_prompt_tokens);
    err_code rc = ok ? ERR_OK : err_nomem(e, "the record of a request");
    if (!rc && r->user) rc = records_put_user(rec, inf, r->user, e);
    if (!rc) rc = d->describe(c, o, e);
    if (!rc) rc = content_request(rec, r->embed, e);
    if (!rc) rc = records_content_tokens(rec, "prompt_tokens", c->prompt_tokens, c->n_prompt_tokens, e);
    return rc ? rc : content_lengths(rec, c, e);
}

err_code records_embed_admitted(record **out, const inference *inf, const driver *d, const driver_call *c, err *e) {
    *out = NULL;
    record *rec = NULL;
    err_code rc = record_new(&rec, "admitted", e);
    if (!rc) rc = fill_admitted(rec, inf, d, c, e);
    if (rc)
        record_free(rec);
    else
        *out = rec;
    return rc;
}

static double ms(uint64_t ns) {
    return (double)(ns / 1000) / 1000.0;
}

static bool put_vectors(cJSON *o, const driver_outcome *out) {
    char hex[SHA256_HEX_LEN + 1];
    if (!out->n_vectors) return true;
    hex_encode(hex, out->vectors_sha256, SHA256_LEN);
    return cJSON_AddNumberToObject(o, "inputs", out->n_vectors) &&
           cJSON_AddNumberToObject(o, "dimensions", out->dimensions) &&
           cJSON_AddStringToObject(o, "vectors_sha256", hex);
}

static bool put_outcome(cJSON *o, uint64_t admitted, err_code rc, const driver_call *c, const driver_outcome *out) {
    if (rc && !cJSON_AddStringToObject(o, "reason", err_name(rc))) return false;
    cJSON *t = cJSON_AddObjectToObject(o, "ms");
    return t && cJSON_AddNumberToObject(o, "request", (double)admitted) &&
           cJSON_AddNumberToObject(o, "prompt_tokens", (double)c->n_prompt_tokens) &&
           cJSON_AddNumberToObject(t, "queue", ms(out->queue_ns)) &&
           cJSON_AddNumberToObject(t, "compute", ms(out->prefill_ns)) && (rc || put_vectors(o, out));
}

err_code records_embed_outcome(record **out, uint64_t admitted, err_code rc, const driver_call *c,
                               const driver_outcome *o, bool with_contents, err *e) {
    *out = NULL;
    record *rec = NULL;
    err_code bad = record_new(&rec, rc ? "failed" : "completed", e);
    if (bad) return bad;
    if (!put_outcome(record_body(rec), admitted, rc, c, o)) bad = err_nomem(e, "the record of a request");
    if (!bad && !rc && with_contents)
        bad = record_content(rec, "vector_digests", o->vector_digests, (size_t)o->n_vectors * SHA256_LEN, e);
    if (bad)
        record_free(rec);
    else
        *out = rec;
    return bad;
}
