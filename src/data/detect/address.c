/* Postal addresses: a street's name with a house number, and the postcode and town behind it. */
#include "data/detect/recognisers.h"

#include <string.h>

static uint32_t kind_of(const scan *s, size_t i) {
    return i < s->n_tok ? scan_word(s, i)->kind : 0;
}

static size_t gap_before(const scan *s, size_t i) {
    return i ? s->t[i].at - token_end(&s->t[i - 1]) : 99;
}

static bool has_byte(const scan *s, size_t i, char c) { /* in the gap before token i */
    return memchr(s->p + token_end(&s->t[i - 1]), c, gap_before(s, i)) != NULL;
}

static bool is_capital(const scan *s, size_t i) {
    return i < s->n_tok && s->t[i].flags & T_CAPITAL && !(s->t[i].flags & T_DIGIT);
}

/* 12, 12a, 221B */
static bool is_house(const scan *s, size_t i) {
    if (i >= s->n_tok || !(s->t[i].flags & T_DIGIT) || s->t[i].len > 5) return false;
    const char *p = s->p + s->t[i].at;
    size_t d = 0;
    while (d < s->t[i].len && byte_class[(unsigned char)p[d]] & B_DIGIT) d++;
    return d >= 1 && d <= 4 && s->t[i].len - d <= 1 && p[0] != '0';
}

static bool is_digits(const scan *s, size_t i, size_t len) {
    return i < s->n_tok && s->t[i].flags & T_NUMBER && s->t[i].len == len;
}

static bool is_letters(const scan *s, size_t i, size_t len) {
    return i < s->n_tok && !(s->t[i].flags & (T_DIGIT | T_LOWER)) && s->t[i].flags & T_UPPER && s->t[i].len == len;
}

/* A postcode at token i: its last token + 1, or 0. */
static size_t postcode(const scan *s, size_t i) {
    if (i >= s->n_tok) return 0;
    const token *t = &s->t[i];
    if (is_digits(s, i, 5)) return i + 1;
    if (is_digits(s, i, 2) && is_digits(s, i + 1, 3) && scan_sep(s, i + 1) == '-') return i + 2; /* 00-950 */
    if (is_digits(s, i, 3) && is_digits(s, i + 1, 2) && scan_sep(s, i + 1) == ' ') return i + 2; /* 118 00 */
    if (is_digits(s, i, 4)) {
        if (is_digits(s, i + 1, 3) && scan_sep(s, i + 1) == '-') return i + 2;  /* 1200-109 */
        if (is_letters(s, i + 1, 2) && scan_sep(s, i + 1) == ' ') return i + 2; /* 1015 CJ */
        return i + 1;
    }
    if (t->len == 6 && memchr("123456789", s->p[t->at], 9) && !(t->flags & T_LOWER) && t->flags & T_UPPER) {
        const char *p = s->p + t->at; /* 1015CJ */
        if (byte_class[(unsigned char)p[3]] & B_DIGIT && byte_class[(unsigned char)p[4]] & B_UPPER) return i + 1;
    }
    if (t->len <= 2 && t->flags & T_UPPER && !(t->flags & T_DIGIT) && scan_sep(s, i + 1) == '-') /* D-10115 */
        return is_digits(s, i + 1, 5) || is_digits(s, i + 1, 4) ? i + 2 : 0;
    /* SW1A 2AA */
    if (t->len >= 2 && t->len <= 4 && t->flags & T_UPPER && t->flags & T_DIGIT && i + 1 < s->n_tok &&
        scan_sep(s, i + 1) == ' ' && s->t[i + 1].len == 3 &&
        byte_class[(unsigned char)s->p[s->t[i + 1].at]] & B_DIGIT && s->t[i + 1].flags & T_UPPER)
        return i + 2;
    return 0;
}

/* Capital words of a town from token i on, small words between them ("Frankfurt am Main"): the last + 1. */
static size_t town(const scan *s, size_t i) {
    size_t k = i;
    if (!is_capital(s, k)) return i;
    k++;
    while (k < i + 5 && k < s->n_tok && gap_before(s, k) == 1 && strchr(" -'/", s->p[s->t[k].at - 1])) {
        bool hyphen = s->p[s->t[k].at - 1] != ' ';
        if (is_capital(s, k) && (hyphen || kind_of(s, k) & W_CITY)) {
            k++;
            continue;
        }
        if (kind_of(s, k) & W_TOWN_LINK && is_capital(s, k + 1) && gap_before(s, k + 1) == 1) {
            k += 2;
            continue;
        }
        break;
    }
    return k;
}

/* What may stand between the number and the postcode: 3º B, 2. OG, Apt 4. */
static bool is_floor(const scan *s, size_t i) {
    return s->t[i].len <= 3;
}

/* What follows the street and the number: floor, postcode, town. The end, and more score. */
static size_t behind(const scan *s, size_t i, unsigned *more) {
    for (size_t k = i; k < s->n_tok && k < i + 5 && gap_before(s, k) <= 4; k++) {
        bool parted = has_byte(s, k, ',') || has_byte(s, k, '\n');
        size_t code = parted || k == i || has_byte(s, k, '-') ? postcode(s, k) : 0;
        if (has_byte(s, k, ')') || has_byte(s, k, ';')) break;
        if (code && code < s->n_tok && gap_before(s, code) <= 2 && !has_byte(s, code, '\n') && is_capital(s, code)) {
            *more = 24;
            return town(s, code);
        }
        if (kind_of(s, k) & W_CITY && is_capital(s, k) && parted) {
            size_t t = town(s, k), c = t < s->n_tok && gap_before(s, t) <= 2 ? postcode(s, t) : 0;
            *more = c ? 24 : 16;
            return c ? c : t;
        }
        if (code && (is_letters(s, code - 1, 2) || s->t[k].flags & T_UPPER)) { /* 1015 CJ, SW1A 2AA */
            *more = 20;
            return code;
        }
        if (!is_floor(s, k) || (parted && has_byte(s, k, '\n'))) break;
    }
    return i;
}

static void add_address(scan *s, size_t from, size_t end, unsigned score) { /* tokens [from, end) */
    unsigned more = 0;
    size_t to = behind(s, end, &more);
    if (!more) to = end;
    near_words near = scan_near(s, from, from, 5, 0);
    if (near.kinds & W_ADDRESS) more += 10;
    score = score + more > 95 ? 95 : score + more;
    scan_add(s, ENT_ADDRESS, score, s->t[from].at, token_end(&s->t[to - 1]));
    if (score >= SCORE_REPORT) s->housed = token_end(&s->t[to - 1]);
}

/* ---- the street's name before the number: German, Dutch, Nordic ------------------------------------------------ */

static bool ends_as_street(const scan *s, size_t i) {
    static const char *const endings[] = {
        "strasse", "str",    "weg",      "allee",  "platz", "gasse", "ring",       "damm",      "ufer",
        "steig",   "pfad",   "chaussee", "straat", "laan",  "plein", "gracht",     "kade",      "dijk",
        "singel",  "gatan",  "gata",     "vagen",  "vegen", "vej",   "gade",       "katu",      "utca",
        "stieg",   "garten", "berg",     "feld",   "hof",   "markt", "burggraben", "promenade", "steenweg",
        "lei",     "veien",  "gaten",    "pad",    "hofje", "wal",   "markt"};
    char f[WORD_MAX];
    size_t n = word_fold(f, s->p + s->t[i].at, s->t[i].len);
    if (n < 6) return false;
    for (size_t k = 0; k < sizeof endings / sizeof *endings; k++) {
        size_t len = strlen(endings[k]);
        if (n > len + 2 && memcmp(f + n - len, endings[k], len) == 0) return true;
    }
    return false;
}

/* Back over "Kurt-Schumacher-", "Alte ", "Van der ". */
static size_t name_begin(const scan *s, size_t i, bool blank) {
    size_t k = i;
    for (unsigned parts = 0; k > 0 && parts < 5; parts++) {
        if (gap_before(s, k) != 1) break;
        char c = s->p[s->t[k].at - 1];
        if (c == '-' && (is_capital(s, k - 1) || kind_of(s, k - 1) & W_PARTICLE))
            k--;
        else if (c == ' ' && blank && is_capital(s, k - 1) &&
                 !(kind_of(s, k - 1) & (W_HONORIFIC | W_NAME_CUE | W_ADDRESS))) {
            k--;
            blank = false;
        } else
            break;
    }
    return k;
}

/* Token i is a house number: is a street before it? */
static void number_behind(scan *s, size_t i) {
    if (i < 1 || gap_before(s, i) > 2 || has_byte(s, i, '\n')) return;
    size_t j = i - 1;
    uint32_t k = kind_of(s, j);
    bool word = k & W_STREET && scan_word(s, j)->value == 3; /* Straße, Str., Weg */
    size_t end = i + 1;
    if (end < s->n_tok && s->t[end].len == 1 && scan_sep(s, end) == ' ' && !(s->t[end].flags & T_DIGIT) &&
        s->t[end].flags & T_LOWER && scan_byte(s, token_end(&s->t[end])) != ' ')
        end++; /* 12 a */
    else if (end < s->n_tok && is_house(s, end) && gap_before(s, end) == 1 && strchr("-/", s->p[s->t[end].at - 1]))
        end++; /* 12-14 */
    if (word && is_capital(s, j)) {
        size_t from = name_begin(s, j, true);
        if (from < j) {
            add_address(s, from, end, 66);
            return;
        }
    }
    if (is_capital(s, j) && !(k & (W_MONTH | W_REF)) && ends_as_street(s, j)) {
        bool sure = !(k & W_NOT_NAME);
        add_address(s, name_begin(s, j, false), end, sure ? 62 : 40);
        return;
    }
    /* "Am Markt 5, 10115 Berlin": no street's word, but a postcode with its town */
    if (!is_capital(s, j) || k & (W_MONTH | W_REF | W_VERSION)) return;
    unsigned more = 0;
    size_t to = end < s->n_tok && (has_byte(s, end, ',') || has_byte(s, end, '\n')) ? behind(s, end, &more) : end;
    if (more < 24 || to <= end) return;
    size_t from = name_begin(s, j, true);
    while (from > 0 && gap_before(s, from) == 1 && s->t[from].at - 1 && s->p[s->t[from].at - 1] == ' ' &&
           s->t[from - 1].flags & T_LOWER && s->t[from - 1].len <= 5 && j - from < 4 && is_capital(s, from - 1))
        from--;
    add_address(s, from, end, 50);
}

/* ---- the street's word first: Romance and Slavic ---------------------------------------------------------------- */

/* "12 rue", "12 bis, rue": the number before the word at token i; i where there is none. */
static size_t number_before(const scan *s, size_t i) {
    if (i >= 2 && has_byte(s, i, ',') &&
        (s->t[i - 1].len == 4 || (s->t[i - 1].at && strchr("./-", s->p[s->t[i - 1].at - 1]))))
        return i; /* a year and a comma */
    if (i && is_house(s, i - 1) && gap_before(s, i) <= 2 && !has_byte(s, i, '\n')) return i - 1;
    if (i >= 2 && s->t[i - 1].len <= 3 && !(s->t[i - 1].flags & T_DIGIT) && is_house(s, i - 2) &&
        gap_before(s, i) <= 2 && scan_sep(s, i - 1) == ' ')
        return i - 2;
    return i;
}

/* "rue de la Paix", "Calle Mayor 12", "Via Roma, 15", "ul. Długa 5/7": small words and capital ones, then the number if
 * it did not stand before. */
static void word_first(scan *s, size_t i) {
    size_t from = number_before(s, i), end = 0;
    bool number = from < i;
    for (size_t k = i + 1; k < s->n_tok && k < i + 9; k++) {
        size_t gap = gap_before(s, k);
        if (gap > 4 || has_byte(s, k, '\n') || has_byte(s, k, ';') || has_byte(s, k, ':')) break;
        bool comma = has_byte(s, k, ',');
        if (end && !number && is_house(s, k)) {
            if (k + 1 < s->n_tok && is_house(s, k + 1) && scan_sep(s, k + 1) == '/') k++;
            end = k + 1;
            number = true;
            break;
        }
        if (comma && (number || !end || s->t[k].len > 3)) break;
        if (s->t[k].flags & T_DIGIT) { /* rue du 8 mai 1945 */
            if (s->t[k].len > 4) break;
            continue;
        }
        if (is_capital(s, k) && !comma)
            end = k + 1;
        else if (s->t[k].len > 4) /* nº, n.º, de, la, della */
            break;
    }
    if (end && number) add_address(s, from, end, 64);
}

/* ---- English: number, name, word ------------------------------------------------------------------------------- */

static void word_last(scan *s, size_t i) {
    size_t k = i;
    if (!is_capital(s, i)) return;
    while (k > 0 && i - k < 4 && gap_before(s, k) == 1 && s->p[s->t[k].at - 1] == ' ' && is_capital(s, k - 1)) k--;
    if (k == i || !k || !is_house(s, k - 1) || gap_before(s, k) > 2) return;
    add_address(s, k - 1, i + 1, 66);
}

/* Asked at words of streets and at tokens with digits. */
void find_address(scan *s, size_t i) {
    const token *t = &s->t[i];
    if (t->at < s->housed) return;
    s->x->work += 2;
    const word_entry *w = scan_word(s, i);
    if (w->kind & W_STREET) {
        if (w->value == 1 || w->value == 4) word_first(s, i);
        if ((w->value == 2 || w->value == 4) && t->at >= s->housed) word_last(s, i);
        return;
    }
    if (is_house(s, i)) number_behind(s, i);
}
