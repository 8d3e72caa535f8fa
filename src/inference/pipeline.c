/* The way of a request, stage by stage. Every answer of polder goes through pipeline_run.
 *
 *   enter    not while the server stops
 *   check    the request makes sense at all
 *   quota    its key and project may ask now, and for this model name
 *   label    how sensitive it is: declared, inherited, found (guard.h)
 *   decide   model name → candidates; the policy says which of their providers may see it, and what of it
 *   prepare  the first of them that can take it makes what it will be asked; ERR_BUSY ends here, without a record
 *   admit    the admitted record is durable, and with it the egress of the first attempt
 *   answer   candidates in order until one has begun to answer: egress is durable, then the attempt starts. The client
 *            hears of it (EV_ADMITTED) when somebody has begun to answer; from then on there is no other candidate
 *   close    the completed or failed record is durable; only then EV_DONE, or the error
 *
 * Whatever fails on the way fails closed: without a decision, a detector, or a ledger nothing leaves.
 *
 * Has caused bugs: a completed record of which it is not known whether it was written (ERR_UNAVAILABLE) must not be
 * followed by a failed one; every admitted record has exactly one outcome.
 */
#include "inference/attempt.h"
#include "inference/internal.h"

#include "base/loop.h"
#include "base/mem.h"
#include "base/sys.h"

#include <stdio.h>
#include <string.h>

#define GONE_POLL_MS  100
#define HEDGE_POLL_MS 2 /* while two attempts run */
#define NOTES_MAX     32

typedef struct run { /* one request on its way */
    inference *inf;
    const request *r;
    const event_sink *client;
    quota_hold hold;
    perimeter *per;
    guarded g;
    candidate own; /* of a name without candidates: the artifact of that name */
    admission a;
    routing routing;
    attempt_world w;
    redaction *map;
    attempt tries[2]; /* the second is a hedge */
    attempt *now;     /* who answers; NULL before somebody has begun to */
    uint32_t n_started;
    uint32_t n_notes, n_answers;
    uint64_t asked_ns;                /* when the client was asked whether it is there */
    bool is_raw;                      /* the driver tells the answer as it was written, beside what was read from it */
    turn *written;                    /* (n_choices) of an answer from a provider */
    turn kept;                        /* choice 0 as it went out, where it is asked for */
    driver_outcome outcome;           /* from its choices on nothing is there before it is counted */
    buf answers[REQUEST_CHOICES_MAX]; /* the text of each choice as it was written */
    attempt_note notes[NOTES_MAX];
    err fault; /* why an event could not be passed on, where it has a code */
} run;

/* ---- the client ------------------------------------------------------------------------------------------- */

static err_code tell(run *x, const event *ev) {
    return x->client && x->client->event ? x->client->event(x->client->ctx, ev) : ERR_OK;
}

static bool run_gone(void *ctx) {
    run *x = ctx;
    return atomic_load(&x->inf->cancel_all) || (x->client && x->client->gone && x->client->gone(x->client->ctx));
}

/* What the client gets; a turn that is kept is what it got. */
static err_code pass_on(void *ctx, const event *ev) {
    run *x = ctx;
    if (x->r->keep_turn && ev->choice == 0) turn_event(&x->kept, ev);
    return tell(x, ev);
}

/* Between driver and client: what was written is kept for the record, placeholders become values. */
static err_code run_event(run *x, attempt *t, const event *ev) {
    if (ev->choice >= x->n_answers) return ERR_INTERNAL;
    if (ev->kind == EV_RAW || (ev->kind == EV_TEXT && !x->is_raw)) {
        buf *a = &x->answers[ev->choice];
        x->is_raw = ev->kind == EV_RAW;
        buf_append(a, ev->text, ev->len);
        if (a->failed) return buf_check(a, "an answer", &x->fault);
    }
    if (x->written) turn_event(&x->written[ev->choice], ev);
    if (ev->kind == EV_FINISH && ev->malformed) {
        metric_add(x->inf->m_malformed, 1);
        log_msg(LOG_WARN, "pipeline", "record %llu: malformed_tool_call: choice %u went out as text",
                (unsigned long long)x->w.admitted, ev->choice);
    }
    return t->back ? restoring_event(t->back, ev, pass_on, x, &x->fault) : pass_on(x, ev);
}

/* ---- check, quota, label, decide -------------------------------------------------------------------------- */

/* What the guard must be able to rely on; the driver checks the rest. */
static err_code check_inputs(const embed_request *q, err *e) {
    const char *what = q->query ? "documents" : "input";
    if (!q->n_inputs) return err_set(e, ERR_INVALID, "%s: there are none", what);
    if (q->n_inputs > EMBED_INPUTS_MAX)
        return err_set(e, ERR_INVALID, "%s: there are %u; at most %d are taken in one request", what, q->n_inputs,
                       EMBED_INPUTS_MAX);
    if (q->query && !q->query_len) return err_set(e, ERR_INVALID, "query: it is empty");
    return ERR_OK;
}

static err_code stage_check(const request *r, err *e) {
    if (!r->model || !*r->model) return err_set(e, ERR_INVALID, "model: a name is needed");
    if (!utf8_valid(r->model, strlen(r->model)) || strlen(r->model) > MODEL_NAME_MAX)
        return err_set(e, ERR_NOT_FOUND, "model '%.80s' is not known here: a name has at most %d characters", r->model,
                       MODEL_NAME_MAX);
    if (!r->n_choices || r->n_choices > REQUEST_CHOICES_MAX)
        return err_set(e, ERR_INVALID, "n: %u choices, 1 to %d are allowed", r->n_choices, REQUEST_CHOICES_MAX);
    if (r->embed) return check_inputs(r->embed, e);
    if (r->n_stops > REQUEST_STOPS_MAX)
        return err_set(e, ERR_INVALID, "stop: %u strings, at most %d are allowed", r->n_stops, REQUEST_STOPS_MAX);
    if (r->n_top > SAMPLER_TOP_MAX)
        return err_set(e, ERR_INVALID, "logprobs: %u, at most %d are given", r->n_top, SAMPLER_TOP_MAX);
    if (r->max_tokens < -1) return err_set(e, ERR_INVALID, "max_tokens: %lld is negative", (long long)r->max_tokens);
    if (r->n_top && !r->want_logprobs)
        return err_set(e, ERR_INVALID, "top_logprobs: they come with log-probabilities only; ask for logprobs as well");
    return ERR_OK;
}

static err_code stage_label(run *x, err *e) {
    return guard_label(&x->g, x->per, x->r, e);
}

static void find_candidates(run *x) {
    x->per = perimeter_get(x->inf);
    x->a = (admission){.r = x->r, .p = x->per, .g = &x->g};
    const model_route *route = perimeter_route(x->per, x->r->model);
    x->a.list = route ? route->list : &x->own;
    x->a.n = route ? route->n : 1;
    if (!route) snprintf(x->own.model, sizeof x->own.model, "%s", x->r->model);
}

/* The request may be seen by none of its candidates. That is a record, but it changes nothing if it cannot be
 * written. */
static err_code refuse(run *x, err *e) {
    char label[SENSITIVITY_TEXT];
    record *rec = NULL;
    uint64_t seq;
    err ignored = {0};
    metric_add(x->inf->m_policy, 1);
    sensitivity_text(label, &x->per->labels, x->g.s);
    err_set(
        e, ERR_DENIED,
        "model '%s': the request is labelled \"%s\"%s%s, and the policy lets none of the places that this name leads "
        "to see it; polder policy explain tells the sentences that decide",
        x->r->model, label, x->g.detector_failed ? " because it could not be looked at: " : "",
        x->g.detector_failed ? x->g.why : "");
    if (records_refused(&rec, &x->a, ERR_DENIED, e->msg, &ignored) == ERR_OK)
        (void)ledger_append(island_ledger(x->inf->i), rec, &seq, &ignored);
    record_free(rec);
    return ERR_DENIED;
}

static err_code stage_decide(run *x, err *e) {
    uint64_t mask = policy_allowed(x->per->table, x->g.s);
    for (uint32_t i = 0; i < x->a.n; i++) x->a.allowed |= mask & ((uint64_t)1 << x->a.list[i].provider);
    if (!x->a.allowed) return refuse(x, e);
    x->routing = (routing){.list = x->a.list,
                           .n = x->a.n,
                           .allowed = x->a.allowed,
                           .attempts_max = (uint32_t)island_get_config(x->inf->i)->upstream_attempts};
    x->w = (attempt_world){.inf = x->inf,
                           .a = &x->a,
                           .seed = x->r->has_seed ? x->r->sampling.seed : random_u64(),
                           .map = &x->map,
                           .gone = run_gone,
                           .gone_ctx = x};
    return ERR_OK;
}

/* ---- prepare ---------------------------------------------------------------------------------------------- */

static bool is_final(err_code rc) {
    return rc == ERR_NOMEM || rc == ERR_CANCELLED || rc == ERR_INTERNAL;
}

/* The next candidate that can take the request. *e keeps what it holds where there is none: why the one before could
 * not. */
static err_code prepare_next(run *x, attempt *t, err *e) {
    err first, why;
    err_clear(&first);
    for (;;) {
        int i = routing_next(&x->routing, random_u64());
        if (i < 0) break;
        bool passed_over = false;
        err_clear(&why);
        err_code rc = attempt_prepare(t, &x->w, (uint32_t)i, &passed_over, &why);
        if (!rc) return ERR_OK;
        attempt_release(t);
        if (!first.code) first = why;
        if (is_final(rc)) {
            *e = why;
            return rc;
        }
        if (passed_over)
            x->routing.closed |= (uint64_t)1 << x->a.list[i].provider;
        else
            x->routing.unusable |= (uint32_t)1 << i;
    }
    if (first.code && !e->code) *e = first;
    if (!e->code) err_set(e, ERR_UPSTREAM, "model '%s': no candidate is left to ask", x->r->model);
    return e->code;
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

/* On ERR_OK the record is durable, and egress with it where the first attempt leaves. */
static err_code stage_admit(run *x, err *e) {
    bool refused = false;
    err_code rc = attempt_admit(&x->tries[0], &x->w, &refused, e);
    return refused ? ledger_refused(x, rc, "admitted", e) : rc;
}

/* ---- answer ----------------------------------------------------------------------------------------------- */

static err_code start(run *x, attempt *t, err *e) {
    bool refused = false;
    x->routing.attempts++;
    x->n_started++;
    err_code rc = attempt_start(t, &x->w, x->n_started, x->n_started == 1, &refused, e);
    return refused ? ledger_refused(x, rc, "egress", e) : rc;
}

/* The attempt is over: its note, and its outcome where it is the one that counts. */
static void end(run *x, attempt *t, err_code rc, bool lost) {
    attempt_note spare, *note = x->n_notes < NOTES_MAX ? &x->notes[x->n_notes] : &spare;
    if (!lost && (t == x->now || !rc)) {
        attempt_end(t, &x->w, rc, false, &x->outcome, note);
    } else {
        driver_outcome local = {0};
        attempt_end(t, &x->w, rc, lost, &local, note);
    }
    if (x->n_notes < NOTES_MAX) x->n_notes++;
}

/* Stop an attempt that lost and let go of it. */
static void give_up(run *x, attempt *t) {
    driver_step step = STEP_WAIT;
    event ev;
    err ignored = {0};
    attempt_cancel(t);
    while (t->started && step != STEP_END && attempt_next(t, GONE_POLL_MS, &step, &ev, &ignored) == ERR_OK) continue;
    end(x, t, ERR_CANCELLED, true);
    attempt_release(t);
}

/* Somebody has begun to answer: from here on it is the only one. */
static err_code begin(run *x, attempt *t, err *e) {
    attempt *other = t == &x->tries[0] ? &x->tries[1] : &x->tries[0];
    if (other->prepared) give_up(x, other);
    x->now = t;
    if (t->call.body && !x->r->embed) {
        x->written = mem_array(x->r->n_choices, sizeof *x->written);
        if (!x->written) return err_nomem(e, "an answer");
    }
    char label[SENSITIVITY_TEXT];
    sensitivity_text(label, &x->per->labels, x->g.s);
    event ev = {.kind = EV_ADMITTED,
                .record = x->w.admitted,
                .seed = x->w.seed,
                .created_unix_s = time_unix_ms() / 1000,
                .fingerprint = t->call.fingerprint,
                .prompt_tokens = t->call.n_prompt_tokens,
                .label = label,
                .route = t->p->facts.name};
    return tell(x, &ev) == ERR_OK ? ERR_OK : err_set(e, ERR_CANCELLED, "the request was cancelled");
}

static bool client_gone(run *x, bool waited) {
    uint64_t now = time_mono_ns();
    if (!waited && now - x->asked_ns < (uint64_t)GONE_POLL_MS * 1000000u) return false;
    x->asked_ns = now;
    return run_gone(x);
}

/* One step of one attempt. *over: it came to its end. */
static err_code step(run *x, attempt *t, int timeout_ms, bool *over, err *e) {
    driver_step what = STEP_WAIT;
    event ev = {0};
    err_code rc = attempt_next(t, timeout_ms, &what, &ev, e);
    *over = rc || what == STEP_END;
    if (rc && t->cancelled && x->fault.code) *e = x->fault;
    if (rc) return e->code;
    if (what == STEP_STARTED && !t->cancelled) {
        rc = begin(x, t, e);
        if (rc) attempt_cancel(t);
        return rc == ERR_CANCELLED ? ERR_OK : rc;
    }
    if (what == STEP_EVENT && !t->cancelled && run_event(x, t, &ev) != ERR_OK) attempt_cancel(t);
    if (!t->cancelled && client_gone(x, what == STEP_WAIT)) attempt_cancel(t);
    if (what == STEP_END && t->cancelled) {
        if (x->fault.code) *e = x->fault;
        return x->fault.code ? x->fault.code : err_set(e, ERR_CANCELLED, "the request was cancelled");
    }
    return ERR_OK;
}

/* After hedge_ms without an answer the next candidate is asked too. */
static void hedge(run *x, uint64_t since_ns) {
    int64_t after = island_get_config(x->inf->i)->upstream_hedge_ms;
    attempt *busy = &x->tries[0], *idle = &x->tries[1];
    if (!busy->prepared) busy = &x->tries[1], idle = &x->tries[0];
    if (!after || x->now || idle->prepared || (int64_t)((time_mono_ns() - since_ns) / 1000000u) < after) return;
    uint32_t unusable = x->routing.unusable;
    x->routing.unusable |= (uint32_t)1 << busy->index; /* not the same candidate once more */
    err why = {0};
    err_code rc = prepare_next(x, idle, &why);
    x->routing.unusable = unusable;
    if (rc) return;
    rc = start(x, idle, &why);
    if (!rc) return;
    end(x, idle, rc, false);
    attempt_release(idle);
}

/* What a failed attempt means for the choice of the next. */
static bool may_go_on(run *x, const attempt *t, err_code rc) {
    const driver_failure *f = &t->call.failure;
    uint32_t bit = (uint32_t)1 << t->index;
    if (x->now || t->cancelled || rc == ERR_UNAVAILABLE || !f->try_others) return false;
    bool fixed = f->status == 401 || f->status == 403 || f->status == 404 || f->retry_after_s > 2;
    *(fixed ? &x->routing.given_up : &x->routing.tried) |= bit;
    return true;
}

static bool is_large(const run *x) {
    return x->tries[0].call.large || x->tries[1].call.large;
}

static void race_away(void *ctx);

typedef struct racing {
    run *x;
    attempt **t;
    err *e;
    err_code rc;
} racing;

/* Runs what has been started until one attempt came to its end. *t is that one. */
static err_code race(run *x, attempt **t, err *e) {
    uint64_t since = time_mono_ns();
    for (;;) {
        if (on_fiber() && is_large(x)) {
            racing r = {x, t, e, ERR_OK};
            away(race_away, &r);
            return r.rc;
        }
        hedge(x, since);
        bool two = !x->now && x->tries[0].prepared && x->tries[1].prepared;
        int wait = two || (!x->now && island_get_config(x->inf->i)->upstream_hedge_ms) ? HEDGE_POLL_MS : GONE_POLL_MS;
        for (int k = 0; k < 2; k++) {
            attempt *one = &x->tries[k];
            bool over = false;
            if (!one->prepared) continue;
            err_code rc = step(x, one, wait, &over, e);
            if (rc && !over) { /* it began, and that could not be told */
                give_up(x, one);
                *t = one;
                return rc;
            }
            if (!over) continue;
            *t = one;
            return rc;
        }
    }
}

static void race_away(void *ctx) {
    racing *r = ctx;
    r->rc = race(r->x, r->t, r->e);
}

/* A repetition at the same place waits a little. */
static err_code wait_before(run *x, const attempt *t, err *e) {
    if (!(x->routing.tried >> t->index & 1)) return ERR_OK;
    int64_t until = (int64_t)(time_mono_ns() / 1000000u) + (50 << (x->n_started < 5 ? x->n_started : 5));
    while ((int64_t)(time_mono_ns() / 1000000u) < until) {
        if (run_gone(x)) return err_set(e, ERR_CANCELLED, "the request was cancelled");
        wait_ms(20);
    }
    return ERR_OK;
}

/* After a failure: somebody else goes on (ERR_OK), or nobody does (*e says why). */
static err_code go_on(run *x, attempt **t, err_code rc, err *e) {
    attempt *failed = *t, *other = failed == &x->tries[0] ? &x->tries[1] : &x->tries[0];
    end(x, failed, rc, false);
    if (!may_go_on(x, failed, rc)) return rc;
    /* not e->msg: what a provider says may repeat what it was asked, and logs hold no contents */
    log_msg(LOG_WARN, "pipeline", "record %llu: provider %s: %s (status %d)", (unsigned long long)x->w.admitted,
            failed->p->facts.name, err_name(rc), failed->call.failure.status);
    attempt_release(failed);
    if (other->prepared) { /* the hedge is alone now */
        *t = other;
        return ERR_OK;
    }
    if (prepare_next(x, failed, e)) return rc;
    rc = wait_before(x, failed, e);
    return rc ? rc : start(x, failed, e);
}

static err_code stage_answer(run *x, err *e) {
    x->n_answers = x->r->n_choices;
    for (uint32_t i = 0; i < x->n_answers; i++) x->answers[i] = (buf){.max = LEDGER_CONTENT_MAX};
    x->asked_ns = time_mono_ns();
    attempt *t = &x->tries[0];
    err_code rc = start(x, t, e);
    for (;;) {
        if (!rc) rc = race(x, &t, e);
        if (!rc) break;
        if (t->prepared && t->c) {
            err_code next = go_on(x, &t, rc, e);
            if (!next) {
                rc = ERR_OK;
                continue;
            }
            rc = next;
        }
        break;
    }
    if (!rc) end(x, t, ERR_OK, false);
    for (int k = 0; k < 2; k++)
        if (rc && x->tries[k].started && x->tries[k].entered) give_up(x, &x->tries[k]);
    return rc;
}

/* ---- close ------------------------------------------------------------------------------------------------ */

static double cost_of(const run *x) {
    const provider_facts *f = x->now ? &x->now->p->facts : NULL;
    if (!f || !x->now->p->rt || f->price_in < 0 || f->price_out < 0) return -1;
    return ((double)x->outcome.prompt_tokens * f->price_in + (double)x->outcome.completion_tokens * f->price_out) / 1e6;
}

/* Write one outcome record. *made: the ledger may have it, so no other outcome may follow. */
static err_code append_outcome(run *x, err_code rc, bool with_contents, bool *made, uint64_t *seq, err *e) {
    record *rec = NULL;
    ending end = {.admitted = x->w.admitted,
                  .rc = rc,
                  .call = x->now ? &x->now->call : NULL,
                  .o = &x->outcome,
                  .answers = x->answers,
                  .written = x->written,
                  .kept = x->r->keep_turn && !x->r->embed ? &x->kept : NULL,
                  .notes = x->notes,
                  .n_notes = x->n_notes,
                  .route = x->now ? x->now->p->facts.name : NULL,
                  .attempt = x->now ? x->now->number : 0,
                  .cost_eur = cost_of(x)};
    err_code bad = records_outcome(&rec, &x->a, &end, with_contents, e);
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
    metric_add(x->inf->m_tokens_in, (double)x->outcome.prompt_tokens);
    metric_add(x->inf->m_tokens_out, (double)x->outcome.completion_tokens);
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
                .prompt_tokens = x->outcome.prompt_tokens,
                .completion_tokens = x->outcome.completion_tokens,
                .cached_tokens = x->outcome.cached_tokens,
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
    for (int k = 0; k < 2; k++) attempt_release(&x->tries[k]);
    for (uint32_t i = 0; i < x->n_answers; i++) {
        if (x->answers[i].ptr) mem_wipe(x->answers[i].ptr, x->answers[i].len);
        buf_free(&x->answers[i]);
    }
    for (uint32_t i = 0; x->written && i < x->r->n_choices; i++) turn_free(&x->written[i]);
    mem_free(x->written);
    turn_free(&x->kept);
    redaction_free(x->map);
    guarded_free(&x->g);
    if (x->per) perimeter_put(x->inf, x->per);
    mem_free(x);
}

/* Into the room; ERR_OK: run_end must follow. */
static err_code run_begin(run **out, inference *inf, const request *r, const event_sink *sink, err *e) {
    err_code rc = inference_enter(inf, e);
    if (rc) return rc;
    run *x = mem_alloc(sizeof *x);
    if (!x) {
        inference_leave(inf);
        return err_nomem(e, "a request");
    }
    memset(x, 0, offsetof(run, outcome.choices));
    err_clear(&x->fault);
    x->inf = inf;
    x->r = r;
    x->client = sink;
    *out = x;
    return ERR_OK;
}

static void run_end(run *x) {
    inference *inf = x->inf;
    const char *who = x->now ? x->now->p->facts.name : NULL;
    double cost = cost_of(x);
    quota_leave(inf->i, &x->hold, who, x->outcome.prompt_tokens, x->outcome.completion_tokens, cost < 0 ? 0 : cost);
    run_free(x);
    inference_leave(inf);
}

/* All that can be refused before it is admitted. */
static err_code run_prepare(run *x, err *e) {
    err_code rc = stage_label(x, e);
    if (!rc) rc = stage_decide(x, e);
    return rc ? rc : prepare_next(x, &x->tries[0], e);
}

/* What the two ways into the pipeline do between begin and end. */
typedef struct way {
    run *x;
    err *e;
    err_code rc;
} way;

static void check_way(void *ctx) {
    way *y = ctx;
    y->rc = run_prepare(y->x, y->e);
    if (y->rc) count(y->x, false, y->rc);
}

static void close_way(void *ctx) {
    way *y = ctx;
    y->rc = stage_close(y->x, y->rc, y->e);
}

static void run_way(void *ctx) {
    way *y = ctx;
    run *x = y->x;
    err_code rc = quota_enter(x->inf->i, &x->r->who, x->r->model, &x->hold, y->e);
    if (!rc) rc = run_prepare(x, y->e);
    if (!rc) rc = stage_admit(x, y->e);
    bool admitted = rc == ERR_OK;
    if (admitted) rc = stage_answer(x, y->e);
    y->rc = rc;
    if (admitted && is_large(x))
        away(close_way, y);
    else if (admitted)
        close_way(y);
    count(x, admitted, y->rc);
}

/* The engine computes, loads models, and is waited for in ways that would hold up a loop; providers are not. */
static void go(way *y, void (*fn)(void *ctx)) {
    bool engine = false;
    find_candidates(y->x);
    for (uint32_t i = 0; i < y->x->a.n; i++) engine = engine || !y->x->per->providers[y->x->a.list[i].provider].rt;
    if (engine)
        away(fn, y);
    else
        fn(y);
}

static err_code enter(inference *inf, const request *r, const event_sink *sink, err *e, void (*fn)(void *ctx)) {
    err local;
    way y = {.e = e ? e : &local};
    err_clear(y.e);
    y.rc = run_begin(&y.x, inf, r, sink, y.e);
    if (y.rc) return y.rc;
    y.rc = stage_check(r, y.e);
    if (y.rc)
        count(y.x, false, y.rc);
    else
        go(&y, fn);
    run_end(y.x);
    return y.rc;
}

err_code pipeline_check(inference *inf, const request *r, const event_sink *sink, err *e) {
    return enter(inf, r, sink, e, check_way);
}

err_code pipeline_run(inference *inf, const request *r, const event_sink *sink, err *e) {
    return enter(inf, r, sink, e, run_way);
}
