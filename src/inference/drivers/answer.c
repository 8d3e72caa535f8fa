#include "inference/drivers/answer.h"

#include "base/json.h"
#include "base/mem.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

void answer_init(answer *a, const request *r, const char *provider) {
    memset(a, 0, offsetof(answer, choices));
    a->r = r;
    a->provider = provider;
    a->block = -1;
    a->n_choices = r->n_choices;
    for (uint32_t i = 0; i < a->n_choices; i++) a->choices[i] = (answer_choice){.args = {.max = ANSWER_ARGS_MAX}};
}

void answer_drop(answer *a) {
    cJSON_Delete(a->tree);
    mem_free(a->items);
    mem_free(a->tokens);
    mem_free(a->vectors);
    mem_free(a->digests);
    for (uint32_t i = 0; i < a->n_choices; i++) buf_free(&a->choices[i].args);
}

err_code answer_bad(const answer *a, err *e, const char *why) {
    return err_set(e, ERR_UPSTREAM, "provider '%s': its answer cannot be used: %s", a->provider, why);
}

err_code answer_begin(answer *a, const char *json, size_t n, err *e) {
    cJSON_Delete(a->tree);
    a->tree = NULL;
    a->at = a->n = 0;
    err why;
    err_clear(&why);
    err_code rc = json_parse(&a->tree, json, n, "JSON", &why);
    if (rc == ERR_NOMEM) return err_nomem(e, "a provider's answer");
    if (rc) return answer_bad(a, e, why.msg);
    return cJSON_IsObject(a->tree) ? ERR_OK : answer_bad(a, e, "it is no JSON object");
}

uint64_t answer_count(const cJSON *o, const char *key) {
    const cJSON *v = cJSON_IsObject(o) ? json_get(o, key) : NULL;
    if (!cJSON_IsNumber(v) || !(v->valuedouble >= 0 && v->valuedouble < 9007199254740992.0)) return 0;
    return (uint64_t)v->valuedouble;
}

/* ---- putting ----------------------------------------------------------------------------------------------- */

static err_code put(answer *a, const answer_item *i, err *e) {
    if (a->n == a->cap) {
        size_t cap = a->cap ? 2 * a->cap : 16;
        answer_item *p = mem_realloc(a->items, cap * sizeof *p);
        if (!p) return err_nomem(e, "a provider's answer");
        a->items = p;
        a->cap = cap;
    }
    a->items[a->n++] = *i;
    return ERR_OK;
}

/* The choice, where something of it may still come. */
static err_code open_choice(answer *a, uint32_t choice, answer_choice **c, err *e) {
    if (choice >= a->r->n_choices) return answer_bad(a, e, "it has a choice that was not asked for");
    *c = &a->choices[choice];
    return (*c)->finish ? answer_bad(a, e, "a choice goes on after its end") : ERR_OK;
}

err_code answer_put_text(answer *a, uint32_t choice, const char *text, const cJSON *logprobs, err *e) {
    answer_choice *c = NULL;
    const cJSON *tokens = cJSON_IsArray(logprobs) ? logprobs->child : NULL;
    if ((!text || !*text) && !tokens) return ERR_OK;
    if (tokens && !a->tokens && !(a->tokens = mem_array(ANSWER_TOKENS_AT_ONCE, sizeof *a->tokens)))
        return err_nomem(e, "a provider's answer");
    err_code rc = open_choice(a, choice, &c, e);
    if (!rc && text && *text) rc = answer_end_call(a, choice, e);
    answer_item i = {.kind = EV_TEXT, .choice = choice, .text = text ? text : "", .tokens = tokens};
    i.len = strlen(i.text);
    return rc ? rc : put(a, &i, e);
}

err_code answer_put_reasoning(answer *a, uint32_t choice, const char *text, err *e) {
    answer_choice *c = NULL;
    if (!text || !*text) return ERR_OK;
    err_code rc = open_choice(a, choice, &c, e);
    if (!rc) rc = answer_end_call(a, choice, e);
    answer_item i = {.kind = EV_REASONING, .choice = choice, .text = text, .len = strlen(text)};
    return rc ? rc : put(a, &i, e);
}

err_code answer_put_call(answer *a, uint32_t choice, int64_t index, const char *id, const char *name, err *e) {
    answer_choice *c = NULL;
    err_code rc = open_choice(a, choice, &c, e);
    if (!rc) rc = answer_end_call(a, choice, e);
    if (rc) return rc;
    if (!name || !*name) return answer_bad(a, e, "a tool call has no name");
    c->in_call = true;
    c->index = index;
    snprintf(c->call_id, sizeof c->call_id, "%s", id ? id : "");
    c->ignored = a->r->one_call && c->n_calls;
    if (c->ignored) return ERR_OK;
    c->n_calls++;
    answer_item i = {.kind = EV_CALL, .choice = choice, .text = name, .len = strlen(name)};
    return put(a, &i, e);
}

err_code answer_put_args(answer *a, uint32_t choice, const char *text, err *e) {
    answer_choice *c = NULL;
    if (!text || !*text) return ERR_OK;
    err_code rc = open_choice(a, choice, &c, e);
    if (rc) return rc;
    if (!c->in_call) return answer_bad(a, e, "there are arguments without a tool call");
    if (c->ignored) return ERR_OK;
    buf_puts(&c->args, text);
    if (c->args.failed && !c->args.over_max) return err_nomem(e, "a provider's answer");
    if (c->args.failed) return answer_bad(a, e, "the arguments of a tool call are too long");
    answer_item i = {.kind = EV_CALL_ARGS, .choice = choice, .text = text, .len = strlen(text)};
    return put(a, &i, e);
}

/* Arguments that are no JSON object went out as they came; the end of the choice says so. */
static bool readable(const buf *args) {
    cJSON *v = NULL;
    bool ok = json_parse(&v, buf_str(args), args->len, "arguments", NULL) == ERR_OK && cJSON_IsObject(v);
    cJSON_Delete(v);
    return ok;
}

err_code answer_end_call(answer *a, uint32_t choice, err *e) {
    answer_choice *c = &a->choices[choice];
    if (!c->in_call) return ERR_OK;
    c->in_call = false;
    if (c->ignored) return ERR_OK;
    err_code rc = ERR_OK;
    if (!c->args.len) {
        answer_item none = {.kind = EV_CALL_ARGS, .choice = choice, .text = "{}", .len = 2};
        rc = put(a, &none, e);
    } else if (!readable(&c->args)) {
        c->malformed = true;
    }
    buf_reset(&c->args);
    answer_item i = {.kind = EV_CALL_END, .choice = choice};
    return rc ? rc : put(a, &i, e);
}

/* One of those that were asked for, or NULL. */
static const char *stop_of(const request *r, const char *text) {
    for (uint32_t i = 0; text && i < r->n_stops; i++)
        if (strcmp(r->stops[i], text) == 0) return r->stops[i];
    return NULL;
}

err_code answer_put_finish(answer *a, uint32_t choice, const char *reason, const char *stop, err *e) {
    answer_choice *c = NULL;
    err_code rc = open_choice(a, choice, &c, e);
    if (!rc) rc = answer_end_call(a, choice, e);
    if (rc) return rc;
    if (c->n_calls && strcmp(reason, "stop") == 0) reason = "tool_calls";
    if (!c->n_calls && strcmp(reason, "tool_calls") == 0) reason = "stop";
    c->finish = reason;
    a->n_finished++;
    answer_item i = {.kind = EV_FINISH,
                     .choice = choice,
                     .reason = reason,
                     .stop = strcmp(reason, "stop") == 0 ? stop_of(a->r, stop) : NULL,
                     .malformed = c->malformed};
    return put(a, &i, e);
}

err_code answer_put_vector(answer *a, uint32_t input, err *e) {
    answer_item i = {.kind = EV_VECTOR, .input = input};
    return put(a, &i, e);
}

err_code answer_check_end(answer *a, err *e) {
    if (a->r->embed) return a->vectors ? ERR_OK : answer_bad(a, e, "it has no vectors");
    if (a->n_finished == a->r->n_choices) return ERR_OK;
    a->lacks_choices = a->n_finished != 0;
    return answer_bad(a, e, a->n_finished ? "it has fewer choices than were asked for" : "it has no content");
}

/* ---- taking ------------------------------------------------------------------------------------------------ */

static uint8_t take_bytes(char out[64], const cJSON *o) {
    const cJSON *v = json_get(o, "bytes"), *b, *s = json_get(o, "token");
    size_t n = 0;
    if (cJSON_IsArray(v)) {
        cJSON_ArrayForEach(b, v) {
            bool byte = cJSON_IsNumber(b) && b->valuedouble >= 0 && b->valuedouble < 256;
            if (n < 64 && byte) out[n++] = (char)(uint8_t)b->valuedouble;
        }
    } else if (cJSON_IsString(s)) {
        n = strnlen(s->valuestring, 64);
        memcpy(out, s->valuestring, n);
    }
    return (uint8_t)n;
}

static float take_logprob(const cJSON *o) {
    const cJSON *v = json_get(o, "logprob");
    return cJSON_IsNumber(v) ? (float)v->valuedouble : NAN;
}

/* {"token", "logprob", "bytes", "top_logprobs": [the same]}. The provider's numbers of tokens are not told. */
static void take_token(token_info *t, const cJSON *o) {
    const cJSON *top = cJSON_IsObject(o) ? json_get(o, "top_logprobs") : NULL, *k;
    *t = (token_info){.token = -1, .logprob = NAN};
    if (!cJSON_IsObject(o)) return;
    t->n_text = take_bytes(t->text, o);
    t->logprob = take_logprob(o);
    if (!cJSON_IsArray(top)) return;
    cJSON_ArrayForEach(k, top) {
        if (t->n_top == SAMPLER_TOP_MAX || !cJSON_IsObject(k)) break;
        t->top[t->n_top].token = -1;
        t->top[t->n_top].logprob = take_logprob(k);
        t->top[t->n_top].n_text = take_bytes(t->top[t->n_top].text, k);
        t->n_top++;
    }
}

/* A piece's tokens come in portions, the text with the first of them. */
static bool take_tokens(answer *a, answer_item *i, event *ev) {
    size_t n = 0;
    for (; i->tokens && n < ANSWER_TOKENS_AT_ONCE; i->tokens = i->tokens->next) take_token(&a->tokens[n++], i->tokens);
    ev->tokens = a->tokens;
    ev->n_tokens = n;
    i->text = "";
    i->len = 0;
    return !i->tokens;
}

bool answer_next(answer *a, event *ev) {
    if (a->at == a->n) return false;
    answer_item *i = &a->items[a->at];
    *ev = (event){.kind = i->kind,
                  .choice = i->choice,
                  .text = i->text,
                  .len = i->len,
                  .input = i->input,
                  .reason = i->reason,
                  .stop = i->stop,
                  .malformed = i->malformed};
    if (i->kind == EV_VECTOR) {
        ev->vector = a->vectors + (size_t)i->input * a->dimensions;
        ev->n_vector = a->dimensions;
    }
    if (!i->tokens || take_tokens(a, i, ev)) a->at++;
    a->n_events++;
    return true;
}
