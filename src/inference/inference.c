/* What is open: the models in memory, and the count of requests inside for draining. */
#include "inference/internal.h"

#include "inference/drafter.h"
#include "inference/kept.h"
#include "inference/providers_internal.h"

#include "base/mem.h"
#include "base/sys.h"

#include <string.h>

static void find_metrics(inference *inf) {
    static const char help[] = "Requests by how they ended.";
    static const char name[] = "polder_requests_total";
    inf->m_completed = metric_get(METRIC_COUNTER, name, "outcome=\"completed\"", help);
    inf->m_failed = metric_get(METRIC_COUNTER, name, "outcome=\"failed\"", help);
    inf->m_cancelled = metric_get(METRIC_COUNTER, name, "outcome=\"cancelled\"", help);
    inf->m_refused = metric_get(METRIC_COUNTER, name, "outcome=\"refused\"", help);
    inf->m_ledger_refusals = metric_get(METRIC_COUNTER, "polder_ledger_refusals_total", NULL,
                                        "Requests that were not answered because the ledger could not be written.");
    inf->m_tokens_in = metric_get(METRIC_COUNTER, "polder_prompt_tokens_total", NULL, "Tokens of admitted prompts.");
    inf->m_tokens_out = metric_get(METRIC_COUNTER, "polder_completion_tokens_total", NULL, "Tokens that were drawn.");
    inf->m_load = metric_get(METRIC_HISTOGRAM, "polder_model_load_seconds", NULL, "Time to load a model.");
    inf->m_policy = metric_get(METRIC_COUNTER, "polder_policy_refusals_total", NULL,
                               "Requests that the policy let none of their candidates see.");
    inf->m_malformed = metric_get(METRIC_COUNTER, "polder_malformed_tool_calls_total", NULL,
                                  "Choices with a tool call that could not be read and went out as text.");
    inf->m_models = metric_get(METRIC_GAUGE, "polder_models_loaded", NULL, "Models in memory.");
}

err_code inference_open(inference **out, island *i, err *e) {
    *out = NULL;
    store *s = island_store(i);
    if (store_read_only(s))
        return err_set(e, ERR_DENIED, "%s: is open for reading only; answers need its ledger", island_dir(i));
    err_code rc = engine_init(e);
    if (!rc) rc = models_open_tables(s, e);
    if (rc) return rc;
    inference *inf = mem_zalloc(sizeof *inf);
    if (!inf) return err_nomem(e, "the inference room");
    inf->i = i;
    pthread_mutex_init(&inf->lock, NULL);
    cond_init(&inf->cond);
    find_metrics(inf);
    rc = models_user_key(s, inf->user_key, e);
    if (!rc) rc = perimeter_open(inf, e);
    if (rc) {
        inference_close(inf);
        return rc;
    }
    *out = inf;
    return ERR_OK;
}

/* ---- requests inside --------------------------------------------------------------------------------------- */

err_code inference_enter(inference *inf, err *e) {
    pthread_mutex_lock(&inf->lock);
    bool closed = inf->draining;
    inf->n_active += !closed;
    pthread_mutex_unlock(&inf->lock);
    return closed ? err_set(e, ERR_UNAVAILABLE, "the server is stopping and takes no new requests") : ERR_OK;
}

void inference_leave(inference *inf) {
    pthread_mutex_lock(&inf->lock);
    inf->n_active--;
    pthread_cond_broadcast(&inf->cond);
    pthread_mutex_unlock(&inf->lock);
}

void inference_drain(inference *inf, int64_t timeout_ms) {
    int64_t until = (int64_t)(time_mono_ns() / 1000000) + timeout_ms;
    pthread_mutex_lock(&inf->lock);
    inf->draining = true;
    while (inf->n_active) {
        int64_t left = until - (int64_t)(time_mono_ns() / 1000000);
        if (left <= 0) break;
        cond_wait_ms(&inf->cond, &inf->lock, left);
    }
    if (inf->n_active)
        log_msg(LOG_WARN, "inference", "%u requests did not end in time and are cancelled", inf->n_active);
    atomic_store(&inf->cancel_all, true);
    while (inf->n_active) pthread_cond_wait(&inf->cond, &inf->lock);
    pthread_mutex_unlock(&inf->lock);
}

/* ---- models in memory -------------------------------------------------------------------------------------- */

static void loaded_empty(loaded *l) {
    scheduler_free(l->sched);
    embedder_free(l->emb);
    grammar_cache_free(l->grammars);
    answer_format_free(l->format);
    special_set_free(l->special);
    model_free(l->draft);
    model_free(l->m);
    l->draft = NULL;
    l->sched = NULL;
    l->emb = NULL;
    l->grammars = NULL;
    l->format = NULL;
    l->special = NULL;
    l->m = NULL;
}

void inference_close(inference *inf) {
    if (!inf) return;
    inference_drain(inf, 0);
    while (inf->models) {
        loaded *l = inf->models;
        inf->models = l->next;
        if (l->state == LOADED_READY) metric_add(inf->m_models, -1);
        loaded_empty(l);
        mem_free(l);
    }
    perimeter_close(inf);
    mem_wipe(inf->user_key, sizeof inf->user_key);
    pthread_cond_destroy(&inf->cond);
    pthread_mutex_destroy(&inf->lock);
    mem_free(inf);
}

static bool makes_text(const model *m) {
    const model_facts *f = model_get_facts(m);
    return !f->encoder && (f->pooling == POOLING_ABSENT || f->pooling == POOLING_NONE);
}

static err_code make_embedder(loaded *l, const scheduler_options *o, err *e) {
    embedder_options eo = {.threads = o->threads,
                           .max_jobs = o->max_sequences + o->max_queue,
                           .context = o->context,
                           .kv_bytes = o->kv_bytes,
                           .step_tokens = o->step_tokens};
    return embedder_new(&l->emb, l->m, &eo, e);
}

/* The file is hashed before it is used (engine.h, model_options): a record names the bytes that gave the answer, not
 * the name that they had. */
static err_code open_artifact(inference *inf, model **out, const uint8_t digest[SHA256_LEN], const char *path, err *e) {
    char cache[4096];
    err why = {0};
    model_options o = {.source_sha256 = digest};
    if (island_get_config(inf->i)->inference_packed_cache) {
        if (store_derived_path(island_store(inf->i), digest, "packed", cache, sizeof cache, &why) == ERR_OK)
            o.cache_path = cache;
        else
            log_msg(LOG_WARN, "inference", "%s: weights are packed again at each start", why.msg);
    }
    return model_open_with(out, path, &o, e);
}

/* The small model that guesses. Nothing depends on it but speed: where it cannot be used a line in the log says why. */
static void open_draft(inference *inf, loaded *l, scheduler_options *o) {
    const char *name = island_get_config(inf->i)->inference_draft_model;
    char path[4096];
    uint8_t digest[SHA256_LEN];
    err why = {0};
    err_code rc = name[0] ? models_resolve(inf->i, name, path, sizeof path, digest, &why)
                          : err_set(&why, ERR_USAGE, "inference.draft_model names none");
    if (!rc && memcmp(digest, l->digest, SHA256_LEN) == 0) return; /* it is the draft model itself */
    if (!rc) rc = open_artifact(inf, &l->draft, digest, path, &why);
    if (!rc) rc = drafter_check(l->m, l->draft, &why);
    o->speculate = rc ? SPECULATE_LOOKUP : SPECULATE_DRAFT;
    o->draft = l->draft;
    if (rc) log_msg(LOG_WARN, "inference", "no draft model is used, n-grams are: %s", why.msg);
}

static err_code load_now(inference *inf, loaded *l, const char *path, err *e) {
    const island_config *c = island_get_config(inf->i);
    scheduler_options o = {.threads = (unsigned)c->inference_threads,
                           .max_sequences = (uint32_t)c->inference_max_sequences,
                           .max_queue = (uint32_t)c->inference_max_queue,
                           .context = (uint32_t)c->inference_context,
                           .kv_bytes = (uint64_t)c->inference_kv_memory_mib << 20,
                           .step_tokens = (uint32_t)c->inference_step_tokens,
                           .share = c->inference_prefix_cache,
                           .speculate =
                               strcmp(c->inference_speculation, "off") == 0 ? SPECULATE_OFF : SPECULATE_LOOKUP};
    (void)kv_format_parse(&o.kv, c->inference_kv); /* the configuration is checked when it is read */
    err_code rc = open_artifact(inf, &l->m, l->digest, path, e);
    if (!rc) rc = special_set_new(&l->special, l->m, e);
    if (!rc) rc = answer_format_new(&l->format, model_template(l->m), l->special, e);
    if (!rc) rc = grammar_cache_new(&l->grammars, e);
    kept_file kept = {.i = inf->i};
    memcpy(kept.digest, l->digest, SHA256_LEN);
    if (c->inference_prefix_cache_saved) o.kept = &kept;
    if (!rc && makes_text(l->m) && strcmp(c->inference_speculation, "draft") == 0) open_draft(inf, l, &o);
    if (!rc) rc = makes_text(l->m) ? scheduler_new(&l->sched, l->m, &o, e) : make_embedder(l, &o, e);
    if (rc) loaded_empty(l);
    return rc;
}

/* Load what the caller has put into the list as LOADED_LOADING, then tell those who wait. */
static err_code load_and_tell(inference *inf, loaded *l, const char *name, const char *path, err *e) {
    uint64_t begin = time_mono_ns();
    err why = {0};
    err_code rc = load_now(inf, l, path, &why);
    double s = (double)(time_mono_ns() - begin) / 1e9;
    if (rc) {
        log_msg(LOG_ERROR, "inference", "model %s could not be loaded: %s", name, why.msg);
    } else {
        metric_observe(inf->m_load, s);
        metric_add(inf->m_models, 1);
        log_msg(LOG_INFO, "inference", "model %s is loaded (%.3f s)", name, s);
    }
    pthread_mutex_lock(&inf->lock);
    l->error = why;
    l->state = rc ? LOADED_FAILED : LOADED_READY;
    bool unused = rc && !l->n_waiting;
    if (rc) { /* off the list: the next request tries again */
        loaded **at = &inf->models;
        while (*at != l) at = &(*at)->next;
        *at = l->next;
    }
    pthread_cond_broadcast(&inf->cond);
    pthread_mutex_unlock(&inf->lock);
    if (rc && e) *e = why;
    if (unused) mem_free(l);
    return rc;
}

/* Wait for somebody else's load. Called and returns under the lock. */
static err_code wait_loaded(inference *inf, loaded *l, bool (*gone)(void *ctx), void *ctx, err *e) {
    bool left = false;
    l->n_waiting++;
    while (l->state == LOADED_LOADING && !left) {
        cond_wait_ms(&inf->cond, &inf->lock, 100);
        if (l->state != LOADED_LOADING || !gone) continue;
        pthread_mutex_unlock(&inf->lock);
        left = gone(ctx);
        pthread_mutex_lock(&inf->lock);
    }
    l->n_waiting--;
    err_code rc = ERR_OK;
    if (l->state == LOADED_FAILED) {
        rc = l->error.code;
        if (e) *e = l->error;
        if (!l->n_waiting) mem_free(l);
    } else if (l->state == LOADED_LOADING) {
        rc = err_set(e, ERR_CANCELLED, "the request was cancelled while its model was loading");
    }
    return rc;
}

err_code inference_get_loaded(inference *inf, const char *name, bool (*gone)(void *ctx), void *ctx, loaded **out,
                              err *e) {
    char path[4096];
    uint8_t digest[SHA256_LEN];
    *out = NULL;
    err_code rc = models_find(island_store(inf->i), name, path, sizeof path, digest, e);
    if (rc) return rc;
    pthread_mutex_lock(&inf->lock);
    loaded *l = inf->models;
    while (l && memcmp(l->digest, digest, SHA256_LEN) != 0) l = l->next;
    if (l) {
        rc = l->state == LOADED_READY ? ERR_OK : wait_loaded(inf, l, gone, ctx, e);
        pthread_mutex_unlock(&inf->lock);
    } else {
        l = mem_zalloc(sizeof *l);
        if (l) {
            memcpy(l->digest, digest, SHA256_LEN);
            l->next = inf->models;
            inf->models = l;
        }
        pthread_mutex_unlock(&inf->lock);
        rc = l ? load_and_tell(inf, l, name, path, e) : err_nomem(e, "a model");
    }
    if (!rc) *out = l;
    return rc;
}

err_code inference_load(inference *inf, const char *model_name, err *e) {
    loaded *l;
    err_code rc = inference_enter(inf, e);
    if (rc) return rc;
    rc = inference_get_loaded(inf, model_name, NULL, NULL, &l, e);
    inference_leave(inf);
    return rc;
}
