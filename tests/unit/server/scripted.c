#include "scripted.h"

#include "base/json.h"
#include "base/sys.h"
#include "inference/inference.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

atomic_int scripted_running, scripted_cancelled, scripted_runs;
atomic_llong scripted_bytes;
static atomic_bool draining;
static atomic_uint_least64_t records = 1000;

static island *of; /* the island of the last inference_open */

typedef struct script {
    const request *r;
    const event_sink *sink;
    uint64_t admitted;
    cJSON *turn;             /* {message, finish}, where it is kept */
    buf text, thought, args; /* of choice 0 so far */
} script;

static err_code cancelled(err *e) {
    scripted_cancelled++;
    return err_set(e, ERR_CANCELLED, "the client has gone");
}

static bool gone(const script *s) {
    return atomic_load(&draining) || (s->sink->gone && s->sink->gone(s->sink->ctx));
}

/* ---- records of requests that keep their turn ---------------------------------------------------------------- */

static void must(bool ok) {
    if (!ok) abort();
}

static void add_content(record *r, const char *name, const cJSON *v) {
    buf b = {.max = 1 << 20};
    err e;
    must(json_canonical(&b, v, &e) == ERR_OK && record_content(r, name, b.ptr, b.len, &e) == ERR_OK);
    buf_free(&b);
}

static uint64_t append(record *r) {
    uint64_t seq = 0;
    err e;
    must(ledger_append(island_ledger(of), r, &seq, &e) == ERR_OK);
    record_free(r);
    return seq;
}

static uint64_t record_admitted(const request *q) {
    record *r;
    err e;
    label_set set;
    must(record_new(&r, "admitted", &e) == ERR_OK && label_set_parse(&set, LABELS_DEFAULT, &e) == ERR_OK);
    cJSON *o = cJSON_CreateObject(), *flags = cJSON_AddArrayToObject(record_body(r), "flags");
    uint8_t level = q->has_context ? q->context.level : 1;
    bool odd = strcmp(q->model, "ultra") == 0;
    must(cJSON_AddStringToObject(record_body(r), "label", odd ? "ultra" : set.name[level]));
    cJSON_AddItemToArray(flags, cJSON_CreateString(odd ? "ultra" : "personal"));
    cJSON_AddItemToObject(o, "messages", cJSON_Duplicate(q->messages, true));
    if (q->kept) cJSON_AddItemToObject(o, "kept", cJSON_Duplicate(q->kept, true));
    add_content(r, "request", o);
    cJSON_Delete(o);
    return append(r);
}

static void keep(script *s, const event *ev) {
    if (!s->r->keep_turn || ev->choice != 0) return;
    if (!s->turn) {
        s->turn = cJSON_CreateObject();
        must(cJSON_AddStringToObject(cJSON_AddObjectToObject(s->turn, "message"), "role", "assistant"));
        s->text = s->thought = s->args = (buf){.max = 1 << 20};
    }
    cJSON *m = cJSON_GetObjectItem(s->turn, "message"), *calls = cJSON_GetObjectItem(m, "tool_calls");
    if (ev->kind == EV_TEXT) buf_append(&s->text, ev->text, ev->len);
    if (ev->kind == EV_REASONING) buf_append(&s->thought, ev->text, ev->len);
    if (ev->kind == EV_CALL_ARGS) buf_append(&s->args, ev->text, ev->len);
    if (ev->kind == EV_CALL) {
        buf_reset(&s->args);
        if (!calls) calls = cJSON_AddArrayToObject(m, "tool_calls");
        cJSON *c = cJSON_CreateObject();
        cJSON_AddStringToObject(c, "id", "call_0");
        cJSON_AddStringToObject(c, "type", "function");
        cJSON_AddStringToObject(cJSON_AddObjectToObject(c, "function"), "name", ev->text);
        cJSON_AddItemToArray(calls, c);
    }
    cJSON *last = cJSON_GetArrayItem(calls, cJSON_GetArraySize(calls) - 1);
    if (ev->kind == EV_CALL_END)
        cJSON_AddStringToObject(cJSON_GetObjectItem(last, "function"), "arguments", buf_str(&s->args));
    if (ev->kind == EV_CALL_DROP) cJSON_DeleteItemFromObject(m, "tool_calls");
    if (ev->kind == EV_FINISH) cJSON_AddStringToObject(s->turn, "finish", ev->reason);
}

static uint64_t record_completed(script *s) {
    record *r;
    err e;
    must(record_new(&r, "completed", &e) == ERR_OK);
    cJSON *m = cJSON_GetObjectItem(s->turn, "message");
    must(cJSON_AddStringToObject(m, "content", buf_str(&s->text)));
    if (s->thought.len) must(cJSON_AddStringToObject(m, "reasoning_content", buf_str(&s->thought)));
    add_content(r, "turn", s->turn);
    return append(r);
}

static err_code emit(script *s, event *ev) {
    keep(s, ev);
    if (ev->kind == EV_DONE && s->turn) ev->record = record_completed(s);
    err_code rc = s->sink->event(s->sink->ctx, ev);
    if (rc == ERR_OK && ev->kind == EV_TEXT) scripted_bytes += (long long)ev->len;
    return rc;
}

static err_code admit(script *s) {
    s->admitted = s->r->keep_turn ? record_admitted(s->r) : records++;
    event ev = {.kind = EV_ADMITTED,
                .record = s->admitted,
                .seed = s->r->has_seed ? s->r->sampling.seed : 42,
                .created_unix_s = 1790000000,
                .fingerprint = "p1-0123456789ab"};
    return emit(s, &ev);
}

static err_code text(script *s, uint32_t c, const char *t, size_t n, bool first) {
    token_info info = {.token = 7, .logprob = -0.5f, .n_text = (uint8_t)(n < 64 ? n : 64), .n_top = s->r->n_top};
    memcpy(info.text, t, info.n_text);
    for (uint32_t k = 0; k < info.n_top; k++) {
        info.top[k].token = (int32_t)k;
        info.top[k].logprob = k == 0 ? -0.5f : -INFINITY;
        info.top[k].n_text = 2;
        memcpy(info.top[k].text, k == 0 ? "He" : "\xe2\x80", 2); /* the others have the same text, half a character */
    }
    if (first && s->r->echo) info.logprob = NAN;
    event ev = {.kind = EV_TEXT,
                .choice = c,
                .text = t,
                .len = n,
                .tokens = s->r->want_logprobs ? &info : NULL,
                .n_tokens = s->r->want_logprobs ? 1 : 0};
    return emit(s, &ev);
}

static err_code finish(script *s, uint64_t tokens) {
    err_code rc = ERR_OK;
    for (uint32_t c = 0; rc == ERR_OK && c < s->r->n_choices; c++) {
        event ev = {.kind = EV_FINISH, .choice = c, .reason = "stop"};
        rc = emit(s, &ev);
    }
    event done = {.kind = EV_DONE, .record = records++, .prompt_tokens = 3, .completion_tokens = tokens};
    return rc == ERR_OK ? emit(s, &done) : rc;
}

static err_code run_ok(script *s) {
    err_code rc = admit(s);
    for (uint32_t c = 0; rc == ERR_OK && c < s->r->n_choices; c++) {
        rc = text(s, c, "Hello", 5, true);
        if (rc == ERR_OK) rc = text(s, c, " w\xc3\xb6rld", 7, false);
    }
    return rc == ERR_OK ? finish(s, 2u * s->r->n_choices) : rc;
}

static err_code say(script *s, uint32_t c, event_kind kind, const char *t) {
    event ev = {.kind = kind, .choice = c, .text = t, .len = t ? strlen(t) : 0};
    return emit(s, &ev);
}

static err_code over(script *s, uint32_t c, const char *reason, bool malformed) {
    event ev = {.kind = EV_FINISH, .choice = c, .reason = reason, .malformed = malformed};
    return emit(s, &ev);
}

static err_code all_done(script *s, uint64_t thought) {
    event done = {.kind = EV_DONE, .record = records++, .completion_tokens = 20, .reasoning_tokens = thought};
    return emit(s, &done);
}

static err_code run_calls(script *s) {
    static const struct {
        event_kind kind;
        const char *text;
    } says[] = {{EV_RAW, "<think>Hm. Yes.</think><call>"},
                {EV_REASONING, "Hm."},
                {EV_REASONING, " Yes."},
                {EV_CALL, "f"},
                {EV_CALL_ARGS, "{\"a\":"},
                {EV_CALL_ARGS, " \"\xc3\xb6\"}"},
                {EV_CALL_END, NULL},
                {EV_CALL, "g"},
                {EV_CALL_ARGS, "{}"},
                {EV_CALL_END, NULL}};
    err_code rc = admit(s);
    for (uint32_t c = 0; c < s->r->n_choices; c++) {
        for (size_t i = 0; rc == ERR_OK && i < sizeof says / sizeof *says; i++)
            rc = say(s, c, says[i].kind, says[i].text);
        if (rc == ERR_OK) rc = over(s, c, "tool_calls", false);
    }
    return rc == ERR_OK ? all_done(s, 7) : rc;
}

static err_code run_broken_calls(script *s, bool cut) {
    err_code rc = admit(s);
    if (rc == ERR_OK) rc = say(s, 0, EV_CALL, "f");
    if (rc == ERR_OK) rc = say(s, 0, EV_CALL_ARGS, "{\"a");
    if (rc == ERR_OK && !cut) rc = say(s, 0, EV_CALL_DROP, NULL);
    if (rc == ERR_OK && !cut) rc = say(s, 0, EV_TEXT, "<call>{\"a\":");
    if (rc == ERR_OK) rc = over(s, 0, cut ? "length" : "stop", !cut);
    return rc == ERR_OK ? all_done(s, 0) : rc;
}

static err_code run_mixed(script *s) {
    err_code rc = admit(s);
    if (rc == ERR_OK) rc = say(s, 0, EV_REASONING, "Hm.");
    if (rc == ERR_OK) rc = say(s, 0, EV_TEXT, "Let me ");
    if (rc == ERR_OK) rc = say(s, 0, EV_TEXT, "look.");
    if (rc == ERR_OK) rc = say(s, 0, EV_CALL, "f");
    if (rc == ERR_OK) rc = say(s, 0, EV_CALL_END, NULL); /* no arguments at all */
    if (rc == ERR_OK) rc = say(s, 0, EV_TEXT, "And th");
    if (rc == ERR_OK) rc = over(s, 0, "length", false);
    return rc == ERR_OK ? all_done(s, 1) : rc;
}

static err_code run_bad_arguments(script *s) {
    err_code rc = admit(s);
    if (rc == ERR_OK) rc = say(s, 0, EV_CALL, "f");
    if (rc == ERR_OK) rc = say(s, 0, EV_CALL_ARGS, "[1");
    if (rc == ERR_OK) rc = say(s, 0, EV_CALL_END, NULL);
    if (rc == ERR_OK) rc = over(s, 0, "tool_calls", false);
    return rc == ERR_OK ? all_done(s, 0) : rc;
}

static err_code run_long_call(script *s) {
    char piece[101];
    memset(piece, 'x', 100);
    piece[100] = 0;
    err_code rc = admit(s);
    if (rc == ERR_OK) rc = say(s, 0, EV_CALL, "f");
    if (rc == ERR_OK) rc = say(s, 0, EV_CALL_ARGS, "{\"a\":\"");
    for (int i = 0; i < 100 && rc == ERR_OK; i++) rc = say(s, 0, EV_CALL_ARGS, piece);
    if (rc == ERR_OK) rc = say(s, 0, EV_CALL_ARGS, "\"}");
    if (rc == ERR_OK) rc = say(s, 0, EV_CALL_END, NULL);
    if (rc == ERR_OK) rc = over(s, 0, "tool_calls", false);
    return rc == ERR_OK ? all_done(s, 0) : rc;
}

static err_code run_filtered(script *s) {
    err_code rc = admit(s);
    if (rc == ERR_OK) rc = text(s, 0, "Hel", 3, true);
    if (rc == ERR_OK) rc = over(s, 0, "content_filter", false);
    return rc == ERR_OK ? all_done(s, 0) : rc;
}

static err_code run_stopped(script *s) {
    char own[REQUEST_STOP_BYTES_MAX + 1] = ""; /* the dialect must find it among its own */
    if (s->r->n_stops) snprintf(own, sizeof own, "%s", s->r->stops[s->r->n_stops - 1]);
    err_code rc = admit(s);
    if (rc == ERR_OK) rc = text(s, 0, "Hello", 5, true);
    event ev = {.kind = EV_FINISH, .reason = "stop", .stop = own};
    if (rc == ERR_OK) rc = emit(s, &ev);
    return rc == ERR_OK ? all_done(s, 0) : rc;
}

static err_code run_show(script *s) {
    buf b = {.max = 1 << 20};
    err e;
    must(json_canonical(&b, s->r->messages, &e) == ERR_OK);
    if (s->r->has_context) buf_printf(&b, " in %d/%d", s->r->context.level, s->r->context.flags);
    if (s->r->label) buf_printf(&b, " as %s", s->r->label);
    err_code rc = admit(s);
    if (rc == ERR_OK) rc = text(s, 0, buf_str(&b), b.len, true);
    buf_free(&b);
    return rc == ERR_OK ? finish(s, 2) : rc;
}

static err_code run_until_gone(script *s, err *e, bool admits, const char *tick) {
    if (admits && admit(s) != ERR_OK) return cancelled(e);
    for (int i = 0; i < 4000; i++) { /* 20 s: then the test has failed */
        if (gone(s) || (tick && text(s, 0, tick, strlen(tick), false) != ERR_OK)) return cancelled(e);
        usleep(5000);
    }
    return err_set(e, ERR_INTERNAL, "nobody cancelled the scripted pipeline");
}

static err_code run_flood(script *s, err *e) {
    static char block[16384];
    memset(block, 'x', sizeof block);
    if (admit(s) != ERR_OK) return cancelled(e);
    for (int i = 0; i < 4096; i++)
        if (text(s, 0, block, sizeof block, false) != ERR_OK) return cancelled(e);
    return finish(s, 4096);
}

static err_code run(script *s, err *e) {
    const char *m = s->r->model;
    if (strcmp(m, "ok") == 0 || strcmp(m, "ultra") == 0) return run_ok(s) == ERR_OK ? ERR_OK : cancelled(e);
    if (strcmp(m, "calls") == 0) return run_calls(s) == ERR_OK ? ERR_OK : cancelled(e);
    if (strcmp(m, "broken calls") == 0) return run_broken_calls(s, false) == ERR_OK ? ERR_OK : cancelled(e);
    if (strcmp(m, "half a call") == 0) return run_broken_calls(s, true) == ERR_OK ? ERR_OK : cancelled(e);
    if (strcmp(m, "mixed") == 0) return run_mixed(s) == ERR_OK ? ERR_OK : cancelled(e);
    if (strcmp(m, "bad arguments") == 0) return run_bad_arguments(s) == ERR_OK ? ERR_OK : cancelled(e);
    if (strcmp(m, "long call") == 0) return run_long_call(s) == ERR_OK ? ERR_OK : cancelled(e);
    if (strcmp(m, "filtered") == 0) return run_filtered(s) == ERR_OK ? ERR_OK : cancelled(e);
    if (strcmp(m, "stopped") == 0) return run_stopped(s) == ERR_OK ? ERR_OK : cancelled(e);
    if (strcmp(m, "show") == 0) return run_show(s) == ERR_OK ? ERR_OK : cancelled(e);
    if (strcmp(m, "late") == 0) {
        usleep(2500000);
        return run_ok(s) == ERR_OK ? ERR_OK : cancelled(e);
    }
    if (strcmp(m, "busy") == 0) return err_set(e, ERR_BUSY, "the queue is full");
    if (strcmp(m, "down") == 0) return err_set(e, ERR_UNAVAILABLE, "the ledger cannot be written");
    if (strcmp(m, "long") == 0) return err_set(e, ERR_TOO_LONG, "the prompt has 9 tokens, 8 fit");
    if (strcmp(m, "ticking") == 0) return run_until_gone(s, e, true, "tick ");
    if (strcmp(m, "silent") == 0) return run_until_gone(s, e, true, NULL);
    if (strcmp(m, "waiting") == 0) return run_until_gone(s, e, false, NULL);
    if (strcmp(m, "flood") == 0) return run_flood(s, e);
    if (strcmp(m, "breaks") == 0) {
        if (admit(s) != ERR_OK || text(s, 0, "half", 4, true) != ERR_OK) return cancelled(e);
        return err_set(e, ERR_IO, "/srv/island/ledger: the disk is full");
    }
    return err_set(e, ERR_NOT_FOUND, "model \"%s\": there is none of that name", m);
}

err_code pipeline_check(inference *inf, const request *r, const event_sink *sink, err *e) {
    return ERR_OK;
}

err_code pipeline_run(inference *inf, const request *r, const event_sink *sink, err *e) {
    script s = {.r = r, .sink = sink};
    if (atomic_load(&draining)) return err_set(e, ERR_UNAVAILABLE, "the server is stopping");
    scripted_running++;
    scripted_runs++;
    err_code rc = run(&s, e);
    scripted_running--;
    cJSON_Delete(s.turn);
    buf_free(&s.text);
    buf_free(&s.thought);
    buf_free(&s.args);
    return rc;
}

err_code pipeline_count(inference *inf, const request *r, uint64_t *n, err *e) {
    *n = (uint64_t)cJSON_GetArraySize(r->messages) * 10 + (r->tools ? 5 : 0);
    return strcmp(r->model, "ok") == 0 ? ERR_OK : err_set(e, ERR_NOT_FOUND, "model \"%s\": there is none", r->model);
}

void inference_drain(inference *inf, int64_t timeout_ms) {
    uint64_t until = time_mono_ns() + (uint64_t)timeout_ms * 1000000u;
    while (scripted_running && time_mono_ns() < until) usleep(1000);
    atomic_store(&draining, true);
}

/* ---- the rest of inference.h: no models --------------------------------------------------------------------- */

err_code inference_open(inference **out, island *i, err *e) {
    atomic_store(&draining, false);
    *out = NULL;
    of = i;
    return ERR_OK;
}
void inference_close(inference *inf) {}
err_code inference_load(inference *inf, const char *name, err *e) {
    return ERR_OK;
}

err_code models_add(island *i, const identity *by, const char *path, const char *name, store_progress progress,
                    void *ctx, cJSON **out, err *e) {
    *out = cJSON_CreateObject();
    return cJSON_AddStringToObject(*out, "name", name) ? ERR_OK : err_nomem(e, "a reply");
}
err_code models_pull(island *i, const identity *by, const pull_options *o, cJSON **out, err *e) {
    return err_set(e, ERR_DENIED, "no hub here");
}
err_code models_list(island *i, cJSON **out, err *e) {
    *out =
        cJSON_Parse("{\"models\":[{\"name\":\"ok\",\"digest\":\"00ff\",\"created\":1790000000},{\"name\":\"a/b\"}]}");
    return *out ? ERR_OK : err_nomem(e, "a reply");
}
err_code models_show(island *i, const char *name, cJSON **out, err *e) {
    if (strcmp(name, "a/b") != 0) return err_set(e, ERR_NOT_FOUND, "model \"%s\": there is none of that name", name);
    *out = cJSON_Parse("{\"name\":\"a/b\",\"arch\":\"llama\",\"quant\":\"Q4_0\",\"parameters\":1240000000,"
                       "\"context\":4096,\"has_template\":true}");
    return *out ? ERR_OK : err_nomem(e, "a reply");
}
err_code models_verify(island *i, const char *name, cJSON **out, err *e) {
    return models_show(i, name, out, e);
}
err_code models_remove(island *i, const identity *by, const char *name, err *e) {
    return ERR_OK;
}
err_code models_resolve(island *i, const char *name, char *path, size_t cap, uint8_t digest[SHA256_LEN], err *e) {
    return err_set(e, ERR_NOT_FOUND, "no models here");
}
