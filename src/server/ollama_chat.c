/* The dialects of POST /api/chat and POST /api/generate of Ollama's API. */
#include "server/internal.h"
#include "server/ollama.h"

#include "base/mem.h"
#include "base/sys.h"

#include <inttypes.h>
#include <string.h>

#define CALLS_MAX 128 /* of one message */

/* ---- messages ---------------------------------------------------------------------------------------------- */

/* The calls that the messages after an assistant's answer. Ollama's messages name a tool at most; templates and other
 * servers want the call. */
typedef struct pending {
    char id[CALLS_MAX][48];
    const char *name[CALLS_MAX];
    bool answered[CALLS_MAX];
    int n;
} pending;

static err_code check_message(const cJSON *m, int index, err *e) {
    static const char *const known[] = {"role",       "content",   "thinking",     "images",
                                        "tool_calls", "tool_name", "tool_call_id", NULL};
    const cJSON *f;
    if (!cJSON_IsObject(m)) return err_set(e, ERR_INVALID, "messages[%d] must be an object", index);
    cJSON_ArrayForEach(f, m) {
        const char *const *k = known;
        if (cJSON_IsNull(f)) continue;
        while (*k && strcmp(*k, f->string) != 0) k++;
        if (!*k) return err_set(e, ERR_INVALID, "messages[%d] has an unknown field '%.60s'", index, f->string);
        bool list = strcmp(*k, "images") == 0 || strcmp(*k, "tool_calls") == 0;
        if (list ? !cJSON_IsArray(f) : !cJSON_IsString(f))
            return err_set(e, ERR_INVALID, "messages[%d].%s must be %s", index, *k, list ? "an array" : "a string");
    }
    if (json_get(m, "images") && json_get(m, "images")->child)
        return err_set(e, ERR_UNSUPPORTED,
                       "messages[%d].images are not supported: only text can be looked at before it is answered",
                       index);
    return ERR_OK;
}

static const char *read_role(const cJSON *m) {
    static const char *const roles[] = {"system", "user", "assistant", "tool", NULL};
    const cJSON *r = json_get(m, "role");
    for (const char *const *k = roles; r && *k; k++)
        if (strcmp(*k, r->valuestring) == 0) return *k;
    return NULL;
}

/* One call in OpenAI's form, which the templates know: the arguments as text. */
static err_code put_call(cJSON *list, const cJSON *c, int index, pending *p, err *e) {
    const cJSON *f = cJSON_IsObject(c) ? json_get(c, "function") : NULL;
    const cJSON *name = cJSON_IsObject(f) ? json_get(f, "name") : NULL, *args = f ? json_get(f, "arguments") : NULL;
    const cJSON *id = cJSON_IsObject(c) ? json_get(c, "id") : NULL;
    if (!cJSON_IsString(name) || (args && !cJSON_IsObject(args)))
        return err_set(e, ERR_INVALID,
                       "messages[%d].tool_calls[%d] must have a function with a name and arguments that are an object",
                       index, p->n);
    if (id && (!cJSON_IsString(id) || !id->valuestring[0] || strlen(id->valuestring) >= sizeof p->id[0]))
        return err_set(e, ERR_INVALID, "messages[%d].tool_calls[%d].id must be a string of 1 to %zu bytes", index, p->n,
                       sizeof p->id[0] - 1);
    snprintf(p->id[p->n], sizeof p->id[0], "call_%d_%d", index, p->n);
    if (id) snprintf(p->id[p->n], sizeof p->id[0], "%s", id->valuestring);
    p->name[p->n] = name->valuestring;
    char *text = args ? json_text(args) : NULL;
    cJSON *o = cJSON_CreateObject(), *of = o ? cJSON_AddObjectToObject(o, "function") : NULL;
    bool ok = of && (text || !args) && cJSON_AddStringToObject(o, "id", p->id[p->n]) &&
              cJSON_AddStringToObject(o, "type", "function") &&
              cJSON_AddStringToObject(of, "name", name->valuestring) &&
              cJSON_AddStringToObject(of, "arguments", text ? text : "{}") && cJSON_AddItemToArray(list, o);
    if (!ok) cJSON_Delete(o);
    mem_free(text);
    p->n++;
    return ok ? ERR_OK : err_nomem(e, "the messages");
}

static err_code read_assistant(const cJSON *m, int index, cJSON *to, pending *p, err *e) {
    const cJSON *calls = json_get(m, "tool_calls"), *thinking = json_get(m, "thinking"), *c;
    *p = (pending){.n = 0};
    if (calls && cJSON_GetArraySize(calls) > CALLS_MAX)
        return err_set(e, ERR_INVALID, "messages[%d].tool_calls has more than %d calls", index, CALLS_MAX);
    cJSON *asked = cJSON_CreateObject(), *list = asked ? cJSON_AddArrayToObject(asked, "tool_calls") : NULL;
    bool ok = list && (!thinking || cJSON_AddStringToObject(asked, "reasoning_content", thinking->valuestring));
    err_code rc = ok ? ERR_OK : err_nomem(e, "the messages");
    cJSON_ArrayForEach(c, calls) {
        if (rc == ERR_OK) rc = put_call(list, c, index, p, e);
    }
    if (rc == ERR_OK) rc = openai_read_calls(asked, index, to, e);
    cJSON_Delete(asked);
    return rc;
}

/* Which call it answers: by its id, by its tool's name, or the first that has no answer yet. */
static err_code read_tool(const cJSON *m, int index, cJSON *to, pending *p, err *e) {
    const cJSON *name = json_get(m, "tool_name"), *id = json_get(m, "tool_call_id");
    int k = 0;
    while (k < p->n && (p->answered[k] || (id && strcmp(id->valuestring, p->id[k]) != 0) ||
                        (!id && name && strcmp(name->valuestring, p->name[k]) != 0)))
        k++;
    if (k == p->n)
        return err_set(e, ERR_INVALID,
                       "messages[%d] answers no call: an assistant's message with such a call in its tool_calls must "
                       "come before it",
                       index);
    p->answered[k] = true;
    bool ok = cJSON_AddStringToObject(to, "tool_call_id", p->id[k]) && cJSON_AddStringToObject(to, "name", p->name[k]);
    return ok ? ERR_OK : err_nomem(e, "the messages");
}

static err_code read_message(answer *a, const cJSON *m, int index, pending *p, err *e) {
    err_code rc = check_message(m, index, e);
    if (rc != ERR_OK) return rc;
    const char *who = read_role(m);
    const cJSON *content = json_get(m, "content"), *calls = json_get(m, "tool_calls");
    if (!who) return err_set(e, ERR_INVALID, "messages[%d].role must be system, user, assistant or tool", index);
    bool assistant = strcmp(who, "assistant") == 0, tool = strcmp(who, "tool") == 0;
    if (!assistant && ((calls && calls->child) || json_get(m, "thinking")))
        return err_set(e, ERR_INVALID, "messages[%d]: only messages of an assistant have tool_calls and thinking",
                       index);
    if (!tool && (json_get(m, "tool_name") || json_get(m, "tool_call_id")))
        return err_set(e, ERR_INVALID, "messages[%d]: only messages of a tool have tool_name and tool_call_id", index);
    if (!content && !assistant) return err_set(e, ERR_INVALID, "messages[%d].content is missing", index);
    cJSON *to = cJSON_CreateObject();
    if (!to || !cJSON_AddItemToArray(a->messages, to)) {
        cJSON_Delete(to);
        return err_nomem(e, "the messages");
    }
    if (!cJSON_AddStringToObject(to, "role", who) ||
        !cJSON_AddStringToObject(to, "content", content ? content->valuestring : ""))
        return err_nomem(e, "the messages");
    if (tool) return read_tool(m, index, to, p, e);
    if (assistant) return read_assistant(m, index, to, p, e);
    return ERR_OK;
}

static err_code take_messages(answer *a, const cJSON *v, err *e) {
    if (!cJSON_IsArray(v)) return err_set(e, ERR_INVALID, "'messages' must be an array");
    pending *p = mem_zalloc(sizeof *p);
    a->messages = p ? cJSON_CreateArray() : NULL;
    err_code rc = a->messages ? ERR_OK : err_nomem(e, "the messages");
    int index = 0;
    for (const cJSON *m = v->child; m && rc == ERR_OK; m = m->next) rc = read_message(a, m, index++, p, e);
    mem_free(p);
    return rc;
}

/* ---- other fields ------------------------------------------------------------------------------------------ */

static err_code take_format(answer *a, const cJSON *v, err *e) {
    if (cJSON_IsObject(v)) return openai_ask_schema(a, "format", v, e);
    const char *s = cJSON_IsString(v) ? v->valuestring : "yaml";
    if (!s[0]) return ERR_OK;
    if (strcmp(s, "json") != 0) return err_set(e, ERR_INVALID, "'format' must be \"json\" or a JSON schema: an object");
    cJSON *any = cJSON_CreateObject();
    bool ok = any && cJSON_AddStringToObject(any, "type", "object");
    err_code rc = ok ? openai_ask_schema(a, "format", any, e) : err_nomem(e, "the form of an answer");
    cJSON_Delete(any);
    return rc;
}

static err_code take_think(answer *a, const cJSON *v, err *e) {
    static const char *const levels[] = {"low", "medium", "high", NULL};
    if (cJSON_IsBool(v)) {
        a->r.reasoning_effort = cJSON_IsTrue(v) ? "medium" : "none";
        return ERR_OK;
    }
    for (const char *const *k = levels; cJSON_IsString(v) && *k; k++) {
        if (strcmp(*k, v->valuestring) != 0) continue;
        a->r.reasoning_effort = *k;
        return ERR_OK;
    }
    return err_set(e, ERR_INVALID, "'think' must be true, false, \"low\", \"medium\" or \"high\"");
}

static err_code take_logprobs(answer *a, const cJSON *v, err *e) {
    return json_get_bool(a->body, "logprobs", &a->r.want_logprobs, e);
}

static err_code take_top_logprobs(answer *a, const cJSON *v, err *e) {
    int64_t n = 0;
    err_code rc = openai_take_int(a, v, 0, SAMPLER_TOP_MAX, &n, e);
    a->r.n_top = (uint32_t)n;
    return rc;
}

/* Token ids of an earlier answer: they came from no text of this request, and nobody looks at them. */
static err_code refuse_context(answer *a, const cJSON *v, err *e) {
    if (cJSON_IsArray(v) && !v->child) return ERR_OK;
    return err_set(e, ERR_UNSUPPORTED,
                   "'context' holds token ids of an earlier answer, which cannot be looked at for what they say; send "
                   "the conversation to /api/chat");
}

static err_code take_text(answer *a, const cJSON *v, err *e) {
    return cJSON_IsString(v) ? ERR_OK : err_set(e, ERR_INVALID, "'%s' must be a string", v->string);
}

static err_code take_raw(answer *a, const cJSON *v, err *e) {
    return cJSON_IsBool(v) ? ERR_OK : err_set(e, ERR_INVALID, "'raw' must be true or false");
}

#define COMMON_FIELDS                                                                                       \
    {"model", vectors_common}, {"stream", vectors_common}, {"format", take_format}, {"think", take_think},  \
        {"options", ollama_take_options}, {"logprobs", take_logprobs}, {"top_logprobs", take_top_logprobs}, \
        {"truncate", ollama_no_truncation}, {"shift", ollama_no_truncation}, {                              \
        "keep_alive", NULL                                                                                  \
    }

static err_code take_max_output_tokens(answer *a, const cJSON *v, err *e) {
    return openai_take_int(a, v, 1, INT32_MAX, &a->r.max_tokens, e);
}

static const openai_field chat_fields[] = {
    COMMON_FIELDS,
    {"messages", take_messages},
    {"tools", openai_take_tools},
    /* Ollama has no such fields and overlooks them; clients that send them mean them */
    {"tool_choice", openai_take_tool_choice},
    {"temperature", openai_take_common},
    {"top_p", openai_take_common},
    {"max_output_tokens", take_max_output_tokens},
    {NULL, NULL},
};

static const openai_field generate_fields[] = {
    COMMON_FIELDS,
    {"prompt", take_text},
    {"system", take_text},
    {"raw", take_raw},
    {"images", ollama_refuse_images},
    {"context", refuse_context},
    {"template", openai_refuse_nonempty},
    {"suffix", openai_refuse_nonempty},
    {NULL, NULL},
};

static err_code fault(answer *a, const char *param) {
    snprintf(a->param, sizeof a->param, "%s", param);
    return ERR_INVALID;
}

static err_code read_fields(answer *a, const openai_field *fields, err *e) {
    err_code rc = ollama_begin(a, e);
    a->stream = true;
    if (rc == ERR_OK) rc = vectors_take_fields(a, fields, e);
    if (rc == ERR_OK && a->r.n_top && !a->r.want_logprobs) {
        err_set(e, ERR_INVALID, "'top_logprobs' is only for requests with 'logprobs': true");
        return fault(a, "top_logprobs");
    }
    a->r.parse = true;
    return rc;
}

static err_code chat_parse(answer *a, err *e) {
    err_code rc = read_fields(a, chat_fields, e);
    if (rc == ERR_OK) rc = openai_check_tools(a, e);
    if (rc != ERR_OK) return rc;
    if (!a->messages || !a->messages->child) {
        err_set(e, ERR_INVALID, "'messages' must have at least one message; models load by themselves");
        return fault(a, "messages");
    }
    a->r.messages = a->messages;
    return ERR_OK;
}

static bool add_message(answer *a, const char *who, const char *text) {
    cJSON *m = cJSON_CreateObject();
    bool ok = m && cJSON_AddStringToObject(m, "role", who) && cJSON_AddStringToObject(m, "content", text) &&
              cJSON_AddItemToArray(a->messages, m);
    if (!ok) cJSON_Delete(m);
    return ok;
}

static const char *text_of(const answer *a, const char *key) {
    const cJSON *v = json_get(a->body, key);
    return v && v->valuestring[0] ? v->valuestring : NULL;
}

static err_code generate_parse(answer *a, err *e) {
    err_code rc = read_fields(a, generate_fields, e);
    if (rc != ERR_OK) return rc;
    const char *prompt_text = text_of(a, "prompt"), *system = text_of(a, "system");
    if (!prompt_text) {
        err_set(e, ERR_INVALID, "'prompt' is missing or empty; models load by themselves");
        return fault(a, "prompt");
    }
    if (!cJSON_IsTrue(json_get(a->body, "raw"))) {
        a->messages = cJSON_CreateArray();
        bool ok = a->messages && (!system || add_message(a, "system", system)) && add_message(a, "user", prompt_text);
        a->r.messages = a->messages;
        return ok ? ERR_OK : err_nomem(e, "the messages");
    }
    if (system || a->r.reasoning_effort) {
        err_set(e, ERR_INVALID, "'raw' sends the prompt as it is, so it takes no 'system' and no 'think'");
        return fault(a, "raw");
    }
    a->r.parse = false;
    a->prompts = mem_array(1, sizeof *a->prompts);
    if (!a->prompts) return err_nomem(e, "the prompt");
    a->prompts[0].text = prompt_text;
    return ERR_OK;
}

/* ---- writing ----------------------------------------------------------------------------------------------- */

static void write_token(jw *w, const char *text, size_t n, float logprob) {
    jw_key(w, "token");
    jw_strn(w, text, n);
    jw_key(w, "logprob");
    openai_logprob(w, logprob);
    jw_key(w, "bytes");
    jw_arr(w);
    for (size_t i = 0; i < n; i++) jw_int(w, (unsigned char)text[i]);
    jw_arr_end(w);
}

/* JSON objects separated by commas */
static void write_tokens(const event *ev, buf *list) {
    for (size_t i = 0; i < ev->n_tokens; i++) {
        const token_info *t = &ev->tokens[i];
        jw w;
        if (list->len) buf_putc(list, ',');
        jw_init(&w, list);
        jw_obj(&w);
        write_token(&w, t->text, t->n_text, t->logprob);
        if (t->n_top) {
            jw_key(&w, "top_logprobs");
            jw_arr(&w);
            for (uint32_t k = 0; k < t->n_top; k++) {
                jw_obj(&w);
                write_token(&w, t->top[k].text, t->top[k].n_text, t->top[k].logprob);
                jw_obj_end(&w);
            }
            jw_arr_end(&w);
        }
        jw_obj_end(&w);
    }
}

static void chat_tokens(answer *a, choice *c, const event *ev) {
    write_tokens(ev, &c->parts[OPENAI_TOKENS]);
}

static void note_time(answer *a, const event *ev) {
    ollama_state *s = ollama_state_of(a);
    if (ev->kind != EV_TEXT && ev->kind != EV_RAW && ev->kind != EV_REASONING && ev->kind != EV_CALL_ARGS) return;
    s->last_ns = time_mono_ns();
    if (!s->first_ns) s->first_ns = s->last_ns;
}

/* The call under way is over: into `calls` as JSON; where its arguments are no object, into `text`, as a provider's
 * model wrote it. Line breaks between values become blanks: an answer is one line. */
static void end_call(answer *a, buf *calls, buf *text) {
    ollama_state *s = ollama_state_of(a);
    cJSON *v = NULL;
    if (!s->args.len) buf_puts(&s->args, "{}");
    calls->failed |= s->args.failed || s->name.failed;
    s->in_call = false;
    if (calls->failed) return;
    if (json_parse(&v, s->args.ptr, s->args.len, "arguments", NULL) != ERR_OK || !cJSON_IsObject(v)) {
        buf_printf(text, "%s %s", buf_str(&s->name), buf_str(&s->args));
        cJSON_Delete(v);
        return;
    }
    cJSON_Delete(v);
    for (size_t i = 0; i < s->args.len; i++)
        if (s->args.ptr[i] == '\n' || s->args.ptr[i] == '\r') s->args.ptr[i] = ' ';
    char id[64];
    jw w;
    snprintf(id, sizeof id, "call_%" PRIu64 "_%" PRIu32, a->record, s->n_calls);
    if (calls->len) buf_putc(calls, ',');
    jw_init(&w, calls);
    jw_obj(&w);
    jw_kstr(&w, "id", id);
    jw_key(&w, "function");
    jw_obj(&w);
    jw_kint(&w, "index", s->n_calls++);
    jw_key(&w, "name");
    jw_strn(&w, buf_str(&s->name), s->name.len);
    jw_key(&w, "arguments");
    jw_raw(&w, s->args.ptr, s->args.len);
    jw_obj_end(&w);
    jw_obj_end(&w);
}

/* True where the event was a call's. A call is told when it is whole, and never where it is cut off. */
static bool take_call(answer *a, const event *ev, buf *calls, buf *text) {
    ollama_state *s = ollama_state_of(a);
    switch (ev->kind) {
    case EV_CALL:
        buf_reset(&s->name);
        buf_reset(&s->args);
        buf_append(&s->name, ev->text, ev->len);
        s->in_call = true;
        return true;
    case EV_CALL_ARGS: buf_append(&s->args, ev->text, ev->len); return true;
    case EV_CALL_END:
        if (s->in_call) end_call(a, calls, text);
        return true;
    case EV_CALL_DROP: s->in_call = false; return true;
    default: return false;
    }
}

static void chat_collect(answer *a, choice *c, const event *ev) {
    note_time(a, ev);
    if (ev->kind == EV_REASONING) buf_append(&c->parts[OPENAI_REASONING], ev->text, ev->len);
    (void)take_call(a, ev, &c->parts[OPENAI_CALLS], &c->text);
}

typedef struct line { /* of an answer; what is NULL is left out */
    const buf *text, *thinking, *calls, *tokens;
} line;

static void write_members(jw *w, bool chat, const line *l) {
    if (chat) jw_kstr(w, "role", "assistant");
    jw_key(w, chat ? "content" : "response");
    jw_strn(w, l->text ? buf_str(l->text) : "", l->text ? l->text->len : 0);
    if (l->thinking && l->thinking->len) {
        jw_key(w, "thinking");
        jw_strn(w, l->thinking->ptr, l->thinking->len);
    }
    if (!l->calls || !l->calls->len) return;
    jw_key(w, "tool_calls");
    jw_arr(w);
    jw_raw(w, l->calls->ptr, l->calls->len);
    jw_arr_end(w);
}

static void write_line(answer *a, const line *l, bool done, buf *out) {
    bool chat = a->d == &dialect_ollama_chat;
    const choice *c = &a->choices[0];
    jw w;
    jw_init(&w, out);
    jw_obj(&w);
    ollama_head(&w, a);
    if (chat) {
        jw_key(&w, "message");
        jw_obj(&w);
    }
    write_members(&w, chat, l);
    if (chat) jw_obj_end(&w);
    if (l->tokens && l->tokens->len) {
        jw_key(&w, "logprobs");
        jw_arr(&w);
        jw_raw(&w, l->tokens->ptr, l->tokens->len);
        jw_arr_end(&w);
    }
    jw_kbool(&w, "done", done);
    if (done) {
        jw_kstr(&w, "done_reason", strcmp(c->reason, "tool_calls") == 0 ? "stop" : c->reason);
        if (c->malformed) jw_kbool(&w, "malformed_tool_call", true);
        ollama_durations(&w, a);
    }
    jw_obj_end(&w);
}

static void chat_chunk(answer *a, const event *ev, buf *out) {
    buf text = {.max = ANSWER_BYTES_MAX}, calls = {.max = ANSWER_BYTES_MAX}, tokens = {.max = ANSWER_BYTES_MAX};
    line l = {.tokens = &tokens};
    bool done = ev->kind == EV_DONE;
    note_time(a, ev);
    if (take_call(a, ev, &calls, &text))
        l.text = &text, l.calls = &calls;
    else if (ev->kind == EV_TEXT || ev->kind == EV_REASONING)
        buf_append(&text, ev->text ? ev->text : "", ev->len);
    if (ev->kind == EV_TEXT) l.text = &text;
    if (ev->kind == EV_REASONING) l.thinking = &text;
    if (a->r.want_logprobs && (ev->kind == EV_TEXT || ev->kind == EV_RAW)) write_tokens(ev, &tokens);
    if (done || text.len || calls.len || tokens.len) {
        write_line(a, &l, done, out);
        buf_putc(out, '\n');
    }
    out->failed |= text.failed || calls.failed || tokens.failed;
    if (text.ptr) mem_wipe(text.ptr, text.len);
    if (calls.ptr) mem_wipe(calls.ptr, calls.len);
    buf_free(&text);
    buf_free(&calls);
    buf_free(&tokens);
}

static void chat_whole(answer *a, buf *out) {
    const choice *c = &a->choices[0];
    line l = {&c->text, &c->parts[OPENAI_REASONING], &c->parts[OPENAI_CALLS], &c->parts[OPENAI_TOKENS]};
    write_line(a, &l, true, out);
}

const dialect dialect_ollama_chat = {
    .name = "ollama.chat",
    .stream_type = "application/x-ndjson",
    .parse = chat_parse,
    .prepare = ollama_prepare,
    .chunk = chat_chunk,
    .tokens = chat_tokens,
    .collect = chat_collect,
    .whole = chat_whole,
    .fail = ollama_fail,
};

const dialect dialect_ollama_generate = {
    .name = "ollama.generate",
    .stream_type = "application/x-ndjson",
    .parse = generate_parse,
    .prepare = ollama_prepare,
    .chunk = chat_chunk,
    .tokens = chat_tokens,
    .collect = chat_collect,
    .whole = chat_whole,
    .fail = ollama_fail,
};
