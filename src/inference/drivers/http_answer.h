/* Internal to inference: the answer to an HTTP/1.1 request (RFC 9112) is read from pieces of any size.
 *
 * Interim answers (1xx) are passed over. The body ends by its length, its last chunk, or the end of the connection, in
 * the order that RFC 9112, 6.3 asks for. Content codings are not undone: none is asked for. What is malformed or
 * ambiguous ends the reading (`bad`): a header field without a name or continued on another line, a length that is no
 * number or is said twice differently, another transfer coding than chunked, a broken chunk. An answer cut into other
 * pieces gives the same bytes.
 */
#ifndef POLDER_INFERENCE_DRIVERS_HTTP_ANSWER_H
#define POLDER_INFERENCE_DRIVERS_HTTP_ANSWER_H

#include "base/buf.h"

#define HTTP_HEAD_MAX (64u << 10) /* bytes of an answer's head, with those of interim answers and trailers */

typedef enum http_part {
    HTTP_STATUS_LINE,
    HTTP_FIELDS,
    HTTP_BODY,       /* `left` bytes of it are to come */
    HTTP_BODY_CLOSE, /* until the connection ends */
    HTTP_CHUNK_SIZE,
    HTTP_CHUNK,
    HTTP_CHUNK_END,
    HTTP_TRAILERS,
    HTTP_OVER,
} http_part;

typedef struct http_answer { /* http_answer_init */
    http_part part;
    int status;        /* of the last head whose first line was read; 0 before */
    int retry_after_s; /* 0: not said; a day at most */
    bool keep;         /* once it is over: the connection can be used again */
    const char *bad;   /* nothing more is read; what is wrong, as "its answer …" goes on */
    bool no_memory;    /* nothing more is read */
    size_t head_bytes;
    uint64_t left;
    bool has_length, chunked;
    buf line; /* a line that has no end yet */
} http_answer;

/* Keeps the memory of `line` where it was used before. */
void http_answer_init(http_answer *h);
void http_answer_free(http_answer *h);
/* Takes bytes from (*p, *n): true with a piece of the body at (*body, *len), inside of what *p pointed at. false: all
 * bytes were taken, or the answer is over (what is left of *n does not belong to it), or bad or no_memory is set. */
bool http_answer_next(http_answer *h, const char **p, size_t *n, const char **body, size_t *len);
/* The connection has ended. false: in the middle of the answer. */
bool http_answer_end(http_answer *h);

#endif
