/* template_methods: what strings, dicts and lists can be asked to do, as Python names it.
 *
 * Methods that change their object are refused, as transformers' immutable sandbox does. */
#include "engine/template/template.h"

#include <utf8proc.h>

static bool need_string(rt *r, const char *what, tv v) {
    if (v.type == TV_STRING) return true;
    if (v.type == TV_UNDEFINED) return tpl_fail_undefined(r, v);
    return tpl_fail(r, ERR_INVALID, "%s needs a string, not %s", what, tv_type_name(v));
}

/* ---- strings --------------------------------------------------------------------------------------------- */

static bool strip(rt *r, tv *out, tv self, const tv *p, bool left, bool right) {
    if (!tv_absent(*p) && p->type != TV_NONE && !need_string(r, "strip", *p)) return false;
    tstr s;
    if (!tpl_strip_paid(r, &s, tv_tstr(self), p, left, right)) return false;
    *out = tv_strn(s.p, s.n);
    return true;
}
static bool m_strip(rt *r, tv *out, tv self, const targs *a, const tv *p) {
    return strip(r, out, self, p, true, true);
}
static bool m_lstrip(rt *r, tv *out, tv self, const targs *a, const tv *p) {
    return strip(r, out, self, p, true, false);
}
static bool m_rstrip(rt *r, tv *out, tv self, const targs *a, const tv *p) {
    return strip(r, out, self, p, false, true);
}

static bool m_upper(rt *r, tv *out, tv self, const targs *a, const tv *p) {
    return tpl_change_case(r, out, tv_tstr(self), CASE_UPPER);
}
static bool m_lower(rt *r, tv *out, tv self, const targs *a, const tv *p) {
    return tpl_change_case(r, out, tv_tstr(self), CASE_LOWER);
}
static bool m_title(rt *r, tv *out, tv self, const targs *a, const tv *p) {
    return tpl_change_case(r, out, tv_tstr(self), CASE_TITLE);
}
static bool m_capitalize(rt *r, tv *out, tv self, const targs *a, const tv *p) {
    return tpl_change_case(r, out, tv_tstr(self), CASE_CAPITALIZE);
}
static bool m_swapcase(rt *r, tv *out, tv self, const targs *a, const tv *p) {
    return tpl_change_case(r, out, tv_tstr(self), CASE_SWAP);
}

/* The next place, from `at` on or before it, where s is cut; false where none. */
typedef struct cut {
    size_t from, to;
} cut;

static bool next_cut(tstr s, const tv *sep, size_t at, cut *c) {
    if (sep->type == TV_STRING) {
        const char *hit = at <= s.n ? memmem(s.p + at, s.n - at, sep->u.s, sep->len) : NULL;
        if (!hit) return false;
        *c = (cut){(size_t)(hit - s.p), (size_t)(hit - s.p) + sep->len};
        return true;
    }
    for (size_t len; at < s.n; at += len) {
        if (!tpl_is_space(tpl_char_at(s.p + at, s.n - at, &len))) continue;
        c->from = at;
        for (c->to = at; c->to < s.n && tpl_is_space(tpl_char_at(s.p + c->to, s.n - c->to, &len));) c->to += len;
        return true;
    }
    return false;
}

/* Where sep, which is not empty, begins for the last time in s[0, end). The comparisons of a long one are paid for as
 * they are made: there may be as many as there are bytes. */
static bool last_sep(rt *r, tstr s, const tv *sep, size_t end, cut *c) {
    if (sep->len > end) return false;
    for (size_t i = end - sep->len + 1; i-- > 0;) {
        if (s.p[i] != sep->u.s[0]) continue;
        if (!tpl_charge_bytes(r, sep->len)) return false;
        if (memcmp(s.p + i, sep->u.s, sep->len) != 0) continue;
        *c = (cut){i, i + sep->len};
        return true;
    }
    return false;
}

/* The last cut that ends at or before `end`; false where none, or after tpl_fail. */
static bool last_cut(rt *r, tstr s, const tv *sep, size_t end, cut *c) {
    if (sep->type == TV_STRING) return last_sep(r, s, sep, end, c);
    tstr head = {s.p, (uint32_t)end};
    while (head.n && tpl_strip(head, NULL, false, true).n == head.n) { /* back over what is no white space */
        head.n--;
        while (head.n && ((uint8_t)s.p[head.n] & 0xC0) == 0x80) head.n--;
    }
    if (!head.n) return false;
    *c = (cut){tpl_strip(head, NULL, false, true).n, head.n};
    return true;
}

static bool split_args(rt *r, tv self, const tv *p, int64_t *max, tstr *s) {
    *max = -1;
    *s = tv_tstr(self);
    if (!targ_int(r, "maxsplit", p[1], max)) return false;
    if (p[0].type == TV_ABSENT || p[0].type == TV_NONE) return true;
    if (!need_string(r, "split", p[0])) return false;
    return p[0].len > 0 || tpl_fail(r, ERR_INVALID, "split cannot cut at an empty string");
}

static bool add_part(rt *r, tv **parts, uint32_t *n, uint32_t *cap, const char *s, size_t len) {
    if (*n == *cap) {
        if (*n >= TPL_LIST_MAX) return tpl_fail(r, ERR_TOO_LARGE, "a list grew past %u items", TPL_LIST_MAX);
        uint32_t bigger = *cap ? *cap * 2 : 8;
        tv *more = tpl_alloc(r, bigger * sizeof *more);
        if (!more) return false;
        if (*n) memcpy(more, *parts, *n * sizeof *more);
        *parts = more;
        *cap = bigger;
    }
    (*parts)[(*n)++] = tv_strn(s, len);
    return true;
}

static bool parts_list(rt *r, tv *out, tv *parts, uint32_t n, size_t bytes) {
    if (!tv_list_new(r, out, TV_LIST, 0)) return false;
    out->u.list->items = parts;
    out->u.list->n = n;
    return tpl_charge(r, n / 4 + bytes / 64);
}

static bool m_split(rt *r, tv *out, tv self, const targs *a, const tv *p) {
    int64_t max;
    tstr s;
    if (!split_args(r, self, p, &max, &s)) return false;
    bool words = p[0].type != TV_STRING;
    if (words) s = tpl_strip(s, NULL, true, max < 0);
    tv *parts = NULL;
    uint32_t n = 0, cap = 0;
    size_t at = 0;
    cut c;
    if (words && !s.n) return parts_list(r, out, NULL, 0, self.len);
    for (; max != 0 && next_cut(s, p, at, &c); max--) {
        if (words && c.to == s.n) break; /* white space at the very end cuts nothing off */
        if (!add_part(r, &parts, &n, &cap, s.p + at, c.from - at)) return false;
        at = c.to;
    }
    if (words && max != 0) s = tpl_strip(s, NULL, false, true);
    return add_part(r, &parts, &n, &cap, s.p + at, s.n - at) && parts_list(r, out, parts, n, self.len);
}

static bool m_rsplit(rt *r, tv *out, tv self, const targs *a, const tv *p) {
    int64_t max;
    tstr s;
    if (!split_args(r, self, p, &max, &s)) return false;
    if (max < 0) return m_split(r, out, self, a, p);
    bool words = p[0].type != TV_STRING;
    if (words) s = tpl_strip(s, NULL, false, true);
    tv *parts = NULL;
    uint32_t n = 0, cap = 0;
    size_t end = s.n;
    cut c;
    if (words && !s.n) return parts_list(r, out, NULL, 0, self.len);
    for (; max > 0 && last_cut(r, s, p, end, &c); max--) {
        if (words && c.from == 0) break;
        if (!add_part(r, &parts, &n, &cap, s.p + c.to, end - c.to)) return false;
        end = c.from;
    }
    size_t from = words && max != 0 ? (size_t)(tpl_strip((tstr){s.p, (uint32_t)end}, NULL, true, false).p - s.p) : 0;
    if (!add_part(r, &parts, &n, &cap, s.p + from, end - from)) return false;
    for (uint32_t i = 0; i < n / 2; i++) { /* they were found from the end */
        tv t = parts[i];
        parts[i] = parts[n - 1 - i];
        parts[n - 1 - i] = t;
    }
    return parts_list(r, out, parts, n, self.len);
}

static bool m_splitlines(rt *r, tv *out, tv self, const targs *a, const tv *p) {
    return tpl_split_lines(r, out, tv_tstr(self), targ_bool(p[0], false));
}

static bool partition(rt *r, tv *out, tv self, const tv *p, bool last) {
    cut c;
    tstr s = tv_tstr(self);
    if (!need_string(r, "partition", p[0])) return false;
    if (!p[0].len) return tpl_fail(r, ERR_INVALID, "partition cannot cut at an empty string");
    bool found = last ? last_cut(r, s, p, s.n, &c) : next_cut(s, p, 0, &c);
    if (!tv_list_new(r, out, TV_TUPLE, 3)) return false;
    tv *parts = out->u.list->items;
    for (int i = 0; i < 3; i++) parts[i] = tv_strn("", 0);
    if (!found) {
        parts[last ? 2 : 0] = self;
    } else {
        parts[0] = tv_strn(s.p, c.from);
        parts[1] = p[0];
        parts[2] = tv_strn(s.p + c.to, s.n - c.to);
    }
    return tpl_charge(r, s.n / 64);
}
static bool m_partition(rt *r, tv *out, tv self, const targs *a, const tv *p) {
    return partition(r, out, self, p, false);
}
static bool m_rpartition(rt *r, tv *out, tv self, const targs *a, const tv *p) {
    return partition(r, out, self, p, true);
}

/* [start, end) in characters, as slices count, to bytes of s. */
static bool sub_range(rt *r, tv self, tv start, tv end, tstr *s, int64_t *first) {
    *s = tv_tstr(self);
    *first = 0;
    int64_t n = 0, from = 0, to = INT64_MAX;
    if (start.type <= TV_NONE && end.type <= TV_NONE) return true;
    n = (int64_t)tpl_count_chars(s->p, s->n);
    if (start.type != TV_NONE && !targ_int(r, "start", start, &from)) return false;
    if (end.type != TV_NONE && !targ_int(r, "end", end, &to)) return false;
    if (from < 0) from = from < -n ? 0 : from + n;
    if (to < 0) to = to < -n ? 0 : to + n;
    if (to > n) to = n;
    if (from > to) {
        *s = (tstr){NULL, 0}; /* not even the empty string is in there */
        return true;
    }
    size_t b = tpl_byte_offset(s->p, s->n, (size_t)from), e = tpl_byte_offset(s->p, s->n, (size_t)to);
    *s = (tstr){s->p + b, (uint32_t)(e - b)};
    *first = from;
    return tpl_charge(r, self.len / 16);
}

static bool has_affix(rt *r, tstr s, tv affix, bool at_end) {
    if (!s.p || affix.len > s.n || !tpl_charge_bytes(r, affix.len)) return false;
    return memcmp(at_end ? s.p + s.n - affix.len : s.p, affix.u.s, affix.len) == 0;
}

static bool affix(rt *r, tv *out, tv self, const tv *p, bool at_end) {
    tstr s;
    int64_t first;
    *out = tv_bool(false);
    if (!sub_range(r, self, p[1], p[2], &s, &first)) return false;
    if (p[0].type == TV_TUPLE) {
        for (uint32_t i = 0; i < p[0].u.list->n; i++) {
            tv one = p[0].u.list->items[i];
            if (!need_string(r, at_end ? "endswith" : "startswith", one)) return false;
            if (has_affix(r, s, one, at_end)) *out = tv_bool(true);
        }
        return true;
    }
    if (!need_string(r, at_end ? "endswith" : "startswith", p[0])) return false;
    *out = tv_bool(has_affix(r, s, p[0], at_end));
    return true;
}
static bool m_startswith(rt *r, tv *out, tv self, const targs *a, const tv *p) {
    return affix(r, out, self, p, false);
}
static bool m_endswith(rt *r, tv *out, tv self, const targs *a, const tv *p) {
    return affix(r, out, self, p, true);
}

static bool m_removeprefix(rt *r, tv *out, tv self, const targs *a, const tv *p) {
    if (!need_string(r, "removeprefix", p[0])) return false;
    *out = self;
    if (has_affix(r, tv_tstr(self), p[0], false)) *out = tv_strn(self.u.s + p[0].len, self.len - p[0].len);
    return true;
}
static bool m_removesuffix(rt *r, tv *out, tv self, const targs *a, const tv *p) {
    if (!need_string(r, "removesuffix", p[0])) return false;
    *out = self;
    if (has_affix(r, tv_tstr(self), p[0], true)) *out = tv_strn(self.u.s, self.len - p[0].len);
    return true;
}

static bool find(rt *r, tv *out, tv self, const tv *p, bool last, bool must) {
    tstr s;
    int64_t first;
    cut c;
    if (!need_string(r, "find", p[0]) || !sub_range(r, self, p[1], p[2], &s, &first)) return false;
    bool found = s.p && (p[0].len == 0 || (last ? last_cut(r, s, p, s.n, &c) : next_cut(s, p, 0, &c)));
    if (found && p[0].len == 0) c = (cut){last ? s.n : 0, 0};
    if (!found && must) return tpl_fail(r, ERR_INVALID, "index: the string does not contain what is looked for");
    *out = tv_int(found ? first + (int64_t)tpl_count_chars(s.p, c.from) : -1);
    return tpl_charge(r, s.n / 32);
}
static bool m_find(rt *r, tv *out, tv self, const targs *a, const tv *p) {
    return find(r, out, self, p, false, false);
}
static bool m_rfind(rt *r, tv *out, tv self, const targs *a, const tv *p) {
    return find(r, out, self, p, true, false);
}
static bool m_index(rt *r, tv *out, tv self, const targs *a, const tv *p) {
    return find(r, out, self, p, false, true);
}
static bool m_rindex(rt *r, tv *out, tv self, const targs *a, const tv *p) {
    return find(r, out, self, p, true, true);
}

static bool m_count(rt *r, tv *out, tv self, const targs *a, const tv *p) {
    int64_t n = 0;
    cut c;
    if (!need_string(r, "count", p[0])) return false;
    if (!p[0].len) n = (int64_t)tpl_count_chars(self.u.s, self.len) + 1;
    for (size_t at = 0; p[0].len && next_cut(tv_tstr(self), p, at, &c); n++) at = c.to;
    *out = tv_int(n);
    return tpl_charge(r, self.len / 32);
}

static bool m_replace(rt *r, tv *out, tv self, const targs *a, const tv *p) {
    int64_t count = -1;
    if (!need_string(r, "replace", p[0]) || !need_string(r, "replace", p[1]) || !targ_int(r, "count", p[2], &count))
        return false;
    return tpl_replace(r, out, tv_tstr(self), tv_tstr(p[0]), tv_tstr(p[1]), count);
}

static bool m_join(rt *r, tv *out, tv self, const targs *a, const tv *p) {
    tv items;
    if (!tv_to_list(r, p[0], &items)) return false;
    buf b = {.max = TPL_STRING_MAX};
    for (uint32_t i = 0; i < items.u.list->n; i++) {
        tv item = items.u.list->items[i];
        if (i) buf_append(&b, self.u.s, self.len);
        if (need_string(r, "join", item) && tpl_print(r, &b, item)) continue;
        buf_free(&b);
        return false;
    }
    return tv_take_buf(r, out, &b);
}

static bool pad(rt *r, tv *out, tv self, const tv *p, int where) {
    int64_t width = 0;
    tstr fill = tv_absent(p[1]) ? (tstr){" ", 1} : tv_tstr(p[1]);
    if (!tv_absent(p[1]) && !need_string(r, "the fill character", p[1])) return false;
    if (tpl_count_chars(fill.p, fill.n) != 1) return tpl_fail(r, ERR_INVALID, "the fill must be one character");
    return targ_int(r, "width", p[0], &width) && tpl_pad(r, out, tv_tstr(self), width, fill, where);
}
static bool m_ljust(rt *r, tv *out, tv self, const targs *a, const tv *p) {
    return pad(r, out, self, p, -1);
}
static bool m_center(rt *r, tv *out, tv self, const targs *a, const tv *p) {
    return pad(r, out, self, p, 0);
}
static bool m_rjust(rt *r, tv *out, tv self, const targs *a, const tv *p) {
    return pad(r, out, self, p, 1);
}
static bool m_zfill(rt *r, tv *out, tv self, const targs *a, const tv *p) {
    int64_t width = 0;
    tv digits;
    if (!targ_int(r, "width", p[0], &width)) return false;
    bool sign = self.len && (self.u.s[0] == '-' || self.u.s[0] == '+');
    if (!sign) return tpl_pad(r, out, tv_tstr(self), width, (tstr){"0", 1}, 1);
    if (!tpl_pad(r, &digits, (tstr){self.u.s + 1, self.len - 1}, width - 1, (tstr){"0", 1}, 1)) return false;
    return tpl_binary(r, OP_ADD, out, tv_strn(self.u.s, 1), digits);
}

typedef enum char_kind { IS_DIGIT, IS_ALPHA, IS_ALNUM, IS_SPACE } char_kind;

static bool is_kind(uint32_t c, char_kind k) {
    if (k == IS_SPACE) return tpl_is_space(c);
    if (c >= 0xD800 && c < 0xE000) return false;
    utf8proc_category_t cat = utf8proc_category((utf8proc_int32_t)c);
    bool digit = cat == UTF8PROC_CATEGORY_ND, alpha = cat >= UTF8PROC_CATEGORY_LU && cat <= UTF8PROC_CATEGORY_LO;
    return k == IS_DIGIT ? digit : k == IS_ALPHA ? alpha : digit || alpha;
}

static bool all_of(rt *r, tv *out, tv self, char_kind k) {
    bool all = self.len > 0;
    for (size_t i = 0, len; all && i < self.len; i += len)
        all = is_kind(tpl_char_at(self.u.s + i, self.len - i, &len), k);
    *out = tv_bool(all);
    return tpl_charge(r, self.len / 32);
}
static bool m_isdigit(rt *r, tv *out, tv self, const targs *a, const tv *p) {
    return all_of(r, out, self, IS_DIGIT);
}
static bool m_isalpha(rt *r, tv *out, tv self, const targs *a, const tv *p) {
    return all_of(r, out, self, IS_ALPHA);
}
static bool m_isalnum(rt *r, tv *out, tv self, const targs *a, const tv *p) {
    return all_of(r, out, self, IS_ALNUM);
}
static bool m_isspace(rt *r, tv *out, tv self, const targs *a, const tv *p) {
    return all_of(r, out, self, IS_SPACE);
}
static bool m_isupper(rt *r, tv *out, tv self, const targs *a, const tv *p) {
    *out = tv_bool(tpl_is_cased(tv_tstr(self), true));
    return tpl_charge(r, self.len / 32);
}
static bool m_islower(rt *r, tv *out, tv self, const targs *a, const tv *p) {
    *out = tv_bool(tpl_is_cased(tv_tstr(self), false));
    return tpl_charge(r, self.len / 32);
}

/* One field of str.format, between the braces: "", a position, a name. */
static bool format_field(rt *r, buf *b, tstr field, const targs *a, uint32_t *next) {
    tv v = tv_of(TV_ABSENT);
    if (memchr(field.p, ':', field.n) || memchr(field.p, '!', field.n) || memchr(field.p, '.', field.n) ||
        memchr(field.p, '[', field.n))
        return tpl_fail(r, ERR_UNSUPPORTED, "format supports {}, {0} and {name}, not {%.*s}", (int)field.n, field.p);
    bool digits = true;
    uint64_t at = 0;
    for (uint32_t i = 0; i < field.n && digits; i++) {
        digits = field.p[i] >= '0' && field.p[i] <= '9' && at < 1000;
        at = at * 10 + (uint64_t)(field.p[i] - '0');
    }
    if (!field.n) at = (*next)++;
    if (digits && at < a->n_pos) v = a->pos[at];
    for (uint32_t i = 0; !digits && i < a->n_kw; i++)
        if (a->kw[i].name.n == field.n && memcmp(a->kw[i].name.p, field.p, field.n) == 0) v = a->kw[i].v;
    if (tv_absent(v))
        return tpl_fail(r, ERR_INVALID, "format has no argument for {%.*s}", field.n > 60 ? 60 : (int)field.n, field.p);
    return tpl_print(r, b, v);
}

static bool m_format(rt *r, tv *out, tv self, const targs *a, const tv *p) {
    tstr s = tv_tstr(self);
    buf b = {.max = TPL_STRING_MAX};
    uint32_t next = 0;
    bool ok = true;
    for (size_t i = 0; ok && i < s.n; i++) {
        char c = s.p[i];
        if ((c == '{' || c == '}') && i + 1 < s.n && s.p[i + 1] == c) {
            buf_putc(&b, c);
            i++;
        } else if (c == '{') {
            const char *end = memchr(s.p + i, '}', s.n - i);
            size_t from = i + 1;
            ok = end || tpl_fail(r, ERR_INVALID, "format: { without }");
            if (ok) i = (size_t)(end - s.p);
            ok = ok && format_field(r, &b, (tstr){s.p + from, (uint32_t)(i - from)}, a, &next);
        } else if (c == '}') {
            ok = tpl_fail(r, ERR_INVALID, "format: } without {");
        } else {
            buf_putc(&b, c);
        }
    }
    if (ok && tpl_charge(r, s.n / 32)) return tv_take_buf(r, out, &b);
    buf_free(&b);
    return false;
}

/* ---- dicts and lists ------------------------------------------------------------------------------------- */

static bool m_refuse(rt *r, tv *out, tv self, const targs *a, const tv *p) {
    return tpl_fail(r, ERR_UNSUPPORTED, "a template may not change a %s that exists: make a new one (list + [item])",
                    tv_type_name(self));
}

static bool m_items(rt *r, tv *out, tv self, const targs *a, const tv *p) {
    return tv_dict_items(r, out, self.u.dict) && tv_make_generator(r, out, "dict_items");
}
static bool m_keys(rt *r, tv *out, tv self, const targs *a, const tv *p) {
    return tv_to_list(r, self, out) && tv_make_generator(r, out, "dict_keys");
}
static bool m_values(rt *r, tv *out, tv self, const targs *a, const tv *p) {
    const tv_dict *d = self.u.dict;
    if (!tv_list_new(r, out, TV_LIST, d->n)) return false;
    for (uint32_t i = 0; i < d->n; i++) out->u.list->items[i] = d->e[i].val;
    return tv_make_generator(r, out, "dict_values");
}
static bool m_get(rt *r, tv *out, tv self, const targs *a, const tv *p) {
    if (!tv_dict_get(r, self.u.dict, p[0], out)) return false;
    if (tv_absent(*out)) *out = tv_absent(p[1]) ? tv_of(TV_NONE) : p[1];
    return true;
}
static bool m_copy(rt *r, tv *out, tv self, const targs *a, const tv *p) {
    return (*out = self), true;
}

static bool list_find(rt *r, tv self, tv what, int64_t *count, int64_t *first) {
    *count = 0;
    *first = -1;
    for (uint32_t i = 0; i < self.u.list->n; i++) {
        bool same;
        if (!tv_equal(r, self.u.list->items[i], what, &same)) return false;
        if (same && !(*count)++) *first = i;
    }
    return true;
}
static bool m_list_count(rt *r, tv *out, tv self, const targs *a, const tv *p) {
    int64_t n, first;
    return list_find(r, self, p[0], &n, &first) && ((*out = tv_int(n)), true);
}
static bool m_list_index(rt *r, tv *out, tv self, const targs *a, const tv *p) {
    int64_t n, first;
    if (!list_find(r, self, p[0], &n, &first)) return false;
    *out = tv_int(first);
    return n > 0 || tpl_fail(r, ERR_INVALID, "index: the list does not contain what is looked for");
}

/* ---- loop and cycler ------------------------------------------------------------------------------------- */

static bool m_cycle(rt *r, tv *out, tv self, const targs *a, const tv *p) {
    if (!a->n_pos || a->n_kw) return tpl_fail(r, ERR_INVALID, "loop.cycle takes one or more items");
    *out = a->pos[self.u.loop->i % a->n_pos];
    return true;
}
static bool m_changed(rt *r, tv *out, tv self, const targs *a, const tv *p) {
    tv now;
    bool same = false;
    tv_loop *l = self.u.loop;
    if (!tv_list_new(r, &now, TV_TUPLE, a->n_pos)) return false;
    for (uint32_t i = 0; i < a->n_pos; i++) now.u.list->items[i] = a->pos[i];
    if (!tv_absent(l->last_changed) && !tv_equal(r, now, l->last_changed, &same)) return false;
    l->last_changed = now;
    *out = tv_bool(!same);
    return true;
}
static bool m_next(rt *r, tv *out, tv self, const targs *a, const tv *p) {
    tv_cycler *c = self.u.cycler;
    *out = c->items[c->at];
    c->at = (c->at + 1) % c->n;
    return true;
}
static bool m_reset(rt *r, tv *out, tv self, const targs *a, const tv *p) {
    self.u.cycler->at = 0;
    return (*out = tv_of(TV_NONE)), true;
}

/* ---- tables ---------------------------------------------------------------------------------------------- */

static const tmethod on_string[] = {
    {"strip", m_strip, "chars?"},
    {"lstrip", m_lstrip, "chars?"},
    {"rstrip", m_rstrip, "chars?"},
    {"split", m_split, "sep? maxsplit?"},
    {"rsplit", m_rsplit, "sep? maxsplit?"},
    {"splitlines", m_splitlines, "keepends?"},
    {"partition", m_partition, "sep"},
    {"rpartition", m_rpartition, "sep"},
    {"upper", m_upper, ""},
    {"lower", m_lower, ""},
    {"casefold", m_lower, ""},
    {"title", m_title, ""},
    {"capitalize", m_capitalize, ""},
    {"swapcase", m_swapcase, ""},
    {"startswith", m_startswith, "prefix start? end?"},
    {"endswith", m_endswith, "suffix start? end?"},
    {"removeprefix", m_removeprefix, "prefix"},
    {"removesuffix", m_removesuffix, "suffix"},
    {"replace", m_replace, "old new count?"},
    {"join", m_join, "iterable"},
    {"find", m_find, "sub start? end?"},
    {"rfind", m_rfind, "sub start? end?"},
    {"index", m_index, "sub start? end?"},
    {"rindex", m_rindex, "sub start? end?"},
    {"count", m_count, "sub"},
    {"ljust", m_ljust, "width fillchar?"},
    {"rjust", m_rjust, "width fillchar?"},
    {"center", m_center, "width fillchar?"},
    {"zfill", m_zfill, "width"},
    {"isdigit", m_isdigit, ""},
    {"isdecimal", m_isdigit, ""},
    {"isnumeric", m_isdigit, ""},
    {"isalpha", m_isalpha, ""},
    {"isalnum", m_isalnum, ""},
    {"isspace", m_isspace, ""},
    {"isupper", m_isupper, ""},
    {"islower", m_islower, ""},
    {"format", m_format, NULL},
    {0},
};
static const tmethod on_dict[] = {
    {"items", m_items, ""},
    {"keys", m_keys, ""},
    {"values", m_values, ""},
    {"get", m_get, "key default?"},
    {"copy", m_copy, ""},
    {"pop", m_refuse, NULL},
    {"popitem", m_refuse, NULL},
    {"update", m_refuse, NULL},
    {"setdefault", m_refuse, NULL},
    {"clear", m_refuse, NULL},
    {0},
};
static const tmethod on_list[] = {
    {"count", m_list_count, "value"}, {"index", m_list_index, "value"}, {"copy", m_copy, ""},
    {"append", m_refuse, NULL},       {"extend", m_refuse, NULL},       {"insert", m_refuse, NULL},
    {"pop", m_refuse, NULL},          {"remove", m_refuse, NULL},       {"clear", m_refuse, NULL},
    {"sort", m_refuse, NULL},         {"reverse", m_refuse, NULL},      {0},
};
static const tmethod on_loop[] = {{"cycle", m_cycle, NULL}, {"changed", m_changed, NULL}, {0}};
static const tmethod on_cycler[] = {{"next", m_next, ""}, {"reset", m_reset, ""}, {0}};

const tmethod *tpl_method_find(tv_type t, tstr name) {
    const tmethod *m = t == TV_STRING                  ? on_string
                       : t == TV_DICT                  ? on_dict
                       : t == TV_LIST || t == TV_TUPLE ? on_list
                       : t == TV_LOOP                  ? on_loop
                                                       : on_cycler;
    for (; m->name; m++)
        if (tstr_is(name, m->name)) return m;
    return NULL;
}

bool tpl_method_call(rt *r, tv *out, tv self, const tmethod *m, const targs *a) {
    tv p[TPL_BIND_MAX] = {{0}};
    if (m->spec && !targs_bind(r, m->name, a, m->spec, p)) return false;
    return m->fn(r, out, self, a, p);
}
