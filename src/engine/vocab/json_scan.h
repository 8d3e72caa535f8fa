/* Internal to engine: reading large JSON from front to back without a tree: a vocabulary of 262,144 tokens and half a
 * million merges takes 35 MB of text, and a tree of it ten times that.
 *
 * The first error stays (`rc`, and a sentence with the offset in `e`); every later call does nothing and says false.
 * Depth is limited; strings are checked for UTF-8, bare control characters and lone surrogates. */
#ifndef POLDER_ENGINE_JSON_SCAN_H
#define POLDER_ENGINE_JSON_SCAN_H

#include "base/buf.h"

#include <stdbool.h>
#include <stddef.h>

#define JSON_SCAN_DEPTH_MAX 64

typedef struct json_scan {
    const char *start, *p, *end;
    const char *name; /* of the input, for errors */
    err *e;
    err_code rc;
    int depth;
    bool first; /* the next member or element is the first of its container */
} json_scan;

void json_scan_init(json_scan *j, const char *s, size_t n, const char *name, err *e);
char json_scan_peek(json_scan *j); /* the next value's first character; 0 at the end or after an error */
bool json_scan_enter(json_scan *j, char open /* '{' or '[' */);
/* The next member: its key (replaced) is read, its value is next. False at the end of the object, which is left. */
bool json_scan_member(json_scan *j, buf *key);
/* The next element is next; false at the end of the array, which is left. */
bool json_scan_element(json_scan *j);
bool json_scan_string(json_scan *j, buf *out); /* replaces out; ERR_TOO_LARGE past its maximum */
bool json_scan_number(json_scan *j, double *out);
bool json_scan_bool(json_scan *j, bool *out);
bool json_scan_null(json_scan *j); /* takes a null; false and nothing taken where the value is another */
/* Takes any value; *p and *n are its text where they are not NULL. */
bool json_scan_skip(json_scan *j, const char **p, size_t *n);
bool json_scan_end(json_scan *j); /* only white space is left */
/* Sets the error. Returns false. */
bool json_scan_fail(json_scan *j, const char *what);

#endif
