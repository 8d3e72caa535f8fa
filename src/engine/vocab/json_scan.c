#include "engine/vocab/json_scan.h"

#include "base/bytes.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void json_scan_init(json_scan *j, const char *s, size_t n, const char *name, err *e) {
    *j = (json_scan){.start = s, .p = s, .end = s + n, .name = name, .e = e};
}

bool json_scan_fail(json_scan *j, const char *what) {
    if (j->rc == ERR_OK)
        j->rc = err_set(j->e, ERR_INVALID, "%s: %s at byte %zu", j->name, what, (size_t)(j->p - j->start));
    return false;
}

static void skip_white(json_scan *j) {
    while (j->p < j->end && (*j->p == ' ' || *j->p == '\n' || *j->p == '\r' || *j->p == '\t')) j->p++;
}

char json_scan_peek(json_scan *j) {
    if (j->rc != ERR_OK) return 0;
    skip_white(j);
    return j->p < j->end ? *j->p : 0;
}

bool json_scan_enter(json_scan *j, char open) {
    if (json_scan_peek(j) != open)
        return json_scan_fail(j, open == '{' ? "an object is expected" : "an array is expected");
    if (++j->depth > JSON_SCAN_DEPTH_MAX) return json_scan_fail(j, "nested too deep");
    j->p++;
    j->first = true;
    return true;
}

/* The comma before what comes next; false at `close`, or after an error. */
static bool next_item(json_scan *j, char close) {
    char c = json_scan_peek(j);
    bool first = j->first;
    j->first = false;
    if (c == close) {
        j->p++;
        j->depth--;
        return false;
    }
    if (first) return c ? true : json_scan_fail(j, "the text ends too early");
    if (c != ',') return json_scan_fail(j, "a comma is expected");
    j->p++;
    if (json_scan_peek(j) == close) return json_scan_fail(j, "a value is expected");
    return true;
}

bool json_scan_element(json_scan *j) {
    return next_item(j, ']');
}

bool json_scan_member(json_scan *j, buf *key) {
    if (!next_item(j, '}') || !json_scan_string(j, key)) return false;
    if (json_scan_peek(j) != ':') return json_scan_fail(j, "a colon is expected");
    j->p++;
    return true;
}

static int hex4(const char *p, const char *end) {
    int v = 0;
    if (end - p < 4) return -1;
    for (int i = 0; i < 4; i++) {
        char c = p[i];
        int d = c >= '0' && c <= '9' ? c - '0' : (c | 0x20) >= 'a' && (c | 0x20) <= 'f' ? (c | 0x20) - 'a' + 10 : -1;
        if (d < 0) return -1;
        v = v << 4 | d;
    }
    return v;
}

/* \uXXXX and the second half of a pair; p is behind the u. */
static bool put_unicode(json_scan *j, buf *out) {
    int a = hex4(j->p, j->end);
    if (a < 0) return json_scan_fail(j, "four hexadecimal digits are expected");
    j->p += 4;
    uint32_t cp = (uint32_t)a;
    if (a >= 0xd800 && a <= 0xdbff) {
        int b = j->end - j->p >= 6 && j->p[0] == '\\' && j->p[1] == 'u' ? hex4(j->p + 2, j->end) : -1;
        if (b < 0xdc00 || b > 0xdfff) return json_scan_fail(j, "half a surrogate pair");
        cp = 0x10000 + (((uint32_t)a - 0xd800) << 10) + ((uint32_t)b - 0xdc00);
        j->p += 6;
    } else if (a >= 0xdc00 && a <= 0xdfff) {
        return json_scan_fail(j, "half a surrogate pair");
    }
    char c[4];
    int k = utf8_encode(c, cp);
    buf_append(out, c, (size_t)k);
    return true;
}

static bool put_escape(json_scan *j, buf *out) {
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    if (++j->p == j->end) return json_scan_fail(j, "the text ends in a string");
    char c = *j->p++;
    if (c == 'u') return put_unicode(j, out);
    const char *at = c ? strchr(from, c) : NULL;
    if (!at) return json_scan_fail(j, "an unknown escape");
    buf_putc(out, to[at - from]);
    return true;
}

bool json_scan_string(json_scan *j, buf *out) {
    buf_reset(out);
    if (json_scan_peek(j) != '"') return json_scan_fail(j, "a string is expected");
    j->p++;
    for (;;) {
        const char *from = j->p;
        while (j->p < j->end && *j->p != '"' && *j->p != '\\' && (uint8_t)*j->p >= 0x20) j->p++;
        if (!utf8_valid(from, (size_t)(j->p - from))) return json_scan_fail(j, "a string that is not UTF-8");
        buf_append(out, from, (size_t)(j->p - from));
        if (j->p == j->end) return json_scan_fail(j, "the text ends in a string");
        if (*j->p == '"') break;
        if (*j->p != '\\') return json_scan_fail(j, "a control character in a string");
        if (!put_escape(j, out)) return false;
    }
    j->p++;
    if (out->failed) j->rc = buf_check(out, j->name, j->e);
    return j->rc == ERR_OK;
}

bool json_scan_number(json_scan *j, double *out) {
    char text[64];
    size_t n = 0;
    char c = json_scan_peek(j);
    if (c != '-' && (c < '0' || c > '9')) return json_scan_fail(j, "a number is expected");
    while (j->p + n < j->end && n < sizeof text - 1 && j->p[n] && strchr("+-.0123456789eE", j->p[n])) {
        text[n] = j->p[n];
        n++;
    }
    text[n] = 0;
    char *stop;
    *out = strtod(text, &stop);
    if (stop != text + n || !isfinite(*out)) return json_scan_fail(j, "a malformed number");
    j->p += n;
    return true;
}

static bool take_word(json_scan *j, const char *word) {
    size_t n = strlen(word);
    if ((size_t)(j->end - j->p) < n || memcmp(j->p, word, n) != 0) return false;
    j->p += n;
    return true;
}

bool json_scan_bool(json_scan *j, bool *out) {
    json_scan_peek(j);
    if (j->rc != ERR_OK) return false;
    *out = take_word(j, "true");
    return *out || take_word(j, "false") || json_scan_fail(j, "true or false is expected");
}

bool json_scan_null(json_scan *j) {
    json_scan_peek(j);
    return j->rc == ERR_OK && take_word(j, "null");
}

/* A string without taking it apart. */
static bool skip_string(json_scan *j) {
    for (j->p++; j->p < j->end && *j->p != '"'; j->p++)
        if (*j->p == '\\' && ++j->p == j->end) break;
    if (j->p >= j->end) return json_scan_fail(j, "the text ends in a string");
    j->p++;
    return true;
}

static bool skip_scalar(json_scan *j) {
    const char *from = j->p;
    while (j->p < j->end && !strchr(",]} \n\r\t", *j->p)) j->p++;
    return j->p > from || json_scan_fail(j, "a value is expected");
}

bool json_scan_skip(json_scan *j, const char **p, size_t *n) {
    int depth = 0;
    char c = json_scan_peek(j);
    const char *from = j->p;
    if (!c) return json_scan_fail(j, "a value is expected");
    do {
        c = json_scan_peek(j);
        if (!c) return json_scan_fail(j, "the text ends too early");
        if (c == '"') {
            if (!skip_string(j)) return false;
        } else if (c == '{' || c == '[') {
            if (++depth + j->depth > JSON_SCAN_DEPTH_MAX) return json_scan_fail(j, "nested too deep");
            j->p++;
        } else if (c == '}' || c == ']') {
            if (!depth--) return json_scan_fail(j, "a value is expected");
            j->p++;
        } else if (c == ',' || c == ':') {
            if (!depth) return json_scan_fail(j, "a value is expected");
            j->p++;
        } else if (!skip_scalar(j)) {
            return false;
        }
    } while (depth > 0);
    if (p) *p = from;
    if (n) *n = (size_t)(j->p - from);
    j->first = false;
    return true;
}

bool json_scan_end(json_scan *j) {
    if (json_scan_peek(j) || (j->rc == ERR_OK && j->p < j->end)) return json_scan_fail(j, "more follows");
    return j->rc == ERR_OK;
}
