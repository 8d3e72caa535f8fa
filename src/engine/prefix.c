/* prefix.h says what this is. */
#include "engine/prefix.h"

#include "base/bytes.h"
#include "base/mem.h"
#include "engine/kernels/vec.h"

#include <string.h>

#define BUCKETS_FIRST 64

void prefix_init(prefix_tree *t) {
    *t = (prefix_tree){.seed = random_u64()};
}

void prefix_free(prefix_tree *t) {
    for (prefix_node *n = t->newest, *next; n; n = next) {
        next = n->older;
        mem_free(n);
    }
    mem_free(t->buckets);
    *t = (prefix_tree){.seed = t->seed};
}

/* ---- finding ---------------------------------------------------------------------------------------------- */

static uint64_t mix(uint64_t h, uint64_t x) {
    h = (h ^ x) * 0x9E3779B97F4A7C15u;
    return h ^ h >> 29;
}

/* The parent's hash stands for the parent: it holds all tokens before. */
static uint64_t hash_of(const prefix_tree *t, const prefix_node *parent, const uint8_t *space, const int32_t *tokens) {
    uint64_t h = parent ? parent->hash : t->seed, word;
    for (size_t i = 0; !parent && i < PREFIX_SPACE; i += sizeof word) {
        memcpy(&word, space + i, sizeof word);
        h = mix(h, word);
    }
    for (size_t i = 0; i < VEC_TILE; i += 2) {
        memcpy(&word, tokens + i, sizeof word);
        h = mix(h, word + t->seed);
    }
    return h;
}

/* Equal parents have equal spaces, but a space costs little to compare and much to mistake. */
static bool is(const prefix_node *n, const prefix_node *parent, const uint8_t *space, const int32_t *tokens) {
    return n->parent == parent && memcmp(n->space, space, PREFIX_SPACE) == 0 &&
           memcmp(n->tokens, tokens, VEC_TILE * sizeof *tokens) == 0;
}

prefix_node *prefix_find(const prefix_tree *t, const prefix_node *parent, const uint8_t *space, const int32_t *tokens) {
    if (t->n == 0) return NULL;
    uint64_t h = hash_of(t, parent, space, tokens);
    for (prefix_node *n = t->buckets[h & (t->n_buckets - 1)]; n; n = n->chain)
        if (n->hash == h && is(n, parent, space, tokens)) return n;
    return NULL;
}

/* ---- order of use ----------------------------------------------------------------------------------------- */

static void unlink_node(prefix_tree *t, prefix_node *n) {
    if (n->newer)
        n->newer->older = n->older;
    else
        t->newest = n->older;
    if (n->older)
        n->older->newer = n->newer;
    else
        t->oldest = n->newer;
}

static void link_newest(prefix_tree *t, prefix_node *n) {
    n->newer = NULL;
    n->older = t->newest;
    if (t->newest)
        t->newest->newer = n;
    else
        t->oldest = n;
    t->newest = n;
}

static void link_oldest(prefix_tree *t, prefix_node *n) {
    n->older = NULL;
    n->newer = t->oldest;
    if (t->oldest)
        t->oldest->older = n;
    else
        t->newest = n;
    t->oldest = n;
}

void prefix_use(prefix_tree *t, prefix_node *n) {
    for (; n; n = n->parent) {
        unlink_node(t, n);
        link_newest(t, n);
    }
}

/* ---- adding and removing ---------------------------------------------------------------------------------- */

/* Twice the buckets; where there is no memory for them, chains grow instead. */
static bool grow(prefix_tree *t) {
    size_t n_buckets = t->n_buckets ? t->n_buckets * 2 : BUCKETS_FIRST;
    prefix_node **buckets = mem_array(n_buckets, sizeof(prefix_node *));
    if (!buckets) return t->n_buckets > 0;
    for (prefix_node *n = t->newest; n; n = n->older) {
        prefix_node **b = &buckets[n->hash & (n_buckets - 1)];
        n->chain = *b;
        *b = n;
    }
    mem_free(t->buckets);
    t->buckets = buckets;
    t->n_buckets = n_buckets;
    return true;
}

prefix_node *prefix_add(prefix_tree *t, prefix_node *parent, const uint8_t *space, const int32_t *tokens,
                        uint32_t page) {
    prefix_node *n = mem_zalloc(sizeof *n);
    if (!n) return NULL;
    if (t->n >= t->n_buckets && !grow(t)) {
        mem_free(n);
        return NULL;
    }
    n->parent = parent;
    n->tokens = tokens;
    n->page = page;
    n->hash = hash_of(t, parent, space, tokens);
    memcpy(n->space, space, PREFIX_SPACE);
    if (parent) {
        parent->n_children++;
        n->depth = parent->depth + 1;
    }
    prefix_node **b = &t->buckets[n->hash & (t->n_buckets - 1)];
    n->chain = *b;
    *b = n;
    link_oldest(t, n);
    t->n++;
    return n;
}

void prefix_remove(prefix_tree *t, prefix_node *n) {
    prefix_node **at = &t->buckets[n->hash & (t->n_buckets - 1)];
    while (*at != n) at = &(*at)->chain;
    *at = n->chain;
    unlink_node(t, n);
    if (n->parent) n->parent->n_children--;
    t->n--;
    mem_free(n);
}
