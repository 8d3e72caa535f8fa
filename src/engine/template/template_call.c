/* template_call: binding arguments to parameters, and the global functions. */
#include "engine/template/template.h"

/* ---- arguments ------------------------------------------------------------------------------------------- */

typedef struct param_list {
    tstr name[TPL_BIND_MAX];
    bool optional[TPL_BIND_MAX];
    uint32_t n;
} param_list;

static void parse_spec(param_list *p, const char *spec) {
    p->n = 0;
    while (*spec && p->n < TPL_BIND_MAX) {
        size_t len = strcspn(spec, " ?");
        p->name[p->n] = (tstr){spec, (uint32_t)len};
        spec += len;
        p->optional[p->n++] = *spec == '?';
        spec += strspn(spec, "? ");
    }
}

bool targs_bind(rt *r, const char *who, const targs *a, const char *spec, tv out[TPL_BIND_MAX]) {
    param_list p;
    parse_spec(&p, spec);
    memset(out, 0, TPL_BIND_MAX * sizeof *out);
    if (a->n_pos > p.n) return tpl_fail(r, ERR_INVALID, "%s takes at most %u arguments, not %u", who, p.n, a->n_pos);
    for (uint32_t i = 0; i < a->n_pos; i++) out[i] = a->pos[i];
    for (uint32_t k = 0; k < a->n_kw; k++) {
        tstr name = a->kw[k].name;
        uint32_t i = 0;
        while (i < p.n && (p.name[i].n != name.n || memcmp(p.name[i].p, name.p, name.n) != 0)) i++;
        if (i == p.n) return tpl_fail(r, ERR_UNSUPPORTED, "%s takes no argument '%.*s'", who, (int)name.n, name.p);
        if (!tv_absent(out[i])) return tpl_fail(r, ERR_INVALID, "%s got '%.*s' twice", who, (int)name.n, name.p);
        out[i] = a->kw[k].v;
    }
    for (uint32_t i = 0; i < p.n; i++)
        if (tv_absent(out[i]) && !p.optional[i])
            return tpl_fail(r, ERR_INVALID, "%s needs the argument '%.*s'", who, (int)p.name[i].n, p.name[i].p);
    return true;
}

bool targ_int(rt *r, const char *what, tv v, int64_t *out) {
    if (tv_absent(v) || tv_as_index(v, out)) return true;
    if (v.type == TV_UNDEFINED) return tpl_fail_undefined(r, v);
    return tpl_fail(r, ERR_INVALID, "%s must be an integer, not %s", what, tv_type_name(v));
}

bool targ_bool(tv v, bool when_absent) {
    return tv_absent(v) ? when_absent : tv_truthy(v);
}

/* ---- global functions ------------------------------------------------------------------------------------ */

static bool call_range(rt *r, tv *out, const targs *a) {
    tv p[TPL_BIND_MAX];
    int64_t v[3] = {0, 0, 1};
    if (!targs_bind(r, "range", a, "start stop? step?", p)) return false;
    for (int i = 0; i < 3; i++)
        if (!targ_int(r, "an argument of range", p[i], &v[i])) return false;
    if (tv_absent(p[1])) {
        v[1] = v[0];
        v[0] = 0;
    }
    if (v[2] == 0) return tpl_fail(r, ERR_INVALID, "the step of range cannot be 0");
    bool up = v[2] > 0;
    uint64_t n = 0;
    if (up ? v[1] > v[0] : v[1] < v[0]) {
        uint64_t span = up ? (uint64_t)v[1] - (uint64_t)v[0] : (uint64_t)v[0] - (uint64_t)v[1];
        uint64_t by = up ? (uint64_t)v[2] : 0 - (uint64_t)v[2];
        n = (span - 1) / by + 1;
    }
    if (n > TPL_RANGE_MAX) return tpl_fail(r, ERR_TOO_LARGE, "a range of more than %d numbers", TPL_RANGE_MAX);
    if (!tv_list_new(r, out, TV_LIST, (uint32_t)n)) return false;
    for (uint64_t i = 0; i < n; i++) out->u.list->items[i] = tv_int(v[0] + (int64_t)i * v[2]);
    return true;
}

/* dict(mapping, key=value) and namespace(...) alike. */
static bool call_dict(rt *r, tv *out, const targs *a, bool is_namespace) {
    if (!tv_dict_new(r, out)) return false;
    tv_dict *d = out->u.dict;
    if (a->n_pos > 1) return tpl_fail(r, ERR_INVALID, "at most one argument without a name is taken here");
    if (a->n_pos && a->pos[0].type == TV_DICT) {
        const tv_dict *from = a->pos[0].u.dict;
        for (uint32_t i = 0; i < from->n; i++)
            if (!tv_dict_set(r, d, from->e[i].key, from->e[i].val)) return false;
    } else if (a->n_pos) {
        tv pairs;
        if (!tv_to_list(r, a->pos[0], &pairs)) return false;
        for (uint32_t i = 0; i < pairs.u.list->n; i++) {
            tv pair = pairs.u.list->items[i];
            if (!tv_is_list(pair) || pair.u.list->n != 2) return tpl_fail(r, ERR_INVALID, "a dict is made of pairs");
            if (!tv_dict_set(r, d, pair.u.list->items[0], pair.u.list->items[1])) return false;
        }
    }
    for (uint32_t i = 0; i < a->n_kw; i++)
        if (!tv_dict_set(r, d, tv_strn(a->kw[i].name.p, a->kw[i].name.n), a->kw[i].v)) return false;
    if (is_namespace) out->type = TV_NAMESPACE;
    return true;
}

static bool call_raise(rt *r, const targs *a) {
    tv p[TPL_BIND_MAX], text;
    if (!targs_bind(r, "raise_exception", a, "message", p) || !tpl_to_string(r, &text, p[0])) return false;
    return tpl_fail(r, ERR_INVALID, "%.*s", text.len > 500 ? 500 : (int)text.len, text.u.s);
}

static bool call_cycler(rt *r, tv *out, const targs *a) {
    if (!a->n_pos || a->n_kw) return tpl_fail(r, ERR_INVALID, "cycler takes one or more items");
    tv_cycler *c = tpl_alloc(r, sizeof *c);
    if (!c) return false;
    *c = (tv_cycler){.items = a->pos, .n = a->n_pos};
    *out = (tv){.type = TV_CYCLER, .u.cycler = c};
    return true;
}

static bool call_joiner(rt *r, tv *out, const targs *a) {
    tv p[TPL_BIND_MAX];
    tv_cycler *c = tpl_alloc(r, sizeof *c);
    tv *sep = tpl_alloc(r, sizeof *sep);
    if (!c || !sep || !targs_bind(r, "joiner", a, "sep?", p)) return false;
    *sep = tv_absent(p[0]) ? tv_strn(", ", 2) : p[0];
    *c = (tv_cycler){.items = sep, .n = 1};
    *out = (tv){.type = TV_JOINER, .u.cycler = c};
    return true;
}

bool tpl_call_global(rt *r, tv *out, tpl_global g, const targs *a) {
    tv p[TPL_BIND_MAX], fmt;
    switch (g) {
    case G_RAISE: return call_raise(r, a);
    case G_STRFTIME:
        return targs_bind(r, "strftime_now", a, "format", p) && tpl_to_string(r, &fmt, p[0]) &&
               tpl_strftime(r, out, tv_tstr(fmt));
    case G_RANGE: return call_range(r, out, a);
    case G_NAMESPACE:
    case G_DICT: return call_dict(r, out, a, g == G_NAMESPACE);
    case G_JOINER: return call_joiner(r, out, a);
    case G_CYCLER: return call_cycler(r, out, a);
    case G_NONE: break;
    }
    return tpl_fail(r, ERR_INTERNAL, "an unknown global function"); /* atoms name known ones only */
}
