/* Tokens, and who is asked about them. */
#include "base/mem.h"
#include "data/detect/detect_rules.h"

#include <string.h>

#define L (B_LOWER | B_URL | B_B64)
#define U (B_UPPER | B_URL | B_B64)
#define D (B_DIGIT | B_HEX | B_URL | B_B64)
#define H B_WIDE
/* C2, E2 and F0 lead what is seldom a letter: signs, dashes, symbols, emoji. They end a word, as ASCII's do. */
const uint8_t byte_class[256] = {['-'] = B_URL | B_B64,
                                 ['_'] = B_URL | B_B64,
                                 ['+'] = B_B64,
                                 ['/'] = B_B64,
                                 ['='] = B_B64,
                                 ['.'] = B_URL,
                                 ['~'] = B_URL,
                                 ['0'] = D,
                                 ['1'] = D,
                                 ['2'] = D,
                                 ['3'] = D,
                                 ['4'] = D,
                                 ['5'] = D,
                                 ['6'] = D,
                                 ['7'] = D,
                                 ['8'] = D,
                                 ['9'] = D,
                                 ['a'] = L | B_HEX,
                                 ['b'] = L | B_HEX,
                                 ['c'] = L | B_HEX,
                                 ['d'] = L | B_HEX,
                                 ['e'] = L | B_HEX,
                                 ['f'] = L | B_HEX,
                                 ['g'] = L,
                                 ['h'] = L,
                                 ['i'] = L,
                                 ['j'] = L,
                                 ['k'] = L,
                                 ['l'] = L,
                                 ['m'] = L,
                                 ['n'] = L,
                                 ['o'] = L,
                                 ['p'] = L,
                                 ['q'] = L,
                                 ['r'] = L,
                                 ['s'] = L,
                                 ['t'] = L,
                                 ['u'] = L,
                                 ['v'] = L,
                                 ['w'] = L,
                                 ['x'] = L,
                                 ['y'] = L,
                                 ['z'] = L,
                                 ['A'] = U | B_HEX,
                                 ['B'] = U | B_HEX,
                                 ['C'] = U | B_HEX,
                                 ['D'] = U | B_HEX,
                                 ['E'] = U | B_HEX,
                                 ['F'] = U | B_HEX,
                                 ['G'] = U,
                                 ['H'] = U,
                                 ['I'] = U,
                                 ['J'] = U,
                                 ['K'] = U,
                                 ['L'] = U,
                                 ['M'] = U,
                                 ['N'] = U,
                                 ['O'] = U,
                                 ['P'] = U,
                                 ['Q'] = U,
                                 ['R'] = U,
                                 ['S'] = U,
                                 ['T'] = U,
                                 ['U'] = U,
                                 ['V'] = U,
                                 ['W'] = U,
                                 ['X'] = U,
                                 ['Y'] = U,
                                 ['Z'] = U,
                                 /* continuation bytes, when inside a word */
                                 [0x80] = H,
                                 [0x81] = H,
                                 [0x82] = H,
                                 [0x83] = H,
                                 [0x84] = H,
                                 [0x85] = H,
                                 [0x86] = H,
                                 [0x87] = H,
                                 [0x88] = H,
                                 [0x89] = H,
                                 [0x8a] = H,
                                 [0x8b] = H,
                                 [0x8c] = H,
                                 [0x8d] = H,
                                 [0x8e] = H,
                                 [0x8f] = H,
                                 [0x90] = H,
                                 [0x91] = H,
                                 [0x92] = H,
                                 [0x93] = H,
                                 [0x94] = H,
                                 [0x95] = H,
                                 [0x96] = H,
                                 [0x97] = H,
                                 [0x98] = H,
                                 [0x99] = H,
                                 [0x9a] = H,
                                 [0x9b] = H,
                                 [0x9c] = H,
                                 [0x9d] = H,
                                 [0x9e] = H,
                                 [0x9f] = H,
                                 [0xa0] = H,
                                 [0xa1] = H,
                                 [0xa2] = H,
                                 [0xa3] = H,
                                 [0xa4] = H,
                                 [0xa5] = H,
                                 [0xa6] = H,
                                 [0xa7] = H,
                                 [0xa8] = H,
                                 [0xa9] = H,
                                 [0xaa] = H,
                                 [0xab] = H,
                                 [0xac] = H,
                                 [0xad] = H,
                                 [0xae] = H,
                                 [0xaf] = H,
                                 [0xb0] = H,
                                 [0xb1] = H,
                                 [0xb2] = H,
                                 [0xb3] = H,
                                 [0xb4] = H,
                                 [0xb5] = H,
                                 [0xb6] = H,
                                 [0xb7] = H,
                                 [0xb8] = H,
                                 [0xb9] = H,
                                 [0xba] = H,
                                 [0xbb] = H,
                                 [0xbc] = H,
                                 [0xbd] = H,
                                 [0xbe] = H,
                                 [0xbf] = H,
                                 [0xc2] = B_LEAD,
                                 [0xe2] = B_LEAD,
                                 [0xf0] = B_LEAD,
                                 [0xc3] = H,
                                 [0xc4] = H,
                                 [0xc5] = H,
                                 [0xc6] = H,
                                 [0xc7] = H,
                                 [0xc8] = H,
                                 [0xc9] = H,
                                 [0xca] = H,
                                 [0xcb] = H,
                                 [0xcc] = H,
                                 [0xcd] = H,
                                 [0xce] = H,
                                 [0xcf] = H,
                                 [0xd0] = H,
                                 [0xd1] = H,
                                 [0xd2] = H,
                                 [0xd3] = H,
                                 [0xd4] = H,
                                 [0xd5] = H,
                                 [0xd6] = H,
                                 [0xd7] = H,
                                 [0xd8] = H,
                                 [0xd9] = H,
                                 [0xda] = H,
                                 [0xdb] = H,
                                 [0xdc] = H,
                                 [0xdd] = H,
                                 [0xde] = H,
                                 [0xdf] = H,
                                 [0xe0] = H,
                                 [0xe1] = H,
                                 [0xe3] = H,
                                 [0xe4] = H,
                                 [0xe5] = H,
                                 [0xe6] = H,
                                 [0xe7] = H,
                                 [0xe8] = H,
                                 [0xe9] = H,
                                 [0xea] = H,
                                 [0xeb] = H,
                                 [0xec] = H,
                                 [0xed] = H,
                                 [0xee] = H,
                                 [0xef] = H,
                                 [0xf1] = H,
                                 [0xf2] = H,
                                 [0xf3] = H,
                                 [0xf4] = H};
#undef L
#undef U
#undef D
#undef H

void scan_add(scan *s, unsigned ent, unsigned score, size_t from, size_t to) {
    scratch *x = s->x;
    if (s->failed || score < SCORE_REPORT || from >= to) return;
    if (x->n_hits == x->cap_hits) {
        size_t cap = x->cap_hits ? x->cap_hits * 2 : 64;
        hit *h = cap > HITS_MAX ? NULL : mem_realloc(x->hits, cap * sizeof *h);
        if (!h) {
            s->failed = true;
            s->code = cap > HITS_MAX ? ERR_UNAVAILABLE : ERR_NOMEM;
            return;
        }
        x->hits = h;
        x->cap_hits = cap;
    }
    x->hits[x->n_hits++] = (hit){ent, score > 100 ? 100 : score, (uint32_t)from, (uint32_t)to};
}

/* ---- tokens ------------------------------------------------------------------------------------------------- */

/* What stands between two words: skips it, and says what matters of it. */
static size_t skip_gap(const char *p, size_t at, size_t n, uint32_t *flags) {
    size_t start = at;
    bool line = at == 0, sentence = at == 0;
    while (at < n) {
        unsigned char c = (unsigned char)p[at];
        uint8_t k = byte_class[c];
        if (k & B_WORD) break;
        if (k & B_LEAD) {
            at++;
            while (at < n && ((unsigned char)p[at] & 0xc0) == 0x80) at++;
            continue;
        }
        if (c == '\n')
            line = sentence = true;
        else if (c == '.' || c == '!' || c == '?' || c == ':')
            sentence = true;
        at++;
    }
    *flags = (line ? T_LINE : 0) | (sentence ? T_SENTENCE : 0);
    if (at == start || at == n) return at;
    char last = p[at - 1];
    if (last == '@') *flags |= T_AT;
    if (last == ':') *flags |= T_COLON;
    if (last == '/' && at - start >= 2 && p[at - 2] == '/') *flags |= T_SLASHES;
    if (at - start >= 5 && memcmp(p + at - 5, "-----", 5) == 0) *flags |= T_DASHES;
    return at;
}

/* What a word's bytes say together. */
static uint32_t letters_flags(const char *p, size_t n, uint8_t all, bool hex) {
    uint32_t f = 0;
    if (all & B_LOWER) f |= T_LOWER;
    if (all & B_UPPER) f |= T_UPPER;
    if (all & B_DIGIT) f |= all & (B_LOWER | B_UPPER | B_WIDE) ? T_DIGIT : T_DIGIT | T_NUMBER;
    if (all & B_WIDE) f |= T_WIDE;
    if ((n == 8 || n == 11) && all & B_UPPER && !(all & (B_LOWER | B_DIGIT | B_WIDE))) f |= T_BIC;
    if (n >= 16) f |= T_LONG;
    if (hex && n <= 4) f |= T_HEX;
    if (all & B_WIDE ? letter_is_capital(p, n) : *p >= 'A' && *p <= 'Z') f |= T_CAPITAL;
    return f;
}

/* Letters and digits of ASCII: one bit makes a letter small and is set in a digit already. Of the n bytes `left` may be
 * read; out is filled with zeros as far as a hash of it looks. */
static void fold_ascii(char out[WORD_MAX], const char *p, size_t n, size_t left) {
    const uint64_t small = UINT64_C(0x2020202020202020);
    for (size_t i = 0; i < n; i += 8) {
        uint64_t v = 0;
        if (left - i >= 8)
            memcpy(&v, p + i, 8);
        else
            memcpy(&v, p + i, left - i);
        v |= small;
        if (n - i < 8) v &= ~UINT64_C(0) >> (64 - 8 * (n - i));
        memcpy(out + i, &v, 8);
    }
}

static void read_token(const scan *s, token *t, uint32_t gap, size_t at) {
    const char *p = s->p;
    size_t i = at;
    uint8_t all = 0, hex = B_HEX;
    for (; i < s->n; i++) {
        uint8_t k = byte_class[(unsigned char)p[i]];
        if (!(k & B_WORD)) break;
        all |= k;
        hex &= k;
    }
    *t = (token){.at = (uint32_t)at, .len = (uint32_t)(i - at)};
    t->flags = gap | letters_flags(p + at, i - at, all, hex);
    if (i < s->n && p[i] == ':') t->flags |= T_COLON;
    if (t->flags & T_NUMBER || t->len > WORD_MAX - 8) return;
    char f[WORD_MAX];
    size_t len = t->len;
    if (all & B_WIDE)
        len = word_fold(f, p + at, t->len);
    else
        fold_ascii(f, p + at, len, s->n - at);
    if (len) t->word = (uint16_t)words_find(s->w, f, len);
}

static size_t fill_window(scan *s, size_t at) {
    while (s->n_tok < WINDOW && at < s->n) {
        uint32_t gap;
        at = skip_gap(s->p, at, s->n, &gap);
        if (at >= s->n) break;
        token *t = &s->t[s->n_tok++];
        read_token(s, t, gap, at);
        at = token_end(t);
    }
    return at;
}

/* ---- around a token ----------------------------------------------------------------------------------------- */

static bool joins(const scan *s, size_t i) { /* token i goes on where i - 1 ended, as parts of a phrase do */
    return s->t[i].at - token_end(&s->t[i - 1]) <= 3;
}

/* The longest phrase that begins at token i, or the word itself. */
static unsigned phrase_at(const scan *s, size_t i, size_t *last) {
    unsigned best = s->t[i].word;
    *last = i;
    if (s->t[i].phrase) {
        *last = i + s->t[i].phrase_len;
        return s->t[i].phrase;
    }
    if (!(words_get(s->w, best)->kind & W_PHRASE)) return best;
    char all[WORD_MAX] = {0}, f[WORD_MAX];
    size_t k = word_fold(all, s->p + s->t[i].at, s->t[i].len);
    for (size_t j = i + 1; k && j < s->n_tok && j < i + 6 && joins(s, j); j++) {
        size_t len = word_fold(f, s->p + s->t[j].at, s->t[j].len);
        if (!len || k + 1 + len > WORD_MAX) break;
        all[k++] = ' ';
        memcpy(all + k, f, len);
        k += len;
        unsigned id = words_find(s->w, all, k);
        /* an entry that reaches into the last word, not the stem of an earlier one */
        if (!id || words_get(s->w, id)->len <= k - len) continue;
        best = id;
        *last = j;
    }
    s->t[i].phrase = (uint16_t)best;
    s->t[i].phrase_len = (uint8_t)(*last - i);
    return best;
}

static near_words words_of(const scan *s, size_t from, size_t to) {
    near_words r = {0};
    for (size_t k = from; k < to; k++) {
        if (!s->t[k].word) continue;
        const word_entry *w = words_get(s->w, s->t[k].word), *v = w;
        size_t last;
        if (w->kind & W_PHRASE) v = words_get(s->w, phrase_at(s, k, &last));
        r.rules |= w->rules | v->rules;
        r.id_kinds |= w->id_kinds | v->id_kinds;
        r.kinds |= w->kind | v->kind;
    }
    s->x->work += to - from;
    return r;
}

near_words scan_near(const scan *s, size_t i, size_t j, unsigned before, unsigned after) {
    return words_of(s, i > before ? i - before : 0, j + 1 + after < s->n_tok ? j + 1 + after : s->n_tok);
}

near_words scan_before(const scan *s, size_t i, unsigned before) {
    return words_of(s, i > before ? i - before : 0, i);
}

const word_entry *scan_phrase(const scan *s, size_t i) {
    size_t last;
    return words_get(s->w, phrase_at(s, i, &last));
}

const word_entry *scan_phrase_end(const scan *s, size_t i, size_t *last) {
    return words_get(s->w, phrase_at(s, i, last));
}

/* ---- dispatch ----------------------------------------------------------------------------------------------- */

static void ask(scan *s, size_t i, uint32_t any, uint32_t kinds) {
    const token *t = &s->t[i];
    uint32_t kind = words_get(s->w, t->word)->kind;
    if (!((t->flags & any) | (kind & kinds)) || t->at < s->claimed) return;
    for (const recogniser *r = recognisers; r->name && !s->failed; r++)
        if ((t->flags & r->any) | (kind & r->kinds)) {
            s->x->work++;
            r->fn(s, i);
        }
}

err_code scan_run(scan *s) {
    uint32_t any = 0, kinds = 0;
    for (const recogniser *r = recognisers; r->name; r++) {
        any |= r->any;
        kinds |= r->kinds;
    }
    size_t at = 0, next = 0;
    bool own = rules_have_words(s->own);
    s->t = s->x->tok;
    s->n_tok = 0;
    for (;;) {
        at = fill_window(s, at);
        bool end = s->n_tok < WINDOW;
        size_t stop = end ? s->n_tok : WINDOW - WINDOW_KEEP;
        for (; next < stop && !s->failed; next++) {
            if (own) rules_words(s, s->own, next);
            ask(s, next, any, kinds);
        }
        if (end || s->failed) break;
        /* the window moves on: what was asked goes, but for what the next may look back at */
        size_t drop = next - WINDOW_KEEP;
        memmove(s->t, s->t + drop, (s->n_tok - drop) * sizeof *s->t);
        s->n_tok -= drop;
        next -= drop;
    }
    return s->failed ? s->code : ERR_OK;
}
