/* Which candidate is tried next, and when a provider is left alone. */
#include "inference/routing.h"

#define ROUTING_MAX 32 /* candidates that its masks hold */
_Static_assert(CANDIDATES_MAX <= ROUTING_MAX && PROVIDERS_MAX <= 64, "the masks of a routing hold them all");

static bool may_be_chosen(const routing *r, uint32_t i) {
    uint32_t bit = (uint32_t)1 << i;
    unsigned p = r->list[i].provider;
    if (p >= 64 || !(r->allowed >> p & 1)) return false; /* before anything else: nothing below may bring it back */
    return !((r->unusable | r->given_up) & bit) && !(r->closed >> p & 1);
}

static uint32_t weight_of(const candidate *c) {
    return c->weight ? c->weight : 1;
}

/* One of the lowest rank among those in `mask`, by weight. */
static int draw_among(const routing *r, uint32_t n, uint32_t mask, uint64_t draw) {
    unsigned rank = 256;
    uint64_t sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (!(mask >> i & 1) || r->list[i].rank > rank) continue;
        if (r->list[i].rank < rank) sum = 0;
        rank = r->list[i].rank;
        sum += weight_of(&r->list[i]);
    }
    if (!sum) return -1;
    uint64_t at = draw % sum; /* weights are small beside 2^64: no candidate is favoured that anybody could measure */
    for (uint32_t i = 0; i < n; i++) {
        if (!(mask >> i & 1) || r->list[i].rank != rank) continue;
        uint32_t w = weight_of(&r->list[i]);
        if (at < w) return (int)i;
        at -= w;
    }
    return -1;
}

int routing_next(const routing *r, uint64_t draw) {
    if (r->attempts >= r->attempts_max) return -1;
    uint32_t n = r->n < ROUTING_MAX ? r->n : ROUTING_MAX, mask = 0;
    for (uint32_t i = 0; i < n; i++)
        if (may_be_chosen(r, i)) mask |= (uint32_t)1 << i;
    uint32_t fresh = mask & ~r->tried;
    return draw_among(r, n, fresh ? fresh : mask, draw);
}

/* ---- the breaker --------------------------------------------------------------------------------------------
 *
 *             failures_max in a row                open_ms later: one request
 *   closed ─────────────────────────▶ open ◀──────────────────────────▶ probing
 *      ▲                                        its failure                │
 *      └───────────────────────────────── its success ────────────────────┘
 *
 * Results of requests that began before it opened come in too: a success closes it all the same (the provider
 * answers), a failure does not make it stay open any longer. */

void breaker_init(breaker *b) {
    pthread_mutex_init(&b->lock, NULL);
    b->failures = 0;
    b->open = b->probing = false;
    b->opened_ms = 0;
}

void breaker_destroy(breaker *b) {
    pthread_mutex_destroy(&b->lock);
}

bool breaker_may(breaker *b, int64_t now_ms, int64_t open_ms) {
    pthread_mutex_lock(&b->lock);
    bool may = !b->open;
    if (b->open && !b->probing && now_ms - b->opened_ms >= open_ms) may = b->probing = true;
    pthread_mutex_unlock(&b->lock);
    return may;
}

void breaker_result(breaker *b, breaker_outcome how, int64_t now_ms, uint32_t failures_max) {
    pthread_mutex_lock(&b->lock);
    if (how == BREAKER_GOOD) {
        b->failures = 0;
        b->open = b->probing = false;
    } else if (how == BREAKER_NEITHER) {
        b->probing = false; /* it told nothing: the next request probes */
    } else {
        b->failures += b->failures < UINT32_MAX;
        if (b->open ? b->probing : b->failures >= failures_max) {
            b->open = true;
            b->opened_ms = now_ms;
        }
        b->probing = false;
    }
    pthread_mutex_unlock(&b->lock);
}

bool breaker_is_open(breaker *b) {
    pthread_mutex_lock(&b->lock);
    bool open = b->open;
    pthread_mutex_unlock(&b->lock);
    return open;
}
