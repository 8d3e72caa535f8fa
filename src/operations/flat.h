/* Internal to operations: reads the members of an entry of the ledger in place.
 *
 * An entry is canonical JSON (RFC 8785), and ledger_read has compared it with the tree, so nothing is parsed twice and
 * no tree is made: a million records take seconds. Bytes that are no JSON end the walk; nothing is read past the end.
 */
#ifndef POLDER_OPERATIONS_FLAT_H
#define POLDER_OPERATIONS_FLAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct slice { /* a JSON value as it stands; p NULL: absent */
    const char *p;
    size_t n;
} slice;

typedef struct flat {
    const char *p, *end;
} flat;

/* A walk over the members of an object, or the items of an array; false where it is none. */
bool flat_object(flat *f, slice object);
bool flat_array(flat *f, slice array);
/* The next one; `key` (NULL for arrays) is without its quotes, its escapes stand. */
bool flat_next(flat *f, slice *key, slice *value);

bool slice_is(slice v, const char *json); /* "\"egress\"", "true" */
/* A string without its escapes, cut at whole characters to cap - 1 bytes; "" where it is none. */
void slice_text(slice v, char *out, size_t cap);
uint64_t slice_u64(slice v); /* 0 where it is no whole number */
double slice_num(slice v);   /* 0 where it is none */

#endif
