/* Where every schema of a document is, and what a $ref refers to. */
#include "engine/grammar/schema.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

#define DEPTH_MAX 64 /* of JSON as it is parsed anyway */

const cJSON *schema_get(const cJSON *s, const char *keyword) {
    return cJSON_IsObject(s) ? cJSON_GetObjectItemCaseSensitive(s, keyword) : NULL;
}

err_code schema_nomem(schema_ctx *c) {
    if (c->rc == ERR_OK) c->rc = err_nomem(c->e, "a schema");
    return c->rc;
}

/* ---- the index ------------------------------------------------------------------------------------------------------
 */

static int compare_nodes(const void *pa, const void *pb) {
    uintptr_t a = (uintptr_t)((const schema_node *)pa)->s, b = (uintptr_t)((const schema_node *)pb)->s;
    return a < b ? -1 : a > b;
}

static void add_nodes(schema_ctx *c, const cJSON *s, const cJSON *parent, const cJSON *resource, int depth) {
    if (c->rc != ERR_OK) return;
    if (c->n_nodes == SCHEMA_NODES_MAX || depth > DEPTH_MAX) {
        c->rc = err_set(c->e, ERR_TOO_LARGE, "schema: more than %u values, or nested deeper than %d", SCHEMA_NODES_MAX,
                        DEPTH_MAX);
        return;
    }
    if (c->n_nodes == c->cap_nodes) {
        uint32_t cap = c->cap_nodes ? c->cap_nodes * 2 : 128;
        schema_node *p = mem_realloc(c->nodes, cap * sizeof *p);
        if (!p) {
            schema_nomem(c);
            return;
        }
        c->nodes = p;
        c->cap_nodes = cap;
    }
    if (parent && cJSON_IsString(schema_get(s, "$id"))) resource = s;
    c->nodes[c->n_nodes++] = (schema_node){s, parent, resource};
    const cJSON *child;
    cJSON_ArrayForEach(child, s) add_nodes(c, child, s, resource, depth + 1);
}

void schema_index(schema_ctx *c) {
    add_nodes(c, c->root, NULL, c->root, 0);
    if (c->rc == ERR_OK) qsort(c->nodes, c->n_nodes, sizeof *c->nodes, compare_nodes);
}

static const schema_node *find_node(const schema_ctx *c, const cJSON *s) {
    schema_node key = {.s = s};
    return c->n_nodes ? bsearch(&key, c->nodes, c->n_nodes, sizeof key, compare_nodes) : NULL;
}

/* ---- sentences
 * ------------------------------------------------------------------------------------------------------- */

static void add_step(buf *out, const cJSON *parent, const cJSON *s) {
    buf_putc(out, '/');
    if (cJSON_IsArray(parent)) {
        int i = 0;
        for (const cJSON *x = parent->child; x && x != s; x = x->next) i++;
        buf_printf(out, "%d", i);
        return;
    }
    for (const char *k = s->string; k && *k; k++) {
        if (*k == '~' || *k == '/')
            buf_puts(out, *k == '~' ? "~0" : "~1");
        else
            buf_putc(out, *k);
    }
}

void schema_pointer(const schema_ctx *c, const cJSON *s, buf *out) {
    const schema_node *path[DEPTH_MAX + 2];
    int n = 0;
    for (const schema_node *x = find_node(c, s); x && x->parent && n <= DEPTH_MAX; x = find_node(c, x->parent))
        path[n++] = x;
    buf_putc(out, '#');
    while (n--) add_step(out, path[n]->parent, path[n]->s);
}

err_code schema_fail(schema_ctx *c, err_code rc, const cJSON *at, const char *keyword, const char *why) {
    if (c->rc != ERR_OK) return c->rc;
    buf where = {.max = 400};
    if (at) schema_pointer(c, at, &where);
    c->rc = err_set(c->e, rc, "schema %s: %s%s%s", buf_str(&where), keyword ? keyword : "", keyword ? ": " : "", why);
    buf_free(&where);
    return c->rc;
}

/* ---- references
 * ------------------------------------------------------------------------------------------------------ */

/* One step of a JSON pointer in a URI fragment, decoded: %XX first, then ~0 and ~1. */
static bool decode_step(const char *s, size_t n, buf *out) {
    buf raw = {.max = 4096};
    for (size_t i = 0; i < n; i++) {
        if (s[i] != '%') {
            buf_putc(&raw, s[i]);
            continue;
        }
        int a = n - i > 2 ? hex_value(s[i + 1]) : -1, b = n - i > 2 ? hex_value(s[i + 2]) : -1;
        if (a < 0 || b < 0) raw.failed = true;
        buf_putc(&raw, (char)(a * 16 + b));
        i += 2;
    }
    for (size_t i = 0; i < raw.len && !raw.failed; i++) {
        bool tilde = raw.ptr[i] == '~';
        if (tilde && i + 1 < raw.len && (raw.ptr[i + 1] == '0' || raw.ptr[i + 1] == '1'))
            buf_putc(out, raw.ptr[++i] == '0' ? '~' : '/');
        else if (tilde)
            raw.failed = true;
        else
            buf_putc(out, raw.ptr[i]);
    }
    bool ok = !raw.failed && !out->failed;
    buf_free(&raw);
    return ok;
}

static const cJSON *step_into(const cJSON *at, const char *key) {
    if (cJSON_IsObject(at)) return cJSON_GetObjectItemCaseSensitive(at, key);
    if (!cJSON_IsArray(at) || !*key || strspn(key, "0123456789") != strlen(key) || strlen(key) > 8) return NULL;
    return cJSON_GetArrayItem(at, (int)strtol(key, NULL, 10));
}

static const cJSON *follow_pointer(schema_ctx *c, const cJSON *at, const char *p) {
    while (at && *p == '/') {
        size_t n = strcspn(++p, "/");
        buf key = {.max = 4096};
        buf_puts(&key, "");
        bool plain = !memchr(p, '%', n) && !memchr(p, '~', n);
        if (plain) buf_append(&key, p, n);
        if (key.failed) schema_nomem(c);
        at = plain || decode_step(p, n, &key) ? step_into(at, buf_str(&key)) : NULL;
        buf_free(&key);
        p += n;
    }
    return *p ? NULL : at;
}

/* The resource that a URI names: exactly its $id, or by the last part of the path of both. */
static const cJSON *find_resource(const schema_ctx *c, const char *uri, size_t n) {
    for (int pass = 0; pass < 2; pass++) {
        for (uint32_t i = 0; i < c->n_nodes; i++) {
            const cJSON *id = schema_get(c->nodes[i].s, "$id");
            if (c->nodes[i].resource != c->nodes[i].s || !cJSON_IsString(id)) continue;
            const char *v = id->valuestring;
            size_t len = strcspn(v, "#");
            if (pass && n && !memchr(uri, ':', n)) { /* a relative one: as the end of the path */
                const char *slash = len > n ? v + (len - n) - 1 : NULL;
                if (slash && *slash == '/' && memcmp(slash + 1, uri, n) == 0) return c->nodes[i].s;
            } else if (!pass && len == n && memcmp(v, uri, n) == 0) {
                return c->nodes[i].s;
            }
        }
    }
    return NULL;
}

static const cJSON *find_anchor(const schema_ctx *c, const cJSON *resource, const char *name) {
    for (uint32_t i = 0; i < c->n_nodes; i++) {
        if (c->nodes[i].resource != resource) continue;
        for (int k = 0; k < 2; k++) {
            const cJSON *a = schema_get(c->nodes[i].s, k ? "$dynamicAnchor" : "$anchor");
            if (cJSON_IsString(a) && strcmp(a->valuestring, name) == 0) return c->nodes[i].s;
        }
    }
    return NULL;
}

const cJSON *schema_resolve(schema_ctx *c, const cJSON *s, const cJSON *ref) {
    const schema_node *n = find_node(c, s);
    if (!cJSON_IsString(ref) || !n) {
        schema_fail(c, ERR_INVALID, s, "$ref", "it must be a string");
        return NULL;
    }
    const char *uri = ref->valuestring, *hash = strchr(uri, '#');
    size_t len = hash ? (size_t)(hash - uri) : strlen(uri);
    const cJSON *at = len ? find_resource(c, uri, len) : n->resource;
    if (!at) {
        schema_fail(c, ERR_UNSUPPORTED, s, "$ref",
                    "it refers to another document; references stay inside of the schema");
        return NULL;
    }
    const char *part = hash ? hash + 1 : "";
    if (*part && *part != '/')
        at = find_anchor(c, at, part);
    else
        at = follow_pointer(c, at, part);
    if (!at || !find_node(c, at)) {
        schema_fail(c, ERR_INVALID, s, "$ref", "there is nothing at the place that it names");
        return NULL;
    }
    return at;
}
