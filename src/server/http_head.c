#include "server/http_head.h"

#include "base/bytes.h"

#include <string.h>
#include <strings.h>

#define CHUNK_LINE_MAX 256u   /* bytes of a chunk's size and its extensions */
#define TRAILERS_MAX   16384u /* bytes */
#define SIZE_DIGITS    15u    /* hexadecimal */

/* ---- the head ---------------------------------------------------------------------------------------------- */

size_t http_head_length(const char *p, size_t n, size_t *from) {
    size_t start = 0;
    while (start + 1 < n && p[start] == '\r' && p[start + 1] == '\n') start += 2;
    size_t i = *from > start ? *from : start;
    for (;;) {
        const char *end = i < n ? memchr(p + i, '\n', n - i) : NULL;
        if (!end) break;
        i = (size_t)(end - p) + 1;
        /* an empty line, with a bare line end too: http_head_read says what is wrong with it */
        if (i >= 2 + start && p[i - 2] == '\n') return i;
        if (i >= 3 + start && p[i - 2] == '\r' && p[i - 3] == '\n') return i;
    }
    *from = n;
    return 0;
}

/* "POST /v1/models?x=1 HTTP/1.1" */
static err_code read_request_line(http_head *h, char *p, size_t n, err *e) {
    size_t k = text_token(p, n);
    if (!k || k >= n || p[k] != ' ')
        return err_set(e, ERR_INVALID, "request: its first line does not begin with a method");
    h->method = p;
    p[k] = 0;
    char *target = p + k + 1, *end = memchr(target, ' ', n - k - 1);
    if (!end || end == target) return err_set(e, ERR_INVALID, "request: its first line has no path or no version");
    for (const char *c = target; c < end; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            return err_set(e, ERR_INVALID, "request: its first line has control characters");
    *end = 0;
    const char *version = end + 1;
    size_t m = n - (size_t)(version - p);
    if (m != 8 || memcmp(version, "HTTP/1.", 7) != 0 || (version[7] != '0' && version[7] != '1'))
        return err_set(e, ERR_INVALID, "request: the protocol is neither HTTP/1.1 nor HTTP/1.0");
    h->v11 = version[7] == '1';
    char *query = memchr(target, '?', (size_t)(end - target));
    if (query == target) return err_set(e, ERR_INVALID, "request: its first line has a query and no path");
    if (query) *query++ = 0;
    h->target = target;
    h->query = query ? query : "";
    return ERR_OK;
}

static err_code read_field(http_head *h, char *p, size_t n, err *e) {
    if (h->n == HEAD_FIELDS_MAX) return err_set(e, ERR_INVALID, "request: more than %u header fields", HEAD_FIELDS_MAX);
    size_t k = text_token(p, n);
    if (!k || k >= n || p[k] != ':')
        return err_set(e, ERR_INVALID, "request: a header field's name has characters that no name has");
    char *v = p + k + 1, *end = p + n;
    while (v < end && (*v == ' ' || *v == '\t')) v++;
    while (end > v && (end[-1] == ' ' || end[-1] == '\t')) end--;
    p[k] = 0;
    for (const char *c = v; c < end; c++)
        if (((unsigned char)*c < 0x20 && *c != '\t') || *c == 0x7f)
            return err_set(e, ERR_INVALID, "request: the value of header field %.60s has control characters", p);
    *end = 0; /* there is a line end behind it at least */
    h->fields[h->n++] = (http_field){p, v, k, (size_t)(end - v)};
    return ERR_OK;
}

err_code http_head_read(http_head *h, char *p, size_t n, err *e) {
    h->n = 0;
    h->method = h->target = h->query = "";
    h->v11 = true;
    char *at = p, *end = p + n;
    while (end - at >= 2 && at[0] == '\r' && at[1] == '\n') at += 2;
    for (bool first = true; at < end; first = false) {
        char *nl = memchr(at, '\n', (size_t)(end - at));
        if (!nl || nl == at || nl[-1] != '\r')
            return err_set(e, ERR_INVALID, "request: a line of its head does not end as HTTP's lines do");
        size_t len = (size_t)(nl - 1 - at);
        if (!first && !len) return ERR_OK;
        err_code rc = first ? read_request_line(h, at, len, e) : read_field(h, at, len, e);
        if (rc != ERR_OK) return rc;
        at = nl + 1;
    }
    return err_set(e, ERR_INVALID, "request: its head has no end");
}

const char *http_field_value(const http_head *h, const char *name) {
    size_t n = strlen(name);
    for (unsigned i = 0; i < h->n; i++)
        if (h->fields[i].n_name == n && strncasecmp(h->fields[i].name, name, n) == 0) return h->fields[i].value;
    return NULL;
}

const char *http_query_value(const http_head *h, const char *name, size_t *n) {
    size_t k = strlen(name);
    for (const char *p = h->query; *p; p += *p == '&') {
        size_t len = strcspn(p, "&");
        if (len > k && memcmp(p, name, k) == 0 && p[k] == '=') {
            *n = len - k - 1;
            return p + k + 1;
        }
        p += len;
    }
    return NULL;
}

/* ---- chunks ------------------------------------------------------------------------------------------------ */

enum {
    CHUNK_SIZE,
    CHUNK_SPACE,
    CHUNK_EXTENSION,
    CHUNK_SIZE_LF,
    CHUNK_DATA,
    CHUNK_CR,
    CHUNK_LF,
    TRAILER,
    TRAILER_TEXT,
    TRAILER_LF,
    LAST_LF
};

/* One byte of what stands around chunks; false: it cannot stand there. */
static bool take_byte(http_chunks *c, char b) {
    switch (c->part) {
    case CHUNK_SIZE: {
        int d = hex_value(b);
        if (d >= 0) {
            c->left = c->left << 4 | (unsigned)d;
            return ++c->digits <= SIZE_DIGITS;
        }
        c->part = b == '\r' ? CHUNK_SIZE_LF : b == ';' ? CHUNK_EXTENSION : CHUNK_SPACE;
        return c->digits && (b == '\r' || b == ';' || b == ' ' || b == '\t');
    }
    case CHUNK_SPACE:
        if (b == '\r' || b == ';') c->part = b == ';' ? CHUNK_EXTENSION : CHUNK_SIZE_LF;
        return ++c->n_line <= CHUNK_LINE_MAX && (b == '\r' || b == ';' || b == ' ' || b == '\t');
    case CHUNK_EXTENSION:
        if (b == '\r') c->part = CHUNK_SIZE_LF;
        return ++c->n_line <= CHUNK_LINE_MAX && b != '\n' && b != 0;
    case CHUNK_SIZE_LF:
        c->part = c->left ? CHUNK_DATA : TRAILER;
        c->n_line = c->digits = 0;
        return b == '\n';
    case CHUNK_CR: c->part = CHUNK_LF; return b == '\r';
    case CHUNK_LF: c->part = CHUNK_SIZE; return b == '\n';
    case TRAILER: c->part = b == '\r' ? LAST_LF : TRAILER_TEXT; return ++c->n_trailers <= TRAILERS_MAX && b != '\n';
    case TRAILER_TEXT:
        if (b == '\r') c->part = TRAILER_LF;
        return ++c->n_trailers <= TRAILERS_MAX && b != '\n' && b != 0;
    case TRAILER_LF: c->part = TRAILER; return b == '\n';
    default: c->over = true; return b == '\n';
    }
}

bool http_chunks_next(http_chunks *c, const char **p, size_t *n, const char **body, size_t *len) {
    while (*n && !c->over && !c->bad) {
        if (c->part == CHUNK_DATA) {
            size_t k = c->left < *n ? (size_t)c->left : *n;
            *body = *p;
            *len = k;
            *p += k;
            *n -= k;
            c->left -= k;
            if (!c->left) c->part = CHUNK_CR;
            return true;
        }
        c->bad = !take_byte(c, **p);
        ++*p;
        --*n;
    }
    return false;
}
