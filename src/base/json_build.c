/* From text to tree. The scan (json.c) has accepted the text, so nothing is checked here, and only memory can be
 * missing; cJSON's own parser checks it all again, byte by byte. The trees are the same as cJSON's. */
#include "base/json_internal.h"

#include "base/bytes.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define EXACT_DIGITS 15 /* so many a double always holds */

typedef struct builder {
    const char *p, *end;
    const json_literal *list; /* numbers that a double does not hold, in the order of the text */
    size_t n_list, number;
} builder;

static cJSON *build_value(builder *b);

static void skip_space(builder *b) {
    while (b->p < b->end && (*b->p == ' ' || *b->p == '\n' || *b->p == '\r' || *b->p == '\t')) b->p++;
}

static uint32_t hex4(const char *p) {
    uint32_t v = 0;
    for (int k = 0; k < 4; k++) v = v << 4 | (uint32_t)(p[k] <= '9' ? p[k] - '0' : (p[k] | 32) - 'a' + 10);
    return v;
}

/* Of the escape that begins behind p: what it stands for goes to *out, what comes behind it is returned. */
static const char *unescape(const char *p, char **out) {
    static const char from[] = "bfnrt", to[] = "\b\f\n\r\t";
    const char *plain = strchr(from, *p);
    if (*p != 'u') {
        *(*out)++ = plain ? to[plain - from] : *p;
        return p + 1;
    }
    uint32_t cp = hex4(p + 1);
    p += 5;
    if (cp >= 0xd800 && cp < 0xdc00) { /* with its low half, "\uXXXX" */
        cp = 0x10000 + ((cp - 0xd800) << 10) + (hex4(p + 2) - 0xdc00);
        p += 6;
    }
    char utf8[4];
    size_t n = (size_t)utf8_encode(utf8, cp);
    memcpy(*out, utf8, n);
    *out += n;
    return p;
}

static char *escaped_string(const char *p, size_t n) {
    char *s = cJSON_malloc(n + 1), *out = s; /* no escape is shorter than what it stands for */
    for (const char *end = p + n; s && p < end;) {
        const char *slash = memchr(p, '\\', (size_t)(end - p));
        size_t run = (size_t)((slash ? slash : end) - p);
        memcpy(out, p, run);
        out += run;
        p = slash ? unescape(slash + 1, &out) : end;
    }
    if (s) *out = 0;
    return s;
}

/* The string whose opening quote is at hand. */
static char *build_string(builder *b) {
    const char *from = ++b->p, *quote = memchr(from, '"', (size_t)(b->end - from));
    const char *slash = memchr(from, '\\', (size_t)(quote - from));
    if (slash) { /* the quote may be an escaped one */
        quote = slash;
        while (*quote != '"') quote += *quote == '\\' ? 2 : 1;
    }
    size_t n = (size_t)(quote - from);
    b->p = quote + 1;
    if (slash) return escaped_string(from, n);
    char *s = cJSON_malloc(n + 1);
    if (!s) return NULL;
    memcpy(s, from, n);
    s[n] = 0;
    return s;
}

static double read_number(const char *p, size_t n) {
    size_t minus = *p == '-', i = minus;
    double v = 0;
    for (; i < n && p[i] >= '0' && p[i] <= '9'; i++) v = v * 10 + (p[i] - '0');
    if (i == n && n - minus <= EXACT_DIGITS) return minus ? -v : v;
    char text[64]; /* the scan takes 60 */
    memcpy(text, p, n);
    text[n] = 0;
    return strtod(text, NULL);
}

static bool build_number(builder *b, cJSON *v) {
    const char *from = b->p;
    while (b->p < b->end && memchr("0123456789+-.eE", *b->p, 15)) b->p++;
    double d = read_number(from, (size_t)(b->p - from));
    v->type = cJSON_Number;
    v->valuedouble = d;
    v->valueint = d >= INT_MAX ? INT_MAX : d <= INT_MIN ? INT_MIN : (int)d;
    bool is_long = b->n_list && b->list->number == b->number++;
    if (!is_long) return true;
    v->valuestring = cJSON_malloc(b->list->n + 1);
    if (!v->valuestring) return false;
    memcpy(v->valuestring, from, b->list->n);
    v->valuestring[b->list->n] = 0;
    b->list++;
    b->n_list--;
    return true;
}

/* The members of an object or array whose opening bracket is at hand. */
static bool build_members(builder *b, cJSON *v) {
    bool object = *b->p++ == '{';
    v->type = object ? cJSON_Object : cJSON_Array;
    for (;;) {
        skip_space(b);
        if (*b->p == ',') {
            b->p++;
            continue;
        }
        if (*b->p == '}' || *b->p == ']') {
            b->p++;
            return true;
        }
        char *key = NULL;
        if (object) {
            if (!(key = build_string(b))) return false;
            skip_space(b);
            b->p++; /* the colon */
        }
        cJSON *m = build_value(b);
        if (!m) {
            cJSON_free(key);
            return false;
        }
        m->string = key;
        if (v->child) { /* the first knows the last */
            m->prev = v->child->prev;
            m->prev->next = m;
        } else {
            v->child = m;
        }
        v->child->prev = m;
    }
}

static void build_word(builder *b, cJSON *v) {
    v->type = *b->p == 't' ? cJSON_True : *b->p == 'f' ? cJSON_False : cJSON_NULL;
    v->valueint = *b->p == 't';
    b->p += *b->p == 'f' ? 5 : 4;
}

static cJSON *build_value(builder *b) {
    cJSON *v = cJSON_malloc(sizeof *v);
    if (!v) return NULL;
    *v = (cJSON){.type = cJSON_NULL};
    bool ok = true;
    skip_space(b);
    switch (*b->p) {
    case '{':
    case '[': ok = build_members(b, v); break;
    case '"':
        v->type = cJSON_String;
        v->valuestring = build_string(b);
        ok = v->valuestring != NULL;
        break;
    case 't':
    case 'f':
    case 'n': build_word(b, v); break;
    default: ok = build_number(b, v);
    }
    if (ok) return v;
    cJSON_Delete(v);
    return NULL;
}

cJSON *json_build(const char *s, size_t n, const json_literal *list, size_t n_list) {
    builder b = {.p = s, .end = s + n, .list = list, .n_list = n_list};
    return build_value(&b);
}
