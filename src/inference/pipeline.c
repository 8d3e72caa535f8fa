/* The way of a request, stage by stage. Every answer of polder goes through pipeline_run.
 *
 *   enter    not while the server stops
 *   check    the request makes sense at all
 *   route    model name → artifact → the driver that runs it
 *   prepare  the driver makes the prompt, checks that it fits, takes a place; ERR_BUSY ends here, without a record
 *   admit    the admitted record is durable; the client hears of it (EV_ADMITTED)
 *   answer   the driver streams text and finish reasons
 *   close    the completed or failed record is durable; only then EV_DONE, or the error
 *
 * Has caused bugs: a completed record of which it is not known whether it was written (ERR_UNAVAILABLE) must not be
 * followed by a failed one; every admitted record has exactly one outcome.
 */
#include "inference/internal.h"

#include "base/mem.h"
#include "base/sys.h"

#include <string.h>

typedef struct run { /* one request on its way */
    inference *inf;
    const request *r;
    const event_sink *client;
    const driver *d;
    driver_call call;
    uint64_t admitted; /* seq of the record */
    driver_outcome outcome;
    bool is_raw;                      /* the driver tells the answer as it was written, beside what was read from it */
    buf answers[REQUEST_CHOICES_MAX]; /* the text of each choice as it went out */
} run;

/* ---- the client ------------------------------------------------------------------------------------------- */

static err_code tell(run *x, const event *ev) {
    return x->client && x->client->event ? x->client->event(x->client->ctx, ev) : ERR_OK;
}

static bool run_gone(void *ctx) {
    run *x = ctx;
    return atomic_load(&x->inf->cancel_all) || (x->client && x->client->gone && x->client->gone(x->client->ctx));
}

/* Between driver and client: what goes out is kept for the record. */
static err_code run_event(void *ctx, const event *ev) {
    run *x = ctx;
    if (ev->kind == EV_RAW || (ev->kind == EV_TEXT && !x->is_raw)) {
        buf *a = &x->answers[ev->choice];
        x->is_raw = ev->kind == EV_RAW;
        buf_append(a, ev->text, ev->len);
        if (a->failed) return buf_check(a, "an answer", NULL);
    }
    if (ev->kind == EV_FINISH && ev->malformed) {
        metric_add(x->inf->m_malformed, 1);
        log_msg(LOG_WARN, "pipeline", "record %llu: malformed_tool_call: choice %u went out as text",
                (unsigned long long)x->admitted, ev->choice);
    }
    return tell(x, ev);
}

/* ---- check and route -------------------------------------------------------------------------------------- */

static err_code stage_check(const request *r, err *e) {
    if (!r->model || !*r->model) return err_set(e, ERR_INVALID, "model: a name is needed");
    if (!utf8_valid(r->model, strlen(r->model)) || strlen(r->model) > MODEL_NAME_MAX)
        return err_set(e, ERR_NOT_FOUND, "model '%.80s' is not known here: a name has at most %d characters", r->model,
                       MODEL_NAME_MAX);
    if (r->embed) return ERR_OK; /* its driver checks the rest */
    if (!r->n_choices || r->n_choices > REQUEST_CHOICES_MAX)
        return err_set(e, ERR_INVALID, "n: %u choices, 1 to %d are allowed", r->n_choices, REQUEST_CHOICES_MAX);
    if (r->n_stops > REQUEST_STOPS_MAX)
        return err_set(e, ERR_INVALID, "stop: %u strings, at most %d are allowed", r->n_stops, REQUEST_STOPS_MAX);
    if (r->n_top > SAMPLER_TOP_MAX)
        return err_set(e, ERR_INVALID, "logprobs: %u, at most %d are given", r->n_top, SAMPLER_TOP_MAX);
    if (r->max_tokens < -1) return err_set(e, ERR_INVALID, "max_tokens: %lld is negative", (long long)r->max_tokens);
    if (r->n_top && !r->want_logprobs)
        return err_set(e, ERR_INVALID, "top_logprobs: they come with log-probabilities only; ask for logprobs as well");
    return ERR_OK;
}

static err_code no_text(const char *name, const model *m, err *e) {
    bool ranks = model_get_facts(m)->pooling == POOLING_RANK;
    return err_set(e, ERR_UNSUPPORTED, "model '%s' %s and generates no text: ask it by %s", name,
                   ranks ? "ranks documents" : "makes embeddings", ranks ? "/v1/rerank" : "/v1/embeddings");
}

static err_code no_vectors(const request *r, err *e) {
    return err_set(e, ERR_UNSUPPORTED,
                   "model '%s' generates text: its file names no pooling, so it %s; take a model that was made for it",
                   r->model, r->embed->query ? "cannot rank documents" : "makes no embeddings");
}

/* One kind of candidate so far: an artifact that the local engine runs. */
static err_code stage_route(run *x, err *e) {
    loaded *l = NULL;
    err_code rc = inference_get_loaded(x->inf, x->r->model, run_gone, x, &l, e);
    if (rc) return rc;
    if (!x->r->embed && !l->sched) return no_text(x->r->model, l->m, e);
    if (x->r->embed && !l->emb) return no_vectors(x->r, e);
    x->d = x->r->embed ? &driver_embed : &driver_engine;
    x->call = (driver_call){.r = x->r,
                            .seed = x->r->has_seed ? x->r->sampling.seed : random_u64(),
                            .max_output_tokens = (uint64_t)island_get_config(x->inf->i)->inference_max_output_tokens,
                            .target = l};
    return ERR_OK;
}

/* ---- admit ------------------------------------------------------------------------------------------------ */

/* A refusal of the ledger: nothing is answered, and that is counted. */
static err_code ledger_refused(run *x, err_code rc, const char *what, err *e) {
    metric_add(x->inf->m_ledger_refusals, 1);
    log_msg(LOG_ERROR, "pipeline", "the %s record was refused: %s", what, e ? e->msg : err_name(rc));
    char why[ERR_MSG_MAX] = "";
    if (e) memcpy(why, e->msg, sizeof why);
    return err_set(e, ERR_UNAVAILABLE, "the ledger cannot be written, so nothing is answered: %s", why);
}

/* On ERR_OK the record is durable. */
static err_code stage_admit(run *x, err *e) {
    record *rec = NULL;
    err_code rc = (x->r->embed ? records_embed_admitted : records_admitted)(&rec, x->inf, x->d, &x->call, e);
    if (rc) return rc;
    rc = ledger_append(island_ledger(x->inf->i), rec, &x->admitted, e);
    record_free(rec);
    if (rc == ERR_TOO_LARGE || rc == ERR_INVALID) return rc; /* the request's own fault: its record would not fit */
    return rc ? ledger_refused(x, rc, "admitted", e) : ERR_OK;
}

/* ---- answer ----------------------------------------------------------------------------------------------- */

static err_code stage_answer(run *x, err *e) {
    x->outcome.n_choices = x->r->embed ? 0 : x->r->n_choices;
    for (uint32_t i = 0; i < REQUEST_CHOICES_MAX; i++) buf_init(&x->answers[i], LEDGER_CONTENT_MAX);
    metric_add(x->inf->m_tokens_in, (double)x->call.n_prompt_tokens);
    event ev = {.kind = EV_ADMITTED,
                .record = x->admitted,
                .seed = x->call.seed,
                .created_unix_s = time_unix_ms() / 1000,
                .fingerprint = x->call.fingerprint};
    if (tell(x, &ev) != ERR_OK) return err_set(e, ERR_CANCELLED, "the request was cancelled");
    event_sink sink = {.ctx = x, .event = run_event, .gone = run_gone};
    err_code rc = x->d->run(&x->call, &sink, &x->outcome, e);
    for (uint32_t i = 0; i < x->outcome.n_choices && rc == ERR_CANCELLED; i++) {
        if (x->answers[i].failed) rc = buf_check(&x->answers[i], "an answer", e);
    }
    metric_add(x->inf->m_tokens_out, (double)x->outcome.completion_tokens);
    return rc;
}

/* ---- close ------------------------------------------------------------------------------------------------ */

/* Write one outcome record. *made: the ledger may have it, so no other outcome may follow. */
static err_code append_outcome(run *x, err_code rc, bool with_contents, bool *made, uint64_t *seq, err *e) {
    record *rec = NULL;
    err_code bad = x->r->embed
                       ? records_embed_outcome(&rec, x->admitted, rc, &x->call, &x->outcome, with_contents, e)
                       : records_outcome(&rec, x->admitted, rc, &x->call, &x->outcome, x->answers, with_contents, e);
    *made = false;
    if (bad) return bad;
    bad = ledger_append(island_ledger(x->inf->i), rec, seq, e);
    record_free(rec);
    *made = bad == ERR_OK || bad == ERR_UNAVAILABLE;
    return bad;
}

static void write_failed(run *x, err_code rc) {
    bool made;
    uint64_t seq;
    err e = {0};
    err_code bad = append_outcome(x, rc, true, &made, &seq, &e);
    if (!made) bad = append_outcome(x, rc, false, &made, &seq, &e);
    if (bad) (void)ledger_refused(x, bad, "failed", &e);
}

/* rc and *e are how the answer ended. */
static err_code stage_close(run *x, err_code rc, err *e) {
    if (rc) {
        write_failed(x, rc);
        return rc;
    }
    bool made;
    uint64_t seq = 0;
    rc = append_outcome(x, ERR_OK, true, &made, &seq, e);
    if (rc) {
        if (!made) write_failed(x, rc);
        return made ? ledger_refused(x, rc, "completed", e) : rc;
    }
    event ev = {.kind = EV_DONE,
                .record = seq,
                .prompt_tokens = x->call.n_prompt_tokens,
                .completion_tokens = x->outcome.completion_tokens,
                .reasoning_tokens = x->outcome.reasoning_tokens};
    (void)tell(x, &ev); /* whether the client still hears it changes nothing */
    return ERR_OK;
}

static void count(run *x, bool was_admitted, err_code rc) {
    inference *inf = x->inf;
    metric_add(!was_admitted         ? inf->m_refused
               : rc == ERR_OK        ? inf->m_completed
               : rc == ERR_CANCELLED ? inf->m_cancelled
                                     : inf->m_failed,
               1);
}

static void run_free(run *x) {
    if (x->d) x->d->release(&x->call);
    for (uint32_t i = 0; i < REQUEST_CHOICES_MAX; i++) {
        if (x->answers[i].ptr) mem_wipe(x->answers[i].ptr, x->answers[i].len);
        buf_free(&x->answers[i]);
    }
    mem_free(x);
}

/* Into the room; ERR_OK: run_end must follow. */
static err_code run_begin(run **out, inference *inf, const request *r, const event_sink *sink, err *e) {
    err_code rc = inference_enter(inf, e);
    if (rc) return rc;
    run *x = mem_zalloc(sizeof *x);
    if (!x) {
        inference_leave(inf);
        return err_nomem(e, "a request");
    }
    x->inf = inf;
    x->r = r;
    x->client = sink;
    *out = x;
    return ERR_OK;
}

static void run_end(run *x) {
    inference *inf = x->inf;
    run_free(x);
    inference_leave(inf);
}

/* All that can be refused without a record. */
static err_code run_prepare(run *x, err *e) {
    err_code rc = stage_check(x->r, e);
    if (!rc) rc = stage_route(x, e);
    return rc ? rc : x->d->prepare(&x->call, e);
}

err_code pipeline_check(inference *inf, const request *r, const event_sink *sink, err *e) {
    err local = {0};
    if (!e) e = &local;
    run *x = NULL;
    err_code rc = run_begin(&x, inf, r, sink, e);
    if (rc) return rc;
    rc = run_prepare(x, e);
    if (rc) count(x, false, rc);
    run_end(x);
    return rc;
}

err_code pipeline_run(inference *inf, const request *r, const event_sink *sink, err *e) {
    err local = {0};
    if (!e) e = &local;
    run *x = NULL;
    err_code rc = run_begin(&x, inf, r, sink, e);
    if (rc) return rc;
    rc = run_prepare(x, e);
    if (!rc) rc = stage_admit(x, e);
    bool admitted = rc == ERR_OK;
    if (admitted) rc = stage_answer(x, e);
    if (admitted) rc = stage_close(x, rc, e);
    count(x, admitted, rc);
    run_end(x);
    return rc;
}
