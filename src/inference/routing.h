/* Internal to inference: which candidate is tried next. A function of what it is given: no clock, no store.
 *
 * Invariants
 *  1. A candidate whose provider is not in `allowed` is never chosen, whatever else fails.
 *  2. Lower ranks come first; within a rank the weights decide among those that can be used now; one that was tried
 *     comes again only after every usable other one was (a repetition), and never where its failure said that nobody
 *     could do better.
 *  3. A provider whose breaker is open, or which runs as much as it may, is passed over.
 */
#ifndef POLDER_INFERENCE_ROUTING_H
#define POLDER_INFERENCE_ROUTING_H

#include "inference/inference.h"

#include <pthread.h>

typedef struct candidate {
    uint8_t provider; /* its place in the perimeter's list; 0: the engine */
    uint8_t rank;
    uint16_t weight;
    char model[201]; /* the name there */
} candidate;

typedef struct routing { /* of one request */
    const candidate *list;
    uint32_t n;
    uint64_t allowed;  /* providers, by bits */
    uint32_t unusable; /* candidates that cannot serve this request (their driver cannot), by bits */
    uint32_t tried;    /* candidates that were tried and may be again */
    uint32_t given_up; /* candidates that must not be tried again */
    uint64_t closed;   /* providers that are passed over now: breaker open, no place */
    uint32_t attempts, attempts_max;
} routing;

/* -1: none is left. `draw` decides among weights. */
int routing_next(const routing *r, uint64_t draw);

/* Failures in a row open it; after open_ms one request may try (half-open): its success closes, its failure opens it
 * again. Any thread. */
typedef struct breaker {
    pthread_mutex_t lock;
    uint32_t failures;
    bool open, probing;
    int64_t opened_ms;
} breaker;
void breaker_init(breaker *b);
void breaker_destroy(breaker *b);
/* May a request go there at `now_ms` (monotonic)? Where it says yes in the half-open state, that request is the probe
 * and must come to breaker_result. */
bool breaker_may(breaker *b, int64_t now_ms, int64_t open_ms);
typedef enum breaker_outcome { BREAKER_GOOD, BREAKER_BAD, BREAKER_NEITHER } breaker_outcome;
void breaker_result(breaker *b, breaker_outcome how, int64_t now_ms, uint32_t failures_max);
bool breaker_is_open(breaker *b);

#endif
