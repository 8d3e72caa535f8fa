/* Answers in Anthropic's form, whole and as events. */
#include "inference/drivers/answer.h"

#include "base/json.h"
#include "base/mem.h"

#include <stdio.h>
#include <string.h>

static const char *text_of(const cJSON *o, const char *key) {
    const cJSON *v = cJSON_IsObject(o) ? json_get(o, key) : NULL;
    return cJSON_IsString(v) ? v->valuestring : NULL;
}

static bool is(const char *s, const char *other) {
    return s && strcmp(s, other) == 0;
}

/* What is read from a cache, or written to one, was read by the model as well. */
static void read_usage(answer *a, const cJSON *u) {
    if (!cJSON_IsObject(u)) return;
    uint64_t in = answer_count(u, "input_tokens") + answer_count(u, "cache_creation_input_tokens") +
                  answer_count(u, "cache_read_input_tokens");
    uint64_t out = answer_count(u, "output_tokens");
    if (in) a->prompt_tokens = in;
    if (out) a->completion_tokens = out;
}

/* {"type": "error", "error": {"type", "message"}} */
static err_code read_error(answer *a, err *e) {
    static const struct {
        const char *type;
        int status;
    } known[] = {{"invalid_request_error", 400}, {"authentication_error", 401}, {"permission_error", 403},
                 {"not_found_error", 404},       {"request_too_large", 413},    {"rate_limit_error", 429},
                 {"timeout_error", 504},         {"overloaded_error", 529}};
    const cJSON *x = json_get(a->tree, "error");
    const char *type = text_of(x, "type"), *why = text_of(x, "message");
    a->error_status = 500;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (is(type, known[i].type)) a->error_status = known[i].status;
    if (!why || !*why) why = type && *type ? type : "it is an error without a sentence";
    return err_set(e, ERR_UPSTREAM, "%s", why);
}

static const char *read_reason(const char *s) {
    if (is(s, "max_tokens") || is(s, "model_context_window_exceeded")) return "length";
    if (is(s, "tool_use")) return "tool_calls";
    if (is(s, "refusal")) return "content_filter";
    return s ? "stop" : NULL; /* end_turn, stop_sequence, pause_turn */
}

/* ---- at once ----------------------------------------------------------------------------------------------- */

static err_code put_input(answer *a, const cJSON *input, err *e) {
    if (!cJSON_IsObject(input) || !input->child) return ERR_OK; /* {} is put at the call's end */
    char *text = json_text(input);
    /* lives as long as the tree */
    cJSON *keep = text ? cJSON_CreateString(text) : NULL;
    mem_free(text);
    if (!keep || !cJSON_AddItemToObject(a->tree, "polder_input", keep)) {
        cJSON_Delete(keep);
        return err_nomem(e, "a provider's answer");
    }
    return answer_put_args(a, 0, keep->valuestring, e);
}

static err_code read_block(answer *a, const cJSON *b, int64_t index, err *e) {
    const char *type = text_of(b, "type");
    if (is(type, "text")) return answer_put_text(a, 0, text_of(b, "text"), NULL, e);
    if (is(type, "thinking")) return answer_put_reasoning(a, 0, text_of(b, "thinking"), e);
    if (!is(type, "tool_use")) return ERR_OK; /* redacted_thinking, and what was not asked for */
    err_code rc = answer_put_call(a, 0, index, text_of(b, "id"), text_of(b, "name"), e);
    if (!rc) rc = put_input(a, json_get(b, "input"), e);
    return rc ? rc : answer_end_call(a, 0, e);
}

static void read_id(answer *a, const cJSON *message) {
    const char *id = text_of(message, "id");
    if (id && !a->id[0]) snprintf(a->id, sizeof a->id, "%s", id);
}

err_code anthropic_read_whole(answer *a, const char *json, size_t n, err *e) {
    err_code rc = answer_begin(a, json, n, e);
    if (rc) return rc;
    if (is(text_of(a->tree, "type"), "error")) return read_error(a, e);
    const cJSON *content = json_get(a->tree, "content"), *b;
    if (!cJSON_IsArray(content)) return answer_bad(a, e, "it has no content");
    int64_t index = 0;
    read_id(a, a->tree);
    read_usage(a, json_get(a->tree, "usage"));
    cJSON_ArrayForEach(b, content) {
        if (!rc) rc = read_block(a, b, index++, e);
    }
    const char *reason = read_reason(text_of(a->tree, "stop_reason"));
    a->ended = true;
    return rc ? rc : answer_put_finish(a, 0, reason ? reason : "stop", text_of(a->tree, "stop_sequence"), e);
}

/* ---- as events --------------------------------------------------------------------------------------------- */

static int64_t index_in(const answer *a) {
    const cJSON *i = json_get(a->tree, "index");
    return cJSON_IsNumber(i) && i->valuedouble >= 0 && i->valuedouble < 1e6 ? (int64_t)i->valuedouble : -1;
}

static err_code start_block(answer *a, err *e) {
    const cJSON *b = json_get(a->tree, "content_block");
    const char *type = text_of(b, "type");
    if (a->block >= 0) return answer_bad(a, e, "a block begins inside of another");
    a->block = index_in(a);
    if (a->block < 0) return answer_bad(a, e, "a block has no index");
    snprintf(a->block_type, sizeof a->block_type, "%s", type ? type : "");
    if (is(type, "text")) return answer_put_text(a, 0, text_of(b, "text"), NULL, e);
    if (is(type, "thinking")) return answer_put_reasoning(a, 0, text_of(b, "thinking"), e);
    if (!is(type, "tool_use")) return ERR_OK;
    err_code rc = answer_put_call(a, 0, a->block, text_of(b, "id"), text_of(b, "name"), e);
    return rc ? rc : put_input(a, json_get(b, "input"), e);
}

static err_code read_delta(answer *a, err *e) {
    const cJSON *d = json_get(a->tree, "delta");
    const char *type = text_of(d, "type");
    if (a->block < 0 || index_in(a) != a->block) return answer_bad(a, e, "a piece belongs to no block");
    if (is(type, "text_delta")) return answer_put_text(a, 0, text_of(d, "text"), NULL, e);
    if (is(type, "thinking_delta")) return answer_put_reasoning(a, 0, text_of(d, "thinking"), e);
    if (is(type, "input_json_delta") && is(a->block_type, "tool_use"))
        return answer_put_args(a, 0, text_of(d, "partial_json"), e);
    return ERR_OK; /* signature_delta, citations_delta */
}

static err_code stop_block(answer *a, err *e) {
    if (a->block < 0 || index_in(a) != a->block) return answer_bad(a, e, "a block ends that did not begin");
    a->block = -1;
    return answer_end_call(a, 0, e);
}

static err_code end_message(answer *a, err *e) {
    const cJSON *d = json_get(a->tree, "delta");
    const char *reason = read_reason(text_of(d, "stop_reason"));
    read_usage(a, json_get(a->tree, "usage"));
    if (!reason || a->choices[0].finish) return ERR_OK;
    return answer_put_finish(a, 0, reason, text_of(d, "stop_sequence"), e);
}

err_code anthropic_read_event(answer *a, const sse_event *ev, err *e) {
    err_code rc = answer_begin(a, ev->data, ev->len, e);
    if (rc) return rc;
    const char *type = text_of(a->tree, "type");
    const cJSON *m = json_get(a->tree, "message");
    if (is(type, "error")) return read_error(a, e);
    if (is(type, "content_block_start")) return start_block(a, e);
    if (is(type, "content_block_delta")) return read_delta(a, e);
    if (is(type, "content_block_stop")) return stop_block(a, e);
    if (is(type, "message_delta")) return end_message(a, e);
    if (is(type, "message_start")) {
        read_id(a, m);
        read_usage(a, cJSON_IsObject(m) ? json_get(m, "usage") : NULL);
    }
    if (is(type, "message_stop")) a->ended = true;
    return ERR_OK; /* ping, and what is added some day */
}
