/* Inside the detectors: the text as a reader would see it, its tokens, and the table of recognisers.
 *
 *   text ──normalise──▶ norm ──tokens──▶ token[] (a window) ──recognisers──▶ hits ──resolve──▶ findings
 *
 * Every step is linear. A recogniser is asked at a token that its trigger fits, and looks at no more than a bounded
 * number of bytes or tokens around it, except where it walks over bytes that it claims (a PEM block) or that it
 * remembers as seen (`done`). `work` counts such steps, so that a test can hold them to a bound without a clock.
 */
#ifndef POLDER_DATA_DETECT_INTERNAL_H
#define POLDER_DATA_DETECT_INTERNAL_H

#include "data/detect.h"

#define DETECT_TEXT_MAX ((size_t)1 << 30) /* bytes of one text */
#define SCORE_REPORT    50                /* from here on it is a finding */
#define HITS_MAX        ((size_t)4 * FINDINGS_MAX)

/* ---- normalise.c -------------------------------------------------------------------------------------------- */

/* A stretch of norm that came from one stretch of the text: byte for byte (width 0), or as one character of `width`
 * bytes that was written otherwise. */
typedef struct norm_seg {
    uint32_t at, src, width;
} norm_seg;

typedef struct norm {
    const char *p; /* the text itself where nothing in it is disguised */
    size_t n;
    bool same; /* p is the text: offsets are its own */
    char *own;
    size_t cap;
    norm_seg *seg;
    size_t n_seg, cap_seg;
} norm;

/* Full-width forms, other scripts' digits, odd spaces, dashes and quotes become ASCII; invisible characters and
 * combining marks vanish; JSON's escapes become what they mean; broken bytes become '?'. The result is UTF-8. */
err_code norm_make(norm *m, const char *text, size_t n, err *e);
void norm_free(norm *m);
/* The bytes of the text that [from, to) of the norm came from; from < to. */
void norm_back(const norm *m, size_t from, size_t to, size_t *text_from, size_t *text_to);

/* ---- words.c ------------------------------------------------------------------------------------------------ */

/* What a word can mean. One word can mean several things. */
enum {
    W_FIRST = 1u << 0,     /* first name */
    W_LAST = 1u << 1,      /* family name */
    W_HONORIFIC = 1u << 2, /* Herr, Mme, dhr: a name follows */
    W_NAME_CUE = 1u << 3,  /* name, customer, patient: a name may follow after ':' */
    W_PARTICLE = 1u << 4,  /* von, de, van: inside names */
    W_NOT_NAME = 1u << 5,  /* a capital word that no name contains: months, weekdays, companies' forms, countries */
    W_CITY = 1u << 6,
    W_STREET = 1u << 7, /* rue, via, calle, street: a word of its own */
    W_MONTH = 1u << 8,  /* value: 1 to 12 */
    W_BORN = 1u << 9,   /* geboren, née, birth */
    W_SECRET = 1u << 10,
    W_PASSWORD = 1u << 11,
    W_VERSION = 1u << 12, /* what follows is no address */
    W_ADDRESS = 1u << 13, /* Anschrift, address, lives */
    W_PHONE = 1u << 14,
    W_PLATE = 1u << 15,
    W_REF = 1u << 16,       /* order, invoice, article: the number that follows identifies no person */
    W_PERSON = 1u << 17,    /* patient, employee, he, sie, Mitarbeiterin: somebody is spoken of */
    W_SPECIAL = 1u << 18,   /* value: the entity, Art. 9 */
    W_AMBIGUOUS = 1u << 19, /* of Art. 9 only where somebody is spoken of */
    W_COMMON = 1u << 20,    /* a name that is also an ordinary word: needs company */
    W_AND = 1u << 21,
    W_BASIC = 1u << 22,         /* "Basic", "Bearer": a credential follows */
    W_KEY_START = 1u << 24,     /* what API keys begin with: sk, ghp, xoxb */
    W_TOWN_LINK = 1u << 25,     /* am, sur, upon: inside the names of towns */
    W_IS = 1u << 26,            /* is, ist, est: a value follows */
    W_CLOUD = 1u << 27,         /* aws, azure, gcp */
    W_GREETING = 1u << 28,      /* dear, hallo, Grüße: a first name may follow alone */
    W_COMPANY = 1u << 29,       /* GmbH, Ltd: what stands before it is no person */
    W_SPECIAL_START = 1u << 23, /* phrases of Art. 9 begin with it */
    W_PHRASE = 1u << 30         /* phrases begin with this word */
};

typedef struct word_entry {
    const char *text; /* folded: lower case, accents off, words of a phrase with a blank between */
    uint64_t hash;    /* of text */
    uint64_t rules;   /* a bit for each of id_rules: this word stands near such numbers */
    uint32_t kind;
    uint16_t value;
    uint8_t len;
    uint8_t id_kinds; /* ID_KIND_*: words of such numbers in general */
} word_entry;

#define WORD_MAX 72 /* bytes of a folded word or phrase; longer ones mean nothing */
typedef struct words words;
err_code words_new(words **out, err *e);
void words_free(words *w);
/* The longest entry that is the word, or the stem of it; 0: not known. `folded` is filled with zeros. */
unsigned words_find(const words *w, const char folded[WORD_MAX], size_t n);
/* A phrase exactly as it is, or by its stem. */
const word_entry *words_get(const words *w, unsigned id); /* of 0: a word without meaning */

/* Lower case without accents: ss for a sharp s, ae, oe, o for a slashed one. The length, or 0 where it is longer than
 * WORD_MAX or empty. out is filled with zeros. */
size_t word_fold(char out[WORD_MAX], const char *p, size_t n);
/* Does p begin with a capital letter? (ASCII and two-byte letters of Latin, Greek, Cyrillic) */
bool letter_is_capital(const char *p, size_t n);

/* words_*.c: entries with a blank between, phrases with '_', '-' or an apostrophe for theirs, '*' after
 * a stem. */
typedef struct word_list {
    uint32_t kind;
    uint16_t value;
    const char *text;
} word_list;
extern const word_list words_cues[], words_names[], words_places[], words_special[]; /* end with text NULL */

/* ---- the scan ----------------------------------------------------------------------------------------------- */

enum {                       /* of a token */
       T_LOWER = 1u << 0,    /* has lower case letters */
       T_UPPER = 1u << 1,    /* has capital letters */
       T_DIGIT = 1u << 2,    /* has digits */
       T_WIDE = 1u << 3,     /* has letters outside ASCII */
       T_CAPITAL = 1u << 4,  /* begins with a capital letter */
       T_AT = 1u << 5,       /* '@' stands right before it */
       T_COLON = 1u << 6,    /* ':' right before or after it */
       T_SLASHES = 1u << 7,  /* "//" right before it */
       T_LONG = 1u << 8,     /* 16 bytes or more */
       T_SENTENCE = 1u << 9, /* first of a sentence, a line, or a text */
       T_LINE = 1u << 10,    /* first of a line */
       T_DASHES = 1u << 11,  /* "-----" before it */
       T_HEX = 1u << 12,     /* only hexadecimal digits, at most 4 */
       T_NUMBER = 1u << 13,  /* digits only */
       T_BIC = 1u << 14,     /* 8 or 11 capital letters */
};

typedef struct token {
    uint32_t at, len;
    uint32_t flags;
    uint16_t word;
    uint16_t phrase;    /* the longest that begins here, once it was asked for; 0: not yet */
    uint8_t phrase_len; /* its tokens but one */
} token;

typedef struct hit { /* in the norm */
    uint32_t entity, score;
    uint32_t from, to;
} hit;

#define WINDOW      2048
#define WINDOW_KEEP 64 /* tokens before and after that a recogniser may look at */

typedef struct scratch { /* findings.scratch */
    norm m;
    hit *hits;
    size_t n_hits, cap_hits;
    uint64_t *taken; /* a bit for each byte of the norm */
    size_t cap_taken;
    void *match; /* the owner's patterns: their match data */
    uint64_t work;
    token tok[WINDOW];
} scratch;

typedef struct scan {
    scratch *x;
    const char *p; /* the norm */
    size_t n;
    token *t;
    size_t n_tok;
    const words *w;
    const struct rules *own; /* NULL: none */
    size_t claimed;          /* bytes before this were claimed whole by a recogniser (PEM, JWT) */
    size_t born;             /* where the word "born" stands whose date was found; + 1 */
    size_t named;            /* names before this were looked at */
    size_t housed;           /* addresses before this were looked at */
    size_t dialled;          /* phone numbers before this were looked at */
    bool failed;             /* out of memory or too many hits: code says which */
    err_code code;
} scan;

/* Which tokens a recogniser is asked at: those that carry one of `any`, or a word of one of `kinds`. */
typedef void recogniser_fn(scan *s, size_t i);
typedef struct recogniser {
    const char *name;
    uint32_t any, kinds;
    recogniser_fn *fn;
} recogniser;
extern const recogniser recognisers[]; /* ends with a NULL name */

void scan_add(scan *s, unsigned ent, unsigned score, size_t from, size_t to);
static inline const word_entry *scan_word(const scan *s, size_t i) {
    return words_get(s->w, s->t[i].word);
}
static inline size_t token_end(const token *t) {
    return (size_t)t->at + t->len;
}
/* The byte between token i and the one before it where it is one byte, 0 where it is more (or the start). */
static inline char scan_sep(const scan *s, size_t i) {
    return i && s->t[i].at == token_end(&s->t[i - 1]) + 1 ? s->p[s->t[i].at - 1] : 0;
}
static inline char scan_byte(const scan *s, size_t at) {
    return at < s->n ? s->p[at] : 0;
}
/* What the words around tokens i to j mean: `before` tokens to the left, `after` to the right, phrases too. */
typedef struct near_words {
    uint64_t rules;
    uint32_t kinds;
    uint8_t id_kinds;
} near_words;
near_words scan_near(const scan *s, size_t i, size_t j, unsigned before, unsigned after);
near_words scan_before(const scan *s, size_t i, unsigned before); /* only to the left */
const word_entry *scan_phrase(const scan *s, size_t i); /* the longest phrase that begins at token i, or the word */
const word_entry *scan_phrase_end(const scan *s, size_t i, size_t *last); /* and its last token */
err_code scan_run(scan *s); /* every token in turn; ERR_NOMEM or ERR_UNAVAILABLE */

/* byte classes */
enum {
    B_LOWER = 1,
    B_UPPER = 2,
    B_DIGIT = 4,
    B_WIDE = 8,
    B_WORD = 15,
    B_HEX = 16,
    B_URL = 32,
    B_B64 = 64,
    B_LEAD = 128
};
extern const uint8_t byte_class[256];

#endif
