/* template_tests: what may follow `is`. */
#include "engine/template/template.h"

static bool t_defined(rt *r, bool *out, tv in, const tv *p) {
    return (*out = in.type != TV_UNDEFINED), true;
}
static bool t_undefined(rt *r, bool *out, tv in, const tv *p) {
    return (*out = in.type == TV_UNDEFINED), true;
}
static bool t_none(rt *r, bool *out, tv in, const tv *p) {
    return (*out = in.type == TV_NONE), true;
}
static bool t_boolean(rt *r, bool *out, tv in, const tv *p) {
    return (*out = in.type == TV_BOOL), true;
}
static bool t_true(rt *r, bool *out, tv in, const tv *p) {
    return (*out = in.type == TV_BOOL && in.u.b), true;
}
static bool t_false(rt *r, bool *out, tv in, const tv *p) {
    return (*out = in.type == TV_BOOL && !in.u.b), true;
}
static bool t_string(rt *r, bool *out, tv in, const tv *p) {
    return (*out = in.type == TV_STRING), true;
}
static bool t_number(rt *r, bool *out, tv in, const tv *p) {
    return (*out = tv_is_number(in)), true;
}
static bool t_integer(rt *r, bool *out, tv in, const tv *p) {
    return (*out = in.type == TV_INT), true;
}
static bool t_float(rt *r, bool *out, tv in, const tv *p) {
    return (*out = in.type == TV_FLOAT), true;
}
static bool t_mapping(rt *r, bool *out, tv in, const tv *p) {
    return (*out = in.type == TV_DICT), true;
}

static bool t_sequence(rt *r, bool *out, tv in, const tv *p) {
    *out = in.type == TV_STRING || in.type == TV_DICT || in.type == TV_UNDEFINED || tv_is_list(in);
    return true;
}
static bool t_iterable(rt *r, bool *out, tv in, const tv *p) {
    return t_sequence(r, out, in, p) && ((*out |= in.type == TV_GENERATOR), true);
}
static bool t_callable(rt *r, bool *out, tv in, const tv *p) {
    *out = in.type == TV_MACRO || in.type == TV_GLOBAL || in.type == TV_METHOD || in.type == TV_JOINER ||
           in.type == TV_LOOP || in.type == TV_UNDEFINED;
    return true;
}
static bool t_escaped(rt *r, bool *out, tv in, const tv *p) {
    return (*out = false), true;
}
static bool t_filter(rt *r, bool *out, tv in, const tv *p) {
    *out = in.type == TV_STRING && tpl_filter_find(tv_tstr(in)) != NULL;
    return true;
}
static bool t_test(rt *r, bool *out, tv in, const tv *p) {
    *out = in.type == TV_STRING && tpl_test_find(tv_tstr(in)) != NULL;
    return true;
}

static bool remainder_is(rt *r, bool *out, tv in, tv by, int64_t want) {
    tv m;
    if (!tpl_binary(r, OP_MOD, &m, in, by)) return false;
    return tv_equal(r, m, tv_int(want), out);
}
static bool t_odd(rt *r, bool *out, tv in, const tv *p) {
    return remainder_is(r, out, in, tv_int(2), 1);
}
static bool t_even(rt *r, bool *out, tv in, const tv *p) {
    return remainder_is(r, out, in, tv_int(2), 0);
}
static bool t_divisibleby(rt *r, bool *out, tv in, const tv *p) {
    return remainder_is(r, out, in, p[0], 0);
}

static bool t_eq(rt *r, bool *out, tv in, const tv *p) {
    return tv_equal(r, in, p[0], out);
}
static bool t_ne(rt *r, bool *out, tv in, const tv *p) {
    if (!tv_equal(r, in, p[0], out)) return false;
    *out = !*out;
    return true;
}
static bool t_gt(rt *r, bool *out, tv in, const tv *p) {
    int c;
    return tv_compare(r, in, p[0], &c) && ((*out = c == 1), true);
}
static bool t_ge(rt *r, bool *out, tv in, const tv *p) {
    int c;
    return tv_compare(r, in, p[0], &c) && ((*out = c == 0 || c == 1), true);
}
static bool t_lt(rt *r, bool *out, tv in, const tv *p) {
    int c;
    return tv_compare(r, in, p[0], &c) && ((*out = c == -1), true);
}
static bool t_le(rt *r, bool *out, tv in, const tv *p) {
    int c;
    return tv_compare(r, in, p[0], &c) && ((*out = c == 0 || c == -1), true);
}
static bool t_in(rt *r, bool *out, tv in, const tv *p) {
    return tv_contains(r, in, p[0], out);
}

/* The same object: for values that have no identity here, equal and of the same type. */
static bool t_sameas(rt *r, bool *out, tv in, const tv *p) {
    *out = false;
    return in.type != p[0].type || tv_equal(r, in, p[0], out);
}

static bool is_cased(rt *r, bool *out, tv in, bool upper) {
    tv s;
    if (!tpl_to_string(r, &s, in)) return false;
    *out = tpl_is_cased(tv_tstr(s), upper);
    return tpl_charge(r, s.len / 32);
}
static bool t_upper(rt *r, bool *out, tv in, const tv *p) {
    return is_cased(r, out, in, true);
}
static bool t_lower(rt *r, bool *out, tv in, const tv *p) {
    return is_cased(r, out, in, false);
}

static const ttest table[] = {
    {"defined", t_defined, ""},
    {"undefined", t_undefined, ""},
    {"none", t_none, ""},
    {"string", t_string, ""},
    {"mapping", t_mapping, ""},
    {"iterable", t_iterable, ""},
    {"sequence", t_sequence, ""}, /* whatever has a length and items */
    {"true", t_true, ""},
    {"false", t_false, ""},
    {"boolean", t_boolean, ""},
    {"number", t_number, ""},
    {"integer", t_integer, ""},
    {"float", t_float, ""},
    {"callable", t_callable, ""},
    {"escaped", t_escaped, ""},
    {"filter", t_filter, ""},
    {"test", t_test, ""},
    {"odd", t_odd, ""},
    {"even", t_even, ""},
    {"upper", t_upper, ""},
    {"lower", t_lower, ""},
    {"divisibleby", t_divisibleby, "num"},
    {"eq", t_eq, "other"},
    {"equalto", t_eq, "other"},
    {"==", t_eq, "other"},
    {"ne", t_ne, "other"},
    {"!=", t_ne, "other"},
    {"gt", t_gt, "other"},
    {"greaterthan", t_gt, "other"},
    {">", t_gt, "other"},
    {"ge", t_ge, "other"},
    {">=", t_ge, "other"},
    {"lt", t_lt, "other"},
    {"lessthan", t_lt, "other"},
    {"<", t_lt, "other"},
    {"le", t_le, "other"},
    {"<=", t_le, "other"},
    {"in", t_in, "seq"},
    {"sameas", t_sameas, "other"},
    {0},
};

const ttest *tpl_test_find(tstr name) {
    for (const ttest *t = table; t->name; t++)
        if (tstr_is(name, t->name)) return t;
    return NULL;
}

bool tpl_test_call(rt *r, bool *out, const ttest *t, tv in, const targs *a) {
    tv p[TPL_BIND_MAX];
    return targs_bind(r, t->name, a, t->spec, p) && t->fn(r, out, in, p);
}
