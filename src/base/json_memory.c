/* Memory of JSON trees.
 *
 * A tree is hundreds of nodes of one size, and most of its strings are no longer than a node; a request makes and drops
 * several trees. So each thread keeps blocks of that one size for its next tree, and the allocator is asked for what is
 * larger and where the thread has none left. A thread gives its blocks back when it ends. */
#include "base/json_memory.h"

#include <cjson/cJSON.h>
#include <malloc.h>
#include <pthread.h>
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

#define BLOCK_BYTES 72  /* a node has 64; what malloc gives for it is as much */
#define BLOCKS_KEPT 160 /* of a thread: 12 KB */

typedef struct block {
    struct block *next;
} block;

static _Thread_local struct {
    block *first;
    unsigned n;
    bool known; /* its end will be told to drop_all */
} kept;
static pthread_key_t at_end;

static void drop_all(void *unused) {
    for (block *b = kept.first, *next; b; b = next) {
        next = b->next;
        free(b);
    }
    kept.first = NULL;
    kept.n = BLOCKS_KEPT; /* destructors that run later keep nothing */
}

static void *take(size_t n) {
    block *b = kept.first;
    if (n > BLOCK_BYTES) return malloc(n);
    if (!b) return malloc(BLOCK_BYTES);
    kept.first = b->next;
    kept.n--;
    return b;
}

static void give(void *p) {
    if (!p) return;
    if (kept.n >= BLOCKS_KEPT || malloc_usable_size(p) != BLOCK_BYTES) {
        free(p);
        return;
    }
    if (!kept.known) {
        kept.known = pthread_setspecific(at_end, &kept) == 0;
        if (!kept.known) {
            free(p);
            return;
        }
    }
    block *b = p;
    b->next = kept.first;
    kept.first = b;
    kept.n++;
}

/* Where the sanitizer looks for memory that is used after it was freed, blocks go back at once. */
void json_memory_init(void) {
#ifndef WATCHED
    static bool done;
    if (done || pthread_key_create(&at_end, drop_all) != 0) return;
    done = true;
    cJSON_InitHooks(&(cJSON_Hooks){.malloc_fn = take, .free_fn = give});
#else
    (void)take;
    (void)give;
    (void)drop_all;
#endif
}
