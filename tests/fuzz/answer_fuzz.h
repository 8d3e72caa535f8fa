/* Answers of providers, as a stream or at once. The first byte has the switches, the second says where a stream is cut,
 * the rest is the body. Cut otherwise the same events must come; whatever comes, the events of a choice are in order.
 */
#ifndef POLDER_TESTS_FUZZ_ANSWER_H
#define POLDER_TESTS_FUZZ_ANSWER_H

#include "inference/drivers/answer.h"

#include "base/bytes.h"
#include "base/json.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef err_code (*read_whole_fn)(answer *a, const char *json, size_t n, err *e);
typedef err_code (*read_event_fn)(answer *a, const sse_event *ev, err *e);

typedef struct fuzz_seen {
    buf log;
    bool in_call[REQUEST_CHOICES_MAX], finished[REQUEST_CHOICES_MAX];
    uint32_t n_vectors;
} fuzz_seen;

static void fuzz_event(fuzz_seen *s, const request *r, const event *ev) {
    if (r->embed) {
        if (ev->kind != EV_VECTOR || ev->input != s->n_vectors++ || !ev->n_vector || ev->input >= r->embed->n_inputs)
            abort();
        buf_append(&s->log, ev->vector, ev->n_vector * sizeof *ev->vector);
        return;
    }
    if (ev->choice >= r->n_choices || s->finished[ev->choice]) abort();
    bool *in = &s->in_call[ev->choice];
    switch (ev->kind) {
    case EV_TEXT:
        if (!utf8_valid(ev->text, ev->len) || (*in && ev->len)) abort();
        if (!ev->len && !ev->n_tokens) abort();
        break;
    case EV_REASONING:
        if (*in || !ev->len) abort();
        break;
    case EV_CALL:
        if (*in || !ev->len) abort();
        *in = true;
        break;
    case EV_CALL_ARGS:
        if (!*in) abort();
        break;
    case EV_CALL_END:
        if (!*in) abort();
        *in = false;
        break;
    case EV_FINISH:
        if (*in || !ev->reason) abort();
        s->finished[ev->choice] = true;
        buf_puts(&s->log, ev->reason);
        break;
    default: abort();
    }
    buf_putc(&s->log, (char)ev->kind);
    buf_putc(&s->log, (char)ev->choice);
    if (ev->len) buf_append(&s->log, ev->text, ev->len);
    for (size_t i = 0; i < ev->n_tokens; i++) {
        if (ev->tokens[i].n_text > 64 || ev->tokens[i].n_top > SAMPLER_TOP_MAX) abort();
        buf_append(&s->log, ev->tokens[i].text, ev->tokens[i].n_text);
    }
}

static void fuzz_drain(answer *a, fuzz_seen *s) {
    event ev;
    while (answer_next(a, &ev)) fuzz_event(s, a->r, &ev);
}

static void fuzz_stream(answer *a, fuzz_seen *s, read_event_fn read, const char *p, size_t n, size_t step) {
    sse in;
    sse_event ev;
    err_code rc = ERR_OK;
    sse_init(&in);
    for (size_t at = 0; at < n && !rc && !a->ended;) {
        size_t k = n - at < step ? n - at : step;
        const char *piece = p + at;
        at += k;
        while (!rc && !a->ended && sse_next(&in, &piece, &k, &ev)) {
            err e = {0};
            rc = read(a, &ev, &e);
            if (rc && !e.msg[0]) abort();
            if (!rc) fuzz_drain(a, s);
        }
    }
    buf_putc(&s->log, (char)rc);
    sse_free(&in);
}

static void fuzz_run(const request *r, read_whole_fn whole, read_event_fn read, const char *p, size_t n, size_t step,
                     fuzz_seen *s) {
    answer a;
    err e = {0};
    *s = (fuzz_seen){.log = {.max = 1 << 24}};
    answer_init(&a, r, "fuzzed");
    if (r->stream) {
        fuzz_stream(&a, s, read, p, n, step);
    } else {
        err_code rc = whole(&a, p, n, &e);
        if (rc && !e.msg[0]) abort();
        if (!rc) fuzz_drain(&a, s);
        if (!rc && answer_check_end(&a, &e) == ERR_OK && r->embed && s->n_vectors != r->embed->n_inputs) abort();
    }
    for (uint32_t i = 0; i < r->n_choices; i++)
        if (!r->embed && s->finished[i] != (a.choices[i].finish != NULL)) { /* events that an error threw away */
            if (!a.n) abort();
        }
    answer_drop(&a);
}

static void fuzz_answer(read_whole_fn whole, read_event_fn read, const uint8_t *data, size_t size) {
    static const embed_input in[2] = {{.text = "a", .len = 1}, {.text = "b", .len = 1}};
    static const embed_request q = {.inputs = in, .n_inputs = 2};
    static cJSON *messages;
    base_init();
    if (!messages) messages = cJSON_Parse("[{\"role\":\"user\",\"content\":\"x\"}]");
    if (size < 2) return;
    request r = {.messages = data[0] & 2 ? NULL : messages,
                 .text = "x",
                 .text_len = 1,
                 .n_choices = 1 + (data[0] >> 2 & 1),
                 .stream = data[0] & 1,
                 .want_logprobs = data[0] & 8,
                 .one_call = data[0] & 16,
                 .parse = true};
    if (data[0] & 32) r.embed = &q, r.stream = false;
    fuzz_seen one, other;
    fuzz_run(&r, whole, read, (const char *)data + 2, size - 2, size, &one);
    fuzz_run(&r, whole, read, (const char *)data + 2, size - 2, 1 + data[1] % 9, &other);
    if (one.log.len != other.log.len || (one.log.len && memcmp(one.log.ptr, other.log.ptr, one.log.len) != 0)) abort();
    buf_free(&one.log);
    buf_free(&other.log);
}

#endif
