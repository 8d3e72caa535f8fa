/* Internal to inference: what decides where a request may go, as one immutable snapshot.
 *
 * A perimeter holds labels, detector, policy, its table, providers and routes as they were at one moment. A request
 * takes one reference at its beginning and keeps it to its end, so a change in the middle of a request is none. The
 * moving parts of a provider (lines, breaker, how many run) are shared between snapshots by the provider's name.
 */
#ifndef POLDER_INFERENCE_PERIMETER_H
#define POLDER_INFERENCE_PERIMETER_H

#include "inference/drivers/upstream.h"
#include "inference/inference.h"
#include "inference/routing.h"

#include "base/metrics.h"

typedef struct provider_runtime { /* shared by snapshots; counted */
    struct provider_runtime *next;
    char name[PROVIDER_NAME_MAX + 1];
    uint32_t n_refs;
    upstream_lines *lines;
    breaker breaker;
    atomic_uint running;
    metric *m_attempts, *m_failures, *m_sent, *m_received, *m_open;
} provider_runtime;

typedef struct provider {
    provider_facts facts;
    char url[UPSTREAM_URL_MAX + 1], form[16], api_version[32], ca_file[1000];
    uint32_t max_concurrent; /* 0: no limit */
    char *credential;        /* in wiped memory; NULL: none */
    provider_runtime *rt;    /* NULL of the engine */
} provider;

typedef struct model_route {
    char model[MODEL_NAME_MAX + 1];
    uint32_t n;
    candidate list[CANDIDATES_MAX];
} model_route;

typedef struct perimeter {
    atomic_uint refs;
    label_set labels;
    detector *detector;
    policy *policy;
    char policy_hex[SHA256_HEX_LEN + 1];
    policy_table *table;
    provider *providers; /* [0] is the engine */
    size_t n_providers;
    model_route *routes; /* by name */
    size_t n_routes;
} perimeter;

/* The snapshot in force, with a reference. */
perimeter *perimeter_get(inference *inf);
void perimeter_put(inference *inf, perimeter *p);
/* Reads the store anew; the next perimeter_get gives the result. On error the old one stays in force. */
err_code perimeter_reload(inference *inf, err *e);
void perimeter_close(inference *inf);
/* NULL: no candidates are set for the name (it may be an artifact's). */
const model_route *perimeter_route(const perimeter *p, const char *model);

#endif
