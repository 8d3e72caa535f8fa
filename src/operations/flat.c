#include "operations/flat.h"

#include "base/bytes.h"

#include <stdlib.h>
#include <string.h>

/* Behind the string that begins at p; NULL: it does not end. */
static const char *skip_string(const char *p, const char *end) {
    for (p++; p < end; p++) {
        const char *quote = memchr(p, '"', (size_t)(end - p));
        if (!quote) return NULL;
        size_t slashes = 0;
        for (const char *b = quote; b > p && b[-1] == '\\'; b--) slashes++;
        p = quote;
        if (slashes % 2 == 0) return p + 1;
    }
    return NULL;
}

/* Behind the value that begins at p; NULL: it does not end. */
static const char *skip_value(const char *p, const char *end) {
    size_t depth = 0;
    while (p < end) {
        char c = *p;
        if (c == '"') {
            p = skip_string(p, end);
            if (!p || depth == 0) return p;
            continue;
        }
        if (c == '{' || c == '[') depth++;
        if (c == '}' || c == ']') {
            if (depth <= 1) return depth ? p + 1 : p;
            depth--;
        }
        if (c == ',' && depth == 0) return p;
        p++;
    }
    return depth ? NULL : p;
}

static bool begin(flat *f, slice v, char open, char close) {
    if (!v.p || v.n < 2 || v.p[0] != open || v.p[v.n - 1] != close) return false;
    *f = (flat){v.p + 1, v.p + v.n - 1};
    return true;
}

bool flat_object(flat *f, slice v) {
    return begin(f, v, '{', '}');
}
bool flat_array(flat *f, slice v) {
    return begin(f, v, '[', ']');
}

bool flat_next(flat *f, slice *key, slice *value) {
    const char *p = f->p;
    if (p < f->end && *p == ',') p++;
    if (p >= f->end) return false;
    if (key) {
        const char *after = *p == '"' ? skip_string(p, f->end) : NULL;
        if (!after || after >= f->end || *after != ':') return false;
        *key = (slice){p + 1, (size_t)(after - p) - 2};
        p = after + 1;
    }
    const char *after = skip_value(p, f->end);
    if (!after || after == p) return false;
    *value = (slice){p, (size_t)(after - p)};
    f->p = after;
    return true;
}

bool slice_is(slice v, const char *json) {
    return v.p && strlen(json) == v.n && memcmp(v.p, json, v.n) == 0;
}

static uint32_t hex4(const char *p) {
    uint8_t b[2];
    char lower[4];
    for (int i = 0; i < 4; i++) lower[i] = p[i] >= 'A' && p[i] <= 'F' ? (char)(p[i] + 32) : p[i];
    return hex_decode(b, 2, lower, 4) ? (uint32_t)b[0] << 8 | b[1] : 0xfffd;
}

/* One character of a string, escaped or not, as UTF-8. */
static const char *take_char(const char *p, const char *end, char out[4], size_t *n) {
    static const char from[] = "bfnrt", to[] = "\b\f\n\r\t";
    uint32_t cp = 0;
    if (*p != '\\') {
        int k = utf8_decode(&cp, p, (size_t)(end - p));
        if (k < 1) k = 1, cp = 0xfffd;
        *n = (size_t)utf8_encode(out, cp);
        return p + k;
    }
    if (end - p < 2) return end;
    const char *known = strchr(from, p[1]);
    if (p[1] != 'u') {
        out[0] = known ? to[known - from] : p[1];
        *n = 1;
        return p + 2;
    }
    if (end - p < 6) return end;
    cp = hex4(p + 2);
    p += 6;
    if (cp >= 0xd800 && cp < 0xdc00 && end - p >= 6 && p[0] == '\\' && p[1] == 'u') {
        uint32_t low = hex4(p + 2);
        if (low >= 0xdc00 && low < 0xe000) {
            cp = 0x10000 + ((cp - 0xd800) << 10) + (low - 0xdc00);
            p += 6;
        }
    }
    *n = (size_t)utf8_encode(out, cp);
    return p;
}

void slice_text(slice v, char *out, size_t cap) {
    size_t at = 0;
    if (v.p && v.n >= 2 && v.p[0] == '"') {
        const char *p = v.p + 1, *end = v.p + v.n - 1;
        while (p < end) {
            char one[4];
            size_t n = 0;
            p = take_char(p, end, one, &n);
            if (at + n >= cap) break;
            memcpy(out + at, one, n);
            at += n;
        }
    }
    out[at] = 0;
}

uint64_t slice_u64(slice v) {
    uint64_t n = 0;
    if (!v.p || !v.n || v.n > 16) return 0; /* canonical numbers past 2^53 do not occur */
    for (size_t i = 0; i < v.n; i++) {
        if (v.p[i] < '0' || v.p[i] > '9') return 0;
        n = 10 * n + (uint64_t)(v.p[i] - '0');
    }
    return n;
}

double slice_num(slice v) {
    char text[40];
    if (!v.p || !v.n || v.n >= sizeof text || !memchr("-0123456789", v.p[0], 11)) return 0;
    memcpy(text, v.p, v.n);
    text[v.n] = 0;
    return strtod(text, NULL);
}
