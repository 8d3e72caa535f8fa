/* Objects. Declared properties come in order, each at most once; after them names that are not declared, where they are
 * let in. States: "before a key" (there must be one) and "after a value", for each place in the order, and for each
 * number of properties so far where that counts. */
#include "engine/grammar/schema.h"

#include "base/json.h"
#include "base/mem.h"

#include <string.h>

#define PATTERNS_MAX 4u /* 2^n kinds of names that are not declared */
#define PLACES_MAX   400000u
#define DECLARED_MAX 20000u

typedef struct declared {
    const char *name;
    bool required, absent; /* absent: no value can stand there */
    uint32_t rule;
} declared;

typedef struct pattern {
    const cJSON *schema; /* the value of patternProperties; its key is the pattern */
    const cJSON *owner;  /* the schema that it stands in */
    char_dfa names;
} pattern;

typedef struct object {
    schema_ctx *c;
    const schema_way *w;
    declared *list;
    uint32_t n, cap;
    uint32_t *table, mask;
    pattern patterns[PATTERNS_MAX];
    uint32_t n_patterns;
    const cJSON *names[SCHEMA_IN_FORCE_MAX]; /* propertyNames */
    uint32_t n_names;
    bool open; /* names that are not declared may come */
    uint64_t min, max;
    uint32_t n_required;
    uint32_t other; /* state machine: rule of one undeclared pair "name": value; 0: none */
} object;

/* ---- what is declared
 * ------------------------------------------------------------------------------------------------------- */

static uint32_t hash_name(const char *s) { /* FNV-1a */
    uint32_t h = 2166136261u;
    for (; *s; s++) h = (h ^ (uint8_t)*s) * 16777619u;
    return h;
}

static bool grow_declared(object *o) {
    uint32_t cap = o->cap ? o->cap * 2 : 32;
    declared *p = mem_realloc(o->list, cap * sizeof *p);
    if (p) o->list = p;
    uint32_t *t = p ? mem_array(2 * (size_t)cap, sizeof *t) : NULL;
    if (!t) {
        schema_nomem(o->c);
        return false;
    }
    mem_free(o->table);
    o->table = t;
    o->mask = 2 * cap - 1;
    o->cap = cap;
    for (uint32_t i = 0; i < o->n; i++) {
        uint32_t k = hash_name(p[i].name) & o->mask;
        while (t[k]) k = (k + 1) & o->mask;
        t[k] = i + 1;
    }
    return true;
}

static declared *declare(object *o, const char *name, const cJSON *at) {
    if (o->c->rc != ERR_OK || (o->n == o->cap && !grow_declared(o))) return NULL;
    uint32_t k = hash_name(name) & o->mask;
    for (; o->table[k]; k = (k + 1) & o->mask)
        if (strcmp(o->list[o->table[k] - 1].name, name) == 0) return &o->list[o->table[k] - 1];
    if (o->n == DECLARED_MAX) {
        schema_fail(o->c, ERR_TOO_LARGE, at, "properties", "more than 20000 properties");
        return NULL;
    }
    o->list[o->n] = (declared){.name = name};
    o->table[k] = ++o->n;
    return &o->list[o->n - 1];
}

static void read_required(object *o, const cJSON *s) {
    const cJSON *required = schema_get(s, "required"), *name;
    if (!required) return;
    bool ok = cJSON_IsArray(required);
    cJSON_ArrayForEach(name, required) {
        declared *d = cJSON_IsString(name) ? declare(o, name->valuestring, s) : NULL;
        if (d) d->required = true;
        ok = ok && cJSON_IsString(name);
    }
    if (!ok) schema_fail(o->c, ERR_INVALID, s, "required", "it must be an array of names");
}

static void read_patterns(object *o, const cJSON *s) {
    const cJSON *all = schema_get(s, "patternProperties"), *p;
    if (all && !cJSON_IsObject(all)) schema_fail(o->c, ERR_INVALID, s, "patternProperties", "it must be an object");
    cJSON_ArrayForEach(p, all) {
        if (o->n_patterns == PATTERNS_MAX)
            schema_fail(o->c, ERR_UNSUPPORTED, s, "patternProperties", "more than 4 patterns apply to one object");
        if (o->c->rc != ERR_OK) return;
        pattern *x = &o->patterns[o->n_patterns];
        *x = (pattern){.schema = p, .owner = s};
        if (schema_pattern(o->c, s, "patternProperties", p->string, &x->names) == ERR_OK) o->n_patterns++;
    }
}

static void read_keywords(object *o) {
    schema_ctx *c = o->c;
    bool named = false, spoken = false;
    o->max = UINT64_MAX;
    /* declared names in the order of the schemas, then those that are only required */
    for (uint32_t i = 0; i < o->w->n && c->rc == ERR_OK; i++) {
        const cJSON *s = o->w->list[i], *p, *all = schema_get(s, "properties");
        if (all && !cJSON_IsObject(all)) schema_fail(c, ERR_INVALID, s, "properties", "it must be an object");
        cJSON_ArrayForEach(p, all) {
            declare(o, p->string, s);
            named = true;
        }
        const cJSON *forbidden = schema_get(s, SCHEMA_FORBID), *rest = schema_get(s, "additionalProperties");
        if (forbidden) declare(o, forbidden->valuestring, s);
        spoken = spoken || rest || schema_get(s, "patternProperties") || schema_get(s, "unevaluatedProperties");
        const cJSON *names = schema_get(s, "propertyNames");
        if (names && !cJSON_IsTrue(names)) o->names[o->n_names++] = names;
        uint64_t min = schema_count(c, s, "minProperties", 0), max = schema_count(c, s, "maxProperties", UINT64_MAX);
        if (min > o->min) o->min = min;
        if (max < o->max) o->max = max;
        read_patterns(o, s);
    }
    for (uint32_t i = 0; i < o->w->n && c->rc == ERR_OK; i++) read_required(o, o->w->list[i]);
    o->open = c->o.to_the_letter || !named || spoken;
}

/* ---- what may stand where
 * ----------------------------------------------------------------------------------------------------- */

/* Whether pattern i is found in the name; in a class of undeclared names, whether its bit is set. */
static bool in_pattern(const object *o, uint32_t i, const char *name, unsigned set) {
    return name ? char_dfa_matches(&o->patterns[i].names, name, strlen(name)) : (set >> i & 1) != 0;
}

/* The schemas for the value of a name (NULL: of an undeclared one that is in the patterns of `set`). false: none can
 * be. */
static bool values_of(object *o, const char *name, unsigned set, const cJSON **out, uint32_t *n) {
    *n = 0;
    for (uint32_t i = 0; i < o->w->n; i++) {
        const cJSON *s = o->w->list[i], *own = name ? schema_get(schema_get(s, "properties"), name) : NULL;
        const cJSON *rest = schema_get(s, "additionalProperties"), *forbidden = schema_get(s, SCHEMA_FORBID);
        if (forbidden && name && strcmp(forbidden->valuestring, name) == 0) return false;
        bool found = own != NULL;
        if (own) out[(*n)++] = own;
        for (uint32_t k = 0; k < o->n_patterns; k++) {
            if (o->patterns[k].owner != s || !in_pattern(o, k, name, set)) continue;
            found = true;
            out[(*n)++] = o->patterns[k].schema;
        }
        if (!found && rest) out[(*n)++] = rest;
        if (*n + PATTERNS_MAX + 2 > 2 * SCHEMA_IN_FORCE_MAX) {
            schema_fail(o->c, ERR_TOO_LARGE, s, "properties", "too many schemas apply to one property");
            return false;
        }
    }
    for (uint32_t i = 0; i < *n; i++)
        if (cJSON_IsFalse(out[i])) return false;
    return true;
}

/* The language has only names that all of propertyNames let in. */
static bool name_is_valid(object *o, const char *name) {
    cJSON *v = o->n_names ? cJSON_CreateString(name) : NULL;
    if (o->n_names && !v) schema_nomem(o->c);
    bool ok = true;
    for (uint32_t i = 0; i < o->n_names && ok && v; i++) ok = schema_valid(o->c, o->names[i], v, 0);
    cJSON_Delete(v);
    return ok;
}

static void settle_declared(object *o) {
    const cJSON *list[2 * SCHEMA_IN_FORCE_MAX];
    uint32_t n;
    for (uint32_t i = 0; i < o->n && o->c->rc == ERR_OK; i++) {
        declared *d = &o->list[i];
        d->absent = !values_of(o, d->name, 0, list, &n) || !name_is_valid(o, d->name);
        if (!d->absent) d->rule = schema_rule(o->c, list, n);
        o->n_required += d->required;
    }
}

/* ---- undeclared names
 * ------------------------------------------------------------------------------------------------------------ */

/* All names that may be undeclared ones. */
static err_code undeclared(object *o, char_dfa *out) {
    schema_ctx *c = o->c;
    char_dfa all = {0}, named = {0};
    *out = (char_dfa){0};
    const char **names = mem_array(o->n + 1u, sizeof *names);
    if (!names) return schema_nomem(c);
    for (uint32_t i = 0; i < o->n; i++) names[i] = o->list[i].name;
    err_code rc = o->n_names ? schema_string_set(c, o->names, o->n_names, &all) : char_dfa_all(&all, c->e);
    if (!rc) rc = char_dfa_strings(&named, names, o->n, c->e);
    if (!rc) rc = char_dfa_both(out, &all, &named, true, c->e);
    char_dfa_free(&all);
    char_dfa_free(&named);
    mem_free(names);
    if (rc && c->rc == ERR_OK) c->rc = rc;
    return c->rc;
}

static void colon(schema_ctx *c, uint32_t from, uint32_t to) {
    uint32_t after = builder_state(c->b);
    builder_bytes(c->b, from, ':', ':', after);
    builder_empty(c->b, after, to);
    if (!c->o.compact) builder_bytes(c->b, after, ' ', ' ', to);
}

/* Pairs whose names are in `names`, in the patterns of `set` and in no other. */
static void write_kind(object *o, const char_dfa *names, unsigned set) {
    schema_ctx *c = o->c;
    const cJSON *list[2 * SCHEMA_IN_FORCE_MAX];
    uint32_t n;
    if (!values_of(o, NULL, set, list, &n)) return;
    char_dfa now = {0}, next;
    const char_dfa *at = names;
    for (uint32_t k = 0; k < o->n_patterns && c->rc == ERR_OK; k++) {
        err_code rc = char_dfa_both(&next, at, &o->patterns[k].names, !(set >> k & 1), c->e);
        char_dfa_free(&now);
        now = next;
        at = &now;
        if (rc && c->rc == ERR_OK) c->rc = rc;
    }
    if (c->rc == ERR_OK && !char_dfa_is_empty(at)) {
        const rule r = c->b->net.rules[o->other];
        uint32_t key = builder_state(c->b), value = builder_state(c->b);
        schema_quoted(c, at, r.start, key);
        colon(c, key, value);
        builder_call(c->b, value, schema_rule(c, list, n), r.end);
    }
    char_dfa_free(&now);
}

static void write_other(object *o) {
    schema_ctx *c = o->c;
    o->other = builder_rule(c->b);
    if (builder_failed(c->b)) return;
    char_dfa names = {0};
    const cJSON *list[2 * SCHEMA_IN_FORCE_MAX];
    uint32_t n;
    if (!o->n && !o->n_names && !o->n_patterns) { /* any object: keys as any string */
        if (!values_of(o, NULL, 0, list, &n)) return;
        const rule r = c->b->net.rules[o->other];
        uint32_t key = builder_state(c->b), value = builder_state(c->b);
        schema_free_string(c, r.start, key);
        colon(c, key, value);
        builder_call(c->b, value, schema_rule(c, list, n), r.end);
        return;
    }
    if (undeclared(o, &names) == ERR_OK)
        for (unsigned set = 0; set < 1u << o->n_patterns && c->rc == ERR_OK; set++) write_kind(o, &names, set);
    char_dfa_free(&names);
}

/* ---- the sequence
 * ------------------------------------------------------------------------------------------------------------------ */

typedef struct sequence {
    uint32_t counts;          /* numbers of properties that are told apart: 0 to counts - 1; 1: not counted */
    uint32_t *before, *after; /* (n + 1, counts) states: before a key, after a value */
    uint32_t close;           /* before the brace */
} sequence;

static uint32_t place(const object *o, const sequence *q, uint32_t i, uint32_t k) {
    return i * q->counts + k;
}

static void write_key(object *o, const declared *d, uint32_t from, uint32_t to) {
    schema_ctx *c = o->c;
    buf text = {.max = 1 << 20};
    json_string(&text, d->name, strlen(d->name));
    if (text.failed) schema_nomem(c);
    uint32_t key = builder_state(c->b), value = builder_state(c->b);
    builder_literal(c->b, from, buf_str(&text), text.len, key);
    colon(c, key, value);
    builder_call(c->b, value, d->rule, to);
    buf_free(&text);
}

/* Undeclared pairs from a place with k properties on. Their names may repeat, so as to the least number of properties
 * they count as one. */
static void write_others(object *o, sequence *q, uint32_t k) {
    builder *b = o->c->b;
    uint32_t from = q->before[place(o, q, o->n, k)];
    uint64_t left = o->max == UINT64_MAX ? 1 : o->max > k ? o->max - k : 0;
    bool enough = q->counts == 1 || k + 1 >= o->min;
    for (uint64_t i = 0; i < left && !builder_failed(b); i++) {
        uint32_t after = builder_state(b), comma = builder_state(b);
        builder_call(b, from, o->other, after);
        if (enough) builder_empty(b, after, q->close);
        builder_bytes(b, after, ',', ',', comma);
        if (o->max == UINT64_MAX) {
            schema_space(o->c, comma, from);
        } else {
            from = builder_state(b);
            schema_space(o->c, comma, from);
        }
    }
}

static void write_places(object *o, sequence *q) {
    schema_ctx *c = o->c;
    builder *b = c->b;
    bool optional = true; /* all from here on */
    for (uint32_t i = o->n + 1; i--;) {
        const declared *d = i < o->n ? &o->list[i] : NULL;
        if (d && d->required) optional = false;
        for (uint32_t k = 0; k < q->counts && c->rc == ERR_OK; k++) {
            uint32_t before = q->before[place(o, q, i, k)], after = q->after[place(o, q, i, k)];
            uint32_t comma = builder_state(b), more = q->counts > 1 ? k + 1 : k;
            builder_bytes(b, after, ',', ',', comma);
            schema_space(c, comma, before);
            if (optional && (q->counts == 1 || k >= o->min)) builder_empty(b, after, q->close);
            if (!d && o->other) write_others(o, q, k);
            if (!d) continue;
            if (!d->absent && more < q->counts + (q->counts == 1))
                write_key(o, d, before, q->after[place(o, q, i + 1, more)]);
            if (!d->required) builder_empty(b, before, q->before[place(o, q, i + 1, k)]);
        }
    }
}

static void write_sequence(object *o, uint32_t from, uint32_t to) {
    schema_ctx *c = o->c;
    sequence q = {.counts = 1};
    bool counted = o->min > o->n_required || o->max < o->n + (o->other ? UINT32_MAX : 0u);
    if (counted) q.counts = o->max < o->n ? (uint32_t)o->max + 1 : o->n + 1;
    if (o->other && o->min > o->n + 1u) {
        schema_fail(c, ERR_UNSUPPORTED, o->w->n ? o->w->list[0] : NULL, "minProperties",
                    "that many properties that are not declared cannot be told apart");
        return;
    }
    uint64_t places = (uint64_t)(o->n + 1) * q.counts;
    if (places > PLACES_MAX || (o->max != UINT64_MAX && o->other && o->max > 10000)) {
        schema_fail(c, ERR_TOO_LARGE, o->w->n ? o->w->list[0] : NULL, "maxProperties", "too many to be counted out");
        return;
    }
    q.before = mem_array(places, sizeof *q.before);
    q.after = mem_array(places, sizeof *q.after);
    if (!q.before || !q.after) schema_nomem(c);
    for (uint64_t i = 0; i < places && c->rc == ERR_OK; i++) {
        q.before[i] = builder_state(c->b);
        q.after[i] = builder_state(c->b);
    }
    if (c->rc == ERR_OK) {
        uint32_t open = builder_state(c->b), end = builder_state(c->b);
        q.close = builder_state(c->b);
        write_places(o, &q);
        builder_bytes(c->b, from, '{', '{', open);
        schema_space(c, open, q.before[0]);
        schema_space(c, q.close, end);
        builder_bytes(c->b, end, '}', '}', to);
        if (!o->n_required && !o->min) builder_bytes(c->b, open, '}', '}', to);
    }
    mem_free(q.before);
    mem_free(q.after);
}

void schema_object(schema_ctx *c, const schema_way *w, uint32_t from, uint32_t to) {
    object *o = mem_zalloc(sizeof *o);
    if (!o) {
        schema_nomem(c);
        return;
    }
    o->c = c;
    o->w = w;
    read_keywords(o);
    settle_declared(o);
    bool possible = c->rc == ERR_OK && o->min <= o->max;
    for (uint32_t i = 0; i < o->n && possible; i++) possible = !(o->list[i].required && o->list[i].absent);
    if (possible && o->open) write_other(o);
    if (possible && c->rc == ERR_OK) write_sequence(o, from, to);
    for (uint32_t i = 0; i < o->n_patterns; i++) char_dfa_free(&o->patterns[i].names);
    mem_free(o->list);
    mem_free(o->table);
    mem_free(o);
}
