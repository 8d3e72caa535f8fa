/* The table of words: what the recognisers know of languages, in one hash table that is built once. */
#include "base/bytes.h"
#include "base/mem.h"
#include "data/detect/ids.h"
#include "data/detect/internal.h"

#include <string.h>
#include <utf8proc.h>

struct words {
    arena *a;
    word_entry *list; /* [0] has no meaning */
    size_t n, cap;
    /* Of whole words and phrases, and of stems: 16 bits of the hash, 16 bits of the place in list; 0 empty. Small, so
     * that they stay in the processor's cache: every word of every text is looked up. */
    uint32_t *slot, *stem;
    size_t mask, stem_mask;
    size_t n_stems;
    uint64_t stem_lengths[1024]; /* by the hash of a stem's first four bytes: a bit for each length there is */
};

/* Letters from U+00C0 to U+017F without what stands on them, in order; two letters where one will not do. */
static const char latin[] =
    "a\0a\0a\0a\0a\0a\0aec\0e\0e\0e\0e\0i\0i\0i\0i\0d\0n\0o\0o\0o\0o\0o\0*\0o\0u\0u\0u\0u\0y\0thss"
    "a\0a\0a\0a\0a\0a\0aec\0e\0e\0e\0e\0i\0i\0i\0i\0d\0n\0o\0o\0o\0o\0o\0/\0o\0u\0u\0u\0u\0y\0thy\0"
    "a\0a\0a\0a\0a\0a\0c\0c\0c\0c\0c\0c\0c\0c\0d\0d\0d\0d\0e\0e\0e\0e\0e\0e\0e\0e\0e\0e\0g\0g\0g\0g\0"
    "g\0g\0g\0g\0h\0h\0h\0h\0i\0i\0i\0i\0i\0i\0i\0i\0i\0i\0ijijj\0j\0k\0k\0k\0l\0l\0l\0l\0l\0l\0l\0l\0"
    "l\0l\0n\0n\0n\0n\0n\0n\0n\0n\0n\0o\0o\0o\0o\0o\0o\0oeoer\0r\0r\0r\0r\0r\0s\0s\0s\0s\0s\0s\0s\0s\0"
    "t\0t\0t\0t\0t\0t\0u\0u\0u\0u\0u\0u\0u\0u\0u\0u\0u\0u\0w\0w\0y\0y\0y\0z\0z\0z\0z\0z\0z\0s";
_Static_assert(sizeof latin == 2 * (0x180 - 0xc0), "a pair for each letter");

static bool wide_is_capital(uint32_t cp) {
    if (cp < 0xc0) return false;
    if (cp < 0x100) return cp < 0xdf && cp != 0xd7;
    if (cp < 0x180) {
        if ((cp >= 0x139 && cp <= 0x148) || cp >= 0x179) return cp & 1;
        return !(cp & 1) || cp == 0x178;
    }
    return cp >= 0x370 && utf8proc_isupper((utf8proc_int32_t)cp);
}

bool letter_is_capital(const char *p, size_t n) {
    if (!n) return false;
    if ((unsigned char)*p < 0x80) return *p >= 'A' && *p <= 'Z';
    uint32_t cp;
    return utf8_decode(&cp, p, n) > 0 && wide_is_capital(cp);
}

/* Greek, Cyrillic and the rest: lower case, the first character of what it decomposes to. */
static uint32_t fold_other(uint32_t cp) {
    utf8proc_int32_t to[8], low = utf8proc_tolower((utf8proc_int32_t)cp);
    int last = 0;
    utf8proc_ssize_t n = utf8proc_decompose_char(low, to, 8, UTF8PROC_DECOMPOSE, &last);
    return (uint32_t)(n > 0 && n <= 8 ? to[0] : low);
}

size_t word_fold(char out[WORD_MAX], const char *p, size_t n) {
    size_t k = 0;
    memset(out, 0, WORD_MAX);
    for (size_t i = 0; i < n;) {
        unsigned char c = (unsigned char)p[i];
        if (k + 4 > WORD_MAX) return 0;
        if (c < 0x80) {
            out[k++] = (char)(c >= 'A' && c <= 'Z' ? c + 32 : c);
            i++;
            continue;
        }
        uint32_t cp;
        int len = utf8_decode(&cp, p + i, n - i);
        if (len <= 0) return 0;
        i += (size_t)len;
        if (cp >= 0xc0 && cp < 0x180) {
            const char *two = latin + 2 * (cp - 0xc0);
            out[k++] = two[0];
            if (two[1]) out[k++] = two[1];
        } else if (cp >= 0x218 && cp <= 0x21b) {
            out[k++] = cp < 0x21a ? 's' : 't';
        } else {
            k += (size_t)utf8_encode(out + k, fold_other(cp));
        }
    }
    return k;
}

/* Of the first n bytes of a string in a buffer of whole words of eight bytes. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the first byte of a word is its lowest");
static uint64_t hash_of(const char *p, size_t n) {
    uint64_t h = n * UINT64_C(0x9e3779b97f4a7c15), v;
    for (; n >= 8; p += 8, n -= 8) {
        memcpy(&v, p, 8);
        h = (h ^ v) * UINT64_C(0xff51afd7ed558ccd);
        h ^= h >> 32;
    }
    if (n) { /* the bytes behind are there too, and count for nothing */
        memcpy(&v, p, 8);
        v &= ~UINT64_C(0) >> (64 - 8 * n);
        h = (h ^ v) * UINT64_C(0xff51afd7ed558ccd);
        h ^= h >> 32;
    }
    return h ^ h >> 17;
}

/* Two words are the same where the 64 bits of their hashes are (a text made to collide would gain a meaning for one of
 * its words, no more). */
static unsigned look(const words *w, const uint32_t *table, size_t mask, const char *p, size_t n) {
    uint64_t h = hash_of(p, n);
    for (uint64_t i = h;; i++) {
        uint32_t x = table[i & mask];
        if (!x) return 0;
        if (x >> 16 == h >> 48 && w->list[x & 0xffff].hash == h) return x & 0xffff;
    }
}

static uint64_t lengths_of(const words *w, const char *p) {
    return w->stem_lengths[hash_of(p, 4) >> 7 & 1023];
}

/* The longest stem of p, at most n bytes long. */
static unsigned look_stem(const words *w, const char *p, size_t n) {
    if (n < 4) return 0;
    uint64_t lengths = lengths_of(w, p) & (n < 63 ? (UINT64_C(2) << n) - 1 : ~UINT64_C(0));
    while (lengths) {
        unsigned len = 63 - (unsigned)__builtin_clzll(lengths);
        unsigned id = look(w, w->stem, w->stem_mask, p, len);
        if (id) return id;
        lengths &= ~(UINT64_C(1) << len);
    }
    return 0;
}

unsigned words_find(const words *w, const char folded[WORD_MAX], size_t n) {
    unsigned id = look(w, w->slot, w->mask, folded, n);
    return id ? id : look_stem(w, folded, n);
}

const word_entry *words_get(const words *w, unsigned id) {
    return &w->list[id];
}

#define WORDS_EXPECTED 15000
#define STEM_SLOTS     4096

/* ---- building ----------------------------------------------------------------------------------------------- */

static bool grow(words *w) {
    if (w->n < w->cap) return true;
    size_t cap = w->cap ? w->cap * 2 : 8192;
    word_entry *list = mem_realloc(w->list, cap * sizeof *list);
    if (!list) return false;
    w->list = list;
    w->cap = cap;
    return true;
}

/* The slots for at least twice as many words as there will be. */
static bool make_slots(words *w, size_t n) {
    size_t size = 1024;
    while (size < 2 * n) size *= 2;
    w->slot = mem_array(size, sizeof *w->slot);
    w->stem = mem_array(STEM_SLOTS, sizeof *w->stem);
    w->mask = size - 1;
    w->stem_mask = STEM_SLOTS - 1;
    return w->slot && w->stem;
}

/* One more meaning of a word, a phrase or (star) a stem. */
static err_code add(words *w, const char *text, size_t n, bool star, word_entry meaning, err *e) {
    char f[WORD_MAX];
    size_t len = word_fold(f, text, n);
    if (!len || (star && len < 4))
        return err_set(e, ERR_INTERNAL, "word \"%.*s\" cannot be in the table", (int)n, text);
    uint32_t *table = star ? w->stem : w->slot;
    size_t mask = star ? w->stem_mask : w->mask;
    unsigned id = look(w, table, mask, f, len);
    if (!id) {
        char *copy = arena_strndup(w->a, f, len);
        if (!copy || !grow(w)) return err_nomem(e, "the table of words");
        id = (unsigned)w->n++;
        uint64_t h = hash_of(f, len), i = h;
        w->list[id] = (word_entry){.text = copy, .hash = h, .len = (uint8_t)len};
        while (table[i & mask]) i++;
        table[i & mask] = (uint32_t)(h >> 48) << 16 | id;
        if (star) w->n_stems++;
        if (star) w->stem_lengths[hash_of(f, 4) >> 7 & 1023] |= UINT64_C(1) << len;
    }
    word_entry *x = &w->list[id];
    x->rules |= meaning.rules;
    x->kind |= meaning.kind;
    x->id_kinds |= meaning.id_kinds;
    if (meaning.value) x->value = meaning.value;
    return ERR_OK;
}

/* A phrase too: its first words are marked as the beginning of one, and it counts written together. */
static err_code add_phrase(words *w, const char *text, size_t n, word_entry meaning, err *e) {
    bool star = n && text[n - 1] == '*';
    if (star) n--;
    err_code rc = add(w, text, n, star, meaning, e);
    char joined[WORD_MAX * 2];
    uint32_t first = W_PHRASE | (meaning.kind & W_SPECIAL ? (uint32_t)W_SPECIAL_START : 0);
    size_t k = 0, parts = 1;
    for (size_t i = 0; i < n && !rc; i++) {
        if (text[i] == ' ') {
            rc = add(w, text, i, false, (word_entry){.kind = first}, e);
            parts++;
        } else if (k < sizeof joined) {
            joined[k++] = text[i];
        }
    }
    if (!rc && parts > 1 && k >= 5) rc = add(w, joined, k, star, meaning, e);
    return rc;
}

static err_code add_list(words *w, const word_list *l, err *e) {
    for (; l->text; l++) {
        const char *p = l->text;
        while (*p) {
            size_t n = strcspn(p, " ");
            char t[WORD_MAX * 2];
            if (n >= sizeof t) return err_set(e, ERR_INTERNAL, "word \"%.60s\" is too long for the table", p);
            for (size_t i = 0; i < n; i++) t[i] = strchr("_-'.", p[i]) ? ' ' : p[i];
            err_code rc = n ? add_phrase(w, t, n, (word_entry){.kind = l->kind, .value = l->value}, e) : ERR_OK;
            if (rc) return rc;
            p += n + (p[n] == ' ');
        }
    }
    return ERR_OK;
}

static err_code add_id_words(words *w, err *e) {
    err_code rc = ERR_OK;
    for (size_t r = 0; r < id_rule_count && !rc; r++)
        for (const char *const *t = id_rules[r].words; t && *t && !rc; t++)
            rc = add_phrase(w, *t, strlen(*t), (word_entry){.rules = (uint64_t)1 << r}, e);
    for (unsigned k = 0; k < ID_KINDS && !rc; k++)
        for (const char *const *t = id_kind_words[k]; t && *t && !rc; t++)
            rc = add_phrase(w, *t, strlen(*t), (word_entry){.id_kinds = (uint8_t)(1u << k)}, e);
    return rc;
}

/* What a shorter stem says of a word, the longer entry says too. */
static void inherit(words *w) {
    for (size_t i = 1; i < w->n; i++) {
        word_entry *x = &w->list[i];
        char f[WORD_MAX] = {0};
        memcpy(f, x->text, x->len);
        if (x->len < 4) continue;
        uint64_t lengths = lengths_of(w, f);
        for (size_t len = 4; len <= x->len && len < 64; len++) {
            if (!(lengths >> len & 1)) continue;
            const word_entry *s = &w->list[look(w, w->stem, w->stem_mask, f, len)];
            if (s == x || s == w->list) continue;
            x->rules |= s->rules;
            x->kind |= s->kind;
            x->id_kinds |= s->id_kinds;
            if (!x->value) x->value = s->value;
        }
    }
}

err_code words_new(words **out, err *e) {
    *out = NULL;
    words *w = mem_zalloc(sizeof *w);
    if (!w) return err_nomem(e, "the table of words");
    err_code rc = ERR_OK;
    w->a = arena_new((size_t)8 << 20);
    if (!w->a || !make_slots(w, WORDS_EXPECTED) || !grow(w)) rc = err_nomem(e, "the table of words");
    if (!rc) w->list[w->n++] = (word_entry){.text = ""};
    if (!rc) rc = add_list(w, words_cues, e);
    if (!rc) rc = add_list(w, words_names, e);
    if (!rc) rc = add_list(w, words_places, e);
    if (!rc) rc = add_list(w, words_special, e);
    if (!rc) rc = add_id_words(w, e);
    if (!rc && (w->n > WORDS_EXPECTED || w->n_stems > STEM_SLOTS / 2))
        rc = err_set(e, ERR_INTERNAL, "the table of words is too small: %zu", w->n);
    if (rc) {
        words_free(w);
        return rc;
    }
    inherit(w);
    *out = w;
    return ERR_OK;
}

void words_free(words *w) {
    if (!w) return;
    arena_free(w->a);
    mem_free(w->list);
    mem_free(w->slot);
    mem_free(w->stem);
    mem_free(w);
}
