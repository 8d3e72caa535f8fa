/* template_value: what templates compute with: truth, equality, order, lists, dicts, and values from JSON. */
#include "engine/template/template.h"

#include <math.h>

bool tstr_is(tstr s, const char *z) {
    return s.n == strlen(z) && memcmp(s.p, z, s.n) == 0;
}
bool tv_str_is(tv v, const char *z) {
    return v.type == TV_STRING && tstr_is(tv_tstr(v), z);
}

tv tv_undefined(tv_type owner, const char *name, size_t n) {
    return (tv){.type = TV_UNDEFINED, .owner = (uint8_t)owner, .len = (uint32_t)n, .u.s = name};
}

const char *tv_type_name(tv v) {
    static const char *const names[] = {"nothing", "undefined", "none",   "boolean", "integer",   "float",
                                        "string",  "list",      "tuple",  "dict",    "namespace", "loop",
                                        "macro",   "function",  "method", "joiner",  "cycler",    "generator"};
    return names[v.type];
}

bool tv_truthy(tv v) {
    switch ((tv_type)v.type) {
    case TV_ABSENT:
    case TV_UNDEFINED:
    case TV_NONE: return false;
    case TV_BOOL: return v.u.b;
    case TV_INT: return v.u.i != 0;
    case TV_FLOAT: return v.u.f != 0;
    case TV_STRING: return v.len > 0;
    case TV_LIST:
    case TV_TUPLE: return v.u.list->n > 0;
    case TV_DICT: return v.u.dict->n > 0;
    case TV_GENERATOR: return !v.u.gen->view || v.u.gen->list->n > 0;
    default: return true;
    }
}

double tv_number(tv v) {
    return v.type == TV_FLOAT ? v.u.f : v.type == TV_INT ? (double)v.u.i : v.u.b ? 1 : 0;
}

bool tv_as_index(tv v, int64_t *out) {
    if (v.type == TV_BOOL)
        *out = v.u.b;
    else if (v.type == TV_INT)
        *out = v.u.i;
    else
        return false;
    return true;
}

/* ---- failure and memory ---------------------------------------------------------------------------------- */

bool tpl_fail(rt *r, err_code code, const char *fmt, ...) {
    if (r->code != ERR_OK) return false;
    va_list ap;
    va_start(ap, fmt);
    r->code = err_setv(r->e, code, fmt, ap);
    va_end(ap);
    if (r->at) err_prefix(r->e, "chat template, line %u, column %u", r->at->line, r->at->col);
    return false;
}

bool tpl_fail_nomem(rt *r) {
    if (r->code == ERR_OK) r->code = err_nomem(r->e, "rendering a chat template");
    return false;
}

bool tpl_fail_undefined(rt *r, tv v) {
    int n = v.len > 80 ? 80 : (int)v.len;
    if (v.owner == TV_ABSENT) return tpl_fail(r, ERR_INVALID, "'%.*s' is undefined", n, v.u.s);
    tv owner = {.type = v.owner};
    return tpl_fail(r, ERR_INVALID, "the %s has no '%.*s'", tv_type_name(owner), n, v.u.s);
}

void *tpl_alloc(rt *r, size_t n) {
    void *p = arena_alloc(r->mem, n);
    if (p) return p;
    if (arena_used(r->mem) + n > TPL_RENDER_BYTES_MAX) {
        tpl_fail(r, ERR_TOO_LARGE, "the template needs more than %zu MiB of memory", TPL_RENDER_BYTES_MAX >> 20);
    } else {
        tpl_fail_nomem(r);
    }
    return NULL;
}

bool tv_string_copy(rt *r, tv *out, const char *s, size_t n) {
    if (n > TPL_STRING_MAX) return tpl_fail(r, ERR_TOO_LARGE, "a string grew past %zu MiB", TPL_STRING_MAX >> 20);
    char *p = tpl_alloc(r, n + 1);
    if (!p) return false;
    if (n) memcpy(p, s, n);
    *out = tv_strn(p, n);
    return tpl_charge(r, n / 64);
}

bool tv_take_buf(rt *r, tv *out, buf *b) {
    bool ok = !b->failed;
    if (b->over_max)
        tpl_fail(r, ERR_TOO_LARGE, "a string grew past %zu bytes", b->max);
    else if (!ok)
        tpl_fail_nomem(r);
    ok = ok && tv_string_copy(r, out, buf_str(b), b->len);
    buf_free(b);
    return ok;
}

/* ---- equality and order ---------------------------------------------------------------------------------- */

static bool equal_depth(rt *r, tv a, tv b, bool *out, int depth);

static bool lists_equal(rt *r, const tv_list *a, const tv_list *b, bool *out, int depth) {
    *out = a->n == b->n;
    for (uint32_t i = 0; *out && i < a->n; i++)
        if (!equal_depth(r, a->items[i], b->items[i], out, depth + 1)) return false;
    return true;
}

static bool dicts_equal(rt *r, const tv_dict *a, const tv_dict *b, bool *out, int depth) {
    *out = a->n == b->n;
    for (uint32_t i = 0; *out && i < a->n; i++) {
        tv other;
        if (!tv_dict_get(r, b, a->e[i].key, &other)) return false;
        if (tv_absent(other))
            *out = false;
        else if (!equal_depth(r, a->e[i].val, other, out, depth + 1))
            return false;
    }
    return true;
}

static bool equal_depth(rt *r, tv a, tv b, bool *out, int depth) {
    if (!tpl_charge(r, 1)) return false;
    if (depth > TPL_VALUE_DEPTH_MAX) return tpl_fail(r, ERR_TOO_LARGE, "the values compared are nested too deep");
    if (tv_is_number(a) && tv_is_number(b)) {
        if (a.type == TV_FLOAT || b.type == TV_FLOAT)
            *out = tv_number(a) == tv_number(b);
        else
            *out = (a.type == TV_INT ? a.u.i : a.u.b) == (b.type == TV_INT ? b.u.i : b.u.b);
        return true;
    }
    *out = false;
    if (a.type != b.type) return true;
    switch ((tv_type)a.type) {
    case TV_UNDEFINED:
    case TV_NONE: *out = true; return true;
    case TV_STRING: *out = a.len == b.len && memcmp(a.u.s, b.u.s, a.len) == 0; return tpl_charge(r, a.len / 256);
    case TV_LIST:
    case TV_TUPLE: return lists_equal(r, a.u.list, b.u.list, out, depth);
    case TV_DICT: return dicts_equal(r, a.u.dict, b.u.dict, out, depth);
    case TV_GLOBAL: *out = a.u.i == b.u.i; return true;
    default: *out = a.u.dict == b.u.dict; return true; /* the same object */
    }
}

bool tv_equal(rt *r, tv a, tv b, bool *out) {
    return equal_depth(r, a, b, out, 0);
}

static int compare_bytes(tv a, tv b) {
    uint32_t n = a.len < b.len ? a.len : b.len;
    int c = n ? memcmp(a.u.s, b.u.s, n) : 0;
    return c ? c : (a.len > b.len) - (a.len < b.len);
}

static bool compare_depth(rt *r, tv a, tv b, int *out, int depth) {
    if (!tpl_charge(r, 1)) return false;
    if (depth > TPL_VALUE_DEPTH_MAX) return tpl_fail(r, ERR_TOO_LARGE, "the values compared are nested too deep");
    if (a.type == TV_UNDEFINED) return tpl_fail_undefined(r, a);
    if (b.type == TV_UNDEFINED) return tpl_fail_undefined(r, b);
    if (tv_is_number(a) && tv_is_number(b)) {
        if (a.type == TV_FLOAT || b.type == TV_FLOAT) {
            double x = tv_number(a), y = tv_number(b);
            *out = x < y ? -1 : x > y ? 1 : x == y ? 0 : 2; /* 2: no order, a NaN */
        } else {
            int64_t x = a.type == TV_INT ? a.u.i : a.u.b, y = b.type == TV_INT ? b.u.i : b.u.b;
            *out = (x > y) - (x < y);
        }
        return true;
    }
    if (a.type == TV_STRING && b.type == TV_STRING) {
        *out = compare_bytes(a, b);
        *out = (*out > 0) - (*out < 0);
        return tpl_charge(r, a.len / 256);
    }
    if (!tv_is_list(a) || a.type != b.type)
        return tpl_fail(r, ERR_INVALID, "%s and %s have no order", tv_type_name(a), tv_type_name(b));
    const tv_list *x = a.u.list, *y = b.u.list;
    for (uint32_t i = 0; i < x->n && i < y->n; i++) {
        bool same;
        if (!equal_depth(r, x->items[i], y->items[i], &same, depth + 1)) return false;
        if (!same) return compare_depth(r, x->items[i], y->items[i], out, depth + 1);
    }
    *out = (x->n > y->n) - (x->n < y->n);
    return true;
}

bool tv_compare(rt *r, tv a, tv b, int *out) {
    return compare_depth(r, a, b, out, 0);
}

bool tv_contains(rt *r, tv needle, tv hay, bool *out) {
    *out = false;
    switch ((tv_type)hay.type) {
    case TV_UNDEFINED: return true;
    case TV_STRING:
        if (needle.type == TV_UNDEFINED) return tpl_fail_undefined(r, needle);
        if (needle.type != TV_STRING)
            return tpl_fail(r, ERR_INVALID, "'in' of a string needs a string, not %s", tv_type_name(needle));
        *out = needle.len == 0 || (hay.len && memmem(hay.u.s, hay.len, needle.u.s, needle.len) != NULL);
        return tpl_charge(r, hay.len / 64);
    case TV_LIST:
    case TV_TUPLE:
        for (uint32_t i = 0; i < hay.u.list->n && !*out; i++)
            if (!tv_equal(r, needle, hay.u.list->items[i], out)) return false;
        return true;
    case TV_GENERATOR: {
        const tv_list *l = hay.u.gen->list;
        uint32_t at = hay.u.gen->at;
        while (at < l->n && !*out)
            if (!tv_equal(r, needle, l->items[at++], out)) return false;
        if (!hay.u.gen->view) hay.u.gen->at = at;
        return true;
    }
    case TV_DICT: {
        tv v;
        if (needle.type == TV_LIST || needle.type == TV_DICT)
            return tpl_fail(r, ERR_INVALID, "a %s cannot be the key of a dict", tv_type_name(needle));
        if (!tv_dict_get(r, hay.u.dict, needle, &v)) return false;
        *out = !tv_absent(v);
        return true;
    }
    default: return tpl_fail(r, ERR_INVALID, "'in' cannot search a value of type %s", tv_type_name(hay));
    }
}

/* ---- lists ----------------------------------------------------------------------------------------------- */

bool tv_list_new(rt *r, tv *out, tv_type type, uint32_t n) {
    if (n > TPL_LIST_MAX) return tpl_fail(r, ERR_TOO_LARGE, "a list grew past %u items", TPL_LIST_MAX);
    tv_list *l = tpl_alloc(r, sizeof *l);
    if (!l || !tpl_charge(r, n / 8)) return false;
    if (n && !(l->items = tpl_alloc(r, n * sizeof *l->items))) return false;
    l->n = n;
    *out = (tv){.type = (uint8_t)type, .u.list = l};
    return true;
}

static bool chars_to_list(rt *r, tv s, tv *out) {
    size_t n = tpl_count_chars(s.u.s, s.len), at = 0;
    if (n > TPL_LIST_MAX) return tpl_fail(r, ERR_TOO_LARGE, "a list grew past %u items", TPL_LIST_MAX);
    if (!tv_list_new(r, out, TV_LIST, (uint32_t)n)) return false;
    for (size_t i = 0; i < n; i++) {
        size_t len = tpl_char_len(s.u.s + at, s.len - at);
        out->u.list->items[i] = tv_strn(s.u.s + at, len);
        at += len;
    }
    return tpl_charge(r, n / 8);
}

bool tv_to_list(rt *r, tv v, tv *out) {
    switch ((tv_type)v.type) {
    case TV_LIST:
    case TV_TUPLE:
        *out = v;
        out->type = TV_LIST;
        return true;
    case TV_UNDEFINED: return tv_list_new(r, out, TV_LIST, 0);
    case TV_STRING: return chars_to_list(r, v, out);
    case TV_GENERATOR:
        if (!tv_list_new(r, out, TV_LIST, 0)) return false;
        if (v.u.gen->at < v.u.gen->list->n)
            *out->u.list = (tv_list){v.u.gen->list->items + v.u.gen->at, v.u.gen->list->n - v.u.gen->at};
        if (!v.u.gen->view) v.u.gen->at = v.u.gen->list->n;
        return true;
    case TV_DICT:
        if (!tv_list_new(r, out, TV_LIST, v.u.dict->n)) return false;
        for (uint32_t i = 0; i < v.u.dict->n; i++) out->u.list->items[i] = v.u.dict->e[i].key;
        return true;
    default: return tpl_fail(r, ERR_INVALID, "a value of type %s cannot be gone through", tv_type_name(v));
    }
}

bool tv_make_generator(rt *r, tv *list, const char *view) {
    tv_generator *g = tpl_alloc(r, sizeof *g);
    if (!g) return false;
    *g = (tv_generator){.list = list->u.list, .view = view};
    *list = (tv){.type = TV_GENERATOR, .u.gen = g};
    return true;
}

bool tv_length(rt *r, tv v, int64_t *out) {
    switch ((tv_type)v.type) {
    case TV_UNDEFINED: *out = 0; return true;
    case TV_STRING: *out = (int64_t)tpl_count_chars(v.u.s, v.len); return tpl_charge(r, v.len / 64);
    case TV_LIST:
    case TV_TUPLE: *out = v.u.list->n; return true;
    case TV_DICT: *out = v.u.dict->n; return true;
    case TV_GENERATOR:
        *out = v.u.gen->list->n;
        return v.u.gen->view || tpl_fail(r, ERR_INVALID, "a generator has no length: put |list before it");
    default: return tpl_fail(r, ERR_INVALID, "a value of type %s has no length", tv_type_name(v));
    }
}

/* ---- dicts ----------------------------------------------------------------------------------------------- */

#define DICT_INDEX_FROM 12

static bool is_key(tv k) {
    return k.type == TV_STRING || k.type == TV_NONE || tv_is_number(k);
}

/* Equal keys have equal hashes: 1, 1.0 and true are one key. */
static uint32_t key_hash(tv k) {
    uint64_t x = 0;
    if (k.type == TV_STRING) {
        uint32_t h = 2166136261u;
        for (uint32_t i = 0; i < k.len; i++) h = (h ^ (uint8_t)k.u.s[i]) * 16777619u;
        return h ^ h >> 15;
    }
    if (tv_is_number(k)) {
        double d = tv_number(k);
        if (d == 0) d = 0; /* -0.0 */
        memcpy(&x, &d, sizeof x);
    }
    x *= 0x9E3779B97F4A7C15u;
    return (uint32_t)(x >> 32);
}

/* The entry of a key, or UINT32_MAX. */
static bool dict_find(rt *r, const tv_dict *d, tv key, uint32_t *at) {
    *at = UINT32_MAX;
    bool same = false;
    if (key.type == TV_STRING && !tpl_charge_bytes(r, key.len)) return false; /* for its hash */
    if (!d->index_cap) {
        for (uint32_t i = 0; i < d->n && !same; i++) {
            if (!tv_equal(r, d->e[i].key, key, &same)) return false;
            if (same) *at = i;
        }
        return true;
    }
    uint32_t mask = d->index_cap - 1;
    for (uint32_t i = key_hash(key) & mask; d->index[i]; i = (i + 1) & mask) {
        if (!tv_equal(r, d->e[d->index[i] - 1].key, key, &same))
            return false; /* charges: collisions end in the step limit */
        if (same) {
            *at = d->index[i] - 1;
            return true;
        }
    }
    return true;
}

static void index_add(tv_dict *d, uint32_t entry) {
    uint32_t mask = d->index_cap - 1, i = key_hash(d->e[entry].key) & mask;
    while (d->index[i]) i = (i + 1) & mask;
    d->index[i] = entry + 1;
}

static bool dict_grow(rt *r, tv_dict *d) {
    uint32_t cap = d->cap ? d->cap * 2 : 8;
    if (cap > TPL_LIST_MAX) return tpl_fail(r, ERR_TOO_LARGE, "a dict grew past %u entries", TPL_LIST_MAX / 2);
    tv_entry *e = tpl_alloc(r, cap * sizeof *e);
    if (!e) return false;
    if (d->n) memcpy(e, d->e, d->n * sizeof *e);
    d->e = e;
    d->cap = cap;
    if (cap <= DICT_INDEX_FROM) return true;
    uint32_t *index = tpl_alloc(r, (size_t)cap * 2 * sizeof *index); /* at most half full */
    if (!index) return false;
    d->index = index;
    d->index_cap = cap * 2;
    for (uint32_t i = 0; i < d->n; i++) index_add(d, i);
    return tpl_charge(r, cap / 8);
}

bool tv_dict_new(rt *r, tv *out) {
    tv_dict *d = tpl_alloc(r, sizeof *d);
    *out = (tv){.type = TV_DICT, .u.dict = d};
    return d != NULL;
}

bool tv_dict_set(rt *r, tv_dict *d, tv key, tv val) {
    uint32_t at;
    if (key.type == TV_UNDEFINED) return tpl_fail_undefined(r, key);
    if (!is_key(key))
        return tpl_fail(r, ERR_UNSUPPORTED, "a %s as the key of a dict is not supported", tv_type_name(key));
    if (!dict_find(r, d, key, &at)) return false;
    if (at != UINT32_MAX) {
        d->e[at].val = val;
        return true;
    }
    if (d->n == d->cap && !dict_grow(r, d)) return false;
    d->e[d->n] = (tv_entry){key, val};
    if (d->index_cap) index_add(d, d->n);
    d->n++;
    return true;
}

bool tv_dict_get(rt *r, const tv_dict *d, tv key, tv *out) {
    *out = tv_of(TV_ABSENT);
    if (!is_key(key)) return true;
    uint32_t at;
    if (!dict_find(r, d, key, &at)) return false;
    if (at != UINT32_MAX) *out = d->e[at].val;
    return true;
}

bool tv_dict_items(rt *r, tv *out, const tv_dict *d) {
    if (!tv_list_new(r, out, TV_LIST, d->n)) return false;
    tv *list = out->u.list->items;
    for (uint32_t i = 0; i < d->n; i++) {
        if (!tv_list_new(r, &list[i], TV_TUPLE, 2)) return false;
        list[i].u.list->items[0] = d->e[i].key;
        list[i].u.list->items[1] = d->e[i].val;
    }
    return tpl_charge(r, d->n / 4);
}

bool tv_dict_get_str(rt *r, const tv_dict *d, tstr key, tv *out) {
    return tv_dict_get(r, d, tv_strn(key.p, key.n), out);
}

/* ---- from JSON ------------------------------------------------------------------------------------------- */

static tv number_from_json(double d) {
    /* cJSON keeps no difference between 1 and 1.0: whole numbers are integers */
    if (d >= -9223372036854774784.0 && d <= 9223372036854774784.0 && d == (double)(int64_t)d) return tv_int((int64_t)d);
    return tv_float(d);
}

bool tv_from_json(rt *r, tv *out, const cJSON *j, int depth) {
    if (!tpl_charge(r, 1)) return false;
    if (depth > TPL_VALUE_DEPTH_MAX) return tpl_fail(r, ERR_TOO_LARGE, "the template's variables are nested too deep");
    if (cJSON_IsString(j)) {
        size_t n = j->valuestring ? strlen(j->valuestring) : 0;
        if (n > TPL_STRING_MAX) return tpl_fail(r, ERR_TOO_LARGE, "a string of the template's variables is too long");
        *out = tv_strn(n ? j->valuestring : "", n);
    } else if (cJSON_IsNumber(j)) {
        *out = number_from_json(j->valuedouble);
    } else if (cJSON_IsBool(j)) {
        *out = tv_bool(cJSON_IsTrue(j));
    } else if (cJSON_IsArray(j)) {
        uint32_t n = 0;
        for (const cJSON *c = j->child; c && n <= TPL_LIST_MAX; c = c->next) n++;
        if (!tv_list_new(r, out, TV_LIST, n)) return false;
        n = 0;
        for (const cJSON *c = j->child; c; c = c->next)
            if (!tv_from_json(r, &out->u.list->items[n++], c, depth + 1)) return false;
    } else if (cJSON_IsObject(j)) {
        if (!tv_dict_new(r, out)) return false;
        for (const cJSON *c = j->child; c; c = c->next) {
            const char *key = c->string ? c->string : "";
            tv v;
            if (!tv_from_json(r, &v, c, depth + 1) || !tv_dict_set(r, out->u.dict, tv_strn(key, strlen(key)), v))
                return false;
        }
    } else {
        *out = tv_of(TV_NONE);
    }
    return true;
}
