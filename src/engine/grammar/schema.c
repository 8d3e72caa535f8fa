#include "engine/grammar/schema.h"

#include "base/json.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

/* ---- sets and their rules
 * --------------------------------------------------------------------------------------------- */

static int compare_pointers(const void *pa, const void *pb) {
    uintptr_t a = (uintptr_t) * (const cJSON *const *)pa, b = (uintptr_t) * (const cJSON *const *)pb;
    return a < b ? -1 : a > b;
}

static uint32_t hash_list(const cJSON *const *list, uint32_t n) {
    uint64_t h = n;
    for (uint32_t i = 0; i < n; i++) h = (h ^ (uintptr_t)list[i]) * 0xff51afd7ed558ccdu, h ^= h >> 32;
    return (uint32_t)(h ^ h >> 29);
}

static bool grow_sets(schema_ctx *c) {
    uint32_t cap = c->cap_sets ? c->cap_sets * 2 : 64;
    schema_set *p = mem_realloc(c->sets, cap * sizeof *p);
    if (p) c->sets = p;
    uint32_t *t = mem_array(2 * (size_t)cap, sizeof *t);
    if (!p || !t) {
        mem_free(t);
        schema_nomem(c);
        return false;
    }
    mem_free(c->table);
    c->table = t;
    c->table_mask = 2 * cap - 1;
    c->cap_sets = cap;
    for (uint32_t i = 0; i < c->n_sets; i++) {
        uint32_t k = hash_list(c->sets[i].list, c->sets[i].n) & c->table_mask;
        while (t[k]) k = (k + 1) & c->table_mask;
        t[k] = i + 1;
    }
    return true;
}

uint32_t schema_rule(schema_ctx *c, const cJSON **list, uint32_t n) {
    if (c->rc != ERR_OK) return 0;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < n; i++)
        if (!cJSON_IsTrue(list[i]) && !(cJSON_IsObject(list[i]) && !list[i]->child)) list[kept++] = list[i];
    n = kept;
    if (n > 1) qsort(list, n, sizeof *list, compare_pointers);
    kept = n ? 1 : 0;
    for (uint32_t i = 1; i < n; i++)
        if (list[i] != list[kept - 1]) list[kept++] = list[i];
    n = kept;
    if (c->n_sets == c->cap_sets && !grow_sets(c)) return 0;
    uint32_t k = hash_list(list, n) & c->table_mask;
    for (; c->table[k]; k = (k + 1) & c->table_mask) {
        const schema_set *s = &c->sets[c->table[k] - 1];
        if (s->n == n && (!n || memcmp(s->list, list, n * sizeof *list) == 0)) return s->rule;
    }
    if (c->n_sets == SCHEMA_SETS_MAX) {
        schema_fail(c, ERR_TOO_LARGE, n ? list[0] : NULL, NULL, "too many different places");
        return 0;
    }
    const cJSON **copy = mem_alloc((n ? n : 1) * sizeof *copy);
    if (!copy) {
        schema_nomem(c);
        return 0;
    }
    if (n) memcpy(copy, list, n * sizeof *copy);
    c->sets[c->n_sets] = (schema_set){copy, n, builder_rule(c->b)};
    c->table[k] = ++c->n_sets;
    return c->sets[c->n_sets - 1].rule;
}

uint32_t schema_rule_of(schema_ctx *c, const cJSON *s) {
    const cJSON *list[1] = {s};
    return schema_rule(c, list, s ? 1 : 0);
}

/* ---- types
 * ------------------------------------------------------------------------------------------------------------- */

static unsigned type_named(const char *name) {
    static const struct {
        const char *name;
        unsigned bits;
    } types[] = {{"null", T_NULL},     {"boolean", T_BOOL},    {"object", T_OBJECT}, {"array", T_ARRAY},
                 {"string", T_STRING}, {"integer", T_INTEGER}, {"number", T_NUMBER}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strcmp(types[i].name, name) == 0) return types[i].bits;
    return 0;
}

/* The types that the keyword `type` of s allows; 0: it is malformed. */
unsigned schema_types(const cJSON *s) {
    const cJSON *t = schema_get(s, "type"), *one;
    if (!t) return T_ALL;
    if (cJSON_IsString(t)) return type_named(t->valuestring);
    unsigned bits = 0;
    if (!cJSON_IsArray(t)) return 0;
    cJSON_ArrayForEach(one, t) {
        unsigned b = cJSON_IsString(one) ? type_named(one->valuestring) : 0;
        if (!b) return 0;
        bits |= b;
    }
    return bits;
}

static const struct {
    const char *name;
    unsigned types;
} typed_keywords[] = {
    {"properties", T_OBJECT},
    {"required", T_OBJECT},
    {"additionalProperties", T_OBJECT},
    {"patternProperties", T_OBJECT},
    {"propertyNames", T_OBJECT},
    {"minProperties", T_OBJECT},
    {"maxProperties", T_OBJECT},
    {"unevaluatedProperties", T_OBJECT},
    {SCHEMA_FORBID, T_OBJECT},
    {"items", T_ARRAY},
    {"prefixItems", T_ARRAY},
    {"minItems", T_ARRAY},
    {"maxItems", T_ARRAY},
    {"contains", T_ARRAY},
    {"uniqueItems", T_ARRAY},
    {"unevaluatedItems", T_ARRAY},
    {"minLength", T_STRING},
    {"maxLength", T_STRING},
    {"pattern", T_STRING},
    {"format", T_STRING},
    {"minimum", T_NUMBER},
    {"maximum", T_NUMBER},
    {"exclusiveMinimum", T_NUMBER},
    {"exclusiveMaximum", T_NUMBER},
    {"multipleOf", T_NUMBER},
};

/* Without `type`, keywords of one type mean it, where people write schemas. */
static unsigned meant_types(const schema_way *w) {
    unsigned bits = 0;
    for (uint32_t i = 0; i < w->n; i++) {
        if (schema_get(w->list[i], "type")) return T_ALL;
        for (size_t k = 0; k < sizeof typed_keywords / sizeof *typed_keywords; k++)
            if (schema_get(w->list[i], typed_keywords[k].name)) bits |= typed_keywords[k].types;
    }
    return bits ? bits : T_ALL;
}

/* What `not` takes away; only whole types can be. */
static unsigned types_of_not(schema_ctx *c, const cJSON *s) {
    const cJSON *inverse = schema_get(s, "not");
    if (!inverse || cJSON_IsFalse(inverse)) return T_ALL;
    if (cJSON_IsTrue(inverse) || (cJSON_IsObject(inverse) && !inverse->child)) return 0;
    unsigned t = schema_types(inverse);
    if (!cJSON_IsObject(inverse) || inverse->child->next || strcmp(inverse->child->string, "type") != 0 || !t) {
        schema_fail(c, ERR_UNSUPPORTED, s, "not",
                    "only {\"not\": {\"type\": …}} is supported, or not beside enum or const");
        return 0;
    }
    return T_ALL & ~t;
}

static void check_keywords(schema_ctx *c, const cJSON *s, unsigned types) {
    const cJSON *u = schema_get(s, "unevaluatedProperties"), *i = schema_get(s, "unevaluatedItems");
    if (schema_get(s, "if") && (schema_get(s, "then") || schema_get(s, "else")))
        schema_fail(c, ERR_UNSUPPORTED, s, "if", "conditions are not supported; use anyOf with the two cases");
    if (u && !cJSON_IsTrue(u) && (types & T_OBJECT))
        schema_fail(c, ERR_UNSUPPORTED, s, "unevaluatedProperties", "it is not supported; use additionalProperties");
    if (i && !cJSON_IsTrue(i) && (types & T_ARRAY))
        schema_fail(c, ERR_UNSUPPORTED, s, "unevaluatedItems", "it is not supported; use items");
}

uint64_t schema_count(schema_ctx *c, const cJSON *s, const char *keyword, uint64_t absent) {
    const cJSON *v = schema_get(s, keyword);
    if (!v) return absent;
    double d = cJSON_IsNumber(v) ? v->valuedouble : -1;
    if (!(d >= 0) || d != (double)(uint64_t)(d < 1e15 ? d : 1e15)) {
        if (d >= 1e15) return (uint64_t)1000000000000000;
        schema_fail(c, ERR_INVALID, s, keyword, "it must be a whole number, 0 or more");
        return absent;
    }
    return (uint64_t)d;
}

/* One space, or a line break with up to 32 spaces or 8 tabs. */
void schema_space(schema_ctx *c, uint32_t from, uint32_t to) {
    builder *b = c->b;
    if (c->o.compact) {
        builder_empty(b, from, to);
        return;
    }
    if (!c->rule_space) {
        c->rule_space = builder_rule(b);
        if (builder_failed(b)) return;
        uint32_t start = b->net.rules[c->rule_space].start, end = b->net.rules[c->rule_space].end;
        uint32_t line = builder_state(b);
        builder_empty(b, start, end);
        builder_bytes(b, start, ' ', ' ', end);
        builder_bytes(b, start, '\n', '\n', line);
        builder_empty(b, line, end);
        for (int kind = 0; kind < 2; kind++) {
            uint32_t at = line;
            for (int i = 0; i < (kind ? 8 : 32); i++) {
                uint32_t next = builder_state(b);
                builder_bytes(b, at, kind ? '\t' : ' ', kind ? '\t' : ' ', next);
                builder_empty(b, next, end);
                at = next;
            }
        }
    }
    builder_call(b, from, c->rule_space, to);
}

void schema_literal(schema_ctx *c, const cJSON *v, uint32_t from, uint32_t to) {
    buf text = {.max = 1 << 20};
    err_code rc = json_canonical(&text, v, c->e);
    if (rc == ERR_OK) rc = buf_check(&text, "a value of a schema", c->e);
    if (rc != ERR_OK && c->rc == ERR_OK) c->rc = rc;
    builder_literal(c->b, from, buf_str(&text), text.len, to);
    buf_free(&text);
}

/* ---- listed values
 * ------------------------------------------------------------------------------------------------------ */

static const cJSON *listing(const schema_way *w) {
    for (uint32_t i = 0; i < w->n; i++)
        if (schema_get(w->list[i], "const") || schema_get(w->list[i], "enum")) return w->list[i];
    return NULL;
}

static bool holds_nul_or_odd(const cJSON *v) { /* numbers that JSON cannot write come from 1e999 in the schema */
    if (cJSON_IsNumber(v)) return !(v->valuedouble - v->valuedouble == 0);
    const cJSON *x;
    cJSON_ArrayForEach(x, v) {
        if (holds_nul_or_odd(x)) return true;
    }
    return false;
}

typedef struct texts {
    buf all;
    size_t n;
} texts;

/* A value that satisfies all: its text, and a NUL. */
static void add_value(schema_ctx *c, const schema_way *w, const cJSON *v, texts *t) {
    for (uint32_t i = 0; i < w->n && c->rc == ERR_OK; i++)
        if (!schema_valid(c, w->list[i], v, 0)) return;
    if (c->rc != ERR_OK || holds_nul_or_odd(v)) return;
    buf text = {.max = 1 << 20};
    c->rc = json_canonical(&text, v, c->e);
    if (c->rc == ERR_OK) c->rc = buf_check(&text, "a value of a schema", c->e);
    if (c->rc == ERR_OK) buf_append(&t->all, buf_str(&text), text.len + 1);
    buf_free(&text);
    t->n++;
}

static void write_values(schema_ctx *c, const schema_way *w, const cJSON *from_schema, uint32_t from, uint32_t to) {
    texts t = {.all = {.max = 1u << 26}};
    const cJSON *one = schema_get(from_schema, "const"), *list = schema_get(from_schema, "enum"), *v;
    c->listed = one ? NULL : from_schema;
    if (one) {
        add_value(c, w, one, &t);
    } else if (!cJSON_IsArray(list) || (uint32_t)cJSON_GetArraySize(list) > SCHEMA_ENUM_MAX) {
        schema_fail(c, cJSON_IsArray(list) ? ERR_TOO_LARGE : ERR_INVALID, from_schema, "enum",
                    "it must be an array of at most 100000 values");
    } else {
        cJSON_ArrayForEach(v, list) add_value(c, w, v, &t);
    }
    c->listed = NULL;
    const char **strings = c->rc == ERR_OK ? mem_array(t.n + 1, sizeof *strings) : NULL;
    if (c->rc == ERR_OK && (!strings || t.all.failed)) schema_nomem(c);
    if (c->rc == ERR_OK) {
        const char *p = buf_str(&t.all);
        for (size_t i = 0; i < t.n; i++, p += strlen(p) + 1) strings[i] = p;
        builder_strings(c->b, from, to, strings, t.n);
    }
    mem_free(strings);
    buf_free(&t.all);
}

/* ---- one way
 * ------------------------------------------------------------------------------------------------------------ */

typedef struct place {
    uint32_t from, to;
} place;

static void write_way(schema_ctx *c, void *ctx, const schema_way *w) {
    const place *p = ctx;
    const cJSON *listed = listing(w);
    if (listed) {
        write_values(c, w, listed, p->from, p->to);
        return;
    }
    unsigned types = c->o.to_the_letter ? T_ALL : meant_types(w);
    for (uint32_t i = 0; i < w->n && c->rc == ERR_OK; i++) {
        unsigned t = schema_types(w->list[i]);
        if (!t) schema_fail(c, ERR_INVALID, w->list[i], "type", "it must name a type, or be an array of types");
        types &= t & types_of_not(c, w->list[i]);
    }
    for (uint32_t i = 0; i < w->n && c->rc == ERR_OK; i++) check_keywords(c, w->list[i], types);
    if (c->rc != ERR_OK) return;
    if (types & T_NULL) builder_literal(c->b, p->from, "null", 4, p->to);
    if (types & T_BOOL) {
        builder_literal(c->b, p->from, "true", 4, p->to);
        builder_literal(c->b, p->from, "false", 5, p->to);
    }
    if (types & T_STRING) schema_string(c, w, p->from, p->to);
    if (types & T_NUMBER) schema_number(c, w, types & T_NUMBER, p->from, p->to);
    if (types & T_ARRAY) schema_array(c, w, p->from, p->to);
    if (types & T_OBJECT) schema_object(c, w, p->from, p->to);
    if (c->rc == ERR_OK && builder_failed(c->b)) c->rc = builder_check(c->b, c->e);
}

static void write_sets(schema_ctx *c) {
    for (; c->rc == ERR_OK && c->next_set < c->n_sets; c->next_set++) {
        schema_set s = c->sets[c->next_set];
        const rule *r = &c->b->net.rules[s.rule];
        uint32_t to = builder_state(c->b);
        place p = {r->start, to};
        builder_empty(c->b, to, r->end);
        schema_ways(c, s.list, s.n, write_way, &p);
    }
}

static void free_sets(schema_ctx *c) {
    for (uint32_t i = 0; i < c->n_sets; i++) mem_free(c->sets[i].list);
    mem_free(c->sets);
    mem_free(c->table);
}

/* ---- is a set empty?
 * ------------------------------------------------------------------------------------------------------ */

bool schema_is_empty(schema_ctx *c, const cJSON **list, uint32_t n) {
    if (c->rc != ERR_OK) return false;
    builder b;
    err e = {0};
    builder_init(&b);
    schema_ctx p = *c;
    p.b = &b;
    p.sets = NULL;
    p.table = NULL;
    p.n_sets = p.cap_sets = p.next_set = 0;
    p.rule_space = p.rule_string = p.rule_char = p.n_lengths = 0;
    p.probing = true;
    p.e = &e;
    p.rc = builder_check(&b, &e);
    uint32_t r = schema_rule(&p, list, n);
    write_sets(&p);
    network net = {0};
    bool empty = false;
    *c->work += b.net.n_states;
    if (p.rc == ERR_OK) {
        builder_call(&b, b.net.rules[0].start, r, b.net.rules[0].end);
        p.rc = network_finish(&net, &b, &e);
        empty = p.rc == ERR_INVALID;
    }
    network_free(&net);
    builder_free(&b);
    free_sets(&p);
    if (p.rc == ERR_NOMEM) schema_nomem(c);
    if (*c->work > SCHEMA_PROBE_STATES_MAX)
        schema_fail(c, ERR_TOO_LARGE, NULL, "oneOf", "too many branches to tell apart; use anyOf");
    return empty;
}

/* ---- schemas as grammars
 * ---------------------------------------------------------------------------------------------------- */

err_code schema_build(builder *b, uint32_t from, uint32_t to, const cJSON *schema, const schema_options *o, err *e) {
    err local = {0};
    uint64_t work = 0;
    schema_made made = {.all = cJSON_CreateArray()};
    schema_ctx *c = mem_zalloc(sizeof *c);
    if (!c || !made.all) {
        cJSON_Delete(made.all);
        mem_free(c);
        return err_nomem(e, "a schema");
    }
    c->b = b;
    c->root = schema;
    c->made = &made;
    c->work = &work;
    c->e = e ? e : &local;
    if (o) c->o = *o;
    schema_index(c);
    if (c->rc == ERR_OK) {
        uint32_t r = schema_rule_of(c, schema);
        write_sets(c);
        if (c->rc == ERR_OK) builder_call(b, from, r, to);
        if (c->rc == ERR_OK) c->rc = builder_check(b, c->e);
    }
    err_code rc = c->rc;
    free_sets(c);
    mem_free(c->nodes);
    mem_free(made.of);
    cJSON_Delete(made.all);
    mem_free(c);
    return rc;
}

err_code grammar_make_json_schema(grammar **out, const token_trie *t, const cJSON *schema, const schema_options *o,
                                  err *e) {
    *out = NULL;
    builder b;
    builder_init(&b);
    err_code rc = builder_check(&b, e);
    if (!rc) rc = schema_build(&b, b.net.rules[0].start, b.net.rules[0].end, schema, o, e);
    if (!rc) {
        rc = grammar_from_builder(out, t, &b, e);
        if (rc == ERR_INVALID) rc = err_set(e, rc, "schema #: no value can satisfy it");
    }
    builder_free(&b);
    return rc;
}

err_code grammar_new_json_schema(grammar **out, const model *m, const cJSON *schema, const schema_options *o, err *e) {
    const token_trie *t = NULL;
    *out = NULL;
    err_code rc = model_trie(m, &t, e);
    return rc ? rc : grammar_make_json_schema(out, t, schema, o, e);
}
