#include "engine/vocab/vocab_normal.h"

#include "base/bytes.h"
#include "base/mem.h"

#include <pthread.h>
#include <string.h>
#include <utf8proc.h>

/* ---- what characters do ----------------------------------------------------------------------------------- */

/* Bits of a character: CHANGES << form, where it alone is not its own form; EDGE << compatible, where no form reaches
 * across the place before it. */
enum { CHANGES = 1, EDGE = 1 << 5 };
#define CHARACTERS 0x110000
static uint8_t facts[CHARACTERS];
static pthread_once_t facts_once = PTHREAD_ONCE_INIT;

static bool is_second(uint32_t cp) { /* may be composed with what stands before it */
    if ((cp >= 0x1161 && cp <= 0x1175) || (cp >= 0x11a8 && cp <= 0x11c2)) return true; /* Hangul */
    uint16_t ix = utf8proc_get_property((utf8proc_int32_t)cp)->comb_index;
    return ix != UINT16_MAX && ix >= 0x8000;
}

static uint8_t class_of(uint32_t cp) {
    return (uint8_t)utf8proc_get_property((utf8proc_int32_t)cp)->combining_class;
}

#define EXPANSION_MAX 32
/* The decomposition of cp, canonical or compatible: how many characters. */
static size_t decompose(uint32_t cp, bool compatible, int32_t out[EXPANSION_MAX]) {
    utf8proc_option_t o = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE;
    if (compatible) o = (utf8proc_option_t)(o | UTF8PROC_COMPAT);
    utf8proc_ssize_t n = utf8proc_decompose_char((utf8proc_int32_t)cp, out, EXPANSION_MAX, o, NULL);
    if (n > 0 && n <= EXPANSION_MAX) return (size_t)n;
    out[0] = (int32_t)cp;
    return 1;
}

static size_t compose(int32_t *cps, size_t n) {
    utf8proc_ssize_t k = utf8proc_normalize_utf32(cps, (utf8proc_ssize_t)n, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    return k > 0 ? (size_t)k : n;
}

static uint8_t facts_of(uint32_t cp) {
    if (cp >= 0xac00 && cp <= 0xd7a3) /* Hangul syllables fall apart, and come together again */
        return CHANGES << SPEC_FORM_NFD | CHANGES << SPEC_FORM_NFKD | EDGE | EDGE << 1;
    const utf8proc_property_t *p = utf8proc_get_property((utf8proc_int32_t)cp);
    uint8_t f = 0;
    for (int compatible = 0; compatible < 2; compatible++) {
        int32_t d[EXPANSION_MAX] = {(int32_t)cp};
        size_t n = p->decomp_seqindex == UINT16_MAX ? 1 : decompose(cp, compatible, d);
        uint32_t first = (uint32_t)d[0];
        if (!class_of(first) && !is_second(first) && !p->combining_class && !is_second(cp))
            f |= (uint8_t)(EDGE << compatible);
        if (n == 1 && first == cp) continue;
        f |= (uint8_t)(CHANGES << (compatible ? SPEC_FORM_NFKD : SPEC_FORM_NFD));
        n = compose(d, n);
        if (n != 1 || (uint32_t)d[0] != cp) f |= (uint8_t)(CHANGES << (compatible ? SPEC_FORM_NFKC : SPEC_FORM_NFC));
    }
    return f;
}

static void facts_fill(void) {
    for (uint32_t cp = 0; cp < CHARACTERS; cp++) {
        if (cp == 0x40000) cp = 0xe0000; /* planes without assigned characters, and the private ones, stand alone */
        if (cp == 0xf0000) break;
        facts[cp] = facts_of(cp);
    }
    memset(facts + 0x40000, EDGE | EDGE << 1, 0xa0000);
    memset(facts + 0xf0000, EDGE | EDGE << 1, 0x20000);
}

static bool is_compatible(spec_form form) {
    return form == SPEC_FORM_NFKC || form == SPEC_FORM_NFKD;
}

bool normal_is_boundary(spec_form form, uint32_t cp) {
    pthread_once(&facts_once, facts_fill);
    return form == SPEC_FORM_NONE || (facts[cp] & EDGE << is_compatible(form));
}

/* ---- spans that need work --------------------------------------------------------------------------------- */

typedef struct span { /* characters of a stretch of text, decomposed */
    int32_t *cps, *sorted;
    size_t n, cap;
} span;

static err_code span_reserve(span *t, size_t more, err *e) {
    if (t->cap - t->n >= more) return ERR_OK;
    size_t cap = t->cap ? t->cap * 2 : 256;
    while (cap - t->n < more) cap *= 2;
    int32_t *a = mem_realloc(t->cps, cap * sizeof *a);
    if (a) t->cps = a;
    int32_t *b = a ? mem_realloc(t->sorted, cap * sizeof *b) : NULL;
    if (b) t->sorted = b;
    if (!a || !b) return err_nomem(e, "the normal form of a text");
    t->cap = cap;
    return ERR_OK;
}

/* Canonical order: marks between two characters of class 0 by class, equals as they came. */
static void sort_marks(int32_t *cps, int32_t *room, size_t n) {
    if (n < 2) return;
    if (n <= 8) { /* by insertion */
        for (size_t i = 1; i < n; i++) {
            int32_t c = cps[i];
            size_t k = i;
            for (; k && class_of((uint32_t)cps[k - 1]) > class_of((uint32_t)c); k--) cps[k] = cps[k - 1];
            cps[k] = c;
        }
        return;
    }
    size_t count[256] = {0}, sum = 0;
    for (size_t i = 0; i < n; i++) count[class_of((uint32_t)cps[i])]++;
    for (size_t k = 0; k < 256; k++) {
        size_t c = count[k];
        count[k] = sum;
        sum += c;
    }
    for (size_t i = 0; i < n; i++) room[count[class_of((uint32_t)cps[i])]++] = cps[i];
    memcpy(cps, room, n * sizeof *cps);
}

static void span_order(span *t) {
    for (size_t i = 0; i < t->n;) {
        if (!class_of((uint32_t)t->cps[i])) {
            i++;
            continue;
        }
        size_t from = i;
        while (i < t->n && class_of((uint32_t)t->cps[i])) i++;
        sort_marks(t->cps + from, t->sorted, i - from);
    }
}

static void span_out(span *t, spec_form form, buf *out) {
    char c[4];
    span_order(t);
    if (form == SPEC_FORM_NFC || form == SPEC_FORM_NFKC) t->n = compose(t->cps, t->n);
    for (size_t i = 0; i < t->n; i++) {
        int k = utf8_encode(c, (uint32_t)t->cps[i]);
        buf_append(out, c, (size_t)k);
    }
    t->n = 0;
}

static err_code span_add(span *t, spec_form form, const char *s, size_t n, err *e) {
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        int k = utf8_decode(&cp, s + i, n - i);
        err_code rc = span_reserve(t, EXPANSION_MAX, e);
        if (rc != ERR_OK) return rc;
        t->n += decompose(cp, is_compatible(form), t->cps + t->n);
        i += (size_t)k;
    }
    return ERR_OK;
}

/* The end of the span at i: before the next character that is an edge, or what is no character. */
static size_t span_end(const char *s, size_t n, size_t i, uint8_t edge) {
    uint32_t cp;
    for (int k = utf8_decode(&cp, s + i, n - i); k > 0;) {
        i += (size_t)k;
        if (i == n) return i;
        k = utf8_decode(&cp, s + i, n - i);
        if (k > 0 && (facts[cp] & edge)) return i;
    }
    return i;
}

err_code normal_form(spec_form form, const char *s, size_t n, buf *out, err *e) {
    if (form == SPEC_FORM_NONE) {
        buf_append(out, s, n);
        return buf_check(out, "the text to tokenize", e);
    }
    pthread_once(&facts_once, facts_fill);
    uint8_t edge = (uint8_t)(EDGE << is_compatible(form)), changes = (uint8_t)(CHANGES << form);
    span t = {0};
    err_code rc = ERR_OK;
    size_t good = 0; /* where what may be copied begins */
    for (size_t i = 0; i < n && rc == ERR_OK;) {
        uint32_t cp;
        int k = utf8_decode(&cp, s + i, n - i);
        if (k <= 0) {
            i++;
            continue;
        }
        if (i + (size_t)k < n && (uint8_t)s[i] < 0x80 && (uint8_t)s[i + 1] < 0x80) {
            i++;
            continue;
        }
        size_t end = span_end(s, n, i, edge);
        if (end > i + (size_t)k || (facts[cp] & changes)) {
            buf_append(out, s + good, i - good);
            rc = span_add(&t, form, s + i, end - i, e);
            if (rc == ERR_OK) span_out(&t, form, out);
            good = end;
        }
        i = end;
    }
    if (rc == ERR_OK) {
        buf_append(out, s + good, n - good);
        rc = buf_check(out, "the text to tokenize", e);
    }
    mem_free(t.cps);
    mem_free(t.sorted);
    return rc;
}

/* ---- white space ------------------------------------------------------------------------------------------ */

bool normal_is_white(uint32_t cp) {
    if (cp < 0x80) return cp == ' ' || (cp >= 9 && cp <= 13);
    return cp == 0x85 || cp == 0xa0 || cp == 0x1680 || (cp >= 0x2000 && cp <= 0x200a) || cp == 0x2028 || cp == 0x2029 ||
           cp == 0x202f || cp == 0x205f || cp == 0x3000;
}

size_t normal_white_before(const char *s, size_t n) {
    size_t i = 0;
    while (i < n) {
        uint32_t cp;
        int k = utf8_decode(&cp, s + i, n - i);
        if (k <= 0 || !normal_is_white(cp)) break;
        i += (size_t)k;
    }
    return i;
}

size_t normal_white_after(const char *s, size_t n) {
    size_t end = n;
    while (end) {
        size_t at = end - 1;
        while (at && end - at < 4 && ((uint8_t)s[at] & 0xc0) == 0x80) at--;
        uint32_t cp;
        int k = utf8_decode(&cp, s + at, end - at);
        if (k <= 0 || (size_t)k != end - at || !normal_is_white(cp)) break;
        end = at;
    }
    return n - end;
}

/* ---- BERT ------------------------------------------------------------------------------------------------- */

/* The Rust library has U+2B920 for the U+2B820 of BERT's first program, and every tokenizer.json runs by it. */
static bool is_chinese(uint32_t cp) {
    return (cp >= 0x4e00 && cp <= 0x9fff) || (cp >= 0x3400 && cp <= 0x4dbf) || (cp >= 0x20000 && cp <= 0x2a6df) ||
           (cp >= 0x2a700 && cp <= 0x2b81f) || (cp >= 0x2b920 && cp <= 0x2ceaf) || (cp >= 0xf900 && cp <= 0xfaff) ||
           (cp >= 0x2f800 && cp <= 0x2fa1f);
}

bool normal_is_punctuation(uint32_t cp) {
    if (cp < 0x80)
        return (cp >= '!' && cp <= '/') || (cp >= ':' && cp <= '@') || (cp >= '[' && cp <= '`') ||
               (cp >= '{' && cp <= '~');
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
    return c >= UTF8PROC_CATEGORY_PC && c <= UTF8PROC_CATEGORY_PO;
}

static bool is_control(uint32_t cp) {
    if (cp == '\t' || cp == '\n' || cp == '\r') return false;
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
    return c == UTF8PROC_CATEGORY_CC || c == UTF8PROC_CATEGORY_CF || c == UTF8PROC_CATEGORY_CO ||
           c == UTF8PROC_CATEGORY_CS;
}

static void put_char(buf *out, uint32_t cp) {
    char c[4];
    int k = utf8_encode(c, cp);
    buf_append(out, c, (size_t)k);
}

/* Cleans and puts spaces around Chinese characters. What is not UTF-8 counts as U+FFFD. */
static void bert_clean(uint8_t how, const char *s, size_t n, buf *out) {
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        int k = utf8_decode(&cp, s + i, n - i);
        if (k <= 0) cp = 0xfffd;
        size_t len = k > 0 ? (size_t)k : 1;
        if ((how & SPEC_BERT_CLEAN) && (!cp || cp == 0xfffd || is_control(cp))) {
        } else if ((how & SPEC_BERT_CLEAN) && normal_is_white(cp)) {
            buf_putc(out, ' ');
        } else if ((how & SPEC_BERT_CJK) && is_chinese(cp)) {
            buf_putc(out, ' ');
            put_char(out, cp);
            buf_putc(out, ' ');
        } else {
            put_char(out, cp);
        }
        i += len;
    }
}

static void bert_fold(uint8_t how, const char *s, size_t n, buf *out) {
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        int k = utf8_decode(&cp, s + i, n - i);
        if (k <= 0) return; /* bert_clean left none */
        i += (size_t)k;
        if (cp >= 0x80 && (how & SPEC_BERT_ACCENTS) && utf8proc_category((utf8proc_int32_t)cp) == UTF8PROC_CATEGORY_MN)
            continue;
        if (how & SPEC_BERT_LOWER) {
            if (cp == 0x130) { /* the one character whose lower case is two */
                put_char(out, 'i');
                cp = 0x307;
            } else {
                cp = (uint32_t)utf8proc_tolower((utf8proc_int32_t)cp);
            }
        }
        put_char(out, cp);
    }
}

err_code normal_bert(uint8_t how, const char *s, size_t n, buf *out, err *e) {
    buf clean = {.max = out->max}, apart = {.max = out->max};
    bert_clean(how, s, n, &clean);
    err_code rc = buf_check(&clean, "the text to tokenize", e);
    if (rc == ERR_OK)
        rc = normal_form(how & SPEC_BERT_ACCENTS ? SPEC_FORM_NFD : SPEC_FORM_NONE, clean.ptr, clean.len, &apart, e);
    if (rc == ERR_OK) {
        bert_fold(how, apart.ptr, apart.len, out);
        rc = buf_check(out, "the text to tokenize", e);
    }
    buf_free(&clean);
    buf_free(&apart);
    return rc;
}
