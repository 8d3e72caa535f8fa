/* Bodies in Anthropic's form.
 *
 * System messages go to the front, in their order, wherever they stood. Turns of one role become one message of several
 * blocks, as the form wants turns to alternate; results of tools are blocks of the user's turn. Empty texts are left
 * out: the form has none. Of earlier turns the reasoning is not sent: it would need the provider's signature. What
 * equals polder's defaults of sampling is not sent (openai_write.c says why). */
#include "inference/drivers/body.h"

#include "base/mem.h"

#include <string.h>

#define ANSWER_TOKENS_DEFAULT 4096

static const char *text_of(const cJSON *o, const char *key) {
    const cJSON *v = cJSON_IsObject(o) ? json_get(o, key) : NULL;
    return cJSON_IsString(v) ? v->valuestring : NULL;
}

static bool role_is(const cJSON *m, const char *wanted) {
    const char *s = text_of(m, "role");
    return s && strcmp(s, wanted) == 0;
}

static void put_text(jw *w, const char *text) {
    if (!text || !*text) return;
    jw_obj(w);
    jw_kstr(w, "type", "text");
    jw_kstr(w, "text", text);
    jw_obj_end(w);
}

static void put_content(jw *w, const cJSON *content) {
    const cJSON *p;
    if (cJSON_IsString(content)) put_text(w, content->valuestring);
    if (cJSON_IsArray(content)) cJSON_ArrayForEach(p, content) put_text(w, text_of(p, "text"));
}

static bool has_text(const cJSON *m) {
    const cJSON *content = json_get(m, "content"), *p;
    if (cJSON_IsString(content)) return content->valuestring[0] != 0;
    if (cJSON_IsArray(content)) cJSON_ArrayForEach(p, content) {
            const char *s = text_of(p, "text");
            if (s && *s) return true;
        }
    return false;
}

/* ---- what was said ----------------------------------------------------------------------------------------- */

static void put_system(jw *w, const cJSON *messages) {
    const cJSON *m;
    bool any = false;
    cJSON_ArrayForEach(m, messages) any |= role_is(m, "system") && has_text(m);
    if (!any) return;
    jw_key(w, "system");
    jw_arr(w);
    cJSON_ArrayForEach(m, messages) {
        if (role_is(m, "system")) put_content(w, json_get(m, "content"));
    }
    jw_arr_end(w);
}

static err_code put_call(jw *w, const upstream_target *t, const cJSON *c, err *e) {
    const cJSON *f = json_get(c, "function"), *args = f ? json_get(f, "arguments") : NULL;
    const char *text = cJSON_IsString(args) && args->valuestring[0] ? args->valuestring : "{}";
    cJSON *input = NULL;
    if (!cJSON_IsObject(args) &&
        (json_parse(&input, text, strlen(text), "arguments", NULL) != ERR_OK || !cJSON_IsObject(input))) {
        cJSON_Delete(input);
        return body_refuse(t, "a tool call whose arguments are no JSON object", e);
    }
    jw_obj(w);
    jw_kstr(w, "type", "tool_use");
    jw_kstr(w, "id", text_of(c, "id"));
    jw_kstr(w, "name", text_of(f, "name"));
    jw_key(w, "input");
    body_put_tree(w, input ? input : args);
    jw_obj_end(w);
    cJSON_Delete(input);
    return ERR_OK;
}

static void put_result(jw *w, const cJSON *m) {
    jw_obj(w);
    jw_kstr(w, "type", "tool_result");
    jw_kstr(w, "tool_use_id", text_of(m, "tool_call_id"));
    jw_key(w, "content");
    jw_arr(w);
    put_content(w, json_get(m, "content"));
    jw_arr_end(w);
    jw_obj_end(w);
}

static err_code put_blocks(jw *w, const upstream_target *t, const cJSON *m, err *e) {
    const cJSON *calls = json_get(m, "tool_calls"), *c;
    err_code rc = ERR_OK;
    if (role_is(m, "tool")) {
        put_result(w, m);
        return ERR_OK;
    }
    put_content(w, json_get(m, "content"));
    if (cJSON_IsArray(calls)) cJSON_ArrayForEach(c, calls) {
            if (!rc) rc = put_call(w, t, c, e);
        }
    return rc;
}

static bool is_empty(const cJSON *m) {
    const cJSON *calls = json_get(m, "tool_calls");
    return !role_is(m, "tool") && !has_text(m) && !(cJSON_IsArray(calls) && calls->child);
}

static err_code put_messages(jw *w, const upstream_target *t, const cJSON *messages, err *e) {
    const cJSON *m;
    err_code rc = ERR_OK;
    const char *turn = NULL;
    jw_key(w, "messages");
    jw_arr(w);
    cJSON_ArrayForEach(m, messages) {
        if (rc) break;
        if (role_is(m, "system") || is_empty(m)) continue;
        const char *whose = role_is(m, "assistant") ? "assistant" : "user";
        if (!turn && *whose == 'a') return body_refuse(t, "a conversation that the assistant begins", e);
        if (!turn || strcmp(turn, whose) != 0) {
            if (turn) jw_arr_end(w);
            if (turn) jw_obj_end(w);
            jw_obj(w);
            jw_kstr(w, "role", whose);
            jw_key(w, "content");
            jw_arr(w);
            turn = whose;
        }
        rc = put_blocks(w, t, m, e);
    }
    if (!rc && !turn) return body_refuse(t, "a conversation without any text of its user", e);
    if (turn) jw_arr_end(w);
    if (turn) jw_obj_end(w);
    jw_arr_end(w);
    return rc;
}

/* ---- tools ------------------------------------------------------------------------------------------------- */

static bool is_name(const char *s) {
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";
    size_t n = s ? strlen(s) : 0;
    return n && n <= 128 && strspn(s, letters) == n;
}

static err_code put_tool(jw *w, const upstream_target *t, const cJSON *tool, err *e) {
    const cJSON *f = json_get(tool, "function"), *params = cJSON_IsObject(f) ? json_get(f, "parameters") : NULL;
    const char *name = text_of(f, "name"), *text = text_of(f, "description");
    if (!is_name(name)) return body_refuse(t, "a tool whose name has more than letters, digits, '_' and '-'", e);
    jw_obj(w);
    jw_kstr(w, "name", name);
    if (text && *text) jw_kstr(w, "description", text);
    jw_key(w, "input_schema");
    if (params)
        body_put_tree(w, params);
    else
        jw_raw(w, "{\"type\":\"object\"}", 17);
    jw_obj_end(w);
    return ERR_OK;
}

static err_code put_tools(jw *w, const upstream_target *t, const request *r, err *e) {
    const cJSON *tool;
    err_code rc = ERR_OK;
    if (!r->tools || !r->tools->child) return ERR_OK;
    jw_key(w, "tools");
    jw_arr(w);
    cJSON_ArrayForEach(tool, r->tools) {
        if (!rc) rc = put_tool(w, t, tool, e);
    }
    jw_arr_end(w);
    if (rc || (!r->tool_must && !r->one_call)) return rc;
    jw_key(w, "tool_choice");
    jw_obj(w);
    jw_kstr(w, "type", !r->tool_must ? "auto" : r->tool_only ? "tool" : "any");
    if (r->tool_must && r->tool_only) jw_kstr(w, "name", r->tool_only);
    if (r->one_call) jw_kbool(w, "disable_parallel_tool_use", true);
    jw_obj_end(w);
    return ERR_OK;
}

/* ---- the rest ---------------------------------------------------------------------------------------------- */

static err_code check_sampling(const upstream_target *t, const driver_call *c, err *e) {
    const sampler_params *s = &c->r->sampling;
    if (s->temperature > 1) return body_refuse(t, "a temperature above 1", e);
    if (s->frequency_penalty != 0 || s->presence_penalty != 0) return body_refuse(t, "penalties", e);
    if (c->r->has_seed) return body_refuse(t, "a seed", e);
    return ERR_OK;
}

static err_code check(const upstream_target *t, const driver_call *c, err *e) {
    const request *r = c->r;
    const cJSON *m;
    err_code rc = body_check_common(c, e);
    if (!rc && r->embed) return body_refuse(t, "to make vectors", e);
    if (!rc && !r->messages) return body_refuse(t, "a prompt that is no conversation", e);
    if (!rc) rc = check_sampling(t, c, e);
    if (rc) return rc;
    if (r->grammar) return body_refuse(t, "a form of the answer (response_format)", e);
    if (r->tool_strict) return body_refuse(t, "that arguments must follow the tools' schemas (strict)", e);
    if (r->n_choices > 1) return body_refuse(t, "to answer more than once (n)", e);
    if (r->want_logprobs) return body_refuse(t, "to give log-probabilities", e);
    if (r->echo) return body_refuse(t, "to repeat the prompt (echo)", e);
    if (r->reasoning_effort && strcmp(r->reasoning_effort, "none") != 0) return body_refuse(t, "a reasoning_effort", e);
    if (r->max_tokens == 0) return body_refuse(t, "to answer with no token", e);
    cJSON_ArrayForEach(m, r->messages) {
        if (!rc) rc = body_check_content(t, json_get(m, "content"), e);
    }
    return rc;
}

static void put_sampling(jw *w, const request *r) {
    const sampler_params *s = &r->sampling;
    sampler_params def;
    sampler_params_default(&def);
    if (s->temperature != def.temperature) body_put_float(w, "temperature", s->temperature);
    if (s->top_p != def.top_p) body_put_float(w, "top_p", s->top_p);
    if (s->top_k != def.top_k) jw_kint(w, "top_k", s->top_k);
    if (!r->n_stops) return;
    jw_key(w, "stop_sequences");
    jw_arr(w);
    for (uint32_t i = 0; i < r->n_stops; i++) jw_str(w, r->stops[i]);
    jw_arr_end(w);
}

err_code anthropic_write(const driver_call *c, const upstream_target *t, buf *out, err *e) {
    const request *r = c->r;
    jw w;
    err_code rc = check(t, c, e);
    if (rc) return rc;
    jw_init(&w, out);
    jw_obj(&w);
    jw_kstr(&w, "model", t->model);
    jw_kint(&w, "max_tokens", c->max_new ? c->max_new : ANSWER_TOKENS_DEFAULT);
    put_system(&w, r->messages);
    rc = put_messages(&w, t, r->messages, e);
    if (!rc) rc = put_tools(&w, t, r, e);
    if (rc) return rc;
    put_sampling(&w, r);
    if (r->stream) jw_kbool(&w, "stream", true);
    jw_obj_end(&w);
    return buf_check(out, "a request to a provider", e);
}
