/* Internal to inference: what the files about providers, routes and the policy in force share.
 *
 * Every change goes through change_run: one lock, one transaction of the store. In it the rows change, then the
 * snapshot that will be in force is made from them (where a room is open), then the record becomes durable, then the
 * transaction ends and the snapshot takes its place. So a change that cannot be read back, recorded or stored is none.
 */
#ifndef POLDER_INFERENCE_PROVIDERS_INTERNAL_H
#define POLDER_INFERENCE_PROVIDERS_INTERNAL_H

#include "inference/internal.h"
#include "inference/perimeter.h"

#include "base/json.h"
#include "base/mem.h"

#define ROUTES_MAX          1000 /* model names with candidates */
#define ROUTE_WEIGHT_MAX    1000
#define ROUTE_RANK_MAX      15
#define PROVIDER_FACTS_MAX  8192u /* bytes of a provider's facts in the store */
#define ENGINE_NAME         "engine"
#define CREDENTIAL_OVERHEAD 40u /* nonce and tag of a sealed credential */

/* ---- provider_facts.c: what is known of a provider, as JSON and as a struct ---- */
/* From {name, driver, url, …}: null and absent are "not known". ERR_INVALID names the fact and what is allowed. */
err_code provider_parse(provider *out, const cJSON *facts, err *e);
/* Every fact, null where it is not known; without its name. The engine has no url. NULL: out of memory. */
cJSON *provider_facts_json(const provider *p);
err_code provider_check_name(const char *name, err *e);
/* ERR_INVALID where `facts` is no object or has a key that is no fact. */
err_code provider_check_keys(const cJSON *facts, err *e);
bool country_known(const char *code); /* ISO 3166-1 alpha-2, capitals */

/* ---- provider_store.c: rows ---- */
/* *out: (n) providers, the engine first; mem_free. Of a read-only island without tables only the engine. */
err_code providers_read(store *s, provider **out, size_t *n, err *e);
/* The tables are there. ERR_NOT_FOUND says which providers there are. */
err_code provider_find(store *s, const char *name, provider *out, err *e);
/* The place of a name in a list; -1. */
int provider_place(const provider *list, size_t n, const char *name);
/* {"is": rows} of a query with one row at most; row may be NULL. As models.c has it. */
err_code store_one(store *s, const char *sql, const store_val *args, size_t n, bool *found,
                   err_code (*row)(store_stmt *q, void *ctx, err *e), void *ctx, err *e);
/* Every row. */
err_code store_each(store *s, const char *sql, const store_val *args, size_t n,
                    err_code (*row)(store_stmt *q, void *ctx, err *e), void *ctx, err *e);

typedef struct change_job {
    island *i;
    inference *inf;     /* NULL: no server */
    const identity *by; /* NULL: "local" */
    void *ctx;
    /* Changes rows and fills the record's body; *r stays NULL where nothing is to change. */
    err_code (*rows)(struct change_job *c, store *s, record **r, err *e);
} change_job;
err_code change_run(change_job *c, err *e);
/* Under the same lock: fn's reads belong together. */
void changes_lock(void);
void changes_unlock(void);
/* A record with "by". */
err_code change_record(const change_job *c, record **r, const char *event, err *e);

/* ---- provider_keys.c ---- */
/* The credential of each provider that has one, into its `credential`. */
err_code provider_keys_read(island *i, provider *list, size_t n, err *e);
void provider_wipe(provider *p); /* its credential */
err_code provider_key_since(store *s, const char *name, bool *set, int64_t *since_ms, err *e);
err_code provider_key_remove(store *s, const char *name, err *e); /* in a transaction; there may be none */

/* ---- routes.c ---- */
/* (n) routes by name; mem_free. A candidate whose provider is unknown is ERR_CORRUPT. */
err_code routes_read(store *s, const provider *list, size_t n_providers, model_route **out, size_t *n, err *e);
/* The candidates of one name as route_list shows them: NULL where there are none. */
err_code route_json(store *s, const char *model, cJSON **out, err *e);
/* For models.c: every name with candidates into its list (by name), or those of one name into *out, which is NULL where
 * no artifact has the name. */
err_code routes_into_models(store *s, cJSON *models, err *e);
err_code route_into_model(store *s, const char *model, cJSON **out, err *e);
/* A model name whose candidates lead to this provider ("" for none) and, where it is the engine's, this model. */
err_code route_leads_to(store *s, const char *provider, const char *model, char out[MODEL_NAME_MAX + 1], err *e);

/* ---- policy_store.c ---- */
/* Labels and detector as island.yaml names them; *d is the caller's. */
err_code policy_words(island *i, label_set *labels, detector **d, err *e);
/* The policy in force: the default where there is none. A stored one that cannot be read any more is ERR_INVALID with
 * its line and what to do. */
err_code policy_in_force(island *i, const label_set *labels, const detector *d, policy **out, err *e);

/* ---- perimeter.c ---- */
err_code perimeter_open(inference *inf, err *e);
err_code perimeter_build(perimeter **out, inference *inf, err *e);
void perimeter_install(inference *inf, perimeter *p); /* takes the reference; cannot fail */
/* What runs now at a provider; false: nothing is known of it. */
bool perimeter_runtime(inference *inf, const char *name, bool *open, uint32_t *failures, uint32_t *running);

#endif
