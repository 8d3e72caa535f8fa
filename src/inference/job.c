#include "inference/scheduler_internal.h"

#include "base/mem.h"

#include <string.h>

/* ---- the mailbox ------------------------------------------------------------------------------------------ */

typedef struct piece_head { /* then the text, padded to 8, then the tokens */
    uint32_t kind, event;
    uint64_t choice, len, n_tokens;
    const char *reason; /* static */
    const char *stop;   /* the caller's */
    uint64_t malformed;
} piece_head;

static size_t pad8(size_t n) {
    return (n + 7) & ~(size_t)7;
}

static void put_piece(buf *to, event_kind what, uint32_t c, const char *p, size_t len, const token_info *tokens,
                      size_t n_tokens) {
    static const char zeros[8];
    piece_head h = {.kind = PIECE_TEXT, .event = what, .choice = c, .len = len, .n_tokens = n_tokens};
    buf_append(to, &h, sizeof h);
    if (len) buf_append(to, p, len);
    buf_append(to, zeros, pad8(len) - len);
    if (n_tokens) buf_append(to, tokens, n_tokens * sizeof *tokens);
}

bool job_post(job *j, uint32_t c, answer_text *a, const char *reason) {
    choice *of = &j->choices[c];
    size_t n_tokens = answer_text_ready_tokens(a), len = a->ready;
    pthread_mutex_lock(&j->lock);
    if (len || n_tokens) put_piece(&j->in, EV_TEXT, c, a->text.ptr, len, a->tokens, n_tokens);
    if (of->events.len) buf_append(&j->in, of->events.ptr, of->events.len);
    if (reason) {
        piece_head h = {.kind = PIECE_FINISH,
                        .choice = c,
                        .reason = reason,
                        .stop = a->stopped ? a->stop : NULL,
                        .malformed = of->parser && answer_parser_malformed(of->parser)};
        buf_append(&j->in, &h, sizeof h);
    }
    buf_reset(&of->events);
    bool ok = !j->in.failed;
    if (j->in.len > JOB_MAILBOX_PAUSE) atomic_store(&j->paused, true);
    pthread_cond_signal(&j->cond);
    pthread_mutex_unlock(&j->lock);
    answer_text_taken(a);
    return ok;
}

void job_post_end(job *j, err_code rc, const err *why) {
    pthread_mutex_lock(&j->lock);
    j->rc = rc;
    if (why) j->error = *why;
    j->done = true;
    pthread_cond_signal(&j->cond);
    pthread_mutex_unlock(&j->lock); /* from here on the owner may free it */
}

/* Take what the engine thread has put in. false: nothing within the time. */
static bool mailbox_swap(job *j, int64_t timeout_ms, bool *done) {
    buf_reset(&j->out);
    j->out_at = 0;
    pthread_mutex_lock(&j->lock);
    if (!j->in.len && !j->done) cond_wait_ms(&j->cond, &j->lock, timeout_ms);
    buf t = j->in;
    j->in = j->out;
    j->out = t;
    *done = j->done;
    pthread_mutex_unlock(&j->lock);
    if (atomic_exchange(&j->paused, false)) scheduler_kick(j->s);
    return j->out.len > 0;
}

void job_next(job *j, piece *out, int64_t timeout_ms) {
    *out = (piece){.kind = PIECE_NONE};
    bool done = false;
    if (j->out_at == j->out.len && !mailbox_swap(j, timeout_ms, &done)) {
        if (done) out->kind = PIECE_END;
        return;
    }
    piece_head h;
    const char *p = j->out.ptr + j->out_at;
    memcpy(&h, p, sizeof h);
    p += sizeof h;
    out->kind = (piece_kind)h.kind;
    out->choice = (uint32_t)h.choice;
    out->text = p;
    out->len = h.len;
    out->n_tokens = h.n_tokens;
    out->tokens = h.n_tokens ? (const void *)(p + pad8(h.len)) : NULL;
    out->reason = h.reason;
    out->stop = h.stop;
    out->event = (event_kind)h.event;
    out->malformed = h.malformed != 0;
    j->out_at += sizeof h + pad8(h.len) + h.n_tokens * sizeof(token_info);
}

/* ---- reading the answer ----------------------------------------------------------------------------------- */

static void on_answer(void *ctx, answer_event_kind kind, const char *p, size_t n) {
    static const event_kind events[] = {
        [AE_TEXT] = EV_TEXT,      [AE_REASONING] = EV_REASONING, [AE_CALL] = EV_CALL,
        [AE_ARGS] = EV_CALL_ARGS, [AE_CALL_END] = EV_CALL_END,   [AE_CALL_DROP] = EV_CALL_DROP};
    choice *c = ctx;
    put_piece(&c->events, events[kind], c->index, p, n, NULL, 0);
}

/* Read what is ready, with the special token that stands behind it. */
static void choice_parse(choice *c, const char *special, size_t n_special) {
    answer_text *a = &c->text;
    size_t n_tokens = answer_text_ready_tokens(a);
    if (a->ready || n_tokens) put_piece(&c->events, EV_RAW, c->index, a->text.ptr, a->ready, a->tokens, n_tokens);
    if (a->ready) answer_parser_text(c->parser, a->text.ptr, a->ready);
    answer_text_taken(a);
    if (n_special) {
        put_piece(&c->events, EV_RAW, c->index, special, n_special, NULL, 0);
        answer_parser_special(c->parser, special, n_special);
    }
    a->failed |= c->events.failed || answer_parser_failed(c->parser);
}

void choice_text(choice *c, const char *p, size_t n, const token_info *info) {
    answer_text_feed(&c->text, p, n, info);
    if (!c->parser) return;
    bool thinks = answer_parser_is_reasoning(c->parser);
    choice_parse(c, NULL, 0);
    c->reasoning_tokens += thinks || answer_parser_is_reasoning(c->parser);
}

void choice_special(choice *c, const char *spelling, size_t n, const token_info *info) {
    bool thinks = answer_parser_is_reasoning(c->parser);
    answer_text_break(&c->text, info);
    choice_parse(c, spelling, n);
    c->reasoning_tokens += thinks || answer_parser_is_reasoning(c->parser);
}

bool choice_has_enough(const choice *c) {
    return c->text.stopped || (c->parser && answer_parser_stopped(c->parser));
}

const char *choice_over(choice *c, const char *reason) {
    answer_text_end(&c->text);
    if (!c->parser) return reason;
    bool cut = strcmp(reason, "length") == 0;
    choice_parse(c, NULL, 0);
    answer_parser_end(c->parser, cut);
    c->text.failed |= c->events.failed || answer_parser_failed(c->parser);
    return !cut && answer_parser_n_calls(c->parser) ? "tool_calls" : reason;
}

/* ---- making and freeing ----------------------------------------------------------------------------------- */

static err_code check_spec(const scheduler *s, const job_spec *spec, err *e) {
    if (!spec->n_prompt) return err_set(e, ERR_INVALID, "prompt: it has no tokens");
    if (!spec->n_choices || spec->n_choices > REQUEST_CHOICES_MAX)
        return err_set(e, ERR_INVALID, "n: %u choices, 1 to %d are allowed", spec->n_choices, REQUEST_CHOICES_MAX);
    if (spec->n_top > SAMPLER_TOP_MAX)
        return err_set(e, ERR_INVALID, "logprobs: %u, at most %d are given", spec->n_top, SAMPLER_TOP_MAX);
    if ((uint64_t)spec->n_prompt + spec->max_new > s->context)
        return err_set(e, ERR_TOO_LONG, "the prompt's %u tokens and %u new ones are more than the %u that fit",
                       spec->n_prompt, spec->max_new, s->context);
    return sampler_params_check(&spec->sampling, s->n_vocab, e);
}

static err_code choice_init(choice *c, job *j, uint32_t index, err *e) {
    const job_spec *spec = &j->spec;
    c->j = j;
    c->index = index;
    c->seq = -1;
    sha256_init(&c->digest);
    sha256_init(&c->prompt_digest);
    guess_init(&c->guessing);
    answer_text_init(&c->text, &j->stops);
    buf_init(&c->events, JOB_MAILBOX_MAX);
    c->cap_new = (spec->max_new < 256 ? spec->max_new : 256) + 2 * GUESS_MAX;
    c->new_tokens = mem_array(c->cap_new, sizeof *c->new_tokens);
    if (!c->new_tokens) return err_nomem(e, "a choice");
    answer_parser_options po = {.tools = spec->tools,
                                .one_call = spec->one_call,
                                .prompt = spec->prompt_text,
                                .prompt_len = spec->prompt_text_len,
                                .emit = on_answer,
                                .ctx = c};
    err_code rc = spec->format ? answer_parser_new(&c->parser, spec->format, &po, e) : ERR_OK;
    if (rc) return rc;
    sampler_params p = spec->sampling;
    p.seed += index;
    rc = sampler_new(&c->sampler, j->s->m, &p, e);
    if (!rc) sampler_prompt(c->sampler, spec->prompt, spec->n_prompt);
    constraint *follow = NULL;
    if (!rc && spec->grammar) rc = constraint_new(&follow, spec->grammar, e);
    if (follow) sampler_constrain(c->sampler, follow);
    return rc;
}

/* A place in the queue. Places are freed when the job's last choice begins. */
static err_code take_place(scheduler *s, job *j, err *e) {
    err_code rc = ERR_OK;
    pthread_mutex_lock(&s->lock);
    uint32_t at_once = s->max_sequences > s->n_begun ? s->max_sequences - s->n_begun : 0;
    if (s->n_places >= (uint64_t)s->max_queue + at_once)
        rc = err_set(e, ERR_BUSY, "the queue is full: %u requests wait already; try again later", s->n_places);
    else if (!(j->owner = waiting_know(&s->queue, j->spec.owner)))
        rc = err_nomem(e, "a job");
    else
        s->n_places++;
    pthread_mutex_unlock(&s->lock);
    if (!rc) metric_add(s->m_queue, 1);
    return rc;
}

static void job_release(job *j) {
    for (uint32_t i = 0; j->choices && i < j->spec.n_choices; i++) {
        choice *c = &j->choices[i];
        sampler_free(c->sampler);
        answer_text_free(&c->text);
        answer_parser_free(c->parser);
        if (c->events.ptr) mem_wipe(c->events.ptr, c->events.cap);
        buf_free(&c->events);
        mem_free(c->new_tokens);
    }
    mem_free(j->choices);
    if (j->out.ptr) mem_wipe(j->out.ptr, j->out.cap);
    if (j->in.ptr) mem_wipe(j->in.ptr, j->in.cap);
    buf_free(&j->out);
    buf_free(&j->in);
    pthread_cond_destroy(&j->cond);
    pthread_mutex_destroy(&j->lock);
    mem_free(j);
}

err_code job_new(job **out, scheduler *s, const job_spec *spec, err *e) {
    *out = NULL;
    err_code rc = check_spec(s, spec, e);
    if (rc) return rc;
    job *j = mem_zalloc(sizeof *j);
    if (!j) return err_nomem(e, "a job");
    j->s = s;
    j->spec = *spec;
    pthread_mutex_init(&j->lock, NULL);
    cond_init(&j->cond);
    buf_init(&j->in, JOB_MAILBOX_MAX);
    buf_init(&j->out, JOB_MAILBOX_MAX);
    j->choices = mem_array(spec->n_choices, sizeof *j->choices);
    if (!j->choices) rc = err_nomem(e, "a job");
    if (!rc) rc = stop_set_init(&j->stops, spec->stops, spec->n_stops, e);
    for (uint32_t i = 0; i < spec->n_choices && !rc; i++) rc = choice_init(&j->choices[i], j, i, e);
    if (!rc) rc = take_place(s, j, e);
    if (rc) {
        job_release(j);
        return rc;
    }
    j->n_live = spec->n_choices;
    *out = j;
    return ERR_OK;
}

void job_start(job *j) {
    scheduler *s = j->s;
    j->submitted_ns = time_mono_ns();
    pthread_mutex_lock(&s->lock);
    j->started = true;
    waiting_push(&s->queue, j);
    s->kick = true;
    pthread_cond_signal(&s->cond);
    pthread_mutex_unlock(&s->lock);
}

void job_cancel(job *j) {
    atomic_store(&j->cancelled, true);
    scheduler_kick(j->s);
}

void job_free(job *j) {
    if (!j) return;
    scheduler *s = j->s;
    if (j->started) {
        job_cancel(j);
        pthread_mutex_lock(&j->lock);
        while (!j->done) pthread_cond_wait(&j->cond, &j->lock);
        pthread_mutex_unlock(&j->lock);
    } else {
        pthread_mutex_lock(&s->lock);
        s->n_places--;
        pthread_mutex_unlock(&s->lock);
        metric_add(s->m_queue, -1);
    }
    pthread_mutex_lock(&s->lock);
    waiting_forget(&s->queue, j->owner);
    pthread_mutex_unlock(&s->lock);
    job_release(j);
}

/* ---- outcomes --------------------------------------------------------------------------------------------- */

err_code job_result(job *j, err *e) {
    pthread_mutex_lock(&j->lock);
    err_code rc = j->done ? j->rc : ERR_INTERNAL;
    if (rc) err_set(e, rc, "%s", j->done ? j->error.msg : "the job is not over");
    pthread_mutex_unlock(&j->lock);
    return rc;
}

void job_get_choice(job *j, uint32_t i, job_choice *out) {
    const choice *c = &j->choices[i];
    *out = (job_choice){
        .finish = c->reason, .tokens = c->new_tokens, .n_tokens = c->n_new, .steps = c->steps, .reused = c->reused};
    out->reasoning_tokens = c->reasoning_tokens;
    out->n_calls = c->parser ? answer_parser_n_calls(c->parser) : 0;
    out->malformed = c->parser && answer_parser_malformed(c->parser);
    memcpy(out->logits_sha256, c->logits_sha256, SHA256_LEN);
    out->rows = c->rows;
    out->prompt_rows = c->prompt_rows;
    memcpy(out->prompt_sha256, c->prompt_sha256, SHA256_LEN);
}

static uint64_t span(uint64_t from, uint64_t to) {
    return from && to > from ? to - from : 0;
}

void job_get_times(const job *j, job_times *out) {
    out->queue = span(j->submitted_ns, j->begun_ns ? j->begun_ns : j->ended_ns);
    out->prefill = span(j->begun_ns, j->first_ns ? j->first_ns : j->ended_ns);
    out->decode = span(j->first_ns, j->ended_ns);
}
