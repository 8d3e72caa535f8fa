#include "inference/drivers/sse.h"

#include <stdio.h>
#include <string.h>

void sse_init(sse *s) {
    *s = (sse){.line = {.max = SSE_EVENT_MAX}, .data = {.max = SSE_EVENT_MAX}};
}

void sse_free(sse *s) {
    buf_free(&s->line);
    buf_free(&s->data);
}

static bool is_field(const char *line, size_t n, const char *name) {
    return n == strlen(name) && memcmp(line, name, n) == 0;
}

static void take_field(sse *s, const char *line, size_t n) {
    const char *colon = memchr(line, ':', n);
    size_t n_name = colon ? (size_t)(colon - line) : n;
    const char *v = colon ? colon + 1 : line + n;
    size_t n_v = (size_t)(line + n - v);
    if (n_v && *v == ' ') v++, n_v--;
    if (is_field(line, n_name, "data")) {
        if (s->any_data) buf_putc(&s->data, '\n');
        buf_append(&s->data, v, n_v);
        s->any_data = true;
    } else if (is_field(line, n_name, "event")) {
        if (n_v >= sizeof s->name) n_v = sizeof s->name - 1;
        memcpy(s->name, v, n_v);
        s->name[n_v] = 0;
    }
}

/* true: the line ended an event. */
static bool take_line(sse *s, const char *line, size_t n) {
    if (!s->begun && n >= 3 && memcmp(line, "\xEF\xBB\xBF", 3) == 0) line += 3, n -= 3;
    s->begun = true;
    if (n) {
        take_field(s, line, n);
        return false;
    }
    if (s->any_data) return true;
    s->name[0] = 0;
    return false;
}

/* The event before this call is over. */
static void begin_event(sse *s) {
    buf_reset(&s->data);
    s->name[0] = 0;
    s->any_data = s->given = false;
}

static const char *find_end(const char *p, size_t n) {
    const char *lf = memchr(p, '\n', n);
    const char *cr = memchr(p, '\r', lf ? (size_t)(lf - p) : n);
    return cr ? cr : lf;
}

static bool failed(sse *s) {
    const buf *b = s->line.failed ? &s->line : s->data.failed ? &s->data : NULL;
    if (b && b->over_max) s->too_long = true;
    if (b && !b->over_max) s->no_memory = true;
    return s->too_long || s->no_memory;
}

bool sse_next(sse *s, const char **p, size_t *n, sse_event *ev) {
    if (s->given) begin_event(s);
    while (*n && !failed(s)) {
        if (s->after_cr && **p == '\n') {
            s->after_cr = false;
            (*p)++, (*n)--;
            continue;
        }
        s->after_cr = false;
        const char *end = find_end(*p, *n);
        size_t len = end ? (size_t)(end - *p) : *n;
        const char *line = *p;
        if (s->line.len || !end) {
            buf_append(&s->line, *p, len);
            line = buf_str(&s->line);
        }
        size_t n_line = s->line.len ? s->line.len : len;
        *p += len + (end != NULL);
        *n -= len + (end != NULL);
        if (!end) break;
        s->after_cr = *end == '\r';
        bool whole = !failed(s) && take_line(s, line, n_line);
        buf_reset(&s->line);
        if (!whole) continue;
        s->given = true;
        *ev = (sse_event){s->name, buf_str(&s->data), s->data.len};
        return true;
    }
    failed(s);
    return false;
}
