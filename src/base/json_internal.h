/* What json.c and json_flat.c share. Not included from outside the room. */
#ifndef POLDER_BASE_JSON_INTERNAL_H
#define POLDER_BASE_JSON_INTERNAL_H

#include "base/json.h"

/* The order of RFC 8785's keys: by UTF-16 code units. */
int json_compare_keys(const char *a, const char *b);
/* How many bytes of s are ASCII and stand for themselves in a JSON string. */
size_t json_plain(const char *s, size_t n);
/* As json_canonical, of a value that stands `depth` levels deep in what is written. The caller checks the buf. */
err_code json_canonical_at(buf *out, const cJSON *v, int depth, err *e);

#endif
