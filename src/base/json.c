#include "base/json.h"

#include "base/bytes.h"
#include "base/json_internal.h"
#include "base/mem.h"

#include <math.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define JSON_TEXT_MAX ((size_t)256 << 20)

/* ---- reading: the scan checks the text, json_build.c makes the tree ---- */

typedef struct scan {
    const char *s;
    size_t n, i;
    const char *what;
    err *e;
    int depth;
    size_t n_numbers;
    json_literal *list;
    size_t n_list, cap_list;
} scan;

static err_code scan_fail(scan *c, const char *why) {
    size_t line = 1, col = 1;
    for (size_t k = 0; k < c->i && k < c->n; k++) {
        if (c->s[k] == '\n') {
            line++;
            col = 1;
        } else {
            col++;
        }
    }
    return err_set(c->e, ERR_INVALID, "%s: line %zu column %zu: %s", c->what, line, col, why);
}

static void scan_space(scan *c) {
    while (c->i < c->n && memchr(" \t\r\n", c->s[c->i], 4)) c->i++;
}

static int scan_hex4(const char *p) {
    int v = 0;
    for (int k = 0; k < 4; k++) {
        char ch = p[k];
        int d = ch >= '0' && ch <= '9' ? ch - '0' : (ch | 32) >= 'a' && (ch | 32) <= 'f' ? (ch | 32) - 'a' + 10 : -1;
        if (d < 0) return -1;
        v = v << 4 | d;
    }
    return v;
}

static err_code scan_escape(scan *c) {
    if (c->i >= c->n) return scan_fail(c, "the string is not closed");
    char esc = c->s[c->i++];
    if (esc != 'u') {
        if (!memchr("\"\\/bfnrt", esc, 8)) return scan_fail(c, "unknown escape in a string");
        return ERR_OK;
    }
    if (c->n - c->i < 4) return scan_fail(c, "the string is not closed");
    int v = scan_hex4(c->s + c->i);
    if (v < 0) return scan_fail(c, "\\u needs four hexadecimal digits");
    c->i += 4;
    if (v == 0) return scan_fail(c, "\\u0000 in a string is not accepted");
    if (v >= 0xdc00 && v < 0xe000) return scan_fail(c, "a low surrogate without its high one");
    if (v >= 0xd800 && v < 0xdc00) {
        int lo = c->n - c->i >= 6 && c->s[c->i] == '\\' && c->s[c->i + 1] == 'u' ? scan_hex4(c->s + c->i + 2) : -1;
        if (lo < 0xdc00 || lo >= 0xe000) return scan_fail(c, "a high surrogate without its low one");
        c->i += 6;
    }
    return ERR_OK;
}

/* Of eight bytes of a JSON string, the first in the lowest: the top bit of the first that does not stand for itself or
 * is not ASCII is set, and none below it. */
static uint64_t not_plain(const char *s) {
    const uint64_t ones = UINT64_C(0x0101010101010101), tops = 0x80 * ones;
    uint64_t w;
    memcpy(&w, s, 8);
    uint64_t quote = w ^ '"' * ones, slash = w ^ '\\' * ones;
    /* in each byte the top bit says: is 0 (of quote and slash), is below 0x20, is not ASCII */
    return (((quote - ones) & ~quote) | ((slash - ones) & ~slash) | ((w - 0x20 * ones) & ~w) | w) & tops;
}

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the first byte of a word is its lowest");

#ifdef __SSE2__
/* The same of sixteen bytes, a bit for each. As signed bytes, those below 0x20 are control characters and not ASCII. */
static unsigned not_plain16(const char *s) {
    __m128i v = _mm_loadu_si128((const __m128i *)(const void *)s);
    __m128i marks = _mm_or_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8('"')), _mm_cmpeq_epi8(v, _mm_set1_epi8('\\')));
    return (unsigned)_mm_movemask_epi8(_mm_or_si128(marks, _mm_cmplt_epi8(v, _mm_set1_epi8(0x20))));
}
#endif

size_t json_plain(const char *s, size_t n) {
    size_t i = 0;
#ifdef __SSE2__
    for (unsigned other; n - i >= 16; i += 16)
        if ((other = not_plain16(s + i))) return i + (size_t)__builtin_ctz(other);
#endif
    for (uint64_t other; n - i >= 8; i += 8)
        if ((other = not_plain(s + i))) return i + (size_t)__builtin_ctzll(other) / 8;
    if (i && i < n) { /* the last eight, of which some were seen before and are plain */
        uint64_t other = not_plain(s + n - 8);
        return other ? n - 8 + (size_t)__builtin_ctzll(other) / 8 : n;
    }
    for (; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        if (c < 0x20 || c >= 0x80 || c == '"' || c == '\\') break;
    }
    return i;
}

static err_code scan_string(scan *c) {
    c->i++;
    while (c->i < c->n) {
        c->i += json_plain(c->s + c->i, c->n - c->i);
        if (c->i == c->n) break;
        unsigned char ch = (unsigned char)c->s[c->i];
        if (ch == '"') {
            c->i++;
            return ERR_OK;
        }
        if (ch < 0x20) return scan_fail(c, "a control character in a string must be escaped");
        if (ch == '\\') {
            c->i++;
            err_code rc = scan_escape(c);
            if (rc) return rc;
        } else if (ch < 0x80) {
            c->i++;
        } else {
            uint32_t cp;
            int len = utf8_decode(&cp, c->s + c->i, c->n - c->i);
            if (len <= 0) return scan_fail(c, "the text is not valid UTF-8");
            c->i += (size_t)len;
        }
    }
    return scan_fail(c, "the string is not closed");
}

static bool scan_digits(scan *c) {
    size_t from = c->i;
    while (c->i < c->n && c->s[c->i] >= '0' && c->s[c->i] <= '9') c->i++;
    return c->i > from;
}

/* Whole, and beyond 2^53. */
static bool is_too_long(const char *p, size_t n) {
    static const char limit[] = "9007199254740992";
    if (*p == '-') p++, n--;
    return n > sizeof limit - 1 || (n == sizeof limit - 1 && memcmp(p, limit, n) > 0);
}

static err_code keep_literal(scan *c, size_t from, size_t n) {
    if (c->n_list == c->cap_list) {
        size_t cap = c->cap_list ? 2 * c->cap_list : 8;
        json_literal *more = mem_realloc(c->list, cap * sizeof *more);
        if (!more) return err_nomem(c->e, c->what);
        c->list = more;
        c->cap_list = cap;
    }
    c->list[c->n_list++] = (json_literal){.number = c->n_numbers, .from = from, .n = n};
    return ERR_OK;
}

/* Text of at most 60 bytes. Written again, an infinity would have become a null. */
static bool is_infinite(const char *p, size_t n) {
    char text[64];
    memcpy(text, p, n);
    text[n] = 0;
    return isinf(strtod(text, NULL));
}

static err_code scan_number(scan *c) {
    size_t from = c->i;
    bool whole = true, exponent = false;
    if (c->s[c->i] == '-') c->i++;
    if (c->i < c->n && c->s[c->i] == '0')
        c->i++;
    else if (!scan_digits(c))
        return scan_fail(c, "not a JSON value");
    if (c->i < c->n && c->s[c->i] == '.') {
        c->i++;
        whole = false;
        if (!scan_digits(c)) return scan_fail(c, "digits are missing after the decimal point");
    }
    if (c->i < c->n && (c->s[c->i] | 32) == 'e') {
        c->i++;
        whole = false;
        exponent = true;
        if (c->i < c->n && (c->s[c->i] == '+' || c->s[c->i] == '-')) c->i++;
        if (!scan_digits(c)) return scan_fail(c, "digits are missing in the exponent");
    }
    if (c->i - from > 60) return scan_fail(c, "the number has too many digits");
    if (exponent && is_infinite(c->s + from, c->i - from))
        return scan_fail(c, "the number is too large; 1.7e308 is the most");
    bool long_one = whole && is_too_long(c->s + from, c->i - from);
    err_code rc = long_one ? keep_literal(c, from, c->i - from) : ERR_OK;
    c->n_numbers++;
    return rc;
}

static err_code scan_value(scan *c);

static err_code scan_members(scan *c, bool object) {
    char close = object ? '}' : ']';
    c->i++;
    scan_space(c);
    if (c->i < c->n && c->s[c->i] == close) {
        c->i++;
        return ERR_OK;
    }
    for (;;) {
        scan_space(c);
        if (object) {
            if (c->i >= c->n || c->s[c->i] != '"') return scan_fail(c, "a key in double quotes is expected");
            err_code rc = scan_string(c);
            if (rc) return rc;
            scan_space(c);
            if (c->i >= c->n || c->s[c->i] != ':') return scan_fail(c, "':' is expected after a key");
            c->i++;
        }
        err_code rc = scan_value(c);
        if (rc) return rc;
        scan_space(c);
        if (c->i >= c->n) return scan_fail(c, "the text ends inside an object or array");
        char ch = c->s[c->i];
        if (ch != ',' && ch != close) return scan_fail(c, object ? "',' or '}' is expected" : "',' or ']' is expected");
        c->i++;
        if (ch == close) return ERR_OK;
    }
}

static err_code scan_value(scan *c) {
    scan_space(c);
    if (c->i >= c->n) return scan_fail(c, "a value is expected");
    char ch = c->s[c->i];
    if (ch == '{' || ch == '[') {
        if (++c->depth > JSON_DEPTH_MAX) return scan_fail(c, "nested too deeply");
        err_code rc = scan_members(c, ch == '{');
        c->depth--;
        return rc;
    }
    if (ch == '"') return scan_string(c);
    static const char *const words[] = {"true", "false", "null"};
    for (int k = 0; k < 3; k++) {
        size_t len = strlen(words[k]);
        if (c->n - c->i >= len && memcmp(c->s + c->i, words[k], len) == 0) {
            c->i += len;
            return ERR_OK;
        }
    }
    return scan_number(c);
}

static int compare_keys(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* One that is there twice, or NULL. */
static const char *find_twice(const char **keys, size_t n) {
    if (n > 16) {
        qsort(keys, n, sizeof *keys, compare_keys);
        for (size_t k = 1; k < n; k++)
            if (strcmp(keys[k - 1], keys[k]) == 0) return keys[k];
        return NULL;
    }
    for (size_t i = 1; i < n; i++)
        for (size_t k = 0; k < i; k++)
            if (keys[i][0] == keys[k][0] && strcmp(keys[i], keys[k]) == 0) return keys[i];
    return NULL;
}

/* Duplicate keys would let two readers of the same text see different values. */
static err_code check_duplicates(const cJSON *v, const char *what, err *e) {
    if (cJSON_IsObject(v)) {
        size_t n = 0, k = 0;
        for (const cJSON *c = v->child; c; c = c->next) n++;
        if (n > 1) {
            const char *few[16], **keys = n <= 16 ? few : mem_array(n, sizeof *keys);
            if (!keys) return err_nomem(e, what);
            for (const cJSON *c = v->child; c; c = c->next) keys[k++] = c->string;
            const char *twice = find_twice(keys, n);
            if (twice) err_set(e, ERR_INVALID, "%s: the key \"%s\" stands twice in one object", what, twice);
            if (keys != few) mem_free(keys);
            if (twice) return ERR_INVALID;
        }
    }
    for (const cJSON *c = v->child; c; c = c->next) {
        err_code rc = check_duplicates(c, what, e);
        if (rc) return rc;
    }
    return ERR_OK;
}

static err_code build(cJSON **out, const scan *c) {
    cJSON *v = json_build(c->s, c->n, c->list, c->n_list);
    err_code rc = v ? ERR_OK : err_nomem(c->e, c->what);
    if (!rc) rc = check_duplicates(v, c->what, c->e);
    if (rc) cJSON_Delete(v);
    *out = rc ? NULL : v;
    return rc;
}

err_code json_parse(cJSON **out, const char *s, size_t n, const char *what, err *e) {
    *out = NULL;
    scan c = {.s = s, .n = n, .what = what, .e = e};
    err_code rc = scan_value(&c);
    if (!rc) scan_space(&c);
    if (!rc && c.i != n) rc = scan_fail(&c, "there is text after the end of the value");
    if (!rc) rc = build(out, &c);
    mem_free(c.list);
    return rc;
}

/* ---- writing ---- */

static void whole_number(buf *out, int64_t v) {
    char digits[24], *p = digits + sizeof digits;
    uint64_t u = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;
    do *--p = (char)('0' + u % 10);
    while (u /= 10);
    if (v < 0) *--p = '-';
    buf_append(out, p, (size_t)(digits + sizeof digits - p));
}

/* k thousandths, not whole: at most 15 digits, and no two decimals of so few digits read as the same double, so without
 * zeros at the end this is the shortest form. */
static void thousandths(buf *out, int64_t k) {
    uint64_t u = k < 0 ? 0 - (uint64_t)k : (uint64_t)k, part = u % 1000;
    char digits[4] = {'.', (char)('0' + part / 100), (char)('0' + part / 10 % 10), (char)('0' + part % 10)};
    size_t n = part % 10 ? 4 : part % 100 ? 3 : 2;
    if (k < 0) buf_putc(out, '-');
    whole_number(out, (int64_t)(u / 1000));
    buf_append(out, digits, n);
}

/* ECMA-262 Number::toString: the shortest digits that read back, exponent form outside 1e-7 .. 1e21. */
void json_number(buf *out, double v) {
    if (v == 0) {
        buf_putc(out, '0'); /* -0 too */
        return;
    }
    char text[40];
    int prec;
    /* 17 digits always read back; whole numbers below 2^53 need no search */
    if (fabs(v) < 9007199254740992.0 && v == trunc(v)) {
        whole_number(out, (int64_t)v);
        return;
    }
    if (fabs(v) >= 1e-3 && fabs(v) < 1e11 && (double)llround(v * 1000) / 1000 == v) {
        thousandths(out, llround(v * 1000));
        return;
    }
    /* 15 digits hold every normal double's shortest form (zeros are cut below); subnormal ones have fewer */
    for (prec = fabs(v) < 2.3e-308 ? 1 : 15; prec <= 17; prec++) {
        snprintf(text, sizeof text, "%.*e", prec - 1, v);
        if (strtod(text, NULL) == v) break;
    }
    /* text is [-]d.ddde[+-]xx */
    char digits[24];
    int nd = 0;
    const char *p = text;
    if (*p == '-') {
        buf_putc(out, '-');
        p++;
    }
    for (; *p && *p != 'e'; p++)
        if (*p != '.') digits[nd++] = *p;
    int exp10 = atoi(p + 1);
    while (nd > 1 && digits[nd - 1] == '0') nd--;
    int k = nd, pos = exp10 + 1; /* value = 0.digits * 10^pos */
    if (k <= pos && pos <= 21) {
        buf_append(out, digits, (size_t)k);
        for (int i = k; i < pos; i++) buf_putc(out, '0');
    } else if (0 < pos && pos <= 21) {
        buf_append(out, digits, (size_t)pos);
        buf_putc(out, '.');
        buf_append(out, digits + pos, (size_t)(k - pos));
    } else if (-6 < pos && pos <= 0) {
        buf_puts(out, "0.");
        for (int i = pos; i < 0; i++) buf_putc(out, '0');
        buf_append(out, digits, (size_t)k);
    } else {
        buf_putc(out, digits[0]);
        if (k > 1) {
            buf_putc(out, '.');
            buf_append(out, digits + 1, (size_t)(k - 1));
        }
        buf_printf(out, "e%c%d", pos - 1 < 0 ? '-' : '+', abs(pos - 1));
    }
}

void json_string(buf *out, const char *s, size_t n) {
    if (n < SIZE_MAX - 2) (void)buf_reserve(out, n + 2); /* once, where nothing is escaped */
    buf_putc(out, '"');
    size_t from = 0;
    for (size_t i = 0; i < n;) {
        i += json_plain(s + i, n - i);
        if (i == n) break;
        unsigned char ch = (unsigned char)s[i];
        uint32_t cp;
        int len = ch < 0x80 ? 1 : utf8_decode(&cp, s + i, n - i);
        if (ch >= 0x20 && ch != '"' && ch != '\\' && len > 0) {
            i += (size_t)len;
            continue;
        }
        buf_append(out, s + from, i - from);
        i++;
        from = i;
        switch (ch) {
        case '"': buf_puts(out, "\\\""); break;
        case '\\': buf_puts(out, "\\\\"); break;
        case '\b': buf_puts(out, "\\b"); break;
        case '\f': buf_puts(out, "\\f"); break;
        case '\n': buf_puts(out, "\\n"); break;
        case '\r': buf_puts(out, "\\r"); break;
        case '\t': buf_puts(out, "\\t"); break;
        default:
            if (ch < 0x20)
                buf_printf(out, "\\u%04x", ch);
            else
                buf_puts(out, "\xef\xbf\xbd"); /* U+FFFD for a byte that is not UTF-8 */
        }
    }
    buf_append(out, s + from, n - from);
    buf_putc(out, '"');
}

/* Order of UTF-16 code units (RFC 8785 §3.2.3): differs from byte order only between U+E000..U+FFFF and the
 * characters beyond U+FFFF, whose surrogates are smaller. */
int json_compare_keys(const char *a, const char *b) {
    while (*a && *a == *b) {
        a++;
        b++;
    }
    unsigned char x = (unsigned char)*a, y = (unsigned char)*b;
    if (x >= 0xf0 && y >= 0xee && y < 0xf0) return -1;
    if (y >= 0xf0 && x >= 0xee && x < 0xf0) return 1;
    return (int)x - (int)y;
}

static int compare_members(const void *a, const void *b) {
    return json_compare_keys((*(const cJSON *const *)a)->string, (*(const cJSON *const *)b)->string);
}

/* Most objects have a handful of members: qsort would ask for memory and call back for each pair. */
static void sort_members(const cJSON **m, size_t n) {
    if (n > 32) {
        qsort(m, n, sizeof *m, compare_members);
        return;
    }
    for (size_t i = 1; i < n; i++) {
        const cJSON *x = m[i];
        size_t k = i;
        for (; k && json_compare_keys(m[k - 1]->string, x->string) > 0; k--) m[k] = m[k - 1];
        m[k] = x;
    }
}

static err_code canonical(buf *out, const cJSON *v, int depth, err *e);

static err_code canonical_object(buf *out, const cJSON *v, int depth, err *e) {
    size_t n = 0, k = 0;
    for (const cJSON *c = v->child; c; c = c->next) n++;
    const cJSON *few[32], **m = n <= 32 ? few : mem_array(n, sizeof *m);
    if (!m) return err_nomem(e, "a JSON object");
    for (const cJSON *c = v->child; c; c = c->next) m[k++] = c;
    sort_members(m, n);
    err_code rc = ERR_OK;
    buf_putc(out, '{');
    for (k = 0; k < n && rc == ERR_OK; k++) {
        if (k && strcmp(m[k - 1]->string, m[k]->string) == 0)
            rc = err_set(e, ERR_INVALID, "the key \"%s\" stands twice in one object", m[k]->string);
        else if (!utf8_valid(m[k]->string, strlen(m[k]->string)))
            rc = err_set(e, ERR_INVALID, "a key in JSON is not valid UTF-8");
        if (rc) break;
        if (k) buf_putc(out, ',');
        json_string(out, m[k]->string, strlen(m[k]->string));
        buf_putc(out, ':');
        rc = canonical(out, m[k], depth + 1, e);
    }
    buf_putc(out, '}');
    if (m != few) mem_free(m);
    return rc;
}

static err_code canonical(buf *out, const cJSON *v, int depth, err *e) {
    if (depth >= JSON_DEPTH_MAX && (cJSON_IsObject(v) || cJSON_IsArray(v)))
        return err_set(e, ERR_INVALID, "JSON nested too deeply");
    err_code rc = ERR_OK;
    if (cJSON_IsObject(v)) return canonical_object(out, v, depth, e);
    if (cJSON_IsArray(v)) {
        buf_putc(out, '[');
        for (const cJSON *c = v->child; c && rc == ERR_OK; c = c->next) {
            if (c != v->child) buf_putc(out, ',');
            rc = canonical(out, c, depth + 1, e);
        }
        buf_putc(out, ']');
    } else if (cJSON_IsString(v)) {
        if (!utf8_valid(v->valuestring, strlen(v->valuestring)))
            return err_set(e, ERR_INVALID, "a JSON string is not valid UTF-8");
        json_string(out, v->valuestring, strlen(v->valuestring));
    } else if (cJSON_IsNumber(v)) {
        if (!isfinite(v->valuedouble)) return err_set(e, ERR_INVALID, "a number is not finite");
        json_number(out, v->valuedouble);
    } else if (cJSON_IsBool(v)) {
        buf_puts(out, cJSON_IsTrue(v) ? "true" : "false");
    } else if (cJSON_IsNull(v)) {
        buf_puts(out, "null");
    } else {
        rc = err_set(e, ERR_INVALID, "a JSON value has no type");
    }
    return rc;
}

err_code json_canonical_at(buf *out, const cJSON *v, int depth, err *e) {
    return canonical(out, v, depth, e);
}

err_code json_canonical(buf *out, const cJSON *v, err *e) {
    err_code rc = canonical(out, v, 0, e);
    return rc ? rc : buf_check(out, "canonical JSON", e);
}

/* ---- as it is ---- */

static void write_members(buf *out, const cJSON *v, bool object) {
    buf_putc(out, object ? '{' : '[');
    for (const cJSON *m = v->child; m; m = m->next) {
        if (m != v->child) buf_putc(out, ',');
        if (object) json_string(out, m->string, strlen(m->string));
        if (object) buf_putc(out, ':');
        json_write(out, m);
    }
    buf_putc(out, object ? '}' : ']');
}

void json_write(buf *out, const cJSON *v) {
    if (cJSON_IsObject(v) || cJSON_IsArray(v))
        write_members(out, v, cJSON_IsObject(v));
    else if (cJSON_IsString(v))
        json_string(out, v->valuestring, strlen(v->valuestring));
    else if (cJSON_IsNumber(v) && v->valuestring)
        buf_puts(out, v->valuestring);
    else if (cJSON_IsNumber(v) && isfinite(v->valuedouble))
        json_number(out, v->valuedouble);
    else
        buf_puts(out, cJSON_IsTrue(v) ? "true" : cJSON_IsFalse(v) ? "false" : "null");
}

char *json_text(const cJSON *v) {
    buf out = {.max = JSON_TEXT_MAX};
    json_write(&out, v);
    return buf_take(&out);
}

/* ---- typed reads ---- */

const cJSON *json_get(const cJSON *o, const char *key) {
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(o, key);
    return v && !cJSON_IsNull(v) ? v : NULL;
}

err_code json_get_str(const cJSON *o, const char *key, const char **out, err *e) {
    const cJSON *v = json_get(o, key);
    if (!v) return ERR_OK;
    if (!cJSON_IsString(v)) return err_set(e, ERR_INVALID, "'%s' must be a string", key);
    *out = v->valuestring;
    return ERR_OK;
}

err_code json_get_num(const cJSON *o, const char *key, double min, double max, double *inout, err *e) {
    const cJSON *v = json_get(o, key);
    if (!v) return ERR_OK;
    if (!cJSON_IsNumber(v)) return err_set(e, ERR_INVALID, "'%s' must be a number", key);
    if (!(v->valuedouble >= min && v->valuedouble <= max))
        return err_set(e, ERR_INVALID, "'%s' must be between %g and %g", key, min, max);
    *inout = v->valuedouble;
    return ERR_OK;
}

err_code json_get_int(const cJSON *o, const char *key, int64_t min, int64_t max, int64_t *inout, err *e) {
    const cJSON *v = json_get(o, key);
    if (!v) return ERR_OK;
    if (!cJSON_IsNumber(v) || v->valuedouble != trunc(v->valuedouble))
        return err_set(e, ERR_INVALID, "'%s' must be a whole number", key);
    /* compare as doubles first: a conversion out of range is undefined */
    if (!(v->valuedouble >= -9223372036854775808.0 && v->valuedouble < 9223372036854775808.0) ||
        (int64_t)v->valuedouble < min || (int64_t)v->valuedouble > max)
        return err_set(e, ERR_INVALID, "'%s' must be between %lld and %lld", key, (long long)min, (long long)max);
    *inout = (int64_t)v->valuedouble;
    return ERR_OK;
}

err_code json_get_bool(const cJSON *o, const char *key, bool *inout, err *e) {
    const cJSON *v = json_get(o, key);
    if (!v) return ERR_OK;
    if (!cJSON_IsBool(v)) return err_set(e, ERR_INVALID, "'%s' must be true or false", key);
    *inout = cJSON_IsTrue(v);
    return ERR_OK;
}

/* ---- the streaming writer ---- */

void jw_init(jw *w, buf *out) {
    *w = (jw){.out = out};
}

static void before_value(jw *w) {
    if (w->after_key) {
        w->after_key = false;
        return;
    }
    if (w->has_item >> w->depth & 1) buf_putc(w->out, ',');
    w->has_item |= UINT64_C(1) << w->depth;
}

static void open_level(jw *w, char c) {
    before_value(w);
    buf_putc(w->out, c);
    if (w->depth < 63)
        w->depth++;
    else
        w->out->failed = true;
    w->has_item &= ~(UINT64_C(1) << w->depth);
}

static void close_level(jw *w, char c) {
    buf_putc(w->out, c);
    if (w->depth > 0) w->depth--;
}

void jw_obj(jw *w) {
    open_level(w, '{');
}
void jw_obj_end(jw *w) {
    close_level(w, '}');
}
void jw_arr(jw *w) {
    open_level(w, '[');
}
void jw_arr_end(jw *w) {
    close_level(w, ']');
}

void jw_key(jw *w, const char *key) {
    before_value(w);
    json_string(w->out, key, strlen(key));
    buf_putc(w->out, ':');
    w->after_key = true;
}

void jw_strn(jw *w, const char *s, size_t n) {
    before_value(w);
    json_string(w->out, s, n);
}

void jw_str(jw *w, const char *s) {
    if (s)
        jw_strn(w, s, strlen(s));
    else
        jw_null(w);
}

void jw_int(jw *w, int64_t v) {
    before_value(w);
    whole_number(w->out, v);
}

void jw_num(jw *w, double v) {
    if (!isfinite(v)) {
        jw_null(w);
        return;
    }
    before_value(w);
    json_number(w->out, v);
}

void jw_bool(jw *w, bool v) {
    before_value(w);
    buf_puts(w->out, v ? "true" : "false");
}

void jw_null(jw *w) {
    before_value(w);
    buf_puts(w->out, "null");
}

void jw_raw(jw *w, const char *json, size_t n) {
    before_value(w);
    buf_append(w->out, json, n);
}

void jw_kstr(jw *w, const char *k, const char *s) {
    jw_key(w, k);
    jw_str(w, s);
}
void jw_kint(jw *w, const char *k, int64_t v) {
    jw_key(w, k);
    jw_int(w, v);
}
void jw_knum(jw *w, const char *k, double v) {
    jw_key(w, k);
    jw_num(w, v);
}
void jw_kbool(jw *w, const char *k, bool v) {
    jw_key(w, k);
    jw_bool(w, v);
}
