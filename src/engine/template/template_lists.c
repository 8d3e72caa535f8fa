/* template_lists: filters that go over the items of a list, a dict's keys or a string's characters.
 *
 * Where Jinja gives a generator (map, select, ...) so do these, but with all items made at once. */
#include "engine/template/template.h"

/* ---- items and attributes -------------------------------------------------------------------------------- */

/* The value an attribute path ("a.b", "0", 1) leads to; `instead` (TV_ABSENT: none) where it is undefined. */
static bool attr_path(rt *r, tv *out, tv item, tv path, tv instead) {
    *out = item;
    if (path.type != TV_STRING) {
        if (!tpl_get_item(r, out, item, path)) return false;
    } else {
        for (tstr s = tv_tstr(path);;) {
            const char *dot = memchr(s.p, '.', s.n);
            uint32_t n = dot ? (uint32_t)(dot - s.p) : s.n;
            int64_t index = 0;
            bool digits = n > 0 && n < 10;
            for (uint32_t i = 0; i < n && digits; i++) {
                digits = s.p[i] >= '0' && s.p[i] <= '9';
                index = index * 10 + (s.p[i] - '0');
            }
            tv key = digits ? tv_int(index) : tv_strn(s.p, n), from = *out;
            if (from.type == TV_UNDEFINED && !tv_absent(instead)) break;
            if (!tpl_get_item(r, out, from, key)) return false;
            if (!dot) break;
            s = (tstr){dot + 1, s.n - n - 1};
        }
    }
    if (out->type == TV_UNDEFINED && !tv_absent(instead)) *out = instead;
    return true;
}

/* What an item is compared by: an attribute if given, without regard to case unless asked. */
static bool sort_key(rt *r, tv *out, tv item, tv attribute, bool with_case) {
    *out = item;
    if (!tv_absent(attribute) && attribute.type != TV_NONE && !attr_path(r, out, item, attribute, tv_of(TV_ABSENT)))
        return false;
    return with_case || out->type != TV_STRING || tpl_change_case(r, out, tv_tstr(*out), CASE_LOWER);
}

static bool keys_of(rt *r, const tv_list *l, tv attribute, bool with_case, tv **out) {
    tv *keys = tpl_alloc(r, ((size_t)l->n + 1) * sizeof *keys);
    if (!keys) return false;
    for (uint32_t i = 0; i < l->n; i++)
        if (!sort_key(r, &keys[i], l->items[i], attribute, with_case)) return false;
    *out = keys;
    return true;
}

/* A stable merge sort of order[0..n) by keys. `tmp` has room for n. */
static bool merge_sort(rt *r, uint32_t *order, uint32_t *tmp, uint32_t n, const tv *keys, bool reverse) {
    for (uint32_t width = 1; width < n; width *= 2) {
        for (uint32_t from = 0; from < n; from += 2 * width) {
            uint32_t mid = from + width < n ? from + width : n, end = from + 2 * width < n ? from + 2 * width : n;
            uint32_t i = from, j = mid, k = from;
            while (i < mid && j < end) {
                int c;
                if (!tv_compare(r, keys[order[i]], keys[order[j]], &c)) return false;
                tmp[k++] = (reverse ? c == -1 : c == 1) ? order[j++] : order[i++];
            }
            while (i < mid) tmp[k++] = order[i++];
            while (j < end) tmp[k++] = order[j++];
        }
        memcpy(order, tmp, n * sizeof *order);
    }
    return true;
}

static bool sorted(rt *r, tv *out, const tv_list *l, const tv *keys, bool reverse) {
    uint32_t *order = tpl_alloc(r, ((size_t)l->n + 1) * 2 * sizeof *order);
    if (!order || !tv_list_new(r, out, TV_LIST, l->n)) return false;
    for (uint32_t i = 0; i < l->n; i++) order[i] = i;
    if (!merge_sort(r, order, order + l->n, l->n, keys, reverse)) return false;
    for (uint32_t i = 0; i < l->n; i++) out->u.list->items[i] = l->items[order[i]];
    return true;
}

/* ---- order ----------------------------------------------------------------------------------------------- */

/* A list of what the attributes in "a,b.c" lead to. */
static bool attributes_key(rt *r, tv *out, tv item, tv paths, bool with_case) {
    uint32_t n = 1, k = 0;
    tstr s = paths.type == TV_STRING ? tv_tstr(paths) : (tstr){"", 0};
    for (uint32_t i = 0; i < s.n; i++) n += s.p[i] == ',';
    if (!tv_list_new(r, out, TV_LIST, n)) return false;
    tv *keys = out->u.list->items;
    if (paths.type != TV_STRING) return sort_key(r, keys, item, paths, with_case);
    for (; k < n; k++) {
        const char *comma = memchr(s.p, ',', s.n);
        uint32_t len = comma ? (uint32_t)(comma - s.p) : s.n;
        if (!sort_key(r, &keys[k], item, tv_strn(s.p, len), with_case)) return false;
        s = (tstr){s.p + len + (comma != NULL), s.n - len - (comma != NULL)};
    }
    return true;
}

static bool f_sort(rt *r, tv *out, tv in, const targs *a, const tv *p) {
    tv list, *keys;
    bool reverse = targ_bool(p[0], false), with_case = targ_bool(p[1], false);
    if (!tv_to_list(r, in, &list)) return false;
    const tv_list *l = list.u.list;
    if (tv_absent(p[2]) || p[2].type == TV_NONE)
        return keys_of(r, l, p[2], with_case, &keys) && sorted(r, out, l, keys, reverse);
    if (!(keys = tpl_alloc(r, ((size_t)l->n + 1) * sizeof *keys))) return false;
    for (uint32_t i = 0; i < l->n; i++)
        if (!tpl_charge(r, 1) || !attributes_key(r, &keys[i], l->items[i], p[2], with_case)) return false;
    return sorted(r, out, l, keys, reverse);
}

static bool f_dictsort(rt *r, tv *out, tv in, const targs *a, const tv *p) {
    tv pairs, *keys;
    if (in.type == TV_UNDEFINED) return tpl_fail_undefined(r, in);
    if (in.type != TV_DICT) return tpl_fail(r, ERR_INVALID, "dictsort needs a dict, not %s", tv_type_name(in));
    bool by_value = tv_str_is(p[1], "value");
    if (!tv_absent(p[1]) && !by_value && !tv_str_is(p[1], "key"))
        return tpl_fail(r, ERR_INVALID, "dictsort is by 'key' or 'value'");
    return tv_dict_items(r, &pairs, in.u.dict) &&
           keys_of(r, pairs.u.list, tv_int(by_value), targ_bool(p[0], false), &keys) &&
           sorted(r, out, pairs.u.list, keys, targ_bool(p[2], false));
}

static bool f_reverse(rt *r, tv *out, tv in, const targs *a, const tv *p) {
    static const tv backwards[3] = {{0}, {0}, {.type = TV_INT, .u.i = -1}};
    if (in.type == TV_STRING) return tpl_slice(r, out, in, backwards);
    tv list;
    bool lazy =
        in.type != TV_GENERATOR || in.u.gen->view; /* Python has an iterator for what it can go through backwards */
    return tv_to_list(r, in, &list) && tpl_slice(r, out, list, backwards) && (!lazy || tv_make_generator(r, out, NULL));
}

static bool f_unique(rt *r, tv *out, tv in, const targs *a, const tv *p) {
    tv list, *keys, seen, known;
    if (!tv_to_list(r, in, &list) || !keys_of(r, list.u.list, p[1], targ_bool(p[0], false), &keys)) return false;
    if (!tv_dict_new(r, &seen) || !tv_list_new(r, out, TV_LIST, list.u.list->n)) return false;
    uint32_t n = 0;
    for (uint32_t i = 0; i < list.u.list->n; i++) {
        if (!tv_dict_get(r, seen.u.dict, keys[i], &known)) return false;
        if (!tv_absent(known)) continue;
        if (!tv_dict_set(r, seen.u.dict, keys[i], tv_bool(true))) return false;
        out->u.list->items[n++] = list.u.list->items[i];
    }
    out->u.list->n = n;
    return tv_make_generator(r, out, NULL);
}

static bool extreme(rt *r, tv *out, tv in, const tv *p, int want) {
    tv list, *keys;
    if (!tv_to_list(r, in, &list) || !keys_of(r, list.u.list, p[1], targ_bool(p[0], false), &keys)) return false;
    uint32_t best = 0;
    for (uint32_t i = 1; i < list.u.list->n; i++) {
        int c;
        if (!tv_compare(r, keys[i], keys[best], &c)) return false;
        if (c == want) best = i;
    }
    *out = list.u.list->n ? list.u.list->items[best] : tv_undefined(TV_LIST, "item", 4);
    return true;
}
static bool f_min(rt *r, tv *out, tv in, const targs *a, const tv *p) {
    return extreme(r, out, in, p, -1);
}
static bool f_max(rt *r, tv *out, tv in, const targs *a, const tv *p) {
    return extreme(r, out, in, p, 1);
}

/* ---- parts ----------------------------------------------------------------------------------------------- */

static bool end_item(rt *r, tv *out, tv in, bool last) {
    tv list;
    if (!tv_to_list(r, in, &list)) return false;
    uint32_t n = list.u.list->n;
    *out = n ? list.u.list->items[last ? n - 1 : 0]
             : tv_undefined((tv_type)in.type, last ? "last item" : "first item", last ? 9 : 10);
    return true;
}
static bool f_first(rt *r, tv *out, tv in, const targs *a, const tv *p) {
    if (in.type != TV_GENERATOR || in.u.gen->view || in.u.gen->at >= in.u.gen->list->n)
        return end_item(r, out, in, false);
    *out = in.u.gen->list->items[in.u.gen->at++];
    return true;
}
static bool f_last(rt *r, tv *out, tv in, const targs *a, const tv *p) {
    if (in.type == TV_GENERATOR && !in.u.gen->view)
        return tpl_fail(r, ERR_INVALID, "last needs a list, not generator: put |list before it");
    return end_item(r, out, in, true);
}
static bool f_list(rt *r, tv *out, tv in, const targs *a, const tv *p) {
    return tv_to_list(r, in, out);
}

static bool f_items(rt *r, tv *out, tv in, const targs *a, const tv *p) {
    if (in.type == TV_UNDEFINED) return tv_list_new(r, out, TV_LIST, 0) && tv_make_generator(r, out, NULL);
    if (in.type != TV_DICT) return tpl_fail(r, ERR_INVALID, "items needs a dict, not %s", tv_type_name(in));
    return tv_dict_items(r, out, in.u.dict) && tv_make_generator(r, out, NULL);
}

static bool sub_list(rt *r, tv *out, const tv_list *l, uint32_t from, uint32_t n, uint32_t padded, tv fill) {
    if (!tv_list_new(r, out, TV_LIST, padded)) return false;
    for (uint32_t i = 0; i < padded; i++) out->u.list->items[i] = i < n ? l->items[from + i] : fill;
    return true;
}

static bool f_batch(rt *r, tv *out, tv in, const targs *a, const tv *p) {
    tv list;
    int64_t size = 0;
    if (!tv_to_list(r, in, &list) || !targ_int(r, "linecount", p[0], &size)) return false;
    if (size < 1 || size > TPL_RANGE_MAX)
        return tpl_fail(r, ERR_INVALID, "batch needs a size of 1 to %d", TPL_RANGE_MAX);
    uint32_t n = list.u.list->n, by = (uint32_t)size, parts = n / by + (n % by != 0);
    if (!tv_list_new(r, out, TV_LIST, parts)) return false;
    bool fill = !tv_absent(p[1]) && p[1].type != TV_NONE;
    for (uint32_t i = 0; i < parts; i++) {
        uint32_t have = n - i * by < by ? n - i * by : by;
        if (!sub_list(r, &out->u.list->items[i], list.u.list, i * by, have, fill ? by : have, p[1])) return false;
    }
    return tv_make_generator(r, out, NULL);
}

static bool f_slice(rt *r, tv *out, tv in, const targs *a, const tv *p) {
    tv list;
    int64_t count = 0;
    if (!tv_to_list(r, in, &list) || !targ_int(r, "slices", p[0], &count)) return false;
    if (count < 1 || count > TPL_RANGE_MAX)
        return tpl_fail(r, ERR_INVALID, "slice needs a count of 1 to %d", TPL_RANGE_MAX);
    uint32_t parts = (uint32_t)count, each = list.u.list->n / parts, longer = list.u.list->n % parts, from = 0;
    if (!tv_list_new(r, out, TV_LIST, parts)) return false;
    bool fill = !tv_absent(p[1]) && p[1].type != TV_NONE;
    for (uint32_t i = 0; i < parts; i++) {
        uint32_t n = each + (i < longer);
        if (!sub_list(r, &out->u.list->items[i], list.u.list, from, n, n + (fill && i >= longer), p[1])) return false;
        from += n;
    }
    return tv_make_generator(r, out, NULL);
}

static bool f_groupby(rt *r, tv *out, tv in, const targs *a, const tv *p) {
    tv list, ordered, *keys;
    if (!tv_to_list(r, in, &list)) return false;
    const tv_list *l = list.u.list;
    bool with_case = targ_bool(p[2], false);
    if (!(keys = tpl_alloc(r, ((size_t)l->n + 1) * sizeof *keys))) return false;
    for (int pass = 0; pass < 2; pass++) { /* keys of the list, then of the sorted list */
        const tv_list *of = pass ? ordered.u.list : l;
        for (uint32_t i = 0; i < of->n; i++)
            if (!attr_path(r, &keys[i], of->items[i], p[0], p[1]) ||
                !sort_key(r, &keys[i], keys[i], tv_of(TV_ABSENT), with_case))
                return false;
        if (!pass && !sorted(r, &ordered, l, keys, false)) return false;
    }
    if (!tv_list_new(r, out, TV_LIST, l->n)) return false;
    uint32_t groups = 0;
    for (uint32_t i = 0, from = 0; i < l->n; from = i) {
        bool same = true;
        for (i++; i < l->n; i++) {
            if (!tv_equal(r, keys[from], keys[i], &same)) return false;
            if (!same) break;
        }
        tv *group = &out->u.list->items[groups++];
        if (!tv_list_new(r, group, TV_TUPLE, 2)) return false;
        tv *pair = group->u.list->items;
        if (!attr_path(r, &pair[0], ordered.u.list->items[from], p[0], p[1])) return false;
        if (!sub_list(r, &pair[1], ordered.u.list, from, i - from, i - from, tv_of(TV_NONE))) return false;
    }
    out->u.list->n = groups;
    return true;
}

/* ---- sums ------------------------------------------------------------------------------------------------ */

static bool f_join(rt *r, tv *out, tv in, const targs *a, const tv *p) {
    tv list, sep = tv_strn("", 0);
    if (!tv_to_list(r, in, &list) || (!tv_absent(p[0]) && !tpl_to_string(r, &sep, p[0]))) return false;
    bool by_attr = !tv_absent(p[1]) && p[1].type != TV_NONE;
    buf b = {.max = TPL_STRING_MAX};
    for (uint32_t i = 0; i < list.u.list->n; i++) {
        tv item = list.u.list->items[i];
        if (i) buf_append(&b, sep.u.s, sep.len);
        if ((!by_attr || attr_path(r, &item, item, p[1], tv_of(TV_ABSENT))) && tpl_charge(r, 1) &&
            tpl_print(r, &b, item))
            continue;
        buf_free(&b);
        return false;
    }
    return tv_take_buf(r, out, &b);
}

static bool f_sum(rt *r, tv *out, tv in, const targs *a, const tv *p) {
    tv list, total = tv_absent(p[1]) ? tv_int(0) : p[1];
    if (!tv_to_list(r, in, &list)) return false;
    bool by_attr = !tv_absent(p[0]) && p[0].type != TV_NONE;
    for (uint32_t i = 0; i < list.u.list->n; i++) {
        tv item = list.u.list->items[i];
        if (by_attr && !attr_path(r, &item, item, p[0], tv_of(TV_ABSENT))) return false;
        if (!tpl_charge(r, 1) || !tpl_binary(r, OP_ADD, &total, total, item)) return false;
    }
    *out = total;
    return true;
}

/* ---- map and select -------------------------------------------------------------------------------------- */

static bool need_name(rt *r, const char *who, const targs *a, tstr *out) {
    if (!a->n_pos || a->pos[0].type != TV_STRING)
        return tpl_fail(r, ERR_INVALID, "%s needs a name as its first argument", who);
    *out = tv_tstr(a->pos[0]);
    return true;
}

static bool map_attribute(rt *r, tv *out, const tv_list *l, const targs *a) {
    tv path = tv_of(TV_ABSENT), instead = tv_of(TV_ABSENT);
    for (uint32_t i = 0; i < a->n_kw; i++) {
        if (tstr_is(a->kw[i].name, "attribute"))
            path = a->kw[i].v;
        else if (tstr_is(a->kw[i].name, "default"))
            instead = a->kw[i].v;
        else
            return tpl_fail(r, ERR_INVALID, "map takes no argument '%.*s'", (int)a->kw[i].name.n, a->kw[i].name.p);
    }
    if (tv_absent(path)) return tpl_fail(r, ERR_INVALID, "map needs the name of a filter, or attribute=");
    if (!tv_list_new(r, out, TV_LIST, l->n)) return false;
    for (uint32_t i = 0; i < l->n; i++)
        if (!tpl_charge(r, 1) || !attr_path(r, &out->u.list->items[i], l->items[i], path, instead)) return false;
    return tv_make_generator(r, out, NULL);
}

static bool f_map(rt *r, tv *out, tv in, const targs *a, const tv *p) {
    tv list;
    tstr name;
    if (!tv_truthy(in))
        return tv_list_new(r, out, TV_LIST, 0) && tv_make_generator(r, out, NULL); /* none too, as in Jinja */
    if (!tv_to_list(r, in, &list)) return false;
    if (!a->n_pos) return map_attribute(r, out, list.u.list, a);
    if (!need_name(r, "map", a, &name)) return false;
    const tfilter *f = tpl_filter_find(name);
    if (!f)
        return tpl_fail(r, ERR_UNSUPPORTED, "the filter '%.*s' is not supported", name.n > 60 ? 60 : (int)name.n,
                        name.p);
    targs rest = {a->pos + 1, a->kw, a->n_pos - 1, a->n_kw};
    if (!tv_list_new(r, out, TV_LIST, list.u.list->n)) return false;
    for (uint32_t i = 0; i < list.u.list->n; i++) {
        if (r->depth >= TPL_DEPTH_MAX) return tpl_fail(r, ERR_TOO_LARGE, "filters call each other too deep");
        r->depth++; /* map('map', 'map', ...) */
        bool ok = tpl_charge(r, 1) && tpl_filter_call(r, &out->u.list->items[i], f, list.u.list->items[i], &rest);
        r->depth--;
        if (!ok) return false;
    }
    return tv_make_generator(r, out, NULL);
}

/* select, reject (the item) and selectattr, rejectattr (an attribute of it): kept where the test says `keep`. */
static bool choose(rt *r, tv *out, tv in, const targs *a, bool by_attr, bool keep) {
    tv list, path = tv_of(TV_ABSENT);
    targs rest = *a;
    const ttest *t = NULL;
    if (!tv_truthy(in)) return tv_list_new(r, out, TV_LIST, 0) && tv_make_generator(r, out, NULL);
    if (!tv_to_list(r, in, &list)) return false;
    if (by_attr) {
        if (!rest.n_pos) return tpl_fail(r, ERR_INVALID, "selectattr and rejectattr need the name of an attribute");
        path = *rest.pos++;
        rest.n_pos--;
    }
    if (rest.n_pos) {
        tstr name;
        if (!need_name(r, "select", &rest, &name)) return false;
        if (!(t = tpl_test_find(name)))
            return tpl_fail(r, ERR_UNSUPPORTED, "the test '%.*s' is not supported", name.n > 60 ? 60 : (int)name.n,
                            name.p);
        rest.pos++;
        rest.n_pos--;
    }
    if (!tv_list_new(r, out, TV_LIST, list.u.list->n)) return false;
    uint32_t n = 0;
    for (uint32_t i = 0; i < list.u.list->n; i++) {
        tv item = list.u.list->items[i], v = item;
        if (!tpl_charge(r, 1) || (by_attr && !attr_path(r, &v, item, path, tv_of(TV_ABSENT)))) return false;
        bool yes = tv_truthy(v);
        if (t && !tpl_test_call(r, &yes, t, v, &rest)) return false;
        if (yes == keep) out->u.list->items[n++] = item;
    }
    out->u.list->n = n;
    return tv_make_generator(r, out, NULL);
}
static bool f_select(rt *r, tv *out, tv in, const targs *a, const tv *p) {
    return choose(r, out, in, a, false, true);
}
static bool f_reject(rt *r, tv *out, tv in, const targs *a, const tv *p) {
    return choose(r, out, in, a, false, false);
}
static bool f_selectattr(rt *r, tv *out, tv in, const targs *a, const tv *p) {
    return choose(r, out, in, a, true, true);
}
static bool f_rejectattr(rt *r, tv *out, tv in, const targs *a, const tv *p) {
    return choose(r, out, in, a, true, false);
}

const tfilter tpl_list_filters[] = {
    {"first", f_first, ""},
    {"last", f_last, ""},
    {"list", f_list, ""},
    {"items", f_items, ""},
    {"join", f_join, "d? attribute?"},
    {"sum", f_sum, "attribute? start?"},
    {"min", f_min, "case_sensitive? attribute?"},
    {"max", f_max, "case_sensitive? attribute?"},
    {"sort", f_sort, "reverse? case_sensitive? attribute?"},
    {"dictsort", f_dictsort, "case_sensitive? by? reverse?"},
    {"reverse", f_reverse, ""},
    {"unique", f_unique, "case_sensitive? attribute?"},
    {"groupby", f_groupby, "attribute default? case_sensitive?"},
    {"batch", f_batch, "linecount fill_with?"},
    {"slice", f_slice, "slices fill_with?"},
    {"map", f_map, NULL},
    {"select", f_select, NULL},
    {"reject", f_reject, NULL},
    {"selectattr", f_selectattr, NULL},
    {"rejectattr", f_rejectattr, NULL},
    {0},
};
