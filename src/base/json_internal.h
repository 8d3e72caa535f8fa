/* What json.c and json_flat.c share. Not included from outside the room. */
#ifndef POLDER_BASE_JSON_INTERNAL_H
#define POLDER_BASE_JSON_INTERNAL_H

#include "base/json.h"

typedef struct json_literal { /* of a number that a double does not hold */
    size_t number;            /* the how many-th of the text */
    size_t from, n;
} json_literal;

/* The tree of a text that json_parse's scan has accepted; `list` in the order of the text. NULL: no memory. */
cJSON *json_build(const char *s, size_t n, const json_literal *list, size_t n_list);
/* The order of RFC 8785's keys: by UTF-16 code units. */
int json_compare_keys(const char *a, const char *b);
/* How many bytes of s are ASCII and stand for themselves in a JSON string. */
size_t json_plain(const char *s, size_t n);
/* As json_canonical, of a value that stands `depth` levels deep in what is written. The caller checks the buf. */
err_code json_canonical_at(buf *out, const cJSON *v, int depth, err *e);

#endif
