/* Internal to inference: server-sent events (WHATWG HTML, 9.2.6) are read from pieces of any size.
 *
 * Lines end with LF, CR or CRLF; a byte order mark at the beginning is passed over, so are comments and the fields id
 * and retry; several data lines are joined by LF; an event without data is none; an event that the stream's end cuts
 * off is none. A stream cut into other pieces gives the same events.
 */
#ifndef POLDER_INFERENCE_DRIVERS_SSE_H
#define POLDER_INFERENCE_DRIVERS_SSE_H

#include "base/buf.h"

#define SSE_EVENT_MAX ((size_t)8 << 20) /* bytes of one event's data, and of one line */

typedef struct sse { /* zero-initialised, then sse_init */
    buf line;        /* a line that has no end yet */
    buf data;
    char name[64]; /* cut to fit */
    bool any_data, after_cr, begun, given;
    bool too_long, no_memory; /* nothing more comes */
} sse;

typedef struct sse_event {
    const char *name; /* "" where none was given */
    const char *data; /* ends with a NUL; until the next call */
    size_t len;
} sse_event;

void sse_init(sse *s);
void sse_free(sse *s);
/* Takes bytes from (*p, *n) until an event is complete: true. false: all were taken, or too_long or no_memory is set.
 */
bool sse_next(sse *s, const char **p, size_t *n, sse_event *ev);

#endif
