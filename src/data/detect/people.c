/* Names of persons: gazetteers of first and family names, titles, and words that announce a name. A token classifier
 * can join beside it in the table of recognisers. */
#include "data/detect/recognisers.h"

#include <string.h>

#define PARTS_MAX 6

static uint32_t kind_of(const scan *s, size_t i) {
    return i < s->n_tok ? scan_word(s, i)->kind : 0;
}

static bool is_initial(const scan *s, size_t i) {
    return i < s->n_tok && s->t[i].len == 1 && s->t[i].flags & T_CAPITAL;
}

/* Could this token be part of a name, known or not? */
static bool is_name_word(const scan *s, size_t i) {
    if (i >= s->n_tok) return false;
    const token *t = &s->t[i];
    if (!(t->flags & T_CAPITAL) || t->flags & T_DIGIT || t->len < 2) return false;
    uint32_t k = kind_of(s, i);
    if (k & (W_FIRST | W_LAST)) return true;
    return !(k & (W_NOT_NAME | W_COMPANY | W_STREET | W_MONTH | W_CITY | W_HONORIFIC | W_NAME_CUE | W_SECRET |
                  W_PASSWORD | W_ADDRESS | W_PHONE | W_PLATE | W_REF | W_GREETING | W_BORN | W_PERSON | W_VERSION |
                  W_CLOUD | W_SPECIAL));
}

/* Token i goes on in the same name as i - 1: a blank, a hyphen, an apostrophe, or ". " behind an initial. */
static bool goes_on(const scan *s, size_t i) {
    if (!i || i >= s->n_tok) return false;
    size_t from = token_end(&s->t[i - 1]), n = s->t[i].at - from;
    const char *p = s->p + from;
    if (n == 1) return strchr(" -'", *p) != NULL || (*p == '.' && s->t[i - 1].len <= 2);
    return n == 2 && p[0] == '.' && p[1] == ' ' && s->t[i - 1].len <= 2;
}

typedef struct name {
    size_t last; /* token */
    unsigned parts, first, family, unknown, common;
    bool stopped_at_city;
} name;

static void count(const scan *s, size_t i, name *x) {
    uint32_t k = kind_of(s, i);
    x->parts++;
    x->last = i;
    if (k & W_FIRST) x->first++;
    if (k & W_LAST) x->family++;
    if (!(k & (W_FIRST | W_LAST))) x->unknown++;
    if (k & W_COMMON) x->common++;
}

/* Particles from token i on that a name's word follows: their number, 0 where none do. */
static size_t particles(const scan *s, size_t i) {
    size_t k = i;
    while (k < i + 3 && k < s->n_tok && kind_of(s, k) & W_PARTICLE && (k == i || goes_on(s, k))) k++;
    return k > i && is_name_word(s, k) && goes_on(s, k) ? k - i : 0;
}

/* A name from token i on: first names, initials, particles, then one family name, and more of it behind a hyphen or
 * where they are known. */
static bool read_name(const scan *s, size_t i, name *x) {
    *x = (name){.last = i};
    bool family = false;
    for (size_t k = i; k < s->n_tok && x->parts < PARTS_MAX; k++) {
        if (k > i && !goes_on(s, k)) break;
        bool hyphen = k > i && s->p[s->t[k].at - 1] != ' ';
        bool own = kind_of(s, k) & W_FIRST && s->t[k].flags & T_CAPITAL; /* Ben, Le, San */
        size_t small = own ? 0 : particles(s, k);
        if (small && !(family && kind_of(s, k + small) & W_FIRST)) {
            k += small;
            count(s, k, x);
            family = true;
            continue;
        }
        if (is_initial(s, k) && !family && k + 1 < s->n_tok && goes_on(s, k + 1)) continue;
        if (!is_name_word(s, k)) break;
        bool known_family = kind_of(s, k) & W_LAST;
        if (family && !hyphen && !known_family) break;
        if (!(kind_of(s, k) & W_FIRST) || (x->parts && known_family)) family = true;
        count(s, k, x);
    }
    return x->parts > 0;
}

/* What follows makes it something else: a company, a street. */
static bool is_other(const scan *s, size_t last) {
    size_t end = token_end(&s->t[last]);
    if (last + 1 >= s->n_tok) return false;
    size_t gap = s->t[last + 1].at - end;
    uint32_t k = kind_of(s, last + 1);
    if (gap <= 3 && k & W_COMPANY && !memchr(s->p + end, '\n', gap)) return true;
    if (gap == 1 && k & W_STREET && s->t[last + 1].flags & T_CAPITAL && s->p[end] != '\n') return true;
    return gap == 3 && memcmp(s->p + end, " & ", 3) == 0 && s->t[last + 1].flags & T_CAPITAL &&
           !(k & (W_FIRST | W_HONORIFIC));
}

static void add_name(scan *s, size_t i, const name *x, unsigned score) {
    if (is_other(s, x->last)) return;
    scan_add(s, ENT_PERSON, score, s->t[i].at, token_end(&s->t[x->last]));
    if (score >= SCORE_REPORT) s->named = token_end(&s->t[x->last]);
}

/* "Herr Dr. …", "Mme …" */
static void after_title(scan *s, size_t i) {
    size_t k = i + 1;
    name x;
    while (k < i + 5 && k < s->n_tok && kind_of(s, k) & W_HONORIFIC && s->t[k].at - token_end(&s->t[k - 1]) <= 2) k++;
    if (k >= s->n_tok) return;
    size_t gap = s->t[k].at - token_end(&s->t[k - 1]);
    const char *p = s->p + token_end(&s->t[k - 1]);
    if (!(gap == 1 && *p == ' ') && !(gap == 2 && p[0] == '.' && p[1] == ' ') && !(gap == 1 && *p == '.')) return;
    if (!read_name(s, k, &x)) return;
    bool known = x.first || x.family, weak = scan_word(s, i)->value == 1 && k == i + 1;
    if (!(s->t[i].flags & T_CAPITAL) && !known && weak) return;
    /* both names unknown */
    size_t n = x.last + 1;
    if (!known && x.parts == 1 && is_name_word(s, n) && goes_on(s, n) && s->p[s->t[n].at - 1] == ' ') x.last = n;
    add_name(s, k, &x, known ? 90 : weak ? 0 : 76);
}

/* The word before token i that greets, or takes leave on the line above. */
static unsigned greeted(const scan *s, size_t i) {
    for (size_t k = i; k > 0 && i - k < 3; k--) {
        const word_entry *w = scan_phrase(s, k - 1);
        if (!(w->kind & W_GREETING)) {
            if (kind_of(s, k - 1) & (W_GREETING | W_PARTICLE) || s->t[k - 1].len <= 3) continue;
            break;
        }
        bool line = memchr(s->p + token_end(&s->t[i - 1]), '\n', s->t[i].at - token_end(&s->t[i - 1]));
        if (w->value == 2) return line || s->t[i].at - token_end(&s->t[i - 1]) <= 3 ? 2 : 0;
        return line || s->t[i].at - token_end(&s->t[i - 1]) > 2 ? 0 : 1;
    }
    return 0;
}

/* The token before i announces a name: "name": "…", Kunde: …  2: surely (first name, patient), 1: perhaps. */
static unsigned announced(const scan *s, size_t i) {
    if (!i || !(kind_of(s, i - 1) & W_NAME_CUE)) return 0;
    size_t from = token_end(&s->t[i - 1]), n = s->t[i].at - from;
    if (n > 6 || memchr(s->p + from, '\n', n)) return 0;
    if (!memchr(s->p + from, ':', n) && !memchr(s->p + from, '=', n)) return n == 1 ? 3 : 0;
    if (scan_word(s, i - 1)->value == 1) return 2;
    size_t last = 0; /* last_name, full name */
    const word_entry *w = i >= 2 ? scan_phrase_end(s, i - 2, &last) : NULL;
    return w && last == i - 1 && w->kind & W_NAME_CUE && w->value == 1 ? 2 : 1;
}

static bool ends_line(const scan *s, size_t i) { /* nothing but a comma or a sign behind token i in its line */
    size_t at = token_end(&s->t[i]);
    while (at < s->n && (s->p[at] == ' ' || s->p[at] == ',' || s->p[at] == '!' || s->p[at] == '.')) at++;
    return at >= s->n || s->p[at] == '\n';
}

/* Lower case throughout: only where both names are known and mean nothing else. */
static void small_name(scan *s, size_t i) {
    if (!goes_on(s, i + 1) || s->p[token_end(&s->t[i])] != ' ') return;
    uint32_t a = kind_of(s, i), b = kind_of(s, i + 1);
    if (!(a & W_FIRST) || !(b & W_LAST) || (a | b) & (W_COMMON | W_PARTICLE) || s->t[i].len < 3 || s->t[i + 1].len < 4)
        return;
    name x = {.last = i + 1};
    add_name(s, i, &x, 58);
}

/* "Schmidt, Anna" and "DUPONT Marie" */
static bool family_first(scan *s, size_t i) {
    if (i + 1 >= s->n_tok || !(kind_of(s, i) & W_LAST) || !(kind_of(s, i + 1) & W_FIRST)) return false;
    if (!(s->t[i + 1].flags & T_CAPITAL) || kind_of(s, i) & W_FIRST) return false;
    size_t n = s->t[i + 1].at - token_end(&s->t[i]);
    const char *p = s->p + token_end(&s->t[i]);
    bool comma = n == 2 && p[0] == ',' && p[1] == ' ', blank = n == 1 && *p == ' ';
    bool common = (kind_of(s, i) | kind_of(s, i + 1)) & W_COMMON;
    if (!comma && !(blank && !(s->t[i].flags & T_LOWER))) return false;
    name x = {.last = i + 1};
    while (x.last + 1 < s->n_tok && kind_of(s, x.last + 1) & W_FIRST && goes_on(s, x.last + 1) && x.last < i + 3)
        x.last++;
    /* "…, Meyer, Thomas, …" is a list of names just as well: then a word in capitals or nothing more decides */
    add_name(s, i, &x, common && comma ? 52 : 80);
    return true;
}

/* Asked at names, titles, and words that announce or greet. */
void find_person(scan *s, size_t i) {
    const token *t = &s->t[i];
    uint32_t k = kind_of(s, i);
    if (t->at < s->named) return;
    s->x->work += 4;
    if (k & W_HONORIFIC) {
        after_title(s, i);
        return;
    }
    if (k & (W_NAME_CUE | W_GREETING) &&
        !(k & (W_FIRST | W_LAST))) { /* the next token, where its own name is unknown */
        size_t j = i + 1;
        while (j < i + 4 && kind_of(s, j) & W_GREETING) j++;
        if (j >= s->n_tok || kind_of(s, j) & (W_FIRST | W_LAST | W_HONORIFIC) || !is_name_word(s, j)) return;
        name x;
        unsigned cue = j == i + 1 ? announced(s, j) : 0, hello = cue ? 0 : greeted(s, j);
        if (!read_name(s, j, &x)) return;
        if (cue == 2 || (cue && x.first + x.family))
            add_name(s, j, &x, 74);
        else if (hello == 1 && x.parts == 1 && ends_line(s, x.last))
            add_name(s, j, &x, 56);
        else if (hello == 2 && x.parts >= 2 && ends_line(s, x.last) && s->t[j].flags & T_LINE)
            add_name(s, j, &x, 60);
        return;
    }
    if (!(t->flags & T_CAPITAL)) {
        small_name(s, i);
        return;
    }
    if (family_first(s, i)) return;
    name x;
    if (!read_name(s, i, &x)) return;
    unsigned cue = announced(s, i), hello = greeted(s, i), score = 0;
    bool starts_first = k & W_FIRST;
    /* an unknown first name before a family name that is no ordinary word */
    bool unknown_first = i && k & W_LAST && !(k & (W_FIRST | W_COMMON)) && x.parts == 1 && goes_on(s, i) &&
                         s->p[t->at - 1] == ' ' && is_name_word(s, i - 1) && s->t[i - 1].len >= 3 &&
                         s->t[i - 1].flags & T_LOWER && !(s->t[i - 1].flags & T_LINE);
    if (unknown_first && s->t[i - 1].at >= s->named) {
        add_name(s, i - 1, &x, 54);
        return;
    }
    if (x.parts >= 2 && starts_first) {
        score = x.family ? 90 : x.first >= 2 ? 76 : 70;
        if (k & W_COMMON && !x.family) score = cue || hello ? 72 : 40;
        if (k & W_COMMON && x.common >= 2) score -= 35;
    }
    if (score < 70 && (cue == 2 || (cue == 1 && (x.first || x.family)))) score = 80;
    if (score < 60 && hello && (starts_first || x.family) && !(k & W_COMMON && hello == 1 && x.parts > 1)) score = 66;
    add_name(s, i, &x, score);
}
