/* Memory of JSON trees.
 *
 * A tree is hundreds of nodes of one size, and most of its strings are no longer than a node; a request makes and drops
 * several trees. So blocks of that one size are kept for the next tree, and the allocator is asked for what is larger
 * and where none is left.
 *
 * They are kept by processor, not by thread: of many threads that take turns (the crew, streams) each one's own blocks
 * have long left the processor's cache when its next request comes, and what a request waited for was mostly that. A
 * thread takes and gives them in batches, so that the shared lists are touched seldom. */
#include "base/json_memory.h"

#include <cjson/cJSON.h>
#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WATCHED 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define WATCHED 1
#endif

#define BLOCK_BYTES 72   /* a node has 64; what malloc gives for it is as much */
#define BATCH       32   /* a thread has at most two of them: 5 KB */
#define SHARED_MAX  2048 /* blocks of a processor: 160 KB */
#define SHARES      16

typedef struct block {
    struct block *next;
    struct block *batch; /* of the first of a batch: the next batch */
} block;

static _Thread_local struct {
    block *first;
    unsigned n;
    bool known; /* its end will be told to give_back */
    bool ended; /* it was: destructors that run later keep nothing */
} own;

static struct {
    _Alignas(64) atomic_flag taken;
    block *first; /* batches of BATCH blocks each */
    unsigned n;
} shares[SHARES];

static pthread_key_t at_end;

/* A share that nobody else has just now, or -1. Never waits: a thread may be stopped while it holds one. */
static int enter_share(void) {
    int cpu = sched_getcpu();
    int i = cpu > 0 ? cpu % SHARES : 0;
    return atomic_flag_test_and_set_explicit(&shares[i].taken, memory_order_acquire) ? -1 : i;
}

static void leave_share(int i) {
    atomic_flag_clear_explicit(&shares[i].taken, memory_order_release);
}

static void give_back(void *unused) {
    for (block *b = own.first, *next; b; b = next) {
        next = b->next;
        free(b);
    }
    own.first = NULL;
    own.n = 0;
    own.ended = true;
}

/* Whether this thread may keep blocks: its end must be known, and not be past. A thread that takes a batch and drops
 * nothing has blocks to give back too. */
static bool may_keep(void) {
    if (!own.known) own.known = pthread_setspecific(at_end, &own) == 0;
    return own.known && !own.ended;
}

/* A batch from the processor's share. */
static bool fetch_batch(void) {
    if (!may_keep()) return false;
    int i = enter_share();
    if (i < 0) return false;
    block *b = shares[i].first;
    if (b) {
        shares[i].first = b->batch;
        shares[i].n -= BATCH;
    }
    leave_share(i);
    own.first = b;
    own.n = b ? BATCH : 0;
    return b != NULL;
}

/* The half that was given last goes to the processor's share. */
static bool store_batch(void) {
    block *first = own.first, *last = first;
    for (unsigned k = 1; k < BATCH; k++) last = last->next;
    int i = enter_share();
    if (i < 0) return false;
    bool room = shares[i].n < SHARED_MAX;
    if (room) {
        own.first = last->next;
        own.n -= BATCH;
        last->next = NULL;
        first->batch = shares[i].first;
        shares[i].first = first;
        shares[i].n += BATCH;
    }
    leave_share(i);
    return room;
}

static void *take(size_t n) {
    if (n > BLOCK_BYTES) return malloc(n);
    if (!own.first && !fetch_batch()) return malloc(BLOCK_BYTES);
    block *b = own.first;
    own.first = b->next;
    own.n--;
    return b;
}

static void give(void *p) {
    if (!p) return;
    if (malloc_usable_size(p) != BLOCK_BYTES || !may_keep() || (own.n == 2 * BATCH && !store_batch())) {
        free(p);
        return;
    }
    block *b = p;
    b->next = own.first;
    own.first = b;
    own.n++;
}

/* Where the sanitizer looks for memory that is used after it was freed, blocks go back at once. */
void json_memory_init(void) {
#ifndef WATCHED
    static bool done;
    if (done || pthread_key_create(&at_end, give_back) != 0) return;
    done = true;
    cJSON_InitHooks(&(cJSON_Hooks){.malloc_fn = take, .free_fn = give});
#else
    (void)take;
    (void)give;
    (void)give_back;
#endif
}
