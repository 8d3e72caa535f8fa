/* Memory of JSON trees.
 *
 * A tree is dozens of nodes of one size, and most of its strings are no longer than a node; a request makes and drops
 * several trees. So blocks of that one size, a cache line each, come from one pool, and the allocator is asked for what
 * is larger and where the pool is used up. What is free is known by number: taking and giving a block touches nothing
 * of it, so a block that has left the processor's cache is not fetched only to be listed.
 *
 * The numbers are kept by processor, not by thread: of many threads that take turns (the crew, streams) each one's own
 * blocks have long left the cache when its next request comes. A thread takes and gives them in batches, so that the
 * shared lists are touched seldom. */
#include "base/json_memory.h"

#include <cjson/cJSON.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WATCHED 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define WATCHED 1
#endif

#define BLOCK_BYTES 64
#define POOL        16384u /* blocks: 1 MB, which is not given back */
#define BATCH       32u    /* a thread keeps at most two */
#define SHARES      16

_Static_assert(sizeof(cJSON) <= BLOCK_BYTES && POOL <= UINT16_MAX && POOL % BATCH == 0, "blocks hold nodes");

typedef struct share {
    _Alignas(BLOCK_BYTES) atomic_flag taken;
    unsigned n;
    uint16_t free[POOL]; /* room for all of them: a block always finds a place */
} share;

static _Alignas(BLOCK_BYTES) unsigned char pool[POOL][BLOCK_BYTES];
static atomic_uint n_begun; /* blocks that were ever handed out; may pass POOL */
static share shares[SHARES];

static _Thread_local struct {
    uint16_t free[2 * BATCH];
    unsigned n;
    bool known; /* its end will be told to give_back */
    bool ended; /* it was: destructors that run later keep nothing */
} own;

static pthread_key_t at_end;

static share *own_share(void) {
    int cpu = sched_getcpu();
    return &shares[cpu > 0 ? cpu % SHARES : 0];
}

static bool try_enter(share *s) {
    return !atomic_flag_test_and_set_explicit(&s->taken, memory_order_acquire);
}

static void leave(share *s) {
    atomic_flag_clear_explicit(&s->taken, memory_order_release);
}

/* One that nobody else has just now, the processor's own first: a thread may be stopped while it holds one. */
static share *enter_any(void) {
    for (share *s = own_share();; s = s + 1 < shares + SHARES ? s + 1 : shares) {
        if (try_enter(s)) return s;
        sched_yield();
    }
}

static void store(const uint16_t *list, unsigned n) {
    share *s = enter_any();
    memcpy(s->free + s->n, list, n * sizeof *list);
    s->n += n;
    leave(s);
}

static void give_back(void *unused) {
    store(own.free, own.n);
    own.n = 0;
    own.ended = true;
}

/* Whether this thread may keep blocks: its end must be known, and not be past. A thread that takes a batch and drops
 * nothing has blocks to give back too. */
static bool may_keep(void) {
    if (!own.known) own.known = pthread_setspecific(at_end, &own) == 0;
    return own.known && !own.ended;
}

static bool fetch_from(share *s) {
    if (!try_enter(s)) return false;
    unsigned n = s->n < BATCH ? s->n : BATCH;
    s->n -= n;
    memcpy(own.free, s->free + s->n, n * sizeof *own.free);
    leave(s);
    own.n = n;
    return n != 0;
}

/* Blocks that nobody has used yet. */
static bool fetch_fresh(void) {
    if (atomic_load(&n_begun) >= POOL) return false;
    unsigned from = atomic_fetch_add(&n_begun, BATCH);
    if (from >= POOL) return false;
    for (unsigned i = 0; i < BATCH; i++) own.free[i] = (uint16_t)(from + BATCH - 1 - i);
    own.n = BATCH;
    return true;
}

static bool fetch_batch(void) {
    if (!may_keep()) return false;
    if (fetch_from(own_share()) || fetch_fresh()) return true;
    for (int i = 0; i < SHARES; i++)
        if (fetch_from(&shares[i])) return true;
    return false;
}

static void *take(size_t n) {
    if (n > BLOCK_BYTES || (!own.n && !fetch_batch())) return malloc(n);
    return pool[own.free[--own.n]];
}

static void give(void *p) {
    uintptr_t at = (uintptr_t)p - (uintptr_t)pool;
    if (at >= sizeof pool) {
        free(p);
        return;
    }
    uint16_t i = (uint16_t)(at / BLOCK_BYTES);
    if (!may_keep()) {
        store(&i, 1);
        return;
    }
    if (own.n == 2 * BATCH) { /* those that were given first are the coldest */
        store(own.free, BATCH);
        memmove(own.free, own.free + BATCH, BATCH * sizeof *own.free);
        own.n = BATCH;
    }
    own.free[own.n++] = i;
}

/* Where the sanitizer looks for memory that is used after it was freed, the allocator keeps it. */
void json_memory_init(void) {
#ifndef WATCHED
    static bool done;
    if (!done && pthread_key_create(&at_end, give_back) != 0) return;
    done = true;
    cJSON_InitHooks(&(cJSON_Hooks){.malloc_fn = take, .free_fn = give});
#else
    (void)take;
    (void)give;
    (void)give_back;
    cJSON_InitHooks(NULL);
#endif
}
