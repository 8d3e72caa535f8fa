#include "inference/attempt.h"

#include "base/mem.h"
#include "base/sys.h"

#include <string.h>

/* ---- a place at the provider ------------------------------------------------------------------------------- */

static int64_t now_ms(void) {
    return (int64_t)(time_mono_ns() / 1000000u);
}

static bool enter(attempt *x, const attempt_world *w) {
    provider_runtime *rt = x->p->rt;
    if (!rt) return true; /* the engine has a queue of its own */
    const island_config *c = island_get_config(w->inf->i);
    uint32_t running = atomic_fetch_add(&rt->running, 1);
    x->entered = (!x->p->max_concurrent || running < x->p->max_concurrent) &&
                 breaker_may(&rt->breaker, now_ms(), c->upstream_breaker_open_s * 1000);
    if (!x->entered) atomic_fetch_sub(&rt->running, 1);
    return x->entered;
}

static void leave(attempt *x, const attempt_world *w, breaker_outcome how) {
    if (!x->entered) return;
    x->entered = false;
    const island_config *c = island_get_config(w->inf->i);
    breaker_result(&x->p->rt->breaker, how, now_ms(), (uint32_t)c->upstream_breaker_failures);
    metric_set(x->p->rt->m_open, breaker_is_open(&x->p->rt->breaker));
    atomic_fetch_sub(&x->p->rt->running, 1);
}

/* ---- prepare ----------------------------------------------------------------------------------------------- */

static err_code redact(attempt *x, const attempt_world *w, err *e) {
    const admission *a = w->a;
    x->set = policy_redactions(a->p->table, a->g->s, x->c->provider);
    if (!guarded_count(a->g, a->p->detector, x->set)) return ERR_OK;
    if (a->r->want_logprobs)
        return err_set(
            e, ERR_UNSUPPORTED,
            "logprobs: the policy has values of this request redacted for %s, and log-probabilities would be "
            "those of placeholders; ask without them",
            x->p->facts.name);
    err_code rc = *w->map ? ERR_OK : redaction_new(w->map, a->p->detector, e);
    if (!rc) rc = guard_redact(&x->red, a->r, a->g, x->set, *w->map, e);
    return rc ? rc : restoring_new(&x->back, *w->map, a->r->grammar == GRAMMAR_JSON_SCHEMA, e);
}

static err_code no_text(const char *name, const model *m, err *e) {
    bool ranks = model_get_facts(m)->pooling == POOLING_RANK;
    return err_set(e, ERR_UNSUPPORTED, "model '%s' %s and generates no text: ask it by %s", name,
                   ranks ? "ranks documents" : "makes embeddings", ranks ? "/v1/rerank" : "/v1/embeddings");
}

static err_code no_vectors(const char *name, const request *r, err *e) {
    return err_set(e, ERR_UNSUPPORTED,
                   "model '%s' generates text: its file names no pooling, so it %s; take a model that was made for it",
                   name, r->embed->query ? "cannot rank documents" : "makes no embeddings");
}

static err_code aim_at_engine(attempt *x, const attempt_world *w, err *e) {
    const request *r = w->a->r;
    loaded *l = NULL;
    err_code rc = inference_get_loaded(w->inf, x->c->model, w->gone, w->gone_ctx, &l, e);
    if (rc) return rc;
    if (!r->embed && !l->sched) return no_text(x->c->model, l->m, e);
    if (r->embed && !l->emb) return no_vectors(x->c->model, r, e);
    x->d = r->embed ? &driver_embed : &driver_engine;
    x->call.target = l;
    return ERR_OK;
}

static err_code aim_at_provider(attempt *x, const attempt_world *w, err *e) {
    const island_config *c = island_get_config(w->inf->i);
    const provider *p = x->p;
    x->d = strcmp(p->facts.driver, "anthropic") == 0 ? &driver_anthropic : &driver_openai;
    x->target = (upstream_target){.lines = p->rt->lines,
                                  .provider = p->facts.name,
                                  .url = p->url,
                                  .form = p->form,
                                  .api_version = p->api_version,
                                  .model = x->c->model,
                                  .credential = p->credential,
                                  .ca_file = p->ca_file,
                                  .connect_timeout_ms = (int)c->upstream_connect_timeout_ms,
                                  .first_byte_timeout_ms = (int)c->upstream_first_byte_timeout_ms,
                                  .idle_timeout_ms = (int)c->upstream_idle_timeout_ms};
    x->call.target = &x->target;
    return ERR_OK;
}

err_code attempt_prepare(attempt *x, const attempt_world *w, uint32_t index, bool *passed_over, err *e) {
    const admission *a = w->a;
    *x = (attempt){.index = index, .c = &a->list[index]};
    x->p = &a->p->providers[x->c->provider];
    *passed_over = !enter(x, w);
    if (*passed_over)
        return err_set(e, ERR_BUSY, "provider %s takes no requests now: %s", x->p->facts.name,
                       breaker_is_open(&x->p->rt->breaker) ? "it failed too often and is left alone for a while"
                                                           : "as many as it may have are running");
    err_code rc = redact(x, w, e);
    x->call = (driver_call){.r = x->red ? &x->red->r : a->r,
                            .label = a->g->s,
                            .seed = w->seed,
                            .max_output_tokens = (uint64_t)island_get_config(w->inf->i)->inference_max_output_tokens};
    if (!rc) rc = x->p->rt ? aim_at_provider(x, w, e) : aim_at_engine(x, w, e);
    if (rc) return rc;
    x->prepared = true;
    return x->d->prepare(&x->call, e);
}

/* ---- start ------------------------------------------------------------------------------------------------- */

static attempt_facts facts_of(const attempt *x, const attempt_world *w, uint32_t number) {
    return (attempt_facts){.admitted = w->admitted,
                           .number = number,
                           .to = x->p,
                           .model = x->c->model,
                           .d = x->d,
                           .call = &x->call,
                           .map = x->red ? *w->map : NULL,
                           .redacted = x->set};
}

/* The ledger did not take what was right: it cannot be written. */
static bool is_refusal(err_code rc) {
    return rc != ERR_OK && rc != ERR_TOO_LARGE && rc != ERR_INVALID;
}

err_code attempt_admit(attempt *x, attempt_world *w, bool *refused, err *e) {
    ledger *l = island_ledger(w->inf->i);
    record *admitted = NULL, *egress = NULL;
    attempt_facts f = facts_of(x, w, 1);
    f.admitted = LEDGER_SEQ_PENDING;
    err_code rc = records_admitted(&admitted, w->inf, w->a, &f, e);
    if (!rc && x->call.body) rc = records_egress(&egress, w->a, &f, e);
    if (!rc) {
        rc = egress ? ledger_append_pair(l, admitted, egress, "request", &w->admitted, e)
                    : ledger_append(l, admitted, &w->admitted, e);
        *refused = is_refusal(rc);
        x->recorded = egress && !rc;
    }
    record_free(admitted);
    record_free(egress);
    return rc;
}

static err_code tell_ledger(const attempt *x, const attempt_world *w, uint32_t number, bool *refused, err *e) {
    attempt_facts f = facts_of(x, w, number);
    record *rec = NULL;
    uint64_t seq;
    err_code rc = x->call.body ? records_egress(&rec, w->a, &f, e) : records_rerouted(&rec, w->a, &f, e);
    if (rc) return rc;
    rc = ledger_append(island_ledger(w->inf->i), rec, &seq, e);
    record_free(rec);
    *refused = is_refusal(rc);
    return rc;
}

err_code attempt_start(attempt *x, const attempt_world *w, uint32_t number, bool first, bool *refused, err *e) {
    *refused = false;
    x->number = number;
    if (!x->recorded && (x->call.body || !first)) {
        err_code rc = tell_ledger(x, w, number, refused, e);
        if (rc) return rc;
    }
    x->started = true;
    x->from_ns = time_mono_ns();
    return x->d->start(&x->call, e);
}

err_code attempt_next(attempt *x, int timeout_ms, driver_step *step, event *ev, err *e) {
    err_code rc = x->d->next(&x->call, timeout_ms, step, ev, e);
    if (!rc && *step == STEP_STARTED) x->begun = true;
    return rc;
}

void attempt_cancel(attempt *x) {
    if (x->started && !x->cancelled) x->d->cancel(&x->call);
    x->cancelled = true;
}

/* ---- end --------------------------------------------------------------------------------------------------- */

void attempt_end(attempt *x, const attempt_world *w, err_code rc, bool lost, driver_outcome *out, attempt_note *note) {
    if (x->started) x->d->finish(&x->call, out);
    bool bad = rc && !lost && x->call.failure.provider;
    provider_runtime *rt = x->p->rt;
    if (rt && x->started) {
        metric_add(rt->m_attempts, 1);
        metric_add(rt->m_failures, bad);
        metric_add(rt->m_sent, (double)out->sent_bytes);
        metric_add(rt->m_received, (double)out->received_bytes);
    }
    leave(x, w, bad ? BREAKER_BAD : x->begun ? BREAKER_GOOD : BREAKER_NEITHER);
    *note = (attempt_note){.provider = x->p->facts.name,
                           .model = x->c->model,
                           .outcome = lost ? "lost"
                                      : rc ? err_name(rc)
                                           : "answered",
                           .status = x->call.failure.status,
                           .sent = out->sent_bytes,
                           .sendings = out->sendings,
                           .received = out->received_bytes,
                           .ns = x->started ? time_mono_ns() - x->from_ns : 0};
}

void attempt_release(attempt *x) {
    if (x->entered) { /* it was never ended: nobody learned anything of the provider */
        breaker_result(&x->p->rt->breaker, BREAKER_NEITHER, now_ms(), UINT32_MAX);
        atomic_fetch_sub(&x->p->rt->running, 1);
    }
    if (x->prepared) x->d->release(&x->call);
    restoring_free(x->back);
    redacted_free(x->red);
    *x = (attempt){0};
}
