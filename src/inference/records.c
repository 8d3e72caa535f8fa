/* The records of a request: admitted, and one of completed and failed. The caller's words (prompt, messages, stop
 * strings, answers) are contents, never fields: they lie in the vault and can be erased. */
#include "inference/internal.h"

#include "base/json.h"
#include "base/mem.h"

#include <stdio.h>
#include <string.h>

typedef struct fields { /* sticky failure: one check at the end */
    cJSON *o;
    bool failed;
} fields;

static void put_str(fields *f, const char *key, const char *s) {
    if (!cJSON_AddStringToObject(f->o, key, s)) f->failed = true;
}
static void put_num(fields *f, const char *key, double v) {
    if (!cJSON_AddNumberToObject(f->o, key, v)) f->failed = true;
}
static void put_bool(fields *f, const char *key, bool v) {
    if (!cJSON_AddBoolToObject(f->o, key, v)) f->failed = true;
}
/* Takes v over; NULL counts as a failed allocation. */
static cJSON *put_tree(fields *f, const char *key, cJSON *v) {
    if (v && (key ? cJSON_AddItemToObject(f->o, key, v) : cJSON_AddItemToArray(f->o, v))) return v;
    cJSON_Delete(v);
    f->failed = true;
    return NULL;
}
static fields put_object(fields *f, const char *key) {
    fields inner = {.o = put_tree(f, key, cJSON_CreateObject())};
    inner.failed = !inner.o;
    return inner;
}
static void join(fields *f, const fields *inner) {
    f->failed |= inner->failed;
}

static err_code check(const fields *f, err *e) {
    return f->failed ? err_nomem(e, "the record of a request") : ERR_OK;
}

static void put_bias(fields *f, const sampler_params *p) {
    fields list = {.o = put_tree(f, "logit_bias", cJSON_CreateArray())};
    for (uint32_t i = 0; i < p->n_bias && list.o && !list.failed; i++) {
        fields pair = {.o = put_tree(&list, NULL, cJSON_CreateArray())};
        put_tree(&pair, NULL, cJSON_CreateNumber(p->bias[i].token));
        put_tree(&pair, NULL, cJSON_CreateNumber((double)p->bias[i].bias));
        join(&list, &pair);
    }
    join(f, &list);
}

static void put_grammar(fields *f, const request *r) {
    uint8_t digest[SHA256_LEN];
    char hex[SHA256_HEX_LEN + 1];
    answer_grammar_digest(r, digest);
    hex_encode(hex, digest, sizeof digest);
    fields o = put_object(f, "grammar");
    put_str(&o, "kind", answer_grammar_kind(r->grammar));
    put_str(&o, "sha256", hex);
    join(f, &o);
}

static void put_params(fields *f, const driver_call *c) {
    const request *r = c->r;
    const sampler_params *p = &r->sampling;
    char seed[24];
    snprintf(seed, sizeof seed, "%llu", (unsigned long long)c->seed);
    fields o = put_object(f, "params");
    put_num(&o, "temperature", (double)p->temperature);
    put_num(&o, "top_k", p->top_k);
    put_num(&o, "top_p", (double)p->top_p);
    put_num(&o, "min_p", (double)p->min_p);
    put_num(&o, "repeat_penalty", (double)p->repeat_penalty);
    put_num(&o, "repeat_last_n", p->repeat_last_n);
    put_num(&o, "frequency_penalty", (double)p->frequency_penalty);
    put_num(&o, "presence_penalty", (double)p->presence_penalty);
    put_str(&o, "seed", seed);
    put_num(&o, "max_tokens", c->max_new);
    put_num(&o, "n", r->n_choices);
    if (r->n_stops) put_num(&o, "stops", r->n_stops);
    if (r->echo) put_bool(&o, "echo", true);
    if (r->ignore_end) put_bool(&o, "ignore_end", true);
    if (p->n_bias) put_bias(&o, p);
    if (r->grammar) put_grammar(&o, r);
    join(f, &o);
}

static void put_user(fields *f, const inference *inf, const char *user) {
    uint8_t mac[SHA256_LEN];
    char hex[SHA256_HEX_LEN + 1];
    hmac_sha256(mac, inf->user_key, sizeof inf->user_key, user, strlen(user));
    hex_encode(hex, mac, sizeof mac);
    put_str(f, "user", hex);
}

err_code records_content_tokens(record *rec, const char *name, const int32_t *tokens, size_t n, err *e) {
    uint8_t *le = mem_array(n ? n : 1, 4);
    if (!le) return err_nomem(e, "the record of a request");
    for (size_t i = 0; i < n; i++) {
        uint32_t t = (uint32_t)tokens[i];
        for (int k = 0; k < 4; k++) le[4 * i + (size_t)k] = (uint8_t)(t >> (8 * k));
    }
    err_code rc = record_content(rec, name, le, 4 * n, e);
    mem_wipe(le, 4 * n);
    mem_free(le);
    return rc;
}

/* The request as it came, without its dialect: what the caller wrote and what the rendered prompt does not show. */
static err_code content_request(record *rec, const request *r, err *e) {
    if (!r->messages && !r->tools && !r->template_args && !r->n_stops && !r->grammar) return ERR_OK;
    fields f = {.o = cJSON_CreateObject()};
    if (!f.o) return err_nomem(e, "the record of a request");
    if (r->messages) put_tree(&f, "messages", cJSON_Duplicate(r->messages, true));
    if (r->tools) put_tree(&f, "tools", cJSON_Duplicate(r->tools, true));
    if (r->template_args) put_tree(&f, "template_args", cJSON_Duplicate(r->template_args, true));
    if (r->n_stops) {
        fields list = {.o = put_tree(&f, "stops", cJSON_CreateArray())};
        for (uint32_t i = 0; i < r->n_stops && list.o; i++) put_tree(&list, NULL, cJSON_CreateString(r->stops[i]));
        join(&f, &list);
    }
    if (r->grammar) { /* as text: the order of a schema's properties counts */
        fields o = put_object(&f, "grammar");
        put_str(&o, "kind", answer_grammar_kind(r->grammar));
        put_str(&o, "source", r->grammar_source);
        join(&f, &o);
    }
    buf text = {.max = LEDGER_CONTENT_MAX};
    err_code rc = check(&f, e);
    if (!rc) rc = json_canonical(&text, f.o, e);
    if (!rc) rc = record_content(rec, "request", buf_str(&text), text.len, e);
    cJSON_Delete(f.o);
    if (text.ptr) mem_wipe(text.ptr, text.len);
    buf_free(&text);
    return rc;
}

err_code records_put_user(record *rec, const inference *inf, const char *user, err *e) {
    fields f = {.o = record_body(rec)};
    put_user(&f, inf, user);
    return check(&f, e);
}

static err_code fill_admitted(record *rec, const inference *inf, const driver *d, const driver_call *c, err *e) {
    const request *r = c->r;
    fields f = {.o = record_body(rec)};
    put_str(&f, "key", r->who.key_id);
    put_str(&f, "role", role_name(r->who.role));
    put_str(&f, "dialect", r->dialect ? r->dialect : "");
    put_str(&f, "model", r->model);
    put_str(&f, "route", d->name);
    put_params(&f, c);
    put_num(&f, "prompt_tokens", (double)c->n_prompt_tokens);
    if (r->user) put_user(&f, inf, r->user);
    err_code rc = check(&f, e);
    if (!rc) rc = d->describe(c, f.o, e);
    if (!rc && c->prompt) rc = record_content(rec, "prompt", c->prompt, c->prompt_len, e);
    if (!rc) rc = records_content_tokens(rec, "prompt_tokens", c->prompt_tokens, c->n_prompt_tokens, e);
    if (!rc) rc = content_request(rec, r, e);
    return rc;
}

err_code records_admitted(record **out, const inference *inf, const driver *d, const driver_call *c, err *e) {
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

static void put_choices(fields *f, const driver_outcome *o) {
    fields list = {.o = put_tree(f, "choices", cJSON_CreateArray())};
    for (uint32_t i = 0; i < o->n_choices && list.o; i++) {
        const driver_choice *c = &o->choices[i];
        fields x = put_object(&list, NULL);
        if (x.failed) {
            join(&list, &x);
            break;
        }
        if (c->finish) put_str(&x, "finish", c->finish);
        put_num(&x, "tokens", (double)c->n_tokens);
        put_num(&x, "steps", c->steps);
        if (c->n_calls) put_num(&x, "tool_calls", c->n_calls);
        if (c->malformed) put_bool(&x, "malformed_tool_call", true);
        if (c->has_digest) {
            char hex[SHA256_HEX_LEN + 1];
            hex_encode(hex, c->logits_sha256, SHA256_LEN);
            put_str(&x, "logits_sha256", hex);
        }
        join(&list, &x);
    }
    join(f, &list);
}

static err_code outcome_contents(record *rec, const driver_outcome *o, const buf *answers, err *e) {
    err_code rc = ERR_OK;
    for (uint32_t i = 0; i < o->n_choices && !rc; i++) {
        char name[24];
        snprintf(name, sizeof name, "answer_%c", 'a' + (int)i);
        rc = record_content(rec, name, buf_str(&answers[i]), answers[i].len, e);
        snprintf(name, sizeof name, "tokens_%c", 'a' + (int)i);
        if (!rc && o->choices[i].tokens)
            rc = records_content_tokens(rec, name, o->choices[i].tokens, o->choices[i].n_tokens, e);
    }
    return rc;
}

err_code records_outcome(record **out, uint64_t admitted, err_code rc, const driver_call *c, const driver_outcome *o,
                         const buf *answers, bool with_contents, err *e) {
    *out = NULL;
    record *rec = NULL;
    err_code bad = record_new(&rec, rc ? "failed" : "completed", e);
    if (bad) return bad;
    fields f = {.o = record_body(rec)};
    put_num(&f, "request", (double)admitted);
    if (rc) put_str(&f, "reason", err_name(rc));
    put_num(&f, "prompt_tokens", (double)c->n_prompt_tokens);
    put_num(&f, "completion_tokens", (double)o->completion_tokens);
    put_choices(&f, o);
    fields t = put_object(&f, "ms");
    put_num(&t, "queue", ms(o->queue_ns));
    put_num(&t, "prefill", ms(o->prefill_ns));
    put_num(&t, "decode", ms(o->decode_ns));
    join(&f, &t);
    bad = check(&f, e);
    if (!bad && with_contents) bad = outcome_contents(rec, o, answers, e);
    if (bad)
        record_free(rec);
    else
        *out = rec;
    return bad;
}
