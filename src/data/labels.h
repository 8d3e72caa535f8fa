/* Part of data's public header: how sensitive something is.
 *
 * A level is one of the island's ordered list (low to high); flags stand beside it. Both only rise: joining two
 * sensitivities takes the higher level and all flags.
 */
#ifndef POLDER_DATA_LABELS_H
#define POLDER_DATA_LABELS_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LABELS_MAX     8
#define LABEL_NAME_MAX 31
#define LABELS_DEFAULT "public, internal, confidential, secret"

typedef struct label_set { /* immutable once made */
    uint8_t n;
    char name[LABELS_MAX][LABEL_NAME_MAX + 1]; /* lower case letters, digits and '-', low to high */
} label_set;

/* From a comma-separated list. ERR_USAGE with a sentence: none, too many, twice the same, bad characters, or a word
 * that policies use otherwise (a flag's name, "any", "unlabelled", …). */
err_code label_set_parse(label_set *out, const char *list, err *e);
int label_find(const label_set *s, const char *name, size_t n); /* -1 where it is none */

/* X(bit, name) */
#define FLAG_TABLE(X)                                     \
    X(FLAG_PERSONAL, "personal")                          \
    X(FLAG_SPECIAL, "special-category") /* GDPR Art. 9 */ \
    X(FLAG_CREDENTIAL, "credential")
enum { FLAG_PERSONAL = 1, FLAG_SPECIAL = 2, FLAG_CREDENTIAL = 4, FLAGS_ALL = 7, FLAGS_N = 3 };
unsigned flag_find(const char *name, size_t n); /* 0 where it is none */
const char *flag_name(unsigned flag);           /* of one bit */

typedef struct sensitivity {
    uint8_t level; /* index into the island's list */
    uint8_t flags;
} sensitivity;

sensitivity sensitivity_join(sensitivity a, sensitivity b);
/* What a caller declares: "confidential", or with flags "confidential, personal", in any order; at most one level.
 * *has_level false: only flags (or nothing) were given. ERR_INVALID names the word and what is known. */
err_code sensitivity_declare(sensitivity *out, bool *has_level, const label_set *s, const char *text, err *e);
/* "confidential", "internal, personal, credential": level first. At most SENSITIVITY_TEXT bytes with the NUL. */
#define SENSITIVITY_TEXT 96
void sensitivity_text(char out[SENSITIVITY_TEXT], const label_set *s, sensitivity v);

#endif
