/* Internal to server: the head of an HTTP/1.1 request (RFC 9112), and bodies in chunks.
 *
 * What another reader could take differently is refused: a line end without its carriage return, a field without a name
 * or continued on another line, a space before the colon, a request line that is not three words, control characters.
 * Which fields may stand beside one another is guard.c's to say.
 */
#ifndef POLDER_SERVER_HTTP_HEAD_H
#define POLDER_SERVER_HTTP_HEAD_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HEAD_FIELDS_MAX 64u

typedef struct http_field {
    const char *name, *value; /* NUL-terminated; the value without spaces around it */
    size_t n_name, n_value;
} http_field;

/* Points into the bytes it was read from. */
typedef struct http_head {
    const char *method, *target; /* the target up to '?' */
    const char *query;           /* behind the '?'; "" where there is none */
    bool v11;                    /* HTTP/1.1; otherwise 1.0 */
    unsigned n;
    http_field fields[HEAD_FIELDS_MAX];
} http_head;

/* Bytes of the head at the beginning of (p, n) with the empty line behind it, 0 where its end has not come; *from is
 * where to go on looking (0 at first). Empty lines in front of it belong to it. */
size_t http_head_length(const char *p, size_t n, size_t *from);
/* Takes (p, n), of which http_head_length says that it is a head, apart: p is changed. ERR_INVALID. */
err_code http_head_read(http_head *h, char *p, size_t n, err *e);
/* The value of the first field of that name (in any case), or NULL. */
const char *http_field_value(const http_head *h, const char *name);
/* The value of NAME=VALUE in the query, not decoded: it has *n bytes; NULL: there is none. */
const char *http_query_value(const http_head *h, const char *name, size_t *n);

/* A body in chunks, read from pieces of any size; zero-initialised. */
typedef struct http_chunks {
    uint8_t part;
    bool over, bad;
    unsigned n_line; /* bytes of the line that is being read */
    unsigned digits;
    size_t n_trailers;
    uint64_t left;
} http_chunks;

/* Takes bytes from (*p, *n): true with a piece of the body at (*body, *len). false: all were taken, or the body is over
 * (what is left does not belong to it), or it is `bad`. */
bool http_chunks_next(http_chunks *c, const char **p, size_t *n, const char **body, size_t *len);

#endif
