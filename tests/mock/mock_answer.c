/* What the mock answers. */
#include "mock_internal.h"

#include "base/bytes.h"
#include "base/json.h"
#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ANSWER_MAX ((size_t)64 << 20)
#define BIG_BYTES  ((size_t)80 << 20)

typedef enum form { FORM_CHAT, FORM_COMPLETION, FORM_EMBED, FORM_MESSAGES } form;

typedef struct ask {
    mock_conn *c;
    cJSON *body;
    form form;
    char model[MOCK_NAME_MAX], how[MOCK_NAME_MAX];
    bool stream, usage, logprobs;
    int n;
    size_t step; /* bytes of one event's text, at least; characters are kept whole */
    /* the answer */
    buf text, reasoning, args;
    const char *tool, *finish; /* finish in OpenAI's words */
    const char *stop;          /* the stop string that ended it */
} ask;

static const char *string_in(const cJSON *o, const char *key) {
    const cJSON *v = o ? json_get(o, key) : NULL;
    return cJSON_IsString(v) ? v->valuestring : NULL;
}

static bool how_is(const ask *a, const char *name) {
    return strcmp(a->how, name) == 0;
}

static int number_behind(const ask *a, const char *prefix) {
    size_t n = strlen(prefix);
    return strncmp(a->how, prefix, n) == 0 ? atoi(a->how + n) : 0;
}

/* ---- what it is asked -------------------------------------------------------------------------------------- */

static void add_content(buf *out, const cJSON *content) {
    const cJSON *p;
    if (cJSON_IsString(content)) buf_puts(out, content->valuestring);
    if (cJSON_IsArray(content)) cJSON_ArrayForEach(p, content) {
            const char *s = string_in(p, "text");
            if (s) buf_puts(out, s);
            if (json_get(p, "content")) add_content(out, json_get(p, "content"));
        }
}

/* The last user's text, or what a tool said after it. */
static void last_text(ask *a, buf *out) {
    const cJSON *list = json_get(a->body, "messages"), *m, *last = NULL;
    if (a->form == FORM_COMPLETION) {
        const char *s = string_in(a->body, "prompt");
        buf_puts(out, s ? s : "");
        return;
    }
    cJSON_ArrayForEach(m, list) {
        const char *who = string_in(m, "role");
        if (who && (strcmp(who, "user") == 0 || strcmp(who, "tool") == 0)) last = m;
    }
    buf_puts(out, "");
    if (last) add_content(out, json_get(last, "content"));
}

static void system_text(ask *a, buf *out) {
    const cJSON *list = json_get(a->body, "messages"), *m;
    if (json_get(a->body, "system")) add_content(out, json_get(a->body, "system"));
    cJSON_ArrayForEach(m, list) {
        const char *who = string_in(m, "role");
        if (who && strcmp(who, "system") == 0) add_content(out, json_get(m, "content"));
    }
}

static const char *first_tool(const ask *a) {
    const cJSON *list = json_get(a->body, "tools"), *t = list ? list->child : NULL;
    if (!t) return NULL;
    return a->form == FORM_MESSAGES ? string_in(t, "name") : string_in(json_get(t, "function"), "name");
}

/* Bytes of a "[WORD_12]" that stands at p; 0 where none does. */
static size_t placeholder_at(const char *p) {
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_";
    size_t n = 1 + strspn(p + 1, letters), digits = 0;
    while (digits + 1 < n && p[n - digits - 1] >= '0' && p[n - digits - 1] <= '9') digits++;
    return digits && p[n] == ']' && p[n - digits - 1] == '_' ? n + 1 : 0;
}

/* Every placeholder of the body, wherever it stands. */
static void placeholders(const ask *a, buf *out) {
    const char *p = buf_str(&a->c->body);
    buf_reset(out);
    buf_puts(out, "");
    while ((p = strchr(p, '[')) != NULL) {
        size_t n = placeholder_at(p);
        if (n && out->len) buf_putc(out, ' ');
        buf_append(out, p, n);
        p += n ? n : 1;
    }
}

static bool how_begins(const ask *a, const char *prefix) {
    return strncmp(a->how, prefix, strlen(prefix)) == 0;
}

static void put_text_object(buf *out, const buf *text) {
    jw w;
    jw_init(&w, out);
    jw_obj(&w);
    jw_kstr(&w, "text", buf_str(text));
    jw_obj_end(&w);
}

static void make_answer(ask *a) {
    buf text = {.max = ANSWER_MAX};
    size_t n = strlen(a->how);
    bool saw = how_begins(a, "placeholders");
    if (saw)
        placeholders(a, &text);
    else
        last_text(a, &text);
    a->finish = "stop";
    a->step = 16;
    if (n > 2 && strcmp(a->how + n - 2, "-1") == 0) a->step = 1;
    if (how_is(a, "echo-tcp1")) a->step = 1;
    a->c->one_byte = how_is(a, "echo-tcp1");
    if (how_is(a, "tool") || how_is(a, "tool-1") || how_begins(a, "placeholders-tool")) a->tool = first_tool(a);
    if (a->tool) {
        put_text_object(&a->args, &text);
        a->finish = "tool_calls";
    } else if (how_begins(a, "placeholders-json")) {
        put_text_object(&a->text, &text);
    } else if (saw || how_begins(a, "echo")) {
        buf_append(&a->text, buf_str(&text), text.failed ? 0 : text.len);
    } else if (how_begins(a, "system")) {
        system_text(a, &a->text);
    } else if (how_begins(a, "reasoning")) {
        buf_printf(&a->reasoning, "I think: %s", buf_str(&text));
        buf_printf(&a->text, "done: %s", buf_str(&text));
    } else if (how_is(a, "length")) {
        buf_puts(&a->text, "cut");
        a->finish = "length";
    } else if (how_is(a, "stop")) {
        const cJSON *list = json_get(a->body, a->form == FORM_MESSAGES ? "stop_sequences" : "stop");
        a->stop = list && cJSON_IsString(list->child) ? list->child->valuestring : NULL;
        buf_puts(&a->text, "until here");
    } else {
        buf_puts(&a->text, "Hello from the mock.");
    }
    buf_free(&text);
}

/* ---- pieces of JSON ---------------------------------------------------------------------------------------- */

static int words(const buf *b) {
    int n = 0;
    for (size_t i = 0; i < b->len; i++) n += b->ptr[i] == ' ';
    return b->len ? n + 1 : 0;
}

static void put_usage(jw *w, const ask *a) {
    int out = a->n * (words(&a->text) + words(&a->reasoning) + words(&a->args)), in = (int)(a->c->body.len / 4);
    jw_key(w, "usage");
    jw_obj(w);
    if (a->form == FORM_MESSAGES) {
        jw_kint(w, "input_tokens", in);
        jw_kint(w, "output_tokens", out);
    } else {
        jw_kint(w, "prompt_tokens", in);
        jw_kint(w, "completion_tokens", out);
        jw_kint(w, "total_tokens", in + out);
        jw_key(w, "completion_tokens_details");
        jw_obj(w);
        jw_kint(w, "reasoning_tokens", a->n * words(&a->reasoning));
        jw_obj_end(w);
    }
    jw_obj_end(w);
}

static void put_head(jw *w, const ask *a, const char *object) {
    jw_kstr(w, "id", "mock-1");
    jw_kstr(w, "object", object);
    jw_kint(w, "created", 1700000000);
    jw_kstr(w, "model", a->model);
}

/* One token for the whole text. */
static void put_logprobs(jw *w, const ask *a, const char *text, size_t n) {
    if (!a->logprobs) return;
    jw_key(w, "logprobs");
    jw_obj(w);
    jw_key(w, "content");
    jw_arr(w);
    for (int i = 0; i < 2; i++) {
        if (i) {
            jw_key(w, "top_logprobs");
            jw_arr(w);
        }
        jw_obj(w);
        jw_key(w, "token");
        jw_strn(w, text, n < 60 ? n : 60);
        jw_knum(w, "logprob", -0.5);
    }
    jw_obj_end(w);
    jw_arr_end(w);
    jw_obj_end(w);
    jw_arr_end(w);
    jw_obj_end(w);
}

static void put_call(jw *w, const ask *a, bool index, const char *args, size_t n) {
    jw_key(w, "tool_calls");
    jw_arr(w);
    jw_obj(w);
    if (index) jw_kint(w, "index", 0);
    if (!args || !index) {
        jw_kstr(w, "id", "call_mock_1");
        jw_kstr(w, "type", "function");
    }
    jw_key(w, "function");
    jw_obj(w);
    if (!args || !index) jw_kstr(w, "name", a->tool);
    jw_key(w, "arguments");
    jw_strn(w, args ? args : "", n);
    jw_obj_end(w);
    jw_obj_end(w);
    jw_arr_end(w);
}

/* ---- at once ----------------------------------------------------------------------------------------------- */

static void whole_openai(ask *a, jw *w) {
    bool chat = a->form == FORM_CHAT;
    put_head(w, a, chat ? "chat.completion" : "text_completion");
    jw_key(w, "choices");
    jw_arr(w);
    for (int i = 0; i < a->n && !how_is(a, "no-choices"); i++) {
        jw_obj(w);
        jw_kint(w, "index", i);
        if (chat) {
            jw_key(w, "message");
            jw_obj(w);
            jw_kstr(w, "role", "assistant");
            jw_kstr(w, "content", a->tool ? NULL : buf_str(&a->text));
            if (a->reasoning.len) jw_kstr(w, "reasoning_content", buf_str(&a->reasoning));
            if (a->tool) put_call(w, a, false, a->args.ptr, a->args.len);
            jw_obj_end(w);
            put_logprobs(w, a, buf_str(&a->text), a->text.len);
        } else {
            jw_kstr(w, "text", buf_str(&a->text));
        }
        jw_kstr(w, "finish_reason", a->finish);
        if (a->stop) jw_kstr(w, "stop_reason", a->stop); /* as vLLM says it */
        jw_obj_end(w);
    }
    jw_arr_end(w);
    put_usage(w, a);
}

static const char *stop_reason(const ask *a) {
    if (a->stop) return "stop_sequence";
    return a->tool ? "tool_use" : strcmp(a->finish, "length") == 0 ? "max_tokens" : "end_turn";
}

static void whole_messages(ask *a, jw *w) {
    jw_kstr(w, "id", "msg_mock_1");
    jw_kstr(w, "type", "message");
    jw_kstr(w, "role", "assistant");
    jw_kstr(w, "model", a->model);
    if (how_is(a, "no-choices")) return;
    jw_key(w, "content");
    jw_arr(w);
    if (a->reasoning.len) {
        jw_obj(w);
        jw_kstr(w, "type", "thinking");
        jw_kstr(w, "thinking", buf_str(&a->reasoning));
        jw_kstr(w, "signature", "c2lnbmVk");
        jw_obj_end(w);
    }
    jw_obj(w);
    jw_kstr(w, "type", a->tool ? "tool_use" : "text");
    if (a->tool) {
        jw_kstr(w, "id", "toolu_mock_1");
        jw_kstr(w, "name", a->tool);
        jw_key(w, "input");
        jw_raw(w, a->args.ptr, a->args.len);
    } else {
        jw_kstr(w, "text", buf_str(&a->text));
    }
    jw_obj_end(w);
    jw_arr_end(w);
    jw_kstr(w, "stop_reason", stop_reason(a));
    jw_kstr(w, "stop_sequence", a->stop);
    put_usage(w, a);
}

static bool answer_whole(ask *a) {
    buf out = {.max = ANSWER_MAX};
    jw w;
    jw_init(&w, &out);
    jw_obj(&w);
    if (a->form == FORM_MESSAGES)
        whole_messages(a, &w);
    else
        whole_openai(a, &w);
    jw_obj_end(&w);
    bool ok = !out.failed, cut = how_is(a, "cut-stream");
    if (ok && cut) {
        char head[128];
        int n = snprintf(head, sizeof head, "HTTP/1.1 200 Mock\r\nContent-Length: %zu\r\n\r\n", out.len);
        mock_send(a->c, head, (size_t)n);
        mock_send(a->c, out.ptr, out.len / 2);
        ok = false;
    } else if (ok) {
        ok = mock_reply(a->c, 200, "", out.ptr, out.len);
    }
    buf_free(&out);
    return ok;
}

/* ---- as a stream ------------------------------------------------------------------------------------------- */

static const char stream_header[] = "HTTP/1.1 200 Mock\r\nContent-Type: text/event-stream\r\n"
                                    "Transfer-Encoding: chunked\r\n\r\n";

static bool send_event(ask *a, const char *name, const buf *json) {
    buf b = {.max = ANSWER_MAX};
    if (name) buf_printf(&b, "event: %s\n", name);
    buf_puts(&b, "data: ");
    buf_append(&b, buf_str(json), json->failed ? 0 : json->len);
    buf_puts(&b, "\n\n");
    bool ok = !b.failed && !json->failed && mock_chunk(a->c, b.ptr, b.len);
    buf_free(&b);
    return ok;
}

static size_t piece_at(const char *p, size_t left, size_t step) {
    size_t n = 0;
    uint32_t cp;
    while (n < left && n < step) {
        int k = utf8_decode(&cp, p + n, left - n);
        n += k > 0 ? (size_t)k : 1;
    }
    return n;
}

typedef enum part { PART_ROLE, PART_REASONING, PART_TEXT, PART_CALL, PART_ARGS, PART_FINISH, PART_USAGE } part;

static void put_delta(jw *w, const ask *a, part what, const char *p, size_t n) {
    jw_key(w, "delta");
    jw_obj(w);
    if (what == PART_ROLE) jw_kstr(w, "role", "assistant");
    if (what == PART_REASONING || what == PART_TEXT) {
        jw_key(w, what == PART_TEXT ? "content" : "reasoning_content");
        jw_strn(w, p, n);
    }
    if (what == PART_CALL) put_call(w, a, true, NULL, 0);
    if (what == PART_ARGS) put_call(w, a, true, p, n);
    jw_obj_end(w);
    if (what == PART_TEXT) put_logprobs(w, a, p, n);
}

static bool openai_part(ask *a, int choice, part what, const char *p, size_t n) {
    bool chat = a->form == FORM_CHAT;
    buf out = {.max = ANSWER_MAX};
    jw w;
    if (!chat && what != PART_TEXT && what != PART_FINISH && what != PART_USAGE) return true;
    jw_init(&w, &out);
    jw_obj(&w);
    put_head(&w, a, chat ? "chat.completion.chunk" : "text_completion");
    jw_key(&w, "choices");
    jw_arr(&w);
    if (what != PART_USAGE) {
        jw_obj(&w);
        jw_kint(&w, "index", choice);
        if (chat) put_delta(&w, a, what, p, n);
        if (!chat) {
            jw_key(&w, "text");
            jw_strn(&w, p ? p : "", n);
        }
        jw_kstr(&w, "finish_reason", what == PART_FINISH ? a->finish : NULL);
        if (what == PART_FINISH && a->stop) jw_kstr(&w, "stop_reason", a->stop);
        jw_obj_end(&w);
    }
    jw_arr_end(&w);
    if (what == PART_USAGE) put_usage(&w, a);
    jw_obj_end(&w);
    bool ok = send_event(a, NULL, &out);
    buf_free(&out);
    return ok;
}

static bool message_event(ask *a, const char *name, int index, const char *key, const char *type, const char *field,
                          const char *p, size_t n) {
    buf out = {.max = ANSWER_MAX};
    jw w;
    jw_init(&w, &out);
    jw_obj(&w);
    jw_kstr(&w, "type", name);
    if (index >= 0) jw_kint(&w, "index", index);
    if (key) {
        jw_key(&w, key);
        jw_obj(&w);
        jw_kstr(&w, "type", type);
        if (strcmp(type, "tool_use") == 0) {
            jw_kstr(&w, "id", "toolu_mock_1");
            jw_kstr(&w, "name", a->tool);
            jw_key(&w, "input");
            jw_obj(&w);
            jw_obj_end(&w);
        } else {
            jw_key(&w, field);
            jw_strn(&w, p, n);
        }
        jw_obj_end(&w);
    }
    jw_obj_end(&w);
    bool ok = send_event(a, name, &out);
    buf_free(&out);
    return ok;
}

/* true: the stream goes on. What happens in the middle of one. */
static bool middle(ask *a) {
    int gap = number_behind(a, "gap-");
    if (gap) return mock_wait(a->c, gap);
    if (how_is(a, "hang-mid")) return mock_wait(a->c, 3600000) && false;
    if (how_is(a, "stream-error-late")) {
        static const char text[] = "data: {\"error\":{\"message\":\"it broke\",\"code\":503}}\n\n";
        static const char named[] = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\","
                                    "\"message\":\"it broke\"}}\n\n";
        bool other = a->form == FORM_MESSAGES;
        mock_chunk(a->c, other ? named : text, other ? sizeof named - 1 : sizeof text - 1);
        mock_send(a->c, "0\r\n\r\n", 5);
        return false;
    }
    return !how_is(a, "cut-stream");
}

static bool send_parts(ask *a, int choice, part what, const buf *text) {
    bool ok = true, mid = what == PART_TEXT && choice == 0;
    for (size_t i = 0; i < text->len && ok;) {
        size_t n = piece_at(text->ptr + i, text->len - i, a->step);
        ok = openai_part(a, choice, what, text->ptr + i, n);
        i += n;
        if (ok && mid) ok = middle(a);
        mid = false;
    }
    return ok;
}

static bool end_stream(ask *a, const char *mark) {
    if (how_is(a, "cut-clean")) return mock_send(a->c, "0\r\n\r\n", 5);
    if (!mock_chunk(a->c, mark, strlen(mark))) return false;
    if (how_is(a, "linger")) return mock_wait(a->c, 3600000) && false;
    return mock_send(a->c, "0\r\n\r\n", 5);
}

static bool stream_openai(ask *a) {
    bool ok = mock_send(a->c, stream_header, sizeof stream_header - 1);
    for (int i = 0; i < a->n && ok; i++) {
        ok = openai_part(a, i, PART_ROLE, NULL, 0) && send_parts(a, i, PART_REASONING, &a->reasoning) &&
             send_parts(a, i, PART_TEXT, &a->text);
        if (ok && a->tool) ok = openai_part(a, i, PART_CALL, NULL, 0) && send_parts(a, i, PART_ARGS, &a->args);
        ok = ok && openai_part(a, i, PART_FINISH, NULL, 0);
    }
    if (ok && a->usage) ok = openai_part(a, 0, PART_USAGE, NULL, 0);
    return ok && end_stream(a, "data: [DONE]\n\n");
}

static bool send_block(ask *a, int index, const char *type, const char *delta, const char *field, const buf *text) {
    bool ok = message_event(a, "content_block_start", index, "content_block", type, field, "", 0);
    bool mid = strcmp(type, "text") == 0;
    for (size_t i = 0; i < text->len && ok;) {
        size_t n = piece_at(text->ptr + i, text->len - i, a->step);
        ok = message_event(a, "content_block_delta", index, "delta", delta,
                           a->tool && strcmp(type, "tool_use") == 0 ? "partial_json" : field, text->ptr + i, n);
        i += n;
        if (ok && mid) ok = middle(a);
        mid = false;
    }
    return ok && message_event(a, "content_block_stop", index, NULL, NULL, NULL, NULL, 0);
}

static bool message_edge(ask *a, bool start) {
    buf out = {.max = ANSWER_MAX};
    jw w;
    jw_init(&w, &out);
    jw_obj(&w);
    jw_kstr(&w, "type", start ? "message_start" : "message_delta");
    jw_key(&w, start ? "message" : "delta");
    jw_obj(&w);
    if (start) {
        jw_kstr(&w, "id", "msg_mock_1");
        jw_kstr(&w, "type", "message");
        jw_kstr(&w, "role", "assistant");
        jw_kstr(&w, "model", a->model);
        jw_key(&w, "content");
        jw_arr(&w);
        jw_arr_end(&w);
        put_usage(&w, a);
    } else {
        jw_kstr(&w, "stop_reason", stop_reason(a));
        jw_kstr(&w, "stop_sequence", a->stop);
    }
    jw_obj_end(&w);
    if (!start) put_usage(&w, a);
    jw_obj_end(&w);
    bool ok = send_event(a, start ? "message_start" : "message_delta", &out);
    buf_free(&out);
    return ok;
}

static bool stream_messages(ask *a) {
    static const char ping[] = "event: ping\ndata: {\"type\": \"ping\"}\n\n";
    int at = 0;
    bool ok = mock_send(a->c, stream_header, sizeof stream_header - 1) && message_edge(a, true) &&
              mock_chunk(a->c, ping, sizeof ping - 1);
    if (ok && a->reasoning.len) ok = send_block(a, at++, "thinking", "thinking_delta", "thinking", &a->reasoning);
    if (ok && a->tool) ok = send_block(a, at++, "tool_use", "input_json_delta", "", &a->args);
    if (ok && a->text.len) ok = send_block(a, at, "text", "text_delta", "text", &a->text);
    return ok && message_edge(a, false) && end_stream(a, "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n");
}

/* ---- vectors ----------------------------------------------------------------------------------------------- */

static void put_vector(jw *w, const char *text, size_t n, int dimensions, bool bytes) {
    uint8_t digest[SHA256_LEN];
    buf raw = {.max = 1 << 20};
    sha256_of(digest, text, n);
    jw_key(w, "embedding");
    if (!bytes) jw_arr(w);
    for (int i = 0; i < dimensions; i++) {
        float v = (float)(digest[i % SHA256_LEN] - 128) / 128.0f;
        if (bytes)
            buf_append(&raw, &v, sizeof v);
        else
            jw_num(w, (double)v);
    }
    if (!bytes) jw_arr_end(w);
    if (bytes) {
        buf text64 = {.max = 2 << 20};
        base64_encode(&text64, raw.ptr, raw.len);
        jw_str(w, buf_str(&text64));
        buf_free(&text64);
    }
    buf_free(&raw);
}

static bool answer_vectors(ask *a) {
    const cJSON *input = json_get(a->body, "input"), *d = json_get(a->body, "dimensions"), *x;
    const char *format = string_in(a->body, "encoding_format");
    int dimensions = cJSON_IsNumber(d) ? (int)d->valuedouble : 8, i = 0;
    bool bytes = (format && strcmp(format, "base64") == 0) || how_is(a, "base64");
    buf out = {.max = ANSWER_MAX};
    jw w;
    jw_init(&w, &out);
    jw_obj(&w);
    jw_kstr(&w, "object", "list");
    jw_kstr(&w, "model", a->model);
    jw_key(&w, "data");
    jw_arr(&w);
    const cJSON *first = cJSON_IsArray(input) ? input->child : input;
    for (x = first; x; x = cJSON_IsArray(input) ? x->next : NULL, i++) {
        const char *s = cJSON_IsString(x) ? x->valuestring : "";
        jw_obj(&w);
        jw_kstr(&w, "object", "embedding");
        jw_kint(&w, "index", i);
        put_vector(&w, s, strlen(s), dimensions, bytes);
        jw_obj_end(&w);
    }
    jw_arr_end(&w);
    put_usage(&w, a);
    jw_obj_end(&w);
    bool ok = !out.failed && mock_reply(a->c, 200, "", out.ptr, out.len);
    buf_free(&out);
    return ok;
}

/* ---- faults ------------------------------------------------------------------------------------------------ */

static bool fail_with(ask *a, int status) {
    size_t n_auth = 0;
    const char *auth = mock_header(a->c, "authorization", &n_auth);
    if (!auth) auth = mock_header(a->c, "x-api-key", &n_auth);
    if (!auth) auth = mock_header(a->c, "api-key", &n_auth);
    buf out = {.max = 65536}, why = {.max = 32768};
    jw w;
    buf_printf(&why, "mock fails with %d; it was asked with %.*s", status, (int)n_auth, auth ? auth : "");
    jw_init(&w, &out);
    jw_obj(&w);
    if (a->form == FORM_MESSAGES) jw_kstr(&w, "type", "error");
    jw_key(&w, "error");
    jw_obj(&w);
    jw_kstr(&w, "type", "mock_error");
    jw_kstr(&w, "message", buf_str(&why));
    jw_obj_end(&w);
    jw_obj_end(&w);
    bool later = status == 429 || status == 503;
    bool ok = mock_reply(a->c, status, later ? "Retry-After: 7\r\n" : "", buf_str(&out), out.len);
    buf_free(&out);
    buf_free(&why);
    return ok;
}

static bool send_big(ask *a) {
    static char piece[65536];
    memset(piece, ' ', sizeof piece);
    piece[sizeof piece - 1] = '\n';
    bool ok = mock_send(a->c, stream_header, sizeof stream_header - 1);
    for (size_t n = 0; n < BIG_BYTES && ok; n += sizeof piece) ok = mock_chunk(a->c, piece, sizeof piece);
    return false;
}

static bool send_big_header(ask *a) {
    char line[1024];
    bool ok = mock_send(a->c, "HTTP/1.1 200 Mock\r\n", 19);
    memset(line, 'x', sizeof line);
    memcpy(line, "X-Mock: ", 8);
    memcpy(line + sizeof line - 2, "\r\n", 2);
    for (int i = 0; i < 2000 && ok; i++) ok = mock_send(a->c, line, sizeof line);
    return false;
}

static bool send_stream_error(ask *a) {
    static const char text[] = "data: {\"error\":{\"message\":\"too much to do\",\"code\":529}}\n\n";
    static const char named[] = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\","
                                "\"message\":\"too much to do\"}}\n\n";
    bool other = a->form == FORM_MESSAGES;
    return mock_send(a->c, stream_header, sizeof stream_header - 1) &&
           mock_chunk(a->c, other ? named : text, other ? sizeof named - 1 : sizeof text - 1) &&
           mock_send(a->c, "0\r\n\r\n", 5);
}

/* Behaviours in place of an answer. *done: it was one. */
static bool faults(ask *a, bool *done) {
    int status = number_behind(a, "fail-"), wait = number_behind(a, "slow-");
    *done = true;
    if (status) return fail_with(a, status);
    if (how_is(a, "redirect")) return mock_reply(a->c, 307, "Location: http://127.0.0.1:9/x\r\n", "", 0);
    if (how_is(a, "hang")) return mock_wait(a->c, 3600000) && false;
    if (how_is(a, "close-early")) return false;
    if (how_is(a, "garbage")) return mock_reply(a->c, 200, "", "<html>not JSON", 14);
    if (how_is(a, "empty")) return mock_reply(a->c, 200, "", "", 0);
    if (how_is(a, "big")) return send_big(a);
    if (how_is(a, "big-header")) return send_big_header(a);
    if (how_is(a, "stream-error")) return send_stream_error(a);
    *done = false;
    if (how_is(a, "slow-first-byte")) wait = 3000;
    if (!wait || mock_wait(a->c, wait)) return true;
    *done = true;
    return false;
}

/* ---- all of it --------------------------------------------------------------------------------------------- */

static bool ends_with(const char *path, const char *tail) {
    size_t n = strcspn(path, "?"), m = strlen(tail);
    return n >= m && memcmp(path + n - m, tail, m) == 0;
}

static bool read_path(ask *a) {
    static const struct {
        const char *tail;
        form form;
    } known[] = {{"/chat/completions", FORM_CHAT},
                 {"/completions", FORM_COMPLETION},
                 {"/embeddings", FORM_EMBED},
                 {"/messages", FORM_MESSAGES}};
    for (size_t i = 0; i < 4; i++) {
        if (!ends_with(a->c->path, known[i].tail)) continue;
        a->form = known[i].form;
        return true;
    }
    return false;
}

static void read_model(ask *a) {
    const char *s = string_in(a->body, "model"), *at = strstr(a->c->path, "/deployments/");
    snprintf(a->model, sizeof a->model, "%s", s ? s : "");
    if (at) snprintf(a->model, sizeof a->model, "%.*s", (int)strcspn(at + 13, "/?"), at + 13);
    mock_behaviour(a->c->m, a->model, a->how);
}

static bool answer_one(ask *a) {
    bool done, ok = faults(a, &done);
    if (done) return ok;
    if (a->form == FORM_EMBED) return answer_vectors(a);
    make_answer(a);
    if (!a->stream || how_is(a, "whole"))
        ok = answer_whole(a);
    else
        ok = a->form == FORM_MESSAGES ? stream_messages(a) : stream_openai(a);
    return ok && !how_is(a, "close-after");
}

bool mock_answer(mock_conn *c) {
    ask a = {
        .c = c, .n = 1, .text = {.max = ANSWER_MAX}, .reasoning = {.max = ANSWER_MAX}, .args = {.max = ANSWER_MAX}};
    if (!read_path(&a)) return mock_reply(c, 404, "", "{\"error\":{\"message\":\"no such path\"}}", 36);
    if (json_parse(&a.body, buf_str(&c->body), c->body.len, "body", NULL) != ERR_OK)
        return mock_reply(c, 400, "", "{\"error\":{\"message\":\"no JSON\"}}", 31);
    const cJSON *n = json_get(a.body, "n");
    a.stream = cJSON_IsTrue(json_get(a.body, "stream"));
    a.usage = json_get(a.body, "stream_options") != NULL;
    a.logprobs = a.form == FORM_CHAT && cJSON_IsTrue(json_get(a.body, "logprobs"));
    if (cJSON_IsNumber(n) && n->valuedouble >= 1 && n->valuedouble <= 16) a.n = (int)n->valuedouble;
    read_model(&a);
    if (how_is(&a, "one-choice")) a.n = 1;
    bool ok = answer_one(&a);
    if (ok) mock_note_answer(c->m);
    cJSON_Delete(a.body);
    buf_free(&a.text);
    buf_free(&a.reasoning);
    buf_free(&a.args);
    return ok;
}
