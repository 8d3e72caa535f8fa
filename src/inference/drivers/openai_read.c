/* Answers in OpenAI's form, whole and as events: chat and completions; with what other servers of this form
 * add to it (reasoning_content or reasoning, contents in parts, errors inside of a stream). */
#include "inference/drivers/openai_vectors.h"

#include "base/bytes.h"
#include "base/json.h"
#include "base/mem.h"

#include <math.h>
#include <string.h>

static const char *text_of(const cJSON *o, const char *key) {
    const cJSON *v = cJSON_IsObject(o) ? json_get(o, key) : NULL;
    return cJSON_IsString(v) ? v->valuestring : NULL;
}

/* What follows an answer of any kind. */
static void read_facts(answer *a) {
    const char *id = text_of(a->tree, "id");
    if (id && !a->id[0]) text_copy(a->id, sizeof a->id, id);
    const cJSON *u = json_get(a->tree, "usage");
    if (!cJSON_IsObject(u)) return;
    a->prompt_tokens = answer_count(u, "prompt_tokens");
    a->completion_tokens = answer_count(u, "completion_tokens");
    a->reasoning_tokens = answer_count(json_get(u, "completion_tokens_details"), "reasoning_tokens");
    if (a->reasoning_tokens > a->completion_tokens) a->reasoning_tokens = a->completion_tokens;
}

/* {"error": {"message", "code"}} where an answer should be. */
static err_code read_error(answer *a, err *e) {
    const cJSON *x = json_get(a->tree, "error");
    if (!x) return ERR_OK;
    const cJSON *code = cJSON_IsObject(x) ? json_get(x, "code") : NULL;
    double status = cJSON_IsNumber(code) ? code->valuedouble : 0;
    a->error_status = status >= 400 && status < 600 ? (int)status : 500;
    const char *why = cJSON_IsString(x) ? x->valuestring : text_of(x, "message");
    return err_set(e, ERR_UPSTREAM, "%s", why && *why ? why : "it is an error without a sentence");
}

/* NULL: still running. "error" is one that the provider names as a reason. */
static const char *read_reason(const char *s) {
    static const struct {
        const char *theirs, *ours;
    } known[] = {{"length", "length"},
                 {"model_length", "length"},
                 {"max_tokens", "length"},
                 {"tool_calls", "tool_calls"},
                 {"function_call", "tool_calls"},
                 {"content_filter", "content_filter"},
                 {"error", "error"},
                 {"abort", "error"}};
    if (!s || !*s) return NULL;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(known[i].theirs, s) == 0) return known[i].ours;
    return "stop";
}

/* ---- chat -------------------------------------------------------------------------------------------------- */

/* [{"type": "text", "text"}, {"type": "thinking", "thinking": a text or the same parts}] */
static err_code read_parts(answer *a, uint32_t at, const cJSON *parts, bool reasoning, err *e) {
    const cJSON *p;
    err_code rc = ERR_OK;
    cJSON_ArrayForEach(p, parts) {
        const cJSON *thinking = cJSON_IsObject(p) ? json_get(p, "thinking") : NULL;
        const char *text = text_of(p, "text");
        if (rc) break;
        if (cJSON_IsArray(thinking) && !reasoning)
            rc = read_parts(a, at, thinking, true, e);
        else if (cJSON_IsString(thinking))
            rc = answer_put_reasoning(a, at, thinking->valuestring, e);
        else if (text)
            rc = reasoning ? answer_put_reasoning(a, at, text, e) : answer_put_text(a, at, text, NULL, e);
    }
    return rc;
}

static err_code read_call(answer *a, uint32_t at, const cJSON *c, err *e) {
    const cJSON *f = cJSON_IsObject(c) ? json_get(c, "function") : NULL,
                *n = cJSON_IsObject(c) ? json_get(c, "index") : NULL;
    const char *id = text_of(c, "id"), *name = text_of(f, "name");
    answer_choice *x = &a->choices[at];
    bool other = !x->in_call, counted = cJSON_IsNumber(n) && fabs(n->valuedouble) < 1e6;
    int64_t index = counted ? (int64_t)n->valuedouble : x->index;
    if (x->in_call && counted && index < x->index) return answer_bad(a, e, "its tool calls are mixed up");
    if (x->in_call && counted && index > x->index) other = true;
    if (x->in_call && id && *id && x->call_id[0] && strcmp(id, x->call_id) != 0) other = true;
    if (x->in_call && !counted && !id && name && *name) other = true;
    err_code rc = other ? answer_put_call(a, at, index, id, name, e) : ERR_OK;
    const cJSON *args = cJSON_IsObject(f) ? json_get(f, "arguments") : NULL;
    if (!rc && args && !cJSON_IsString(args)) return answer_bad(a, e, "a tool call's arguments are no string");
    return rc || !args ? rc : answer_put_args(a, at, args->valuestring, e);
}

/* A message, or a piece of one. A whole message's calls are apart from each other without any number. */
static err_code read_message(answer *a, uint32_t at, const cJSON *m, const cJSON *logprobs, bool whole, err *e) {
    const cJSON *content = json_get(m, "content"), *calls = json_get(m, "tool_calls"), *c;
    const char *reasoning = text_of(m, "reasoning_content");
    if (!reasoning) reasoning = text_of(m, "reasoning");
    const cJSON *tokens = a->r->want_logprobs && cJSON_IsObject(logprobs) ? json_get(logprobs, "content") : NULL;
    err_code rc = answer_put_reasoning(a, at, reasoning, e);
    if (!rc && cJSON_IsArray(content)) rc = read_parts(a, at, content, false, e);
    if (!rc) rc = answer_put_text(a, at, cJSON_IsString(content) ? content->valuestring : NULL, tokens, e);
    if (!rc) rc = answer_put_text(a, at, text_of(m, "refusal"), NULL, e);
    if (!cJSON_IsArray(calls)) return rc;
    cJSON_ArrayForEach(c, calls) {
        if (!rc) rc = read_call(a, at, c, e);
        if (!rc && whole) rc = answer_end_call(a, at, e);
    }
    return rc;
}

/* ---- completions ------------------------------------------------------------------------------------------- */

/* {"tokens": [], "token_logprobs": [], "top_logprobs": [{text: logprob}]} as the list that chat has. */
static cJSON *token_list(const cJSON *l) {
    const cJSON *t = json_get(l, "tokens"), *p = json_get(l, "token_logprobs"), *k = json_get(l, "top_logprobs"), *v;
    cJSON *list = cJSON_CreateArray();
    t = cJSON_IsArray(t) ? t->child : NULL;
    p = cJSON_IsArray(p) ? p->child : NULL;
    k = cJSON_IsArray(k) ? k->child : NULL;
    for (; t && list; t = t->next, p = p ? p->next : NULL, k = k ? k->next : NULL) {
        cJSON *o = cJSON_CreateObject(), *top = NULL;
        bool ok = o && cJSON_AddItemToArray(list, o);
        ok = ok && cJSON_AddStringToObject(o, "token", cJSON_IsString(t) ? t->valuestring : "");
        if (ok && cJSON_IsNumber(p)) ok = cJSON_AddNumberToObject(o, "logprob", p->valuedouble);
        if (ok && cJSON_IsObject(k)) ok = (top = cJSON_AddArrayToObject(o, "top_logprobs")) != NULL;
        if (top) cJSON_ArrayForEach(v, k) {
                cJSON *x = cJSON_CreateObject();
                bool in = x && cJSON_AddItemToArray(top, x);
                if (!in) cJSON_Delete(x);
                ok = ok && in && cJSON_AddStringToObject(x, "token", v->string) &&
                     (!cJSON_IsNumber(v) || cJSON_AddNumberToObject(x, "logprob", v->valuedouble));
            }
        if (ok) continue;
        cJSON_Delete(list);
        return NULL;
    }
    return list;
}

static err_code read_completion(answer *a, uint32_t at, cJSON *c, err *e) {
    const cJSON *l = a->r->want_logprobs ? json_get(c, "logprobs") : NULL;
    const cJSON *tokens = NULL;
    if (cJSON_IsObject(l)) {
        cJSON *list = token_list(l); /* lives as long as the tree */
        if (!list || !cJSON_AddItemToObject(c, "polder_tokens", list)) {
            cJSON_Delete(list);
            return err_nomem(e, "a provider's answer");
        }
        tokens = list;
    }
    return answer_put_text(a, at, text_of(c, "text"), tokens, e);
}

/* ---- choices ----------------------------------------------------------------------------------------------- */

static err_code read_choice(answer *a, cJSON *c, bool whole, err *e) {
    if (!cJSON_IsObject(c)) return answer_bad(a, e, "a choice is no object");
    const cJSON *index = json_get(c, "index"), *m = json_get(c, whole ? "message" : "delta");
    if (index && !(cJSON_IsNumber(index) && index->valuedouble >= 0 && index->valuedouble < a->r->n_choices))
        return answer_bad(a, e, "it has a choice that was not asked for");
    uint32_t at = index ? (uint32_t)index->valuedouble : 0;
    const char *reason = read_reason(text_of(c, "finish_reason"));
    if (reason && strcmp(reason, "error") == 0) return answer_bad(a, e, "the provider broke it off");
    err_code rc = ERR_OK;
    /* some repeat an empty piece after the end */
    if (a->r->messages && cJSON_IsObject(m)) rc = read_message(a, at, m, json_get(c, "logprobs"), whole, e);
    if (!a->r->messages) rc = read_completion(a, at, c, e);
    if (!rc && whole && !reason) reason = "stop";
    if (!rc && reason && !(a->choices[at].finish && !whole))
        rc = answer_put_finish(a, at, reason, text_of(c, "stop_reason"), e);
    return rc;
}

static err_code read_choices(answer *a, bool whole, err *e) {
    cJSON *list = cJSON_GetObjectItemCaseSensitive(a->tree, "choices"), *c;
    err_code rc = ERR_OK;
    if (whole && !cJSON_IsArray(list)) return answer_bad(a, e, "it has no choices");
    if (!cJSON_IsArray(list)) return ERR_OK;
    cJSON_ArrayForEach(c, list) {
        if (!rc) rc = read_choice(a, c, whole, e);
    }
    return rc;
}

/* ---- the two ways ------------------------------------------------------------------------------------------ */

err_code openai_read_whole(answer *a, const char *json, size_t n, err *e) {
    openai_lifted v = {0};
    err_code rc = a->r->embed ? openai_lift(&v, a, json, n, e) : answer_begin(a, json, n, e);
    if (!rc) rc = read_error(a, e);
    if (!rc) {
        read_facts(a);
        a->ended = true;
        rc = a->r->embed ? openai_read_vectors(a, &v, e) : read_choices(a, true, e);
    }
    openai_lifted_free(&v);
    return rc;
}

err_code openai_read_event(answer *a, const sse_event *ev, err *e) {
    if (ev->len == 6 && memcmp(ev->data, "[DONE]", 6) == 0) {
        a->ended = true;
        return ERR_OK;
    }
    err_code rc = answer_begin(a, ev->data, ev->len, e);
    if (!rc) rc = read_error(a, e);
    if (rc) return rc;
    read_facts(a);
    return read_choices(a, false, e);
}
