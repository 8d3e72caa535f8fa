/* template_ops: characters, attributes, items, slices and arithmetic. */
#include "engine/template/template.h"

#include <math.h>

/* ---- characters ------------------------------------------------------------------------------------------ */

uint32_t tpl_char_at(const char *s, size_t n, size_t *len) {
    uint32_t cp;
    uint8_t c = (uint8_t)s[0];
    *len = 1;
    if (c < 0x80) return c;
    int k = utf8_decode(&cp, s, n);
    if (k <= 0) return 0xDC00u + c; /* as Python's surrogateescape: a broken byte is one character */
    *len = (size_t)k;
    return cp;
}

size_t tpl_char_len(const char *s, size_t n) {
    size_t len;
    tpl_char_at(s, n, &len);
    return len;
}

size_t tpl_count_chars(const char *s, size_t n) {
    size_t chars = 0;
    for (size_t i = 0; i < n; chars++) i += (uint8_t)s[i] < 0x80 ? 1 : tpl_char_len(s + i, n - i);
    return chars;
}

size_t tpl_byte_offset(const char *s, size_t n, size_t chars) {
    size_t i = 0;
    while (chars-- && i < n) i += tpl_char_len(s + i, n - i);
    return i;
}

bool tpl_is_space(uint32_t c) {
    if (c <= 0x20) return c == 0x20 || (c >= 9 && c <= 13) || (c >= 0x1C && c <= 0x1F);
    return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 ||
           c == 0x202F || c == 0x205F || c == 0x3000;
}

static bool char_in(uint32_t c, tstr set) {
    for (size_t i = 0, len; i < set.n; i += len)
        if (tpl_char_at(set.p + i, set.n - i, &len) == c) return true;
    return false;
}

tstr tpl_strip(tstr s, const tv *chars, bool left, bool right) {
    bool custom = chars && chars->type == TV_STRING;
    tstr set = custom ? tv_tstr(*chars) : (tstr){"", 0};
    while (left && s.n) {
        size_t len;
        uint32_t c = tpl_char_at(s.p, s.n, &len);
        if (custom ? !char_in(c, set) : !tpl_is_space(c)) break;
        s.p += len;
        s.n -= (uint32_t)len;
    }
    while (right && s.n) {
        size_t back = 1, len;
        while (back < 4 && back < s.n && ((uint8_t)s.p[s.n - back] & 0xC0) == 0x80) back++;
        uint32_t c = tpl_char_at(s.p + s.n - back, back, &len);
        if (len != back) { /* broken bytes: one at a time */
            back = 1;
            c = 0xDC00u + (uint8_t)s.p[s.n - 1];
        }
        if (custom ? !char_in(c, set) : !tpl_is_space(c)) break;
        s.n -= (uint32_t)back;
    }
    return s;
}

bool tpl_strip_paid(rt *r, tstr *out, tstr s, const tv *chars, bool left, bool right) {
    uint32_t set = chars && chars->type == TV_STRING ? chars->len : 0;
    if (set > 8 && !tpl_charge(r, (uint64_t)s.n * set / 64)) return false; /* a search of the set for each character */
    *out = tpl_strip(s, chars, left, right);
    return tpl_charge(r, (s.n - out->n) / 16);
}

/* ---- attributes and items -------------------------------------------------------------------------------- */

static bool bind_method(rt *r, tv *out, tv self, const tmethod *m, tstr name) {
    tv_bound *b = tpl_alloc(r, sizeof *b);
    if (!b) return false;
    *b = (tv_bound){self, m, name};
    *out = (tv){.type = TV_METHOD, .u.bound = b};
    return true;
}

static void neighbour(tv *out, const tv_loop *l, int64_t at, tstr name) {
    if (at < 0 || at >= l->n)
        *out = tv_undefined(TV_LOOP, name.p, name.n);
    else
        *out = l->items[at];
}

static bool loop_attr(rt *r, tv *out, tv obj, tstr name) {
    const tv_loop *l = obj.u.loop;
    if (tstr_is(name, "index"))
        *out = tv_int((int64_t)l->i + 1);
    else if (tstr_is(name, "index0"))
        *out = tv_int(l->i);
    else if (tstr_is(name, "revindex"))
        *out = tv_int((int64_t)l->n - l->i);
    else if (tstr_is(name, "revindex0"))
        *out = tv_int((int64_t)l->n - l->i - 1);
    else if (tstr_is(name, "first"))
        *out = tv_bool(l->i == 0);
    else if (tstr_is(name, "last"))
        *out = tv_bool(l->i + 1 == l->n);
    else if (tstr_is(name, "length"))
        *out = tv_int(l->n);
    else if (tstr_is(name, "depth"))
        *out = tv_int((int64_t)l->depth0 + 1);
    else if (tstr_is(name, "depth0"))
        *out = tv_int(l->depth0);
    else if (tstr_is(name, "previtem"))
        neighbour(out, l, (int64_t)l->i - 1, name);
    else if (tstr_is(name, "nextitem"))
        neighbour(out, l, (int64_t)l->i + 1, name);
    else {
        const tmethod *m = tpl_method_find(TV_LOOP, name);
        if (m) return bind_method(r, out, obj, m, name);
        *out = tv_undefined(TV_LOOP, name.p, name.n);
    }
    return true;
}

bool tpl_get_attr(rt *r, tv *out, tv obj, tstr name, const node *n) {
    const tmethod *m = NULL;
    switch ((tv_type)obj.type) {
    case TV_UNDEFINED: return tpl_fail_undefined(r, obj);
    case TV_STRING: m = n ? n->on_string : tpl_method_find(TV_STRING, name); break;
    case TV_LIST:
    case TV_TUPLE: m = n ? n->on_list : tpl_method_find(TV_LIST, name); break;
    case TV_DICT: m = n ? n->on_dict : tpl_method_find(TV_DICT, name); break;
    case TV_LOOP: return loop_attr(r, out, obj, name);
    case TV_CYCLER:
        m = tpl_method_find(TV_CYCLER, name);
        if (!m && tstr_is(name, "current")) {
            *out = obj.u.cycler->items[obj.u.cycler->at];
            return true;
        }
        break;
    case TV_MACRO:
        if (tstr_is(name, "name")) {
            *out = tv_strn(obj.u.macro->def->name.p, obj.u.macro->def->name.n);
            return true;
        }
        break;
    default: break;
    }
    if (m) return bind_method(r, out, obj, m, name);
    if (obj.type == TV_DICT || obj.type == TV_NAMESPACE) {
        if (!tv_dict_get_str(r, obj.u.dict, name, out)) return false;
        if (!tv_absent(*out)) return true;
    }
    *out = tv_undefined((tv_type)obj.type, name.p, name.n);
    return true;
}

/* Where an index points in n items, or -1. */
static int64_t at_index(int64_t i, int64_t n) {
    if (i < 0) i += n;
    return i >= 0 && i < n ? i : -1;
}

bool tpl_get_item(rt *r, tv *out, tv obj, tv key) {
    int64_t i;
    if (obj.type == TV_UNDEFINED) return tpl_fail_undefined(r, obj);
    if (obj.type == TV_DICT) {
        if (!tv_dict_get(r, obj.u.dict, key, out)) return false;
        if (!tv_absent(*out)) return true;
    } else if (tv_is_list(obj) && tv_as_index(key, &i)) {
        i = at_index(i, obj.u.list->n);
        *out = i < 0 ? tv_undefined((tv_type)obj.type, "item", 4) : obj.u.list->items[i];
        return true;
    } else if (obj.type == TV_STRING && tv_as_index(key, &i)) {
        i = at_index(i, (int64_t)tpl_count_chars(obj.u.s, obj.len));
        *out = tv_undefined(TV_STRING, "character", 9);
        if (i >= 0) {
            size_t at = tpl_byte_offset(obj.u.s, obj.len, (size_t)i);
            *out = tv_strn(obj.u.s + at, tpl_char_len(obj.u.s + at, obj.len - at));
        }
        return tpl_charge(r, obj.len / 32);
    }
    if (key.type == TV_STRING) return tpl_get_attr(r, out, obj, tv_tstr(key), NULL);
    *out = tv_undefined((tv_type)obj.type, "item", 4);
    return true;
}

static bool slice_bound(rt *r, tv v, int64_t *out) {
    if (v.type == TV_UNDEFINED) return tpl_fail_undefined(r, v);
    if (!tv_as_index(v, out)) return tpl_fail(r, ERR_INVALID, "a slice needs integers, not %s", tv_type_name(v));
    return true;
}

/* Start, step and count of a slice over n items, by Python's rules. */
static bool slice_range(rt *r, const tv b[3], int64_t n, int64_t *start, int64_t *step, int64_t *count) {
    bool given[3];
    int64_t v[3] = {0, 0, 1};
    for (int i = 0; i < 3; i++) {
        given[i] = !tv_absent(b[i]) && b[i].type != TV_NONE;
        if (given[i] && !slice_bound(r, b[i], &v[i])) return false;
    }
    if (v[2] == 0) return tpl_fail(r, ERR_INVALID, "the step of a slice cannot be 0");
    *step = v[2];
    int64_t low = *step > 0 ? 0 : -1, high = *step > 0 ? n : n - 1;
    int64_t end[2] = {*step > 0 ? 0 : n - 1, *step > 0 ? n : -1};
    for (int i = 0; i < 2; i++) {
        if (!given[i]) continue;
        int64_t at = v[i] < 0 ? (v[i] < -n ? low : v[i] + n) : v[i];
        end[i] = at < low ? low : at > high ? high : at;
    }
    *start = end[0];
    int64_t span = *step > 0 ? end[1] - end[0] : end[0] - end[1];
    uint64_t by = *step > 0 ? (uint64_t)*step : 0 - (uint64_t)*step;
    *count = span <= 0 ? 0 : (int64_t)(((uint64_t)span - 1) / by + 1);
    return true;
}

static bool slice_string(rt *r, tv *out, tv s, const tv bounds[3]) {
    int64_t start = 0, step = 0, count = 0;
    size_t chars = tpl_count_chars(s.u.s, s.len);
    if (!tpl_charge(r, s.len / 32) || !slice_range(r, bounds, (int64_t)chars, &start, &step, &count)) return false;
    if (!count) {
        *out = tv_strn("", 0);
        return true;
    }
    if (step == 1) {
        size_t from = tpl_byte_offset(s.u.s, s.len, (size_t)start);
        *out = tv_strn(s.u.s + from, tpl_byte_offset(s.u.s + from, s.len - from, (size_t)count));
        return true;
    }
    tv all;
    if (!tv_to_list(r, s, &all)) return false;
    buf b = {.max = TPL_STRING_MAX};
    for (int64_t i = 0; i < count; i++) {
        tv c = all.u.list->items[start + i * step];
        buf_append(&b, c.u.s, c.len);
    }
    return tv_take_buf(r, out, &b);
}

bool tpl_slice(rt *r, tv *out, tv obj, const tv bounds[3]) {
    int64_t start = 0, step = 0, count = 0;
    if (obj.type == TV_UNDEFINED) return tpl_fail_undefined(r, obj);
    if (obj.type == TV_STRING) return slice_string(r, out, obj, bounds);
    if (!tv_is_list(obj)) return tpl_fail(r, ERR_INVALID, "a value of type %s cannot be sliced", tv_type_name(obj));
    const tv_list *from = obj.u.list;
    if (!slice_range(r, bounds, from->n, &start, &step, &count)) return false;
    if (step != 1 || !count) {
        if (!tv_list_new(r, out, (tv_type)obj.type, (uint32_t)count)) return false;
        for (int64_t i = 0; i < count; i++) out->u.list->items[i] = from->items[start + i * step];
        return true;
    }
    tv_list *l = tpl_alloc(r, sizeof *l); /* the same items: lists never change */
    if (!l) return false;
    *l = (tv_list){from->items + start, (uint32_t)count};
    *out = (tv){.type = obj.type, .u.list = l};
    return true;
}

/* ---- arithmetic ------------------------------------------------------------------------------------------ */

static bool overflow(rt *r) {
    return tpl_fail(r, ERR_UNSUPPORTED, "the result is past 64-bit integers");
}

static int64_t as_int(tv v) {
    return v.type == TV_INT ? v.u.i : v.u.b;
}

static bool int_power(rt *r, tv *out, int64_t base, int64_t exp) {
    if (exp < 0) {
        if (!base) return tpl_fail(r, ERR_INVALID, "0 cannot be raised to a negative power");
        double x = 1;
        for (int64_t i = 0; i < -exp && i < 1100; i++) x /= (double)base;
        *out = tv_float(base == 1 ? 1 : base == -1 ? (exp % 2 ? -1 : 1) : x);
        return true;
    }
    int64_t x = 1;
    if (base == 0 || base == 1) {
        *out = tv_int(exp ? base : 1);
        return true;
    }
    if (base == -1) {
        *out = tv_int(exp % 2 ? -1 : 1);
        return true;
    }
    for (int64_t i = 0; i < exp; i++)
        if (__builtin_mul_overflow(x, base, &x)) return overflow(r);
    *out = tv_int(x);
    return true;
}

static bool int_binary(rt *r, tpl_op op, tv *out, int64_t a, int64_t b) {
    int64_t v = 0;
    switch (op) {
    case OP_ADD:
        if (__builtin_add_overflow(a, b, &v)) return overflow(r);
        break;
    case OP_SUB:
        if (__builtin_sub_overflow(a, b, &v)) return overflow(r);
        break;
    case OP_MUL:
        if (__builtin_mul_overflow(a, b, &v)) return overflow(r);
        break;
    case OP_POW: return int_power(r, out, a, b);
    default:
        if (b == 0) return tpl_fail(r, ERR_INVALID, "division by zero");
        if (op == OP_DIV) {
            *out = tv_float((double)a / (double)b);
            return true;
        }
        if (b == -1) { /* the one quotient that may not fit */
            if (op == OP_FLOORDIV && a == INT64_MIN) return overflow(r);
            v = op == OP_FLOORDIV ? -a : 0;
            break;
        }
        v = op == OP_FLOORDIV ? a / b : a % b;
        if (a % b != 0 && (a < 0) != (b < 0)) v += op == OP_FLOORDIV ? -1 : b;
        break;
    }
    *out = tv_int(v);
    return true;
}

static bool float_binary(rt *r, tpl_op op, tv *out, double a, double b) {
    double v, m;
    switch (op) {
    case OP_ADD: v = a + b; break;
    case OP_SUB: v = a - b; break;
    case OP_MUL: v = a * b; break;
    case OP_POW: {
        if (!(b >= -1024 && b <= 1024) || b != (double)(int)b) /* the range first: the cast is undefined outside it */
            return tpl_fail(r, ERR_UNSUPPORTED, "** of floats is supported for whole exponents up to 1024");
        v = 1;
        for (int i = 0; i < (b < 0 ? -b : b); i++) v *= a;
        if (b < 0 && v == 0) return tpl_fail(r, ERR_INVALID, "0 cannot be raised to a negative power");
        if (b < 0) v = 1 / v;
        break;
    }
    default:
        if (b == 0) return tpl_fail(r, ERR_INVALID, "division by zero");
        if (op == OP_DIV) {
            v = a / b;
            break;
        }
        m = fmod(a, b);                           /* exact by IEEE 754 */
        if (m != 0 && (m < 0) != (b < 0)) m += b; /* Python: the sign of b */
        v = op == OP_MOD ? m : floor((a - m) / b);
        if (op == OP_FLOORDIV && (a - m) / b - v > 0.5) v += 1; /* (a - m) / b is whole up to rounding */
        break;
    }
    *out = tv_float(v);
    return true;
}

static bool repeat(rt *r, tv *out, tv what, int64_t times) {
    if (times < 0) times = 0;
    if (what.type == TV_STRING) {
        if (what.len && (uint64_t)times > TPL_STRING_MAX / what.len)
            return tpl_fail(r, ERR_TOO_LARGE, "a string grew past %zu MiB", TPL_STRING_MAX >> 20);
        size_t n = what.len ? (size_t)times * what.len : 0;
        char *p = tpl_alloc(r, n + 1);
        if (!p || !tpl_charge(r, n / 64)) return false;
        for (size_t i = 0; i < n; i += what.len) memcpy(p + i, what.u.s, what.len);
        *out = tv_strn(p, n);
        return true;
    }
    uint32_t len = what.u.list->n;
    if (len && times > (int64_t)(TPL_LIST_MAX / len))
        return tpl_fail(r, ERR_TOO_LARGE, "a list grew past %u items", TPL_LIST_MAX);
    uint32_t n = len ? len * (uint32_t)times : 0;
    if (!tv_list_new(r, out, (tv_type)what.type, n)) return false;
    for (uint32_t i = 0; i < n; i++) out->u.list->items[i] = what.u.list->items[i % len];
    return true;
}

static bool concat(rt *r, tv *out, tv a, tv b) {
    if (a.type == TV_STRING) {
        if ((uint64_t)a.len + b.len > TPL_STRING_MAX)
            return tpl_fail(r, ERR_TOO_LARGE, "a string grew past %zu MiB", TPL_STRING_MAX >> 20);
        char *p = tpl_alloc(r, (size_t)a.len + b.len + 1);
        if (!p || !tpl_charge(r, ((uint64_t)a.len + b.len) / 64)) return false;
        if (a.len) memcpy(p, a.u.s, a.len);
        if (b.len) memcpy(p + a.len, b.u.s, b.len);
        *out = tv_strn(p, (size_t)a.len + b.len);
        return true;
    }
    const tv_list *x = a.u.list, *y = b.u.list;
    if (!tv_list_new(r, out, (tv_type)a.type, x->n + y->n)) return false;
    if (x->n) memcpy(out->u.list->items, x->items, x->n * sizeof *x->items);
    if (y->n) memcpy(out->u.list->items + x->n, y->items, y->n * sizeof *y->items);
    return true;
}

bool tpl_binary(rt *r, tpl_op op, tv *out, tv a, tv b) {
    static const char signs[][3] = {"+", "-", "*", "/", "//", "%", "**"};
    if (a.type == TV_UNDEFINED) return tpl_fail_undefined(r, a);
    if (op == OP_MOD && a.type == TV_STRING) { /* printf-style formatting */
        if (b.type == TV_TUPLE) return tpl_printf(r, out, tv_tstr(a), b.u.list->items, b.u.list->n, NULL, false);
        return tpl_printf(r, out, tv_tstr(a), &b, 1, b.type == TV_DICT ? b.u.dict : NULL,
                          b.type == TV_LIST || b.type == TV_UNDEFINED);
    }
    if (b.type == TV_UNDEFINED) return tpl_fail_undefined(r, b);
    if (tv_is_number(a) && tv_is_number(b)) {
        if (a.type == TV_FLOAT || b.type == TV_FLOAT) return float_binary(r, op, out, tv_number(a), tv_number(b));
        return int_binary(r, op, out, as_int(a), as_int(b));
    }
    bool a_seq = a.type == TV_STRING || tv_is_list(a), b_seq = b.type == TV_STRING || tv_is_list(b);
    int64_t times;
    if (op == OP_ADD && a_seq && a.type == b.type) return concat(r, out, a, b);
    if (op == OP_MUL && a_seq && tv_as_index(b, &times)) return repeat(r, out, a, times);
    if (op == OP_MUL && b_seq && tv_as_index(a, &times)) return repeat(r, out, b, times);
    return tpl_fail(r, ERR_INVALID, "%s %s %s cannot be computed", tv_type_name(a), signs[op], tv_type_name(b));
}
