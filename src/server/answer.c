/* One answer: the runs of the pipeline that a request asks for, streamed or collected. */
#include "server/dialect.h"

#include "base/mem.h"

#include <string.h>

err_code answer_new(answer **out, const dialect *d, cJSON *body, err *e) {
    *out = NULL;
    answer *a = mem_zalloc(sizeof *a);
    if (!a) {
        cJSON_Delete(body);
        return err_nomem(e, "an answer");
    }
    a->d = d;
    a->body = body;
    a->n_runs = 1;
    a->r.dialect = d->name;
    a->r.n_choices = 1;
    a->r.max_tokens = -1;
    sampler_params_default(&a->r.sampling);
    *out = a;
    return ERR_OK;
}

void answer_free(answer *a) {
    if (!a) return;
    for (uint32_t i = 0; a->choices && i < a->n_choices; i++) {
        buf_free(&a->choices[i].text);
        for (int k = 0; k < ANSWER_PARTS; k++) buf_free(&a->choices[i].parts[k]);
    }
    for (uint32_t i = 0; a->prompts && i < a->n_runs; i++) mem_free(a->prompts[i].tokens);
    if (a->own_free) a->own_free(a->own);
    mem_free(a->choices);
    mem_free(a->prompts);
    mem_free(a->bias);
    mem_free(a->inputs);
    mem_free(a->ids);
    mem_free(a->grammar_source);
    cJSON_Delete(a->messages);
    cJSON_Delete(a->tools);
    cJSON_Delete(a->body);
    mem_free(a);
}

uint32_t answer_choice_index(const answer *a, const event *ev) {
    return a->run * a->r.n_choices + ev->choice;
}

choice *answer_choice(answer *a, const event *ev) {
    uint32_t i = answer_choice_index(a, ev);
    return i < a->n_choices ? &a->choices[i] : NULL;
}

size_t answer_bytes(const answer *a) {
    size_t n = 0;
    for (uint32_t i = 0; a->choices && i < a->n_choices; i++) {
        n += a->choices[i].text.len;
        for (int k = 0; k < ANSWER_PARTS; k++) n += a->choices[i].parts[k].len;
    }
    return n;
}

typedef struct running {
    answer *a;
    const answer_sink *sink;
    buf out;
    err *e;
    bool over; /* what the dialect does at the end has failed: e says why */
} running;

/* What every answer keeps of an event, streamed or not. */
static void note_event(answer *a, const event *ev) {
    choice *c = answer_choice(a, ev);
    switch (ev->kind) {
    case EV_ADMITTED:
        if (a->admitted) break;
        a->admitted = true;
        a->record = ev->record;
        a->seed = ev->seed;
        a->created_unix_s = ev->created_unix_s;
        text_copy(a->fingerprint, sizeof a->fingerprint, ev->fingerprint ? ev->fingerprint : "");
        text_copy(a->label, sizeof a->label, ev->label ? ev->label : "");
        text_copy(a->route, sizeof a->route, ev->route ? ev->route : "");
        break;
    case EV_CALL:
        if (c) c->n_calls++;
        break;
    case EV_FINISH:
        if (c) c->malformed = ev->malformed;
        if (c) text_copy(c->reason, sizeof c->reason, ev->reason ? ev->reason : "stop");
        break;
    case EV_DONE:
        a->prompt_tokens += ev->prompt_tokens;
        a->completion_tokens += ev->completion_tokens;
        a->reasoning_tokens += ev->reasoning_tokens;
        a->cached_tokens += ev->cached_tokens;
        a->completed = ev->record;
        break;
    default: break;
    }
}

static err_code collect(answer *a, const event *ev) {
    choice *c = answer_choice(a, ev);
    if (ev->kind == EV_ADMITTED || ev->kind == EV_DONE) return ERR_OK;
    if (!c) return ERR_INTERNAL;
    if (ev->kind == EV_TEXT) buf_append(&c->text, ev->text ? ev->text : "", ev->len);
    if (a->r.want_logprobs && (ev->kind == EV_TEXT || ev->kind == EV_RAW)) a->d->tokens(a, c, ev);
    if (a->d->collect) a->d->collect(a, c, ev);
    bool failed = c->text.failed;
    for (int k = 0; k < ANSWER_PARTS; k++) failed = failed || c->parts[k].failed;
    return failed ? ERR_NOMEM : ERR_OK;
}

static err_code on_event(void *ctx, const event *ev) {
    running *n = ctx;
    answer *a = n->a;
    bool first = ev->kind == EV_ADMITTED && !a->admitted;
    note_event(a, ev);
    if (first && n->sink->admitted) n->sink->admitted(n->sink->ctx, a);
    if (ev->kind == EV_DONE && a->run + 1 == a->n_runs && a->d->done) {
        err_code rc = a->d->done(a, n->e);
        n->over = rc != ERR_OK;
        if (rc != ERR_OK) return rc;
    }
    if (!n->sink->write) return collect(a, ev);
    buf_reset(&n->out);
    a->d->chunk(a, ev, &n->out);
    if (n->out.failed) return ERR_NOMEM;
    return n->out.len ? n->sink->write(n->sink->ctx, n->out.ptr, n->out.len) : ERR_OK;
}

static bool on_gone(void *ctx) {
    running *n = ctx;
    return n->sink->gone && n->sink->gone(n->sink->ctx);
}

static err_code make_choices(answer *a, err *e) {
    uint32_t total = a->n_runs * a->r.n_choices; /* at most 256 * 16 */
    a->choices = mem_array(total, sizeof *a->choices);
    if (!a->choices) return err_nomem(e, "the choices of an answer");
    a->n_choices = total;
    for (uint32_t i = 0; i < total; i++) {
        buf_init(&a->choices[i].text, ANSWER_BYTES_MAX);
        for (int k = 0; k < ANSWER_PARTS; k++) buf_init(&a->choices[i].parts[k], ANSWER_BYTES_MAX);
    }
    return ERR_OK;
}

static void choose_prompt(answer *a, uint32_t run) {
    a->run = run;
    if (!a->prompts) return;
    const prompt *p = &a->prompts[run];
    a->r.text = p->text;
    a->r.text_len = p->text ? strlen(p->text) : 0;
    a->r.tokens = p->tokens;
    a->r.n_tokens = p->n_tokens;
}

err_code answer_run(answer *a, inference *inf, const answer_sink *sink, err *e) {
    err_code rc = make_choices(a, e);
    err last = {.code = ERR_OK};
    running n = {.a = a, .sink = sink, .e = &last};
    buf_init(&n.out, ANSWER_BYTES_MAX);
    event_sink es = {.ctx = &n, .event = on_event, .gone = on_gone};
    /* bad input changes nothing: the last prompt is looked at before the first is answered */
    for (uint32_t i = 1; rc == ERR_OK && i < a->n_runs; i++) {
        choose_prompt(a, i);
        rc = pipeline_check(inf, &a->r, &es, e);
    }
    for (uint32_t i = 0; rc == ERR_OK && i < a->n_runs; i++) {
        choose_prompt(a, i);
        rc = pipeline_run(inf, &a->r, &es, e);
    }
    if (n.over) { /* the run itself was good, so its own result says nothing of this */
        if (e) *e = last;
        rc = last.code;
    }
    buf_free(&n.out);
    return rc;
}
