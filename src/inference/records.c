/* The records of a request: admitted, and one of completed and failed. The caller's words (prompt, messages, stop
 * strings, answers) are contents, never fields: they lie in the vault and can be erased. */
#include "inference/internal.h"
#include "inference/tool_grammar.h"

#include "base/json.h"
#include "base/mem.h"

#include <string.h>

#define REQUEST_USUAL 2000u /* bytes that what most requests say fits into */

static err_code check(record *rec, err *e) {
    return jflat_check(record_fields(rec), "the record of a request", e);
}

static void put_bias(jflat *f, const sampler_params *p) {
    jflat_arr(f, "logit_bias");
    for (uint32_t i = 0; i < p->n_bias; i++) {
        jflat_arr(f, NULL);
        jflat_num(f, NULL, p->bias[i].token);
        jflat_num(f, NULL, (double)p->bias[i].bias);
        jflat_end(f);
    }
    jflat_end(f);
}

static void put_grammar(jflat *f, const request *r) {
    uint8_t digest[SHA256_LEN];
    char hex[SHA256_HEX_LEN + 1];
    answer_grammar_digest(r, digest);
    hex_encode(hex, digest, sizeof digest);
    jflat_obj(f, "grammar");
    jflat_str(f, "kind", answer_grammar_kind(r->grammar));
    jflat_str(f, "sha256", hex);
    jflat_end(f);
}

static void put_params(jflat *f, const driver_call *c) {
    const request *r = c->r;
    const sampler_params *p = &r->sampling;
    char seed[U64_TEXT];
    text_u64(seed, c->seed);
    jflat_obj(f, "params");
    jflat_num(f, "temperature", (double)p->temperature);
    jflat_num(f, "top_k", p->top_k);
    jflat_num(f, "top_p", (double)p->top_p);
    jflat_num(f, "min_p", (double)p->min_p);
    jflat_num(f, "repeat_penalty", (double)p->repeat_penalty);
    jflat_num(f, "repeat_last_n", p->repeat_last_n);
    jflat_num(f, "frequency_penalty", (double)p->frequency_penalty);
    jflat_num(f, "presence_penalty", (double)p->presence_penalty);
    jflat_str(f, "seed", seed);
    jflat_num(f, "max_tokens", c->max_new);
    jflat_num(f, "n", r->n_choices);
    if (r->n_stops) jflat_num(f, "stops", r->n_stops);
    if (r->echo) jflat_bool(f, "echo", true);
    if (r->ignore_end) jflat_bool(f, "ignore_end", true);
    if (r->want_logprobs) jflat_num(f, "logprobs", r->n_top);
    if (r->parse) jflat_bool(f, "parse", true);
    if (r->one_call) jflat_bool(f, "one_call", true);
    if (r->tool_strict) jflat_bool(f, "tool_strict", true);
    if (p->n_bias) put_bias(f, p);
    if (r->grammar) put_grammar(f, r);
    jflat_end(f);
}

static void put_user(jflat *f, const inference *inf, const char *user) {
    uint8_t mac[SHA256_LEN];
    char hex[SHA256_HEX_LEN + 1];
    hmac_sha256(mac, inf->user_key, sizeof inf->user_key, user, strlen(user));
    hex_encode(hex, mac, sizeof mac);
    jflat_str(f, "user", hex);
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

err_code records_content_flat(record *rec, const char *name, const jflat *f, err *e) {
    buf text = {.max = LEDGER_CONTENT_MAX};
    err_code rc = jflat_check(f, "the record of a request", e);
    if (!rc) rc = jflat_write(f, NULL, &text, e);
    if (!rc) rc = buf_check(&text, "the record of a request", e);
    if (!rc) rc = record_content(rec, name, buf_str(&text), text.len, e);
    if (text.ptr) mem_wipe(text.ptr, text.len);
    buf_free(&text);
    return rc;
}

/* What bounds the text of the answer. */
static void put_bounds(jflat *f, const request *r) {
    if (r->n_stops) {
        jflat_arr(f, "stops");
        for (uint32_t i = 0; i < r->n_stops; i++) jflat_str(f, NULL, r->stops[i]);
        jflat_end(f);
    }
    if (r->grammar) { /* as text: the order of a schema's properties counts */
        jflat_obj(f, "grammar");
        jflat_str(f, "kind", answer_grammar_kind(r->grammar));
        jflat_str(f, "source", r->grammar_source);
        jflat_end(f);
    }
}

/* What replay needs and the request as it came does not show: the form of the answer as the engine got it, where values
 * were replaced in it; and the tools as text where a grammar was made of them, since the order of a schema's properties
 * counts and canonical JSON has none. */
static err_code content_form(record *rec, const admission *a, const request *r, err *e) {
    bool replaced = r != a->r && (r->tools || r->n_stops || r->grammar);
    if (!replaced && !tool_grammar_wanted(r)) return ERR_OK;
    jflat f;
    jflat_init(&f, LEDGER_CONTENT_MAX);
    put_bounds(&f, r);
    char *tools = r->tools ? json_text(r->tools) : NULL;
    if (r->tools) jflat_str(&f, "tools", tools);
    if (r->tool_only) jflat_str(&f, "tool_only", r->tool_only);
    err_code rc = records_content_flat(rec, "form", &f, e);
    if (tools) mem_wipe(tools, strlen(tools));
    mem_free(tools);
    jflat_wipe(&f);
    return rc;
}

/* The request as it came, without its dialect: what the caller wrote and what the rendered prompt does not show. */
static err_code content_request(record *rec, const request *r, bool with_text, err *e) {
    with_text = with_text && r->text;
    if (!r->messages && !r->tools && !r->template_args && !r->n_stops && !r->grammar && !with_text) return ERR_OK;
    jflat f;
    jflat_init(&f, LEDGER_CONTENT_MAX);
    (void)buf_reserve(&f.text, REQUEST_USUAL);
    if (r->messages) jflat_tree(&f, "messages", r->messages);
    if (with_text) jflat_str(&f, "text", r->text);
    if (r->tools) jflat_tree(&f, "tools", r->tools);
    if (r->template_args) jflat_tree(&f, "template_args", r->template_args);
    if (r->kept) jflat_tree(&f, "kept", r->kept);
    put_bounds(&f, r);
    err_code rc = records_content_flat(rec, "request", &f, e);
    jflat_wipe(&f);
    return rc;
}

err_code records_put_user(record *rec, const inference *inf, const char *user, err *e) {
    put_user(record_fields(rec), inf, user);
    return check(rec, e);
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

static void put_caller(jflat *f, const request *r) {
    jflat_str(f, "key", r->who.key_id);
    jflat_str(f, "role", role_name(r->who.role));
    if (r->who.project[0]) jflat_str(f, "project", r->who.project);
    jflat_str(f, "dialect", r->dialect ? r->dialect : "");
    jflat_str(f, "model", r->model);
    if (r->purpose) jflat_str(f, "purpose", r->purpose);
}

static err_code fill_admitted(record *rec, const inference *inf, const admission *a, const attempt_facts *x, err *e) {
    const request *r = a->r;
    const driver_call *c = x->call;
    jflat *f = record_fields(rec);
    put_caller(f, r);
    jflat_str(f, "route", x->to->facts.name);
    if (!r->embed) put_params(f, c);
    if (c->prompt_tokens) jflat_num(f, "prompt_tokens", (double)c->n_prompt_tokens);
    if (r->user) put_user(f, inf, r->user);
    err_code rc = check(rec, e);
    if (!rc) rc = records_put_perimeter(rec, a, true, e);
    if (!rc) rc = x->d->describe(c, f, e);
    if (!rc) rc = content_prompt(rec, c, e);
    bool inside = !c->body; /* what leaves has a record of its own */
    if (!rc && inside) rc = content_map(rec, x->map, e);
    if (!rc && inside && !r->embed) rc = content_form(rec, a, c->r, e);
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
    jflat *f = record_fields(rec);
    jflat_num(f, "request", (double)x->admitted);
    jflat_num(f, "attempt", x->number);
    jflat_str(f, "route", x->to->facts.name);
    if (x->call->prompt_tokens) jflat_num(f, "prompt_tokens", (double)x->call->n_prompt_tokens);
    if (!a->r->embed) jflat_num(f, "max_tokens", x->call->max_new);
    if (!a->r->embed && x->call->r->grammar) put_grammar(f, x->call->r);
    err_code rc = check(rec, e);
    if (!rc) rc = x->d->describe(x->call, f, e);
    if (!rc) rc = content_prompt(rec, x->call, e);
    if (!rc && a->r->embed) rc = records_embed_lengths(rec, x->call, e);
    if (!rc && !a->r->embed) rc = content_form(rec, a, x->call->r, e);
    return rc ? rc : content_map(rec, x->map, e);
}

err_code records_rerouted(record **out, const admission *a, const attempt_facts *x, err *e) {
    record *rec = NULL;
    err_code rc = record_new(&rec, "rerouted", e);
    return give(out, rec, rc ? rc : fill_rerouted(rec, a, x, e));
}

/* The host of "https://host:port/path". */
static void put_host(jflat *f, const char *url) {
    const char *from = strstr(url, "://");
    from = from ? from + 3 : url;
    size_t n = strcspn(from, "/");
    jflat_strn(f, "host", from, n < 300 ? n : 299);
}

static void put_redacted(jflat *f, const admission *a, const attempt_facts *x) {
    bool any = x->map && redaction_count(x->map);
    jflat_bool(f, "pseudonymised", any);
    if (!any) return;
    jflat_obj(f, "redacted");
    const detector *d = a->p->detector;
    for (unsigned i = 0; i < detector_entities(d); i++) {
        const entity_info *info = detector_entity(d, i);
        if (a->g->counts[i] && info->word && entity_set_has(x->redacted, i)) jflat_num(f, info->name, a->g->counts[i]);
    }
    jflat_end(f);
}

static err_code fill_egress(record *rec, const admission *a, const attempt_facts *x, err *e) {
    const provider_facts *p = &x->to->facts;
    uint8_t digest[SHA256_LEN];
    char hex[SHA256_HEX_LEN + 1];
    jflat *f = record_fields(rec);
    jflat_str(f, "purpose", "answer");
    jflat_num(f, "request", (double)x->admitted);
    jflat_num(f, "attempt", x->number);
    jflat_str(f, "provider", p->name);
    jflat_str(f, "driver", p->driver);
    jflat_str(f, "operator", p->operator_name);
    jflat_str(f, "country", p->country);
    jflat_str(f, "operator_law", p->operator_law);
    jflat_bool(f, "inside", p->inside);
    put_host(f, x->to->url);
    jflat_str(f, "model", x->model);
    jflat_num(f, "bytes", (double)x->call->body_len);
    sha256_of(digest, x->call->body, x->call->body_len);
    hex_encode(hex, digest, sizeof digest);
    jflat_str(f, "sha256", hex);
    put_redacted(f, a, x);
    err_code rc = check(rec, e);
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
    jflat *f = record_fields(rec);
    put_caller(f, a->r);
    jflat_str(f, "reason", err_name(why));
    jflat_str(f, "why", sentence);
    err_code rc = check(rec, e);
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

static void put_choices(jflat *f, const driver_outcome *o) {
    jflat_arr(f, "choices");
    for (uint32_t i = 0; i < o->n_choices; i++) {
        const driver_choice *c = &o->choices[i];
        jflat_obj(f, NULL);
        if (c->finish) jflat_str(f, "finish", c->finish);
        jflat_num(f, "tokens", (double)c->n_tokens);
        jflat_num(f, "steps", c->steps);
        if (c->n_calls) jflat_num(f, "tool_calls", c->n_calls);
        if (c->malformed) jflat_bool(f, "malformed_tool_call", true);
        if (c->has_digest) {
            char hex[SHA256_HEX_LEN + 1];
            hex_encode(hex, c->logits_sha256, SHA256_LEN);
            jflat_str(f, "logits_sha256", hex);
            if (c->rows != c->n_tokens) jflat_num(f, "rows", (double)c->rows);
        }
        if (c->prompt_rows) {
            char hex[SHA256_HEX_LEN + 1];
            hex_encode(hex, c->prompt_sha256, SHA256_LEN);
            jflat_num(f, "prompt_rows", c->prompt_rows);
            jflat_str(f, "prompt_logits_sha256", hex);
        }
        jflat_end(f);
    }
    jflat_end(f);
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
        char answer[] = "answer_a", tokens[] = "tokens_a", said[] = "said_a";
        answer[sizeof answer - 2] = tokens[sizeof tokens - 2] = said[sizeof said - 2] = (char)('a' + i);
        rc = record_content(rec, answer, buf_str(&x->answers[i]), x->answers[i].len, e);
        if (!rc && o->choices[i].tokens)
            rc = records_content_tokens(rec, tokens, o->choices[i].tokens, o->choices[i].n_tokens, e);
        if (!rc && x->written) rc = content_turn(rec, said, &x->written[i], e);
    }
    return rc;
}

static void put_attempts(jflat *f, const ending *x) {
    jflat_arr(f, "attempts");
    for (uint32_t i = 0; i < x->n_notes; i++) {
        const attempt_note *n = &x->notes[i];
        jflat_obj(f, NULL);
        jflat_str(f, "provider", n->provider);
        jflat_str(f, "model", n->model);
        jflat_str(f, "outcome", n->outcome);
        if (n->status) jflat_num(f, "status", n->status);
        jflat_num(f, "sent_bytes", (double)n->sent);
        if (n->sendings > 1) jflat_num(f, "sendings", n->sendings);
        jflat_num(f, "received_bytes", (double)n->received);
        jflat_num(f, "ms", ms(n->ns));
        jflat_end(f);
    }
    jflat_end(f);
}

static void put_times(jflat *f, const driver_outcome *o, bool embed) {
    jflat_obj(f, "ms");
    jflat_num(f, "queue", ms(o->queue_ns));
    jflat_num(f, embed ? "compute" : "prefill", ms(o->prefill_ns));
    if (!embed) jflat_num(f, "decode", ms(o->decode_ns));
    jflat_end(f);
}

static err_code fill_outcome(record *rec, const admission *a, const ending *x, bool with_contents, err *e) {
    const driver_outcome *o = x->o;
    bool embed = a->r->embed != NULL;
    jflat *f = record_fields(rec);
    jflat_num(f, "request", (double)x->admitted);
    if (x->rc) jflat_str(f, "reason", err_name(x->rc));
    jflat_num(f, "prompt_tokens", (double)o->prompt_tokens);
    if (!embed) jflat_num(f, "completion_tokens", (double)o->completion_tokens);
    if (!embed) put_choices(f, o);
    if (x->route) jflat_str(f, "route", x->route);
    if (x->attempt > 1) jflat_num(f, "attempt", x->attempt);
    if (o->provider_id[0]) jflat_str(f, "provider_id", o->provider_id);
    if (x->cost_eur >= 0) jflat_num(f, "cost_eur", x->cost_eur);
    put_attempts(f, x);
    put_times(f, o, embed);
    err_code rc = check(rec, e);
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

static void put_flags(jflat *f, unsigned flags) {
    jflat_arr(f, "flags");
    for (unsigned bit = 1; bit <= FLAGS_ALL; bit <<= 1)
        if (flags & bit) jflat_str(f, NULL, flag_name(bit));
    jflat_end(f);
}

static void put_found(jflat *f, const admission *a) {
    if (entity_set_empty(&a->g->found)) return;
    jflat_obj(f, "found");
    for (unsigned i = 0; i < detector_entities(a->p->detector); i++)
        if (a->g->counts[i]) jflat_num(f, detector_entity(a->p->detector, i)->name, a->g->counts[i]);
    jflat_end(f);
}

static void put_providers(jflat *f, const admission *a) {
    uint64_t named = 0;
    jflat_arr(f, "providers");
    for (uint32_t i = 0; i < a->n; i++) {
        uint64_t bit = (uint64_t)1 << a->list[i].provider;
        if (!(a->allowed & bit) || named & bit) continue;
        named |= bit;
        jflat_str(f, NULL, a->p->providers[a->list[i].provider].facts.name);
    }
    jflat_end(f);
}

err_code records_put_perimeter(record *rec, const admission *a, bool candidates, err *e) {
    jflat *f = record_fields(rec);
    jflat_str(f, "label", a->p->labels.name[a->g->s.level]);
    put_flags(f, a->g->s.flags);
    jflat_str(f, "policy", a->p->policy_hex);
    if (!candidates) return check(rec, e);
    put_found(f, a);
    if (a->g->detector_failed) jflat_str(f, "detector_error", a->g->why);
    put_providers(f, a);
    return check(rec, e);
}
