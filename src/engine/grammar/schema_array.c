/* Arrays. */
#include "engine/grammar/schema.h"

#include "base/mem.h"

#include <string.h>

#define LISTED_MAX 10 /* values of which each may come once: 2^n states */

typedef struct array {
    schema_ctx *c;
    const schema_way *w;
    uint64_t min, max;
    uint32_t n_prefix; /* places with a schema of their own */
    uint32_t *rules;   /* (n_prefix + 1): the last is that of all further items; 0: there can be none */
    uint32_t *found;   /* the same of items that satisfy `contains`; NULL: not asked */
    const cJSON *contains;
    bool unique;
} array;

static const cJSON *prefix_of(const cJSON *s) {
    const cJSON *p = schema_get(s, "prefixItems"), *items = schema_get(s, "items");
    return p ? p : cJSON_IsArray(items) ? items : NULL; /* an array in `items` is the older way to say it */
}

static const cJSON *rest_of(const cJSON *s) {
    const cJSON *items = schema_get(s, "items");
    return cJSON_IsArray(items) ? schema_get(s, "additionalItems") : items;
}

static void read_contains(array *a, const cJSON *s) {
    schema_ctx *c = a->c;
    const cJSON *contains = schema_get(s, "contains");
    if (!contains) return;
    uint64_t least = schema_count(c, s, "minContains", 1);
    if (schema_get(s, "maxContains"))
        schema_fail(c, ERR_UNSUPPORTED, s, "maxContains", "it is not supported");
    else if (least > 1 || (a->contains && least))
        schema_fail(c, ERR_UNSUPPORTED, s, "contains", "only one of these, with minContains 0 or 1, is supported");
    else if (least)
        a->contains = contains;
}

static void read_keywords(array *a) {
    schema_ctx *c = a->c;
    a->max = UINT64_MAX;
    for (uint32_t i = 0; i < a->w->n && c->rc == ERR_OK; i++) {
        const cJSON *s = a->w->list[i], *p = prefix_of(s), *unique = schema_get(s, "uniqueItems");
        if (p && !cJSON_IsArray(p)) schema_fail(c, ERR_INVALID, s, "prefixItems", "it must be an array of schemas");
        uint32_t n = p ? (uint32_t)cJSON_GetArraySize(p) : 0;
        if (n > a->n_prefix) a->n_prefix = n;
        uint64_t min = schema_count(c, s, "minItems", 0), max = schema_count(c, s, "maxItems", UINT64_MAX);
        if (min > a->min) a->min = min;
        if (max < a->max) a->max = max;
        a->unique = a->unique || cJSON_IsTrue(unique);
        read_contains(a, s);
    }
    if (a->n_prefix > SCHEMA_ITEMS_MAX || a->min > SCHEMA_ITEMS_MAX)
        schema_fail(c, ERR_TOO_LARGE, a->w->list[0], "minItems", "more than 10000 items");
    if (a->max != UINT64_MAX && a->max > SCHEMA_ITEMS_MAX) a->max = SCHEMA_ITEMS_MAX;
}

/* The schemas of item i. false: there can be none. */
static bool items_at(array *a, uint32_t i, const cJSON **out, uint32_t *n) {
    *n = 0;
    for (uint32_t k = 0; k < a->w->n; k++) {
        const cJSON *p = prefix_of(a->w->list[k]), *rest = rest_of(a->w->list[k]);
        const cJSON *own = p && i < (uint32_t)cJSON_GetArraySize(p) ? cJSON_GetArrayItem(p, (int)i) : rest;
        if (own && *n < SCHEMA_IN_FORCE_MAX) out[(*n)++] = own;
    }
    for (uint32_t k = 0; k < *n; k++)
        if (cJSON_IsFalse(out[k])) return false;
    return true;
}

static void settle_items(array *a) {
    const cJSON *list[SCHEMA_IN_FORCE_MAX + 1];
    a->rules = mem_array(a->n_prefix + 1u, sizeof *a->rules);
    a->found = a->contains ? mem_array(a->n_prefix + 1u, sizeof *a->found) : NULL;
    if (!a->rules || (a->contains && !a->found)) {
        schema_nomem(a->c);
        return;
    }
    for (uint32_t i = 0; i <= a->n_prefix && a->c->rc == ERR_OK; i++) {
        uint32_t n;
        if (!items_at(a, i, list, &n)) {
            if (i < a->max) a->max = i;
            return;
        }
        a->rules[i] = schema_rule(a->c, list, n);
        if (!a->contains) continue;
        list[n++] = a->contains;
        a->found[i] = schema_rule(a->c, list, n);
    }
}

/* ---- writing
 * ----------------------------------------------------------------------------------------------------------------------
 */

static void write_item(array *a, uint32_t rule_id, uint32_t from, uint32_t to) {
    if (rule_id) builder_call(a->c->b, from, rule_id, to);
}

/* "Before item i" and "after i items", twice where something must be contained: not seen yet, seen. From `last` items
 * on the same two states go round. */
static void write_sequence(array *a, uint32_t from, uint32_t to) {
    schema_ctx *c = a->c;
    builder *b = c->b;
    bool bounded = a->max != UINT64_MAX;
    uint64_t last = bounded ? a->max : (a->min > a->n_prefix ? a->min : a->n_prefix) + 1;
    uint32_t open = builder_state(b), close = builder_state(b), end = builder_state(b);
    uint32_t layers = a->contains ? 2 : 1, before[2], after[2];
    builder_bytes(b, from, '[', '[', open);
    if (!a->min && !a->contains) builder_bytes(b, open, ']', ']', to);
    schema_space(c, close, end);
    builder_bytes(b, end, ']', ']', to);
    for (uint32_t l = 0; l < layers; l++) before[l] = builder_state(b);
    schema_space(c, open, before[0]);
    for (uint64_t i = 0; i < last && c->rc == ERR_OK && !builder_failed(b); i++) {
        uint32_t k = i < a->n_prefix ? (uint32_t)i : a->n_prefix;
        for (uint32_t l = 0; l < layers; l++) after[l] = builder_state(b);
        for (uint32_t l = 0; l < layers; l++) {
            write_item(a, a->rules[k], before[l], after[l]);
            if (a->contains && l == 0) write_item(a, a->found[k], before[0], after[1]);
        }
        if (i + 1 >= a->min) builder_empty(b, after[layers - 1], close);
        bool round = !bounded && i + 1 == last;
        for (uint32_t l = 0; l < layers; l++) {
            uint32_t comma = builder_state(b), next = round ? before[l] : builder_state(b);
            builder_bytes(b, after[l], ',', ',', comma);
            schema_space(c, comma, next);
            before[l] = next;
        }
    }
}

/* ---- no value twice
 * ------------------------------------------------------------------------------------------------------------------ */

static void find_listed(schema_ctx *c, void *ctx, const schema_way *w) {
    const cJSON **found = ctx;
    bool any = false;
    for (uint32_t i = 0; i < w->n && !any; i++) {
        if (!cJSON_IsArray(schema_get(w->list[i], "enum"))) continue;
        any = true;
        if (!*found)
            *found = w->list[i];
        else if (*found != w->list[i])
            any = false;
    }
    if (!any) *found = c->root; /* no schema of an item: stands for "not only listed values" */
}

static bool same_value(const cJSON *a, const cJSON *b) {
    return cJSON_Compare(a, b, true);
}

/* Which of the listed values have come is the state. */
static bool write_unique(array *a, uint32_t from, uint32_t to) {
    schema_ctx *c = a->c;
    builder *b = c->b;
    const cJSON *list[SCHEMA_IN_FORCE_MAX], *found = NULL, *values[LISTED_MAX], *v;
    uint32_t n, n_values = 0;
    if (a->n_prefix || a->contains || !items_at(a, 0, list, &n)) return false;
    schema_ways(c, list, n, find_listed, &found);
    const cJSON *all = found && found != c->root ? schema_get(found, "enum") : NULL;
    if (!all || c->rc != ERR_OK) return false;
    cJSON_ArrayForEach(v, all) {
        bool ok = true;
        for (uint32_t i = 0; i < n && ok; i++) ok = schema_valid(c, list[i], v, 0);
        for (uint32_t i = 0; i < n_values && ok; i++) ok = !same_value(values[i], v);
        if (ok && n_values == LISTED_MAX) return false;
        if (ok) values[n_values++] = v;
    }
    uint32_t sets = 1u << n_values, base = b->net.n_states, open, close, end;
    for (uint32_t i = 0; i < 2 * sets && !builder_failed(b); i++) builder_state(b); /* before and after, by set */
    open = builder_state(b), close = builder_state(b), end = builder_state(b);
    if (builder_failed(b)) return true;
    builder_bytes(b, from, '[', '[', open);
    if (!a->min) builder_bytes(b, open, ']', ']', to);
    schema_space(c, open, base);
    schema_space(c, close, end);
    builder_bytes(b, end, ']', ']', to);
    for (uint32_t set = 0; set < sets && c->rc == ERR_OK; set++) {
        uint32_t count = (uint32_t)__builtin_popcount(set), comma = builder_state(b), after = base + sets + set;
        if (set && count >= a->min && count <= a->max) builder_empty(b, after, close);
        if (set) builder_bytes(b, after, ',', ',', comma);
        if (set) schema_space(c, comma, base + set);
        for (uint32_t i = 0; i < n_values && count < a->max; i++) {
            if (set >> i & 1) continue;
            schema_literal(c, values[i], base + set, base + sets + (set | 1u << i));
        }
    }
    return true;
}

void schema_array(schema_ctx *c, const schema_way *w, uint32_t from, uint32_t to) {
    array a = {.c = c, .w = w};
    read_keywords(&a);
    if (c->rc == ERR_OK) settle_items(&a);
    if (c->rc == ERR_OK && a.min <= a.max) {
        if (!a.unique || a.max <= 1)
            write_sequence(&a, from, to);
        else if (!write_unique(&a, from, to))
            schema_fail(c, ERR_UNSUPPORTED, w->list[0], "uniqueItems",
                        "it is supported for at most one item, or where the items are one enum of up to ten values");
    }
    mem_free(a.rules);
    mem_free(a.found);
}
