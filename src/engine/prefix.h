/* Internal to engine: which tokens the pages of KV memory that outlive their sequences stand for.
 *
 * A radix tree for each space. A node is one whole page: the VEC_TILE tokens in it, after those of its parent. The tree
 * knows nothing of memory: it finds nodes and orders them by last use; session_prefix.c holds pages and states.
 *
 * 1. A node is found by a hash of (space, parent, tokens), and taken only where all three are equal: no collision
 * shares.
 * 2. Of two nodes on one path the one nearer to the beginning was never used earlier than the other. So the least
 *    recently used node has no children, and giving up nodes from that end never cuts a path in two.
 * 3. What a node points to (tokens, checkpoint) belongs to the session.
 */
#ifndef POLDER_ENGINE_PREFIX_H
#define POLDER_ENGINE_PREFIX_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

#define PREFIX_SPACE 32 /* bytes that name a space */

struct checkpoint;

typedef struct prefix_node {
    struct prefix_node *parent; /* NULL: the first page */
    struct prefix_node *chain;  /* the next in its bucket */
    struct prefix_node *newer, *older;
    struct checkpoint *state; /* after its last position; NULL: there is none */
    const int32_t *tokens;    /* (VEC_TILE) */
    uint64_t hash;
    uint32_t page;       /* as the session counts them */
    uint32_t depth;      /* pages before it */
    uint32_t n_children; /* nodes whose parent it is */
    uint32_t mark;       /* for whoever walks the tree */
    uint8_t space[PREFIX_SPACE];
} prefix_node;

typedef struct prefix_tree {
    prefix_node **buckets; /* (n_buckets), a power of two; NULL while there are no nodes */
    size_t n_buckets, n;
    prefix_node *newest, *oldest;
    uint64_t seed; /* so that nobody can choose tokens that lie in one bucket */
} prefix_tree;

void prefix_init(prefix_tree *t);
void prefix_free(prefix_tree *t); /* what nodes point to is the caller's */

/* The node of these VEC_TILE tokens after `parent` (NULL: at the beginning), or NULL. */
prefix_node *prefix_find(const prefix_tree *t, const prefix_node *parent, const uint8_t *space, const int32_t *tokens);
/* A new one, as the least recently used; it must not be there already. `tokens` must stay. NULL: no memory, and nothing
 * has changed. */
prefix_node *prefix_add(prefix_tree *t, prefix_node *parent, const uint8_t *space, const int32_t *tokens,
                        uint32_t page);
/* The node and all before it were used now. */
void prefix_use(prefix_tree *t, prefix_node *n);
/* Take out and free a node without children. */
void prefix_remove(prefix_tree *t, prefix_node *n);

#endif
