/* Internal to operations: what its files share. */
#ifndef POLDER_OPERATIONS_INTERNAL_H
#define POLDER_OPERATIONS_INTERNAL_H

#include "operations/tally.h"

#include "base/json.h"
#include "base/mem.h"
#include "base/sys.h"

#define INVENTORY_MAX (16u << 20) /* bytes of one as JSON */

/* ---- declared.c: what the island says of itself ------------------------------------------------------------- */

typedef struct declared { /* zero-initialised; declared_close in any case */
    cJSON *tree;          /* {"providers", "routes", "models", "policy", "settings"}: what two inventories compare */
    policy_world world;
    policy_table *table;
    sensitivity unlabelled; /* what a request is that nobody labelled and nothing was found in */
} declared;
err_code declared_open(declared *d, island *i, err *e);
void declared_close(declared *d);
const cJSON *declared_provider(const declared *d, const char *name); /* NULL: there is none */
int declared_place(const declared *d, const char *name);             /* in d->world.providers; -1 */
const cJSON *declared_route(const declared *d, const char *asked);   /* its candidates; NULL: none are set */
const cJSON *declared_model(const declared *d, const char *name);    /* an imported one; NULL */
/* Does the name lead there? A name without candidates leads to the engine's model of that name, where there is one. */
bool declared_leads(const declared *d, const char *asked, const char *provider, const char *target);
/* The names that can be called, one after another: *at begins with 0. */
const char *declared_name(const declared *d, size_t at);
bool declared_is_inside(const declared *d, const char *provider);
/* The host of "https://host:port/path". */
void host_of_url(const char *url, char *out, size_t cap);
const char *text_at(const cJSON *o, const char *key); /* "" where there is none */

/* ---- findings.c: what was seen and is not declared ---------------------------------------------------------- */
/* An array of them, the worst first. */
void findings_write(jw *w, const declared *d, const tally *t);

/* ---- changes.c ---------------------------------------------------------------------------------------------- */
/* {"since": {"record", "time"} or null, "list": [{"what", "name", "fact", "from", "to"}]} against the last recorded
 * inventory; "why" where that cannot be read. */
err_code changes_since_last(jw *w, const declared *d, const tally *t, ledger *l, err *e);

/* ---- small things for the writers ---------------------------------------------------------------------------- */
void write_moment(jw *w, const char *key, const moment *m);
void write_span(jw *w, const span *s); /* "first" and "last", null where there is none */

#endif
