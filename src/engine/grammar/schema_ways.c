/* Schemas that apply to a place hold other schemas that apply to the same place: $ref, allOf, anyOf, oneOf and the
 * dependent keywords. Here they are spread out, one way through all choices after the other. */
#include "engine/grammar/schema.h"

#include "base/mem.h"

#include <stdio.h>
#include <string.h>

typedef struct choice {
    const cJSON *branches; /* an array */
    uint32_t owner;        /* index in `list` of the schema that it stands in */
    bool one;
} choice;

typedef struct walk {
    schema_ctx *c;
    const cJSON *list[SCHEMA_IN_FORCE_MAX];
    uint32_t
        above[SCHEMA_IN_FORCE_MAX]; /* which schema of the list brought it in; itself: was there from the beginning */
    uint32_t n;
    choice choices[SCHEMA_IN_FORCE_MAX];
    uint32_t n_choices, n_ways;
    bool dead; /* false applies */
    void (*take)(schema_ctx *c, void *ctx, const schema_way *w);
    void *ctx;
} walk;

static void add(walk *x, const cJSON *s, uint32_t above);

static void add_choice(walk *x, const cJSON *branches, uint32_t owner, bool one, const char *keyword) {
    if (!cJSON_IsArray(branches) || !branches->child)
        schema_fail(x->c, ERR_INVALID, x->list[owner], keyword, "it must be an array with at least one schema");
    else if (x->n_choices == SCHEMA_IN_FORCE_MAX)
        schema_fail(x->c, ERR_TOO_LARGE, x->list[owner], keyword, "too many choices apply to one place");
    else
        x->choices[x->n_choices++] = (choice){branches, owner, one};
}

/* {SCHEMA_FORBID: name}, or {"required": [name, …]} with the dependent schema as allOf. */
static const cJSON *make_pair(schema_ctx *c, const cJSON *dep) {
    schema_made *m = c->made;
    for (uint32_t i = 0; i < m->n; i++)
        if (m->of[i] == dep) return cJSON_GetArrayItem(m->all, (int)i);
    const cJSON **of = mem_realloc(m->of, (m->n + 1) * sizeof *of);
    if (of) m->of = of;
    cJSON *pair = cJSON_CreateArray(), *without = cJSON_CreateObject(), *with = cJSON_CreateObject();
    bool ok = of && pair && without && with && cJSON_AddItemToArray(pair, without);
    if (!ok) cJSON_Delete(without);
    bool ok2 = ok && cJSON_AddItemToArray(pair, with);
    if (!ok2) cJSON_Delete(with);
    ok = ok2 && cJSON_AddStringToObject(without, SCHEMA_FORBID, dep->string);
    cJSON *required = ok ? cJSON_AddArrayToObject(with, "required") : NULL;
    ok = required && cJSON_AddItemToArray(required, cJSON_CreateString(dep->string));
    const cJSON *name;
    if (ok && cJSON_IsArray(dep)) {
        cJSON_ArrayForEach(name, dep) {
            ok = ok && cJSON_IsString(name) && cJSON_AddItemToArray(required, cJSON_CreateString(name->valuestring));
        }
    }
    if (ok) ok = cJSON_AddItemToArray(m->all, pair);
    if (!ok) {
        cJSON_Delete(pair);
        schema_nomem(c);
        return NULL;
    }
    m->of[m->n++] = dep;
    return pair;
}

static void add_dependent(walk *x, const cJSON *s, uint32_t at, const char *keyword) {
    const cJSON *all = schema_get(s, keyword), *dep;
    if (!all) return;
    if (!cJSON_IsObject(all)) {
        schema_fail(x->c, ERR_INVALID, s, keyword, "it must be an object");
        return;
    }
    cJSON_ArrayForEach(dep, all) {
        if (x->c->rc != ERR_OK) return;
        const cJSON *pair = make_pair(x->c, dep);
        if (pair) add_choice(x, pair, at, false, keyword);
    }
}

static void add_all(walk *x, const cJSON *s, uint32_t at) {
    const cJSON *all = schema_get(s, "allOf"), *one;
    if (!all) return;
    if (!cJSON_IsArray(all) || !all->child) {
        schema_fail(x->c, ERR_INVALID, s, "allOf", "it must be an array with at least one schema");
        return;
    }
    cJSON_ArrayForEach(one, all) add(x, one, at);
}

/* A schema comes to apply. */
static void add(walk *x, const cJSON *s, uint32_t above) {
    schema_ctx *c = x->c;
    if (c->rc != ERR_OK || cJSON_IsTrue(s)) return;
    if (cJSON_IsFalse(s)) {
        x->dead = true;
        return;
    }
    if (!cJSON_IsObject(s)) {
        schema_fail(c, ERR_INVALID, s, NULL, "a schema must be an object, true or false");
        return;
    }
    for (uint32_t k = above; k != UINT32_MAX; k = x->above[k] == k ? UINT32_MAX : x->above[k]) {
        if (x->list[k] != s) continue;
        schema_fail(c, ERR_INVALID, s, "$ref", "the schema refers to itself without end");
        return;
    }
    for (uint32_t k = 0; k < x->n; k++)
        if (x->list[k] == s) return;
    if (x->n == SCHEMA_IN_FORCE_MAX) {
        schema_fail(c, ERR_TOO_LARGE, s, NULL, "too many schemas apply to one place");
        return;
    }
    uint32_t at = x->n++;
    x->list[at] = s;
    x->above[at] = above == UINT32_MAX ? at : above;
    const cJSON *ref = schema_get(s, "$ref");
    if (ref) {
        const cJSON *to = schema_resolve(c, s, ref);
        if (to) add(x, to, at);
    }
    if (schema_get(s, "$dynamicRef") || schema_get(s, "$recursiveRef"))
        schema_fail(c, ERR_UNSUPPORTED, s, "$dynamicRef", "dynamic references are not supported; use $ref");
    add_all(x, s, at);
    if (schema_get(s, "anyOf")) add_choice(x, schema_get(s, "anyOf"), at, false, "anyOf");
    if (schema_get(s, "oneOf")) add_choice(x, schema_get(s, "oneOf"), at, true, "oneOf");
    add_dependent(x, s, at, "dependentRequired");
    add_dependent(x, s, at, "dependentSchemas");
}

/* oneOf is anyOf where no value can match two branches. */
static void check_one(walk *x, const choice *ch) {
    schema_ctx *c = x->c;
    const cJSON *list[SCHEMA_IN_FORCE_MAX + 2], *a, *b;
    for (a = ch->branches->child; a; a = a->next) {
        for (b = a->next; b && c->rc == ERR_OK; b = b->next) {
            uint32_t n = x->n;
            memcpy(list, x->list, n * sizeof *list);
            list[n++] = a;
            list[n++] = b;
            if (!schema_is_empty(c, list, n))
                schema_fail(c, ERR_UNSUPPORTED, b, "oneOf",
                            "this branch and one before it may both match a value; use anyOf, or tell them apart by "
                            "type or by a required property with different const values");
        }
    }
}

static void go(walk *x, uint32_t k) {
    schema_ctx *c = x->c;
    if (c->rc != ERR_OK || x->dead) return;
    if (k == x->n_choices) {
        if (++x->n_ways > SCHEMA_WAYS_MAX) {
            schema_fail(c, ERR_TOO_LARGE, x->n ? x->list[0] : NULL, NULL, "more than 4096 ways to satisfy it");
            return;
        }
        schema_way w = {x->list, x->n};
        x->take(c, x->ctx, &w);
        return;
    }
    choice ch = x->choices[k];
    if (ch.one && !c->probing) check_one(x, &ch);
    const cJSON *branch;
    cJSON_ArrayForEach(branch, ch.branches) {
        uint32_t n = x->n, n_choices = x->n_choices;
        /* of a dependent schema the second branch brings the schema in; make_pair has no way to hold it */
        add(x, branch, ch.owner);
        if (ch.branches->child != branch) {
            const schema_made *m = c->made;
            for (uint32_t i = 0; i < m->n; i++)
                if (cJSON_GetArrayItem(m->all, (int)i) == ch.branches && !cJSON_IsArray(m->of[i]))
                    add(x, m->of[i], ch.owner);
        }
        go(x, k + 1);
        x->n = n;
        x->n_choices = n_choices;
        x->dead = false;
    }
}

void schema_ways(schema_ctx *c, const cJSON *const *list, uint32_t n,
                 void (*take)(schema_ctx *c, void *ctx, const schema_way *w), void *ctx) {
    walk *x = mem_zalloc(sizeof *x);
    if (!x) {
        schema_nomem(c);
        return;
    }
    x->c = c;
    x->take = take;
    x->ctx = ctx;
    for (uint32_t i = 0; i < n; i++) add(x, list[i], UINT32_MAX);
    go(x, 0);
    mem_free(x);
}
