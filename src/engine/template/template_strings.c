/* template_strings: work on text that methods and filters share: case, replacing, lines, padding. */
#include "engine/template/template.h"

#include <utf8proc.h>

static void put_char(buf *b, uint32_t c, const char *raw, size_t raw_len) {
    char out[4];
    if (c >= 0xD800 && c < 0xE000)
        buf_append(b, raw, raw_len); /* broken bytes stay */
    else
        buf_append(b, out, (size_t)utf8_encode(out, c));
}

/* Characters whose upper case is several (Unicode's SpecialCasing, without polytonic Greek); title case keeps all but
 * the first of them small. */
static const struct {
    uint16_t c;
    char upper[8], title[8];
} many[] = {
    {0x00DF, "SS", "Ss"},
    {0x0149, "\u02BCN", "\u02BCN"},
    {0x01F0, "J\u030C", "J\u030C"},
    {0x0587, "\u0535\u0552", "\u0535\u0582"},
    {0x1E96, "H\u0331", "H\u0331"},
    {0x1E97, "T\u0308", "T\u0308"},
    {0x1E98, "W\u030A", "W\u030A"},
    {0x1E99, "Y\u030A", "Y\u030A"},
    {0xFB00, "FF", "Ff"},
    {0xFB01, "FI", "Fi"},
    {0xFB02, "FL", "Fl"},
    {0xFB03, "FFI", "Ffi"},
    {0xFB04, "FFL", "Ffl"},
    {0xFB05, "ST", "St"},
    {0xFB06, "ST", "St"},
    {0x0390, "\u0399\u0308\u0301", "\u0399\u0308\u0301"},
    {0x03B0, "\u03A5\u0308\u0301", "\u03A5\u0308\u0301"},
};

static void put_upper(buf *b, uint32_t c, bool title, const char *raw, size_t raw_len) {
    for (size_t i = 0; c >= 0x80 && i < sizeof many / sizeof *many; i++) {
        if (many[i].c != c) continue;
        buf_puts(b, title ? many[i].title : many[i].upper);
        return;
    }
    int32_t up = title ? utf8proc_totitle((utf8proc_int32_t)c) : utf8proc_toupper((utf8proc_int32_t)c);
    put_char(b, (uint32_t)up, raw, raw_len);
}

/* `ends_word`: a sigma here is a final one. */
static void put_lower(buf *b, uint32_t c, bool ends_word, const char *raw, size_t raw_len) {
    if (c == 0x130)
        buf_puts(b, "i\u0307");
    else if (c == 0x3A3 && ends_word)
        buf_puts(b, "\u03C2");
    else
        put_char(b, (uint32_t)utf8proc_tolower((utf8proc_int32_t)c), raw, raw_len);
}

static bool is_upper(uint32_t c) {
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
    return k == UTF8PROC_CATEGORY_LU;
}
static bool is_lower(uint32_t c) {
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
    return k == UTF8PROC_CATEGORY_LL;
}
static bool is_cased(uint32_t c) {
    return is_upper(c) || is_lower(c) || utf8proc_category((utf8proc_int32_t)c) == UTF8PROC_CATEGORY_LT;
}

static bool cased_at(tstr s, size_t i) {
    size_t len;
    uint32_t c = i < s.n ? tpl_char_at(s.p + i, s.n - i, &len) : 0;
    return c && !(c >= 0xD800 && c < 0xE000) && is_cased(c);
}

bool tpl_is_cased(tstr s, bool upper) {
    bool any = false;
    for (size_t i = 0, len; i < s.n; i += len) {
        uint32_t c = tpl_char_at(s.p + i, s.n - i, &len);
        if (c >= 0xD800 && c < 0xE000) continue;
        if (upper ? is_lower(c) : is_upper(c)) return false;
        any = any || (upper ? is_upper(c) : is_lower(c));
    }
    return any;
}

/* Where Jinja's title filter begins a word: after white space or one of - ( { [ <. */
static bool begins_word(uint32_t before) {
    return tpl_is_space(before) || (before < 0x80 && before && strchr("-({[<", (char)before));
}

bool tpl_change_case(rt *r, tv *out, tstr s, tpl_case how) {
    buf b = {.max = TPL_STRING_MAX};
    uint32_t before = ' ';
    for (size_t i = 0, len; i < s.n; i += len) {
        uint32_t c = tpl_char_at(s.p + i, s.n - i, &len);
        bool up = how == CASE_UPPER, broken = c >= 0xD800 && c < 0xE000;
        if (how == CASE_CAPITALIZE) up = i == 0;
        if (how == CASE_TITLE) up = broken || !is_cased(before);
        if (how == CASE_JINJA_TITLE) up = begins_word(before);
        if (how == CASE_SWAP) up = !broken && is_lower(c);
        if (broken || (how == CASE_SWAP && !up && !is_upper(c)))
            buf_append(&b, s.p + i, len);
        else if (up)
            put_upper(&b, c, how == CASE_CAPITALIZE || how == CASE_TITLE, s.p + i, len);
        else
            put_lower(&b, c, c == 0x3A3 && is_cased(before) && !cased_at(s, i + len), s.p + i, len);
        before = broken ? ' ' : c;
    }
    return tpl_charge(r, s.n / 16) ? tv_take_buf(r, out, &b) : (buf_free(&b), false);
}

bool tpl_replace(rt *r, tv *out, tstr s, tstr from, tstr to, int64_t count) {
    buf b = {.max = TPL_STRING_MAX};
    size_t at = 0;
    if (count < 0) count = INT64_MAX;
    if (!from.n) { /* before every character, and at the end */
        for (; count > 0; count--) {
            buf_append(&b, to.p, to.n);
            if (at >= s.n) break;
            size_t len = tpl_char_len(s.p + at, s.n - at);
            buf_append(&b, s.p + at, len);
            at += len;
        }
    }
    for (; from.n && count > 0 && at < s.n; count--) {
        const char *hit = memmem(s.p + at, s.n - at, from.p, from.n);
        if (!hit) break;
        size_t end = (size_t)(hit - s.p);
        buf_append(&b, s.p + at, end - at);
        buf_append(&b, to.p, to.n);
        at = end + from.n;
    }
    buf_append(&b, s.p + at, s.n - at);
    return tpl_charge(r, s.n / 32) ? tv_take_buf(r, out, &b) : (buf_free(&b), false);
}

/* The length of the line break at s, 0 where none: what str.splitlines breaks at. */
static size_t line_break(const char *s, size_t n) {
    size_t len;
    uint32_t c = tpl_char_at(s, n, &len);
    if (c == '\r') return n > 1 && s[1] == '\n' ? 2 : 1;
    bool is = (c >= 10 && c <= 12) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029;
    return is ? len : 0;
}

bool tpl_split_lines(rt *r, tv *out, tstr s, bool keep_ends) {
    for (int pass = 0; pass < 2; pass++) { /* count, then fill */
        uint32_t n = 0;
        size_t from = 0;
        for (size_t i = 0; i < s.n;) {
            size_t br = line_break(s.p + i, s.n - i);
            i += br ? br : tpl_char_len(s.p + i, s.n - i);
            if (!br && i < s.n) continue;
            size_t end = br && !keep_ends ? i - br : i;
            if (pass) out->u.list->items[n] = tv_strn(s.p + from, end - from);
            n++;
            from = i;
        }
        if (!pass && !tv_list_new(r, out, TV_LIST, n)) return false;
    }
    return tpl_charge(r, s.n / 16);
}

bool tpl_pad(rt *r, tv *out, tstr s, int64_t width, tstr fill, int where) {
    if (!tpl_charge_bytes(r, s.n)) return false;
    int64_t have = (int64_t)tpl_count_chars(s.p, s.n), need = width > have ? width - have : 0;
    if (need > 100000) return tpl_fail(r, ERR_TOO_LARGE, "a width of more than 100000 characters");
    int64_t left = where > 0 ? need : where < 0 ? 0 : need / 2 + (need & width & 1); /* as Python centres */
    buf b = {.max = TPL_STRING_MAX};
    for (int64_t i = 0; i < left; i++) buf_append(&b, fill.p, fill.n);
    buf_append(&b, s.p, s.n);
    for (int64_t i = left; i < need; i++) buf_append(&b, fill.p, fill.n);
    return tpl_charge(r, (uint64_t)need / 16) ? tv_take_buf(r, out, &b) : (buf_free(&b), false);
}
