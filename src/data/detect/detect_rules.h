/* Inside the detectors: the owner's own entities, from a file that a compliance officer can write.
 *
 *     # customer numbers, as printed on letters
 *     pattern customer-number group internal flags personal placeholder CUSTOMER : KD-[0-9]{8}
 *     pattern customer-number : Kundennr\. ([0-9]{6})
 *     words   project-names   group internal : Nordlicht, Blue Heron
 *     words   project-names :
 *         Steinadler
 *         Operation Deich
 *
 *   rule    = ("pattern" | "words") NAME { "group" NAME | "flags" FLAG { "," FLAG } | "placeholder" WORD | "score" N }
 * ":" … comment = "#" at the beginning of a line
 *
 *  - A line is a rule. Behind "words … :" stand entries with commas between, or one entry on each following line that
 *    begins with a blank. Entries are whole words, in capitals or not, with accents or not; between the words of an
 * entry up to three blanks or signs may stand.
 *  - A pattern is PCRE2 over the normalised text (UTF-8, Unicode classes; (?i) for any case). Where it has a group in
 *    brackets, what the first one holds is the finding.
 *  - NAME is new, or one of an earlier rule of this file: then this adds to it, without options. NAME and group: lower
 *    case letters, digits and '-'. WORD: capitals, digits and '_'; "none": found, never redacted. Left out: group
 * "own", no flags, the name in capitals, score 80.
 *
 * A pattern that runs into a limit makes the scan fail (ERR_UNAVAILABLE): "not found" would be a guess. A pattern that
 * can match nothing at all is refused.
 *
 * Linear time: a pattern looks at stretches of RULE_STRETCH bytes that overlap by RULE_OVERLAP (the longest match that
 * is surely found), and every try is held to RULE_MATCH_LIMIT steps. Entries are looked up in one table by hash. */
#ifndef POLDER_DATA_DETECT_RULES_H
#define POLDER_DATA_DETECT_RULES_H

#include "data/detect/internal.h"

#define RULES_BYTES_MAX   ((size_t)8 << 20)
#define RULES_MAX         256 /* patterns */
#define RULE_ENTRIES_MAX  100000
#define RULE_ENTRY_WORDS  8
#define RULE_PATTERN_MAX  2000
#define RULE_NAME_MAX     40
#define RULE_WORD_MAX     24 /* a placeholder's */
#define RULE_STRETCH      65536
#define RULE_OVERLAP      4096
#define RULE_MATCH_LIMIT  1000000
#define RULE_DEPTH_LIMIT  2000
#define RULE_HEAP_KIB_MAX 8192
#define RULE_STACK_MAX    ((size_t)1 << 20) /* of compiled patterns */

typedef struct rules rules;
/* Adds the owner's entities to info[*n..ENT_MAX). ERR_USAGE: "NAME:LINE:COLUMN: …". */
err_code rules_new(rules **out, const char *text, size_t len, const char *name, entity_info info[ENT_MAX], unsigned *n,
                   err *e);
void rules_free(rules *r); /* NULL is fine */
/* Words of dictionaries that begin at token i. */
void rules_words(scan *s, const rules *r, size_t i);
bool rules_have_words(const rules *r);
/* All patterns over the norm. ERR_UNAVAILABLE, ERR_NOMEM. */
err_code rules_patterns(scan *s, const rules *r, err *e);
void rules_scratch_free(void *match); /* scratch.match */

#endif
