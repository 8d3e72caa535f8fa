/* template_text: values as text: str(), repr(), JSON as transformers' tojson writes it, printf-style formats, dates. */
#include "engine/template/template.h"

#include <math.h>
#include <utf8proc.h>

/* ---- numbers --------------------------------------------------------------------------------------------- */

/* repr(float): the shortest digits that read back, an exponent below 1e-4 and from 1e16 on. */
void tpl_print_float(buf *out, double f) {
    if (isnan(f) || isinf(f)) {
        buf_puts(out, isnan(f) ? "nan" : f > 0 ? "inf" : "-inf");
        return;
    }
    char text[40];
    for (int digits = 0; digits < 17; digits++) {
        snprintf(text, sizeof text, "%.*e", digits, f);
        if (strtod(text, NULL) == f) break;
    }
    char digit[24];
    int n = 0, exp = 0;
    const char *p = text;
    if (*p == '-') buf_putc(out, *p++);
    for (; *p && *p != 'e'; p++)
        if (*p != '.') digit[n++] = *p;
    if (*p) exp = (int)strtol(p + 1, NULL, 10);
    if (exp < -4 || exp >= 16) {
        buf_putc(out, digit[0]);
        if (n > 1) buf_putc(out, '.');
        buf_append(out, digit + 1, (size_t)(n - 1));
        buf_printf(out, "e%c%02d", exp < 0 ? '-' : '+', exp < 0 ? -exp : exp);
        return;
    }
    if (exp < 0) {
        buf_puts(out, "0.");
        for (int i = -1; i > exp; i--) buf_putc(out, '0');
        buf_append(out, digit, (size_t)n);
        return;
    }
    for (int i = 0; i <= exp; i++) buf_putc(out, i < n ? digit[i] : '0');
    buf_putc(out, '.');
    if (n > exp + 1)
        buf_append(out, digit + exp + 1, (size_t)(n - exp - 1));
    else
        buf_putc(out, '0');
}

/* ---- str and repr ---------------------------------------------------------------------------------------- */

static bool is_printable(uint32_t c) {
    if (c < 0x7F) return c >= 0x20;
    if (c >= 0xDC80 && c < 0xDD00) return false;
    switch (utf8proc_category((utf8proc_int32_t)c)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS: return false;
    default: return true;
    }
}

static void repr_string(buf *out, tstr s) {
    char quote = memchr(s.p, '\'', s.n) && !memchr(s.p, '"', s.n) ? '"' : '\'';
    buf_putc(out, quote);
    for (size_t i = 0, len; i < s.n; i += len) {
        uint32_t c = tpl_char_at(s.p + i, s.n - i, &len);
        if (c == (uint32_t)quote || c == '\\')
            buf_printf(out, "\\%c", (char)c);
        else if (c == '\n')
            buf_puts(out, "\\n");
        else if (c == '\r')
            buf_puts(out, "\\r");
        else if (c == '\t')
            buf_puts(out, "\\t");
        else if (is_printable(c))
            buf_append(out, s.p + i, len);
        else if (c < 0x100)
            buf_printf(out, "\\x%02x", c);
        else
            buf_printf(out, c < 0x10000 ? "\\u%04x" : "\\U%08x", c);
    }
    buf_putc(out, quote);
}

static bool repr_items(rt *r, buf *out, tv v, int depth) {
    const tv_list *l = v.u.list;
    bool tuple = v.type == TV_TUPLE;
    buf_putc(out, tuple ? '(' : '[');
    for (uint32_t i = 0; i < l->n; i++) {
        if (i) buf_puts(out, ", ");
        if (!tpl_repr(r, out, l->items[i], depth + 1)) return false;
    }
    if (tuple && l->n == 1) buf_putc(out, ',');
    buf_putc(out, tuple ? ')' : ']');
    return true;
}

static bool repr_dict(rt *r, buf *out, const tv_dict *d, int depth) {
    buf_putc(out, '{');
    for (uint32_t i = 0; i < d->n; i++) {
        if (i) buf_puts(out, ", ");
        if (!tpl_repr(r, out, d->e[i].key, depth + 1)) return false;
        buf_puts(out, ": ");
        if (!tpl_repr(r, out, d->e[i].val, depth + 1)) return false;
    }
    buf_putc(out, '}');
    return true;
}

bool tpl_repr(rt *r, buf *out, tv v, int depth) {
    if (!tpl_charge(r, 1)) return false;
    if (depth > TPL_VALUE_DEPTH_MAX) return tpl_fail(r, ERR_TOO_LARGE, "the value printed is nested too deep");
    if (out->failed) return true; /* found out by whoever owns the buffer */
    switch ((tv_type)v.type) {
    case TV_ABSENT: break;
    case TV_UNDEFINED: buf_puts(out, "Undefined"); break;
    case TV_NONE: buf_puts(out, "None"); break;
    case TV_BOOL: buf_puts(out, v.u.b ? "True" : "False"); break;
    case TV_INT: buf_printf(out, "%lld", (long long)v.u.i); break;
    case TV_FLOAT: tpl_print_float(out, v.u.f); break;
    case TV_STRING: repr_string(out, tv_tstr(v)); return tpl_charge(r, v.len / 16);
    case TV_LIST:
    case TV_TUPLE: return repr_items(r, out, v, depth);
    case TV_DICT: return repr_dict(r, out, v.u.dict, depth);
    case TV_GENERATOR:
        if (!v.u.gen->view) {
            buf_puts(out, "<generator object>");
            break;
        }
        buf_printf(out, "%s(", v.u.gen->view);
        if (!repr_items(r, out, (tv){.type = TV_LIST, .u.list = (tv_list *)v.u.gen->list}, depth)) return false;
        buf_putc(out, ')');
        break;
    case TV_MACRO: buf_printf(out, "<Macro '%.*s'>", (int)v.u.macro->def->name.n, v.u.macro->def->name.p); break;
    default: buf_printf(out, "<%s>", tv_type_name(v)); break;
    }
    return true;
}

bool tpl_print(rt *r, buf *out, tv v) {
    if (v.type == TV_UNDEFINED) return true;
    if (v.type != TV_STRING) return tpl_repr(r, out, v, 0);
    buf_append(out, v.u.s, v.len);
    return tpl_charge(r, v.len / 64);
}

bool tpl_to_string(rt *r, tv *out, tv v) {
    if (v.type == TV_STRING) {
        *out = v;
        return true;
    }
    buf b = {.max = TPL_STRING_MAX};
    if (tpl_print(r, &b, v)) return tv_take_buf(r, out, &b);
    buf_free(&b);
    return false;
}

/* ---- JSON ------------------------------------------------------------------------------------------------ */

/* One character that JSON writes in another way. */
static void json_escape(buf *out, uint32_t c) {
    static const char from[] = "\"\\\n\r\t\f\b", to[] = "\"\\nrtfb";
    const char *hit = c && c < 0x80 ? strchr(from, (char)c) : NULL;
    if (hit)
        buf_append(out, (const char[]){'\\', to[hit - from]}, 2);
    else if (c < 0x10000)
        buf_printf(out, "\\u%04x", c);
    else
        buf_printf(out, "\\u%04x\\u%04x", 0xD800 + ((c - 0x10000) >> 10), 0xDC00 + (c & 0x3FF));
}

static void json_text(buf *out, tstr s, bool ascii) {
    size_t from = 0;
    buf_putc(out, '"');
    for (size_t i = 0, len; i < s.n && !out->failed; i += len) {
        uint32_t c = (uint8_t)s.p[i];
        len = 1;
        if (c >= 0x20 && c < 0x7F && c != '"' && c != '\\') continue;
        c = tpl_char_at(s.p + i, s.n - i, &len);
        if (c >= 0x20 && c != '"' && c != '\\' && !(ascii && c >= 0x7F)) continue;
        buf_append(out, s.p + from, i - from);
        json_escape(out, c);
        from = i + len;
    }
    buf_append(out, s.p + from, s.n - from);
    buf_putc(out, '"');
}

static void json_break(buf *out, const json_style *st, int depth) {
    if (!st->indented) return;
    buf_putc(out, '\n');
    for (int i = 0; i < depth; i++) buf_append(out, st->indent.p, st->indent.n);
}

static bool json_key(rt *r, buf *out, tv k, const json_style *st) {
    if (k.type == TV_STRING) {
        json_text(out, tv_tstr(k), st->ascii);
        return true;
    }
    buf_putc(out, '"');
    bool ok = tpl_to_json(r, out, k, st, 0);
    buf_putc(out, '"');
    return ok;
}

/* The order of a dict's entries: as they are, or by key. */
static bool json_order(rt *r, const tv_dict *d, bool sorted, uint32_t **out) {
    uint32_t *order = tpl_alloc(r, (d->n + 1) * sizeof *order);
    if (!order) return false;
    for (uint32_t i = 0; i < d->n; i++) {
        uint32_t at = i;
        int c = 1;
        while (sorted && at > 0) { /* insertion from the end: JSON objects mostly come in order */
            if (!tv_compare(r, d->e[order[at - 1]].key, d->e[i].key, &c)) return false;
            if (c != 1) break;
            order[at] = order[at - 1];
            at--;
        }
        order[at] = i;
    }
    *out = order;
    return true;
}

static bool json_dict(rt *r, buf *out, const tv_dict *d, const json_style *st, int depth) {
    uint32_t *order = NULL;
    if (!json_order(r, d, st->sort_keys, &order)) return false;
    buf_putc(out, '{');
    for (uint32_t i = 0; i < d->n; i++) {
        if (i) buf_append(out, st->comma.p, st->comma.n);
        json_break(out, st, depth + 1);
        if (!json_key(r, out, d->e[order[i]].key, st)) return false;
        buf_append(out, st->colon.p, st->colon.n);
        if (!tpl_to_json(r, out, d->e[order[i]].val, st, depth + 1)) return false;
    }
    if (d->n) json_break(out, st, depth);
    buf_putc(out, '}');
    return true;
}

static bool json_list(rt *r, buf *out, const tv_list *l, const json_style *st, int depth) {
    buf_putc(out, '[');
    for (uint32_t i = 0; i < l->n; i++) {
        if (i) buf_append(out, st->comma.p, st->comma.n);
        json_break(out, st, depth + 1);
        if (!tpl_to_json(r, out, l->items[i], st, depth + 1)) return false;
    }
    if (l->n) json_break(out, st, depth);
    buf_putc(out, ']');
    return true;
}

bool tpl_to_json(rt *r, buf *out, tv v, const json_style *st, int depth) {
    if (!tpl_charge(r, 1)) return false;
    if (depth > TPL_VALUE_DEPTH_MAX) return tpl_fail(r, ERR_TOO_LARGE, "the value for tojson is nested too deep");
    if (out->failed) return true;
    switch ((tv_type)v.type) {
    case TV_UNDEFINED: return tpl_fail_undefined(r, v);
    case TV_NONE: buf_puts(out, "null"); return true;
    case TV_BOOL: buf_puts(out, v.u.b ? "true" : "false"); return true;
    case TV_INT: buf_printf(out, "%lld", (long long)v.u.i); return true;
    case TV_FLOAT:
        if (isnan(v.u.f))
            buf_puts(out, "NaN");
        else if (isinf(v.u.f))
            buf_puts(out, v.u.f > 0 ? "Infinity" : "-Infinity");
        else
            tpl_print_float(out, v.u.f);
        return true;
    case TV_STRING: json_text(out, tv_tstr(v), st->ascii); return tpl_charge(r, v.len / 16);
    case TV_LIST:
    case TV_TUPLE: return json_list(r, out, v.u.list, st, depth);
    case TV_DICT: return json_dict(r, out, v.u.dict, st, depth);
    default: return tpl_fail(r, ERR_INVALID, "a value of type %s has no JSON", tv_type_name(v));
    }
}

/* ---- printf-style formats -------------------------------------------------------------------------------- */

typedef struct spec {
    char flags[6];
    int width, precision; /* precision -1: none */
    char conv;
} spec;

static bool spec_number(rt *r, tstr f, size_t *i, int *out) {
    *out = 0;
    for (; *i < f.n && f.p[*i] >= '0' && f.p[*i] <= '9'; ++*i) {
        *out = *out * 10 + (f.p[*i] - '0');
        if (*out > 1000) return tpl_fail(r, ERR_TOO_LARGE, "a width or precision past 1000");
    }
    return true;
}

/* %[(name)][flags][width][.precision]conversion; *i after the %. */
static bool parse_spec(rt *r, tstr f, size_t *i, spec *s, tstr *name) {
    *s = (spec){.precision = -1};
    *name = (tstr){NULL, 0};
    if (*i < f.n && f.p[*i] == '(') {
        size_t from = ++*i;
        while (*i < f.n && f.p[*i] != ')') ++*i;
        *name = (tstr){f.p + from, (uint32_t)(*i - from)};
        if (*i < f.n) ++*i;
    }
    for (size_t k = 0; *i < f.n && f.p[*i] && strchr("-+ #0", f.p[*i]); ++*i)
        if (k < sizeof s->flags - 1 && !strchr(s->flags, f.p[*i])) s->flags[k++] = f.p[*i];
    if (!spec_number(r, f, i, &s->width)) return false;
    if (*i < f.n && f.p[*i] == '.') {
        ++*i;
        if (!spec_number(r, f, i, &s->precision)) return false;
    }
    if (*i >= f.n) return tpl_fail(r, ERR_INVALID, "the format ends in the middle of a %% conversion");
    s->conv = f.p[(*i)++];
    return true;
}

static bool print_text_spec(rt *r, buf *out, const spec *s, tv v) {
    tv text;
    buf b = {.max = TPL_STRING_MAX};
    bool ok = s->conv == 'r' ? tpl_repr(r, &b, v, 0) : tpl_print(r, &b, v);
    if (!ok) {
        buf_free(&b);
        return false;
    }
    if (!tv_take_buf(r, &text, &b)) return false;
    if (s->precision >= 0) text.len = (uint32_t)tpl_byte_offset(text.u.s, text.len, (size_t)s->precision);
    size_t chars = tpl_count_chars(text.u.s, text.len);
    bool left = strchr(s->flags, '-') != NULL;
    for (size_t i = chars; !left && i < (size_t)s->width; i++) buf_putc(out, ' ');
    buf_append(out, text.u.s, text.len);
    for (size_t i = chars; left && i < (size_t)s->width; i++) buf_putc(out, ' ');
    return true;
}

static bool print_number_spec(rt *r, buf *out, const spec *s, tv v) {
    if (v.type == TV_UNDEFINED) return tpl_fail_undefined(r, v);
    if (!tv_is_number(v))
        return tpl_fail(r, ERR_INVALID, "the conversion %%%c needs a number, not %s", s->conv, tv_type_name(v));
    char flags[6] = "", fmt[32];
    memcpy(flags, s->flags, sizeof flags);
    char *hash = strchr(flags, '#');
    if (hash) return tpl_fail(r, ERR_UNSUPPORTED, "the flag # of a %% conversion is not supported");
    if (strchr("eEfFgG", s->conv)) {
        snprintf(fmt, sizeof fmt, "%%%s*.*%c", flags, s->conv);
        char text[1500];
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral" /* built three lines above from checked parts */
        int n = snprintf(text, sizeof text, fmt, s->width, s->precision < 0 ? 6 : s->precision, tv_number(v));
#pragma GCC diagnostic pop
        buf_append(out, text, n < (int)sizeof text ? (size_t)n : sizeof text - 1);
        return true;
    }
    double d = tv_number(v);
    if (v.type == TV_FLOAT && !(d > -9.2e18 && d < 9.2e18))
        return tpl_fail(r, ERR_UNSUPPORTED, "the number is past 64-bit integers");
    int64_t i = v.type == TV_FLOAT ? (int64_t)d : v.type == TV_INT ? v.u.i : v.u.b;
    bool decimal = strchr("diu", s->conv) != NULL;
    uint64_t mag = i < 0 ? 0 - (uint64_t)i : (uint64_t)i;
    char digits[32], sign = i < 0 ? '-' : strchr(flags, '+') ? '+' : strchr(flags, ' ') ? ' ' : 0;
    int n = snprintf(digits, sizeof digits,
                     decimal          ? "%llu"
                     : s->conv == 'x' ? "%llx"
                     : s->conv == 'X' ? "%llX"
                                      : "%llo",
                     (unsigned long long)mag);
    int zeros = s->precision > n ? s->precision - n : 0, used = n + zeros + (sign != 0),
        fill = s->width > used ? s->width - used : 0;
    bool left = strchr(flags, '-') != NULL, zero = !left && strchr(flags, '0') != NULL;
    for (int k = 0; !left && !zero && k < fill; k++) buf_putc(out, ' ');
    if (sign) buf_putc(out, sign);
    for (int k = 0; k < zeros + (zero ? fill : 0); k++) buf_putc(out, '0');
    buf_append(out, digits, (size_t)n);
    for (int k = 0; left && k < fill; k++) buf_putc(out, ' ');
    return true;
}

static bool print_spec(rt *r, buf *out, const spec *s, tv v) {
    if (s->conv == 's' || s->conv == 'r') return print_text_spec(r, out, s, v);
    if (s->conv == 'c' && v.type == TV_STRING) return print_text_spec(r, out, s, v);
    if (s->conv && strchr("diuxXoeEfFgG", s->conv)) return print_number_spec(r, out, s, v);
    return tpl_fail(r, ERR_UNSUPPORTED, "the conversion %%%c is not supported", s->conv);
}

/* `lenient`: the one argument is something with items, which Python takes for names: it need not be used. */
static bool printf_into(rt *r, buf *out, tstr f, const tv *args, uint32_t n, const tv_dict *named, bool lenient) {
    uint32_t next = 0;
    for (size_t i = 0; i < f.n;) {
        if (f.p[i] != '%') {
            buf_putc(out, f.p[i++]);
            continue;
        }
        spec s;
        tstr name;
        i++;
        if (!parse_spec(r, f, &i, &s, &name)) return false;
        if (s.conv == '%') {
            buf_putc(out, '%');
            continue;
        }
        tv v = tv_of(TV_ABSENT);
        if (name.p && named) {
            if (!tv_dict_get_str(r, named, name, &v)) return false;
        } else if (!name.p && next < n) {
            v = args[next++];
        }
        if (tv_absent(v)) return tpl_fail(r, ERR_INVALID, "the format asks for an argument that is not given");
        if (!print_spec(r, out, &s, v)) return false;
    }
    if (!named && !lenient && next < n) return tpl_fail(r, ERR_INVALID, "the format does not use all its arguments");
    return tpl_charge(r, f.n / 16);
}

bool tpl_printf(rt *r, tv *out, tstr fmt, const tv *args, uint32_t n, const tv_dict *named, bool lenient) {
    buf b = {.max = TPL_STRING_MAX};
    if (printf_into(r, &b, fmt, args, n, named, lenient)) return tv_take_buf(r, out, &b);
    buf_free(&b);
    return false;
}

/* ---- dates ----------------------------------------------------------------------------------------------- */

typedef struct utc {
    int64_t year;
    int month, day, hour, minute, second, micro; /* month, day from 1 */
    int weekday, yearday;                        /* Sunday 0, January 1st 0 */
    int64_t unix_s;
} utc;

/* Civil date of days since 1970-01-01 (proleptic Gregorian), counted in 400-year eras that begin on March 1st. */
static void utc_of(utc *u, int64_t unix_ms) {
    int64_t s = unix_ms / 1000, ms = unix_ms % 1000;
    if (ms < 0) ms += 1000, s--;
    int64_t days = s / 86400, in_day = s % 86400;
    if (in_day < 0) in_day += 86400, days--;
    int64_t z = days + 719468, era = (z >= 0 ? z : z - 146096) / 146097, doe = z - era * 146097;
    int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100), mp = (5 * doy + 2) / 153;
    u->day = (int)(doy - (153 * mp + 2) / 5 + 1);
    u->month = (int)(mp < 10 ? mp + 3 : mp - 9);
    u->year = yoe + era * 400 + (u->month <= 2);
    bool leap = (u->year % 4 == 0 && u->year % 100 != 0) || u->year % 400 == 0;
    static const int before[] = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334};
    u->yearday = before[u->month - 1] + u->day - 1 + (leap && u->month > 2);
    u->weekday = (int)(((days + 4) % 7 + 7) % 7);
    u->hour = (int)(in_day / 3600);
    u->minute = (int)(in_day / 60 % 60);
    u->second = (int)(in_day % 60);
    u->micro = (int)ms * 1000;
    u->unix_s = s;
}

/* Week of the year and the year it belongs to, by ISO 8601. */
static void iso_week(const utc *u, int64_t *year, int *week) {
    int wd = (u->weekday + 6) % 7, w = (u->yearday - wd + 10) / 7;
    int64_t y = u->year;
    if (w < 1) {
        y--;
        bool leap = (y % 4 == 0 && y % 100 != 0) || y % 400 == 0;
        w = (u->yearday + 365 + leap - wd + 10) / 7;
    } else if (w == 53) {
        bool leap = (y % 4 == 0 && y % 100 != 0) || y % 400 == 0;
        if (u->yearday - wd + 3 >= 365 + leap) w = 1, y++;
    }
    *year = y;
    *week = w;
}

static const char *const day_names[] = {"Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"};
static const char *const month_names[] = {"January", "February", "March",     "April",   "May",      "June",
                                          "July",    "August",   "September", "October", "November", "December"};

static void number(buf *out, int64_t v, int width, char flag, char pad) {
    if (flag == '-') width = 1;
    if (flag == '_') pad = ' ';
    if (flag == '0') pad = '0';
    if (pad == ' ')
        buf_printf(out, "%*lld", width, (long long)v);
    else
        buf_printf(out, "%0*lld", width, (long long)v);
}

static bool strftime_into(rt *r, buf *out, const utc *u, tstr f, int depth);
static bool shorthand(rt *r, buf *out, const utc *u, const char *f, int depth) {
    return strftime_into(r, out, u, (tstr){f, (uint32_t)strlen(f)}, depth + 1);
}

static bool date_code(rt *r, buf *out, const utc *u, char c, char flag, int depth) {
    int64_t iso_year;
    int week, hour12 = u->hour % 12 ? u->hour % 12 : 12;
    iso_week(u, &iso_year, &week);
    switch (c) {
    case 'Y': number(out, u->year, 1, flag, '0'); break;
    case 'y': number(out, u->year % 100, 2, flag, '0'); break;
    case 'C': number(out, u->year / 100, 2, flag, '0'); break;
    case 'm': number(out, u->month, 2, flag, '0'); break;
    case 'd': number(out, u->day, 2, flag, '0'); break;
    case 'e': number(out, u->day, 2, flag, ' '); break;
    case 'H': number(out, u->hour, 2, flag, '0'); break;
    case 'k': number(out, u->hour, 2, flag, ' '); break;
    case 'I': number(out, hour12, 2, flag, '0'); break;
    case 'l': number(out, hour12, 2, flag, ' '); break;
    case 'M': number(out, u->minute, 2, flag, '0'); break;
    case 'S': number(out, u->second, 2, flag, '0'); break;
    case 'f': number(out, u->micro, 6, 0, '0'); break;
    case 'j': number(out, u->yearday + 1, 3, flag, '0'); break;
    case 's': number(out, u->unix_s, 1, flag, '0'); break;
    case 'u': number(out, u->weekday ? u->weekday : 7, 1, flag, '0'); break;
    case 'w': number(out, u->weekday, 1, flag, '0'); break;
    case 'U': number(out, (u->yearday + 7 - u->weekday) / 7, 2, flag, '0'); break;
    case 'W': number(out, (u->yearday + 7 - (u->weekday + 6) % 7) / 7, 2, flag, '0'); break;
    case 'V': number(out, week, 2, flag, '0'); break;
    case 'G': number(out, iso_year, 1, flag, '0'); break;
    case 'g': number(out, iso_year % 100, 2, flag, '0'); break;
    case 'A': buf_puts(out, day_names[u->weekday]); break;
    case 'a': buf_append(out, day_names[u->weekday], 3); break;
    case 'B': buf_puts(out, month_names[u->month - 1]); break;
    case 'b':
    case 'h': buf_append(out, month_names[u->month - 1], 3); break;
    case 'p': buf_puts(out, u->hour < 12 ? "AM" : "PM"); break;
    case 'P': buf_puts(out, u->hour < 12 ? "am" : "pm"); break;
    case 'Z':
    case 'z': break; /* as for Python's naive datetime */
    case 'n': buf_putc(out, '\n'); break;
    case 't': buf_putc(out, '\t'); break;
    case '%': buf_putc(out, '%'); break;
    case 'D':
    case 'x': return shorthand(r, out, u, "%m/%d/%y", depth);
    case 'F': return shorthand(r, out, u, "%Y-%m-%d", depth);
    case 'T':
    case 'X': return shorthand(r, out, u, "%H:%M:%S", depth);
    case 'R': return shorthand(r, out, u, "%H:%M", depth);
    case 'r': return shorthand(r, out, u, "%I:%M:%S %p", depth);
    case 'c': return shorthand(r, out, u, "%a %b %e %H:%M:%S %Y", depth);
    default: return tpl_fail(r, ERR_UNSUPPORTED, "strftime_now does not support %%%c", c);
    }
    return true;
}

static bool strftime_into(rt *r, buf *out, const utc *u, tstr f, int depth) {
    for (size_t i = 0; i < f.n; i++) {
        if (f.p[i] != '%' || i + 1 == f.n) {
            buf_putc(out, f.p[i]);
            continue;
        }
        char flag = 0;
        if (strchr("-_0", f.p[i + 1]) && f.p[i + 1] && i + 2 < f.n) flag = f.p[++i];
        if (!date_code(r, out, u, f.p[++i], flag, depth)) return false;
    }
    return true;
}

bool tpl_strftime(rt *r, tv *out, tstr fmt) {
    utc u;
    if (!tpl_charge_bytes(r, fmt.n)) return false;
    int64_t limit = INT64_C(253402300799999); /* the end of the year 9999 */
    utc_of(&u, r->now_ms > limit ? limit : r->now_ms < -limit ? -limit : r->now_ms);
    buf b = {.max = 65536};
    if (strftime_into(r, &b, &u, fmt, 0)) return tv_take_buf(r, out, &b);
    buf_free(&b);
    return false;
}
