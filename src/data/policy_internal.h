/* Internal to data's policy files: what a parsed policy is.
 *
 * Everything of a policy lies in its arena: the text, the sentences in the order of the text, their lists. Lists are
 * linked; nothing is looked up by name once policy_parse has returned.
 */
#ifndef POLDER_DATA_POLICY_INTERNAL_H
#define POLDER_DATA_POLICY_INTERNAL_H

#include "base/mem.h"
#include "data/data.h"

#define SENTENCES_MAX      2000
#define ZONES_MAX          200
#define CONDITIONS_MAX     40  /* of one zone */
#define LIST_MAX           300 /* items of one list */
#define DAYS_MAX           36500
#define POLICY_ARENA_BYTES ((size_t)32 << 20)

/* ---- facts and places -------------------------------------------------------------------------------------- */

typedef enum fact_kind { KIND_TEXT, KIND_LIST, KIND_COUNTRY, KIND_YES_NO, KIND_DAYS } fact_kind;

/* X(identifier, the word of policies, kind) */
#define FACT_TABLE(X)                                  \
    X(FACT_NAME, "name", KIND_TEXT)                    \
    X(FACT_DRIVER, "driver", KIND_TEXT)                \
    X(FACT_JURISDICTION, "jurisdiction", KIND_COUNTRY) \
    X(FACT_OPERATOR, "operator", KIND_TEXT)            \
    X(FACT_LAW, "operator-law", KIND_COUNTRY)          \
    X(FACT_TRAINING, "training", KIND_YES_NO)          \
    X(FACT_RETENTION, "retention", KIND_DAYS)          \
    X(FACT_CERTIFICATES, "certificates", KIND_LIST)    \
    X(FACT_CONTRACT, "contract", KIND_TEXT)            \
    X(FACT_INSIDE, "inside", KIND_YES_NO)
typedef enum fact {
#define X(id, word, kind) id,
    FACT_TABLE(X)
#undef X
        FACTS_N
} fact;
const char *fact_word(fact f);
fact_kind fact_kind_of(fact f);

/* A set of countries: a bit for each pair of letters. */
#define COUNTRY_WORDS 11
typedef struct country_set {
    uint64_t bits[COUNTRY_WORDS];
} country_set;
int country_index(const char *s, size_t n); /* of an ISO 3166-1 alpha-2 code in capitals; -1: there is no such */
/* Adds a code, or all of "EU" or "EEA"; false where it is none. */
bool country_add(country_set *s, const char *word, size_t n);
static inline bool country_has(const country_set *s, int i) {
    return i >= 0 && (s->bits[i >> 6] >> (i & 63) & 1);
}
/* The code that was meant: "UK" is written for GB, "eu" for EU. False where none is known. */
bool country_hint(const char *s, size_t n, char out[4]);

typedef struct word_item { /* a word or a quoted string, without its quotes */
    const char *s;         /* NUL-terminated, not empty */
    struct word_item *next;
} word_item;

typedef struct condition {
    fact fact;
    country_set countries; /* KIND_COUNTRY */
    word_item *values;     /* KIND_TEXT, KIND_LIST: any of them */
    bool yes;              /* KIND_YES_NO */
    int32_t days;          /* KIND_DAYS: at most */
    const char *text;      /* as it is written */
    struct condition *next;
} condition;

typedef struct zone {
    const char *name;
    unsigned line;
    condition *conditions; /* all must hold; there is at least one */
    struct zone *next;
} zone;

typedef enum place_kind { PLACE_ON_PREM, PLACE_ZONE, PLACE_ANY, PLACE_PROVIDER } place_kind;
typedef struct place {
    place_kind kind;
    const char *name; /* of the zone or provider */
    const zone *zone;
    unsigned line, column;
    struct place *next;
} place;

/* ---- sentences --------------------------------------------------------------------------------------------- */

typedef enum sentence_kind {
    SENTENCE_ZONE,
    SENTENCE_ALLOW,
    SENTENCE_NEVER,
    SENTENCE_TREAT,
    SENTENCE_RAISE
} sentence_kind;

typedef struct sentence {
    sentence_kind kind;
    unsigned line;
    const char *text;       /* NUL-terminated, on one line */
    uint8_t levels;         /* allow, never: a bit for each level */
    uint8_t flags;          /* never: what it names; raise: flags among its things */
    place *places;          /* allow, never */
    bool redacts;           /* allow: has "after redact" */
    entity_set things;      /* allow: to redact; raise: when found */
    word_item *thing_words; /* as they are written */
    uint8_t level;          /* treat, raise */
    bool detector_error;    /* treat; otherwise it is "unlabelled" */
    zone *zone;             /* zone */
    struct sentence *next;
} sentence;

struct policy {
    arena *arena;
    label_set labels;
    const detector *d;
    char *text;
    size_t n;
    uint8_t digest[SHA256_LEN];
    sentence *sentences;
    zone *zones;
    size_t n_sentences, n_zones;
    entity_set carries[FLAGS_N];        /* entities that set the flag 1 << i */
    uint8_t unlabelled, detector_error; /* levels */
};

/* Where something stands in the perimeter, by its facts: the one place where sentences meet providers. `first`: it is
 * the engine, number 0 of its list. */
bool condition_holds(const condition *c, const provider_facts *f, bool first);
bool zone_has(const zone *z, const provider_facts *f, bool first);
bool place_has(const place *p, const provider_facts *f, bool first);
bool places_have(const place *list, const provider_facts *f, bool first);
/* Is what the condition asks for not known of it? */
bool fact_unknown(fact f, const provider_facts *p);
/* "on-prem", "provider mistral", …; appended */
void place_text(const place *p, buf *out);

/* What policy_prove needs of the parser: PLACE { "," PLACE } and things from a text of its own, against a policy's
 * zones. */
typedef enum subject_kind { SUBJECT_LEAVES, SUBJECT_REACHES } subject_kind;
typedef struct statement {
    uint8_t levels; /* bits; all of them where no level is named but a flag is */
    uint8_t flags;  /* cells count that have one of these; 0: all cells of `levels` */
    bool anything;
    subject_kind kind;
    place *places;
    bool without; /* "without redact" */
    entity_set things;
} statement;
err_code statement_parse(statement *out, const policy *p, arena *a, const char *text, err *e);

/* The list of sentences of a policy that speak of a cell. */
bool sentence_allows(const sentence *s, uint8_t level);
bool sentence_forbids_outside(const sentence *s, sensitivity v);

/* ---- is there a provider? (policy_case.c) ------------------------------------------------------------------ */

/* A question about every provider that could ever be declared: one that stands in a place of each group, and in none of
 * `outside`. Facts are free and independent of one another, known or not; the one thing that is taken for granted is
 * that no declared provider is named "engine". */
typedef struct place_list {
    const place **list;
    size_t n, cap;
} place_list;
typedef struct question {
    place_list *groups;
    size_t n_groups, cap_groups;
    place_list outside;
    bool nomem;
} question;
void question_free(question *q);
void question_group(question *q);                   /* begins a group; without a place it is false */
void question_in(question *q, const place *places); /* adds to the group begun last */
void question_outside(question *q, const place *places);

typedef enum case_answer { CASE_NONE, CASE_FOUND, CASE_UNDECIDED } case_answer;
#define CASE_BUDGET 20000000u /* steps of one statement; about a quarter of a second */
/* CASE_FOUND: *witness is such a provider. CASE_UNDECIDED: *budget was used up; counts as found wherever something is
 * to be proven. */
err_code question_answer(question *q, uint64_t *budget, case_answer *out, provider_facts *witness, err *e);

/* Could a provider be declared that `to` allows in this cell and `from` does not? */
err_code policy_opened_for(const policy *from, const policy *to, sensitivity v, uint64_t *budget, case_answer *out,
                           provider_facts *w, err *e);

/* ---- JSON for reports; false where memory is short ------------------------------------------------------------ */

bool report_add_str(cJSON *array, const char *s);
bool report_facts(cJSON *o, const provider_facts *f); /* the facts that policies can ask for; unknown ones are null */
bool report_label(cJSON *o, const policy *p, sensitivity v);
/* Words of what sentences want redacted before it reaches `f` at this level, each once. */
bool report_redact(cJSON *o, const char *key, const policy *p, uint8_t level, const provider_facts *f, bool first);
/* Numbers of the lines of the sentences that allow it. */
bool report_allow_lines(cJSON *o, const policy *p, uint8_t level, const provider_facts *f, bool first);

/* ---- lexer (policy_lex.c) ---------------------------------------------------------------------------------- */

typedef enum token_kind {
    TOKEN_WORD,
    TOKEN_STRING,
    TOKEN_COMMA,
    TOKEN_EQUAL,
    TOKEN_AT_MOST,
    TOKEN_END,
    TOKEN_EOF,
    TOKEN_ARROW,
    TOKEN_NO_ARROW
} token_kind;
typedef struct token {
    token_kind kind;
    const char *s; /* of a string: without its quotes */
    size_t n;
    unsigned line, column;   /* in characters, from 1 */
    const char *from, *past; /* its bytes */
} token;
typedef struct lexer {
    const char *name, *at, *end;
    unsigned line, column;
    bool arrows; /* "->" and "-x->" are tokens: in expectations, not in policies */
} lexer;
void lexer_init(lexer *x, const char *name, const char *s, size_t n);
/* ERR_USAGE: a character that means nothing here, an open quote. */
err_code lexer_next(lexer *x, token *t, err *e);

/* The word of `list` that is nearest to s, where one is near enough to have been meant; NULL. */
const char *word_nearest(const char *s, size_t n, const char *const *list, size_t n_list);

#endif
