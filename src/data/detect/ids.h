/* Internal to data: the identifiers that a check rule decides (accounts, cards, VAT numbers, national numbers).
 *
 * How the scanner uses it. It cuts a candidate out of the text and writes it down twice:
 *
 *   compact  letters as ASCII capitals, digits as ASCII digits, nothing else
 *   form     the same with letters in the case they have in the text, and with separators kept, each run of them as
 *            ONE character: ' ' for spaces of any kind, '-' for hyphens and dashes of any kind, '.', '/', ',', ':',
 * '+',
 *            '_' as they are. Where a run mixes ("- ") the first that is not a space stands
 *
 *   "DE 12\u00a0345 678 901"  → compact "DE12345678901", form "DE 12 345 678 901"
 *
 * A candidate has 7 to 34 letters and digits, at least one digit; or it is one word of eight or eleven capitals without
 * any (BIC).
 *
 * id_match tells which rules accept the candidate; for each hit the scanner looks whether one of its words stands
 * nearby (id_rule.words; and the words of its kinds in id_kind_words) and asks id_score. Reported is what has ID_REPORT
 * or more. Of a long row of groups ("5 1 85 12 75 108 001 23 7") any window of whole groups is a candidate; a window
 * that is not the whole row should count only where its hit is `typical` or a word stands nearby.
 *
 * Invariants
 *  1. Every function takes any bytes of any length, allocates nothing and knows no clock: a date is valid when the
 *     calendar has it, not when it has come to pass.
 *  2. id_rule.check looks at everything itself (length, characters, dates, digits); shapes and forms only describe.
 *  3. Scores without words follow from what the check rejects: a single check digit lets one random number in ten pass
 *     and is never enough, a check digit with a date or letters in place is, just; modulo 97 is by far.
 *
 * Where each rule is described and from where it differs from python3-stdnum: docs/guide/detectors.md. */
#ifndef POLDER_DATA_DETECT_IDS_H
#define POLDER_DATA_DETECT_IDS_H

#include "data/detect.h"

#define ID_REPORT    50 /* scores from here on are findings */
#define ID_LEN_MIN   7  /* characters of a compact form */
#define ID_LEN_MAX   34
#define ID_FORM_MAX  48 /* characters of a form worth looking at */
#define ID_WORD_MAX  64 /* bytes */
#define ID_RULES_MAX 63
#define ID_HITS_MAX  16 /* rules that one candidate can satisfy; more are never possible (tested) */

/* What a number is of; id_kind_words has words for each in several languages. */
enum {
    ID_KIND_ACCOUNT = 1, /* bank account */
    ID_KIND_CARD = 2,
    ID_KIND_COMPANY = 4,
    ID_KIND_TAX = 8,
    ID_KIND_PERSON = 16, /* population register, identity card */
    ID_KIND_SOCIAL = 32, /* social insurance */
    ID_KIND_HEALTH = 64,
    ID_KINDS = 7 /* how many */
};

typedef struct id_rule {
    uint16_t entity;          /* ENT_* */
    const char *country;      /* ISO 3166 of the country that issues it, "" where many do */
    const char *name;         /* what people call it there */
    uint8_t min_len, max_len; /* of the compact form */
    uint8_t strength;         /* percent of random digits and letters in this order that the check rejects, at least */
    uint8_t kinds;            /* ID_KIND_* */
    bool form_only;           /* is never one where the form is not one of `forms`, words or not */
    /* Scores with nothing nearby in another form than the usual ones, in one of `forms`, and with a word nearby. */
    uint8_t plain, typical, near;
    /* Alternatives with '|' between them. 'd' digit, 'l' letter, 'a' either, a capital or digit is itself; '*' behind
     * the last: it repeats (length by min_len and max_len). */
    const char *shapes;
    const char *forms; /* usual forms in print that tell more than a run of digits, written alike; NULL: none */
    /* 0: not valid, else percent of random numbers rejected by what this number satisfied (less than `strength` where
     * a part of the rule does not apply to it). */
    int (*check)(const char *compact, size_t n);
    /* Words that raise the score when they stand nearby, NULL at the end; see id_kind_words. */
    const char *const *words;
} id_rule;

extern const id_rule id_rules[];
extern const size_t id_rule_count; /* at most ID_RULES_MAX: a set of rules is one uint64_t */

/* Words of each kind (bit i: id_kind_words[i]), in English, German, French, Dutch, Spanish, Italian: "tax id",
 * "krankenversicherungsnummer". They say less than a rule's own words.
 *
 * How words are written, here and in id_rule.words: lower case, UTF-8. A space stands for one to three characters of
 * space of any kind, line end, '-', '_', '.', ':', '/' or an apostrophe. A word begins where no letter or digit stands
 * before it. One that ends with '*' may go on in letters (inflexions, compounds: "henkilötunnu*"); the others end where
 * no letter or digit follows. No word is longer than ID_WORD_MAX bytes. */
extern const char *const *const id_kind_words[ID_KINDS];

typedef struct id_hit {
    const id_rule *rule;
    uint8_t strength; /* what check said */
    bool typical;     /* the form is one of the rule's `forms` */
    bool grouped;     /* the form has separators, and not one after every character (then it counts as a plain run) */
    bool regular;     /* the groups have one length, the last perhaps another */
    bool small;       /* the form has small letters */
} id_hit;

/* Rules that accept the candidate, at most ID_HITS_MAX, in the order of id_rules; returns how many. */
size_t id_match(id_hit out[ID_HITS_MAX], const char *compact, size_t n, const char *form, size_t form_n);

typedef enum id_near {
    ID_NEAR_NOTHING,
    ID_NEAR_KIND, /* a word of one of the rule's kinds */
    ID_NEAR_WORD  /* one of the rule's own words */
} id_near;
unsigned id_score(const id_hit *hit, id_near near); /* 1 to 100 */

/* Does `form` (n characters as above) agree with one of the alternatives of `shapes`? Exported for tests. */
bool id_shape_fits(const char *shapes, const char *form, size_t n);

#endif
