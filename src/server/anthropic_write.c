/* Answers of Anthropic's Messages: one JSON object, or a stream of named events. */
#include "server/anthropic.h"

#include "base/mem.h"

#include <inttypes.h>
#include <string.h>

#define HELD_BYTES 4096 /* of a call that is not told yet, until a ping says that something happens */

static const char *stop_reason(const anthropic_answer *s) {
    if (strcmp(s->reason, "length") == 0) return "max_tokens";
    if (strcmp(s->reason, "content_filter") == 0) return "refusal";
    if (s->parts.n_kind[PART_CALL]) return "tool_use";
    return s->stop ? "stop_sequence" : "end_turn";
}

static void write_usage(jw *w, uint64_t input, uint64_t output) {
    jw_key(w, "usage");
    jw_obj(w);
    jw_kint(w, "input_tokens", (int64_t)input);
    jw_kint(w, "cache_creation_input_tokens", 0);
    jw_kint(w, "cache_read_input_tokens", 0);
    jw_kint(w, "output_tokens", (int64_t)output);
    jw_obj_end(w);
}

/* Unique in this ledger by the record. */
static void write_head(jw *w, const answer *a) {
    char id[48];
    snprintf(id, sizeof id, "msg_%" PRIu64, a->record);
    jw_kstr(w, "id", id);
    jw_kstr(w, "type", "message");
    jw_kstr(w, "role", "assistant");
    jw_kstr(w, "model", a->r.model);
}

/* Thinking is given in clear and taken back without looking at its signature; clients keep only blocks that have one.
 */
static void signature(char out[48], const answer *a) {
    snprintf(out, 48, "polder-%" PRIu64, a->record);
}

/* The block, with its text or (in a stream's first event) without. */
static void write_block(jw *w, const answer *a, const part *p, bool full) {
    char id[80];
    jw_obj(w);
    switch (p->kind) {
    case PART_TEXT:
        jw_kstr(w, "type", "text");
        jw_key(w, "text");
        jw_strn(w, buf_str(&p->text), full ? p->text.len : 0);
        jw_kstr(w, "citations", NULL);
        break;
    case PART_REASONING:
        jw_kstr(w, "type", "thinking");
        jw_key(w, "thinking");
        jw_strn(w, buf_str(&p->text), full ? p->text.len : 0);
        signature(id, a);
        jw_kstr(w, "signature", full ? id : "");
        break;
    case PART_CALL:
        snprintf(id, sizeof id, "toolu_%" PRIu64 "_%u", a->record, p->of_kind);
        jw_kstr(w, "type", "tool_use");
        jw_kstr(w, "id", id);
        jw_key(w, "name");
        jw_strn(w, buf_str(&p->name), p->name.len);
        jw_key(w, "input");
        jw_raw(w, full ? buf_str(&p->text) : "{}", full ? p->text.len : 2);
        break;
    }
    jw_obj_end(w);
}

/* ---- a stream ---------------------------------------------------------------------------------------------- */

static void begin_event(jw *w, const char *type, buf *out) {
    buf_printf(out, "event: %s\ndata: ", type);
    jw_init(w, out);
    jw_obj(w);
    jw_kstr(w, "type", type);
}

static void end_event(jw *w, buf *out) {
    jw_obj_end(w);
    buf_puts(out, "\n\n");
}

static void write_ping(buf *out) {
    jw w;
    begin_event(&w, "ping", out);
    end_event(&w, out);
}

static void write_start(const answer *a, const anthropic_answer *s, buf *out) {
    jw w;
    begin_event(&w, "message_start", out);
    jw_key(&w, "message");
    jw_obj(&w);
    write_head(&w, a);
    jw_key(&w, "content");
    jw_arr(&w);
    jw_arr_end(&w);
    jw_kstr(&w, "stop_reason", NULL);
    jw_kstr(&w, "stop_sequence", NULL);
    write_usage(&w, s->prompt_tokens, 0);
    jw_obj_end(&w);
    end_event(&w, out);
    write_ping(out);
}

static void open_block(const answer *a, const part *p, buf *out) {
    jw w;
    begin_event(&w, "content_block_start", out);
    jw_kint(&w, "index", p->at);
    jw_key(&w, "content_block");
    write_block(&w, a, p, false);
    end_event(&w, out);
}

static void grow_block(const part *p, const char *type, const char *key, const char *text, size_t n, buf *out) {
    jw w;
    begin_event(&w, "content_block_delta", out);
    jw_kint(&w, "index", p->at);
    jw_key(&w, "delta");
    jw_obj(&w);
    jw_kstr(&w, "type", type);
    jw_key(&w, key);
    jw_strn(&w, text, n);
    jw_obj_end(&w);
    end_event(&w, out);
}

static void grow_text(const part *p, const char *text, size_t n, buf *out) {
    static const char *const types[PART_KINDS] = {
        [PART_REASONING] = "thinking_delta", [PART_TEXT] = "text_delta", [PART_CALL] = "input_json_delta"};
    static const char *const keys[PART_KINDS] = {
        [PART_REASONING] = "thinking", [PART_TEXT] = "text", [PART_CALL] = "partial_json"};
    grow_block(p, types[p->kind], keys[p->kind], text, n, out);
}

static void close_block(const answer *a, const part *p, buf *out) {
    jw w;
    if (p->kind == PART_REASONING) {
        char mark[48];
        signature(mark, a);
        grow_block(p, "signature_delta", "signature", mark, strlen(mark), out);
    }
    begin_event(&w, "content_block_stop", out);
    jw_kint(&w, "index", p->at);
    end_event(&w, out);
}

static void write_end(const answer *a, const anthropic_answer *s, buf *out) {
    jw w;
    begin_event(&w, "message_delta", out);
    jw_key(&w, "delta");
    jw_obj(&w);
    jw_kstr(&w, "stop_reason", stop_reason(s));
    jw_kstr(&w, "stop_sequence", s->stop);
    jw_obj_end(&w);
    write_usage(&w, a->prompt_tokens, a->completion_tokens);
    end_event(&w, out);
    begin_event(&w, "message_stop", out);
    end_event(&w, out);
}

static void write_step(const answer *a, anthropic_answer *s, const parts_step *step, const event *ev, buf *out) {
    if (step->over) close_block(a, step->over, out);
    if (step->opens) open_block(a, step->opens, out);
    if (step->grows) grow_text(step->grows, ev->text, ev->len, out);
    if (step->opens && step->whole) {
        grow_text(step->opens, buf_str(&step->opens->text), step->opens->text.len, out);
        close_block(a, step->opens, out);
    }
    s->held = step->waiting ? s->held + ev->len : 0;
    if (s->held < HELD_BYTES) return;
    write_ping(out);
    s->held = 0;
}

/* What is kept of an event in both ways of answering. */
static parts_step take(const answer *a, anthropic_answer *s, const event *ev) {
    if (ev->kind == EV_ADMITTED) s->prompt_tokens = ev->prompt_tokens;
    if (ev->kind == EV_FINISH) {
        snprintf(s->reason, sizeof s->reason, "%s", ev->reason ? ev->reason : "stop");
        for (uint32_t i = 0; i < a->r.n_stops && ev->stop; i++)
            if (strcmp(a->r.stops[i], ev->stop) == 0) s->stop = a->r.stops[i];
    }
    return parts_take(&s->parts, ev);
}

void anthropic_chunk(answer *a, const event *ev, buf *out) {
    anthropic_answer *s = a->own;
    parts_step step = take(a, s, ev);
    if (ev->kind == EV_ADMITTED)
        write_start(a, s, out);
    else if (ev->kind == EV_DONE)
        write_end(a, s, out);
    else
        write_step(a, s, &step, ev, out);
    if (s->parts.failed) out->failed = true;
}

/* ---- one object -------------------------------------------------------------------------------------------- */

void anthropic_collect(answer *a, choice *c, const event *ev) {
    anthropic_answer *s = a->own;
    (void)take(a, s, ev);
    if (s->parts.failed) c->parts[0].failed = true;
}

void anthropic_whole(answer *a, buf *out) {
    const anthropic_answer *s = a->own;
    jw w;
    jw_init(&w, out);
    jw_obj(&w);
    write_head(&w, a);
    jw_key(&w, "content");
    jw_arr(&w);
    for (uint32_t i = 0; i < s->parts.n; i++) write_block(&w, a, s->parts.list[i], true);
    jw_arr_end(&w);
    jw_kstr(&w, "stop_reason", stop_reason(s));
    jw_kstr(&w, "stop_sequence", s->stop);
    write_usage(&w, a->prompt_tokens, a->completion_tokens);
    jw_obj_end(&w);
}

/* ---- errors ------------------------------------------------------------------------------------------------ */

static const char *error_type(int status) {
    switch (status) {
    case 401: return "authentication_error";
    case 402: return "billing_error";
    case 403: return "permission_error";
    case 404: return "not_found_error";
    case 413: return "request_too_large";
    case 429: return "rate_limit_error";
    case 504: return "timeout_error";
    case 529: return "overloaded_error";
    default: return status >= 500 ? "api_error" : "invalid_request_error";
    }
}

/* Conversations are not held here. Clients that look for this code go on without, with all messages in each request. */
static void write_no_thread(jw *w) {
    jw_key(w, "details");
    jw_obj(w);
    jw_kstr(w, "error_code", "thread_unsupported_request");
    jw_key(w, "unsupported");
    jw_arr(w);
    jw_str(w, "thread");
    jw_arr_end(w);
    jw_obj_end(w);
}

void anthropic_fail(const err *e, int status, const char *param, bool in_stream, buf *out) {
    jw w;
    if (in_stream) buf_puts(out, "event: error\ndata: ");
    jw_init(&w, out);
    jw_obj(&w);
    jw_kstr(&w, "type", "error");
    jw_key(&w, "error");
    jw_obj(&w);
    jw_kstr(&w, "type", error_type(status));
    jw_kstr(&w, "message", e->msg);
    if (param && strcmp(param, "thread") == 0) write_no_thread(&w);
    jw_obj_end(&w);
    jw_obj_end(&w);
    if (in_stream) buf_puts(out, "\n\n");
}
