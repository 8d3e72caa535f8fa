/* Answers of OpenAI's Responses: one JSON object, or a stream of numbered events that ends with that object. */
#include "server/responses.h"

#include "base/mem.h"

#include <inttypes.h>
#include <string.h>

#define HELD_BYTES 4096 /* of a call that is not told yet, until a comment says that something happens */

/* ---- the object -------------------------------------------------------------------------------------------- */

static void item_id(char out[64], const char *base, const part *p) {
    static const char *const kinds[PART_KINDS] = {[PART_REASONING] = "rs", [PART_TEXT] = "msg", [PART_CALL] = "fc"};
    snprintf(out, 64, "%s_%s_%u", kinds[p->kind], base, p->of_kind);
}

static void write_text_part(jw *w, const char *type, const part *p, bool full) {
    jw_obj(w);
    jw_kstr(w, "type", type);
    jw_key(w, "text");
    jw_strn(w, buf_str(&p->text), full ? p->text.len : 0);
    if (p->kind == PART_TEXT) {
        jw_key(w, "annotations");
        jw_arr(w);
        jw_arr_end(w);
        jw_key(w, "logprobs");
        jw_arr(w);
        jw_arr_end(w);
    }
    jw_obj_end(w);
}

static const char *text_type(const part *p, bool summary) {
    if (p->kind == PART_TEXT) return "output_text";
    return summary ? "summary_text" : "reasoning_text";
}

static void write_list(jw *w, const char *key, const char *type, const part *p, bool full) {
    jw_key(w, key);
    jw_arr(w);
    if (full) write_text_part(w, type, p, true);
    jw_arr_end(w);
}

/* An item; without `full` as it is when it begins. */
static void write_item(jw *w, const char *base, const part *p, const char *status, bool summary, bool full) {
    char id[64];
    item_id(id, base, p);
    jw_obj(w);
    jw_kstr(w, "id", id);
    switch (p->kind) {
    case PART_TEXT:
        jw_kstr(w, "type", "message");
        jw_kstr(w, "status", status);
        jw_kstr(w, "role", "assistant");
        write_list(w, "content", "output_text", p, full);
        break;
    case PART_REASONING:
        jw_kstr(w, "type", "reasoning");
        jw_kstr(w, "status", status);
        write_list(w, "summary", "summary_text", p, full && summary);
        if (!summary) write_list(w, "content", "reasoning_text", p, full);
        break;
    case PART_CALL:
        jw_kstr(w, "type", "function_call");
        jw_kstr(w, "status", status);
        snprintf(id, sizeof id, "call_%s_%u", base, p->of_kind);
        jw_kstr(w, "call_id", id);
        jw_key(w, "name");
        jw_strn(w, buf_str(&p->name), p->name.len);
        jw_key(w, "arguments");
        jw_strn(w, buf_str(&p->text), full ? p->text.len : 0);
        break;
    }
    jw_obj_end(w);
}

static const char *error_code(int status) {
    if (status == 429) return "rate_limit_exceeded";
    return status < 500 ? "invalid_prompt" : "server_error";
}

static void write_outcome(jw *w, const responses_view *v) {
    jw_key(w, "error");
    if (v->error) {
        jw_obj(w);
        jw_kstr(w, "code", error_code(v->error_status));
        jw_kstr(w, "message", v->error->msg);
        jw_obj_end(w);
    } else {
        jw_null(w);
    }
    jw_key(w, "incomplete_details");
    if (strcmp(v->status, "incomplete") == 0) {
        jw_obj(w);
        jw_kstr(w, "reason", v->filtered ? "content_filter" : "max_output_tokens");
        jw_obj_end(w);
    } else {
        jw_null(w);
    }
}

static void write_usage(jw *w, const responses_view *v) {
    jw_key(w, "usage");
    if (!v->usage) {
        jw_null(w);
        return;
    }
    jw_obj(w);
    jw_kint(w, "input_tokens", (int64_t)v->prompt_tokens);
    jw_key(w, "input_tokens_details");
    jw_obj(w);
    jw_kint(w, "cached_tokens", 0);
    jw_obj_end(w);
    jw_kint(w, "output_tokens", (int64_t)v->completion_tokens);
    jw_key(w, "output_tokens_details");
    jw_obj(w);
    jw_kint(w, "reasoning_tokens", (int64_t)v->reasoning_tokens);
    jw_obj_end(w);
    jw_kint(w, "total_tokens", (int64_t)(v->prompt_tokens + v->completion_tokens));
    jw_obj_end(w);
}

void responses_write(jw *w, const responses_view *v) {
    char id[64];
    snprintf(id, sizeof id, "resp_%s", v->base);
    jw_obj(w);
    jw_kstr(w, "id", id);
    jw_kstr(w, "object", "response");
    jw_kint(w, "created_at", v->created);
    jw_kstr(w, "status", v->status);
    jw_kbool(w, "background", false);
    write_outcome(w, v);
    jw_kstr(w, "model", v->model);
    jw_key(w, "output");
    jw_arr(w);
    bool incomplete = strcmp(v->status, "incomplete") == 0;
    for (uint32_t i = 0; v->parts && i < v->parts->n; i++)
        write_item(w, v->base, v->parts->list[i], incomplete && i + 1 == v->parts->n ? "incomplete" : "completed",
                   v->summary, true);
    jw_arr_end(w);
    const cJSON *m;
    cJSON_ArrayForEach(m, v->response) {
        jw_key(w, m->string);
        jw_raw(w, "", 0); /* the value follows by itself */
        json_write(w->out, m);
    }
    write_usage(w, v);
    jw_obj_end(w);
}

static responses_view view_of(const answer *a, const char *status, bool over) {
    const responses_answer *s = a->own;
    return (responses_view){.base = s->base,
                            .model = a->r.model,
                            .created = a->created_unix_s,
                            .status = status,
                            .response = s->response,
                            .parts = over ? &s->parts : NULL,
                            .summary = s->summary,
                            .filtered = strcmp(s->reason, "content_filter") == 0,
                            .usage = over,
                            .prompt_tokens = a->prompt_tokens,
                            .completion_tokens = a->completion_tokens,
                            .reasoning_tokens = a->reasoning_tokens};
}

const char *responses_status(const char *reason) {
    bool cut = strcmp(reason, "length") == 0 || strcmp(reason, "content_filter") == 0;
    return cut ? "incomplete" : "completed";
}

void responses_whole(answer *a, buf *out) {
    jw w;
    const responses_answer *s = a->own;
    responses_view v = view_of(a, responses_status(s->reason), true);
    jw_init(&w, out);
    responses_write(&w, &v);
}

/* ---- a stream ---------------------------------------------------------------------------------------------- */

static void begin_event(jw *w, responses_answer *s, const char *type, buf *out) {
    buf_printf(out, "event: %s\ndata: ", type);
    jw_init(w, out);
    jw_obj(w);
    jw_kstr(w, "type", type);
    jw_kint(w, "sequence_number", (int64_t)s->sequence++);
}

static void end_event(jw *w, buf *out) {
    jw_obj_end(w);
    buf_puts(out, "\n\n");
}

static void write_life(answer *a, const char *type, const responses_view *v, buf *out) {
    jw w;
    begin_event(&w, a->own, type, out);
    jw_key(&w, "response");
    responses_write(&w, v);
    end_event(&w, out);
}

static void begin_item_event(jw *w, responses_answer *s, const char *type, const part *p, buf *out) {
    char id[64];
    item_id(id, s->base, p);
    begin_event(w, s, type, out);
    jw_kstr(w, "item_id", id);
    jw_kint(w, "output_index", p->at);
}

static void write_item_event(responses_answer *s, const char *type, const part *p, const char *status, bool full,
                             buf *out) {
    jw w;
    begin_event(&w, s, type, out);
    jw_kint(&w, "output_index", p->at);
    jw_key(&w, "item");
    write_item(&w, s->base, p, status, s->summary, full);
    end_event(&w, out);
}

static bool is_summary(const responses_answer *s, const part *p) {
    return p->kind == PART_REASONING && s->summary;
}

static void write_part_event(responses_answer *s, const part *p, bool over, buf *out) {
    static const char *const types[2][2] = {
        {"response.content_part.added", "response.content_part.done"},
        {"response.reasoning_summary_part.added", "response.reasoning_summary_part.done"}};
    bool summary = is_summary(s, p);
    jw w;
    begin_item_event(&w, s, types[summary][over], p, out);
    jw_kint(&w, summary ? "summary_index" : "content_index", 0);
    jw_key(&w, "part");
    write_text_part(&w, text_type(p, summary), p, over);
    end_event(&w, out);
}

/* A piece of the part's text, or (text NULL) all of it at its end. */
static void write_text_event(responses_answer *s, const part *p, const char *text, size_t n, buf *out) {
    static const char *const types[4][2] = {
        {"response.reasoning_text.delta", "response.reasoning_text.done"},
        {"response.output_text.delta", "response.output_text.done"},
        {"response.function_call_arguments.delta", "response.function_call_arguments.done"},
        {"response.reasoning_summary_text.delta", "response.reasoning_summary_text.done"}};
    bool summary = is_summary(s, p), over = text == NULL;
    jw w;
    begin_item_event(&w, s, types[summary ? 3 : (int)p->kind][over], p, out);
    if (p->kind != PART_CALL) jw_kint(&w, summary ? "summary_index" : "content_index", 0);
    if (over && p->kind == PART_CALL) jw_kstr(&w, "name", buf_str(&p->name));
    jw_key(&w, !over ? "delta" : p->kind == PART_CALL ? "arguments" : "text");
    jw_strn(&w, over ? buf_str(&p->text) : text, over ? p->text.len : n);
    if (p->kind == PART_TEXT) {
        jw_key(&w, "logprobs");
        jw_arr(&w);
        jw_arr_end(&w);
    }
    end_event(&w, out);
}

static void open_item(responses_answer *s, const part *p, buf *out) {
    write_item_event(s, "response.output_item.added", p, "in_progress", false, out);
    if (p->kind != PART_CALL) write_part_event(s, p, false, out);
}

static void close_item(responses_answer *s, const part *p, const char *status, buf *out) {
    write_text_event(s, p, NULL, 0, out);
    if (p->kind != PART_CALL) write_part_event(s, p, true, out);
    write_item_event(s, "response.output_item.done", p, status, true, out);
}

static void write_step(responses_answer *s, const parts_step *step, const event *ev, buf *out) {
    if (step->over) close_item(s, step->over, ev->kind == EV_FINISH ? responses_status(s->reason) : "completed", out);
    if (step->opens) open_item(s, step->opens, out);
    if (step->grows) write_text_event(s, step->grows, ev->text, ev->len, out);
    if (step->opens && step->whole) {
        write_text_event(s, step->opens, buf_str(&step->opens->text), step->opens->text.len, out);
        close_item(s, step->opens, "completed", out);
    }
    s->held = step->waiting ? s->held + ev->len : 0;
    if (s->held < HELD_BYTES) return;
    buf_puts(out, ":\n\n"); /* a comment: clients skip it, and know that the line is alive */
    s->held = 0;
}

static void name_answer(const answer *a, responses_answer *s) {
    char text[160];
    uint8_t hash[SHA256_LEN];
    snprintf(text, sizeof text, "%s %" PRIu64 " %" PRId64, a->fingerprint, a->seed, a->created_unix_s);
    sha256_of(hash, text, strlen(text));
    snprintf(s->base, sizeof s->base, "%" PRIu64 "_%02x%02x%02x%02x", a->record, hash[0], hash[1], hash[2], hash[3]);
}

/* What is kept of an event in both ways of answering. */
static parts_step take(answer *a, const event *ev) {
    responses_answer *s = a->own;
    if (!s->base[0]) name_answer(a, s);
    if (ev->kind == EV_FINISH) snprintf(s->reason, sizeof s->reason, "%s", ev->reason ? ev->reason : "stop");
    return parts_take(&s->parts, ev);
}

void responses_chunk(answer *a, const event *ev, buf *out) {
    responses_answer *s = a->own;
    parts_step step = take(a, ev);
    if (ev->kind == EV_ADMITTED) {
        responses_view v = view_of(a, "in_progress", false);
        write_life(a, "response.created", &v, out);
        write_life(a, "response.in_progress", &v, out);
    } else if (ev->kind == EV_DONE) {
        responses_view v = view_of(a, responses_status(s->reason), true);
        write_life(a, strcmp(v.status, "incomplete") == 0 ? "response.incomplete" : "response.completed", &v, out);
    } else {
        write_step(s, &step, ev, out);
    }
    if (s->parts.failed) out->failed = true;
}

void responses_collect(answer *a, choice *c, const event *ev) {
    responses_answer *s = a->own;
    (void)take(a, ev);
    if (s->parts.failed) c->parts[0].failed = true;
}

/* Two events: some clients throw at the first, others look for the second. */
void responses_broken(answer *a, const err *e, int status, buf *out) {
    responses_answer *s = a->own;
    jw w;
    begin_event(&w, s, "error", out);
    jw_kstr(&w, "code", error_code(status));
    jw_kstr(&w, "message", e->msg);
    jw_kstr(&w, "param", NULL);
    end_event(&w, out);
    responses_view v = view_of(a, "failed", true);
    v.usage = false;
    v.error = e;
    v.error_status = status;
    write_life(a, "response.failed", &v, out);
}
