/* Part of data's public header: values that become placeholders, and come back.
 *
 * A redaction is the mapping of one request: values to placeholders as [IBAN_1]. The same value (of the same entity)
 * has the same placeholder; numbers count up in the order in which values first come, so a conversation that grows
 * keeps those of its beginning. A placeholder that stands in the caller's own text (redaction_see) is never given out
 * and never restored. It belongs to one request and one thread; nothing of it is shared between requests.
 */
#ifndef POLDER_DATA_REDACT_H
#define POLDER_DATA_REDACT_H

#include "base/buf.h"
#include "data/detect.h"

#define REDACTIONS_MAX     10000 /* values of one request */
#define PLACEHOLDER_MAX    48    /* bytes of "[NATIONAL_ID_10000]" and what models make of it */
#define REDACTED_BYTES_MAX ((size_t)64 << 20)

typedef struct redaction redaction;
err_code redaction_new(redaction **out, const detector *d, err *e);
void redaction_free(redaction *r); /* wipes it; NULL is fine */
/* Before the first redaction_text: every text of the request. */
err_code redaction_see(redaction *r, const char *text, size_t n, err *e);
/* `text` with every finding of an entity in `set` replaced, appended to out. The exact bytes of a value decide which
 * placeholder it has: the same number written with other separators is another value, so that restoring is exact.
 * ERR_TOO_LARGE past the limits above; after an error `out` is not to be used. */
err_code redaction_text(redaction *r, const char *text, size_t n, const finding *f, size_t n_found,
                        const entity_set *set, buf *out, err *e);
size_t redaction_count(const redaction *r); /* different values */
/* {"[IBAN_1]": "DE89…"}: canonical JSON, for the vault. */
err_code redaction_json(const redaction *r, buf *out, err *e);

/* Placeholders back into values, in pieces cut at any byte. Held back: at most what could still become a placeholder,
 * PLACEHOLDER_MAX bytes (in RESTORE_JSON six times as many, for an escape is six bytes). Case, the backslashes that
 * writers of Markdown put before brackets and underscores ("\[IBAN\_1\]") and full-width brackets are forgiven; a
 * number that was never given out stays as it is.
 *
 * A backslash before the opening bracket goes away only where a later one shows that it was an escape: restoring what
 * redaction_text made gives back the exact text, one with a backslash before a value too.
 * In RESTORE_JSON a placeholder outside a string becomes a number where its value is one, else a string. */
typedef enum restore_form {
    RESTORE_TEXT,
    RESTORE_JSON /* inside JSON (arguments of a call): what is put in is escaped; \uXXXX escapes are understood */
} restore_form;
typedef struct restorer restorer;
err_code restorer_new(restorer **out, const redaction *r, restore_form form, err *e); /* r must outlive it */
void restorer_free(restorer *x);                                                      /* NULL is fine */
/* Appends what is certain to out. */
err_code restorer_feed(restorer *x, const char *p, size_t n, buf *out, err *e);
/* The end: what was held back, as it is. The restorer may be used again from the start. */
err_code restorer_end(restorer *x, buf *out, err *e);
uint64_t restorer_count(const restorer *x); /* placeholders that were restored */

#endif
