/* template_filters: filters on one value: text, numbers, JSON, defaults. Those on lists are in template_lists.c. */
#include "engine/template/template.h"

#include <errno.h>
#include <math.h>
#include <utf8proc.h>

static bool text_of(rt *r, tv in, tstr *out) {
    tv s;
    if (!tpl_to_string(r, &s, in)) return false;
    *out = tv_tstr(s);
    return true;
}

/* ---- text ------------------------------------------------------------------------------------------------ */

static bool f_trim(rt *r, tv *out, tv in, const targs *a, const tv *p) {
    tstr s;
    if (!text_of(r, in, &s)) return false;
    if (!tpl_strip_paid(r, &s, s, &p[0], true, true)) return false;
    *out = tv_strn(s.p, s.n);
    return true;
}

static bool change_case(rt *r, tv *out, tv in, tpl_case how) {
    tstr s;
    return text_of(r, in, &s) && tpl_change_case(r, out, s, how);
}
static bool f_upper(rt *r, tv *out, tv in, const targs *a, const tv *p) {
    return change_case(r, out, in, CASE_UPPER);
}
static bool f_lower(rt *r, tv *out, tv in, const targs *a, const tv *p) {
    return change_case(r, out, in, CASE_LOWER);
}
static bool f_title(rt *r, tv *out, tv in, const targs *a, const tv *p) {
    return change_case(r, out, in, CASE_JINJA_TITLE);
}
static bool f_capitalize(rt *r, tv *out, tv in, const targs *a, const tv *p) {
    return change_case(r, out, in, CASE_CAPITALIZE);
}

static bool f_string(rt *r, tv *out, tv in, const targs *a, const tv *p) {
    return tpl_to_string(r, out, in);
}
static bool f_safe(rt *r, tv *out, tv in, const targs *a, const tv *p) {
    return tpl_to_string(r, out, in);
}

static bool f_replace(rt *r, tv *out, tv in, const targs *a, const tv *p) {
    tstr s, from, to;
    int64_t count = -1;
    if (p[2].type != TV_NONE && !targ_int(r, "count", p[2], &count)) return false;
    return text_of(r, in, &s) && text_of(r, p[0], &from) && text_of(r, p[1], &to) &&
           tpl_replace(r, out, s, from, to, count);
}

static bool f_escape(rt *r, tv *out, tv in, const targs *a, const tv *p) {
    static const char from[] = "&<>'\"";
    static const char *const to[] = {"&amp;", "&lt;", "&gt;", "&#39;", "&#34;"};
    tstr s;
    if (!text_of(r, in, &s)) return false;
    buf b = {.max = TPL_STRING_MAX};
    for (size_t i = 0; i < s.n; i++) {
        const char *hit = s.p[i] ? strchr(from, s.p[i]) : NULL;
        if (hit)
            buf_puts(&b, to[hit - from]);
        else
            buf_putc(&b, s.p[i]);
    }
    return tpl_charge(r, s.n / 32) ? tv_take_buf(r, out, &b) : (buf_free(&b), false);
}

static bool f_indent(rt *r, tv *out, tv in, const targs *a, const tv *p) {
    int64_t width = 4;
    if (in.type == TV_UNDEFINED) return tpl_fail_undefined(r, in);
    if (in.type != TV_STRING) return tpl_fail(r, ERR_INVALID, "indent needs a string, not %s", tv_type_name(in));
    tstr s = tv_tstr(in);
    tv lines, pad = p[0];
    if (pad.type != TV_STRING) {
        if (!targ_int(r, "the width of indent", pad, &width)) return false;
        if (width > 1000) return tpl_fail(r, ERR_TOO_LARGE, "an indent of more than 1000 characters");
        if (!tpl_binary(r, OP_MUL, &pad, tv_strn(" ", 1), tv_int(width))) return false;
    }
    bool first = targ_bool(p[1], false), blank = targ_bool(p[2], false);
    if (!tpl_split_lines(r, &lines, s, false)) return false;
    const tv_list *l = lines.u.list;
    buf b = {.max = TPL_STRING_MAX};
    for (uint32_t i = 0; i < l->n; i++) {
        if (i) buf_putc(&b, '\n');
        if (i ? blank || l->items[i].len : first) buf_append(&b, pad.u.s, pad.len);
        buf_append(&b, l->items[i].u.s, l->items[i].len);
    }
    /* Jinja splits s + "\n": a line break at the end leaves an empty last line */
    bool ends_open = !s.n || (l->n && l->items[l->n - 1].u.s + l->items[l->n - 1].len < s.p + s.n);
    if (ends_open && s.n) {
        buf_putc(&b, '\n');
        if (blank) buf_append(&b, pad.u.s, pad.len);
    }
    if (!s.n && first) buf_append(&b, pad.u.s, pad.len);
    return tv_take_buf(r, out, &b);
}

static bool f_format(rt *r, tv *out, tv in, const targs *a, const tv *p) {
    tstr s;
    tv named;
    if (!text_of(r, in, &s)) return false;
    if (!a->n_kw) return tpl_printf(r, out, s, a->pos, a->n_pos, NULL, false);
    if (a->n_pos) return tpl_fail(r, ERR_INVALID, "format takes positional or named arguments, not both");
    if (!tv_dict_new(r, &named)) return false;
    for (uint32_t i = 0; i < a->n_kw; i++)
        if (!tv_dict_set(r, named.u.dict, tv_strn(a->kw[i].name.p, a->kw[i].name.n), a->kw[i].v)) return false;
    return tpl_printf(r, out, s, NULL, 0, named.u.dict, false);
}

static bool f_center(rt *r, tv *out, tv in, const targs *a, const tv *p) {
    tstr s;
    int64_t width = 80;
    return text_of(r, in, &s) && targ_int(r, "width", p[0], &width) && tpl_pad(r, out, s, width, (tstr){" ", 1}, 0);
}

/* \w of Python's regular expressions: letters, numbers, underscore. */
static bool is_word_char(uint32_t c) {
    if (c >= 0xD800 && c < 0xE000) return false;
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
    return c == '_' || (k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO) ||
           (k >= UTF8PROC_CATEGORY_ND && k <= UTF8PROC_CATEGORY_NO);
}

static bool f_wordcount(rt *r, tv *out, tv in, const targs *a, const tv *p) {
    tstr s;
    if (!text_of(r, in, &s)) return false;
    int64_t n = 0;
    bool inside = false;
    for (size_t i = 0, len; i < s.n; i += len) {
        uint32_t c = tpl_char_at(s.p + i, s.n - i, &len);
        bool word = is_word_char(c);
        if (word && !inside) n++;
        inside = word;
    }
    *out = tv_int(n);
    return tpl_charge(r, s.n / 32);
}

static bool f_urlencode(rt *r, tv *out, tv in, const targs *a, const tv *p) {
    tstr s;
    if (in.type == TV_DICT || tv_is_list(in))
        return tpl_fail(r, ERR_UNSUPPORTED, "urlencode is supported for strings only");
    if (!text_of(r, in, &s)) return false;
    buf b = {.max = TPL_STRING_MAX};
    for (size_t i = 0; i < s.n; i++) {
        uint8_t c = (uint8_t)s.p[i];
        bool plain =
            (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z') || (c && c < 0x80 && strchr("-._~/", c));
        if (plain)
            buf_putc(&b, (char)c);
        else
            buf_printf(&b, "%%%02X", c);
    }
    return tpl_charge(r, s.n / 32) ? tv_take_buf(r, out, &b) : (buf_free(&b), false);
}

static bool json_separators(rt *r, tv v, json_style *st) {
    if (v.type == TV_ABSENT || v.type == TV_NONE) return true;
    if (!tv_is_list(v) || v.u.list->n != 2 || v.u.list->items[0].type != TV_STRING ||
        v.u.list->items[1].type != TV_STRING)
        return tpl_fail(r, ERR_INVALID, "separators of tojson must be two strings");
    st->comma = tv_tstr(v.u.list->items[0]);
    st->colon = tv_tstr(v.u.list->items[1]);
    return true;
}

/* json.dumps with transformers' defaults: ensure_ascii is off. */
static bool f_tojson(rt *r, tv *out, tv in, const targs *a, const tv *p) {
    tv indent = p[1];
    int64_t width = 0;
    json_style st = {
        .ascii = targ_bool(p[0], false), .sort_keys = targ_bool(p[3], false), .comma = {", ", 2}, .colon = {": ", 2}};
    if (indent.type == TV_STRING) {
        st.indented = true;
        st.indent = tv_tstr(indent);
    } else if (indent.type != TV_ABSENT && indent.type != TV_NONE) {
        if (!targ_int(r, "indent", indent, &width)) return false;
        if (width > 64) return tpl_fail(r, ERR_TOO_LARGE, "an indent of more than 64 characters");
        static const char spaces[] = "                                                                ";
        st.indented = true;
        st.indent = (tstr){spaces, width > 0 ? (uint32_t)width : 0};
    }
    if (st.indented) st.comma = (tstr){",", 1};
    if (!json_separators(r, p[2], &st)) return false;
    buf b = {.max = TPL_STRING_MAX};
    if (tpl_to_json(r, &b, in, &st, 0)) return tv_take_buf(r, out, &b);
    buf_free(&b);
    return false;
}

/* ---- numbers --------------------------------------------------------------------------------------------- */

static bool f_abs(rt *r, tv *out, tv in, const targs *a, const tv *p) {
    if (in.type == TV_UNDEFINED) return tpl_fail_undefined(r, in);
    if (!tv_is_number(in)) return tpl_fail(r, ERR_INVALID, "abs needs a number, not %s", tv_type_name(in));
    *out = in.type == TV_BOOL ? tv_int(in.u.b) : in;
    if (in.type == TV_FLOAT) out->u.f = fabs(in.u.f);
    if (in.type == TV_INT && in.u.i < 0) return tpl_binary(r, OP_SUB, out, tv_int(0), in);
    return true;
}

/* A number in text, with white space around it and underscores between digits as Python allows. */
static bool clean_number(tstr s, char out[80]) {
    size_t n = 0;
    s = tpl_strip(s, NULL, true, true);
    if (!s.n || s.n > 78) return false;
    for (uint32_t i = 0; i < s.n; i++) {
        if (s.p[i] == '_') {
            if (!i || i + 1 == s.n || s.p[i - 1] == '_' || s.p[i + 1] == '_') return false;
            continue;
        }
        if (!s.p[i] || !strchr("0123456789abcdefABCDEFxXoO+-.eEinfINFtyTYNan", s.p[i])) return false;
        out[n++] = s.p[i];
    }
    out[n] = 0;
    return n > 0;
}

static bool parse_float(tstr s, double *out) {
    char text[80], *end;
    if (!clean_number(s, text) || strpbrk(text, "xX(")) return false;
    *out = strtod(text, &end);
    return end != text && !*end;
}

static bool parse_int(tstr s, int base, int64_t *out) {
    char text[80], *end, *p = text;
    if (!clean_number(s, text)) return false;
    bool neg = *p == '-';
    if (*p == '-' || *p == '+') p++;
    char prefix = base == 16 ? 'x' : base == 8 ? 'o' : base == 2 ? 'b' : 0;
    if (prefix && p[0] == '0' && (p[1] | 32) == prefix) p += 2;
    if (*p == '-' || *p == '+' || (base == 16 && p[0] == '0' && (p[1] | 32) == 'x')) return false;
    errno = 0;
    unsigned long long v = strtoull(p, &end, base);
    if (end == p || *end || errno || v > (unsigned long long)INT64_MAX) return false;
    *out = neg ? -(int64_t)v : (int64_t)v;
    return true;
}

static bool float_to_int(double d, int64_t *out) {
    if (!(d > -9223372036854774784.0 && d < 9223372036854774784.0)) return false;
    *out = (int64_t)d;
    return true;
}

static bool f_int(rt *r, tv *out, tv in, const targs *a, const tv *p) {
    int64_t v = 0, base = 10;
    double d;
    if (in.type == TV_UNDEFINED) return tpl_fail_undefined(r, in);
    if (!targ_int(r, "base", p[1], &base)) return false;
    if (base < 2 || base > 16) return tpl_fail(r, ERR_UNSUPPORTED, "int supports bases 2 to 16");
    if (in.type == TV_STRING && !tpl_charge(r, in.len / 16)) return false;
    bool ok = in.type == TV_STRING ? parse_int(tv_tstr(in), (int)base, &v) ||
                                         (base == 10 && parse_float(tv_tstr(in), &d) && float_to_int(d, &v))
              : in.type == TV_FLOAT ? float_to_int(in.u.f, &v)
                                    : tv_as_index(in, &v);
    *out = ok ? tv_int(v) : tv_absent(p[0]) ? tv_int(0) : p[0];
    return true;
}

static bool f_float(rt *r, tv *out, tv in, const targs *a, const tv *p) {
    double d = 0;
    if (in.type == TV_UNDEFINED) return tpl_fail_undefined(r, in);
    if (in.type == TV_STRING && !tpl_charge(r, in.len / 16)) return false;
    bool ok = in.type == TV_STRING ? parse_float(tv_tstr(in), &d) : tv_is_number(in);
    if (ok && in.type != TV_STRING) d = tv_number(in);
    *out = ok ? tv_float(d) : tv_absent(p[0]) ? tv_float(0) : p[0];
    return true;
}

static bool f_round(rt *r, tv *out, tv in, const targs *a, const tv *p) {
    int64_t digits = 0;
    if (in.type == TV_UNDEFINED) return tpl_fail_undefined(r, in);
    if (!tv_is_number(in)) return tpl_fail(r, ERR_INVALID, "round needs a number, not %s", tv_type_name(in));
    if (!targ_int(r, "precision", p[0], &digits)) return false;
    if (digits < 0 || digits > 300) return tpl_fail(r, ERR_UNSUPPORTED, "round supports a precision of 0 to 300");
    bool common = tv_absent(p[1]) || tv_str_is(p[1], "common"), up = tv_str_is(p[1], "ceil");
    if (!common && !up && !tv_str_is(p[1], "floor"))
        return tpl_fail(r, ERR_INVALID, "the method of round is common, ceil or floor");
    if (common && in.type != TV_FLOAT) {
        *out = in.type == TV_BOOL ? tv_int(in.u.b) : in;
        return true;
    }
    double d = tv_number(in), scale = 1;
    if (common && isfinite(d)) { /* the C library rounds the exact value, ties to even: as Python does */
        char text[700];
        snprintf(text, sizeof text, "%.*f", (int)digits, d);
        d = strtod(text, NULL);
    } else if (!common) {
        for (int64_t i = 0; i < digits; i++) scale *= 10;
        d = (up ? ceil(d * scale) : floor(d * scale)) / scale;
    }
    *out = tv_float(d);
    return true;
}

/* ---- any value ------------------------------------------------------------------------------------------- */

static bool f_default(rt *r, tv *out, tv in, const targs *a, const tv *p) {
    bool use = in.type == TV_UNDEFINED || (targ_bool(p[1], false) && !tv_truthy(in));
    *out = use ? (tv_absent(p[0]) ? tv_strn("", 0) : p[0]) : in;
    return true;
}

static bool f_length(rt *r, tv *out, tv in, const targs *a, const tv *p) {
    int64_t n;
    return tv_length(r, in, &n) && ((*out = tv_int(n)), true);
}

static bool f_attr(rt *r, tv *out, tv in, const targs *a, const tv *p) {
    tstr name;
    if (!text_of(r, p[0], &name)) return false;
    if (in.type != TV_DICT || tpl_method_find(TV_DICT, name)) return tpl_get_attr(r, out, in, name, NULL);
    *out = tv_undefined(TV_DICT, name.p, name.n); /* the keys of a dict are no attributes */
    return true;
}

const tfilter tpl_text_filters[] = {
    {"trim", f_trim, "chars?"},
    {"upper", f_upper, ""},
    {"lower", f_lower, ""},
    {"title", f_title, ""},
    {"capitalize", f_capitalize, ""},
    {"string", f_string, ""},
    {"safe", f_safe, ""},
    {"replace", f_replace, "old new count?"},
    {"escape", f_escape, ""},
    {"e", f_escape, ""},
    {"forceescape", f_escape, ""},
    {"indent", f_indent, "width? first? blank?"},
    {"format", f_format, NULL},
    {"center", f_center, "width?"},
    {"wordcount", f_wordcount, ""},
    {"urlencode", f_urlencode, ""},
    {"tojson", f_tojson, "ensure_ascii? indent? separators? sort_keys?"},
    {"abs", f_abs, ""},
    {"int", f_int, "default? base?"},
    {"float", f_float, "default?"},
    {"round", f_round, "precision? method?"},
    {"default", f_default, "default_value? boolean?"},
    {"d", f_default, "default_value? boolean?"},
    {"length", f_length, ""},
    {"count", f_length, ""},
    {"attr", f_attr, "name"},
    {0},
};

const tfilter *tpl_filter_find(tstr name) {
    for (const tfilter *f = tpl_text_filters; f->name; f++)
        if (tstr_is(name, f->name)) return f;
    for (const tfilter *f = tpl_list_filters; f->name; f++)
        if (tstr_is(name, f->name)) return f;
    return NULL;
}

bool tpl_filter_call(rt *r, tv *out, const tfilter *f, tv in, const targs *a) {
    tv p[TPL_BIND_MAX] = {{0}};
    if (f->spec && !targs_bind(r, f->name, a, f->spec, p)) return false;
    return f->fn(r, out, in, a, p);
}
