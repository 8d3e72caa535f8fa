/* Internal to engine: automata over characters (Unicode scalar values), from which the byte automata of strings are
 * made.
 *
 * A char_nfa is what a regular expression means. A char_dfa is deterministic and partial (NONE: no way on), its letters
 * are classes of characters that no edge tells apart; sets of strings are combined as char_dfas. The alphabet is all
 * scalar values but U+0000, which no text of an answer holds. */
#ifndef POLDER_ENGINE_CHARS_H
#define POLDER_ENGINE_CHARS_H

#include "engine/grammar/grammar.h"

#define CHAR_FIRST 1u
#define CHAR_LAST  0x10ffffu
#define CHAR_NONE  UINT32_MAX

#define CHAR_NFA_STATES_MAX 500000u
#define CHAR_DFA_STATES_MAX 30000u
#define CHAR_DFA_CELLS_MAX  8000000u /* states times classes */

typedef enum char_edge_kind { CHAR_EMPTY, CHAR_RANGE, CHAR_BEGIN, CHAR_END } char_edge_kind;

typedef struct char_edge {
    uint32_t from, to, lo, hi;
    char_edge_kind kind;
} char_edge;

typedef struct char_nfa {
    uint32_t n_states, start, end;
    char_edge *edges;
    uint32_t n_edges, cap_edges;
    bool has_anchors;
    bool no_memory, too_large; /* sticky */
} char_nfa;

void char_nfa_free(char_nfa *n);
uint32_t char_nfa_state(char_nfa *n);
void char_nfa_edge(char_nfa *n, char_edge_kind kind, uint32_t from, uint32_t lo, uint32_t hi, uint32_t to);
/* All characters of the alphabet. */
void char_nfa_any(char_nfa *n, uint32_t from, uint32_t to);
err_code char_nfa_check(const char_nfa *n, err *e);

typedef struct char_dfa {
    uint32_t n_states; /* 0 is the start; none: the empty set of strings */
    uint32_t n_classes;
    uint32_t *first; /* (n_classes + 1): class c is the characters first[c] to first[c + 1] - 1 */
    uint32_t *next;  /* (n_states, n_classes) */
    uint8_t *accepts;
} char_dfa;

void char_dfa_free(char_dfa *d);
/* ERR_TOO_LARGE where it would pass the limits. */
err_code char_dfa_from(char_dfa *out, const char_nfa *n, err *e);
/* Exactly these strings (UTF-8). */
err_code char_dfa_strings(char_dfa *out, const char *const *list, size_t n, err *e);
err_code char_dfa_all(char_dfa *out, err *e);
/* Strings in a and in b, or in a and not in b. */
err_code char_dfa_both(char_dfa *out, const char_dfa *a, const char_dfa *b, bool not_b, err *e);
/* Strings of a that have min to max characters; max UINT64_MAX: no bound. A bound that makes too many states is lowered
 * (never below min): strings beyond it are then left out. */
err_code char_dfa_length(char_dfa *out, const char_dfa *a, uint64_t min, uint64_t max, err *e);
bool char_dfa_is_empty(const char_dfa *d);
bool char_dfa_matches(const char_dfa *d, const char *s, size_t n);

/* How characters are written as bytes. */
typedef enum char_form { FORM_PLAIN, FORM_JSON /* inside of a JSON string, escaped only where it must be */ } char_form;
/* The strings between two states of a network. */
void char_dfa_emit(const char_dfa *d, builder *b, uint32_t from, uint32_t to, char_form form);
void char_nfa_emit(const char_nfa *n, builder *b, uint32_t from, uint32_t to, char_form form);
void chars_emit(builder *b, uint32_t from, uint32_t lo, uint32_t hi, uint32_t to, char_form form);

/* ---- regular expressions (regex.c) ------------------------------------------------------------------------------
 *
 *   characters   all but \ ^ $ . * + ? ( ) [ ] { } |   stand for themselves ({ and ] where they cannot mean more, too)
 *   .            any character but line ends (\n \r U+2028 U+2029)
 *   \d \D \w \W \s \S (ASCII digits and words; white space of ECMAScript), \t \n \r \f \v \0 \xHH \uHHHH \u{H…} \cX,
 *   \p{…} \P{…} with a general category (L, Lu, Letter, Uppercase_Letter, …), \ before any other ASCII punctuation
 *   [a-z\d] [^…]  ( … ) (?: … ) (?<name> … )  a|b  * + ? {m} {m,} {m,n}, each with ? behind it (the same texts)
 *   ^ $          beginning and end of the text
 * Look-around, back references, \b \B, inline flags are ERR_UNSUPPORTED: with them the texts are not a regular set, or
 * too many automata. */
typedef enum regex_kind { REGEX_WHOLE, REGEX_SEARCH /* found anywhere, as JSON Schema's pattern */ } regex_kind;
err_code regex_parse(char_nfa *out, const char *pattern, size_t len, regex_kind kind, err *e);

#endif
