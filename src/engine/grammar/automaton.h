/* Internal to engine: following a network along bytes, with everything computed once.
 *
 * A set is where a text may be in the network: a list of items (state, node). A node is a rule that was called from a
 * set, and knows where that call goes on (state, node of the caller): nodes are the stacks of all readings of the text,
 * with what they share stored once (Earley's sets, written as a graph of stacks). A set is known by its kernel, the
 * items right after a byte or token; what follows from them without reading is added when the set is closed. Equal
 * kernels are one set, so a text that comes back to where it was comes back to the same set, and a lazily filled table
 * (set, class of byte) → set makes most steps one load.
 *
 * Sets, nodes and tables live until automaton_collect; ids are indices. A text of depth d needs d nodes, whatever its
 * length; an ambiguous network may make more, which the limits stop. One thread at a time. */
#ifndef POLDER_ENGINE_AUTOMATON_H
#define POLDER_ENGINE_AUTOMATON_H

#include "engine/grammar/grammar.h"

#define SET_UNKNOWN 0u /* in tables; no set has this id */
#define SET_DEAD    1u /* the set without items */
#define SET_START   2u

typedef struct item {
    uint32_t q, node;
} item;

typedef struct set {
    uint32_t kernel, n_kernel; /* in `items` */
    uint32_t moves, n_moves;   /* items with edges that read, in `items`; once closed */
    uint32_t next;             /* table in `tables`, n_classes entries; 0: none yet */
    uint32_t mask;             /* 1 + index of its mask; 0: none */
    uint32_t loop;             /* where the bytes of loop_kinds lead; SET_UNKNOWN: not asked yet */
    uint32_t loop_depth;       /* how many of them in a row go on like that */
    uint32_t chain;            /* next in the bucket of kernels */
    uint8_t loop_kinds;
    bool closed, accepting, has_tokens;
} set;

typedef struct node {
    uint32_t rule, set;
    uint32_t returns; /* first of its list in `returns`; 0: none */
    uint32_t chain;   /* next node of the same set; 0: none */
} node;

typedef struct node_return {
    uint32_t q, node, next;
} node_return;

typedef struct vec32 { /* a growing array of one of the kinds above */
    void *p;
    uint32_t n, cap;
} vec32;

struct automaton {
    const network *net;
    vec32 sets, items, tables, nodes, returns, buckets;
    vec32 scratch, order; /* items under work */
    vec32 sorting;        /* returns under work */
    vec32 seen;           /* open addressing: items of the set that is being closed, 1 + index in order */
    vec32 known;          /* open addressing: nodes by what they say */
    uint32_t *set_nodes;  /* (sets.cap) first node of each set; 0: none */
    uint32_t cap_set_nodes;
    uint64_t n_steps;    /* items looked at, ever */
    uint64_t collect_at; /* bytes */
    uint64_t step_end;   /* n_steps may not pass it: set before each call from outside */
    err_code rc;         /* sticky within a call: ERR_NOMEM, ERR_TOO_LARGE */
};

/* Work of one call from outside, and memory. */
#define AUTOMATON_STEPS_MAX ((uint64_t)5000000)
#define AUTOMATON_BYTES_MAX ((uint64_t)192 << 20) /* a call that passes it fails */
#define AUTOMATON_BYTES_GC  ((uint64_t)48 << 20)  /* collected before the next call */
#define SET_ITEMS_MAX       200000u

bool automaton_init(automaton *a, const network *n);
void automaton_clear(automaton *a);
uint64_t automaton_bytes(const automaton *a);
/* Before each call from outside. */
void automaton_begin(automaton *a);
err_code automaton_check(const automaton *a, err *e);
/* The set after a byte, after a token that the grammar names, whether it may end. SET_DEAD also where a->rc was set. */
uint32_t automaton_step_slow(automaton *a, uint32_t s, uint32_t class);
uint32_t automaton_token(automaton *a, uint32_t s, int32_t id, bool is_text);
/* What either of two sets is. */
uint32_t automaton_union(automaton *a, uint32_t s, uint32_t t);
bool automaton_accepts(automaton *a, uint32_t s);
/* Closes a set where it is not; false: a->rc says why. */
bool automaton_close(automaton *a, uint32_t s);
/* Fills loop, loop_kinds and loop_depth. */
void automaton_find_loop(automaton *a, uint32_t s, uint32_t depth_max);
/* Keep what the sets in roots need (their ids are replaced), drop the rest. */
bool automaton_collect(automaton *a, uint32_t *const *roots, const uint32_t *n_roots, uint32_t n_lists);

static inline set *automaton_set(const automaton *a, uint32_t s) {
    return (set *)a->sets.p + s;
}

static inline uint32_t automaton_step(automaton *a, uint32_t s, uint8_t byte) {
    uint32_t class = a->net->class_of[byte], next = automaton_set(a, s)->next;
    uint32_t t = next ? ((const uint32_t *)a->tables.p)[next + class] : SET_UNKNOWN;
    return t != SET_UNKNOWN ? t : automaton_step_slow(a, s, class);
}

#endif
