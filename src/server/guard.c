/* The guard: what is HTTP, and polder refuses, looked at before a byte of a body is read.
 *
 * A front end and polder must never disagree about where a request ends or whom it is for: so a repeated or odd
 * Content-Length, any Transfer-Encoding but "chunked", both of them together, and a missing or repeated Host are 400,
 * and the connection is closed after the reply. */
#include "server/internal.h"

#include <string.h>
#include <strings.h>

typedef struct scan {
    guard_facts *f;
    unsigned n_length, n_host, n_encoding, n_auth, n_key, n_type, n_label;
    bool says_close, says_keep;
    char why[200];
} scan;

static void parse_length(scan *sc, const char *v, size_t n) {
    uint64_t x = 0;
    bool ok = n > 0 && n <= 18;
    for (size_t i = 0; ok && i < n; i++) {
        ok = v[i] >= '0' && v[i] <= '9';
        x = x * 10 + (uint64_t)(v[i] - '0');
    }
    if (!ok) {
        snprintf(sc->why, sizeof sc->why, "Content-Length is not one decimal number");
        return;
    }
    sc->f->content_length = x;
}

static void parse_host(scan *sc, const char *v, size_t n) {
    if (n == 0 || n >= sizeof sc->f->host) {
        snprintf(sc->why, sizeof sc->why, "Host is empty or longer than %zu bytes", sizeof sc->f->host - 1);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)v[i];
        bool ok = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c >= 0x80 ||
                  (c != 0 && strchr("-._:[]%~!$&'()*+;=", c));
        if (!ok) {
            snprintf(sc->why, sizeof sc->why, "Host has characters that no host name has");
            return;
        }
    }
    memcpy(sc->f->host, v, n);
    sc->f->host[n] = 0;
}

static bool media_type_is_json(const char *v, size_t n) {
    size_t len = strcspn(v, "; \t");
    if (len > n) len = n;
    return len == 16 && strncasecmp(v, "application/json", 16) == 0;
}

static void scan_known(scan *sc, const char *k, const char *v, size_t n) {
    if (strcasecmp(k, "content-length") == 0) {
        sc->n_length++;
        parse_length(sc, v, n);
    } else if (strcasecmp(k, "transfer-encoding") == 0) {
        sc->n_encoding++;
        sc->f->chunked = n == 7 && strncasecmp(v, "chunked", 7) == 0;
        if (!sc->f->chunked)
            snprintf(sc->why, sizeof sc->why, "Transfer-Encoding is not \"chunked\": no other is understood");
    } else if (strcasecmp(k, "host") == 0) {
        sc->n_host++;
        parse_host(sc, v, n);
    } else if (strcasecmp(k, "authorization") == 0) {
        sc->n_auth++;
    } else if (strcasecmp(k, "x-api-key") == 0) {
        sc->n_key++;
    } else if (strcasecmp(k, "x-polder-label") == 0) {
        sc->n_label++;
    } else if (strcasecmp(k, "connection") == 0) {
        if (text_list_has(v, n, "close")) sc->says_close = true;
        if (text_list_has(v, n, "keep-alive")) sc->says_keep = true;
    } else if (strcasecmp(k, "content-type") == 0) {
        sc->n_type++;
        sc->f->is_json = media_type_is_json(v, n);
    } else if (strcasecmp(k, "expect") == 0) {
        sc->f->expects_continue = true;
        if (n != 12 || strncasecmp(v, "100-continue", 12) != 0)
            snprintf(sc->why, sizeof sc->why, "Expect is not \"100-continue\": nothing else is understood");
    } else if (strcasecmp(k, "content-encoding") == 0 && !(n == 8 && strncasecmp(v, "identity", 8) == 0)) {
        snprintf(sc->why, sizeof sc->why, "Content-Encoding is not understood: send the body uncompressed");
    }
}

err_code guard_request(const http_head *h, guard_facts *f, err *e) {
    memset(f, 0, sizeof *f);
    scan sc = {.f = f};
    size_t bytes = 0;
    if (strlen(h->method) >= METHOD_BYTES) return err_set(e, ERR_INVALID, "request: the method is not one");
    for (unsigned i = 0; i < h->n && !sc.why[0]; i++) {
        const http_field *v = &h->fields[i];
        bytes += v->n_name + v->n_value;
        if (bytes > HEADER_BYTES_MAX)
            snprintf(sc.why, sizeof sc.why, "more than %u bytes of header fields", HEADER_BYTES_MAX);
        else
            scan_known(&sc, v->name, v->value, v->n_value);
    }
    if (sc.why[0]) return err_set(e, ERR_INVALID, "request: %s", sc.why);
    if (sc.n_length > 1) return err_set(e, ERR_INVALID, "request: Content-Length is given more than once");
    if (sc.n_encoding > 1) return err_set(e, ERR_INVALID, "request: Transfer-Encoding is given more than once");
    if (sc.n_length && sc.n_encoding)
        return err_set(e, ERR_INVALID, "request: both Content-Length and Transfer-Encoding are given");
    if (sc.n_encoding && !h->v11) return err_set(e, ERR_INVALID, "request: Transfer-Encoding is not part of HTTP/1.0");
    if (sc.n_host > 1) return err_set(e, ERR_INVALID, "request: Host is given more than once");
    if (sc.n_host == 0 && h->v11) return err_set(e, ERR_INVALID, "request: Host is missing");
    if (sc.n_auth > 1 || sc.n_key > 1)
        return err_set(e, ERR_INVALID, "request: %s is given more than once",
                       sc.n_auth > 1 ? "Authorization" : "x-api-key");
    if (sc.n_label > 1) return err_set(e, ERR_INVALID, "request: x-polder-label is given more than once");
    if (sc.n_type > 1) return err_set(e, ERR_INVALID, "request: Content-Type is given more than once");
    f->has_body = f->chunked || f->content_length > 0;
    f->keeps = h->v11 ? !sc.says_close : sc.says_keep;
    return ERR_OK;
}

err_code guard_path(char *out, size_t cap, const char *raw, err *e) {
    size_t n = 0;
    if (raw[0] != '/') return err_set(e, ERR_INVALID, "request: the path does not begin with '/'");
    for (const char *p = raw; *p; p++) {
        unsigned char c = (unsigned char)*p;
        if (n + 1 >= cap) return err_set(e, ERR_INVALID, "request: the path is longer than %zu bytes", cap - 1);
        if (c <= 0x20 || c >= 0x7f || c == '#')
            return err_set(e, ERR_INVALID, "request: the path has bytes that must be percent-encoded");
        if (c == '%') {
            int hi = hex_value(p[1]), lo = hi < 0 ? -1 : hex_value(p[2]);
            if (lo < 0) return err_set(e, ERR_INVALID, "request: the path has a '%%' without two hex digits");
            c = (unsigned char)(hi << 4 | lo);
            if (c < 0x20 || c == 0x7f)
                return err_set(e, ERR_INVALID, "request: the path has an encoded control character");
            p += 2;
        }
        out[n++] = (char)c;
    }
    out[n] = 0;
    if (!utf8_valid(out, n)) return err_set(e, ERR_INVALID, "request: the path is not UTF-8");
    return ERR_OK;
}

bool guard_host_is_loopback(const char *host) {
    char name[256];
    snprintf(name, sizeof name, "%s", host);
    if (name[0] == '[') {
        char *end = strchr(name, ']');
        if (end) end[1] = 0;
    } else {
        name[strcspn(name, ":")] = 0;
    }
    bool v4 = strncmp(name, "127.", 4) == 0 && strspn(name, "0123456789.") == strlen(name);
    return v4 || strcasecmp(name, "localhost") == 0 || strcmp(name, "[::1]") == 0;
}
