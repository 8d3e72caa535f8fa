/* Dates of birth: a date that the calendar has, in the forms of Europe's languages, with a word of birth nearby. */
#include "data/detect/recognisers.h"

#include <string.h>

typedef struct date {
    unsigned day, month, year;
    size_t last; /* its last token */
} date;

static unsigned value_of(const scan *s, size_t i) {
    unsigned v = 0;
    for (size_t k = 0; k < s->t[i].len && k < 8; k++) v = v * 10 + (unsigned)(s->p[s->t[i].at + k] - '0');
    return v;
}

static bool is_number(const scan *s, size_t i, size_t max_len) {
    return i < s->n_tok && s->t[i].flags & T_NUMBER && s->t[i].len <= max_len;
}

static bool is_valid(const date *d) {
    static const uint8_t days[] = {31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    if (d->month < 1 || d->month > 12 || d->day < 1 || d->day > days[d->month - 1]) return false;
    if (d->month == 2 && d->day == 29 && (d->year % 4 || (d->year % 100 == 0 && d->year % 400))) return false;
    return d->year >= 1880 && d->year <= 2060;
}

static bool close_to(const scan *s, size_t i) { /* token i and the one before it: at most ", " or ". " between */
    return i < s->n_tok && s->t[i].at - token_end(&s->t[i - 1]) <= 3 &&
           !memchr(s->p + token_end(&s->t[i - 1]), '\n', s->t[i].at - token_end(&s->t[i - 1]));
}

static unsigned whole_year(unsigned y, size_t len) {
    return len == 4 ? y : len == 2 ? (y > 30 ? 1900 + y : 2000 + y) : 0;
}

/* 12.3.1985, 12/03/85, 12-03-1985, 1985-03-12; where day and month could be either, both are tried. */
static bool read_numeric(const scan *s, size_t i, date *d) {
    if (!is_number(s, i, 4) || !is_number(s, i + 1, 2) || !is_number(s, i + 2, 4)) return false;
    if (!close_to(s, i + 1) || !close_to(s, i + 2)) return false;
    char a = s->p[token_end(&s->t[i])], b = s->p[token_end(&s->t[i + 1])];
    if (a != b || !strchr("./- ", a)) return false;
    unsigned x = value_of(s, i), y = value_of(s, i + 1), z = value_of(s, i + 2);
    d->last = i + 2;
    if (s->t[i].len == 4) {
        *d = (date){.day = z, .month = y, .year = x, .last = i + 2};
        return s->t[i + 2].len <= 2 && is_valid(d);
    }
    if (s->t[i].len > 2) return false;
    *d = (date){.day = x, .month = y, .year = whole_year(z, s->t[i + 2].len), .last = i + 2};
    if (is_valid(d)) return true;
    d->day = y;
    d->month = x;
    return is_valid(d);
}

/* 19850312 */
static bool read_compact(const scan *s, size_t i, date *d) {
    if (!is_number(s, i, 8) || s->t[i].len != 8) return false;
    unsigned v = value_of(s, i);
    *d = (date){.day = v % 100, .month = v / 100 % 100, .year = v / 10000, .last = i};
    return is_valid(d);
}

static unsigned month_at(const scan *s, size_t i) {
    if (i >= s->n_tok) return 0;
    const word_entry *w = scan_word(s, i);
    return w->kind & W_MONTH ? w->value : 0;
}

static bool is_small_word(const scan *s, size_t i) { /* de, of, del: "12 de mayo de 1985" */
    return i < s->n_tok && s->t[i].len <= 3 && !(s->t[i].flags & T_DIGIT);
}

/* The number at token i, "1st" and "3e" too; 0: none. */
static unsigned day_at(const scan *s, size_t i) {
    unsigned v = 0;
    size_t k = 0;
    if (i >= s->n_tok || !(s->t[i].flags & T_DIGIT) || s->t[i].len > 4) return 0;
    const char *p = s->p + s->t[i].at;
    for (; k < s->t[i].len && p[k] >= '0' && p[k] <= '9'; k++) v = v * 10 + (unsigned)(p[k] - '0');
    return k && k <= 2 && s->t[i].len - k <= 2 && v <= 31 ? v : 0;
}

/* 12. März 1985, 12 de mayo de 1985, 12th of March, 1985 */
static bool read_named(const scan *s, size_t i, date *d) {
    unsigned day = day_at(s, i);
    size_t k = i + 1;
    if (!day) return false;
    if (!month_at(s, k) && is_small_word(s, k)) k++;
    unsigned month = month_at(s, k);
    if (!month) return false;
    k++;
    if (!is_number(s, k, 4) && is_small_word(s, k)) k++;
    if (!is_number(s, k, 4) || s->t[k].len != 4) return false;
    *d = (date){.day = day, .month = month, .year = value_of(s, k), .last = k};
    return is_valid(d);
}

/* March 12th, 1985 */
static bool read_month_first(const scan *s, size_t i, date *d) {
    unsigned month = i ? month_at(s, i - 1) : 0, day = day_at(s, i);
    if (!month || !day || !is_number(s, i + 1, 4) || s->t[i + 1].len != 4) return false;
    *d = (date){.day = day, .month = month, .year = value_of(s, i + 1), .last = i + 1};
    return is_valid(d);
}

/* The word of birth that this date belongs to: the nearest before it, or right after it; + 1, or 0. A word has one
 * date. */
static size_t born_near(const scan *s, size_t first, size_t last) {
    for (size_t k = first; k > 0 && first - k < 6; k--)
        if (scan_phrase(s, k - 1)->kind & W_BORN) return (size_t)s->t[k - 1].at + 1;
    for (size_t k = last + 1; k < s->n_tok && k <= last + 2; k++) {
        if (scan_word(s, k)->kind & W_BORN) return (size_t)s->t[k].at + 1;
        if (s->t[k].flags & T_SENTENCE) break;
    }
    size_t at = s->t[first].at; /* "* 12.03.1985" */
    if (at >= 1 && s->p[at - 1] == '*') return at;
    if (at >= 2 && s->p[at - 1] == ' ' && s->p[at - 2] == '*') return at;
    return 0;
}

/* Asked at tokens with digits. */
void find_birth(scan *s, size_t i) {
    date d;
    size_t first = i;
    if (s->t[i].len > 8) return;
    if (!read_numeric(s, i, &d) && !read_named(s, i, &d) && !read_compact(s, i, &d)) {
        if (!read_month_first(s, i, &d)) return;
        first = i - 1;
    }
    s->x->work += 4;
    size_t born = born_near(s, first, d.last);
    if (!born || born == s->born) return;
    s->born = born;
    scan_add(s, ENT_BIRTH, 88, s->t[first].at, token_end(&s->t[d.last]));
}
