/* Snapshots of what decides where a request may go.
 *
 * `state.lock` guards which snapshot is in force, and the list of runtimes with their counts. It is held for a few
 * instructions; snapshots are made outside of it. A runtime is on the list as long as a snapshot names its provider. */
#include "inference/perimeter.h"
#include "inference/providers_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct perimeter_state {
    pthread_mutex_t lock;
    perimeter *now; /* with a reference of its own */
    provider_runtime *runtimes;
};

/* ---- runtimes ---------------------------------------------------------------------------------------------- */

static void runtime_free(provider_runtime *rt) {
    if (!rt) return;
    upstream_lines_free(rt->lines);
    breaker_destroy(&rt->breaker);
    mem_free(rt);
}

static provider_runtime *runtime_find(struct perimeter_state *st, const char *name) {
    provider_runtime *rt = st->runtimes;
    while (rt && strcmp(rt->name, name) != 0) rt = rt->next;
    return rt;
}

static void find_metrics(provider_runtime *rt) {
    char label[PROVIDER_NAME_MAX + 16];
    snprintf(label, sizeof label, "provider=\"%s\"", rt->name);
    rt->m_attempts = metric_get(METRIC_COUNTER, "polder_provider_attempts_total", label,
                                "Attempts at a provider that were started.");
    rt->m_failures = metric_get(METRIC_COUNTER, "polder_provider_failures_total", label,
                                "Attempts that failed through the provider's fault.");
    rt->m_sent = metric_get(METRIC_COUNTER, "polder_provider_sent_bytes_total", label,
                            "Bytes of request bodies that left for a provider.");
    rt->m_received =
        metric_get(METRIC_COUNTER, "polder_provider_received_bytes_total", label, "Bytes of bodies that came back.");
    rt->m_open = metric_get(METRIC_GAUGE, "polder_provider_left_alone", label,
                            "1 while a provider's breaker is open: it failed too often in a row.");
}

static err_code runtime_new(provider_runtime **out, const char *name, err *e) {
    provider_runtime *rt = mem_zalloc(sizeof *rt);
    if (!rt) return err_nomem(e, "a provider");
    snprintf(rt->name, sizeof rt->name, "%s", name);
    breaker_init(&rt->breaker);
    find_metrics(rt);
    err_code rc = upstream_lines_new(&rt->lines, e);
    if (rc)
        runtime_free(rt);
    else
        *out = rt;
    return rc;
}

/* The runtime of a name, made where there is none yet. Only one thread makes snapshots at a time. */
static err_code runtime_get(struct perimeter_state *st, const char *name, provider_runtime **out, err *e) {
    provider_runtime *made = NULL;
    pthread_mutex_lock(&st->lock);
    *out = runtime_find(st, name);
    if (*out) (*out)->n_refs++;
    pthread_mutex_unlock(&st->lock);
    if (*out) return ERR_OK;
    err_code rc = runtime_new(&made, name, e);
    if (rc) return rc;
    pthread_mutex_lock(&st->lock);
    made->n_refs = 1;
    made->next = st->runtimes;
    st->runtimes = made;
    pthread_mutex_unlock(&st->lock);
    *out = made;
    return ERR_OK;
}

static void runtime_put(struct perimeter_state *st, provider_runtime *rt) {
    if (!rt) return;
    pthread_mutex_lock(&st->lock);
    bool last = --rt->n_refs == 0;
    if (last) {
        provider_runtime **at = &st->runtimes;
        while (*at != rt) at = &(*at)->next;
        *at = rt->next;
    }
    pthread_mutex_unlock(&st->lock);
    if (last) runtime_free(rt);
}

bool perimeter_runtime(inference *inf, const char *name, bool *open, uint32_t *failures, uint32_t *running) {
    struct perimeter_state *st = inf->perimeter;
    pthread_mutex_lock(&st->lock);
    provider_runtime *rt = runtime_find(st, name);
    if (rt) {
        pthread_mutex_lock(&rt->breaker.lock);
        *open = rt->breaker.open;
        *failures = rt->breaker.failures;
        pthread_mutex_unlock(&rt->breaker.lock);
        *running = atomic_load(&rt->running);
    }
    pthread_mutex_unlock(&st->lock);
    return rt != NULL;
}

/* ---- making and freeing ------------------------------------------------------------------------------------ */

static void perimeter_free(struct perimeter_state *st, perimeter *p) {
    for (size_t k = 0; k < p->n_providers; k++) {
        provider_wipe(&p->providers[k]);
        runtime_put(st, p->providers[k].rt);
    }
    mem_free(p->providers);
    mem_free(p->routes);
    policy_table_free(p->table);
    policy_free(p->policy);
    detector_free(p->detector);
    mem_free(p);
}

static err_code make_table(perimeter *p, err *e) {
    uint8_t digest[SHA256_LEN];
    provider_facts *facts = mem_array(p->n_providers, sizeof *facts);
    if (!facts) return err_nomem(e, "the policy's table");
    for (size_t k = 0; k < p->n_providers; k++) facts[k] = p->providers[k].facts;
    err_code rc = policy_compile(&p->table, p->policy, facts, p->n_providers, e);
    mem_free(facts);
    if (rc) return rc;
    policy_digest(p->policy, digest);
    hex_encode(p->policy_hex, digest, SHA256_LEN);
    return ERR_OK;
}

err_code perimeter_build(perimeter **out, inference *inf, err *e) {
    island *i = inf->i;
    store *s = island_store(i);
    perimeter *p = mem_zalloc(sizeof *p);
    *out = NULL;
    if (!p) return err_nomem(e, "the perimeter");
    atomic_init(&p->refs, 1);
    err_code rc = policy_words(i, &p->labels, &p->detector, e);
    if (!rc) rc = policy_in_force(i, &p->labels, p->detector, &p->policy, e);
    if (!rc) rc = providers_read(s, &p->providers, &p->n_providers, e);
    if (!rc) rc = provider_keys_read(i, p->providers, p->n_providers, e);
    if (!rc) rc = routes_read(s, p->providers, p->n_providers, &p->routes, &p->n_routes, e);
    if (!rc) rc = make_table(p, e);
    for (size_t k = 1; k < p->n_providers && !rc; k++)
        rc = runtime_get(inf->perimeter, p->providers[k].facts.name, &p->providers[k].rt, e);
    if (rc)
        perimeter_free(inf->perimeter, p);
    else
        *out = p;
    return rc;
}

/* ---- the one in force -------------------------------------------------------------------------------------- */

perimeter *perimeter_get(inference *inf) {
    struct perimeter_state *st = inf->perimeter;
    pthread_mutex_lock(&st->lock);
    perimeter *p = st->now;
    atomic_fetch_add_explicit(&p->refs, 1, memory_order_relaxed);
    pthread_mutex_unlock(&st->lock);
    return p;
}

void perimeter_put(inference *inf, perimeter *p) {
    if (p && atomic_fetch_sub_explicit(&p->refs, 1, memory_order_acq_rel) == 1) perimeter_free(inf->perimeter, p);
}

void perimeter_install(inference *inf, perimeter *p) {
    struct perimeter_state *st = inf->perimeter;
    pthread_mutex_lock(&st->lock);
    perimeter *old = st->now;
    st->now = p;
    pthread_mutex_unlock(&st->lock);
    perimeter_put(inf, old);
}

err_code perimeter_reload(inference *inf, err *e) {
    perimeter *p = NULL;
    changes_lock();
    err_code rc = perimeter_build(&p, inf, e);
    if (!rc) perimeter_install(inf, p);
    changes_unlock();
    return rc;
}

err_code perimeter_open(inference *inf, err *e) {
    struct perimeter_state *st = mem_zalloc(sizeof *st);
    if (!st) return err_nomem(e, "the perimeter");
    pthread_mutex_init(&st->lock, NULL);
    inf->perimeter = st;
    err_code rc = perimeter_reload(inf, e);
    if (rc) perimeter_close(inf);
    return rc;
}

void perimeter_close(inference *inf) {
    struct perimeter_state *st = inf->perimeter;
    if (!st) return;
    perimeter_put(inf, st->now);
    pthread_mutex_destroy(&st->lock);
    mem_free(st);
    inf->perimeter = NULL;
}

static int by_name(const void *key, const void *route) {
    return strcmp(key, ((const model_route *)route)->model);
}

const model_route *perimeter_route(const perimeter *p, const char *model_name) {
    return p->n_routes ? bsearch(model_name, p->routes, p->n_routes, sizeof *p->routes, by_name) : NULL;
}
