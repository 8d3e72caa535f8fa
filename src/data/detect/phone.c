/* Phone numbers: international (ITU-T E.164) with the lengths of each country, and national forms, which need their
 * trunk zero and a usual grouping, or a word nearby. */
#include "data/detect/recognisers.h"

#include <string.h>

#define DIGITS_MAX 17
#define GROUPS_MAX 8

/* Country codes, and how many digits follow them. What is not listed: 7 to 12. */
static const struct {
    char code[4];
    uint8_t min, max;
} countries[] = {
    {"1", 10, 10},  {"30", 10, 10}, {"31", 9, 9},   {"32", 8, 9},   {"33", 9, 9},  {"34", 9, 9},  {"350", 8, 8},
    {"351", 9, 9},  {"352", 5, 11}, {"353", 7, 10}, {"354", 7, 9},  {"356", 8, 8}, {"357", 8, 8}, {"358", 5, 12},
    {"359", 7, 9},  {"36", 8, 9},   {"370", 8, 8},  {"371", 8, 8},  {"372", 7, 8}, {"376", 6, 9}, {"377", 8, 9},
    {"378", 6, 10}, {"385", 8, 9},  {"386", 8, 8},  {"39", 6, 11},  {"40", 9, 9},  {"41", 9, 9},  {"420", 9, 9},
    {"421", 9, 9},  {"423", 7, 9},  {"43", 5, 13},  {"44", 9, 10},  {"45", 8, 8},  {"46", 7, 10}, {"47", 8, 8},
    {"48", 9, 9},   {"49", 6, 12},  {"7", 10, 10},  {"90", 10, 10}, {"380", 9, 9}, {"381", 8, 9}, {"86", 10, 11},
    {"91", 10, 10}, {"81", 9, 10},  {"61", 9, 9},   {"972", 8, 9},
};

typedef struct number {
    char digit[DIGITS_MAX];
    size_t n;
    uint8_t group[GROUPS_MAX]; /* digits of each */
    char sep[GROUPS_MAX];      /* before each; '(' and ')' count */
    size_t groups;
    size_t end[GROUPS_MAX]; /* where each ends */
    bool trunk;             /* "(0)" was left out */
} number;

/* The gap between two groups: 1 to 3 bytes of blanks, brackets and signs; what it is mostly. */
static char gap_sign(const char *p, size_t n) {
    char sign = 0;
    if (!n || n > 3) return 0;
    for (size_t i = 0; i < n; i++) {
        if (!p[i] || !strchr(" -./()", p[i])) return 0;
        if (!sign || sign == ' ') sign = p[i];
    }
    return sign;
}

static void read_number(const scan *s, size_t i, number *x) {
    *x = (number){0};
    for (size_t j = i; j < s->n_tok && x->groups < GROUPS_MAX; j++) {
        const token *t = &s->t[j];
        char sign = 0;
        if (!(t->flags & T_NUMBER) || x->n + t->len > DIGITS_MAX) break;
        if (j > i && !(sign = gap_sign(s->p + token_end(&s->t[j - 1]), t->at - token_end(&s->t[j - 1])))) break;
        if (j == i + 1 && t->len == 1 && s->p[t->at] == '0' && s->p[t->at - 1] == '(' &&
            scan_byte(s, token_end(t)) == ')') { /* +49 (0) 30 */
            x->trunk = true;
            continue;
        }
        memcpy(x->digit + x->n, s->p + t->at, t->len);
        x->n += t->len;
        x->group[x->groups] = (uint8_t)t->len;
        x->sep[x->groups] = sign;
        x->end[x->groups++] = token_end(t);
    }
}

/* As many whole groups as give min to max digits, the most of them; 0: none. `skip` digits in front do not count. */
static size_t fit(const number *x, size_t skip, size_t min, size_t max, size_t *digits) {
    size_t n = 0, best = 0;
    for (size_t g = 0; g < x->groups; g++) {
        n += x->group[g];
        if (n > skip + max) break;
        if (n >= skip + min) {
            best = x->end[g];
            *digits = n;
        }
    }
    return best;
}

static size_t fit_country(const number *x, size_t skip, size_t *digits) {
    size_t code = 2, min = 7, max = 12;
    for (size_t k = 0; k < sizeof countries / sizeof *countries; k++) {
        size_t len = strlen(countries[k].code);
        if (x->n < skip + len || memcmp(x->digit + skip, countries[k].code, len) != 0) continue;
        code = len;
        min = countries[k].min;
        max = countries[k].max;
    }
    if (x->n <= skip || x->digit[skip] == '0') return 0;
    /* +490301234567: a zero where none belongs, often written all the same */
    if (x->n > skip + code && x->digit[skip + code] == '0') max++;
    return fit(x, skip + code, min, max, digits);
}

/* 12.03.1985, 01-02-24, 2024.01.31 */
static bool is_date(const number *x) {
    if (x->groups < 3 || x->sep[1] != x->sep[2] || !strchr("./- ", x->sep[1])) return false;
    if (x->group[0] <= 2 && x->group[1] <= 2 && (x->group[2] == 4 || x->group[2] == 2) && x->groups == 3) return true;
    return x->group[0] == 4 && x->group[1] <= 2 && x->group[2] <= 2;
}

/* A national number with its trunk zero, without a word: only in groupings that people use for phones. */
static unsigned rate_national(const number *x, size_t digits) {
    bool pairs = x->groups == 5, grouped = x->groups >= 2 && x->groups <= 5;
    for (size_t g = 0; g < x->groups; g++)
        if (x->group[g] != 2) pairs = false;
    if (x->digit[1] == '0') return 0;
    if (pairs) return 78;                                                    /* 06 12 34 56 78 */
    if (!grouped) return digits == 10 && strchr("67", x->digit[1]) ? 52 : 0; /* 0612345678 */
    if (x->group[0] == 1 || x->group[0] > 5) return 0;
    if (digits < 9 || digits > 12) return 0;
    if (x->group[0] == 2 && x->digit[1] == '6' && digits == 10) return 70; /* 06-12345678 */
    if (strchr("/)-", x->sep[1]) && x->group[0] >= 3) return 66;           /* 030/1234567 */
    if (x->group[0] >= 3 && x->groups <= 4 && x->sep[1] == ' ') return 60; /* 0171 1234567 */
    return 0;
}

static unsigned rate(const scan *s, size_t i, const number *x, size_t from, size_t *to) {
    char before = from ? s->p[from - 1] : ' ';
    size_t digits = 0;
    near_words near = scan_near(s, i, i, 5, 1);
    bool word = near.kinds & W_PHONE;
    bool row = i && s->t[i - 1].flags & T_DIGIT && scan_sep(s, i) == ' '; /* inside a longer number */
    unsigned less = near.kinds & W_REF && !word ? 25 : 0;
    if (before == '+') {
        *to = fit_country(x, 0, &digits);
        return *to ? 92 : 0;
    }
    if (x->n > 9 && x->digit[0] == '0' && x->digit[1] == '0') {
        *to = row && !word ? 0 : fit_country(x, 2, &digits);
        return *to && (word || x->groups > 1) ? (word ? 90 : 78 - less) : 0;
    }
    if (is_date(x) || byte_class[(unsigned char)before] & B_WORD || strchr(".,-/_#", before)) return 0;
    if (x->digit[0] == '0') {
        *to = fit(x, 0, word ? 7 : 9, 12, &digits);
        if (!*to) return 0;
        if (word) return 86;
        if (row) return 0;
        unsigned score = rate_national(x, digits);
        return score > less ? score - less : 0;
    }
    if (before == '(' && x->groups == 3 && x->group[0] == 3 && x->group[1] == 3 && x->group[2] == 4 && x->n == 10) {
        *to = x->end[2]; /* (555) 123-4567 */
        return 70 - less;
    }
    if (!word || (i >= 3 && s->dialled > s->t[i - 3].at)) return 0; /* the word belonged to the number before */
    /* no trunk zero: Spain, Portugal, Poland, Denmark, Norway, Italy's mobiles and others */
    *to = fit(x, 0, 7, 10, &digits);
    return *to ? 76 : 0;
}

/* Asked at every token of digits. */
void find_phone(scan *s, size_t i) {
    const token *t = &s->t[i];
    size_t from = t->at, to = 0;
    if (!(t->flags & T_NUMBER) || from < s->dialled) return;
    number x;
    read_number(s, i, &x);
    s->x->work += x.groups + 1;
    if (x.n < 7) return;
    unsigned score = rate(s, i, &x, from, &to);
    if (score < SCORE_REPORT) return;
    if (byte_class[(unsigned char)scan_byte(s, to)] & B_WORD) return;
    if (from && s->p[from - 1] == '+') from--;
    if (from && s->p[from - 1] == '(') from--;
    scan_add(s, ENT_PHONE, score, from, to);
    s->dialled = to;
}
