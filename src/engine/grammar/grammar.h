/* Internal to engine: the network that every grammar is compiled to, and the builder that its front ends (regex.c,
 * grammar_text.c, schema*.c) write it with.
 *
 * A network is a set of rules; a rule is a nondeterministic automaton over bytes from its `start` to its `end`, with
 * edges that read a byte of a range, call a rule, read a certain token, or read any token of text but some. States are
 * shared by all rules and counted from 0. The language is that of rule 0.
 *
 * Invariants once network_finish has returned ERR_OK
 *  1. Every edge lies on a way to the end of its rule: what has been read can always be completed, as far as bytes go.
 *  2. A call that would be the last step of its rule is a jump, so lists written by right recursion stay one state.
 *  3. The network is immutable. */
#ifndef POLDER_ENGINE_GRAMMAR_H
#define POLDER_ENGINE_GRAMMAR_H

#include "engine/engine.h"
#include "engine/grammar/token_trie.h"

#define NETWORK_STATES_MAX 2000000u
#define NETWORK_EDGES_MAX  6000000u
#define NETWORK_RULES_MAX  200000u
#define NETWORK_NO_STATE   UINT32_MAX

typedef enum edge_kind { EDGE_EMPTY, EDGE_BYTES, EDGE_CALL, EDGE_TOKEN, EDGE_NOT } edge_kind;

typedef struct edge {
    uint32_t target;
    uint32_t arg; /* EDGE_CALL: rule; EDGE_TOKEN: id; EDGE_NOT: where in `lists` the excluded ids are */
    uint8_t kind, lo, hi;
} edge;

typedef struct rule {
    uint32_t start, end;
    bool nullable;
} rule;

typedef struct network {
    rule *rules;
    uint32_t n_rules;
    uint32_t n_states;
    uint32_t *first; /* (n_states + 1): edges of state q are edges[first[q] .. first[q + 1]) */
    edge *edges;
    uint8_t *is_end; /* (n_states) */
    int32_t *lists;  /* EDGE_NOT: a count, then ids */
    uint32_t n_lists;
    uint8_t class_of[256]; /* bytes that no edge tells apart */
    uint8_t class_byte[256];
    uint32_t n_classes;
} network;

/* ---- building: sticky failure, one check at the end ---- */
typedef struct builder {
    network net;
    edge *edges;
    uint32_t *from; /* of each edge */
    uint32_t n_edges, cap_edges, cap_rules, cap_lists;
    uint32_t states_max;
    bool no_memory, too_large;
} builder;

void builder_init(builder *b); /* with rule 0 */
void builder_free(builder *b);
bool builder_failed(const builder *b);
err_code builder_check(const builder *b, err *e);
uint32_t builder_state(builder *b);
uint32_t builder_rule(builder *b); /* with its two states */
void builder_empty(builder *b, uint32_t from, uint32_t to);
void builder_bytes(builder *b, uint32_t from, uint8_t lo, uint8_t hi, uint32_t to);
void builder_literal(builder *b, uint32_t from, const char *p, size_t n, uint32_t to);
/* Any of these texts; beginnings that they share are shared. */
void builder_strings(builder *b, uint32_t from, uint32_t to, const char *const *list, size_t n);
/* The characters lo to hi as UTF-8; surrogates are left out. */
void builder_chars(builder *b, uint32_t from, uint32_t lo, uint32_t hi, uint32_t to);
void builder_call(builder *b, uint32_t from, uint32_t rule_id, uint32_t to);
void builder_token(builder *b, uint32_t from, int32_t id, uint32_t to);
void builder_not(builder *b, uint32_t from, const int32_t *ids, uint32_t n, uint32_t to);
/* A part of what was built that stands for itself: its edges lie within its states. */
typedef struct builder_part {
    uint32_t from, to;            /* states */
    uint32_t state, edge;         /* the first of each when it was begun … */
    uint32_t end_state, end_edge; /* … and ended */
} builder_part;
builder_part builder_begin_part(builder *b);
void builder_end_part(builder *b, builder_part *p);
/* Between p->from and p->to there now is min to max times the part (UINT32_MAX: without end). */
void builder_repeat(builder *b, builder_part *p, uint32_t min, uint32_t max);
/* The network of what was built; the builder is empty afterwards. ERR_INVALID where no text is in the language. */
err_code network_finish(network *out, builder *b, err *e);
void network_free(network *n);

/* ---- grammars ---- */
typedef struct automaton automaton;
/* Takes the builder's content. `trie` must outlive the grammar. */
err_code grammar_from_builder(grammar **out, const token_trie *trie, builder *b, err *e);
const network *grammar_network(const grammar *g);
const token_trie *grammar_trie(const grammar *g);

/* constraint.c: the model's tree of tokens. */
err_code model_trie(const model *m, const token_trie **out, err *e);

/* The public constructors over a tree of tokens instead of a model: tests and benches have vocabularies alone. */
err_code grammar_make_json_schema(grammar **out, const token_trie *t, const cJSON *schema, const schema_options *o,
                                  err *e);
err_code grammar_make_regex(grammar **out, const token_trie *t, const char *pattern, size_t len, err *e);
err_code grammar_make_choices(grammar **out, const token_trie *t, const char *const *choices, size_t n, err *e);
err_code grammar_make_text(grammar **out, const token_trie *t, const char *text, size_t len, err *e);

/* What a warm automaton holds: tests watch it, benches print it. */
typedef struct constraint_facts {
    uint32_t n_sets, n_nodes, n_masks;
    uint64_t bytes, n_masks_made, n_steps;
} constraint_facts;
void constraint_get_facts(const constraint *c, constraint_facts *out);

/* ---- parts that front ends share ---- */
/* regex.c: what a pattern matches from beginning to end, between two states. */
err_code regex_build(builder *b, uint32_t from, uint32_t to, const char *pattern, size_t len, err *e);
/* schema.c: JSON under a schema, between two states. `where` is put before sentences ("" for none). */
err_code schema_build(builder *b, uint32_t from, uint32_t to, const cJSON *schema, const schema_options *o, err *e);

#endif
