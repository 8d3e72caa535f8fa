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

/* Takes v over; NULL counts as a failed allocation. Keys are literals, or names of this island's detector: they outlive
 * every record, so trees do not copy them. */
static cJSON *put_tree(fields *f, const char *key, cJSON *v) {
    if (v && (key ? cJSON_AddItemToObjectCS(f->o, key, v) : cJSON_AddItemToArray(f->o, v))) return v;
    cJSON_Delete(v);
    f->failed = true;
    return NULL;
}
static void put_str(fields *f, const char *key, const char *s) {
    put_tree(f, key, cJSON_CreateString(s));
}
static void put_num(fields *f, const char *key, double v) {
    put_tree(f, key, cJSON_CreateNumber(v));
}
static void put_bool(fields *f, const char *key, bool v) {
    put_tree(f, key, cJSON_CreateBool(v));
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

err_code records_content_json(record *rec, const char *name, const cJSON *v, err *e) {
    buf text = {.max = LEDGER_CONTENT_MAX};
    err_code rc = json_canonical(&text, v, e);
    if (!rc) rc = buf_check(&text, "the record of a request", e);
    if (!rc) rc = record_content(rec, name, buf_str(&text), text.len, e);
    if (text.ptr) mem_wipe(text.ptr, text.len);
    buf_free(&text);
    return rc;
}

/* The request as it came, without its dialect: what the caller wrote and what the rendered prompt does not show. */
static err_code content_request(record *rec, const request *r, bool with_text, err *e) {
    with_text = with_text && r->text;
    if (!r->messages && !r->tools && !r->template_args && !r->n_stops && !r->grammar && !with_text) return ERR_OK;
    fields f = {.o = cJSON_CreateObject()};
    if (!f.o) return err_nomem(e, "the record of a request");
    if (with_text) put_str(&f, "text", r->text);
    if (r->messages) put_tree(&f, "messages", cJSON_Duplicate(r->messages, true));
    if (r->tools) put_tree(&f, "tools", cJSON_Duplicate(r->tools, true));
    if (r->template_args) put_tree(&f, "template_args", cJSON_Duplicate(r->template_args, true));
    if (r->kept) put_tree(&f, "kept", cJSON_Duplicate(r->kept, true));
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
    err_code rc = check(&f, e);
    if (!rc) rc = records_content_json(rec, "request", f.o, e);
    cJSON_Delete(f.o);
    return rc;
}

err_code records_put_user(record *rec, const inference *inf, const char *user, err *e) {
    fields f = {.o = record_body(rec)};
    put_user(&f, inf, user);
    return check(&f, e);
}

/* What the engine needs to give the same answer again. */
static err_code content_prompt(record *rec, const driver_call *c, err *e) {
    err_code rc = c->prompt ? record_content(rec, "prompt", c->prompt, c->prompt_len, e) : ERR_OK;
    return !rc && c->prompt_tokens
               ? records_content_tokens(rec, "prompt_tokens", c->prompt_tokens, c->n_prompt_tokens, e)
               : rc;
}

static err_code content_map(record *rec, const redaction *map, err *e) {
    if (!map || !redaction_count(map)) return ERR_OK;
    buf text = {.max = LEDGER_CONTENT_MAX};
    err_code rc = redaction_json(map, &text, e);
    if (!rc) rc = buf_check(&text, "the record of a request", e);
    if (!rc) rc = record_content(rec, "redactions", buf_str(&text), text.len, e);
    if (text.ptr) mem_wipe(text.ptr, text.len);
    buf_free(&text);
    return rc;
}

static void put_caller(fields *f, const request *r) {
    put_str(f, "key", r->who.key_id);
    put_str(f, "role", role_name(r->who.role));
    if (r->who.project[0]) put_str(f, "project", r->who.project);
    put_str(f, "dialect", r->dialect ? r->dialect : "");
    put_str(f, "model", r->model);
    if (r->purpose) put_str(f, "purpose", r->purpose);
}

static err_code fill_admitted(record *rec, const inference *inf, const admission *a, const attempt_facts *x, err *e) {
    const request *r = a->r;
    const driver_call *c = x->call;
    fields f = {.o = record_body(rec)};
    put_caller(&f, r);
    put_str(&f, "route", x->to->facts.name);
    if (!r->embed) put_params(&f, c);
    if (c->prompt_tokens) put_num(&f, "prompt_tokens", (double)c->n_prompt_tokens);
    if (r->user) put_user(&f, inf, r->user);
    err_code rc = check(&f, e);
    if (!rc) rc = records_put_perimeter(rec, a, true, e);
    if (!rc) rc = x->d->describe(c, f.o, e);
    if (!rc) rc = content_prompt(rec, c, e);
    bool inside = !c->body; /* what leaves has a record of its own */
    if (!rc && inside) rc = content_map(rec, x->map, e);
    if (rc) return rc;
    return r->embed ? records_embed_contents(rec, r->embed, c, e)
                    : content_request(rec, r, !c->prompt || x->map != NULL, e);
}

/* A record that is complete, or none. */
static err_code give(record **out, record *rec, err_code rc) {
    *out = rc ? NULL : rec;
    if (rc) record_free(rec);
    return rc;
}

err_code records_admitted(record **out, const inference *inf, const admission *a, const attempt_facts *x, err *e) {
    record *rec = NULL;
    err_code rc = record_new(&rec, "admitted", e);
    return give(out, rec, rc ? rc : fill_admitted(rec, inf, a, x, e));
}

static err_code fill_rerouted(record *rec, const admission *a, const attempt_facts *x, err *e) {
    fields f = {.o = record_body(rec)};
    put_num(&f, "request", (double)x->admitted);
    put_num(&f, "attempt", x->number);
    put_str(&f, "route", x->to->facts.name);
    if (x->call->prompt_tokens) put_num(&f, "prompt_tokens", (double)x->call->n_prompt_tokens);
    err_code rc = check(&f, e);
    if (!rc) rc = x->d->describe(x->call, f.o, e);
    if (!rc) rc = content_prompt(rec, x->call, e);
    return rc ? rc : content_map(rec, x->map, e);
}

err_code records_rerouted(record **out, const admission *a, const attempt_facts *x, err *e) {
    record *rec = NULL;
    err_code rc = record_new(&rec, "rerouted", e);
    return give(out, rec, rc ? rc : fill_rerouted(rec, a, x, e));
}

/* The host of "https://host:port/path". */
static void put_host(fields *f, const char *url) {
    char host[300];
    const char *from = strstr(url, "://");
    from = from ? from + 3 : url;
    snprintf(host, sizeof host, "%.*s", (int)strcspn(from, "/"), from);
    put_str(f, "host", host);
}

static void put_redacted(fields *f, const admission *a, const attempt_facts *x) {
    bool any = x->map && redaction_count(x->map);
    put_bool(f, "pseudonymised", any);
    if (!any) return;
    fields o = put_object(f, "redacted");
    const detector *d = a->p->detector;
    for (unsigned i = 0; i < detector_entities(d) && o.o; i++) {
        const entity_info *info = detector_entity(d, i);
        if (a->g->counts[i] && info->word && entity_set_has(x->redacted, i)) put_num(&o, info->name, a->g->counts[i]);
    }
    join(f, &o);
}

static err_code fill_egress(record *rec, const admission *a, const attempt_facts *x, err *e) {
    const provider_facts *p = &x->to->facts;
    uint8_t digest[SHA256_LEN];
    char hex[SHA256_HEX_LEN + 1];
    fields f = {.o = record_body(rec)};
    put_str(&f, "purpose", "answer");
    put_num(&f, "request", (double)x->admitted);
    put_num(&f, "attempt", x->number);
    put_str(&f, "provider", p->name);
    put_str(&f, "driver", p->driver);
    put_str(&f, "operator", p->operator_name);
    put_str(&f, "country", p->country);
    put_str(&f, "operator_law", p->operator_law);
    put_bool(&f, "inside", p->inside);
    put_host(&f, x->to->url);
    put_str(&f, "model", x->model);
    put_num(&f, "bytes", (double)x->call->body_len);
    sha256_of(digest, x->call->body, x->call->body_len);
    hex_encode(hex, digest, sizeof digest);
    put_str(&f, "sha256", hex);
    put_redacted(&f, a, x);
    err_code rc = check(&f, e);
    if (!rc) rc = records_put_perimeter(rec, a, false, e);
    if (!rc) rc = record_content(rec, "body", x->call->body, x->call->body_len, e);
    return rc ? rc : content_map(rec, x->map, e);
}

err_code records_egress(record **out, const admission *a, const attempt_facts *x, err *e) {
    record *rec = NULL;
    err_code rc = record_new(&rec, "egress", e);
    return give(out, rec, rc ? rc : fill_egress(rec, a, x, e));
}

static err_code fill_refused(record *rec, const admission *a, err_code why, const char *sentence, err *e) {
    fields f = {.o = record_body(rec)};
    put_caller(&f, a->r);
    put_str(&f, "reason", err_name(why));
    put_str(&f, "why", sentence);
    err_code rc = check(&f, e);
    return rc ? rc : records_put_perimeter(rec, a, true, e);
}

err_code records_refused(record **out, const admission *a, err_code why, const char *sentence, err *e) {
    record *rec = NULL;
    err_code rc = record_new(&rec, "refused", e);
    return give(out, rec, rc ? rc : fill_refused(rec, a, why, sentence, e));
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

static err_code content_turn(record *rec, const char *name, const turn *t, err *e) {
    buf text = {.max = LEDGER_CONTENT_MAX};
    err_code rc = turn_json(t, &text, e);
    if (!rc) rc = buf_check(&text, "what an answer said", e);
    if (!rc) rc = record_content(rec, name, buf_str(&text), text.len, e);
    if (text.ptr) mem_wipe(text.ptr, text.len);
    buf_free(&text);
    return rc;
}

static err_code outcome_contents(record *rec, const ending *x, err *e) {
    const driver_outcome *o = x->o;
    err_code rc = x->kept ? content_turn(rec, "turn", x->kept, e) : ERR_OK;
    for (uint32_t i = 0; i < o->n_choices && !rc; i++) {
        char name[24];
        snprintf(name, sizeof name, "answer_%c", 'a' + (int)i);
        rc = record_content(rec, name, buf_str(&x->answers[i]), x->answers[i].len, e);
        snprintf(name, sizeof name, "tokens_%c", 'a' + (int)i);
        if (!rc && o->choices[i].tokens)
            rc = records_content_tokens(rec, name, o->choices[i].tokens, o->choices[i].n_tokens, e);
        snprintf(name, sizeof name, "said_%c", 'a' + (int)i);
        if (!rc && x->written) rc = content_turn(rec, name, &x->written[i], e);
    }
    return rc;
}

static void put_attempts(fields *f, const ending *x) {
    fields list = {.o = put_tree(f, "attempts", cJSON_CreateArray())};
    for (uint32_t i = 0; i < x->n_notes && list.o && !list.failed; i++) {
        const attempt_note *n = &x->notes[i];
        fields o = put_object(&list, NULL);
        if (o.failed) break;
        put_str(&o, "provider", n->provider);
        put_str(&o, "model", n->model);
        put_str(&o, "outcome", n->outcome);
        if (n->status) put_num(&o, "status", n->status);
        put_num(&o, "sent_bytes", (double)n->sent);
        if (n->sendings > 1) put_num(&o, "sendings", n->sendings);
        put_num(&o, "received_bytes", (double)n->received);
        put_num(&o, "ms", ms(n->ns));
        join(&list, &o);
    }
    join(f, &list);
}

static void put_times(fields *f, const driver_outcome *o, bool embed) {
    fields t = put_object(f, "ms");
    put_num(&t, "queue", ms(o->queue_ns));
    put_num(&t, embed ? "compute" : "prefill", ms(o->prefill_ns));
    if (!embed) put_num(&t, "decode", ms(o->decode_ns));
    join(f, &t);
}

static err_code fill_outcome(record *rec, const admission *a, const ending *x, bool with_contents, err *e) {
    const driver_outcome *o = x->o;
    bool embed = a->r->embed != NULL;
    fields f = {.o = record_body(rec)};
    put_num(&f, "request", (double)x->admitted);
    if (x->rc) put_str(&f, "reason", err_name(x->rc));
    put_num(&f, "prompt_tokens", (double)o->prompt_tokens);
    if (!embed) put_num(&f, "completion_tokens", (double)o->completion_tokens);
    if (!embed) put_choices(&f, o);
    if (x->route) put_str(&f, "route", x->route);
    if (o->provider_id[0]) put_str(&f, "provider_id", o->provider_id);
    if (x->cost_eur >= 0) put_num(&f, "cost_eur", x->cost_eur);
    put_attempts(&f, x);
    put_times(&f, o, embed);
    err_code rc = check(&f, e);
    if (!rc) rc = records_put_perimeter(rec, a, false, e);
    if (!rc && embed) return records_embed_outcome(rec, x, with_contents, e);
    return !rc && with_contents ? outcome_contents(rec, x, e) : rc;
}

err_code records_outcome(record **out, const admission *a, const ending *x, bool with_contents, err *e) {
    record *rec = NULL;
    err_code rc = record_new(&rec, x->rc ? "failed" : "completed", e);
    return give(out, rec, rc ? rc : fill_outcome(rec, a, x, with_contents, e));
}

/* ---- the perimeter ----------------------------------------------------------------------------------------- */

static void put_flags(fields *f, unsigned flags) {
    fields list = {.o = put_tree(f, "flags", cJSON_CreateArray())};
    for (unsigned bit = 1; bit <= FLAGS_ALL && list.o; bit <<= 1)
        if (flags & bit) put_tree(&list, NULL, cJSON_CreateString(flag_name(bit)));
    join(f, &list);
}

static void put_found(fields *f, const admission *a) {
    if (entity_set_empty(&a->g->found)) return;
    fields o = put_object(f, "found");
    for (unsigned i = 0; i < detector_entities(a->p->detector) && o.o; i++)
        if (a->g->counts[i]) put_num(&o, detector_entity(a->p->detector, i)->name, a->g->counts[i]);
    join(f, &o);
}

static void put_providers(fields *f, const admission *a) {
    fields list = {.o = put_tree(f, "providers", cJSON_CreateArray())};
    uint64_t named = 0;
    for (uint32_t i = 0; i < a->n && list.o; i++) {
        uint64_t bit = (uint64_t)1 << a->list[i].provider;
        if (!(a->allowed & bit) || named & bit) continue;
        named |= bit;
        put_tree(&list, NULL, cJSON_CreateString(a->p->providers[a->list[i].provider].facts.name));
    }
    join(f, &list);
}

err_code records_put_perimeter(record *rec, const admission *a, bool candidates, err *e) {
    fields f = {.o = record_body(rec)};
    put_str(&f, "label", a->p->labels.name[a->g->s.level]);
    put_flags(&f, a->g->s.flags);
    put_str(&f, "policy", a->p->policy_hex);
    if (!candidates) return check(&f, e);
    put_found(&f, a);
    if (a->g->detector_failed) put_str(&f, "detector_error", a->g->why);
    put_providers(&f, a);
    return check(&f, e);
}
