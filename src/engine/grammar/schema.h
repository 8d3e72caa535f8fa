/* Internal to engine: JSON schemas (draft 2020-12) as grammars.
 *
 * The language is a set of JSON texts that are all valid under the schema. It holds every valid value that can be
 * written in the following form, unless the list below says otherwise:
 *   - an object's declared properties come in the order of the schema (of the first schema that names them, where
 * several apply), undeclared ones after them;
 *   - between tokens of JSON there may be: after { [ , and before } ] one space, or a line break with up to 32 spaces
 * or 8 tabs; after : one space. Nothing else, nothing around the whole (so that a bad model cannot write spaces for
 *     ever);
 *   - strings are written as they are, with \" \\ \b \f \n \r \t and \u00XX (lower case) only where JSON demands it; no
 *     U+0000, no lone surrogates; a bound on length that is too large to be counted out is lowered;
 *   - integers have no fraction and no exponent, and at most 18 digits (15 where they are bounded or multiples); other
 *     numbers have at most 15 digits before the point and 15 behind it, with an exponent of two digits where they are
 *     free; bounded ones have no exponent and at most 15 digits in all. No -0 among bounded numbers and integers;
 *   - an array has at most 10000 items where a bound beyond that is given.
 * Unless to_the_letter is set, properties that are not declared are left out where `properties` is given and nothing
 * else speaks of them (additionalProperties, patternProperties, …), and where `type` is absent but keywords of one type
 * are given, that type is meant.
 *
 * Keywords: type, enum, const; minimum, maximum, exclusiveMinimum, exclusiveMaximum, multipleOf; minLength, maxLength,
 * pattern, format (date-time, date, time, duration, email, idn-email, hostname, idn-hostname, ipv4, ipv6, uri,
 * uri-reference, iri, iri-reference, uuid, json-pointer, relative-json-pointer, regex, uri-template: a common subset of
 * each; unknown ones are notes); properties, required, additionalProperties, patternProperties, propertyNames,
 * minProperties, maxProperties, dependentRequired, dependentSchemas; items, prefixItems, minItems, maxItems, contains
 * (minContains 0 or 1), uniqueItems (of at most one item, or of up to ten listed values); allOf, anyOf, oneOf (where no
 * value can match two branches), not (of types), $ref, $defs, $anchor, $id inside of the document. Where enum or const
 * is given, every other keyword is checked on each value, also not, if and the like. What only notes something is
 * ignored. All else is ERR_UNSUPPORTED, naming the keyword and its JSON pointer.
 */
#ifndef POLDER_ENGINE_SCHEMA_H
#define POLDER_ENGINE_SCHEMA_H

#include "engine/grammar/chars.h"

#define SCHEMA_NODES_MAX        200000u
#define SCHEMA_SETS_MAX         50000u
#define SCHEMA_WAYS_MAX         4096u
#define SCHEMA_PROBE_STATES_MAX 20000000u
#define SCHEMA_IN_FORCE_MAX     256u /* schemas that apply to one place at once */
#define SCHEMA_ITEMS_MAX        10000u
#define SCHEMA_ENUM_MAX         100000u

/* Types as bits; a number that is no integer has a bit of its own. */
enum {
    T_NULL = 1,
    T_BOOL = 2,
    T_OBJECT = 4,
    T_ARRAY = 8,
    T_STRING = 16,
    T_INTEGER = 32,
    T_FRACTION = 64,
    T_NUMBER = T_INTEGER | T_FRACTION,
    T_ALL = 127
};

/* All schemas that apply to a place in a document at once. An empty list is true. */
typedef struct schema_set {
    const cJSON **list; /* sorted by address */
    uint32_t n;
    uint32_t rule;
} schema_set;

/* A schema of the document: where it is, for $ref and for sentences. */
typedef struct schema_node {
    const cJSON *s, *parent;
    const cJSON *resource; /* the nearest schema with $id around it, or the whole */
} schema_node;

/* Schemas that stand for parts of keywords: of {"dependentRequired": {"a": ["b"]}} that a is absent, or that a and b
 * are there. Made once for each part, so that sets of them stay the same sets. */
typedef struct schema_made {
    cJSON *all; /* an array of pairs: [without, with] */
    const cJSON **of;
    uint32_t n;
} schema_made;

typedef struct schema_lengths { /* a rule for strings that have nothing but a length */
    uint64_t min, max;
    uint32_t rule;
} schema_lengths;

#define SCHEMA_LENGTHS_MAX 64
#define SCHEMA_FORBID      "\x01" /* a keyword of made schemas: this property must be absent */

typedef struct schema_ctx {
    builder *b;
    const cJSON *root;
    schema_options o;
    schema_node *nodes; /* by address */
    uint32_t n_nodes, cap_nodes;
    schema_set *sets;
    uint32_t n_sets, cap_sets, next_set;
    uint32_t *table, table_mask;                 /* sets by content */
    uint32_t rule_space, rule_string, rule_char; /* 0: not made yet */
    bool probing;                                /* asking whether a set is empty: oneOf is taken as anyOf */
    uint64_t *work;                              /* states built by probes, which multiply */
    schema_made *made;                           /* shared with probes */
    schema_lengths lengths[SCHEMA_LENGTHS_MAX];
    uint32_t n_lengths;
    const cJSON *listed; /* schema_valid: its enum and const are not looked at */
    err *e;
    err_code rc; /* sticky */
} schema_ctx;

/* One way to satisfy a set: the schemas that all apply, their choices made. */
typedef struct schema_way {
    const cJSON **list; /* the more outer ones first */
    uint32_t n;
} schema_way;

/* ---- schema.c ---- */
err_code schema_fail(schema_ctx *c, err_code rc, const cJSON *at, const char *keyword, const char *why);
err_code schema_nomem(schema_ctx *c);
/* The rule for a set of schemas; `list` is sorted in place. */
uint32_t schema_rule(schema_ctx *c, const cJSON **list, uint32_t n);
uint32_t schema_rule_of(schema_ctx *c, const cJSON *s);
/* Is it certain that no value satisfies all of them? */
bool schema_is_empty(schema_ctx *c, const cJSON **list, uint32_t n);
/* The types that the keyword `type` of s allows; 0: it is malformed. */
unsigned schema_types(const cJSON *s);
/* A whole number from 0 on, or `absent`. */
uint64_t schema_count(schema_ctx *c, const cJSON *s, const char *keyword, uint64_t absent);
/* One value as it stands. */
void schema_literal(schema_ctx *c, const cJSON *v, uint32_t from, uint32_t to);
/* Optional white space between tokens of JSON. */
void schema_space(schema_ctx *c, uint32_t from, uint32_t to);
/* ---- schema_refs.c ---- */
void schema_index(schema_ctx *c);
/* What $ref of s refers to; NULL: failed. */
const cJSON *schema_resolve(schema_ctx *c, const cJSON *s, const cJSON *ref);
void schema_pointer(const schema_ctx *c, const cJSON *s, buf *out);
/* ---- schema_ways.c ---- */
/* Every way to satisfy all of a list: take is called for each; what it returns ends the walk. */
void schema_ways(schema_ctx *c, const cJSON *const *list, uint32_t n,
                 void (*take)(schema_ctx *c, void *ctx, const schema_way *w), void *ctx);
/* A keyword of a schema; NULL where absent or the schema is a boolean. */
const cJSON *schema_get(const cJSON *s, const char *keyword);
/* ---- schema_object.c, schema_array.c, schema_string.c, schema_number.c: one type of one way, between two states ----
 */
void schema_object(schema_ctx *c, const schema_way *w, uint32_t from, uint32_t to);
void schema_array(schema_ctx *c, const schema_way *w, uint32_t from, uint32_t to);
void schema_string(schema_ctx *c, const schema_way *w, uint32_t from, uint32_t to);
void schema_number(schema_ctx *c, const schema_way *w, unsigned types, uint32_t from, uint32_t to);
/* The strings that a list of schemas allows (all of their ways). */
err_code schema_string_set(schema_ctx *c, const cJSON **list, uint32_t n, char_dfa *out);
/* The texts in which a pattern is found; `at` is its schema. */
err_code schema_pattern(schema_ctx *c, const cJSON *at, const char *keyword, const char *pattern, char_dfa *out);
/* The texts of a format; *known is false (and nothing is made) where the name is not known. */
err_code schema_format(schema_ctx *c, const cJSON *at, const char *name, bool *known, char_dfa *out);
/* "…" around the texts of d. */
void schema_quoted(schema_ctx *c, const char_dfa *d, uint32_t from, uint32_t to);
/* Any string. */
void schema_free_string(schema_ctx *c, uint32_t from, uint32_t to);
/* ---- schema_valid.c ---- */
/* Is v valid under s? Also what cannot be compiled (not, if, …). false with c->rc set where it cannot be said. */
bool schema_valid(schema_ctx *c, const cJSON *s, const cJSON *v, int depth);

#endif
