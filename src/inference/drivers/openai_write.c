/* Bodies and paths in OpenAI's form.
 *
 * A request has no trace of whether its client set a value of sampling or not, so what equals polder's default
 * (temperature 1, top_p 1, no penalties) is not sent, and the provider's own default holds then.
 * Of earlier turns the reasoning is not sent: the form has no place for it, and models are not shown it again. */
#include "inference/drivers/body.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

#define BODY_USUAL 2000u /* bytes that most bodies fit into */

#define AZURE_VERSION "2024-10-21"
/* the first of Azure's that know max_completion_tokens and stream_options */
#define AZURE_NEWER "2024-09"

/* Servers of this form that refuse fields which others ask for, by their hosts. */
typedef struct dialect_quirks {
    bool new_limit;    /* max_completion_tokens in place of max_tokens, which its newer models refuse */
    bool always_usage; /* tells the usage of a stream unasked, and refuses to be asked */
    bool random_seed;  /* "random_seed" in place of "seed" */
    bool azure;
} dialect_quirks;

static bool host_is(const char *url, const char *host) {
    const char *h = strstr(url, "://");
    h = h ? h + 3 : url;
    size_t n = strcspn(h, ":/?"), m = strlen(host);
    return n == m ? memcmp(h, host, m) == 0 : n > m && h[n - m - 1] == '.' && memcmp(h + n - m, host, m) == 0;
}

static bool is_azure(const upstream_target *t) {
    return t->form && strcmp(t->form, "azure") == 0;
}

static const char *azure_version(const upstream_target *t) {
    return t->api_version && *t->api_version ? t->api_version : AZURE_VERSION;
}

static dialect_quirks quirks_of(const upstream_target *t) {
    dialect_quirks q = {.azure = is_azure(t)};
    q.new_limit = host_is(t->url, "api.openai.com") || (q.azure && strcmp(azure_version(t), AZURE_NEWER) >= 0);
    q.always_usage = host_is(t->url, "mistral.ai") || (q.azure && strcmp(azure_version(t), AZURE_NEWER) < 0);
    q.random_seed = host_is(t->url, "mistral.ai");
    return q;
}

void openai_path(const driver_call *c, const upstream_target *t, buf *out) {
    const char *what = c->r->embed ? "/embeddings" : c->r->messages ? "/chat/completions" : "/completions";
    if (is_azure(t)) {
        buf_puts(out, "/openai/deployments/");
        body_put_escaped(out, t->model);
    }
    buf_puts(out, what);
    if (is_azure(t)) {
        buf_puts(out, "?api-version=");
        body_put_escaped(out, azure_version(t));
    }
}

/* ---- messages ---------------------------------------------------------------------------------------------- */

static void put_call(jw *w, const cJSON *c) {
    const cJSON *f = json_get(c, "function"), *id = json_get(c, "id");
    const cJSON *name = f ? json_get(f, "name") : NULL, *args = f ? json_get(f, "arguments") : NULL;
    jw_obj(w);
    jw_kstr(w, "id", cJSON_IsString(id) ? id->valuestring : "");
    jw_kstr(w, "type", "function");
    jw_key(w, "function");
    jw_obj(w);
    jw_kstr(w, "name", cJSON_IsString(name) ? name->valuestring : "");
    jw_key(w, "arguments");
    if (cJSON_IsObject(args)) { /* as a string of JSON in any case */
        char *text = json_text(args);
        if (!text) w->out->failed = true;
        jw_str(w, text ? text : "");
        mem_free(text);
    } else {
        jw_str(w, cJSON_IsString(args) ? args->valuestring : "{}");
    }
    jw_obj_end(w);
    jw_obj_end(w);
}

static err_code put_message(jw *w, const upstream_target *t, const cJSON *m, err *e) {
    static const char *const copied[] = {"name", "tool_call_id"};
    const cJSON *who = json_get(m, "role"), *content = json_get(m, "content"), *calls = json_get(m, "tool_calls"), *c;
    err_code rc = body_check_content(t, content, e);
    if (rc) return rc;
    bool any = cJSON_IsArray(calls) && calls->child;
    jw_obj(w);
    jw_kstr(w, "role", cJSON_IsString(who) ? who->valuestring : "user");
    jw_key(w, "content");
    if (any && (!content || (cJSON_IsString(content) && !content->valuestring[0])))
        jw_null(w);
    else if (content)
        body_put_tree(w, content);
    else
        jw_str(w, "");
    for (size_t i = 0; i < 2; i++) {
        const cJSON *v = json_get(m, copied[i]);
        if (cJSON_IsString(v)) jw_kstr(w, copied[i], v->valuestring);
    }
    if (any) {
        jw_key(w, "tool_calls");
        jw_arr(w);
        cJSON_ArrayForEach(c, calls) put_call(w, c);
        jw_arr_end(w);
    }
    jw_obj_end(w);
    return ERR_OK;
}

static err_code put_messages(jw *w, const upstream_target *t, const cJSON *messages, err *e) {
    const cJSON *m;
    err_code rc = ERR_OK;
    jw_key(w, "messages");
    jw_arr(w);
    cJSON_ArrayForEach(m, messages) {
        if (!rc) rc = put_message(w, t, m, e);
    }
    jw_arr_end(w);
    return rc;
}

/* ---- tools ------------------------------------------------------------------------------------------------- */

static void put_tool(jw *w, const cJSON *tool, bool strict) {
    const cJSON *f = json_get(tool, "function"), *x;
    jw_obj(w);
    jw_kstr(w, "type", "function");
    jw_key(w, "function");
    jw_obj(w);
    cJSON_ArrayForEach(x, f) {
        if (cJSON_IsNull(x) || strcmp(x->string, "strict") == 0) continue;
        jw_key(w, x->string);
        body_put_tree(w, x);
    }
    if (strict && body_schema_is_closed(json_get(f, "parameters"))) jw_kbool(w, "strict", true);
    jw_obj_end(w);
    jw_obj_end(w);
}

static void put_tools(jw *w, const request *r) {
    const cJSON *t;
    if (!r->tools || !r->tools->child) return;
    jw_key(w, "tools");
    jw_arr(w);
    cJSON_ArrayForEach(t, r->tools) put_tool(w, t, r->tool_strict);
    jw_arr_end(w);
    if (r->tool_must && r->tool_only) {
        jw_key(w, "tool_choice");
        jw_obj(w);
        jw_kstr(w, "type", "function");
        jw_key(w, "function");
        jw_obj(w);
        jw_kstr(w, "name", r->tool_only);
        jw_obj_end(w);
        jw_obj_end(w);
    } else if (r->tool_must) {
        jw_kstr(w, "tool_choice", "required");
    }
    /* a named function is called once in any case, and some models refuse to be told */
    if (r->one_call && !r->tool_only) jw_kbool(w, "parallel_tool_calls", false);
}

/* ---- how it is answered ------------------------------------------------------------------------------------ */

static err_code put_form(jw *w, const request *r, err *e) {
    static const char any_object[] = "{\"type\":\"object\"}";
    if (r->grammar != GRAMMAR_JSON_SCHEMA) return ERR_OK;
    cJSON *schema = NULL;
    err_code rc = json_parse(&schema, r->grammar_source, r->grammar_len, "the answer's schema", e);
    if (rc) return rc;
    jw_key(w, "response_format");
    jw_obj(w);
    if (r->grammar_len == sizeof any_object - 1 && memcmp(r->grammar_source, any_object, r->grammar_len) == 0) {
        jw_kstr(w, "type", "json_object");
    } else {
        jw_kstr(w, "type", "json_schema");
        jw_key(w, "json_schema");
        jw_obj(w);
        jw_kstr(w, "name", "answer");
        jw_key(w, "schema");
        body_put_tree(w, schema);
        if (body_schema_is_closed(schema)) jw_kbool(w, "strict", true);
        jw_obj_end(w);
    }
    jw_obj_end(w);
    cJSON_Delete(schema);
    return ERR_OK;
}

static void put_sampling(jw *w, const driver_call *c, const dialect_quirks *q) {
    const sampler_params *s = &c->r->sampling;
    sampler_params def;
    sampler_params_default(&def);
    if (s->temperature != def.temperature) body_put_float(w, "temperature", s->temperature);
    if (s->top_p != def.top_p) body_put_float(w, "top_p", s->top_p);
    if (s->frequency_penalty != def.frequency_penalty) body_put_float(w, "frequency_penalty", s->frequency_penalty);
    if (s->presence_penalty != def.presence_penalty) body_put_float(w, "presence_penalty", s->presence_penalty);
    if (c->r->has_seed) jw_kint(w, q->random_seed ? "random_seed" : "seed", (int64_t)c->seed);
}

static void put_limits(jw *w, const driver_call *c, const dialect_quirks *q) {
    const request *r = c->r;
    bool newer = q->new_limit && r->messages;
    if (c->max_new || r->max_tokens == 0) jw_kint(w, newer ? "max_completion_tokens" : "max_tokens", c->max_new);
    if (r->n_choices > 1) jw_kint(w, "n", r->n_choices);
    if (!r->n_stops) return;
    jw_key(w, "stop");
    jw_arr(w);
    for (uint32_t i = 0; i < r->n_stops; i++) jw_str(w, r->stops[i]);
    jw_arr_end(w);
}

static void put_stream(jw *w, const request *r, const dialect_quirks *q) {
    if (!r->stream) return;
    jw_kbool(w, "stream", true);
    if (q->always_usage) return;
    jw_key(w, "stream_options");
    jw_obj(w);
    jw_kbool(w, "include_usage", true);
    jw_obj_end(w);
}

static void put_inputs(jw *w, const embed_request *q) {
    jw_key(w, "input");
    jw_arr(w);
    for (uint32_t i = 0; i < q->n_inputs; i++) jw_strn(w, q->inputs[i].text, q->inputs[i].len);
    jw_arr_end(w);
    if (q->dimensions) jw_kint(w, "dimensions", q->dimensions);
}

static err_code check(const driver_call *c, const upstream_target *t, err *e) {
    const request *r = c->r;
    err_code rc = body_check_common(c, e);
    if (rc) return rc;
    if (!r->embed && r->sampling.top_k != 0) return body_refuse(t, "top_k", e);
    if (!r->embed && r->has_seed && c->seed > INT64_MAX) return body_refuse(t, "a seed beyond 2^63 - 1", e);
    if (r->echo && r->messages) return body_refuse(t, "to repeat a conversation (echo)", e);
    for (uint32_t i = 0; r->embed && i < r->embed->n_inputs; i++)
        if (!r->embed->inputs[i].text)
            return body_refuse(t, "inputs of token ids: they belong to another tokenizer", e);
    if (!r->embed && !r->messages && (r->tools || r->grammar || r->reasoning_effort))
        return body_refuse(t, "about tools, a form or reasoning where the prompt is no conversation", e);
    return ERR_OK;
}

static err_code put_chat(jw *w, const driver_call *c, const upstream_target *t, const dialect_quirks *q, err *e) {
    const request *r = c->r;
    err_code rc = put_messages(w, t, r->messages, e);
    if (rc) return rc;
    put_tools(w, r);
    rc = put_form(w, r, e);
    if (rc) return rc;
    if (r->reasoning_effort) jw_kstr(w, "reasoning_effort", r->reasoning_effort);
    if (r->want_logprobs) jw_kbool(w, "logprobs", true);
    if (r->want_logprobs && r->n_top) jw_kint(w, "top_logprobs", r->n_top);
    return ERR_OK;
}

static void put_prompt(jw *w, const request *r) {
    jw_key(w, "prompt");
    jw_strn(w, r->text ? r->text : "", r->text_len);
    if (r->want_logprobs) jw_kint(w, "logprobs", r->n_top);
    if (r->echo) jw_kbool(w, "echo", true);
}

err_code openai_write(const driver_call *c, const upstream_target *t, buf *out, err *e) {
    dialect_quirks q = quirks_of(t);
    jw w;
    err_code rc = check(c, t, e);
    if (rc) return rc;
    (void)buf_reserve(out, BODY_USUAL);
    jw_init(&w, out);
    jw_obj(&w);
    if (!q.azure) jw_kstr(&w, "model", t->model);
    if (c->r->embed) {
        put_inputs(&w, c->r->embed);
    } else {
        if (c->r->messages)
            rc = put_chat(&w, c, t, &q, e);
        else
            put_prompt(&w, c->r);
        put_sampling(&w, c, &q);
        put_limits(&w, c, &q);
        put_stream(&w, c->r, &q);
    }
    jw_obj_end(&w);
    return rc ? rc : buf_check(out, "a request to a provider", e);
}
