/* Is a value valid under a schema? Asked of values that a schema lists (enum, const) and of names, so that every
 * keyword beside the list counts, also those that cannot be compiled. */
#include "engine/grammar/schema.h"

#include "base/mem.h"

#include <math.h>
#include <string.h>

#define DEPTH_MAX 200

static bool unknown(schema_ctx *c, const cJSON *s, const char *keyword) {
    schema_fail(c, ERR_UNSUPPORTED, s, keyword, "it cannot be checked on the values that are listed");
    return false;
}

static unsigned type_of(const cJSON *v) {
    if (cJSON_IsNull(v)) return T_NULL;
    if (cJSON_IsBool(v)) return T_BOOL;
    if (cJSON_IsObject(v)) return T_OBJECT;
    if (cJSON_IsArray(v)) return T_ARRAY;
    if (cJSON_IsString(v)) return T_STRING;
    return v->valuedouble == floor(v->valuedouble) ? T_INTEGER : T_FRACTION;
}

static double limit(const cJSON *s, const char *keyword, double absent) {
    const cJSON *v = schema_get(s, keyword);
    return cJSON_IsNumber(v) ? v->valuedouble : absent;
}

static bool number_valid(schema_ctx *c, const cJSON *s, double d) {
    if (d < limit(s, "minimum", -INFINITY) || d > limit(s, "maximum", INFINITY)) return false;
    if (d <= limit(s, "exclusiveMinimum", -INFINITY) || d >= limit(s, "exclusiveMaximum", INFINITY)) return false;
    double m = limit(s, "multipleOf", 0);
    if (m <= 0) return true;
    double q = d / m; /* 0.3 is a multiple of 0.1 to people */
    return fabs(q - nearbyint(q)) < 1e-9 * fmax(1, fabs(q));
}

static bool string_valid(schema_ctx *c, const cJSON *s, const char *text) {
    size_t n = 0;
    for (const char *p = text; *p; p++) n += ((unsigned char)*p & 0xc0) != 0x80;
    if ((double)n < limit(s, "minLength", 0) || (double)n > limit(s, "maxLength", INFINITY)) return false;
    const cJSON *pattern = schema_get(s, "pattern"), *format = schema_get(s, "format");
    char_dfa d = {0};
    bool ok = true, known = false;
    if (cJSON_IsString(pattern) && schema_pattern(c, s, "pattern", pattern->valuestring, &d) == ERR_OK)
        ok = char_dfa_matches(&d, text, strlen(text));
    char_dfa_free(&d);
    if (ok && cJSON_IsString(format) && schema_format(c, s, format->valuestring, &known, &d) == ERR_OK && known)
        ok = char_dfa_matches(&d, text, strlen(text));
    char_dfa_free(&d);
    return ok;
}

static bool array_valid(schema_ctx *c, const cJSON *s, const cJSON *v, int depth) {
    const cJSON *prefix = schema_get(s, "prefixItems"), *items = schema_get(s, "items"), *x;
    const cJSON *contains = schema_get(s, "contains");
    double n = cJSON_GetArraySize(v);
    int i = 0, found = 0;
    if (cJSON_IsArray(items)) prefix = items, items = schema_get(s, "additionalItems");
    if (n < limit(s, "minItems", 0) || n > limit(s, "maxItems", INFINITY)) return false;
    cJSON_ArrayForEach(x, v) {
        const cJSON *own = cJSON_IsArray(prefix) ? cJSON_GetArrayItem(prefix, i) : NULL;
        i++;
        if (!own) own = items;
        if (own && !schema_valid(c, own, x, depth)) return false;
        if (contains) found += schema_valid(c, contains, x, depth);
        if (!cJSON_IsTrue(schema_get(s, "uniqueItems"))) continue;
        for (const cJSON *y = x->next; y; y = y->next)
            if (cJSON_Compare(x, y, true)) return false;
    }
    return !contains || (found >= limit(s, "minContains", 1) && found <= limit(s, "maxContains", INFINITY));
}

static bool property_valid(schema_ctx *c, const cJSON *s, const cJSON *x, int depth) {
    const cJSON *own = schema_get(schema_get(s, "properties"), x->string), *p, *names = schema_get(s, "propertyNames");
    bool known = own != NULL;
    if (own && !schema_valid(c, own, x, depth)) return false;
    cJSON_ArrayForEach(p, schema_get(s, "patternProperties")) {
        char_dfa d;
        if (schema_pattern(c, s, "patternProperties", p->string, &d) != ERR_OK) return false;
        bool in = char_dfa_matches(&d, x->string, strlen(x->string));
        char_dfa_free(&d);
        known = known || in;
        if (in && !schema_valid(c, p, x, depth)) return false;
    }
    const cJSON *rest = schema_get(s, "additionalProperties");
    if (!known && rest && !schema_valid(c, rest, x, depth)) return false;
    if (!names) return true;
    cJSON *name = cJSON_CreateString(x->string);
    if (!name) schema_nomem(c);
    bool ok = name && schema_valid(c, names, name, depth);
    cJSON_Delete(name);
    return ok;
}

static bool object_valid(schema_ctx *c, const cJSON *s, const cJSON *v, int depth) {
    double n = cJSON_GetArraySize(v);
    const cJSON *x, *y;
    if (n < limit(s, "minProperties", 0) || n > limit(s, "maxProperties", INFINITY)) return false;
    cJSON_ArrayForEach(x, schema_get(s, "required")) {
        if (cJSON_IsString(x) && !cJSON_GetObjectItemCaseSensitive(v, x->valuestring)) return false;
    }
    const cJSON *forbidden = schema_get(s, SCHEMA_FORBID);
    if (forbidden && cJSON_GetObjectItemCaseSensitive(v, forbidden->valuestring)) return false;
    cJSON_ArrayForEach(x, v) {
        if (!property_valid(c, s, x, depth)) return false;
    }
    cJSON_ArrayForEach(x, schema_get(s, "dependentRequired")) {
        if (!cJSON_GetObjectItemCaseSensitive(v, x->string)) continue;
        cJSON_ArrayForEach(y, x) {
            if (cJSON_IsString(y) && !cJSON_GetObjectItemCaseSensitive(v, y->valuestring)) return false;
        }
    }
    cJSON_ArrayForEach(x, schema_get(s, "dependentSchemas")) {
        if (cJSON_GetObjectItemCaseSensitive(v, x->string) && !schema_valid(c, x, v, depth)) return false;
    }
    return true;
}

static bool listed_valid(schema_ctx *c, const cJSON *s, const cJSON *v) {
    const cJSON *one = schema_get(s, "const"), *list = schema_get(s, "enum"), *x;
    if (one && !cJSON_Compare(one, v, true)) return false;
    if (!list || s == c->listed) return true;
    cJSON_ArrayForEach(x, list) {
        if (cJSON_Compare(x, v, true)) return true;
    }
    return false;
}

static bool parts_valid(schema_ctx *c, const cJSON *s, const cJSON *v, int depth) {
    const cJSON *x, *all = schema_get(s, "allOf"), *any = schema_get(s, "anyOf"), *one = schema_get(s, "oneOf");
    const cJSON *inverse = schema_get(s, "not"), *condition = schema_get(s, "if"), *ref = schema_get(s, "$ref");
    int hits = 0;
    if (ref) {
        const cJSON *to = schema_resolve(c, s, ref);
        if (!to || !schema_valid(c, to, v, depth)) return false;
    }
    cJSON_ArrayForEach(x, all) {
        if (!schema_valid(c, x, v, depth)) return false;
    }
    cJSON_ArrayForEach(x, any) hits += schema_valid(c, x, v, depth);
    if (any && !hits) return false;
    hits = 0;
    cJSON_ArrayForEach(x, one) hits += schema_valid(c, x, v, depth);
    if (one && hits != 1) return false;
    if (inverse && schema_valid(c, inverse, v, depth)) return false;
    if (condition) {
        const cJSON *then = schema_get(s, schema_valid(c, condition, v, depth) ? "then" : "else");
        if (then && !schema_valid(c, then, v, depth)) return false;
    }
    return true;
}

bool schema_valid(schema_ctx *c, const cJSON *s, const cJSON *v, int depth) {
    if (c->rc != ERR_OK || cJSON_IsFalse(s)) return false;
    if (!cJSON_IsObject(s) || !s->child) return true;
    if (depth > DEPTH_MAX) {
        schema_fail(c, ERR_INVALID, s, "$ref", "the schema refers to itself without end");
        return false;
    }
    if (schema_get(s, "$dynamicRef")) return unknown(c, s, "$dynamicRef");
    unsigned type = type_of(v);
    bool inner = cJSON_IsObject(v) || cJSON_IsArray(v);
    if (inner && (schema_get(s, "unevaluatedProperties") || schema_get(s, "unevaluatedItems")))
        return unknown(c, s, "unevaluatedProperties");
    if (!(schema_types(s) & type) || !listed_valid(c, s, v)) return false;
    bool ok = true;
    if (type & T_NUMBER) ok = number_valid(c, s, v->valuedouble);
    if (type & T_STRING) ok = string_valid(c, s, v->valuestring);
    if (type & T_ARRAY) ok = array_valid(c, s, v, depth + 1);
    if (type & T_OBJECT) ok = object_valid(c, s, v, depth + 1);
    return ok && parts_valid(c, s, v, depth + 1) && c->rc == ERR_OK;
}
