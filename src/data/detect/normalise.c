/* The text as a reader would see it.
 *
 * Most texts are ASCII without a backslash, '%' or '&' and are taken as they are. Otherwise the norm is a copy, with a
 * list of the places where it departs from the text. */
#include "base/bytes.h"
#include "base/mem.h"
#include "data/detect/internal.h"

#include <string.h>
#include <utf8proc.h>

/* The zeros of the scripts' decimal digits (Unicode 14, category Nd): each begins a run of ten. */
static const uint32_t zeros[] = {
    0x660,   0x6f0,   0x7c0,   0x966,   0x9e6,   0xa66,   0xae6,   0xb66,   0xbe6,   0xc66,   0xce6,
    0xd66,   0xde6,   0xe50,   0xed0,   0xf20,   0x1040,  0x1090,  0x17e0,  0x1810,  0x1946,  0x19d0,
    0x1a80,  0x1a90,  0x1b50,  0x1bb0,  0x1c40,  0x1c50,  0xa620,  0xa8d0,  0xa900,  0xa9d0,  0xa9f0,
    0xaa50,  0xabf0,  0xff10,  0x104a0, 0x10d30, 0x11066, 0x110f0, 0x11136, 0x111d0, 0x112f0, 0x11450,
    0x114d0, 0x11650, 0x116c0, 0x11730, 0x118e0, 0x11950, 0x11c50, 0x11d50, 0x11da0, 0x16a60, 0x16ac0,
    0x16b50, 0x1d7ce, 0x1d7d8, 0x1d7e2, 0x1d7ec, 0x1d7f6, 0x1e140, 0x1e2f0, 0x1e950, 0x1fbf0};

static int digit_value(uint32_t cp) {
    size_t lo = 0, hi = sizeof zeros / sizeof *zeros;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (zeros[mid] <= cp)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo && cp - zeros[lo - 1] < 10 ? (int)(cp - zeros[lo - 1]) : -1;
}

#define DROP UINT32_MAX

/* Punctuation and spaces of U+2000 to U+206F. */
static uint32_t see_general(uint32_t cp) {
    if (cp <= 0x200a || cp == 0x202f || cp == 0x205f) return ' ';
    if (cp <= 0x200f || (cp >= 0x202a && cp <= 0x202e) || cp >= 0x2060) return DROP;
    if (cp <= 0x2015) return '-';
    if (cp >= 0x2018 && cp <= 0x201b) return '\'';
    if ((cp >= 0x201c && cp <= 0x201f) || cp == 0x2039 || cp == 0x203a) return '"';
    if (cp == 0x2024) return '.';
    if (cp == 0x2044) return '/';
    if (cp == 0x2028 || cp == 0x2029) return '\n';
    return cp;
}

/* What a reader takes a character for. */
static uint32_t see(uint32_t cp) {
    if (cp < 0x300) {
        switch (cp) {
        case 0xa0: return ' ';
        case 0xad: return DROP;
        case 0xab:
        case 0xbb: return '"';
        case 0xb4:
        case 0x2bc:
        case 0x2019: return '\'';
        default: return cp;
        }
    }
    if (cp <= 0x36f) return DROP;
    if (cp < 0x660) return cp;
    if (cp >= 0x2000 && cp <= 0x206f) return see_general(cp);
    switch (cp) {
    case 0x1680:
    case 0x3000: return ' ';
    case 0x180e:
    case 0xfeff:
    case 0x3164:
    case 0xffa0: return DROP;
    case 0x2212:
    case 0xfe58:
    case 0xfe63: return '-';
    case 0xfe52: return '.';
    case 0xfe6b: return '@';
    default: break;
    }
    if ((cp >= 0xfe00 && cp <= 0xfe0f) || (cp >= 0xe0000 && cp <= 0xe0fff)) return DROP;
    if (cp >= 0xff01 && cp <= 0xff5e) return cp - 0xff01 + '!';
    int v = digit_value(cp);
    if (v >= 0) return (uint32_t)('0' + v);
    if ((cp >= 0x1d400 && cp <= 0x1d7ff) || (cp >= 0x2460 && cp <= 0x24ff) || (cp >= 0x2100 && cp <= 0x214f)) {
        utf8proc_int32_t to[4];
        int last = 0;
        utf8proc_ssize_t n = utf8proc_decompose_char((utf8proc_int32_t)cp, to, 4, UTF8PROC_COMPAT, &last);
        if (n == 1 && to[0] > ' ' && to[0] < 0x7f) return (uint32_t)to[0];
    }
    return cp;
}

static err_code push_seg(norm *m, size_t at, size_t src, size_t width, err *e) {
    if (m->n_seg == m->cap_seg) {
        size_t cap = m->cap_seg ? m->cap_seg * 2 : 64;
        norm_seg *seg = mem_realloc(m->seg, cap * sizeof *seg);
        if (!seg) return err_nomem(e, "the map of a text");
        m->seg = seg;
        m->cap_seg = cap;
    }
    m->seg[m->n_seg++] = (norm_seg){.at = (uint32_t)at, .src = (uint32_t)src, .width = (uint32_t)width};
    return ERR_OK;
}

/* Bytes that stay as they are. */
static err_code keep(norm *m, const char *text, size_t src, size_t n, err *e) {
    const norm_seg *last = m->n_seg ? &m->seg[m->n_seg - 1] : NULL;
    if (!last || last->width || src - last->src != m->n - last->at) {
        err_code rc = push_seg(m, m->n, src, 0, e);
        if (rc) return rc;
    }
    memcpy(m->own + m->n, text + src, n);
    m->n += n;
    return ERR_OK;
}

/* The character cp in place of `width` bytes. */
static err_code put(norm *m, uint32_t cp, size_t src, size_t width, err *e) {
    cp = see(cp);
    if (cp == DROP) return ERR_OK;
    err_code rc = push_seg(m, m->n, src, width, e);
    if (rc) return rc;
    m->n += (size_t)utf8_encode(m->own + m->n, cp);
    return ERR_OK;
}

static int hex4(const char *p, const char *end) {
    if (end - p < 4) return -1;
    int v = 0;
    for (int i = 0; i < 4; i++) {
        int c = (unsigned char)p[i];
        int d = c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
        if (d < 0) return -1;
        v = v << 4 | d;
    }
    return v;
}

/* A JSON escape at text[i], which is a backslash: its length and *cp; 0 where it is none. JSON inside JSON doubles
 * its backslashes, so a run of them counts as one. */
static size_t read_escape(const char *text, size_t n, size_t i, uint32_t *cp) {
    size_t k = i;
    while (k < n && text[k] == '\\') k++;
    if (k == n) return 0;
    switch (text[k]) {
    case 'n':
    case 'r': *cp = '\n'; return k + 1 - i;
    case 't':
    case 'b':
    case 'f': *cp = ' '; return k + 1 - i;
    case '/':
    case '"':
    case '\'': *cp = (unsigned char)text[k]; return k + 1 - i;
    case 'u': break;
    default: return 0;
    }
    const char *end = text + n;
    int hi = hex4(text + k + 1, end);
    if (hi < 0) return 0;
    size_t after = k + 5;
    *cp = (uint32_t)hi;
    if (hi >= 0xdc00 && hi <= 0xdfff) *cp = '?';
    if (hi < 0xd800 || hi > 0xdbff) return after - i;
    *cp = '?';
    size_t b = after;
    while (b < n && text[b] == '\\') b++;
    if (b == after || b == n || text[b] != 'u') return after - i;
    int lo = hex4(text + b + 1, end);
    if (lo < 0xdc00 || lo > 0xdfff) return after - i;
    *cp = 0x10000 + (((uint32_t)hi - 0xd800) << 10) + ((uint32_t)lo - 0xdc00);
    return b + 5 - i;
}

static int hex2(const char *p, size_t n) {
    int v = 0;
    if (n < 2) return -1;
    for (int i = 0; i < 2; i++) {
        int c = (unsigned char)p[i];
        int d = c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
        if (d < 0) return -1;
        v = v << 4 | d;
    }
    return v;
}

/* A percent-encoded character at text[i] (RFC 3986), encoded twice too: its length and *cp; 0 where it is none. Letters
 * and digits are never encoded, so "10%4111…" is a number behind a percent sign. */
static size_t read_percent(const char *text, size_t n, size_t i, uint32_t *cp) {
    size_t k = i + 1;
    while (n - k >= 4 && text[k] == '2' && text[k + 1] == '5' && hex2(text + k + 2, n - k - 2) >= 0) k += 2;
    int v = hex2(text + k, n - k);
    if (v < 0) return 0;
    k += 2;
    if (v < 0x80) {
        bool alnum = (v >= '0' && v <= '9') || ((v | 32) >= 'a' && (v | 32) <= 'z');
        *cp = v == '\r' ? '\n' : v < ' ' && v != '\n' ? ' ' : (uint32_t)v;
        return alnum || v == 0x7f ? 0 : k - i;
    }
    char utf8[4] = {(char)v};
    size_t want = v >= 0xf0 ? 4 : v >= 0xe0 ? 3 : 2;
    for (size_t c = 1; c < want; c++, k += 2) {
        if (k >= n || text[k++] != '%') return 0;
        while (n - k >= 4 && text[k] == '2' && text[k + 1] == '5') k += 2;
        v = hex2(text + k, n - k);
        if (v < 0) return 0;
        utf8[c] = (char)v;
    }
    return utf8_decode(cp, utf8, want) == (int)want ? k - i : 0;
}

/* A character reference of HTML and XML at text[i]: its length and *cp; 0 where it is none. */
static size_t read_reference(const char *text, size_t n, size_t i, uint32_t *cp) {
    static const struct {
        const char *name;
        uint32_t cp;
    } known[] = {{"amp", '&'},     {"nbsp", ' '},    {"commat", '@'},  {"quot", '"'},    {"apos", '\''},
                 {"lt", '<'},      {"gt", '>'},      {"period", '.'},  {"colon", ':'},   {"sol", '/'},
                 {"ndash", '-'},   {"shy", 0xad},    {"thinsp", ' '},  {"auml", 0xe4},   {"ouml", 0xf6},
                 {"uuml", 0xfc},   {"Auml", 0xc4},   {"Ouml", 0xd6},   {"Uuml", 0xdc},   {"szlig", 0xdf},
                 {"eacute", 0xe9}, {"egrave", 0xe8}, {"agrave", 0xe0}, {"ccedil", 0xe7}, {"ntilde", 0xf1},
                 {"oacute", 0xf3}, {"aacute", 0xe1}, {"iacute", 0xed}, {"uacute", 0xfa}};
    size_t k = i + 1, len = 0;
    while (k + len < n && len < 9 && text[k + len] != ';' && text[k + len] > ' ') len++;
    if (k + len >= n || !len || text[k + len] != ';') return 0;
    for (size_t e = 0; text[k] != '#' && e < sizeof known / sizeof *known; e++) {
        if (strlen(known[e].name) != len || memcmp(text + k, known[e].name, len) != 0) continue;
        *cp = known[e].cp;
        return len + 2;
    }
    if (text[k] != '#') return 0;
    bool hex = len > 2 && (text[k + 1] | 32) == 'x';
    uint32_t v = 0;
    for (size_t d = hex ? 2 : 1; d < len; d++) {
        int c = (unsigned char)text[k + d];
        int x = c >= '0' && c <= '9' ? c - '0' : hex && (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
        if (x < 0) return 0;
        v = v * (hex ? 16 : 10) + (uint32_t)x;
    }
    if (len < 2 || !v || v > 0x10ffff || (v >= 0xd800 && v < 0xe000)) return 0;
    *cp = v;
    return len + 2;
}

/* An escape of whatever kind at text[i]; 0 where it is none. */
static size_t read_any(const char *text, size_t n, size_t i, uint32_t *cp) {
    return text[i] == '\\'  ? read_escape(text, n, i, cp)
           : text[i] == '%' ? read_percent(text, n, i, cp)
                            : read_reference(text, n, i, cp);
}

static bool may_escape(char c) {
    return c == '\\' || c == '%' || c == '&';
}

/* How many bytes from p on are ASCII and begin no escape. */
static size_t plain(const char *p, size_t n) {
    size_t i = 0;
    const uint64_t high = UINT64_C(0x8080808080808080), low = UINT64_C(0x0101010101010101);
    for (; i + 8 <= n; i += 8) {
        uint64_t v, x, y, z;
        memcpy(&v, p + i, 8);
        x = v ^ (low * '\\'); /* a zero byte where it is a backslash */
        y = v ^ (low * '%');
        z = v ^ (low * '&');
        if ((v | ((x - low) & ~x) | ((y - low) & ~y) | ((z - low) & ~z)) & high) break;
    }
    while (i < n && (unsigned char)p[i] < 0x80 && !may_escape(p[i])) i++;
    return i;
}

/* Lower-case and capital letters of Latin, Greek and Cyrillic in two bytes, which stay as they are: the quick way for
 * most of what is not ASCII. */
static bool plain_letter(const char *p, size_t n) {
    unsigned char a = (unsigned char)p[0];
    if (n < 2 || ((unsigned char)p[1] & 0xc0) != 0x80) return false;
    return (a >= 0xc3 && a <= 0xca) || (a >= 0xce && a <= 0xd5);
}

err_code norm_make(norm *m, const char *text, size_t n, err *e) {
    m->n = m->n_seg = 0;
    m->same = false;
    size_t i = plain(text, n);
    if (i == n) {
        m->p = text;
        m->n = n;
        m->same = true;
        return ERR_OK;
    }
    if (m->cap < n + 8) { /* nothing grows: an escape is longer than what it means */
        char *own = mem_alloc(n + n / 8 + 64);
        if (!own) return err_nomem(e, "a text's normal form");
        if (m->own) mem_wipe(m->own, m->cap);
        mem_free(m->own);
        m->own = own;
        m->cap = n + n / 8 + 64;
    }
    m->p = m->own;
    err_code rc = i ? keep(m, text, 0, i, e) : ERR_OK;
    while (i < n && !rc) {
        size_t k = plain(text + i, n - i);
        if (k) {
            rc = keep(m, text, i, k, e);
            i += k;
            continue;
        }
        uint32_t cp = 0;
        if (may_escape(text[i])) {
            size_t len = read_any(text, n, i, &cp);
            if (len)
                rc = put(m, cp, i, len, e);
            else { /* the whole run of backslashes at once, so that none is looked at twice */
                for (len = 1; text[i] == '\\' && i + len < n && text[i + len] == '\\';) len++;
                rc = keep(m, text, i, len, e);
            }
            i += len;
            continue;
        }
        if (plain_letter(text + i, n - i)) {
            rc = keep(m, text, i, 2, e);
            i += 2;
            continue;
        }
        int len = utf8_decode(&cp, text + i, n - i);
        if (len <= 0) {
            rc = put(m, '?', i, 1, e);
            i++;
            continue;
        }
        uint32_t seen = see(cp);
        rc = seen == cp ? keep(m, text, i, (size_t)len, e) : put(m, cp, i, (size_t)len, e);
        i += (size_t)len;
    }
    return rc;
}

void norm_free(norm *m) {
    if (m->own) mem_wipe(m->own, m->cap);
    mem_free(m->own);
    mem_free(m->seg);
    memset(m, 0, sizeof *m);
}

static const norm_seg *seg_of(const norm *m, size_t at) {
    size_t lo = 0, hi = m->n_seg;
    while (hi - lo > 1) {
        size_t mid = (lo + hi) / 2;
        if (m->seg[mid].at <= at)
            lo = mid;
        else
            hi = mid;
    }
    return &m->seg[lo];
}

void norm_back(const norm *m, size_t from, size_t to, size_t *text_from, size_t *text_to) {
    if (m->same) {
        *text_from = from;
        *text_to = to;
        return;
    }
    const norm_seg *a = seg_of(m, from), *b = seg_of(m, to - 1);
    *text_from = a->width ? a->src : a->src + (from - a->at);
    *text_to = b->width ? (size_t)b->src + b->width : b->src + (to - b->at);
}
