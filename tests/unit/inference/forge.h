/* For tests of replay: an answer's two records copied to the end of the ledger with something changed in them, as if
 * the answer had been logged that way. */
#ifndef POLDER_TESTS_FORGE_H
#define POLDER_TESTS_FORGE_H

#include "audit/audit.h"
#include "base/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct forgery {
    uint64_t seed_plus;                                       /* added to params.seed */
    const char *token_of;                                     /* "tokens_a": one of its tokens is another */
    uint64_t token_at;                                        /* which */
    void (*edit)(void *ctx, cJSON *admitted, cJSON *ended);   /* any field; may be NULL */
    void (*content)(void *ctx, const char *name, buf *bytes); /* any content; may be NULL */
    void *ctx;
} forgery;

static inline cJSON *forge_read(ledger *l, uint64_t seq) {
    buf b = {.max = LEDGER_ENTRY_MAX + 1};
    cJSON *v = NULL;
    if (ledger_read(l, seq, &b, NULL) == ERR_OK) json_parse(&v, buf_str(&b), b.len, "a record", NULL);
    buf_free(&b);
    return v;
}

static inline void forge_seed(cJSON *admitted, uint64_t plus) {
    cJSON *params = cJSON_GetObjectItemCaseSensitive(admitted, "params");
    const cJSON *seed = cJSON_GetObjectItemCaseSensitive(params, "seed");
    char text[24];
    if (!plus || !cJSON_IsString(seed)) return;
    snprintf(text, sizeof text, "%llu", strtoull(seed->valuestring, NULL, 10) + (unsigned long long)plus);
    cJSON_ReplaceItemInObjectCaseSensitive(params, "seed", cJSON_CreateString(text));
}

/* A record like `tree`, with the contents of record `seq`. */
static inline err_code forge_append(ledger *l, uint64_t seq, const cJSON *tree, const forgery *f, uint64_t *out,
                                    err *e) {
    record *rec = NULL;
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(tree, "event"), *names = json_get(tree, "content");
    err_code rc = record_new(&rec, v->valuestring, e);
    cJSON *body = rc ? NULL : record_body(rec);
    cJSON_ArrayForEach(v, tree) {
        bool own = !strcmp(v->string, "v") || !strcmp(v->string, "time") || !strcmp(v->string, "event") ||
                   !strcmp(v->string, "content");
        if (body && !own) cJSON_AddItemToObject(body, v->string, cJSON_Duplicate(v, true));
    }
    cJSON_ArrayForEach(v, names) {
        buf b = {.max = LEDGER_CONTENT_MAX};
        if (!rc) rc = ledger_content(l, seq, v->string, &b, e);
        if (!rc && f->token_of && strcmp(v->string, f->token_of) == 0 && 4 * f->token_at < b.len)
            b.ptr[4 * f->token_at] ^= 1;
        if (!rc && f->content) f->content(f->ctx, v->string, &b);
        if (!rc) rc = record_content(rec, v->string, buf_str(&b), b.len, e);
        buf_free(&b);
    }
    if (!rc) rc = ledger_append(l, rec, out, e);
    record_free(rec);
    return rc;
}

/* *out is the forged outcome's record. */
static inline err_code forge(ledger *l, uint64_t ended, const forgery *f, uint64_t *out, err *e) {
    cJSON *to = forge_read(l, ended);
    const cJSON *request = json_get(to, "request");
    uint64_t admitted = cJSON_IsNumber(request) ? (uint64_t)request->valuedouble : 0, seq = 0;
    cJSON *from = forge_read(l, admitted);
    err_code rc =
        from && to ? ERR_OK : err_set(e, ERR_NOT_FOUND, "record %llu is no outcome", (unsigned long long)ended);
    if (!rc) forge_seed(from, f->seed_plus);
    if (!rc && f->edit) f->edit(f->ctx, from, to);
    if (!rc) rc = forge_append(l, admitted, from, f, &seq, e);
    if (!rc) cJSON_ReplaceItemInObjectCaseSensitive(to, "request", cJSON_CreateNumber((double)seq));
    if (!rc) rc = forge_append(l, ended, to, f, out, e);
    cJSON_Delete(from);
    cJSON_Delete(to);
    return rc;
}

#endif
