/* The dialect of POST /v1/chat/completions. */
#include "server/internal.h"
#include "server/openai.h"

#include "base/mem.h"

#include <string.h>

#define WHOLE_USUAL 600u /* bytes of most answers beside their text */

/* ---- reading ----------------------------------------------------------------------------------------------- */

/* The text of a message: a string, or text parts joined by newlines. Other kinds of parts are named and refused. */
static err_code read_parts(const cJSON *parts, int index, buf *out, err *e) {
    const cJSON *p;
    bool first = true;
    cJSON_ArrayForEach(p, parts) {
        const char *type = NULL, *text = NULL;
        if (json_get_str(p, "type", &type, NULL) != ERR_OK || !type)
            return err_set(e, ERR_INVALID, "messages[%d].content: every part must be an object with a type", index);
        if (strcmp(type, "text") != 0)
            return err_set(e, ERR_UNSUPPORTED,
                           "messages[%d].content: parts of type \"%.40s\" are not supported, only text", index, type);
        if (json_get_str(p, "text", &text, NULL) != ERR_OK || !text)
            return err_set(e, ERR_INVALID, "messages[%d].content: a text part must have a string 'text'", index);
        if (!first) buf_putc(out, '\n');
        buf_puts(out, text);
        first = false;
    }
    return ERR_OK;
}

/* Adds the text to the message `to`. A plain string stays where it is: in the body, which lives as long as the
 * answer. */
static err_code take_content(const cJSON *m, bool may_be_empty, int index, cJSON *to, err *e) {
    const cJSON *c = json_get(m, "content");
    if (!cJSON_IsString(c) && !cJSON_IsArray(c) && (c || !may_be_empty))
        return err_set(e, ERR_INVALID, "messages[%d].content must be a string or an array of text parts", index);
    buf text;
    buf_init(&text, ANSWER_BYTES_MAX);
    bool stays = cJSON_IsString(c) && strlen(c->valuestring) <= ANSWER_BYTES_MAX;
    if (cJSON_IsString(c) && !stays) buf_puts(&text, c->valuestring); /* refused as parts of that length are */
    err_code rc = cJSON_IsArray(c) ? read_parts(c, index, &text, e) : ERR_OK;
    if (rc == ERR_OK) rc = buf_check(&text, "a message", e);
    if (rc == ERR_OK) {
        cJSON *v = stays ? cJSON_CreateStringReference(c->valuestring) : cJSON_CreateString(buf_str(&text));
        if (!v || !cJSON_AddItemToObject(to, "content", v)) {
            cJSON_Delete(v);
            rc = err_nomem(e, "the messages");
        }
    }
    buf_free(&text);
    return rc;
}

static err_code check_message_keys(const cJSON *m, int index, err *e) {
    static const char *const known[] = {
        "role", "content", "name", "tool_call_id", "annotations", "tool_calls", "reasoning_content", "reasoning", NULL};
    const cJSON *f;
    cJSON_ArrayForEach(f, m) {
        if (cJSON_IsNull(f)) continue;
        const char *k = f->string;
        bool empty = (cJSON_IsArray(f) || cJSON_IsObject(f)) && !f->child;
        if (strcmp(k, "function_call") == 0 || strcmp(k, "audio") == 0 || strcmp(k, "refusal") == 0) {
            if (empty) continue;
            return err_set(e, ERR_UNSUPPORTED, "messages[%d].%s is not supported", index, k);
        }
        const char *const *q = known;
        while (*q && strcmp(*q, k) != 0) q++;
        if (!*q) return err_set(e, ERR_INVALID, "messages[%d] has an unknown field '%.60s'", index, k);
        bool text = strcmp(k, "name") == 0 || strcmp(k, "tool_call_id") == 0;
        if (text && !cJSON_IsString(f)) return err_set(e, ERR_INVALID, "messages[%d].%s must be a string", index, k);
    }
    return ERR_OK;
}

/* The role that templates know. */
static const char *read_role(const cJSON *m) {
    static const char *const roles[] = {"system", "user", "assistant", "tool", NULL};
    const cJSON *r = json_get(m, "role");
    if (!cJSON_IsString(r)) return NULL;
    if (strcmp(r->valuestring, "developer") == 0) return "system"; /* OpenAI's newer word for the same */
    for (const char *const *k = roles; *k; k++)
        if (strcmp(*k, r->valuestring) == 0) return *k;
    return NULL;
}

static bool add_optional(cJSON *to, const cJSON *m, const char *key) {
    const cJSON *v = json_get(m, key);
    return !v || cJSON_AddStringToObject(to, key, v->valuestring);
}

static err_code read_message(answer *a, const cJSON *m, int index, err *e) {
    if (!cJSON_IsObject(m)) return err_set(e, ERR_INVALID, "messages[%d] must be an object", index);
    const char *who = read_role(m);
    if (!who)
        return err_set(e, ERR_INVALID, "messages[%d].role must be system, developer, user, assistant or tool", index);
    err_code rc = check_message_keys(m, index, e);
    if (rc != ERR_OK) return rc;
    bool assistant = strcmp(who, "assistant") == 0;
    if (!assistant && json_get(m, "tool_calls"))
        return err_set(e, ERR_INVALID, "messages[%d].tool_calls: only messages of an assistant have them", index);
    if (strcmp(who, "tool") == 0 && !json_get(m, "tool_call_id"))
        return err_set(e, ERR_INVALID, "messages[%d].tool_call_id is missing: it names the call that is answered",
                       index);
    cJSON *to = cJSON_CreateObject();
    bool ok = to && cJSON_AddItemToArray(a->messages, to);
    if (!ok) cJSON_Delete(to);
    ok = ok && cJSON_AddStringToObject(to, "role", who);
    if (ok) rc = take_content(m, assistant, index, to, e);
    ok = ok && rc == ERR_OK && add_optional(to, m, "name") && add_optional(to, m, "tool_call_id");
    if (!ok) return rc != ERR_OK ? rc : err_nomem(e, "the messages");
    return assistant ? openai_read_calls(m, index, to, e) : ERR_OK;
}

static err_code take_messages(answer *a, const cJSON *v, err *e) {
    if (!cJSON_IsArray(v) || !v->child)
        return err_set(e, ERR_INVALID, "'messages' must be an array of at least one message");
    a->messages = cJSON_CreateArray();
    if (!a->messages) return err_nomem(e, "the messages");
    int index = 0;
    const cJSON *m;
    cJSON_ArrayForEach(m, v) {
        err_code rc = read_message(a, m, index++, e);
        if (rc != ERR_OK) return rc;
    }
    a->r.messages = a->messages;
    return ERR_OK;
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

static err_code take_max_completion_tokens(answer *a, const cJSON *v, err *e) {
    int64_t n = 0, other = -1;
    err_code rc = openai_take_int(a, v, 1, INT32_MAX, &n, e);
    if (rc == ERR_OK) rc = json_get_int(a->body, "max_tokens", 0, INT32_MAX, &other, e);
    if (rc == ERR_OK && other >= 0 && other != n)
        return err_set(e, ERR_INVALID,
                       "'max_completion_tokens' and 'max_tokens' are the same limit and differ: give one");
    if (rc == ERR_OK) a->r.max_tokens = n;
    return rc;
}

static err_code take_modalities(answer *a, const cJSON *v, err *e) {
    const cJSON *m;
    bool ok = cJSON_IsArray(v);
    cJSON_ArrayForEach(m, v) ok = ok && cJSON_IsString(m) && strcmp(m->valuestring, "text") == 0;
    return ok ? ERR_OK : err_set(e, ERR_UNSUPPORTED, "'modalities': only [\"text\"] is supported");
}

static const openai_field chat_fields[] = {
    {"messages", take_messages},
    {"logprobs", take_logprobs},
    {"top_logprobs", take_top_logprobs},
    {"max_completion_tokens", take_max_completion_tokens},
    {"tools", openai_take_tools},
    {"tool_choice", openai_take_tool_choice},
    {"parallel_tool_calls", openai_take_parallel},
    {"functions", openai_refuse_functions},
    {"function_call", openai_refuse_functions},
    {"chat_template_kwargs", openai_take_template_args},
    {"reasoning_effort", openai_take_effort},
    {"modalities", take_modalities},
    {"store", openai_refuse_true},
    {"audio", openai_refuse},
    {"verbosity", openai_refuse},
    {"web_search_options", openai_refuse},
    /* they ask how the answer is made or billed, not for another answer */
    {"prediction", NULL},
    {"service_tier", NULL},
    {"prompt_cache_key", NULL},
    {"prompt_cache_retention", NULL},
    {"safety_identifier", NULL},
    {NULL, NULL},
};

static err_code chat_fault(answer *a, const char *param) {
    snprintf(a->param, sizeof a->param, "%s", param);
    return ERR_INVALID;
}

static err_code chat_parse(answer *a, err *e) {
    err_code rc = openai_take_fields(a, chat_fields, e);
    if (rc == ERR_OK) rc = openai_check_common(a, e);
    if (rc == ERR_OK) rc = openai_check_tools(a, e);
    if (rc != ERR_OK) return rc;
    a->r.parse = true;
    if (!a->messages) {
        err_set(e, ERR_INVALID, "'messages' is missing");
        return chat_fault(a, "messages");
    }
    if (a->r.max_tokens == 0) {
        err_set(e, ERR_INVALID, "'max_tokens' must be at least 1");
        return chat_fault(a, "max_tokens");
    }
    if (a->r.n_top && !a->r.want_logprobs) {
        err_set(e, ERR_INVALID, "'top_logprobs' is only for requests with 'logprobs': true");
        return chat_fault(a, "top_logprobs");
    }
    return ERR_OK;
}

/* ---- writing ----------------------------------------------------------------------------------------------- */

static void write_head(jw *w, const answer *a, const char *object) {
    char id[sizeof "chatcmpl-" + U64_TEXT] = "chatcmpl-";
    text_u64(id + sizeof "chatcmpl-" - 1, a->record);
    jw_kstr(w, "id", id);
    jw_kstr(w, "object", object);
    jw_kint(w, "created", a->created_unix_s);
    jw_kstr(w, "model", a->r.model);
    jw_kstr(w, "system_fingerprint", a->fingerprint);
}

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

static void write_token_info(jw *w, const token_info *t) {
    jw_obj(w);
    write_token(w, t->text, t->n_text, t->logprob);
    jw_key(w, "top_logprobs");
    jw_arr(w);
    for (uint32_t k = 0; k < t->n_top; k++) {
        jw_obj(w);
        write_token(w, t->top[k].text, t->top[k].n_text, t->top[k].logprob);
        jw_obj_end(w);
    }
    jw_arr_end(w);
    jw_obj_end(w);
}

/* JSON objects separated by commas */
static void chat_tokens(answer *a, choice *c, const event *ev) {
    buf *list = &c->parts[OPENAI_TOKENS];
    for (size_t i = 0; i < ev->n_tokens; i++) {
        jw w;
        if (list->len) buf_putc(list, ',');
        jw_init(&w, list);
        write_token_info(&w, &ev->tokens[i]);
    }
}

static void begin_chunk(jw *w, const answer *a, buf *out) {
    openai_event_begin(out);
    jw_init(w, out);
    jw_obj(w);
    write_head(w, a, "chat.completion.chunk");
    jw_key(w, "choices");
    jw_arr(w);
}

static void end_chunk(jw *w, const answer *a, buf *out) {
    jw_arr_end(w);
    if (a->include_usage) {
        jw_key(w, "usage");
        jw_null(w);
    }
    jw_obj_end(w);
    openai_event_end(out);
}

static void write_role_chunks(answer *a, buf *out) {
    for (uint32_t i = 0; i < a->r.n_choices; i++) {
        jw w;
        begin_chunk(&w, a, out);
        jw_obj(&w);
        jw_kint(&w, "index", i);
        jw_key(&w, "delta");
        jw_obj(&w);
        jw_kstr(&w, "role", "assistant");
        jw_kstr(&w, "content", "");
        jw_obj_end(&w);
        jw_kstr(&w, "finish_reason", NULL);
        jw_obj_end(&w);
        end_chunk(&w, a, out);
    }
}

static void write_delta(jw *w, answer *a, const event *ev) {
    switch (ev->kind) {
    case EV_TEXT:
    case EV_REASONING:
        jw_key(w, ev->kind == EV_TEXT ? "content" : "reasoning_content");
        jw_strn(w, ev->text ? ev->text : "", ev->len);
        break;
    case EV_CALL:
    case EV_CALL_ARGS: openai_call_delta(w, a, answer_choice_index(a, ev), answer_choice(a, ev), ev); break;
    default: break;
    }
}

static void write_event_chunk(answer *a, const event *ev, buf *out) {
    bool tokens = (ev->kind == EV_TEXT || ev->kind == EV_RAW) && ev->n_tokens;
    jw w;
    begin_chunk(&w, a, out);
    jw_obj(&w);
    jw_kint(&w, "index", ev->choice);
    jw_key(&w, "delta");
    jw_obj(&w);
    write_delta(&w, a, ev);
    jw_obj_end(&w);
    if (a->r.want_logprobs && tokens) {
        jw_key(&w, "logprobs");
        jw_obj(&w);
        jw_key(&w, "content");
        jw_arr(&w);
        for (size_t i = 0; i < ev->n_tokens; i++) write_token_info(&w, &ev->tokens[i]);
        jw_arr_end(&w);
        jw_kstr(&w, "refusal", NULL);
        jw_obj_end(&w);
    }
    jw_kstr(&w, "finish_reason", ev->kind == EV_FINISH ? ev->reason : NULL);
    if (ev->kind == EV_FINISH && ev->malformed) jw_kbool(&w, "malformed_tool_call", true);
    jw_obj_end(&w);
    end_chunk(&w, a, out);
}

static void chat_chunk(answer *a, const event *ev, buf *out) {
    jw w;
    switch (ev->kind) {
    case EV_ADMITTED: write_role_chunks(a, out); break;
    case EV_TEXT:
        if (ev->len || ev->n_tokens) write_event_chunk(a, ev, out);
        break;
    case EV_RAW: /* its tokens only: what it says comes in the events after it */
        if (a->r.want_logprobs && ev->n_tokens) write_event_chunk(a, ev, out);
        break;
    case EV_REASONING:
    case EV_CALL:
    case EV_CALL_ARGS:
    case EV_FINISH: write_event_chunk(a, ev, out); break;
    case EV_VECTOR: /* of other requests */
    case EV_CALL_END:
    case EV_CALL_DROP: break; /* the text of a dropped call follows, and its finish reason says it */
    case EV_DONE:
        if (a->include_usage) {
            openai_event_begin(out);
            jw_init(&w, out);
            jw_obj(&w);
            write_head(&w, a, "chat.completion.chunk");
            jw_key(&w, "choices");
            jw_arr(&w);
            jw_arr_end(&w);
            openai_usage(&w, a);
            jw_obj_end(&w);
            openai_event_end(out);
        }
        openai_stream_end(out);
        break;
    }
}

static void write_choice(jw *w, const answer *a, uint32_t index) {
    const choice *c = &a->choices[index];
    jw_obj(w);
    jw_kint(w, "index", index);
    jw_key(w, "message");
    jw_obj(w);
    jw_kstr(w, "role", "assistant");
    const buf *reasoning = &c->parts[OPENAI_REASONING], *calls = &c->parts[OPENAI_CALLS];
    jw_key(w, "content");
    if (calls->len && !c->text.len)
        jw_null(w);
    else
        jw_strn(w, buf_str(&c->text), c->text.len);
    if (reasoning->len) {
        jw_key(w, "reasoning_content");
        jw_strn(w, buf_str(reasoning), reasoning->len);
    }
    jw_kstr(w, "refusal", NULL);
    if (calls->len) {
        jw_key(w, "tool_calls");
        jw_arr(w);
        jw_raw(w, calls->ptr, calls->len);
        jw_arr_end(w);
    }
    jw_obj_end(w);
    jw_key(w, "logprobs");
    if (a->r.want_logprobs) {
        jw_obj(w);
        jw_key(w, "content");
        jw_arr(w);
        if (c->parts[OPENAI_TOKENS].len) jw_raw(w, c->parts[OPENAI_TOKENS].ptr, c->parts[OPENAI_TOKENS].len);
        jw_arr_end(w);
        jw_kstr(w, "refusal", NULL);
        jw_obj_end(w);
    } else {
        jw_null(w);
    }
    jw_kstr(w, "finish_reason", c->reason);
    if (c->malformed) jw_kbool(w, "malformed_tool_call", true);
    jw_obj_end(w);
}

static void chat_whole(answer *a, buf *out) {
    jw w;
    (void)buf_reserve(out, WHOLE_USUAL + (a->n_choices ? a->choices[0].text.len : 0));
    jw_init(&w, out);
    jw_obj(&w);
    write_head(&w, a, "chat.completion");
    jw_key(&w, "choices");
    jw_arr(&w);
    for (uint32_t i = 0; i < a->n_choices; i++) write_choice(&w, a, i);
    jw_arr_end(&w);
    openai_usage(&w, a);
    jw_obj_end(&w);
}

const dialect dialect_openai_chat = {
    .name = "openai.chat",
    .stream_type = "text/event-stream; charset=utf-8",
    .parse = chat_parse,
    .chunk = chat_chunk,
    .tokens = chat_tokens,
    .collect = openai_collect,
    .whole = chat_whole,
    .fail = openai_fail,
};
