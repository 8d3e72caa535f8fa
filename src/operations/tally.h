/* Internal to operations: what was observed in a range of the ledger, added up in bounded memory.
 *
 *   workload   a model name that was asked for
 *   flow       a workload and a place that it was answered at: (model name, provider, model there)
 *   face       a provider as the records describe it: (provider, operator, country, law, inside, driver, host)
 *   other      what left for another reason than an answer: (purpose, host, what)
 *   change     a record that says that something declared was changed
 *
 * A request is open from its admitted record to its outcome. Its egress records wait there: what its outcome says of
 * them is what left; what its outcome does not speak of, or what has no outcome, may have left.
 */
#ifndef POLDER_OPERATIONS_TALLY_H
#define POLDER_OPERATIONS_TALLY_H

#include "operations/flat.h"
#include "operations/operations.h"

#define KEY_LEN         16
#define WORKLOADS_LIMIT 4096u
#define FLOWS_LIMIT     16384u
#define FACES_LIMIT     2048u
#define OTHERS_LIMIT    2048u
#define CHANGES_LIMIT   1000u /* the last ones are kept */
#define OPEN_LIMIT      16384u
#define TIME_LEN        24 /* RFC 3339 with milliseconds */
#define TARGET_MAX      200
#define NONE            UINT32_MAX

typedef struct moment {
    uint64_t seq;
    char time[TIME_LEN + 1];
} moment;

typedef struct span { /* first and last; n 0: never */
    uint64_t n;
    moment first, last;
} span;

typedef struct uncertain { /* egress that no outcome speaks of */
    uint64_t requests, bytes;
} uncertain;

typedef struct workload {
    char name[MODEL_NAME_MAX + 1];
    uint64_t admitted, completed, failed, refused;
    span when;
} workload;

typedef struct flow {
    uint32_t workload;
    char provider[PROVIDER_NAME_MAX + 1], target[TARGET_MAX + 1];
    bool engine;
    uint64_t attempts, answered; /* by outcomes */
    uint64_t left;               /* times that a body, or a part of it, went out */
    uint64_t sent, received;     /* bytes of bodies */
    uint64_t pseudonymised;      /* of those that left */
    uint64_t prompt_tokens, completion_tokens;
    uint64_t unrecorded; /* attempts that sent bytes without an egress record before */
    double cost_eur;
    bool has_cost;
    uncertain maybe;
    span when;
} flow;

typedef struct face {
    char provider[PROVIDER_NAME_MAX + 1], driver[16], operator_name[120], country[3], operator_law[3], host[300];
    bool inside;
    uint64_t left, sent;
    uncertain maybe;
    span when;
} face;

typedef struct other {
    char purpose[64], host[300], what[300];
    span when;
} other;

typedef struct change {
    moment at;
    char event[32], subject[MODEL_NAME_MAX + 1], by[KEY_ID_MAX + 1];
    char *changes; /* {"fact": {"from", "to"}} of provider.changed, as JSON; may be NULL */
} change;

typedef struct rows { /* found by a key; their places do not change */
    char *list;
    uint8_t *keys;
    uint32_t *slots;
    size_t size;
    uint32_t n, cap, n_slots, limit;
    bool over; /* the limit was met */
} rows;

struct open_egress;
typedef struct open_request {
    uint64_t seq;
    uint32_t workload;
    struct open_request *next;
    struct open_egress *egress;
} open_request;

typedef struct tally { /* zero-initialised; tally_init, tally_free */
    rows workloads, flows, faces, others;
    open_request **buckets;
    uint32_t n_open;
    change *changes; /* a ring */
    uint32_t n_changes, first_change;
    uint64_t changes_seen;
    uint64_t records, from, to; /* [from, to) */
    moment first, last;
    uint64_t inventory; /* the last record of an inventory, where has_inventory */
    bool has_inventory;
    bool complete;
} tally;

err_code tally_init(tally *t, err *e);
void tally_free(tally *t);

/* The place of the row of a key, made where there is none; NONE where the limit is met. */
err_code rows_get(rows *r, const uint8_t key[KEY_LEN], uint32_t *at, bool *made, err *e);
void span_add(span *s, uint64_t seq, slice time);

/* Parts of a key, with a NUL behind each. */
void key_of(uint8_t key[KEY_LEN], const char *const *parts, size_t n);
#define KEY_OF(key, ...)                                     \
    do {                                                     \
        const char *const parts_[] = {__VA_ARGS__};          \
        key_of(key, parts_, sizeof parts_ / sizeof *parts_); \
    } while (0)

static inline workload *tally_workload(const tally *t, uint32_t i) {
    return (workload *)(void *)t->workloads.list + i;
}
static inline flow *tally_flow(const tally *t, uint32_t i) {
    return (flow *)(void *)t->flows.list + i;
}
static inline face *tally_face(const tally *t, uint32_t i) {
    return (face *)(void *)t->faces.list + i;
}
static inline other *tally_other(const tally *t, uint32_t i) {
    return (other *)(void *)t->others.list + i;
}
/* The i-th of those that are kept, oldest first. */
static inline const change *tally_change(const tally *t, uint32_t i) {
    return &t->changes[(t->first_change + i) % CHANGES_LIMIT];
}

err_code tally_name(tally *t, const char *asked, uint32_t *at, err *e);
err_code tally_way(tally *t, uint32_t asked, const char *provider, const char *target, uint32_t *at, err *e);

/* Open requests. NONE as a workload is one that was not counted. */
err_code open_add(tally *t, uint64_t seq, uint32_t asked, err *e);
open_request *open_find(const tally *t, uint64_t seq);
err_code open_sent(open_request *r, uint32_t way, uint32_t seen_as, uint64_t bytes, bool pseudonymised, err *e);
/* The first egress of that flow that waits is taken off; false: none waits. */
bool open_take(open_request *r, uint32_t way, uint32_t *seen_as, bool *pseudonymised);
/* It is over: what still waits may have left. */
void open_close(tally *t, open_request *r);
void open_close_all(tally *t);

err_code tally_change_add(tally *t, const change *c, err *e); /* takes c->changes */

/* ---- scan.c ---- */
/* Adds the records [t->from, t->to) up. */
err_code tally_scan(tally *t, ledger *l, err *e);
/* The first record that is not before `since`. */
err_code scan_since(ledger *l, const char *since, uint64_t *seq, err *e);
/* The last record before `end` of an inventory. */
err_code scan_last_inventory(ledger *l, uint64_t end, uint64_t *seq, bool *found, err *e);

#endif
