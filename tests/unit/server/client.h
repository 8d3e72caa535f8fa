/* A raw HTTP client for tests: it sends exactly the bytes it is given and says what came back, or did not. */
#ifndef POLDER_TESTS_SERVER_CLIENT_H
#define POLDER_TESTS_SERVER_CLIENT_H

#include "base/buf.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

typedef struct reply {
    int status; /* 0: the connection ended without one */
    buf head;   /* status line and fields */
    buf body;   /* decoded where chunked */
    bool whole; /* the body came to its end as announced */
} reply;

static inline void reply_free(reply *r) {
    buf_free(&r->head);
    buf_free(&r->body);
}

static inline int client_tcp(int port) {
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&sa, sizeof sa) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static inline int client_unix(const char *path) {
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    snprintf(sa.sun_path, sizeof sa.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&sa, sizeof sa) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static inline bool client_send(int fd, const void *p, size_t n) {
    const char *q = p;
    while (n) {
        ssize_t k = send(fd, q, n, MSG_NOSIGNAL);
        if (k < 0 && errno == EINTR) continue;
        if (k <= 0) return false;
        q += k;
        n -= (size_t)k;
    }
    return true;
}

/* At most one byte more; -1 at the end, after an error or after 20 seconds. */
static inline int client_getc(int fd) {
    unsigned char c;
    struct pollfd p = {.fd = fd, .events = POLLIN};
    if (poll(&p, 1, 20000) <= 0) return -1;
    ssize_t k = recv(fd, &c, 1, 0);
    return k == 1 ? c : -1;
}

static inline bool client_line(int fd, buf *line) {
    buf_reset(line);
    for (;;) {
        int c = client_getc(fd);
        if (c < 0) return false;
        if (c == '\n') break;
        if (c != '\r') buf_putc(line, (char)c);
    }
    if (!line->ptr) buf_puts(line, "");
    return true;
}

static inline bool client_bytes(int fd, buf *to, size_t n) {
    while (n--) {
        int c = client_getc(fd);
        if (c < 0) return false;
        buf_putc(to, (char)c);
    }
    return true;
}

static inline bool client_chunks(int fd, reply *r, const char *until) {
    buf line = {.max = 1024};
    bool ok = false;
    while (client_line(fd, &line)) {
        size_t n = strtoul(buf_str(&line), NULL, 16);
        if (n == 0) {
            ok = client_line(fd, &line);
            break;
        }
        if (!client_bytes(fd, &r->body, n) || !client_line(fd, &line)) break;
        if (until && strstr(buf_str(&r->body), until)) break;
    }
    buf_free(&line);
    return ok;
}

/* The value of a field, or NULL; memory of the calling thread. */
static inline const char *reply_field(const reply *r, const char *name) {
    static _Thread_local char value[512];
    size_t n = strlen(name);
    const char *p = buf_str(&r->head);
    while ((p = strchr(p, '\n'))) {
        p++;
        if (strncasecmp(p, name, n) != 0 || p[n] != ':') continue;
        p += n + 1;
        while (*p == ' ') p++;
        snprintf(value, sizeof value, "%.*s", (int)strcspn(p, "\n"), p);
        return value;
    }
    return NULL;
}

/* Reads one reply. `until` (may be NULL): stop reading a chunked body once it holds this. */
static inline void client_read(int fd, reply *r, bool no_body, const char *until) {
    memset(r, 0, sizeof *r);
    buf_init(&r->head, 65536);
    buf_init(&r->body, 64u << 20);
    buf line = {.max = 65536};
    bool ended = false;
    while (client_line(fd, &line)) {
        if (line.len == 0 && r->head.len) {
            int status = atoi(buf_str(&r->head) + 9);
            if (status != 100) {
                ended = true;
                break;
            }
            buf_reset(&r->head); /* 100 Continue: the reply follows */
            continue;
        }
        buf_append(&r->head, line.ptr, line.len);
        buf_putc(&r->head, '\n');
    }
    buf_free(&line);
    if (!ended) return;
    r->status = atoi(buf_str(&r->head) + 9);
    const char *len = reply_field(r, "content-length");
    size_t n = len ? strtoul(len, NULL, 10) : 0;
    const char *enc = len ? NULL : reply_field(r, "transfer-encoding");
    if (no_body || r->status == 204)
        r->whole = true;
    else if (len)
        r->whole = client_bytes(fd, &r->body, n);
    else if (enc)
        r->whole = client_chunks(fd, r, until);
    if (!r->body.ptr) buf_puts(&r->body, "");
}

/* Does the peer close within the time? What it still sends is thrown away. */
static inline bool client_closed(int fd, int timeout_ms) {
    char junk[4096];
    struct pollfd p = {.fd = fd, .events = POLLIN};
    while (poll(&p, 1, timeout_ms) > 0)
        if (recv(fd, junk, sizeof junk, 0) <= 0) return true;
    return false;
}

/* A whole exchange on a connection of its own. `key` NULL: no Authorization. `body` NULL: none. */
static inline void client_request(int port, const char *key, const char *method, const char *path, const char *body,
                                  reply *r) {
    buf q = {.max = 64u << 20};
    buf_printf(&q, "%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n", method, path);
    if (key) buf_printf(&q, "Authorization: Bearer %s\r\n", key);
    if (body) buf_printf(&q, "Content-Type: application/json\r\nContent-Length: %zu\r\n", strlen(body));
    buf_puts(&q, "\r\n");
    if (body) buf_puts(&q, body);
    int fd = client_tcp(port);
    memset(r, 0, sizeof *r);
    if (fd >= 0 && client_send(fd, q.ptr, q.len)) client_read(fd, r, strcmp(method, "HEAD") == 0, NULL);
    if (fd >= 0) close(fd);
    buf_free(&q);
}

#endif
