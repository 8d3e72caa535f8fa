/* Canonical JSON (RFC 8785) without a tree: an object's members are written as they come, in any order, and take their
 * places when the object is closed. A record of thirty members costs no allocation but its buffer's.
 *
 *   jflat f;
 *   jflat_init(&f, 65535);
 *   jflat_str(&f, "model", name);
 *   jflat_obj(&f, "ms"); jflat_num(&f, "queue", 0.5); jflat_end(&f);
 *   rc = jflat_write(&f, NULL, out, e);
 *   jflat_free(&f);
 *
 * The bytes are those that json_canonical gives of the same tree (tests/unit/base/test_json.c compares the two).
 * Failure is sticky and comes out at jflat_write or jflat_check: ERR_NOMEM, ERR_TOO_LARGE, or ERR_INVALID for what
 * canonical JSON cannot hold (a number that is not finite, text that is not UTF-8, a key twice, nesting too deep). Keys
 * are not copied: they outlive the jflat. The text is not wiped: who holds secrets in it calls jflat_wipe.
 */
#ifndef POLDER_BASE_JSON_FLAT_H
#define POLDER_BASE_JSON_FLAT_H

#include "base/json.h"

#define JFLAT_FEW    40 /* members that need no list of their own */
#define JFLAT_LEVELS 8  /* of objects and arrays that are open; trees may go deeper */

typedef struct jflat_member {
    const char *key;
    uint32_t from, to; /* in the text: "key":value and a comma */
} jflat_member;

typedef struct jflat {
    buf text;
    size_t most;
    jflat_member few[JFLAT_FEW], *list; /* of the objects that are open, outermost first */
    uint32_t n, cap;
    uint32_t first[JFLAT_LEVELS]; /* member of each open object */
    bool array[JFLAT_LEVELS];
    int depth;
    err_code rc;
    char why[160];
} jflat;

void jflat_init(jflat *f, size_t max_bytes);
void jflat_free(jflat *f);
void jflat_wipe(jflat *f); /* and frees */

/* Members of the innermost open object, or elements of the innermost open array: key NULL. */
void jflat_str(jflat *f, const char *key, const char *s); /* NULL counts as a failed allocation */
void jflat_strn(jflat *f, const char *key, const char *s, size_t n);
void jflat_num(jflat *f, const char *key, double v);
void jflat_bool(jflat *f, const char *key, bool v);
void jflat_tree(jflat *f, const char *key, const cJSON *v);       /* a value as it is in a tree */
void jflat_object(jflat *f, const char *key, const jflat *inner); /* what another one holds */
void jflat_obj(jflat *f, const char *key);
void jflat_arr(jflat *f, const char *key);
void jflat_end(jflat *f); /* of the innermost object or array */

err_code jflat_check(const jflat *f, const char *what, err *e);
/* The object: f's members and more's (NULL: none). Every object and array within is closed. Appends to out. */
err_code jflat_write(const jflat *f, const jflat *more, buf *out, err *e);

#endif
